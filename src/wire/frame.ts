// Where a message begins and ends. A frame is never an object: it is (code, start, end) in a chunk. What is cut off
// at the end of a chunk is kept here until the rest arrives. Used by both ends; knows no socket.

import { Frontend, LARGE_MESSAGE_LIMIT, SMALL_MESSAGE_LIMIT } from "./codes.ts";

declare global {
	// In Node's and Bun's Buffer since ever, and in nobody's types: `toString` checks its arguments first, these do not.
	interface Buffer {
		utf8Slice(start: number, end: number): string;
		latin1Slice(start: number, end: number): string;
	}
}

/** Type byte and length word. */
export const HEADER = 5;

/** The int32 at `at`, big-endian. Negative when the top bit is set, which every length check refuses. */
export function readInt32(b: Uint8Array, at: number): number {
	return (b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!;
}

export function readInt16(b: Uint8Array, at: number): number {
	return (b[at]! << 8) | b[at + 1]!;
}

/** Index of the NUL that ends the string at `start`, or -1 when there is none before `end`. */
export function endOfString(b: Uint8Array, start: number, end: number): number {
	for (let i = start; i < end; i++) if (b[i] === 0) return i;
	return -1;
}

/**
 * The largest length word that a client's message of this type may have, as in PostgreSQL's `SocketBackend`
 * (postgres.c); 0 for a type that does not exist.
 */
export function frontendLimit(code: number): number {
	switch (code) {
		case Frontend.Query:
		case Frontend.Parse:
		case Frontend.Bind:
		case Frontend.CopyData:
		case Frontend.FunctionCall:
			return LARGE_MESSAGE_LIMIT;
		case Frontend.Execute:
		case Frontend.Sync:
		case Frontend.Describe:
		case Frontend.Close:
		case Frontend.Flush:
		case Frontend.CopyDone:
		case Frontend.CopyFail:
		case Frontend.Terminate:
			return SMALL_MESSAGE_LIMIT;
		default:
			return 0;
	}
}

/** What is left of a chunk this much larger than the piece is copied out, so that the piece does not pin the chunk. */
const PIN_RATIO = 4;

/**
 * The bytes of a connection that wait for more. `keep` puts aside the tail of a chunk, `add` joins the next chunk to
 * it. A message that comes in a thousand pieces is copied once: pieces are listed until `need` bytes are there.
 */
export class Tail {
	private pieces: Buffer[] = [];
	private need = 0;
	bytes = 0;

	/** Keeps `chunk[from..]` until `need` bytes are together (at least one more than there are). */
	keep(chunk: Buffer, from: number, need: number): void {
		const size = chunk.length - from;
		this.need = need;
		if (size === 0) return;
		const piece = chunk.subarray(from);
		this.pieces.push(size * PIN_RATIO < chunk.length ? Buffer.from(piece) : piece);
		this.bytes += size;
	}

	/** Keeps a whole chunk behind what is kept, to be taken with `take` whatever its size. */
	hold(chunk: Buffer): void {
		this.pieces.push(chunk);
		this.bytes += chunk.length;
	}

	/** All that is kept with `chunk` behind it, or null when that is still less than needed (and is kept). */
	add(chunk: Buffer): Buffer | null {
		if (this.bytes === 0) return chunk;
		this.pieces.push(chunk);
		this.bytes += chunk.length;
		return this.bytes < this.need ? null : this.take();
	}

	/** What is kept, given away. */
	take(): Buffer {
		const all = this.pieces.length === 1 ? this.pieces[0]! : Buffer.concat(this.pieces, this.bytes);
		this.clear();
		return all;
	}

	clear(): void {
		this.pieces = [];
		this.bytes = 0;
		this.need = 0;
	}
}
