// Finds the bridge (plugins/bridge/, built by scripts/build-bridge.ts), brings it into the process and checks that it understands
// itself. Called once, on the main thread, by `main.ts`; its `Bridge` goes to `loader.ts`. Knows nothing of plugins.

import { dlopen, type Pointer, ptr } from "bun:ffi";
import { closeSync, existsSync } from "node:fs";
import { join } from "node:path";
import { BRIDGE_ABI, BridgeFunction } from "./abi.ts";
import { whyNotALibrary } from "./library-file.ts";
import { inPrivateFolder, memoryFile } from "./private-copy.ts";

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
	// The library is an entry point of `bun build --compile` that is no code: its name has a hash, and folders if outside the root.
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
	pgdog_bridge_watch: { args: ["u32"], returns: "void" },
	pgdog_bridge_name: { args: ["ptr", "ptr"], returns: "u32" },
	pgdog_bridge_open: { args: ["ptr", "ptr", "u32"], returns: "ptr" },
	pgdog_bridge_symbol: { args: ["ptr", "ptr", "ptr"], returns: "ptr" },
	pgdog_bridge_string: { args: ["ptr", "u32", "ptr", "ptr"], returns: "i32" },
	pgdog_bridge_table: { args: ["ptr"], returns: "void" },
} as const;

/** Lengths go as "ptr", a word of 64 bits: a Number passed so costs least. */
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

	/** The message of the last call that failed on this thread. */
	lastError(): string {
		const length = this.#symbols.pgdog_bridge_error_message(ptr(this.#text), size(this.#text.length));
		return new TextDecoder().decode(this.#text.subarray(0, Math.min(length, this.#text.length)));
	}

	/**
	 * From now on plugins that end the process or do not come back are named on standard error, by the bridge itself.
	 * @param format `log_format`
	 */
	watch(format: "text" | "json" | "json_flattened"): void {
		this.#symbols.pgdog_bridge_watch(["text", "json", "json_flattened"].indexOf(format));
	}

	/** The number by which the bridge knows the plugin with this name, in the lines of `watch`. */
	number(name: string): number {
		const bytes = new TextEncoder().encode(name);
		return this.#symbols.pgdog_bridge_name(bytes as unknown as Pointer, size(bytes.length));
	}

	/** Opens the library of the plugin with this number, and runs its constructors. @returns its handle, or 0 and `lastError()`; never closed */
	open(file: string, number: number): number {
		const path = new TextEncoder().encode(file);
		return Number(this.#symbols.pgdog_bridge_open(path as unknown as Pointer, size(path.length), number) ?? 0);
	}

	/** The address of a symbol, 0 when the library has none of that name. */
	symbol(library: number, name: string): number {
		const bytes = new TextEncoder().encode(name);
		return Number(
			this.#symbols.pgdog_bridge_symbol(size(library), bytes as unknown as Pointer, size(bytes.length)) ?? 0,
		);
	}

	/** What a `void f(PdStr *)` of the plugin with this number says; null when that is not text of sensible length. */
	string(address: number, number: number): string | null {
		const { length } = this.#text;
		return this.#read(this.#symbols.pgdog_bridge_string(size(address), number, ptr(this.#text), size(length)));
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

function fromMemory(bytes: Uint8Array): Bridge | null {
	const file = memoryFile(FILE_NAME, bytes, false);
	if (file === null) return null;
	try {
		return new Bridge(file.path);
	} catch (error) {
		// What is wrong with the library itself would be wrong in a folder too.
		if (error instanceof BridgeError && !error.message.includes("cannot be opened")) throw error;
		return null;
	} finally {
		closeSync(file.descriptor);
	}
}

/** Exported for the test of machines without memfd. */
export function fromPrivateFolder(bytes: Uint8Array, candidates?: readonly string[]): Bridge {
	const tried = inPrivateFolder(`${FILE_NAME}.so`, bytes, (file) => new Bridge(file), candidates);
	if (tried.result !== null) return tried.result;
	throw new BridgeError(`the plugin bridge cannot be written to any folder (${tried.failures.join("; ")})`);
}
