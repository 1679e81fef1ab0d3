// The admin database as real drivers see it: nothing but their own queries, over TCP.

import { expect, test } from "bun:test";
import { SQL } from "bun";
import pg from "pg";
import postgres from "postgres";
import { showTime } from "../../src/admin/command.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { listen, ROUTE, VERSION } from "./support.ts";

test("pg: simple and prepared queries, an error, and the session goes on", async () => {
	using admin = listen();
	const client = new pg.Client({
		host: "127.0.0.1",
		port: admin.port,
		user: "admin",
		database: "admin",
		application_name: "monitor",
	});
	await client.connect();
	const clients = await client.query("SHOW CLIENTS");
	expect(clients.rows[0]).toMatchObject({ id: "65537", query_time: 12.346, locked: true, application_name: "web ö" });
	const prepared = { name: "pools", text: "SHOW POOLS" };
	expect((await client.query(prepared)).rows).toHaveLength(3);
	expect((await client.query(prepared)).rows[0].paused).toBe(false);
	expect(await client.query("NONSENSE").catch((error) => error.code)).toBe("08P01");
	expect(await client.query({ name: "n", text: "NONSENSE" }).catch((error) => error.code)).toBe("08P01");
	expect(await client.query("SHOW CLIENTS", ["x"]).catch((error) => error.code)).toBe("0A000");
	const routes = await client.query({ name: "routes", text: "SHOW ROUTES" });
	expect(routes.command).toBe("SHOW");
	expect(routes.rows).toMatchObject([
		{ ...ROUTE, time: showTime(ROUTE.time), client_id: "65537", wait: 0.123 },
		{ server: "", error: "no primary" },
	]);
	const replication = await client.query("SHOW REPLICATION");
	expect(replication.rows[0]).toMatchObject({ id: "10", replica_lag: null, pg_is_in_recovery: null });
	await client.query("BEGIN");
	expect((await client.query("PAUSE alice shop")).command).toBe("PAUSE");
	await client.query("COMMIT");
	expect((await client.query("SELECT 1 AS one; SHOW VERSION")) as unknown).toMatchObject([
		{ rows: [{ one: 1 }] },
		{ rows: [{ version: VERSION }] },
	]);
	expect(admin.source.orders).toEqual(["pause alice shop"]);
	await client.end();
	expect(admin.bugs).toEqual([]);
});

test("pg: a pool, with queries at once", async () => {
	using admin = listen();
	const pool = new pg.Pool({ host: "127.0.0.1", port: admin.port, user: "admin", database: "admin", max: 4 });
	const all = await Promise.all(
		Array.from({ length: 40 }, (_, i) => pool.query(i % 2 === 0 ? "SHOW SERVERS" : "SHOW STATS")),
	);
	expect(all.map(({ rows }) => rows.length)).toEqual(Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? 1 : 3)));
	await pool.end();
	expect(admin.bugs).toEqual([]);
});

test("postgres.js: pipelined and prepared, with its look-up of array types", async () => {
	using admin = listen();
	const notices: unknown[] = [];
	const sql = postgres({
		host: "127.0.0.1",
		port: admin.port,
		user: "admin",
		database: "admin",
		max: 1,
		onnotice: (n) => notices.push(n),
	});
	const [pools, stats, version, again] = await Promise.all([
		sql`SHOW POOLS`,
		sql`SHOW STATS`,
		sql`SHOW VERSION`,
		sql`SHOW POOLS`,
	]);
	expect(pools).toHaveLength(3);
	expect(again[0]).toEqual(pools[0]!);
	expect(stats[0]!.total_query_time).toBe(1);
	expect(version[0]!.version).toBe(VERSION);
	expect(await sql`SHOW DATABASES`.catch((error) => error.code)).toBe("0A000");
	const routes = await sql`SHOW ROUTES 1`;
	expect([...routes]).toEqual([
		expect.objectContaining({ ...ROUTE, time: showTime(ROUTE.time), client_id: "65537", wait: 0.123 }),
	]);
	expect((await sql`BAN 11`).command).toBe("BAN");
	expect(await sql`BAN 99`.catch((error) => error.code)).toBe("42704");
	expect((await sql`RELOAD`).command).toBe("RELOAD");
	expect(await sql`SHOW CLIENTS ${"x"}`.catch((error) => error.code)).toBe("0A000");
	const first = await sql.begin(async (tx) => (await tx`SHOW CLIENTS`)[0]!);
	expect(first.locked).toBe(true);
	const rows: number[] = [];
	// With larger steps it would drop the last one: it takes it from the number in the tag, and SHOW has none (nor in PostgreSQL).
	await sql`SHOW POOLS`.cursor(1, (some) => {
		rows.push(some.length);
	});
	expect(rows).toEqual([1, 1, 1]);
	expect((await sql.unsafe("SELECT 1 AS one; SELECT 2 AS two")) as unknown).toMatchObject([[{ one: 1 }], [{ two: 2 }]]);
	await sql.end();
	expect(notices).toEqual([]);
	expect(admin.bugs).toEqual([]);
});

test("Bun.sql: prepared, simple, in a transaction, and after an error", async () => {
	using admin = listen();
	const sql = new SQL({
		adapter: "postgres",
		hostname: "127.0.0.1",
		port: admin.port,
		username: "admin",
		database: "admin",
		max: 2,
		tls: false,
	});
	const [client] = await sql`SHOW CLIENTS`;
	expect(client).toMatchObject({
		id: "65537",
		port: "50123",
		query_time: 12.346,
		locked: true,
		application_name: "web ö",
	});
	expect(await sql`SHOW POOLS`).toHaveLength(3);
	expect(await sql`SHOW POOLS`.simple()).toHaveLength(3);
	const [pool] = await sql`SHOW REPLICATION`;
	expect(pool).toMatchObject({ id: "10", role: "primary", pg_lsn: null, pg_is_in_recovery: null });
	const [route] = await sql`SHOW ROUTES`;
	expect(route).toMatchObject({ client_id: "65537", query: ROUTE.query, wait: 0.123, error: null });
	const [one] = await sql`SELECT 1 AS one, version()`;
	expect(one).toEqual({ one: 1, version: VERSION });
	expect(await sql`NONSENSE`.catch((error: { errno: string }) => error.errno)).toBe("08P01");
	await sql.begin(async (tx) => {
		await tx`PAUSE shop`;
	});
	expect(admin.source.orders).toEqual(["pause * shop"]);
	expect((await Promise.all(Array.from({ length: 20 }, () => sql`SHOW STATS`))).map((rows) => rows.length)).toEqual(
		new Array(20).fill(3),
	);
	await sql.close();
	expect(admin.bugs).toEqual([]);
});

testWithTool("psql", "psql: what an operator types", async (psql) => {
	using admin = listen();
	const script = [
		"SHOW POOLS",
		"SHOW CLIENTS state, queries",
		"nonsense",
		"PAUSE",
		"SELECT 1 \\gdesc",
		"SHOW VERSION \\bind \\g",
		"BEGIN; COMMIT; COMMIT",
		"SHOW HELP",
	];
	const commands = script.flatMap((line) => ["-c", line]);
	const env = { PGHOST: "127.0.0.1", PGPORT: String(admin.port), PGUSER: "admin", PGDATABASE: "admin" };
	const { code, stdout, stderr } = await runTool([psql, "-X", "-A", "-P", "pager=off", ...commands], env);
	expect(stdout).toContain("alice|shop|192.0.2.1|50123|idle in transaction|42\n(1 row)");
	expect(stdout).toContain("PAUSE\n");
	expect(stdout).toContain("SHOW CLIENTS [column, …]|");
	expect(stderr).toContain("ERROR:  syntax error in admin command");
	expect(stderr).toContain("HINT:  SHOW HELP lists the commands.");
	expect(stderr).toContain("WARNING:  there is no transaction in progress");
	expect(code).toBe(0);
	expect(admin.bugs).toEqual([]);
});
