// What a client can leave on a server, and whether the cure cures: on a real PostgreSQL.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { Client } from "pg";
import { cleaning } from "../../src/backend/clean.ts";
import { Dirty, sessionFacts } from "../../src/parser/session.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
	await cluster.primary.sql("CREATE ROLE alice");
}, 60_000);
afterAll(() => cluster?.stop());

/** All that stays with a session, in one row. */
const LEFT = `SELECT
	(SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND pg_table_is_visible(oid))::int AS temporary,
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())::int AS locks,
	(SELECT count(*) FROM pg_listening_channels())::int AS channels,
	(SELECT count(*) FROM pg_cursors WHERE name = 'c')::int AS cursors,
	(SELECT count(*) FROM pg_prepared_statements)::int AS prepared,
	current_setting('work_mem') AS work_mem,
	COALESCE(current_setting('app.tenant', true), '') AS tenant,
	current_user::text AS who`;
const NOTHING = {
	temporary: 0,
	locks: 0,
	channels: 0,
	cursors: 0,
	prepared: 0,
	work_mem: "4MB",
	tenant: "",
	who: "postgres",
};

async function withClient(run: (client: Client) => Promise<void>): Promise<void> {
	const client = new Client({ connectionString: cluster.primary.url() });
	await client.connect();
	try {
		await run(client);
	} finally {
		await client.end();
	}
}

test.each([
	"CREATE TEMP TABLE t (a int)",
	"SELECT 1 AS a INTO TEMPORARY t",
	"CREATE TABLE pg_temp.t (a int)",
	"SET search_path = 'pg_temp'; CREATE TABLE t (a int); RESET search_path",
	"SELECT pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_try_advisory_lock(3)",
	"LISTEN a; LISTEN b",
	"DECLARE c CURSOR WITH HOLD FOR SELECT 1",
	"PREPARE p AS SELECT 1",
	"UPDATE pg_settings SET setting = '1024' WHERE name = 'work_mem'",
	"DO $$ BEGIN PERFORM set_config('app.tenant', 'x', false); END $$",
	"DO $$ BEGIN EXECUTE 'CREATE TE' || 'MP TABLE t (a int)'; END $$",
	"DO $$ BEGIN SET ROLE alice; END $$",
	"SELECT set_config(name, '1MB', false) FROM (SELECT 'work_mem' AS name) x",
])("%s leaves something, is found out, and is cleaned", async (sql) => {
	await withClient(async (client) => {
		await client.query(sql);
		expect((await client.query(LEFT)).rows[0]).not.toEqual(NOTHING);
		const cure = cleaning(sessionFacts(sql).dirty);
		expect(cure).not.toBeNull();
		await client.query(cure ?? "");
		expect((await client.query(LEFT)).rows[0]).toEqual(NOTHING);
	});
});

test("everything at once is cleaned by one query", async () => {
	await withClient(async (client) => {
		await client.query(
			"CREATE TEMP TABLE t (a int); SELECT pg_advisory_lock(1); LISTEN a; DECLARE c CURSOR WITH HOLD FOR SELECT 1; PREPARE p AS SELECT 1; SET work_mem = '1MB'; SET app.tenant = 'x'; SET ROLE alice",
		);
		await client.query(cleaning(Dirty.Everything) ?? "");
		expect((await client.query(LEFT)).rows[0]).toEqual(NOTHING);
	});
});

test("nothing to clean is no query, and LOAD is beyond cleaning", () => {
	expect(cleaning(Dirty.None)).toBe("");
	expect(cleaning(Dirty.Beyond)).toBeNull();
	expect(cleaning(Dirty.Everything | Dirty.Beyond)).toBeNull();
});
