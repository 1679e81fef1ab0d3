// Where tokens end. What they are to PostgreSQL's grammar shape.test.ts holds against its parser.

import { describe, expect, test } from "bun:test";
import {
	endOfBits,
	endOfDollars,
	endOfEscaped,
	endOfLine,
	endOfNumber,
	endOfQuoted,
} from "../../src/parser/token-ends.ts";

type End = (b: Uint8Array, at: number, end: number) => number;

/** What `end` finds behind the first `skip` bytes of a text, followed by what is no part of it; null when nothing is certain. */
function token(end: End, text: string, skip: number): string | null {
	const bytes = Buffer.from(`${text}'$$"`);
	const stop = end(bytes, skip, bytes.length - 4);
	return stop < 0 ? null : bytes.utf8Slice(0, stop);
}

const QUOTED: End = (b, at, end) => endOfQuoted(b, at, end, 39);

describe("a token ends", () => {
	test.each<[string, End, string, number, string]>([
		["a string", QUOTED, "'it''s' 'b'", 1, "'it''s'"],
		["a string at the end", QUOTED, "'a'", 1, "'a'"],
		["a string with a backslash", QUOTED, "'\\' b", 1, "'\\'"],
		["a name", (b, at, end) => endOfQuoted(b, at, end, 34), `"a""'b" c`, 1, `"a""'b"`],
		["bits", endOfBits, "'01''1'", 1, "'01'"],
		["an escaped string", endOfEscaped, "'a\\'b''c\\\\' d", 1, "'a\\'b''c\\\\'"],
		["dollars", endOfDollars, "$$a$b$$ $$", 0, "$$a$b$$"],
		["dollars with a tag", endOfDollars, "$q$a$$b$q$$q$", 0, "$q$a$$b$q$"],
		["a line", endOfLine, "-- a\nb", 0, "-- a"],
		["a last line", endOfLine, "-- a", 0, "-- a"],
		...["1", "1.5", "1.", ".5", "1e3", "1.5E-3", "1.e5"].flatMap((number): [string, End, string, number, string][] => [
			[number, endOfNumber, number, 0, number],
			[`${number} before a sign`, endOfNumber, `${number}+1`, 0, number],
		]),
	])("%s", (_, end, text, skip, expected) => {
		expect(token(end, text, skip)).toBe(expected);
	});

	test.each<[string, End, string, number]>([
		["a string without end", QUOTED, "'it''s", 1],
		["a string with a NUL", QUOTED, "'a\0'", 1],
		["bits without end", endOfBits, "'01", 1],
		["an escaped string without end", endOfEscaped, "'a\\'", 1],
		["escapes by number", endOfEscaped, "'\\101'", 1],
		["escapes by number in hexadecimal", endOfEscaped, "'\\x41'", 1],
		["escapes of a character", endOfEscaped, "'\\U00000061'", 1],
		["a backslash that may be half a character", endOfEscaped, "'é\\n'", 1],
		["dollars with another tag", endOfDollars, "$a$ b $c$", 0],
		["a dollar alone", endOfDollars, "$ a", 0],
		["1a", endOfNumber, "1a", 0],
		["1e", endOfNumber, "1e", 0],
		["1e+", endOfNumber, "1e+", 0],
		["1_000", endOfNumber, "1_000", 0],
		["1..2", endOfNumber, "1..2", 0],
		["a line with a NUL", endOfLine, "-- \0\n", 0],
	])("%s: is the parser's to say", (_, end, text, skip) => {
		expect(token(end, text, skip)).toBeNull();
	});
});
