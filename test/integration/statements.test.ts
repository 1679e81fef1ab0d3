// Prepared statements when clients share servers: names are a client's own, wherever its next transaction runs.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { transcript } from "../support/transcript.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { connect, one } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(simpleConfig(cluster.primary, { workers: 1, min_pool_size: 0, ...general }));
}

function send(client: RawClient, ...frames: Uint8Array[]): Promise<QueryResult> {
	client.send(...frames, f.sync());
	return client.result();
}

const prepare = (client: RawClient, name: string, sql: string) => send(client, f.parse(sql, name));
const execute = (client: RawClient, statement: string, ...values: string[]) =>
	send(client, f.bind({ statement, values }), f.execute());

test("named statements, more clients than servers, on two workers", async () => {
	await using proxy = await start({ default_pool_size: 3, workers: 2 });
	const clients = await Promise.all(Array.from({ length: 24 }, () => connect(proxy)));
	await Promise.all(
		clients.map(async (client, i) => {
			// One name, a text of its own for each; one text under another name for all.
			await prepare(client, "mine", `SELECT ${i}, $1::int`);
			await prepare(client, `shared ${i}`, "SELECT $1::text");
			for (let n = 0; n < 20; n++) {
				expect((await execute(client, "mine", String(n))).rows).toEqual([[String(i), String(n)]]);
				expect((await execute(client, `shared ${i}`, `${i}/${n}`)).rows).toEqual([[`${i}/${n}`]]);
			}
		}),
	);
	for (const client of clients) client.close();
});

test("the same text is prepared once on each server, whatever the clients call it", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	const clients = await Promise.all(Array.from({ length: 10 }, () => connect(proxy)));
	for (const [i, client] of clients.entries()) {
		await prepare(client, `name ${i}`, "SELECT $1::int + 100");
		expect((await execute(client, `name ${i}`, "1")).rows).toEqual([["101"]]);
	}
	expect(await one(clients[0] as RawClient, "SELECT count(*) FROM pg_prepared_statements")).toBe("1");
	for (const client of clients) client.close();
});

test("two clients cannot see each other's statements, named or not", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await prepare(a, "secret", "SELECT 'of a'");
	expect((await execute(b, "secret")).errors[0]).toMatchObject({
		C: "26000",
		M: 'prepared statement "secret" does not exist',
	});
	await prepare(a, "", "SELECT 'unnamed of a'");
	expect((await execute(b, "")).errors[0]).toMatchObject({
		C: "26000",
		M: "unnamed prepared statement does not exist",
	});
	expect((await send(b, f.describe("S", ""))).errors[0]?.C).toBe("26000");
	expect((await execute(a, "")).rows).toEqual([["unnamed of a"]]);
	await prepare(b, "", "SELECT 'unnamed of b'");
	expect((await execute(a, "")).rows).toEqual([["unnamed of a"]]);
	expect((await execute(b, "")).rows).toEqual([["unnamed of b"]]);
	// Not even by the name that it has on the server.
	const names = (await b.query("SELECT name FROM pg_prepared_statements")).rows;
	expect(names.length).toBeGreaterThan(0);
	for (const [name] of names) expect((await execute(b, name ?? "")).rows).toEqual([]);
	await using c = await connect(proxy);
	for (const [name] of names) {
		await c.query(`DEALLOCATE "${name}"`);
		expect((await execute(a, "secret")).rows).toEqual([["of a"]]);
	}
});

test("prepared_statements_limit: the least recently used one is closed, and comes back when it is asked for", async () => {
	await using proxy = await start({ default_pool_size: 1, prepared_statements_limit: 5 });
	await using client = await connect(proxy);
	for (let i = 0; i < 20; i++) await prepare(client, `s${i}`, `SELECT ${i}`);
	const count = async () => Number(await one(client, "SELECT count(*) FROM pg_prepared_statements"));
	expect(await count()).toBeLessThanOrEqual(5);
	for (const round of [1, 2, 3]) {
		for (let i = 0; i < 20; i++) expect([round, (await execute(client, `s${i}`)).rows]).toEqual([round, [[String(i)]]]);
		expect(await count()).toBeLessThanOrEqual(5);
	}
	// All twenty in one pipeline: more than fit at once.
	const all = await send(
		client,
		...Array.from({ length: 20 }, (_, i) => [f.bind({ statement: `s${i}` }), f.execute()]).flat(),
	);
	expect(all.errors).toEqual([]);
	expect(all.rows).toEqual(Array.from({ length: 20 }, (_, i) => [String(i)]));
	// What nobody names any more is closed on the servers as well.
	for (let i = 0; i < 20; i++) await send(client, f.close("S", `s${i}`));
	expect((await execute(client, "s3")).errors[0]?.C).toBe("26000");
});

test("a client that leaves takes its names with it, not the statements of others", async () => {
	await using proxy = await start({ default_pool_size: 1, prepared_statements_limit: 2 });
	await using stays = await connect(proxy);
	await prepare(stays, "kept", "SELECT 'kept'");
	for (let i = 0; i < 10; i++) {
		await using leaves = await connect(proxy);
		await prepare(leaves, "kept", `SELECT 'leaves ${i}'`);
		await prepare(leaves, "too", "SELECT 'kept'");
		expect((await execute(leaves, "kept")).rows).toEqual([[`leaves ${i}`]]);
	}
	expect((await execute(stays, "kept")).rows).toEqual([["kept"]]);
});

test("a statement survives the server that it was prepared on", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	await using client = await connect(proxy);
	await prepare(client, "s", "SELECT 'survived'");
	await prepare(client, "", "SELECT 'unnamed'");
	const pid = await one(client, "SELECT pg_backend_pid()");
	await cluster.primary.sql(`SELECT pg_terminate_backend(${pid}, 5000)`);
	await proxy.waitForLog(/closing server connection/);
	expect((await execute(client, "s")).rows).toEqual([["survived"]]);
	expect(await one(client, "SELECT pg_backend_pid()")).not.toBe(pid);
});

test("a transaction keeps its statements and portals through the turns of others", async () => {
	await using proxy = await start({ default_pool_size: 2 });
	await using a = await connect(proxy);
	const others = await Promise.all([connect(proxy), connect(proxy)]);
	await a.query("BEGIN");
	await prepare(a, "", "SELECT generate_series(1, 6)");
	await send(a, f.bind({ portal: "p" }), f.execute("p", 2));
	for (const other of others) expect((await other.extended("SELECT 'other'")).rows).toEqual([["other"]]);
	expect((await send(a, f.execute("p", 2))).rows).toEqual([["3"], ["4"]]);
	expect((await send(a, f.execute("p", 9))).rows).toEqual([["5"], ["6"]]);
	await a.query("COMMIT");
	for (const other of others) other.close();
});

test("pipelines of many clients at once, hundreds of messages deep, errors in the middle", async () => {
	await using proxy = await start({ default_pool_size: 2, workers: 2 });
	const clients = await Promise.all(Array.from({ length: 8 }, () => connect(proxy)));
	await Promise.all(
		clients.map(async (client, c) => {
			await prepare(client, "p", `SELECT ${c}, $1::int`);
			const frames: Uint8Array[] = [];
			for (let i = 0; i < 300; i++) {
				if (i % 29 === 7) frames.push(f.parse("SELECT 1/0"), f.bind(), f.execute());
				frames.push(f.bind({ statement: "p", values: [String(i)] }), f.execute(), f.sync());
			}
			client.send(...frames);
			for (let i = 0; i < 300; i++) {
				const { rows, errors, status } = await client.result();
				expect(status).toBe("I");
				if (i % 29 === 7) expect([rows, errors[0]?.C]).toEqual([[], "22012"]);
				else expect(rows).toEqual([[String(c), String(i)]]);
			}
		}),
	);
	for (const client of clients) client.close();
});

test("a name from a batch that fails is free for the next one in the same write", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	const failing = [f.parse("SELECT 1/0"), f.bind(), f.execute(), f.parse("SELECT 'one'", "name"), f.sync()];
	const run = [f.bind({ statement: "name" }), f.execute(), f.sync()];
	client.send(...failing, f.parse("SELECT 'two'", "name"), ...run, f.parse("SELECT 'three'", "name"), ...run);
	const results = [await client.result(), await client.result(), await client.result()];
	expect(results.map(({ rows, errors }) => [rows, errors.map(({ C }) => C)])).toEqual([
		[[], ["22012"]],
		[[["two"]], []],
		[[], ["42P05"]],
	]);
	expect((await execute(client, "name")).rows).toEqual([["two"]]);
});

/** Each in one write: a batch fails, and the next one asks for what it would have given, or taken away. */
const undone: Record<string, Uint8Array[]> = {
	"a name that the batch before wanted to close is closed": [
		...[f.parse("SELECT 1", "n"), f.execute("none"), f.close("S", "n"), f.sync()],
		...[f.close("S", "n"), f.bind({ statement: "n" }), f.sync()],
	],
	"the unnamed statement of a batch that failed is none, whatever is parsed by a name behind it": [
		...[f.bind({ statement: "none" }), f.parse("SELECT 1"), f.sync()],
		...[f.parse("SELECT 2", "n"), f.bind({ values: ["1"] }), f.execute(), f.sync()],
	],
	"nor what the batch behind it goes back to when that fails too": [
		...[f.bind({ statement: "none" }), f.parse("SELECT 1"), f.sync()],
		...[f.bind({ statement: "none" }), f.parse("SELECT 2"), f.sync()],
	],
};

for (const [name, frames] of Object.entries(undone))
	test(`as in PostgreSQL: ${name}`, async () => {
		const direct = { port: cluster.port, user: "pgdog", password: "pgdog", database: "pgdog" };
		const heard = async (client: RawClient) => {
			client.send(...frames);
			const results = [await client.result(), await client.result()];
			results.push(await send(client, f.bind(), f.execute()));
			return results.map(({ messages }) => transcript(messages));
		};
		await using straight = await RawClient.connect(direct);
		const expected = await heard(straight);
		for (const general of [{}, { prepared_statements: "disabled", pooler_mode: "session" }]) {
			await using proxy = await start({ default_pool_size: 1, ...general });
			await using client = await connect(proxy);
			expect([general, await heard(client)]).toEqual([general, expected]);
		}
	});

test("prepared_statements = disabled: names go through, in session mode too", async () => {
	await using proxy = await start({ default_pool_size: 1, prepared_statements: "disabled" });
	await using client = await connect(proxy);
	expect((await send(client, f.parse("SELECT 'x'", "n"), f.bind({ statement: "n" }), f.execute())).rows).toEqual([
		["x"],
	]);
	// What it left is cleaned: the next client may use the name.
	await using next = await connect(proxy);
	expect((await send(next, f.parse("SELECT 'y'", "n"), f.bind({ statement: "n" }), f.execute())).rows).toEqual([["y"]]);
});

test("prepared_statements = extended_anonymous", async () => {
	await using proxy = await start({ default_pool_size: 1, prepared_statements: "extended_anonymous" });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	expect((await a.extended("SELECT $1::int", ["1"])).rows).toEqual([["1"]]);
	await prepare(a, "", "SELECT 'a'");
	expect((await b.extended("SELECT $1::int", ["2"])).rows).toEqual([["2"]]);
	expect((await execute(a, "")).rows).toEqual([["a"]]);
});

test("a table that changes under a statement heals for a client that prepares again", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	await using a = await connect(proxy);
	await using b = await connect(proxy);
	await a.query("CREATE TABLE healing (x int); INSERT INTO healing VALUES (1)");
	await prepare(a, "s", "SELECT * FROM healing");
	await prepare(b, "s", "SELECT * FROM healing");
	expect((await execute(a, "s")).rows).toEqual([["1"]]);
	expect((await execute(b, "s")).rows).toEqual([["1"]]);
	await a.query("ALTER TABLE healing ADD y int");
	expect((await execute(b, "s")).errors[0]).toMatchObject({ C: "0A000", M: "cached plan must not change result type" });
	// Drivers then deallocate and prepare anew, or connect anew: both must help.
	await send(b, f.close("S", "s"));
	await prepare(b, "s", "SELECT * FROM healing");
	expect((await execute(b, "s")).rows).toEqual([["1", null]]);
	await using c = await connect(proxy);
	await prepare(c, "s", "SELECT * FROM healing");
	expect((await execute(c, "s")).rows).toEqual([["1", null]]);
});

test("an error calls a statement what the client called it, also when it has taken the name away in a batch behind", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	const behind: [string, Uint8Array[]][] = [
		["nothing", [f.sync()]],
		["Close", [f.close("S", "mine"), f.sync()]],
		["Close and another Parse", [f.close("S", "mine"), f.parse("SELECT 2", "mine"), f.sync()]],
		["DEALLOCATE", [f.query("DEALLOCATE mine")]],
		["DEALLOCATE in a batch", [f.parse("DEALLOCATE mine"), f.bind(), f.execute(), f.sync()]],
		["DEALLOCATE ALL", [f.query("DEALLOCATE ALL")]],
		// Of so many it is forgotten which were answered.
		[
			"many of them",
			Array.from({ length: 400 }, (_, i) => `other ${i}`).flatMap((name) => [
				f.parse(`SELECT '${name}'`, name),
				f.sync(),
				f.close("S", name),
				f.sync(),
			]),
		],
	];
	for (const [what, messages] of behind) {
		const told = async (port: number) => {
			await using client = await connect(proxy, { port });
			await prepare(client, "mine", "SELECT $1::int");
			client.send(f.bind({ statement: "mine" }), f.sync(), ...messages);
			const [error] = (await client.result()).errors;
			return [what, error?.C, error?.M];
		};
		const straight = await told(cluster.port);
		expect(straight[2]).toContain('prepared statement "mine"');
		expect(await told(proxy.port)).toEqual(straight);
	}
});
