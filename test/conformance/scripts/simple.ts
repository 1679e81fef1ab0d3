// The simple protocol: Query, its answers, its errors, transaction states.

import { message } from "../../support/wire-frames.ts";
import { q, type Script, says, script } from "../script.ts";

export const SIMPLE: Script[] = [
	says("a query", [q("SELECT id, name FROM t ORDER BY id LIMIT 3")]),
	says("an empty query", [q("")], [q(" ; ")], [q("-- nothing")], [q("/* nothing */")]),
	says("several statements in one Query", [
		q("SELECT 1; SELECT 2 AS two; INSERT INTO t VALUES (100, 'x'); DELETE FROM t WHERE id = 100"),
	]),
	says(
		"an error in the second of three statements undoes the first",
		[q("INSERT INTO t VALUES (100, 'x'); SELECT 1/0; SELECT 3")],
		[q("SELECT count(*) FROM t")],
	),
	says("a syntax error, with its position", [q("SELEC 1")], [q("SELECT 1")]),
	says("an unknown table and column", [q("SELECT * FROM nowhere")], [q("SELECT nothing FROM t")]),
	says(
		"a constraint that is violated, with all fields",
		[q("INSERT INTO t VALUES (1, 'again')")],
		[q("INSERT INTO t VALUES (NULL, 'x')")],
	),
	says(
		"a deferred constraint fails at COMMIT",
		[q("BEGIN")],
		[q("INSERT INTO child VALUES (1)")],
		[q("COMMIT")],
		[q("SELECT 1")],
	),
	says("a transaction block, its states", [q("BEGIN")], [q("SELECT 1")], [q("COMMIT")], [q("BEGIN")], [q("ROLLBACK")]),
	says(
		"a failed transaction refuses all but its end",
		[q("BEGIN")],
		[q("SELECT 1/0")],
		[q("SELECT 1")],
		[q("COMMIT")],
		[q("SELECT 1")],
	),
	says(
		"savepoints",
		[q("BEGIN; SAVEPOINT a")],
		[q("SELECT 1/0")],
		[q("ROLLBACK TO a")],
		[q("SELECT 1; RELEASE a")],
		[q("COMMIT AND CHAIN")],
		[q("ROLLBACK")],
	),
	says(
		"warnings: COMMIT and BEGIN where they have nothing to do",
		[q("COMMIT")],
		[q("ROLLBACK")],
		[q("BEGIN; BEGIN")],
		[q("END")],
	),
	says("notices of functions and of DDL", [q("SELECT noisy(1), noisy(2)")], [q("DROP TABLE IF EXISTS never_there")]),
	says("a procedure that commits", [q("CALL commits()")]),
	says(
		"transaction control among several statements",
		[q("BEGIN; SELECT 1; COMMIT; SELECT 2")],
		[q("BEGIN; SELECT 1/0; COMMIT; SELECT 2")],
		[q("ROLLBACK")],
	),
	says("Queries one behind the other in one write", [q("SELECT 1"), q("SELECT 1/0"), q("SELECT 3"), q("")]),
	says(
		"a hundred Queries in one write",
		Array.from({ length: 100 }, (_, i) => q(i % 7 === 3 ? "SELECT 1/0" : `SELECT ${i}`)),
	),
	says("a transaction in one write", [
		q("BEGIN"),
		q("INSERT INTO t VALUES (101, 'y')"),
		q("SELECT count(*) FROM t"),
		q("ROLLBACK"),
	]),
	says(
		"EXPLAIN, VALUES, TABLE, SHOW",
		[q("EXPLAIN (COSTS OFF) SELECT 1")],
		[q("VALUES (1, NULL), (2, 'b')")],
		[q("TABLE parent")],
		[q("SHOW transaction_isolation")],
	),
	says("a row of many columns and NULLs", [
		q(`SELECT ${Array.from({ length: 1600 }, (_, i) => (i % 3 ? i : "NULL")).join(",")}`),
	]),
	says("large rows", [q("SELECT repeat('x', 3000000), repeat('y', 200000) FROM generate_series(1, 3)")]),
	says("many rows", [q("SELECT i, 'row ' || i FROM generate_series(1, 20000) i")]),
	says("a large query text", [q(`SELECT length('${"z".repeat(3_000_000)}')`)], [q("SELECT 1")]),
	says("an error behind many rows", [q("SELECT 1 / (5000 - i) FROM generate_series(1, 10000) i")], [q("SELECT 1")]),
	says(
		"a text that is not UTF-8",
		[message("Q", Uint8Array.from([...Buffer.from("SELECT '"), 0xff, 0xfe, ...Buffer.from("'\0")]))],
		[q("SELECT 1")],
	),
	says("names and values beyond ASCII", [q("SELECT 'žluťoučký 🐕' AS \"kůň 🐎\"")]),
	script("a Query in two writes, cut at each byte of its head", async (t) => {
		for (let at = 1; at < 12; at++) await t.split(at, q("SELECT 'cut'"));
	}),
];
