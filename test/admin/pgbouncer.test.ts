// What an exporter or an agent that was made for PgBouncer asks, of an admin database with PgBouncer's name.

import { expect, test } from "bun:test";
import { type Answered, answer, understand } from "../../src/admin/commands.ts";
import { utc } from "../../src/admin/pgbouncer.ts";
import { Stat } from "../../src/stats/counters.ts";
import { Oid } from "../../src/wire/backend-messages.ts";
import { CLIENT, PlainSource, SERVER } from "./support.ts";

async function ask(sql: string, source = new PlainSource()): Promise<Answered> {
	const said = await answer(sql, source, "pgbouncer");
	if ("error" in said) throw new Error(JSON.stringify(said.error));
	return said;
}

async function records(sql: string, source?: PlainSource): Promise<Record<string, string | null>[]> {
	const { columns, rows } = await ask(sql, source);
	return rows.map((row) => Object.fromEntries(columns.map(({ name }, i) => [name, row[i]!])));
}

const words = (text: string): string[] => text.split(/\s+/);

// Word for word from PgBouncer's manual (1.24, "Show commands"), but for what is about its own insides.
const WANTED: Readonly<Record<string, string[]>> = {
	lists: words("list items"),
	users: words("name pool_mode"),
	databases: words(
		"name host port database force_user pool_size min_pool_size reserve_pool_size pool_mode max_connections current_connections paused disabled",
	),
	stats: words(
		"database total_server_assignment_count total_xact_count total_query_count total_received total_sent total_xact_time total_query_time total_wait_time total_client_parse_count total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_bind_count",
	),
	stats_totals: words(
		"database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time client_parse_count bind_count",
	),
	stats_averages: words("database server_assignment_count xact_count query_count xact_time query_time wait_time"),
	pools: words(
		"database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode",
	),
	clients: words(
		"type user database state addr port connect_time request_time wait wait_us close_needed ptr application_name prepared_statements id",
	),
	servers: words("type user database state addr port connect_time request_time ptr link remote_pid application_name"),
	config: words("key value default changeable"),
	version: words("version"),
};

test.each(Object.entries(WANTED))("SHOW %s has the columns of PgBouncer's manual, each once", async (name, wanted) => {
	const { columns, rows } = await ask(`SHOW ${name}`);
	const names = columns.map((column) => column.name);
	expect(wanted.filter((column) => !names.includes(column))).toEqual([]);
	expect(new Set(names).size).toBe(names.length);
	expect(rows.length).toBeGreaterThan(0);
	for (const row of rows) expect(row).toHaveLength(names.length);
});

// Prometheus takes a second series of the same labels for an error, and the whole scrape fails.
test("there is one row for each database, and for each database and user, whatever servers are behind it", async () => {
	const source = new PlainSource();
	const [pool] = source.poolRows;
	const replica = pool!.key.replace("/primary/", "/replica/").replace(":5432", ":5433");
	source.poolRows.push({ ...pool!, key: replica, id: 13, counters: pool!.counters.slice() });
	source.clientRows = [CLIENT, { ...CLIENT, state: "waiting" }, { ...CLIENT, user: "bob" }];
	const pools = await records("SHOW POOLS", source);
	expect(pools.map(({ database, user, cl_active }) => [database, user, cl_active])).toEqual([
		["shop", "alice", "1"],
		["shop", "bob", "1"],
		["Ware-house", "alice", "0"],
	]);
	expect((await records("SHOW STATS", source)).map(({ database }) => database)).toEqual(["shop", "Ware-house"]);
});

test("SHOW POOLS adds up what the servers of a pool do, and takes the longest wait", async () => {
	const source = new PlainSource();
	source.poolRows.length = 1;
	const [pool] = source.poolRows;
	Object.assign(pool!, { servers: 9 });
	const { counters } = pool!;
	counters[Stat.sv_active] = 2;
	counters[Stat.sv_idle_xact] = 3;
	counters[Stat.sv_idle] = 1;
	counters[Stat.cl_waiting] = 4;
	counters[Stat.oldest_wait] = Date.now() - 2_500;
	const longer = { ...pool!, id: 14, counters: counters.slice() };
	longer.counters[Stat.oldest_wait] = Date.now() - 7_500;
	source.poolRows.push(longer);
	const [row] = await records("SHOW POOLS", source);
	expect(row).toMatchObject({ sv_active: "10", sv_idle: "2", sv_login: "6", cl_waiting: "8", maxwait: "7" });
	expect(Number(row!.maxwait_us)).toBeWithin(500_000, 1_000_000);
});

test("SHOW STATS has times in µs, and averages that count each pool by what it did", async () => {
	const source = new PlainSource();
	source.poolRows.length = 2;
	const [first, second] = source.poolRows;
	source.averages.sample(source.pools(), 1000);
	first!.counters[Stat.query_count]! += 300;
	first!.counters[Stat.query_time]! += 300;
	second!.counters[Stat.query_count]! += 100;
	second!.counters[Stat.query_time]! += 500;
	source.averages.sample(source.pools(), 11_000);
	const [row] = await records("SHOW STATS", source);
	expect(row).toMatchObject({
		database: "shop",
		total_query_count: "403",
		total_query_time: "803000",
		avg_query_count: "40",
		avg_query_time: "2000",
		avg_wait_time: "0",
	});
	expect(await records("SHOW STATS_TOTALS", source)).toMatchObject([{ query_count: "403", query_time: "803000" }]);
	expect(await records("SHOW STATS_AVERAGES", source)).toMatchObject([{ query_count: "40", query_time: "2000" }]);
});

test("SHOW LISTS counts in rows here, and in columns where the admin database is PgDog's", async () => {
	const counts = { databases: "2", users: "2", pools: "3", used_clients: "1" };
	const rows = await records("SHOW LISTS");
	expect(Object.fromEntries(rows.map(({ list, items }) => [list, items]))).toMatchObject(counts);
	const said = await answer("SHOW LISTS", new PlainSource());
	if ("error" in said) throw new Error(said.error.message);
	expect(Object.fromEntries(said.columns.map(({ name }, i) => [name, said.rows[0]![i]]))).toMatchObject(counts);
	expect(said.rows).toHaveLength(1);
});

test("SHOW DATABASES tells what is configured, and how many servers there are", async () => {
	const source = new PlainSource();
	for (const pool of source.poolRows) Object.assign(pool, { paused: true });
	expect(await records("SHOW DATABASES", source)).toMatchObject([
		{ name: "shop", host: "10.0.0.1", port: "5432", database: "shop", current_connections: "8", paused: "1" },
		{ name: "Ware-house", host: "10.0.0.2", port: "5433", pool_size: "10", current_connections: "4", disabled: "0" },
	]);
});

test("SHOW CONFIG has keys, defaults, and what a reload changes", async () => {
	const rows = await records("SHOW CONFIG");
	expect(rows.find(({ key }) => key === "default_pool_size")).toEqual({
		key: "default_pool_size",
		value: "10",
		default: "10",
		changeable: "yes",
	});
	expect(rows.find(({ key }) => key === "workers")).toMatchObject({ changeable: "no" });
});

test("the first number of SHOW VERSION is the product's", async () => {
	const [row] = await records("SHOW VERSION");
	expect(/\d+\.\d+\.\d+/.exec(row!.version!)?.[0]).toBe("0.1.0");
	expect(row!.version).toBe("PgDog 0.1.0, v1a2b3c4d (rustc 1.95.0 (59807616e 2026-04-14)), pg_query 6.1.1, Bun 1.4.5");
});

test("times are to the second and end with their zone", async () => {
	expect(utc(1_790_000_001_500)).toBe("2026-09-21 14:13:21 UTC");
	expect(utc(0)).toBeNull();
	const source = new PlainSource();
	source.serverRows[0] = { ...SERVER, pool: source.poolRows[0]!.key, connected_at: 1_790_000_000_000 };
	for (const name of ["CLIENTS", "SERVERS"]) {
		const { columns, rows } = await ask(`SHOW ${name}`, source);
		for (const [i, column] of columns.entries()) {
			const value = rows[0]![i];
			if (!/_time$|^last_/.test(column.name) || column.oid !== Oid.text || value === null) continue;
			expect([column.name, value]).toEqual([column.name, expect.stringMatching(/^2026-\d\d-\d\d \d\d:\d\d:\d\d UTC$/)]);
		}
	}
});

test("what PgDog has beside is answered too, and SHOW HELP names all of it", async () => {
	for (const sql of ["SHOW BANS", "SHOW REPLICATION", "SHOW ROUTES 1"]) expect((await ask(sql)).tag).not.toBe("");
	const { rows } = await ask("SHOW HELP");
	const commands = rows.map(([command]) => command!.replace(/ \[.*/, ""));
	expect(commands).toContain("SHOW STATS_TOTALS");
	expect(new Set(commands).size).toBe(commands.length);
	for (const command of commands) expect(() => understand(command, "pgbouncer")).not.toThrow();
});

test("where the admin database is PgDog's, what PgBouncer alone has is refused with the way to it", async () => {
	const said = await answer("SHOW DATABASES", new PlainSource());
	expect("error" in said && said.error.hint).toContain('name = "pgbouncer"');
});
