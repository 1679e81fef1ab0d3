// `npm run first-start`: the time from `git clone` of this repository (its last commit) to a proxy that serves, with nothing built
// before. What npm and cargo have downloaded already is used again: the network is nobody's figure but its own.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../test/support/postgres.ts";
import { RawClient } from "../test/support/raw-client.ts";
import { adopt } from "../test/support/reaper.ts";
import { machine } from "./bench/machine.ts";

/** A machine that takes longer has another problem, ms. */
const LIMIT = 1_800_000;

const place = mkdtempSync(join(tmpdir(), "pgdog-first-start-"));
const clone = join(place, "pgdog");
const port = freePort();
const started = performance.now();
const seconds = () => ((performance.now() - started) / 1000).toFixed(0);
try {
	const source = join(import.meta.dir, "..");
	const { success } = Bun.spawnSync(["git", "-c", "safe.directory=*", "clone", "--quiet", source, clone], {
		stderr: "inherit",
	});
	if (!success) throw new Error("git clone failed");
	// What cargo is told here by its own environment must not find what was built before.
	const { CARGO_TARGET_DIR: _, ...env } = process.env;
	const child = Bun.spawn(["npm", "start"], {
		cwd: clone,
		env: { ...env, PGDOG_PORT: String(port) },
		stdin: "ignore",
		stdout: "inherit",
		stderr: "inherit",
		detached: true,
	});
	adopt(child);
	let answer: string | null | undefined;
	while (answer === undefined && child.exitCode === null && performance.now() - started < LIMIT) {
		await Bun.sleep(100);
		const door = { port, user: "pgdog", password: "pgdog", database: "pgdog" };
		const client = await RawClient.connect(door).catch(() => undefined);
		if (client === undefined) continue;
		answer = (await client.query("SELECT count(*) FROM cities")).rows[0]?.[0];
		client.close();
	}
	const time = seconds();
	process.kill(-child.pid, "SIGTERM");
	await child.exited;
	if (answer === undefined) throw new Error(`npm start did not serve within ${time} s`);
	console.log(`\n${machine({}, `from git clone to the first answered query: ${time} s`)}`);
} finally {
	rmSync(place, { recursive: true, force: true });
}
