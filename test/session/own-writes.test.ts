// Where a client reads that has to see what it has written.

import { describe, expect, test } from "bun:test";
import type { General } from "../../src/config/settings.ts";
import { Side } from "../../src/config/snapshot.ts";
import { Routes } from "../../src/router/route.ts";
import { OwnWrites } from "../../src/session/own-writes.ts";

const by = (read_after_write: General["read_after_write"]) =>
	({ read_after_write, read_after_write_window: 100 }) as unknown as General;

function wrote(): OwnWrites {
	const writes = new OwnWrites();
	writes.wrote(1000);
	return writes;
}

const PRIMARY = by("primary");

describe("after a write", () => {
	test("reads that may go anywhere go to the primary for a while", () => {
		const writes = wrote();
		expect(writes.side(Side.Any, PRIMARY, 1100)).toBe(Side.Primary);
		expect(writes.side(Side.Any, PRIMARY, 1101)).toBe(Side.Any);
		// It is over for good.
		expect(writes.side(Side.Any, PRIMARY, 1100)).toBe(Side.Any);
	});

	test("a client that names a side gets it", () => {
		const writes = wrote();
		expect(writes.side(Side.Replica, PRIMARY, 1050)).toBe(Side.Replica);
		expect(writes.side(Side.Primary, PRIMARY, 1050)).toBe(Side.Primary);
	});

	test("servers are chosen by what they have replayed, where that is followed", () => {
		const writes = wrote();
		expect([writes.side(Side.Any, by("lsn"), 1001), writes.since]).toEqual([Side.Any, 1000]);
		expect([writes.side(Side.Primary, by("lsn"), 1001), writes.since]).toEqual([Side.Primary, 0]);
	});

	test("nothing is otherwise where that is off, or nothing was written", () => {
		expect(wrote().side(Side.Any, by("off"), 1001)).toBe(Side.Any);
		expect(new OwnWrites().side(Side.Any, PRIMARY, 1001)).toBe(Side.Any);
	});
});

test("SHOW ROUTES and EXPLAIN are told that it was for a write's sake", () => {
	const writes = wrote();
	const route = new Routes("statement").to(0, Side.Any);
	expect(writes.told(route, Side.Primary)).toMatchObject({ shard: 0, side: Side.Primary });
	expect(writes.told(null, Side.Primary)).toBeNull();
});
