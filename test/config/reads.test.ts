// Settings that say where reads go: roles that are found out, read-only clusters, functions that write, and the warnings of
// those that come to nothing with the servers that there are.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { load } from "../../src/config/load.ts";
import { problemText } from "../../src/config/problem.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-reads-"));
afterAll(() => rmSync(folder, { recursive: true }));
const configPath = join(folder, "pgdog.toml");
const usersPath = join(folder, "users.toml");

function loadText(config: string, users = "") {
	writeFileSync(configPath, config);
	writeFileSync(usersPath, users);
	return load({ configPath, usersPath, databaseUrls: [], overrides: {}, env: {} });
}

function snapshot(config: string, users = ""): Snapshot {
	const loaded = loadText(config, users);
	if (!loaded.ok) throw new Error(loaded.problems.map(problemText).join("\n"));
	return loaded.snapshot;
}

// Three lines, four with a role.
const PRIMARY = '[[databases]]\nname = "app"\nhost = "127.0.0.1"\n';
const REPLICA = `${PRIMARY}role = "replica"\n`;
const AUTO = `${PRIMARY}role = "auto"\n`;
const AUTOS = `${AUTO}${AUTO}port = 5433\n`;
const ALICE = '[[users]]\nname = "alice"\ndatabase = "app"\npassword = "pw"\n';
const BOB = '[[users]]\nname = "bob"\ndatabase = "app"\npassword = "pw"\n';

describe("servers that are asked for their role", () => {
	test("make a shard without a warning that it has no primary", () => {
		const made = snapshot(`${AUTOS}${PRIMARY}shard = 1`, ALICE);
		expect(made.clusters[0]!.pools.map(({ key }) => key)).toEqual([
			"alice@app/0/auto/127.0.0.1:5432",
			"alice@app/0/auto/127.0.0.1:5433",
			"alice@app/1/primary/127.0.0.1:5432",
		]);
		expect(made.warnings).toEqual([]);
	});

	test("leave the servers of another shard as they are given", () => {
		const made = snapshot(`${AUTOS}${REPLICA}shard = 1\n`, ALICE);
		expect(made.clusters[0]!.pools.map(({ role }) => role)).toEqual(["auto", "auto", "replica"]);
		expect(made.warnings).toEqual([
			`${configPath}:10: database "app" has no primary of shard 1: nothing can be written there`,
		]);
	});

	test("are each named when they stand beside several of given roles", () => {
		const loaded = loadText(PRIMARY + REPLICA + AUTOS);
		expect(loaded.ok ? [] : loaded.problems.map(problemText)).toEqual([
			`${configPath}:11: databases[2].role = "auto": accepted is "primary", "replica", since databases[0] of shard 0 of "app" is "primary"`,
			`${configPath}:15: databases[3].role = "auto": accepted is "primary", "replica", since databases[0] of shard 0 of "app" is "primary"`,
		]);
		expect(loaded.ok ? undefined : loaded.warnings).toEqual([]);
	});

	test("have the sizes of no role, and those of a role are warned of where they stand", () => {
		const config = `[general]\ndefault_pool_size = 7\n${AUTO}pool_size_primary = 3\nidle_timeout_replica = 4`;
		const users = `${ALICE}min_pool_size_replica = 2\npool_size_replica = 5\n${BOB}pool_size = 6`;
		const made = snapshot(config, users);
		expect(made.clusters.map(({ pools }) => pools[0])).toMatchObject([
			{ pool_size: 7, min_pool_size: 1, idle_timeout: 60_000 },
			{ pool_size: 6, min_pool_size: 1, idle_timeout: 60_000 },
		]);
		expect(made.warnings).toEqual([
			`${configPath}:7: databases[0].pool_size_primary has no effect with role = "auto": write pool_size`,
			`${configPath}:8: databases[0].idle_timeout_replica has no effect with role = "auto": write idle_timeout`,
			`${usersPath}:5: user "alice": min_pool_size_replica has no effect for database "app", whose servers have role = "auto"`,
			`${usersPath}:6: user "alice": pool_size_replica has no effect for database "app", whose servers have role = "auto"`,
		]);
	});
});

describe("a cluster is read only", () => {
	test.each<[string, boolean, string, string, string]>([
		["when all its entries say so", true, "read_only = true", "read_only = true", ""],
		["not when one of them does not", false, "read_only = true", "", ""],
		["when its user says so", true, "", "", "read_only = true"],
		["not when its user says no", false, "read_only = true", "read_only = true", "read_only = false"],
	])("%s", (_, readOnly, primary, replica, user) => {
		const made = snapshot(`${PRIMARY}${primary}\n${REPLICA}${replica}`, `${ALICE}${user}`);
		expect(made.clusters[0]!.readOnly).toBe(readOnly);
	});
});

describe("what comes to nothing is warned of:", () => {
	const warnings = (general: string, databases: string): string[] => {
		const made = snapshot(`${databases}[general]\n${general}`, ALICE);
		return made.warnings.map((warning) => warning.replace(`${configPath}:`, ""));
	};

	test("a primary that is excluded from reads where there is no other server", () => {
		const split = 'read_write_split = "exclude_primary"';
		const told = (line: number, shard: number) =>
			`${line}: database "app" has no replica of shard ${shard}: its primary is read from, in spite of ${split}`;
		expect(warnings(split, PRIMARY)).toEqual([told(1, 0)]);
		expect(warnings(split, AUTO)).toEqual([told(1, 0)]);
		expect(warnings(split, `${PRIMARY}${REPLICA}${PRIMARY}shard = 1\n`)).toEqual([told(8, 1)]);
		expect(warnings(split, PRIMARY + REPLICA)).toEqual([]);
		expect(warnings(split, AUTOS)).toEqual([]);
	});

	test.each([
		"ban_replica_lag = 1",
		"ban_replica_lag_bytes = 1",
		'read_after_write = "lsn"',
		'read_after_write = "primary"',
	])("%s where no replica can be compared with a primary", (setting) => {
		const name = setting.split(" ")[0]!;
		const none = (line: number) => `${line}: general.${name} has no effect: no shard has both a primary and a replica`;
		expect(warnings(setting, PRIMARY)).toEqual([none(5)]);
		expect(warnings(setting, AUTO)).toEqual([none(6)]);
		expect(warnings(setting, `${REPLICA}${REPLICA}port = 5433\n`)).toContain(none(11));
		expect(warnings(setting, `${PRIMARY}${REPLICA}shard = 1\n`)).toContain(none(10));
		expect(warnings(setting, PRIMARY + REPLICA)).toEqual([]);
		expect(warnings(setting, AUTOS)).toEqual([]);
		// Before there is any database there is nothing to which it could apply.
		expect(snapshot(`[general]\n${setting}`).warnings).toEqual([]);
	});

	test("bans for lag where bans are turned off", () => {
		expect(warnings("ban_timeout = 0\nban_replica_lag = 1\nban_replica_lag_bytes = 1", PRIMARY + REPLICA)).toEqual([
			"10: general.ban_replica_lag has no effect with ban_timeout = 0, which turns bans off",
			"11: general.ban_replica_lag_bytes has no effect with ban_timeout = 0, which turns bans off",
		]);
	});

	test("weights with another strategy, once for each database", () => {
		const weighted = `${PRIMARY}lb_weight = 2\n${REPLICA}lb_weight = 1\n`;
		expect(warnings("", weighted)).toEqual([
			'4: databases[0].lb_weight has no effect without load_balancing_strategy = "weighted_round_robin"',
		]);
		expect(warnings('load_balancing_strategy = "weighted_round_robin"', weighted)).toEqual([]);
	});

	test("weights that are all 0", () => {
		const strategy = 'load_balancing_strategy = "weighted_round_robin"';
		const zero = "lb_weight = 0\n";
		expect(warnings(strategy, `${PRIMARY}${zero}${REPLICA}${zero}`)).toEqual([
			'4: database "app": all servers of shard 0 have lb_weight = 0: reads are shared out evenly',
		]);
		expect(warnings(strategy, `${PRIMARY}${zero}${REPLICA}`)).toEqual([]);
		expect(warnings(strategy, `${PRIMARY}${zero}`)).toEqual([]);
	});
});

describe("functions that write", () => {
	const functions = (...names: string[]) =>
		loadText(names.map((name) => `[[write_functions]]\nname = '''${name}'''\n`).join(""));
	const read = (...names: string[]) => {
		const loaded = functions(...names);
		return loaded.ok ? loaded.snapshot.writeFunctions : loaded.problems.map(({ wrong, key }) => `${key}: ${wrong}`);
	};

	test("are folded as SQL folds names, ASCII letters only, and stand there once", () => {
		const names = [
			"Touch",
			"App.Touch_2",
			'"Touch"',
			'"My App".touch',
			'a."say ""hi"" x"',
			"touch",
			"ÄRGER$1",
			'"a.b"',
		];
		expect(read(...names)).toEqual(["touch", "app.touch_2", "Touch", "My App.touch", 'a.say "hi" x', "Ärger$1", "a.b"]);
		expect(read()).toEqual([]);
	});

	test("may have names as long as PostgreSQL keeps them, and none longer", () => {
		const longest = `${"s".repeat(63)}.${"f".repeat(63)}`;
		expect(read(longest)).toEqual([longest]);
		expect(read("f".repeat(64), "é".repeat(32))).toEqual([
			"write_functions[0].name: value",
			"write_functions[1].name: value",
		]);
	});

	test.each([
		"",
		" touch",
		"a..b",
		".a",
		"a.",
		"a.b.c",
		"1a",
		"a-b",
		'a"b',
		'"a',
		'""',
		'"a"b',
		"a b",
		"touch()",
		"$1",
	])("are no names in SQL: '%s'", (name) => {
		expect(read(name)).toEqual(["write_functions[0].name: value"]);
	});

	test("of any name at all are what they were before they were quoted", () => {
		const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 15 });
		fc.assert(
			fc.property(name, name, (schema, each) => {
				const parts = [schema, each];
				const quoted = parts.map((part) => `"${part.replaceAll('"', '""')}"`).join(".");
				const loaded = loadText(`[[write_functions]]\nname = ${JSON.stringify(quoted)}`);
				const known = loaded.ok ? loaded.snapshot.writeFunctions : "refused";
				const isLong = parts.some((part) => Buffer.byteLength(part) > 63);
				expect(known).toEqual(isLong ? "refused" : [parts.join(".")]);
			}),
		);
	});
});
