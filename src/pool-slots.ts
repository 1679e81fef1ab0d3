// Which row of the memory that all threads share is which pool's. A row whose pool has left is another's only once nobody can write in
// it any more: every worker has said so, asked after the pool had left, and no server of it is counted, or on its way. Made and asked
// by the main thread.

import { learns } from "./config/resolve.ts";
import { allPools, type Snapshot } from "./config/snapshot.ts";

/** Pools that a reload may add: rows in shared memory cannot be added later. Empty ones cost no memory. */
const SPARE_POOLS = 1024;
/** Pools of users and databases that are not in the configuration. */
const LEARNED_POOLS = 8192;

export class PoolSlots {
	/** Rows in all. */
	readonly capacity: number;
	private readonly slots = new Map<string, number>();
	/** Rows from here on were never anybody's; those before it are some pool's, or free again. */
	private fresh = 0;
	private readonly free: number[] = [];
	/** Pools that have left, by their slots. */
	private readonly leaving = new Map<number, string>();
	/** Of those the slots that workers are asked about, as far as all that have answered have no such pool. */
	private asked = new Set<number>();
	private missing = 0;

	constructor(snapshot: Snapshot) {
		const count = allPools(snapshot).length;
		this.capacity = count + SPARE_POOLS + (learns(snapshot) ? LEARNED_POOLS : 0);
		this.assign(snapshot);
	}

	/** By `PoolSpec.key`; those that are leaving among them. */
	get byKey(): ReadonlyMap<string, number> {
		return this.slots;
	}

	/** @param key of a pool that `assign` has seen */
	of(key: string): number {
		return this.slots.get(key)!;
	}

	hasRoomFor(more: number): boolean {
		return this.slots.size + more <= this.capacity;
	}

	/** Pools that are new get a row; those that are no more leave theirs. */
	assign(snapshot: Snapshot): void {
		const left = new Set(this.slots.keys());
		for (const { key } of allPools(snapshot)) {
			left.delete(key);
			const slot = this.slots.get(key);
			if (slot === undefined) this.slots.set(key, this.free.pop() ?? this.fresh++);
			// It has come back: what workers say of the time before does not count.
			else if (this.leaving.delete(slot)) this.asked.delete(slot);
		}
		for (const key of left) this.leaving.set(this.of(key), key);
	}

	/** @returns slots that all workers are to be asked about, which is then under way until all have `answered`; empty: none */
	ask(workers: number): readonly number[] {
		if (this.missing > 0 || this.leaving.size === 0) return [];
		this.asked = new Set(this.leaving.keys());
		this.missing = workers;
		return [...this.asked];
	}

	/**
	 * A worker has said of which of the slots that it was asked about it has no pool.
	 * @param isUnused whether no server is counted in it
	 * @returns slots that are free now: they have to be cleared
	 */
	answered(none: readonly number[], isUnused: (slot: number) => boolean): readonly number[] {
		this.asked = this.asked.intersection(new Set(none));
		if (--this.missing > 0) return [];
		const free = [...this.asked].filter(isUnused);
		this.asked.clear();
		for (const slot of free) {
			this.slots.delete(this.leaving.get(slot)!);
			this.leaving.delete(slot);
			this.free.push(slot);
		}
		return free;
	}
}
