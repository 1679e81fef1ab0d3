// The statements that all clients of a thread share: who is kept, who is dropped, and that it does not grow for ever.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Books } from "../../src/backend/books.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { ServerStatements } from "../../src/backend/server-statements.ts";
import type { Statement } from "../../src/backend/statement.ts";
import { Statements } from "../../src/backend/statements.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { Backend } from "../../src/wire/codes.ts";
import { MOMENT } from "./support.ts";

interface Cache {
	statements: Statements;
	get(key: string): Statement;
	find(key: string): Statement | undefined;
}

function cache(): Cache {
	let id = 0;
	const statements = new Statements(() => ++id);
	const dialect = statements.dialectsOf("here").of(new ParameterSets().empty);
	const find = (key: string) => dialect.statements.get(key);
	const get = (key: string) => {
		const statement = find(key) ?? statements.add(dialect, key, Buffer.from(`${key}\0\0\0`), NO_FACTS);
		statements.retain(statement);
		return statement;
	};
	return { statements, get, find };
}

test("a statement is found by its key and by the name that servers know it by", () => {
	const { statements, get } = cache();
	const one = get("SELECT 1");
	expect(one.name).toBe("__pgdog_1");
	expect(Buffer.from(one.nameBytes).toString()).toBe("__pgdog_1\0");
	expect(get("SELECT 1")).toBe(one);
	expect(statements.named("__pgdog_1")).toBe(one);
	expect(get("SELECT 2").name).toBe("__pgdog_2");
});

test("those that no client names are dropped, oldest first, when there are more than the limit", () => {
	const { statements, get, find } = cache();
	const [a, b, c] = ["a", "b", "c"].map(get) as [Statement, Statement, Statement];
	statements.release(b, 2);
	expect([a, b, c].map((s) => s.dropped)).toEqual([false, true, false]);
	expect(find("b")).toBeUndefined();
	expect(statements.named(b.name)).toBeUndefined();
	statements.release(a, 2);
	statements.release(c, 2);
	expect(statements.size).toBe(2);
	get("a");
	statements.release(get("d"), 2);
	expect([a.dropped, c.dropped]).toEqual([false, true]);
});

test("a million bytes of unused text after another are not kept, whatever the limit", () => {
	const { statements, get } = cache();
	for (let i = 0; i < 24; i++) statements.release(get(String(i).padEnd(1 << 20, "x")), Number.POSITIVE_INFINITY);
	// Each is kept twice: as the text that it is found by, and as the message that is sent.
	expect(statements.size).toBeLessThanOrEqual(8);
	expect(statements.size).toBeGreaterThan(4);
});

// An error can give a client back a statement that the cache has dropped meanwhile (onCloseUndone). Its second end
// must not take the one that has its text now along.
test("a dropped statement that is retained again does not take its successor with it", () => {
	const { statements, get, find } = cache();
	const old = get("a");
	statements.release(old, 0);
	expect(old.dropped).toBe(true);
	statements.retain(old);
	const next = get("a");
	expect(next).not.toBe(old);
	statements.release(old, 0);
	expect(find("a")).toBe(next);
});

test("against a plain count: who is in use is never dropped, and the limit holds for the rest", () => {
	const step = fc.record({ key: fc.constantFrom("a", "b", "c", "d", "e", "f"), get: fc.boolean() });
	fc.assert(
		fc.property(fc.array(step, { maxLength: 100 }), fc.nat(6), (steps, limit) => {
			const { statements, get } = cache();
			const held = new Map<string, Statement[]>();
			for (const { key, get: take } of steps) {
				const mine = held.get(key) ?? [];
				held.set(key, mine);
				if (take) {
					const statement = get(key);
					if (mine[0] !== undefined) expect(statement).toBe(mine[0]);
					mine.push(statement);
				} else {
					const last = mine.pop();
					if (last !== undefined) {
						statements.release(last, limit);
						// Room is made when one comes out of use, not when it has a client less.
						const used = [...held.values()].filter((all) => all.length > 0).length;
						if (mine.length === 0) expect(statements.size).toBeLessThanOrEqual(Math.max(limit, used));
					}
				}
				for (const all of held.values()) for (const one of all) expect(one.dropped).toBe(false);
			}
		}),
	);
});

test("DISCARD ALL takes what a server had, not what was sent behind it", () => {
	const { get } = cache();
	const [before, behind] = [get("SELECT 1"), get("SELECT 2")];
	const books = new Books();
	const session = new ServerStatements(books);
	session.noteParse(before, "a", MOMENT, false);
	books.answered(Backend.ParseComplete);
	session.noteParse(behind, "b", MOMENT, false);
	session.clear();
	expect([session.has(before), session.has(behind)]).toEqual([false, true]);
	books.answered(Backend.ParseComplete);
	session.clear();
	expect(session.has(behind)).toBe(false);
});

test("what came from another thread is asked about if a client of this one has closed the statement, whenever that was", () => {
	const { statements, get } = cache();
	const statement = get("SELECT 1");
	const move = () => {
		const from = new ServerStatements(new Books());
		from.noteParse(statement, null, MOMENT, false);
		const to = new ServerStatements(new Books());
		to.arrive(from.leave(), statements);
		return to.use(statement)!;
	};
	expect(move().isFresh(MOMENT, 0)).toBe(true);
	statement.closed();
	expect(move().isFresh(MOMENT, 0)).toBe(false);
	statements.release(statement, 10);
});
