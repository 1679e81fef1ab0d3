// The queue of those who wait, against a plain array.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { type Waiter, Waiters } from "../../src/pool/waiters.ts";

const waiter = (): Waiter => ({
	waitingSince: 0,
	nextWaiter: null,
	previousWaiter: null,
	queued: false,
	onServer() {},
	onCheckoutFailed() {},
	onElsewhere() {},
	onLongWait() {},
});

test("arrival order is served whoever gives up, and who left can come again", () => {
	const step = fc.oneof(
		{ weight: 3, arbitrary: fc.record({ kind: fc.constant("push" as const), who: fc.nat(9) }) },
		{ weight: 2, arbitrary: fc.record({ kind: fc.constant("remove" as const), who: fc.nat(9) }) },
		{ weight: 2, arbitrary: fc.record({ kind: fc.constant("shift" as const), who: fc.constant(0) }) },
	);
	fc.assert(
		fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
			const all = Array.from({ length: 10 }, waiter);
			const waiters = new Waiters();
			const model: Waiter[] = [];
			for (const { kind, who } of steps) {
				const one = all[who] as Waiter;
				if (kind === "push") {
					if (one.queued) continue;
					waiters.push(one);
					model.push(one);
				} else if (kind === "remove") {
					waiters.remove(one);
					if (model.includes(one)) model.splice(model.indexOf(one), 1);
				} else expect(waiters.shift()).toBe(model.shift() ?? null);
				expect(waiters.length).toBe(model.length);
				expect(waiters.first).toBe(model[0] ?? null);
				const forward: Waiter[] = [];
				for (let at = waiters.first; at !== null; at = at.nextWaiter) forward.push(at);
				expect(forward.length).toBe(model.length);
				expect(forward.every((found, i) => found === model[i])).toBe(true);
				for (const found of all) {
					expect(found.queued).toBe(model.includes(found));
					if (!found.queued) expect([found.nextWaiter, found.previousWaiter]).toEqual([null, null]);
				}
				expect(model[0]?.previousWaiter ?? null).toBeNull();
			}
		}),
	);
});
