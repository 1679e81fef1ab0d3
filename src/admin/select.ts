// The queries that drivers and tools send on their own: SELECT version(), SELECT 1, look-ups in the catalogs. No tables are
// here, so a look-up finds no rows; anything else is a syntax error.

import { PgError } from "../errors.ts";
import { Oid } from "../wire/backend-messages.ts";
import { type Command, syntaxError } from "./command.ts";
import { refuseOwnSetting } from "./courtesy.ts";
import { showSetting } from "./settings.ts";
import type { AdminSource } from "./source.ts";
import { isName, isSymbol, items, Kind, type Word } from "./words.ts";

interface Value {
	/** As PostgreSQL would name the column. */
	readonly name: string;
	readonly oid: Oid;
	of(source: AdminSource): string | null;
}

const constant = (name: string, oid: Oid, value: string | null): Value => ({ name, oid, of: () => value });
const told = (name: string, of: (source: AdminSource) => string): Value => ({ name, oid: Oid.text, of });

/** Values that are written without parentheses. */
const KEYWORDS: Readonly<Record<string, Value>> = {
	null: constant("?column?", Oid.text, null),
	true: constant("bool", Oid.bool, "t"),
	false: constant("bool", Oid.bool, "f"),
	current_catalog: told("current_catalog", (source) => source.snapshot().admin.name),
	current_schema: constant("current_schema", Oid.text, "public"),
	current_user: told("current_user", (source) => source.snapshot().admin.user),
	current_role: told("current_role", (source) => source.snapshot().admin.user),
	session_user: told("session_user", (source) => source.snapshot().admin.user),
	user: told("user", (source) => source.snapshot().admin.user),
};

/** Functions, `name(…)` with literals as arguments; null: not with these arguments. */
const FUNCTIONS: Readonly<Record<string, (values: readonly string[]) => Value | null>> = {
	version: () => told("version", (source) => source.version),
	current_schema: () => KEYWORDS.current_schema!,
	current_database: () => told("current_database", (source) => source.snapshot().admin.name),
	pg_backend_pid: () => constant("pg_backend_pid", Oid.int4, "0"),
	pg_is_in_recovery: () => constant("pg_is_in_recovery", Oid.bool, "f"),
	pg_advisory_unlock_all: () => constant("pg_advisory_unlock_all", Oid.text, ""),
	current_setting: ([name]) =>
		name === undefined ? null : told("current_setting", (source) => showSetting(name, source.version).value),
	set_config: ([name, value]) => {
		if (name === undefined || value === undefined) return null;
		refuseOwnSetting(name);
		return constant("set_config", Oid.text, value);
	},
};

/** @param words behind SELECT. @throws PgError */
export function select(words: readonly Word[]): Command {
	const from = endOfList(words);
	const list = items(words.slice(0, from));
	if (from < words.length) {
		if (!words.slice(from).some(({ key }) => CATALOG.test(key))) throw syntaxError("The admin database has no tables.");
		const columns = list.map((item) => ({ name: columnName(item), oid: Oid.text }));
		return { columns, tag: "SELECT 0", run: () => [] };
	}
	const values = list.map(value);
	return {
		columns: values.map(({ name, oid }) => ({ name, oid })),
		tag: "SELECT 1",
		run: (source) => [values.map((each) => each.of(source))],
	};
}

const CATALOG = /^(pg_|information_schema\.)/;

/** Index of the FROM that ends the select list, or the length. */
function endOfList(words: readonly Word[]): number {
	let depth = 0;
	for (const [i, word] of words.entries()) {
		if (isSymbol(word, "(")) depth++;
		else if (isSymbol(word, ")")) depth--;
		else if (depth === 0 && word.key === "from") return i;
	}
	return words.length;
}

/** A name for a column of a query that finds nothing. */
function columnName(item: readonly Word[]): string {
	const last = item.at(-1);
	if (item.length > 1 && last?.kind === Kind.Quoted) return last.text;
	if (last?.key) return last.key.slice(last.key.lastIndexOf(".") + 1);
	if (isSymbol(last, ")") && item[0]?.key) return item[0].key.slice(item[0].key.lastIndexOf(".") + 1);
	return "?column?";
}

function value(item: readonly Word[]): Value {
	let words = item;
	let name: string | undefined;
	const [last, before] = [words.at(-1), words.at(-2)];
	if (words.length > 2 && before?.key === "as" && isName(last)) {
		name = last.kind === Kind.Word ? last.key : last.text;
		words = words.slice(0, -2);
	} else if (words.length > 1 && (last?.kind === Kind.Word || last?.kind === Kind.Quoted) && !isSymbol(before, "::")) {
		name = last.kind === Kind.Word ? last.key : last.text;
		words = words.slice(0, -1);
	}
	// A cast changes nothing that a text answer would show.
	if (words.length > 2 && isSymbol(words.at(-2), "::")) words = words.slice(0, -2);
	const found = literal(words) ?? call(words);
	if (found === null) throw syntaxError();
	return name === undefined ? found : { name, oid: found.oid, of: found.of };
}

function literal(words: readonly Word[]): Value | null {
	const [word, second] = words;
	if (word === undefined) return null;
	if (words.length === 2 && isSymbol(word, "-") && second?.kind === Kind.Number) return integer(`-${second.text}`);
	if (words.length !== 1) return null;
	if (word.kind === Kind.Number) return integer(word.text);
	if (word.kind === Kind.Text) return constant("?column?", Oid.text, word.text);
	return Object.hasOwn(KEYWORDS, word.key) ? KEYWORDS[word.key]! : null;
}

function integer(text: string): Value | null {
	if (!/^-?\d+$/.test(text)) return null;
	const n = BigInt(text);
	if (BigInt.asIntN(64, n) !== n) throw new PgError("ERROR", "22003", "bigint out of range");
	return constant("?column?", BigInt.asIntN(32, n) === n ? Oid.int4 : Oid.int8, n.toString());
}

function call(words: readonly Word[]): Value | null {
	const name = words[0]?.key.replace(/^pg_catalog\./, "") ?? "";
	if (!Object.hasOwn(FUNCTIONS, name) || !isSymbol(words[1], "(") || !isSymbol(words.at(-1), ")")) return null;
	const inside = words.slice(2, -1);
	const values: string[] = [];
	for (const item of inside.length === 0 ? [] : items(inside)) {
		const [word] = item;
		if (item.length !== 1 || !isName(word)) return null;
		values.push(word.text);
	}
	return FUNCTIONS[name]!(values);
}
