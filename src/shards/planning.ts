// What becomes of a request of a client of several shards: a plan of steps for the shards, an answer of ours, or a refusal. Here
// bytes are understood, the router is asked, and the shards' Links are told which of their servers are wanted; nothing is sent,
// and whether a request may come now is nobody's question here. Asked by sharded-client.ts.

import type { ClientContext } from "../client/context.ts";
import { RequestRouter } from "../client/request.ts";
import { noteBatch } from "../client/routing.ts";
import { answerBatch, answerQuery, endOfSolo } from "../client/solo.ts";
import { now } from "../clock.ts";
import { Side, TwoPhase } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { factsOf } from "../parser/facts-cache.ts";
import type { Merging } from "../parser/merging.ts";
import { Reading } from "../parser/reading.ts";
import { acrossShards, Unasked } from "../router/refusals.ts";
import type { Route } from "../router/route.ts";
import type { Router } from "../router/router.ts";
import { ABORTED, type OwnAnswer, saySetting } from "../session/held-begin.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { HEADER, readInt32 } from "../wire/frame.ts";
import { FLUSH, SYNC } from "../wire/frontend-messages.ts";
import { batchInPhases, CONTROLS, type CommitState, ENDS, lookAtBatch, queryInPhases } from "./commits.ts";
import { isReadAlike, joiningOf, UNCERTAIN } from "./joining.ts";
import type { Joining, Joinings } from "./rows.ts";
import { type Batch, Batches } from "./segments.ts";
import type { ShardedSession } from "./session.ts";
import { asking, lastStep, type Plan, reserving, type Step, stepOf, Terminator } from "./steps.ts";
import { isBeginning, isEnd } from "./transaction.ts";

/** The shards' Links, as far as a plan concerns them. */
export interface Planned {
	readonly count: number;
	/** How all of them read statements. */
	readonly reading: Reading;
	/** BEGIN may be held back. */
	readonly mayHold: boolean;
	/** As `CommitState`. */
	readonly mayBegin: boolean;
	/** Some shard's server stays for good: `pooler_mode` is session. */
	readonly isSession: boolean;
	readonly isSerializable: boolean;
	/** Which of the shards' servers are wanted, and why. */
	prefer(shards: readonly number[], side: Side, since: number, route: Route | null, facts: StatementFacts | null): void;
}

/** Whose requests these are, for SHOW ROUTES. */
interface Asker {
	readonly pid: number;
	readonly user: string;
	readonly database: string;
}

/** Nothing of the request is sent: the client is told `error`. */
export class Refusal {
	readonly error: PgError;
	readonly terminator: Terminator;

	constructor(error: PgError, terminator: Terminator) {
		this.error = error;
		this.terminator = terminator;
	}
}

/** No shard is needed: the client is told `bytes`. */
export class AnsweredHere {
	readonly bytes: Buffer;
	/** Where what is answered ends in its chunk. */
	readonly end: number;
	/** The client is told an error. */
	readonly failed: boolean;
	/** The answer has ended a transaction. */
	readonly ended: boolean;

	constructor(bytes: Buffer, end: number, failed: boolean, ended: boolean) {
		this.bytes = bytes;
		this.end = end;
		this.failed = failed;
		this.ended = ended;
	}
}

export class Planning {
	private readonly context: ClientContext;
	private readonly asker: Asker;
	private readonly shards: Planned;
	private readonly session: ShardedSession;
	private readonly batches: Batches;
	private requests: RequestRouter;
	/** Something is committed in two phases: batches are for `batchInPhases`. Written here only, as the next. */
	isInPhases: boolean;
	/** Where what was planned last ends in its chunk: what comes behind it is to be asked about again. */
	end = 0;

	constructor(context: ClientContext, asker: Asker, shards: Planned, session: ShardedSession, router: Router) {
		this.context = context;
		this.asker = asker;
		this.shards = shards;
		this.session = session;
		this.batches = new Batches(shards.count);
		this.requests = new RequestRouter(router, session.own);
		this.isInPhases = router.twoPhase !== TwoPhase.Off;
	}

	/** A reload made this the router. */
	reach(router: Router): void {
		const { wrote } = this.requests;
		this.requests = new RequestRouter(router, this.session.own);
		this.requests.wrote = wrote;
		this.isInPhases = router.twoPhase !== TwoPhase.Off;
	}

	/** No transaction is open any more. */
	endTransaction(committed: boolean): void {
		const { hints, reading } = this.requests;
		if (hints.isOpen) hints.end(committed);
		reading.noteEnd();
		if (this.requests.wrote) {
			this.requests.wrote = false;
			this.requests.writes.wrote(now());
		}
		this.batches.clear();
	}

	/**
	 * The Query or FunctionCall `chunk[at, next)`, which is whole.
	 * @param involved shards that were sent a batch which is not ended
	 */
	simple(
		code: number,
		chunk: Buffer,
		at: number,
		next: number,
		involved: readonly number[],
	): Plan | AnsweredHere | Refusal {
		const { requests, session, batches } = this;
		const { transaction, statements } = session;
		let targets = batches.all;
		let route: Route | null = null;
		this.beforeRouting(involved);
		if (code === Frontend.FunctionCall) route = this.functionCall();
		else route = requests.query(chunk, at, next, transaction.isRunning, statements);
		// A transaction that has failed unknown to any shard has its own words.
		if (route !== null && route.error !== null && !transaction.heldBegin.failed)
			return this.refusal(route, route.error, Terminator.Sync);
		if (route !== null) {
			const said = this.mayAnswer(involved) ? this.say(chunk.utf8Slice(at + HEADER, next - 1)) : null;
			if (said !== null) {
				statements.note(chunk, at, next, this.context.nextSerial());
				if (said.error !== null && transaction.isRunning) return new Refusal(said.error, Terminator.Sync);
				const ended = this.settle(said);
				return new AnsweredHere(answerQuery(said, transaction.status), next, said.error !== null, ended);
			}
			targets = batches.targets(route);
			statements.forgetUnnamed();
			// What stands behind the end of a transaction that has failed, in one string with it, runs.
			if (route.error !== null && isEnd(requests.facts)) return this.refusal(route, route.error, Terminator.Sync);
		}
		const { facts } = requests;
		if (this.isAborted()) return new Refusal(ABORTED, Terminator.Sync);
		targets = transaction.targets(targets, facts, NO_SHARDS);
		if (facts !== null && facts.statements > 1 && this.mayDivide(targets, chunk, at, next))
			return new Refusal(DIVIDES, Terminator.Sync);
		const step = this.lastStep(code, targets, chunk, at, next);
		if (step instanceof PgError) return this.refusal(route!, step, Terminator.Sync);
		const steps = involved.length > 0 ? [stepOf(involved, SYNC), step] : [step];
		const explained = this.place(targets, route?.side ?? Side.Primary, route);
		const plan = { steps, terminator: Terminator.Sync, copyEnds: 0, ends: false, implicit: false, explained };
		return this.isInPhases ? this.inPhases(plan, involved) : plan;
	}

	private functionCall(): Route | null {
		const { requests } = this;
		requests.facts = null;
		requests.wrote = true;
		return requests.router.asksPlugins ? requests.router.refuseUnasked(Unasked.FunctionCall) : null;
	}

	/** The step of a Query or FunctionCall that was routed last, or why it cannot be. */
	private lastStep(code: number, targets: readonly number[], chunk: Buffer, at: number, next: number): Step | PgError {
		const { facts, router } = this.requests;
		// What only reads rows need not be looked at again.
		const deallocates =
			code === Frontend.Query &&
			!facts?.reads &&
			factsOf(this.context.facts, chunk, at + HEADER, next - 1).deallocates !== null;
		const step = lastStep(targets, chunk, at, next, facts?.placement.firstAnswers ?? null, deallocates);
		if (facts === null || !facts.placement.merges || !router.merges || targets.length < 2) return step;
		const joinings = this.joinings(facts, chunk, at, next);
		return joinings instanceof PgError ? joinings : { ...step, joinings };
	}

	/** What the statements of the Query `chunk[at, next)` ask of their rows. */
	private joinings(facts: StatementFacts, chunk: Buffer, at: number, next: number): Joinings | PgError {
		const { router, reading } = this.requests;
		const sql = chunk.utf8Slice(at + HEADER, next - 1);
		// What stands before a statement in its string may change how values are written.
		const ofText = facts.statements === 1 ? reading.ofNext : reading.ofNext | Reading.Changing;
		const mergings = isReadAlike(sql, reading.ofNext) ? router.statements.mergings(sql) : UNCERTAIN;
		if (typeof mergings === "string") return acrossShards(mergings, router.shards);
		// Only the shards' answers tell whether rows can be ordered here: they have run all of the string by then.
		if (facts.statements > 1 && !facts.reads && mergings.some((merging) => merging !== null && isByType(merging)))
			return acrossShards("ORDER BY in one string with what does not only read rows", router.shards);
		const each: (Joining | null)[] = [];
		for (const merging of mergings) {
			const joining = merging === null ? null : joiningOf(merging, null, ofText, router.shards);
			if (joining instanceof PgError) return joining;
			each.push(joining);
		}
		return { each, hidden: null };
	}

	/** The plan of a Query anew, where something is committed in two phases. */
	private inPhases(plan: Plan, involved: readonly number[]): Plan | Refusal {
		const { facts } = this.requests;
		if (facts === null) return plan;
		const { chunk, at, end } = plan.steps.at(-1)!;
		const controls = factsOf(this.context.facts, chunk, at + HEADER, end - 1).transaction;
		const planned = queryInPhases(plan, this.commitState(involved), facts, controls);
		return planned instanceof PgError ? new Refusal(planned, Terminator.Sync) : planned;
	}

	private commitState(involved: readonly number[]): CommitState {
		const { requests, session, shards } = this;
		const { twoPhase } = requests.router;
		return { twoPhase, wrote: requests.wrote, status: session.transaction.status, mayBegin: shards.mayBegin, involved };
	}

	/** The Sync of a batch that these shards were sent. */
	sync(involved: readonly number[]): Plan {
		const explained = this.place(involved, Side.Primary, null);
		return {
			steps: [stepOf(involved, SYNC)],
			terminator: Terminator.Sync,
			copyEnds: 0,
			ends: false,
			implicit: false,
			explained,
		};
	}

	/**
	 * The extended-query messages `chunk[at, end)`, up to a Sync or Flush, or up to a Query. Of a batch whose beginning needs no
	 * shard the rest is to be asked about again.
	 * @param stop where the Sync or Flush is; `end` when there is none
	 * @param hurried more of it may come behind
	 * @param involved shards that were sent what came before in the same batch
	 */
	batch(
		chunk: Buffer,
		at: number,
		stop: number,
		end: number,
		hurried: boolean,
		involved: readonly number[],
	): Plan | AnsweredHere | Refusal {
		this.end = end;
		const terminator = stop < end && chunk[stop] === Frontend.Sync ? Terminator.Sync : Terminator.Flush;
		const begun = this.beginning(chunk, at, stop, terminator, involved);
		if (begun !== null) return begun;
		this.beforeRouting(involved);
		const { requests, session } = this;
		const { statements, transaction } = session;
		const batch = this.batches.split(requests, statements, chunk, at, stop, transaction, involved);
		const { segments, error, route, copyEnds, ends, learns } = batch;
		// What is still to come of it may write, in the same implicit transactions where something of it runs.
		const goesOn = hurried || (terminator === Terminator.Flush && requests.runs);
		const side = goesOn && batch.side === Side.Any ? requests.router.writeSide : batch.side;
		if (error !== null && !transaction.heldBegin.failed) return this.refusal(route, error, terminator);
		if (this.mayAnswer(involved) && endOfSolo(chunk, at, statements) === end) {
			const said = this.say(requests.textOf(chunk, at, statements));
			// In a transaction that has failed a batch fails at its first message.
			if (said !== null && said.error !== ABORTED) {
				// Where servers have the transaction its first message fails: nothing of it has happened.
				const noted = said.error !== null && transaction.isRunning ? at : end;
				return this.answerBatch(said, chunk, at, noted, end);
			}
		}
		// Whatever the router has against it: the transaction has failed.
		if (error !== null || this.isAborted()) return new Refusal(ABORTED, terminator);
		const targets = targetsOf(segments, involved);
		const explained = this.place(targets, side, route);
		const only = onlyOne(segments);
		if (terminator === Terminator.Sync && only !== null && involved.length === 0) {
			const step = lastStep(only.targets, chunk, at, end, only.firstAnswers, learns);
			const asked = only.asks === null ? step : asking(step, only.asks);
			return { steps: [asked], terminator, copyEnds, ends, implicit: false, explained };
		}
		// What follows goes when the shards have answered, which they do when they are told to.
		const parts = segments.map((segment) => partOf(segment, chunk, learns));
		const steps: Step[] = [...this.reservation(targets, involved), ...parts];
		if (terminator === Terminator.Sync) steps.push(stepOf(targets, SYNC));
		return { steps, terminator, copyEnds, ends, implicit: false, explained };
	}

	/** As `batch`, where something is committed in two phases. */
	batchInPhases(
		chunk: Buffer,
		at: number,
		stop: number,
		end: number,
		hurried: boolean,
		involved: readonly number[],
	): Plan | AnsweredHere | Refusal {
		const { requests, session } = this;
		const terminator = stop < end && chunk[stop] === Frontend.Sync ? Terminator.Sync : Terminator.Flush;
		const facts = (sql: string) => requests.router.statements.facts(sql);
		const look = lookAtBatch(chunk, at, stop, session.statements, facts);
		this.end = end;
		if (look.controls) return new Refusal(CONTROLS, terminator);
		const plan = this.batch(chunk, at, look.end, look.end < stop ? look.end : end, hurried, involved);
		if (plan instanceof AnsweredHere || plan instanceof Refusal) return plan;
		const planned = batchInPhases(plan, this.commitState(involved), look, chunk, at, look.end);
		return planned instanceof PgError ? new Refusal(planned, plan.terminator) : planned;
	}

	/**
	 * A statement at the head of a batch that only says how its transaction begins is answered: the next tells where to go.
	 * @returns null when there is none
	 */
	private beginning(
		chunk: Buffer,
		at: number,
		stop: number,
		terminator: Terminator,
		involved: readonly number[],
	): AnsweredHere | Refusal | null {
		const { requests, session, shards } = this;
		const { statements, transaction } = session;
		if (transaction.isRunning || involved.length > 0 || transaction.heldBegin.failed) return null;
		if (runsOne(chunk, at, stop) || !shards.mayHold) return null;
		const next = endOfSolo(chunk, at, statements, true);
		if (next < 0 || next >= stop) return null;
		const sql = requests.textOf(chunk, at, statements);
		if (!isBeginning(requests.router.statements.facts(sql))) return null;
		this.beforeRouting(involved);
		const { error, route } = this.batches.split(requests, statements, chunk, at, next, transaction, involved);
		if (error !== null) return this.refusal(route!, error, terminator);
		const said = this.say(sql);
		return said === null ? null : this.answerBatch(said, chunk, at, next, next);
	}

	/** `said` is the answer to the messages `[at, end)`, and those up to `noted` have happened. */
	private answerBatch(said: OwnAnswer, chunk: Buffer, at: number, noted: number, end: number): AnsweredHere | Refusal {
		const { statements, transaction } = this.session;
		const failed = said.error !== null;
		noteBatch(statements, chunk, at, noted, this.context.nextSerial(), failed);
		// The shards' transactions fail with it.
		if (said.error !== null && transaction.isRunning) return new Refusal(said.error, Terminator.Sync);
		const ended = this.settle(said);
		return new AnsweredHere(answerBatch(said, chunk, at, end, transaction.status), end, failed, ended);
	}

	/**
	 * What goes before a batch that comes to its shards in another order than others' batches, and holds none of them yet. In a
	 * transaction, which goes on behind it, nothing would be won.
	 */
	private reservation(targets: readonly number[], involved: readonly number[]): Step[] {
		if (involved.length > 0 || this.session.transaction.isOpen) return [];
		const isInOrder = targets.every((shard, i) => i === 0 || targets[i - 1]! < shard);
		return isInOrder ? [] : [reserving(targets.toSorted((a, b) => a - b))];
	}

	/** Whether a string of several statements may end the transaction on these shards, while it is open on others. */
	private mayDivide(targets: readonly number[], chunk: Buffer, at: number, next: number): boolean {
		const { transaction } = this.session;
		if (transaction.status === TxStatus.Failed) return false;
		if (transaction.begun.every((shard) => targets.includes(shard))) return false;
		if (!factsOf(this.context.facts, chunk, at + HEADER, next - 1).transaction) return false;
		return ENDS.test(chunk.utf8Slice(at + HEADER, next - 1));
	}

	private beforeRouting(involved: readonly number[]): void {
		const { requests, shards } = this;
		const { transaction, statements } = this.session;
		// What a batch has begun is not settled before its Sync.
		if (involved.length === 0) this.requests.reading.settle(shards.reading, statements);
		// Each client has a shard of its own for what names no table, and the same for as long as it stays.
		requests.home = transaction.home(this.asker.pid % shards.count, involved);
		requests.begun = transaction.heldBegin.begun;
	}

	/** The router refuses the request, if it was asked: SHOW ROUTES tells it, too. */
	private refusal(route: Route | null, error: PgError, terminator: Terminator): Refusal {
		const { facts, sql } = this.requests;
		if (route !== null) this.context.routes.note(this.context.time, this.asker, facts, sql, route, null, 0);
		return new Refusal(error, terminator);
	}

	/** The transaction has failed, no shard can say so, and what was routed does not end it. */
	private isAborted(): boolean {
		const { heldBegin } = this.session.transaction;
		if (!heldBegin.failed) return false;
		if (!isEnd(this.requests.facts)) return true;
		heldBegin.abandon();
		return false;
	}

	/** The statement just routed may be one that needs no server. */
	private mayAnswer(involved: readonly number[]): boolean {
		const { facts } = this.requests;
		const { transaction } = this.session;
		if (facts === null || involved.length > 0) return false;
		if (!transaction.isRunning) return transaction.heldBegin.concerns(facts);
		if (facts.reads || facts.writes || facts.statements !== 1) return false;
		return facts.transaction === TransactionControl.None && transaction.status !== TxStatus.Failed;
	}

	private say(sql: string): OwnAnswer | null {
		const { transaction, own } = this.session;
		if (transaction.isRunning) return saySetting(sql, own.hints, true, transaction.hasRun);
		return transaction.heldBegin.answer(this.requests.facts!, sql, this.shards.mayHold);
	}

	/** What is said is so: a transaction that no shard knows of begins, fails or ends. @returns it has ended */
	private settle(said: OwnAnswer): boolean {
		const { transaction } = this.session;
		if (transaction.isRunning) return false;
		const wasOpen = transaction.isOpen;
		if (said.error !== null) transaction.heldBegin.fail();
		transaction.told(transaction.heldBegin.status);
		return wasOpen && !transaction.isOpen;
	}

	/**
	 * Which servers of the shards are to run it, if no transaction has decided that.
	 * @param wanted which it needs, for all that the router knows
	 * @returns where its EXPLAIN goes, when the answer is to tell that
	 */
	private place(targets: readonly number[], wanted: Side, route: Route | null): Route | null {
		const { requests, shards } = this;
		const { general } = this.context;
		const { transaction } = this.session;
		const { writes } = this.requests;
		if (!transaction.isRunning) {
			// A server that stays for good has to be one that can write.
			const stays = wanted === Side.Any && requests.router.mayWrite && shards.isSession;
			const { writeSide } = requests.router;
			const least = wanted !== writeSide && (stays || shards.isSerializable) ? writeSide : wanted;
			transaction.side = writes.side(least, general, this.context.time);
			transaction.since = writes.since;
			if (transaction.side !== least) route = writes.told(route, transaction.side);
		}
		shards.prefer(targets, transaction.side, transaction.since, route, requests.facts);
		return requests.facts?.explains && general.expanded_explain ? route : null;
	}
}

/** Whether nothing stands behind the first Execute of the batch `[at, stop)`. */
function runsOne(chunk: Buffer, at: number, stop: number): boolean {
	let executed = false;
	while (at < stop && !executed) {
		executed = chunk[at] === Frontend.Execute;
		at += 1 + readInt32(chunk, at + 1);
	}
	return at >= stop;
}

/** Whether it takes the types of the columns to know that rows can be merged. */
function isByType({ order, combined }: Merging): boolean {
	return order.length > 0 || combined !== null;
}

/** The segment that its shards can be sent together with the Sync: what cannot be merged undoes what was run before it, which a Sync would keep. */
function onlyOne(segments: Batch["segments"]): Batch["segments"][number] | null {
	const [first] = segments;
	const isAlone = segments.length === 1 && (first!.asks === null || first!.asks.each.length === 1);
	return isAlone ? first! : null;
}

/** The step of a segment that others are behind. */
function partOf({ asks, ...segment }: Batch["segments"][number], chunk: Buffer, learns: boolean): Step {
	const part = { ...segment, chunk, behind: FLUSH, joinings: null, learns, quiet: false, commits: false };
	return asks === null ? part : asking(part, asks);
}

/** All shards that a batch concerns. */
function targetsOf(segments: Batch["segments"], involved: readonly number[]): readonly number[] {
	if (segments.length === 1 && involved.length === 0) return segments[0]!.targets;
	return [...new Set(segments.flatMap(({ targets }) => targets).concat(involved))];
}

const DIVIDES = new PgError(
	"ERROR",
	"0A000",
	"a string of statements for one shard cannot end a transaction that is open on others",
	undefined,
	"Send COMMIT and its like as statements of their own.",
);
const NO_SHARDS: readonly number[] = [];
