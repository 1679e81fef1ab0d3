// What a message means while batches before it are not answered: it waits when one of them may yet decide that.

import { describe, expect, test } from "bun:test";
import { Books, Reply } from "../../src/backend/books.ts";
import type { Server } from "../../src/backend/server.ts";
import { ServerStatements } from "../../src/backend/server-statements.ts";
import { Statement } from "../../src/backend/statement.ts";
import { Statements } from "../../src/backend/statements.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { StatementNames } from "../../src/session/names.ts";
import { UnansweredNames } from "../../src/session/unanswered-names.ts";
import { MOMENT } from "../backend/support.ts";
import { frontend as f } from "../support/wire-frames.ts";

const statement = (n: number) => new Statement(`__pgdog_${n}`, `${n}`, Buffer.from(`SELECT ${n}\0\0\0`), NO_FACTS);
const ONE = statement(1);

function world() {
	const books = new Books();
	const names = new StatementNames(new Statements(() => 1));
	const unanswered = new UnansweredNames(names);
	const server = { books, statements: new ServerStatements(books) } as unknown as Server;
	/** A batch, said to its end. */
	const batch = (say: () => void) => {
		books.said(Reply.Parse);
		say();
		books.sync();
	};
	const concern = (message: Uint8Array, stop = message.length) =>
		unanswered.concern(server, Buffer.from(message), 0, stop);
	return { books, names, unanswered, server, batch, concern };
}

describe("a name that a batch has given or taken away", () => {
	const MESSAGES: [string, Uint8Array][] = [
		["Parse", f.parse("SELECT 1", "s")],
		["Bind", f.bind({ statement: "s" })],
		["Describe", f.describe("S", "s")],
		["Close", f.close("S", "s")],
	];

	test.each(MESSAGES)("is uncertain for a %s of another batch until it is answered", (_, message) => {
		const { unanswered, books, batch, concern } = world();
		expect(concern(message)).toBe(false);
		books.said(Reply.Parse);
		unanswered.noteChange("s", books);
		// In the batch itself whatever fails takes all that follows with it.
		expect(concern(message)).toBe(false);
		books.sync();
		expect(concern(message)).toBe(true);
		batch(() => {});
		expect(concern(message)).toBe(true);
		books.clear();
		expect(concern(message)).toBe(false);
	});

	test("is nothing to another name, to portals, and to what names no statement", () => {
		const { unanswered, books, batch, concern } = world();
		batch(() => unanswered.noteChange("s", books));
		for (const other of [
			f.parse("SELECT 1", "other"),
			f.bind({ statement: "other", portal: "s" }),
			f.describe("P", "s"),
			f.close("P", "s"),
			f.describe("S", "other"),
			f.close("S"),
			f.execute("s"),
			f.sync(),
		])
			expect(concern(other)).toBe(false);
	});

	test("cannot be seen in a message whose names are not here, which the server refuses", () => {
		const { unanswered, books, batch, concern } = world();
		batch(() => unanswered.noteChange("s", books));
		expect(concern(f.bind({ statement: "s" }), 5)).toBe(false);
		expect(concern(f.bind({ statement: "s" }), 7)).toBe(false);
		expect(concern(f.describe("S", "s"), 7)).toBe(false);
	});

	test("is forgotten when all is answered", () => {
		const { unanswered, books, batch, concern } = world();
		expect(unanswered.some).toBe(false);
		batch(() => unanswered.noteChange("s", books));
		expect(unanswered.some).toBe(true);
		unanswered.clear();
		expect([unanswered.some, concern(f.bind({ statement: "s" }))]).toEqual([false, false]);
	});
});

test("a Parse of a name that is given waits: the name may be free when a batch before it fails", () => {
	const { names, concern } = world();
	names.set("s", ONE);
	expect(concern(f.parse("SELECT 2", "s"))).toBe(true);
	expect(concern(f.parse("SELECT 2"))).toBe(false);
});

test("a statement is uncertain that a batch before has the server prepare, and so is the unnamed one", () => {
	const { names, server, books, batch, concern } = world();
	names.set("s", ONE);
	const bind = f.bind({ statement: "s" });
	expect(concern(bind)).toBe(false);
	batch(() => server.statements.noteParse(ONE, null, MOMENT, false));
	expect(concern(bind)).toBe(true);
	expect(concern(f.bind())).toBe(false);
	batch(() => server.statements.noteUnnamed(7));
	expect([concern(f.bind()), concern(f.describe("S"))]).toEqual([true, true]);
	books.clear();
	expect([concern(bind), concern(f.bind())]).toEqual([false, false]);
});

test("a name that was taken away is known to errors of what came before", () => {
	const { unanswered, books } = world();
	unanswered.noteEnd("mine", ONE, books);
	expect([unanswered.endedName("__pgdog_1"), unanswered.endedName("__pgdog_2")]).toEqual(["mine", null]);
	unanswered.clear();
	expect(unanswered.endedName("__pgdog_1")).toBeNull();
});

test("a statement that was found to be another is that one from then on", () => {
	const { unanswered } = world();
	const two = statement(2);
	unanswered.noteSuccessor(ONE, two);
	expect([unanswered.latest(ONE), unanswered.latest(two)]).toEqual([two, two]);
	unanswered.clear();
	expect(unanswered.latest(ONE)).toBe(ONE);
});

// A client that never lets all of its batches be answered: its names were noted for ever.
test("names of batches that are answered make room, and none of those that are not goes", () => {
	const { unanswered, books, concern } = world();
	const uncertain = (n: number) => concern(f.bind({ statement: `n${n}` }));
	for (let n = 0; n < 2000; n++) {
		books.said(Reply.Parse);
		unanswered.noteChange(`n${n}`, books);
		unanswered.noteEnd(`n${n}`, statement(n), books);
		books.sync();
		// Each batch is answered when the next but one is said.
		if (n < 2) continue;
		books.answered("1".charCodeAt(0));
		books.ready();
	}
	expect([uncertain(1), uncertain(1997), uncertain(1998), uncertain(1999)]).toEqual([false, false, true, true]);
	expect(unanswered.endedName("__pgdog_1999")).toBe("n1999");
	expect(unanswered.endedName("__pgdog_1")).toBeNull();
});
