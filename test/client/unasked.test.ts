// What plugins could not be asked about reaches no server, whatever else the client has under way: a SET whose answer nobody has
// seen yet, a transaction that has failed before any server knew of it.

import { describe, expect, test } from "bun:test";
import type { Server } from "../../src/backend/server.ts";
import type { ClientContext } from "../../src/client/context.ts";
import { beginsBatch, LookAhead } from "../../src/client/framing.ts";
import { Choice, Routing, type RoutingOwner } from "../../src/client/routing.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { NO_HINTS } from "../../src/parser/hints.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Reading } from "../../src/parser/reading.ts";
import { Outcome } from "../../src/plugin/abi.ts";
import { Decision, type PluginHost, type RouteInput } from "../../src/plugin/host.ts";
import { Router } from "../../src/router/router.ts";
import { routedText } from "../../src/session/routed.ts";
import { Session } from "../../src/session/session.ts";
import { SessionReading } from "../../src/session/session-reading.ts";
import type { ClientStatements } from "../../src/session/statements.ts";
import { TxStatus } from "../../src/wire/codes.ts";
import { concat, frontend } from "../support/wire-frames.ts";

const cache = new StatementCache(new SqlParser());
const SETS = "SELECT set_config('standard_conforming_strings', 'off', false)";
/** One string as nearly every session reads it, and a query of what nobody may see as one with escapes does. */
const TWICE = String.raw`SELECT '\'', secret FROM t --'`;

/** A client of a primary and a replica, and a plugin that blocks each statement with the word "forbidden". */
function client() {
	const decision = new Decision();
	const plugins = {
		active: true,
		route({ sql }: RouteInput) {
			decision.outcome = sql.includes("forbidden") ? Outcome.Blocked : Outcome.Unknown;
			return decision;
		},
		tellUnasked() {},
	} as unknown as PluginHost;
	const router = new Router({ shards: 1, hasPrimary: true, hasReplicas: true }, cache, plugins);
	const texts = new Map<string, Buffer>();
	/** What the client has noted of the Parses that were passed on. */
	const statements = {
		routed(names: Buffer, from: number, to: number, by: Router, reading: Reading) {
			const text = texts.get(names.utf8Slice(from, to));
			return text === undefined ? null : routedText(text, 0, text.length, by, reading);
		},
		namesOf: (test: (text: Buffer, start: number, end: number) => boolean) =>
			[...texts].filter(([, text]) => test(text, 0, text.length)).map(([name]) => name),
		hasByProtocol: () => false,
		forgetUnnamed() {},
	} as unknown as ClientStatements;
	const settings = { reading: Reading.Standard, isSerializable: false };
	const context = { time: 0, general: { read_after_write: "off" } } as unknown as ClientContext;
	const owner = { settings, statements, prepared: () => statements } as unknown as RoutingOwner;
	const routing = new Routing(context, owner, new Session(NO_HINTS), router);
	const books = { owed: 0, unsynced: false, copyIn: false };
	const server = { books, status: TxStatus.Idle } as unknown as Server;

	/** What becomes of the request in these messages, or of a message in the middle of one. */
	const ask = (...messages: Uint8Array[]): Choice => {
		const chunk = Buffer.from(concat(...messages));
		const ahead = new LookAhead();
		ahead.look(chunk, 0);
		const isBatch = beginsBatch(chunk[0]!) && !books.unsynced;
		return routing.inside(chunk[0]!, chunk, 0, isBatch ? ahead.last : 1 + chunk.readInt32BE(1), server);
	};
	const query = (sql: string, holds = true): Choice => {
		const chunk = Buffer.from(frontend.query(sql));
		return routing.choose(chunk[0]!, chunk, 0, chunk.length, holds);
	};
	const parse = (name: string, sql: string): Uint8Array => {
		texts.set(name, Buffer.from(sql));
		return frontend.parse(sql, name);
	};
	const run = (statement: string) => [frontend.bind({ statement }), frontend.execute()];
	return { ask, query, parse, run, routing, router, books, server, settings };
}

describe("a SET that is under way", () => {
	test("in a batch whose beginning was sent: what is parsed behind it is not read as before it", () => {
		const { ask, parse, run, books } = client();
		expect(ask(parse("", SETS), ...run(""), frontend.flush())).toBe(Choice.Server);
		books.unsynced = true;
		expect(ask(parse("plain", "SELECT 1"))).toBe(Choice.Server);
		expect(ask(run("plain")[0]!)).toBe(Choice.Server);
		expect(ask(parse("twice", TWICE))).toBe(Choice.Server);
		expect(ask(run("twice")[0]!)).toBe(Choice.Refused);
		expect(ask(parse("", TWICE))).toBe(Choice.Server);
		expect(ask(run("")[0]!)).toBe(Choice.Refused);
	});

	test("and taken back in the same batch: what was parsed between stays uncertain until it is parsed anew", () => {
		const { ask, parse, run } = client();
		const on = parse("on", SETS.replace("off", "on"));
		const batch = [parse("", SETS), ...run(""), parse("twice", TWICE), on, ...run("on"), frontend.sync()];
		expect(ask(...batch)).toBe(Choice.Server);
		// All is answered, and the session reads as it did at first.
		expect(ask(...run("twice"), frontend.sync())).toBe(Choice.Refused);
		expect(ask(parse("twice", TWICE), frontend.sync())).toBe(Choice.Server);
		expect(ask(...run("twice"), frontend.sync())).toBe(Choice.Server);
	});

	test("and a reload, in a transaction whose end takes it back: what stands behind the end waits for it", () => {
		const { ask, query, routing, router, books, server } = client();
		query("BEGIN");
		routing.handOver();
		server.status = TxStatus.InBlock;
		expect(ask(frontend.query(SETS.replace("false", "true")))).toBe(Choice.Server);
		// All is answered, and the settings are reloaded.
		routing.reach(router);
		expect(ask(frontend.query("COMMIT"))).toBe(Choice.Server);
		books.owed = 1;
		expect(ask(frontend.query(String.raw`SELECT 'a\b'`))).toBe(Choice.Later);
	});

	test("in a request before it: a Parse waits for the answer, and is certain then", () => {
		const { ask, query, parse, run, books } = client();
		expect(query(SETS)).toBe(Choice.Server);
		books.owed = 1;
		expect(ask(parse("plain", "SELECT 1"), frontend.sync())).toBe(Choice.Server);
		expect(ask(parse("twice", TWICE), frontend.sync())).toBe(Choice.Later);
		books.owed = 0;
		expect(ask(parse("twice", TWICE), frontend.sync())).toBe(Choice.Server);
		expect(ask(...run("twice"), frontend.sync())).toBe(Choice.Server);
	});
});

describe("a transaction that has failed before any server knew of it", () => {
	test("its end, and what plugins refuse behind that in the same string", () => {
		for (const behind of ["SELECT 'forbidden'", "SELECT 1; SELECT 'forbidden'"]) {
			const { query, routing } = client();
			expect(query("BEGIN")).toBe(Choice.Answered);
			expect(query("SELECT 'forbidden'")).toBe(Choice.Refused);
			routing.heldBegin.fail();
			// It is told that its transaction is aborted.
			expect(query("SELECT 1")).toBe(Choice.Answered);
			expect(query(`ROLLBACK; ${behind}`)).toBe(Choice.Refused);
			expect(routing.error.message).toContain("blocked");
			expect(routing.heldBegin.failed).toBe(true);
			expect(query("ROLLBACK; SELECT 1")).toBe(Choice.Server);
			expect(routing.heldBegin.open).toBe(false);
		}
	});
});

test("names that are uncertain are bounded; beyond that all are that may be read in several ways", () => {
	const readings = new SessionReading();
	for (let i = 0; i < 10_000; i++) readings.noteParse("n".repeat(1000) + i, false);
	expect(readings.isStale(`${"n".repeat(1000)}0`, "SELECT 1")).toBe(true);
	expect(readings.isStale("another", "SELECT 1")).toBe(false);
	expect(readings.isStale("another", TWICE)).toBe(true);
	expect(readings.isStale("another", "SELECT 'é'")).toBe(true);
});
