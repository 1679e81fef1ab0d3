// Which pools have one database behind them, and so one catalogue: pools of several users, under several names, of its primary
// and its replicas. DDL that one of them has seen concerns all. Each thread finds it out for itself, and finds the same.

import type { ClusterSpec, PoolSpec } from "../config/snapshot.ts";
import type { Ledger } from "./ledger.ts";

/** The row of each pool in shared memory, by `PoolSpec.key`. */
export type Slots = Pick<ReadonlyMap<string, number>, "get">;

/** What is told its database's place. */
interface Placed {
	readonly slot: number;
	database: number;
}

/** Of a pool that was not told yet. It may be back in its row, with the number of before. */
export const NO_PLACE = -1;

/** @returns by `PoolSpec.key`: the smallest slot among the pools of the same database */
export function databasesOf(clusters: readonly ClusterSpec[], slots: Slots): ReadonlyMap<string, number> {
	const parents = new Map<string, string>();
	const root = (address: string): string => {
		let at = address;
		for (let up = parents.get(at); up !== undefined; up = parents.get(at)) at = up;
		return at;
	};
	for (const { pools } of clusters) {
		for (const specs of Map.groupBy(pools, ({ shard }) => shard).values()) {
			const first = root(databaseAt(specs[0]!));
			for (const spec of specs) {
				const other = root(databaseAt(spec));
				if (other !== first) parents.set(other, first);
			}
		}
	}
	const least = new Map<string, number>();
	const all = clusters.flatMap(({ pools }) => pools);
	for (const spec of all) {
		const at = root(databaseAt(spec));
		least.set(at, Math.min(least.get(at) ?? Number.POSITIVE_INFINITY, slots.get(spec.key)!));
	}
	return new Map(all.map((spec) => [spec.key, least.get(root(databaseAt(spec)))!]));
}

/**
 * Tells pools where their database has its place. What was parsed by the number of a place that it comes back to would pass for fresh,
 * whatever happened meanwhile elsewhere.
 */
export function placeDatabases(
	clusters: readonly ClusterSpec[],
	pools: ReadonlyMap<string, Placed>,
	ledger: Pick<Ledger, "catalogueChanged">,
): void {
	const slots = { get: (key: string) => pools.get(key)?.slot };
	for (const [key, database] of databasesOf(clusters, slots)) {
		const pool = pools.get(key)!;
		if (database === pool.slot && database !== pool.database) ledger.catalogueChanged(database);
		pool.database = database;
	}
}

/** The same for pools of one database of one server. */
export function databaseAt({ host, port, database_name }: PoolSpec): string {
	return JSON.stringify([host, port, database_name]);
}
