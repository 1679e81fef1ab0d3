// What the clients of one worker share. Made by worker.ts, which knows every room; a test can make a smaller one.

import type { ScramCache } from "../auth/scram-keys.ts";
import type { ParameterSets } from "../backend/parameters.ts";
import type { Statements } from "../backend/prepared.ts";
import type { General } from "../config/settings.ts";
import type { Admin, User } from "../config/snapshot.ts";
import type { Log } from "../log.ts";
import type { Splice } from "../net/splice.ts";
import type { Stream } from "../net/stream.ts";
import type { Pool } from "../pool/pool.ts";
import type { Client } from "./client.ts";
import type { FactsCache } from "./prepared.ts";

export interface ClientContext {
	readonly splice: Splice;
	readonly sets: ParameterSets;
	readonly statements: Statements;
	readonly facts: FactsCache;
	readonly scram: ScramCache;
	readonly log: Log;
	/** ms since the epoch as of the janitor's last tick: for what needs no better. */
	readonly time: number;
	/** The process shuts down: clients leave when their transactions end. */
	readonly stopping: boolean;
	/** The settings in force. */
	general(): General;
	admin(): Admin;
	/** The user and pool behind a login, or null when there is none such. */
	find(user: string, database: string): { user: User; pool: Pool } | null;
	/** A session of the admin database takes over the stream of a client that has logged in. */
	openAdmin(stream: Stream, address: string, parameters: ReadonlyMap<string, string>, minor: number): void;
	/** A new client's process id: unique in the process, and it names this worker. */
	register(client: Client): number;
	unregister(client: Client): void;
	onLogin(client: Client): void;
	onLogout(client: Client, reason: string): void;
	/** A CancelRequest, whichever worker the key is of. */
	cancel(pid: number, secret: Uint8Array): void;
	/** Numbers for unnamed statements; never 0. */
	nextSerial(): number;
}
