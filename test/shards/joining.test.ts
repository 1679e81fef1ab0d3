// What LIMIT and OFFSET come to by the parameters of a Bind, and whose text may be read here.

import { expect, test } from "bun:test";
import { PgError } from "../../src/errors.ts";
import type { Merging, RowCount } from "../../src/parser/merging.ts";
import { Reading } from "../../src/parser/reading.ts";
import { isReadAlike, joiningOf } from "../../src/shards/joining.ts";
import { endOfString, HEADER } from "../../src/wire/frame.ts";
import { frontend } from "../support/wire-frames.ts";

const EVERY: Merging = { order: [], distinct: false, limit: null, offset: null, combined: null };

/** @returns the limit, or why there is none */
function limitOf(
	count: RowCount | null,
	values: (string | Uint8Array | null)[] | null,
	formats: number[] = [],
): unknown {
	let bound = null;
	if (values !== null) {
		const chunk = Buffer.from(frontend.bind({ values, formats }));
		const nameEnd = endOfString(chunk, endOfString(chunk, HEADER, chunk.length) + 1, chunk.length);
		bound = { chunk, start: nameEnd + 1, end: chunk.length };
	}
	const found = joiningOf({ ...EVERY, limit: count }, bound, Reading.Standard, 3);
	return found instanceof PgError ? found.sqlstate : found.limit;
}

const parameter = (number: number): RowCount => ({ rows: -1, parameter: number });

test("a limit is what the text says, or its parameter in text or binary; NULL is none", () => {
	expect(limitOf(null, null)).toBe(Number.POSITIVE_INFINITY);
	expect(limitOf({ rows: 5, parameter: 0 }, null)).toBe(5);
	expect(limitOf(parameter(1), ["7"])).toBe(7);
	expect(limitOf(parameter(2), ["x", "8"])).toBe(8);
	expect(limitOf(parameter(2), [null, "8"])).toBe(8);
	expect(limitOf(parameter(1), [null])).toBe(Number.POSITIVE_INFINITY);
	expect(limitOf(parameter(1), [new Uint8Array([0, 0, 0, 9])], [1])).toBe(9);
	expect(limitOf(parameter(2), ["x", new Uint8Array([0, 0, 0, 0, 0, 0, 0, 10])], [0, 1])).toBe(10);
});

test("what is no integer is refused, and never taken for one", () => {
	expect(limitOf(parameter(1), null)).toBe("0A000");
	expect(limitOf(parameter(2), ["1"])).toBe("0A000");
	for (const text of ["-1", "1.5", "", "1e3", " 1", "9".repeat(16)])
		expect(limitOf(parameter(1), [text])).toBe("0A000");
	// A real number of four bytes, and of eight; three bytes are nothing.
	expect(limitOf(parameter(1), [new Uint8Array([0x40, 0x20, 0, 0])], [1])).toBe("0A000");
	expect(limitOf(parameter(1), [new Uint8Array([0x40, 0x04, 0, 0, 0, 0, 0, 0])], [1])).toBe("0A000");
	expect(limitOf(parameter(1), [new Uint8Array(3)], [1])).toBe("0A000");
});

test("OFFSET of more than nothing is refused", () => {
	const offset = (rows: number) => joiningOf({ ...EVERY, offset: { rows, parameter: 0 } }, null, Reading.Standard, 2);
	expect(offset(0)).toMatchObject({ offset: 0 });
	expect(offset(1)).toBeInstanceOf(PgError);
});

test("a text is read here where the session cannot read it otherwise", () => {
	expect(isReadAlike("SELECT 'a'", Reading.Changing)).toBe(true);
	expect(isReadAlike("SELECT 'ä'", Reading.Standard)).toBe(true);
	expect(isReadAlike("SELECT 'ä'", Reading.Foreign)).toBe(false);
	expect(isReadAlike("SELECT 'a\\'", Reading.Standard)).toBe(false);
	expect(isReadAlike("SELECT E'\\n'", Reading.Escapes)).toBe(false);
});
