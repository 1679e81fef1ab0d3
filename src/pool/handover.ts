// Servers of one pool between workers. A pool's size is the process's, so a worker whose clients wait may find all servers with
// others: who has one that comes free gives it to the worker whose client comes first (Ledger knows how long), by its descriptor. Fair
// turns, but not a hand-over for each transaction. One for each Pool.

import type { MovingServer } from "../backend/moving-server.ts";
import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import type { Contain } from "../contain.ts";
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
/** How long PostgreSQL may take to let go of one, ms, until its place goes all the same: a frozen one never does. A guess. */
const LETTING_GO = 1_000;

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
	readonly contain: Contain;
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
		const bare = this.isBare(other);
		const price = server.canMove ? 1 : DEARER;
		if (!bare && time - this.gaveAt < PATIENCE * price) return false;
		if (first !== null) {
			const slack = (bare ? QUANTUM : SLACK) * price;
			const theirs = time - ledger.waitingSince(slot, other);
			if (theirs < 2 * (time - first.waitingSince) + slack) return false;
		}
		return this.give(server, other);
	}

	/** The worker has no server of the pool, nor is one on its way there. */
	private isBare(worker: number): boolean {
		const { ledger } = this.context;
		const { slot } = this.pool;
		return ledger.heldBy(slot, worker) === 0 && ledger.comingTo(slot, worker) === 0;
	}

	/** Another worker has clients waiting and asks for what is idle here. */
	onRequested(by: number): void {
		const { ledger } = this.context;
		const { pool } = this;
		const { slot } = pool;
		if (!ledger.lacks(slot, by)) return;
		if (!this.isBare(by) && now() - this.gaveAt < PATIENCE) return;
		const server = pool.popIdle();
		if (server !== null && !this.give(server, by)) pool.putIdle(server);
	}

	private give(server: Server, to: number): boolean {
		const { canMove } = server;
		const moving = canMove ? server.leave() : null;
		if (canMove && moving === null) return false;
		const { ledger } = this.context;
		const { slot } = this.pool;
		const permit = this.pool.giveUp(server);
		ledger.sends(slot, to);
		this.gaveAt = now();
		if (canMove) this.send(to, moving, permit);
		else this.replace(server, to, permit);
		return true;
	}

	private send(to: number, moving: MovingServer | null, mine: Permit | null): void {
		using permit = mine;
		this.context.giveServer(to, this.pool.slot, moving, permit?.caps ?? []);
		permit?.passOn();
	}

	/** Has `server` closed, and sends its permit when PostgreSQL does not count it any more. */
	private replace(server: Server, to: number, permit: Permit | null): void {
		const { stream } = server;
		// Who has opened it in this very event must not give its permit back.
		permit?.belongsToServer(true);
		const late = this.context.contain.later(LETTING_GO, stream, () => stream.terminate());
		const onClose = () => {
			clearTimeout(late);
			permit?.belongsToServer(false);
			this.send(to, null, permit);
		};
		server.dismiss("its place goes to another worker", { onData() {}, onDrain() {}, onClose });
	}

	/** What another worker has sent is here, or was lost, when `arrives` is over. */
	async arrival(arrives: Promise<void>): Promise<void> {
		const { ledger, worker } = this.context;
		try {
			await arrives;
		} finally {
			ledger.arrived(this.pool.slot, worker);
		}
	}
}
