// What threads agree on in shared memory.

import { expect, test } from "bun:test";
import { Ledger } from "../../src/pool/ledger.ts";

test("no more permits than the limit, and none twice given back", () => {
	const ledger = new Ledger(2, 1);
	expect([ledger.acquire(0, 2), ledger.acquire(0, 2), ledger.acquire(0, 2)]).toEqual([true, true, false]);
	expect([ledger.used(0), ledger.used(1)]).toEqual([2, 0]);
	expect(ledger.acquire(0, 3)).toBe(true);
	expect([ledger.releaseAbove(0, 2), ledger.releaseAbove(0, 2)]).toEqual([true, false]);
	// A limit that was lowered below what is in use gives nothing until enough came back.
	expect(ledger.acquire(0, 1)).toBe(false);
	ledger.release(0);
	expect(ledger.acquire(0, 1)).toBe(false);
	ledger.release(0);
	expect(ledger.acquire(0, 1)).toBe(true);
});

test("four threads at once never have more than the limit, lose none, and never share a statement number", async () => {
	const limit = 3;
	const ledger = new Ledger(2, 4);
	const results = await Promise.all(
		Array.from({ length: 4 }, async () => {
			const worker = new Worker(new URL("./ledger-thread.ts", import.meta.url).href);
			const result = new Promise<{ most: number; got: number; names: number[] }>((resolve, reject) => {
				worker.onmessage = ({ data }) => resolve(data);
				worker.onerror = (event) => reject(new Error(event.message));
			});
			worker.postMessage({ memory: ledger.memory, limit, rounds: 100_000, floor: 2 });
			const found = await result;
			worker.terminate();
			return found;
		}),
	);
	expect(Math.max(...results.map(({ most }) => most))).toBeLessThanOrEqual(limit);
	expect(Math.min(...results.map(({ got }) => got))).toBeGreaterThan(0);
	expect(ledger.used(1)).toBe(0);
	expect(ledger.used(0)).toBe(0);
	const names = new Set(results.flatMap((result) => result.names));
	expect(names.size).toBe(400_000);
	expect(ledger.nextStatement()).toBe(400_001);
});

// `__pgdog_-5` is not one word to SQL.
test("statement numbers stay positive beyond two to the 31st", () => {
	const ledger = new Ledger(1, 1);
	new Int32Array(ledger.memory)[0] = 0x7fffffff;
	expect(ledger.nextStatement()).toBe(0x80000000);
	expect(ledger.nextStatement()).toBe(0x80000001);
});

test.each([
	[1, 1],
	[2, 1],
	[1, 2],
	[3, 5],
])("%d pools and %d workers: each cell is its own", (pools, workers) => {
	const ledger = new Ledger(pools, workers);
	const other = new Ledger(pools, workers, ledger.memory);
	for (let slot = 0; slot < pools; slot++) {
		expect(ledger.acquire(slot, 100 + slot)).toBe(true);
		for (let worker = 0; worker < workers; worker++) {
			const n = slot * workers + worker + 1;
			ledger.setWaiting(slot, worker, n, 1e12 + n);
			ledger.setServers(slot, worker, 100 + n, 200 + n);
		}
	}
	for (let slot = 0; slot < pools; slot++) {
		expect(other.used(slot)).toBe(1);
		for (let worker = 0; worker < workers; worker++) {
			const n = slot * workers + worker + 1;
			expect([
				other.waitingIn(slot, worker),
				other.waitingSince(slot, worker),
				other.idleOf(slot, worker),
				other.heldBy(slot, worker),
			]).toEqual([n, 1e12 + n, 100 + n, 200 + n]);
		}
	}
	expect(other.nextStatement()).toBe(1);
});

test("the worker whose client has waited longest comes first, and oneself never", () => {
	const ledger = new Ledger(2, 4);
	expect(ledger.longestWaiting(0, 0)).toBe(-1);
	ledger.setWaiting(0, 0, 1, 10);
	expect(ledger.longestWaiting(0, 0)).toBe(-1);
	ledger.setWaiting(0, 2, 1, 50);
	ledger.setWaiting(0, 3, 9, 40);
	ledger.setWaiting(1, 1, 1, 1);
	expect(ledger.longestWaiting(0, 0)).toBe(3);
	expect(ledger.longestWaiting(0, 3)).toBe(0);
	ledger.setWaiting(0, 3, 0, 0);
	expect(ledger.longestWaiting(0, 0)).toBe(2);
	// One is on its way to the one who waits there.
	ledger.sends(0, 2);
	expect([ledger.comingTo(0, 2), ledger.lacks(0, 2), ledger.longestWaiting(0, 0)]).toEqual([1, false, -1]);
	ledger.setWaiting(0, 2, 2, 50);
	expect([ledger.lacks(0, 2), ledger.longestWaiting(0, 0)]).toEqual([true, 2]);
	ledger.arrived(0, 2);
	expect(ledger.comingTo(0, 2)).toBe(0);
});

test("a row that is cleared is as it was at first, and its catalogue in a state of its own", () => {
	const ledger = new Ledger(3, 2);
	const states = [0, 1, 2].map((slot) => {
		for (let worker = 0; worker < 2; worker++) {
			ledger.setServers(slot, worker, 3, 4);
			ledger.setWaiting(slot, worker, 2, 1000);
			ledger.setKept(slot, worker, 1);
		}
		expect(ledger.complaints(slot).due(1)).toBe(1);
		return ledger.catalogueOf(slot);
	});
	ledger.clear(1);
	const row = (slot: number) => [ledger.elsewhere(slot, -1), ledger.keptOf(slot), ledger.waitingSince(slot, 1)];
	expect(row(1)).toEqual([{ idle: 0, lent: 0, waiting: 0 }, 0, 0]);
	for (const slot of [0, 2]) expect(row(slot)).toEqual([{ idle: 6, lent: 2, waiting: 4 }, 2, 1000]);
	expect([0, 1, 2].map((slot) => ledger.complaints(slot).due(2))).toEqual([0, 1, 0]);
	expect([0, 1, 2].map((slot) => ledger.catalogueOf(slot) === states[slot])).toEqual([true, false, true]);
});

test("a row is in use while a server is counted there, or something is on its way to a worker", () => {
	const ledger = new Ledger(2, 2);
	expect(ledger.isUnused(0)).toBe(true);
	ledger.acquire(0, 1);
	expect([ledger.isUnused(0), ledger.isUnused(1)]).toEqual([false, true]);
	// The permit is given back a moment before it is noted that it has come.
	ledger.sends(0, 1);
	ledger.release(0);
	expect(ledger.isUnused(0)).toBe(false);
	ledger.arrived(0, 1);
	expect(ledger.isUnused(0)).toBe(true);
});
