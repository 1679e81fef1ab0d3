// When clients go from one worker to another, by the loads of the workers alone.

import { expect, test } from "bun:test";
import { Leveling } from "../../src/client/leveling.ts";
import type { Loads } from "../../src/stats/loads.ts";

/** What worker `me` is to do when the workers' loads are these. */
function look(me: number, loads: readonly number[], leveling?: Leveling, time = 10_000) {
	const all = { of: (worker: number) => loads[worker]! } as unknown as Loads;
	return (leveling ?? new Leveling(me, loads.length, all)).look(time);
}

const STUCK = Number.POSITIVE_INFINITY;

test("what the last worker does goes to the first that has room for all of it", () => {
	expect(look(1, [0.1, 0.3])).toEqual({ to: 0, share: 1 });
	expect(look(1, [0, 0])).toEqual({ to: 0, share: 1 });
	expect(look(1, [0.4, 0.3])).toBeNull();
	expect(look(2, [0.5, 0.1, 0.3])).toEqual({ to: 1, share: 1 });
	// Its clients may come to where others go to: one at a time.
	expect(look(1, [0.1, 0.3, 0.3])).toBeNull();
	expect(look(1, [0.1, 0.3, 0.01])).toEqual({ to: 0, share: 1 });
	// Never up, or two would give each other what they have.
	expect(look(0, [0.1, 0.3])).toBeNull();
	expect(look(0, [0, 0])).toBeNull();
});

test("a worker that is full gives half of the difference to the busiest that has time", () => {
	expect(look(0, [1, 0])).toEqual({ to: 1, share: 0.5 });
	expect(look(0, [1, 0, 0.4])).toEqual({ to: 2, share: 0.3 });
	expect(look(0, [0.8, 0])).toBeNull();
	expect(look(0, [1, 0.7])).toBeNull();
	expect(look(1, [0.2, 0.9])!.to).toBe(0);
});

test("a worker that does not come back to its event loop is given nothing, and is not waited for", () => {
	expect(look(0, [1, STUCK])).toBeNull();
	expect(look(0, [1, STUCK, 0.1])!.to).toBe(2);
	expect(look(1, [STUCK, 0.3])).toBeNull();
	expect(look(1, [0.1, 0.3, STUCK])).toEqual({ to: 0, share: 1 });
});

test("what a move has changed is waited for", () => {
	const loads = [1, 0];
	const all = { of: (worker: number) => loads[worker]! } as unknown as Loads;
	const leveling = new Leveling(0, 2, all);
	expect(leveling.look(10_000)).not.toBeNull();
	expect(leveling.look(10_100)).toBeNull();
	expect(leveling.look(11_900)).toBeNull();
	expect(leveling.look(12_100)).not.toBeNull();
});
