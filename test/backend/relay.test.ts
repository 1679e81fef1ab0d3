// The way back: a server's bytes to its client, with replies made up, swallowed and rewritten in between. Each script
// runs whole, cut in two at every offset, and byte by byte; the client's bytes must be the same each time.

import { describe, expect, test } from "bun:test";
import { Reply } from "../../src/backend/books.ts";
import type { Copy } from "../../src/backend/copy.ts";
import { ServerState } from "../../src/backend/server-state.ts";
import { Statement } from "../../src/backend/statement.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { backend, concat, frontend, message } from "../support/wire-frames.ts";
import { MOMENT, type Rig, rig, say } from "./support.ts";

const statement = (n: number) => new Statement(`__pgdog_${n}`, `${n}`, Buffer.from(`SELECT ${n}\0\0\0`), NO_FACTS);
const ONE = statement(1);
const TWO = statement(2);

interface Outcome {
	client: string;
	server: string;
	events: string[];
	owed: number;
}

/** Letters and contents: easier to read in a diff than hex. */
const readable = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");

function play(prepare: (rig: Rig) => void, chunks: Uint8Array[]): Outcome {
	const all = rig();
	prepare(all);
	all.toServer.take();
	for (const chunk of chunks) if (chunk.length > 0) all.server.onData(Buffer.from(chunk));
	return {
		client: readable(all.toClient.bytes),
		server: readable(all.toServer.bytes),
		events: all.events,
		owed: all.server.books.owed,
	};
}

/** Plays the script whole and in every cut; all must end alike. */
function everyCut(prepare: (rig: Rig) => void, ...script: Uint8Array[]): Outcome {
	const bytes = concat(...script);
	const whole = play(prepare, [bytes]);
	for (let cut = 1; cut < bytes.length; cut++)
		expect(play(prepare, [bytes.subarray(0, cut), bytes.subarray(cut)])).toEqual(whole);
	expect(
		play(
			prepare,
			[...bytes].map((byte) => Uint8Array.of(byte)),
		),
	).toEqual(whole);
	return whole;
}

const owes =
	(...marks: Reply[]) =>
	({ server }: Rig) => {
		for (const mark of marks) say(server.books, mark);
	};
const ready = backend.readyForQuery();
const error = (message: string, code = "42601", severity = "ERROR") =>
	backend.errorResponse({ S: severity, V: severity, C: code, M: message });

describe("what the client sees", () => {
	test("a simple query's answer goes through as it came", () => {
		const answer = [
			backend.rowDescription("a"),
			backend.dataRow("1"),
			backend.dataRow(null),
			backend.commandComplete("SELECT 2"),
			backend.noticeResponse({ S: "NOTICE", C: "00000", M: "hello" }),
			backend.readyForQuery("T"),
		];
		const { client, events, owed } = everyCut(owes(Reply.Query), ...answer);
		expect(client).toBe(readable(concat(...answer)));
		expect(events).toEqual(["ready T"]);
		expect(owed).toBe(0);
	});

	test("a chunk that needs no change is one write, and so is one with something spliced in", () => {
		const plain = rig();
		say(plain.server.books, Reply.Query);
		plain.server.onData(Buffer.from(concat(backend.commandComplete("SELECT 0"), ready)));
		expect(plain.toClient.writes).toBe(1);
		const spliced = rig();
		spliced.server.statements.noteFake(Reply.ParseFake, ONE, "mine");
		owes(Reply.Bind, Reply.Execute, Reply.Sync)(spliced);
		spliced.server.onData(Buffer.from(concat(backend.bindComplete(), backend.commandComplete("SELECT 0"), ready)));
		expect(spliced.toClient.writes).toBe(1);
	});

	test("a Parse that the server was spared is answered in its place", () => {
		const { client, events } = everyCut(
			(all) => {
				all.server.statements.noteFake(Reply.ParseFake, ONE, "mine");
				owes(Reply.Bind, Reply.Describe, Reply.Execute)(all);
				all.server.statements.noteFake(Reply.CloseFake, ONE, "mine");
				owes(Reply.Sync)(all);
			},
			backend.bindComplete(),
			backend.rowDescription("a"),
			backend.dataRow("1"),
			backend.commandComplete("SELECT 1"),
			ready,
		);
		const expected = concat(
			backend.parseComplete(),
			backend.bindComplete(),
			backend.rowDescription("a"),
			backend.dataRow("1"),
			backend.commandComplete("SELECT 1"),
			backend.closeComplete(),
			ready,
		);
		expect(client).toBe(readable(expected));
		expect(events).toEqual(["ready I"]);
	});

	test("the answers to our own Parse and Close are not the client's to see", () => {
		const { client, events } = everyCut(
			(all) => {
				owes(Reply.CloseOurs)(all);
				all.server.statements.noteParse(ONE, null, MOMENT, false);
				owes(Reply.Bind, Reply.Execute, Reply.Sync)(all);
				all.server.statements.noteParse(TWO, "theirs", MOMENT, false);
				all.server.statements.noteUnnamedAgain(7);
				owes(Reply.Describe, Reply.Close, Reply.Sync)(all);
			},
			backend.closeComplete(),
			backend.parseComplete(),
			backend.bindComplete(),
			backend.commandComplete("SELECT 0"),
			ready,
			backend.parseComplete(),
			backend.parseComplete(),
			backend.parameterDescription(23),
			backend.noData(),
			backend.closeComplete(),
			ready,
		);
		const expected = concat(
			backend.bindComplete(),
			backend.commandComplete("SELECT 0"),
			ready,
			backend.parseComplete(),
			backend.parameterDescription(23),
			backend.noData(),
			backend.closeComplete(),
			ready,
		);
		expect(client).toBe(readable(expected));
		expect(events.at(-1)).toBe("ready I");
	});

	test("a request of made-up replies alone is answered by its ReadyForQuery", () => {
		const { client } = everyCut((all) => {
			all.server.statements.noteFake(Reply.ParseFake, ONE, "mine");
			all.server.statements.noteFake(Reply.CloseFake, TWO, "theirs");
			owes(Reply.Sync)(all);
		}, ready);
		expect(client).toBe(readable(concat(backend.parseComplete(), backend.closeComplete(), ready)));
	});

	test("an error in the middle of a pipeline takes the rest of its segment with it, and no more", () => {
		const { client, events, owed } = everyCut(
			(all) => {
				owes(Reply.Bind, Reply.Execute)(all);
				all.server.statements.noteParse(ONE, "mine", MOMENT, false);
				all.server.statements.noteFake(Reply.ParseFake, TWO, "theirs");
				all.server.statements.noteFake(Reply.CloseFake, TWO, "gone");
				owes(Reply.Bind, Reply.Execute, Reply.Sync)(all);
				owes(Reply.Bind, Reply.Execute, Reply.Sync)(all);
			},
			backend.bindComplete(),
			error("boom"),
			ready,
			backend.bindComplete(),
			backend.emptyQueryResponse(),
			ready,
		);
		const expected = concat(
			backend.bindComplete(),
			error("boom"),
			ready,
			backend.bindComplete(),
			backend.emptyQueryResponse(),
			ready,
		);
		expect(client).toBe(readable(expected));
		expect(events.toSorted()).toEqual(["close undone gone", "parse undone mine", "parse undone theirs", "ready I"]);
		expect(owed).toBe(0);
	});

	test("an error names a statement as the client does", () => {
		const { client } = everyCut(
			owes(Reply.Parse, Reply.Sync),
			error('prepared statement "__pgdog_1" already exists, __pgdog_12 does not', "42P05"),
			ready,
		);
		expect(client).toBe(
			readable(concat(error('prepared statement "mine" already exists, __pgdog_12 does not', "42P05"), ready)),
		);
	});

	test("settings that the server reports are told and passed on", () => {
		const { client, events } = everyCut(
			owes(Reply.Query),
			backend.parameterStatus("TimeZone", "UTC"),
			backend.commandComplete("SET"),
			ready,
		);
		expect(client).toBe(
			readable(concat(backend.parameterStatus("TimeZone", "UTC"), backend.commandComplete("SET"), ready)),
		);
		expect(events).toEqual(["ready I"]);
	});

	test("rows of any size pass without being gathered", () => {
		const row = backend.dataRow("x".repeat(3_000), "y");
		const script = concat(
			backend.rowDescription("a", "b"),
			row,
			backend.dataRow("z"),
			row,
			backend.commandComplete("SELECT 3"),
			ready,
		);
		const all = rig();
		say(all.server.books, Reply.Query);
		for (let at = 0; at < script.length; at += 700) {
			all.server.onData(Buffer.from(script.subarray(at, at + 700)));
			// At most a header and an opened message wait for more.
			expect(Math.min(at + 700, script.length) - all.toClient.bytes.length).toBeLessThan(64);
		}
		expect(readable(all.toClient.bytes)).toBe(readable(script));
		expect(all.events).toEqual(["ready I"]);
	});
});

describe("COPY in", () => {
	const done = [backend.commandComplete("COPY 1"), ready];

	test("a Sync that was sent with Execute is ignored by the server, so it is not waited for", () => {
		const { events, owed } = everyCut(
			owes(Reply.Bind, Reply.Execute, Reply.Sync),
			backend.bindComplete(),
			backend.copyInResponse(),
		);
		expect(events).toEqual([]);
		expect(owed).toBe(1);
	});

	test("CopyDone and the Sync behind it end it", () => {
		const { client, events, owed } = everyCut(
			owes(Reply.Bind, Reply.Execute, Reply.Sync, Reply.CopyEnd, Reply.Sync),
			backend.bindComplete(),
			backend.copyInResponse(),
			...done,
		);
		expect(client).toBe(readable(concat(backend.bindComplete(), backend.copyInResponse(), ...done)));
		expect(events).toEqual(["ready I"]);
		expect(owed).toBe(0);
	});

	test("of a simple query owes its ReadyForQuery all along", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.onData(Buffer.from(backend.copyInResponse()));
		expect(all.server.books.copyIn).toBe(true);
		all.server.books.copyEnd();
		all.server.onData(Buffer.from(concat(...done)));
		expect(all.events).toEqual(["ready I"]);
	});

	test("that fails with a Sync in its data costs the client its connection, and is held against no server", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.onData(Buffer.from(backend.copyInResponse()));
		all.server.books.sync();
		// The server had read the bad data before the Sync, and answers both.
		all.server.onData(Buffer.from(concat(error("no", "22P04"), ready, ready)));
		expect([all.events, all.server.isLost]).toEqual([["gone", "server gone 08P01"], false]);
	});

	test("of a client that is gone costs the server its life: nobody knows which Syncs it will answer", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.onData(Buffer.from(backend.copyInResponse()));
		all.server.abandon("recover");
		expect(all.events).toEqual(["cancel", "gone"]);
	});
});

describe("a client that leaves", () => {
	// What came behind in the same chunk was taken for answers to nothing, and logged as a breach of the protocol.
	test("before its COPY began costs the server its life, whatever came with the beginning", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.abandon("recover");
		const begin = concat(message("G", Uint8Array.of(0, 0, 0)), error("canceled", "57014"), ready);
		all.server.onData(Buffer.from(begin));
		expect([all.server.state, all.events]).toEqual([ServerState.Closed, ["cancel", "gone"]]);
	});

	test("in mid-answer gets nothing more; the server is drained and idle again", () => {
		const script = concat(
			backend.rowDescription("a"),
			backend.dataRow("x".repeat(100)),
			backend.commandComplete("SELECT 1"),
			ready,
		);
		for (let cut = 0; cut < script.length; cut++) {
			const all = rig();
			say(all.server.books, Reply.Query);
			if (cut > 0) all.server.onData(Buffer.from(script.subarray(0, cut)));
			const before = all.toClient.bytes.length;
			all.server.abandon("recover");
			all.server.onData(Buffer.from(script.subarray(cut)));
			expect(all.toClient.bytes.length).toBe(before);
			expect(all.events).toEqual(["cancel", "idle"]);
			expect(all.server.state).toBe(ServerState.Idle);
		}
	});

	test("in a transaction has it rolled back before anyone else gets the server", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.onData(Buffer.from(concat(backend.commandComplete("BEGIN"), backend.readyForQuery("T"))));
		all.server.abandon("recover");
		expect(readable(all.toServer.bytes)).toBe(readable(frontend.query("ROLLBACK")));
		expect(all.events).toEqual(["ready T"]);
		all.server.onData(Buffer.from(concat(backend.commandComplete("ROLLBACK"), ready)));
		expect(all.events).toEqual(["ready T", "idle"]);
	});

	test("from a batch that has failed has the Sync sent for it that ends that", () => {
		const all = rig();
		owes(Reply.Bind, Reply.Execute)(all);
		all.server.onData(Buffer.from(error("no")));
		all.server.abandon("recover");
		expect(readable(all.toServer.bytes)).toBe(readable(frontend.sync()));
	});

	test.each([
		["drop", true],
		["rollback_only", true],
		["recover", false],
	] as const)("in mid-request, with connection_recovery = %s: closed %p", (recovery, closed) => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.abandon(recovery);
		expect(all.server.state === ServerState.Closed).toBe(closed);
	});

	test("is no reason to cancel a COMMIT, nor what is before it", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.books.commits();
		say(all.server.books, Reply.Query);
		all.server.abandon("recover");
		all.server.cancelAgain();
		all.server.onData(Buffer.from(concat(backend.commandComplete("SELECT 1"), backend.readyForQuery("T"))));
		all.server.cancelAgain();
		all.server.onData(Buffer.from(concat(backend.commandComplete("COMMIT"), ready)));
		expect(all.events).toEqual(["idle"]);
	});

	test("has what it runs cancelled until it ends, one cancel at a time", () => {
		const all = rig();
		all.server.books.commits();
		owes(Reply.Bind, Reply.Execute, Reply.Sync)(all);
		all.server.onData(Buffer.from(concat(backend.bindComplete(), backend.commandComplete("COMMIT"), ready)));
		say(all.server.books, Reply.Query);
		all.server.abandon("recover");
		all.server.cancels.count = 1;
		all.server.cancelAgain();
		expect(all.events).toEqual(["ready I", "cancel"]);
		all.server.cancels.landed(true);
		all.server.cancelAgain();
		all.server.onData(Buffer.from(concat(error("canceled", "57014"), ready)));
		all.server.cancelAgain();
		expect(all.events).toEqual(["ready I", "cancel", "cancel", "idle"]);
	});

	// It brought the settings of a client that was gone back while the server was cleaned, for the next client to find.
	test("is not followed by what the client would have done when a cancel had landed", () => {
		const all = rig();
		all.server.cancels.sent();
		all.server.cancels.whenLanded(() => all.events.push("client goes on"));
		all.server.session.traces.noteUnknown();
		all.server.abandon("recover");
		all.server.cancels.landed(true);
		all.server.onData(Buffer.from(concat(backend.commandComplete("RESET"), ready)));
		expect(all.events).toEqual(["idle"]);
		const lost = rig();
		lost.server.cancels.sent();
		lost.server.cancels.whenLanded(() => lost.events.push("client goes on"));
		lost.server.close("lost");
		lost.server.cancels.landed(true);
		expect(lost.events).toEqual(["gone", "server gone 08006"]);
	});

	test("in the middle of sending a message costs the server its life", () => {
		const all = rig();
		all.server.stream.midMessage = true;
		all.server.abandon("recover");
		expect(all.events).toEqual(["gone"]);
	});
});

describe("our own queries", () => {
	test("are not seen by the client; rows and errors reach the one who asked", () => {
		const script = concat(
			backend.rowDescription("a"),
			backend.dataRow("é", null, ""),
			backend.commandComplete("SELECT 1"),
			ready,
		);
		for (let cut = 1; cut < script.length; cut++) {
			const all = rig();
			let found: unknown;
			all.server.run("SELECT x", (rows, failure) => {
				found = [rows, failure];
			});
			expect(readable(all.toServer.take())).toBe(readable(frontend.query("SELECT x")));
			all.server.onData(Buffer.from(script.subarray(0, cut)));
			all.server.onData(Buffer.from(script.subarray(cut)));
			expect(found).toEqual([[["é", null, ""]], null]);
			expect(all.toClient.bytes.length).toBe(0);
			expect(all.events).toEqual([]);
		}
	});

	test("that fail say with what", () => {
		const all = rig();
		let failed = "";
		all.server.run("x", (_, failure) => {
			failed = `${failure?.sqlstate} ${failure?.message}`;
		});
		all.server.onData(Buffer.from(concat(error("no"), ready)));
		expect(failed).toBe("42601 no");
	});

	/** Two-phase commit took what was done for undone by it, on one shard and not on another. */
	test("that are answered have not failed by what the server says behind the answer, in one chunk", () => {
		const all = rig();
		let failed: unknown;
		all.server.run("x", (_, failure) => {
			failed = failure;
		});
		const last = error("terminating connection", "57P01", "FATAL");
		all.server.onData(Buffer.from(concat(backend.commandComplete("PREPARE TRANSACTION"), ready, last)));
		expect(failed).toBe(null);
	});

	test("settings applied are remembered when they took, and only then", () => {
		const all = rig();
		const wanted = all.sets.of(new Map([["app.x", "1"]]));
		all.server.session.apply(wanted, () => {});
		all.server.onData(Buffer.from(concat(error("no"), ready)));
		expect(all.server.session.applied).toBe(all.sets.empty);
		all.server.session.apply(wanted, () => {});
		all.server.onData(
			Buffer.from(
				concat(backend.rowDescription("set_config"), backend.dataRow("1"), backend.commandComplete("SELECT 1"), ready),
			),
		);
		expect(all.server.session.applied).toBe(wanted);
	});

	test("of a client that left meanwhile: settings are in doubt and the session is cleaned", () => {
		const all = rig();
		all.server.session.apply(all.sets.of(new Map([["app.x", "1"]])), () => all.events.push("applied"));
		all.server.abandon("recover");
		all.toServer.take();
		all.server.onData(Buffer.from(concat(backend.commandComplete("SELECT 1"), ready)));
		expect(readable(all.toServer.take())).toContain("RESET ALL");
		all.server.onData(Buffer.from(concat(backend.commandComplete("RESET"), ready)));
		expect(all.events).toEqual(["idle"]);
	});
});

describe("the end", () => {
	test("a server's FATAL is passed on, and the client told that nothing need be added", () => {
		const all = rig();
		const fatal = error("terminating connection due to administrator command", "57P01", "FATAL");
		all.server.onData(Buffer.from(fatal));
		all.server.onClose(undefined);
		expect(readable(all.toClient.bytes)).toBe(readable(fatal));
		expect(all.events).toEqual(["gone", "server gone"]);
	});

	/** The client was told FATAL and went on with another server. */
	test("a FATAL right behind the answer is not passed on: the client lets go of the server, which is not lent again", () => {
		const all = rig();
		all.client.onReady = (server) => server.giveBack();
		say(all.server.books, Reply.Query);
		const answer = concat(backend.commandComplete("SELECT 1"), ready);
		all.server.onData(Buffer.from(concat(answer, error("terminating connection", "57P01", "FATAL"))));
		expect(readable(all.toClient.bytes)).toBe(readable(answer));
		expect(all.events).toEqual(["gone"]);
		expect(all.server.isLost).toBe(true);
	});

	test("a FATAL right behind the answer is told when the server closes to a client that still has it", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		const answer = concat(backend.commandComplete("BEGIN"), backend.readyForQuery("T"));
		all.server.onData(Buffer.from(concat(answer, error("terminating connection", "57P01", "FATAL"))));
		all.server.onClose(undefined);
		expect(readable(all.toClient.bytes)).toBe(readable(answer));
		expect(all.events).toEqual(["ready T", "gone", "server gone 57P01"]);
	});

	test("the WARNING of a server that crashes ends it while nobody has it, and other notices do not", () => {
		const all = rig();
		all.server.giveBack();
		const warning = (C: string) =>
			backend.noticeResponse({ S: "WARNING", V: "WARNING", C, M: "terminating connection" });
		all.server.onData(Buffer.from(warning("01000")));
		expect(all.events).toEqual(["idle"]);
		all.server.onData(Buffer.from(warning("57P02")));
		expect(all.events).toEqual(["idle", "gone"]);
		expect(all.server.isLost).toBe(true);
	});

	test("a server that vanishes is an 08006", () => {
		const all = rig();
		say(all.server.books, Reply.Query);
		all.server.onClose(undefined);
		expect(all.events).toEqual(["gone", "server gone 08006"]);
	});

	test.each([
		["of length 3", concat(Uint8Array.of(0x44, 0, 0, 0, 3))],
		["of negative length", concat(Uint8Array.of(0x44, 255, 0, 0, 0))],
		["that is too large to open", concat(Uint8Array.of(0x45, 0x7f, 0, 0, 0))],
	])("a message %s is refused", (_, bytes) => {
		const all = rig();
		expect(() => all.server.onData(Buffer.from(bytes))).toThrow();
	});
});

const hex = (b: Uint8Array) => Buffer.from(b).toString("latin1");

// Bind, Parse (spared), Execute, Sync: the made-up ParseComplete must come before the rows, not behind them.
test.each([1, 2])("a made-up ParseComplete stands where the Parse stood, before the rows (Close fake: %d)", (kind) => {
	const all = rig();
	say(all.server.books, Reply.Bind);
	all.server.statements.noteFake(kind === 1 ? Reply.ParseFake : Reply.CloseFake, ONE, "mine");
	say(all.server.books, Reply.Execute);
	say(all.server.books, Reply.Sync);
	const rest = [backend.dataRow("1"), backend.commandComplete("SELECT 1"), ready];
	all.server.onData(Buffer.from(concat(backend.bindComplete(), ...rest)));
	const fake = kind === 1 ? backend.parseComplete() : backend.closeComplete();
	expect(hex(all.toClient.bytes)).toBe(hex(concat(backend.bindComplete(), fake, ...rest)));
});

// A Close of ours (prepared_statements_limit) that was skipped because of an error: the server still has the
// statement, we believe it has not, and the next Parse of it fails with 42P05 for a client that did nothing wrong.
test("a Close of ours that an error has undone does not leave a statement that we have forgotten", () => {
	const all = rig();
	all.server.statements.noteParse(ONE, "mine", MOMENT, false);
	say(all.server.books, Reply.Sync);
	all.server.onData(Buffer.from(concat(backend.parseComplete(), ready)));
	say(all.server.books, Reply.Bind);
	for (const copy of all.server.statements.evict(0)) all.server.statements.noteClose(copy as Copy);
	say(all.server.books, Reply.Sync);
	const error = backend.errorResponse({ S: "ERROR", V: "ERROR", C: "22P02", M: "no" });
	all.server.onData(Buffer.from(concat(error, ready)));
	expect(all.server.statements.has(ONE) || all.server.session.traces.dirty !== 0).toBe(true);
});

// A reply that does not fit what is owed: the books are wrong, and every answer after it would go astray.
test.each([
	["BindComplete for a Query", Reply.Query, backend.bindComplete()],
	["ParseComplete for a Bind", Reply.Bind, backend.parseComplete()],
	["CloseComplete for nothing", 0, backend.closeComplete()],
	["ReadyForQuery for a Bind", Reply.Bind, ready],
])("%s closes the connection", (_, mark, bytes) => {
	const all = rig();
	if (mark !== 0) say(all.server.books, mark as Reply);
	expect(() => all.server.onData(Buffer.from(bytes))).toThrow();
});

// A server that is not PostgreSQL's and does not know Describe: what it says next was taken for the answer.
test("a Describe of ours that a server says nothing to costs what it would have told, and nothing else", () => {
	const { client, events, owed } = everyCut(
		(all) => {
			const copy = all.server.statements.noteParse(statement(7), "mine", { catalogue: 0, dueAt: 0 }, false);
			all.server.statements.noteDescribe(copy);
			all.server.statements.noteFake(Reply.CloseFake, TWO, "theirs");
			owes(Reply.Bind, Reply.Execute, Reply.Sync)(all);
		},
		backend.parseComplete(),
		backend.bindComplete(),
		backend.commandComplete("SELECT 0"),
		ready,
	);
	const expected = [backend.parseComplete(), backend.closeComplete(), backend.bindComplete()];
	expect(client).toBe(readable(concat(...expected, backend.commandComplete("SELECT 0"), ready)));
	expect([events, owed]).toEqual([["ready I"], 0]);
});
