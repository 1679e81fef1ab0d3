// What a request of a client of several shards is made of: steps, messages for some of the shards, the next when those are
// answered. And the messages that we send on our own to keep the shards' transactions in one state. Steps are planned by
// planning.ts and gone by exchange.ts.

import type { Route } from "../router/route.ts";
import { CLOSE_OURS, copyFail, FLUSH, parse, query, SYNC } from "../wire/frontend-messages.ts";
import { TO_READY } from "./merge.ts";
import type { Joinings } from "./rows.ts";

/** Messages that the same shards are sent, and what ends their answers. */
export interface Step {
	readonly targets: readonly number[];
	readonly chunk: Buffer;
	readonly at: number;
	readonly end: number;
	/** Sent behind `chunk[at, end)`; null: nothing. */
	readonly behind: Buffer | null;
	/** As for `Merge`. */
	readonly replies: number;
	/** As for `Merge`. */
	readonly firstAnswers: readonly boolean[] | null;
	/** As for `Merge`. */
	readonly joinings: Joinings | null;
	/** What it does to the client's statements is to be noted: it has a Parse, a Close, or perhaps a DEALLOCATE. */
	readonly learns: boolean;
	/** The step is part of the transaction, which shards begin that it is not open on. */
	readonly joins: boolean;
	/** The step is our own: the client sees nothing of its answers. */
	readonly quiet: boolean;
	/** The transaction is committed in two phases: `chunk[at, end)` is the client's COMMIT, or nothing, and is not sent. */
	readonly commits: boolean;
}

/** What ends the messages of a request. */
export const enum Terminator {
	/** Sync, or the end of a Query: ReadyForQuery is due. */
	Sync,
	/** Flush, or what makes the shards answer without being asked: the batch goes on. */
	Flush,
}

/** A request that the shards are to answer. */
export interface Plan {
	readonly steps: Step[];
	readonly terminator: Terminator;
	/** CopyDone and CopyFail messages in it: so many COPYs end without more data. */
	readonly copyEnds: number;
	/** A COMMIT or ROLLBACK without AND CHAIN is in it. */
	readonly ends: boolean;
	/** It is a transaction of its own on the shards, which the client has not begun and is told nothing of. */
	readonly implicit: boolean;
	/** Where its EXPLAIN was routed to, when the answer is to tell that. */
	readonly explained: Route | null;
}

// No SQL at all: it fails the transaction of a shard that did nothing wrong, since another's has failed.
const FAILED = "failed on another shard of pgdog";
export const FAIL = query(FAILED);
export const FAIL_BATCH = Buffer.concat([parse("", Buffer.from(`${FAILED}\0\0\0`)), SYNC]);
export const ROLLBACK = query("ROLLBACK");
/** Of a transaction that the client knows nothing of. */
export const BEGIN_OURS = query("BEGIN");
export const COPY_FAIL = copyFail(FAILED);
export const COPY_FAIL_SYNC = Buffer.concat([COPY_FAIL, SYNC]);

/** All of `chunk` for these shards, up to ReadyForQuery. */
export function stepOf(targets: readonly number[], chunk: Buffer): Step {
	return { ...lastStep(targets, chunk, 0, chunk.length, null, false), joins: false };
}

/** `chunk[at, end)` of the client for these shards, up to ReadyForQuery. @param firstAnswers, learns as `Step` has them */
export function lastStep(
	targets: readonly number[],
	chunk: Buffer,
	at: number,
	end: number,
	firstAnswers: readonly boolean[] | null,
	learns: boolean,
): Step {
	return {
		targets,
		chunk,
		at,
		end,
		behind: null,
		replies: TO_READY,
		firstAnswers,
		joinings: null,
		learns,
		joins: true,
		quiet: false,
		commits: false,
	};
}

/** What is said instead of the bytes `[at, end)` of a chunk. */
export interface Edit {
	readonly at: number;
	readonly end: number;
	readonly bytes: Buffer;
}

/** The step with what is asked of its rows, and what is to be said differently for that, in order. */
export function asking(step: Step, asks: { readonly edits: readonly Edit[] } & Joinings): Step {
	const parts: Buffer[] = [];
	let { at } = step;
	for (const edit of asks.edits) {
		parts.push(step.chunk.subarray(at, edit.at), edit.bytes);
		at = edit.end;
	}
	const chunk = Buffer.concat([...parts, step.chunk.subarray(at, step.end)]);
	return { ...step, chunk, at: 0, end: chunk.length, joinings: asks };
}

/** The client's COMMIT `chunk[at, end)`, which these shards do in two phases; nothing: one that the client has not said. */
export function committing(targets: readonly number[], chunk: Buffer, at: number, end: number): Step {
	return { ...lastStep(targets, chunk, at, end, null, false), joins: false, commits: true };
}

/** As `stepOf`, of our own. */
export function quietly(targets: readonly number[], chunk: Buffer): Step {
	return { ...stepOf(targets, chunk), quiet: true };
}

/**
 * Has these shards, in order, take a server for a batch that comes to them in another order: two clients that each had what the
 * other waits for would wait for ever. Nothing is done there; the client sees an error only.
 */
export function reserving(targets: readonly number[]): Step {
	return { ...stepOf(targets, CLOSE_OURS), behind: FLUSH, replies: 1 };
}

/** Between two requests. */
export const NO_STEP: Step = { ...stepOf([], FAIL), end: 0 };
/** Until the shards are logged in to. */
export const LOGIN: Step = { ...NO_STEP };
