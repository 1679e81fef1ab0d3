// Which texts have constants that settings of the session decide about (`CONSTANT_SETTINGS` in session.ts). Most have none: a
// status, a name or a pattern is the same whatever the settings. What cannot be read counts as one that has.

import { Lexer, Token } from "./lexer.ts";

/** @param sql of a Parse, each byte a character */
export function dependsOnSettings(sql: string): boolean {
	if (UNUSUAL.test(sql)) return true;
	if (!sql.includes("'") && !sql.includes("$")) return false;
	const lexer = new Lexer(sql);
	for (let token = lexer.next(); token !== Token.End; token = lexer.next())
		if (token === Token.String && (lexer.text === null || READ.test(lexer.text))) return true;
	return lexer.doubt;
}

/** What is not ASCII is read by `client_encoding`; what is compared with NULL, by `transform_null_equals`. */
const UNUSUAL = /[\u0080-\uffff]|=[\s(]*(?:null|--|\/\*)|null[\s)]*(?:=|--|\/\*)/i;

/**
 * Dates, times, intervals and amounts of money have digits, or are one of PostgreSQL's few words for them. Besides: elements of
 * arrays that may be NULL, XML, and what backslashes do.
 */
const READ = /[0-9\\<]|null|now|today|tomorrow|yesterday|epoch|infinity|allballs/i;

/**
 * Whether a constant of the text may be the time of its Parse: `'now'::timestamp` and its like are dates as soon as they are read.
 * @param sql as above
 */
export function dependsOnTime(sql: string): boolean {
	if (!MAYBE_MOMENT.test(sql)) return false;
	const lexer = new Lexer(sql);
	for (let token = lexer.next(); token !== Token.End; token = lexer.next())
		if (token === Token.String && (lexer.text === null || MOMENT.test(lexer.text))) return true;
	return lexer.doubt;
}

const MAYBE_MOMENT = /now|today|tomorrow|yesterday/i;
const MOMENT = /(?<![a-z])(now|today|tomorrow|yesterday)(?![a-z])/i;
