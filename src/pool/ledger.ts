// What the threads of the process must agree on about pools, in shared memory: how many server connections each pool has (never
// more than its size, whatever the threads do at once), who waits, who has idle ones, which state a database's catalogue is in,
// the number of the next prepared statement, how many descriptors are in use, and how many clients there are. One row for each pool;
// every thread has its own Ledger over the same memory.

import { Descriptors } from "../net/descriptors.ts";
import { Failures } from "../net/failures.ts";
import { OnceAMinute } from "../once-a-minute.ts";
import { Tally } from "../tally.ts";

const SERVERS = 0;
/** Kinds of limits by which clients are refused (`Refused` of client/seats.ts). */
const REFUSALS = 6;

export class Ledger {
	readonly memory: SharedArrayBuffer;
	readonly pools: number;
	readonly workers: number;
	/** [0] statement numbers, [1 + pool] permits in use. */
	private readonly permits: Int32Array;
	/** For each database, in the place of one of its pools (databases.ts): a number that each change of its catalogue replaces. */
	private readonly catalogues: Int32Array;
	/** For each (pool, worker): clients waiting, idle servers, servers held, those that clients keep for advisory locks. */
	private readonly waiting: Int32Array;
	private readonly idle: Int32Array;
	private readonly held: Int32Array;
	private readonly kept: Int32Array;
	/** And those on their way to the worker, of which it may have the right alone yet. */
	private readonly coming: Int32Array;
	/** For each (pool, worker): when the client that waits longest began to, ms since the epoch. */
	private readonly since: Float64Array;
	/** [0] connections being opened for the sake of `min_pool_size` alone. */
	private readonly filling: Int32Array;
	/**
	 * The `OnceAMinute` words of the process's complaint about descriptors, then those of each pool's about exhaustion, then those about
	 * clients that were refused.
	 */
	private readonly said: Int32Array;
	/** See `Descriptors`. */
	readonly descriptorCounts: Int32Array;
	/** Clients (client/seats.ts), and servers of a database or a user (caps.ts). */
	readonly tally: Tally;
	/** See `Failures`. */
	readonly failures: Int32Array;

	constructor(pools: number, workers: number, memory?: SharedArrayBuffer) {
		this.pools = pools;
		this.workers = workers;
		const cells = pools * workers;
		// An even number of words first, so that the doubles behind them are aligned.
		const words = (1 + 2 * pools + 5 * cells + 1) & ~1;
		const complaints = words * 4 + cells * 8;
		const complaining = 1 + pools + REFUSALS;
		const descriptors = complaints + complaining * OnceAMinute.WORDS * 4;
		const filling = descriptors + Descriptors.WORDS * 4;
		const tally = (filling + 4 + 7) & ~7;
		const failures = tally + Tally.BYTES;
		this.memory = memory ?? new SharedArrayBuffer(failures + Failures.WORDS * 4);
		this.permits = new Int32Array(this.memory, SERVERS, 1 + pools);
		this.catalogues = new Int32Array(this.memory, (1 + pools) * 4, pools);
		const first = 1 + 2 * pools;
		this.waiting = new Int32Array(this.memory, first * 4, cells);
		this.idle = new Int32Array(this.memory, (first + cells) * 4, cells);
		this.held = new Int32Array(this.memory, (first + 2 * cells) * 4, cells);
		this.kept = new Int32Array(this.memory, (first + 3 * cells) * 4, cells);
		this.coming = new Int32Array(this.memory, (first + 4 * cells) * 4, cells);
		this.since = new Float64Array(this.memory, words * 4, cells);
		this.filling = new Int32Array(this.memory, filling, 1);
		this.said = new Int32Array(this.memory, complaints, complaining * OnceAMinute.WORDS);
		this.descriptorCounts = new Int32Array(this.memory, descriptors, Descriptors.WORDS);
		this.tally = new Tally(this.memory, tally);
		this.failures = new Int32Array(this.memory, failures, Failures.WORDS);
	}

	/** Takes a permit to have one more server connection, if fewer than `limit` are in use. */
	acquire(slot: number, limit: number): boolean {
		for (;;) {
			const used = Atomics.load(this.permits, 1 + slot);
			if (used >= limit) return false;
			if (Atomics.compareExchange(this.permits, 1 + slot, used, used + 1) === used) return true;
		}
	}

	/** No server is counted, and nothing is on its way to a worker: whoever has no pool of the slot will not write in its row. */
	isUnused(slot: number): boolean {
		for (let worker = 0; worker < this.workers; worker++) if (this.comingTo(slot, worker) !== 0) return false;
		return this.used(slot) === 0;
	}

	/** Nobody has to do with the pool any more: its row is as it was before it came. */
	clear(slot: number): void {
		const cell = slot * this.workers;
		for (const row of [this.waiting, this.idle, this.held, this.kept, this.since])
			row.fill(0, cell, cell + this.workers);
		this.said.fill(0, (1 + slot) * OnceAMinute.WORDS, (2 + slot) * OnceAMinute.WORDS);
		this.catalogueChanged(slot);
	}

	/** Gives a permit back, but only while more than `keep` are in use; the caller then may close its connection. */
	releaseAbove(slot: number, keep: number): boolean {
		for (;;) {
			const used = Atomics.load(this.permits, 1 + slot);
			if (used <= keep) return false;
			if (Atomics.compareExchange(this.permits, 1 + slot, used, used - 1) === used) return true;
		}
	}

	release(slot: number): void {
		Atomics.sub(this.permits, 1 + slot, 1);
	}

	/** Server connections of the pool in the process, those being opened among them. */
	used(slot: number): number {
		return Atomics.load(this.permits, 1 + slot);
	}

	/** Counts one more that is being opened for `min_pool_size` alone. @returns false, uncounted, when `limit` are already */
	beginFilling(limit: number): boolean {
		if (Atomics.add(this.filling, 0, 1) < limit) return true;
		this.endFilling();
		return false;
	}

	endFilling(): void {
		Atomics.sub(this.filling, 0, 1);
	}

	/** `used` of all pools together. */
	get usedByAll(): number {
		let sum = 0;
		for (let slot = 1; slot <= this.pools; slot++) sum += this.permits[slot]!;
		return sum;
	}

	/** When the process said last that the pool is exhausted. */
	complaints(slot: number): OnceAMinute {
		return this.complaint(1 + slot);
	}

	/** When the process said last that it has no descriptors left. */
	get descriptors(): OnceAMinute {
		return this.complaint(0);
	}

	/** When the process said last that a client was refused by this kind of limit. */
	refusals(kind: number): OnceAMinute {
		return this.complaint(1 + this.pools + kind);
	}

	private complaint(place: number): OnceAMinute {
		return new OnceAMinute(this.said.subarray(place * OnceAMinute.WORDS, (place + 1) * OnceAMinute.WORDS));
	}

	/** The number of the next prepared statement, unique in the process. Never negative, so that a name made of it is one word. */
	nextStatement(): number {
		return (Atomics.add(this.permits, 0, 1) + 1) >>> 0;
	}

	/** DDL was run: what was parsed before, in whatever thread, may mean something else if it is parsed now. */
	catalogueChanged(database: number): void {
		// No counter for each database: a reload may give one another place, and no number may come twice.
		Atomics.store(this.catalogues, database, this.nextStatement() | 0);
	}

	/** The number of the state that the catalogue is in: another after each `catalogueChanged`. */
	catalogueOf(database: number): number {
		return Atomics.load(this.catalogues, database);
	}

	setWaiting(slot: number, worker: number, clients: number, since: number): void {
		const cell = slot * this.workers + worker;
		this.since[cell] = since;
		Atomics.store(this.waiting, cell, clients);
	}

	setServers(slot: number, worker: number, idle: number, held: number): void {
		const cell = slot * this.workers + worker;
		Atomics.store(this.held, cell, held);
		Atomics.store(this.idle, cell, idle);
	}

	setKept(slot: number, worker: number, kept: number): void {
		this.kept[slot * this.workers + worker] = kept;
	}

	/** Servers of the pool that clients keep for advisory locks, as of the workers' last ticks. */
	keptOf(slot: number): number {
		let kept = 0;
		for (let worker = 0; worker < this.workers; worker++) kept += this.kept[slot * this.workers + worker]!;
		return kept;
	}

	idleOf(slot: number, worker: number): number {
		return Atomics.load(this.idle, slot * this.workers + worker);
	}

	heldBy(slot: number, worker: number): number {
		return Atomics.load(this.held, slot * this.workers + worker);
	}

	/** A server, or the right to have one, is about to go to the worker. */
	sends(slot: number, worker: number): void {
		Atomics.add(this.coming, slot * this.workers + worker, 1);
	}

	/** What was sent to the worker is among those that it has, or has come to nothing. */
	arrived(slot: number, worker: number): void {
		Atomics.sub(this.coming, slot * this.workers + worker, 1);
	}

	comingTo(slot: number, worker: number): number {
		return Atomics.load(this.coming, slot * this.workers + worker);
	}

	waitingIn(slot: number, worker: number): number {
		return Atomics.load(this.waiting, slot * this.workers + worker);
	}

	/** What the pool's other workers have: servers that are idle, and that are not, and clients that wait. */
	elsewhere(slot: number, me: number): { readonly idle: number; readonly lent: number; readonly waiting: number } {
		let [idle, held, waiting] = [0, 0, 0];
		for (let worker = 0; worker < this.workers; worker++) {
			if (worker === me) continue;
			idle += this.idleOf(slot, worker);
			held += this.heldBy(slot, worker);
			waiting += this.waitingIn(slot, worker);
		}
		return { idle, lent: held - idle, waiting };
	}

	/** `lent` and `waiting` of `elsewhere` together: for choices between pools, which come with each transaction. */
	loadElsewhere(slot: number, me: number): number {
		let load = 0;
		for (let worker = 0; worker < this.workers; worker++)
			if (worker !== me) load += this.heldBy(slot, worker) - this.idleOf(slot, worker) + this.waitingIn(slot, worker);
		return load;
	}

	/** Whether more clients wait in the worker than servers are on their way to it. */
	lacks(slot: number, worker: number): boolean {
		const waiting = this.waitingIn(slot, worker);
		return waiting > 0 && waiting > this.comingTo(slot, worker);
	}

	waitingSince(slot: number, worker: number): number {
		return this.since[slot * this.workers + worker]!;
	}

	/** The other worker whose client has waited longest, of those where more wait than servers are on their way to; -1: none. */
	longestWaiting(slot: number, me: number): number {
		let found = -1;
		for (let worker = 0; worker < this.workers; worker++) {
			if (worker === me || !this.lacks(slot, worker)) continue;
			if (found < 0 || this.waitingSince(slot, worker) < this.waitingSince(slot, found)) found = worker;
		}
		return found;
	}
}
