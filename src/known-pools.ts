// The pools of the configuration as the main thread knows them: what is known of each, which are paused, and whom an operator means
// by the number or the names that he says. Made and asked by proxy.ts.

import { now } from "./clock.ts";
import { type LoginKey, loginKey } from "./config/diff.ts";
import type { PoolSpec } from "./config/snapshot.ts";
import { type Bans, banText } from "./pool/bans.ts";
import type { Ledger } from "./pool/ledger.ts";
import { lsnText } from "./pool/replication.ts";
import { Ban, foundText, Vital } from "./pool/vitals.ts";
import { isMeant, type PoolOrder } from "./pool-orders.ts";
import type { Counters } from "./stats/counters.ts";
import type { PoolRow, PoolVitals } from "./status/rows.ts";

type Specs = readonly PoolSpec[];

export class KnownPools {
	private readonly slots: ReadonlyMap<string, number>;
	private readonly ledger: Ledger;
	private readonly counters: Counters;
	private readonly bans: Bans;
	/** Paused logins, by `loginKey`: a pool that a reload adds to one is paused like its others. */
	private readonly paused = new Map<string, LoginKey>();
	/** All pools wait until the process before has said which of them are paused (`inherit`). */
	private isHeld: boolean;

	/**
	 * @param slots row of each pool in shared memory, by `PoolSpec.key`
	 * @param isHeld this process is about to take over from another
	 */
	constructor(slots: ReadonlyMap<string, number>, ledger: Ledger, counters: Counters, bans: Bans, isHeld = false) {
		this.isHeld = isHeld;
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
				paused: this.isPaused(spec),
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

	/** @returns those that are paused now, or go on */
	obey(order: PoolOrder, pools: Specs): Specs {
		const meant = pools.filter((spec) => isMeant(order, spec));
		if (order.order === "pause") for (const spec of meant) this.add(spec);
		// Also whom the process before had paused and who has not come yet.
		else for (const [key, login] of this.paused) if (isMeant(order, login)) this.paused.delete(key);
		return meant;
	}

	private add({ user, database }: LoginKey): void {
		this.paused.set(loginKey(user, database), { user, database });
	}

	isPaused(login: LoginKey): boolean {
		return this.isHeld || this.paused.has(loginKey(login.user, login.database));
	}

	/** Who is paused. */
	get logins(): LoginKey[] {
		return [...this.paused.values()];
	}

	/**
	 * The process before has paused these.
	 * @param mayCome there may be pools for users whom the configuration does not name: those of the paused are so from the beginning
	 */
	inherit(logins: readonly LoginKey[], pools: Specs, mayCome: boolean): void {
		this.isHeld = false;
		const known = new Set(pools.map(({ user, database }) => loginKey(user, database)));
		for (const login of logins) if (mayCome || known.has(loginKey(login.user, login.database))) this.add(login);
	}

	/** A reload has left these pools, and taken the others of `gone` away. @returns the keys of those that are paused */
	reach(pools: Specs, gone: readonly LoginKey[]): Set<string> {
		for (const login of gone) this.paused.delete(loginKey(login.user, login.database));
		return new Set(pools.filter((spec) => this.isPaused(spec)).map(({ key }) => key));
	}
}
