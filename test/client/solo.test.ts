// Batches of one statement that the proxy may answer itself: which they are, and what is answered.

import { describe, expect, test } from "bun:test";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { Statements } from "../../src/backend/statements.ts";
import { answerBatch, answerQuery, endOfSolo } from "../../src/client/solo.ts";
import { PgError } from "../../src/errors.ts";
import { createFactsCache } from "../../src/parser/facts-cache.ts";
import { OwnTexts } from "../../src/session/own-texts.ts";
import type { Parsing } from "../../src/session/parsing.ts";
import { ClientStatements } from "../../src/session/statements.ts";
import { TxStatus } from "../../src/wire/codes.ts";
import { MOMENT } from "../backend/support.ts";
import { cut } from "../support/message.ts";
import { transcript } from "../support/transcript.ts";
import { frontend as f, message } from "../support/wire-frames.ts";

function clientStatements(shared = true): ClientStatements {
	const statements = new Statements(() => 1);
	const dialect = statements.dialectsOf("here").of(new ParameterSets().empty);
	const parsing = { dialect, time: 0, moment: MOMENT } as Parsing;
	return new ClientStatements(statements, createFactsCache(), parsing, shared ? null : new OwnTexts(false));
}

const end = (messages: Uint8Array[], statements = clientStatements()): number =>
	endOfSolo(Buffer.concat(messages), 0, statements);

const BEGIN = f.parse("BEGIN");
const SYNC = f.sync();

describe("the first statement of a batch", () => {
	const first = (...messages: Uint8Array[]) => endOfSolo(Buffer.concat(messages), 0, clientStatements(), true);
	const head = [BEGIN, f.describe("S"), f.bind(), f.execute(), f.close("P")];
	const { length } = Buffer.concat(head);

	test("ends where the next begins", () => {
		expect(first(...head, f.parse("SELECT 1"), f.bind(), f.execute(), SYNC)).toBe(length);
		expect(first(...head, f.bind({ statement: "s" }), f.execute(), SYNC)).toBe(length);
		expect(first(...head, f.parse("SELECT 1"), f.bind(), f.flush())).toBe(length);
	});

	test("is no matter where nothing follows, or where it is not whole before another begins", () => {
		expect(first(...head, SYNC)).toBe(-1);
		expect(first(...head, f.flush())).toBe(-1);
		expect(first(BEGIN, f.parse("SELECT 1", "s"), f.bind(), f.execute(), SYNC)).toBe(-1);
		expect(first(BEGIN, f.bind(), f.bind({ portal: "p" }), f.execute(), SYNC)).toBe(-1);
	});
});

describe("a batch of one statement", () => {
	test.each([
		["Parse, Bind, Execute", [BEGIN, f.bind(), f.execute(), SYNC]],
		["Describe of both", [BEGIN, f.describe("S"), f.bind(), f.describe("P"), f.execute(), SYNC]],
		["names", [f.parse("BEGIN", "s"), f.bind({ statement: "s", portal: "p" }), f.execute("p"), SYNC]],
		["Close behind it", [BEGIN, f.bind(), f.execute(), f.close("P"), f.close("S", "x"), SYNC]],
		["a format for results", [BEGIN, f.bind({ resultFormats: [1] }), f.execute(), SYNC]],
	])("%s: is answered to its Sync", (_, messages) => {
		expect(end(messages)).toBe(Buffer.concat(messages).length);
		expect(end([...messages, f.query("SELECT 1")])).toBe(Buffer.concat(messages).length);
		// Not all here.
		expect(end([Buffer.concat(messages).subarray(0, -1)])).toBe(-1);
	});

	test.each([
		["nothing is run", [BEGIN, f.bind(), SYNC]],
		["only Sync", [SYNC]],
		["Flush", [BEGIN, f.bind(), f.execute(), f.flush(), SYNC]],
		["two statements", [BEGIN, f.bind(), f.execute(), f.bind(), f.execute(), SYNC]],
		["two Parses", [BEGIN, BEGIN, f.bind(), f.execute(), SYNC]],
		["run twice", [BEGIN, f.bind(), f.execute(), f.execute(), SYNC]],
		["Parse behind it", [f.bind(), BEGIN, f.execute(), SYNC]],
		["another statement", [f.parse("BEGIN", "a"), f.bind({ statement: "b" }), f.execute(), SYNC]],
		["no statement", [f.bind({ statement: "b" }), f.execute(), SYNC]],
		["another portal", [BEGIN, f.bind({ portal: "p" }), f.execute(), SYNC]],
		["Describe of another statement", [BEGIN, f.describe("S", "x"), f.bind(), f.execute(), SYNC]],
		["Describe of another portal", [BEGIN, f.bind(), f.describe("P", "x"), f.execute(), SYNC]],
		["Describe too early", [BEGIN, f.describe("P"), f.bind(), f.execute(), SYNC]],
		["Describe too late", [BEGIN, f.bind(), f.execute(), f.describe("P"), SYNC]],
		["Close too early", [BEGIN, f.bind(), f.close("P"), f.execute(), SYNC]],
		["a parameter", [BEGIN, f.bind({ values: ["1"] }), f.execute(), SYNC]],
		["types of parameters", [f.parse("BEGIN", "", [23]), f.bind(), f.execute(), SYNC]],
		["two formats for results", [BEGIN, f.bind({ resultFormats: [0, 0] }), f.execute(), SYNC]],
		["a format that is none", [BEGIN, f.bind({ resultFormats: [2] }), f.execute(), SYNC]],
		["Query", [BEGIN, f.bind(), f.execute(), f.query("SELECT 1")]],
		["a Bind that is cut short", [BEGIN, message("B", Uint8Array.of(0, 0, 0)), f.execute(), SYNC]],
		["a Parse that is cut short", [message("P", Uint8Array.of(0)), f.bind(), f.execute(), SYNC]],
		["an Execute that is cut short", [BEGIN, f.bind(), message("E", Uint8Array.of(0)), SYNC]],
	])("%s: is a server's", (_, messages) => {
		expect(end(messages)).toBe(-1);
	});

	test("a name that is taken, or that goes to the server as it is, is a server's", () => {
		const named = [f.parse("BEGIN", "s"), f.bind({ statement: "s" }), f.execute(), SYNC];
		expect(end(named, clientStatements(false))).toBe(-1);
		const statements = clientStatements();
		const parse = Buffer.from(f.parse("SELECT 1", "s"));
		statements.note(parse, 0, parse.length, 1);
		expect(end(named, statements)).toBe(-1);
		// Bound without another Parse it is known.
		expect(end(named.slice(1), statements)).toBeGreaterThan(0);
	});
});

describe("its answers", () => {
	const read = (bytes: Buffer) => transcript(cut(bytes).messages);
	const tag = { tag: "SHOW", row: { column: "pgdog.role", value: "replica" }, error: null };

	test("one for each message", () => {
		const messages = [
			BEGIN,
			f.describe("S"),
			f.bind({ resultFormats: [1] }),
			f.describe("P"),
			f.execute(),
			f.close("S"),
		];
		const chunk = Buffer.concat([...messages, SYNC]);
		expect(read(answerBatch(tag, chunk, 0, chunk.length, TxStatus.InBlock)).split("\n")).toEqual([
			"ParseComplete",
			"ParameterDescription []",
			'RowDescription ["pgdog.role" attribute=0 type=25 size=-1 modifier=-1 format=0]',
			"BindComplete",
			'RowDescription ["pgdog.role" attribute=0 type=25 size=-1 modifier=-1 format=1]',
			'DataRow ["replica"]',
			'CommandComplete "SHOW"',
			"CloseComplete",
			"ReadyForQuery T",
		]);
	});

	test("an error skips the rest", () => {
		const chunk = Buffer.concat([BEGIN, f.bind(), f.execute(), f.close("S"), SYNC]);
		const said = { tag: "", row: null, error: new PgError("ERROR", "22023", "no") };
		expect(
			read(answerBatch(said, chunk, 0, chunk.length, TxStatus.Failed))
				.split("\n")
				.map((line) => line.split(" ")[0]),
		).toEqual(["ParseComplete", "BindComplete", "ErrorResponse", "ReadyForQuery"]);
	});

	test("of a Query: rows, tag or error, and the state", () => {
		expect(read(answerQuery(tag, TxStatus.Idle)).split("\n").slice(1)).toEqual([
			'DataRow ["replica"]',
			'CommandComplete "SHOW"',
			"ReadyForQuery I",
		]);
		expect(read(answerQuery({ tag: "BEGIN", row: null, error: null }, TxStatus.InBlock))).toBe(
			'CommandComplete "BEGIN"\nReadyForQuery T',
		);
	});
});
