// Which row of shared memory is which pool's, and when it is another's: whatever order messages come in, no two pools write in one.

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { ClusterSpec, PoolSpec, Snapshot } from "../src/config/snapshot.ts";
import { PoolSlots } from "../src/pool-slots.ts";

/** The configuration with these pools. */
function snapshotOf(keys: Iterable<string>): Snapshot {
	const pools = [...keys].map((key) => ({ key }) as PoolSpec);
	return {
		general: { passthrough_auth: "disabled" },
		databases: [],
		clusters: [{ pools } as unknown as ClusterSpec],
	} as unknown as Snapshot;
}

test("a row is another pool's when every worker has said that it has none, and nothing is counted there", () => {
	const slots = new PoolSlots(snapshotOf(["a", "b"]));
	expect([slots.of("a"), slots.of("b"), slots.capacity]).toEqual([0, 1, 1026]);
	expect(slots.ask(2)).toEqual([]);
	slots.assign(snapshotOf(["b", "c"]));
	expect(slots.of("c")).toBe(2);
	expect(slots.ask(2)).toEqual([0]);
	// One question at a time.
	expect(slots.ask(2)).toEqual([]);
	expect(slots.answered([0], () => true)).toEqual([]);
	expect(slots.answered([], () => true)).toEqual([]);
	expect(slots.ask(2)).toEqual([0]);
	slots.answered([0], () => true);
	expect(slots.answered([0], () => false)).toEqual([]);
	expect(slots.byKey.has("a")).toBe(true);
	expect(slots.ask(1)).toEqual([0]);
	expect(slots.answered([0], () => true)).toEqual([0]);
	expect(slots.byKey.has("a")).toBe(false);
	slots.assign(snapshotOf(["b", "c", "d", "e"]));
	expect([slots.of("d"), slots.of("e")]).toEqual([0, 3]);
});

test("a pool that comes back while workers are asked has its row, though it leaves again", () => {
	const slots = new PoolSlots(snapshotOf(["a"]));
	slots.assign(snapshotOf([]));
	expect(slots.ask(1)).toEqual([0]);
	slots.assign(snapshotOf(["a"]));
	slots.assign(snapshotOf([]));
	expect(slots.answered([0], () => true)).toEqual([]);
	expect(slots.ask(1)).toEqual([0]);
});

test("there is room for so many pools, those that are leaving among them", () => {
	const slots = new PoolSlots(snapshotOf([]));
	expect([slots.hasRoomFor(1024), slots.hasRoomFor(1025)]).toEqual([true, false]);
	slots.assign(snapshotOf(["a"]));
	slots.assign(snapshotOf([]));
	expect(slots.hasRoomFor(1024)).toBe(false);
	slots.ask(1);
	slots.answered([0], () => true);
	expect(slots.hasRoomFor(1024)).toBe(true);
});

/** A worker: what it is told comes in order, but when it likes; a pool that it is to give up stays for as long as that has servers. */
class Worker {
	readonly inbox: ({ keys: Map<string, number> } | { ask: readonly number[] })[] = [];
	readonly pools: { key: string; slot: number; leaving: boolean }[] = [];

	/** Takes the next message. @returns its answer to a question */
	step(): readonly number[] | null {
		const message = this.inbox.shift();
		if (message === undefined) return null;
		if ("ask" in message) return message.ask.filter((slot) => !this.pools.some((pool) => pool.slot === slot));
		for (const pool of this.pools) if (!message.keys.has(pool.key)) pool.leaving = true;
		for (const [key, slot] of message.keys)
			if (!this.pools.some((pool) => pool.key === key && !pool.leaving)) this.pools.push({ key, slot, leaving: false });
		return null;
	}

	/** One of the pools that leave is over. */
	end(which: number): void {
		const leaving = this.pools.filter((pool) => pool.leaving);
		if (leaving.length > 0) this.pools.splice(this.pools.indexOf(leaving[which % leaving.length]!), 1);
	}
}

test("whatever the order of events, no two pools have one row, in the configuration or in a worker", () => {
	const event = fc.oneof(
		fc.record({
			kind: fc.constant("set" as const),
			keys: fc.uniqueArray(fc.constantFrom(..."abcdef"), { maxLength: 4 }),
		}),
		fc.record({ kind: fc.constantFrom("step" as const, "end" as const), worker: fc.nat(1), which: fc.nat(9) }),
		fc.record({ kind: fc.constant("ask" as const) }),
	);
	fc.assert(
		fc.property(fc.array(event, { maxLength: 80 }), (events) => {
			const slots = new PoolSlots(snapshotOf([]));
			const workers = [new Worker(), new Worker()];
			for (const each of events) {
				if (each.kind === "set") {
					slots.assign(snapshotOf(each.keys));
					const keys = new Map(each.keys.map((key) => [key, slots.of(key)]));
					expect(new Set(keys.values()).size).toBe(keys.size);
					for (const { inbox } of workers) inbox.push({ keys });
				} else if (each.kind === "ask") {
					const asked = slots.ask(workers.length);
					if (asked.length > 0) for (const { inbox } of workers) inbox.push({ ask: asked });
				} else if (each.kind === "end") workers[each.worker]!.end(each.which);
				else {
					const said = workers[each.worker]!.step();
					if (said !== null) slots.answered(said, () => true);
				}
				const owners = new Map<number, string>();
				for (const { pools } of workers)
					for (const { key, slot } of pools) {
						expect(owners.get(slot) ?? key).toBe(key);
						owners.set(slot, key);
					}
				// Few names: no row is needed beyond those of all that may be there at once.
				expect(Math.max(-1, ...slots.byKey.values())).toBeLessThan(6);
			}
		}),
		{ numRuns: 500 },
	);
});
