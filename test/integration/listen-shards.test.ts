// LISTEN in transaction mode for clients of several shards: LISTEN is all shards', NOTIFY the first's, and what a trigger notifies on any
// of them is heard.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Cluster } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { heard, TRANSACTIONS } from "./listening.ts";
import { intact, onEach, SHARDS, sane, shardedOptions, startSharded, startShards } from "./sharded.ts";
import { admin, connect, connectToBothWorkers, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
/** For those who look at their own clients only. */
let common: Proxy;
beforeAll(async () => {
	cluster = await startShards();
	await onEach(
		cluster,
		`CREATE TABLE jobs (id int);
		CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
			$$BEGIN PERFORM pg_notify('jobs', current_database() || ' ' || new.id); RETURN new; END$$;
		CREATE TRIGGER told AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION tell()`,
	);
	common = await start({ default_pool_size: 2 });
});
afterAll(async () => {
	await common?.stop();
	await cluster?.stop();
});

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	return startSharded(cluster, { general: { pub_sub_channel_size: 1000, ...general } });
}

/** Everything that was notified by now has come, or never will: on a channel of its own behind it, on each shard. */
async function hears(client: RawClient, expected: string[]): Promise<void> {
	const ends = SHARDS.map((shard) => `the_end:${shard}`);
	await onEach(cluster, "SELECT pg_notify('the_end', current_database())");
	await until(() => ends.every((end) => heard(client).includes(end)), "the last notifications");
	expect(heard(client).filter((text) => !ends.includes(text))).toEqual(expected);
}

test.each(TRANSACTIONS)("a client listens on [%s] after %s", async (listens, ...said) => {
	await using client = await connect(common);
	await using other = await connect(common);
	for (const sql of said) await client.query(sql);
	await client.query("LISTEN the_end");
	for (const channel of ["a", "b", "c"]) await other.query(`NOTIFY ${channel}, '1'`);
	const expected = listens.split(" ").filter(Boolean);
	await hears(
		client,
		expected.map((channel) => `${channel}:1`),
	);
	sane(common);
});

test("what is notified is heard once, of triggers on any shard, and comes with its COMMIT", async () => {
	await using client = await connect(common);
	await using other = await connect(common);
	await client.query("LISTEN jobs; LISTEN the_end");
	await client.query("NOTIFY jobs, 'by a statement'");
	await until(() => heard(client).length === 1, "the first");
	await other.query("SELECT pg_notify('jobs', 'by a function')");
	await other.extended("SELECT pg_notify($1, $2)", ["jobs", "by a parameter"]);
	await until(() => heard(client).length === 3, "the others");
	for (const sql of ["BEGIN", "NOTIFY jobs, 'rolled back'", "INSERT INTO jobs VALUES (1)", "ROLLBACK"])
		await other.query(sql);
	for (const sql of ["BEGIN", "INSERT INTO jobs VALUES (2)", "NOTIFY jobs, 'committed'"]) await other.query(sql);
	await other.query("/* pgdog_shard: 1 */ SELECT 1");
	await client.query("SELECT 1");
	expect(heard(client)).toHaveLength(3);
	await other.query("COMMIT");
	await until(() => heard(client).length === 7, "all");
	expect(heard(client).slice(3).toSorted()).toEqual(["jobs:committed", "jobs:s0 2", "jobs:s1 2", "jobs:s2 2"]);
	await other.query("/* pgdog_shard: 2 */ INSERT INTO jobs VALUES (3)");
	await until(() => heard(client).length === 8, "the last");
	await hears(client, [...heard(client).slice(0, 7), "jobs:s2 3"]);
});

test("in a transaction nothing comes, wherever that is open, in a batch neither; then all of it", async () => {
	await using client = await connect(common);
	await using other = await connect(common);
	await other.query("LISTEN jobs");
	await client.query("LISTEN jobs; LISTEN the_end");
	let sent = 0;
	const tell = async () => {
		await onEach(cluster, `INSERT INTO jobs VALUES (${++sent})`);
		await until(() => heard(other).length === 3 * sent, "the other's");
	};
	// No shard knows of it; then one does, and then it has failed.
	for (const sql of ["BEGIN", "/* pgdog_shard: 1 */ SELECT 1", "SELECT 1/0"]) {
		await client.query(sql);
		await tell();
		await client.query("SHOW pgdog.role");
		expect(heard(client)).toEqual([]);
	}
	await client.query("ROLLBACK");
	await until(() => heard(client).length === 9, "all");
	// A batch that has no Sync yet, and one that has failed.
	for (const sql of ["SELECT 1 FROM here", "SELECT 1/0"]) {
		client.send(f.parse(sql), f.bind(), f.execute(), f.flush());
		await client.until(sql.endsWith("0") ? "E" : "C");
		await tell();
		client.send(f.sync());
		const between = await client.until("Z");
		expect(between.map(({ code }) => code)).toEqual(["Z"]);
		await until(() => heard(client).length === 3 * sent, "those of the batch");
	}
	// BEGIN alone, which no server hears of.
	await client.query("BEGIN");
	await tell();
	expect((await client.query("COMMIT")).status).toBe("I");
	await until(() => heard(client).length === 3 * sent, "the last");
	await hears(client, heard(client));
	expect(
		heard(client)
			.slice(0, 3 * sent)
			.toSorted(),
	).toEqual(heard(other).toSorted());
});

test("by the extended protocol, also what was parsed for one shard alone", async () => {
	await using client = await connect(common);
	await client.extended("LISTEN the_end");
	client.send(f.parse("LISTEN a", "a"), f.parse("/* pgdog_shard: 1 */ LISTEN b", "b"), f.sync());
	await client.until("Z");
	for (const statement of ["a", "b"]) {
		client.send(f.bind({ statement }), f.execute(), f.sync());
		expect((await client.result()).tags).toEqual(["LISTEN"]);
	}
	await onEach(cluster, "SELECT pg_notify('a', current_database()), pg_notify('b', current_database())");
	await until(() => heard(client).length === 4, "all of them");
	await hears(client, heard(client));
	expect(heard(client).slice(0, 4).toSorted()).toEqual(["a:s0", "a:s1", "a:s2", "b:s1"]);
	client.send(f.parse("UNLISTEN *"), f.bind(), f.execute(), f.sync());
	expect((await client.result()).tags).toEqual(["UNLISTEN"]);
	await client.extended("LISTEN c");
	await onEach(cluster, "NOTIFY a; NOTIFY b; NOTIFY c");
	await until(() => heard(client).filter((text) => text === "c:").length === 3, "the last");
	expect(heard(client).filter((text) => text === "a:" || text === "b:")).toEqual([]);
});

test("in pipelines of rows of all shards every message is whole, and every notification comes, each shard's in order", async () => {
	await using client = await connect(common);
	await client.query("LISTEN noise");
	let over = false;
	const counts = SHARDS.map(() => 0);
	const noise = SHARDS.map(async (database, shard) => {
		while (!over)
			await cluster.primary.sql(`SELECT pg_notify('noise', '${shard} ${counts[shard]!++}')`, {
				user: "pgdog",
				database,
			});
	});
	const said: Uint8Array[] = [];
	for (let i = 0; i < 20; i++) {
		said.push(f.query("SELECT repeat('a', 20000) FROM here"), f.query("BEGIN"), f.query(`LISTEN y${i}`));
		said.push(f.query(i % 2 === 0 ? "COMMIT" : "ROLLBACK"), f.parse("UNLISTEN *"), f.bind(), f.sync());
	}
	for (let round = 0; round < 5; round++) {
		client.send(...said);
		for (let i = 0; i < 5 * 20; i++) expect((await client.result()).errors).toEqual([]);
	}
	over = true;
	await Promise.all(noise);
	const all = counts.reduce((sum, count) => sum + count);
	await until(() => heard(client).length === all, "the last");
	for (const [shard, count] of counts.entries())
		expect(heard(client).filter((text) => text.startsWith(`noise:${shard} `))).toEqual(
			Array.from({ length: count }, (_, i) => `noise:${shard} ${i}`),
		);
	sane(common);
});

test("clients of two workers, and SHOW LISTENERS; when they have gone nothing is left", async () => {
	await using proxy = await start({ workers: 2 });
	const [[a], [b]] = await connectToBothWorkers(proxy, 1);
	await a!.query("LISTEN x; LISTEN the_end");
	await b!.query("LISTEN x");
	await a!.query("NOTIFY x, 'a'");
	await b!.query("NOTIFY x, 'b'");
	await until(() => heard(b!).length === 2, "both");
	await hears(a!, ["x:a", "x:b"]);
	await using console = await admin(proxy);
	const rows = await show(console, "SHOW LISTENERS");
	expect(rows.map(({ shard, channel, listeners, received }) => [shard, channel, listeners, received])).toEqual([
		["0", "the_end", "1", "1"],
		["0", "x", "2", "2"],
		["1", "the_end", "1", "1"],
		["1", "x", "2", "0"],
		["2", "the_end", "1", "1"],
		["2", "x", "2", "0"],
	]);
	for (const client of [a!, b!]) client.close();
	await until(async () => (await show(console, "SHOW LISTENERS")).length === 0, "nobody listens");
	await using witness = await connect(proxy);
	sane(proxy);
	expect((await witness.query("SELECT 1 FROM here")).rows).toHaveLength(3);
});

test("hundreds of clients on one channel, by pools of one server", async () => {
	await using proxy = await start();
	const clients = await Promise.all(Array.from({ length: 300 }, () => connect(proxy, { timeout: 30_000 })));
	await Promise.all(clients.map((client) => client.query("LISTEN x")));
	await onEach(cluster, "SELECT pg_notify('x', current_database())");
	await until(() => clients.every((client) => heard(client).length === 3), "all of them");
	for (const client of clients) client.close();
	await using console = await admin(proxy);
	await until(async () => (await show(console, "SHOW LISTENERS")).length === 0, "nobody listens");
	sane(proxy);
});

test("a shard's connection that is lost is told in the log, and listens again", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	await cluster.primary.sql(
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgdog listener' AND datname = 's1'",
	);
	await proxy.waitForLog(/the connection that listens is lost: FATAL 57P01.*its 2 channels.*shard: 1/);
	await proxy.waitForLog(/listening again on 2 channels; notifications since .*shard: 1/);
	await onEach(cluster, "NOTIFY x");
	await hears(client, ["x:", "x:", "x:"]);
});

test("through RELOAD, RECONNECT and PAUSE clients go on listening; a reload that takes a shard away ends them", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	await using console = await admin(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	for (const order of ["RELOAD", "RECONNECT", "PAUSE"]) {
		await console.query(order);
		await onEach(cluster, `SELECT pg_notify('x', '${order}')`);
	}
	await until(() => heard(client).length === 9, "those in the pause");
	// Who begins to listen while servers are withheld waits for them.
	client.send(f.query("LISTEN y"));
	await until(
		async () => (await show(console, "SHOW CLIENTS")).some(({ state }) => state === "waiting"),
		"the client in the queue",
	);
	await console.query("RESUME");
	expect((await client.result()).tags).toEqual(["LISTEN"]);
	await onEach(cluster, "NOTIFY y");
	await hears(client, [...heard(client).slice(0, 9), "y:", "y:", "y:"]);
	const fewer = shardedOptions(cluster, { shards: 2, general: { pub_sub_channel_size: 1000 } });
	proxy.writeConfig(fewer.config!);
	await console.query("RELOAD");
	await until(() => client.ended, "the end of the client");
	await using next = await connect(proxy);
	await next.query("LISTEN z");
	await onEach(cluster, "SELECT pg_notify('z', current_database())", 2);
	await until(() => heard(next).length === 2, "of both shards");
	sane(proxy);
});

test("where one shard cannot be listened at LISTEN fails, in a transaction with that, and holds when it is said again", async () => {
	await using proxy = await start({ connect_timeout: 1_000 });
	await using client = await connect(proxy);
	await client.query("SELECT 1 FROM here");
	await cluster.primary.sql("ALTER DATABASE s1 CONNECTION LIMIT 1");
	try {
		const result = await client.query("LISTEN x");
		expect([result.errors.map(({ C }) => C), result.status]).toEqual([["53300"], "I"]);
		await client.query("BEGIN");
		expect((await client.extended("LISTEN y")).status).toBe("E");
		await client.query("COMMIT");
	} finally {
		await cluster.primary.sql("ALTER DATABASE s1 CONNECTION LIMIT -1");
	}
	expect((await client.query("LISTEN x; LISTEN the_end")).tags).toEqual(["LISTEN", "LISTEN"]);
	await onEach(cluster, "NOTIFY x; NOTIFY y");
	await hears(client, ["x:", "x:", "x:"]);
	await using witness = await connect(proxy);
	await intact(cluster, witness, "LISTEN that failed", 3, 12);
});

test("a CancelRequest ends a LISTEN that waits for one of the shards", async () => {
	await using proxy = await start({ connect_timeout: 60_000, checkout_timeout: 60_000 });
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	const [listener] = await cluster.primary.sql(
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'pgdog listener' AND datname = 's1' ORDER BY backend_start DESC LIMIT 1",
	);
	await using console = await admin(proxy);
	process.kill(listener!.pid as number, "SIGSTOP");
	try {
		const result = client.query("LISTEN y");
		await until(
			async () =>
				(await show(console, "SHOW LISTENERS")).some(({ shard, channel }) => shard === "1" && channel === "y"),
			"LISTEN",
		);
		const request = await RawClient.open({ port: proxy.port });
		request.send(f.cancelRequest(client.backendPid, client.backendKey));
		expect(await request.closed).toEqual([]);
		const { errors, status } = await result;
		expect([errors.map(({ C }) => C), status]).toEqual([["57014"], "I"]);
		expect((await client.query("SELECT 1 FROM here")).rows).toHaveLength(3);
	} finally {
		process.kill(listener!.pid as number, "SIGCONT");
	}
	await client.query("UNLISTEN y");
	await onEach(cluster, "NOTIFY x; NOTIFY y");
	await hears(client, ["x:", "x:", "x:"]);
	sane(proxy);
});

test("a client that does not read hears the newest of each shard when it reads again, in order", async () => {
	await using proxy = await start({ pub_sub_channel_size: 100_000 });
	await using client = await connect(proxy);
	await client.query("LISTEN x");
	client.pause();
	const many =
		"SELECT pg_notify('x', concat_ws(' ', current_database(), i, repeat('x', 7000))) FROM generate_series(1, 600) i";
	await onEach(cluster, many);
	await proxy.waitForLog(/does not read its notifications/);
	await using console = await admin(proxy);
	await until(async () => (await show(console, "SHOW LISTENERS")).every(({ received }) => received === "600"), "all");
	client.resume();
	for (const shard of SHARDS)
		await until(() => heard(client).some((text) => text.startsWith(`x:${shard} 600 `)), `the last of ${shard}`);
	for (const shard of SHARDS) {
		const mine = heard(client).filter((text) => text.startsWith(`x:${shard} `));
		const numbers = mine.map((text) => Number(text.split(" ")[1]));
		expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
	}
	expect((await client.query("SELECT 1 FROM here")).rows).toHaveLength(3);
	sane(proxy);
});

test("whatever ends while LISTEN is said, by RECONNECT, CancelRequests or the end of listeners, leaves nothing behind", async () => {
	await using proxy = await start({ default_pool_size: 3 });
	const clients = await Promise.all(Array.from({ length: 10 }, () => connect(proxy)));
	await using console = await admin(proxy);
	let over = false;
	const working = clients.map(async (client, number) => {
		const said = ["LISTEN a", "UNLISTEN *", "BEGIN", `LISTEN b${number}`, "COMMIT", "NOTIFY a"];
		while (!over) for (const sql of said) await client.query(sql);
	});
	const listeners = "FROM pg_stat_activity WHERE application_name = 'pgdog listener'";
	for (let round = 0; round < 20; round++) {
		if (round % 3 === 0) await console.query("RECONNECT");
		if (round % 5 === 0)
			await cluster.primary.sql(
				`SELECT pg_terminate_backend(pid) ${listeners} AND backend_start > now() - interval '5 s'`,
			);
		const { backendPid, backendKey } = clients[round % clients.length]!;
		const request = await RawClient.open({ port: proxy.port });
		request.send(f.cancelRequest(backendPid, backendKey));
		await request.closed;
	}
	over = true;
	await Promise.all(working);
	for (const client of clients) await client.query("ROLLBACK");
	for (const client of clients) await client.query("UNLISTEN *");
	await until(async () => (await show(console, "SHOW LISTENERS")).length === 0, "nobody listens");
	const [client] = clients;
	await until(async () => (await client!.query("LISTEN z; LISTEN the_end")).errors.length === 0, "LISTEN");
	await onEach(cluster, "NOTIFY z");
	await until(() => heard(client!).filter((text) => text === "z:").length === 3, "all shards'");
	sane(proxy);
	for (const each of clients) each.close();
});

test("a client that does not read misses the oldest, and takes no more memory than that", async () => {
	await using proxy = await start({ pub_sub_channel_size: 10 });
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	await client.query("BEGIN");
	await onEach(cluster, "SELECT pg_notify('x', i::text) FROM generate_series(1, 15) i");
	for (const shard of SHARDS.keys())
		await proxy.waitForLog(new RegExp(`does not read its notifications.*shard: ${shard}`));
	await client.query("COMMIT");
	await until(() => heard(client).length === 30, "the newest");
	expect(heard(client).filter((text) => Number(text.slice(2)) <= 5)).toEqual([]);
});

test("in session mode each client listens by its own servers", async () => {
	await using proxy = await start({ pooler_mode: "session" });
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	await client.query("NOTIFY x");
	await hears(client, ["x:"]);
	await using console = await admin(proxy);
	expect(await show(console, "SHOW LISTENERS")).toEqual([]);
});
