import { expect, test } from "bun:test";
import fc from "fast-check";
import { shapeOf, showTime } from "../../src/admin/command.ts";
import { type Answered, answer, type CommandAnswer, understand } from "../../src/admin/commands.ts";
import { PgError } from "../../src/errors.ts";
import { Stat } from "../../src/stats/counters.ts";
import { Oid } from "../../src/wire/backend-messages.ts";
import { CLIENT, PlainSource, ROUTE, VERSION, VITALS } from "./support.ts";

async function ask(sql: string, source = new PlainSource()): Promise<Answered> {
	const said = await answer(sql, source);
	if ("error" in said) throw new Error(JSON.stringify(said.error));
	return said;
}

async function refused(sql: string, source = new PlainSource()) {
	const said = await answer(sql, source);
	if (!("error" in said)) throw new Error(`not refused: ${sql}`);
	return said.error;
}

/** The first row as an object. */
async function first(sql: string, source?: PlainSource): Promise<Record<string, string | null>> {
	const { columns, rows } = await ask(sql, source);
	return Object.fromEntries(columns.map(({ name }, i) => [name, rows[0]![i]!]));
}

const names = (said: Answered) => said.columns.map(({ name }) => name).join(", ");

// The lists are those of the reference, word for word.
const SHOWS: readonly [sql: string, tag: string, rows: number, columns: string][] = [
	[
		"SHOW CLIENTS",
		"SHOW CLIENTS",
		1,
		"id, user, database, addr, port, state, replication, connect_time, last_request, queries, transactions, transactions_2pc, wait_time, query_time, transaction_time, bytes_received, bytes_sent, errors, application_name, locked, prepared_statements, tls",
	],
	[
		"SHOW SERVERS",
		"SHOW",
		1,
		"pool_id, database, user, addr, port, state, connect_time, request_time, remote_pid, client_id, transactions, queries, rollbacks, prepared_statements, healthchecks, errors, bytes_received, bytes_sent, last_sent, last_received, age, application_name",
	],
	[
		"SHOW POOLS",
		"SHOW POOLS",
		3,
		"id, database, user, addr, port, shard, role, cl_waiting, sv_idle, sv_active, sv_idle_xact, sv_total, maxwait, maxwait_us, pool_mode, paused, banned, healthy, errors, re_synced, out_of_sync, force_closed, online, schema_admin",
	],
	["SHOW BANS", "SHOW BANS", 0, "id, database, user, addr, port, shard, role, ban_reason, ban_time_left"],
	[
		"SHOW REPLICATION",
		"SHOW REPLICATION",
		3,
		"id, database, user, addr, port, shard, role, replica_lag, pg_lsn, lsn_age, pg_is_in_recovery",
	],
	["SHOW VERSION", "SHOW VERSION", 1, "version"],
];

test.each(SHOWS)("%s has the columns, the tag and the rows of the reference", async (sql, tag, rows, columns) => {
	const said = await ask(sql);
	expect(names(said)).toBe(columns);
	expect(said.tag).toBe(tag);
	expect(said.rows).toHaveLength(rows);
	for (const row of said.rows) expect(row).toHaveLength(said.columns.length);
	expect(structuredClone(said)).toEqual(said);
});

test("SHOW LISTENERS has PgDog's columns", async () => {
	const said = await ask("SHOW LISTENERS");
	expect(names(said)).toBe("database, user, shard, channel, listeners, received, dropped");
	expect(said.rows).toEqual([["shop", "alice", "0", "goods", "3", "12", "1"]]);
});

// Ours: no reference to compare with.
test("SHOW ROUTES has its columns, its tag and the newest decision first", async () => {
	const said = await ask("SHOW ROUTES");
	expect(names(said)).toBe("time, client_id, user, database, query, decided_by, shard, side, server, wait, error");
	expect(said.tag).toBe("SHOW ROUTES");
	const { query } = ROUTE;
	expect(said.rows).toEqual([
		[
			showTime(ROUTE.time),
			"65537",
			"alice",
			"shop",
			query,
			'plugin "audit"',
			"all",
			"any",
			"10.0.0.1:5432",
			"0.123",
			null,
		],
		[showTime(ROUTE.time - 1), "65537", "alice", "shop", query, "comment", "all", "primary", "", "0.123", "no primary"],
	]);
	expect(structuredClone(said)).toEqual(said);
});

test("SHOW STATS has all totals first, then all averages", async () => {
	const x =
		"xact_count, xact_2pc_count, query_count, server_assignment_count, received, sent, xact_time, idle_xact_time, query_time, wait_time, server_parse_count, bind_count, close_count, errors, cleaned, rollbacks, connect_time, connect_count, reads, writes, auth_attempts, rows_inserted, rows_updated, rows_deleted".split(
			", ",
		);
	const columns = [
		"database",
		"user",
		"addr",
		"port",
		"shard",
		"role",
		...x.map((c) => `total_${c}`),
		...x.map((c) => `avg_${c}`),
	];
	const said = await ask("SHOW STATS");
	expect(names(said)).toBe(columns.join(", "));
	expect(said.tag).toBe("SHOW STATS");
	expect(said.rows).toHaveLength(3);
});

test("numbers, booleans and times are of types that drivers parse", async () => {
	const said = await ask("SHOW CLIENTS");
	const types = Object.fromEntries(said.columns.map(({ name, oid }) => [name, oid]));
	expect(types).toMatchObject({
		id: Oid.int8,
		port: Oid.int8,
		query_time: Oid.float8,
		locked: Oid.bool,
		user: Oid.text,
	});
	expect(await first("SHOW CLIENTS")).toMatchObject({
		id: "65537",
		addr: "192.0.2.1",
		port: "50123",
		state: "idle in transaction",
		replication: "none",
		query_time: "12.346",
		transaction_time: "100",
		bytes_received: "1099511627776",
		locked: "t",
		application_name: "web ö",
		last_request: showTime(1_790_000_001_500),
	});
});

test("a time is shown with the zone that it is shown in, and one that has not been as NULL", () => {
	const shown = showTime(1_790_000_001_500)!;
	expect(shown).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.500 [+-]\d\d:\d\d$/);
	expect(Date.parse(shown.replace(" ", "T").replace(" ", ""))).toBe(1_790_000_001_500);
	expect(showTime(0)).toBeNull();
});

test("a client on an IPv6 address and one on a Unix socket", async () => {
	const source = new PlainSource();
	source.clientRows = [
		{ ...CLIENT, address: "::1:6432" },
		{ ...CLIENT, address: "unix" },
	];
	const { rows } = await ask("SHOW CLIENTS id", source);
	expect(rows.map((row) => row.slice(3))).toEqual([
		["::1", "6432"],
		["unix", "0"],
	]);
});

test.each([
	["SHOW CLIENTS state,queries", "user, database, addr, port, state, queries"],
	["show clients QUERIES, id ;", "id, user, database, addr, port, queries"],
	["SHOW SERVERS age", "database, user, addr, port, age"],
	["SHOW CLIENTS user", "user, database, addr, port"],
	["SHOW ROUTES server, query", "time, client_id, query, server"],
	["show routes 20 Error", "time, client_id, error"],
])("%s shows these and those that tell rows apart", async (sql, columns) => {
	expect(names(await ask(sql))).toBe(columns);
});

test.each([
	["SHOW ROUTES 0", 0],
	["SHOW ROUTES 3", 3],
	["SHOW ROUTES 3 query, server", 3],
	["SHOW ROUTES 99999999999999999999", 40],
	["SHOW ROUTES", 40],
])("%s shows so many of the last decisions", async (sql, rows) => {
	const source = new PlainSource();
	source.routeRows = Array.from({ length: 40 }, (_, i) => ({ ...ROUTE, time: ROUTE.time - i }));
	const said = await ask(sql, source);
	expect(said.rows.map(([time]) => time)).toEqual(
		source.routeRows.slice(0, rows).map((decision) => showTime(decision.time)),
	);
});

test("SHOW POOLS and SHOW STATS show the role that was found out, also of a pool that a reload has taken away", async () => {
	const source = new PlainSource();
	source.poolRows[0] = { ...source.poolRows[0]!, vitals: { ...VITALS, role: "replica" } };
	expect(await first("SHOW POOLS", source)).toMatchObject({ role: "replica" });
	expect(await first("SHOW STATS", source)).toMatchObject({ role: "replica" });
	source.poolRows[0] = { ...source.poolRows[0]!, key: "eve@old/2/auto//run/pg:5444" };
	expect(await first("SHOW POOLS", source)).toMatchObject({
		addr: "/run/pg",
		shard: "2",
		role: "replica",
		online: "f",
	});
});

test("SHOW BANS shows the banned pools only, and SHOW POOLS marks them", async () => {
	const source = new PlainSource();
	const [first, second, third] = source.poolRows;
	source.poolRows[0] = { ...first!, vitals: { ...VITALS, role: "replica", ban: "banned by hand" } };
	source.poolRows[2] = {
		...third!,
		vitals: { ...VITALS, healthy: false, ban: "no connection", ban_time_left: 1500.7 },
	};
	expect((await ask("SHOW BANS", source)).rows).toEqual([
		["10", "shop", "alice", "10.0.0.1", "5432", "0", "replica", "banned by hand", null],
		["12", "Ware-house", "alice", "10.0.0.2", "5433", "0", "primary", "no connection", "1500"],
	]);
	const { columns, rows } = await ask("SHOW POOLS", source);
	const at = columns.findIndex(({ name }) => name === "banned");
	expect(columns[at + 1]!.name).toBe("healthy");
	expect(rows.map((row) => [row[0], row[at], row[at + 1]])).toEqual([
		["10", "t", "t"],
		[String(second!.id), "f", "t"],
		["12", "t", "f"],
	]);
});

test("SHOW REPLICATION shows what was found out, and NULL for a server that was never asked", async () => {
	const source = new PlainSource();
	const asked = { role: "replica", in_recovery: true, lsn: "16/B374D848", lag: 1250, lsn_at: Date.now() - 700 };
	source.poolRows[0] = { ...source.poolRows[0]!, vitals: { ...VITALS, ...asked } };
	const { columns, rows } = await ask("SHOW REPLICATION", source);
	const [seen, unseen] = rows.map((row) => row.slice(6));
	expect(seen).toEqual(["replica", "1250", "16/B374D848", expect.any(String), "t"]);
	expect(Number(seen![3])).toBeWithin(700, 60_000);
	expect(unseen).toEqual(["primary", null, null, null, null]);
	expect(columns.slice(7).map(({ oid }) => oid)).toEqual([Oid.int8, Oid.text, Oid.int8, Oid.bool]);
});

test("a filter by a column that is not there says which there are", async () => {
	const error = await refused("SHOW CLIENTS id, colour");
	expect(error).toMatchObject({ sqlstate: "42703", message: 'column "colour" does not exist' });
	expect(error.hint).toContain("prepared_statements");
});

test("a server shows its pool's place, also when a reload has taken the pool away", async () => {
	const source = new PlainSource();
	expect(await first("SHOW SERVERS", source)).toMatchObject({
		pool_id: "10",
		database: "shop",
		user: "alice",
		addr: "10.0.0.1",
		port: "5432",
		remote_pid: "4711",
		client_id: null,
		last_sent: null,
		age: "5",
	});
	source.serverRows[0] = { ...source.serverRows[0]!, pool: "eve@old/2/replica//run/pg:5444" };
	expect(await first("SHOW SERVERS", source)).toMatchObject({
		pool_id: null,
		database: "old",
		user: "eve",
		addr: "/run/pg",
		port: "5444",
	});
});

test("SHOW POOLS tells how long the first in the queue has waited", async () => {
	const source = new PlainSource();
	const { counters } = source.poolRows[0]!;
	counters[Stat.oldest_wait] = Date.now() - 2_500;
	counters[Stat.cl_waiting] = 3;
	const row = await first("SHOW POOLS", source);
	expect(row).toMatchObject({ id: "10", cl_waiting: "3", sv_total: "4", pool_mode: "transaction", maxwait: "2" });
	expect(row).toMatchObject({
		role: "primary",
		shard: "0",
		paused: "f",
		banned: "f",
		healthy: "t",
		online: "t",
		out_of_sync: "0",
	});
	expect(Number(row.maxwait_us)).toBeWithin(500_000, 999_999);
	const { rows } = await ask("SHOW POOLS", source);
	expect(rows[1]![12]).toBe("0");
	expect(rows[1]![15]).toBe("t");
});

test("SHOW STATS shows totals and the averages of the sampler", async () => {
	const source = new PlainSource();
	const { counters } = source.poolRows[0]!;
	source.averages.sample(source.pools(), 1000);
	counters[Stat.query_count]! += 100;
	counters[Stat.query_time]! += 250;
	source.averages.sample(source.pools(), 11_000);
	expect(await first("SHOW STATS", source)).toMatchObject({
		total_query_count: "101",
		total_query_time: "251",
		avg_query_count: "10",
		avg_query_time: "2.5",
		total_auth_attempts: "1",
		total_reads: null,
		total_rows_inserted: null,
		avg_writes: null,
	});
});

test("a number that is none does not reach a driver", async () => {
	const source = new PlainSource();
	source.clientRows = [{ ...CLIENT, queries: Number.NaN, wait_time: Number.POSITIVE_INFINITY }];
	expect(await first("SHOW CLIENTS", source)).toMatchObject({ queries: "0", wait_time: "0" });
});

test("SHOW CONFIG has all settings under their names and no password", async () => {
	const { rows, tag, columns } = await ask("SHOW CONFIG");
	const config = Object.fromEntries(rows);
	expect(columns.map(({ name }) => name)).toEqual(["name", "value"]);
	expect(tag).toBe("SHOW");
	expect(config).toMatchObject({ default_pool_size: "10", stats_period: "15s", tcp_keepalive: expect.any(String) });
	expect(JSON.stringify(rows)).not.toContain("secret");
});

test("SHOW VERSION is the version of the proxy, SHOW server_version what drivers take for PostgreSQL's", async () => {
	expect(await first("SHOW VERSION")).toEqual({ version: VERSION });
	expect(await first("SHOW server_version")).toEqual({ server_version: "0.1.0 (PgDog)" });
});

test.each([
	["SHOW timezone", { TimeZone: "UTC" }],
	["SHOW TRANSACTION ISOLATION LEVEL", { transaction_isolation: "read committed" }],
	["SHOW time zone", { TimeZone: "UTC" }],
	["show Some_Thing", { some_thing: "" }],
])("%s is answered as a setting", async (sql, row) => {
	expect(await first(sql)).toEqual(row);
	expect((await ask(sql)).tag).toBe("SHOW");
});

test("SHOW HELP names every command, and every command it names is understood", async () => {
	const { rows } = await ask("SHOW HELP");
	const commands = rows.map(([command]) => command!.replace(/ \[.*/, ""));
	expect(commands).toContain("SHOW POOLS");
	for (const name of ["PAUSE", "SHOW ROUTES", "SHOW BANS", "SHOW REPLICATION", "BAN", "UNBAN", "HEALTHCHECK"])
		expect(commands).toContain(name);
	for (const command of commands) expect(() => understand(command)).not.toThrow();
});

test.each([
	"SHOW REPLICATION_SLOTS",
	"SHOW DATABASES",
	"SHOW STATS_TOTALS",
	"SHOW CLIENT MEMORY",
	"MAINTENANCE ON",
	"RESET PREPARED",
])("%s, which is not served yet, is refused and not answered with nothing", async (sql) => {
	expect(await refused(sql)).toMatchObject({ severity: "ERROR", sqlstate: "0A000" });
});

test.each([
	"FOO BAR",
	"SHOW",
	"SHOW POOLS now",
	"RELOAD config",
	"PAUSE a b c",
	"PAUSE (a)",
	"SHOW CLIENTS (id)",
	"SHOW ROUTES 1.5",
	"SHOW ROUTES 20s",
	"SHOW ROUTES -1",
	"SHOW BANS 1",
	"BAN x",
	"BAN 1 2",
	"BAN '10'",
	"BAN -1",
	"BAN 1.5",
	"UNBAN all",
	"HEALTHCHECK 10, 11",
	"SELECT * FROM orders",
	"SELECT",
	"SELECT toString()",
	"SELECT constructor",
	"DELETE FROM pg_class",
	"'text'",
	'"show" pools',
	"SHOW 'pools'",
	"SHOW VERSION 'unended",
	"/* unended",
	"SET x",
	"(",
])("%s is a syntax error that points to SHOW HELP", async (sql) => {
	const source = new PlainSource();
	const error = await refused(sql, source);
	expect(error).toMatchObject({ severity: "ERROR", sqlstate: "08P01", message: "syntax error in admin command" });
	expect(error.hint).toContain("SHOW HELP");
	expect(source.orders).toEqual([]);
});

test.each([
	["RELOAD", "reload"],
	["reload Force", "reload force"],
	["reconnect;", "reconnect"],
	["  /* now */ SHUTDOWN -- please", "shutdown"],
	["BAN", "ban *"],
	["ban 11;", "ban 11"],
	["UNBAN", "unban *"],
	["UNBAN 010", "unban 10"],
	["HEALTHCHECK", "healthcheck *"],
	["HealthCheck 12", "healthcheck 12"],
	["PAUSE", "pause * *"],
	["RESUME", "resume * *"],
	["PAUSE shop", "pause * shop"],
	["pause SHOP", "pause * shop"],
	["PAUSE alice shop", "pause alice shop"],
	["RESUME ware-house", "resume * Ware-house"],
	['RESUME "Ware-house"', "resume * Ware-house"],
])("%s is the order %s, with its first word as the tag", async (sql, order) => {
	const source = new PlainSource();
	const { tag, columns, rows } = await ask(sql, source);
	expect(source.orders).toEqual([order]);
	expect(tag).toBe(/[A-Z]+/.exec(sql.toUpperCase().replace(/\/\*.*\*\//, ""))![0]);
	expect({ columns, rows }).toEqual({ columns: [], rows: [] });
});

test.each(["PAUSE nowhere", "PAUSE eve shop", "PAUSE bob Ware-house", 'RESUME "SHOP"'])(
	"%s, which means no pool, is an error and pauses nothing",
	async (sql) => {
		const source = new PlainSource();
		expect(await refused(sql, source)).toMatchObject({ sqlstate: "3D000" });
		expect(source.orders).toEqual([]);
	},
);

test.each(["BAN 99", "UNBAN 9", "HEALTHCHECK 99999999999999999999999"])(
	"%s, which is the id of no pool, is an error that names it",
	async (sql) => {
		expect(await refused(sql)).toMatchObject({
			severity: "ERROR",
			sqlstate: "42704",
			message: `there is no pool with id ${sql.split(" ")[1]}`,
			hint: "SHOW POOLS lists them.",
		});
	},
);

test("BAN of all is no error where there is no pool", async () => {
	const source = new PlainSource();
	source.poolRows.length = 0;
	expect((await ask("BAN", source)).tag).toBe("BAN");
});

test("RELOAD of files with mistakes tells them all", async () => {
	const source = new PlainSource();
	source.problems = ["pgdog.toml:3: port = 70000: accepted is …", "users.toml:9: users[1].name is missing: …"];
	const error = await refused("RELOAD", source);
	expect(error).toMatchObject({ severity: "ERROR", sqlstate: "F0000" });
	expect(error.detail).toBe(source.problems.join("\n"));
	expect(error.hint).toBeUndefined();
});

test("RELOAD of files that leave nothing to serve is refused, and taken with FORCE", async () => {
	const source = new PlainSource();
	source.problems = ["no user would be left"];
	source.forcible = true;
	expect((await refused("RELOAD", source)).hint).toContain("RELOAD FORCE");
	expect((await ask("RELOAD FORCE", source)).tag).toBe("RELOAD");
	expect(source.orders).toEqual(["reload", "reload force"]);
});

test("RELOAD tells what came of it, within bounds", async () => {
	const source = new PlainSource();
	source.notices = [
		{ severity: "WARNING", message: "workers: 1 -> 2 (takes effect after a restart)" },
		{ severity: "NOTICE", message: "configuration reloaded" },
	];
	expect((await ask("RELOAD", source)).notices).toEqual(source.notices);
	source.notices = Array.from({ length: 5_000 }, (_, i) => ({ severity: "NOTICE", message: `line ${i}` }));
	const { notices } = await ask("RELOAD", source);
	expect([notices?.length, notices?.at(-1)?.message]).toEqual([101, "and 4900 more: the log has them all"]);
});

test("a Source that fails makes an error and not a rejection", async () => {
	const source = new PlainSource();
	source.clients = async () => {
		throw new Error("worker 1 does not answer");
	};
	source.reconnect = async () => {
		throw new PgError("ERROR", "57P03", "not now", "the detail", "the hint");
	};
	expect(await refused("SHOW CLIENTS", source)).toMatchObject({ sqlstate: "XX000" });
	expect(await refused("RECONNECT", source)).toEqual({
		severity: "ERROR",
		sqlstate: "57P03",
		message: "not now",
		detail: "the detail",
		hint: "the hint",
	});
});

// What pg, postgres.js, Bun.sql, psycopg, asyncpg, pgJDBC, SQLAlchemy and pgcli send by themselves.
test.each([
	["SET extra_float_digits = 3", "SET", []],
	["SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET", []],
	["set client_encoding to 'UTF8'", "SET", []],
	["BEGIN", "BEGIN", []],
	["BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN", []],
	["START TRANSACTION READ ONLY", "START TRANSACTION", []],
	["COMMIT", "COMMIT", []],
	["ROLLBACK", "ROLLBACK", []],
	["ROLLBACK TO SAVEPOINT a", "ROLLBACK", []],
	["DISCARD ALL", "DISCARD ALL", []],
	["DEALLOCATE ALL", "DEALLOCATE ALL", []],
	["CLOSE ALL", "CLOSE CURSOR ALL", []],
	["UNLISTEN *", "UNLISTEN", []],
	["RESET ALL", "RESET", []],
	["", "", []],
	["  -- nothing\n;;", "", []],
	["SELECT 1", "SELECT 1", [["1"]]],
	["SELECT 1 AS one, -5000000000, 'it''s', NULL, true", "SELECT 1", [["1", "-5000000000", "it's", null, "t"]]],
	["select version()", "SELECT 1", [[VERSION]]],
	["SELECT pg_catalog.version()", "SELECT 1", [[VERSION]]],
	["SELECT current_schema()", "SELECT 1", [["public"]]],
	["SELECT current_database(), current_user", "SELECT 1", [["admin", "admin"]]],
	["select pg_catalog.pg_is_in_recovery()", "SELECT 1", [["f"]]],
	["SELECT pg_backend_pid()", "SELECT 1", [["0"]]],
	["SELECT 'x'::text AS t", "SELECT 1", [["x"]]],
	["SELECT pg_catalog.set_config('search_path', '', false)", "SELECT 1", [[""]]],
	["SELECT current_setting('server_version')", "SELECT 1", [["0.1.0 (PgDog)"]]],
	["SELECT pg_advisory_unlock_all()", "SELECT 1", [[""]]],
	["select t.oid, t.typname as name from pg_catalog.pg_type t where t.typtype = 'b' order by 1", "SELECT 0", []],
])("%s is answered with %s", async (sql, tag, rows) => {
	const said = await ask(sql);
	expect(said.tag).toBe(tag);
	expect(said.rows).toEqual(rows as Answered["rows"]);
});

test("columns of queries are named as PostgreSQL names them", async () => {
	expect(names(await ask('SELECT 1, version(), true, 2 AS "Two", 3 three'))).toBe(
		"?column?, version, bool, Two, three",
	);
	const types = (await ask("SELECT 1, 5000000000, 'x', true")).columns.map(({ oid }) => oid);
	expect(types).toEqual([Oid.int4, Oid.int8, Oid.text, Oid.bool]);
	expect(names(await ask("SELECT b.oid, count(*), x AS y FROM pg_type b"))).toBe("oid, count, y");
});

test.each([
	"SET query_timeout TO 5",
	"SET default_pool_size = 3",
	"SET two_phase_commit TO on",
	"SELECT set_config('query_timeout', '5', false)",
])("%s would change the proxy's own setting in PgDog: it is refused, not ignored", async (sql) => {
	const error = await refused(sql);
	expect(error.sqlstate).toBe("0A000");
	expect(error.hint).toContain("RELOAD");
});

test("a parameter and a second statement are refused", async () => {
	expect(await refused("SELECT $1")).toMatchObject({ sqlstate: "0A000" });
	expect(await refused("SHOW POOLS; SHUTDOWN")).toMatchObject({ sqlstate: "42601" });
});

test("any text is answered, with plain data and as many values as columns", async () => {
	const word = fc.constantFrom(
		..."show clients pools routes bans replication ban query select from pg_type set reset pause resume shop version ( ) , ; :: ' \" $1 as -- /* */ 1 x.y current_user".split(
			" ",
		),
	);
	const texts = fc.oneof(
		fc.string({ unit: "binary" }),
		fc.array(word).map((words) => words.join(" ")),
	);
	const source = new PlainSource();
	await fc.assert(
		fc.asyncProperty(texts, async (sql) => {
			const said: CommandAnswer = structuredClone(await answer(sql, source));
			if ("error" in said) expect(said.error.sqlstate).not.toBe("XX000");
			else for (const row of said.rows) expect(row).toHaveLength(said.columns.length);
		}),
		{ numRuns: 500 },
	);
});

test("of workers that do not come back a command says that it tells nothing", async () => {
	const source = Object.assign(new PlainSource(), { stuckWorkers: [1, 3] });
	expect((await ask("SHOW VERSION", source)).notices).toEqual([
		{
			severity: "WARNING",
			message: "not of workers 1, 3, which do not come back to their event loop: see the log",
		},
	]);
	expect((await ask("SHOW VERSION")).notices).toEqual([]);
});

test("the admin database has PgBouncer's shape by its name alone", () => {
	expect(["pgbouncer", "admin", "PgBouncer"].map((name) => shapeOf({ name }))).toEqual(["pgbouncer", "pgdog", "pgdog"]);
});
