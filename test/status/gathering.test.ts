// Rows of several workers: together when all have sent theirs, and without those that are stuck or late.

import { expect, test } from "bun:test";
import { Contain } from "../../src/contain.ts";
import { Gathering } from "../../src/status/gathering.ts";

function gathering(count: number, stuck: number[] = []) {
	const sent: [number, string][] = [];
	const contain = new Contain(
		(error) => {
			throw error;
		},
		() => {},
	);
	const respondents = { count, stuck, send: (id: number, of: string) => void sent.push([id, of]) };
	return { gathering: new Gathering<string, string>(respondents, contain), sent };
}

test("rows are told when the last worker has sent its own, whatever the order of questions and answers", async () => {
	const { gathering: rows, sent } = gathering(2);
	const first = rows.ask("clients");
	const second = rows.ask("servers");
	expect(sent).toEqual([
		[1, "clients"],
		[2, "servers"],
	]);
	rows.received(2, 1, ["s1"]);
	rows.received(1, 1, ["c1"]);
	rows.received(1, 0, ["c0", "c00"]);
	rows.received(2, 0, []);
	expect(await first).toEqual(["c1", "c0", "c00"]);
	expect(await second).toEqual(["s1"]);
	expect([...rows.late]).toEqual([]);
});

test("a worker that is stuck, or becomes so, is not waited for", async () => {
	const { gathering: rows, sent } = gathering(3, [1]);
	const asked = rows.ask("clients");
	expect(sent.length).toBe(1);
	rows.received(1, 0, ["a"]);
	rows.giveUp(2);
	expect(await asked).toEqual(["a"]);
	// What comes too late is nobody's.
	rows.received(1, 2, ["b"]);
	rows.received(7, 0, ["c"]);
});

test("a worker that takes too long is named until it answers", async () => {
	const { gathering: rows } = gathering(2);
	const asked = rows.ask("clients");
	rows.received(1, 0, ["a"]);
	expect(await asked).toEqual(["a"]);
	expect([...rows.late]).toEqual([1]);
	rows.received(1, 1, ["b"]);
	expect([...rows.late]).toEqual([]);
});
