// The exchange of one request of a client of several shards: what its plan (planning.ts) has the shards sent, step after step,
// and what they answer, merged (merge.ts). At its end the transaction is open on all shards that have begun it, or on none.
// One per client, of whose requests one is under way at a time; made by sharded-client.ts, which is told how it goes.

import { beginsBatch } from "../client/framing.ts";
import { noteBatch } from "../client/routing.ts";
import { answerBatch } from "../client/solo.ts";
import { PgError } from "../errors.ts";
import type { Outgoing } from "../net/outgoing.ts";
import { explainRows, type Place } from "../router/explain.ts";
import type { Route } from "../router/route.ts";
import type { OwnAnswer } from "../session/held-begin.ts";
import type { CommitOutcome } from "../two-phase/commit.ts";
import { commandComplete } from "../wire/backend-messages.ts";
import { Backend, Frontend, TxStatus } from "../wire/codes.ts";
import { errorResponse, noticeResponse } from "../wire/error-response.ts";
import { HEADER, readInt32 } from "../wire/frame.ts";
import { CLOSE_OURS, FLUSH, SYNC } from "../wire/frontend-messages.ts";
import { withCommits } from "./answers.ts";
import { executeOf } from "./commits.ts";
import { Merge, type MergeOutput, TO_READY } from "./merge.ts";
import type { ShardedSession } from "./session.ts";
import {
	BEGIN_OURS,
	COPY_FAIL,
	COPY_FAIL_SYNC,
	FAIL,
	FAIL_BATCH,
	LOGIN,
	NO_STEP,
	type Plan,
	quietly,
	ROLLBACK,
	type Step,
	Terminator,
} from "./steps.ts";

/** The shards' Links, as far as an exchange concerns them. */
export interface Exchanged {
	readonly count: number;
	readonly each: readonly Sending[];
	/** Bytes of the client; they do not change afterwards. */
	send(shards: readonly number[], chunk: Buffer, at: number, end: number): void;
	/** No shard's server has a transaction. */
	readonly areIdle: boolean;
	/** The shards whose server has a transaction of this status, in order. */
	having(status: TxStatus): number[];
	/** Where the servers of these shards are. */
	places(shards: readonly number[]): Place[];
}

/** One shard's. */
interface Sending {
	/** It stands in a queue for a server. */
	readonly isWaiting: boolean;
	/** Bytes of the client; they do not change afterwards. @returns false when it stands in a queue for a server */
	send(bytes: Buffer): boolean;
}

/** The client's thread. */
interface Serials {
	/** Numbers for unnamed statements. */
	nextSerial(): number;
}

/** The client whose requests these are. */
export interface ExchangeOwner {
	/** Where messages for the client go; the owner sees to it that they leave with the event. */
	readonly out: Outgoing;
	/** Does `work` when the event under way is over and no message is half sent, unless the client has gone by then. */
	later(work: () => void): void;
	/** All shards are logged in to. */
	onLoggedIn(): void;
	/** The client was told of an error. */
	onError(): void;
	/** The shards read CopyData. */
	onCopyIn(): void;
	/** The shard was ahead of the others, and may send again. */
	resumeShard(shard: number): void;
	/** A Flush is answered: the client's turn, in the middle of its batch. */
	onFlushed(): void;
	/**
	 * All of the request is answered but for ReadyForQuery.
	 * @param committed the transaction that has ended, if one has, was committed
	 * @param skips in a batch that has failed the client is not told ReadyForQuery before its Sync
	 */
	onAnswered(status: TxStatus, committed: boolean, skips: boolean): void;
	/** Commits in two phases what is open on these shards. @param done told what has become of it, unless the client has gone by then */
	commit(shards: readonly number[], done: (outcome: CommitOutcome) => void): void;
	close(reason: string, words: PgError): void;
}

export class Exchange implements MergeOutput {
	private readonly serials: Serials;
	private readonly owner: ExchangeOwner;
	private readonly out: Outgoing;
	private readonly shards: Exchanged;
	private readonly session: ShardedSession;
	/** What the shards answer is put in there. */
	readonly merge: Merge;
	/** The step that is under way, and those behind it. */
	private step = LOGIN;
	private steps: Step[] = [];
	/** How many of the step's shards have been sent it. */
	private sent = 0;
	/** How many replies have come that nobody has looked at, and where in the step's chunk the message is that the first of them is for. */
	private replies = 0;
	private mark = 0;
	private terminator = Terminator.Sync;
	/** The request has failed, and the client was told so. */
	private hasFailed = false;
	/** By this shard, if by one. */
	private failedOn: number | null = null;
	/** What the step under way has done to statements is known to the client's. */
	private hasLearnt = false;
	/** Shards that were apart after the request were brought together. */
	private mended = false;
	/** Shards that were sent messages of a batch whose Sync they were not; written here only. */
	involved: readonly number[] = [];
	/** CopyDone and CopyFail messages that were sent before their COPY began. */
	private copyEnds = 0;
	/** What the client sends is data of a COPY; written here only. */
	copying = false;
	/** The batch ends the transaction. */
	private ends = false;
	/** The last COMMIT or ROLLBACK since the last ReadyForQuery was a COMMIT, and was done. */
	private committed = false;
	/** As `Plan` has it; the tag of its Query, which the client is told last. */
	private implicit = false;
	private heldTag: Buffer | null = null;
	/** What becomes of its COMMIT in two phases is not known yet. */
	private isCommitting = false;
	/** Where the EXPLAIN was routed to whose answer is to end with that. */
	private explained: Route | null = null;

	constructor(serials: Serials, owner: ExchangeOwner, shards: Exchanged, session: ShardedSession) {
		this.serials = serials;
		this.owner = owner;
		this.out = owner.out;
		this.shards = shards;
		this.session = session;
		const all = Array.from({ length: shards.count }, (_, shard) => shard);
		this.merge = new Merge(shards.count, all, TO_READY, this);
	}

	// ---- what is sent ----------------------------------------------------------------------------------------------

	start({ steps, terminator, copyEnds, ends, implicit, explained }: Plan): void {
		this.terminator = terminator;
		this.hasFailed = false;
		this.mended = false;
		this.copyEnds = copyEnds;
		this.ends = ends;
		this.implicit = implicit;
		this.heldTag = null;
		this.explained = explained;
		this.steps = steps;
		this.session.transaction.send();
		this.next();
	}

	/** Nothing of the request is sent. A transaction fails, as PostgreSQL's would have. */
	refuse(error: PgError, terminator: Terminator): void {
		this.terminator = terminator;
		this.mended = false;
		this.step = NO_STEP;
		this.steps = [];
		this.out.addAll(errorResponse(error, "stays"));
		this.failed(null);
		this.next();
	}

	/** Sends what is to be sent next, or ends the request. */
	private next(): void {
		if (this.hasFailed && this.involved.length > 0) {
			this.steps = [quietly(this.involved, FAIL_BATCH)];
			this.involved = [];
		}
		const step = this.steps.shift();
		if (step === undefined) {
			this.finish();
			return;
		}
		if (step.commits) {
			this.commit(step);
			return;
		}
		// The batch is ended at its Sync, or before a Query in its middle.
		if (step.chunk === SYNC) this.involved = [];
		this.step = step;
		this.mark = step.at;
		this.replies = 0;
		this.merge.begin(step.targets, step.replies, step.firstAnswers, step.joinings);
		this.sent = 0;
		this.session.kept.begin(step.targets);
		this.sendStep(step);
	}

	/** COMMIT in two phases: what that takes is not sent by this. */
	private commit(step: Step): void {
		const { transaction } = this.session;
		transaction.joined();
		this.step = step;
		this.mark = step.at;
		this.replies = 0;
		this.sent = step.targets.length;
		this.isCommitting = true;
		this.owner.commit(step.targets, (outcome) => this.onCommitted(step, outcome));
	}

	private onCommitted(step: Step, outcome: CommitOutcome): void {
		const { chunk, at, end } = step;
		if (this.step !== step) return;
		this.isCommitting = false;
		if (outcome.kind === "unknown") {
			this.owner.close(outcome.error.message, outcome.error);
			return;
		}
		const fails = outcome.kind === "rolled back" && outcome.report !== null;
		const isBatch = at < end && chunk[at] !== Frontend.Query;
		const { statements } = this.session;
		if (isBatch) noteBatch(statements, chunk, at, end, this.serials.nextSerial(), fails);
		if (outcome.kind === "rolled back" && outcome.report !== null) {
			const { report } = outcome;
			if (isBatch) this.out.addAll(answerBatch(NOTHING_SAID, chunk, at, executeOf(chunk, at, end), TxStatus.Idle));
			this.out.addAll(report instanceof PgError ? errorResponse(report, "stays") : report);
			this.failed(null);
			this.finish();
			return;
		}
		const said = outcome.kind === "committed" ? COMMITTED : ROLLED_BACK;
		if (outcome.kind === "committed" && outcome.late.length > 0) this.out.addAll(noticeResponse(late(outcome.late)));
		this.committed = said === COMMITTED;
		if (isBatch) this.out.addAll(answerBatch(said, chunk, at, end, TxStatus.Idle));
		else if (!this.implicit) this.out.addAll(commandComplete(said.tag));
		else if (this.heldTag !== null) this.out.addAll(this.heldTag);
		this.heldTag = null;
		// The batch goes on: its Sync has to come to somebody who says ReadyForQuery.
		if (this.terminator === Terminator.Flush) this.involved = step.targets;
		this.next();
	}

	/**
	 * Shard after shard, the next when the last has a server: two clients that each had what the other waits for would
	 * wait for ever.
	 */
	private sendStep(step: Step): void {
		const { targets, chunk, at, end, behind } = step;
		const { transaction } = this.session;
		const joins = step.joins && transaction.status !== TxStatus.Idle;
		// Each Link keeps slices of what it is given.
		const bytes = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
		while (this.step === step && this.sent < targets.length) {
			// A pool had no server to give: then the other shards are not asked.
			if (this.sent > 0 && this.merge.hasError()) {
				this.merge.spare(targets.slice(this.sent));
				this.sent = targets.length;
				return;
			}
			const shard = targets[this.sent++]!;
			const link = this.shards.each[shard]!;
			if (joins) transaction.join(shard);
			if (behind !== null && !this.involved.includes(shard)) this.involved = [...this.involved, shard];
			let goesOn = bytes.length === 0 || link.send(bytes);
			if (behind !== null) goesOn = link.send(behind);
			if (!goesOn) return;
		}
	}

	/** Some of the shards have not been sent the step yet. */
	get isSending(): boolean {
		return this.sent < this.step.targets.length;
	}

	/** A shard may have got the server that it waited for. */
	sendMore(): void {
		const { step, sent } = this;
		if (sent > 0 && this.isSending && !this.shards.each[step.targets[sent - 1]!]!.isWaiting) this.sendStep(step);
	}

	/** The shards that are asked. */
	get targets(): readonly number[] {
		return this.step.targets;
	}

	/** CopyDone or CopyFail, `chunk[at, next)`. */
	endCopy(chunk: Buffer, at: number, next: number): void {
		const { targets } = this.step;
		this.copying = false;
		this.shards.send(targets, chunk, at, next);
		// In a batch PostgreSQL would keep its answer until the next Sync, which waits here for that answer.
		if (this.terminator === Terminator.Flush) this.shards.send(targets, FLUSH, 0, FLUSH.length);
	}

	// ---- the end of a request --------------------------------------------------------------------------------------

	/** The request is answered: its transaction must be open on all shards that have begun it, or on none. */
	private finish(): void {
		const { shards, session } = this;
		const { transaction } = session;
		transaction.joined();
		if (this.terminator === Terminator.Flush && !this.hasFailed) {
			if (this.ends) transaction.end();
			this.rest();
			this.owner.onFlushed();
			return;
		}
		if (shards.areIdle) {
			if (this.hasFailed) transaction.heldBegin.fail();
			this.answered(transaction.heldBegin.status);
			return;
		}
		const open = shards.having(TxStatus.InBlock);
		const failed = shards.having(TxStatus.Failed);
		const begun = [...open, ...failed].sort((a, b) => a - b);
		if (this.implicit) {
			this.mend(begun, ROLLBACK, true);
			return;
		}
		// Shards that did not fail have run what came behind, perhaps the end of the transaction, which where it failed is still open.
		const isLeft = this.hasFailed && this.failedOn !== null && failed.includes(this.failedOn);
		if (!isLeft && !this.isWhole(begun)) this.mend(begun, ROLLBACK, this.hasFailed);
		else if (open.length > 0 && (this.hasFailed || failed.length > 0)) this.mend(open, FAIL, true);
		else {
			const status = open.length > 0 ? TxStatus.InBlock : TxStatus.Failed;
			transaction.runsOn(begun, status);
			this.answered(status);
		}
	}

	/** False when COMMIT AND CHAIN, or BEGIN, has failed on some shards and not on others. */
	private isWhole(begun: readonly number[]): boolean {
		const { transaction } = this.session;
		if (!transaction.isRunning) return begun.length === this.shards.count;
		return transaction.begun.every((shard) => begun.includes(shard));
	}

	private mend(shards: readonly number[], message: Buffer, allowed: boolean): void {
		if (this.mended || !allowed) {
			const error = new PgError("FATAL", "58000", "a transaction is open on some of the shards only");
			this.owner.close(error.message, error);
			return;
		}
		this.mended = true;
		this.steps = [quietly(shards, message)];
		this.owner.later(() => this.next());
	}

	private answered(status: TxStatus): void {
		const { committed } = this;
		this.committed = false;
		this.rest();
		this.session.transaction.told(status);
		this.owner.onAnswered(status, committed, this.terminator === Terminator.Flush);
	}

	private rest(): void {
		this.step = NO_STEP;
		this.copying = false;
	}

	/** The client has gone: what is left of its request is sent to nobody. */
	abandon(): void {
		this.steps = [];
		this.rest();
	}

	// ---- what is answered ------------------------------------------------------------------------------------------

	write(bytes: Buffer, start: number, end: number): void {
		const code = bytes[start];
		// Of what is our own the client hears only that a setting may be what it was before the transaction.
		if (this.step.quiet && code !== Backend.ParameterStatus) return;
		if (this.step.chunk === CLOSE_OURS && code === Backend.CloseComplete) return;
		if (code === Backend.CommandComplete) {
			if (this.implicit && this.holdsTag(bytes, start, end)) return;
			this.onTag(bytes, start, end);
		}
		this.out.add(bytes, start, end - start);
	}

	/** Of a transaction that the client has not begun: BEGIN is not for it, and that a Query is done it is told when it is committed. */
	private holdsTag(bytes: Buffer, start: number, end: number): boolean {
		const { chunk, at } = this.step;
		if (chunk === BEGIN_OURS) return true;
		if (chunk[at] === Frontend.Query) this.heldTag = Buffer.from(bytes.subarray(start, end));
		return chunk[at] === Frontend.Query;
	}

	/** A CommandComplete for the client. */
	private onTag(bytes: Buffer, start: number, end: number): void {
		const first = bytes[start + HEADER];
		// Of those that begin with C, D, E or R: COMMIT, DEALLOCATE ALL, DISCARD ALL, EXPLAIN, ROLLBACK.
		if (first !== 67 && first !== 68 && first !== 69 && first !== 82) return;
		const tag = bytes.latin1Slice(start + HEADER, end - 1);
		switch (tag) {
			case "COMMIT":
			case "ROLLBACK":
				this.committed = tag === "COMMIT";
				break;
			case "EXPLAIN":
				this.explain();
				break;
			case "DEALLOCATE ALL":
			case "DISCARD ALL":
				this.catchUp();
				this.session.statements.clear();
				this.hasLearnt = true;
		}
	}

	/** The rows that the output of an EXPLAIN ends with. */
	private explain(): void {
		const { explained } = this;
		if (explained === null) return;
		this.explained = null;
		this.out.addAll(explainRows(explained, this.shards.places(this.step.targets)));
	}

	replied(messages: number): void {
		this.replies += messages;
	}

	/** Looks at the messages of a batch that have been replied to, and goes on to the next that will be. */
	private catchUp(): void {
		const { chunk, at, end, quiet, learns } = this.step;
		if (quiet || chunk[at] === Frontend.Query) return;
		for (;;) {
			while (this.mark < end && !beginsBatch(chunk[this.mark]!)) this.mark += 1 + readInt32(chunk, this.mark + 1);
			if (this.replies === 0 || this.mark >= end) break;
			this.replies--;
			const next = this.mark + 1 + readInt32(chunk, this.mark + 1);
			if (learns) this.learn(chunk, this.mark, next);
			this.mark = next;
		}
		this.replies = 0;
	}

	/** A message was done: what it does to the client's statements. */
	private learn(chunk: Buffer, at: number, next: number): void {
		const { statements } = this.session;
		const code = chunk[at];
		if (code === Frontend.Describe || code === Frontend.Execute) return;
		if (code === Frontend.Bind && !statements.mayDeallocate) return;
		statements.note(chunk, at, next, this.serials.nextSerial());
		this.hasLearnt = true;
	}

	failed(shard: number | null): void {
		const { chunk, end, quiet } = this.step;
		if (quiet) return;
		this.owner.onError();
		this.hasFailed = true;
		this.failedOn = shard;
		this.steps = [];
		this.copying = false;
		this.catchUp();
		// The unnamed statement is gone once a Parse for it has begun.
		if (this.mark < end && chunk[this.mark] === Frontend.Parse && chunk[this.mark + HEADER] === 0)
			this.session.statements.forgetUnnamed();
	}

	copyIn(): void {
		if (this.copyEnds > 0) {
			this.copyEnds--;
			return;
		}
		this.copying = true;
		const { chunk, at, end, replies, targets } = this.step;
		if (chunk[at] !== Frontend.Query && this.terminator === Terminator.Sync) {
			// PostgreSQL ignores the Sync that was sent with the COPY: the batch ends at the next.
			this.terminator = Terminator.Flush;
			this.catchUp();
			if (replies !== TO_READY) this.steps.pop();
			else {
				let left = 0;
				for (let next = this.mark; next < end; next += 1 + readInt32(chunk, next + 1))
					if (beginsBatch(chunk[next]!)) left++;
				this.merge.expect(left);
				this.involved = targets;
			}
		}
		this.owner.onCopyIn();
	}

	stopCopy(shard: number): void {
		this.copying = false;
		if (this.copyEnds > 0) return;
		const { step } = this;
		const ignored = step.replies === TO_READY && step.chunk[step.at] !== Frontend.Query && this.involved.length === 0;
		const message = ignored ? COPY_FAIL_SYNC : COPY_FAIL;
		this.owner.later(() => {
			if (this.step === step) this.shards.send([shard], message, 0, message.length);
		});
	}

	done(): void {
		const { step } = this;
		if (step === LOGIN) {
			this.rest();
			this.owner.onLoggedIn();
			return;
		}
		const { chunk, at, end, quiet } = step;
		if (step.learns && !this.hasFailed) {
			if (chunk[at] === Frontend.Query) this.learn(chunk, at, end);
			else this.catchUp();
		}
		if (this.hasLearnt || this.hasFailed || quiet) this.session.kept.settle(step.targets, !this.hasFailed && !quiet);
		this.hasLearnt = false;
		if (this.steps.length > 0 || (this.hasFailed && this.involved.length > 0)) this.owner.later(() => this.next());
		else this.finish();
	}

	resumeShard(shard: number): void {
		this.owner.resumeShard(shard);
	}

	/** What a client is told, whatever ends its connection, while nobody knows what becomes of its COMMIT; else null. */
	get doubt(): PgError | null {
		return this.isCommitting ? UNDECIDED : null;
	}

	/**
	 * Why the shard's session has ended, for the client.
	 * @param ours what we say of it, if anything
	 * @returns its server's own words, or ours; undefined when the client has been told, or there is nothing to tell
	 */
	lastWords(shard: number, ours?: PgError): PgError | Buffer | undefined {
		if (this.doubt !== null) return this.doubt;
		if (this.merge.fatal && !this.step.quiet) return undefined;
		const { committed } = this.merge;
		const words = this.merge.lastWords(shard);
		if (words !== null) return withCommits(words, committed);
		if (ours === undefined || committed === "") return ours;
		const { severity, sqlstate, message, detail = "", hint } = ours;
		return new PgError(severity, sqlstate, message, `${detail}${detail && "\n"}${committed}`, hint);
	}
}

const NOTHING_SAID: OwnAnswer = { tag: "", row: null, error: null };
const COMMITTED: OwnAnswer = { ...NOTHING_SAID, tag: "COMMIT" };
const ROLLED_BACK: OwnAnswer = { ...NOTHING_SAID, tag: "ROLLBACK" };

/** A client that keeps its servers has lost one, or the proxy ends. 08007, transaction_resolution_unknown. */
const UNDECIDED = new PgError(
	"FATAL",
	"08007",
	"it is not known whether the transaction was committed: the connection ends before all shards have done it",
	undefined,
	"It is committed on all shards or rolled back on all.",
);

/** It is decided, so this is no error. */
function late(why: readonly string[]): PgError {
	const message = "the transaction is committed, but some shards will show it later";
	return new PgError("WARNING", "01000", message, why.join("; "));
}
