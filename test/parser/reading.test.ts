// How sessions read statements: which texts are certain under which settings, and that nothing is shown that could be another statement.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { certainText, changesReading, dependsOnReading, Reading, readingOf } from "../../src/parser/reading.ts";

const told = (conforming: string, client = "UTF8", server = "UTF8") =>
	readingOf(
		new Map([
			["standard_conforming_strings", conforming],
			["client_encoding", client],
			["server_encoding", server],
		]),
	);

function certain(text: string | Uint8Array, reading: number): boolean {
	const bytes = Buffer.concat([Buffer.from("Q"), Buffer.from(text as string), Buffer.from([0])]);
	return certainText(bytes, 1, bytes.length - 1, reading) !== null;
}

test("what a server reports says how it reads", () => {
	expect(told("on")).toBe(Reading.Standard);
	expect(told("on", "UNICODE")).toBe(Reading.Standard);
	expect(told("off")).toBe(Reading.Escapes);
	expect(told("on", "SQL_ASCII")).toBe(Reading.Standard);
	expect(told("on", "SQL_ASCII", "SQL_ASCII")).toBe(Reading.Foreign | Reading.Folds);
	expect(told("on", "SJIS")).toBe(Reading.Foreign);
	expect(told("off", "LATIN1", "LATIN1")).toBe(Reading.Escapes | Reading.Foreign | Reading.Folds);
	expect(readingOf(new Map())).toBe(Reading.Changing | Reading.Foreign | Reading.Folds);
});

const EVERY = [0, 1, 2, 4, 8, 16, 2 | 8, 1 | 2 | 4 | 8 | 16];

test("ASCII without a backslash is certain, whatever the settings", () => {
	const plain = fc.string({ unit: fc.constantFrom(..."SELECT '\"$;()[]-/*,.=1\n") });
	fc.assert(fc.property(plain, fc.constantFrom(...EVERY), (text, reading) => certain(text, reading)));
});

test.each([
	["'\\'", [0, 1, 2, 4], "a backslash before a quote, unless a SET or anything else is under way"],
	["'a\\b'", [0, 1, 2, 4, 16], "a backslash elsewhere, unless a SET is under way"],
	["'\\\\'", [0, 1, 2, 4, 16], "an escaped backslash before a quote"],
	["'é'", [0, 1, 4, 16], "a character beyond ASCII in a string, unless the encoding is another"],
	["é", [0, 1, 16], "one in a name, unless the server folds it"],
	['"é"', [0, 1, 16], "in quotes too"],
])("%s is certain under %p: %s", (text, readings) => {
	for (const reading of [0, 1, 2, 4, 8, 16])
		expect([reading, certain(text, reading)]).toEqual([reading, readings.includes(reading)]);
});

test("half a character is certain under no settings", () => {
	for (const bytes of [
		[0x27, 0xe9, 0x27],
		[0x27, 0x83, 0x5c, 0x27],
		[0xed, 0xa0, 0x80],
		[0xf5, 0x80, 0x80, 0x80],
	])
		for (const reading of EVERY) expect(certain(Uint8Array.from(bytes), reading)).toBe(false);
	// A client may mean the replacement character itself.
	expect(certain("SELECT '\ufffd'", Reading.Standard)).toBe(true);
});

test.each([
	["SET standard_conforming_strings = off", true],
	["set client_encoding to 'SJIS'", true],
	["SET NAMES 'SJIS'", true],
	["/* c */ SET U&\"client\\005fencoding\" TO 'SJIS'", true],
	["SELECT 1; RESET ALL", true],
	["DISCARD ALL", true],
	["SELECT set_config($1, $2, false)", true],
	["UPDATE pg_settings SET setting = 'off'", true],
	["DO $$ BEGIN END $$", true],
	["SET work_mem = 100", false],
	["SELECT names FROM t", false],
	["INSERT INTO t VALUES ('é')", false],
])("%s may change how what follows is read: %p", (sql, expected) => {
	const bytes = Buffer.from(sql);
	expect(changesReading(bytes, 0, bytes.length)).toBe(expected);
});

test("a text that is certain under all settings does not depend on them", () => {
	fc.assert(
		fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
			const text = Buffer.from(bytes);
			if (!dependsOnReading(text, 0, text.length))
				for (const reading of EVERY) expect(certain(bytes, reading)).toBe(true);
		}),
	);
});
