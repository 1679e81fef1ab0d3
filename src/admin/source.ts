// What the admin database can ask and order. proxy.ts implements it over all workers; admin/ turns it into rows.
// All of it is plain data: it crosses threads.

import type { Snapshot } from "../config/snapshot.ts";

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

/** What the giver of RELOAD is told, in the words of the log. */
export interface Reloaded {
	/** Why nothing has changed, one line each; empty: the files are in force. */
	readonly refused: readonly string[];
	/** Nothing is wrong with the files but that they leave nothing to serve: `force` takes them. */
	readonly forcible: boolean;
	/** What has changed, what waits for a restart, and what is ignored. */
	readonly notices: readonly Notice[];
}

/** A NoticeResponse to be. */
export interface Notice {
	readonly severity: "NOTICE" | "WARNING";
	readonly message: string;
}

export interface AdminSource {
	/** `PgDog v…` as in the first log line, without the dog. */
	readonly version: string;
	snapshot(): Snapshot;
	/** Workers that do not answer now: what they have is missing in the rows. */
	readonly stuckWorkers: readonly number[];
	clients(): Promise<ClientRow[]>;
	servers(): Promise<ServerRow[]>;
	pools(): PoolRow[];
	/** Sampled every `stats_period`; by `PoolSpec.key`, indexed with `Stat` (`AverageSampler`). */
	readonly averages: { of(key: string): Float64Array };
	/** Reads the files again. @param force also when no database or no user would be left */
	reload(force: boolean): Promise<Reloaded>;
	/** PAUSE for pools of this user and database; undefined means any. @returns how many pools there were */
	pause(user: string | undefined, database: string | undefined): Promise<number>;
	resume(user: string | undefined, database: string | undefined): Promise<number>;
	reconnect(): Promise<void>;
	/** The last decisions of all workers, newest first. */
	routes(): Promise<RouteRow[]>;
	/** BAN: no reads for the pool with this `PoolRow.id` until `unban`; undefined: for all. @returns how many there were */
	ban(id: number | undefined): number;
	unban(id: number | undefined): number;
	/** HEALTHCHECK: has the server of a pool checked now. @returns how many there were */
	healthcheck(id: number | undefined): number;
	/** Begins the graceful shutdown and returns at once. */
	shutdown(): void;
}
