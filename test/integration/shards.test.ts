// Three shards behind the compiled proxy, one server each: statements for all of them by both protocols and by drivers,
// answered as one server would; transactions that are open, failed or over on all shards alike.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { Client, Pool } from "pg";
import postgres from "postgres";
import type { Cluster } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { intact, letters, onEach, sane, shardedOptions, sqlstates, startSharded, startShards } from "./sharded.ts";
import { connect, connectToBothWorkers, repeated, slowdown, untilRunning, usedBackends } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
let client: RawClient;

beforeAll(async () => {
	cluster = await startShards();
	proxy = await startSharded(cluster);
});

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

beforeEach(async () => {
	client = await connect(proxy);
});

afterEach(async () => {
	client.reset();
	await onEach(cluster, "TRUNCATE things, kept, copied");
	await using witness = await connect(proxy);
	await intact(cluster, witness, "the test");
	sane(proxy);
});

const counts = () => onEach(cluster, "SELECT count(*)::int FROM things");
const sorted = (rows: (string | null)[][]) => rows.map((row) => row.join(",")).sort();

/** Sends the messages in one write and reads `answers` ReadyForQuery. */
async function pipelined(answers: number, ...messages: Uint8Array[]) {
	client.send(concat(...messages));
	const results = [];
	for (let i = 0; i < answers; i++) results.push(await client.result());
	return results;
}

describe("the simple protocol", () => {
	test("SELECT gives the rows of all shards once described, and their number", async () => {
		const result = await client.query("SELECT current_database() FROM here");
		expect(letters(result)).toBe("TDDDCZ");
		expect(sorted(result.rows)).toEqual(["s0", "s1", "s2"]);
		expect(result.tags).toEqual(["SELECT 3"]);
		expect(result.status).toBe("I");
	});

	test("INSERT, UPDATE and DELETE reach all shards, and their counts are summed", async () => {
		expect((await client.query("INSERT INTO things VALUES (1), (2)")).tags).toEqual(["INSERT 0 6"]);
		expect((await client.query("UPDATE things SET note = 'x' WHERE id = 1")).tags).toEqual(["UPDATE 3"]);
		const returned = await client.query("DELETE FROM things WHERE id = 2 RETURNING id");
		expect([returned.rows, returned.tags]).toEqual([[["2"], ["2"], ["2"]], ["DELETE 3"]]);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("several statements in one Query, an empty one, and none", async () => {
		const result = await client.query(
			"INSERT INTO things VALUES (1); SELECT id FROM things; SELECT id FROM things WHERE false",
		);
		expect(letters(result)).toBe("CTDDDCTCZ");
		expect(result.tags).toEqual(["INSERT 0 3", "SELECT 3", "SELECT 0"]);
		expect(letters(await client.query(""))).toBe("IZ");
		expect(letters(await client.query(" -- nothing"))).toBe("IZ");
	});

	test("an error of all shards, of one, and of no statement at all is told once", async () => {
		const divided = await client.query("SELECT 1/0 FROM here");
		expect([letters(divided), sqlstates(divided)]).toEqual(["EZ", ["22012"]]);
		const lonely = await client.query("SELECT * FROM lonely");
		expect([letters(lonely), sqlstates(lonely)]).toEqual(["EZ", ["42P01"]]);
		const wrong = await client.query("SELEC 1");
		expect([letters(wrong), sqlstates(wrong)]).toEqual(["EZ", ["42601"]]);
		expect(lonely.status).toBe("I");
	});

	test("an error after rows ends the answer", async () => {
		const result = await client.query(
			"SELECT 1 FROM here; SELECT 2 / (current_database() <> 's1')::int FROM here; SELECT 3 FROM here",
		);
		expect(result.tags).toEqual(["SELECT 3"]);
		expect(sqlstates(result)).toEqual(["22012"]);
	});

	test("DDL makes the same table everywhere", async () => {
		expect((await client.query("CREATE TABLE made (a int)")).tags).toEqual(["CREATE TABLE"]);
		expect(await onEach(cluster, "SELECT count(*)::int FROM made")).toEqual([0, 0, 0]);
		await client.query("DROP TABLE made");
	});

	test("shards whose rows do not fit under one description give an error, not rows", async () => {
		await onEach(cluster, "CREATE TABLE odd (a int); INSERT INTO odd VALUES (1)");
		await cluster.primary.sql("ALTER TABLE odd ADD b int", { user: "pgdog", database: "s1" });
		const result = await client.query("SELECT * FROM odd");
		expect([letters(result), sqlstates(result)]).toEqual(["EZ", ["58000"]]);
		await client.query("BEGIN");
		expect((await client.query("SELECT * FROM odd")).status).toBe("E");
		expect((await client.query("ROLLBACK; DROP TABLE odd")).status).toBe("I");
	});

	test("a FunctionCall is answered once", async () => {
		client.send(f.functionCall(1598, []));
		expect(letters(await client.result())).toBe("VZ");
	});

	test("a pipeline of Queries in one write is answered in order", async () => {
		const queries = Array.from({ length: 50 }, (_, i) => f.query(`SELECT ${i} FROM here`));
		const results = await pipelined(50, ...queries);
		expect(results.map(({ rows }) => rows.flat().join())).toEqual(
			Array.from({ length: 50 }, (_, i) => `${i},${i},${i}`),
		);
	});
});

describe("transactions", () => {
	test("COMMIT commits on all shards, ROLLBACK rolls back on all", async () => {
		expect((await client.query("BEGIN")).status).toBe("T");
		expect((await client.query("INSERT INTO things VALUES (1)")).status).toBe("T");
		expect(await counts()).toEqual([0, 0, 0]);
		const committed = await client.query("COMMIT");
		expect([committed.tags, committed.status]).toEqual([["COMMIT"], "I"]);
		expect(await counts()).toEqual([1, 1, 1]);

		await client.query("BEGIN");
		await client.query("DELETE FROM things");
		expect((await client.query("ROLLBACK")).tags).toEqual(["ROLLBACK"]);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("an error on one shard fails the transaction on all, and COMMIT then rolls all back", async () => {
		await client.query("BEGIN");
		await client.query("INSERT INTO things VALUES (1)");
		const failed = await client.query("INSERT INTO lonely VALUES (1)");
		expect([sqlstates(failed), failed.status]).toEqual([["42P01"], "E"]);
		const more = await client.query("INSERT INTO things VALUES (2)");
		expect([letters(more), sqlstates(more), more.status]).toEqual(["EZ", ["25P02"], "E"]);
		const committed = await client.query("COMMIT");
		expect([committed.tags, committed.status]).toEqual([["ROLLBACK"], "I"]);
		expect(await counts()).toEqual([0, 0, 0]);
		expect(await cluster.primary.sql("SELECT * FROM lonely", { database: "s1" })).toEqual([]);
	});

	test("a transaction that fails in the Query that opens it", async () => {
		const result = await client.query("BEGIN; INSERT INTO things VALUES (1); SELECT * FROM lonely");
		expect([result.tags, sqlstates(result), result.status]).toEqual([["BEGIN", "INSERT 0 3"], ["42P01"], "E"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("a syntax error, which one shard reports, fails the transaction on all", async () => {
		await client.query("BEGIN");
		await client.query("INSERT INTO things VALUES (1)");
		expect((await client.query("SELEC")).status).toBe("E");
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("a savepoint takes all shards back behind an error of one", async () => {
		await client.query("BEGIN; INSERT INTO things VALUES (1); SAVEPOINT s");
		await client.query("INSERT INTO things VALUES (2)");
		expect((await client.query("SELECT * FROM lonely")).status).toBe("E");
		expect((await client.query("ROLLBACK TO s")).status).toBe("T");
		expect((await client.query("INSERT INTO things VALUES (3); RELEASE s")).status).toBe("T");
		await client.query("COMMIT");
		expect(await onEach(cluster, "SELECT string_agg(id::text, ',' ORDER BY id) FROM things")).toEqual(
			Array(3).fill("1,3"),
		);
	});

	test("COMMIT AND CHAIN, a second BEGIN, COMMIT without a transaction", async () => {
		await client.query("BEGIN; INSERT INTO things VALUES (1)");
		expect((await client.query("COMMIT AND CHAIN")).status).toBe("T");
		const again = await client.query("BEGIN");
		expect([again.status, again.notices[0]?.C]).toEqual(["T", "25001"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
		const none = await client.query("COMMIT");
		expect([none.status, none.notices[0]?.C]).toEqual(["I", "25P01"]);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("an error at COMMIT on one shard is told, and no transaction is open anywhere", async () => {
		await onEach(cluster, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
		await cluster.primary.sql("INSERT INTO late VALUES (1)", { user: "pgdog", database: "s1" });
		await client.query("BEGIN; INSERT INTO late VALUES (1)");
		const result = await client.query("COMMIT");
		expect([sqlstates(result), result.status]).toEqual([["23505"], "I"]);
		await client.query("BEGIN; INSERT INTO late VALUES (2), (2)");
		const chained = await client.query("COMMIT AND CHAIN");
		expect([sqlstates(chained), chained.status]).toEqual([["23505"], "I"]);
		await client.query("DROP TABLE late");
	});

	// COMMIT AND CHAIN opens a new transaction where it succeeds, and none where it fails.
	test("shards that are not alike after an error are brought together", async () => {
		await onEach(cluster, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
		await cluster.primary.sql("INSERT INTO late VALUES (1)", { user: "pgdog", database: "s1" });
		await client.query("BEGIN; INSERT INTO late VALUES (1)");
		const chained = await client.query("COMMIT AND CHAIN");
		expect([sqlstates(chained), chained.status]).toEqual([["23505"], "I"]);
		expect((await client.query("INSERT INTO things VALUES (1)")).status).toBe("I");
		expect(await counts()).toEqual([1, 1, 1]);
		await client.query("DROP TABLE late");
	});

	test("a client that goes in a transaction has it rolled back on all shards", async () => {
		await client.query("BEGIN; INSERT INTO things VALUES (1)");
		client.reset();
		await using next = await connect(proxy);
		expect((await next.query("SELECT id FROM things")).rows).toEqual([]);
	});
});

describe("the extended protocol", () => {
	test("Parse, Bind, Describe, Execute, Sync are each answered once", async () => {
		const result = await client.extended("SELECT current_database() || $1 FROM here", ["!"]);
		expect(letters(result)).toBe("12TDDDCZ");
		expect(sorted(result.rows)).toEqual(["s0!", "s1!", "s2!"]);
		const described = await pipelined(1, f.parse("SELECT $1::int AS n", "d"), f.describe("S", "d"), f.sync());
		expect(letters(described[0]!)).toBe("1tTZ");
		expect(letters((await pipelined(1, f.parse("SET work_mem = '5MB'"), f.describe("S"), f.sync()))[0]!)).toBe("1tnZ");
	});

	test("statements with and without a name live on over requests and other clients", async () => {
		await pipelined(
			1,
			f.parse("SELECT current_database(), $1::int FROM here", "mine"),
			f.parse("SELECT 'unnamed' FROM here"),
			f.sync(),
		);
		await using other = await connect(proxy);
		await other.extended("SELECT 'another' FROM here");
		const [unnamed] = await pipelined(1, f.bind(), f.execute(), f.sync());
		expect(unnamed!.rows).toEqual([["unnamed"], ["unnamed"], ["unnamed"]]);
		for (let i = 0; i < 3; i++) {
			const [named] = await pipelined(1, f.bind({ statement: "mine", values: [`${i}`] }), f.execute(), f.sync());
			expect(sorted(named!.rows)).toEqual([`s0,${i}`, `s1,${i}`, `s2,${i}`]);
		}
		const [again] = await pipelined(1, f.parse("SELECT 1", "mine"), f.sync());
		expect(sqlstates(again!)).toEqual(["42P05"]);
		const [closed, gone] = await pipelined(2, f.close("S", "mine"), f.sync(), f.bind({ statement: "mine" }), f.sync());
		expect([letters(closed!), sqlstates(gone!)]).toEqual(["3Z", ["26000"]]);
	});

	// Each client of several shards counted its unnamed statements anew, so that a server took one's for another's.
	test("the unnamed statements of two clients are not mixed up", async () => {
		await using other = await connect(proxy);
		for (let i = 0; i < 4; i++) {
			await pipelined(1, f.parse(`SELECT 'mine ${i}' FROM here`), f.sync());
			other.send(f.parse(`SELECT 'other ${i}' FROM here`), f.sync());
			await other.result();
			const [mine] = await pipelined(1, f.bind(), f.execute(), f.sync());
			expect(mine!.rows[0]).toEqual([`mine ${i}`]);
			other.send(f.bind(), f.execute(), f.sync());
			expect((await other.result()).rows[0]).toEqual([`other ${i}`]);
		}
	});

	test("a Parse that fails on one shard has not been, on any", async () => {
		const [failed] = await pipelined(1, f.parse("SELECT * FROM lonely", "half"), f.sync());
		expect(sqlstates(failed!)).toEqual(["42P01"]);
		const [bound] = await pipelined(1, f.bind({ statement: "half" }), f.execute(), f.sync());
		expect(sqlstates(bound!)).toEqual(["26000"]);
		const [parsed] = await pipelined(
			1,
			f.parse("SELECT 7 FROM here", "half"),
			f.bind({ statement: "half" }),
			f.execute(),
			f.sync(),
		);
		expect([sqlstates(parsed!), parsed!.rows]).toEqual([[], [["7"], ["7"], ["7"]]]);
		// And one that exists stays what it was.
		const [double] = await pipelined(1, f.parse("SELECT * FROM lonely", "half"), f.sync());
		expect(double!.errors).toHaveLength(1);
		const [still] = await pipelined(1, f.bind({ statement: "half" }), f.execute(), f.sync());
		expect(still!.rows).toEqual([["7"], ["7"], ["7"]]);
	});

	test("DEALLOCATE and DISCARD ALL take statements away on all shards", async () => {
		for (const away of ["DEALLOCATE gone", "DEALLOCATE ALL", "DISCARD ALL"]) {
			await pipelined(1, f.parse("SELECT 1 FROM here", "gone"), f.sync());
			expect(sqlstates(await client.query(away))).toEqual([]);
			await client.query("SELECT 1/0 FROM here");
			const [result] = await pipelined(1, f.bind({ statement: "gone" }), f.execute(), f.sync());
			expect([away, sqlstates(result!)]).toEqual([away, ["26000"]]);
		}
	});

	test("pipelines of batches, some of which fail, keep their order", async () => {
		const batches = Array.from({ length: 20 }, (_, i) => {
			const sql = i % 5 === 3 ? "SELECT $1::int / 0 FROM here" : "SELECT $1::int FROM here";
			return concat(f.parse(sql), f.bind({ values: [`${i}`] }), f.execute(), f.sync());
		});
		const results = await pipelined(20, ...batches);
		for (const [i, result] of results.entries()) {
			if (i % 5 === 3) expect(sqlstates(result)).toEqual(["22012"]);
			else expect(result.rows).toEqual(Array(3).fill([`${i}`]));
		}
	});

	test("what stands behind an error in a batch is skipped, and none of it stays", async () => {
		const insert = concat(f.parse("INSERT INTO things VALUES (1)"), f.bind(), f.execute());
		const bad = concat(f.parse("SELECT 1/0 FROM here"), f.bind(), f.execute());
		const [result] = await pipelined(1, insert, bad, insert, f.sync());
		expect([letters(result!), sqlstates(result!)]).toEqual(["12C1EZ", ["22012"]]);
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("Flush brings the answers without an end of the batch, Sync ends it", async () => {
		client.send(f.parse("INSERT INTO things VALUES ($1)"), f.flush());
		expect((await client.next()).code).toBe("1");
		client.send(f.bind({ values: ["1"] }), f.execute(), f.flush());
		expect((await client.until("C")).map(({ code }) => code)).toEqual(["2", "C"]);
		expect(await counts()).toEqual([0, 0, 0]);
		client.send(f.bind({ values: ["2"] }), f.execute(), f.sync());
		expect(letters(await client.result())).toBe("2CZ");
		expect(await counts()).toEqual([2, 2, 2]);
		client.send(f.parse("SELECT 1"), f.flush());
		await client.until("1");
		client.send(f.sync());
		expect(letters(await client.result())).toBe("Z");
	});

	test("an error after a Flush takes back what came before it on all shards, and the rest up to Sync is skipped", async () => {
		client.send(f.parse("INSERT INTO things VALUES (1)"), f.bind(), f.execute(), f.flush());
		await client.until("C");
		client.send(f.parse("SELECT * FROM lonely"), f.flush());
		expect((await client.next()).code).toBe("E");
		client.send(f.parse("INSERT INTO things VALUES (2)"), f.bind(), f.execute(), f.flush());
		client.send(f.query("SELECT 'skipped'"), f.sync());
		const result = await client.result();
		expect([letters(result), result.status]).toEqual(["Z", "I"]);
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("a Query in the middle of a batch ends it", async () => {
		client.send(f.parse("INSERT INTO things VALUES (1)"), f.bind(), f.execute(), f.query("SELECT 'query' FROM here"));
		const result = await client.result();
		expect([letters(result), result.status]).toEqual(["12CTDDDCZ", "I"]);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("portals give their rows in parts, from all shards, also when one has fewer", async () => {
		await client.query("BEGIN");
		const sql = "SELECT g FROM here, generate_series(1, CASE current_database() WHEN 's0' THEN 3 ELSE 5 END) g";
		const [first] = await pipelined(1, f.parse(sql), f.bind({ portal: "p" }), f.execute("p", 2), f.sync());
		expect([letters(first!), first!.status]).toEqual(["12DDDDDDsZ", "T"]);
		const [second] = await pipelined(1, f.execute("p", 2), f.sync());
		expect(letters(second!)).toBe("DDDDDsZ");
		const [third] = await pipelined(1, f.execute("p", 2), f.close("P", "p"), f.sync());
		expect([letters(third!), third!.tags]).toEqual(["DDC3Z", ["SELECT 2"]]);
		await client.query("COMMIT");
	});

	test("BEGIN, statements and COMMIT in one batch", async () => {
		const each = (sql: string) => concat(f.parse(sql), f.bind(), f.execute());
		const insert = "INSERT INTO things VALUES (1)";
		const [all] = await pipelined(1, each("BEGIN"), each(insert), each("COMMIT"), f.sync());
		expect([letters(all!), all!.status]).toEqual(["12C12C12CZ", "I"]);
		const [open] = await pipelined(1, each("BEGIN"), each(insert), f.sync());
		expect(open!.status).toBe("T");
		const [failed] = await pipelined(1, each(insert), each("SELECT * FROM lonely"), f.sync());
		expect([failed!.status, sqlstates(failed!)]).toEqual(["E", ["42P01"]]);
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("Sync alone, a hundred times, in and out of transactions", async () => {
		const syncs = Array.from({ length: 100 }, () => f.sync());
		for (const status of ["I", "T", "E"]) {
			if (status === "T") await client.query("BEGIN");
			if (status === "E") await client.query("SELECT 1/0 FROM here");
			const results = await pipelined(100, ...syncs);
			expect(new Set(results.map((result) => letters(result) + result.status))).toEqual(new Set([`Z${status}`]));
		}
		await client.query("ROLLBACK");
	});
});

describe("COPY", () => {
	test("in reaches every shard", async () => {
		client.send(f.query("COPY copied FROM STDIN"));
		expect((await client.next()).code).toBe("G");
		client.send(f.copyData("one\ntw"), f.copyData("o\n"), f.copyDone());
		const result = await client.result();
		expect([result.tags, result.status]).toEqual([["COPY 6"], "I"]);
		expect(await onEach(cluster, "SELECT string_agg(line, ',') FROM copied")).toEqual(Array(3).fill("one,two"));
	});

	test("in with all its data ahead, and twice in one Query", async () => {
		const data = concat(f.copyData("a\n"), f.copyDone());
		client.send(f.query("COPY copied FROM STDIN; COPY copied FROM STDIN"), data, data, f.query("SELECT 1 FROM here"));
		const copied = await client.result();
		expect([letters(copied), copied.tags]).toEqual(["GCGCZ", ["COPY 3", "COPY 3"]]);
		expect((await client.result()).rows).toHaveLength(3);
	});

	test("in that the client, one shard or all of them give up", async () => {
		client.send(f.query("COPY copied FROM STDIN"));
		await client.until("G");
		client.send(f.copyData("one\n"), f.copyFail("enough"));
		expect(sqlstates(await client.result())).toEqual(["57014"]);
		// Its reason may come in another piece.
		client.send(f.query("COPY copied FROM STDIN"));
		await client.until("G");
		await client.sendSplit(f.copyFail("enough"), 7);
		expect(sqlstates(await client.result())).toEqual(["57014"]);

		client.send(f.query("COPY lonely FROM STDIN"));
		const none = await client.result();
		expect([letters(none), sqlstates(none)]).toEqual(["EZ", ["42P01"]]);
		client.send(f.copyData("1\n"), f.copyDone(), f.query("SELECT 1 FROM here"));
		expect((await client.result()).rows).toHaveLength(3);

		client.send(f.query("COPY copied FROM STDIN"));
		await client.until("G");
		client.send(f.copyData("too\tmany\n"), f.copyData("more\n"), f.copyDone());
		const bad = await client.result();
		expect([letters(bad), sqlstates(bad)]).toEqual(["EZ", ["22P04"]]);
		expect(await onEach(cluster, "SELECT count(*)::int FROM copied")).toEqual([0, 0, 0]);
	});

	// The others went on reading, and then kept what the failed shard had not.
	test("in that one shard alone refuses in the middle is stopped on the others", async () => {
		await cluster.primary.sql("ALTER TABLE copied ADD CHECK (line <> 'bad')", { user: "pgdog", database: "s1" });
		client.send(f.query("COPY copied FROM STDIN"));
		await client.until("G");
		client.send(f.copyData("good\n"), f.copyData("bad\n"), f.copyData("x".repeat(100_000)));
		const result = await client.result();
		expect([letters(result), sqlstates(result)]).toEqual(["EZ", ["23514"]]);
		client.send(f.copyData("ignored\n"), f.copyDone());
		expect((await client.query("SELECT line FROM copied")).rows).toEqual([]);
		await client.query("BEGIN");
		client.send(f.query("COPY copied FROM STDIN"), f.copyData("bad\n"), f.copyDone());
		expect((await client.result()).status).toBe("E");
		await client.query("ROLLBACK");
		await client.query("ALTER TABLE copied DROP CONSTRAINT IF EXISTS copied_line_check");
	});

	test("in by the extended protocol, with the Sync before or behind the data", async () => {
		const begin = concat(f.parse("COPY copied FROM STDIN"), f.bind(), f.execute());
		client.send(begin, f.sync());
		expect((await client.until("G")).map(({ code }) => code)).toEqual(["1", "2", "G"]);
		client.send(f.copyData("one\n"), f.flush(), f.sync(), f.copyData("two\n"), f.copyDone(), f.sync());
		expect(letters(await client.result())).toBe("CZ");

		client.send(begin, f.flush());
		await client.until("G");
		client.send(f.copyData("three\n"), f.copyDone(), f.sync());
		expect(letters(await client.result())).toBe("CZ");

		client.send(begin, f.copyData("four\n"), f.copyDone(), f.sync());
		expect(letters(await client.result())).toBe("12GCZ");

		for (const end of [f.sync(), f.flush()]) {
			client.send(begin, end);
			await client.until("G");
			client.send(f.copyData("a\tb\n"), f.copyDone(), f.sync());
			const failed = await client.result();
			expect([letters(failed), sqlstates(failed)]).toEqual(["EZ", ["22P04"]]);
			client.send(f.parse("COPY lonely FROM STDIN"), f.bind(), f.execute(), f.sync());
			expect(letters(await client.result())).toMatch(/^(12)?EZ$/);
		}
		expect(await onEach(cluster, "SELECT count(*)::int FROM copied")).toEqual([4, 4, 4]);
		expect((await client.query("SELECT 1 FROM here")).rows).toHaveLength(3);
	});

	test("out has the rows of all, in text, CSV and binary", async () => {
		await onEach(cluster, "INSERT INTO copied VALUES (current_database())");
		for (const by of ["simple", "extended"]) {
			const sql = "COPY copied TO STDOUT";
			const result =
				by === "simple"
					? await client.query(sql)
					: (await pipelined(1, f.parse(sql), f.bind(), f.execute(), f.sync()))[0]!;
			expect(letters(result).replace(/^12/, "")).toBe("HdddcCZ");
			expect(result.tags).toEqual(["COPY 3"]);
		}
		const binary = await client.query("COPY copied TO STDOUT (FORMAT binary)");
		const data = Buffer.concat(binary.messages.filter(({ code }) => code === "d").map(({ body }) => body));
		// Read back by PostgreSQL itself.
		client.send(f.query("COPY copied FROM STDIN (FORMAT binary)"));
		await client.until("G");
		client.send(f.copyData(data), f.copyDone());
		expect((await client.result()).tags).toEqual(["COPY 9"]);
		expect(await onEach(cluster, "SELECT count(*)::int FROM copied")).toEqual([4, 4, 4]);
	});

	test("in of twenty megabytes, a message of eight of them in pieces", async () => {
		client.send(f.query("COPY copied FROM STDIN"));
		await client.until("G");
		const line = `${"x".repeat(999)}\n`;
		for (let i = 0; i < 12; i++) client.send(f.copyData(line.repeat(1_000)));
		client.send(f.copyData(line.repeat(8_000)), f.copyDone());
		expect((await client.result()).tags).toEqual(["COPY 60000"]);
	});

	test("in that fails in the middle of a message that is still on its way", async () => {
		client.send(f.query("COPY things FROM STDIN"));
		await client.until("G");
		const large = f.copyData(`a\tb\tc\n${"1\tx\n".repeat(500_000)}`);
		client.send(large.subarray(0, 1_000_000));
		await Bun.sleep(20);
		client.send(large.subarray(1_000_000), f.copyDone());
		expect(sqlstates(await client.result())).toHaveLength(1);
		expect((await client.query("SELECT id FROM things")).rows).toEqual([]);
	});
});

describe("session state", () => {
	test("SET holds on every shard, over transactions and beside other clients", async () => {
		await client.query("SET app.who = 'me'");
		await client.query("SET application_name = 'told'");
		expect(client.parameters.application_name).toBe("told");
		await using other = await connect(proxy);
		expect((await other.query("SELECT current_setting('app.who', true) FROM here")).rows.flat()).not.toContain("me");
		const seen = await client.query("SELECT current_setting('app.who'), current_setting('application_name') FROM here");
		expect(seen.rows).toEqual(Array(3).fill(["me", "told"]));
		await client.query("BEGIN; SET app.who = 'undone'; ROLLBACK");
		const who = "SELECT current_setting('app.who') FROM here";
		expect((await client.query(who)).rows).toEqual([["me"], ["me"], ["me"]]);
		expect((await client.query("SHOW app.who")).rows).toEqual([["me"]]);
		await client.query("RESET ALL");
		expect((await client.query(who)).rows).toEqual([[""], [""], [""]]);
	});

	test("startup parameters hold on every shard, and are told once", async () => {
		await using named = await connect(proxy, { parameters: { application_name: "start", search_path: "nowhere" } });
		expect((await named.query("SELECT current_setting('search_path') FROM public.here")).rows).toEqual(
			Array(3).fill(["nowhere"]),
		);
		const told = named.received.filter(
			({ code, body }) => code === "S" && body.toString().startsWith("application_name"),
		);
		expect(told).toHaveLength(1);
		expect(named.received.filter(({ code }) => code === "K")).toHaveLength(1);
	});

	test("a startup parameter that PostgreSQL refuses ends the login with one error", async () => {
		await rejects(connect(proxy, { parameters: { datestyle: "none such" } }), "22023");
		const raw = await RawClient.open({ port: proxy.port });
		raw.send(f.startupMessage({ user: "pgdog", database: "pgdog", datestyle: "none such" }));
		await raw.until("R");
		raw.reset();
	});
});

describe("drivers", () => {
	test("pg", async () => {
		const pg = new Client({ connectionString: proxy.url() });
		await pg.connect();
		expect((await pg.query("SELECT current_database() AS d FROM here")).rows.map(({ d }) => d).sort()).toEqual([
			"s0",
			"s1",
			"s2",
		]);
		expect((await pg.query("INSERT INTO things VALUES ($1, $2)", [1, "x"])).rowCount).toBe(3);
		for (let i = 0; i < 3; i++) {
			const named = await pg.query({ name: "by-id", text: "SELECT note FROM things WHERE id = $1", values: [1] });
			expect(named.rows).toEqual(Array(3).fill({ note: "x" }));
		}
		await pg.query("BEGIN");
		await pg.query("DELETE FROM things");
		await rejects(pg.query("SELECT * FROM lonely"), "lonely");
		expect((await pg.query("COMMIT")).command).toBe("ROLLBACK");
		expect((await pg.query("SELECT 1 FROM here")).rowCount).toBe(3);
		await pg.end();
	});

	test("postgres.js, with its pipelines", async () => {
		await using sql = Object.assign(postgres(proxy.url(), { max: 2, onnotice: () => {} }), {
			[Symbol.asyncDispose]: () => sql.end(),
		});
		const many = await Promise.all(Array.from({ length: 30 }, (_, i) => sql`SELECT ${i}::int AS n FROM here`));
		expect(many.map((rows) => rows.map(({ n }) => n))).toEqual(Array.from({ length: 30 }, (_, i) => [i, i, i]));
		await sql.begin(async (tx) => {
			await tx`INSERT INTO things VALUES (1)`;
			await tx.savepoint((sp) => sp`SELECT * FROM lonely`).catch(() => undefined);
			await tx`INSERT INTO things VALUES (2)`;
		});
		expect(await counts()).toEqual([2, 2, 2]);
		await rejects(
			sql.begin((tx) => tx`SELECT * FROM lonely`),
			"lonely",
		);
		const seen: number[] = [];
		await sql`SELECT id FROM things`.cursor(2, (rows) => {
			seen.push(...rows.map(({ id }) => id as number));
		});
		expect(seen.sort()).toEqual([1, 1, 1, 2, 2, 2]);
	});

	test("Bun.sql", async () => {
		const sql = new SQL(proxy.url(), { max: 2 });
		const many = await Promise.all(Array.from({ length: 30 }, (_, i) => sql`SELECT ${i}::int AS n FROM here`));
		expect(many.map((rows: { n: number }[]) => rows.map(({ n }) => n))).toEqual(
			Array.from({ length: 30 }, (_, i) => [i, i, i]),
		);
		await sql.begin(async (tx) => {
			await tx`INSERT INTO things VALUES (${5})`;
		});
		expect(await counts()).toEqual([1, 1, 1]);
		await sql.close();
	});

	for (const mode of ["simple", "extended", "prepared"])
		testWithTool("pgbench", `pgbench -M ${mode}, two workers, two servers for each of two shards`, async (pgbench) => {
			await using two = await startSharded(cluster, { shards: 2, general: { workers: 2, default_pool_size: 2 } });
			const script = `${two.folder}/script`;
			await Bun.write(script, "\\set id random(1, 100)\nSELECT :id FROM here;\n");
			const args = ["-n", "-M", mode, "-c", "10", "-j", "2", "-t", "40", "-f", script];
			const { code, stdout, stderr } = await runTool([pgbench, ...args], {
				PGHOST: "127.0.0.1",
				PGPORT: String(two.port),
				PGUSER: "pgdog",
				PGPASSWORD: "pgdog",
				PGDATABASE: "pgdog",
			});
			expect([code, stderr.replace(/^pgbench \(.*\n/, "")]).toEqual([0, ""]);
			expect(stdout).toContain("number of transactions actually processed: 400/400");
			sane(two);
		});
});

describe("pools", () => {
	test("many clients share one server for each shard", async () => {
		const pool = new Pool({ connectionString: proxy.url(), max: 20 });
		const answers = await Promise.all(
			Array.from({ length: 200 }, async (_, i) => (await pool.query("SELECT $1::int AS n FROM here", [i])).rows),
		);
		expect(answers.map((rows) => rows.map(({ n }) => n))).toEqual(Array.from({ length: 200 }, (_, i) => [i, i, i]));
		expect(await usedBackends(cluster)).toBeLessThanOrEqual(3);
		await pool.end();
	});

	// Each had taken the server that the other needed next.
	test("transactions of two workers over one server for each shard do not wait for each other for ever", async () => {
		await using two = await startSharded(cluster, { general: { workers: 2, checkout_timeout: 20_000 } });
		const [ones, others] = await connectToBothWorkers(two, 3);
		await Promise.all(
			[...ones, ...others].map(async (each) => {
				for (let i = 0; i < 30; i++) {
					expect((await each.query("BEGIN")).status).toBe("T");
					expect((await each.query("SELECT 1 FROM here")).rows).toHaveLength(3);
					expect((await each.query("COMMIT")).status).toBe("I");
				}
			}),
		);
		for (const each of [...ones, ...others]) each.close();
		sane(two);
	});

	test("nor do batches that name the shards in different orders", async () => {
		await using one = await startSharded(cluster, { general: { checkout_timeout: 15_000 } });
		const part = (shard: number) => [
			f.parse(`/* pgdog_shard: ${shard} */ SELECT pg_sleep(0.02)`),
			f.bind(),
			f.execute(),
		];
		const orders = [
			[0, 1, 2],
			[2, 1, 0],
			[1, 0],
			[2, 0, 1],
		];
		await Promise.all(
			orders.map(async (order) => {
				await using client = await connect(one);
				for (let round = 0; round < 3; round++) {
					client.send(...order.flatMap(part), f.sync());
					const { errors, tags } = await client.result();
					expect([errors, tags]).toEqual([[], order.map(() => "SELECT 1")]);
				}
			}),
		);
		await using witness = await connect(one);
		await intact(cluster, witness, "batches in different orders", 3, 6);
		sane(one);
	});

	test("who gets no server of one shard in time is told so, once, and nothing runs on the others", async () => {
		await using late = await startSharded(cluster, {
			general: { checkout_timeout: 200, client_connection_recovery: "recover" },
		});
		await using holder = await connect(late);
		await using waiting = await connect(late);
		await holder.query("BEGIN; SELECT 1 FROM here");
		const result = await waiting.query("INSERT INTO things VALUES (1)");
		expect([letters(result), result.errors.length, result.status]).toEqual(["EZ", 1, "I"]);
		const begin = await waiting.query("BEGIN; INSERT INTO things VALUES (1)");
		expect([letters(begin), begin.status]).toEqual(["EZ", "I"]);
		const extended = await waiting.extended("INSERT INTO things VALUES (2)");
		expect([letters(extended), extended.status]).toEqual(["EZ", "I"]);
		await holder.query("COMMIT");
		expect((await waiting.query("SELECT id FROM things")).rows).toEqual([]);
	});

	test("session pooling keeps a server of each shard", async () => {
		await using session = await startSharded(cluster, { general: { pooler_mode: "session" } });
		await using mine = await connect(session);
		await mine.query("CREATE TEMP TABLE own (id int); LISTEN news");
		expect((await mine.query("INSERT INTO own VALUES (1)")).tags).toEqual(["INSERT 0 3"]);
		await cluster.primary.sql("NOTIFY news, 'hello'", { database: "s1" });
		expect((await mine.until("A")).at(-1)?.body.toString()).toContain("hello");
		mine.reset();
		await using next = await connect(session);
		expect(sqlstates(await next.query("SELECT * FROM own"))).toEqual(["42P01"]);
	});
});

describe("cancel", () => {
	test("ends the query on all shards, with one error", async () => {
		client.send(f.query("SELECT pg_sleep(20) FROM here"));
		await untilRunning(cluster, "pg_sleep", 3);
		const cancel = await RawClient.open({ port: proxy.port });
		cancel.send(f.cancelRequest(client.backendPid, client.backendKey));
		const result = await client.result();
		expect([letters(result), sqlstates(result), result.status]).toEqual(["TEZ", ["57014"], "I"]);
		expect((await client.query("SELECT 1 FROM here")).rows).toHaveLength(3);
		cancel.reset();
	});

	test("of a query that only one shard still runs, and of one that waits", async () => {
		client.send(f.query("SELECT pg_sleep(CASE current_database() WHEN 's1' THEN 20 ELSE 0 END) FROM here"));
		await untilRunning(cluster, "pg_sleep", 1);
		await using waiting = await connect(proxy);
		waiting.send(f.query("/* pgdog_shard: 1 */ SELECT 'waited'"));
		const cancel = async (of: RawClient) => {
			const raw = await RawClient.open({ port: proxy.port });
			raw.send(f.cancelRequest(of.backendPid, of.backendKey));
			await raw.closed;
		};
		await cancel(waiting);
		expect(sqlstates(await waiting.result())).toEqual(["57014"]);
		await cancel(client);
		expect(sqlstates(await client.result())).toEqual(["57014"]);
		expect((await waiting.query("SELECT 1 FROM here")).rows).toHaveLength(3);
	});
});

describe("timeouts, reload and shutdown", () => {
	test("an idle client, and one idle in a transaction, are told so once; one that waits for its answer is not idle", async () => {
		await using quick = await startSharded(cluster, {
			general: { client_idle_timeout: 400, client_idle_in_transaction_timeout: 400 },
		});
		await using idle = await connect(quick);
		await using open = await connect(quick, {});
		const slow = await open.query(
			"BEGIN; SELECT pg_sleep(CASE current_database() WHEN 's1' THEN 1 ELSE 0 END) FROM here",
		);
		expect(slow.status).toBe("T");
		const last = await open.closed;
		expect(last.map(({ code }) => code)).toEqual(["E"]);
		expect(last[0]!.body.toString()).toContain("57P05");
		expect((await idle.closed).map(({ code }) => code)).toEqual(["E"]);
		await using busy = await connect(quick);
		expect(
			(await busy.query("SELECT pg_sleep(CASE current_database() WHEN 's2' THEN 1 ELSE 0 END) FROM here")).rows,
		).toHaveLength(3);
		expect((await busy.query("SELECT 1 FROM here")).rows).toHaveLength(3);
	});

	test("SIGINT waits for what runs on any shard, and for a transaction's end", async () => {
		const stopping = await startSharded(cluster, { general: { default_pool_size: 3 } });
		await using running = await connect(stopping);
		await using open = await connect(stopping);
		await using idle = await connect(stopping);
		await open.query("BEGIN; INSERT INTO things VALUES (1)");
		running.send(f.query("SELECT pg_sleep(CASE current_database() WHEN 's1' THEN 0.5 ELSE 0 END) FROM here"));
		await untilRunning(cluster, "pg_sleep", 1);
		const stopped = stopping.stop("SIGINT");
		expect((await idle.closed).map(({ code }) => code)).toEqual(["E"]);
		const result = await running.result();
		expect([result.tags, result.status]).toEqual([["SELECT 3"], "I"]);
		expect((await running.closed).map(({ code }) => code)).toEqual(["E"]);
		expect((await open.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(await stopped).toBe(0);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("a reload with other pools is followed, and one with other shards sends the client away", async () => {
		await using changing = await startSharded(cluster);
		await using open = await connect(changing);
		await open.query("BEGIN; INSERT INTO things VALUES (1)");
		await using idle = await connect(changing);
		const from = changing.lines.length;
		const { config } = shardedOptions(cluster, { general: { default_pool_size: 2 } });
		const databases = (config as { databases: object[] }).databases.map((each) => ({ ...each, host: "localhost" }));
		changing.writeConfig({ ...(config as object), databases });
		changing.signal("SIGHUP");
		await changing.waitForLog(/configuration reloaded/, 10_000, from);
		// The old pools' only servers are not free: who is served has come to the new ones, and so has the worker.
		await until(async () => {
			await using fresh = await connect(changing);
			return (await fresh.query("SELECT 1 FROM here")).rows.length === 3;
		}, "the worker to follow");
		expect((await idle.query("SELECT 1 FROM here")).rows).toHaveLength(3);
		expect((await open.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect((await open.query("SELECT 1 FROM here")).rows).toHaveLength(3);

		const { config: fewer } = shardedOptions(cluster, { shards: 2 });
		changing.writeConfig(fewer);
		changing.signal("SIGHUP");
		expect((await idle.closed).map(({ body }) => body.toString()).join()).toContain("57P01");
		await using next = await connect(changing);
		expect((await next.query("SELECT 1 FROM here")).rows).toHaveLength(2);
	});

	test("a client of one shard leaves when the database gets a second", async () => {
		await using growing = await startProxy(shardedOptions(cluster, { shards: 1 }));
		await using one = await connect(growing);
		expect((await one.query("SELECT 1")).rows).toHaveLength(1);
		growing.writeConfig(shardedOptions(cluster, { shards: 2 }).config);
		growing.signal("SIGHUP");
		expect((await one.closed).map(({ body }) => body.toString()).join()).toContain("57P01");
	});
});

test("a batch without an end, in small pieces, costs its sender and nobody else", async () => {
	const sender = await connect(proxy);
	sender.send(f.parse("SELECT 1"));
	const piece = repeated(f.copyDone(), 4 << 10);
	const ask = () => client.query("/* pgdog_shard: 0 */ SELECT 1");
	expect(await slowdown(sender, piece, 1_500, ask)).toBeLessThan(4);
	sender.reset();
}, 60_000);

test("a client is one in SHOW CLIENTS, whatever it is inside", async () => {
	const admin = await connect(proxy, { database: "admin", user: "admin" });
	const { rows, columns } = await admin.query("SHOW CLIENTS");
	expect(rows.filter((row) => row[columns.indexOf("database")] === "pgdog")).toHaveLength(1);
	admin.close();
	await until(() => proxy.running, "the proxy");
});
