// One connection to PostgreSQL: whom it is lent to, what query of ours it runs, when it is clean and when it is closed. What it owes
// is in its Books, what state its session is in its SessionState, what it has prepared in its ServerStatements; its bytes go by its
// Relay to the client that it is lent to, unopened where possible. The pool decides who gets it; it knows its client as a sink only.

import { now } from "../clock.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import { Dirty } from "../parser/session.ts";
import { Stat } from "../stats/counters.ts";
import { TxStatus } from "../wire/codes.ts";
import { parse, query, SYNC, TERMINATE } from "../wire/frontend-messages.ts";
import { Books, Reply } from "./books.ts";
import { CancelsUnderWay } from "./cancels.ts";
import { cleaning } from "./clean.ts";
import type { MovingServer } from "./moving-server.ts";
import type { ParameterSets } from "./parameters.ts";
import { Relay, type RelayClient, type RelayOwner } from "./relay.ts";
import { ServerState } from "./server-state.ts";
import { ServerStatements } from "./server-statements.ts";
import { SessionState } from "./session-state.ts";
import type { Statements } from "./statements.ts";
import { Task, type TaskDone } from "./task.ts";

/** Whom a server is lent to. */
export interface ServerClient extends RelayClient {
	/** Its process id as SHOW CLIENTS has it. */
	readonly pid: number;
	/** The server answered everything it was asked; `server.status` says whether a transaction is open. */
	onReady(server: Server): void;
	/** Some of what it was asked is answered, but not all: `server.books` says what is owed. */
	onAnswers(server: Server): void;
	/** The server takes bytes again. */
	onServerDrain(): void;
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
	/** The NotificationResponse `chunk[at, next)`; of one who has no such method no server listens for long. */
	onNotification?(chunk: Buffer, at: number, next: number): void;
	/** Sends a CancelRequest; `cancelLanded` is called when no later query can be hit by it. */
	cancel(server: Server): void;
	rollbackTimeout(): number;
}

export class Server implements StreamOwner, RelayOwner {
	stream!: Stream;
	state: ServerState = ServerState.Login;
	client: ServerClient | null = null;
	readonly home: ServerHome;
	/** What it owes. */
	readonly books = new Books();
	/** As the last ReadyForQuery has it; written by its Relay. */
	status: TxStatus = TxStatus.Idle;
	readonly statements = new ServerStatements(this.books);
	readonly session: SessionState;
	readonly relay: Relay;

	/** Where it is: what the host's name stood for when the connection was opened. */
	address = "";
	/** BackendKeyData of the server itself; 0 when it sent none. */
	pid = 0;
	secret: Uint8Array = new Uint8Array(0);

	/** CancelRequests to this server that have not landed: it must not be lent before they have. */
	readonly cancels = new CancelsUnderWay();

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

	/** The state that it had before the task under way. */
	private before = ServerState.Idle;
	private reason = "";
	private countedIn = 0;
	private countedOut = 0;

	constructor(home: ServerHome) {
		this.home = home;
		this.session = new SessionState(home.sets, this, () => home.onAltered());
		this.relay = new Relay(this.books, this.statements, this.session, this);
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

	// ---- bytes from the server -------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		const { relay } = this;
		const fault = relay.read(chunk);
		if (this.books.isInDoubt) {
			// The books may be off by one ReadyForQuery, which is no fault of the server's. No driver does this; whoever does must begin anew.
			const doubt = new PgError("FATAL", "08P01", "Sync in the middle of CopyData of a COPY that failed");
			this.close("Sync during COPY", relay.passedOn ? null : doubt);
			return;
		}
		if (fault !== null) {
			// At once: it must not be lent in the moment before its socket closes. A check will find out whether all of it is like that.
			this.isLost = true;
			this.close(`it broke the protocol: ${fault}`);
			throw new ProtocolError(fault);
		}
		// Its last words, while nobody had it: it must not be lent in the moment before it closes.
		if (relay.lastWords !== null && this.state === ServerState.Idle) this.closeDying(relay.lastWords);
		if (this.state === ServerState.Closed) return;
		if (!relay.ready) {
			if (this.state === ServerState.Lent) this.client?.onAnswers(this);
		} else if (relay.task !== null) this.endTask(relay.task);
		else if (this.state === ServerState.Draining) this.afterDraining();
		else this.client?.onReady(this);
	}

	pause(): void {
		this.stream.pause();
	}

	countError(): void {
		this.home.counters[Stat.errors]!++;
		this.errors++;
	}

	// ---- loans -----------------------------------------------------------------------------------------------------

	/** @param time `now()` @param locked for as long as the client stays */
	lend(client: ServerClient, time: number, locked: boolean): void {
		this.state = ServerState.Lent;
		this.client = client;
		this.lentAt = time;
		this.requestAt = time;
		this.readyAt = 0;
		this.session.lent(locked);
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
		// In session pooling another may come in the same loan.
		if (this.status === TxStatus.Idle) this.transactions++;
	}

	/** A transaction has ended, and the client keeps it. */
	goOn(): void {
		this.lentAt = this.readyAt;
		this.session.traces.goOn();
	}

	/** The transaction that was held back for the client has begun here. @param time `now()` */
	begun(time: number): void {
		this.readyAt = time;
	}

	/** A loan ends in which the client was asked nothing: its session has nothing of the client's. */
	returnUnused(): void {
		this.session.locked = false;
		this.giveBack();
	}

	/** A client's loan ends between transactions. What it left is cleaned first, then the pool has the server back. */
	giveBack(): void {
		this.client = null;
		// Stopped for a client that reads slowly: what is still to be read is not for it any more.
		if (this.stream.paused) this.stream.resume();
		this.count();
		if (this.session.locked) this.discardAll();
		else if (this.session.traces.dirty !== 0) this.clean();
		else this.idle();
	}

	/** The client is gone, at any point. The server is brought back to a clean state, or closed. */
	abandon(recovery: "recover" | "rollback_only" | "drop"): void {
		this.client = null;
		if (this.state === ServerState.Closed) return;
		// What the client would have done then, its settings brought back perhaps, is nothing for the next one's session.
		this.cancels.forget();
		this.stream.resume();
		const { books } = this;
		const cutOff = this.stream.midMessage;
		const busy = books.owed > 0 || this.relay.task !== null || books.skipping;
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
		this.session.traces.giveUp();
		this.deadline = now() + this.home.rollbackTimeout();
		if (this.relay.task !== null) {
			// Settings were being applied or asked for; how that ended no longer matters.
			this.relay.task.isOrphaned = true;
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
		if (books.endsInSync()) return;
		this.stream.writeAll(SYNC);
		books.sync();
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
		if (this.books.owed > 0 && this.cancels.count === 0) this.cancelUnwanted();
	}

	private afterDraining(): void {
		this.state = ServerState.Draining;
		if (this.status === TxStatus.Idle) {
			this.session.traces.giveUp();
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
		const dirty = this.session.traces.take();
		const sql = cleaning(dirty);
		if (sql === null) {
			this.close("the session cannot be cleaned");
			return;
		}
		this.home.counters[Stat.cleaned]!++;
		if ((dirty & Dirty.Prepared) !== 0) this.statements.clear();
		if ((dirty & Dirty.Settings) !== 0) this.session.forgetApplied();
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
		this.session.locked = false;
		this.home.counters[Stat.cleaned]!++;
		this.run("DISCARD ALL", (_, error) => {
			if (error !== null) {
				this.close(`DISCARD ALL failed: ${error.message}`);
				return;
			}
			this.statements.clear();
			this.session.forgetApplied();
			this.session.traces.take();
			this.session.traces.settle();
			this.idle();
		});
	}

	private idle(): void {
		if (this.cancels.count > 0) {
			// A cancel under way must not hit the next client's query.
			this.cancels.whenLanded(() => this.idle());
			return;
		}
		if (this.state === ServerState.Closed) return;
		const { lastWords } = this.relay;
		if (lastWords !== null) {
			this.closeDying(lastWords);
			return;
		}
		if (this.cancels.mayLandLate) {
			this.close("a CancelRequest to it may still be on its way");
			return;
		}
		this.state = ServerState.Idle;
		this.deadline = 0;
		// The end of its last request or task, which the clock was asked for then.
		this.usedAt = Math.max(this.readyAt, this.checkedAt);
		this.home.onIdle(this);
	}

	// ---- our own queries -------------------------------------------------------------------------------------------

	/** Runs a simple query; the server must owe nothing. `done` is not called when the connection dies, as it does after `patience` ms. */
	run(sql: string, done: TaskDone, patience = this.home.rollbackTimeout()): void {
		if (this.state === ServerState.Closed) return;
		this.startTask(done, patience);
		this.books.query();
		// A simple query ends the unnamed statement, whosever it was.
		this.statements.dropUnnamed();
		this.stream.writeAll(query(sql));
	}

	/** Ends the batch that the client has not ended, by a Sync that the client sees nothing of; the server must owe nothing. */
	endBatch(done: () => void): void {
		if (this.state === ServerState.Closed) return;
		this.startTask(done, this.home.rollbackTimeout());
		this.books.sync();
		this.stream.writeAll(SYNC);
	}

	private startTask(done: TaskDone, patience: number): void {
		this.relay.task = new Task(done);
		this.before = this.state;
		this.state = ServerState.Task;
		this.requestAt = now();
		this.deadline = this.requestAt + patience;
	}

	private endTask(task: Task): void {
		this.relay.task = null;
		this.state = this.before;
		this.deadline = 0;
		this.checkedAt = now();
		if (!task.isOrphaned) {
			task.end();
			return;
		}
		this.session.traces.leave(Dirty.Settings);
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
		const answered: TaskDone = (_, error) => {
			if (error !== null) {
				this.close(`healthcheck failed: ${error.message}`);
				return;
			}
			this.probing = false;
			passed();
		};
		this.run(";", answered, timeout);
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

	/** Whether the connection can be another thread's: what TLS has agreed on cannot. */
	get canMove(): boolean {
		return this.stream.secured === null;
	}

	/** Lets go of the connection, which lives on under a descriptor of its own; null when it cannot. Idle only. */
	leave(): MovingServer | null {
		if (this.cancels.count > 0 || this.stream.queued > 0 || this.books.owed > 0 || !this.relay.isBetweenMessages)
			return null;
		this.count();
		const fd = this.stream.detach();
		if (fd < 0) return null;
		this.state = ServerState.Closed;
		return {
			fd,
			address: this.address,
			pid: this.pid,
			secret: this.secret,
			applied: [...this.session.applied.values],
			reported: [...this.session.reports.now.values],
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
		this.session.applied = sets.of(new Map(moving.applied));
		this.session.reports.now = sets.of(new Map(moving.reported));
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

	/** The one way out. A client that still has the server is told `error`; null: the server's own last words, which it has. */
	close(reason: string, error: PgError | null = closed(reason)): void {
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

	/** Has PostgreSQL end the connection, an idle one. @param owner hears when it has, and counts it no more */
	dismiss(reason: string, owner: StreamOwner): void {
		this.reason = reason;
		this.stream.writeAll(TERMINATE);
		this.gone(null);
		this.stream.owner = owner;
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
		const { lastWords, passedOn } = this.relay;
		this.isLost = true;
		if (lastWords !== null) this.reason = fatalText(lastWords);
		else this.reason = error === undefined ? "server closed the connection" : error.message;
		const lost = new PgError("FATAL", "08006", "server closed the connection unexpectedly");
		this.gone(passedOn ? null : (lastWords ?? lost));
	}

	private gone(error: PgError | null): void {
		this.state = ServerState.Closed;
		const { client } = this;
		this.client = null;
		this.relay.task = null;
		this.cancels.forget();
		this.books.clear();
		if (this.session.traces.alters) this.session.traces.endTransaction(true);
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

function closed(reason: string): PgError {
	return new PgError("FATAL", "08006", `server connection closed: ${reason}`);
}

function fatalText(error: PgError): string {
	return `${error.severity} ${error.sqlstate}: ${error.message}`;
}

/** With more answers than this outstanding a new connection is had sooner; a guess. */
const WORTH_DRAINING = 64;

/** No SQL at all: PostgreSQL's parser refuses it whatever the settings. */
const REFUSED = "refused by pgdog";
const REFUSED_QUERY = query(REFUSED);
const REFUSED_BIND = parse("", Buffer.from(`${REFUSED}\0\0\0`));
