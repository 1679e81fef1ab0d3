// One connection to PostgreSQL: what it owes (`replies`), what state its session is in (settings, statements, dirt),
// and whom it works for now. Its bytes go to the client it is lent to, unopened where possible, or to a task of our
// own (login, settings, cleaning). The pool decides who gets it; it knows its client only as a sink.

import { now } from "../clock.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { Sink, Stream, StreamOwner } from "../net/stream.ts";
import { Dirty, NO_FACTS, type Restores, type SessionFacts } from "../parser/session.ts";
import { Stat } from "../stats/counters.ts";
import { CLOSE_COMPLETE, PARSE_COMPLETE } from "../wire/backend-messages.ts";
import { Backend, TxStatus } from "../wire/codes.ts";
import { isFatal, readError, readSqlstate, rewriteMessage } from "../wire/error-response.ts";
import { endOfString, HEADER, readInt32, Tail } from "../wire/frame.ts";
import { parse, query, SYNC, TERMINATE } from "../wire/frontend-messages.ts";
import { Answer, Books, Reply, type Undone } from "./books.ts";
import { cleaning } from "./clean.ts";
import { askAll, askParameters, changeParameters, type ParameterSet, type ParameterSets } from "./parameters.ts";
import { Reports } from "./reports.ts";
import { concerns, type Insertion, movePosition, Restoring } from "./restoring.ts";
import { type MovingCopy, ServerStatements, type StatementClient } from "./server-statements.ts";
import { NAME_PREFIX } from "./statement.ts";
import type { Statements } from "./statements.ts";
import { type Rows, readRow, Task } from "./task.ts";
import { Traces } from "./traces.ts";

/** A message of a server that we have to open (all but rows and COPY data) may be this long: 16 MiB, a guess. */
const OPENED_LIMIT = 16 << 20;

/** Whom a server is lent to. */
export interface ServerClient {
	/** Null of a client that has prepared nothing. */
	readonly statements: StatementClient | null;
	readonly stream: Sink;
	/** The server answered everything it was asked; `server.status` says whether a transaction is open. */
	onReady(server: Server): void;
	/** Some of what it was asked is answered, but not all: `server.books` says what is owed. */
	onAnswers(server: Server): void;
	/** The server takes bytes again. */
	onServerDrain(): void;
	/** Settings of its StartupMessage. */
	readonly startup: ParameterSet;
	/** What the server reports from here on is not passed on: when its request is over, the client is told what has changed. */
	onReportsHeld(server: Server): void;
	/** The connection is gone. `error` is null when the server's own FATAL has been passed on. */
	onServerGone(error: PgError | null): void;
}

/** Who keeps servers: the pool. */
export interface ServerHome {
	readonly sets: ParameterSets;
	readonly counters: Float64Array;
	/** The server has no client, no task and nothing to clean. */
	onIdle(server: Server): void;
	/** Called once. */
	onGone(server: Server): void;
	/** The catalogue of its database may have changed. */
	onAltered(): void;
	/** Sends a CancelRequest; `cancelLanded` is called when no later query can be hit by it. */
	cancel(server: Server): void;
	rollbackTimeout(): number;
}

export const enum ServerState {
	/** StartupMessage sent; not in the pool yet. */
	Login,
	/** In the pool, clean, nobody's. */
	Idle,
	/** Lent to `client`. */
	Lent,
	/** Runs a query of ours; `client` may be waiting for its end. */
	Task,
	/** Its client is gone in mid-request: the answer is read and thrown away, then it is cleaned. */
	Draining,
	Closed,
}

/** What a server is when it moves to another thread. */
export interface MovingServer {
	fd: number;
	address: string;
	pid: number;
	secret: Uint8Array;
	applied: [string, string][];
	reported: [string, string][];
	statements: MovingCopy[];
	bornAt: number;
	usedAt: number;
	checkedAt: number;
	spread: number;
	generation: number;
}

export class Server implements StreamOwner {
	stream!: Stream;
	state: ServerState = ServerState.Login;
	client: ServerClient | null = null;
	readonly home: ServerHome;
	/** What it owes. */
	readonly books = new Books();
	status: TxStatus = TxStatus.Idle;

	/** Where it is: what the host's name stood for when the connection was opened. */
	address = "";
	/** BackendKeyData of the server itself; 0 when it sent none. */
	pid = 0;
	secret: Uint8Array = new Uint8Array(0);

	/** Settings that this session has beyond those of its login. */
	applied: ParameterSet;
	private readonly reports: Reports;
	readonly statements = new ServerStatements(this.books);

	/** What its client does to its session. */
	readonly traces: Traces;
	/** Settings that have to go back to the client's StartupMessage before it hears that its request is over. */
	restoring: Restoring | null = null;
	/** What was put into the Query under way, and is not for its client to see; null when nothing was. */
	inserted: readonly Insertion[] | null = null;
	/** The answer to one of them is under way. */
	private ofInsertion = false;
	/** Which of the Query's statements were put in, and which is answered next, from 1 on. */
	private insertedAt: ReadonlySet<number> = new Set();
	private statement = 1;
	/** The request under way sets something by name: a report of that needs no other cause. */
	private givesValues = false;
	/** Lent for as long as the client stays: what it does is not followed. */
	session = false;
	/** Rows that the answer to the EXPLAIN under way shall end with. */
	notes: Buffer | null = null;

	/** CancelRequests on their way to this server: it must not be lent until they have landed. */
	cancels = 0;
	/** One of them may come at any time. */
	private mayBeCancelled = false;
	private afterCancels: (() => void) | null = null;

	bornAt = now();
	/** End of the last loan. */
	usedAt = this.bornAt;
	/** Last proof that it answers. */
	checkedAt = this.bornAt;
	/** Start of the loan, and of the request under way. */
	lentAt = 0;
	requestAt = 0;
	/** When the last request of this loan was answered; 0 before the first. */
	readyAt = 0;
	/** Milliseconds after `bornAt` at which it is too old. */
	lifetime = Number.POSITIVE_INFINITY;
	/** Its share of `server_lifetime_jitter`, -1 to 1: drawn once, so that a reload, or another thread, finds the same lifetime. */
	spread = 2 * Math.random() - 1;
	/** The pool's at birth; RECONNECT raises the pool's. */
	generation = 0;
	/** Set while draining or rolling back: past it, the connection is closed. */
	deadline = 0;
	/** The query of ours under way asks whether it is well (pool/checks.ts). */
	probing = false;
	/** It went without our doing. */
	isLost = false;
	/** For SHOW SERVERS. */
	queries = 0;
	transactions = 0;
	rollbacks = 0;
	errors = 0;
	healthchecks = 0;

	private readonly tail = new Tail();
	/** Bytes of a row or of COPY data that are still to come, to be passed on unopened. */
	private through = 0;
	private task: Task | null = null;
	/** Its state before that. */
	private before = ServerState.Idle;
	/** ReadyForQuery was the last thing that mattered in this chunk. */
	private ready = false;
	/** The server's own last words, and whether a client has them already. */
	private fatal: PgError | null = null;
	private passedOn = false;
	private reason = "";
	private countedIn = 0;
	private countedOut = 0;

	constructor(home: ServerHome) {
		this.home = home;
		this.traces = new Traces(() => home.onAltered());
		this.applied = home.sets.empty;
		this.reports = new Reports(home.sets);
	}

	/** Its bytes come and go by this. */
	attach(stream: Stream): void {
		this.stream = stream;
	}

	/** It has let us in, and is nobody's. */
	loggedIn(): void {
		this.state = ServerState.Idle;
	}

	/** It was opened for this generation of its pool. */
	bornIn(generation: number): void {
		this.generation = generation;
	}

	/** @param lifetime ms @param jitter ms, of which it has its share */
	limitLifetime(lifetime: number, jitter: number): void {
		this.lifetime = lifetime + this.spread * jitter;
	}

	/** By name, what a transaction has set beyond the settings of the login; null takes one away. */
	noteApplied(changes: readonly [string, string | null][]): void {
		this.applied = this.home.sets.change(this.applied, changes);
	}

	/** Settings as the server reported them in ParameterStatus. */
	get reported(): ParameterSet {
		return this.reports.now;
	}

	/** At login, all of it. */
	set reported(reported: ParameterSet) {
		this.reports.now = reported;
	}

	// ---- bytes from the server -------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		const whole = this.tail.add(chunk);
		if (whole === null) return;
		this.ready = false;
		const fault = this.relay(whole);
		if (this.books.isInDoubt) {
			// The books may be off by one ReadyForQuery, which is no fault of the server's. No driver does this; whoever does must begin anew.
			this.close(
				"Sync during COPY",
				new PgError("FATAL", "08P01", "Sync in the middle of CopyData of a COPY that failed"),
			);
			return;
		}
		if (fault !== null) {
			// At once: it must not be lent in the moment before its socket closes. A check will find out whether all of it is like that.
			this.isLost = true;
			this.close(`it broke the protocol: ${fault}`);
			throw new ProtocolError(fault);
		}
		// Its last words, while nobody had it: it must not be lent in the moment before it closes.
		if (this.fatal !== null && this.state === ServerState.Idle) this.closeDying(this.fatal);
		if (this.ready && this.state !== ServerState.Closed) this.onReadyForQuery();
		else if (this.state === ServerState.Lent) this.client?.onAnswers(this);
	}

	/**
	 * The hot path back: walks the messages, passes them to the client as one run, opens the few that matter.
	 * @returns what is wrong with the message behind the last that was passed; else null
	 */
	private relay(chunk: Buffer): string | null {
		const end = chunk.length;
		const { books, task } = this;
		const to = task === null && this.client !== null ? this.client.stream : null;
		let fault: string | null = null;
		let at = 0;
		let run = 0;
		/** Rows may come: looked up once for all that follow each other. */
		let rows = false;
		if (this.through > 0) {
			at = Math.min(this.through, end);
			this.through -= at;
		}
		if (books.isFake) run = this.makeUp(to, chunk, run, at);
		walk: while (end - at >= HEADER) {
			const code = chunk[at]!;
			const length = readInt32(chunk, at + 1);
			if (length < 4) {
				fault = `a message of length ${length}`;
				break;
			}
			const next = at + 1 + length;
			if (code === Backend.DataRow || code === Backend.CopyData) {
				rows ||= books.expectsRows;
				if (!rows) {
					const shown = books.shows();
					if (shown !== null && code === Backend.DataRow) {
						if (next > end) break;
						this.statements.onShown(shown, readRow(chunk, at)[0] ?? "");
						if (to !== null) to.out.add(chunk, run, at - run);
						at = next;
						run = next;
						continue;
					}
					fault = UNASKED;
					break;
				}
				if (task !== null) {
					if (Task.isTooLong(length)) {
						fault = `a row of ${length} bytes for a query of ours`;
						break;
					}
					if (next > end) break;
					task.row(chunk, at, length);
				} else if (this.ofInsertion) {
					if (next > end) break;
					if (to !== null) to.out.add(chunk, run, at - run);
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
			if (!books.isPlain && books.leavesUnanswered(code)) run = this.makeUp(to, chunk, run, at);
			switch (code) {
				case Backend.ReadyForQuery:
					if (!books.ready() || !isStatus(chunk[at + HEADER]!)) {
						fault = UNASKED;
						break walk;
					}
					this.status = chunk[at + HEADER]!;
					if (this.status === TxStatus.Idle) this.traces.endTransaction(books.owed === 0);
					this.ready = books.owed === 0;
					this.notes = null;
					this.givesValues = false;
					this.inserted = null;
					this.ofInsertion = false;
					if (this.ready && to !== null && this.restoring !== null) {
						// Its client says it when that is done.
						to.out.add(chunk, run, at - run);
						run = next;
					}
					break;
				case Backend.ErrorResponse: {
					// Unasked it can be the last words only.
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
					const reads = !books.isPlain && books.isRead;
					const answer = books.answered(code);
					if (answer === Answer.Unasked) {
						fault = UNASKED;
						break walk;
					}
					if (reads) this.onDescription(code, chunk, at, next);
					if (answer === Answer.Swallowed || (this.inserted !== null && this.isInserted(code))) {
						// Not the client's doing, so not the client's to see.
						if (to !== null) to.out.add(chunk, run, at - run);
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
						if (!this.onParameterStatus(chunk, at, next)) {
							fault = "it reports too many settings";
							break walk;
						}
						if (this.restoring !== null && to !== null) {
							to.out.add(chunk, run, at - run);
							run = next;
						}
					} else if (code === Backend.NoticeResponse) {
						// A crash or an immediate shutdown is told by a WARNING of the class of operator interventions, and closes.
						if (this.state === ServerState.Idle && readSqlstate(chunk, at, next).startsWith("57P0"))
							this.fatal = readError(chunk, at, next);
					} else if (code === Backend.CopyInResponse && to === null) {
						// Nobody is left to send the data.
						this.close("its client is gone");
						return null;
					}
				}
			}
			at = next;
			if (books.isFake) run = this.makeUp(to, chunk, run, at);
		}
		if (to !== null) {
			// Told before the write: what that sets going may want to say something of its own.
			to.midMessage = this.through > 0;
			if (!to.out.forward(chunk, run, at)) this.stream.pause();
		}
		if (fault === null) this.tail.keep(chunk, at, end - at < HEADER ? HEADER : 1 + readInt32(chunk, at + 1));
		return fault;
	}

	/** The message answers what was put into the client's Query (backend/restoring.ts). */
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
		while (books.isFake) {
			const mark = books.madeUp();
			if (mark === Reply.CopyEnd || to === null) continue;
			to.out.add(chunk, run, at - run);
			run = at;
			to.out.addAll(mark === Reply.ParseFake ? PARSE_COMPLETE : CLOSE_COMPLETE);
		}
		return run;
	}

	/** Part of the answer to a Describe that we read, though it may not be ours. */
	private onDescription(code: number, chunk: Buffer, at: number, next: number): void {
		const message = chunk.subarray(at, next);
		if (code === Backend.ParameterDescription) this.statements.onParameters(message);
		const behind = this.books.described();
		if (behind !== null)
			this.statements.onColumns(
				behind,
				code === Backend.RowDescription ? message : null,
				this.client?.statements ?? null,
			);
	}

	private syncIfNeeded(): void {
		if (this.books.endsInSync()) return;
		this.stream.writeAll(SYNC);
		this.books.sync();
	}

	/** When everything owed is a reply that we make up, no answer of the server will bring it along. */
	answerFakes(): void {
		const to = this.client?.stream;
		if (to === undefined || !this.books.isFake) return;
		this.makeUp(to, NOTHING, 0, 0);
		to.out.flush();
	}

	private onCommandComplete(chunk: Buffer, start: number, end: number): void {
		// A tag of a row-returning or row-changing command: SELECT, INSERT, UPDATE, DELETE, COPY, FETCH, MERGE, BEGIN …
		// Only these first letters begin tags that change the session: S(ET), R(ESET), D(EALLOCATE, ISCARD), L(ISTEN), P(REPARE).
		const c = chunk[start + HEADER]!;
		if (c === 83 && chunk[start + HEADER + 2] === 76) return; // SELECT
		const { traces } = this;
		// Outside of a transaction block what is answered is done; so is what COMMIT ends.
		traces.noteCommand(this.status === TxStatus.Idle || c === 67);
		if (c === 85 || c === 66) return; // UPDATE BEGIN
		// Of the tags that begin like INSERT, COMMIT and COPY, few mean anything here.
		if ((c === 73 || c === 67) && !isUncommon(chunk, start + HEADER, end)) return;
		const tag = chunk.latin1Slice(start + HEADER, end - 1);
		if (this.task === null) traces.noteTag(tag, this.status === TxStatus.Idle);
		switch (tag) {
			case "DEALLOCATE ALL":
			case "DISCARD ALL":
				if (this.restoring !== null) this.restoring.hasRun = true;
				this.forgetStatements();
				this.client?.statements?.onStatementsGone();
				break;
			case "DEALLOCATE":
				// Of a name that the client made up may be one of ours: nothing is sure to be here any more.
				if (this.statements.deallocations > 0) this.statements.deallocations--;
				else if (this.task === null) traces.leave(Dirty.Prepared);
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
				if (this.restoring !== null) this.restoring.hasRun = true;
				if (this.task === null) traces.noteSet();
				break;
		}
	}

	private forgetStatements(): void {
		this.statements.clear();
	}

	/** @returns the message with our statement names put back to the client's, or null when it can go as it is. */
	private onErrorResponse(chunk: Buffer, start: number, end: number): Buffer | null {
		this.home.counters[Stat.errors]!++;
		this.errors++;
		const sqlstate = readSqlstate(chunk, start, end);
		if (mayBeStale(sqlstate)) this.statements.distrust();
		if (this.task !== null) this.task.failed(readError(chunk, start, end));
		else this.restoring?.onError();
		this.traces.noteError();
		const refusal = this.books.refusal();
		this.undo(this.books.failed(this.task !== null));
		const text = chunk.indexOf(NAME_PREFIX, start, "latin1");
		// Severity FATAL or PANIC: the server closes next, and has said why.
		if (isFatal(chunk, start)) {
			this.fatal = readError(chunk, start, end);
			// Right behind the last answer, with which the client lets go of it. Who does not is told when it closes.
			if (this.ready) return NOTHING;
			this.passedOn = this.client !== null && this.task === null;
		}
		if (refusal !== undefined) return refusal;
		if (this.inserted !== null) return movePosition(chunk, start, end, this.inserted);
		if (text < 0 || text >= end || this.client === null) return null;
		const { client } = this;
		return rewriteMessage(chunk, start, end, (message) =>
			message.replace(/__pgdog_\d+/g, (name) => client.statements?.clientName(name) ?? name),
		);
	}

	/** What was sent behind the message that failed, up to the next Sync, has not happened. */
	private undo(undone: Undone): void {
		const certain = this.statements.undo(undone, this.task === null ? (this.client?.statements ?? null) : null);
		// The Query might have been a DEALLOCATE.
		if (!certain || undone.query) this.traces.leave(Dirty.Prepared);
	}

	/** @returns false when there is too much of it */
	private onParameterStatus(chunk: Buffer, start: number, end: number): boolean {
		const stop = endOfString(chunk, start + HEADER, end);
		if (stop < 0) return true;
		const name = chunk.utf8Slice(start + HEADER, stop);
		const value = chunk.utf8Slice(stop + 1, end - 1);
		if (this.state === ServerState.Lent) this.onReport(name);
		return this.reports.add(name, value);
	}

	/** Whatever changed it, a function perhaps: the session value may have changed with it. */
	private onReport(name: string): void {
		if (READ_ONLY_REPORTS.has(name)) return;
		const setting = name.toLowerCase();
		const { client } = this;
		if (this.restoring !== null) this.restoring.noteReported(setting);
		else if (client?.startup.values.has(setting) && !this.givesValues && !this.traces.sets?.has(setting))
			this.beginRestoring(client).noteReported(setting);
		if (!this.session) this.traces.noteReport(setting);
	}

	private beginRestoring(client: ServerClient): Restoring {
		if (this.restoring === null) {
			this.restoring = new Restoring();
			client.onReportsHeld(this);
		}
		return this.restoring;
	}

	/** A statement was said: what it does to its session. @param isBound its parameters come in a Bind */
	note(facts: SessionFacts, isBound = false): void {
		if (facts === NO_FACTS) return;
		this.traces.noteObjects(facts);
		this.noteRestores(facts.restores, facts.sets.length > 0);
		// What a session does that keeps its server is followed no further.
		if (!this.session) this.traces.note(facts, isBound);
	}

	/** What a statement may give its default. */
	noteRestores(restores: Restores | null, givesValues: boolean): void {
		if (givesValues) this.givesValues = true;
		const { client } = this;
		if (restores !== null && client !== null && concerns(restores, client.startup))
			this.beginRestoring(client).note(restores, client.startup);
		else if (givesValues) this.restoring?.doubt();
	}

	/** Brings the client's settings back. On an error they are the server's. */
	restore(startup: ParameterSet, done: (error: PgError | null) => void): void {
		if (this.status === TxStatus.Failed) {
			// Nothing can be done before the ROLLBACK, or ROLLBACK TO, which may undo it all.
			this.restoring?.doubt();
			done(null);
			return;
		}
		const sql = this.restoring?.sql(startup, this.status === TxStatus.InBlock) ?? "";
		this.restoring = null;
		if (sql === "") done(null);
		else this.run(sql, (_, error) => done(error));
	}

	private onReadyForQuery(): void {
		const { task } = this;
		if (task !== null) {
			this.endTask(task);
			return;
		}
		if (this.state === ServerState.Draining) this.afterDraining();
		else if (this.client !== null) this.client.onReady(this);
	}

	// ---- loans -----------------------------------------------------------------------------------------------------

	/** @param time `now()` @param session for as long as the client stays */
	lend(client: ServerClient, time: number, session: boolean): void {
		this.state = ServerState.Lent;
		this.client = client;
		this.session = session;
		this.lentAt = time;
		this.requestAt = this.lentAt;
		this.readyAt = 0;
		this.traces.begin();
		this.restoring = null;
		this.inserted = null;
		this.ofInsertion = false;
		this.givesValues = false;
		this.statements.lent();
	}

	/** The client asks something, and nothing was owed. @param time `now()` */
	beginRequest(time: number): void {
		this.requestAt = time;
	}

	/** All that the client has asked is answered. @param time `now()` */
	endRequest(time: number): void {
		this.readyAt = time;
		this.queries++;
	}

	/** Of those no transaction is open any more. In session pooling another may come in the same loan. */
	endTransaction(): void {
		this.transactions++;
	}

	goOn(): void {
		this.lentAt = this.readyAt;
	}

	/** The transaction that was held back for the client has begun here. @param time `now()` */
	begun(time: number): void {
		this.readyAt = time;
	}

	/** The answer to the EXPLAIN that comes next shall end with these rows. */
	explain(rows: Buffer): void {
		this.notes = rows;
	}

	/** This was put into the Query that comes next: what it says is not for the client. */
	insert(inserted: readonly Insertion[]): void {
		this.inserted = inserted;
		this.insertedAt = new Set(inserted.flatMap(({ places }) => places));
		this.statement = 1;
	}

	/** A loan ends in which the client was asked nothing: its session has nothing of the client's. */
	returnUnused(): void {
		this.session = false;
		this.giveBack();
	}

	/** A client's loan ends between transactions. What it left is cleaned first, then the pool has the server back. */
	giveBack(): void {
		this.client = null;
		// Stopped for a client that reads slowly: what is still to be read is not for it any more.
		this.stream.resume();
		this.count();
		if (this.session) this.discardAll();
		else if (this.traces.dirty !== 0) this.clean();
		else this.idle();
	}

	/** The client is gone, at any point. The server is brought back to a clean state, or closed. */
	abandon(recovery: "recover" | "rollback_only" | "drop"): void {
		this.client = null;
		if (this.state === ServerState.Closed) return;
		// What the client would have done then, its settings brought back perhaps, is nothing for the next one's session.
		this.afterCancels = null;
		this.stream.resume();
		const { books } = this;
		const cutOff = this.stream.midMessage;
		const busy = books.owed > 0 || this.task !== null || books.skipping;
		// A COPY waits for data that will not come; whether a Sync sent with it will be answered, nobody can tell.
		const open = (books.unsynced && !books.skipping) || books.copyIn;
		const clean = !busy && this.status === TxStatus.Idle && !cutOff && !open;
		if (open) {
			// PostgreSQL rolls a batch without Sync back when its client goes; our Sync would commit it.
			this.cancelUnwanted();
			this.close("client disconnected in the middle of a batch");
			return;
		}
		if (cutOff || (recovery === "drop" && !clean) || (recovery === "rollback_only" && busy)) {
			this.close("client disconnected in the middle of a request");
			return;
		}
		this.traces.giveUp();
		this.deadline = now() + this.home.rollbackTimeout();
		if (this.task !== null) {
			// Settings were being applied or asked for; how that ended no longer matters.
			this.task.isOrphaned = true;
			return;
		}
		if (!busy) {
			this.afterDraining();
			return;
		}
		this.home.counters[Stat.re_synced]!++;
		this.cancelUnwanted();
		if (this.stream.queued > 0 || books.owed > WORTH_DRAINING) {
			this.close("client disconnected with a deep pipeline under way");
			return;
		}
		this.state = ServerState.Draining;
		this.syncIfNeeded();
	}

	/**
	 * Nobody waits for what it runs. A COMMIT is carried out all the same, as without a proxy: whoever waited for standbys to have the
	 * transaction would find it without them, were that wait cancelled (PostgreSQL docs, "Synchronous Replication").
	 */
	private cancelUnwanted(): void {
		if (!this.books.mayCommit) this.home.cancel(this);
	}

	/** The janitor's look at a server in state Draining: a cancel that came before PostgreSQL had begun with the query did nothing. */
	cancelAgain(): void {
		if (this.books.owed > 0 && this.cancels === 0) this.cancelUnwanted();
	}

	private afterDraining(): void {
		this.state = ServerState.Draining;
		if (this.status === TxStatus.Idle) {
			this.traces.giveUp();
			this.giveBack();
			return;
		}
		this.home.counters[Stat.rollbacks]!++;
		this.rollbacks++;
		this.run("ROLLBACK", (_, error) => {
			if (error !== null || this.status !== TxStatus.Idle) this.close("ROLLBACK failed");
			else this.afterDraining();
		});
	}

	private clean(): void {
		const dirty = this.traces.take();
		const sql = cleaning(dirty);
		if (sql === null) {
			this.close("the session cannot be cleaned");
			return;
		}
		this.home.counters[Stat.cleaned]!++;
		if ((dirty & Dirty.Prepared) !== 0) this.forgetStatements();
		if ((dirty & Dirty.Settings) !== 0) this.applied = this.home.sets.empty;
		if (sql === "") {
			this.idle();
			return;
		}
		this.run(sql, (_, error) => {
			if (error !== null) this.close(`cleaning failed: ${error.message}`);
			else this.idle();
		});
	}

	/** Session pooling: nothing is tracked, all of it goes. */
	private discardAll(): void {
		this.session = false;
		this.home.counters[Stat.cleaned]!++;
		this.run("DISCARD ALL", (_, error) => {
			if (error !== null) {
				this.close(`DISCARD ALL failed: ${error.message}`);
				return;
			}
			this.forgetStatements();
			this.applied = this.home.sets.empty;
			this.traces.take();
			this.traces.settle();
			this.idle();
		});
	}

	private idle(): void {
		if (this.cancels > 0) {
			// A cancel under way must not hit the next client's query.
			this.whenCancelled(() => this.idle());
			return;
		}
		if (this.state === ServerState.Closed) return;
		if (this.fatal !== null) {
			this.closeDying(this.fatal);
			return;
		}
		if (this.mayBeCancelled) {
			this.close("a CancelRequest to it may still be on its way");
			return;
		}
		this.state = ServerState.Idle;
		this.deadline = 0;
		// The end of its last request or task, which the clock was asked for then.
		this.usedAt = Math.max(this.readyAt, this.checkedAt);
		this.home.onIdle(this);
	}

	/** A CancelRequest is on its way to it; `cancelLanded` is called when it has come. */
	cancelSent(): void {
		this.cancels++;
	}

	/** Runs `then` once no CancelRequest is on its way; replaces an earlier one. */
	whenCancelled(then: () => void): void {
		this.afterCancels = then;
	}

	/** @param isOver as `sendCancel` says: else it may come when somebody else has this server */
	cancelLanded(isOver: boolean): void {
		if (!isOver) this.mayBeCancelled = true;
		if (--this.cancels > 0) return;
		const then = this.afterCancels;
		this.afterCancels = null;
		then?.();
	}

	// ---- our own queries -------------------------------------------------------------------------------------------

	/** Runs a simple query; the server must owe nothing. `done` is not called when the connection dies on the way. */
	run(sql: string, done: (rows: Rows, error: PgError | null) => void): void {
		if (this.state === ServerState.Closed) return;
		this.startTask(done);
		this.books.query();
		// A simple query ends the unnamed statement, whosever it was.
		this.statements.dropUnnamed();
		this.stream.writeAll(query(sql));
	}

	/** Ends the batch that the client has not ended, by a Sync that the client sees nothing of; the server must owe nothing. */
	endBatch(done: () => void): void {
		if (this.state === ServerState.Closed) return;
		this.startTask(done);
		this.books.sync();
		this.stream.writeAll(SYNC);
	}

	private startTask(done: (rows: Rows, error: PgError | null) => void): void {
		this.task = new Task(done);
		this.before = this.state;
		this.state = ServerState.Task;
		this.requestAt = now();
		this.deadline = this.requestAt + this.home.rollbackTimeout();
	}

	private endTask(task: Task): void {
		this.task = null;
		this.state = this.before;
		this.deadline = 0;
		this.checkedAt = now();
		if (!task.isOrphaned) {
			task.end();
			return;
		}
		this.traces.leave(Dirty.Settings);
		this.afterDraining();
	}

	/**
	 * An empty query: a connection that a firewall forgot, or a frozen server, is found out by it.
	 * @param timeout ms, then it is closed
	 * @param passed it answers, and is idle again
	 */
	probe(timeout: number, passed: () => void): void {
		this.healthchecks++;
		this.probing = true;
		this.run(";", (_, error) => {
			if (error !== null) {
				this.close(`healthcheck failed: ${error.message}`);
				return;
			}
			this.probing = false;
			passed();
		});
		this.deadline = now() + timeout;
	}

	/** Brings the session's settings to `wanted`. On an error the settings are what they were. */
	apply(wanted: ParameterSet, done: (error: PgError | null) => void): void {
		const sql = changeParameters(this.applied, wanted);
		if (sql === "") {
			done(null);
			return;
		}
		this.run(sql, (_, error) => {
			if (error === null) this.applied = wanted;
			done(error);
		});
	}

	/**
	 * After a transaction that changed settings: asks what they are now, as `askParameters` says it. After an error a SET may
	 * not have happened, and a default is nothing that the session has set: then only what it has set itself has a value.
	 */
	ask(names: readonly string[], most: number, done: (rows: Rows | PgError) => void): void {
		const { errored, resets, resetsAll } = this.traces;
		const ownOnly = errored || resets !== null || resetsAll;
		this.run(askParameters(names, ownOnly, most), (rows, error) => done(error ?? rows));
	}

	/** Asks for all that this session has set, as `askAll` of parameters.ts says it. */
	askAll(others: readonly string[], most: number, done: (rows: Rows | PgError) => void): void {
		this.run(askAll(others, most), (rows, error) => done(error ?? rows));
	}

	// ---- refusals ----

	/**
	 * A statement that must not be sent, in an open transaction: what is sent in its place fails, so that the transaction
	 * has failed for PostgreSQL too, and the client gets `error` for it.
	 * @returns the message to send
	 */
	refuse(error: PgError, mark: Reply.RefusedQuery | Reply.RefusedBind): Buffer {
		this.books.refuse(error, mark);
		this.statements.dropUnnamed();
		return mark === Reply.RefusedQuery ? REFUSED_QUERY : REFUSED_BIND;
	}

	/** Closes what the cache has dropped, then is idle again. Not while it may be lent. */
	closeDropped(): void {
		const names = this.statements.takeDropped();
		// DEALLOCATE and not Close: one message with one answer, like all our own queries.
		this.idleTask(names.map((name) => `DEALLOCATE ${name}`).join("; "));
	}

	private idleTask(sql: string): void {
		this.run(sql, (_, error) => {
			if (error !== null) this.close(error.message);
			else this.idle();
		});
	}

	// ---- moving between threads ------------------------------------------------------------------------------------

	/** Lets go of the connection, which lives on under a descriptor of its own; null when it cannot. Idle only. */
	leave(): MovingServer | null {
		const unfinished = this.tail.bytes > 0 || this.through > 0;
		if (this.cancels > 0 || this.stream.queued > 0 || this.books.owed > 0 || unfinished) return null;
		this.count();
		const fd = this.stream.detach();
		if (fd < 0) return null;
		this.state = ServerState.Closed;
		return {
			fd,
			address: this.address,
			pid: this.pid,
			secret: this.secret,
			applied: [...this.applied.values],
			reported: [...this.reported.values],
			statements: this.statements.leave(),
			bornAt: this.bornAt,
			usedAt: this.usedAt,
			checkedAt: this.checkedAt,
			spread: this.spread,
			generation: this.generation,
		};
	}

	/** Takes over what another thread knew of this connection. */
	arrive(moving: MovingServer, statements: Statements): void {
		const { sets } = this.home;
		this.address = moving.address;
		this.pid = moving.pid;
		this.secret = moving.secret;
		this.applied = sets.of(new Map(moving.applied));
		this.reported = sets.of(new Map(moving.reported));
		this.bornAt = moving.bornAt;
		this.usedAt = moving.usedAt;
		this.checkedAt = moving.checkedAt;
		this.spread = moving.spread;
		this.generation = moving.generation;
		this.statements.arrive(moving.statements, statements);
	}

	// ---- life ------------------------------------------------------------------------------------------------------

	onDrain(): void {
		this.client?.onServerDrain();
	}

	/** Adds what went over the wire since the last call to the pool's counters. */
	count(): void {
		const { counters } = this.home;
		counters[Stat.received]! += this.stream.bytesIn - this.countedIn;
		counters[Stat.sent]! += this.stream.bytesOut - this.countedOut;
		this.countedIn = this.stream.bytesIn;
		this.countedOut = this.stream.bytesOut;
	}

	/** The one way out. A client that still has the server is told `error`. */
	close(reason: string, error = new PgError("FATAL", "08006", `server connection closed: ${reason}`)): void {
		if (this.state === ServerState.Closed) return;
		this.reason = reason;
		const { stream } = this;
		const orderly = this.books.owed === 0 && !stream.midMessage;
		if (orderly) stream.writeAll(TERMINATE);
		else this.home.counters[Stat.force_closed]!++;
		this.gone(error);
		if (orderly) stream.end();
		else stream.terminate();
	}

	private closeDying(fatal: PgError): void {
		this.isLost = true;
		this.close(fatalText(fatal));
	}

	/** `query_timeout` has passed. Closing the connection alone would leave the query running: it is cancelled first. */
	timeOut(): void {
		this.home.cancel(this);
		this.close("query timeout", new PgError("FATAL", "58000", "query timeout"));
	}

	get closeReason(): string {
		return this.reason;
	}

	onClose(error: Error | undefined): void {
		if (this.state === ServerState.Closed) return;
		const { fatal } = this;
		this.isLost = true;
		if (fatal !== null) this.reason = fatalText(fatal);
		else this.reason = error === undefined ? "server closed the connection" : error.message;
		const lost = new PgError("FATAL", "08006", "server closed the connection unexpectedly");
		this.gone(this.passedOn ? null : (fatal ?? lost));
	}

	private gone(error: PgError | null): void {
		this.state = ServerState.Closed;
		const { client } = this;
		this.client = null;
		this.task = null;
		this.afterCancels = null;
		this.books.clear();
		this.traces.endTransaction(true);
		this.count();
		try {
			this.home.onGone(this);
		} finally {
			this.tellGone(client, error);
		}
	}

	/** A client that cannot take it, for a bug of ours, must not wait for this server for ever. */
	private tellGone(client: ServerClient | null, error: PgError | null): void {
		try {
			client?.onServerGone(error);
		} catch (bug) {
			client?.stream.terminate();
			throw bug;
		}
	}
}

/** A tag that begins like INSERT, COMMIT or COPY, and is none of them. */
function isUncommon(chunk: Buffer, at: number, end: number): boolean {
	const second = chunk[at + 1];
	if (second === 78) return false; // INSERT
	// CREATE, IMPORT …; COMMIT PREPARED is longer than COMMIT, COPY and the number of its rows.
	return second !== 79 || (chunk[at + 2] === 77 && end - at > 8);
}

/** The error may be about types or objects that a statement was given when it was parsed, earlier, for somebody else. */
function mayBeStale(sqlstate: string): boolean {
	return STALE.test(sqlstate);
}
const STALE = /^(0A|22|42|XX)/;

function fatalText(error: PgError): string {
	return `${error.severity} ${error.sqlstate}: ${error.message}`;
}

/** With more answers than this outstanding a new connection is had sooner; a guess. */
const WORTH_DRAINING = 64;
const NOTHING = Buffer.alloc(0);

/** No SQL at all: PostgreSQL's parser refuses it whatever the settings. */
const REFUSED = "refused by pgdog";
const REFUSED_QUERY = query(REFUSED);
const REFUSED_BIND = parse("", Buffer.from(`${REFUSED}\0\0\0`));

const UNASKED = "an answer to what it was not asked";

function isStatus(byte: number): boolean {
	return byte === TxStatus.Idle || byte === TxStatus.InBlock || byte === TxStatus.Failed;
}

/** Reported by the server but not set by anyone in the session. */
const READ_ONLY_REPORTS = new Set([
	"server_version",
	"server_encoding",
	"integer_datetimes",
	"in_hot_standby",
	"is_superuser",
]);
