// What the main thread and the workers say to each other. Plain data: it crosses threads by structured clone.

import type { AdminShape } from "./admin/command.ts";
import type { CommandAnswer } from "./admin/commands.ts";
import type { ScramKeys } from "./auth/scram-keys.ts";
import type { MovingServer } from "./backend/moving-server.ts";
import type { CancelMessage } from "./client/cancel-requests.ts";
import type { ClientMessage, CrossingOrder, CrossingReport } from "./client/moving-client.ts";
import type { Update } from "./config/diff.ts";
import type { HostDescription } from "./plugin/abi.ts";
import type { RoomWanted } from "./pool/caps.ts";
import type { Found } from "./pool/informant.ts";
import type { Joined, LookedUp } from "./pool/learning.ts";
import type { Lesson } from "./pool/reported.ts";
import type { ClientRow, ListenerRow, RouteRow, ServerRow } from "./status/rows.ts";

/** Rows for SHOW CLIENTS, SERVERS, ROUTES and LISTENERS: each worker has some, and the main thread puts them together. */
/** `nothing`: no rows; the answer says that all that was sent before is done. */
export type RowKind = "clients" | "servers" | "routes" | "listeners" | "nothing";
export type AnyRow = ClientRow | ServerRow | RouteRow | ListenerRow;

/** What a worker is made of: the configuration, and memory that all threads share. */
export interface WorkerSetup {
	readonly index: number;
	/** Number of workers, this one among them. */
	readonly workers: number;
	readonly version: string;
	/** The whole configuration (`firstUpdate`). */
	readonly update: Update;
	/** The plugins that were loaded. */
	readonly plugins: HostDescription;
	/** Row of each pool in ledger, counters and vitals, by `PoolSpec.key`. */
	readonly slots: ReadonlyMap<string, number>;
	/** Number of these rows: pools of the start, and those that reloads may add. */
	readonly capacity: number;
	readonly ledger: SharedArrayBuffer;
	readonly counters: SharedArrayBuffer;
	readonly vitals: SharedArrayBuffer;
	readonly attendance: SharedArrayBuffer;
	readonly loads: SharedArrayBuffer;
	/** Descriptors of sockets that listen already, for all workers; empty: each opens its own. */
	readonly sockets: readonly number[];
	/** The process is about to take over from another, whose clients come: pools are paused until it is known which were so there. */
	readonly isSuccessor: boolean;
	/** `ScramCacheOptions.secret`, the same for all workers: a user's salt must not depend on the thread. */
	readonly scramSecret: Uint8Array;
	/** As `ClientContext.instance`. */
	readonly instance: string;
}

/** A message from one worker to another, passed on by the main thread. */
export type PeerMessage =
	| ClientMessage
	| { readonly type: "request-server"; readonly slot: number; readonly by: number }
	| {
			readonly type: "give-server";
			readonly slot: number;
			/** Null: it could not go, and its place is given. */
			readonly server: MovingServer | null;
			readonly caps: readonly string[];
	  }
	| RoomWanted
	| { readonly type: "lesson"; readonly slot: number; readonly identity: string; readonly lesson: Lesson }
	| { readonly type: "offer-permit"; readonly slot: number }
	| CancelMessage;

/** Keys that a client has proven, by its verifier: for all workers, and the main thread. */
interface Proven {
	readonly type: "proven";
	readonly verifier: string;
	readonly keys: ScramKeys;
}

export type ToWorker =
	| PeerMessage
	| { readonly type: "crossing"; readonly order: CrossingOrder }
	| Proven
	| { readonly type: "setup"; readonly setup: WorkerSetup }
	/** A client of the Unix socket, by its descriptor: the main thread accepts there for all workers. */
	| { readonly type: "client"; readonly fd: number }
	| {
			readonly type: "reload";
			readonly update: Update;
			/** Slots of the pools of `update.clusters`, by `PoolSpec.key`. */
			readonly slots: ReadonlyMap<string, number>;
			/** Keys of all pools that are paused: new ones are so from the beginning. */
			readonly paused: ReadonlySet<string>;
	  }
	| { readonly type: "order"; readonly order: "pause" | "resume" | "reconnect"; readonly keys: readonly string[] }
	| { readonly type: "rows"; readonly id: number; readonly of: RowKind }
	/** Which of these slots are of no pool of the worker's, not even of one that is leaving? */
	| { readonly type: "ask-slots"; readonly slots: readonly number[] }
	| { readonly type: "answer"; readonly id: number; readonly answer: CommandAnswer }
	/** The answer to a `look-up` or a `join`. */
	| { readonly type: "told"; readonly id: number; readonly answer: LookedUp | Joined }
	/** Listen again: the main thread ended the worker's listener while the worker was stuck. */
	| { readonly type: "listen" }
	/** Accept no more; clients leave as their transactions end, or, after a takeover, when they like (`gently`). */
	| { readonly type: "drain"; readonly gently: boolean }
	/** `shutdown_timeout` is over: cancel the statements that run. */
	| { readonly type: "cancel-all" }
	/** Disconnect all clients and servers, then answer `closed`. */
	| { readonly type: "close" };

/** Questions of a worker's, which is `told` with the same `id`. */
export type Asking =
	/** What lets this user in, whom the configuration does not have? `password`: what it has said, if that is what will be judged. */
	| {
			readonly type: "look-up";
			readonly user: string;
			readonly database: string;
			readonly password: string | undefined;
	  }
	/** It has logged in by what was found: it is to have pools. The answer comes behind the update that makes them. */
	| {
			readonly type: "join";
			readonly user: string;
			readonly database: string;
			readonly found: Found;
			/** Those that it has proven to have. */
			readonly keys: ScramKeys | null;
	  };

export type FromWorker =
	/** The worker listens, by a listener with this descriptor: at the start, and after each `listen`. */
	| { readonly type: "listening"; readonly fd: number }
	| { readonly type: "failed"; readonly reason: string }
	| Proven
	| { readonly type: "crossing"; readonly report: CrossingReport }
	| { readonly type: "peer"; readonly to: number; readonly message: PeerMessage }
	| { readonly type: "rows"; readonly id: number; readonly rows: AnyRow[] }
	| { readonly type: "ask"; readonly id: number; readonly sql: string; readonly shape: AdminShape }
	| (Asking & { readonly id: number })
	/** As `ClientContext.onUnfinished`. */
	| { readonly type: "unfinished"; readonly database: string; readonly transaction: string }
	/** A log-in by what was found for this user has failed. */
	| { readonly type: "doubt"; readonly user: string; readonly database: string }
	/** The answer to `ask-slots`. */
	| { readonly type: "no-pools"; readonly slots: readonly number[] }
	/** The answer to `drain`: no client is left. */
	| { readonly type: "drained" }
	| { readonly type: "closed" };
