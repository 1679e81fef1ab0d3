// How often in a row clients of an address have failed to log in: in shared memory, so that it counts for all threads, of bounded size,
// and nothing else is known of who they are. Threads that write one place at the same moment lose a failure, and nothing more.

/** Places that an address may have; the one whose last failure is longest ago makes room for another. */
const BUCKET = 16;
const BUCKETS = 1024;
/** Words of a place: the address's tag (0: free), its failures, and when the last was. */
const PLACE = 3;
/** Times are kept in tenths of a second: 31 bits of them are six years, and only differences count. */
const TICK = 100;
const BUCKET_SEED = 0x3c6ef372;
const TAG_SEED = 0x1b873593;

export class Failures {
	static readonly WORDS: number = BUCKETS * BUCKET * PLACE;
	private readonly words: Int32Array;

	/** @param words zeros at first */
	constructor(words: Int32Array = new Int32Array(Failures.WORDS)) {
		this.words = words;
	}

	/** How often it has failed in a row, unless the last time is more than `pause` ms ago. @param time `now()` */
	count(address: string, time: number, pause: number): number {
		const { words } = this;
		const at = this.placeOf(address, time, false);
		if (at < 0 || ((tickOf(time) - words[at + 2]!) | 0) * TICK > pause) return 0;
		return words[at + 1]!;
	}

	/** It has failed once more. */
	add(address: string, time: number, pause: number): void {
		const { words } = this;
		const before = this.count(address, time, pause);
		const at = this.placeOf(address, time, true);
		words[at] = tagOf(address);
		words[at + 1] = before + 1;
		words[at + 2] = tickOf(time);
	}

	/** It has logged in. */
	clear(address: string, time: number): void {
		const at = this.placeOf(address, time, false);
		if (at >= 0) this.words.fill(0, at, at + PLACE);
	}

	/** @param isNew an address that has none is given one @returns its place; -1: it has none */
	private placeOf(address: string, time: number, isNew: boolean): number {
		const { words } = this;
		const tag = tagOf(address);
		const first = (Bun.hash.xxHash32(address, BUCKET_SEED) & (BUCKETS - 1)) * BUCKET * PLACE;
		let [oldest, age] = [first, -1];
		for (let at = first; at < first + BUCKET * PLACE; at += PLACE) {
			if (words[at] === tag) return at;
			const since = words[at] === 0 ? Number.POSITIVE_INFINITY : (tickOf(time) - words[at + 2]!) | 0;
			if (since > age) [oldest, age] = [at, since];
		}
		return isNew ? oldest : -1;
	}
}

function tagOf(address: string): number {
	return Bun.hash.xxHash32(address, TAG_SEED) | 0 || 1;
}

function tickOf(time: number): number {
	return Math.trunc(time / TICK) | 0;
}
