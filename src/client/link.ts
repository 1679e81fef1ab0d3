// One client's half of the talk with one server: it has a server for each transaction (checkout.ts), says what the client says to
// it (saying.ts), and hears when the server has answered. At the end of a transaction it learns what settings the client has now, and
// gives the server back. Made by client.ts, and for each of several shards by shards/shard-link.ts; they are told what of that concerns
// the client.

import { Reply } from "../backend/books.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import { now } from "../clock.ts";
import { CANCELED, PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import type { Sink } from "../net/stream.ts";
import { Dirty } from "../parser/session.ts";
import type { Cluster } from "../pool/cluster.ts";
import { explainRows, type Place } from "../router/explain.ts";
import type { Route } from "../router/route.ts";
import type { Router } from "../router/router.ts";
import { Parsing } from "../session/parsing.ts";
import { Session } from "../session/session.ts";
import { ClientSettings, Settled, tooManySettings } from "../session/settings.ts";
import type { ClientStatements, KeptStatements } from "../session/statements.ts";
import { Stat } from "../stats/counters.ts";
import { readyForQuery } from "../wire/backend-messages.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { SYNC } from "../wire/frontend-messages.ts";
import type { Audience } from "./audience.ts";
import { type Borrower, Checkout } from "./checkout.ts";
import type { ClientContext, Login, Siblings } from "./context.ts";
import { MALFORMED } from "./framing.ts";
import type { Incoming } from "./incoming.ts";
import type { MovingLink } from "./moving-client.ts";
import { Routing } from "./routing.ts";
import { Saying, type Speaker } from "./saying.ts";
import { Wait } from "./wait.ts";

/** The client itself. */
export interface LinkOwner extends Speaker {
	readonly stream: Sink;
	readonly incoming: Incoming;
	/** It goes when its transaction ends. */
	readonly leaving: boolean;
	/** The login is over. @param reports ParameterStatus messages */
	onWelcome(reports: Buffer): void;
	/** What it sent meanwhile is read. */
	resume(): void;
	/** The request that is held fails, and the client goes on. */
	refuseHeld(error: PgError): void;
	countError(): void;
	/** It has waited for so long that it is to be told, by this message. */
	onLongWait(notice: Buffer): void;
	close(reason: string, error?: PgError): void;
	/** Closes it because it is to leave. */
	shutDown(force: true): void;
}

/** Whoever runs queries of ours on the server of a client, to end its transaction (two-phase/commit.ts). */
export interface ServerBorrower {
	/** The server is gone, and not to be given back. */
	onLost(error: PgError | null): void;
}

export class Link implements Borrower, Audience {
	readonly client: LinkOwner;
	readonly stream: Sink;
	readonly settings: ClientSettings;
	readonly saying: Saying;
	readonly routing: Routing;
	readonly checkout: Checkout;
	/** Null with one shard. */
	readonly kept: KeptStatements | null;
	readonly shard: number;
	/** Who hears of notifications. */
	readonly audience: Audience;
	/** Null unless one is lent to the client. Written here only, as all that follows. */
	server: Server | null = null;
	/** SHOW ROUTES has not heard yet how long the client waited for that server. */
	private waitUntold = false;
	/** What became known too late to be told: the next request is answered with it. */
	overdue: PgError | null = null;
	/** When the last request was answered, by the janitor's clock. */
	answeredAt = 0;
	/** For SHOW CLIENTS; milliseconds and counts. */
	queries = 0;
	transactions = 0;
	queryTime = 0;
	transactionTime = 0;
	private readonly context: ClientContext;
	private readonly incoming: Incoming;
	private parsed: Parsing | null = null;
	/** Who has its server meanwhile (`lend`); else null. And whether what it ends there changes the catalogue. */
	private borrower: ServerBorrower | null = null;
	private isAltering = false;

	constructor(
		context: ClientContext,
		client: LinkOwner,
		cluster: Cluster,
		router: Router | null,
		login: Login,
		siblings: Siblings | null,
	) {
		this.context = context;
		this.client = client;
		this.stream = client.stream;
		this.incoming = client.incoming;
		const session = new Session(login.hints);
		this.settings = new ClientSettings(context.sets, login.parameters, client.stream, siblings ?? session);
		this.saying = new Saying(context, this);
		this.routing = new Routing(context, this.saying, session, router);
		this.checkout = new Checkout(this, cluster, this.routing, this.settings, siblings !== null);
		this.kept = siblings?.statements.partOf(siblings.shard, this.parsing) ?? null;
		this.shard = siblings?.shard ?? 0;
		this.audience = siblings?.audience ?? this;
	}

	// ---- a server comes --------------------------------------------------------------------------------------------

	/** Finds out the settings that the client's sessions will have, from the cache or from a server. */
	begin(): void {
		this.checkout.beginLogin();
		if (!this.greet()) this.checkout.start();
	}

	greet(): boolean {
		const { checkout } = this;
		const known = checkout.pool.greeting(this.settings.startup, !checkout.isRouted);
		if (known === null) return false;
		checkout.leave();
		this.onWelcome(known);
		return true;
	}

	onWelcome(reported: ParameterSet): void {
		this.checkout.endLogin();
		this.client.onWelcome(this.settings.welcome(reported));
	}

	onLent(server: Server | null): void {
		this.server = server;
		this.waitUntold = true;
	}

	onServerReady(): void {
		this.client.resume();
	}

	onLongWait(notice: Buffer): void {
		this.client.onLongWait(notice);
	}

	onNoServer(error: PgError): void {
		if (this.incoming.isClosed) return;
		const { loggedIn } = this.checkout;
		// The pool is exhausted, and not down.
		if (!loggedIn && error.sqlstate !== TOO_MANY_CONNECTIONS) {
			const { user, database } = this.client;
			const message = `connection pool for user "${user}" and database "${database}" is down`;
			this.close(message, new PgError("FATAL", "58000", message, error.detail ?? error.message, error.hint));
			return;
		}
		const { client_connection_recovery } = this.context.general;
		if (client_connection_recovery === "drop" || !loggedIn) this.close(error.message, error);
		else this.refuseHeld(error);
	}

	refuseHeld(error: PgError): void {
		this.client.refuseHeld(error);
	}

	close(reason: string, error?: PgError): void {
		this.client.close(reason, error);
	}

	onBug(bug: unknown): void {
		this.context.contain.failed(bug, this.stream);
	}

	/** A decision has come to a server: for SHOW ROUTES, and for the EXPLAIN that it may be about. */
	onDecided(route: Route, server: Server): void {
		const { routing, checkout } = this;
		// Of several shards somebody else tells.
		const explains = routing.facts?.explains && server.books.owed === 0 && !checkout.isRouted;
		if (explains && this.context.general.expanded_explain) server.relay.explain(explainRows(route, [this.servedFrom]));
		routing.tell(route, checkout.pool.spec, this.waitUntold ? checkout.waited : 0);
		this.waitUntold = false;
	}

	/** Where its servers come from. */
	get servedFrom(): Place {
		const { cluster, pool } = this.checkout;
		return { host: pool.spec.host, port: pool.spec.port, role: cluster.roleOf(pool) };
	}

	// ---- what a server is sent in place of a message ---------------------------------------------------------------

	/** What is sent in its place fails: the transaction has failed for PostgreSQL too, and a batch ends at its Sync. */
	refuseInside(server: Server, error: PgError, code: number, chunk: Buffer, run: number, at: number): void {
		const { decided } = this.routing;
		this.client.countError();
		if (decided !== null) this.routing.tell(decided, null, 0);
		const { out } = server.stream;
		out.add(chunk, run, at - run);
		out.addAll(server.refuse(error, code === Frontend.Query ? Reply.RefusedQuery : Reply.RefusedBind));
	}

	/** A Sync or Flush with a body: PostgreSQL finds fault with it, and goes on at the next Sync. */
	refuseMalformed(server: Server, code: number): void {
		this.client.countError();
		if (!server.books.skipping) server.stream.out.addAll(server.refuse(MALFORMED, Reply.RefusedBind));
		// Its batch has failed and ends with it: nothing that is sent now would be looked at.
		else if (server.books.owed === 0) this.stream.writeAll(errorResponse(MALFORMED, "stays"));
		if (code !== Frontend.Sync) return;
		server.stream.out.addAll(SYNC);
		server.books.sync();
	}

	// ---- what the server says --------------------------------------------------------------------------------------

	onReady(server: Server): void {
		const time = now();
		this.saying.hearing?.answered(server);
		const { counters } = this.checkout.pool;
		const took = time - server.requestAt;
		server.endRequest(time);
		// Who waited for a long answer was not idle.
		this.answeredAt = this.context.time;
		this.queries++;
		this.queryTime += took;
		counters[Stat.query_count]!++;
		counters[Stat.query_time]! += took;
		if (server.session.restoring !== null) this.restore(server);
		else this.afterReady(server, time);
	}

	/** The client has heard that its request is over. */
	private afterReady(server: Server, time: number): void {
		const { checkout } = this;
		if (server.status !== TxStatus.Idle) {
			if (checkout.pool.spec.pooler_mode === "statement")
				this.close("transaction in statement mode", FATAL_TRANSACTION);
			this.saying.statements?.onAnswered();
			if (this.incoming.wait >= Wait.Answers) this.client.resume();
			return;
		}
		const { counters } = checkout.pool;
		this.transactions++;
		const lasted = time - server.lentAt;
		this.transactionTime += lasted;
		counters[Stat.xact_count]!++;
		counters[Stat.xact_time]! += lasted;
		this.routing.onEnd(!server.session.traces.rolledBack, time);
		// In the middle of a message to it the server is nobody else's.
		if (server.stream.midMessage) {
			this.saying.statements?.onAnswered();
			return;
		}
		this.endTransaction(server);
	}

	/** Settings go back to the StartupMessage's; then the client hears that its request is over. */
	private restore(server: Server): void {
		const { incoming } = this;
		incoming.waitFor(Wait.Task);
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
			incoming.waitFor(Wait.Nothing);
			this.afterReady(server, now());
			if (incoming.wait === Wait.Nothing) this.client.resume();
		});
	}

	onAnswers({ books }: Server): void {
		const { wait } = this.incoming;
		// Also in the middle of a batch, whose end may never come.
		if (books.owed === 0) this.saying.statements?.onAnswered();
		if (wait < Wait.Answers) return;
		if (books.owed === 0 || books.copyIn || (wait === Wait.Ends && books.ends === 0)) this.client.resume();
	}

	/** Nothing is open on the server: in transaction pooling the client lets go of it. */
	endTransaction(server: Server): void {
		const { locked, stays, traces } = server.session;
		if (!locked && traces.unsettled) {
			this.settle(server);
			return;
		}
		if (stays) this.keep(server);
		else this.release(server);
		if (this.incoming.wait >= Wait.Answers) this.client.resume();
	}

	private keep(server: Server): void {
		server.goOn();
		this.saying.statements?.onAnswered();
		this.saying.hearing?.deliver();
		if (this.isLeaving) this.client.shutDown(true);
	}

	private release(server: Server): void {
		this.server = null;
		this.settings.stopTelling();
		this.saying.statements?.onServerLeft();
		server.giveBack();
		this.saying.hearing?.deliver();
		if (this.client.leaving || this.context.stopping) this.client.shutDown(true);
	}

	/** A transaction changed settings, or took locks that outlive it: the client goes on when it is known which. */
	private settle(server: Server): void {
		this.incoming.waitFor(Wait.Task);
		if (!server.session.traces.changesSettings) {
			this.settleLocks(server, Settled.Known);
			return;
		}
		this.settings.settle(server, this.checkout.pool.spec.server_user, (settled) => {
			// What it has been told that it has set is nowhere any more.
			if (settled === Settled.Failed) this.close("its settings could not be read", UNREADABLE);
			else this.settleLocks(server, settled);
		});
	}

	/** Who holds advisory locks of the session keeps the server that has them. */
	private settleLocks(server: Server, settled: Settled): void {
		const { session } = server;
		const pins = this.context.general.pin_session_locks && this.checkout.pool.spec.pooler_mode === "transaction";
		if (session.traces.asksLocks && (session.stays || pins)) session.askLocks(() => this.settled(server, settled));
		else this.settled(server, settled);
	}

	private settled(server: Server, settled: Settled): void {
		if (server.session.stays) this.keep(server);
		else this.release(server);
		if (settled === Settled.TooMany) this.overdue = tooManySettings();
		this.client.resume();
	}

	/** Ends the client's batch on its server without the client, and the loan with it: nothing of it may be under way. */
	leaveBatch(server: Server): void {
		this.incoming.waitFor(Wait.Task);
		server.endBatch(() => {
			this.routing.onEnd(false, now());
			if (server.session.traces.unsettled) this.settle(server);
			else {
				this.release(server);
				this.client.resume();
			}
		});
	}

	/**
	 * A batch that has failed is skipped here as well as there, and one in which nothing has run is no reason to keep a server,
	 * unless that alone has what it prepared.
	 */
	isIdleInBatch(server: Server): boolean {
		const { books } = server;
		const { stays, traces } = server.session;
		// What a batch that has failed has locked, it still has.
		if (stays || traces.asksLocks || server.status !== TxStatus.Idle || books.owed > 0) return false;
		return books.skipping || (books.onlyPrepares && (traces.dirty & Dirty.Prepared) === 0);
	}

	/** The client took everything: its server may go on, and what it sent meanwhile is read. */
	onClientDrain(): void {
		const { server, stream, incoming } = this;
		server?.stream.resume();
		if (incoming.wait === Wait.Nothing && (server === null || server.stream.queued === 0)) stream.resume();
		this.saying.hearing?.deliver();
		if (incoming.wait === Wait.Drain) this.client.resume();
	}

	/** The server took everything: the client may go on. */
	onServerDrain(): void {
		if (this.incoming.wait === Wait.Nothing) this.stream.resume();
	}

	onServerGone(error: PgError | null): void {
		const { server, borrower } = this;
		this.server = null;
		this.settings.stopTelling();
		if (borrower !== null) {
			this.onLentGone(server!, borrower, error);
			return;
		}
		if (this.incoming.isClosed) return;
		if (this.isUntouched(server) && this.checkout.retry()) return;
		if (error === null) this.close("the server closed the connection");
		else if (this.checkout.loggedIn) this.close(error.message, error);
		else this.onNoServer(error);
	}

	// ---- its server is somebody else's for the end of a transaction ------------------------------------------------

	/**
	 * The server, which owes nothing, is `borrower`'s until `takeBack`, also when the client goes meanwhile: what ends a transaction
	 * goes on without it.
	 */
	lend(borrower: ServerBorrower): Server {
		this.borrower = borrower;
		const server = this.server!;
		this.isAltering = server.session.traces.alters;
		this.settings.stopTelling();
		this.incoming.waitFor(Wait.Task);
		return server;
	}

	/** The server has no transaction any more. @param committed what was open has been committed */
	takeBack(server: Server, committed: boolean): void {
		const { traces, stays } = server.session;
		// PREPARE TRANSACTION has kept what was SET, which no rollback takes back.
		if (!committed && traces.changesSettings && !stays && !this.incoming.isClosed) {
			server.close("its transaction was rolled back, and what that had set was not");
			return;
		}
		this.borrower = null;
		// What it has prepared was not there for others yet.
		if (this.isAltering && committed) server.home.onAltered();
		if (this.incoming.isClosed) {
			server.abandon(this.context.general.connection_recovery);
			return;
		}
		if (!committed) traces.noteRollback();
		this.saying.hearing?.answered(server);
		server.endRequest(now());
		this.settings.tell(server);
		this.incoming.waitFor(Wait.Nothing);
		if (server.session.restoring !== null) this.restore(server);
		else this.afterReady(server, now());
		if (this.incoming.wait === Wait.Nothing) this.client.resume();
	}

	private onLentGone(server: Server, borrower: ServerBorrower, error: PgError | null): void {
		this.borrower = null;
		if (!this.incoming.isClosed) {
			this.incoming.waitFor(Wait.Nothing);
			// The session that the client keeps has gone with it.
			if (server.session.stays) this.close(error?.message ?? server.closeReason, error ?? undefined);
		}
		borrower.onLost(error);
		// The client may have been told already, and have said what comes next.
		if (this.incoming.wait === Wait.Nothing) this.client.resume();
	}

	/** Nothing of the request was sent yet: another server may serve it. Of a message only its own server may have the rest. */
	private isUntouched(server: Server | null): boolean {
		const { wait } = this.incoming;
		if ((wait !== Wait.Server && wait !== Wait.Welcome) || server === null) return false;
		return server.readyAt === 0 && !server.books.unsynced && !server.stream.midMessage;
	}

	// ---- what its server asks --------------------------------------------------------------------------------------

	get pid(): number {
		return this.client.pid;
	}

	get startup(): ParameterSet {
		return this.settings.startup;
	}

	get statements(): ClientStatements | null {
		return this.saying.statements;
	}

	/** How its statements are parsed; made when first asked for. */
	get parsing(): Parsing {
		this.parsed ??= new Parsing(this.context, this.checkout, this.settings);
		return this.parsed;
	}

	onReportsHeld(): void {
		this.settings.stopTelling();
	}

	// ---- what the client asks --------------------------------------------------------------------------------------

	/** The client goes when its transaction ends. */
	get isLeaving(): boolean {
		return this.client.leaving || this.context.stopping;
	}

	/** Something is open, or under way: a client that is to leave has to wait for its end. */
	get isBusy(): boolean {
		const { server } = this;
		if (this.routing.heldBegin.open) return true;
		if (server === null) return false;
		return server.status !== TxStatus.Idle || server.books.owed > 0 || server.books.unsynced;
	}

	/** It has them delivered whenever a transaction has ended. */
	onHeld(): void {}

	/** A request was answered without a server. @param ends and with it a transaction */
	countAnswer(ends: boolean): void {
		this.queries++;
		if (!ends) return;
		this.transactions++;
		this.saying.hearing?.deliver();
	}

	/** A CancelRequest with the client's key: for the query it runs or waits for, and no other. */
	cancel(done: () => void): void {
		const { server, checkout } = this;
		if (server !== null && server.state === ServerState.Lent && server.books.owed > 0) {
			checkout.pool.cancel(server, done);
			return;
		}
		done();
		// It has a server, and waits for what listens for it.
		if (this.saying.hearing?.cancel()) return;
		if (!checkout.queued || !checkout.loggedIn) return;
		checkout.leave();
		this.refuseHeld(CANCELED);
	}

	/** Its server stays with it when its transaction ends. */
	get isLocked(): boolean {
		return this.server?.session.stays ?? false;
	}

	/** What became known too late is told now. */
	takeOverdue(): PgError | null {
		const { overdue } = this;
		this.overdue = null;
		return overdue;
	}

	/** A reload made these the pools and the router: from the next transaction on. */
	reach(cluster: Cluster, router: Router | null): void {
		this.routing.reach(router);
		this.checkout.reach(cluster);
	}

	// ---- another thread --------------------------------------------------------------------------------------------

	/** No server has to do with the client, and all that is known of its session can be told. */
	get isQuiet(): boolean {
		const { statements, hearing } = this.saying;
		if (!this.checkout.isQuiet || this.overdue !== null || this.routing.heldBegin.open) return false;
		// Who listens stays: what listens for it is this thread's.
		if (hearing !== null && !hearing.isIdle) return false;
		return this.settings.mayMove && (statements === null || statements.mayMove);
	}

	/** The client goes to another thread: what it is, and nothing of it stays here. */
	depart(): MovingLink {
		const { answeredAt, queries, transactions, queryTime, transactionTime } = this;
		const moving = {
			settings: this.settings.depart(),
			session: this.routing.session.depart(),
			statements: this.saying.statements?.depart() ?? null,
			answeredAt,
			queries,
			transactions,
			queryTime,
			transactionTime,
			waitTime: this.checkout.waitTime,
		};
		this.leave();
		return moving;
	}

	/** Takes over what another thread knew. */
	arrive(moving: MovingLink): void {
		this.checkout.arrive(moving.waitTime);
		this.settings.arrive(moving.settings);
		this.routing.session.arrive(moving.session);
		if (moving.statements !== null) this.saying.arrive(moving.statements);
		this.answeredAt = moving.answeredAt;
		this.queries = moving.queries;
		this.transactions = moving.transactions;
		this.queryTime = moving.queryTime;
		this.transactionTime = moving.transactionTime;
	}

	/** The client is gone: its server, and its place in a queue, are others'. */
	leave(): void {
		const { server } = this;
		this.checkout.leave();
		this.server = null;
		if (server !== null && this.borrower === null) server.abandon(this.context.general.connection_recovery);
		this.saying.statements?.clear();
		this.saying.hearing?.leave();
		this.settings.leave();
	}
}

const UNREADABLE = new PgError("FATAL", "58000", "the settings of the session could not be read");
export const TRANSACTION_TEXT = "transaction control statements are not supported in statement pooler mode";
const FATAL_TRANSACTION = new PgError("FATAL", "58000", TRANSACTION_TEXT);
