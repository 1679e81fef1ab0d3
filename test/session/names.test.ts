import { expect, test } from "bun:test";
import fc from "fast-check";
import { Statement } from "../../src/backend/statement.ts";
import { Statements } from "../../src/backend/statements.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { StatementNames } from "../../src/session/names.ts";

function statement(sql: string): Statement {
	return new Statement(`__pgdog_${sql}`, sql, Buffer.from(`${sql}\0\0\0`), NO_FACTS);
}

/** A name in the middle of a message, as `find` gets it. */
function find(names: StatementNames, name: string): Statement | undefined {
	const message = Buffer.from(`B....portal\0${name}\0rest`);
	const start = message.indexOf(0) + 1;
	return names.find(message, start, start + Buffer.byteLength(name));
}

/** Few names, many of which share length and last letter: they want the same place among the recent ones. */
const name = fc.constantFrom(
	"a",
	"b",
	"i",
	"q",
	"P0_1",
	"P0_2",
	"P1_1",
	"ab",
	"bb",
	"cb",
	"ä",
	"é",
	"a".repeat(70),
	"b".repeat(70),
);
const step = fc.oneof(
	{ weight: 4, arbitrary: fc.tuple(fc.constant("find" as const), name) },
	fc.tuple(fc.constant("set" as const), name),
	fc.tuple(fc.constant("delete" as const), name),
	{ weight: 1, arbitrary: fc.tuple(fc.constant("clear" as const), name) },
);

test("a name means what it was last given, whatever was found before", () => {
	fc.assert(
		fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
			const names = new StatementNames(new Statements(() => 1));
			const model = new Map<string, Statement>();
			for (const [what, key] of steps) {
				if (what === "set") {
					const given = statement(key);
					names.set(key, given);
					model.set(key, given);
				} else if (what === "delete") {
					names.delete(key);
					model.delete(key);
				} else if (what === "clear") {
					names.clear();
					model.clear();
				}
				expect(find(names, key)).toBe(model.get(key));
				expect(names.get(key)).toBe(model.get(key));
				expect([...names]).toEqual([...model]);
			}
		}),
	);
});
