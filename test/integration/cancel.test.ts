// A CancelRequest reaches the query of the client whose key it bears, and no other: not a later one, not another client's.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { Client } from "pg";
import postgres from "postgres";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { backends, connect, connectToBothWorkers, one, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
beforeAll(async () => {
	cluster = await startPostgres();
	proxy = await startProxy(simpleConfig(cluster.primary, { workers: 2, default_pool_size: 4, min_pool_size: 0 }));
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

/** Sends a CancelRequest with this client's key, or another, and waits until the proxy has closed that connection. */
async function cancel(client: RawClient, key: Uint8Array = client.backendKey, port = proxy.port): Promise<void> {
	const request = await RawClient.open({ port });
	request.send(f.cancelRequest(client.backendPid, key));
	expect(await request.closed).toEqual([]);
}

const CANCELED = { S: "ERROR", C: "57014", M: "canceling statement due to user request" };

test("the running query ends with 57014, the session goes on", async () => {
	for (const version of [0x30000, 0x30002]) {
		await using client = await connect(proxy, { version });
		expect(client.backendKey.length).toBe(version === 0x30000 ? 4 : 32);
		const running = client.query("SELECT pg_sleep(20)");
		await untilRunning(cluster, "pg_sleep");
		await cancel(client);
		const { errors, status } = await running;
		expect(errors[0]).toMatchObject(CANCELED);
		expect(status).toBe("I");
		expect(await one(client, "SELECT 'still here'")).toBe("still here");
	}
});

test("in a transaction: it fails, and ends as the client says", async () => {
	await using client = await connect(proxy);
	await client.query("BEGIN");
	const running = client.extended("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	await cancel(client);
	expect((await running).status).toBe("E");
	expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
});

test("requests that come to the other worker are forwarded", async () => {
	const both = await connectToBothWorkers(proxy, 1);
	for (const [client] of both) {
		if (!client) throw new Error("unreachable");
		// The kernel gives the requests to either worker: with a few of them, surely to both.
		for (let i = 0; i < 6; i++) {
			const running = client.query("SELECT pg_sleep(20)");
			await untilRunning(cluster, "pg_sleep");
			await cancel(client);
			expect((await running).errors[0]).toMatchObject(CANCELED);
		}
		client.close();
	}
});

test("a wrong key, an unknown process id and a key of another length do nothing", async () => {
	await using client = await connect(proxy);
	await using other = await connect(proxy);
	const running = client.query("SELECT 'unharmed', pg_sleep(0.3)");
	await untilRunning(cluster, "pg_sleep");
	await cancel(client, other.backendKey);
	await cancel(client, Buffer.alloc(4));
	await cancel(client, client.backendKey.subarray(0, 3));
	await cancel(client, Buffer.concat([client.backendKey, Buffer.alloc(1)]));
	await cancel(client, Buffer.alloc(0));
	const stranger = await RawClient.open({ port: proxy.port });
	stranger.send(f.cancelRequest(-1, client.backendKey));
	await stranger.closed;
	expect((await running).rows[0]?.[0]).toBe("unharmed");
});

test("an idle client's cancel does nothing, not to its next query and not to another client", async () => {
	await using proxy1 = await startProxy(simpleConfig(cluster.primary, { workers: 1, default_pool_size: 1 }));
	await using idle = await connect(proxy1);
	await using busy = await connect(proxy1);
	await idle.query("SELECT 1");
	const running = busy.query("SELECT 'busy', pg_sleep(0.2)");
	await untilRunning(cluster, "pg_sleep");
	await cancel(idle, idle.backendKey, proxy1.port);
	expect((await running).rows[0]?.[0]).toBe("busy");
	await cancel(idle, idle.backendKey, proxy1.port);
	expect(await one(idle, "SELECT 'idle'")).toBe("idle");
	await idle.query("BEGIN");
	await cancel(idle, idle.backendKey, proxy1.port);
	expect(await one(idle, "SELECT 'in a block'")).toBe("in a block");
	await idle.query("COMMIT");
});

// The bug this is for: a cancel that is under way when its query ends hits whatever the server runs next.
test("a cancel that comes as the query ends never hits a later one, of the same client or the next", async () => {
	await using proxy1 = await startProxy(simpleConfig(cluster.primary, { workers: 1, default_pool_size: 1 }));
	await using asker = await connect(proxy1);
	await using next = await connect(proxy1);
	let hits = 0;
	for (let i = 0; i < 60; i++) {
		const first = asker.query(`SELECT pg_sleep(${(i % 10) / 2000})`);
		const request = await RawClient.open({ port: proxy1.port });
		request.send(f.cancelRequest(asker.backendPid, asker.backendKey));
		const result = await first;
		if (result.errors.length > 0) {
			expect(result.errors[0]).toMatchObject(CANCELED);
			hits++;
		}
		// The other client goes at once: the cancel may still be on its way. The asker's own next query would be its
		// own fault before the request has been taken, as it is with PostgreSQL.
		const after = i % 2 === 0 ? asker : next;
		if (after === asker) await request.closed;
		const later = await after.query("SELECT 'later', pg_sleep(0.002)");
		expect([i, later.errors]).toEqual([i, []]);
		expect((await (i % 2 === 0 ? next : asker).query("SELECT 'other'")).errors).toEqual([]);
		await request.closed;
	}
	// Otherwise the loop has tried nothing.
	expect(hits).toBeGreaterThan(3);
});

// PostgreSQL closes the connection of a CancelRequest when it has done what it can; ours was closed at once, and the cancel hit what
// the client asked after that.
test("when the request's connection has ended, nothing that is asked from then on is hit, on either worker", async () => {
	const both = await connectToBothWorkers(proxy, 1);
	await Promise.all(
		both.flat().map(async (client) => {
			for (let i = 0; i < 60; i++) {
				const running = client.query(`SELECT pg_sleep(0.00${i % 5})`);
				await cancel(client);
				await running;
				const { errors, rows } = await client.query(`SELECT 'later ${i}' FROM pg_sleep(0.002)`);
				expect([errors, rows]).toEqual([[], [[`later ${i}`]]]);
			}
			client.close();
		}),
	);
});

// A postmaster that is frozen reads the request when it goes on: by then the connection was another client's.
test("a server that may still get a cancel, which PostgreSQL has not taken in time, is nobody else's", async () => {
	const general = {
		workers: 1,
		default_pool_size: 1,
		min_pool_size: 0,
		connect_timeout: 200,
		checkout_timeout: 20_000,
	};
	await using frozen = await startProxy(simpleConfig(cluster.primary, general));
	await using first = await connect(frozen);
	await using second = await connect(frozen);
	const used = await one(first, "SELECT pg_backend_pid()");
	const running = first.query("SELECT pg_sleep(0.6)");
	await untilRunning(cluster, "pg_sleep(0.6)");
	process.kill(cluster.primary.pid, "SIGSTOP");
	try {
		const request = await RawClient.open({ port: frozen.port });
		request.send(f.cancelRequest(first.backendPid, first.backendKey));
		expect(await request.closed).toEqual([]);
		expect((await running).errors).toEqual([]);
	} finally {
		process.kill(cluster.primary.pid, "SIGCONT");
	}
	const { rows, errors } = await second.query("SELECT pg_backend_pid() FROM pg_sleep(0.3)");
	expect(errors).toEqual([]);
	expect(rows[0]![0]).not.toBe(used);
});

test("a client that waits in the queue can cancel, and keeps its place for what follows", async () => {
	await using proxy1 = await startProxy(simpleConfig(cluster.primary, { workers: 1, default_pool_size: 1 }));
	await using holder = await connect(proxy1);
	await using waiter = await connect(proxy1);
	await holder.query("BEGIN");
	const waiting = waiter.query("SELECT 'never run'");
	await holder.query("SELECT 1");
	await cancel(waiter, waiter.backendKey, proxy1.port);
	const { errors, status } = await waiting;
	expect(errors[0]).toMatchObject(CANCELED);
	expect(status).toBe("I");
	const pipeline = waiter.extended("SELECT 'extended'");
	await holder.query("SELECT 1");
	await cancel(waiter, waiter.backendKey, proxy1.port);
	expect((await pipeline).errors[0]).toMatchObject(CANCELED);
	const answer = one(waiter, "SELECT 'served'");
	await holder.query("COMMIT");
	expect(await answer).toBe("served");
});

test("a client that vanishes has its running query cancelled", async () => {
	const client = await connect(proxy);
	client.send(f.query("SELECT pg_sleep(20)"));
	await untilRunning(cluster, "pg_sleep");
	client.reset();
	await untilRunning(cluster, "pg_sleep", 0);
	expect((await backends(cluster)).length).toBeGreaterThan(0);
});

// The signal of a cancel that finds a backend before its query is forgotten there.
test("so it has when the cancel came before PostgreSQL had begun with the query", async () => {
	const client = await connect(proxy);
	await client.query("BEGIN");
	const pid = Number(await one(client, "SELECT pg_backend_pid()"));
	process.kill(pid, "SIGSTOP");
	try {
		client.send(f.query("SELECT pg_sleep(20), 'too early'"));
		client.reset();
		await until(() => isInterrupted(pid), "the cancel's signal");
	} finally {
		process.kill(pid, "SIGCONT");
	}
	const isIdle = async () => (await backends(cluster)).some((one) => one.pid === pid && one.state === "idle");
	await until(isIdle, "the end of the query and of its transaction");
});

/** A SIGINT waits for the process. */
function isInterrupted(pid: number): boolean {
	const pending = /^ShdPnd:\s*([0-9a-f]+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
	return (BigInt(`0x${pending}`) & (1n << BigInt(constants.signals.SIGINT - 1))) !== 0n;
}

const WAITS = "SELECT pg_advisory_xact_lock_shared(77)";
/** What the client sends last. PostgreSQL waits for a lock in it when the client goes. */
const COMMITS: [string, Uint8Array][] = [
	["COMMIT", f.query("COMMIT")],
	["END behind a comment", f.query("/* the end */ END")],
	["a string that ends in COMMIT", f.query("SELECT 1; COMMIT")],
	["COMMIT with a query before it", concat(f.query(WAITS), f.query("COMMIT"))],
	["COMMIT of the extended protocol", concat(f.parse("COMMIT"), f.bind(), f.execute(), f.sync())],
	["a COMMIT that has a name", concat(f.parse("COMMIT", "c"), f.bind({ statement: "c" }), f.execute(), f.sync())],
	["COMMIT of the extended protocol without Sync", concat(f.parse("COMMIT"), f.bind(), f.execute(), f.flush())],
];

describe("a client that vanishes has its COMMIT carried out:", () => {
	let locker: Client;
	beforeAll(async () => {
		locker = new Client({ host: "127.0.0.1", port: cluster.port, user: "postgres", database: "pgdog" });
		await locker.connect();
		await locker.query(`
			CREATE TABLE kept (id int);
			GRANT ALL ON kept TO pgdog;
			CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER late AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`);
	});
	afterAll(() => locker?.end());

	for (const [i, [name, bytes]] of COMMITS.entries()) {
		for (const ending of ["reset", "close"] as const) {
			test(`${name} (${ending})`, async () => {
				const id = 2 * i + (ending === "reset" ? 1 : 0);
				await locker.query("SELECT pg_advisory_lock(77)");
				const client = await connect(proxy);
				await client.query(`BEGIN; INSERT INTO kept VALUES (${id})`);
				client.send(bytes);
				const waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
				await until(async () => (await locker.query(waits)).rowCount === 1, "the COMMIT under way");
				const before = proxy.lines.length;
				client[ending]();
				await proxy.waitForLog(/disconnected/, 10_000, before);
				// A cancel would have come before this connection, and have its effect first.
				await cluster.primary.sql("SELECT 1");
				await locker.query("SELECT pg_advisory_unlock(77)");
				const is = `SELECT FROM kept WHERE id = ${id}`;
				await until(async () => (await locker.query(is)).rowCount === 1, "the row");
				await using next = await connect(proxy);
				expect(await one(next, "SELECT 'served'")).toBe("served");
			});
		}
	}
});

test("the drivers' own ways to cancel", async () => {
	const sql = postgres(proxy.url(), { max: 1 });
	const query = sql`SELECT pg_sleep(20)`;
	const ended = query.then(
		() => "done",
		(error: { code?: string }) => error.code,
	);
	await untilRunning(cluster, "pg_sleep");
	query.cancel();
	expect(await ended).toBe("57014");
	expect([...(await sql`SELECT 1 AS n`)]).toEqual([{ n: 1 }]);
	await sql.end();
	const pg = new Client({ connectionString: proxy.url(), statement_timeout: 500 });
	await pg.connect();
	await rejects(pg.query("SELECT pg_sleep(20)"), "statement timeout");
	await pg.query("SELECT 1");
	await pg.end();
});

testWithTool("psql", "Ctrl-C in psql", async (psql) => {
	const child = Bun.spawn([psql, "-XAt", "-c", "SELECT pg_sleep(20)"], {
		env: {
			PATH: process.env.PATH ?? "",
			PGHOST: "127.0.0.1",
			PGPORT: String(proxy.port),
			PGUSER: "pgdog",
			PGPASSWORD: "pgdog",
			PGDATABASE: "pgdog",
		},
		stdin: "ignore",
		stdout: "pipe",
		stderr: "pipe",
	});
	await untilRunning(cluster, "pg_sleep");
	child.kill("SIGINT");
	const stderr = await child.stderr.text();
	await child.exited;
	expect(stderr).toContain("canceling statement due to user request");
});
