// Every exchange of messages that a client may break off, as steps: what is sent, and the message that says it was answered.
// From them vanish.test.ts makes a client that vanishes at every boundary and in the middle of every message.

import { bytes, concat, cstring, frontend, int32, message } from "../support/wire-frames.ts";

interface Step {
	send: Uint8Array;
	/** A message of this type comes back before the next step. */
	await?: string;
}

export interface Exchange {
	name: string;
	/** Of a client that is logged in before it begins; null: it begins with the first byte of the connection. */
	parameters: Record<string, string> | null;
	steps: Step[];
	/** The step that, once all of it was sent, may commit a row of `kept` and one of `copied`: both or none. */
	commits?: number;
}

const { parse, bind, describe, execute, sync, flush, query, close } = frontend;

/** Once, before all exchanges. */
export const PREPARATION = `
	CREATE TABLE IF NOT EXISTS kept (who text);
	CREATE TABLE IF NOT EXISTS copied (line text);
	TRUNCATE kept, copied`;

const session = (name: string, ...steps: (Step | [Uint8Array, string?])[]): Exchange => ({
	name,
	parameters: {},
	steps: steps.map((step) =>
		Array.isArray(step) ? { send: step[0], ...(step[1] === undefined ? {} : { await: step[1] }) } : step,
	),
});

const largeRow = "SELECT repeat('x', 3000000), repeat('y', 1000)";
const manyRows = "SELECT g, repeat('z', 200) FROM generate_series(1, 20000) g";

/** What a client does between login and Terminate. No row of `kept` may be seen afterwards, but of what `commits`. */
export const sessions: Exchange[] = [
	session("a simple query", [query("SELECT 1"), "Z"], [query("SELECT 2; SELECT 3"), "Z"], [frontend.terminate()]),
	session("an empty query and an error", [query(""), "Z"], [query("SELECT 1/0"), "Z"], [query("SELEC"), "Z"]),
	session(
		"settings",
		[query("SET app.who = 'gone'"), "Z"],
		[query("SET search_path = nowhere; SELECT 1"), "Z"],
		[query("RESET app.who"), "Z"],
	),
	session(
		"what cannot be tracked",
		[query("CREATE TEMP TABLE mine (id int)"), "Z"],
		[query("LISTEN mine"), "Z"],
		[query("SELECT pg_advisory_lock(7)"), "Z"],
		[query("PREPARE mine AS SELECT 1"), "Z"],
	),
	session(
		"a cursor WITH HOLD",
		[query("BEGIN; DECLARE mine CURSOR WITH HOLD FOR SELECT 1"), "Z"],
		[query("COMMIT"), "Z"],
		[query("FETCH mine"), "Z"],
	),
	session(
		"a transaction",
		[query("BEGIN"), "Z"],
		[query("INSERT INTO kept VALUES ('gone')"), "Z"],
		[query("SET app.who = 'gone'"), "Z"],
		[query("LOCK TABLE copied IN EXCLUSIVE MODE"), "Z"],
		[query("SELECT pg_advisory_xact_lock(8)"), "Z"],
	),
	session(
		"a failed transaction",
		[query("BEGIN; INSERT INTO kept VALUES ('gone')"), "Z"],
		[query("SELECT 1/0"), "Z"],
		[query("SELECT 1"), "Z"],
	),
	session(
		"a transaction that ends",
		[query("BEGIN; SET LOCAL app.who = 'gone'; SAVEPOINT s"), "Z"],
		[query("ROLLBACK TO s"), "Z"],
		[query("ROLLBACK"), "Z"],
	),
	session(
		"a Query in the middle of a batch that has failed",
		[concat(parse("SELEC"), query("INSERT INTO kept VALUES ('gone')")), "E"],
		[query("SELECT 1")],
		[sync(), "Z"],
	),
	session(
		"an extended query",
		[parse("SELECT $1::text")],
		[bind({ values: ["x"] })],
		[describe("P")],
		[execute()],
		[sync(), "Z"],
	),
	session(
		"a named statement",
		[parse("SELECT $1::int", "mine")],
		[describe("S", "mine")],
		[sync(), "Z"],
		[bind({ statement: "mine", values: ["1"] })],
		[execute()],
		[sync(), "Z"],
		[close("S", "mine")],
		[sync(), "Z"],
	),
	session(
		"a batch answered step by step",
		[concat(parse("INSERT INTO kept VALUES ('gone')"), flush()), "1"],
		[concat(bind(), flush()), "2"],
		[concat(execute(), flush()), "C"],
		[concat(parse("SELECT 1/0", "bad"), bind({ statement: "bad" }), execute(), flush()), "E"],
		[parse("SELECT 2")],
	),
	session(
		"a portal read in parts",
		[query("BEGIN"), "Z"],
		[
			concat(parse("SELECT g FROM generate_series(1, 100) g"), bind({ portal: "part" }), execute("part", 10), flush()),
			"s",
		],
		[concat(execute("part", 10), flush()), "s"],
		[sync(), "Z"],
	),
	session(
		"a pipeline",
		[
			concat(
				...Array.from({ length: 5 }, (_, i) =>
					concat(parse("SELECT $1::int + 1"), bind({ values: [`${i}`] }), execute(), sync()),
				),
			),
			"Z",
		],
		[
			concat(
				parse("SELEC"),
				bind(),
				execute(),
				sync(),
				query("SELECT 1"),
				parse("INSERT INTO kept VALUES ('gone')"),
				bind(),
				execute(),
				flush(),
			),
		],
	),
	session(
		"COPY in",
		[query("COPY copied FROM STDIN"), "G"],
		[frontend.copyData("one\n")],
		[frontend.copyData("two\nthr")],
		[frontend.copyFail("enough"), "Z"],
		[query("SELECT 1"), "Z"],
	),
	session(
		"COPY in by the extended protocol",
		[concat(parse("COPY copied FROM STDIN"), bind(), execute(), flush()), "G"],
		[frontend.copyData("one\n")],
		[flush()],
		[frontend.copyData("two\n")],
		[frontend.copyFail("enough")],
		[sync(), "Z"],
	),
	// Whether PostgreSQL ignores a Sync here, because it still reads data, or answers it, is known only by its reply.
	session(
		"COPY in with Syncs behind bad data",
		[query("COPY copied FROM STDIN"), "G"],
		[concat(frontend.copyData("a\tb\n"), sync(), frontend.copyData("c\n"), sync())],
	),
	session(
		"COPY in by the extended protocol with Syncs behind bad data",
		[concat(parse("COPY copied FROM STDIN"), bind(), execute(), flush()), "G"],
		[concat(frontend.copyData("a\tb\n"), sync(), frontend.copyData("c\n"), sync(), sync())],
	),
	session(
		"COPY out",
		[query("COPY (SELECT g FROM generate_series(1, 50000) g) TO STDOUT"), "H"],
		[query("SELECT 1"), "Z"],
	),
	session("a large row", [query(largeRow), "T"], [query("SELECT 1"), "Z"]),
	session("many rows", [query(manyRows), "D"], [concat(parse(manyRows), bind(), execute(), flush()), "D"]),
	session("a large query", [query(`SELECT '${"q".repeat(2_500_000)}' IS NULL`), "Z"]),
	session(
		"a large parameter",
		[concat(parse("SELECT length($1)"), bind({ values: ["v".repeat(2_500_000)] }), execute())],
		[sync(), "Z"],
	),
	session("a slow query", [query("SELECT pg_sleep(0.2)"), "Z"]),
	{
		...session(
			"a slow query in a transaction",
			[query("BEGIN; INSERT INTO kept VALUES ('gone'); INSERT INTO copied VALUES ('gone')"), "Z"],
			[query("SELECT pg_sleep(0.1)")],
			[query("COMMIT")],
		),
		commits: 2,
	},
	{
		...session(
			"a COMMIT of the extended protocol",
			[query("BEGIN; INSERT INTO kept VALUES ('gone'); INSERT INTO copied VALUES ('gone')"), "Z"],
			[concat(parse("COMMIT"), bind(), execute())],
			[sync(), "Z"],
		),
		commits: 1,
	},
	session("a function call", [message("F", int32(1598), bytes(0, 0, 0, 0, 0, 0)), "Z"]),
	session("a notice", [query("DO $$ BEGIN RAISE NOTICE 'x'; END $$"), "Z"]),
];

/** Its settings have to be applied before its first query. */
export const settings: Exchange[] = [
	{
		name: "settings of a startup",
		parameters: { application_name: "gone", "app.who": "gone", search_path: "nowhere" },
		steps: [
			{ send: query("SELECT 1"), await: "Z" },
			{ send: query("SET app.who = 'more'"), await: "Z" },
			{ send: concat(parse("SELECT 1"), bind(), execute(), sync()), await: "Z" },
		],
	},
	{
		name: "settings that the server refuses",
		parameters: null,
		steps: [{ send: hello({ datestyle: "none such" }), await: "R" }],
	},
];

function hello(parameters: Record<string, string> = {}): Uint8Array {
	return frontend.startupMessage({ user: "pgdog", database: "pgdog", ...parameters });
}

/** Logins, by `auth_type`. */
export const logins: Record<string, Exchange[]> = {
	trust: [
		{
			name: "a login without a password",
			parameters: null,
			steps: [
				{ send: frontend.sslRequest() },
				{ send: frontend.gssencRequest() },
				{ send: hello({ "app.who": "gone", application_name: "trusted" }), await: "Z" },
				{ send: query("SELECT 1"), await: "Z" },
			],
		},
		{
			name: "a login of a later protocol",
			parameters: null,
			steps: [
				{
					send: frontend.startupMessage({ user: "pgdog", database: "pgdog", "_pq_.x": "1" }, (3 << 16) | 9),
					await: "Z",
				},
			],
		},
	],
	plain: [
		{
			name: "a login by a plain password",
			parameters: null,
			steps: [
				{ send: hello({ "app.who": "plain" }), await: "R" },
				{ send: frontend.passwordMessage("pgdog"), await: "Z" },
				{ send: query("SELECT 1"), await: "Z" },
			],
		},
		{
			name: "a login by a wrong password",
			parameters: null,
			steps: [
				{ send: hello(), await: "R" },
				{ send: frontend.passwordMessage("wrong"), await: "E" },
			],
		},
	],
	md5: [
		{
			name: "a login by MD5",
			parameters: null,
			steps: [
				{ send: hello(), await: "R" },
				{ send: frontend.passwordMessage("md5wrong"), await: "E" },
			],
		},
	],
	scram: [
		{
			name: "a login by SCRAM",
			parameters: null,
			steps: [
				{ send: hello(), await: "R" },
				{ send: frontend.saslInitialResponse("SCRAM-SHA-256", "n,,n=,r=abcdefghijkl"), await: "R" },
				{ send: frontend.saslResponse(`c=biws,r=abcdefghijkl,p=${"A".repeat(43)}=`), await: "E" },
			],
		},
		{
			name: "a login of no one",
			parameters: null,
			steps: [
				{ send: concat(hello({ user: "nobody" })), await: "R" },
				{ send: message("p", cstring("SCRAM-SHA-256"), int32(-1)), await: "R" },
			],
		},
	],
};

/** Where to cut: before and after every message of a step, and in the middle of each (once after the head, if it is longer). */
export function cuts(step: Uint8Array, packets: boolean): number[] {
	const at = new Set<number>();
	const view = Buffer.from(step.buffer, step.byteOffset, step.length);
	let start = 0;
	while (start < step.length) {
		const length = packets ? view.readInt32BE(start) : 1 + view.readInt32BE(start + 1);
		const end = start + length;
		if (start > 0) at.add(start);
		at.add(start + 2);
		if (length > 8) at.add(start + (length >> 1));
		start = end;
	}
	at.add(step.length);
	return [...at].filter((cut) => cut > 0 && cut <= step.length);
}
