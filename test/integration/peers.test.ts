// Several instances of the proxy behind one address: a CancelRequest comes to any of them, and reaches its client (`[[peers]]`).

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { failProxy, type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, one, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

const socketFolder = mkdtempSync(join(tmpdir(), "pgdog-peers-"));
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(socketFolder, { recursive: true });
});

interface Peer {
	peer_id: number;
	host: string;
	port: number;
}

function options(peers: Peer[], own: number, port: number, general: Record<string, unknown> = {}) {
	const simple = simpleConfig(cluster.primary, { workers: 2, port, peer_id: own, min_pool_size: 0, ...general });
	return { ...simple, config: { ...(simple.config as object), peers, admin: { password: "pgdog" } } };
}

/** An instance on its own port. */
function start(peers: Peer[], own: number, port: number, general: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(options(peers, own, port, general));
}

const at = (peer_id: number, port: number, host = "127.0.0.1"): Peer => ({ peer_id, host, port });

/** Sends a CancelRequest with these keys to `port`; returns when it has done what it can. */
async function cancel(port: number, pid: number, key: Uint8Array): Promise<void> {
	await using request = await RawClient.open({ port });
	request.send(f.cancelRequest(pid, key));
	expect(await request.closed).toEqual([]);
}

/** A server that speaks no protocol: what each of its connections has sent. */
function listen(port: number, closes: boolean) {
	const heard: Buffer[] = [];
	const listener = Bun.listen<undefined>({
		hostname: "127.0.0.1",
		port,
		socket: {
			data(socket, chunk) {
				heard.push(Buffer.from(chunk));
				if (closes) socket.end();
			},
		},
	});
	return { heard, [Symbol.dispose]: () => listener.stop(true) };
}

test("two instances behind one address: a cancel finds its client from either", async () => {
	const [a, b, shared] = [freePort(), freePort(), freePort()];
	const peers = [at(1, a), at(2, b)];
	await using first = await start(peers, 1, a);
	await using second = await start(peers, 2, b);
	// Connections in turn to the one and the other.
	let turn = 0;
	using balancer = Bun.listen<{ to: Bun.Socket<Bun.Socket> | null; early: Buffer[] }>({
		hostname: "127.0.0.1",
		port: shared,
		socket: {
			async open(socket) {
				socket.data = { to: null, early: [] };
				const port = [first, second][turn++ % 2]!.port;
				const to = await Bun.connect<Bun.Socket>({
					hostname: "127.0.0.1",
					port,
					data: socket as unknown as Bun.Socket,
					socket: {
						data: (server, chunk) => void server.data.write(chunk),
						close: (server) => void server.data.end(),
					},
				});
				socket.data.to = to;
				for (const chunk of socket.data.early) to.write(chunk);
			},
			data({ data }, chunk) {
				if (data.to === null) data.early.push(Buffer.from(chunk));
				else data.to.write(chunk);
			},
			close: ({ data }) => void data.to?.end(),
		},
	});
	expect(balancer.port).toBe(shared);
	for (const version of [0x30000, 0x30002]) {
		// An odd number of connections for each: so the clients come to both.
		for (let i = 0; i < 4; i++) {
			await using client = await connect(first, { port: shared, version });
			const running = client.query("SELECT pg_sleep(20)");
			await untilRunning(cluster, "pg_sleep");
			await cancel(shared, client.backendPid, client.backendKey);
			expect((await running).errors[0]?.C).toBe("57014");
			expect(await one(client, "SELECT 'goes on'")).toBe("goes on");
			if (i % 2 === 1) turn++;
		}
	}
});

test("over a Unix socket; not with another's key; a reload finds new ones", async () => {
	const [a, b] = [freePort(), freePort()];
	await using first = await start([at(1, a), at(7, freePort())], 1, a);
	await using second = await start([at(1, a), at(7, b)], 7, b, { unix_socket_dir: socketFolder });
	await using client = await connect(second);
	const running = client.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	// Nobody is there yet.
	await cancel(first.port, client.backendPid, client.backendKey);
	first.writeConfig(options([at(1, a), at(7, b, socketFolder)], 1, a).config);
	await using console = await admin(first);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	await first.waitForLog(/reload: \[\[peers\]\] differs/);
	await cancel(first.port, client.backendPid, Buffer.from(client.backendKey).fill(1));
	await untilRunning(cluster, "pg_sleep");
	await cancel(first.port, client.backendPid, client.backendKey);
	expect((await running).errors[0]?.C).toBe("57014");
});

test("what was forwarded goes no further, whatever the peers are said to be", async () => {
	const [a, b] = [freePort(), freePort()];
	await using proxy = await start([at(1, a), at(2, b)], 1, a);
	using other = listen(b, true);
	await cancel(proxy.port, (2 << 17) | 5, Buffer.from([1, 2, 3, 4]));
	expect(other.heard.length).toBe(1);
	const [request] = other.heard;
	expect(request?.length).toBe(16);
	// The same, as if that instance took this one for the second.
	await using back = await RawClient.open({ port: proxy.port });
	back.send(request!);
	expect(await back.closed).toEqual([]);
	expect(other.heard.length).toBe(1);
});

test("an instance that does not answer costs no more than so many connections, and nobody else", async () => {
	const [a, b] = [freePort(), freePort()];
	await using proxy = await start([at(1, a), at(2, b), at(3, freePort())], 1, a, {
		workers: 1,
		connect_timeout: 3_000,
	});
	using other = listen(b, false);
	const ask = (peer: number) => cancel(proxy.port, (peer << 17) | 5, Buffer.from([1, 2, 3, 4]));
	const asked = Array.from({ length: 100 }, () => ask(2));
	await until(() => other.heard.length === 64, "64 to be under way");
	await using client = await connect(proxy);
	const running = client.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	await cancel(proxy.port, client.backendPid, client.backendKey);
	expect((await running).errors[0]?.C).toBe("57014");
	await Promise.all(asked);
	expect(other.heard.length).toBe(64);
	// They have made room; and one that is not there at all is none.
	await ask(3);
	const late = ask(2);
	await until(() => other.heard.length === 65, "another to be under way");
	await late;
});

test("ids that are given twice, or to nobody, are refused at the start", async () => {
	const port = freePort();
	const { log } = await failProxy(options([at(1, port), at(1, port)], 2, port));
	expect(log).toContain("peers[1].peer_id = 1: accepted is another than that of peers[0]");
	expect(log).toContain("general.peer_id = 2: accepted is the peer_id of one of [[peers]]");
});
