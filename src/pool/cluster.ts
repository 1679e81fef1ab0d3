// The shards behind one (user, database), each a primary and replicas (shard.ts). Clients ask it for a pool between
// transactions only: a transaction never moves.

import type { Side } from "../config/snapshot.ts";
import type { PgError } from "../errors.ts";
import type { Pool } from "./pool.ts";
import type { Shard } from "./shard.ts";

export class Cluster {
	/** At least one, in the order of shard numbers. */
	readonly shards: readonly Shard[];
	/** The pool where there is no choice, and for what all pools have in common: the first shard's primary, or its first pool. */
	readonly first: Pool;

	constructor(shards: readonly Shard[]) {
		this.shards = shards;
		this.first = shards[0]!.pools.find(({ spec }) => spec.role === "primary") ?? shards[0]!.pools[0]!;
	}

	/** One shard alone, as a cluster of one. */
	of(shard: number): Cluster {
		return new Cluster([this.shards[shard]!]);
	}

	get hasPrimary(): boolean {
		return this.shards.some((shard) => shard.hasPrimary);
	}

	get hasReplicas(): boolean {
		return this.shards.some((shard) => shard.hasReplicas);
	}

	/** Whether some shard has several servers. */
	get hasChoice(): boolean {
		return this.shards.some((shard) => shard.pools.length > 1);
	}

	/** `queue` is one of its pools or elections. */
	has(queue: unknown): boolean {
		return this.shards.some((shard) => shard.election === queue || shard.pools.includes(queue as Pool));
	}

	get checkoutTimeout(): number {
		return this.shards[0]!.checkoutTimeout;
	}

	/** See `Shard.pick`. */
	pick(shard: number, side: Side, since: number, not: Pool | null = null): Pool | null {
		return this.shards[shard]!.pick(side, since, not);
	}

	/** See `Shard.serves`. */
	serves(shard: number, pool: Pool, side: Side, since: number): boolean {
		return this.shards[shard]!.serves(pool, side, since);
	}

	/** See `Shard.suits`. */
	suits(shard: number, pool: Pool, side: Side): boolean {
		return this.shards[shard]!.suits(pool, side);
	}

	refusal(shard: number, side: Side): PgError {
		return this.shards[shard]!.refusal(side);
	}

	/** The role of one of the cluster's pools, as configured or found out. */
	roleOf(pool: Pool): string {
		const shard = this.shards.find(({ pools }) => pools.includes(pool));
		return shard?.roleOf(pool) ?? pool.spec.role;
	}
}
