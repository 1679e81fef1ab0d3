// The shape of a statement: its text without its literals, comments and superfluous blanks, so that statements that differ in
// values only have one place in the cache (`StatementCache.factsOfQuery`). Read off the bytes of a message, byte by byte, with
// no string made before the shape is whole. PostgreSQL's scan.l is followed to the letter (docs, "Lexical Structure"): two texts
// of one shape are the same to its grammar. What cannot be told for certain, and what is rare, has no shape.

import { CHARACTER, Character, FOLD, same } from "./characters.ts";
import { Lists } from "./lists.ts";
import type { Literals } from "./literals.ts";
import { Mark } from "./marks.ts";
import { changesReading } from "./reading.ts";
import {
	endOfBits,
	endOfDigits,
	endOfDollars,
	endOfEscaped,
	endOfLine,
	endOfNumber,
	endOfQuoted,
} from "./token-ends.ts";

/** A byte that needs no blank beside it. */
const TIGHT = new Uint8Array(256);
for (const character of "()[],;") TIGHT[character.charCodeAt(0)] = 1;
TIGHT[Mark.Shape] = 1;
TIGHT[Mark.More] = 1;

const bytes = (text: string) => Buffer.from(text, "latin1");
const PGDOG = bytes("pgdog_");

/** Words that begin a statement with literals worth lifting, by their first byte. */
const FIRST_WORDS: Uint8Array[] = [];
for (const word of ["select", "insert", "update", "delete", "with", "values", "merge"])
	FIRST_WORDS[word.charCodeAt(0)] = bytes(word);

/** Bits: what lies between two tokens. */
const enum Gap {
	Blanks = 0,
	Newline = 1,
	BlockComment = 2,
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
	private readonly lists: Lists;
	private readonly literals: Literals | null;
	/** Where in the text the last string ended, one that a string in the next line goes on with; -1: there was none. */
	private stringEnd = -1;
	/** It is E'', B'' or X'': the next line would be read in its way. */
	private isPrefixed = false;

	/** @param literals which are to be known of each text */
	constructor(literals: Literals | null = null) {
		this.literals = literals;
		this.lists = new Lists(literals);
	}

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
	 * The text is read as with `standard_conforming_strings = on`. Each turn writes a token, and what is between it and the next.
	 * A call costs as much as a few bytes: what most tokens are is done here.
	 * @returns whether it has a shape
	 */
	read(b: Uint8Array, start: number, end: number): boolean {
		this.clear(b, end - start);
		const { out, lists } = this;
		let at = CHARACTER[b[start]!] === Character.Letter ? start : this.gap(b, start, end);
		if (!isBeginning(b, at, end)) return false;
		let n = this.length;
		let kind: Character = CHARACTER[b[at]!]!;
		while (at < end && kind !== Character.Semicolon) {
			switch (kind) {
				case Character.Letter: {
					const from = n;
					for (let part = FOLD[b[at]!]!; part !== 0; part = at < end ? FOLD[b[at]!]! : 0) {
						out[n++] = part;
						at++;
					}
					if (n - from === 1 && at < end && (b[at] === 39 || b[at] === 38)) at = this.prefix(b, at, end, from);
					break;
				}
				case Character.Plain:
					out[n++] = b[at++]!;
					break;
				case Character.Comma:
					n = lists.inGroup ? lists.element(out, n, at) : n;
					out[n++] = b[at++]!;
					break;
				case Character.Dot:
					// `1..2` is PL/pgSQL's.
					if (b[at - 1] === 46) return false;
					out[n++] = b[at++]!;
					break;
				case Character.Digit:
					if (b[at - 1] === 46) {
						// `.5`: the dot is part of it.
						at--;
						n--;
					}
					at = this.number(b, at, end, n++);
					break;
				case Character.Quote:
					at = this.string(b, at, end, n++);
					break;
				case Character.DoubleQuote: {
					const stop = copyQuoted(b, at, end, out, n);
					n += stop - at;
					at = stop;
					break;
				}
				case Character.Open:
					n = lists.open(out, n);
					at = n < 0 ? -1 : at + 1;
					break;
				case Character.Close:
					n = lists.close(out, n, at);
					at++;
					break;
				default:
					this.length = n;
					at = this.other(b, at, end, kind);
					n = this.length;
			}
			if (at < 0) return false;
			const from = at;
			while (at < end && CHARACTER[b[at]!] === Character.Blank) at++;
			if (at >= end) break;
			kind = CHARACTER[b[at]!]!;
			if (kind >= Character.Semicolon || (at > from && from === this.stringEnd)) {
				this.length = n;
				at = this.gap(b, from, end);
				if (at < 0) return false;
				n = this.length;
				kind = CHARACTER[b[at]!]!;
			} else if (at > from && TIGHT[b[at]!] === 0 && TIGHT[out[n - 1]!] === 0) out[n++] = 32;
		}
		this.length = n;
		return this.finish(b, at, end);
	}

	/** A shape is never longer than its text and the first mark; up to three NULs come behind it. */
	private clear(b: Uint8Array, textLength: number): void {
		this.literals?.clear(b);
		if (textLength + 4 > this.out.length) {
			this.out = Buffer.from(new ArrayBuffer((Math.max(textLength + 4, 2 * this.out.length) + 3) & ~3));
			this.words = new Int32Array(this.out.buffer);
		}
		this.out[0] = Mark.Shape;
		this.length = 1;
		this.stringEnd = -1;
		this.lists.clear();
	}

	/** Behind the statement come semicolons only. */
	private finish(b: Uint8Array, at: number, end: number): boolean {
		const { out } = this;
		while (at < end) {
			if (b[at] !== 59) return false;
			out[this.length++] = 59;
			at = this.gap(b, at + 1, end);
		}
		const { length } = this;
		out[length] = 0;
		out[length + 1] = 0;
		out[length + 2] = 0;
		return true;
	}

	// The methods below give the place behind what they read; -1 when the text has no shape. Some write one byte, at `n`, and the
	// others what there is to write, behind `length`.

	private number(b: Uint8Array, at: number, end: number, n: number): number {
		const start = at;
		let value = 0;
		for (; at < end && CHARACTER[b[at]!] === Character.Digit; at++)
			if (value <= INT4_MAX) value = 10 * value + b[at]! - 48;
		const next: Character = at < end ? CHARACTER[b[at]!]! : Character.Blank;
		const isInteger = next !== Character.Dot && next !== Character.Letter;
		const kind = isInteger && value <= INT4_MAX ? Mark.Integer : Mark.Number;
		this.out[n] = kind;
		const stop = isInteger ? at : endOfNumber(b, at, end);
		if (this.literals !== null) this.literals.add(kind, n, start, stop);
		return stop;
	}

	private string(b: Uint8Array, at: number, end: number, n: number): number {
		// A quote directly behind E'…', B'…' or X'…': what that is, is not as it seems.
		if (at === this.stringEnd && this.isPrefixed) return -1;
		this.out[n] = Mark.String;
		this.isPrefixed = false;
		this.stringEnd = endOfQuoted(b, at + 1, end, 39);
		if (this.literals !== null) this.literals.add(Mark.String, n, at, this.stringEnd);
		return this.stringEnd;
	}

	/** Behind a word of one letter, which stands at `n`: it may be the prefix of a string. */
	private prefix(b: Uint8Array, at: number, end: number, n: number): number {
		const letter = this.out[n]!;
		if (b[at] === 39) {
			if (letter === 101) return this.prefixed(Mark.Escaped, at - 1, endOfEscaped(b, at + 1, end), n);
			if (letter === 98) return this.prefixed(Mark.Bits, at - 1, endOfBits(b, at + 1, end), n);
			if (letter === 120) return this.prefixed(Mark.Hex, at - 1, endOfBits(b, at + 1, end), n);
		} else if (letter === 117 && b[at] === 38 && at + 1 < end) {
			// U&'…' and U&"…": UESCAPE behind it may say how it is to be read.
			if (b[at + 1] === 39 || b[at + 1] === 34) return -1;
		}
		return at;
	}

	private prefixed(mark: Mark, start: number, stop: number, n: number): number {
		this.out[n] = mark;
		if (this.literals !== null) this.literals.add(mark, n, start, stop);
		this.isPrefixed = true;
		this.stringEnd = stop;
		return stop;
	}

	/** A token of any other kind. */
	private other(b: Uint8Array, at: number, end: number, kind: Character): number {
		const { out, lists } = this;
		switch (kind) {
			case Character.Dollar:
				return this.dollar(b, at, end);
			case Character.OpenBracket:
				this.length = lists.openBracket(out, this.length);
				return at + 1;
			case Character.CloseBracket:
				this.length = lists.closeBracket(out, this.length);
				return at + 1;
			case Character.Control:
				return -1;
			default:
				return this.verbatim(b, at, at + 1);
		}
	}

	/** A parameter, which stays as it is with what may follow it directly; or a string. */
	private dollar(b: Uint8Array, at: number, end: number): number {
		const digits = endOfDigits(b, at + 1, end);
		if (digits > at + 1) return this.verbatim(b, at, digits);
		const stop = endOfDollars(b, at, end);
		if (this.literals !== null) this.literals.add(Mark.Dollars, this.length, at, stop);
		this.out[this.length++] = Mark.Dollars;
		return stop;
	}

	/** `b[at, stop)` as it is. */
	private verbatim(b: Uint8Array, at: number, stop: number): number {
		const { out } = this;
		let n = this.length;
		while (at < stop) out[n++] = b[at++]!;
		this.length = n;
		return stop;
	}

	/** What lies before a token, comments too: one blank where one is needed, and hints. */
	private gap(b: Uint8Array, at: number, end: number): number {
		const from = at;
		let gap: number = Gap.Blanks;
		while (at >= 0 && at < end) {
			const c = b[at]!;
			const next = at + 1 < end ? b[at + 1] : 0;
			if (CHARACTER[c] === Character.Blank) {
				if (c === 10 || c === 13) gap |= Gap.Newline;
				at++;
			} else if (c === 45 && next === 45) at = endOfLine(b, at + 2, end);
			else if (c === 47 && next === 42) {
				gap |= Gap.BlockComment;
				at = this.comment(b, at, end);
			} else break;
		}
		const isBetween = at > from && at < end && TIGHT[b[at]!] === 0 && TIGHT[this.out[this.length - 1]!] === 0;
		return isBetween ? this.separate(b, at, gap === Gap.Newline && from === this.stringEnd) : at;
	}

	/** @param isNextLine the token at `at` is in the line behind that of a string */
	private separate(b: Uint8Array, at: number, isNextLine: boolean): number {
		if (isNextLine && this.isPrefixed && b[at] === 39) return -1;
		this.out[this.length++] = isNextLine ? 10 : 32;
		return at;
	}

	/** A block comment; they nest. Nothing of it stays, unless it may hold hints (hints.ts). */
	private comment(b: Uint8Array, start: number, end: number): number {
		let depth = 0;
		let hint = false;
		for (let at = start; at + 1 < end; at++) {
			const c = b[at]!;
			if (c === 47 && b[at + 1] === 42) {
				at++;
				depth++;
			} else if (c === 42 && b[at + 1] === 47) {
				at++;
				if (--depth === 0) return hint ? this.hint(b, start, at + 1) : at + 1;
			} else if (c === 112 && at + PGDOG.length <= end && same(b, at, PGDOG)) hint = true;
			else if (c === 0) return -1;
		}
		return -1;
	}

	private hint(b: Uint8Array, at: number, stop: number): number {
		const { out, length } = this;
		if (TIGHT[out[length - 1]!] === 0) out[this.length++] = 32;
		this.verbatim(b, at, stop);
		this.lists.hint(length, this.length);
		return stop;
	}
}

/** A statement that may have a shape begins at `at`. */
function isBeginning(b: Uint8Array, at: number, end: number): boolean {
	if (at < 0 || at >= end) return false;
	if (b[at] === 40) return true;
	const word = FIRST_WORDS[FOLD[b[at]!]!];
	if (word === undefined) return false;
	const stop = at + word.length;
	if (stop > end || (stop < end && FOLD[b[stop]!] !== 0)) return false;
	for (let i = 0; i < word.length; i++) if (FOLD[b[at + i]!] !== word[i]) return false;
	return true;
}

/** Writes "…" as it is. @returns the place behind it; -1 when it does not end */
function copyQuoted(b: Uint8Array, at: number, end: number, out: Uint8Array, n: number): number {
	out[n++] = 34;
	while (++at < end) {
		const c = b[at]!;
		if (c === 0) return -1;
		out[n++] = c;
		if (c !== 34) continue;
		if (at + 1 >= end || b[at + 1] !== 34) return at + 1;
		out[n++] = b[++at]!;
	}
	return -1;
}
