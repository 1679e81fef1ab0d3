// Two shards that hold the rows of one database between them: whatever is asked through the proxy has the answer that the one database
// gives, or is refused by name (0A000). What names no table is asked of one shard, and of the same as long as that matters.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { Client } from "pg";
import postgres from "postgres";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { intact, letters, sane, shardedOptions, sqlstates } from "./sharded.ts";
import { connect } from "./support.ts";

setDefaultTimeout(60_000);

const SCHEMA = `
	CREATE TABLE t (id int, grp int, note text);
	CREATE TABLE u (id int, t_id int);
	CREATE SEQUENCE s;
	CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
	CREATE FUNCTION total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
	CREATE AGGREGATE mine(int) (sfunc = int4pl, stype = int);`;
/** No value says which shard a row is on; u's rows are not where t's are that they belong to. */
const FILL = (where: string) => `
	INSERT INTO t SELECT g, g % 3, 'n' || g % 4 FROM generate_series(1, 12) g WHERE ${where.replaceAll("#", "g % 5")};
	INSERT INTO u SELECT g, g * 7 % 15 FROM generate_series(1, 10) g WHERE ${where.replaceAll("#", "g % 4")};`;

let cluster: Cluster;
let proxy: Proxy;
let straight: RawClient;
let client: RawClient;

beforeAll(async () => {
	cluster = await startPostgres({ databases: ["s0", "s1", "straight"] });
	for (const [database, where] of [
		["s0", "# < 2"],
		["s1", "# >= 2"],
		["straight", "true"],
	] as const)
		await cluster.primary.sql(`${SCHEMA}${FILL(where)}`, { user: "pgdog", database });
	proxy = await startProxy(options({ cross_shard_functions: "twice" }));
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
	// Beside the two of each shard there is the one of the straight connection.
	await intact(cluster, witness, "the test", 2, 5);
	sane(proxy);
});

function options(general: Record<string, unknown>) {
	return shardedOptions(cluster, { shards: 2, general: { default_pool_size: 2, ...general } });
}

const sorted = ({ rows }: QueryResult) => rows.map((row) => JSON.stringify(row)).sort();
const run = (sql: string, values: string[] = []) => concat(f.parse(sql), f.bind({ values }), f.execute());

async function pipelined(answers: number, ...messages: Uint8Array[]): Promise<QueryResult[]> {
	client.send(concat(...messages));
	const results = [];
	for (let i = 0; i < answers; i++) results.push(await client.result());
	return results;
}

// ---- any statement ---------------------------------------------------------------------------------------------------

const rare = <T>(value: T, arbitrary: fc.Arbitrary<T>) =>
	fc.oneof({ weight: 4, arbitrary: fc.constant(value) }, { weight: 1, arbitrary });
const one = (...texts: string[]) => fc.constantFrom(...texts);

const VALUES = "(VALUES (1, 1, 'a'), (5, 2, 'b'), (99, 0, NULL)) t(id, grp, note)";
const COLUMNS = one(
	"t.id",
	"t.grp, t.note",
	"upper(t.note)",
	"t.id + 1",
	"t.*",
	"twice(t.id)",
	"CASE WHEN t.id > 3 THEN 1 END",
);
const RARE_COLUMNS = one(
	"count(*)",
	"sum(t.id)",
	"mine(t.id)",
	"min(t.note), max(t.id)",
	"string_agg(t.note, ',' ORDER BY t.id)",
	"count(DISTINCT t.grp)",
	"json_arrayagg(t.id ORDER BY t.id)",
	"t.count",
	"row_number() OVER (ORDER BY t.id)",
	"lag(t.id) OVER (ORDER BY t.id)",
	"(SELECT count(*) FROM u)",
	"ARRAY(SELECT u.id FROM u WHERE u.t_id = t.id ORDER BY 1)",
	"EXISTS (SELECT FROM u WHERE u.t_id = t.id)",
	"generate_series(1, t.grp)",
	"total()",
	"(SELECT max(v) FROM unnest(ARRAY[t.id, 3]) v)",
	"nextval('s') > 0",
);
const TABLES = one(
	"t",
	"t",
	"t",
	"public.t",
	VALUES,
	"(SELECT * FROM t WHERE id > 2) t",
	"(SELECT id, grp, note FROM t x) t",
);
const RARE_TABLES = one(
	"t JOIN u ON u.t_id = t.id",
	"t LEFT JOIN u ON u.t_id = t.id",
	"u RIGHT JOIN t ON u.t_id = t.id",
	"t, u",
	"t JOIN t AS other ON other.id = t.grp",
	`${VALUES} LEFT JOIN u ON u.t_id = t.id`,
	`u FULL JOIN ${VALUES} ON u.t_id = t.id`,
	"t LEFT JOIN (VALUES (1), (5)) v(a) ON v.a = t.id",
	"(VALUES (1), (5)) v(a) LEFT JOIN t ON v.a = t.id",
	"(VALUES (1), (5)) v(a) JOIN t ON v.a = t.id",
	"t, generate_series(1, t.grp) g",
	"(SELECT * FROM t ORDER BY id LIMIT 4) t",
	"(SELECT DISTINCT 1 AS id, grp, note FROM t) t",
	"t JOIN pg_class c ON c.oid = t.tableoid",
	"pg_namespace n LEFT JOIN t ON t.note = n.nspname",
	"(SELECT id, grp, note FROM t UNION ALL SELECT id, t_id, NULL FROM u) t",
);
const FILTERS = one("", "", "WHERE t.id > 4", "WHERE t.grp = 1 AND t.note LIKE 'n%'", "WHERE t.id IN (1, 2, 3)");
const RARE_FILTERS = one(
	"WHERE t.id IN (SELECT t_id FROM u)",
	"WHERE t.id > (SELECT avg(id) FROM t)",
	"WHERE NOT EXISTS (SELECT FROM u WHERE u.t_id = t.id)",
	"WHERE t.id = ANY(ARRAY(SELECT 3))",
	"WHERE t.grp = ALL(SELECT grp FROM t)",
);
const WITH = one(
	"WITH v AS (SELECT 1) ",
	"WITH t AS (SELECT * FROM t WHERE id < 9) ",
	"WITH t AS (SELECT 1 AS id, 2 AS grp, 'x' AS note) ",
	"WITH RECURSIVE t(id, grp, note) AS (SELECT 1, 1, 'r' UNION ALL SELECT id + 1, 1, 'r' FROM t WHERE id < 3) ",
	"WITH a AS (SELECT 1), public AS (SELECT * FROM u) ",
);
const TAIL = one(
	"ORDER BY 1",
	"ORDER BY 1 LIMIT 3",
	"LIMIT 0",
	"ORDER BY 1 OFFSET 2",
	"ORDER BY 1 FETCH FIRST 2 ROWS ONLY",
);
const GROUPS = one("GROUP BY t.id, t.grp, t.note", "GROUP BY 1", "GROUP BY ROLLUP (1)", "HAVING count(*) > 1");
const SET = one(
	"UNION SELECT 1",
	"UNION ALL SELECT 1",
	"EXCEPT SELECT 1",
	"INTERSECT SELECT id FROM u",
	"UNION SELECT id FROM u",
);

const select = fc
	.record({
		with: rare("", WITH),
		distinct: rare("", one("DISTINCT ", "DISTINCT ON (t.grp) ")),
		columns: fc.oneof({ weight: 3, arbitrary: COLUMNS }, { weight: 2, arbitrary: RARE_COLUMNS }),
		tables: fc.oneof({ weight: 3, arbitrary: TABLES }, { weight: 2, arbitrary: RARE_TABLES }),
		filter: fc.oneof({ weight: 3, arbitrary: FILTERS }, { weight: 1, arbitrary: RARE_FILTERS }),
		group: rare("", GROUPS),
		set: rare("", SET),
		tail: rare("", TAIL),
	})
	.map((part) =>
		`${part.with}SELECT ${part.distinct}${part.columns} FROM ${part.tables} ${part.filter} ${part.group} ${part.set} ${part.tail}`.trim(),
	);

const write = fc.oneof(
	fc
		.tuple(rare("", one(", u", ", (VALUES (1), (5)) v(id)", ", t AS other")), fc.oneof(FILTERS, RARE_FILTERS))
		.map(([from, filter]) => {
			const using = from === "" ? "" : ` FROM ${from.slice(2)}`;
			const condition =
				from === ""
					? filter
					: `${filter === "" ? "WHERE" : `${filter} AND`} t.id = ${from.includes("other") ? "other" : from.includes("v(") ? "v" : "u"}.id`;
			return `UPDATE t SET grp = t.grp + 1${using} ${condition} RETURNING t.id, t.grp`;
		}),
	fc.tuple(fc.oneof(FILTERS, RARE_FILTERS)).map(([filter]) => `DELETE FROM t ${filter} RETURNING id, note`),
	one(
		"DELETE FROM t USING u WHERE t.id = u.t_id RETURNING t.id",
		"WITH gone AS (DELETE FROM u RETURNING t_id) SELECT t_id FROM gone",
		"WITH gone AS (DELETE FROM u RETURNING t_id) SELECT 1",
		"MERGE INTO t USING (VALUES (3), (77)) v(id) ON t.id = v.id WHEN MATCHED THEN DELETE",
	),
);

const statement = fc.oneof(
	{ weight: 6, arbitrary: fc.record({ sql: select, by: one("simple", "extended", "copy") }) },
	{ weight: 1, arbitrary: fc.record({ sql: write, by: one("write") }) },
);

/** The rows in no order, or the first SQLSTATE. */
async function answer(to: RawClient, { sql, by }: { sql: string; by: string }): Promise<string[] | string> {
	if (by === "write") await to.query("BEGIN");
	const result =
		by === "extended" ? await to.extended(sql) : await to.query(by === "copy" ? `COPY (${sql}) TO STDOUT` : sql);
	if (by === "write") await to.query("ROLLBACK");
	const [error] = sqlstates(result);
	if (error !== undefined) return error;
	// Which of the rows come that are alike by what they are ordered by is nobody's promise.
	if (/ORDER BY 1 (LIMIT|OFFSET|FETCH)/.test(sql) && by !== "copy") return result.rows.map(([first]) => String(first));
	if (by !== "copy") return [...sorted(result), ...result.tags];
	return result.messages
		.filter(({ code }) => code === "d")
		.map(({ body }) => body.toString())
		.sort();
}

// Its client was disconnected.
test("a row that comes in pieces right behind what the proxy says of a statement that the server has reaches its client", async () => {
	const row = "z".repeat(300_000);
	const parse = f.parse("SELECT repeat('z', 300000)", "large");
	const run = [f.bind({ statement: "large" }), f.execute(), f.sync()];
	const isRow = ({ rows }: QueryResult) => rows.length === 1 && rows[0]![0] === row;
	client.send(parse, ...run);
	expect(isRow(await client.result())).toBe(true);
	client.send(f.close("S", "large"), parse, ...run);
	const result = await client.result();
	expect(result.messages.map(({ code }) => code).join("")).toBe("312DCZ");
	expect(isRow(result)).toBe(true);
});

test("random statements are answered as by one database, or refused", async () => {
	let answered = 0;
	let refused = 0;
	await fc.assert(
		fc.asyncProperty(statement, async (asked) => {
			const [wanted, got] = await Promise.all([answer(straight, asked), answer(client, asked)]);
			if (got === "0A000" && wanted !== "0A000") {
				refused++;
				return;
			}
			// What one database refuses is refused; which of several mistakes is told first may differ.
			if (typeof wanted === "string") expect(typeof got).toBe("string");
			else {
				expect(got).toEqual(wanted);
				answered++;
			}
		}),
		{ numRuns: Number(process.env.RUNS ?? 500), ...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}) },
	);
	// Neither all nor nothing is refused.
	expect(answered).toBeGreaterThan(40);
	expect(refused).toBeGreaterThan(40);
});

// ---- without a table -------------------------------------------------------------------------------------------------

describe("what names no table", () => {
	test.each([
		"SELECT 1",
		"SELECT version()",
		"SELECT now()",
		"SELECT pg_backend_pid()",
		"SELECT 1 WHERE true",
		"VALUES (1)",
		"SHOW timezone",
		"SELECT count(*) FROM pg_class",
		"SELECT typname FROM pg_type WHERE oid = 23",
		"SELECT set_config('app.who', 'me', false)",
		"SELECT setval('s', 1)",
		"SELECT nextval('s')",
		"SELECT twice(4)",
	])("%s has one row, by both protocols", async (sql) => {
		for (const result of [await client.query(sql), await client.extended(sql)]) {
			expect([result.errors, result.rows.length]).toEqual([[], 1]);
			expect(result.tags[0]).toBeOneOf(["SELECT 1", "SHOW"]);
		}
		const [named] = await pipelined(1, f.parse(sql, "named"), f.describe("S", "named"), f.sync());
		expect(letters(named!)).toBe("1tTZ");
		for (let i = 0; i < 3; i++)
			expect((await pipelined(1, f.bind({ statement: "named" }), f.execute(), f.sync()))[0]!.rows).toHaveLength(1);
	});

	test("is asked of a shard of the client's own, and of all by their clients together", async () => {
		const seen = new Set<string>();
		for (let i = 0; i < 4; i++) {
			await using each = await connect(proxy);
			const places = new Set<string>();
			for (let j = 0; j < 4; j++) places.add(String((await each.query("SELECT current_database()")).rows));
			expect(places.size).toBe(1);
			for (const place of places) seen.add(place);
		}
		expect([...seen].sort()).toEqual(["s0", "s1"]);
	});

	test("is asked of a shard that has the transaction, and no other shard begins it", async () => {
		const open = async () =>
			(
				await cluster.primary.sql(
					"SELECT datname FROM pg_stat_activity WHERE usename = 'pgdog' AND state = 'idle in transaction'",
				)
			).map(({ datname }) => datname);
		for (const shard of [0, 1])
			for (const say of [client.query, client.extended]) {
				await say.call(client, "BEGIN");
				expect((await say.call(client, `/* pgdog_shard: ${shard} */ UPDATE t SET grp = grp`)).status).toBe("T");
				const asked = await say.call(client, "SELECT current_database()");
				expect([asked.rows, asked.status]).toEqual([[[`s${shard}`]], "T"]);
				expect(await open()).toEqual([`s${shard}`]);
				await say.call(client, "ROLLBACK");
			}
		// Also in one batch, and behind a Flush.
		const update = run("/* pgdog_shard: 1 */ UPDATE t SET grp = grp");
		const [batch] = await pipelined(1, run("BEGIN"), update, run("SELECT current_database()"), f.sync());
		expect([batch!.rows, await open()]).toEqual([[["s1"]], ["s1"]]);
		await client.query("ROLLBACK");
		client.send(update, f.flush());
		await client.until("C");
		client.send(run("SELECT current_database()"), f.sync());
		expect((await client.result()).rows).toEqual([["s1"]]);
	});

	test("goes where a hint says", async () => {
		for (const shard of [0, 1]) {
			const sql = `/* pgdog_shard: ${shard} */ SELECT current_database()`;
			expect((await client.query(sql)).rows).toEqual([[`s${shard}`]]);
		}
		await client.query("SET pgdog.shard = 1");
		expect((await client.query("SELECT current_database()")).rows).toEqual([["s1"]]);
	});

	test("in a string of several statements is answered once, beside what all shards answer", async () => {
		const mixed = await client.query("SELECT 1; SELECT id FROM t WHERE id < 3; SHOW port; SELECT nextval('s') > 0");
		expect(mixed.tags).toEqual(["SELECT 1", "SELECT 2", "SHOW", "SELECT 1"]);
		const settings = await client.query("SET app.who = 'me'; SELECT current_setting('app.who'), 1; SELECT 2");
		expect([settings.rows, settings.tags]).toEqual([
			[["me", "1"], ["2"]],
			["SET", "SELECT 1", "SELECT 1"],
		]);
		const block = await client.query("BEGIN; SELECT 1; SELECT 1 WHERE false; COMMIT");
		expect(block.tags).toEqual(["BEGIN", "SELECT 1", "SELECT 0", "COMMIT"]);
		const binary = "SET app.who = 'me'; COPY (VALUES (1), (2)) TO STDOUT (FORMAT binary); SELECT 1";
		const [copied, wanted] = [await client.query(binary), await straight.query(binary)];
		const data = ({ messages }: QueryResult) => messages.filter(({ code }) => code === "d").map(({ body }) => body);
		expect([letters(copied), copied.tags]).toEqual([letters(wanted), ["SET", "COPY 2", "SELECT 1"]]);
		expect(Buffer.concat(data(copied))).toEqual(Buffer.concat(data(wanted)));
		const alone = await client.query("SELECT 1; SELECT 2");
		expect(alone.rows).toEqual([["1"], ["2"]]);
	});

	test("in one batch with what all shards answer", async () => {
		const messages = [
			run("SELECT 1"),
			run("SELECT id FROM t WHERE id < 3"),
			run("SELECT set_config('a.b', 'c', true)"),
		];
		const [result] = await pipelined(1, ...messages, run("SELECT $1::text", ["x"]), f.sync());
		expect(result!.tags).toEqual(["SELECT 1", "SELECT 2", "SELECT 1", "SELECT 1"]);
	});

	test("set_config holds on every shard, and its portal gives one row at a time", async () => {
		await client.query("SELECT set_config('app.who', 'all', false)");
		expect(sorted(await client.query("SELECT current_setting('app.who') FROM t WHERE id < 4"))).toEqual(
			Array(3).fill('["all"]'),
		);
		await client.query("BEGIN");
		const sql = "SELECT set_config('app.who', g::text, true) FROM generate_series(1, 3) g";
		const [first] = await pipelined(1, f.parse(sql), f.bind({ portal: "p" }), f.execute("p", 2), f.sync());
		const [second] = await pipelined(1, f.execute("p", 2), f.sync());
		expect([first!.rows, second!.rows]).toEqual([[["1"], ["2"]], [["3"]]]);
		await client.query("ROLLBACK");
	});

	test("sequences and advisory locks are one for all clients, whichever shards they are on", async () => {
		await using other = await connect(proxy);
		const clients = [client, other];
		const numbers = new Set<string>();
		for (let i = 0; i < 10; i++) numbers.add(String((await clients[i % 2]!.query("SELECT nextval('s')")).rows));
		expect(numbers.size).toBe(10);
		// Also when the transactions are on different shards already.
		for (const [shard, each] of clients.entries()) {
			await each.query("BEGIN");
			await each.query(`/* pgdog_shard: ${shard} */ SELECT 1`);
		}
		const tries = [];
		for (const each of clients) tries.push((await each.query("SELECT pg_try_advisory_xact_lock(7)")).rows);
		expect(tries).toEqual([[["t"]], [["f"]]]);
		for (const each of clients) expect((await each.query("COMMIT")).tags).toEqual(["COMMIT"]);
	});

	test("NOTIFY reaches who listens once", async () => {
		await using session = await startProxy(options({ pooler_mode: "session" }));
		await using listening = await connect(session);
		await listening.query("LISTEN news");
		await using telling = await connect(session);
		await telling.query("NOTIFY news, 'a'");
		await telling.query("SELECT pg_notify('news', 'b')");
		await telling.query("NOTIFY news, 'end'");
		const told = [];
		do told.push((await listening.until("A")).at(-1)!.body.toString("latin1").slice(9, -1));
		while (told.at(-1) !== "end");
		expect(told).toEqual(["a", "b", "end"]);
	});

	test("is one row to drivers", async () => {
		const pg = new Client({ connectionString: proxy.url() });
		await pg.connect();
		expect((await pg.query("SELECT $1::int AS n", [7])).rows).toEqual([{ n: 7 }]);
		expect((await pg.query({ name: "ping", text: "SELECT 1 AS n" })).rows).toEqual([{ n: 1 }]);
		await pg.end();
		await using sql = Object.assign(postgres(proxy.url(), { max: 2 }), { [Symbol.asyncDispose]: () => sql.end() });
		const many = await Promise.all(Array.from({ length: 20 }, (_, i) => sql`SELECT ${i}::int AS n`));
		expect(many.map((rows) => rows.map(({ n }) => n))).toEqual(Array.from({ length: 20 }, (_, i) => [i]));
		await sql.begin(async (tx) => {
			expect(await tx`SELECT 1 AS n`).toHaveLength(1);
			expect(await tx`SELECT id FROM t`).toHaveLength(12);
		});
	});

	test("with prepared_statements = disabled can be run where it was parsed, whatever the transaction has", async () => {
		await using raw = await startProxy(options({ pooler_mode: "session" }));
		// As many clients as have each of the shards for their own.
		for (let i = 0; i < 2; i++) {
			await using mine = await connect(raw);
			mine.send(f.parse("SELECT current_database()", "mine"), f.sync());
			expect(letters(await mine.result())).toBe("1Z");
			for (const shard of [0, 1]) {
				mine.send(run("BEGIN"), run(`/* pgdog_shard: ${shard} */ SELECT 1`), f.sync());
				expect((await mine.result()).errors).toEqual([]);
				mine.send(f.bind({ statement: "mine" }), f.execute(), f.sync());
				const result = await mine.result();
				expect([result.errors, result.rows.length]).toEqual([[], 1]);
				await mine.query("ROLLBACK");
			}
		}
	});
});

// ---- refused ---------------------------------------------------------------------------------------------------------

describe("what is refused", () => {
	test("is named, with a hint, and nothing of it is sent; for one shard it is run", async () => {
		for (const result of [
			await client.query("SELECT count(*), 1 FROM t"),
			await client.extended("SELECT count(*), 1 FROM t"),
			await client.query("INSERT INTO t VALUES (1000); SELECT count(*), 1 FROM t"),
		]) {
			const [error] = result.errors;
			expect([letters(result), error?.C, result.status]).toEqual(["EZ", "0A000", "I"]);
			expect(error?.M).toContain("the aggregate count()");
			expect(error?.H).toContain("cross_shard_unmerged");
		}
		expect((await client.query("SELECT id FROM t WHERE id = 1000")).rows).toEqual([]);
		expect((await client.query("/* pgdog_shard: 0 */ SELECT count(*) > 0 FROM t")).rows).toEqual([["t"]]);
		await client.query("SET pgdog.shard = 1");
		expect((await client.extended("SELECT count(*) > 0 FROM t")).rows).toEqual([["t"]]);
	});

	test("may be parsed and described, and is told when it is bound", async () => {
		const [described] = await pipelined(
			1,
			f.parse("SELECT id FROM t ORDER BY grp", "d"),
			f.describe("S", "d"),
			f.sync(),
		);
		expect(letters(described!)).toBe("1tTZ");
		const [bound, next] = await pipelined(
			2,
			f.bind({ statement: "d" }),
			f.execute(),
			f.sync(),
			run("SELECT 1"),
			f.sync(),
		);
		expect([letters(bound!), sqlstates(bound!)]).toEqual(["EZ", ["0A000"]]);
		expect(next!.rows).toEqual([["1"]]);
	});

	test("fails the transaction on every shard that has it, and takes a batch back", async () => {
		for (const first of [
			"UPDATE t SET grp = 99 WHERE id = 1",
			"/* pgdog_shard: 1 */ UPDATE t SET grp = 99 WHERE id < 5",
		]) {
			await client.query("BEGIN");
			expect((await client.query(first)).status).toBe("T");
			const refused = await client.query("SELECT id FROM t ORDER BY grp");
			expect([sqlstates(refused), refused.status]).toEqual([["0A000"], "E"]);
			expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
			const [batch] = await pipelined(1, run(first), run("SELECT avg(id) FROM t"), f.sync());
			expect([letters(batch!), batch!.status]).toEqual(["EZ", "I"]);
		}
		expect((await client.query("SELECT id FROM t WHERE grp = 99")).rows).toEqual([]);
	});

	// The string was refused for being part of it, and with it the ROLLBACK.
	test("fails a transaction that no shard knows of, which a string may end and go on", async () => {
		await client.query("BEGIN");
		expect((await client.query("SELECT avg(id) FROM t")).status).toBe("E");
		expect(sqlstates(await client.query("SELECT 1; ROLLBACK"))).toEqual(["25P02"]);
		const ended = await client.query("ROLLBACK; SELECT id FROM t WHERE id < 3");
		expect([ended.errors, ended.tags, ended.status]).toEqual([[], ["ROLLBACK", "SELECT 2"], "I"]);
	});

	test("passes where cross_shard_unmerged permits it, each shard answering for itself, also after a reload", async () => {
		await using permits = await startProxy(options({ cross_shard_unmerged: "permit" }));
		await using mine = await connect(permits);
		expect((await mine.query("SELECT count(*) FROM t")).rows).toHaveLength(2);
		expect((await mine.query("SELECT total()")).rows).toHaveLength(2);
		expect((await mine.query("SELECT 1")).rows).toHaveLength(1);
		const from = permits.lines.length;
		permits.writeConfig(options({ cross_shard_unmerged: "refuse" }).config);
		permits.signal("SIGHUP");
		await permits.waitForLog(/configuration reloaded/, 10_000, from);
		await using fresh = await connect(permits);
		expect(sqlstates(await fresh.query("SELECT avg(id) FROM t"))).toEqual(["0A000"]);
	});
});
