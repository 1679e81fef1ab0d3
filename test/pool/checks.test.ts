// How a pool finds out that its server is not well, and that it is again. Ticks are given the time that the test wants.

import { expect, test } from "bun:test";
import { Bans } from "../../src/pool/bans.ts";
import { Ledger } from "../../src/pool/ledger.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Ban, FoundRole, Vitals } from "../../src/pool/vitals.ts";
import { Stat } from "../../src/stats/counters.ts";
import { until } from "../support/until.ts";
import { ScriptedServer, type TestPool, TestWaiter, testPool } from "./support.ts";

const now = () => performance.timeOrigin + performance.now();

/** Ticks as the janitor does, by a clock that runs `speed` times as fast, until `condition`. */
async function ticking(pool: { tick(time: number): void }, condition: () => boolean, what: string, speed = 20) {
	const start = now();
	await until(() => {
		pool.tick(start + (now() - start) * speed);
		return condition();
	}, what);
}

test("a server that refuses connections is banned, who waits is told, and it is back when it answers", async () => {
	using postgres = new ScriptedServer();
	postgres.refuse = "57P03";
	const { pool, bans } = testPool(postgres.port, {}, { checkout_timeout: 60_000 });
	const waiter = new TestWaiter();
	const served = waiter.from(pool);
	await until(() => waiter.told > 0, "to be told that there may be a better place");
	expect([bans.vitals.banOf(0), bans.vitals.isHealthy(0)]).toEqual([Ban.Unreachable, false]);
	pool.leave(waiter);
	postgres.refuse = "";
	await ticking(pool, () => bans.vitals.banOf(0) === Ban.None, "the ban to end");
	expect(bans.vitals.isHealthy(0)).toBe(true);
	pool.shutDown();
	void served;
});

test("a refusal to have one more connection is no illness while there are others", async () => {
	using postgres = new ScriptedServer();
	const { pool, bans } = testPool(postgres.port, { pool_size: 2 });
	const first = await new TestWaiter().from(pool);
	postgres.refuse = "53300";
	const second = new TestWaiter();
	void second.from(pool);
	await until(() => second.told > 0, "the refusal");
	expect([bans.vitals.banOf(0), bans.vitals.isHealthy(0), second.error]).toEqual([Ban.None, true, null]);
	pool.onIdle(first.server!);
	await until(() => second.server !== null, "the first one's server");
	pool.shutDown();
});

test("in the background a server is asked every idle_healthcheck_interval, by an idle connection where there is one", async () => {
	using postgres = new ScriptedServer();
	const settings = {
		idle_healthcheck_interval: 5_000,
		idle_healthcheck_delay: 1_000,
		healthcheck_timeout: 3_600_000,
	};
	const { pool, bans } = testPool(postgres.port, {}, settings);
	const { server } = await new TestWaiter().from(pool);
	pool.onIdle(server!);
	await ticking(pool, () => postgres.queries.length === 3, "three checks");
	expect([postgres.queries, postgres.logins]).toEqual([[";", ";", ";"], 1]);
	expect(bans.vitals.banOf(0)).toBe(Ban.None);
	pool.shutDown();
});

test("without an idle connection one is opened for the check, beyond the pool's size, and closed again", async () => {
	using postgres = new ScriptedServer();
	const settings = {
		idle_healthcheck_interval: 5_000,
		idle_healthcheck_delay: 1_000,
		healthcheck_timeout: 3_600_000,
	};
	const { pool, ledger } = testPool(postgres.port, { pool_size: 1 }, settings);
	const { server } = await new TestWaiter().from(pool);
	await ticking(pool, () => postgres.logins === 3, "two checks");
	await until(() => postgres.connections === 1, "their connections to be closed");
	expect([ledger.used(0), pool.all.size, pool.all.has(server!)]).toEqual([1, 1, true]);
	pool.shutDown();
});

test("idle_healthcheck_interval = 0 asks nothing of a server that is well", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, {}, { idle_healthcheck_interval: 0, idle_healthcheck_delay: 0 });
	const { server } = await new TestWaiter().from(pool);
	pool.onIdle(server!);
	for (let time = now(); time < now() + 50_000; time += 500) pool.tick(time);
	expect([postgres.queries, postgres.logins]).toEqual([[], 1]);
	pool.shutDown();
});

test("a check that is not answered within healthcheck_timeout bans the server and closes what is idle", async () => {
	using postgres = new ScriptedServer();
	const settings = { idle_healthcheck_interval: 5_000, idle_healthcheck_delay: 0, healthcheck_timeout: 1_000 };
	const { pool, bans } = testPool(postgres.port, { pool_size: 2 }, settings);
	const both = await Promise.all([1, 2].map(() => new TestWaiter().from(pool)));
	for (const { server } of both) pool.onIdle(server!);
	postgres.hold = true;
	postgres.mute = true;
	await ticking(pool, () => bans.vitals.banOf(0) === Ban.Unhealthy, "the ban");
	await ticking(pool, () => pool.all.size === 0, "all to be closed");
	postgres.hold = false;
	postgres.mute = false;
	await ticking(pool, () => bans.vitals.banOf(0) === Ban.None, "the ban to end", 100);
	pool.shutDown();
});

test("a query that nothing comes back from is a reason to ask, long before the interval is over", async () => {
	using postgres = new ScriptedServer();
	const settings = { idle_healthcheck_interval: 3_600_000, healthcheck_timeout: 1_000 };
	const { pool, bans } = testPool(postgres.port, { pool_size: 2 }, settings);
	const { server } = await new TestWaiter().from(pool);
	postgres.hold = true;
	postgres.mute = true;
	// Its client's query.
	server!.run("SELECT 1", () => {});
	server!.deadline = 0;
	server!.lend({ onServerGone() {} } as never, Date.now(), false);
	await ticking(pool, () => bans.vitals.banOf(0) === Ban.Unhealthy, "the ban");
	expect(pool.all.has(server!)).toBe(true);
	pool.shutDown();
});

test("a connection that is lost is a reason to ask at once", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, {}, { idle_healthcheck_interval: 3_600_000 });
	const { server } = await new TestWaiter().from(pool);
	pool.onIdle(server!);
	postgres.drop();
	await until(() => pool.all.size === 0, "the loss");
	await ticking(pool, () => postgres.logins === 2, "the check");
	pool.shutDown();
});

test("who has waited for checkout_timeout while nothing came back may go elsewhere, else it is told", async () => {
	using postgres = new ScriptedServer();
	const settings = { checkout_timeout: 1_000, connect_timeout: 60_000 };
	const leaves = (waiter: TestWaiter, pool: TestPool["pool"]) => {
		waiter.onElsewhere = () => {
			waiter.told++;
			pool.leave(waiter);
		};
	};
	postgres.mute = true;
	const silent = testPool(postgres.port, {}, settings);
	const waiter = new TestWaiter();
	leaves(waiter, silent.pool);
	void waiter.from(silent.pool);
	silent.pool.tick(waiter.waitingSince + 1_001);
	expect([waiter.told, waiter.error, silent.bans.vitals.banOf(0)]).toEqual([1, null, Ban.Unreachable]);
	silent.pool.shutDown();
	postgres.mute = false;
	// All at work: busy or hanging, that is for a check to say, and nobody is banned for it.
	const full = testPool(postgres.port, { pool_size: 1 }, settings);
	const { server } = await new TestWaiter().from(full.pool);
	const [mobile, stuck] = [new TestWaiter(), new TestWaiter()];
	leaves(mobile, full.pool);
	void mobile.from(full.pool);
	void stuck.from(full.pool);
	full.pool.tick(stuck.waitingSince + 1_001);
	expect([mobile.told, mobile.error, stuck.told, stuck.error?.message]).toEqual([1, null, 1, "checkout timeout"]);
	expect(full.bans.vitals.banOf(0)).toBe(Ban.None);
	// Nor while that check is under way: the ticks begin one, and it hangs.
	postgres.hold = true;
	const { logins } = postgres;
	full.pool.tick(stuck.waitingSince + 3_000);
	full.pool.tick(stuck.waitingSince + 6_000);
	await until(() => postgres.logins > logins, "the check's login");
	const another = new TestWaiter();
	void another.from(full.pool);
	full.pool.tick(another.waitingSince + 1_001);
	expect([another.error?.message, full.bans.vitals.banOf(0)]).toEqual(["checkout timeout", Ban.None]);
	postgres.hold = false;
	// Its server comes back all the time, to others.
	const late = new TestWaiter();
	void late.from(full.pool);
	const { waitingSince } = late;
	full.pool.leave(late);
	server!.usedAt = waitingSince + 500;
	full.pool.onIdle(server!);
	expect(full.pool.take(new TestWaiter(), now())).toBe(server!);
	void late.from(full.pool);
	late.waitingSince = waitingSince;
	full.pool.tick(waitingSince + 1_001);
	expect([late.told, late.error?.message]).toEqual([0, "checkout timeout"]);
	full.pool.shutDown();
});

test("what is no longer the primary loses its connections, lent ones too; a replica that is promoted keeps them", async () => {
	using postgres = new ScriptedServer();
	const { pool, bans } = testPool(postgres.port, { role: "auto" });
	bans.vitals.setRole(0, FoundRole.Replica);
	pool.tick(now());
	const [lent, idle] = await Promise.all([1, 2].map(() => new TestWaiter().from(pool)));
	pool.onIdle(idle!.server!);
	bans.vitals.setRole(0, FoundRole.Primary);
	pool.tick(now());
	expect(pool.all.size).toBe(2);
	let told = "";
	lent!.server!.lend(
		{ onServerGone: (error: { sqlstate: string }) => (told = error.sqlstate) } as never,
		Date.now(),
		false,
	);
	bans.vitals.setRole(0, FoundRole.Outdated);
	pool.tick(now());
	expect([pool.all.size, told]).toEqual([0, "57P01"]);
	pool.shutDown();
});

test("the load of a pool is what is lent and who waits", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, { pool_size: 2 });
	const both = await Promise.all([1, 2].map(() => new TestWaiter().from(pool)));
	void new TestWaiter().from(pool);
	expect(pool.load).toBe(3);
	pool.onIdle(both[0]!.server!);
	expect(pool.load).toBe(2);
	pool.onIdle(both[1]!.server!);
	expect(pool.load).toBe(1);
	pool.shutDown();
});

test("of many pools of a server that nobody uses one is checked in its turn, and each of them once it has failed", async () => {
	using postgres = new ScriptedServer();
	const settings = { idle_healthcheck_interval: 400, idle_healthcheck_delay: 0, healthcheck_timeout: 5_000 };
	const made = testPool(postgres.port, {}, settings);
	const specs = Array.from({ length: 20 }, (_, i) => ({ ...made.pool.spec, key: `p${i}`, database: `d${i}` }));
	const user = { name: "u", passwords: [] };
	const clusters = specs.map((spec) => ({
		user: { ...user, database: spec.database },
		database: spec.database,
		readOnly: false,
		sharding: null,
		pools: [spec],
	}));
	const known = { general: made.context.general, clusters };
	const slots = new Map(specs.map(({ key }, slot) => [key, slot]));
	const { log } = made.context;
	const bans = new Bans(new Vitals(specs.length), log, known, slots);
	const context = { ...made.context, bans, ledger: new Ledger(specs.length, 1) };
	const pools = specs.map((spec, slot) => new Pool(spec, slot, new Float64Array(Stat.length), context));
	const after = (condition: () => boolean) => () => {
		for (const pool of pools) pool.tick(now());
		return condition();
	};
	const areWell = (well: boolean) => after(() => pools.every(({ slot }) => bans.vitals.isHealthy(slot) === well));
	const start = now();
	await until(
		after(() => now() - start > 2_000),
		"five turns to be over",
	);
	expect(postgres.logins).toBeGreaterThanOrEqual(3);
	expect(postgres.logins).toBeLessThanOrEqual(6);
	postgres.refuse = "57P03";
	await until(areWell(false), "all to be known to be ill");
	postgres.refuse = "";
	await until(areWell(true), "all to be well again");
	for (const pool of pools) pool.shutDown();
});
