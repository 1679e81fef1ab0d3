// The servers of one shard as one thread sees them: which may serve what is asked now. What it has found out holds until
// somebody is banned or changes roles (`Vitals.version`), so that a choice costs a comparison and a Balance. Shared by all
// clients of the thread whose user and database it is of. No IO.

import type { General } from "../config/settings.ts";
import { type Role, Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { type Balance, balance } from "./balance.ts";
import type { Pool } from "./pool.ts";
import { hasSeen, type Readable, readFrom, roleOf } from "./readable.ts";
import type { Vitals } from "./vitals.ts";
import { type Waiter, Waiters } from "./waiters.ts";

/** The settings that decide which server a request gets, and how long it waits. */
export type BalanceSettings = Pick<General, "read_write_split" | "load_balancing_strategy" | "checkout_timeout">;

export class Shard {
	/** At least one, in the order of the configuration. */
	readonly pools: readonly Pool[];
	/** Where clients wait while it is not known who the primary is; null with fixed roles. */
	readonly election: Election | null;
	private readonly vitals: Vitals;
	private readonly policy: BalanceSettings;
	/** Its user may only read: the primary is for when there is nobody else. */
	private readonly readOnly: boolean;
	private readonly balance: Balance<Pool>;
	/** `Vitals.version` when `found` was found. */
	private version = -1;
	private found: Readable<Pool> = NOBODY;
	/** The answer of `havingSeen`: one array for all calls. */
	private readonly fresh: Pool[] = [];

	constructor(
		pools: readonly Pool[],
		vitals: Vitals,
		policy: BalanceSettings,
		readOnly: boolean,
		random?: () => number,
	) {
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
		const { primary, readers, replicas } = this.found;
		if (side === Side.Primary) return primary;
		let candidates = side === Side.Any ? readers : replicas;
		if (since > 0) {
			candidates = this.havingSeen(candidates, since);
			if (candidates.length === 0) return primary;
		}
		if (not !== null) candidates = candidates.filter((pool) => pool !== not);
		if (candidates.length > 1) return this.balance.pick(candidates);
		return candidates[0] ?? null;
	}

	/** Whether `pool` is one that `pick` might give, and is well: who waits there has no reason to leave. */
	serves(pool: Pool, side: Side, since: number): boolean {
		if (this.version !== this.vitals.version) this.look();
		if (!this.vitals.isHealthy(pool.slot)) return false;
		const { primary, readers, replicas } = this.found;
		if (pool === primary && (side === Side.Primary || since > 0)) return true;
		const candidates = side === Side.Any ? readers : replicas;
		return side !== Side.Primary && (since > 0 ? this.havingSeen(candidates, since) : candidates).includes(pool);
	}

	/** Whether `pool` has the role for `side`, well or not: who waits there for anything else must leave. */
	suits(pool: Pool, side: Side): boolean {
		const role = this.roleOf(pool);
		return side === Side.Primary ? role === "primary" : role !== "auto";
	}

	private havingSeen(candidates: readonly Pool[], since: number): readonly Pool[] {
		const { fresh, vitals } = this;
		fresh.length = 0;
		for (const pool of candidates) if (pool === this.found.primary || hasSeen(pool, vitals, since)) fresh.push(pool);
		return fresh;
	}

	/** Finds out anew who may serve what. */
	private look(): void {
		// Before anything is read: what changes meanwhile is looked at next time.
		this.version = this.vitals.version;
		this.found = readFrom(this.pools, this.vitals, this.policy.read_write_split, this.readOnly);
	}

	/** A pool's role, as configured, or as found out; `auto`: not known. */
	roleOf(pool: Pool): Role {
		return roleOf(pool, this.vitals);
	}

	/** Whether no server's role is known yet: reads wait for the election, too. */
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

const NOBODY: Readable<Pool> = { primary: null, readers: [], replicas: [] };
const NO_PRIMARY = new PgError("ERROR", "58000", "no primary");
const SHUT_DOWN = new PgError("FATAL", "58000", "pool is shut down");

/** Where clients wait for a primary to be found, for as long as they would wait for a server. */
export class Election {
	private readonly waiters = new Waiters();
	private readonly policy: BalanceSettings;

	constructor(policy: BalanceSettings) {
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

	/** Roles or bans have changed: whoever has a place to go, goes. */
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
