// What statements do to their session: a table of statements and facts, and the promise that the quick look
// (`touchesSession`) never misses what the closer look (`sessionFacts`) finds.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Lexer, Token } from "../../src/parser/lexer.ts";
import { Dirty, Reads, restoringStatements, type SessionFacts, sessionFacts } from "../../src/parser/session.ts";
import { touchesSession } from "../../src/parser/touches.ts";
import { spent } from "../support/processor.ts";

const DIRTY: [number, string][] = [
	[Dirty.Temporary, "temporary"],
	[Dirty.AdvisoryLock, "advisory"],
	[Dirty.Listen, "listen"],
	[Dirty.HoldCursor, "hold"],
	[Dirty.Prepared, "prepared"],
	[Dirty.Settings, "settings"],
	[Dirty.Beyond, "beyond"],
];

function dirt(facts: SessionFacts): string {
	if (facts.dirty === Dirty.Everything) return "everything";
	return DIRTY.filter(([bit]) => (facts.dirty & bit) !== 0)
		.map(([, name]) => name)
		.join("+");
}

test("what takes advisory locks of the session, or gives them back", () => {
	const locks = (sql: string) => touches(sql) && sessionFacts(sql).locks;
	for (const sql of [
		"SELECT pg_advisory_lock(1)",
		"SELECT pg_try_advisory_lock_shared(1)",
		'SELECT x FROM a WHERE "pg_catalog"."pg_advisory_unlock"(x)',
		"SELECT PG_ADVISORY_UNLOCK_SHARED(1, 2)",
		"/* migrations */ SELECT pg_advisory_unlock_all()",
		"DO $$ BEGIN PERFORM pg_advisory_unlock(1); END $$",
		"DO $$ BEGIN EXECUTE 'x' || 'y'; END $$",
		"DISCARD ALL",
	])
		expect([sql, locks(sql)]).toEqual([sql, true]);
	for (const sql of [
		"SELECT pg_advisory_xact_lock(1)",
		"SELECT pg_try_advisory_xact_lock_shared(1)",
		"SELECT 'pg_advisory_lock(1)'",
		"DISCARD TEMP",
		"ROLLBACK",
	])
		expect([sql, locks(sql)]).toEqual([sql, false]);
});

/** All facts in a line: `sets a b; resets c; dirty x`. "" when the statement does nothing to its session. */
function line(facts: SessionFacts): string {
	const parts: string[] = [];
	if (facts.sets.length > 0) parts.push(`sets ${facts.sets.join(" ")}`);
	if (facts.resets.length > 0) parts.push(`resets ${facts.resets.join(" ")}`);
	if (facts.resetsAll) parts.push("resets all");
	if (facts.dirty !== 0) parts.push(dirt(facts));
	if (facts.deallocates !== null) parts.push(`deallocates ${facts.deallocates}`);
	if (facts.deallocatesAll) parts.push("deallocates all");
	return parts.join("; ");
}

function touches(sql: string): boolean {
	const bytes = Buffer.from(`##${sql}\0set`);
	return touchesSession(bytes, 2, bytes.length - 4);
}

const CHARACTERISTICS =
	"sets default_transaction_isolation default_transaction_read_only default_transaction_deferrable";

const TABLE: [string, string][] = [
	// SET
	["SET work_mem = '1MB'", "sets work_mem"],
	["set Work_Mem to default", "resets work_mem"],
	["SET SESSION work_mem = 1", "sets work_mem"],
	["SET LOCAL work_mem = 1", ""],
	["SET/*c*/x--d\n=1", "sets x"],
	["SET app.tenant = 'a'", "sets app.tenant"],
	["SET App . \"Tenant\" = 'a'", "sets app.tenant"],
	["SET \"app.tenant\" = 'a'", "sets app.tenant"],
	["SET a.b.c = 'a'", "sets a.b.c"],
	["SET LOCAL app.tenant = 'a'", ""],
	["SET search_path = a, b", "sets search_path"],
	["SET SCHEMA 'a'", "sets search_path"],
	["SET NAMES 'UTF8'", "sets client_encoding"],
	["SET TIME ZONE 'UTC'", "sets timezone"],
	["SET SESSION TIME ZONE LOCAL", "resets timezone"],
	["SET LOCAL TIME ZONE 'UTC'", ""],
	["SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", "sets timezone"],
	["SET XML OPTION DOCUMENT", "sets xmloption"],
	["SET ROLE x", "sets role"],
	["SET SESSION ROLE none", "sets role"],
	["SET LOCAL ROLE x", ""],
	["SET role = 'x'", "sets role"],
	['SET "role" TO x', "sets role"],
	["SET SESSION AUTHORIZATION x", "sets session_authorization role"],
	["SET SESSION SESSION AUTHORIZATION DEFAULT", "resets session_authorization role"],
	["SET LOCAL SESSION AUTHORIZATION x", ""],
	["SET session_authorization = x", "sets session_authorization role"],
	["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", CHARACTERISTICS],
	["SET SESSION SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", CHARACTERISTICS],
	["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", ""],
	["SET CONSTRAINTS ALL DEFERRED", ""],
	["SET transaction_isolation = 'serializable'", ""],
	["SET seed = 0.5", ""],
	// Words of SET that are the first part of a custom setting's name, as applications with row security like them.
	["SET session.user_id = 1", "sets session.user_id"],
	["SET local.user_id = 1", "sets local.user_id"],
	["SET SESSION session.user_id = 1", "sets session.user_id"],
	["SET role.id = 1", "sets role.id"],
	["SET names.x = 1", "sets names.x"],
	["SET time.zone = 1", "sets time.zone"],
	["SET schema . x = 1", "sets schema.x"],
	["SET xml.x = 1", "sets xml.x"],
	["SET transaction.id = 1", "sets transaction.id"],
	["SET constraints.x = 1", "sets constraints.x"],
	["SET LOCAL session.user_id = 1", ""],
	["RESET session.user_id", "resets session.user_id"],
	["RESET time.zone", "resets time.zone"],
	["RESET transaction.id", "resets transaction.id"],
	["SET app\u212a.x = 1", "sets app\u212a.x"],
	["SET 5 = 1", "settings"],
	// RESET, DISCARD
	["RESET work_mem", "resets work_mem"],
	['RESET app."X"', "resets app.x"],
	["RESET TIME ZONE", "resets timezone"],
	["RESET ROLE", "resets role"],
	["RESET SESSION AUTHORIZATION", "resets session_authorization role"],
	["RESET session_authorization", "resets session_authorization role"],
	["RESET TRANSACTION ISOLATION LEVEL", ""],
	["RESET ALL", "resets all"],
	["DISCARD ALL", "resets all; deallocates all"],
	["DISCARD PLANS", ""],
	["DISCARD TEMP", ""],
	// set_config
	["SELECT set_config('app.x', 'y', false)", "sets app.x"],
	["SELECT pg_catalog.set_config('App.X', $1, $2)", "sets app.x"],
	["SELECT \"set_config\"('app.x', 'y', 'f')", "sets app.x"],
	["SELECT set_config('app.x', 'y', true)", ""],
	["SELECT SET_CONFIG ( 'app.x' , f(a, b), TRUE )", ""],
	["SELECT set_config('app.x', 'y', not true)", "sets app.x"],
	["SELECT set_config('app.x', 'y', 1 = 1 and true)", "sets app.x"],
	["SELECT set_config($1, 'y', true)", "settings"],
	["SELECT set_config($1, $2, $3)", "settings"],
	["SELECT set_config(name, 'y', false) FROM t", "settings"],
	["SELECT set_config('app' || '.x', 'y', false)", "settings"],
	["SELECT set_config('app.'\n'x', 'y', false)", "settings"],
	["SELECT set_config('app'\n',', 'y', false)", "settings"],
	["SELECT set_config(E'app\\x', 'y', false)", "settings"],
	["SELECT set_config('a.x', set_config('b.x', 'c', false), true)", "sets b.x"],
	["SELECT set_config('a.x', set_config('b.x', 'c', true), false)", "sets a.x"],
	["SELECT set_config('session_authorization', 'x', false)", "sets session_authorization role"],
	["SELECT set_config('seed', '0.5', false)", ""],
	["SELECT 'set_config'", ""],
	["SELECT my_set_config('a', 'b', false)", ""],
	["WITH x AS (SELECT set_config('a.x', 'b', false)) SELECT 1", "sets a.x"],
	["UPDATE pg_settings SET setting = '1MB' WHERE name = 'work_mem'", "settings"],
	['update PG_CATALOG . "pg_settings" set setting = 1', "settings"],
	["SELECT * FROM pg_settings", ""],
	// What is left behind
	["LISTEN x", "listen"],
	["UNLISTEN *", ""],
	["NOTIFY x", ""],
	["PREPARE p AS SELECT 1", "prepared"],
	["PREPARE TRANSACTION 'x'", ""],
	["DEALLOCATE p", "deallocates p"],
	['DEALLOCATE PREPARE "P"', "deallocates P"],
	["DEALLOCATE prepare", "deallocates prepare"],
	["DEALLOCATE ALL", "deallocates all"],
	["SELECT 1; deallocate all", "deallocates all"],
	['DEALLOCATE "all"', "deallocates all"],
	["DEALLOCATE PREPARE ALL", "deallocates all"],
	["DEALLOCATE p; SELECT 1", ""],
	["DEALLOCATE p;", "deallocates p"],
	["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "hold"],
	["DECLARE c NO SCROLL CURSOR WITH /* */ hold FOR SELECT 1", "hold"],
	["DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", ""],
	["CREATE TEMP TABLE t (a int)", "temporary"],
	["create temporary table t (a int)", "temporary"],
	["CREATE LOCAL TEMP TABLE t (a int)", "temporary"],
	["CREATE GLOBAL TEMPORARY TABLE t (a int)", "temporary"],
	["CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "temporary"],
	["CREATE TEMP SEQUENCE s", "temporary"],
	["CREATE TABLE pg_temp.t (a int)", "temporary"],
	['CREATE TABLE "pg_temp".t (a int)', "temporary"],
	["CREATE TABLE pg_temp_3.t (a int)", "temporary"],
	["SELECT 1 INTO TEMP t", "temporary"],
	["SELECT 1 INTO TEMPORARY TABLE t", "temporary"],
	["SELECT 1 INTO LOCAL TEMP t", "temporary"],
	["EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", "temporary"],
	["SELECT temp FROM readings", ""],
	["CREATE TABLE temperature (a int)", ""],
	// With pg_temp first in search_path, an ordinary CREATE TABLE makes a temporary one.
	["SET search_path = pg_temp, public", "sets search_path; temporary"],
	["SET search_path = 'pg_temp'", "sets search_path; temporary"],
	["SELECT set_config('search_path', 'a,PG_TEMP', false)", "sets search_path; temporary"],
	["SELECT pg_advisory_lock(1)", "advisory"],
	["SELECT pg_catalog.PG_TRY_ADVISORY_LOCK(1, 2)", "advisory"],
	["SELECT pg_advisory_lock_shared(1)", "advisory"],
	["SELECT pg_try_advisory_lock_shared(1)", "advisory"],
	["SELECT pg_advisory_xact_lock(1)", ""],
	["SELECT pg_advisory_unlock(1)", ""],
	["LOAD 'auto_explain'", "beyond"],
	// DO
	["DO $$ BEGIN PERFORM 1; END $$", ""],
	["DO $$ BEGIN SET work_mem = 1; END $$", "settings"],
	["DO LANGUAGE plpgsql 'BEGIN PERFORM set_config(''a.b'', ''c'', false); END'", "settings"],
	["DO $$ BEGIN CREATE TEMP TABLE x (); END $$", "temporary"],
	["DO $$ BEGIN CREATE TABLE pg_temp.x (); END $$", "temporary"],
	["DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$", "advisory"],
	["DO $$ BEGIN LISTEN x; END $$", "listen"],
	["DO $$ BEGIN LOAD 'x'; END $$", "beyond"],
	["DO $$ BEGIN EXECUTE 'CREATE TE' || 'MP TABLE x ()'; END $$", "everything"],
	["DO E'BEGIN \\x53ET a = 1; END'", "everything"],
	// Several statements
	["BEGIN; SET a.x = 1; SET LOCAL b.x = 1; RESET c.x; COMMIT", "sets a.x; resets c.x"],
	["SELECT 1; LISTEN x", "listen"],
	[";;; SET a = 1", "sets a"],
	["SELECT ';'; SET a = 1", "sets a"],
	["SELECT '; SET a = 1'", ""],
	["SELECT $$; SET a = 1$$", ""],
	["-- SET a = 1\nSELECT 1", ""],
	["/* /* */ SET a = 1 */ SELECT 1", ""],
	["-- x\rSET a = 1", "sets a"],
	["/* x */ SET a = 1", "sets a"],
	// Not SET statements
	["UPDATE t SET a = 1", ""],
	["ALTER ROLE x SET work_mem = 1", ""],
	["ALTER DATABASE x RESET ALL", ""],
	["CREATE FUNCTION f() RETURNS int SET work_mem = 1 AS 'SELECT 1' LANGUAGE sql", ""],
	["SELECT 1", ""],
	["", ""],
	[";", ""],
	["EXECUTE p", ""],
	["CLOSE ALL", ""],
	// Doubt: read in two ways, or never ended
	["SET a = 'x\\'; SET b = 'y'", "everything"],
	["SET a = 'C:\\dir'", "sets a; everything"],
	['SET U&"w\\006frk_mem" = 1', "everything"],
	["SELECT U&\"set\\005fconfig\"('a.x', 'b', false)", "everything"],
	["SELECT set_config('a.x", "everything"],
];

test.each(TABLE)("%s → %s", (sql, expected) => {
	const found = line(sessionFacts(sql));
	if (expected === "everything") expect(found).toContain("everything");
	else expect(found).toBe(expected);
});

test.each(TABLE.filter(([, facts]) => facts !== ""))("the quick look sees %s", (sql) => {
	expect(touches(sql)).toBe(true);
});

// The hot path: these must not cost a closer look.
test.each([
	"SELECT * FROM users WHERE id = $1",
	"  insert into t values (1, 'x')",
	"UPDATE accounts SET balance = balance + 1 WHERE id = 5;",
	"BEGIN",
	"BEGIN ISOLATION LEVEL SERIALIZABLE",
	"SELECT offset, reset, dont, settings FROM loads",
	"",
	" ; ",
])("the quick look lets %j go", (sql) => {
	expect(touches(sql)).toBe(false);
});

test.each([
	["BEGIN", true],
	["begin;", true],
	["START TRANSACTION", true],
	["/* x */ COMMIT", true],
	["END", true],
	["ROLLBACK TO a", true],
	["ABORT", true],
	["SAVEPOINT a", true],
	["RELEASE a", true],
	["PREPARE TRANSACTION 'x'", true],
	["SELECT 1; BEGIN", true],
	["SELECT 1", false],
	["SELECT 'begin'", false],
	["PREPARE p AS SELECT 1", false],
	["CREATE TABLE begin (a int)", false],
])("%s controls a transaction: %p", (sql, expected) => {
	expect(sessionFacts(sql).transaction).toBe(expected);
});

test.each([
	["COMMIT", true],
	["end;", true],
	["  Commit AND CHAIN", true],
	["/* x */ END WORK", true],
	["PREPARE TRANSACTION 'x'", true],
	["COMMIT PREPARED 'x'", true],
	["UPDATE t SET a = 1; COMMIT", true],
	["ROLLBACK", false],
	["ROLLBACK PREPARED 'x'", false],
	["PREPARE p AS SELECT 1", false],
	["SELECT 'commit'", false],
	["COMMENT ON TABLE t IS 'commit'", false],
	["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END", true],
])("%s commits: %p", (sql, expected) => {
	expect(touches(sql) && sessionFacts(sql).commits).toBe(expected);
});

// Shift-JIS: the second byte of a character may be a backslash, which a lexer that does not know takes for an escape
// and so reads the next quote as part of the string. The SET behind it would go unseen.
test("text that is not UTF-8 is not trusted to mean what it seems to", () => {
	const sql = Buffer.concat([
		Buffer.from("SELECT E'"),
		Buffer.from([0x95, 0x5c]),
		Buffer.from("'; SET a.x TO 'b'; SELECT E''"),
	]);
	expect(touchesSession(sql, 0, sql.length)).toBe(true);
	expect(sessionFacts(sql.utf8Slice(0, sql.length)).dirty).toBe(Dirty.Everything);
});

/** `text` in another case, decided by `bits`. */
function cased(text: string, bits: number): string {
	return [...text].map((c, i) => ((bits >> (i % 31)) & 1 ? c.toUpperCase() : c.toLowerCase())).join("");
}

describe("the quick look and the closer look", () => {
	const blank = fc.constantFrom(" ", "\n", "\t", "/**/", "/* x */", "-- y\n", "/* /* ; */ */", "  ");
	const word = (...words: string[]) => fc.tuple(fc.constantFrom(...words), fc.nat()).map(([w, bits]) => cased(w, bits));
	const name = fc.constantFrom("a", "app.x", '"App"."X"', "session.id", "set_config", '"set_config"', "pg_temp.t", "t");
	const value = fc.constantFrom("1", "'x'", "$1", "'it''s'", "$$;$$", "true", "false", "E'x'", "'pg_temp'", "xpg_temp");
	const first = word(
		"set",
		"reset",
		"discard",
		"listen",
		"unlisten",
		"prepare",
		"deallocate",
		"load",
		"do",
		"select",
		"create",
		"declare",
		"begin",
		"update",
		"explain",
		"with",
		"insert",
		"",
	);
	const middle = fc.oneof(
		word(
			"set",
			"local",
			"session",
			"time",
			"zone",
			"role",
			"all",
			"temp",
			"temporary",
			"table",
			"hold",
			"with",
			"global",
			"replace",
			"into",
			"or",
			"authorization",
			"characteristics",
			"transaction",
			"names",
			"schema",
			"set_config(",
			"pg_advisory_lock(",
			"pg_advisory_unlock(",
			"pg_try_advisory_lock_shared(",
			"pg_settings",
			"update",
			"cursor",
			"as",
			"pg_temp",
			"all",
		),
		name,
		value,
		fc.constantFrom("(", ")", ",", "=", ".", ";", ";;", "::", "'a'", '"b"'),
	);
	const statement = fc.tuple(
		fc.array(blank, { maxLength: 2 }),
		first,
		fc.array(fc.tuple(fc.option(blank), middle), { maxLength: 12 }),
	);
	const text = fc
		.array(statement, { minLength: 1, maxLength: 3 })
		.map((all) =>
			all
				.map(
					([lead, head, rest]) => lead.join("") + head + rest.map(([space, piece]) => (space ?? " ") + piece).join(""),
				)
				.join(";"),
		);

	test("never disagree: what has facts is seen", () => {
		let withFacts = 0;
		fc.assert(
			fc.property(text, (sql) => {
				const facts = sessionFacts(sql);
				if (line(facts) === "" && !facts.locks) return;
				const lexer = new Lexer(sql);
				while (lexer.next() !== Token.End);
				// An open comment or string is an error to PostgreSQL: nothing runs.
				if (lexer.doubt) return;
				withFacts++;
				expect(touches(sql)).toBe(true);
			}),
			{ numRuns: 5000 },
		);
		expect(withFacts).toBeGreaterThan(500);
	});

	test("neither throws nor hangs on any bytes", () => {
		fc.assert(
			fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
				const chunk = Buffer.from(bytes);
				touchesSession(chunk, 0, chunk.length);
				sessionFacts(chunk.utf8Slice(0, chunk.length));
				sessionFacts(`do '${chunk.latin1Slice(0, chunk.length)}'`);
			}),
			{ numRuns: 1000 },
		);
	});
});

test("strings within strings of a DO body are looked into, to a depth", () => {
	const nested = (levels: number) => {
		let body = "LISTEN x";
		for (let i = 0; i < levels; i++) body = `$t${i}$${body}$t${i}$`;
		return sessionFacts(`DO $do$${body}$do$`).dirty;
	};
	expect(nested(3)).toBe(Dirty.Listen);
	// Each level reads the rest again: without an end to that, one text could keep a worker busy for minutes.
	expect(nested(5_000)).toBe(Dirty.Everything);
});

test("a long text is read in linear time", () => {
	const sql = `SET a = 1; ${"SELECT '$a$' /* x */, \"y\"; ".repeat(40_000)}`;
	expect(spent(() => expect(sessionFacts(sql).sets).toEqual(["a"]))).toBeLessThan(5_000);
});

const RESTORES: [sql: string, restores: string][] = [
	["SET work_mem = 1", ""],
	["SELECT 1", ""],
	["RESET work_mem", "work_mem sure"],
	["SET work_mem TO DEFAULT", "work_mem sure"],
	["SET LOCAL work_mem TO DEFAULT", "local work_mem sure"],
	["SET LOCAL TIME ZONE LOCAL", "local timezone sure"],
	["SET LOCAL work_mem = 1", ""],
	["RESET ALL", "all sure"],
	["DISCARD ALL", "all session_authorization role sure"],
	["RESET ROLE", "role sure"],
	["RESET work_mem; SELECT 1", "work_mem"],
	["SELECT set_config('work_mem', NULL, false)", "work_mem hidden"],
	["SELECT set_config('work_mem', null, true)", "local work_mem hidden"],
	["SELECT set_config('work_mem', '1MB', false)", ""],
	["SELECT set_config('work_mem', $1, false)", "work_mem hidden"],
	["SELECT set_config('pgdog.role', NULL, false)", "pgdog.role hidden"],
	["SELECT set_config($1, $2, false)", "any hidden"],
	["DO $$ BEGIN RESET app.x; END $$", "any app.x hidden"],
];

test.each(RESTORES)("%s gives back: %s", (sql, expected) => {
	const { restores } = sessionFacts(sql);
	const words: string[] = [];
	if (restores?.any) words.push("any");
	if (restores?.all) words.push("all");
	words.push(...(restores?.names ?? []));
	for (const name of restores?.local ?? []) words.push("local", name);
	if (restores?.sure) words.push("sure");
	if (restores?.hidden) words.push("hidden");
	expect(words.join(" ")).toBe(expected);
});

test("of several statements each that gives a setting its default ends where the next may see that", () => {
	const ends = (sql: string) => restoringStatements(sql)?.map(({ end }) => sql.slice(0, end));
	expect(ends("RESET a /* ; */ ; SELECT (1); SET b TO DEFAULT -- ;")).toEqual([
		"RESET a",
		"RESET a /* ; */ ; SELECT (1); SET b TO DEFAULT",
	]);
	// It may, if the call is made.
	expect(restoringStatements("SELECT set_config('a', NULL, false); SELECT set_config('b', $1, false) ;")).toMatchObject(
		[
			{ restores: { names: ["a"], sure: false }, isLast: false },
			{ restores: { names: ["b"], sure: false }, isLast: true },
		],
	);
	expect(ends("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); RESET a")).toHaveLength(1);
	expect(ends("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC RESET a; END; SELECT 1")).toBeUndefined();
	expect(ends("RESET a; SELECT 'a\\'")).toBeUndefined();
});

describe("what it does to the meaning of what is parsed behind it", () => {
	const READS = ["", "names", "constants", "names+constants"];
	test.each([
		["SET search_path = a, b", "names"],
		["SET SCHEMA 'a'", "names"],
		["SET LOCAL search_path TO a", "names"],
		["SET LOCAL SCHEMA 'a'", "names"],
		["SET ROLE a", "names"],
		["SET LOCAL ROLE a", "names"],
		["RESET ROLE", "names"],
		["SET SESSION AUTHORIZATION a", "names"],
		["SET LOCAL SESSION AUTHORIZATION a", "names"],
		["SET TIME ZONE 'UTC'", "constants"],
		["SET LOCAL TIME ZONE 'UTC'", "constants"],
		["SET LOCAL TimeZone = 'UTC'", "constants"],
		["SET DateStyle = 'German'", "constants"],
		["RESET intervalstyle", "constants"],
		["SET NAMES 'LATIN1'", "constants"],
		["SET LOCAL NAMES 'LATIN1'", "constants"],
		["SET XML OPTION DOCUMENT", "constants"],
		["SET standard_conforming_strings = off", "constants"],
		["SELECT set_config('search_path', 'a', true)", "names"],
		["SELECT set_config('TimeZone', 'UTC', true)", "constants"],
		["SELECT set_config('TimeZone', 'UTC', false)", "constants"],
		["SELECT set_config('time' || 'zone', 'UTC', true)", "names+constants"],
		["RESET ALL", "names+constants"],
		["DISCARD ALL", "names+constants"],
		["DO $$ BEGIN SET TimeZone = 'UTC'; END $$", "names+constants"],
		["CREATE TEMP TABLE a (b int)", "names"],
		["SELECT 1; SET LOCAL search_path = a", "names"],
		["SET work_mem = '1MB'", ""],
		["SET LOCAL work_mem = '1MB'", ""],
		["SET bytea_output = escape", "constants"],
		["SET work_mem = 65", ""],
		["SET TRANSACTION READ ONLY", ""],
		["SELECT set_config('app.tenant', '5', true)", ""],
		["SELECT 1", ""],
	])("%s", (sql, expected) => {
		expect(touches(sql) || expected === "").toBe(true);
		expect(READS[sessionFacts(sql).reads]).toBe(expected);
	});
});

describe("what changes the catalogue", () => {
	test.each([
		"CREATE TABLE a (b int)",
		"  create unlogged table a (b int)",
		"/* comment */ CREATE VIEW a AS SELECT 1",
		"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"ALTER TABLE a ADD b int",
		"SELECT 1; ALTER TYPE a ADD VALUE 'b'",
		"DROP SCHEMA a CASCADE",
		"DROP TABLE a.b",
		"DROP TABLE a CASCADE",
		"IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c",
		"DO $$ BEGIN ALTER TABLE a ADD b int; END $$",
		"DO $$ BEGIN EXECUTE 'x' || 'y'; END $$",
		"CREATE TEMP TABLE a (b int); ALTER TABLE c ADD d int",
		"SELECT 1 AS a INTO b.c",
		"WITH a AS (INSERT INTO b VALUES (1) RETURNING *) SELECT * INTO c FROM a",
		"(SELECT 1 AS a INTO b)",
		"GRANT USAGE ON SCHEMA a TO b",
		"REVOKE ALL ON SCHEMA a FROM b",
	])("%s", (sql) => {
		expect(touches(sql)).toBe(true);
		const { alters, reads } = sessionFacts(sql);
		expect([alters, reads & Reads.Names]).toEqual([true, Reads.Names]);
	});

	test.each([
		"SELECT * FROM created",
		"TRUNCATE a",
		"INSERT INTO a VALUES ('create table')",
		"COMMENT ON TABLE a IS 'alter'",
		"GRANT SELECT ON a TO b",
		"SELECT 1 AS a INTO TEMP b",
		"WITH a AS (INSERT INTO b VALUES (1) RETURNING *) SELECT * FROM a",
		"CREATE TEMP TABLE a (b int)",
		"CREATE LOCAL TEMPORARY VIEW a AS SELECT 1",
		"DO $$ BEGIN PERFORM 1; END $$",
	])("%s does not", (sql) => {
		expect(sessionFacts(sql).alters).toBe(false);
	});

	test.each([
		["CREATE TEMP TABLE a (b int)", ["a"], []],
		['CREATE TEMPORARY TABLE IF NOT EXISTS "A" AS SELECT 1', ["A"], []],
		["CREATE TEMP VIEW v AS SELECT 1", ["v"], []],
		["DROP TABLE a", [], ["a"]],
		['DROP TABLE IF EXISTS a, "B"', [], ["a", "B"]],
	])("%s", (sql, temporaries, drops) => {
		const facts = sessionFacts(sql);
		expect([facts.temporaries, facts.drops]).toEqual([temporaries, drops]);
		expect(facts.reads & Reads.Names).toBe(Reads.Names);
	});
});
