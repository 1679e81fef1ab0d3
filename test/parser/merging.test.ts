// What a SELECT asks of all of its rows, read off its tree: which columns it is ordered by, how many rows it wants.

import { describe, expect, test } from "bun:test";
import { StatementCache } from "../../src/parser/cache.ts";
import { SqlParser } from "../../src/parser/parse.ts";

const cache = new StatementCache(new SqlParser());

/** A word or two for each term, then DISTINCT, LIMIT and OFFSET; or why not. */
function asked(sql: string): string {
	const mergings = cache.mergings(sql);
	if (typeof mergings === "string") return `not: ${mergings}`;
	const [merging] = mergings;
	if (merging == null) return "nothing";
	const { order, distinct, limit, offset, combined } = merging;
	const terms = order.map(({ name, position, isTables, descending, nullsFirst, bytewise }) =>
		[
			name,
			position < 0 ? "" : `#${position}`,
			isTables ? "*" : "",
			descending ? "-" : "+",
			nullsFirst ? "^" : "",
			bytewise ? "C" : "",
		].join(""),
	);
	const count = (word: string, rows: typeof limit) =>
		rows === null ? [] : [`${word} ${rows.parameter > 0 ? `$${rows.parameter}` : rows.rows}`];
	return [
		...terms,
		...(distinct ? ["distinct"] : []),
		...count("limit", limit),
		...count("offset", offset),
		...(combined ?? []),
	].join(" ");
}

describe("ORDER BY", () => {
	test.each([
		["SELECT a FROM t", "nothing"],
		["SELECT a FROM t ORDER BY a", "a#0+"],
		["SELECT a, b FROM t ORDER BY b DESC, a ASC NULLS FIRST", "b#1-^ a#0+^"],
		["SELECT a, b FROM t ORDER BY 2 DESC NULLS LAST", "#1-"],
		["SELECT a AS b, b AS a FROM t ORDER BY a", "a#0+"],
		["SELECT a AS x FROM t ORDER BY a", "a#0+"],
		["SELECT * FROM t ORDER BY a", "a+"],
		["SELECT x.* FROM t x ORDER BY x.a DESC", "a*-^"],
		["SELECT *, b FROM t ORDER BY t.a", "not: ORDER BY of what is no column of the output"],
		["SELECT s.* FROM t ORDER BY t.a", "not: ORDER BY of what is no column of the output"],
		["SELECT (t.c).* FROM t ORDER BY t.a", "not: ORDER BY of what is no column of the output"],
		["SELECT t.a FROM t ORDER BY t.a", "#0+"],
		["SELECT a FROM t ORDER BY t.a", "#0+"],
		["SELECT t.a FROM t ORDER BY a", "a+"],
		["SELECT a FROM t, (VALUES (1)) v(a) ORDER BY t.a", "not: ORDER BY of what is no column of the output"],
		["SELECT upper(a) FROM t ORDER BY upper(a)", "#0+"],
		["SELECT upper(a) FROM t ORDER BY upper", "upper+"],
		["SELECT upper(a) AS x FROM t ORDER BY upper", "not: ORDER BY of what is no column of the output"],
		["SELECT a + 1 FROM t ORDER BY a + 1", "#0+"],
		["SELECT a + 1 FROM t ORDER BY a + 2", "not: ORDER BY of what is no column of the output"],
		['SELECT a FROM t ORDER BY a COLLATE "C"', "#0+C"],
		['SELECT t.a FROM t ORDER BY a COLLATE pg_catalog."POSIX" DESC', "#0-^C"],
		['SELECT upper(a) AS a FROM t ORDER BY a COLLATE "C"', "not: ORDER BY of what is no column of the output"],
		["SELECT * FROM t ORDER BY a COLLATE ucs_basic", "a*+C"],
		['SELECT a FROM t ORDER BY 1 COLLATE "C"', "not: ORDER BY of what is no column of the output"],
		["SELECT a FROM t UNION ALL SELECT b FROM u ORDER BY a", "a#0+"],
	])("%s: %s", (sql, expected) => {
		expect(asked(sql)).toBe(expected);
	});

	// The first text of a shape had an answer for all of them.
	test("goes by the literals of each text, also where facts are shared", () => {
		const facts = (sql: string) => cache.factsOfQuery(Buffer.from(sql), 0, sql.length, 0);
		for (const [sql, other] of [
			["SELECT a, b FROM t ORDER BY 1 LIMIT 2", "SELECT a, b FROM t ORDER BY 2 LIMIT 7"],
			["SELECT a + 1 FROM t ORDER BY a + 1", "SELECT a + 1 FROM t ORDER BY a + 2"],
			["SELECT a FROM t ORDER BY 1 LIMIT -1", "SELECT a FROM t ORDER BY 1 LIMIT -0"],
		] as const) {
			expect(facts(sql)).toBe(facts(other));
			expect(facts(other).placement.merges).toBe(true);
			expect(asked(sql)).not.toBe(asked(other));
		}
	});
});

describe("LIMIT and OFFSET", () => {
	test.each([
		["SELECT a FROM t LIMIT 5", "limit 5"],
		["SELECT a FROM t LIMIT 0", "limit 0"],
		["SELECT a FROM t LIMIT ALL", "nothing"],
		["SELECT a FROM t LIMIT NULL OFFSET 3", "offset 3"],
		["SELECT a FROM t LIMIT $2 OFFSET $1::int", "limit $2 offset $1"],
		["SELECT a FROM t LIMIT -1", "not: LIMIT or OFFSET that is computed"],
		["SELECT a FROM t LIMIT -0", "limit 0"],
		["SELECT a FROM t LIMIT '5'", "not: LIMIT or OFFSET that is computed"],
		["SELECT a FROM t LIMIT 1.5", "not: LIMIT or OFFSET that is computed"],
		["SELECT a FROM t LIMIT $1::text", "not: LIMIT or OFFSET that is computed"],
		["SELECT a FROM t LIMIT 5::int", "not: LIMIT or OFFSET that is computed"],
		["SELECT DISTINCT a FROM t ORDER BY 1 FETCH FIRST 3 ROWS ONLY", "#0+ distinct limit 3"],
	])("%s: %s", (sql, expected) => {
		expect(asked(sql)).toBe(expected);
	});
});

describe("aggregates that are all of the output", () => {
	test.each([
		["SELECT count(*), sum(a), min(b), max(DISTINCT c) FROM t", "sum sum min max"],
		["SELECT bool_and(a) AS x, every(b), bool_or(c) FILTER (WHERE d) FROM t WHERE e", "and and or"],
		["SELECT coalesce(sum(a), 0), pg_catalog.count(b) FROM t", "sum sum"],
		["SELECT coalesce(sum(a), 5) FROM t", "not: an aggregate in coalesce() with another value than 0"],
		["SELECT coalesce(max(a), 0) FROM t", "nothing"],
		["SELECT count(DISTINCT a) FROM t", "nothing"],
		["SELECT count(*), a FROM t", "nothing"],
		["SELECT count(*) + 1 FROM t", "nothing"],
		["SELECT app.sum(a) FROM t", "nothing"],
		["SELECT sum(a) OVER () FROM t", "nothing"],
		["SELECT count(*) FROM t LIMIT 1", "not: ORDER BY, LIMIT or DISTINCT of an aggregate"],
	])("%s: %s", (sql, expected) => {
		expect(asked(sql)).toBe(expected);
	});
});

test("the first statement that cannot be merged is told, and a text that cannot be read", () => {
	expect(cache.mergings("SELECT a FROM t LIMIT 1; SET x = 1; SELECT a FROM t")).toMatchObject([{}, null, null]);
	expect(cache.mergings("SELECT a FROM t LIMIT 1; SELECT DISTINCT a FROM t")).toBe("DISTINCT");
	expect(cache.mergings("SELEC")).toContain("could not be parsed");
});
