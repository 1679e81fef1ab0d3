// One worker's share of a pool: who gets a server, how many there are, and who is told what when there is none.

import { expect, test } from "bun:test";
import type { Server } from "../../src/backend/server.ts";
import { ServerState } from "../../src/backend/server-state.ts";
import { now } from "../../src/clock.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { Pool } from "../../src/pool/pool.ts";
import type { Lesson } from "../../src/pool/reported.ts";
import { FoundRole } from "../../src/pool/vitals.ts";
import { Stat } from "../../src/stats/counters.ts";
import { rig } from "../backend/support.ts";
import { until } from "../support/until.ts";
import { ScriptedServer, TestWaiter, testPool } from "./support.ts";

test("never more connections than pool_size; who waits is served in order of arrival", async () => {
	using postgres = new ScriptedServer();
	const { pool, ledger } = testPool(postgres.port, { pool_size: 2 });
	const waiters = Array.from({ length: 5 }, () => new TestWaiter());
	const order: number[] = [];
	const waits = waiters.map((waiter, i) => waiter.from(pool).then(() => order.push(i)));
	await Promise.all(waits.slice(0, 2));
	expect([ledger.used(0), pool.waiters.length, postgres.logins]).toEqual([2, 3, 2]);
	pool.leave(waiters[3] as TestWaiter);
	pool.onIdle(waiters[1]!.server!);
	pool.onIdle(waiters[0]!.server!);
	await Promise.all([waits[2], waits[4]]);
	expect(order.slice(2)).toEqual([2, 4]);
	expect(waiters[2]!.server).toBe(waiters[1]!.server);
	expect(postgres.logins).toBe(2);
	pool.shutDown();
	expect(ledger.used(0)).toBe(0);
});

test("a server that is refused for good is an error for who waits, and its permit comes back", async () => {
	using postgres = new ScriptedServer();
	postgres.refuse = "3D000";
	const { pool, ledger } = testPool(postgres.port);
	const waiter = await new TestWaiter().from(pool);
	expect(waiter.error?.sqlstate).toBe("3D000");
	expect(ledger.used(0)).toBe(0);
	pool.shutDown();
});

// Its client's query was timed out at once, by a query_timeout that had passed while the server was idle.
test("who is handed a server that was asked last long ago is not told that time as now", async () => {
	using postgres = new ScriptedServer();
	const { pool, clock } = testPool(postgres.port, { pool_size: 1 });
	const { server } = await new TestWaiter().from(pool);
	await new Promise<void>((resolve) => server!.run("SELECT 1", () => resolve()));
	const handed = Promise.withResolvers<number>();
	const next = new TestWaiter();
	next.onServer = (_server: Server, time: number) => handed.resolve(time);
	await Bun.sleep(20);
	clock.time = now();
	expect(pool.take(next, clock.time)).toBeNull();
	pool.onIdle(server!);
	expect(await handed.promise).toBeGreaterThanOrEqual(next.waitingSince);
	pool.shutDown();
});

test("who waits longer than checkout_timeout is told so, and the next is not", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, { pool_size: 1 }, { checkout_timeout: 1000 });
	const first = await new TestWaiter().from(pool);
	const late = new TestWaiter();
	const lateIsTold = late.from(pool);
	const fresh = new TestWaiter();
	const freshIsServed = fresh.from(pool);
	late.waitingSince -= 2000;
	pool.tick(fresh.waitingSince + 10);
	await lateIsTold;
	expect([late.error?.message, late.error?.hint]).toEqual([
		"checkout timeout",
		"Raise default_pool_size or checkout_timeout, or make transactions shorter.",
	]);
	pool.onIdle(first.server!);
	await freshIsServed;
	expect(fresh.server).toBe(first.server);
	pool.shutDown();
});

// An operator saw neither a line nor a number, and clients got errors.
test("an exhausted pool is told of once a minute by all workers together, and every wait and refusal is counted", async () => {
	using postgres = new ScriptedServer();
	const made = testPool(postgres.port, { pool_size: 1 }, { checkout_timeout: 1000 }, 0, 2);
	const { ledger, lines, context } = made;
	const counters = [new Float64Array(Stat.length), new Float64Array(Stat.length)];
	const pools = [0, 1].map((worker) => new Pool(made.pool.spec, 0, counters[worker]!, { ...context, worker }));
	const holder = await new TestWaiter().from(pools[0]!);
	holder.server!.lend(rig().client, now(), false);
	const timeOut = async (worker: number, later = 0) => {
		const client = new TestWaiter();
		const answered = client.from(pools[worker]!);
		client.waitingSince -= 1500;
		pools[worker]!.tick(now() + later);
		await answered;
		expect([client.error?.sqlstate, client.error?.message]).toEqual(["53300", "checkout timeout"]);
	};
	for (const worker of [0, 1, 1, 0]) await timeOut(worker);
	expect(lines).toHaveLength(1);
	expect(lines[0]).toMatch(
		/WARN.*pool of user "u" and database "d": 1 of 1 server connections .* clients waiting: 1, the longest for 15\d\d ms \[u@127/,
	);
	await timeOut(1, 61_000);
	expect(lines[1]).toMatch(/\(4 times since this was last said\)/);
	const sum = (stat: Stat) => counters[0]![stat]! + counters[1]![stat]!;
	expect([sum(Stat.errors), ledger.used(0)]).toEqual([5, 1]);
	expect(sum(Stat.wait_time)).toBeGreaterThanOrEqual(5 * 1500);
	for (const pool of pools) pool.shutDown();
});

test("what another worker has learned is told to those who wait, and what is of other servers to nobody's log-in", async () => {
	using postgres = new ScriptedServer();
	const made = testPool(postgres.port, { pool_size: 1 }, {}, 0, 2);
	const lessons: [string, Lesson][] = [];
	const share = (_slot: number, identity: string, lesson: Lesson) => void lessons.push([identity, lesson]);
	const pool = (worker: number) =>
		new Pool(made.pool.spec, 0, new Float64Array(Stat.length), { ...made.context, worker, share });
	const [there, here] = [pool(0), pool(1)];
	await new TestWaiter().from(there);
	expect(lessons).toHaveLength(1);
	const client = new TestWaiter();
	void client.from(here);
	let looks = 0;
	client.onElsewhere = () => void looks++;
	const { empty } = made.context.sets;
	here.onLesson("elsewhere", lessons[0]![1]);
	expect(here.greeting(empty, false)).toBeNull();
	looks = 0;
	here.onLesson(...lessons[0]!);
	expect([looks, here.greeting(empty, false)]).toEqual([1, there.greeting(empty, false)]);
	here.leave(client);
	for (const of of [there, here]) of.shutDown();
});

test("who gives up waiting has waited all the same", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, { pool_size: 1 });
	await new TestWaiter().from(pool);
	const before = pool.counters[Stat.wait_time]!;
	const client = new TestWaiter();
	void client.from(pool);
	client.waitingSince -= 700;
	pool.leave(client);
	expect(pool.counters[Stat.wait_time]! - before).toBeGreaterThanOrEqual(700);
	pool.shutDown();
});

test("a paused pool makes clients wait and lends again when resumed", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, { pool_size: 1 });
	pool.pause();
	const waiter = new TestWaiter();
	const served = waiter.from(pool);
	pool.tick(waiter.waitingSince + 1e9);
	expect([waiter.error, postgres.logins]).toEqual([null, 0]);
	pool.resume();
	await served;
	expect(waiter.server).not.toBeNull();
	pool.shutDown();
});

// Between two ticks: the old primary, back on its old timeline, took what had waited for it, and nobody will find that again.
test("who waits for a primary does not get what is none any more, not even before the next tick", async () => {
	using postgres = new ScriptedServer();
	const { pool, bans, ledger } = testPool(postgres.port, { pool_size: 2, role: "auto" });
	bans.vitals.setRole(0, FoundRole.Primary);
	const first = await new TestWaiter().from(pool);
	const second = await new TestWaiter().from(pool);
	pool.tick(first.waitingSince + 1);
	const write = new TestWaiter();
	write.onElsewhere = () => pool.leave(write);
	void write.from(pool);
	bans.vitals.setRole(0, FoundRole.Outdated);
	pool.onIdle(first.server!);
	expect([write.server, write.queued, ledger.used(0)]).toEqual([null, false, 0]);
	expect([first.server!.state, second.server!.state]).toEqual([ServerState.Closed, ServerState.Closed]);
	// A replica may serve who still wants it.
	bans.vitals.setRole(0, FoundRole.Replica);
	const reads = [1, 2, 3].map(() => new TestWaiter());
	const [one, two, three] = reads.map((read) => read.from(pool));
	await Promise.all([one, two]);
	bans.vitals.setRole(0, FoundRole.Primary);
	const { told } = reads[2]!;
	pool.onIdle(reads[0]!.server!);
	await three;
	expect(reads[2]!.server).toBe(reads[0]!.server);
	expect(reads[2]!.told).toBe(told + 1);
	pool.shutDown();
});

test("a retired pool tells who waits and who comes, and closes what comes back", async () => {
	using postgres = new ScriptedServer();
	const { pool, ledger } = testPool(postgres.port, { pool_size: 1 });
	const first = await new TestWaiter().from(pool);
	const second = new TestWaiter();
	const told = second.from(pool);
	pool.retire();
	await told;
	expect(second.error?.message).toBe("pool is shut down");
	expect((await new TestWaiter().from(pool)).error?.message).toBe("pool is shut down");
	expect(pool.isOver).toBe(false);
	pool.onIdle(first.server!);
	expect([pool.isOver, ledger.used(0)]).toEqual([true, 0]);
});

test("what another worker sees of a pool that came back is the new one's, while servers of the old one are lent", async () => {
	using postgres = new ScriptedServer();
	const { pool: old, another, ledger } = testPool(postgres.port, { pool_size: 1 }, {}, 0, 2);
	const { server } = await new TestWaiter().from(old);
	old.retire();
	const pool = another();
	const waiter = new TestWaiter();
	const served = waiter.from(pool);
	old.tick(waiter.waitingSince + 1);
	expect([ledger.waitingIn(0, 0), ledger.heldBy(0, 0)]).toEqual([1, 0]);
	// The permit is one for both.
	expect([ledger.used(0), postgres.logins]).toEqual([1, 1]);
	old.onIdle(server!);
	pool.tick(waiter.waitingSince + 2);
	await served;
	expect([old.isOver, waiter.server !== null, ledger.used(0), ledger.heldBy(0, 0)]).toEqual([true, true, 1, 1]);
	pool.shutDown();
});

test("idle servers above min_pool_size are closed after idle_timeout", async () => {
	using postgres = new ScriptedServer();
	const { pool, ledger } = testPool(postgres.port, { pool_size: 3, min_pool_size: 1, idle_timeout: 1000 });
	const waiters = await Promise.all([1, 2, 3].map(() => new TestWaiter().from(pool)));
	for (const { server } of waiters) pool.onIdle(server!);
	pool.tick(waiters[0]!.server!.usedAt + 500);
	expect(pool.all.size).toBe(3);
	pool.tick(waiters[0]!.server!.usedAt + 60_000);
	expect([pool.all.size, ledger.used(0)]).toEqual([1, 1]);
	pool.shutDown();
});

test("a connection that was idle for long is asked before it is lent", async () => {
	using postgres = new ScriptedServer();
	const { pool, clock } = testPool(postgres.port, { pool_size: 1 }, { healthcheck_interval: 1000 });
	const first = await new TestWaiter().from(pool);
	const server = first.server!;
	pool.onIdle(server);
	clock.time = server.usedAt + 500;
	expect(pool.take(new TestWaiter(), now())).toBe(server);
	pool.onIdle(server);
	clock.time = server.usedAt + 5000;
	const second = await new TestWaiter().from(pool);
	expect(second.server === server).toBe(true);
	expect(postgres.queries).toEqual([";"]);
	pool.shutDown();
});

// The janitor's DEALLOCATE ran on a server that was still in the list of idle ones: it was lent while its answer was
// under way, and put into the list twice, so that two clients got the same connection.
test("a server that deallocates dropped statements is not lent meanwhile, nor twice afterwards", async () => {
	using postgres = new ScriptedServer();
	const { pool, statements } = testPool(postgres.port, { pool_size: 1 });
	const server = (await new TestWaiter().from(pool)).server!;
	const statement = statements.addPrivate("k", Buffer.from("SELECT 1\0\0\0"), NO_FACTS, "", "");
	statements.retain(statement);
	const moving = { name: statement.name, description: null, asDescribed: false, catalogue: 0, dueAt: 0 };
	server.statements.arrive([moving], statements);
	statements.release(statement, 0);
	pool.onIdle(server);
	postgres.hold = true;
	pool.tick(server.usedAt + 10);
	await until(() => postgres.queries.length === 1, "the DEALLOCATE");
	expect(postgres.queries).toEqual([`DEALLOCATE ${statement.name}`]);
	const [a, b] = [new TestWaiter(), new TestWaiter()];
	void a.from(pool);
	void b.from(pool);
	expect([a.server, b.server]).toEqual([null, null]);
	postgres.answer();
	await until(() => a.server !== null, "the server");
	expect(a.server!.state).not.toBe(ServerState.Task);
	await Bun.sleep(5);
	expect(b.server).toBeNull();
	pool.shutDown();
});

test("a pool is due when it has something to do: at each tick while it is used, else for its checks and what gets old", async () => {
	using postgres = new ScriptedServer();
	const settings = { idle_healthcheck_interval: 30_000, idle_healthcheck_delay: 5_000 };
	const { pool } = testPool(postgres.port, { idle_timeout: 300 }, settings);
	const time = now();
	pool.tick(time);
	expect(pool.dueAt).toBe(time + 5_000);
	const waiter = new TestWaiter();
	const served = waiter.from(pool);
	expect(pool.dueAt).toBe(0);
	pool.tick(time);
	expect(pool.dueAt).toBe(0);
	const server = (await served).server!;
	pool.tick(time);
	expect(pool.dueAt).toBe(0);
	pool.onIdle(server);
	pool.tick(server.usedAt + 1);
	expect(pool.dueAt).toBe(server.usedAt + 300);
	pool.tick(server.usedAt + 301);
	expect([pool.all.size, pool.dueAt]).toEqual([0, 0]);
	pool.tick(server.usedAt + 302);
	expect(pool.dueAt).toBe(time + 5_000);
	pool.shutDown();
});
