// Finds the bridge (plugins/bridge/, built by scripts/build-bridge.ts), brings it into the process and checks that it understands
// itself. Called once, on the main thread, by `main.ts`; its `Bridge` goes to `loader.ts`. Knows nothing of plugins.

import { dlopen, type Pointer, ptr } from "bun:ffi";
import { closeSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BRIDGE_ABI, BridgeFunction } from "./abi.ts";
import { whyNotALibrary } from "./library-file.ts";

/** The bridge cannot be had. `message` is a sentence for the log. */
export class BridgeError extends Error {
	override readonly name = "BridgeError";
}

export interface BridgeLibrary {
	/** The library's bytes, or where it lies. */
	readonly bytes?: Uint8Array;
	readonly file?: string;
}

const FILE_NAME = "libpgdog_bridge";

/**
 * The bridge that belongs to this build: embedded in the executable, or cargo's output when run from the source tree.
 * Null when it was built without cargo.
 */
export async function findBridge(): Promise<BridgeLibrary | null> {
	// An entry point of `bun build --compile` that is no code: its name there has a hash, and folders if it lay outside the root.
	const embedded = Bun.embeddedFiles.find((file) => (file as Blob & { name: string }).name.includes(FILE_NAME));
	if (embedded !== undefined) return { bytes: new Uint8Array(await embedded.arrayBuffer()) };
	if (Bun.isStandaloneExecutable) return null;
	const suffix = process.platform === "darwin" ? "dylib" : "so";
	const file = join(import.meta.dir, `../../plugins/target/release/${FILE_NAME}.${suffix}`);
	return existsSync(file) ? { file } : null;
}

const SYMBOLS = {
	pgdog_bridge_abi: { args: [], returns: "u32" },
	pgdog_bridge_check: { args: [], returns: "i32" },
	pgdog_bridge_version: { args: ["u32", "ptr", "ptr"], returns: "i32" },
	pgdog_bridge_error_message: { args: ["ptr", "ptr"], returns: "i32" },
	pgdog_bridge_open: { args: ["ptr", "ptr"], returns: "ptr" },
	pgdog_bridge_symbol: { args: ["ptr", "ptr", "ptr"], returns: "ptr" },
	pgdog_bridge_string: { args: ["ptr", "ptr", "ptr"], returns: "i32" },
	pgdog_bridge_table: { args: ["ptr"], returns: "void" },
} as const;

/** Lengths go as "ptr": a Number passed so costs least. See reference: 64-bit words. */
const size = (length: number) => length as unknown as Pointer;

type Symbols = ReturnType<typeof dlopen<typeof SYMBOLS>>["symbols"];

/** The bridge in this process, as the main thread uses it to open plugins. */
export class Bridge {
	/** `rustc --version` of the compiler that built it; plugins must have the same. */
	readonly rustc: string;
	/** Version of the pg_query crate that it was built with; plugins must have the same. */
	readonly pgQuery: string;
	/** Whether several threads parse side by side, or one after another (built without plugins/.cargo/config.toml). */
	readonly parallel: boolean;
	/** Addresses by `BridgeFunction`. */
	readonly functions: readonly number[];
	readonly #symbols: Symbols;
	// Memory whose address is given to native code is made this way only: small typed arrays move when `.buffer` is touched.
	readonly #text = new Uint8Array(new ArrayBuffer(4096));
	readonly #decoder = new TextDecoder("utf-8", { fatal: true });

	/** @throws BridgeError when the bridge is not of this host, or does not understand itself. */
	constructor(path: string) {
		try {
			this.#symbols = dlopen(path, SYMBOLS).symbols;
		} catch (error) {
			throw new BridgeError(`the plugin bridge cannot be opened: ${(error as Error).message}`);
		}
		const abi = this.#symbols.pgdog_bridge_abi();
		if (abi !== BRIDGE_ABI) throw new BridgeError(`the plugin bridge has ABI ${abi}, expected ${BRIDGE_ABI}`);
		if (this.#symbols.pgdog_bridge_check() !== 0) {
			throw new BridgeError(`the plugin bridge was built wrongly: ${this.lastError()}`);
		}
		const version = (which: number) =>
			this.#read(this.#symbols.pgdog_bridge_version(which, ptr(this.#text), size(this.#text.length))) ?? "";
		this.rustc = version(0);
		this.pgQuery = version(1);
		this.parallel = version(2) === "yes";
		const table = new Float64Array(new ArrayBuffer(BridgeFunction.Count * 8));
		const words = new Uint32Array(table.buffer);
		this.#symbols.pgdog_bridge_table(ptr(table));
		this.functions = Array.from(table, (_, i) => (words[2 * i + 1] ?? 0) * 2 ** 32 + (words[2 * i] ?? 0));
	}

	/** Of the last call that failed on this thread. */
	lastError(): string {
		const length = this.#symbols.pgdog_bridge_error_message(ptr(this.#text), size(this.#text.length));
		return new TextDecoder().decode(this.#text.subarray(0, Math.min(length, this.#text.length)));
	}

	/** Opens a library and runs its constructors. Returns its handle, or 0 and `lastError()`. Never closed. */
	open(file: string): number {
		const path = new TextEncoder().encode(file);
		return Number(this.#symbols.pgdog_bridge_open(path as unknown as Pointer, size(path.length)) ?? 0);
	}

	/** The address of a symbol, 0 when the library has none of that name. */
	symbol(library: number, name: string): number {
		const bytes = new TextEncoder().encode(name);
		return Number(
			this.#symbols.pgdog_bridge_symbol(size(library), bytes as unknown as Pointer, size(bytes.length)) ?? 0,
		);
	}

	/** What a `void f(PdStr *)` says; null when that is not text of sensible length. */
	string(address: number): string | null {
		return this.#read(this.#symbols.pgdog_bridge_string(size(address), ptr(this.#text), size(this.#text.length)));
	}

	#read(length: number): string | null {
		if (length < 0 || length > this.#text.length) return null;
		try {
			return this.#decoder.decode(this.#text.subarray(0, length));
		} catch {
			return null;
		}
	}
}

/**
 * Brings the bridge into the process. Bytes go to an anonymous file in memory, so that a read-only or noexec temporary folder
 * does not matter; where the kernel has none, to a private folder that is removed at once.
 * @throws BridgeError
 */
export function openBridge(library: BridgeLibrary): Bridge {
	if (library.file !== undefined) {
		const problem = whyNotALibrary(library.file);
		if (problem !== null) throw new BridgeError(`the plugin bridge ${library.file} cannot be used because ${problem}`);
		return new Bridge(library.file);
	}
	const bytes = library.bytes ?? new Uint8Array(0);
	return fromMemory(bytes) ?? fromPrivateFolder(bytes);
}

const MFD_CLOEXEC = 1;

function fromMemory(bytes: Uint8Array): Bridge | null {
	if (process.platform !== "linux") return null;
	const descriptor = memoryFile();
	if (descriptor < 0) return null;
	try {
		for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
		return new Bridge(`/proc/self/fd/${descriptor}`);
	} catch (error) {
		// What is wrong with the library itself would be wrong in a folder too.
		if (error instanceof BridgeError && !error.message.includes("cannot be opened")) throw error;
		return null;
	} finally {
		closeSync(descriptor);
	}
}

function memoryFile(): number {
	for (const libc of ["libc.so.6", "libc.so", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
		try {
			const { symbols } = dlopen(libc, { memfd_create: { args: ["cstring", "u32"], returns: "i32" } });
			return symbols.memfd_create(Buffer.from(`${FILE_NAME}\0`) as unknown as Pointer, MFD_CLOEXEC);
		} catch {
			// Another libc, then.
		}
	}
	return -1;
}

/** Folders that are private or can hold a private one; systemd makes the first for `RuntimeDirectory=`. */
function folders(): string[] {
	const { RUNTIME_DIRECTORY, XDG_RUNTIME_DIR } = process.env;
	return [RUNTIME_DIRECTORY, XDG_RUNTIME_DIR, tmpdir(), "/dev/shm", "/var/tmp"].filter(
		(folder) => folder !== undefined,
	);
}

/** Exported for the test of machines without memfd. */
export function fromPrivateFolder(bytes: Uint8Array, candidates: readonly string[] = folders()): Bridge {
	const failures: string[] = [];
	for (const candidate of candidates) {
		let folder: string | undefined;
		try {
			folder = mkdtempSync(join(candidate, "pgdog-"));
			const file = join(folder, `${FILE_NAME}.so`);
			writeFileSync(file, bytes, { mode: 0o700, flag: "wx" });
			return new Bridge(file);
		} catch (error) {
			failures.push(`${candidate}: ${(error as Error).message}`);
		} finally {
			if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
		}
	}
	throw new BridgeError(`the plugin bridge cannot be written to any folder (${failures.join("; ")})`);
}

/** The whole text of a file's `pg_query-<version>` source paths, which the compiler leaves in panic messages. */
export function pgQueryVersionsIn(file: string): Set<string> {
	const bytes = readFileSync(file);
	const versions = new Set<string>();
	for (let at = bytes.indexOf("/pg_query-"); at >= 0; at = bytes.indexOf("/pg_query-", at + 1)) {
		const found = /^\/pg_query-(\d+\.\d+\.\d+[^/\s]{0,20})\/src\//.exec(bytes.toString("latin1", at, at + 64));
		if (found?.[1] !== undefined) versions.add(found[1]);
	}
	return versions;
}
