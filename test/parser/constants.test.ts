// Texts whose constants settings decide about, and those whose constants are the same whatever is set.

import { expect, test } from "bun:test";
import { dependsOnSettings, dependsOnTime } from "../../src/parser/constants.ts";

test.each([
	"SELECT timestamptz '2026-03-01 00:00'",
	"SELECT * FROM t WHERE at < '01/02/2026'",
	"SELECT 'today'::date",
	"SELECT * FROM t WHERE at > 'Now'",
	"SELECT interval 'infinity'",
	"SELECT 'a\\nb'",
	"SELECT E'a\\nb'",
	"SELECT U&'a'",
	"SELECT $$2026-01-01$$::date",
	"SELECT $tag$ now $tag$::date",
	"SELECT '{a,NULL}'::text[]",
	"SELECT '<a/>'::xml",
	"SELECT 'caf\u00c3\u00a9'",
	'SELECT "caf\u00c3\u00a9" FROM t',
	"SELECT * FROM t WHERE a = NULL",
	"SELECT * FROM t WHERE a = ( NULL)",
	"SELECT * FROM t WHERE a = /* none */ NULL",
	"SELECT * FROM t WHERE (NULL) = a",
	"SELECT * FROM t WHERE NULL -- none\n = a",
	"SELECT 'never ends",
	"SELECT /* it's */ '2026-01-01'::date",
])("%s: they may", (sql) => {
	expect(dependsOnSettings(sql)).toBe(true);
});

test.each([
	"SELECT * FROM t WHERE id = $1",
	'SELECT 1, 2.5, true, "it\'s" FROM t',
	"SELECT * FROM t WHERE status = 'active' AND name LIKE '%foo_bar%'",
	"SELECT nextval('public.seq')",
	"INSERT INTO t VALUES ($1, '', 'it''s')",
	"SELECT a FROM t WHERE b IS NULL AND c = $1 -- 2026 'x'",
])("%s: they do not", (sql) => {
	expect(dependsOnSettings(sql)).toBe(false);
});

test.each([
	"SELECT 'now'::timestamptz",
	"INSERT INTO t VALUES ($1, ' Today 12:00')",
	"SELECT $$tomorrow$$::date",
	"SELECT '{yesterday,2026-01-01}'::date[]",
	"SELECT E'\\tnow'::date",
	"SELECT 'now",
])("%s: when it is parsed matters", (sql) => {
	expect(dependsOnTime(sql)).toBe(true);
});

test.each([
	"SELECT now(), today FROM tomorrow -- 'today",
	"SELECT 'nowhere', 'unknown', $1",
	"SELECT '2026-01-01'::date",
])("%s: it does not", (sql) => {
	expect(dependsOnTime(sql)).toBe(false);
});
