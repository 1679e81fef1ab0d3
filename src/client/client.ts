// One client after its login, as its worker, the janitor, a CancelRequest and SHOW CLIENTS see it. What it sends is its Incoming's and is
// read by its Walk; its servers are its Link's. Made by login/startup.ts; closed through `close` only.

import { PgError } from "../errors.ts";
import type { Stream, StreamOwner } from "../net/stream.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { Router } from "../router/router.ts";
import { backendKeyData, READY_IDLE } from "../wire/backend-messages.ts";
import { TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import type { ClientContext, ClientHandle, Login } from "./context.ts";
import { Incoming } from "./incoming.ts";
import { Link, type LinkOwner } from "./link.ts";
import type { MovingClient } from "./moving-client.ts";
import { TimeLimits, Turn } from "./time-limits.ts";
import { Wait } from "./wait.ts";
import { Walk } from "./walk.ts";

export class Client implements StreamOwner, ClientHandle, LinkOwner {
	readonly stream: Stream;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	readonly auth: string;
	/** BackendKeyData that this client was given; the number is also its id in SHOW CLIENTS. */
	readonly pid: number;
	readonly secret: Uint8Array;
	readonly connectedAt: number;
	readonly incoming: Incoming;
	/** Its user left the configuration in the middle of its transaction. */
	leaving = false;
	/** For SHOW CLIENTS. */
	errors = 0;
	private readonly context: ClientContext;
	private readonly link: Link;
	private readonly walk: Walk;
	private readonly limits = new TimeLimits();

	constructor(context: ClientContext, stream: Stream, cluster: Cluster, router: Router, login: Login) {
		this.context = context;
		this.stream = stream;
		this.user = login.account.name;
		this.database = login.account.database;
		this.address = login.address;
		this.auth = login.auth ?? "";
		this.incoming = new Incoming(context, stream);
		this.link = new Link(context, this, cluster, router, login, null);
		this.walk = new Walk(this, this.link);
		const { moved = null } = login;
		this.connectedAt = moved?.connectedAt ?? Date.now();
		this.pid = context.register(this, moved?.pid);
		this.secret = moved?.secret ?? crypto.getRandomValues(new Uint8Array(login.minor >= 2 ? 32 : 4));
	}

	// ---- the end of the login --------------------------------------------------------------------------------------

	/** Answers with the settings that its sessions will have. */
	begin(): void {
		this.link.begin();
	}

	onWelcome(reports: Buffer): void {
		// Behind the end of the login, in one write: each of its own would be a TLS record, and wake the client.
		const { out } = this.stream;
		out.addAll(reports);
		out.addAll(backendKeyData(this.pid, this.secret));
		out.addAll(READY_IDLE);
		this.context.onLogin(this);
		this.resume();
	}

	// ---- another thread --------------------------------------------------------------------------------------------

	get isQuiet(): boolean {
		const { stream, incoming, walk, link } = this;
		return !this.leaving && stream.isQuiet && incoming.isQuiet && walk.isQuiet && link.isQuiet;
	}

	depart(): MovingClient | null {
		const { stream, incoming, link } = this;
		if (!this.isQuiet) return null;
		const fd = stream.detach();
		if (fd < 0) return null;
		const { user, database, address, pid, secret, connectedAt, errors } = this;
		const { bytesIn, bytesOut } = stream;
		const isIt = { user, database, address, pid, secret, connectedAt, errors };
		const moving = { fd, bytesIn, bytesOut, ...isIt, link: link.depart() };
		incoming.close();
		return moving;
	}

	/** A client that was another thread's until now, and knows nothing of that. */
	static arrive(
		context: ClientContext,
		stream: Stream,
		account: Login["account"],
		cluster: Cluster,
		router: Router,
		moved: MovingClient,
	): void {
		const { address, link } = moved;
		const parameters = context.sets.of(new Map(link.settings.startup));
		// Its minor version was for its secret.
		const login = { account, address, minor: 0, hints: link.session.startup, parameters, moved };
		const client = new Client(context, stream, cluster, router, login);
		stream.owner = client;
		client.errors = moved.errors;
		client.link.arrive(moved.link);
		client.incoming.goOn();
	}

	// ---- its stream ------------------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		const whole = this.incoming.add(chunk);
		if (whole !== null) this.walk.read(whole);
	}

	onDrain(): void {
		this.link.onClientDrain();
	}

	onClose(error: Error | undefined): void {
		if (!this.incoming.isClosed) this.leave(error?.message ?? "connection lost");
		this.context.unregister(this);
	}

	// ---- its Link and its Walk -------------------------------------------------------------------------------------

	resume(): void {
		this.walk.resume();
	}

	refuseHeld(error: PgError): void {
		this.walk.refuseHeld(error);
	}

	countError(): void {
		this.errors++;
	}

	// ---- SHOW CLIENTS ----------------------------------------------------------------------------------------------

	/** When it last sent something, or was answered, by the janitor's clock. */
	get activeAt(): number {
		return Math.max(this.incoming.heardAt, this.link.answeredAt);
	}

	get queries(): number {
		return this.link.queries;
	}

	get transactions(): number {
		return this.link.transactions;
	}

	get queryTime(): number {
		return this.link.queryTime;
	}

	get transactionTime(): number {
		return this.link.transactionTime;
	}

	get waitTime(): number {
		return this.link.checkout.waitTime;
	}

	get isWaiting(): boolean {
		return this.link.checkout.queued;
	}

	get isLocked(): boolean {
		return this.link.isLocked;
	}

	get statementCount(): number {
		return this.link.saying.statements?.size ?? 0;
	}

	setting(name: string): string | undefined {
		return this.link.settings.wanted.values.get(name);
	}

	/** Its state in the words of SHOW CLIENTS. */
	get stateName(): string {
		const { server, routing } = this.link;
		if (this.isWaiting) return "waiting";
		if (routing.heldBegin.failed) return "transaction error";
		if (routing.heldBegin.open) return "idle in transaction";
		if (server === null) return "idle";
		if (server.books.owed > 0) return "active";
		if (server.status === TxStatus.Failed) return "transaction error";
		return server.status === TxStatus.InBlock ? "idle in transaction" : "idle";
	}

	// ---- its worker ------------------------------------------------------------------------------------------------

	cancel(done: () => void): void {
		this.link.cancel(done);
	}

	/** A reload made these the pools and the router of its user and database: from its next transaction on. */
	reach(cluster: Cluster, router: Router): void {
		// It knows one shard only.
		if (cluster.shards.length > 1) this.shutDown(false);
		this.link.reach(cluster, router);
	}

	onLongWait(notice: Buffer): void {
		// What it was sent before is whole messages, and of what it waits for nothing is answered yet.
		if (!this.incoming.isClosed && !this.stream.midMessage) this.stream.writeAll(notice);
	}

	/** The janitor's look. `time` as `now()`. */
	check(time: number): void {
		const { incoming, link } = this;
		if (incoming.wait === Wait.Closed) {
			// It has been told to go, but does not read what it was told.
			if (time - this.activeAt > LINGER) this.stream.terminate();
			return;
		}
		if (incoming.wait === Wait.Nothing && this.idleFor(time) >= QUIET) this.walk.onQuiet();
		if (incoming.isClosed) return;
		link.saying.hearing?.deliver();
		const { server, routing, transactions } = link;
		const isAsked = server !== null && (server.status !== TxStatus.Idle || server.books.owed > 0);
		const isUnderway = routing.heldBegin.open || isAsked;
		const { general } = this.context;
		const passed = this.limits.look(general, this.turn, this.idleFor(time), isUnderway, transactions, time);
		if (passed !== null) this.close(passed.setting, passed.error);
	}

	private get turn(): Turn {
		const { server, routing } = this.link;
		if (this.incoming.wait !== Wait.Nothing || (server !== null && server.books.owed > 0)) return Turn.Others;
		if (routing.heldBegin.open || (server !== null && server.status !== TxStatus.Idle)) return Turn.InTransaction;
		return server === null || server.session.stays ? Turn.Idle : Turn.Others;
	}

	/** ms since something came from it or was answered. @param time `now()` */
	private idleFor(time: number): number {
		return time - Math.max(this.activeAt, this.link.server?.readyAt ?? 0);
	}

	/** Shutdown: who is between transactions leaves now, the others when theirs ends; `force` makes all leave. */
	shutDown(force: boolean): void {
		if (force || !(this.link.isBusy || this.incoming.isHeld)) this.close("shutdown", SHUTTING_DOWN);
		else this.leaving = true;
	}

	/** The one way out: says why to the client and the log, and leaves its server clean. */
	close(reason: string, error?: PgError): void {
		if (this.incoming.isClosed) return;
		if (error !== undefined) {
			this.errors++;
			// Half a message is better than one that another's words complete.
			if (!this.stream.midMessage) this.stream.writeAll(errorResponse(error, "ends"));
		}
		this.leave(reason);
		this.stream.end();
	}

	private leave(reason: string): void {
		this.incoming.close();
		this.link.leave();
		this.context.onLogout(this, reason);
	}
}

/** How long a client that is in the middle of a batch says nothing, ms, before that is more than the network's doing; a guess. */
export const QUIET = 200;
/** How long a closed client may take to read its last bytes, ms; a guess. */
export const LINGER = 10_000;
export const SHUTTING_DOWN = new PgError("FATAL", "57P01", "terminating connection due to administrator command");
