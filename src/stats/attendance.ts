// Which workers come back to their event loop. Each raises a number in shared memory with every tick of its janitor, and the main
// thread looks at those: one that stays the same belongs to a worker that is stuck, in a plugin's route most likely. What is asked
// of all workers is then not awaited of that one, and new clients are kept away from it (proxy.ts).

/** ms between two looks at the workers' ticks. */
export const LOOK = 500;
/**
 * Looks without a tick between them after which a worker counts as stuck. By looks and not by time: a process that was stopped as a
 * whole has no stuck worker.
 */
const LOOKS = 4;

export class Attendance {
	readonly memory: SharedArrayBuffer;
	private readonly ticks: Int32Array;
	private readonly seen: Int32Array;
	private readonly since: Int32Array;

	constructor(workers: number, memory = new SharedArrayBuffer(4 * workers)) {
		this.memory = memory;
		this.ticks = new Int32Array(memory);
		this.seen = new Int32Array(workers);
		this.since = new Int32Array(workers);
	}

	/** Called by a worker's janitor at each tick. */
	tick(worker: number): void {
		Atomics.add(this.ticks, worker, 1);
	}

	/** Called by the main thread every `LOOK` ms. @returns workers that have become stuck, or have come back, since the last look */
	look(): number[] {
		const changed: number[] = [];
		for (let worker = 0; worker < this.ticks.length; worker++) {
			const was = this.isStuck(worker);
			const ticks = Atomics.load(this.ticks, worker);
			// With 0 ticks the worker has not begun yet: it is not stuck.
			this.since[worker] = ticks === 0 || ticks !== this.seen[worker] ? 0 : this.since[worker]! + 1;
			this.seen[worker] = ticks;
			if (was !== this.isStuck(worker)) changed.push(worker);
		}
		return changed;
	}

	isStuck(worker: number): boolean {
		return this.since[worker]! >= LOOKS;
	}

	/** All workers come back to their event loops. */
	get isWell(): boolean {
		return this.stuck.length === 0;
	}

	get stuck(): number[] {
		return [...this.since.keys()].filter((worker) => this.isStuck(worker));
	}
}

/** `listeners[worker]` when that worker is stuck and its listener was ended. */
export const ENDED = -1;

/** Workers whose listeners are to be ended: stuck ones, unless no other worker has an open listener and nobody would accept. */
export function stuckListeners(listeners: readonly number[], attendance: Pick<Attendance, "isStuck">): number[] {
	const open = [...listeners.keys()].filter((worker) => (listeners[worker] ?? ENDED) !== ENDED);
	const stuck = open.filter((worker) => attendance.isStuck(worker));
	return stuck.length < open.length ? stuck : [];
}
