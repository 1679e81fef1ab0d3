// A client of a cluster with several shards. It frames requests; for each shard there is a Link (shard-link.ts), with its own
// servers and settings, that is fed the same bytes and answers into a merge (merge.ts). What a request becomes is planned
// (planning.ts), and done (exchange.ts), one request at a time: the next may go to other shards, and answers must keep their order.

import type { Audience } from "../client/audience.ts";
import { LINGER, QUIET, SHUTTING_DOWN } from "../client/client.ts";
import type { ClientContext, ClientHandle, Login } from "../client/context.ts";
import { Ahead, faultOf, LONGEST, LookAhead, MALFORMED, outOfCopy, ROUTED, TOO_LARGE } from "../client/framing.ts";
import { HELD, UNREAD } from "../client/incoming.ts";
import { counted, NO_ROOM, Share } from "../client/share.ts";
import { TimeLimits, Turn } from "../client/time-limits.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { Outgoing } from "../net/outgoing.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { Router } from "../router/router.ts";
import { Session } from "../session/session.ts";
import { ShardedStatements } from "../session/sharded-statements.ts";
import { ClientStatements } from "../session/statements.ts";
import { type CommitOutcome, TwoPhaseCommit } from "../two-phase/commit.ts";
import { backendKeyData, READY_IDLE, readyForQuery } from "../wire/backend-messages.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";
import { Exchange, type ExchangeOwner } from "./exchange.ts";
import { AnsweredHere, Planning, Refusal } from "./planning.ts";
import type { ShardedSession } from "./session.ts";
import { ShardLinks } from "./shard-links.ts";
import type { PortOwner } from "./shard-port.ts";
import { type Plan, Terminator } from "./steps.ts";
import { ShardedTransaction } from "./transaction.ts";

const enum Phase {
	/** The shards are being logged in to. */
	Login,
	Idle,
	/** A request is under way; what else comes is held, but for the data of a COPY. */
	Busy,
	Closed,
}

export class ShardedClient implements StreamOwner, ExchangeOwner, ClientHandle, PortOwner, Audience {
	readonly stream: Stream;
	readonly out: Outgoing;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	readonly auth: string;
	readonly connectedAt = Date.now();
	readonly pid: number;
	readonly secret: Uint8Array;
	activeAt: number;
	queries = 0;
	transactions = 0;
	private readonly limits = new TimeLimits();
	errors = 0;

	private readonly context: ClientContext;
	private readonly shards: ShardLinks;
	private readonly session: ShardedSession;
	private readonly planning: Planning;
	private readonly exchange: Exchange;

	private phase = Phase.Login;
	private readonly tail = new Tail();
	private readonly ahead = new LookAhead();
	private readonly share: Share;
	/** Skip to the next Sync, after an error. */
	private skipping = false;
	/** Bytes still to come of a message that is thrown away, and of CopyData that is passed on in pieces. */
	private dropping = 0;
	private through = 0;
	/** The shards that get those pieces, and what waits for their end: nothing may be sent in between. */
	private throughTo: readonly number[] = [];
	private throughThen: (() => void)[] = [];
	/** The client has to read what it was sent before it may go on. */
	private unread = false;
	/** The client is to be closed as soon as no transaction is open. */
	private leaving = false;
	/** Notifications wait until then. */
	private hasNews = false;

	constructor(context: ClientContext, stream: Stream, cluster: Cluster, router: Router, login: Login) {
		this.context = context;
		this.share = new Share(context.collected);
		this.stream = stream;
		this.out = stream.out;
		this.user = login.account.name;
		this.database = login.account.database;
		this.address = login.address;
		this.auth = login.auth ?? "";
		this.activeAt = context.time;
		this.pid = context.register(this);
		this.secret = crypto.getRandomValues(new Uint8Array(login.minor >= 2 ? 32 : 4));
		const own = new Session(login.hints);
		const kept = new ShardedStatements(context.statements, context.general.prepared_statements !== "disabled");
		const common = { hints: own.hints, statements: kept, audience: this };
		this.shards = new ShardLinks(context, this, cluster, login, common);
		this.session = {
			own,
			statements: new ClientStatements(context.statements, context.facts, this.shards.at(0).link.parsing, null, kept),
			kept,
			transaction: new ShardedTransaction(this.shards.each, own.heldBegin, kept.areShared),
		};
		this.planning = new Planning(context, this, this.shards, this.session, router);
		this.exchange = new Exchange(context, this, this.shards, this.session);
	}

	/** What all of its shards know of it is more than can be told another thread. */
	get isQuiet(): boolean {
		return false;
	}

	depart(): null {
		return null;
	}

	begin(): void {
		for (const { link } of this.shards.each) if (this.phase === Phase.Login) link.begin();
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
		const whole = this.tail.isUnused ? chunk : this.tail.add(chunk);
		if (whole !== null) this.read(whole);
	}

	private get isReading(): boolean {
		if (this.exchange.copying || this.through > 0) return true;
		// What the last transaction did to settings decides where the next goes.
		return this.phase === Phase.Idle && !this.unread && !this.shards.isHeld;
	}

	/** Reads what was held. */
	private resume(): void {
		if (this.isReading && this.tail.bytes > 0) this.walk(this.tail.take());
	}

	/** As `walk`, in an event of the client's. */
	private read(chunk: Buffer): void {
		try {
			this.walk(chunk);
		} catch (error) {
			this.fault(error);
			return;
		}
		if (this.out.fill > 0) this.out.flush();
		if (this.tail.bytes > 0 || this.unread || this.stream.paused) this.flow();
	}

	private guarded(work: () => void): void {
		try {
			work();
		} catch (error) {
			this.fault(error);
			return;
		}
		if (this.out.fill > 0) this.out.flush();
		this.flow();
	}

	/** What PostgreSQL ends a connection for; anything else is a bug. */
	private fault(error: unknown): void {
		if (!(error instanceof ProtocolError)) throw error;
		this.close(`protocol error: ${error.message}`, new PgError("FATAL", error.sqlstate, error.message));
	}

	/**
	 * Does `work` when the event under way is over, since a server's answer may not lead to another message at once, and
	 * when no message is half sent.
	 */
	later(work: () => void): void {
		if (this.through > 0) {
			this.throughThen.push(work);
			return;
		}
		this.context.contain.soon(this.stream, () => {
			if (this.phase !== Phase.Closed) this.guarded(work);
		});
	}

	/** Message after message, as long as the client may go on, which is so to begin with. */
	private walk(chunk: Buffer): void {
		let at = 0;
		if (this.dropping + this.through > 0) {
			at = this.passThrough(chunk);
			if (!this.isReading) {
				this.keep(chunk, at);
				return;
			}
		}
		while (chunk.length - at >= HEADER) {
			const code = chunk[at]!;
			const length = readInt32(chunk, at + 1);
			if (length < 4 || length > LONGEST[code]!) throw faultOf(code, length);
			const next = at + 1 + length;
			if (code === Frontend.Terminate) {
				this.close("client disconnected");
				return;
			}
			if (this.skipping && code !== Frontend.Sync && !this.exchange.copying) {
				at = this.drop(chunk, next);
				continue;
			}
			let end: number;
			if (this.exchange.copying) end = this.copyMessage(code, chunk, at, next);
			else {
				const stuck = this.unread || this.out.fill > 0 || this.stream.queued > UNREAD;
				end = stuck && this.isUnread() ? -1 : this.request(code, length, chunk, at, next);
			}
			if (end < 0) break;
			at = end;
			if (at < chunk.length && !this.isReading) break;
		}
		this.keep(chunk, at);
	}

	/** The rest of a message whose head has been dealt with. @returns where the next begins */
	private passThrough(chunk: Buffer): number {
		const dropped = Math.min(this.dropping, chunk.length);
		this.dropping -= dropped;
		const passed = Math.min(this.through, chunk.length - dropped);
		this.through -= passed;
		if (passed > 0) {
			this.shards.send(this.throughTo, chunk, dropped, dropped + passed);
			if (this.through === 0) for (const work of this.throughThen.splice(0)) this.later(work);
		}
		return dropped + passed;
	}

	/** Throws a message away that may not be all here. */
	private drop(chunk: Buffer, next: number): number {
		this.dropping = Math.max(0, next - chunk.length);
		return Math.min(next, chunk.length);
	}

	/** Keeps what is here of a message, or of a request that is not dealt with, until there is more of it. */
	private keep(chunk: Buffer, at: number): void {
		if (this.phase === Phase.Closed) return;
		const here = chunk.length - at;
		if (this.ahead.end > 0) this.ahead.move(at);
		if (here === 0 && this.tail.isUnused && this.share.bytes === 0) return;
		let need = Number.POSITIVE_INFINITY;
		if (this.isReading) need = here < HEADER ? HEADER : Math.max(here + 1, 1 + readInt32(chunk, at + 1));
		this.tail.keep(chunk, at, need);
		if (this.tail.bytes + this.share.bytes > 0 && !this.share.set(counted(this.tail.bytes, need)))
			this.close("large messages", NO_ROOM);
	}

	/** Whoever does not read answers gets no more of them. */
	private isUnread(): boolean {
		if (this.out.fill > 0) this.out.flush();
		this.unread = this.stream.queued > UNREAD;
		return this.unread;
	}

	/** Reads the client's socket, or does not. */
	flow(): void {
		const held = this.tail.bytes > HELD && !this.isReading;
		if (held || this.unread || this.shards.isPaused) this.stream.pause();
		else this.stream.resume();
	}

	// ---- requests --------------------------------------------------------------------------------------------------

	/** A message while a COPY reads data. @returns as `request` */
	private copyMessage(code: number, chunk: Buffer, at: number, next: number): number {
		switch (code) {
			case Frontend.CopyData:
				this.through = Math.max(0, next - chunk.length);
				this.throughTo = this.exchange.targets;
				this.shards.send(this.throughTo, chunk, at, Math.min(next, chunk.length));
				return Math.min(next, chunk.length);
			case Frontend.CopyDone:
			case Frontend.CopyFail:
				if (next > chunk.length) return -1;
				this.exchange.endCopy(chunk, at, next);
				return next;
			case Frontend.Sync:
			case Frontend.Flush:
				// PostgreSQL ignores them here.
				return this.drop(chunk, next);
			default:
				throw outOfCopy(code);
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
				this.go(this.planning.simple(code, chunk, at, next, this.exchange.involved));
				return next;
			case Frontend.Sync:
			case Frontend.Flush:
				if (next > chunk.length) return -1;
				if (length !== 4) {
					// At a Sync a batch that has failed ends, and this is a failure of its own.
					this.skipping = false;
					this.refuse(MALFORMED, code === Frontend.Sync ? Terminator.Sync : Terminator.Flush);
				} else if (code === Frontend.Sync) this.sync();
				return next;
			case Frontend.Parse:
			case Frontend.Bind:
			case Frontend.Describe:
			case Frontend.Execute:
			case Frontend.Close:
				return this.batch(chunk, at);
			default:
				// Data of a COPY that has failed is ignored, as PostgreSQL does.
				return this.drop(chunk, next);
		}
	}

	/** The batch that begins at `at`, or what has not been dealt with of it. @returns as `request` */
	private batch(chunk: Buffer, at: number): number {
		const { ahead } = this;
		const { hurried } = ahead;
		const found = ahead.look(chunk, at);
		if (found === Ahead.Open && !(hurried && ahead.isOpen)) return -1;
		if (found === Ahead.TooLarge) {
			this.refuse(TOO_LARGE, Terminator.Flush);
			return at;
		}
		const { end, last } = ahead;
		if (chunk[end] === Frontend.Terminate) return end;
		const { planning, exchange } = this;
		const outcome = planning.isInPhases
			? planning.batchInPhases(chunk, at, last, end, hurried, exchange.involved)
			: planning.batch(chunk, at, last, end, hurried, exchange.involved);
		this.go(outcome);
		return outcome instanceof AnsweredHere ? outcome.end : planning.end;
	}

	private sync(): void {
		const { involved } = this.exchange;
		this.skipping = false;
		if (involved.length > 0) this.go(this.planning.sync(involved));
		else {
			this.out.addAll(readyForQuery(this.session.transaction.status));
			if (this.hasNews) this.deliver();
		}
	}

	private go(outcome: Plan | AnsweredHere | Refusal): void {
		if (outcome instanceof Refusal) this.refuse(outcome.error, outcome.terminator);
		else if (!(outcome instanceof AnsweredHere)) {
			this.phase = Phase.Busy;
			this.exchange.start(outcome);
		} else {
			if (outcome.failed) this.errors++;
			this.queries++;
			this.out.addAll(outcome.bytes);
			if (!outcome.ended) return;
			this.transactions++;
			this.atEnd();
		}
	}

	private refuse(error: PgError, terminator: Terminator): void {
		this.phase = Phase.Busy;
		this.exchange.refuse(error, terminator);
	}

	// ---- how the exchange goes -------------------------------------------------------------------------------------

	onError(): void {
		this.errors++;
	}

	onLoggedIn(): void {
		this.out.addAll(backendKeyData(this.pid, this.secret));
		this.out.addAll(READY_IDLE);
		this.context.onLogin(this);
		this.rest();
		this.atEnd();
	}

	onCopyIn(): void {
		this.later(() => this.resume());
	}

	onFlushed(): void {
		this.rest();
	}

	onAnswered(status: TxStatus, committed: boolean, skips: boolean): void {
		this.queries++;
		if (status === TxStatus.Idle) {
			this.planning.endTransaction(committed);
			this.transactions++;
		}
		if (skips) this.skipping = true;
		else this.out.addAll(status === TxStatus.Idle ? READY_IDLE : readyForQuery(status));
		this.rest();
		if (status === TxStatus.Idle) this.atEnd();
	}

	commit(shards: readonly number[], done: (outcome: CommitOutcome) => void): void {
		const { context, stream } = this;
		const parts = this.shards.parts(shards);
		const tell = (outcome: CommitOutcome) =>
			context.contain.guard(stream, () => {
				if (this.phase !== Phase.Closed) this.guarded(() => done(outcome));
			});
		context.contain.when(stream, new TwoPhaseCommit(context, this.database, parts).run(tell), () => {});
	}

	/** Nothing is open: what waited for that. */
	private atEnd(): void {
		if (this.hasNews) this.deliver();
		if (this.leaving || this.context.stopping) this.close("shutdown", SHUTTING_DOWN);
	}

	/** The client's turn. */
	private rest(): void {
		this.phase = Phase.Idle;
		this.activeAt = this.context.time;
		// Its socket is not read while a shard takes no more.
		if (this.stream.paused) this.shards.unpause();
		if (this.tail.bytes > 0) this.later(() => this.resume());
		else if (this.stream.paused) this.flow();
	}

	// ---- events of the shards, and of the client's socket ----------------------------------------------------------

	onShard(shard: number, bytes: Buffer): boolean {
		if (this.phase === Phase.Closed) return true;
		const goesOn = this.exchange.merge.add(shard, bytes);
		if (this.out.fill > 0) this.out.flush();
		return goesOn && this.stream.queued === 0;
	}

	onShardReads(): void {
		if (this.phase === Phase.Idle && this.tail.bytes > 0) this.later(() => this.resume());
		if (this.exchange.isSending) this.later(() => this.exchange.sendMore());
	}

	resumeShard(shard: number): void {
		if (this.stream.queued === 0) this.shards.at(shard).onDrain();
	}

	onDrain(): void {
		for (const [shard, client] of this.shards.each.entries()) if (!this.exchange.merge.isAhead(shard)) client.onDrain();
		if (!this.unread) return;
		this.unread = false;
		this.later(() => this.resume());
	}

	onShardWait(notice: Buffer): void {
		// Between two messages, if in the middle of an answer: whatever the others say, it is whole messages that go on.
		if (this.phase !== Phase.Busy) return;
		this.out.addAll(notice);
		this.out.flush();
	}

	onShardEnd(shard: number, reason: string, words?: PgError): void {
		if (this.phase !== Phase.Closed) this.close(reason, this.exchange.lastWords(shard, words));
	}

	// ---- notifications ---------------------------------------------------------------------------------------------

	/** Something is open, or under way, or what fails with it is still to come. */
	get isBusy(): boolean {
		if (this.phase !== Phase.Idle || this.skipping) return true;
		return this.session.transaction.isOpen || this.exchange.involved.length > 0;
	}

	onHeld(): void {
		this.hasNews = true;
	}

	private deliver(): void {
		this.hasNews = false;
		this.shards.deliver();
	}

	// ---- life ------------------------------------------------------------------------------------------------------

	get stateName(): string {
		const { status } = this.session.transaction;
		if (this.shards.isWaiting) return "waiting";
		if (this.phase === Phase.Busy) return "active";
		if (status === TxStatus.Failed) return "transaction error";
		return status === TxStatus.InBlock ? "idle in transaction" : "idle";
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
		return this.session.statements.size;
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
		if (this.isReading && time - this.activeAt >= QUIET && this.ahead.isOpen && this.tail.bytes > 0) {
			this.ahead.hurry(true);
			this.read(this.tail.take());
			this.ahead.hurry(false);
		}
		// The shards do not know: one that is not asked is idle, but its client is not.
		const isOpen = this.session.transaction.isOpen;
		const inBatch = this.exchange.involved.length > 0;
		const isMine = this.phase === Phase.Idle && !inBatch;
		const turn = !isMine ? Turn.Others : isOpen ? Turn.InTransaction : Turn.Idle;
		const isUnderway = isOpen || inBatch || (this.phase === Phase.Busy && !this.shards.isWaiting);
		const { general } = this.context;
		const passed = this.limits.look(general, turn, time - this.activeAt, isUnderway, this.transactions, time);
		if (passed !== null) this.close(passed.setting, passed.error);
	}

	/** Which shards there are does not change under a client: with others it has to come again. */
	reach(cluster: Cluster, router: Router): void {
		if (cluster.shards.length !== this.shards.count) {
			this.shutDown(false);
			return;
		}
		this.planning.reach(router);
		this.shards.reach(cluster);
	}

	shutDown(force: boolean): void {
		if (force || !this.isBusy) this.close("shutdown", SHUTTING_DOWN);
		else this.leaving = true;
	}

	/** The one way out: says why to the client, in our words or a server's, and leaves all servers clean. */
	close(reason: string, words?: PgError | Buffer): void {
		if (this.phase === Phase.Closed) return;
		this.phase = Phase.Closed;
		if (words !== undefined) {
			this.errors++;
			const last = this.exchange.doubt ?? words;
			this.out.addAll(last instanceof PgError ? errorResponse(last, "ends") : last);
		}
		if (this.out.fill > 0) this.out.flush();
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
		this.exchange.abandon();
		this.shards.leave();
		this.session.statements.clear();
		this.context.onLogout(this, reason);
	}
}
