// The servers of one shard as one thread sees them: which may serve what is asked now. What it has found out holds until
// somebody is banned or changes roles (`Vitals.version`), so that a choice costs a comparison and a Balance. Shared by all
// clients of the thread whose user and database it is of. No IO.

import type { General } from "../config/settings.ts";
import { Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { type Balance, balance } from "./balance.ts";
import type { Pool } from "./pool.ts";
import { Ban, FoundRole, Vital, type Vitals } from "./vitals.ts";
import { type Waiter, Waiters } from "./waiters.ts";

/** The settings that decide. */
export type Policy = Pick<General, "read_write_split" | "load_balancing_strategy" | "checkout_timeout">;

export class Shard {
	/** At least one, in the order of the configuration. */
	readonly pools: readonly Pool[];
	/** Where clients wait while it is not known who the primary is; null with fixed roles. */
	readonly election: Election | null;
	private readonly vitals: Vitals;
	private readonly policy: Policy;
	/** Its user may only read: the primary is for when there is nobody else. */
	private readonly readOnly: boolean;
	private readonly balance: Balance<Pool>;
	/** Of `Vitals`, when what follows was found. */
	private version = -1;
	private primary: Pool | null = null;
	/** Who may serve reads, and those that ask for a replica. */
	private readers: readonly Pool[] = [];
	private replicas: readonly Pool[] = [];
	/** Those of them that have what a client has written: used again by each choice. */
	private readonly fresh: Pool[] = [];

	constructor(pools: readonly Pool[], vitals: Vitals, policy: Policy, readOnly: boolean, random?: () => number) {
		this.pools = pools;
		this.vitals = vitals;
		this.policy = policy;
		this.readOnly = readOnly;
		this.balance = balance(policy.load_balancing_strategy, random);
		this.election = pools.some((pool) => pool.spec.role === "auto") ? new Election(policy) : null;
	}

	/** ms that a client waits for a server. */
	get checkoutTimeout(): number {
		return this.policy.checkout_timeout;
	}

	/** Whether a write can have a place, now or after an election. */
	get hasPrimary(): boolean {
		return this.pools.some(({ spec }) => spec.role !== "replica");
	}

	get hasReplicas(): boolean {
		return this.pools.some(({ spec }) => spec.role !== "primary");
	}

	/**
	 * A pool, or null when none may serve: `refusal` says why, unless there is an `election` to wait for.
	 * @param since `now()` of the client's last write when its reads must see that; else 0
	 * @param not a pool that was tried: another one is wanted for a read
	 */
	pick(side: Side, since: number, not: Pool | null = null): Pool | null {
		if (this.version !== this.vitals.version) this.look();
		if (side === Side.Primary) return this.primary;
		let candidates = side === Side.Any ? this.readers : this.replicas;
		if (since > 0) {
			candidates = this.havingSeen(candidates, since);
			if (candidates.length === 0) return this.primary;
		}
		if (not !== null) candidates = candidates.filter((pool) => pool !== not);
		if (candidates.length > 1) return this.balance.pick(candidates);
		return candidates[0] ?? null;
	}

	/** Whether `pool` is one that `pick` might give, and is well: who waits there has no reason to leave. */
	serves(pool: Pool, side: Side, since: number): boolean {
		if (this.version !== this.vitals.version) this.look();
		if (!this.vitals.isHealthy(pool.slot)) return false;
		if (pool === this.primary && (side === Side.Primary || since > 0)) return true;
		const candidates = side === Side.Any ? this.readers : this.replicas;
		return side !== Side.Primary && (since > 0 ? this.havingSeen(candidates, since) : candidates).includes(pool);
	}

	/** Whether `pool` has the role for it, well or not: who waits there for anything else must leave. */
	suits(pool: Pool, side: Side): boolean {
		const role = this.roleOf(pool);
		return side === Side.Primary ? role === "primary" : role !== "auto";
	}

	private havingSeen(candidates: readonly Pool[], since: number): readonly Pool[] {
		const { fresh, vitals } = this;
		fresh.length = 0;
		for (const pool of candidates)
			if (pool === this.primary || vitals.get(pool.slot, Vital.freshAsOf) >= since) fresh.push(pool);
		return fresh;
	}

	/** Finds out anew who may serve what. */
	private look(): void {
		const { vitals } = this;
		// Before anything is read: what changes meanwhile is looked at next time.
		this.version = vitals.version;
		const isRole = (role: "primary" | "replica") => (pool: Pool) => this.roleOf(pool) === role;
		const primary = this.pools.find(isRole("primary")) ?? null;
		const all = this.pools.filter(isRole("replica"));
		const isWell = ({ slot }: Pool) => vitals.banOf(slot) === Ban.None;
		const well = all.filter(isWell);
		this.primary = primary;
		const instead = this.insteadOfReplicas(primary, all);
		if (well.length === 0) {
			this.readers = instead;
			this.replicas = instead;
			return;
		}
		this.replicas = well;
		this.readers = well;
		if (primary === null) return;
		switch (this.policy.read_write_split) {
			case "include_primary":
				if (isWell(primary) && !this.readOnly) this.readers = [primary, ...well];
				break;
			case "include_primary_if_replica_banned":
				if (well.length < all.length && !this.readOnly) this.readers = [primary, ...well];
				break;
			case "prefer_primary":
				break;
			case "exclude_primary":
				// The last one is never banned. When it is down, that is told at once.
				if (well.some(({ slot }) => vitals.isHealthy(slot))) break;
				this.readers = [];
				this.replicas = [];
		}
	}

	/** Who serves reads when no replica may. */
	private insteadOfReplicas(primary: Pool | null, replicas: readonly Pool[]): readonly Pool[] {
		if (primary === null) return [];
		// Without any there is nothing that the primary could be excluded for.
		if (this.policy.read_write_split === "exclude_primary" && replicas.length > 0) return [];
		return [primary];
	}

	/** As configured, or as found out; `auto`: not known, or of no use. */
	roleOf(pool: Pool): "primary" | "replica" | "auto" {
		if (pool.spec.role !== "auto") return pool.spec.role;
		switch (this.vitals.roleOf(pool.slot)) {
			case FoundRole.Primary:
				return "primary";
			case FoundRole.Replica:
				return "replica";
			default:
				return "auto";
		}
	}

	/** Whether nothing at all is known of it yet. */
	get isUnknown(): boolean {
		return this.pools.every((pool) => this.roleOf(pool) === "auto");
	}

	/** What a client is told when `pick` found none. */
	refusal(side: Side): PgError {
		if (side === Side.Primary) return NO_PRIMARY;
		const excluded = this.policy.read_write_split === "exclude_primary" && this.hasPrimary;
		const hint = excluded
			? 'read_write_split = "exclude_primary" keeps reads from the primary; SHOW BANS of the admin database says what is wrong.'
			: "SHOW BANS of the admin database says what is wrong.";
		return new PgError("ERROR", "58000", "all replicas down", undefined, hint);
	}

	/** The janitor's look, `time` as `now()`. @param changed roles or bans have */
	tick(time: number, changed: boolean): void {
		if (changed) this.election?.result();
		if (this.pools.some(({ isPaused }) => isPaused)) this.election?.pause(time);
		else this.election?.tick(time);
	}
}

const NO_PRIMARY = new PgError("ERROR", "58000", "no primary");
const SHUT_DOWN = new PgError("FATAL", "58000", "pool is shut down");

/** Where clients wait for a primary to be found, for as long as they would wait for a server. */
export class Election {
	private readonly waiters = new Waiters();
	private readonly policy: Policy;

	constructor(policy: Policy) {
		this.policy = policy;
	}

	wait(waiter: Waiter, time: number): void {
		waiter.waitingSince = time;
		this.waiters.push(waiter);
	}

	leave(waiter: Waiter): void {
		this.waiters.remove(waiter);
	}

	/** A reload has put another in its place: whoever is left has nowhere to go. */
	end(): void {
		for (let waiter = this.waiters.shift(); waiter !== null; waiter = this.waiters.shift())
			waiter.onCheckoutFailed(SHUT_DOWN);
	}

	/** Somebody has another role now: whoever has a place to go, goes. */
	result(): void {
		this.waiters.reconsider();
	}

	/** PAUSE: nobody's time runs, as in the queue of a pool. */
	pause(time: number): void {
		this.waiters.restart(time);
	}

	tick(time: number): void {
		for (let { first } = this.waiters; first !== null; first = this.waiters.first) {
			if (time - first.waitingSince < this.policy.checkout_timeout) break;
			this.waiters.shift();
			first.onCheckoutFailed(NO_PRIMARY);
		}
	}
}
