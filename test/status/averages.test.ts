import { expect, test } from "bun:test";
import { Stat } from "../../src/stats/counters.ts";
import { AverageSampler } from "../../src/status/averages.ts";
import type { PoolRow } from "../../src/status/rows.ts";
import { VITALS } from "../admin/support.ts";

function pool(key: string, values: Partial<Record<Stat, number>>): PoolRow {
	const counters = new Float64Array(Stat.length);
	for (const [stat, value] of Object.entries(values)) counters[Number(stat)] = value;
	return { key, id: 1, paused: false, counters, servers: 0, vitals: VITALS };
}

test("counts are averaged per second, times per item", () => {
	const sampler = new AverageSampler();
	sampler.sample([pool("a", { [Stat.xact_count]: 1000, [Stat.xact_time]: 1 })], 5_000);
	expect(sampler.of("a")[Stat.xact_count]).toBe(0);
	sampler.sample(
		[
			pool("a", {
				[Stat.xact_count]: 1200,
				[Stat.query_count]: 600,
				[Stat.xact_time]: 1001,
				[Stat.query_time]: 300,
				[Stat.idle_xact_time]: 800,
				[Stat.server_assignment_count]: 10,
				[Stat.wait_time]: 5,
				[Stat.connect_count]: 2,
				[Stat.connect_time]: 30,
				[Stat.received]: 1_000_000,
			}),
		],
		15_000,
	);
	const averages = sampler.of("a");
	expect(averages[Stat.xact_count]).toBe(20);
	expect(averages[Stat.received]).toBe(100_000);
	expect(averages[Stat.xact_time]).toBe(5);
	expect(averages[Stat.query_time]).toBe(0.5);
	expect(averages[Stat.wait_time]).toBe(0.5);
	expect(averages[Stat.connect_time]).toBe(15);
	expect(averages[Stat.idle_xact_time]).toBe(2);
});

test("a period without work has zeros, and times without items are not divided by zero", () => {
	const sampler = new AverageSampler();
	sampler.sample([pool("a", {})], 1_000);
	sampler.sample([pool("a", { [Stat.wait_time]: 7 })], 2_000);
	expect(sampler.of("a")[Stat.wait_time]).toBe(7);
	sampler.sample([pool("a", { [Stat.wait_time]: 7 })], 3_000);
	expect([...sampler.of("a")]).toEqual(new Array(Stat.length).fill(0));
});

test("the counters that were sampled are not kept by reference", () => {
	const sampler = new AverageSampler();
	const row = pool("a", { [Stat.errors]: 1 });
	sampler.sample([row], 1_000);
	row.counters[Stat.errors] = 11;
	sampler.sample([row], 2_000);
	expect(sampler.of("a")[Stat.errors]).toBe(10);
});

test("a pool that is new, gone, or back with counters at zero never shows a wrong average", () => {
	const sampler = new AverageSampler();
	sampler.sample([pool("a", { [Stat.errors]: 100 })], 1_000);
	sampler.sample([pool("a", { [Stat.errors]: 5 }), pool("b", { [Stat.errors]: 50 })], 2_000);
	expect(sampler.of("a")[Stat.errors]).toBe(0);
	expect(sampler.of("b")[Stat.errors]).toBe(0);
	sampler.sample([pool("b", { [Stat.errors]: 60 })], 3_000);
	expect(sampler.of("b")[Stat.errors]).toBe(10);
	sampler.sample([], 4_000);
	expect(sampler.of("b")[Stat.errors]).toBe(0);
});

test("a clock that stands still or goes back leaves the last averages", () => {
	const sampler = new AverageSampler();
	sampler.sample([pool("a", {})], 10_000);
	sampler.sample([pool("a", { [Stat.errors]: 5 })], 11_000);
	sampler.sample([pool("a", { [Stat.errors]: 9 })], 2_000);
	expect(sampler.of("a")[Stat.errors]).toBe(5);
});
