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
	/** Only if nobody waits in the other pool then. */
	readonly isSecond: boolean;
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
	readonly upkeep: {
		/** There is an heir. */
		readonly isYielding: boolean;
		/** The next server that comes back is closed, and its place is for `heir`. */
		yieldTo(heir: Heir): void;
	};
	/** There may be a place for one more server. */
	onPermitOffered(): void;
}

/** Its thread. */
export interface CapsContext {
	readonly worker: number;
	readonly ledger: Ledger;
	/** ms since the epoch as of the janitor's last tick. */
	readonly time: number;
	offerPermit(worker: number, slot: number): void;
}

interface Lively {
	readonly at: number;
	readonly holders: readonly CappedPool[];
	/** In the order of their turns. */
	readonly hungry: readonly CappedPool[];
	/** Those before it are heirs. */
	next: number;
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
	/** Of the sharers of a cap those that are looked at, see `lively`. */
	private readonly found = new Map<string, Lively>();
	private readonly tell: (to: number, message: RoomWanted) => void;

	constructor(context: CapsContext, tell: (to: number, message: RoomWanted) => void) {
		this.context = context;
		this.tell = tell;
	}

	/** These are the pools of this thread, with these settings. */
	reach(pools: Iterable<CappedPool>): void {
		this.sharers.clear();
		this.pools.clear();
		this.found.clear();
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
			if (most - ledger.tally.count(name) !== 1) continue;
			for (const other of this.lively(name).hungry) {
				if (other === pool || other.isPaused) continue;
				const theirs = ledger.used(other.slot);
				if (theirs > used || theirs >= other.spec.pool_size) continue;
				const waiting = this.waitingSince(other);
				if (waiting > 0 && (theirs < used || waiting < since)) return false;
			}
		}
		return true;
	}

	/**
	 * Pools that have a cap in common and have servers, or clients that wait, as of the janitor's last tick: they may have thousands in
	 * common of which most have neither, and each client that waits asks.
	 */
	private lively(name: string): Lively {
		const { time, ledger } = this.context;
		let found = this.found.get(name);
		if (found === undefined || found.at !== time) {
			const sharers = this.sharers.get(name) ?? [];
			const holders = sharers.filter(({ slot }) => ledger.used(slot) > 0);
			const hungry = sharers.filter((pool) => this.waitingSince(pool) > 0);
			const since = new Map(hungry.map((pool) => [pool, this.waitingSince(pool)]));
			found = { at: time, holders, hungry: hungry.sort((a, b) => since.get(a)! - since.get(b)!), next: 0 };
			this.found.set(name, found);
		}
		return found;
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
	 * A client waits for a server of `pool`, which may have `limit` now, and a cap may be what stands against it: has another pool make
	 * room. @param time `now()` @returns whether there is room now
	 */
	makeRoom(pool: CappedPool, limit: number, time: number): boolean {
		const { ledger } = this.context;
		if (!this.pools.has(pool.slot) || ledger.used(pool.slot) >= limit) return false;
		const full = capsOf(pool.spec).filter(({ name, most }) => ledger.tally.count(name) >= most);
		let made = full.length > 0;
		for (const { name } of full) if (!this.makeRoomIn(this.lively(name).holders, pool, time)) made = false;
		return made;
	}

	private makeRoomIn(holders: readonly CappedPool[], pool: CappedPool, time: number): boolean {
		const { ledger, worker } = this.context;
		for (const other of holders) {
			if (other === pool || other.waiters.length > 0) continue;
			const server = other.idle[0];
			if (server !== undefined && other.closeAbove(server, 0, MADE_ROOM)) return true;
		}
		const mine = ledger.used(pool.slot);
		const isTurn = mine === 0 && time - (pool.waiters.first?.waitingSince ?? time) >= TURN;
		let [giver, most]: [CappedPool | null, number] = [null, 0];
		for (const other of holders) {
			const used = ledger.used(other.slot);
			if (other === pool || used <= most || other.upkeep.isYielding) continue;
			if (used > mine + 1 || isTurn || this.waitingSince(other) === 0) [giver, most] = [other, used];
		}
		if (giver !== null) this.askFor(giver, { worker, slot: pool.slot, isSecond: most <= mine + 1 && !isTurn });
		return false;
	}

	/** `pool` has one server more: whoever has waited longest for room there is its heir. */
	opened(pool: CappedPool): void {
		const { tally } = this.context.ledger;
		if (!this.pools.has(pool.slot) || pool.upkeep.isYielding) return;
		const full = capsOf(pool.spec).find(({ name, most }) => tally.count(name) >= most);
		const heir = full === undefined ? null : this.nextOf(this.lively(full.name), pool);
		if (heir !== null) this.giveUp(pool, heir);
	}

	private nextOf(lively: Lively, pool: CappedPool): Heir | null {
		const { ledger, worker } = this.context;
		while (lively.next < lively.hungry.length) {
			const { slot, waiters, isPaused } = lively.hungry[lively.next++]!;
			if (slot === pool.slot || isPaused || ledger.used(slot) > 0) continue;
			const at = waiters.length > 0 ? worker : ledger.longestWaiting(slot, worker);
			if (at >= 0) return { worker: at, slot, isSecond: true };
		}
		return null;
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
		if (at === worker) giver.upkeep.yieldTo(heir);
		else this.tell(at, { type: "want-room", slot: giver.slot, heir });
	}

	/** Another thread's client needs the place of a server of this pool. */
	onRoomWanted({ slot, heir }: RoomWanted): void {
		const pool = this.pools.get(slot);
		if (pool !== undefined) this.giveUp(pool, heir);
	}

	private giveUp(pool: CappedPool, heir: Heir): void {
		const server = pool.idle[0];
		if (server === undefined) pool.upkeep.yieldTo(heir);
		else this.pass(pool, server, heir);
	}

	/** Closes `server`, which nobody has, for the sake of `heir`. @returns whether it has */
	pass(pool: CappedPool, server: Server, heir: Heir): boolean {
		if (heir.isSecond && pool.waiters.length > 0) return false;
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
