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

test("of several statements each RESET is followed by what brings its setting back", () => {
	const text = Buffer.from("SELECT 'é'; RESET work_mem; SELECT oops");
	const found = insertions(text, 0, text.length, startup);
	const put = "; SELECT pg_catalog.set_config('work_mem', '3MB', false) AS __pgdog_restored";
	expect(found.map(({ sql }) => sql)).toEqual([put]);
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

test("a text of many RESETs does not become as many times the StartupMessage", () => {
	const text = Buffer.from("RESET ALL;".repeat(100_000));
	expect(spent(() => expect(insertions(text, 0, text.length, startup)).toEqual([]))).toBeLessThan(2_000);
});
