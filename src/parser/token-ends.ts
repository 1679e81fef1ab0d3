// Where tokens end whose beginning was just read, byte by byte: for shape.ts. Each function gives the place behind the token; -1
// when it never ends, or when that is not certain, which is the parser's to say.

import { CHARACTER, Character, FOLD } from "./characters.ts";

export function endOfLine(b: Uint8Array, at: number, end: number): number {
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === 10 || c === 13) return at;
		if (c === 0) return -1;
	}
	return end;
}

/** The end of '…' or "…", by their quote; two of it are one that is meant. */
export function endOfQuoted(b: Uint8Array, at: number, end: number, quote: number): number {
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === quote) {
			if (at + 1 >= end || b[at + 1] !== quote) return at + 1;
			at++;
		} else if (c === 0) return -1;
	}
	return -1;
}

/** The end of B'' and X'', in which two quotes are not one. PostgreSQL's lexer looks at no digit. */
export function endOfBits(b: Uint8Array, at: number, end: number): number {
	for (; at < end; at++) {
		if (b[at] === 39) return at + 1;
		if (b[at] === 0) return -1;
	}
	return -1;
}

/** The end of E''; -1 also with escapes by number, which the lexer checks, or where a backslash may be half a character. */
export function endOfEscaped(b: Uint8Array, at: number, end: number): number {
	let escapes = false;
	let high = false;
	for (; at < end; at++) {
		const c = b[at]!;
		if (c === 92) {
			if (++at >= end || !isPlainEscape(b[at]!)) return -1;
			escapes = true;
		} else if (c === 39) {
			if (at + 1 >= end || b[at + 1] !== 39) return escapes && high ? -1 : at + 1;
			at++;
		} else if (c === 0) return -1;
		else if (c >= 128) high = true;
	}
	return -1;
}

/** A byte behind a backslash that does not begin a number: \101, \x41, \u0061. */
function isPlainEscape(c: number): boolean {
	return c !== 0 && !(c >= 48 && c <= 55) && c !== 120 && (c | 32) !== 117;
}

/** The end of $$…$$, from the first dollar on. Between the tags everything is content. */
export function endOfDollars(b: Uint8Array, at: number, end: number): number {
	let tagEnd = at + 1;
	if (tagEnd < end && CHARACTER[b[tagEnd]!] === Character.Letter)
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

/** Here without a digit a token ends where it begins. */
export function endOfDigits(b: Uint8Array, at: number, end: number): number {
	while (at < end && CHARACTER[b[at]!] === Character.Digit) at++;
	return at;
}

/** The end of a number. 0x1F and 1_000 are some, 1a is none, and `1..2` is what PL/pgSQL reads: of these nothing is certain. */
export function endOfNumber(b: Uint8Array, at: number, end: number): number {
	at = endOfDigits(b, at, end);
	if (at < end && b[at] === 46) {
		at = endOfDigits(b, at + 1, end);
		if (at < end && b[at] === 46 && b[at - 1] === 46) return -1;
	}
	if (at < end && (b[at]! | 32) === 101) at = endOfExponent(b, at, end);
	return at < end && CHARACTER[b[at]!] === Character.Letter ? -1 : at;
}

/** The letter that stands at `at` when there is no exponent: it is no part of the number. */
function endOfExponent(b: Uint8Array, at: number, end: number): number {
	let digits = at + 1;
	if (digits < end && (b[digits] === 43 || b[digits] === 45)) digits++;
	const stop = endOfDigits(b, digits, end);
	return stop > digits ? stop : at;
}
