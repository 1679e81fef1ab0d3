// Found by review, to be moved into relay.test.ts once they pass.

import { expect, test } from "bun:test";
import { Statement } from "../../src/backend/prepared.ts";
import { Reply } from "../../src/backend/replies.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { backend, concat } from "../support/wire-frames.ts";
import { rig } from "./support.ts";

const ONE = new Statement("__pgdog_1", "1", Buffer.from("SELECT 1\0\0\0"), NO_FACTS);
const ready = backend.readyForQuery();
const hex = (b: Uint8Array) => Buffer.from(b).toString("latin1");

// Bind, Parse (spared), Execute, Sync: the made-up ParseComplete must come before the rows, not behind them.
test.each([1, 2])("a made-up ParseComplete stands where the Parse stood, before the rows (Close fake: %d)", (kind) => {
	const all = rig();
	all.server.replies.push(Reply.Bind);
	all.server.noteFake(kind === 1 ? Reply.ParseFake : Reply.CloseFake, ONE, "mine");
	all.server.replies.push(Reply.Execute);
	all.server.replies.push(Reply.Sync);
	const rest = [backend.dataRow("1"), backend.commandComplete("SELECT 1"), ready];
	all.server.onData(Buffer.from(concat(backend.bindComplete(), ...rest)));
	const fake = kind === 1 ? backend.parseComplete() : backend.closeComplete();
	expect(hex(all.toClient.bytes)).toBe(hex(concat(backend.bindComplete(), fake, ...rest)));
});

// A Close of ours (prepared_statements_limit) that was skipped because of an error: the server still has the
// statement, we believe it has not, and the next Parse of it fails with 42P05 for a client that did nothing wrong.
test("a Close of ours that an error has undone does not leave a statement that we have forgotten", () => {
	const all = rig();
	all.server.noteParse(ONE, "mine");
	all.server.replies.push(Reply.Sync);
	all.server.onData(Buffer.from(concat(backend.parseComplete(), ready)));
	all.server.replies.push(Reply.Bind);
	all.server.evict(0);
	all.server.replies.push(Reply.CloseOurs);
	all.server.replies.push(Reply.Sync);
	const error = backend.errorResponse({ S: "ERROR", V: "ERROR", C: "22P02", M: "no" });
	all.server.onData(Buffer.from(concat(error, ready)));
	expect(all.server.has(ONE) || all.server.dirty !== 0).toBe(true);
});

// A reply that does not fit what is owed: the books are wrong, and every answer after it would go astray.
test.each([
	["BindComplete for a Query", Reply.Query, backend.bindComplete()],
	["ParseComplete for a Bind", Reply.Bind, backend.parseComplete()],
	["CloseComplete for nothing", 0, backend.closeComplete()],
	["ReadyForQuery for a Bind", Reply.Bind, ready],
])("%s closes the connection", (_, mark, bytes) => {
	const all = rig();
	if (mark !== 0) all.server.replies.push(mark as Reply);
	expect(() => all.server.onData(Buffer.from(bytes))).toThrow();
});
