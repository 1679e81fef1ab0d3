// Who is banned, for how long, and who never is. Times are numbers that the test makes up.

import { beforeEach, describe, expect, test } from "bun:test";
import type { ClusterSpec, PoolSpec, Role } from "../../src/config/snapshot.ts";
import { createLog } from "../../src/log.ts";
import { Bans } from "../../src/pool/bans.ts";
import { Ban, FoundRole, Vitals } from "../../src/pool/vitals.ts";
import type { Order } from "./bans-thread.ts";

const TIMEOUT = 300_000;
/** Any time that is not near the epoch, which stands for never. */
const START = 1_790_000_000_000;
const log = createLog("text", "off");

/** Pools of one shard each, one array of roles for each shard; slots are numbered through. */
function configured(shards: Role[][], split = "include_primary", ban_timeout = TIMEOUT) {
	let slot = 0;
	const slots = new Map<string, number>();
	const pools = shards.flatMap((roles, shard) =>
		roles.map((role) => {
			const key = String(slot);
			slots.set(key, slot++);
			return { key, host: "h", port: 5432 + slot, shard, role } as PoolSpec;
		}),
	);
	const general = { ban_timeout, read_write_split: split as "include_primary" };
	return { known: { general, clusters: [{ pools } as unknown as ClusterSpec] }, slots };
}

function bansOf(shards: Role[][], split?: string, ban_timeout?: number, vitals = new Vitals(16)): Bans {
	const { known, slots } = configured(shards, split, ban_timeout);
	return new Bans(vitals, log, known, slots);
}

const banned = ({ vitals }: Bans, count = 3) =>
	Array.from({ length: count }, (_, slot) => slot).filter((slot) => vitals.banOf(slot) !== Ban.None);
const fail = (bans: Bans, slot: number, time = 0) => bans.failed(slot, Ban.Unreachable, "refused", time);

let bans: Bans;
beforeEach(() => {
	bans = bansOf([["primary", "replica", "replica"]]);
});

test("who fails is banned, and back as soon as a check has passed", () => {
	fail(bans, 1, START);
	expect(banned(bans)).toEqual([1]);
	expect([bans.vitals.isHealthy(1), bans.timeLeft(1, START + 500)]).toEqual([false, TIMEOUT - 500]);
	bans.passed(1, START + 200);
	expect(banned(bans)).toEqual([]);
	expect([bans.vitals.isHealthy(1), bans.timeLeft(1, START + 500)]).toEqual([true, 0]);
});

test("who fails again and again is held longer each time, up to ban_timeout; a long good time is forgotten", () => {
	const holds: number[] = [];
	let time = START;
	for (let i = 0; i < 12; i++) {
		fail(bans, 1, time);
		const start = time;
		for (; banned(bans).length > 0; time += 250) bans.passed(1, time);
		holds.push(time - 250 - start);
	}
	expect(holds).toEqual([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map((seconds) => seconds * 1_000));
	time += 61_000;
	fail(bans, 1, time);
	bans.passed(1, time + 1);
	expect(banned(bans)).toEqual([]);
});

test("ban_timeout ends a ban of whoever is not known to be ill, and no other", () => {
	fail(bans, 1, 0);
	fail(bans, 2, 0);
	bans.vitals.setHealthy(1, true);
	bans.tick(TIMEOUT - 1);
	expect(banned(bans)).toEqual([1, 2]);
	bans.tick(TIMEOUT);
	expect(banned(bans)).toEqual([2]);
});

test("ban_timeout = 0 bans nobody", () => {
	bans = bansOf([["primary", "replica"]], "include_primary", 0);
	fail(bans, 1);
	expect([banned(bans), bans.vitals.isHealthy(1)]).toEqual([[], false]);
});

describe("the last one is never banned", () => {
	test("of those that may serve reads, whatever the order", () => {
		for (const order of [
			[0, 1, 2],
			[2, 1, 0],
			[1, 0, 2],
		]) {
			const mine = bansOf([["primary", "replica", "replica"]]);
			for (const slot of order) fail(mine, slot);
			expect(banned(mine)).toEqual(order.slice(0, 2).toSorted());
		}
	});

	test("the primary does not stand in where it is excluded", () => {
		bans = bansOf([["primary", "replica", "replica"]], "exclude_primary");
		fail(bans, 1);
		fail(bans, 2);
		expect(banned(bans)).toEqual([1]);
	});

	test("one server alone is none of many, in each shard by itself", () => {
		bans = bansOf([["primary"], ["replica"], ["primary", "replica"]]);
		for (let slot = 0; slot < 4; slot++) fail(bans, slot);
		expect(banned(bans, 4)).toEqual([2]);
	});

	test("with roles that are found out, who has none counts for nobody", () => {
		bans = bansOf([["auto", "auto", "auto"]]);
		bans.vitals.setRole(0, FoundRole.Outdated);
		bans.vitals.setRole(1, FoundRole.Replica);
		fail(bans, 1);
		expect(banned(bans)).toEqual([]);
		bans.vitals.setRole(2, FoundRole.Primary);
		fail(bans, 1);
		expect(banned(bans)).toEqual([1]);
	});

	test("two threads that ban the last two in the same moment leave somebody", () => {
		const vitals = new Vitals(16);
		const one = bansOf([["primary", "replica"]], "include_primary", TIMEOUT, vitals);
		// What another thread does between this one's look and its ban.
		const { ban } = vitals;
		vitals.ban = (slot, why) => {
			vitals.ban = ban;
			vitals.ban(0, Ban.Unreachable);
			return vitals.ban(slot, why);
		};
		fail(one, 1);
		expect(banned(one)).toEqual([0]);
	});
});

test("who has not been checked is not read from, even if nobody has, and is as soon as a check has passed", () => {
	for (const slot of [0, 1, 2]) bans.unchecked(slot, START);
	expect(banned(bans)).toEqual([0, 1, 2]);
	bans.passed(1, START + 1);
	expect(banned(bans)).toEqual([0, 2]);
	fail(bans, 1, START + 2);
	expect(banned(bans)).toEqual([0, 2]);
});

test("who lags is back when it has caught up, not when a check passes or time does", () => {
	bans.judge(1, Ban.Lag, "replica lag of 5000 ms", 0);
	bans.passed(1, 10);
	bans.tick(2 * TIMEOUT);
	expect([banned(bans), bans.timeLeft(1, 0)]).toEqual([[1], 0]);
	bans.judge(1, Ban.NotReplica, null, 20);
	expect(banned(bans)).toEqual([1]);
	bans.judge(1, Ban.Lag, null, 30);
	expect(banned(bans)).toEqual([]);
});

test("a ban by hand may leave nobody, and no check and no time ends it", () => {
	for (const slot of [0, 1, 2]) bans.banByHand(slot, 0);
	expect(banned(bans)).toEqual([0, 1, 2]);
	bans.passed(1, 10);
	bans.tick(2 * TIMEOUT);
	bans.judge(1, Ban.Lag, null, 10);
	expect(banned(bans)).toEqual([0, 1, 2]);
	bans.unbanByHand(1, 20);
	expect(banned(bans)).toEqual([0, 2]);
});

test("RELOAD and RECONNECT lift every ban, as if none had been, but for servers that nobody has checked yet", () => {
	bans.banByHand(0, START);
	fail(bans, 1, START);
	bans.passed(1, START + 1);
	fail(bans, 1, START + 2);
	bans.unchecked(2, START);
	bans.lift("reload", START + 10);
	expect(banned(bans)).toEqual([2]);
	bans.passed(2, START + 11);
	expect(banned(bans)).toEqual([]);
	// Not held for longer than at the first time.
	fail(bans, 1, START + 20);
	bans.passed(1, START + 21);
	expect(banned(bans)).toEqual([]);
});

test("a ban by hand replaces another one", () => {
	fail(bans, 1);
	bans.banByHand(1, 5);
	bans.passed(1, 10);
	expect(bans.vitals.banOf(1)).toBe(Ban.Manual);
});

// A check that passed ended whatever ban there was when it came to that, and a failed one could come between the end of the ban
// before and the ban by hand.
test("a ban by hand stays, whatever another thread finds out in the same instant", async () => {
	const { known, slots } = configured([["primary", "replica"]]);
	const mine = new Bans(new Vitals(16), log, known, slots);
	const stop = new Int32Array(new SharedArrayBuffer(4));
	const thread = new Worker(new URL("./bans-thread.ts", import.meta.url).href);
	const said = () =>
		new Promise<unknown>((resolve, reject) => {
			thread.onmessage = ({ data }) => resolve(data);
			thread.onerror = (event) => reject(new Error(event.message));
		});
	const begun = said();
	const { memory } = mine.vitals;
	const order: Order = { ...known, memory, slots: 16, stop: stop.buffer, known: slots, slot: 1 };
	thread.postMessage(order);
	await begun;
	let lost = 0;
	for (let i = 0; i < 2_000; i++) {
		// While it is at work: it bans and unbans as soon as it may.
		for (let look = 0; look < 10_000 && mine.vitals.banOf(1) === Ban.None; look++);
		mine.banByHand(1, START);
		for (let look = 0; look < 100; look++) if (mine.vitals.banOf(1) !== Ban.Manual) lost++;
		mine.unbanByHand(1, START);
	}
	const rounds = said();
	Atomics.store(stop, 0, 1);
	expect(await rounds).toBeGreaterThan(0);
	thread.terminate();
	expect(lost).toBe(0);
}, 30_000);

test("threads share one memory: what one bans is banned for all, and its version tells them", () => {
	const other = new Vitals(16, bans.vitals.memory);
	const { version } = other;
	fail(bans, 1);
	expect([other.banOf(1), other.isHealthy(1), other.version > version]).toEqual([Ban.Unreachable, false, true]);
	const changed = other.version;
	bans.vitals.setHealthy(1, false);
	bans.vitals.setRole(2, FoundRole.Unknown);
	expect(other.version).toBe(changed);
});

test("a suspicion is taken once, and a pool that left and came back is a new one", () => {
	const { vitals } = bans;
	vitals.suspect(1);
	expect([vitals.takeSuspicion(1), vitals.takeSuspicion(1), vitals.takeSuspicion(0)]).toEqual([true, false, false]);
	fail(bans, 1);
	vitals.clear(1);
	expect([vitals.banOf(1), vitals.isHealthy(1), vitals.isHealthy(2)]).toEqual([Ban.None, true, true]);
});
