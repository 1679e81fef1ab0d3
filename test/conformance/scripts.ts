// What conformance.test.ts says to PostgreSQL straight and through the proxy: message sequences of the extended and simple
// protocol, COPY, errors, cursors, settings. A script only sends and waits; what came back is compared as text.

import { frontend as f, int32, message } from "../support/wire-frames.ts";

/** One side of the comparison: a connection that sends and remembers. */
export interface Talk {
	/** Sends the frames and reads until as many messages of type `until` have come as there are frames that end in one. */
	say(...frames: Uint8Array[]): Promise<void>;
	/** Sends the frames and reads to the first message of this type. */
	upTo(code: string, ...frames: Uint8Array[]): Promise<void>;
	/** Sends in two writes cut at `at`. */
	split(at: number, ...frames: Uint8Array[]): Promise<void>;
	/** Sends, then reads until the other side ends the connection. */
	end(...frames: Uint8Array[]): Promise<void>;
}

export interface Script {
	readonly name: string;
	run(talk: Talk): Promise<void>;
	/** Names of ParameterStatus that count; the others are left out. Default: all. */
	readonly parameters?: string[];
	/** Replaces what differs from run to run. */
	readonly mask?: (line: string) => string;
	/** Why what comes through the proxy is known to differ. It must differ, or this line is out of date. */
	readonly differs?: string;
	/** The same for a server connection that another client uses in between. */
	readonly differsShared?: string;
}

export const SCHEMA = `
	CREATE TABLE t (id int PRIMARY KEY, name text);
	INSERT INTO t SELECT i, 'name ' || i FROM generate_series(1, 20) i;
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
	CREATE FUNCTION noisy(n int) RETURNS int LANGUAGE plpgsql AS
		$$ BEGIN RAISE NOTICE 'noisy %', n; RAISE WARNING 'very noisy' USING DETAIL = 'd', HINT = 'h'; RETURN n; END $$;
	CREATE FUNCTION sets_application_name(v text) RETURNS void LANGUAGE plpgsql AS
		$$ BEGIN EXECUTE format('SET application_name = %L', v); END $$;
	CREATE PROCEDURE commits() LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO t VALUES (900, 'c'); COMMIT; DELETE FROM t WHERE id = 900; COMMIT; END $$;
`;

const OID = { bool: 16, bytea: 17, int8: 20, int4: 23, text: 25 };
const q = f.query;
const sync = f.sync();
const flush = f.flush();

/** Parse, Bind, Describe, Execute of the unnamed statement and portal. */
function ask(sql: string, values: (string | null)[] = []): Uint8Array[] {
	return [f.parse(sql), f.bind({ values }), f.describe("P"), f.execute()];
}

function script(name: string, run: (talk: Talk) => Promise<void>, options: Partial<Script> = {}): Script {
	return { name, run, ...options };
}

const says = (name: string, ...turns: Uint8Array[][]) =>
	script(name, async (t) => {
		for (const turn of turns) await t.say(...turn);
	});

const differs = (reason: string, known: Script): Script => ({ ...known, differs: reason });
const differsShared = (reason: string, known: Script): Script => ({ ...known, differsShared: reason });

const SIMPLE: Script[] = [
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

const EXTENDED: Script[] = [
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

const DEALLOCATE: Script[] = [
	says(
		"DEALLOCATE of a protocol statement",
		[f.parse("SELECT 1", "d"), sync],
		[q("DEALLOCATE d")],
		[f.bind({ statement: "d" }), sync],
		[q("DEALLOCATE d")],
		[f.parse("SELECT 2", "d"), f.bind({ statement: "d" }), f.execute(), sync],
		[q("DEALLOCATE PREPARE d")],
	),
	says(
		"DEALLOCATE in the extended protocol",
		[f.parse("SELECT 1", "d"), sync],
		[...ask("DEALLOCATE d"), sync],
		[f.bind({ statement: "d" }), sync],
	),
	says(
		"DEALLOCATE ALL",
		[f.parse("SELECT 1", "d1"), f.parse("SELECT 2", "d2"), sync],
		[q("DEALLOCATE ALL")],
		[f.bind({ statement: "d1" }), sync],
		[f.parse("SELECT 3", "d1"), f.bind({ statement: "d1" }), f.execute(), sync],
		[q("DEALLOCATE ALL")],
	),
	says("DEALLOCATE of an unknown name", [q("DEALLOCATE nobody")], [q('DEALLOCATE "No Body"')]),
	says(
		"DEALLOCATE in a failed transaction",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN")],
		[q("SELECT 1/0")],
		[q("DEALLOCATE d")],
		[q("ROLLBACK")],
		[f.bind({ statement: "d" }), f.execute(), sync],
		[q("DEALLOCATE d")],
	),
	says(
		"DEALLOCATE in a transaction that is rolled back is not undone",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN")],
		[q("DEALLOCATE d")],
		[q("ROLLBACK")],
		[f.bind({ statement: "d" }), f.execute(), sync],
	),
	differs(
		"only a Query that is nothing but DEALLOCATE is rewritten",
		says("DEALLOCATE among several statements", [f.parse("SELECT 1", "d"), sync], [q("SELECT 1; DEALLOCATE d")]),
	),
	says(
		"DEALLOCATE with a quoted name",
		[f.parse("SELECT 1", "Mixed Case"), sync],
		[q('DEALLOCATE "Mixed Case"')],
		[f.bind({ statement: "Mixed Case" }), sync],
	),
	says(
		"DISCARD ALL forgets statements",
		[f.parse("SELECT 1", "d"), sync],
		[q("DISCARD ALL")],
		[f.bind({ statement: "d" }), sync],
	),
	says(
		"DISCARD ALL in a transaction block is refused",
		[f.parse("SELECT 1", "d"), sync],
		[q("BEGIN")],
		[q("DISCARD ALL")],
		[q("ROLLBACK")],
		[f.bind({ statement: "d" }), f.execute(), f.close("S", "d"), sync],
	),
	says(
		"PREPARE and EXECUTE in one transaction",
		[q("BEGIN; PREPARE sqlp AS SELECT $1::int + 1; EXECUTE sqlp(1)")],
		[f.bind({ statement: "sqlp", values: ["2"] }), f.execute(), sync],
		[f.describe("S", "sqlp"), sync],
		[q("DEALLOCATE sqlp; COMMIT")],
	),
	differs(
		"SQL is not rewritten with prepared_statements = extended, and the server knows the statement by another name",
		says(
			"EXECUTE of a protocol statement",
			[q("BEGIN")],
			[f.parse("SELECT $1::int + 1", "proto"), sync],
			[q("EXECUTE proto(5)")],
			[q("ROLLBACK")],
			[f.close("S", "proto"), sync],
		),
	),
];

const COPY: Script[] = [
	says(
		"COPY out",
		[q("COPY (SELECT id, name FROM t ORDER BY id LIMIT 3) TO STDOUT")],
		[q("COPY (SELECT 1) TO STDOUT (FORMAT binary)")],
	),
	says("a large COPY out", [q("COPY (SELECT repeat('c', 1000) FROM generate_series(1, 3000)) TO STDOUT")]),
	says(
		"COPY out, extended",
		[...ask("COPY (SELECT 1, 2) TO STDOUT"), sync],
		[f.parse("COPY (SELECT 1) TO STDOUT"), f.bind(), f.execute(), ...ask("SELECT 2"), sync],
	),
	says(
		"COPY out that fails on the way",
		[q("COPY (SELECT 1 / (500 - i) FROM generate_series(1, 1000) i) TO STDOUT")],
		[q("SELECT 1")],
	),
	script("COPY in", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\n11\n"), f.copyData("12\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, data in the same write as the query", async (t) => {
		await t.say(q("COPY parent FROM STDIN"), f.copyData("20\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, rows cut in the middle of lines", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.split(7, f.copyData("1"), f.copyData("0\n1"), f.copyData("1\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("a large COPY in", async (t) => {
		await t.upTo("G", q("COPY t FROM STDIN"));
		const line = (i: number) => f.copyData(`${i}\t${"w".repeat(2000)}\n`);
		await t.say(...Array.from({ length: 1500 }, (_, i) => line(1000 + i)), f.copyDone());
		await t.say(q("DELETE FROM t WHERE id >= 1000"));
	}),
	script("one huge CopyData", async (t) => {
		await t.upTo("G", q("COPY t FROM STDIN"));
		await t.say(f.copyData(`1000\t${"h".repeat(4_000_000)}\n`), f.copyDone());
		await t.say(q("DELETE FROM t WHERE id >= 1000 RETURNING length(name)"));
	}),
	script("CopyFail", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\n"), f.copyFail("I have changed my mind"));
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("bad data: the rest of the copy is ignored", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\nnot a number\n"), f.copyData("12\n"), f.copyDone());
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("bad data, seen before the end is sent", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.upTo(
			"E",
			f.copyData("not a number\nx\n"),
			...Array.from({ length: 100 }, () => f.copyData("12\n".repeat(1000))),
			f.copyDone(),
		);
		await t.upTo("Z");
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("COPY in with a second statement behind it", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN; SELECT count(*) FROM parent; DELETE FROM parent"));
		await t.say(f.copyData("10\n"), f.copyDone());
	}),
	script("two COPYs in one Query", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN; COPY parent FROM STDIN; DELETE FROM parent"));
		await t.upTo("G", f.copyData("10\n"), f.copyDone());
		await t.say(f.copyData("11\n"), f.copyDone());
	}),
	script("COPY in, extended", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), flush);
		await t.upTo("C", f.copyData("10\n"), f.copyDone(), flush);
		await t.say(sync);
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, as libpq does it: Execute and Sync before the data", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.describe("P"), f.execute(), sync);
		await t.upTo("Z", f.copyData("10\n"), f.copyData("11\n"), f.copyDone(), sync);
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, extended, all in one write", async (t) => {
		await t.upTo("Z", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), f.copyData("10\n"), f.copyDone(), sync);
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("COPY in, extended, with CopyFail", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), sync);
		await t.upTo("Z", f.copyData("10\n"), f.copyFail("no"), sync);
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("COPY in, extended, with bad data", async (t) => {
		await t.upTo("G", f.parse("COPY parent FROM STDIN"), f.bind(), f.execute(), sync);
		await t.upTo("Z", f.copyData("no number\n"), f.copyDone(), sync);
		await t.say(q("SELECT count(*) FROM parent"));
	}),
	script("Flush and Sync in the middle of COPY data are ignored", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.upTo("Z", f.copyData("10\n"), flush, sync, f.copyData("11\n"), f.copyDone());
		await t.say(q("DELETE FROM parent RETURNING id"));
	}),
	script("a Query in the middle of COPY data ends the COPY", async (t) => {
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.end(f.copyData("10\n"), q("SELECT 1"));
	}),
	script("CopyData, CopyDone and CopyFail outside of COPY are ignored", async (t) => {
		await t.say(f.copyData("x"), f.copyDone(), f.copyFail("x"), q("SELECT 1"));
		await t.say(q("BEGIN"));
		await t.say(f.copyData("x"), f.copyDone(), f.copyFail("x"), q("SELECT 2"));
		await t.say(q("ROLLBACK"));
	}),
	script("COPY in a transaction block", async (t) => {
		await t.say(q("BEGIN"));
		await t.upTo("G", q("COPY parent FROM STDIN"));
		await t.say(f.copyData("10\n"), f.copyDone());
		await t.say(q("ROLLBACK"));
	}),
	script("COPY to a table that is not there", async (t) => {
		await t.say(q("COPY nowhere FROM STDIN"));
		await t.say(f.parse("COPY nowhere FROM STDIN"), f.bind(), f.execute(), sync);
		await t.say(q("COPY nowhere FROM STDIN"), f.copyData("1\n"), f.copyDone(), q("SELECT 1"));
	}),
];

const CURSORS: Script[] = [
	says(
		"DECLARE, FETCH, MOVE, CLOSE",
		[q("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT id FROM t ORDER BY id")],
		[q("FETCH 2 FROM c")],
		[q("MOVE LAST IN c"), q("FETCH BACKWARD 2 FROM c")],
		[...ask("FETCH FIRST FROM c"), sync],
		[f.describe("P", "c"), f.execute("c", 1), sync],
		[q("CLOSE c; COMMIT")],
	),
	says("a cursor outside of a transaction block", [q("DECLARE c CURSOR FOR SELECT 1")], [q("FETCH 1 FROM c")]),
	says("a cursor that does not exist", [q("BEGIN")], [q("FETCH 1 FROM missing")], [q("ROLLBACK")]),
	says(
		"UPDATE WHERE CURRENT OF",
		[q("BEGIN; DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE; FETCH 1 FROM c")],
		[q("UPDATE t SET name = 'current' WHERE CURRENT OF c RETURNING id")],
		[q("ROLLBACK")],
	),
];

const SETTINGS: Script[] = [
	says(
		"ParameterStatus of settings that are reported",
		[q("SET application_name = 'conformance'")],
		[q("SHOW application_name")],
		[q("SET DateStyle = 'German'")],
		[q("SELECT '2020-02-01'::date")],
		[q("RESET application_name; RESET DateStyle")],
	),
	says(
		"several reported settings at once",
		[q("SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'; SET DateStyle = 'SQL, DMY'")],
		[q("SELECT '1 day'::interval, '2020-02-01'::date")],
		[q("RESET ALL")],
		[q("SHOW TimeZone")],
	),
	says(
		"client_encoding",
		[q("SET client_encoding = 'LATIN1'")],
		[q("SELECT 'a'")],
		[q("SET NAMES 'UTF8'")],
		[q("RESET client_encoding")],
	),
	says(
		"SET that ROLLBACK undoes",
		[q("BEGIN")],
		[q("SET application_name = 'undone'")],
		[q("ROLLBACK")],
		[q("SHOW application_name")],
	),
	says(
		"SET LOCAL",
		[q("BEGIN")],
		[q("SET LOCAL application_name = 'local'")],
		[q("SHOW application_name")],
		[q("COMMIT")],
		[q("SHOW application_name")],
	),
	says("SET LOCAL outside of a transaction block", [q("SET LOCAL work_mem = '1MB'")], [q("SHOW work_mem")]),
	says(
		"SET inside savepoints",
		[q("BEGIN; SET work_mem = '1MB'; SAVEPOINT a; SET work_mem = '2MB'")],
		[q("ROLLBACK TO a")],
		[q("SHOW work_mem")],
		[q("COMMIT")],
		[q("SHOW work_mem")],
		[q("RESET work_mem")],
	),
	says(
		"SET and SET LOCAL of one setting",
		[q("BEGIN; SET work_mem = '1MB'; SET LOCAL work_mem = '2MB'")],
		[q("SHOW work_mem")],
		[q("COMMIT")],
		[q("SHOW work_mem")],
		[q("RESET work_mem")],
	),
	says(
		"RESET in a transaction that is rolled back",
		[q("SET work_mem = '3MB'")],
		[q("BEGIN; RESET work_mem")],
		[q("ROLLBACK")],
		[q("SHOW work_mem")],
		[q("BEGIN; RESET ALL")],
		[q("ROLLBACK")],
		[q("SHOW work_mem")],
		[q("RESET work_mem")],
		[q("SHOW work_mem")],
	),
	says(
		"set_config",
		[q("SELECT set_config('work_mem', '5MB', false)")],
		[q("SHOW work_mem")],
		[...ask("SELECT set_config($1, $2, $3)", ["work_mem", "6MB", "false"]), sync],
		[q("SHOW work_mem")],
		[q("BEGIN; SELECT set_config('work_mem', '7MB', true)")],
		[q("COMMIT")],
		[q("SHOW work_mem")],
		[q("RESET work_mem")],
	),
	differsShared(
		"PostgreSQL forgets the value of a custom setting, but not that there was one: not even DISCARD ALL does that",
		says(
			"a custom setting that the session never had",
			[q("SHOW app.tenant")],
			[q("SELECT current_setting('app.tenant', true)")],
		),
	),
	says(
		"custom settings",
		[q("SET app.tenant = 'seven'")],
		[q("SELECT current_setting('app.tenant')")],
		[q("SELECT current_setting('app.tenant', true)")],
		[q("RESET app.tenant")],
		[q("SHOW app.tenant")],
	),
	says(
		"search_path lists and quoting",
		[q('CREATE SCHEMA IF NOT EXISTS "Odd Schema"')],
		[q('SET search_path = "Odd Schema", public, pg_catalog')],
		[q("SHOW search_path")],
		[q("SELECT current_schemas(false)")],
		[q("SET search_path TO ''")],
		[q("SHOW search_path")],
		[q("SELECT * FROM t")],
		[q("RESET search_path")],
		[q("SHOW search_path")],
	),
	says(
		"values with quotes and backslashes",
		[q("SET app.odd = 'it''s \\ \"odd\"'")],
		[q("SHOW app.odd")],
		[q("SELECT 1")],
		[q("SHOW app.odd")],
		[q("RESET app.odd")],
	),
	says(
		"SET extended, with a named statement",
		[f.parse("SET work_mem = '9MB'", "setter"), sync],
		[f.bind({ statement: "setter" }), f.execute(), sync],
		[q("SHOW work_mem")],
		[q("RESET work_mem")],
		[q("SHOW work_mem")],
		[f.bind({ statement: "setter" }), f.execute(), f.close("S", "setter"), sync],
		[q("SHOW work_mem")],
		[q("RESET ALL")],
	),
	says(
		"settings that cannot be had",
		[q("SET work_mem = 'lots'")],
		[q("SET nothing = 1")],
		[q("SET max_connections = 5")],
		[q("SHOW nothing")],
		[q("SHOW work_mem")],
	),
	says(
		"SET that fails behind one that does not, in one Query",
		[q("SET work_mem = '4MB'; SET nothing = 1")],
		[q("SHOW work_mem")],
	),
	says(
		"SET ROLE",
		[q("SET ROLE pg_monitor")],
		[q("SELECT current_user, session_user")],
		[q("RESET ROLE")],
		[q("SELECT current_user")],
		[q("SET ROLE nobody_there")],
	),
	says(
		"SET SESSION CHARACTERISTICS",
		[q("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")],
		[q("SHOW transaction_isolation")],
		[q("INSERT INTO t VALUES (500, 'x')")],
		[q("RESET default_transaction_isolation; RESET default_transaction_read_only")],
		[q("SHOW transaction_isolation")],
	),
	says(
		"SET TRANSACTION",
		[q("BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")],
		[q("SHOW transaction_isolation")],
		[q("COMMIT")],
		[q("SHOW transaction_isolation")],
		[q("SET TRANSACTION READ ONLY")],
	),
	says(
		"SET TIME ZONE and its forms",
		[q("SET TIME ZONE 'Europe/Prague'")],
		[q("SHOW TIME ZONE")],
		[q("SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE")],
		[q("SHOW TimeZone")],
		[q("SET TIME ZONE LOCAL")],
		[q("SHOW TimeZone")],
		[q("RESET TIME ZONE")],
	),
	says(
		"a function that sets what is reported",
		[q("SELECT sets_application_name('from a function')")],
		[q("SHOW application_name")],
		[q("RESET application_name")],
		[q("SHOW application_name")],
	),
	says(
		"DISCARD ALL resets settings",
		[q("SET application_name = 'discarded'; SET work_mem = '1MB'")],
		[q("DISCARD ALL")],
		[q("SHOW work_mem")],
		[q("SHOW application_name")],
	),
	says(
		"standard_conforming_strings off",
		[q("SET standard_conforming_strings = off")],
		[q("SHOW standard_conforming_strings")],
		[q("SELECT 1")],
		[q("RESET standard_conforming_strings")],
	),
	says(
		"statement_timeout strikes",
		[q("SET statement_timeout = 30")],
		[q("SELECT pg_sleep(5)")],
		[q("RESET statement_timeout")],
		[q("SELECT 1")],
	),
];

const REST: Script[] = [
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
	says(
		"temporary tables within a transaction",
		[q("BEGIN; CREATE TEMP TABLE tt (a int) ON COMMIT DROP; INSERT INTO tt VALUES (1)")],
		[...ask("SELECT * FROM tt"), sync],
		[q("COMMIT")],
		[q("SELECT * FROM tt")],
	),
	says(
		"advisory locks within a transaction",
		[q("BEGIN; SELECT pg_advisory_xact_lock(42); SELECT pg_try_advisory_xact_lock(42)")],
		[q("COMMIT")],
	),
	says("WITH HOLD cursors within one Query", [
		q("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT 1; COMMIT; FETCH ALL FROM h; CLOSE h"),
	]),
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

export const SCRIPTS: Script[] = [...SIMPLE, ...EXTENDED, ...DEALLOCATE, ...COPY, ...CURSORS, ...SETTINGS, ...REST];
