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
	/** `;`, also within parentheses: the caller tells those apart. */
	Semicolon,
	/** Any other single character, in `text`. */
	Symbol,
}

/** What a backslash in '…' means: `standard_conforming_strings` of the session decides. */
export const enum Backslash {
	/** The setting is not known. */
	Doubt,
	/** Itself: the setting is on. */
	Plain,
	/** The beginning of an escape: it is off. */
	Escapes,
}

/** Lower case as PostgreSQL folds names: ASCII only, so that two names that differ to it differ to us. */
export function fold(name: string): string {
	return name.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** Forms of '…', by how they are read and what ends them. */
const enum Quotes {
	None,
	/** '…' as with the setting on: two quotes are one that is meant. */
	Plain,
	/** E'…': as Plain, and backslashes escape. */
	Escapes,
	/** B'' and X'': the first quote ends them. */
	Bits,
}

const isSpace = (c: number) => c === 32 || (c >= 9 && c <= 13);
const isDigit = (c: number) => c >= 48 && c <= 57;
const isWordStart = (c: number) => (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || c === 95 || c >= 128;
const isWordPart = (c: number) => isWordStart(c) || isDigit(c) || c === 36;

export class Lexer {
	private readonly sql: string;
	private readonly backslash: Backslash;
	private at = 0;
	/** A line break, and a block comment, between the last token and this one. */
	private newline = false;
	private block = false;
	/** The form of the last token, when that was a string in quotes: one in the next line goes on with it. */
	private last = Quotes.None;
	/** Content of the token, see `Token`. */
	text: string | null = "";
	/** Where the token begins and ends, as indexes of the string. */
	start = 0;
	end = 0;
	/** The token is a string that goes on with the one before it. */
	continues = false;
	/** True once something was read whose meaning depends on a setting, or that never ends. */
	doubt = false;

	constructor(sql: string, backslash: Backslash = Backslash.Doubt) {
		this.sql = sql;
		this.backslash = backslash;
	}

	next(): Token {
		this.skipBlank();
		const { sql, last } = this;
		this.start = this.at;
		this.last = Quotes.None;
		// `'a' -- c` and `'b'` in the next line are one constant (docs, "String Constants").
		this.continues = last !== Quotes.None && this.newline && !this.block && sql.charCodeAt(this.at) === 39;
		if (this.at >= sql.length) {
			this.end = this.at;
			this.text = "";
			return Token.End;
		}
		const token = this.continues ? this.quoted(last) : this.read(sql.charCodeAt(this.at));
		this.end = this.at;
		return token;
	}

	private read(c: number): Token {
		const { sql } = this;
		const next = sql.charCodeAt(this.at + 1);
		if (isWordStart(c)) {
			const quotes = next === 39 ? this.prefix(c) : Quotes.None;
			if (quotes !== Quotes.None) {
				this.at++;
				return this.quoted(quotes);
			}
			if ((c === 85 || c === 117) && next === 38) {
				const quote = sql.charCodeAt(this.at + 2);
				if (quote === 39 || quote === 34) {
					// U&'' and U&"": the escape character may be changed by UESCAPE, so the content stays unread. It escapes no quote.
					this.doubt = true;
					this.at += 2;
					return quote === 39 ? this.quoted(Quotes.Plain) : this.quotedIdentifier();
				}
			}
			return this.word();
		}
		if (c === 39) return this.quoted(this.plain);
		if (c === 34) return this.quotedIdentifier();
		if (c === 36) return this.dollar();
		if (isDigit(c)) {
			// Behind a number a dollar begins something else: `1$$a$$`.
			for (let d = c; (isWordPart(d) && d !== 36) || d === 46; d = sql.charCodeAt(this.at)) this.at++;
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

	private get plain(): Quotes {
		return this.backslash === Backslash.Escapes ? Quotes.Escapes : Quotes.Plain;
	}

	/** The form of string that the letter before a quote makes: E'' B'' X'' N''. */
	private prefix(letter: number): Quotes {
		switch (letter | 32) {
			case 101:
				return Quotes.Escapes;
			case 98:
			case 120:
				return Quotes.Bits;
			case 110:
				return this.plain;
			default:
				return Quotes.None;
		}
	}

	private quoted(quotes: Quotes): Token {
		const { sql } = this;
		const from = ++this.at;
		const escapes = quotes === Quotes.Escapes;
		let readable = true;
		this.last = quotes;
		for (; this.at < sql.length; this.at++) {
			const c = sql.charCodeAt(this.at);
			if (c === 92) {
				if (escapes) this.at++;
				else if (this.backslash === Backslash.Doubt) this.doubt = true;
				if (escapes || this.doubt) readable = false;
			} else if (c === 39) {
				if (quotes === Quotes.Bits || sql.charCodeAt(this.at + 1) !== 39) {
					this.text = readable ? sql.slice(from, this.at).replaceAll("''", "'") : null;
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
		this.newline = false;
		this.block = false;
		for (;;) {
			const c = sql.charCodeAt(this.at);
			if (isSpace(c)) {
				if (c === 10 || c === 13) this.newline = true;
				this.at++;
			} else if (c === 45 && sql.charCodeAt(this.at + 1) === 45) {
				while (this.at < sql.length && sql.charCodeAt(this.at) !== 10 && sql.charCodeAt(this.at) !== 13) this.at++;
			} else if (c === 47 && sql.charCodeAt(this.at + 1) === 42) this.comment();
			else return;
		}
	}

	/** Block comments nest. */
	private comment(): void {
		const { sql } = this;
		let depth = 1;
		this.block = true;
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
