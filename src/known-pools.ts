// The pools of the configuration as the main thread knows them: what is known of each, which are paused, and whom an operator means
// by the number or the names that he says. Made and asked by proxy.ts.

import { now } from "./clock.ts";
import type { PoolSpec } from "./config/snapshot.ts";
import { type Bans, banText } from "./pool/bans.ts";
import type { Ledger } from "./pool/ledger.ts";
import { lsnText } from "./pool/replication.ts";
import { Ban, foundText, Vital } from "./pool/vitals.ts";
import type { Counters } from "./stats/counters.ts";
import type { PoolRow, PoolVitals } from "./status/rows.ts";

type Specs = readonly PoolSpec[];

export class KnownPools {
	private readonly slots: ReadonlyMap<string, number>;
	private readonly ledger: Ledger;
	private readonly counters: Counters;
	private readonly bans: Bans;
	/** Paused logins, by `loginOf` (user and database): a pool that a reload adds to one is paused like its others. */
	private readonly paused = new Set<string>();

	/** @param slots row of each pool in shared memory, by `PoolSpec.key` */
	constructor(slots: ReadonlyMap<string, number>, ledger: Ledger, counters: Counters, bans: Bans) {
		this.slots = slots;
		this.ledger = ledger;
		this.counters = counters;
		this.bans = bans;
	}

	rows(pools: Specs): PoolRow[] {
		return pools.map((spec) => {
			const { key } = spec;
			const id = this.slots.get(key)!;
			return {
				key,
				id,
				paused: this.paused.has(loginOf(spec)),
				counters: this.counters.sum(id),
				servers: this.ledger.used(id),
				vitals: this.vitalsOf(spec, id),
			};
		});
	}

	samples(pools: Specs): Pick<PoolRow, "key" | "counters">[] {
		return pools.map(({ key }) => ({ key, counters: this.counters.sum(this.slots.get(key)!) }));
	}

	/** No pool has this row any more: nothing of the one that had it is the next one's. */
	clear(slot: number): void {
		this.ledger.clear(slot);
		this.counters.clear(slot);
		this.bans.vitals.clear(slot);
	}

	private vitalsOf({ role }: PoolSpec, slot: number): PoolVitals {
		const { vitals } = this.bans;
		const ban = vitals.banOf(slot);
		return {
			role: role === "auto" ? foundText(vitals.roleOf(slot)) : role,
			healthy: vitals.isHealthy(slot),
			ban: ban === Ban.None ? null : banText(ban),
			ban_time_left: this.bans.timeLeft(slot, now()),
			lsn_at: vitals.get(slot, Vital.lsnAt),
			in_recovery: vitals.isInRecovery(slot),
			lsn: lsnText(vitals.get(slot, Vital.lsn)),
			lag_bytes: vitals.get(slot, Vital.lagBytes),
			lag: vitals.get(slot, Vital.lag),
		};
	}

	/** Does `work` for the pool with this `PoolRow.id`, if there is one; undefined: for all. @returns for how many */
	each(pools: Specs, id: number | undefined, work: (slot: number) => void): number {
		const all = pools.map(({ key }) => this.slots.get(key)!);
		const meant = id === undefined ? all : all.filter((slot) => slot === id);
		for (const slot of meant) work(slot);
		return meant.length;
	}

	/** @returns those that are paused now */
	pause(pools: Specs, user: string | undefined, database: string | undefined): Specs {
		const meant = find(pools, user, database);
		for (const spec of meant) this.paused.add(loginOf(spec));
		return meant;
	}

	/** @returns those that go on */
	resume(pools: Specs, user: string | undefined, database: string | undefined): Specs {
		const meant = find(pools, user, database);
		for (const spec of meant) this.paused.delete(loginOf(spec));
		return meant;
	}

	isPaused(user: string, database: string): boolean {
		return this.paused.has(loginOf({ user, database }));
	}

	/** A reload has left these: forgets who is gone. @returns the keys of those that are paused */
	reach(pools: Specs): Set<string> {
		const logins = new Set(pools.map(loginOf));
		for (const login of this.paused) if (!logins.has(login)) this.paused.delete(login);
		return new Set(pools.filter((spec) => this.paused.has(loginOf(spec))).map(({ key }) => key));
	}
}

function find(pools: Specs, user: string | undefined, database: string | undefined): Specs {
	return pools.filter(
		(pool) => (user === undefined || pool.user === user) && (database === undefined || pool.database === database),
	);
}

function loginOf({ user, database }: Pick<PoolSpec, "user" | "database">): string {
	return JSON.stringify([user, database]);
}
