// Comments of a text turned into blanks. libpg_query reads a comment as a token of its own, and so refuses what PostgreSQL
// runs, wherever its lexer looks ahead: `NOT /* c */ IN`, `WITH /* c */ ORDINALITY`, a string that goes on in the next line
// after `-- c` (its issue 365). For whoever must know such a text: parse.ts, and the router when plugins' parser refused it.

import { Backslash, Lexer, Token } from "./lexer.ts";

/** Whether there may be a comment: `--` and `/*` stand in strings too. */
export function mayHaveComments(sql: string): boolean {
	return sql.includes("--") || sql.includes("/*");
}

/** The same text, as many characters long, without comments; null when it is not certain where they are. */
export function withoutComments(sql: string, backslash = Backslash.Doubt): string | null {
	const lexer = new Lexer(sql, backslash);
	let result = "";
	let end = 0;
	for (let token = lexer.next(); ; token = lexer.next()) {
		result += blank(sql.slice(end, lexer.start)) + sql.slice(lexer.start, lexer.end);
		end = lexer.end;
		if (token === Token.End) break;
	}
	return lexer.doubt ? null : result;
}

/**
 * The comments between two tokens as blanks. Line breaks stay, since a string may go on behind one; not where there is a block
 * comment, behind which it does not. As many code points as before, since positions of errors count those.
 */
function blank(between: string): string {
	let result = "";
	let depth = 0;
	let line = false;
	let block = false;
	let previous = "";
	for (const character of between) {
		const pair = previous + character;
		previous = character;
		if (line) {
			line = character !== "\n" && character !== "\r";
			result += line ? " " : character;
		} else if (pair === "/*") {
			depth++;
			block = true;
			result = `${result.slice(0, -1)}  `;
			previous = "";
		} else if (pair === "*/" && depth > 0) {
			depth--;
			result += " ";
			previous = "";
		} else if (pair === "--" && depth === 0) {
			line = true;
			result = `${result.slice(0, -1)}  `;
			previous = "";
		} else {
			result += depth > 0 ? " " : character;
		}
	}
	return block ? result.replaceAll(/[\n\r]/g, " ") : result;
}
