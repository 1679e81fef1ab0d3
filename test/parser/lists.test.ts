// What becomes of lists in a shape, told token by token as shape.ts tells it.

import { describe, expect, test } from "bun:test";
import { Lists } from "../../src/parser/lists.ts";

/** Marks by the letters that stand for them below: an integer, a string, any literal, a list, more groups. */
const MARKS: Readonly<Record<string, string>> = { I: "\x01", S: "\x03", "?": "\x0e", L: "\x0f", M: "\x10" };
const marked = (text: string) => text.replace(/[ISL?M]/g, (letter) => MARKS[letter]!);

/** The shape that is written for `text`; `#` stands for a hint. Null: it has none. */
function written(text: string): string | null {
	const lists = new Lists();
	const out = Buffer.alloc(100);
	lists.clear();
	let n = 1;
	for (const character of marked(text)) {
		if (character === "(") n = lists.open(out, n);
		else if (character === ")") n = lists.close(out, n, 0);
		else if (character === "[") n = lists.openBracket(out, n);
		else if (character === "]") n = lists.closeBracket(out, n);
		else {
			if (character === "," && lists.inGroup) n = lists.element(out, n, 0);
			out[n++] = character.charCodeAt(0);
			if (character === "#") lists.hint(n - 1, n);
		}
		if (n < 0) return null;
	}
	return out.latin1Slice(1, n);
}

describe("a list of literals", () => {
	test.each([
		["a in(I,S,I)", "a in(L)"],
		["a in(-I,+I)", "a in(L)"],
		["array[I,I]", "array[L]"],
		["in#(I,I)", "in#(L)"],
		["f(a in(I,I),I)", "f(a in(L),I)"],
	])("%s: is one mark", (text, shape) => {
		expect(written(text)).toBe(marked(shape));
	});

	test.each([
		"a in(I)",
		"a in(I,b)",
		"a in(f(I,I))",
		"f(I,I)",
		"xin(I,I)",
		"$in(I,I)",
		"a in[I,I]",
		"array(I,I)",
		"a[I,I]",
		"in(#I,I)",
		"(I,I)",
	])("%s: stays as it is", (text) => {
		expect(written(text)).toBe(marked(text));
	});

	test("the precision of a float is not lifted", () => {
		expect(written("a::float(I)")).toBeNull();
		expect(written("a::float#(I)")).toBeNull();
		expect(written("a::xfloat(I)")).toBe(marked("a::xfloat(I)"));
	});
});

describe("groups of literals", () => {
	test.each([
		["values(I,S)", "values(?,?)"],
		["values(I,S),(S,I),(I,null)", "values(?,?)M"],
		["values(I),(I,I),(I,I)", "values(?),(?,?)M"],
		["values(I,a),(I,b),(S,b)", "values(?,a),(?,b)M"],
		["values(f(I,I)),(f(I,I))", "values(f(I,I))M"],
		["values(a in(I,I)),(a in(I,I,I))", "values(a in(L))M"],
		["in((I,I),(S,S))", "in((?,?)M)"],
		["values(I),(I) x,(I)", "values(?)M x,(I)"],
		["values(I)x,(I)", "values(?)x,(I)"],
		["values(I),,(I)", "values(?),,(I)"],
		["values(I)#,(I)", "values(?)#,(I)"],
		["values(I#),(I)", "values(I#),(I)"],
		["values(I),(I)values(I)", "values(?)Mvalues(?)"],
	])("%s: those alike are one", (text, shape) => {
		expect(written(text)).toBe(marked(shape));
	});
});
