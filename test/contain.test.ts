// What comes in by timers: a time that none can be set to is a long one.

import { expect, test } from "bun:test";
import { Contain } from "../src/contain.ts";

const contain = new Contain(
	(error) => {
		throw error;
	},
	() => {},
);

test("what is to be done after a time without end is not done at once", async () => {
	const done: string[] = [];
	const once = contain.later(Number.MAX_SAFE_INTEGER, null, () => done.push("once"));
	const again = contain.every(Number.MAX_SAFE_INTEGER, () => done.push("again"));
	// They would have been set to 1 ms.
	await new Promise<void>((over) => contain.later(20, null, over));
	clearTimeout(once);
	clearInterval(again);
	expect(done).toEqual([]);
});
