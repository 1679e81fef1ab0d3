import { expect, test } from "bun:test";
import fc from "fast-check";
import { parse, stringify } from "smol-toml";
import { joinKey, locate } from "../../src/config/locate.ts";

/** Every path of a parsed document: the oracle for which paths there are. */
function paths(value: unknown, path = "", into = new Set<string>()): Set<string> {
	if (path !== "") into.add(path);
	if (Array.isArray(value)) {
		for (const [index, element] of value.entries()) paths(element, `${path}[${index}]`, into);
	} else if (typeof value === "object" && value !== null && !(value instanceof Date)) {
		for (const [key, inner] of Object.entries(value)) paths(inner, joinKey(path, key), into);
	}
	return into;
}

test("each key of a hand-written file is found on its line", () => {
	const toml = `# a comment with [brackets] and "quotes
[general]
host = "a # b"   # c
"odd key" = 1

[[databases]]
name = """
two
lines"""
tags = [
	"x", # ]
	{ y = 1, z.w = '}' },
]
[[databases]]
name = 'b'
[databases.inner]
deep.er = 1979-05-27 07:32:00
[[databases.list]]
a = ''''quoted''''
[[databases.list]]
a = "\\""\r
[tcp]
time = 1
`;
	expect(Object.fromEntries(locate(toml))).toEqual({
		general: 2,
		"general.host": 3,
		'general."odd key"': 4,
		databases: 6,
		"databases[0]": 6,
		"databases[0].name": 7,
		"databases[0].tags": 10,
		"databases[0].tags[0]": 11,
		"databases[0].tags[1]": 12,
		"databases[0].tags[1].y": 12,
		"databases[0].tags[1].z": 12,
		"databases[0].tags[1].z.w": 12,
		"databases[1]": 14,
		"databases[1].name": 15,
		"databases[1].inner": 16,
		"databases[1].inner.deep": 17,
		"databases[1].inner.deep.er": 17,
		"databases[1].list": 18,
		"databases[1].list[0]": 18,
		"databases[1].list[0].a": 19,
		"databases[1].list[1]": 20,
		"databases[1].list[1].a": 21,
		tcp: 22,
		"tcp.time": 23,
	});
	expect(paths(parse(toml))).toEqual(new Set(locate(toml).keys()));
});

const key = fc.oneof(
	fc.constantFrom("name", "port", "a-b", "_", "0"),
	fc.string({ maxLength: 6, unit: "grapheme" }).filter((text) => text !== "__proto__"),
);
const scalar = fc.oneof(
	fc.string({ unit: "grapheme" }),
	fc.constantFrom('"""', "'''", "a\nb", "# no comment", "]", "}", "\\", 'x"'),
	fc.integer(),
	fc.boolean(),
	fc.double({ noNaN: true }),
	fc.date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) }),
);
const { table } = fc.letrec((tie) => ({
	table: fc.dictionary(key, tie("value"), { maxKeys: 4, noNullPrototype: true }),
	value: fc.oneof(
		{ maxDepth: 4, depthSize: "small" },
		scalar,
		fc.array(scalar, { maxLength: 3 }),
		fc.array(tie("table"), { maxLength: 3, minLength: 1 }),
		tie("table"),
	),
}));

test("finds exactly the paths that smol-toml reads, in whatever it writes", () => {
	fc.assert(
		fc.property(table, (document) => {
			const toml = stringify(document as Record<string, unknown>);
			expect([...locate(toml).keys()].toSorted()).toEqual([...paths(parse(toml))].toSorted());
		}),
		{ numRuns: 500 },
	);
});

/** One line of a file as text, with the keys that begin on it. Lines are independent, so the expected line is their number. */
const blank = fc.constantFrom("", "# [x]", "  \t", "#\"'''", "# é = 1");
const values = fc.constantFrom(
	"1",
	"[ [1, 2], # ]\n [3] ]",
	'"""\n\\" ""x """""',
	"'''\n\n'''",
	"{ a = [1], b = { c = '}' } }",
	"'# no'",
	"1.5e3 # x",
	"07:32:00",
);

test("the line is the one on which the key was written, whatever stands between", () => {
	fc.assert(
		fc.property(fc.array(fc.tuple(fc.array(blank), values, fc.constantFrom("\n", "\r\n"))), (entries) => {
			let toml = "";
			const expected = new Map<string, number>();
			for (const [index, [blanks, value, newline]] of entries.entries()) {
				for (const line of blanks) toml += line + newline;
				expected.set(`k${index}`, toml.split("\n").length);
				toml += ` k${index}  =\t${value}${newline}`;
			}
			parse(toml);
			const lines = locate(toml);
			for (const [path, line] of expected) expect([path, lines.get(path)]).toEqual([path, line]);
			expect(new Set(lines.keys())).toEqual(paths(parse(toml)));
		}),
	);
});

test("text that is not TOML ends the search, without a throw or a hang", () => {
	const piece = fc.constantFrom(
		"[",
		"]",
		"[[",
		"{",
		"}",
		"=",
		'"',
		"'",
		'"""',
		"'''",
		"\\",
		".",
		",",
		"#",
		"\n",
		"a",
		" ",
	);
	fc.assert(
		fc.property(
			fc.oneof(
				fc.string(),
				fc.array(piece).map((pieces) => pieces.join("")),
			),
			(text) => {
				for (const line of locate(text).values()) expect(line).toBeLessThanOrEqual(text.split("\n").length);
			},
		),
		{ numRuns: 2000 },
	);
});
