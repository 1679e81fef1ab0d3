// What SHOW answers where [admin] calls the admin database "pgbouncer": the rows and columns of PgBouncer's manual ("Show
// commands"), for exporters and agents that were made for it. They take a second row of the same labels for an error, so there
// is one row for each database (SHOW STATS) or database and user (SHOW POOLS), whichever servers are behind it.

import { now } from "../clock.ts";
import { databasesInUse } from "../config/resolve.ts";
import { isSocketFolder } from "../net/unix.ts";
import { Stat } from "../stats/counters.ts";
import type { ClientRow } from "../status/rows.ts";
import { type Field, int, textColumn } from "./command.ts";
import {
	CLIENTS,
	CONFIG,
	type ConfigRow,
	type PlacedPool,
	type PlacedServer,
	placedPools,
	SERVERS,
	type View,
} from "./show.ts";
import type { AdminSource } from "./source.ts";

/** `2026-01-31 22:59:59 UTC`, as strftime's "%Y-%m-%d %H:%M:%S %Z" prints it and strptime reads it. */
export function utc(ms: number): string | null {
	return ms > 0 ? `${new Date(ms).toISOString().slice(0, 19).replace("T", " ")} UTC` : null;
}

const when = <T>(name: string, value: (item: T) => number): Field<T> => textColumn(name, (item) => utc(value(item)));

/** PgBouncer's columns, and then those of PgDog that have other names. */
function extended<T>(fields: readonly Field<T>[], view: View<T>): View<T> {
	const names = new Set(fields.map(({ name }) => name));
	return { fields: [...fields, ...view.fields.filter(({ name }) => !names.has(name))], items: view.items };
}

/** How long a client has waited for a server until now, µs. */
function waiting({ state, last_request_at }: ClientRow): number {
	return state === "waiting" ? Math.max(0, Math.trunc((now() - last_request_at) * 1000)) : 0;
}

export const BOUNCER_CLIENTS = extended<ClientRow>(
	[
		textColumn("type", () => "C"),
		textColumn("user", (c) => c.user),
		textColumn("database", (c) => c.database),
		textColumn("state", (c) => c.state),
		when("connect_time", (c) => c.connected_at),
		when("request_time", (c) => c.last_request_at),
		when("last_request", (c) => c.last_request_at),
		int("wait", (c) => waiting(c) / 1e6),
		int("wait_us", (c) => waiting(c) % 1e6),
		int("close_needed", () => 0),
		textColumn("ptr", (c) => `c${c.id}`),
		textColumn("tls", (c) => c.tls),
	],
	CLIENTS,
);

export const BOUNCER_SERVERS = extended<PlacedServer>(
	[
		textColumn("type", () => "S"),
		textColumn("user", (s) => s.place.user),
		textColumn("database", (s) => s.place.database),
		textColumn("addr", ({ place }) => (isSocketFolder(place.host) ? "unix" : place.host)),
		textColumn("state", (s) => s.state),
		when("connect_time", (s) => s.connected_at),
		when("request_time", (s) => s.request_at),
		when("last_sent", (s) => s.last_sent_at),
		when("last_received", (s) => s.last_received_at),
		textColumn("ptr", (s) => `s${s.remote_pid}`),
		textColumn("link", (s) => (s.client_id === null ? "" : `c${s.client_id}`)),
		textColumn("tls", (s) => s.tls),
	],
	SERVERS,
);

export const BOUNCER_CONFIG: View<ConfigRow> = {
	fields: [
		textColumn("key", ({ name }) => name),
		textColumn("value", ({ value }) => value),
		textColumn("default", ({ byDefault }) => byDefault),
		textColumn("changeable", ({ reloadable }) => (reloadable ? "yes" : "no")),
	],
	items: CONFIG.items,
};

/** The pools and clients that one row is about. */
interface Group {
	readonly database: string;
	readonly user: string;
	readonly pools: readonly PlacedPool[];
	readonly clients: readonly ClientRow[];
}

function grouped(source: AdminSource, clients: readonly ClientRow[], byUser: boolean): Group[] {
	const of = (database: string, user: string) => JSON.stringify(byUser ? [database, user] : [database]);
	const pools = Map.groupBy(placedPools(source), ({ place }) => of(place.database, place.user));
	const theirs = Map.groupBy(clients, (client) => of(client.database, client.user));
	return [...pools].map(([key, members]) => {
		const { database, user } = members[0]!.place;
		return { database, user, pools: members, clients: theirs.get(key) ?? [] };
	});
}

const sum = <T>(items: readonly T[], value: (item: T) => number): number =>
	items.reduce((total, item) => total + value(item), 0);

const total = (group: Group, stat: Stat): number => sum(group.pools, ({ counters }) => counters[stat]!);
const average = (group: Group, stat: Stat): number => sum(group.pools, ({ averages }) => averages[stat]!);

/** Servers that are linked to a client: PgBouncer calls them active, too, between the statements of a transaction. */
const active = ({ counters }: PlacedPool): number => counters[Stat.sv_active]! + counters[Stat.sv_idle_xact]!;

export const BOUNCER_POOLS: View<Group> = {
	fields: [
		textColumn("database", ({ database }) => database),
		textColumn("user", ({ user }) => user),
		int("cl_active", ({ clients }) => sum(clients, ({ state }) => (state === "waiting" ? 0 : 1))),
		int("cl_waiting", (g) => total(g, Stat.cl_waiting)),
		int("cl_active_cancel_req", () => 0),
		int("cl_waiting_cancel_req", () => 0),
		int("sv_active", ({ pools }) => sum(pools, active)),
		int("sv_active_cancel", () => 0),
		int("sv_being_canceled", () => 0),
		int("sv_idle", (g) => total(g, Stat.sv_idle)),
		// Servers that are to be checked, or being checked, are not told from idle ones.
		int("sv_used", () => 0),
		int("sv_tested", () => 0),
		int("sv_login", ({ pools }) =>
			sum(pools, (pool) => Math.max(0, pool.servers - active(pool) - pool.counters[Stat.sv_idle]!)),
		),
		int("maxwait", ({ pools }) => Math.max(...pools.map(({ maxwait }) => maxwait)) / 1e6),
		int("maxwait_us", ({ pools }) => Math.max(...pools.map(({ maxwait }) => maxwait)) % 1e6),
		textColumn("pool_mode", ({ pools }) => pools[0]!.place.pool_mode),
	],
	items: async (source) => grouped(source, await source.clients(), true),
};

/** A figure of SHOW STATS: PgBouncer's words for it, and how to come by its total and its average. */
interface Figure {
	/** Column name behind `total_` and `avg_`, and alone in SHOW STATS_TOTALS and SHOW STATS_AVERAGES (but see `average`, `bare`). */
	readonly name: string;
	readonly average?: string;
	readonly bare?: string;
	readonly stat: Stat;
	/** For a time, which is shown in µs: what its average is taken over. */
	readonly over?: Stat;
}

const FIGURES: readonly Figure[] = [
	{ name: "server_assignment_count", stat: Stat.server_assignment_count },
	{ name: "xact_count", stat: Stat.xact_count },
	{ name: "query_count", stat: Stat.query_count },
	{ name: "received", average: "recv", bare: "bytes_received", stat: Stat.received },
	{ name: "sent", bare: "bytes_sent", stat: Stat.sent },
	{ name: "xact_time", stat: Stat.xact_time, over: Stat.xact_count },
	{ name: "query_time", stat: Stat.query_time, over: Stat.query_count },
	{ name: "wait_time", stat: Stat.wait_time, over: Stat.server_assignment_count },
	{ name: "client_parse_count", stat: Stat.parse_count },
	{ name: "bind_count", stat: Stat.bind_count },
];

/** Times in µs: ours are in ms. */
function totalOf(group: Group, { stat, over }: Figure): number {
	return total(group, stat) * (over === undefined ? 1 : 1000);
}

function averageOf(group: Group, { stat, over }: Figure): number {
	if (over === undefined) return average(group, stat);
	// A pool's average counts by how many items (`over`) it is taken over.
	const weight = average(group, over);
	return weight > 0 ? (sum(group.pools, ({ averages }) => averages[stat]! * averages[over]!) / weight) * 1000 : 0;
}

function stats(fields: readonly Field<Group>[]): View<Group> {
	return {
		fields: [textColumn("database", ({ database }) => database), ...fields],
		items: (source) => grouped(source, [], false),
	};
}

export const BOUNCER_STATS = stats([
	...FIGURES.map((figure) => int(`total_${figure.name}`, (g: Group) => totalOf(g, figure))),
	...FIGURES.map((figure) => int(`avg_${figure.average ?? figure.name}`, (g: Group) => averageOf(g, figure))),
]);
const bare = (of: typeof totalOf) =>
	stats(FIGURES.map((figure) => int(figure.bare ?? figure.name, (g: Group) => of(g, figure))));
export const BOUNCER_TOTALS = bare(totalOf);
export const BOUNCER_AVERAGES = bare(averageOf);

interface DatabaseEntry {
	readonly name: string;
	readonly host: string;
	readonly port: number;
	readonly database: string;
	readonly force_user: string | null;
	readonly pool_size: number;
	readonly min_pool_size: number;
	readonly reserve_pool_size: number;
	readonly max_db_connections: number;
	readonly pool_mode: string;
	readonly pools: readonly PlacedPool[];
}

export const BOUNCER_DATABASES: View<DatabaseEntry> = {
	fields: [
		textColumn("name", (d) => d.name),
		textColumn("host", (d) => d.host),
		int("port", (d) => d.port),
		textColumn("database", (d) => d.database),
		textColumn("force_user", (d) => d.force_user),
		int("pool_size", (d) => d.pool_size),
		int("min_pool_size", (d) => d.min_pool_size),
		int("reserve_pool_size", (d) => d.reserve_pool_size),
		textColumn("pool_mode", (d) => d.pool_mode),
		// 0: there is no limit.
		int("max_connections", (d) => (d.max_db_connections === Number.MAX_SAFE_INTEGER ? 0 : d.max_db_connections)),
		int("current_connections", ({ pools }) => sum(pools, ({ servers }) => servers)),
		bool01("paused", ({ pools }) => pools.length > 0 && pools.every(({ paused }) => paused)),
		bool01("disabled", () => false),
	],
	items(source) {
		const snapshot = source.snapshot();
		const { general } = snapshot;
		const pools = placedPools(source);
		return databasesInUse(snapshot).map(({ name, host, port, shard, database_name, user, ...settings }) => ({
			name,
			host,
			port,
			database: database_name,
			force_user: user ?? null,
			pool_size: settings.pool_size ?? general.default_pool_size,
			min_pool_size: settings.min_pool_size ?? general.min_pool_size,
			reserve_pool_size: settings.reserve_pool_size ?? general.reserve_pool_size,
			max_db_connections: settings.max_db_connections ?? general.max_db_connections,
			pool_mode: settings.pooler_mode ?? general.pooler_mode,
			pools: pools.filter(
				({ place }) => place.database === name && place.host === host && place.port === port && place.shard === shard,
			),
		}));
	},
};

function bool01<T>(name: string, value: (item: T) => boolean): Field<T> {
	return int(name, (item) => (value(item) ? 1 : 0));
}

export const BOUNCER_USERS: View<{ readonly name: string; readonly pool_mode: string | null }> = {
	fields: [textColumn("name", ({ name }) => name), textColumn("pool_mode", ({ pool_mode }) => pool_mode)],
	items(source) {
		const byName = Map.groupBy(source.snapshot().users, ({ name }) => name);
		return [...byName].map(([name, users]) => ({ name, pool_mode: users[0]!.pooler_mode ?? null }));
	},
};

type Counted = readonly [list: string, items: number];

/** What SHOW LISTS counts, by PgBouncer's names; PgDog has them as columns. */
export async function lists(source: AdminSource): Promise<Counted[]> {
	const snapshot = source.snapshot();
	const { users } = snapshot;
	const pools = placedPools(source);
	const clients = await source.clients();
	return [
		["databases", new Set(databasesInUse(snapshot).map(({ name }) => name)).size],
		["users", new Set(users.map(({ name }) => name)).size],
		["pools", pools.length],
		["free_clients", 0],
		["used_clients", clients.length],
		["free_servers", sum(pools, ({ counters }) => counters[Stat.sv_idle]!)],
		["used_servers", sum(pools, active)],
	];
}

export const BOUNCER_LISTS: View<Counted> = {
	fields: [textColumn("list", ([list]) => list), int("items", ([, items]) => items)],
	items: lists,
};

/** The product's own version comes first: agents take the first number for it, and the long form begins with rustc's. */
export const BOUNCER_VERSION: View<string> = {
	fields: [textColumn("version", (version) => version)],
	items({ version }) {
		const number = /, version (\d+(?:\.\d+)+)/.exec(version)?.[1] ?? "0.0.0";
		return [`PgDog ${number}, ${version.replace(/^PgDog /, "").replace(/, version [\d.]+/, "")}`];
	},
};
