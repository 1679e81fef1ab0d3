// What a request of a client of several shards is made of: messages for some of the shards, the next when those are
// answered. And the messages that we send on our own to keep the shards' transactions in one state. Used by sharded-client.ts.

import { copyFail, parse, query, SYNC } from "../wire/frontend-messages.ts";
import { TO_READY } from "./merge.ts";

/** Messages that the same shards are sent, and what ends their answers. */
export interface Step {
	readonly targets: readonly number[];
	readonly chunk: Buffer;
	readonly at: number;
	readonly end: number;
	/** Sent behind `chunk[at, end)`. */
	readonly behind: Buffer | null;
	readonly replies: number;
	/** As for `Merge`. */
	readonly firstAnswers: readonly boolean[] | null;
	/** It is part of the transaction, which shards begin that it is not open on. */
	readonly joins: boolean;
	/** It is our own: the client sees nothing of it. */
	readonly quiet: boolean;
}

// No SQL at all: it fails the transaction of a shard that did nothing wrong, since another's has failed.
const FAILED = "failed on another shard of pgdog";
export const FAIL = query(FAILED);
export const FAIL_BATCH = Buffer.concat([parse("", Buffer.from(`${FAILED}\0\0\0`)), SYNC]);
export const ROLLBACK = query("ROLLBACK");
export const COPY_FAIL = copyFail(FAILED);
export const COPY_FAIL_SYNC = Buffer.concat([COPY_FAIL, SYNC]);
export const NO_STEP: Step = {
	targets: [],
	chunk: FAIL,
	at: 0,
	end: 0,
	behind: null,
	replies: TO_READY,
	firstAnswers: null,
	joins: false,
	quiet: false,
};

/** All of `chunk` for these shards, up to ReadyForQuery. */
export function stepOf(targets: readonly number[], chunk: Buffer): Step {
	return { ...NO_STEP, targets, chunk, end: chunk.length };
}
