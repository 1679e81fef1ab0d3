// What the tests of several shards share: one PostgreSQL with a database for each shard, the compiled proxy with one server
// for each of them, and what must hold on all shards again after whatever was done.

import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyOptions, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { backends } from "./support.ts";

export const SHARDS = ["s0", "s1", "s2"];

export interface ShardedOptions {
	/** How many shards. Default 3. */
	shards?: number;
	general?: Record<string, unknown>;
	plugins?: { name: string }[];
	/** Port of a shard's server, when it is not the cluster's. */
	ports?: Record<number, number>;
}

export function shardedOptions(cluster: Cluster, options: ShardedOptions = {}): ProxyOptions {
	const { shards = 3, general = {}, plugins = [], ports = {} } = options;
	return {
		config: {
			general: {
				default_pool_size: 1,
				min_pool_size: 0,
				workers: 1,
				log_connections: false,
				log_disconnections: false,
				...general,
			},
			databases: SHARDS.slice(0, shards).map((database_name, shard) => {
				return { name: "pgdog", host: "127.0.0.1", port: ports[shard] ?? cluster.port, database_name, shard };
			}),
			plugins,
			admin: { password: "pgdog" },
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
	};
}

export function startSharded(cluster: Cluster, options: ShardedOptions = {}): Promise<Proxy> {
	return startProxy(shardedOptions(cluster, options));
}

export const HERE = "CREATE TABLE here (); INSERT INTO here DEFAULT VALUES";

/** Runs SQL straight on each shard; the first column of the first row of each. */
export function onEach(cluster: Cluster, sql: string, shards = 3): Promise<unknown[]> {
	return Promise.all(
		SHARDS.slice(0, shards).map(async (database) => {
			const [row] = await cluster.primary.sql(sql, { user: "pgdog", database });
			return row === undefined ? undefined : Object.values(row)[0];
		}),
	);
}

/**
 * The databases of three shards, with tables of the same names on each and one on the second alone. `here` has one row: what names
 * no table is asked of one shard, and what is to be asked of all of them names this.
 */
export async function startShards(): Promise<Cluster> {
	const cluster = await startPostgres({ databases: SHARDS });
	await onEach(
		cluster,
		`CREATE TABLE things (id int, note text); CREATE TABLE kept (who text); CREATE TABLE copied (line text); ${HERE}`,
	);
	await cluster.primary.sql("CREATE TABLE lonely (id int)", { user: "pgdog", database: "s1" });
	return cluster;
}

/** Letters of the messages of an answer, without settings and notices. */
export function letters({ messages }: QueryResult): string {
	return messages
		.map(({ code }) => code)
		.filter((code) => code !== "S" && code !== "N")
		.join("");
}

export function sqlstates({ errors }: QueryResult): (string | undefined)[] {
	return errors.map(({ C }) => C);
}

/** What a session on a clean server shows on each shard; `transaction_…` is of the transaction, whatever its source. */
const CLEAN = `SELECT concat_ws(' ',
	(SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction\\_%'),
	(SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
	(SELECT string_agg(name, ' ') FROM pg_prepared_statements WHERE name NOT LIKE '\\_\\_pgdog\\_%'),
	(SELECT string_agg(name, ' ') FROM pg_cursors),
	(SELECT string_agg(c, ' ') FROM pg_listening_channels() c),
	(SELECT string_agg(objid::text, ' ') FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
	nullif(current_user, 'pgdog'), nullif(current_setting('app.who', true), ''),
	pg_current_xact_id_if_assigned()::text)`;

/** Throws unless another client finds a clean session on every shard, and no more than so many servers, all idle. */
export async function intact(
	cluster: Cluster,
	witness: RawClient,
	after: string,
	shards = 3,
	most = shards,
): Promise<void> {
	for (let shard = 0; shard < shards; shard++) {
		const { rows, errors, status } = await witness.query(`/* pgdog_shard: ${shard} */ ${CLEAN}`);
		const found = JSON.stringify([rows, errors.map(({ M }) => M), status]);
		if (found !== JSON.stringify([[[""]], [], "I"])) throw new Error(`after ${after}, shard ${shard}: ${found}`);
	}
	let seen = "";
	await until(async () => {
		const servers = await backends(cluster);
		seen = JSON.stringify(servers);
		return servers.length <= most && servers.every(({ state }) => state === "idle");
	}, `idle servers after ${after}`).catch((error: Error) => {
		throw new Error(`${error.message}: ${seen}`);
	});
}

/** Throws if the proxy ended or met a failure of its own, which it logs as such. */
export function sane(proxy: Proxy): void {
	const internal = proxy.lines.findIndex((line) =>
		/internal error|unhandled|TypeError|RangeError|broke the protocol/i.test(line),
	);
	if (!proxy.running || internal >= 0)
		throw new Error(`the proxy failed:\n${proxy.lines.slice(Math.max(0, internal)).join("\n")}`);
}
