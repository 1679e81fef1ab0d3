// Two-phase commit over three shards, the compiled proxy and a real PostgreSQL: what has been written on several shards is there on
// all of them or on none, whoever dies in the middle.

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { HERE, intact, letters, onEach, SHARDS, sane, shardedOptions, sqlstates } from "./sharded.ts";
import { connect } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
let client: RawClient;

const options = (general: Record<string, unknown> = {}) =>
	shardedOptions(cluster, { general: { two_phase_commit: true, ...general } });

beforeAll(async () => {
	const settings = { max_prepared_transactions: 20, log_statement: "all" };
	cluster = await startPostgres({ databases: SHARDS, settings });
	await onEach(
		cluster,
		`CREATE TABLE things (id int); CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); ${HERE}`,
	);
	proxy = await startProxy(options());
	client = await connect(proxy);
});

afterAll(async () => {
	client?.reset();
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

afterEach(async () => {
	client.reset();
	client = await connect(proxy);
	await intact(cluster, client, "the test");
	expect(await inDoubt()).toEqual([]);
	expect(await decided()).toEqual([]);
	await onEach(cluster, "TRUNCATE things, late");
	sane(proxy);
});

const on = (shard: number, sql: string) => `/* pgdog_shard: ${shard} */ ${sql}`;
const insert = (shard: number, id = 1) => on(shard, `INSERT INTO things VALUES (${id})`);
const counts = () => onEach(cluster, "SELECT count(*)::int FROM things");
const run = (sql: string) => concat(f.parse(sql), f.bind(), f.execute());

async function batch(...messages: Uint8Array[]): Promise<QueryResult> {
	client.send(concat(...messages, f.sync()));
	return client.result();
}

async function inDoubt(): Promise<string[]> {
	const rows = await cluster.primary.sql("SELECT gid FROM pg_prepared_xacts ORDER BY 1");
	return rows.map(({ gid }) => String(gid));
}

/** Decisions that some shard has kept. */
async function decided(): Promise<unknown[]> {
	const all = await Promise.all(
		SHARDS.map(async (database) => {
			const [found] = await cluster.primary.sql("SELECT to_regclass('pgdog.two_phase_commits') AS t", { database });
			if (found?.t == null) return [];
			return cluster.primary.sql("SELECT decision FROM pgdog.two_phase_commits", { database });
		}),
	);
	return all.flat();
}

/** What PostgreSQL has logged of two-phase commit since `from`, without the names. */
function phases(from: number): string[] {
	const found = cluster.primary.log
		.slice(from)
		.matchAll(/statement: (PREPARE TRANSACTION|COMMIT PREPARED|ROLLBACK PREPARED|COMMIT$)/gm);
	return [...found].map(([, what]) => what!).sort();
}

/** A transaction that writes on these shards, up to its COMMIT. */
async function write(shards: readonly number[], by: RawClient = client): Promise<void> {
	await by.query("BEGIN");
	for (const shard of shards) expect(sqlstates(await by.query(insert(shard)))).toEqual([]);
}

describe("COMMIT", () => {
	for (const by of ["simple", "extended"] as const)
		test(`of what was written on several shards: ${by}`, async () => {
			await write([2, 0]);
			const from = cluster.primary.log.length;
			const committed = await (by === "simple" ? client.query("COMMIT") : client.extended("COMMIT"));
			expect([committed.tags, committed.errors, committed.status]).toEqual([["COMMIT"], [], "I"]);
			expect(await counts()).toEqual([1, 0, 1]);
			expect(phases(from)).toEqual([
				"COMMIT PREPARED",
				"COMMIT PREPARED",
				"PREPARE TRANSACTION",
				"PREPARE TRANSACTION",
			]);
		});

	test("in a batch, before it and behind it what belongs there", async () => {
		await client.query("BEGIN");
		const from = cluster.primary.log.length;
		const both = await batch(run(insert(0)), run(insert(1)), run("COMMIT"), run(insert(2)));
		expect([letters(both), both.tags, both.status]).toEqual([
			"12C12C12C12CZ",
			["INSERT 0 1", "INSERT 0 1", "COMMIT", "INSERT 0 1"],
			"I",
		]);
		expect(await counts()).toEqual([1, 1, 1]);
		expect(phases(from)).toHaveLength(4);
		// All of a transaction at once, and another behind it.
		const whole = await batch(...["BEGIN", insert(0), insert(1), "COMMIT", "BEGIN", insert(2), "COMMIT"].map(run));
		expect([whole.tags.filter((tag) => tag === "COMMIT").length, whole.errors, whole.status]).toEqual([2, [], "I"]);
		expect(await counts()).toEqual([2, 2, 2]);
		// Ended by a Flush, and by its Sync alone then.
		await write([0, 1]);
		client.send(concat(run("COMMIT"), f.flush()));
		await until(() => client.received.at(-1)?.code === "C", "COMMIT behind a Flush");
		client.send(f.sync());
		expect((await client.result()).status).toBe("I");
		expect(await counts()).toEqual([3, 3, 2]);
		// A named statement for it, described, kept and used again.
		for (const first of [true, false]) {
			await write([0, 1]);
			const parse = first ? [f.parse("COMMIT", "end"), f.describe("S", "end")] : [];
			const named = await batch(...parse, f.bind({ statement: "end" }), f.describe("P"), f.execute(), f.close("P"));
			expect([letters(named), named.status]).toEqual([first ? "1tn2nC3Z" : "2nC3Z", "I"]);
		}
		expect(await counts()).toEqual([5, 5, 2]);
	});

	test("of what was read, or written on one shard alone, is the client's own", async () => {
		const from = cluster.primary.log.length;
		await client.query("BEGIN");
		await client.query("SELECT count(id) FROM things WHERE id = 7 AND id IS NOT NULL");
		await client.query("SELECT id FROM things");
		expect((await client.query("COMMIT")).status).toBe("I");
		await write([1]);
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(phases(from).filter((what) => what !== "COMMIT")).toEqual([]);
		expect(await counts()).toEqual([0, 1, 0]);
		await write([0, 1]);
		expect((await client.query("ROLLBACK")).tags).toEqual(["ROLLBACK"]);
		// Failed, it is rolled back by its COMMIT.
		await write([0, 1]);
		await client.query("SELECT 1/0");
		const failed = await client.query("COMMIT");
		expect([failed.tags, failed.status]).toEqual([["ROLLBACK"], "I"]);
		expect(await counts()).toEqual([0, 1, 0]);
	});

	for (const by of ["simple", "extended"] as const)
		test(`that one shard refuses is a rollback on all, in that server's own words: ${by}`, async () => {
			await client.query("BEGIN");
			await client.query(on(0, "INSERT INTO late VALUES (1)"));
			await client.query(on(1, "INSERT INTO late VALUES (1), (1)"));
			const failed = await (by === "simple" ? client.query("COMMIT") : client.extended("COMMIT"));
			expect([failed.errors[0]?.C, failed.errors[0]?.n, failed.status]).toEqual(["23505", "late_id_key", "I"]);
			expect(await onEach(cluster, "SELECT count(*)::int FROM late")).toEqual([0, 0, 0]);
			expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
			// What cannot be prepared: a cursor that outlives the transaction.
			await write([0, 1]);
			await client.query("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM things");
			expect((await client.query("COMMIT")).errors[0]?.C).toBe("0A000");
			expect(await counts()).toEqual([0, 0, 0]);
		});

	test("leaves the client what it has set, and what was set for the transaction alone is gone", async () => {
		await client.query("BEGIN");
		await client.query("SET TIME ZONE 'Asia/Tokyo'");
		await client.query("SET LOCAL DateStyle = 'German'");
		expect(client.parameters).toMatchObject({ TimeZone: "Asia/Tokyo", DateStyle: "German, DMY" });
		await client.query(insert(0));
		await client.query(insert(1));
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(client.parameters).toMatchObject({ TimeZone: "Asia/Tokyo", DateStyle: "ISO, MDY" });
		for (const shard of [0, 1])
			expect((await client.query(on(shard, "SELECT current_setting('TimeZone')"))).rows).toEqual([["Asia/Tokyo"]]);
	});

	test("under a role that the transaction, or the session, has taken", async () => {
		await cluster.primary.sql("CREATE ROLE other; GRANT other TO pgdog");
		await onEach(cluster, "GRANT ALL ON things TO other");
		for (const set of ["SET LOCAL ROLE other", "SET ROLE other"]) {
			await client.query("BEGIN");
			await client.query(set);
			await client.query(insert(0));
			await client.query(insert(1));
			const committed = await client.query("COMMIT");
			expect([committed.tags, committed.notices, committed.errors]).toEqual([["COMMIT"], [], []]);
			for (const shard of [0, 1])
				expect((await client.query(on(shard, "SELECT current_user"))).rows).toEqual([
					[set.includes("LOCAL") ? "pgdog" : "other"],
				]);
		}
		expect(await counts()).toEqual([2, 2, 0]);
	});

	test("of a client that keeps its servers", async () => {
		await using pinned = await startProxy(options({ pooler_mode: "session" }));
		await using session = await connect(pinned);
		for (let i = 1; i <= 2; i++) {
			await write([0, 1], session);
			expect((await session.query("COMMIT")).tags).toEqual(["COMMIT"]);
			expect(await counts()).toEqual([i, i, 0]);
		}
		// All of it at once, where BEGIN goes to all shards.
		const from = cluster.primary.log.length;
		session.send(concat(...["BEGIN", insert(0), insert(1), "COMMIT"].map(run), f.sync()));
		expect((await session.result()).tags).toEqual(["BEGIN", "INSERT 0 1", "INSERT 0 1", "COMMIT"]);
		expect(phases(from).filter((what) => what === "PREPARE TRANSACTION")).toHaveLength(3);
		await onEach(cluster, "DELETE FROM things WHERE ctid = (SELECT max(ctid) FROM things)");
		await session.query("CREATE TEMP TABLE mine ()");
		await write([0, 1], session);
		await session.query("INSERT INTO mine DEFAULT VALUES");
		expect((await session.query("COMMIT")).errors[0]?.C).toBe("0A000");
		expect(await counts()).toEqual([2, 2, 0]);
	});

	test("that is rolled back leaves nothing that was SET, also where it was prepared", async () => {
		await client.query("BEGIN");
		await client.query("SET TIME ZONE 'Asia/Tokyo'");
		await client.query(on(0, "INSERT INTO late VALUES (1)"));
		await client.query(on(1, "INSERT INTO late VALUES (1), (1)"));
		expect(sqlstates(await client.query("COMMIT"))).toEqual(["23505"]);
		for (const shard of [0, 1, 2])
			expect((await client.query(on(shard, "SELECT current_setting('TimeZone')"))).rows).toEqual([["UTC"]]);
	});

	test("is over when the first server is lost while it deletes the row: the client is told COMMIT, and goes on", async () => {
		// There is a table then.
		await write([0, 1]);
		await client.query("COMMIT");
		await cluster.primary.sql(
			`CREATE FUNCTION pgdog.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				PERFORM pg_advisory_xact_lock(1); RETURN OLD; END $$;
			CREATE TRIGGER wait BEFORE DELETE ON pgdog.two_phase_commits FOR EACH ROW EXECUTE FUNCTION pgdog.wait()`,
			{ user: "pgdog", database: "s0" },
		);
		await using holder = await RawClient.connect({
			port: cluster.port,
			user: "postgres",
			password: "postgres",
			database: "s0",
		});
		await holder.query("SELECT pg_advisory_lock(1)");
		await write([0, 1]);
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		client.send(f.query(on(0, "SELECT 42")));
		await until(async () => {
			const ended = await cluster.primary.sql(
				`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = 's0' AND wait_event = 'advisory' AND query LIKE '%DELETE FROM pgdog.%'`,
			);
			return ended.length > 0;
		}, "the DELETE to wait");
		expect((await client.result()).rows).toEqual([["42"]]);
		await cluster.primary.sql("DROP FUNCTION pgdog.wait() CASCADE", { database: "s0" });
		expect(await decided()).toHaveLength(1);
		await cluster.primary.sql("DELETE FROM pgdog.two_phase_commits", { database: "s0" });
		expect(await counts()).toEqual([2, 2, 0]);
	});

	test("that a shutdown cuts short is in doubt, and the client is told so", async () => {
		await write([0, 1]);
		await client.query("COMMIT");
		await using leaving = await startProxy(options({ shutdown_timeout: 100 }));
		await using other = await connect(leaving);
		await using holder = await RawClient.connect({
			port: cluster.port,
			user: "postgres",
			password: "postgres",
			database: "s0",
		});
		await holder.query("BEGIN; LOCK TABLE pgdog.two_phase_commits IN SHARE MODE");
		await write([0, 1], other);
		other.send(f.query("COMMIT"));
		await until(async () => (await inDoubt()).length === 2, "both to prepare");
		const answer = other.result();
		await leaving.stop("SIGTERM");
		expect(sqlstates(await answer)).toEqual(["08007"]);
		await holder.query("COMMIT");
		await until(async () => (await decided()).length === 1, "the decision");
		for (const gid of await inDoubt())
			await cluster.primary.sql(`COMMIT PREPARED '${gid}'`, { database: `s${gid.at(-1)}` });
		await cluster.primary.sql("DELETE FROM pgdog.two_phase_commits", { database: "s0" });
		expect(await counts()).toEqual([2, 2, 0]);
	});

	test("goes on to its end when the client does not wait for it", async () => {
		await write([0, 1]);
		client.send(f.query("COMMIT"));
		client.send(f.terminate());
		await until(async () => String(await counts()) === "1,1,0", "what it has committed");
		await until(async () => (await decided()).length === 0, "its row to go");
	});

	test("without two_phase_commit says which shards have committed when one has not", async () => {
		await using plain = await startProxy(options({ two_phase_commit: false }));
		await using other = await connect(plain);
		for (const by of ["simple", "extended"] as const) {
			await other.query("BEGIN");
			for (const [shard, values] of ["(1)", "(1), (1)", "(1)"].entries())
				await other.query(on(shard, `INSERT INTO late VALUES ${values}`));
			const failed = await (by === "simple" ? other.query("COMMIT") : other.extended("COMMIT"));
			expect(failed.errors.map(({ C, n }) => [C, n])).toEqual([["23505", "late_id_key"]]);
			expect(failed.errors[0]?.D).toMatch(/^Key \(id\)=\(1\) already exists\.\nShards 0, 2 have committed\.$/);
			expect(failed.status).toBe("I");
			expect(await onEach(cluster, "SELECT count(*)::int FROM late")).toEqual([1, 0, 1]);
			await onEach(cluster, "TRUNCATE late");
		}
	});
});

describe("is refused", () => {
	test("what a client says of two phases itself", async () => {
		for (const sql of ["PREPARE TRANSACTION 'a'", "COMMIT PREPARED 'a'", "ROLLBACK PREPARED 'a'"])
			for (const result of [await client.query(sql), await client.extended(sql)])
				expect(result.errors.map(({ C, M }) => [C, M])).toEqual([
					["42601", "two-phase transaction control statements are not allowed when two-phase is enabled"],
				]);
		const string = await client.query(on(0, "BEGIN; INSERT INTO things VALUES (1); PREPARE TRANSACTION 'a'"));
		expect(sqlstates(string)).toEqual(["42601"]);
	});

	test("a COMMIT that cannot be done so", async () => {
		for (const sql of ["COMMIT AND CHAIN", "COMMIT; SELECT 1", "INSERT INTO things VALUES (3); COMMIT"]) {
			await write([0, 1]);
			if (sql === "COMMIT AND CHAIN") expect(sqlstates(await client.extended(sql))).toEqual(["0A000"]);
			if (sql === "COMMIT AND CHAIN") await client.query("ROLLBACK");
			if (sql === "COMMIT AND CHAIN") await write([0, 1]);
			const refused = await client.query(sql);
			expect([sql, sqlstates(refused), refused.status]).toEqual([sql, ["0A000"], "E"]);
			await client.query("ROLLBACK");
		}
		expect(sqlstates(await client.query("BEGIN; INSERT INTO things VALUES (1); COMMIT"))).toEqual(["0A000"]);
		await write([0, 1]);
		expect(sqlstates(await batch(f.parse("COMMIT"), f.bind()))).toEqual(["0A000"]);
		await client.query("ROLLBACK");
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("what a server cannot prepare at all", async () => {
		await using never = await startPostgres({ databases: SHARDS, settings: { max_prepared_transactions: 0 } });
		await onEach(never, "CREATE TABLE things (id int)");
		await using poor = await startProxy(shardedOptions(never, { general: { two_phase_commit: true } }));
		await poor.waitForLog(/shard 2 has max_prepared_transactions = 0/);
		await using other = await connect(poor);
		await write([0, 1], other);
		const [error] = (await other.query("COMMIT")).errors;
		expect([error?.C, error?.H]).toEqual([
			"55000",
			expect.stringMatching(/^Set "?max_prepared_transactions"? to a nonzero/),
		]);
		expect(await onEach(never, "SELECT count(*)::int FROM things")).toEqual([0, 0, 0]);
	});
});

describe("two_phase_commit_auto", () => {
	test("commits a write over several shards on all or on none", async () => {
		await using automatic = await startProxy(options({ two_phase_commit: false, two_phase_commit_auto: true }));
		await using other = await connect(automatic);
		for (const by of ["simple", "extended"] as const) {
			const say = (sql: string) => (by === "simple" ? other.query(sql) : other.extended(sql));
			const from = cluster.primary.log.length;
			const written = await say("INSERT INTO things VALUES (1) RETURNING id");
			expect([written.rows.length, written.tags, written.status]).toEqual([3, ["INSERT 0 3"], "I"]);
			expect(phases(from)).toHaveLength(6);
			expect(await counts()).toEqual([1, 1, 1]);
			// Fails on one, when it is run, and when it is prepared.
			await onEach(cluster, "CREATE UNIQUE INDEX one ON things (id)");
			await cluster.primary.sql("DELETE FROM things", { database: "s0" });
			const failed = await say("INSERT INTO things VALUES (1)");
			expect([sqlstates(failed), failed.tags, failed.status]).toEqual([["23505"], [], "I"]);
			expect(await counts()).toEqual([0, 1, 1]);
			await onEach(cluster, "DROP INDEX one; TRUNCATE things");
			await cluster.primary.sql("INSERT INTO late VALUES (1)", { database: "s1" });
			const late = await say("INSERT INTO late VALUES (1)");
			expect([sqlstates(late), late.status]).toEqual([["23505"], "I"]);
			expect(await onEach(cluster, "SELECT count(*)::int FROM late")).toEqual([0, 1, 0]);
			await onEach(cluster, "TRUNCATE late");
		}
		expect(sqlstates(await other.query("CREATE TABLE made ()"))).toEqual([]);
		expect(sqlstates(await other.query("DROP TABLE made"))).toEqual([]);
		// On one shard, and in a transaction, which nobody has asked for in two phases.
		const from = cluster.primary.log.length;
		await other.query(insert(1));
		await write([0, 1], other);
		await other.query("COMMIT");
		expect(phases(from).filter((what) => what !== "COMMIT")).toEqual([]);
		expect(await counts()).toEqual([1, 2, 0]);
		await other.query("TRUNCATE things");
		other.send(f.query("COPY things FROM STDIN"));
		await until(() => other.received.at(-1)?.code === "G", "CopyInResponse");
		other.send(concat(f.copyData("1\n2\n"), f.copyDone()));
		const copied = await other.result();
		expect([copied.tags, copied.status]).toEqual([["COPY 6"], "I"]);
		expect(await counts()).toEqual([2, 2, 2]);
		expect(phases(from).filter((what) => what !== "COMMIT")).toHaveLength(6);
	});

	test("is each user's own affair", async () => {
		const { config, users } = options({ two_phase_commit: false });
		await using mixed = await startProxy({
			config,
			users: [{ ...(users as object[])[0], two_phase_commit: true } as never],
		});
		await using other = await connect(mixed);
		const from = cluster.primary.log.length;
		await write([0, 1], other);
		await other.query("COMMIT");
		expect(phases(from)).toHaveLength(4);
		await until(async () => (await decided()).length === 0, "its row to go");
	});
});
