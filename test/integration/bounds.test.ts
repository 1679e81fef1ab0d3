// What one client, or one server, makes the proxy keep has a bound, and the time it takes grows with its size and no faster. Each
// row sends a lot of one thing and looks at the process: what it has grown by, and what time it took.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
beforeAll(async () => {
	cluster = await startPostgres();
	const simple = simpleConfig(cluster.primary, { workers: 1, default_pool_size: 3 });
	proxy = await startProxy(withAdmin(simple));
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

/** Resident memory, MB: now, and the most since `resetPeak`. */
function memory(which: "VmRSS" | "VmHWM"): number {
	const status = readFileSync(`/proc/${proxy.pid}/status`, "utf8");
	return Number(new RegExp(`${which}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

/** proc(5), "clear_refs". */
function resetPeak(): void {
	writeFileSync(`/proc/${proxy.pid}/clear_refs`, "5");
}

/** Processor time that it has used, s: a busy machine does not change it. */
function processorTime(): number {
	const fields = readFileSync(`/proc/${proxy.pid}/stat`, "utf8").split(") ")[1]!.split(" ");
	return (Number(fields[11]) + Number(fields[12])) / 100;
}

const ROWS: [name: string, mb: number, seconds: number, send: (client: RawClient) => Promise<void>][] = [
	[
		"50 values of 1 MB for one setting",
		80,
		3,
		async (client) => {
			for (let i = 0; i < 50; i++) await client.query(`SET app.x = '${i}${"x".repeat(1_000_000)}'`);
		},
	],
	[
		"2,000 settings",
		100,
		3,
		async (client) => {
			for (let from = 0; from < 2_000; from += 50) {
				const sets = Array.from({ length: 50 }, (_, i) => `SET app.s${from + i} = 'x'`);
				for (const sql of sets.slice(0, 5)) await client.query(sql);
				await client.query(sets.join("; "));
			}
			expect(await one(client, "SHOW app.s1999")).toBe("x");
		},
	],
	[
		"calls of set_config within each other",
		100,
		3,
		async (client) => {
			const deep = 40_000;
			await client.query(`SELECT ${"set_config('a.x', ".repeat(deep)}'y'${", false)".repeat(deep)}`);
		},
	],
];

test.each(ROWS)("%s", async (_, mb, seconds, send) => {
	await using client = await connect(proxy, { timeout: 30_000 });
	await one(client, "SELECT 1");
	resetPeak();
	const before = { memory: memory("VmRSS"), time: processorTime() };
	await send(client);
	expect(memory("VmHWM") - before.memory).toBeLessThan(mb);
	expect(processorTime() - before.time).toBeLessThan(seconds);
	expect(await one(client, "SELECT 1")).toBe("1");
});

test("settings beyond what is kept: the next request says so, the session goes on with those of before", async () => {
	await using client = await connect(proxy, { timeout: 30_000 });
	await client.query("SET app.kept = 'yes'");
	for (const sql of [
		"SELECT set_config('app.big', repeat('x', 5000000), false) IS NULL",
		`SELECT ${Array.from({ length: 50 }, (_, i) => `set_config('app.b${i}', repeat('x', 1000000), false) IS NULL`)}`,
	]) {
		expect((await client.query(sql)).errors).toEqual([]);
		const { errors, status } = await client.query("SELECT 1");
		expect([errors[0]?.C, errors[0]?.S, status]).toEqual(["53200", "ERROR", "I"]);
		expect(await one(client, "SHOW app.kept")).toBe("yes");
		expect(await one(client, "SELECT COALESCE(current_setting('app.big', true), '')")).toBe("");
	}
});

test("who asks for what the proxy answers by itself is not read for ever behind a slow query", async () => {
	await using client = await connect(proxy, { timeout: 30_000, parameters: { application_name: "flood" } });
	await using console = await admin(proxy);
	client.send(f.parse("SELECT 1", "s"), f.sync());
	await client.result();
	await client.query("BEGIN");
	const pairs = Array.from({ length: 100_000 }, (_, i) => [f.parse("SELECT 1", `n${i}`), f.close("S", `n${i}`)]);
	const flood = Buffer.concat(pairs.flat());
	const slow = client.query("SELECT pg_sleep(2)");
	client.send(flood, f.sync());
	let received = 0;
	const answered = slow.then(() => true);
	while (!(await Promise.race([answered, Bun.sleep(20).then(() => false)]))) {
		const clients = await show(console, "SHOW CLIENTS");
		// Without the rows of a worker that has no time to send them, which a WARNING says.
		const flooding = clients.find(({ application_name }) => application_name === "flood");
		if (flooding !== undefined && flooding.state !== "idle in transaction") received = Number(flooding.bytes_received);
	}
	expect(received).toBeGreaterThan(100_000);
	// 65,536 answers that are owed, what is held besides, and what one read brings, which is more on a busy machine.
	expect(received).toBeLessThan((flood.length * 2) / 3);
	expect((await client.result()).errors).toEqual([]);
});
