// FunctionCall, notifications, DO blocks, what cannot run in a block, and messages that are malformed.

import { frontend as f, int32, message } from "../../support/wire-frames.ts";
import { ask, differs, differsSharded, q, type Script, says, script, sync } from "../script.ts";

export const REST: Script[] = [
	says(
		"FunctionCall",
		[f.functionCall(177, [int32(40), int32(2)], [1], 1)],
		[f.functionCall(177, ["40", "2"])],
		[f.functionCall(177, [null, "2"])],
	),
	says(
		"FunctionCall of what is not there",
		[f.functionCall(999999, [])],
		[f.functionCall(177, ["1"])],
		[q("SELECT 1")],
	),
	says(
		"FunctionCall in a transaction",
		[q("BEGIN")],
		[f.functionCall(177, ["1", "2"])],
		[f.functionCall(177, ["x", "2"])],
		[f.functionCall(177, ["1", "2"])],
		[q("ROLLBACK")],
	),
	says("NOTIFY inside one session", [q("BEGIN; LISTEN ch; NOTIFY ch, 'payload'")], [q("SELECT 1")], [q("ROLLBACK")]),
	says("LISTEN and NOTIFY in one Query", [q("LISTEN ch; NOTIFY ch, 'heard'; UNLISTEN ch")]),
	says(
		"DO blocks",
		[q("DO $$ BEGIN RAISE NOTICE 'done'; END $$")],
		[...ask("DO $$ BEGIN RAISE EXCEPTION 'custom' USING ERRCODE = 'P0042', DETAIL = 'd', HINT = 'h'; END $$"), sync],
		[q("SELECT 1")],
	),
	differsSharded(
		"a string that begins or ends a transaction with its first statement is for all shards",
		says(
			"temporary tables within a transaction",
			[q("BEGIN; CREATE TEMP TABLE tt (a int) ON COMMIT DROP; INSERT INTO tt VALUES (1)")],
			[...ask("SELECT * FROM tt"), sync],
			[q("COMMIT")],
			[q("SELECT * FROM tt")],
		),
	),
	says(
		"advisory locks within a transaction",
		[q("BEGIN; SELECT pg_advisory_xact_lock(42); SELECT pg_try_advisory_xact_lock(42)")],
		[q("COMMIT")],
	),
	differsSharded(
		"a string that begins or ends a transaction with its first statement is for all shards",
		says("WITH HOLD cursors within one Query", [
			q("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT 1; COMMIT; FETCH ALL FROM h; CLOSE h"),
		]),
	),
	says(
		"VACUUM and what cannot run in a block",
		[q("VACUUM t")],
		[q("BEGIN")],
		[q("VACUUM t")],
		[q("ROLLBACK")],
		[...ask("VACUUM t"), sync],
		[q("SELECT 1; VACUUM t")],
	),
	script("lock_timeout and deadlock texts", async (t) => {
		await t.say(q("BEGIN; SET LOCAL lock_timeout = 1; LOCK TABLE t"));
		await t.say(q("ROLLBACK"));
	}),
	script("an unknown message type ends the connection", async (t) => {
		await t.say(q("SELECT 1"));
		await t.end(message("y", Uint8Array.of(0)));
	}),
	differs(
		"PostgreSQL closes without a word; the proxy says why",
		script("a message length below four ends the connection", async (t) => {
			await t.say(q("SELECT 1"));
			await t.end(Uint8Array.of(81, 0, 0, 0, 3));
		}),
	),
	script("Describe of neither statement nor portal", async (t) => {
		await t.say(message("D", Uint8Array.of(88, 0)), sync);
		await t.say(q("SELECT 1"));
	}),
	script("Bind with a body that is too short", async (t) => {
		await t.say(f.parse("SELECT 1"), message("B", Uint8Array.of(0, 0, 0)), sync);
		await t.say(q("SELECT 1"));
	}),
	script("Execute with a body that is too long", async (t) => {
		await t.say(f.parse("SELECT 1"), f.bind(), message("E", Uint8Array.of(0, 0, 0, 0, 0, 9)), sync);
		await t.say(q("SELECT 1"));
	}),
	script("a Query without its terminator", async (t) => {
		await t.say(message("Q", Buffer.from("SELECT 1")));
		await t.say(q("SELECT 1"));
	}),
	script("Terminate", async (t) => {
		await t.end(f.terminate());
	}),
	script("Terminate in a transaction", async (t) => {
		await t.say(q("BEGIN"));
		await t.end(f.terminate());
	}),
];
