// The transaction that no server knows of yet: what is answered, what a server has to answer, what it is given to run first.

import { describe, expect, test } from "bun:test";
import { PgError } from "../../src/errors.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { TransactionControl } from "../../src/parser/facts.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { HeldBegin } from "../../src/session/held-begin.ts";
import { SessionHints } from "../../src/session/hints.ts";
import { TxStatus } from "../../src/wire/codes.ts";

const statements = new StatementCache(new SqlParser());

function begin() {
	const hints = new SessionHints();
	const heldBegin = new HeldBegin(hints);
	/** The tag of the answer, an SQLSTATE, the value of a SHOW, or "server". */
	const say = (sql: string, holds = true): string => {
		const facts = statements.facts(sql);
		const said = heldBegin.concerns(facts) ? heldBegin.answer(facts, sql, holds) : null;
		if (said === null) return "server";
		if (said.error !== null) heldBegin.fail();
		return said.error?.sqlstate ?? said.row?.value ?? said.tag;
	};
	return { hints, heldBegin, say };
}

describe("a held transaction", () => {
	test.each([
		["BEGIN", "BEGIN"],
		["begin work;", "BEGIN"],
		["START TRANSACTION READ ONLY", "START TRANSACTION"],
		["/* c */ start transaction", "START TRANSACTION"],
		["; START TRANSACTION", "START TRANSACTION"],
	])("%s is answered with %s", (sql, tag) => {
		const { heldBegin, say } = begin();
		expect(say(sql)).toBe(tag);
		expect([heldBegin.open, heldBegin.status, heldBegin.sql]).toEqual([true, TxStatus.InBlock, sql]);
	});

	test.each([
		["COMMIT", "COMMIT"],
		["END", "COMMIT"],
		["ROLLBACK", "ROLLBACK"],
		["ABORT", "ROLLBACK"],
	])("%s ends it without a server", (sql, tag) => {
		const { heldBegin, say } = begin();
		expect(say(sql)).toBe("server");
		say("BEGIN");
		expect(say(sql)).toBe(tag);
		expect([heldBegin.open, heldBegin.status, heldBegin.sql, heldBegin.begun]).toEqual([
			false,
			TxStatus.Idle,
			"",
			TransactionControl.None,
		]);
	});

	test("holds back no more than it can keep: long texts and many of them are a server's", () => {
		const { heldBegin, say } = begin();
		const long = `/* ${"x".repeat(5_000)} */`;
		expect([say(`BEGIN ${long}`), heldBegin.open]).toEqual(["server", false]);
		say("BEGIN");
		expect(say(`SET TRANSACTION READ ONLY ${long}`)).toBe("server");
		const answers = Array.from({ length: 20 }, () => say("SET TRANSACTION READ ONLY"));
		expect(answers.filter((answer) => answer === "server")).toHaveLength(5);
	});

	test("AND CHAIN begins another one like it", () => {
		const { heldBegin, say } = begin();
		say("BEGIN READ ONLY");
		expect(say("COMMIT AND CHAIN")).toBe("COMMIT");
		expect(say("ROLLBACK AND CHAIN")).toBe("ROLLBACK");
		expect([heldBegin.open, heldBegin.sql, heldBegin.begun]).toEqual([
			true,
			// On the server, too, its modes are handed down.
			"BEGIN READ ONLY\n;COMMIT AND CHAIN",
			TransactionControl.BeginReadOnly,
		]);
	});

	test("nothing is held where it must not be, and a second BEGIN is PostgreSQL's", () => {
		const { heldBegin, say } = begin();
		expect(say("BEGIN", false)).toBe("server");
		expect(heldBegin.open).toBe(false);
		expect(say("BEGIN; SELECT 1")).toBe("server");
		expect(say("BEGIN")).toBe("BEGIN");
		expect(say("BEGIN")).toBe("server");
		for (const sql of ["SELECT 1", "INSERT INTO t VALUES (1)", "SAVEPOINT a", "SET x.y = 1", "COMMIT; BEGIN", "SELEC"])
			expect(say(sql)).toBe("server");
	});

	test.each([
		["BEGIN", "SET TRANSACTION READ ONLY", TransactionControl.BeginReadOnly],
		["BEGIN", "SET TRANSACTION READ WRITE", TransactionControl.BeginReadWrite],
		["BEGIN READ ONLY", "SET TRANSACTION READ WRITE", TransactionControl.BeginReadWrite],
		["BEGIN READ WRITE", "SET TRANSACTION READ ONLY", TransactionControl.BeginReadWrite],
		["BEGIN READ ONLY", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", TransactionControl.BeginReadWrite],
		["BEGIN ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION READ ONLY", TransactionControl.BeginReadWrite],
	])("%s and %s are both held, each in a line of its own", (first, second, begun) => {
		const { heldBegin, say } = begin();
		expect(say(second)).toBe("server");
		say(`${first} -- c`);
		expect(say(second)).toBe("SET");
		expect(heldBegin.begun).toBe(begun);
		const tree = statements.facts(heldBegin.sql);
		expect(tree.statements).toBe(2);
	});

	test("a snapshot is a server's to find, and so are texts without end", () => {
		const { say } = begin();
		say("BEGIN");
		expect(say("SET TRANSACTION SNAPSHOT '0-0-1'")).toBe("server");
		const answers = Array.from({ length: 20 }, () => say("SET TRANSACTION READ ONLY"));
		expect(answers.indexOf("server")).toBe(15);
	});
});

describe("a held transaction that has failed", () => {
	test("accepts its end only, and COMMIT rolls back", () => {
		const { hints, heldBegin, say } = begin();
		say("BEGIN");
		expect(say("SET pgdog.role = 'replica'")).toBe("SET");
		heldBegin.fail();
		expect(heldBegin.status).toBe(TxStatus.Failed);
		for (const sql of ["BEGIN", "SET TRANSACTION READ ONLY", "SELECT 1", "SHOW pgdog.role", "SAVEPOINT a", ""])
			expect(say(sql)).toBe("25P02");
		expect(say("COMMIT")).toBe("ROLLBACK");
		expect([heldBegin.status, hints.now.role]).toEqual([TxStatus.Idle, null]);
	});

	test("may end in a string that goes on behind it, which a server runs", () => {
		const { heldBegin, say } = begin();
		say("BEGIN");
		heldBegin.fail();
		for (const sql of ["SELECT 1; ROLLBACK", "ROLLBACK AND CHAIN; SELECT 1"]) expect(say(sql)).toBe("25P02");
		for (const sql of ["ROLLBACK; SELECT 1", "COMMIT; BEGIN"]) expect(say(sql)).toBe("server");
	});

	test("goes on after ROLLBACK AND CHAIN", () => {
		const { heldBegin, say } = begin();
		say("BEGIN");
		heldBegin.fail();
		expect(say("COMMIT AND CHAIN")).toBe("ROLLBACK");
		expect(heldBegin.status).toBe(TxStatus.InBlock);
	});

	test("loses its modes, and what goes on after ROLLBACK AND CHAIN has none, as in PostgreSQL", () => {
		const { heldBegin, say } = begin();
		say("BEGIN READ ONLY");
		say("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
		heldBegin.fail();
		expect(say("ROLLBACK AND CHAIN")).toBe("ROLLBACK");
		expect([heldBegin.open, heldBegin.sql, heldBegin.begun]).toEqual([true, "BEGIN", TransactionControl.Begin]);
	});

	test("keeps the modes that AND CHAIN had handed down to it, as in PostgreSQL, and loses others", () => {
		const { heldBegin, say } = begin();
		say("BEGIN READ ONLY");
		say("COMMIT AND CHAIN");
		const { sql, begun } = heldBegin;
		say("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
		expect([heldBegin.sql, heldBegin.lastingSql]).toEqual([
			`${sql}\n;SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`,
			sql,
		]);
		heldBegin.fail();
		expect(say("ROLLBACK AND CHAIN")).toBe("ROLLBACK");
		expect([heldBegin.sql, heldBegin.begun]).toEqual([sql, begun]);
		expect(say("COMMIT")).toBe("COMMIT");
		say("BEGIN");
		expect([heldBegin.sql, heldBegin.lastingSql]).toEqual(["BEGIN", "BEGIN"]);
	});

	test("is nothing that can happen to who has not begun one", () => {
		const { heldBegin } = begin();
		heldBegin.fail();
		expect([heldBegin.failed, heldBegin.status]).toEqual([false, TxStatus.Idle]);
	});
});

describe("settings of ours", () => {
	test("are answered in a transaction and outside of one, and obey it", () => {
		const { hints, say } = begin();
		expect(say("SHOW pgdog.role")).toBe("");
		expect(say("SET pgdog.role = 'primary'")).toBe("SET");
		say("BEGIN");
		expect(say("SET LOCAL pgdog.role = 'replica'")).toBe("SET");
		expect(say("SHOW pgdog.role")).toBe("replica");
		say("COMMIT");
		expect(say("SHOW pgdog.role")).toBe("primary");
		expect(say("RESET pgdog.role")).toBe("RESET");
		expect(hints.now.role).toBeNull();
	});

	test("RESET ALL and DISCARD ALL reset them, and go to a server", () => {
		for (const all of ["RESET ALL", "DISCARD ALL"]) {
			const { hints, say } = begin();
			say("SET pgdog.shard = 3");
			expect(say(all)).toBe("server");
			expect(hints.now.shard).toBeNull();
		}
	});

	test("a value that means nothing fails the transaction", () => {
		const { heldBegin, say } = begin();
		expect(say("SET pgdog.role = 'leader'")).toBe("22023");
		expect(heldBegin.failed).toBe(false);
		say("BEGIN");
		expect(say("SET pgdog.role = 'leader'")).toBe("22023");
		expect(heldBegin.failed).toBe(true);
	});
});

describe("session hints", () => {
	const role = (value: string, local = false) => ({ kind: "set", name: "role", value, local }) as const;

	test("COMMIT keeps what SET said, ROLLBACK what was before, and SET LOCAL ends with either", () => {
		const hints = new SessionHints({ role: "primary", shard: null, shardingKey: null });
		hints.change(role("replica"), true);
		hints.change({ kind: "set", name: "shard", value: "2", local: true }, true);
		expect(hints.now).toEqual({ role: "replica", shard: 2, shardingKey: null });
		hints.end(true);
		expect(hints.now).toEqual({ role: "replica", shard: null, shardingKey: null });
		hints.change({ kind: "reset", name: "all" }, true);
		expect(hints.now.role).toBe("primary");
		hints.end(false);
		expect(hints.now.role).toBe("replica");
		hints.change({ kind: "reset", name: "role" }, false);
		hints.end(false);
		expect(hints.text("role")).toBe("primary");
	});

	test("SET after SET LOCAL is what is left; DEFAULT is what the session began with", () => {
		const hints = new SessionHints();
		hints.change(role("replica", true), true);
		hints.change(role("primary"), true);
		hints.end(true);
		expect(hints.now.role).toBe("primary");
		hints.change({ kind: "set", name: "role", value: null, local: false }, false);
		expect([hints.now.role, hints.text("role"), hints.text("shard"), hints.text("sharding_key")]).toEqual([
			null,
			"",
			"",
			"",
		]);
	});

	test("what a server says is believed when it means something", () => {
		const hints = new SessionHints();
		hints.learn("sharding_key", "k");
		hints.learn("role", "leader");
		hints.learn("role", "replica");
		hints.end(false);
		expect(hints.now).toEqual({ role: "replica", shard: null, shardingKey: "k" });
	});

	test("values that mean nothing are 22023", () => {
		const hints = new SessionHints();
		for (const [name, value] of [
			["role", "leader"],
			["shard", "-1"],
			["shard", "first"],
		] as const)
			expect(() => hints.change({ kind: "set", name, value, local: false }, false)).toThrow(PgError);
		expect(hints.now).toBe(hints.startup);
	});
});
