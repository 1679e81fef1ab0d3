// `--database-url` and PGDOG_DATABASE_URL_<n>: one database and one user each, in the place of everything that
// `[[databases]]` and users.toml say. Called by load.ts; reads no file.

import { readTable, type Table } from "./check.ts";
import { type Findings, show, type ValueSource } from "./problem.ts";
import type { Values } from "./setting.ts";
import { database as databaseSettings } from "./settings.ts";
import { unservedDatabase } from "./unserved.ts";

const ACCEPTED = "postgres://user:password@host:port/database?setting=value";

export interface DatabaseUrl {
	readonly database: Partial<Values<typeof databaseSettings>>;
	readonly user: string;
	readonly password: string;
}

/**
 * Reads one URL. Where it says nothing: database `postgres`, port 5432, user `$USER`, password `postgres`, as in PgDog.
 * A socket's folder is the percent-encoded host, or the parameter `host`, as for libpq. Undefined when the report says why.
 */
export function readDatabaseUrl(
	text: string,
	source: ValueSource,
	env: Readonly<Record<string, string | undefined>>,
	report: Findings,
): DatabaseUrl | undefined {
	let url: URL;
	let parts: Record<"user" | "password" | "host" | "name", string>;
	try {
		url = new URL(text);
		parts = {
			user: decodeURIComponent(url.username),
			password: decodeURIComponent(url.password),
			host: decodeURIComponent(url.hostname).replace(/^\[(.*)\]$/, "$1"),
			name: decodeURIComponent(url.pathname.slice(1)),
		};
		if (!["postgres:", "postgresql:"].includes(url.protocol)) throw new TypeError("another scheme");
	} catch {
		// Nobody knows where the password stands in a URL that cannot be read, so none of it is shown.
		report.problem(source, "url", "value", show(text, true), ACCEPTED);
		return undefined;
	}
	const table: Record<string, unknown> = { name: parts.name || "postgres" };
	if (parts.host !== "") table.host = parts.host;
	if (url.port !== "") table.port = BigInt(url.port);
	for (const [key, value] of url.searchParams) {
		const setting = Object.entries(databaseSettings).find(
			([name, { aliases }]) => name === key || aliases.includes(key),
		)?.[1];
		if (Object.hasOwn(table, key)) {
			report.problem(source, key, "value", show(value, setting?.secret), `${key} once in a URL`);
			continue;
		}
		table[key] = setting === undefined ? value : setting.fromText(value);
	}
	const before = report.problems.length;
	const database = readTable(databaseSettings, unservedDatabase, table as Table, "", source, report);
	if (report.problems.length > before) return undefined;
	const user = parts.user || env.USER || "postgres";
	if (`${user}${parts.password}`.includes("\0")) {
		report.problem(source, "url", "value", show(text, true), `${ACCEPTED}, without NUL`);
		return undefined;
	}
	return { database, user, password: parts.password || "postgres" };
}

/** PGDOG_DATABASE_URL_1, _2 … up to the first that is missing. */
export function environmentUrls(env: Readonly<Record<string, string | undefined>>): [variable: string, url: string][] {
	const urls: [string, string][] = [];
	for (let n = 1; ; n++) {
		const variable = `PGDOG_DATABASE_URL_${n}`;
		const url = env[variable];
		if (url === undefined || url === "") return urls;
		urls.push([variable, url]);
	}
}
