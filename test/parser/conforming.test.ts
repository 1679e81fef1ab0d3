// What a session with `standard_conforming_strings = off` means, in the words of one that has it on. shape.test.ts has the facts.

import { expect, test } from "bun:test";
import { conformingText } from "../../src/parser/conforming.ts";

test.each([
	["SELECT 1", "SELECT 1"],
	["SELECT 'a\\'; DELETE FROM t; --'", "SELECT  E'a\\'; DELETE FROM t; --'"],
	["SELECT a'x\\'y'", "SELECT a E'x\\'y'"],
	["SELECT 'a'\n'b\\'c'", "SELECT  E'a'\n'b\\'c'"],
	["SELECT 'a' -- c\n'b'", "SELECT  E'a' -- c\n'b'"],
	["SELECT 'a' /* c */\n'b'", "SELECT  E'a' /* c */\n E'b'"],
	["SELECT N'a\\'b'", "SELECT  nchar E'a\\'b'"],
	["SELECT E'\\'' , $$\\$$, \"\\\"", "SELECT E'\\'' , $$\\$$, \"\\\""],
	["SELECT B'\\', X'1'", "SELECT B'\\', X'1'"],
])("%j is %j", (sql, expected) => {
	expect(conformingText(sql)).toBe(expected);
});

test.each(["SELECT U&'a'", 'SELECT U&"a"', "SELECT 'a\\'", "SELECT /*", "SELECT $$"])("%j is not understood", (sql) => {
	expect(conformingText(sql)).toBeNull();
});
