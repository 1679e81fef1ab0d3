// What is known of clients, servers, pools and decisions, a row for each: plain data that crosses threads. Workers make the rows of
// theirs, the main thread puts them together (gathering.ts), and the admin database shows them.

import type { Server } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import type { ClientHandle } from "../client/context.ts";
import { TxStatus } from "../wire/codes.ts";

/** One client, as the worker that has it sees it. Times in ms; dates in ms since the epoch. */
export interface ClientRow {
	readonly id: number;
	readonly user: string;
	readonly database: string;
	/** `address:port`, or `unix`. */
	readonly address: string;
	/** In the words of SHOW CLIENTS: idle, active, idle in transaction, transaction error, waiting. */
	readonly state: string;
	readonly connected_at: number;
	readonly last_request_at: number;
	readonly queries: number;
	readonly transactions: number;
	readonly wait_time: number;
	readonly query_time: number;
	readonly transaction_time: number;
	readonly bytes_received: number;
	readonly bytes_sent: number;
	readonly errors: number;
	readonly application_name: string;
	/** The client keeps its server (session pooling). */
	readonly locked: boolean;
	readonly prepared_statements: number;
	/** `version/cipher`; empty: not encrypted. */
	readonly tls: string;
}

export interface ServerRow {
	/** `PoolSpec.key` */
	readonly pool: string;
	readonly state: string;
	readonly connected_at: number;
	/** Start of the request under way, or of the last. */
	readonly request_at: number;
	readonly remote_pid: number;
	/** Id of the client that has it, or null. */
	readonly client_id: number | null;
	readonly transactions: number;
	readonly queries: number;
	readonly rollbacks: number;
	readonly prepared_statements: number;
	readonly healthchecks: number;
	readonly errors: number;
	readonly bytes_received: number;
	readonly bytes_sent: number;
	readonly last_sent_at: number;
	readonly last_received_at: number;
	readonly application_name: string;
	/** As `ClientRow.tls`. */
	readonly tls: string;
}

/** A channel on which clients listen, for SHOW LISTENERS. */
export interface ListenerRow {
	readonly user: string;
	readonly database: string;
	readonly shard: number;
	readonly channel: string;
	readonly listeners: number;
	/** Notifications that have come since somebody listens. */
	readonly received: number;
	/** Those that listeners have missed, each counted. */
	readonly dropped: number;
}

/** The rows of all workers, each of which listens for itself: one for each shard's channel. */
export function mergeListeners(rows: readonly ListenerRow[]): ListenerRow[] {
	const merged = new Map<string, ListenerRow>();
	for (const row of rows) {
		const key = JSON.stringify([row.database, row.user, row.shard, row.channel]);
		const other = merged.get(key);
		if (other === undefined) merged.set(key, row);
		else {
			const received = Math.max(other.received, row.received);
			const listeners = other.listeners + row.listeners;
			merged.set(key, { ...row, listeners, received, dropped: other.dropped + row.dropped });
		}
	}
	return [...merged.keys()].sort().map((key) => merged.get(key)!);
}

/** A decision of the router, for SHOW ROUTES. */
export interface RouteRow {
	/** ms since the epoch. */
	readonly time: number;
	readonly client_id: number;
	readonly user: string;
	readonly database: string;
	/** The statement with its literals taken out, where that was possible. */
	readonly query: string;
	/** `statement`, `transaction`, `comment`, `plugin "NAME"` … */
	readonly decided_by: string;
	/** A number, or `all`. */
	readonly shard: string;
	/** Which servers may run it: `primary`, `any` or `replica`. */
	readonly side: string;
	/** `host:port` of the server that it was sent to; empty when it was refused. */
	readonly server: string;
	/** ms that it waited for that server. */
	readonly wait: number;
	/** Message of the error that the client got instead; null when the statement was sent. */
	readonly error: string | null;
}

/** What is known of a pool's server (pool/vitals.ts). Times in ms; dates in ms since the epoch. */
export interface PoolVitals {
	/** `primary` or `replica`, as configured; with `role = "auto"` as found out: these, `outdated`, or `auto` while not known. */
	readonly role: string;
	readonly healthy: boolean;
	/** Why the server is not read from, in words; null when it is not banned. */
	readonly ban: string | null;
	/** ms until the ban ends by itself; 0 when it never does. */
	readonly ban_time_left: number;
	/** When its replication was last asked about; 0: never, and the fields below mean nothing. */
	readonly lsn_at: number;
	readonly in_recovery: boolean;
	/** Position in the write-ahead log, in PostgreSQL's notation: replayed by a replica, written by a primary. */
	readonly lsn: string;
	/** Bytes and ms behind the primary. */
	readonly lag_bytes: number;
	readonly lag: number;
}

export interface PoolRow {
	/** `PoolSpec.key` */
	readonly key: string;
	/** A small number that stays with the pool for the life of the process. */
	readonly id: number;
	readonly paused: boolean;
	/** The sum of all workers' counters: index with `Stat` of stats/counters.ts. */
	readonly counters: Float64Array;
	/** Server connections in the process, those being opened among them. */
	readonly servers: number;
	readonly vitals: PoolVitals;
}

/** As SHOW CLIENTS has it. */
export function clientRow(client: ClientHandle): ClientRow {
	return {
		id: client.pid,
		user: client.user,
		database: client.database,
		address: client.address,
		state: client.stateName,
		connected_at: client.connectedAt,
		last_request_at: client.activeAt,
		queries: client.queries,
		transactions: client.transactions,
		wait_time: client.waitTime,
		query_time: client.queryTime,
		transaction_time: client.transactionTime,
		bytes_received: client.stream.bytesIn,
		bytes_sent: client.stream.bytesOut,
		errors: client.errors,
		application_name: client.setting("application_name") ?? "",
		locked: client.isLocked,
		prepared_statements: client.statementCount,
		tls: tlsText(client.stream.secured),
	};
}

function tlsText(secured: ClientHandle["stream"]["secured"]): string {
	return secured === null ? "" : `${secured.version}/${secured.cipher}`;
}

/** @param pool `PoolSpec.key` */
export function serverRow(pool: string, server: Server): ServerRow {
	const { client } = server;
	let state = "active";
	if (server.state === ServerState.Idle) state = "idle";
	else if (server.books.owed === 0) {
		if (server.status === TxStatus.InBlock) state = "idle in transaction";
		else if (server.status === TxStatus.Failed) state = "transaction error";
		else state = "idle";
	}
	return {
		pool,
		state,
		connected_at: server.bornAt,
		request_at: server.requestAt,
		remote_pid: server.pid,
		client_id: client?.pid ?? null,
		transactions: server.transactions,
		queries: server.queries,
		rollbacks: server.rollbacks,
		prepared_statements: server.statements.size,
		healthchecks: server.healthchecks,
		errors: server.errors,
		bytes_received: server.stream.bytesIn,
		bytes_sent: server.stream.bytesOut,
		last_sent_at: server.requestAt,
		last_received_at: server.readyAt || server.usedAt,
		application_name:
			server.session.applied.values.get("application_name") ??
			server.session.reports.now.values.get("application_name") ??
			"",
		tls: tlsText(server.stream.secured),
	};
}
