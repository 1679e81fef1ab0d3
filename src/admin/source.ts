// What the admin database can ask and order. proxy.ts implements it over all workers; admin/ turns it into rows.
// All of it is plain data: it crosses threads.

import type { Snapshot } from "../config/snapshot.ts";
import type { ClientRow, ListenerRow, PoolRow, RouteRow, ServerRow } from "../status/rows.ts";
import type { TransactionRow } from "../two-phase/recovery.ts";

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
	/** What is committed in two phases and not finished, as all servers say now. */
	readonly recovery: { rows(): Promise<TransactionRow[]> };
	/** The last decisions of all workers, newest first. */
	routes(): Promise<RouteRow[]>;
	/** The channels that clients listen on, a row of each worker. */
	channels(): Promise<ListenerRow[]>;
	/** BAN: no reads for the pool with this `PoolRow.id` until `unban`; undefined: for all. @returns how many there were */
	ban(id: number | undefined): number;
	unban(id: number | undefined): number;
	/** HEALTHCHECK: has the server of a pool checked now. @returns how many there were */
	healthcheck(id: number | undefined): number;
	/** Begins the graceful shutdown and returns at once. */
	shutdown(): void;
}
