// Tables as tests of keys have them: where a row is can be told without a hash.

import { At, type KeyColumn, type Tables } from "../../src/parser/tables.ts";

const SHARDS = 3;

/** A bigint is on the shard that it leaves as a remainder, a uuid that of its last digit, a text that of its length; `far…` on any. */
function column(
	name: string,
	dataType: KeyColumn["dataType"],
	schema: string | null = null,
	table: string | null = "one",
): KeyColumn {
	const shardOfText = (text: string): number | null => {
		if (dataType === "varchar") return text.startsWith("far") ? At.All : text.length % SHARDS;
		if (dataType === "uuid") return /^[0-9a-f-]{36}$/i.test(text) ? Number.parseInt(text.at(-1)!, 16) % SHARDS : null;
		return /^\s*[+-]?\d{1,18}\s*$/.test(text) ? Math.abs(Number(text)) % SHARDS : null;
	};
	const shardOfBinary = (bytes: Uint8Array, start: number, end: number): number | null => {
		const value = Buffer.from(bytes.subarray(start, end));
		if (dataType === "varchar") return shardOfText(value.toString());
		if (dataType === "uuid") return value.length === 16 ? (value.at(-1)! & 15) % SHARDS : null;
		if (value.length === 8) return shardOfText(String(value.readBigInt64BE()));
		if (value.length === 4) return shardOfText(String(value.readInt32BE()));
		return value.length === 2 ? shardOfText(String(value.readInt16BE())) : null;
	};
	return {
		schema,
		table,
		column: name,
		dataType,
		shardOfText,
		shardOfBinary,
		homeOfText: shardOfText,
		homeOfBinary: shardOfBinary,
	};
}

const KEYS: Readonly<Record<string, readonly KeyColumn[]>> = {
	a: [column("k", "bigint")],
	b: [column("k", "bigint")],
	c: [column("a_k", "bigint")],
	u: [column("id", "uuid")],
	v: [column("name", "varchar")],
	w: [column("name", "varchar")],
	two: [column("k", "bigint"), column("j", "bigint")],
	maybe: [column("k", "bigint", null, null)],
	either: [column("k", "bigint", "one"), column("j", "bigint", "other")],
};

export const TABLES: Tables = {
	bySchema: false,
	mayChangeKeys: false,
	columnsOf: (schema, table) =>
		(KEYS[table] ?? []).filter((key) => key.schema === null || schema === null || key.schema === schema),
	shardOfSchema: (schema) => ({ first: 0, second: 1, every: At.All })[schema] ?? null,
	mayBeAnywhere: () => false,
	isAlike: (a, b) => a.dataType === b.dataType,
};

export const BY_SCHEMA: Tables = { ...TABLES, bySchema: true, mayBeAnywhere: (table) => table === "t" };
