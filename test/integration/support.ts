// What the files of this ring share: clients of the proxy, and what PostgreSQL itself sees of the proxy.

import { expect } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import { RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until } from "../support/until.ts";

/** A logged-in client of the usual user and database. */
export function connect(proxy: Proxy, options: RawClientOptions = {}): Promise<RawClient> {
	return RawClient.connect({ port: proxy.port, user: "pgdog", password: "pgdog", database: "pgdog", ...options });
}

/** A session of the admin database. */
export function admin(proxy: Proxy, password = "pgdog"): Promise<RawClient> {
	return connect(proxy, { user: "admin", password, database: "admin" });
}

/** The rows of an admin's SHOW as objects. */
export async function show(console: RawClient, what: string): Promise<Record<string, string | null>[]> {
	const { columns, rows, errors } = await console.query(what);
	expect([what, errors]).toEqual([what, []]);
	return rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i] ?? null])));
}

/** The worker that a client is served by: the proxy's process ids carry it in their upper bits (src/worker.ts). */
export function workerOf(client: RawClient): number {
	return client.backendPid >>> 23;
}

/** Copies of a message, about `size` bytes of them. */
export function repeated(message: Uint8Array, size: number): Buffer {
	return Buffer.alloc(Math.floor(size / message.length) * message.length, message);
}

/**
 * Sends `piece` again and again; after each another client of the same worker asks for something.
 * @returns how many times as long it waits at the end as it did at the beginning, at the best: a busy machine only adds to that
 */
export async function slowdown(
	sender: RawClient,
	piece: Uint8Array,
	count: number,
	ask: () => Promise<unknown>,
): Promise<number> {
	const waits: number[] = [];
	for (let i = 0; i < count; i++) {
		sender.send(piece);
		const start = performance.now();
		await ask();
		waits.push(performance.now() - start);
	}
	const eighth = count >> 3;
	return Math.min(...waits.slice(-eighth)) / Math.min(...waits.slice(0, eighth));
}

/** Clients until each of two workers has `each` of them. The kernel deals connections out as it likes. */
export async function connectToBothWorkers(proxy: Proxy, each: number): Promise<[RawClient[], RawClient[]]> {
	const found: [RawClient[], RawClient[]] = [[], []];
	for (let attempt = 0; attempt < 200 && (found[0].length < each || found[1].length < each); attempt++) {
		const client = await connect(proxy);
		const mine = found[workerOf(client) as 0 | 1];
		if (mine.length < each) mine.push(client);
		else client.close();
	}
	if (found[0].length < each || found[1].length < each) throw new Error("all clients came to one worker");
	return found;
}

/** The value in the first row and column. Throws what the server said when there is none. */
export async function one(client: RawClient, sql: string): Promise<string | null> {
	const { rows, errors } = await client.query(sql);
	const row = rows[0];
	if (!row) throw new Error(JSON.stringify(errors));
	return row[0] ?? null;
}

/** Connections of the role `pgdog` that PostgreSQL has. Asked as `postgres`, who is not counted. */
export async function backends(
	cluster: Cluster,
	user = "pgdog",
): Promise<{ pid: number; state: string; query: string }[]> {
	const rows = await cluster.primary.sql(
		`SELECT pid, state, query FROM pg_stat_activity WHERE usename = '${user}' AND backend_type = 'client backend'`,
	);
	return rows as { pid: number; state: string; query: string }[];
}

/** How many of them clients have had: beside those there may be one of a health check, which is beyond the pool's size. */
export async function usedBackends(cluster: Cluster): Promise<number> {
	return (await backends(cluster)).filter(({ query }) => query !== "" && query !== ";").length;
}

export async function untilBackends(cluster: Cluster, count: number, user = "pgdog"): Promise<void> {
	await until(async () => (await backends(cluster, user)).length === count, `${count} backends of ${user}`);
}

/** The proxy's clients that PostgreSQL cannot know of: a query is waiting for a server when it has not got there. */
export async function untilRunning(cluster: Cluster, pattern: string, count = 1, user = "pgdog"): Promise<void> {
	await until(async () => {
		const running = await backends(cluster, user);
		return running.filter(({ state, query }) => state === "active" && query.includes(pattern)).length === count;
	}, `${count} active ${pattern}`);
}
