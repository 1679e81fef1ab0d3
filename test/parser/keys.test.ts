// Which shards statements are about, by table: what is pinned by its values, what is not, and what is refused. That no answer is wrong
// is tried on real shards in test/integration/shards-keys-random.test.ts.

import { describe, expect, test } from "bun:test";
import { evaluate } from "../../src/parser/aim.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Reading } from "../../src/parser/reading.ts";
import { At } from "../../src/parser/tables.ts";
import { BindArguments } from "../../src/router/arguments.ts";
import { concat, int16, int32 } from "../support/wire-frames.ts";
import { BY_SCHEMA, TABLES } from "./tables.ts";

const parser = new SqlParser();
const cache = new StatementCache(parser, { tables: TABLES });
const bySchema = new StatementCache(parser, { tables: BY_SCHEMA });
const factsOf = (sql: string, known: StatementCache) => {
	const bytes = Buffer.from(sql);
	return known.factsOfQuery(bytes, 0, bytes.length, Reading.Standard);
};

const WORDS: Record<number, string> = {
	[At.All]: "all",
	[At.None]: "none",
	[At.Null]: "null",
	[At.Unplaced]: "unplaced",
	[At.Apart]: "apart",
	[At.Changed]: "changed",
	[At.Open]: "open",
};

/** The shard of a statement, with these parameters as text; or why there is none. */
function where(
	sql: string,
	first: string | null | StatementCache = cache,
	...others: (string | null)[]
): string | number {
	const isCache = first instanceof StatementCache;
	const { aim, placement } = factsOf(sql, isCache ? first : cache);
	const parameters = isCache ? others : [first, ...others];
	if (aim === null) return placement.firstAnswers === null ? "copies" : "copies, on each";
	if (aim.refusal !== null) return aim.refusal.part;
	const values = parameters.map((value) =>
		value === null ? int32(-1) : concat(int32(Buffer.byteLength(value)), Buffer.from(value)),
	);
	const bind = Buffer.from(concat(int16(0), int16(values.length), ...values, int16(0)));
	const bound = { bind, bindStart: 0, bindEnd: bind.length, types: null, isForeign: false };
	const at = evaluate(aim, null, new BindArguments().of(bound));
	if (at === At.All && aim.writesCopies) return "copies, on each";
	return WORDS[at] ?? at;
}

/** Parameters are 4, 5 and an array of 4 and 7. */
const STATEMENTS: Record<string, readonly (readonly [string | number, string])[]> = {
	"a comparison with values": [
		[1, "SELECT * FROM a WHERE k = 4"],
		[2, "SELECT * FROM a WHERE k = 5"],
		[2, "SELECT * FROM a WHERE k = -5"],
		[1, "SELECT * FROM a WHERE k = - 4"],
		[1, "SELECT * FROM a WHERE k = '7'"],
		[1, "SELECT * FROM a WHERE k = '7'::bigint"],
		[1, "SELECT * FROM a WHERE k = bigint '7'"],
		["all", "SELECT * FROM a WHERE k = 7.0"],
		["all", "SELECT * FROM a WHERE k = 7.4::int"],
		[2, "SELECT * FROM a WHERE 5 = k"],
		[1, "SELECT * FROM a WHERE a.k = $1"],
		[2, "SELECT * FROM a WHERE k = $2::int8"],
		[2, "SELECT * FROM a x WHERE x.k = $2"],
		["all", "SELECT * FROM a x WHERE a.k = $2"],
		[1, "SELECT * FROM s.a WHERE s.a.k = 4"],
		[1, "SELECT * FROM a WHERE k IN (1, 4)"],
		[1, "SELECT * FROM a WHERE k IN (4, 7, 10)"],
		["all", "SELECT * FROM a WHERE k IN (1, 5)"],
		[1, "SELECT * FROM a WHERE k IN (1)"],
		[1, "SELECT * FROM a WHERE k IN (1, NULL, 4)"],
		["all", "SELECT * FROM a WHERE k NOT IN (1, 4)"],
		[1, "SELECT * FROM a WHERE k IN ($1, 4)"],
		[1, "SELECT * FROM a WHERE k = ANY($3)"],
		[1, "SELECT * FROM a WHERE k = ANY('{1,4}')"],
		["all", "SELECT * FROM a WHERE k = ANY('{1,5}'::bigint[])"],
		[1, "SELECT * FROM a WHERE k = ANY(ARRAY[1,4])"],
		["all", "SELECT * FROM a WHERE k = ANY(ARRAY[1,5])"],
		[1, "SELECT * FROM a WHERE k = ANY(ARRAY[1,4]::bigint[])"],
		[1, "SELECT * FROM a WHERE k = ANY(ARRAY[$1,'7']::int8[])"],
		["all", "SELECT * FROM v WHERE name = ANY(ARRAY['a','b']::char(3)[])"],
		["all", "SELECT * FROM a WHERE k = ALL(ARRAY[1,4])"],
		[1, "SELECT * FROM a WHERE k IS NOT DISTINCT FROM 4"],
		["all", "SELECT * FROM a WHERE k IS NOT DISTINCT FROM NULL"],
		["all", "SELECT * FROM a WHERE k = NULL"],
		["all", "SELECT * FROM a WHERE k IS NULL"],
		[1, "SELECT * FROM a WHERE k = 4 OR k = 7"],
		["all", "SELECT * FROM a WHERE k = 4 OR k = 5"],
		["all", "SELECT * FROM a WHERE k = 4 OR x = 5"],
		[1, "SELECT * FROM a WHERE (k = 4 AND x = 1) OR (k = 7 AND x = 2)"],
		["none", "SELECT * FROM a WHERE k = 4 AND k = 5"],
		["all", "SELECT * FROM a WHERE NOT k = 4"],
		[1, "SELECT * FROM a WHERE k = 4 AND x IN (1,2,3)"],
		[2, "SELECT * FROM a WHERE x IN (1,2,3) AND k = 5"],
		[1, "SELECT * FROM a WHERE x IN (1,2) AND k = 4"],
		[2, "SELECT * FROM a WHERE (k, x) = (5, 1)"],
		[1, "SELECT * FROM a WHERE (x, k) IN ((5, 1), (6, 4))"],
		["all", "SELECT * FROM a"],
		["copies", "SELECT * FROM o"],
		["copies", "SELECT * FROM o WHERE k = 5"],
		[2, "SELECT * FROM u WHERE id = '00000000-0000-0000-0000-000000000005'"],
		[1, "SELECT * FROM v WHERE name = 'abcd'"],
		[1, "SELECT * FROM v WHERE name = 'abcd'::text"],
		["all", "SELECT * FROM v WHERE name = 'abcd'::varchar(2)"],
		["all", "SELECT * FROM v WHERE name = 'abcd' COLLATE \"x\""],
		[0, "SELECT * FROM v WHERE name = E'a\\nb'"],
		[1, "SELECT * FROM v WHERE name = $$abcd$$"],
		[1, "SELECT * FROM v WHERE name = 'it''s'"],
		["all", "SELECT * FROM v WHERE name = 'far'"],
		// PostgreSQL takes no blanks off but those of ASCII.
		[1, "SELECT * FROM v WHERE name = ANY('{ \t a }')"],
		[2, "SELECT * FROM v WHERE name = ANY('{\u00a0a}')"],
		[2, "SELECT * FROM v WHERE name = ANY('{a\ufeff}')"],
		[1, "SELECT * FROM v WHERE name = ANY('{\u3000}')"],
		[2, "SELECT * FROM a WHERE k = 5 AND x = 'a' "],
		[2, "SELECT count(*) FROM a WHERE k = 5 ORDER BY 1 LIMIT 3"],
	],
	"joins, subqueries and WITH": [
		[2, "SELECT * FROM a, b WHERE a.k = b.k AND a.k = 5"],
		[2, "SELECT * FROM a JOIN b USING (k) WHERE k = 5"],
		[2, "SELECT * FROM a JOIN b USING (k) WHERE b.k = 5"],
		["all", "SELECT * FROM a NATURAL JOIN b WHERE a.k = 5"],
		// Columns that one join makes one are not those of another.
		["all", "SELECT * FROM a JOIN b USING (k), o JOIN b d USING (k) WHERE a.k = 5"],
		["all", "SELECT * FROM (a JOIN b USING (k)) JOIN (o LEFT JOIN b d USING (k)) ON true WHERE a.k = 5"],
		[2, "SELECT * FROM (a JOIN b USING (k)) JOIN (o JOIN b d USING (k)) USING (k) WHERE a.k = 5"],
		["all", "SELECT * FROM a JOIN b USING (k), o JOIN v ON k = 5"],
		["all", "SELECT * FROM (a JOIN b USING (k)) AS j(q, r), o WHERE k = 5"],
		["all", "SELECT * FROM (o FULL JOIN (SELECT k FROM a WHERE k = 5) a USING (k)) JOIN b USING (k)"],
		["all", "SELECT * FROM a j WHERE EXISTS (SELECT 1 FROM b JOIN o USING (k) AS j WHERE j.k = 5)"],
		[2, "SELECT * FROM a LEFT JOIN b ON a.k = b.k WHERE a.k = 5"],
		["all", "SELECT * FROM a LEFT JOIN b ON a.k = b.k AND b.k = 5"],
		["all", "SELECT * FROM a LEFT JOIN b ON b.k = 5"],
		[2, "SELECT * FROM a LEFT JOIN b ON b.k = 5 WHERE a.k = 5"],
		["all", "SELECT * FROM a LEFT JOIN b ON a.k = 5"],
		[2, "SELECT * FROM a RIGHT JOIN b ON a.k = b.k WHERE b.k = 5"],
		["all", "SELECT * FROM a FULL JOIN b ON a.k = b.k WHERE b.k = 5"],
		[2, "SELECT * FROM a LEFT JOIN o ON o.x = a.x WHERE a.k = 5"],
		[2, "SELECT * FROM o LEFT JOIN a ON o.x = a.x WHERE a.k = 5"],
		[2, "SELECT * FROM o JOIN a ON o.t = a.k WHERE o.t = 5"],
		[2, "SELECT * FROM a JOIN c ON c.a_k = a.k WHERE a.k = 5"],
		[1, "SELECT * FROM a, b WHERE a.k = 4 AND b.k = 7"],
		["all", "SELECT * FROM a, b WHERE a.k = 4 AND b.k = 5"],
		[2, "SELECT * FROM (SELECT * FROM a) s WHERE s.k = 5"],
		["all", "SELECT * FROM (SELECT * FROM a LIMIT 5) s WHERE s.k = 5"],
		[2, "SELECT * FROM (SELECT k, count(*) FROM a GROUP BY k) s WHERE s.k = 5"],
		["all", "SELECT * FROM (SELECT k, row_number() OVER () FROM a) s WHERE s.k = 5"],
		[2, "SELECT * FROM (SELECT * FROM a WHERE k = 5 LIMIT 5) s"],
		["all", "SELECT * FROM (SELECT x AS k FROM a) s WHERE s.k = 5"],
		[2, "WITH x AS (SELECT * FROM a WHERE k = 5) SELECT * FROM x"],
		[2, "WITH x AS (SELECT * FROM a) SELECT * FROM x WHERE k = 5"],
		["all", "WITH x AS (SELECT * FROM a) SELECT * FROM x, x y WHERE x.k = 5"],
		[2, "WITH x AS (SELECT * FROM a) SELECT * FROM x JOIN b USING (k) WHERE k = 5"],
		[
			2,
			"WITH RECURSIVE t AS (SELECT * FROM a WHERE k = 5 UNION ALL SELECT a.* FROM a JOIN t ON t.x = a.y AND a.k = 5) SELECT * FROM t",
		],
		[2, "SELECT * FROM a WHERE k = 5 AND EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"],
		[2, "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.k = 5)"],
		["all", "SELECT * FROM a WHERE EXISTS (SELECT count(*) FROM b WHERE b.k = a.k AND b.k = 5)"],
		["all", "SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.k = 5 ORDER BY count(*))"],
		["all", "SELECT * FROM a WHERE EXISTS (SELECT DISTINCT ON (max(x)) 1 FROM b WHERE b.k = a.k AND b.k = 5)"],
		[2, "SELECT * FROM a WHERE k = 5 AND NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k)"],
		[2, "SELECT * FROM a WHERE k IN (SELECT k FROM b WHERE k = 5)"],
		[2, "SELECT * FROM a WHERE k = 5 AND k IN (SELECT b.k FROM b)"],
		["all", "SELECT * FROM a WHERE k = 5 AND k NOT IN (SELECT b.k FROM b)"],
		[2, "SELECT *, (SELECT max(x) FROM b WHERE b.k = a.k) FROM a WHERE a.k = 5"],
		["all", "SELECT * FROM a WHERE k = 5 AND x = (SELECT max(x) FROM b)"],
		[2, "SELECT * FROM a WHERE k = 5 UNION SELECT * FROM b WHERE k = 8"],
		["all", "SELECT * FROM a WHERE k = 5 UNION SELECT * FROM b WHERE k = 4"],
		[2, "SELECT * FROM a WHERE k = 5 UNION SELECT * FROM o"],
		["all", "SELECT * FROM a, LATERAL (SELECT count(*) FROM b WHERE b.k = a.k AND b.k = 5) s"],
		[2, "SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.k = a.k) s WHERE a.k = 5"],
		[1, "SELECT * FROM v JOIN w USING (name) WHERE name = 'abcd'"],
		["all", "SELECT * FROM v JOIN o ON v.name = o.name WHERE o.name = 'abcd'"],
	],
	INSERT: [
		[2, "INSERT INTO a (k, x) VALUES (5, 1)"],
		[1, "INSERT INTO a (k, x) VALUES (4, 1)"],
		[1, "INSERT INTO a (k, x) VALUES (4, 1), (7, 1)"],
		["apart", "INSERT INTO a (k, x) VALUES (4, 1), (5, 1)"],
		["apart", "INSERT INTO a (k, x) VALUES (4, 1), (5, 1), (6, 2)"],
		[1, "INSERT INTO a (x, k) VALUES (4, $1)"],
		["null", "INSERT INTO a (x, k) VALUES (4, NULL)"],
		[2, "INSERT INTO a (x, k) VALUES (4, '5')"],
		["unplaced", "INSERT INTO a (x, k) VALUES (4, DEFAULT)"],
		["unplaced", "INSERT INTO a (x, k) VALUES (4, 2+3)"],
		["an INSERT without the sharding key (k)", "INSERT INTO a (x) VALUES (4)"],
		["an INSERT without a list of columns", "INSERT INTO a VALUES (4)"],
		["an INSERT without the sharding key (k)", "INSERT INTO a DEFAULT VALUES"],
		[2, "INSERT INTO a (k, x) SELECT 5, x FROM o"],
		[2, "INSERT INTO a (k, x) SELECT k, x FROM b WHERE k = 5"],
		["unplaced", "INSERT INTO a (k, x) SELECT k, x FROM b"],
		["unplaced", "INSERT INTO a (k, x) SELECT * FROM b WHERE k = 5"],
		["copies, on each", "INSERT INTO o (k) VALUES (5)"],
		[
			"a write to a table that is on all shards together with sharded ones",
			"INSERT INTO o SELECT * FROM a WHERE k = 5",
		],
		[2, "INSERT INTO a (k) VALUES (5) ON CONFLICT (k) DO UPDATE SET x = excluded.x RETURNING *"],
		[2, "INSERT INTO a (k) VALUES (5) ON CONFLICT (k) DO UPDATE SET k = excluded.k"],
		["changed", "INSERT INTO a (k) VALUES (5) ON CONFLICT (k) DO UPDATE SET k = 4"],
		[2, "INSERT INTO a (k, x) VALUES (5, (SELECT max(x) FROM b WHERE k = 5))"],
		["apart", "INSERT INTO a (k, x) VALUES (5, (SELECT max(x) FROM b))"],
	],
	"UPDATE, DELETE and MERGE": [
		[2, "UPDATE a SET x = 1 WHERE k = 5"],
		[2, "UPDATE a SET k = 8 WHERE k = 5"],
		["changed", "UPDATE a SET k = 4 WHERE k = 5"],
		["changed", "UPDATE a SET k = k + 1 WHERE k = 5"],
		["all", "UPDATE a SET k = k WHERE x = 5"],
		[2, "UPDATE a SET x = b.x FROM b WHERE a.k = b.k AND b.k = 5"],
		["all", "UPDATE a SET x = b.x FROM b WHERE a.k = b.k"],
		["all", "UPDATE a SET x = 1"],
		["copies, on each", "UPDATE o SET x = 1"],
		["a write to a table that is on all shards together with sharded ones", "UPDATE o SET x = 1 FROM a WHERE a.k = 5"],
		[2, "DELETE FROM a WHERE k = 5"],
		[2, "DELETE FROM a USING b WHERE a.k = b.k AND b.k = 5"],
		[2, "DELETE FROM a USING o WHERE a.k = o.k AND o.k = 5"],
		[
			2,
			"MERGE INTO a USING (VALUES (5, 1)) s(k, x) ON a.k = s.k WHEN MATCHED THEN UPDATE SET x = s.x WHEN NOT MATCHED THEN INSERT (k, x) VALUES (s.k, s.x)",
		],
		["unplaced", "MERGE INTO a USING b ON a.k = b.k AND b.k = 5 WHEN NOT MATCHED THEN INSERT (k, x) VALUES (b.k, b.x)"],
		[
			2,
			"MERGE INTO a USING (SELECT * FROM b WHERE k = 5) b ON a.k = b.k WHEN NOT MATCHED THEN INSERT (k, x) VALUES (b.k, b.x)",
		],
	],
	"other statements": [
		["all", "SET x = 1; SELECT * FROM a WHERE k = 5"],
		["all", "DECLARE c CURSOR FOR SELECT * FROM a WHERE k = 5"],
		[2, "SHOW x; SELECT * FROM a WHERE k = 5"],
		["all", "SELECT * FROM (a JOIN b ON a.k = b.k) AS j WHERE j.k = 5"],
		["all", "SELECT * FROM (SELECT k FROM a GROUP BY ROLLUP (k)) s WHERE k = 5"],
		[2, "SELECT * FROM (SELECT k AS m, x FROM a) s(j) WHERE j = 5"],
		["all", "SELECT * FROM (SELECT * FROM a) s(j) WHERE j = 5"],
		[2, "SELECT * FROM generate_series(1, 2) g, a WHERE a.k = 5 AND a.x = g"],
		["all", "SELECT * FROM v WHERE name = $1 AND name <> $1::char(3)"],
		[1, "SELECT * FROM u WHERE id = ANY('{00000000-0000-0000-0000-000000000004}')"],
		["all", "MERGE INTO a USING o ON a.k = 5 AND o.x = a.x WHEN NOT MATCHED BY SOURCE THEN DELETE"],
		[2, "MERGE INTO a USING o ON a.k = 5 AND o.x = a.x WHEN MATCHED THEN DELETE"],
		[2, "EXPLAIN SELECT * FROM a WHERE k = 5"],
		["COPY … FROM into a sharded table", "COPY a FROM STDIN"],
		["copies, on each", "COPY o FROM STDIN"],
		[2, "COPY (SELECT * FROM a WHERE k = 5) TO STDOUT"],
		["all", "COPY a TO STDOUT"],
		["PREPARE of a write that depends on its values", "PREPARE p AS INSERT INTO a (k) VALUES ($1)"],
		["a table made by a query of sharded tables", "CREATE TABLE z AS SELECT * FROM a"],
		["copies", "CREATE TABLE z AS SELECT * FROM o"],
		["a table made by a query of sharded tables", "SELECT * INTO z FROM a WHERE k = 5"],
		[2, "WITH x AS (INSERT INTO a (k) VALUES (5) RETURNING *) SELECT * FROM x"],
		["unplaced", "WITH x AS (DELETE FROM a WHERE k = 5 RETURNING *) INSERT INTO b (k) SELECT k FROM x"],
		[2, "BEGIN; UPDATE a SET x = 1 WHERE k = 5; COMMIT"],
		[2, "UPDATE a SET x = 1 WHERE k = 5; UPDATE b SET x = 1 WHERE k = 8"],
		["copies, on each", "UPDATE a SET x = 1 WHERE k = 5; INSERT INTO o VALUES (1)"],
	],
	"sharded schemas, several keys, comments": [
		[2, "SELECT * FROM two WHERE j = 5"],
		["apart", "INSERT INTO two (k, j) VALUES (4, 5)"],
		[1, "INSERT INTO two (k, j) VALUES (4, 7)"],
		[2, "/* c */ SELECT * FROM a WHERE /* d */ k = /* e */ 5 -- f"],
		[1, "SELECT * FROM a WHERE note = 'ü' /* ü */ AND k = 4"],
		[1, "SELECT * FROM a TABLESAMPLE SYSTEM (10) WHERE k = 4"],
		["all", "SELECT * FROM a AS t(k) WHERE k = 4"],
		["all", "SELECT * FROM either WHERE k = 4 AND j = 4"],
		[2, "SELECT * FROM other.either WHERE k = 4 AND j = 5"],
		["unplaced", "INSERT INTO either (k, j) VALUES (4, 4)"],
	],
};

for (const [what, statements] of Object.entries(STATEMENTS))
	describe(what, () => {
		test.each(statements)("%s: %s", (expected, sql) => {
			expect(where(sql, "4", "5", "{4,7}")).toBe(expected);
			// Of the same shape, which is known now.
			expect(where(sql, "4", "5", "{4,7}")).toBe(expected);
		});
	});

describe("with sharded schemas", () => {
	test.each([
		[0, "SELECT * FROM first.t"],
		[1, "SELECT * FROM second.a"],
		[1, "SELECT * FROM second.t JOIN a ON true WHERE a.k = 4"],
		["copies", "SELECT * FROM every.t"],
		[1, "INSERT INTO second.t VALUES (1)"],
		["all", "SELECT * FROM t"],
		["copies", "SELECT * FROM o"],
		[2, "SELECT * FROM a WHERE k = 5"],
		["unplaced", "INSERT INTO t VALUES (1)"],
		["copies, on each", "INSERT INTO every.t VALUES (1)"],
	])("%s: %s", (expected, sql) => {
		expect(where(sql, bySchema)).toBe(expected);
	});
});

test("of a table that may have the column it is known whether a statement says so", () => {
	const uncertain = (sql: string) => factsOf(sql, cache).aim?.uncertain ?? null;
	expect(where("SELECT * FROM maybe WHERE k = 5")).toBe(2);
	expect(where("SELECT * FROM maybe")).toBe("all");
	expect(uncertain("SELECT * FROM maybe")).toBe("maybe");
	expect(uncertain("SELECT * FROM a, maybe")).toBe("maybe");
	expect(uncertain("SELECT * FROM maybe WHERE k > 5")).toBe(null);
	expect(uncertain("SELECT * FROM a JOIN maybe USING (k)")).toBe(null);
	expect(uncertain("SELECT * FROM a")).toBe(null);
});

test("keys may change where the configuration says so", () => {
	const careless = new StatementCache(parser, { tables: { ...TABLES, mayChangeKeys: true } });
	expect(where("UPDATE a SET k = 4 WHERE k = 5", careless)).toBe(2);
	expect(where("UPDATE a SET k = k + 1", careless)).toBe("all");
});

/** The literals of the second text are other ones in the places of the first one's. */
test("lists, statements and joins may be long, and beyond any sense nothing is said of them", () => {
	const list = Array.from({ length: 200 }, (_, i) => (i % 2 === 0 ? `${i}` : `'${i}'`)).join();
	expect(where(`SELECT * FROM a WHERE x IN (${list}) AND k = 5`)).toBe(2);
	expect(where(`SELECT * FROM a WHERE k IN (${list})`)).toBe("all");
	const rows = Array.from({ length: 100 }, (_, i) => `(${i}, ${3 * i + 1})`).join();
	expect(where(`INSERT INTO a (x, k) VALUES ${rows}`)).toBe(1);
	const joins = Array.from({ length: 301 }, (_, i) => ` JOIN o o${i} ON true`).join("");
	expect(where(`SELECT * FROM a${joins} WHERE a.k = 5`)).toBe("a statement of so many parts");
});

/** What keeps the answers of all shards from being one, of statements for all of them. */
describe("all shards answer", () => {
	test.each([
		["SELECT * FROM a", null],
		["SELECT * FROM a JOIN o ON a.x = o.x LEFT JOIN o p ON p.x = a.x", null],
		["SELECT * FROM o LEFT JOIN a ON a.x = o.x", "LEFT JOIN"],
		["SELECT * FROM a JOIN b USING (k)", null],
		["SELECT * FROM a LEFT JOIN b ON a.k = b.k AND b.x > 3", null],
		["SELECT * FROM a JOIN b ON a.x = b.x", "more than one table"],
		["SELECT * FROM a JOIN u ON a.k = u.id", "more than one table"],
		["SELECT * FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k)", null],
		["SELECT * FROM a WHERE (SELECT count(*) FROM b WHERE b.k = a.k) > 1", null],
		["SELECT * FROM a WHERE (SELECT count(*) FROM o WHERE o.x = a.x) > 1", null],
		["SELECT * FROM a WHERE (SELECT count(*) FROM b) > 1", "a subquery"],
		["SELECT * FROM a WHERE x IN (SELECT x FROM o GROUP BY x HAVING count(*) > 1)", null],
		["SELECT * FROM a WHERE x IN (SELECT x FROM o LIMIT 1)", "LIMIT or FETCH FIRST"],
		["SELECT (SELECT sum(a.x)) FROM a", "the aggregate sum()"],
		["SELECT (SELECT count(*) FILTER (WHERE a.x > 1)) FROM a", "the aggregate count()"],
		["SELECT count(*) FROM a", null],
		["SELECT avg(x) FROM a", "the aggregate avg()"],
		["UPDATE a SET x = b.x FROM b WHERE a.k = b.k", null],
		["DELETE FROM a USING b WHERE a.x = b.x", "DELETE … USING another table"],
	])("%s: %s", (sql, expected) => {
		expect(factsOf(sql, cache).placement.unmerged).toBe(expected);
	});
});

describe("what is known of a shape holds for its texts", () => {
	test.each([
		["SELECT * FROM a WHERE k = 4 AND x = 'b'", "SELECT * FROM a WHERE k = 5 AND x = 'it''s'", 2],
		["SELECT * FROM a WHERE x = 4 AND k = -4", "SELECT * FROM a WHERE x = 77 AND k = -11", 2],
		["SELECT * FROM a WHERE k IN (1, 4)", "SELECT * FROM a WHERE k IN (2, -5, '8', 11)", 2],
		["SELECT * FROM a WHERE k IN (2, -5, '8', 11)", "SELECT * FROM a WHERE k IN (1, 2)", "all"],
		["SELECT * FROM a WHERE x IN (1, 4) AND k = 3", "SELECT * FROM a WHERE x IN (5, 6, 7, 8) AND k = 2", 2],
		["SELECT * FROM a WHERE x = ARRAY[1, 4] AND k = 3", "SELECT * FROM a WHERE x = ARRAY[1, 4, 4] AND k = 2", 2],
		["INSERT INTO a (x, k) VALUES (1, 4), (2, 7)", "INSERT INTO a (x, k) VALUES (1, 5), (2, 8), (3, '2')", 2],
		["INSERT INTO a (x, k) VALUES (1, 4), (2, 7)", "INSERT INTO a (x, k) VALUES (1, 5), (2, 8), (3, 4)", "apart"],
		["INSERT INTO a (x, k) VALUES (1, 4), (2, 7)", "INSERT INTO a (x, k) VALUES (NULL, 5), (NULL, NULL)", "null"],
		["INSERT INTO a (x, k) VALUES (NULL, NULL)", "INSERT INTO a (x, k) VALUES ('a', 5)", 2],
		["INSERT INTO a (x, k) VALUES (1, 4)", "INSERT INTO a (x, k) VALUES (1, NULL  )", "null"],
		["INSERT INTO a (x, k) VALUES (1, 4)", "INSERT INTO a (x, k) VALUES (/* none */ NULL, 5)", 2],
		["INSERT INTO a (x, k) VALUES (1, 4)", "INSERT INTO a (x, k) VALUES (1, E'5')", 2],
		["INSERT INTO a (x, k) VALUES (1, 4)", "INSERT INTO a (x, k) VALUES (1, X'5')", "unplaced"],
		["SELECT * FROM v WHERE name = 'ab' -- one", "SELECT * FROM v WHERE name = 'äöü' /* two */", 0],
		["SELECT * FROM v WHERE name = E'ab'", "SELECT * FROM v WHERE name = E'a\\n''\\''", 1],
		["SELECT * FROM v WHERE name = $$ab$$", "SELECT * FROM v WHERE name = $x$a$$b$x$", 1],
		// One string in two lines.
		["SELECT * FROM v WHERE name = 'ab'\n'c'", "SELECT * FROM v WHERE name = 'abcd'\n'e'", 2],
		["SELECT * FROM v WHERE name = 'ab'\n''", "SELECT * FROM v WHERE name = 'ab'\n'cd'", 1],
		["SELECT * FROM v WHERE name = 'ab' -- more\n''", "SELECT * FROM v WHERE name = 'ab' -- more\n'cd'", 1],
		["SELECT * FROM a WHERE k = 007", "SELECT * FROM a WHERE k = 005", 2],
		["SELECT * FROM a WHERE k = 5", "SELECT * FROM a WHERE k = 99999999999999999999", "all"],
		["SELECT * FROM a WHERE k = 5.5", "SELECT * FROM a WHERE k = .5", "all"],
	])("%s, %s", (first, second, expected) => {
		const fresh = new StatementCache(parser, { tables: TABLES });
		expect([where(first, fresh), where(second, fresh), where(second, fresh)].slice(1)).toEqual([expected, expected]);
	});
});
