// When clients go from one worker to another. A turn of an event loop costs the more for each client the fewer have something to say in
// it, so clients that say something fill the first worker, and the next is used only when a thread has no time left.

import type { Loads } from "../stats/loads.ts";

/** A worker with less than this left is full, and a worker that has this left takes more; both as shares of its time. */
const FULL = 0.85;
const HAS_TIME = 0.5;
/** Clients of two workers go together when one worker has this for both: far enough from `FULL`, or they would come and go. */
const TOGETHER = 0.6;
/** A worker that does less has nothing to do. */
const NOTHING = 0.02;
/** ms until loads show what a move has changed. */
const SETTLE = 2_000;

/** Clients that bring `share` of this worker's load are to go to the worker `to`. */
export interface Order {
	readonly to: number;
	readonly share: number;
}

export class Leveling {
	private readonly worker: number;
	private readonly workers: number;
	private readonly loads: Loads;
	private settledAt = 0;

	constructor(worker: number, workers: number, loads: Loads) {
		this.worker = worker;
		this.workers = workers;
		this.loads = loads;
	}

	/** At each tick of the janitor. @param time `now()` */
	look(time: number): Order | null {
		if (time < this.settledAt) return null;
		const mine = this.loads.of(this.worker, time);
		if (mine < FULL) return this.join(mine, time);
		const to = this.withTime(time);
		if (to < 0) return null;
		this.settledAt = time + SETTLE;
		return { to, share: (mine - this.loads.of(to, time)) / (2 * mine) };
	}

	/** The busiest worker that has time; -1: none has. */
	private withTime(time: number): number {
		let found = -1;
		let most = -1;
		for (let worker = 0; worker < this.workers; worker++) {
			const load = this.loads.of(worker, time);
			if (worker === this.worker || load > HAS_TIME || load <= most) continue;
			most = load;
			found = worker;
		}
		return found;
	}

	/** The last worker that has something to do gives all of it to the first that has room: from one direction only, nothing swings. */
	private join(mine: number, time: number): Order | null {
		for (let worker = this.worker + 1; worker < this.workers; worker++) {
			const load = this.loads.of(worker, time);
			if (load > NOTHING && load <= 1) return null;
		}
		for (let worker = 0; worker < this.worker; worker++)
			if (this.loads.of(worker, time) + mine <= TOGETHER) return { to: worker, share: 1 };
		return null;
	}
}
