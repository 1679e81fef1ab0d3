// Which row of the memory that all threads share is which pool's, for as long as the process lives. Made and asked by the main thread.

import { learns } from "./config/resolve.ts";
import { allPools, type Snapshot } from "./config/snapshot.ts";

/** Pools that a reload may still add: rows in shared memory cannot be added later. Empty ones cost no memory. */
const SPARE_POOLS = 1024;
/** Pools of users who are not in the configuration, all that ever come: a slot is of the same pool for as long as the process lives. */
const LEARNED_POOLS = 8192;

export class PoolSlots {
	/** Rows in all. */
	readonly capacity: number;
	private readonly slots = new Map<string, number>();

	constructor(snapshot: Snapshot) {
		this.assign(snapshot);
		const learned = learns(snapshot.general) ? LEARNED_POOLS : 0;
		this.capacity = this.slots.size + SPARE_POOLS + learned;
	}

	/** By `PoolSpec.key`. */
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

	/** Pools that are new get a row. */
	assign(snapshot: Snapshot): void {
		for (const { key } of allPools(snapshot)) if (!this.slots.has(key)) this.slots.set(key, this.slots.size);
	}
}
