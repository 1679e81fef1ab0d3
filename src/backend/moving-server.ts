// A server connection on its way to another thread: plain data, sent by `Server.leave` and taken over by `Server.arrive`.

import type { MovingCopy } from "./server-statements.ts";

/** What a server is when it moves to another thread. */
export interface MovingServer {
	fd: number;
	address: string;
	pid: number;
	secret: Uint8Array;
	applied: [string, string][];
	reported: [string, string][];
	statements: MovingCopy[];
	bornAt: number;
	usedAt: number;
	checkedAt: number;
	spread: number;
	generation: number;
}
