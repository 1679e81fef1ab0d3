// One Worker on the test's own thread, told by messages what the main thread would tell it. Threads: integration/workers.test.ts.

import { afterAll, afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { stringify } from "smol-toml";
import type { MovingServer } from "../src/backend/moving-server.ts";
import type { MovingClient } from "../src/client/moving-client.ts";
import { now } from "../src/clock.ts";
import { diff, firstUpdate, updateOf } from "../src/config/diff.ts";
import { load } from "../src/config/load.ts";
import { problemText } from "../src/config/problem.ts";
import type { Snapshot } from "../src/config/snapshot.ts";
import type { FromWorker, PeerMessage } from "../src/messages.ts";
import { connect } from "../src/net/connect.ts";
import { Descriptors } from "../src/net/descriptors.ts";
import { closeDescriptor } from "../src/net/options.ts";
import { Stream, socketHandlers } from "../src/net/stream.ts";
import { NO_HINTS } from "../src/parser/hints.ts";
import { Reading } from "../src/parser/reading.ts";
import { Ledger } from "../src/pool/ledger.ts";
import { Vitals } from "../src/pool/vitals.ts";
import { Counters } from "../src/stats/counters.ts";
import { Loads } from "../src/stats/loads.ts";
import { Worker } from "../src/worker.ts";
import { until } from "./support/until.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-worker-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const open: Worker[] = [];
afterEach(() => {
	for (const worker of open.splice(0)) worker.onMessage({ type: "close" });
});

/** One database `d` and its users, each with a pool of one. */
function snapshotOf(port: number, users: readonly Record<string, string>[]): Snapshot {
	const [configPath, usersPath] = [join(folder, "pgdog.toml"), join(folder, "users.toml")];
	const general = { default_pool_size: 1, min_pool_size: 0, log_level: "off" };
	writeFileSync(configPath, stringify({ general, databases: [{ name: "d", host: "127.0.0.1", port }] }));
	const entries = users.map((user) => ({ database: "d", password: "secret", ...user }));
	writeFileSync(usersPath, stringify({ users: entries }));
	const loaded = load({ configPath, usersPath, databaseUrls: [], overrides: {}, env: {} });
	if (!loaded.ok) throw new Error(loaded.problems.map(problemText).join("\n"));
	return loaded.snapshot;
}

/** Worker `index` of two, and the memory that it shares with the other, with room for the pools of `largest` too. */
function workerOf(snapshot: Snapshot, largest = snapshot, index = 0) {
	const keys = largest.clusters.flatMap(({ pools }) => pools.map(({ key }) => key));
	const slots = new Map(keys.map((key, slot) => [key, slot]));
	const capacity = slots.size;
	const ledger = new Ledger(capacity, 2);
	const loads = new Loads(2);
	const setup = {
		index,
		workers: 2,
		version: "test",
		update: firstUpdate(snapshot),
		plugins: { bridge: [], plugins: [] },
		slots,
		capacity,
		ledger: ledger.memory,
		counters: new Counters(capacity, 2).memory,
		vitals: new Vitals(capacity).memory,
		attendance: new SharedArrayBuffer(4 * 8),
		loads: loads.memory,
		scramSecret: new Uint8Array(32),
		sockets: [],
		isSuccessor: false,
		instance: "1234abcd",
	};
	const said: FromWorker[] = [];
	const worker = new Worker(setup, (message) => said.push(message));
	open.push(worker);
	const servers = () => {
		worker.onMessage({ type: "rows", id: 0, of: "servers" });
		const last = said.at(-1);
		return last?.type === "rows" ? last.rows.length : 0;
	};
	let current = snapshot;
	const reload = (after: Snapshot) => {
		const difference = diff(current, after);
		current = difference.next;
		worker.onMessage({ type: "reload", update: updateOf(difference), slots, paused: new Set() });
	};
	return {
		servers,
		worker,
		ledger,
		loads,
		slots,
		said,
		reload,
	};
}

/** Something to be connected to. */
function peer() {
	const state = { opened: 0, closed: 0 };
	const listener = Bun.listen({
		hostname: "127.0.0.1",
		port: 0,
		socket: {
			open: () => void state.opened++,
			close: () => void state.closed++,
			data() {},
		},
	});
	return { state, port: listener.port, [Symbol.dispose]: () => listener.stop(true) };
}

const handlers = socketHandlers((error) => {
	throw error;
});

/** A client as another worker would give it away: the proxy's end of a connection, and what it says of it. */
async function movingClient(user: string) {
	const accepted = Promise.withResolvers<Socket<Stream>>();
	const listener = Bun.listen<Stream>({
		hostname: "127.0.0.1",
		port: 0,
		socket: { open: (socket) => accepted.resolve(socket), data() {} },
	});
	const heard: Buffer[] = [];
	const ended = Promise.withResolvers<void>();
	const remote = await Bun.connect({
		hostname: "127.0.0.1",
		port: listener.port,
		socket: { data: (_, chunk) => void heard.push(chunk), close: () => ended.resolve() },
	});
	const stream = new Stream(await accepted.promise);
	listener.stop();
	const client: MovingClient = {
		fd: stream.detach(),
		bytesIn: 100,
		bytesOut: 200,
		user,
		database: "d",
		address: "127.0.0.1:1",
		pid: 77,
		secret: Uint8Array.of(1, 2, 3, 4),
		connectedAt: Date.now() - 60_000,
		errors: 3,
		link: {
			settings: { startup: [], wanted: [["search_path", "s"]], told: [["TimeZone", "UTC"]] },
			session: {
				startup: NO_HINTS,
				hints: NO_HINTS,
				wroteAt: 5,
				reading: { settled: Reading.Standard, stale: ["old"] },
			},
			statements: {
				names: [
					{
						name: "mine",
						rest: Uint8Array.from(Buffer.from("SELECT $1\0\0\0")),
						description: { types: Buffer.from([0, 1, 0, 0, 0, 23]), key: "exact", portable: "alike" },
					},
				],
				unnamed: { rest: Uint8Array.from(Buffer.from("SELECT 2\0\0\0")), textLength: 8, told: null },
			},
			answeredAt: 6,
			queries: 70,
			transactions: 8,
			queryTime: 9,
			transactionTime: 10,
			waitTime: 11,
		},
	};
	return { client, remote, heard, ended: ended.promise };
}

/** A connection as another worker would give it away. */
async function moving(port: number, generation: number): Promise<MovingServer> {
	const stream = await connect({ host: "127.0.0.1", port }, 5_000, UNHEARD, {
		handlers,
		keepAlive: { keepalive: false },
		descriptors: new Descriptors(),
		tls: null,
	});
	return {
		fd: stream.detach(),
		address: "127.0.0.1",
		pid: 1,
		secret: new Uint8Array(4),
		applied: [],
		reported: [],
		statements: [],
		bornAt: now(),
		usedAt: now(),
		checkedAt: now(),
		spread: 3_600_000,
		generation,
	};
}

const UNHEARD = { onData() {}, onDrain() {}, onClose() {} };

test("a server that another worker gives to a pool that a reload took away is closed, and its permit comes back", async () => {
	using server = peer();
	const before = snapshotOf(server.port, [{ name: "stays" }, { name: "goes" }]);
	const after = snapshotOf(server.port, [{ name: "stays" }]);
	const { worker, ledger } = workerOf(after, before);
	// The other worker's, which it gives away with the server.
	expect(ledger.acquire(1, 1)).toBe(true);
	worker.onMessage({ type: "give-server", slot: 1, server: await moving(server.port, 1), caps: [] });
	await until(() => server.state.closed === 1, "the connection to be closed");
	expect(ledger.used(1)).toBe(0);
});

// It would have been lent to clients who must have another role.
test("a server that is under way while its pool goes, and comes back as another user's, is not lent by the new one", async () => {
	using server = peer();
	const before = snapshotOf(server.port, [{ name: "stays" }, { name: "u", server_user: "one" }]);
	const { worker, ledger, servers, reload } = workerOf(before);
	const { generation } = worker;
	ledger.acquire(1, 1);
	worker.onMessage({ type: "give-server", slot: 1, server: await moving(server.port, generation), caps: [] });
	await until(() => servers() === 1, "the first to be taken in");
	const second = await moving(server.port, generation);
	reload(snapshotOf(server.port, [{ name: "stays" }]));
	reload(snapshotOf(server.port, [{ name: "stays" }, { name: "u", server_user: "two" }]));
	ledger.acquire(1, 1);
	worker.onMessage({ type: "give-server", slot: 1, server: second, caps: [] });
	await until(() => server.state.closed === 2, "both to be closed");
	expect([servers(), ledger.used(1)]).toEqual([0, 0]);
});

// The port was dead for good, while the process lived.
test("a worker that cannot listen again goes on trying, says so once, and tells the main thread when it does", async () => {
	using server = peer();
	const at = (port: number) => {
		const snapshot = snapshotOf(server.port, [{ name: "u" }]);
		return { ...snapshot, general: { ...snapshot.general, host: "127.0.0.1", port } };
	};
	const { worker, said, slots } = workerOf(at(0));
	const warnings: string[] = [];
	Object.assign(worker.log, { warn: (line: string) => warnings.push(line) });
	worker.start(true);
	const listening = () => said.filter(({ type }) => type === "listening").length;
	expect(listening()).toBe(1);
	const taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
	worker.onMessage({ type: "reload", update: firstUpdate(at(taken.port)), slots, paused: new Set() });
	worker.onMessage({ type: "listen" });
	await Bun.sleep(350);
	expect(listening()).toBe(1);
	expect(warnings).toEqual([expect.stringMatching(/^worker 0 cannot listen again yet: .*in use/)]);
	taken.stop(true);
	await until(() => listening() === 2, "the worker to listen");
	const client = await Bun.connect({ hostname: "127.0.0.1", port: taken.port, socket: { data() {} } });
	client.end();
});

test("a reload touches the users and databases that it changes, and no other", () => {
	using server = peer();
	const users: Record<string, string>[] = [{ name: "stays" }, { name: "u", server_user: "one" }, { name: "goes" }];
	const before = snapshotOf(server.port, users);
	const { worker, reload } = workerOf(before);
	const logins = () => ["stays", "u", "goes"].map((user) => worker.find(user, "d"));
	const [stays, u] = logins();
	expect(stays).not.toBeNull();
	reload(snapshotOf(server.port, users));
	expect(logins()[0]).toBe(stays!);
	expect(logins()[1]).toBe(u!);
	reload(snapshotOf(server.port, [{ name: "stays" }, { name: "u", server_user: "two" }]));
	const [same, changed, gone] = logins();
	expect(same).toBe(stays!);
	expect(changed).not.toBe(u!);
	// Its pool is the same: its servers are replaced, one by one.
	expect(changed!.cluster.first).toBe(u!.cluster.first);
	expect(changed!.cluster.first.spec.server_user).toBe("two");
	expect(gone).toBeNull();
});

test("a client that another worker gives is here what it was there, and goes on as that to another", async () => {
	using server = peer();
	const { general, ...snapshot } = snapshotOf(server.port, [{ name: "u" }]);
	const here = { ...snapshot, general: { ...general, host: "127.0.0.1", port: 0 } };
	const { worker, said, loads } = workerOf(here, here, 1);
	const { client, remote } = await movingClient("u");
	worker.onMessage({ type: "give-client", client: structuredClone(client), by: 0 });
	const toPeer = (type: string) =>
		said.flatMap((each) => (each.type === "peer" && each.message.type === type ? [{ ...each }] : []));
	await until(() => toPeer("client-arrived").length === 1, "the client to arrive");
	const rows = () => {
		worker.onMessage({ type: "rows", id: 0, of: "clients" });
		const last = said.at(-1);
		return last?.type === "rows" ? last.rows : [];
	};
	const row = { id: 77, user: "u", errors: 3, queries: 70, bytes_received: 100, prepared_statements: 1, state: "idle" };
	expect(rows()).toEqual([expect.objectContaining(row)]);
	// The other has time, and this one little to do.
	worker.start(true);
	await until(() => {
		loads.measure(0, now(), 0);
		return toPeer("give-client").length === 1;
	}, "the client to go");
	const [given] = toPeer("give-client");
	const again = given!.message as Extract<PeerMessage, { type: "give-client" }>;
	expect([given!.to, again.by]).toEqual([0, 1]);
	expect(structuredClone(again.client)).toEqual(structuredClone({ ...client, fd: again.client.fd }));
	// It is shown, and waited for, until it has arrived.
	expect(rows()).toEqual([expect.objectContaining(row)]);
	worker.onMessage({ type: "drain", gently: false });
	expect(said.some(({ type }) => type === "drained")).toBe(false);
	worker.onMessage({ type: "client-arrived", pid: 77 });
	expect(said.some(({ type }) => type === "drained")).toBe(true);
	expect(rows()).toEqual([]);
	expect(worker.sets.kept).toBe(0);
	closeDescriptor(again.client.fd);
	remote.end();
});

test("a client whose user goes while it is on its way is told, and nobody has it any more", async () => {
	using server = peer();
	const { worker, said } = workerOf(snapshotOf(server.port, [{ name: "u" }]), undefined, 1);
	const { client, heard, ended } = await movingClient("gone");
	worker.onMessage({ type: "give-client", client, by: 0 });
	await ended;
	expect(Buffer.concat(heard).toString("latin1")).toContain("57P01");
	const messages = said.flatMap((each) => (each.type === "peer" ? [each] : []));
	expect(messages).toEqual([
		{ type: "peer", to: 0, message: { type: "client-at", pid: 77, worker: -1 } },
		{ type: "peer", to: 0, message: { type: "client-arrived", pid: 77 } },
	]);
});

test("a CancelRequest for a client that has logged in here and gone elsewhere is passed on, and no further", () => {
	using server = peer();
	const { worker, said } = workerOf(snapshotOf(server.port, [{ name: "u" }]));
	const request = { type: "cancel", pid: 77, secret: Uint8Array.of(1), id: 5, by: 1 } as const;
	worker.onMessage({ type: "client-at", pid: 77, worker: 1 });
	worker.onMessage(request);
	expect(said.splice(0)).toEqual([{ type: "peer", to: 1, message: request }]);
	worker.onMessage({ type: "client-at", pid: 77, worker: -1 });
	worker.onMessage(request);
	// Of worker 1, which has none such either.
	worker.onMessage({ ...request, pid: (1 << 23) | 3 });
	const over = { type: "peer", to: 1, message: { type: "cancelled", id: 5 } } as const;
	expect(said).toEqual([over, over]);
});

test("a worker says of which rows it has no pool, not even one that is leaving", async () => {
	using server = peer();
	const both = snapshotOf(server.port, [{ name: "a" }, { name: "b" }]);
	const first = snapshotOf(server.port, [{ name: "a" }]);
	const { worker, said, slots, reload } = workerOf({ ...first, general: { ...first.general, port: 0 } }, both);
	worker.start(true);
	const none = () => {
		worker.onMessage({ type: "ask-slots", slots: [...slots.values(), 7] });
		const last = said.findLast(({ type }) => type === "no-pools");
		return last?.type === "no-pools" ? last.slots : null;
	};
	expect(none()).toEqual([1, 7]);
	reload(both);
	expect(none()).toEqual([7]);
	// It leaves with the janitor's next tick.
	reload(snapshotOf(server.port, [{ name: "b" }]));
	expect(none()).toEqual([7]);
	await until(() => none()?.length === 2, "the pool to be over");
	expect(none()).toEqual([0, 7]);
});

// What was parsed before a user was forgotten would have passed for fresh when it was back, whatever was altered in between.
test("the place of a catalogue has another number when the pool that has it is back, or another has it again", () => {
	using server = peer();
	const [a, b] = [{ name: "a" }, { name: "b" }];
	const both = snapshotOf(server.port, [a, b]);
	const { ledger, reload } = workerOf({ ...both, general: { ...both.general, port: 0 } });
	const numbers = () => [ledger.catalogueOf(0), ledger.catalogueOf(1)];
	const [first, second] = numbers();
	reload(snapshotOf(server.port, [b]));
	expect(numbers()[0]).toBe(first!);
	expect([first, second]).not.toContain(numbers()[1]);
	reload(both);
	expect(numbers()[0]).not.toBe(first!);
});
