// What may go to a replica, by table; that blanks and comments change nothing, by property; and PostgreSQL's own catalog
// against the list of functions that write.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StatementCache } from "../../src/parser/cache.ts";
import { OnRows, type StatementFacts, statementFacts, TransactionControl } from "../../src/parser/facts.ts";
import { NO_HINTS } from "../../src/parser/hints.ts";
import { Parsed, SqlParser } from "../../src/parser/parse.ts";
import { Spread } from "../../src/parser/spread.ts";
import { WRITE_FUNCTIONS, writeFunctionsWith } from "../../src/parser/write-functions.ts";
import { startPostgres } from "../support/postgres.ts";

const parser = new SqlParser();
const factsOf = (sql: string): StatementFacts => statementFacts(parser.parse(sql), sql);
/** What is decided by, without what is shown. */
const decisive = (sql: string): StatementFacts => ({ ...factsOf(sql), text: "" });

const READS = [
	"",
	" ; -- nothing",
	"SELECT 1",
	"select",
	"SELECT * FROM t",
	"SELECT * FROM s.t AS x WHERE id = $1",
	"SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC NULLS LAST LIMIT 10 OFFSET 5",
	"SELECT a, count(*) FILTER (WHERE b) FROM t GROUP BY ROLLUP (a) HAVING count(*) > 1",
	"SELECT sum(a) OVER (PARTITION BY b ORDER BY c) FROM t",
	"SELECT * FROM a JOIN b USING (id) LEFT JOIN LATERAL (SELECT * FROM c WHERE c.id = a.id) c ON true",
	"SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3",
	"WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b",
	"WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT * FROM r",
	"VALUES (1, 'a'), (2, 'b')",
	"TABLE t",
	"(SELECT 1)",
	"SELECT * FROM t TABLESAMPLE system (1)",
	"SELECT * FROM generate_series(1, 10)",
	"SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3)) WITH ORDINALITY",
	"SELECT now(), random(), clock_timestamp(), pg_sleep(0), gen_random_uuid(), pg_is_in_recovery()",
	"SELECT my_function(1)",
	"SELECT app.my_function(x => 1)",
	"SELECT 'nextval(1)', 'INSERT INTO t', $$FOR UPDATE$$ FROM t",
	'SELECT "nextval", "setval" FROM "insert" AS "update"',
	"SELECT nextval FROM t",
	'SELECT "NextVal"(1)',
	"SELECT 1 -- FOR UPDATE",
	"SELECT 1 /* ; DELETE FROM t */",
	"SELECT CASE WHEN EXISTS (SELECT 1 FROM t) THEN ARRAY(SELECT a FROM t) END",
	"SELECT a::text, CAST(b AS int), '{}'::jsonb -> 'delete', x IS NOT NULL FROM t",
	"SELECT * FROM json_table('[]', '$[*]' COLUMNS (a int PATH '$.a'))",
	"SELECT xmlelement(name a), json_object('a': 1), current_user, current_timestamp",
	"SELECT pg_current_xact_id_if_assigned(), txid_current_if_assigned(), pg_last_wal_replay_lsn()",
	"SELECT lo_get(1), pg_table_size('t'), pg_read_file('a')",
	"SELECT current_setting('app.tenant')",
	"SELECT last_value FROM a_seq",
	"SELECT * FROM pg_settings",
	"EXPLAIN SELECT 1",
	"EXPLAIN ANALYZE SELECT * FROM t",
	"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM t WHERE a IN (SELECT b FROM c)",
	"EXPLAIN (ANALYZE false) VALUES (1)",
	"EXPLAIN VERBOSE TABLE t",
	"COPY t TO STDOUT",
	"COPY s.t (a, b) TO STDOUT WITH (FORMAT binary)",
	"COPY t TO STDOUT CSV HEADER",
	"COPY (SELECT * FROM t) TO STDOUT",
	"COPY (VALUES (1)) TO STDOUT (FORMAT csv)",
	"SELECT 1; SELECT 2",
	"SELECT 1;; ;VALUES (1); TABLE t;",
	"SELECT 1 WHERE 'a' LIKE 'b' COLLATE \"C\" FETCH FIRST 3 ROWS WITH TIES".replace(" FETCH", " ORDER BY 1 FETCH"),
	"SELECT t.* FROM ONLY t, LATERAL unnest(t.a) u WINDOW w AS (PARTITION BY b)",
	"SELECT (SELECT max(a) FROM t), ROW(1, 2) = ROW(1, 2), (r).f, a[1:2] FROM t",
];

const WRITES = [
	// Statements that are no reading.
	"INSERT INTO t VALUES (1)",
	"INSERT INTO t SELECT * FROM u",
	"INSERT INTO t DEFAULT VALUES RETURNING id",
	"INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
	"UPDATE t SET a = 1",
	"UPDATE t SET a = 1 FROM u WHERE t.id = u.id RETURNING *",
	"DELETE FROM t",
	"DELETE FROM t USING u WHERE t.id = u.id",
	"MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE",
	"TRUNCATE t",
	"CALL p()",
	"DO $$ BEGIN END $$",
	"CREATE TABLE t (a int)",
	"CREATE TABLE t AS SELECT 1",
	"CREATE TEMP TABLE t AS TABLE u WITH NO DATA",
	"CREATE INDEX i ON t (a)",
	"CREATE VIEW v AS SELECT 1",
	"CREATE MATERIALIZED VIEW v AS SELECT 1",
	"REFRESH MATERIALIZED VIEW v",
	"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
	"CREATE SEQUENCE s",
	"CREATE EXTENSION e",
	"CREATE ROLE r",
	"CREATE DATABASE d",
	"ALTER TABLE t ADD COLUMN b int",
	"ALTER SYSTEM SET work_mem = '1MB'",
	"DROP TABLE t",
	"GRANT SELECT ON t TO r",
	"REVOKE ALL ON t FROM r",
	"COMMENT ON TABLE t IS 'x'",
	"SET CONSTRAINTS ALL IMMEDIATE",
	"DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE",
	"DECLARE c CURSOR FOR SELECT nextval('s')",
	"PREPARE p AS INSERT INTO t VALUES ($1)",
	"PREPARE p AS SELECT * FROM t WHERE a = $1 FOR SHARE",
	"SECURITY LABEL ON TABLE t IS 'x'",
	"REINDEX TABLE t",
	"VACUUM t",
	"ANALYZE t",
	"CLUSTER t",
	"CHECKPOINT",
	"LOCK TABLE t",
	"LOCK TABLE t IN ACCESS SHARE MODE",
	"NOTIFY c, 'x'",
	"LISTEN c",
	"UNLISTEN *",
	"LOAD 'x'",
	"EXECUTE p",
	"IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y",
	"CREATE PUBLICATION p FOR TABLE t",
	"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
	"REASSIGN OWNED BY a TO b",
	// Two phases.
	"PREPARE TRANSACTION 'x'",
	"COMMIT PREPARED 'x'",
	"ROLLBACK PREPARED 'x'",
	// SELECT that writes.
	"SELECT 1 INTO t",
	"SELECT * INTO TEMP t FROM u",
	"SELECT 1 INTO t UNION SELECT 2",
	"SELECT * FROM t FOR UPDATE",
	"SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED",
	"SELECT * FROM t FOR SHARE NOWAIT",
	"SELECT * FROM t FOR KEY SHARE",
	"SELECT * FROM (SELECT * FROM t FOR UPDATE) x",
	"SELECT (SELECT a FROM t FOR SHARE)",
	"SELECT 1 WHERE EXISTS (SELECT 1 FROM t FOR UPDATE)",
	"WITH a AS (SELECT * FROM t FOR UPDATE) SELECT * FROM a",
	"TABLE t FOR UPDATE",
	"WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a",
	"WITH a AS (DELETE FROM t RETURNING *) SELECT 1",
	"WITH a AS (UPDATE t SET a = 1) SELECT 1",
	"WITH a AS (MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE RETURNING *) SELECT 1",
	"WITH a AS (SELECT 1), b AS (WITH c AS (DELETE FROM t RETURNING *) SELECT * FROM c) SELECT * FROM b",
	"SELECT * FROM (WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a) x",
	"SELECT 1 UNION (WITH a AS (DELETE FROM t RETURNING 1) SELECT 1 FROM a)",
	"WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
	"VALUES ((WITH a AS (DELETE FROM t RETURNING 1) SELECT 1 FROM a))",
	// Functions.
	"SELECT nextval('s')",
	"SELECT NEXTVAL('s')",
	"SELECT \"nextval\"('s')",
	"SELECT pg_catalog.nextval('s'::regclass)",
	"SELECT \"pg_catalog\" . nextval /* x */ ('s')",
	"SELECT U&\"n\\0065xtval\"('s')",
	"SELECT other.nextval('s')",
	"SELECT setval('s', 1)",
	"SELECT currval('s'), lastval()",
	"SELECT * FROM nextval('s')",
	"SELECT * FROM t JOIN LATERAL nextval('s') n ON true",
	"SELECT * FROM ROWS FROM (generate_series(1, 2), nextval('s'))",
	"SELECT 1 + coalesce(nullif(CASE WHEN a THEN nextval('s') END, 1), 2)::int FROM t",
	"SELECT 1 FROM t WHERE a = ANY (ARRAY[nextval('s')])",
	"SELECT 1 FROM t ORDER BY nextval('s')",
	"SELECT 1 FROM t GROUP BY nextval('s')",
	"SELECT 1 LIMIT nextval('s')",
	"SELECT sum(a) FILTER (WHERE nextval('s') > 1) OVER (ORDER BY b) FROM t",
	"SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY nextval('s'))",
	"SELECT f(x => nextval('s'))",
	"SELECT f(VARIADIC ARRAY[setval('s', 1)])",
	"SELECT (nextval('s'))::text COLLATE \"C\"",
	"SELECT ROW(nextval('s'))",
	"SELECT json_object('a': nextval('s'))",
	"SELECT xmlelement(name a, nextval('s'))",
	"SELECT * FROM t TABLESAMPLE system (nextval('s'))",
	"VALUES (1), (nextval('s'))",
	"WITH a AS (SELECT nextval('s')) SELECT 1",
	"SELECT DISTINCT ON (nextval('s')) 1",
	"SELECT set_config('a.b', 'c', false)",
	"SELECT pg_notify('c', 'x')",
	"SELECT pg_advisory_lock(1)",
	"SELECT pg_advisory_xact_lock_shared(1, 2)",
	"SELECT pg_try_advisory_lock(1)",
	"SELECT pg_try_advisory_xact_lock(1)",
	"SELECT pg_advisory_unlock(1)",
	"SELECT pg_advisory_unlock_all()",
	"SELECT txid_current()",
	"SELECT pg_current_xact_id()",
	"SELECT lo_create(0)",
	"SELECT lo_put(1, 0, 'x')",
	"SELECT pg_switch_wal()",
	"SELECT pg_current_wal_lsn()",
	"SELECT pg_logical_slot_get_changes('s', NULL, NULL)",
	"SELECT pg_create_physical_replication_slot('s')",
	"SELECT pg_terminate_backend(1)",
	"SELECT pg_stat_reset()",
	"SELECT query_to_xml('SELECT nextval(''s'')', true, true, '')",
	// EXPLAIN and COPY.
	"EXPLAIN ANALYZE DELETE FROM t",
	"EXPLAIN (ANALYZE) WITH a AS (DELETE FROM t) SELECT 1",
	"EXPLAIN ANALYZE SELECT nextval('s')",
	"EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t",
	"EXPLAIN (ANALYZE maybe) DELETE FROM t",
	"EXPLAIN (ANALYZE 1, COSTS off) DELETE FROM t",
	"EXPLAIN ANALYZE REFRESH MATERIALIZED VIEW v",
	"EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
	"EXPLAIN ANALYZE EXECUTE p",
	"EXPLAIN ANALYZE SELECT 1 INTO t",
	"COPY t FROM STDIN",
	"COPY t FROM '/a'",
	"COPY t TO '/a'",
	"COPY t TO PROGRAM 'cat'",
	"COPY (SELECT 1) TO '/a'",
	"COPY (INSERT INTO t VALUES (1) RETURNING *) TO STDOUT",
	"COPY (DELETE FROM t RETURNING *) TO STDOUT",
	"COPY (SELECT nextval('s')) TO STDOUT",
	"COPY (SELECT * FROM t FOR UPDATE) TO STDOUT",
	"COPY (WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a) TO STDOUT",
	// Several statements: one write makes all of them one.
	"SELECT 1; DELETE FROM t",
	"DELETE FROM t; SELECT 1",
	"SELECT 1; SELECT nextval('s'); SELECT 2",
	"SHOW a.b; DELETE FROM t; COMMIT",
	"BEGIN; SELECT 1; PREPARE TRANSACTION 'x'",
];

/** Neither reads that a replica may take by themselves, nor writes. */
const NEITHER = [
	"DISCARD ALL",
	"SET work_mem = 1",
	"SET LOCAL work_mem = 1",
	"SET TRANSACTION READ ONLY",
	"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
	"SET ROLE r",
	"RESET ALL",
	"SHOW work_mem",
	"SHOW ALL",
	"DECLARE c CURSOR FOR SELECT 1",
	"DECLARE c CURSOR WITH HOLD FOR SELECT 1",
	"FETCH 1 FROM c",
	"MOVE 1 IN c",
	"CLOSE c",
	"PREPARE p AS SELECT 1",
	"DEALLOCATE p",
	"BEGIN",
	"START TRANSACTION READ ONLY",
	"COMMIT",
	"ROLLBACK",
	"SAVEPOINT a",
	"EXPLAIN INSERT INTO t VALUES (1)",
	"EXPLAIN SELECT * FROM t FOR UPDATE",
	"EXPLAIN DECLARE c CURSOR FOR SELECT 1",
	"SELECT 1; BEGIN",
	"SELECT 1; SET a.b = 1; SELECT 2",
	"SELECT 1; SHOW a.b",
	"SET TRANSACTION SNAPSHOT '00000003-0000001B-1'",
	"RESET work_mem",
	"SET pgdog.role TO replica",
	"DECLARE c BINARY SCROLL CURSOR FOR VALUES (1)",
	"FETCH ALL c",
	"CLOSE ALL",
	"PREPARE p (int) AS TABLE t",
	"DEALLOCATE ALL",
	"RELEASE a",
	"ROLLBACK TO a",
	"COMMIT AND CHAIN",
	"EXPLAIN VERBOSE UPDATE t SET a = 1",
	"EXPLAIN (ANALYZE off) DELETE FROM t",
	"EXPLAIN (ANALYZE, ANALYZE false) DELETE FROM t",
	"EXPLAIN (ANALYZE 0, FORMAT yaml) CREATE TABLE t AS SELECT 1",
	"EXPLAIN SELECT nextval('s')",
	"EXPLAIN EXECUTE p",
	"BEGIN; SELECT 1; COMMIT",
];

describe("reads", () => {
	test.each(READS)("%s", (sql) => {
		expect(factsOf(sql)).toMatchObject({
			parsed: Parsed.Tree,
			reads: true,
			writes: false,
			transaction: TransactionControl.None,
		});
	});
});

describe("writes", () => {
	test.each(WRITES)("%s", (sql) => {
		expect(factsOf(sql)).toMatchObject({ parsed: Parsed.Tree, reads: false, writes: true });
	});
});

describe("neither reads nor writes", () => {
	test.each(NEITHER)("%s", (sql) => {
		expect(factsOf(sql)).toMatchObject({ parsed: Parsed.Tree, reads: false, writes: false });
	});
});

test.each([
	["BEGIN", TransactionControl.Begin],
	["begin work", TransactionControl.Begin],
	["START TRANSACTION", TransactionControl.Begin],
	["BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE, NOT DEFERRABLE", TransactionControl.BeginReadWrite],
	["BEGIN READ ONLY", TransactionControl.BeginReadOnly],
	["BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", TransactionControl.BeginReadOnly],
	["START TRANSACTION READ ONLY, DEFERRABLE", TransactionControl.BeginReadOnly],
	["BEGIN READ ONLY READ WRITE", TransactionControl.BeginReadWrite],
	["START TRANSACTION READ WRITE", TransactionControl.BeginReadWrite],
	["BEGIN ISOLATION LEVEL SERIALIZABLE", TransactionControl.BeginReadWrite],
	["BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE", TransactionControl.BeginReadWrite],
	["BEGIN READ WRITE READ ONLY", TransactionControl.BeginReadOnly],
	["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", TransactionControl.BeginReadWrite],
	["BEGIN READ ONLY, ISOLATION LEVEL SERIALIZABLE, ISOLATION LEVEL READ COMMITTED", TransactionControl.BeginReadOnly],
	["/* READ ONLY */ BEGIN -- READ ONLY", TransactionControl.Begin],
	["BEGIN; SELECT 1; COMMIT", TransactionControl.Begin],
	["COMMIT", TransactionControl.Commit],
	["END TRANSACTION", TransactionControl.Commit],
	["COMMIT AND CHAIN", TransactionControl.Commit],
	["ROLLBACK", TransactionControl.Rollback],
	["ABORT", TransactionControl.Rollback],
	["SAVEPOINT a", TransactionControl.Savepoint],
	["RELEASE a", TransactionControl.Savepoint],
	["ROLLBACK TO a", TransactionControl.Savepoint],
	["PREPARE TRANSACTION 'a'", TransactionControl.TwoPhase],
	["COMMIT PREPARED 'a'", TransactionControl.TwoPhase],
	["ROLLBACK PREPARED 'a'", TransactionControl.TwoPhase],
	["SELECT 1; BEGIN", TransactionControl.None],
	["SET TRANSACTION READ ONLY", TransactionControl.SetTransactionReadOnly],
	["SET LOCAL TRANSACTION READ ONLY", TransactionControl.SetTransactionReadOnly],
	["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", TransactionControl.SetTransactionReadOnly],
	["SET TRANSACTION READ ONLY, READ WRITE", TransactionControl.SetTransaction],
	["SET TRANSACTION READ WRITE", TransactionControl.SetTransaction],
	["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", TransactionControl.SetTransaction],
	["SET TRANSACTION DEFERRABLE", TransactionControl.SetTransaction],
	["SET TRANSACTION SNAPSHOT '00000003-0000001B-1'", TransactionControl.SetTransaction],
	["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", TransactionControl.None],
	["SET transaction_read_only = on", TransactionControl.None],
	['SET "transaction".x = 1', TransactionControl.None],
	["RESET ALL", TransactionControl.None],
	["PREPARE begin AS SELECT 1", TransactionControl.None],
])("%s controls the transaction as %d", (sql, transaction) => {
	expect(factsOf(sql).transaction).toBe(transaction);
});

test("statements are counted, empty ones are not", () => {
	const counts: [string, number, boolean][] = [
		["", 0, true],
		[" ;; -- x", 0, true],
		["SELECT 1", 1, false],
		["SELECT ';'; ; SELECT $$;$$;", 2, false],
	];
	for (const [sql, statements, empty] of counts) expect(factsOf(sql)).toMatchObject({ statements, empty });
});

test("EXPLAIN is known when there is one and its output is text", () => {
	const texts = ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE DELETE FROM t", "EXPLAIN (FORMAT xml, FORMAT Text) SELECT 1;"];
	for (const sql of texts) expect(factsOf(sql).explains).toBe(true);
	const others = [
		"SELECT 1",
		"EXPLAIN (FORMAT json) SELECT 1",
		"EXPLAIN (FORMAT) SELECT 1",
		"EXPLAIN SELECT 1; EXPLAIN SELECT 2",
		"SELECT 1; EXPLAIN SELECT 1",
		"PREPARE explain AS SELECT 1",
		"EXPLAIN",
	];
	for (const sql of others) expect(factsOf(sql).explains).toBe(false);
});

test("the end of a transaction is known to begin another", () => {
	for (const sql of ["COMMIT AND CHAIN", "END AND CHAIN", "ROLLBACK WORK AND CHAIN"])
		expect(factsOf(sql).chains).toBe(true);
	for (const sql of ["COMMIT", "COMMIT AND NO CHAIN", "ROLLBACK", "BEGIN", "SELECT 1", "SELECT 1; COMMIT AND CHAIN"])
		expect(factsOf(sql).chains).toBe(false);
});

test("of a text without a tree nothing is known but why, what it asks for, and that it may write", () => {
	const nothing = {
		aim: null,
		reads: false,
		writes: true,
		transaction: TransactionControl.None,
		statements: 0,
		empty: false,
		controls: false,
		explains: false,
		chains: false,
		rows: OnRows.Otherwise,
		placement: {
			spread: Spread.All,
			firstAnswers: null,
			unmerged: "a statement that could not be parsed",
			merges: false,
			calls: [],
		},
		hints: null,
	};
	expect(factsOf("SELEC")).toEqual({ parsed: Parsed.SyntaxError, ...nothing, text: "SELEC" });
	expect(factsOf("x".repeat(300_000))).toMatchObject({ parsed: Parsed.TooLarge, ...nothing });
	const deep = `SELECT ${"(SELECT ".repeat(3300)}1${")".repeat(3300)}`;
	expect(factsOf(deep)).toMatchObject({ parsed: Parsed.TooDeep, ...nothing });
	const hints = { ...NO_HINTS, shard: 1 };
	for (const sql of ["SELEC", "'never ends", "x".repeat(300_000), deep])
		expect(factsOf(`/* pgdog_shard: 1 */ ${sql}`)).toMatchObject({ ...nothing, hints });
});

test("comments ask", () => {
	expect(factsOf("SELECT 1; /* pgdog_role: primary */").hints).toEqual({ ...NO_HINTS, role: "primary" });
	expect(factsOf("SELECT /* pgdog_role: primary */ 1").hints).toBeNull();
});

test("a write below a thousand reads is found", () => {
	const deep = (inner: string) => `SELECT ${"(SELECT ".repeat(300)}${inner}${")".repeat(300)}`;
	expect(factsOf(deep("1")).reads).toBe(true);
	expect(factsOf(deep("nextval('s')")).reads).toBe(false);
	expect(factsOf(`SELECT 1${" + 1".repeat(500)} + setval('s', 1)${" + 1".repeat(500)}`).reads).toBe(false);
	expect(factsOf(`${"SELECT 1; ".repeat(1000)}DELETE FROM t`).reads).toBe(false);
});

test("functions that the user lists write too", () => {
	const sql = "SELECT app.touch(1)";
	const tree = parser.parse(sql);
	expect(statementFacts(tree, sql).reads).toBe(true);
	expect(statementFacts(tree, sql, writeFunctionsWith(["touch"]))).toMatchObject({ reads: false, writes: true });
});

test("a function that is listed with its schema is that one, or one that is called without", () => {
	const functions = writeFunctionsWith(["app.touch", "log", "x.y.z"]);
	const reads = (sql: string) => statementFacts(parser.parse(sql), sql, functions).reads;
	for (const call of [
		"app.touch()",
		"touch()",
		'"app"."touch"()',
		"db.app.touch()",
		"log()",
		"any.log()",
		"setval('s', 1)",
	])
		expect([call, reads(`SELECT ${call}`)]).toEqual([call, false]);
	for (const call of ["other.touch()", "app.touching()", '"App".touch()', "app()", "touch.app()", "z.y()"])
		expect([call, reads(`SELECT ${call}`)]).toEqual([call, true]);
});

test("other functions write after a reload, and what was known before is forgotten", () => {
	const cache = new StatementCache(parser, { writeFunctions: ["touch"] });
	const { epoch } = cache;
	const reading = cache.facts("SELECT 1");
	expect(cache.facts("SELECT app.touch(1)").reads).toBe(false);
	expect(cache.facts("SELECT nextval('s')").reads).toBe(false);
	expect(reading.reads).toBe(true);
	cache.setWriteFunctions(["touch"]);
	expect(cache.epoch).toBe(epoch);
	expect(cache.facts("SELECT 1")).toBe(reading);
	cache.setWriteFunctions(["log"]);
	expect(cache.epoch).toBeGreaterThan(epoch);
	expect(cache.facts("SELECT app.touch(1)").reads).toBe(true);
	expect(cache.facts("SELECT log(1)").reads).toBe(false);
	cache.setWriteFunctions([]);
	expect(cache.facts("SELECT log(1), touch(1)").reads).toBe(true);
	expect(cache.facts("SELECT nextval('s')").reads).toBe(false);
});

test("blanks and comments between the words change no fact", () => {
	const words = /"[^"]*"|'[^']*'|\$\$[^$]*\$\$|[A-Za-z_0-9]+|\s+|[^\s]/g;
	const blank = fc.constantFrom(
		" ",
		"\n",
		"\t\r\n",
		"/**/",
		"/* ; DELETE */",
		"-- INSERT '\n",
		"/* a /* nested */ $$ */",
		"\f",
	);
	// Where a blank stands, more may.
	const plain = [...READS, ...WRITES, ...NEITHER].filter((sql) => !/--|\/\*|U&/.test(sql));
	fc.assert(
		fc.property(fc.constantFrom(...plain), fc.array(blank, { minLength: 1, maxLength: 6 }), (sql, blanks) => {
			let i = 0;
			const more = () => ` ${blanks[i++ % blanks.length]} `;
			const changed = (sql.match(words) ?? []).map((word) => (/^\s+$/.test(word) ? more() : word)).join("");
			expect(decisive(more() + changed + more())).toEqual(decisive(sql));
		}),
		{ numRuns: 1000 },
	);
});

test("the case of key words changes no fact", () => {
	for (const sql of [...READS, ...WRITES, ...NEITHER].filter((text) => !/["'$]/.test(text))) {
		expect(decisive(sql.toLowerCase())).toEqual(decisive(sql));
		expect(decisive(sql.toUpperCase())).toEqual(decisive(sql));
	}
});

test("a read and a write joined in any order are a write", () => {
	const harmless = fc.constantFrom(...READS, ...NEITHER);
	fc.assert(
		fc.property(harmless, fc.constantFrom(...WRITES), harmless, (a, write, b) => {
			const semicolon = (sql: string) => `${sql}\n;`;
			expect(factsOf(semicolon(a) + semicolon(write) + b)).toMatchObject({ reads: false, writes: true });
			const reads = factsOf(a).reads && factsOf(b).reads;
			expect(factsOf(semicolon(a) + b)).toMatchObject({ reads, writes: false });
		}),
		{ numRuns: 300 },
	);
});

/** Volatile, and yet a replica may run them: they look, or make something up. */
const HARMLESS =
	/^(random|random_normal|array_(sample|shuffle)|gen_random_uuid|clock_timestamp|timeofday|pg_sleep(_for|_until)?|current_query|lo_get|currtid2|.*handler|plpgsql_validator|amvalidate|bernoulli|system|dsnowball_.*|pg_stat_get_.*|pg_stat_have_stats|pg_stat_file|pg_ls_.*|pg_read_(binary_)?file|pg_(database|tablespace|table|indexes|relation|total_relation)_size|pg_control_.*|pg_(last|get)_.*|pg_is_.*|pg_(blocking|safe_snapshot_blocking)_pids|pg_isolation_test_session_is_blocked|pg_lock_status|pg_prepared_xact|pg_xact_.*|txid_status|pg_partition_.*|pg_show_.*|pg_(hba_file_rules|ident_file_mappings)|pg_(available_wal_summaries|wal_summary_contents)|pg_(database_)?collation_actual_version|pg_current_logfile|pg_jit_available|pg_notification_queue_usage|pg_sequence_last_value)$/;

test("every volatile function of PostgreSQL is in the list of those that write or known to be harmless", async () => {
	await using cluster = await startPostgres();
	const rows = (await cluster.primary.sql(
		"SELECT proname::text AS name, bool_or(provolatile = 'v' AND prorettype <> 'trigger'::regtype) AS volatile FROM pg_proc " +
			"WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY 1",
	)) as unknown as { name: string; volatile: boolean }[];
	const volatile = rows.filter((row) => row.volatile).map((row) => row.name);
	expect(volatile.length).toBeGreaterThan(200);
	expect(volatile.filter((name) => !WRITE_FUNCTIONS.has(name) && !HARMLESS.test(name))).toEqual([]);
	expect(volatile.filter((name) => WRITE_FUNCTIONS.has(name) && HARMLESS.test(name))).toEqual([]);
	// A name that is misspelt would guard nothing.
	const names = new Set(rows.map((row) => row.name));
	expect([...WRITE_FUNCTIONS].filter((name) => !names.has(name))).toEqual([]);
}, 60_000);
