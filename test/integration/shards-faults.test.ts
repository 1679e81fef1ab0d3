// Several shards, and what goes wrong: clients that vanish, send rubbish or do not read, servers that are down, die or hang.
// After each another client finds a clean session on every shard's only server, and no server is lost.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { cuts, type Exchange, sessions } from "../faults/exchanges.ts";
import { inSession } from "../faults/malformed.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until, within } from "../support/until.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { HERE, intact, letters, onEach, sane, sqlstates, startSharded, startShards } from "./sharded.ts";
import { connect, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
let witness: RawClient;

beforeAll(async () => {
	cluster = await startShards();
	proxy = await startSharded(cluster, { general: { auth_type: "trust" } });
	witness = await connect(proxy);
});

afterAll(async () => {
	witness?.reset();
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

/** The second shard on a server of its own. */
async function startOther(): Promise<Cluster> {
	const other = await startPostgres({ databases: ["s1"] });
	await other.primary.sql(HERE, { user: "pgdog", database: "s1" });
	return other;
}

/** Runs each case and tells of every failure. */
async function each<T>(cases: T[], name: (one: T) => string, run: (one: T) => Promise<void>): Promise<void> {
	const failures: string[] = [];
	for (const one of cases) {
		try {
			await within(run(one), name(one), 12_000);
			await intact(cluster, witness, name(one));
			sane(proxy);
		} catch (error) {
			failures.push(`* ${name(one)}: ${(error as Error).message}`);
			if (failures.length === 3) break;
			witness.reset();
			witness = await connect(proxy);
		}
	}
	if (failures.length > 0) throw new Error(`${failures.length} of ${cases.length}:\n${failures.join("\n\n")}`);
}

interface Vanishing {
	exchange: Exchange;
	step: number;
	bytes: number;
	answered: boolean;
	reset: boolean;
}

function vanishings(exchange: Exchange): Vanishing[] {
	const all: Vanishing[] = [];
	for (const [step, { send, await: code }] of exchange.steps.entries())
		for (const [i, bytes] of cuts(send, false).entries()) {
			// What is half of a message is the same to one shard (test/faults); every third will do.
			if (bytes < send.length && i % 3 !== step % 3) continue;
			const whole = bytes === send.length;
			all.push({ exchange, step, bytes, answered: false, reset: all.length % 2 === 0 });
			if (whole && code !== undefined) all.push({ exchange, step, bytes, answered: true, reset: all.length % 2 === 0 });
		}
	return all;
}

async function vanish({ exchange, step, bytes, answered, reset }: Vanishing): Promise<void> {
	const client = await connect(proxy, { parameters: exchange.parameters ?? {} });
	for (const { send, await: code } of exchange.steps.slice(0, step)) {
		client.send(send);
		if (code) await client.until(code);
	}
	const last = exchange.steps[step]!;
	client.send(last.send.subarray(0, bytes));
	if (answered) await client.until(last.await!);
	else await Bun.sleep(0);
	if (reset) client.reset();
	else client.close();
}

/** What concerns one server alone is the same with several: it is tried in test/faults. */
const ONE_SERVER = [
	"settings",
	"what cannot be tracked",
	"a cursor WITH HOLD",
	"an empty query and an error",
	"a notice",
];

const gone = (shard: number) => `/* pgdog_shard: ${shard} */ INSERT INTO kept VALUES ('gone')`;
const run = (sql: string) => concat(f.parse(sql), f.bind(), f.execute());

/** Transactions that come to their shards one after another. */
const JOINING: Exchange[] = [
	{
		name: "a transaction of one shard and then others",
		parameters: {},
		steps: [
			{ send: f.query("BEGIN"), await: "Z" },
			{ send: f.query(gone(1)), await: "Z" },
			{ send: f.query(gone(0)), await: "Z" },
			{ send: f.query("INSERT INTO kept VALUES ('gone')"), await: "Z" },
			{ send: f.query("/* pgdog_shard: 2 */ SELECT 1/0"), await: "Z" },
			{ send: f.query(gone(0)), await: "Z" },
		],
	},
	{
		name: "a transaction of one shard and then others, in batches",
		parameters: {},
		steps: [
			{ send: concat(run("BEGIN"), run(gone(2)), f.sync()), await: "Z" },
			{ send: concat(run(gone(0)), f.flush()), await: "C" },
			{ send: concat(run("INSERT INTO kept VALUES ('gone')"), f.flush()), await: "C" },
			{ send: concat(run("ROLLBACK"), f.flush()), await: "C" },
			{ send: f.sync(), await: "Z" },
		],
	},
];

describe("a client that vanishes anywhere in", () => {
	for (const exchange of [...sessions.filter(({ name }) => !ONE_SERVER.includes(name)), ...JOINING])
		test(exchange.name, async () => {
			await each(
				vanishings(exchange),
				({ step, bytes, answered, reset }) =>
					`${bytes} bytes of step ${step + 1}${answered ? ", answered" : ""}, by ${reset ? "reset" : "FIN"}`,
				vanish,
			);
			const left = await onEach(cluster, "SELECT (SELECT count(*) FROM kept) + (SELECT count(*) FROM copied)");
			// A COMMIT that was sent whole is carried out, on all shards.
			expect(left).toEqual(Array(3).fill(exchange.commits === undefined ? "0" : left[0]));
			await onEach(cluster, "TRUNCATE kept, copied");
		});
});

/** Each begins in one of the phases of a session; `unless` is what no answer is owed to. */
const phases: { name: string; begin: (client: RawClient) => Promise<void> }[] = [
	{ name: "between requests", begin: async () => {} },
	{
		name: "in a transaction",
		begin: async (client) => {
			await client.query("BEGIN");
		},
	},
	{
		name: "in a transaction of one shard",
		begin: async (client) => {
			await client.query("BEGIN");
			await client.query("/* pgdog_shard: 1 */ SELECT 1");
		},
	},
	{
		name: "in a failed transaction",
		begin: async (client) => {
			await client.query("BEGIN; SELECT 1/0");
		},
	},
	{
		name: "in the middle of a batch",
		begin: async (client) => {
			client.send(f.parse("SELECT 1"), f.flush());
			await client.until("1");
		},
	},
	{
		name: "in a COPY",
		begin: async (client) => {
			client.send(f.query("COPY copied FROM STDIN"));
			await client.until("G");
		},
	},
];

describe("rubbish", () => {
	for (const [turn, { name, begin }] of phases.entries())
		test(`${name} is answered or ends the connection, and harms nobody else`, async () => {
			await each(
				// All of it in the first of the phases, half of it in each of the others.
				inSession.filter((_, i) => turn === 0 || i % 2 === turn % 2),
				(bad) => bad.name,
				async (bad) => {
					const client = await connect(proxy);
					await begin(client);
					const from = client.received.length;
					client.send(bad.send);
					if (!bad.waits) {
						// What follows ends whatever was begun: the end of a COPY, of a batch, of a transaction.
						client.send(f.copyFail("enough"), f.sync(), f.query("ROLLBACK; SELECT 'end'"));
						await until(
							() =>
								client.ended ||
								client.received.slice(from).some(({ code, body }) => code === "D" && body.includes("end")),
							`an end; there was ${client.received.slice(from).map(({ code }) => code)}`,
							3_000,
						);
						const fatal = client.received.slice(from).filter(({ code, body }) => code === "E" && body[1] === 70);
						expect(fatal.length).toBe(client.ended ? 1 : 0);
					}
					client.reset();
				},
			);
		});
});

describe("servers", () => {
	test("that are terminated in mid-answer, in a transaction and between requests: one error, no hang", async () => {
		const kill = (database: string) =>
			cluster.primary.sql(
				`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgdog' AND datname = '${database}'`,
			);
		for (const database of ["s0", "s1", "s2"]) {
			await using running = await connect(proxy);
			running.send(f.query("SELECT pg_sleep(20) FROM here"));
			await untilRunning(cluster, "pg_sleep", 3);
			await kill(database);
			const last = await running.closed;
			expect(last.filter(({ code }) => code === "E")).toHaveLength(1);
			expect(last.map(({ body }) => body.toString()).join()).toContain("57P01");
			await until(async () => (await onEach(cluster, ACTIVE)).every((count) => count === 0), "no pg_sleep");

			await using open = await connect(proxy);
			await open.query("BEGIN; INSERT INTO things VALUES (1)");
			await kill(database);
			const words = await open.closed;
			expect(words.filter(({ code }) => code === "E")).toHaveLength(1);
			expect(words.map(({ body }) => body.toString()).join()).toContain("57P01");
			expect(await onEach(cluster, "SELECT count(*)::int FROM things")).toEqual([0, 0, 0]);

			await using idle = await connect(proxy);
			expect((await idle.query("SELECT 1 FROM here")).rows).toHaveLength(3);
			await kill(database);
			expect((await idle.query("SELECT 1 FROM here")).rows).toHaveLength(3);
			await intact(cluster, witness, `the end of ${database}`);
		}
		sane(proxy);
	});

	test("of one shard that are down fail the login and the request, and serve again when they are back", async () => {
		await using other = await startOther();
		await using half = await startSharded(cluster, {
			ports: { 1: other.port },
			general: { checkout_timeout: 500, connect_timeout: 500, client_connection_recovery: "recover" },
		});
		await using before = await connect(half);
		expect((await before.query("SELECT 1 FROM here")).rows).toHaveLength(3);
		before.send(f.query("SELECT pg_sleep(20) FROM here"));
		await untilRunning(cluster, "pg_sleep", 2);
		await using waiting = await connect(half);
		await other.primary.kill();
		const last = await before.closed;
		expect(last.filter(({ code }) => code === "E")).toHaveLength(1);
		const refused = await waiting.query("SELECT 1 FROM here");
		expect([letters(refused), refused.errors.length, refused.status]).toEqual(["EZ", 1, "I"]);
		const begun = await waiting.query("BEGIN; SELECT 1 FROM here");
		expect([begun.errors.length, begun.status]).toEqual([1, "I"]);
		expect((await waiting.query("BEGIN")).status).toBe("T");
		const failed = await waiting.query("SELECT 1 FROM here");
		expect([failed.errors.length, failed.status]).toEqual([1, "E"]);
		expect((await waiting.query("ROLLBACK")).status).toBe("I");
		await other.primary.start();
		await until(async () => (await waiting.query("SELECT 1 FROM here")).rows.length === 3, "the shard to be back");
		sane(half);
		await half.stop("SIGKILL");
		await until(async () => (await onEach(cluster, ACTIVE)).every((count) => count === 0), "no pg_sleep");
	});

	test("of one shard that were never there fail the login with one error", async () => {
		await using none = await startSharded(cluster, {
			ports: { 2: freePort() },
			general: { checkout_timeout: 300, connect_timeout: 300 },
		});
		const client = await RawClient.open({ port: none.port });
		await rejects(client.login({ user: "pgdog", password: "pgdog", database: "pgdog" }), "58000");
		expect((await client.closed).filter(({ code }) => code === "E")).toEqual([]);
		sane(none);
	});

	test("of one shard that hang can be waited for, or left", async () => {
		await using other = await startOther();
		await using half = await startSharded(cluster, { ports: { 1: other.port } });
		await using waiting = await connect(half);
		expect((await waiting.query("SELECT 1 FROM here")).rows).toHaveLength(3);
		other.primary.pause();
		waiting.send(f.query("SELECT 1 FROM here"));
		await using leaving = await connect(half);
		leaving.send(f.query("SELECT 2 FROM here"));
		await Bun.sleep(50);
		leaving.reset();
		other.primary.resume();
		expect((await waiting.result()).rows).toHaveLength(3);
		expect((await waiting.query("SELECT 1 FROM here")).rows).toHaveLength(3);
		sane(half);
	});
});

const ACTIVE =
	"SELECT count(*)::int FROM pg_stat_activity WHERE usename = 'pgdog' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid() AND state = 'active'";

describe("a slow reader", () => {
	const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${proxy.pid}/status`, "utf8"))![1]) * 1024;

	test("of three hundred megabytes from three shards costs little memory, and gets all of them", async () => {
		const slow = await connect(proxy);
		await slow.query("SELECT 1");
		const before = memory();
		slow.pause();
		slow.send(f.query("SELECT repeat('x', 1000) FROM here, generate_series(1, 100000)"));
		await untilRunning(cluster, "generate_series", 3);
		await Bun.sleep(500);
		expect((memory() - before) >> 20).toBeLessThan(60);
		slow.reset();
		await intact(cluster, witness, "a slow reader's end");

		await using patient = await connect(proxy, { timeout: 30_000 });
		patient.pause();
		patient.send(f.query("SELECT repeat('x', 1000) FROM here, generate_series(1, 10000)"));
		await Bun.sleep(200);
		patient.resume();
		const result = await patient.result();
		expect([result.rows.length, result.tags]).toEqual([30_000, ["SELECT 30000"]]);
	});

	test("that sends requests and reads nothing is stopped", async () => {
		const flooding = await connect(proxy);
		flooding.pause();
		const before = memory();
		const one = concat(f.query("SELECT repeat('y', 10000) FROM here"));
		flooding.send(concat(...Array.from({ length: 20_000 }, () => one)));
		await Bun.sleep(500);
		expect((memory() - before) >> 20).toBeLessThan(60);
		flooding.reset();
		await intact(cluster, witness, "a flood");
		sane(proxy);
	});

	// The fast one was stopped, and nobody started it again.
	test("is not what a shard far ahead of the others is: that goes on when they have caught up", async () => {
		await using client = await connect(proxy, { timeout: 20_000 });
		const sql =
			"SELECT pg_sleep(CASE current_database() WHEN 's2' THEN 0.3 ELSE 0 END) FROM here; SELECT repeat('z', 1000) FROM here, generate_series(1, 5000)";
		const result = await client.query(sql);
		expect(result.tags).toEqual(["SELECT 3", "SELECT 15000"]);
	});

	test("a large COPY to a shard that does not read does not grow", async () => {
		await using holder = await connect(proxy);
		await onEach(cluster, "CREATE TABLE IF NOT EXISTS large (line text)");
		await using other = await startOther();
		await other.primary.sql("CREATE TABLE large (line text)", { user: "pgdog", database: "s1" });
		await using half = await startSharded(cluster, { ports: { 1: other.port } });
		await using client = await connect(half, { timeout: 30_000 });
		client.send(f.query("COPY large FROM STDIN"));
		await client.until("G");
		const size = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${half.pid}/status`, "utf8"))![1]) * 1024;
		const before = size();
		other.primary.pause();
		const data = f.copyData(`${"x".repeat(999)}\n`.repeat(1000));
		for (let i = 0; i < 40; i++) client.send(data);
		await Bun.sleep(300);
		expect((size() - before) >> 20).toBeLessThan(25);
		other.primary.resume();
		client.send(f.copyDone());
		expect((await client.result()).tags).toEqual(["COPY 120000"]);
		holder.close();
	});
});

test("nothing of all that has failed inside the proxy", async () => {
	expect(sqlstates(await witness.query("SELECT 1"))).toEqual([]);
	sane(proxy);
});
