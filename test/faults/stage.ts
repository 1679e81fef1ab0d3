// What every test of faults stands on: a real PostgreSQL, the compiled proxy in front of it with few server connections, one
// onlooker connected straight to PostgreSQL and one witness connected through the proxy; and the invariants that must hold
// again after whatever was done to the proxy. Used by the tests of this folder.

import { readFileSync } from "node:fs";
import { type Cluster, type PostgresOptions, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { RawClient, type RawClientOptions } from "../support/raw-client.ts";

export interface StageOptions {
	/** `[general]` beside `default_pool_size`. */
	general?: Record<string, unknown>;
	/** `default_pool_size`; 1 makes one leaked server visible at once. */
	pool?: number;
	/** Of the PostgreSQL that is started. */
	postgres?: PostgresOptions;
	/** Use this one, which somebody else stops. */
	cluster?: Cluster;
}

/** What another client's session must show on the server that was used before: [what, value when clean]. */
export const CLEAN: [string, string][] = [
	["(SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings WHERE source = 'session')", ""],
	["(SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = pg_my_temp_schema())", ""],
	["(SELECT string_agg(name, ' ') FROM pg_prepared_statements WHERE name NOT LIKE '\\_\\_pgdog\\_%')", ""],
	["(SELECT string_agg(name, ' ') FROM pg_cursors)", ""],
	["(SELECT string_agg(c, ' ') FROM pg_listening_channels() c)", ""],
	["(SELECT count(*)::text FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')", "0"],
	["(current_user || ' ' || session_user)", "pgdog pgdog"],
	["(now() = statement_timestamp())::text", "true"],
	["(pg_current_xact_id_if_assigned())::text", ""],
	["current_setting('app.who', true)", ""],
	["current_setting('search_path')", '"$user", public'],
];
export const INSPECT = `SELECT ${CLEAN.map(([sql]) => `coalesce(${sql}, '')`).join(", ")}`;

/** Server connections of the pool, those in a transaction, those running something, and locks they hold. */
const SERVERS = `SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in%'), count(*) FILTER (WHERE state = 'active'),
	(SELECT count(*) FROM pg_locks l JOIN pg_stat_activity b USING (pid) WHERE b.usename = 'pgdog' AND b.state <> 'active')
	FROM pg_stat_activity WHERE usename = 'pgdog'`;

/** An invariant that no longer holds. */
export class Broken extends Error {}

export class Stage implements AsyncDisposable {
	readonly cluster: Cluster;
	proxy: Proxy;
	readonly pool: number;
	readonly #ownsCluster: boolean;
	readonly #general: Record<string, unknown>;
	#onlooker: RawClient | undefined;
	#witness: RawClient | undefined;

	private constructor(
		cluster: Cluster,
		proxy: Proxy,
		pool: number,
		general: Record<string, unknown>,
		ownsCluster: boolean,
	) {
		this.cluster = cluster;
		this.proxy = proxy;
		this.pool = pool;
		this.#general = general;
		this.#ownsCluster = ownsCluster;
	}

	static async start(options: StageOptions = {}): Promise<Stage> {
		const pool = options.pool ?? 1;
		const cluster = options.cluster ?? (await startPostgres(options.postgres));
		try {
			const general = { default_pool_size: pool, min_pool_size: 0, ...options.general };
			const proxy = await startProxy(withAdmin(simpleConfig(cluster.primary, general)));
			return new Stage(cluster, proxy, pool, general, options.cluster === undefined);
		} catch (error) {
			if (options.cluster === undefined) await cluster.stop();
			throw error;
		}
	}

	/** Ends the proxy and all that it left on the server. */
	async retire(): Promise<void> {
		this.#witness?.reset();
		this.#witness = undefined;
		await this.proxy[Symbol.asyncDispose]();
		await (await this.onlooker()).query(
			"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgdog'",
		);
	}

	/** A new proxy in the place of one that a failure has spoilt for what comes next. */
	async renew(): Promise<void> {
		await this.retire();
		this.proxy = await startProxy(withAdmin(simpleConfig(this.cluster.primary, this.#general)));
	}

	/** How a client gets to the proxy. */
	get door(): RawClientOptions {
		return { port: this.proxy.port, user: "pgdog", password: "pgdog", database: "pgdog" };
	}

	/** How it gets to PostgreSQL itself, as the same user. */
	get bareDoor(): RawClientOptions {
		return { ...this.door, port: this.cluster.port };
	}

	client(options: RawClientOptions = {}): Promise<RawClient> {
		return RawClient.connect({ ...this.door, ...options });
	}

	/** Straight to PostgreSQL, as its superuser; one for all, opened again when PostgreSQL was restarted. */
	async onlooker(): Promise<RawClient> {
		if (this.#onlooker === undefined || this.#onlooker.ended) {
			this.#onlooker = await RawClient.connect({ port: this.cluster.port, user: "postgres", database: "pgdog" });
		}
		return this.#onlooker;
	}

	/** A well-behaved client of the proxy that was there before and must not notice a thing. */
	async witness(): Promise<RawClient> {
		if (this.#witness?.late) this.#witness.reset();
		if (this.#witness === undefined || this.#witness.ended || this.#witness.late)
			this.#witness = await this.client({ timeout: 5_000 });
		return this.#witness;
	}

	/** The first row, straight from PostgreSQL. */
	async look(sql: string): Promise<(string | null)[]> {
		const { rows, errors } = await (await this.onlooker()).query(sql);
		if (rows[0] === undefined) throw new Error(`no row for ${sql}: ${JSON.stringify(errors)}`);
		return rows[0];
	}

	/**
	 * Throws, naming `after`, unless another client is served by a server in a clean session, and PostgreSQL soon sees no more
	 * connections than the pool may have, none in a transaction, none that runs anything and none that holds a lock.
	 */
	async intact(after: string): Promise<void> {
		const witness = await this.witness();
		const seen = await witness.query(INSPECT).catch((error: Error) => {
			this.#witness = undefined;
			throw new Broken(`after ${after}, the other client: ${error.message}\n${this.tail()}`);
		});
		const row = seen.rows[0];
		if (row === undefined || seen.status !== "I") {
			throw new Broken(
				`after ${after}, the other client got ${JSON.stringify(seen.errors)} '${seen.status}'\n${this.tail()}`,
			);
		}
		CLEAN.forEach(([sql, clean], i) => {
			if (row[i] !== clean)
				throw new Broken(`after ${after}, the next client finds ${sql} = ${row[i]}\n${this.tail()}`);
		});
		let state: (string | null)[] = [];
		for (const end = performance.now() + 5_000; performance.now() < end; await Bun.sleep(5)) {
			state = await this.look(SERVERS);
			if (Number(state[0]) <= this.pool && state[1] === "0" && state[2] === "0" && state[3] === "0") return;
		}
		const [servers, inTransaction, active, locks] = state;
		throw new Broken(
			`after ${after}: ${servers} server connections of ${this.pool}, ${inTransaction} in a transaction, ` +
				`${active} running, ${locks} locks kept\n${this.tail()}`,
		);
	}

	/** Bytes of memory that the proxy process has now. */
	memory(): number {
		return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.proxy.pid}/status`, "utf8"))?.[1]) * 1024;
	}

	/** The proxy's last words, for error messages. */
	tail(): string {
		return `the proxy says:\n${this.proxy.lines.slice(-8).join("\n")}`;
	}

	/** Throws if the proxy ended or met a failure of its own, which it logs as such. */
	sane(): void {
		if (!this.proxy.running) throw new Broken(`the proxy ended:\n${this.proxy.log.slice(-4000)}`);
		const internal = this.proxy.lines.findIndex((line) => /internal error|unhandled|TypeError|RangeError/i.test(line));
		if (internal >= 0)
			throw new Broken(`the proxy failed inside:\n${this.proxy.lines.slice(internal, internal + 12).join("\n")}`);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#witness?.reset();
		this.#onlooker?.reset();
		await this.proxy[Symbol.asyncDispose]();
		if (this.#ownsCluster) await this.cluster.stop();
	}
}
