// Settings as sets, the SQL that turns one into another, and what that SQL does on a real PostgreSQL.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Client } from "pg";
import {
	changeParameters,
	type ParameterSet,
	ParameterSets,
	quoteIdentifier,
	quoteLiteral,
} from "../../src/backend/parameters.ts";
import { sessionFacts } from "../../src/parser/session.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { rejects } from "../support/rejects.ts";

const sets = new ParameterSets();
const set = (values: Record<string, string>) => sets.of(new Map(Object.entries(values)));

describe("sets", () => {
	test("with the same settings are the same object, in whatever order they were given", () => {
		expect(set({ a: "1", b: "2" })).toBe(set({ b: "2", a: "1" }));
		expect(set({})).toBe(sets.empty);
		expect(sets.with(sets.with(sets.empty, "a", "1"), "a", null)).toBe(sets.empty);
		expect(sets.with(sets.empty, "a", null)).toBe(sets.empty);
	});

	test("that differ are not taken for equal", () => {
		const text = fc.string({ unit: fc.constantFrom("a", "b", "=", " ", "'", ".") });
		const values = fc.dictionary(text, text, { maxKeys: 4 });
		fc.assert(
			fc.property(values, values, (a, b) => {
				expect(set(a).equals(set(b))).toBe(Bun.deepEquals(a, b));
			}),
		);
	});

	test("that fell out of the cache are equal all the same", () => {
		const small = new ParameterSets();
		const first = small.of(new Map([["a", "0"]]));
		for (let i = 1; i < 5_000; i++) small.of(new Map([["a", String(i)]]));
		const again = small.of(new Map([["a", "0"]]));
		expect(again).not.toBe(first);
		expect(again.equals(first)).toBe(true);
	});
});

describe("the SQL", () => {
	test.each([
		[{}, {}, ""],
		[{ a: "1" }, { a: "1" }, ""],
		[{}, { "app.x": "it's" }, "SELECT pg_catalog.set_config('app.x', 'it''s', false)"],
		[{ "app.x": "1" }, {}, 'RESET "app"."x"'],
		[{ a: "1", b: "1" }, { b: "2" }, "RESET \"a\"; SELECT pg_catalog.set_config('b', '2', false)"],
		[{ role: "x" }, {}, "RESET SESSION AUTHORIZATION; RESET ROLE"],
		[
			{ role: "x", a: "1" },
			{ role: "x", a: "2" },
			"RESET SESSION AUTHORIZATION; RESET ROLE; SELECT pg_catalog.set_config('a', '2', false), pg_catalog.set_config('role', 'x', false)",
		],
		[
			{},
			{ role: "r", session_authorization: "s", a: "1" },
			"SELECT pg_catalog.set_config('a', '1', false), pg_catalog.set_config('session_authorization', 's', false), pg_catalog.set_config('role', 'r', false)",
		],
	] as [Record<string, string>, Record<string, string>, string][])("from %j to %j", (from, to, sql) => {
		expect(changeParameters(set(from), set(to))).toBe(sql);
	});

	test("quotes what would end a literal or an identifier", () => {
		expect(quoteLiteral("a'b")).toBe("'a''b'");
		expect(quoteLiteral("a\\'b").trim()).toBe("E'a\\\\''b'");
		expect(quoteIdentifier('a"b')).toBe('"a""b"');
	});
});

describe("on a real PostgreSQL", () => {
	let cluster: Cluster;
	let client: Client;
	let fresh: Map<string, string>;

	const current = async (name: string) =>
		(await client.query("SELECT current_setting($1, true) AS value", [name])).rows[0].value as string | null;

	beforeAll(async () => {
		cluster = await startPostgres();
		await cluster.primary.sql("CREATE ROLE alice; CREATE ROLE bob; GRANT CREATE ON SCHEMA public TO alice, bob");
		client = new Client({ connectionString: cluster.primary.url() });
		await client.connect();
		fresh = new Map();
		for (const name of Object.keys(VALUES)) if (!name.includes(".")) fresh.set(name, (await current(name)) ?? "");
	}, 60_000);
	afterAll(async () => {
		await client?.end();
		await cluster?.stop();
	});

	const text = fc.string({
		unit: fc.constantFrom("a", "'", '"', "\\", ",", ".", "$", ";", " ", "é", "\n", "--", "/*"),
	});
	const VALUES: Record<string, fc.Arbitrary<string>> = {
		"app.tenant": text,
		"app.x": text,
		"session.id": text,
		search_path: fc.constantFrom('"$user", public', "pg_catalog", '"a,b", "c""d"', '""', "public, pg_temp"),
		datestyle: fc.constantFrom("ISO, MDY", "German, DMY", "SQL, DMY", "Postgres, MDY"),
		timezone: fc.constantFrom("UTC", "Europe/Berlin", "<-08>+08", "<+03>-03"),
		application_name: fc.constantFrom("", "x'y", "a\\b", 'a"b'),
		work_mem: fc.constantFrom("64kB", "8MB", "1GB"),
		statement_timeout: fc.constantFrom("0", "1min", "1500ms"),
		role: fc.constantFrom("alice", "bob"),
		session_authorization: fc.constantFrom("alice", "bob"),
		extra_float_digits: fc.constantFrom("0", "3"),
	};
	const some = fc.record(VALUES, { requiredKeys: [] }).map((values) =>
		// An ordinary role may not become another: only the superuser that logged in may.
		values.session_authorization !== undefined ? { ...values, role: "none" } : values,
	);
	const clean = (values: Record<string, string | undefined>) =>
		Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== "none")) as Record<
			string,
			string
		>;

	async function change(from: ParameterSet, to: ParameterSet): Promise<void> {
		const sql = changeParameters(from, to);
		if (sql !== "") await client.query(sql);
	}

	test("from any settings to any others, all have their values and the rest their defaults", async () => {
		await fc.assert(
			fc.asyncProperty(some, some, async (a, b) => {
				const from = set(clean(a));
				const to = set(clean(b));
				await change(sets.empty, from);
				await change(from, to);
				for (const name of Object.keys(VALUES)) {
					const value = await current(name);
					const expected = to.values.get(name) ?? fresh.get(name);
					// A custom setting that was reset is empty, not unknown, as PostgreSQL itself does it.
					if (expected !== undefined) expect([name, value]).toEqual([name, expected]);
					else expect(value ?? "").toBe("");
				}
				await change(to, sets.empty);
				expect((await client.query("SELECT current_user AS u, session_user AS s")).rows[0]).toEqual({
					u: "postgres",
					s: "postgres",
				});
			}),
			{ numRuns: 60 },
		);
	});

	test("a set that is refused changes nothing", async () => {
		const to = set({ "app.tenant": "new", work_mem: "much" });
		await change(sets.empty, set({ "app.tenant": "old" }));
		await rejects(change(set({ "app.tenant": "old" }), to), "work_mem");
		expect(await current("app.tenant")).toBe("old");
		await change(set({ "app.tenant": "old" }), sets.empty);
	});

	// If it were followed, taking it back would fail at the next client's checkout.
	test("no setting is followed that cannot be reset", async () => {
		const { rows } = await client.query(
			"SELECT name FROM pg_settings WHERE 'NO_RESET' = ANY (pg_settings_get_flags(name)) UNION SELECT 'seed'",
		);
		expect(rows.length).toBeGreaterThan(3);
		for (const { name } of rows) {
			expect([name, sessionFacts(`SET ${name} = 1`).sets]).toEqual([name, []]);
			expect([name, sessionFacts(`SELECT set_config('${name}', '1', false)`).sets]).toEqual([name, []]);
			expect([name, sessionFacts(`RESET ${name}`).resets]).toEqual([name, []]);
		}
	});

	// What we think SET means is what PostgreSQL does: the setting that it changed is one that the facts name.
	test.each([
		["SET session.user_id = 'v'", "session.user_id"],
		["SET local.user_id = 'v'", "local.user_id"],
		["SET role.id = 'v'", "role.id"],
		["SET time.zone = 'v'", "time.zone"],
		["SET App.\"Tenant\" = 'v'", "app.tenant"],
		["SET SESSION SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "default_transaction_read_only"],
		["SET NAMES 'latin1'", "client_encoding"],
		["SET SCHEMA 'x'", "search_path"],
		["SET XML OPTION DOCUMENT", "xmloption"],
		["SET TIME ZONE -3", "timezone"],
		["SELECT set_config('Work_Mem', '1MB', false)", "work_mem"],
	])("%s changes %s", async (sql, name) => {
		const before = await current(name);
		await client.query(sql);
		expect(await current(name)).not.toBe(before);
		expect(sessionFacts(sql).sets).toContain(name);
		await client.query("RESET ALL");
	});
});
