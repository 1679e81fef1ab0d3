// From a value of a sharded column to its shard: by hash, by mapping, by the nearest centroids. Made by placing.ts, asked by whoever
// has found a key in a statement. Knows values, in PostgreSQL's text and binary formats, and no statement.

import { createHash } from "node:crypto";
import {
	compareOrdinals,
	isInt8,
	type Key,
	type KeyType,
	ordinalOf,
	type ShardedTable,
	type ShardFunction,
	type ShardRange,
	uuidKey,
} from "../config/sharding.ts";
import { ShardChoice } from "./route.ts";
import { shardOfBytes, shardOfInt8 } from "./sharding.ts";
import { Centroids } from "./vectors.ts";

/** How rows are placed by a column. */
export interface ShardedColumn {
	/** Null: any. */
	readonly schema: string | null;
	/** Null: any that has the column. */
	readonly table: string | null;
	readonly column: string;
	readonly dataType: KeyType;
	/**
	 * Where rows with this value are, given as a parameter in text format, or as a constant's text. `ShardChoice.All`: they may be
	 * anywhere, since no mapping names the value, or be on one of several shards. Null: it is no value of the type, or not one that
	 * every version of PostgreSQL reads so: the servers are to judge it.
	 */
	shardOfText(text: string): number | null;
	/** As `shardOfText`, of a binary parameter: a bigint's has 2, 4 or 8 bytes. */
	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null;
	/** Where a new row with this value goes: of several shards on which it would be looked for, the first. */
	homeOfText(text: string): number | null;
	homeOfBinary(bytes: Uint8Array, start: number, end: number): number | null;
}

export function columnOf(table: ShardedTable, shards: number): ShardedColumn {
	const { by, dataType } = table;
	if (by.kind === "centroids") return new NearCentroid(table, new Centroids(by.centroids, by.probes, shards));
	if (by.kind === "mapping") return new ByKey(table, mapped(by, dataType));
	if (by.hasher === "sha1") return new ByKey(table, (key) => shardOfSha1(key, dataType, shards));
	switch (dataType) {
		case "bigint":
			return new HashedBigint(table, shards);
		case "uuid":
			return new HashedUuid(table, shards);
		default:
			return new HashedVarchar(table, shards);
	}
}

/** What columns have in common: each value is looked for where its row has gone. */
abstract class Column implements ShardedColumn {
	readonly schema: string | null;
	readonly table: string | null;
	readonly column: string;
	readonly dataType: KeyType;

	constructor({ schema, table, column, dataType }: ShardedTable) {
		this.schema = schema;
		this.table = table;
		this.column = column;
		this.dataType = dataType;
	}

	abstract shardOfText(text: string): number | null;
	abstract shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null;

	homeOfText(text: string): number | null {
		return this.shardOfText(text);
	}

	homeOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		return this.shardOfBinary(bytes, start, end);
	}
}

/** By PostgreSQL's hash: these columns make no object for a value. */
abstract class HashedColumn extends Column {
	protected readonly shards: number;

	constructor(table: ShardedTable, shards: number) {
		super(table);
		this.shards = shards;
	}
}

class HashedBigint extends HashedColumn {
	shardOfText(text: string): number | null {
		return readText(text) ? shardOfInt8(int8.high, int8.low, this.shards) : null;
	}

	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		return readBinary(bytes, start, end) ? shardOfInt8(int8.high, int8.low, this.shards) : null;
	}
}

class HashedUuid extends HashedColumn {
	shardOfText(text: string): number | null {
		return readUuid(text) ? shardOfBytes(SCRATCH, 0, UUID_BYTES, this.shards) : null;
	}

	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		return end - start === UUID_BYTES ? shardOfBytes(bytes, start, end, this.shards) : null;
	}
}

class HashedVarchar extends HashedColumn {
	shardOfText(text: string): number | null {
		if (readAscii(text)) return shardOfBytes(SCRATCH, 0, text.length, this.shards);
		const bytes = Buffer.from(text);
		return shardOfBytes(bytes, 0, bytes.length, this.shards);
	}

	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		return shardOfBytes(bytes, start, end, this.shards);
	}
}

/** By what is looked up, or hashed, by the value's key. */
class ByKey extends Column {
	readonly #shardOf: (key: Key) => number;

	constructor(table: ShardedTable, shardOf: (key: Key) => number) {
		super(table);
		this.#shardOf = shardOf;
	}

	shardOfText(text: string): number | null {
		const key = this.#keyOf(text);
		return key === null ? null : this.#shardOf(key);
	}

	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		const key = keyOfBinary(this.dataType, bytes, start, end);
		return key === null ? null : this.#shardOf(key);
	}

	#keyOf(text: string): Key | null {
		if (this.dataType === "varchar") return text;
		if (this.dataType === "uuid") return uuidKey(text);
		return readText(text) ? int8Key() : null;
	}
}

class NearCentroid extends Column {
	readonly #centroids: Centroids;

	constructor(table: ShardedTable, centroids: Centroids) {
		super(table);
		this.#centroids = centroids;
	}

	shardOfText(text: string): number | null {
		return this.#centroids.readText(text) ? this.#centroids.shard() : null;
	}

	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		return this.#centroids.readBinary(bytes, start, end) ? this.#centroids.shard() : null;
	}

	override homeOfText(text: string): number | null {
		return this.#centroids.readText(text) ? this.#centroids.home() : null;
	}

	override homeOfBinary(bytes: Uint8Array, start: number, end: number): number | null {
		return this.#centroids.readBinary(bytes, start, end) ? this.#centroids.home() : null;
	}
}

const UUID_BYTES = 16;
/** Bytes that are read from a text, and hashed at once. */
const SCRATCH = new Uint8Array(256);

/** Whether the text is short and of ASCII alone, as most keys: its bytes are in `SCRATCH` then. */
function readAscii(text: string): boolean {
	const { length } = text;
	if (length > SCRATCH.length) return false;
	for (let i = 0; i < length; i++) {
		const code = text.charCodeAt(i);
		if (code > 0x7f) return false;
		SCRATCH[i] = code;
	}
	return true;
}

/** As `uuidKey`, with the bytes in `SCRATCH`. */
function readUuid(text: string): boolean {
	const hasBraces = text.charCodeAt(0) === 0x7b;
	let at = hasBraces ? 1 : 0;
	for (let i = 0; i < UUID_BYTES; i++) {
		// PostgreSQL takes a hyphen after each group of four digits.
		if (i > 0 && i % 2 === 0 && text.charCodeAt(at) === 0x2d) at++;
		const value = (digit(text.charCodeAt(at)) << 4) | digit(text.charCodeAt(at + 1));
		if (value < 0) return false;
		SCRATCH[i] = value;
		at += 2;
	}
	if (hasBraces && text.charCodeAt(at++) !== 0x7d) return false;
	return at === text.length;
}

/** A hexadecimal digit's value; -1: it is none. */
function digit(code: number): number {
	if (code >= 0x30 && code <= 0x39) return code - 0x30;
	const letter = code | 0x20;
	return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

/** Keeps a byte order mark, which is part of a value. */
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function keyOfBinary(dataType: KeyType, bytes: Uint8Array, start: number, end: number): Key | null {
	if (dataType === "bigint") return readBinary(bytes, start, end) ? int8Key() : null;
	const value = bytes.subarray(start, end);
	if (dataType === "uuid") return value.length === UUID_BYTES ? value.toHex() : null;
	try {
		return UTF8.decode(value);
	} catch {
		return null;
	}
}

/** The lists first, then the ranges, then the entry for all others. */
function mapped(
	{ lists, ranges, others }: ShardFunction & { kind: "mapping" },
	dataType: KeyType,
): (key: Key) => number {
	const listed = new Map(lists.flatMap(({ values, shard }) => values.map((value) => [value, shard] as const)));
	const shardOfRange = ranged(ranges, dataType);
	return (key) => listed.get(key) ?? shardOfRange(key) ?? others ?? ShardChoice.All;
}

/** @param ranges which have no value in common: of those in order only the last that has begun can have it */
function ranged(ranges: readonly ShardRange[], dataType: KeyType): (key: Key) => number | undefined {
	const inOrder = ranges
		.map(({ start, end, shard }) => ({
			start: start === null ? null : ordinalOf(start, dataType),
			end: end === null ? null : ordinalOf(end, dataType),
			shard,
		}))
		.filter(({ start, end }) => start === null || end === null || compareOrdinals(start, end) < 0)
		.sort((a, b) => (a.start === null ? -1 : b.start === null ? 1 : compareOrdinals(a.start, b.start)));
	if (inOrder.length === 0) return () => undefined;
	return (key) => {
		const place = ordinalOf(key, dataType);
		let low = 0;
		let high = inOrder.length;
		while (low < high) {
			const middle = (low + high) >> 1;
			const { start } = inOrder[middle]!;
			if (start === null || compareOrdinals(start, place) <= 0) low = middle + 1;
			else high = middle;
		}
		const range = inOrder[low - 1];
		return range === undefined || (range.end !== null && compareOrdinals(range.end, place) <= 0)
			? undefined
			: range.shard;
	};
}

/** PgDog's: the last four bytes of the digest of the decimal digits, of the uuid's bytes, or of the text, as one number. */
function shardOfSha1(key: Key, dataType: KeyType, shards: number): number {
	const digest = createHash("sha1")
		.update(key, dataType === "uuid" ? "hex" : "utf8")
		.digest();
	return digest.readUInt32BE(16) % shards;
}

/** The value that was read last, as two halves. */
const int8 = { high: 0, low: 0 };
const TWO_TO_32 = 2 ** 32;
/** So many digits are a number that is held exactly. */
const EXACT_DIGITS = 15;

/** Reads what PostgreSQL's int8 takes in all its versions: a decimal number, with white space around it. */
function readText(text: string): boolean {
	let at = 0;
	let end = text.length;
	while (at < end && isSpace(text.charCodeAt(at))) at++;
	while (end > at && isSpace(text.charCodeAt(end - 1))) end--;
	const sign = text.charCodeAt(at);
	const isNegative = sign === 0x2d;
	if (isNegative || sign === 0x2b) at++;
	if (at >= end) return false;
	const start = at;
	let value = 0;
	for (; at < end; at++) {
		const digit = text.charCodeAt(at) - 0x30;
		if (digit < 0 || digit > 9) return false;
		value = value * 10 + digit;
	}
	if (end - start > EXACT_DIGITS) return readLong(text.slice(start, end), isNegative);
	if (isNegative) value = -value;
	int8.high = Math.floor(value / TWO_TO_32);
	int8.low = value - int8.high * TWO_TO_32;
	return true;
}

/** @param digits at least one, and nothing else */
function readLong(digits: string, isNegative: boolean): boolean {
	// Zeros in front apart, so that no number is made of a text that is long beyond any sense.
	const significant = digits.replace(/^0+(?=.)/, "");
	if (significant.length > 19) return false;
	const value = isNegative ? -BigInt(significant) : BigInt(significant);
	if (!isInt8(value)) return false;
	int8.high = Number(value >> 32n);
	int8.low = Number(BigInt.asUintN(32, value));
	return true;
}

/** PostgreSQL's `isspace`, for ASCII. */
function isSpace(code: number): boolean {
	return code === 0x20 || (code >= 0x09 && code <= 0x0d);
}

function readBinary(bytes: Uint8Array, start: number, end: number): boolean {
	switch (end - start) {
		case 2:
			int8.low = ((bytes[start]! << 24) >> 16) | bytes[start + 1]!;
			int8.high = int8.low >> 31;
			return true;
		case 4:
			int8.low = word(bytes, start);
			int8.high = int8.low >> 31;
			return true;
		case 8:
			int8.high = word(bytes, start);
			int8.low = word(bytes, start + 4);
			return true;
		default:
			return false;
	}
}

/** Four bytes, the highest first. */
function word(bytes: Uint8Array, at: number): number {
	return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
}

function int8Key(): Key {
	const low = int8.low >>> 0;
	const value = int8.high * TWO_TO_32 + low;
	return String(Number.isSafeInteger(value) ? value : (BigInt(int8.high) << 32n) | BigInt(low));
}
