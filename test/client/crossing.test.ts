// A worker's end of clients that go to another process, or come from one: the main thread and the connection are played.

import { afterEach, expect, test } from "bun:test";
import { fstatSync } from "node:fs";
import { Clients } from "../../src/client/clients.ts";
import type { ClientHandle } from "../../src/client/context.ts";
import { Crossing } from "../../src/client/crossing.ts";
import type { Moves } from "../../src/client/moves.ts";
import type { ClientMessage, CrossingReport, MovingClient } from "../../src/client/moving-client.ts";
import { readPassport, writePassport } from "../../src/client/passport.ts";
import { PgError } from "../../src/errors.ts";
import { Room } from "../../src/net/descriptors.ts";
import { closeDescriptor } from "../../src/net/options.ts";
import { writeMemoryFile } from "../../src/net/passing.ts";

const open: number[] = [];
afterEach(() => {
	for (const fd of open.splice(0)) if (isOpen(fd)) closeDescriptor(fd);
});

function isOpen(fd: number): boolean {
	try {
		return fstatSync(fd).size === 1;
	} catch {
		return false;
	}
}

/** A descriptor in place of a connection's. */
function descriptor(): number {
	const fd = writeMemoryFile(new Uint8Array(1));
	open.push(fd);
	return fd;
}

function client(pid: number, prepared = "SELECT 1"): MovingClient {
	const rest = Buffer.from(`${prepared}\0\0\0`);
	return {
		...{ fd: descriptor(), pid, user: "pgdog", database: "pgdog", address: "unix", secret: new Uint8Array(4) },
		...{ bytesIn: 0, bytesOut: 0, connectedAt: 0, errors: 0 },
		link: {
			settings: { startup: [], wanted: [], told: [["server_version", "15"]] },
			session: { startup: { role: null, shard: null, shardingKey: null }, hints: null, wroteAt: 0, reading: null },
			statements: { names: [{ name: "mine", rest, description: null }], unnamed: null },
			...{ answeredAt: 0, queries: 0, transactions: 0, queryTime: 0, transactionTime: 0, waitTime: 0 },
		},
	};
}

/** A worker of one thread. */
function worker() {
	const reports: CrossingReport[] = [];
	const timers: (() => void)[] = [];
	const adopted: number[] = [];
	const told: [number, ClientMessage][] = [];
	const clients = new Clients<string>(0, (to, message) => told.push([to, message]), 0, 2);
	const counts = { descriptors: 0, seats: 0, drained: 0 };
	const context = {
		worker: 0,
		clients,
		stopping: false,
		time: 0,
		log: { debugs: true, debug() {} },
		rowOf: () => "row",
		tellDrained: () => void counts.drained++,
		contain: {
			guard: (_: unknown, work: () => void) => work(),
			later: (_: number, __: unknown, work: () => void) => timers.push(work),
			when: (_: unknown, promise: Promise<unknown>, then: () => void) => promise.then(then),
		},
		seats: {
			received: () => ({ free: () => counts.seats-- }),
			take: (): unknown => {
				counts.seats++;
				return {};
			},
		},
		descriptors: {
			count: () => counts.descriptors++,
			free: () => counts.descriptors--,
			roomFor: () => Room.Enough,
		},
		statements: { hasRoom: () => true },
		find: (): unknown => found,
	};
	const found = {
		spec: { user: {} as { learned?: boolean }, pools: [] },
		cluster: { shards: [0], first: { reported: { version: "15" as string | undefined } } },
	};
	const lost = new Set<number>();
	const moves = {
		adopt: async ({ pid, fd }: MovingClient) => {
			if (lost.has(pid)) return;
			adopted.push(fd);
			clients.register({ pid } as ClientHandle, pid);
		},
	};
	const crossing = new Crossing(
		context as unknown as ConstructorParameters<typeof Crossing<string>>[0],
		moves as unknown as Moves<string>,
		(report) => reports.push(report),
	);
	/** A client that is here. */
	const enter = (isQuiet = true, prepared?: string) => {
		const handle = {
			user: "pgdog",
			database: "pgdog",
			pid: 0,
			isQuiet,
			stream: null,
			depart: () => client(handle.pid, prepared),
		};
		handle.pid = clients.register(handle as unknown as ClientHandle);
		return handle;
	};
	const sweep = () => timers.shift()!();
	return { told, reports, timers, adopted, clients, counts, context, found, lost, crossing, enter, sweep };
}

test("who is quiet goes, and is here until it is there", async () => {
	const { reports, timers, clients, counts, crossing, enter, sweep } = worker();
	const [one, busy] = [enter(), enter(false)];
	crossing.onOrder({ type: "clients-may-leave", may: true });
	sweep();
	expect(reports.length).toBe(1);
	const report = reports[0] as Extract<CrossingReport, { type: "client-leaves" }>;
	expect([report.type, report.pid]).toEqual(["client-leaves", one.pid]);
	expect((readPassport(report.passport, 9) as MovingClient).pid).toBe(one.pid);
	expect([clients.get(one.pid), clients.rows(() => "here")]).toEqual([undefined, ["here", "row"]]);
	expect([isOpen(report.fd), clients.isEmpty]).toEqual([true, false]);
	crossing.onOrder({ type: "client-left", pid: one.pid });
	expect([isOpen(report.fd), clients.rows(() => "here"), counts]).toEqual([
		false,
		["here"],
		{ descriptors: 0, seats: -1, drained: 1 },
	]);
	// The other when its transaction is over.
	busy.isQuiet = true;
	sweep();
	expect(reports.length).toBe(2);
	// What is said of others, or twice, is about nobody.
	for (const pid of [one.pid, 99]) {
		crossing.onOrder({ type: "client-left", pid });
		crossing.onOrder({ type: "client-stays", pid, isRefused: true });
		crossing.onOrder({ type: "client-came", pid, to: 0 });
		crossing.onOrder({ type: "client-stays-away", pid });
	}
	expect(counts.drained).toBe(1);
	crossing.onOrder({ type: "clients-may-leave", may: false });
	enter();
	sweep();
	expect([reports.length, timers.length]).toEqual([2, 0]);
});

test("who is not taken goes on here, and is not sent again", async () => {
	const { reports, adopted, clients, crossing, enter, sweep, lost } = worker();
	const [refused, late, broken] = [enter(), enter(), enter()];
	crossing.onOrder({ type: "clients-may-leave", may: true });
	sweep();
	expect(reports.length).toBe(3);
	lost.add(broken.pid);
	crossing.onOrder({ type: "client-stays", pid: refused.pid, isRefused: true });
	for (const { pid } of [late, broken]) crossing.onOrder({ type: "client-stays", pid, isRefused: false });
	await Promise.resolve();
	await Promise.resolve();
	expect(adopted.map(isOpen)).toEqual([true, true]);
	expect(clients.rows(({ pid }) => `${pid}`)).toEqual([`${refused.pid}`, `${late.pid}`]);
});

test("who was refused is sent again later: a seat may be free by then", async () => {
	const { reports, clients, context, crossing, enter, sweep } = worker();
	const handle = enter();
	const { pid } = handle;
	crossing.onOrder({ type: "clients-may-leave", may: true });
	const sweepAt = async (time: number) => {
		context.time = time;
		sweep();
		crossing.onOrder({ type: "client-stays", pid, isRefused: true });
		await Promise.resolve();
		await Promise.resolve();
		clients.register(handle as unknown as ClientHandle, pid);
		return reports.length;
	};
	expect([await sweepAt(1), await sweepAt(9_999), await sweepAt(10_001), await sweepAt(20_000)]).toEqual([1, 1, 2, 2]);
});

test("no more than so many are on their way, and nobody with more than a passport may say", async () => {
	const { reports, clients, crossing, enter, sweep } = worker();
	enter(true, "x".repeat(4 << 20));
	for (let i = 0; i < 40; i++) enter();
	crossing.onOrder({ type: "clients-may-leave", may: true });
	sweep();
	expect(reports.length).toBe(32);
	sweep();
	expect(reports.length).toBe(32);
	await Promise.resolve();
	await Promise.resolve();
	expect(clients.rows(() => "").length).toBe(41);
});

/** Offers a client to a worker. @returns what it says, and whether it keeps the descriptor */
function offer({ crossing, reports }: ReturnType<typeof worker>, pid = 5, passport?: Uint8Array) {
	const moving = client(pid);
	crossing.onOrder({ type: "client-comes", pid, fd: moving.fd, passport: passport ?? writePassport(moving) });
	const { refusal } = reports.pop() as Extract<CrossingReport, { type: "client-awaited" }>;
	return { fd: moving.fd, refusal, isKept: isOpen(moving.fd) };
}

test("who comes has a seat, a descriptor and its process id, and begins when it is told to", async () => {
	const here = worker();
	const { adopted, clients, counts, crossing } = here;
	const { fd, refusal, isKept } = offer(here);
	expect([refusal, isKept, adopted, counts]).toEqual([null, true, [], { descriptors: 1, seats: 1, drained: 0 }]);
	expect([clients.placeOf(5), clients.reserve(5)]).toEqual([0, false]);
	crossing.onOrder({ type: "client-came", pid: 5, to: 0 });
	await Promise.resolve();
	expect([adopted, clients.get(5)?.pid]).toEqual([[fd], 5]);
	// Others stay away, one or all.
	const fds = [6, 7, 8].map((pid) => offer(here, pid).fd);
	crossing.onOrder({ type: "client-stays-away", pid: 7 });
	expect(fds.map(isOpen)).toEqual([true, false, true]);
	crossing.onOrder({ type: "client-stays-away", pid: -1 });
	expect(fds.map(isOpen)).toEqual([false, false, false]);
	expect([clients.reserve(7), counts.seats]).toEqual([true, 1]);
	// One whose connection turns out to be none leaves its process id.
	here.lost.add(9);
	offer(here, 9);
	crossing.onOrder({ type: "client-came", pid: 9, to: 0 });
	await Promise.resolve();
	await Promise.resolve();
	expect(clients.reserve(9)).toBe(true);
});

type Here = ReturnType<typeof worker>;
test.each<[string, (here: Here) => unknown]>([
	["the new process stops", ({ context }) => Object.assign(context, { stopping: true })],
	[
		"its user and database are not in the configuration of the new process",
		({ context }) => Object.assign(context, { find: () => null }),
	],
	["its database has several shards in the new process", ({ found }) => found.cluster.shards.push(1)],
	[
		"the server is of version 16 in the new process",
		({ found }) => Object.assign(found.cluster.first.reported, { version: "16" }),
	],
	[
		"the new process has no room for its prepared statements",
		({ context }) => Object.assign(context.statements, { hasRoom: () => false }),
	],
	["another client has its process id in the new process", ({ clients }) => clients.reserve(5)],
	[
		"the new process has no file descriptor for it",
		({ context }) => Object.assign(context.descriptors, { roomFor: () => Room.ToRefuse }),
	],
	[
		"the new process has no seat for it: full",
		({ context }) => Object.assign(context.seats, { take: () => new PgError("FATAL", "53300", "full") }),
	],
])("%s: it has to stay, and nothing of it is kept", (why, make) => {
	const here = worker();
	make(here);
	expect(offer(here)).toMatchObject({ refusal: why, isKept: false });
	expect(here.counts).toEqual({ descriptors: 0, seats: 0, drained: 0 });
});

test("a process that has taken over is needed until nobody comes any more, whoever may leave it", () => {
	const { context, crossing } = worker();
	expect(crossing.isEmpty).toBe(true);
	const second = new Crossing(...([context, null, () => {}, true] as never as ConstructorParameters<typeof Crossing>));
	second.onOrder({ type: "clients-may-leave", may: false });
	second.onOrder({ type: "client-stays-away", pid: 1 });
	expect(second.isEmpty).toBe(false);
	second.onOrder({ type: "client-stays-away", pid: -1 });
	expect(second.isEmpty).toBe(true);
});

test("a passport that is another's, or none, lets nobody in; a server that is not known yet is no reason", () => {
	const here = worker();
	expect(offer(here, 5, writePassport(client(6)))).toMatchObject({
		refusal: "its session is another's",
		isKept: false,
	});
	const none = "its session is malformed";
	expect(offer(here, 5, new Uint8Array(3))).toMatchObject({ refusal: none, isKept: false });
	here.found.cluster.first.reported.version = undefined;
	expect(offer(here)).toMatchObject({ refusal: null, isKept: true });
});

test("who is known only by having logged in goes once the other process knows the user", () => {
	const { reports, crossing, enter, sweep, found } = worker();
	found.spec.user = { learned: true };
	enter();
	crossing.onOrder({ type: "clients-may-leave", may: true });
	crossing.onOrder({ type: "user-may-leave", user: "pgdog", database: "other" });
	sweep();
	expect(reports.length).toBe(0);
	crossing.onOrder({ type: "user-may-leave", user: "pgdog", database: "pgdog" });
	sweep();
	expect(reports.length).toBe(1);
	// The next process has to be told anew.
	crossing.onOrder({ type: "clients-may-leave", may: false });
	sweep();
	enter();
	crossing.onOrder({ type: "clients-may-leave", may: true });
	sweep();
	expect(reports.length).toBe(1);
});

test("who comes may be another worker's, and is not gone before that has it", () => {
	const { told, reports, clients, counts, crossing, lost } = worker();
	const { fd, ...rest } = client(5);
	crossing.onOrder({ type: "client-comes", pid: 5, fd, passport: writePassport({ fd, ...rest }) });
	expect(reports).toEqual([{ type: "client-awaited", pid: 5, refusal: null }]);
	crossing.onOrder({ type: "client-came", pid: 5, to: 1 });
	expect(told).toMatchObject([[1, { type: "give-client", by: 0, client: { pid: 5, fd } }]]);
	expect([isOpen(fd), counts.seats, lost.size]).toEqual([true, 1, 0]);
	expect([clients.isEmpty, clients.placeOf(5), clients.rows(() => "here")]).toEqual([false, 1, []]);
	clients.onArrived(5);
	expect(clients.isEmpty).toBe(true);
});
