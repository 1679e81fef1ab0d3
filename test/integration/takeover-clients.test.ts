// A takeover in which clients move to the new process with their sessions, and notice nothing; and what becomes of those who cannot.

import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { closeDescriptor } from "../../src/net/options.ts";
import { Channel, FRAME } from "../../src/net/passing.ts";
import { Authority } from "../support/certificates.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { heard } from "./listening.ts";
import { clientsOf, linuxOnly, successor } from "./successor.ts";
import { connect, one, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "pgdog-takeover-"));
const takeover_socket = join(folder, "takeover");
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true });
});

function options(general: Record<string, unknown>) {
	const own = { host: "127.0.0.1", takeover_socket, shutdown_timeout: 20_000, ...general };
	const { config, users } = simpleConfig(cluster.primary, own);
	return { config: { ...(config as object), admin: { password: "admin" } }, users, args: ["--takeover"] };
}

/** Sends a CancelRequest with the client's key to whoever listens. */
async function cancel(port: number, { backendPid, backendKey }: RawClient): Promise<void> {
	const request = await RawClient.open({ port });
	request.send(f.cancelRequest(backendPid, backendKey));
	await request.closed;
}

function filesOf({ pid }: Pick<Proxy, "pid">): number {
	return readdirSync(`/proc/${pid}/fd`).length;
}

linuxOnly.each([
	[3, 1],
	[1, 3],
	[0, 2],
])("from %p workers to %p: idle clients move with all that is theirs", async (before, after) => {
	const port = freePort();
	const config = (workers: number) => options({ port, unix_socket_dir: folder, workers });
	await using old = await startProxy(config(before));
	const unix = join(folder, `.s.PGSQL.${port}`);
	const parameters = { application_name: "traveller", extra_float_digits: "0" };
	const clients = await Promise.all([
		...Array.from({ length: 6 }, () => connect(old, { parameters })),
		connect(old, { unix, parameters }),
	]);
	for (const [i, client] of clients.entries()) {
		await client.query(`SET statement_timeout = '${i + 50} s'; SET search_path = "it's", public`);
		client.send(f.parse(`SELECT $1::text || ' of ${i}'`, "mine"), f.describe("S", "mine"), f.sync());
		await client.result();
		client.send(f.parse("SELECT 'unnamed'"), f.sync());
		await client.result();
	}
	const next = await successor(old, config(after));
	// Nobody has asked for anything since, and nobody is left.
	expect(await old.exited).toBe(0);
	expect(old.log).toContain(`takeover: ${clients.length} clients went to process ${next.pid}`);
	expect((await clientsOf(next)).map(({ application_name }) => application_name)).toEqual(
		clients.map(() => "traveller"),
	);
	for (const [i, client] of clients.entries()) {
		client.send(f.bind(), f.execute(), f.sync());
		expect((await client.result()).rows).toEqual([["unnamed"]]);
		client.send(f.bind({ statement: "mine", values: ["word"] }), f.execute(), f.sync());
		expect((await client.result()).rows).toEqual([[`word of ${i}`]]);
		expect(await one(client, "SHOW statement_timeout")).toBe(`${i + 50}s`);
		expect(await one(client, "SHOW search_path")).toBe(`"it's", public`);
		expect(await one(client, "SHOW extra_float_digits")).toBe("0");
	}
	// Its key is still its own.
	for (const client of clients.slice(-2)) {
		const running = client.query("SELECT pg_sleep(20)");
		await untilRunning(cluster, "pg_sleep");
		await cancel(port, client);
		expect((await running).errors[0]!.C).toBe("57014");
	}
	// And on, and on.
	const last = await successor(next, config(before));
	expect(await next.exited).toBe(0);
	await using newcomer = await connect(last);
	expect(clients.map(({ backendPid }) => backendPid)).not.toContain(newcomer.backendPid);
	for (const [i, client] of clients.entries()) {
		expect(await one(client, "SHOW statement_timeout")).toBe(`${i + 50}s`);
		client.close();
	}
	await until(async () => (await clientsOf(last)).length === 1, "the others to be gone");
	expect(await last.stop("SIGTERM")).toBe(0);
});

linuxOnly("who cannot move stays, moves when it can, or is told 57P01", async () => {
	using authority = await Authority.create();
	const { certificate, key } = await authority.issue({ name: "localhost", dns: ["localhost"] });
	const files = { tls_certificate: certificate, tls_private_key: key };
	const config = options({ port: freePort(), ...files, shutdown_timeout: 4_000, pub_sub_channel_size: 64 });
	await using old = await startProxy(config);
	await using encrypted = await connect(old, { tls: {} });
	await using pinned = await connect(old);
	await pinned.query("SELECT pg_advisory_lock(1)");
	await using listener = await connect(old);
	await listener.query("LISTEN news");
	await using busy = await connect(old);
	await busy.query("BEGIN");
	await using waiting = await connect(old);
	const asleep = waiting.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	await using next = await successor(old, config);
	expect(await one(encrypted, "SELECT 'here'")).toBe("here");
	// A key of a client that is still there is known here, too, by way of the other process.
	await cancel(next.port, waiting);
	expect((await asleep).errors[0]!.C).toBe("57014");
	expect(await one(pinned, "SELECT 'here'")).toBe("here");
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	await using herald = await connect(next);
	await herald.query("NOTIFY news");
	await until(() => listener.received.some(({ code }) => code === "A"), "the news");
	for (const client of [encrypted, pinned, listener])
		expect((await client.closed).map(({ body }) => body.toString("latin1")).join()).toContain("C57P01\0");
	expect(await old.exited).toBe(0);
	expect(old.log).toContain(`takeover: 2 clients went to process ${next.pid}`);
	for (const client of [busy, waiting]) expect(await one(client, "SELECT 'there'")).toBe("there");
});

linuxOnly(
	"who listens no more moves, and what listens by a statement that was prepared before is heard there",
	async () => {
		const config = options({ port: freePort(), pub_sub_channel_size: 64 });
		await using old = await startProxy(config);
		const sayings: (string | Uint8Array[])[][] = [
			["LISTEN news", "UNLISTEN news"],
			["BEGIN", "LISTEN news", "ROLLBACK"],
			[[f.parse("LISTEN news", "mine"), f.sync()]],
			[[f.parse("LISTEN news"), f.sync()]],
			[[f.parse("LISTEN news", "mine"), f.bind({ statement: "mine" }), f.execute(), f.sync()], "UNLISTEN *"],
		];
		const clients = await Promise.all(sayings.map(() => connect(old)));
		for (const [i, client] of clients.entries()) {
			for (const said of sayings[i]!) {
				client.send(...(typeof said === "string" ? [f.query(said)] : said));
				expect((await client.result()).errors).toEqual([]);
			}
		}
		const next = await successor(old, config);
		expect(await old.exited).toBe(0);
		await using herald = await connect(next);
		/** Who of them hears it. */
		const hearers = async (news: string) => {
			await herald.query(`NOTIFY news, '${news}'`);
			await using last = await connect(next);
			// What was notified before it listens is behind the others, if it comes at all.
			await last.query("LISTEN news");
			await herald.query("NOTIFY news, 'last'");
			await until(() => heard(last).includes("news:last"), "the last");
			return clients.flatMap((client, i) => (heard(client).includes(`news:${news}`) ? [i] : []));
		};
		expect(await hearers("first")).toEqual([]);
		for (const [i, statement] of [
			[2, "mine"],
			[3, ""],
			[4, "mine"],
		] as const) {
			clients[i]!.send(f.bind({ statement }), f.execute(), f.sync());
			expect((await clients[i]!.result()).tags).toEqual(["LISTEN"]);
		}
		expect(await hearers("second")).toEqual([2, 3, 4]);
		for (const client of clients) client.close();
		expect(await next.stop("SIGTERM")).toBe(0);
	},
);

linuxOnly("those of one worker are spread over all of the new process", async () => {
	const port = freePort();
	const config = (workers: number) => options({ port, workers, pub_sub_channel_size: 64 });
	await using old = await startProxy(config(1));
	const clients = await Promise.all(Array.from({ length: 6 }, () => connect(old)));
	const next = await successor(old, config(3));
	expect(await old.exited).toBe(0);
	// Each worker listens for its own clients.
	for (const client of clients) expect((await client.query("LISTEN news")).tags).toEqual(["LISTEN"]);
	const listeners = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgdog listener'";
	expect(await one(clients[0]!, listeners)).toBe("3");
	expect(await clientsOf(next)).toHaveLength(6);
	for (const client of clients) {
		const running = client.query("SELECT pg_sleep(20)");
		await untilRunning(cluster, "pg_sleep");
		await cancel(next.port, client);
		expect((await running).errors[0]!.C).toBe("57014");
		client.close();
	}
	expect(await next.stop("SIGTERM")).toBe(0);
});

linuxOnly("who is busy during two takeovers moves to the last process, and is cancelled by way of both", async () => {
	const config = options({ port: freePort() });
	await using old = await startProxy(config);
	await using busy = await connect(old);
	await busy.query("BEGIN");
	await using waiting = await connect(old);
	const asleep = waiting.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	// Nobody comes to the process in the middle.
	await using next = await successor(old, config);
	await using last = await successor(next, config);
	// Longer than a process without clients stays.
	await Bun.sleep(1_500);
	await cancel(last.port, waiting);
	expect((await asleep).errors[0]!.C).toBe("57014");
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await old.exited).toBe(0);
	expect(await next.exited).toBe(0);
	for (const client of [busy, waiting]) expect(await one(client, "SELECT 'there'")).toBe("there");
	expect(await clientsOf(last)).toHaveLength(2);
});

linuxOnly("whom the new process does not take stays in the old one", async () => {
	const port = freePort();
	const before = options({ port, shutdown_timeout: 3_000 });
	const users = ["pgdog", "guest"].map((name) => ({ name, database: "pgdog", password: "pgdog" }));
	const server = { server_user: "pgdog", server_password: "pgdog" };
	await using old = await startProxy({ ...before, users: users.map((user) => ({ ...user, ...server })) });
	await using guest = await connect(old, { user: "guest" });
	await using first = await connect(old);
	await using second = await connect(old);
	const after = options({ port, max_client_connections: 1 });
	await using next = await successor(old, after);
	await old.waitForLog(/stays here, and maybe others: its user and database are not in the configuration/);
	await old.waitForLog(/stays here, and maybe others: the new process has no seat for it/);
	for (const client of [guest, first, second]) expect(await one(client, "SELECT 1")).toBe("1");
	expect(await old.exited).toBe(0);
	await until(() => [guest, first, second].filter(({ ended }) => ended).length === 2, "two to be told to go");
	const [gone, left] = first.ended ? [first, second] : [second, first];
	for (const { ended, received } of [guest, gone]) {
		expect(ended).toBe(true);
		expect(received.at(-1)!.body.toString("latin1")).toContain("C57P01\0");
	}
	expect(await one(left, "SELECT 1")).toBe("1");
	expect(await next.stop("SIGTERM")).toBe(0);
});

/** Plays the new process as far as the old one's clients. */
async function play(old: Proxy): Promise<Channel> {
	const channel = Channel.open(takeover_socket)!;
	channel.send("takeover\n");
	for (const fd of channel.receive().descriptors) closeDescriptor(fd);
	channel.send("listening\n");
	expect(channel.receive().text).toBe("yours\n");
	await old.waitForLog(/goes on as process/);
	channel.send("clients\n");
	return channel;
}

/** The next frame that comes: its words, and how many descriptors came with it. */
async function hear(channel: Channel): Promise<[string, number]> {
	let received = channel.receiveNow(FRAME);
	await until(() => {
		received ??= channel.receiveNow(FRAME);
		return received !== null;
	}, "a frame");
	for (const fd of received!.descriptors) closeDescriptor(fd);
	return [received!.text.trim(), received!.descriptors.length];
}

linuxOnly.each(["dies", "hangs", "talks nonsense", "refuses", "is told to keep away"])(
	"a new process that %s while it takes a client leaves it to the old one",
	async (how) => {
		await using old = await startProxy(options({ port: freePort() }));
		await using client = await connect(old);
		await client.query("SET statement_timeout = '50 s'");
		const files = filesOf(old);
		const channel = await play(old);
		expect(await hear(channel)).toEqual([`client ${client.backendPid}`, 2]);
		// What it asks now is answered by whoever has it in the end.
		const asked = one(client, "SHOW statement_timeout");
		if (how === "dies") channel.close();
		else if (how === "talks nonsense") channel.send("GET / HTTP/1.1\r\n\r\n");
		else if (how === "refuses") channel.send(`refused ${client.backendPid} for no reason\n`);
		else if (how === "is told to keep away") {
			channel.send(`refused ${client.backendPid} for no reason\nready ${client.backendPid}\n`);
			expect(await hear(channel)).toEqual([`keep ${client.backendPid}`, 0]);
		}
		expect(await asked).toBe("50s");
		if (how !== "dies") channel.close();
		await until(() => filesOf(old) <= files - 1, "its files to be what they were, without those it listened on");
		expect(await one(client, "SHOW statement_timeout")).toBe("50s");
		client.close();
		expect(await old.exited).toBe(0);
	},
);

linuxOnly("clients of an old process that dies in the middle of a takeover are closed, and hang nowhere", async () => {
	const config = options({ port: freePort() });
	const old = await startProxy(config);
	const clients = await Promise.all(Array.from({ length: 100 }, () => connect(old)));
	await using next = await startProxy(config);
	old.signal("SIGKILL");
	await old.exited;
	// Whoever had moved goes on, whoever had not has lost the connection.
	const answers = await Promise.all(clients.map((client) => one(client, "SELECT 1").catch(() => "lost")));
	expect(answers.every((answer, i) => answer === "1" || clients[i]!.ended)).toBe(true);
	expect(await one(await connect(next), "SELECT 1")).toBe("1");
	for (const client of clients) client.close();
});

linuxOnly("takeover after takeover under load: nothing fails, nobody is lost, and all have moved", async () => {
	const port = freePort();
	const login = { port, user: "pgdog", password: "pgdog", database: "pgdog" };
	const proxies = [await startProxy(options({ port, workers: 2 }))];
	const clients = await Promise.all(Array.from({ length: 12 }, () => RawClient.connect(login)));
	for (const [i, client] of clients.entries()) {
		await client.query(`SET application_name = 'client ${i}'`);
		client.send(f.parse("SELECT current_setting('application_name') || $1::text", "mine"), f.sync());
		await client.result();
	}
	const [busy, idle] = [clients.slice(0, 4), clients.slice(4)];
	let isOver = false;
	let served = 0;
	/** Asks by the statement that it has prepared, in a transaction; or comes, asks and goes. */
	const work = async (ask: () => Promise<void>) => {
		for (; !isOver; served++) await ask();
	};
	const ask = async (client: RawClient, i: number) => {
		client.send(f.query("BEGIN"), f.bind({ statement: "mine", values: ["!"] }), f.execute(), f.sync());
		client.send(f.query("COMMIT"));
		const answers = [await client.result(), await client.result(), await client.result()];
		expect(answers.flatMap(({ errors }) => errors)).toEqual([]);
		expect(answers[1]!.rows).toEqual([[`client ${i}!`]]);
	};
	const visit = async () => {
		await using visitor = await RawClient.connect(login);
		expect(await one(visitor, "SELECT 'visitor'")).toBe("visitor");
	};
	const all = Promise.all([...busy.map((client, i) => work(() => ask(client, i))), work(visit), work(visit)]);
	for (const workers of [1, 3, 0, 2]) {
		const old = proxies.at(-1)!;
		const next = await successor(old, options({ port, workers }));
		proxies.push(next);
		// Nobody leaves of their own accord.
		expect(await old.exited).toBe(0);
		const moved = Number(/takeover: (\d+) clients went/.exec(old.log)?.[1]);
		expect(moved).toBeGreaterThanOrEqual(clients.length);
		const before = served;
		await until(() => served > before + 20, "some more to be served");
	}
	isOver = true;
	await all;
	for (const [i, client] of idle.entries()) await ask(client, i + busy.length);
	for (const client of clients) client.close();
	expect(await proxies.pop()!.stop("SIGTERM")).toBe(0);
	for (const { log } of proxies) expect(log).not.toMatch(/WARNING takeover|ERROR/);
});
