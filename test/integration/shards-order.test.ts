// Rows of several shards in one order: what is asked through the proxy has the rows that one database with all of them gives, in the
// same order, or is refused by name (0A000).

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { intact, letters, sane, shardedOptions, sqlstates } from "./sharded.ts";
import { connect } from "./support.ts";

setDefaultTimeout(60_000);

const SCHEMA = `CREATE TABLE t (id int PRIMARY KEY, grp int, note text, price numeric, at timestamptz, big bigint);
	CREATE TABLE u (id bigint, name varchar(10));`;
/** No value says which shard a row is on. */
const FILL = (where: string) => `
	INSERT INTO t SELECT g, nullif(g % 5, 0), 'n' || g * 7 % 10, g * 7919 % 100 / 7.0,
		timestamptz '2024-01-01' + g * 7919 % 1000 * interval '1 hour', g * 7919 % 1000
		FROM generate_series(1, 200) g WHERE ${where};
	INSERT INTO u SELECT g * 10, 'u' || g FROM generate_series(1, 20) g WHERE ${where};`;

let cluster: Cluster;
let proxy: Proxy;
let straight: RawClient;
let client: RawClient;

beforeAll(async () => {
	cluster = await startPostgres({ databases: ["s0", "s1", "s2", "straight"] });
	for (const [database, where] of [
		["s0", "g % 7 < 2"],
		["s1", "g % 7 IN (2, 3, 4)"],
		["s2", "g % 7 > 4"],
		["straight", "true"],
	] as const)
		await cluster.primary.sql(`${SCHEMA}${FILL(where)}`, { user: "pgdog", database });
	proxy = await startProxy(shardedOptions(cluster));
	straight = await connect(proxy, { port: cluster.port, database: "straight" });
});

afterAll(async () => {
	straight?.close();
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

beforeEach(async () => {
	client = await connect(proxy);
});

afterEach(async () => {
	client.reset();
	await using witness = await connect(proxy);
	// Beside those of the shards there is the straight connection.
	await intact(cluster, witness, "the test", 3, 4);
	sane(proxy);
});

/** What a client sees: rows in their order, tags, errors. */
const seen = ({ rows, tags, errors, columns }: QueryResult) => ({
	rows,
	tags,
	columns,
	errors: errors.map(({ C }) => C),
});

async function same(sql: string): Promise<void> {
	for (const by of ["query", "extended"] as const)
		expect([sql, by, seen(await client[by](sql))]).toEqual([sql, by, seen(await straight[by](sql))]);
}

const run = (sql: string, values: string[] = [], resultFormats: number[] = []) =>
	concat(f.parse(sql), f.bind({ values, resultFormats }), f.execute());

describe("ORDER BY", () => {
	test.each([
		"SELECT id FROM t ORDER BY id",
		"SELECT id, grp FROM t ORDER BY 2 DESC, 1",
		"SELECT id, grp FROM t ORDER BY grp NULLS FIRST, id DESC",
		"SELECT id, grp FROM t ORDER BY grp DESC NULLS LAST, t.id",
		"SELECT * FROM t ORDER BY big, id",
		"SELECT t.* FROM t ORDER BY t.price DESC, t.id ASC",
		'SELECT x.id AS a, x.note AS b FROM t x ORDER BY x.note COLLATE "C" DESC, a',
		"SELECT price AS id, id AS price FROM t ORDER BY id, price",
		"SELECT id + 1, at FROM t ORDER BY at, id + 1",
		"SELECT id FROM t WHERE id > 1000 ORDER BY 1",
		"SELECT id FROM t WHERE id IN (3, 5) ORDER BY 1",
		"SELECT id AS v FROM t UNION ALL SELECT id FROM u ORDER BY v",
		"SELECT DISTINCT grp FROM t ORDER BY grp",
		"SELECT DISTINCT grp, id % 2 FROM t ORDER BY 2 DESC, 1 DESC",
		"TABLE t ORDER BY id",
		"SELECT id FROM t ORDER BY id LIMIT 7",
		"SELECT DISTINCT grp FROM t ORDER BY grp LIMIT 3",
		"SELECT id FROM t ORDER BY id DESC LIMIT 0",
		"SELECT id FROM t ORDER BY id DESC LIMIT ALL",
		"SELECT id FROM t ORDER BY id FETCH FIRST 3 ROWS ONLY",
		"SELECT id FROM t ORDER BY id OFFSET 0",
	])("%s", same);

	test("of several statements in one string", async () => {
		await same(
			"SELECT id FROM t ORDER BY id DESC LIMIT 3; SELECT id FROM t WHERE id = 4; SELECT grp, id FROM t ORDER BY 1, 2",
		);
	});

	test("of a batch, in binary format, of a portal that has a name, and behind a Flush", async () => {
		const sql = "SELECT id, price, at FROM t WHERE id > $1 ORDER BY price, id DESC";
		const batch = concat(
			run("SELECT 1"),
			run(sql, ["10"], [1]),
			f.parse(sql, "named"),
			f.bind({ statement: "named", portal: "p", values: ["150"] }),
			f.describe("P", "p"),
			f.execute("p"),
			run("SELECT id FROM t WHERE id < 5 ORDER BY id"),
		);
		for (const behind of [f.sync(), concat(f.flush(), f.sync())]) {
			const [got, wanted] = [client, straight].map((to) => {
				to.send(concat(batch, behind));
				return to.result();
			});
			const [mine, theirs] = [await got!, await wanted!];
			expect(letters(mine)).toBe(letters(theirs));
			expect(seen(mine)).toEqual(seen(theirs));
			for (const to of [client, straight]) {
				to.send(f.close("S", "named"), f.sync());
				await to.result();
			}
		}
	});

	test("by parameters of LIMIT, as text, in binary format, and NULL", async () => {
		const sql = "SELECT id FROM t ORDER BY id LIMIT $1";
		const four = Buffer.from([0, 0, 0, 4]);
		const eight = Buffer.from([0, 0, 0, 0, 0, 0, 0, 8]);
		const values: [string | Uint8Array | null, number, number][] = [
			["5", 0, 0],
			[four, 1, 23],
			[eight, 1, 0],
			[null, 0, 0],
		];
		for (const [value, format, type] of values) {
			const message = concat(
				f.parse(sql, "", [type]),
				f.bind({ values: [value], formats: [format] }),
				f.execute(),
				f.sync(),
			);
			const answers = [client, straight].map((to) => {
				to.send(message);
				return to.result();
			});
			expect(seen(await answers[0]!)).toEqual(seen(await answers[1]!));
		}
	});
});

describe("aggregates", () => {
	test.each([
		"SELECT count(*) FROM t",
		"SELECT count(*), count(grp), sum(id), sum(big), sum(price), min(at), max(price), min(id), max(id) FROM t",
		"SELECT count(*) AS n, sum(id), max(id), coalesce(sum(big), 0), bool_and(id > 0) FROM t WHERE id > 1000",
		"SELECT bool_and(id > 3), bool_or(id > 3), every(grp > 0), bool_or(grp > 9), max(DISTINCT grp) FROM t",
		"SELECT sum(id) FILTER (WHERE grp = 1), count(*) FILTER (WHERE grp IS NULL) FROM t",
		"SELECT count(*) FROM t WHERE id = 7; SELECT id FROM t ORDER BY id LIMIT 2; SELECT sum(id) FROM u",
	])("%s", async (sql) => {
		if (sql.includes(";")) expect(seen(await client.query(sql))).toEqual(seen(await straight.query(sql)));
		else await same(sql);
	});

	test("in binary format, and of sums that are none", async () => {
		const sql =
			"SELECT count(*), sum(id), sum(big), sum(price), min(at), max(price), bool_or(id = 3) FROM t WHERE id > $1";
		for (const after of ["0", "190", "1000"]) {
			const answers = [client, straight].map((to) => {
				to.send(run(sql, [after], [1]), f.sync());
				return to.result();
			});
			expect(seen(await answers[0]!)).toEqual(seen(await answers[1]!));
		}
		const large = "SELECT sum(id * 0 + 9223372036854775807) FROM t WHERE id < 3";
		await same(large);
	});

	test.each([
		["SELECT max(note) FROM t", '"max" of the type with OID 25'],
		["SELECT sum(id::float8) FROM t", '"sum" of the type with OID 701'],
	])("%s is refused", async (sql, words) => {
		for (const by of ["query", "extended"] as const) {
			const result = await client[by](sql);
			expect([result.rows, sqlstates(result), result.status]).toEqual([[], ["0A000"], "I"]);
			expect(result.errors[0]!.M).toContain(words);
		}
	});
});

describe("what is refused", () => {
	test.each([
		["SELECT id FROM t ORDER BY note", "ORDER BY of what is no column"],
		["SELECT id FROM t ORDER BY id + 1", "ORDER BY of what is no column"],
		["SELECT * FROM t ORDER BY id + 1", "ORDER BY of what is no column"],
		["SELECT note FROM t ORDER BY note", 'ORDER BY "note" in its collation'],
		["SELECT ARRAY[id] AS a FROM t ORDER BY a", 'ORDER BY "a" of the type'],
		["SELECT DISTINCT id, grp FROM t ORDER BY 1", "DISTINCT"],
		["SELECT DISTINCT * FROM t ORDER BY id", "DISTINCT without"],
		["SELECT id FROM t ORDER BY id LIMIT 5 OFFSET 3", "OFFSET"],
		["SELECT id FROM t LIMIT 1 + 1", "LIMIT or OFFSET that is computed"],
		["SELECT id FROM t ORDER BY grp FETCH FIRST 1 ROW WITH TIES", "WITH TIES"],
		["SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE", "LIMIT"],
		["SELECT count(*) FROM t ORDER BY 1", "of an aggregate"],
	])("%s", async (sql, words) => {
		for (const by of ["query", "extended"] as const) {
			const result = await client[by](sql);
			expect([result.rows, sqlstates(result), result.status]).toEqual([[], ["0A000"], "I"]);
			expect(result.errors[0]!.M).toContain(words);
		}
	});

	test("a limit to the rows of an Execute", async () => {
		client.send(f.parse("SELECT id FROM t ORDER BY id"), f.bind(), f.execute("", 5), f.sync());
		expect(sqlstates(await client.result())).toEqual(["0A000"]);
	});

	test("nothing is done of what stands beside an order that only the answers tell of", async () => {
		const ordered = "SELECT note FROM t ORDER BY note";
		const write = "UPDATE t SET grp = -grp";
		const before = (await straight.query("SELECT DISTINCT grp FROM t ORDER BY grp")).rows;
		for (const statements of [
			[ordered, write],
			[write, ordered],
			["BEGIN", ordered, "COMMIT"],
		]) {
			expect(sqlstates(await client.query(statements.join("; ")))).toEqual(["0A000"]);
			client.send(concat(...statements.map((sql) => concat(f.parse(sql), f.bind(), f.execute())), f.sync()));
			const result = await client.result();
			expect([sqlstates(result), result.tags.includes("COMMIT")]).toEqual([["0A000"], false]);
			await client.query("ROLLBACK");
			expect((await client.query("SELECT DISTINCT grp FROM t ORDER BY grp")).rows).toEqual(before);
		}
	});
});
