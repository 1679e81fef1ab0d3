// How a client comes to a server that is ready for its request: a pool by what routing wants, a place in its queue or in an
// election, another pool when that one is not well, then the client's settings on the server, and the transaction that was
// held back. One for each client; alone.ts asks it for a server, and link.ts is told when it has one or cannot. While the client has one,
// walk.ts asks whether what comes next may go there.

import type { ParameterSet } from "../backend/parameters.ts";
import type { Server, ServerClient } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import { now } from "../clock.ts";
import { Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { Dirty } from "../parser/session.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { Pool } from "../pool/pool.ts";
import type { Election } from "../pool/shard.ts";
import type { Waiter } from "../pool/waiters.ts";
import type { ClientSettings } from "../session/settings.ts";
import { Stat } from "../stats/counters.ts";
import { TxStatus } from "../wire/codes.ts";
import type { Routing } from "./routing.ts";

/** Servers that may die under one request before its client is told. */
const RETRIES = 3;

/** For whom. */
export interface Borrower extends ServerClient {
	/** Null unless one is lent to it. */
	readonly server: Server | null;
	/** This one is lent to it from now on; null: none any more. */
	onLent(server: Server | null): void;
	/** `server` is ready for the request that is held. */
	onServerReady(server: Server): void;
	/** None was to be had for so long that it is to be told. */
	onLongWait(notice: Buffer): void;
	/** None is to be had for it. */
	onNoServer(error: PgError): void;
	/** The request fails, and the client goes on. */
	refuseHeld(error: PgError): void;
	/** Its session can be had on no server. */
	close(reason: string, error?: PgError): void;
	/** `bug` was thrown by what a pool set going for it. */
	onBug(bug: unknown): void;
	/** At login: what a server reports with the client's settings. */
	onWelcome(reported: ParameterSet): void;
	/** At login: no server is needed if what one reports is known of its pool. @returns whether it is, and the log-in over */
	greet(): boolean;
}

export class Checkout implements Waiter {
	/** Where its servers come from: the one for this transaction, or the last. */
	pool: Pool;
	cluster: Cluster;
	/** Until then a server is only asked what it reports. */
	loggedIn = false;
	/** Somebody else routes (shards/planning.ts), and says by `Routing.prefer` what is wanted. */
	readonly isRouted: boolean;
	waitingSince = 0;
	/** How long it waited for the server it has, and for all, ms. */
	waited = 0;
	waitTime = 0;
	nextWaiter: Waiter | null = null;
	previousWaiter: Waiter | null = null;
	queued = false;
	private readonly client: Borrower;
	private readonly routing: Routing;
	private readonly settings: ClientSettings;
	/** Where it stands while `queued`. */
	private queue: { leave(waiter: Waiter): void };
	/** Servers that died while they were made ready for a request that no one had seen yet. */
	private retries = 0;
	/** When the request under way asked for a server first, and whether it has left a queue in which nothing came back. */
	private askedAt = 0;
	private wasLate = false;
	/** The client was told that it waits. */
	private isTold = false;

	constructor(client: Borrower, cluster: Cluster, routing: Routing, settings: ClientSettings, isRouted: boolean) {
		this.client = client;
		this.isRouted = isRouted;
		this.cluster = cluster;
		this.pool = cluster.first;
		this.queue = this.pool;
		this.routing = routing;
		this.settings = settings;
	}

	/** @returns false when no pool may serve the request now: `waitForElection` may help, else `refusal` says why */
	choose(): boolean {
		const { routing } = this;
		const pool = this.cluster.shards[0]!.pick(routing.side, routing.since);
		if (pool === null) return false;
		this.pool = pool;
		return true;
	}

	get refusal(): PgError {
		return this.cluster.refusal(0, this.routing.side);
	}

	/** Waits for a primary to be found, or for anything to be known of the servers. @returns false when there is no such hope */
	waitForElection(): boolean {
		const election = this.election();
		if (election !== null) this.await(election);
		return election !== null;
	}

	private election(): Election | null {
		const shard = this.cluster.shards[0]!;
		return this.routing.side === Side.Primary || shard.isUnknown ? shard.election : null;
	}

	private await(election: Election): void {
		this.queue = election;
		election.wait(this, now());
	}

	/** A server that is ready, or null: then `Borrower.onServerReady` or another of its methods is called later. */
	take(): Server | null {
		// A reload may have come while it had a server.
		if (!this.isRouted && !this.routing.needed) this.pool = this.cluster.first;
		const time = now();
		this.askedAt = time;
		this.wasLate = false;
		this.isTold = false;
		const { pool } = this;
		this.queue = pool;
		this.waited = 0;
		const server = pool.take(this, time);
		return server !== null && this.acquire(server, time) ? server : null;
	}

	/** It neither has a server nor asks for one, and is logged in. */
	get isQuiet(): boolean {
		return this.loggedIn && !this.queued && this.client.server === null;
	}

	/** It comes from another thread, where it has logged in. */
	arrive(waitTime: number): void {
		this.loggedIn = true;
		this.waitTime = waitTime;
	}

	/** For a login: what any server reports will do, the primary's best. */
	beginLogin(): void {
		this.pool = this.another() ?? this.pool;
	}

	/** Its settings are known: what it asks for now it asks for its requests. */
	endLogin(): void {
		this.loggedIn = true;
	}

	/** As `take`, but the borrower is told in any case. */
	start(): void {
		this.askedAt = now();
		this.wasLate = false;
		this.restart();
	}

	private restart(): void {
		const time = now();
		this.queue = this.pool;
		this.waited = 0;
		const server = this.pool.take(this, time);
		if (server !== null) this.onServer(server, time);
	}

	/** Gives its place up, if it has one. */
	leave(): void {
		if (this.queued) this.queue.leave(this);
	}

	/** A server died before it had seen anything of the request. @returns false when that has happened too often */
	retry(): boolean {
		if (this.retries++ >= RETRIES) return false;
		const pool = this.another();
		if (pool !== null || !this.loggedIn) {
			this.pool = pool ?? this.pool;
			this.restart();
		} else if (!this.waitForElection()) this.client.refuseHeld(this.refusal);
		return true;
	}

	/** A reload made these the pools. */
	reach(cluster: Cluster): void {
		this.cluster = cluster;
		if (this.queued) {
			if (!cluster.has(this.queue)) this.lookElsewhere(false);
		} else if (this.client.server === null) this.pool = cluster.first;
	}

	/** Whether there is something to choose, by whoever routes. */
	private get hasChoice(): boolean {
		return this.isRouted || this.routing.needed;
	}

	/** The pool for what it waits for, as things are now. Any can tell a login its settings. */
	private another(): Pool | null {
		const { cluster, routing } = this;
		if (!this.loggedIn) {
			const primary = cluster.pick(0, Side.Primary, 0);
			if (primary !== null && cluster.serves(0, primary, Side.Primary, 0)) return primary;
			return cluster.pick(0, Side.Any, 0) ?? primary;
		}
		return this.hasChoice ? cluster.pick(0, routing.side, routing.since) : cluster.first;
	}

	private anotherThan(tried: Pool): Pool | null {
		if (!this.loggedIn || !this.hasChoice) return this.another();
		return this.cluster.pick(0, this.routing.side, this.routing.since, tried) ?? tried;
	}

	// ---- is the server that it has the right one? ------------------------------------------------------------------

	/** Behind the end of a transaction on a replica comes another, which may have to be elsewhere. */
	isBehindEnd(server: Server): boolean {
		if (!this.routing.isEnding || server.books.owed === 0 || server.books.unsynced || server.session.stays)
			return false;
		return this.cluster.pick(0, Side.Primary, 0) !== this.pool;
	}

	/** Behind what is under way outside of a transaction comes something that this server is not for. */
	isMisplaced(server: Server): boolean {
		const { side } = this.routing;
		if (side === Side.Any || server.status !== TxStatus.Idle || server.session.stays) return false;
		if (server.books.owed === 0 || server.books.unsynced) return false;
		return (this.cluster.pick(0, Side.Primary, 0) === this.pool) !== (side === Side.Primary);
	}

	/** Of what this server was asked nothing can have run yet, and what comes next it must not. */
	isOnReplica(server: Server): boolean {
		if (server.session.stays || server.status !== TxStatus.Idle) return false;
		if (!this.isRouted && !this.routing.needed) return false;
		if (this.routing.side !== Side.Primary && !this.settings.isSerializable) return false;
		const primary = this.cluster.pick(0, Side.Primary, 0);
		return primary !== null && primary !== this.pool;
	}

	// ---- what a pool says ------------------------------------------------------------------------------------------

	// These come in the middle of somebody else's event: what goes wrong here is no matter of theirs.

	onServer(server: Server, time: number): void {
		try {
			this.served(server, time);
		} catch (bug) {
			this.client.onBug(bug);
			// Before anybody had it; otherwise the client's end takes care of it.
			if (server.state === ServerState.Idle) server.close("internal error");
		}
	}

	onCheckoutFailed(error: PgError): void {
		try {
			this.client.onNoServer(error);
		} catch (bug) {
			this.client.onBug(bug);
		}
	}

	onElsewhere(late: boolean): void {
		try {
			this.lookElsewhere(late);
		} catch (bug) {
			this.client.onBug(bug);
		}
	}

	onLongWait(notice: Buffer): void {
		if (this.isTold || !this.loggedIn) return;
		this.isTold = true;
		try {
			this.client.onLongWait(notice);
		} catch (bug) {
			this.client.onBug(bug);
		}
	}

	private served(server: Server, time: number): void {
		if (server.state === ServerState.Closed) {
			this.restart();
			return;
		}
		this.waited = Math.max(0, time - this.waitingSince);
		this.waitTime += this.waited;
		if (this.acquire(server, time)) this.acquired(server);
	}

	/** Nothing of the request was sent: another pool that can serve it may. */
	private lookElsewhere(late: boolean): void {
		// Another thread may have told by now what it waits for.
		if (!this.loggedIn && this.client.greet()) return;
		const { side, since } = this.routing;
		const isHere = this.queue === this.pool;
		if (!late && isHere && this.loggedIn && this.cluster.serves(0, this.pool, side, since)) return;
		const pool = late && isHere ? this.anotherThan(this.pool) : this.another();
		const election = pool === null && this.loggedIn ? this.election() : null;
		const queue = pool ?? election;
		if (queue === this.queue) return;
		// Among servers all of which fail, or hang, it could go round for ever.
		if (late) {
			if (this.wasLate) return;
			this.wasLate = true;
		} else if (isHere && this.mayStay(side) && now() - this.askedAt > this.cluster.checkoutTimeout) return;
		this.queue.leave(this);
		if (pool !== null) {
			this.pool = pool;
			this.restart();
		} else if (election === null) this.onCheckoutFailed(this.refusal);
		else this.await(election);
	}

	/** Well or not, the pool is still one for what it waits for: not after a reload, nor when another is the primary now. */
	private mayStay(side: Side): boolean {
		return this.cluster.has(this.pool) && (!this.loggedIn || this.cluster.suits(0, this.pool, side));
	}

	// ---- from lent to ready ----------------------------------------------------------------------------------------

	/** @returns whether the server is ready for the request now; if not, `acquired` is called later */
	private acquire(server: Server, time: number): boolean {
		const { client, pool, settings } = this;
		server.lend(client, time, pool.spec.pooler_mode === "session");
		client.onLent(server);
		pool.counters[Stat.server_assignment_count]!++;
		const { wanted } = settings;
		const { applied } = server.session;
		if (applied === wanted || applied.equals(wanted)) {
			if (this.routing.heldBegin.open || !this.loggedIn) return this.begun(server);
			settings.tell(server);
			return true;
		}
		server.session.apply(wanted, (error) => {
			if (error !== null) this.onApplyFailed(server, error);
			else if (this.begun(server)) this.acquired(server);
		});
		return false;
	}

	/** Begins on the server what was held back. @returns whether that is done; if not, `acquired` is called later */
	private begun(server: Server): boolean {
		const { heldBegin } = this.routing;
		if (!heldBegin.open || !this.loggedIn) {
			// At login all of it is told, by `welcome`.
			if (this.loggedIn) this.settings.tell(server);
			return true;
		}
		server.run(heldBegin.sql, (_, error) => {
			if (error === null && server.status === TxStatus.InBlock) {
				this.routing.handOver();
				server.begun(now());
				this.acquired(server);
				return;
			}
			this.client.onLent(null);
			server.abandon("recover");
			this.client.refuseHeld(error ?? new PgError("ERROR", "XX000", "the transaction could not be begun"));
		});
		return false;
	}

	private acquired(server: Server): void {
		if (!this.loggedIn) {
			this.pool.reported.tried(this.settings.startup, server.session.reports.now);
			this.client.onLent(null);
			server.returnUnused();
			this.client.onWelcome(server.session.reports.now);
			return;
		}
		this.settings.tell(server);
		this.retries = 0;
		this.client.onServerReady(server);
	}

	/**
	 * The server does not take the settings. It may be the server's fault, whose settings cannot be left: cleaned, it is
	 * tried again. Then it is the client's, whose session cannot be had.
	 */
	private onApplyFailed(server: Server, error: PgError): void {
		const { client } = this;
		client.onLent(null);
		server.session.traces.leave(Dirty.Settings);
		server.returnUnused();
		if (this.retries++ === 0) {
			this.restart();
			return;
		}
		client.close(
			`settings refused: ${error.message}`,
			new PgError("FATAL", error.sqlstate, error.message, error.detail, error.hint),
		);
	}
}
