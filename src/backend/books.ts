// The messages that one server was sent and has not answered yet: a mark for each that ends in a reply, in order, and what stands
// behind it. The marks tell which answers are the client's, which are swallowed (the proxy asked, not the client) and which are
// made up (the client asked, the server was not bothered). No marks: server and client agree on where they are.
// One per Server. It knows neither the server nor its client, and is written by what was said (`query`, `said`, `sync` …) and by
// what came (`answered`, `ready`, `failed` …) only. PostgreSQL docs, "Message Flow".

import type { PgError } from "../errors.ts";
import { Backend } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import type { Copy } from "./copy.ts";
import type { Statement } from "./statement.ts";

export const enum Reply {
	/** No mark: nothing is owed. */
	Nothing = 0,

	// Marks that ReadyForQuery answers: compared with by the last of them.
	/** Query or FunctionCall: ends with ReadyForQuery. */
	Query = 1,
	Sync,
	/** A text that fails, sent in place of a Query that is refused in a transaction: its error is told as the refusal. */
	RefusedQuery,

	// Marks whose answer passes unread: the relay compares with the last of them.
	/** Parse of the client's unnamed statement: ParseComplete goes to the client. */
	Parse,
	Bind,
	/** Describe of a statement or portal: ends with RowDescription or NoData. */
	Describe,
	/** Ends with CommandComplete, EmptyQueryResponse or PortalSuspended. */
	Execute,
	Close,
	/** As RefusedQuery, in place of a Bind. */
	RefusedBind,

	/** Parse of a statement that the client has a name for: as Parse, and it may have to be undone where there is a Statement. */
	ParseNamed,
	/** Parse of ours, before a Bind or Describe that needs it: ParseComplete is swallowed. */
	ParseOurs,
	/** Describe of the client's unnamed statement: as Describe, and we read what it says. */
	DescribeUnnamed,
	/** Describe of ours: we read what it says, and it is swallowed. */
	DescribeOurs,
	/** Bind and Execute of ours, of a statement that returns no row: swallowed. */
	BindOurs,
	ExecuteOurs,
	/** Execute of a SHOW of ours: we read its row, and all is swallowed. */
	ExecuteShow,
	/** Close of ours: swallowed. */
	CloseOurs,

	// Marks that no message of the server answers: the relay compares with the first of them.
	/** Parse that the server was not sent since it has the statement: we say ParseComplete. */
	ParseFake,
	/** Close of a statement, which stays on the server for others: we say CloseComplete. */
	CloseFake,
	/** CopyDone or CopyFail: no reply of its own, see `copyIn`. */
	CopyEnd,
}

/** What stands behind ParseNamed, ParseOurs, ParseFake, CloseFake, CloseOurs and DescribeOurs. */
export interface Pending {
	readonly mark: Reply;
	readonly statement: Statement;
	/** The copy that the server comes to have, or has no more, or is asked about. */
	readonly copy: Copy | null;
	/** The client's name for it; null when the message was ours. */
	readonly name: string | null;
	/** By this Parse the server comes to have the statement; false where it has it already. */
	readonly prepares: boolean;
}

/** What stands behind DescribeUnnamed, and DescribeOurs of an unnamed statement. */
interface UnnamedPending {
	/** The number of the client's unnamed Parse: no other of the thread has it. */
	readonly serial: number;
	/** `key` or `portable` of what it was, which it must be when it is parsed again; null when the client only asks what it is. */
	readonly expected: string | null;
}

/** What stands behind ExecuteShow: a setting that the constants of a statement were read by. */
export interface SettingPending {
	readonly setting: string;
	readonly readBy: Statement;
}

type Behind = Pending | UnnamedPending | SettingPending;

/** What becomes of a message that a server has sent. */
export const enum Answer {
	/** It goes to the client. */
	Passes,
	/** It answers a message of ours. */
	Swallowed,
	/** Nothing that was said asks for it: whatever comes next would go astray. */
	Unasked,
}

/** What the server has not done because of an ErrorResponse: all that was said from there to the next Sync. */
export interface Undone {
	/** What stood behind their marks, the first one first. */
	readonly statements: readonly Pending[];
	/** Parses of the unnamed statement, and whether the message that failed is the first of them. */
	readonly parses: number;
	readonly parseFailed: boolean;
	/** A Parse or Close of something that has no Statement here (unnamed, or another thread's), and such a Close of ours. */
	readonly nameless: boolean;
	readonly namelessClose: boolean;
	/** A Query in the middle of the batch, which the server has skipped. */
	readonly query: boolean;
}

/** By code of a message: the mark that it answers alone, where it goes to the client unread; 255 for none. */
const PLAIN = new Uint8Array(256).fill(255);
PLAIN[Backend.ParseComplete] = Reply.Parse;
PLAIN[Backend.BindComplete] = Reply.Bind;
PLAIN[Backend.RowDescription] = Reply.Describe;
PLAIN[Backend.NoData] = Reply.Describe;
PLAIN[Backend.CommandComplete] = Reply.Execute;
PLAIN[Backend.EmptyQueryResponse] = Reply.Execute;
PLAIN[Backend.PortalSuspended] = Reply.Execute;
PLAIN[Backend.CloseComplete] = Reply.Close;

/** A ring larger than this is given back when it empties: one deep pipeline must not cost its memory for ever. */
const KEPT = 4096;

/** By code of a message: 1 if it may come in the answer to a Query, 2 if it also ends one of its statements; else 0. */
const OF_QUERY = new Uint8Array(256);
OF_QUERY[Backend.RowDescription] = 1;
OF_QUERY[Backend.NoData] = 1;
OF_QUERY[Backend.FunctionCallResponse] = 1;
OF_QUERY[Backend.EmptyQueryResponse] = 1;
OF_QUERY[Backend.PortalSuspended] = 1;
OF_QUERY[Backend.CommandComplete] = 2;

/** What is read with every message is a field; all are written here only (scripts/check/house.ts). */
export class Books {
	/** How many marks there are: what was said and is not answered. */
	owed = 0;
	/** How many of the marks ReadyForQuery answers: those of whole batches and queries. */
	ends = 0;
	/** The oldest mark. */
	front: Reply = Reply.Nothing;
	/** The number of the batch, or query, that is being said: it counts what ReadyForQuery ends. */
	batch = 0;
	/** Messages of a batch were said whose Sync was not: an implicit transaction may be open. */
	unsynced = false;
	/** Something was said in that batch that runs a statement: more than Parse, Describe and Close. */
	hasRun = false;
	/** A batch has failed: the server reads and ignores everything up to the next Sync. */
	skipping = false;
	/** Between CopyInResponse and CopyDone or CopyFail: the server ignores Sync and Flush. */
	copyIn = false;
	/** A COPY failed while a Sync was on its way in the middle of it: whether the server answers that, nobody can tell. */
	isInDoubt = false;
	/** DEALLOCATE ALL or DISCARD ALL was said: which statements there are is known when it is answered. */
	deallocates = false;
	/** A queue of marks that grows and never shrinks below its first size; nothing is allocated per message. */
	private ring = new Uint8Array(16);
	private head = 0;
	/** Behind the marks that have one, in order; null for what has no Statement here. */
	private readonly pending: (Behind | null)[] = [];
	/** The ErrorResponses behind RefusedQuery and RefusedBind, in order. */
	private readonly refusals: Buffer[] = [];
	private behind: Behind | null = null;
	/** The COPY under way may have had a Sync in its middle: when it fails, `isInDoubt`. */
	private mayDoubt = false;
	/** CopyData was said before the server was known to read it, and no CopyDone or CopyFail since; and a Sync behind that. */
	private dataAhead = false;
	private syncInData = false;
	/** The batch, or query, of the newest COMMIT. */
	private committing = -1;

	// ---- what is owed ----------------------------------------------------------------------------------------------

	/** What was said in this batch may yet fail: it is over, and not answered. */
	isUncertain(batch: number): boolean {
		return batch < this.batch && batch >= this.batch - this.ends;
	}

	/** Nothing of the open batch can have run: it has Parse, Describe and Close of statements only, and nothing is owed before. */
	get onlyPrepares(): boolean {
		return this.unsynced && !this.hasRun && !this.skipping && this.ends === 0;
	}

	/** A COMMIT was said that is not known to have been run: a CancelRequest might take it back, and must not be sent. */
	get mayCommit(): boolean {
		return this.committing >= this.batch - this.ends;
	}

	/** Rows or CopyData may come now. */
	get expectsRows(): boolean {
		return this.front === Reply.Query || this.front === Reply.Execute;
	}

	/** Whether ReadyForQuery will come without anything more being said. Behind messages of a batch only a Sync is sure of it. */
	endsInSync(): boolean {
		let ends = false;
		for (let i = this.owed - 1; i >= 0; i--) {
			const mark = this.at(i);
			if (mark === Reply.CopyEnd) continue;
			if (!endsRequest(mark)) return false;
			ends = true;
			if (mark === Reply.Sync) break;
		}
		return ends;
	}

	// ---- what is said to the server --------------------------------------------------------------------------------

	/** A Query or a FunctionCall. It ends a batch that had no Sync, too. */
	query(): void {
		if (this.unsynced) this.endBatch();
		this.push(Reply.Query);
	}

	/** A message of a batch, whose reply `mark` stands for. */
	said(mark: Reply): void {
		this.unsynced = true;
		if (mark === Reply.Bind || mark === Reply.Execute || mark === Reply.ExecuteOurs || mark === Reply.ExecuteShow)
			this.hasRun = true;
		this.push(mark);
	}

	/** As `said`, of a message that has something behind its mark (`hasPending`). */
	saidOf(mark: Reply, pending: Behind | null): void {
		this.said(mark);
		this.pending.push(pending);
	}

	sync(): void {
		// The server ignores this Sync, unless the COPY fails before it is read.
		if (this.copyIn) {
			this.mayDoubt = true;
			return;
		}
		if (this.dataAhead) this.syncInData = true;
		this.endBatch();
		this.push(Reply.Sync);
	}

	/** CopyData. */
	data(): void {
		if (this.owed > 0 && !this.copyIn) this.dataAhead = true;
	}

	/** CopyDone or CopyFail. */
	copyEnd(): void {
		this.dataAhead = false;
		if (this.copyIn) this.copyIn = false;
		else if (this.owed > 0) this.push(Reply.CopyEnd);
	}

	/** COMMIT, END, PREPARE TRANSACTION or COMMIT PREPARED is among what is said. */
	commits(): void {
		this.committing = this.batch;
	}

	/** DEALLOCATE ALL or DISCARD ALL is among what is said. */
	deallocatesAll(): void {
		this.deallocates = true;
	}

	/** Something that fails is said in place of a Query, or of a message of a batch: `error` is the answer to it. */
	refuse(error: PgError, mark: Reply.RefusedQuery | Reply.RefusedBind): void {
		if (mark === Reply.RefusedQuery) this.endBatch();
		this.push(mark);
		this.refusals.push(errorResponse(error, "stays"));
		if (mark === Reply.RefusedQuery) return;
		this.unsynced = true;
		this.hasRun = true;
		this.skipping = true;
	}

	private endBatch(): void {
		this.unsynced = false;
		this.hasRun = false;
		this.skipping = false;
	}

	// ---- what the server says --------------------------------------------------------------------------------------

	/** Any message but rows, ReadyForQuery and ErrorResponse. */
	answered(code: number): Answer {
		const mark = this.front;
		if (mark === Reply.Query && OF_QUERY[code] !== 0) {
			if (OF_QUERY[code] === 2) this.mayDoubt = false;
			return Answer.Passes;
		}
		if (mark !== PLAIN[code]) return this.answeredOtherwise(code, mark);
		if (mark === Reply.Execute && code === Backend.CommandComplete) this.mayDoubt = false;
		this.shift();
		return Answer.Passes;
	}

	/** As `answered`, of a message that is not the plain answer (`PLAIN`) to the mark in front. */
	private answeredOtherwise(code: number, mark: Reply): Answer {
		switch (code) {
			case Backend.BindComplete:
				if (mark !== Reply.BindOurs) return Answer.Unasked;
				this.shift();
				return Answer.Swallowed;
			case Backend.CommandComplete:
			case Backend.EmptyQueryResponse:
			case Backend.PortalSuspended:
				if (code === Backend.CommandComplete) this.mayDoubt = false;
				if (mark === Reply.ExecuteOurs || mark === Reply.ExecuteShow) {
					this.shift();
					if (mark === Reply.ExecuteShow) this.pending.shift();
					return Answer.Swallowed;
				}
				return Answer.Unasked;
			case Backend.RowDescription:
			case Backend.NoData:
				if (mark === Reply.DescribeUnnamed || mark === Reply.DescribeOurs) {
					this.shift();
					this.behind = this.pending.shift() ?? null;
					return mark === Reply.DescribeOurs ? Answer.Swallowed : Answer.Passes;
				}
				return Answer.Unasked;
			case Backend.ParameterDescription:
				if (mark === Reply.DescribeOurs) return Answer.Swallowed;
				return mark === Reply.Describe || mark === Reply.DescribeUnnamed ? Answer.Passes : Answer.Unasked;
			case Backend.ParseComplete:
				if (mark !== Reply.ParseNamed && mark !== Reply.ParseOurs) return Answer.Unasked;
				this.shift();
				this.pending.shift();
				return mark === Reply.ParseOurs ? Answer.Swallowed : Answer.Passes;
			case Backend.CloseComplete:
				if (mark !== Reply.CloseOurs) return Answer.Unasked;
				this.shift();
				this.pending.shift();
				return Answer.Swallowed;
			case Backend.CopyInResponse:
				if (!this.expectsRows) return Answer.Unasked;
				this.beginCopy();
				return Answer.Passes;
			case Backend.CopyOutResponse:
			case Backend.CopyDone:
				return this.expectsRows ? Answer.Passes : Answer.Unasked;
			case Backend.NoticeResponse:
			case Backend.NotificationResponse:
			case Backend.ParameterStatus:
				return Answer.Passes;
			default:
				return Answer.Unasked;
		}
	}

	/**
	 * The server leaves our Describe unanswered and goes on: not every server that is not PostgreSQL's knows that message. If nobody
	 * was told what the statement is, that stays unknown, and that is all. @returns whether it is so
	 */
	leavesUnanswered(code: number): boolean {
		if (this.front !== Reply.DescribeOurs) return false;
		switch (code) {
			case Backend.ParameterDescription:
			case Backend.RowDescription:
			case Backend.NoData:
			case Backend.ErrorResponse:
			case Backend.NoticeResponse:
			case Backend.NotificationResponse:
			case Backend.ParameterStatus:
				return false;
		}
		const behind = this.pending[0];
		if (behind == null || !("copy" in behind) || behind.statement.description !== null) return false;
		this.shift();
		this.pending.shift();
		return true;
	}

	/** The SHOW of ours whose row comes now; null for other rows. */
	shows(): SettingPending | null {
		const first = this.front === Reply.ExecuteShow ? this.pending[0] : undefined;
		return first != null && "setting" in first ? first : null;
	}

	/** What stood behind the Describe that was answered last, if its answer is one that we read. Once. */
	described(): Behind | null {
		const { behind } = this;
		this.behind = null;
		return behind;
	}

	/** ReadyForQuery. @returns false when nothing that was said asks for it */
	ready(): boolean {
		const { front } = this;
		if (front === Reply.Nothing || front > Reply.RefusedQuery) return false;
		this.shift();
		// CopyDone or CopyFail of a COPY that had failed by then.
		while (this.front === Reply.CopyEnd) this.shift();
		if (this.owed === 0) {
			this.copyIn = false;
			this.dataAhead = false;
			this.syncInData = false;
			this.deallocates = false;
		}
		return true;
	}

	/** The reply that we make up is made: the next in front is another. @returns the mark that it was for */
	madeUp(): Reply {
		const mark = this.front;
		this.shift();
		if (mark !== Reply.CopyEnd) this.pending.shift();
		return mark;
	}

	/**
	 * The server has begun to read CopyData for the mark in front. Until CopyDone or CopyFail it ignores Sync
	 * (PostgreSQL's CopyGetData, "for the convenience of client libraries"), so those Syncs will not be answered.
	 */
	private beginCopy(): void {
		let kept = 1;
		let ended = false;
		for (let i = 1; i < this.owed; i++) {
			const mark = this.at(i);
			if (!ended && mark === Reply.CopyEnd) ended = true;
			else if (ended || mark !== Reply.Sync) this.ring[(this.head + kept++) & (this.ring.length - 1)] = mark;
			else {
				this.ends--;
				// A Sync is answered if the COPY has failed by then: for its data, or for a message that has no place in it.
				if (this.syncInData || kept > 1) this.mayDoubt = true;
			}
		}
		this.owed = kept;
		this.copyIn = !ended;
		// A Sync that came before is ignored: the batch is open again.
		if (this.copyIn && this.front === Reply.Execute) {
			this.unsynced = true;
			this.hasRun = true;
		}
	}

	/** The ErrorResponse behind the refusal in front, which is what the server's error is told as; else undefined. */
	refusal(): Buffer | undefined {
		const mark = this.front;
		return mark === Reply.RefusedQuery || mark === Reply.RefusedBind ? this.refusals[0] : undefined;
	}

	/**
	 * ErrorResponse: the server reads on to the next Sync and answers nothing before it, so that what was said until there has not
	 * happened. Its marks go.
	 * @param alone it was a query of our own, behind which nothing was said
	 */
	failed(alone: boolean): Undone {
		this.copyIn = false;
		if (this.mayDoubt) this.isInDoubt = true;
		const first = this.front;
		// A Query in the middle of a batch is not run either.
		const ends = endsRequest(first) ? first : Reply.Sync;
		const statements: Pending[] = [];
		let open = this.unsynced;
		let parses = 0;
		let nameless = false;
		let namelessClose = false;
		let query = false;
		if (first === Reply.RefusedQuery) this.refusals.shift();
		for (; this.owed > 0; this.shift()) {
			const mark = this.front;
			if (mark === ends) break;
			if (mark === Reply.RefusedBind || mark === Reply.RefusedQuery) this.refusals.shift();
			if (endsRequest(mark)) {
				query = true;
				open = true;
			}
			if (mark === Reply.Parse) parses++;
			if (!hasPending(mark)) continue;
			const pending = this.pending.shift() ?? null;
			if (pending !== null && !("mark" in pending)) continue;
			if (pending !== null) statements.push(pending);
			else {
				nameless = true;
				if (mark === Reply.CloseOurs) namelessClose = true;
			}
		}
		// Only a Sync ends the batch now.
		if (this.owed === 0 && open && !alone) {
			this.unsynced = true;
			this.skipping = true;
		}
		return { statements, parses, parseFailed: first === Reply.Parse, nameless, namelessClose, query };
	}

	/** Statements that the server was told to prepare, as long as it has not said that it has. */
	*prepares(): Generator<Pending> {
		for (const pending of this.pending)
			if (pending !== null && "prepares" in pending && pending.prepares) yield pending;
	}

	/** A Parse of the unnamed statement is not answered yet. */
	get parsesUnnamed(): boolean {
		for (let i = 0; i < this.owed; i++) if (this.at(i) === Reply.Parse) return true;
		return false;
	}

	/** The connection is gone. */
	clear(): void {
		this.owed = 0;
		this.front = Reply.Nothing;
		this.head = 0;
		this.ends = 0;
		this.ring = new Uint8Array(16);
		this.pending.length = 0;
		this.refusals.length = 0;
	}

	// ---- the ring --------------------------------------------------------------------------------------------------

	private push(mark: Reply): void {
		const { owed } = this;
		if (owed === this.ring.length) this.grow();
		this.ring[(this.head + owed) & (this.ring.length - 1)] = mark;
		if (owed === 0) this.front = mark;
		this.owed = owed + 1;
		if (mark > Reply.RefusedQuery) return;
		this.ends++;
		this.batch++;
	}

	private shift(): void {
		if (this.front <= Reply.RefusedQuery) this.ends--;
		this.head = (this.head + 1) & (this.ring.length - 1);
		if (--this.owed > 0) {
			this.front = this.ring[this.head]!;
			return;
		}
		this.front = Reply.Nothing;
		if (this.ring.length <= KEPT) return;
		this.ring = new Uint8Array(16);
		this.head = 0;
	}

	private at(i: number): number {
		return this.ring[(this.head + i) & (this.ring.length - 1)]!;
	}

	private grow(): void {
		const grown = new Uint8Array(this.ring.length * 2);
		for (let i = 0; i < this.owed; i++) grown[i] = this.at(i);
		this.ring = grown;
		this.head = 0;
	}
}

/** Whether ReadyForQuery answers this mark. */
function endsRequest(mark: number): boolean {
	return mark !== Reply.Nothing && mark <= Reply.RefusedQuery;
}

/** Whether an entry of `pending` stands behind this mark. */
function hasPending(mark: number): boolean {
	return (
		mark === Reply.DescribeUnnamed ||
		mark === Reply.DescribeOurs ||
		mark === Reply.ExecuteShow ||
		mark === Reply.ParseNamed ||
		mark === Reply.ParseOurs ||
		mark === Reply.ParseFake ||
		mark === Reply.CloseFake ||
		mark === Reply.CloseOurs
	);
}
