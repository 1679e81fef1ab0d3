// How many there are of each of many things with names, in all threads: clients of an address, servers of a user. The names come and
// go, so this is a table in shared memory: a name's hash says where its count may be, and both are one word, which changes in one
// step. There is no lock, and a count that is 0 leaves nothing behind. Each thread has its own Tally over the same memory.

/** Places that a name may have; all are looked at. */
const BUCKET = 32;
/** With 100,000 names in use a bucket has twelve of them on average. Places that nobody uses cost no memory. */
const BUCKETS = 1 << 13;
/** Of the two hashes of a name: that which says its bucket, and that which is kept. */
const BUCKET_SEED = 0x51ed270b;
const TAG_SEED = 0x2f0b4c47;

export class Tally {
	static readonly BYTES: number = BUCKETS * BUCKET * 8;
	/** Each a tag (high half, never 0) and a count; 0: free. */
	private readonly words: BigUint64Array;
	/** The same memory, the tag of a word behind its count: a look at it costs no BigInt. */
	private readonly halves: Int32Array;

	/** @param memory zeros at first, at a place that 8 divides */
	constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(Tally.BYTES), at = 0) {
		this.words = new BigUint64Array(memory, at, BUCKETS * BUCKET);
		this.halves = new Int32Array(memory, at, BUCKETS * BUCKET * 2);
	}

	/** Counts one more. @returns false, uncounted, when `limit` are already; also when the bucket has no place for another name */
	add(name: string, limit: number): boolean {
		const tag = tagOf(name);
		for (;;) {
			const { at, count, sum } = this.find(name, tag);
			if (sum >= limit || at < 0) return false;
			const before = count === 0 ? 0n : wordOf(tag, count);
			if (this.replace(at, before, wordOf(tag, count + 1))) return true;
		}
	}

	/** Takes one back that `add` has counted. */
	remove(name: string): void {
		const tag = tagOf(name);
		for (;;) {
			const { at, count } = this.find(name, tag);
			if (count === 0) return;
			if (this.replace(at, wordOf(tag, count), count === 1 ? 0n : wordOf(tag, count - 1))) return;
		}
	}

	count(name: string): number {
		return this.find(name, tagOf(name)).sum;
	}

	private replace(at: number, before: bigint, after: bigint): boolean {
		return Atomics.compareExchange(this.words, at, before, after) === before;
	}

	/**
	 * Where the name has its count, or where there is room for it (-1: nowhere), and the sum of its counts: of threads that begin one at
	 * the same moment as another name's place becomes free, each may have chosen its own.
	 */
	private find(name: string, tag: number): { at: number; count: number; sum: number } {
		const { halves } = this;
		const first = (Bun.hash.xxHash32(name, BUCKET_SEED) & (BUCKETS - 1)) * BUCKET;
		let [at, free, count, sum] = [-1, -1, 0, 0];
		for (let place = first; place < first + BUCKET; place++) {
			const found = halves[2 * place + 1]!;
			if (found === tag) {
				const here = Atomics.load(halves, 2 * place);
				// It may have become nobody's just now, and the count be in another place.
				if (here > 0) [at, count] = [place, here];
				sum += here;
			} else if (found === 0 && free < 0) free = place;
		}
		return count > 0 ? { at, count, sum } : { at: free, count: 0, sum };
	}
}

function tagOf(name: string): number {
	return Bun.hash.xxHash32(name, TAG_SEED) | 0 || 1;
}

function wordOf(tag: number, count: number): bigint {
	return (BigInt(tag >>> 0) << 32n) | BigInt(count);
}
