// Statements as SHOW ROUTES shows them: in one line, and without a value that someone typed.

import { expect, test } from "bun:test";
import { maskedText } from "../../src/parser/readable.ts";

test.each([
	["SELECT a,b FROM t\n WHERE  c = 'x' -- c\n LIMIT 5;", "SELECT a,b FROM t WHERE c = ? LIMIT ?;"],
	["/* a */ SELECT 1 /* b */", "SELECT ?"],
	["SELECT a IN (1, 2 ,3), $1", "SELECT a IN (?, …), $1"],
	["VALUES (1, a, 2, 3), ('b', $$c$$)", "VALUES (?, a, ?, …), (?, …)"],
	["SELECT 1.5e3, E'a\\'b'", "SELECT ?, …"],
	["ALTER ROLE a PASSWORD 'secret'", "ALTER ROLE a PASSWORD ?"],
	["SELECT 'never ends: secret", "SELECT ?"],
	["", ""],
])("%j is shown as %j", (sql, expected) => {
	expect(maskedText(sql)).toBe(expected);
});

test("a long text is cut", () => {
	expect(maskedText(`SELECT ${"a, ".repeat(1000)}a`)).toEndWith("…");
	expect(maskedText(`SELECT ${"a, ".repeat(1000)}a`)).toHaveLength(1000);
	expect(maskedText(`SELECT ${"1, ".repeat(1000)}1`)).toBe("SELECT ?, …");
	expect(maskedText("x".repeat(2 ** 20))).toHaveLength(1000);
});
