// Settings of a session as an immutable set: what a client wants, what a server has. Equal sets are usually the same
// object, so the check at checkout is one comparison of pointers. Turning one set into another is SQL, made here.
// Bounded: what is remembered of sets in general by INTERNED_BYTES, a client's by session/settings.ts.

import { LRUCache } from "lru-cache";

/** Bytes that a set takes beside its names and values, and each of its entries; a guess, generous. */
const OVERHEAD = 64;
const SUM = 2 ** 48;

/** Names are lower case; values as `current_setting` prints them, so that `set_config` takes them back. */
export class ParameterSet {
	readonly values: ReadonlyMap<string, string>;
	/** Equal for equal sets; a change to one entry changes it without a look at the others. */
	readonly hash: number;
	/** About what it takes in memory, names and values together, bytes. */
	readonly bytes: number;

	constructor(values: ReadonlyMap<string, string>, hash: number, bytes: number) {
		this.values = values;
		this.hash = hash;
		this.bytes = bytes;
	}

	/** Equal for equal sets. Made when asked for: for sets as small as a StartupMessage. */
	get key(): string {
		let key = "";
		for (const name of [...this.values.keys()].sort()) key += `${name}\0${this.values.get(name)}\0`;
		return key;
	}

	/** Equal hashes prove nothing: one client must never be taken for another that has chosen its settings so. */
	equals(other: ParameterSet): boolean {
		if (this === other) return true;
		if (this.hash !== other.hash || this.values.size !== other.values.size) return false;
		for (const [name, value] of this.values) if (other.values.get(name) !== value) return false;
		return true;
	}
}

/** How many sets are remembered as objects, and their bytes; a set that fell out is only compared more slowly. */
const INTERNED = 4096;
const INTERNED_BYTES = 2 << 20;
/** A set of more bytes is not remembered: nobody else has it. */
const LARGEST_INTERNED = 16 << 10;

function hashOf(name: string, value: string): number {
	return Number(BigInt.asUintN(48, Bun.hash.wyhash(`${name}\0${value}`)));
}

function bytesOf(name: string, value: string): number {
	return name.length + value.length + OVERHEAD;
}

/** One per thread: gives the same object for the same settings, as long as it remembers them. */
export class ParameterSets {
	private readonly known = new LRUCache<number, ParameterSet>({
		max: INTERNED,
		maxSize: INTERNED_BYTES,
		maxEntrySize: LARGEST_INTERNED,
		sizeCalculation: (set) => set.bytes,
	});
	readonly empty = this.of(new Map());
	/** Bytes of the sets that clients keep; counted by session/settings.ts. */
	kept = 0;

	/** Clients keep so many bytes more, or (negative) less. */
	keep(bytes: number): void {
		this.kept += bytes;
	}

	of(values: ReadonlyMap<string, string>): ParameterSet {
		let hash = 0;
		let bytes = OVERHEAD;
		for (const [name, value] of values) {
			hash = (hash + hashOf(name, value)) % SUM;
			bytes += bytesOf(name, value);
		}
		return this.intern(new ParameterSet(values, hash, bytes));
	}

	/** `set` with some names changed, or removed where the value is null. */
	change(set: ParameterSet, changes: Iterable<readonly [name: string, value: string | null]>): ParameterSet {
		let values: Map<string, string> | null = null;
		let { hash, bytes } = set;
		for (const [name, value] of changes) {
			const before: string | null = (values ?? set.values).get(name) ?? null;
			if (before === value) continue;
			values ??= new Map(set.values);
			if (before !== null) {
				hash = (hash + SUM - hashOf(name, before)) % SUM;
				bytes -= bytesOf(name, before);
			}
			if (value === null) values.delete(name);
			else {
				values.set(name, value);
				hash = (hash + hashOf(name, value)) % SUM;
				bytes += bytesOf(name, value);
			}
		}
		return values === null ? set : this.intern(new ParameterSet(values, hash, bytes));
	}

	/** `set` with one name changed, or removed when `value` is null. */
	with(set: ParameterSet, name: string, value: string | null): ParameterSet {
		return this.change(set, [[name, value]]);
	}

	private intern(set: ParameterSet): ParameterSet {
		const known = this.known.get(set.hash);
		if (known?.equals(set)) return known;
		this.known.set(set.hash, set);
		return set;
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

/** Rank in the order of setting: the last ones change who we are, so they come after all that needs the privileges of before. */
export function rank(name: string): number {
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
		const again = new Set(changed.map(([name]) => name));
		for (const name of ["session_authorization", "role"]) {
			const value = to.values.get(name);
			if (value !== undefined && !again.has(name)) changed.push([name, value]);
		}
	}
	for (const name of removed) if (rank(name) === 0) statements.push(`RESET ${settingIdentifier(name)}`);
	changed.sort(([a], [b]) => rank(a) - rank(b));
	const calls = changed.map(
		([name, value]) => `pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, false)`,
	);
	for (let at = 0; at < calls.length; at += MOST_COLUMNS)
		statements.push(`SELECT ${calls.slice(at, at + MOST_COLUMNS).join(", ")}`);
	return statements.join("; ");
}

/** PostgreSQL refuses a result of more than 1,664 columns. */
const MOST_COLUMNS = 1000;

/** Whether pg_settings lists a setting: `role` and `session_authorization` never, custom ones only in part. */
export function isListed(name: string): boolean {
	return !name.includes(".") && name !== "role" && name !== "session_authorization";
}

/**
 * Asks a server what these settings are now: rows of name and value. NULL for one that does not exist, and with `ownOnly`
 * for one that the session has not set itself (as far as PostgreSQL tells, see `isListed`). A value that is longer than
 * `most` characters comes cut off.
 */
export function askParameters(names: readonly string[], ownOnly: boolean, most: number): string {
	const list = names.map((name) => `(${quoteLiteral(name)})`).join(",");
	const value = `pg_catalog.left(pg_catalog.current_setting(n.name, true), ${most + 1})`;
	const from = `FROM (VALUES ${list}) n(name)`;
	if (!ownOnly || !names.some(isListed)) return `SELECT n.name, ${value} ${from}`;
	const own = `CASE WHEN s.name IS NULL OR s.source = 'session' THEN ${value} END`;
	return `SELECT n.name, ${own} ${from} LEFT JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = n.name`;
}

/**
 * Everything that the session has set itself, as rows of name and value: what pg_settings lists, the two identities, and
 * `others`, which it does not list. Without the modes of a transaction: one that is over leaves them set, and they cannot be set
 * outside of one.
 */
export function askAll(others: readonly string[], most: number): string {
	const value = (name: string) => `pg_catalog.left(pg_catalog.current_setting(${name}, true), ${most + 1})`;
	const list = ["role", "session_authorization", ...others].map((name) => `(${quoteLiteral(name)})`).join(",");
	return (
		`SELECT pg_catalog.lower(s.name), ${value("s.name")} FROM pg_catalog.pg_settings s WHERE s.source = 'session'` +
		" AND s.name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')" +
		` UNION ALL SELECT n.name, ${value("n.name")} FROM (VALUES ${list}) n(name)`
	);
}
