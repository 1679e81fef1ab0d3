// What a pool does with time, at the janitor's tick: ends what takes too long, closes what is too old or too many, fills what is
// missing, and follows what is found out about its server elsewhere: bans, roles, addresses. One for each Pool.

import type { Server } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import { PgError } from "../errors.ts";
import type { LogFields } from "../log.ts";
import { timesText } from "../once-a-minute.ts";
import { Stat } from "../stats/counters.ts";
import { TxStatus } from "../wire/codes.ts";
import { noticeResponse } from "../wire/error-response.ts";
import type { CappedPool, Heir } from "./caps.ts";
import { checkoutTimeout, type Shortage, shortageText } from "./checkout-timeout.ts";
import type { Checks } from "./checks.ts";
import type { PoolContext } from "./context.ts";
import type { Filled } from "./filling.ts";
import { Ban, FoundRole } from "./vitals.ts";
import type { Waiter, Waiters } from "./waiters.ts";

/** A query under way for so long, ms, or for half of `checkout_timeout`, is a reason to ask whether its server still answers. */
const LONG_QUERY = 1_000;

/** A pool whose servers are all idle is looked at this often, ms: for addresses that move, and statements that are dropped. */
const IDLE_LOOK = 1_000;

/** The Pool, as time concerns it. */
export interface KeptPool extends Filled, CappedPool {
	readonly counters: Float64Array;
	readonly isRetired: boolean;
	/** Connections are being opened or adopted. */
	readonly isConnecting: boolean;
	/** When a server here last had answered a query and was free again, ms since the epoch. */
	readonly provenAt: number;
	/** Why the last attempt to connect failed. */
	readonly lastError: PgError | null;
	readonly all: Iterable<Server> & { readonly size: number };
	readonly waiters: Waiters;
	/** For the log. */
	readonly fields: LogFields;
	describe(): string;
	/** Opens connections for those who wait. */
	grow(time: number): void;
	/** Tells other threads how many servers and waiters there are. */
	publish(): void;
	/** The server is not to be lent from `idle`. */
	forget(server: Server): void;
	/** Who has waited longest gets no server. */
	refuse(waiter: Waiter, error: PgError): void;
}

export class Upkeep {
	private readonly pool: KeptPool;
	private readonly checks: Checks;
	private readonly context: PoolContext;
	/** Addresses of the host's name; null: it is no name, or none is known. As of the last tick, as are `seenBan` and `seenRole`. */
	addresses: readonly string[] | null = null;
	private seenBan = Ban.None;
	private seenRole = FoundRole.Unknown;
	/** `shed` has to be asked about servers that come back: a reload has made the pool smaller, as of the last tick, or there is an `heir`. */
	shrinks = false;
	/** Who has the place of the next server that comes back; null: it stays. */
	private heir: Heir | null = null;

	constructor(pool: KeptPool, checks: Checks, context: PoolContext) {
		this.pool = pool;
		this.checks = checks;
		this.context = context;
	}

	/** The server has another role than the pool's connections were last brought in line with. */
	get isLate(): boolean {
		return this.context.bans.vitals.roleOf(this.pool.slot) !== this.seenRole;
	}

	/** The pool has become smaller. */
	shrink(): void {
		this.shrinks = true;
	}

	get isYielding(): boolean {
		return this.heir !== null;
	}

	/** The next server that comes back is closed for the sake of `heir`. */
	yieldTo(heir: Heir): void {
		this.heir = heir;
		this.shrinks = true;
	}

	/** @returns whether `server`, which has come back, is closed: there are more than there should be */
	shed(server: Server): boolean {
		const { heir, pool } = this;
		this.heir = null;
		if (heir !== null && this.context.caps.pass(pool, server, heir)) return true;
		return pool.closeAbove(server, this.most, "pool_size");
	}

	/** Servers that the pool may ever have. */
	private get most(): number {
		const { pool_size, reserve_pool_size } = this.pool.spec;
		return pool_size + reserve_pool_size;
	}

	/** Servers that the pool may have now: the reserve is for a client that has waited for long. @param time `now()` */
	sizeAt(time: number): number {
		const { spec, waiters } = this.pool;
		if (spec.reserve_pool_size === 0 || waiters.first === null) return spec.pool_size;
		const isLong = time - waiters.first.waitingSince >= this.context.general.reserve_pool_timeout;
		return isLong ? this.most : spec.pool_size;
	}

	/** The host's name stands for other addresses than the one of this connection. */
	hasMoved({ address }: Server): boolean {
		return this.addresses !== null && !this.addresses.includes(address);
	}

	/**
	 * The janitor's tick: whatever is late, old, or missing. `time` as `now()`.
	 * @returns when there is something to do next, if nothing happens before; 0: at the next tick
	 */
	tick(time: number): number {
		const { pool } = this;
		this.noteVitals();
		this.noteAddresses(time);
		if (!pool.isPaused && !pool.isRetired) this.checks.tick(time);
		const idle = this.look(time);
		if (pool.isRetired) return 0;
		// After what was late itself has made way.
		this.expireWaiters(time);
		this.closeIdle(time);
		pool.grow(time);
		const { query_wait_notify } = this.context.general;
		if (query_wait_notify > 0) pool.waiters.tellLong(QUEUED, time, query_wait_notify);
		if (pool.waiters.length > 0 && pool.isConnecting) this.context.filling.hungry();
		if (pool.lacks) this.context.filling.wants(pool);
		pool.counters[Stat.cl_waiting] = pool.waiters.length;
		pool.counters[Stat.oldest_wait] = pool.waiters.first?.waitingSince ?? 0;
		const used = this.context.ledger.used(pool.slot);
		this.shrinks = used > this.most || this.heir !== null;
		pool.publish();
		// Not when servers were closed in this tick: they are in the gauges still.
		const isIdle = idle === pool.idle.length && idle === pool.all.size && !pool.isConnecting;
		const isQuiet = isIdle && pool.waiters.length === 0 && !this.shrinks && used <= pool.spec.pool_size;
		return isQuiet ? this.nextDue(time) : 0;
	}

	/** Ends what takes too long, and counts what servers do. @returns how many are idle */
	private look(time: number): number {
		const { pool } = this;
		const { query_timeout, checkout_timeout } = this.context.general;
		const long = Math.min(LONG_QUERY, checkout_timeout / 2);
		let idle = 0;
		let inTransaction = 0;
		let kept = 0;
		for (const server of pool.all) {
			if (server.state === ServerState.Idle) idle++;
			else if (server.deadline > 0 && time > server.deadline) server.close("no answer to our own query");
			else if (server.state === ServerState.Draining) server.cancelAgain();
			else if (server.state === ServerState.Lent) {
				kept += Number(isKept(server));
				if (server.books.owed === 0) inTransaction += server.status === TxStatus.Idle ? 0 : 1;
				else if (time - server.requestAt > query_timeout) server.timeOut();
				else if (time - Math.max(server.requestAt, pool.provenAt) > long) this.checks.suspect(time);
			}
		}
		if (pool.isRetired) return idle;
		this.context.ledger.setKept(pool.slot, this.context.worker, kept);
		pool.counters[Stat.sv_idle] = idle;
		pool.counters[Stat.sv_idle_xact] = inTransaction;
		pool.counters[Stat.sv_active] = pool.all.size - idle - inTransaction;
		return idle;
	}

	/** When there is something to do for a pool that nobody uses, unless something happens before. */
	private nextDue(time: number): number {
		const { pool } = this;
		let next = this.checks.nextDue();
		if (pool.idle.length > 0) next = Math.min(next, time + IDLE_LOOK);
		for (const server of pool.idle) {
			const late = server.usedAt + pool.spec.idle_timeout;
			// Past that it is one of `min_pool_size`, and stays.
			if (late >= time) next = Math.min(next, late);
			next = Math.min(next, server.bornAt + server.lifetime);
		}
		return next;
	}

	/** Acts on what other threads have found out about this server since the last tick: a ban, a role. */
	noteVitals(): void {
		const { pool } = this;
		const { vitals } = this.context.bans;
		const ban = vitals.banOf(pool.slot);
		if (ban !== this.seenBan) {
			this.seenBan = ban;
			// Idle connections to a server that does not answer may be dead, too.
			if (ban === Ban.Unreachable || ban === Ban.Unhealthy) for (const server of [...pool.idle]) server.close("banned");
		}
		const role = vitals.roleOf(pool.slot);
		// Unknown again: the pool leaves the configuration, and what runs there may end.
		if (role === this.seenRole || role === FoundRole.Unknown) return;
		const wasPrimary = this.seenRole === FoundRole.Primary;
		this.seenRole = role;
		// Lent servers, too: whoever is in a transaction there would go on to write to it.
		if (wasPrimary || role === FoundRole.Outdated)
			for (const server of [...pool.all]) server.close("no longer the primary", NO_LONGER_PRIMARY);
	}

	/** When the host's name stands for another address, connections to the old one are closed: idle ones now, others as they return. */
	noteAddresses(time: number): void {
		const { pool } = this;
		const { names } = this.context;
		const { host } = pool.spec;
		if (pool.all.size > 0) names.refresh(host, time);
		const addresses = names.known(host);
		if (addresses === this.addresses) return;
		this.addresses = addresses;
		for (const server of [...pool.idle]) if (!names.has(host, server.address)) server.close(MOVED);
	}

	private expireWaiters(time: number): void {
		const { pool } = this;
		const { checkout_timeout } = this.context.general;
		for (let { first } = pool.waiters; first !== null && !pool.isPaused; first = pool.waiters.first) {
			const { waitingSince } = first;
			if (time - waitingSince < checkout_timeout) break;
			// No server came back while it waited: another pool may have an answer.
			if (pool.provenAt < waitingSince) {
				this.checks.late(pool.isConnecting, time);
				first.onElsewhere(true);
				if (pool.waiters.first !== first) continue;
			}
			const error = checkoutTimeout(this.shortage);
			this.complain(error, time);
			pool.refuse(first, error);
		}
	}

	/** Warns of checkout timeouts: one of all workers, once a minute. */
	private complain(error: PgError, time: number): void {
		const { pool } = this;
		const { ledger, log, worker } = this.context;
		const times = ledger.complaints(pool.slot).due(time);
		if (times === 0) return;
		const waiting = pool.waiters.length + ledger.elsewhere(pool.slot, worker).waiting;
		const text = shortageText(pool.spec, error, waiting, time - (pool.waiters.first?.waitingSince ?? time));
		log.warn(`${text} [${pool.describe()}]${timesText(times)}`, pool.fields);
	}

	closeIdle(time: number): void {
		const { pool } = this;
		for (const server of [...pool.idle]) {
			if (time - server.bornAt > server.lifetime) server.close("server_lifetime");
			else if (!this.closeSurplus(server, time) && server.statements.hasDropped(this.context.statements.drops)) {
				// The server comes back by onIdle; until then it is nobody's to lend.
				pool.forget(server);
				server.closeDropped();
			}
		}
	}

	/** Closes an idle server that the pool has too many of, or has had for too long. @returns whether it has */
	private closeSurplus(server: Server, time: number): boolean {
		const { pool } = this;
		const { pool_size, min_pool_size, idle_timeout } = pool.spec;
		if (pool.closeAbove(server, this.most, "pool_size")) return true;
		const idleFor = time - server.usedAt;
		if (
			idleFor > this.context.general.reserve_pool_timeout &&
			pool.closeAbove(server, pool_size, "reserve_pool_timeout")
		)
			return true;
		return idleFor > idle_timeout && pool.closeAbove(server, min_pool_size, "idle_timeout");
	}

	private get shortage(): Shortage {
		const { pool } = this;
		const { ledger, worker } = this.context;
		let lent = ledger.elsewhere(pool.slot, worker).lent;
		for (const server of pool.all) if (server.client !== null) lent++;
		const { lastError } = pool;
		const cap = this.context.caps.fullOf(pool.spec);
		return { used: ledger.used(pool.slot), lent, kept: ledger.keptOf(pool.slot), size: this.most, cap, lastError };
	}
}

/** Whether its client has it for advisory locks. */
function isKept({ session }: Server): boolean {
	return session.stays && !session.locked;
}

/** PgBouncer's words. */
const QUEUED = noticeResponse(
	new PgError("NOTICE", "00000", "No server connection available in postgres backend, client being queued"),
);

export const MOVED = "the host has another address";

const NO_LONGER_PRIMARY = new PgError(
	"FATAL",
	"57P01",
	"terminating connection: the server is no longer the primary",
	undefined,
	"Connect again: the proxy knows the new one.",
);
