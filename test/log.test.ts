// Log lines: what is written, and what a client cannot make them say.

import { expect, test } from "bun:test";
import { createLog, type LogFormat, type LogLevel } from "../src/log.ts";

function lines(format: LogFormat, level: LogLevel) {
	const written: string[] = [];
	const log = createLog(format, level, { write: (line) => written.push(line) });
	return { log, written };
}

test.each([
	["off", ""],
	["error", "e"],
	["warn", "ew"],
	["info", "ewi"],
	["debug", "ewid"],
	["trace", "ewid"],
] as [LogLevel, string][])("log_level = %s lets %p through", (level, expected) => {
	const { log, written } = lines("text", level);
	log.error("e");
	log.warn("w");
	log.info("i");
	log.debug("d");
	expect(written.map((line) => line.trimEnd().at(-1)).join("")).toBe(expected);
	expect(log.debugs).toBe(expected.includes("d"));
});

test("a text line is the time, the level and the message", () => {
	const { log, written } = lines("text", "info");
	log.warn("pool {is} full %s");
	expect(written).toHaveLength(1);
	expect(written[0]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z? *WARN(ING)? pool \{is\} full %s\n$/);
});

test.each(["json", "json_flattened"] as LogFormat[])("a line of %s is one object with the message", (format) => {
	const { log, written } = lines(format, "info");
	log.error('say "hi" \\ é');
	expect(written[0]?.endsWith("\n")).toBe(true);
	const line = JSON.parse(written[0] ?? "");
	expect(line.message).toBe('say "hi" \\ é');
	expect(line.level).toBe("ERROR");
});

// A user name with a newline could otherwise write a log line of its own, one with an escape sequence clear the screen.
test.each(["text", "json"] as LogFormat[])("control characters stay visible and on their line, in %s", (format) => {
	const { log, written } = lines(format, "info");
	for (let code = 0; code < 0xa0; code++) log.info(`a${String.fromCharCode(code)}b`);
	log.info("a\u2028b\u2029c");
	expect(written).toHaveLength(0xa1);
	for (const line of written) expect(line.trimEnd()).not.toMatch(/[\0-\x1f\x7f-\x9f\u2028\u2029]/);
});

test("what a line is about is in fields of its own: under properties, or beside the message", () => {
	const fields = { user: "alice", database: "app", address: "[::1]:5432", shard: 0 };
	const { log, written } = lines("json", "info");
	log.info('client "alice" connected', fields);
	log.set("json_flattened", "info");
	log.warn("refused", fields);
	log.set("text", "info");
	log.info("as words", fields);
	expect(JSON.parse(written[0]!)).toMatchObject({ message: 'client "alice" connected', properties: fields });
	expect(JSON.parse(written[1]!)).toMatchObject({ message: "refused", level: "WARN", ...fields });
	expect(written[2]).toMatch(/ as words\n$/);
});

test.each(["json", "json_flattened"] as LogFormat[])(
	"a field is what it was, and stays on its line, in %s",
	(format) => {
		const { log, written } = lines(format, "info");
		const some = Array.from({ length: 0xa0 }, (_, code) => String.fromCharCode(code));
		for (const user of [...some, "\u2028\u2029", 'a"b\\c', "日本 🐕", "\ud800"]) {
			log.info(user, { user });
			const line = written.pop()!;
			expect(line.trimEnd()).not.toMatch(/[\0-\x1f\x7f-\x9f\u2028\u2029]/);
			const entry = JSON.parse(line);
			expect((entry.properties ?? entry).user).toBe(user);
		}
	},
);

test("a reload changes format and level of the same log", () => {
	const { log, written } = lines("text", "error");
	log.info("unseen");
	log.set("json", "debug");
	log.debug("seen");
	expect(written.map((line) => JSON.parse(line).message)).toEqual(["seen"]);
	expect(log.debugs).toBe(true);
});
