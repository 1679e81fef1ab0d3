// When two descriptions of a statement are the same: as PostgreSQL compares them, and as a client of several shards may.

import { expect, test } from "bun:test";
import { Description } from "../../src/backend/description.ts";
import { backend } from "../support/wire-frames.ts";

interface Column {
	name: string;
	type?: number;
	modifier?: number;
	table?: number;
	attribute?: number;
}

function of(parameters: number[], columns: Column[] | null): Description {
	const described = columns?.map(({ name, type: oid = 23, modifier = -1, table = 0, attribute = 0 }) => ({
		name,
		oid,
		modifier,
		table,
		attribute,
	}));
	const types = backend.parameterDescription(...parameters);
	return Description.of(types, described === undefined ? null : backend.rowDescription(...described));
}

test("the same parameters and columns, of whatever table, are the same", () => {
	const one = of([23, 25], [{ name: "a", table: 100, attribute: 1 }, { name: "b" }]);
	const other = of([23, 25], [{ name: "a", table: 200, attribute: 7 }, { name: "b" }]);
	expect(one.key).toBe(other.key);
	expect([...one.types]).toEqual([0, 2, 0, 0, 0, 23, 0, 0, 0, 25]);
});

test.each<[string, number[], Column[] | null]>([
	["another parameter type", [20], [{ name: "a" }, { name: "b" }]],
	["no parameter", [], [{ name: "a" }, { name: "b" }]],
	["columns that have changed places", [23], [{ name: "b" }, { name: "a" }]],
	["another name", [23], [{ name: "a" }, { name: "c" }]],
	["another type", [23], [{ name: "a" }, { name: "b", type: 20 }]],
	["another modifier", [23], [{ name: "a" }, { name: "b", modifier: 9 }]],
	["a column more", [23], [{ name: "a" }, { name: "b" }, { name: "c" }]],
	["no column", [23], []],
	["no result", [23], null],
])("%s makes another", (_, parameters, columns) => {
	const described = of(parameters, columns);
	const known = of([23], [{ name: "a" }, { name: "b" }]);
	expect(described.key).not.toBe(known.key);
	expect(described.portable).not.toBe(known.portable);
});

test("types that users have made have other OIDs on another shard", () => {
	const here = of([16500], [{ name: "a", type: 16500 }]);
	const there = of([17000], [{ name: "a", type: 17000 }]);
	expect(here.key).not.toBe(there.key);
	expect(here.portable).toBe(there.portable);
	expect(here.portable).not.toBe(of([16500], [{ name: "a", type: 25 }]).portable);
	expect(of([0xffffffff], []).portable).toBe(of([16500], []).portable);
});

test("what a broken server sends is like nothing, and no mistake of ours", () => {
	const whole = Buffer.from(backend.rowDescription({ name: "a" }));
	const known = Description.of(backend.parameterDescription(), whole);
	for (let end = 0; end < whole.length; end++)
		expect(Description.of(backend.parameterDescription(), whole.subarray(0, end)).key).not.toBe(known.key);
	expect([...Description.of(new Uint8Array(0), null).types]).toEqual([0, 0]);
});
