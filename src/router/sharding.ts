// From a key to the shard that its hash gives: the partition that PostgreSQL's `PARTITION BY HASH` would put it in, so that shards
// can be filled from a partitioned table and checked against one. Called by placing.ts and router.ts; knows keys, no statements.

import { isInt8, uuidKey } from "../config/sharding.ts";

/** What PostgreSQL gives to the hash functions of partitioning (HASH_PARTITION_SEED), as two unsigned halves. */
const SEED_HIGH = 0x7a5b2236;
const SEED_LOW = 0x7996dcfd;
/** What its `hash_combine64` adds to the hash of a key that has only one column. */
const COMBINE_HIGH = 0x49a0f4dd;
const COMBINE_LOW = 0x15e5a8e3;

const TWO_TO_32 = 2 ** 32;

/**
 * The shard of a bare key, one given by a comment, SET or a startup option, where the configuration has no sharding function: it
 * counts as bigint when it is a decimal integer that fits, as uuid when it looks like one, else as varchar. Spaces are not
 * trimmed: ` 1` is a varchar.
 * @param shards at least 1
 */
export function shardOfKey(key: string, shards: number): number {
	// Zeros in front apart, so that no number is made of a key that is long beyond any sense.
	const integer = /^([+-]?)0*(\d{1,19})$/.exec(key);
	if (integer !== null) {
		const value = BigInt(`${integer[1] === "-" ? "-" : ""}${integer[2]!}`);
		if (isInt8(value)) return shardOfInt8(Number(value >> 32n), Number(BigInt.asIntN(32, value)), shards);
	}
	const uuid = uuidKey(key);
	const bytes = uuid === null ? Buffer.from(key) : Buffer.from(uuid, "hex");
	return shardOfBytes(bytes, 0, bytes.length, shards);
}

/** @param high @param low halves of the value, signed or not @param shards at least 1, as below */
export function shardOfInt8(high: number, low: number, shards: number): number {
	HASH.ofInt8(high, low);
	return HASH.remainder(shards);
}

/**
 * Of a uuid, the sixteen in the order of its text; of a varchar, its bytes in UTF-8: for columns of a deterministic collation, as
 * all are that do not ask for another.
 */
export function shardOfBytes(bytes: Uint8Array, start: number, end: number, shards: number): number {
	HASH.ofBytes(bytes, start, end);
	return HASH.remainder(shards);
}

/** A word of `bytes`, of which the lowest byte comes first; what is at `end` and beyond counts as 0. */
function word(bytes: Uint8Array, at: number, end: number): number {
	if (at + 4 <= end) return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
	let value = 0;
	for (let i = at; i < end; i++) value |= bytes[i]! << (8 * (i - at));
	return value;
}

/**
 * Bob Jenkins' lookup3 ("Hash functions for hash table lookup", 2006; public domain) as PostgreSQL starts and seeds it.
 * Three 32-bit integers, kept signed: JavaScript's bit operators are at home there, and sums wrap with `| 0`.
 */
export class Hash {
	/** What was hashed last comes to this, as two unsigned halves. */
	high = 0;
	low = 0;
	#a = 0;
	#b = 0;
	#c = 0;

	ofInt8(high: number, low: number): void {
		// A value that fits int4 must hash as that int4 does: for it the high half is 0 or -1, and leaves the low one as it is.
		this.#start(4);
		this.#add(low ^ ((high | 0) < 0 ? ~high : high), 0, 0);
		this.#end();
	}

	ofBytes(bytes: Uint8Array, start: number, end: number): void {
		this.#start(end - start);
		let at = start;
		for (; end - at >= 12; at += 12) {
			this.#add(word(bytes, at, end), word(bytes, at + 4, end), word(bytes, at + 8, end));
			this.#mix();
		}
		// The lowest byte of the third word is taken by the length, so the rest starts at its second; it has three bytes at most.
		this.#add(word(bytes, at, end), word(bytes, at + 4, end), word(bytes, at + 8, end) << 8);
		this.#end();
	}

	/** Of the hash by `divisor`, which is below 2 ** 26: no product is beyond what a number holds exactly. */
	remainder(divisor: number): number {
		return ((this.high % divisor) * (TWO_TO_32 % divisor) + (this.low % divisor)) % divisor;
	}

	/** @param length of what is hashed, in bytes */
	#start(length: number): void {
		this.#a = this.#b = this.#c = (0x9e3779b9 + length + 3923095) | 0;
		this.#add(SEED_HIGH, SEED_LOW, 0);
		this.#mix();
	}

	#add(a: number, b: number, c: number): void {
		this.#a = (this.#a + a) | 0;
		this.#b = (this.#b + b) | 0;
		this.#c = (this.#c + c) | 0;
	}

	/** Between blocks; reversible. */
	#mix(): void {
		let a = this.#a;
		let b = this.#b;
		let c = this.#c;
		a = ((a - c) | 0) ^ rotate(c, 4);
		c = (c + b) | 0;
		b = ((b - a) | 0) ^ rotate(a, 6);
		a = (a + c) | 0;
		c = ((c - b) | 0) ^ rotate(b, 8);
		b = (b + a) | 0;
		a = ((a - c) | 0) ^ rotate(c, 16);
		c = (c + b) | 0;
		b = ((b - a) | 0) ^ rotate(a, 19);
		a = (a + c) | 0;
		c = ((c - b) | 0) ^ rotate(b, 4);
		b = (b + a) | 0;
		this.#a = a;
		this.#b = b;
		this.#c = c;
	}

	/** After the last block: the hash, combined as that of a partition key of one column. */
	#end(): void {
		let a = this.#a;
		let b = this.#b;
		let c = this.#c;
		c = ((c ^ b) - rotate(b, 14)) | 0;
		a = ((a ^ c) - rotate(c, 11)) | 0;
		b = ((b ^ a) - rotate(a, 25)) | 0;
		c = ((c ^ b) - rotate(b, 16)) | 0;
		a = ((a ^ c) - rotate(c, 4)) | 0;
		b = ((b ^ a) - rotate(a, 14)) | 0;
		c = ((c ^ b) - rotate(b, 24)) | 0;
		const low = (c >>> 0) + COMBINE_LOW;
		this.low = low >>> 0;
		this.high = ((b >>> 0) + COMBINE_HIGH + (low >= TWO_TO_32 ? 1 : 0)) >>> 0;
	}
}

function rotate(value: number, bits: number): number {
	return (value << bits) | (value >>> (32 - bits));
}

/** One is enough: a hash is made and used up at once. */
const HASH = new Hash();
