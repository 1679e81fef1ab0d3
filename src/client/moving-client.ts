// A client on its way to another thread: plain data, made by `Client.depart` and taken over by `Client.arrive`; and what workers tell
// each other of it.

import type { MovingSession } from "../session/session.ts";
import type { MovingSettings } from "../session/settings.ts";
import type { MovingStatements } from "../session/statements.ts";

/** What a client's Link is when it moves. */
export interface MovingLink {
	readonly settings: MovingSettings;
	readonly session: MovingSession;
	/** Null while the client has prepared nothing. */
	readonly statements: MovingStatements | null;
	readonly answeredAt: number;
	readonly queries: number;
	readonly transactions: number;
	readonly queryTime: number;
	readonly transactionTime: number;
	readonly waitTime: number;
}

export interface MovingClient {
	readonly fd: number;
	readonly bytesIn: number;
	readonly bytesOut: number;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	readonly pid: number;
	readonly secret: Uint8Array;
	readonly connectedAt: number;
	readonly errors: number;
	readonly link: MovingLink;
}

/** From one worker to another. */
export type ClientMessage =
	| { readonly type: "give-client"; readonly client: MovingClient; readonly by: number }
	/** To the worker that gave it. */
	| { readonly type: "client-arrived"; readonly pid: number }
	/** To the worker that its process id names: it is with this worker now, or (-1) with none any more. */
	| { readonly type: "client-at"; readonly pid: number; readonly worker: number };
