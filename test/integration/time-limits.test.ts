// What ends, or is told of, because it takes too long: transactions, and waiting for a server.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { shardedOptions, startShards } from "./sharded.ts";
import { admin, backends, connect, one } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startShards();
	await cluster.primary.sql("CREATE TABLE slow (n int)", { user: "pgdog" });
});
afterAll(() => cluster?.stop());

const quiet = { workers: 2, default_pool_size: 2, min_pool_size: 0, idle_healthcheck_interval: 0 };

function files(general: Record<string, unknown>) {
	const { config, users } = simpleConfig(cluster.primary, { ...quiet, ...general });
	return withAdmin({ config, users });
}

function start(general: Record<string, unknown>): Promise<Proxy> {
	return startProxy(files(general));
}

/** What it was told before the connection ended, in answer to a request or unasked. */
async function lastWords(client: RawClient): Promise<string> {
	await client.closed;
	const error = client.received.findLast(({ code }) => code === "E");
	return error?.body.toString("latin1") ?? "";
}

test.each(["transaction", "session"])(
	"transaction_timeout ends what is open for longer, in %s mode",
	async (pooler_mode) => {
		await using proxy = await start({ transaction_timeout: 1_500, pooler_mode, default_pool_size: 8 });
		await using lively = await connect(proxy);
		await using idle = await connect(proxy);
		await using held = await connect(proxy);
		await using running = await connect(proxy);
		await using copying = await connect(proxy);
		await idle.query("BEGIN");
		await idle.query("INSERT INTO slow VALUES (1)");
		await held.query("BEGIN");
		running.send(f.query("SELECT 'running', pg_sleep(30)"));
		copying.send(f.query("COPY slow FROM STDIN"));
		const began = performance.now();
		// Each of its transactions is short.
		while (performance.now() - began < 3_500) {
			await lively.query("BEGIN");
			expect(await one(lively, "SELECT pg_sleep(0.2)")).toBe("");
			expect((await lively.query("COMMIT")).tags).toEqual(["COMMIT"]);
		}
		for (const client of [idle, held, running, copying])
			expect(await lastWords(client)).toMatch(
				/SFATAL\0.*C25P04\0.*Mterminating connection due to transaction timeout\0/,
			);
		// The query was cancelled, and nothing stays of the transactions.
		await until(async () => (await backends(cluster)).every(({ state }) => state === "idle"), "the servers to be idle");
		expect(await one(lively, "SELECT count(*) FROM slow")).toBe("0");
		await proxy.waitForLog(/disconnected from database "pgdog": transaction_timeout/);
	},
);

test("transaction_timeout holds for a client of several shards", async () => {
	await using proxy = await startProxy(shardedOptions(cluster, { general: { transaction_timeout: 500 } }));
	await using idle = await connect(proxy);
	await idle.query("BEGIN");
	await idle.query("/* pgdog_shard: 1 */ SELECT 1");
	await using running = await connect(proxy);
	running.send(f.query("/* pgdog_shard: 2 */ SELECT pg_sleep(30)"));
	for (const client of [idle, running]) expect(await lastWords(client)).toContain("C25P04");
	await until(async () => (await backends(cluster)).every(({ state }) => state === "idle"), "the servers to be idle");
});

test("a reload brings transaction_timeout to a transaction that is open, from then on, and takes it away", async () => {
	await using proxy = await start({});
	await using console = await admin(proxy);
	await using client = await connect(proxy);
	await client.query("BEGIN");
	await client.query("SELECT 1");
	await Bun.sleep(2_200);
	proxy.writeConfig(files({ transaction_timeout: 2_000 }).config);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await one(client, "SELECT 'still here'")).toBe("still here");
	proxy.writeConfig(files({}).config);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	await Bun.sleep(2_500);
	expect(await one(client, "SELECT 'still here'")).toBe("still here");
	proxy.writeConfig(files({ transaction_timeout: 2_000 }).config);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await lastWords(client)).toContain("C25P04");
});

test("query_wait_notify: a client that queues is told once for each wait, behind what it was answered before", async () => {
	await using proxy = await start({ query_wait_notify: 700, default_pool_size: 1, workers: 1 });
	await using waiting = await connect(proxy);
	await using impatient = await connect(proxy);
	await using holder = await connect(proxy);
	expect((await waiting.query("SELECT 1")).notices).toEqual([]);
	for (let round = 0; round < 2; round++) {
		await holder.query("BEGIN");
		await holder.query("SELECT 1");
		// The first has an answer before it waits, and what waits is a batch.
		waiting.send(f.parse("SELECT 'served'"), f.bind(), f.execute(), f.sync());
		impatient.send(f.query("SELECT 1"));
		await Bun.sleep(1_500);
		const areTold = () => [waiting, impatient].every(({ received }) => received.at(-1)?.code === "N");
		await until(areTold, "both to be told");
		await holder.query("COMMIT");
		const messages = await waiting.until("Z");
		expect(messages.map(({ code }) => code).join("")).toBe("N12DCZ");
		const text = messages[0]!.body.toString();
		expect(text).toContain("SNOTICE\0");
		expect(text).toContain("No server connection available in postgres backend, client being queued");
		expect((await impatient.until("Z")).map(({ code }) => code).join("")).toBe("NTDCZ");
	}
	// Who waits for less is told nothing.
	const answer = holder.query("SELECT pg_sleep(0.1)");
	expect((await waiting.query("SELECT 1")).notices).toEqual([]);
	await answer;
});

test("query_wait_notify: a client of several shards is told of each that it waits for, behind what others have answered", async () => {
	await using proxy = await startProxy(shardedOptions(cluster, { general: { query_wait_notify: 300 } }));
	await using waiting = await connect(proxy);
	await using holder = await connect(proxy);
	await waiting.query("SELECT 1");
	await holder.query("BEGIN");
	await holder.query("/* pgdog_shard: 1 */ SELECT 1");
	waiting.send(
		f.parse("/* pgdog_shard: 0 */ SELECT 'served'"),
		f.bind(),
		f.execute(),
		f.parse("/* pgdog_shard: 1 */ SELECT 'late'"),
		f.bind(),
		f.execute(),
		f.sync(),
	);
	await waiting.until("N");
	await holder.query("COMMIT");
	expect((await waiting.until("Z")).map(({ code }) => code).join("")).toBe("12DCZ");
	const told = waiting.received.map(({ code }) => code).join("");
	expect(told.slice(told.indexOf("1"))).toBe("12DCN12DCZ");
});

test("query_wait_notify under PAUSE", async () => {
	await using proxy = await start({ query_wait_notify: 200 });
	await using console = await admin(proxy);
	await using client = await connect(proxy);
	await console.query("PAUSE");
	client.send(f.query("SELECT 1"));
	expect((await client.next()).code).toBe("N");
	await console.query("RESUME");
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("TDCZ");
});
