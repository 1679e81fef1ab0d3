// What the fault run calls wrong, and what it puts down to its faults.

import { expect, spyOn, test } from "bun:test";
import { Interrupted, Tally, Wrong } from "../../scripts/soak/tally.ts";
import type { QueryResult } from "../support/raw-client.ts";

const answer = (code: string | null, status = "I"): QueryResult => ({
	columns: [],
	rows: [],
	tags: [],
	errors: code === null ? [] : [{ S: "ERROR", C: code, M: "words" }],
	notices: [],
	status,
	messages: [],
});

test("an answer is counted; errors that a fault explains interrupt, others are wrong, as is silence", () => {
	using quiet = spyOn(console, "log").mockImplementation(() => undefined);
	const tally = new Tally();
	expect(tally.settle(answer(null), "asks").status).toBe("I");
	expect(tally.settle(answer("42P01"), "asks", ["42P01"]).errors).toHaveLength(1);
	expect(() => tally.settle(answer("57P01", ""), "asks")).toThrow(Interrupted);
	expect(() => tally.settle(answer(null, ""), "asks")).toThrow(Interrupted);
	expect(() => tally.settle(answer("42P01"), "asks")).toThrow(Wrong);
	expect([...tally.interruptions]).toEqual([
		["57P01", 1],
		["closed", 1],
	]);
	expect(tally.statements).toBe(5);
	expect(tally.wrongCount).toBe(0);

	tally.note(new Interrupted("57P01"), "a");
	tally.note(new Error("the connection ended before a message; received 3"), "a");
	expect(tally.wrongCount).toBe(0);
	tally.note(new Wrong("foreign", "b's row"), "a");
	tally.note(new Error("waited 45000 ms for ReadyForQuery; received 3"), "a");
	tally.note(new TypeError("undefined is not a function"), "a");
	expect([...tally.wrongs.keys()]).toEqual(["foreign", "hung", "unexpected"]);
	expect(tally.wrongCount).toBe(3);
	expect(quiet).toHaveBeenCalledTimes(3);
});
