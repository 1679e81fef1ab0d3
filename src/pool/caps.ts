// How many servers the pools of one database, or of one user, may have together (`max_db_connections`, `max_user_connections`), in all
// threads. A pool that may not open one more has another pool close one: one that is idle, else the next that comes back where there
// are more of them than here. One for each thread.

import type { Server } from "../backend/server.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import type { Ledger } from "./ledger.ts";
import { type Cap, Permit } from "./permit.ts";
import type { Waiter } from "./waiters.ts";

/** A pool that has no server gets one of a pool whose clients wait, too, after this wait, ms: opening one costs some. A guess. */
const TURN = 100;
/** For so long after its client has begun to wait a pool leaves the last place to one whose clients come first, ms. A guess. */
const COURTESY = 200;
const MADE_ROOM = "another pool of its database or user needs the room";

/** Who is to have the place of a server that another pool closes. */
export interface Heir {
	readonly worker: number;
	readonly slot: number;
}

/** The Pool, as one of several. */
export interface CappedPool {
	readonly spec: PoolSpec;
	readonly slot: number;
	readonly isPaused: boolean;
	readonly idle: readonly Server[];
	readonly all: { readonly size: number };
	readonly waiters: { readonly length: number; readonly first: Waiter | null };
	/** Closes an idle server if the process has more than `keep` of the pool. @returns whether it has */
	closeAbove(server: Server, keep: number, reason: string): boolean;
	/** The next server that comes back is closed, and its place is for `heir`. */
	yieldTo(heir: Heir): void;
	/** There may be a place for one more server. */
	onPermitOffered(): void;
}

/** Its thread. */
export interface CapsContext {
	readonly worker: number;
	readonly ledger: Ledger;
	offerPermit(worker: number, slot: number): void;
}

/** To another worker, whose share of the pool is to close a server. */
export interface RoomWanted {
	readonly type: "want-room";
	readonly slot: number;
	readonly heir: Heir;
}

export class Caps {
	private readonly context: CapsContext;
	/** Pools that have a cap in common, by its name, and all of them by slot. */
	private readonly sharers = new Map<string, CappedPool[]>();
	private readonly pools = new Map<number, CappedPool>();

	private readonly tell: (to: number, message: RoomWanted) => void;

	constructor(context: CapsContext, tell: (to: number, message: RoomWanted) => void) {
		this.context = context;
		this.tell = tell;
	}

	/** These are the pools of this thread, with these settings. */
	reach(pools: Iterable<CappedPool>): void {
		this.sharers.clear();
		this.pools.clear();
		for (const pool of pools) {
			for (const { name, most } of capsOf(pool.spec)) {
				if (most === Number.MAX_SAFE_INTEGER) continue;
				this.pools.set(pool.slot, pool);
				const others = this.sharers.get(name);
				if (others === undefined) this.sharers.set(name, [pool]);
				else others.push(pool);
			}
		}
	}

	/** The right to have one more server, if the pool has fewer than `limit` and its caps allow it. @param time `now()` */
	permit(pool: CappedPool, limit: number, time: number): Permit | null {
		const { ledger } = this.context;
		const caps = capsOf(pool.spec);
		if (this.pools.size > 0 && !this.isNext(pool, caps, time)) return null;
		return Permit.take(ledger, pool.slot, limit, caps);
	}

	/** The last place is for the pool that has fewest servers, and among several for that whose client has waited longest. */
	private isNext(pool: CappedPool, caps: readonly Cap[], time: number): boolean {
		const { ledger } = this.context;
		const used = ledger.used(pool.slot);
		const since = pool.waiters.first?.waitingSince ?? Number.POSITIVE_INFINITY;
		if (time - since > COURTESY) return true;
		for (const { name, most } of caps) {
			if (most - ledger.tally.count(name) > 1) continue;
			for (const other of this.sharers.get(name) ?? []) {
				if (other === pool || other.isPaused) continue;
				const theirs = ledger.used(other.slot);
				if (theirs > used || theirs >= other.spec.pool_size) continue;
				const waiting = this.waitingSince(other);
				if (waiting > 0 && (theirs < used || waiting < since)) return false;
			}
		}
		return true;
	}

	/** Since when a client waits for a server of the pool, in whatever thread; 0: none does. */
	private waitingSince({ slot, waiters }: CappedPool): number {
		const { ledger, worker } = this.context;
		const here = waiters.first?.waitingSince ?? 0;
		const other = ledger.longestWaiting(slot, worker);
		const there = other < 0 ? 0 : ledger.waitingSince(slot, other);
		return here === 0 || there === 0 ? Math.max(here, there) : Math.min(here, there);
	}

	/**
	 * A client waits for a server of `pool`, which may have more than it has, and a cap may be what stands against it: has another
	 * pool make room. @param time `now()` @returns whether there is room now
	 */
	makeRoom(pool: CappedPool, time: number): boolean {
		const { ledger } = this.context;
		if (!this.pools.has(pool.slot) || ledger.used(pool.slot) >= pool.spec.pool_size) return false;
		const full = capsOf(pool.spec).filter(({ name, most }) => ledger.tally.count(name) >= most);
		let made = full.length > 0;
		for (const { name } of full) if (!this.makeRoomIn(this.sharers.get(name) ?? [], pool, time)) made = false;
		return made;
	}

	private makeRoomIn(sharers: readonly CappedPool[], pool: CappedPool, time: number): boolean {
		const { ledger, worker } = this.context;
		const heir = { worker, slot: pool.slot };
		for (const other of sharers) {
			if (other === pool || other.waiters.length > 0) continue;
			const server = other.idle[0];
			if (server !== undefined && other.closeAbove(server, 0, MADE_ROOM)) return true;
		}
		const mine = ledger.used(pool.slot);
		const isTurn = mine === 0 && time - (pool.waiters.first?.waitingSince ?? time) >= TURN;
		let [giver, most]: [CappedPool | null, number] = [null, 0];
		for (const other of sharers) {
			const used = ledger.used(other.slot);
			if (other === pool || used <= most) continue;
			if (used > mine + 1 || isTurn || this.waitingSince(other) === 0) [giver, most] = [other, used];
		}
		if (giver !== null) this.askFor(giver, heir);
		return false;
	}

	/** Has the thread that has most servers of the pool close one. */
	private askFor(giver: CappedPool, heir: Heir): void {
		const { ledger, worker } = this.context;
		let [at, most] = [worker, giver.all.size];
		for (let other = 0; other < ledger.workers; other++) {
			if (other === worker) continue;
			// One that is idle is worth more than any that is not.
			const held = ledger.heldBy(giver.slot, other) + 1000 * ledger.idleOf(giver.slot, other);
			if (held > most) [at, most] = [other, held];
		}
		if (most === 0) return;
		if (at === worker) giver.yieldTo(heir);
		else this.tell(at, { type: "want-room", slot: giver.slot, heir });
	}

	/** Another thread's client needs the place of a server of this pool. */
	onRoomWanted({ slot, heir }: RoomWanted): void {
		const pool = this.pools.get(slot);
		if (pool === undefined) return;
		const server = pool.idle[0];
		if (server === undefined) pool.yieldTo(heir);
		else if (this.isWaiting(heir)) this.pass(pool, server, heir);
	}

	/** Closes `server`, which nobody has, for the sake of `heir`. @returns whether it has */
	pass(pool: CappedPool, server: Server, heir: Heir): boolean {
		if (!this.isWaiting(heir) || !pool.closeAbove(server, 0, MADE_ROOM)) return false;
		if (heir.worker === this.context.worker) this.pools.get(heir.slot)?.onPermitOffered();
		else this.context.offerPermit(heir.worker, heir.slot);
		return true;
	}

	private isWaiting({ worker, slot }: Heir): boolean {
		if (worker !== this.context.worker) return this.context.ledger.waitingIn(slot, worker) > 0;
		return (this.pools.get(slot)?.waiters.length ?? 0) > 0;
	}

	/** The cap that a pool is at, for whoever has waited in vain; undefined when it is at none. */
	fullOf(spec: PoolSpec): (Cap & { readonly used: number }) | undefined {
		const counted = capsOf(spec).map((cap) => ({ ...cap, used: this.context.ledger.tally.count(cap.name) }));
		return counted.find(({ used, most }) => used >= most);
	}
}

/** What a server of the pool counts for beside the pool itself. Names as in the ledger's Tally. */
function capsOf({ key, user, max_db_connections, max_user_connections }: PoolSpec): readonly Cap[] {
	return [
		// The key without its user: the same for all users' pools of an entry of `[[databases]]`.
		{ name: `D${key.slice(user.length)}`, most: max_db_connections, setting: "max_db_connections" },
		{ name: `U${user}`, most: max_user_connections, setting: "max_user_connections" },
	];
}
