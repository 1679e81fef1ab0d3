// What a server may report of its settings: much at once, but not without end.

import { expect, test } from "bun:test";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { Reports } from "../../src/backend/reports.ts";
import { ServerState } from "../../src/backend/server-state.ts";
import { spent } from "../support/processor.ts";
import { backend } from "../support/wire-frames.ts";
import { rig } from "./support.ts";

test("what is reported is a set when somebody asks, the same object while nothing changes", () => {
	const reports = new Reports(new ParameterSets());
	reports.add("a", "1");
	reports.add("b", "2");
	reports.add("a", "3");
	const { now } = reports;
	expect([...now.values]).toEqual([
		["a", "3"],
		["b", "2"],
	]);
	reports.add("a", "3");
	expect(reports.now).toBe(now);
});

test("thousands at once take no time, and more than PostgreSQL could report is no PostgreSQL", () => {
	const { server, events } = rig();
	server.books.query();
	const flood = (count: number, value: string) =>
		Buffer.concat(Array.from({ length: count }, (_, i) => backend.parameterStatus(`p${i}`, value)));
	const many = flood(20_000, "v");
	expect(spent(() => server.onData(many))).toBeLessThan(3_000);
	expect(server.session.reports.now.values.size).toBe(20_000);
	expect(() => server.onData(flood(20_000, "v".repeat(100)))).toThrow("it reports too many settings");
	expect(server.state).toBe(ServerState.Closed);
	expect(events).toContain("gone");
});

test("an answer to a query of ours that is too long is not kept", () => {
	const { server } = rig();
	let failed: string | undefined;
	server.run("SELECT", (rows, error) => {
		failed = `${error?.sqlstate} ${rows.length}`;
	});
	const row = Buffer.from(backend.dataRow("x".repeat(1 << 20)));
	for (let i = 0; i < 40; i++) server.onData(row);
	server.onData(Buffer.from(backend.commandComplete("SELECT 40")));
	server.onData(Buffer.from(backend.readyForQuery()));
	expect(failed).toBe("53200 31");
});
