import { expect, test } from "bun:test";
import { Counters, Stat } from "../../src/stats/counters.ts";

test("each pool and worker has a row of its own, in memory that threads share", () => {
	const mine = new Counters(3, 2);
	const theirs = new Counters(3, 2, mine.memory);
	for (let slot = 0; slot < 3; slot++)
		for (let worker = 0; worker < 2; worker++) mine.row(slot, worker).fill(10 * slot + worker + 1);
	for (let slot = 0; slot < 3; slot++)
		for (let worker = 0; worker < 2; worker++)
			expect([...theirs.row(slot, worker)]).toEqual(Array(Stat.length).fill(10 * slot + worker + 1));
});

test("a sum adds the workers, and takes the earliest of those who wait", () => {
	const counters = new Counters(2, 3);
	[5, 0, 7].forEach((value, worker) => {
		const row = counters.row(1, worker);
		row[Stat.query_count] = value;
		row[Stat.cl_waiting] = value;
		row[Stat.oldest_wait] = value * 100;
	});
	counters.row(0, 0)[Stat.query_count] = 1000;
	const sum = counters.sum(1);
	expect([sum[Stat.query_count], sum[Stat.cl_waiting], sum[Stat.oldest_wait]]).toEqual([12, 12, 500]);
	expect(counters.sum(0)[Stat.oldest_wait]).toBe(0);
});

test("a row that is cleared is zeros, for all workers, and no other is", () => {
	const counters = new Counters(3, 2);
	for (let slot = 0; slot < 3; slot++) for (let worker = 0; worker < 2; worker++) counters.row(slot, worker).fill(1);
	counters.clear(1);
	expect([0, 1, 2].map((slot) => counters.sum(slot)[Stat.query_count])).toEqual([2, 0, 2]);
	expect([0, 1, 2].map((slot) => counters.sum(slot)[Stat.auth_attempts])).toEqual([2, 0, 2]);
});
