// The lexer against PostgreSQL's lexical rules (docs, "Lexical Structure"), by table and by texts that are made up.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Backslash, fold, Lexer, Token } from "../../src/parser/lexer.ts";

const NAMES = ["End", "Word", "Quoted", "String", "Number", "Parameter", "Semicolon", "Symbol"];

/** `Word(select) Symbol(*)`, with a `?` behind all when the lexer doubts. */
function tokens(sql: string, backslash = Backslash.Doubt): string {
	const lexer = new Lexer(sql, backslash);
	const found: string[] = [];
	for (let token = lexer.next(); token !== Token.End; token = lexer.next())
		found.push(`${NAMES[token]}(${lexer.text})`);
	return found.join(" ") + (lexer.doubt ? " ?" : "");
}

test.each([
	["", ""],
	[" \t\r\n\f\v", ""],
	["SELECT a_1$, É", "Word(select) Word(a_1$) Symbol(,) Word(É)"],
	['a.B."C""d"', 'Word(a) Symbol(.) Word(b) Symbol(.) Quoted(C"d)'],
	["'it''s' ''", "String(it's) String()"],
	["E'a\\'b' e'\\\\'", "String(null) String(null)"],
	["E'plain'", "String(plain)"],
	["a'b' B'1''0'", "Word(a) String(b) String(1) String(0)"],
	["E'a'\n'b\\'c' 'd'", "String(a) String(null) String(d)"],
	["1$$a;$$ 1.5$2", "Number(1) String(a;) Number(1.5) Parameter($2)"],
	["B'01' x'Ff' N'n'", "String(01) String(Ff) String(n)"],
	["'C:\\'", "String(null) ?"],
	["U&'\\0061'", "String(null) ?"],
	["U&\"\\0061\" U & 'x'", "Quoted(\\0061) Word(u) Symbol(&) String(x) ?"],
	["$$a;b$$ $tag$ $$ '$tag$", "String(a;b) String( $$ ')"],
	["$é$x$é$", "String(x)"],
	["$1 $12+$a", "Parameter($1) Parameter($12) Symbol(+) Symbol($) Word(a)"],
	["$a$ $b$ $a$", "String( $b$ )"],
	["a$b$c", "Word(a$b$c)"],
	["1.5e3 .5 1", "Number(1.5e3) Symbol(.) Number(5) Number(1)"],
	["-- x ' \" ;\nA", "Word(a)"],
	["-- x\rA", "Word(a)"],
	["/* a /* ' */ -- */A", "Word(a)"],
	["/*/*/*/a*/*/*/b", "Word(b)"],
	["a/**/b", "Word(a) Word(b)"],
	["a--b", "Word(a)"],
	["+/**/-", "Symbol(+) Symbol(-)"],
	["; ;", "Semicolon(;) Semicolon(;)"],
	["'open", "String(null) ?"],
	['"open', "Quoted(null) ?"],
	["$$open", "String(null) ?"],
	["/* /* */", " ?"],
	["\u212a", "Word(\u212a)"],
])("%j is %s", (sql, expected) => {
	expect(tokens(sql)).toBe(expected);
});

test.each([
	["'C:\\' N'\\'", "String(C:\\) String(\\)", "String(null) Symbol(\\) String(null) ?"],
	["'it\\'s'", "String(it\\) Word(s) String(null) ?", "String(null)"],
	["'a'\n'\\'' \"\\\" $$\\$$", "String(a) String(null) ?", "String(a) String(null) Quoted(\\) String(\\)"],
	["B'\\' E'\\''", "String(\\) String(null)", "String(\\) String(null)"],
])("where it is known what a backslash means %j is %s, or %s", (sql, plain, escapes) => {
	expect(tokens(sql, Backslash.Plain)).toBe(plain);
	expect(tokens(sql, Backslash.Escapes)).toBe(escapes);
});

test("a string that goes on in the next line is known to", () => {
	const continues = (sql: string) => {
		const lexer = new Lexer(sql);
		lexer.next();
		lexer.next();
		return lexer.continues;
	};
	for (const sql of ["'a'\n'b'", "'a' -- c\r 'b'", "E'a'\n\n -- c\n'b'", "X'a'\n'b'", "N'a'\n'b'"])
		expect([sql, continues(sql)]).toEqual([sql, true]);
	const others = ["'a' 'b'", "'a' /* \n */ 'b'", "'a'\nE'b'", "'a'\n$$b$$", "$$a$$\n'b'", "a\n'b'", "'a'\n/* c */'b'"];
	for (const sql of others) expect([sql, continues(sql)]).toEqual([sql, false]);
});

test("names fold as in PostgreSQL: A to Z and nothing else", () => {
	expect(fold("App.Tenant\u212a\u0130É")).toBe("app.tenant\u212a\u0130É");
});

test("any text comes to an end without an exception, and tokens go forward", () => {
	const piece = fc.constantFrom(
		"'",
		'"',
		"$",
		"$$",
		"$a$",
		"/*",
		"*/",
		"--",
		"\n",
		"\\",
		";",
		"E'",
		"U&'",
		'u&"',
		"a",
		"1",
		".",
		" ",
	);
	const text = fc.oneof(
		fc.string({ unit: "binary" }),
		fc.array(piece).map((pieces) => pieces.join("")),
	);
	fc.assert(
		fc.property(text, (sql) => {
			const lexer = new Lexer(sql);
			let last = 0;
			for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
				expect(lexer.start).toBeGreaterThanOrEqual(last);
				expect(lexer.end).toBeGreaterThan(lexer.start);
				last = lexer.end;
			}
			expect(lexer.end).toBeLessThanOrEqual(Math.max(sql.length, lexer.start));
		}),
		{ numRuns: 500 },
	);
});

/** A token as it may be written, and as it must be read. */
const written = fc.oneof(
	fc.constantFrom("a", "tenant_1", "x$y", "é").map((word) => ({ sql: word, read: `Word(${word})` })),
	fc
		.string()
		.map((s) => s.replace(/[\\\0]/g, ""))
		.map((s) => ({ sql: `'${s.replaceAll("'", "''")}'`, read: `String(${s})` })),
	fc
		.string()
		.map((s) => s.replace(/\0/g, ""))
		.map((s) => ({ sql: `"${s.replaceAll('"', '""')}"`, read: `Quoted(${s})` })),
	fc
		.string()
		.map((s) => s.replaceAll("$", ""))
		.map((s) => ({ sql: `$q$${s}$q$`, read: `String(${s})` })),
	fc.constantFrom(",", "(", ")", "=", ".").map((symbol) => ({ sql: symbol, read: `Symbol(${symbol})` })),
	fc.constant({ sql: ";", read: "Semicolon(;)" }),
);
const blank = fc.constantFrom(" ", "\n", "/* ; ' */", '-- "\n', "/*/**/*/\t");

test("what was written is what is read, whatever blanks and comments stand between", () => {
	fc.assert(
		fc.property(fc.array(fc.tuple(written, blank)), (pieces) => {
			const sql = pieces.map(([token, space]) => token.sql + space).join("");
			expect(tokens(sql)).toBe(pieces.map(([token]) => token.read).join(" "));
		}),
		{ numRuns: 500 },
	);
});
