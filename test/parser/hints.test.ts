// What asks something of routing and, as much, what only looks as if it did.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PgError } from "../../src/errors.ts";
import {
	commentHints,
	type Hints,
	isOwnSetting,
	NO_HINTS,
	type OwnSetting,
	ownName,
	ownSetting,
	parseRole,
	parseShard,
} from "../../src/parser/hints.ts";

const set = (name: "role" | "shard" | "sharding_key", value: string | null, local = false): OwnSetting => ({
	kind: "set",
	name,
	value,
	local,
});

describe("a setting of ours", () => {
	const SETTINGS: [string, OwnSetting][] = [
		["SET pgdog.role = primary", set("role", "primary")],
		["SET pgdog.role TO replica", set("role", "replica")],
		["set PGDOG.Role to 'Replica';", set("role", "Replica")],
		['SET "pgdog"."ROLE" = "Primary"', set("role", "Primary")],
		['SET "pgdog.role" = primary', set("role", "primary")],
		["SET SESSION pgdog.shard = 1", set("shard", "1")],
		["SET LOCAL pgdog.shard TO 007", set("shard", "7", true)],
		["SET pgdog . shard=+0", set("shard", "0")],
		["SET pgdog.shard = -1", set("shard", "-1")],
		["SET pgdog.shard = 1.50", set("shard", "1.50")],
		["SET pgdog.shard TO DEFAULT", set("shard", null)],
		["SET LOCAL pgdog.shard = DEFAULT", set("shard", null, true)],
		["SET pgdog.shard TO 'default'", set("shard", "default")],
		['SET pgdog.sharding_key TO "default"', set("sharding_key", "default")],
		["SET pgdog.sharding_key = 'it''s'", set("sharding_key", "it's")],
		["SET pgdog.sharding_key = E'a'", set("sharding_key", "a")],
		["SET pgdog.sharding_key = $$a'b$$", set("sharding_key", "a'b")],
		["SET pgdog.sharding_key = ''", set("sharding_key", "")],
		["SET pgdog.sharding_key = 12345678901234567890", set("sharding_key", "12345678901234567890")],
		["/* a */ SET -- b\n pgdog.role /* c /* d */ */ = primary ; -- e", set("role", "primary")],
		[" ; SET pgdog.role = primary; ; ", set("role", "primary")],
		["RESET pgdog.role", { kind: "reset", name: "role" }],
		["reset pgdog.shard;", { kind: "reset", name: "shard" }],
		["RESET ALL", { kind: "reset", name: "all" }],
		["DISCARD ALL;", { kind: "reset", name: "all" }],
		["SHOW pgdog.role", { kind: "show", name: "role" }],
		['SHOW "PGDOG".sharding_key', { kind: "show", name: "sharding_key" }],
	];
	test.each(SETTINGS)("%s is one", (sql, setting) => {
		expect(ownSetting(sql)).toEqual(setting);
	});

	const OTHERS = [
		"",
		";",
		"SELECT 1",
		"SET",
		"SET pgdog",
		"SET pgdog.role",
		"SET pgdog.role =",
		"SET pgdog.role = primary, replica",
		"SET pgdog.role primary",
		"SET pgdog.role = = primary",
		"SET pgdog.role == primary",
		"SET pgdog.role = primary; SELECT 1",
		"SELECT 1; SET pgdog.role = primary",
		"SET pgdog.role = primary; SET pgdog.shard = 1",
		"SET pgdog.roles = primary",
		"SET pgdog.role.x = primary",
		"SET x.pgdog.role = primary",
		"SET role = primary",
		"SET role pgdog",
		"SET work_mem = 'pgdog.role'",
		"SET LOCAL SESSION pgdog.role = primary",
		'SET "session" pgdog.role = primary',
		'"set" pgdog.role = primary',
		"SET pgdog.role TO DEFAULT 1",
		"SET pgdog.shard = - 'a'",
		"SET pgdog.shard = --1",
		"SET pgdog.shard = 1a",
		"SET pgdog.shard = 0x1",
		"SET pgdog.shard = $1",
		"SET pgdog.role FROM CURRENT",
		"SET pgdog.sharding_key = 'a\\b'",
		"SET pgdog.sharding_key = E'\\n'",
		"SET pgdog.sharding_key = B'1'",
		"SET pgdog.sharding_key = N'a'",
		"SET pgdog.sharding_key = U&'a'",
		"SET pgdog.sharding_key = 'a",
		"SET pgdog.role = primary /* never ends",
		"SET 'pgdog.role' = primary",
		"RESET pgdog.role, pgdog.shard",
		"RESET",
		'RESET "all"',
		"RESET ALL x",
		"RESET LOCAL pgdog.role",
		"RESET work_mem",
		"DISCARD",
		"DISCARD PLANS",
		"DISCARD ALL ALL",
		"SHOW ALL",
		"SHOW pgdog.shards",
		"SHOW pgdog.role x",
		"ALTER ROLE a SET pgdog.role = primary",
		"\0SET pgdog.role = primary",
	];
	test.each(OTHERS)("%s is none", (sql) => {
		expect(ownSetting(sql)).toBeNull();
	});

	test("is known by its name in any case", () => {
		for (const name of ["pgdog.role", "PGDOG.Shard", "pgdog.sharding_KEY"]) expect(isOwnSetting(name)).toBe(true);
		for (const name of ["role", "pgdog", "pgdog.", "pgdog.roles", "pgdog.role ", "pgdog.pin"]) {
			expect(isOwnSetting(name)).toBe(false);
		}
		expect(ownName("PgDog.Sharding_Key")).toBe("sharding_key");
	});

	test("has the value that it was given, whatever is in it", () => {
		fc.assert(
			fc.property(fc.string({ unit: "binary" }), (value) => {
				fc.pre(!value.includes("\\"));
				const quoted = (quote: string) => `${quote}${value.replaceAll(quote, quote + quote)}${quote}`;
				expect(ownSetting(`SET pgdog.sharding_key = ${quoted("'")}`)).toEqual(set("sharding_key", value));
				expect(ownSetting(`SET pgdog.sharding_key TO ${quoted('"')};`)).toEqual(set("sharding_key", value));
			}),
		);
	});
});

describe("values", () => {
	test("of a role are two, in any case", () => {
		expect(parseRole("primary")).toBe("primary");
		expect(parseRole("RePlica")).toBe("replica");
		expect(parseRole("")).toBeNull();
	});

	test("of a shard are numbers from 0", () => {
		expect(parseShard("0")).toBe(0);
		expect(parseShard("012")).toBe(12);
		expect(parseShard("")).toBeNull();
	});

	const refusal = (action: () => unknown): PgError => {
		try {
			action();
		} catch (error) {
			if (error instanceof PgError) return error;
		}
		throw new Error("it was accepted");
	};

	test.each(["auto", "any", " primary", "primary;", "prımary"])(
		"a role %p is refused in PostgreSQL's words",
		(value) => {
			expect(refusal(() => parseRole(value))).toMatchObject({
				severity: "ERROR",
				sqlstate: "22023",
				message: `invalid value for parameter "pgdog.role": "${value}"`,
				hint: "Available values: primary, replica.",
			});
		},
	);

	test.each(["-1", "1.5", "a", " 1", "0x1", "1e3", "9999999999", "٣"])("a shard %p is refused", (value) => {
		expect(refusal(() => parseShard(value))).toMatchObject({
			sqlstate: "22023",
			message: `invalid value for parameter "pgdog.shard": "${value}"`,
		});
	});
});

describe("a comment", () => {
	const hints = (some: Partial<Hints>): Hints => ({ ...NO_HINTS, ...some });
	const ASKING: [string, Partial<Hints>][] = [
		["/* pgdog_role: primary */ SELECT 1", { role: "primary" }],
		["/*pgdog_role:replica*/SELECT 1", { role: "replica" }],
		["SELECT 1 /* pgdog_role: replica */", { role: "replica" }],
		["SELECT 1; /* pgdog_role: replica */", { role: "replica" }],
		["SELECT 1 /* pgdog_role: replica */;", { role: "replica" }],
		["SELECT 1; /* pgdog_role: replica */ ; ", { role: "replica" }],
		["SELECT 1 /* pgdog_role: replica */; SELECT 2", {}],
		["SELECT 1; -- x\n/* pgdog_role: replica */ -- y", { role: "replica" }],
		["/* pgdog_shard: 12 */ SELECT 1", { shard: 12 }],
		["/* pgdog_sharding_key: abc-1 */ SELECT 1", { shardingKey: "abc-1" }],
		["/* pgdog_sharding_key: -5 */ SELECT 1", { shardingKey: "-5" }],
		['/* pgdog_sharding_key: "a b_c" */ SELECT 1', { shardingKey: "a b_c" }],
		["/* pgdog_sharding_key: 'a b\"c' */ SELECT 1", { shardingKey: 'a b"c' }],
		[
			"/* pgdog_role: primary pgdog_shard: 1, pgdog_sharding_key: 2 */ VALUES (1)",
			{ role: "primary", shard: 1, shardingKey: "2" },
		],
		["/* pgdog_role: primary */ /* pgdog_shard: 1 */ SELECT 1", { role: "primary", shard: 1 }],
		["/* pgdog_role: primary */ SELECT 1 /* pgdog_role: replica, pgdog_shard: 2 */", { role: "primary", shard: 2 }],
		["/* pgdog_role: master */ SELECT 1 /* pgdog_role: replica */", { role: "replica" }],
		["SELECT 1 /*controller='x',pgdog_shard:3,traceparent='00-ab'*/", { shard: 3 }],
		["/* a /* pgdog_role: primary */ b */ SELECT 1", { role: "primary" }],
		["-- '\n/* pgdog_role: primary */ SELECT 'a' -- b", { role: "primary" }],
		["/* pgdog_role: primary */", { role: "primary" }],
		["SELECT 'a\\' /* pgdog_role: replica */", { role: "replica" }],
		["SELECT U&'a\\' /* pgdog_role: replica */", { role: "replica" }],
		["/* pgdog_role: primary */ SELECT 'never ends", { role: "primary" }],
	];
	const asks = (some: Partial<Hints>) => Object.keys(some).length > 0;
	test.each(ASKING.filter(([, some]) => asks(some)))("%s asks", (sql, some) => {
		expect(commentHints(sql)).toEqual(hints(some));
	});

	const SILENT = [
		...ASKING.filter(([, some]) => !asks(some)).map(([sql]) => sql),
		"",
		"SELECT 1",
		"SELECT /* pgdog_role: primary */ 1",
		"-- pgdog_role: primary\nSELECT 1",
		"SELECT 1 -- pgdog_role: primary",
		"SELECT 1 -- /* pgdog_role: primary */",
		"SELECT 1 /* a */ + 2 -- pgdog_shard: 1",
		"SELECT '/* pgdog_role: primary */'",
		"SELECT $$ /* pgdog_role: primary */ $$",
		'SELECT 1 AS "/* pgdog_role: primary */"',
		"SELECT pgdog_role",
		"/* pgdog_role: leader */ SELECT 1",
		"/* pgdog_role primary */ SELECT 1",
		"/* pgdog_shard: one */ SELECT 1",
		"/* pgdog_shard: -1 */ SELECT 1",
		"/* pgdog_shard: 1x */ SELECT 1",
		"/* pgdog_sharding_key: '' */ SELECT 1",
		// What goes on behind a bare key would make another key of it.
		"/* pgdog_sharding_key: a_b */ SELECT 1",
		"/* pgdog_sharding_key: müller */ SELECT 1",
		"/* my_pgdog_role: primary */ SELECT 1",
		"/* pgdog_role: primary",
		"SELECT 1 /* pgdog_role: primary /* */",
		"SELECT 'a /* pgdog_role: primary */",
	];
	test.each(SILENT)("%s asks for nothing", (sql) => {
		expect(commentHints(sql)).toBeNull();
	});

	test("never makes the reader fail", () => {
		const piece = fc.constantFrom(
			"/*",
			"*/",
			"--",
			"\n",
			"'",
			'"',
			"$$",
			"\\",
			";",
			"pgdog_role: primary",
			"x",
			" ",
			"U&'",
		);
		fc.assert(
			fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
				const sql = pieces.join("");
				const found = commentHints(sql);
				if (found !== null) expect(found).toEqual(hints({ role: "primary" }));
				expect(ownSetting(sql)).toBeNull();
			}),
			{ numRuns: 2000 },
		);
	});
});
