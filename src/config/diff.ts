// What a reload changed, and what of it takes effect now. Called by proxy.ts; applies nothing itself.

import type { HbaEntry } from "./hba.ts";
import type { Peer } from "./peers.ts";
import { hasWildcard } from "./resolve.ts";
import type { Settings } from "./setting.ts";
import { type General, general, type Tcp, tcp } from "./settings.ts";
import { showValue } from "./show.ts";
import type { Admin, ClusterSpec, PoolSpec, Snapshot } from "./snapshot.ts";
import type { TlsFiles } from "./tls.ts";

export interface SettingChange {
	readonly table: "general" | "tcp";
	readonly name: string;
	/** As SHOW CONFIG prints them. */
	readonly before: string;
	readonly after: string;
	/** False: the old value stays until a restart. */
	readonly reloadable: boolean;
}

interface Changes<T> {
	readonly added: readonly T[];
	readonly removed: readonly T[];
	readonly changed: readonly { readonly before: T; readonly after: T }[];
}

export interface Difference {
	readonly settings: readonly SettingChange[];
	/** By `PoolSpec.key`: a pool of the same key may keep its servers. */
	readonly pools: Changes<PoolSpec>;
	/** By user and database: what clients log in with, and what they reach. A changed pool changes its cluster too. */
	readonly clusters: Changes<ClusterSpec>;
	readonly adminChanged: boolean;
	/** What clients are shown of TLS, and asked for, is something else, in the same files or in others. */
	readonly clientTlsChanged: boolean;
	/** As `clientTlsChanged`, of some servers: connections that were made by the old are replaced. */
	readonly serverTlsChanged: boolean;
	/** `[[plugins]]` says something else: plugins are loaded at the start only. */
	readonly pluginsChanged: boolean;
	/** `[[write_functions]]` says something else: what is cached of statements may be wrong. */
	readonly writeFunctionsChanged: boolean;
	readonly peersChanged: boolean;
	/** `[[hba]]` says something else, or stands elsewhere in the file. */
	readonly hbaChanged: boolean;
	/** Databases of which something else is said of sharded tables. */
	readonly shardingChanged: readonly string[];
	/** The snapshot to go on with: the new one, with the old values of what needs a restart. */
	readonly next: Snapshot;
}

/** What workers need of a difference: plain data, as large as the difference is. */
export interface Update {
	readonly general: General;
	readonly tcp: Tcp;
	readonly tls: TlsFiles;
	readonly admin: Admin;
	/** `general` says something else than before. */
	readonly generalChanged: boolean;
	readonly peers: readonly Peer[];
	/** `[[hba]]`; null: as before. */
	readonly hba: readonly HbaEntry[] | null;
	/** There is an entry of `[[databases]]` for any database (`WILDCARD`). */
	readonly wildcard: boolean;
	/** `[[write_functions]]`; null: as before. */
	readonly writeFunctions: readonly string[] | null;
	/** Clusters that are new, or say something else. */
	readonly clusters: readonly ClusterSpec[];
	/** Logins whose clusters are no more. */
	readonly gone: readonly LoginKey[];
}

/** User and database that clients log in to. */
export interface LoginKey {
	readonly user: string;
	readonly database: string;
}

/** For maps and sets of logins; no name of either has a NUL. */
export function loginKey(user: string, database: string): string {
	return `${user}\0${database}`;
}

export function updateOf({ next, settings, clusters, hbaChanged, writeFunctionsChanged }: Difference): Update {
	const { general, tcp, tls, admin, peers, hba, writeFunctions, databases } = next;
	return {
		general,
		tcp,
		tls,
		admin,
		peers,
		hba: hbaChanged ? hba : null,
		wildcard: hasWildcard(databases),
		generalChanged: settings.some(({ table }) => table === "general"),
		writeFunctions: writeFunctionsChanged ? writeFunctions : null,
		clusters: [...clusters.added, ...clusters.changed.map(({ after }) => after)],
		gone: clusters.removed.map(({ user, database }) => ({ user: user.name, database })),
	};
}

/** The whole configuration as an update, for a worker that starts. */
export function firstUpdate(snapshot: Snapshot): Update {
	const { general, tcp, tls, admin, peers, hba, writeFunctions, clusters } = snapshot;
	const wildcard = hasWildcard(snapshot.databases);
	return { general, tcp, tls, admin, peers, hba, wildcard, generalChanged: true, writeFunctions, clusters, gone: [] };
}

/** Compares two loads. `before` is what the process runs with, that is the `next` of the last reload. */
export function diff(before: Snapshot, after: Snapshot): Difference {
	const generalChanges = settingChanges("general", general, before.general, after.general);
	const tcpChanges = settingChanges("tcp", tcp, before.tcp, after.tcp);
	const pools = (snapshot: Snapshot): Map<string, PoolSpec> =>
		new Map(snapshot.clusters.flatMap((cluster) => cluster.pools.map((pool) => [pool.key, pool])));
	const byUser = (snapshot: Snapshot): Map<string, ClusterSpec> =>
		new Map(snapshot.clusters.map((cluster) => [JSON.stringify([cluster.user.name, cluster.database]), cluster]));
	const poolChanges = changes(pools(before), pools(after));
	return {
		settings: [...generalChanges, ...tcpChanges],
		pools: poolChanges,
		clusters: changes(byUser(before), byUser(after)),
		adminChanged: !same(before.admin, after.admin),
		clientTlsChanged: !same(before.tls.clients, after.tls.clients),
		serverTlsChanged: poolChanges.changed.some((pool) => !same(pool.before.server_tls, pool.after.server_tls)),
		pluginsChanged: !same(before.plugins, after.plugins),
		writeFunctionsChanged: !same(before.writeFunctions.toSorted(), after.writeFunctions.toSorted()),
		peersChanged: !same(before.peers, after.peers),
		hbaChanged: !same(before.hba, after.hba),
		shardingChanged: [...new Set([...before.sharding.keys(), ...after.sharding.keys()])].filter(
			(name) => !same(before.sharding.get(name), after.sharding.get(name)),
		),
		next: Object.freeze({
			...after,
			plugins: before.plugins,
			general: heldBack(before.general, after.general, generalChanges),
			tcp: heldBack(before.tcp, after.tcp, tcpChanges),
		}),
	};
}

/** One line for the log. */
export function settingChangeText(change: SettingChange): string {
	const name = change.table === "general" ? change.name : `${change.table}_${change.name}`;
	const when = change.reloadable ? "" : " (takes effect after a restart)";
	return `${name}: ${change.before} -> ${change.after}${when}`;
}

function settingChanges(
	table: SettingChange["table"],
	settings: Settings,
	before: Readonly<Record<string, unknown>>,
	after: Readonly<Record<string, unknown>>,
): SettingChange[] {
	return Object.entries(settings).flatMap(([name, setting]) =>
		before[name] === after[name]
			? []
			: [
					{
						table,
						name,
						before: showValue(setting, before[name]),
						after: showValue(setting, after[name]),
						reloadable: setting.reloadable,
					},
				],
	);
}

function heldBack<T extends object>(before: T, after: T, changes: readonly SettingChange[]): T {
	const held = changes.filter(({ reloadable }) => !reloadable).map(({ name }) => [name, before[name as keyof T]]);
	return Object.freeze({ ...after, ...Object.fromEntries(held) });
}

function changes<T>(before: ReadonlyMap<string, T>, after: ReadonlyMap<string, T>): Changes<T> {
	return {
		added: [...after].filter(([key]) => !before.has(key)).map(([, value]) => value),
		removed: [...before].filter(([key]) => !after.has(key)).map(([, value]) => value),
		changed: [...after].flatMap(([key, value]) => {
			const old = before.get(key);
			return old === undefined || same(old, value) ? [] : [{ before: old, after: value }];
		}),
	};
}

/** Whether plain data is the same; a key that is undefined and one that is absent mean the same. */
function same(a: unknown, b: unknown): boolean {
	return Bun.deepEquals(a, b);
}
