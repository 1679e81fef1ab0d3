// What the kernel says of a running process: memory and processor time. Linux only (/proc).

import { readFileSync } from "node:fs";

/** Clock ticks of a second, as /proc counts them (USER_HZ): 100 wherever Linux runs. */
const TICKS = 100;

/** What is counted of a process's memory: all that is resident, or only what is not pages of files (proc(5), /proc/pid/status). */
type Counted = "VmRSS" | "RssAnon";

/** Kilobytes. */
function resident(pid: number, counted: Counted): number {
	const line = new RegExp(`${counted}:\\s+(\\d+) kB`);
	return Number(line.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
}

/** Kilobytes resident once that has not moved by more than a percent for a second: garbage is collected when it is convenient. */
export async function settled(pid: number, counted: Counted = "VmRSS"): Promise<number> {
	let last = resident(pid, counted);
	for (let calm = 0, tries = 0; calm < 4 && tries < 60; tries++) {
		await Bun.sleep(250);
		const now = resident(pid, counted);
		calm = Math.abs(now - last) <= last / 100 ? calm + 1 : 0;
		last = now;
	}
	return last;
}

/** Seconds of processor time so far, of all threads (fields 14 and 15 of /proc/pid/stat). */
export function processorTime(pid: number): number {
	const [, rest] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ");
	const fields = rest!.split(" ");
	return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Percent of one core that the process takes for so many seconds. */
export async function load(pid: number, seconds: number): Promise<number> {
	const from = processorTime(pid);
	const started = performance.now();
	await Bun.sleep(seconds * 1000);
	return ((processorTime(pid) - from) / (performance.now() - started)) * 100_000;
}
