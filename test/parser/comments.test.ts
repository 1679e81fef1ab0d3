// Comments become blanks, and nothing else changes.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { withoutComments } from "../../src/parser/comments.ts";
import { Lexer, Token } from "../../src/parser/lexer.ts";

test.each([
	["", ""],
	["SELECT 1", "SELECT 1"],
	["a/**/b", "a    b"],
	["a /* x /* y */ -- */ b", "a                    b"],
	["a -- x\nb", "a     \nb"],
	["a -- /* x\r\nb */", "a        \r\nb */"],
	["/* \n */a", "       a"],
	["a/*é😀*/b", "a      b"],
	["a /*/ b */ c", "a          c"],
	["'--' \"/*\" $$ -- $$ /* x */", "'--' \"/*\" $$ -- $$        "],
	["a - - b / * c", "a - - b / * c"],
	["a-/* x */-b", "a-       -b"],
	// A string goes on in the next line, but not behind a block comment.
	["'a' -- x\n'b'", "'a'     \n'b'"],
	["'a' /* x */\n'b'", "'a'         'b'"],
])("%j becomes %j", (sql, expected) => {
	expect(withoutComments(sql)).toBe(expected.replace("/*é😀*/", ""));
});

test.each(["'\\' /* c */", "/* open", "'open -- c", "U&'a' -- c"])("%j is not certain", (sql) => {
	expect(withoutComments(sql)).toBeNull();
});

function tokens(sql: string): string {
	const lexer = new Lexer(sql);
	const found: string[] = [];
	for (let token = lexer.next(); token !== Token.End; token = lexer.next()) found.push(`${token} ${lexer.text}`);
	return found.join("\n");
}

test("tokens stay, their number of characters too, and no comment is left", () => {
	const piece = fc.constantFrom("a", "'x'", "--", "/*", "*/", "\n", "-", "/", "*", " ", "é😀", "$$", '"', ";", "1");
	fc.assert(
		fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
			const sql = pieces.join("");
			const plain = withoutComments(sql);
			if (plain === null) return;
			expect([...plain].length).toBe([...sql].length);
			expect(tokens(plain)).toBe(tokens(sql));
			expect(withoutComments(plain)).toBe(plain);
		}),
		{ numRuns: 3000 },
	);
});
