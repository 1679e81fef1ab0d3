// Who is the primary, and how far a replica is behind: conclusions from what servers say of themselves.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
	chief,
	isAhead,
	lsnText,
	type ReplicationReport,
	readReport,
	WriteHistory,
} from "../../src/pool/replication.ts";

describe("a report", () => {
	test("of a replica has its replay position, of a primary its write position and its timeline", () => {
		expect(readReport(5, ["t", "1000", null])).toEqual({ at: 5, inRecovery: true, lsn: 1000, timeline: 0 });
		expect(readReport(5, ["f", "1000", "0000000A00000000000000C8"])).toEqual({
			at: 5,
			inRecovery: false,
			lsn: 1000,
			timeline: 10,
		});
		// A replica that has replayed nothing yet.
		expect(readReport(5, ["t", null, null]).lsn).toBe(0);
	});

	// An idle primary whose insert position stands behind the header of an empty page was taken for ahead of its replicas, for
	// ever: they were banned for a lag that no time would end.
	test("a page's header is not something that a replica could miss", () => {
		const written = (lsn: number) => readReport(0, ["f", String(lsn), "000000010000000000000001"]).lsn;
		expect([written(8192 + 24), written(16384 + 40), written(8192 + 25), written(8192)]).toEqual([
			8192,
			16384,
			8192 + 25,
			8192,
		]);
		expect(readReport(0, ["t", String(8192 + 24), null]).lsn).toBe(8192 + 24);
	});

	test("positions are written as PostgreSQL writes them", () => {
		expect([lsnText(0), lsnText(0x16_b374d848), lsnText(0xffffffff), lsnText(2 ** 32)]).toEqual([
			"0/0",
			"16/B374D848",
			"0/FFFFFFFF",
			"1/0",
		]);
	});
});

describe("of several that say they are the primary", () => {
	const claim = (timeline: number, lsn: number, failure: string | null = null) => ({
		failure,
		report: { at: 0, answeredAt: 0, inRecovery: false, lsn, timeline } satisfies ReplicationReport,
	});

	test("the one on the later timeline is it, however much the other has written and whoever was it before", () => {
		const [old, promoted] = [claim(1, 9_000), claim(2, 100)];
		expect(chief([old, promoted], old)).toBe(promoted);
		expect(chief([promoted, old], promoted)).toBe(promoted);
	});

	test("on one timeline it stays who it was; at the start it is who has written most", () => {
		const [a, b] = [claim(1, 5), claim(1, 7)];
		expect(chief([a, b], a)).toBe(a);
		expect(chief([a, b], b)).toBe(b);
		expect(chief([a, b], null)).toBe(b);
	});

	// Two replicas that were promoted one after the other had the same timeline, and the first one was gone for good.
	test("on one timeline who answers comes before who was it and does not", () => {
		const [gone, other] = [claim(2, 9, "connection refused"), claim(2, 7)];
		expect(chief([gone, other], gone)).toBe(other);
		expect(chief([gone], gone)).toBe(gone);
		expect(chief([claim(3, 1, "refused"), other], other)).not.toBe(other);
	});

	test("nobody is nobody", () => {
		expect(chief([], claim(1, 1))).toBeNull();
	});

	test("the order in which they are asked does not matter", () => {
		const claims = fc.uniqueArray(fc.tuple(fc.integer({ min: 1, max: 3 }), fc.nat(50)), {
			minLength: 1,
			maxLength: 5,
			selector: String,
		});
		fc.assert(
			fc.property(claims, fc.nat(4), fc.integer(), (pairs, current, seed) => {
				const all = pairs.map(([timeline, lsn]) => claim(timeline, lsn));
				const before = all[current] ?? null;
				const turned = all.toSorted((a, b) => ((a.report.lsn * 31 + seed) % 7) - ((b.report.lsn * 31 + seed) % 7));
				expect(chief(turned, before)).toBe(chief(all, before)!);
			}),
		);
	});
});

describe("a replica that has replayed what its primary has not written", () => {
	/** A server was asked, looked at its log at some moment after, and its answer came after that. */
	const asked = fc.tuple(fc.nat(1000), fc.nat(300), fc.nat(300)).map(([at, look, answer]) => ({
		at,
		lookedAt: at + look,
		answeredAt: at + look + answer,
	}));
	/** The primary's log only grows, sometimes quickly. */
	const growth = fc.array(fc.nat(50), { minLength: 2000, maxLength: 2000 }).map((steps) => {
		let lsn = 0;
		return steps.map((step) => (lsn += step));
	});
	const report = (sample: { at: number; answeredAt: number }, lsn: number, inRecovery: boolean): ReplicationReport => ({
		at: sample.at,
		answeredAt: sample.answeredAt,
		inRecovery,
		lsn,
		timeline: inRecovery ? 0 : 1,
	});

	// It was banned: asked before the primary it answered later, and said more than the primary had said meanwhile.
	test("is none that has caught up, however late either of them answers", () => {
		fc.assert(
			fc.property(growth, asked, asked, fc.nat(100), (log, ofReplica, ofPrimary, lag) => {
				const replica = report(ofReplica, Math.max(0, log[ofReplica.lookedAt]! - lag), true);
				const primary = report(ofPrimary, log[ofPrimary.lookedAt]!, false);
				expect(isAhead(replica, primary, false)).toBe(false);
			}),
			{ numRuns: 300 },
		);
	});

	test("is found when the primary is asked after its answer, and remains it until it has written as much", () => {
		const replica = report({ at: 10, answeredAt: 20 }, 500, true);
		const primary = (at: number, lsn: number) => report({ at, answeredAt: at + 5 }, lsn, false);
		expect(isAhead(replica, primary(19, 400), false)).toBe(false);
		expect(isAhead(replica, primary(20, 400), false)).toBe(true);
		expect(isAhead(replica, primary(15, 400), true)).toBe(true);
		expect(isAhead(replica, primary(20, 500), true)).toBe(false);
	});
});

describe("what a replica has seen", () => {
	test("is everything that was written before the last moment whose position it has reached", () => {
		const history = new WriteHistory();
		expect(history.freshAsOf(100)).toBe(0);
		history.note(10, 100);
		history.note(20, 200);
		history.note(30, 200);
		history.note(40, 200);
		history.note(50, 300);
		expect([99, 100, 199, 200, 299, 300, 999].map((lsn) => history.freshAsOf(lsn))).toEqual([
			0, 10, 10, 40, 40, 50, 50,
		]);
		expect(history.start).toBe(10);
	});

	test("a report that comes late says nothing that is not known", () => {
		const history = new WriteHistory();
		history.note(20, 200);
		history.note(10, 100);
		history.note(30, 150);
		expect([history.freshAsOf(150), history.freshAsOf(200)]).toEqual([0, 20]);
	});

	test("the same as by looking at all that was ever noted, and bounded", () => {
		fc.assert(
			fc.property(fc.array(fc.nat(3), { maxLength: 300 }), fc.nat(400), (steps, asked) => {
				const history = new WriteHistory();
				const notes: [at: number, lsn: number][] = [];
				let lsn = 0;
				for (const [i, step] of steps.entries()) {
					lsn += step;
					history.note(i + 1, lsn);
					notes.push([i + 1, lsn]);
				}
				const expected = notes.findLast((note) => note[1] <= asked)?.[0] ?? 0;
				expect(history.freshAsOf(asked)).toBe(expected);
			}),
		);
		const long = new WriteHistory();
		for (let i = 1; i <= 5_000; i++) long.note(i, i);
		expect(long.start).toBe(5_000 - 1024 + 1);
		expect(long.freshAsOf(long.start - 1)).toBe(0);
	});
});
