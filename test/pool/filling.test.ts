// Connections for the sake of `min_pool_size`: in which order, how many at a time, and what a server that is full is spared.

import { expect, test } from "bun:test";
import type { ClusterSpec, PoolSpec } from "../../src/config/snapshot.ts";
import { createLog } from "../../src/log.ts";
import { Bans } from "../../src/pool/bans.ts";
import { type Filled, Filling } from "../../src/pool/filling.ts";
import { Ledger } from "../../src/pool/ledger.ts";
import { Vitals } from "../../src/pool/vitals.ts";

const SLOTS = 200;

/** A pool by what Filling sees of it. */
class FakePool implements Filled {
	readonly slot: number;
	isUsed = false;
	isWell = true;
	wanted: number;
	has = 0;
	private readonly begun: number[];
	private readonly underway: (() => void)[];

	constructor(slot: number, wanted: number, begun: number[], underway: (() => void)[]) {
		this.slot = slot;
		this.wanted = wanted;
		this.begun = begun;
		this.underway = underway;
	}

	get lacks(): boolean {
		return this.has < this.wanted;
	}

	mayFill(): boolean {
		return this.isWell;
	}

	fill(done: () => void): boolean {
		this.begun.push(this.slot);
		this.has++;
		this.underway.push(done);
		return true;
	}

	get spare(): number {
		return this.isUsed ? 0 : this.has;
	}

	makeRoom(): void {
		this.has--;
	}
}

/** `pools` of two servers, of which the second has the last pool alone. */
function filling(pools: number, wanted = 1, workers = 1) {
	const specs = Array.from({ length: pools }, (_, i) => {
		const port = i === pools - 1 ? 2 : 1;
		return { key: `p${i}`, host: "h", port, shard: 0, role: "primary" } as PoolSpec;
	});
	const clusters = specs.map((spec) => ({ pools: [spec] }) as unknown as ClusterSpec);
	const slots = new Map(specs.map(({ key }, slot) => [key, slot]));
	const ledger = new Ledger(SLOTS, workers);
	const log = createLog("text", "off");
	const general = { ban_timeout: 0, read_write_split: "include_primary" } as const;
	const bans = new Bans(new Vitals(SLOTS), log, { general, clusters }, slots);
	const begun: number[] = [];
	const underway: (() => void)[] = [];
	const all = specs.map((_, slot) => new FakePool(slot, wanted, begun, underway));
	const threads = Array.from({ length: workers }, () => new Filling(ledger, bans, log));
	let time = 1_000_000;
	return {
		all,
		begun,
		threads,
		filling: threads[0]!,
		/** Ticks for so many ms, as pools and worker do. @returns slots that were begun, in order */
		run: (ms: number, hungry = false) => {
			begun.length = 0;
			for (const end = time + ms; time < end; time += 100) {
				for (const pool of all) if (pool.lacks) threads[0]!.wants(pool);
				if (hungry) threads[0]!.hungry();
				threads[0]!.tick(all, time);
				for (const done of underway.splice(0)) done();
			}
			return [...begun];
		},
		crowded: (slot: number) => threads[0]!.crowded(slot, time),
	};
}

test("pools that clients use come first, the others a few at a time", () => {
	const { all, run } = filling(20, 3);
	for (const slot of [7, 12]) all[slot]!.isUsed = true;
	const first = run(300);
	expect(first.toSorted((a, b) => a - b)).toEqual([7, 7, 7, 12, 12, 12]);
	expect(run(100)).toHaveLength(2);
	expect(run(500)).toHaveLength(10);
	run(5_000);
	expect(all.every(({ has }) => has === 3)).toBe(true);
});

test("a pool in use whose server is not well holds up no others", () => {
	const { all, run } = filling(5);
	Object.assign(all[2]!, { isUsed: true, isWell: false });
	run(500);
	expect(all.map(({ has }) => has)).toEqual([1, 1, 0, 1, 1]);
});

test("nothing is begun for a pool that nobody uses while somebody waits", () => {
	const { all, run } = filling(5);
	all[3]!.isUsed = true;
	expect(run(500, true)).toEqual([3]);
	expect(run(500)).toHaveLength(4);
});

test("at most four are under way in the process, whichever threads begin them", () => {
	const { all, begun, threads } = filling(20, 1, 2);
	for (let tick = 0; tick < 5; tick++)
		for (const thread of threads) {
			for (const pool of all) if (pool.lacks) thread.wants(pool);
			thread.tick(all, 1_000_000 + tick * 100);
		}
	expect(begun).toHaveLength(4);
});

test("a full server is left alone, by all its pools and longer each time; then they come back one by one", () => {
	const { all, run, crowded } = filling(100);
	run(1_000);
	const before = all.filter(({ has }) => has === 1).length;
	expect(before).toBe(20);
	crowded(0);
	// A quarter makes room. The other server's pool is none of that.
	expect(run(1_000)).toEqual([99]);
	expect(all.filter(({ slot, has }) => slot < 99 && has === 1)).toHaveLength(15);
	expect(run(3_000)).toHaveLength(3);
	crowded(0);
	const pauses = [2, 4, 8, 16, 32, 60, 60].map((seconds) => {
		const begun = [run(seconds * 1_000 - 200), run(400)].map(({ length }) => length);
		crowded(0);
		return begun;
	});
	expect(pauses).toEqual(pauses.map(() => [0, 1]));
});

test("room is made again for each that finds none, and only where nobody has used the connections", () => {
	const { all, run, crowded } = filling(41);
	run(3_000);
	for (const pool of all.slice(0, 20)) pool.isUsed = true;
	const left = () => all.slice(0, 40).reduce((sum, { has }) => sum + has, 0);
	for (const expected of [35, 31, 28]) {
		crowded(5);
		run(100);
		expect(left()).toBe(expected);
	}
	expect(all.slice(0, 20).every(({ has }) => has === 1)).toBe(true);
});
