// Transactions of three shards, each a primary and a replica: BEGIN is held back until the first statement tells where to go,
// is open on the shards that its statements have needed, and ends there alone. Of all that the client must not see anything.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { HERE, intact, letters, onEach, SHARDS, sane, sqlstates } from "./sharded.ts";
import { admin, connect, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let conservative: Proxy;
let aggressive: Proxy;
let client: RawClient;

function options(general: Record<string, unknown> = {}) {
	return {
		config: {
			general: {
				default_pool_size: 1,
				min_pool_size: 0,
				workers: 1,
				read_write_split: "exclude_primary",
				client_connection_recovery: "recover",
				...general,
			},
			databases: SHARDS.flatMap((database_name, shard) =>
				[cluster.primary, cluster.replicas[0]!].map(({ host, port, name }) => {
					return { name: "pgdog", host, port, role: name === "primary" ? "primary" : "replica", database_name, shard };
				}),
			),
			admin: { password: "pgdog" },
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
	};
}

const start = (general: Record<string, unknown> = {}) => startProxy(options(general));

beforeAll(async () => {
	cluster = await startPostgres({ databases: SHARDS, replicas: 1 });
	await onEach(
		cluster,
		`CREATE TABLE things (id int); CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); ${HERE}`,
	);
	await cluster.replicated();
	conservative = await start();
	aggressive = await start({ read_write_strategy: "aggressive" });
}, 60_000);

afterAll(async () => {
	for (const proxy of [conservative, aggressive]) await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

beforeEach(async () => {
	client = await connect(conservative);
});

afterEach(async () => {
	client.reset();
	await onEach(cluster, "TRUNCATE things, late");
	for (const proxy of [conservative, aggressive]) {
		await using witness = await connect(proxy);
		// A read finds the replicas' sessions, what can write the primaries'.
		for (const role of ["replica", "primary"]) {
			await witness.query(`SET pgdog.role = '${role}'`);
			await intact(cluster, witness, `the test, on a ${role}`, 3, 6);
		}
		sane(proxy);
	}
});

const on = (shard: number, sql: string) => `/* pgdog_shard: ${shard} */ ${sql}`;
const insert = (shard: number, id = 1) => on(shard, `INSERT INTO things VALUES (${id})`);
const ask = (shard: number, what = "current_setting('port')") => on(shard, `SELECT ${what}, current_database()`);
const counts = () => onEach(cluster, "SELECT count(*)::int FROM things");
const run = (sql: string) => concat(f.parse(sql), f.bind(), f.execute());

async function batch(...messages: Uint8Array[]): Promise<QueryResult> {
	client.send(concat(...messages, f.sync()));
	return client.result();
}

/** `s1 replica`, as a row of `ask` says; otherwise what came instead. */
function place({ rows, errors }: QueryResult): string {
	const [port, database] = rows[0] ?? [];
	if (rows.length !== 1) return JSON.stringify([rows, errors.map(({ C }) => C)]);
	return `${database} ${Number(port) === cluster.primary.port ? "primary" : "replica"}`;
}

/** On which shards' servers a transaction is open, as PostgreSQL sees it. */
async function open(): Promise<string[]> {
	const servers = [cluster.primary, cluster.replicas[0]!];
	const found = await Promise.all(
		servers.map(({ name, sql }, i) =>
			sql
				.call(
					servers[i],
					`SELECT datname FROM pg_stat_activity WHERE usename = 'pgdog' AND state LIKE 'idle in transaction%'
						AND backend_type = 'client backend'`,
				)
				.then((rows) => rows.map(({ datname }) => `${datname} ${name === "primary" ? "primary" : "replica"}`)),
		),
	);
	return found.flat().sort();
}

describe("BEGIN", () => {
	for (const by of ["simple", "extended"] as const) {
		const say = (sql: string) => (by === "simple" ? client.query(sql) : client.extended(sql));

		test(`takes no server, and the first statement that of its shard alone: ${by}`, async () => {
			const begun = await say("BEGIN");
			expect([begun.tags, begun.status]).toEqual([["BEGIN"], "T"]);
			expect(await open()).toEqual([]);
			expect((await say(insert(1))).status).toBe("T");
			expect(await open()).toEqual(["s1 primary"]);
			expect(await counts()).toEqual([0, 0, 0]);
			await using other = await connect(conservative);
			expect(sqlstates(await other.query(insert(0)))).toEqual([]);
			const committed = await say("COMMIT");
			expect([committed.tags, committed.status]).toEqual([["COMMIT"], "I"]);
			expect(await open()).toEqual([]);
			expect(await counts()).toEqual([1, 1, 0]);
		});

		test(`is repeated on a shard that comes in later: ${by}`, async () => {
			await say("BEGIN ISOLATION LEVEL REPEATABLE READ");
			await say("SET TRANSACTION DEFERRABLE -- so");
			const modes = "current_setting('transaction_isolation') || ' ' || current_setting('transaction_deferrable')";
			for (const shard of [2, 0])
				expect((await say(ask(shard, modes))).rows).toEqual([["repeatable read on", `s${shard}`]]);
			expect(await open()).toEqual(["s0 primary", "s2 primary"]);
			expect((await say("SELECT current_database() FROM here")).rows).toHaveLength(3);
			expect(await open()).toEqual(["s0 primary", "s1 primary", "s2 primary"]);
			expect((await say("ROLLBACK")).tags).toEqual(["ROLLBACK"]);
			expect(await open()).toEqual([]);
		});

		test(`with nothing behind it needs no server: ${by}`, async () => {
			await using holder = await connect(conservative);
			await holder.query("BEGIN");
			expect((await holder.query("INSERT INTO things VALUES (1)")).status).toBe("T");
			for (const end of ["COMMIT", "ROLLBACK"]) {
				expect((await say("BEGIN")).status).toBe("T");
				const ended = await say(end);
				expect([ended.tags, ended.notices, ended.status]).toEqual([[end], [], "I"]);
			}
			await holder.query("ROLLBACK");
		});
	}

	const places: [string, () => Proxy, string, "primary" | "replica"][] = [
		["BEGIN, conservative", () => conservative, "BEGIN", "primary"],
		["BEGIN, aggressive", () => aggressive, "BEGIN", "replica"],
		["READ ONLY", () => conservative, "BEGIN READ ONLY", "replica"],
		["READ WRITE, aggressive", () => aggressive, "BEGIN READ WRITE", "primary"],
		["SERIALIZABLE, aggressive", () => aggressive, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "primary"],
	];
	for (const [name, proxy, begin, role] of places)
		test(`${name}: its reads are the ${role}s', on every shard`, async () => {
			await using mine = await connect(proxy());
			for (const say of [mine.query, mine.extended]) {
				await say.call(mine, begin);
				for (const shard of [1, 0, 1]) expect(place(await say.call(mine, ask(shard)))).toBe(`s${shard} ${role}`);
				expect(await open()).toEqual([`s0 ${role}`, `s1 ${role}`]);
				await say.call(mine, "COMMIT");
			}
		});

	test("aggressive: a write behind a read is PostgreSQL's to refuse, also on another shard; a write first is the primary's", async () => {
		await using mine = await connect(aggressive);
		for (const shard of [0, 1]) {
			await mine.query("BEGIN");
			expect(place(await mine.query(ask(0)))).toBe("s0 replica");
			const refused = await mine.query(insert(shard));
			expect([sqlstates(refused), refused.status]).toEqual([["25006"], "E"]);
			expect((await mine.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		}
		await mine.query("BEGIN");
		await mine.query(insert(1));
		for (const shard of [0, 1]) expect(place(await mine.query(ask(shard)))).toBe(`s${shard} primary`);
		expect((await mine.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(await counts()).toEqual([0, 1, 0]);
	});

	test("what concerns all shards begins it on all", async () => {
		for (const first of [
			"SAVEPOINT s",
			"SET LOCAL work_mem = '5MB'",
			"DECLARE c CURSOR FOR SELECT 1 FROM here",
			"LISTEN x",
		]) {
			await client.query("BEGIN");
			expect([first, (await client.query(first)).status]).toEqual([first, "T"]);
			expect(await open()).toEqual(["s0 primary", "s1 primary", "s2 primary"]);
			await client.query("ROLLBACK");
		}
		await client.query("BEGIN");
		await client.query(insert(1));
		await client.query("SAVEPOINT s");
		expect((await client.query(on(0, "SELECT 1/0"))).status).toBe("E");
		expect((await client.query("ROLLBACK TO s")).status).toBe("T");
		await client.query(insert(2));
		await client.query("COMMIT");
		expect(await counts()).toEqual([0, 1, 1]);
	});

	test("AND CHAIN goes on where it was, and further shards begin as the first did", async () => {
		await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
		await client.query(insert(1));
		for (const end of ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"]) expect((await client.query(end)).status).toBe("T");
		expect(await open()).toEqual(["s1 primary"]);
		const isolation = ask(2, "current_setting('transaction_isolation')");
		expect((await client.query(isolation)).rows).toEqual([["repeatable read", "s2"]]);
		expect((await client.query(on(2, "SELECT 1/0"))).status).toBe("E");
		expect((await client.query("ROLLBACK AND CHAIN")).status).toBe("T");
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(await counts()).toEqual([0, 1, 0]);
	});

	test("a second one is a warning, once; so is an end without a beginning", async () => {
		await client.query("BEGIN");
		await client.query(insert(1));
		const again = await client.query("BEGIN");
		expect([again.tags, again.notices.map(({ C }) => C), again.status]).toEqual([["BEGIN"], ["25001"], "T"]);
		await client.query("ROLLBACK");
		const none = await client.query("COMMIT");
		expect([none.tags, none.notices.map(({ C }) => C), none.status]).toEqual([["COMMIT"], ["25P01"], "I"]);
	});

	test("settings of ours may be set behind it, and where it is does not change any more", async () => {
		await client.query("BEGIN");
		expect((await client.query("SET LOCAL pgdog.shard = 2")).tags).toEqual(["SET"]);
		expect(place(await client.query("SELECT current_setting('port'), current_database()"))).toBe("s2 primary");
		const late = await client.query("SET pgdog.shard = 1");
		expect([sqlstates(late), late.status]).toEqual([["58000"], "E"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
		expect((await client.query("SHOW pgdog.shard")).rows).toEqual([[""]]);
	});

	test("several statements in one string are for all shards, as they are without", async () => {
		await client.query("BEGIN");
		expect((await client.query("INSERT INTO things VALUES (1); SELECT 1 FROM here")).tags).toEqual([
			"INSERT 0 3",
			"SELECT 3",
		]);
		expect((await client.query("COMMIT; SELECT 2 FROM here")).tags).toEqual(["COMMIT", "SELECT 3"]);
		await client.query("BEGIN");
		await client.query(insert(0));
		expect((await client.query("ROLLBACK; SELECT 2 FROM here")).tags).toEqual(["ROLLBACK", "SELECT 3"]);
		expect(await open()).toEqual([]);
		expect(await counts()).toEqual([1, 1, 1]);
		await client.query("BEGIN");
		expect((await client.query(on(1, "INSERT INTO things VALUES (2); COMMIT"))).status).toBe("I");
		expect(await counts()).toEqual([1, 2, 1]);
	});

	// One shard had committed then, the others not, and the client was sent away.
	test("a string for one shard does not end it while it is open on others", async () => {
		const ends = on(1, "INSERT INTO things VALUES (2); COMMIT");
		for (const first of [insert(0), "SELECT 1 FROM here"]) {
			await client.query("BEGIN");
			await client.query(first);
			const refused = await client.query(ends);
			expect([letters(refused), sqlstates(refused), refused.status]).toEqual(["EZ", ["0A000"], "E"]);
			expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		}
		expect(await counts()).toEqual([0, 0, 0]);
		await client.query("BEGIN");
		await client.query(insert(1));
		expect((await client.query(ends)).status).toBe("I");
		await client.query("BEGIN");
		await client.query(insert(0));
		expect((await client.query(on(1, "INSERT INTO things VALUES (2); SELECT 1"))).status).toBe("T");
		await client.query("COMMIT");
		expect(await counts()).toEqual([1, 3, 0]);
	});
});

describe("the extended protocol", () => {
	test("BEGIN and statements of several shards in one batch", async () => {
		const begun = await batch(run("BEGIN"), run(insert(1)));
		expect([letters(begun), begun.tags, begun.status]).toEqual(["12C12CZ", ["BEGIN", "INSERT 0 1"], "T"]);
		expect(await open()).toEqual(["s1 primary"]);
		const more = await batch(run(insert(2)), run(insert(1)), run("COMMIT"));
		expect([letters(more), more.status]).toEqual(["12C12C12CZ", "I"]);
		expect(await counts()).toEqual([0, 2, 1]);
		const whole = await batch(run("BEGIN"), run("SET TRANSACTION NOT DEFERRABLE"), run(insert(0)), run("COMMIT"));
		expect([letters(whole), whole.status]).toEqual(["12C12C12C12CZ", "I"]);
		expect(await counts()).toEqual([1, 2, 1]);
		const empty = await batch(run("BEGIN"), run("COMMIT"));
		expect([letters(empty), empty.status]).toEqual(["12C12CZ", "I"]);
		expect(await open()).toEqual([]);
	});

	// The client was disconnected (58000): the shards that it had come to with the Close had not been sent its end.
	test.each([
		["of the BEGIN", "p"],
		["that nobody knows", "other"],
	])("a Close of the portal %s, and then its end in the same batch", async (_, portal) => {
		for (const [begun, end] of [
			[false, "COMMIT"],
			[true, "COMMIT"],
			[true, "ROLLBACK"],
		] as const) {
			client.send(f.parse("BEGIN"), f.bind({ portal: "p" }), f.execute("p"), f.sync());
			expect((await client.result()).status).toBe("T");
			if (begun) await client.query("/* pgdog_shard: 1 */ INSERT INTO things VALUES (1)");
			const insert = run("/* pgdog_shard: 1 */ INSERT INTO things VALUES (2)");
			client.send(f.close("P", portal), insert, run(end), f.sync());
			const { tags, errors, status } = await client.result();
			expect([tags, errors, status]).toEqual([["INSERT 0 1", end], [], "I"]);
		}
		expect(await onEach(cluster, "SELECT count(*)::int FROM things")).toEqual([0, 3, 0]);
	});

	test("aggressive: BEGIN and a read in one batch are a replica's", async () => {
		await using mine = await connect(aggressive);
		mine.send(run("BEGIN"), run(ask(1)), f.sync());
		expect(place(await mine.result())).toBe("s1 replica");
		expect(await open()).toEqual(["s1 replica"]);
		mine.send(run("COMMIT"), f.sync());
		expect((await mine.result()).status).toBe("I");
	});

	test("a statement behind COMMIT in the same batch is outside, also when Sync comes later", async () => {
		const messages = [run("BEGIN"), run(insert(0)), run("COMMIT"), run("INSERT INTO things VALUES (2)")];
		const result = await batch(...messages);
		expect([letters(result), result.status]).toEqual(["12C12C12C12CZ", "I"]);
		expect(await counts()).toEqual([2, 1, 1]);
		// BEGIN with a Flush is all servers' at once, BEGIN with a Sync is held back.
		for (const held of [0, 1]) {
			if (held === 1) await client.query("BEGIN");
			for (const message of messages.slice(held)) {
				client.send(message, f.flush());
				await client.until("C");
			}
			client.send(f.sync());
			const end = await client.result();
			expect([letters(end), end.status]).toEqual(["Z", "I"]);
			expect(await open()).toEqual([]);
		}
		expect(await counts()).toEqual([6, 3, 3]);
	});

	test("Parse and Describe first, as many drivers do, take one shard's server", async () => {
		await client.query("BEGIN");
		const described = await batch(f.parse("SELECT current_database(), $1::int FROM here", "d"), f.describe("S", "d"));
		expect([letters(described), described.status]).toEqual(["1tTZ", "T"]);
		expect(await open()).toEqual(["s0 primary"]);
		expect((await batch(f.bind({ statement: "d", values: ["1"] }), f.execute())).rows).toHaveLength(3);
		await client.query("COMMIT");
		await client.query("BEGIN");
		expect(letters(await batch(f.close("S", "d")))).toBe("3Z");
		expect(await open()).toEqual([]);
		expect((await client.query("COMMIT")).status).toBe("I");
	});

	test("an error in the batch that begins it fails it", async () => {
		const failed = await batch(run("BEGIN"), run(insert(1)), run(on(2, "SELECT 1/0")), run(insert(0)));
		expect([letters(failed), sqlstates(failed), failed.status]).toEqual(["12C12C1EZ", ["22012"], "E"]);
		// Shard 0 was not sent anything.
		expect(await open()).toEqual(["s1 primary", "s2 primary"]);
		expect((await batch(run("COMMIT"))).tags).toEqual(["ROLLBACK"]);
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("a pipeline of transactions, each of one shard, in one write", async () => {
		const messages = [0, 1, 2, 1].flatMap((shard) =>
			["BEGIN", insert(shard), "COMMIT"].map((sql) => concat(run(sql), f.sync())),
		);
		client.send(concat(...messages));
		const states = [];
		for (const _ of messages) states.push((await client.result()).status);
		expect(states.join("")).toBe("TTI".repeat(4));
		expect(await counts()).toEqual([1, 2, 1]);
	});
});

describe("failures", () => {
	test("a transaction that has failed runs nothing more, also on shards that it is not open on", async () => {
		for (const say of [client.query, client.extended]) {
			await say.call(client, "BEGIN");
			await say.call(client, insert(0));
			expect((await say.call(client, on(0, "SELECT 1/0"))).status).toBe("E");
			const more = await say.call(client, insert(2));
			expect([sqlstates(more), more.status]).toEqual([["25P02"], "E"]);
			expect(await open()).toEqual(["s0 primary"]);
			expect((await say.call(client, "COMMIT")).tags).toEqual(["ROLLBACK"]);
		}
		expect(await counts()).toEqual([0, 0, 0]);
	});

	// They went to all shards that it is open on.
	test("statements behind what takes it back, in the same batch, go where they belong", async () => {
		for (const [before, back] of [
			["SELECT 1", "ROLLBACK AND CHAIN"],
			["SAVEPOINT s", "ROLLBACK TO s"],
		] as const)
			for (const end of [f.flush(), new Uint8Array()]) {
				await client.query("BEGIN");
				for (const sql of [insert(0, 9), insert(2, 9), before, on(0, "SELECT 1/0")]) await client.query(sql);
				client.send(run(back), end, run(insert(2)), run(insert(1)), f.sync());
				const result = await client.result();
				expect([back, letters(result), result.status]).toEqual([back, "12C12C12CZ", "T"]);
				expect(result.tags.slice(1)).toEqual(["INSERT 0 1", "INSERT 0 1"]);
				await client.query("ROLLBACK");
			}
	});

	test("a transaction that goes on behind one that has failed has no modes, on any shard", async () => {
		await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
		await client.query(on(1, "SELECT 1/0"));
		await client.query("ROLLBACK AND CHAIN");
		const isolation = (shard: number) => ask(shard, "current_setting('transaction_isolation')");
		for (const shard of [1, 2])
			expect((await client.query(isolation(shard))).rows).toEqual([["read committed", `s${shard}`]]);
		await client.query("COMMIT");
	});

	// It was sent to all shards, and their wrong answers were told.
	test("what the router refuses stands behind its end in one string: while no shard knows of it, that is refused, too", async () => {
		const refused = "SELECT 1, count(*) FROM here";
		for (const end of ["ROLLBACK", "COMMIT"]) {
			await client.query("BEGIN");
			const first = await client.query(refused);
			expect([first.rows, first.errors.length, first.status]).toEqual([[], 1, "E"]);
			expect(sqlstates(await client.query("SELECT 1"))).toEqual(["25P02"]);
			for (const behind of [refused, `SELECT 1; ${refused}`]) {
				const { rows, errors, tags, status } = await client.query(`${end}; ${behind}`);
				expect([end, rows, errors, tags, status]).toEqual([
					end,
					[],
					[expect.objectContaining(first.errors[0]!)],
					[],
					"E",
				]);
			}
			expect(await open()).toEqual([]);
			expect((await client.query("ROLLBACK; SELECT 1")).status).toBe("I");
		}
	});

	test("an error of the first statement on a further shard fails it on the others", async () => {
		await client.query("BEGIN");
		await client.query(insert(0));
		expect((await client.query(on(2, "SELECT 1/0"))).status).toBe("E");
		expect(sqlstates(await client.query(insert(0)))).toEqual(["25P02"]);
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("a BEGIN that a server refuses fails it", async () => {
		await using mine = await connect(aggressive);
		// The session's default makes every transaction one that a hot standby refuses.
		await mine.query("BEGIN");
		await mine.query("SET TRANSACTION ISOLATION LEVEL NONE");
		expect((await mine.query("SELECT 1")).errors).toHaveLength(1);
		expect((await mine.query("ROLLBACK")).status).toBe("I");
	});

	test("no server to be had for a further shard fails it on the others, for the first shard fails it alone", async () => {
		await using late = await start({ checkout_timeout: 300 });
		await using holder = await connect(late);
		await using mine = await connect(late);
		await holder.query("BEGIN");
		await holder.query(insert(1));
		for (const say of [mine.query, mine.extended]) {
			await say.call(mine, "BEGIN");
			await say.call(mine, insert(0));
			const refused = await say.call(mine, insert(1));
			expect([letters(refused), refused.errors.length, refused.status]).toEqual(["EZ", 1, "E"]);
			expect(sqlstates(await say.call(mine, insert(0)))).toEqual(["25P02"]);
			expect((await say.call(mine, "COMMIT")).tags).toEqual(["ROLLBACK"]);

			await say.call(mine, "BEGIN");
			expect((await say.call(mine, insert(1))).status).toBe("E");
			expect(sqlstates(await say.call(mine, insert(0)))).toEqual(["25P02"]);
			expect((await say.call(mine, "ROLLBACK")).status).toBe("I");
			expect((await say.call(mine, insert(0))).status).toBe("I");
		}
		await holder.query("COMMIT");
		expect(await counts()).toEqual([2, 1, 0]);
		sane(late);
	});

	test("two that each hold what the other wants next are told so in time, and both shards serve again", async () => {
		await using late = await start({ checkout_timeout: 400 });
		await using one = await connect(late);
		await using other = await connect(late);
		for (const each of [one, other]) await each.query("BEGIN");
		await one.query(insert(0));
		await other.query(insert(1));
		const results = await Promise.all([one.query(insert(1)), other.query(insert(0))]);
		expect(results.map(({ errors, status }) => [errors.length, status])).toEqual([
			[1, "E"],
			[1, "E"],
		]);
		for (const each of [one, other]) expect((await each.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		expect((await one.query("INSERT INTO things VALUES (1)")).tags).toEqual(["INSERT 0 3"]);
		expect(await counts()).toEqual([1, 1, 1]);
	});

	test("a cancel reaches it where it waits for a further shard's server", async () => {
		await using holder = await connect(conservative);
		await holder.query("BEGIN");
		await holder.query(insert(1));
		await client.query("BEGIN");
		await client.query(insert(0));
		client.send(f.query(insert(1)));
		await using console = await admin(conservative);
		await until(async () => (await show(console, "SHOW CLIENTS")).some((row) => row.state === "waiting"), "a waiter");
		const cancel = await RawClient.open({ port: conservative.port });
		cancel.send(f.cancelRequest(client.backendPid, client.backendKey));
		const result = await client.result();
		expect([sqlstates(result), result.status]).toEqual([["57014"], "E"]);
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
		await holder.query("ROLLBACK");
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("an error at COMMIT on one of its shards is told, and it is over on all", async () => {
		await cluster.primary.sql("INSERT INTO late VALUES (1)", { user: "pgdog", database: "s1" });
		for (const end of ["COMMIT", "COMMIT AND CHAIN"]) {
			await client.query("BEGIN");
			await client.query(on(1, "INSERT INTO late VALUES (1)"));
			await client.query(on(2, "INSERT INTO late VALUES (2)"));
			const result = await client.query(end);
			expect([sqlstates(result), result.status]).toEqual([["23505"], "I"]);
			expect(await open()).toEqual([]);
			await onEach(cluster, "DELETE FROM late WHERE id = 2");
		}
	});

	test("a client that goes has it rolled back where it was", async () => {
		await client.query("BEGIN");
		await client.query(insert(1));
		client.reset();
		await until(async () => (await open()).length === 0, "the end of its transaction");
		expect(await counts()).toEqual([0, 0, 0]);
	});

	test("a server that dies ends it if it is one of its own, and not if it is another's", async () => {
		const kill = (database: string) =>
			cluster.primary.sql(
				`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgdog' AND datname = '${database}'`,
			);
		await client.query("SELECT 1");
		await client.query("BEGIN");
		await client.query(insert(1));
		await kill("s0");
		expect((await client.query(insert(0))).status).toBe("T");
		await kill("s1");
		const last = await client.closed;
		expect(last.filter(({ code }) => code === "E").map(({ body }) => body.toString())).toEqual([
			expect.stringContaining("57P01"),
		]);
		await until(async () => (await open()).length === 0, "the end of its transaction");
		expect(await counts()).toEqual([0, 0, 0]);
	});
});

describe("the rest of the proxy", () => {
	test("SHOW CLIENTS says that it is in a transaction, SHOW POOLS whose server it has", async () => {
		await using console = await admin(conservative);
		const state = async () =>
			(await show(console, "SHOW CLIENTS")).filter(({ database }) => database === "pgdog").map((row) => row.state);
		const taken = async () => {
			const rows = await show(console, "SHOW POOLS");
			return rows
				.filter(({ sv_active, sv_idle_xact }) => Number(sv_active) + Number(sv_idle_xact) > 0)
				.map(({ shard, role }) => `${shard} ${role}`);
		};
		await client.query("BEGIN");
		expect(await state()).toEqual(["idle in transaction"]);
		await until(async () => String(await taken()) === "", "no server to be taken");
		await client.query(insert(2));
		expect(await state()).toEqual(["idle in transaction"]);
		await until(async () => String(await taken()) === "2 primary", "the pool that it has a server of");
		await client.query(on(2, "SELECT 1/0"));
		expect(await state()).toEqual(["transaction error"]);
		await client.query("ROLLBACK");
		expect(await state()).toEqual(["idle"]);
	});

	test("who idles in a transaction is told so, with servers or without; client_idle_timeout is not for it", async () => {
		await using quick = await start({ client_idle_in_transaction_timeout: 1_500 });
		await using patient = await start({ client_idle_timeout: 1_000, client_idle_in_transaction_timeout: 60_000 });
		for (const statements of [["BEGIN"], ["BEGIN", insert(1)]]) {
			await using ended = await connect(quick);
			await using stays = await connect(patient);
			for (const sql of statements) {
				expect((await ended.query(sql)).status).toBe("T");
				expect((await stays.query(sql)).status).toBe("T");
			}
			const last = await ended.closed;
			expect(last.map(({ body }) => body.toString()).join()).toContain("idle in transaction");
			expect((await stays.query(insert(0))).status).toBe("T");
			await stays.query("ROLLBACK");
			expect((await stays.closed).map(({ body }) => body.toString()).join()).toContain("client_idle_timeout");
		}
	});

	test("a shutdown waits for its end, whether a server knows of it or not", async () => {
		for (const statements of [["BEGIN"], ["BEGIN", insert(1)]]) {
			const stopping = await start();
			await using mine = await connect(stopping);
			await using idle = await connect(stopping);
			for (const sql of statements) await mine.query(sql);
			const stopped = stopping.stop("SIGINT");
			await idle.closed;
			expect((await mine.query(insert(0))).status).toBe("T");
			expect((await mine.query("COMMIT")).tags).toEqual(["COMMIT"]);
			expect((await mine.closed).map(({ code }) => code)).toEqual(["E"]);
			expect(await stopped).toBe(0);
		}
		const stopping = await start();
		await using mine = await connect(stopping);
		await using idle = await connect(stopping);
		await mine.query("BEGIN");
		const stopped = stopping.stop("SIGINT");
		await idle.closed;
		expect((await mine.query("COMMIT")).tags).toEqual(["COMMIT"]);
		await mine.closed;
		expect(await stopped).toBe(0);
		expect(await counts()).toEqual([2, 1, 0]);
	});

	test("a reload in the middle: it goes on, on servers of the new pools where it needs more", async () => {
		await using changing = await start();
		await using mine = await connect(changing);
		await using held = await connect(changing);
		await held.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
		await mine.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
		await mine.query(insert(1));
		const { config } = options({ default_pool_size: 2, read_write_strategy: "aggressive" });
		const databases = config.databases.map((each) => ({ ...each, host: "localhost" }));
		const from = changing.lines.length;
		changing.writeConfig({ ...config, databases });
		changing.signal("SIGHUP");
		await changing.waitForLog(/configuration reloaded/, 10_000, from);
		const isolation = (shard: number) => ask(shard, "current_setting('transaction_isolation')");
		for (const each of [mine, held]) expect((await each.query(isolation(2))).rows).toEqual([["repeatable read", "s2"]]);
		await mine.query(insert(2));
		for (const each of [mine, held]) expect((await each.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(await counts()).toEqual([0, 1, 1]);
		sane(changing);
	});

	test("prepared_statements = disabled: what is parsed in one batch can be run in the next, wherever that is", async () => {
		await using raw = await start({ prepared_statements: "disabled" });
		await using mine = await connect(raw);
		const prepared = async (sql: string) => {
			mine.send(f.parse(sql, "mine"), f.describe("S", "mine"), f.sync());
			const told = [letters(await mine.result())];
			mine.send(f.bind({ statement: "mine" }), f.execute(), f.close("S", "mine"), f.sync());
			return [...told, letters(await mine.result())];
		};
		for (const before of [[], [ask(0)]])
			for (const [sql, rows] of [
				[ask(1), "D"],
				["SELECT 1 FROM here", "DDD"],
				["SELECT 1", "D"],
			] as const) {
				await mine.query("BEGIN");
				for (const each of before) await mine.query(each);
				expect(await prepared(sql)).toEqual(["1tTZ", `2${rows}C3Z`]);
				expect((await mine.query("COMMIT")).tags).toEqual(["COMMIT"]);
			}
	});

	test("READ WRITE, and then a statement that nobody knows, are a primary's", async () => {
		await client.query("BEGIN READ WRITE");
		expect(sqlstates(await batch(f.bind({ statement: "nothing" })))).toEqual(["26000"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
	});

	test("session pooling: BEGIN is a server's at once, and who begins with a read may write", async () => {
		await using session = await start({ pooler_mode: "session", read_write_split: "include_primary" });
		for (let i = 0; i < 8; i++) {
			await using mine = await connect(session);
			expect(place(await mine.query(ask(1)))).toBe("s1 primary");
			await mine.query("BEGIN");
			expect(await open()).toEqual(["s0 primary", "s1 primary", "s2 primary"]);
			expect(sqlstates(await mine.query(insert(1)))).toEqual([]);
			expect((await mine.query("COMMIT")).tags).toEqual(["COMMIT"]);
			mine.close();
			await until(async () => (await open()).length === 0, "its end");
		}
		expect(await counts()).toEqual([0, 8, 0]);
	});

	test("statement pooling refuses it", async () => {
		await using statement = await start({ pooler_mode: "statement" });
		await using mine = await connect(statement);
		for (const say of [mine.query, mine.extended]) {
			const refused = await say.call(mine, "BEGIN");
			expect([sqlstates(refused), refused.status]).toEqual([["58000"], "I"]);
			expect((await say.call(mine, insert(1))).status).toBe("I");
		}
	});
});

describe("settings of ours that a server was told of", () => {
	const where = async (each: RawClient) =>
		(await each.query("SELECT current_setting('port'), current_database() FROM here")).rows.map(
			([port, database]) => `${database} ${Number(port) === cluster.primary.port ? "primary" : "replica"}`,
		);

	test("by set_config or in a string of several statements count from the next transaction on", async () => {
		const ways = [
			"SELECT set_config('pgdog.role', 'primary', false), set_config('pgdog.shard', '1', false)",
			"SET pgdog.role = 'primary'; SET pgdog.shard = 1",
			"BEGIN; SET pgdog.role = 'primary'; SET pgdog.shard = 1; COMMIT",
		];
		for (const sql of ways) {
			await using mine = await connect(conservative);
			const before = (await where(mine)).sort();
			expect(before).toEqual(["s0 replica", "s1 replica", "s2 replica"]);
			// In one write: the second must not be routed before the first is understood.
			mine.send(f.query(sql), f.query("SELECT current_setting('port'), current_database()"));
			expect([sql, sqlstates(await mine.result())]).toEqual([sql, []]);
			expect([sql, place(await mine.result())]).toEqual([sql, "s1 primary"]);
			expect((await mine.query("SHOW pgdog.shard")).rows).toEqual([["1"]]);
			await mine.query("BEGIN; SET pgdog.role = 'replica'; ROLLBACK");
			expect(await where(mine)).toEqual(["s1 primary"]);
			await mine.query("RESET ALL");
			expect((await where(mine)).sort()).toEqual(before);
		}
	});

	// The Sync behind it was taken for the end of a transaction that was not committed.
	test("hold when COMMIT comes with a Flush and its Sync later", async () => {
		await client.query("BEGIN");
		await client.query("SET pgdog.shard = 2");
		await client.query(insert(2));
		client.send(run("COMMIT"), f.flush());
		await client.until("C");
		client.send(f.sync());
		expect((await client.result()).status).toBe("I");
		expect((await client.query("SHOW pgdog.shard")).rows).toEqual([["2"]]);
		await client.query("BEGIN");
		await client.query("SET pgdog.shard = 1");
		await client.query("SELECT 1");
		client.send(run("ROLLBACK"), f.flush());
		await client.until("C");
		client.send(f.sync());
		await client.result();
		expect((await client.query("SHOW pgdog.shard")).rows).toEqual([["2"]]);
	});
});
