// The shape of a statement: its text without its literals, comments and superfluous blanks, so that statements that differ in
// values only have one place in the cache (`StatementCache.factsOfQuery`). Read off the bytes of a message, byte by byte, with
// no string made before the shape is whole. PostgreSQL's scan.l is followed to the letter (docs, "Lexical Structure"): two texts
// of one shape are the same to its grammar. What cannot be told for certain, and what is rare, has no shape.

import { changesReading } from "./reading.ts";

/** What stands for a literal. None of these bytes is in a shape otherwise, but within quotes. */
const enum Mark {
	/** Begins every shape. No text begins so: a NUL ends it. */
	Shape = 0,
	/** Fits into 32 bits: the grammar wants such integers in places. */
	Integer = 1,
	/** Any other number. */
	Number = 2,
	String = 3,
	/** E'…' */
	Escaped = 4,
	Bits = 5,
	Hex = 6,
	/** $$…$$ */
	Dollars = 7,
	/** A literal or NULL where an expression of any kind may stand. */
	Any = 14,
	/** Two or more literals of a list. */
	List = 15,
	/** More groups like the one before. */
	More = 16,
}
const LAST_LITERAL = Mark.Dollars;

const enum Kind {
	/** Operators and punctuation without a meaning of their own here. */
	Plain,
	Blank,
	Word,
	Digit,
	Quote,
	DoubleQuote,
	Dollar,
	/** Control characters, which are no blanks: PostgreSQL refuses them, and they would look like marks. */
	Control,
	Open,
	Close,
	Comma,
	Semicolon,
	Dot,
	Minus,
	Slash,
	OpenBracket,
	CloseBracket,
}

const KIND = new Uint8Array(256);
/** A byte that may begin a word. */
const START = new Uint8Array(256);
/** A byte that may be in a word, as names fold; 0 for any other. */
const FOLD = new Uint8Array(256);
/** A byte that needs no blank beside it. */
const TIGHT = new Uint8Array(256);
for (let c = 0; c < 256; c++) {
	const upper = c >= 65 && c <= 90;
	const letter = upper || (c >= 97 && c <= 122) || c === 95 || c >= 128;
	const digit = c >= 48 && c <= 57;
	START[c] = letter ? 1 : 0;
	if (letter || digit || c === 36) FOLD[c] = upper ? c | 32 : c;
	if (letter) KIND[c] = Kind.Word;
	else if (digit) KIND[c] = Kind.Digit;
	else if (c === 32 || (c >= 9 && c <= 13)) KIND[c] = Kind.Blank;
	else if (c < 32) KIND[c] = Kind.Control;
}
const PUNCTUATION: [string, Kind][] = [
	["'", Kind.Quote],
	['"', Kind.DoubleQuote],
	["$", Kind.Dollar],
	["(", Kind.Open],
	[")", Kind.Close],
	[",", Kind.Comma],
	[";", Kind.Semicolon],
	[".", Kind.Dot],
	["-", Kind.Minus],
	["/", Kind.Slash],
	["[", Kind.OpenBracket],
	["]", Kind.CloseBracket],
];
for (const [character, kind] of PUNCTUATION) KIND[character.charCodeAt(0)] = kind;
for (const character of "()[],;") TIGHT[character.charCodeAt(0)] = 1;
TIGHT[Mark.Shape] = 1;
TIGHT[Mark.More] = 1;

const bytes = (text: string) => Buffer.from(text, "latin1");
const PGDOG = bytes("pgdog_");
const NULL = bytes("null");

/** Words that begin a statement with literals worth lifting. */
const FIRST_WORDS = ["select", "insert", "update", "delete", "with", "values", "merge"].map(bytes);

/** The word just read, where a list or a number behind it is treated in a way of its own. */
const enum Before {
	Nothing,
	In,
	/** The parenthesis behind IN. */
	InList,
	Values,
	Array,
	Float,
}
const IN = bytes("in");
const ARRAY = bytes("array");
const FLOAT = bytes("float");
const VALUES = bytes("values");

/** What lies between two tokens. */
const enum Gap {
	None = 0,
	Blank = 1,
	Newline = 2,
	Comment = 4,
}

/** The last token was a string that one in the next line would go on with. */
const enum Joins {
	No,
	Plain,
	/** E'', B'', X'': the next line would be read in their way. */
	Prefixed,
}

/** Where we are in a list of groups: `VALUES (1, 'a'), (2, 'b')`. */
const enum Groups {
	None,
	In,
	/** Behind a group, where a comma may follow. */
	Behind,
	Comma,
}

const INT4_MAX = 2147483647;
const FIRST_SIZE = 4096;

/** A shape that is kept. */
export interface ShapeCopy {
	/** In bytes. */
	readonly length: number;
	readonly words: Int32Array;
}

/** One per thread; `read` overwrites what it read before. */
export class Shape {
	private out = Buffer.from(new ArrayBuffer(FIRST_SIZE));
	/** The bytes of `out`, four in each. Behind the last of a shape come NULs, to the end of its word. */
	private words = new Int32Array(this.out.buffer);
	private length = 0;
	/** Where the function that read a part of a token stopped; -1: nothing certain can be said. */
	private at = 0;

	/** The shape of the last text that `read` had one for, as a string whose characters are bytes. */
	key(): string {
		return this.out.latin1Slice(0, this.length);
	}

	/** `changesReading` of that shape: as of its text, but for what stands in literals and comments. */
	changes(): boolean {
		return changesReading(this.out, 0, this.length);
	}

	/** Whether texts of that shape may differ in more than blanks, comments and case; perhaps they cannot. */
	hasLiterals(): boolean {
		for (let i = 1; i < this.length; i++) if (this.out[i]! < 32 && this.out[i] !== 10) return true;
		return false;
	}

	/** A hash of that shape; shapes that have the same need not be the same (`equals`). */
	hash(): number {
		const { words } = this;
		const count = (this.length + 3) >> 2;
		let hash = this.length;
		for (let i = 0; i < count; i++) {
			hash = Math.imul(hash ^ words[i]!, 0x9e3779b1);
			hash ^= hash >>> 15;
		}
		return hash;
	}

	/** That shape, to be kept for `equals`. */
	copy(): ShapeCopy {
		return { length: this.length, words: this.words.slice(0, (this.length + 3) >> 2) };
	}

	equals({ length, words }: ShapeCopy): boolean {
		if (length !== this.length) return false;
		const own = this.words;
		for (let i = 0; i < words.length; i++) if (words[i] !== own[i]) return false;
		return true;
	}

	/**
	 * The text is read as with `standard_conforming_strings = on`.
	 * @returns whether it has a shape
	 */
	read(b: Uint8Array, start: number, end: number): boolean {
		// A shape is never longer than its text and the first mark; up to three NULs come behind it.
		if (end - start + 4 > this.out.length) this.grow(end - start + 4);
		const { out } = this;
		let n = 0;
		out[n++] = Mark.Shape;
		let at = start;
		let gap: number = Gap.None;
		let joins = Joins.No;
		let before = Before.Nothing;
		let begun = false;
		let first = false;
		let ended = false;
		/** Where a list of literals would begin in `out`; 0: none. */
		let list = 0;
		let depth = 0;
		let groups = Groups.None;
		/** Depth within a group, and where it and the one before it are in `out`. */
		let groupDepth = 0;
		let group = 0;
		let lastGroup = 0;
		let lastGroupEnd = 0;

		while (at < end) {
			const c = b[at]!;
			const kind: Kind = KIND[c]!;
			if (kind === Kind.Blank) {
				gap |= c === 10 || c === 13 ? Gap.Blank | Gap.Newline : Gap.Blank;
				at++;
				continue;
			}
			if (kind === Kind.Minus && at + 1 < end && b[at + 1] === c) {
				at = endOfLine(b, at + 2, end);
				if (at < 0) return false;
				gap |= Gap.Blank;
				continue;
			}
			const comment = kind === Kind.Slash && at + 1 < end && b[at + 1] === 42;
			if (comment) {
				const from = at;
				const hint = this.comment(b, at, end);
				at = this.at;
				if (at < 0) return false;
				gap |= Gap.Blank | Gap.Comment;
				if (!hint) continue;
				// A hint stays in the shape. Groups on both sides of it are not compared.
				groups = Groups.None;
				if (TIGHT[out[n - 1]!] === 0) out[n++] = 32;
				for (let i = from; i < at; i++) out[n++] = b[i]!;
				continue;
			}
			if (!begun) {
				begun = true;
				first = kind === Kind.Word;
				if (!first && kind !== Kind.Open) return false;
			} else if (ended && kind !== Kind.Semicolon) return false;
			if (gap !== Gap.None) {
				if (TIGHT[c] === 0 && TIGHT[out[n - 1]!] === 0) {
					const continues = joins !== Joins.No && (gap & (Gap.Newline | Gap.Comment)) === Gap.Newline;
					if (continues && joins === Joins.Prefixed && kind === Kind.Quote) return false;
					out[n++] = continues ? 10 : 32;
				}
				gap = Gap.None;
			}
			if (groups >= Groups.Behind && kind !== Kind.Comma && kind !== Kind.Open) groups = Groups.None;
			const word = before;
			before = Before.Nothing;
			const joined = joins;
			joins = Joins.No;

			switch (kind) {
				case Kind.Word: {
					const from = n;
					for (let part = FOLD[c]!; part !== 0; part = at < end ? FOLD[b[at]!]! : 0) {
						out[n++] = part;
						at++;
					}
					const length = n - from;
					if (first && !isFirstWord(out, from, n)) return false;
					first = false;
					if (length === 1) {
						if (at >= end) break;
						const letter = out[from]!;
						if (b[at] === 39) {
							if (letter === 101) {
								at = endOfEscaped(b, at + 1, end);
								n = from;
								out[n++] = Mark.Escaped;
								joins = Joins.Prefixed;
							} else if (letter === 98 || letter === 120) {
								at = endOfBits(b, at + 1, end);
								n = from;
								out[n++] = letter === 98 ? Mark.Bits : Mark.Hex;
								joins = Joins.Prefixed;
							}
							if (at < 0) return false;
						} else if (letter === 117 && b[at] === 38 && at + 1 < end && (b[at + 1] === 39 || b[at + 1] === 34)) {
							// U&'…' and U&"…": UESCAPE behind it may say how it is to be read.
							return false;
						}
					} else if (length === 2) {
						if (same(out, from, IN)) before = Before.In;
					} else if (length === 5) {
						if (same(out, from, ARRAY)) before = Before.Array;
						else if (same(out, from, FLOAT)) before = Before.Float;
					} else if (length === 6) {
						if (same(out, from, VALUES)) before = Before.Values;
					}
					break;
				}
				case Kind.Digit:
				case Kind.Dot: {
					if (kind === Kind.Dot) {
						const next = at + 1 < end ? b[at + 1]! : 0;
						if (next === 46) return false;
						if (KIND[next] !== Kind.Digit) {
							out[n++] = c;
							at++;
							break;
						}
					}
					out[n++] = this.number(b, at, end);
					at = this.at;
					if (at < 0) return false;
					break;
				}
				case Kind.Quote:
					// A quote directly behind E'…', B'…' or X'…': what that is, is not as it seems.
					if (joined === Joins.Prefixed && b[at - 1] === 39) return false;
					at = endOfString(b, at + 1, end);
					if (at < 0) return false;
					out[n++] = Mark.String;
					joins = Joins.Plain;
					break;
				case Kind.DoubleQuote: {
					const stop = endOfQuoted(b, at + 1, end);
					if (stop < 0) return false;
					while (at < stop) out[n++] = b[at++]!;
					break;
				}
				case Kind.Dollar:
					if (at + 1 < end && KIND[b[at + 1]!] === Kind.Digit) {
						// A parameter; what may follow it directly is kept as it is too.
						do out[n++] = b[at++]!;
						while (at < end && KIND[b[at]!] === Kind.Digit);
						break;
					}
					at = endOfDollars(b, at, end);
					if (at < 0) return false;
					out[n++] = Mark.Dollars;
					break;
				case Kind.Open:
					// float(24): the grammar looks at the precision.
					if (word === Before.Float) return false;
					list = word === Before.In ? n + 1 : 0;
					if (groups === Groups.None && (word === Before.Values || word === Before.InList)) {
						groups = Groups.In;
						groupDepth = depth + 1;
						group = n;
						lastGroup = 0;
					} else if (groups === Groups.Comma) {
						groups = Groups.In;
						group = n;
					} else if (groups === Groups.Behind) groups = Groups.None;
					if (word === Before.In) before = Before.InList;
					depth++;
					out[n++] = c;
					at++;
					break;
				case Kind.Close:
				case Kind.CloseBracket:
					if (list > 0) n = foldList(out, list, n);
					list = 0;
					out[n++] = c;
					at++;
					if (kind === Kind.CloseBracket) break;
					if (groups === Groups.In && depth === groupDepth) {
						n = foldElement(out, n - 1);
						out[n++] = c;
						if (lastGroup > 0 && equal(out, lastGroup, lastGroupEnd, group, n)) {
							n = lastGroupEnd;
							out[n++] = Mark.More;
						} else {
							lastGroup = group;
							lastGroupEnd = n;
						}
						groups = Groups.Behind;
					}
					depth--;
					break;
				case Kind.Comma:
					if (groups === Groups.In && depth === groupDepth) n = foldElement(out, n);
					else if (groups >= Groups.Behind) groups = groups === Groups.Behind ? Groups.Comma : Groups.None;
					out[n++] = c;
					at++;
					break;
				case Kind.OpenBracket:
					list = word === Before.Array ? n + 1 : 0;
					out[n++] = c;
					at++;
					break;
				case Kind.Semicolon:
					ended = true;
					out[n++] = c;
					at++;
					break;
				case Kind.Control:
					return false;
				default:
					out[n++] = c;
					at++;
			}
		}
		this.length = n;
		out[n] = 0;
		out[n + 1] = 0;
		out[n + 2] = 0;
		return begun;
	}

	private grow(size: number): void {
		this.out = Buffer.from(new ArrayBuffer((Math.max(size, 2 * this.out.length) + 3) & ~3));
		this.words = new Int32Array(this.out.buffer);
	}

	/** The mark of the number at `at`; `this.at` is behind it. What looks like one and a half is left to the parser (-1). */
	private number(b: Uint8Array, at: number, end: number): Mark {
		let mark = Mark.Integer;
		let value = 0;
		for (; at < end && KIND[b[at]!] === Kind.Digit; at++) if (value <= INT4_MAX) value = 10 * value + b[at]! - 48;
		if (value > INT4_MAX) mark = Mark.Number;
		if (at < end && b[at] === 46) {
			mark = Mark.Number;
			at++;
			while (at < end && KIND[b[at]!] === Kind.Digit) at++;
			// `1..2`
			if (at < end && b[at] === 46 && b[at - 1] === 46) at = end + 1;
		}
		if (at < end && (b[at]! | 32) === 101) {
			let digits = at + 1;
			if (digits < end && (b[digits] === 43 || b[digits] === 45)) digits++;
			if (digits < end && KIND[b[digits]!] === Kind.Digit) {
				mark = Mark.Number;
				at = digits;
				while (at < end && KIND[b[at]!] === Kind.Digit) at++;
			}
		}
		// 0x1F and 1_000 are numbers, 1a is none.
		this.at = at > end || (at < end && START[b[at]!] === 1) ? -1 : at;
		return mark;
	}

	/** The block comment at `at`; they nest. @returns whether it may hold hints (hints.ts) */
	private comment(b: Uint8Array, at: number, end: number): boolean {
		let depth = 1;
		let hint = false;
		for (at += 2; at < end; at++) {
			const c = b[at]!;
			if (c === 0) break;
			const next = at + 1 < end ? b[at + 1] : 0;
			if (c === 42 && next === 47) {
				at++;
				if (--depth === 0) {
					this.at = at + 1;
					return hint;
				}
			} else if (c === 47 && next === 42) {
				at++;
				depth++;
			} else if (c === 112 && at + PGDOG.length <= end && same(b, at, PGDOG)) hint = true;
		}
		this.at = -1;
		return false;
	}
}

function same(b: Uint8Array, at: number, word: Uint8Array): boolean {
	for (let i = 0; i < word.length; i++) if (b[at + i] !== word[i]) return false;
	return true;
}

function equal(b: Uint8Array, from: number, fromEnd: number, to: number, toEnd: number): boolean {
	if (fromEnd - from !== toEnd - to) return false;
	for (let i = from, j = to; i < fromEnd; i++, j++) if (b[i] !== b[j]) return false;
	return true;
}

function isFirstWord(b: Uint8Array, from: number, to: number): boolean {
	for (const word of FIRST_WORDS) if (word.length === to - from && same(b, from, word)) return true;
	return false;
}

function isLiteral(mark: number): boolean {
	return mark > Mark.Shape && mark <= LAST_LITERAL;
}

/**
 * Makes `1, 2, 3` one mark when `out[from, n)` is nothing else: IN (…) and ARRAY […] take any number of expressions of any kind.
 * @returns where the list ends now
 */
function foldList(out: Uint8Array, from: number, n: number): number {
	let count = 0;
	for (let i = from; ; i++) {
		if (out[i] === 45 || out[i] === 43) i++;
		if (i >= n || !isLiteral(out[i]!)) return n;
		count++;
		if (++i === n) break;
		if (out[i] !== 44) return n;
	}
	if (count < 2) return n;
	out[from] = Mark.List;
	return from + 1;
}

/** Makes a literal or NULL that ends at `n` Any, when it is a whole element of a group: the grammar does not ask for its kind. */
function foldElement(out: Uint8Array, n: number): number {
	const single = isLiteral(out[n - 1]!);
	const from = single ? n - 1 : n - NULL.length;
	const before = out[from - 1];
	if ((before !== 40 && before !== 44) || !(single || same(out, from, NULL))) return n;
	out[from] = Mark.Any;
	return from + 1;
}

// The functions below give the place behind the token whose beginning was just read; -1 when it never ends, or is not certain.

function endOfLine(b: Uint8Array, at: number, end: number): number {
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === 10 || c === 13) return at;
		if (c === 0) return -1;
	}
	return end;
}

function endOfString(b: Uint8Array, at: number, end: number): number {
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === 39) {
			if (at + 1 >= end || b[at + 1] !== 39) return at + 1;
			at++;
		} else if (c === 0) return -1;
	}
	return -1;
}

function endOfQuoted(b: Uint8Array, at: number, end: number): number {
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === 34) {
			if (at + 1 >= end || b[at + 1] !== 34) return at + 1;
			at++;
		} else if (c === 0) return -1;
	}
	return -1;
}

/** The end of B'' and X'', in which two quotes are not one. PostgreSQL's lexer looks at no digit. */
function endOfBits(b: Uint8Array, at: number, end: number): number {
	for (; at < end; at++) {
		if (b[at] === 39) return at + 1;
		if (b[at] === 0) return -1;
	}
	return -1;
}

/** The end of E''; -1 also with escapes by number, which the lexer checks, or where a backslash may be half a character. */
function endOfEscaped(b: Uint8Array, at: number, end: number): number {
	let escapes = false;
	let high = false;
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === 92) {
			if (++at >= end) return -1;
			const escaped = b[at]!;
			const numeric = (escaped >= 48 && escaped <= 55) || escaped === 120 || (escaped | 32) === 117;
			if (numeric || escaped === 0) return -1;
			escapes = true;
		} else if (c === 39) {
			if (at + 1 >= end || b[at + 1] !== 39) return escapes && high ? -1 : at + 1;
			at++;
		} else if (c === 0) return -1;
		else if (c >= 128) high = true;
	}
	return -1;
}

/** The end of $$…$$, from the first dollar on. Between the tags everything is content. */
function endOfDollars(b: Uint8Array, at: number, end: number): number {
	let tagEnd = at + 1;
	if (tagEnd < end && START[b[tagEnd]!] === 1)
		while (tagEnd < end && b[tagEnd] !== 36 && FOLD[b[tagEnd]!] !== 0) tagEnd++;
	if (tagEnd >= end || b[tagEnd] !== 36) return -1;
	const length = ++tagEnd - at;
	for (let i = tagEnd; i < end; i++) {
		if (b[i] === 0) return -1;
		if (b[i] !== 36 || i + length > end) continue;
		let matched = 1;
		while (matched < length && b[i + matched] === b[at + matched]) matched++;
		if (matched === length) return i + length;
	}
	return -1;
}
