// A connection of the proxy's own that one query is asked on, with another parameter each time: what is asked about comes as bytes
// of a Bind and is never part of a text. Answers come in the order of the questions. Made of a Server that has logged in, which
// nobody lends. PostgreSQL docs, "Extended Query".

import { PgError } from "../errors.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import { Backend, Frontend } from "../wire/codes.ts";
import { readError } from "../wire/error-response.ts";
import { eachMessage, Tail } from "../wire/frame.ts";
import { SYNC, TERMINATE } from "../wire/frontend-messages.ts";
import { Writer } from "../wire/writer.ts";
import type { Server } from "./server.ts";
import { type Rows, readRow } from "./task.ts";

/** An answer has no message longer than this; a guess, generous. */
const MESSAGE_LIMIT = 1 << 16;
/** Rows that are read of an answer: that there is more than one is all that anybody wants to know. */
const MOST_ROWS = 2;

interface Question {
	readonly rows: (string | null)[][];
	error: PgError | null;
	readonly done: (rows: Rows, error: PgError | null) => void;
}

export class Questions implements StreamOwner {
	private readonly stream: Stream;
	private readonly query: string;
	private readonly tail = new Tail();
	/** Not answered yet, in their order. */
	private readonly open: Question[] = [];
	private over = false;

	/** @param query with the parameter $1 */
	constructor(server: Server, query: string) {
		this.stream = server.stream;
		this.query = query;
		this.stream.owner = this;
	}

	/** @param done told once, in any case */
	ask(parameter: string, done: Question["done"]): void {
		if (this.over) {
			done([], LOST);
			return;
		}
		this.open.push({ rows: [], error: null, done });
		const value = Buffer.from(parameter);
		const out = new Writer(512 + value.length);
		out.begin(Frontend.Parse).string("").string(this.query).int16(0).end();
		out.begin(Frontend.Bind).string("").string("").int16(0).int16(1).int32(value.length).raw(value).int16(0).end();
		out.begin(Frontend.Execute).string("").int32(MOST_ROWS).end();
		this.stream.writeAll(out.raw(SYNC).bytes());
	}

	close(): void {
		if (this.over) return;
		this.stream.writeAll(TERMINATE);
		this.stream.end();
		this.onClose();
	}

	onDrain(): void {}

	onClose(): void {
		if (this.over) return;
		this.over = true;
		for (const { done } of this.open.splice(0)) done([], LOST);
	}

	onData(chunk: Buffer): void {
		if (this.over) return;
		const isProtocol = eachMessage(this.tail, chunk, MESSAGE_LIMIT, (whole, at, next) => {
			this.onMessage(whole, at, next);
			return !this.over;
		});
		if (isProtocol) return;
		this.stream.terminate();
		this.onClose();
	}

	private onMessage(chunk: Buffer, at: number, next: number): void {
		const question = this.open[0];
		switch (chunk[at]) {
			case Backend.DataRow:
				question?.rows.push(readRow(chunk, at));
				break;
			case Backend.ErrorResponse:
				if (question !== undefined) question.error = readError(chunk, at, next);
				break;
			case Backend.ReadyForQuery:
				this.open.shift();
				question?.done(question.rows, question.error);
		}
	}
}

const LOST = new PgError("FATAL", "08006", "connection lost");
