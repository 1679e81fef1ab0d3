// The columns of each SHOW, in PgDog's order, and where their values come from. What is not counted is NULL.

import { now } from "../clock.ts";
import { type Shown, showConfig } from "../config/show.ts";
import { hostOf } from "../net/names.ts";
import { Stat } from "../stats/counters.ts";
import {
	type ClientRow,
	type ListenerRow,
	mergeListeners,
	type PoolRow,
	type PoolVitals,
	type RouteRow,
	type ServerRow,
} from "../status/rows.ts";
import type { TransactionRow } from "../two-phase/recovery.ts";
import { bool, type Field, float, int, textColumn, time } from "./command.ts";
import { PLACE, type PoolPlace, poolPlaces, SHARD_AND_ROLE } from "./pools.ts";
import type { AdminSource } from "./source.ts";

/** A SHOW: its columns, and the items that become its rows. */
export interface View<T> {
	readonly fields: readonly Field<T>[];
	items(source: AdminSource): Promise<readonly T[]> | readonly T[];
}

/** Of `address:port`; a Unix socket has none. */
function port(address: string): number {
	const colon = address.lastIndexOf(":");
	return colon < 0 ? 0 : Number(address.slice(colon + 1));
}

export const CLIENTS: View<ClientRow> = {
	fields: [
		int("id", (c) => c.id),
		textColumn("user", (c) => c.user),
		textColumn("database", (c) => c.database),
		textColumn("addr", (c) => hostOf(c.address)),
		int("port", (c) => port(c.address)),
		textColumn("state", (c) => c.state),
		textColumn("replication", () => "none"),
		time("connect_time", (c) => c.connected_at),
		time("last_request", (c) => c.last_request_at),
		int("queries", (c) => c.queries),
		int("transactions", (c) => c.transactions),
		int("transactions_2pc", () => null),
		float("wait_time", (c) => c.wait_time),
		float("query_time", (c) => c.query_time),
		float("transaction_time", (c) => c.transaction_time),
		int("bytes_received", (c) => c.bytes_received),
		int("bytes_sent", (c) => c.bytes_sent),
		int("errors", (c) => c.errors),
		textColumn("application_name", (c) => c.application_name),
		bool("locked", (c) => c.locked),
		int("prepared_statements", (c) => c.prepared_statements),
		// Ours, not PgDog's.
		textColumn("tls", (c) => c.tls),
	],
	items: (source) => source.clients(),
};

export type PlacedServer = ServerRow & { readonly place: PoolPlace; readonly pool_id: number | null };

export const SERVERS: View<PlacedServer> = {
	fields: [
		int("pool_id", (s) => s.pool_id),
		...PLACE,
		textColumn("state", (s) => s.state),
		time("connect_time", (s) => s.connected_at),
		time("request_time", (s) => s.request_at),
		int("remote_pid", (s) => s.remote_pid),
		int("client_id", (s) => s.client_id),
		int("transactions", (s) => s.transactions),
		int("queries", (s) => s.queries),
		int("rollbacks", (s) => s.rollbacks),
		int("prepared_statements", (s) => s.prepared_statements),
		int("healthchecks", (s) => s.healthchecks),
		int("errors", (s) => s.errors),
		int("bytes_received", (s) => s.bytes_received),
		int("bytes_sent", (s) => s.bytes_sent),
		time("last_sent", (s) => s.last_sent_at),
		time("last_received", (s) => s.last_received_at),
		int("age", (s) => Math.max(0, now() - s.connected_at) / 1000),
		textColumn("application_name", (s) => s.application_name),
	],
	async items(source) {
		const rows = await source.servers();
		const place = poolPlaces(source.snapshot());
		const ids = new Map(source.pools().map(({ key, id }) => [key, id]));
		return rows.map((row) => ({ ...row, place: place(row.pool), pool_id: ids.get(row.pool) ?? null }));
	},
};

export interface PlacedPool extends PoolRow {
	readonly place: PoolPlace;
	readonly averages: Float64Array;
	/** How long the client that waits longest has waited, in µs. */
	readonly maxwait: number;
}

export function placedPools(source: AdminSource): PlacedPool[] {
	const place = poolPlaces(source.snapshot());
	const time = now();
	return source.pools().map((pool) => {
		const since = pool.counters[Stat.oldest_wait]!;
		return {
			...pool,
			place: place(pool.key),
			averages: source.averages.of(pool.key),
			maxwait: since > 0 ? Math.max(0, Math.trunc((time - since) * 1000)) : 0,
		};
	});
}

const counter = (name: string, stat: Stat): Field<PoolRow> => int(name, ({ counters }) => counters[stat]!);

export const POOLS: View<PlacedPool> = {
	fields: [
		int("id", (p) => p.id),
		...PLACE,
		...SHARD_AND_ROLE,
		counter("cl_waiting", Stat.cl_waiting),
		counter("sv_idle", Stat.sv_idle),
		counter("sv_active", Stat.sv_active),
		counter("sv_idle_xact", Stat.sv_idle_xact),
		int("sv_total", (p) => p.servers),
		int("maxwait", (p) => p.maxwait / 1e6),
		int("maxwait_us", (p) => p.maxwait % 1e6),
		textColumn("pool_mode", ({ place }) => place.pool_mode),
		bool("paused", (p) => p.paused),
		bool("banned", ({ vitals }) => vitals.ban !== null),
		bool("healthy", ({ vitals }) => vitals.healthy),
		counter("errors", Stat.errors),
		counter("re_synced", Stat.re_synced),
		int("out_of_sync", () => 0),
		counter("force_closed", Stat.force_closed),
		bool("online", ({ place }) => place.online),
		bool("schema_admin", () => false),
	],
	items: placedPools,
};

export const BANS: View<PlacedPool> = {
	fields: [
		int("id", (p) => p.id),
		...PLACE,
		...SHARD_AND_ROLE,
		textColumn("ban_reason", ({ vitals }) => vitals.ban),
		// NULL rather than 0 for one that never ends by itself: 0 reads as "now".
		int("ban_time_left", ({ vitals }) => vitals.ban_time_left || null),
	],
	items: (source) => placedPools(source).filter(({ vitals }) => vitals.ban !== null),
};

/** Null for a server whose replication was never asked about: its figures mean nothing. */
function asked({ vitals }: PlacedPool): PoolVitals | null {
	return vitals.lsn_at > 0 ? vitals : null;
}

export const REPLICATION: View<PlacedPool> = {
	fields: [
		int("id", (p) => p.id),
		...PLACE,
		...SHARD_AND_ROLE,
		int("replica_lag", (p) => asked(p)?.lag ?? null),
		textColumn("pg_lsn", (p) => asked(p)?.lsn ?? null),
		int("lsn_age", (p) => (asked(p) === null ? null : Math.max(0, now() - p.vitals.lsn_at))),
		bool("pg_is_in_recovery", (p) => asked(p)?.in_recovery ?? null),
	],
	items: placedPools,
};

export const ROUTES: View<RouteRow> = {
	fields: [
		time("time", (r) => r.time),
		int("client_id", (r) => r.client_id),
		textColumn("user", (r) => r.user),
		textColumn("database", (r) => r.database),
		textColumn("query", (r) => r.query),
		textColumn("decided_by", (r) => r.decided_by),
		textColumn("shard", (r) => r.shard),
		textColumn("side", (r) => r.side),
		textColumn("server", (r) => r.server),
		float("wait", (r) => r.wait),
		textColumn("error", (r) => r.error),
	],
	items: (source) => source.routes(),
};

export const TRANSACTIONS: View<TransactionRow> = {
	fields: [
		textColumn("database", (t) => t.database),
		textColumn("user", (t) => t.user),
		textColumn("transaction_name", (t) => t.name),
		textColumn("transaction_state", (t) => t.state),
		// Ours, not PgDog's.
		textColumn("shards", (t) => t.shards),
		float("age", (t) => t.age),
	],
	items: (source) => source.recovery.rows(),
};

export const LISTENERS: View<ListenerRow> = {
	fields: [
		textColumn("database", (l) => l.database),
		textColumn("user", (l) => l.user),
		int("shard", (l) => l.shard),
		textColumn("channel", (l) => l.channel),
		int("listeners", (l) => l.listeners),
		int("received", (l) => l.received),
		int("dropped", (l) => l.dropped),
	],
	items: async (source) => mergeListeners(await source.channels()),
};

/** X of the columns total_X and avg_X; undefined: we do not count it yet. */
const STATS_COLUMNS: readonly (readonly [name: string, stat: Stat | undefined])[] = [
	["xact_count", Stat.xact_count],
	["xact_2pc_count", undefined],
	["query_count", Stat.query_count],
	["server_assignment_count", Stat.server_assignment_count],
	["received", Stat.received],
	["sent", Stat.sent],
	["xact_time", Stat.xact_time],
	["idle_xact_time", Stat.idle_xact_time],
	["query_time", Stat.query_time],
	["wait_time", Stat.wait_time],
	["server_parse_count", Stat.parse_count],
	["bind_count", Stat.bind_count],
	["close_count", Stat.close_count],
	["errors", Stat.errors],
	["cleaned", Stat.cleaned],
	["rollbacks", Stat.rollbacks],
	["connect_time", Stat.connect_time],
	["connect_count", Stat.connect_count],
	["reads", undefined],
	["writes", undefined],
	["auth_attempts", Stat.auth_attempts],
	["rows_inserted", undefined],
	["rows_updated", undefined],
	["rows_deleted", undefined],
];

function statsFields(prefix: string, row: (pool: PlacedPool) => Float64Array): Field<PlacedPool>[] {
	return STATS_COLUMNS.map(([name, stat]) => {
		const kind = name.endsWith("_time") ? float : int;
		// NULL where it is not counted: a 0 on a dashboard would say that nothing is written.
		return kind(`${prefix}_${name}`, (pool: PlacedPool) => (stat === undefined ? null : row(pool)[stat]!));
	});
}

export const STATS: View<PlacedPool> = {
	fields: [
		...PLACE,
		...SHARD_AND_ROLE,
		...statsFields("total", ({ counters }) => counters),
		...statsFields("avg", ({ averages }) => averages),
	],
	items: placedPools,
};

export type ConfigRow = Shown;

export const CONFIG: View<ConfigRow> = {
	fields: [textColumn("name", ({ name }) => name), textColumn("value", ({ value }) => value)],
	items: (source) => showConfig(source.snapshot()),
};

export const VERSION: View<string> = {
	fields: [textColumn("version", (version) => version)],
	items: (source) => [source.version],
};
