// A client that stops in the middle of a batch. The proxy may take its server then, and must answer as that server would have.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { backends, connect, one } from "../integration/support.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { transcript } from "../support/transcript.ts";
import { concat, frontend as f, message } from "../support/wire-frames.ts";

setDefaultTimeout(60_000);

/** Longer than a client may be quiet before more than its next message is waited for. */
const LONG = 600;
/** ms that the proxy waits before it ends a failed batch itself. */
const QUIET = 200;

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres({ databases: ["other"] });
	await cluster.primary.sql("CREATE TABLE written (who text)");
	await cluster.primary.sql("ALTER TABLE written OWNER TO pgdog");
});
afterAll(() => cluster?.stop());

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(simpleConfig(cluster.primary, { workers: 1, default_pool_size: 1, ...general }));
}

const written = () => cluster.primary.sql("SELECT who FROM written");

test("a message that is cut off in a batch that has failed is thrown away to its end, and none of it is a message", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	const smuggled = f.query("INSERT INTO written VALUES ('smuggled')");
	const value = concat(Buffer.alloc(1_200_000, 120), smuggled);
	const large = f.bind({ values: [value] });
	const rest = large.length - smuggled.length - 2;
	client.send(f.parse("SELEC"), large.subarray(0, 300_000));
	expect((await client.next()).code).toBe("E");
	await Bun.sleep(LONG);
	client.send(large.subarray(300_000, rest));
	client.send(large.subarray(rest), f.sync());
	const { messages } = await client.result();
	expect(messages.map(({ code }) => code)).toEqual(["Z"]);
	expect(await written()).toEqual([]);
	expect(await one(client, "SELECT 'on'")).toBe("on");
	expect(proxy.lines.filter((line) => /closing server connection/.test(line))).toEqual([]);
});

test("a server that dies while a failed batch is ended in its client's place takes the client along", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	await client.query("SELECT 1");
	const [backend] = await backends(cluster);
	const asked = performance.now();
	client.send(f.parse("SELEC"), f.flush());
	expect((await client.next()).code).toBe("E");
	process.kill(backend!.pid, "SIGSTOP");
	// On a machine that has no time for us the proxy may have ended the batch before that: then it has no server to lose.
	const isEnded = performance.now() - asked > QUIET / 2;
	try {
		await Bun.sleep(LONG);
		process.kill(backend!.pid, "SIGTERM");
	} finally {
		process.kill(backend!.pid, "SIGCONT");
	}
	// Another server would not know that it is to skip this.
	client.send(f.parse("INSERT INTO written VALUES ('not skipped')"), f.bind(), f.execute(), f.sync());
	const { messages, status } = await client.result();
	const outcome = [messages.map(({ code }) => code), status, client.ended];
	if (!isEnded || outcome[2]) expect(outcome).toEqual([["E"], "", true]);
	else expect(outcome).toEqual([["Z"], "I", false]);
	expect(await written()).toEqual([]);
	// Nor is one kept for it.
	await using next = await connect(proxy);
	expect(await one(next, "SELECT 'next'")).toBe("next");
});

/** Several messages that are all here, but no Sync or Flush: an error in them is told at once. */
const halves: Record<string, Uint8Array[]> = {
	"a Describe of nothing": [f.describe("S", "none")],
	"a Bind of too many values": [f.parse("SELECT 1"), f.bind({ values: ["1", "2"] })],
	"a Close of nothing, and an Execute of nothing": [f.close("S", "none"), f.execute("none")],
	"a Close of neither": [f.close("S", "none"), message("C", Buffer.from("X\0"))],
};

test("a batch without an end is answered as by PostgreSQL, in front of one server or several shards", async () => {
	const { host, port } = cluster.primary;
	const users = [{ name: "pgdog", database: "pgdog", password: "pgdog" }];
	const shards = ["pgdog", "other"].map((database_name, shard) => ({
		name: "pgdog",
		host,
		port,
		database_name,
		shard,
	}));
	await using single = await start();
	await using several = await startProxy({ config: { general: { workers: 1 }, databases: shards }, users });
	for (const [name, frames] of Object.entries(halves)) {
		const heard = async (port: number) => {
			await using client = await RawClient.connect({ port, user: "pgdog", password: "pgdog", database: "pgdog" });
			client.send(...frames);
			const messages = await client.until("E");
			client.send(f.execute("skipped"), f.sync());
			messages.push(...(await client.until("Z")));
			messages.push(...(await client.query("SELECT 'on'")).messages);
			return [name, transcript(messages)];
		};
		const expected = await heard(port);
		expect(await heard(single.port)).toEqual(expected);
		expect(await heard(several.port)).toEqual(expected);
	}
});

test("a COPY that fails with a Sync in its data, all in one write, gives no answer of what is behind it to another client", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	await using other = await connect(proxy);
	client.send(
		...[
			f.parse("COPY written FROM STDIN"),
			f.bind(),
			f.execute(),
			f.copyData("a\tb\n"),
			f.sync(),
			f.copyDone(),
			f.sync(),
		],
		f.query("SELECT 'not yours' FROM pg_sleep(0.3)"),
	);
	await client.until("E");
	const asked = other.query("SELECT 'mine'");
	expect((await asked).rows).toEqual([["mine"]]);
	// Which of the Syncs was answered cannot be known.
	expect((await client.closed).some(({ code }) => code === "E")).toBe(true);
	expect(proxy.lines.filter((line) => /broke the protocol/.test(line))).toEqual([]);
});

test("a statement that only its server has is still there when the batch goes on", async () => {
	await using proxy = await start({ prepared_statements: "disabled" });
	await using client = await connect(proxy);
	client.send(f.parse("SELECT 'own'", "own"), f.flush());
	expect((await client.next()).code).toBe("1");
	await Bun.sleep(LONG);
	client.send(f.bind({ statement: "own" }), f.execute(), f.sync());
	expect((await client.result()).rows).toEqual([["own"]]);
});
