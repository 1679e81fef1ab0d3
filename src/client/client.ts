// One client after its login: collects requests, borrows a server for each transaction, sends what the client sends
// and lets the server's answers through. `onData` → `walk` → one write is the hot path; everything else (settings to
// apply, settings to ask for, refusals) is the exception. Made by login/startup.ts; closed through `close` only.

import { randomBytes } from "node:crypto";
import { Reply } from "../backend/books.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import { type Insertion, insertInto, insertions } from "../backend/restoring.ts";
import { type Server, ServerState } from "../backend/server.ts";
import { now } from "../clock.ts";
import type { General } from "../config/settings.ts";
import { type PoolSpec, Side } from "../config/snapshot.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { Sink, StreamOwner } from "../net/stream.ts";
import type { StatementFacts } from "../parser/facts.ts";
import { factsOf } from "../parser/facts-cache.ts";
import type { Hints } from "../parser/hints.ts";
import type { Reading } from "../parser/reading.ts";
import { Dirty, NO_FACTS, type SessionFacts, sessionFacts, UNKNOWN_FACTS } from "../parser/session.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { Pool } from "../pool/pool.ts";
import { explainRows, type Place } from "../router/explain.ts";
import type { Route } from "../router/route.ts";
import type { Router } from "../router/router.ts";
import { SessionHints } from "../session/hints.ts";
import { Parsing } from "../session/parsing.ts";
import { STALE } from "../session/preparing.ts";
import { noteRun } from "../session/runs.ts";
import { Said } from "../session/said.ts";
import { ClientSettings, Settled, tooManySettings } from "../session/settings.ts";
import { ClientStatements } from "../session/statements.ts";
import { Stat } from "../stats/counters.ts";
import { backendKeyData, CLOSE_COMPLETE, READY_IDLE, readyForQuery } from "../wire/backend-messages.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";
import { FLUSH, query, SYNC } from "../wire/frontend-messages.ts";
import { type Borrower, Checkout } from "./checkout.ts";
import type { ClientContext } from "./context.ts";
import {
	Ahead,
	beginsBatch,
	COLLECT,
	checkHeader,
	endsInSync,
	LookAhead,
	needed,
	outOfCopy,
	passable,
	ROUTED,
} from "./framing.ts";
import { Choice, noteBatch, Routing, type RoutingOwner } from "./routing.ts";
import { counted, NO_ROOM, Share } from "./share.ts";
import { Wait } from "./wait.ts";

/** What may be queued for a client that does not read before its next request has to wait. */
export const UNREAD = 64 << 10;
/** Their answers are as long as what may be queued. */
const MOST_CLOSES = UNREAD / CLOSE_COMPLETE.length;
/** Messages whose answers may be outstanding, each a few bytes of ours; a guess, generous. */
const MOST_OWED = 64 << 10;
/** What a client may send ahead while it waits; then its socket is not read. */
export const HELD = 128 << 10;

/** What is dropped after a request was refused, up to where PostgreSQL would go on. */
const enum Skip {
	Nothing,
	/** The Query that comes next; answered with ReadyForQuery. */
	Query,
	/** Everything before the next Sync. */
	ToSync,
}

/** What became of a message that came while no server was held. */
const enum Step {
	/** A server is here: the message can go. */
	Go,
	/** Answered or dropped. */
	Done,
	/** Not enough of the request is here yet. */
	More,
	/** The rest is held until a server comes. */
	Hold,
}

/** What login/startup.ts found out. */
export interface Login {
	readonly user: string;
	readonly database: string;
	/** Minor version of the protocol. */
	readonly minor: number;
	readonly parameters: ParameterSet;
	/** `pgdog.role` and its like. */
	readonly hints: Hints;
	readonly address: string;
}

export class Client implements StreamOwner, Borrower, RoutingOwner {
	readonly stream: Sink;
	readonly user: string;
	readonly database: string;
	private readonly routing: Routing;
	private readonly checkout: Checkout;
	/** Messages before this place of the chunk under way have been routed. */
	private routed = 0;
	private readonly ahead = new LookAhead();
	private readonly context: ClientContext;
	/** BackendKeyData that this client was given; the number is also its id in SHOW CLIENTS. */
	readonly pid: number;
	readonly secret: Uint8Array;
	readonly address: string;
	readonly connectedAt = Date.now();

	private wait = Wait.Welcome;
	server: Server | null = null;
	private readonly tail = new Tail();
	private readonly share: Share;
	/** Bytes of a message that is passed on in pieces, and of one that is thrown away. */
	private through = 0;
	private dropping = 0;
	private skip = Skip.Nothing;
	/** Its user left the configuration in the middle of its transaction. */
	private leaving = false;
	/** It is told that, and closed, when what it asked before is answered. */
	private parting: PgError | null = null;
	/** What became known too late to be told: the next request is answered with it. */
	private overdue: PgError | null = null;
	/** The batch that is here in part has waited long enough for its end. */
	private hurried = false;

	readonly settings: ClientSettings;
	statements: ClientStatements | null = null;
	readonly parsing: Parsing;
	/** What all shards together have told of its statements (ClientStatements.told); null when it is not one of several. */
	private readonly told: Map<string, string> | null;

	/** By the janitor's clock: when it last sent something. */
	activeAt: number;
	/** For SHOW CLIENTS; milliseconds and counts. */
	queries = 0;
	transactions = 0;
	queryTime = 0;
	transactionTime = 0;
	errors = 0;
	/** Why it was closed, when that was an error. */
	lastError: PgError | null = null;

	/**
	 * @param hints which settings tell that transactions have changed: somebody else's, when that routes
	 * @param told see ClientStatements
	 */
	constructor(
		context: ClientContext,
		stream: Sink,
		cluster: Cluster,
		router: Router | null,
		login: Login,
		hints?: SessionHints,
		told: Map<string, string> | null = null,
	) {
		this.told = told;
		this.context = context;
		this.share = new Share(context.collected);
		this.stream = stream;
		const own = new SessionHints(login.hints);
		this.settings = new ClientSettings(context.sets, login.parameters, stream, hints ?? own);
		this.routing = new Routing(context, this, own, router);
		this.user = login.user;
		this.database = login.database;
		this.address = login.address;
		this.checkout = new Checkout(this, cluster, this.routing, this.settings);
		this.parsing = new Parsing(context, this.checkout, this.settings);
		this.pid = context.register(this);
		this.secret = Uint8Array.from(randomBytes(login.minor >= 2 ? 32 : 4));
		this.activeAt = context.time;
	}

	// ---- the end of the login --------------------------------------------------------------------------------------

	/** Answers with the settings that its sessions will have, from the cache or from a server. */
	begin(): void {
		const known = this.checkout.beginLogin().greeting(this.settings.startup, this.told === null);
		if (known !== null) this.onWelcome(known);
		else this.checkout.start();
	}

	onWelcome(reported: ParameterSet): void {
		this.checkout.loggedIn = true;
		const welcome = [this.settings.welcome(reported), backendKeyData(this.pid, this.secret), READY_IDLE];
		this.stream.writeAll(Buffer.concat(welcome));
		this.context.onLogin(this);
		this.resume();
	}

	// ---- bytes from the client -------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		if (this.wait === Wait.Closed) return;
		this.activeAt = this.context.time;
		if (this.wait !== Wait.Nothing) {
			if (this.parting !== null) return;
			this.tail.hold(chunk);
			if (this.tail.bytes > HELD) this.stream.pause();
			return;
		}
		const whole = this.tail.add(chunk);
		if (whole !== null) this.walk(whole);
	}

	/** Reads what was held while the client waited. */
	private resume(): void {
		if (this.wait === Wait.Closed) return;
		if (this.parting !== null) {
			this.close(`protocol error: ${this.parting.message}`, this.parting);
			return;
		}
		this.wait = Wait.Nothing;
		this.stream.resume();
		if (this.tail.bytes > 0) this.walk(this.tail.take());
	}

	/** The hot path there: message after message, as long as the client may go on. */
	private walk(chunk: Buffer): void {
		const end = chunk.length;
		let at = this.through + this.dropping === 0 ? 0 : this.passThrough(chunk);
		if (this.wait !== Wait.Nothing) {
			if (this.wait !== Wait.Closed) this.hold(chunk, at, this.wait);
			return;
		}
		let run = at;
		let flush = false;
		const { routing } = this;
		try {
			while (end - at >= HEADER) {
				const code = chunk[at]!;
				const length = readInt32(chunk, at + 1);
				checkHeader(code, length);
				const next = at + 1 + length;
				const stop = next < end ? next : end;
				if (this.server === null) {
					const step = this.alone(code, length, chunk, at, next);
					if (step === Step.Hold || (this.wait as Wait) === Wait.Closed) return;
					if (step === Step.More) break;
					if (step === Step.Done) {
						at = this.routed > stop ? this.routed : stop;
						run = at;
						continue;
					}
					run = at;
				}
				const server = this.server!;
				const { books } = server;
				if (server.cancels.count > 0 && books.owed === 0) {
					// A cancel is under way to a query that is over: the next query must not get it.
					this.hold(chunk, at, Wait.Cancel);
					server.cancels.whenLanded(() => this.resume());
					return;
				}
				if (books.skipping && code !== Frontend.Sync && code !== Frontend.Terminate) {
					// A batch has failed: PostgreSQL ignores all of it that still comes, and so must our books.
					this.send(server, chunk, run, at);
					this.drop(chunk, next);
					at = stop;
					run = stop;
					continue;
				}
				if (
					(books.deallocates && !books.unsynced && beginsBatch(code)) ||
					(server.session.restoring !== null && this.isBehind(server, code))
				) {
					// It may name a statement that is about to go, or give its name anew; or it would see settings that are going
					// to be brought back.
					this.untilAnswered(server, chunk, run, at);
					return;
				}
				if (books.owed >= MOST_OWED && !books.copyIn) {
					// What is answered by the proxy puts no pressure back on who asks: a client could ask for ever behind a slow query.
					if (books.unsynced) this.flush(server, chunk, run, at);
					else this.send(server, chunk, run, at);
					run = at;
					this.answerFakes(server);
					if (books.owed > 0) {
						this.untilAnswered(server, chunk, run, at, Wait.AnswersInBatch);
						return;
					}
				}
				if (books.ends > 0 && !books.copyIn && this.isUncertain(server, chunk, at, stop)) {
					// A batch before it may yet fail, and then it means something else.
					this.untilAnswered(server, chunk, run, at, Wait.Ends);
					return;
				}
				if (next > end && !this.passable(code, length, end - at)) {
					break;
				}
				if (length !== 4 && (code === Frontend.Sync || code === Frontend.Flush) && !books.copyIn) {
					this.send(server, chunk, run, at);
					this.refuseMalformed(server, code);
					at = stop;
					run = stop;
					continue;
				}
				if (routing.needed && at >= this.routed) {
					let unseen = length > ROUTED && code !== Frontend.CopyData;
					// Nobody can look at half a batch: it waits for its end here as it does without a server, unless that is too far.
					if (beginsBatch(code) && !books.unsynced) {
						const ahead = this.ahead.look(chunk, at);
						if (ahead === Ahead.Open && !this.hurried) break;
						unseen = ahead === Ahead.TooLarge;
					}
					if (this.isBehindEnd(server)) {
						this.untilAnswered(server, chunk, run, at);
						return;
					}
					const choice = unseen ? routing.insideUnseen(server) : routing.inside(code, chunk, at, next, server);
					if (routing.end > 0) this.routed = routing.end;
					if (this.hurried && routing.side === Side.Any && routing.mayWrite) routing.side = Side.Primary;
					if (choice === Choice.Refused) {
						this.refuseInside(server, routing.error, code, chunk, run, at);
						this.drop(chunk, next);
						at = stop;
						run = stop;
						continue;
					}
					if (choice === Choice.Later || (choice === Choice.Server && this.isMisplaced(server))) {
						this.untilAnswered(server, chunk, run, at);
						return;
					}
					if (choice === Choice.Answered) {
						this.send(server, chunk, run, at);
						this.answered();
						at = routing.end;
						run = at;
						continue;
					}
				}
				if (
					books.unsynced &&
					!books.hasRun &&
					(code === Frontend.Bind || code === Frontend.Query) &&
					this.isOnReplica(server)
				) {
					this.moveOn(server, chunk, run, at);
					return;
				}
				if (routing.decided !== null) this.onDecided(routing.decided, server);
				if (books.owed === 0 && (server.status !== TxStatus.Idle || server.session.locked)) {
					server.beginRequest(now());
					this.pool.counters[Stat.idle_xact_time]! += server.requestAt - server.readyAt;
				}
				let said = Said.AsIs;
				if (
					server.session.restoring?.mayHaveRun &&
					books.unsynced &&
					beginsBatch(code) &&
					server.status !== TxStatus.Failed
				) {
					this.prepared().bringBack(server, this.startup, chunk, run, at);
					run = at;
				}
				if (code === Frontend.Terminate) {
					this.send(server, chunk, run, at);
					this.close("client disconnected");
					return;
				}
				if (code === Frontend.Flush) flush = true;
				else said = this.say(server, code, chunk, run, at, next, stop);
				if ((this.wait as Wait) === Wait.Closed) return;
				if (said !== Said.AsIs) {
					if (said === Said.Later) {
						this.untilAnswered(server, chunk, at, at, Wait.AnswersInBatch);
						return;
					}
					run = stop;
					if (said === Said.Refused) {
						this.refuseInside(server, STALE, code, chunk, at, at);
						this.drop(chunk, next);
						at = stop;
						continue;
					}
				}
				if (next > end) {
					this.through = next - end;
					server.stream.midMessage = true;
				}
				at = stop;
			}
		} catch (error) {
			this.part(chunk, run, at, fatal(error), !(error instanceof ProtocolError) || error.flushes);
			return;
		}
		const { server } = this;
		if (server !== null) {
			if (!server.stream.out.forward(chunk, run, at)) this.stream.pause();
			if (flush) this.answerFakes(server);
		}
		this.routed = 0;
		this.keep(chunk, at);
	}

	/** Keeps what is here of a request until there is more of it. */
	private keep(chunk: Buffer, at: number): void {
		if (this.ahead.end > 0) this.ahead.move(at);
		if (this.wait === Wait.Closed) return;
		const need = at === chunk.length ? HEADER : needed(chunk, at, this.routing.needed);
		this.tail.keep(chunk, at, need);
		if (this.tail.bytes + this.share.bytes > 0 && !this.share.set(counted(this.tail.bytes, need)))
			this.close("large messages", NO_ROOM);
	}

	/** As `send`, with a Flush behind it: a batch that is not ended is answered so far. */
	private flush(server: Server, chunk: Buffer, run: number, at: number): void {
		this.send(server, chunk, run, at);
		server.stream.writeAll(FLUSH);
	}

	/** Who does not read what the proxy makes up is not read any more, until it does. */
	private answerFakes(server: Server): void {
		server.relay.answerFakes();
		if (this.stream.queued > UNREAD) this.stream.pause();
	}

	/** The message at `at` waits for the answers to those before it. */
	private untilAnswered(server: Server, chunk: Buffer, run: number, at: number, wait = Wait.Answers): void {
		// They do not come while the server waits for data. Another server's is what this is, or nobody can tell yet whose.
		if (server.books.copyIn) throw outOfCopy(chunk[at]!);
		this.send(server, chunk, run, at);
		// In the middle of a batch that was routed it is not routed anew.
		const routed = wait !== Wait.Answers && server.books.unsynced ? this.routed - at : 0;
		this.hold(chunk, at, wait);
		this.routed = Math.max(0, routed);
	}

	/**
	 * The message at `at` ends the connection. What came before it counts: it is sent, and answered first, as PostgreSQL does, which
	 * reads one message after the other.
	 * @param flushes so is a batch that is not ended
	 */
	private part(chunk: Buffer, run: number, at: number, error: PgError, flushes: boolean): void {
		const { server } = this;
		if (this.isClosed) return;
		if (server !== null) {
			this.send(server, chunk, run, at);
			const { books } = server;
			if (flushes && books.unsynced && !books.skipping && !books.copyIn) server.stream.writeAll(FLUSH);
			if (flushes) server.relay.answerFakes();
			if ((flushes ? books.owed : books.ends) > 0 && !books.copyIn) {
				this.parting = error;
				this.wait = flushes ? Wait.Answers : Wait.Ends;
				this.tail.clear();
				return;
			}
		}
		this.close(`protocol error: ${error.message}`, error);
	}

	/** The message begins a request, and the answer to the one before is to come. */
	private isBehind({ books }: Server, code: number): boolean {
		if (books.owed === 0 || books.unsynced || books.copyIn) return false;
		return code === Frontend.Query || code === Frontend.FunctionCall || beginsBatch(code);
	}

	/** What the message at `at` means depends on a batch that is not answered. */
	private isUncertain(server: Server, chunk: Buffer, at: number, stop: number): boolean {
		return this.statements?.isUncertain(server, chunk, at, stop) ?? false;
	}

	/** A Sync or Flush with a body: PostgreSQL finds fault with it, and goes on at the next Sync. */
	private refuseMalformed(server: Server, code: number): void {
		this.errors++;
		if (!server.books.skipping) server.stream.out.addAll(server.refuse(MALFORMED, Reply.RefusedBind));
		// Its batch has failed and ends with it: nothing that is sent now would be looked at.
		else if (server.books.owed === 0) this.stream.writeAll(errorResponse(MALFORMED, "stays"));
		if (code !== Frontend.Sync) return;
		server.stream.out.addAll(SYNC);
		server.books.sync();
		if (this.statements !== null) this.statements.batchOver = true;
	}

	/** Behind the end of a transaction on a replica comes another, which may have to be elsewhere. */
	private isBehindEnd(server: Server): boolean {
		if (!this.routing.isEnding || server.books.owed === 0 || server.books.unsynced || server.session.locked)
			return false;
		return this.checkout.cluster.pick(0, Side.Primary, 0) !== this.pool;
	}

	/** Behind what is under way outside of a transaction comes something that this server is not for. */
	private isMisplaced(server: Server): boolean {
		const { side } = this.routing;
		if (side === Side.Any || server.status !== TxStatus.Idle || server.session.locked) return false;
		if (server.books.owed === 0 || server.books.unsynced) return false;
		return (this.checkout.cluster.pick(0, Side.Primary, 0) === this.pool) !== (side === Side.Primary);
	}

	/** Of what this server was asked nothing can have run yet, and what comes next it must not. */
	private isOnReplica(server: Server): boolean {
		const { routing, checkout } = this;
		if (server.session.locked || server.status !== TxStatus.Idle || !(routing.needed || checkout.isRouted))
			return false;
		if (routing.side !== Side.Primary && !this.settings.isSerializable) return false;
		const primary = checkout.cluster.pick(0, Side.Primary, 0);
		return primary !== null && primary !== this.pool;
	}

	/** The message at `at`, and what comes behind it, is another server's, when this one has answered what it was asked. */
	private moveOn(server: Server, chunk: Buffer, run: number, at: number): void {
		this.send(server, chunk, run, at);
		this.routed = 0;
		this.hold(chunk, at, Wait.Answers);
		if (server.books.owed === 0) {
			this.leaveBatch(server);
			return;
		}
		server.stream.writeAll(FLUSH);
		server.relay.answerFakes();
		this.onAnswers(server);
	}

	/** Ends the client's batch on its server without the client, and the loan with it: nothing of it may be under way. */
	private leaveBatch(server: Server): void {
		this.wait = Wait.Task;
		const { skipping } = server.books;
		server.endBatch(() => {
			if (skipping) this.skip = Skip.ToSync;
			this.routing.onEnd(false, now());
			if (server.session.traces.unsettled) this.settle(server);
			else {
				this.release(server);
				this.resume();
			}
		});
	}

	/** It has sent nothing for a while. What only its next message would set going is not waited for any longer. */
	private onQuiet(): void {
		const { server } = this;
		if (this.ahead.isOpen && this.tail.bytes > 0 && !server?.books.unsynced) {
			// PostgreSQL has read it, and tells of an error at once.
			this.hurried = true;
			this.walk(this.tail.take());
			this.hurried = false;
		} else if (server !== null && this.through === 0 && this.isIdleInBatch(server)) this.leaveBatch(server);
	}

	/**
	 * A batch that has failed is skipped here as well as there, and one in which nothing has run is no reason to keep a server,
	 * unless that alone has what it prepared.
	 */
	private isIdleInBatch(server: Server): boolean {
		const { books } = server;
		if (server.session.locked || server.status !== TxStatus.Idle || books.owed > 0) return false;
		return books.skipping || (books.onlyPrepares && (server.session.traces.dirty & Dirty.Prepared) === 0);
	}

	/** What is sent in its place fails: the transaction has failed for PostgreSQL too, and a batch ends at its Sync. */
	private refuseInside(server: Server, error: PgError, code: number, chunk: Buffer, run: number, at: number): void {
		this.errors++;
		if (this.routing.decided !== null) this.note(this.routing.decided, null, 0);
		const { out } = server.stream;
		out.add(chunk, run, at - run);
		out.addAll(server.refuse(error, code === Frontend.Query ? Reply.RefusedQuery : Reply.RefusedBind));
	}

	private passable(code: number, length: number, here: number): boolean {
		return passable(code, length, here, this.routing.needed);
	}

	/** The rest of a message whose head has been dealt with. @returns where the next message begins */
	private passThrough(chunk: Buffer): number {
		if (this.dropping > 0) {
			const dropped = Math.min(this.dropping, chunk.length);
			this.dropping -= dropped;
			return dropped;
		}
		if (this.through === 0) return 0;
		const passed = Math.min(this.through, chunk.length);
		this.through -= passed;
		const { server } = this;
		if (server !== null) {
			server.stream.midMessage = this.through > 0;
			this.send(server, chunk, 0, passed);
			const { books } = server;
			// Data of a COPY that had failed, so that no answer will follow it.
			if (this.through === 0 && books.owed === 0 && server.status === TxStatus.Idle && !books.unsynced)
				this.endTransaction(server);
		}
		return passed;
	}

	/** Writes `chunk[run, at)` behind what was put in; a server that takes no more stops the client. */
	private send(server: Server, chunk: Buffer, run: number, at: number): void {
		if (!server.stream.out.forward(chunk, run, at)) this.stream.pause();
	}

	/** The server took everything: the client may go on. */
	onServerDrain(): void {
		if (this.wait === Wait.Nothing) this.stream.resume();
	}

	/** The client took everything: its server may go on. */
	onDrain(): void {
		this.server?.stream.resume();
		if (this.wait === Wait.Nothing && (this.server === null || this.server.stream.queued === 0)) this.stream.resume();
		if (this.wait === Wait.Drain) this.resume();
	}

	// ---- without a server ------------------------------------------------------------------------------------------

	/** A message while no server is held: begins a request, or can be answered here. */
	private alone(code: number, length: number, chunk: Buffer, at: number, next: number): Step {
		if (this.stream.queued > UNREAD && code !== Frontend.Terminate) {
			// Whoever does not read answers gets no more of them.
			this.hold(chunk, at, Wait.Drain);
			return Step.Hold;
		}
		if (this.skip !== Skip.Nothing) return this.skipped(code, chunk, next);
		if (this.overdue !== null && (code === Frontend.Query || code === Frontend.FunctionCall || beginsBatch(code))) {
			const { overdue } = this;
			this.overdue = null;
			return this.refuseNow(overdue, code, chunk, next);
		}
		const end = chunk.length;
		switch (code) {
			case Frontend.Query:
			case Frontend.FunctionCall:
				if (next > end && !this.passable(code, length, end - at)) return Step.More;
				break;
			case Frontend.Parse:
			case Frontend.Bind:
			case Frontend.Describe:
			case Frontend.Execute:
			case Frontend.Close: {
				const step = this.lookAhead(code, chunk, at);
				if (step !== Step.Go) return step;
				break;
			}
			case Frontend.Sync:
			case Frontend.Flush:
				if (next > end) return Step.More;
				if (length !== 4) return this.refuseNow(MALFORMED, code, chunk, next);
				// Flush has nothing to flush.
				if (code === Frontend.Sync) this.writeReady();
				return Step.Done;
			case Frontend.Terminate:
				this.close("client disconnected");
				return Step.Done;
			default:
				// Data of a COPY that has failed is ignored, as PostgreSQL does.
				return this.drop(chunk, next);
		}
		if (this.checkout.pool.spec.pooler_mode === "statement" && this.refusesTransaction(code, chunk, at, next))
			return this.isClosed ? Step.Done : this.skipped(code, chunk, next);
		if (this.routing.needed || this.checkout.isRouted) {
			const unseen = length > ROUTED || (beginsBatch(code) && this.ahead.isTooLarge);
			const step = this.routing.needed ? this.choose(code, chunk, at, next, unseen) : this.place(code, chunk, at, next);
			if (step !== Step.Go) return step;
		}
		if (this.checkout.take() !== null) return Step.Go;
		this.hold(chunk, at, Wait.Server);
		return Step.Hold;
	}

	/** Whether enough of a batch is here for a server to be taken for it. */
	private lookAhead(code: number, chunk: Buffer, at: number): Step {
		// Where nothing is routed it does no harm to take a server for a batch whose end is not here yet.
		if (!this.routing.needed && code !== Frontend.Close && endsInSync(chunk)) return Step.Go;
		const ahead = this.ahead.look(chunk, at);
		if (ahead === Ahead.OnlyCloses) return this.closeAlone(chunk, at);
		const here = chunk.length - at;
		const whole = ahead === Ahead.Complete || (ahead === Ahead.TooLarge && here > COLLECT);
		return whole || this.hurried || !(this.routing.needed || here <= COLLECT) ? Step.Go : Step.More;
	}

	/**
	 * Routes the request that begins at `at` and sets `pool`, or answers it here.
	 * @param unseen it is too large to be looked at
	 */
	private choose(code: number, chunk: Buffer, at: number, next: number, unseen: boolean): Step {
		const { routing } = this;
		const { pooler_mode } = this.checkout.pool.spec;
		const holds = pooler_mode === "transaction";
		const choice = unseen ? routing.chooseUnseen() : routing.choose(code, chunk, at, next, holds);
		// Of what is unseen the message here has its place; each Bind behind it is looked at when it comes.
		this.routed = unseen && choice === Choice.Server ? Math.min(next, chunk.length) : routing.end;
		if (choice === Choice.Answered) {
			this.answered();
			return Step.Done;
		}
		if (choice === Choice.Refused) {
			if (routing.decided !== null) this.note(routing.decided, null, 0);
			return this.refuseNow(routing.error, code, chunk, next);
		}
		// The server stays for good, or for what is still to come of the batch: what begins with a read may write later.
		const isBeginning = pooler_mode === "session" || this.hurried;
		if (isBeginning && routing.side === Side.Any && routing.mayWrite) routing.side = Side.Primary;
		return this.place(code, chunk, at, next);
	}

	/** A pool for what is wanted, or a place to wait for one. */
	private place(code: number, chunk: Buffer, at: number, next: number): Step {
		const { checkout } = this;
		if (checkout.choose()) return Step.Go;
		if (!checkout.waitForElection()) return this.refuseNow(checkout.refusal, code, chunk, next);
		this.hold(chunk, at, Wait.Server);
		return Step.Hold;
	}

	/** The request needed no server. */
	private answered(): void {
		const { routing } = this;
		this.queries++;
		this.stream.writeAll(routing.answer);
		routing.afterAnswer();
		if (routing.heldBegin.open || this.server !== null) return;
		this.transactions++;
		if (this.isLeaving) this.close("shutdown", SHUTTING_DOWN);
	}

	private refuseNow(error: PgError, code: number, chunk: Buffer, next: number): Step {
		this.refuse(error, code);
		return this.skipped(code, chunk, next);
	}

	/** ReadyForQuery while no server is held. */
	private writeReady(): void {
		const { status } = this.routing.heldBegin;
		this.stream.writeAll(status === TxStatus.Idle ? READY_IDLE : readyForQuery(status));
		if (status === TxStatus.Idle && this.isLeaving) this.close("shutdown", SHUTTING_DOWN);
	}

	/** A decision has come to a server: for SHOW ROUTES, and for the EXPLAIN that it may be about. */
	private onDecided(route: Route, server: Server): void {
		const { routing, checkout } = this;
		const { spec } = checkout.pool;
		// Of several shards somebody else tells.
		const explains = routing.facts?.explains && server.books.owed === 0 && !checkout.isRouted;
		if (explains && this.context.general.expanded_explain) server.relay.explain(explainRows(route, [this.servedFrom]));
		this.note(route, spec, checkout.waited);
		checkout.waited = 0;
	}

	private note(route: Route, spec: PoolSpec | null, wait: number): void {
		const { routing } = this;
		routing.decided = null;
		const sql = routing.facts === null ? routing.sql : "";
		this.context.routes.note(this.context.time, this, routing.facts, sql, route, spec, wait);
	}

	private drop(chunk: Buffer, next: number): Step {
		if (next > chunk.length) this.dropping = next - chunk.length;
		return Step.Done;
	}

	/** After a refusal: the request it was about is thrown away. */
	private skipped(code: number, chunk: Buffer, next: number): Step {
		if (code === Frontend.Terminate) this.close("client disconnected");
		else if (this.skip === Skip.Query || code === Frontend.Sync) {
			this.skip = Skip.Nothing;
			this.writeReady();
		}
		return this.drop(chunk, next);
	}

	/** Close messages before a Sync, with one write: as many as may be answered at once. */
	private closeAlone(chunk: Buffer, at: number): Step {
		let count = 0;
		for (; count < MOST_CLOSES && chunk[at] === Frontend.Close; count++) {
			const next = at + 1 + readInt32(chunk, at + 1);
			if (chunk[at + HEADER] === Target.Statement) this.prepared().closeAlone(chunk, at, next);
			at = next;
		}
		this.stream.writeAll(count === 1 ? CLOSE_COMPLETE : Buffer.alloc(count * CLOSE_COMPLETE.length, CLOSE_COMPLETE));
		this.routed = at;
		return Step.Done;
	}

	/** `pooler_mode = statement`: a transaction block would keep the server. */
	private refusesTransaction(code: number, chunk: Buffer, at: number, next: number): boolean {
		if (next > chunk.length) return false;
		let start = at + HEADER;
		if (code === Frontend.Parse) start = chunk.indexOf(0, start) + 1;
		else if (code !== Frontend.Query) return false;
		const stop = chunk.indexOf(0, start);
		if (stop < 0 || !sessionFacts(chunk.utf8Slice(start, stop)).transaction) return false;
		this.refuse(NO_TRANSACTIONS, code);
		return true;
	}

	private hold(chunk: Buffer, at: number, wait: Wait): void {
		this.wait = wait;
		// What is held is read again from its beginning.
		this.routed = Math.max(0, this.routed - at);
		this.ahead.move(at);
		this.tail.keep(chunk, at, Number.POSITIVE_INFINITY);
		this.share.set(counted(this.tail.bytes, 0));
		if (this.tail.bytes > HELD) this.stream.pause();
	}

	/** Says no to the request that begins with a message `code`; the client stays. */
	private refuse(error: PgError, code: number): void {
		this.errors++;
		this.routing.heldBegin.fail();
		this.stream.writeAll(errorResponse(error, "stays"));
		this.skip = code === Frontend.Query || code === Frontend.FunctionCall ? Skip.Query : Skip.ToSync;
	}

	// ---- servers come and go ---------------------------------------------------------------------------------------

	onBug(bug: unknown): void {
		this.context.contain.failed(bug, this.stream);
	}

	/** Where its servers come from: the one for this transaction, or the last. */
	get pool(): Pool {
		return this.checkout.pool;
	}

	onServerReady(): void {
		this.resume();
	}

	onNoServer(error: PgError): void {
		if (this.isClosed) return;
		// The pool is exhausted, and not down.
		if (!this.checkout.loggedIn && error.sqlstate !== TOO_MANY_CONNECTIONS) {
			const message = `connection pool for user "${this.user}" and database "${this.database}" is down`;
			this.close(message, new PgError("FATAL", "58000", message, error.detail ?? error.message, error.hint));
			return;
		}
		const { client_connection_recovery } = this.context.general;
		if (client_connection_recovery === "drop" || !this.checkout.loggedIn) this.close(error.message, error);
		else this.refuseHeld(error);
	}

	/** Refuses the request that is held, and goes on with what comes after it. */
	refuseHeld(error: PgError): void {
		const held = this.tail.take();
		this.refuse(error, held[0] ?? Frontend.Sync);
		this.tail.hold(held);
		this.resume();
	}

	onReady(server: Server): void {
		const time = now();
		const { counters } = this.checkout.pool;
		const took = time - server.requestAt;
		server.endRequest(time);
		// Who waited for a long answer was not idle.
		this.activeAt = this.context.time;
		this.queries++;
		this.queryTime += took;
		counters[Stat.query_count]!++;
		counters[Stat.query_time]! += took;
		if (server.session.restoring !== null) this.restore(server);
		else this.afterReady(server, time);
	}

	/** The client has heard that its request is over. */
	private afterReady(server: Server, time: number): void {
		if (server.status !== TxStatus.Idle) {
			if (this.pool.spec.pooler_mode === "statement") this.close("transaction in statement mode", FATAL_TRANSACTION);
			this.statements?.onAnswered();
			this.goOn();
			return;
		}
		const { counters } = this.checkout.pool;
		this.transactions++;
		const lasted = time - server.lentAt;
		this.transactionTime += lasted;
		counters[Stat.xact_count]!++;
		counters[Stat.xact_time]! += lasted;
		this.routing.onEnd(!server.session.traces.rolledBack, time);
		// In the middle of a message to it the server is nobody else's.
		if (this.through > 0) {
			this.statements?.onAnswered();
			return;
		}
		this.endTransaction(server);
	}

	/** Settings go back to the StartupMessage's; then the client hears that its request is over. */
	private restore(server: Server): void {
		this.wait = Wait.Task;
		if (server.cancels.count > 0) {
			// It is for the request that has just been answered.
			server.cancels.whenLanded(() => this.restore(server));
			return;
		}
		server.session.restore(this.settings.startup, (error) => {
			if (error !== null) this.stream.writeAll(errorResponse(error, "stays"));
			this.settings.tell(server);
			if (server.session.restoring !== null) this.settings.stopTelling();
			this.stream.writeAll(readyForQuery(server.status));
			this.wait = Wait.Nothing;
			this.afterReady(server, now());
			if (this.wait === Wait.Nothing) this.resume();
		});
	}

	onAnswers({ books }: Server): void {
		// Also in the middle of a batch, whose end may never come.
		if (books.owed === 0) this.statements?.onAnswered();
		if (this.wait < Wait.Answers) return;
		if (books.owed === 0 || books.copyIn || (this.wait === Wait.Ends && books.ends === 0)) this.resume();
	}

	/** Nothing is open on the server: in transaction pooling the client lets go of it. */
	private endTransaction(server: Server): void {
		if (server.session.locked) {
			server.goOn();
			this.statements?.onAnswered();
			if (this.isLeaving) this.close("shutdown", SHUTTING_DOWN);
		} else if (server.session.traces.unsettled) {
			this.settle(server);
			return;
		} else this.release(server);
		if (this.wait >= Wait.Answers) this.resume();
	}

	/** With what was held until the server had answered. */
	private goOn(): void {
		if (this.wait >= Wait.Answers) this.resume();
	}

	private release(server: Server): void {
		this.server = null;
		this.settings.stopTelling();
		this.statements?.onServerLeft();
		server.giveBack();
		if (this.leaving || this.context.stopping) this.close("shutdown", SHUTTING_DOWN);
	}

	/** A transaction changed settings: the client goes on when it is known which. */
	private settle(server: Server): void {
		this.wait = Wait.Task;
		this.settings.settle(server, this.pool.spec.server_user, (settled) => {
			if (settled === Settled.Failed) {
				// What it has been told that it has set is nowhere any more.
				this.close("its settings could not be read", UNREADABLE);
				return;
			}
			this.release(server);
			if (settled === Settled.TooMany) this.overdue = tooManySettings();
			this.resume();
		});
	}

	onServerGone(error: PgError | null): void {
		const { server } = this;
		this.server = null;
		this.settings.stopTelling();
		if (this.isClosed) return;
		if (this.isUntouched(server) && this.checkout.retry()) return;
		if (error === null) this.close("the server closed the connection");
		else if (this.checkout.loggedIn) this.close(error.message, error);
		else this.onNoServer(error);
	}

	/** Nothing of the request was sent yet: another server may serve it. Of a message only its own server may have the rest. */
	private isUntouched(server: Server | null): boolean {
		if ((this.wait !== Wait.Server && this.wait !== Wait.Welcome) || this.through > 0) return false;
		return server !== null && server.readyAt === 0 && !server.books.unsynced;
	}

	get startup(): ParameterSet {
		return this.settings.startup;
	}

	onReportsHeld(): void {
		this.settings.stopTelling();
	}

	// ---- messages that are opened ----------------------------------------------------------------------------------

	/**
	 * The message at `at` goes to the server: what it does is noted, and a statement that it names gets the server's name for it.
	 * @param next where it ends @param stop where what is here of it ends
	 */
	private say(server: Server, code: number, chunk: Buffer, run: number, at: number, next: number, stop: number): Said {
		const { books } = server;
		switch (code) {
			case Frontend.Query:
				return this.onQuery(server, chunk, run, at, next, stop);
			case Frontend.Bind: {
				const said = this.prepared().onBind(server, chunk, run, at, next, stop);
				if (said !== Said.Later) this.pool.counters[Stat.bind_count]!++;
				return said;
			}
			case Frontend.Execute:
				books.said(Reply.Execute);
				server.session.restoring?.noteRun();
				break;
			case Frontend.Sync:
				books.sync();
				if (this.statements !== null) this.statements.batchOver = true;
				break;
			case Frontend.Describe:
				return this.prepared().onDescribe(server, chunk, run, at, next);
			case Frontend.Parse:
				this.checkSize(next - at - 1);
				this.pool.counters[Stat.parse_count]!++;
				return this.prepared().onParse(server, chunk, run, at, next, this.context.nextSerial());
			case Frontend.Close:
				this.pool.counters[Stat.close_count]!++;
				return this.prepared().onClose(server, chunk, run, at, next);
			case Frontend.CopyData:
				books.data();
				break;
			case Frontend.CopyDone:
			case Frontend.CopyFail:
				books.copyEnd();
				break;
			case Frontend.FunctionCall:
				// Any function, by number: what it does to the session cannot be seen.
				server.session.note(UNKNOWN_FACTS);
				books.query();
				break;
		}
		return Said.AsIs;
	}

	private onQuery(server: Server, chunk: Buffer, run: number, at: number, next: number, stop: number): Said {
		if (this.context.general.query_size_limit !== undefined) this.checkSize(next - at - 1);
		this.statements?.onQuery();
		server.statements.dropUnnamed();
		if (next > stop) {
			server.session.note(UNKNOWN_FACTS);
			server.books.query();
			return Said.AsIs;
		}
		const facts = factsOf(this.context.facts, chunk, at + HEADER, next - 1);
		if (
			facts.deallocates !== null &&
			server.status !== TxStatus.Failed &&
			this.deallocate(server, chunk, run, at, facts)
		)
			return Said.Otherwise;
		const { restores } = facts;
		const inserted = restores === null || restores.sure ? [] : this.insertions(server, chunk, at, next);
		if (inserted.length > 0) return this.insert(server, chunk, run, at, next, facts, inserted);
		if (facts !== NO_FACTS) {
			noteRun(server, facts);
			server.session.note(facts);
		}
		server.books.query();
		return Said.AsIs;
	}

	private insertions({ books, session }: Server, chunk: Buffer, at: number, next: number): Insertion[] {
		// What comes in the middle of a batch or of a COPY is out of order, or an error.
		if (this.startup.values.size === 0 || books.unsynced || books.copyIn) return [];
		return insertions(chunk, at + HEADER, next - 1, this.startup, session.reports.now.values);
	}

	/** Of several statements those behind a RESET are to find what that brings back. */
	private insert(
		server: Server,
		chunk: Buffer,
		run: number,
		at: number,
		next: number,
		facts: SessionFacts,
		inserted: readonly Insertion[],
	): Said {
		const { out } = server.stream;
		out.add(chunk, run, at - run);
		// Its answer is to be told from those before it.
		if (server.books.owed > 0) return Said.Later;
		server.relay.insert(inserted);
		noteRun(server, facts);
		// All of it is brought back there, unless a function may do more.
		server.session.note(facts.restores?.hidden ? facts : { ...facts, restores: null });
		server.books.query();
		out.addAll(insertInto(chunk, at + HEADER, next - 1, inserted));
		return Said.Otherwise;
	}

	private deallocate(server: Server, chunk: Buffer, run: number, at: number, facts: SessionFacts): boolean {
		const sql = this.statements?.onDeallocate(server, chunk, run, at, facts.deallocates ?? "") ?? null;
		if (sql === null) return false;
		server.books.query();
		server.stream.out.addAll(query(sql));
		return true;
	}

	prepared(): ClientStatements {
		if (this.statements === null) {
			const { statements, facts, general } = this.context;
			const shared = general.prepared_statements !== "disabled";
			const { parsing, routing, told } = this;
			this.statements = new ClientStatements(statements, facts, parsing, shared, routing.needed, told);
		}
		return this.statements;
	}

	/** `query_size_limit` of a Query or Parse with this length word. */
	private checkSize(length: number): void {
		const { query_size_limit: most, query_size_limit_action: action } = this.context.general;
		if (most === undefined || length <= most) return;
		const detail = `message is ${length} bytes, query_size_limit is ${most} bytes`;
		if (action === "block") throw new PgError("FATAL", "54000", "query size exceeds query_size_limit", detail);
		const { user, database, address } = this;
		const text = `[large_query] size=${length}B query_size_limit=${most}B ${this.describe()}`;
		this.context.log.warn(text, { user, database, address });
	}

	// ---- life ------------------------------------------------------------------------------------------------------

	get isClosed(): boolean {
		return this.wait === Wait.Closed;
	}

	get isWaiting(): boolean {
		return this.checkout.queued;
	}

	get waitTime(): number {
		return this.checkout.waitTime;
	}

	get statementCount(): number {
		return this.statements?.size ?? 0;
	}

	/** Its state in the words of SHOW CLIENTS. */
	get stateName(): string {
		if (this.isWaiting) return "waiting";
		if (this.routing.heldBegin.failed) return "transaction error";
		if (this.routing.heldBegin.open) return "idle in transaction";
		if (this.server === null) return "idle";
		if (this.server.books.owed > 0) return "active";
		if (this.server.status === TxStatus.Failed) return "transaction error";
		return this.server.status === TxStatus.InBlock ? "idle in transaction" : "idle";
	}

	setting(name: string): string | undefined {
		return this.settings.wanted.values.get(name);
	}

	/** A CancelRequest with this client's key: for the query it runs or waits for, and no other. */
	cancel(done: () => void): void {
		const { server } = this;
		if (server !== null && server.state === ServerState.Lent && server.books.owed > 0) {
			this.pool.cancel(server, done);
			return;
		}
		done();
		if (!this.isWaiting || !this.checkout.loggedIn) return;
		this.checkout.leave();
		this.refuseHeld(new PgError("ERROR", "57014", "canceling statement due to user request"));
	}

	/** A reload made these the pools and the router of its user and database: from its next transaction on. */
	reach(cluster: Cluster, router: Router | null): void {
		// It knows one shard only.
		if (cluster.shards.length > 1) this.shutDown(false);
		this.routing.reach(router);
		this.checkout.reach(cluster);
	}

	get isLocked(): boolean {
		return this.server?.session.locked ?? false;
	}

	/** Of the server it has, Idle when it has none. */
	get transactionStatus(): TxStatus {
		return this.server?.status ?? TxStatus.Idle;
	}

	get reading(): Reading {
		return this.settings.reading;
	}

	get isSerializable(): boolean {
		return this.settings.isSerializable;
	}

	/** Where its servers come from. */
	get servedFrom(): Place {
		const { cluster, pool } = this.checkout;
		return { host: pool.spec.host, port: pool.spec.port, role: cluster.roleOf(pool) };
	}

	/** `pooler_mode` of what it has, or comes to have. */
	get poolerMode(): string {
		return this.pool.spec.pooler_mode;
	}

	/** What it is sent is held until something else has happened. */
	get isHeld(): boolean {
		return this.wait !== Wait.Nothing && this.wait !== Wait.Closed;
	}

	/** A transaction was begun for it that no server knows of. */
	get isHolding(): boolean {
		return this.routing.heldBegin.open;
	}

	join(sql: string): void {
		this.routing.heldBegin.hold(sql);
	}

	letGo(): void {
		this.routing.handOver();
	}

	/** Where the next transaction goes, for a client that does not route itself, and why. See `Cluster.pick`. */
	prefer(side: Side, since: number, route: Route | null, facts: StatementFacts | null): void {
		this.routing.prefer(side, since, route, facts);
		this.checkout.isRouted = true;
	}

	/** A Parse, Close or Query that another shard has replied to: it counts here too. */
	learn(chunk: Buffer, at: number, next: number): void {
		this.prepared().note(chunk, at, next, this.context.nextSerial(), this.server);
	}

	/** A batch that needed no server. */
	learnBatch(chunk: Buffer, at: number, end: number, failed: boolean): void {
		noteBatch(this.prepared(), chunk, at, end, this.context.nextSerial(), failed);
	}

	/** After an error on another shard, perhaps: the client's statements are these. */
	align(statements: ClientStatements): void {
		if (this.statements !== null || !statements.isEmpty)
			this.prepared().align(statements, this.context.nextSerial(), this.server);
	}

	/** The janitor's look. `time` as `now()`. */
	check(time: number): void {
		const { server } = this;
		if (this.wait === Wait.Closed) {
			// It has been told to go, but does not read what it was told.
			if (time - this.activeAt > LINGER) this.stream.terminate();
			return;
		}
		if (this.wait === Wait.Nothing && time - Math.max(this.activeAt, server?.readyAt ?? 0) >= QUIET) this.onQuiet();
		if (this.isClosed) return;
		const general = this.context.general;
		if (server === null || server.session.locked) {
			const busy = this.isHeld || this.routing.heldBegin.open || (server?.books.owed ?? 0) > 0;
			if (!busy && time - Math.max(this.activeAt, server?.readyAt ?? 0) > general.client_idle_timeout)
				this.close("client_idle_timeout", idleError("client_idle_timeout", general));
		}
		if (server === null ? !this.routing.heldBegin.open : server.status === TxStatus.Idle || server.books.owed > 0)
			return;
		if (
			this.wait === Wait.Nothing &&
			time - Math.max(this.activeAt, server?.readyAt ?? 0) > general.client_idle_in_transaction_timeout
		)
			this.close("client_idle_in_transaction_timeout", idleError("client_idle_in_transaction_timeout", general));
	}

	/** Shutdown: who is between transactions leaves now, the others when theirs ends; `now` makes all leave. */
	shutDown(force: boolean): void {
		const { server } = this;
		const busy =
			this.routing.heldBegin.open ||
			(server !== null && (server.status !== TxStatus.Idle || server.books.owed > 0 || server.books.unsynced));
		if (force || !(busy || this.isHeld)) this.close("shutdown", SHUTTING_DOWN);
		else this.leaving = true;
	}

	private get isLeaving(): boolean {
		return this.leaving || this.context.stopping;
	}

	/** The one way out: says why to the client and the log, and leaves its server clean. */
	close(reason: string, error?: PgError): void {
		if (this.wait === Wait.Closed) return;
		if (error !== undefined) {
			this.errors++;
			this.lastError = error;
			// Half a message is better than one that another's words complete.
			if (!this.stream.midMessage) this.stream.writeAll(errorResponse(error, "ends"));
		}
		this.leave(reason);
		this.stream.end();
	}

	onClose(error: Error | undefined): void {
		if (this.wait !== Wait.Closed) this.leave(error?.message ?? "connection lost");
		this.context.unregister(this);
	}

	private leave(reason: string): void {
		this.wait = Wait.Closed;
		this.activeAt = this.context.time;
		this.tail.clear();
		this.checkout.leave();
		const { server } = this;
		this.server = null;
		if (server !== null) server.abandon(this.context.general.connection_recovery);
		this.statements?.clear();
		this.settings.leave();
		this.share.set(0);
		this.context.onLogout(this, reason);
	}

	describe(): string {
		return `[database: ${this.database}, user: ${this.user}, addr: ${this.address}]`;
	}
}

/** How long a client that is in the middle of a batch says nothing, ms, before that is more than the network's doing; a guess. */
export const QUIET = 200;
/** How long a closed client may take to read its last bytes, ms; a guess. */
export const LINGER = 10_000;
export const SHUTTING_DOWN = new PgError("FATAL", "57P01", "terminating connection due to administrator command");
const TRANSACTION_TEXT = "transaction control statements are not supported in statement pooler mode";
/** A Sync or Flush with a body. */
export const MALFORMED = new PgError("ERROR", "08P01", "invalid message format");
export const TOO_LARGE = new PgError("ERROR", "54000", "the request is too large to be routed");
const UNREADABLE = new PgError("FATAL", "58000", "the settings of the session could not be read");
/** SQLSTATE of "too_many_connections". */
const TOO_MANY_CONNECTIONS = "53300";
const NO_TRANSACTIONS = new PgError("ERROR", "58000", TRANSACTION_TEXT);
const FATAL_TRANSACTION = new PgError("FATAL", "58000", TRANSACTION_TEXT);

/** What ends the connection; anything else is a bug. */
function fatal(error: unknown): PgError {
	if (error instanceof ProtocolError) return new PgError("FATAL", error.sqlstate, error.message);
	if (error instanceof PgError) return error;
	throw error;
}

export function idleError(
	setting: "client_idle_timeout" | "client_idle_in_transaction_timeout",
	general: General,
): PgError {
	const message = `disconnecting idle ${setting === "client_idle_timeout" ? "" : "in transaction "}client`;
	return new PgError("FATAL", "57P05", message, `${setting} of ${general[setting]}ms expired`);
}
