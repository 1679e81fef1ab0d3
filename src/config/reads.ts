// Warns of settings about reads and replicas that come to nothing with the servers that there are. Called by load.ts when
// all else is in order.

import { type DatabaseRow, key } from "./cluster.ts";
import type { Findings, ValueSource } from "./problem.ts";
import { MAX } from "./setting.ts";
import type { General } from "./settings.ts";

export interface ConfigRows {
	readonly rows: readonly DatabaseRow[];
	readonly source: ValueSource;
}

export function checkReads(
	databases: ConfigRows,
	{ general, source }: { readonly general: General; readonly source: ValueSource },
	report: Findings,
): void {
	for (const [name, members] of Map.groupBy(databases.rows, ({ database }) => database.name)) {
		for (const [shard, servers] of Map.groupBy(members, ({ database }) => database.shard)) {
			const where = `database ${JSON.stringify(name)}`;
			if (general.read_write_split === "exclude_primary" && !mayHaveReplicas(servers)) {
				const text = `${where} has no replica of shard ${shard}: its primary is read from, in spite of read_write_split = "exclude_primary"`;
				report.warn(databases.source, servers[0]!.at, text);
			}
			if (general.load_balancing_strategy !== "weighted_round_robin") continue;
			if (servers.length > 1 && servers.every(({ database }) => database.lb_weight === 0)) {
				const text = `${where}: all servers of shard ${shard} have lb_weight = 0: reads are shared out evenly`;
				report.warn(databases.source, key(servers[0]!, "lb_weight"), text);
			}
		}
		const weighted = members.find(({ database }) => database.lb_weight !== 255);
		if (weighted !== undefined && general.load_balancing_strategy !== "weighted_round_robin") {
			const at = key(weighted, "lb_weight");
			const text = `${at} has no effect without load_balancing_strategy = "weighted_round_robin"`;
			report.warn(databases.source, at, text);
		}
	}
	if (databases.rows.length > 0) checkReplication(databases.rows, general, source, report);
}

/** Warns of settings that compare a replica with its primary, where they come to nothing. */
function checkReplication(rows: readonly DatabaseRow[], general: General, source: ValueSource, report: Findings): void {
	const given = {
		ban_replica_lag: general.ban_replica_lag < MAX,
		ban_replica_lag_bytes: general.ban_replica_lag_bytes < MAX,
		read_after_write: general.read_after_write !== "off",
	};
	const shards = Map.groupBy(rows, ({ database }) => JSON.stringify([database.name, database.shard]));
	const comparable = [...shards.values()].some((servers) => mayHavePrimary(servers) && mayHaveReplicas(servers));
	for (const [name, it] of Object.entries(given)) {
		if (!it) continue;
		const at = `general.${name}`;
		if (!comparable) report.warn(source, at, `${at} has no effect: no shard has both a primary and a replica`);
		else if (name !== "read_after_write" && general.ban_timeout === 0)
			report.warn(source, at, `${at} has no effect with ban_timeout = 0, which turns bans off`);
	}
}

function mayHavePrimary(servers: readonly DatabaseRow[]): boolean {
	return servers.some(({ database }) => database.role !== "replica");
}

/** Whether one of the servers may be a replica: of several with `role = "auto"` one is the primary, and the others are. */
function mayHaveReplicas(servers: readonly DatabaseRow[]): boolean {
	return servers.some(
		({ database }) => database.role === "replica" || (database.role === "auto" && servers.length > 1),
	);
}
