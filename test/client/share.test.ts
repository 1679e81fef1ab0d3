// Who gets how much of what the clients of a worker may have the proxy collect.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Budget, counted, Share } from "../../src/client/share.ts";

test("shares never come to more than the budget, and what is given back is another's", () => {
	const steps = fc.array(fc.tuple(fc.nat(3), fc.nat(120)), { maxLength: 40 });
	fc.assert(
		fc.property(steps, (all) => {
			const budget = new Budget(200);
			const shares = Array.from({ length: 4 }, () => new Share(budget));
			const has = [0, 0, 0, 0];
			for (const [who, bytes] of all) {
				const others = has.reduce((sum, each, i) => sum + (i === who ? 0 : each), 0);
				const fits = bytes <= has[who]! || others + bytes <= 200;
				expect(shares[who]!.set(bytes)).toBe(fits);
				if (fits) has[who] = bytes;
				expect(budget.used).toBe(has.reduce((sum, each) => sum + each, 0));
			}
		}),
	);
});

test("small messages do not count, large ones as a whole from their first bytes on", () => {
	expect(counted(100, 1 << 20)).toBe(0);
	expect(counted(100, 5 << 20)).toBe(5 << 20);
	expect(counted(3 << 20, Number.POSITIVE_INFINITY)).toBe(3 << 20);
});
