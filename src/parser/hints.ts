// What a client asks of routing beside its SQL: in a comment before or behind the statement (`/* pgdog_role: replica */`), by
// SET pgdog.role, or with its StartupMessage. Reads texts; what the wishes are worth is the router's and the session's
// affair. Reference: PgDog, "Manual routing".

import { PgError } from "../errors.ts";
import { Backslash, fold, Lexer, Token } from "./lexer.ts";

export interface Hints {
	readonly role: "primary" | "replica" | null;
	/** Number of a shard; it may not exist. */
	readonly shard: number | null;
	/** The key as it was written; the router hashes it. */
	readonly shardingKey: string | null;
}

export const NO_HINTS: Hints = { role: null, shard: null, shardingKey: null };

/** SET, RESET or SHOW of a setting that is the proxy's own. */
export type OwnSetting =
	| { readonly kind: "set"; readonly name: OwnName; readonly value: string | null; readonly local: boolean }
	/** `all`: RESET ALL or DISCARD ALL, which the server has to run too. */
	| { readonly kind: "reset"; readonly name: OwnName | "all" }
	| { readonly kind: "show"; readonly name: OwnName };

export type OwnName = "role" | "shard" | "sharding_key";

/**
 * The role that a value of `pgdog.role` names; null for "", which takes a wish back.
 * @throws PgError 22023
 */
export function parseRole(value: string): Hints["role"] {
	const role = roleOf(value);
	if (role !== null || value === "") return role;
	throw invalid("role", value, "Available values: primary, replica.");
}

/**
 * The shard that a value of `pgdog.shard` names; null for "", which takes a wish back.
 * @throws PgError 22023
 */
export function parseShard(value: string): number | null {
	const shard = shardOf(value);
	if (shard !== null || value === "") return shard;
	throw invalid("shard", value, "Shards are numbered from 0.");
}

function invalid(name: OwnName, value: string, hint: string): PgError {
	return new PgError("ERROR", "22023", `invalid value for parameter "pgdog.${name}": "${value}"`, undefined, hint);
}

function roleOf(value: string): Hints["role"] {
	const folded = fold(value);
	return folded === "primary" || folded === "replica" ? folded : null;
}

/** Digits of the longest number that is read as a shard's; no cluster has so many shards. */
const MOST_DIGITS = 9;

function shardOf(value: string): number | null {
	if (value.length === 0 || value.length > MOST_DIGITS || !isDigits(value)) return null;
	return Number(value);
}

function isDigits(text: string): boolean {
	for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) < 48 || text.charCodeAt(i) > 57) return false;
	return true;
}

/** Whether a setting of this name is kept by the proxy. The names of settings have no case. */
export function isOwnSetting(name: string): boolean {
	return ownName(name) !== null;
}

/** The name behind `pgdog.`; null for a setting that is not ours. */
export function ownName(name: string): OwnName | null {
	switch (fold(name)) {
		case "pgdog.role":
			return "role";
		case "pgdog.shard":
			return "shard";
		case "pgdog.sharding_key":
			return "sharding_key";
		default:
			return null;
	}
}

/** What the text does to a setting of ours when that is all that it does; null for every other text, and in doubt. */
export function ownSetting(sql: string): OwnSetting | null {
	const reader = new Reader(sql);
	while (reader.token === Token.Semicolon) reader.next();
	let own: OwnSetting | null = null;
	switch (reader.word()) {
		case "set":
			own = readSet(reader);
			break;
		case "reset":
			own = readReset(reader);
			break;
		case "show": {
			const name = reader.setting();
			own = name === null ? null : { kind: "show", name };
			break;
		}
		case "discard":
			reader.next();
			own = reader.word() === "all" ? { kind: "reset", name: "all" } : null;
			reader.next();
			break;
	}
	return own !== null && reader.ended ? own : null;
}

function readReset(reader: Reader): OwnSetting | null {
	const name = reader.setting();
	if (name !== null) return { kind: "reset", name };
	return reader.name === "all" ? { kind: "reset", name: "all" } : null;
}

/** PostgreSQL docs, "SET". */
function readSet(reader: Reader): OwnSetting | null {
	let name = reader.setting();
	let local = false;
	if (name === null && (reader.name === "local" || reader.name === "session")) {
		local = reader.name === "local";
		name = reader.settingHere();
	}
	if (name === null || !(reader.is("=") || reader.word() === "to")) return null;
	reader.next();
	if (reader.word() === "default") {
		reader.next();
		return { kind: "set", name, value: null, local };
	}
	const value = reader.value();
	return value === null ? null : { kind: "set", name, value, local };
}

/** Walks over a statement of the SET kind, one token ahead. */
class Reader {
	private readonly sql: string;
	private readonly lexer: Lexer;
	token: Token;
	/** The bare word that `setting` has read; "" when it was quoted or had a dot. */
	name = "";

	constructor(sql: string) {
		this.sql = sql;
		this.lexer = new Lexer(sql);
		this.token = this.lexer.next();
	}

	next(): void {
		this.token = this.lexer.next();
	}

	/** The bare word that stands here, or "". */
	word(): string {
		return this.token === Token.Word ? this.lexer.text! : "";
	}

	is(symbol: string): boolean {
		return this.token === Token.Symbol && this.lexer.text === symbol;
	}

	/** Nothing but semicolons follows, and nothing of the text is in doubt. */
	get ended(): boolean {
		while (this.token === Token.Semicolon) this.next();
		return this.token === Token.End && !this.lexer.doubt;
	}

	/** The name of a setting behind the word that stands here. */
	setting(): OwnName | null {
		this.next();
		return this.settingHere();
	}

	/** The name of a setting that begins here: `class.name`, or all of it in one pair of quotes. */
	settingHere(): OwnName | null {
		this.name = this.token === Token.Word ? this.lexer.text! : "";
		let whole = this.part;
		if (whole === null) return null;
		this.next();
		while (this.is(".")) {
			this.next();
			const { part } = this;
			if (part === null) return null;
			whole += `.${part}`;
			this.name = "";
			this.next();
		}
		return ownName(whole);
	}

	private get part(): string | null {
		return this.token === Token.Word || this.token === Token.Quoted ? this.lexer.text : null;
	}

	/** A value of one token, or a number and its sign, as PostgreSQL would store it. */
	value(): string | null {
		const sign = this.is("-") ? "-" : "";
		const signed = sign !== "" || this.is("+");
		if (signed) this.next();
		const { text } = this.lexer;
		const { token } = this;
		if (text === null || (signed && token !== Token.Number)) return null;
		const begin = this.sql[this.lexer.start];
		this.next();
		switch (token) {
			case Token.Number:
				return isDecimal(text) ? `${sign}${withoutZeros(text)}` : null;
			case Token.Word:
			case Token.Quoted:
				return text;
			case Token.String:
				// Not B'', X'' and N'', which are no strings to SET.
				return begin === "'" || begin === "$" || begin === "E" || begin === "e" ? text : null;
			default:
				return null;
		}
	}
}

/** Digits with a point or without. Other numbers are not worth understanding. */
function isDecimal(text: string): boolean {
	const [whole = "", fraction = "", ...more] = text.split(".");
	return more.length === 0 && isDigits(whole) && isDigits(fraction);
}

/** PostgreSQL keeps an integer by its value and any other number as it is written. */
function withoutZeros(number: string): string {
	let i = 0;
	while (i < number.length - 1 && number[i] === "0" && isDigits(number)) i++;
	return number.slice(i);
}

/**
 * What block comments before the first or behind the last word of a text ask for, as PgDog reads them; null when they ask for
 * nothing. Of two wishes the first counts.
 */
export function commentHints(sql: string, backslash = Backslash.Plain): Hints | null {
	if (!sql.includes("pgdog_")) return null;
	const lexer = new Lexer(sql, backslash);
	let first = -1;
	let last = 0;
	for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
		if (first < 0) first = lexer.start;
		// psql keeps a comment in front of the semicolon with its statement.
		if (token !== Token.Semicolon) last = lexer.end;
	}
	const wishes: Wishes = { role: null, shard: null, shardingKey: null };
	readComments(sql.slice(0, first < 0 ? sql.length : first), wishes);
	if (first >= 0) readComments(sql.slice(last), wishes);
	return wishes.role === null && wishes.shard === null && wishes.shardingKey === null ? null : wishes;
}

type Wishes = { -readonly [Field in keyof Hints]: Hints[Field] };

/** `blank` lies between tokens: nothing but blanks and comments. */
function readComments(blank: string, wishes: Wishes): void {
	for (let at = 0; at < blank.length; ) {
		if (blank.startsWith("--", at)) {
			while (at < blank.length && blank[at] !== "\n" && blank[at] !== "\r") at++;
		} else if (blank.startsWith("/*", at)) {
			const end = endOfComment(blank, at);
			// A comment that never ends is PostgreSQL's to refuse.
			if (end < 0) return;
			readComment(blank.slice(at + 2, end - 2), wishes);
			at = end;
		} else at++;
	}
}

/** The place behind the comment at `at`, -1 when it never ends; comments nest. */
function endOfComment(blank: string, at: number): number {
	let depth = 0;
	while (at < blank.length) {
		if (blank.startsWith("/*", at)) depth++;
		else if (blank.startsWith("*/", at)) depth--;
		else {
			at++;
			continue;
		}
		at += 2;
		if (depth === 0) return at;
	}
	return -1;
}

/** Bare values end where a list of such hints would go on; anything else behind them makes them another value. */
const HINT = /(?<![\w$])pgdog_(role|shard|sharding_key)\s*:\s*(?:"([^"]*)"|'([^']*)'|([0-9a-zA-Z-]+)(?=[\s,;*/)]|$))/g;

function readComment(comment: string, wishes: Wishes): void {
	for (const [, name, double, single, bare] of comment.matchAll(HINT)) {
		const value = double ?? single ?? bare ?? "";
		if (name === "role") wishes.role ??= roleOf(value);
		else if (name === "shard") wishes.shard ??= shardOf(value);
		else if (value !== "") wishes.shardingKey ??= value;
	}
}
