// Libraries that are loaded from a copy which nobody else can change: `cp new.so` over a file that is mapped into a process takes
// the ground from under its feet (SIGBUS). The bridge of an executable lies in no file at all. Copies are anonymous files in
// memory, so that a read-only or noexec temporary folder does not matter; where the kernel has none, in a private folder.

import { dlopen, type Pointer } from "bun:ffi";
import { closeSync, mkdtempSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface MemoryFile {
	readonly descriptor: number;
	/** A name under which the loader finds it while the descriptor is open. */
	readonly path: string;
}

const MFD_CLOEXEC = 1;
/**
 * A file in memory with these bytes. The loader takes two libraries of one path for one library, also when the first one's
 * descriptor was closed since and its number given anew: so the path of a `kept` file differs from those of all others.
 * @param name for /proc and debuggers
 * @param kept the descriptor stays open for the life of the process
 * @returns null where the kernel has no such files, or no room
 */
export function memoryFile(name: string, bytes: Uint8Array, kept: boolean): MemoryFile | null {
	if (process.platform !== "linux") return null;
	const descriptor = memfd(name);
	if (descriptor < 0) return null;
	try {
		for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
		return { descriptor, path: `/proc/self/fd/${kept ? "./" : ""}${descriptor}` };
	} catch {
		closeSync(descriptor);
		return null;
	}
}

function memfd(name: string): number {
	// The kernel takes 249 bytes.
	const called = Buffer.from(`${name.replace(/[^\x21-\x7e]/g, "?").slice(0, 200)}\0`);
	for (const libc of ["libc.so.6", "libc.so", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
		try {
			const { symbols } = dlopen(libc, { memfd_create: { args: ["cstring", "u32"], returns: "i32" } });
			return symbols.memfd_create(called as unknown as Pointer, MFD_CLOEXEC);
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

/** Does `load` with a file of these bytes in the first folder where it does not throw; the file is removed after that. */
export function inPrivateFolder<T>(
	name: string,
	bytes: Uint8Array,
	load: (file: string) => T,
	candidates: readonly string[] = folders(),
): { readonly result: T | null; readonly failures: readonly string[] } {
	const failures: string[] = [];
	for (const candidate of candidates) {
		let folder: string | undefined;
		try {
			folder = mkdtempSync(join(candidate, "pgdog-"));
			const file = join(folder, name);
			writeFileSync(file, bytes, { mode: 0o700, flag: "wx" });
			return { result: load(file), failures };
		} catch (error) {
			failures.push(`${candidate}: ${(error as Error).message}`);
		} finally {
			if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
		}
	}
	return { result: null, failures };
}
