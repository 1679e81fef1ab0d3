import { expect, test } from "bun:test";
import { preparePassword } from "../../src/auth/saslprep.ts";

const prepared = (password: string | Uint8Array) => Buffer.from(preparePassword(password));

// RFC 4013, "Examples", then what PostgreSQL's own password tests (src/test/authentication/t/002_saslprep.pl) are about.
const mapped: [string, string, string][] = [
	["a soft hyphen goes away", "I\u00adX", "IX"],
	["ASCII stays", "user", "user"],
	["case stays", "USER", "USER"],
	["NFKC maps the feminine ordinal", "\u00aa", "a"],
	["NFKC maps a roman numeral", "\u2168", "IX"],
	["a no-break space becomes a space", "a\u00a0b", "a b"],
	["an ideographic space becomes a space", "\u3000", " "],
	["a leading byte order mark goes away", "\ufeffx", "x"],
	["decomposed letters are composed", "e\u0301", "\u00e9"],
	["a right-to-left password stays", "\u0627\u0031\u0628", "\u0627\u0031\u0628"],
];

test.each(mapped)("%s", (_name, password, expected) => {
	expect(prepared(password).toString()).toBe(expected);
	expect(prepared(Buffer.from(password)).toString()).toBe(expected);
});

const raw: [string, string][] = [
	["a prohibited ASCII control character", "\u0007"],
	["a prohibited non-ASCII control character", "a\u0085"],
	["mixed directions", "\u0627\u0031"],
	["right-to-left beside left-to-right", "\u0627a\u0628"],
	["an unassigned code point", "\u0221\u00ad"],
	["a private use character beside a soft hyphen", "\ue000\u00ad"],
	["nothing that would be left", "\u00ad"],
	["the empty password", ""],
];

test.each(raw)("raw bytes are used for %s", (_name, password) => {
	expect(prepared(password).equals(Buffer.from(password))).toBe(true);
});

test("raw bytes are used for invalid UTF-8", () => {
	for (const bytes of [[0xff], [0x61, 0xc2], [0xed, 0xa0, 0x80], [0xc0, 0xaf], [0xc2, 0xad, 0x80]]) {
		expect(prepared(Uint8Array.from(bytes)).equals(Buffer.from(bytes))).toBe(true);
	}
});

// Took 1.6 s for 64 KB before there was a bound.
test("a long run of combining marks from a client is used raw, one from the configuration is normalized", () => {
	const marks = "\u0301\u0316".repeat(300);
	expect(prepared(Buffer.from(marks)).equals(Buffer.from(marks))).toBe(true);
	expect(prepared(marks).toString()).toBe(marks.normalize("NFKC"));
	expect(prepared(marks).toString()).not.toBe(marks);
});
