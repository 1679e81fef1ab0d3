// PostgreSQL's lexical rules (scan.l; docs, "Lexical Structure") as far as the proxy needs them: where words, strings,
// comments and statements begin and end. It does not know the grammar. When a text may be read in two ways (a
// backslash before a quote depends on standard_conforming_strings) it says so in `doubt` instead of guessing.

export const enum Token {
	End,
	/** A bare identifier or key word; `text` is folded to lower case. */
	Word,
	/** A double-quoted identifier; `text` is its content. */
	Quoted,
	/** A string constant of any form; `text` is its content, or null when escapes were not decoded. */
	String,
	Number,
	/** `$1` */
	Parameter,
	/** `;` outside parentheses is told apart by the reader, not here. */
	Semicolon,
	/** Any other single character, in `text`. */
	Symbol,
}

/** Lower case as PostgreSQL folds names: ASCII only, so that two names that differ to it differ to us. */
export function fold(name: string): string {
	return name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

const isSpace = (c: number) => c === 32 || (c >= 9 && c <= 13);
const isDigit = (c: number) => c >= 48 && c <= 57;
const isWordStart = (c: number) => (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || c === 95 || c >= 128;
const isWordPart = (c: number) => isWordStart(c) || isDigit(c) || c === 36;

export class Lexer {
	private readonly sql: string;
	private at = 0;
	/** Content of the token, see `Token`. */
	text: string | null = "";
	/** Where the token begins and ends, as indexes of the string. */
	start = 0;
	end = 0;
	/** True once something was read whose meaning depends on a setting, or that never ends. */
	doubt = false;

	constructor(sql: string) {
		this.sql = sql;
	}

	next(): Token {
		this.skipBlank();
		const { sql } = this;
		this.start = this.at;
		if (this.at >= sql.length) {
			this.end = this.at;
			this.text = "";
			return Token.End;
		}
		const token = this.read(sql.charCodeAt(this.at));
		this.end = this.at;
		return token;
	}

	private read(c: number): Token {
		const { sql } = this;
		const next = sql.charCodeAt(this.at + 1);
		if (isWordStart(c)) {
			if (next === 39) {
				// E'' B'' X'' N''
				this.at++;
				return this.quotedString(c === 69 || c === 101);
			}
			if ((c === 85 || c === 117) && next === 38) {
				const quote = sql.charCodeAt(this.at + 2);
				if (quote === 39 || quote === 34) {
					// U&'' and U&"": the escape character may be changed by UESCAPE, so the content stays unread.
					this.doubt = true;
					this.at += 2;
					return quote === 39 ? this.quotedString(true) : this.quotedIdentifier();
				}
			}
			return this.word();
		}
		if (c === 39) return this.quotedString(false);
		if (c === 34) return this.quotedIdentifier();
		if (c === 36) return this.dollar();
		if (isDigit(c)) {
			while (isWordPart(sql.charCodeAt(this.at)) || sql.charCodeAt(this.at) === 46) this.at++;
			this.text = sql.slice(this.start, this.at);
			return Token.Number;
		}
		this.at++;
		this.text = sql[this.start]!;
		return c === 59 ? Token.Semicolon : Token.Symbol;
	}

	private word(): Token {
		while (isWordPart(this.sql.charCodeAt(this.at))) this.at++;
		this.text = fold(this.sql.slice(this.start, this.at));
		return Token.Word;
	}

	private quotedIdentifier(): Token {
		const from = ++this.at;
		for (;;) {
			const quote = this.sql.indexOf('"', this.at);
			if (quote < 0) return this.unterminated(Token.Quoted);
			this.at = quote + 1;
			if (this.sql.charCodeAt(this.at) !== 34) break;
			this.at++;
		}
		this.text = this.sql.slice(from, this.at - 1).replaceAll('""', '"');
		return Token.Quoted;
	}

	private quotedString(escapes: boolean): Token {
		const { sql } = this;
		const from = ++this.at;
		let plain = true;
		for (; this.at < sql.length; this.at++) {
			const c = sql.charCodeAt(this.at);
			if (c === 92) {
				plain = false;
				if (escapes) this.at++;
				else this.doubt = true;
			} else if (c === 39) {
				if (sql.charCodeAt(this.at + 1) !== 39) {
					this.text = plain ? sql.slice(from, this.at).replaceAll("''", "'") : null;
					this.at++;
					return Token.String;
				}
				this.at++;
			}
		}
		return this.unterminated(Token.String);
	}

	private dollar(): Token {
		const { sql } = this;
		let i = this.at + 1;
		if (isDigit(sql.charCodeAt(i))) {
			while (isDigit(sql.charCodeAt(i))) i++;
			this.text = sql.slice(this.at, i);
			this.at = i;
			return Token.Parameter;
		}
		while (isWordPart(sql.charCodeAt(i)) && sql.charCodeAt(i) !== 36) i++;
		if (sql.charCodeAt(i) !== 36) {
			this.text = sql[this.at++]!;
			return Token.Symbol;
		}
		const tag = sql.slice(this.at, i + 1);
		const close = sql.indexOf(tag, i + 1);
		if (close < 0) return this.unterminated(Token.String);
		this.text = sql.slice(i + 1, close);
		this.at = close + tag.length;
		return Token.String;
	}

	private unterminated(token: Token): Token {
		this.doubt = true;
		this.text = null;
		this.at = this.sql.length;
		return token;
	}

	private skipBlank(): void {
		const { sql } = this;
		for (;;) {
			const c = sql.charCodeAt(this.at);
			if (isSpace(c)) this.at++;
			else if (c === 45 && sql.charCodeAt(this.at + 1) === 45) {
				while (this.at < sql.length && sql.charCodeAt(this.at) !== 10 && sql.charCodeAt(this.at) !== 13) this.at++;
			} else if (c === 47 && sql.charCodeAt(this.at + 1) === 42) this.comment();
			else return;
		}
	}

	/** Block comments nest. */
	private comment(): void {
		const { sql } = this;
		let depth = 1;
		this.at += 2;
		while (depth > 0) {
			if (this.at >= sql.length) {
				this.doubt = true;
				return;
			}
			const c = sql.charCodeAt(this.at);
			const next = sql.charCodeAt(this.at + 1);
			if (c === 47 && next === 42) depth++;
			else if (c === 42 && next === 47) depth--;
			else {
				this.at++;
				continue;
			}
			this.at += 2;
		}
	}
}
