// One worker's share of one pool: servers of one user on one database, idle here or lent here, and the clients that
// wait here. How many there may be in the process, and who else waits, is in the ledger. `take` and `release` are on
// the hot path; connecting, probing, moving between workers and the janitor's tick are not.

import { NO_KEYS } from "../auth/server-login.ts";
import { cancelServer } from "../backend/cancel.ts";
import { OUT_OF_DESCRIPTORS } from "../backend/login.ts";
import type { MovingServer } from "../backend/moving-server.ts";
import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import { now } from "../clock.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import { PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import type { LogFields } from "../log.ts";
import { Stat } from "../stats/counters.ts";
import type { CappedPool } from "./caps.ts";
import { type Checked, Checks } from "./checks.ts";
import { type Connected, Connecting } from "./connecting.ts";
import type { PoolContext } from "./context.ts";
import type { Filled } from "./filling.ts";
import { Handover, type HandoverPool } from "./handover.ts";
import { type Permit, Servers } from "./permit.ts";
import { type Lesson, Reported } from "./reported.ts";
import { type KeptPool, MOVED, Upkeep } from "./upkeep.ts";
import { Ban } from "./vitals.ts";
import { type Waiter, Waiters } from "./waiters.ts";

/** SQLSTATE classes of a refused login that the next attempt will meet again: who waits is told at once. */
const PERMANENT = new Set(["28", "3D", "42"]);

/** Most CancelRequests on their way to one server: each is a connection. */
const MOST_CANCELS = 4;

export class Pool implements CappedPool, Connected, Checked, Filled, KeptPool, HandoverPool {
	spec: PoolSpec;
	readonly slot: number;
	/** Its database's place in the ledger, see databases.ts. */
	database: number;
	readonly counters: Float64Array;
	readonly sets: ParameterSets;
	readonly all = new Servers();
	/** Clean, and nobody's; written here only. */
	readonly idle: Server[] = [];
	readonly waiters = new Waiters();
	private readonly context: PoolContext;
	/** Other workers have a share of it. */
	private readonly isShared: boolean;
	private readonly checks: Checks;
	private readonly connecting: Connecting;
	private readonly handover: Handover;
	readonly upkeep: Upkeep;
	/** When `tick` has something to do next, ms since the epoch; 0: at each tick. What happens in between makes it 0. */
	dueAt = 0;
	private paused = false;
	/** No longer in the configuration: lends nothing, closes what comes back. */
	private retired = false;
	/** `PoolContext.generation` when the pool's servers were last replaced; those of an older one are closed when they come back. */
	generation: number;
	/** When a server here last had answered a query and was free again, ms since the epoch. */
	provenAt = 0;
	/** What a log-in is told of the server without asking it. */
	readonly reported: Reported;

	constructor(spec: PoolSpec, slot: number, counters: Float64Array, context: PoolContext) {
		this.spec = spec;
		this.slot = slot;
		this.database = slot;
		this.counters = counters;
		this.context = context;
		this.isShared = context.ledger.workers > 1;
		this.generation = context.generation;
		this.sets = context.sets;
		this.checks = new Checks(this, context);
		this.connecting = new Connecting(this, context);
		this.handover = new Handover(this, context);
		this.upkeep = new Upkeep(this, this.checks, context);
		this.reported = new Reported(context.sets, (lesson) => context.share(slot, this.identity, lesson));
	}

	// ---- clients ---------------------------------------------------------------------------------------------------

	/**
	 * A server now, or null: then the waiter stands in the queue and one of its callbacks is called later.
	 * @param time `now()`
	 */
	take(waiter: Waiter, time: number): Server | null {
		if (this.waiters.length === 0 && !this.paused) {
			const server = this.popIdle();
			if (server !== null) {
				if (this.context.time - server.usedAt <= this.context.general.healthcheck_interval) return server;
				this.checks.probe(server);
			}
		}
		if (this.retired) {
			// Later: the caller has to know first that the waiter waits.
			this.context.contain.soon(null, () => waiter.onCheckoutFailed(SHUT_DOWN));
			return null;
		}
		waiter.waitingSince = time;
		this.waiters.push(waiter);
		this.dueAt = 0;
		this.publish();
		this.grow(time);
		return null;
	}

	/** A waiter that no longer wants a server, or looks for one elsewhere. */
	leave(waiter: Waiter): void {
		this.countWait(waiter, now());
		this.waiters.remove(waiter);
		this.publish();
	}

	/** A server came back clean (or was just opened). The hot path's other end. */
	onIdle(server: Server): void {
		const { context } = this;
		const answeredAt = Math.max(server.usedAt, server.checkedAt);
		// A login alone proves little: some let in and then say nothing.
		if (answeredAt > server.bornAt) this.provenAt = answeredAt;
		if (this.retired || server.generation !== this.generation) {
			server.close(this.retired ? "the pool is gone" : "reconnect");
			return;
		}
		if (this.paused) {
			server.close("pause");
			return;
		}
		if (server.usedAt - server.bornAt > server.lifetime) {
			server.close("server_lifetime");
			return;
		}
		if (this.upkeep.addresses !== null && this.upkeep.hasMoved(server)) {
			server.close(MOVED);
			return;
		}
		if (this.upkeep.shrinks && this.upkeep.shed(server)) return;
		if (this.isShared && this.handover.passOn(server)) return;
		if (this.waiters.first !== null && this.upkeep.isLate) {
			// Clients came when the server had another role, the primary's perhaps: the next tick would be too late for a write.
			this.reconsider();
			this.upkeep.noteVitals();
			if (server.state === ServerState.Closed) return;
		}
		if (this.waiters.first !== null) {
			// Mostly the server's last answer came in this event. Not if it is new, came from another worker, was not asked anything, or
			// waited for a CancelRequest to land: the time of its last answer may be hours ago then.
			const isOfNow = answeredAt > server.bornAt && answeredAt >= context.time;
			this.hand(server, isOfNow ? answeredAt : now());
			return;
		}
		this.idle.push(server);
		if (this.isShared) this.publish();
	}

	/** @param time `now()`, about */
	private hand(server: Server, time: number): void {
		const waiter = this.waiters.shift();
		if (waiter === null) return;
		this.publish();
		this.countWait(waiter, time);
		waiter.onServer(server, time);
	}

	/** Counts the time that a waiter has waited, whatever came of it. */
	private countWait(waiter: Waiter, time: number): void {
		this.counters[Stat.wait_time]! += Math.max(0, time - waiter.waitingSince);
	}

	/** A server that `popIdle` has given, and that nobody has had since, goes back. */
	putIdle(server: Server): void {
		this.idle.push(server);
		this.publish();
	}

	/** The server goes to another worker. @returns its permit */
	giveUp(server: Server): Permit | null {
		const permit = this.all.remove(server);
		this.publish();
		return permit;
	}

	/** Last in, first out: the rest may grow old and be closed. */
	popIdle(): Server | null {
		const server = this.idle.pop() ?? null;
		if (server === null) return null;
		this.dueAt = 0;
		if (this.isShared) this.publish();
		return server;
	}

	/** Tells the other workers what is here. */
	publish(): void {
		const { ledger, worker } = this.context;
		// Once retired, another pool may write in this slot.
		if (!this.isShared || this.retired) return;
		ledger.setServers(this.slot, worker, this.idle.length, this.all.size);
		ledger.setWaiting(this.slot, worker, this.waiters.length, this.waiters.first?.waitingSince ?? 0);
	}

	// ---- connecting ------------------------------------------------------------------------------------------------

	/** Opens connections for those who wait, as far as permits go; else asks workers that have idle ones. */
	grow(time = now()): void {
		if (this.paused || this.retired) return;
		const { ledger, worker } = this.context;
		let wanted = this.waiters.length - this.connecting.underway;
		if (wanted <= 0) return;
		for (let other = 0; other < ledger.workers && wanted > 0; other++) {
			if (other === worker || ledger.idleOf(this.slot, other) === 0) continue;
			this.context.requestServer(other, this.slot);
			wanted--;
		}
		if (!this.connecting.mayTry(time)) return;
		const size = this.upkeep.sizeAt(time);
		const { caps } = this.context;
		while (wanted-- > 0 && (this.open(size) || (caps.makeRoom(this, size, time) && this.open(size))));
	}

	/** Opens one connection if fewer than `limit` permits are in use. @param done told when that is over @returns whether it does */
	private open(limit: number, done = () => {}): boolean {
		const permit = this.context.caps.permit(this, limit, now());
		if (permit === null) return false;
		this.dueAt = 0;
		this.watch(this.connecting.open(permit).finally(done));
		return true;
	}

	get isUsed(): boolean {
		return this.waiters.length > 0 || this.counters[Stat.server_assignment_count]! > 0;
	}

	get lacks(): boolean {
		const { pool_size, min_pool_size } = this.spec;
		return !this.paused && !this.retired && this.context.ledger.used(this.slot) < Math.min(min_pool_size, pool_size);
	}

	/** A server that is not well is checked instead (checks.ts). */
	mayFill(time: number): boolean {
		return this.connecting.mayTry(time) && !this.connecting.lacksKeys && this.context.bans.vitals.isHealthy(this.slot);
	}

	fill(done: () => void): boolean {
		const { pool_size, min_pool_size } = this.spec;
		return this.open(Math.min(min_pool_size, pool_size), done);
	}

	get spare(): number {
		return this.isUsed ? 0 : this.idle.length;
	}

	makeRoom(): void {
		const server = this.idle[0];
		if (server !== undefined) this.closeAbove(server, 0, "the server has no room");
		this.wake();
	}

	/** Nobody waits for `work`. If it rejects, there is a bug in what was done with a connection. */
	private watch(work: Promise<void>): void {
		this.context.contain.when(null, work, () => {});
	}

	onOpened(server: Server, permit: Permit): void {
		this.enter(server, permit);
		this.context.caps.opened(this);
	}

	/** @param timeout of each attempt, ms */
	connect(timeout: number): Promise<Server> {
		return this.connecting.connect(timeout);
	}

	/** A connection that a check has made beyond the pool's size. @returns false when nobody has use for it */
	keep(server: Server): boolean {
		const wanted = this.waiters.length > 0 || (this.lacks && this.context.filling.allows(this.slot, now()));
		if (!wanted || this.retired) return false;
		using permit = this.context.caps.permit(this, this.spec.pool_size, now());
		if (permit === null) return false;
		this.connecting.worked();
		this.enter(server, permit);
		return true;
	}

	/** A connection that was opened becomes one of the pool's. */
	private enter(server: Server, permit: Permit): void {
		const { general, log, bans } = this.context;
		if (general.log_connections) log.info(`new server connection [${this.describe()}]`, this.fields);
		bans.passed(this.slot, now());
		this.join(server, permit);
	}

	/** A server that is new here, opened or adopted. */
	private join(server: Server, permit: Permit): void {
		// It may have closed between the end of its login and now.
		if (server.state === ServerState.Closed) return;
		this.dueAt = 0;
		// Nobody has looked at addresses while there was no server.
		this.upkeep.noteAddresses(now());
		this.all.add(server, permit);
		server.limitLifetime(this.spec.server_lifetime, this.spec.server_lifetime_jitter);
		server.loggedIn();
		this.onIdle(server);
		this.publish();
	}

	onOpenFailed(error: PgError): void {
		const { bans, log, ledger, filling } = this.context;
		// Nobody waits here, and what is known of the slot may be another pool's by now.
		if (this.retired) return;
		const news = this.connecting.lastError?.message !== error.message;
		if (error === NO_KEYS && this.waiters.length === 0) {
			// Only `min_pool_size` wanted it. Each worker finds that out for itself; one of them says so.
			if (news && this.context.worker === 0)
				log.info(`min_pool_size has to wait for the first client to log in by SCRAM [${this.describe()}]`, this.fields);
			return;
		}
		this.counters[Stat.errors]!++;
		log[news ? "warn" : "debug"](`server connection failed: ${error.sqlstate} ${error.message} [${this.describe()}]`);
		const refused = PERMANENT.has(error.sqlstate.slice(0, 2)) && this.all.size === 0;
		// A server that answers, and only has no room for one more connection, is not down.
		const isOurs = error.sqlstate === OUT_OF_DESCRIPTORS;
		const isFull = error.sqlstate === TOO_MANY_CONNECTIONS;
		if (isFull) filling.crowded(this.slot, now());
		if (isFull && this.waiters.length === 0) return;
		if (error.sqlstate.startsWith("08") || refused || (ledger.used(this.slot) === 0 && !isOurs))
			bans.failed(this.slot, Ban.Unreachable, error.message, now());
		this.waiters.reconsider();
		if (refused) this.failAll(new PgError("FATAL", error.sqlstate, error.message, error.detail, error.hint));
	}

	private failAll(error: PgError): void {
		for (let waiter = this.waiters.shift(); waiter !== null; waiter = this.waiters.shift()) this.fail(waiter, error);
		this.publish();
	}

	/** `waiter`, who is in the queue no more, gets no server. */
	private fail(waiter: Waiter, error: PgError): void {
		// Once retired, another pool may count in this slot.
		if (!this.retired) {
			this.counters[Stat.errors]!++;
			this.countWait(waiter, now());
		}
		waiter.onCheckoutFailed(error);
	}

	/** `waiter`, who has waited longest, gets no server. */
	refuse(waiter: Waiter, error: PgError): void {
		this.waiters.shift();
		this.publish();
		this.fail(waiter, error);
	}

	get firstWaiter(): Waiter | null {
		return this.waiters.first;
	}

	/** Why the last attempt to connect failed. */
	get lastError(): PgError | null {
		return this.connecting.lastError;
	}

	onGone(server: Server): void {
		const { log, general, ledger, bans } = this.context;
		this.checks.onGone(server);
		const permit = this.all.remove(server);
		if (permit === null) return;
		this.dueAt = 0;
		permit.release();
		this.forget(server);
		if (general.log_disconnections)
			log.info(`closing server connection: ${server.closeReason} [${this.describe()}]`, this.fields);
		if (server.isLost) bans.vitals.suspect(this.slot);
		const other = ledger.longestWaiting(this.slot, this.context.worker);
		if (other >= 0) this.context.offerPermit(other, this.slot);
		this.grow();
	}

	/** `server` is no longer one of `all`: it must not be lent from `idle`. */
	forget(server: Server): void {
		const at = this.idle.indexOf(server);
		if (at >= 0) this.idle.splice(at, 1);
		this.publish();
	}

	/**
	 * Closes a server that nobody has if the process has more than `keep` of the pool. The permit goes first, so that of workers
	 * that look at once no more than the surplus close theirs. @returns whether it is closed
	 */
	closeAbove(server: Server, keep: number, reason: string): boolean {
		if (!this.all.removeAbove(server, keep)) return false;
		this.forget(server);
		server.close(reason);
		if (this.context.general.log_disconnections)
			this.context.log.info(`closing server connection: ${reason} [${this.describe()}]`, this.fields);
		return true;
	}

	// ---- other workers ---------------------------------------------------------------------------------------------

	/** Another worker has clients waiting and asks for what is idle here. */
	onServerRequested(by: number): void {
		this.handover.onRequested(by);
	}

	onPermitOffered(): void {
		this.grow();
	}

	/** Another worker gives us a server with its permit, or the permit only. */
	onServerGiven(moving: MovingServer | null, permit: Permit): void {
		this.dueAt = 0;
		this.watch(this.handover.arrival(this.connecting.adopt(moving, permit)));
	}

	onAdopted(server: Server, permit: Permit): void {
		this.join(server, permit);
	}

	onAdoptFailed(error: unknown): void {
		this.context.log.warn(`a server connection was lost between workers: ${error} [${this.describe()}]`, this.fields);
		this.grow();
	}

	// ---- upkeep ----------------------------------------------------------------------------------------------------

	/** The janitor's tick. `time` as `now()`. */
	tick(time: number): void {
		this.dueAt = this.upkeep.tick(time);
	}

	/** Bans or roles have changed, a server is suspected, or there are other settings: the next tick looks. */
	wake(): void {
		this.dueAt = 0;
	}

	/** See `Ledger.catalogueOf`. */
	get catalogue(): number {
		return this.context.ledger.catalogueOf(this.database);
	}

	onAltered(): void {
		this.context.ledger.catalogueChanged(this.database);
	}

	rollbackTimeout(): number {
		return this.context.general.rollback_timeout;
	}

	/**
	 * Sends a CancelRequest to the server.
	 * @param done told when that is over, or timed out: what the server is sent from now on is another query
	 */
	cancel(server: Server, done: () => void = () => {}): void {
		// However many ask for it, it is one query that is to be cancelled.
		if (server.pid === 0 || server.cancels.count >= MOST_CANCELS) {
			done();
			return;
		}
		server.cancels.sent();
		const { general, dialling, contain } = this.context;
		const { host: name, port, server_tls: tls } = this.spec;
		const sent = cancelServer(server, { name, port }, general.connect_timeout, { ...dialling, tls });
		contain.when(server.stream, sent, (isOver) => {
			done();
			server.cancels.landed(isOver);
		});
	}

	// ---- orders ----------------------------------------------------------------------------------------------------

	get isRetired(): boolean {
		return this.retired;
	}

	get isPaused(): boolean {
		return this.paused;
	}

	/** Clients wait, without a time limit; idle servers are closed. Lent ones end their transactions. */
	pause(): void {
		this.paused = true;
		this.wake();
		for (const server of [...this.idle]) server.close("pause");
	}

	resume(): void {
		if (!this.paused) return;
		this.paused = false;
		this.wake();
		this.waiters.restart(now());
		this.grow();
	}

	/** Every server is replaced: idle ones now, lent ones when they come back. */
	reconnect(): void {
		this.wake();
		this.generation = this.context.generation;
		for (const server of [...this.idle]) server.close("reconnect");
	}

	/** A reload changed the pool. Connections are kept unless their `identity` is another now, or what is asked of them over TLS. */
	change(spec: PoolSpec): void {
		const before = this.spec;
		this.spec = spec;
		this.wake();
		if (spec.pool_size < before.pool_size) this.upkeep.shrink();
		if (identityOf(before) !== this.identity) {
			this.reported.forget();
			this.reconnect();
		} else if (!Bun.deepEquals(before.server_tls, spec.server_tls)) this.reconnect();
		if (before.server_passwords.join("\0") !== spec.server_passwords.join("\0")) this.connecting.restart();
		for (const server of this.all) server.limitLifetime(spec.server_lifetime, spec.server_lifetime_jitter);
		this.upkeep.closeIdle(now());
		this.grow();
	}

	/** Equal, in each worker, for connections that can take each other's place: one server, database, user and StartupMessage. */
	private get identity(): string {
		return identityOf(this.spec);
	}

	/**
	 * The settings that a client with this StartupMessage is told at its log-in; null when it has to wait for a server to say.
	 * @param mayGuess the client's next answer comes from this pool, too: what was told wrongly is put right with that
	 */
	greeting(startup: ParameterSet, mayGuess: boolean): ParameterSet | null {
		return this.reported.of(startup) ?? (mayGuess && this.isBusy ? this.reported.guess(startup) : null);
	}

	/** The pool has all the servers that it may have, and none is idle in any worker. */
	private get isBusy(): boolean {
		const { ledger, worker } = this.context;
		if (this.idle.length > 0 || ledger.used(this.slot) < this.spec.pool_size) return false;
		return ledger.elsewhere(this.slot, worker).idle === 0;
	}

	/** Another worker has learned something about servers of this identity: a log-in may have waited for just that. */
	onLesson(identity: string, lesson: Lesson): void {
		if (identity !== this.identity) return;
		this.reported.hear(lesson);
		this.reconsider();
	}

	/** The pool left the configuration. */
	retire(): void {
		const { ledger, worker } = this.context;
		this.retired = true;
		ledger.setServers(this.slot, worker, 0, 0);
		ledger.setWaiting(this.slot, worker, 0, 0);
		ledger.setKept(this.slot, worker, 0);
		for (const server of [...this.idle]) server.close("the pool is gone");
		this.failAll(SHUT_DOWN);
	}

	/** See `Candidate` in balance.ts. */
	get load(): number {
		const { ledger, worker } = this.context;
		return this.all.size - this.idle.length + this.waiters.length + ledger.loadElsewhere(this.slot, worker);
	}

	/** Bans or roles have changed: a client that waits here may find a better place. */
	reconsider(): void {
		this.waiters.reconsider();
	}

	/** Connections are being opened or adopted. */
	get isConnecting(): boolean {
		return this.connecting.underway > 0;
	}

	/** Retired, and its last server is gone. */
	get isOver(): boolean {
		return this.retired && this.all.size === 0 && !this.isConnecting && !this.checks.isUnderway;
	}

	/** Process shutdown: all servers, lent or not. */
	shutDown(): void {
		this.retire();
		for (const server of [...this.all]) server.close("shutdown");
	}

	/** For the log, beside `describe`. */
	get fields(): LogFields {
		const { user, database, host, port, shard } = this.spec;
		return { user, database, server: `${host}:${port}`, shard };
	}

	describe(): string {
		const { server_user, database_name, host, port } = this.spec;
		return `${server_user}@${host}:${port}/${database_name}`;
	}
}

function identityOf({ host, port, database_name, server_user, startup }: PoolSpec): string {
	return JSON.stringify([host, port, database_name, server_user, startup]);
}

const SHUT_DOWN = new PgError("FATAL", "58000", "pool is shut down");
