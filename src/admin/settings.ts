// The settings that the admin database pretends to have: what it reports at login and what SHOW tells drivers that ask.

/** Settings that are reported after the login (ParameterStatus), with their names as PostgreSQL writes them. */
export const REPORTED: readonly (readonly [name: string, value: (version: string) => string])[] = [
	["server_name", () => "PgDog"],
	["server_version", serverVersion],
	["server_encoding", () => "UTF8"],
	["client_encoding", () => "UTF8"],
	["standard_conforming_strings", () => "on"],
	["integer_datetimes", () => "on"],
	["DateStyle", () => "ISO, MDY"],
	["IntervalStyle", () => "postgres"],
	["TimeZone", () => "UTC"],
	["is_superuser", () => "on"],
	["in_hot_standby", () => "off"],
	["default_transaction_read_only", () => "off"],
];

const UNREPORTED: readonly (readonly [name: string, value: string])[] = [
	["transaction_isolation", "read committed"],
	["default_transaction_isolation", "read committed"],
	["transaction_read_only", "off"],
	["search_path", "public"],
	["max_identifier_length", "63"],
	["statement_timeout", "0"],
	["lock_timeout", "0"],
];

/** `0.1.0 (PgDog)` from `PgDog v1a2b3c4d (…), version 0.1.0, …`: drivers want a number in front. */
function serverVersion(version: string): string {
	return `${/, version (\d+(?:\.\d+)+)/.exec(version)?.[1] ?? "0.0.0"} (PgDog)`;
}

/** What SHOW answers for a PostgreSQL setting, under the name as PostgreSQL writes it; "" for one that nobody knows. */
export function showSetting(name: string, version: string): { readonly name: string; readonly value: string } {
	const wanted = name.toLowerCase();
	for (const [known, value] of REPORTED)
		if (known.toLowerCase() === wanted) return { name: known, value: value(version) };
	for (const [known, value] of UNREPORTED) if (known === wanted) return { name: known, value };
	return { name: wanted, value: "" };
}
