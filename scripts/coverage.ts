// `npm run coverage`: what the tests without a compiled proxy run of each room of src, held against a floor (coverage/floors.ts):
// no room shall live by the integration tests alone. They run as `npm test` runs them, one process, with the lines counted.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FLOORS } from "./coverage/floors.ts";
import { below, countRooms, report } from "./coverage/rooms.ts";

const root = join(import.meta.dir, "..");
const folder = mkdtempSync(join(tmpdir(), "pgdog-coverage-"));

/** Of a test that does not say its own, ms, as for `npm test`. */
const TIMEOUT = 60_000;

/** Tests of rooms that start the executable, or need one that is built of the same sources: they run nothing in this process. */
const OUTSIDE = ["life", "executable", "examples", "stand-ins"].map((name) => `test/plugin/${name}.test.ts`);

const files = [...new Bun.Glob("test/**/*.test.ts").scanSync({ cwd: root })].filter((file) => {
	const [, room = ""] = file.split("/");
	return (room in FLOORS || room.endsWith(".test.ts")) && !OUTSIDE.includes(file);
});

/** Not types only. */
function hasCode(file: string): boolean {
	const transpiler = new Bun.Transpiler({ loader: "ts" });
	const text = transpiler.transformSync(readFileSync(join(root, file), "utf8"));
	return !file.endsWith(".d.ts") && text.replace(/^(import .*|export \{\};?)$/gm, "").trim() !== "";
}

try {
	const child = Bun.spawnSync(
		[
			process.execPath,
			"test",
			`--timeout=${TIMEOUT}`,
			"--coverage",
			"--coverage-reporter=lcov",
			`--coverage-dir=${folder}`,
			...files.sort().map((file) => `./${file}`),
		],
		{ cwd: root, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
	);
	// Whether they pass is for `npm test` to judge.
	const failed = child.stderr.toString().match(/^\(fail\).*$/gm) ?? [];
	if (child.exitCode !== 0) console.log(["not all of the tests pass:", ...new Set(failed)].join("\n"));
	const sources = [...new Bun.Glob("src/**/*.ts").scanSync({ cwd: root })].filter(hasCode);
	const rooms = countRooms(readFileSync(join(folder, "lcov.info"), "utf8"), sources);
	console.log(report(rooms, FLOORS));
	const faults = below(rooms, FLOORS);
	for (const fault of faults) console.log(fault);
	if (faults.length > 0) process.exitCode = 1;
} finally {
	rmSync(folder, { recursive: true });
}
