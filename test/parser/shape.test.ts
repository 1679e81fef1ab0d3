// Two texts of one shape must be one to PostgreSQL's grammar: whatever the shape leaves out, the facts of the whole text are the
// same. By table of the places where the grammar looks at literals, and by texts that are made up, held against the parser.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StatementCache } from "../../src/parser/cache.ts";
import { type StatementFacts, statementFacts } from "../../src/parser/facts.ts";
import { Parsed, SqlParser } from "../../src/parser/parse.ts";
import { Reading } from "../../src/parser/reading.ts";
import { Shape } from "../../src/parser/shape.ts";

const parser = new SqlParser();
const shape = new Shape();

/** Null for a text that has none. */
function shapeOf(sql: string | Uint8Array): string | null {
	const bytes = Buffer.from(sql as string);
	return shape.read(bytes, 0, bytes.length) ? shape.key() : null;
}

/** What is decided by, without what is shown. */
const decisive = (facts: StatementFacts): StatementFacts => ({ ...facts, text: "" });
const parsed = (sql: string) => decisive(statementFacts(parser.parse(sql), sql));

function ask(cache: StatementCache, sql: string, conforming = true): StatementFacts {
	// Somewhere in a chunk, as a message is.
	const bytes = Buffer.from(`'Q'${sql}\0'`);
	return cache.factsOfQuery(bytes, 3, bytes.length - 2, conforming ? Reading.Standard : Reading.Escapes);
}

/** Holds all texts that it is shown against all others of their shape. */
class Witness {
	private readonly byShape = new Map<string, { sql: string; facts: StatementFacts }>();
	/** Texts that had a shape, and those of them that had another's. */
	shaped = 0;
	shared = 0;

	see(sql: string): void {
		const key = shapeOf(sql);
		if (key === null) return;
		this.shaped++;
		const known = this.byShape.get(key);
		if (known === undefined) {
			this.byShape.set(key, { sql, facts: parsed(sql) });
			return;
		}
		if (known.sql === sql) return;
		this.shared++;
		expect({ sql, like: known.sql, facts: parsed(sql) }).toEqual({ sql, like: known.sql, facts: known.facts });
	}
}

const LITERALS = {
	integer: ["1", "0", "42", "007", "2147483647", "0000000000000000000001"],
	number: ["1.5", ".5", "5.", "1e3", "1.5E-3", ".5e+10", "2147483648", "99999999999999999999", "1.e5"],
	string: [
		"'a'",
		"''",
		"'it''s'",
		"'1'",
		"'a\nb'",
		"'--'",
		"'/*'",
		"'$$'",
		"'é'",
		"'\\'",
		"';DELETE FROM t;'",
		"'a'\n'b'",
	],
	escaped: ["E'a'", "e''", "E'\\n'", "E'\\\\'", "E'it\\'s'", "E'a''b'", "E'é'"],
	bits: ["B'01'", "b''", "B'2'"],
	hex: ["X'1F'", "x''", "X'zz'"],
	national: ["N'a'", "n'b''c'", "N''"],
	dollars: ["$$a$$", "$$$$", "$q$a$$b$q$", "$é$;$é$", "$$'$$", "$a$$b$$a$"],
	doubtful: [
		"U&'a'",
		"U&'\\0061'",
		"U&'a' UESCAPE '!'",
		"0x1F",
		"1_000",
		"0b1",
		"0o7",
		"E'\\x41'",
		"E'\\101'",
		"E'\\u0061'",
	],
	wrong: [
		"123abc",
		"1__0",
		"0xg",
		"1e",
		"1e+",
		"1..2",
		"E'\\u00'",
		"E'\\xff'",
		"E'\\377'",
		"U&'\\zz'",
		"1_",
		"$1abc",
		"'a''",
	],
};
const ALL = Object.values(LITERALS).flat();

/** `?` is a literal. */
const PLACES = [
	"SELECT ?",
	"SELECT -?",
	"SELECT a?",
	"SELECT a ?",
	"SELECT ? a",
	"SELECT ?a",
	"SELECT ?::int",
	"SELECT $1?",
	"SELECT 1?",
	"SELECT (?)",
	"SELECT ? ?",
	"SELECT ?\n?",
	"SELECT ?-- c\n?",
	"SELECT ? /* c */\n?",
	"SELECT ?\n/* c */?",
	"SELECT ?/**/?",
	"SELECT 'a'\n?",
	"SELECT E'a'\n?",
	"SELECT B'1' ?",
	"SELECT B'1'\n?",
	"SELECT text ?",
	"SELECT date ?, timestamp ?",
	"SELECT interval ?",
	"SELECT interval ? day",
	"SELECT interval(?) '1'",
	"SELECT interval '1' second(?)",
	"SELECT float8 ?",
	"SELECT float(?) '1'",
	"SELECT 1::float(?)",
	"SELECT a::FLOAT /* c */ (?)",
	"SELECT numeric(?) '1'",
	"SELECT 1::numeric(?, 1)",
	"SELECT 1::char(?)",
	"SELECT 1::varchar(?)",
	"SELECT 1::bit(?)",
	"SELECT bit(?) '1'",
	"SELECT 1::time(?)",
	"SELECT 1::int[?]",
	"SELECT a[?], a[?:2]",
	"SELECT current_timestamp(?)",
	"SELECT extract(? FROM a)",
	"SELECT position(? in 'b')",
	"SELECT a COLLATE ?",
	"SELECT a LIKE ? ESCAPE ?",
	"SELECT a AT TIME ZONE ?",
	"SELECT a BETWEEN ? AND ?",
	"SELECT f(?)",
	"SELECT nullif(?, 1)",
	"SELECT nchar ?",
	"SELECT nchar(?) ?",
	"SELECT xmlroot(a, version ?)",
	"SELECT xmlpi(name a, ?)",
	"SELECT xmlparse(document ?)",
	"SELECT * FROM xmltable(? PASSING a COLUMNS b int PATH ?)",
	"SELECT json_value(?, ?)",
	"SELECT json_query('{}', ? DEFAULT ? ON ERROR)",
	"SELECT * FROM json_table('[]', ? COLUMNS (a int PATH '$.a'))",
	"SELECT * FROM json_table('[]', '$' COLUMNS (a int PATH ?))",
	"SELECT json_object(?: ?)",
	"SELECT * FROM t TABLESAMPLE system (?) REPEATABLE (?)",
	"SELECT a FROM t LIMIT ?",
	"SELECT a FROM t LIMIT ? OFFSET ?",
	"SELECT a FROM t FETCH FIRST ? ROWS ONLY",
	"SELECT a FROM t FETCH FIRST -? ROWS ONLY",
	"SELECT a FROM t ORDER BY a FETCH FIRST ? ROWS WITH TIES",
	"SELECT a FROM t ORDER BY ?",
	"SELECT sum(a) OVER (ORDER BY b ROWS ? PRECEDING)",
	"SELECT a AS ?",
	"SELECT a FROM ?",
	"SELECT t.? FROM t",
	"SELECT t.in(?)",
	"WITH RECURSIVE a AS (SELECT 1) CYCLE a SET b TO ? DEFAULT ? USING c SELECT 1",
	"INSERT INTO t VALUES (?)",
	"INSERT INTO t VALUES (?), (?)",
	"INSERT INTO t VALUES (1, ?), (?, NULL)",
	"INSERT INTO t (a) SELECT ? ON CONFLICT DO NOTHING",
	"UPDATE t SET a = ? WHERE b = ?",
	"UPDATE t SET (a, b) = (?, ?)",
	"DELETE FROM t WHERE a = ?",
	"MERGE INTO t USING u ON t.a = ? WHEN NOT MATCHED THEN INSERT VALUES (?)",
	"VALUES (?), (?)",
	"(SELECT ?)",
	"SELECT a FROM t WHERE a IN (?)",
	"SELECT a FROM t WHERE a IN (?, ?)",
	"SELECT ARRAY[?], ARRAY[?, ?]",
	"SELECT ? UESCAPE ?",
	"SELECT 'a' UESCAPE ?",
	'SELECT "a"?',
	"SELECT 1; EXPLAIN (ANALYZE ?) DELETE FROM t",
	"SELECT 1; SET a = ?",
	"SELECT ?;",
	"SELECT nextval(?)",
	"EXPLAIN (ANALYZE ?) DELETE FROM t",
	"SET TRANSACTION SNAPSHOT ?",
];

/** `@` is a list of literals. */
const LISTS = [
	"SELECT @",
	"SELECT (@)",
	"SELECT (@) OVERLAPS (1, 2)",
	"SELECT (1, 2) OVERLAPS (@)",
	"SELECT a IN (@) OVERLAPS (1, 2)",
	"SELECT a IN ((1, 2), (@)) OVERLAPS (1, 2)",
	"SELECT a IN ((1, 2), (@) OVERLAPS (1, 2))",
	"SELECT position(a in (@))",
	"SELECT nullif(@)",
	"SELECT coalesce(@)",
	"SELECT f(@)",
	"SELECT t.in(@)",
	"SELECT t.array[@]",
	"SELECT t.values(@)",
	"SELECT f(VARIADIC ARRAY[@])",
	"SELECT ARRAY[@]",
	"SELECT ARRAY[[@], [@]]",
	"SELECT ARRAY(@)",
	"SELECT array[@)",
	"SELECT a[@]",
	"SELECT a IN (@)",
	"SELECT a NOT /* c */ IN (@)",
	"SELECT a IN [@]",
	"SELECT a IN (b, @)",
	"SELECT a IN (@, b)",
	"SELECT a IN (f(@))",
	"SELECT a IN (SELECT @)",
	"SELECT a IN (VALUES (@))",
	"SELECT a IN ((SELECT @), (SELECT @))",
	"SELECT a = ANY (@)",
	"SELECT 1::numeric(@), 1::x(@)",
	"SELECT 1::char(@)",
	"SELECT 1::bit(@)",
	"SELECT 1::interval(@)",
	"SELECT json_object(@)",
	"SELECT json_object('a': @)",
	"SELECT json_array(@)",
	"SELECT json_value(@)",
	"SELECT substring(@), overlay(@), trim(@)",
	"SELECT 1 LIMIT @",
	"SELECT 1 FETCH FIRST (@) ROWS ONLY",
	"SELECT 1 ORDER BY @",
	"SELECT 1 GROUP BY @",
	"SELECT 1 GROUP BY GROUPING SETS ((@), ())",
	"SELECT DISTINCT ON (@) a FROM t",
	"SELECT * FROM t TABLESAMPLE system (@) REPEATABLE (@)",
	"SELECT * FROM f(@)",
	"SELECT * FROM (VALUES (@)) x",
	"INSERT INTO t VALUES (@)",
	"INSERT INTO t VALUES @",
	"MERGE INTO t USING u ON true WHEN NOT MATCHED THEN INSERT VALUES (@)",
	"UPDATE t SET (a, b) = (@)",
	"SELECT values(@)",
	"VALUES (@) LIMIT 1",
	"VALUES @",
];

describe("texts of one shape are the same to the grammar", () => {
	test.each(PLACES)("%j, whatever the literals", (place) => {
		const witness = new Witness();
		for (const first of ALL) {
			witness.see(place.replaceAll("?", () => first));
			let other = 0;
			for (let i = 0; i < 6; i++) {
				const another = () => {
					other += 7 + i;
					return ALL[other % ALL.length]!;
				};
				witness.see(place.replaceAll("?", another));
			}
			witness.see(place.replace("?", () => first).replaceAll("?", "1"));
			witness.see(place.replace("?", "'a'").replaceAll("?", () => first));
		}
	});

	test.each(LISTS)("%j, however many", (place) => {
		const witness = new Witness();
		const kinds = [
			["1"],
			["'a'"],
			["1", "'a'"],
			["1", "2.5"],
			["-1"],
			["(1)"],
			["(1, 'a')", "('b', 2)"],
			["NULL"],
			["a"],
			["1", "-2", "+3"],
		];
		for (const kind of kinds) {
			for (let length = 1; length <= 5; length++) {
				const list = Array.from({ length }, (_, i) => kind[i % kind.length]!);
				for (const comma of [", ", ",", "\n,/* c */ ", " , "])
					witness.see(place.replaceAll("@", () => list.join(comma)));
			}
		}
		if (!place.includes("SELECT 1 ")) expect(witness.shaped).toBeGreaterThan(0);
	});
});

describe("the cache", () => {
	const one = (texts: string[], conforming = true) => {
		const cache = new StatementCache(parser);
		const facts = ask(cache, texts[0]!, conforming);
		for (const sql of texts) expect([sql, ask(cache, sql, conforming) === facts]).toEqual([sql, true]);
	};

	test("has one place for texts that differ in values", () => {
		one(["SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 22", "select A /* x */ from T  where\n b = 3 -- y"]);
		one(["SELECT 'a', $$b$$, E'c', 1.5, B'1'", "SELECT 'it''s', $q$$$q$, E'\\'', 9e9, B''"]);
		one(["SELECT a IN (1, 2)", "SELECT a IN (1,2,3)", "SELECT a IN ('x', 2.5 , -3, +4)"]);
		one(["SELECT ARRAY[1, 2]", "SELECT ARRAY [ 1,2,3,4 ]"]);
		one(["INSERT INTO t VALUES (1, 'a'), (2, NULL)", "INSERT INTO t VALUES (NULL,1.5),('x', 'y') , (3, 4)"]);
		one(["INSERT INTO t VALUES (f(1), a), (f(2), a)", "INSERT INTO t VALUES (f(1), a), (f(2), a), (f(3), a)"]);
		one(["SELECT a IN ((1, 2), (3, 4))", "SELECT a IN ((1, 2), (3, 4), (5, 6))"]);
		one(["SELECT $1, 'a'", "SELECT $1, 'b'"]);
		one(["DELETE FROM t WHERE a = 'x;y'", "DELETE FROM t WHERE a = ''"]);
		one(["SELECT 1;", "SELECT 2 ; ".trim()]);
		one(["SELECT 'a'", "SELECT 'b'"], false);
	});

	const DIFFERENT: [string, string][] = [
		["SELECT 1", "SELECT 1.5"],
		["SELECT 1", "SELECT 2147483648"],
		["SELECT 1", "SELECT '1'"],
		["SELECT 'a'", "SELECT E'a'"],
		["SELECT a", 'SELECT "a"'],
		["SELECT a", "SELECT b"],
		["SELECT $1", "SELECT $2"],
		["SELECT a -1", "SELECT a - -1"],
		["SELECT a- -1", "SELECT a--1\n"],
		["SELECT 1 LIMIT 1", "SELECT 1 LIMIT 1, 2"],
		["SELECT a < = b", "SELECT a <= b"],
		["SELECT ab", "SELECT a b"],
		["SELECT nullif(1, 2)", "SELECT nullif(1, 2, 3)"],
		["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1), (2)"],
		["SELECT 'a'\n'b'", "SELECT 'a' 'b'"],
		["SELECT 'a' -- c\n'b'", "SELECT 'a' /* c */\n'b'"],
		["/* pgdog_role: primary */ SELECT 1", "SELECT 1"],
		["/* pgdog_shard: 1 */ SELECT 1", "/* pgdog_shard: 2 */ SELECT 1"],
		["SELECT 1; /* pgdog_shard: 1 */", "SELECT 1 /* pgdog_shard: 1 */;"],
		["VALUES (1) x, (2)", "VALUES (1), (2)"],
		["VALUES (1), (2) x, (3)", "VALUES (1), (2), (3)"],
		["SELECT a IN ((1) + 2, (3))", "SELECT a IN ((1), (3))"],
		["SELECT a IN (1)", "SELECT a IN (1, 2)"],
		["SELECT É", "SELECT é"],
	];
	test.each(DIFFERENT)("keeps %j and %j apart", (a, b) => {
		const [one, other] = [shapeOf(a), shapeOf(b)];
		expect(one).not.toBeNull();
		expect(other).not.toBe(one);
	});

	test.each([
		"",
		"  -- nothing",
		";SELECT 1",
		"BEGIN",
		"SET a = 1",
		"EXPLAIN SELECT 1",
		"COPY t TO STDOUT",
		"SELECTED 1",
		"'SELECT' 1",
		"E'SELECT' 1",
		"SELECT 1; SELECT 2",
		"SELECT 'never ends",
		'SELECT "never ends',
		"SELECT $$never ends",
		"SELECT $a$ never ends $b$",
		"SELECT /* never /* ends */",
		"SELECT E'never ends\\'",
		"SELECT \u0001",
		"SELECT 'a\0'",
		'SELECT "a\0"',
		"SELECT $$\0$$",
		"SELECT 1 -- \0",
		"SELECT /*\0*/ 1",
		"SELECT U&'a'",
		'SELECT U&"a"',
		"SELECT 0x1F",
		"SELECT 1_000",
		"SELECT 123abc",
		"SELECT 1..2",
		"SELECT a..2",
		"SELECT E'\\x41'",
		"SELECT E'\\101'",
		"SELECT E'\\u0061'",
		"SELECT E'a'\n'b\\'c'",
		"SELECT B'1''0'",
		"SELECT 1::float(1)",
	])("leaves %j to the parser", (sql) => {
		expect(shapeOf(sql)).toBeNull();
		const cache = new StatementCache(parser);
		expect(decisive(ask(cache, sql))).toEqual(parsed(sql));
		expect(ask(cache, sql)).toBe(ask(cache, sql));
	});

	test("takes no text for a shape", () => {
		const cache = new StatementCache(parser);
		const facts = ask(cache, "SELECT 1");
		expect(facts.reads).toBe(true);
		const key = shapeOf("SELECT 1")!;
		expect(cache.facts(key)).toMatchObject({ reads: false, parsed: Parsed.SyntaxError });
		expect(cache.facts(`\0\0SELECT 1`).reads).toBe(false);
		expect(ask(cache, "SELECT 2")).toBe(facts);
	});

	test("keeps what is too long or too deep for the parser under its text", () => {
		const cache = new StatementCache(parser);
		const list = (length: number) => `SELECT a IN (${Array(length).fill("1").join(",")})`;
		expect(ask(cache, list(150_000)).parsed).toBe(Parsed.TooLarge);
		expect(ask(cache, list(2)).reads).toBe(true);
		const deep = (inner: string) => `SELECT ${"(SELECT ".repeat(3300)}${inner}${")".repeat(3300)}`;
		expect(ask(cache, deep("1")).parsed).toBe(Parsed.TooDeep);
		expect(ask(cache, deep("2")).writes).toBe(true);
	});

	test("other functions write: shapes are forgotten too", () => {
		const cache = new StatementCache(parser);
		expect(ask(cache, "SELECT touch(1)").reads).toBe(true);
		cache.setWriteFunctions(["touch"]);
		expect(ask(cache, "SELECT touch(2)").reads).toBe(false);
	});

	test("never throws, whatever the bytes", () => {
		const cache = new StatementCache(parser);
		fc.assert(
			fc.property(fc.uint8Array({ maxLength: 40 }), fc.boolean(), (noise, conforming) => {
				const bytes = Buffer.concat([Buffer.from("SELECT '"), noise, Buffer.from("' , 1")]);
				const reading = conforming ? Reading.Standard : Reading.Escapes;
				for (let end = 0; end <= bytes.length; end++) cache.factsOfQuery(bytes, 0, end, reading);
			}),
			{ numRuns: 60 },
		);
		const large = Buffer.alloc(2 ** 20, "SELECT '''a''', ");
		expect(cache.factsOfQuery(large, 0, large.length, Reading.Standard).writes).toBe(true);
		expect(cache.factsOfQuery(large, 0, large.length, Reading.Escapes).writes).toBe(true);
	});

	test("a half character hides the end of no string", () => {
		const cache = new StatementCache(parser);
		for (const half of [[0xe9], [0xf0, 0x9f], [0xc3], [0xff, 0xfe]]) {
			const bytes = Buffer.concat([Buffer.from("SELECT '"), Buffer.from(half), Buffer.from("', nextval('s')")]);
			expect(cache.factsOfQuery(bytes, 0, bytes.length, Reading.Standard).writes).toBe(true);
		}
		// In Shift JIS 0x83 0x5c is one character, and the string ends behind it.
		const sjis = Buffer.from("SELECT E'\x83\x5c'; DELETE FROM t; --'", "latin1");
		expect(cache.factsOfQuery(sjis, 0, sjis.length, Reading.Standard).writes).toBe(true);
		expect(shapeOf(Buffer.from("SELECT E'\x83\x5c'", "latin1"))).toBeNull();
		const plain = Buffer.from("SELECT '\x83\x5c'; DELETE FROM t; --'", "latin1");
		expect(cache.factsOfQuery(plain, 0, plain.length, Reading.Escapes).writes).toBe(true);
	});
});

describe("a session with standard_conforming_strings = off", () => {
	test.each(["SELECT U&'a'", "SELECT 'a\\'", 'SELECT U&"a"'])("%j writes, as far as is known", (sql) => {
		const facts = ask(new StatementCache(parser), sql, false);
		expect(facts).toMatchObject({ parsed: Parsed.Unclear, writes: true, reads: false });
	});

	test("reads as one what is two statements elsewhere, and the other way round", () => {
		const cache = new StatementCache(parser);
		const hides = "SELECT '\\'; DELETE FROM t; --'";
		expect(ask(cache, hides, true)).toMatchObject({ statements: 2, writes: true });
		expect(ask(cache, hides, false)).toMatchObject({ statements: 1, writes: false, reads: true });
		expect(ask(cache, hides, true).writes).toBe(true);
		const shows = "SELECT '\\', '; DELETE FROM t; --'";
		expect(ask(cache, shows, true)).toMatchObject({ statements: 1, writes: false });
		expect(ask(cache, shows, false)).toMatchObject({ statements: 2, writes: true });
		expect(ask(cache, shows, true).writes).toBe(false);
	});

	test("asks by the comments that are comments to it", () => {
		const cache = new StatementCache(parser);
		const sql = "SELECT '\\' /* pgdog_shard: 1 */ '";
		expect(ask(cache, sql, false).hints).toBeNull();
		expect(ask(cache, `/* pgdog_shard: 1 */ SELECT '\\''`, false).hints?.shard).toBe(1);
		expect(ask(cache, `/* pgdog_shard: 1 */ SELECT '\\'' U&'a'`, false).hints?.shard).toBe(1);
	});
});

const pick = (...values: string[]) => fc.constantFrom(...values);

/** A literal, and another of the same kind. */
const content = fc.string({
	unit: fc.constantFrom("a", "1", "''", " ", "\n", "\\", "é", "😀", "$", ";", '"', "/*", "*/", "--", "$$"),
});
const sameKind = fc.oneof(
	...(["integer", "number", "string", "escaped", "bits", "hex", "national", "dollars"] as const).map((kind) =>
		fc.tuple(pick(...LITERALS[kind]), pick(...LITERALS[kind])),
	),
	fc.tuple(fc.nat(), fc.nat()).map(([a, b]) => [String(a), String(b)] as [string, string]),
	fc.tuple(content, content).map(([a, b]) => [`'${a}'`, `'${b}'`] as [string, string]),
	fc
		.tuple(content, content)
		.map(([a, b]) => [`E'${a.replaceAll("\\", "\\\\")}'`, `E'${b.replaceAll("\\", "\\t")}'`] as [string, string]),
	fc.tuple(content, content).map(([a, b]) => [`$x$${a}$x$`, `$$${b.replaceAll("$", "")}$$`] as [string, string]),
);
const blank = pick(
	"",
	"",
	" ",
	" ",
	"\n",
	"\t ",
	"/**/",
	"/* ' */",
	'-- "\n',
	"/* /* $$ */ */",
	" -- '\n ",
	"/* pgdog_shard: 1 */",
	"\r\n",
	"\v",
);

type Pair = readonly [string, string];
const both = (text: string): Pair => [text, text];
const joined = (pairs: readonly Pair[]): Pair => [pairs.map(([a]) => a).join(""), pairs.map(([, b]) => b).join("")];

/** Statements in pairs that differ in literals and in how many there are of them. */
const { statement } = fc.letrec<{ expression: Pair; select: Pair; statement: Pair; gap: Pair }>((tie) => {
	// Different blanks in the two: `both` of one where a string may go on in the next line.
	const gap = fc.oneof(
		{ weight: 3, arbitrary: fc.constant(both(" ")) },
		{ weight: 1, arbitrary: blank.map((b) => both(` ${b} `)) },
	);
	const literal = sameKind.map(([a, b]): Pair => [a, b]);
	const list = (item: fc.Arbitrary<Pair>, open: string, close: string) =>
		fc
			.tuple(fc.array(item, { minLength: 1, maxLength: 4 }), fc.nat(3), blank)
			.map(
				([items, more, b]): Pair => [
					`${open}${items.map(([a]) => a).join(`${b},`)}${close}`,
					`${open}${[...items, ...Array(more).fill(items[0])].map(([, a]) => a).join(", ")}${close}`,
				],
			);
	const expression = tie("expression");
	const template = (parts: TemplateStringsArray, ...slots: fc.Arbitrary<Pair>[]) =>
		fc
			.tuple(gap, ...slots)
			.map(([space, ...filled]) =>
				joined(
					parts.flatMap((part, i) => [both(part.replaceAll(" ", () => space[0])), ...(filled[i] ? [filled[i]] : [])]),
				),
			);
	return {
		gap,
		expression: fc.oneof(
			{ maxDepth: 3, depthIdentifier: "sql" },
			literal,
			pick("a", "t.b", '"C""d"', "$1", "NULL", "true", "DEFAULT", "É").map(both),
			template`a IN ${list(literal, "(", ")")}`,
			template`ARRAY${list(literal, "[", "]")}`,
			template`${expression} = ${expression}`,
			template`${expression}${pick("+", "-", "||", "@>", "<>-", "::text ", "- ", "/", "*").map(both)}${expression}`,
			template`(${expression})`,
			template`${pick("nextval", "f", "coalesce", "nullif", "pg_catalog.setval", "float", "char", "s.lower").map(both)}(${expression}, ${expression})`,
			template`CASE WHEN ${expression} THEN ${expression} END`,
			template`interval ${literal}`,
			template`1::${pick("float", "numeric", "char", "bit").map(both)}(${literal})`,
			template`(${tie("select")})`,
			template`a IN (${tie("select")})`,
			template`a IN (${list(template`(${literal}, ${expression})`, "", "")})`,
			template`(${literal}, ${literal}) OVERLAPS ${list(literal, "(", ")")}`,
		),
		select: fc.oneof(
			template`SELECT ${expression}`,
			template`SELECT ${expression}, ${expression} FROM t WHERE ${expression}`,
			template`SELECT * FROM t LIMIT ${literal}`,
			template`SELECT * FROM t LIMIT ${literal} OFFSET ${literal} FOR UPDATE`,
			template`VALUES ${list(template`(${expression}, ${literal})`, "", "")}`,
			template`WITH x AS (DELETE FROM t WHERE a = ${literal} RETURNING *) SELECT ${expression}`,
		),
		statement: fc.oneof(
			tie("select"),
			template`INSERT INTO t VALUES ${list(template`(${expression}, ${literal})`, "", "")} RETURNING ${literal}`,
			template`UPDATE t SET a = ${expression} WHERE b = ${literal}`,
			template`DELETE FROM t WHERE a = ${expression};`,
			template`MERGE INTO t USING u ON a = ${literal} WHEN NOT MATCHED THEN INSERT VALUES ${list(template`(${literal})`, "", "")}`,
			template`(${tie("select")})`,
			template`/* pgdog_role: primary */ ${tie("select")} /* c */`,
			template`${tie("select")}; ${tie("select")}`,
			template`EXPLAIN ANALYZE ${tie("select")}`,
			template`SELECT ${expression} ${literal} ${literal}`,
		),
	};
});

describe("by thousands", () => {
	test("statements that differ in literals have the facts of the whole text", () => {
		let shared = 0;
		const witness = new Witness();
		fc.assert(
			fc.property(statement, fc.boolean(), ([a, b], conforming) => {
				const cache = new StatementCache(parser);
				const facts = ask(cache, a);
				expect([a, decisive(facts)]).toEqual([a, parsed(a)]);
				const others = ask(cache, b);
				expect([b, decisive(others)]).toEqual([b, parsed(b)]);
				if (others === facts && a !== b) shared++;
				witness.see(a);
				witness.see(b);
				if (!conforming) ask(cache, a, false);
			}),
			{ numRuns: 4000 },
		);
		expect(shared).toBeGreaterThan(1000);
		expect(witness.shared).toBeGreaterThan(1000);
	}, 60_000);

	test("nor do pieces thrown together make two of one", () => {
		const piece = fc.oneof(
			{ weight: 3, arbitrary: pick(...ALL) },
			{
				weight: 3,
				arbitrary: pick(
					"a",
					"(",
					")",
					",",
					"-",
					".",
					"$1",
					"IN (",
					"VALUES (",
					"ARRAY[",
					"]",
					"SELECT",
					"E",
					"N",
					"float(",
					"*",
					"/",
				),
			},
			{
				weight: 1,
				arbitrary: pick("'", '"', "$", "$$", "\\", ";", "::", "U&", "UESCAPE", "NULL", "LIMIT", "/*", "*/", "é"),
			},
			{ weight: 3, arbitrary: blank },
		);
		const witness = new Witness();
		const swap = (text: string) => {
			const from = Object.values(LITERALS).find((kind) => kind.includes(text));
			return from === undefined ? text : from[(from.indexOf(text) + 1) % from.length]!;
		};
		fc.assert(
			fc.property(fc.array(piece, { maxLength: 7 }), fc.nat(7), (pieces, at) => {
				const sql = `SELECT ${pieces.join("")}`;
				witness.see(sql);
				witness.see(`SELECT ${pieces.map(swap).join("")}`);
				witness.see(`SELECT ${[...pieces.slice(0, at), " ", ...pieces.slice(at)].join("")}`);
				witness.see(`SELECT ${[...pieces.slice(0, at), ",", ...pieces.slice(Math.max(0, at - 1))].join("")}`);
			}),
			{ numRuns: 6000 },
		);
		expect(witness.shared).toBeGreaterThan(1000);
	}, 60_000);

	test("what one session writes without and another with escapes has the same facts", () => {
		const cache = new StatementCache(parser);
		const escaped = fc.string({ unit: fc.constantFrom("a", "\\\\", "\\'", "''", "\\n", ";", "--", "/*", "é", " ") });
		const item = fc.oneof(
			{ weight: 3, arbitrary: escaped.map((s) => [`'${s}'`, `E'${s}'`]) },
			escaped.map((s) => [`E'${s}'`, `E'${s}'`]),
			escaped.map((s) => [`$$${s}$$`, `$$${s}$$`]),
			escaped.map((s) => [`"${s.replaceAll('"', "")}x"`, `"${s.replaceAll('"', "")}x"`]),
			pick("1", "a", "nextval('s')", "N'a'", "B'1'", "/* ' */ 2", "(SELECT 1 FOR UPDATE)").map((s) => [s, s]),
			pick("a; DELETE FROM t; SELECT 1", "1; SELECT 2").map((s) => [s, s]),
		);
		fc.assert(
			fc.property(fc.array(item, { minLength: 1, maxLength: 6 }), (items) => {
				const old = `SELECT ${items.map(([text]) => text).join(", ")}`;
				const now = `SELECT ${items.map(([, text]) => text).join(", ")}`;
				expect([old, decisive(ask(cache, old, false))]).toEqual([old, parsed(now)]);
			}),
			{ numRuns: 2000 },
		);
	}, 60_000);
});
