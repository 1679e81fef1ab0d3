// Where a message begins and ends. A frame is never an object: it is (code, start, end) in a chunk. What is cut off
// at the end of a chunk is kept here until the rest arrives. Used by both ends; knows no socket.

import { Frontend, LARGE_MESSAGE_LIMIT, SMALL_MESSAGE_LIMIT } from "./codes.ts";

declare global {
	// Methods of Node's and Bun's Buffer that are in nobody's types: `toString` checks its arguments first, these do not.
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
 * End of the message whose header is at `at`; -1 when it is not all here, or its length is one that no message has. For callers
 * whose messages nobody has checked.
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

/** A tail that is this many times smaller than its chunk is copied out, so that it does not keep the chunk in memory. */
const PIN_RATIO = 4;

/**
 * The bytes of a connection that wait for more. `keep` puts aside the tail of a chunk, `add` joins the next chunk to
 * it. Whatever the size of the pieces, and however often all is looked at and kept again, a byte is copied a few times only:
 * what comes is written behind what is kept, and the room for that doubles.
 */
export class Tail {
	/** Buffer whose first `bytes` bytes are kept. */
	private kept: Buffer = NOTHING;
	bytes = 0;
	/** Neither is anything kept nor is anything known of what was given away: `add` gives back what it is given. */
	isUnused = true;
	private need = 0;
	/** `kept` was made here, and nobody has seen what is behind `bytes`: the next chunk may be written there. */
	private own = false;
	/** The last `keep` was of all bytes, so nothing of them was of use yet: more joins are to be expected. */
	private again = false;
	/** Buffer that `take` gave away last, with `room` behind it: kept again, it is filled up instead of copied. Null: none. */
	private given: Buffer | null = null;
	private room: Buffer | null = null;

	/**
	 * Keeps `chunk[from..]` until `need` bytes are together (at least one more than there are). With nothing to keep it forgets what
	 * `take` gave away.
	 */
	keep(chunk: Buffer, from: number, need: number): void {
		const size = chunk.length - from;
		const room = chunk === this.given ? this.room : null;
		this.given = null;
		this.room = null;
		this.need = need;
		this.isUnused = size === 0;
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
		// How much is to come is not known: the first join takes just the room it needs, each later one twice that.
		this.join(chunk, this.own);
	}

	private join(chunk: Buffer, repeated: boolean): void {
		this.isUnused = false;
		if (this.bytes === 0) {
			this.kept = chunk;
			this.own = false;
			this.bytes = chunk.length;
			return;
		}
		const bytes = this.bytes + chunk.length;
		if (!this.own || bytes > this.kept.length) {
			// What is whole with this chunk is joined once, and needs no room for more.
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
			this.isUnused = true;
			return chunk;
		}
		this.join(chunk, false);
		return this.bytes < this.need ? null : this.take();
	}

	/** Gives away all that is kept; nothing is kept then. */
	take(): Buffer {
		const { kept, bytes } = this;
		const all = kept.length === bytes ? kept : kept.subarray(0, bytes);
		this.clear();
		if (all !== kept) {
			this.given = all;
			this.room = kept;
			this.isUnused = false;
		}
		return all;
	}

	/** Its first byte: of what begins with a message, the type of that. */
	get first(): number | undefined {
		return this.bytes > 0 ? this.kept[0] : undefined;
	}

	clear(): void {
		this.kept = NOTHING;
		this.bytes = 0;
		this.isUnused = true;
		this.need = 0;
		this.own = false;
		this.again = false;
		this.given = null;
		this.room = null;
	}
}

const NOTHING = Buffer.alloc(0);

/**
 * Cuts a chunk into whole messages, with what is cut off kept in `tail`: for connections on which little is said.
 * @param limit longest message, bytes
 * @param take is given each, as (chunk, start, end); false: no more is wanted, and nothing is kept
 * @returns false when a length is none that a message has, or beyond the limit
 */
export function eachMessage(
	tail: Tail,
	chunk: Buffer,
	limit: number,
	take: (chunk: Buffer, start: number, end: number) => boolean,
): boolean {
	const whole = tail.add(chunk);
	if (whole === null) return true;
	let at = 0;
	while (whole.length - at >= HEADER) {
		const length = readInt32(whole, at + 1);
		if (length < 4 || length > limit) return false;
		const next = at + 1 + length;
		if (next > whole.length) break;
		if (!take(whole, at, next)) return true;
		at = next;
	}
	if (at < whole.length) tail.keep(whole, at, whole.length - at < HEADER ? HEADER : 1 + readInt32(whole, at + 1));
	return true;
}
