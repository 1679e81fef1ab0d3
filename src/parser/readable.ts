// A statement for people to read, in a line and without what it was called with: constants are `?`, comments are gone. For
// SHOW ROUTES. Nothing is decided by it.

import { flat } from "./flat.ts";
import { Backslash, Lexer, Token } from "./lexer.ts";

/** Characters shown of a text. */
const LONGEST = 1000;

/** The text with `?` for each constant; a list of them is shown by its first: `(?, …)`. */
export function maskedText(sql: string, backslash = Backslash.Plain): string {
	const lexer = new Lexer(sql, backslash);
	let text = "";
	let end = 0;
	/** How many constants of a list `text` ends with. */
	let list = Folding.None;
	/** `text` before the comma behind them, and where that comma ends in `sql`; 0: it has not come. */
	let beforeComma = "";
	let commaEnd = 0;
	for (let token = lexer.next(); token !== Token.End && text.length <= LONGEST; token = lexer.next()) {
		const blank = lexer.start > end && end > 0 ? " " : "";
		end = lexer.end;
		const constant = token === Token.String || token === Token.Number;
		if (constant && list !== Folding.None && commaEnd > 0) {
			if (list === Folding.One) text = `${beforeComma}, …`;
			else text = beforeComma;
			list = Folding.Several;
			commaEnd = 0;
			continue;
		}
		if (list !== Folding.None && token === Token.Symbol && lexer.text === "," && commaEnd === 0) {
			beforeComma = text;
			commaEnd = end;
			text += ",";
			continue;
		}
		list = constant ? Folding.One : Folding.None;
		commaEnd = 0;
		text += blank + (constant ? "?" : sql.slice(lexer.start, lexer.end));
	}
	return flat(text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text);
}

const enum Folding {
	None,
	One,
	Several,
}
