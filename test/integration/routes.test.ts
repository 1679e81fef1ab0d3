// SHOW ROUTES after live traffic: who decided, which server, how long it was waited for, what was refused.

import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { frontend } from "../support/wire-frames.ts";
import { errorOf, startRouted, startServers } from "./routed.ts";
import { startSharded, startShards } from "./sharded.ts";
import { admin, connect, show } from "./support.ts";

let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	cluster = await startServers();
	await cluster.primary.sql("CREATE TABLE t (id int)", { user: "pgdog" });
	await cluster.replicated();
	proxy = await startRouted(cluster);
}, 60_000);

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

type Row = Record<string, string | null>;

async function routes(of: Proxy, client: RawClient): Promise<Row[]> {
	await using console = await admin(of);
	return (await show(console, "SHOW ROUTES 10000")).filter((row) => row.client_id === String(client.backendPid));
}

const PRIMARY = () => `127.0.0.1:${cluster.primary.port}`;
const REPLICA = () => `127.0.0.1:${cluster.replicas[0]!.port}`;

test("each decider is named, newest first, with the shape of the text and the server", async () => {
	await using client = await connect(proxy);
	await client.query("INSERT INTO t VALUES (4711), (4712)");
	await client.extended("SELECT $1::int, 'secret'", ["1"]);
	await client.query("/* pgdog_role: replica */ SELECT 'secret', 2");
	await client.query("SET pgdog.role = 'replica'");
	await client.query("SELECT 3");
	await client.query("RESET pgdog.role");
	await client.query("BEGIN READ WRITE");
	await client.query("SELECT 4");
	await client.query("SELECT 5");
	await client.query("COMMIT");
	const all = await routes(proxy, client);
	expect(all.map((row) => [row.query, row.decided_by, row.side])).toEqual([
		["SELECT ?", "transaction", "primary"],
		["SELECT ?", "pgdog setting", "replica"],
		["SELECT ?, …", "comment", "replica"],
		["SELECT $1::int, ?", "statement", "any"],
		["INSERT INTO t VALUES (?), (?)", "statement", "primary"],
	]);
	expect(JSON.stringify(all.map((row) => row.query))).not.toMatch(/secret|471/);
	const either = all[3]!.server!;
	expect(all.map((row) => row.server)).toEqual([PRIMARY(), REPLICA(), REPLICA(), either, PRIMARY()]);
	expect([PRIMARY(), REPLICA()]).toContain(either);
	for (const row of all) expect(row).toMatchObject({ user: "pgdog", database: "pgdog", shard: "0", error: null });
});

test("prefer_primary decides as read_write_split", async () => {
	await using preferring = await startRouted(cluster, [], { read_write_split: "prefer_primary" });
	await using client = await connect(preferring);
	await client.query("SELECT 1");
	expect((await routes(preferring, client))[0]).toMatchObject({ decided_by: "read_write_split", server: PRIMARY() });
});

test("a read that goes to the primary for the sake of its client's write is told as one", async () => {
	const general = {
		read_after_write: "primary",
		read_after_write_window: 600_000,
		read_write_split: "exclude_primary",
	};
	await using careful = await startRouted(cluster, [], { ...general, expanded_explain: true });
	await using client = await connect(careful);
	await client.query("SELECT 1");
	await client.query("INSERT INTO t VALUES (1)");
	await client.query("SELECT 2");
	const plan = (await client.query("EXPLAIN SELECT 3")).rows.flat().join("\n");
	expect(plan).toContain("read_after_write");
	const all = await routes(careful, client);
	expect(all.map((row) => [row.decided_by, row.side, row.server])).toEqual([
		["read_after_write", "primary", PRIMARY()],
		["read_after_write", "primary", PRIMARY()],
		["statement", "primary", PRIMARY()],
		["statement", "any", REPLICA()],
	]);
});

test("who waited for a server is told with the time", async () => {
	await using scarce = await startRouted(cluster, [], { default_pool_size: 1, read_write_split: "prefer_primary" });
	await using holder = await connect(scarce);
	await using client = await connect(scarce);
	await holder.query("BEGIN");
	await holder.query("SELECT 1");
	client.send(frontend.query("SELECT 'waits'"));
	await holder.query("SELECT pg_sleep(0.05)");
	await holder.query("COMMIT");
	await client.result();
	await client.query("SELECT 'does not', 'wait'");
	const [second, first] = await routes(scarce, client);
	expect(first?.query).toBe("SELECT ?");
	expect(Number(first?.wait)).toBeGreaterThan(10);
	expect(Number(second?.wait)).toBe(0);
});

test("a thousand statements leave a bounded number of rows", async () => {
	await using client = await connect(proxy);
	for (let batch = 0; batch < 10; batch++) {
		client.send(...Array.from({ length: 100 }, (_, i) => frontend.query(`SELECT ${batch}, ${i}, 'x${i}'`)));
		for (let i = 0; i < 100; i++) expect(errorOf(await client.result())).toBeNull();
	}
	const all = await routes(proxy, client);
	expect(all.length).toBe(512);
	expect(new Set(all.map((row) => row.query))).toEqual(new Set(["SELECT ?, …"]));
});

test("shards: the shard, and what was refused", async () => {
	await using shards = await startShards();
	await using sharded = await startSharded(shards);
	await using client = await connect(sharded);
	await client.query("/* pgdog_shard: 1 */ SELECT 1");
	await client.query("SELECT * FROM things");
	await client.query("/* pgdog_shard: 7 */ SELECT 2");
	const all = await routes(sharded, client);
	expect(all[0]).toMatchObject({ decided_by: "comment", server: "", error: "no such shard: 7" });
	expect(all.slice(1, 4).map((row) => [row.shard, row.decided_by])).toEqual(Array(3).fill(["all", "statement"]));
	expect(all[4]).toMatchObject({ shard: "1", decided_by: "comment", error: null });
	expect(all).toHaveLength(5);
}, 30_000);
