// From databases and users to what the pools need: who may use which database, with which credentials and which sizes,
// the user's settings over the database's over the general ones. Called by load.ts; reads no file and no environment.

import { roleKeys } from "./cluster.ts";
import { joinKey } from "./locate.ts";
import type { Findings, ValueSource } from "./problem.ts";
import type { Values } from "./setting.ts";
import type { General, user as userSettings } from "./settings.ts";
import {
	type ClusterSpec,
	type Database,
	type PoolSpec,
	type Role,
	type Snapshot,
	TwoPhase,
	type User,
	WILDCARD,
} from "./snapshot.ts";

/** An entry of `[[users]]` as it stands in the file, with its place there. */
export interface UserRow {
	readonly at: string;
	readonly values: Partial<Values<typeof userSettings>>;
	/** What the files hold that it names for servers. */
	readonly server_certificate?: User["server_certificate"];
}

/**
 * One `User` per database that a row names. Users without any password are left out: nobody may log in as them, not even
 * with `trust`; unless their passwords come from them (`mayPass`). An explicit database wins over `all_databases`; of two rows for the same user and database the last counts.
 */
export function expandUsers(
	rows: readonly UserRow[],
	databases: readonly Database[],
	source: ValueSource,
	report: Findings,
	mayPass = false,
): User[] {
	const known = new Set(databases.map(({ name }) => name));
	const isThere = (name: string) => known.has(name) || known.has(WILDCARD);
	const users = new Map<string, { user: User; explicit: boolean }>();
	for (const { at, values, server_certificate } of rows) {
		const { name, database, databases: several, all_databases, password, passwords, ...rest } = values;
		if (name === undefined) continue;
		const secrets = [...new Set([password, ...(passwords ?? [])])].filter((each): each is string => !!each);
		if (!mayPass && !isSecured({ ...rest, passwords: secrets })) {
			report.warn(source, at, `user "${name}" has no password: it gets no pool and cannot log in`);
			continue;
		}
		const named = new Set([...(database === undefined ? [] : [database]), ...(several ?? [])]);
		if (named.size === 0 && !all_databases) {
			report.warn(source, at, `user "${name}" names no database: it gets no pool and cannot log in`);
			continue;
		}
		const auto = databases.find((each) => each.role === "auto" && (all_databases || named.has(each.name)));
		if (auto !== undefined) {
			for (const key of roleKeys(rest)) {
				const text = `user "${name}": ${key} has no effect for database "${auto.name}", whose servers have role = "auto"`;
				report.warn(source, joinKey(at, key), text);
			}
		}
		for (const each of named) {
			if (!isThere(each)) {
				report.warn(source, at, `user "${name}" names database "${each}", which no [[databases]] entry defines`);
			}
		}
		for (const each of new Set([...named, ...(all_databases ? known : [])])) {
			if (!isThere(each)) continue;
			const explicit = named.has(each);
			const key = JSON.stringify([name, each]);
			const other = users.get(key);
			if (other?.explicit && !explicit) continue;
			if (other?.explicit === explicit) {
				report.warn(source, at, `user "${name}" and database "${each}" stand here again: the last one counts`);
			}
			const user: User = { ...rest, name, database: each, passwords: secrets, server_certificate };
			users.set(key, { user, explicit });
		}
	}
	return [...users.values()].map(({ user }) => user);
}

/** One cluster for each `User`, that is for each user and database, in their order. */
export function clusters(
	{ general, databases, admin, sharding }: Pick<Snapshot, "general" | "databases" | "admin" | "sharding">,
	users: readonly User[],
	warnings: string[],
): ClusterSpec[] {
	const used = new Set(users.map(({ database }) => database));
	const byName = Map.groupBy(databases, ({ name }) => name);
	for (const { name } of databases) {
		if (!used.has(name) && !asks(general)) {
			warnings.push(`database "${name}" has no user: it gets no pool, and nobody can connect to it`);
		}
	}
	const all = users.flatMap((user) => {
		if (user.database === WILDCARD) return [];
		if (user.database === admin.name && user.name === admin.user) {
			warnings.push(`user "${user.name}" of database "${user.database}" is out of reach: [admin] has the same names`);
		}
		// Sorting keeps the order of the file inside a shard.
		const members = (byName.get(user.database) ?? membersOf({ databases, admin }, user.database)).toSorted(
			(a, b) => a.shard - b.shard,
		);
		const pools = members.map((database) => pool(general, database, user, warnings));
		const readOnly = user.read_only ?? members.every((database) => database.read_only === true);
		const max_client_connections = least(members.map((database) => database.max_client_connections));
		const placing = sharding.get(user.database) ?? null;
		const twoPhase = twoPhaseOf(general, user, pools);
		const { database } = user;
		return [{ user, database, twoPhase, readOnly, max_client_connections, sharding: placing, pools }];
	});
	const { reserve_pool_timeout, checkout_timeout } = general;
	if (
		reserve_pool_timeout >= checkout_timeout &&
		all.some(({ pools }) => pools.some((each) => each.reserve_pool_size > 0))
	)
		warnings.push(
			`reserve_pool_timeout ${reserve_pool_timeout} is not below checkout_timeout ${checkout_timeout}: no client waits long enough for the reserve`,
		);
	return all;
}

/** Bits of `TwoPhase`: the user's settings over the general ones, where there is more than one shard. */
function twoPhaseOf(general: General, user: User, pools: readonly PoolSpec[]): number {
	if (pools.every(({ shard }) => shard === pools[0]!.shard)) return TwoPhase.Off;
	const transactions = user.two_phase_commit ?? general.two_phase_commit;
	const statements = user.two_phase_commit_auto ?? general.two_phase_commit_auto;
	return (transactions ? TwoPhase.Transactions : 0) | (statements ? TwoPhase.Statements : 0);
}

/** Whether servers are asked for users whom the configuration does not have. */
function asks({ auth_query_user, passthrough_auth }: General): boolean {
	return auth_query_user !== undefined || passthrough_auth !== "disabled";
}

/** Whether clients may log in to what the configuration does not name. */
export function learns({ general, databases }: Pick<Snapshot, "general" | "databases">): boolean {
	return asks(general) || hasWildcard(databases);
}

export function hasWildcard(databases: readonly Database[]): boolean {
	return databases.some(({ name }) => name === WILDCARD);
}

/** Longest name of a database or a user, bytes: PostgreSQL cuts off what is behind, so longer ones are others' names. */
const MAX_NAME = 63;

export function isTooLong(name: string): boolean {
	return Buffer.byteLength(name) > MAX_NAME;
}

/** The entries behind a database that a client names: its own, or else those for any (`WILDCARD`), as if they had its name. */
export function membersOf({ databases, admin }: Pick<Snapshot, "databases" | "admin">, name: string): Database[] {
	const own = databases.filter((each) => each.name === name && name !== WILDCARD);
	if (own.length > 0 || name === WILDCARD || name === admin.name || isTooLong(name)) return own;
	const any = databases.filter((each) => each.name === WILDCARD);
	return any.map((each) => ({
		...each,
		name,
		database_name: each.database_name === WILDCARD ? name : each.database_name,
	}));
}

/** The entries that the configuration names, and those by wildcard whose databases have pools. */
export function databasesInUse(snapshot: Pick<Snapshot, "databases" | "admin" | "clusters">): Database[] {
	const named = snapshot.databases.filter(({ name }) => name !== WILDCARD);
	if (named.length === snapshot.databases.length) return named;
	const others = new Set(snapshot.clusters.map(({ database }) => database));
	for (const { name } of named) others.delete(name);
	return [...named, ...[...others].flatMap((name) => membersOf(snapshot, name))];
}

/** Whether it is a database by wildcard. */
export function isWild({ databases }: Pick<Snapshot, "databases">, name: string): boolean {
	return !databases.some((each) => each.name === name && name !== WILDCARD);
}

/** Whether something in the configuration lets it in. */
export function isSecured({ passwords, password_hash, identity }: Omit<User, "name" | "database">): boolean {
	return passwords.length > 0 || password_hash !== undefined || identity !== undefined;
}

/** The least of the numbers that are given. */
function least(numbers: readonly (number | undefined)[]): number | undefined {
	const given = numbers.filter((number) => number !== undefined);
	return given.length === 0 ? undefined : Math.min(...given);
}

function pool(general: General, database: Database, user: User, warnings: string[]): PoolSpec {
	const { name, shard, role, host, port } = database;
	const key = `${user.name}@${name}/${shard}/${role}/${host}:${port}`;
	const pool_size =
		ofRole(user, database, role, "pool_size") ?? user.pool_size ?? database.pool_size ?? general.default_pool_size;
	const min_pool_size =
		ofRole(user, database, role, "min_pool_size") ??
		user.min_pool_size ??
		database.min_pool_size ??
		general.min_pool_size;
	if (min_pool_size > pool_size) {
		warnings.push(`pool ${key}: min_pool_size ${min_pool_size} is above its size, ${pool_size} is used`);
	}
	const reserve_pool_size = user.reserve_pool_size ?? database.reserve_pool_size ?? general.reserve_pool_size;
	const server_password = database.password || user.server_password;
	const { server_tls } = database;
	const { server_certificate } = user;
	return {
		key,
		user: user.name,
		database: name,
		host,
		port,
		shard,
		role,
		database_name: database.database_name,
		server_user: database.user ?? user.server_user ?? user.name,
		server_passwords: server_password ? [server_password] : user.passwords,
		server_verifier: server_password || user.passwords.length > 0 ? undefined : user.password_hash,
		server_tls: server_tls && server_certificate ? { ...server_tls, identity: server_certificate } : server_tls,
		pool_size,
		min_pool_size: Math.min(min_pool_size, pool_size),
		reserve_pool_size: general.reserve_pool_timeout === 0 ? 0 : reserve_pool_size,
		max_db_connections: database.max_db_connections ?? general.max_db_connections,
		max_user_connections: user.max_user_connections ?? general.max_user_connections,
		lb_weight: database.lb_weight,
		pooler_mode: user.pooler_mode ?? database.pooler_mode ?? general.pooler_mode,
		idle_timeout:
			ofRole(user, database, role, "idle_timeout") ??
			user.idle_timeout ??
			database.idle_timeout ??
			general.idle_timeout,
		server_lifetime: user.server_lifetime ?? database.server_lifetime ?? general.server_lifetime,
		server_lifetime_jitter:
			user.server_lifetime_jitter ?? database.server_lifetime_jitter ?? general.server_lifetime_jitter,
		startup: startup(database, user),
	};
}

/** The setting for the pool's role, the user's over the database's: it wins over those for any role. Undefined with `auto`. */
function ofRole(
	user: User,
	database: Database,
	role: Role,
	name: "pool_size" | "min_pool_size" | "idle_timeout",
): number | undefined {
	if (role === "auto") return undefined;
	return user[`${name}_${role}`] ?? database[`${name}_${role}`];
}

/** Parameters of the StartupMessage to a server beside user and database, as PgDog's. */
function startup(database: Database, user: User): Record<string, string> {
	const parameters: Record<string, string> = { application_name: "PgDog", client_encoding: "utf-8" };
	const statement_timeout = user.statement_timeout ?? database.statement_timeout;
	const lock_timeout = user.lock_timeout ?? database.lock_timeout;
	if (statement_timeout !== undefined) parameters.statement_timeout = String(statement_timeout);
	if (lock_timeout !== undefined) parameters.lock_timeout = String(lock_timeout);
	if (user.read_only ?? database.read_only) parameters.default_transaction_read_only = "on";
	return parameters;
}
