// Servers that go to another worker whose clients wait: how many, and when the place of one that cannot move goes.

import { expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import type { PoolContext } from "../../src/pool/context.ts";
import { Permit } from "../../src/pool/permit.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Stat } from "../../src/stats/counters.ts";
import { until } from "../support/until.ts";
import { ScriptedServer, TestWaiter, testPool } from "./support.ts";

/** A worker's share of a pool, with two servers that are lent, and what it gives to worker 1, for whom one client waits. */
async function stage(postgres: ScriptedServer) {
	const made = testPool(postgres.port, {}, {}, 0, 2);
	const { ledger } = made;
	const given: (Parameters<PoolContext["giveServer"]>[2] | undefined)[] = [];
	const context: PoolContext = { ...made.context, giveServer: (_to, _slot, moving) => given.push(moving) };
	const pool = new Pool(made.pool.spec, 0, new Float64Array(Stat.length), context);
	const clients = [new TestWaiter(), new TestWaiter()];
	for (const client of clients) pool.take(client, now());
	await until(() => clients.every(({ server }) => server !== null), "two servers");
	const [first, second] = clients.map(({ server }) => server!);
	ledger.setWaiting(0, 1, 1, now() - 100);
	return { pool, ledger, given, first: first!, second: second! };
}

test("no more go than wait there, and what has arrived or come to nothing counts no more", async () => {
	using postgres = new ScriptedServer();
	const { pool, ledger, given, first, second } = await stage(postgres);
	pool.onIdle(first);
	pool.onIdle(second);
	expect(given).toHaveLength(1);
	expect([pool.all.size, ledger.comingTo(0, 1), ledger.used(0)]).toEqual([1, 1, 2]);
	// As worker 1 does, with a connection that is lost.
	const there = new Pool(pool.spec, 0, new Float64Array(Stat.length), {
		...testPool(1, {}, {}, 0, 2).context,
		ledger,
		worker: 1,
	});
	there.onServerGiven({ ...given[0]!, fd: -1 }, Permit.received(ledger, 0));
	await until(() => ledger.comingTo(0, 1) === 0, "the arrival");
	expect(ledger.used(0)).toBe(1);
	there.shutDown();
	pool.shutDown();
});

test.each(["ends it", "is frozen"])("the place of an encrypted one goes when PostgreSQL %s", async (how) => {
	using postgres = new ScriptedServer();
	const { pool, ledger, given, first } = await stage(postgres);
	first.stream.secured = { version: "TLSv1.3", cipher: "", names: null, endPoint: null };
	const began = performance.now();
	pool.onIdle(first);
	expect([pool.all.has(first), ledger.comingTo(0, 1), ledger.used(0)]).toEqual([false, 1, 2]);
	if (how === "ends it") {
		expect(given).toEqual([]);
		postgres.drop();
	}
	await until(() => given.length > 0, "its place");
	expect(given).toEqual([null]);
	// Its permit is the other worker's.
	expect(ledger.used(0)).toBe(how === "ends it" ? 1 : 2);
	expect(performance.now() - began > 900).toBe(how !== "ends it");
	pool.shutDown();
});
