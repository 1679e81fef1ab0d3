// A client on its way to another thread: plain data, made by `Client.depart` and taken over by `Client.arrive`; and what workers tell
// each other of it, and the main thread of one that goes to another process.

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

/** From a worker to the main thread, of clients that cross to another process, or come from one (crossing.ts). */
export type CrossingReport =
	/** It is to go; its descriptor stays here until it is there. @param passport see passport.ts */
	| { readonly type: "client-leaves"; readonly pid: number; readonly fd: number; readonly passport: Uint8Array }
	/** It may come: it is waited for. @param refusal why it may not, or null */
	| { readonly type: "client-awaited"; readonly pid: number; readonly refusal: string | null }
	/** A CancelRequest with a key that nobody here has. */
	| { readonly type: "cancel-elsewhere"; readonly pid: number; readonly secret: Uint8Array };

/** From the main thread to a worker. */
export type CrossingOrder =
	/** Clients may go to another process, or (no more). */
	| { readonly type: "clients-may-leave"; readonly may: boolean }
	/** And so may those of a user who was introduced there. */
	| { readonly type: "user-may-leave"; readonly user: string; readonly database: string }
	/** It is there. */
	| { readonly type: "client-left"; readonly pid: number }
	/** It has to stay. @param isRefused it is not to be sent again soon */
	| { readonly type: "client-stays"; readonly pid: number; readonly isRefused: boolean }
	/** One wants to come. */
	| { readonly type: "client-comes"; readonly pid: number; readonly fd: number; readonly passport: Uint8Array }
	/** One that was waited for is here, and is the worker `to`'s. */
	| { readonly type: "client-came"; readonly pid: number; readonly to: number }
	/** It does not come after all; -1: nobody does. */
	| { readonly type: "client-stays-away"; readonly pid: number };
