// Rows of several workers that are one to who reads them.

import { expect, test } from "bun:test";
import { mergeListeners } from "../../src/status/rows.ts";

test("a channel has one row, whichever workers listen on it", () => {
	const row = { user: "u", database: "d", shard: 0, channel: "b", listeners: 2, received: 5, dropped: 1 };
	const other = { ...row, channel: "a" };
	expect(mergeListeners([row, other, { ...row, listeners: 3, received: 7, dropped: 2 }])).toEqual([
		other,
		{ ...row, listeners: 5, received: 7, dropped: 3 },
	]);
	const elsewhere = { ...other, shard: 1 };
	expect(mergeListeners([elsewhere, row, other])).toEqual([other, row, elsewhere]);
});
