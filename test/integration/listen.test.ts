// LISTEN in transaction mode (`pub_sub_channel_size`): one connection of each worker listens for its clients, which hear what they would
// hear from PostgreSQL itself, whatever server they have.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Client } from "pg";
import postgres from "postgres";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { heard, TRANSACTIONS } from "./listening.ts";
import { startRouted } from "./routed.ts";
import { admin, connect, connectToBothWorkers, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
/** For those who look at their own clients only. */
let common: Proxy;
beforeAll(async () => {
	cluster = await startPostgres({ replicas: 1 });
	common = await start({ pub_sub_channel_size: 100_000 });
});
afterAll(async () => {
	await common?.stop();
	await cluster?.stop();
});

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	const settings = { workers: 1, default_pool_size: 4, min_pool_size: 0, pub_sub_channel_size: 100, ...general };
	const simple = simpleConfig(cluster.primary, settings);
	return startProxy(withAdmin(simple));
}

/** Everything that was notified by now has come, or never will: on a channel of its own behind it. */
async function hears(client: RawClient, expected: string[]): Promise<void> {
	await cluster.primary.sql("NOTIFY the_end");
	await until(() => heard(client).includes("the_end:"), "the last notification");
	expect(heard(client).filter((text) => text !== "the_end:")).toEqual(expected);
}

/** Two clients of one proxy, and two of PostgreSQL straight. */
const ENDS: Record<string, () => Promise<{ client: RawClient; other: RawClient }>> = {
	"the proxy": async () => ({ client: await connect(common), other: await connect(common) }),
	PostgreSQL: async () => {
		const { host, port } = cluster.primary;
		const options = { host, port, user: "pgdog", password: "pgdog", database: "pgdog" };
		return { client: await RawClient.connect(options), other: await RawClient.connect(options) };
	},
};

for (const [name, open] of Object.entries(ENDS)) {
	describe(`at ${name}`, () => {
		test.each(TRANSACTIONS)("a client listens on [%s] after %s", async (listens, ...said) => {
			const { client, other } = await open();
			for (const sql of said) await client.query(sql);
			await client.query("LISTEN the_end");
			for (const channel of ["a", "b", "c"]) await other.query(`NOTIFY ${channel}, '1'`);
			await hears(
				client,
				listens
					.split(" ")
					.filter(Boolean)
					.map((channel) => `${channel}:1`),
			);
		});

		test("what a transaction has notified comes with its COMMIT, its own too; in a transaction nothing comes", async () => {
			const { client, other } = await open();
			for (const sql of ["BEGIN", "LISTEN a", "NOTIFY a, 'own'", "LISTEN the_end"]) await client.query(sql);
			await other.query("LISTEN a");
			await other.query("NOTIFY a, 'before'");
			await until(() => heard(other).length === 1, "the other's");
			await client.query("COMMIT");
			await until(() => heard(client).length === 1, "its own");
			await other.query("BEGIN; NOTIFY a, 'rolled back'; ROLLBACK");
			await client.query("BEGIN");
			await other.query("BEGIN; NOTIFY a, 'two'; NOTIFY a, 'three'; COMMIT");
			await other.query("SELECT pg_notify('a', 'four')");
			for (let i = 0; i < 20; i++) await client.query("SELECT 1");
			expect(heard(client)).toEqual(["a:own"]);
			await client.query("COMMIT");
			await hears(client, ["a:own", "a:two", "a:three", "a:four"]);
		});

		test("names are as PostgreSQL reads them: folded, quoted, cut off at 63 bytes", async () => {
			const { client, other } = await open();
			const long = "é".repeat(40);
			for (const name of ["FoLd", '"FoLd"', '"a ""b"" ; c"', `"${long}"`, "select"])
				await client.query(`LISTEN ${name}`);
			await client.query("LISTEN the_end");
			for (const name of ["fold", "FoLd", 'a "b" ; c', "é".repeat(31), "select"])
				await other.extended("SELECT pg_notify($1, 'x')", [name]);
			await hears(client, ["fold:x", "FoLd:x", 'a "b" ; c:x', `${"é".repeat(31)}:x`]);
		});

		test("by the extended protocol, once or many times", async () => {
			const { client, other } = await open();
			await client.extended("LISTEN a");
			client.send(f.parse("LISTEN b", "b"), f.parse("UNLISTEN a", "ua"), f.sync());
			await client.until("Z");
			for (const statements of [["b", "ua"], ["b"]]) {
				for (const statement of statements) client.send(f.bind({ statement }), f.execute());
				client.send(f.sync());
				expect((await client.result()).errors).toEqual([]);
			}
			// A portal that is bound, and not executed.
			client.send(f.parse("LISTEN c"), f.bind(), f.sync());
			await client.result();
			await client.extended("LISTEN the_end");
			for (const channel of ["a", "b", "c"]) await other.query(`NOTIFY ${channel}`);
			await hears(client, ["b:"]);
		});

		test("answered before its batch is over, with what fails right behind", async () => {
			const { client, other } = await open();
			client.send(f.parse("LISTEN a"), f.bind(), f.execute(), f.flush());
			await client.until("C");
			client.send(f.sync(), f.query("SELECT 1/0"), f.query("LISTEN the_end"));
			for (let i = 0; i < 3; i++) await client.until("Z");
			await other.query("NOTIFY a");
			await hears(client, ["a:"]);
		});

		test("pipelined with what undoes it", async () => {
			const { client, other } = await open();
			const said = ["BEGIN", "LISTEN a", "ROLLBACK", "LISTEN b", "SELECT 1/0", "LISTEN the_end", "SELECT 1"];
			client.send(...said.map((sql) => f.query(sql)));
			for (const sql of said)
				expect([sql, (await client.result()).tags]).toEqual([
					sql,
					sql.includes("/0") ? [] : [sql.split(" ")[0]! + (sql === "SELECT 1" ? " 1" : "")],
				]);
			for (const channel of ["a", "b", "c"]) await other.query(`NOTIFY ${channel}`);
			await hears(client, ["b:"]);
		});
	});
}

test("what is notified after the answer to LISTEN arrives, always", async () => {
	await using proxy = await start();
	await using other = await connect(proxy);
	for (let i = 0; i < 20; i++) {
		await using client = await connect(proxy);
		await client.query(`LISTEN c${i}`);
		await other.query(`NOTIFY c${i}`);
		await until(() => heard(client).length === 1, `c${i}`);
	}
});

test("what one client gives up while another begins to listen there is not lost for that one", async () => {
	await using other = await connect(common);
	const clients = [await connect(common), await connect(common)];
	await other.query("LISTEN y");
	for (let i = 0; i < 200; i++) {
		const [old, client] = [clients[i % 2]!, clients[(i + 1) % 2]!];
		old.send(f.query("UNLISTEN x"));
		client.send(f.query("LISTEN x"));
		await client.result();
		await other.query(`NOTIFY x, '${i}'`);
		await old.result();
		await until(() => heard(client).at(-1) === `x:${i}`, `the notification ${i}`);
	}
	for (const client of clients) client.close();
});

test("by names of their own (prepared_statements = disabled)", async () => {
	await using proxy = await start({ prepared_statements: "disabled" });
	await using client = await connect(proxy);
	client.send(f.parse("LISTEN a", "a"), f.bind({ statement: "a" }), f.execute(), f.sync());
	expect((await client.result()).tags).toEqual(["LISTEN"]);
	await client.extended("LISTEN the_end");
	await client.query("NOTIFY a");
	await hears(client, ["a:"]);
});

test("a name that the database cannot have fails for the client that wants it, and no longer than that", async () => {
	await cluster.primary.sql("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'");
	const simple = simpleConfig(cluster.primary, { workers: 1, pub_sub_channel_size: 10 });
	const config = simple.config as { databases: object[] };
	const databases = config.databases.map((each) => ({ ...each, database_name: "latin" }));
	await using proxy = await startProxy({ ...simple, config: { ...config, databases } });
	await using client = await connect(proxy);
	await using other = await connect(proxy);
	await client.query("BEGIN");
	expect((await client.query('LISTEN "€"')).errors).toMatchObject([{ C: "22P05" }]);
	expect((await other.query("LISTEN é")).errors).toEqual([]);
	await other.query("NOTIFY é, 'ü'");
	await until(() => heard(other).join() === "é:ü", "the notification");
});

test("drivers listen, and are notified by their own connections too", async () => {
	await using proxy = await start();
	const { port } = proxy;
	const options = { host: "127.0.0.1", port, user: "pgdog", password: "pgdog", database: "pgdog" };
	const client = new Client(options);
	await client.connect();
	const messages: string[] = [];
	client.on("notification", ({ channel, payload, processId }) =>
		messages.push(`${channel} ${payload} ${processId > 0}`),
	);
	await client.query("LISTEN goods");
	await client.query("SELECT pg_notify('goods', $1)", ["first"]);
	await until(() => messages.length === 1, "the notification");
	const sql = postgres({ ...options, username: "pgdog", max: 2 });
	const payloads: string[] = [];
	const { unlisten } = await sql.listen("goods", (payload) => payloads.push(payload));
	await sql.notify("goods", "second");
	await until(() => payloads.length === 1 && messages.length === 2, "the second");
	await unlisten();
	await sql.notify("goods", "third");
	await until(() => messages.length === 3, "the third");
	expect(messages).toEqual(["goods first true", "goods second true", "goods third true"]);
	expect(payloads).toEqual(["second"]);
	await client.end();
	await sql.end();
});

test("clients of two workers hear of each other, and SHOW LISTENERS has them", async () => {
	await using proxy = await start({ workers: 2 });
	const [[a], [b]] = await connectToBothWorkers(proxy, 1);
	await a!.query("LISTEN x; LISTEN the_end");
	await b!.query("LISTEN x");
	await a!.query("NOTIFY x, 'a'");
	await b!.query("NOTIFY x, 'b'");
	await until(() => heard(b!).length === 2, "both");
	expect(heard(b!)).toEqual(["x:a", "x:b"]);
	await hears(a!, ["x:a", "x:b"]);
	await using console = await admin(proxy);
	expect(await show(console, "SHOW LISTENERS")).toMatchObject([
		{ channel: "the_end", listeners: "1", received: "1", dropped: "0" },
		{ database: "pgdog", user: "pgdog", shard: "0", channel: "x", listeners: "2", received: "2", dropped: "0" },
	]);
});

test("a thousand clients on one channel; when the last has gone nothing listens any more", async () => {
	await using proxy = await start();
	const clients = await Promise.all(Array.from({ length: 1000 }, () => connect(proxy, { timeout: 20_000 })));
	await Promise.all(clients.map((client) => client.query("LISTEN x")));
	await cluster.primary.sql("NOTIFY x, 'all'");
	await until(() => clients.every((client) => heard(client).length === 1), "all of them");
	for (const client of clients) client.close();
	await using console = await admin(proxy);
	await until(async () => (await show(console, "SHOW LISTENERS")).length === 0, "nobody listens");
	const listening = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE 'UNLISTEN \"x\"'";
	await until(async () => (await cluster.primary.sql(listening))[0]!.n === 1, "UNLISTEN");
});

test("a connection that is lost is told in the log, and listens again", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	await cluster.primary.sql(
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgdog listener'",
	);
	await proxy.waitForLog(/the connection that listens is lost: FATAL 57P01.*its 2 channels/);
	await proxy.waitForLog(/listening again on 2 channels; notifications since the connection was lost are lost/);
	await client.query("NOTIFY x, 'again'");
	await hears(client, ["x:again"]);
});

test("RECONNECT renews the connection, and no notification is missed, heard twice, or out of order", async () => {
	await using proxy = await start({ pub_sub_channel_size: 100_000, workers: 2 });
	const clients = (await connectToBothWorkers(proxy, 1)).flat();
	for (const client of clients) await client.query("LISTEN x; LISTEN the_end");
	await using console = await admin(proxy);
	const listeners = async () => {
		const sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgdog listener' ORDER BY pid";
		// The other tests' proxy may have one, too, which stays.
		return (await cluster.primary.sql(sql)).map(({ pid }) => pid as number);
	};
	let over = false;
	let sent = 0;
	const noise = (async () => {
		while (!over) await clients[0]!.query(`NOTIFY x, '${sent++}'`);
	})();
	for (let round = 0; round < 5; round++) {
		const before = await listeners();
		await console.query("RECONNECT");
		await until(async () => {
			const now = await listeners();
			return now.length === before.length && before.filter((pid) => now.includes(pid)).length === before.length - 2;
		}, "new ones");
	}
	over = true;
	await noise;
	const expected = Array.from({ length: sent }, (_, i) => `x:${i}`);
	for (const client of clients) {
		await until(() => heard(client).length >= sent, "the last");
		expect(heard(client)).toEqual(expected);
	}
	// Also on what is listened to from then on.
	await clients[1]!.query("LISTEN y");
	await clients[0]!.query("NOTIFY y");
	await until(() => heard(clients[1]!).at(-1) === "y:", "the new channel's");
	expect(proxy.lines.filter((line) => /listens is lost|cannot listen/.test(line))).toEqual([]);
	for (const client of clients) client.close();
});

test("RECONNECT where the server lets no second connection in replaces the first, and tells", async () => {
	await using proxy = await start({ connect_timeout: 1_000 });
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	await using console = await admin(proxy);
	await cluster.primary.sql("ALTER ROLE pgdog CONNECTION LIMIT 1");
	try {
		await console.query("RECONNECT");
		await proxy.waitForLog(
			/listens is lost: reconnect, while no second one listens: too many connections.*its 2 channels/,
		);
	} finally {
		await cluster.primary.sql("ALTER ROLE pgdog CONNECTION LIMIT -1");
	}
	await proxy.waitForLog(/listening again on 2 channels/);
	await client.query("NOTIFY x");
	await hears(client, ["x:"]);
});

test("of more than may wait for a client the oldest are dropped: told, and counted", async () => {
	await using proxy = await start({ pub_sub_channel_size: 3 });
	await using client = await connect(proxy);
	await client.query("LISTEN x; LISTEN the_end");
	await client.query("BEGIN");
	for (let i = 0; i < 5; i++) await cluster.primary.sql(`NOTIFY x, '${i}'`);
	await proxy.waitForLog(/does not read its notifications.*channel: x/);
	await using console = await admin(proxy);
	await until(
		async () => (await show(console, "SHOW LISTENERS")).some(({ dropped }) => dropped === "2"),
		"two dropped",
	);
	await client.query("COMMIT");
	await hears(client, ["x:2", "x:3", "x:4"]);
});

test("a client that keeps its server for a lock is notified once, and not any more when it has given the channel up", async () => {
	await using client = await connect(common);
	await using other = await connect(common);
	for (const sql of ["SELECT pg_advisory_lock(1)", "LISTEN x", "LISTEN the_end", "NOTIFY x, '1'"])
		await client.query(sql);
	await other.query("NOTIFY x, '2'");
	await client.query("SELECT pg_advisory_unlock(1)");
	await other.query("NOTIFY x, '3'");
	await until(() => heard(client).length === 3, "the third");
	await client.query("UNLISTEN x");
	await other.query("NOTIFY x, '4'");
	await hears(client, ["x:1", "x:2", "x:3"]);
});

test("clients that go while they wait to listen leave nothing, and those of a pool of one server listen too", async () => {
	await using proxy = await start({ default_pool_size: 1 });
	for (let i = 0; i < 10; i++) {
		const gone = await connect(proxy);
		gone.send(f.query(`LISTEN gone${i}`));
		gone.close();
	}
	const clients = await Promise.all(Array.from({ length: 20 }, () => connect(proxy)));
	await Promise.all(
		clients.map(async (client, i) => {
			for (const sql of ["BEGIN", `LISTEN c${i}`, "COMMIT"]) await client.query(sql);
		}),
	);
	await Promise.all(clients.map((client, i) => client.query(`NOTIFY c${(i + 1) % 20}`)));
	await until(() => clients.every((client, i) => heard(client).join() === `c${i}:`), "all of them");
	await using console = await admin(proxy);
	await until(async () => (await show(console, "SHOW LISTENERS")).length === 20, "nobody else listens");
	for (const client of clients) client.close();
});

test("in pipelines of large rows and LISTENs every message is whole, and every notification comes, in order", async () => {
	await using client = await connect(common);
	await using other = await connect(common);
	await client.query("LISTEN noise");
	const rounds = 10;
	const said: Uint8Array[] = [];
	for (let i = 0; i < 20; i++) {
		said.push(f.query("SELECT repeat('a', 20000)"), f.query("BEGIN"), f.query(`LISTEN y${i}`));
		said.push(f.query(i % 2 === 0 ? "COMMIT" : "ROLLBACK"), f.parse(`UNLISTEN y${i}`), f.bind(), f.execute(), f.sync());
	}
	let over = false;
	let sent = 0;
	const noise = (async () => {
		while (!over && !other.ended) await other.query(`NOTIFY noise, '${sent++}'`);
	})();
	for (let round = 0; round < rounds; round++) {
		client.send(...said);
		for (let i = 0; i < 5 * 20; i++) expect((await client.result()).errors).toEqual([]);
		// So that no more wait than may.
		const now = sent - 1;
		await until(() => heard(client).length >= now, "what was notified meanwhile");
	}
	over = true;
	await noise;
	await until(() => heard(client).length === sent, "the last");
	expect(heard(client)).toEqual(Array.from({ length: sent }, (_, i) => `noise:${i}`));
});

test("where nothing can listen, LISTEN fails, and the client goes on", async () => {
	await using proxy = await start({ connect_timeout: 1_000 });
	await using client = await connect(proxy);
	await client.query("SELECT 1");
	await cluster.primary.sql("ALTER ROLE pgdog CONNECTION LIMIT 1");
	try {
		const { errors, status } = await client.query("LISTEN x");
		expect(errors).toMatchObject([{ C: "53300" }]);
		expect(status).toBe("I");
		await client.query("BEGIN");
		expect((await client.extended("LISTEN x")).status).toBe("E");
		await client.query("ROLLBACK");
	} finally {
		await cluster.primary.sql("ALTER ROLE pgdog CONNECTION LIMIT -1");
	}
	expect((await client.query("LISTEN x")).tags).toEqual(["LISTEN"]);
});

test("a CancelRequest ends a LISTEN that waits: for a connection to be opened, and for one that does not answer", async () => {
	await using proxy = await start({ connect_timeout: 60_000, checkout_timeout: 60_000 });
	const [client, other] = [await connect(proxy), await connect(proxy)];
	await client.query("SELECT 1");
	await using console = await admin(proxy);
	const cancels = async (name: string, listen: Promise<QueryResult>) => {
		await until(async () => (await show(console, "SHOW LISTENERS")).some(({ channel }) => channel === name), "LISTEN");
		const request = await RawClient.open({ port: proxy.port });
		request.send(f.cancelRequest(client.backendPid, client.backendKey));
		expect(await request.closed).toEqual([]);
		const { errors, status } = await listen;
		expect(errors).toMatchObject([{ C: "57014", M: "canceling statement due to user request" }]);
		return status;
	};
	const { pid } = cluster.primary;
	process.kill(pid!, "SIGSTOP");
	try {
		expect(await cancels("x", client.query("LISTEN x"))).toBe("I");
		expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
		await client.query("BEGIN");
		// While the server has something to answer, a CancelRequest is for that, and nobody would take it now.
		client.send(f.parse("LISTEN x"), f.flush());
		await client.until("1");
		client.send(f.bind(), f.execute(), f.sync());
		expect(await cancels("x", client.result())).toBe("E");
		await client.query("ROLLBACK");
	} finally {
		process.kill(pid!, "SIGCONT");
	}
	expect((await other.query("LISTEN x; LISTEN the_end")).tags).toEqual(["LISTEN", "LISTEN"]);
	const [listener] = await cluster.primary.sql(
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'pgdog listener' AND query LIKE '%the_end%'",
	);
	process.kill(listener!.pid as number, "SIGSTOP");
	try {
		expect(await cancels("y", client.query("LISTEN y"))).toBe("I");
		// On what is listened on already nobody waits.
		expect((await client.query("LISTEN x")).tags).toEqual(["LISTEN"]);
	} finally {
		process.kill(listener!.pid as number, "SIGCONT");
	}
	// A CancelRequest that comes when nothing waits is for nothing.
	expect((await client.query("LISTEN y; LISTEN the_end")).tags).toEqual(["LISTEN", "LISTEN"]);
	await client.query("NOTIFY x; NOTIFY y");
	await hears(client, ["x:", "y:"]);
	for (const each of [client, other]) each.close();
});

test("a client_encoding other than that of notifications is refused; what cannot be read for certain is as it was", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	await client.query("SET client_encoding = LATIN1");
	expect((await client.query("LISTEN x")).errors).toMatchObject([{ C: "0A000" }]);
	await client.query("SET client_encoding = UTF8");
	expect((await client.query('LISTEN U&"\\0078"')).tags).toEqual(["LISTEN"]);
	await using console = await admin(proxy);
	expect(await show(console, "SHOW LISTENERS")).toEqual([]);
});

test("with a replica, LISTEN and NOTIFY are the primary's", async () => {
	await using proxy = await startRouted(cluster, [], { pub_sub_channel_size: 10 });
	await using client = await connect(proxy);
	expect((await client.query("BEGIN")).tags).toEqual(["BEGIN"]);
	await client.query("LISTEN x");
	await client.query("COMMIT");
	await client.query("NOTIFY x, 'y'");
	await until(() => heard(client).length === 1, "the notification");
});

test("off, and in session mode, nothing changes", async () => {
	await using off = await start({ pub_sub_channel_size: 0 });
	await using a = await connect(off);
	await a.query("LISTEN x");
	await a.query("NOTIFY x");
	await a.query("SELECT 1");
	expect(heard(a)).toEqual([]);
	await using session = await start({ pooler_mode: "session" });
	await using b = await connect(session);
	await b.query("LISTEN x; LISTEN the_end");
	await b.query("NOTIFY x");
	await hears(b, ["x:"]);
	await using console = await admin(session);
	expect(await show(console, "SHOW LISTENERS")).toEqual([]);
});
