// Reads the fields of a message of the extended query protocol in order. Errors are those of PostgreSQL's pqformat.c: the
// statement fails, the session goes on.

import { PgError } from "../errors.ts";
import { endOfString, readInt16, readInt32 } from "../wire/frame.ts";

export class Body {
	private readonly chunk: Buffer;
	private at: number;
	private readonly stop: number;

	/** `chunk[at, stop)` is the message without its header; it must not change while this reads. */
	constructor(chunk: Buffer, at: number, stop: number) {
		this.chunk = chunk;
		this.at = at;
		this.stop = stop;
	}

	private need(bytes: number): void {
		if (bytes > this.stop - this.at) throw invalid("insufficient data left in message");
	}

	byte(): number {
		this.need(1);
		return this.chunk[this.at++]!;
	}

	int16(): number {
		this.need(2);
		this.at += 2;
		return readInt16(this.chunk, this.at - 2);
	}

	int32(): number {
		this.need(4);
		this.at += 4;
		return readInt32(this.chunk, this.at - 4);
	}

	string(): string {
		const end = endOfString(this.chunk, this.at, this.stop);
		if (end < 0) throw invalid("invalid string in message");
		const text = this.chunk.utf8Slice(this.at, end);
		this.at = end + 1;
		return text;
	}

	skip(bytes: number): void {
		this.need(bytes);
		this.at += bytes;
	}

	/** A list of Int16, behind its length. */
	int16s(): number[] {
		const list: number[] = [];
		for (let left = this.int16(); left > 0; left--) list.push(this.int16());
		return list;
	}

	/** All fields are read: nothing may be left. */
	end(): void {
		if (this.at !== this.stop) throw invalid("invalid message format");
	}
}

function invalid(message: string): PgError {
	return new PgError("ERROR", "08P01", message);
}
