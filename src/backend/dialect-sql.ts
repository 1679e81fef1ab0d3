// SQL that has a server read one text by other settings than its session has now, and go back: for a statement that was parsed
// before the session changed them. Part of a batch: nothing is asked, no row comes, and what goes wrong fails the batch.

import { CONSTANT_SETTINGS } from "../parser/session.ts";
import { quoteLiteral } from "./parameters.ts";

/** Prefix of custom settings in which the value of a setting waits until it is needed again. */
const KEPT = "pgdog.was_";

/** Settings that differ between two `Dialect.constants`. @param now null: not known, so that all may */
export function differing(then: string, now: string | null): readonly string[] {
	if (now === null) return CONSTANT_SETTINGS;
	const [before, after] = [valuesOf(then), valuesOf(now)];
	return CONSTANT_SETTINGS.filter((name) => before.get(name) !== after.get(name));
}

/** SQL that sets `names` as they were then, and keeps what they are. The inner call is first: the outer one needs its value. */
export function setDialect(names: readonly string[], then: string): string {
	const values = valuesOf(then);
	const calls = names.map((name) => {
		const value = values.get(name);
		const kept = call(KEPT + name, `pg_catalog.current_setting('${name}')`, "true");
		return call(name, value === undefined ? "NULL" : quoteLiteral(value), `${kept} IS NOT NULL`);
	});
	return `SELECT WHERE ${calls.map((made) => `${made} IS NULL`).join(" OR ")}`;
}

/** SQL that sets `names` back to what was kept. */
export function resetDialect(names: readonly string[]): string {
	const calls = names.map((name) => call(name, `pg_catalog.current_setting('${KEPT}${name}')`, "true"));
	return `SELECT WHERE ${calls.map((made) => `${made} IS NULL`).join(" OR ")}`;
}

/** A set_config that is `local`: until the transaction ends, and not beyond it. */
function call(name: string, value: string, local: string): string {
	return `pg_catalog.set_config('${name}', ${value}, ${local})`;
}

/** The settings in a `Dialect.constants`, by name. */
function valuesOf(constants: string): ReadonlyMap<string, string> {
	const parts = constants.split("\0");
	const values = new Map<string, string>();
	for (let i = 0; i + 1 < parts.length; i += 2) values.set(parts[i]!, parts[i + 1]!);
	return values;
}
