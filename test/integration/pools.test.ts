// How server connections are shared: the three modes, the limit of a pool, the order of waiting, and each of the timeouts.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { errorFields } from "../support/message.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, backends, connect, one, show, untilBackends, untilRunning, usedBackends } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

/** One worker unless said otherwise; nothing but the pool's own connections belongs to the role pgdog. */
async function start(general: Record<string, unknown> = {}, database: Record<string, unknown> = {}): Promise<Proxy> {
	await untilBackends(cluster, 0);
	const settings = { workers: 1, default_pool_size: 2, min_pool_size: 0, ...general };
	const simple = simpleConfig(cluster.primary, settings, database);
	return startProxy(withAdmin(simple));
}

const pid = (client: RawClient) => one(client, "SELECT pg_backend_pid()");

test("transaction mode: a server is kept for a transaction and shared between transactions", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	const server = await pid(a);
	expect(await pid(b)).toBe(server);
	await a.query("BEGIN");
	const waiting = pid(b);
	expect(await pid(a)).toBe(server);
	expect((await backends(cluster)).length).toBe(1);
	await a.query("COMMIT");
	expect(await waiting).toBe(server);
});

test("session mode: a server is kept as long as the client stays, and is clean for the next one", async () => {
	await using proxy = await start({ default_pool_size: 2, pooler_mode: "session" });
	const a = await connect(proxy);
	const b = await connect(proxy);
	const ofA = await pid(a);
	expect(await pid(b)).not.toBe(ofA);
	expect(await pid(a)).toBe(ofA);
	// All of a session works: nothing is shared.
	await a.query("SET work_mem = '11MB'; CREATE TEMP TABLE mine AS SELECT 1 AS x; LISTEN ch; PREPARE p AS SELECT 7");
	await a.query("DECLARE h CURSOR WITH HOLD FOR SELECT generate_series(1, 3)");
	expect((await a.query("EXECUTE p")).rows).toEqual([["7"]]);
	expect((await a.query("FETCH 2 FROM h")).rows).toEqual([["1"], ["2"]]);
	a.send(f.parse("SELECT 'named'", "n"), f.sync());
	await a.until("Z");
	a.send(f.bind({ statement: "n" }), f.execute(), f.sync());
	expect((await a.result()).rows).toEqual([["named"]]);
	a.send(f.terminate());
	a.close();
	await using c = await connect(proxy);
	expect(await pid(c)).toBe(ofA);
	expect(await one(c, "SHOW work_mem")).toBe("4MB");
	expect((await c.query("SELECT * FROM mine")).errors[0]?.C).toBe("42P01");
	expect((await c.query("EXECUTE p")).errors[0]?.C).toBe("26000");
	expect((await c.query("FETCH 1 FROM h")).errors[0]?.C).toBe("34000");
	b.close();
});

test("statement mode: each statement alone; a transaction block is refused, and autocommit goes on", async () => {
	await using proxy = await start({ default_pool_size: 1, pooler_mode: "statement" });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	expect(await one(a, "SELECT 1")).toBe("1");
	const refused = await a.query("BEGIN");
	expect(refused.errors[0]).toMatchObject({ S: "ERROR", C: "58000" });
	expect(refused.status).toBe("I");
	const extended = await a.extended("START TRANSACTION");
	expect(extended.errors[0]).toMatchObject({ C: "58000" });
	expect(extended.status).toBe("I");
	expect(await one(a, "SELECT 2")).toBe("2");
	expect(await one(b, "SELECT 3")).toBe("3");
	expect((await a.extended("SELECT $1::int", ["4"])).rows).toEqual([["4"]]);
});

test("a user's settings win over the database's, which win over the general ones", async () => {
	await using proxy = await startProxy({
		config: {
			general: { workers: 1, default_pool_size: 1, min_pool_size: 0 },
			databases: [
				{ name: "pgdog", host: "127.0.0.1", port: cluster.port, pool_size: 2, pooler_mode: "session" },
				{ name: "other", host: "127.0.0.1", port: cluster.port, database_name: "pgdog", statement_timeout: 50 },
			],
		},
		users: [
			{ name: "pgdog", database: "pgdog", password: "pgdog", pooler_mode: "transaction", lock_timeout: 77 },
			{ name: "pgdog", database: "other", password: "pgdog", read_only: true },
		],
	});
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("BEGIN");
	expect(await pid(b)).not.toBe(await pid(a));
	expect(await one(b, "SHOW lock_timeout")).toBe("77ms");
	await using other = await connect(proxy, { database: "other" });
	expect((await other.query("SELECT pg_sleep(5)")).errors[0]?.C).toBe("57014");
	expect((await other.query("CREATE TABLE no (a int)")).errors[0]?.C).toBe("25006");
});

test("clients get their turn in the order in which they asked", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	await using holder = await connect(proxy);
	const clients = await Promise.all(Array.from({ length: 10 }, () => connect(proxy)));
	await holder.query("CREATE TEMP SEQUENCE s").catch(() => undefined);
	await cluster.primary.sql("DROP SEQUENCE IF EXISTS turns; CREATE SEQUENCE turns; GRANT ALL ON turns TO pgdog");
	await holder.query("BEGIN");
	const turns: Promise<string | null>[] = [];
	for (const client of clients) {
		turns.push(one(client, "SELECT nextval('turns')"));
		// One after the other into the proxy's event loop: another connection's round trip lies between.
		await holder.query("SELECT 1");
	}
	await holder.query("COMMIT");
	expect(await Promise.all(turns)).toEqual(clients.map((_, i) => String(i + 1)));
	for (const client of clients) client.close();
});

test("the pool never grows over its size, and grows only when it must", async () => {
	await using proxy = await start({ default_pool_size: 3 });
	const clients = [await connect(proxy)];
	// The settings to welcome them with are known now: nobody else needs a server before it asks something.
	clients.push(...(await Promise.all(Array.from({ length: 29 }, () => connect(proxy)))));
	for (const client of clients) await client.query("SELECT 1");
	expect((await backends(cluster)).length).toBe(1);
	let most = 0;
	const look = async () => {
		most = Math.max(most, await usedBackends(cluster));
	};
	let isOver = false;
	const work = clients.map(async (client) => {
		while (!isOver) expect((await client.query("SELECT pg_sleep(0.02)")).tags[0]).toBe("SELECT 1");
	});
	await until(async () => {
		await look();
		return most >= 3;
	}, "the pool to grow");
	for (let i = 0; i < 5; i++) await look();
	isOver = true;
	await Promise.all(work);
	expect(most).toBe(3);
	for (const client of clients) client.close();
});

test("checkout_timeout: the client is told, and dropped or kept as client_connection_recovery says", async () => {
	for (const recovery of ["drop", "recover"]) {
		await using proxy = await start({
			default_pool_size: 1,
			checkout_timeout: 200,
			client_connection_recovery: recovery,
		});
		await using holder = await connect(proxy);
		await using waiter = await connect(proxy);
		await holder.query("BEGIN");
		const started = performance.now();
		const { errors, status } = await waiter.query("SELECT 1");
		const took = performance.now() - started;
		expect(took).toBeGreaterThan(190);
		expect(took).toBeLessThan(2_000);
		const severity = recovery === "drop" ? "FATAL" : "ERROR";
		expect(errors).toEqual([
			{
				S: severity,
				V: severity,
				C: "53300",
				M: "checkout timeout",
				D: "1 of 1 server connections of this pool are in use",
				H: expect.stringContaining("default_pool_size") as unknown as string,
			},
		]);
		expect(status).toBe(recovery === "drop" ? "" : "I");
		if (recovery === "drop") continue;
		// A pipeline is refused as a whole, with one ReadyForQuery for each Sync.
		waiter.send(f.parse("SELECT 1"), f.bind(), f.execute(), f.parse("SELECT 2"), f.bind(), f.execute(), f.sync());
		const pipeline = await waiter.result();
		expect(pipeline.messages.map(({ code }) => code).join("")).toBe("EZ");
		await holder.query("COMMIT");
		expect(await one(waiter, "SELECT 'again'")).toBe("again");
	}
});

// With "drop" a client was told ERROR, which drivers go on after, and disconnected.
for (const shards of [1, 2]) {
	test(`whoever is refused a server is told FATAL and disconnected, or ERROR and stays, with ${shards} shards`, async () => {
		for (const recovery of ["drop", "recover"] as const) {
			const name = "pgdog";
			const members = Array.from({ length: shards }, (_, shard) => [
				{ name, shard, host: cluster.primary.host, port: cluster.primary.port, role: "primary" },
				{ name, shard, host: "127.0.0.1", port: freePort(), role: "replica" },
			]);
			const general = {
				workers: 1,
				read_write_split: "exclude_primary",
				min_pool_size: 0,
				checkout_timeout: 500,
				client_connection_recovery: recovery,
			};
			const { users } = simpleConfig(cluster.primary);
			await using proxy = await startProxy({ config: { general, databases: members.flat() }, users });
			// The first finds out that the replica is down; the next are told so, before they wait for anything.
			for (let i = 0; i < 3; i++) {
				await using client = await connect(proxy);
				client.send(f.query("SELECT 1"));
				const answer = await Promise.race([client.closed, client.until("Z").catch(() => client.closed)]);
				const severities = answer.filter(({ code }) => code === "E").map(({ body }) => errorFields(body).V);
				expect(severities).toEqual([client.ended ? "FATAL" : "ERROR"]);
				if (i === 0) expect(client.ended).toBe(recovery === "drop");
				if (!client.ended) expect(await one(client, "/* pgdog_role: primary */ SELECT 'stays'")).toBe("stays");
			}
		}
	});
}

test("a waiter that gives up leaves the queue to the others", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	await using holder = await connect(proxy);
	const leaver = await connect(proxy);
	await using stays = await connect(proxy);
	await holder.query("BEGIN");
	leaver.send(f.query("CREATE TABLE must_not_be (a int)"));
	await holder.query("SELECT 1");
	const answer = one(stays, "SELECT 'served'");
	leaver.reset();
	await proxy.waitForLog(/disconnected/);
	await holder.query("COMMIT");
	expect(await answer).toBe("served");
	expect(await cluster.primary.sql("SELECT to_regclass('must_not_be') AS t")).toEqual([{ t: null }]);
});

test("min_pool_size is opened at the start and kept, idle_timeout closes what is above it", async () => {
	await using proxy = await start({ default_pool_size: 5, min_pool_size: 2, idle_timeout: 200 });
	await untilBackends(cluster, 2);
	const clients = await Promise.all(Array.from({ length: 5 }, () => connect(proxy)));
	await Promise.all(clients.map((client) => client.query("BEGIN")));
	expect((await backends(cluster)).length).toBe(5);
	await Promise.all(clients.map((client) => client.query("COMMIT")));
	await untilBackends(cluster, 2);
	await proxy.waitForLog(/idle_timeout/);
	// The minimum comes back when a server is lost.
	const lost = (await backends(cluster)).map(({ pid }) => pid);
	await cluster.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgdog'");
	await until(async () => {
		const pids = (await backends(cluster)).map(({ pid }) => pid);
		return pids.length === 2 && !pids.some((pid) => lost.includes(pid));
	}, "the minimum to be back");
	for (const client of clients) client.close();
});

test("server_lifetime replaces old servers, but none in the middle of a transaction", async () => {
	await using proxy = await start({ default_pool_size: 1, server_lifetime: 300, idle_timeout: 60_000 });
	await using client = await connect(proxy);
	await client.query("BEGIN");
	const first = await pid(client);
	await Bun.sleep(500);
	expect(await pid(client)).toBe(first);
	await client.query("COMMIT");
	expect(await pid(client)).not.toBe(first);
});

test("query_timeout ends the query, its server and its client", async () => {
	await using proxy = await start({ default_pool_size: 1, query_timeout: 800 });
	await using client = await connect(proxy);
	const { errors, status } = await client.query("SELECT pg_sleep(20)");
	expect(errors[0]).toMatchObject({ S: "FATAL", C: "58000", M: "query timeout" });
	expect(status).toBe("");
	await until(
		async () => (await backends(cluster)).every(({ query }) => !query.includes("pg_sleep")),
		"the query to end",
	);
	await using next = await connect(proxy);
	expect(await one(next, "SELECT 1")).toBe("1");
	// Idle in a transaction is no query.
	await next.query("BEGIN");
	await Bun.sleep(1_000);
	expect(await one(next, "SELECT 2")).toBe("2");
});

test("client_idle_timeout ends idle clients with 57P05, not busy ones", async () => {
	await using proxy = await start({ client_idle_timeout: 300 });
	await using idle = await connect(proxy);
	await using busy = await connect(proxy);
	const slow = busy.query("SELECT pg_sleep(0.8)");
	const [error] = (await idle.closed).filter(({ code }) => code === "E");
	expect(error?.body.toString()).toContain("57P05");
	expect(error?.body.toString()).toContain("client_idle_timeout of 300ms expired");
	expect((await slow).tags).toEqual(["SELECT 1"]);
});

test("client_idle_in_transaction_timeout ends the client and rolls its transaction back", async () => {
	await using proxy = await start({ default_pool_size: 1, client_idle_in_transaction_timeout: 300 });
	await cluster.primary.sql("CREATE TABLE idle_tx (a int); GRANT ALL ON idle_tx TO pgdog");
	await using idle = await connect(proxy);
	await using other = await connect(proxy);
	await idle.query("BEGIN");
	await idle.query("INSERT INTO idle_tx VALUES (1)");
	const [error] = (await idle.closed).filter(({ code }) => code === "E");
	expect(error?.body.toString()).toContain("57P05");
	expect(error?.body.toString()).toContain("disconnecting idle in transaction client");
	expect(await one(other, "SELECT count(*) FROM idle_tx")).toBe("0");
	// Not in a transaction: as idle as it likes.
	await Bun.sleep(500);
	expect(await one(other, "SELECT 1")).toBe("1");
});

test("client_login_timeout ends who does not log in, without a word", async () => {
	await using proxy = await start({ client_login_timeout: 1_000 });
	const silent = await RawClient.open({ port: proxy.port });
	const half = await RawClient.open({ port: proxy.port });
	half.send(f.startupMessage({ user: "pgdog", database: "pgdog" }));
	expect(await silent.closed).toEqual([]);
	expect((await half.closed).map(({ code }) => code)).toEqual(["R"]);
});

test("servers that died while idle are noticed, and no client sees it", async () => {
	await using proxy = await start({ default_pool_size: 4, min_pool_size: 4, workers: 2 });
	await untilBackends(cluster, 4);
	const clients = await Promise.all(Array.from({ length: 8 }, () => connect(proxy)));
	await using console = await admin(proxy);
	const known = async () => (await show(console, "SHOW SERVERS")).map(({ remote_pid }) => Number(remote_pid));
	for (let round = 0; round < 3; round++) {
		const dead = (await backends(cluster)).map(({ pid }) => pid);
		await cluster.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgdog'");
		await until(async () => (await backends(cluster)).every(({ pid }) => !dead.includes(pid)), "the backends to end");
		// What is asked of one before the proxy has read of its end is lost with it.
		await until(async () => (await known()).every((pid) => !dead.includes(pid)), "the proxy to know");
		const answers = await Promise.all(clients.map((client) => one(client, "SELECT 'alive'")));
		expect(answers).toEqual(clients.map(() => "alive"));
	}
	for (const client of clients) client.close();
});

test("a server that dies in the middle of a transaction: its client is told, the others go on", async () => {
	await using proxy = await start({ default_pool_size: 2 });
	await using victim = await connect(proxy);
	await using other = await connect(proxy);
	await victim.query("BEGIN");
	const server = await pid(victim);
	await cluster.primary.sql(`SELECT pg_terminate_backend(${server})`);
	const error = (await victim.closed).find(({ code }) => code === "E");
	expect(error?.body.toString()).toContain("57P01");
	expect(await one(other, "SELECT 1")).toBe("1");
});

test("PostgreSQL restarts: clients that wait get its new connections", async () => {
	await using proxy = await start({ default_pool_size: 2, checkout_timeout: 10_000 });
	await using client = await connect(proxy);
	expect(await one(client, "SELECT 1")).toBe("1");
	await cluster.primary.stop("fast");
	await proxy.waitForLog(/closing server connection/);
	const waiting = one(client, "SELECT 'after the restart'");
	await proxy.waitForLog(/server connection failed/);
	await cluster.primary.start();
	expect(await waiting).toBe("after the restart");
});

test("the answer to a client that reads slowly does not stop the next client on the same server", async () => {
	await using proxy = await start({ default_pool_size: 1, checkout_timeout: 20_000 });
	await using slow = await connect(proxy);
	await using next = await connect(proxy);
	// Sizes around what the kernel's buffers hold: in some of them the last piece with ReadyForQuery has to be queued.
	for (let kilobytes = 256; kilobytes <= 8192; kilobytes += 512) {
		slow.pause();
		slow.send(f.query(`SELECT repeat('x', ${kilobytes} * 1024)`));
		await untilRunning(cluster, "never", 0);
		slow.resume();
		expect((await slow.result()).rows[0]?.[0]?.length).toBe(kilobytes * 1024);
		expect(await one(next, "SELECT 'next'")).toBe("next");
	}
});

// Each worker had to ask a server for itself, by each application_name anew: with the pool at work, log-ins ran into checkout_timeout.
test("a log-in needs no server: the pool is at work, other workers know, RECONNECT came between", async () => {
	await using proxy = await start({ workers: 2, default_pool_size: 1, checkout_timeout: 400 });
	await using holder = await connect(proxy);
	await holder.query("BEGIN");
	const login = async (parameters: Record<string, string>) => {
		await using client = await connect(proxy, { parameters });
		return client.parameters;
	};
	const straight = holder.parameters;
	for (let i = 0; i < 8; i++) {
		const told = await login({ application_name: `worker ${i}`, client_encoding: "UTF8" });
		expect(told).toEqual({ ...straight, application_name: `worker ${i}` });
	}
	await using console = await admin(proxy);
	await console.query("RECONNECT");
	expect(await login({})).toEqual(straight);
	// Its settings are unheard of, and what they come to is told with its first answer.
	await using guessed = await connect(proxy, { parameters: { timezone: "utc" } });
	const answer = guessed.query("SHOW timezone");
	await holder.query("COMMIT");
	expect((await answer).rows).toEqual([["UTC"]]);
	expect(guessed.parameters.TimeZone).toBe("UTC");
});
