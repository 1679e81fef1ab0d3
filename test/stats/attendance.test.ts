// Who comes back to its event loop, and who does not.

import { expect, test } from "bun:test";
import { Attendance } from "../../src/stats/attendance.ts";

test("a worker that does not tick for some looks is stuck until it does", () => {
	const main = new Attendance(3);
	const worker = new Attendance(3, main.memory);
	// Worker 2 has not begun.
	const look = (...ticking: number[]) => {
		for (const one of ticking) worker.tick(one);
		return main.look();
	};
	for (let i = 0; i < 10; i++) expect(look(0, 1)).toEqual([]);
	for (let i = 0; i < 3; i++) expect(look(0)).toEqual([]);
	expect(look(0)).toEqual([1]);
	expect(main.stuck).toEqual([1]);
	for (let i = 0; i < 10; i++) expect(look(0)).toEqual([]);
	expect(look(0, 1)).toEqual([1]);
	expect(main.stuck).toEqual([]);
	// Slow is not stuck.
	for (let i = 0; i < 20; i++) expect(i % 3 === 0 ? look(0, 1, 2) : look(0)).toEqual([]);
});
