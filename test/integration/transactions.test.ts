// Transactions where there is a choice of servers: BEGIN is held back by the proxy until the first statement is there. What
// becomes of a held transaction whose client leaves, waits, is cancelled or cannot be served; and that a running one never moves.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import {
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
import { admin, backends, connect, one, untilRunning } from "./support.ts";

let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	cluster = await startServers();
	await cluster.primary.sql("CREATE TABLE t (id int); CREATE TABLE ends (id int)", { user: "pgdog" });
	await cluster.replicated();
	proxy = await startRouted(cluster);
}, 60_000);

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

const ABORTED = "25P02";
test("what is pipelined behind the end of a replica's transaction is another one, and goes where it belongs", async () => {
	await using client = await connect(proxy);
	const insert = "INSERT INTO ends VALUES (77) RETURNING id";
	const batch = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute(), frontend.sync()];
	const pipelines: [number, Uint8Array[]][] = [
		[2, [frontend.query("COMMIT"), frontend.query(insert)]],
		[2, [...batch("COMMIT"), ...batch(insert)]],
		[4, [frontend.query("ROLLBACK"), frontend.query("BEGIN"), frontend.query(insert), frontend.query("COMMIT")]],
	];
	for (const [answers, messages] of pipelines) {
		await client.query("BEGIN READ ONLY");
		await client.query("/* pgdog_role: replica */ SELECT 1");
		const results = await pipelined(client, answers, ...messages);
		expect(results.map(errorOf)).toEqual(results.map(() => null));
		expect(results.some(({ rows }) => rows[0]?.[0] === "77")).toBe(true);
		expect(results.at(-1)!.status).toBe("I");
	}
});

test("a Query for another server behind a batch that fails is skipped with it", async () => {
	await using client = await connect(proxy);
	const write = "INSERT INTO t VALUES (12) RETURNING id";
	// The batch is run on the replica, and until it has failed the second Query may have to be on the primary.
	const batch = [frontend.parse("/* pgdog_role: replica */ SELECT 1/0"), frontend.bind(), frontend.execute()];
	const queries = [frontend.query("SELECT 1"), frontend.query(write)];
	const [failed, next] = await pipelined(client, 2, ...batch, ...queries, frontend.sync(), frontend.query(write));
	expect(errorOf(failed!)?.[0]).toBe("22012");
	expect([next!.rows, next!.status]).toEqual([[["12"]], "I"]);
	expect(await one(client, "DELETE FROM t WHERE id = 12 RETURNING id")).toBe("12");
});

test("a write before a BEGIN in one batch takes all of it to the primary", async () => {
	await using client = await connect(proxy);
	const run = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute()];
	const statements = ["INSERT INTO ends VALUES (78)", "BEGIN READ ONLY", "SELECT 1", "COMMIT"];
	for (let i = 0; i < 6; i++) {
		const [result] = await pipelined(client, 1, ...statements.flatMap(run), frontend.sync());
		expect(errorOf(result!)).toBeNull();
	}
	expect(await cluster.primary.sql("SELECT count(*)::int AS n FROM ends WHERE id = 78")).toEqual([{ n: 6 }]);
});

/** One server, and nobody waits long for it. */
const SCARCE = { default_pool_size: 1, checkout_timeout: 300, client_connection_recovery: "recover" };

async function reload(of: Proxy, config: unknown): Promise<void> {
	const from = of.lines.length;
	of.writeConfig(config as Record<string, unknown>);
	of.signal("SIGHUP");
	expect(await of.waitForLog(/configuration reloaded|reload refused/, 10_000, from)).toContain("reloaded");
}

describe("a transaction that no server knows of", () => {
	test("sends nothing to any server when nothing was in it", async () => {
		await using client = await connect(proxy);
		for (const end of ["COMMIT", "ROLLBACK"]) {
			expect((await client.query("BEGIN /* idle hands */")).tags).toEqual(["BEGIN"]);
			expect((await client.extended("SET TRANSACTION READ ONLY /* idle hands */")).status).toBe("T");
			expect((await client.query(`${end} /* idle hands */`)).tags).toEqual([end]);
		}
		await logsAreWritten(cluster);
		expect(executedBy(cluster, "idle hands")).toEqual([]);
	});

	test("is begun with the first statement, with its modes, on one server", async () => {
		await using client = await connect(proxy);
		await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ -- both texts");
		await client.query("SET TRANSACTION READ ONLY -- in a line");
		expect(await one(client, "SHOW transaction_isolation")).toBe("repeatable read");
		expect(await one(client, "SHOW transaction_read_only")).toBe("on");
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
	});

	test("now() is the time of the first statement, and stays", async () => {
		await using client = await connect(proxy);
		await client.query("BEGIN");
		const [row] = await cluster.primary.sql("SELECT clock_timestamp()::text AS t");
		const first = await one(client, "SELECT now()::text");
		expect(Date.parse(first!)).toBeGreaterThanOrEqual(Date.parse(row?.t as string));
		expect(await one(client, "SELECT now()::text")).toBe(first);
		await client.query("COMMIT");
	});

	test("a client that vanishes leaves no server behind", async () => {
		await using scarce = await startRouted(cluster, [], SCARCE);
		for (let i = 0; i < 5; i++) {
			const client = await connect(scarce);
			await client.query("BEGIN");
			if (i % 2 === 0) client.reset();
			else client.send(frontend.terminate());
		}
		await using other = await connect(scarce);
		for (let i = 0; i < 4; i++) expect(errorOf(await other.query("INSERT INTO t SELECT 1 WHERE false"))).toBeNull();
	});

	test("a client that vanishes with its first statement under way leaves its server idle", async () => {
		await using scarce = await startRouted(cluster, [], { ...SCARCE, checkout_timeout: 10_000 });
		const client = await connect(scarce);
		await client.query("BEGIN");
		client.send(frontend.query("SELECT pg_sleep(60)"));
		client.reset();
		await using other = await connect(scarce);
		expect(errorOf(await other.query("INSERT INTO t SELECT 1 WHERE false"))).toBeNull();
		await until(
			async () => (await backends(cluster)).every(({ state }) => state === "idle"),
			"all servers to be out of their transactions",
		);
	});

	test("idles: client_idle_in_transaction_timeout counts, client_idle_timeout does not", async () => {
		await using quick = await startRouted(cluster, [], { client_idle_in_transaction_timeout: 300 });
		await using client = await connect(quick);
		await client.query("BEGIN");
		const words = await client.closed;
		expect(words.map(({ code, body }) => code + body.toString()).join()).toContain(
			"client_idle_in_transaction_timeout",
		);

		await using idle = await startRouted(cluster, [], { client_idle_timeout: 300 });
		await using holder = await connect(idle);
		await using idler = await connect(idle);
		await holder.query("BEGIN");
		await idler.closed;
		expect((await holder.query("SELECT 1")).status).toBe("T");
	});

	test("a cancel while it is held does nothing; while its first statement waits, the transaction fails", async () => {
		await using scarce = await startRouted(cluster, [], { ...SCARCE, checkout_timeout: 20_000 });
		await using client = await connect(scarce);
		await using other = await connect(scarce);
		const cancel = async () => {
			await using canceller = await RawClient.open({ port: scarce.port });
			canceller.send(frontend.cancelRequest(client.backendPid, client.backendKey));
			await canceller.closed;
		};
		await client.query("BEGIN");
		await cancel();
		expect((await client.query("SELECT 1 FROM t FOR UPDATE")).status).toBe("T");
		expect((await client.query("COMMIT")).status).toBe("I");

		await other.query("BEGIN");
		await other.query("LOCK TABLE t");
		await client.query("BEGIN");
		client.send(frontend.query("INSERT INTO t VALUES (1)"));
		await until(async () => {
			await using console = await admin(scarce);
			return (await console.query("SHOW CLIENTS")).rows.some((row) => row.includes("waiting"));
		}, "the client to wait");
		await cancel();
		const cancelled = await client.result();
		expect([errorOf(cancelled)?.[0], cancelled.status]).toEqual(["57014", "E"]);
		expect(errorOf(await client.query("SELECT 1"))?.[0]).toBe(ABORTED);
		expect((await client.query("ROLLBACK")).tags).toEqual(["ROLLBACK"]);
		await other.query("ROLLBACK");
		expect(await cluster.primary.sql("SELECT count(*)::int AS n FROM t")).toEqual([{ n: 0 }]);
	});

	test("no server to be had: it has failed, until its end; COMMIT is ROLLBACK", async () => {
		await using scarce = await startRouted(cluster, [], SCARCE);
		await using client = await connect(scarce);
		await using other = await connect(scarce);
		await other.query("BEGIN");
		await other.query("LOCK TABLE t IN ACCESS SHARE MODE");
		const fail = async () => {
			await client.query("BEGIN");
			const failed = await client.query("INSERT INTO t VALUES (1)");
			expect([errorOf(failed)?.[0], failed.status]).toEqual(["53300", "E"]);
		};
		await fail();
		for (const result of [
			await client.query("SELECT 1"),
			await client.extended("SELECT 1"),
			await client.query("BEGIN"),
		])
			expect([errorOf(result)?.[0], result.status]).toEqual([ABORTED, "E"]);
		client.send(frontend.functionCall(177, ["1", "2"]));
		expect(errorOf(await client.result())?.[0]).toBe(ABORTED);
		expect(errorOf(await client.query("SET pgdog.role = 'replica'"))?.[0]).toBe(ABORTED);
		const committed = await client.query("COMMIT");
		expect([committed.tags, committed.status]).toEqual([["ROLLBACK"], "I"]);

		await fail();
		expect((await client.query("ROLLBACK AND CHAIN")).status).toBe("T");
		expect((await client.extended("ROLLBACK")).tags).toEqual(["ROLLBACK"]);

		await fail();
		await other.query("COMMIT");
		const results = await pipelined(
			client,
			3,
			frontend.query("SELECT 2"),
			frontend.query("ROLLBACK"),
			frontend.query("SELECT count(*) FROM t"),
		);
		expect(results.map(({ status }) => status)).toEqual(["E", "I", "I"]);
		expect(results[2]?.rows).toEqual([["0"]]);
	});

	test("a batch that cannot be served is skipped to its Sync", async () => {
		await using scarce = await startRouted(cluster, [], SCARCE);
		await using client = await connect(scarce);
		await using other = await connect(scarce);
		await other.query("BEGIN");
		await other.query("LOCK TABLE t IN ACCESS SHARE MODE");
		const begin = [frontend.parse("BEGIN"), frontend.bind(), frontend.execute(), frontend.sync()];
		const write = [frontend.parse("INSERT INTO t VALUES (1)"), frontend.bind(), frontend.execute()];
		const results = await pipelined(client, 2, ...begin, ...write, ...write, frontend.sync());
		expect(results.map(({ status, errors }) => [status, errors.length])).toEqual([
			["T", 0],
			["E", 1],
		]);
		expect((await client.extended("ROLLBACK")).status).toBe("I");
		await other.query("ROLLBACK");
		expect(errorOf(await client.extended("INSERT INTO t SELECT 1 WHERE false"))).toBeNull();
	});

	test("the graceful stop waits for it", async () => {
		await using mine = await startRouted(cluster);
		await using client = await connect(mine);
		await using failed = await connect(mine);
		await client.query("BEGIN");
		await failed.query("BEGIN");
		mine.signal("SIGTERM");
		await mine.waitForLog(/shutting down|stopping|SIGTERM/i);
		expect((await client.query("SELECT 1")).status).toBe("T");
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		await client.closed;
		expect((await failed.query("ROLLBACK")).tags).toEqual(["ROLLBACK"]);
		await failed.closed;
		expect(await mine.exited).toBe(0);
	});

	test("a reload that takes the replicas away lets it go on, also when it has failed", async () => {
		await using mine = await startRouted(cluster, [], SCARCE);
		await using client = await connect(mine);
		await using failed = await connect(mine);
		await using other = await connect(mine);
		await other.query("BEGIN");
		await other.query("LOCK TABLE t IN ACCESS SHARE MODE");
		await failed.query("BEGIN");
		expect((await failed.query("DELETE FROM t")).status).toBe("E");
		await other.query("COMMIT");
		await client.query("BEGIN READ ONLY");
		await reload(mine, routedOptions(cluster, [], SCARCE, ["primary"]).config);
		expect(errorOf(await failed.query("SELECT 1"))?.[0]).toBe(ABORTED);
		expect((await failed.query("ROLLBACK")).tags).toEqual(["ROLLBACK"]);
		expect(await one(client, `SELECT ${PORT}`)).toBe(String(cluster.primary.port));
		expect(await one(client, "SHOW transaction_read_only")).toBe("on");
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		for (const who of [client, failed]) {
			expect((await who.query("BEGIN")).status).toBe("T");
			expect((await who.query("ROLLBACK")).status).toBe("I");
		}
		await reload(mine, routedOptions(cluster, [], SCARCE).config);
		expect(await placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary", "replica"]);
	});

	test("its user leaves the configuration: the client goes when it ends", async () => {
		const options = routedOptions(cluster);
		const users = options.users as { name: string; database: string; password: string }[];
		await using mine = await startRouted(cluster, [], {}, undefined, {
			users: [...users, { name: "pgdog_md5", database: "pgdog", password: "pgdog" }],
		});
		await using client = await connect(mine, { user: "pgdog_md5" });
		await client.query("BEGIN");
		mine.writeUsers(users);
		await reload(mine, options.config);
		expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		const words = await client.closed;
		expect(words.map(({ body }) => body.toString()).join()).toContain("57P01");
	});

	test("a text that fails on its server fails the transaction", async () => {
		await using client = await connect(proxy);
		await client.query("BEGIN");
		await client.query("SET TRANSACTION READ ONLY, READ WRITE");
		await client.query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED");
		expect((await client.query("SELECT 1")).status).toBe("T");
		expect(errorOf(await client.query("SET TRANSACTION SNAPSHOT 'none'"))?.[0]).toBe("25001");
		expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
	});
});

// What libpq's PQprepare, psycopg, JDBC and Bun's driver do: a Flush or Sync before anything is run.
describe.each(["extended", "disabled"])(
	"a write that is parsed or described before it is run, prepared_statements = %s",
	(how) => {
		const WRITE = "INSERT INTO t SELECT 1 WHERE false";
		const { parse, describe: describes, bind, execute, flush, sync } = frontend;
		const run = (sql: string, statement = "") => [parse(sql, statement), bind({ statement }), execute()];
		/** The client has the unnamed statement, and where names outlive a transaction that one, too. */
		const names = how === "extended" ? ["", "write"] : [""];
		const READS = "/* pgdog_role: replica */ SELECT 1";
		/** Under a name, so that the unnamed statement stays. */
		const BEGIN = [...run("BEGIN", "begin"), frontend.close("S", "begin"), sync()];

		/** Sends the parts, each when the one before is answered; expects no error. */
		async function say(client: RawClient, ...parts: Uint8Array[][]): Promise<void> {
			for (const part of parts) {
				client.send(...part);
				const last = part.at(-1)![0];
				if (last === 0x48) await answered(client, part);
				else expect(errorOf(await client.result())).toBeNull();
			}
		}

		/** As many answers as a part that ends in Flush has. */
		async function answered(client: RawClient, part: Uint8Array[]): Promise<void> {
			const ends: Record<string, string> = { P: "1", B: "2", D: "nT", E: "CDI", C: "3" };
			for (const message of part.slice(0, -1)) {
				const wanted = ends[String.fromCharCode(message[0]!)]!;
				for (;;) {
					const { code, body } = await client.next();
					if (code === "E") throw new Error(body.toString("latin1").replaceAll("\0", " "));
					if (wanted.includes(code)) break;
				}
			}
		}

		test.each(["conservative", "aggressive"])(
			"goes to the primary from the first message on, %s",
			async (read_write_strategy) => {
				await using routed = await startRouted(cluster, [], { read_write_strategy, prepared_statements: how });
				await using client = await connect(routed);
				for (let i = 0; i < 12; i++) {
					for (const statement of names) {
						const [prepare, describe] = [parse(WRITE, statement), describes("S", statement)];
						const use = [bind({ statement }), execute(), sync()];
						const close = frontend.close("S", statement);
						// In and out of a transaction that no server knows of.
						for (const begin of [[], [BEGIN]]) {
							await say(client, ...begin, [prepare, describe, flush()], use, [close, sync()]);
							await say(client, [frontend.query("ROLLBACK")]);
							// In an earlier batch, and then described in one of its own, with a Flush or a Sync.
							for (const end of [flush(), sync()]) {
								await say(client, [close, prepare, sync()]);
								// Somebody else's turn, and another server's.
								if (statement !== "") await say(client, [frontend.query(READS)]);
								await say(client, ...begin, [describe, end], use, [close, sync()]);
								await say(client, [frontend.query("ROLLBACK")]);
							}
						}
						// Behind a read, or a BEGIN, in the same batch.
						for (const first of ["SELECT 1", "BEGIN"]) {
							await say(client, [...run(first, "first"), close, prepare, describe, flush()], use);
							await say(client, [frontend.query("ROLLBACK")], [frontend.close("S", "first"), close, sync()]);
						}
					}
				}
			},
		);

		test("a read that is described goes to both", async () => {
			await using routed = await startRouted(cluster, [], { prepared_statements: how });
			await using client = await connect(routed);
			const places = await placesOf(cluster, TRIES, async () => {
				await say(client, [parse(`SELECT ${PORT}`), sync()]);
				await say(client, [describes("S"), flush()]);
				return (await pipelined(client, 1, bind(), execute(), sync()))[0]!;
			});
			expect(places).toEqual(["primary", "replica"]);
		});

		test("is remembered as a write when it is run in a later batch", async () => {
			const window = { read_after_write: "primary", read_after_write_window: 600_000 };
			await using routed = await startRouted(cluster, [], { prepared_statements: how, ...window });
			await using client = await connect(routed);
			await say(client, [frontend.query("BEGIN")], [parse(WRITE, "w"), describes("S", "w"), sync()]);
			await say(client, [bind({ statement: "w" }), execute(), sync()], [frontend.query("COMMIT")]);
			expect(await placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary"]);
		});
	},
);

describe("a transaction that runs", () => {
	test("never moves, whatever its statements are; the aggressive strategy's write on a replica is refused there", async () => {
		await using aggressive = await startRouted(cluster, [], { read_write_strategy: "aggressive" });
		await using client = await connect(aggressive);
		const first = new Set<string>();
		for (let i = 0; i < TRIES; i++) {
			await client.query("BEGIN");
			const [where] = await placesOf(cluster, 1, () => client.query(`SELECT ${PORT}`));
			first.add(where!);
			expect(await placesOf(cluster, 3, () => client.extended(`SELECT ${PORT}, $1::int`, ["1"]))).toEqual([where!]);
			const write = await client.query("INSERT INTO t SELECT 1 WHERE false");
			expect(errorOf(write)?.[0]).toBe(where === "replica" ? "25006" : undefined);
			if (where === "primary")
				expect(await placesOf(cluster, 1, () => client.query(`SELECT ${PORT}`))).toEqual([where]);
			await client.query("ROLLBACK");
		}
		expect([...first].sort()).toEqual(["primary", "replica"]);
		const begins = async (begin: string, statement: string) => {
			await client.query(begin);
			expect(errorOf(await client.query(statement))).toBeNull();
			const places = await placesOf(cluster, 1, () => client.query(`SELECT ${PORT}`));
			await client.query("ROLLBACK");
			return places;
		};
		for (let i = 0; i < 12; i++) {
			expect(await begins("BEGIN", "INSERT INTO t SELECT 1 WHERE false")).toEqual(["primary"]);
			expect(await begins("BEGIN", "SET LOCAL work_mem = '1MB'")).toEqual(["primary"]);
			expect(await begins("BEGIN", "SELECT 1 FROM t FOR UPDATE")).toEqual(["primary"]);
			expect(await begins("BEGIN READ WRITE", "SELECT 1")).toEqual(["primary"]);
			expect(await begins("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT 1")).toEqual(["primary"]);
		}
	});

	test("statements of one batch behind its BEGIN decide for it too", async () => {
		await using aggressive = await startRouted(cluster, [], { read_write_strategy: "aggressive" });
		await using client = await connect(aggressive);
		const part = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute()];
		const run = async (first: string, statement: string) => {
			const [result] = await pipelined(client, 1, ...part(first), ...part(statement), frontend.sync());
			await client.query("ROLLBACK");
			return result!;
		};
		expect(await placesOf(cluster, TRIES, () => run("BEGIN", `SELECT ${PORT}`))).toEqual(["primary", "replica"]);
		expect(await placesOf(cluster, 12, () => run("BEGIN READ WRITE", `SELECT ${PORT}`))).toEqual(["primary"]);
		for (let i = 0; i < 12; i++) expect(errorOf(await run("BEGIN", "INSERT INTO t SELECT 1 WHERE false"))).toBeNull();
	});

	test("session pooling: a session that begins with a read can write", async () => {
		await using session = await startRouted(cluster, [], { pooler_mode: "session" });
		for (let i = 0; i < 12; i++) {
			await using client = await connect(session);
			expect(await placesOf(cluster, 1, () => client.query(`SELECT ${PORT}`))).toEqual(["primary"]);
			expect(errorOf(await client.query("INSERT INTO t SELECT 1 WHERE false"))).toBeNull();
		}
		await using asked = await connect(session, { parameters: { "pgdog.role": "replica" } });
		expect(await placesOf(cluster, 3, () => asked.query(`SELECT ${PORT}`))).toEqual(["replica"]);
		expect((await asked.query("BEGIN")).tags).toEqual(["BEGIN"]);
		expect(errorOf(await asked.query("INSERT INTO t VALUES (1)"))?.[0]).toBe("25006");
	});

	test("a query under way in it can be cancelled", async () => {
		await using client = await connect(proxy);
		await client.query("BEGIN");
		client.send(frontend.query("SELECT pg_sleep(60), 'to be cancelled'"));
		await untilRunning(cluster, "to be cancelled");
		await using canceller = await RawClient.open({ port: proxy.port });
		canceller.send(frontend.cancelRequest(client.backendPid, client.backendKey));
		const result = await client.result();
		expect([errorOf(result)?.[0], result.status]).toEqual(["57014", "E"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
	});
});
