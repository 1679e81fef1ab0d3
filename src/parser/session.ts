// What a statement does to the session it runs in: settings it changes, and things it leaves behind that the next
// client must not see. Two steps: `touchesSession` looks at the bytes of every query (about a nanosecond a byte) and
// says whether a closer look is needed; `sessionFacts` takes it, once per text (`cache.ts`).
// Both err on the side of "it may": a false alarm costs a round trip, a miss shows one client's state to another.
// What a function does inside the server cannot be seen here; only settings that it reports come back.

import { Lexer, Token } from "./lexer.ts";

/** What a client left on a server; each has its cure in backend/clean.ts. */
export const enum Dirty {
	None = 0,
	Temporary = 1,
	AdvisoryLock = 2,
	Listen = 4,
	HoldCursor = 8,
	Prepared = 16,
	/** Settings were changed in a way that we could not follow. */
	Settings = 32,
	/** Nothing but a new connection helps (LOAD). */
	Beyond = 64,
	Everything = Temporary | AdvisoryLock | Listen | HoldCursor | Prepared | Settings,
}

export interface SessionFacts {
	/** Settings given a value by SET or set_config, as far as the transaction commits. */
	readonly sets: readonly string[];
	/** Settings given back their default. */
	readonly resets: readonly string[];
	/** RESET ALL or DISCARD ALL. */
	readonly resetsAll: boolean;
	readonly dirty: number;
	/** The one statement is DEALLOCATE of this name (never ALL). */
	readonly deallocates: string | null;
	/** A statement is transaction control: BEGIN, COMMIT, … */
	readonly transaction: boolean;
}

export const NO_FACTS: SessionFacts = {
	sets: [],
	resets: [],
	resetsAll: false,
	dirty: Dirty.None,
	deallocates: null,
	transaction: false,
};

/** A text that was too large to look at: anything may have happened. */
export const UNKNOWN_FACTS: SessionFacts = { ...NO_FACTS, dirty: Dirty.Everything };

const bytes = (text: string) => Buffer.from(text, "latin1");
const SET_CONFIG = bytes("set_config");
const TEMP = bytes("temp");
const HOLD = bytes("hold");
const PG_TEMP = bytes("pg_temp");
const PG_ADVISORY = bytes("pg_advisory_lock");
const PG_TRY_ADVISORY = bytes("pg_try_advisory_lock");
const FIRST_WORDS = new Set(["set", "reset", "discard", "listen", "unlisten", "prepare", "deallocate", "load", "do"]);
const LONGEST_FIRST_WORD = 10;

function matches(b: Uint8Array, at: number, end: number, word: Uint8Array): boolean {
	if (at + word.length > end) return false;
	for (let i = 0; i < word.length; i++) {
		const c = b[at + i]!;
		const folded = c >= 65 && c <= 90 ? c | 32 : c;
		if (folded !== word[i]) return false;
	}
	return true;
}

/** 1 for a byte that may be part of a word. */
const WORD = new Uint8Array(256);
for (let c = 0; c < 256; c++) {
	const letter = (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || (c >= 48 && c <= 57);
	WORD[c] = letter || c === 95 || c === 36 || c >= 128 ? 1 : 0;
}

/**
 * Whether the query text in `b[start, end)` may do anything to its session. Strings and comments are not told apart
 * from code here, so it may say yes too often.
 */
export function touchesSession(b: Uint8Array, start: number, end: number): boolean {
	let at = start;
	while (at < end && b[at]! <= 32) at++;
	// A leading comment hides the first word.
	if (at + 1 < end && ((b[at] === 47 && b[at + 1] === 42) || (b[at] === 45 && b[at + 1] === 45))) return true;
	let stop = at;
	while (stop < end && WORD[b[stop]!] === 1 && stop - at <= LONGEST_FIRST_WORD) stop++;
	if (isFirstWord(b, at, stop)) return true;
	let inWord = false;
	for (; at < end; at++) {
		const c = b[at]!;
		if (WORD[c] === 0) {
			inWord = false;
			// Another statement follows: its first word counts too.
			if (c === 59 && !blankFrom(b, at + 1, end)) return true;
			continue;
		}
		if (inWord) continue;
		inWord = true;
		switch (c | 32) {
			case 115: // s
				if (matches(b, at, end, SET_CONFIG)) return true;
				break;
			case 116: // t
				if (matches(b, at, end, TEMP)) return true;
				break;
			case 104: // h
				if (matches(b, at, end, HOLD)) return true;
				break;
			case 112: // p
				if (b[at + 2] !== 95) break;
				if (matches(b, at, end, PG_TEMP) || matches(b, at, end, PG_ADVISORY)) return true;
				if (matches(b, at, end, PG_TRY_ADVISORY)) return true;
				break;
			case 117: // U&"…" may spell any of them
				if (b[at + 1] === 38) return true;
				break;
		}
	}
	return false;
}

function isFirstWord(b: Uint8Array, start: number, end: number): boolean {
	const size = end - start;
	if (size < 2 || size > LONGEST_FIRST_WORD) return false;
	switch (b[start]! | 32) {
		case 115: // set
		case 114: // reset
		case 100: // discard, deallocate, do
		case 108: // listen, load
		case 117: // unlisten
		case 112: // prepare
			break;
		default:
			return false;
	}
	let word = "";
	for (let i = start; i < end; i++) word += String.fromCharCode(b[i]! | 32);
	return FIRST_WORDS.has(word);
}

function blankFrom(b: Uint8Array, from: number, end: number): boolean {
	for (let i = from; i < end; i++) if (b[i]! > 32 && b[i] !== 59) return false;
	return true;
}

interface Item {
	readonly token: Token;
	readonly text: string | null;
}

/** The closer look. Never throws: what it cannot read it reports as `Dirty.Everything`. */
export function sessionFacts(sql: string): SessionFacts {
	const lexer = new Lexer(sql);
	const facts = new Facts();
	let statement: Item[] = [];
	let statements = 0;
	for (;;) {
		const token = lexer.next();
		if (token === Token.End || token === Token.Semicolon) {
			if (statement.length > 0) {
				statements++;
				facts.statement(statement);
			}
			statement = [];
			if (token === Token.End) break;
		} else statement.push({ token, text: lexer.text });
	}
	if (lexer.doubt) facts.dirty |= Dirty.Everything;
	if (statements !== 1) facts.deallocates = null;
	return facts;
}

const TRANSACTION_WORDS = new Set(["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"]);
const BEFORE_TEMP = new Set(["create", "global", "local", "replace", "into"]);

class Facts implements SessionFacts {
	readonly sets: string[] = [];
	readonly resets: string[] = [];
	resetsAll = false;
	dirty: number = Dirty.None;
	deallocates: string | null = null;
	transaction = false;

	statement(items: readonly Item[]): void {
		const word = (i: number) => (items[i]?.token === Token.Word ? items[i]!.text! : "");
		const name = (i: number) =>
			items[i]?.token === Token.Word || items[i]?.token === Token.Quoted ? items[i]!.text! : "";
		const first = word(0);
		if (TRANSACTION_WORDS.has(first)) this.transaction = true;
		switch (first) {
			case "set":
				this.set(items, word, name);
				break;
			case "reset":
				this.reset(items, word, name);
				break;
			case "discard":
				if (word(1) === "all") this.resetsAll = true;
				break;
			case "listen":
				this.dirty |= Dirty.Listen;
				break;
			case "prepare":
				if (word(1) === "transaction") this.transaction = true;
				else this.dirty |= Dirty.Prepared;
				break;
			case "deallocate": {
				const at = word(1) === "prepare" && items.length > 2 ? 2 : 1;
				if (items.length === at + 1 && word(at) !== "all") this.deallocates = name(at) || null;
				break;
			}
			case "load":
				this.dirty |= Dirty.Beyond;
				break;
			case "do":
				// The body runs now: what it names, it may do.
				for (const item of items) if (item.token === Token.String) this.body(item.text);
				break;
		}
		this.anywhere(items);
	}

	private set(items: readonly Item[], word: (i: number) => string, name: (i: number) => string): void {
		let at = 1;
		if (word(at) === "local") return;
		if (word(at) === "session" && word(2) === "characteristics") {
			this.sets.push(
				"default_transaction_isolation",
				"default_transaction_read_only",
				"default_transaction_deferrable",
			);
			return;
		}
		if (word(at) === "session" && word(2) !== "authorization") at++;
		// SET SESSION LOCAL does not exist; SET SESSION = … does not either.
		switch (word(at)) {
			case "transaction":
			case "constraints":
				return;
			case "names":
				this.sets.push("client_encoding");
				return;
			case "schema":
				this.sets.push("search_path");
				return;
			case "time":
				this.sets.push("timezone");
				return;
			case "xml":
				this.sets.push("xmloption");
				return;
			case "role":
				this.sets.push("role");
				return;
			case "session":
				this.sets.push("session_authorization", "role");
				return;
		}
		const setting = settingName(items, at, name);
		if (setting === null) this.dirty |= Dirty.Settings;
		else if (setting === "session_authorization") this.sets.push("session_authorization", "role");
		else this.sets.push(setting);
	}

	private reset(items: readonly Item[], word: (i: number) => string, name: (i: number) => string): void {
		if (word(1) === "all") this.resetsAll = true;
		else if (word(1) === "time") this.resets.push("timezone");
		else if (word(1) === "session") this.resets.push("session_authorization", "role");
		else if (word(1) === "transaction") return;
		else {
			const setting = settingName(items, 1, name);
			if (setting === null) this.dirty |= Dirty.Settings;
			else this.resets.push(setting);
		}
	}

	/** Words that mean something wherever they stand. */
	private anywhere(items: readonly Item[]): void {
		for (let i = 0; i < items.length; i++) {
			const { token, text } = items[i]!;
			if ((token !== Token.Word && token !== Token.Quoted) || text === null) continue;
			const previous = items[i - 1]?.text ?? "";
			if (text === "set_config") this.setConfig(items, i);
			else if (text.startsWith("pg_temp")) this.dirty |= Dirty.Temporary;
			else if (text.startsWith("pg_advisory_lock") || text.startsWith("pg_try_advisory_lock"))
				this.dirty |= Dirty.AdvisoryLock;
			else if (token !== Token.Word) continue;
			else if ((text === "temp" || text === "temporary") && BEFORE_TEMP.has(previous)) this.dirty |= Dirty.Temporary;
			else if (text === "hold" && previous === "with") this.dirty |= Dirty.HoldCursor;
		}
	}

	/** `set_config('name', value, is_local)`: the name must be there to read, or nothing can be followed. */
	private setConfig(items: readonly Item[], at: number): void {
		const [open, setting, comma] = [items[at + 1], items[at + 2], items[at + 3]];
		if (open?.text !== "(") return;
		if (setting?.token !== Token.String || setting.text === null || comma?.text !== ",") {
			this.dirty |= Dirty.Settings;
			return;
		}
		if (lastArgument(items, at + 1) !== "true") this.sets.push(setting.text.toLowerCase());
	}

	/** The body of a DO block, where statements are not told apart: a word is enough. */
	private body(text: string | null): void {
		if (text === null) {
			this.dirty |= Dirty.Everything;
			return;
		}
		const lexer = new Lexer(text);
		for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
			const word = token === Token.Word ? lexer.text! : "";
			if (token === Token.String) this.body(lexer.text);
			if (word === "set" || word === "reset" || word === "set_config" || word === "execute")
				this.dirty |= Dirty.Settings;
			if (word === "temp" || word === "temporary" || word.startsWith("pg_temp")) this.dirty |= Dirty.Temporary;
			if (word.includes("advisory_lock")) this.dirty |= Dirty.AdvisoryLock;
			if (word === "listen") this.dirty |= Dirty.Listen;
			if (word === "hold") this.dirty |= Dirty.HoldCursor;
			if (word === "load") this.dirty |= Dirty.Beyond;
		}
		if (lexer.doubt) this.dirty |= Dirty.Everything;
	}
}

/** `name` or `class.name`; bare and quoted parts alike fold to lower case, as PostgreSQL's settings do. */
function settingName(items: readonly Item[], at: number, name: (i: number) => string): string | null {
	let setting = name(at);
	if (setting === "") return null;
	for (let i = at + 1; items[i]?.text === "." && name(i + 1) !== ""; i += 2) setting += `.${name(i + 1)}`;
	return setting.toLowerCase();
}

/** The last word before the parenthesis that closes the one at `open`, when it stands alone as an argument. */
function lastArgument(items: readonly Item[], open: number): string | null {
	let depth = 0;
	for (let i = open; i < items.length; i++) {
		const { token, text } = items[i]!;
		if (token !== Token.Symbol) continue;
		if (text === "(") depth++;
		else if (text === ")" && --depth === 0)
			return items[i - 2]?.text === "," && items[i - 1]?.token === Token.Word ? items[i - 1]!.text : null;
	}
	return null;
}
