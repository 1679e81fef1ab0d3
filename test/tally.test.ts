// Counts by name in shared memory.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Tally } from "../src/tally.ts";

test("no more of a name than its limit, and one that was taken back may come again", () => {
	const tally = new Tally();
	expect([tally.add("a", 2), tally.add("a", 2), tally.add("a", 2), tally.add("b", 1)]).toEqual([
		true,
		true,
		false,
		true,
	]);
	// Lowered below what there is: nobody is lost, and nobody comes until enough have gone.
	expect(tally.add("a", 1)).toBe(false);
	tally.remove("a");
	expect([tally.add("a", 1), tally.count("a"), tally.count("b")]).toEqual([false, 1, 1]);
	tally.remove("a");
	expect([tally.count("a"), tally.add("a", 1)]).toEqual([0, true]);
});

test("it counts as a Map does, and leaves nothing behind", () => {
	const memory = new SharedArrayBuffer(Tally.BYTES);
	const tally = new Tally(memory);
	const counts = new Map<string, number>();
	const steps = fc.array(fc.tuple(fc.string({ maxLength: 3 }), fc.boolean()), { maxLength: 200 });
	fc.assert(
		fc.property(steps, (each) => {
			for (const [name, more] of each) {
				const before = counts.get(name) ?? 0;
				if (more) {
					expect(tally.add(name, 3)).toBe(before < 3);
					counts.set(name, Math.min(3, before + 1));
				} else if (before > 0) {
					tally.remove(name);
					counts.set(name, before - 1);
				}
			}
			for (const [name, count] of counts) expect(tally.count(name)).toBe(count);
		}),
	);
	for (const [name, count] of counts) for (let left = count; left > 0; left--) tally.remove(name);
	expect(new BigUint64Array(memory).every((word) => word === 0n)).toBe(true);
});

test("a place that another thread frees while it is looked at hides no other", () => {
	const memory = new SharedArrayBuffer(Tally.BYTES);
	const words = new BigUint64Array(memory);
	const tally = new Tally(memory);
	tally.add("a", 1);
	const at = words.findIndex((word) => word !== 0n);
	// Of a second place of the name the tag is read, and then a count that is 0 already.
	words[at + 1] = words[at]! & ~0xffffffffn;
	tally.remove("a");
	expect(words[at]).toBe(0n);
});

test("100,000 names have room", () => {
	const tally = new Tally();
	for (let i = 0; i < 100_000; i++)
		if (!tally.add(`a10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, 1)) throw new Error(`${i}`);
});

test("four threads at once never have more than the limit, and lose none", async () => {
	const memory = new SharedArrayBuffer(Tally.BYTES);
	const names = ["a", "b", "c"];
	const most = await Promise.all(
		Array.from({ length: 4 }, async () => {
			const worker = new Worker(new URL("./tally-thread.ts", import.meta.url).href);
			const found = await new Promise<number>((resolve, reject) => {
				worker.onmessage = ({ data }) => resolve(data);
				worker.onerror = (event) => reject(new Error(event.message));
				worker.postMessage({ memory, names, limit: 3, rounds: 50_000 });
			});
			worker.terminate();
			return found;
		}),
	);
	expect(Math.max(...most)).toBeLessThanOrEqual(3);
	expect(Math.min(...most)).toBeGreaterThan(0);
	expect(new BigUint64Array(memory).every((word) => word === 0n)).toBe(true);
});
