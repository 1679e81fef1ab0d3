// How much of a client's request must be together before something is done with it, and where it ends. Functions over
// bytes, called by client.ts and sharded.ts for each message that is not simply passed on.

import { ProtocolError } from "../errors.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { frontendLimit, HEADER, readInt32 } from "../wire/frame.ts";

/** How much of a request is collected before a server is taken for it all the same. */
export const COLLECT = 64 << 10;
/** A message up to this size is looked at as a whole; a larger Query, Bind or FunctionCall passes through in pieces. */
const WHOLE = 1 << 20;
/** A Parse is kept, so that it can be sent to other servers: it has to be whole. Ours, not PostgreSQL's. */
const PARSE_LIMIT = 64 << 20;
/** A request that has to be routed is collected whole, up to this; what is larger is refused: nobody could look at it. */
export const ROUTED = 64 << 20;

/** Throws what PostgreSQL says of such a header. */
export function checkHeader(code: number, length: number): void {
	const limit = frontendLimit(code);
	if (limit === 0) throw new ProtocolError(`invalid frontend message type ${code}`);
	if (length < 4 || length > limit) throw new ProtocolError("invalid message length");
	if (code === Frontend.Parse && length > PARSE_LIMIT)
		throw new ProtocolError(`a Parse message of ${length} bytes is larger than the proxy keeps`, "54000");
}

/** Whether a message that is not all here may go to the server in pieces. */
export function passable(code: number, length: number, here: number, routed: boolean): boolean {
	if (code === Frontend.CopyData) return true;
	if (routed || (code !== Frontend.Query && code !== Frontend.Bind && code !== Frontend.FunctionCall)) return false;
	return length > WHOLE && here >= COLLECT;
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

function isTarget(byte: number | undefined): boolean {
	return byte === Target.Statement || byte === Target.Portal;
}

export const enum Ahead {
	/** Neither Sync nor Flush is here yet. */
	Open,
	Complete,
	/** Close messages and a Sync. */
	OnlyCloses,
}

/** Looks for the end of the extended-query request that begins at `at`. */
export function lookAhead(chunk: Buffer, at: number): Ahead {
	let onlyCloses = true;
	while (chunk.length - at >= HEADER) {
		const code = chunk[at]!;
		const length = readInt32(chunk, at + 1);
		checkHeader(code, length);
		at += 1 + length;
		if (at > chunk.length) return Ahead.Open;
		if (code === Frontend.Sync) return onlyCloses ? Ahead.OnlyCloses : Ahead.Complete;
		// What is malformed is the server's to refuse.
		const name = at - length + HEADER;
		if (code !== Frontend.Close || !isTarget(chunk[name - 1]) || chunk.indexOf(0, name) !== at - 1) {
			onlyCloses = false;
			if (code === Frontend.Flush || code === Frontend.Query || code === Frontend.Terminate) return Ahead.Complete;
		}
	}
	return Ahead.Open;
}
