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

/**
 * Where the message whose header is at `at` ends; -1 when it is not all here, or its length is one that no message has: for who goes
 * over messages that nobody has checked.
 */
export function endOfMessage(b: Uint8Array, at: number): number {
	const length = readInt32(b, at + 1);
	const end = at + 1 + length;
	return length < 4 || end > b.length ? -1 : end;
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
 * it. Whatever the size of the pieces, and however often all is looked at and kept again, a byte is copied a few times only:
 * what comes is written behind what is kept, and the room for that doubles.
 */
export class Tail {
	/** Its first `bytes` are what is kept. */
	private kept: Buffer = NOTHING;
	bytes = 0;
	private need = 0;
	/** `kept` is our own, and nobody has seen what is behind `bytes`. */
	private own = false;
	/** Of what is kept nothing was of use yet: it may be joined again and again. */
	private again = false;
	/** What was given away last when there is room behind it, until it is kept again or not. */
	private given: Buffer | null = null;
	private room: Buffer | null = null;

	/**
	 * Keeps `chunk[from..]` until `need` bytes are together (at least one more than there are). Called with nothing to keep
	 * it lets go of what was given away.
	 */
	keep(chunk: Buffer, from: number, need: number): void {
		const size = chunk.length - from;
		const room = chunk === this.given ? this.room : null;
		this.given = null;
		this.room = null;
		this.need = need;
		if (size === 0) return;
		this.bytes = size;
		this.again = from === 0;
		this.own = room !== null;
		if (size * PIN_RATIO < chunk.length) {
			this.kept = Buffer.from(chunk.subarray(from));
			this.own = false;
		} else if (from === 0) this.kept = room ?? chunk;
		else this.kept = (room ?? chunk).subarray(from);
	}

	/** Keeps a whole chunk behind what is kept, to be taken with `take` whatever its size. */
	hold(chunk: Buffer): void {
		// Nobody says how much is to come: only the first join may be the only one.
		this.join(chunk, this.own);
	}

	private join(chunk: Buffer, repeated: boolean): void {
		if (this.bytes === 0) {
			this.kept = chunk;
			this.own = false;
			this.bytes = chunk.length;
			return;
		}
		const bytes = this.bytes + chunk.length;
		if (!this.own || bytes > this.kept.length) {
			// What is enough now is joined once, and needs no room.
			const room = Buffer.allocUnsafeSlow(repeated || this.again || bytes < this.need ? 2 * bytes : bytes);
			this.kept.copy(room, 0, 0, this.bytes);
			this.kept = room;
			this.own = true;
		}
		chunk.copy(this.kept, this.bytes);
		this.bytes = bytes;
	}

	/** All that is kept with `chunk` behind it, or null when that is still less than needed (and is kept). */
	add(chunk: Buffer): Buffer | null {
		if (this.bytes === 0) {
			this.given = null;
			this.room = null;
			return chunk;
		}
		this.join(chunk, false);
		return this.bytes < this.need ? null : this.take();
	}

	/** What is kept, given away. */
	take(): Buffer {
		const { kept, bytes } = this;
		const all = kept.length === bytes ? kept : kept.subarray(0, bytes);
		this.clear();
		if (all !== kept) {
			this.given = all;
			this.room = kept;
		}
		return all;
	}

	clear(): void {
		this.kept = NOTHING;
		this.bytes = 0;
		this.need = 0;
		this.own = false;
		this.again = false;
		this.given = null;
		this.room = null;
	}
}

const NOTHING = Buffer.alloc(0);
