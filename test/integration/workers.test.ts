// Two threads, one process: the limit of a pool is strict, clients of both get fair turns, servers and statements move, and
// a Unix socket serves both.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { backends, connect, connectToBothWorkers, one, untilBackends, usedBackends, workerOf } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

/** Clients stay with the worker that has accepted them: those that go to another are in moves.test.ts. */
function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	const settings = { workers: 2, client_placement: "spread", min_pool_size: 0, ...general };
	return startProxy(simpleConfig(cluster.primary, settings));
}

/** Highest number of the proxy's backends seen until `work` is over. */
async function mostBackends(work: Promise<unknown>): Promise<number> {
	let over = false;
	const end = work.finally(() => {
		over = true;
	});
	let most = 0;
	while (!over) most = Math.max(most, await usedBackends(cluster));
	await end;
	return most;
}

test("default_pool_size = 1 with two workers is one server connection, and both are served", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	const both = await connectToBothWorkers(proxy, 5);
	const counts: [number, number] = [0, 0];
	const work = both.flatMap((clients, worker) =>
		clients.map(async (client) => {
			while (counts[0] + counts[1] < 500) {
				expect(await one(client, "SELECT pg_sleep(0.001)")).toBe("");
				counts[worker as 0 | 1]++;
			}
		}),
	);
	expect(await mostBackends(Promise.all(work))).toBe(1);
	// The same number of clients on both sides: about the same number of turns.
	const [fewer, more] = counts.sort((a, b) => a - b);
	expect(fewer / more).toBeGreaterThan(0.5);
	for (const client of both.flat()) client.close();
});

test("a server that was idle on one worker for longer than query_timeout has all of that for a query of the other", async () => {
	await using proxy = await start({ default_pool_size: 1, query_timeout: 1_000 });
	const [[here], [there]] = await connectToBothWorkers(proxy, 1);
	const backend = await one(here!, "SELECT pg_backend_pid()");
	await Bun.sleep(1_500);
	const { rows, errors } = await there!.query("SELECT pg_backend_pid() FROM pg_sleep(0.3)");
	expect([errors, rows]).toEqual([[], [[backend]]]);
	for (const client of [here, there]) client!.close();
});

test("one client against nine on the other worker is not starved", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	const both = await connectToBothWorkers(proxy, 9);
	const lonely = both[0][0] as RawClient;
	let over = false;
	let theirs = 0;
	const busy = both[1].map(async (client) => {
		while (!over && !client.ended) {
			await client.query("SELECT pg_sleep(0.001)");
			theirs++;
		}
	});
	const ahead: number[] = [];
	for (let i = 0; i < 20; i++) {
		const before = theirs;
		expect(await one(lonely, "SELECT 'turn'")).toBe("turn");
		ahead.push(theirs - before);
	}
	over = true;
	await Promise.all(busy);
	expect(theirs).toBeGreaterThan(20);
	// Nine transactions are ahead of it, and those of the time for which servers stay with a worker; a starved one would come to
	// checkout_timeout.
	expect(Math.max(...ahead)).toBeLessThan(100);
	for (const client of both.flat()) client.close();
});

test("a transaction on one worker makes the other wait, in a pool of one, until it ends", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	const [[a], [b]] = await connectToBothWorkers(proxy, 1);
	if (!a || !b) throw new Error("unreachable");
	const pid = await one(a, "SELECT pg_backend_pid()");
	await a.query("BEGIN");
	const other = one(b, "SELECT pg_backend_pid()");
	await one(a, "SELECT 1");
	await a.query("COMMIT");
	expect(await other).toBe(pid);
	// And back again, a few times: it is always the same connection.
	for (let i = 0; i < 5; i++) {
		expect(await one(a, "SELECT pg_backend_pid()")).toBe(pid);
		expect(await one(b, "SELECT pg_backend_pid()")).toBe(pid);
	}
	a.close();
	b.close();
});

test("a pool of three under forty clients on two workers never has a fourth connection", async () => {
	await using proxy = await start({ default_pool_size: 3 });
	const clients = await Promise.all(Array.from({ length: 40 }, () => connect(proxy)));
	expect(new Set(clients.map(workerOf)).size).toBe(2);
	const work = clients.map(async (client, i) => {
		for (let n = 0; n < 15; n++) {
			await client.query("BEGIN");
			expect(await one(client, `SELECT ${i} * 1000 + ${n}`)).toBe(String(i * 1000 + n));
			await client.query(n % 3 === 0 ? "ROLLBACK" : "COMMIT");
		}
	});
	expect(await mostBackends(Promise.all(work))).toBeLessThanOrEqual(3);
	for (const client of clients) client.close();
});

test("named statements and settings go on when the server comes from the other worker", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	const [[a], [b]] = await connectToBothWorkers(proxy, 1);
	if (!a || !b) throw new Error("unreachable");
	for (const [client, name] of [[a, "a"] as const, [b, "b"] as const]) {
		await client.query(`SET application_name = 'client ${name}'; SET app.tenant = '${name}'`);
		client.send(f.parse(`SELECT '${name}', $1::int, current_setting('app.tenant')`, "same name"), f.sync());
		await client.until("Z");
		// The same text from both sides, too.
		client.send(f.parse("SELECT current_setting('application_name')", "same text"), f.sync());
		await client.until("Z");
	}
	for (let i = 0; i < 10; i++) {
		for (const [client, name] of [[a, "a"] as const, [b, "b"] as const]) {
			client.send(f.bind({ statement: "same name", values: [String(i)] }), f.execute());
			client.send(f.bind({ statement: "same text" }), f.execute(), f.sync());
			expect((await client.result()).rows).toEqual([[name, String(i), name], [`client ${name}`]]);
		}
	}
	// However often it moved, the server has each statement once for each worker at most.
	expect(Number(await one(a, "SELECT count(*) FROM pg_prepared_statements"))).toBeLessThanOrEqual(4);
	a.close();
	b.close();
});

test("workers = 0 serves on the main thread", async () => {
	await using proxy = await start({ workers: 0, default_pool_size: 2 });
	const clients = await Promise.all(Array.from({ length: 10 }, () => connect(proxy)));
	const answers = await Promise.all(clients.map((client, i) => one(client, `SELECT ${i}`)));
	expect(answers).toEqual(clients.map((_, i) => String(i)));
	for (const client of clients) client.close();
	expect(await proxy.stop("SIGTERM")).toBe(0);
});

test("four workers", async () => {
	await using proxy = await start({ workers: 4, default_pool_size: 2 });
	const clients = await Promise.all(Array.from({ length: 32 }, () => connect(proxy)));
	expect(new Set(clients.map(workerOf)).size).toBeGreaterThan(2);
	for (let round = 0; round < 5; round++) {
		const answers = await Promise.all(clients.map((client, i) => one(client, `SELECT ${i}`)));
		expect(answers).toEqual(clients.map((_, i) => String(i)));
	}
	expect(await usedBackends(cluster)).toBeLessThanOrEqual(2);
	for (const client of clients) client.close();
});

testWithTool(
	"psql",
	"a Unix socket is listened on beside TCP, for both workers, and its file goes with the proxy",
	async (psql) => {
		const folder = cluster.folder;
		await using proxy = await start({ default_pool_size: 2, unix_socket_dir: folder });
		const path = join(folder, `.s.PGSQL.${proxy.port}`);
		const { code, stdout } = await runTool([psql, "-XAtc", "SELECT 'by socket'"], {
			PGHOST: folder,
			PGPORT: String(proxy.port),
			PGUSER: "pgdog",
			PGPASSWORD: "pgdog",
			PGDATABASE: "pgdog",
		});
		expect({ code, stdout }).toEqual({ code: 0, stdout: "by socket\n" });
		const clients = await Promise.all(
			Array.from({ length: 6 }, () =>
				RawClient.connect({ unix: path, user: "pgdog", password: "pgdog", database: "pgdog" }),
			),
		);
		expect(new Set(clients.map(workerOf)).size).toBe(2);
		const answers = await Promise.all(clients.map((client, i) => one(client, `SELECT ${i}`)));
		expect(answers).toEqual(clients.map((_, i) => String(i)));
		await using tcp = await connect(proxy);
		expect(await one(tcp, "SELECT 'by port'")).toBe("by port");
		for (const client of clients) client.close();
		await proxy.stop("SIGTERM");
		expect(existsSync(path)).toBe(false);
	},
);

test("a socket file left behind by a killed proxy is taken over; a living proxy's is not", async () => {
	const first = await start({ unix_socket_dir: cluster.folder });
	const path = join(cluster.folder, `.s.PGSQL.${first.port}`);
	const again = () =>
		startProxy({
			...simpleConfig(cluster.primary, { unix_socket_dir: cluster.folder, min_pool_size: 0 }),
			env: { PGDOG_PORT: String(first.port) },
			timeout: 5_000,
		});
	await rejects(again());
	await again().catch(() => undefined);
	first.signal("SIGKILL");
	await first.exited;
	expect(existsSync(path)).toBe(true);
	await using second = await again();
	await using client = await RawClient.connect({ unix: path, user: "pgdog", password: "pgdog", database: "pgdog" });
	expect(await one(client, "SELECT 1")).toBe("1");
	expect(second.running).toBe(true);
	await first.stop();
});

test("a port that another process listens on is refused, with any number of workers", async () => {
	const taken = Bun.listen({ hostname: "127.0.0.1", port: 0, reusePort: true, socket: { data() {} } } as never) as {
		port: number;
		stop(force: boolean): void;
	};
	const { failProxy } = await import("../support/proxy.ts");
	for (const workers of [0, 1, 2]) {
		const { code, log } = await failProxy({
			...simpleConfig(cluster.primary, { workers, port: taken.port, host: "127.0.0.1", min_pool_size: 0 }),
		});
		expect(code).toBe(1);
		expect(log).toMatch(/in use|EADDRINUSE/);
	}
	taken.stop(true);
});

test("all of it gone: no backend is left when the proxy has stopped", async () => {
	const proxy = await start({ default_pool_size: 5, min_pool_size: 5 });
	await untilBackends(cluster, 5);
	await proxy.stop("SIGTERM");
	await until(async () => (await backends(cluster)).length === 0, "the backends to end");
});
