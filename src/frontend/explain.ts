// `expanded_explain`: what EXPLAIN's output ends with, as PgDog writes it. Made by client.ts when it sends an EXPLAIN; the
// server's relay puts the rows before its CommandComplete.

import { type PoolSpec, Side } from "../config/snapshot.ts";
import { type Route, Shard } from "../router/route.ts";
import { dataRow } from "../wire/backend-messages.ts";

/** DataRow messages of one text column, which is the same bytes in both formats. */
export function explainRows(route: Route, pool: PoolSpec, role: string): Buffer {
	const shard = route.shard === Shard.All ? "all" : String(route.shard);
	const where = route.shard === Shard.All ? "All shards" : `Shard ${shard}`;
	// A transaction is where it is, whatever its statements would have liked.
	const asked = route.side === Side.Primary ? role : "replica";
	const lines = [
		"",
		"PgDog Routing:",
		`  Summary: shard=${shard} role=${asked}`,
		`  ${where}: decided by ${route.decidedBy}`,
		`  Note: sent to ${role} ${pool.host}:${pool.port}`,
	];
	return Buffer.concat(lines.map((line) => dataRow([line])));
}
