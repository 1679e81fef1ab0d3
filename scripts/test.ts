// `npm test`: what `npm run check` looks at, then `bun test` with the arguments given. Ends with one line of counts.

import { availableParallelism } from "node:os";
import { join } from "node:path";
import { check } from "./check.ts";

const root = join(import.meta.dir, "..");
const args = process.argv.slice(2);

/** Of a test that does not say its own, ms: many start a real PostgreSQL, on machines that are busy. bunfig.toml cannot say it. */
const TIMEOUT = 60_000;

/**
 * So many files are run at a time, each by a process: they mostly wait for servers to start and for timeouts. A process keeps its
 * modules from file to file (`--no-isolate`), since its template of a PostgreSQL and its watchers over what it starts live as long.
 */
const AT_A_TIME = [`--parallel=${Math.min(availableParallelism(), 4)}`, "--no-isolate"];

/** `bun test` prints its counts at the end of stderr, one a line: " 12 pass". */
export function counts(output: string): { pass: number; fail: number; skip: number } {
	const count = (word: string) => Number([...output.matchAll(new RegExp(`^ *(\\d+) ${word}$`, "gm"))].at(-1)?.[1] ?? 0);
	// A file that cannot be loaded, or an error between tests, is counted apart.
	const errors = Number([...output.matchAll(/^ *(\d+) errors?$/gm)].at(-1)?.[1] ?? 0);
	return { pass: count("pass"), fail: count("fail") + errors, skip: count("skip") };
}

if (import.meta.main) {
	// Part of the files is asked for while working on them: then only their result matters.
	const clean = args.length > 0 || (await check());
	const child = Bun.spawn([process.execPath, "test", `--timeout=${TIMEOUT}`, ...AT_A_TIME, ...args], {
		cwd: root,
		stdin: "ignore",
		stdout: "inherit",
		stderr: "pipe",
		env: process.stderr.isTTY ? { ...process.env, FORCE_COLOR: "1" } : process.env,
	});
	// The terminal's Ctrl-C reaches the child too, which ends and so ends us.
	process.on("SIGINT", () => undefined);
	process.on("SIGTERM", () => child.kill());
	const decoder = new TextDecoder();
	let output = "";
	for await (const chunk of child.stderr) {
		process.stderr.write(chunk);
		output += decoder.decode(chunk, { stream: true });
	}
	const code = await child.exited;
	const { pass, fail, skip } = counts(Bun.stripANSI(output));
	console.log(`\n${pass} passed, ${fail} failed${skip ? `, ${skip} skipped` : ""}`);
	if (!clean) console.log("a check found mistakes: see above");
	const skippedInCI = process.env.CI === "true" && skip > 0;
	if (skippedInCI) console.log("a test was skipped, which CI=true does not allow");
	process.exit(code !== 0 || !clean || skippedInCI || pass === 0 ? 1 : 0);
}
