// A proxy that may open few files, and more clients than that: some are served, the rest are told, nobody hangs.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { LoginError, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { admin, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(async () => {
	await cluster?.stop();
});

function start(files: number, general: Record<string, unknown>): Promise<Proxy> {
	const simple = simpleConfig(cluster.primary, general);
	return startProxy({ ...withAdmin(simple), files });
}

/** A client, or the SQLSTATE of why not; "closed" when there was no room for a word. */
async function knock(proxy: Proxy): Promise<RawClient | string> {
	try {
		return await connect(proxy);
	} catch (error) {
		return error instanceof LoginError ? error.fields.C! : "closed";
	}
}

// Pools that took the last descriptor left nobody one to be accepted and refused with.
test("pools larger than the limit take what there is, wait for the rest, and nobody hangs", async () => {
	const settings = { workers: 2, default_pool_size: 90, min_pool_size: 0, checkout_timeout: 10_000 };
	await using proxy = await start(96, { ...settings, client_connection_recovery: "recover" });
	await using console = await admin(proxy);
	const clients: RawClient[] = [];
	for (let next = await knock(proxy); next instanceof RawClient; next = await knock(proxy)) clients.push(next);
	// Each of them wants a server at the same moment: whoever looks what is left, in whatever thread, must not take it twice.
	await console.query("PAUSE");
	// A worker that is late to hear of it may serve some before.
	let served = 0;
	const ask = async (client: RawClient) => {
		const answer = await client.query("SELECT pg_sleep(0.2)");
		served++;
		return answer;
	};
	const asked = Promise.all(clients.map(ask));
	await until(async () => {
		const pools = await show(console, "SHOW POOLS");
		return pools.reduce((sum, { cl_waiting }) => sum + Number(cl_waiting), served) === clients.length;
	}, "all to wait");
	let most = 0;
	const look = setInterval(() => {
		most = Math.max(most, readdirSync(`/proc/${proxy.pid}/fd`).length);
	}, 1);
	await console.query("RESUME");
	const answers = await asked;
	clearInterval(look);
	expect(most).toBeGreaterThan(80);
	expect(most).toBeLessThan(88);
	// All are served by those that could be opened.
	expect(answers.flatMap(({ errors }) => errors)).toEqual([]);
	for (let next = await knock(proxy); next instanceof RawClient; next = await knock(proxy)) clients.push(next);
	await using late = await admin(proxy);
	expect(await show(late, "SHOW BANS")).toEqual([]);
	for (const client of clients) client.close();
});

test.each([1, 2])(
	"clients beyond the limit are told with %p workers, the others get their servers, and an admin in",
	async (workers) => {
		await using proxy = await start(96, { workers, default_pool_size: 4, min_pool_size: 0, log_connections: false });
		await proxy.waitForLog(
			/WARNING 96 file descriptors .* pools of up to 4 server connections leave room for \d+ clients/,
		);
		const outcomes = await Promise.all(Array.from({ length: 150 }, () => knock(proxy)));
		const clients = outcomes.filter((outcome) => typeof outcome !== "string");
		const told = outcomes.filter((outcome) => outcome === "53300");
		const closed = outcomes.filter((outcome) => outcome === "closed");
		expect(clients.length + told.length + closed.length).toBe(150);
		expect(clients.length).toBeGreaterThan(20);
		expect(told.length).toBeGreaterThan(0);
		// Whoever is in is served, by as many servers as the pool may have.
		const pids = await Promise.all(clients.map((client) => one(client, "SELECT pg_backend_pid() FROM pg_sleep(0.02)")));
		expect(new Set(pids).size).toBe(4);
		// Those who were told have gone, and what they had is for others: until it is full once more.
		for (let next = await knock(proxy); next instanceof RawClient; next = await knock(proxy)) clients.push(next);
		await using console = await admin(proxy);
		const errors = (await show(console, "SHOW STATS")).map(({ total_errors }) => Number(total_errors));
		expect(errors[0]).toBeGreaterThanOrEqual(told.length);
		expect((await show(console, "SHOW POOLS")).map((pool) => Number(pool.errors))).toEqual(errors);
		await proxy.waitForLog(/WARNING sorry, too many clients already/);
		expect(proxy.lines.filter((line) => /WARNING sorry, too many clients already/.test(line))).toHaveLength(1);
		for (const client of clients) client.close();
		await until(async () => {
			const next = await knock(proxy);
			if (typeof next === "string") return false;
			next.close();
			return true;
		}, "room for a client");
	},
);
