// Who knows where a client is that has gone to another worker: three workers whose messages go through one thread, in order.

import { expect, test } from "bun:test";
import { Clients, FEW, homeOf, instanceOf, TURNS } from "../../src/client/clients.ts";
import type { ClientHandle } from "../../src/client/context.ts";
import type { ClientMessage, MovingClient } from "../../src/client/moving-client.ts";

/** Workers, and what they have told each other and not heard yet. */
function workers() {
	const mail: { to: number; message: ClientMessage }[] = [];
	const all = [0, 1, 2].map((worker) => new Clients<string>(worker, (to, message) => mail.push({ to, message })));
	/** Delivers what is under way; a client that arrives becomes one of its new worker's, or is lost. */
	const deliver = (isLost = false) => {
		for (let next = mail.shift(); next !== undefined; next = mail.shift()) {
			const { to, message } = next;
			const clients = all[to]!;
			if (message.type === "client-arrived") clients.onArrived(message.pid);
			else if (message.type === "client-at") clients.onAt(message.pid, message.worker);
			else {
				if (!isLost) enter(to, message.client.pid);
				clients.arrived(message.client.pid, message.by);
			}
		}
	};
	const enter = (worker: number, known?: number) => {
		const client = { pid: known ?? 0 } as { pid: number };
		client.pid = all[worker]!.register(client as ClientHandle, known);
		return client.pid;
	};
	const give = (from: number, pid: number, to: number) => all[from]!.give({ pid } as MovingClient, `row ${pid}`, to);
	/** The worker that a CancelRequest comes to in the end, from each of them. */
	const found = (pid: number) =>
		all.map((asked) => {
			const first = asked.placeOf(pid);
			return all[first]!.placeOf(pid);
		});
	const rows = () => all.map((clients) => clients.rows(({ pid }) => `row ${pid}`));
	return { all, deliver, enter, give, found, rows };
}

test("a process id names the instance, where that has a number, and the worker", () => {
	const ids = [1, 63].flatMap((peer) =>
		[0, 2, 255].map((worker) => {
			const clients = new Clients<string>(worker, () => {}, peer);
			const pid = clients.register({} as ClientHandle);
			expect([instanceOf(pid), homeOf(pid), pid > 0]).toEqual([peer, worker, true]);
			return pid;
		}),
	);
	expect(new Set(ids).size).toBe(ids.length);
	const alone = new Clients<string>(1, () => {});
	expect([1, 2, 3].map(() => instanceOf(alone.register({} as ClientHandle)))).toEqual([0, 0, 0]);
});

test("an instance that has no process id left refuses", () => {
	const clients = new Clients<string>(0, () => {}, 5);
	const most = (1 << 17) - 1;
	for (let i = 0; i < most; i++) expect(instanceOf(clients.register({} as ClientHandle))).toBe(5);
	expect(() => clients.register({} as ClientHandle)).toThrow("too many clients");
});

test("a client is found wherever it has gone, and home again", () => {
	const { all, deliver, enter, give, found } = workers();
	const pid = enter(1);
	expect(homeOf(pid)).toBe(1);
	expect(found(pid)).toEqual([1, 1, 1]);
	for (const [from, to] of [
		[1, 0],
		[0, 2],
		[2, 1],
		[1, 2],
	] as const) {
		give(from, pid, to);
		deliver();
		expect(found(pid)).toEqual([to, to, to]);
	}
	all[2]!.unregister({ pid } as ClientHandle);
	deliver();
	// At home nobody knows it any more.
	expect(found(pid)).toEqual([1, 1, 1]);
	expect(all.map(({ isEmpty }) => isEmpty)).toEqual([true, true, true]);
});

test("on its way it is shown by the worker that it comes from, and a shutdown there waits for it", () => {
	const { all, deliver, enter, give, rows } = workers();
	const pid = enter(1);
	give(1, pid, 0);
	expect(rows()).toEqual([[], [`row ${pid}`], []]);
	expect(all[1]!.isEmpty).toBe(false);
	deliver();
	expect(rows()).toEqual([[`row ${pid}`], [], []]);
	expect(all[1]!.isEmpty).toBe(true);
});

test("one that is lost on its way is nobody's", () => {
	const { all, deliver, enter, give, found, rows } = workers();
	const pid = enter(1);
	give(1, pid, 0);
	deliver();
	give(0, pid, 2);
	deliver(true);
	expect(found(pid)).toEqual([1, 1, 1]);
	expect(rows()).toEqual([[], [], []]);
	expect(all.map(({ isEmpty }) => isEmpty)).toEqual([true, true, true]);
});

/** One worker with so many clients. */
function crowd(count: number) {
	const clients = new Clients<string>(0, () => {});
	const handles = Array.from({ length: count }, () => ({ pid: 0 }) as { pid: number });
	for (const handle of handles) handle.pid = clients.register(handle as ClientHandle);
	const turn = () => clients.turn().map(({ pid }) => pid);
	return { clients, pids: handles.map(({ pid }) => pid), turn };
}

test("few clients all have their turn with every tick", () => {
	const { pids, turn } = crowd(FEW);
	for (let tick = 0; tick < 3; tick++) expect(turn().toSorted()).toEqual(pids.toSorted());
	expect(crowd(0).turn()).toEqual([]);
});

// Each tick looked at all of them: 4,000 who did nothing took 5 % of a core.
test("of many each has its turn within so many ticks, whoever comes and goes meanwhile", () => {
	const { clients, pids, turn } = crowd(FEW * TURNS * 2);
	const ticks = Array.from({ length: TURNS }, turn);
	for (const tick of ticks) expect(tick.length).toBe(FEW * 2);
	expect(ticks.flat().toSorted()).toEqual(pids.toSorted());
	const gone = new Set(pids.filter((_, i) => i % 3 === 0));
	for (const pid of gone) clients.unregister({ pid } as ClientHandle);
	const late = clients.register({ pid: 0 } as ClientHandle);
	const seen = new Set(Array.from({ length: TURNS + 1 }, turn).flat());
	for (const pid of pids) expect(seen.has(pid)).toBe(!gone.has(pid));
	expect(clients.get(late)).toBeDefined();
});
