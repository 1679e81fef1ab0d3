// What is resident of the executable, as the system tells it.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { releaseCode } from "../../src/net/code.ts";

/** Kilobytes of files that are resident (proc(5), /proc/self/status). */
const resident = () => Number(/RssFile:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);

// A proxy that nobody used kept 20 MB of code that it had started with.
test.if(process.platform === "linux")("code that was run once does not stay resident, and can be run again", () => {
	const work = () => JSON.stringify([..."released"].toSorted().map((letter) => letter.codePointAt(0)));
	const before = work();
	const much = resident();
	releaseCode();
	expect(resident()).toBeLessThan(much - 4_000);
	expect(work()).toBe(before);
});
