// What becomes of a request, without any shard: steps, an answer, or a refusal.

import { expect, test } from "bun:test";
import { Statements } from "../../src/backend/statements.ts";
import type { ClientContext } from "../../src/client/context.ts";
import { type General, general as generalTable } from "../../src/config/settings.ts";
import { Side } from "../../src/config/snapshot.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { createFactsCache } from "../../src/parser/facts-cache.ts";
import { NO_HINTS } from "../../src/parser/hints.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Reading } from "../../src/parser/reading.ts";
import { RouteLog } from "../../src/router/route-log.ts";
import { Router } from "../../src/router/router.ts";
import type { Parsing } from "../../src/session/parsing.ts";
import { Session } from "../../src/session/session.ts";
import { ShardedStatements } from "../../src/session/sharded-statements.ts";
import { ClientStatements } from "../../src/session/statements.ts";
import { AnsweredHere, type Planned, Planning, Refusal } from "../../src/shards/planning.ts";
import { type Plan, Terminator } from "../../src/shards/steps.ts";
import { type Participant, ShardedTransaction } from "../../src/shards/transaction.ts";
import { Frontend, TxStatus } from "../../src/wire/codes.ts";
import { defaults } from "../pool/support.ts";
import { cut } from "../support/message.ts";
import { concat, frontend } from "../support/wire-frames.ts";

const cache = new StatementCache(new SqlParser());
const on = (shard: number, sql = "INSERT INTO t DEFAULT VALUES") => `/* pgdog_shard: ${shard} */ ${sql}`;
const run = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute()];

/** A client of two shards, each a primary and a replica. */
function planning(isSession = false) {
	const general = defaults<General>(generalTable);
	const facts = createFactsCache();
	const routes = new RouteLog();
	const context = { general, facts, routes, time: 0, nextSerial: () => 1 } as unknown as ClientContext;
	const own = new Session(NO_HINTS);
	const joined: string[] = [];
	const participants = [0, 1].map(
		(shard): Participant => ({
			transactionStatus: TxStatus.Idle,
			isHolding: false,
			join: (sql) => joined.push(`${shard} ${sql}`),
			letGo() {},
		}),
	);
	const transaction = new ShardedTransaction(participants, own.heldBegin, true);
	const parsing = { dialect: new Statements(() => 1).dialectsOf("u"), time: 0 } as unknown as Parsing;
	const kept = new ShardedStatements(new Statements(() => 1), true);
	const statements = new ClientStatements(new Statements(() => 1), facts, parsing, null, kept);
	const wanted: string[] = [];
	const shards: Planned = {
		count: 2,
		reading: Reading.Standard,
		mayHold: true,
		mayBegin: true,
		isSession,
		isSerializable: false,
		prefer: (targets, side) => wanted.push(`${targets.join("")} ${side === Side.Primary ? "primary" : "any"}`),
	};
	const router = new Router({ shards: 2, hasPrimary: true, hasReplicas: true }, cache, null, general);
	const plans = new Planning(
		context,
		{ pid: 1, user: "u", database: "d" },
		shards,
		{ own, statements, kept, transaction },
		router,
	);
	const query = (sql: string, involved: readonly number[] = []) => {
		const chunk = Buffer.from(frontend.query(sql));
		return plans.simple(Frontend.Query, chunk, 0, chunk.length, involved);
	};
	const batch = (messages: Uint8Array[], involved: readonly number[] = []) => {
		const chunk = Buffer.from(concat(...messages));
		return plans.batch(chunk, 0, chunk.length - 5, chunk.length, false, involved);
	};
	return { plans, query, batch, transaction, statements, wanted, routes, joined };
}

/** `01 Q, 01 S; sync`: who is sent what, and what ends it. */
function words(outcome: Plan | AnsweredHere | Refusal): string {
	if (outcome instanceof Refusal) return `refused ${outcome.error.sqlstate}`;
	if (outcome instanceof AnsweredHere)
		return `answered ${cut(outcome.bytes)
			.messages.map(({ code }) => code)
			.join("")}`;
	const steps = outcome.steps.map(({ targets, chunk, at, end, behind }) => {
		const codes = cut(chunk.subarray(at, end)).messages.map(({ code }) => code);
		return `${targets.join("")} ${codes.join("")}${behind === null ? "" : "+H"}`;
	});
	return `${steps.join(", ")}; ${outcome.terminator === Terminator.Sync ? "sync" : "flush"}`;
}

test("a query goes to the shards and servers that it needs", () => {
	const { query, wanted } = planning();
	expect(words(query("SELECT a FROM t"))).toBe("01 Q; sync");
	expect(words(query(on(1)))).toBe("1 Q; sync");
	expect(words(query("SHOW pgdog.role"))).toBe("answered TDCZ");
	expect(words(query("SET pgdog.shard = 0"))).toBe("answered CZ");
	expect(words(query("SELECT a FROM t"))).toBe("0 Q; sync");
	expect(wanted).toEqual(["01 any", "1 primary", "0 any"]);
	// Servers that stay for good have to be able to write.
	const stays = planning(true);
	stays.query("SELECT a FROM t");
	expect(stays.wanted).toEqual(["01 primary"]);
});

/** What the steps ask of the rows of all shards: LIMITs of the statements that do, and refusals. */
function asked(outcome: Plan | AnsweredHere | Refusal): unknown {
	if (!("steps" in outcome)) return words(outcome);
	return outcome.steps.map(({ joinings }) => joinings?.each.map((joining) => joining?.limit ?? null) ?? null);
}

test("what is asked of the rows of all shards goes with their step, and not where it could come too late", () => {
	const { query, batch } = planning();
	const ordered = "SELECT a FROM t ORDER BY a LIMIT 3";
	expect(asked(query(ordered))).toEqual([[3]]);
	expect(asked(query(`${ordered}; SELECT 1`))).toEqual([[3, null]]);
	expect(asked(query("SELECT a FROM t LIMIT 2; DELETE FROM t"))).toEqual([[2, null]]);
	expect(query(`${ordered}; DELETE FROM t`)).toBeInstanceOf(Refusal);
	expect(query("SELECT a FROM t OFFSET 1")).toBeInstanceOf(Refusal);
	// One shard's rows are in its own order.
	expect(asked(query(on(1, ordered)))).toEqual([null]);
	const sync = frontend.sync();
	const alone = batch([...run(ordered), sync]) as Plan;
	expect([words(alone), asked(alone)]).toEqual(["01 PBDES; sync", [[3]]]);
	// The Sync waits for the answer where something was run beside it, and so does what stands behind it.
	const beside = batch([...run("DELETE FROM t"), ...run(ordered), ...run("DELETE FROM t"), sync]) as Plan;
	expect([words(beside), asked(beside)]).toEqual(["01 PBEPBDE+H, 01 PBE+H, 01 S; sync", [[null, 3], null, null]]);
	const parameter = [frontend.parse("SELECT a FROM t LIMIT $1"), frontend.bind({ values: ["4"] }), frontend.execute()];
	expect(asked(batch([...parameter, sync]))).toEqual([[4]]);
	const limited = [frontend.parse(ordered), frontend.bind({ portal: "p" }), frontend.execute("p", 1), sync];
	expect((batch(limited) as Plan).steps[0]!.joinings!.each[0]!.isLimited).toBe(true);
});

test("a batch is cut where its shards change, and a query ends a batch that is open", () => {
	const { batch, query, plans } = planning();
	const sync = frontend.sync();
	expect(words(batch([...run("SELECT a FROM t"), sync]))).toBe("01 PBES; sync");
	expect(words(batch([...run(on(0)), ...run(on(1)), sync]))).toBe("0 PBE+H, 1 PBE+H, 01 S; sync");
	expect(words(batch([...run(on(0)), frontend.flush()]))).toBe("0 PBE+H; flush");
	expect(words(batch([...run(on(1)), sync], [0]))).toBe("1 PBE+H, 10 S; sync");
	expect(words(query(on(1), [0]))).toBe("0 S, 1 Q; sync");
	expect(words(plans.sync([0, 1]))).toBe("01 S; sync");
});

test("a batch that comes to its shards in another order takes their servers in theirs first, outside of transactions", () => {
	const { batch, transaction } = planning();
	const sync = frontend.sync();
	const backwards = [...run(on(1)), ...run(on(0)), sync];
	expect(words(batch(backwards))).toBe("01 C+H, 1 PBE+H, 0 PBE+H, 10 S; sync");
	expect(words(batch([...run(on(1)), ...run("SELECT a FROM t"), frontend.flush()]))).toBe(
		"01 C+H, 1 PBE+H, 01 PBE+H; flush",
	);
	expect(words(batch(backwards, [0]))).toBe("1 PBE+H, 0 PBE+H, 10 S; sync");
	transaction.told(TxStatus.InBlock);
	expect(words(batch(backwards))).toBe("1 PBE+H, 0 PBE+H, 10 S; sync");
});

test("of a batch the statements that begin its transaction are answered one by one", () => {
	const { batch, transaction } = planning();
	const messages = [...run("BEGIN"), ...run(on(1)), frontend.sync()];
	const outcome = batch(messages) as AnsweredHere;
	expect(words(outcome)).toBe("answered 12C");
	expect(outcome.end).toBe(concat(...run("BEGIN")).length);
	expect([transaction.heldBegin.open, transaction.status]).toEqual([true, TxStatus.InBlock]);
	expect(words(batch(messages.slice(3)))).toBe("1 PBES; sync");
	transaction.heldBegin.fail();
	expect(words(batch(messages.slice(3)))).toBe("refused 25P02");
	expect(words(batch([...run("ROLLBACK"), frontend.sync()]))).toBe("answered 12CZ");
	expect(transaction.isOpen).toBe(false);
});

test("a transaction goes where it is, and is begun elsewhere when it is needed there", () => {
	const { query, transaction, joined } = planning();
	expect(words(query("BEGIN"))).toBe("answered CZ");
	query(on(1));
	transaction.join(1);
	transaction.joined();
	transaction.runsOn([1], TxStatus.InBlock);
	transaction.told(TxStatus.InBlock);
	expect(words(query("SELECT 1"))).toBe("1 Q; sync");
	transaction.join(0);
	expect(joined).toEqual(["1 BEGIN", "0 BEGIN"]);
	transaction.joined();
	transaction.runsOn([0, 1], TxStatus.InBlock);
	expect(words(query(on(0, "UPDATE t SET a = 1; COMMIT")))).toBe("refused 0A000");
	expect(words(query("COMMIT"))).toBe("01 Q; sync");
	transaction.send();
	expect(words(query("SET pgdog.shard = 0"))).toBe("refused 58000");
	transaction.told(TxStatus.Idle);
	expect(words(query("COMMIT"))).toBe("0 Q; sync");
});

test("what the router refuses is told to SHOW ROUTES", () => {
	const { query, batch, routes } = planning();
	expect(words(query(on(7)))).toBe("refused 58000");
	expect(words(batch([...run(on(7)), frontend.sync()]))).toBe("refused 58000");
	expect(routes.rows().map(({ error }) => error !== null)).toEqual([true, true]);
	const portals = Array.from({ length: 1100 }, (_, i) => frontend.bind({ portal: "x".repeat(1000) + i }));
	expect(words(batch([frontend.parse(on(0)), ...portals, frontend.sync()]))).toBe("refused 53200");
});
