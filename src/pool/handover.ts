// Servers of one pool between workers. A pool's size is the process's, so a worker whose clients wait may find all servers with
// others: who has one that comes free gives it to the worker whose client comes first (Ledger knows how long), by its descriptor. Fair
// turns, but not a hand-over for each transaction. One for each Pool.

import type { MovingServer } from "../backend/moving-server.ts";
import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import type { Ledger } from "./ledger.ts";
import type { Permit } from "./permit.ts";
import type { Waiter } from "./waiters.ts";

/** A worker without any server of the pool gets one after this wait, ms: each hand-over costs about half of one. */
const QUANTUM = 5;
/** A client of another worker comes first when it has waited this much longer than twice as long as ours, ms. */
const SLACK = 0.5;
/** Least time between two hand-overs to a worker that has servers of the pool, ms: queues swing, and servers must not. */
const PATIENCE = 20;

/** An encrypted one cannot go, only its place: so much dearer is the connection that is opened there. A guess. */
const DEARER = 20;

/** The Pool, as its servers leave it for other workers. */
export interface HandoverPool {
	readonly slot: number;
	/** Who has waited longest here. */
	readonly firstWaiter: Waiter | null;
	popIdle(): Server | null;
	/** A server that `popIdle` has given goes back. */
	putIdle(server: Server): void;
	/** The server is none of the pool's here any more. @returns its permit */
	giveUp(server: Server): Permit | null;
}

/** What it has to know of its worker. */
export interface HandoverContext {
	readonly worker: number;
	readonly ledger: Ledger;
	/** @param moving null: only the right to have a server goes */
	giveServer(to: number, slot: number, moving: MovingServer | null, caps: readonly string[]): void;
}

export class Handover {
	private readonly pool: HandoverPool;
	private readonly context: HandoverContext;
	/** When a server last went to another worker, as `now()`. */
	private gaveAt = 0;

	constructor(pool: HandoverPool, context: HandoverContext) {
		this.pool = pool;
		this.context = context;
	}

	/** Gives `server`, which has just come free, to a worker whose client comes first. @returns whether it has */
	passOn(server: Server): boolean {
		const { ledger, worker } = this.context;
		const { slot, firstWaiter: first } = this.pool;
		const other = ledger.longestWaiting(slot, worker);
		if (other < 0) return false;
		const time = now();
		const bare = ledger.heldBy(slot, other) === 0;
		const price = server.canMove ? 1 : DEARER;
		if (!bare && time - this.gaveAt < PATIENCE * price) return false;
		if (first !== null) {
			const slack = (bare ? QUANTUM : SLACK) * price;
			const theirs = time - ledger.waitingSince(slot, other);
			if (theirs < 2 * (time - first.waitingSince) + slack) return false;
		}
		return this.give(server, other);
	}

	/** Another worker has clients waiting and asks for what is idle here. */
	onRequested(by: number): void {
		const { ledger } = this.context;
		const { pool } = this;
		const { slot } = pool;
		if (ledger.waitingIn(slot, by) === 0) return;
		if (ledger.heldBy(slot, by) > 0 && now() - this.gaveAt < PATIENCE) return;
		const server = pool.popIdle();
		if (server !== null && !this.give(server, by)) pool.putIdle(server);
	}

	private give(server: Server, to: number): boolean {
		const { canMove } = server;
		const moving = canMove ? server.leave() : null;
		if (canMove && moving === null) return false;
		using permit = this.pool.giveUp(server);
		if (!canMove) server.close("its place goes to another worker");
		this.gaveAt = now();
		this.context.giveServer(to, this.pool.slot, moving, permit?.caps ?? []);
		permit?.passOn();
		return true;
	}
}
