// PostgreSQL dies, freezes, refuses or comes back, at every moment of a client's life: the client gets an error or the end of the
// connection in time, never a hang; and the proxy serves again as soon as PostgreSQL does, without a restart of its own.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { admin, show } from "../integration/support.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { until, within } from "../support/until.ts";
import { concat, frontend } from "../support/wire-frames.ts";
import { Stage } from "./stage.ts";

setDefaultTimeout(60_000);

const QUIET = { log_connections: false };
const { parse, bind, execute, flush, query } = frontend;

/** Throws unless the end came with a FATAL of the classes that PostgreSQL and libpq use for lost connections, or without a word. */
function expectLost(result: QueryResult, seen: RawClient): void {
	expect(seen.ended).toBe(true);
	for (const error of result.errors) {
		expect(error.S).toMatch(/FATAL|PANIC/);
		expect(error.C).toMatch(/^(57P0[1235]|08...)$/);
	}
}

/** The query for which the server sleeps has reached it. */
function sleeps(stage: Stage): Promise<void> {
	const sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(20)'";
	return until(async () => (await stage.look(sql))[0] === "1", "the query to run");
}

const MOMENTS: { name: string; begin: (client: RawClient, stage: Stage) => Promise<unknown> }[] = [
	{
		name: "in the middle of a query",
		begin: async (client, stage) => {
			client.send(query("SELECT pg_sleep(20)"));
			await sleeps(stage);
		},
	},
	{
		name: "in the middle of a batch",
		begin: async (client, stage) => {
			client.send(parse("SELECT 1"), bind(), execute(), flush());
			await client.until("C");
			client.send(parse("SELECT pg_sleep(20)"), bind(), execute(), frontend.sync());
			await sleeps(stage);
		},
	},
	{
		name: "in the middle of the rows",
		begin: async (client) => {
			client.send(query("SELECT repeat('r', 500), pg_sleep(0.001) FROM generate_series(1, 100000)"));
			await client.until("D");
		},
	},
	{
		name: "in the middle of one row",
		begin: async (client) => {
			client.send(query("SELECT repeat('x', 50000000)"));
			await client.until("T");
			client.pause();
			await Bun.sleep(30);
			setTimeout(() => client.resume(), 100);
		},
	},
	{
		name: "during COPY in",
		begin: async (client) => {
			client.send(query("COPY copied FROM STDIN"));
			await client.until("G");
			client.send(frontend.copyData("one\n"));
			await Bun.sleep(5);
		},
	},
	{
		name: "during COPY out",
		begin: async (client) => {
			client.send(query("COPY (SELECT repeat('r', 500), pg_sleep(0.001) FROM generate_series(1, 100000)) TO STDOUT"));
			await client.until("d");
		},
	},
	{ name: "in an idle transaction", begin: (client) => client.query("BEGIN") },
	{
		name: "in a failed transaction",
		begin: async (client) => {
			await client.query("BEGIN");
			await client.query("SELECT 1/0");
		},
	},
];

describe("a server that ends", () => {
	let stage: Stage;
	beforeAll(async () => {
		stage = await Stage.start({ general: QUIET });
		await stage.look("CREATE TABLE copied (line text); ALTER TABLE copied OWNER TO pgdog; SELECT 1");
	});
	afterAll(() => stage?.[Symbol.asyncDispose]());

	for (const { name, begin } of MOMENTS) {
		test(`a backend that is terminated ${name} ends its client's connection and no other`, async () => {
			await using client = await stage.client();
			await begin(client, stage);
			// It is gone when this returns: during COPY it would else take the Query for data and say so first.
			await stage.look("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgdog'");
			client.send(query("SELECT 'after'"));
			const result = await within(client.result(), "the end", 5_000);
			expectLost(result, client);
			expect(result.rows.flat()).not.toContain("after");
			await stage.intact(name);
		});
	}

	test("a backend that is terminated while nobody uses it is noticed before it is lent", async () => {
		for (let i = 0; i < 10; i++) {
			await stage.intact("the round before");
			// The proxy has used it for its own question about what that has set, which is answered by now.
			expect((await (await stage.witness()).query("SELECT 1")).errors).toEqual([]);
			await stage.look("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgdog'");
			await untilNoticed();
		}
		await stage.intact("ten terminated idle backends");
	});

	for (const { name, begin } of MOMENTS) {
		test(`a PostgreSQL that is killed ${name} costs the clients it served, and the proxy serves when it is back`, async () => {
			await using client = await stage.client();
			await using idle = await stage.client();
			await begin(client, stage);
			const waiting = idle.query("SELECT 'waited'");
			await stage.cluster.primary.kill();
			client.send(query("SELECT 'after'"));
			expectLost(await within(client.result(), "the end", 5_000), client);
			await stage.cluster.primary.start();
			// It waited in the queue, and its checkout_timeout of five seconds is not over.
			const served = await within(waiting, "the one who waited", 8_000);
			expect(served.rows).toEqual([["waited"]]);
			await stage.intact(name);
			stage.sane();
		});
	}

	/** Until the proxy has read that its servers are gone: what it writes to one before that is lost with it, as to any peer. */
	async function untilNoticed(): Promise<void> {
		const console = await admin(stage.proxy);
		await until(async () => (await show(console, "SHOW SERVERS")).length === 0, "all servers to be gone");
		console.close();
	}

	test("a PostgreSQL that is restarted while clients are idle is not noticed by them", async () => {
		const clients = await Promise.all(
			Array.from({ length: 5 }, () => stage.client({ parameters: { "app.who": "me" } })),
		);
		for (const mode of ["fast", "immediate"] as const) {
			for (const client of clients) await client.query("SELECT 1");
			await stage.cluster.primary.stop(mode);
			await untilNoticed();
			await stage.cluster.primary.start();
			for (const client of clients) {
				expect((await client.query("SELECT current_setting('app.who')")).rows).toEqual([["me"]]);
			}
		}
		for (const client of clients) client.reset();
		await stage.intact("restarts");
	});

	test("a PostgreSQL that is down makes clients wait up to checkout_timeout, and those it comes back to in time are served", async () => {
		const clients = await Promise.all(Array.from({ length: 5 }, () => stage.client()));
		await stage.cluster.primary.stop();
		await untilNoticed();
		const results = clients.map((client) => client.query("SELECT 'back'"));
		await Bun.sleep(700);
		await stage.cluster.primary.start();
		for (const result of await within(Promise.all(results), "all answers", 8_000))
			expect(result.rows).toEqual([["back"]]);
		for (const client of clients) client.reset();
		await stage.intact("a time without PostgreSQL");
		stage.sane();
	});
});

test("a proxy that is killed leaves no connection, transaction or lock behind, and its successor serves", async () => {
	await using stage = await Stage.start({ pool: 4, general: QUIET });
	const clients = await Promise.all(Array.from({ length: 8 }, () => stage.client()));
	await stage.look("CREATE TABLE held (who text); ALTER TABLE held OWNER TO pgdog; SELECT 1");
	await clients[0]!.query("BEGIN; LOCK TABLE held");
	clients[1]!.send(query("BEGIN; INSERT INTO held VALUES ('gone')"));
	clients[2]!.send(query("SELECT repeat('x', 100000000)"));
	for (const client of clients.slice(3)) client.send(query("SELECT 1"));
	await Bun.sleep(20);
	stage.proxy.signal("SIGKILL");
	await stage.proxy.exited;
	await within(
		until(() => clients.every((client) => client.ended), "every client to see it"),
		"every client to see it",
	);
	await until(async () => {
		const left = await stage.look("SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgdog'");
		return left[0] === "0";
	}, "PostgreSQL to see it");
	await stage.renew();
	await stage.intact("a killed proxy");
	expect(await stage.look("SELECT count(*) FROM held")).toEqual(["0"]);
});

describe("a server that is down or frozen for longer than the timeouts", () => {
	let stage: Stage;
	const general = {
		...QUIET,
		connect_timeout: 400,
		checkout_timeout: 1_000,
		query_timeout: 1_500,
		healthcheck_interval: 1,
		healthcheck_timeout: 400,
		rollback_timeout: 400,
	};
	beforeAll(async () => {
		stage = await Stage.start({ general });
	});
	afterAll(async () => {
		stage?.cluster.primary.resume();
		await stage?.[Symbol.asyncDispose]();
	});

	test("a client whose checkout takes too long is told so, and a new one is served once PostgreSQL is back", async () => {
		await using client = await stage.client();
		await client.query("SELECT 1");
		await stage.cluster.primary.stop();
		const start = performance.now();
		const result = await within(client.query("SELECT 1"), "the refusal", 3_000);
		expect(performance.now() - start).toBeGreaterThan(800);
		expect(result.errors.map((error) => error.C)).toEqual(["58000"]);
		const refused = RawClient.connect(stage.door).then(
			async (other) => (await other.query("SELECT 1")).errors[0]?.C,
			(error: { fields?: Record<string, string> }) => error.fields?.C,
		);
		expect(await within(refused, "the refusal of a login", 3_000)).toBe("58000");
		await stage.cluster.primary.start();
		await stage.intact("a stop that took too long");
	});

	test("a server frozen in the middle of a query is given up at query_timeout", async () => {
		await using client = await stage.client();
		await client.query("BEGIN");
		stage.cluster.primary.pause();
		try {
			const start = performance.now();
			const result = await within(client.query("SELECT 1"), "query_timeout", 4_000);
			expect(performance.now() - start).toBeGreaterThan(1_300);
			expect(client.ended).toBe(true);
			expect(result.errors.map((error) => error.S)).toEqual(["FATAL"]);
		} finally {
			stage.cluster.primary.resume();
		}
		await stage.intact("a frozen query");
	});

	test("a server frozen while idle is found out by the probe and the client told in time", async () => {
		await using client = await stage.client();
		await client.query("SELECT 1");
		await Bun.sleep(20);
		stage.cluster.primary.pause();
		try {
			const result = await within(client.query("SELECT 1"), "the end of the probe and of the checkout", 4_000);
			expect(result.errors.map((error) => error.C)).toEqual(["58000"]);
		} finally {
			stage.cluster.primary.resume();
		}
		await stage.intact("a frozen idle server");
	});

	test("a server that was frozen while idle and thaws in time serves the client that waited for the probe", async () => {
		await using client = await stage.client();
		await client.query("SELECT 1");
		await Bun.sleep(20);
		stage.cluster.primary.pause();
		const result = client.query("SELECT 'thawed'");
		await Bun.sleep(150);
		stage.cluster.primary.resume();
		expect((await within(result, "the answer", 3_000)).rows).toEqual([["thawed"]]);
		await stage.intact("a short freeze");
	});

	test("a login at a frozen server ends at the timeouts", async () => {
		await stage.renew();
		stage.cluster.primary.pause();
		try {
			const refused = RawClient.connect(stage.door).then(
				() => "let in",
				(error: { fields?: Record<string, string> }) => error.fields?.C,
			);
			expect(await within(refused, "the refusal", 4_000)).toBe("58000");
		} finally {
			stage.cluster.primary.resume();
		}
		await stage.intact("a login at a frozen server");
	});

	test("a server that freezes when its client leaves a transaction is closed at rollback_timeout", async () => {
		const client = await stage.client();
		await client.query("BEGIN; CREATE TABLE half (id int)");
		stage.cluster.primary.pause();
		const from = stage.proxy.lines.length;
		client.reset();
		try {
			await stage.proxy.waitForLog(/closing server connection/, 3_000, from);
		} finally {
			stage.cluster.primary.resume();
		}
		await stage.intact("a frozen ROLLBACK");
		expect(await stage.look("SELECT to_regclass('half') IS NULL")).toEqual(["t"]);
	});

	test("clients that leave in the middle of requests to a frozen server cost their servers at most", async () => {
		for (const request of [
			query("SELECT 1"),
			concat(parse("SELECT 1"), bind(), execute(), flush()),
			query("COPY (SELECT 1) TO STDOUT"),
		]) {
			const client = await stage.client();
			await client.query("BEGIN");
			stage.cluster.primary.pause();
			const from = stage.proxy.lines.length;
			client.send(request);
			await Bun.sleep(5);
			client.reset();
			try {
				await stage.proxy.waitForLog(/closing server connection/, 3_000, from);
			} finally {
				stage.cluster.primary.resume();
			}
			await stage.intact("a frozen request");
		}
		stage.sane();
	});

	test("many clients at a frozen server all get an answer in time, and none is served by a leaked connection later", async () => {
		const clients = await Promise.all(Array.from({ length: 20 }, () => stage.client()));
		stage.cluster.primary.pause();
		try {
			const all = clients.map((client) => client.query("SELECT 1"));
			for (const result of await within(Promise.all(all), "every answer", 6_000)) expect(result.errors.length).toBe(1);
		} finally {
			stage.cluster.primary.resume();
		}
		await until(() => clients.every((client) => client.ended), "the end of every connection");
		await stage.intact("a frozen server and many clients");
		stage.sane();
	});
});
