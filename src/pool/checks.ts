// Health checks: a server is asked before a connection that was idle for `healthcheck_interval` is lent, and in the background
// (`idle_healthcheck_interval`), in turn and soon when there is reason to. The outcome goes to the Bans. One for each Pool,
// which knows when to ask.

import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import { asPgError } from "../errors.ts";
import { Stat } from "../stats/counters.ts";
import { isOfHealth } from "./bans.ts";
import type { PoolContext } from "./context.ts";
import { Ban, Vital } from "./vitals.ts";

/** A server that is not well is checked this often, ms, until it is: what brings it back within seconds. */
const RECHECK = 1_000;

/** What Checks need of their pool. */
export interface Checked {
	readonly slot: number;
	readonly counters: Float64Array;
	/** The pool is no longer in the configuration: what a check finds out is of use to nobody. */
	readonly isRetired: boolean;
	/** Takes an idle server out of the pool's; null when there is none. It goes back by `onIdle`. */
	popIdle(): Server | null;
	onIdle(server: Server): void;
	/** Opens a connection beyond the pool's size. @param timeout of each attempt, ms */
	connect(timeout: number): Promise<Server>;
	/** Makes a connection by `connect` one of the pool's. @returns false when nobody has use for it */
	keep(server: Server): boolean;
	/** Clients that wait here may find a better place. */
	reconsider(): void;
}

export class Checks {
	private readonly pool: Checked;
	private readonly context: PoolContext;
	/** A check by a connection of its own is under way, and that connection once it is logged in. */
	private connecting = false;
	private server: Server | null = null;

	constructor(pool: Checked, context: PoolContext) {
		this.pool = pool;
		this.context = context;
	}

	/** It still has something to say of the pool's server, though nobody may listen. */
	get isUnderway(): boolean {
		return this.connecting;
	}

	/** Checks a server by its own connection, which was idle, and gives it back to the pool. */
	probe(server: Server): void {
		const { pool, context } = this;
		pool.counters[Stat.healthchecks]!++;
		server.probe(context.general.healthcheck_timeout, () => {
			this.proven();
			context.bans.passed(pool.slot, now());
			pool.onIdle(server);
		});
	}

	/** The janitor's tick: a check in the background, if one is due. Whichever thread comes first does it for all. */
	tick(time: number): void {
		const { general, bans } = this.context;
		const { vitals } = bans;
		const { slot } = this.pool;
		if (this.connecting) return;
		const ban = vitals.banOf(slot);
		const last = vitals.get(slot, Vital.checkedAt);
		const { idle_healthcheck_interval, idle_healthcheck_delay } = general;
		if (last === 0) {
			// As if a check had been made so long ago that the first one comes after `idle_healthcheck_delay`.
			const first = time - idle_healthcheck_interval + idle_healthcheck_delay;
			vitals.set(slot, Vital.checkedAt, ban === Ban.Unchecked ? 1 : first);
			return;
		}
		const isIll = !vitals.isHealthy(slot) || isOfHealth(ban);
		const isDue =
			(isIll && time - last > RECHECK) ||
			(idle_healthcheck_interval > 0 && time - last > idle_healthcheck_interval) ||
			(time - last > RECHECK && vitals.takeSuspicion(slot));
		if (!isDue || (!isIll && this.isSpared(time, last))) return;
		vitals.set(slot, Vital.checkedAt, time);
		vitals.set(bans.serverOf(slot), Vital.askedAt, time);
		const server = isIll ? null : this.pool.popIdle();
		if (server !== null) this.probe(server);
		else this.context.contain.when(null, this.checkByConnecting(), () => {});
	}

	/**
	 * Whether a check in its turn is spared: the pool has no connection, and another pool of the server has lately found it well, or
	 * is just about to find out. Of thousands of pools that nobody uses each would log in for it otherwise.
	 */
	private isSpared(time: number, last: number): boolean {
		const { general, bans, ledger } = this.context;
		const { vitals } = bans;
		const { slot } = this.pool;
		const { idle_healthcheck_interval, healthcheck_timeout } = general;
		if (time - last <= idle_healthcheck_interval || ledger.used(slot) > 0) return false;
		const server = bans.serverOf(slot);
		const provenAt = vitals.get(server, Vital.provenAt);
		if (vitals.get(server, Vital.doubtedAt) > provenAt) return false;
		const isProven = time - provenAt <= idle_healthcheck_interval;
		const askedAt = vitals.get(server, Vital.askedAt);
		if (!isProven && (askedAt <= provenAt || time - askedAt > healthcheck_timeout)) return false;
		vitals.set(slot, Vital.checkedAt, isProven ? time : time - idle_healthcheck_interval + RECHECK);
		return true;
	}

	/** The server has answered what was asked of it at the last check. */
	private proven(): void {
		const { bans } = this.context;
		const { slot } = this.pool;
		bans.vitals.set(bans.serverOf(slot), Vital.provenAt, bans.vitals.get(slot, Vital.checkedAt));
	}

	/** When `tick` has something to do at the earliest, unless the server is suspected or banned before. */
	nextDue(): number {
		const { general, bans } = this.context;
		const { vitals } = bans;
		const { slot } = this.pool;
		const last = vitals.get(slot, Vital.checkedAt);
		if (last === 0) return 0;
		if (!vitals.isHealthy(slot) || isOfHealth(vitals.banOf(slot)) || vitals.isSuspected(slot)) return last + RECHECK;
		const { idle_healthcheck_interval } = general;
		return idle_healthcheck_interval > 0 ? last + idle_healthcheck_interval : Number.POSITIVE_INFINITY;
	}

	/** A query takes long: its server is to be checked soon, but not more often than a check may take. */
	suspect(time: number): void {
		const { vitals } = this.context.bans;
		const { slot } = this.pool;
		if (time - vitals.get(slot, Vital.checkedAt) > this.context.general.healthcheck_timeout) vitals.suspect(slot);
	}

	/** A client has waited for `checkout_timeout`, and no server came back. @param connecting connections are being opened */
	late(connecting: boolean, time: number): void {
		const { bans } = this.context;
		// Connections that are at work for so long may be busy, or hang: a check will say, the one under way if there is one.
		if (!connecting) bans.vitals.suspect(this.pool.slot);
		else bans.failed(this.pool.slot, Ban.Unreachable, "no connection within checkout_timeout", time);
	}

	/** One of the pool's connections is gone, or the one that a check has made. */
	onGone(server: Server): void {
		if (server === this.server) {
			this.server = null;
			this.connecting = false;
			this.failed(server.closeReason);
		} else if (server.probing) this.failed(server.closeReason);
	}

	private failed(reason: string): void {
		const { pool } = this;
		if (pool.isRetired) return;
		this.context.bans.failed(pool.slot, Ban.Unhealthy, reason, now());
		pool.reconsider();
	}

	/** Checks by a new connection, beyond the pool's size if need be: closed at once unless the pool has use and room for it. */
	private async checkByConnecting(): Promise<void> {
		const { context, pool } = this;
		const { healthcheck_timeout } = context.general;
		this.connecting = true;
		pool.counters[Stat.healthchecks]!++;
		try {
			this.ask(await pool.connect(healthcheck_timeout), healthcheck_timeout);
		} catch (error) {
			this.connecting = false;
			const { sqlstate, message } = asPgError(error);
			// A server that refuses the login (password, role, database) is alive.
			if (sqlstate.startsWith("08") || sqlstate.startsWith("57P")) this.failed(message);
			else if (context.ledger.used(pool.slot) > 0) context.bans.passed(pool.slot, now());
		}
	}

	/** Asks what `probe` asks, an empty query, on a connection that is not the pool's yet: whoever lets in may still not answer. */
	private ask(server: Server, timeout: number): void {
		this.server = server;
		server.loggedIn();
		const late = () => server.close("no answer to a health check");
		const timer = this.context.contain.later(timeout, server.stream, late);
		server.run(";", (_, error) => {
			clearTimeout(timer);
			if (error !== null) server.close(`healthcheck failed: ${error.message}`);
			else this.passed(server);
		});
	}

	private passed(server: Server): void {
		const { pool, context } = this;
		this.server = null;
		this.connecting = false;
		this.proven();
		if (pool.keep(server)) return;
		server.close("healthcheck passed");
		context.bans.passed(pool.slot, now());
	}
}
