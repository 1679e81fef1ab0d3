// Where the proxy puts rows on three real shards, and finds them again: as PostgreSQL's own partitions have them, for each type and
// each way in which a value comes; by mappings, schemas and PgDog's SHA-1; and otherwise after a reload.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Client } from "pg";
import { character } from "../support/characters.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyOptions, type ProxyUser, proxyCommand, startProxy } from "../support/proxy.ts";
import { runTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { onEach, SHARDS, sane, shardedOptions } from "./sharded.ts";

setDefaultTimeout(60_000);

/** A value as SQL writes it, and as a driver sends it in binary. */
interface Sample {
	readonly text: string;
	readonly binary: Buffer;
}

const integer = (bits: 16 | 32 | 64): fc.Arbitrary<Sample> => {
	const half = 2n ** BigInt(bits - 1);
	return fc.bigInt({ min: -half, max: half - 1n }).map((value) => {
		const bytes = Buffer.alloc(8);
		bytes.writeBigInt64BE(value);
		return { text: String(value), binary: bytes.subarray(8 - bits / 8) };
	});
};
const uuid = fc.uuid().map((text) => ({ text, binary: Buffer.from(text.replaceAll("-", ""), "hex") }));
const words = fc.string({ unit: character, maxLength: 30 }).map((text) => ({ text, binary: Buffer.from(text) }));

const TYPES: [type: string, dataType: string, samples: fc.Arbitrary<Sample>][] = [
	["bigint", "bigint", integer(64)],
	["integer", "bigint", integer(32)],
	["smallint", "bigint", integer(16)],
	["uuid", "uuid", uuid],
	["varchar", "varchar", words],
	["text", "varchar", words],
];

const table = (name: string, more: object = {}) => ({ database: "pgdog", name, column: "key", ...more });
const TABLES = [
	...TYPES.map(([type, data_type]) => table(`by_${type}`, { data_type })),
	table("by_sha1", { hasher: "sha1" }),
	table("by_list", {
		data_type: "varchar",
		mapping: [{ values: ["DE", "AT"], shard: 2 }, { start: "N", end: "T", shard: 1 }, { shard: 0 }],
	}),
	table("by_range", {
		mapping: [
			{ end: 0, shard: 0 },
			{ start: 0, end: 100, shard: 1 },
		],
	}),
];

const options = (tables: object[] = TABLES, more: object = {}): ProxyOptions => {
	const { config, users } = shardedOptions(cluster);
	return { config: { ...(config as object), sharded_tables: tables, ...more }, users };
};

let cluster: Cluster;
let proxy: Proxy;
let client: Client;

beforeAll(async () => {
	cluster = await startPostgres({ databases: SHARDS });
	const columns = [
		...TYPES.map(([type]) => [type, type]),
		["sha1", "bigint"],
		["list", "varchar"],
		["range", "bigint"],
	];
	await onEach(cluster, columns.map(([name, type]) => `CREATE TABLE by_${name} (key ${type})`).join(";"));
	await onEach(cluster, "CREATE SCHEMA eu; CREATE SCHEMA us; CREATE TABLE eu.t (key int); CREATE TABLE us.t (key int)");
	proxy = await startProxy(options());
	client = await connectTo(proxy);
});

afterAll(async () => {
	await client?.end();
	if (proxy !== undefined) sane(proxy);
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

async function connectTo({ port }: Proxy, user = "pgdog"): Promise<Client> {
	const made = new Client({ host: "127.0.0.1", port, user, password: "pgdog", database: "pgdog" });
	await made.connect();
	return made;
}

/** The keys that each shard has of a table. */
const keysOn = (name: string) =>
	onEach(cluster, `SELECT coalesce(json_agg(key::text ORDER BY key::text COLLATE "C"), '[]') FROM ${name}`);

const quoted = (text: string) => `'${text.replaceAll("'", "''")}'`;

describe("a row is on the shard whose number its partition has, and is found there", () => {
	test.each(TYPES)("by a column of type %s", async (type, _, samples) => {
		const values = fc.sample(
			fc.uniqueArray(samples, { minLength: 60, maxLength: 60, selector: ({ text }) => text }),
			1,
		)[0]!;
		for (const [i, { text, binary }] of values.entries()) {
			if (i % 3 === 0) await client.query(`INSERT INTO by_${type} (key) VALUES (${quoted(text)})`);
			else await client.query(`INSERT INTO by_${type} (key) VALUES ($1)`, [i % 3 === 1 ? text : binary]);
		}
		await cluster.primary.sql(
			`CREATE TABLE parted_${type} (key ${type}) PARTITION BY HASH (key);
			${[0, 1, 2].map((n) => `CREATE TABLE parted_${type}_${n} PARTITION OF parted_${type} FOR VALUES WITH (MODULUS 3, REMAINDER ${n});`).join("")}
			INSERT INTO parted_${type} VALUES ${values.map(({ text }) => `(${quoted(text)})`).join(", ")}`,
			{ user: "pgdog", database: "s0" },
		);
		const partitions = await Promise.all(
			[0, 1, 2].map(async (n) => {
				const sql = `SELECT coalesce(json_agg(key::text ORDER BY key::text COLLATE "C"), '[]') AS keys FROM parted_${type}_${n}`;
				return (await cluster.primary.sql(sql, { user: "pgdog", database: "s0" }))[0]!.keys;
			}),
		);
		expect(await keysOn(`by_${type}`)).toEqual(partitions);
		for (const [i, { text, binary }] of values.entries()) {
			// An aggregate: over several shards it would be refused.
			const sql = `SELECT count(*)::int AS n FROM by_${type} WHERE key = `;
			const { rows } =
				i % 3 === 0
					? await client.query(sql + quoted(text))
					: await client.query(`${sql}$1`, [i % 3 === 1 ? binary : text]);
			expect([text, rows]).toEqual([text, [{ n: 1 }]]);
		}
	});
});

test("by sha1 a row is where PgDog has it", async () => {
	const values = Array.from({ length: 20 }, () => randomBytes(8).readBigInt64BE());
	for (const value of values) await client.query("INSERT INTO by_sha1 (key) VALUES ($1)", [String(value)]);
	const shardOf = (value: bigint) => createHash("sha1").update(String(value)).digest().readUInt32BE(16) % 3;
	expect(await keysOn("by_sha1")).toEqual(
		[0, 1, 2].map((shard) =>
			values
				.filter((value) => shardOf(value) === shard)
				.map(String)
				.sort(),
		),
	);
});

test("by a mapping a row is where its rule says, and one that no rule is for is nowhere", async () => {
	for (const country of ["DE", "FR", "NO", "AT", "T"])
		await client.query("INSERT INTO by_list (key) VALUES ($1)", [country]);
	expect(await keysOn("by_list")).toEqual([["FR", "T"], ["NO"], ["AT", "DE"]]);
	for (const value of [-1, 0, 99]) await client.query(`INSERT INTO by_range (key) VALUES (${value})`);
	const refused = await client.query("INSERT INTO by_range (key) VALUES (100)").catch((error) => error);
	expect([refused.code, refused.message]).toEqual(["0A000", "the shard of a new row is not known"]);
	expect(await keysOn("by_range")).toEqual([["-1"], ["0", "99"], []]);
	const { rows } = await client.query("SELECT key FROM by_range WHERE key = 100");
	expect(rows).toEqual([]);
});

test("a row without a key is nowhere", async () => {
	const before = await keysOn("by_bigint");
	for (const [sql, ...values] of [
		["INSERT INTO by_bigint (key) VALUES (NULL)"],
		["INSERT INTO by_bigint (key) VALUES (7), (NULL)"],
		["INSERT INTO by_bigint (key) VALUES ($1)", null],
	] as [string, ...null[]][]) {
		const refused = await client.query(sql, values).catch((error) => error);
		expect([refused.code, refused.message]).toEqual(["0A000", "a new row without a sharding key is not supported"]);
	}
	expect(await keysOn("by_bigint")).toEqual(before);
});

test("tables of a schema are on its shard, and a bare key is a schema's name", async () => {
	const sharded_schemas = [
		{ database: "pgdog", name: "eu", shard: 1 },
		{ database: "pgdog", name: "us", shard: 2 },
	];
	await using other = await startProxy(options([], { sharded_schemas }));
	const session = await connectTo(other);
	await onEach(cluster, "CREATE TABLE lost (key int)");
	await onEach(
		cluster,
		"INSERT INTO lost SELECT right(current_database(), 1)::int + 1 WHERE current_database() < 's2'",
	);
	await session.query("INSERT INTO eu.t VALUES (1)");
	await session.query("INSERT INTO us.t VALUES (2)");
	expect([await keysOn("eu.t"), await keysOn("us.t")]).toEqual([
		[[], ["1"], []],
		[[], [], ["2"]],
	]);
	const { rows } = await session.query("/* pgdog_sharding_key: us */ SELECT current_database() AS shard");
	expect(rows).toEqual([{ shard: "s2" }]);
	// Which table it is `search_path` says.
	const found = await session.query("SELECT key FROM lost");
	expect(found.rows.map(({ key }) => key).sort()).toEqual([1, 2]);
	const refused = await session.query("INSERT INTO lost VALUES (3)").catch((error) => error);
	expect(refused.message).toBe("the shard of a new row is not known");
	await session.query("SET pgdog.sharding_key = 'us'");
	await session.query("INSERT INTO lost VALUES (3)");
	expect(await keysOn("lost")).toEqual([["1"], ["2"], ["3"]]);
	await session.end();
});

test("a reload changes where clients' next statements go; one that takes sharding away has to be forced", async () => {
	const rules = (first: number, second: number) =>
		table("by_list", { data_type: "varchar", mapping: [{ values: ["XX"], shard: first }, { shard: second }] });
	await using other = await startProxy(options([rules(0, 1)]));
	const session = await connectTo(other);
	const insert = "INSERT INTO by_list (key) VALUES ('XX')";
	const counts = () => onEach(cluster, "SELECT count(*)::int FROM by_list WHERE key = 'XX'");
	await session.query(insert);
	await session.query({ name: "insert", text: "INSERT INTO by_list (key) VALUES ($1)", values: ["XX"] });
	expect(await counts()).toEqual([2, 0, 0]);
	const reload = async ({ config }: ProxyOptions, expected: RegExp) => {
		const from = other.lines.length;
		other.writeConfig(config);
		other.signal("SIGHUP");
		await other.waitForLog(expected, 10_000, from);
	};
	await reload(options([rules(2, 1)]), /configuration reloaded/);
	expect(other.log).toContain('what is sharded of database "pgdog" differs');
	// The log says it before the worker has it.
	const rowsThere = async () => (await session.query("SELECT * FROM by_list WHERE key = 'XX'")).rows.length;
	await until(async () => (await rowsThere()) === 0, "the new mapping");
	await session.query(insert);
	await session.query({ name: "insert", text: "INSERT INTO by_list (key) VALUES ($1)", values: ["XX"] });
	expect(await counts()).toEqual([2, 0, 2]);
	await reload(options([]), /reload refused: no \[\[sharded_tables\]\] would be left of database "pgdog"/);
	await session.query(insert);
	expect(await counts()).toEqual([2, 0, 3]);
	await session.end();
});

test("with cross_shard_disabled, the user's before the general, what would go to several shards is refused", async () => {
	const { config, users } = options(TABLES, { general: { cross_shard_disabled: true, workers: 1 } });
	const free = {
		name: "free",
		database: "pgdog",
		password: "pgdog",
		server_user: "pgdog",
		cross_shard_disabled: false,
	};
	await using other = await startProxy({ config, users: [...(users as ProxyUser[]), free] });
	const [bound, unbound] = [await connectTo(other), await connectTo(other, "free")];
	const errorOf = (session: Client, sql: string) =>
		session.query(sql).then(
			() => null,
			({ code, message }) => `${code} ${message}`,
		);
	expect(await errorOf(bound, "SELECT * FROM by_list")).toBe("58000 cross-shard queries are disabled");
	expect(await errorOf(unbound, "SELECT * FROM by_list")).toBeNull();
	for (const sql of ["SET work_mem = '1MB'", "BEGIN", "SELECT * FROM by_list WHERE key = 'DE'", "COMMIT", "SELECT 1"])
		expect([sql, await errorOf(bound, sql)]).toEqual([sql, null]);
	await bound.end();
	await unbound.end();
});

test("pgdog route says where statements would go, with its exit code", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-route-"));
	const file = join(folder, "statements.sql");
	const route = async (sql: string) => {
		writeFileSync(file, sql);
		return await runTool([...proxyCommand(), "-c", proxy.configPath, "-u", proxy.usersPath, "route", "--file", file]);
	};
	const fine = await route("SELECT * FROM by_list WHERE key = 'NO';\nSELECT * FROM by_bigint WHERE key = $1");
	expect(fine.stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
		["line", "shard", "side", "decided by", "keys", "statement"],
		["1", "1", "primary", "sharding key", "key = 'NO'", "SELECT * FROM by_list WHERE key = 'NO'"],
		["2", "by key", "primary", "sharding key", "key = $1", "SELECT * FROM by_bigint WHERE key = $1"],
		[""],
	]);
	expect([fine.code, fine.stderr]).toEqual([0, ""]);
	const refused = await route("INSERT INTO by_list (key) VALUES (DEFAULT)");
	expect(refused.stdout).toContain("ERROR 0A000: the shard of a new row is not known");
	expect(refused.code).toBe(1);
	rmSync(folder, { recursive: true });
});
