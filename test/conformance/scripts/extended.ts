// The extended protocol: Parse, Bind, Describe, Execute, Close, Flush and Sync in every order that means something.

import { frontend as f, int32 } from "../../support/wire-frames.ts";
import { ask, flush, OID, q, type Script, says, script, sync } from "../script.ts";

export const EXTENDED: Script[] = [
	says("an unnamed statement", [...ask("SELECT $1::int + 1", ["41"]), sync]),
	says("without Describe", [f.parse("SELECT 1"), f.bind(), f.execute(), sync]),
	says("Sync alone", [sync], [sync, sync, sync]),
	says(
		"Parse alone, used in later requests",
		[f.parse("SELECT $1::text"), sync],
		[f.describe("S"), sync],
		[f.bind({ values: ["a"] }), f.execute(), sync],
		[f.bind({ values: ["b"] }), f.describe("P"), f.execute(), sync],
	),
	says(
		"a named statement over several requests",
		[f.parse("SELECT $1::int * 2 AS twice", "s1"), sync],
		[f.describe("S", "s1"), sync],
		[f.bind({ statement: "s1", values: ["4"] }), f.execute(), sync],
		[f.bind({ statement: "s1", values: ["5"] }), f.describe("P"), f.execute(), sync],
		[f.close("S", "s1"), sync],
		[f.bind({ statement: "s1", values: ["5"] }), f.execute(), sync],
	),
	says(
		"types given by the client",
		[f.parse("SELECT $1, $2", "typed", [OID.int8, OID.bytea]), f.describe("S", "typed"), sync],
		[f.bind({ statement: "typed", values: ["1", "\\x00ff"] }), f.describe("P"), f.execute(), sync],
		[f.close("S", "typed"), sync],
	),
	says(
		"the same text with other types is another statement",
		[
			f.parse("SELECT $1", "a", [OID.int4]),
			f.parse("SELECT $1", "b", [OID.text]),
			f.describe("S", "a"),
			f.describe("S", "b"),
			sync,
		],
		[f.close("S", "a"), f.close("S", "b"), sync],
	),
	says("binary parameters and results", [
		f.parse("SELECT $1::int4, $2::text, $3::bool"),
		f.bind({ formats: [1], values: [int32(7), "t", Uint8Array.of(1)], resultFormats: [1, 0, 1] }),
		f.describe("P"),
		f.execute(),
		sync,
	]),
	says("NULL and empty parameters", [...ask("SELECT $1::text IS NULL, $2::text = ''", [null, ""]), sync]),
	says("an empty statement", [f.parse(""), f.describe("S"), f.bind(), f.describe("P"), f.execute(), sync]),
	says(
		"statements that return nothing",
		[
			f.parse("INSERT INTO t VALUES ($1, $2)"),
			f.describe("S"),
			f.bind({ values: ["102", "z"] }),
			f.describe("P"),
			f.execute(),
			sync,
		],
		[...ask("DELETE FROM t WHERE id = $1", ["102"]), sync],
	),
	says("INSERT RETURNING", [
		...ask("INSERT INTO t VALUES (103, 'r') RETURNING id, name"),
		...ask("DELETE FROM t WHERE id = 103 RETURNING *"),
		sync,
	]),
	says(
		"a duplicate name",
		[f.parse("SELECT 1", "dup"), sync],
		[f.parse("SELECT 2", "dup"), sync],
		[f.bind({ statement: "dup" }), f.execute(), sync],
		[f.close("S", "dup"), sync],
	),
	says(
		"a duplicate name in one pipeline",
		[f.parse("SELECT 1", "dup2"), f.parse("SELECT 1", "dup2"), f.bind({ statement: "dup2" }), f.execute(), sync],
		[f.bind({ statement: "dup2" }), f.execute(), sync],
		[f.close("S", "dup2"), sync],
	),
	says(
		"unknown statement and portal names",
		[f.bind({ statement: "nope" }), sync],
		[f.describe("S", "nope"), sync],
		[f.describe("P", "nope"), sync],
		[f.execute("nope"), sync],
		[f.describe("S"), sync],
	),
	says(
		"Close of what is not there",
		[f.close("S", "nope"), sync],
		[f.close("P", "nope"), sync],
		[f.close("S"), sync],
		[f.close("P"), sync],
	),
	says(
		"Close in a pipeline, then the name anew",
		[
			f.parse("SELECT 1", "c"),
			f.close("S", "c"),
			f.parse("SELECT 'anew'", "c"),
			f.bind({ statement: "c" }),
			f.execute(),
			sync,
		],
		[f.bind({ statement: "c" }), f.execute(), sync],
		[f.close("S", "c"), sync],
	),
	says(
		"Close of the unnamed statement",
		[f.parse("SELECT 1"), sync],
		[f.close("S"), sync],
		[f.bind(), f.execute(), sync],
	),
	says(
		"a Query ends the unnamed statement",
		[f.parse("SELECT 1"), sync],
		[q("SELECT 2")],
		[f.bind(), f.execute(), sync],
	),
	says(
		"a failed Parse leaves no unnamed statement",
		[f.parse("SELECT 1"), sync],
		[f.parse("SELEC 1"), sync],
		[f.bind(), f.execute(), sync],
	),
	says(
		"an unnamed Parse behind an error was not done",
		[f.parse("SELECT 'A'"), sync],
		[f.execute("nope"), f.parse("SELECT 'B'"), sync],
		[f.bind(), f.execute(), sync],
	),
	says(
		"a failed Parse leaves no named statement",
		[f.parse("SELEC 1", "bad"), sync],
		[f.describe("S", "bad"), sync],
		[f.parse("SELECT 'good'", "bad"), f.bind({ statement: "bad" }), f.execute(), sync],
		[f.close("S", "bad"), sync],
	),
	says(
		"a Parse behind an error was not done",
		[f.parse("SELECT 1/0"), f.bind(), f.execute(), f.parse("SELECT 1", "behind"), sync],
		[f.bind({ statement: "behind" }), f.execute(), sync],
		[f.parse("SELECT 'now'", "behind"), f.bind({ statement: "behind" }), f.execute(), sync],
		[f.close("S", "behind"), sync],
	),
	says(
		"a Close behind an error was not done",
		[f.parse("SELECT 'still here'", "kept"), sync],
		[...ask("SELECT 1/0"), f.close("S", "kept"), sync],
		[f.bind({ statement: "kept" }), f.execute(), sync],
		[f.close("S", "kept"), sync],
	),
	says(
		"Close and Parse of a name behind an error",
		[f.parse("SELECT 'old'", "swap"), sync],
		[...ask("SELECT 1/0"), f.close("S", "swap"), f.parse("SELECT 'new'", "swap"), sync],
		[f.bind({ statement: "swap" }), f.execute(), sync],
		[f.close("S", "swap"), sync],
	),
	says(
		"the wrong number of parameters",
		[f.parse("SELECT $1::int", "n"), sync],
		[f.bind({ statement: "n" }), f.execute(), sync],
		[f.bind({ statement: "n", values: ["1", "2"] }), sync],
		[f.bind({ values: ["1", "2"] }), sync],
		[f.close("S", "n"), sync],
	),
	says(
		"a value that is not of its type",
		[...ask("SELECT $1::int", ["x"]), sync],
		[f.parse("SELECT $1::int"), f.bind({ formats: [1], values: [Uint8Array.of(1, 2)] }), f.execute(), sync],
	),
	says(
		"errors at each step of a pipeline",
		...["SELEC", "SELECT 1/0", "SELECT $1::int", "SELECT nothing"].flatMap((sql) => [
			[...ask("SELECT 1"), ...ask(sql), ...ask("SELECT 3"), sync],
			[...ask("SELECT 4"), sync],
		]),
	),
	says("several Syncs: an error ends at the first", [
		...ask("SELECT 1/0"),
		...ask("SELECT 2"),
		sync,
		...ask("SELECT 3"),
		sync,
		...ask("SELECT nothing"),
		sync,
		...ask("SELECT 5"),
		sync,
	]),
	says(
		"a pipeline 500 deep with errors in the middle",
		Array.from({ length: 500 }, (_, i) =>
			i % 50 === 20
				? [...ask("SELECT 1/0"), sync]
				: i % 3
					? [...ask("SELECT $1::int", [String(i)])]
					: [...ask("SELECT $1::text", [`v${i}`]), sync],
		)
			.flat()
			.concat([sync]),
	),
	says(
		"a pipeline is one transaction",
		[...ask("INSERT INTO t VALUES (104, 'p')"), ...ask("SELECT count(*) FROM t"), ...ask("SELECT 1/0"), sync],
		[...ask("SELECT count(*) FROM t"), sync],
	),
	says(
		"BEGIN and COMMIT in a pipeline",
		[...ask("BEGIN"), ...ask("SELECT 1"), sync],
		[...ask("SELECT 2"), sync],
		[...ask("COMMIT"), sync],
	),
	says(
		"a failed transaction, extended",
		[...ask("BEGIN"), sync],
		[...ask("SELECT 1/0"), sync],
		[...ask("SELECT 1"), sync],
		[f.parse("SELECT 1", "infailed"), sync],
		[...ask("ROLLBACK"), sync],
		[f.bind({ statement: "infailed" }), sync],
	),
	says(
		"portals with a row limit in a transaction",
		[...ask("BEGIN"), sync],
		[f.parse("SELECT id FROM t ORDER BY id"), f.bind({ portal: "p" }), f.execute("p", 3), sync],
		[f.execute("p", 3), sync],
		[f.execute("p", 100), sync],
		[f.execute("p", 1), sync],
		[f.close("P", "p"), sync],
		[f.execute("p"), sync],
		[...ask("ROLLBACK"), sync],
	),
	says("a portal with a row limit within one request", [
		f.parse("SELECT id FROM t ORDER BY id"),
		f.bind(),
		f.execute("", 2),
		f.execute("", 2),
		f.execute("", 0),
		sync,
	]),
	says(
		"a portal ends with its transaction",
		[f.parse("SELECT 1"), f.bind({ portal: "gone" }), f.execute("gone", 1), sync],
		[f.execute("gone"), sync],
	),
	says(
		"several portals interleaved",
		[
			...ask("BEGIN"),
			f.parse("SELECT id FROM t ORDER BY id", "by_id"),
			f.bind({ portal: "p1", statement: "by_id" }),
			f.bind({ portal: "p2", statement: "by_id" }),
			f.execute("p1", 1),
			f.execute("p2", 2),
			f.execute("p1", 1),
			sync,
		],
		[f.execute("p2", 1), f.describe("P", "p1"), f.execute("p1", 1), sync],
		[...ask("COMMIT"), f.close("S", "by_id"), sync],
	),
	says(
		"a duplicate portal",
		[...ask("BEGIN"), f.parse("SELECT 1"), f.bind({ portal: "twice" }), f.bind({ portal: "twice" }), sync],
		[...ask("ROLLBACK"), sync],
	),
	script("a Query in the middle of a batch that has failed is skipped with it", async (t) => {
		await t.upTo("Z", f.parse("SELEC"), q("SELECT 1"), f.bind(), f.execute(), sync);
		await t.upTo("Z", ...ask("SELECT 1/0"), q("COPY parent FROM STDIN"), ...ask("SELECT 2"), q("SELECT 3"), sync);
		await t.say(f.parse("SELECT 4", "four"), sync);
		await t.upTo("Z", f.parse("SELEC"), q("DEALLOCATE four"), sync);
		await t.say(q("SELECT 5"));
		await t.say(f.close("S", "four"), sync);
	}),
	script("Flush brings what has come so far", async (t) => {
		await t.upTo("1", f.parse("SELECT $1::int"), flush);
		await t.upTo("T", f.describe("S"), flush);
		await t.upTo("2", f.bind({ values: ["1"] }), flush);
		await t.upTo("C", f.execute(), flush);
		await t.say(sync);
	}),
	script("Flush of named statements, each answer alone", async (t) => {
		await t.upTo("1", f.parse("SELECT $1::int", "fl"), flush);
		await t.upTo("T", f.describe("S", "fl"), flush);
		await t.upTo("2", f.bind({ statement: "fl", values: ["1"] }), flush);
		await t.upTo("D", f.execute(), flush);
		await t.upTo("C");
		await t.say(sync);
		await t.upTo("2", f.bind({ statement: "fl", values: ["2"] }), flush);
		await t.upTo("3", f.close("S", "fl"), flush);
		await t.say(f.execute(), sync);
		await t.upTo("E", f.bind({ statement: "fl", values: ["2"] }), flush);
		await t.say(sync);
	}),
	script("an error at a Flush, more messages, then Sync", async (t) => {
		await t.upTo("E", f.parse("SELEC"), flush);
		await t.say(f.parse("SELECT 1", "dropped"), f.bind({ statement: "dropped" }), f.execute(), sync);
		await t.say(f.describe("S", "dropped"), sync);
	}),
	script("Parse of a known text, then Flush", async (t) => {
		await t.say(f.parse("SELECT 'known'", "k1"), sync);
		await t.upTo("1", f.parse("SELECT 'known'", "k2"), flush);
		await t.upTo("3", f.close("S", "k1"), flush);
		await t.say(f.bind({ statement: "k2" }), f.execute(), sync);
		await t.say(f.close("S", "k2"), sync);
	}),
	says("Query inside an unfinished pipeline", [...ask("SELECT 1"), q("SELECT 2")], [sync]),
	says("Query behind an error in a pipeline is skipped up to Sync", [...ask("SELECT 1/0"), sync, q("SELECT 2")]),
	says("Execute twice of a finished portal", [f.parse("SELECT 1"), f.bind(), f.execute(), f.execute(), sync]),
	says(
		"Execute twice of an INSERT's portal",
		[f.parse("INSERT INTO t VALUES (105, 'e')"), f.bind(), f.execute(), f.execute(), sync],
		[q("SELECT count(*) FROM t WHERE id = 105")],
	),
	says(
		"large parameters",
		[...ask("SELECT length($1), md5($1)", ["p".repeat(3_000_000)]), sync],
		[...ask("SELECT 1"), sync],
	),
	says(
		"a large parameter of a named statement",
		[f.parse("SELECT length($1::text)", "big"), sync],
		[f.bind({ statement: "big", values: ["b".repeat(2_500_000)] }), f.execute(), sync],
		[f.bind({ statement: "big", values: ["b"] }), f.execute(), sync],
		[f.close("S", "big"), sync],
	),
	says(
		"a large Parse",
		[f.parse(`SELECT length('${"y".repeat(1_500_000)}')`, "long"), f.bind({ statement: "long" }), f.execute(), sync],
		[f.close("S", "long"), sync],
	),
	says("thousands of parameters", [
		...ask(
			`SELECT ${Array.from({ length: 1500 }, (_, i) => `$${i + 1}::int`).join("+")}`,
			Array.from({ length: 1500 }, (_, i) => String(i)),
		),
		sync,
	]),
	says(
		"Describe of statements of all sorts",
		...[
			"SELECT 1",
			"INSERT INTO t VALUES ($1, $2)",
			"BEGIN",
			"SHOW work_mem",
			"FETCH 1 FROM none",
			"EXPLAIN SELECT 1",
		].map((sql) => [f.parse(sql), f.describe("S"), sync]),
	),
	script("an extended request in two writes, cut at many places", async (t) => {
		const frames = [...ask("SELECT $1::int", ["7"]), sync];
		for (const at of [1, 4, 5, 6, 20, 25, 30, 40, 45, 50, 55, 60]) await t.split(at, ...frames);
		const named = [
			f.parse("SELECT $1::int", "cut"),
			f.bind({ statement: "cut", values: ["7"] }),
			f.describe("P"),
			f.execute(),
			f.close("S", "cut"),
			sync,
		];
		for (const at of [1, 4, 5, 8, 20, 28, 33, 40, 50, 55, 60, 70]) await t.split(at, ...named);
	}),
	says(
		"a statement name that looks like a number, and a long one",
		[f.parse("SELECT 1", "1"), f.parse("SELECT 2", "n".repeat(300)), sync],
		[f.bind({ statement: "n".repeat(300) }), f.execute(), f.close("S", "n".repeat(300)), f.close("S", "1"), sync],
	),
	says(
		"an error text that quotes the statement's name",
		[f.parse("SELECT $1::int", "named one"), sync],
		[f.bind({ statement: "named one" }), sync],
		[f.close("S", "named one"), sync],
	),
	says(
		"the table changes under a statement",
		[q("CREATE TABLE changing (a int)")],
		[f.parse("SELECT * FROM changing", "star"), f.bind({ statement: "star" }), f.execute(), sync],
		[q("ALTER TABLE changing ADD b int")],
		[f.bind({ statement: "star" }), f.execute(), sync],
		[f.close("S", "star"), sync],
		[f.parse("SELECT * FROM changing", "star"), f.bind({ statement: "star" }), f.describe("P"), f.execute(), sync],
		[f.close("S", "star"), sync],
		[q("DROP TABLE changing")],
	),
];
