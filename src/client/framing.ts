// How much of a client's request must be together before something is done with it, and where it ends. Functions over
// bytes, called by walk.ts, alone.ts and shards/sharded-client.ts for each message that is not simply passed on.

import { PgError, ProtocolError } from "../errors.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { frontendLimit, HEADER, readInt32 } from "../wire/frame.ts";
import { SYNC } from "../wire/frontend-messages.ts";

/** How much of a request is collected before a server is taken for it all the same. */
export const COLLECT = 64 << 10;
/** A message up to this size is looked at as a whole; a larger Query, Bind or FunctionCall passes through in pieces. */
const WHOLE = 1 << 20;
/** A Parse is kept, so that it can be sent to other servers: it has to be whole. Ours, not PostgreSQL's. */
const PARSE_LIMIT = 64 << 20;
/**
 * A request that has to be routed is collected whole, up to this. Of a larger one nobody looks at more than its beginning: it goes
 * to the primary in pieces where that is enough to know, and is refused where it is not.
 */
export const ROUTED = 64 << 20;

/** A Sync or Flush with a body. */
export const MALFORMED = new PgError("ERROR", "08P01", "invalid message format");
export const TOO_LARGE = new PgError("ERROR", "54000", "the request is too large to be routed");

/** The largest length word by the type of a message; below the smallest that any has where there is no such type. */
export const LONGEST = Uint32Array.from({ length: 256 }, (_, code) =>
	code === Frontend.Parse ? PARSE_LIMIT : frontendLimit(code),
);

/** What PostgreSQL says of such a header, whose length is below 4 or beyond `LONGEST`. */
export function faultOf(code: number, length: number): ProtocolError {
	const limit = frontendLimit(code);
	if (limit === 0) return new ProtocolError(`invalid frontend message type ${code}`);
	if (length < 4 || length > limit) return new ProtocolError("invalid message length", "08P01", false);
	return new ProtocolError(`a Parse message of ${length} bytes is larger than the proxy keeps`, "54000");
}

/** Whether a message that is not all here may go to the server in pieces. */
export function passable(code: number, length: number, here: number, routed: boolean): boolean {
	if (code === Frontend.CopyData) return true;
	if (code !== Frontend.Query && code !== Frontend.Bind && code !== Frontend.FunctionCall) return false;
	return length > (routed ? ROUTED : WHOLE) && here >= COLLECT;
}

/** How many bytes must be together before the message at `at` is looked at again. */
export function needed(chunk: Buffer, at: number, routed: boolean): number {
	if (chunk.length - at < HEADER) return HEADER;
	const length = readInt32(chunk, at + 1);
	const here = chunk.length - at;
	if (here > length) return here + 1; // Whole, but its request is not.
	return passable(chunk[at]!, length, COLLECT, routed) ? COLLECT : length + 1;
}

/** A message of the extended query protocol that ends in a Sync or Flush. */
export function beginsBatch(code: number): boolean {
	return (
		code === Frontend.Parse ||
		code === Frontend.Bind ||
		code === Frontend.Describe ||
		code === Frontend.Execute ||
		code === Frontend.Close
	);
}

/**
 * The chunk ends in what is a Sync, or looks like one: with what came before it, that is as good as certain to be a whole batch. For
 * who only wants to know whether more is to come.
 */
export function endsInSync(chunk: Buffer): boolean {
	const at = chunk.length - SYNC.length;
	for (let i = 0; i < SYNC.length; i++) if (chunk[at + i] !== SYNC[i]) return false;
	return true;
}

/** Of what may not come between CopyInResponse and the end of the COPY: PostgreSQL says so and ends the connection. */
export function outOfCopy(code: number): ProtocolError {
	const type = code.toString(16).toUpperCase().padStart(2, "0");
	return new ProtocolError(`unexpected message type 0x${type} during COPY from stdin`);
}

/** As `LONGEST`, of what is well-formed. */
const LONGEST_AHEAD = LONGEST.slice();
LONGEST_AHEAD[Frontend.Sync] = 4;
LONGEST_AHEAD[Frontend.Flush] = 4;

export const enum Ahead {
	/** The end of the batch is not here yet. */
	Open,
	/** Nor will it be within `ROUTED`. */
	TooLarge,
	Complete,
	/** Close messages and a Sync. */
	OnlyCloses,
}

/**
 * Looks for the end of a batch of extended-query messages, which may come in many pieces: each byte is looked at once. One per
 * client, which says by `move` where the batch is when the next piece is here.
 */
export class LookAhead {
	/** Of the last batch that was asked about: where it ends (or where the search goes on) in the chunk under way. */
	end = 0;
	/** Where the Sync or Flush is that ends it; `end` when nothing does yet, or another message, which is no part of it. */
	last = 0;
	/** The client has sent nothing for a while: what is here of its batch goes on without the rest. Written by `hurry` only. */
	hurried = false;
	/** What was found of that batch. Written here only. */
	found = Ahead.Open;
	private start = 0;
	private onlyCloses = true;

	/** @param at a message of a batch, its first when nobody has asked about the batch yet */
	look(chunk: Buffer, at: number): Ahead {
		if (at >= this.end) {
			this.start = at;
			this.end = at;
			this.found = Ahead.Open;
			this.onlyCloses = true;
		}
		if (this.found === Ahead.Open) this.found = this.search(chunk);
		return this.found;
	}

	hurry(hurried: boolean): void {
		this.hurried = hurried;
	}

	/** Some messages of a batch are here whose end is not. */
	get isOpen(): boolean {
		return this.found === Ahead.Open && this.end > this.start;
	}

	/** What is at `at` will be at the beginning of the next chunk. */
	move(at: number): void {
		this.start -= at;
		this.end = Math.max(0, this.end - at);
		this.last = Math.max(0, this.last - at);
	}

	private search(chunk: Buffer): Ahead {
		const { start } = this;
		let at = this.end;
		let found = Ahead.Open;
		while (found === Ahead.Open && chunk.length - at >= HEADER) {
			const code = chunk[at]!;
			const length = readInt32(chunk, at + 1);
			this.last = at;
			if (length < 4 || length > LONGEST_AHEAD[code]!) {
				// What came before it counts, as in PostgreSQL; whoever goes on from here finds it.
				found = Ahead.Complete;
				break;
			}
			const next = at + 1 + length;
			const foreign = code === Frontend.Query || code === Frontend.FunctionCall || code === Frontend.Terminate;
			if (foreign && (next <= chunk.length || length > ROUTED)) found = Ahead.Complete;
			else if (!foreign && next - start > ROUTED) found = Ahead.TooLarge;
			if (found !== Ahead.Open || next > chunk.length) break;
			at = next;
			if (code === Frontend.Sync) found = this.onlyCloses ? Ahead.OnlyCloses : Ahead.Complete;
			else if (code === Frontend.Flush) found = Ahead.Complete;
			// What is malformed is the server's to refuse.
			else if (code !== Frontend.Close || !isClose(chunk, next - length - 1, next)) this.onlyCloses = false;
		}
		this.end = at;
		if (found === Ahead.Open) this.last = at;
		return found;
	}
}

function isClose(chunk: Buffer, at: number, next: number): boolean {
	const target = chunk[at + HEADER];
	return (target === Target.Statement || target === Target.Portal) && chunk.indexOf(0, at + HEADER + 1) === next - 1;
}
