// What a client asks of routing itself: comments, SET pgdog.role and its like, startup options. Before a primary and its
// replica, and before three shards.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { transcript } from "../support/transcript.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { codes, errorOf, PORT, pipelined, placesOf, startRouted, startServers, TRIES } from "./routed.ts";
import { startSharded, startShards } from "./sharded.ts";
import { connect, one } from "./support.ts";

let cluster: Cluster;
let proxy: Proxy;
let shards: Cluster;
let sharded: Proxy;

beforeAll(async () => {
	[cluster, shards] = await Promise.all([startServers(), startShards()]);
	await cluster.primary.sql("CREATE TABLE t (id int)", { user: "pgdog" });
	await cluster.replicated();
	proxy = await startRouted(cluster);
	sharded = await startSharded(shards);
}, 60_000);

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await sharded?.[Symbol.asyncDispose]();
	await Promise.all([cluster?.stop(), shards?.stop()]);
});

const places = (client: RawClient, sql: string, tries = TRIES) => placesOf(cluster, tries, () => client.query(sql));
const extended = (client: RawClient, sql: string, tries = TRIES) =>
	placesOf(cluster, tries, () => client.extended(sql));
const READ = `SELECT ${PORT}`;
const SHOW = "SHOW pgdog.role";

const PROTOCOLS: [string, (client: RawClient, sql: string) => Promise<QueryResult>][] = [
	["simple", (client, sql) => client.query(sql)],
	["extended", (client, sql) => client.extended(sql)],
];

describe("comments", () => {
	const role: [string, string][] = [
		[`/* pgdog_role: replica */ ${READ}`, "replica"],
		[`${READ} /* pgdog_role: replica */`, "replica"],
		[`/*pgdog_role:primary*/${READ}`, "primary"],
		[`/* app */ /* pgdog_role: replica */ /* controller='users' */ ${READ}`, "replica"],
		[
			`${READ} /*action='index',controller='users',traceparent='00-5bd66ef5095369c7b0d1f8f4bd33716a-c532cb4098ac3dd2-01'*/ /* pgdog_role: primary */`,
			"primary",
		],
		[`/* pgdog_role: primary */ ${READ} /* pgdog_role: replica */`, "primary"],
		[`/* pgdog_role: "replica" */ ${READ}`, "replica"],
	];
	test.each(role)("%s", async (sql, wanted) => {
		await using client = await connect(proxy);
		expect(await places(client, sql, 12)).toEqual([wanted as "primary"]);
		expect(await extended(client, sql, 12)).toEqual([wanted as "primary"]);
	});

	test.each([
		`-- pgdog_role: replica\n${READ}`,
		`SELECT /* pgdog_role: replica */ ${PORT}`,
		`/* pgdog_role: somewhere */ ${READ}`,
		`SELECT ${PORT}, '/* pgdog_role: replica */'`,
	])("%s is no hint", async (sql) => {
		await using client = await connect(proxy);
		expect(await places(client, sql)).toEqual(["primary", "replica"]);
	});

	test("a hint does not send a write to a replica", async () => {
		await using client = await connect(proxy);
		for (let i = 0; i < 8; i++)
			expect(errorOf(await client.query("/* pgdog_role: replica */ DELETE FROM t"))).toBeNull();
	});

	test("the first statement of a transaction takes it where it asks to be", async () => {
		await using client = await connect(proxy);
		for (const [asked, hint] of [
			["replica", "/* pgdog_role: replica */"],
			["primary", ""],
		] as const) {
			await client.query("BEGIN");
			expect(await places(client, `${hint} ${READ}`, 1)).toEqual([asked]);
			expect(await places(client, `/* pgdog_role: primary */ ${READ}`, 2)).toEqual([asked]);
			await client.query("COMMIT");
		}
	});
});

describe.each(PROTOCOLS)("settings, %s protocol", (_, say) => {
	const show = async (client: RawClient, name = "role") => (await say(client, `SHOW pgdog.${name}`)).rows[0]?.[0];

	test("SET, SHOW and RESET answer as PostgreSQL does, and hold for the session", async () => {
		await using client = await connect(proxy);
		await using straight = await connect(proxy, { port: cluster.port });
		const same = async (sql: string) => {
			const said = ({ messages }: QueryResult) => transcript(messages, { parameters: [] });
			expect(said(await say(client, sql))).toBe(said(await say(straight, sql)));
		};
		await same("SET pgdog.role = 'replica'");
		await same(SHOW);
		expect(await places(client, READ, 12)).toEqual(["replica"]);
		await same("SET SESSION pgdog.role TO 'primary';");
		await same("show pgdog.ROLE");
		expect(await places(client, READ, 12)).toEqual(["primary"]);
		await say(client, "SET pgdog.role = ''");
		expect(await places(client, READ)).toEqual(["primary", "replica"]);
		await say(client, "SET pgdog.role = 'replica'");
		expect((await say(client, "RESET pgdog.role")).tags).toEqual(["RESET"]);
		expect(await show(client)).toBe("");
		expect(await places(client, READ)).toEqual(["primary", "replica"]);
	});

	test("a value that means nothing is 22023, and fails a transaction", async () => {
		await using client = await connect(proxy);
		const bad = await say(client, "SET pgdog.role = 'leader'");
		expect(bad.errors[0]).toMatchObject({
			S: "ERROR",
			C: "22023",
			M: 'invalid value for parameter "pgdog.role": "leader"',
			H: "Available values: primary, replica.",
		});
		expect(errorOf(await say(client, "SET pgdog.shard = 'first'"))?.[0]).toBe("22023");
		expect((await say(client, "SET pgdog.shard = 0")).tags).toEqual(["SET"]);
		for (const first of ["", READ]) {
			await client.query("BEGIN");
			if (first !== "") await client.query(first);
			const failed = await say(client, "SET pgdog.role = 'leader'");
			expect([errorOf(failed)?.[0], failed.status]).toEqual(["22023", "E"]);
			expect(errorOf(await say(client, READ))?.[0]).toBe("25P02");
			expect((await say(client, "COMMIT")).tags).toEqual(["ROLLBACK"]);
		}
		expect(await show(client)).toBe("");
	});

	test("ROLLBACK undoes it, COMMIT keeps it, SET LOCAL ends with the transaction", async () => {
		await using client = await connect(proxy);
		// Before a server has the transaction, and after that.
		for (const first of ["", READ]) {
			const transaction = async (set: string, end: string) => {
				await client.query("BEGIN");
				if (first !== "") await client.query(first);
				expect((await say(client, set)).tags).toEqual([set.startsWith("SET") ? "SET" : "RESET"]);
				const within = await show(client);
				await client.query(end);
				return [within, await show(client)];
			};
			expect(await transaction("SET pgdog.role = 'replica'", "ROLLBACK")).toEqual(["replica", ""]);
			expect(await transaction("SET LOCAL pgdog.role = 'replica'", "COMMIT")).toEqual(["replica", ""]);
			expect(await transaction("SET pgdog.role = 'replica'", "COMMIT")).toEqual(["replica", "replica"]);
			expect(await transaction("RESET pgdog.role", "ROLLBACK")).toEqual(["", "replica"]);
			expect(await transaction("RESET pgdog.role", "COMMIT")).toEqual(["", ""]);
		}
		await say(client, "SET LOCAL pgdog.role = 'replica'");
		expect(await show(client)).toBe("");
	});

	test("SET LOCAL before the first statement takes the transaction there", async () => {
		await using client = await connect(proxy);
		for (const asked of ["replica", "primary"] as const) {
			await say(client, "BEGIN");
			await say(client, `SET LOCAL pgdog.role = '${asked}'`);
			expect(await places(client, READ, 3)).toEqual([asked]);
			await say(client, "COMMIT");
		}
		expect(await places(client, READ)).toEqual(["primary", "replica"]);
	});

	test("a shard cannot be asked for when a server is held", async () => {
		await using client = await connect(proxy);
		for (const name of ["shard", "sharding_key"]) {
			await client.query("BEGIN");
			await client.query(READ);
			const late = await say(client, `SET pgdog.${name} = '1'`);
			const words = `cannot use "SET pgdog.${name}" after connecting to a server; set it before running any queries`;
			expect([errorOf(late), late.status]).toEqual([["58000", words], "E"]);
			await client.query("ROLLBACK");
		}
	});

	test("RESET ALL and DISCARD ALL bring back what the StartupMessage asked for", async () => {
		await using client = await connect(proxy, { parameters: { "pgdog.role": "replica" } });
		for (const all of ["RESET ALL", "DISCARD ALL"]) {
			expect(await show(client)).toBe("replica");
			await say(client, "SET pgdog.role = 'primary'");
			expect(await places(client, READ, 8)).toEqual(["primary"]);
			expect(errorOf(await say(client, all))).toBeNull();
			expect(await places(client, READ, 8)).toEqual(["replica"]);
		}
		await say(client, "SET pgdog.role = 'primary'");
		await client.query("BEGIN");
		expect(errorOf(await say(client, "DISCARD ALL"))?.[0]).toBe("25001");
		await client.query("ROLLBACK");
		expect(await show(client)).toBe("primary");
	});
});

describe("startup", () => {
	test.each([
		[{ "pgdog.role": "replica" }, "replica"],
		[{ options: "-c pgdog.role=replica" }, "replica"],
		[{ options: "-c search_path=public -c PGDOG.Role=primary" }, "primary"],
	])("%j", async (parameters, wanted) => {
		await using client = await connect(proxy, { parameters: parameters as Record<string, string> });
		expect(await places(client, READ, 12)).toEqual([wanted as "primary"]);
		expect(await one(client, SHOW)).toBe(wanted);
	});

	test("a value that means nothing ends the login", async () => {
		await rejects(connect(proxy, { parameters: { "pgdog.role": "leader" } }), "22023");
		await rejects(connect(proxy, { parameters: { options: "-c pgdog.shard=x" } }), "22023");
	});
});

describe("another client", () => {
	/** What the one server of a pool knows of the setting. */
	const clean = async (other: RawClient) =>
		expect(await one(other, "SELECT coalesce(current_setting('pgdog.role', true), '')")).toBe("");

	test("never meets a setting of ours on a server, however it was set", async () => {
		await using scarce = await startRouted(cluster, [], { default_pool_size: 1, read_write_split: "prefer_primary" });
		await using client = await connect(scarce);
		await using other = await connect(scarce);
		const set = "SET pgdog.role = 'primary'";
		await client.query(set);
		await clean(other);
		for (const end of ["COMMIT", "ROLLBACK"]) {
			// In one write: the server has answers to give before it, and runs it.
			await pipelined(client, 4, ...["BEGIN", READ, set, end].map(f.query));
			await clean(other);
			await pipelined(client, 2, f.query(`BEGIN; ${set}; SELECT 1`), f.query(end));
			await clean(other);
		}
		await client.query(`${set}; SELECT 1`);
		await clean(other);
		await client.query("SELECT set_config('pgdog.role', 'primary', false)");
		await clean(other);
		await client.query("DO $$ BEGIN SET pgdog.role = 'primary'; END $$");
		await clean(other);
	});

	// A pool of connections cleans up with such a string: who came next was still sent to replicas.
	test("RESET ALL in a string of several statements resets it too, and a COMMIT that fails undoes it", async () => {
		await using client = await connect(proxy);
		const role = async () => (await client.query("SHOW pgdog.role")).rows[0]?.[0];
		await client.query("SET pgdog.role = 'replica'");
		expect(await role()).toBe("replica");
		await client.query("SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;");
		expect(await role()).toBe("");
		await client.query("CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
		await client.query("BEGIN");
		await client.query("INSERT INTO once VALUES (1), (1)");
		await client.query("SET pgdog.role = 'replica'");
		expect((await client.query("COMMIT")).errors[0]?.C).toBe("23505");
		expect(await role()).toBe("");
	});

	test("set_config with NULL gives it up, by a literal and by a parameter", async () => {
		await using client = await connect(proxy);
		const role = async () => (await client.query("SHOW pgdog.role")).rows[0]?.[0];
		for (const give of [
			() => client.query("SELECT set_config('pgdog.role', NULL, false)"),
			() => client.extended("SELECT set_config('pgdog.role', $1, false)", [null]),
			() => client.extended("SELECT set_config($1, $2, $3)", ["pgdog.role", null, "false"]),
		]) {
			await client.query("SET pgdog.role = 'replica'");
			expect(await role()).toBe("replica");
			expect((await give()).errors).toEqual([]);
			expect(await role()).toBe("");
		}
	});

	test("set_config and a string of several statements set it too", async () => {
		await using client = await connect(proxy);
		await client.query("SELECT set_config('pgdog.role', 'replica', false)");
		expect(await places(client, READ, 12)).toEqual(["replica"]);
		await client.query("SET pgdog.role = 'primary'; SELECT 1");
		expect(await places(client, READ, 12)).toEqual(["primary"]);
		await client.query("SELECT set_config('pgdog.role', 'nowhere', false)");
		expect(await places(client, READ, 12)).toEqual(["primary"]);
	});
});

describe.each(["one shard", "three shards"])("a setting of ours that is refused in a batch, %s", (which) => {
	const bad = [f.bind({ statement: "bad" }), f.execute()];
	const use = (client: RawClient, statement: string) =>
		pipelined(client, 1, f.bind({ statement }), f.execute(), f.sync()).then(
			([result]) => errorOf(result!)?.[0] ?? "fine",
		);

	test("leaves the statements that a Close behind it would have closed", async () => {
		await using client = await connect(which === "one shard" ? proxy : sharded);
		await pipelined(client, 1, f.parse("SELECT 1", "kept"), f.sync());
		const set = f.parse("SET pgdog.role = 'leader'", "bad");
		const [refused] = await pipelined(client, 1, set, ...bad, f.close("S", "kept"), f.close("S", "bad"), f.sync());
		expect([codes(refused!), errorOf(refused!)?.[0]]).toEqual(["12EZ", "22023"]);
		expect(await use(client, "kept")).toBe("fine");
		// Its Parse was before the error.
		expect(await use(client, "bad")).toBe("22023");
	});

	test("in a transaction, too, where a batch that comes later fails at its first message", async () => {
		await using client = await connect(which === "one shard" ? proxy : sharded);
		await pipelined(client, 1, f.parse("SELECT 1", "kept"), f.sync());
		await client.query("BEGIN");
		await client.query("SET pgdog.role = 'leader'");
		const late = [f.parse("SELECT 2", "late"), f.bind({ statement: "late" }), f.execute()];
		const [refused] = await pipelined(client, 1, ...late, f.close("S", "kept"), f.sync());
		expect([codes(refused!), errorOf(refused!)?.[0]]).toEqual(["EZ", "25P02"]);
		await client.query("ROLLBACK");
		expect(await use(client, "kept")).toBe("fine");
		expect(await use(client, "late")).toBe("26000");
		expect(codes((await pipelined(client, 1, f.parse("SELECT 3", "late"), f.sync()))[0]!)).toBe("1Z");
	});

	test("and what was parsed in the batch itself, when a transaction that runs fails with it", async () => {
		await using client = await connect(which === "one shard" ? proxy : sharded);
		await pipelined(client, 1, f.parse("SELECT 1", "kept"), f.sync());
		await client.query("BEGIN; SELECT 1");
		const set = f.parse("SET pgdog.role = 'leader'", "bad");
		const [refused] = await pipelined(client, 1, set, ...bad, f.close("S", "kept"), f.sync());
		expect([codes(refused!), errorOf(refused!)?.[0]]).toEqual(["EZ", "22023"]);
		await client.query("ROLLBACK");
		expect(await use(client, "kept")).toBe("fine");
		expect(await use(client, "bad")).toBe("26000");
	});
});

describe("three shards", () => {
	const WHERE = "SELECT current_database() FROM here";
	const shardsOf = async (client: RawClient, sql: string) =>
		(await client.query(sql)).rows.map(([name]) => name).sort();
	const ALL = ["s0", "s1", "s2"];

	test("comments, SET, SET LOCAL and startup options name a shard", async () => {
		await using client = await connect(sharded);
		expect(await shardsOf(client, WHERE)).toEqual(ALL);
		expect(await shardsOf(client, `/* pgdog_shard: 1 */ ${WHERE}`)).toEqual(["s1"]);
		for (const [, say] of PROTOCOLS) {
			await say(client, "SET pgdog.shard = 2");
			expect((await say(client, "SHOW pgdog.shard")).rows).toEqual([["2"]]);
			expect(await shardsOf(client, WHERE)).toEqual(["s2"]);
			expect(await shardsOf(client, `${WHERE} /* pgdog_shard: 0 */`)).toEqual(["s0"]);
			expect((await say(client, "RESET pgdog.shard")).tags).toEqual(["RESET"]);
			await client.query("BEGIN");
			await say(client, "SET LOCAL pgdog.shard TO 1");
			expect(await shardsOf(client, WHERE)).toEqual(["s1"]);
			const late = await say(client, "SET LOCAL pgdog.shard TO 2");
			expect([errorOf(late)?.[0], late.status]).toEqual(["58000", "E"]);
			await client.query("ROLLBACK");
			expect(await shardsOf(client, WHERE)).toEqual(ALL);
		}
		await using asked = await connect(sharded, { parameters: { options: "-c pgdog.shard=1" } });
		expect(await shardsOf(asked, WHERE)).toEqual(["s1"]);
		await asked.query("SET pgdog.shard = 0");
		await asked.query("RESET ALL");
		expect(await shardsOf(asked, WHERE)).toEqual(["s1"]);
	});

	test("a key always names the same shard, the same by every way", async () => {
		await using client = await connect(sharded);
		const found = new Set<string>();
		for (const key of ["1", "2", "3", "4", "5", "a", "7c1b3c5e-0000-4000-8000-00000000000a"]) {
			const [shard] = await shardsOf(client, `/* pgdog_sharding_key: '${key}' */ ${WHERE}`);
			await client.query(`SET pgdog.sharding_key = '${key}'`);
			expect(await shardsOf(client, WHERE)).toEqual([shard!]);
			await client.query("RESET pgdog.sharding_key");
			found.add(shard!);
		}
		expect(found.size).toBeGreaterThan(1);
	});

	test("a shard that does not exist is refused", async () => {
		await using client = await connect(sharded);
		expect(errorOf(await client.query(`/* pgdog_shard: 9 */ ${WHERE}`))).toEqual(["58000", "no such shard: 9"]);
		await client.query("SET pgdog.shard = 9");
		expect(errorOf(await client.extended(WHERE))).toEqual(["58000", "no such shard: 9"]);
		await client.query("RESET pgdog.shard");
		expect(await shardsOf(client, WHERE)).toEqual(ALL);
	});

	test("ROLLBACK undoes it, and a bad value fails the transaction on all shards", async () => {
		await using client = await connect(sharded);
		await client.query("BEGIN");
		await client.query("SET pgdog.shard = 1");
		expect((await client.query("ROLLBACK")).status).toBe("I");
		expect(await shardsOf(client, WHERE)).toEqual(ALL);
		await client.query("BEGIN");
		await client.query("INSERT INTO things VALUES (1)");
		const bad = await client.query("SET pgdog.role = 'leader'");
		expect([errorOf(bad)?.[0], bad.status]).toEqual(["22023", "E"]);
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		expect((await client.query("SELECT * FROM things")).rows).toEqual([]);
	});
});
