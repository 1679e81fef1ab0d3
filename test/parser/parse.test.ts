// The SQL parser under what clients can send: deep, long and broken texts, none of which may harm the next one.

import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Parsed, type SqlError, SqlParser } from "../../src/parser/parse.ts";

const WASM = join(import.meta.dir, "../../node_modules/@supabase/pg-parser/wasm/17/pg-parser.wasm");

const sum = (terms: number) => `SELECT ${Array(terms).fill("a").join("+")}`;
const nested = (depth: number) => `SELECT ${"(SELECT ".repeat(depth)}1${")".repeat(depth)}`;
const parentheses = (depth: number) => `SELECT ${"(".repeat(depth)}1${")".repeat(depth)}`;

/** Small texts that make the engine compile the parser, whose frames are then smaller. */
function warmed(): SqlParser {
	const parser = new SqlParser({ maxLength: 2 ** 21 });
	for (let i = 1; i <= 20; i++) {
		parser.parse(sum(i * 150));
		parser.parse(nested(i * 35));
	}
	return parser;
}

function isWell(parser: SqlParser): boolean {
	return parser.parse(sum(72)).outcome === Parsed.Tree && parser.parse("SELEC").outcome === Parsed.SyntaxError;
}

test("a tree is what PostgreSQL's grammar says", () => {
	const tree = new SqlParser().parse("SELECT 'é' FROM only_a; ; -- nothing\nDELETE FROM b");
	if (tree.outcome !== Parsed.Tree) throw new Error(tree.message);
	expect(tree.statements.map((statement) => Object.keys(statement))).toEqual([["SelectStmt"], ["DeleteStmt"]]);
	expect(JSON.stringify(tree.statements[0])).toContain('"sval":"é"');
});

test.each(["", " ", ";", ";;", "-- c", "/* c */ ; "])("%j has no statements", (sql) => {
	expect(new SqlParser().parse(sql)).toEqual({ outcome: Parsed.Tree, statements: [] });
});

test("a parser that never parses costs nothing", () => {
	const parser = new SqlParser();
	expect(parser.instances).toBe(0);
	expect(parser.heapBytes).toBe(0);
	expect(parser.parse("x".repeat(300_000)).outcome).toBe(Parsed.TooLarge);
	expect(parser.instances).toBe(0);
});

test.each([
	["SELEC 1", 'syntax error at or near "SELEC"', 1],
	["SELECT 'é', 'abc", 'unterminated quoted string at or near "\'abc"', 13],
	["SELECT (", "syntax error at end of input", 9],
	["SELECT U&'\\D800'", "invalid Unicode surrogate pair", 16],
	["SELECT E'\\xff'", 'invalid byte sequence for encoding "UTF8": 0xff', 0],
	["SELECT 1\0", 'invalid byte sequence for encoding "UTF8": 0x00', 0],
	["\0", 'invalid byte sequence for encoding "UTF8": 0x00', 0],
])("%j is refused in PostgreSQL's words, by the instance that goes on", (sql, message, position) => {
	const parser = new SqlParser();
	parser.parse("SELECT 1");
	expect(parser.parse(sql)).toEqual({ outcome: Parsed.SyntaxError, message, position });
	expect(isWell(parser)).toBe(true);
	expect(parser.instances).toBe(1);
});

test("what is deep is parsed, or told apart from a syntax error", () => {
	const parser = warmed();
	expect(parser.parse(sum(72)).outcome).toBe(Parsed.Tree);
	expect(parser.parse(sum(5000)).outcome).toBe(Parsed.Tree);
	expect(parser.parse(nested(1600)).outcome).toBe(Parsed.Tree);
	expect(parser.parse(`SELECT 1 FROM a${" JOIN a USING (b)".repeat(100)}`).outcome).toBe(Parsed.Tree);
	expect(parser.parse(`SELECT 1${" UNION ALL SELECT 1".repeat(200)}`).outcome).toBe(Parsed.Tree);
	expect(parser.parse(`SELECT '${"x".repeat(1_000_000)}'`).outcome).toBe(Parsed.Tree);
	// PostgreSQL itself says "memory exhausted" to these.
	expect(parser.parse(parentheses(10_000)).outcome).toBe(Parsed.SyntaxError);
	expect(parser.parse(nested(10_000)).outcome).toBe(Parsed.SyntaxError);
	expect(isWell(parser)).toBe(true);
});

// libpg_query takes a comment for a token where PostgreSQL's lexer looks ahead; a proxy that believed its syntax error would
// send a statement past the plugins, or to one shard of many.
test.each([
	"SELECT a NOT /* c */ IN (1)",
	"SELECT a NOT -- c\nLIKE 'x'",
	"SELECT a FROM t ORDER BY 1 NULLS /* /* c */ */ FIRST",
	"SELECT * FROM f() WITH /* ' */ ORDINALITY",
	"SELECT 'a' -- c\n'b'",
	"SELECT 'a'\n-- é😀\r\n'b'",
])("%j is parsed as PostgreSQL does", (sql) => {
	expect(new SqlParser().parse(sql).outcome).toBe(Parsed.Tree);
});

test("a syntax error beside comments stays one, where it is", () => {
	const { outcome, message, position } = new SqlParser().parse("/* é😀 */ SELEC -- c\n") as SqlError;
	expect({ outcome, message, position }).toEqual({
		outcome: Parsed.SyntaxError,
		message: 'syntax error at or near "SELEC"',
		position: 10,
	});
});

test("where comments cannot be told from strings for certain, a refusal is no proof", () => {
	expect(new SqlParser().parse("SELECT U&'a' NOT /* c */ IN ('b')").outcome).toBe(Parsed.Unclear);
	// Backslashes are no reason: the parser reads them as they stand.
	expect(new SqlParser().parse("SELECT '\\' NOT /* c */ IN ('\\')").outcome).toBe(Parsed.Tree);
	expect(new SqlParser().parse("SELEC '\\'").outcome).toBe(Parsed.SyntaxError);
});

test("a text that overflows the stack costs that instance and nothing more", () => {
	const parser = new SqlParser();
	for (const deep of [nested(3300), sum(100_000), sum(20_000), `SELECT a${"::int".repeat(40_000)}`]) {
		const before = parser.instances;
		expect(parser.parse(deep).outcome).toBe(Parsed.TooDeep);
		expect(isWell(parser)).toBe(true);
		expect(parser.instances - before).toBeLessThanOrEqual(2);
	}
});

test("in a cold parser any depth is a tree or too deep, and the next text is well", () => {
	for (const deep of [sum(5000), nested(1600), nested(24)]) {
		const parser = new SqlParser();
		expect([Parsed.Tree, Parsed.TooDeep]).toContain(parser.parse(deep).outcome);
		expect(isWell(parser)).toBe(true);
	}
});

test("texts over the limit are not looked at", () => {
	const parser = new SqlParser({ maxLength: 100 });
	expect(parser.parse(`SELECT ${"1".repeat(93)}`).outcome).toBe(Parsed.Tree);
	expect(parser.parse(`SELECT ${"1".repeat(94)}`).outcome).toBe(Parsed.TooLarge);
});

test("text that is no Unicode is parsed with a replacement", () => {
	const tree = new SqlParser().parse("SELECT '\ud800'");
	expect(JSON.stringify(tree)).toContain('"sval":"\ufffd"');
	// What a decoder makes of bytes that are no UTF-8.
	expect(new SqlParser().parse(Buffer.from("53454c45435420273fff27", "hex").toString()).outcome).toBe(Parsed.Tree);
});

test("any text has an outcome and leaves the parser well", () => {
	const parser = new SqlParser();
	const piece = fc.constantFrom(
		"SELECT",
		"(",
		")",
		"'",
		'"',
		"$$",
		"/*",
		"*/",
		"--",
		"\n",
		";",
		"a",
		",",
		"WITH",
		"\0",
		"E'\\",
		"é😀",
	);
	const text = fc.oneof(
		fc.string({ unit: "binary" }),
		fc.array(piece).map((pieces) => pieces.join(" ")),
	);
	fc.assert(
		fc.property(text, (sql) => {
			expect([Parsed.Tree, Parsed.SyntaxError, Parsed.Unclear]).toContain(parser.parse(sql).outcome);
		}),
		{ numRuns: 2000 },
	);
	expect(isWell(parser)).toBe(true);
	expect(parser.instances).toBe(1);
});

test("20,000 texts, a tenth of them wrong, leave memory as it was", () => {
	const parser = new SqlParser();
	const parse = (from: number, count: number) => {
		for (let i = from; i < from + count; i++) {
			parser.parse(i % 10 === 0 ? `SELECT ${i} FROM WHERE` : `SELECT * FROM users WHERE id = ${i} AND name = $1`);
		}
		Bun.gc(true);
	};
	parse(0, 2000);
	const heap = parser.heapBytes;
	const rss = process.memoryUsage.rss();
	parse(2000, 20_000);
	expect(parser.heapBytes).toBe(heap);
	expect(parser.instances).toBe(1);
	expect(process.memoryUsage.rss() - rss).toBeLessThan(60e6);
});

test("an instance that a large text has swollen is let go", () => {
	const parser = new SqlParser();
	const sql = `SELECT * FROM t WHERE a IN (${Array(30_000).fill("123456").join(",")})`;
	for (let i = 0; i < 3; i++) {
		expect(parser.parse(sql).outcome).toBe(Parsed.Tree);
		expect(parser.heapBytes).toBeLessThan(100e6);
	}
	expect(isWell(parser)).toBe(true);
});

test("a compiled executable parses, in its threads too, without node_modules", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-parser-test-"));
	try {
		const main = join(folder, "main.ts");
		const source = join(import.meta.dir, "../../src/parser");
		writeFileSync(
			main,
			`import { SqlParser } from ${JSON.stringify(join(source, "parse.ts"))};
			import file from ${JSON.stringify(WASM)} with { type: "file" };
			import { StatementCache } from ${JSON.stringify(join(source, "cache.ts"))};
			const parser = new SqlParser();
			const facts = new StatementCache(parser);
			const deep = parser.parse("SELECT " + "(SELECT ".repeat(3300) + "1" + ")".repeat(3300)).outcome;
			// Not a path of the machine that built it.
			if (!file.startsWith("/$bunfs/")) console.log("the module is not embedded:", file);
			console.log(Bun.isMainThread, deep, facts.facts("SELECT 1").reads, facts.facts("SELECT nextval('a')").reads);
			if (Bun.isMainThread) new Worker(import.meta.url).addEventListener("close", () => process.exit());`,
		);
		const executable = join(folder, "parser");
		await Bun.build({ entrypoints: [main], target: "bun", minify: true, compile: { outfile: executable } });
		rmSync(main);
		const { stdout, stderr, exitCode } = Bun.spawnSync([executable], { cwd: folder, stderr: "pipe" });
		expect(stderr.toString()).toBe("");
		expect(stdout.toString()).toBe(`true ${Parsed.TooDeep} true false\nfalse ${Parsed.TooDeep} true false\n`);
		expect(exitCode).toBe(0);
	} finally {
		rmSync(folder, { recursive: true, force: true });
	}
}, 60_000);
