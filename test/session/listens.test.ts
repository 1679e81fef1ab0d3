// Which channels a client listens on, by what it has said and the command tags that came. As PostgreSQL has it: test/integration/listen.test.ts.

import { expect, test } from "bun:test";
import { Backslash } from "../../src/parser/lexer.ts";
import { listenActs } from "../../src/parser/listens.ts";
import { Listens, MOST_LISTENS } from "../../src/session/listens.ts";

/** Says a text whose statements are answered by these tags; then all of it is answered. @param status "E": it failed, outside of a block */
function say(listens: Listens, sql: string, tags: string[], status: "I" | "T" | "E" = "I"): string[] {
	listens.say(listenActs(sql, Backslash.Plain)!);
	for (const tag of tags) listens.onTag(tag);
	listens.answered(status !== "T", status !== "E");
	return [...listens.channels].sort();
}

test("a LISTEN holds when its transaction has committed", () => {
	const listens = new Listens();
	expect(say(listens, "LISTEN a", ["LISTEN"])).toEqual(["a"]);
	expect(say(listens, "LISTEN b", ["LISTEN"], "T")).toEqual(["a"]);
	expect([listens.mayListen("b"), listens.mayListen("a"), listens.isOpen]).toEqual([true, false, true]);
	expect(say(listens, "UNLISTEN *", ["UNLISTEN"], "T")).toEqual(["a"]);
	expect(say(listens, "LISTEN c", ["LISTEN"], "T")).toEqual(["a"]);
	expect(say(listens, "COMMIT", ["COMMIT"])).toEqual(["c"]);
	expect(listens.isOpen).toBe(false);
});

test("what failed, or was never run, does nothing", () => {
	const listens = new Listens();
	expect(say(listens, "LISTEN a; SELECT 1/0", ["LISTEN"], "E")).toEqual([]);
	expect(say(listens, "LISTEN a; COMMIT; SELECT 1/0; LISTEN b", ["LISTEN", "COMMIT"], "E")).toEqual(["a"]);
	expect(say(listens, "LISTEN b", ["LISTEN"], "T")).toEqual(["a"]);
	// COMMIT of a transaction that has failed.
	expect(say(listens, "COMMIT", ["ROLLBACK"], "E")).toEqual(["a"]);
	expect(say(listens, "LISTEN b; LISTEN c", [])).toEqual(["a"]);
	// Of two portals the second was executed.
	expect(say(listens, "UNLISTEN a; LISTEN d", ["LISTEN"])).toEqual(["a", "d"]);
	// A tag of what nobody could read.
	expect(say(listens, "SELECT 1", ["LISTEN"])).toEqual(["a", "d"]);
});

test("savepoints, of one name too, and those from before the first LISTEN", () => {
	const listens = new Listens();
	say(listens, "LISTEN a", ["LISTEN"], "T");
	say(listens, "SAVEPOINT s", ["SAVEPOINT"], "T");
	say(listens, "LISTEN b; SAVEPOINT s; LISTEN c", ["LISTEN", "SAVEPOINT", "LISTEN"], "T");
	say(listens, "ROLLBACK TO s", ["ROLLBACK"], "T");
	say(listens, "LISTEN d; RELEASE s; ROLLBACK TO s; LISTEN e", ["LISTEN", "RELEASE", "ROLLBACK", "LISTEN"], "T");
	expect(say(listens, "RELEASE s; COMMIT", ["RELEASE", "COMMIT"])).toEqual(["a", "e"]);
	say(listens, "LISTEN f", ["LISTEN"], "T");
	say(listens, "ROLLBACK TO earlier", ["ROLLBACK"], "T");
	expect(say(listens, "LISTEN g; END", ["LISTEN", "COMMIT"])).toEqual(["a", "e", "g"]);
	expect(say(listens, "DISCARD ALL", ["DISCARD ALL"])).toEqual([]);
});

test("there is a bound", () => {
	const listens = new Listens();
	for (let i = 0; i < MOST_LISTENS; i++) {
		expect(listens.hasRoom(1)).toBe(true);
		say(listens, "LISTEN a", ["LISTEN"], "T");
	}
	expect(listens.hasRoom(1)).toBe(false);
	say(listens, "ROLLBACK", ["ROLLBACK"], "E");
	expect(listens.hasRoom(MOST_LISTENS)).toBe(true);
	expect(listens.hasRoom(MOST_LISTENS + 1)).toBe(false);
});
