// A host name that stands for another address: new connections go there, those to the old one end when nobody has them.

import { expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import { Names } from "../../src/net/names.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Stat } from "../../src/stats/counters.ts";
import { until } from "../support/until.ts";
import { ScriptedServer, TestWaiter, testPool } from "./support.ts";

/** A pool of `database.example`, which is at `addresses`. */
function moving(port: number, addresses: string[]) {
	const made = testPool(port, { pool_size: 3, host: "database.example" });
	const where = { addresses };
	const names = new Names(
		() => 2_000,
		() => {},
		async () => where.addresses,
	);
	const pool = new Pool(made.pool.spec, 0, new Float64Array(Stat.length), { ...made.context, names });
	const move = async (to: string[]) => {
		where.addresses = to;
		pool.tick(now() + 2_001);
		await until(() => names.known("database.example")?.[0] === to[0], "the new address");
		pool.tick(now());
	};
	return { pool, move };
}

test("connections to the old address are closed when idle and when they come back, and cancels still go there", async () => {
	using old = new ScriptedServer("127.0.0.1");
	using other = new ScriptedServer("127.0.0.2", old.port);
	const { pool, move } = moving(old.port, ["127.0.0.1"]);
	const [lent, idle] = [await new TestWaiter().from(pool), await new TestWaiter().from(pool)];
	pool.onIdle(idle.server!);
	expect([old.connections, pool.all.size]).toEqual([2, 2]);
	await move(["127.0.0.2"]);
	expect([[...pool.all], lent.server!.address]).toEqual([[lent.server!], "127.0.0.1"]);
	pool.cancel(lent.server!);
	await until(() => old.cancels + other.cancels > 0, "the CancelRequest");
	expect([old.cancels, other.cancels]).toEqual([1, 0]);
	const fresh = await new TestWaiter().from(pool);
	expect([fresh.server!.address, other.logins]).toEqual(["127.0.0.2", 1]);
	pool.onIdle(lent.server!);
	pool.onIdle(fresh.server!);
	expect([...pool.all]).toEqual([fresh.server!]);
	await until(() => old.connections === 0, "the last connection to the old address to end");
	pool.shutDown();
});

test("an address that takes no connection leaves it to the next one; one address fewer closes what was there only", async () => {
	using server = new ScriptedServer("127.0.0.2");
	const { pool, move } = moving(server.port, ["127.0.0.1", "127.0.0.2"]);
	const client = await new TestWaiter().from(pool);
	expect(client.server?.address).toBe("127.0.0.2");
	pool.onIdle(client.server!);
	await move(["127.0.0.2"]);
	expect(pool.all.size).toBe(1);
	pool.shutDown();
});
