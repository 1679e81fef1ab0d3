// What the main thread and the workers say to each other. Plain data: it crosses threads by structured clone.

import type { AdminShape } from "./admin/command.ts";
import type { CommandAnswer } from "./admin/commands.ts";
import type { ClientRow, RouteRow, ServerRow } from "./admin/source.ts";
import type { MovingServer } from "./backend/moving-server.ts";
import type { Update } from "./config/diff.ts";
import type { HostDescription } from "./plugin/abi.ts";
import type { Lesson } from "./pool/reported.ts";

/** What each worker has some of, and the main thread puts together. */
export type RowKind = "clients" | "servers" | "routes";
export type AnyRow = ClientRow | ServerRow | RouteRow;

/** What a worker thread is born with. */
export interface WorkerSetup {
	readonly index: number;
	/** How many workers there are, itself among them. */
	readonly workers: number;
	readonly version: string;
	/** The whole configuration. */
	readonly update: Update;
	/** The plugins that were loaded. */
	readonly plugins: HostDescription;
	/** Row of each pool in ledger and counters, by `PoolSpec.key`. */
	readonly slots: ReadonlyMap<string, number>;
	/** Rows of ledger and counters. */
	readonly capacity: number;
	readonly ledger: SharedArrayBuffer;
	readonly counters: SharedArrayBuffer;
	readonly vitals: SharedArrayBuffer;
	readonly attendance: SharedArrayBuffer;
	/** Salts of users must not depend on the thread. */
	readonly scramSecret: Uint8Array;
}

/** From one worker to another, by way of the main thread. */
export type PeerMessage =
	| { readonly type: "request-server"; readonly slot: number; readonly by: number }
	| { readonly type: "give-server"; readonly slot: number; readonly server: MovingServer }
	| { readonly type: "lesson"; readonly slot: number; readonly identity: string; readonly lesson: Lesson }
	| { readonly type: "offer-permit"; readonly slot: number }
	| {
			readonly type: "cancel";
			readonly pid: number;
			readonly secret: Uint8Array;
			readonly id: number;
			readonly by: number;
	  }
	/** The cancel that the other has given this number is over. */
	| { readonly type: "cancelled"; readonly id: number };

export type ToWorker =
	| PeerMessage
	| { readonly type: "setup"; readonly setup: WorkerSetup }
	/** A client that came by the Unix socket, which one thread has to accept for all. */
	| { readonly type: "client"; readonly fd: number }
	| {
			readonly type: "reload";
			readonly update: Update;
			/** Of the pools of its clusters. */
			readonly slots: ReadonlyMap<string, number>;
			/** Keys of all pools that are paused: new ones are so from the beginning. */
			readonly paused: ReadonlySet<string>;
	  }
	| { readonly type: "order"; readonly order: "pause" | "resume" | "reconnect"; readonly keys: readonly string[] }
	| { readonly type: "rows"; readonly id: number; readonly of: RowKind }
	| { readonly type: "answer"; readonly id: number; readonly answer: CommandAnswer }
	/** Its listener was ended while it was stuck. */
	| { readonly type: "listen" }
	/** Accept no more; clients leave as their transactions end. */
	| { readonly type: "drain" }
	/** The time is up: cancel what runs. */
	| { readonly type: "cancel-all" }
	/** Close everything. */
	| { readonly type: "close" };

export type FromWorker =
	/** Under this descriptor: at the start, and whenever it had to listen anew. */
	| { readonly type: "listening"; readonly fd: number }
	| { readonly type: "failed"; readonly reason: string }
	| { readonly type: "peer"; readonly to: number; readonly message: PeerMessage }
	| { readonly type: "rows"; readonly id: number; readonly rows: AnyRow[] }
	| { readonly type: "ask"; readonly id: number; readonly sql: string; readonly shape: AdminShape }
	/** No client is left (while draining). */
	| { readonly type: "drained" }
	| { readonly type: "closed" };
