// Two clients in turn on one server connection: each has the session that it made, and neither anything of the other's.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { errorFields } from "../support/message.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { connect, one } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
beforeAll(async () => {
	cluster = await startPostgres();
	proxy = await startProxy(
		simpleConfig(cluster.primary, {
			workers: 1,
			default_pool_size: 1,
			client_connection_recovery: "recover",
			pin_session_locks: false,
		}),
	);
});
afterAll(async () => {
	await proxy?.stop("SIGKILL");
	await cluster?.stop();
});

/** Two clients of the one server connection. */
async function two(
	parameters: [Record<string, string>, Record<string, string>] = [{}, {}],
): Promise<[RawClient, RawClient]> {
	return [await connect(proxy, { parameters: parameters[0] }), await connect(proxy, { parameters: parameters[1] })];
}

async function inTurn(
	a: RawClient,
	b: RawClient,
	check: (client: RawClient, name: "a" | "b") => Promise<void>,
): Promise<void> {
	for (let round = 0; round < 3; round++) {
		await check(a, "a");
		await check(b, "b");
	}
	a.close();
	b.close();
}

test("startup parameters, with options=-c, are the session's from its first query on", async () => {
	const [a, b] = await two([
		{
			application_name: "app a",
			options: "-c work_mem=3MB -c search_path=a,public --statement-timeout=70s",
			TimeZone: "Asia/Tokyo",
		},
		{ application_name: "app b", options: "-c geqo=off -c app.tenant=b\\ b", DateStyle: "German" },
	]);
	expect(a.parameters).toMatchObject({ application_name: "app a", TimeZone: "Asia/Tokyo", DateStyle: "ISO, MDY" });
	expect(b.parameters).toMatchObject({ application_name: "app b", TimeZone: "UTC", DateStyle: "German, DMY" });
	const want = {
		a: ["app a", "3MB", "a,public", "70s", "Asia/Tokyo", "on", null, "ISO, MDY"],
		b: ["app b", "4MB", '"$user", public', "0", "UTC", "off", "b b", "German, DMY"],
	};
	await inTurn(a, b, async (client, name) => {
		const { rows } = await client.query(
			`SELECT current_setting('application_name'), current_setting('work_mem'), current_setting('search_path'),
			current_setting('statement_timeout'), current_setting('TimeZone'), current_setting('geqo'),
			nullif(current_setting('app.tenant', true), ''), current_setting('DateStyle')`,
		);
		expect(rows).toEqual([want[name]]);
	});
});

test("RESET goes back to the startup parameter, not to the server's default", async () => {
	const [a, b] = await two([{ application_name: "mine", work_mem: "3MB" }, {}]);
	await a.query("SET work_mem = '9MB'; SET application_name = 'changed'");
	await b.query("SET work_mem = '8MB'");
	for (const how of [
		"RESET work_mem; RESET application_name",
		"RESET ALL",
		"SET work_mem TO DEFAULT; SET application_name TO DEFAULT",
		"DISCARD ALL",
	]) {
		await a.query("SET work_mem = '9MB'; SET application_name = 'changed'");
		expect((await a.query(how)).errors).toEqual([]);
		expect([how, await one(a, "SHOW work_mem"), await one(a, "SHOW application_name")]).toEqual([how, "3MB", "mine"]);
		expect(a.parameters.application_name).toBe("mine");
		expect(await one(b, "SHOW work_mem")).toBe("8MB");
	}
	a.close();
	b.close();
});

test("in a batch a RESET is seen by what is behind it, and a SET behind that is left alone", async () => {
	const [a, b] = await two([{ search_path: "mine" }, {}]);
	const look = "SELECT current_setting('search_path')";
	const steps = [look, "RESET search_path", look, "SET search_path = other", look, "SET search_path TO DEFAULT", look];
	a.send(...steps.flatMap((sql) => [f.parse(sql), f.bind(), f.execute()]), f.sync());
	expect((await a.result()).rows.flat()).toEqual(["mine", "mine", "other", "mine"]);
	a.send(...steps.slice(0, 5).flatMap((sql) => [f.parse(sql), f.bind(), f.execute()]), f.sync());
	await a.result();
	expect(await one(a, look)).toBe("other");
	const hidden = "SELECT 1 WHERE set_config('search_path', NULL, false) = '-'";
	const { rows } = await a.query([hidden, look, "SET search_path = other", look, hidden, look].join("; "));
	expect(rows.flat()).toEqual(["mine", "other", "mine"]);
	a.close();
	b.close();
});

/** As a client of that encoding sends it. */
function latin1Query(sql: string): Buffer {
	const length = Buffer.alloc(4);
	length.writeInt32BE(4 + sql.length + 1);
	return Buffer.concat([Buffer.from("Q"), length, Buffer.from(`${sql}\0`, "latin1")]);
}

const inBatch = (...steps: string[]) => [...steps.flatMap((sql) => [f.parse(sql), f.bind(), f.execute()]), f.sync()];

/** What is asked in one go, of a session whose StartupMessage had settings. */
const BEHIND_RESETS: [name: string, messages: Uint8Array[]][] = [
	...[
		"RESET ALL; SELECT 'é', chr(233), current_setting('work_mem')",
		"RESET ALL; SELECT 'é', '\\\\', chr(233); RESET work_mem; SELECT '§'; SELECT oops",
		"SELECT 'é'; RESET client_encoding; SELECT chr(233); RESET ALL; SELECT chr(233)",
		"SET work_mem = '9MB'; RESET work_mem; SHOW work_mem",
		"RESET work_mem; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation",
		"RESET work_mem; BEGIN ISOLATION LEVEL REPEATABLE READ; SHOW transaction_isolation; COMMIT",
		"BEGIN; RESET ALL; SET TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; COMMIT",
		"BEGIN; SET LOCAL work_mem TO DEFAULT; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW work_mem; COMMIT; SHOW work_mem",
		"RESET search_path; START TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW search_path; ROLLBACK; SHOW search_path",
		"SET work_mem TO DEFAULT; SET work_mem TO DEFAULT; SHOW work_mem; RESET work_mem; SET work_mem = '8MB'; SHOW work_mem",
		"RESET ALL; SELECT oops; SHOW work_mem",
		"RESET ALL; SET work_mem = '8MB'; RESET nothing; SHOW work_mem",
		"SHOW work_mem; DISCARD ALL",
		"DO $$ BEGIN RESET work_mem; END $$; SHOW work_mem; SET work_mem = '8MB'; RESET work_mem; SHOW work_mem",
		";; RESET work_mem;; /* ; */ SELECT 1 WHERE false;; RESET ALL; SELECT 'SET' AS \"SET\";",
		"RESET ALL; COMMIT; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation",
	].map((text): [string, Uint8Array[]] => [text, [latin1Query(text)]]),
	...[
		["RESET ALL", "SELECT chr(233)"],
		["RESET work_mem", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SHOW transaction_isolation", "SHOW work_mem"],
		["RESET ALL", "BEGIN ISOLATION LEVEL SERIALIZABLE", "SHOW transaction_isolation", "SHOW search_path", "COMMIT"],
		[
			"BEGIN",
			"SET LOCAL work_mem TO DEFAULT",
			"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
			"SHOW work_mem",
			"COMMIT",
		],
		["RESET work_mem", "SET work_mem = '8MB'", "RESET search_path", "SHOW work_mem"],
		["RESET work_mem", "RESET work_mem", "SET work_mem = '8MB'", "SHOW work_mem"],
	].map((steps): [string, Uint8Array[]] => [`a batch: ${steps.join("; ")}`, inBatch(...steps)]),
];

// What is put behind a RESET must be seen by nobody, and must not fix what a transaction may still choose.
test.each(BEHIND_RESETS)("%s: all is as PostgreSQL has it", async (_, messages) => {
	const parameters = {
		application_name: "mine",
		work_mem: "3MB",
		client_encoding: "LATIN1",
		search_path: "mine, public",
		TimeZone: "Asia/Tokyo",
	};
	const told = async (port: number) => {
		await using client = await connect(proxy, { port, parameters });
		client.send(...messages);
		const { messages: answers } = await client.result();
		const other = await client.query("SHOW ALL");
		const settings = other.rows.filter(([name]) => name! in parameters || name === "TimeZone");
		return {
			answers: answers
				.filter(({ code }) => code !== "S")
				.map(({ code, body }) => {
					if (code !== "E" && code !== "N") return code + body.toString("latin1");
					const { C, M, P } = errorFields(body);
					return [code, C, M, P];
				}),
			settings,
			reported: client.parameters,
		};
	};
	expect(await told(proxy.port)).toEqual(await told(cluster.port));
});

test("a startup parameter that cannot be set refuses the login, as PostgreSQL does, and harms nobody", async () => {
	const refused: Record<string, string>[] = [
		{ work_mem: "lots" },
		{ nothing_known: "1" },
		{ max_connections: "5" },
		{ options: "-c nothing=1" },
	];
	for (const parameters of refused) {
		const error = await connect(proxy, { parameters }).catch((e: Error) => e.message);
		const straight = await connect(proxy, { port: cluster.port, parameters }).catch((e: Error) => e.message);
		expect(straight).toContain("FATAL");
		expect(error).toBe(straight);
		await using other = await connect(proxy);
		expect(await one(other, "SELECT 1")).toBe("1");
	}
});

const SETTINGS: [name: string, a: string, b: string][] = [
	["application_name", "client a", "client b"],
	["work_mem", "5MB", "6MB"],
	["search_path", "a, public", "b, pg_temp"],
	["app.tenant", "tenant a", "tenant b"],
	["app.sub.name", "x", "y"],
	["TimeZone", "Europe/Prague", "America/New_York"],
	["DateStyle", "SQL, DMY", "German, DMY"],
	["statement_timeout", "1min", "2min"],
	["default_transaction_isolation", "serializable", "repeatable read"],
	["client_encoding", "LATIN1", "UTF8"],
	["bytea_output", "escape", "hex"],
	["extra_float_digits", "0", "2"],
];

for (const [name, ofA, ofB] of SETTINGS) {
	test(`SET ${name}: each client keeps its own`, async () => {
		const [a, b] = await two();
		const set = name === "search_path" ? [`${ofA}`, `${ofB}`] : [`'${ofA}'`, `'${ofB}'`];
		expect((await a.query(`SET ${name} = ${set[0]}`)).errors).toEqual([]);
		expect((await b.extended(`SET ${name} TO ${set[1]}`)).errors).toEqual([]);
		await using third = await connect(proxy);
		const fresh = await one(third, `SELECT nullif(current_setting('${name}', true), '')`);
		await inTurn(a, b, async (client, which) => {
			expect(await one(client, `SHOW ${name}`)).toBe(which === "a" ? ofA : ofB);
			expect(await one(third, `SELECT nullif(current_setting('${name}', true), '')`)).toBe(fresh);
		});
	});
}

const WAYS: [name: string, sql: string[], expected: string][] = [
	["SET SESSION", ["SET SESSION work_mem = '10MB'"], "10MB"],
	["SET in a block that commits", ["BEGIN", "SET work_mem = '10MB'", "COMMIT"], "10MB"],
	["SET in a block that rolls back", ["BEGIN", "SET work_mem = '10MB'", "ROLLBACK"], "7MB"],
	["SET in a block that fails", ["BEGIN", "SET work_mem = '10MB'", "SELECT 1/0", "COMMIT"], "7MB"],
	["SET before an error in one Query", ["SET work_mem = '10MB'; SELECT 1/0"], "7MB"],
	["SET LOCAL", ["BEGIN", "SET LOCAL work_mem = '10MB'", "COMMIT"], "7MB"],
	["SET then SET LOCAL", ["BEGIN", "SET work_mem = '10MB'; SET LOCAL work_mem = '11MB'", "COMMIT"], "10MB"],
	["ROLLBACK TO a savepoint before it", ["BEGIN; SAVEPOINT s; SET work_mem = '10MB'; ROLLBACK TO s; COMMIT"], "7MB"],
	["RELEASE of a savepoint", ["BEGIN; SAVEPOINT s; SET work_mem = '10MB'; RELEASE s; COMMIT"], "10MB"],
	["set_config", ["SELECT set_config('work_mem', '10MB', false)"], "10MB"],
	["set_config, upper case and qualified", ["SELECT PG_CATALOG.SET_CONFIG('Work_Mem', '10MB', FALSE)"], "10MB"],
	["set_config with an expression for is_local", ["SELECT set_config('work_mem', '10MB', 1 > 2)"], "10MB"],
	["set_config, local", ["BEGIN", "SELECT set_config('work_mem', '10MB', true)", "COMMIT"], "7MB"],
	["SET behind a comment", ["/* c */ -- d\n SET work_mem = '10MB'"], "10MB"],
	["SET as the second statement", ["SELECT 1; SET work_mem = '10MB'"], "10MB"],
	["SET with a quoted name", ["SET \"work_mem\" = '10MB'"], "10MB"],
	["SET in odd case and spacing", ["sEt\n\tWORK_MEM\tto\n'10MB'  ;  "], "10MB"],
	["SET that fails", ["SET work_mem = 'nonsense'"], "7MB"],
	["UPDATE of pg_settings", ["UPDATE pg_settings SET setting = '10240' WHERE name = 'work_mem'"], "10MB"],
	["a DO block", ["DO $$ BEGIN SET work_mem = '10MB'; END $$"], "10MB"],
	["a DO block with EXECUTE", ["DO $$ BEGIN EXECUTE 'SET work' || '_mem = ''10MB'''; END $$"], "10MB"],
	["a transaction with COMMIT AND CHAIN", ["BEGIN; SET work_mem = '10MB'; COMMIT AND CHAIN", "ROLLBACK"], "10MB"],
	[
		"two changes, the last one rolled back",
		["SET work_mem = '10MB'", "BEGIN; SET work_mem = '11MB'; ROLLBACK"],
		"10MB",
	],
];

for (const [name, statements, expected] of WAYS) {
	test(`${name}: the client has what PostgreSQL says it has, the other one nothing of it`, async () => {
		const [a, b] = await two();
		await a.query("SET work_mem = '7MB'");
		expect(await one(b, "SHOW work_mem")).toBe("4MB");
		for (const sql of statements) await a.query(sql);
		expect(await one(b, "SHOW work_mem")).toBe("4MB");
		expect(await one(a, "SHOW work_mem")).toBe(expected);
		await using straight = await connect(proxy, { port: cluster.port });
		await straight.query("SET work_mem = '7MB'");
		for (const sql of statements) await straight.query(sql);
		expect(await one(straight, "SHOW work_mem")).toBe(expected);
		a.close();
		b.close();
	});
}

test("set_config with parameters: name and value come with Bind", async () => {
	const [a, b] = await two();
	await a.extended("SELECT set_config($1, $2, false)", ["work_mem", "10MB"]);
	await b.extended("SELECT set_config('app.tenant', $1, $2)", ["b", "false"]);
	expect(await one(b, "SHOW work_mem")).toBe("4MB");
	expect(await one(a, "SHOW work_mem")).toBe("10MB");
	expect(await one(a, "SELECT coalesce(current_setting('app.tenant', true), '')")).toBe("");
	expect(await one(b, "SHOW app.tenant")).toBe("b");
	a.close();
	b.close();
});

test("SET LOCAL of a tenant in each transaction, as row level security is used", async () => {
	const [a, b] = await two();
	await inTurn(a, b, async (client, name) => {
		await client.query("BEGIN");
		await client.extended("SELECT set_config('app.tenant', $1, true)", [name]);
		expect(await one(client, "SELECT current_setting('app.tenant')")).toBe(name);
		await client.query("COMMIT");
		expect(await one(client, "SELECT current_setting('app.tenant')")).toBe("");
	});
});

test("role and session authorization", async () => {
	const [a, b] = await two();
	await a.query("SET ROLE pg_monitor");
	expect(await one(b, "SELECT current_user")).toBe("pgdog");
	expect(await one(a, "SELECT current_user")).toBe("pg_monitor");
	await b.query("SET SESSION AUTHORIZATION pgdog");
	await a.query("SET work_mem = '5MB'");
	expect(await one(b, "SELECT current_user || session_user")).toBe("pgdogpgdog");
	expect(await one(a, "SELECT current_user || ' ' || session_user || ' ' || current_setting('work_mem')")).toBe(
		"pg_monitor pgdog 5MB",
	);
	await a.query("RESET ROLE");
	expect(await one(a, "SELECT current_user")).toBe("pgdog");
	await a.query("SET ROLE pg_monitor; SET ROLE NONE");
	expect(await one(a, "SELECT current_user")).toBe("pgdog");
	expect((await a.query("SET ROLE postgres")).errors[0]?.C).toBe("42501");
	expect(await one(a, "SELECT current_user")).toBe("pgdog");
	expect(await one(b, "SELECT current_user")).toBe("pgdog");
	a.close();
	b.close();
});

test("ParameterStatus follows the client, not the server", async () => {
	const [a, b] = await two();
	await a.query("SET TimeZone = 'Asia/Tokyo'; SET application_name = 'a'");
	expect(a.parameters).toMatchObject({ TimeZone: "Asia/Tokyo", application_name: "a" });
	await b.query("SELECT 1");
	expect(b.parameters).toMatchObject({ TimeZone: "UTC", application_name: "" });
	const before = b.received.length;
	for (let i = 0; i < 5; i++) {
		await a.query("SELECT 1");
		await b.query("SELECT 1");
	}
	expect(b.received.slice(before).filter(({ code }) => code === "S")).toEqual([]);
	await a.query("BEGIN; SET TimeZone = 'Europe/Prague'");
	expect(a.parameters.TimeZone).toBe("Europe/Prague");
	await a.query("ROLLBACK");
	expect(a.parameters.TimeZone).toBe("Asia/Tokyo");
	a.close();
	b.close();
});

const LEFTOVERS: [name: string, leave: string, look: string, clean: string | null][] = [
	["a temporary table", "CREATE TEMP TABLE leftover AS SELECT 1 AS x", "SELECT to_regclass('pg_temp.leftover')", null],
	["a temporary table, INTO", "SELECT 1 AS x INTO TEMPORARY leftover", "SELECT to_regclass('pg_temp.leftover')", null],
	[
		"a temporary table, by schema",
		"CREATE TABLE pg_temp.leftover (x int)",
		"SELECT to_regclass('pg_temp.leftover')",
		null,
	],
	["a temporary view", "CREATE TEMP VIEW leftover AS SELECT 1 AS x", "SELECT to_regclass('pg_temp.leftover')", null],
	["a temporary sequence", "CREATE LOCAL TEMPORARY SEQUENCE leftover", "SELECT to_regclass('pg_temp.leftover')", null],
	["an advisory lock", "SELECT pg_advisory_lock(7)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0"],
	[
		"a shared advisory lock, tried",
		"SELECT pg_try_advisory_lock_shared(7, 8)",
		"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
		"0",
	],
	["LISTEN", "LISTEN leftover", "SELECT count(*) FROM pg_listening_channels()", "0"],
	["a held cursor", "DECLARE leftover CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors", "0"],
	["PREPARE", "PREPARE leftover AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements WHERE from_sql", "0"],
	[
		"a DO block that does it all",
		"DO $$ BEGIN PERFORM pg_advisory_lock(9); CREATE TEMP TABLE leftover (x int); EXECUTE 'LISTEN leftover'; END $$",
		"SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') + (SELECT count(*) FROM pg_listening_channels()) + (to_regclass('pg_temp.leftover') IS NOT NULL)::int",
		"0",
	],
	["currval of a sequence", "SELECT nextval('counter')", "SELECT 1", "1"],
];

for (const [name, leave, look, clean] of LEFTOVERS) {
	test(`${name} is not there for the next client`, async () => {
		const [a, b] = await two();
		await cluster.primary.sql("CREATE SEQUENCE IF NOT EXISTS counter; GRANT ALL ON counter TO pgdog");
		for (const how of ["query", "extended", "block"] as const) {
			const { errors } =
				how === "query"
					? await a.query(leave)
					: how === "extended"
						? await a.extended(leave)
						: await a.query(`BEGIN; ${leave}; COMMIT`);
			expect([how, errors]).toEqual([how, []]);
			expect([how, await one(b, look)]).toEqual([how, clean]);
		}
		// A client that vanishes leaves no more than one that stays.
		await a.query(leave);
		a.reset();
		expect(await one(b, look)).toBe(clean);
		b.close();
	});
}

test("a client that vanishes in a transaction leaves no row, no lock and no setting", async () => {
	const [a, b] = await two();
	await b.query("CREATE TABLE IF NOT EXISTS rows_left (x int)");
	await a.query("BEGIN; SET work_mem = '9MB'; INSERT INTO rows_left VALUES (1); LOCK TABLE rows_left");
	await a.query("SELECT pg_advisory_xact_lock(1)");
	a.reset();
	expect(await one(b, "SELECT count(*) FROM rows_left")).toBe("0");
	expect(await one(b, "SHOW work_mem")).toBe("4MB");
	b.close();
});

test("a setting that the client cannot have any more is its own trouble", async () => {
	const [a, b] = await two();
	await cluster.primary.sql("CREATE ROLE passing; GRANT passing TO pgdog");
	await a.query("SET ROLE passing");
	await cluster.primary.sql("REVOKE passing FROM pgdog; DROP ROLE passing");
	for (let i = 0; i < 3; i++) expect(await one(b, "SELECT current_user")).toBe("pgdog");
	const { errors } = await a.query("SELECT current_user");
	expect(errors.length).toBeGreaterThan(0);
	for (let i = 0; i < 3; i++) expect(await one(b, "SELECT current_user")).toBe("pgdog");
	await using c = await connect(proxy);
	expect(await one(c, "SELECT current_user")).toBe("pgdog");
	a.close();
	b.close();
});

test("failed SETs of what nobody may set harm neither the client nor the next one", async () => {
	const [a, b] = await two();
	for (const sql of [
		"SET max_connections = 5",
		"SET data_directory = '/'",
		"SELECT set_config('port', '1', false)",
		"SET session_authorization = postgres",
		"SET nothing = 1",
		"SET log_statement = 'all'",
		"RESET max_connections",
		"RESET nothing",
	]) {
		await a.query(sql);
		expect([sql, await one(b, "SELECT 'b'")]).toEqual([sql, "b"]);
		expect([sql, await one(a, "SELECT 'a'")]).toEqual([sql, "a"]);
	}
	a.close();
	b.close();
});

test("a pipeline that sets and reads, and the unnamed statement behind it", async () => {
	const [a, b] = await two();
	a.send(
		...[f.parse("SET work_mem = '12MB'"), f.bind(), f.execute()],
		...[f.parse("SELECT current_setting('work_mem')"), f.bind(), f.execute(), f.sync()],
	);
	expect((await a.result()).rows).toEqual([["12MB"]]);
	expect(await one(b, "SHOW work_mem")).toBe("4MB");
	a.send(f.bind(), f.execute(), f.sync());
	expect((await a.result()).rows).toEqual([["12MB"]]);
	a.close();
	b.close();
});

test("set_config with NULL is RESET: by a literal and by a parameter, to what the client logged in with", async () => {
	const [a, b] = await two([{ application_name: "mine", work_mem: "3MB" }, {}]);
	const ask = "SELECT current_setting('application_name'), current_setting('work_mem')";
	for (const local of ["false", "true"]) {
		const byParameters = (client: RawClient, name: string) =>
			client.extended("SELECT set_config($1, $2, $3)", [name, null, local]);
		for (const set of [
			byParameters,
			async (client: RawClient, name: string) => client.query(`SELECT set_config('${name}', NULL, ${local})`),
			async (client: RawClient, name: string) => client.extended(`SELECT set_config('${name}', $1, ${local})`, [null]),
		]) {
			for (const [client, own] of [
				[a, ["mine", "3MB"]],
				[b, ["", "4MB"]],
			] as const) {
				await client.query("SET application_name = 'other'; SET work_mem = '9MB'; BEGIN");
				for (const name of ["application_name", "work_mem"]) expect((await set(client, name)).errors).toEqual([]);
				expect((await client.query(ask)).rows[0]).toEqual([...own]);
				await client.query("COMMIT");
				// Where the name is a parameter it cannot be seen that it was for the transaction only.
				const isSeen = local === "true" && (set !== byParameters || client === b);
				expect((await client.query(ask)).rows[0]).toEqual(isSeen ? ["other", "9MB"] : [...own]);
			}
		}
	}
	// Nothing is behind it but PostgreSQL's own default.
	expect(await one(b, "SELECT set_config('application_name', NULL, false)")).toBe("");
	a.close();
	b.close();
});
