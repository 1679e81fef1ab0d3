// `pgdog route`: where the statements of a file would go.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { load } from "../src/config/load.ts";
import type { Snapshot } from "../src/config/snapshot.ts";
import { routeFile } from "../src/route-file.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-route-"));
afterAll(() => rmSync(folder, { recursive: true }));

function snapshot(toml: string): Snapshot {
	const [configPath, usersPath] = [join(folder, "pgdog.toml"), join(folder, "users.toml")];
	writeFileSync(configPath, toml);
	writeFileSync(usersPath, "");
	const loaded = load({ configPath, usersPath, databaseUrls: [], overrides: {}, env: {} });
	if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
	return loaded.snapshot;
}

const server = (more: string) => `[[databases]]\nname = "app"\nhost = "127.0.0.1"\n${more}\n`;
const SHARDS = snapshot(server("") + server("shard = 1") + server('shard = 1\nport = 1\nrole = "replica"'));

/** The lines below the head, their columns with one blank between them. */
function lines(sql: string, of = SHARDS): string[] {
	const { text } = routeFile(of, undefined, sql);
	const [head, ...rest] = text.trimEnd().split("\n");
	expect(head).toMatch(/^line +shard +side +decided by +keys +statement$/);
	return rest.map((line) => line.trim().replace(/ {2,}/g, " "));
}

test("each statement has its line, shard, side and why", () => {
	const { text, isRefused } = routeFile(SHARDS, "app", "SELECT 1;\n\nINSERT INTO t\n  VALUES (1)");
	expect(text).toBe(
		[
			"line  shard  side     decided by  keys  statement",
			"1     any    any      statement   -     SELECT 1",
			"3     all    primary  statement   -     INSERT INTO t VALUES (1)",
			"",
		].join("\n"),
	);
	expect(isRefused).toBe(false);
});

describe("where tables are sharded, keys are told and decide:", () => {
	const sharded = (more: string) => `[[sharded_tables]]\ndatabase = "app"\n${more}\n`;
	const of = snapshot(
		server("") +
			server("shard = 1") +
			server("shard = 2") +
			sharded('name = "users"\ncolumn = "id"') +
			sharded('column = "name"\ndata_type = "varchar"'),
	);

	test.each([
		["SELECT * FROM users WHERE id = 5", "2 primary sharding key id = 5"],
		["SELECT * FROM users WHERE id IN (5, -5)", "all primary statement id = 5, id = -5"],
		["SELECT * FROM users WHERE id IN (1, 2, 3, 4, 5)", "all primary statement id = 1, id = 2, id = 3, id = 4, …"],
		["SELECT * FROM users WHERE id = $1 OR id = ANY($2)", "by key primary sharding key id = $1, id = ANY($2)"],
		["INSERT INTO other (name) VALUES ('apples')", "1 primary sharding key name = 'apples'"],
		["INSERT INTO users (id) SELECT id FROM users WHERE id = 5", "2 primary sharding key id = 5"],
		["UPDATE users SET id = $1 WHERE id = 5", "by key primary sharding key id = 5, id = $1"],
		["/* pgdog_shard: 1 */ SELECT * FROM users WHERE id = 5", "1 primary comment id = 5"],
		["/* pgdog_shard: 1 */ SELECT * FROM users WHERE id = $1", "1 primary comment id = $1"],
		["SELECT count(*), 1 FROM users", "refused - - -"],
		["INSERT INTO users (id) VALUES (5), (NULL)", "refused - - id = 5, id = NULL"],
	])("%s", (sql, expected) => {
		expect(lines(sql, of)[0]).toBe(`1 ${expected} ${sql}`);
	});

	test("and what would help", () => {
		expect(lines("INSERT INTO users VALUES (1)", of).at(-1)).toBe(
			"HINT: Write the columns behind the table's name, id among them, or name one shard (pgdog_shard, pgdog_sharding_key, a plugin).",
		);
	});
});

test("hints decide, in comments and SET", () => {
	const sql = [
		"/* pgdog_shard: 1 */ SELECT * FROM t;",
		"SET pgdog.shard = 0; SELECT * FROM t; RESET pgdog.shard; SELECT * FROM t;",
		"SHOW pgdog.shard;",
		"-- what comes next",
		"SET pgdog.role = 'primary'; SELECT 1",
	];
	expect(lines(sql.join("\n"))).toEqual([
		"1 1 any comment - /* pgdog_shard: 1 */ SELECT * FROM t",
		"2 none - the proxy - SET pgdog.shard = 0",
		"2 0 any pgdog setting - SELECT * FROM t",
		"2 none - the proxy - RESET pgdog.shard",
		"2 all any statement - SELECT * FROM t",
		"3 none - the proxy - SHOW pgdog.shard",
		"5 none - the proxy - SET pgdog.role = 'primary'",
		"5 any primary pgdog setting - SELECT 1",
	]);
});

describe("what is refused is told as clients would be:", () => {
	test("a statement of which shards have no one answer", () => {
		const { text, isRefused } = routeFile(SHARDS, undefined, "SELECT count(*), 1 FROM t");
		expect(isRefused).toBe(true);
		expect(text).toContain("1     refused  -     -           -     SELECT count(*), 1 FROM t\n");
		expect(text).toContain("\n      ERROR 0A000: the aggregate count() is not supported across shards\n");
		expect(text).toMatch(/\n {6}DETAIL: .+\n {6}HINT: Name one shard/);
	});

	test.each([
		["SELEC 1", '42601: syntax error at or near "SELEC"'],
		["SET pgdog.role = 'x'", '22023: invalid value for parameter "pgdog.role": "x"'],
		["/* pgdog_shard: 7 */ SELECT 1", "58000: no such shard: 7"],
	])("%s", (sql, error) => {
		expect(lines(sql)[1]).toStartWith(`ERROR ${error}`);
		expect(routeFile(SHARDS, undefined, sql).isRefused).toBe(true);
	});
});

test("a statement ends where PostgreSQL ends it", () => {
	const body = "BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END";
	const sql = `SELECT ';' /* ; */, $$;$$;;\n; CREATE FUNCTION f() RETURNS int ${body};\n-- ;\nSELECT 1;`;
	expect(lines(sql).map((line) => line.replace(/ \w+ \w+ statement -/, ""))).toEqual([
		"1 SELECT ';' /* ; */, $$;$$",
		`2 CREATE FUNCTION f() RETURNS int ${body}`,
		"4 SELECT 1",
	]);
	expect(lines("")).toEqual([]);
	expect(lines(`SELECT ${"1, ".repeat(50)}1`)[0]).toEndWith(`${"1, ".repeat(30)}1,…`);
});

test("the database has to be known", () => {
	const two = snapshot(server("") + server("").replace('"app"', '"other"'));
	const error = (database?: string, of = two) => {
		try {
			return routeFile(of, database, "SELECT 1").text;
		} catch (error) {
			return (error as Error).message;
		}
	};
	expect(error()).toBe('--database has to say which: there are "app", "other"');
	expect(error("ap")).toBe('there is no database "ap": there are "app", "other"');
	expect(error("other")).toContain("SELECT 1");
	expect(error(undefined, snapshot(""))).toBe("--database has to say which: there are none");
	expect(error("any", snapshot(server("").replace('"app"', '"*"')))).toContain("SELECT 1");
});
