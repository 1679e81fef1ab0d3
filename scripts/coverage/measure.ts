// Measures what tests run of each room: which tests count, what `bun test` has to be told, and what comes of it.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { FLOORS } from "./floors.ts";
import { below, countRooms, report } from "./rooms.ts";

const root = join(import.meta.dir, "../..");

/** Tests of rooms that start the executable, or need one that is built of the same sources: they run nothing in this process. */
const OUTSIDE = ["life", "executable", "examples", "stand-ins"].map((name) => `test/plugin/${name}.test.ts`);

/** The test files, as `./test/…`, of those that need no compiled proxy, and of all others. */
export function testFiles(): { rooms: string[]; others: string[] } {
	const files = [...new Bun.Glob("test/**/*.test.ts").scanSync({ cwd: root })].sort();
	const isRoom = (file: string) => {
		const [, room = ""] = file.split("/");
		return (room in FLOORS || room.endsWith(".test.ts")) && !OUTSIDE.includes(file);
	};
	const named = (of: string[]) => of.map((file) => `./${file}`);
	return { rooms: named(files.filter(isRoom)), others: named(files.filter((file) => !isRoom(file))) };
}

/** @param folder where the report is written to */
export function coverageFlags(folder: string): string[] {
	return ["--coverage", "--coverage-reporter=lcov", `--coverage-dir=${folder}`];
}

/** Prints what was run of each room. true when no room is below its floor. */
export function judge(folder: string): boolean {
	const sources = [...new Bun.Glob("src/**/*.ts").scanSync({ cwd: root })].filter(hasCode);
	const rooms = countRooms(readFileSync(join(folder, "lcov.info"), "utf8"), sources);
	console.log(report(rooms, FLOORS));
	const faults = below(rooms, FLOORS);
	for (const fault of faults) console.log(fault);
	return faults.length === 0;
}

/** Not types only. */
function hasCode(file: string): boolean {
	const transpiler = new Bun.Transpiler({ loader: "ts" });
	const text = transpiler.transformSync(readFileSync(join(root, file), "utf8"));
	return !file.endsWith(".d.ts") && text.replace(/^(import .*|export \{\};?)$/gm, "").trim() !== "";
}
