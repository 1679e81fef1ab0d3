// A simple query of the proxy's own to a server, and what comes of it: settings are applied or asked for, a session is cleaned, a
// server is asked whether it is well. server.ts runs it; nobody else's bytes are on the connection meanwhile.

import { PgError } from "../errors.ts";
import { HEADER, readInt16, readInt32 } from "../wire/frame.ts";

/** Rows of an answer, in text format. */
export type Rows = readonly (readonly (string | null)[])[];

/** Most bytes of an answer, in one row and in all; the longest tells what settings a transaction has changed. A guess. */
const TASK_LIMIT = 32 << 20;
/** SQLSTATE "out_of_memory", for an answer that is longer. */
export const TOO_MUCH = "53200";

/** @param report the ErrorResponse that `error` is read from, with all of its fields; null when `error` is our own, or none */
export type TaskDone = (rows: Rows, error: PgError | null, report: Buffer | null) => void;

export class Task {
	private readonly rows: (string | null)[][] = [];
	private bytes = 0;
	private error: PgError | null = null;
	private report: Buffer | null = null;
	private readonly done: TaskDone;
	/** Its client is gone: whatever comes of it, the session is not what anybody thinks it is. */
	isOrphaned = false;

	/** @param done told when all is answered, and not at all when the connection goes before that */
	constructor(done: TaskDone) {
		this.done = done;
	}

	/** @param length of a DataRow, its length word @returns whether that is more than any answer may be */
	static isTooLong(length: number): boolean {
		return length > TASK_LIMIT;
	}

	/** A DataRow, whole. */
	row(chunk: Buffer, at: number, length: number): void {
		this.bytes += length;
		if (this.bytes <= TASK_LIMIT) this.rows.push(readRow(chunk, at));
		else this.error ??= new PgError("ERROR", TOO_MUCH, "the answer to a query of the proxy's is too long");
	}

	/** The ErrorResponse `chunk[at, next)`. */
	failed(error: PgError, chunk: Buffer, at: number, next: number): void {
		this.error = error;
		this.report = Buffer.from(chunk.subarray(at, next));
	}

	/** ReadyForQuery. */
	end(): void {
		this.done(this.rows, this.error, this.report);
	}
}

/** The values of a DataRow in text format. */
export function readRow(chunk: Buffer, start: number): (string | null)[] {
	const row: (string | null)[] = [];
	let at = start + HEADER + 2;
	for (let n = readInt16(chunk, start + HEADER); n > 0; n--) {
		const length = readInt32(chunk, at);
		at += 4;
		row.push(length < 0 ? null : chunk.utf8Slice(at, at + length));
		if (length > 0) at += length;
	}
	return row;
}
