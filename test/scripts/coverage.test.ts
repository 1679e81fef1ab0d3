// `npm run coverage` counts rooms and can say no.

import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { FLOORS } from "../../scripts/coverage/floors.ts";
import { below, countRooms, report } from "../../scripts/coverage/rooms.ts";

const SOURCE = join(import.meta.dir, "../../src");

const record = (file: string, run: number, lines: number) =>
	`TN:\nSF:${file}\nFNF:9\nFNH:9\nDA:1,5\nLF:${lines}\nLH:${run}\nend_of_record\n`;

const LCOV = [
	record("src/wire/frame.ts", 10, 10),
	record("src/wire/codes.ts", 5, 10),
	record("src/pool/pool.ts", 1, 10),
	record("src/main.ts", 0, 10),
	record("test/support/until.ts", 0, 10),
].join("");

test("the lines of a room's files are summed, and files that no test loads are named", () => {
	const rooms = countRooms(LCOV, ["src/wire/frame.ts", "src/wire/codes.ts", "src/pool/pool.ts", "src/pool/shard.ts"]);
	expect([...rooms]).toEqual([
		["wire", { run: 15, lines: 20, unloaded: [] }],
		["pool", { run: 1, lines: 10, unloaded: ["src/pool/shard.ts"] }],
	]);
	expect(report(rooms, { wire: 70, pool: 10 })).toContain("| wire | 75.0 % | 70 % |");
	expect(below(rooms, { wire: 75, pool: 10 })).toEqual(["pool: no test loads src/pool/shard.ts"]);
	expect(below(rooms, { wire: 76, pool: 11 })).toEqual([
		"wire: tests run 75.0 % of its lines, less than 76 %",
		"pool: tests run 10.0 % of its lines, less than 11 %",
		"pool: no test loads src/pool/shard.ts",
	]);
});

test("a room without a floor must be run whole, and a floor without a room is a mistake", () => {
	const rooms = countRooms(record("src/new/file.ts", 9, 10), []);
	expect(below(rooms, {})).toEqual(["new: tests run 90.0 % of its lines, less than 100 %"]);
	expect(below(rooms, { new: 90, gone: 1 })).toEqual(["gone: there is no such room"]);
});

test("every room has a floor and tests of its own", () => {
	const rooms = readdirSync(SOURCE, { withFileTypes: true }).filter((entry) => entry.isDirectory());
	expect(rooms.map(({ name }) => name).sort()).toEqual(Object.keys(FLOORS).sort());
	for (const { name } of rooms) expect(existsSync(join(SOURCE, "../test", name)), name).toBe(true);
});
