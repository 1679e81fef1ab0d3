// The rows of several shards in one order, cut and interleaved at random. No sockets: bytes in, bytes out.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Merging, OrderTerm } from "../../src/parser/merging.ts";
import { Merge, type MergeOutput, TO_READY } from "../../src/shards/merge.ts";
import type { Joining } from "../../src/shards/rows.ts";
import { cut, dataRow, errorFields } from "../support/message.ts";
import { backend, concat } from "../support/wire-frames.ts";

const { rowDescription, commandComplete, readyForQuery } = backend;
const COLUMNS = rowDescription({ name: "a", oid: 23 }, { name: "b", oid: 25 });

class Collected implements MergeOutput {
	readonly parts: Uint8Array[] = [];
	readonly resumed: number[] = [];
	replies = 0;
	failures = 0;
	ends = 0;

	write(bytes: Buffer, start: number, end: number): void {
		this.parts.push(Buffer.from(bytes.subarray(start, end)));
	}
	replied(): void {
		this.replies++;
	}
	failed(): void {
		this.failures++;
	}
	copyIn(): void {}
	stopCopy(): void {}
	resumeShard(shard: number): void {
		this.resumed.push(shard);
	}
	done(): void {
		this.ends++;
	}

	get words(): string[] {
		return cut(Buffer.from(concat(...this.parts))).messages.map(({ code, body }) => {
			if (code === "C") return `C ${body.toString("utf8", 0, body.length - 1)}`;
			if (code === "D") return `D ${dataRow(body).join(",")}`;
			return code === "E" || code === "N" ? `${code} ${errorFields(body).C}` : code;
		});
	}
}

const term = (more: Partial<OrderTerm> = {}): OrderTerm => ({
	name: "",
	position: 0,
	isTables: false,
	descending: false,
	nullsFirst: false,
	bytewise: false,
	...more,
});

function joining(merging: Partial<Merging>, limit = Number.POSITIVE_INFINITY, offset = 0): Joining {
	const whole = { order: [term()], distinct: false, limit: null, offset: null, combined: null, ...merging };
	return { merging: whole, limit, offset, isUtf8: true, isLimited: false };
}

type Row = [a: string | null, b?: string];
const answer = (rows: Row[]) =>
	concat(
		COLUMNS,
		...rows.map(([a, b = "x"]) => backend.dataRow(a, b)),
		commandComplete(`SELECT ${rows.length}`),
		readyForQuery(),
	);

function merged(
	answers: Uint8Array[],
	asked: Joining,
	schedule: number[] = [],
	hidden: number[] | null = null,
): Collected {
	const out = new Collected();
	const shards = [...answers.keys()];
	const merge = new Merge(answers.length, shards, TO_READY, out);
	merge.begin(shards, TO_READY, null, { each: [asked], hidden });
	const left = answers.map((bytes) => Buffer.from(bytes));
	const give = (shard: number, size: number) => {
		const piece = left[shard]!.subarray(0, size);
		left[shard] = left[shard]!.subarray(size);
		if (piece.length > 0) merge.add(shard, Buffer.from(piece));
	};
	for (const turn of schedule) give(turn % answers.length, 1 + ((turn >> 3) % 60));
	for (const shard of answers.keys()) give(shard, left[shard]!.length);
	return out;
}

const schedule = fc.array(fc.nat(1000), { maxLength: 80 });

describe("rows in their order", () => {
	test("of any shards, cut anywhere, descending or not, NULLs where they belong", () => {
		const value = fc.oneof({ weight: 9, arbitrary: fc.integer({ min: -30, max: 30 }) }, fc.constant(null));
		const shards = fc.array(fc.array(value, { maxLength: 20 }), { minLength: 2, maxLength: 4 });
		fc.assert(
			fc.property(shards, fc.boolean(), fc.boolean(), schedule, (values, descending, nullsFirst, turns) => {
				const compare = (a: number | null, b: number | null) => {
					if (a === null || b === null) return a === b ? 0 : (a === null) === nullsFirst ? -1 : 1;
					return descending ? b - a : a - b;
				};
				const answers = values.map((list) => answer(list.sort(compare).map((n) => [n === null ? null : String(n)])));
				const { words, replies, ends } = merged(answers, joining({ order: [term({ descending, nullsFirst })] }), turns);
				const wanted = values
					.flat()
					.sort(compare)
					.map((n) => `D ${n === null ? "" : n},x`);
				expect(words.map((word) => word.replace("D null", "D "))).toEqual([
					"T",
					...wanted,
					`C SELECT ${wanted.length}`,
				]);
				expect([replies, ends]).toEqual([2, 1]);
			}),
		);
	});

	test("by several columns, and by a name", () => {
		const order = [term({ name: "b", position: -1, descending: true, nullsFirst: true, bytewise: true }), term()];
		const answers = [
			answer([
				["2", "z"],
				["1", "a"],
				["3", "a"],
			]),
			answer([
				["1", "z"],
				["9", "m"],
				["2", "a"],
			]),
		];
		expect(merged(answers, joining({ order })).words.slice(1, -1)).toEqual([
			"D 1,z",
			"D 2,z",
			"D 9,m",
			"D 1,a",
			"D 2,a",
			"D 3,a",
		]);
	});

	test("each once, and no more of them than were asked for", () => {
		const answers = [answer([["1"], ["3"], ["3"], ["7"]]), answer([["1"], ["2"], ["7"], ["9"]])];
		const order = [term(), term({ position: 1, bytewise: true })];
		const rows = (asked: Joining) => merged(answers, asked).words.slice(1);
		expect(rows(joining({ order, distinct: true }))).toEqual([
			"D 1,x",
			"D 2,x",
			"D 3,x",
			"D 7,x",
			"D 9,x",
			"C SELECT 5",
		]);
		expect(rows(joining({ order, distinct: true }, 2))).toEqual(["D 1,x", "D 2,x", "C SELECT 2"]);
		expect(rows(joining({}, 3))).toEqual(["D 1,x", "D 1,x", "D 2,x", "C SELECT 3"]);
		expect(rows(joining({}, 2, 5))).toEqual(["D 7,x", "D 7,x", "C SELECT 2"]);
		expect(rows(joining({}, 5, 7))).toEqual(["D 9,x", "C SELECT 1"]);
		expect(rows(joining({}, 0))).toEqual(["C SELECT 0"]);
		const unordered = rows(joining({ order: [] }, 3, 1));
		expect([unordered.length, unordered.at(-1)]).toEqual([4, "C SELECT 3"]);
	});

	test("with what is said between them", () => {
		const notice = backend.noticeResponse({ S: "NOTICE", V: "NOTICE", C: "00000", M: "look" });
		const bytes = concat(
			COLUMNS,
			backend.dataRow("1", "x"),
			notice,
			backend.dataRow("3", "x"),
			commandComplete("SELECT 2"),
		);
		fc.assert(
			fc.property(schedule, (turns) => {
				const { words } = merged([concat(bytes, readyForQuery()), answer([["2"]])], joining({}), turns);
				expect(words.filter((word) => word !== "N 00000")).toEqual(["T", "D 1,x", "D 2,x", "D 3,x", "C SELECT 3"]);
				expect(words.indexOf("N 00000")).toBeGreaterThan(words.indexOf("D 1,x"));
				expect(words.indexOf("N 00000")).toBeLessThan(words.indexOf("D 3,x"));
			}),
		);
	});

	test("what describes the portal is not for the client, whose own descriptions may be of others", () => {
		const head = concat(backend.bindComplete(), rowDescription("other"));
		const answers = [["1"], ["0"]].map(([a]) => concat(head, answer([[a!]])));
		const out = merged(answers, joining({}), [], [2]);
		expect([out.words, out.replies]).toEqual([["2", "T", "D 0,x", "D 1,x", "C SELECT 2"], 4]);
	});
});

describe("an error instead of a wrong order", () => {
	const failed = (out: Collected) => [out.words.filter((word) => word[0] === "E"), out.failures, out.ends];

	test("where a shard's rows contradict it, whenever that shows", () => {
		fc.assert(
			fc.property(schedule, (turns) => {
				const out = merged([answer([["1"], ["5"], ["4"], ["6"]]), answer([["2"], ["9"]])], joining({}), turns);
				expect(failed(out)).toEqual([["E 58000"], 1, 1]);
				const rows = out.words.filter((word) => word[0] === "D");
				expect(["D 1,x", "D 2,x", "D 5,x"].slice(0, rows.length)).toEqual(rows);
			}),
		);
	});

	test("where a shard fails in the middle: rows before it have been told", () => {
		const broken = concat(
			COLUMNS,
			backend.dataRow("1", "x"),
			backend.errorResponse({ S: "ERROR", V: "ERROR", C: "22012", M: "no" }),
			readyForQuery(),
		);
		const out = merged([answer([["0"], ["2"], ["3"]]), broken], joining({}));
		expect([out.words, ...failed(out).slice(1)]).toEqual([["T", "D 0,x", "D 1,x", "E 22012"], 1, 1]);
	});

	test.each<[string, Partial<Merging>, string]>([
		["no such column", { order: [term({ name: "c", position: -1 })] }, "E 0A000"],
		["text in a collation", { order: [term({ position: 1 })] }, "E 0A000"],
		["columns that DISTINCT compares and nobody has ordered", { distinct: true }, "E 0A000"],
	])("where rows cannot be compared: %s", (_, merging, error) => {
		const out = merged([answer([["1"]]), answer([["2"]])], joining(merging));
		expect([out.words, out.failures, out.ends]).toEqual([[error], 1, 1]);
	});

	test("where shards mean different types, or send fewer columns", () => {
		const other = concat(rowDescription({ name: "a", oid: 20 }, "b"), commandComplete("SELECT 0"), readyForQuery());
		expect(merged([answer([]), other], joining({})).words).toEqual(["E 58000"]);
		const short = concat(COLUMNS, backend.dataRow(), commandComplete("SELECT 1"), readyForQuery());
		expect(merged([answer([]), short], joining({})).words).toEqual(["T", "E 58000"]);
	});

	test("text in another encoding than UTF-8 is not compared", () => {
		const asked = { ...joining({ order: [term({ position: 1, bytewise: true })] }), isUtf8: false };
		expect(merged([answer([]), answer([])], asked).words).toEqual(["E 0A000"]);
	});
});

test("a shard that is ahead waits, and goes on when its rows have", () => {
	const out = new Collected();
	const merge = new Merge(2, [0, 1], TO_READY, out);
	merge.begin([0, 1], TO_READY, null, { each: [joining({})], hidden: null });
	const row = (a: number) => Buffer.from(backend.dataRow(String(a), "x".repeat(1000)));
	for (const shard of [0, 1]) merge.add(shard, Buffer.from(COLUMNS));
	let sent = 0;
	while (merge.add(1, row(1000 + sent))) sent++;
	expect(sent).toBeGreaterThan(200);
	expect(sent).toBeLessThan(300);
	expect(merge.isAhead(1)).toBe(true);
	for (let a = 0; a < 500; a++) expect(merge.add(0, row(a))).toBe(true);
	expect(out.resumed).toEqual([]);
	for (let a = 2000; a < 2010; a++) merge.add(0, row(a));
	expect([out.resumed, merge.isAhead(1)]).toEqual([[1], false]);
});
