// Cuts what was typed at the admin database into statements and words. Follows PostgreSQL docs, "Lexical Structure", as far
// as admin commands and the few queries of drivers go; names may hold dashes and dots, as in PgDog, which cuts at spaces.

export const enum Kind {
	/** A key word or a name, also a dotted one. */
	Word,
	/** "…", without its quotes. */
	Quoted,
	/** '…', without its quotes. */
	Text,
	Number,
	/** $1 */
	Parameter,
	Symbol,
}

export interface Word {
	readonly kind: Kind;
	/** As written, quotes and their doubling undone. */
	readonly text: string;
	/** In lower case when it may be a key word, else empty. */
	readonly key: string;
}

export interface AdminStatement {
	/** Its part of the input, without the semicolon. */
	readonly sql: string;
	/** Never empty. */
	readonly words: readonly Word[];
}

const NAME = /[A-Za-z_\u0080-\uffff](?:[\w$.\u0080-\uffff]|-(?!-))*/y;
const NUMBER = /\d[\w.]*/y;
const PARAMETER = /\$\d+/y;
const SPACE = /[ \t\n\r\f\v]+|--[^\n\r]*/y;

/** The statements of `sql`, empty ones left out; null when a quote or comment has no end. */
export function statements(sql: string): AdminStatement[] | null {
	const found: AdminStatement[] = [];
	let words: Word[] = [];
	let start = 0;
	let at = 0;
	const finish = (end: number) => {
		if (words.length > 0) found.push({ sql: sql.slice(start, end).trim(), words });
		words = [];
		start = end + 1;
	};
	const match = (pattern: RegExp): string | null => {
		pattern.lastIndex = at;
		return pattern.exec(sql)?.[0] ?? null;
	};
	while (at < sql.length) {
		const c = sql[at]!;
		const space = match(SPACE);
		if (space !== null) {
			at += space.length;
			continue;
		}
		if (c === ";") {
			finish(at++);
			continue;
		}
		if (c === "/" && sql[at + 1] === "*") {
			at = endOfComment(sql, at);
			if (at < 0) return null;
			continue;
		}
		if (c === "'" || c === '"') {
			const end = endOfQuote(sql, at, c);
			if (end < 0) return null;
			const inside = sql.slice(at + 1, end - 1).replaceAll(c + c, c);
			words.push({ kind: c === "'" ? Kind.Text : Kind.Quoted, text: inside, key: "" });
			at = end;
			continue;
		}
		const name = match(NAME);
		const number = name === null ? match(NUMBER) : null;
		const parameter = name === null && number === null ? match(PARAMETER) : null;
		const text = name ?? number ?? parameter ?? (sql.startsWith("::", at) ? "::" : c);
		if (name !== null) words.push({ kind: Kind.Word, text, key: text.toLowerCase() });
		else if (number !== null) words.push({ kind: Kind.Number, text, key: "" });
		else words.push({ kind: parameter !== null ? Kind.Parameter : Kind.Symbol, text, key: "" });
		at += text.length;
	}
	finish(sql.length);
	return found;
}

/** @returns the index behind the closing quote, or -1 */
function endOfQuote(sql: string, at: number, quote: string): number {
	for (let end = sql.indexOf(quote, at + 1); end >= 0; end = sql.indexOf(quote, end + 2))
		if (sql[end + 1] !== quote) return end + 1;
	return -1;
}

/** Comments nest. @returns the index behind the comment, or -1 */
function endOfComment(sql: string, at: number): number {
	const mark = /\/\*|\*\//g;
	mark.lastIndex = at;
	let depth = 0;
	for (let found = mark.exec(sql); found !== null; found = mark.exec(sql)) {
		depth += found[0] === "/*" ? 1 : -1;
		if (depth === 0) return mark.lastIndex;
	}
	return -1;
}

/** Parts the words at commas, but not inside parentheses. */
export function items(words: readonly Word[]): Word[][] {
	const list: Word[][] = [[]];
	let depth = 0;
	for (const word of words) {
		if (word.kind === Kind.Symbol && word.text === "(") depth++;
		if (word.kind === Kind.Symbol && word.text === ")") depth--;
		if (depth === 0 && isSymbol(word, ",")) list.push([]);
		else list.at(-1)!.push(word);
	}
	return list;
}

export function isSymbol(word: Word | undefined, text: string): boolean {
	return word !== undefined && word.kind === Kind.Symbol && word.text === text;
}

/** Whether the word can name a database, a user or a column. */
export function isName(word: Word | undefined): word is Word {
	return word !== undefined && word.kind !== Kind.Symbol && word.kind !== Kind.Parameter;
}
