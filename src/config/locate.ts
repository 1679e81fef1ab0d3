// Finds the line of every key of a TOML text, for error messages: smol-toml gives values, but not where they stand.
// Called by file.ts after smol-toml has accepted the text, so this scanner only finds its way and judges nothing.

import { parse } from "smol-toml";

const BARE = /^[A-Za-z0-9_-]+$/;

/** Appends a key to a path: `general` and `port` make `general.port`; a key that is not bare is quoted as in JSON. */
export function joinKey(path: string, key: string): string {
	const part = BARE.test(key) ? key : JSON.stringify(key);
	return path === "" ? part : `${path}.${part}`;
}

/** Line (from 1) by path such as `databases[1].port`, elements counted from 0. Where the text is not TOML, finds less. */
export function locate(toml: string): Map<string, number> {
	const scanner = new Scanner(toml);
	try {
		scanner.document();
	} catch (error) {
		if (!(error instanceof Lost)) throw error;
	}
	return scanner.lines;
}

/** The text is not TOML here: stop with what has been found. */
class Lost extends Error {}

class Scanner {
	readonly lines = new Map<string, number>();
	readonly #text: string;
	#at = 0;
	#line = 1;
	/** Elements so far of each `[[array]]`, by path. */
	readonly #elements = new Map<string, number>();

	constructor(text: string) {
		this.#text = text;
	}

	document(): void {
		let table = "";
		for (;;) {
			this.#blank();
			if (this.#at >= this.#text.length) return;
			table = this.#text[this.#at] === "[" ? this.#header() : this.#pair(table);
		}
	}

	/** `[a.b]` or `[[a.b]]`; gives the path of the table that begins here. */
	#header(): string {
		const array = this.#text.startsWith("[[", this.#at);
		const line = this.#line;
		this.#advance(this.#at + (array ? 2 : 1));
		const keys = this.#key("]");
		this.#advance(this.#at + (array ? 2 : 1));
		let path = "";
		for (const [index, key] of keys.entries()) {
			path = joinKey(path, key);
			this.#record(path, line);
			const last = index === keys.length - 1;
			const count = this.#elements.get(path);
			if (array && last) {
				this.#elements.set(path, (count ?? 0) + 1);
				path = `${path}[${count ?? 0}]`;
				this.#record(path, line);
			} else if (count !== undefined) path = `${path}[${count - 1}]`;
		}
		return path;
	}

	/** `key = value`; gives the table back, for `document`. */
	#pair(table: string): string {
		const line = this.#line;
		let path = table;
		for (const key of this.#key("=")) {
			path = joinKey(path, key);
			this.#record(path, line);
		}
		this.#advance(this.#at + 1);
		this.#value(path);
		return table;
	}

	#value(path: string): void {
		this.#blank();
		const text = this.#text;
		switch (text[this.#at]) {
			case '"':
			case "'":
				this.#advance(this.#stringEnd());
				return;
			case "[":
				this.#sequence("]", (index) => {
					const element = `${path}[${index}]`;
					this.#record(element, this.#line);
					this.#value(element);
				});
				return;
			case "{":
				this.#sequence("}", () => this.#pair(path));
				return;
		}
		// A number, date or truth value. A date may hold a space, so only what can follow a value ends it.
		let end = this.#at;
		while (end < text.length && !",]}#\n".includes(text[end]!)) end++;
		if (end === this.#at) throw new Lost();
		this.#advance(end);
	}

	/** The inside of a list or an inline table: items between commas, a comma after the last one allowed. */
	#sequence(close: "]" | "}", item: (index: number) => void): void {
		this.#advance(this.#at + 1);
		for (let index = 0; ; index++) {
			this.#blank();
			if (this.#text[this.#at] !== close) {
				if (this.#at >= this.#text.length) throw new Lost();
				item(index);
				this.#blank();
			}
			const next = this.#text[this.#at];
			if (next !== close && next !== ",") throw new Lost();
			this.#advance(this.#at + 1);
			if (next === close) return;
		}
	}

	/** A key, dotted or not, up to `stop`; smol-toml itself undoes quotes and escapes. */
	#key(stop: "=" | "]"): string[] {
		const text = this.#text;
		const start = this.#at;
		while (this.#at < text.length && text[this.#at] !== stop) {
			const char = text[this.#at];
			if (char === "\n") throw new Lost();
			this.#at = char === '"' || char === "'" ? this.#stringEnd() : this.#at + 1;
		}
		if (this.#at >= text.length) throw new Lost();
		const written = text.slice(start, this.#at).trim();
		// Nearly every key is bare, and a parser for each is most of the time that a long file takes.
		if (BARE.test(written)) return [written];
		try {
			const keys: string[] = [];
			let inside: unknown = parse(`${written} = 0`);
			while (typeof inside === "object" && inside !== null) {
				const [key, value] = Object.entries(inside)[0]!;
				keys.push(key);
				inside = value;
			}
			return keys;
		} catch {
			throw new Lost();
		}
	}

	/** Where the string that begins here ends. TOML, "String": a closing `"""` may follow one or two quotes of the text. */
	#stringEnd(): number {
		const text = this.#text;
		const quote = text[this.#at]!;
		const delimiter = text.startsWith(quote.repeat(3), this.#at) ? quote.repeat(3) : quote;
		let end = this.#at + delimiter.length;
		while (!text.startsWith(delimiter, end)) {
			if (end >= text.length) throw new Lost();
			end += quote === '"' && text[end] === "\\" ? 2 : 1;
		}
		end += delimiter.length;
		for (let extra = 0; delimiter.length === 3 && extra < 2 && text[end] === quote; extra++) end++;
		return end;
	}

	/** White space, line ends and comments. */
	#blank(): void {
		const text = this.#text;
		let at = this.#at;
		for (; at < text.length; at++) {
			const char = text[at]!;
			if (char === "#") {
				const end = text.indexOf("\n", at);
				at = (end === -1 ? text.length : end) - 1;
			} else if (!" \t\r\n\uFEFF".includes(char)) break;
		}
		this.#advance(at);
	}

	#advance(to: number): void {
		for (let at = this.#text.indexOf("\n", this.#at); at !== -1 && at < to; at = this.#text.indexOf("\n", at + 1)) {
			this.#line++;
		}
		this.#at = to;
	}

	/** The first mention counts: for a table that is a dotted key's or a header's, whichever comes first. */
	#record(path: string, line: number): void {
		if (!this.lines.has(path)) this.lines.set(path, line);
	}
}
