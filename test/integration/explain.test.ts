// `expanded_explain`: where an EXPLAIN was sent and why, behind its plan. Nothing else of the answer changes.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { frontend } from "../support/wire-frames.ts";
import { codes, pipelined, startRouted, startServers } from "./routed.ts";
import { startSharded, startShards } from "./sharded.ts";
import { connect } from "./support.ts";

let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	cluster = await startServers();
	await cluster.primary.sql("CREATE TABLE t (id int)", { user: "pgdog" });
	await cluster.replicated();
	proxy = await startRouted(cluster, [], { expanded_explain: true });
}, 60_000);

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

const PROTOCOLS: [string, (client: RawClient, sql: string) => Promise<QueryResult>][] = [
	["simple", (client, sql) => client.query(sql)],
	["extended", (client, sql) => client.extended(sql)],
];

/** The lines behind the plan. */
function routing(result: QueryResult): (string | null | undefined)[] {
	const lines = result.rows.map(([line]) => line);
	const begin = lines.indexOf("PgDog Routing:");
	return begin < 0 ? [] : lines.slice(begin - 1);
}

/** As the lines must be. */
function said(role: string, decidedBy: string, server: "primary" | "replica"): string[] {
	const { port } = server === "primary" ? cluster.primary : cluster.replicas[0]!;
	return [
		"",
		"PgDog Routing:",
		`  Summary: shard=0 role=${role}`,
		`  Shard 0: decided by ${decidedBy}`,
		`  Note: sent to ${server} 127.0.0.1:${port}`,
	];
}

describe.each(PROTOCOLS)("%s protocol", (_, say) => {
	test("a write, a read, a hint, a setting, a transaction", async () => {
		await using client = await connect(proxy);
		expect(routing(await say(client, "EXPLAIN ANALYZE DELETE FROM t"))).toEqual(
			said("primary", "statement", "primary"),
		);
		expect(routing(await say(client, "/* pgdog_role: replica */ EXPLAIN SELECT 1"))).toEqual(
			said("replica", "comment", "replica"),
		);
		const found = new Set<string>();
		for (let i = 0; i < 32; i++) found.add(String(routing(await say(client, "EXPLAIN (COSTS off) SELECT 1"))));
		expect([...found].sort()).toEqual(
			[said("replica", "statement", "primary"), said("replica", "statement", "replica")].map(String).sort(),
		);
		await client.query("SET pgdog.role = 'replica'");
		expect(routing(await say(client, "EXPLAIN ANALYZE SELECT 1"))).toEqual(said("replica", "pgdog setting", "replica"));
		await client.query("BEGIN READ ONLY");
		expect(routing(await say(client, "EXPLAIN SELECT 1"))).toEqual(said("replica", "pgdog setting", "replica"));
		expect(routing(await say(client, "EXPLAIN SELECT 2"))).toEqual(said("replica", "transaction", "replica"));
		await client.query("COMMIT");
		await client.query("RESET pgdog.role");
		await client.query("BEGIN");
		expect(routing(await say(client, "EXPLAIN SELECT 1"))).toEqual(said("primary", "transaction", "primary"));
		await client.query("COMMIT");
	});

	test("the description of the rows and the rest of the answer are PostgreSQL's", async () => {
		await using client = await connect(proxy);
		await using straight = await connect(proxy, { port: cluster.port });
		const sql = "EXPLAIN (COSTS off) SELECT id FROM t WHERE id = 1";
		const [got, wanted] = [await say(client, sql), await say(straight, sql)];
		expect(got.rows.slice(0, -5)).toEqual(wanted.rows);
		expect(codes(got).replace("DDDDD", "")).toBe(codes(wanted));
		expect([got.columns, got.tags, got.status]).toEqual([wanted.columns, wanted.tags, wanted.status]);
	});

	test("other formats, other statements and failures are left alone", async () => {
		await using client = await connect(proxy);
		const untouched = [
			"EXPLAIN (FORMAT json) SELECT 1",
			"EXPLAIN (FORMAT yaml) SELECT 1",
			"EXPLAIN (FORMAT xml) DELETE FROM t",
			"SELECT 'EXPLAIN'",
			"EXPLAIN SELECT * FROM nowhere",
		];
		for (const sql of untouched) expect(routing(await say(client, sql))).toEqual([]);
		expect(routing(await say(client, "SELECT 1"))).toEqual([]);
	});
});

test("in a pipeline each EXPLAIN gets its own lines or none, and nobody else's", async () => {
	await using client = await connect(proxy);
	const texts = ["SELECT 1", "EXPLAIN SELECT 1", "EXPLAIN (FORMAT json) SELECT 1", "EXPLAIN DELETE FROM t", "SELECT 2"];
	const results = await pipelined(client, texts.length, ...texts.map(frontend.query));
	expect(results.map((result) => routing(result).length)).toEqual([0, 5, 0, 5, 0]);
});

test("off by default", async () => {
	await using plain = await startRouted(cluster);
	await using client = await connect(plain);
	expect(routing(await client.query("EXPLAIN SELECT 1"))).toEqual([]);
});

// Each shard that was asked wrote a block of its own between the plans.
test("shards: one block behind all plans names each that was asked", async () => {
	await using shards = await startShards();
	await using sharded = await startSharded(shards, { general: { expanded_explain: true } });
	await using client = await connect(sharded);
	const one = routing(await client.query("/* pgdog_shard: 1 */ EXPLAIN SELECT 1"));
	expect(one.slice(1, 4)).toEqual([
		"PgDog Routing:",
		"  Summary: shard=1 role=primary",
		"  Shard 1: decided by comment",
	]);
	expect(one).toHaveLength(5);
	for (const say of [client.query, client.extended]) {
		const all = routing(await say.call(client, "EXPLAIN SELECT * FROM things"));
		expect(all).toEqual([
			"",
			"PgDog Routing:",
			"  Summary: shard=all role=primary",
			"  All shards: decided by statement",
			...[0, 1, 2].map((shard) => `  Note: shard ${shard} sent to primary 127.0.0.1:${shards.port}`),
		]);
	}
	expect(routing(await client.query("SELECT 1"))).toEqual([]);
	expect(routing(await client.query("EXPLAIN SELECT * FROM lonely"))).toEqual([]);
	expect(routing(await client.query("SELECT 1"))).toEqual([]);
}, 30_000);
