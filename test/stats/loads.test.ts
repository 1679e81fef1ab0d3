// How much of its time each worker has spent, as all see it.

import { expect, test } from "bun:test";
import { Loads } from "../../src/stats/loads.ts";

test("each worker's share of its time is smoothed, and all see it", () => {
	const one = new Loads(2);
	const two = new Loads(2, one.memory);
	let time = 1_000;
	let spent = 0;
	const tick = (share: number) => {
		time += 100;
		spent += 100 * share;
		one.measure(0, time, spent);
	};
	tick(0);
	expect(two.of(0, time)).toBe(0);
	tick(1);
	expect(two.of(0, time)).toBeCloseTo(0.2);
	for (let i = 0; i < 30; i++) tick(1);
	expect(two.of(0, time)).toBeGreaterThan(0.99);
	for (let i = 0; i < 30; i++) tick(0.25);
	expect(two.of(0, time)).toBeCloseTo(0.25, 1);
	// Nothing is known of the other.
	expect(two.of(1, time)).toBe(Number.POSITIVE_INFINITY);
});

test("who has not measured for long has no time that anybody knows of", () => {
	const loads = new Loads(1);
	loads.measure(0, 1_000, 0);
	expect(loads.of(0, 1_400)).toBe(0);
	expect(loads.of(0, 1_600)).toBe(Number.POSITIVE_INFINITY);
	// It was busy for all of that time, whoever asks afterwards.
	loads.measure(0, 2_000, 2_000);
	expect(loads.of(0, 2_000)).toBe(1);
});

test("a thread's own time is measured", () => {
	const loads = new Loads(1);
	loads.measure(0, 1_000);
	const end = performance.now() + 50;
	while (performance.now() < end);
	loads.measure(0, 1_001);
	expect(loads.of(0, 1_001)).toBeGreaterThan(0);
});
