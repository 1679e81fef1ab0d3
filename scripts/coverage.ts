// `npm run coverage`: what the tests without a compiled proxy run of each room of src, held against a floor (coverage/floors.ts):
// no room shall live by the integration tests alone. They run in one process, with the lines counted; `npm test -- --coverage` does
// the same beside all other tests.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { coverageFlags, judge, testFiles } from "./coverage/measure.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-coverage-"));

/** Of a test that does not say its own, ms, as for `npm test`. */
const TIMEOUT = 60_000;

try {
	const child = Bun.spawnSync(
		[process.execPath, "test", `--timeout=${TIMEOUT}`, ...coverageFlags(folder), ...testFiles().rooms],
		{ cwd: join(import.meta.dir, ".."), stdin: "ignore", stdout: "pipe", stderr: "pipe" },
	);
	// Whether they pass is for `npm test` to judge.
	const failed = child.stderr.toString().match(/^\(fail\).*$/gm) ?? [];
	if (child.exitCode !== 0) console.log(["not all of the tests pass:", ...new Set(failed)].join("\n"));
	if (!judge(folder)) process.exitCode = 1;
} finally {
	rmSync(folder, { recursive: true });
}
