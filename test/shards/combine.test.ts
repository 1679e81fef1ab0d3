// Aggregates of several shards made one, through the Merge that their answers come to. No sockets: bytes in, bytes out.

import { describe, expect, test } from "bun:test";
import type { Combination } from "../../src/parser/merging.ts";
import { Merge, type MergeOutput, TO_READY } from "../../src/shards/merge.ts";
import { cut, dataRow, errorFields } from "../support/message.ts";
import { backend, concat } from "../support/wire-frames.ts";

const [BOOL, INT8, INT4, FLOAT8, TEXT, NUMERIC] = [16, 20, 23, 701, 25, 1700];

/** What comes of `rows`, one of each shard: the values of the row of all, or a SQLSTATE. */
function combined(
	columns: [Combination, oid: number][],
	rows: (string | Uint8Array | null)[][][],
	format = 0,
): (string | null)[] | string {
	const parts: Buffer[] = [];
	const out: MergeOutput = {
		write: (bytes, start, end) => {
			parts.push(Buffer.from(bytes.subarray(start, end)));
		},
		replied() {},
		failed() {},
		copyIn() {},
		stopCopy() {},
		resumeShard() {},
		done() {},
	};
	const shards = [...rows.keys()];
	const merge = new Merge(rows.length, shards, TO_READY, out);
	const merging = {
		order: [],
		distinct: false,
		limit: null,
		offset: null,
		combined: columns.map(([combination]) => combination),
	};
	const joining = { merging, limit: Number.POSITIVE_INFINITY, offset: 0, isUtf8: true, isLimited: false };
	merge.begin(shards, TO_READY, null, { each: [joining], hidden: null });
	for (const [shard, answers] of rows.entries())
		merge.add(
			shard,
			Buffer.from(
				concat(
					backend.rowDescription(...columns.map(([, oid], i) => ({ name: `c${i}`, oid, format }))),
					...answers.map((values) => backend.dataRow(...values)),
					backend.commandComplete(`SELECT ${answers.length}`),
					backend.readyForQuery(),
				),
			),
		);
	const { messages } = cut(Buffer.from(concat(...parts)));
	const error = messages.find(({ code }) => code === "E");
	if (error !== undefined) return errorFields(error.body).C ?? "";
	const found = messages.filter(({ code }) => code === "D");
	expect(found).toHaveLength(1);
	expect(messages.find(({ code }) => code === "C")!.body.toString()).toBe("SELECT 1\0");
	return format === 0 ? dataRow(found[0]!.body) : [found[0]!.body.subarray(2).toString("hex")];
}

const one = (combination: Combination, oid: number, ...values: (string | null)[]) =>
	combined(
		[[combination, oid]],
		values.map((value) => [[value]]),
	);

describe("of several shards", () => {
	test.each<[Combination, number, (string | null)[], string | null]>([
		["sum", INT8, ["3", "4", "0"], "7"],
		["sum", INT8, ["-9223372036854775807", "9223372036854775807"], "0"],
		["sum", NUMERIC, ["0.1", "0.2", "10"], "10.3"],
		["sum", NUMERIC, [null, "1.50", null], "1.50"],
		["sum", INT8, [null, null], null],
		["min", INT4, ["5", "-3", null], "-3"],
		["max", INT4, ["5", "-3", "10"], "10"],
		["max", FLOAT8, ["1e3", "NaN", "2"], "NaN"],
		["and", BOOL, ["t", "f"], "f"],
		["and", BOOL, ["t", null], "t"],
		["or", BOOL, ["f", "t"], "t"],
		["or", BOOL, [null, null], null],
	])("%s of type %d: %p is %p", (combination, oid, values, wanted) => {
		expect(one(combination, oid, ...values)).toEqual([wanted]);
	});

	test("several columns, in binary as the client has asked", () => {
		const int8 = (value: bigint) => {
			const bytes = Buffer.alloc(8);
			bytes.writeBigInt64BE(value);
			return bytes;
		};
		const rows = [[[int8(-5n), int8(1n)]], [[int8(7n), int8(-1n)]]];
		expect(
			combined(
				[
					["sum", INT8],
					["min", INT8],
				],
				rows,
				1,
			),
		).toEqual(["000000080000000000000002" + "00000008ffffffffffffffff"]);
		expect(combined([["sum", INT8]], [[[null]], [[null]]], 1)).toEqual(["ffffffff"]);
	});
});

describe("are an error, and no number", () => {
	test("a sum that is none of bigint any more, as on one server", () => {
		expect(one("sum", INT8, "9223372036854775807", "1")).toBe("22003");
	});

	test("what depends on a collation, or on the order of additions", () => {
		expect(one("min", TEXT, "a", "b")).toBe("0A000");
		expect(one("sum", FLOAT8, "1", "2")).toBe("0A000");
		expect(one("and", INT4, "1", "2")).toBe("0A000");
	});

	test("an answer that is not one row of these columns", () => {
		expect(combined([["sum", INT8]], [[["1"], ["2"]], [["3"]]])).toBe("58000");
		expect(combined([["sum", INT8]], [[["1"]], []])).toBe("58000");
		expect(combined([["sum", INT8]], [[["1"]], [["1", "2"]]])).toBe("58000");
	});
});
