// Rust plugins before a real primary and its replica: what they see of each statement, where their routes send it, and what
// a client whose statement is blocked gets, message for message.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { SQL } from "bun";
import { Client } from "pg";
import postgres from "postgres";
import { BUILD_TIMEOUT, buildFixture, copy, describeWithCargo, folder, forge } from "../plugin/support.ts";
import type { Cluster } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { QueryResult } from "../support/raw-client.ts";
import { transcript } from "../support/transcript.ts";
import { frontend } from "../support/wire-frames.ts";
import {
	codes,
	errorOf,
	logsAreWritten,
	Notes,
	PORT,
	pipelined,
	placesOf,
	type Roles,
	servedBy,
	startRouted,
	startServers,
	TRIES,
} from "./routed.ts";
import { connect, connectToBothWorkers, workerOf } from "./support.ts";

describeWithCargo("plugins before PostgreSQL", () => {
	let scribe: string;
	let witness: string;
	let cluster: Cluster;
	let proxy: Proxy;
	const notes = new Notes();

	beforeAll(async () => {
		scribe = buildFixture("scribe");
		witness = buildFixture("witness");
		cluster = await startServers();
		await cluster.primary.sql("CREATE TABLE things (id int); CREATE TABLE to_primary (id int)", { user: "pgdog" });
		await cluster.replicated();
		proxy = await startRouted(cluster, [{ name: scribe }], {}, ["primary", "replica"], { env: notes.env });
	}, BUILD_TIMEOUT);

	afterAll(async () => {
		await proxy?.[Symbol.asyncDispose]();
		await cluster?.stop();
	});

	const BLOCKED = () => ["42601", `query is blocked by plugin "${scribe}"`] as [string, string];
	const things = async () => (await cluster.primary.sql("SELECT id FROM things ORDER BY id")).map(({ id }) => id);
	/** A replica and a primary report `in_hot_standby` otherwise; a client that moves is told. */
	const said = ({ messages }: QueryResult) => transcript(messages, { parameters: [] });
	/** A number for a row that only one test puts in. */
	let last = 0;
	const row = () => ++last;

	// ---- what a plugin sees ----------------------------------------------------------------------------------------

	test("the shape of its cluster: replicas and primary are not crossed", async () => {
		const seen = async (roles: ("primary" | "replica")[]) => {
			const its = new Notes();
			await using one = await startRouted(cluster, [{ name: scribe }], {}, roles, { env: its.env });
			await using client = await connect(one);
			await client.query("SELECT 'shape'");
			return its.fresh();
		};
		const shape = { shards: 1, transaction: false, override: false, statements: 1, words: ["shape"], parameters: [] };
		expect(await seen(["primary", "replica"])).toEqual([{ ...shape, primary: true, replicas: true }]);
		// A single database needs no router: plugins are asked all the same.
		expect(await seen(["primary"])).toMatchObject([{ shards: 1, primary: true, replicas: false, words: ["shape"] }]);
		expect(await seen(["replica"])).toMatchObject([{ shards: 1, primary: false, replicas: true, words: ["shape"] }]);
	});

	test("what must go to the primary, in and out of a transaction, and every statement of a string", async () => {
		await using client = await connect(proxy);
		notes.fresh();
		const seen = async (sql: string) => {
			await client.query(sql);
			return notes.fresh().map(({ override, statements, words }) => ({ override, statements, words }));
		};
		expect(await seen("SELECT id FROM things")).toEqual([{ override: false, statements: 1, words: ["things"] }]);
		expect(await seen("INSERT INTO things SELECT 1 WHERE false")).toEqual([
			{ override: true, statements: 1, words: ["things"] },
		]);
		expect(await seen("SELECT id FROM things FOR UPDATE")).toEqual([
			{ override: true, statements: 1, words: ["things"] },
		]);
		expect(await seen("SELECT 'a'; SELECT 'b'; DELETE FROM things WHERE false")).toMatchObject([
			{ override: true, statements: 3 },
		]);
		await client.query("BEGIN");
		notes.fresh();
		const inside = { transaction: true, override: true, words: ["things"] };
		await client.query("SELECT id FROM things");
		await client.extended("SELECT id FROM things");
		expect(notes.fresh()).toMatchObject([inside, inside]);
		await client.query("COMMIT");
		await client.query("SELECT id FROM things");
		expect(notes.fresh().at(-1)).toMatchObject({ transaction: false, override: false });
	});

	test("parameters: text, binary, NULL, one format for all, none with the simple protocol", async () => {
		await using client = await connect(proxy);
		notes.fresh();
		const seen = async (formats: number[], values: (string | Uint8Array | null)[], types: number[] = []) => {
			const list = values.map((_, i) => `$${i + 1}${types.length > 0 ? "" : "::text"}`).join(", ");
			client.send(
				frontend.parse(`SELECT ${list}`, "", types),
				frontend.bind({ formats, values }),
				frontend.execute(),
				frontend.sync(),
			);
			expect(errorOf(await client.result())).toBeNull();
			const fresh = notes.fresh();
			expect(fresh).toHaveLength(1);
			return fresh[0]?.parameters;
		};
		const four = Uint8Array.of(0, 0, 0, 4);
		expect(await seen([], [])).toEqual([]);
		expect(await seen([], ["one", "", null, "zwölf"])).toEqual(["one", "", null, "zwölf"]);
		expect(await seen([1], [four, null, Uint8Array.of(0, 0, 1, 0)], [23, 23, 23])).toEqual([
			{ binary: [0, 0, 0, 4] },
			null,
			{ binary: [0, 0, 1, 0] },
		]);
		expect(await seen([1, 0, 1], [four, "5", null], [23, 23, 23])).toEqual([{ binary: [0, 0, 0, 4] }, "5", null]);
		await client.query("SELECT 'simple'");
		expect(notes.fresh()).toMatchObject([{ words: ["simple"], parameters: [] }]);
	});

	test("hundreds of parameters, and megabytes of them", async () => {
		await using client = await connect(proxy);
		notes.fresh();
		const many = Array.from({ length: 700 }, (_, i) => (i % 7 === 0 ? null : String(i)));
		const list = many.map((_, i) => `$${i + 1}::text`).join(", ");
		expect((await client.extended(`SELECT ${list}`, many)).rows).toEqual([many]);
		expect(notes.fresh().map(({ parameters }) => parameters)).toEqual([many]);
		for (const length of [70_000, 1 << 20, 5_000_000]) {
			const { rows } = await client.extended("SELECT length($1), $2::text", ["x".repeat(length), "end"]);
			expect(rows).toEqual([[String(length), "end"]]);
			expect(notes.fresh().map(({ parameters }) => parameters)).toEqual([[{ length, sum: length * 120 }, "end"]]);
		}
	});

	test("drivers' parameters, one call for each query: pg, postgres, Bun.sql", async () => {
		notes.fresh();
		const connectionString = proxy.url();
		const pg = new Client({ connectionString });
		await pg.connect();
		for (let i = 0; i < 3; i++) {
			const { rows } = await pg.query({ name: "named", text: "SELECT 'pg', $1::int + 1 AS n", values: [i] });
			expect(rows[0]).toMatchObject({ n: i + 1 });
			await pg.query("SELECT 'pg', $1::text", [null]);
		}
		await pg.end();
		const text = (word: string) => {
			const fresh = notes.fresh().filter(({ words }) => words.includes(word));
			return fresh.map(({ parameters }) => parameters);
		};
		expect(text("pg")).toEqual([["0"], [null], ["1"], [null], ["2"], [null]]);

		const sql = postgres(connectionString, { max: 1 });
		for (let i = 0; i < 3; i++) expect(await sql`SELECT 'js', ${i}::int + 1 AS n`).toMatchObject([{ n: i + 1 }]);
		await sql.end();
		expect(text("js")).toEqual([["0"], ["1"], ["2"]]);

		const bun = new SQL(connectionString, { max: 1 });
		for (let i = 0; i < 3; i++) expect((await bun`SELECT 'bun', ${i}::int + 1 AS n`)[0]).toMatchObject({ n: i + 1 });
		await bun.close();
		expect(text("bun")).toHaveLength(3);
	});

	test("it is asked for each Bind, not for Parse, Describe, Close or Sync", async () => {
		await using client = await connect(proxy);
		notes.fresh();
		await pipelined(
			client,
			1,
			frontend.parse("SELECT 'asked', $1::text", "s"),
			frontend.describe("S", "s"),
			frontend.sync(),
		);
		expect(notes.fresh()).toEqual([]);
		const run = (value: string) => [frontend.bind({ statement: "s", values: [value] }), frontend.execute()];
		// Two in a batch, and again in another transaction, on whatever server that gets.
		await pipelined(client, 1, ...run("a"), ...run("b"), frontend.sync());
		expect(notes.fresh().map(({ parameters }) => parameters)).toEqual([["a"], ["b"]]);
		for (let i = 0; i < 6; i++) await pipelined(client, 1, ...run(`${i}`), frontend.sync());
		expect(notes.fresh().map(({ parameters }) => parameters[0])).toEqual(["0", "1", "2", "3", "4", "5"]);
		await pipelined(client, 1, frontend.close("S", "s"), frontend.sync());
		await pipelined(client, 1, frontend.sync());
		expect(notes.fresh()).toEqual([]);
		await client.query("BEGIN");
		notes.fresh();
		await pipelined(client, 1, frontend.parse("SELECT 'inside', $1::text", "t"), frontend.sync());
		expect(notes.fresh()).toEqual([]);
		const inside = [frontend.bind({ statement: "t", values: ["c"] }), frontend.execute(), frontend.sync()];
		expect(codes((await pipelined(client, 1, ...inside))[0]!)).toBe("2DCZ");
		expect(notes.fresh()).toMatchObject([{ words: ["inside"], parameters: ["c"], override: true }]);
		await client.query("ROLLBACK");
	});

	test("requests cut into single bytes are asked about once", async () => {
		await using client = await connect(proxy);
		notes.fresh();
		const request = Buffer.concat([
			frontend.query("SELECT 'cut'"),
			frontend.parse("SELECT 'cut', $1::text"),
			frontend.bind({ values: ["x"] }),
			frontend.execute(),
			frontend.sync(),
		]);
		for (const byte of request) {
			client.send(Uint8Array.of(byte));
			await Bun.sleep(0);
		}
		expect(codes(await client.result())).toBe("TDCZ");
		expect(codes(await client.result())).toBe("12DCZ");
		expect(notes.fresh().map(({ parameters }) => parameters)).toEqual([[], ["x"]]);
	});

	// ---- where its routes lead -------------------------------------------------------------------------------------

	test("read goes to a replica too, what would be a write; write goes to the primary, what would be a read", async () => {
		await using client = await connect(proxy);
		const places = (list: string) => placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}, ${list}`));
		const prepared = (list: string) => placesOf(cluster, TRIES, () => client.extended(`SELECT ${PORT}, ${list}`));
		const lock = "pg_try_advisory_xact_lock_shared(7)";
		for (const where of [places, prepared]) {
			expect(await where("'to_primary'")).toEqual(["primary"]);
			expect(await where(lock)).toEqual(["primary"]);
			expect(await where(`${lock}, 'to_replica'`)).toEqual(["primary", "replica"]);
			expect(await where("'no opinion'")).toEqual(["primary", "replica"]);
			expect(await where("'to_shard_0'")).toEqual(["primary", "replica"]);
			expect(await where("'to_all'")).toEqual(["primary", "replica"]);
			expect(await where(`${lock}, 'to_all'`)).toEqual(["primary"]);
		}
	});

	test("what a plugin calls a write is one for read_after_write too", async () => {
		const general = { read_after_write: "primary", read_after_write_window: 3_600_000 };
		await using careful = await startRouted(cluster, [{ name: scribe }], general, undefined, { env: notes.env });
		await using client = await connect(careful);
		const places = () => placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}, 'no opinion'`));
		expect(await places()).toEqual(["primary", "replica"]);
		await client.query("SELECT 'to_primary'");
		expect(await places()).toEqual(["primary"]);
	});

	test("SHOW ROUTES and EXPLAIN name the plugin that decided, also where it is all that there is to ask", async () => {
		for (const roles of [["primary", "replica"], ["primary"]] as Roles[]) {
			const general = { expanded_explain: true };
			await using explaining = await startRouted(cluster, [{ name: scribe }], general, roles, { env: notes.env });
			await using client = await connect(explaining);
			await client.query("SELECT 'to_primary', 7");
			expect(codes(await client.query("SELECT 'to_nobody', 8"))).toBe("EZ");
			await client.extended("SELECT 'to_primary', $1::int", ["9"]);
			const plan = await client.query("EXPLAIN SELECT 1 FROM to_primary");
			expect(plan.rows.flat()).toContain(`  Shard 0: decided by plugin "${scribe}"`);
			const { port } = explaining;
			await using console = await connect(explaining, { port, user: "admin", database: "admin" });
			const { rows } = await console.query("SHOW ROUTES query, decided_by, server, error");
			const primary = `127.0.0.1:${cluster.primary.port}`;
			expect(rows.map((row) => row.slice(2)).slice(1)).toEqual([
				["SELECT ?, $1::int", `plugin "${scribe}"`, primary, null],
				["SELECT ?, …", `plugin "${scribe}"`, "", `query is blocked by plugin "${scribe}"`],
				["SELECT ?, …", `plugin "${scribe}"`, primary, null],
			]);
		}
	});

	test("a transaction stays where it is, whatever a plugin says inside it", async () => {
		await using client = await connect(proxy);
		for (const begin of ["BEGIN", "BEGIN READ ONLY"])
			for (let i = 0; i < 4; i++) {
				await client.query(begin);
				const places = await placesOf(cluster, 4, (n) =>
					client.query(`SELECT ${PORT}, '${n % 2 === 0 ? "to_replica" : "to_primary"}'`),
				);
				expect(places).toHaveLength(1);
				await client.query("COMMIT");
			}
	});

	test("a shard that does not exist is an error for that client, and nothing is sent", async () => {
		await using client = await connect(proxy);
		const error = ["58000", "no such shard: 7"];
		const simple = client.query.bind(client);
		for (const ask of [simple, client.extended.bind(client)]) {
			const result = await ask("SELECT 'to_shard_7', 'outside'");
			expect(errorOf(result)).toEqual(error as [string, string]);
			expect(codes(result)).toBe("EZ");
			expect(result.status).toBe("I");
			expect((await ask("SELECT 'to_shard_0'")).rows).toEqual([["to_shard_0"]]);
			await client.query("BEGIN");
			// The batch in one write, so that it is there as a whole when it is looked at.
			const batch = [
				frontend.parse("SELECT 'to_shard_7', 'inside'"),
				frontend.bind(),
				frontend.execute(),
				frontend.sync(),
			];
			const inside =
				ask === simple ? await ask("SELECT 'to_shard_7', 'inside'") : (await pipelined(client, 1, ...batch))[0]!;
			expect(errorOf(inside)).toEqual(error as [string, string]);
			expect(inside.status).toBe("E");
			expect((await client.query("ROLLBACK")).status).toBe("I");
		}
		await logsAreWritten(cluster);
		expect(servedBy(cluster, "to_shard_7', 'outside'")).toEqual([]);
		expect(servedBy(cluster, "to_shard_7', 'inside'")).toEqual([]);
	});

	// ---- blocked ---------------------------------------------------------------------------------------------------

	test("a blocked Query: the error names the plugin, nothing is sent, the next one runs", async () => {
		await using client = await connect(proxy);
		const result = await client.query("SELECT 'to_nobody', 'simple one'");
		expect(transcript(result.messages)).toBe(
			`ErrorResponse S="ERROR" V="ERROR" C="42601" M=${JSON.stringify(BLOCKED()[1])} D="SELECT 'to_nobody', 'simple one'"\nReadyForQuery I`,
		);
		expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
		// All of a string, also what stands before what is blocked.
		const id = row();
		expect(codes(await client.query(`INSERT INTO things VALUES (${id}); SELECT 'to_nobody', 'in a string'`))).toBe(
			"EZ",
		);
		expect(codes(await client.query("COPY to_nobody FROM STDIN"))).toBe("EZ");
		expect(await things()).not.toContain(id);
		await logsAreWritten(cluster);
		for (const text of ["simple one", "in a string", "COPY to_nobody"]) expect(servedBy(cluster, text)).toEqual([]);
	});

	test("a blocked Bind: everything up to Sync is skipped, nothing of its batch is sent", async () => {
		await using client = await connect(proxy);
		const id = row();
		const one = await client.extended("SELECT 'to_nobody', 'extended one', $1::text", ["x"]);
		expect(codes(one)).toBe("EZ");
		expect(errorOf(one)).toEqual(BLOCKED());
		expect(one.status).toBe("I");
		const insert = [
			frontend.parse("INSERT INTO things VALUES ($1)"),
			frontend.bind({ values: [`${id}`] }),
			frontend.execute(),
		];
		const blocked = [frontend.parse("SELECT 'to_nobody', 'second one'"), frontend.bind(), frontend.execute()];
		const ok = [frontend.parse(`SELECT 'fine'`), frontend.bind(), frontend.execute(), frontend.sync()];
		const [first, second] = await pipelined(client, 2, ...insert, ...blocked, ...insert, frontend.sync(), ...ok);
		expect(first?.errors).toHaveLength(1);
		expect(errorOf(first!)).toEqual(BLOCKED());
		expect(first?.status).toBe("I");
		expect(codes(second!)).toBe("12DCZ");
		expect(await things()).not.toContain(id);
		await logsAreWritten(cluster);
		expect(servedBy(cluster, "extended one")).toEqual([]);
		expect(servedBy(cluster, "second one")).toEqual([]);
	});

	test("what Flush had answered before a Bind is blocked is undone, as after any error", async () => {
		await using client = await connect(proxy);
		const id = row();
		client.send(
			frontend.parse("INSERT INTO things VALUES ($1)"),
			frontend.bind({ values: [`${id}`] }),
			frontend.execute(),
			frontend.flush(),
		);
		for (const code of "12C") expect((await client.next()).code).toBe(code);
		client.send(
			frontend.parse("SELECT 'to_nobody', 'after a flush'"),
			frontend.bind(),
			frontend.execute(),
			frontend.sync(),
		);
		const result = await client.result();
		expect(errorOf(result)).toEqual(BLOCKED());
		expect(result.status).toBe("I");
		expect(await things()).not.toContain(id);
		expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
	});

	test.each(["extended", "disabled"])(
		"a statement that was parsed in an earlier batch is seen when it is run, prepared_statements = %s",
		async (how) => {
			const its = new Notes();
			for (const pooler_mode of ["transaction", "session"]) {
				const general = { prepared_statements: how, pooler_mode };
				await using other = await startRouted(cluster, [{ name: scribe }], general, undefined, { env: its.env });
				await using client = await connect(other);
				await client.query("BEGIN; SELECT 1");
				await pipelined(
					client,
					1,
					frontend.parse("SELECT 'to_nobody'", "s"),
					frontend.describe("S", "s"),
					frontend.sync(),
				);
				const use = [frontend.bind({ statement: "s" }), frontend.execute(), frontend.sync()];
				expect(errorOf((await pipelined(client, 1, ...use))[0]!)).toEqual(BLOCKED());
				await client.query("ROLLBACK");
				// And in the batch that it was parsed in, behind a Flush; under a name that is given anew.
				const parts = ["SELECT 'fine'", "SELECT 'to_nobody'"].map((sql) => [
					frontend.close("S", "s"),
					frontend.parse(sql, "s"),
				]);
				for (const part of parts) {
					client.send(...part, frontend.flush());
					for (const code of "31") expect((await client.next()).code).toBe(code);
				}
				expect(errorOf((await pipelined(client, 1, ...use))[0]!)).toEqual(BLOCKED());
			}
		},
	);

	test("pipelines: the answers stand in the order of the requests", async () => {
		await using client = await connect(proxy);
		const q = (text: string) => frontend.query(`SELECT '${text}'`);
		const simple = await pipelined(client, 5, q("a"), q("to_nobody"), q("b"), q("to_nobody"), q("c"));
		expect(simple.map(codes)).toEqual(["TDCZ", "EZ", "TDCZ", "EZ", "TDCZ"]);
		expect(simple.flatMap(({ rows }) => rows.flat())).toEqual(["a", "b", "c"]);
		const x = (text: string) =>
			Buffer.concat([frontend.parse(`SELECT '${text}'`), frontend.bind(), frontend.execute(), frontend.sync()]);
		const extended = await pipelined(client, 5, x("a"), x("to_nobody"), x("b"), x("to_nobody"), x("c"));
		expect(extended.map(codes)).toEqual(["12DCZ", "EZ", "12DCZ", "EZ", "12DCZ"]);
		expect(extended.flatMap(({ rows }) => rows.flat())).toEqual(["a", "b", "c"]);
		const mixed = await pipelined(client, 4, x("to_nobody"), q("d"), x("e"), q("to_nobody"));
		expect(mixed.map(codes)).toEqual(["EZ", "TDCZ", "12DCZ", "EZ"]);
		expect(mixed.map(({ status }) => status).join("")).toBe("IIII");
	});

	test("pipelines with a transaction in them", async () => {
		await using client = await connect(proxy);
		const q = (text: string) => frontend.query(text);
		const id = row();
		const results = await pipelined(
			client,
			6,
			q("BEGIN"),
			q(`INSERT INTO things VALUES (${id})`),
			q("SELECT 'to_nobody', 'piped'"),
			q("SELECT 'late'"),
			q("COMMIT"),
			q("SELECT 'after'"),
		);
		expect(results.map(({ status }) => status).join("")).toBe("TTEEII");
		expect(results.map((result) => errorOf(result)?.[0])).toEqual([
			undefined,
			undefined,
			"42601",
			"25P02",
			undefined,
			undefined,
		]);
		expect(results[4]?.tags).toEqual(["ROLLBACK"]);
		expect(await things()).not.toContain(id);
	});

	test.each(["simple", "extended"] as const)(
		"%s: a transaction in which a statement was blocked is failed",
		async (how) => {
			await using client = await connect(proxy);
			// In one write, so that the batch is there as a whole when it is looked at.
			const batch = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute(), frontend.sync()];
			const ask = async (sql: string) =>
				how === "simple" ? client.query(sql) : (await pipelined(client, 1, ...batch(sql)))[0]!;
			const id = row();
			expect((await ask("BEGIN")).status).toBe("T");
			expect((await ask(`INSERT INTO things VALUES (${id})`)).status).toBe("T");
			const blocked = await ask(`SELECT 'to_nobody', 'in ${how} block'`);
			expect(errorOf(blocked)).toEqual(BLOCKED());
			expect([codes(blocked), blocked.status]).toEqual(["EZ", "E"]);
			const after = await ask("SELECT 1");
			expect([errorOf(after)?.[0], after.status]).toEqual(["25P02", "E"]);
			const again = await ask("SELECT 'to_nobody'");
			expect([again.errors.length, again.status]).toEqual([1, "E"]);
			const rollback = await ask("ROLLBACK");
			expect([rollback.tags, rollback.status]).toEqual([["ROLLBACK"], "I"]);
			expect(await things()).not.toContain(id);
			expect((await ask("SELECT 1")).rows).toEqual([["1"]]);
			await logsAreWritten(cluster);
			expect(servedBy(cluster, `in ${how} block`)).toEqual([]);
		},
	);

	test("a savepoint takes the transaction back to before the blocked statement", async () => {
		await using client = await connect(proxy);
		const [one, two, three] = [row(), row(), row()];
		await client.query("BEGIN");
		await client.query(`INSERT INTO things VALUES (${one})`);
		await client.query("SAVEPOINT s");
		await client.query(`INSERT INTO things VALUES (${two})`);
		expect((await client.query("SELECT 'to_nobody'")).status).toBe("E");
		expect((await client.query("ROLLBACK TO s")).status).toBe("T");
		await client.query(`INSERT INTO things VALUES (${three})`);
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		const left = await things();
		expect([one, two, three].map((id) => left.includes(id))).toEqual([true, false, true]);
	});

	test("named statements: Parse and Describe of a blocked text are let through, each of its Binds is not", async () => {
		await using client = await connect(proxy);
		const text = "SELECT 'to_nobody', 'named one', $1::int";
		const [parsed] = await pipelined(
			client,
			1,
			frontend.parse(text, "n"),
			frontend.describe("S", "n"),
			frontend.sync(),
		);
		expect(codes(parsed!)).toBe("1tTZ");
		const bind = [frontend.bind({ statement: "n", values: ["1"] }), frontend.execute(), frontend.sync()];
		for (let i = 0; i < 3; i++) expect(codes((await pipelined(client, 1, ...bind))[0]!)).toBe("EZ");
		await client.query("BEGIN");
		const [inside] = await pipelined(client, 1, ...bind);
		expect([codes(inside!), inside?.status]).toEqual(["EZ", "E"]);
		await client.query("ROLLBACK");
		// The statement is still there, its name still taken.
		const [again] = await pipelined(client, 1, frontend.parse("SELECT 1", "n"), frontend.sync());
		expect(errorOf(again!)?.[0]).toBe("42P05");
		const [closed] = await pipelined(client, 1, frontend.close("S", "n"), frontend.sync());
		expect(codes(closed!)).toBe("3Z");
		const [free] = await pipelined(client, 1, frontend.parse("SELECT 1", "n"), frontend.sync());
		expect(codes(free!)).toBe("1Z");
	});

	test("a statement prepared in a batch that is blocked does not exist afterwards", async () => {
		await using client = await connect(proxy);
		const batch = [
			frontend.parse("SELECT 'fine'", "later"),
			frontend.parse("SELECT 'to_nobody'"),
			frontend.bind(),
			frontend.execute(),
			frontend.parse("SELECT 'fine'", "never"),
			frontend.sync(),
		];
		const [blocked] = await pipelined(client, 1, ...batch);
		expect(errorOf(blocked!)).toEqual(BLOCKED());
		const [missing] = await pipelined(client, 1, frontend.bind({ statement: "never" }), frontend.sync());
		expect(errorOf(missing!)?.[0]).toBe("26000");
	});

	test("the unnamed statement, parsed in one request and bound in the next", async () => {
		await using client = await connect(proxy);
		await client.query("BEGIN");
		notes.fresh();
		await pipelined(client, 1, frontend.parse("SELECT 'unnamed', $1::text"), frontend.sync());
		const bind = [frontend.bind({ values: ["v"] }), frontend.execute(), frontend.sync()];
		expect(codes((await pipelined(client, 1, ...bind))[0]!)).toBe("2DCZ");
		expect(notes.fresh()).toMatchObject([{ words: ["unnamed"], parameters: ["v"] }]);
		await pipelined(client, 1, frontend.parse("SELECT 'to_nobody', $1::text"), frontend.sync());
		const [blocked] = await pipelined(client, 1, ...bind);
		expect([codes(blocked!), blocked?.status]).toEqual(["EZ", "E"]);
		await client.query("ROLLBACK");
	});

	test("drivers get an error that they understand, and go on", async () => {
		const pg = new Client({ connectionString: proxy.url() });
		await pg.connect();
		for (const values of [undefined, ["x"]]) {
			const text = values ? "SELECT 'to_nobody', $1::text" : "SELECT 'to_nobody'";
			const error = await pg.query({ text, ...(values && { values }) }).catch((e: unknown) => e);
			expect(error).toMatchObject({ code: "42601", severity: "ERROR", message: BLOCKED()[1] });
			expect((await pg.query("SELECT 1 AS n")).rows).toEqual([{ n: 1 }]);
		}
		await pg.end();
		const sql = postgres(proxy.url(), { max: 1 });
		const begun = await sql.begin((t) => t`SELECT 'to_nobody', ${1}::int`).catch((e: unknown) => e);
		expect(begun).toMatchObject({ code: "42601" });
		expect(await sql`SELECT ${1}::int AS n`).toMatchObject([{ n: 1 }]);
		await sql.end();
		const bun = new SQL(proxy.url(), { max: 1 });
		const refused = await bun`SELECT 'to_nobody', ${1}::int`.catch((e: unknown) => e);
		expect(refused).toMatchObject({ errno: "42601" });
		expect((await bun`SELECT ${1}::int AS n`)[0]).toMatchObject({ n: 1 });
		await bun.close();
	});

	// ---- several plugins, threads, bad input -----------------------------------------------------------------------

	test("several are asked in the order of the file, until one says something", async () => {
		const its = new Notes();
		await using two = await startRouted(cluster, [{ name: witness }, { name: scribe }], {}, undefined, {
			env: its.env,
		});
		await using client = await connect(two);
		expect(errorOf(await client.query("SELECT 'block', 'to_primary'"))?.[1]).toBe(
			`query is blocked by plugin "${witness}"`,
		);
		expect(its.fresh()).toEqual([]);
		expect(errorOf(await client.query("SELECT 'neither', 'to_nobody'"))?.[1]).toBe(
			`query is blocked by plugin "${scribe}"`,
		);
		expect(its.fresh()).toHaveLength(1);

		await using turned = await startRouted(cluster, [{ name: scribe }, { name: witness }], {}, undefined, {
			env: its.env,
		});
		await using other = await connect(turned);
		its.fresh();
		expect(errorOf(await other.query("SELECT 'block', 'to_primary'"))).toBeNull();
		expect(errorOf(await other.query("SELECT 'block'"))?.[1]).toBe(`query is blocked by plugin "${witness}"`);
		expect(its.fresh()).toHaveLength(2);
	});

	test("each name is bound to its own library, also when an earlier one failed", async () => {
		const its = new Notes();
		const missing = join(folder(), "libmissing.so");
		await using some = await startRouted(cluster, [{ name: missing }, { name: scribe }], {}, undefined, {
			env: its.env,
		});
		await using client = await connect(some);
		expect(errorOf(await client.query("SELECT 'to_nobody'"))).toEqual(BLOCKED());
		expect(its.fresh()).toHaveLength(1);
	});

	test("two workers: init once, calls from both, one state, fini once after the last client", async () => {
		const its = new Notes();
		const place = folder();
		const mine = copy(scribe, join(place, "libscribe.so"));
		const theirs = copy(witness, join(place, "libwitness.so"));
		const plugins = [{ name: "witness" }, { name: "libscribe.so" }];
		const env = { ...its.env, LD_LIBRARY_PATH: place };
		await using both = await startRouted(cluster, plugins, { workers: 2, client_placement: "spread" }, undefined, {
			env,
		});
		expect(both.log).toContain(`plugin "witness" is ${theirs}`);
		expect(both.log).toContain(`plugin "libscribe.so" is ${mine}`);
		const workers = await connectToBothWorkers(both, 2);
		const clients = workers.flat();
		expect(new Set(clients.map(workerOf)).size).toBe(2);
		// The witness counts: its first answer is shard 0, which exists; all later ones are errors that tell the number.
		const counted: number[] = [];
		for (let i = 0; i < 5; i++)
			for (const result of await Promise.all(clients.map((client) => client.query("SELECT 'calls'"))))
				counted.push(Number(/no such shard: (\d+)/.exec(errorOf(result)?.[1] ?? "")?.[1] ?? 0));
		expect(counted.sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i));
		for (const client of clients) expect(errorOf(await client.query("SELECT 'to_nobody'"))?.[0]).toBe("42601");
		await clients[0]?.query("BEGIN");
		both.signal("SIGTERM");
		await both.waitForLog(/shutting down/);
		expect((await clients[0]?.query("SELECT 'last'"))?.status).toBe("T");
		expect(its.all()).not.toContain("fini");
		await clients[0]?.query("COMMIT");
		expect(await both.exited).toBe(0);
		const all = its.all();
		expect(all.filter((line) => typeof line === "string")).toEqual(["init", "fini"]);
		expect([all[0], all.at(-1)]).toEqual(["init", "fini"]);
	});

	test("several shards: context, routes, blocks and shards that do not exist", async () => {
		const names = ["one", "two", "three"];
		for (const name of names) await cluster.primary.sql(`CREATE DATABASE ${name} OWNER pgdog`);
		const { host, port } = cluster.primary;
		const its = new Notes();
		await using sharded = await startProxy({
			config: {
				general: { min_pool_size: 0, workers: 1 },
				databases: names.map((database_name, shard) => ({ name: "pgdog", host, port, shard, database_name })),
				plugins: [{ name: scribe }],
			},
			users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
			env: its.env,
		});
		await using client = await connect(sharded);
		const batch = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute(), frontend.sync()];
		const simple = (sql: string) => client.query(sql);
		const extended = async (sql: string) => (await pipelined(client, 1, ...batch(sql)))[0]!;
		for (const ask of [simple, extended]) {
			its.fresh();
			for (const [shard, name] of names.entries())
				expect((await ask(`SELECT current_database(), 'to_shard_${shard}'`)).rows).toEqual([
					[name, `to_shard_${shard}`],
				]);
			expect(its.fresh()).toMatchObject([{ shards: 3 }, { shards: 3 }, { shards: 3 }]);
			const all = await ask("SELECT current_database(), 'to_all'");
			expect(all.rows.map(([name]) => name).sort()).toEqual([...names].sort());
			expect([all.tags, codes(all).replace(/^12/, "").replace(/^T/, "")]).toEqual([["SELECT 3"], "DDDCZ"]);
			expect(its.fresh()).toHaveLength(1);

			for (const [sql, error] of [
				["SELECT 'to_nobody', 'on no shard'", BLOCKED()],
				["SELECT 'to_shard_3', 'on no shard'", ["58000", "no such shard: 3"]],
			] as [string, [string, string]][]) {
				const refused = await ask(sql);
				expect([errorOf(refused), codes(refused), refused.status]).toEqual([error, "EZ", "I"]);
				expect((await ask("BEGIN")).status).toBe("T");
				expect((await ask("SELECT 'to_shard_1'")).rows).toEqual([["to_shard_1"]]);
				const inside = await ask(sql);
				expect([errorOf(inside), codes(inside), inside.status]).toEqual([error, "EZ", "E"]);
				const after = await ask("SELECT 'to_shard_1'");
				expect([errorOf(after)?.[0], after.status]).toEqual(["25P02", "E"]);
				const over = await ask("COMMIT");
				expect([over.tags, over.status]).toEqual([["ROLLBACK"], "I"]);
				expect((await ask("SELECT 'to_shard_2'")).rows).toEqual([["to_shard_2"]]);
			}
		}
		const q = (word: string) => frontend.query(`SELECT '${word}'`);
		const piped = await pipelined(client, 4, q("to_shard_0"), q("to_nobody"), q("to_all"), q("to_shard_9"));
		expect(piped.map(codes)).toEqual(["TDCZ", "EZ", "TDDDCZ", "EZ"]);
		await logsAreWritten(cluster);
		expect(servedBy(cluster, "on no shard")).toEqual([]);
	}, 60_000);

	test("what the parser refuses reaches no plugin and gets PostgreSQL's own error", async () => {
		await using client = await connect(proxy);
		await using straight = await connect(proxy, { port: cluster.port });
		notes.fresh();
		for (const sql of [
			"SELEKT 1",
			"SELECT 'open",
			"SELECT 1 +",
			"INSERT things",
			"SELECT $$",
			"SELECT 1 /* a */ FROM FROM",
		]) {
			expect(said(await client.query(sql))).toBe(said(await straight.query(sql)));
			expect(said(await client.extended(sql))).toBe(said(await straight.extended(sql)));
		}
		expect(errorOf(await client.query("/* open"))).toEqual(errorOf(await straight.query("/* open")));
		expect(notes.fresh()).toEqual([]);
		for (const sql of ["", ";", "-- nothing", "SELECT 'é', '\u{1f415}'"])
			expect(said(await client.query(sql))).toBe(said(await straight.query(sql)));
	});

	test("a megabyte of statement and ten thousand parentheses harm nobody", async () => {
		await using client = await connect(proxy, { timeout: 60_000 });
		await using other = await connect(proxy);
		const large = `SELECT length('${"x".repeat(1 << 20)}'), 'large'`;
		for (const ask of [client.query.bind(client), client.extended.bind(client)]) {
			expect((await ask(large)).rows).toEqual([[String(1 << 20), "large"]]);
			const blocked = await ask(`${large}, 'to_nobody'`);
			expect(errorOf(blocked)).toEqual(BLOCKED());
			const deep = await ask(`SELECT ${"(".repeat(10_000)}1${")".repeat(10_000)}`);
			expect(codes(deep)).toBe("EZ");
			expect(deep.status).toBe("I");
			expect((await other.query("SELECT 'other'")).rows).toEqual([["other"]]);
			expect((await ask("SELECT 'still here'")).rows).toEqual([["still here"]]);
		}
		expect((await ask72(client)).rows).toEqual([["73"]]);
	}, 120_000);

	/** The statement that breaks `@supabase/pg-parser` as it is shipped. */
	const ask72 = (client: { query(sql: string): Promise<QueryResult> }) => client.query(`SELECT 1${"+1".repeat(72)}`);

	test("routes that no crate lets a plugin return are unknown", async () => {
		const info = Bun.spawnSync([join(import.meta.dir, "../../dist/pgdog"), "plugin-info"])
			.stdout.toString()
			.split("\n");
		const forged = forge(join(folder(), "libforged.so"), {
			rustc: info[0]!,
			pgQuery: info[1]!.replace("pg_query ", ""),
		});
		await using odd = await startRouted(cluster, [{ name: forged }]);
		expect(odd.log).toContain(`loaded "${forged}" plugin`);
		await using client = await connect(odd);
		// Shard -7 and read_write 9.
		expect(await placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary", "replica"]);
	});
});
