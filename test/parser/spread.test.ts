// Which of several shards a statement is for, and what of it their answers cannot be made one for, by table; and the lists of what is
// known of PostgreSQL against its own catalogue. That no answer is wrong is tried in test/integration/shards-answers.test.ts.

import { describe, expect, test } from "bun:test";
import { statementFacts } from "../../src/parser/facts.ts";
import {
	AGGREGATES,
	BUILT_IN_FUNCTIONS,
	CATALOGUE_RELATIONS,
	EXTENSION_FUNCTIONS,
	READING_FUNCTIONS,
} from "../../src/parser/known-functions.ts";
import { Parsed, SqlParser } from "../../src/parser/parse.ts";
import { Spread } from "../../src/parser/spread.ts";
import { startPostgres } from "../support/postgres.ts";
import { spent } from "../support/processor.ts";

const parser = new SqlParser();
const placement = (sql: string) => statementFacts(parser.parse(sql), sql).placement;
const SPREADS = ["one", "first", "each", "all"];

/** `one`, `first`, `all`, with the statements that only the first shard answers; or what is not merged, or not known. */
function told(sql: string): string {
	const { spread, firstAnswers, unmerged, merges, calls } = placement(sql);
	if (unmerged !== null) return unmerged;
	if (calls.length > 0) return `? ${calls.join(" ")}`;
	const firsts = (firstAnswers ?? []).map((first) => (first ? "1" : "+"));
	return [SPREADS[spread], ...firsts, ...(merges ? ["merged"] : [])].join(" ");
}

describe("any one shard answers", () => {
	test.each([
		"",
		" -- ping",
		"SELECT 1",
		"select",
		"SELECT version()",
		"SELECT now(), $1::int",
		"SELECT pg_backend_pid()",
		"SELECT 1 WHERE true",
		"SHOW server_version",
		"SHOW ALL",
		"VALUES (1), (2)",
		"SELECT count(*), max(x) FROM generate_series(1, 10) x GROUP BY x % 2 ORDER BY 1 LIMIT 3",
		"SELECT * FROM unnest(ARRAY[1, 2]) WITH ORDINALITY",
		"SELECT * FROM (VALUES (1), (2)) v(a) JOIN (VALUES (2)) w(a) USING (a)",
		"WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT sum(n) FROM r",
		"WITH a AS (SELECT 1 AS x), b AS (SELECT x FROM a) SELECT * FROM a, b",
		"SELECT oid, typname FROM pg_type WHERE typname = 'citext' ORDER BY 1",
		"SELECT c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace",
		"SELECT count(*) FROM information_schema.columns WHERE table_name = 't'",
		"SELECT * FROM pg_stat_activity",
		"SELECT current_setting('app.tenant'), pg_catalog.format_type(1, 2), information_schema._pg_char_max_length(1, 2)",
		"SELECT uuid_generate_v4(), extensions.uuid_generate_v4(), public.crypt('a', 'b')",
		"SELECT EXTRACT(year FROM now()), CURRENT_DATE, 'a' LIKE 'b' ESCAPE 'c', trim('x'), now() AT TIME ZONE 'UTC'",
		"COPY (SELECT 1) TO STDOUT (FORMAT csv, HEADER)",
		"COPY pg_class TO STDOUT",
		"EXPLAIN SELECT 1",
		"EXPLAIN ANALYZE SELECT count(*) FROM pg_class",
		"SELECT 1; SELECT 2",
		"TABLE pg_class",
		"(SELECT 1) UNION (SELECT 2) ORDER BY 1",
		"SELECT currval('s'), lastval()",
	])("%s", (sql) => {
		expect(told(sql)).toBe("one");
	});
});

test.each([
	["SELECT nextval('s')", "first"],
	["SELECT 1; SELECT pg_advisory_xact_lock(1)", "first"],
	["SELECT pg_catalog.pg_try_advisory_lock(hashtext($1))", "first"],
	["SELECT lo_create(0)", "first"],
	["SELECT data FROM pg_largeobject", "first"],
	["NOTIFY news, 'x'", "first"],
	["SELECT pg_notify('news', 'x')", "first"],
	["SELECT set_config('search_path', '', false)", "all 1"],
	["SELECT pg_catalog.setval('s', 5, true)", "all 1"],
	["SET work_mem = 100; SELECT 1", "all + 1"],
	["BEGIN; SELECT 1; SHOW port; INSERT INTO t VALUES (1)", "all + 1 1 +"],
	["BEGIN; SELECT nextval('s'); COMMIT", "all + 1 +"],
])("%s is for %s", (sql, expected) => {
	expect(told(sql)).toBe(expected);
});

describe("the answers of all shards are the answer to", () => {
	test.each([
		"SELECT * FROM t",
		"SELECT FROM t",
		"TABLE t",
		"SELECT a, lower(b), row_to_json(t) FROM s.t AS x WHERE a = $1 AND b IN (1, 2) AND c BETWEEN 1 AND 2",
		"SELECT * FROM t FOR UPDATE SKIP LOCKED",
		"SELECT t.a, u FROM t, unnest(t.b) u",
		"SELECT * FROM t LEFT JOIN LATERAL jsonb_each(t.data) e ON true",
		"SELECT * FROM (VALUES (1), (2)) v(a) JOIN t ON t.a = v.a",
		"SELECT * FROM (VALUES (1), (2)) v(a) RIGHT JOIN t ON t.a = v.a",
		"SELECT * FROM (SELECT a FROM t WHERE b) s WHERE a > 1",
		"WITH v AS (SELECT 1 AS a) SELECT * FROM t JOIN v USING (a)",
		"SELECT tableoid::regclass, c.relkind FROM t JOIN pg_class c ON c.oid = t.tableoid",
		"SELECT * FROM t WHERE a = ANY(ARRAY(SELECT 1)) AND EXISTS (SELECT 1 FROM pg_class)",
		"SELECT * FROM t TABLESAMPLE system (1)",
		"SELECT generate_series(1, a) FROM t",
		"SELECT CASE WHEN a IS NULL THEN coalesce(b, 1) END, greatest(a, b), a::text, a || 'x' FROM t",
		"SELECT * INTO copy FROM t WHERE a",
		"CREATE TABLE copy AS SELECT a FROM t",
		"CREATE TABLE copy AS SELECT 1",
		"CREATE VIEW v AS SELECT count(*) FROM t",
		"INSERT INTO t VALUES (1), (nextval('s')) RETURNING a",
		"INSERT INTO t SELECT g FROM generate_series(1, 10) g ORDER BY g LIMIT 5",
		"INSERT INTO t VALUES (my_function(1)) ON CONFLICT (a) DO UPDATE SET b = excluded.b",
		"UPDATE t SET a = a + 1 WHERE b RETURNING *",
		"UPDATE t SET b = v.b FROM (VALUES (1, 2)) v(a, b) WHERE t.a = v.a",
		"DELETE FROM t USING unnest($1::int[]) u WHERE t.a = u",
		"TRUNCATE t, u",
		"COPY t FROM STDIN (FORMAT csv, HEADER)",
		"COPY t TO STDOUT",
		"COPY t TO STDOUT (FORMAT csv, HEADER false)",
		"COPY (SELECT a FROM t WHERE b) TO STDOUT",
		"EXPLAIN SELECT count(*) FROM t ORDER BY 1",
		"DECLARE c CURSOR FOR SELECT * FROM t",
		"FETCH ALL FROM c",
		"PREPARE p AS SELECT * FROM t WHERE a = $1",
		"PREPARE p AS INSERT INTO t VALUES ($1)",
		"SET work_mem = 100",
		"BEGIN",
		"CALL p()",
		"LISTEN x",
		"SELECT * FROM t; DELETE FROM t",
		"SELECT set_config('a.b', c, true) FROM t",
		"SELECT public.similarity(a, 'x') FROM t",
	])("%s", (sql) => {
		expect(told(sql)).toBe("all");
	});
});

describe("what is asked of the rows of all shards is done where they are merged", () => {
	test.each([
		"SELECT count(*) FROM t",
		"SELECT count(a), coalesce(sum(b), 0), max(lower(c)) FILTER (WHERE d) FROM s.t WHERE e",
		"SELECT * FROM t ORDER BY a",
		"SELECT * FROM t LIMIT 5",
		"SELECT * FROM t FETCH FIRST ROW ONLY",
		"SELECT * FROM t OFFSET 5",
		"TABLE t ORDER BY 1 DESC NULLS LAST LIMIT $1",
		'SELECT a, lower(b) FROM s.t x WHERE c ORDER BY lower(b) COLLATE "C", x.a LIMIT $2::bigint OFFSET $1',
		"SELECT DISTINCT a, b FROM t ORDER BY 2, 1",
		"SELECT a FROM t UNION ALL (SELECT b FROM u UNION ALL SELECT c FROM t) ORDER BY 1",
		"SELECT a FROM t ORDER BY a FOR UPDATE",
		"SELECT * FROM (SELECT a FROM t WHERE b) s ORDER BY s.a",
	])("%s", (sql) => {
		expect(told(sql)).toBe("all merged");
	});

	test("in a string with others, too; a UNION ALL alone asks nothing", () => {
		expect(told("SELECT 1; SELECT * FROM t ORDER BY 1")).toBe("all 1 + merged");
		expect(told("SELECT a FROM t UNION ALL SELECT b FROM u WHERE c")).toBe("all");
	});
});

describe("refused over several shards for", () => {
	test.each([
		["SELECT * FROM t FOR UPDATE SKIP LOCKED LIMIT 1", "LIMIT or FETCH FIRST"],
		["SELECT DISTINCT a FROM t", "DISTINCT"],
		["SELECT DISTINCT a, b FROM t ORDER BY a", "DISTINCT"],
		["SELECT count(*) FROM t HAVING count(*) > 1", "HAVING"],
		["SELECT count(*) FROM t GROUP BY ()", "GROUP BY"],
		["SELECT sum(total(a)) FROM t JOIN u USING (b)", "more than one table"],
		["SELECT sum((SELECT 1 FROM u)) FROM t", "a subquery"],
		["SELECT max(count(*)) FROM t", "the aggregate count()"],
		["SELECT a FROM t ORDER BY b", "ORDER BY of what is no column of the output"],
		["SELECT a FROM t ORDER BY a + 1", "ORDER BY of what is no column of the output"],
		["SELECT a FROM t ORDER BY a USING <", "ORDER BY of what is no column of the output"],
		['SELECT a FROM t ORDER BY a COLLATE "de_DE"', "ORDER BY of what is no column of the output"],
		["SELECT a FROM t LIMIT (SELECT 1)", "LIMIT or OFFSET that is computed"],
		["SELECT a FROM t ORDER BY 1 FETCH FIRST 2 ROWS WITH TIES", "FETCH FIRST … WITH TIES"],
		["SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", "UNION"],
		["SELECT a FROM t UNION ALL SELECT 1", "UNION"],
		["SELECT a FROM t UNION ALL (SELECT b FROM t LIMIT 1)", "UNION"],
		["WITH v AS (SELECT 1 AS a) SELECT a FROM t UNION ALL SELECT a FROM v", "UNION"],
		["SELECT a INTO x FROM t ORDER BY a", "ORDER BY"],
		["SELECT DISTINCT ON (a) a FROM t", "DISTINCT"],
		["SELECT a FROM t GROUP BY a", "GROUP BY"],
		["SELECT 1 FROM t HAVING true", "HAVING"],
		["SELECT count(*), 1 FROM t", "the aggregate count()"],
		["SELECT string_agg(a, ',' ORDER BY b) FROM t", "the aggregate string_agg()"],
		["SELECT json_arrayagg(a) FROM t", "the aggregate json_arrayagg()"],
		["SELECT json_objectagg(a: b) FROM t", "the aggregate json_objectagg()"],
		["SELECT a + max(b) FROM t", "the aggregate max()"],
		["SELECT mine(a) FILTER (WHERE b) FROM t", "the aggregate mine()"],
		["SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t", "the aggregate percentile_cont()"],
		["SELECT app.mine(DISTINCT a) FROM t", "the aggregate mine()"],
		["SELECT x.count FROM t x", "a column that may be the aggregate count()"],
		["SELECT (x).array_agg FROM t x", "a column that may be the aggregate array_agg()"],
		["SELECT row_number() OVER () FROM t", "the window function row_number()"],
		["SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b)", "WINDOW"],
		["SELECT a FROM t UNION ALL SELECT 1", "UNION"],
		["SELECT a FROM t INTERSECT SELECT a FROM u", "INTERSECT"],
		["SELECT 1 EXCEPT SELECT a FROM u", "EXCEPT"],
		["SELECT * FROM t, u", "more than one table"],
		["SELECT * FROM t a JOIN t b ON a.id = b.parent", "more than one table"],
		["SELECT * FROM pg_class c LEFT JOIN t ON t.a = c.relname", "LEFT JOIN"],
		["SELECT * FROM t RIGHT JOIN generate_series(1, 3) g ON t.a = g", "RIGHT JOIN"],
		["SELECT * FROM (VALUES (1)) v(a) FULL JOIN t USING (a)", "FULL JOIN"],
		["SELECT * FROM (VALUES (1)) v(a) LEFT JOIN LATERAL (SELECT * FROM t WHERE t.a = v.a) s ON true", "LEFT JOIN"],
		["SELECT * FROM t WHERE a IN (SELECT a FROM u)", "a subquery"],
		["SELECT EXISTS (SELECT 1 FROM t)", "a subquery"],
		["SELECT (SELECT a FROM t)", "a subquery"],
		["VALUES ((SELECT a FROM t))", "a subquery"],
		["SELECT * FROM pg_class WHERE relname IN (SELECT a FROM t)", "a subquery"],
		["SELECT ARRAY(SELECT a FROM t)", "a subquery"],
		["WITH x AS (SELECT a FROM t) SELECT * FROM x", "WITH"],
		["WITH x AS (SELECT * FROM x) SELECT * FROM x", "WITH"],
		["WITH t AS (SELECT 1), u AS (SELECT * FROM s.t) SELECT * FROM t", "WITH"],
		["WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT 1", "WITH"],
		["WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM x", "WITH"],
		["SELECT * FROM (SELECT * FROM t LIMIT 1) s", "LIMIT or FETCH FIRST"],
		["SELECT nextval('s'), a FROM t", "nextval()"],
		["SELECT pg_advisory_lock(a) FROM t", "pg_advisory_lock()"],
		["SELECT query_to_xml('SELECT count(*) FROM t', true, true, '')", "query_to_xml()"],
		["SELECT * FROM t, ts_stat('SELECT x FROM t')", "ts_stat()"],
		["CREATE TABLE x AS SELECT count(*) FROM t", "the aggregate count()"],
		["CREATE MATERIALIZED VIEW x AS SELECT a FROM t ORDER BY a", "ORDER BY"],
		["SELECT DISTINCT a INTO x FROM t", "DISTINCT"],
		["INSERT INTO t SELECT * FROM u", "INSERT … SELECT"],
		["INSERT INTO t VALUES ((SELECT max(a) FROM t))", "a subquery"],
		["INSERT INTO t VALUES (1) RETURNING (SELECT count(*) FROM t)", "a subquery"],
		["UPDATE t SET a = u.a FROM u", "UPDATE … FROM another table"],
		["UPDATE t SET a = (SELECT count(*) FROM u)", "a subquery"],
		["DELETE FROM t USING u WHERE t.a = u.a", "DELETE … USING another table"],
		["DELETE FROM t WHERE a IN (SELECT a FROM t ORDER BY a LIMIT 1)", "a subquery"],
		["DELETE FROM t WHERE CURRENT OF c", "WHERE CURRENT OF"],
		["MERGE INTO t USING (VALUES (1)) v(a) ON t.a = v.a WHEN NOT MATCHED THEN INSERT VALUES (1)", "MERGE"],
		["COPY (SELECT a FROM t ORDER BY a) TO STDOUT", "ORDER BY"],
		["COPY t TO STDOUT WITH CSV HEADER", "HEADER of COPY … TO"],
		["COPY t TO STDOUT (HEADER)", "HEADER of COPY … TO"],
		["COPY (SELECT a FROM t) TO STDOUT (FORMAT csv, HEADER on)", "HEADER of COPY … TO"],
		["DECLARE c CURSOR FOR SELECT a FROM t ORDER BY a", "ORDER BY"],
		["DECLARE c CURSOR FOR SELECT 1", "a cursor for what names no table"],
		["FETCH 5 FROM c", "FETCH or MOVE of some rows"],
		["FETCH c", "FETCH or MOVE of some rows"],
		["MOVE 5 IN c", "FETCH or MOVE of some rows"],
		["PREPARE p AS SELECT count(*) FROM t", "the aggregate count()"],
		["PREPARE p AS SELECT 1", "PREPARE of what names no table"],
		["PREPARE p AS DELETE FROM t WHERE a IN (SELECT a FROM u)", "a subquery"],
		["BEGIN; SELECT count(*), 1 FROM t", "the aggregate count()"],
		["SELECT my_function()", "? my_function"],
		["SELECT * FROM app.users_of($1)", "? app.users_of"],
		["SELECT app.lower(a), other(b) FROM t", "? app.lower other"],
		["SELECT a(1), b(2)", "? a b"],
	])("%s: %s", (sql, expected) => {
		expect(told(sql)).toBe(expected);
		expect(placement(sql).spread === Spread.All || expected.startsWith("?")).toBe(true);
	});
});

test("what has no tree is refused, but for writes of their own values", () => {
	const long = `'${"x".repeat(300_000)}'`;
	const values = [
		`INSERT INTO t VALUES (${long}, 'select')`,
		`insert into t (a, "select") values (${long});`,
		`DELETE FROM t WHERE a = ${long}`,
		`UPDATE t SET a = ${long} WHERE b = 1 -- select`,
	];
	for (const sql of values) {
		expect(statementFacts(parser.parse(sql), sql).parsed).toBe(Parsed.TooLarge);
		expect(told(sql)).toBe("all");
	}
	const others = [
		`SELECT ${long}`,
		`INSERT INTO t SELECT ${long} FROM u`,
		`INSERT INTO t TABLE u /* ${long} */`,
		`INSERT INTO t VALUES (${long}); SELECT count(*) FROM t`,
		`INSERT INTO t VALUES (${long}); DELETE FROM t`,
		`WITH x AS (SELECT 1) DELETE FROM t WHERE a = ${long}`,
		`DELETE FROM t USING u WHERE a = ${long}`,
		`UPDATE t SET a = ${long} FROM u`,
		`DELETE FROM t WHERE a IN (SELECT ${long})`,
		`INSERT INTO t VALUES ('never ends${"x".repeat(300_000)}`,
	];
	for (const sql of others)
		expect([sql.slice(0, 40), told(sql)]).toEqual([sql.slice(0, 40), "a statement that could not be parsed"]);
});

test("the cost grows with the text, not with its square", () => {
	const time = (count: number) => {
		const queries = Array.from({ length: count }, (_, i) => `a${i} AS (TABLE a${i === 0 ? 0 : i - 1})`);
		const tree = parser.parse(`WITH ${queries} SELECT app.f(1) FROM a1`);
		const sql = "WITH";
		// Many times: the kernel counts in ticks of some milliseconds.
		return spent(() => {
			for (let i = 0; i < 40; i++) expect(statementFacts(tree, sql).placement.unmerged).toBe("WITH");
		});
	};
	time(400);
	// Eight times as many: with a copy of the names for each it was 64 times as long, and gigabytes.
	expect(time(3_200) / time(400)).toBeLessThan(30);
});

test("depth is no obstacle", () => {
	const deep = (inner: string) => `SELECT ${"abs(".repeat(400)}${inner}${")".repeat(400)} FROM t`;
	expect(told(deep("a"))).toBe("all");
	expect(told(deep("(SELECT a FROM u)"))).toBe("a subquery");
});

// A name in the lists that is an aggregate, or missing there, would be a wrong answer or a needless refusal.
test("the lists are PostgreSQL's own", async () => {
	await using cluster = await startPostgres();
	const { sql } = cluster.primary;
	const run = async (text: string) => (await sql.call(cluster.primary, text)).map(({ name }) => String(name));
	const functions = await run(
		"SELECT DISTINCT proname AS name FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'p')",
	);
	const aggregates = await run(
		"SELECT DISTINCT proname AS name FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('a', 'w')",
	);
	const relations = await run(
		"SELECT relname AS name FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')",
	);
	const windows = ["cume_dist", "dense_rank", "percent_rank", "rank"];
	const isWindow = (name: string) => !AGGREGATES.has(name) && !windows.includes(name);
	expect(aggregates.filter((name) => BUILT_IN_FUNCTIONS.has(name) || EXTENSION_FUNCTIONS.has(name))).toEqual([]);
	expect((await run("SELECT DISTINCT proname AS name FROM pg_proc WHERE prokind = 'a'")).filter(isWindow)).toEqual([]);
	expect(relations.filter((name) => !CATALOGUE_RELATIONS.has(name))).toEqual([]);
	// What people call: not what is there for an operator, a type's form, an aggregate, an index, or pg_upgrade.
	const called = await run(`
		SELECT DISTINCT proname AS name FROM pg_proc p
		WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind IN ('f', 'p')
			AND NOT proargtypes::oid[] && ARRAY['internal'::regtype, 'cstring'::regtype]::oid[]
			AND prorettype NOT IN ('internal'::regtype, 'cstring'::regtype, 'trigger'::regtype, 'event_trigger'::regtype)
			AND proname !~ '_validator$' AND proname <> 'int4inc'
			AND coalesce(obj_description(oid, 'pg_proc'), '') !~ '^(implementation of|I/O|aggregate|less-equal|(larger|smaller) of two|hash|.*pg_upgrade|.*selectivity|.* support|window |brin|clean up GIN|equal image)'
			AND NOT EXISTS (SELECT FROM pg_aggregate WHERE oid IN (aggtransfn, aggmtransfn, aggminvtransfn))`);
	const unknown = called.filter((name) => !BUILT_IN_FUNCTIONS.has(name) && !READING_FUNCTIONS.has(name));
	expect(unknown).toEqual([]);
	const missing = [...READING_FUNCTIONS].filter((name) => !functions.includes(name));
	expect(missing).toEqual([]);
}, 30_000);
