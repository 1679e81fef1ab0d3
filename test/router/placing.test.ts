// Which tables are sharded, by which column, and where a value of it is.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { KeyType, ShardedTable, ShardFunction, Sharding } from "../../src/config/sharding.ts";
import { PgError } from "../../src/errors.ts";
import { Placing, type ShardedColumn } from "../../src/router/placing.ts";
import { ShardChoice } from "../../src/router/route.ts";
import { shardOfKey } from "../../src/router/sharding.ts";
import { character } from "../support/characters.ts";

const ALL = ShardChoice.All;
const HASH: ShardFunction = { kind: "hash", hasher: "postgres" };
const SHA1: ShardFunction = { kind: "hash", hasher: "sha1" };

/** @param name column, table and schema, the last first, as far as they are given; `*`: any */
function entry(name: string, dataType: KeyType = "bigint", by: ShardFunction = HASH): ShardedTable {
	const [column, table, schema] = name.split(".").reverse();
	const orAny = (each: string | undefined) => (each === undefined || each === "*" ? null : each);
	return { schema: orAny(schema), table: orAny(table), column: column!, dataType, by };
}

function placing(tables: readonly ShardedTable[], more: Partial<Sharding> = {}): Placing {
	return new Placing({ shards: 4, schemas: [], omnisharded: [], ...more, tables });
}

function column(dataType: KeyType, by: ShardFunction = HASH, shards = 4): ShardedColumn {
	return placing([entry("c", dataType, by)], { shards }).columnOf(null, "t", "c")!;
}

/** Between other bytes, as a parameter is in its message. */
function ofBinary(of: ShardedColumn, hex: string, home = false): number | null {
	const bytes = Buffer.from(`a5${hex}5a`, "hex");
	return home ? of.homeOfBinary(bytes, 1, bytes.length - 1) : of.shardOfBinary(bytes, 1, bytes.length - 1);
}

describe("a table is sharded by", () => {
	const names = (columns: readonly ShardedColumn[]) =>
		columns.map((each) => [each.schema ?? "*", each.table ?? "*", each.column].join("."));
	const all = placing(
		[entry("users.id"), entry("tenant_id"), entry("user_id"), entry("billing.orders.account"), entry("log.*.day")],
		{
			omnisharded: [
				{ schema: null, table: "countries" },
				{ schema: "billing", table: "rates" },
			],
		},
	);

	test("what an entry says that names it, and by no other column", () => {
		expect(names(all.columnsOf("public", "users"))).toEqual(["*.users.id"]);
		expect(all.columnOf(null, "users", "id")?.column).toBe("id");
		expect(all.columnOf(null, "users", "tenant_id")).toBeNull();
	});

	test("what the entries without a table say, when none names it", () => {
		expect(all.columnOf("public", "items", "tenant_id")?.column).toBe("tenant_id");
		expect(all.columnOf("public", "items", "user_id")?.column).toBe("user_id");
		expect(all.columnOf("public", "items", "id")).toBeNull();
		expect(names(all.columnsOf("public", "items"))).toEqual(["*.*.tenant_id", "*.*.user_id"]);
	});

	test("an entry of its schema, or of any when the statement names none", () => {
		expect(names(all.columnsOf("billing", "orders"))).toEqual(["billing.orders.account"]);
		expect(names(all.columnsOf(null, "orders"))).toEqual(["billing.orders.account"]);
		expect(names(all.columnsOf("public", "orders"))).toEqual(["*.*.tenant_id", "*.*.user_id"]);
		expect(all.columnOf("log", "t", "day")?.schema).toBe("log");
		expect(all.columnOf("public", "t", "day")).toBeNull();
	});

	test("nothing, when it is listed as omnisharded and no entry names it", () => {
		expect(all.isOmnisharded("public", "countries")).toBe(true);
		expect(all.isOmnisharded(null, "rates")).toBe(true);
		expect(all.isOmnisharded("public", "rates")).toBe(false);
		expect(all.columnOf(null, "countries", "tenant_id")).toBeNull();
		expect(all.columnsOf(null, "countries")).toEqual([]);
	});
});

test("two columns are alike when equal values of them are on one shard", () => {
	const list: ShardFunction = { kind: "mapping", lists: [], ranges: [], others: 1 };
	const vectors: ShardFunction = { kind: "centroids", centroids: [[1]], probes: 1 };
	const all = placing([
		entry("t.a"),
		entry("u.b"),
		entry("v.c", "bigint", list),
		entry("w.d", "varchar"),
		entry("x.e", "vector", vectors),
	]);
	const [a, b, c, d, e] = ["t", "u", "v", "w", "x"].map((name) => all.columnsOf(null, name)[0]!);
	expect([all.isAlike(a!, a!), all.isAlike(a!, b!)]).toEqual([true, true]);
	expect([c, d, e, column("bigint")].map((other) => all.isAlike(a!, other!))).toEqual([false, false, false, false]);
	expect(all.isAlike(e!, e!)).toBe(false);
});

describe("by hash a value's shard is that of its partition, whatever its form", () => {
	// The values and their hashes modulo 4 are those of sharding.test.ts, printed by PostgreSQL 15.
	test.each<[string, number]>([
		["0", 0],
		["1", 0],
		["4", 3],
		["5", 1],
		["+5", 1],
		["-1", 1],
		["-0", 0],
		["  -2\n", 2],
		["007", 3],
		[`${"0".repeat(40)}7`, 3],
		["2147483648", 2],
		["9223372036854775807", 2],
		["-9223372036854775808", 3],
	])("bigint %j", (text, shard) => {
		expect(column("bigint").shardOfText(text)).toBe(shard);
		expect(column("bigint").homeOfText(text)).toBe(shard);
	});

	test.each<[string, number]>([
		["0004", 3],
		["ffff", 1],
		["00000004", 3],
		["ffffffff", 1],
		["0000000000000004", 3],
		["ffffffffffffffff", 1],
		["fffffffe", 2],
		["0000000080000000", 2],
		["7fffffffffffffff", 2],
		["8000000000000000", 3],
	])("bigint, binary %s", (hex, shard) => {
		expect(ofBinary(column("bigint"), hex)).toBe(shard);
		expect(ofBinary(column("bigint"), hex, true)).toBe(shard);
	});

	test.each([
		"550e8400-e29b-41d4-a716-446655440000",
		"550E8400-E29B-41D4-A716-446655440000",
		"{550e8400e29b41d4a716446655440000}",
	])("uuid %s", (text) => {
		expect(column("uuid").shardOfText(text)).toBe(1);
	});

	test("uuid, binary", () => {
		expect(ofBinary(column("uuid"), "550e8400e29b41d4a716446655440000")).toBe(1);
	});

	test.each<[string, number]>([
		["", 2],
		["a", 2],
		["test_value", 1],
		["apples", 1],
		["hello world", 0],
	])("varchar %j", (text, shard) => {
		expect(column("varchar").shardOfText(text)).toBe(shard);
		expect(ofBinary(column("varchar"), Buffer.from(text).toString("hex"))).toBe(shard);
	});

	test("varchars of any length and any characters, as text and binary", () => {
		const of = column("varchar", HASH, 65521);
		const any = fc.oneof(
			fc.string({ unit: character }),
			fc.integer({ min: 900, max: 1100 }).map((n) => "€".repeat(n)),
		);
		fc.assert(
			fc.property(any, (text) => {
				const bytes = Buffer.from(text);
				expect(of.shardOfText(text)).toBe(of.shardOfBinary(bytes, 0, bytes.length)!);
			}),
		);
	});

	test("bigints, as text and binary of each width that holds them", () => {
		const of = column("bigint", HASH, 65521);
		const widths = fc.constantFrom(16, 32, 53, 64);
		const any = widths.chain((bits) => {
			const half = 2n ** BigInt(bits - 1);
			return fc.bigInt({ min: -half, max: half - 1n });
		});
		fc.assert(
			fc.property(any, (value) => {
				const shard = of.shardOfText(String(value));
				expect(shard).toBe(shardOfKey(String(value), 65521));
				const bytes = Buffer.alloc(8);
				bytes.writeBigInt64BE(value);
				expect(of.shardOfBinary(bytes, 0, 8)).toBe(shard);
				if (value === BigInt.asIntN(32, value)) expect(of.shardOfBinary(bytes, 4, 8)).toBe(shard);
				if (value === BigInt.asIntN(16, value)) expect(of.shardOfBinary(bytes, 6, 8)).toBe(shard);
			}),
		);
	});
});

test("by sha1 a value's shard is PgDog's, whatever its form", () => {
	// PgDog's own test has these, of the numbers from 0 on and twelve shards.
	const expected = [4, 7, 8, 3, 6, 0, 0, 10, 3, 11, 1, 7, 4, 4, 11, 2, 5, 0, 8, 3];
	const of = column("bigint", SHA1, 12);
	expect(expected.map((_, value) => of.shardOfText(` +0${value}`))).toEqual(expected);
	expect(expected.map((_, value) => ofBinary(of, value.toString(16).padStart(4, "0")))).toEqual(expected);
	// sha1sum of the sixteen bytes ends in 80a55d34, of "a" in 377667b8.
	expect(column("uuid", SHA1, 65521).shardOfText("550E8400-e29b-41d4-a716-446655440000")).toBe(
		ofBinary(column("uuid", SHA1, 65521), "550e8400e29b41d4a716446655440000"),
	);
	expect(column("varchar", SHA1, 65521).shardOfText("a")).toBe(0x377667b8 % 65521);
	expect(ofBinary(column("varchar", SHA1, 65521), "61")).toBe(0x377667b8 % 65521);
});

describe("no shard has what is no value of the type: the servers judge it", () => {
	const bad: [KeyType, string[], string[]][] = [
		[
			"bigint",
			[
				"",
				" ",
				"-",
				"+",
				"--1",
				"1 2",
				"1.0",
				"1e3",
				"0x10",
				"1_000",
				"9223372036854775808",
				"-9223372036854775809",
				"٣",
			],
			["", "00", "000000", "00000000000000", "000000000000000000"],
		],
		["bigint", ["1".repeat(5000), "a"], []],
		["uuid", ["", "550e8400", " 550e8400-e29b-41d4-a716-446655440000", "550e8400e29b41d4a71644665544000g"], ["00"]],
	];
	for (const by of [HASH, SHA1]) {
		test.each(bad)(`%s by ${by.kind === "hash" ? by.hasher : ""}`, (dataType, texts, binaries) => {
			const of = column(dataType, by);
			for (const text of texts) expect([text, of.shardOfText(text)]).toEqual([text, null]);
			for (const hex of binaries) expect([hex, ofBinary(of, hex)]).toEqual([hex, null]);
		});
	}

	test("bytes that are not UTF-8, where they have to be read", () => {
		expect(ofBinary(column("varchar", SHA1), "ff")).toBeNull();
	});
});

describe("by mapping", () => {
	const mapping = (more: Partial<ShardFunction & { kind: "mapping" }>): ShardFunction => ({
		kind: "mapping",
		lists: [],
		ranges: [],
		others: null,
		...more,
	});

	test("lists come first, then ranges, then the entry for all others", () => {
		const by = mapping({
			lists: [
				{ values: ["1", "2", "150"], shard: 0 },
				{ values: ["4"], shard: 1 },
			],
			ranges: [
				{ start: "100", end: "200", shard: 2 },
				{ start: null, end: "-5", shard: 1 },
				{ start: "1000", end: null, shard: 1 },
			],
			others: 3,
		});
		const of = column("bigint", by);
		const shards = [
			"1",
			" +02",
			"4",
			"99",
			"100",
			"150",
			"199",
			"200",
			"-5",
			"-6",
			"999",
			"1000",
			"9223372036854775807",
		];
		expect(shards.map((each) => of.shardOfText(each))).toEqual([0, 0, 1, 3, 2, 0, 2, 3, 3, 1, 3, 1, 1]);
		expect([ofBinary(of, "0096"), ofBinary(of, "fffffffffffffffa"), ofBinary(of, "7fffffffffffffff")]).toEqual([
			0, 1, 1,
		]);
	});

	test("a value that no entry names may be anywhere", () => {
		const of = column("bigint", mapping({ lists: [{ values: ["1"], shard: 2 }] }));
		expect(of.shardOfText("7")).toBe(ALL);
		expect(of.homeOfText("7")).toBe(ALL);
		expect(of.shardOfText("x")).toBeNull();
	});

	test("of a value that is listed twice the last entry counts, as in PgDog", () => {
		const lists = [
			{ values: ["1", "2"], shard: 0 },
			{ values: ["2"], shard: 3 },
		];
		expect(column("bigint", mapping({ lists })).shardOfText("2")).toBe(3);
	});

	test("uuids are in the order of their bytes", () => {
		const ranges = [
			{ start: null, end: "8".padEnd(32, "0"), shard: 0 },
			{ start: "8".padEnd(32, "0"), end: null, shard: 1 },
		];
		const of = column("uuid", mapping({ ranges }));
		expect(of.shardOfText("7FFFFFFF-ffff-ffff-ffff-ffffffffffff")).toBe(0);
		expect(of.shardOfText("80000000000000000000000000000000")).toBe(1);
		expect(ofBinary(of, "ff".repeat(16))).toBe(1);
	});

	test("texts are in the order of their bytes, not of their UTF-16", () => {
		const of = column("varchar", mapping({ ranges: [{ start: "\uffee", end: null, shard: 1 }], others: 0 }));
		expect(["a", "\uffed", "\uffee", "🐘"].map((each) => of.shardOfText(each))).toEqual([0, 0, 1, 1]);
		expect(ofBinary(of, Buffer.from("🐘").toString("hex"))).toBe(1);
	});

	test("ranges that meet have each value once, as a search among their starts finds it", () => {
		const bounds = fc.uniqueArray(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), {
			minLength: 1,
			maxLength: 8,
		});
		const value = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
		fc.assert(
			fc.property(bounds, value, (unsorted, other) => {
				const starts = unsorted.toSorted((a, b) => (a < b ? -1 : 1));
				const ranges = starts.map((start, shard) => ({
					start: String(start),
					end: shard + 1 < starts.length ? String(starts[shard + 1]) : null,
					shard,
				}));
				const of = column("bigint", mapping({ ranges: ranges.toReversed() }), 8);
				for (const each of [other, ...starts]) {
					const expected = starts.findLastIndex((start) => start <= each);
					expect(of.shardOfText(String(each))).toBe(expected === -1 ? ALL : expected);
				}
			}),
		);
	});
});

describe("by centroids", () => {
	const centroids = [
		[0, 0],
		[10, 0],
		[0, 10],
		[10, 10],
	];
	const near = (probes: number, shards = 4) => column("vector", { kind: "centroids", centroids, probes }, shards);
	const wire = (...numbers: number[]) => {
		const bytes = Buffer.alloc(4 + 4 * numbers.length);
		bytes.writeUInt16BE(numbers.length);
		for (const [index, each] of numbers.entries()) bytes.writeFloatBE(each, 4 + 4 * index);
		return bytes.toString("hex");
	};

	test("a vector is with the nearest", () => {
		const of = near(1);
		expect(["[1,1]", "[9, 1]", " [ -1.5e0 , 11. ] ", "[1e1,+9]"].map((each) => of.shardOfText(each))).toEqual([
			0, 1, 2, 3,
		]);
		expect([ofBinary(of, wire(1, 1)), ofBinary(of, wire(9, 8))]).toEqual([0, 3]);
	});

	test("of two that are as near the first has it", () => {
		expect(near(1).shardOfText("[5,0]")).toBe(0);
		expect(near(1).homeOfText("[5,5]")).toBe(0);
	});

	test("there may be more centroids than shards", () => {
		expect([near(1, 2).shardOfText("[0,9]"), near(1, 2).shardOfText("[9,9]")]).toEqual([0, 1]);
	});

	test("with several probes it is looked for on the shards of all of these, and goes to the nearest's", () => {
		expect(near(2).shardOfText("[1,4]")).toBe(ALL);
		expect(near(2).homeOfText("[1,4]")).toBe(0);
		expect(ofBinary(near(2), wire(1, 9), true)).toBe(2);
		// The two nearest, 0 and 2, are both of shard 0.
		expect(near(2, 2).shardOfText("[1,4]")).toBe(0);
		expect(near(99, 1).shardOfText("[1,4]")).toBe(0);
	});

	test("what is no vector of their dimension has no shard", () => {
		const of = near(1);
		for (const text of [
			"",
			"[]",
			"[1]",
			"[1,2,3]",
			"[1,]",
			"[1,x]",
			"[1,NaN]",
			"[1,Infinity]",
			"[1,1e99]",
			"1,2",
			"[1,0x2]",
		])
			expect([text, of.shardOfText(text), of.homeOfText(text)]).toEqual([text, null, null]);
		for (const hex of ["", "0002", wire(1), wire(1, 2, 3), wire(1, Number.NaN), `${wire(1, 2)}00`])
			expect([hex, ofBinary(of, hex), ofBinary(of, hex, true)]).toEqual([hex, null, null]);
	});
});

describe("schemas", () => {
	const schemas = [
		{ name: "eu", shard: 1 },
		{ name: "shared", shard: null },
	];

	test("have the shard of their entry, and those that none names that of the entry without a name", () => {
		const named = placing([], { schemas });
		expect(named.bySchema).toBe(true);
		expect(["eu", "shared", "us"].map((each) => named.shardOfSchema(each))).toEqual([1, ALL, null]);
		const all = placing([], { schemas: [...schemas, { name: null, shard: 3 }] });
		expect(["eu", "us"].map((each) => all.shardOfSchema(each))).toEqual([1, 3]);
		expect(["eu", "us"].map((each) => all.shardOfNamedSchema(each))).toEqual([1, null]);
		expect([named.otherSchemas, all.otherSchemas]).toEqual([null, 3]);
		expect(placing([]).bySchema).toBe(false);
	});

	test("hide where a table is that is named without its schema, unless it is omnisharded", () => {
		const omnisharded = [{ schema: null, table: "copied" }];
		const named = placing([entry("t.id")], { schemas, omnisharded });
		expect(["t", "other", "copied"].map((table) => named.mayBeAnywhere(table))).toEqual([true, true, false]);
		expect(named.columnsOf(null, "t")).toEqual([]);
		expect(named.columnsOf("public", "t")).toHaveLength(1);
		expect(placing([entry("t.id")]).mayBeAnywhere("t")).toBe(false);
	});

	test("are what a bare key names", () => {
		expect(placing([], { schemas }).shardOfKey("eu")).toBe(1);
		expect(placing([], { schemas }).shardOfKey("shared")).toBe(ALL);
		expect(placing([], { schemas }).shardOfKey("7")).toMatchObject({ message: "sharding key value isn't valid" });
		expect(placing([entry("id")], { schemas }).shardOfKey("4")).toBe(3);
	});
});

describe("a bare key is", () => {
	const list: ShardFunction = { kind: "mapping", lists: [{ values: ["4"], shard: 2 }], ranges: [], others: null };

	test("a value of the only sharding function, however many columns have it", () => {
		expect(placing([entry("a"), entry("t.b")]).shardOfKey("4")).toBe(3);
		expect(placing([entry("a", "varchar"), entry("b", "varchar")]).shardOfKey("4")).toBe(
			column("varchar").shardOfText("4")!,
		);
		expect(placing([entry("a", "bigint", list), entry("b", "bigint", { ...list })]).shardOfKey("4")).toBe(2);
		expect(placing([entry("a", "bigint", list)]).shardOfKey("5")).toBe(ALL);
		expect(placing([entry("a", "bigint", SHA1)], { shards: 12 }).shardOfKey("9")).toBe(11);
	});

	test("an error where there are several", () => {
		for (const tables of [
			[entry("a"), entry("b", "uuid")],
			[entry("a"), entry("b", "bigint", list)],
			[entry("a"), entry("b", "bigint", SHA1)],
		]) {
			const error = placing(tables).shardOfKey("4");
			expect(error).toBeInstanceOf(PgError);
			expect(error).toMatchObject({ sqlstate: "42601", message: "config has more than one sharding function" });
		}
	});

	test("an error when it is no value of the function's type", () => {
		const error = placing([entry("a")]).shardOfKey("x".repeat(200));
		expect(error).toMatchObject({ sqlstate: "42601", message: "sharding key value isn't valid" });
		expect((error as PgError).detail).toBe(`"${"x".repeat(100)}…" is not a bigint.`);
	});

	test("read as without a configuration where no table is sharded by a column", () => {
		const omnisharded = [{ schema: null, table: "t" }];
		for (const key of ["4", "apples"]) expect(placing([], { omnisharded }).shardOfKey(key)).toBe(shardOfKey(key, 4));
	});
});
