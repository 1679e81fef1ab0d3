// What the configuration says of sharding, one database at a time, as plain data, of which router/placing.ts makes use. And what keys
// are here: texts of one form for each value, which can be compared.

export type KeyType = "bigint" | "uuid" | "varchar" | "vector";

/** What `[[sharded_tables]]`, `[[sharded_schemas]]` and `[[omnisharded_tables]]` say of one database. */
export interface Sharding {
	/** Of the database; 1 or more. */
	readonly shards: number;
	readonly tables: readonly ShardedTable[];
	readonly schemas: readonly ShardedSchema[];
	readonly omnisharded: readonly TableName[];
	/** `[rewrite] shard_key = "ignore"`: an UPDATE of a key is run as it is. Default false. */
	readonly mayChangeKeys?: true;
}

export interface TableName {
	/** Null: any. */
	readonly schema: string | null;
	readonly table: string;
}

/** An entry of `[[sharded_tables]]`. Names are as PostgreSQL stores them. */
export interface ShardedTable {
	/** Null: any. */
	readonly schema: string | null;
	/** Null: any that has the column. */
	readonly table: string | null;
	readonly column: string;
	readonly dataType: KeyType;
	readonly by: ShardFunction;
}

/** From a value to its shard. */
export type ShardFunction =
	| { readonly kind: "hash"; readonly hasher: "postgres" | "sha1" }
	| {
			readonly kind: "mapping";
			/** A value that stands here twice has its last shard. */
			readonly lists: readonly { readonly values: readonly Key[]; readonly shard: number }[];
			/** No two have a value in common. */
			readonly ranges: readonly ShardRange[];
			/** The shard of values that neither names; null: they may be anywhere. */
			readonly others: number | null;
	  }
	| {
			readonly kind: "centroids";
			/** All of one dimension. */
			readonly centroids: readonly (readonly number[])[];
			/** How many of the nearest are looked at; 1 or more. */
			readonly probes: number;
	  };

/** `[start, end)`. */
export interface ShardRange {
	/** Null: without end on this side; never both. */
	readonly start: Key | null;
	readonly end: Key | null;
	readonly shard: number;
}

/** An entry of `[[sharded_schemas]]`. */
export interface ShardedSchema {
	/** Null: all that no other entry names. */
	readonly name: string | null;
	/** Null: all shards. */
	readonly shard: number | null;
}

/** A value's one form: decimal digits of a bigint, the 32 hexadecimal ones of a uuid, a varchar as it is. */
export type Key = string;

const MIN_INT8 = -(2n ** 63n);
const MAX_INT8 = 2n ** 63n - 1n;

export function isInt8(value: bigint): boolean {
	return value >= MIN_INT8 && value <= MAX_INT8;
}

/** PostgreSQL docs, "UUID Type": any case, a hyphen or none after each group of four digits, braces or none. */
const UUID = /^(?:[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}|\{[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}\})$/i;

/** The key of a uuid; null: it is none. */
export function uuidKey(text: string): Key | null {
	return UUID.test(text) ? text.replace(/[-{}]/g, "").toLowerCase() : null;
}

/** Where a key is in the order of its type: that of numbers, or of bytes. */
export function ordinalOf(key: Key, dataType: KeyType): bigint | Buffer {
	return dataType === "bigint" ? BigInt(key) : Buffer.from(key);
}

/** Below 0, 0 or above it. @param a @param b of one type */
export function compareOrdinals(a: bigint | Buffer, b: bigint | Buffer): number {
	if (typeof a === "object" || typeof b === "object") return Buffer.compare(a as Buffer, b as Buffer);
	return a < b ? -1 : a > b ? 1 : 0;
}
