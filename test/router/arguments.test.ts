// The values of Bind messages as keys, in both formats and of all types, and messages that contradict themselves.

import { describe, expect, test } from "bun:test";
import { type Source, SourceKind } from "../../src/parser/sources.ts";
import { At, type KeyColumn } from "../../src/parser/tables.ts";
import { BindArguments, UNKNOWN_TYPES } from "../../src/router/arguments.ts";
import { concat, int16, int32 } from "../support/wire-frames.ts";

/** Its shard is the value itself, or the length of a text. */
function column(dataType: KeyColumn["dataType"]): KeyColumn {
	const shardOfText = (text: string) =>
		dataType === "bigint" ? (/^\d+$/.test(text) ? Number(text) : null) : text.length;
	const shardOfBinary = (bytes: Uint8Array, start: number, end: number) =>
		dataType === "bigint" ? (end - start === 8 ? bytes[end - 1]! : null) : end - start;
	const homeOfText = (text: string) => (shardOfText(text) ?? -100) + 100;
	const homeOfBinary = (bytes: Uint8Array, start: number, end: number) => (shardOfBinary(bytes, start, end) ?? 0) + 100;
	return { schema: null, table: "t", column: "k", dataType, shardOfText, shardOfBinary, homeOfText, homeOfBinary };
}

const bigint = column("bigint");
const varchar = column("varchar");
const uuid = column("uuid");
const vector = column("vector");

function source(parameter: number, more: Partial<Source> = {}): Source {
	const none = { text: null, isNumber: false, place: 0, isNegated: false, cast: 0, isShared: false, isArray: false };
	return { ...none, kind: SourceKind.Parameter, parameter, ...more };
}

type BindValue = string | Uint8Array | null;
interface Given {
	formats?: number[];
	types?: readonly number[] | null;
	isForeign?: boolean;
}

function argumentsOf(
	values: BindValue[],
	{ formats = [], types = null, isForeign = false }: Given = {},
): BindArguments {
	const parts = values.map((value) => {
		if (value === null) return int32(-1);
		const bytes = typeof value === "string" ? Buffer.from(value) : value;
		return concat(int32(bytes.length), bytes);
	});
	const bind = Buffer.from(
		concat(int16(9), int16(formats.length), ...formats.map(int16), int16(values.length), ...parts, int16(0)),
	);
	return new BindArguments().of({ bind, bindStart: 2, bindEnd: bind.length, types, isForeign })!;
}

const EIGHT = concat(int32(0), int32(7));

test("without a Bind there are none", () => {
	expect(new BindArguments().of({ bind: null, bindStart: 0, bindEnd: 0, types: null, isForeign: false })).toBe(null);
});

test("values are found in any order, in text and in binary", () => {
	const texts = argumentsOf(["1", null, "33", "x"]);
	for (const [parameter, expected] of [
		[3, 33],
		[1, 1],
		[2, At.Null],
		[4, At.Unplaced],
		[1, 1],
		[5, At.Unplaced],
	] as const)
		expect(texts.shardOf(source(parameter), bigint, false)).toBe(expected);
	expect(texts.shardOf(source(3), bigint, true)).toBe(133);
	const mixed = argumentsOf(["1", EIGHT], { formats: [0, 1] });
	expect(mixed.shardOf(source(2), bigint, false)).toBe(7);
	expect(mixed.shardOf(source(2), bigint, true)).toBe(107);
	expect(mixed.shardOf(source(1), bigint, false)).toBe(1);
	expect(argumentsOf([EIGHT, EIGHT], { formats: [1] }).shardOf(source(2), bigint, false)).toBe(7);
});

describe("a value counts only as what it is compared as", () => {
	test.each([
		["1", bigint, {}, {}, 1],
		["1", bigint, {}, { types: [20] }, 1],
		["1", bigint, {}, { types: [1700] }, 1],
		["1", bigint, {}, { types: [701] }, At.Unplaced],
		["1", bigint, { cast: 701 }, {}, At.Unplaced],
		["1", bigint, { isShared: true }, {}, 1],
		["1", bigint, {}, { types: UNKNOWN_TYPES }, 1],
		[EIGHT, bigint, {}, { formats: [1], types: [20] }, 7],
		[EIGHT, bigint, { cast: 20 }, { formats: [1] }, 7],
		[EIGHT, bigint, { cast: 1700 }, { formats: [1] }, At.Unplaced],
		[EIGHT, bigint, {}, { formats: [1], types: [1700] }, At.Unplaced],
		[EIGHT, bigint, { isShared: true }, { formats: [1] }, At.Unplaced],
		[EIGHT, bigint, { isShared: true }, { formats: [1], types: [20] }, 7],
		[EIGHT, bigint, {}, { formats: [1], types: UNKNOWN_TYPES }, At.Unplaced],
		["abc", varchar, {}, { types: [25] }, 3],
		["abc", varchar, {}, { types: [1043] }, 3],
		["abc", varchar, {}, { types: [1042] }, At.Unplaced],
		["abc", varchar, {}, { types: [20] }, At.Unplaced],
		["ä", varchar, {}, {}, 1],
		["ä", varchar, {}, { isForeign: true }, At.Unplaced],
		["a", varchar, {}, { isForeign: true }, 1],
		["abc", uuid, {}, { types: [2950] }, 3],
		["abc", uuid, {}, { types: [25] }, At.Unplaced],
		["[1]", vector, {}, { types: [20000] }, 3],
		["[1]", vector, {}, { types: [25] }, At.Unplaced],
	] as const)("%j", (value, key, more, given, expected) => {
		expect(argumentsOf([value], given as Given).shardOf(source(1, more), key, false)).toBe(expected);
	});
});

const array = (type: number, ...elements: (Uint8Array | null)[]) =>
	concat(
		int32(elements.length > 0 ? 1 : 0),
		int32(0),
		int32(type),
		...(elements.length > 0 ? [int32(elements.length), int32(1)] : []),
		...elements.map((element) => (element === null ? int32(-1) : concat(int32(element.length), element))),
	);

describe("the elements of an array", () => {
	test.each([
		["{1,2}", bigint, {}, [1, 2]],
		['{ "3" , NULL,4}', bigint, {}, [3, 4]],
		["{}", bigint, {}, []],
		["{x}", bigint, {}, [At.All]],
		["{1,{2}}", bigint, {}, null],
		["1", bigint, {}, null],
		[null, bigint, {}, []],
		["{1}", bigint, { types: [1016] }, [1]],
		["{1}", bigint, { types: [1009] }, null],
		["{1}", bigint, { types: [600] }, null],
		['{"a\\"b",cd}', varchar, {}, [3, 2]],
		["{ä}", varchar, { isForeign: true }, null],
		[array(20, EIGHT, null, EIGHT), bigint, { formats: [1] }, [7, 7]],
		[array(20), bigint, { formats: [1] }, []],
		[array(701, EIGHT), bigint, { formats: [1] }, null],
		[array(20, EIGHT).subarray(0, 24), bigint, { formats: [1] }, null],
		[array(20, EIGHT).subarray(0, 4), bigint, { formats: [1] }, null],
		[concat(int32(2), int32(0), int32(20), int32(1), int32(1), int32(1), int32(1)), bigint, { formats: [1] }, null],
	] as const)("%j", (value, key, given, expected) => {
		const found = argumentsOf([value as BindValue], given as Given).elements(source(1, { isArray: true }), key);
		expect(found).toEqual(expected as number[] | null);
	});

	test("of a parameter that is not there are not known", () => {
		expect(argumentsOf([]).elements(source(1, { isArray: true }), bigint)).toBe(null);
	});
});

test("a message that contradicts itself says nothing", () => {
	const bytes = (...parts: Uint8Array[]) => Buffer.from(concat(...parts));
	for (const bind of [
		bytes(int16(0), int16(1), int32(100), Buffer.from("1")),
		bytes(int16(0), int16(2), int32(1), Buffer.from("1")),
		bytes(int16(0)),
		bytes(int16(3), int16(0), int16(0)),
	]) {
		const found = new BindArguments().of({ bind, bindStart: 0, bindEnd: bind.length, types: null, isForeign: false })!;
		expect(found.shardOf(source(2), bigint, false)).toBe(At.Unplaced);
		found.clear();
	}
});
