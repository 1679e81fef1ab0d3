// What a Pool needs of the worker that it is a share of. Implemented by worker.ts.

import type { SocketHandler } from "bun";
import type { Keyring } from "../auth/keyring.ts";
import type { ScramCache } from "../auth/scram-keys.ts";
import type { MovingServer } from "../backend/moving-server.ts";
import type { ParameterSets } from "../backend/parameters.ts";
import type { Statements } from "../backend/statements.ts";
import type { General } from "../config/settings.ts";
import type { Contain } from "../contain.ts";
import type { Log } from "../log.ts";
import type { Dialling } from "../net/connect.ts";
import type { Descriptors } from "../net/descriptors.ts";
import type { Names } from "../net/names.ts";
import type { Stream } from "../net/stream.ts";
import type { Bans } from "./bans.ts";
import type { Caps } from "./caps.ts";
import type { Filling } from "./filling.ts";
import type { Ledger } from "./ledger.ts";
import type { Lesson } from "./reported.ts";

/** What the pools of one worker share. */
export interface PoolContext {
	/** Index of this worker. */
	readonly worker: number;
	readonly ledger: Ledger;
	readonly bans: Bans;
	readonly filling: Filling;
	readonly caps: Caps;
	readonly sets: ParameterSets;
	readonly statements: Statements;
	readonly scram: ScramCache;
	readonly keyring: Keyring;
	readonly handlers: SocketHandler<Stream>;
	/** How servers are connected to. */
	readonly dialling: Dialling;
	readonly names: Names;
	readonly descriptors: Descriptors;
	readonly log: Log;
	/** Promises, timers and messages of other threads come in through it: a bug there costs one connection (contain.ts). */
	readonly contain: Contain;
	/** ms since the epoch as of the janitor's last tick. */
	readonly time: number;
	/** Counts reloads and RECONNECTs, the same number in each worker: so a server that another worker gives is known to be old. */
	readonly generation: number;
	/** The settings in force. */
	readonly general: General;
	/** Asks another worker, which has idle servers, for one. */
	requestServer(worker: number, slot: number): void;
	/** Hands a server over; its permit goes with it. @param server null: the permit only @param caps of the permit */
	giveServer(worker: number, slot: number, server: MovingServer | null, caps: readonly string[]): void;
	/** Tells all other workers what was learned about a pool's servers. @param identity of those servers */
	share(slot: number, identity: string, lesson: Lesson): void;
	/** Tells another worker that a permit is free. */
	offerPermit(worker: number, slot: number): void;
}
