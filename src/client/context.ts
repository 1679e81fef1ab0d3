// What the clients of one worker share. Made by worker.ts, which knows every room; a test can make a smaller one.

import type { SocketHandler } from "bun";
import type { ScramCache, ScramKeys } from "../auth/scram-keys.ts";
import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";
import type { Statements } from "../backend/statements.ts";
import type { HbaEntry } from "../config/hba.ts";
import type { General } from "../config/settings.ts";
import type { Admin, ClusterSpec, User } from "../config/snapshot.ts";
import type { TlsFiles } from "../config/tls.ts";
import type { Contain, Contained } from "../contain.ts";
import type { PgError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Stream } from "../net/stream.ts";
import type { FactsCache } from "../parser/facts-cache.ts";
import type { Hints } from "../parser/hints.ts";
import type { PluginHost } from "../plugin/host.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { Ears } from "../pool/ear.ts";
import type { Found } from "../pool/informant.ts";
import type { LookedUp } from "../pool/learning.ts";
import type { RouteLog } from "../router/route-log.ts";
import type { Router } from "../router/router.ts";
import type { SessionHints } from "../session/hints.ts";
import type { ShardedStatements } from "../session/sharded-statements.ts";
import type { Audience } from "./audience.ts";
import type { MovingClient } from "./moving-client.ts";
import type { Seats } from "./seats.ts";
import type { Budget } from "./share.ts";

/** What login/startup.ts found out. */
export interface Login {
	/** The configuration's own, so that thousands of clients have not each the same names. */
	readonly account: Pick<User, "name" | "database">;
	/** Minor version of the protocol. */
	readonly minor: number;
	readonly parameters: ParameterSet;
	/** `pgdog.role` and its like. */
	readonly hints: Hints;
	readonly address: string;
	/** How it has proven who it is, for the log. */
	readonly auth?: string;
	/** What it is already, when it has logged in on another thread. */
	readonly moved?: { readonly pid: number; readonly secret: Uint8Array; readonly connectedAt: number };
}

/** What the Link of one of several shards has in common with the others'. */
export interface Siblings {
	readonly shard: number;
	/** Where settings of ours go that a transaction changes: the ShardedClient routes. */
	readonly hints: SessionHints;
	readonly statements: ShardedStatements;
	/** The ShardedClient, which alone knows when it may be told of notifications. */
	readonly audience: Audience;
}

/** A client as its worker sees it, whatever it is inside. */
export interface ClientHandle {
	readonly pid: number;
	readonly secret: Uint8Array;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	/** As `Login.auth`; empty when it has logged in on another thread. */
	readonly auth: string;
	readonly stream: Contained & Pick<Stream, "bytesIn" | "bytesOut" | "secured">;
	/** For SHOW CLIENTS. */
	readonly stateName: string;
	readonly connectedAt: number;
	readonly activeAt: number;
	readonly queries: number;
	readonly transactions: number;
	readonly waitTime: number;
	readonly queryTime: number;
	readonly transactionTime: number;
	readonly errors: number;
	readonly statementCount: number;
	/** It keeps its server for as long as it stays. */
	readonly isLocked: boolean;
	setting(name: string): string | undefined;
	/** @param done as `Pool.cancel` says it; also when there is nothing to cancel */
	cancel(done: () => void): void;
	check(time: number): void;
	reach(cluster: Cluster, router: Router): void;
	shutDown(force: boolean): void;
	/** Nothing of it is under way, and all that is known of it can be told another thread. */
	readonly isQuiet: boolean;
	/**
	 * It goes to another thread, while it `isQuiet`: nothing of it is here any more, and its connection is whoever's who takes its
	 * descriptor. @returns what it is there; null when it cannot go
	 */
	depart(): MovingClient | null;
}

export interface ClientContext {
	readonly sets: ParameterSets;
	/** What large messages of clients may take until they are sent on. */
	readonly collected: Budget;
	readonly statements: Statements;
	readonly facts: FactsCache;
	readonly scram: ScramCache;
	readonly log: Log;
	/** What does not come in by a socket's event comes in through it. */
	readonly contain: Contain;
	/** What was decided lately, for SHOW ROUTES. */
	readonly routes: RouteLog;
	/** This thread's way to the plugins; null when there is none to ask. */
	readonly plugins: PluginHost | null;
	/** ms since the epoch as of the janitor's last tick: for what needs no better. */
	readonly time: number;
	/** The process shuts down: clients leave when their transactions end. */
	readonly stopping: boolean;
	/** The settings in force. */
	readonly general: General;
	readonly tls: TlsFiles;
	readonly admin: Admin;
	/** Who may log in from where, and how; empty: `auth_type` decides for all. */
	readonly hba: readonly HbaEntry[];
	/** Databases may be there that the configuration does not name: the main thread knows. */
	readonly wildcard: boolean;
	/** What listens for clients in transaction mode. */
	readonly ears: Ears;
	/** How many clients there may be. */
	readonly seats: Seats;
	/** Of every socket of this thread. */
	readonly handlers: SocketHandler<Stream>;
	/** The user and the pools behind a login, or null when there is none such. */
	find(user: string, database: string): { spec: ClusterSpec; user: User; cluster: Cluster; router: Router } | null;
	/** What lets a user in whom the configuration does not have (`auth_query`), or whether this password does (`passthrough_auth`). */
	lookUp(user: string, database: string, password?: string): Promise<LookedUp>;
	/** It has logged in by that, and proven to have these keys, if any. @returns when `find` has it; or why it never will */
	join(
		user: string,
		database: string,
		found: Found,
		keys: ScramKeys | null,
	): Promise<Pick<PgError, "sqlstate" | "message"> | null>;
	/** A log-in by that has failed. */
	doubt(user: string, database: string): void;
	/** A client of this user has logged in and proven to have these keys. */
	onProven(user: User, keys: ScramKeys): void;
	/** A session of the admin database takes over the stream of a client that has logged in. */
	openAdmin(stream: Stream, address: string, parameters: ReadonlyMap<string, string>, minor: number): void;
	/**
	 * A new client's process id: unique in the process, and it names this worker.
	 * @param known its process id when it has one already: it was another worker's
	 */
	register(client: ClientHandle, known?: number): number;
	unregister(client: ClientHandle): void;
	onLogin(client: ClientHandle): void;
	onLogout(client: Pick<ClientHandle, "user" | "database" | "address" | "pid">, reason: string): void;
	/** A CancelRequest, whichever worker the key is of. */
	cancel(pid: number, secret: Uint8Array, done: () => void): void;
	/** The name of this process in those of what is committed in two phases. */
	readonly instance: string;
	/** A transaction that is committed in two phases is left for the main thread to finish. */
	onUnfinished(database: string, transaction: string): void;
	/** Numbers for unnamed statements; never 0. */
	nextSerial(): number;
}
