// Which shard a sharding key belongs to: the partition that PostgreSQL's `PARTITION BY HASH` would put it in, so that shards
// can be filled from a partitioned table and checked against one. Called by router.ts; knows keys, no statements.

/** What PostgreSQL gives to the hash functions of partitioning (HASH_PARTITION_SEED), as two unsigned halves. */
const SEED_HIGH = 0x7a5b2236;
const SEED_LOW = 0x7996dcfd;
/** What its `hash_combine64` adds to the hash of a key that has only one column. */
const COMBINE_HIGH = 0x49a0f4dd;
const COMBINE_LOW = 0x15e5a8e3;

const MIN_INT8 = -(2n ** 63n);
const MAX_INT8 = 2n ** 63n - 1n;
/** PostgreSQL docs, "UUID Type": any case, a hyphen or none after each group of four digits, braces or none. */
const UUID = /^(?:[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}|\{[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}\})$/i;

/**
 * The shard of a bare key, one given by a comment, SET or a startup option, which names no table and so has no type: it
 * counts as bigint when it is a decimal integer that fits, as uuid when it looks like one, else as varchar. Spaces are not
 * trimmed: ` 1` is a varchar.
 * @param shards at least 1
 */
export function shardOfKey(key: string, shards: number): number {
	return shardOfHash(hashOfKey(key), shards);
}

/** @param hash of one of the functions below @returns from 0 to `shards` - 1 */
export function shardOfHash(hash: bigint, shards: number): number {
	return Number(hash % BigInt(shards));
}

function hashOfKey(key: string): bigint {
	// Zeros in front apart, so that no number is made of a key that is long beyond any sense.
	const integer = /^([+-]?)0*(\d{1,19})$/.exec(key);
	if (integer !== null) {
		const value = BigInt(`${integer[1] === "-" ? "-" : ""}${integer[2]!}`);
		if (value >= MIN_INT8 && value <= MAX_INT8) return hashBigint(value);
	}
	if (UUID.test(key)) return hashUuid(Buffer.from(key.replace(/[-{}]/g, ""), "hex"));
	return hashVarchar(Buffer.from(key));
}

/** Unsigned, 64 bits. @param value that fits int8 */
export function hashBigint(value: bigint): bigint {
	const low = Number(BigInt.asUintN(32, value)) | 0;
	const high = Number(BigInt.asIntN(32, value >> 32n));
	// A value that fits int4 must hash as that int4 does: for it the high half is 0 or -1, and leaves the low one as it is.
	const state = new State(4);
	state.add(low ^ (high < 0 ? ~high : high), 0, 0);
	return state.hash();
}

/** Unsigned, 64 bits. @param bytes the sixteen of the uuid, in the order of its text */
export function hashUuid(bytes: Uint8Array): bigint {
	return hashBytes(bytes);
}

/** Unsigned, 64 bits; for columns of a deterministic collation, as all are that do not ask for another. @param bytes in UTF-8 */
export function hashVarchar(bytes: Uint8Array): bigint {
	return hashBytes(bytes);
}

function hashBytes(bytes: Uint8Array): bigint {
	const state = new State(bytes.length);
	let at = 0;
	for (; bytes.length - at >= 12; at += 12) {
		state.add(word(bytes, at), word(bytes, at + 4), word(bytes, at + 8));
		state.mix();
	}
	// The lowest byte of the third word is taken by the length, so the rest starts at its second; it has three bytes at most.
	state.add(word(bytes, at), word(bytes, at + 4), word(bytes, at + 8) << 8);
	return state.hash();
}

/** Four bytes, the lowest first; those beyond the end count as 0. */
function word(bytes: Uint8Array, at: number): number {
	return (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);
}

/**
 * Bob Jenkins' lookup3 ("Hash functions for hash table lookup", 2006; public domain) as PostgreSQL starts and seeds it.
 * Three 32-bit integers, kept signed: JavaScript's bit operators are at home there, and sums wrap with `| 0`.
 */
class State {
	#a: number;
	#b: number;
	#c: number;

	/** @param length of what is hashed, in bytes */
	constructor(length: number) {
		this.#a = this.#b = this.#c = (0x9e3779b9 + length + 3923095) | 0;
		this.add(SEED_HIGH, SEED_LOW, 0);
		this.mix();
	}

	add(a: number, b: number, c: number): void {
		this.#a = (this.#a + a) | 0;
		this.#b = (this.#b + b) | 0;
		this.#c = (this.#c + c) | 0;
	}

	/** Between blocks; reversible. */
	mix(): void {
		let [a, b, c] = [this.#a, this.#b, this.#c];
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

	/** After the last block: the hash, combined as that of a partition key of one column. Ends the use of this object. */
	hash(): bigint {
		let [a, b, c] = [this.#a, this.#b, this.#c];
		c = ((c ^ b) - rotate(b, 14)) | 0;
		a = ((a ^ c) - rotate(c, 11)) | 0;
		b = ((b ^ a) - rotate(a, 25)) | 0;
		c = ((c ^ b) - rotate(b, 16)) | 0;
		a = ((a ^ c) - rotate(c, 4)) | 0;
		b = ((b ^ a) - rotate(a, 14)) | 0;
		c = ((c ^ b) - rotate(b, 24)) | 0;
		const low = (c >>> 0) + COMBINE_LOW;
		const high = (b >>> 0) + COMBINE_HIGH + (low > 0xffffffff ? 1 : 0);
		return (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
	}
}

function rotate(value: number, bits: number): number {
	return (value << bits) | (value >>> (32 - bits));
}
