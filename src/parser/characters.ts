// What a byte may be in SQL, as tables (PostgreSQL docs, "Lexical Structure"; scan.l). For shape.ts and what it reads with.

export const enum Character {
	/** Operators and punctuation without a meaning of their own here. */
	Plain,
	Blank,
	Letter,
	Digit,
	Quote,
	DoubleQuote,
	Dollar,
	/** Control characters, which are no blanks: PostgreSQL refuses them, and they would look like marks. */
	Control,
	Open,
	Close,
	OpenBracket,
	CloseBracket,
	Comma,
	Dot,
	Semicolon,
	/** A comment may begin. */
	Minus,
	Slash,
}

/** The `Character` that each byte is. Letter: it may begin a word. */
export const CHARACTER = new Uint8Array(256);
/** A byte that may be in a word, as names fold; 0 for any other. */
export const FOLD = new Uint8Array(256);

for (let c = 0; c < 256; c++) {
	const upper = c >= 65 && c <= 90;
	const letter = upper || (c >= 97 && c <= 122) || c === 95 || c >= 128;
	const digit = c >= 48 && c <= 57;
	if (letter || digit || c === 36) FOLD[c] = upper ? c | 32 : c;
	if (letter) CHARACTER[c] = Character.Letter;
	else if (digit) CHARACTER[c] = Character.Digit;
	else if (c === 32 || (c >= 9 && c <= 13)) CHARACTER[c] = Character.Blank;
	else if (c < 32) CHARACTER[c] = Character.Control;
}
const PUNCTUATION: [string, Character][] = [
	["'", Character.Quote],
	['"', Character.DoubleQuote],
	["$", Character.Dollar],
	["(", Character.Open],
	[")", Character.Close],
	[",", Character.Comma],
	[";", Character.Semicolon],
	[".", Character.Dot],
	["-", Character.Minus],
	["/", Character.Slash],
	["[", Character.OpenBracket],
	["]", Character.CloseBracket],
];
for (const [character, kind] of PUNCTUATION) CHARACTER[character.charCodeAt(0)] = kind;

/** Whether `b` has these bytes from `at` on. */
export function same(b: Uint8Array, at: number, bytes: Uint8Array): boolean {
	for (let i = 0; i < bytes.length; i++) if (b[at + i] !== bytes[i]) return false;
	return true;
}
