// Who comes back to its event loop, and who does not.

import { expect, test } from "bun:test";
import { Attendance, stuckListeners } from "../../src/stats/attendance.ts";

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
	expect([main.stuck, main.isWell]).toEqual([[1], false]);
	for (let i = 0; i < 10; i++) expect(look(0)).toEqual([]);
	expect(look(0, 1)).toEqual([1]);
	expect([main.stuck, main.isWell]).toEqual([[], true]);
	// Slow is not stuck.
	for (let i = 0; i < 20; i++) expect(i % 3 === 0 ? look(0, 1, 2) : look(0)).toEqual([]);
});

test("the listeners of those that are stuck are ended, while somebody else listens", () => {
	const ENDED = -1;
	const stuck = (listeners: number[], ...workers: number[]) =>
		stuckListeners(listeners, { isStuck: (worker) => workers.includes(worker) });
	expect(stuck([10, 11, 12])).toEqual([]);
	expect(stuck([10, 11, 12], 1)).toEqual([1]);
	expect(stuck([10, 11, 12], 0, 2)).toEqual([0, 2]);
	// Nobody else, or nobody else yet.
	expect(stuck([10, 11], 0, 1)).toEqual([]);
	expect(stuck([ENDED, 11], 0, 1)).toEqual([]);
	expect(stuck([ENDED, 11], 1)).toEqual([]);
	// It does again.
	expect(stuck([12, 11], 1)).toEqual([1]);
	expect(stuck([10], 0)).toEqual([]);
	expect(stuck([], 0)).toEqual([]);
});
