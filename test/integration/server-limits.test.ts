// Limits on servers that several pools have together: what one does not need is the other's, and nobody starves.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyOptions, simpleConfig, startProxy } from "../support/proxy.ts";
import type { LoginError, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { admin, backends, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

/** Three users of one database, all of them `pgdog` to the server. */
function files(general: Record<string, unknown>): Pick<ProxyOptions, "config" | "users"> {
	const quiet = { min_pool_size: 0, idle_healthcheck_interval: 0, log_connections: false, checkout_timeout: 10_000 };
	const { config } = simpleConfig(cluster.primary, { default_pool_size: 4, ...quiet, ...general });
	const { databases } = config as { databases: Record<string, unknown>[] };
	const other = { ...databases[0], name: "other", database_name: "pgdog" };
	const server = { server_user: "pgdog", server_password: "pgdog", password: "pgdog" };
	const users = ["a", "b", "c"].map((name) => ({ name, databases: ["pgdog", "other"], ...server }));
	return {
		config: { ...(config as object), databases: [...databases, other], admin: { password: "pgdog" } },
		users: users as never,
	};
}

/** Asks again and again, until told to stop. @returns how often it was answered, and the longest wait (ms) */
function busy(
	client: RawClient,
	sql = "SELECT pg_sleep(0.01)",
): { stop(): Promise<{ answers: number; longest: number }> } {
	let over = false;
	const work = (async () => {
		let [answers, longest] = [0, 0];
		while (!over) {
			const began = performance.now();
			expect((await client.query(sql)).errors).toEqual([]);
			longest = Math.max(longest, performance.now() - began);
			answers++;
		}
		return { answers, longest };
	})();
	return {
		stop() {
			over = true;
			return work;
		},
	};
}

function of(proxy: Proxy, user: string, count: number, database = "pgdog"): Promise<RawClient[]> {
	return Promise.all(Array.from({ length: count }, () => connect(proxy, { user, database })));
}

test.each([1, 2])("max_db_connections with %p workers: an idle server of another user makes room", async (workers) => {
	await using proxy = await startProxy(files({ workers, max_db_connections: 3 }));
	let most = 0;
	const watch = async () => {
		most = Math.max(most, (await backends(cluster)).length);
	};
	for (let round = 0; round < 6; round++) {
		const clients = await of(proxy, "abc"[round % 3]!, 4);
		const began = performance.now();
		const answers = await Promise.all(clients.map((client) => one(client, "SELECT 'here', pg_sleep(0.05)")));
		expect(answers).toEqual(["here", "here", "here", "here"]);
		expect(performance.now() - began).toBeLessThan(5_000);
		await watch();
		for (const client of clients) client.close();
	}
	expect(most).toBeGreaterThan(0);
	expect(most).toBeLessThanOrEqual(3);
	await proxy.waitForLog(/closing server connection: another pool of its database or user needs the room/);
	// Another entry of [[databases]] is not concerned.
	const [others] = await of(proxy, "a", 1, "other");
	expect(await one(others!, "SELECT 1")).toBe("1");
});

test.each([
	[1, 1],
	[2, 1],
	[2, 4],
])("users whose clients never rest share what there is: %p workers, %p servers", async (workers, servers) => {
	await using proxy = await startProxy(files({ workers, max_db_connections: servers }));
	const first = (await of(proxy, "a", 6)).map((client) => busy(client));
	await Bun.sleep(300);
	const second = (await of(proxy, "b", 6)).map((client) => busy(client));
	for (let look = 0; look < 10; look++) {
		await Bun.sleep(200);
		expect((await backends(cluster)).length).toBeLessThanOrEqual(servers);
	}
	for (const all of [first, second]) {
		const results = await Promise.all(all.map((each) => each.stop()));
		expect(Math.min(...results.map(({ answers }) => answers))).toBeGreaterThan(0);
		expect(Math.max(...results.map(({ longest }) => longest))).toBeLessThan(5_000);
	}
});

test("max_user_connections counts a user's servers of all databases, and a reload brings, raises and lowers it", async () => {
	await using proxy = await startProxy(files({ workers: 2 }));
	await using console = await admin(proxy);
	const reload = async (general: Record<string, unknown>) => {
		proxy.writeConfig(files({ workers: 2, ...general }).config);
		expect((await console.query("RELOAD")).errors).toEqual([]);
	};
	// One by one: of clients that log in at once each may bring a server, and another then serve it.
	const clients: RawClient[] = [];
	for (const database of ["pgdog", "pgdog", "pgdog", "other", "other", "other"]) {
		const [client] = await of(proxy, "a", 1, database);
		await client!.query("BEGIN");
		clients.push(client!);
	}
	expect(await backends(cluster)).toHaveLength(6);
	// Lowered below what is in use: nobody loses a server, and nobody gets one more.
	await reload({ max_user_connections: 2 });
	for (const client of clients) expect(await one(client, "SELECT 1")).toBe("1");
	const [late] = await of(proxy, "a", 1);
	const answer = one(late!, "SELECT 'late'");
	await until(
		async () => (await show(console, "SHOW POOLS")).some(({ cl_waiting }) => cl_waiting === "1"),
		"it to wait",
	);
	expect(await backends(cluster)).toHaveLength(6);
	const [other] = await of(proxy, "b", 1);
	expect(await one(other!, "SELECT 'not concerned'")).toBe("not concerned");
	for (const client of clients) await client.query("COMMIT");
	expect(await answer).toBe("late");
	await reload({ max_user_connections: 2, idle_timeout: 100 });
	await until(async () => (await backends(cluster)).length === 0, "what is idle to be closed");
	const again = await Promise.all(clients.map((client) => one(client, "SELECT 'again', pg_sleep(0.05)")));
	expect(again).toEqual(clients.map(() => "again"));
	await reload({ max_user_connections: 5, idle_timeout: 60_000 });
	const held = await Promise.all(clients.slice(0, 5).map((client) => client.query("BEGIN")));
	expect(held.flatMap(({ errors }) => errors)).toEqual([]);
	expect(await backends(cluster)).toHaveLength(5);
});

test("who waits in vain is told which limit it is", async () => {
	await using proxy = await startProxy(files({ workers: 1, max_db_connections: 1, checkout_timeout: 300 }));
	const [first] = await of(proxy, "a", 1);
	await first!.query("BEGIN");
	const { fields } = (await connect(proxy, { user: "b" }).catch((error) => error)) as LoginError;
	expect(fields).toMatchObject({ C: "53300", M: "checkout timeout" });
	expect(fields.D).toContain("0 of 4 server connections of this pool are in use, and 1 of 1 by max_db_connections");
	expect(fields.H).toContain("max_db_connections");
	expect((await first!.query("COMMIT")).errors).toEqual([]);
});

test.each([1, 2])(
	"the reserve is for clients that have waited, and given up when nobody needs it, with %p workers",
	async (workers) => {
		const reserve = { default_pool_size: 1, reserve_pool_size: 2, reserve_pool_timeout: 1_000 };
		await using proxy = await startProxy(files({ workers, ...reserve }));
		const clients = await of(proxy, "a", 5);
		// The pool is large enough for who waits for less, as all do where the machine has time for us.
		const asked = performance.now();
		await Promise.all(clients.map((client) => one(client, "SELECT pg_sleep(0.02)")));
		if (performance.now() - asked < 1_000) expect(await backends(cluster)).toHaveLength(1);
		else await until(async () => (await backends(cluster)).length === 1, "the reserve to be given up");
		await clients[0]!.query("BEGIN");
		const began = performance.now();
		await clients[1]!.query("BEGIN");
		expect(performance.now() - began).toBeGreaterThan(900);
		await clients[2]!.query("BEGIN");
		expect(await backends(cluster)).toHaveLength(3);
		const last = one(clients[3]!, "SELECT 'served'");
		await Bun.sleep(1_500);
		expect(await backends(cluster)).toHaveLength(3);
		await clients[2]!.query("COMMIT");
		expect(await last).toBe("served");
		for (const client of clients.slice(0, 2)) await client.query("COMMIT");
		await until(async () => (await backends(cluster)).length === 1, "the reserve to be given up");
		await proxy.waitForLog(/closing server connection: reserve_pool_timeout/);
		// A reload that takes it away ends no transaction.
		await Promise.all(clients.slice(0, 2).map((client) => client.query("BEGIN")));
		proxy.writeConfig(files({ workers, ...reserve, reserve_pool_size: 0 }).config);
		await using console = await admin(proxy);
		expect((await console.query("RELOAD")).errors).toEqual([]);
		for (const client of clients.slice(0, 2)) expect(await one(client, "SELECT 1")).toBe("1");
		for (const client of clients.slice(0, 2)) await client.query("COMMIT");
		await until(async () => (await backends(cluster)).length === 1, "one to be closed");
	},
);

test.each([1, 2])(
	"an idle server of another user makes room for the reserve, too, with %p workers",
	async (workers) => {
		const reserve = { default_pool_size: 1, reserve_pool_size: 1, reserve_pool_timeout: 200, max_db_connections: 2 };
		await using proxy = await startProxy(files({ workers, ...reserve, checkout_timeout: 3_000 }));
		const clients = await of(proxy, "a", 2);
		await using other = await connect(proxy, { user: "b" });
		expect(await one(other, "SELECT 1")).toBe("1");
		for (const client of clients) expect((await client.query("BEGIN")).errors).toEqual([]);
		await proxy.waitForLog(/another pool of its database or user needs the room/);
		for (const client of clients) await client.query("COMMIT");
		expect(await one(other, "SELECT 1")).toBe("1");
	},
);
