// Prepared statements of a client of several shards that are not alike, as in the middle of a migration: what one shard has told
// the client holds on the others.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { onEach, SHARDS, startSharded, startShards } from "./sharded.ts";
import { admin, connect } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	cluster = await startShards();
	proxy = await startSharded(cluster);
	await onEach(
		cluster,
		"CREATE TYPE mood AS ENUM ('good'); CREATE TABLE alike (a int, m mood); INSERT INTO alike VALUES (1, 'good')",
	);
});

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

function send(client: RawClient, ...frames: Uint8Array[]): Promise<QueryResult> {
	client.send(...frames, f.sync());
	return client.result();
}

const on = (shard: number, sql: string) => cluster.primary.sql(sql, { user: "pgdog", database: SHARDS[shard]! });
const prepare = (client: RawClient, name: string, sql: string) =>
	send(client, f.parse(sql, name), f.describe("S", name));
const execute = async (client: RawClient, name: string) => {
	const { rows, errors } = await send(client, f.bind({ statement: name }), f.execute());
	return errors[0]?.C ?? rows;
};

test.each(["s", ""])("columns that another shard has in another order, statement %p", async (name) => {
	await on(0, "CREATE TABLE moved (price int, stock int); INSERT INTO moved VALUES (100, 7)");
	await on(1, "CREATE TABLE moved (stock int, price int); INSERT INTO moved VALUES (7, 100)");
	await on(2, "CREATE TABLE moved (price int, stock int); INSERT INTO moved VALUES (200, 8)");
	await using client = await connect(proxy);
	await client.query("SET pgdog.shard = 0");
	await prepare(client, name, "SELECT * FROM moved");
	expect(await execute(client, name)).toEqual([["100", "7"]]);
	// A SET in the extended protocol, which the unnamed statement outlives as long as it has a name.
	const to = (shard: number) =>
		send(
			client,
			f.parse(`SET pgdog.shard = ${shard}`, "to"),
			f.bind({ statement: "to" }),
			f.execute(),
			f.close("S", "to"),
		);
	await to(2);
	expect(await execute(client, name)).toEqual([["200", "8"]]);
	await to(1);
	expect(await execute(client, name)).toBe("0A000");
	await send(client, f.close("S", name));
	expect((await prepare(client, name, "SELECT * FROM moved")).columns).toEqual(["stock", "price"]);
	expect(await execute(client, name)).toEqual([["7", "100"]]);
	await onEach(cluster, "DROP TABLE moved");
});

test.each(["s", ""])("a name used and given anew, while a shard waits for its server, statement %p", async (name) => {
	await using client = await connect(proxy);
	await using holder = await connect(proxy);
	const run = [f.bind({ statement: name }), f.execute()];
	// Of an unnamed statement that was asked about, each shard would know.
	await send(client, f.parse("SELECT 1 FROM here", name));
	await holder.query("BEGIN");
	await holder.query("/* pgdog_shard: 1 */ SELECT 1");
	client.send(f.parse("START TRANSACTION", "begin"), f.bind({ statement: "begin" }), f.execute(), f.sync());
	const end = name === "" ? [] : [f.close("S", name)];
	const anew = [f.parse("SELECT 'text' FROM here", name), f.describe("S", name)];
	const asked = send(client, ...run, ...end, ...anew, ...run);
	await using console = await admin(proxy);
	await until(async () => (await console.query("SHOW CLIENTS")).rows.flat().includes("waiting"), "a client that waits");
	await holder.query("COMMIT");
	expect((await asked).tags).toEqual(["START TRANSACTION"]);
	const { rows, errors } = await client.result();
	expect([errors, rows]).toEqual([[], [["1"], ["1"], ["1"], ["text"], ["text"], ["text"]]]);
	expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
});

test("types of the user's own have other OIDs on each shard, and are the same", async () => {
	await on(1, "CREATE TYPE before AS ENUM (); DROP TABLE alike; DROP TYPE mood; CREATE TYPE mood AS ENUM ('good')");
	await on(1, "CREATE TABLE alike (a int, m mood); INSERT INTO alike VALUES (1, 'good')");
	await using client = await connect(proxy);
	for (const shard of [0, 1, 2]) {
		await client.query(`SET pgdog.shard = ${shard}`);
		if (shard === 0) await prepare(client, "s", "SELECT * FROM alike");
		expect([shard, await execute(client, "s")]).toEqual([shard, [["1", "good"]]]);
	}
});

test("DEALLOCATE on a shard where the text is an error", async () => {
	await using client = await connect(proxy);
	await send(client, f.parse("/* pgdog_shard: 1 */ SELECT * FROM lonely", "s"));
	const { tags, errors } = await client.query("/* pgdog_shard: 0 */ DEALLOCATE s");
	expect([tags, errors]).toEqual([["DEALLOCATE"], []]);
	expect(await execute(client, "s")).toBe("26000");
	await send(client, f.parse("/* pgdog_shard: 1 */ SELECT * FROM lonely", "s"));
	const ended = await send(
		client,
		f.parse("/* pgdog_shard: 0 */ DEALLOCATE s"),
		f.bind(),
		f.execute(),
		f.bind({ statement: "s" }),
	);
	expect([ended.tags, ended.errors[0]?.C]).toEqual([["DEALLOCATE"], "26000"]);
});

test("DEALLOCATE of what has its own name on the server", async () => {
	await using own = await startSharded(cluster, { general: { prepared_statements: "disabled" } });
	await using client = await connect(own);
	await client.query("BEGIN");
	for (const last of [1, 2, 3]) {
		const parsed = await send(client, f.parse(`SELECT ${last}`, "s"), f.bind({ statement: "s" }));
		expect(parsed.errors).toEqual([]);
		const { tags, errors } = last === 1 ? await client.query("DEALLOCATE s") : await client.extended("DEALLOCATE s");
		expect([last, tags, errors]).toEqual([last, ["DEALLOCATE"], []]);
	}
	expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
});

test("a RELOAD that ends the sharing of names: a client that is there goes on alike on all shards", async () => {
	await using changing = await startSharded(cluster, { general: { prepared_statements: "extended" } });
	await using client = await connect(changing);
	await client.query("SET pgdog.shard = 0");
	await prepare(client, "s", "SELECT current_database()");
	const config = await Bun.file(changing.configPath).text();
	await Bun.write(changing.configPath, config.replace('"extended"', '"disabled"'));
	await using console = await admin(changing);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	for (const shard of [0, 1, 2]) {
		await client.query(`SET pgdog.shard = ${shard}`);
		expect(await execute(client, "s")).toEqual([[SHARDS[shard]!]]);
	}
});
