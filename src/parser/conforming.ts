// A text of a session that has `standard_conforming_strings = off`, written as one of a session that has it on, which is what
// our parser reads: there `'\\'; DELETE FROM t; --'` may be a string and two statements here. `cache.ts` asks.

import { Backslash, Lexer, Token } from "./lexer.ts";

/** The text with E before each '…'; null when it cannot be said for certain what it means. */
export function conformingText(sql: string): string | null {
	const lexer = new Lexer(sql, Backslash.Escapes);
	let text = "";
	let copied = 0;
	for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
		// The next line of a string is read like its first.
		if (token !== Token.String || lexer.continues) continue;
		const { start } = lexer;
		const begin = sql[start];
		// A blank before the E, since a word may end there.
		if (begin === "'") {
			text += `${sql.slice(copied, start)} E`;
			copied = start;
		} else if (begin === "n" || begin === "N") {
			text += `${sql.slice(copied, start)} nchar E`;
			copied = start + 1;
		}
	}
	return lexer.doubt ? null : text + sql.slice(copied);
}
