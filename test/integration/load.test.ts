// Many clients over few servers: pgbench in each of its modes, a thousand clients, and drivers with their own pools.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { Pool } from "pg";
import postgres from "postgres";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { backends, connect, one, usedBackends } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
const proxies: Partial<Record<number, Proxy>> = {};

beforeAll(async () => {
	cluster = await startPostgres();
	for (const workers of [1, 2]) {
		proxies[workers] = await startProxy(
			simpleConfig(cluster.primary, {
				workers,
				default_pool_size: 4,
				min_pool_size: 0,
				log_connections: false,
				log_disconnections: false,
			}),
		);
	}
});

afterAll(async () => {
	for (const proxy of Object.values(proxies)) await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

const environment = (port: number) => ({
	PGHOST: "127.0.0.1",
	PGPORT: String(port),
	PGUSER: "pgdog",
	PGPASSWORD: "pgdog",
	PGDATABASE: "pgdog",
});

testWithTool("pgbench", "pgbench -i through the proxy: COPY, DDL, VACUUM", async (pgbench) => {
	const { code, stderr } = await runTool([pgbench, "-i", "-s", "1", "-q"], environment(proxies[2]?.port ?? 0));
	expect([code, stderr]).toEqual([0, stderr]);
	expect(await cluster.primary.sql("SELECT count(*)::int AS n FROM pgbench_accounts")).toEqual([{ n: 100_000 }]);
});

for (const workers of [1, 2]) {
	for (const mode of ["simple", "extended", "prepared"]) {
		testWithTool("pgbench", `pgbench -M ${mode}, 20 clients over 4 servers, workers = ${workers}`, async (pgbench) => {
			const env = environment(proxies[workers]?.port ?? 0);
			for (const what of ["-S", "-N", "-b tpcb-like"]) {
				// pgbench prepares with a call that stops its whole thread, also for those of its clients that hold a server in
				// an open transaction: with transactions, each client needs a thread of its own, or they wait for each other.
				const threads = mode === "prepared" && what !== "-S" ? "20" : "2";
				const times = what === "-S" ? "50" : "10";
				const args = ["-n", "-M", mode, "-c", "20", "-j", threads, "-t", times, ...what.split(" ")];
				const { code, stdout, stderr } = await runTool([pgbench, ...args], env);
				expect([code, stderr.replace(/^pgbench \(.*\n/, "")]).toEqual([0, ""]);
				expect(stdout).toContain("number of failed transactions: 0 ");
			}
			expect(await usedBackends(cluster)).toBeLessThanOrEqual(8);
		});
	}
}

testWithTool("pgbench", "pgbench that connects anew for each transaction", async (pgbench) => {
	const args = ["-n", "-C", "-S", "-c", "10", "-j", "2", "-t", "20"];
	const { code, stdout } = await runTool([pgbench, ...args], environment(proxies[2]?.port ?? 0));
	expect(code).toBe(0);
	expect(stdout).toContain("number of failed transactions: 0 ");
});

testWithTool("psql", "psql: \\copy both ways, \\d, savepoints, \\gx", async (psql) => {
	const script = `
		CREATE TABLE loaded (id int, name text);
		\\copy loaded FROM PROGRAM 'seq 1 1000 | sed "s/.*/&,name &/"' WITH (FORMAT csv)
		\\copy (SELECT count(*), sum(id) FROM loaded) TO STDOUT
		\\d loaded
		BEGIN;
		SAVEPOINT s;
		SELECT 1/0;
		ROLLBACK TO s;
		COMMIT;
		SELECT id FROM loaded ORDER BY id LIMIT 2 \\gx
		DROP TABLE loaded;
	`;
	const child = Bun.spawn([psql, "-XAt", "-f", "-"], {
		env: { PATH: process.env.PATH ?? "", LC_ALL: "C", ...environment(proxies[2]?.port ?? 0) },
		stdin: Buffer.from(script.replace(/^\t+/gm, "")),
		stdout: "pipe",
		stderr: "pipe",
	});
	const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
	expect(code).toBe(0);
	expect(stdout).toContain("COPY 1000\n1000\t500500\n");
	expect(stdout).toContain("id|integer|");
	expect(stderr.trim()).toEndWith("ERROR:  division by zero");
});

test("a thousand clients over ten servers, a few queries each, no answer for another", async () => {
	await using proxy = await startProxy(
		simpleConfig(cluster.primary, {
			workers: 2,
			default_pool_size: 10,
			log_connections: false,
			log_disconnections: false,
			checkout_timeout: 30_000,
		}),
	);
	const clients: RawClient[] = [];
	for (let batch = 0; batch < 10; batch++) {
		clients.push(...(await Promise.all(Array.from({ length: 100 }, () => connect(proxy, { timeout: 30_000 })))));
	}
	await Promise.all(
		clients.map(async (client, i) => {
			expect(await one(client, `SELECT 'simple ${i}'`)).toBe(`simple ${i}`);
			expect((await client.extended("SELECT $1::text", [`extended ${i}`])).rows).toEqual([[`extended ${i}`]]);
			client.send(f.parse(`SELECT ${i % 50}, $1::int`, "mine"), f.sync());
			await client.result();
			client.send(f.bind({ statement: "mine", values: [String(i)] }), f.execute(), f.sync());
			expect((await client.result()).rows).toEqual([[String(i % 50), String(i)]]);
			await client.query(`BEGIN; SET LOCAL application_name = 'c${i}'`);
			expect(await one(client, "SHOW application_name")).toBe(`c${i}`);
			expect((await client.query("COMMIT")).status).toBe("I");
		}),
	);
	const mine = (await backends(cluster)).length;
	expect(mine).toBeLessThanOrEqual(10 + 8);
	for (const client of clients) client.close();
});

test("the drivers' pools, all at once: pg, postgres and Bun.sql with transactions, errors and prepared statements", async () => {
	const url = proxies[2]?.url() ?? "";
	await cluster.primary.sql("CREATE TABLE IF NOT EXISTS tally (who text, n int); GRANT ALL ON tally TO pgdog");
	const pg = new Pool({ connectionString: url, max: 10 });
	const pgWork = Array.from({ length: 60 }, async (_, i) => {
		const client = await pg.connect();
		try {
			await client.query("BEGIN");
			await client.query({ name: "tally", text: "INSERT INTO tally VALUES ($1, $2)", values: ["pg", i] });
			if (i % 5 === 0) await client.query("SELECT 1/0").catch(() => undefined);
			await client.query(i % 5 === 0 ? "ROLLBACK" : "COMMIT");
			const { rows } = await client.query({ name: `q${i % 7}`, text: "SELECT $1::int AS n", values: [i] });
			expect(rows).toEqual([{ n: i }]);
		} finally {
			client.release();
		}
	});
	const sql = postgres(url, { max: 10 });
	const sqlWork = Array.from({ length: 60 }, async (_, i) => {
		await sql
			.begin(async (tx) => {
				await tx`INSERT INTO tally VALUES ('postgres', ${i})`;
				if (i % 5 === 0) throw new Error("rolled back");
			})
			.catch(() => undefined);
		expect([...(await sql`SELECT ${i}::int AS n, ${"x"}::text AS t`)]).toEqual([{ n: i, t: "x" }]);
		expect(await sql.unsafe("SELECT 1 AS a; SELECT 2 AS b")).toHaveLength(2);
	});
	const bun = new SQL({ url, max: 10 });
	const bunWork = Array.from({ length: 60 }, async (_, i) => {
		await bun
			.begin(async (tx) => {
				await tx`INSERT INTO tally VALUES ('bun', ${i})`;
				if (i % 5 === 0) throw new Error("rolled back");
			})
			.catch(() => undefined);
		expect([...(await bun`SELECT ${i}::int AS n`)]).toEqual([{ n: i }]);
		await rejects(
			bun`SELECT ${i}::int / 0`.then(() => "no error"),
			"division by zero",
		);
	});
	await Promise.all([...pgWork, ...sqlWork, ...bunWork]);
	await Promise.all([pg.end(), sql.end(), bun.end()]);
	expect(await cluster.primary.sql("SELECT who, count(*)::int AS n FROM tally GROUP BY who ORDER BY who")).toEqual([
		{ who: "bun", n: 48 },
		{ who: "pg", n: 48 },
		{ who: "postgres", n: 48 },
	]);
});
