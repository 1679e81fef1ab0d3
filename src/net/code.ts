// The pages of the executable's own code that are resident. Most are there for its start only, and as long as nobody else wants the
// memory the system leaves them. Linux only (/proc).

import { readFileSync } from "node:fs";
import { letGo } from "./options.ts";

/** A mapping of code in /proc/self/smaps (proc(5)): from, to, file, and how much of it is no longer as in the file. */
const CODE = /^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \d+ +(.*)\n(?:[A-Z].*\n)*?Anonymous: +(\d+) kB/gm;

/**
 * Lets go of the pages of the executable's code; each that is needed again is had from the system's cache in about a microsecond.
 * Nothing is done to code that somebody (a debugger) has changed: that would be lost.
 */
export function releaseCode(): void {
	let mappings: string;
	try {
		mappings = readFileSync("/proc/self/smaps", "latin1");
	} catch {
		return;
	}
	for (const [, from, to, file, changed] of mappings.matchAll(CODE)) {
		const start = Number.parseInt(from!, 16);
		if (file === process.execPath && changed === "0") letGo(start, Number.parseInt(to!, 16) - start);
	}
}
