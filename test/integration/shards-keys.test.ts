// Rows of sharded tables on three real shards, put there and found through the proxy by their keys: literals and parameters, text and
// binary, prepared and not, in transactions. What cannot be placed is refused, and nothing of it is on any shard.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { concat, frontend as f, int32 } from "../support/wire-frames.ts";
import { onEach, SHARDS, sane, shardedOptions } from "./sharded.ts";
import { connect } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;

const TABLES = `CREATE TABLE users (id bigint PRIMARY KEY, name text);
	CREATE TABLE orders (id bigint, user_id bigint, total numeric);
	CREATE TABLE tokens (token uuid PRIMARY KEY, note text);
	CREATE TABLE names (name varchar PRIMARY KEY, note text);
	CREATE TABLE rates (code text, rate int)`;

const SHARDED_TABLES = [
	{ name: "users", column: "id" },
	{ name: "orders", column: "user_id" },
	{ name: "tokens", column: "token", data_type: "uuid" },
	{ name: "names", column: "name", data_type: "varchar" },
].map((table) => ({ database: "pgdog", ...table }));

beforeAll(async () => {
	cluster = await startPostgres({ databases: SHARDS });
	await onEach(cluster, TABLES);
	const options = shardedOptions(cluster);
	proxy = await startProxy({ ...options, config: { ...(options.config as object), sharded_tables: SHARDED_TABLES } });
});

afterAll(async () => {
	if (proxy !== undefined) sane(proxy);
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

const counts = (table: string) => onEach(cluster, `SELECT count(*)::int FROM ${table}`);

test("a row is on one shard, that of PostgreSQL's own hash, and found there by its key", async () => {
	await using client = await connect(proxy);
	for (let id = 1; id <= 30; id++) {
		const { errors } = await client.query(`INSERT INTO users (id, name) VALUES (${id}, 'user ${id}')`);
		expect(errors).toEqual([]);
	}
	const ids = await onEach(cluster, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM users");
	await cluster.primary.sql(
		`CREATE TABLE parted (id bigint) PARTITION BY HASH (id);
		 CREATE TABLE p0 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 0);
		 CREATE TABLE p1 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 1);
		 CREATE TABLE p2 PARTITION OF parted FOR VALUES WITH (MODULUS 3, REMAINDER 2);
		 INSERT INTO parted SELECT generate_series(1, 30)`,
		{ user: "pgdog", database: "s0" },
	);
	for (const [shard, there] of ids.entries())
		expect(await onEach(cluster, `SELECT string_agg(id::text, ' ' ORDER BY id) FROM p${shard}`, 1)).toEqual([there]);
	for (let id = 1; id <= 30; id++) {
		const { rows } = await client.query(`SELECT name, count(*) OVER () FROM users WHERE id = ${id} ORDER BY 1`);
		expect(rows).toEqual([[`user ${id}`, "1"]]);
	}
});

/** What a statement is answered: rows, tags, or why it was refused. */
async function answer(client: RawClient, sql: string): Promise<unknown> {
	const { rows, tags, errors } = await client.query(sql);
	if (errors.length > 0) return `${errors[0]!.C} ${errors[0]!.M}`;
	return rows.length > 0 ? rows.map((row) => row.join(",")).join(" ") : tags.join(" ");
}

function batch(client: RawClient, messages: Uint8Array): Promise<QueryResult> {
	client.send(messages);
	return client.result();
}

/** The answer to a statement that is parsed, bound and run in one batch. */
async function bound(
	client: RawClient,
	sql: string,
	values: (string | Uint8Array | null)[],
	formats: number[] = [],
	types: number[] = [],
): Promise<unknown> {
	const { rows, tags, errors } = await batch(
		client,
		concat(f.parse(sql, "", types), f.bind({ values, formats }), f.describe("P"), f.execute(), f.sync()),
	);
	if (errors.length > 0) return `${errors[0]!.C} ${errors[0]!.M}`;
	return rows.length > 0 ? rows.map((row) => row.join(",")).join(" ") : tags.join(" ");
}

describe("rows that are there", () => {
	beforeAll(async () => {
		await using client = await connect(proxy);
		const order = (id: number) => `INSERT INTO orders (id, user_id, total) VALUES (${id}, ${1 + (id % 10)}, ${id}.50)`;
		for (let id = 100; id < 140; id++) expect(await answer(client, order(id))).toBe("INSERT 0 1");
		expect(await answer(client, "INSERT INTO rates VALUES ('a', 1), ('b', 2) RETURNING code")).toBe("a b");
	});

	test("are on one shard each, and those of other tables on all", async () => {
		expect((await counts("orders")).reduce((sum, one) => Number(sum) + Number(one), 0)).toBe(40);
		expect((await counts("orders")).includes(40)).toBe(false);
		expect(await counts("rates")).toEqual([2, 2, 2]);
	});

	test.each([
		["SELECT count(*) FROM orders WHERE user_id = 3", "4"],
		["SELECT count(*) FROM orders WHERE user_id = '3'::bigint", "4"],
		["SELECT sum(total) FROM orders WHERE user_id IN (3)", "470.00"],
		["SELECT max(id), min(id) FROM orders WHERE user_id = ANY('{3}') GROUP BY user_id ORDER BY 1 LIMIT 1", "132,102"],
		["SELECT name FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 7 ORDER BY o.id LIMIT 1", "user 7"],
		["SELECT count(*) FROM users u LEFT JOIN orders o ON o.user_id = u.id WHERE u.id = 30", "1"],
		["WITH x AS (SELECT * FROM orders WHERE user_id = 5) SELECT count(*), max(id) FROM x", "4,134"],
		["SELECT name, (SELECT count(*) FROM orders o WHERE o.user_id = u.id) FROM users u WHERE id = 5", "user 5,4"],
		["SELECT count(*) FROM orders, rates WHERE user_id = 5 AND code = 'a'", "4"],
		["SELECT count(*) FROM rates", "2"],
		["SELECT max(rate) FROM rates r JOIN rates s USING (code, rate)", "2"],
		["SELECT count(*) FROM orders WHERE user_id = NULL::bigint", "0"],
		[
			"SELECT count(DISTINCT id) FROM orders WHERE user_id = NULL::bigint",
			"0A000 the aggregate count() is not supported across shards",
		],
		["SELECT count(*) FROM orders WHERE user_id = 5 AND user_id = 6", "0"],
		["UPDATE orders SET total = total + 1 WHERE user_id = 5 AND id = 104 RETURNING total", "105.50"],
		["UPDATE orders SET total = 1 FROM users WHERE users.id = orders.user_id AND users.name = 'user 9'", "UPDATE 4"],
		["UPDATE rates SET rate = rate + 1", "UPDATE 2"],
		["DELETE FROM orders USING users WHERE users.id = user_id AND users.id = 10", "DELETE 4"],
		[
			"INSERT INTO users (id, name) VALUES (1, 'again') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING name",
			"again",
		],
		[
			"MERGE INTO users USING (VALUES (2, 'merged')) s(id, name) ON users.id = s.id WHEN MATCHED THEN UPDATE SET name = s.name",
			"MERGE 1",
		],
		["SELECT name FROM users WHERE id = 2", "merged"],
	])("%s", async (sql, expected) => {
		await using client = await connect(proxy);
		expect(await answer(client, sql)).toBe(expected);
	});

	test("are found by parameters, in text and in binary", async () => {
		await using client = await connect(proxy);
		const sql = "SELECT count(*) FROM orders WHERE user_id = $1";
		expect(await bound(client, sql, ["3"])).toBe("4");
		expect(await bound(client, sql, [new Uint8Array([0, 0, 0, 0, 0, 0, 0, 3])], [1])).toBe("4");
		expect(await bound(client, sql, [new Uint8Array([0, 0, 0, 3])], [1], [23])).toBe("4");
		expect(await bound(client, sql, [new Uint8Array([0, 3])], [1], [21])).toBe("4");
		expect(await bound(client, sql, [null])).toBe("0");
		expect(await bound(client, "SELECT count(*) FROM orders WHERE user_id = ANY($1)", ["{3,NULL}"])).toBe("4");
		const array = concat(int32(1), int32(0), int32(20), int32(1), int32(1), int32(8), int32(0), int32(3));
		expect(await bound(client, "SELECT count(*) FROM orders WHERE user_id = ANY($1)", [array], [1])).toBe("4");
		const both = "SELECT sum(id) FROM orders WHERE user_id = $2 AND id IN (102, $1)";
		expect(await bound(client, both, ["112", "3"])).toBe("214");
		expect(await bound(client, "SELECT count(*) FROM orders WHERE user_id = 3 AND id > $1", ["112"])).toBe("2");
		// What the type may be otherwise decides how PostgreSQL reads it.
		expect(await bound(client, "SELECT id FROM orders WHERE user_id = $1", ["3"], [], [701])).toHaveLength(15);
	});

	test("are found by a prepared statement whose key is another with each Bind", async () => {
		await using client = await connect(proxy);
		client.send(concat(f.parse("SELECT user_id, count(*) FROM orders WHERE user_id = $1 GROUP BY 1", "p"), f.sync()));
		await client.until("Z");
		for (const key of [3, 4, 6, 7, 8, 9, 1, 3, 4]) {
			const { rows, errors } = await batch(
				client,
				concat(f.bind({ statement: "p", values: [String(key)] }), f.execute(), f.sync()),
			);
			expect([rows, errors]).toEqual([[[String(key), "4"]], []]);
		}
		// Two shards in one batch.
		const two = [3, 4].map((key) => concat(f.bind({ statement: "p", values: [String(key)] }), f.execute()));
		expect((await batch(client, concat(...two, f.sync()))).rows).toEqual([
			["3", "4"],
			["4", "4"],
		]);
	});
});

test("uuids and texts are keys, too", async () => {
	await using client = await connect(proxy);
	for (let i = 0; i < 20; i++) {
		const uuid = `00000000-0000-4000-8000-0000000000${10 + i}`;
		expect(await answer(client, `INSERT INTO tokens (token, note) VALUES ('${uuid}', '${i}')`)).toBe("INSERT 0 1");
		expect(await answer(client, `SELECT max(note) FROM tokens WHERE token = '${uuid.toUpperCase()}'`)).toBe(`${i}`);
		expect(await bound(client, "SELECT max(note) FROM tokens WHERE token = $1", [uuid])).toBe(`${i}`);
		const binary = Buffer.from(uuid.replaceAll("-", ""), "hex");
		expect(await bound(client, "SELECT max(note) FROM tokens WHERE token = $1", [binary], [1])).toBe(`${i}`);
		const name = `n'ä${i}`;
		expect(await bound(client, "INSERT INTO names (name, note) VALUES ($1, $2)", [name, `${i}`])).toBe("INSERT 0 1");
		expect(await answer(client, `SELECT max(note) FROM names WHERE name = '${name.replace("'", "''")}'`)).toBe(`${i}`);
		expect(await answer(client, `SELECT max(note) FROM names WHERE name = E'n\\'ä${i}'`)).toBe(`${i}`);
	}
	for (const table of ["tokens", "names"]) expect((await counts(table)).includes(20)).toBe(false);
});

test("a transaction may be on two shards, and ends on both", async () => {
	await using client = await connect(proxy);
	for (const end of ["ROLLBACK", "COMMIT"]) {
		await client.query("BEGIN");
		expect(await answer(client, "UPDATE users SET name = 'both' WHERE id = 3")).toBe("UPDATE 1");
		expect(await answer(client, "UPDATE users SET name = 'both' WHERE id = 4")).toBe("UPDATE 1");
		expect(await answer(client, "SELECT count(*) FROM users WHERE id = 3 AND name = 'both'")).toBe("1");
		await client.query(end);
		await using other = await connect(proxy);
		const names: unknown[] = [];
		for (const id of [3, 4]) names.push(await answer(other, `SELECT name FROM users WHERE id = ${id}`));
		const expected = end === "COMMIT" ? ["both", "both"] : ["user 3", "user 4"];
		expect(names).toEqual(expected);
	}
});

test("of `-0` the minus is a minus in other texts of the shape", async () => {
	await using client = await connect(proxy);
	await client.query("BEGIN");
	for (let id = 0; id < 6; id++) {
		expect(await answer(client, `INSERT INTO users (id, name) VALUES (-${id + 900}, 'below')`)).toBe("INSERT 0 1");
		expect(
			await answer(client, `SELECT count(*), -id FROM users WHERE id = -${id === 0 ? 0 : id + 900} GROUP BY 2`),
		).toBe(id === 0 ? "SELECT 0" : `1,${id + 900}`);
	}
	await client.query("ROLLBACK");
});

describe("refused is", () => {
	test.each([
		["INSERT INTO users VALUES (77, 'x')", "an INSERT without a list of columns is not supported across shards"],
		["INSERT INTO users (name) VALUES ('x')", "an INSERT without the sharding key (id) is not supported across shards"],
		[
			"INSERT INTO users (id, name) VALUES (71, 'x'), (72, 'x'), (73, 'x'), (74, 'x')",
			"a statement that inserts rows on several shards is not supported",
		],
		["INSERT INTO users (id, name) VALUES (70 + 1, 'x')", "the shard of a new row is not known"],
		["INSERT INTO users (id, name) VALUES (DEFAULT, 'x')", "the shard of a new row is not known"],
		["INSERT INTO users (id, name) VALUES (71.4, 'x')", "the shard of a new row is not known"],
		["INSERT INTO users (id, name) SELECT 70 + id, name FROM users", "the shard of a new row is not known"],
		[
			"INSERT INTO rates SELECT name, 1 FROM users WHERE id = 3",
			"a write to a table that is on all shards together with sharded ones is not supported across shards",
		],
		["UPDATE users SET id = 71 WHERE id = 3", "sharding key updates are forbidden"],
		[
			"BEGIN; INSERT INTO users (id, name) VALUES (71, 'x'); COMMIT",
			"a statement that inserts rows on several shards is not supported",
		],
		["COPY users FROM STDIN", "COPY … FROM into a sharded table is not supported across shards"],
		[
			"PREPARE p AS INSERT INTO users (id, name) VALUES ($1, 'x')",
			"PREPARE of a write that depends on its values is not supported across shards",
		],
		[
			"CREATE TABLE z AS SELECT * FROM users",
			"a table made by a query of sharded tables is not supported across shards",
		],
	])("%s", async (sql, expected) => {
		await using client = await connect(proxy);
		expect(await answer(client, sql)).toBe(`0A000 ${expected}`);
		expect(await onEach(cluster, "SELECT count(*)::int FROM users WHERE id > 70 OR name = 'x'")).toEqual([0, 0, 0]);
		expect(await onEach(cluster, "SELECT to_regclass('z')::text")).toEqual([null, null, null]);
	});

	test("a hint that would write to one copy of many", async () => {
		await using client = await connect(proxy);
		const said = await answer(client, "/* pgdog_shard: 1 */ INSERT INTO rates VALUES ('c', 3)");
		expect(said).toBe("58000 cannot write to an omnisharded table with a shard directive");
		expect((await counts("rates")).every((count) => count === 2)).toBe(true);
	});
});

test("a hint beats the key, and lets through what is refused without it", async () => {
	await using client = await connect(proxy);
	const found: unknown[] = [];
	for (let shard = 0; shard < 3; shard++)
		found.push(await answer(client, `/* pgdog_shard: ${shard} */ SELECT count(*) FROM users WHERE id = 8`));
	expect(found.map(String).sort()).toEqual(["0", "0", "1"]);
	const hint = "/* pgdog_shard: 1 */";
	expect(await answer(client, `${hint} INSERT INTO users VALUES (81, 'hinted')`)).toBe("INSERT 0 1");
	expect(await onEach(cluster, "SELECT count(*)::int FROM users WHERE id = 81")).toEqual([0, 1, 0]);
	expect(await answer(client, `${hint} DELETE FROM users WHERE id = 81`)).toBe("DELETE 1");
});

test("COPY of what is on all shards comes to each of them, and is one answer", async () => {
	await using client = await connect(proxy);
	client.send(f.query("COPY rates FROM STDIN"));
	await client.until("G");
	client.send(f.copyData("x\t7\ny\t8\n"), f.copyDone());
	expect((await client.result()).tags).toEqual(["COPY 2"]);
	expect(await onEach(cluster, "SELECT count(*)::int FROM rates WHERE rate IN (7, 8)")).toEqual([2, 2, 2]);
	client.send(f.query("COPY (SELECT code FROM rates WHERE rate = 7) TO STDOUT"));
	const copied = (await client.until("Z")).filter(({ code }) => code === "d");
	expect(copied.map(({ body }) => Buffer.from(body).toString())).toEqual(["x\n"]);
	expect(await answer(client, "DELETE FROM rates WHERE rate IN (7, 8)")).toBe("DELETE 2");
});

describe("with columns of any table, and schemas", () => {
	let other: Proxy;

	beforeAll(async () => {
		await onEach(
			cluster,
			"CREATE SCHEMA north; CREATE SCHEMA south; CREATE TABLE north.t (x int); CREATE TABLE south.t (x int)",
		);
		await onEach(cluster, "CREATE TABLE visits (user_id int, page text); CREATE TABLE pages (page text)");
		const options = shardedOptions(cluster);
		const more = {
			sharded_tables: [{ database: "pgdog", column: "user_id" }],
			sharded_schemas: [
				{ database: "pgdog", name: "north", shard: 1 },
				{ database: "pgdog", name: "south", shard: 2 },
			],
			omnisharded_tables: [{ database: "pgdog", tables: ["pages"] }],
			rewrite: { shard_key: "ignore" },
		};
		other = await startProxy({ ...options, config: { ...(options.config as object), ...more } });
	});

	afterAll(async () => {
		if (other !== undefined) sane(other);
		await other?.[Symbol.asyncDispose]();
	});

	test.each([
		["INSERT INTO public.visits (user_id, page) VALUES (5, 'a')", "INSERT 0 1"],
		["SELECT page FROM public.visits WHERE user_id = 5", "a"],
		["SELECT page FROM public.visits WHERE user_id > 4", "a"],
		["SELECT page FROM public.visits", '0A000 whether the table "visits" is sharded is not known'],
		["UPDATE public.visits SET user_id = 5 WHERE user_id = 5", "UPDATE 1"],
		["INSERT INTO pages VALUES ('a')", "INSERT 0 1"],
		["SELECT count(*) FROM public.visits JOIN pages USING (page) WHERE user_id = 5", "1"],
		["SELECT count(*) FROM pages", "1"],
		["INSERT INTO north.t VALUES (1), (2)", "INSERT 0 2"],
		["SELECT sum(x) FROM north.t", "3"],
		["SELECT count(*) FROM south.t", "0"],
		["SELECT count(*) FROM north.t, south.t", "0A000 more than one table is not supported across shards"],
		["INSERT INTO t VALUES (1)", "0A000 the shard of a new row is not known"],
		["/* pgdog_sharding_key: south */ SELECT count(*) FROM south.t", "0"],
	])("%s", async (sql, expected) => {
		await using client = await connect(other);
		expect(await answer(client, sql)).toBe(expected);
	});

	test("rows of a schema are on its shard", async () => {
		expect(await onEach(cluster, "SELECT count(*)::int FROM north.t")).toEqual([0, 2, 0]);
	});
});
