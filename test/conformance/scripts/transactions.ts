// Transaction blocks: how they begin, what may come first, how they end. Before a primary and its replicas BEGIN is held
// back until the first statement is there, of which the client must not see anything.

import { frontend as f, int32 } from "../../support/wire-frames.ts";
import { ask, differsSharded, flush, q, type Script, says, script, sync } from "../script.ts";

/** Parse, Bind, Execute and Sync of the unnamed statement, as drivers send BEGIN. */
const run = (sql: string) => [f.parse(sql), f.bind(), f.execute(), sync];
/** The same without Sync. */
const part = (sql: string) => [f.parse(sql), f.bind(), f.execute()];

const BEGINS = [
	"BEGIN",
	"BEGIN WORK",
	"START TRANSACTION",
	"begin transaction -- with a comment",
	"/* START */ BEGIN;",
	"; BEGIN",
	"BEGIN ISOLATION LEVEL REPEATABLE READ",
	"BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
	"BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
	"BEGIN READ ONLY",
	"BEGIN READ WRITE",
	"START TRANSACTION READ ONLY",
	"START TRANSACTION READ ONLY, READ WRITE",
	"START TRANSACTION ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE",
];

/** Of a session's transaction. On a replica all transactions are read only, so that is asked otherwise. */
const MODES = q("SELECT current_setting('transaction_isolation'), current_setting('transaction_deferrable')");
const IS_READ_ONLY = q("SHOW transaction_read_only");

export const TRANSACTIONS: Script[] = [
	...BEGINS.flatMap((begin) => [
		says(`${begin}, a read, COMMIT`, [q(begin)], [MODES], [q("SELECT 1")], [q("COMMIT")], [MODES]),
		says(`${begin} in the extended protocol`, run(begin), [...ask("SELECT $1::text", ["a"]), sync], run("COMMIT")),
		says(`${begin} with nothing in it`, [q(begin)], [q("COMMIT")], [q(begin)], [q("ROLLBACK")], [q("SELECT 1")]),
		says(`${begin}, a write, ROLLBACK`, [q(begin)], [q("INSERT INTO t VALUES (300, 'x')")], [q("ROLLBACK")], [MODES]),
	]),
	says(
		"END, ABORT and their words",
		[q("BEGIN")],
		[q("END WORK")],
		[q("BEGIN")],
		[q("ABORT")],
		run("START TRANSACTION"),
		[q("COMMIT TRANSACTION")],
	),
	says(
		"BEGIN in BEGIN is a warning",
		[q("BEGIN")],
		[q("BEGIN")],
		[q("SELECT 1")],
		[q("BEGIN READ ONLY")],
		[q("COMMIT")],
	),
	says("BEGIN in BEGIN, extended", run("BEGIN"), run("BEGIN"), run("SELECT 1"), run("COMMIT")),
	says("COMMIT and ROLLBACK without a transaction", [q("COMMIT")], [q("ROLLBACK")], run("COMMIT"), run("ABORT"), [
		q("COMMIT AND CHAIN"),
	]),
	says("BEGIN and what is no SQL", [q("BEGIN")], [q("SELEC 1")], [q("SELECT 1")], [q("COMMIT")], [q("SELECT 1")]),
	says(
		"BEGIN and what is no SQL, extended",
		run("BEGIN"),
		run("SELEC 1"),
		run("SELECT 1"),
		run("COMMIT"),
		run("SELECT 1"),
	),
	says("BEGIN that is no SQL", [q("BEGIN ISOLATION LEVEL NONE")], run("BEGIN NOTHING"), [q("SELECT 1")]),
	says("BEGIN and an empty query", [q("BEGIN")], [q("")], run(""), [q("COMMIT")]),
	says(
		"BEGIN, and the first statement fails",
		[q("BEGIN")],
		[q("SELECT 1/0")],
		[q("SELECT 1")],
		[q("ROLLBACK")],
		[q("SELECT 1")],
	),
	says(
		"BEGIN, and the first statement is not there",
		[q("BEGIN")],
		[f.bind({ statement: "never" }), f.execute(), sync],
		[q("COMMIT")],
	),

	says(
		"SET TRANSACTION first",
		[q("BEGIN")],
		[q("SET TRANSACTION READ ONLY")],
		[IS_READ_ONLY],
		[q("COMMIT")],
		[IS_READ_ONLY],
	),
	says(
		"SET TRANSACTION twice",
		[q("BEGIN -- held")],
		[q("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ -- so")],
		[q("SET TRANSACTION READ ONLY, DEFERRABLE")],
		[MODES],
		[IS_READ_ONLY],
		[q("COMMIT")],
	),
	says(
		"SET TRANSACTION back and forth",
		[q("BEGIN READ ONLY")],
		[q("SET TRANSACTION READ WRITE")],
		[IS_READ_ONLY],
		[q("INSERT INTO t VALUES (301, 'x')")],
		[q("ROLLBACK")],
	),
	says(
		"SET TRANSACTION SERIALIZABLE of a reader",
		[q("BEGIN READ ONLY")],
		[q("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")],
		[q("SET TRANSACTION READ ONLY")],
		[MODES],
		[q("COMMIT")],
	),
	says(
		"SERIALIZABLE, then READ ONLY",
		[q("BEGIN ISOLATION LEVEL SERIALIZABLE")],
		[q("SET TRANSACTION READ ONLY")],
		[MODES],
		[q("COMMIT")],
	),
	says("SET TRANSACTION extended", run("BEGIN"), run("SET TRANSACTION READ ONLY"), run("SELECT 1"), run("COMMIT")),
	says(
		"SET TRANSACTION after a query",
		[q("BEGIN")],
		[q("SELECT count(*) FROM t WHERE id < 5")],
		[q("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")],
		[q("ROLLBACK")],
	),
	says(
		"SET TRANSACTION READ WRITE after a query of a reader",
		[q("BEGIN READ ONLY")],
		[q("SELECT count(*) FROM t WHERE id < 5")],
		[q("SET TRANSACTION READ WRITE")],
		[q("ROLLBACK")],
	),
	says("SET TRANSACTION without a transaction", [q("SET TRANSACTION READ ONLY")], run("SET TRANSACTION READ ONLY"), [
		MODES,
	]),
	says(
		"SET TRANSACTION SNAPSHOT of nowhere",
		[q("BEGIN ISOLATION LEVEL REPEATABLE READ")],
		[q("SET TRANSACTION SNAPSHOT '00000003-0000001B-1'")],
		[q("SELECT 1")],
		[q("ROLLBACK")],
	),
	says("SET TRANSACTION that is no SQL", [q("BEGIN")], [q("SET TRANSACTION NOTHING")], [q("ROLLBACK")]),
	says("SET transaction_read_only", [q("BEGIN")], [q("SET transaction_read_only = on")], [IS_READ_ONLY], [q("COMMIT")]),
	says(
		"SET LOCAL and SHOW first",
		[q("BEGIN")],
		[q("SET LOCAL work_mem = '3MB'")],
		[q("SHOW work_mem")],
		[q("COMMIT")],
		[q("SHOW work_mem")],
	),
	says(
		"default_transaction_isolation of the session",
		[q("SET default_transaction_isolation = 'serializable'")],
		[q("SELECT 1")],
		[q("SELECT 2")],
		[q("BEGIN READ ONLY")],
		[MODES],
		[q("COMMIT")],
		[q("RESET default_transaction_isolation")],
	),
	says(
		"SESSION CHARACTERISTICS",
		[q("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")],
		[MODES],
		[MODES],
		[IS_READ_ONLY],
		[q("BEGIN")],
		[MODES],
		[q("COMMIT")],
		[q("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")],
		[MODES],
	),

	says(
		"SAVEPOINT first",
		[q("BEGIN")],
		[q("SAVEPOINT a")],
		[q("SELECT 1/0")],
		[q("ROLLBACK TO a")],
		[q("SELECT 1")],
		[q("COMMIT")],
	),
	says(
		"ROLLBACK TO and RELEASE first",
		[q("BEGIN")],
		[q("ROLLBACK TO a")],
		[q("ROLLBACK")],
		[q("BEGIN")],
		[q("RELEASE a")],
		[q("ROLLBACK")],
	),
	says(
		"COMMIT AND CHAIN first",
		[q("BEGIN READ ONLY")],
		[q("COMMIT AND CHAIN")],
		[IS_READ_ONLY],
		[q("COMMIT AND CHAIN")],
		[IS_READ_ONLY],
		[q("COMMIT")],
		[IS_READ_ONLY],
	),
	says(
		"ROLLBACK AND CHAIN first",
		[q("BEGIN ISOLATION LEVEL REPEATABLE READ")],
		[q("ROLLBACK AND CHAIN")],
		[q("ROLLBACK AND CHAIN")],
		[MODES],
		[q("ROLLBACK AND NO CHAIN")],
		[MODES],
	),
	says(
		"ROLLBACK AND CHAIN after an error",
		[q("BEGIN READ ONLY")],
		[q("SELECT 1/0")],
		[q("ROLLBACK AND CHAIN")],
		[q("SELECT 1")],
		[q("ROLLBACK")],
	),
	says("PREPARE TRANSACTION first", [q("BEGIN")], [q("PREPARE TRANSACTION 'two'")], [q("SELECT 1")], [q("ROLLBACK")]),
	says(
		"DISCARD ALL in a transaction",
		[q("BEGIN")],
		[q("DISCARD ALL")],
		[q("SELECT 1")],
		[q("ROLLBACK")],
		[q("DISCARD ALL")],
	),
	says(
		"RESET ALL in a transaction",
		[q("BEGIN")],
		[q("SET LOCAL work_mem = '3MB'")],
		[q("RESET ALL")],
		[q("SHOW work_mem")],
		[q("ROLLBACK")],
	),
	says("LOCK first", [q("BEGIN")], [q("LOCK TABLE t IN ACCESS SHARE MODE")], [q("COMMIT")]),
	says(
		"a cursor first",
		[q("BEGIN")],
		[q("DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id")],
		[q("FETCH 2 FROM c")],
		[q("COMMIT")],
		[q("FETCH 2 FROM c")],
	),
	says(
		"PREPARE and EXECUTE first",
		[q("BEGIN")],
		[q("PREPARE held AS SELECT 7")],
		[q("EXECUTE held")],
		[q("DEALLOCATE held")],
		[q("COMMIT")],
	),
	says("COPY out of a transaction first", [q("BEGIN")], [q("COPY (SELECT 1, 'a') TO STDOUT")], [q("COMMIT")]),
	script("COPY into a transaction first", async (t) => {
		await t.say(q("BEGIN"));
		await t.upTo("G", q("COPY t FROM STDIN"));
		await t.say(f.copyData("302\tcopied\n"), f.copyDone());
		await t.say(q("ROLLBACK"));
		await t.say(q("SELECT count(*) FROM t WHERE id = 302"));
	}),
	says("FunctionCall first", [q("BEGIN")], [f.functionCall(177, [int32(40), int32(2)], [1], 1)], [q("COMMIT")]),
	says("FunctionCall of nothing first", [q("BEGIN")], [f.functionCall(999999, [])], [q("COMMIT")]),
	says(
		"notices first",
		[q("BEGIN")],
		[q("SELECT noisy(1)")],
		[q("DO $$ BEGIN RAISE NOTICE 'n'; END $$")],
		[q("COMMIT")],
	),
	says("VACUUM first", [q("BEGIN")], [q("VACUUM t")], [q("ROLLBACK")]),
	says("a constraint that fails at COMMIT", run("BEGIN"), run("INSERT INTO child VALUES (2)"), run("COMMIT"), [
		q("SELECT 1"),
	]),
	says(
		"a write in a READ ONLY transaction",
		[q("BEGIN READ ONLY")],
		[q("INSERT INTO t VALUES (304, 'x')")],
		[q("COMMIT")],
	),
	says(
		"FOR UPDATE in a READ ONLY transaction",
		[q("BEGIN READ ONLY")],
		[q("SELECT id FROM t FOR UPDATE")],
		[q("COMMIT")],
	),

	says("BEGIN; SELECT in one Query", [q("BEGIN; SELECT 1")], [q("COMMIT")]),
	says("BEGIN; COMMIT in one Query", [q("BEGIN; COMMIT")], [q("SELECT 1")]),
	differsSharded(
		"a string for one shard begins a transaction there alone",
		says("SELECT; BEGIN in one Query", [q("SELECT 1; BEGIN")], [q("SELECT 2")], [q("COMMIT")]),
	),
	says("COMMIT; BEGIN in one Query", [q("BEGIN")], [q("COMMIT; BEGIN")], [q("SELECT 2")], [q("ROLLBACK; SELECT 1")]),
	says("COMMIT; SELECT of a transaction with nothing in it", [q("BEGIN")], [q("COMMIT; SELECT 1")]),
	says("BEGIN; and an error in one Query", [q("BEGIN; SELECT 1/0; SELECT 2")], [q("SELECT 1")], [q("ROLLBACK")]),
	says("several Query messages in one write", [q("BEGIN"), q("SELECT 1"), q("COMMIT"), q("BEGIN"), q("ROLLBACK")]),
	says("an error among several Query messages", [
		q("BEGIN"),
		q("SELECT 1/0"),
		q("SELECT 1"),
		q("COMMIT"),
		q("SELECT 2"),
	]),
	says("Query, then a batch, in one write", [q("BEGIN"), ...ask("SELECT 1"), sync, ...part("COMMIT"), sync]),

	says(
		"named BEGIN, used again",
		[f.parse("BEGIN", "b"), f.bind({ statement: "b" }), f.execute(), sync],
		run("COMMIT"),
		[f.bind({ statement: "b" }), f.execute(), sync],
		[...ask("SELECT 1"), sync],
		run("ROLLBACK"),
		[f.close("S", "b"), sync],
		[f.bind({ statement: "b" }), sync],
	),
	says(
		"a named BEGIN parsed twice",
		[f.parse("BEGIN", "b2"), sync],
		[f.parse("BEGIN", "b2"), f.bind({ statement: "b2" }), f.execute(), sync],
		run("SELECT 1"),
		run("COMMIT"),
	),
	says(
		"BEGIN described",
		[f.parse("BEGIN"), f.describe("S"), f.bind(), f.describe("P"), f.execute(), sync],
		run("COMMIT"),
	),
	says(
		"BEGIN prepared before",
		[f.parse("BEGIN", "b3"), f.describe("S", "b3"), sync],
		[f.bind({ statement: "b3" }), f.describe("P"), f.execute(), sync],
		[...ask("SELECT 1"), sync],
		run("COMMIT"),
	),
	script("BEGIN with Flush", async (t) => {
		await t.upTo("C", f.parse("BEGIN"), f.bind(), f.execute(), flush);
		await t.say(sync);
		await t.say(...ask("SELECT 1"), sync);
		await t.say(...run("COMMIT"));
	}),
	script("Parse and Describe of BEGIN with Flush, then the rest", async (t) => {
		await t.upTo("n", f.parse("BEGIN", "b4"), f.describe("S", "b4"), flush);
		await t.say(f.bind({ statement: "b4" }), f.execute(), sync);
		await t.say(...ask("SELECT 1"), sync);
		await t.say(...run("COMMIT"));
	}),
	says(
		"BEGIN with a parameter too many",
		[f.parse("BEGIN"), f.bind({ values: ["1"] }), f.execute(), sync],
		[q("SELECT 1")],
		[q("ROLLBACK")],
	),
	says(
		"BEGIN through a named portal",
		[f.parse("BEGIN"), f.bind({ portal: "p" }), f.execute("p"), sync],
		[q("SELECT 1")],
		[q("COMMIT")],
	),
	says(
		"BEGIN through the wrong portal",
		[f.parse("BEGIN"), f.bind({ portal: "p" }), f.execute(), sync],
		[q("SELECT 1")],
	),
	says(
		"BEGIN of the wrong statement",
		[f.parse("BEGIN", "b5"), f.bind({ statement: "b6" }), f.execute(), sync],
		[q("SELECT 1")],
	),
	says(
		"BEGIN that is described by the wrong name",
		[f.parse("BEGIN"), f.describe("S", "b7"), f.bind(), f.execute(), sync],
		[q("SELECT 1")],
	),
	says(
		"BEGIN and Close in one batch",
		[f.parse("BEGIN"), f.bind(), f.execute(), f.close("P"), f.close("S"), sync],
		[q("SELECT 1")],
		[q("COMMIT")],
	),
	says(
		"a result format for BEGIN",
		[f.parse("BEGIN"), f.bind({ resultFormats: [1] }), f.execute(), sync],
		[q("SELECT 1")],
		[q("COMMIT")],
	),
	says(
		"BEGIN executed twice",
		[f.parse("BEGIN"), f.bind(), f.execute(), f.execute(), sync],
		[q("SELECT 1")],
		[q("ROLLBACK")],
	),
	says("BEGIN bound twice", [f.parse("BEGIN"), f.bind(), f.execute(), f.bind(), f.execute(), sync], [q("COMMIT")]),
	says(
		"the unnamed statement after BEGIN",
		run("BEGIN"),
		[f.bind(), f.execute(), sync],
		[q("COMMIT")],
		[f.bind(), sync],
	),
	says(
		"the unnamed statement before BEGIN",
		[f.parse("SELECT 5"), sync],
		[q("BEGIN")],
		[f.bind(), f.execute(), sync],
		[q("ROLLBACK")],
	),
	says("BEGIN and statements in one batch", [...part("BEGIN"), ...ask("SELECT 1"), sync], run("COMMIT")),
	says("BEGIN, a write and COMMIT in one batch", [
		...part("BEGIN"),
		...part("INSERT INTO t VALUES (305, 'x')"),
		...part("ROLLBACK"),
		sync,
	]),
	says(
		"BEGIN and what fails in one batch",
		[...part("BEGIN"), ...part("SELECT 1/0"), ...part("SELECT 1"), sync],
		[q("SELECT 1")],
		[q("ROLLBACK")],
	),
	says("Parse that fails behind BEGIN", [...part("BEGIN"), f.parse("SELEC"), sync], [q("COMMIT")]),
	says("BEGIN that is no SQL in a batch", [...part("BEGIN AGAIN"), ...part("SELECT 1"), sync], [q("SELECT 1")]),
	says("several batches in one write", [
		...run("BEGIN"),
		...ask("SELECT 1"),
		sync,
		...run("COMMIT"),
		...run("SELECT 2"),
	]),
	says("Sync alone in a transaction", [q("BEGIN")], [sync], [sync, sync], [q("COMMIT")], [sync]),
	says("Close alone in a transaction", [q("BEGIN")], [f.close("S", "nothing"), sync], [q("COMMIT")]),
	says(
		"Parse alone in a transaction",
		[q("BEGIN")],
		[f.parse("SELECT 6", "alone"), sync],
		[f.bind({ statement: "alone" }), f.execute(), sync],
		[q("COMMIT")],
		[f.close("S", "alone"), sync],
	),
	script("BEGIN in two writes", async (t) => {
		for (const at of [1, 5, 8]) {
			await t.split(at, q("BEGIN"));
			await t.say(q("SELECT 1"));
			await t.split(at, ...run("COMMIT"));
		}
	}),
	says(
		"portals live to the end of the transaction",
		run("BEGIN"),
		[f.parse("SELECT id FROM t ORDER BY id"), f.bind({ portal: "rows" }), f.execute("rows", 2), sync],
		[f.execute("rows", 2), sync],
		run("COMMIT"),
		[f.execute("rows", 2), sync],
	),
	script("Terminate after BEGIN", async (t) => {
		await t.say(q("BEGIN"));
		await t.end(f.terminate());
	}),
	says(
		"now() does not move within a transaction",
		[q("BEGIN")],
		[q("SELECT now() = now()")],
		[q("SELECT transaction_timestamp() = now(), statement_timestamp() >= now()")],
		[q("COMMIT")],
	),
];
