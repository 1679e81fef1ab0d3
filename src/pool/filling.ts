// Connections for the sake of `min_pool_size` alone: nobody waits for them, so pools take turns. Pools that clients use come
// first; for the others nothing is opened while a client waits or a pool in use lacks some. A few are under way in the process at
// a time, and a server that has no room (53300) is left alone for a while, by all pools there: idle connections that no client
// has used make room, and then they come back slowly. One for each thread; what is known of a server is in the Vitals.

import type { Log } from "../log.ts";
import type { Bans } from "./bans.ts";
import type { Ledger } from "./ledger.ts";
import { Vital } from "./vitals.ts";

/** Most that are opened in the process at once. A server starts a process for each; clients that come meanwhile want some too. */
const MOST_UNDERWAY = 4;
/** Most that one thread begins in a tick for pools that nobody uses. */
const STEP = 2;
/** Pools that are looked at in a tick, in each queue. */
const LOOKS = 64;
/** How long a server that is full is left alone, ms: longer each time it is found full again, up to the last. */
const FIRST_PAUSE = 1_000;
const LAST_PAUSE = 60_000;
/**
 * ms between two connections to a server that was full, and for how long after its pause that is remembered: then it is filled at
 * full speed, and if it is full again its pause is `FIRST_PAUSE`.
 */
const SLOW = 1_000;
const FORGET = 600_000;
/** Of the pools whose idle servers no client has used, one in so many closes one when there is no room. */
const ROOM = 4;

/** A pool that may have fewer servers than `min_pool_size`. */
export interface Filled {
	readonly slot: number;
	/** Clients have had servers of it, or wait for one. */
	readonly isUsed: boolean;
	/** It has fewer servers than `min_pool_size`. */
	readonly lacks: boolean;
	/** False when the server is not well, or could not be connected to a moment ago. @param time `now()` */
	mayFill(time: number): boolean;
	/** Opens one server. @param done told when it is here, or cannot be had @returns false when no permit is free: then not told */
	fill(done: () => void): boolean;
	/** How many servers are idle; 0 when clients use the pool. */
	readonly spare: number;
	/** Closes one of the `spare` servers. */
	makeRoom(): void;
}

export class Filling {
	private readonly ledger: Ledger;
	private readonly bans: Bans;
	private readonly log: Log;
	/** Pools that lack some, in the order of their turns: those that clients use, and the others. */
	private readonly used = new Set<Filled>();
	private readonly others = new Set<Filled>();
	/** A client has waited since the last tick for a server that is still to be opened: the pools that nobody uses come later. */
	private isHungry = false;
	/** `Vitals.crowdings` as of the last tick, and when that was, ms since the epoch. */
	private crowdings = 0;
	private lookedAt = 0;

	constructor(ledger: Ledger, bans: Bans, log: Log) {
		this.ledger = ledger;
		this.bans = bans;
		this.log = log;
	}

	/** A pool has fewer servers than `min_pool_size`. One that has said so before keeps its turn. */
	wants(pool: Filled): void {
		if (pool.isUsed) this.others.delete(pool);
		(pool.isUsed ? this.used : this.others).add(pool);
	}

	/** A client waits for a server that is still to be opened. */
	hungry(): void {
		this.isHungry = true;
	}

	/** Whether one more connection may be opened, for `min_pool_size` alone, to the server of this pool. @param time `now()` */
	allows(slot: number, time: number): boolean {
		const { vitals } = this.bans;
		const server = this.bans.serverOf(slot);
		const until = vitals.get(server, Vital.crowdedUntil);
		if (time < until) return false;
		return until === 0 || time - until > FORGET || time - vitals.get(server, Vital.filledAt) > SLOW;
	}

	/** A connection to the server of this pool was refused for want of room (53300). */
	crowded(slot: number, time: number): void {
		const { vitals } = this.bans;
		const server = this.bans.serverOf(slot);
		vitals.set(server, Vital.crowdedAt, time);
		vitals.crowded();
		const until = vitals.get(server, Vital.crowdedUntil);
		if (time < until) return;
		const last = time - until > FORGET ? 0 : vitals.get(server, Vital.crowdPause);
		const pause = last === 0 ? FIRST_PAUSE : Math.min(LAST_PAUSE, 2 * last);
		vitals.set(server, Vital.crowdPause, pause);
		vitals.set(server, Vital.crowdedUntil, time + pause);
		this.log.info(
			`the server has no room: for ${pause / 1000} s no connection is opened for min_pool_size alone [${this.bans.addressOf(slot)}]`,
		);
	}

	/** The janitor's tick, after those of the pools. @param pools all of this thread */
	tick(pools: Iterable<Filled>, time: number): void {
		const { crowdings } = this.bans.vitals;
		if (crowdings !== this.crowdings) this.makeRoom(pools);
		this.crowdings = crowdings;
		this.lookedAt = time;
		const isServed = this.fill(this.used, MOST_UNDERWAY, time);
		if (isServed && !this.isHungry) this.fill(this.others, STEP, time);
		this.isHungry = false;
	}

	/**
	 * Opens up to `most` connections for pools of `queue`, in turn.
	 * @returns whether nothing could be begun: what is lacking there cannot be had now
	 */
	private fill(queue: Set<Filled>, most: number, time: number): boolean {
		let begun = 0;
		let looks = Math.min(LOOKS, queue.size);
		for (const pool of queue) {
			if (begun >= most || looks-- === 0) break;
			queue.delete(pool);
			if (!pool.lacks) continue;
			// To the end of the queue: it has had its turn.
			this.wants(pool);
			if (!pool.mayFill(time) || !this.allows(pool.slot, time)) continue;
			if (!this.ledger.beginFilling(MOST_UNDERWAY)) return false;
			const done = () => this.ledger.endFilling();
			if (pool.fill(done)) begun++;
			else done();
			this.bans.vitals.set(this.bans.serverOf(pool.slot), Vital.filledAt, time);
		}
		return begun === 0;
	}

	/** Where there was no room since the last tick, a part (`ROOM`) of the pools each close an idle server that nobody has used. */
	private makeRoom(pools: Iterable<Filled>): void {
		const { vitals } = this.bans;
		const spare = new Map<number, Filled[]>();
		for (const pool of pools) {
			const server = this.bans.serverOf(pool.slot);
			if (pool.spare === 0 || vitals.get(server, Vital.crowdedAt) < this.lookedAt) continue;
			const there = spare.get(server);
			if (there === undefined) spare.set(server, [pool]);
			else there.push(pool);
		}
		for (const there of spare.values())
			for (const pool of there.slice(0, Math.ceil(there.length / ROOM))) pool.makeRoom();
	}
}
