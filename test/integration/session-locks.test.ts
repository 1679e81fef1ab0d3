// Session-level advisory locks in transaction mode (`pin_session_locks`): who holds some keeps the server that has them, and is as
// alone with them as it would be with PostgreSQL itself.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { PORT, startRouted } from "./routed.ts";
import { SHARDS, startSharded } from "./sharded.ts";
import { admin, connect, one, show, untilBackends } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres({ replicas: 1, databases: SHARDS });
});
afterAll(() => cluster?.stop());

async function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	await untilBackends(cluster, 0);
	const settings = { workers: 1, default_pool_size: 2, min_pool_size: 0, checkout_timeout: 1_000, ...general };
	const simple = simpleConfig(cluster.primary, settings);
	return startProxy(withAdmin(simple));
}

const pid = (client: RawClient) => one(client, "SELECT pg_backend_pid()");

/** Advisory locks that any session has, as PostgreSQL says it. */
async function held(): Promise<number> {
	const [row] = await cluster.primary.sql("SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory'");
	return (row as { n: number }).n;
}

/** What the client asks next is answered when it is known what its last statement has locked. */
async function isLocked(proxy: Proxy, client: RawClient): Promise<boolean> {
	expect((await client.query("SELECT 'next'")).rows).toEqual([["next"]]);
	await using console = await admin(proxy);
	const clients = await show(console, "SHOW CLIENTS");
	return clients.find(({ id }) => Number(id) === client.backendPid)?.locked === "t";
}

const WAYS: Record<string, (client: RawClient, sql: string) => Promise<QueryResult>> = {
	"a Query": (client, sql) => client.query(sql),
	"a batch": (client, sql) => client.extended(sql),
	"a named statement": async (client, sql) => {
		client.send(f.parse(sql, sql), f.sync());
		await client.until("Z");
		client.send(f.bind({ statement: sql }), f.execute(), f.close("S", sql), f.sync());
		return client.result();
	},
};

for (const [way, run] of Object.entries(WAYS)) {
	describe(`said by ${way}`, () => {
		test("a lock is its client's until it is given back, whatever that does meanwhile", async () => {
			await using proxy = await start();
			await using a = await connect(proxy);
			await using b = await connect(proxy);
			const tries = async (client: RawClient) => (await run(client, "SELECT pg_try_advisory_lock(1)")).rows[0]?.[0];
			expect((await run(a, "SELECT pg_advisory_lock(1)")).errors).toEqual([]);
			const server = await pid(a);
			expect(await tries(b)).toBe("f");
			for (let i = 0; i < 3; i++) {
				await a.query(i === 1 ? "BEGIN; SELECT 1; ROLLBACK" : "BEGIN; SELECT 1; COMMIT");
				await a.query("SELECT 1/0");
				expect(await pid(a)).toBe(server);
				expect(await pid(b)).not.toBe(server);
				expect(await tries(b)).toBe("f");
			}
			expect([await isLocked(proxy, a), await isLocked(proxy, b)]).toEqual([true, false]);
			// Taken twice, to be given back twice.
			expect(await tries(a)).toBe("t");
			expect((await run(a, "SELECT pg_advisory_unlock(1)")).rows).toEqual([["t"]]);
			expect([await isLocked(proxy, a), await tries(b)]).toEqual([true, "f"]);
			expect((await run(a, "SELECT pg_advisory_unlock(1)")).rows).toEqual([["t"]]);
			expect(await isLocked(proxy, a)).toBe(false);
			expect(await held()).toBe(0);
			expect(await tries(b)).toBe("t");
			expect([await isLocked(proxy, a), await isLocked(proxy, b)]).toEqual([false, true]);
			expect((await run(b, "SELECT pg_advisory_unlock_all()")).errors).toEqual([]);
			expect(await isLocked(proxy, b)).toBe(false);
		});

		test("in a transaction, its end does not release it; a transaction's own lock keeps nobody", async () => {
			await using proxy = await start();
			await using a = await connect(proxy);
			await a.query("BEGIN");
			await run(a, "SELECT pg_advisory_lock_shared(2, 3)");
			await a.query("SELECT 1/0");
			await a.query("ROLLBACK");
			expect([await held(), await isLocked(proxy, a)]).toEqual([1, true]);
			await run(a, "SELECT pg_advisory_unlock_shared(2, 3)");
			await run(a, "SELECT pg_advisory_xact_lock(4)");
			expect([await held(), await isLocked(proxy, a)]).toEqual([0, false]);
		});
	});
}

test("what gives all locks back lets the client go", async () => {
	await using proxy = await start();
	await using a = await connect(proxy);
	for (const sql of [
		"DISCARD ALL",
		"SELECT pg_advisory_unlock_all()",
		"DO $$ BEGIN PERFORM pg_advisory_unlock(n) FROM generate_series(1, 3) n; END $$",
	]) {
		await a.query("SELECT pg_advisory_lock(n) FROM generate_series(1, 3) n");
		expect([sql, await isLocked(proxy, a), await held()]).toEqual([sql, true, 3]);
		expect([sql, (await a.query(sql)).errors]).toEqual([sql, []]);
		expect([sql, await isLocked(proxy, a), await held()]).toEqual([sql, false, 0]);
	}
});

test("statements that take no lock keep nobody: false, an error, a condition", async () => {
	await using proxy = await start();
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("SELECT pg_advisory_lock(1)");
	for (const sql of [
		"SELECT pg_try_advisory_lock(1)",
		"SET lock_timeout = 50; SELECT pg_advisory_lock(1)",
		"SELECT pg_advisory_lock(1) WHERE false",
		"SELECT pg_advisory_unlock(1)",
		"PREPARE later AS SELECT pg_advisory_lock(1)",
	]) {
		await b.query(sql);
		expect([sql, await isLocked(proxy, b)]).toEqual([sql, false]);
	}
});

test("a lock is given back by a statement of SQL's PREPARE, or one that is passed through by its name", async () => {
	await using proxy = await start({ prepared_statements: "disabled" });
	await using a = await connect(proxy);
	const sql = "SELECT pg_advisory_unlock(1)";
	await a.query("SELECT pg_advisory_lock(1)");
	await a.query(`PREPARE mine AS ${sql}`);
	expect([await isLocked(proxy, a), await held()]).toEqual([true, 1]);
	expect((await a.query("EXECUTE mine")).rows).toEqual([["t"]]);
	expect([await isLocked(proxy, a), await held()]).toEqual([false, 0]);
	await a.query("SELECT pg_advisory_lock(1)");
	a.send(f.parse(sql, "mine"), f.sync());
	await a.until("Z");
	expect([await isLocked(proxy, a), await held()]).toEqual([true, 1]);
	a.send(f.bind({ statement: "mine" }), f.execute(), f.sync());
	expect((await a.result()).rows).toEqual([["t"]]);
	expect([await isLocked(proxy, a), await held()]).toEqual([false, 0]);
});

test("one string that takes a lock, fails and is rolled back has the lock", async () => {
	await using proxy = await start();
	await using a = await connect(proxy);
	const { errors } = await a.query("SELECT pg_advisory_lock(1); SELECT 1/0");
	expect(errors[0]?.C).toBe("22012");
	expect([await held(), await isLocked(proxy, a)]).toEqual([1, true]);
	a.send(f.parse("SELECT pg_advisory_lock(2)"), f.bind(), f.execute(), f.parse("SELEC"), f.flush());
	await a.until("E");
	// As long as the rest of the batch may come.
	await Bun.sleep(500);
	a.send(f.sync());
	await a.until("Z");
	expect([await held(), await isLocked(proxy, a)]).toEqual([2, true]);
});

test("the session is the client's while it has the server, its settings are also afterwards", async () => {
	await using proxy = await start({ default_pool_size: 2 });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("SELECT pg_advisory_lock(1)");
	const server = await pid(a);
	await a.query("SET work_mem = '11MB'");
	await a.query("CREATE TEMP TABLE mine AS SELECT 7 AS x");
	await a.query("SELECT 1/0");
	await a.query("SET application_name = 'pinned'");
	await a.query("RESET work_mem");
	await a.query("SET work_mem = '12MB'");
	expect(a.parameters.application_name).toBe("pinned");
	for (let i = 0; i < 3; i++) expect(await one(a, "SELECT x FROM mine")).toBe("7");
	expect((await a.extended("SELECT x FROM mine WHERE x = $1", ["7"])).rows).toEqual([["7"]]);
	expect(await one(b, "SHOW work_mem")).toBe("4MB");
	await a.query("SELECT pg_advisory_unlock(1)");
	await b.query("BEGIN");
	expect(await one(b, "SELECT to_regclass('pg_temp.mine')")).toBe(null);
	const other = await pid(b);
	expect(await one(b, "SHOW work_mem")).toBe("4MB");
	expect(await pid(a)).not.toBe(other);
	expect(await one(a, "SELECT current_setting('work_mem') || current_setting('application_name')")).toBe("12MBpinned");
	await b.query("COMMIT");
	await a.query("BEGIN");
	expect(await pid(b)).not.toBe(await pid(a));
	expect(await one(b, "SELECT to_regclass('pg_temp.mine')")).toBe(null);
	expect(server).not.toBe(null);
	await a.query("COMMIT");
});

for (const way of ["Terminate", "reset", "in a transaction", "while it waits for a lock"] as const) {
	test(`a client that goes (${way}) leaves its locks and its server`, async () => {
		await using proxy = await start({ default_pool_size: 2 });
		const a = await connect(proxy);
		await using b = await connect(proxy);
		await a.query("SELECT pg_advisory_lock(1); SET application_name = 'gone'; CREATE TEMP TABLE mine ()");
		if (way === "in a transaction") await a.query("BEGIN; SELECT pg_advisory_lock(2)");
		if (way === "while it waits for a lock") {
			await b.query("SELECT pg_advisory_lock(3)");
			a.send(f.query("SELECT pg_advisory_lock(3)"));
			await until(async () => (await held()) === 3, "the lock to be waited for");
		}
		if (way === "Terminate") a.send(f.terminate());
		if (way === "Terminate") a.close();
		else a.reset();
		const rest = way === "while it waits for a lock" ? 1 : 0;
		await until(async () => (await held()) === rest, "the locks to be gone");
		expect(await one(b, "SELECT pg_try_advisory_lock(1)")).toBe("t");
		await using c = await connect(proxy);
		expect(await one(c, "SELECT to_regclass('pg_temp.mine')")).toBe(null);
		expect(await one(c, "SHOW application_name")).not.toBe("gone");
	});
}

test("a pool full of them: others wait, and are told why, and so is the log", async () => {
	await using proxy = await start({ default_pool_size: 1, client_connection_recovery: "recover" });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("SELECT pg_advisory_lock(1)");
	const { errors } = await b.query("SELECT 1");
	expect(errors[0]).toMatchObject({ M: "checkout timeout", C: "53300" });
	expect(errors[0]?.D).toContain(
		"1 of 1 server connections of this pool are in use, 1 by clients that hold advisory locks",
	);
	await proxy.waitForLog(/checkout timeout: .* 1 by clients that hold advisory locks/);
	const waiting = b.query("SELECT 2");
	await a.query("SELECT pg_advisory_unlock(1)");
	expect((await waiting).rows).toEqual([["2"]]);
});

test("a reload: the setting goes on and off, a pool that goes is kept to the end", async () => {
	await using proxy = await start();
	const config = (general: object, host = cluster.primary.host) => ({
		general: { workers: 1, default_pool_size: 2, min_pool_size: 0, port: proxy.port, ...general },
		databases: [{ name: "pgdog", host, port: cluster.primary.port }],
		admin: { password: "pgdog" },
	});
	const reload = async (general: object, host?: string) => {
		proxy.writeConfig(config(general, host));
		await using console = await admin(proxy);
		expect((await console.query("RELOAD")).errors).toEqual([]);
	};
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("SELECT pg_advisory_lock(1)");
	await reload({ pin_session_locks: false });
	// Who has locks keeps them until it has given them back.
	expect(await one(b, "SELECT pg_try_advisory_lock(1)")).toBe("f");
	expect(await isLocked(proxy, a)).toBe(true);
	expect((await a.query("SELECT pg_advisory_unlock(1)")).rows).toEqual([["t"]]);
	await b.query("SELECT pg_advisory_lock(1)");
	expect([await isLocked(proxy, b), await held()]).toEqual([false, 0]);
	await reload({ server_lifetime: 5_000_000, default_pool_size: 1 });
	await a.query("SELECT pg_advisory_lock(1)");
	expect([await isLocked(proxy, a), await held()]).toEqual([true, 1]);
	await reload({ pooler_mode: "session" }, "localhost");
	expect(await one(a, "SELECT pg_try_advisory_lock(1)")).toBe("t");
	expect((await a.query("SELECT pg_advisory_unlock_all()")).errors).toEqual([]);
	await until(async () => (await held()) === 0, "the locks to be gone");
});

test("off: a lock ends with its transaction", async () => {
	await using proxy = await start({ pin_session_locks: false });
	await using a = await connect(proxy);
	expect((await a.query("SELECT pg_advisory_lock(1)")).errors).toEqual([]);
	expect([await isLocked(proxy, a), await held()]).toEqual([false, 0]);
	await a.query("BEGIN; SELECT pg_advisory_lock(1)");
	expect(await held()).toBe(1);
	await a.query("COMMIT");
	expect(await held()).toBe(0);
});

test("a client that is cancelled while it waits for a lock goes on", async () => {
	await using proxy = await start();
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("SELECT pg_advisory_lock(1)");
	for (let i = 0; i < 5; i++) {
		const waiting = b.query("SELECT pg_advisory_lock(1)");
		await until(async () => (await held()) === 2, "the lock to be waited for");
		await using request = await RawClient.open({ port: proxy.port });
		request.send(f.cancelRequest(b.backendPid, b.backendKey));
		await request.closed;
		expect((await waiting).errors[0]?.C).toBe("57014");
		expect(await one(b, "SELECT 1")).toBe("1");
		expect(await isLocked(proxy, b)).toBe(false);
	}
});

test("with a replica: locks are the primary's, and so is whatever their holder asks", async () => {
	await using proxy = await startRouted(cluster, [], { read_write_split: "exclude_primary" });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	const primary = String(cluster.primary.port);
	expect(await one(b, `SELECT ${PORT}`)).not.toBe(primary);
	// Sent at once: what stands behind it waits for what it has come to.
	a.send(f.query("SELECT pg_advisory_lock(1)"), f.query(`SELECT ${PORT}, 'behind'`));
	expect((await a.result()).errors).toEqual([]);
	expect((await a.result()).rows).toEqual([[primary, "behind"]]);
	for (let i = 0; i < 5; i++) {
		expect((await a.extended(`SELECT ${PORT}`)).rows).toEqual([[primary]]);
		expect(await one(a, `SELECT ${PORT}`)).toBe(primary);
	}
	await a.query("BEGIN");
	expect(await one(a, `SELECT ${PORT}`)).toBe(primary);
	await a.query("COMMIT");
	expect(await one(b, "SELECT pg_try_advisory_lock(1)")).toBe("f");
	await a.query("SELECT pg_advisory_unlock(1)");
	await until(async () => (await one(a, `SELECT ${PORT}`)) !== primary, "reads to go to the replica again");
	expect(await held()).toBe(0);
});

test("over several shards: each shard's server stays that has a lock", async () => {
	await using proxy = await startSharded(cluster, { general: { default_pool_size: 2 } });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	const on = (shard: number, sql: string) => `/* pgdog_shard: ${shard} */ ${sql}`;
	for (const shard of [0, 1, 2]) {
		const { errors } = await a.query(on(shard, "CREATE TABLE IF NOT EXISTS locked (x int)"));
		expect(errors).toEqual([]);
	}
	expect((await a.query("SELECT pg_advisory_lock(1)")).errors).toEqual([]);
	expect((await a.query(on(2, "SELECT pg_advisory_lock(2)"))).errors).toEqual([]);
	const servers: (string | null)[] = [];
	for (const shard of [0, 1, 2]) servers.push(await one(a, on(shard, "SELECT pg_backend_pid()")));
	expect(await isLocked(proxy, a)).toBe(true);
	expect(await one(b, "SELECT pg_try_advisory_lock(1)")).toBe("f");
	expect(await one(b, on(1, "SELECT pg_try_advisory_lock(1)"))).toBe("t");
	expect(await one(b, on(2, "SELECT pg_try_advisory_lock(2)"))).toBe("f");
	for (const end of ["COMMIT", "ROLLBACK"]) {
		expect((await a.query("BEGIN")).errors).toEqual([]);
		expect((await a.query("INSERT INTO locked VALUES (1)")).errors).toEqual([]);
		expect((await a.query(end)).tags).toEqual([end]);
		for (const shard of [0, 1, 2]) expect(await one(a, on(shard, "SELECT count(*) FROM locked"))).toBe("1");
	}
	for (const shard of [0, 2]) expect(await one(a, on(shard, "SELECT pg_backend_pid()"))).toBe(servers[shard]!);
	expect(await one(b, "SELECT pg_try_advisory_lock(1)")).toBe("f");
	await a.query("SELECT pg_advisory_unlock(1)");
	expect(await isLocked(proxy, a)).toBe(true);
	await a.query(on(2, "SELECT pg_advisory_unlock(2)"));
	expect(await isLocked(proxy, a)).toBe(false);
	await b.query(on(1, "SELECT pg_advisory_unlock(1)"));
	expect(await held()).toBe(0);
});
