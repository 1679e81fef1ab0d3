// One worker's share of one pool: servers of one user on one database, idle here or lent here, and the clients that
// wait here. How many there may be in the process, and who else waits, is in the ledger. `take` and `release` are on
// the hot path; connecting, probing, moving between workers and the janitor's tick are not.

import type { SocketHandler } from "bun";
import { LRUCache } from "lru-cache";
import type { ScramCache } from "../auth/scram-keys.ts";
import { sendCancel } from "../backend/cancel.ts";
import { login } from "../backend/login.ts";
import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";
import type { Statements } from "../backend/prepared.ts";
import { type MovingServer, Server, type ServerHome, ServerState } from "../backend/server.ts";
import { now } from "../clock.ts";
import type { General, Tcp } from "../config/settings.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Splice } from "../net/splice.ts";
import { adoptSocket, Stream } from "../net/stream.ts";
import { Stat } from "../stats/counters.ts";
import { TxStatus } from "../wire/codes.ts";
import type { Ledger } from "./ledger.ts";
import { type Waiter, Waiters } from "./waiters.ts";

/** What the pools of one worker share. */
export interface PoolContext {
	/** Index of this worker. */
	readonly worker: number;
	readonly ledger: Ledger;
	readonly sets: ParameterSets;
	readonly statements: Statements;
	readonly splice: Splice;
	readonly scram: ScramCache;
	readonly handlers: SocketHandler<Stream>;
	readonly log: Log;
	/** ms since the epoch as of the janitor's last tick. */
	readonly time: number;
	/** The settings in force. */
	readonly general: () => General;
	readonly tcp: () => Tcp;
	/** Asks another worker, which has idle servers, for one. */
	requestServer(worker: number, slot: number): void;
	/** Hands a server over; its permit goes with it. */
	giveServer(worker: number, slot: number, server: MovingServer): void;
	/** Tells another worker that a permit is free. */
	offerPermit(worker: number, slot: number): void;
}

/** A worker without any server of the pool gets one after this wait, ms: each hand-over costs about half of one. */
const QUANTUM = 5;
/** Beyond twice our own wait, this much more (ms) makes another worker's client come first. */
const SLACK = 0.5;
/** Between two hand-overs to a worker that has servers of the pool, ms: queues swing, and servers must not swing along. */
const PATIENCE = 20;
/** Pause after a failed connection attempt while clients wait, ms; doubles up to the second. */
const RETRY_FIRST = 100;
const RETRY_LAST = 1000;

/** SQLSTATE classes of a refused login that the next attempt will meet again: who waits is told at once. */
const PERMANENT = new Set(["28", "3D", "42"]);

export class Pool implements ServerHome {
	spec: PoolSpec;
	readonly slot: number;
	readonly counters: Float64Array;
	readonly splice: Splice;
	readonly sets: ParameterSets;
	readonly all = new Set<Server>();
	private readonly idle: Server[] = [];
	private readonly waiters = new Waiters();
	private readonly context: PoolContext;
	/** When a server last went to another worker. */
	private gaveAt = 0;
	/** Connections being opened or adopted here. */
	private connecting = 0;
	private paused = false;
	/** No longer in the configuration: lends nothing, closes what comes back. */
	private retired = false;
	/** RECONNECT raises it; servers of an older one are closed when they come back. */
	private generation = 0;
	private passwordIndex = 0;
	private lastError: PgError | null = null;
	private retryDelay = 0;
	private retryAt = 0;
	/** What servers report once the settings of a StartupMessage are applied, by those settings (`ParameterSet.key`). */
	readonly welcomes = new LRUCache<string, ParameterSet>({ max: 1024 });

	constructor(spec: PoolSpec, slot: number, counters: Float64Array, context: PoolContext) {
		this.spec = spec;
		this.slot = slot;
		this.counters = counters;
		this.context = context;
		this.splice = context.splice;
		this.sets = context.sets;
	}

	// ---- clients ---------------------------------------------------------------------------------------------------

	/** A server now, or null: then the waiter stands in the queue and one of its callbacks is called later. */
	take(waiter: Waiter): Server | null {
		if (this.waiters.length === 0 && !this.paused) {
			const server = this.popIdle();
			if (server !== null) {
				if (!this.isStale(server)) return server;
				this.probe(server);
			}
		}
		if (this.retired) {
			// Not before the caller knows that it waits.
			queueMicrotask(() => waiter.onCheckoutFailed(new PgError("FATAL", "58000", "pool is shut down")));
			return null;
		}
		waiter.waitingSince = now();
		this.waiters.push(waiter);
		this.publish();
		this.grow();
		return null;
	}

	/** A waiter that no longer wants a server. */
	leave(waiter: Waiter): void {
		this.waiters.remove(waiter);
		this.publish();
	}

	/** A server came back clean (or was just opened). The hot path's other end. */
	onIdle(server: Server): void {
		const { context } = this;
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
		if (context.ledger.workers > 1 && this.passOn(server)) return;
		if (this.waiters.first !== null && !this.paused) {
			this.hand(server);
			return;
		}
		this.idle.push(server);
		this.publish();
	}

	private hand(server: Server): void {
		const waiter = this.waiters.shift();
		if (waiter === null) return;
		this.publish();
		this.counters[Stat.wait_time]! += now() - waiter.waitingSince;
		waiter.onServer(server);
	}

	/** Last in, first out: the rest may grow old and be closed. */
	private popIdle(): Server | null {
		const server = this.idle.pop() ?? null;
		if (server !== null) this.publish();
		return server;
	}

	private publish(): void {
		const { ledger, worker } = this.context;
		if (ledger.workers === 1) return;
		ledger.setServers(this.slot, worker, this.idle.length, this.all.size);
		ledger.setWaiting(this.slot, worker, this.waiters.length, this.waiters.first?.waitingSince ?? 0);
	}

	// ---- connecting ------------------------------------------------------------------------------------------------

	/** Opens connections for those who wait, as far as permits go; else asks workers that have idle ones. */
	private grow(): void {
		if (this.paused || this.retired) return;
		const { ledger, worker } = this.context;
		let wanted = this.waiters.length - this.connecting;
		if (wanted <= 0) return;
		for (let other = 0; other < ledger.workers && wanted > 0; other++) {
			if (other === worker || ledger.idleOf(this.slot, other) === 0) continue;
			this.context.requestServer(other, this.slot);
			wanted--;
		}
		if (this.retryAt > now()) return;
		while (wanted-- > 0 && ledger.acquire(this.slot, this.spec.pool_size)) void this.open();
	}

	/** Opens one connection; the permit is ours already. */
	private async open(): Promise<void> {
		const { general, log } = this.context;
		const { generation } = this;
		this.connecting++;
		const started = now();
		try {
			const server = await this.attempt();
			this.connecting--;
			this.retryDelay = 0;
			this.lastError = null;
			this.counters[Stat.connect_count]!++;
			this.counters[Stat.connect_time]! += now() - started;
			server.generation = generation;
			const jitter = this.spec.server_lifetime_jitter * (2 * Math.random() - 1);
			server.lifetime = this.spec.server_lifetime + jitter;
			if (general().log_connections) log.info(`new server connection [${this.describe()}]`);
			this.enter(server);
		} catch (error) {
			this.connecting--;
			this.context.ledger.release(this.slot);
			this.onConnectFailed(error instanceof PgError ? error : new PgError("FATAL", "XX000", String(error)));
		}
	}

	private async attempt(): Promise<Server> {
		const { spec } = this;
		const { general, scram, handlers, tcp } = this.context;
		const passwords = Math.max(1, spec.server_passwords.length);
		for (let attempt = 1, refused = 1; ; ) {
			const { connect_timeout, connect_attempts, connect_attempt_delay } = general();
			const passwordIndex = this.passwordIndex % passwords;
			try {
				const options = {
					host: spec.host,
					port: spec.port,
					database: spec.database_name,
					user: spec.server_user,
					passwords: spec.server_passwords,
					passwordIndex,
					startup: spec.startup,
					timeout: connect_timeout,
					cache: scram,
					handlers,
					keepAlive: tcp(),
				};
				return await login(options, this);
			} catch (error) {
				const wrongPassword = error instanceof PgError && error.sqlstate === "28P01";
				if (wrongPassword && refused++ < passwords) {
					this.passwordIndex = passwordIndex + 1;
					continue;
				}
				if (attempt++ >= connect_attempts || this.retired) throw error;
				await Bun.sleep(connect_attempt_delay);
			}
		}
	}

	/** A server that is new here, opened or adopted. */
	private enter(server: Server): void {
		this.all.add(server);
		server.state = ServerState.Idle;
		this.onIdle(server);
		this.publish();
	}

	private onConnectFailed(error: PgError): void {
		this.counters[Stat.errors]!++;
		this.context.log.warn(`server connection failed: ${error.sqlstate} ${error.message} [${this.describe()}]`);
		this.lastError = error;
		this.retryDelay = Math.min(RETRY_LAST, this.retryDelay === 0 ? RETRY_FIRST : this.retryDelay * 2);
		this.retryAt = now() + this.retryDelay;
		if (PERMANENT.has(error.sqlstate.slice(0, 2)) && this.all.size === 0)
			this.failAll(new PgError("FATAL", error.sqlstate, error.message, error.detail, error.hint));
		for (let waiter = this.waiters.first; waiter !== null; ) {
			const next: Waiter | null = waiter.nextWaiter;
			waiter.onConnectFailed();
			waiter = next;
		}
	}

	private failAll(error: PgError): void {
		for (let waiter = this.waiters.shift(); waiter !== null; waiter = this.waiters.shift())
			waiter.onCheckoutFailed(error);
		this.publish();
	}

	onGone(server: Server): void {
		const { log, general, ledger } = this.context;
		if (!this.all.delete(server)) return;
		const at = this.idle.indexOf(server);
		if (at >= 0) this.idle.splice(at, 1);
		if (general().log_disconnections) log.info(`closing server connection: ${server.closeReason} [${this.describe()}]`);
		ledger.release(this.slot);
		this.publish();
		const other = ledger.longestWaiting(this.slot, this.context.worker);
		if (other >= 0) this.context.offerPermit(other, this.slot);
		this.grow();
	}

	// ---- other workers ---------------------------------------------------------------------------------------------

	/** Gives `server` to a worker whose client comes first. Fair turns, but not a hand-over for each transaction. */
	private passOn(server: Server): boolean {
		const { ledger, worker } = this.context;
		const other = ledger.longestWaiting(this.slot, worker);
		if (other < 0) return false;
		const first = this.waiters.first;
		const time = now();
		const bare = ledger.heldBy(this.slot, other) === 0;
		if (!bare && time - this.gaveAt < PATIENCE) return false;
		if (first !== null) {
			const slack = bare ? QUANTUM : SLACK;
			const theirs = time - ledger.waitingSince(this.slot, other);
			if (theirs < 2 * (time - first.waitingSince) + slack) return false;
		}
		return this.give(server, other);
	}

	/** Another worker has clients waiting and asks for what is idle here. */
	onServerRequested(by: number): void {
		const { ledger } = this.context;
		if (ledger.waitingIn(this.slot, by) === 0) return;
		if (ledger.heldBy(this.slot, by) > 0 && now() - this.gaveAt < PATIENCE) return;
		const server = this.popIdle();
		if (server !== null && !this.give(server, by)) {
			this.idle.push(server);
			this.publish();
		}
	}

	onPermitOffered(): void {
		this.grow();
	}

	private give(server: Server, to: number): boolean {
		const moving = server.leave();
		if (moving === null) return false;
		this.gaveAt = now();
		this.all.delete(server);
		this.publish();
		this.context.giveServer(to, this.slot, moving);
		return true;
	}

	/** A server that another worker gives us, with its permit. */
	async onServerGiven(moving: MovingServer): Promise<void> {
		this.connecting++;
		try {
			const socket = await adoptSocket(moving.fd, this.context.handlers);
			const server = new Server(this);
			server.stream = new Stream(socket, server);
			socket.data = server.stream;
			server.arrive(moving, this.context.statements);
			this.connecting--;
			this.enter(server);
		} catch (error) {
			this.connecting--;
			this.context.ledger.release(this.slot);
			this.context.log.warn(`a server connection was lost between workers: ${error} [${this.describe()}]`);
			this.grow();
		}
	}

	// ---- upkeep ----------------------------------------------------------------------------------------------------

	private isStale(server: Server): boolean {
		return this.context.time - server.usedAt > this.context.general().healthcheck_interval;
	}

	/** An empty query before lending: a connection that a firewall forgot, or a frozen server, is found out here. */
	private probe(server: Server): void {
		this.counters[Stat.healthchecks]!++;
		server.healthchecks++;
		server.run(";", (_, error) => {
			if (error !== null) server.close(`healthcheck failed: ${error.message}`);
			else {
				server.state = ServerState.Idle;
				this.onIdle(server);
			}
		});
		server.deadline = now() + this.context.general().healthcheck_timeout;
	}

	/** The janitor's tick: whatever is late, old, or missing. `time` as `now()`. */
	tick(time: number): void {
		const { checkout_timeout, query_timeout } = this.context.general();
		for (let { first } = this.waiters; first !== null && !this.paused; first = this.waiters.first) {
			if (time - first.waitingSince < checkout_timeout) break;
			this.waiters.shift();
			first.onCheckoutFailed(this.checkoutTimeout());
		}
		let idle = 0;
		let inTransaction = 0;
		for (const server of this.all) {
			if (server.state === ServerState.Idle) idle++;
			else if (server.deadline > 0 && time > server.deadline) server.close("no answer to our own query");
			else if (server.state === ServerState.Lent) {
				if (server.replies.length === 0) inTransaction += server.status === TxStatus.Idle ? 0 : 1;
				else if (time - server.requestAt > query_timeout) server.timeOut();
			}
		}
		this.closeIdle(time);
		this.grow();
		if (!this.paused && !this.retired && time >= this.retryAt) {
			const { ledger } = this.context;
			// A server that failed is asked again, needed or not: reads come back to it when it is well.
			const least = Math.max(this.spec.min_pool_size, this.isFailing ? 1 : 0);
			if (ledger.used(this.slot) < least && ledger.acquire(this.slot, least)) void this.open();
		}
		this.counters[Stat.sv_idle] = idle;
		this.counters[Stat.sv_idle_xact] = inTransaction;
		this.counters[Stat.sv_active] = this.all.size - idle - inTransaction;
		this.counters[Stat.cl_waiting] = this.waiters.length;
		this.counters[Stat.oldest_wait] = this.waiters.first?.waitingSince ?? 0;
		this.publish();
	}

	private closeIdle(time: number): void {
		const { ledger } = this.context;
		for (const server of [...this.idle]) {
			if (time - server.bornAt > server.lifetime) server.close("server_lifetime");
			else if (
				time - server.usedAt > this.spec.idle_timeout &&
				// The permit goes first, so that two workers do not both close the last one above the minimum.
				ledger.releaseAbove(this.slot, this.spec.min_pool_size)
			) {
				this.all.delete(server);
				this.idle.splice(this.idle.indexOf(server), 1);
				server.close("idle_timeout");
				if (this.context.general().log_disconnections)
					this.context.log.info(`closing server connection: idle_timeout [${this.describe()}]`);
			} else if (server.statements.hasDropped) {
				// It comes back by onIdle; until then it is nobody's to lend.
				this.idle.splice(this.idle.indexOf(server), 1);
				server.closeDropped();
			}
		}
	}

	private checkoutTimeout(): PgError {
		const used = this.context.ledger.used(this.slot);
		const cause = this.lastError === null ? "" : `; the last attempt to connect failed: ${this.lastError.message}`;
		return new PgError(
			"FATAL",
			"58000",
			"checkout timeout",
			`${used} of ${this.spec.pool_size} server connections of this pool are in use${cause}`,
			this.lastError === null
				? "Raise default_pool_size or checkout_timeout, or make transactions shorter."
				: undefined,
		);
	}

	rollbackTimeout(): number {
		return this.context.general().rollback_timeout;
	}

	async cancel(server: Server): Promise<void> {
		if (server.pid === 0) return;
		server.cancels++;
		const { host, port } = this.spec;
		const { general, handlers, tcp } = this.context;
		await sendCancel({ host, port }, server.pid, server.secret, general().connect_timeout, handlers, tcp());
		server.cancelLanded();
	}

	// ---- orders ----------------------------------------------------------------------------------------------------

	get waiting(): number {
		return this.waiters.length;
	}

	get isPaused(): boolean {
		return this.paused;
	}

	/** Clients wait, without a time limit; idle servers are closed. Lent ones end their transactions. */
	pause(): void {
		this.paused = true;
		for (const server of [...this.idle]) server.close("pause");
	}

	resume(): void {
		if (!this.paused) return;
		this.paused = false;
		const time = now();
		for (let waiter = this.waiters.first; waiter !== null; waiter = waiter.nextWaiter) waiter.waitingSince = time;
		this.grow();
	}

	/** Every server is replaced: idle ones now, lent ones when they come back. */
	reconnect(): void {
		this.generation++;
		this.welcomes.clear();
		for (const server of [...this.idle]) server.close("reconnect");
	}

	/** A reload changed the pool. Connections are kept unless they would be other connections now. */
	change(spec: PoolSpec): void {
		const before = this.spec;
		this.spec = spec;
		const identity = (s: PoolSpec) => JSON.stringify([s.host, s.port, s.database_name, s.server_user, s.startup]);
		if (identity(before) !== identity(spec)) this.reconnect();
		if (before.server_passwords.join("\0") !== spec.server_passwords.join("\0")) this.passwordIndex = 0;
		for (const server of this.all) server.lifetime = spec.server_lifetime;
		this.grow();
	}

	/** The pool left the configuration. */
	retire(): void {
		this.retired = true;
		for (const server of [...this.idle]) server.close("the pool is gone");
		this.failAll(new PgError("FATAL", "58000", "pool is shut down"));
	}

	/** The last attempt to connect failed, and none has succeeded since. */
	get isFailing(): boolean {
		return this.lastError !== null;
	}

	/** Retired, and its last server is gone. */
	get isOver(): boolean {
		return this.retired && this.all.size === 0 && this.connecting === 0;
	}

	/** Process shutdown: all servers, lent or not. */
	shutDown(): void {
		this.retire();
		for (const server of [...this.all]) server.close("shutdown");
	}

	private describe(): string {
		const { server_user, database_name, host, port } = this.spec;
		return `${server_user}@${host}:${port}/${database_name}`;
	}
}
