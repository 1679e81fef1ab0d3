// The arithmetic behind the bench's and the failover's tables and the test run's last line.

import { expect, test } from "bun:test";
import type { Contestant } from "../../scripts/bench/contestants.ts";
import { failoverTable } from "../../scripts/bench/failover-table.ts";
import type { Cell, Mode, Sample } from "../../scripts/bench/measure.ts";
import { plan } from "../../scripts/bench/plan.ts";
import { median, ratio, report } from "../../scripts/bench/report.ts";
import { counts, failures } from "../../scripts/test.ts";
import { type FailoverFigures, judge } from "../support/failover.ts";

function sample(name: string, mode: Mode, round: number, tps: number, cpu?: number, clients = 10): Sample {
	return { name, mode, clients, round, tps, p50: 1, p99: 2, cpu };
}

/** The lines of the table of targets, without its head. */
function verdicts(samples: Sample[], cells: Cell[]): string[] {
	const lines = report(samples, cells).split("\n");
	const head = lines.indexOf("| target | ratio | |");
	return head < 0 ? [] : lines.slice(head + 2);
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
	expect(table).toContain("| CPU, prepared, 10 clients ≤ 0.95 × PgBouncer | 1.15 | **missed** |");
});

const MODES = ["simple", "extended", "prepared"] as const;
const CELLS: Cell[] = MODES.map((mode) => ({ mode, clients: 10 }));

/** PgBouncer at 20 µs in every mode, and `name` at what it takes in each. */
function against20(name: string, cpu: Record<Mode, number>): Sample[] {
	return MODES.flatMap((mode) => [sample("pgbouncer", mode, 1, 100, 20), sample(name, mode, 1, 100, cpu[mode])]);
}

test("one worker may cost 0.95 times PgBouncer's CPU in every mode", () => {
	expect(verdicts(against20("workers=1", { simple: 19, extended: 19.4, prepared: 15 }), CELLS)).toEqual([
		"| CPU, simple, 10 clients ≤ 0.95 × PgBouncer | 0.95 | met |",
		"| CPU, extended, 10 clients ≤ 0.95 × PgBouncer | 0.97 | **missed** |",
		"| CPU, prepared, 10 clients ≤ 0.95 × PgBouncer | 0.75 | met |",
	]);
});

test("before replicas, simple may cost 1.15, extended 1 and prepared 0.9 times PgBouncer's CPU", () => {
	const samples = against20("replicas=1", { simple: 23, extended: 20, prepared: 18.4 });
	expect(verdicts(samples, CELLS)).toEqual([
		"| CPU, simple, 10 clients, replicas ≤ 1.15 × PgBouncer | 1.15 | met |",
		"| CPU, extended, 10 clients, replicas ≤ 1 × PgBouncer | 1.00 | met |",
		"| CPU, prepared, 10 clients, replicas ≤ 0.9 × PgBouncer | 0.92 | **missed** |",
	]);
	expect(report(samples, CELLS)).toContain("\nreplicas=N: N workers that spread reads");
	expect(report(samples, CELLS)).not.toContain("plugin");
});

test("with a plugin, simple may cost 1.25, extended and prepared 1 times PgBouncer's CPU", () => {
	const samples = against20("plugin=1", { simple: 25, extended: 21, prepared: 18 });
	expect(verdicts(samples, CELLS)).toEqual([
		"| CPU, simple, 10 clients, plugin ≤ 1.25 × PgBouncer | 1.25 | met |",
		"| CPU, extended, 10 clients, plugin ≤ 1 × PgBouncer | 1.05 | **missed** |",
		"| CPU, prepared, 10 clients, plugin ≤ 1 × PgBouncer | 0.90 | met |",
	]);
	expect(report(samples, CELLS)).toContain("\nplugin=N: N workers with a plugin");
	expect(report(samples, CELLS)).not.toContain("replicas");
});

// What a second worker costs is told by the first, whatever PgBouncer takes: one could be cheap, and two dear.
test("two workers may cost 1.1 times one worker's CPU, and are to serve 50 clients no slower than PgBouncer", () => {
	const samples = [10, 50].flatMap((clients) => [
		sample("pgbouncer", "simple", 1, 100, 20, clients),
		sample("workers=1", "simple", 1, 80, 10, clients),
		sample("workers=2", "simple", 1, 90, 12, clients),
	]);
	const cells: Cell[] = [10, 50].map((clients) => ({ mode: "simple", clients }));
	expect(verdicts(samples, cells).filter((line) => line.includes("two workers"))).toEqual([
		"| CPU, simple, 10 clients, two workers ≤ 1.1 × one worker | 1.20 | **missed** |",
		"| CPU, simple, 50 clients, two workers ≤ 1.1 × one worker | 1.20 | **missed** |",
		"| tps, simple, 50 clients, two workers ≥ 1 × PgBouncer | 0.90 | **missed** |",
	]);
	const alone = samples.filter(({ name }) => name !== "workers=1");
	expect(verdicts(alone, cells)).toEqual([
		"| tps, simple, 50 clients, two workers ≥ 1 × PgBouncer | 0.90 | **missed** |",
	]);
});

test("nothing is judged for one client, nor without PgBouncer", () => {
	const one = [sample("pgbouncer", "simple", 1, 100, 20, 1), sample("replicas=1", "simple", 1, 100, 20, 1)];
	expect(verdicts(one, [{ mode: "simple", clients: 1 }])).toEqual([]);
	expect(verdicts([sample("replicas=1", "simple", 1, 100, 20)], [{ mode: "simple", clients: 10 }])).toEqual([]);
});

function contestant(name: string, prepares = true): Contestant {
	return { name, port: 1, pid: undefined, prepares };
}

function planned(cells: Cell[], contestants: Contestant[], round = 0): string[] {
	return plan(cells, contestants, round).map((run) => `${run.cell.mode} ${run.cell.clients} ${run.contestant.name}`);
}

test("each round starts with another contestant", () => {
	const all = [contestant("direct"), contestant("workers=1")];
	const cells: Cell[] = [{ mode: "simple", clients: 1 }];
	expect(planned(cells, all, 2)).toEqual(["simple 1 direct", "simple 1 workers=1"]);
	expect(planned(cells, all, 3)).toEqual(["simple 1 workers=1", "simple 1 direct"]);
});

// `--modes simple,prepared` left nothing to set `prepared` against, and its targets were not in the table at all.
test("a PgBouncer without prepared statements runs extended in their place, once", () => {
	const all = [contestant("pgbouncer", false), contestant("replicas=1")];
	const prepared: Cell = { mode: "prepared", clients: 10 };
	const extended: Cell = { mode: "extended", clients: 10 };
	expect(planned([prepared], all)).toEqual(["extended 10 pgbouncer", "prepared 10 replicas=1"]);
	expect(planned([extended, prepared], all)).toEqual([
		"extended 10 pgbouncer",
		"extended 10 replicas=1",
		"prepared 10 replicas=1",
	]);
	expect(planned([prepared], [contestant("pgbouncer")])).toEqual(["prepared 10 pgbouncer"]);
	const samples = [sample("pgbouncer", "extended", 1, 100, 20), sample("replicas=1", "prepared", 1, 100, 22)];
	const table = report(samples, [prepared]);
	expect(table).toContain("| extended | 10 | pgbouncer | 100 |");
	expect(table).toContain("| CPU, prepared, 10 clients, replicas ≤ 0.9 × PgBouncer | 1.10 | **missed** |");
});

const WELL: FailoverFigures = {
	clients: 10,
	readers: 5,
	lsnCheckInterval: 1_000,
	limit: 10_000,
	writes: 5_000,
	reads: 15_000,
	writeGap: { before: 4, failover: 2_210, return: 9 },
	readGap: { before: 3, failover: 35, return: 8 },
	stall: { before: 1, failover: 12, return: 2 },
	firstWrite: 640,
	lastClient: 655,
	stuck: 0,
	stuckAtEnd: 0,
	errors: [{ state: "57P01", message: "gone | away", times: { before: 0, failover: 7, return: 0 } }],
	writesToOld: 0,
	readsFromOld: 0,
	doubled: 0,
	lost: 0,
	unreplicated: 2,
};

test("the failover's table tells the longest gap, what must be, and the errors by phase", () => {
	const table = failoverTable(WELL);
	expect(table).toContain("Longest gap a client saw: 2210 ms between two writes, 35 ms between two reads.");
	expect(table).toContain("| after that, before its return | 2210 ms | 35 ms | 12 ms |");
	expect(table).toContain("| promotion done to the first write there | 640 ms | ≤ 2000 ms |");
	expect(table).toContain("| 57P01 | 0 | 7 | 0 | gone \\| away |");
	expect(failoverTable({ ...WELL, errors: [], firstWrite: undefined })).toMatch(
		/never \|[\s\S]*No client got an error\.$/,
	);
});

test("a failover is judged by what must not be, not by the errors of clients meanwhile", () => {
	expect(judge(WELL)).toEqual([]);
	const error = (state: string, times: FailoverFigures["errors"][number]["times"]) => [{ state, message: "", times }];
	const faults: [Partial<FailoverFigures>, string][] = [
		[{ writesToOld: 1 }, "1 writes went to the old primary after its return"],
		[{ stuck: 3 }, "3 of 15 clients did nothing within 10000 ms of the promotion"],
		[{ stuckAtEnd: 2 }, "2 of 15 clients were stuck at the end"],
		[{ doubled: 1 }, "1 writes were done twice"],
		[{ lost: 4 }, "4 writes that the new primary confirmed are not there"],
		[{ firstWrite: 2_001 }, "the first write came 2001 ms after the promotion, not within 2000"],
		[{ firstWrite: undefined }, "nobody wrote to the new primary"],
		[
			{ errors: error("08006", { before: 1, failover: 0, return: 0 }) },
			"1 errors before anything was done to a server",
		],
		[{ errors: error("25006", { before: 0, failover: 2, return: 3 }) }, "5 writes were sent to a replica"],
	];
	for (const [fault, sentence] of faults) expect(judge({ ...WELL, ...fault })).toEqual([sentence]);
});

test("the counts are read from the end of what bun test prints", () => {
	const output =
		" 3 pass\n 1 fail\n(pass) 7 pass\n\n 12 pass\n 2 skip\n 0 fail\n 30 expect() calls\nRan 14 tests across 3 files.";
	expect(counts(output)).toEqual({ pass: 12, fail: 0, skip: 2 });
	expect(counts(" 1 pass\n 0 fail\n 1 error\n")).toEqual({ pass: 1, fail: 1, skip: 0 });
	expect(counts("")).toEqual({ pass: 0, fail: 0, skip: 0 });
});

test("each test that failed is told again, with its file and what stood before its result", () => {
	const long = Array.from({ length: 100 }, (_, i) => `line ${i}`);
	const output = [
		"bun test v1.4.5",
		"",
		"test/a.test.ts:",
		"said by a test that passes",
		"(pass) one [1.00ms]",
		"error: expected 1",
		"  at here",
		"(fail) room > two [2.00ms]",
		"",
		"test/b.test.ts:",
		...long,
		"(fail) three",
		"",
		"2 tests failed:",
		"(fail) room > two [2.00ms]",
		"(fail) three",
	];
	expect(failures(output.join("\n"))).toEqual([
		"test/a.test.ts:\nerror: expected 1\n  at here\n(fail) room > two [2.00ms]",
		`test/b.test.ts:\n${long.slice(-60).join("\n")}\n(fail) three`,
	]);
	expect(failures("")).toEqual([]);
});
