// What is put into a client's text so that settings lead back to its StartupMessage, and how much of it.

import { expect, test } from "bun:test";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { insertInto, insertions, movePosition, Restoring } from "../../src/backend/restoring.ts";
import { sessionFacts } from "../../src/parser/session.ts";
import { spent } from "../support/processor.ts";
import { backend, frontend } from "../support/wire-frames.ts";

const startup = new ParameterSets().of(
	new Map([
		["role", "me"],
		["search_path", '"A b", c'],
		["work_mem", "3MB"],
	]),
);

const TOLD = new Map([
	["client_encoding", "UTF8"],
	["standard_conforming_strings", "on"],
]);

function restoring(...texts: string[]): Restoring {
	const of = new Restoring();
	for (const sql of texts) {
		const { restores } = sessionFacts(sql);
		if (restores !== null) of.note(restores, startup);
	}
	return of;
}

test("one statement that was run is answered with SET, which needs no snapshot", () => {
	const of = restoring("RESET ALL");
	expect(of.sql(startup, true)).toBe("");
	of.hasRun = true;
	expect(of.sql(startup, true)).toBe(`SET "search_path" TO 'A b', 'c'; SET "work_mem" TO '3MB'`);
	const local = restoring("SET LOCAL work_mem TO DEFAULT");
	local.hasRun = true;
	expect(local.sql(startup, true)).toBe(`SET LOCAL "work_mem" TO '3MB'`);
	// PostgreSQL warns that it has no effect.
	expect(local.sql(startup, false)).toBe("");
	const role = restoring("DISCARD ALL");
	role.hasRun = true;
	expect(role.sql(startup, false)).toEndWith(`; SET "role" TO 'me'`);
});

test("what is not certain asks the server which settings have their default", () => {
	expect(restoring("RESET work_mem", "SET work_mem TO DEFAULT").sql(startup, true)).toContain("s.source <> 'session'");
	expect(restoring("SELECT set_config('work_mem', $1, false)").sql(startup, true)).toContain("'work_mem'");
	expect(restoring("RESET other", "RESET another").sql(startup, true)).toBe("");
});

test("what had its default for a transaction only is nothing to bring back behind it", () => {
	// The server could not tell it from what is set to '' behind it.
	const of = restoring("SELECT set_config('work_mem', NULL, true) IS NULL; SELECT set_config('work_mem', '', false)");
	expect(of.sql(startup, false)).toBe("");
	expect(of.sql(startup, true)).toContain("'work_mem'");
	expect(restoring("SELECT set_config('work_mem', NULL, false) IS NULL").sql(startup, false)).toContain("'work_mem'");
});

test("of several statements each RESET is followed by what brings its setting back", () => {
	const text = Buffer.from("SELECT 'é'; RESET work_mem; SELECT oops");
	const found = insertions(text, 0, text.length, startup, TOLD);
	const put = `; SET "work_mem" TO '3MB'`;
	expect(found.map(({ sql, places }) => [sql, places])).toEqual([[put, [3]]]);
	expect([...insertInto(text, 0, text.length, found)]).toEqual([
		...frontend.query(`SELECT 'é'; RESET work_mem${put}; SELECT oops`),
	]);
	// Places in errors count characters of the client's text.
	const moved = (position: number) => {
		const error = Buffer.from(backend.errorResponse({ S: "ERROR", C: "42703", M: "m", P: String(position) }));
		return Buffer.from(movePosition(error, 0, error.length, found)).toString("latin1");
	};
	expect(moved(36 + put.length)).toContain("P36\0");
	expect(moved(8)).toContain("P8\0");
});

// Their answers are known by their places.
test("where several statements are put in, the places of the next ones move", () => {
	const text = Buffer.from("RESET ALL;; SELECT 1; RESET work_mem; RESET role");
	const found = insertions(text, 0, text.length, startup, TOLD);
	expect(found.map(({ places }) => places)).toEqual([[2, 3], [6], [8]]);
});

test("a backslash is itself where the session has it so, and nothing is put in where that is not known", () => {
	const count = (sql: string, told: [string, string][]) => {
		const text = Buffer.from(sql, "latin1");
		return insertions(text, 0, text.length, startup, new Map([...TOLD, ...told])).length;
	};
	const sql = "RESET work_mem; SELECT '\\'; RESET work_mem";
	expect(count(sql, [])).toBe(2);
	expect(count(sql, [["standard_conforming_strings", "off"]])).toBe(0);
	// There the second byte of 表 is one.
	const half = "RESET work_mem; SELECT E'\x95\\', '; RESET work_mem; '";
	expect(count(half, [["client_encoding", "SJIS"]])).toBe(0);
});

test("in an encoding of one byte for each character places count bytes", () => {
	const text = Buffer.from("SELECT '§'; RESET work_mem; oops", "latin1");
	const before = (told: typeof TOLD) => insertions(text, 0, text.length, startup, told)[0]?.before;
	expect(before(new Map([...TOLD, ["client_encoding", "LATIN1"]]))).toBe(26);
});

test("a text of many RESETs does not become as many times the StartupMessage", () => {
	const text = Buffer.from("RESET ALL;".repeat(100_000));
	expect(spent(() => expect(insertions(text, 0, text.length, startup, TOLD)).toEqual([]))).toBeLessThan(2_000);
});
