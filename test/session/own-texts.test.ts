// What is known of statements by a client's own names: texts for routing, and what gives settings their default.

import { expect, test } from "bun:test";
import { NO_FACTS, type SessionFacts, sessionFacts } from "../../src/parser/session.ts";
import { OwnTexts } from "../../src/session/own-texts.ts";
import { frontend } from "../support/wire-frames.ts";

function declare(own: OwnTexts, name: string, sql: string, facts: SessionFacts = sessionFacts(sql)): SessionFacts {
	const chunk = Buffer.from(frontend.parse(sql, name));
	const nameEnd = chunk.indexOf(0, 5);
	return own.declare(chunk, 5, nameEnd, chunk.indexOf(0, nameEnd + 1), facts);
}

const find = (own: OwnTexts, name: string) => own.find(Buffer.from(name), 0, name.length)?.toString();
const restores = (own: OwnTexts, name: string) => own.restores(Buffer.from(name), 0, name.length)?.restores?.names;

test("a text is found by its name until that is closed, all are taken away, or the server is another's", () => {
	const own = new OwnTexts(true);
	for (const name of ["a", "b", "c"]) declare(own, name, `SELECT '${name}'`);
	expect([find(own, "a"), find(own, "d"), own.has("b")]).toEqual(["SELECT 'a'", undefined, true]);
	own.forget("a");
	expect([...own].map(([name]) => name)).toEqual(["b", "c"]);
	own.forgetTexts();
	expect([...own]).toEqual([]);
	declare(own, "e", "SELECT 5");
	own.clear();
	expect(own.has("e")).toBe(false);
});

test("where nothing is routed no text is kept", () => {
	const own = new OwnTexts(false);
	declare(own, "a", "SELECT 1");
	expect(own.has("a")).toBe(false);
});

test("so many bytes of texts are kept, then none of them", () => {
	const own = new OwnTexts(true);
	const large = `SELECT '${"x".repeat(3 << 20)}'`;
	for (const name of ["a", "b"]) declare(own, name, large, NO_FACTS);
	expect([own.has("a"), own.has("b")]).toEqual([true, true]);
	declare(own, "c", large, NO_FACTS);
	expect([...own]).toEqual([]);
	declare(own, "d", large, NO_FACTS);
	expect(own.has("d")).toBe(true);
});

test("what gives settings their default does so when it is run, not when it is parsed", () => {
	const own = new OwnTexts(false);
	expect(declare(own, "reset", "RESET work_mem").restores).toBeNull();
	expect([restores(own, "reset"), restores(own, "other")]).toEqual([["work_mem"], undefined]);
	// The name is given anew.
	declare(own, "reset", "SELECT 1");
	expect(restores(own, "reset")).toBeUndefined();
	declare(own, "reset", "RESET work_mem");
	// DEALLOCATE ALL may be answered behind a Parse that it did not take away.
	own.forgetTexts();
	expect(restores(own, "reset")).toEqual(["work_mem"]);
	own.clear();
	expect(restores(own, "reset")).toBeUndefined();
});

test("of a name that is too long, or one too many, it is noted with the Parse", () => {
	const own = new OwnTexts(false);
	expect(declare(own, "n".repeat(257), "RESET work_mem").restores).not.toBeNull();
	for (let i = 0; i < 1000; i++) expect(declare(own, `n${i}`, "RESET work_mem").restores).toBeNull();
	expect(declare(own, "one more", "RESET work_mem").restores).not.toBeNull();
});
