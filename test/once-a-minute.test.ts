// Lines that come once a minute: the first at once, none is told twice, none is forgotten.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { OnceAMinute, timesText } from "../src/once-a-minute.ts";

const MINUTE = 60_000;

test("the first event is told at once, the next after a minute, with how many there were", () => {
	const events = new OnceAMinute();
	const start = 1.8e12;
	expect(events.due(start)).toBe(1);
	for (let i = 1; i <= 5; i++) expect(events.due(start + i * 10_000)).toBe(0);
	expect(events.due(start + MINUTE + 200)).toBe(6);
	expect(events.due(start + MINUTE + 300)).toBe(0);
});

test("of threads over the same memory one speaks for all, and every event is counted once", () => {
	fc.assert(
		fc.property(
			fc.array(fc.record({ thread: fc.nat(3), after: fc.nat(2 * MINUTE) }), { minLength: 1, maxLength: 50 }),
			fc.integer({ min: 1, max: 2 ** 41 }),
			(events, start) => {
				const memory = new Int32Array(new SharedArrayBuffer(OnceAMinute.WORDS * 4));
				const threads = Array.from({ length: 4 }, () => new OnceAMinute(memory));
				let time = start;
				let told = 0;
				let saidAt = Number.NEGATIVE_INFINITY;
				for (const [i, { thread, after }] of events.entries()) {
					time += after;
					const times = threads[thread]!.due(time);
					if (times === 0) {
						expect(time - saidAt).toBeLessThan(MINUTE + 300);
						continue;
					}
					expect(time - saidAt).toBeGreaterThan(MINUTE - 300);
					saidAt = time;
					told += times;
					expect(told).toBe(i + 1);
				}
			},
		),
	);
});

test("a count is only mentioned when there was more than one", () => {
	expect([timesText(1), timesText(3)]).toEqual(["", " (3 times since this was last said)"]);
});
