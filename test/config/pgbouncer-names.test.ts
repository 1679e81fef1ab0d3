// Whoever writes a setting as PgBouncer's manual has it is told ours: the name, which has to exist, and not one that only looks alike.

import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "../../src/config/load.ts";
import { pgbouncerNames } from "../../src/config/pgbouncer-names.ts";
import { problemText } from "../../src/config/problem.ts";
import { admin, database, general, tcp, user } from "../../src/config/settings.ts";
import * as unserved from "../../src/config/unserved.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-pgbouncer-"));
afterAll(() => rmSync(folder, { recursive: true }));

function said(config: string): string[] {
	const configPath = join(folder, "pgdog.toml");
	writeFileSync(configPath, config);
	const loaded = load({ configPath, databaseUrls: [], overrides: {}, env: {} });
	return loaded.ok ? [] : loaded.problems.map((problem) => problemText(problem).replace(`${folder}/`, ""));
}

test("PgBouncer's names are told ours, and no other that looks like them", () => {
	expect(
		said('[general]\nmax_client_conn = 100\nquery_wait_timeout = 120\nauth_user = "x"\nserver_idle_timeout = 9'),
	).toEqual([
		"pgdog.toml:2: general.max_client_conn is not a known key: it is PgBouncer's, which here is max_client_connections",
		"pgdog.toml:3: general.query_wait_timeout is not a known key: it is PgBouncer's, which here is checkout_timeout, in milliseconds",
		"pgdog.toml:4: general.auth_user is not a known key: it is PgBouncer's, which here is auth_query_user and auth_query_password",
		"pgdog.toml:5: general.server_idle_timeout is not a known key: it is PgBouncer's, which here is idle_timeout, in milliseconds",
	]);
	expect(said('[pgbouncer]\nlisten_port = 6432\n\n[[databases]]\nname = "app"\nhost = "h"\ndbname = "b"')).toEqual([
		"pgdog.toml:1: pgbouncer is not a known key: it is PgBouncer's, which here is [general]",
		"pgdog.toml:7: databases[0].dbname is not a known key: it is PgBouncer's, which here is database_name",
	]);
});

test("none of them is a key that is known here, and what they are called here is", () => {
	const tables = [general, database, user, tcp, admin];
	const known = new Set(
		tables.flatMap((table) => Object.entries(table).flatMap(([name, { aliases }]) => [name, ...aliases])),
	);
	const later = Object.values(unserved).flatMap(({ refused, ignored }) => [...Object.keys(refused), ...ignored]);
	expect(Object.keys(pgbouncerNames).filter((name) => known.has(name) || later.includes(name))).toEqual([]);
	const ours = Object.values(pgbouncerNames).flatMap((text) => [...text.matchAll(/`(\w+)`/g)].map(([, name]) => name!));
	expect(ours.length).toBeGreaterThan(20);
	expect(ours.filter((name) => !known.has(name))).toEqual([]);
});
