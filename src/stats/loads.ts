// How much of its time each worker has spent lately: processor time of its thread, which a machine that is busy with others does not
// add to, and which another thread could take over. In shared memory, a row for each worker, written by one and read by all.

/** ms over which it is smoothed: a burst of some ticks is no load. */
const SMOOTH = 500;
/** ms after which what a worker has said is old: it does not come back to its event loop. */
const OLD = 500;
/** Words of a row. */
const SHARE = 0;
const AT = 1;
const WORDS = 2;

export class Loads {
	readonly memory: SharedArrayBuffer;
	private readonly rows: Float64Array;
	private spent = 0;
	private spentAt = 0;

	constructor(workers: number, memory = new SharedArrayBuffer(workers * WORDS * 8)) {
		this.memory = memory;
		this.rows = new Float64Array(memory);
	}

	/** Called by a worker's janitor at each tick. @param time `now()` @param spent processor time of the thread so far, ms */
	measure(worker: number, time: number, spent = threadTime()): void {
		const passed = time - this.spentAt;
		const share = passed > 0 ? Math.min(1, (spent - this.spent) / passed) : 0;
		// The first time there is nothing to compare it with.
		const weight = this.spentAt > 0 ? Math.min(1, passed / SMOOTH) : 0;
		this.spent = spent;
		this.spentAt = time;
		this.say(worker, time, this.share(worker) + weight * (share - this.share(worker)));
	}

	private say(worker: number, time: number, share: number): void {
		this.rows[worker * WORDS + SHARE] = share;
		this.rows[worker * WORDS + AT] = time;
	}

	private share(worker: number): number {
		return this.rows[worker * WORDS + SHARE]!;
	}

	/** 0: all of its time is left; 1: none. Infinity for a worker that has not said anything lately. @param time `now()` */
	of(worker: number, time: number): number {
		return time - this.rows[worker * WORDS + AT]! <= OLD ? this.share(worker) : Number.POSITIVE_INFINITY;
	}
}

function threadTime(): number {
	const { user, system } = process.threadCpuUsage();
	return (user + system) / 1000;
}
