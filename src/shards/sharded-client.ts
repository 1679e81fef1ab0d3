// A client of a cluster with several shards. It frames and routes requests; for each shard there is an ordinary Client,
// with its own servers, settings and statements, that is fed the same bytes and answers into a merge (merge.ts) instead
// of a socket. One request at a time: the next may go to other shards, and answers must keep their order.

import { randomBytes } from "node:crypto";
import { idleError, LINGER, QUIET, SHUTTING_DOWN } from "../client/client.ts";
import type { ClientContext, ClientHandle, Login } from "../client/context.ts";
import { checkHeader, MALFORMED, ROUTED, TOO_LARGE } from "../client/framing.ts";
import { HELD, UNREAD } from "../client/incoming.ts";
import { RequestRouter } from "../client/request.ts";
import { noteBatch } from "../client/routing.ts";
import { counted, NO_ROOM, Share } from "../client/share.ts";
import { answerBatch, answerQuery, endOfSolo } from "../client/solo.ts";
import { now } from "../clock.ts";
import { Side } from "../config/snapshot.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import { TransactionControl } from "../parser/facts.ts";
import { factsOf } from "../parser/facts-cache.ts";
import type { Cluster } from "../pool/cluster.ts";
import { explainRows } from "../router/explain.ts";
import { Unasked } from "../router/refusals.ts";
import type { Route } from "../router/route.ts";
import type { Router } from "../router/router.ts";
import { ABORTED, type OwnAnswer, saySetting } from "../session/held-begin.ts";
import { SessionHints } from "../session/hints.ts";
import { OwnWrites } from "../session/own-writes.ts";
import { SessionReading } from "../session/session-reading.ts";
import { ClientStatements } from "../session/statements.ts";
import { backendKeyData, readyForQuery } from "../wire/backend-messages.ts";
import { Backend, Frontend, TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";
import { FLUSH, SYNC } from "../wire/frontend-messages.ts";
import { Merge, type MergeOutput, TO_READY } from "./merge.ts";
import { Batches, End, isReplied } from "./segments.ts";
import { ShardClients } from "./shard-clients.ts";
import type { PortOwner } from "./shard-port.ts";
import { COPY_FAIL, COPY_FAIL_SYNC, FAIL, FAIL_BATCH, NO_STEP, ROLLBACK, type Step, stepOf } from "./steps.ts";
import { isBeginning, isEnd, ShardedTransaction } from "./transaction.ts";

const enum Phase {
	/** The shards are being logged in to. */
	Login,
	Idle,
	/** A request is under way; what else comes is held, but for the data of a COPY. */
	Busy,
	Closed,
}

/** What ends the messages of a batch that are under way. */
const enum Terminator {
	/** Sync, or the end of a Query: ReadyForQuery is due. */
	Sync,
	/** Flush, or what makes the shards answer without being asked: the batch goes on. */
	Flush,
}

/** Pieces up to this together are written in one go. */
const TOGETHER = 64 << 10;

export class ShardedClient implements StreamOwner, MergeOutput, ClientHandle, PortOwner {
	readonly stream: Stream;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	readonly connectedAt = Date.now();
	readonly pid: number;
	readonly secret: Uint8Array;
	activeAt: number;
	queries = 0;
	transactions = 0;
	errors = 0;

	private readonly context: ClientContext;
	private readonly shards: ShardClients;
	private requests: RequestRouter;
	private readonly hints: SessionHints;
	private readonly writes = new OwnWrites();
	private readonly readings = new SessionReading();
	private readonly transaction: ShardedTransaction;
	/** The last COMMIT or ROLLBACK since the last ReadyForQuery was a COMMIT, and that was done. */
	private committed = false;
	/** The batch that was sent last ends the transaction. */
	private ends = false;
	/** Statements have been sent since the transaction began. */
	private ran = false;
	/** Of the EXPLAIN under way, when its answer is to end with that. */
	private explained: Route | null = null;
	private readonly batches: Batches;
	/** The client's statements, as the shards have confirmed them; each shard's Client has its own of them. */
	private readonly statements: ClientStatements;
	private readonly tail = new Tail();
	private readonly share: Share;
	/** Messages for the client that the event under way has brought. */
	private out: Uint8Array[] = [];

	private phase = Phase.Login;
	private merge: Merge;
	/** Of the request under way: what is sent now, and what follows when that is answered. */
	private step = NO_STEP;
	private steps: Step[] = [];
	/** How many of the step's shards have been sent it. */
	private sent = 0;
	/** Where in the step's chunk the message is whose reply comes next. */
	private mark = 0;
	private terminator = Terminator.Sync;
	/** The request under way has failed, and the client was told so. */
	private hasFailed = false;
	/** Shards that were apart after it have been brought together. */
	private mended = false;
	/** Shards that were sent messages of a batch whose Sync they were not. */
	private involved: readonly number[] = [];
	/** CopyDone and CopyFail messages that were sent before their COPY began. */
	private copyEnds = 0;
	/** What the client sends is data of a COPY. */
	private copying = false;
	/** As of the last ReadyForQuery. */
	private status: TxStatus = TxStatus.Idle;
	/** Skip to the next Sync, after an error. */
	private skipping = false;
	/** Bytes still to come of a message that is thrown away, and of CopyData that is passed on in pieces. */
	private dropping = 0;
	private through = 0;
	/** Who gets those pieces, and what waits for their end: nothing may be sent in between. */
	private throughTo: readonly number[] = [];
	private throughThen: (() => void)[] = [];
	/** It has to read what it was sent before it may go on. */
	private unread = false;
	/** The batch that is here in part has waited long enough for its end. */
	private hurried = false;
	private leaving = false;

	constructor(context: ClientContext, stream: Stream, cluster: Cluster, router: Router, login: Login) {
		this.context = context;
		this.share = new Share(context.collected);
		this.stream = stream;
		this.user = login.user;
		this.database = login.database;
		this.address = login.address;
		this.activeAt = context.time;
		this.hints = new SessionHints(login.hints);
		this.requests = new RequestRouter(router, this.hints, this.readings);
		this.batches = new Batches(cluster.shards.length);
		this.pid = context.register(this);
		this.secret = Uint8Array.from(randomBytes(login.minor >= 2 ? 32 : 4));
		const { all } = this.batches;
		this.merge = new Merge(all.length, all, TO_READY, this);
		this.shards = new ShardClients(context, this.pid, this, cluster, login, this.hints);
		this.statements = new ClientStatements(context.statements, context.facts, this.shards.at(0).parsing, true);
		const sharesNames = () => context.general.prepared_statements !== "disabled";
		this.transaction = new ShardedTransaction(this.shards.each, this.hints, sharesNames);
	}

	begin(): void {
		for (const shard of this.shards.each) if (this.phase === Phase.Login) shard.begin();
	}

	// ---- bytes of the client ---------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		if (this.phase === Phase.Closed) return;
		this.activeAt = this.context.time;
		if (!this.isReading) {
			this.tail.hold(chunk);
			this.flow();
			return;
		}
		const whole = this.tail.add(chunk);
		if (whole !== null) this.guarded(() => this.walk(whole));
	}

	private get isReading(): boolean {
		if (this.copying || this.through > 0) return true;
		// What the last transaction did to settings decides where the next goes.
		return this.phase === Phase.Idle && !this.unread && !this.shards.isHeld;
	}

	/** Reads what was held. */
	private resume(): void {
		if (this.isReading && this.tail.bytes > 0) this.walk(this.tail.take());
	}

	private guarded(work: () => void): void {
		try {
			work();
			this.flush();
			this.flow();
		} catch (error) {
			if (!(error instanceof ProtocolError)) throw error;
			this.close(`protocol error: ${error.message}`, new PgError("FATAL", error.sqlstate, error.message));
		}
	}

	/**
	 * Does `work` when the event under way is over, since a server's answer may not lead to another message at once, and
	 * when no message is half sent.
	 */
	private later(work: () => void): void {
		if (this.through > 0) {
			this.throughThen.push(work);
			return;
		}
		this.context.contain.soon(this.stream, () => {
			if (this.phase !== Phase.Closed) this.guarded(work);
		});
	}

	private walk(chunk: Buffer): void {
		let at = this.dropping + this.through > 0 ? this.passThrough(chunk) : 0;
		while (chunk.length - at >= HEADER && this.isReading) {
			const code = chunk[at]!;
			const length = readInt32(chunk, at + 1);
			checkHeader(code, length);
			const next = at + 1 + length;
			if (code === Frontend.Terminate) {
				this.close("client disconnected");
				return;
			}
			if (this.copying) at = this.copyMessage(code, chunk, at, next);
			else if (this.skipping && code !== Frontend.Sync) at = this.drop(chunk, next);
			else if (this.isUnread()) break;
			else {
				const end = this.request(code, length, chunk, at, next);
				if (end < 0) break;
				at = end;
			}
		}
		if (this.phase !== Phase.Closed) this.keep(chunk, at);
	}

	/** The rest of a message whose head has been dealt with. @returns where the next begins */
	private passThrough(chunk: Buffer): number {
		const dropped = Math.min(this.dropping, chunk.length);
		this.dropping -= dropped;
		const passed = Math.min(this.through, chunk.length - dropped);
		this.through -= passed;
		if (passed > 0) {
			this.sendTo(this.throughTo, chunk, dropped, dropped + passed);
			if (this.through === 0) for (const work of this.throughThen.splice(0)) this.later(work);
		}
		return dropped + passed;
	}

	/** Throws a message away that may not be all here. */
	private drop(chunk: Buffer, next: number): number {
		this.dropping = Math.max(0, next - chunk.length);
		return Math.min(next, chunk.length);
	}

	private keep(chunk: Buffer, at: number): void {
		const here = chunk.length - at;
		this.batches.ahead.move(at);
		let need = Number.POSITIVE_INFINITY;
		if (this.isReading) need = here < HEADER ? HEADER : Math.max(here + 1, 1 + readInt32(chunk, at + 1));
		this.tail.keep(chunk, at, need);
		if (!this.share.set(counted(this.tail.bytes, need))) this.close("large messages", NO_ROOM);
	}

	/** Whoever does not read answers gets no more of them. */
	private isUnread(): boolean {
		if (this.out.length > 0) this.flush();
		this.unread = this.stream.queued > UNREAD;
		return this.unread;
	}

	/** Reads the client's socket, or does not. */
	flow(): void {
		const held = !this.isReading && this.tail.bytes > HELD;
		if (held || this.unread || this.shards.isPaused) this.stream.pause();
		else this.stream.resume();
	}

	// ---- requests --------------------------------------------------------------------------------------------------

	/** A message while a COPY reads data. @returns where the next begins */
	private copyMessage(code: number, chunk: Buffer, at: number, next: number): number {
		switch (code) {
			case Frontend.CopyData:
				this.through = Math.max(0, next - chunk.length);
				this.throughTo = this.step.targets;
				this.send(chunk, at, Math.min(next, chunk.length));
				return Math.min(next, chunk.length);
			case Frontend.CopyDone:
			case Frontend.CopyFail:
				if (next > chunk.length) return this.drop(chunk, next);
				this.copying = false;
				this.send(chunk, at, next);
				// In a batch PostgreSQL would keep its answer until the next Sync, which waits here for that answer.
				if (this.terminator === Terminator.Flush) this.send(FLUSH, 0, FLUSH.length);
				return next;
			case Frontend.Sync:
			case Frontend.Flush:
				// PostgreSQL ignores them here.
				return this.drop(chunk, next);
			default:
				throw new ProtocolError(`unexpected message type 0x${code.toString(16).toUpperCase()} during COPY from stdin`);
		}
	}

	/** A request that begins at `at`. @returns where it ends, or -1 when it is not all here */
	private request(code: number, length: number, chunk: Buffer, at: number, next: number): number {
		switch (code) {
			case Frontend.Query:
			case Frontend.FunctionCall:
				if (length > ROUTED) {
					this.refuse(TOO_LARGE, Terminator.Sync);
					return this.drop(chunk, next);
				}
				if (next > chunk.length) return -1;
				this.simple(code, chunk, at, next);
				return next;
			case Frontend.Sync:
			case Frontend.Flush:
				if (next > chunk.length) return -1;
				if (length !== 4) {
					// At a Sync a batch that has failed ends, and this is a failure of its own.
					this.skipping = false;
					this.refuse(MALFORMED, code === Frontend.Sync ? Terminator.Sync : Terminator.Flush);
					return next;
				}
				if (code === Frontend.Sync) this.sync();
				return next;
			case Frontend.Parse:
			case Frontend.Bind:
			case Frontend.Describe:
			case Frontend.Execute:
			case Frontend.Close: {
				const end = this.batches.endOf(chunk, at, this.hurried);
				if (end === End.TooLarge) {
					this.refuse(TOO_LARGE, Terminator.Flush);
					return at;
				}
				if (end < 0 || chunk[end] === Frontend.Terminate) return end;
				this.batch(chunk, at, end);
				return end;
			}
			default:
				// Data of a COPY that has failed is ignored, as PostgreSQL does.
				return this.drop(chunk, next);
		}
	}

	private simple(code: number, chunk: Buffer, at: number, next: number): void {
		const { requests, transaction } = this;
		let targets = this.batches.all;
		let route: Route | null = null;
		this.beforeRouting();
		if (code === Frontend.FunctionCall) {
			requests.facts = null;
			requests.wrote = true;
			if (requests.router.asksPlugins) route = requests.router.refuseUnasked(Unasked.FunctionCall);
		} else route = requests.query(chunk, at, next, transaction.isRunning, this.statements);
		if (this.isRefused(route, Terminator.Sync)) return;
		if (route !== null) {
			const said = this.mayAnswer ? this.say(chunk.utf8Slice(at + HEADER, next - 1)) : null;
			if (said !== null) {
				this.statements.note(chunk, at, next);
				this.shards.learn(chunk, at, next);
				this.answerHere(said, (status) => answerQuery(said, status));
				return;
			}
			targets = this.batches.targets(route);
			this.statements.forgetUnnamed();
		}
		// What stands behind the end of a transaction that has failed, in one string with it, runs.
		if (route !== null && route.error !== null && isEnd(requests.facts)) {
			this.refuseRoute(route, route.error, Terminator.Sync);
			return;
		}
		if (this.isAborted(Terminator.Sync)) return;
		targets = this.batches.of(transaction.targets(targets, requests.facts, NO_SHARDS));
		if (this.mayDivide(targets, chunk, at, next)) {
			this.refuse(DIVIDES, Terminator.Sync);
			return;
		}
		const steps = this.involved.length > 0 ? [stepOf(this.involved, SYNC)] : [];
		const firstAnswers = requests.facts?.placement.firstAnswers ?? null;
		steps.push({ ...stepOf(targets, chunk), at, end: next, joins: true, firstAnswers });
		this.start(steps, Terminator.Sync, targets, route?.side ?? Side.Primary, route);
	}

	/** Whether a string may end the transaction on these shards, while it is open on others. */
	private mayDivide(targets: readonly number[], chunk: Buffer, at: number, next: number): boolean {
		if ((this.requests.facts?.statements ?? 0) < 2 || this.status === TxStatus.Failed) return false;
		if (this.transaction.begun.every((shard) => targets.includes(shard))) return false;
		if (!factsOf(this.context.facts, chunk, at + HEADER, next - 1).transaction) return false;
		return ENDS.test(chunk.utf8Slice(at + HEADER, next - 1));
	}

	private beforeRouting(): void {
		const { requests, involved, transaction } = this;
		// What a batch has begun is not settled before its Sync.
		if (involved.length === 0) this.readings.settle(this.shards.reading, this.statements);
		// Each client has a shard of its own for what names no table, and the same for as long as it stays.
		requests.home = transaction.home(this.pid % this.shards.count, involved);
		this.requests.begun = this.transaction.heldBegin.begun;
	}

	/** Says what the router has against it. A transaction that has failed unknown to any shard has its own words. */
	private isRefused(route: Route | null, terminator: Terminator): boolean {
		if (route === null || route.error === null || this.transaction.heldBegin.failed) return false;
		this.refuseRoute(route, route.error, terminator);
		return true;
	}

	/** Says that the transaction has failed, if no shard can and what was routed does not end it. */
	private isAborted(terminator: Terminator): boolean {
		const { heldBegin } = this.transaction;
		if (!heldBegin.failed) return false;
		if (isEnd(this.requests.facts)) {
			heldBegin.abandon();
			return false;
		}
		this.refuse(ABORTED, terminator);
		return true;
	}

	private sync(): void {
		this.skipping = false;
		if (this.involved.length > 0) this.start([stepOf(this.involved, SYNC)], Terminator.Sync, this.involved);
		else this.write(readyForQuery(this.status));
	}

	/** Extended-query messages up to a Sync or Flush, or up to a Query. */
	private batch(chunk: Buffer, at: number, end: number): void {
		const last = chunk[end - 5];
		const ended = this.batches.isTerminated;
		const terminator = ended && last === Frontend.Sync ? Terminator.Sync : Terminator.Flush;
		const stop = ended ? end - 5 : end;
		at = this.beginning(chunk, at, stop, terminator);
		if (at < 0) return;
		this.beforeRouting();
		const { requests, statements, transaction } = this;
		const batch = this.batches.split(requests, statements, chunk, at, stop, transaction, this.involved);
		const { segments, error, route, copyEnds } = batch;
		// What is still to come of it may write.
		const side = this.hurried && batch.side === Side.Any ? requests.router.writeSide : batch.side;
		if (error !== null && !transaction.heldBegin.failed) {
			if (route === null) this.refuse(error, terminator);
			else this.refuseRoute(route, error, terminator);
			return;
		}
		if (this.mayAnswer && endOfSolo(chunk, at, statements) === end) {
			const said = this.say(requests.textOf(chunk, at, statements));
			// In a transaction that has failed a batch fails at its first message.
			if (said !== null && said.error !== ABORTED) {
				const { isRunning } = transaction;
				// Where servers have the transaction its first message fails: nothing of it has happened.
				this.learnBatch(chunk, at, said.error !== null && isRunning ? at : end, said.error !== null);
				this.answerHere(said, (status) => answerBatch(said, chunk, at, end, status));
				return;
			}
		}
		// Whatever the router has against it: the transaction has failed.
		if (error !== null) {
			this.refuse(ABORTED, terminator);
			return;
		}
		if (this.isAborted(terminator)) return;
		const targets = [...new Set(segments.flatMap((segment) => segment.targets).concat(this.involved))];
		this.ends = batch.ends;
		const first = segments[0]!;
		if (terminator === Terminator.Sync && segments.length === 1 && this.involved.length === 0) {
			const step = { ...stepOf(first.targets, chunk), at, end, joins: true, firstAnswers: first.firstAnswers };
			this.start([step], terminator, targets, side, route, copyEnds);
			return;
		}
		// What follows goes when the shards have answered, which they do when they are told to.
		const steps: Step[] = segments.map((segment) => ({ ...segment, chunk, behind: FLUSH, quiet: false }));
		if (terminator === Terminator.Sync) steps.push(stepOf(targets, SYNC));
		this.start(steps, terminator, targets, side, route, copyEnds);
	}

	/**
	 * Statements at the head of a batch that only say how its transaction begins are answered: the next tells where to go.
	 * @returns where that is; -1 when the batch was refused
	 */
	private beginning(chunk: Buffer, at: number, stop: number, terminator: Terminator): number {
		const { requests, statements, transaction } = this;
		const { heldBegin } = transaction;
		while (!transaction.isRunning && this.involved.length === 0 && !heldBegin.failed && this.shards.mayHold) {
			const next = endOfSolo(chunk, at, statements, true);
			if (next < 0 || next >= stop) break;
			const sql = requests.textOf(chunk, at, statements);
			if (!isBeginning(requests.router.statements.facts(sql))) break;
			this.beforeRouting();
			const { error, route } = this.batches.split(requests, statements, chunk, at, next, transaction, NOWHERE);
			if (error !== null) {
				this.refuseRoute(route!, error, terminator);
				return -1;
			}
			const said = this.say(sql);
			if (said === null) break;
			this.learnBatch(chunk, at, next, said.error !== null);
			this.answerHere(said, (status) => answerBatch(said, chunk, at, next, status));
			at = next;
		}
		return at;
	}

	/** The messages `[at, end)` are answered here. @param failed as in `noteBatch` */
	private learnBatch(chunk: Buffer, at: number, end: number, failed: boolean): void {
		noteBatch(this.statements, chunk, at, end, this.context.nextSerial(), failed);
		this.shards.learnBatch(chunk, at, end, failed);
	}

	/** The statement just routed may be one that needs no server. */
	private get mayAnswer(): boolean {
		const { facts } = this.requests;
		if (facts === null || this.involved.length > 0) return false;
		if (!this.transaction.isRunning) return this.transaction.heldBegin.concerns(facts);
		if (facts.reads || facts.writes || facts.statements !== 1) return false;
		return facts.transaction === TransactionControl.None && this.status !== TxStatus.Failed;
	}

	private say(sql: string): OwnAnswer | null {
		const { transaction } = this;
		if (transaction.isRunning) return saySetting(sql, this.hints, true, this.ran);
		return transaction.heldBegin.answer(this.requests.facts!, sql, this.shards.mayHold);
	}

	private answerHere(said: OwnAnswer, answer: (status: TxStatus) => Buffer): void {
		const { heldBegin, isRunning } = this.transaction;
		const wasOpen = this.inTransaction;
		if (said.error !== null) {
			if (isRunning) {
				// The shards' transactions fail with it.
				this.refuse(said.error, Terminator.Sync);
				return;
			}
			this.errors++;
			heldBegin.fail();
		}
		if (!isRunning) this.status = heldBegin.status;
		this.queries++;
		this.out.push(answer(this.status));
		if (!wasOpen || this.inTransaction) return;
		this.transactions++;
		this.mayLeave();
	}

	private refuseRoute(route: Route, error: PgError, terminator: Terminator): void {
		this.context.routes.note(this.context.time, this, this.requests.facts, this.requests.sql, route, null, 0);
		this.refuse(error, terminator);
	}

	/** Nothing of the request is sent. A transaction fails, as PostgreSQL's would have. */
	private refuse(error: PgError, terminator: Terminator): void {
		this.phase = Phase.Busy;
		this.terminator = terminator;
		this.mended = false;
		this.step = NO_STEP;
		this.steps = [];
		this.write(errorResponse(error, "stays"));
		this.failed();
		this.next();
	}

	private start(
		steps: Step[],
		terminator: Terminator,
		targets: readonly number[],
		wanted = Side.Primary,
		route: Route | null = null,
		copyEnds = 0,
	): void {
		this.phase = Phase.Busy;
		this.terminator = terminator;
		this.hasFailed = false;
		this.mended = false;
		this.copyEnds = copyEnds;
		this.steps = steps;
		this.ran = this.inTransaction;
		const { transaction } = this;
		if (!transaction.isRunning) {
			// A server that stays for good has to be one that can write.
			const stays = wanted === Side.Any && this.requests.router.mayWrite && this.shards.isSession;
			const least = stays || this.shards.isSerializable ? this.requests.router.writeSide : wanted;
			transaction.side = this.writes.side(least, this.context.general, this.context.time);
			transaction.since = this.writes.since;
			if (transaction.side !== least) route = this.writes.told(route, transaction.side);
		}
		this.explained = this.requests.facts?.explains && this.context.general.expanded_explain ? route : null;
		const { side, since } = transaction;
		for (const shard of targets) this.shards.at(shard).prefer(side, since, route, this.requests.facts);
		this.next();
	}

	/** Sends what is to be sent next, or ends the request. */
	private next(): void {
		if (this.hasFailed && this.involved.length > 0) {
			this.steps = [{ ...stepOf(this.involved, FAIL_BATCH), quiet: true }];
			this.involved = [];
		}
		const step = this.steps.shift();
		if (step === undefined) {
			this.finish();
			return;
		}
		// Also before a Query in the middle of a batch, and at its end.
		if (step.chunk === SYNC) this.involved = [];
		this.step = step;
		this.mark = step.at;
		this.merge = new Merge(this.shards.count, step.targets, step.replies, this, step.firstAnswers);
		this.sent = 0;
		this.sendStep();
	}

	/**
	 * Shard after shard, the next when the last has a server: two clients that each had what the other waits for would
	 * wait for ever.
	 */
	private sendStep(): void {
		const { targets, chunk, at, end, behind, joins } = this.step;
		while (this.sent < targets.length && this.phase !== Phase.Closed) {
			// One had none to give: then the others are not asked.
			if (this.merge.hasError()) {
				this.merge.spare(targets.slice(this.sent));
				this.sent = targets.length;
				return;
			}
			const shard = targets[this.sent++]!;
			if (joins) this.transaction.join(shard);
			this.sendTo([shard], chunk, at, end);
			if (behind !== null) {
				if (!this.involved.includes(shard)) this.involved = [...this.involved, shard];
				this.sendTo([shard], behind, 0, behind.length);
			}
			if (this.shards.at(shard).isWaiting) return;
		}
	}

	onShardReads(): void {
		if (this.phase === Phase.Idle && this.tail.bytes > 0) this.later(() => this.resume());
		if (this.sent < this.step.targets.length) this.later(() => this.sendMore());
	}

	private sendMore(): void {
		const { targets } = this.step;
		if (this.sent === 0 || this.sent >= targets.length || this.shards.at(targets[this.sent - 1]!).isWaiting) return;
		this.sendStep();
	}

	private send(chunk: Buffer, at: number, end: number): void {
		this.sendTo(this.step.targets, chunk, at, end);
	}

	private sendTo(shards: readonly number[], chunk: Buffer, at: number, end: number): void {
		if (at === end) return;
		// Each shard's Client keeps slices of what it is given.
		const bytes = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
		for (const shard of shards) if (this.phase !== Phase.Closed) this.shards.at(shard).onData(bytes);
	}

	private get inTransaction(): boolean {
		return this.status !== TxStatus.Idle;
	}

	/** All that the request was is answered. The transaction must be open on all shards that have begun it, or on none. */
	private finish(): void {
		const { transaction } = this;
		const { heldBegin } = transaction;
		transaction.joined();
		if (this.terminator === Terminator.Flush && !this.hasFailed) {
			if (this.ends) transaction.end();
			this.rest();
			return;
		}
		if (this.hasFailed) this.shards.align(this.statements);
		const open = this.shards.having(TxStatus.InBlock);
		const failed = this.shards.having(TxStatus.Failed);
		const begun = [...open, ...failed].sort((a, b) => a - b);
		if (begun.length === 0) {
			if (this.hasFailed) heldBegin.fail();
			this.answered(heldBegin.status);
		} else if (!this.isWhole(begun)) this.mend(begun, ROLLBACK, this.hasFailed);
		else if (open.length > 0 && (this.hasFailed || failed.length > 0)) this.mend(open, FAIL, true);
		else {
			transaction.begun = begun;
			transaction.failed = open.length === 0;
			this.answered(open.length > 0 ? TxStatus.InBlock : TxStatus.Failed);
		}
	}

	/** False when COMMIT AND CHAIN, or BEGIN, has failed here and there not. */
	private isWhole(begun: readonly number[]): boolean {
		const { transaction, batches } = this;
		return (transaction.isRunning ? transaction.begun : batches.all).every((shard) => begun.includes(shard));
	}

	private mend(shards: readonly number[], message: Buffer, allowed: boolean): void {
		if (this.mended || !allowed) {
			const error = new PgError("FATAL", "58000", "a transaction is open on some of the shards only");
			this.close(error.message, error);
			return;
		}
		this.mended = true;
		this.steps = [{ ...stepOf(shards, message), quiet: true }];
		this.later(() => this.next());
	}

	private answered(status: TxStatus): void {
		this.status = status;
		this.queries++;
		this.ends = false;
		const { committed } = this;
		this.committed = false;
		if (status === TxStatus.Idle) {
			this.hints.end(committed);
			this.readings.noteEnd();
			this.transaction.end();
			if (this.requests.wrote) {
				this.requests.wrote = false;
				this.writes.wrote(now());
			}
			this.batches.clear();
			this.transactions++;
		}
		if (this.terminator === Terminator.Flush) this.skipping = true;
		else this.out.push(readyForQuery(status));
		this.rest();
		if (status === TxStatus.Idle) this.mayLeave();
	}

	/** Nothing is open. */
	private mayLeave(): void {
		if (this.leaving || this.context.stopping) this.close("shutdown", SHUTTING_DOWN);
	}

	/** The client's turn. */
	private rest(): void {
		this.phase = Phase.Idle;
		this.copying = false;
		this.step = NO_STEP;
		this.activeAt = this.context.time;
		this.shards.unpause();
		if (this.tail.bytes > 0) this.later(() => this.resume());
		else this.flow();
	}

	// ---- answers of the shards -------------------------------------------------------------------------------------

	onShard(shard: number, bytes: Buffer): void {
		if (this.phase === Phase.Closed) return;
		this.merge.add(shard, bytes);
		this.flush();
	}

	write(messages: Uint8Array): void {
		const code = messages[0];
		if (this.step.quiet) {
			// A setting may be what it was before the transaction.
			if (code === Backend.ParameterStatus) this.out.push(messages);
			return;
		}
		if (code === Backend.BackendKeyData && this.phase === Phase.Login) return;
		if (code === Backend.CommandComplete) this.onTag(messages);
		this.out.push(messages);
	}

	private flush(): void {
		const { out } = this;
		if (out.length === 0) return;
		this.out = [];
		const total = out.reduce((sum, { length }) => sum + length, 0);
		if (out.length > 1 && total <= TOGETHER) this.stream.writeAll(Buffer.concat(out, total));
		else for (const messages of out) this.stream.writeAll(messages);
	}

	/** A CommandComplete for the client. */
	private onTag(message: Uint8Array): void {
		const first = message[HEADER];
		// Of those that begin with C, D, E or R: COMMIT, DEALLOCATE ALL, DISCARD ALL, EXPLAIN, ROLLBACK.
		if (first !== 67 && first !== 68 && first !== 69 && first !== 82) return;
		const tag = Buffer.from(message).latin1Slice(HEADER, message.length - 1);
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
				this.statements.clear();
				this.shards.forgetStatements(this.step.targets);
		}
	}

	/** The rows that its output ends with. */
	private explain(): void {
		const { explained } = this;
		if (explained === null) return;
		this.explained = null;
		this.out.push(explainRows(explained, this.shards.places(this.step.targets)));
	}

	replied(): void {
		const { chunk, end } = this.step;
		if (this.step.quiet || chunk[this.mark] === Frontend.Query) return;
		this.toReplied();
		if (this.mark >= end) return;
		const next = this.mark + 1 + readInt32(chunk, this.mark + 1);
		this.learn(chunk, this.mark, next);
		this.mark = next;
	}

	/** On to a message that is replied to. */
	private toReplied(): void {
		const { chunk, end } = this.step;
		while (this.mark < end && !isReplied(chunk[this.mark]!)) this.mark += 1 + readInt32(chunk, this.mark + 1);
	}

	/** What a message that was done did to the client's statements, it did on those shards only that had it. */
	private learn(chunk: Buffer, at: number, next: number): void {
		const code = chunk[at];
		if (code !== Frontend.Query && code !== Frontend.Parse && code !== Frontend.Close) return;
		this.statements.note(chunk, at, next);
		this.shards.learn(chunk, at, next, this.step.targets);
	}

	failed(): void {
		if (this.step.quiet) return;
		this.errors++;
		this.hasFailed = true;
		this.steps = [];
		this.copying = false;
		const { chunk, end } = this.step;
		this.toReplied();
		// The unnamed statement is gone once a Parse for it has begun.
		if (this.mark < end && chunk[this.mark] === Frontend.Parse && chunk[this.mark + HEADER] === 0)
			this.statements.forgetUnnamed();
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
			if (replies !== TO_READY) this.steps.pop();
			else {
				let left = 0;
				for (let next = this.mark; next < end; next += 1 + readInt32(chunk, next + 1))
					if (isReplied(chunk[next]!)) left++;
				this.merge.expect(left);
				this.involved = targets;
			}
		}
		this.later(() => this.resume());
	}

	stopCopy(shard: number): void {
		this.copying = false;
		if (this.copyEnds > 0) return;
		const { merge, step } = this;
		const ignored = step.replies === TO_READY && step.chunk[step.at] !== Frontend.Query && this.involved.length === 0;
		this.later(() => {
			if (this.merge === merge) this.shards.at(shard).onData(ignored ? COPY_FAIL_SYNC : COPY_FAIL);
		});
	}

	done(): void {
		if (this.phase === Phase.Login) {
			this.out.push(backendKeyData(this.pid, this.secret), readyForQuery(TxStatus.Idle));
			this.context.onLogin(this);
			this.rest();
			this.mayLeave();
			return;
		}
		const { chunk, at, end } = this.step;
		if (chunk[at] === Frontend.Query && !this.step.quiet && !this.hasFailed) this.learn(chunk, at, end);
		if (this.steps.length > 0 || (this.hasFailed && this.involved.length > 0)) this.later(() => this.next());
		else this.finish();
	}

	isFull(shard: number): boolean {
		const ahead = this.merge.isAhead(shard);
		return this.stream.queued > 0 || ahead;
	}

	onDrain(): void {
		for (const shard of this.batches.all) if (!this.merge.isAhead(shard)) this.shards.at(shard).onDrain();
		if (!this.unread) return;
		this.unread = false;
		this.later(() => this.resume());
	}

	/** The slower shards have caught up with it. */
	resumeShard(shard: number): void {
		if (this.stream.queued === 0) this.shards.at(shard).onDrain();
	}

	/** A shard's Client has closed: its last words may be in the merge. */
	onShardEnd(shard: number): void {
		if (this.phase === Phase.Closed) return;
		const { lastError } = this.shards.at(shard);
		const told = this.merge.fatal && !this.step.quiet;
		const words = told ? undefined : (this.merge.lastWords(shard) ?? lastError ?? undefined);
		this.close(lastError?.message ?? "a server closed the connection", words);
	}

	// ---- life ------------------------------------------------------------------------------------------------------

	get stateName(): string {
		if (this.shards.isWaiting) return "waiting";
		if (this.phase === Phase.Busy) return "active";
		if (this.status === TxStatus.Failed) return "transaction error";
		return this.status === TxStatus.InBlock ? "idle in transaction" : "idle";
	}

	get waitTime(): number {
		return this.shards.waitTime;
	}

	get queryTime(): number {
		return this.shards.queryTime;
	}

	get transactionTime(): number {
		return this.shards.transactionTime;
	}

	get statementCount(): number {
		return this.statements.size;
	}

	get isLocked(): boolean {
		return this.shards.isLocked;
	}

	setting(name: string): string | undefined {
		return this.shards.setting(name);
	}

	cancel(done: () => void): void {
		this.shards.cancel(done);
	}

	check(time: number): void {
		if (this.phase === Phase.Closed) {
			// It has been told to go, but does not read what it was told.
			if (time - this.activeAt > LINGER) this.stream.terminate();
			return;
		}
		if (this.isReading && time - this.activeAt >= QUIET && this.batches.ahead.isOpen && this.tail.bytes > 0) {
			this.hurried = true;
			this.guarded(() => this.walk(this.tail.take()));
			this.hurried = false;
		}
		// The shards do not know: one that is not asked is idle, but its client is not.
		if (this.phase !== Phase.Idle || this.involved.length > 0) return;
		const general = this.context.general;
		const setting = this.inTransaction ? "client_idle_in_transaction_timeout" : "client_idle_timeout";
		if (time - this.activeAt > general[setting]) this.close(setting, idleError(setting, general));
	}

	/** Which shards there are does not change under a client: with others it has to come again. */
	reach(cluster: Cluster, router: Router): void {
		if (cluster.shards.length !== this.shards.count) {
			this.shutDown(false);
			return;
		}
		const { wrote } = this.requests;
		this.requests = new RequestRouter(router, this.hints, this.readings);
		this.requests.wrote = wrote;
		this.shards.reach(cluster);
	}

	shutDown(force: boolean): void {
		const free = this.phase === Phase.Idle && !this.inTransaction && this.involved.length === 0;
		if (force || free) this.close("shutdown", SHUTTING_DOWN);
		else this.leaving = true;
	}

	/** The one way out: says why to the client, in our words or a server's, and leaves all servers clean. */
	close(reason: string, words?: PgError | Buffer): void {
		if (this.phase === Phase.Closed) return;
		this.phase = Phase.Closed;
		if (words !== undefined) {
			this.errors++;
			this.out.push(words instanceof PgError ? errorResponse(words, "ends") : words);
		}
		this.flush();
		this.leave(reason);
		this.stream.end();
	}

	onClose(error: Error | undefined): void {
		if (this.phase !== Phase.Closed) {
			this.phase = Phase.Closed;
			this.leave(error?.message ?? "connection lost");
		}
		this.context.unregister(this);
	}

	private leave(reason: string): void {
		this.activeAt = this.context.time;
		this.tail.clear();
		this.share.set(0);
		this.shards.close("client disconnected");
		this.statements.clear();
		this.context.onLogout(this, reason);
	}
}

/** In a string of which some statement is transaction control: perhaps that ends the transaction, and is not about savepoints. */
const ENDS = /\b(commit|end|abort|rollback(?!\s+((work|transaction)\s+)?to\b))\b/i;
const DIVIDES = new PgError(
	"ERROR",
	"0A000",
	"a string of statements for one shard cannot end a transaction that is open on others",
	undefined,
	"Send COMMIT and its like as statements of their own.",
);
const NO_SHARDS: ReadonlySet<number> = new Set();
const NOWHERE: readonly number[] = [];
