// `expanded_explain`: what EXPLAIN's output ends with, as PgDog writes it. Made by client/link.ts when it sends an EXPLAIN, for the
// server's relay, which puts the rows before its CommandComplete; by shards/sharded-client.ts when all shards have answered one.

import { Side } from "../config/snapshot.ts";
import { dataRow } from "../wire/backend-messages.ts";
import { type Route, ShardChoice } from "./route.ts";

/** A server that runs the EXPLAIN. */
export interface Place {
	/** Number of the shard, where there are several. */
	readonly shard?: number;
	readonly host: string;
	readonly port: number;
	readonly role: string;
}

/** DataRow messages of one text column, which is the same bytes in both formats. */
export function explainRows(route: Route, places: readonly Place[]): Buffer {
	const shard = route.shard === ShardChoice.All ? "all" : String(route.shard);
	const where = route.shard === ShardChoice.All ? "All shards" : `Shard ${shard}`;
	const roles = [...new Set(places.map(({ role }) => role))].join(", ");
	// Primary: the roles of its servers, since a transaction is where it is, whatever its statements would have liked.
	const asked = route.side === Side.Primary ? roles : "replica";
	const lines = [
		"",
		"PgDog Routing:",
		`  Summary: shard=${shard} role=${asked}`,
		`  ${where}: decided by ${route.decidedBy}`,
		...places.map((place) => {
			const what = places.length > 1 ? `shard ${place.shard} ` : "";
			return `  Note: ${what}sent to ${place.role} ${place.host}:${place.port}`;
		}),
	];
	return Buffer.concat(lines.map((line) => dataRow([line])));
}
