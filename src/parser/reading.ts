// How a session reads the bytes of a statement: what a backslash in '…' means, and which characters the bytes are. Both are
// settings that a client may change (standard_conforming_strings, client_encoding), and a text that is read in another way may be
// another statement: `'\'', v FROM t --'` is one string here and a query there. Whoever shows a text to somebody who must see what
// PostgreSQL runs (plugins) asks here first. Asked by session/ and client/ for each text; knows bytes and settings, no client.

import { isUtf8 } from "node:buffer";
import { Backslash, Lexer, Token } from "./lexer.ts";
import { touchesSession } from "./touches.ts";

/** Bits: each makes a text other than usual to read, or uncertain; `Standard` is none of them. */
export const enum Reading {
	/** As nearly every session does: a backslash in '…' is itself, and all is UTF-8. */
	Standard = 0,
	/** A backslash in '…' begins an escape: `standard_conforming_strings = off`. */
	Escapes = 1,
	/** Bytes from 128 on are no UTF-8, and what follows one may be half a character, a backslash too. */
	Foreign = 2,
	/** The server stores another encoding than UTF-8, and folds names in it as we cannot. */
	Folds = 4,
	/** A statement that may change the settings is under way: what they are when this text is read is not known. */
	Changing = 8,
	/** Some statement is under way, which nobody expects to change them; a function could. */
	Running = 16,
}

/** How a session reads. @param told the parameters that the session's server has reported (PostgreSQL docs, ParameterStatus) */
export function readingOf(told: ReadonlyMap<string, string>): Reading {
	let reading = Reading.Standard;
	const conforming = told.get("standard_conforming_strings");
	if (conforming === "off") reading |= Reading.Escapes;
	else if (conforming !== "on") reading |= Reading.Changing;
	const client = told.get("client_encoding");
	const server = told.get("server_encoding");
	// SQL_ASCII: nothing is converted. UNICODE is another spelling of UTF8, which a driver may send and is then reported.
	const isUtf8 = client === "UTF8" || client === "UNICODE" || (client === "SQL_ASCII" && server === "UTF8");
	if (!isUtf8) reading |= Reading.Foreign;
	if (server !== "UTF8") reading |= Reading.Folds;
	return reading;
}

/**
 * The text in `b[start, end)` as the session reads it, but for the escapes in its strings; null when that is not certain. Of most
 * texts it is, whatever the settings: without backslashes and with ASCII alone there is nothing to read in two ways.
 */
export function certainText(b: Buffer, start: number, end: number, reading: Reading): string | null {
	const text = b.utf8Slice(start, end);
	if (reading === Reading.Standard) return text.includes("\ufffd") && !isUtf8(b.subarray(start, end)) ? null : text;
	if (text.includes("\\")) {
		if ((reading & Reading.Changing) !== 0) return null;
		// Only a quote behind a backslash makes it another statement.
		if ((reading & Reading.Running) !== 0 && ESCAPED_QUOTE.test(text)) return null;
	}
	if (!isAscii(b, start, end)) {
		if ((reading & (Reading.Foreign | Reading.Changing)) !== 0 || !isUtf8(b.subarray(start, end))) return null;
		if ((reading & Reading.Folds) !== 0 && hasForeignName(text, reading)) return null;
	}
	return text;
}

/** A quote behind an odd number of backslashes. */
const ESCAPED_QUOTE = /(?<!\\)(?:\\\\)*\\'/;

function isAscii(b: Buffer, start: number, end: number): boolean {
	for (let at = start; at < end; at++) if (b[at]! >= 128) return false;
	return true;
}

/** A character beyond ASCII stands outside of strings and comments. */
function hasForeignName(text: string, reading: Reading): boolean {
	const lexer = new Lexer(text, (reading & Reading.Escapes) === 0 ? Backslash.Plain : Backslash.Escapes);
	for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
		if (token === Token.String) continue;
		for (let at = lexer.start; at < lexer.end; at++) if (text.charCodeAt(at) >= 128) return true;
	}
	return lexer.doubt;
}

/** Sessions may read the text in `b[start, end)` in different ways. */
export function dependsOnReading(b: Buffer, start: number, end: number): boolean {
	for (let at = start; at < end; at++) if (b[at]! >= 128 || b[at] === 92) return true;
	return false;
}

/** The statement in `b[start, end)` may change how its session reads. What functions do that it calls cannot be seen. */
export function changesReading(b: Buffer, start: number, end: number): boolean {
	return touchesSession(b, start, end) && SETTERS.test(b.latin1Slice(start, end));
}

/** SET NAMES is SET client_encoding; a name in U&"…" may be any. */
const SETTERS =
	/standard_conforming_strings|client_encoding|\bnames\b|set_config|pg_settings|\breset\b|\bdiscard\b|\bdo\b|U&/i;
