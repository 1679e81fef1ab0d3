// What a statement does to the session it runs in: settings it changes, and things it leaves behind that the next client must not see.
// Two steps: `touchesSession` (touches.ts) looks at the bytes of every query (a few nanoseconds a byte) and says whether a closer look is
// needed; `sessionFacts` takes it, once per text (`facts-cache.ts`). Both err on the side of "it may": a false alarm costs a round trip, a
// miss shows one client's state to another. What a function does inside the server cannot be seen; only settings it reports come back.

import { flat } from "./flat.ts";
import { Backslash, fold, Lexer, Token } from "./lexer.ts";

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

/** Bits: what PostgreSQL reads in a text at Parse by settings of the session (docs, "Client Connection Defaults"). */
export const enum Reads {
	Nothing = 0,
	/** Which objects names stand for. */
	Names = 1,
	/** Which values constants stand for. */
	Constants = 2,
	Everything = 3,
}

/** What Parse reads by a setting. Those that only tell how a result is printed, or how it is come by, are not among them. */
export function readsOf(setting: string): Reads {
	if (NAMING.has(setting)) return Reads.Names;
	return READING.has(setting) ? Reads.Constants : Reads.Nothing;
}

const NAMING = new Set(["search_path", "role", "session_authorization"]);
/** Settings that decide which values constants stand for. */
export const CONSTANT_SETTINGS: readonly string[] = [
	"standard_conforming_strings",
	"backslash_quote",
	"client_encoding",
	"transform_null_equals",
	"array_nulls",
	"datestyle",
	"intervalstyle",
	"timezone",
	"timezone_abbreviations",
	"lc_monetary",
	"xmloption",
	// By these a value becomes text: of a constant the planner makes it once.
	"extra_float_digits",
	"bytea_output",
	"quote_all_identifiers",
];
const READING = new Set(CONSTANT_SETTINGS);

export interface SessionFacts {
	/** Settings given a value by SET or set_config, as far as the transaction commits. */
	readonly sets: readonly string[];
	/** Parameters ($1 is 1) that hold the name of a setting which set_config gives a value. */
	readonly parameterSets: readonly number[];
	/** Settings given back their default. */
	readonly resets: readonly string[];
	/** RESET ALL or DISCARD ALL. */
	readonly resetsAll: boolean;
	/** Settings that may have to get back, once the statement was run, what the StartupMessage asked for; null when none. */
	readonly restores: Restores | null;
	/** Bits of `Dirty`. */
	readonly dirty: number;
	/** It takes advisory locks of the session or gives them back, or may. */
	readonly locks: boolean;
	/** The one statement is DEALLOCATE of this name (never ALL). */
	readonly deallocates: string | null;
	/** DEALLOCATE ALL or DISCARD ALL. */
	readonly deallocatesAll: boolean;
	/** A statement is transaction control: BEGIN, COMMIT, … */
	readonly transaction: boolean;
	/** A statement keeps for good what the transaction did: COMMIT, END, PREPARE TRANSACTION and COMMIT PREPARED. */
	readonly commits: boolean;
	/** Bits of `Reads`: what is parsed behind it may mean something else, if only until the transaction ends. */
	readonly reads: number;
	/** The catalogue may be another when the transaction has ended: CREATE, ALTER, DROP of what is not temporary. */
	readonly alters: boolean;
	/** Names of tables and the like that it creates as temporary ones. */
	readonly temporaries: readonly string[];
	/** Names of tables that it drops: one that is not among the session's temporary ones changes the catalogue. */
	readonly drops: readonly string[];
}

/** Settings that a statement gives their default: to PostgreSQL the server's, to a client what its StartupMessage asked for. */
export interface Restores {
	/** All settings but `role` and `session_authorization`. */
	readonly all: boolean;
	/** Any setting, by what cannot be seen here. */
	readonly any: boolean;
	/** Settings given their default for the session. */
	readonly names: readonly string[];
	/** Settings given their default until the transaction ends: SET LOCAL … TO DEFAULT. */
	readonly local: readonly string[];
	/** The text is one statement that does this and nothing else, if it is run and does not fail. */
	readonly sure: boolean;
	/** Something of this depends on more than the text: what a function does, whether a parameter is NULL. */
	readonly hidden: boolean;
}

export const NO_FACTS: SessionFacts = {
	sets: [],
	parameterSets: [],
	resets: [],
	resetsAll: false,
	restores: null,
	dirty: Dirty.None,
	locks: false,
	deallocates: null,
	deallocatesAll: false,
	transaction: false,
	commits: false,
	reads: Reads.Nothing,
	alters: false,
	temporaries: [],
	drops: [],
};

/** A text that was too large to look at: anything may have happened. */
export const UNKNOWN_FACTS: SessionFacts = {
	...NO_FACTS,
	restores: { all: false, any: true, names: [], local: [], sure: false, hidden: true },
	dirty: Dirty.Everything,
	locks: true,
	reads: Reads.Everything,
};

interface Item {
	readonly token: Token;
	readonly text: string | null;
}

/** The closer look at a text. Never throws: what it cannot read it reports as `Dirty.Everything`. */
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
	// Text in another encoding than UTF-8: a byte that looks like a quote or a backslash may be half a character.
	if (lexer.doubt || sql.includes("\ufffd")) facts.doubt();
	if (statements !== 1) facts.deallocates = null;
	facts.conclude();
	facts.end(statements);
	if (sql.length > SHORT) facts.flatten();
	return facts;
}

/** A statement of a text, up to `end`, that gives settings their default when it is run, or may. */
export interface RestoringStatement {
	readonly end: number;
	/** Which of the text's statements it is, from 1 on. */
	readonly place: number;
	readonly restores: Restores;
	readonly isLast: boolean;
}

/** The restoring statements of a text; null when it cannot be said where its statements end. */
export function restoringStatements(sql: string, backslash: Backslash = Backslash.Doubt): RestoringStatement[] | null {
	const lexer = new Lexer(sql, backslash);
	const found: Omit<RestoringStatement, "isLast">[] = [];
	let statement: Item[] = [];
	let depth = 0;
	let end = 0;
	let last = 0;
	let place = 0;
	for (;;) {
		const token = lexer.next();
		if (token !== Token.End && (token !== Token.Semicolon || depth > 0)) {
			// BEGIN ATOMIC: the body of such a function is statements, too.
			if (token === Token.Word && lexer.text === "atomic") return null;
			if (token === Token.Symbol) depth += lexer.text === "(" ? 1 : lexer.text === ")" ? -1 : 0;
			statement.push({ token, text: lexer.text });
			end = lexer.end;
			continue;
		}
		const facts = new Facts();
		if (statement.length > 0) {
			facts.statement(statement);
			last = end;
			place++;
		}
		facts.end(1);
		if (facts.restores !== null) found.push({ end, place, restores: facts.restores });
		statement = [];
		if (token === Token.End) break;
	}
	return lexer.doubt ? null : found.map((each) => ({ ...each, isLast: each.end === last }));
}

const TRANSACTION_WORDS = new Set(["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"]);
/** Words that begin another form of SET or RESET; before a dot they are the first part of a setting's name. */
const SET_FORMS = new Set(["local", "session", "transaction", "constraints", "names", "schema", "time", "xml", "role"]);
/** Settings that end with the transaction, and the seed of random(), which cannot be asked for: nothing to follow. */
const UNFOLLOWED = new Set(["transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed"]);
const BEFORE_TEMP = new Set(["create", "global", "local", "replace", "into"]);

class Facts implements SessionFacts {
	readonly sets: string[] = [];
	readonly parameterSets: number[] = [];
	readonly resets: string[] = [];
	resetsAll = false;
	restores: Restores | null = null;
	/** Settings of which it cannot be said whether they are given a value or their default. */
	private readonly unsure: string[] = [];
	private readonly locals: string[] = [];
	private discardsAll = false;
	private readonly unsureLocals: string[] = [];
	dirty: number = Dirty.None;
	locks = false;
	deallocates: string | null = null;
	deallocatesAll = false;
	transaction = false;
	commits = false;
	reads: number = Reads.Nothing;
	alters = false;
	readonly temporaries: string[] = [];
	readonly drops: string[] = [];

	/** Part of the text could not be read. */
	doubt(): void {
		this.dirty |= Dirty.Everything;
		this.alters = true;
	}

	/** Completes `reads`, once all statements have been looked at. */
	conclude(): void {
		for (const setting of this.sets) this.reads |= readsOf(setting);
		for (const setting of this.resets) this.reads |= readsOf(setting);
		if (this.resetsAll || (this.dirty & Dirty.Settings) !== 0) this.reads |= Reads.Everything;
		if (this.alters || this.drops.length > 0 || (this.dirty & Dirty.Temporary) !== 0) this.reads |= Reads.Names;
		if (this.discardsAll || (this.dirty & Dirty.AdvisoryLock) !== 0) this.locks = true;
	}

	statement(items: readonly Item[]): void {
		const word = (i: number) => (items[i]?.token === Token.Word ? items[i]!.text! : "");
		const name = (i: number) =>
			items[i]?.token === Token.Word || items[i]?.token === Token.Quoted ? items[i]!.text! : "";
		const first = word(0);
		if (TRANSACTION_WORDS.has(first)) this.transaction = true;
		switch (first) {
			case "commit":
			case "end":
				this.commits = true;
				break;
			case "set":
				this.set(items, word, name);
				break;
			case "reset":
				this.reset(items, word, name);
				break;
			case "discard":
				if (word(1) === "all") {
					this.resetsAll = true;
					this.deallocatesAll = true;
					this.discardsAll = true;
				}
				break;
			case "listen":
				this.dirty |= Dirty.Listen;
				break;
			case "prepare":
				if (word(1) === "transaction") this.transaction = this.commits = true;
				else this.dirty |= Dirty.Prepared;
				break;
			case "deallocate": {
				const at = word(1) === "prepare" && items.length > 2 ? 2 : 1;
				if (word(at) === "all") this.deallocatesAll = true;
				else if (items.length === at + 1) this.deallocates = name(at) || null;
				break;
			}
			case "load":
				this.dirty |= Dirty.Beyond;
				break;
			case "create":
				this.create(word, name);
				break;
			case "drop":
				this.drop(items, word, name);
				break;
			case "alter":
			case "import":
				this.alters = true;
				break;
			case "grant":
			case "revoke":
				// USAGE of a schema decides whether names are found in it.
				if (items.some(({ token, text }) => token === Token.Word && text === "schema")) this.alters = true;
				break;
			case "do":
				// The body runs now: what it names, it may do.
				for (const item of items) if (item.token === Token.String) this.body(item.text);
				break;
		}
		this.anywhere(items);
	}

	/** Cuts the names of settings loose from their text, which they outlive in a transaction that goes on. */
	flatten(): void {
		for (const names of [this.sets, this.resets]) for (let i = 0; i < names.length; i++) names[i] = flat(names[i]!);
	}

	/** Makes `restores`, once all statements have been looked at. */
	end(statements: number): void {
		const { resets, locals, unsure, unsureLocals, dirty } = this;
		const any = (dirty & Dirty.Settings) !== 0;
		if (!this.resetsAll && !any && resets.length + locals.length + unsure.length + unsureLocals.length === 0) return;
		const hidden = any || unsure.length + unsureLocals.length > 0;
		const sure = statements === 1 && !hidden;
		const local = [...new Set([...locals, ...unsureLocals])];
		const names = [...new Set([...resets, ...unsure])];
		// DISCARD ALL does SET SESSION AUTHORIZATION DEFAULT, too; RESET ALL does not.
		if (this.discardsAll) names.push("session_authorization", "role");
		this.restores = { all: this.resetsAll, any, names, local, sure, hidden };
	}

	private create(word: (i: number) => string, name: (i: number) => string): void {
		let at = word(1) === "global" || word(1) === "local" ? 2 : 1;
		if (word(at) !== "temp" && word(at) !== "temporary") {
			this.alters = true;
			return;
		}
		if (word(++at) === "table" && word(at + 1) === "if") at += 3;
		this.temporaries.push(name(at + 1));
	}

	/** DROP TABLE of plain names tells them: they may be those of temporary tables. Every other DROP changes the catalogue. */
	private drop(items: readonly Item[], word: (i: number) => string, name: (i: number) => string): void {
		const names: string[] = [];
		let at = word(1) === "table" ? 2 : items.length;
		if (word(at) === "if") at += 2;
		for (; name(at) !== ""; at += 2) {
			names.push(name(at));
			if (items[at + 1]?.text !== ",") {
				at++;
				break;
			}
		}
		if (names.length > 0 && at === items.length) this.drops.push(...names);
		else this.alters = true;
	}

	private set(items: readonly Item[], word: (i: number) => string, name: (i: number) => string): void {
		let at = 1;
		const last = word(items.length - 1);
		// SET … TO DEFAULT is RESET: it goes back to what the StartupMessage said.
		const { sets, resets } = this;
		const isDefault = last === "default" && !isDot(items[items.length - 2]);
		const given = isDefault ? resets : sets;
		/** The word at `i` when it begins a form of SET; "" when it is a setting's name: `SET session.user_id = 1`. */
		const form = (i: number) => (SET_FORMS.has(word(i)) && !isDot(items[i + 1]) ? word(i) : "");
		if (form(at) === "local") {
			this.setLocal(items, at + 1, word, name, isDefault);
			this.readLocally(items, word, name);
			return;
		}
		if (form(at) === "session" && word(at + 1) !== "characteristics" && word(at + 1) !== "authorization") at++;
		switch (form(at)) {
			case "transaction":
			case "constraints":
				return;
			case "names":
				given.push("client_encoding");
				return;
			case "schema":
				given.push("search_path");
				return;
			case "time":
				(last === "local" ? resets : given).push("timezone");
				return;
			case "xml":
				given.push("xmloption");
				return;
			case "role":
				given.push("role");
				return;
			case "session":
				if (word(at + 1) === "characteristics") sets.push(...CHARACTERISTICS);
				else given.push("session_authorization", "role");
				return;
		}
		this.given(settingName(items, at, name), given);
	}

	/** SET LOCAL ends with its transaction, so that only what is given its default is of interest. */
	private setLocal(
		items: readonly Item[],
		at: number,
		word: (i: number) => string,
		name: (i: number) => string,
		isDefault: boolean,
	): void {
		const isForm = SET_FORMS.has(word(at)) && !isDot(items[at + 1]);
		const zone = isForm && word(at) === "time" && (isDefault || word(items.length - 1) === "local");
		if (zone) this.locals.push("timezone");
		else if (isDefault && !isForm) this.locals.push(settingName(items, at, name) ?? "");
		else if (isDefault && word(at) === "names") this.locals.push("client_encoding");
	}

	/** SET LOCAL: until the transaction ends texts are read otherwise. */
	private readLocally(items: readonly Item[], word: (i: number) => string, name: (i: number) => string): void {
		switch (SET_FORMS.has(word(2)) && !isDot(items[3]) ? word(2) : "") {
			case "schema":
			case "role":
			case "session":
				this.reads |= Reads.Names;
				break;
			case "names":
			case "time":
			case "xml":
				this.reads |= Reads.Constants;
				break;
			case "":
				this.reads |= readsOf(settingName(items, 2, name) ?? "");
		}
	}

	/** A setting has a new value, or its default; null: we cannot tell which setting. */
	private given(setting: string | null, to: string[]): void {
		if (setting === null) this.dirty |= Dirty.Settings;
		else if (setting === "session_authorization") to.push("session_authorization", "role");
		else if (!UNFOLLOWED.has(setting)) to.push(setting);
	}

	private reset(items: readonly Item[], word: (i: number) => string, name: (i: number) => string): void {
		const form = isDot(items[2]) ? "" : word(1);
		if (form === "all") this.resetsAll = true;
		else if (form === "time") this.resets.push("timezone");
		else if (form === "session") this.resets.push("session_authorization", "role");
		else if (form === "transaction") return;
		else {
			const setting = settingName(items, 1, name);
			if (setting === null) this.dirty |= Dirty.Settings;
			else if (setting === "session_authorization") this.resets.push("session_authorization", "role");
			else if (!UNFOLLOWED.has(setting)) this.resets.push(setting);
		}
	}

	/** Words that mean something wherever they stand. */
	private anywhere(items: readonly Item[]): void {
		let closing: readonly number[] | null = null;
		for (let i = 0; i < items.length; i++) {
			const { token, text } = items[i]!;
			if (text === null) continue;
			// pg_temp as the value of search_path: then every table that is made without a schema is a temporary one.
			if (token === Token.String && NAMES_PG_TEMP.test(text)) this.dirty |= Dirty.Temporary;
			if (token !== Token.Word && token !== Token.Quoted) continue;
			const previous = items[i - 1]?.text ?? "";
			if (text === "set_config") {
				closing ??= closingParentheses(items);
				this.setConfig(items, i, closing);
			} else if (text.startsWith("pg_")) this.ofPostgres(text, items);
			else if (token !== Token.Word) continue;
			else if ((text === "temp" || text === "temporary") && BEFORE_TEMP.has(previous)) this.dirty |= Dirty.Temporary;
			else if (text === "hold" && previous === "with") this.dirty |= Dirty.HoldCursor;
			else if (text === "into" && !BEFORE_INTO.has(previous) && !OF_TEMP.has(items[i + 1]?.text ?? ""))
				this.alters = true;
		}
	}

	private ofPostgres(name: string, items: readonly Item[]): void {
		if (name.startsWith("pg_temp")) this.dirty |= Dirty.Temporary;
		else if (/^pg_(try_)?advisory_(un)?lock/.test(name)) this.lock(name);
		// UPDATE of this view is a SET.
		else if (name === "pg_settings" && items.some(({ token, text }) => token === Token.Word && text === "update"))
			this.dirty |= Dirty.Settings;
	}

	private lock(name: string): void {
		if (name.includes("advisory_lock")) this.dirty |= Dirty.AdvisoryLock;
		else if (name.includes("advisory_unlock")) this.locks = true;
	}

	/** `set_config('name', value, is_local)`: the name must be there to read, or nothing can be followed. */
	private setConfig(items: readonly Item[], at: number, closing: readonly number[]): void {
		const [open, setting, comma] = [items[at + 1], items[at + 2], items[at + 3]];
		if (open?.text !== "(") return;
		// Two strings in a row are one; what comes between the name and its comma makes it another.
		const readable = setting?.token === Token.String && comma?.token === Token.Symbol && comma.text === ",";
		if (setting?.token === Token.Parameter && comma?.text === ",")
			this.parameterSets.push(Number(setting.text!.slice(1)));
		if (!readable || setting.text === null) {
			this.dirty |= Dirty.Settings;
			return;
		}
		const name = fold(setting.text);
		this.reads |= readsOf(name);
		const isLocal = lastArgument(items, closing[at + 1] ?? 0) === "true";
		const [value, behind] = [items[at + 4], items[at + 5]];
		const isWhole = behind?.token === Token.Symbol && behind.text === ",";
		const isNull = isWhole && value?.token === Token.Word && value.text === "null";
		if (!isLocal) this.given(name, isNull ? this.resets : this.sets);
		else if (isNull) this.locals.push(name);
		// A value of NULL gives the setting its default, if the call is made; any expression may be NULL.
		if (isWhole && value?.token === Token.String) return;
		if (!UNFOLLOWED.has(name)) (isLocal ? this.unsureLocals : this.unsure).push(name);
	}

	/** The body of a DO block, where statements are not told apart: a word is enough. */
	private body(text: string | null, depth = 0): void {
		if (text === null || depth > DEEPEST) {
			this.doubt();
			return;
		}
		const lexer = new Lexer(text);
		/** What has been read of the name behind a RESET; null elsewhere. */
		let reset: string | null = null;
		for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
			const word = token === Token.Word ? lexer.text! : "";
			if (reset !== null && (word !== "" || token === Token.Quoted || lexer.text === ".")) reset += lexer.text;
			else if (reset !== null) {
				if (reset !== "" && reset !== "all") this.unsure.push(fold(reset));
				reset = null;
			}
			if (word === "reset") reset = "";
			if (token === Token.String) this.body(lexer.text, depth + 1);
			if (word === "set" || word === "reset" || word === "set_config") this.dirty |= Dirty.Settings;
			// EXECUTE runs SQL that is put together from pieces.
			if (word === "execute") this.doubt();
			if (word === "create" || word === "alter" || word === "drop" || word === "import") this.alters = true;
			if (word === "temp" || word === "temporary" || word.startsWith("pg_temp")) this.dirty |= Dirty.Temporary;
			this.lock(word);
			if (word === "listen") this.dirty |= Dirty.Listen;
			if (word === "hold") this.dirty |= Dirty.HoldCursor;
			if (word === "load") this.dirty |= Dirty.Beyond;
		}
		if (lexer.doubt) this.doubt();
	}
}

/** Longest text, in characters, that its names may keep alive. */
const SHORT = 256;

/** Words before an INTO that makes no table; elsewhere it is that of SELECT, which does. */
const BEFORE_INTO = new Set(["insert", "merge"]);
const OF_TEMP = new Set(["temp", "temporary", "local", "global"]);

/** `pg_temp` where `touchesSession` sees a word begin, so that the two agree. */
const NAMES_PG_TEMP = /(?<![\w$\u0080-\uffff])pg_temp/i;
const CHARACTERISTICS = [
	"default_transaction_isolation",
	"default_transaction_read_only",
	"default_transaction_deferrable",
];

/** Strings within strings of a DO body that are looked into: each level reads the rest again. */
const DEEPEST = 8;

function isDot(item: Item | undefined): boolean {
	return item?.token === Token.Symbol && item.text === ".";
}

/** `name` or `class.name`; bare and quoted parts alike fold, as PostgreSQL's settings do. */
function settingName(items: readonly Item[], at: number, name: (i: number) => string): string | null {
	let setting = name(at);
	if (setting === "") return null;
	for (let i = at + 1; isDot(items[i]) && name(i + 1) !== ""; i += 2) setting += `.${name(i + 1)}`;
	return fold(setting);
}

/** For each parenthesis that opens, where it is closed; 0 where it is not. Calls in calls are many, and each asks. */
function closingParentheses(items: readonly Item[]): number[] {
	const closing = new Array<number>(items.length).fill(0);
	const open: number[] = [];
	for (let i = 0; i < items.length; i++) {
		const { token, text } = items[i]!;
		if (token !== Token.Symbol) continue;
		if (text === "(") open.push(i);
		else if (text === ")") {
			const opened = open.pop();
			if (opened !== undefined) closing[opened] = i;
		}
	}
	return closing;
}

/** The last word before the parenthesis at `close`, when it stands alone as an argument. */
function lastArgument(items: readonly Item[], close: number): string | null {
	if (close < 2 || items[close - 2]?.text !== ",") return null;
	return items[close - 1]?.token === Token.Word ? items[close - 1]!.text : null;
}
