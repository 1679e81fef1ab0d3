// The pools behind one (user, database): for each shard a primary and replicas. Chooses one for a request; what a pool
// then does is its own business. Called by frontend/ between transactions only: a transaction never moves.

import type { Pool } from "./pool.ts";

export interface ShardPools {
	readonly primary: Pool | null;
	readonly replicas: readonly Pool[];
}

export class Cluster {
	readonly shards: readonly ShardPools[];
	/** Where a client's login is answered from, and what needs no choice. */
	readonly first: Pool;
	private readonly random: () => number;

	/** `pools` in the order of the configuration, at least one. `random` gives numbers in [0, 1). `first`: the lowest shard. */
	constructor(pools: readonly Pool[], random: () => number = Math.random, first = 0) {
		const count = 1 + Math.max(...pools.map((pool) => pool.spec.shard)) - first;
		this.shards = Array.from({ length: count }, (_, shard) => {
			const here = pools.filter((pool) => pool.spec.shard === first + shard);
			return {
				primary: here.find((pool) => pool.spec.role === "primary") ?? null,
				replicas: here.filter((pool) => pool.spec.role === "replica"),
			};
		});
		this.first = this.shards[0]?.primary ?? pools[0]!;
		this.random = random;
	}

	/** The pools of one shard alone, as a cluster of one shard. */
	of(shard: number): Cluster {
		const { primary, replicas } = this.shards[shard]!;
		return new Cluster([...(primary === null ? [] : [primary]), ...replicas], this.random, shard);
	}

	get hasPrimary(): boolean {
		return this.shards.some((shard) => shard.primary !== null);
	}

	get hasReplicas(): boolean {
		return this.shards.some((shard) => shard.replicas.length > 0);
	}

	/**
	 * A pool of the shard for a read or a write; null for a write where there is no primary. Reads go to any
	 * (`read_write_split = include_primary`, `load_balancing_strategy = random`), but not to a pool whose last attempt to
	 * connect has just failed while another has not.
	 */
	pick(shard: number, read: boolean): Pool | null {
		const { primary, replicas } = this.shards[shard]!;
		if (!read || replicas.length === 0) return primary;
		const all = primary === null ? replicas : [primary, ...replicas];
		const well = all.filter((pool) => !pool.isFailing);
		const candidates = well.length > 0 ? well : all;
		return candidates[Math.floor(this.random() * candidates.length)]!;
	}
}
