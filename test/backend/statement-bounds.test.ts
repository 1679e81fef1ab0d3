// How much prepared statements may take: of all clients of a worker, and of a server who is not to have more than some.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Books } from "../../src/backend/books.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { ServerStatements } from "../../src/backend/server-statements.ts";
import type { Statement } from "../../src/backend/statement.ts";
import { Statements } from "../../src/backend/statements.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { StatementNames } from "../../src/session/names.ts";

const MB = 2 ** 20;
const MOMENT = { catalogue: 0, dueAt: Number.POSITIVE_INFINITY };
const sets = new ParameterSets();

function store() {
	let id = 0;
	const statements = new Statements(() => ++id);
	const dialect = statements.dialectsOf("place").of(sets.empty);
	return { statements, add: (key: string, size: number) => statements.add(dialect, key, Buffer.alloc(size), NO_FACTS) };
}

test("statements that clients name take so much together; what is let go of makes room", () => {
	const { statements, add } = store();
	const held: Statement[] = [];
	for (let i = 0; statements.hasRoom(50 * MB); i++) {
		held.push(add(`k${i}`, 50 * MB));
		statements.retain(held.at(-1)!);
	}
	expect(held).toHaveLength(5);
	statements.release(held[0]!, Number.POSITIVE_INFINITY);
	expect(statements.hasRoom(50 * MB)).toBe(true);
	expect(statements.drops).toBe(1);
});

test("names count, too, each as long as it is given", () => {
	const { statements, add } = store();
	const one = add("k", 10);
	const names = new StatementNames(statements);
	for (let i = 0; i < 1000; i++) names.set(`${i}`.padStart(1000, "n"), one);
	expect(statements.nameBytes).toBeGreaterThan(1_000_000);
	expect(names.bytes).toBeGreaterThan(statements.nameBytes);
	names.set("0".padStart(1000, "n"), one);
	names.delete("1".padStart(1000, "n"));
	names.clear();
	expect([statements.nameBytes, names.bytes]).toEqual([0, 0]);
});

test("a server closes the one that was used least lately", () => {
	const step = fc.tuple(fc.constantFrom("use" as const, "add" as const), fc.nat(7));
	fc.assert(
		fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 5 }), (steps, limit) => {
			const { add } = store();
			const all = Array.from({ length: 8 }, (_, i) => add(`k${i}`, 10));
			const here = new ServerStatements(new Books());
			let model: Statement[] = [];
			for (const [what, which] of steps) {
				const statement = all[which]!;
				if (what === "use" && here.use(statement) !== undefined)
					model = [...model.filter((each) => each !== statement), statement];
				if (what === "use" || model.includes(statement)) continue;
				const evicted = here.evict(limit - 1).map((each) => (typeof each === "string" ? each : each.statement));
				expect(evicted).toEqual(model.splice(0, Math.max(0, model.length - limit + 1)));
				here.noteParse(statement, null, MOMENT, false);
				model.push(statement);
			}
		}),
	);
});
