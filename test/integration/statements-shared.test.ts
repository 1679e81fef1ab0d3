// What a statement that clients share means, when settings, tables and types are not what they were: each client is served as
// by a connection of its own, or is told that its statement is out of date, in the words that drivers go by.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { connect, connectToBothWorkers, one } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
/** One server, and several; on one worker. */
let single: Proxy;
let several: Proxy;

beforeAll(async () => {
	cluster = await startPostgres();
	single = await start({ default_pool_size: 1 });
	several = await start({ default_pool_size: 4 });
});

afterAll(async () => {
	await single?.[Symbol.asyncDispose]();
	await several?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(simpleConfig(cluster.primary, { workers: 1, min_pool_size: 0, ...general }));
}

/** Where the proxy does not see it. */
const elsewhere = (sql: string) => cluster.primary.sql(sql, { user: "pgdog" });

function send(client: RawClient, ...frames: Uint8Array[]): Promise<QueryResult> {
	client.send(...frames, f.sync());
	return client.result();
}

const prepare = (client: RawClient, name: string, sql: string) =>
	send(client, f.parse(sql, name), f.describe("S", name));
const run = (statement: string, ...values: string[]) => [f.bind({ statement, values }), f.execute()];
/** Rows, or the SQLSTATE of the error. */
const shown = ({ rows, errors }: QueryResult) => errors[0]?.C ?? rows;
const execute = async (client: RawClient, name: string, ...values: string[]) =>
	shown(await send(client, ...run(name, ...values)));
const served = async (client: RawClient, sql: string, ...values: string[]) =>
	shown(await send(client, f.parse(sql, "served"), ...run("served", ...values)));

/** The server that would be lent next is another's until the end of the block: what it has prepared is out of reach. */
async function taken(proxy: Proxy): Promise<AsyncDisposable> {
	const other = await connect(proxy);
	await other.query("BEGIN; SELECT 1");
	return {
		[Symbol.asyncDispose]: async () => {
			await other.query("COMMIT");
			other.close();
		},
	};
}

const prepared = (client: RawClient) => one(client, "SELECT count(*) FROM pg_prepared_statements");

const STALE = { C: "0A000", M: "cached plan must not change result type", R: "RevalidateCachedQuery" };

test("columns that have changed places on a server that never had the statement, named or not", async () => {
	for (const [i, name] of ["s", ""].entries()) {
		const table = `swapped${i}`;
		await elsewhere(`CREATE TABLE ${table} (price int, stock int); INSERT INTO ${table} VALUES (100, 7)`);
		await using client = await connect(several);
		await prepare(client, name, `SELECT * FROM ${table}`);
		expect(await execute(client, name)).toEqual([["100", "7"]]);
		await elsewhere(
			`DROP TABLE ${table}; CREATE TABLE ${table} (stock int, price int); INSERT INTO ${table} VALUES (7, 100)`,
		);
		await using _ = await taken(several);
		for (const frames of [run(name), run(name), [f.describe("S", name)]]) {
			const result = await send(client, ...frames);
			expect([name, result.errors, result.rows]).toMatchObject([name, [STALE], []]);
		}
		// The transaction goes on behind a savepoint, as it does in PostgreSQL. A Query ends the unnamed statement.
		await client.query("BEGIN; SAVEPOINT s");
		expect(await execute(client, name)).toBe(name === "" ? "26000" : "0A000");
		await client.query("ROLLBACK TO s");
		await send(client, f.close("S", name));
		await prepare(client, name, `SELECT * FROM ${table}`);
		expect(await execute(client, name)).toEqual([["7", "100"]]);
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		await elsewhere(`DROP TABLE ${table}`);
	}
});

test("a statement that writes and returns is not run where it would return something else", async () => {
	await elsewhere("CREATE TABLE written (a int, b text)");
	await using client = await connect(several);
	await prepare(client, "s", "INSERT INTO written VALUES ($1, 'x') RETURNING *");
	await elsewhere("ALTER TABLE written ADD c int DEFAULT 9");
	await using _ = await taken(several);
	expect(await execute(client, "s", "1")).toBe("0A000");
	expect(await one(client, "SELECT count(*) FROM written")).toBe("0");
	await elsewhere("ALTER TABLE written DROP c");
	// As it was told: nothing is wrong with it any more.
	expect(await execute(client, "s", "1")).toEqual([["1", "x"]]);
});

// A parameter in binary format of the type that the client was told, read as another type of the same size, is another value.
test("parameters keep the types that a client was told, on every server", async () => {
	await elsewhere("CREATE TABLE sized (n bigint)");
	await using client = await connect(several);
	await prepare(client, "s", "INSERT INTO sized VALUES ($1) RETURNING n::text");
	await elsewhere("ALTER TABLE sized ALTER n TYPE float8");
	const value = Buffer.alloc(8);
	value.writeBigInt64BE(42n);
	const bound = [f.bind({ statement: "s", formats: [1], values: [value] }), f.execute()];
	expect(shown(await send(client, ...bound))).toEqual([["42"]]);
	await using _ = await taken(several);
	expect(shown(await send(client, ...bound))).toEqual([["42"]]);
	// Who prepares it when that was heard of has the type that the column has now.
	await using next = await connect(several);
	await next.query("ALTER TABLE sized ALTER n TYPE float8");
	const described = await prepare(next, "s", "INSERT INTO sized VALUES ($1) RETURNING n::text");
	expect(described.messages.find(({ code }) => code === "t")?.body.readInt32BE(2)).toBe(701);
});

test("DDL elsewhere: one error, then whoever prepares again is served", async () => {
	await elsewhere("CREATE TABLE widened (n int)");
	const sql = "INSERT INTO widened VALUES ($1) RETURNING n::text";
	await using old = await connect(single);
	expect(await served(old, sql, "1")).toEqual([["1"]]);
	await elsewhere("ALTER TABLE widened ALTER n TYPE bigint");
	const seen = [];
	for (let i = 0; i < 4; i++) {
		await using client = await connect(single);
		seen.push(await served(client, sql, "3000000000"));
	}
	expect(seen).toEqual(["22003", [["3000000000"]], [["3000000000"]], [["3000000000"]]]);
	// Its own statement is what it was, as PostgreSQL has it.
	expect(await execute(old, "served", "3000000000")).toBe("22003");
	expect(await execute(old, "served", "2")).toEqual([["2"]]);
});

test("DDL elsewhere: who closes its statement and parses the text again asks the server", async () => {
	await elsewhere("CREATE TABLE dated (at date)");
	const sql = "INSERT INTO dated VALUES ($1) RETURNING at::text";
	await using client = await connect(single);
	expect(await served(client, sql, "2024-01-01 12:34:56")).toEqual([["2024-01-01"]]);
	await elsewhere("ALTER TABLE dated ALTER at TYPE timestamp");
	const again = await send(
		client,
		f.close("S", "served"),
		f.parse(sql, "served"),
		...run("served", "2024-01-01 12:34:56"),
	);
	expect(shown(again)).toEqual([["2024-01-01 12:34:56"]]);
});

test("prepared_statements_ttl: what a server has had for so long is parsed anew", async () => {
	await using proxy = await start({
		default_pool_size: 1,
		prepared_statements_ttl: 200,
		prepared_statements_ttl_jitter: 0,
	});
	await elsewhere("CREATE TABLE aged (at date)");
	const sql = "INSERT INTO aged VALUES ($1) RETURNING at::text";
	await using old = await connect(proxy);
	expect(await served(old, sql, "2024-01-01 12:34:56")).toEqual([["2024-01-01"]]);
	await elsewhere("ALTER TABLE aged ALTER at TYPE timestamp");
	await until(async () => {
		await using client = await connect(proxy);
		return JSON.stringify(await served(client, sql, "2024-01-01 12:34:56")) === '[["2024-01-01 12:34:56"]]';
	}, "the type of the column");
	expect(await execute(old, "served", "2024-01-01 12:34:56")).toEqual([["2024-01-01 00:00:00"]]);
});

test("DDL is heard of on all workers, when it is committed, in whatever form", async () => {
	await using proxy = await start({ workers: 2, client_placement: "spread", default_pool_size: 4 });
	await elsewhere("CREATE TABLE heard (at date)");
	const sql = "INSERT INTO heard VALUES ($1) RETURNING at::text";
	const [[here], [there]] = await connectToBothWorkers(proxy, 1);
	const changes = [
		["ALTER TABLE heard ALTER at TYPE timestamp", "2024-01-01 12:34:56"],
		["BEGIN; ALTER TABLE heard ALTER at TYPE date; COMMIT", "2024-01-01"],
		["DO $$ BEGIN ALTER TABLE heard ALTER at TYPE timestamp; END $$", "2024-01-01 12:34:56"],
		["DROP TABLE heard; CREATE TABLE heard AS SELECT current_date AS at", "2024-01-01"],
	];
	for (const [ddl, expected] of changes) {
		for (const client of [here!, there!]) {
			await send(client, f.close("S", "served"));
			await served(client, sql, "2024-01-01 12:34:56");
		}
		await here!.query(ddl!);
		// A new name, so that no Close has the server asked.
		for (const client of [here!, there!]) {
			const fresh = `of ${ddl}`;
			const result = await send(client, f.parse(sql, fresh), ...run(fresh, "2024-01-01 12:34:56"));
			expect([ddl, shown(result)]).toEqual([ddl, [[expected!]]]);
		}
	}
	for (const client of [here!, there!]) client.close();
});

test("what a transaction has altered is its own until it commits", async () => {
	await elsewhere("CREATE TABLE rolled (n int)");
	const sql = "INSERT INTO rolled VALUES ($1) RETURNING n";
	await using client = await connect(several);
	await using other = await connect(several);
	expect(await served(other, sql, "1")).toEqual([["1"]]);
	await client.query("BEGIN; ALTER TABLE rolled ALTER n TYPE bigint");
	expect(await served(client, sql, "3000000000")).toEqual([["3000000000"]]);
	await client.query("ROLLBACK");
	await using next = await connect(several);
	expect(await served(next, sql, "3000000000")).toBe("22003");
	// In one write, and in one batch: the Parse is behind the ALTER.
	client.send(
		f.query("ALTER TABLE rolled ALTER n TYPE bigint"),
		f.parse(sql, "behind"),
		...run("behind", "3000000000"),
		f.sync(),
	);
	expect([shown(await client.result()), shown(await client.result())]).toEqual([[], [["3000000000"]]]);
});

test("temporary tables that come and go make nobody parse again", async () => {
	await using client = await connect(single);
	await using other = await connect(single);
	await served(client, "SELECT 'temporary' AS a");
	const times = "SELECT max(prepare_time)::text FROM pg_prepared_statements WHERE statement LIKE '%AS a'";
	const before = await one(client, times);
	await other.query("BEGIN; CREATE TEMP TABLE passing (a int) ON COMMIT DROP; COMMIT");
	await other.query("CREATE TEMP TABLE passing (a int); DROP TABLE passing");
	await other.query("BEGIN; CREATE TEMP VIEW passing AS SELECT 1; COMMIT");
	await using next = await connect(single);
	await served(next, "SELECT 'temporary' AS a");
	expect(await one(client, times)).toBe(before);
	await other.query("CREATE TABLE staying (a int)");
	await using last = await connect(single);
	await served(last, "SELECT 'temporary' AS a");
	expect(await one(client, times)).not.toBe(before);
});

test("a temporary table hides another for its client alone", async () => {
	await elsewhere("CREATE TABLE hidden (a int); INSERT INTO hidden VALUES (1)");
	await using client = await connect(single);
	await using other = await connect(single);
	expect(await served(other, "SELECT * FROM hidden")).toEqual([["1"]]);
	await client.query(
		"BEGIN; CREATE TEMP TABLE hidden (b text, c text) ON COMMIT DROP; INSERT INTO hidden VALUES ('x', 'y')",
	);
	expect(await served(client, "SELECT * FROM hidden")).toEqual([["x", "y"]]);
	await client.query("COMMIT");
	await using next = await connect(single);
	expect(await served(next, "SELECT * FROM hidden")).toEqual([["1"]]);
	expect(await execute(client, "served")).toBe("0A000");
});

test("tenants by search_path, by role, by what a transaction sets: each its own table, on one server", async () => {
	await elsewhere(`
		CREATE SCHEMA ta; CREATE TABLE ta.t (a int, at date); INSERT INTO ta.t VALUES (1, '2024-01-01');
		CREATE SCHEMA tb; CREATE TABLE tb.t (b text, a bigint, at timestamp); INSERT INTO tb.t VALUES ('b', 2, '2024-01-01 12:34:56')`);
	const right: Record<string, string[][]> = { ta: [["1", "2024-01-01"]], tb: [["b", "2", "2024-01-01 12:34:56"]] };
	const set: Record<string, (tenant: string) => string> = {
		SET: (tenant) => `SET search_path = ${tenant}`,
		set_config: (tenant) => `SELECT set_config('search_path', '${tenant}', false)`,
	};
	for (const [how, sql] of Object.entries(set)) {
		const clients = await Promise.all(
			["ta", "tb", "ta", "tb"].map(async (tenant) => {
				const client = await connect(single);
				await client.query(sql(tenant));
				await prepare(client, how, "SELECT * FROM t");
				return { tenant, client };
			}),
		);
		for (let i = 0; i < 3; i++)
			for (const { tenant, client } of clients)
				expect([how, await execute(client, how)]).toEqual([how, right[tenant]!]);
		for (const { client } of clients) client.close();
	}
	// As PostgREST does it: in each transaction anew.
	for (const sql of ["SET LOCAL search_path = tb", "SELECT set_config('search_path', 'tb', true)"]) {
		await using client = await connect(single);
		for (const frames of [[f.query(`BEGIN; ${sql}`)], [f.query("BEGIN"), f.query(sql)]]) {
			const name = `s${frames.length}`;
			client.send(...frames, f.parse("SELECT * FROM t", name), ...run(name), f.query("COMMIT"));
			const results = [];
			for (let i = 0; i < frames.length + 1; i++) results.push(await client.result());
			expect([sql, results.at(-1)!.rows]).toEqual([sql, right.tb!]);
		}
		await client.query("SET search_path = ta");
		expect(await served(client, "SELECT * FROM t")).toEqual(right.ta!);
	}
});

test("constants keep the values that they had at Parse, wherever the statement is prepared again", async () => {
	const epoch = "SELECT extract(epoch FROM timestamptz '2026-03-01 00:00')::bigint";
	const clients = await Promise.all([0, 1].map(() => connect(several)));
	const [client, other] = clients as [RawClient, RawClient];
	const utc = [["1772323200"]];
	const tokyo = [["1772290800"]];
	await prepare(client, "utc", epoch);
	await client.query("SET TimeZone = 'Asia/Tokyo'");
	await prepare(client, "tokyo", epoch);
	await prepare(other, "utc", epoch);
	// Read by the settings of a transaction that is over.
	client.send(f.query("BEGIN; SET LOCAL TimeZone = 'UTC'"), f.parse(epoch, "local"), f.query("COMMIT"));
	for (let i = 0; i < 2; i++) await client.result();
	for (let servers = 0; servers < 3; servers++) {
		expect(await execute(client, "utc")).toEqual(utc);
		expect(await execute(client, "tokyo")).toEqual(tokyo);
		expect(await execute(client, "local")).toEqual(utc);
		// In a transaction that reads otherwise itself, and goes on to.
		await client.query("BEGIN; SET LOCAL TimeZone = 'America/New_York'");
		const mixed = await send(client, ...run("utc"), ...run("tokyo"), f.parse("SHOW TimeZone"), ...run(""));
		expect(shown(mixed)).toEqual([...utc, ...tokyo, ["America/New_York"]]);
		await client.query("COMMIT");
		expect(await one(client, "SHOW TimeZone")).toBe("Asia/Tokyo");
		expect(await execute(other, "utc")).toEqual(utc);
		await using _ = await taken(several);
		await client.query("SELECT 1");
	}
	for (const each of clients) each.close();
});

test("a statement of a text without such constants is one for all, whatever they set", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	for (const zone of ["UTC", "Asia/Tokyo", "America/New_York"]) {
		await using client = await connect(proxy);
		await prepare(client, "s", "SELECT 'active' WHERE $1::int > 0");
		await client.query(`SET TimeZone = '${zone}'`);
		expect(await execute(client, "s", "1")).toEqual([["active"]]);
	}
	await using client = await connect(proxy);
	expect(await prepared(client)).toBe("1");
});

test("a migration under load: nobody reads a column as another, and all are served afterwards", async () => {
	await using proxy = await start({ default_pool_size: 3, workers: 2 });
	await elsewhere("CREATE TABLE busy (price int, stock int); INSERT INTO busy VALUES (100, 7)");
	const sql = "SELECT * FROM busy";
	let over = false;
	const clients = await Promise.all(Array.from({ length: 6 }, () => connect(proxy)));
	const told = await Promise.all(clients.map((client) => prepare(client, "s", sql)));
	const work = clients.map(async (client, i) => {
		let { columns } = told[i]!;
		let healed = 0;
		for (let last = false; !last; ) {
			last = over;
			const { rows, errors } = await send(client, ...run("s"));
			if (errors.length > 0) {
				expect(errors[0]).toMatchObject({ C: "0A000" });
				await send(client, f.close("S", "s"));
				columns = (await prepare(client, "s", sql)).columns;
				healed++;
				continue;
			}
			const read = Object.fromEntries(columns.map((column, i) => [column, rows[0]![i]]));
			expect(read).toMatchObject({ price: "100", stock: "7" });
		}
		return healed;
	});
	await using migration = await connect(proxy);
	for (const ddl of [
		"ALTER TABLE busy ADD extra int",
		"ALTER TABLE busy DROP price, ADD price int DEFAULT 100",
		"BEGIN; DROP TABLE busy; CREATE TABLE busy (stock int, price int); INSERT INTO busy VALUES (7, 100); COMMIT",
	])
		expect((await migration.query(ddl)).errors).toEqual([]);
	over = true;
	const healed = await Promise.all(work);
	expect(Math.min(...healed)).toBeGreaterThan(0);
	for (const client of clients) client.close();
});

test("a type that is made anew", async () => {
	await elsewhere("CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE moods (m mood)");
	const sql = "INSERT INTO moods VALUES ($1) RETURNING m";
	await using old = await connect(single);
	expect(await served(old, sql, "good")).toEqual([["good"]]);
	await old.query("DROP TABLE moods; DROP TYPE mood; CREATE TYPE mood AS ENUM ('new'); CREATE TABLE moods (m mood)");
	await using client = await connect(single);
	expect(await served(client, sql, "new")).toEqual([["new"]]);
	await send(old, f.close("S", "served"));
	expect(await served(old, sql, "new")).toEqual([["new"]]);
});

test("FETCH has the columns of its cursor, whichever that is", async () => {
	await using client = await connect(several);
	await prepare(client, "f", "FETCH 1 FROM c");
	for (const sql of ["SELECT 1 AS a", "SELECT 2 AS b, 'x' AS c"]) {
		await using _ = await taken(several);
		await client.query(`BEGIN; DECLARE c CURSOR FOR ${sql}`);
		expect((await execute(client, "f")).length).toBe(1);
		await client.query("COMMIT");
	}
});

test("a constant that is the time of its Parse is nobody else's", async () => {
	const sql = "SELECT 'now'::timestamptz::text";
	await using a = await connect(single);
	await using b = await connect(single);
	const first = await served(a, sql);
	// As a driver does that prepares once: it is the same for as long as it is here.
	expect(await execute(a, "served")).toEqual(first);
	expect(await served(b, sql)).not.toEqual(first);
	expect(await execute(a, "served")).toEqual(first);
});

// The planner makes a text of a constant once, for all who run the plan.
test("constants that become texts by a session's settings", async () => {
	const sql = `SELECT (1.0 / 3)::float8::text, '\\x41'::bytea::text, quote_ident('a')`;
	await using a = await connect(single, {
		parameters: { extra_float_digits: "0", bytea_output: "escape", quote_all_identifiers: "on" },
	});
	await using b = await connect(single);
	expect(await served(a, sql)).toEqual([["0.333333333333333", "A", '"a"']]);
	expect(await served(b, sql)).toEqual([["0.3333333333333333", "\\x41", "a"]]);
});

test("a table that SELECT INTO makes, or a right that GRANT gives, stands before another", async () => {
	await cluster.primary.sql("CREATE ROLE hider; GRANT hider TO pgdog");
	await elsewhere(
		`CREATE TABLE veiled (a text); INSERT INTO veiled VALUES ('public'); CREATE SCHEMA hides;
		CREATE TABLE hides.other (a text); INSERT INTO hides.other VALUES ('hides'); CREATE TABLE other AS TABLE veiled;
		GRANT SELECT ON other, hides.other TO hider`,
	);
	const parameters = { search_path: "hides, public" };
	await using maker = await connect(single, { parameters });
	await using a = await connect(single, { parameters });
	await using b = await connect(single, { parameters });
	expect(await served(a, "SELECT a FROM veiled")).toEqual([["public"]]);
	await maker.query("SELECT 'hides'::text AS a INTO hides.veiled");
	expect(await served(b, "SELECT a FROM veiled")).toEqual([["hides"]]);
	for (const client of [a, b]) await client.query("SET ROLE hider");
	expect(await execute(a, "served")).toBe("42501");
	await send(a, f.close("S", "served"));
	await send(b, f.close("S", "served"));
	expect(await served(a, "SELECT a FROM other")).toEqual([["public"]]);
	await maker.query("GRANT USAGE ON SCHEMA hides TO hider");
	expect(await served(b, "SELECT a FROM other")).toEqual([["hides"]]);
	await elsewhere("DROP SCHEMA hides CASCADE; DROP TABLE veiled, other");
});

// README: what is declared IMMUTABLE is computed with the plan, which clients share.
test("a function that reads a setting answers each client by its own, when it is declared STABLE as it has to be", async () => {
	await elsewhere(
		"CREATE FUNCTION tenant() RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN RETURN current_setting('app.tenant'); END $$",
	);
	const clients = await Promise.all(
		["a", "b", "c"].map((tenant) => connect(single, { parameters: { "app.tenant": tenant } })),
	);
	for (const client of clients) await prepare(client, "mine", "SELECT tenant()");
	for (let round = 0; round < 8; round++)
		for (const [i, client] of clients.entries()) expect(await execute(client, "mine")).toEqual([["abc"[i]!]]);
	expect(await one(clients[0]!, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%tenant%'")).toBe(
		"1",
	);
	for (const client of clients) client.close();
	await elsewhere("DROP FUNCTION tenant");
});
