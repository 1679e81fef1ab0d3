// Clients that go to another process, as the main thread sees them: its worker and the other process are played.

import { expect, test } from "bun:test";
import type { CrossingOrder } from "../src/client/moving-client.ts";
import type { Contain } from "../src/contain.ts";
import type { Log } from "../src/log.ts";
import type { Successor } from "../src/net/successor.ts";
import type { ClientsFrom } from "../src/net/takeover.ts";
import { Passage } from "../src/passage.ts";

test("who is waited for is told to go once the other process hears it, and is here until then", () => {
	const told: unknown[] = [];
	const said: string[] = [];
	const looks: (() => void)[] = [];
	let hears = false;
	const successor = {
		serve() {},
		give: () => true,
		say(word: string, pid: number) {
			if (hears) said.push(`${word} ${pid}`);
			return hears;
		},
		end: () => passage.onGone(),
	};
	const passage = new Passage({
		log: { warn() {}, info() {} } as unknown as Log,
		contain: { every: (_: number, look: () => void) => void looks.push(look) } as unknown as Contain,
		workers: 1,
		attendance: { isStuck: () => false },
		obey: () => Promise.resolve(),
		users: { strangers: () => [], introduce: () => Promise.resolve(null), forSuccessor: (order) => order },
		send: (_, message) => told.push("order" in message ? message.order : message),
	});
	passage.lead(1, successor as unknown as Successor);
	passage.onWelcome(1);
	for (const pid of [5, 6, 7]) passage.onReport(0, { type: "client-leaves", pid, fd: 9, passport: new Uint8Array(1) });
	passage.onReady(5);
	passage.onReady(6);
	// One that is nobody's, and one that it refuses after all.
	passage.onReady(8);
	passage.onRefused(6, "no reason");
	const stays = { type: "client-stays", pid: 6, isRefused: true };
	expect([said, told]).toEqual([[], [{ type: "clients-may-leave", may: true }, stays]]);
	hears = true;
	for (const look of looks) look();
	expect(said).toEqual(["go 5", "keep 6", "keep 8"]);
	expect(told.splice(0).slice(2)).toEqual([{ type: "client-left", pid: 5 }]);
	// It dies before it could be told.
	hears = false;
	passage.onReady(7);
	passage.end();
	expect(told).toEqual([
		{ type: "clients-may-leave", may: false },
		{ type: "client-stays", pid: 7, isRefused: false },
	]);
});

test("clients come to the worker that their process id names, unless fewer have come to another", () => {
	const told: [number, CrossingOrder][] = [];
	const stuck = new Set<number>();
	const passage = new Passage({
		log: {} as Log,
		contain: { later() {} } as unknown as Contain,
		workers: 3,
		attendance: { isStuck: (worker) => stuck.has(worker) },
		obey: () => Promise.resolve(),
		users: { strangers: () => [], introduce: () => Promise.resolve(null), forSuccessor: (order) => order },
		send: (worker, message) => "order" in message && told.push([worker, message.order]),
	});
	/** They have logged in on worker 1. */
	const come = (count: number) => {
		const said = Array.from({ length: count }, (_, i) => ({ word: "go", pid: (1 << 23) + i, fd: -1, passport: null }));
		const from = { obeys: false, isOver: false, begin() {}, flush() {}, next: () => said.shift() ?? null };
		passage.welcome(from as unknown as ClientsFrom);
		return told.splice(0).map(([home, order]) => [home, order.type === "client-came" ? order.to : -1]);
	};
	expect(come(6)).toEqual([1, 0, 2, 1, 0, 2].map((to) => [1, to]));
	stuck.add(2);
	expect(come(3)).toEqual([1, 0, 1].map((to) => [1, to]));
});
