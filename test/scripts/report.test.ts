// The arithmetic behind the bench's tables and the test run's last line.

import { expect, test } from "bun:test";
import type { Mode, Sample } from "../../scripts/bench/measure.ts";
import { median, ratio, report } from "../../scripts/bench/report.ts";
import { counts } from "../../scripts/test.ts";

function sample(name: string, mode: Mode, round: number, tps: number, cpu?: number): Sample {
	return { name, mode, clients: 10, round, tps, p50: 1, p99: 2, cpu };
}

test("the median of an even number of values lies between the middle two", () => {
	expect(median([9, 1, 5])).toBe(5);
	expect(median([1, 2, 10, 4])).toBe(3);
	expect(median([])).toBeNaN();
});

// A busy second that halves a whole round must not move the ratio, as it would if medians were divided.
test("a ratio is taken between samples of the same round", () => {
	const samples = [100, 50, 10].flatMap((speed, round) => [
		sample("pgbouncer", "simple", round, speed),
		sample("workers=1", "simple", round, speed * 2),
	]);
	expect(ratio(samples, { mode: "simple", clients: 10 }, "workers=1", (s) => s.tps)).toBe(2);
});

test("prepared is set against PgBouncer's extended where it has no prepared of its own", () => {
	const samples = [sample("pgbouncer", "extended", 1, 100, 20), sample("workers=1", "prepared", 1, 300, 23)];
	const cell = { mode: "prepared", clients: 10 } as const;
	expect(ratio(samples, cell, "workers=1", (s) => s.tps)).toBe(3);
	const table = report(samples, [cell]);
	expect(table).toContain("ratios there are to its figure for `extended`");
	expect(table).toContain("| CPU, prepared, 10 clients ≤ 1.1 × PgBouncer | 1.15 | **missed** |");
});

test("the counts are read from the end of what bun test prints", () => {
	const output =
		" 3 pass\n 1 fail\n(pass) 7 pass\n\n 12 pass\n 2 skip\n 0 fail\n 30 expect() calls\nRan 14 tests across 3 files.";
	expect(counts(output)).toEqual({ pass: 12, fail: 0, skip: 2 });
	expect(counts(" 1 pass\n 0 fail\n 1 error\n")).toEqual({ pass: 1, fail: 1, skip: 0 });
	expect(counts("")).toEqual({ pass: 0, fail: 0, skip: 0 });
});
