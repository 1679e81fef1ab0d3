// Which pool a row is about: counters and servers name their pool by its key, SHOW wants database, user and address. Its role
// is not a matter of place: with `role = "auto"` it changes.

import type { Snapshot } from "../config/snapshot.ts";
import type { PoolVitals } from "../status/rows.ts";
import { type Field, int, textColumn } from "./command.ts";

export interface PoolPlace {
	readonly database: string;
	readonly user: string;
	readonly host: string;
	readonly port: number;
	readonly shard: number;
	/** Empty when the pool left the configuration. */
	readonly pool_mode: string;
	/** The pool is part of the configuration; if not, its last servers are still to be closed. */
	readonly online: boolean;
}

const KEY = /^(.*?)@(.*?)\/(\d+)\/(?:primary|replica|auto)\/(.*):(\d+)$/s;

/** @returns the place of any key, also of a pool that a reload took away: its key still says where it was */
export function poolPlaces(snapshot: Snapshot): (key: string) => PoolPlace {
	const known = new Map<string, PoolPlace>();
	for (const { pools } of snapshot.clusters)
		for (const { key, database, user, host, port, shard, pooler_mode } of pools)
			known.set(key, { database, user, host, port, shard, pool_mode: pooler_mode, online: true });
	return (key) => {
		const found = known.get(key);
		if (found !== undefined) return found;
		const [, user = "", database = "", shard = "0", host = "", port = "0"] = KEY.exec(key) ?? [];
		return { database, user, host, port: Number(port), shard: Number(shard), pool_mode: "", online: false };
	};
}

export const PLACE: readonly Field<{ readonly place: PoolPlace }>[] = [
	textColumn("database", ({ place }) => place.database),
	textColumn("user", ({ place }) => place.user),
	textColumn("addr", ({ place }) => place.host),
	int("port", ({ place }) => place.port),
];

export const SHARD_AND_ROLE: readonly Field<{ readonly place: PoolPlace; readonly vitals: PoolVitals }>[] = [
	int("shard", ({ place }) => place.shard),
	textColumn("role", ({ vitals }) => vitals.role),
];
