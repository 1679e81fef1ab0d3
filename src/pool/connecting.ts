// How a pool comes to one more server connection: opened, or adopted from another thread; how often it is tried, with which
// password, and how long it waits after a failure. The permit is the caller's until the connection is the pool's: whichever
// way an attempt ends, it is with one of them or given back. One for each Pool.

import type { Socket } from "bun";
import { NO_KEYS } from "../auth/server-login.ts";
import { login } from "../backend/login.ts";
import type { MovingServer } from "../backend/moving-server.ts";
import type { ServerHome } from "../backend/server.ts";
import { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import { asPgError, PgError } from "../errors.ts";
import { adoptSocket, Stream } from "../net/stream.ts";
import { Stat } from "../stats/counters.ts";
import type { PoolContext } from "./context.ts";
import { loginOptions } from "./login-options.ts";
import type { Permit } from "./permit.ts";
import type { Reported } from "./reported.ts";

/** Pause after a failed connection attempt while clients wait, ms; doubles up to the second. */
const RETRY_FIRST = 100;
const RETRY_LAST = 1000;

/** What Connecting needs of its pool. */
export interface Connected extends ServerHome {
	readonly spec: PoolSpec;
	/** `PoolContext.generation` when the pool's servers were last replaced. */
	readonly generation: number;
	readonly reported: Reported;
	/** The pool is no longer in the configuration: an attempt that fails is the last. */
	readonly isRetired: boolean;
	/** A connection that was opened: it is the pool's now, and so is the permit. */
	onOpened(server: Server, permit: Permit): void;
	onOpenFailed(error: PgError): void;
	/** A connection that came from another thread. */
	onAdopted(server: Server, permit: Permit): void;
	onAdoptFailed(error: unknown): void;
}

export class Connecting {
	/** Connections being opened or adopted here. */
	underway = 0;
	/** Why the last attempt failed; null when it did not. */
	lastError: PgError | null = null;
	private readonly pool: Connected;
	private readonly context: PoolContext;
	private passwordIndex = 0;
	private retryDelay = 0;
	private retryAt = 0;

	constructor(pool: Connected, context: PoolContext) {
		this.pool = pool;
		this.context = context;
	}

	/** The server wants keys that no client has proven yet: the next one to log in brings them. */
	get lacksKeys(): boolean {
		const { spec } = this.pool;
		return this.lastError === NO_KEYS && spec.server_verifier !== undefined && !this.hasKeys(spec);
	}

	private hasKeys({ server_verifier }: PoolSpec): boolean {
		return server_verifier !== undefined && this.context.keyring.has(server_verifier);
	}

	/** Whether the pause after a failure is over (`RETRY_FIRST` to `RETRY_LAST`). @param time `now()` */
	mayTry(time: number): boolean {
		return time >= this.retryAt;
	}

	/** The configuration has other passwords now: the first is tried first. */
	restart(): void {
		this.passwordIndex = 0;
	}

	/** Opens a connection. Rejects only when what the pool does with it has a bug: neither it nor the permit is lost then. */
	async open(mine: Permit): Promise<void> {
		using permit = mine;
		const outcome = await this.counted(this.connect(this.context.general.connect_timeout));
		if (outcome instanceof Server) {
			this.worked();
			this.pool.onOpened(outcome, permit);
			return;
		}
		// The permit goes back before anybody is told: whoever hears of it may want to try again.
		permit.release();
		const error = asPgError(outcome.error);
		this.retryDelay = Math.min(RETRY_LAST, this.retryDelay === 0 ? RETRY_FIRST : this.retryDelay * 2);
		this.retryAt = now() + this.retryDelay;
		this.pool.onOpenFailed(error);
		this.lastError = error;
	}

	/** As `open`, for a connection that another thread gives us. @param moving null: only its permit has come */
	async adopt(moving: MovingServer | null, mine: Permit): Promise<void> {
		if (moving === null) return this.open(mine);
		using permit = mine;
		const outcome = await this.counted(this.receive(moving));
		if (outcome instanceof Server) {
			this.pool.onAdopted(outcome, permit);
			return;
		}
		permit.release();
		this.pool.onAdoptFailed(outcome.error);
	}

	/** The outcome of an attempt; a failure is a value, so that nothing but connecting can be taken for a failure to connect. */
	private async counted(attempt: Promise<Server>): Promise<Server | { readonly error: unknown }> {
		this.underway++;
		try {
			return await attempt;
		} catch (error) {
			return { error };
		} finally {
			this.underway--;
		}
	}

	private async adoptSocket(fd: number): Promise<Socket<Stream>> {
		const { handlers, descriptors } = this.context;
		try {
			return await adoptSocket(fd, handlers);
		} catch (error) {
			descriptors.free();
			throw error;
		}
	}

	private async receive(moving: MovingServer): Promise<Server> {
		const { descriptors } = this.context;
		const socket = await this.adoptSocket(moving.fd);
		const server = new Server(this.pool);
		const stream = new Stream(socket, server);
		stream.counted = descriptors;
		server.attach(stream);
		socket.data = stream;
		try {
			server.arrive(moving, this.context.statements);
			return server;
		} catch (error) {
			server.stream.terminate();
			throw error;
		}
	}

	/** A connection was made, by `open` or by a check. */
	worked(): void {
		this.retryDelay = 0;
		this.retryAt = 0;
		this.lastError = null;
	}

	/**
	 * Logs in, in up to `connect_attempts` attempts; the connection has no permit. Rejects with the last attempt's error.
	 * @param timeout of each attempt, ms
	 */
	async connect(timeout: number): Promise<Server> {
		const { pool, context } = this;
		const { spec, generation } = pool;
		const started = now();
		const passwords = Math.max(1, spec.server_passwords.length);
		for (let attempt = 1, refused = 1; ; ) {
			const { connect_attempts, connect_attempt_delay } = context.general;
			const passwordIndex = this.passwordIndex % passwords;
			pool.counters[Stat.auth_attempts]!++;
			try {
				const server = await login(loginOptions(spec, passwordIndex, timeout, context.scram, context), pool);
				server.bornIn(generation);
				// A reload may have put other servers in their place since.
				if (generation === pool.generation) pool.reported.opened(server.session.reports.now);
				pool.counters[Stat.connect_count]!++;
				pool.counters[Stat.connect_time]! += now() - started;
				return server;
			} catch (error) {
				// A client has logged in meanwhile, and waits for this.
				if (error === NO_KEYS && this.hasKeys(spec)) continue;
				const wrongPassword = error instanceof PgError && error.sqlstate === "28P01";
				if (wrongPassword && refused++ < passwords) {
					this.passwordIndex = passwordIndex + 1;
					continue;
				}
				if (attempt++ >= connect_attempts || pool.isRetired) throw error;
				await Bun.sleep(connect_attempt_delay);
			}
		}
	}
}
