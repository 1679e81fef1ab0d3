// `npm test`: `bun test` with the arguments given; without any, what `npm run check` looks at and all tests. `--coverage` alone also
// counts which lines of src the tests without a compiled proxy run (coverage/measure.ts), for CI. Ends with
// the tests that failed, and one line of counts.

import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { check } from "./check.ts";
import { coverageFlags, judge, testFiles } from "./coverage/measure.ts";

const root = join(import.meta.dir, "..");

/** Of a test that does not say its own, ms: many start a real PostgreSQL, on machines that are busy. bunfig.toml cannot say it. */
const TIMEOUT = 60_000;

/** How long each file took when it was last measured: the long ones begin first, so that none is left for the end. */
const TIMINGS = join(root, "test", "timings.json");

/**
 * So many files are run at a time, each by a process: they mostly wait for servers to start and for timeouts. A process keeps its
 * modules from file to file (`--no-isolate`), since its template of a PostgreSQL and its watchers over what it starts live as long.
 */
const AT_A_TIME = Math.min(availableParallelism() + 1, 4);

/** `bun test` prints its counts at the end of stderr, one a line: " 12 pass". */
export function counts(output: string): { pass: number; fail: number; skip: number } {
	const count = (word: string) => Number([...output.matchAll(new RegExp(`^ *(\\d+) ${word}$`, "gm"))].at(-1)?.[1] ?? 0);
	// A file that cannot be loaded, or an error between tests, is counted apart.
	const errors = Number([...output.matchAll(/^ *(\d+) errors?$/gm)].at(-1)?.[1] ?? 0);
	return { pass: count("pass"), fail: count("fail") + errors, skip: count("skip") };
}

/** So many lines of a test that failed are told again at the end, from its last ones. */
const TOLD_AGAIN = 60;

/** What `bun test` printed of each test that failed: its file, what stood before its result, the result. */
export function failures(output: string): string[] {
	const found: string[] = [];
	let file = "";
	let since: string[] = [];
	for (const line of output.split("\n")) {
		// A summary of the failures may follow, by name alone.
		if (/^\d+ tests? failed:$/.test(line)) break;
		if (/^\S+\.test\.ts:$/.test(line)) {
			file = line;
			since = [];
		} else if (line.startsWith("(fail) ")) {
			found.push([file, ...since.slice(-TOLD_AGAIN), line].join("\n"));
			since = [];
		} else if (/^\((pass|skip|todo)\) /.test(line)) since = [];
		else since.push(line);
	}
	return found;
}

interface Run {
	code: number;
	output: string;
}

/** @param isShown as it comes; else its output is for the caller */
async function run(args: string[], isShown = true): Promise<Run> {
	const child = Bun.spawn([process.execPath, "test", `--timeout=${TIMEOUT}`, ...args], {
		cwd: root,
		stdin: "ignore",
		stdout: isShown ? "inherit" : "ignore",
		stderr: "pipe",
		env: process.stderr.isTTY ? { ...process.env, FORCE_COLOR: "1" } : process.env,
	});
	process.on("SIGTERM", () => child.kill());
	const decoder = new TextDecoder();
	let output = "";
	for await (const chunk of child.stderr) {
		if (isShown) process.stderr.write(chunk);
		output += decoder.decode(chunk, { stream: true });
	}
	return { code: await child.exited, output };
}

function inParallel(...args: string[]): Promise<Run> {
	return run([`--parallel=${AT_A_TIME}`, "--no-isolate", `--timings=${TIMINGS}`, ...args]);
}

/** Each test once: one process counts lines while others run what starts the executable. */
async function withCoverage(): Promise<{ runs: Run[]; isCovered: boolean }> {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-coverage-"));
	try {
		const { rooms, others } = testFiles();
		const runs = await Promise.all([run([...coverageFlags(folder), ...rooms], false), inParallel(...others)]);
		process.stderr.write(runs[0].output);
		return { runs, isCovered: judge(folder) };
	} finally {
		rmSync(folder, { recursive: true });
	}
}

if (import.meta.main) {
	const args = process.argv.slice(2);
	// The terminal's Ctrl-C reaches the children too, which end and so end us.
	process.on("SIGINT", () => undefined);
	const countsLines = args.length === 1 && args[0] === "--coverage";
	// Part of the files is asked for while working on them: then only their result matters.
	const isClean = (args.length > 0 && !countsLines) || (await check());
	const { runs, isCovered } = countsLines
		? await withCoverage()
		: { runs: [await inParallel(...args)], isCovered: true };
	const outputs = runs.map(({ output }) => Bun.stripANSI(output));
	const told = outputs.map(counts);
	const sum = (word: "pass" | "fail" | "skip") => told.reduce((total, of) => total + of[word], 0);
	const skipped = sum("skip");
	// Thousands of lines above, where a log that is cut short no longer has them.
	for (const failure of outputs.flatMap(failures)) console.log(`\n${failure}`);
	console.log(`\n${sum("pass")} passed, ${sum("fail")} failed${skipped ? `, ${skipped} skipped` : ""}`);
	if (!isClean) console.log("a check found mistakes: see above");
	if (!isCovered) console.log("tests run too little of a room: see above");
	const skippedInCI = process.env.CI === "true" && skipped > 0;
	if (skippedInCI) console.log("a test was skipped, which CI=true does not allow");
	const failed = runs.some(({ code }) => code !== 0) || told.some(({ pass }) => pass === 0);
	process.exit(failed || !isClean || !isCovered || skippedInCI ? 1 : 0);
}
