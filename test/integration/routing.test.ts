// The router before a real primary and its replica, no plugin: where each statement runs, that a session is the same on
// both servers, and that reads go on when a replica does not.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Client } from "pg";
import postgres from "postgres";
import { errorFields } from "../support/message.ts";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { transcript } from "../support/transcript.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import {
	codes,
	errorOf,
	executedBy,
	logsAreWritten,
	PORT,
	pipelined,
	placesOf,
	routedOptions,
	startRouted,
	startServers,
	TRIES,
} from "./routed.ts";
import { connect, one, repeated, slowdown } from "./support.ts";

const SCHEMA = `
	CREATE TABLE t (id int);
	CREATE SEQUENCE s;
	CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';
	CREATE FUNCTION harmless() RETURNS int LANGUAGE sql AS 'SELECT 1';
`;

let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	cluster = await startServers();
	await cluster.primary.sql(SCHEMA, { user: "pgdog" });
	await cluster.replicated();
	proxy = await startRouted(cluster);
}, 60_000);

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

describe("reads and writes", () => {
	const places = (client: RawClient, sql: string, tries = TRIES) => placesOf(cluster, tries, () => client.query(sql));
	const extended = (client: RawClient, sql: string, values: string[] = []) =>
		placesOf(cluster, TRIES, () => client.extended(sql, values));

	test("reads go to the primary and to the replica, in both protocols", async () => {
		await using client = await connect(proxy);
		expect(await places(client, `SELECT ${PORT}`)).toEqual(["primary", "replica"]);
		expect(await places(client, `SELECT ${PORT} FROM (SELECT count(*) FROM t) a`)).toEqual(["primary", "replica"]);
		expect(await places(client, `WITH a AS (VALUES (1)) SELECT ${PORT} FROM a`)).toEqual(["primary", "replica"]);
		expect(await places(client, `/* a */ SELECT ${PORT} -- b`)).toEqual(["primary", "replica"]);
		expect(await places(client, `SELECT ${PORT}; SELECT 2`)).toEqual(["primary", "replica"]);
		expect(await extended(client, `SELECT ${PORT}, $1::int`, ["1"])).toEqual(["primary", "replica"]);
	});

	test("what locks, writes or takes from a sequence goes to the primary", async () => {
		await using client = await connect(proxy);
		// Each would fail on the replica, or leave the marker in its log.
		const only = [
			`INSERT INTO t SELECT 1 WHERE false RETURNING 1`,
			`UPDATE t SET id = 1 WHERE false`,
			`DELETE FROM t WHERE false`,
			`MERGE INTO t USING (SELECT 1 AS id WHERE false) a ON t.id = a.id WHEN MATCHED THEN DELETE`,
			`WITH a AS (INSERT INTO t VALUES (0) RETURNING id) SELECT id FROM a`,
			`WITH a AS (DELETE FROM t RETURNING id) SELECT 1 FROM (SELECT 2) b`,
			`SELECT id FROM t FOR UPDATE`,
			`SELECT id FROM t FOR SHARE`,
			`SELECT 1 FROM (SELECT id FROM t FOR NO KEY UPDATE) a`,
			`SELECT nextval('s')`,
			`SELECT setval('s', 5)`,
			`SELECT pg_advisory_xact_lock(1)`,
			`SELECT pg_try_advisory_xact_lock_shared(1)`,
			`CREATE TEMP TABLE x ON COMMIT DROP AS SELECT 1`,
			`EXPLAIN ANALYZE INSERT INTO t SELECT 1 WHERE false`,
			`EXPLAIN (ANALYZE, COSTS off) DELETE FROM t WHERE false`,
			`CALL nothing()`,
			`DO 'BEGIN END'`,
			`SHOW port`,
			`SELECT 1; INSERT INTO t SELECT 1 WHERE false`,
			`SELECT * INTO TEMP y FROM t; DROP TABLE y`,
			`PREPARE written AS INSERT INTO t SELECT 1 WHERE false; EXECUTE written; DEALLOCATE written`,
			`BEGIN; DECLARE c CURSOR FOR SELECT 1; FETCH c; CLOSE c; COMMIT`,
			`COPY (DELETE FROM t WHERE false RETURNING id) TO STDOUT`,
		].map((sql) => `${sql} /* the primary's */`);
		for (const sql of only)
			for (let i = 0; i < 8; i++) {
				expect(errorOf(await client.query(sql))).toBeNull();
				if (!sql.includes(";")) expect(errorOf(await client.extended(sql))).toBeNull();
			}
		await logsAreWritten(cluster);
		expect(executedBy(cluster, "the primary's")).toEqual(["primary"]);
		for (const sql of [`SELECT ${PORT}, pg_advisory_xact_lock(1)`, "SHOW port", `SELECT ${PORT}, nextval('s')`]) {
			expect(await places(client, sql)).toEqual(["primary"]);
			expect(await extended(client, sql)).toEqual(["primary"]);
		}
	});

	test("a request in the middle of a COPY ends the connection, as in PostgreSQL, and is not waited for in silence", async () => {
		// The server's to say; and what is for another server, which cannot be sent.
		for (const [sql, S] of [
			["SELECT 1", "ERROR"],
			["/* pgdog_role: replica */ SELECT 1", "FATAL"],
		] as const) {
			const message = frontend.query(sql);
			await using client = await connect(proxy);
			client.send(frontend.query("COPY t FROM STDIN"));
			expect((await client.next()).code).toBe("G");
			client.send(frontend.copyData("1\n"), message);
			expect(errorFields((await client.next()).body)).toMatchObject({ S, C: "08P01" });
			await client.closed;
		}
		await using other = await connect(proxy);
		expect(await one(other, "SELECT count(*) FROM t")).toBe("0");
	});

	test("what only seems to write is a read", async () => {
		await using client = await connect(proxy);
		const reads = [
			`SELECT ${PORT}, 'INSERT INTO t; nextval(1) FOR UPDATE'`,
			`SELECT ${PORT} AS "delete" -- FOR UPDATE`,
			`SELECT ${PORT} FROM (VALUES ('nextval')) a`,
			`SELECT ${PORT}, random(), now(), currval IS NULL FROM (SELECT 1 AS currval) a`,
		];
		for (const sql of reads) {
			expect(await places(client, sql)).toEqual(["primary", "replica"]);
			expect(await extended(client, sql)).toEqual(["primary", "replica"]);
		}
	});

	test("functions of the user's are reads, unless [[write_functions]] names them; a reload counts for texts known before", async () => {
		const options = routedOptions(cluster);
		await using mine = await startRouted(cluster);
		await using client = await connect(mine);
		const sql = `SELECT ${PORT}, harmless()`;
		const named = [frontend.bind({ statement: "n" }), frontend.execute(), frontend.sync()];
		const everywhere = async () => [
			await places(client, sql),
			await extended(client, sql),
			await placesOf(cluster, TRIES, async () => (await pipelined(client, 1, ...named))[0]!),
		];
		await pipelined(client, 1, frontend.parse(sql, "n"), frontend.sync());
		const both = ["primary", "replica"];
		expect(await everywhere()).toEqual([both, both, both] as never);
		const reload = async (write_functions: { name: string }[]) => {
			const from = mine.lines.length;
			mine.writeConfig({ ...(options.config as Record<string, unknown>), write_functions });
			mine.signal("SIGHUP");
			expect(await mine.waitForLog(/configuration reloaded|reload refused/, 10_000, from)).toContain("reloaded");
		};
		await reload([{ name: "public.harmless" }]);
		await until(async () => (await places(client, sql)).length === 1, "the worker to know the function");
		expect(await everywhere()).toEqual([["primary"], ["primary"], ["primary"]]);
		await reload([]);
		await until(async () => (await places(client, sql)).length === 2, "the worker to forget the function");
		expect(await everywhere()).toEqual([both, both, both] as never);
	});

	test("a cursor and a prepared statement of SQL live where they were made", async () => {
		await using client = await connect(proxy);
		for (let i = 0; i < 8; i++) {
			await client.query("BEGIN READ ONLY");
			await client.query(`DECLARE c CURSOR FOR SELECT ${PORT} FROM generate_series(1, 3)`);
			expect(await places(client, "FETCH c", 3)).toHaveLength(1);
			await client.query(`PREPARE p AS SELECT ${PORT}`);
			expect(await places(client, "EXECUTE p", 2)).toHaveLength(1);
			await client.query("DEALLOCATE p");
			expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		}
	});

	test("a transaction is the primary's, from BEGIN to its end; READ ONLY it may be the replica's", async () => {
		await using client = await connect(proxy);
		const of = async (begin: string, end: string) => {
			const all = new Set<string>();
			for (let i = 0; i < TRIES; i++) {
				expect((await client.query(begin)).status).toBe("T");
				const where = await places(client, `SELECT ${PORT}`, 3);
				expect(where).toHaveLength(1);
				all.add(where[0]!);
				expect((await client.query(end)).status).toBe("I");
			}
			return [...all].sort();
		};
		expect(await of("BEGIN", "COMMIT")).toEqual(["primary"]);
		expect(await of("START TRANSACTION READ WRITE", "ROLLBACK")).toEqual(["primary"]);
		expect(await of("BEGIN READ ONLY", "COMMIT")).toEqual(["primary", "replica"]);
		expect(await of("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "END")).toEqual([
			"primary",
			"replica",
		]);
		// A hot standby refuses this one.
		expect(await of("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "COMMIT")).toEqual(["primary"]);
	});

	test("a write in a READ ONLY transaction is PostgreSQL's to refuse, wherever it is", async () => {
		await using client = await connect(proxy);
		for (let i = 0; i < 12; i++) {
			await client.query("BEGIN READ ONLY");
			expect(errorOf(await client.query("INSERT INTO t VALUES (1)"))).toEqual([
				"25006",
				"cannot execute INSERT in a read-only transaction",
			]);
			expect((await client.query("ROLLBACK")).status).toBe("I");
		}
	});

	test("a batch goes to one server, the primary as soon as one of its statements writes", async () => {
		await using client = await connect(proxy);
		const read = [frontend.parse(`SELECT ${PORT}`), frontend.bind(), frontend.execute()];
		const write = [frontend.parse("INSERT INTO t SELECT 1 WHERE false"), frontend.bind(), frontend.execute()];
		const batch = (...messages: Uint8Array[]) =>
			placesOf(cluster, TRIES, async () => (await pipelined(client, 1, ...messages, frontend.sync()))[0]!);
		expect(await batch(...read, ...write)).toEqual(["primary"]);
		expect(await batch(...write, ...read)).toEqual(["primary"]);
		expect(await batch(...read, ...read)).toEqual(["primary", "replica"]);
	});

	test("after Flush the batch stays where it began", async () => {
		await using client = await connect(proxy);
		for (let i = 0; i < 8; i++) {
			client.send(frontend.parse(`SELECT ${PORT}`), frontend.bind(), frontend.execute(), frontend.flush());
			for (const code of "12DC") {
				let message = await client.next();
				while (message.code === "S") message = await client.next();
				expect(message.code).toBe(code);
			}
			client.send(frontend.parse(`SELECT ${PORT}, 2`), frontend.bind(), frontend.execute(), frontend.sync());
			expect(codes(await client.result())).toBe("12DCZ");
		}
	});

	// It went where its beginning went, a replica perhaps, which refused the write (25006).
	test("what runs before a Flush may be followed by a write in the same implicit transaction", async () => {
		await using client = await connect(proxy);
		const [read, run] = [frontend.parse(`SELECT ${PORT}`), [frontend.bind(), frontend.execute()]];
		const rest: [string, Uint8Array[]][] = [
			["INSERT INTO t SELECT 1 WHERE false", [frontend.execute(), frontend.sync()]],
			["COPY t FROM STDIN", [frontend.execute(), frontend.copyData("1\n"), frontend.copyDone(), frontend.sync()]],
		];
		for (let i = 0; i < 8; i++)
			for (const [sql, messages] of rest) {
				client.send(read, ...run, frontend.flush());
				for (let code = ""; code !== "C"; ) code = (await client.next()).code;
				client.send(frontend.parse(sql), frontend.bind(), ...messages);
				const { errors, status } = await client.result();
				expect([sql, errors, status]).toEqual([sql, [], "I"]);
			}
	});

	test("so may what runs behind requests that are under way, and before a Query that ends the batch", async () => {
		await using client = await connect(proxy);
		const run = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute()];
		const insert = "INSERT INTO t SELECT 1 WHERE false";
		for (let i = 0; i < 8; i++) {
			client.send(frontend.query("SELECT pg_sleep(0.05)"), ...run("SELECT 1"), frontend.flush());
			expect((await client.result()).errors).toEqual([]);
			client.send(...run(insert), frontend.sync());
			expect((await client.result()).errors).toEqual([]);
			client.send(...run("SELECT 1"), frontend.query(insert));
			expect((await client.result()).errors).toEqual([]);
		}
	});

	test("a pipeline of reads and writes: each its own transaction, answers in order", async () => {
		await using client = await connect(proxy);
		await client.query("TRUNCATE t");
		const queries = Array.from({ length: 60 }, (_, i) =>
			frontend.query(i % 3 === 0 ? `INSERT INTO t VALUES (${i}) RETURNING id` : `SELECT ${i}`),
		);
		const results = await pipelined(client, 60, ...queries);
		expect(results.map(({ rows }) => rows[0]?.[0])).toEqual(queries.map((_, i) => String(i)));
		const batches = Array.from({ length: 60 }, (_, i) => [
			frontend.parse(i % 3 === 0 ? "INSERT INTO t VALUES ($1) RETURNING id" : "SELECT $1::int"),
			frontend.bind({ values: [`${i}`] }),
			frontend.execute(),
			frontend.sync(),
		]);
		const extendedResults = await pipelined(client, 60, ...batches.flat());
		expect(extendedResults.map(({ rows }) => rows[0]?.[0])).toEqual(queries.map((_, i) => String(i)));
		expect(await cluster.primary.sql("SELECT count(*)::int AS n FROM t")).toEqual([{ n: 40 }]);
	});

	test("a pipeline that begins with a read: a write behind it waits for its own server", async () => {
		await using client = await connect(proxy);
		await client.query("TRUNCATE t");
		const part = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute(), frontend.sync()];
		for (let i = 0; i < 8; i++) {
			const texts = [
				"/* pgdog_role: replica */ SELECT 1",
				"SELECT 2",
				`INSERT INTO t VALUES (${i}) RETURNING 3`,
				"/* pgdog_role: replica */ SELECT 4",
				"BEGIN",
				"INSERT INTO t VALUES (0) RETURNING 5",
				"SELECT 6",
				"COMMIT",
				"/* pgdog_role: replica */ SELECT 7",
				"SET pgdog.role = 'replica'",
				"SHOW pgdog.role",
				"RESET pgdog.role",
				"BEGIN READ ONLY",
				"SELECT 8",
				"SET pgdog.role = 'primary'",
				"SHOW pgdog.role",
				"ROLLBACK",
				"SHOW pgdog.role",
				"INSERT INTO t VALUES (0) RETURNING 9",
			];
			const messages = i % 2 === 0 ? texts.map(frontend.query) : texts.flatMap(part);
			const results = await pipelined(client, texts.length, ...messages);
			expect(results.map(({ rows, errors }) => errors[0]?.M ?? rows[0]?.[0])).toEqual([
				...["1", "2", "3", "4", undefined, "5", "6", undefined, "7", undefined, "replica", undefined, undefined],
				...["8", undefined, "primary", undefined, "", "9"],
			]);
		}
		expect(await cluster.primary.sql("SELECT count(*)::int AS n FROM t")).toEqual([{ n: 24 }]);
	});

	test("COPY TO may be a read, COPY FROM is a write", async () => {
		await using client = await connect(proxy);
		await client.query("TRUNCATE t");
		for (let i = 0; i < 6; i++) {
			client.send(frontend.query("COPY t FROM STDIN"), frontend.copyData("7\n"), frontend.copyDone());
			expect((await client.result()).tags).toEqual(["COPY 1"]);
			expect(errorOf(await client.query("COPY (SELECT 1) TO STDOUT"))).toBeNull();
		}
		expect(await cluster.primary.sql("SELECT count(*)::int AS n FROM t")).toEqual([{ n: 6 }]);
	});

	test("drivers: reads on both, transactions on the primary", async () => {
		const pg = new Client({ connectionString: proxy.url() });
		await pg.connect();
		const ports = async (run: () => Promise<string>) => {
			const all = new Set<string>();
			for (let i = 0; i < TRIES; i++) all.add(await run());
			return all.size;
		};
		const text = `SELECT ${PORT} AS port, $1::int`;
		expect(await ports(async () => (await pg.query({ name: "n", text, values: [1] })).rows[0].port)).toBe(2);
		await pg.query("BEGIN");
		expect(await ports(async () => (await pg.query({ name: "n", text, values: [1] })).rows[0].port)).toBe(1);
		await pg.query("COMMIT");
		await pg.end();
		const sql = postgres(proxy.url(), { max: 1 });
		expect(await ports(async () => (await sql`SELECT current_setting('port') AS port, ${1}::int`)[0]?.port)).toBe(2);
		const begin = () => sql.begin(async (t) => (await t`SELECT current_setting('port') AS port, ${1}::int`)[0]?.port);
		expect(await ports(begin)).toBe(1);
		await sql.end();
	});
});

describe("one session on two servers", () => {
	test("SET is the client's on both, and so is RESET", async () => {
		await using client = await connect(proxy);
		await using other = await connect(proxy);
		const settings = async (who: RawClient) => {
			const all = new Set<string>();
			for (let i = 0; i < TRIES; i++)
				all.add((await who.query("SELECT current_setting('work_mem')")).rows[0]?.[0] ?? "");
			return [...all];
		};
		const [before] = await settings(client);
		await client.query("SET work_mem = '7MB'");
		expect(await settings(client)).toEqual(["7MB"]);
		expect(await settings(other)).toEqual([before!]);
		await client.query("BEGIN");
		await client.query("SET work_mem = '9MB'");
		await client.query("ROLLBACK");
		expect(await settings(client)).toEqual(["7MB"]);
		await client.query("RESET work_mem");
		expect(await settings(client)).toEqual([before!]);
		for (let i = 0; i < 8; i++) await client.query(`SELECT set_config('work_mem', '${i + 2}MB', false)`);
		expect(await settings(client)).toEqual(["9MB"]);
		await client.query("SET LOCAL work_mem = '1MB'");
		expect(await settings(client)).toEqual(["9MB"]);
	});

	test("a named statement is there on whatever server its Bind comes to, also after DEALLOCATE of another", async () => {
		await using client = await connect(proxy);
		await pipelined(client, 1, frontend.parse(`SELECT ${PORT}, $1::text`, "mine"), frontend.sync());
		const run = () =>
			placesOf(cluster, TRIES, async () => {
				const bind = [frontend.bind({ statement: "mine", values: ["v"] }), frontend.execute(), frontend.sync()];
				return (await pipelined(client, 1, ...bind))[0]!;
			});
		expect(await run()).toEqual(["primary", "replica"]);
		await pipelined(client, 1, frontend.parse("SELECT 1", "other"), frontend.sync());
		await client.query("DEALLOCATE other");
		expect(await run()).toEqual(["primary", "replica"]);
		await client.query("DEALLOCATE ALL");
		const bind = [frontend.bind({ statement: "mine", values: ["v"] }), frontend.execute(), frontend.sync()];
		for (let i = 0; i < 8; i++) expect(errorOf((await pipelined(client, 1, ...bind))[0]!)?.[0]).toBe("26000");
	});

	test("an error on one server is nobody's on the other", async () => {
		await using client = await connect(proxy);
		for (let i = 0; i < 16; i++) {
			const failed = await client.extended("SELECT 1 / $1::int", ["0"]);
			expect([errorOf(failed)?.[0], failed.status]).toEqual(["22012", "I"]);
			expect(errorOf(await client.query("SELECT 1"))).toBeNull();
		}
	});

	test("session pooling keeps to the server of its first statement", async () => {
		await using session = await startRouted(cluster, [], { pooler_mode: "session" });
		await using client = await connect(session);
		await client.query("CREATE TEMP TABLE mine AS SELECT 1 AS one");
		for (let i = 0; i < 8; i++) expect(await one(client, "SELECT one FROM mine")).toBe("1");
	});
});

describe("bad input", () => {
	// The worker walked on into a header that nobody had checked, whose length led nowhere, for ever.
	test("what follows Terminate in the same packet is nobody's", async () => {
		const read = [frontend.parse("SELECT 1"), frontend.bind(), frontend.execute()];
		for (const junk of [
			[0x50, 0xff, 0xff, 0xff, 0xff],
			[0x51, 0, 0, 0, 0],
			[0, 0, 0, 0, 0, 0],
		]) {
			const client = await connect(proxy);
			client.send(...read, frontend.terminate(), Uint8Array.from(junk));
			await using other = await connect(proxy);
			expect(await one(other, "SELECT 'well'")).toBe("well");
			client.close();
		}
	});

	test("what the parser refuses gets PostgreSQL's own error, from the primary", async () => {
		await using client = await connect(proxy);
		await using straight = await connect(proxy, { port: cluster.port });
		const said = (result: { messages: RawClient["received"] }) => transcript(result.messages, { parameters: [] });
		const marked = "SELECT 'refused' FROM FROM";
		for (const sql of [marked, "SELEKT 1", "SELECT 'open", "/* open", "SELECT $$", "SELECT 1 WHERE", "\u0001", ""]) {
			for (let i = 0; i < 4; i++) expect(said(await client.query(sql))).toBe(said(await straight.query(sql)));
			expect(said(await client.extended(sql))).toBe(said(await straight.extended(sql)));
		}
		await logsAreWritten(cluster);
		expect(executedBy(cluster, marked)).toEqual(["primary"]);
	});

	test("a megabyte, ten thousand parentheses, thousands of operators: what PostgreSQL says, and others go on", async () => {
		await using client = await connect(proxy, { timeout: 60_000 });
		await using other = await connect(proxy);
		await using straight = await connect(proxy, { port: cluster.port, timeout: 60_000 });
		const nested = (n: number) => `SELECT ${"(".repeat(n)}1${")".repeat(n)}`;
		const sums = (n: number) => `SELECT 1${"+1".repeat(n)}`;
		const rows = Array.from({ length: 20_000 }, (_, i) => `(${i}, 'a row of a large statement')`).join(",");
		for (const sql of [
			`SELECT length('${"x".repeat(1 << 20)}')`,
			`SELECT count(*) FROM (VALUES ${rows}) a`,
			sums(72),
			sums(3_000),
			nested(1_000),
			nested(10_000),
			sums(72),
		]) {
			const wanted = await straight.query(sql);
			const got = await client.query(sql);
			expect([got.rows, errorOf(got)?.[0], got.status]).toEqual([wanted.rows, errorOf(wanted)?.[0], wanted.status]);
			expect(codes(await client.extended(sql))).toBe(codes(await straight.extended(sql)));
			expect(await one(other, "SELECT 'well'")).toBe("well");
			expect(await one(client, "SELECT 'too'")).toBe("too");
		}
	}, 120_000);

	// Each piece was joined to all before it and searched from the beginning: in the end 5 ms of everybody's time for 4 KB.
	test("a batch without an end, in small pieces, costs its sender and nobody else", async () => {
		await using sender = await connect(proxy);
		await using other = await connect(proxy);
		sender.send(frontend.parse("SELECT 1"));
		// As short as a message can be; without a COPY it means nothing.
		const piece = repeated(frontend.copyDone(), 4 << 10);
		expect(await slowdown(sender, piece, 1_500, () => one(other, "SELECT 1"))).toBeLessThan(4);
		sender.send(frontend.sync());
		expect(codes(await sender.result())).toBe("1Z");
	}, 60_000);

	test("a hundred thousand Close messages in one batch are answered one by one, in no more time than it takes", async () => {
		await using sender = await connect(proxy, { timeout: 30_000 });
		sender.send(repeated(frontend.close("S", "x"), 800_000), frontend.sync());
		const { messages } = await sender.result();
		expect([messages.length, messages.filter(({ code }) => code === "3").length]).toEqual([100_001, 100_000]);
	}, 60_000);

	// The proxy kept every name until the next Sync.
	test.each(["extended", "disabled"])(
		"names that are given and taken away in a batch without an end are not remembered, prepared_statements = %s",
		async (how) => {
			await using its = await startRouted(cluster, [], { prepared_statements: how });
			await using client = await connect(its);
			const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${its.pid}/status`, "utf8"))?.[1]) >> 10;
			let last = 0;
			const round = async () => {
				const messages: Uint8Array[] = [];
				for (let i = 0; i < 250; i++) {
					const name = `${++last}`.padEnd(8_000, "x");
					messages.push(frontend.parse("SELECT 1", name), frontend.close("S", name));
				}
				client.send(Buffer.concat([...messages, frontend.flush()]));
				let answers = "";
				while (answers.length < 500) answers += (await client.next()).code;
				expect(answers).toBe("13".repeat(250));
				return false;
			};
			for (let i = 0; i < 15; i++) await round();
			const before = memory();
			// 80 MB of names.
			for (let i = 0; i < 40; i++) await round();
			// When garbage is collected nobody can say; what is remembered only grows.
			const isForgotten = async () => memory() - before < 40 || (await round());
			await until(isForgotten, "no more than 40 MB more", 60_000);
			client.send(frontend.sync());
			expect(codes(await client.result())).toBe("Z");
		},
		120_000,
	);

	test("a client that vanishes in the middle of a request leaves nothing behind", async () => {
		for (let i = 0; i < 10; i++) {
			const client = await connect(proxy);
			const request = Buffer.concat([
				frontend.parse("SELECT $1::text"),
				frontend.bind({ values: ["x".repeat(5_000)] }),
			]);
			client.send(request.subarray(0, 200 + i * 300));
			client.reset();
		}
		await using client = await connect(proxy);
		expect(await placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary", "replica"]);
	});
});

describe("a server is missing", () => {
	const QUICK = {
		connect_timeout: 1000,
		connect_attempts: 1,
		checkout_timeout: 500,
		client_connection_recovery: "recover",
	};

	test("the replica stops: reads go on at the primary; it comes back and gets its share", async () => {
		await using mine = await startServers();
		await using short = await startRouted(mine, [], { ...QUICK, min_pool_size: 1 });
		await using client = await connect(short);
		const run = () => client.query(`SELECT ${PORT}`);
		expect(await placesOf(mine, TRIES, run)).toEqual(["primary", "replica"]);
		await mine.replicas[0]!.stop();
		await short.waitForLog(/server connection failed/);
		expect(await placesOf(mine, TRIES, run)).toEqual(["primary"]);
		await using late = await connect(short);
		expect(await placesOf(mine, TRIES, () => late.query(`SELECT ${PORT}`))).toEqual(["primary"]);
		expect((await client.query("BEGIN READ ONLY")).status).toBe("T");
		expect((await client.query("COMMIT")).status).toBe("I");
		await mine.replicas[0]!.start();
		const found = new Set<string>();
		await until(async () => {
			for (const place of await placesOf(mine, 1, run)) found.add(place);
			return found.has("replica");
		}, "reads to come back to the replica");
	}, 60_000);

	test("no read is lost when the replica stops, and without a minimum of servers it comes back all the same", async () => {
		await using mine = await startServers();
		// A client that had to wait for this would be late for the test.
		await using short = await startRouted(mine, [], { checkout_timeout: 60_000 });
		await using client = await connect(short);
		await using other = await connect(short);
		const run = () => client.query(`SELECT ${PORT}`);
		expect(await placesOf(mine, TRIES, run)).toEqual(["primary", "replica"]);
		await mine.replicas[0]!.stop();
		expect(await placesOf(mine, TRIES, run)).toEqual(["primary"]);
		expect(await placesOf(mine, TRIES, () => other.extended(`SELECT ${PORT}, $1::int`, ["1"]))).toEqual(["primary"]);
		await mine.replicas[0]!.start();
		await until(async () => (await placesOf(mine, 1, run))[0] === "replica", "reads to come back to the replica");
	}, 60_000);

	test("while the primary is away clients log in and read", async () => {
		await using mine = await startServers();
		await using short = await startRouted(mine, [], { checkout_timeout: 60_000 });
		await mine.primary.stop("immediate");
		await using client = await connect(short);
		expect(await placesOf(mine, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["replica"]);
	}, 60_000);

	test("the primary stops: writes get an error, reads go on at the replica", async () => {
		await using mine = await startServers();
		await using short = await startRouted(mine, [], QUICK);
		await using client = await connect(short);
		const run = () => client.query(`SELECT ${PORT}`);
		expect(await placesOf(mine, TRIES, run)).toEqual(["primary", "replica"]);
		await mine.primary.stop("immediate");
		const write = await client.query("CREATE TABLE never ()");
		expect([errorOf(write)?.[0], write.status]).toEqual(["58000", "I"]);
		expect(await placesOf(mine, TRIES, run)).toEqual(["replica"]);
		expect((await client.query("CREATE TABLE never ()")).status).toBe("I");
		await mine.primary.start();
		await until(async () => (await client.query("CREATE TABLE now ()")).errors.length === 0, "writes to go on");
	}, 60_000);

	test("a cluster without a primary serves reads and refuses writes", async () => {
		await using replicas = await startRouted(cluster, [], {}, ["replica"]);
		await using client = await connect(replicas);
		expect(await placesOf(cluster, 4, () => client.query(`SELECT ${PORT}`))).toEqual(["replica"]);
		const write = await client.query("INSERT INTO t VALUES (1)");
		expect([errorOf(write)?.[0], write.status]).toEqual(["25006", "I"]);
		await client.query("BEGIN");
		expect(await placesOf(cluster, 4, () => client.query(`SELECT ${PORT}`))).toEqual(["replica"]);
		await client.query("COMMIT");
	});
});
