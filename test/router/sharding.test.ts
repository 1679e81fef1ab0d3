// Shards of keys: against hashes that PostgreSQL 15 printed, and against PARTITION BY HASH of a PostgreSQL that runs here.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { KeyType } from "../../src/config/sharding.ts";
import { Placing } from "../../src/router/placing.ts";
import { Hash, shardOfKey } from "../../src/router/sharding.ts";
import { character } from "../support/characters.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";

const hash = new Hash();
const whole = () => (BigInt(hash.high) << 32n) | BigInt(hash.low);
const shardOfHash = (of: bigint, shards: number) => Number(of % BigInt(shards));

function hashBigint(value: bigint): bigint {
	hash.ofInt8(Number(value >> 32n), Number(BigInt.asUintN(32, value)));
	return whole();
}

function hashBytes(bytes: Uint8Array): bigint {
	hash.ofBytes(bytes, 0, bytes.length);
	return whole();
}

const hashUuid = hashBytes;
const hashVarchar = hashBytes;

const uuidBytes = (text: string): Buffer => Buffer.from(text.replaceAll("-", ""), "hex");
const shards = (key: string): number[] => [2, 3, 4].map((count) => shardOfKey(key, count));

describe("a hash is PostgreSQL's, and the shard its remainder", () => {
	const bigints: [key: string, hash: bigint, shards: number[]][] = [
		["0", 901916981443598768n, [0, 2, 0]],
		["1", 11274504255086170040n, [0, 2, 0]],
		["2", 16968177202474426746n, [0, 0, 2]],
		["3", 17225467827229439161n, [1, 1, 1]],
		["4", 1342712747361583395n, [1, 0, 3]],
		["5", 2465103569513362205n, [1, 2, 1]],
		["7", 7014080962610971927n, [1, 1, 3]],
		["11", 8678249774952724001n, [1, 2, 1]],
		["25", 1111133843928983182n, [0, 1, 2]],
		["100", 16889660449545884249n, [1, 2, 1]],
		["1000", 9119549143080990164n, [0, 2, 0]],
		["-1", 288437243775528869n, [1, 2, 1]],
		["-2", 7453217227354435114n, [0, 1, 2]],
		["2147483648", 10244051894435199606n, [0, 0, 2]],
		["9223372036854775807", 10244051894435199606n, [0, 0, 2]],
		["-9223372036854775808", 17701988066039669119n, [1, 1, 3]],
	];
	test.each(bigints)("of bigint %s", (key, hash, expected) => {
		expect(hashBigint(BigInt(key))).toBe(hash);
		expect(shards(key)).toEqual(expected);
	});

	const varchars: [key: string, hash: bigint, shards: number[]][] = [
		["", 18051608080690800806n, [0, 2, 2]],
		["a", 17047028206024085342n, [0, 2, 2]],
		["test_value", 16854642407346284885n, [1, 2, 1]],
		["apples", 8982655956910543021n, [1, 1, 1]],
		["hello world", 12969806090253790600n, [0, 1, 0]],
	];
	test.each(varchars)("of varchar '%s'", (key, hash, expected) => {
		expect(hashVarchar(Buffer.from(key))).toBe(hash);
		expect(shards(key)).toEqual(expected);
	});

	const uuids: [key: string, hash: bigint, shards: number[]][] = [
		["00000000-0000-0000-0000-000000000000", 24427445038037925n, [1, 0, 1]],
		["11111111-1111-1111-1111-111111111111", 5619216969848565148n, [0, 1, 0]],
		["550e8400-e29b-41d4-a716-446655440000", 1837617939103458761n, [1, 2, 1]],
		["ffffffff-ffff-ffff-ffff-ffffffffffff", 5156523127093460353n, [1, 1, 1]],
	];
	test.each(uuids)("of uuid %s", (key, hash, expected) => {
		expect(hashUuid(uuidBytes(key))).toBe(hash);
		expect(shards(key)).toEqual(expected);
	});
});

describe("a key without a type counts as", () => {
	// Enough shards that two hashes meet in one by chance about never.
	const MANY = 2 ** 31 - 1;
	const bigint = (value: bigint): number => shardOfHash(hashBigint(value), MANY);
	const uuid = (text: string): number => shardOfHash(hashUuid(uuidBytes(text)), MANY);
	const varchar = (text: string): number => shardOfHash(hashVarchar(Buffer.from(text)), MANY);

	test.each<[string, bigint]>([
		["-0", 0n],
		["+5", 5n],
		["007", 7n],
		["-007", -7n],
		[`${"0".repeat(40)}12`, 12n],
		["000", 0n],
		["9223372036854775807", 2n ** 63n - 1n],
		["-9223372036854775808", -(2n ** 63n)],
	])("bigint: %s", (key, value) => {
		expect(shardOfKey(key, MANY)).toBe(bigint(value));
	});

	test.each([
		"9223372036854775808",
		"-9223372036854775809",
		"1".repeat(20),
		" 1",
		"1 ",
		"1\n",
		"1.0",
		"1e3",
		"0x10",
		"1_000",
		"--1",
		"+",
		"-",
		"٣",
		"",
		"é",
		"日本語の鍵",
		"🐘🐘🐘🐘",
		"twelve bytes",
		"thirteen byte",
		"exactly twenty-four byte",
		"550e8400-e29b-41d4-a716-44665544000",
		"550e8400-e29b-41d4-a716-4466554400000",
		"550e8400-e29b-41d4-a716-44665544000g",
		"{550e8400-e29b-41d4-a716-446655440000",
		"550e8400-e29b-41d4-a716-446655440000}",
		"550e8400--e29b-41d4-a716-446655440000",
		"-550e8400-e29b-41d4-a716-446655440000",
		"550e-8400e-29b41d4a716446655440000",
	])("varchar: '%s'", (key) => {
		expect(shardOfKey(key, MANY)).toBe(varchar(key));
	});

	test.each([
		"550E8400-E29B-41D4-A716-446655440000",
		"550e8400e29b41d4a716446655440000",
		"{550e8400-e29b-41d4-a716-446655440000}",
		"550e-8400-e29b-41d4-a716-4466-5544-0000",
	])("uuid: %s", (key) => {
		expect(shardOfKey(key, MANY)).toBe(uuid("550e8400-e29b-41d4-a716-446655440000"));
	});
});

test("any key has one shard, of those that there are", () => {
	const key = fc.oneof(fc.string({ unit: character }), fc.bigInt().map(String), fc.uuid());
	fc.assert(
		fc.property(key, fc.integer({ min: 1, max: 65536 }), (each, count) => {
			const shard = shardOfKey(each, count);
			expect(Number.isInteger(shard) && shard >= 0 && shard < count).toBe(true);
			expect(shardOfKey(each, count)).toBe(shard);
		}),
	);
});

test("the shard of twelve tells those of two, three and four, as with partitions that are split", () => {
	fc.assert(
		fc.property(fc.string({ unit: character }), (key) => {
			const shard = shardOfKey(key, 12);
			expect(shards(key)).toEqual([shard % 2, shard % 3, shard % 4]);
		}),
	);
});

describe("PostgreSQL puts into the same partition", () => {
	let cluster: Cluster;
	beforeAll(async () => {
		cluster = await startPostgres();
		await cluster.primary.sql(`
			CREATE TABLE by_bigint (key bigint) PARTITION BY HASH (key);
			CREATE TABLE by_integer (key integer) PARTITION BY HASH (key);
			CREATE TABLE by_smallint (key smallint) PARTITION BY HASH (key);
			CREATE TABLE by_text (key text) PARTITION BY HASH (key);
			CREATE TABLE by_uuid (key uuid) PARTITION BY HASH (key);
			CREATE TABLE by_varchar (key varchar) PARTITION BY HASH (key)`);
	}, 60_000);
	afterAll(() => cluster?.stop());

	/** For each key, the partition that it has of each number of partitions. */
	async function partitions(type: string, keys: readonly string[], counts: readonly number[]): Promise<unknown> {
		const [row] = await cluster.primary.sql(`
			SELECT json_agg(partitions ORDER BY at) AS all FROM (
				SELECT at, json_agg(remainder ORDER BY count) AS partitions
				FROM json_array_elements_text($keys$${JSON.stringify(keys)}$keys$) WITH ORDINALITY AS keys (key, at),
					unnest(ARRAY[${counts.join(", ")}]) AS count, generate_series(0, count - 1) AS remainder
				WHERE satisfies_hash_partition('by_${type}'::regclass, count, remainder, key::${type})
				GROUP BY at) AS found`);
		return row?.all;
	}

	const samples: [type: string, keys: fc.Arbitrary<string>][] = [
		["bigint", fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String)],
		["bigint", fc.integer().map(String)],
		["uuid", fc.uuid()],
		["uuid", fc.uuid().map((each) => `{${each.replaceAll("-", "").toUpperCase()}}`)],
		["varchar", fc.string({ unit: character, maxLength: 40 }).map((each) => `k${each}`)],
		["varchar", fc.integer({ min: 0, max: 60 }).map((length) => "é".repeat(length))],
	];
	test.each(samples)("200 random keys of type %s", async (type, arbitrary) => {
		const keys = fc.sample(arbitrary, 200);
		const counts = [2, 3, 7, 16];
		expect(await partitions(type, keys, counts)).toEqual(
			keys.map((key) => counts.map((count) => shardOfKey(key, count))),
		);
	});

	/** A value's text, and what a driver sends of it in binary. */
	type Sample = readonly [text: string, binary: Buffer];
	const integer = (bits: 16 | 32 | 64): fc.Arbitrary<Sample> => {
		const half = 2n ** BigInt(bits - 1);
		const any = fc.oneof(fc.bigInt({ min: -half, max: half - 1n }), fc.bigInt({ min: -9n, max: 9n }));
		return any.map((value) => {
			const bytes = Buffer.alloc(8);
			bytes.writeBigInt64BE(value);
			return [String(value), bytes.subarray(8 - bits / 8)];
		});
	};
	const anyText = fc.string({ unit: character, maxLength: 40 }).map((text): Sample => [text, Buffer.from(text)]);
	const columns: [type: string, dataType: KeyType, samples: fc.Arbitrary<Sample>][] = [
		["bigint", "bigint", integer(64)],
		["integer", "bigint", integer(32)],
		["smallint", "bigint", integer(16)],
		["uuid", "uuid", fc.uuid().map((text) => [text, uuidBytes(text)])],
		["varchar", "varchar", anyText],
		["text", "varchar", anyText],
	];
	test.each(columns)(
		"2000 random values of a column of type %s, as text and binary",
		async (type, dataType, values) => {
			const sampled = fc.sample(values, 2000);
			const counts = [2, 3, 7, 16];
			const ofCounts = counts.map((shards) => {
				const table = {
					schema: null,
					table: null,
					column: "key",
					dataType,
					by: { kind: "hash", hasher: "postgres" },
				} as const;
				return new Placing({ shards, tables: [table], schemas: [], omnisharded: [] }).columnOf(null, "t", "key")!;
			});
			const found = await partitions(
				type,
				sampled.map(([text]) => text),
				counts,
			);
			expect(found).toEqual(sampled.map(([text]) => ofCounts.map((column) => column.shardOfText(text))));
			expect(found).toEqual(
				sampled.map(([, binary]) => ofCounts.map((column) => column.shardOfBinary(binary, 0, binary.length))),
			);
		},
	);
});
