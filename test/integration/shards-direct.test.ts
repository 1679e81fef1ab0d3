// Statements that a plugin sends to one shard of three, beside those for all: by both protocols, in transactions and in
// batches. The plugin is `scribe` (test/plugin/fixtures/scribe): a constant or table `to_shard_1` goes to shard 1, what is
// `to_nobody` is blocked.

import { afterAll, afterEach, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { Client } from "pg";
import { BUILD_TIMEOUT, buildFixture, describeWithCargo } from "../plugin/support.ts";
import type { Cluster } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { Notes } from "./routed.ts";
import { intact, letters, onEach, sane, shardedOptions, sqlstates, startSharded, startShards } from "./sharded.ts";
import { connect, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

describeWithCargo("statements for one shard", () => {
	let scribe: string;
	let cluster: Cluster;
	let proxy: Proxy;
	let client: RawClient;

	beforeAll(async () => {
		scribe = buildFixture("scribe");
		cluster = await startShards();
		for (const shard of [0, 1, 2]) await onEach(cluster, `CREATE TABLE to_shard_${shard} (id int)`);
		proxy = await startSharded(cluster, { plugins: [{ name: scribe }] });
	}, BUILD_TIMEOUT);

	afterAll(async () => {
		await proxy?.[Symbol.asyncDispose]();
		await cluster?.stop();
	});

	beforeEach(async () => {
		client = await connect(proxy);
	});

	afterEach(async () => {
		client.reset();
		await onEach(cluster, "TRUNCATE things, to_shard_0, to_shard_1, to_shard_2");
		await using witness = await connect(proxy);
		await intact(cluster, witness, "the test");
		sane(proxy);
	});

	const where = ({ rows }: QueryResult) => rows.map((row) => row.at(-1));
	const at = (shard: number) => `SELECT 'to_shard_${shard}', current_database()`;
	/** Rows of the tables of each shard, as `table:rows`, where there are any. */
	const filled = () =>
		onEach(
			cluster,
			`SELECT coalesce(string_agg(t || ':' || n, ' ' ORDER BY t), '') FROM (
				SELECT 'things' t, count(*) n FROM things UNION ALL SELECT 'to_0', count(*) FROM to_shard_0
				UNION ALL SELECT 'to_1', count(*) FROM to_shard_1 UNION ALL SELECT 'to_2', count(*) FROM to_shard_2
			) counts WHERE n > 0`,
		);
	const run = (sql: string, values: string[] = []) => concat(f.parse(sql), f.bind({ values }), f.execute());

	async function batch(...messages: Uint8Array[]): Promise<QueryResult> {
		client.send(concat(...messages, f.sync()));
		return client.result();
	}

	test("run there alone, by both protocols", async () => {
		for (const shard of [0, 1, 2]) {
			expect(where(await client.query(at(shard)))).toEqual([`s${shard}`]);
			expect(where(await client.extended(at(shard)))).toEqual([`s${shard}`]);
			expect((await client.query(`INSERT INTO to_shard_${shard} VALUES (1), (2)`)).tags).toEqual(["INSERT 0 2"]);
		}
		expect(where(await client.query("SELECT 'to_all', current_database()")).sort()).toEqual(["s0", "s1", "s2"]);
		expect(await filled()).toEqual(["to_0:2", "to_1:2", "to_2:2"]);
	});

	test("do not need a server of another shard", async () => {
		await using other = await connect(proxy);
		other.send(f.query("SELECT 'to_shard_0', pg_sleep(20)"));
		await untilRunning(cluster, "pg_sleep");
		expect(where(await client.query(at(1)))).toEqual(["s1"]);
		other.reset();
	});

	test("that does not exist are refused, and nothing is sent", async () => {
		expect(sqlstates(await client.query(at(3)))).toEqual(["58000"]);
		const extended = await batch(run("INSERT INTO things VALUES (1)"), run(at(3)));
		expect([letters(extended), sqlstates(extended), extended.status]).toEqual(["EZ", ["58000"], "I"]);
		expect(await filled()).toEqual(["", "", ""]);
		await client.query("BEGIN; INSERT INTO things VALUES (1)");
		const inside = await client.query(at(3));
		expect([letters(inside), inside.status]).toEqual(["EZ", "E"]);
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		await client.query("BEGIN");
		expect((await batch(run("SELECT 'to_nobody'"))).status).toBe("E");
		expect((await client.query("ROLLBACK")).status).toBe("I");
		expect(await filled()).toEqual(["", "", ""]);
	});

	test("are part of one transaction, whatever shards it needs, and end with it", async () => {
		await client.query("BEGIN");
		expect((await client.query("INSERT INTO to_shard_1 VALUES (1)")).status).toBe("T");
		expect((await client.query("INSERT INTO to_shard_2 VALUES (1)")).status).toBe("T");
		expect((await client.query("COMMIT")).status).toBe("I");
		expect(await filled()).toEqual(["", "to_1:1", "to_2:1"]);

		await client.query("BEGIN; INSERT INTO things VALUES (1)");
		await client.query("DELETE FROM to_shard_1");
		const failed = await client.query("SELECT 'to_shard_2', 1/0");
		expect([sqlstates(failed), failed.status]).toEqual([["22012"], "E"]);
		const aborted = await client.query(at(0));
		expect([sqlstates(aborted), aborted.status]).toEqual([["25P02"], "E"]);
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		expect(await filled()).toEqual(["", "to_1:1", "to_2:1"]);
	});

	// A batch went where its first statement did.
	test("of one batch go each to its own shard", async () => {
		const result = await batch(run("INSERT INTO to_shard_0 VALUES (1)"), run("INSERT INTO to_shard_2 VALUES (1), (2)"));
		expect([letters(result), result.tags]).toEqual(["12C12CZ", ["INSERT 0 1", "INSERT 0 2"]]);
		const mixed = await batch(run("INSERT INTO things VALUES (1)"), run(at(1)), run("SELECT 1 FROM here"));
		expect([letters(mixed), mixed.tags]).toEqual(["12C12DC12DDDCZ", ["INSERT 0 3", "SELECT 1", "SELECT 3"]]);
		expect(await filled()).toEqual(["things:1 to_0:1", "things:1", "things:1 to_2:2"]);
	});

	test("of one batch are taken back together when one fails", async () => {
		const result = await batch(
			run("INSERT INTO to_shard_0 VALUES (1)"),
			run("SELECT 'to_shard_2', 1/0"),
			run("INSERT INTO to_shard_1 VALUES (1)"),
		);
		expect([letters(result), sqlstates(result), result.status]).toEqual(["12C1EZ", ["22012"], "I"]);
		expect(await filled()).toEqual(["", "", ""]);
	});

	test("are told to plugins as part of their transaction, whether a server knows of it yet or not", async () => {
		const notes = new Notes();
		const { env } = notes;
		await using noted = await startProxy({ ...shardedOptions(cluster, { plugins: [{ name: scribe }] }), env });
		await using mine = await connect(noted);
		const told = () => notes.fresh().map(({ words, transaction }) => `${words[0] ?? "-"} ${transaction}`);
		for (const say of [mine.query, mine.extended]) {
			for (const sql of ["BEGIN", at(1), at(0), "COMMIT", at(2)]) await say.call(mine, sql);
			expect(told()).toEqual(["- false", "to_shard_1 true", "to_shard_0 true", "- true", "to_shard_2 false"]);
		}
		mine.send(run("BEGIN"), run(at(1)), run("COMMIT"), f.sync());
		expect((await mine.result()).status).toBe("I");
		expect(told().slice(0, 2)).toEqual(["- false", "to_shard_1 true"]);
	});

	// As the JDBC driver does: BEGIN and the first statement are one batch.
	test("behind BEGIN in one batch are in its transaction", async () => {
		const begun = await batch(run("BEGIN"), run("INSERT INTO to_shard_1 VALUES (1)"));
		expect([letters(begun), begun.status]).toEqual(["12C12CZ", "T"]);
		expect((await batch(run("INSERT INTO to_shard_0 VALUES (1)"))).status).toBe("T");
		expect(await filled()).toEqual(["", "", ""]);
		expect((await batch(run("ROLLBACK"))).status).toBe("I");
		expect(await filled()).toEqual(["", "", ""]);
	});

	test("after a Flush go where they belong, and a refusal there takes back what came before", async () => {
		client.send(run("INSERT INTO to_shard_0 VALUES (1)"), f.flush());
		await client.until("C");
		client.send(run("INSERT INTO to_shard_1 VALUES (1)"), f.flush());
		await client.until("C");
		client.send(f.sync());
		expect(letters(await client.result())).toBe("Z");
		expect(await filled()).toEqual(["to_0:1", "to_1:1", ""]);

		client.send(run("DELETE FROM to_shard_0"), f.flush());
		await client.until("C");
		client.send(run("SELECT 'to_nobody'"), f.flush());
		expect((await client.next()).code).toBe("E");
		client.send(run("DELETE FROM to_shard_1"), f.sync());
		const result = await client.result();
		expect([letters(result), result.status]).toEqual(["Z", "I"]);
		expect(await filled()).toEqual(["to_0:1", "to_1:1", ""]);
	});

	test("by a Query in the middle of a batch are looked at, too", async () => {
		client.send(f.parse("SELECT 1"), f.flush());
		await client.until("1");
		const blocked = await client.query("SELECT 'to_nobody'");
		expect([letters(blocked), sqlstates(blocked)]).toEqual(["EZ", ["42601"]]);
		client.send(f.parse("SELECT 1"), f.flush());
		await client.until("1");
		expect(where(await client.query(at(2)))).toEqual(["s2"]);
	});

	test("prepared on one shard are known to the others", async () => {
		await batch(f.parse("SELECT current_database() FROM here", "mine"), f.parse(at(1), "first"));
		expect(where(await batch(f.bind({ statement: "first" }), f.execute()))).toEqual(["s1"]);
		expect(where(await batch(f.bind({ statement: "mine" }), f.execute())).sort()).toEqual(["s0", "s1", "s2"]);
		expect(where(await batch(f.parse(at(2), "second"), f.bind({ statement: "second" }), f.execute()))).toEqual(["s2"]);
		expect(letters(await batch(f.describe("S", "second")))).toBe("tTZ");
		expect(letters(await batch(f.close("S", "second")))).toBe("3Z");
		expect(sqlstates(await batch(f.bind({ statement: "second" })))).toEqual(["26000"]);
		expect(sqlstates(await batch(f.parse(at(2), "first")))).toEqual(["42P05"]);
		expect(where(await batch(f.bind({ statement: "first" }), f.execute()))).toEqual(["s1"]);
	});

	// What counts is the statement that the servers have, not the last one that a client tried to give the name.
	test("cannot be passed off as another by a Parse that fails or is skipped", async () => {
		await batch(f.parse("SELECT 'to_nobody'", "x"));
		expect(sqlstates(await batch(f.parse("SELECT 1", "x")))).toEqual(["42P05"]);
		expect(sqlstates(await batch(f.bind({ statement: "x" }), f.execute()))).toEqual(["42601"]);

		await batch(f.parse("SELECT 'to_nobody'"));
		expect(sqlstates(await batch(f.execute("none"), f.parse("SELECT 1")))).toEqual(["34000"]);
		expect(sqlstates(await batch(f.bind(), f.execute()))).toEqual(["42601"]);

		await batch(f.parse("SELECT 'to_nobody'"));
		expect(sqlstates(await batch(f.parse("SELEC")))).toEqual(["42601"]);
		expect(sqlstates(await batch(f.bind(), f.execute()))).toEqual(["26000"]);
	});

	test("have portals that stay where they are", async () => {
		await client.query("BEGIN");
		const sql = "SELECT 'to_shard_1', current_database() FROM generate_series(1, 5)";
		const first = await batch(f.parse(sql), f.bind({ portal: "p" }), f.execute("p", 2));
		expect([letters(first), where(first)]).toEqual(["12DDsZ", ["s1", "s1"]]);
		expect(letters(await batch(f.execute("p", 2)))).toBe("DDsZ");
		expect(letters(await batch(f.describe("P", "p"), f.execute("p", 2), f.close("P", "p")))).toBe("TDC3Z");
		expect((await client.query("COMMIT")).status).toBe("I");
	});

	test("may be COPY, both ways", async () => {
		client.send(f.query("COPY to_shard_2 FROM STDIN"));
		await client.until("G");
		client.send(f.copyData("1\n2\n"), f.copyDone());
		expect((await client.result()).tags).toEqual(["COPY 2"]);
		expect(letters(await client.query("COPY to_shard_2 TO STDOUT"))).toBe("HddcCZ");
		expect(await filled()).toEqual(["", "", "to_2:2"]);
	});

	test("a server that dies elsewhere, in the same transaction, ends it", async () => {
		await client.query("BEGIN");
		await client.query("INSERT INTO to_shard_1 VALUES (1)");
		await client.query("INSERT INTO to_shard_0 VALUES (1)");
		await cluster.primary.sql(
			"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgdog' AND datname = 's0'",
		);
		const last = await client.closed;
		expect(last.filter(({ code }) => code === "E").map(({ body }) => body.toString())).toEqual([
			expect.stringContaining("57P01"),
		]);
		expect(await filled()).toEqual(["", "", ""]);
	});

	test("pg with named statements, here and there", async () => {
		const pg = new Client({ connectionString: proxy.url() });
		await pg.connect();
		for (let i = 0; i < 12; i++) {
			const shard = i % 3;
			const { rows } = await pg.query({ name: `at${shard}`, text: `${at(shard)} AS d, $1::int AS i`, values: [i] });
			expect(rows.map(({ d, i }) => [d, i])).toEqual([[`s${shard}`, i]]);
		}
		await pg.end();
	});

	for (const mode of ["simple", "extended", "prepared"])
		testWithTool(
			"pgbench",
			`pgbench -M ${mode}, two workers, one shard, all, and transactions of both`,
			async (pgbench) => {
				await using two = await startSharded(cluster, {
					plugins: [{ name: scribe }],
					general: { workers: 2, default_pool_size: 4 },
				});
				const one = `${two.folder}/one`;
				const both = `${two.folder}/both`;
				await Bun.write(
					one,
					"\\set id random(1, 100)\nSELECT 'to_shard_1', :id;\nINSERT INTO to_shard_2 VALUES (:id);\n",
				);
				await Bun.write(both, "BEGIN;\nINSERT INTO to_shard_0 VALUES (1);\nSELECT 1;\nEND;\n");
				// Who holds servers in a transaction must not wait for pgbench's preparing: each client has a thread.
				const args = ["-n", "-M", mode, "-c", "4", "-j", "4", "-t", "50", "-f", one, "-f", both];
				const { code, stdout, stderr } = await runTool([pgbench, ...args], {
					PGHOST: "127.0.0.1",
					PGPORT: String(two.port),
					PGUSER: "pgdog",
					PGPASSWORD: "pgdog",
					PGDATABASE: "pgdog",
				});
				expect([code, stderr.replace(/^pgbench \(.*\n/, "")]).toEqual([0, ""]);
				expect(stdout).toContain("number of transactions actually processed: 200/200");
				const counts = (await filled()).map((each) => /to_(\d):(\d+)$/.exec(String(each))?.slice(1));
				expect(counts.map((count) => count?.[0])).toEqual(["0", undefined, "2"]);
				expect(Number(counts[0]![1]) + Number(counts[2]![1])).toBe(200);
				sane(two);
			},
		);
});
