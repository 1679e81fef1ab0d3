// What may go to a replica, by table; that blanks and comments change nothing, by property; and PostgreSQL's own catalog
// against the list of functions that write.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StatementCache } from "../../src/parser/cache.ts";
import { type StatementFacts, statementFacts, TransactionControl } from "../../src/parser/facts.ts";
import { Parsed, SqlParser } from "../../src/parser/parse.ts";
import { WRITE_FUNCTIONS } from "../../src/parser/write-functions.ts";
import { startPostgres } from "../support/postgres.ts";

const parser = new SqlParser();
const factsOf = (sql: string): StatementFacts => statementFacts(parser.parse(sql));

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
	"EXECUTE p",
	"DEALLOCATE p",
	"IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y",
	"CREATE PUBLICATION p FOR TABLE t",
	"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p",
	"REASSIGN OWNED BY a TO b",
	// Transaction control.
	"BEGIN",
	"START TRANSACTION READ ONLY",
	"COMMIT",
	"ROLLBACK",
	"SAVEPOINT a",
	"PREPARE TRANSACTION 'x'",
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
	"EXPLAIN INSERT INTO t VALUES (1)",
	"EXPLAIN ANALYZE DELETE FROM t",
	"EXPLAIN (ANALYZE) WITH a AS (DELETE FROM t) SELECT 1",
	"EXPLAIN ANALYZE SELECT nextval('s')",
	"EXPLAIN SELECT * FROM t FOR UPDATE",
	"EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
	"EXPLAIN ANALYZE EXECUTE p",
	"EXPLAIN DECLARE c CURSOR FOR SELECT 1",
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
	"SELECT 1; BEGIN",
	"SELECT 1; SET a.b = 1; SELECT 2",
	"SELECT 1; SHOW a.b",
];

describe("reads", () => {
	test.each(READS)("%s", (sql) => {
		expect(factsOf(sql)).toMatchObject({ parsed: Parsed.Tree, reads: true, transaction: TransactionControl.None });
	});
});

describe("writes", () => {
	test.each(WRITES)("%s", (sql) => {
		expect(factsOf(sql)).toMatchObject({ parsed: Parsed.Tree, reads: false });
	});
});

test.each([
	["BEGIN", TransactionControl.Begin],
	["begin work", TransactionControl.Begin],
	["START TRANSACTION", TransactionControl.Begin],
	["BEGIN ISOLATION LEVEL REPEATABLE READ, READ WRITE, NOT DEFERRABLE", TransactionControl.Begin],
	["BEGIN READ ONLY", TransactionControl.BeginReadOnly],
	["BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", TransactionControl.BeginReadOnly],
	["START TRANSACTION READ ONLY, DEFERRABLE", TransactionControl.BeginReadOnly],
	["BEGIN READ ONLY READ WRITE", TransactionControl.Begin],
	["BEGIN READ WRITE READ ONLY", TransactionControl.BeginReadOnly],
	["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", TransactionControl.Begin],
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
	["SET TRANSACTION READ ONLY", TransactionControl.None],
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

test("of a text without a tree nothing is known but why", () => {
	const nothing = { reads: false, transaction: TransactionControl.None, statements: 0, empty: false };
	expect(factsOf("SELEC")).toEqual({ parsed: Parsed.SyntaxError, ...nothing });
	expect(factsOf("x".repeat(300_000))).toEqual({ parsed: Parsed.TooLarge, ...nothing });
	expect(factsOf(`SELECT ${"(SELECT ".repeat(3300)}1${")".repeat(3300)}`)).toEqual({
		parsed: Parsed.TooDeep,
		...nothing,
	});
});

test("a write below a thousand reads is found", () => {
	const deep = (inner: string) => `SELECT ${"(SELECT ".repeat(300)}${inner}${")".repeat(300)}`;
	expect(factsOf(deep("1")).reads).toBe(true);
	expect(factsOf(deep("nextval('s')")).reads).toBe(false);
	expect(factsOf(`SELECT 1${" + 1".repeat(500)} + setval('s', 1)${" + 1".repeat(500)}`).reads).toBe(false);
	expect(factsOf(`${"SELECT 1; ".repeat(1000)}DELETE FROM t`).reads).toBe(false);
});

test("functions that the user lists write too", () => {
	const tree = parser.parse("SELECT app.touch(1)");
	expect(statementFacts(tree).reads).toBe(true);
	expect(statementFacts(tree, new Set(["touch"])).reads).toBe(false);
	const cache = new StatementCache(parser, { writeFunctions: ["touch"] });
	expect(cache.facts("SELECT app.touch(1)").reads).toBe(false);
	expect(cache.facts("SELECT nextval('s')").reads).toBe(false);
	expect(cache.facts("SELECT 1").reads).toBe(true);
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
	const plain = [...READS, ...WRITES].filter((sql) => !/--|\/\*|U&/.test(sql));
	fc.assert(
		fc.property(fc.constantFrom(...plain), fc.array(blank, { minLength: 1, maxLength: 6 }), (sql, blanks) => {
			let i = 0;
			const more = () => ` ${blanks[i++ % blanks.length]} `;
			const changed = (sql.match(words) ?? []).map((word) => (/^\s+$/.test(word) ? more() : word)).join("");
			expect(factsOf(more() + changed + more())).toEqual(factsOf(sql));
		}),
		{ numRuns: 1000 },
	);
});

test("the case of key words changes no fact", () => {
	for (const sql of [...READS, ...WRITES].filter((text) => !/["'$]/.test(text))) {
		expect(factsOf(sql.toLowerCase())).toEqual(factsOf(sql));
		expect(factsOf(sql.toUpperCase())).toEqual(factsOf(sql));
	}
});

test("a read and a write joined in any order are a write", () => {
	fc.assert(
		fc.property(fc.constantFrom(...READS), fc.constantFrom(...WRITES), fc.constantFrom(...READS), (a, write, b) => {
			const semicolon = (sql: string) => `${sql}\n;`;
			expect(factsOf(semicolon(a) + semicolon(write) + b).reads).toBe(false);
			expect(factsOf(semicolon(a) + b).reads).toBe(true);
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
