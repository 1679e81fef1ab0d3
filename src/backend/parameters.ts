// Settings of a session as an immutable set: what a client wants, what a server has. Equal sets are usually the same
// object, so the check at checkout is one comparison of pointers. Turning one set into another is SQL, made here.

import { LRUCache } from "lru-cache";

/** Names are lower case; values as `current_setting` prints them, so that `set_config` takes them back. */
export class ParameterSet {
	readonly values: ReadonlyMap<string, string>;
	/** Equal for equal sets. */
	readonly key: string;

	constructor(values: ReadonlyMap<string, string>, key: string) {
		this.values = values;
		this.key = key;
	}

	equals(other: ParameterSet): boolean {
		return this === other || this.key === other.key;
	}
}

/** How many different sets are remembered as objects; a set that fell out is only compared more slowly. */
const INTERNED = 4096;

/** One per thread: gives the same object for the same settings. */
export class ParameterSets {
	private readonly known = new LRUCache<string, ParameterSet>({ max: INTERNED });
	readonly empty = this.of(new Map());

	of(values: ReadonlyMap<string, string>): ParameterSet {
		const names = [...values.keys()].sort();
		let key = "";
		for (const name of names) key += `${name}\0${values.get(name)}\0`;
		const known = this.known.get(key);
		if (known !== undefined) return known;
		const made = new ParameterSet(values, key);
		this.known.set(key, made);
		return made;
	}

	/** `set` with one name changed, or removed when `value` is null. */
	with(set: ParameterSet, name: string, value: string | null): ParameterSet {
		if ((set.values.get(name) ?? null) === value) return set;
		const values = new Map(set.values);
		if (value === null) values.delete(name);
		else values.set(name, value);
		return this.of(values);
	}
}

export function quoteLiteral(text: string): string {
	const quoted = `'${text.replaceAll("'", "''")}'`;
	return text.includes("\\") ? ` E${quoted.replaceAll("\\", "\\\\")}` : quoted;
}

export function quoteIdentifier(name: string): string {
	return `"${name.replaceAll('"', '""')}"`;
}

/** `RESET` takes a qualified custom name in parts. */
function settingIdentifier(name: string): string {
	return name.split(".").map(quoteIdentifier).join(".");
}

/** These change who we are, so they come after all that needs the privileges of before. */
function rank(name: string): number {
	if (name === "session_authorization") return 1;
	return name === "role" ? 2 : 0;
}

/**
 * SQL that turns settings `from` into `to`, as one simple query (one implicit transaction: all of it or nothing);
 * "" when there is nothing to do. `set_config` takes list settings such as search_path as they print, SET would not.
 */
export function changeParameters(from: ParameterSet, to: ParameterSet): string {
	const changed = [...to.values].filter(([name, value]) => from.values.get(name) !== value);
	const removed = [...from.values.keys()].filter((name) => !to.values.has(name));
	if (changed.length === 0 && removed.length === 0) return "";
	const statements: string[] = [];
	const identity = from.values.has("role") || from.values.has("session_authorization");
	if (identity) {
		// Back to the user that logged in, whose right it was to set the rest.
		statements.push("RESET SESSION AUTHORIZATION", "RESET ROLE");
		for (const name of ["session_authorization", "role"]) {
			const value = to.values.get(name);
			if (value !== undefined && !changed.some(([other]) => other === name)) changed.push([name, value]);
		}
	}
	for (const name of removed) if (rank(name) === 0) statements.push(`RESET ${settingIdentifier(name)}`);
	changed.sort(([a], [b]) => rank(a) - rank(b));
	const calls = changed.map(
		([name, value]) => `pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, false)`,
	);
	if (calls.length > 0) statements.push(`SELECT ${calls.join(", ")}`);
	return statements.join("; ");
}

/**
 * Asks a server what these settings are now; NULL for one that does not exist, and with `ownOnly` for one that the
 * session has not set itself (as far as PostgreSQL tells: custom settings and the two identities are not in pg_settings).
 */
export function askParameters(names: readonly string[], ownOnly: boolean): string {
	const asked = names.map((name) => {
		const current = `pg_catalog.current_setting(${quoteLiteral(name)}, true)`;
		if (!ownOnly || name.includes(".") || name === "role" || name === "session_authorization") return current;
		const own = `pg_catalog.lower(s.name) = ${quoteLiteral(name)} AND s.source = 'session'`;
		return `(SELECT ${current} FROM pg_catalog.pg_settings s WHERE ${own})`;
	});
	return `SELECT ${asked.join(", ")}`;
}

/**
 * Everything in pg_settings that the session has set itself; but the modes of a transaction that is over count as set, and
 * cannot be set outside of one.
 */
export const ASK_ALL =
	"SELECT pg_catalog.lower(s.name), pg_catalog.current_setting(s.name) FROM pg_catalog.pg_settings s WHERE s.source = 'session'" +
	" AND s.name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')";
