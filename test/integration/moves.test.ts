// Clients that go from one worker to another: they and PostgreSQL notice nothing, and what is known of them is known once.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, connectToBothWorkers, one, show, untilRunning, workerOf } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

/** Files of a proxy whose admin database the tests know the password of. */
function files(general: Record<string, unknown> = {}): Parameters<typeof startProxy>[0] {
	const settings = { workers: 2, log_level: "debug", min_pool_size: 0, ...general };
	const { config, users } = simpleConfig(cluster.primary, settings);
	return withAdmin({ config, users });
}

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(files(general));
}

/** The client was moved, so often. */
function moves(proxy: Proxy, client: RawClient): number {
	return proxy.lines.filter((line) => line.includes(`client ${client.backendPid} goes to worker`)).length;
}

/** Has clients of worker 1 say something until they have gone to worker 0. */
async function move(proxy: Proxy, ...clients: RawClient[]): Promise<void> {
	const isThere = (client: RawClient) => moves(proxy, client) > 0;
	await until(
		async () => {
			await Promise.all(clients.filter((client) => !isThere(client)).map((client) => one(client, "SELECT 1")));
			return clients.every(isThere);
		},
		"the clients to be moved",
		25_000,
	);
}

/** A client of worker 1, with all that a session can have, before `move`. */
async function stranger(proxy: Proxy): Promise<RawClient> {
	const [here, [client]] = await connectToBothWorkers(proxy, 1);
	for (const each of here) each.close();
	return client!;
}

test("settings, statements and the client's key go along", async () => {
	await using proxy = await start({ default_pool_size: 2 });
	await using client = await stranger(proxy);
	await client.query("SET application_name = 'mover'; SET app.tenant = 'seven'; SET search_path = pg_catalog");
	client.send(f.parse("SELECT current_setting('app.tenant'), $1::int", "named"), f.describe("S", "named"), f.sync());
	await client.until("Z");
	client.send(f.parse("SELECT 'unnamed', $1::text"), f.sync());
	await client.until("Z");
	const told = client.received.filter(({ code }) => code === "S").length;
	// What makes it move must not be a Query, which ends an unnamed statement.
	await until(async () => {
		client.send(f.bind({ statement: "named", values: ["1"] }), f.execute(), f.sync());
		expect((await client.result()).rows).toEqual([["seven", "1"]]);
		return moves(proxy, client) > 0;
	}, "the client to be moved");
	client.send(f.bind({ values: ["x"] }), f.execute(), f.sync());
	expect((await client.result()).rows).toEqual([["unnamed", "x"]]);
	client.send(f.bind({ statement: "named", values: ["2"] }), f.execute(), f.sync());
	expect((await client.result()).rows).toEqual([["seven", "2"]]);
	// The name is taken, and free when it is closed.
	client.send(f.parse("SELECT 1", "named"), f.sync());
	expect((await client.result()).errors[0]).toMatchObject({ C: "42P05" });
	client.send(
		f.close("S", "named"),
		f.parse("SELECT 3", "named"),
		f.bind({ statement: "named" }),
		f.execute(),
		f.sync(),
	);
	expect((await client.result()).rows).toEqual([["3"]]);
	expect(await one(client, "SHOW search_path")).toBe("pg_catalog");
	expect(await one(client, "SHOW application_name")).toBe("mover");
	// It was told of its settings before.
	expect(client.received.filter(({ code }) => code === "S").length).toBe(told);
	await client.query("RESET ALL");
	expect(await one(client, "SHOW search_path")).toBe('"$user", public');
	await client.query("BEGIN");
	const running = client.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	for (let i = 0; i < 2; i++) {
		const request = await RawClient.open({ port: proxy.port });
		request.send(f.cancelRequest(client.backendPid, client.backendKey));
		await request.closed;
	}
	const { errors, status } = await running;
	expect([errors[0]?.C, status]).toEqual(["57014", "E"]);
	await client.query("ROLLBACK");
	expect(moves(proxy, client)).toBe(1);
});

test("SHOW CLIENTS shows it once, as it was, at any moment", async () => {
	await using proxy = await start({ default_pool_size: 4 });
	const console = await admin(proxy);
	const [here, there] = await connectToBothWorkers(proxy, 6);
	const all = [...here, ...there];
	const ids = all.map(({ backendPid }) => String(backendPid)).sort();
	let over = false;
	const busy = there.map(async (client) => {
		let queries = 0;
		for (; !over; queries++) expect(await one(client, "SELECT 'busy'")).toBe("busy");
		return queries;
	});
	const rows = async () => (await show(console, "SHOW CLIENTS")).filter(({ database }) => database === "pgdog");
	const before = await rows();
	await until(async () => {
		expect((await rows()).map(({ id }) => id).sort()).toEqual(ids);
		return there.every((client) => moves(proxy, client) > 0);
	}, "all of worker 1 to be moved");
	over = true;
	const queries = await Promise.all(busy);
	const after = new Map((await rows()).map((row) => [row.id, row]));
	expect(after.size).toBe(12);
	for (const [i, client] of there.entries()) {
		const row = after.get(String(client.backendPid))!;
		expect(row.queries).toBe(String(queries[i]));
		expect(row.connect_time).toBe(before.find(({ id }) => id === row.id)!.connect_time!);
	}
	// Whoever says nothing stays.
	for (const client of here) expect(moves(proxy, client)).toBe(0);
	for (const client of all) client.close();
	await until(async () => (await rows()).length === 0, "no client to be left");
});

test("who is in a transaction, has sent a part of a message, or left a batch open stays for so long", async () => {
	await using proxy = await start({ default_pool_size: 5 });
	const [here, there] = await connectToBothWorkers(proxy, 4);
	for (const client of here) client.close();
	const [inside, half, open, free] = there as [RawClient, RawClient, RawClient, RawClient];
	await inside.query("BEGIN");
	const message = f.query("SELECT 'whole'");
	half.send(message.subarray(0, 7));
	open.send(f.parse("SELECT 'late'"), f.bind(), f.flush());
	await open.until("2");
	const busy = async () => {
		await one(inside, "SELECT 1");
		open.send(f.describe("P"), f.flush());
		await open.until("T");
	};
	await until(async () => {
		await busy();
		await one(free, "SELECT 1");
		return moves(proxy, free) > 0;
	}, "the one that is free to be moved");
	for (let i = 0; i < 20; i++) await busy();
	expect([inside, half, open].map((client) => moves(proxy, client))).toEqual([0, 0, 0]);
	half.send(message.subarray(7));
	expect((await half.result()).rows).toEqual([["whole"]]);
	open.send(f.execute(), f.sync());
	expect((await open.result()).rows).toEqual([["late"]]);
	await inside.query("COMMIT");
	await move(proxy, inside, half, open);
	for (const client of there) expect(await one(client, "SELECT 'after'")).toBe("after");
	for (const client of there) client.close();
});

test('with client_placement = "spread" each stays where it is, also after a RELOAD that says so', async () => {
	await using proxy = await start({ default_pool_size: 2, client_placement: "spread" });
	await using client = await stranger(proxy);
	const end = performance.now() + 1_500;
	while (performance.now() < end) await one(client, "SELECT 1");
	expect(moves(proxy, client)).toBe(0);
	proxy.writeConfig(files({ default_pool_size: 2, client_placement: "fill" }).config);
	await (await admin(proxy)).query("RELOAD");
	await move(proxy, client);
});

test("what was prepared before a RELOAD that says `disabled` goes along", async () => {
	await using proxy = await start({ default_pool_size: 2 });
	await using client = await stranger(proxy);
	client.send(f.parse("SELECT 'mine', $1::text", "named"), f.sync());
	await client.until("Z");
	proxy.writeConfig(files({ default_pool_size: 2, prepared_statements: "disabled" }).config);
	await (await admin(proxy)).query("RELOAD");
	const use = async (value: string) => {
		client.send(f.bind({ statement: "named", values: [value] }), f.execute(), f.sync());
		const { rows, errors } = await client.result();
		expect([errors, rows]).toEqual([[], [["mine", value]]]);
	};
	await use("before");
	await move(proxy, client);
	await use("after");
});

test("a RELOAD in the midst of it loses nobody, and takes those away whose user goes", async () => {
	await using proxy = await start({ default_pool_size: 4, log_level: "debug" });
	const console = await admin(proxy);
	const [here, there] = await connectToBothWorkers(proxy, 12);
	for (const client of here) client.close();
	let over = false;
	const busy = there.map(async (client) => {
		while (!over) expect(await one(client, "SELECT 'busy'")).toBe("busy");
	});
	await until(async () => {
		await console.query("RELOAD");
		return there.every((client) => moves(proxy, client) > 0);
	}, "all of worker 1 to be moved");
	over = true;
	await Promise.all(busy);
	proxy.writeUsers([{ name: "other", database: "pgdog", password: "other" }]);
	const left = Promise.all(there.map((client) => client.closed));
	await console.query("RELOAD FORCE");
	for (const messages of await left) expect(messages.at(-1)?.code).toBe("E");
});

test("a shutdown in the midst of it tells everyone", async () => {
	await using proxy = await start({ default_pool_size: 4 });
	const [here, there] = await connectToBothWorkers(proxy, 12);
	for (const client of here) client.close();
	const last = there.map(async (client) => {
		for (;;) {
			const { errors, status } = await client.query("SELECT 1");
			if (status !== "I" || errors.length > 0) return errors[0]?.C;
		}
	});
	await proxy.waitForLog(/goes to worker 0/);
	const code = proxy.stop("SIGTERM");
	expect(await Promise.all(last)).toEqual(there.map(() => "57P01"));
	expect(await code).toBe(0);
});

test("of three workers the clients come together on the first, and PostgreSQL sees no more servers than there may be", async () => {
	await using proxy = await start({ workers: 3, default_pool_size: 2 });
	const clients = await Promise.all(Array.from({ length: 12 }, () => connect(proxy)));
	const elsewhere = clients.filter((client) => workerOf(client) > 0);
	expect(elsewhere.length).toBeGreaterThan(0);
	await until(
		async () => {
			await Promise.all(clients.map(async (client, i) => expect(await one(client, `SELECT ${i}`)).toBe(String(i))));
			return elsewhere.every((client) => moves(proxy, client) > 0);
		},
		"all clients to be with worker 0",
		25_000,
	);
	expect(await proxy.stop("SIGTERM")).toBe(0);
});
