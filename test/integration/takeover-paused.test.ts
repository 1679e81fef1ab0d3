// A takeover in the middle of an operator's maintenance: who is paused stays so in the new process, and PAUSE and RESUME are obeyed by
// all processes that have clients, whichever of them is told.

import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { closeDescriptor, descriptor } from "../../src/net/options.ts";
import { Channel, FRAME, frame, readMemoryFile, sendDescriptors, writeMemoryFile } from "../../src/net/passing.ts";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyUser, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until, within } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { clientsOf, linuxOnly, successor } from "./successor.ts";
import { admin, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "pgdog-takeover-"));
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true });
});

const SERVER = { server_user: "pgdog", server_password: "pgdog" };

function options(port: number, users = ["alice", "bob"], general: Record<string, unknown> = {}) {
	const { host, port: target } = cluster.primary;
	return {
		config: {
			general: {
				host: "127.0.0.1",
				port,
				takeover_socket: join(folder, String(port)),
				shutdown_timeout: 20_000,
				...general,
			},
			databases: [{ name: "pgdog", host, port: target }],
			admin: { password: "admin" },
		},
		users: users.map((name): ProxyUser => ({ name, database: "pgdog", password: "pgdog", ...SERVER })),
		args: ["--takeover"],
	};
}

/** Who is paused, by the admin database of a proxy. */
async function pausedOf(console: RawClient): Promise<(string | null)[]> {
	return (await show(console, "SHOW POOLS")).filter(({ paused }) => paused === "t").map(({ user }) => user!);
}

async function untilWaiting(proxy: Proxy, count: number): Promise<void> {
	const waiting = async () => (await clientsOf(proxy)).filter(({ state }) => state === "waiting").length;
	await until(async () => (await waiting()) === count, `${count} to wait`);
}

linuxOnly("who is paused is so in the new process from its first client on, and RESUME there serves all", async () => {
	const port = freePort();
	await using old = await startProxy(options(port, ["alice", "bob", "carol"]));
	const idle = await connect(old, { user: "alice" });
	const waiting = await connect(old, { user: "alice" });
	const free = await connect(old, { user: "bob" });
	{
		await using console = await admin(old, "admin");
		await show(console, "PAUSE alice pgdog");
		await show(console, "PAUSE carol pgdog");
	}
	// It stays in the old process, and has to hear of RESUME there.
	const asleep = one(waiting, "SELECT 'awake'");
	await untilWaiting(old, 1);
	let answered = 0;
	let isOver = false;
	const visits: Promise<void>[] = [];
	/** Whoever comes meanwhile. */
	const visit = async () => {
		await using visitor = await connect(old, { user: "alice" });
		expect(await one(visitor, "SELECT 'visitor'")).toBe("visitor");
		answered++;
	};
	const crowd = (async () => {
		for (; !isOver; await Bun.sleep(5)) visits.push(visit());
	})();
	// The new one's configuration has no carol: of her it is not said any more.
	await using next = await successor(old, options(port));
	await next.waitForLog(/takeover: 1 pools are paused as they were, until RESUME/);
	await old.waitForLog(/takeover: \d+ clients went|goes on as process/);
	expect(await one(free, "SELECT 'free'")).toBe("free");
	await until(async () => (await clientsOf(next)).some(({ id }) => id === String(idle.backendPid)), "alice to come");
	idle.send(f.query("SELECT 'idle'"));
	await until(async () => (await clientsOf(next)).some(({ state }) => state === "waiting"), "alice to wait");
	isOver = true;
	await crowd;
	expect(answered).toBe(0);
	expect(idle.pending()).toEqual([]);
	await using console = await admin(next, "admin");
	expect(await pausedOf(console)).toEqual(["alice"]);
	await show(console, "RESUME alice pgdog");
	expect(await asleep).toBe("awake");
	expect((await idle.result()).rows).toEqual([["idle"]]);
	await Promise.all(visits);
	expect(answered).toBe(visits.length);
	expect(await pausedOf(console)).toEqual([]);
	expect(await old.exited).toBe(0);
	for (const client of [idle, waiting, free]) {
		expect(await one(client, "SELECT 'there'")).toBe("there");
		client.close();
	}
});

linuxOnly("PAUSE and RESUME said to one of three processes are obeyed by all", async () => {
	const port = freePort();
	const proxies = [await startProxy(options(port))];
	const consoles: RawClient[] = [];
	const busy: RawClient[] = [];
	for (let i = 0; i < 3; i++) {
		const proxy = proxies.at(-1)!;
		consoles.push(await admin(proxy, "admin"));
		// It keeps its process.
		busy.push(await connect(proxy, { user: "bob" }));
		await busy.at(-1)!.query("BEGIN");
		if (i < 2) proxies.push(await successor(proxy, options(port)));
	}
	for (const speaker of consoles) {
		const newcomer = await connect(proxies[2]!, { user: "alice" });
		await show(speaker, "PAUSE alice pgdog");
		for (const console of consoles) expect(await pausedOf(console)).toEqual(["alice"]);
		newcomer.send(f.query("SELECT 'late'"));
		await until(async () => (await clientsOf(proxies[2]!)).some(({ state }) => state === "waiting"), "it to wait");
		await show(speaker, "RESUME");
		for (const console of consoles) expect(await pausedOf(console)).toEqual([]);
		expect((await newcomer.result()).rows).toEqual([["late"]]);
		newcomer.close();
	}
	// One in the middle that dies is waited for by nobody.
	await show(consoles[0]!, "PAUSE");
	for (const console of consoles) expect(await pausedOf(console)).toEqual(["alice", "bob"]);
	proxies[1]!.signal("SIGKILL");
	await proxies[1]!.exited;
	await within(show(consoles[0]!, "RESUME"), "the first to answer", 2_000);
	expect(await pausedOf(consoles[2]!)).toEqual(["alice", "bob"]);
	await within(show(consoles[2]!, "RESUME"), "the last to answer", 2_000);
	for (const client of [busy[0]!, busy[2]!]) expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
	for (const client of [...consoles, ...busy]) client.close();
	expect(await proxies[0]!.exited).toBe(0);
	expect(await proxies[2]!.stop("SIGTERM")).toBe(0);
});

/** Plays the new process: what it is told, and the channel to say more. */
function play({ port }: Proxy): { paused: unknown; channel: Channel } {
	const channel = Channel.open(join(folder, String(port)))!;
	channel.send("takeover\n");
	for (const fd of channel.receive().descriptors) closeDescriptor(fd);
	channel.send("listening\n");
	const { text, descriptors } = channel.receive();
	expect([text, descriptors.length]).toEqual(["yours\n", 1]);
	const paused = JSON.parse(Buffer.from(readMemoryFile(descriptors[0]!, 1 << 20)!).toString());
	closeDescriptor(descriptors[0]!);
	return { paused, channel };
}

/** The next frame: its words, and what has come with it. */
async function hear(channel: Channel): Promise<string> {
	let received = channel.receiveNow(FRAME);
	await until(() => {
		received ??= channel.receiveNow(FRAME);
		return received !== null;
	}, "a frame");
	const [file = -1] = received!.descriptors;
	const text = Buffer.from(readMemoryFile(file, 1 << 20) ?? []).toString();
	if (file >= 0) closeDescriptor(file);
	return `${received!.text.trim()} ${text}`.trim();
}

linuxOnly("PAUSE in the middle of a takeover is told the new process once that can hear it", async () => {
	await using old = await startProxy(options(freePort()));
	await using console = await admin(old, "admin");
	await using busy = await connect(old, { user: "bob" });
	await busy.query("BEGIN");
	await show(console, "PAUSE bob pgdog");
	const { paused, channel } = play(old);
	expect(paused).toEqual({ paused: [["bob", "pgdog"]] });
	const pausing = show(console, "PAUSE");
	await until(async () => {
		await using other = await connect(old, { user: "alice" }).catch(() => null);
		return other === null;
	}, "the old one to accept nobody");
	channel.send("clients 2\n");
	expect(await hear(channel)).toBe('order 1 {"order":"pause","user":null,"database":null}');
	channel.send("obeyed 1\n");
	await pausing;
	channel.send('order 7 {"order":"resume","user":"alice","database":null}\norder 8 {"order":"go"}\norder 9 x\n');
	expect(await hear(channel)).toBe("obeyed 7");
	expect(await pausedOf(console)).toEqual(["bob"]);
	// Who does not answer is not waited for for long.
	await within(show(console, "RESUME"), "the old one to answer", 6_000);
	expect(await hear(channel)).toBe('order 2 {"order":"resume","user":null,"database":null}');
	channel.close();
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
});

linuxOnly("a new process of a version that knows no orders is told none, and nobody waits for it", async () => {
	await using old = await startProxy(options(freePort()));
	await using console = await admin(old, "admin");
	await using busy = await connect(old, { user: "bob" });
	await busy.query("BEGIN");
	const { channel } = play(old);
	const early = show(console, "PAUSE");
	channel.send("clients\n");
	await within(early, "the first answer", 2_000);
	await within(show(console, "RESUME"), "the second answer", 2_000);
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	// The first that is said is of a client.
	expect(await hear(channel)).toStartWith("client ");
	channel.close();
});

linuxOnly("RESUME said to the new process in the middle of a takeover is obeyed by both", async () => {
	const port = freePort();
	const said: string[] = [];
	let heir: Socket<undefined> | null = null;
	const tcp = Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } });
	const onLine = (socket: Socket<undefined>, line: string) => {
		if (line === "listening\n") heir = socket;
		else if (line === "takeover\n") {
			const { fd } = tcp as unknown as { fd: number };
			sendDescriptors(descriptor(socket), `${JSON.stringify({ host: "127.0.0.1", port })}\n`, [fd]);
			tcp.stop();
		} else said.push(...line.trim().split("\n"));
	};
	const data = (socket: Socket<undefined>, chunk: Buffer) => onLine(socket, chunk.toString());
	using _ = Bun.listen<undefined>({ unix: join(folder, String(port)), socket: { data } });
	// Whether somebody listens there the new one has to find out, before it hears of clients.
	using __ = Bun.listen({ unix: join(folder, `.s.PGSQL.${port}`), socket: { data() {} } });
	const starting = startProxy(options(port, undefined, { workers: 1, unix_socket_dir: folder }));
	await until(() => heir !== null, "the new process to listen");
	const door = { port, user: "admin", password: "admin", database: "admin" };
	await using console = await RawClient.connect(door);
	console.send(f.query("RESUME alice pgdog"));
	// By then the worker has read it.
	await using _other = await RawClient.connect(door);
	const paused = writeMemoryFile(Buffer.from('{"paused":[["alice","pgdog"],["bob","pgdog"]]}'));
	sendDescriptors(descriptor(heir!), "yours\n", [paused]);
	closeDescriptor(paused);
	await using proxy = await starting;
	await until(() => said.length > 1, "what it says");
	expect(said[0]).toStartWith("clients ");
	expect(said[1]).toBe('order 1 {"order":"resume","user":"alice","database":"pgdog"}');
	heir!.write(frame("obeyed", 1));
	expect((await console.result()).tags).toEqual(["RESUME"]);
	expect(await pausedOf(console)).toEqual(["bob"]);
	expect(await proxy.stop("SIGTERM")).toBe(0);
});
