// What a server says: `read` is the hot path back. It walks the messages of a chunk, passes them to the client as one run of bytes,
// and opens the few that matter: what they say of the books, of what is prepared and of the session is noted there. Bytes of a
// query of ours go to its Task. One for each Server, which it knows as its `RelayOwner` only.

import type { PgError } from "../errors.ts";
import type { Sink } from "../net/stream.ts";
import { Dirty } from "../parser/session.ts";
import { CLOSE_COMPLETE, PARSE_COMPLETE } from "../wire/backend-messages.ts";
import { Backend, TxStatus } from "../wire/codes.ts";
import { isFatal, readError, readSqlstate, rewriteMessage } from "../wire/error-response.ts";
import { endOfString, HEADER, readInt32, Tail } from "../wire/frame.ts";
import { Answer, type Books, Reply } from "./books.ts";
import { type Insertion, movePosition } from "./restoring.ts";
import type { ServerStatements, StatementClient } from "./server-statements.ts";
import type { SessionClient, SessionState } from "./session-state.ts";
import { NAME_PREFIX } from "./statement.ts";
import { readRow, Task } from "./task.ts";

/** A message of a server that we have to open (all but rows and COPY data) may be this long: 16 MiB, a guess. */
const OPENED_LIMIT = 16 << 20;

/** A client as its server's answers concern it. */
export interface RelayClient extends SessionClient {
	/** Null of a client that has prepared nothing. */
	readonly statements: StatementClient | null;
	readonly stream: Sink;
}

/** The Server whose messages are read. */
export interface RelayOwner {
	/** Whom the server is lent to; null: nobody, or nobody any more. */
	readonly client: RelayClient | null;
	/** The transaction status of the last ReadyForQuery. */
	status: TxStatus;
	/** The client takes no more: the server is not read until it does. */
	pause(): void;
	/** An ErrorResponse, for the counters. */
	countError(): void;
	/** Told of the NotificationResponse `chunk[at, next)` while nobody has the server; who has no such method does not listen. */
	readonly home: { onNotification?(chunk: Buffer, at: number, next: number): void };
	/** The connection is of no more use. */
	close(reason: string): void;
}

export class Relay {
	/** ReadyForQuery was the last thing that mattered in this chunk, and nothing is owed. */
	ready = false;
	/** The query of ours that is under way; else null. Set by the Server. */
	task: Task | null = null;
	/** The server's own last words (severity FATAL or PANIC); null before. */
	lastWords: PgError | null = null;
	/** A client has been passed the last words already. */
	passedOn = false;
	private readonly books: Books;
	private readonly statements: ServerStatements;
	private readonly session: SessionState;
	private readonly owner: RelayOwner;
	private readonly tail = new Tail();
	/** Bytes of a row or of COPY data that are still to come, to be passed on unopened. */
	private through = 0;
	/** Rows that the answer to the EXPLAIN under way shall end with; else null. */
	private notes: Buffer | null = null;
	/** Statements that were put into the Query under way (restoring.ts), whose answers are not for its client; null when none were. */
	private inserted: readonly Insertion[] | null = null;
	/** Which of the Query's statements these are, from 1 on; which of all is answered now, and whether it is one of them. */
	private insertedAt: ReadonlySet<number> = new Set();
	private statement = 1;
	private ofInsertion = false;

	constructor(books: Books, statements: ServerStatements, session: SessionState, owner: RelayOwner) {
		this.books = books;
		this.statements = statements;
		this.session = session;
		this.owner = owner;
	}

	/** No part of a message is here: the connection may go to another thread. */
	get isBetweenMessages(): boolean {
		return this.tail.bytes === 0 && this.through === 0;
	}

	/** The answer to the EXPLAIN that comes next shall end with these rows. */
	explain(rows: Buffer): void {
		this.notes = rows;
	}

	/** `inserted` was put into the Query that comes next: what it says is not for the client. */
	insert(inserted: readonly Insertion[]): void {
		this.inserted = inserted;
		this.insertedAt = new Set(inserted.flatMap(({ places }) => places));
		this.statement = 1;
	}

	/** @returns what is wrong with the message behind the last that was passed on; else null */
	read(piece: Buffer): string | null {
		this.ready = false;
		const { books, tail, task } = this;
		const chunk = tail.isUnused ? piece : tail.add(piece);
		if (chunk === null) return null;
		const end = chunk.length;
		const { client } = this.owner;
		const to = task === null && client !== null ? client.stream : null;
		let fault: string | null = null;
		let at = 0;
		let run = 0;
		/** Rows may come: looked up once for all that follow each other. */
		let rows = false;
		if (this.through > 0) {
			at = Math.min(this.through, end);
			this.through -= at;
		}
		if (books.front >= Reply.ParseFake) run = this.makeUp(to, chunk, run, at);
		walk: while (end - at >= HEADER) {
			const code = chunk[at]!;
			const length = readInt32(chunk, at + 1);
			if (length < 4) {
				fault = `a message of length ${length}`;
				break;
			}
			const next = at + 1 + length;
			if (code === Backend.DataRow || code === Backend.CopyData) {
				rows ||= books.front === Reply.Query || books.front === Reply.Execute;
				if (!rows) {
					if (next > end && books.front === Reply.ExecuteShow) break;
					if (!this.onShown(code, chunk, at)) {
						fault = UNASKED;
						break;
					}
					to?.out.add(chunk, run, at - run);
					run = next;
				} else if (task !== null) {
					if (Task.isTooLong(length)) {
						fault = `a row of ${length} bytes for a query of ours`;
						break;
					}
					if (next > end) break;
					task.row(chunk, at, length);
				} else if (this.ofInsertion) {
					if (next > end) break;
					to?.out.add(chunk, run, at - run);
					run = next;
				} else if (next > end) {
					this.through = next - end;
					at = end;
					break;
				}
				at = next;
				continue;
			}
			if (next > end) {
				if (length > OPENED_LIMIT) fault = `a message of ${length} bytes`;
				break;
			}
			rows = false;
			if (books.front === Reply.DescribeOurs && books.leavesUnanswered(code)) run = this.makeUp(to, chunk, run, at);
			switch (code) {
				case Backend.ReadyForQuery:
					if (!this.onReadyForQuery(chunk[at + HEADER]!)) {
						fault = UNASKED;
						break walk;
					}
					if (this.ready && to !== null && this.session.restoring !== null) {
						// The client is told ReadyForQuery when its settings are brought back.
						to.out.add(chunk, run, at - run);
						run = next;
					}
					break;
				case Backend.ErrorResponse: {
					// An ErrorResponse that nothing asks for can be the last words only.
					if (books.owed === 0 && !isFatal(chunk, at)) {
						fault = UNASKED;
						break walk;
					}
					const text = this.onErrorResponse(chunk, at, next);
					if (text !== null && to !== null) {
						to.out.add(chunk, run, at - run);
						to.out.addAll(text);
						run = next;
					}
					break;
				}
				default: {
					const reads = books.front === Reply.DescribeOurs || books.front === Reply.DescribeUnnamed;
					const answer = books.answered(code);
					if (answer === Answer.Unasked) {
						fault = UNASKED;
						break walk;
					}
					if (reads) this.onDescription(code, chunk, at, next);
					if (answer === Answer.Swallowed || (this.inserted !== null && this.isInserted(code))) {
						// Not the client's doing, so not the client's to see.
						to?.out.add(chunk, run, at - run);
						run = next;
					} else if (code === Backend.CommandComplete) {
						this.onCommandComplete(chunk, at, next);
						if (this.notes !== null && to !== null && chunk.latin1Slice(at + HEADER, next - 1) === "EXPLAIN") {
							to.out.add(chunk, run, at - run);
							to.out.addAll(this.notes);
							this.notes = null;
							run = at;
						}
					} else if (code === Backend.ParameterStatus) {
						if (!this.onParameterStatus(chunk, at, next, to !== null)) {
							fault = "it reports too many settings";
							break walk;
						}
						if (this.session.restoring !== null && to !== null) {
							to.out.add(chunk, run, at - run);
							run = next;
						}
					} else if (code === Backend.NoticeResponse || code === Backend.NotificationResponse) {
						run = this.onAside(code, to, chunk, run, at, next);
					} else if (code === Backend.CopyInResponse && to === null) {
						// Nobody is left to send the data.
						this.owner.close("its client is gone");
						return null;
					}
				}
			}
			at = next;
			if (books.front >= Reply.ParseFake) run = this.makeUp(to, chunk, run, at);
		}
		if (to !== null) {
			// `midMessage` is told before the write: what that sets going may want to say something of its own.
			to.midMessage = this.through > 0;
			if (!to.out.forward(chunk, run, at)) this.owner.pause();
		}
		if (fault === null && (at < end || !tail.isUnused)) this.keep(chunk, at);
		return fault;
	}

	/** Keeps what is here of a message whose end is not. */
	private keep(chunk: Buffer, at: number): void {
		this.tail.keep(chunk, at, chunk.length - at < HEADER ? HEADER : 1 + readInt32(chunk, at + 1));
	}

	// ---- messages that are opened ----------------------------------------------------------------------------------

	/** The row of a SHOW of ours. @returns false when nothing asks for it */
	private onShown(code: number, chunk: Buffer, at: number): boolean {
		const shown = this.books.shows();
		if (shown === null || code !== Backend.DataRow) return false;
		this.statements.onShown(shown, readRow(chunk, at)[0] ?? "");
		return true;
	}

	/** @returns false when nothing asks for it, or its status is none of I, T and E */
	private onReadyForQuery(status: number): boolean {
		const { books } = this;
		if (status !== TxStatus.Idle && status !== TxStatus.InBlock && status !== TxStatus.Failed) return false;
		if (!books.ready()) return false;
		this.owner.status = status;
		const { traces } = this.session;
		if (status === TxStatus.Idle && traces.alters) traces.endTransaction(books.owed === 0);
		this.ready = books.owed === 0;
		if (this.ready && this.statements.deallocates)
			this.statements.undoDeallocations(this.owner.client?.statements ?? null);
		this.notes = null;
		this.inserted = null;
		this.ofInsertion = false;
		this.session.givesValues = false;
		return true;
	}

	/** Whether the message answers what was put into the client's Query (restoring.ts). */
	private isInserted(code: number): boolean {
		const is = this.ofInsertion;
		if (code === Backend.CommandComplete) {
			this.statement++;
			this.ofInsertion = this.insertedAt.has(this.statement);
		}
		return is && (code === Backend.RowDescription || code === Backend.CommandComplete);
	}

	/** Says the replies that the server was spared, as soon as their turn comes. @returns where the run goes on */
	private makeUp(to: Sink | null, chunk: Buffer, run: number, at: number): number {
		const { books } = this;
		while (books.front >= Reply.ParseFake) {
			const mark = books.madeUp();
			if (mark === Reply.CopyEnd || to === null) continue;
			to.out.add(chunk, run, at - run);
			run = at;
			to.out.addAll(mark === Reply.ParseFake ? PARSE_COMPLETE : CLOSE_COMPLETE);
		}
		return run;
	}

	/** When everything owed is a reply that we make up, no answer of the server will bring it along. */
	answerFakes(): void {
		const to = this.owner.client?.stream;
		if (to === undefined || this.books.front < Reply.ParseFake) return;
		this.makeUp(to, NOTHING, 0, 0);
		to.out.flush();
	}

	/** Part of the answer to a Describe that we read, though it may not be ours. */
	private onDescription(code: number, chunk: Buffer, at: number, next: number): void {
		const message = chunk.subarray(at, next);
		if (code === Backend.ParameterDescription) this.statements.onParameters(message);
		const behind = this.books.described();
		if (behind === null) return;
		const columns = code === Backend.RowDescription ? message : null;
		this.statements.onColumns(behind, columns, this.owner.client?.statements ?? null);
	}

	private onCommandComplete(chunk: Buffer, start: number, end: number): void {
		// A tag of a row-returning or row-changing command: SELECT, INSERT, UPDATE, DELETE, COPY, FETCH, MERGE, BEGIN …
		// Only these first letters begin tags that change the session: S(ET), R(ESET), D(EALLOCATE, ISCARD), L(ISTEN), P(REPARE).
		const c = chunk[start + HEADER]!;
		if (c === 83 && chunk[start + HEADER + 2] === 76) return; // SELECT
		const { session } = this;
		const { traces } = session;
		if (session.follower !== null && this.task === null)
			session.follower.onTag(chunk.latin1Slice(start + HEADER, end - 1));
		const isIdle = this.owner.status === TxStatus.Idle;
		// Outside of a transaction block what is answered is done; so is what COMMIT ends.
		traces.noteCommand(isIdle || c === 67);
		if (c === 85 || c === 66) return; // UPDATE BEGIN
		// Of the tags that begin like INSERT, COMMIT and COPY, few mean anything here.
		if ((c === 73 || c === 67) && !isUncommon(chunk, start + HEADER, end)) return;
		const tag = chunk.latin1Slice(start + HEADER, end - 1);
		if (this.task === null) traces.noteTag(tag, isIdle);
		switch (tag) {
			case "DEALLOCATE ALL":
			case "DISCARD ALL":
				if (session.restoring !== null) session.restoring.hasRun = true;
				this.statements.clear();
				this.owner.client?.statements?.onStatementsGone();
				break;
			case "DEALLOCATE":
				// DEALLOCATE of a name that the client made up may be of one of ours: nothing is sure to be here any more.
				if (!this.statements.onDeallocated() && this.task === null) traces.leave(Dirty.Prepared);
				break;
			case "PREPARE":
				traces.leave(Dirty.Prepared);
				break;
			case "ROLLBACK":
				traces.noteRollback();
				break;
			case "LISTEN":
				traces.leave(Dirty.Listen);
				break;
			case "SET":
			case "RESET":
				if (session.restoring !== null) session.restoring.hasRun = true;
				if (this.task === null) traces.noteSet();
				break;
		}
	}

	/** @returns the message with our statement names put back to the client's, or null when it can go as it is. */
	private onErrorResponse(chunk: Buffer, start: number, end: number): Buffer | null {
		const { owner, session, task } = this;
		const { client } = owner;
		owner.countError();
		if (STALE.test(readSqlstate(chunk, start, end))) this.statements.distrust();
		if (task === null) session.restoring?.onError();
		// Right behind its answer a server's last words are none about the query.
		else if (!this.ready) task.failed(readError(chunk, start, end), chunk, start, end);
		session.traces.noteError();
		const refusal = this.books.refusal();
		this.undo();
		// Severity FATAL or PANIC: the server closes next, and has said why.
		if (isFatal(chunk, start)) {
			this.lastWords = readError(chunk, start, end);
			// Right behind the last answer, with which the client lets go of the server. A client that does not is told when it closes.
			if (this.ready) return NOTHING;
			this.passedOn = client !== null && task === null;
		}
		if (refusal !== undefined) return refusal;
		if (this.inserted !== null) return movePosition(chunk, start, end, this.inserted);
		const text = chunk.indexOf(NAME_PREFIX, start, "latin1");
		if (text < 0 || text >= end || client === null) return null;
		return rewriteMessage(chunk, start, end, (message) =>
			message.replace(/__pgdog_\d+/g, (name) => client.statements?.clientName(name) ?? name),
		);
	}

	/** What was sent behind the message that failed, up to the next Sync, has not happened. */
	private undo(): void {
		const { task } = this;
		const undone = this.books.failed(task !== null);
		const certain = this.statements.undo(undone, task === null ? (this.owner.client?.statements ?? null) : null);
		// The Query might have been a DEALLOCATE.
		if (!certain || undone.query) this.session.traces.leave(Dirty.Prepared);
	}

	/** @param isLent its client may have caused it @returns false when too much is reported (`Reports`) */
	private onParameterStatus(chunk: Buffer, start: number, end: number, isLent: boolean): boolean {
		const stop = endOfString(chunk, start + HEADER, end);
		if (stop < 0) return true;
		const name = chunk.utf8Slice(start + HEADER, stop);
		const value = chunk.utf8Slice(stop + 1, end - 1);
		if (isLent) this.session.onReport(name);
		return this.session.reports.add(name, value);
	}

	/** NoticeResponse or NotificationResponse. @returns where the run goes on */
	private onAside(code: number, to: Sink | null, chunk: Buffer, run: number, at: number, next: number): number {
		if (code === Backend.NoticeResponse) {
			if (to === null && this.task === null) this.onNotice(chunk, at, next);
			return run;
		}
		if (this.owner.client === null) this.owner.home.onNotification?.(chunk, at, next);
		if (to === null || this.session.follower === null) return run;
		to.out.add(chunk, run, at - run);
		return next;
	}

	/** While nobody has the server: a crash or an immediate shutdown is told by a WARNING of class 57P0, and closes. */
	private onNotice(chunk: Buffer, at: number, next: number): void {
		if (readSqlstate(chunk, at, next).startsWith("57P0")) this.lastWords = readError(chunk, at, next);
	}
}

/** A tag that begins like INSERT, COMMIT or COPY, and is none of them. */
function isUncommon(chunk: Buffer, at: number, end: number): boolean {
	const second = chunk[at + 1];
	if (second === 78) return false; // INSERT
	// CREATE, IMPORT …; COMMIT PREPARED is longer than COMMIT, COPY and the number of its rows.
	return second !== 79 || (chunk[at + 2] === 77 && end - at > 8);
}

/** SQLSTATEs of errors that may be about types or objects that a statement was given when it was parsed, earlier, for somebody else. */
const STALE = /^(0A|22|42|XX)/;

const NOTHING = Buffer.alloc(0);

const UNASKED = "an answer to what it was not asked";
