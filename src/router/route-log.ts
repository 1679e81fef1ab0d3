// The last decisions of one worker, for SHOW ROUTES: what was asked, who decided, which server, how long it had to be waited
// for. A ring of records that are used again, so that noting one costs a few stores and allocates nothing.

import { type PoolSpec, Side } from "../config/snapshot.ts";
import type { StatementFacts } from "../parser/facts.ts";
import { maskedText } from "../parser/readable.ts";
import { type Route, ShardChoice } from "./route.ts";

/** Decisions that are kept. */
const KEPT = 512;
/** Characters of a text that is kept for want of facts; a longer one is only told to be long. */
const LONGEST = 10_000;

class Decision {
	/** ms since the epoch; 0: not used yet. */
	time = 0;
	client = 0;
	user = "";
	database = "";
	facts: StatementFacts | null = null;
	/** The text where there are no facts: plugins alone decide. */
	sql = "";
	route: Route | null = null;
	/** The pool that was chosen; null when the statement was refused. */
	pool: PoolSpec | null = null;
	/** ms that the client has waited in a queue. */
	wait = 0;
}

export class RouteLog {
	private readonly ring = Array.from({ length: KEPT }, () => new Decision());
	private next = 0;

	/** @param wait ms in a queue */
	note(
		time: number,
		client: { readonly pid: number; readonly user: string; readonly database: string },
		facts: StatementFacts | null,
		sql: string,
		route: Route,
		pool: PoolSpec | null,
		wait: number,
	): void {
		const decision = this.ring[this.next]!;
		this.next = (this.next + 1) % KEPT;
		decision.time = time;
		decision.client = client.pid;
		decision.user = client.user;
		decision.database = client.database;
		decision.facts = facts;
		if (facts !== null) decision.sql = "";
		else decision.sql = sql.length > LONGEST ? `a text of ${sql.length} characters` : sql;
		decision.route = route;
		decision.pool = pool;
		decision.wait = wait;
	}

	/** Newest first, as SHOW ROUTES tells them (`RouteRow`). */
	rows() {
		const rows = [];
		for (let i = 1; i <= KEPT; i++) {
			const { time, client, user, database, facts, sql, route, pool, wait } = this.ring[(this.next - i + KEPT) % KEPT]!;
			if (route === null) break;
			rows.push({
				time,
				client_id: client,
				user,
				database,
				query: facts?.text ?? maskedText(sql),
				decided_by: route.decidedBy,
				shard: route.shard === ShardChoice.All ? "all" : String(route.shard),
				side: sideText(route.side),
				server: pool === null ? "" : `${pool.host}:${pool.port}`,
				wait,
				error: route.error?.message ?? null,
			});
		}
		return rows;
	}
}

export function sideText(side: Side): string {
	switch (side) {
		case Side.Primary:
			return "primary";
		case Side.Any:
			return "any";
		case Side.Replica:
			return "replica";
	}
}
