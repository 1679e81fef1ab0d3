// The admin database of the running executable: what it tells of both workers, and what its commands do to them.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { Client } from "pg";
import postgres from "postgres";
import { errorFields } from "../support/message.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, backends, connect, connectToBothWorkers, one, show, untilBackends } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
beforeAll(async () => {
	cluster = await startPostgres();
	const simple = simpleConfig(cluster.primary, { workers: 2, default_pool_size: 3, min_pool_size: 0 });
	proxy = await startProxy({ ...simple, config: { ...(simple.config as object), admin: { password: "secret" } } });
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

test("only the admin user with its password gets in", async () => {
	const attempt = (user: string, password: string) =>
		RawClient.connect({ port: proxy.port, user, password, database: "admin" });
	await rejects(attempt("admin", "wrong"), "28000");
	await rejects(attempt("pgdog", "pgdog"), "28000");
	await rejects(connect(proxy, { user: "admin", password: "secret" }), "28000");
});

test("SHOW CLIENTS, SERVERS, POOLS and STATS are sums over both workers", async () => {
	await using console = await admin(proxy, "secret");
	const both = await connectToBothWorkers(proxy, 2);
	const clients = both.flat();
	await using ending = new AsyncDisposableStack();
	for (const client of clients) ending.use(client);
	const counted = async () => Number((await show(console, "SHOW STATS"))[0]?.total_query_count);
	const before = await counted();
	for (const client of clients) expect(await one(client, "SELECT 1")).toBe("1");
	await clients[0]?.query("BEGIN");
	// The last one is counted just after its answer has gone out.
	await until(async () => (await counted()) === before + 5, "five queries");
	const ids = new Set(clients.map(({ backendPid }) => String(backendPid)));
	const told = (await show(console, "SHOW CLIENTS")).filter((row) => row.user === "pgdog");
	expect(told.filter((row) => ids.has(String(row.id))).length).toBe(4);
	// PostgreSQL knows of a connection before it has let us in.
	await until(async () => {
		const servers = (await show(console, "SHOW SERVERS")).map((row) => String(row.remote_pid));
		const pids = (await backends(cluster)).map(({ pid }) => String(pid));
		return servers.sort().join() === pids.sort().join();
	}, "the servers that PostgreSQL knows of");
	expect((await show(console, "SHOW POOLS")).length).toBe(1);
	for (const client of clients) await client.query("SELECT 2");
	await until(async () => (await counted()) === before + 9, "four more queries");
});

test("PAUSE lets transactions end and makes others wait, RESUME serves them", async () => {
	await using console = await admin(proxy, "secret");
	const [[a], [b]] = await connectToBothWorkers(proxy, 1);
	if (!a || !b) throw new Error("unreachable");
	await a.query("BEGIN");
	await show(console, "PAUSE");
	expect(await one(a, "SELECT 'in the block'")).toBe("in the block");
	await a.query("COMMIT");
	b.send(f.query("SELECT 'resumed'"));
	a.send(f.query("SELECT 'resumed'"));
	await untilBackends(cluster, 0);
	expect([a.pending(), b.pending()]).toEqual([[], []]);
	await show(console, "RESUME");
	expect((await a.result()).rows).toEqual([["resumed"]]);
	expect((await b.result()).rows).toEqual([["resumed"]]);
	a.close();
	b.close();
});

// One worker had heard of it when it was answered, and the other had not.
test("PAUSE and RESUME are answered when all workers do so", async () => {
	await using console = await admin(proxy, "secret");
	const [[a], [b]] = await connectToBothWorkers(proxy, 1);
	if (!a || !b) throw new Error("unreachable");
	for (let round = 0; round < 10; round++) {
		await show(console, "PAUSE");
		for (const client of [a, b]) client.send(f.query("SELECT 'resumed'"));
		const waiting = async () => (await show(console, "SHOW CLIENTS")).filter(({ state }) => state === "waiting").length;
		await until(async () => (await waiting()) === 2, "both to wait");
		await show(console, "RESUME");
		for (const client of [a, b]) expect((await client.result()).rows).toEqual([["resumed"]]);
	}
	a.close();
	b.close();
});

// The new server was written to as soon as it was there.
test("PAUSE, RELOAD with a server in another's place, RESUME: nobody gets to the new one before RESUME", async () => {
	const config = (host: string) => {
		const simple = simpleConfig({ ...cluster.primary, host } as typeof cluster.primary, {
			workers: 2,
			min_pool_size: 0,
		});
		return { ...(simple.config as object), admin: { password: "secret" } };
	};
	await using own = await startProxy({ ...simpleConfig(cluster.primary), config: config("127.0.0.1") });
	await using console = await admin(own, "secret");
	await using client = await connect(own);
	expect(await one(client, "SELECT 1")).toBe("1");
	const pools = () => show(console, "SHOW POOLS");
	await show(console, "PAUSE");
	await until(async () => (await pools())[0]?.sv_total === "0", "its idle server to be closed");
	const waits = one(client, "SELECT 'resumed'");
	own.writeConfig(config("localhost"));
	await show(console, "RELOAD");
	await until(
		async () => (await pools()).some(({ addr, cl_waiting }) => addr === "localhost" && cl_waiting === "1"),
		"the client to wait for the new one",
	);
	expect((await pools()).map(({ addr, paused, sv_total }) => [addr, paused, sv_total])).toEqual([
		["localhost", "t", "0"],
	]);
	await show(console, "RESUME");
	expect(await waits).toBe("resumed");
	expect((await pools()).map(({ paused }) => paused)).toEqual(["f"]);
});

test("RECONNECT replaces every server and no client", async () => {
	await using console = await admin(proxy, "secret");
	await using client = await connect(proxy);
	const pid = await one(client, "SELECT pg_backend_pid()");
	await show(console, "RECONNECT");
	await until(async () => (await one(client, "SELECT pg_backend_pid()")) !== pid, "another server");
});

test("RELOAD says what is wrong and changes nothing, SHOW CONFIG tells what is in force", async () => {
	await using console = await admin(proxy, "secret");
	const size = async () => (await show(console, "SHOW CONFIG")).find((row) => row.name === "default_pool_size")?.value;
	expect(await size()).toBe("3");
	const simple = simpleConfig(cluster.primary, { workers: 2, default_pool_size: 5, min_pool_size: 0 });
	proxy.writeConfig("[general]\ndefault_pool_size = 0\n");
	const refused = await console.query("RELOAD");
	expect(refused.errors[0]?.S).toBe("ERROR");
	expect(await size()).toBe("3");
	proxy.writeConfig({ ...(simple.config as object), admin: { password: "secret" } });
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await size()).toBe("5");
});

test("drivers ask it as they ask a database", async () => {
	const url = proxy.url({ user: "admin", password: "secret", database: "admin" });
	const pg = new Client(url);
	await pg.connect();
	expect((await pg.query("SHOW VERSION")).rows.length).toBe(1);
	await rejects(pg.query("NONSENSE"));
	expect((await pg.query("SHOW POOLS")).rows.length).toBe(1);
	await pg.end();
	const sql = postgres(url, { max: 1, fetch_types: false });
	expect((await sql.unsafe("SHOW CONFIG")).length).toBeGreaterThan(0);
	await sql.end();
	const bun = new SQL({ url, max: 1 });
	expect((await bun.unsafe("SHOW SERVERS")).length).toBeGreaterThanOrEqual(0);
	await bun.end();
});

test("an admin database with PgBouncer's name answers in its shape, by both protocols", async () => {
	const { config, users } = simpleConfig(cluster.primary, { workers: 2, min_pool_size: 0 });
	const bouncer = { name: "pgbouncer", password: "secret" };
	await using named = await startProxy({ users, config: { ...(config as object), admin: bouncer } });
	await using client = await connect(named);
	expect(await one(client, "SELECT 1")).toBe("1");
	await using console = await connect(named, { user: "admin", password: "secret", database: "pgbouncer" });
	// What servers do now is counted by a worker's next tick.
	await until(async () => (await show(console, "SHOW POOLS"))[0]?.sv_idle === "1", "an idle server");
	const [pool] = await show(console, "SHOW POOLS");
	expect(pool).toMatchObject({ database: "pgdog", user: "pgdog", cl_active: "1", sv_login: "0", maxwait: "0" });
	const sql = postgres(named.url({ user: "admin", password: "secret", database: "pgbouncer" }), {
		max: 1,
		fetch_types: false,
	});
	expect(await sql`SHOW STATS_TOTALS`).toMatchObject([{ database: "pgdog", query_count: "1" }]);
	expect((await sql`SHOW CONFIG`)[0]).toHaveProperty("key");
	await sql.end();
});

testWithTool("psql", "psql shows its tables, and SHUTDOWN stops the proxy", async (psql) => {
	const env = {
		PGHOST: "127.0.0.1",
		PGPORT: String(proxy.port),
		PGUSER: "admin",
		PGPASSWORD: "secret",
		PGDATABASE: "admin",
	};
	for (const what of ["CLIENTS", "SERVERS", "POOLS", "STATS", "CONFIG", "VERSION"]) {
		const { code, stdout, stderr } = await runTool([psql, "-Xc", `SHOW ${what}`], env);
		expect([what, code, stderr]).toEqual([what, 0, ""]);
		expect(stdout).toMatch(/\(\d+ rows?\)/);
	}
	expect((await runTool([psql, "-XAtc", "SHOW VERSION"], env)).stdout).toContain("PgDog v");
	await using console = await admin(proxy, "secret");
	expect((await runTool([psql, "-Xc", "SHUTDOWN"], env)).code).toBe(0);
	// Whoever is disconnected is told so, the admin too.
	const last = (await console.closed).at(-1);
	expect(errorFields(last!.body)).toMatchObject({ V: "FATAL", C: "57P01" });
	expect(await proxy.exited).toBe(0);
});
