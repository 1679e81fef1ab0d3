// Pools that may have so many servers together: who makes room for whom.

import { expect, test } from "bun:test";
import type { Server } from "../../src/backend/server.ts";
import { type CappedPool, Caps, type Heir, type RoomWanted } from "../../src/pool/caps.ts";
import { Ledger } from "../../src/pool/ledger.ts";
import type { Permit } from "../../src/pool/permit.ts";
import type { Waiter } from "../../src/pool/waiters.ts";
import { testPool } from "./support.ts";

/** A pool of user `a`, `b`, … on one entry of [[databases]], with servers that are nothing but their permits. */
class FakePool implements CappedPool {
	readonly spec;
	readonly isPaused = false;
	readonly idle: Server[] = [];
	readonly permits: Permit[] = [];
	waiters: CappedPool["waiters"] = { length: 0, first: null };
	heir: Heir | null = null;
	offers = 0;
	readonly slot: number;

	constructor(slot: number, most: number) {
		this.slot = slot;
		const user = "abcdef"[slot]!;
		this.spec = { ...testPool(1).pool.spec, key: `${user}@d`, user, pool_size: 3, max_db_connections: most };
	}

	get all(): { size: number } {
		return { size: this.permits.length };
	}

	get upkeep(): CappedPool["upkeep"] {
		return { isYielding: this.heir !== null, yieldTo: (heir) => (this.heir = heir) };
	}

	wait(since: number): void {
		this.waiters = { length: 1, first: { waitingSince: since } as Waiter };
	}

	closeAbove(server: Server): boolean {
		this.idle.splice(this.idle.indexOf(server), 1);
		this.permits.pop()!.release();
		return true;
	}

	onPermitOffered(): void {
		this.offers++;
	}
}

function stage(count: number, most: number, ledger = new Ledger(6, 1), worker = 0) {
	const told: { to: number; message: RoomWanted }[] = [];
	const offered: string[] = [];
	const offerPermit = (to: number, slot: number) => offered.push(`${to} ${slot}`);
	const context = { worker, ledger, time: 1, offerPermit };
	const caps = new Caps(context, (to, message) => told.push({ to, message }));
	const pools = Array.from({ length: count }, (_, slot) => new FakePool(slot, most));
	caps.reach(pools);
	const open = (pool: FakePool, time = 1_000): boolean => {
		const permit = caps.permit(pool, pool.spec.pool_size, time);
		if (permit !== null) pool.permits.push(permit);
		return permit !== null;
	};
	return { ledger, caps, pools, open, context, told, offered };
}

test("an idle server of another pool is closed at once", () => {
	const { caps, pools, open } = stage(2, 2);
	const [a, b] = pools as [FakePool, FakePool];
	expect([open(a), open(a), open(b)]).toEqual([true, true, false]);
	a.idle.push({} as Server);
	b.wait(1_000);
	expect([caps.makeRoom(b, 3, 1_000), open(b), a.permits.length, a.heir]).toEqual([true, true, 1, null]);
	// At its own size there is no need for another's.
	expect([caps.makeRoom(a, 3, 1_000), b.heir]).toEqual([false, null]);
});

test("without an idle one the next that comes back is closed, of whoever has more", () => {
	const { caps, pools, open } = stage(3, 4);
	const [a, b, c] = pools as [FakePool, FakePool, FakePool];
	for (const pool of [a, a, a, b]) open(pool);
	for (const pool of [a, b, c]) pool.wait(1_000);
	expect([caps.makeRoom(c, 3, 1_000), a.heir, b.heir]).toEqual([false, { worker: 0, slot: 2, isSecond: false }, null]);
	a.waiters = { length: 1, first: null };
	expect(caps.pass(a, {} as Server, a.heir!)).toBe(true);
	expect([c.offers, a.permits.length, open(c)]).toEqual([1, 2, true]);
});

test("with one server in all, one whose clients wait has it for a while, then the other", () => {
	const { caps, pools, open, context } = stage(2, 1);
	const [a, b] = pools as [FakePool, FakePool];
	open(a);
	a.wait(1_000);
	b.wait(1_000);
	// The janitor's next tick.
	context.time++;
	expect([caps.makeRoom(b, 3, 1_050), a.heir]).toEqual([false, null]);
	expect([caps.makeRoom(b, 3, 1_100), a.heir]).toEqual([false, { worker: 0, slot: 1, isSecond: false }]);
});

test("who has got the last place is followed by whoever has waited longest, each by another", () => {
	const { caps, pools, open } = stage(5, 2);
	const [a, b, c, d, e] = pools as [FakePool, FakePool, FakePool, FakePool, FakePool];
	c.wait(900);
	d.wait(800);
	e.wait(950);
	open(a);
	caps.opened(a);
	expect(a.heir).toBe(null);
	// Not for one who comes now, while others wait.
	b.wait(1_000);
	expect(open(b)).toBe(false);
	b.waiters = { length: 0, first: null };
	expect(open(d)).toBe(true);
	d.waiters = { length: 0, first: null };
	caps.opened(d);
	caps.opened(a);
	expect([d.heir?.slot, a.heir?.slot]).toEqual([2, 4]);
	// Who has clients of its own by then keeps it; whose heir is served already, too.
	a.wait(1_000);
	expect(caps.pass(a, {} as Server, a.heir!)).toBe(false);
	c.waiters = { length: 0, first: null };
	expect(caps.pass(d, {} as Server, d.heir!)).toBe(false);
});

test("a permit that its cap refuses leaves no trace, and gives all back once", () => {
	const { ledger, pools, open } = stage(2, 1);
	const [a, b] = pools as [FakePool, FakePool];
	open(a);
	expect([open(b), ledger.used(1), ledger.tally.count("Ub"), ledger.tally.count("D@d")]).toEqual([false, 0, 0, 1]);
	const permit = a.permits[0]!;
	permit.release();
	permit.release();
	expect([ledger.used(0), ledger.tally.count("Ua"), ledger.tally.count("D@d"), open(b)]).toEqual([0, 0, 0, true]);
});

test("another thread is asked to close a server, and offers the place to the thread whose client waits", () => {
	const ledger = new Ledger(6, 2);
	const here = stage(2, 2, ledger, 0);
	const there = stage(2, 2, ledger, 1);
	const [theirs] = there.pools as [FakePool];
	const mine = here.pools[1]!;
	expect([there.open(theirs), there.open(theirs)]).toEqual([true, true]);
	ledger.setServers(0, 1, 0, 2);
	mine.wait(1_000);
	ledger.setWaiting(1, 0, 1, 1_000);
	expect(here.caps.makeRoom(mine, 3, 1_000)).toBe(false);
	const heir: Heir = { worker: 0, slot: 1, isSecond: false };
	expect(here.told).toEqual([{ to: 1, message: { type: "want-room", slot: 0, heir } }]);
	// The next that comes back is closed, where none is idle.
	there.caps.onRoomWanted(here.told[0]!.message);
	expect([theirs.heir, there.offered]).toEqual([heir, []]);
	// One that is idle is at once.
	theirs.idle.push({} as Server);
	there.caps.onRoomWanted(here.told[0]!.message);
	expect([there.offered, theirs.permits.length, here.open(mine)]).toEqual([["0 1"], 1, true]);
	// Whose client has been served meanwhile needs none; a pool that a reload took away has none.
	ledger.setWaiting(1, 0, 0, 0);
	theirs.idle.push({} as Server);
	there.caps.onRoomWanted(here.told[0]!.message);
	there.caps.reach([]);
	there.caps.onRoomWanted(here.told[0]!.message);
	expect([there.offered, theirs.permits.length]).toEqual([["0 1"], 1]);
});

test("who has waited in vain is told of the cap that is full", () => {
	const { caps, pools, open } = stage(2, 1);
	const [a, b] = pools as [FakePool, FakePool];
	expect(caps.fullOf(b.spec)).toBe(undefined);
	open(a);
	expect(caps.fullOf(b.spec)).toEqual({ name: "D@d", most: 1, setting: "max_db_connections", used: 1 });
});
