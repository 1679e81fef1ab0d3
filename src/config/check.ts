// Applies a table of settings to one TOML table: typed values out, everything wrong into the report.
// Called by load.ts, file.ts and database-url.ts. Knows neither files nor which tables there are.

import { judge } from "./judge.ts";
import { joinKey } from "./locate.ts";
import { pgbouncerNames } from "./pgbouncer-names.ts";
import { type Findings, nearest, show, type ValueSource } from "./problem.ts";
import { environmentNames, type Settings, type Values } from "./setting.ts";
import type { Unserved } from "./unserved.ts";

export type Table = Readonly<Record<string, unknown>>;

export function isTable(value: unknown): value is Table {
	return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/**
 * Reads the keys of `table` that stand in the file; what is absent or wrong is absent from the result (and `report` knows
 * what is wrong), so that the caller fills in defaults in whatever order of precedence applies.
 */
export function readTable<S extends Settings>(
	settings: S,
	unserved: Unserved,
	table: Table,
	path: string,
	source: ValueSource,
	report: Findings,
): Partial<Values<S>> {
	const values: Record<string, unknown> = {};
	const names = namesOf(settings);
	const seen = new Map<string, string>();
	for (const [key, value] of Object.entries(table)) {
		const at = joinKey(path, key);
		const name = names.get(key);
		if (name === undefined) {
			if (!readUnserved(unserved, key, value, at, source, report)) {
				unknownKey(key, [...names.keys(), ...unservedKeys(unserved)], at, source, report);
			}
			continue;
		}
		const other = seen.get(name);
		if (other !== undefined) {
			report.problem(
				source,
				at,
				"value",
				show(value, settings[name]!.secret),
				`only one of ${other} and ${key}, which mean the same`,
			);
			continue;
		}
		seen.set(name, key);
		const setting = settings[name]!;
		const result = judge(setting, value);
		if (result.success) values[name] = result.data;
		else {
			const later = typeof value === "string" && setting.later.includes(value);
			report.problem(source, at, later ? "unserved" : "value", show(value, setting.secret), setting.accepted);
		}
	}
	for (const name in settings) {
		const setting = settings[name]!;
		if (setting.required && !seen.has(name)) {
			report.problem(source, joinKey(path, name), "missing", "", setting.accepted);
		}
	}
	return values as Partial<Values<S>>;
}

/** The setting's name by each name that a key may have, aliases too. Made once for each table: entries may be thousands. */
const known = new WeakMap<Settings, ReadonlyMap<string, string>>();

function namesOf(settings: Settings): ReadonlyMap<string, string> {
	let names = known.get(settings);
	if (names !== undefined) return names;
	const all = Object.entries(settings);
	names = new Map(all.flatMap(([name, { aliases }]) => [name, ...aliases].map((each) => [each, name] as const)));
	known.set(settings, names);
	return names;
}

/** True when the key is one of PgDog's that we do not serve yet; it has then been dealt with. */
export function readUnserved(
	unserved: Unserved,
	key: string,
	value: unknown,
	at: string,
	source: ValueSource,
	report: Findings,
): boolean {
	if (unserved.ignored.includes(key)) {
		report.warn(source, at, `${at} is known to PgDog, not served yet: ignored`);
		return true;
	}
	if (!Object.hasOwn(unserved.refused, key)) return false;
	const harmless = unserved.refused[key]!;
	if (harmless.some((each) => String(each) === String(value))) return true;
	// A key that takes words or numbers shows what was found; one that takes free text may hold anything.
	const found = harmless.length > 0 || typeof value === "bigint" ? show(value) : "";
	const accepted = harmless.map((each) => JSON.stringify(each)).join(", ");
	report.problem(source, at, "unserved", found, accepted);
	return true;
}

export function unservedKeys(unserved: Unserved): string[] {
	return [...Object.keys(unserved.refused), ...unserved.ignored];
}

/** Reports a key that nobody knows, without its value: it may be a password under a mistyped name. One of PgBouncer's is told ours. */
export function unknownKey(
	key: string,
	known: readonly string[],
	at: string,
	source: ValueSource,
	report: Findings,
): void {
	report.problem(source, at, "unknown", "", meantBy(key, known));
}

function meantBy(key: string, known: readonly string[]): string {
	if (Object.hasOwn(pgbouncerNames, key))
		return `it is PgBouncer's, which here is ${pgbouncerNames[key]!.replaceAll("`", "")}`;
	const near = nearest(key, known);
	if (near !== undefined) return `did you mean "${near}"?`;
	return known.length <= 12 ? `known are ${known.join(", ")}` : "docs/config.md lists the known ones";
}

/** The defaults of a table of settings. */
export function defaults<S extends Settings>(settings: S): Values<S> {
	return Object.fromEntries(Object.entries(settings).map(([name, setting]) => [name, setting.default])) as Values<S>;
}

/**
 * The defaults, with those that the environment gives instead. In PgDog, too, the environment is a source of defaults only:
 * a key in the file wins. (There, some keys take it only when `[general]` is missing altogether; here they all take it.)
 * A value that cannot be read is a warning, never an error: the environment may hold names of somebody else's making,
 * such as Kubernetes' PGDOG_PORT=tcp://… for a service named pgdog.
 */
export function environmentDefaults<S extends Settings>(
	settings: S,
	env: Readonly<Record<string, string | undefined>>,
	warnings: string[],
): Values<S> {
	const values: Record<string, unknown> = { ...defaults(settings) };
	for (const [name, setting] of Object.entries(settings)) {
		for (const variable of environmentNames(name, setting)) {
			const text = env[variable];
			if (text === undefined || text === "") continue;
			const result = judge(setting, setting.fromText(text));
			if (result.success) {
				values[name] = result.data;
				break;
			}
			warnings.push(
				`environment: ${variable} = ${show(text, setting.secret)} is not used for ${name}: accepted is ${setting.accepted}`,
			);
		}
	}
	return values as Values<S>;
}
