// A client that comes from another worker, where nothing of it can be had.

import { expect, test } from "bun:test";
import { Clients } from "../../src/client/clients.ts";
import { Moves, type MovesContext } from "../../src/client/moves.ts";
import type { ClientMessage, MovingClient } from "../../src/client/moving-client.ts";
import { now } from "../../src/clock.ts";
import { Contain } from "../../src/contain.ts";
import { Loads } from "../../src/stats/loads.ts";
import { until } from "../support/until.ts";

test("one whose descriptor cannot be used is told of as gone: in the log, to the worker that gave it, and to its own", async () => {
	const told: [number, ClientMessage][] = [];
	const said: string[] = [];
	let freed = 0;
	const context = {
		worker: 1,
		loads: new Loads(3),
		clients: new Clients<string>(1, (to, message) => told.push([to, message])),
		contain: new Contain(
			(error) => said.push(String(error)),
			() => {},
		),
		seats: { received: () => ({ free: () => freed++ }) },
		handlers: { data() {} },
		log: { warn: (text: string) => said.push(text.replace(/workers: .* \[/, "workers: … [")) },
		onLogout: ({ user }: { user: string }, reason: string) => said.push(`${user}: ${reason}`),
	};
	const moves = new Moves(context as unknown as MovesContext<string>, 3);
	const pid = (2 << 23) | 7;
	const client = { fd: 1 << 20, user: "somebody", address: "there", pid } as MovingClient;
	moves.onMessage({ type: "give-client", client, by: 0 });
	await until(() => told.length === 2, "the others to be told");
	expect(said).toEqual(["a client was lost on its way between workers: … [there]", "somebody: connection lost"]);
	expect(freed).toBe(1);
	expect(told).toEqual([
		[2, { type: "client-at", pid, worker: -1 }],
		[0, { type: "client-arrived", pid }],
	]);
});

test.each([
	[false, 1],
	[true, 0],
])("a sweep under way when the worker is left (%p) gives away %p of its clients", (isLeft, given) => {
	const time = now();
	const loads = new Loads(2);
	new Loads(2, loads.memory).measure(0, time);
	let departures = 0;
	const depart = () => {
		departures++;
		return null;
	};
	const client = { activeAt: time, queries: 1000, isQuiet: false, depart };
	const sweeps: (() => void)[] = [];
	const context = {
		worker: 1,
		loads,
		clients: { all: () => [client] },
		general: { client_placement: "fill" },
		contain: {
			guard: (_: unknown, work: () => void) => work(),
			later: (_: number, __: unknown, work: () => void) => sweeps.push(work),
		},
		rowOf: () => "",
	};
	const moves = new Moves(context as unknown as MovesContext<string>, 2);
	moves.tick(time);
	expect([departures, sweeps.length]).toEqual([0, 1]);
	if (isLeft) moves.end();
	client.isQuiet = true;
	sweeps[0]!();
	expect(departures).toBe(given);
});
