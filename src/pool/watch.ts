// The monitor's own connection to one server, beside all pools: opened when first needed, kept, opened again when it was lost.
// Asks for a ReplicationReport and gives up in time. Made by monitor.ts.

import { ScramCache } from "../auth/scram-keys.ts";
import { login } from "../backend/login.ts";
import type { Server } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import { now } from "../clock.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import type { Contain } from "../contain.ts";
import { asPgError, PgError } from "../errors.ts";
import { type LoginContext, loginOptions } from "./login-options.ts";
import { Outsider } from "./outsider.ts";
import { QUESTION, type ReplicationReport, readReport } from "./replication.ts";

interface WatchContext extends LoginContext {
	readonly contain: Contain;
}

export class Watch extends Outsider {
	/** Pools of this server, of all users: with the credentials of one of them it is asked. */
	specs: readonly PoolSpec[];
	/** The last answer; null before the first. */
	report: ReplicationReport | null = null;
	/** Why the last question had no answer; null when it had. */
	failure: PgError | null = null;
	/** The server has replayed what the primary never wrote: it follows another one. */
	isAhead = false;
	/** When it is asked next, ms since the epoch. */
	nextAt = 0;
	asking = false;
	private readonly context: WatchContext;
	private readonly scram = new ScramCache();
	private server: Server | null = null;
	private credentials = 0;
	/** By whose credentials the connection was made, or is being. */
	private used: PoolSpec | null = null;
	private onLost: ((error: PgError) => void) | null = null;
	private closed = false;
	/** The connection was made by settings that are no longer in force: another one asks the next question. */
	private isOutdated = false;

	constructor(specs: readonly PoolSpec[], context: WatchContext) {
		super();
		this.specs = specs;
		this.context = context;
	}

	get address(): string {
		const { host, port } = this.specs[0]!;
		return `${host}:${port}`;
	}

	/** Sets `report` or `failure`. Never rejects. @param timeout ms, for connecting and asking each */
	async ask(timeout: number): Promise<void> {
		this.asking = true;
		try {
			this.leaveOldAddress();
			if (this.isOutdated) this.server?.close("reconnect");
			// While one is being opened, settings may change once more.
			this.isOutdated = false;
			const server = this.server ?? (await this.connect(timeout));
			this.report = await this.question(server, timeout);
			this.failure = null;
		} catch (error) {
			this.failure = asPgError(error);
		}
		this.asking = false;
	}

	/** Closes the connection when the host's name stands for another address now: that one is to be asked. */
	private leaveOldAddress(): void {
		const { names } = this.context;
		const { host } = this.specs[0]!;
		names.refresh(host, now());
		if (this.server !== null && !names.has(host, this.server.address))
			this.server.close("the host has another address");
	}

	private async connect(timeout: number): Promise<Server> {
		const all = this.specs.flatMap((spec) =>
			Array.from({ length: Math.max(1, spec.server_passwords.length) }, (_, passwordIndex) => ({
				spec,
				passwordIndex,
			})),
		);
		const { spec, passwordIndex } = all[this.credentials % all.length]!;
		this.used = spec;
		try {
			const options = loginOptions(spec, passwordIndex, timeout, this.scram, this.context);
			const server = await login({ ...options, startup: spec.startup }, this);
			server.loggedIn();
			this.server = server;
			if (this.closed) server.close("reload");
			return server;
		} catch (error) {
			// The server refuses this user or password: the next attempt is with another.
			if (error instanceof PgError && !error.sqlstate.startsWith("08")) this.credentials++;
			throw error;
		}
	}

	private question(server: Server, timeout: number): Promise<ReplicationReport> {
		const { promise, resolve, reject } = Promise.withResolvers<ReplicationReport>();
		const at = now();
		const late = () => server.close("no answer within lsn_check_timeout");
		const timer = this.context.contain.later(timeout, server.stream, late);
		const over = () => {
			clearTimeout(timer);
			this.onLost = null;
		};
		this.onLost = (error) => {
			over();
			reject(error);
		};
		server.run(QUESTION, (rows, error) => {
			over();
			if (error === null && rows[0] !== undefined) resolve({ ...readReport(at, rows[0]), answeredAt: now() });
			else reject(error ?? new PgError("ERROR", "XX000", "no answer"));
		});
		if (server.state === ServerState.Closed) this.onLost?.(new PgError("FATAL", "08006", "connection lost"));
		return promise;
	}

	/**
	 * A reload has come. Where it asks something else of the connection over TLS, that is replaced soon, and not in the middle of a
	 * question.
	 */
	change(specs: readonly PoolSpec[]): void {
		this.specs = specs;
		const { used } = this;
		const now = specs.find(({ key }) => key === used?.key);
		if (used === null || now === undefined || Bun.deepEquals(used.server_tls, now.server_tls)) return;
		this.used = now;
		this.isOutdated = true;
		if (this.asking || this.server !== null) this.nextAt = 0;
	}

	close(): void {
		this.closed = true;
		this.server?.close("no longer watched");
	}

	// ---- what a Server asks of its home ----------------------------------------------------------------------------

	override onGone(server: Server): void {
		if (this.server === server) this.server = null;
		const error = new PgError("FATAL", "08006", server.closeReason);
		// Between two questions: nobody has to wait for the next one to know.
		if (this.onLost === null) this.failure = error;
		else this.onLost(error);
	}
}
