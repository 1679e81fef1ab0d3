// What a plugin sees is what PostgreSQL runs, however a session reads its texts: random texts full of quotes, backslashes, comments
// and halves of characters, in sessions that change standard_conforming_strings, backslash_quote and client_encoding in every way,
// before, with and right in front of them. PostgreSQL's answer tells what it has run: the values of the string constants, by the
// number of rows which tables, and how many statements. The scribe has noted the same, or the text has not reached PostgreSQL.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { BUILD_TIMEOUT, buildFixture, describeWithCargo } from "../plugin/support.ts";
import type { Message } from "../support/message.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { cstring, frontend as f, int16, message } from "../support/wire-frames.ts";
import { LOGGING, logsAreWritten, type Note, Notes } from "./routed.ts";
import { connect } from "./support.ts";

setDefaultTimeout(120_000);

// ---- texts ---------------------------------------------------------------------------------------------------------

/** Latin1 characters are bytes: a text may be in any encoding, or in none. */
const bytesOf = (text: string) => Buffer.from(text, "latin1");
const E_ACUTE = { utf8: "\xc3\xa9", latin1: "\xe9" };
/** 表, 功 and another: their second byte is a backslash, in SJIS, BIG5 and GBK. */
const HALF_BACKSLASH = ["\x95\x5c", "\xa5\x5c", "\x83\x5c"];
/** No character of any of these: a quote behind the first half of one. */
const HALF_QUOTE = ["\x95'", "\xe9'", "\xc3'"];

const calm = fc.constantFrom("a", "b ", "''", "--", "/*", "*/", "$$", '"', ";", "\n", ", v FROM two");
const sharp = fc.constantFrom(
	"\\'",
	"\\\\",
	"\\",
	"''",
	"\\''",
	"\\x27",
	"\\047",
	"\\n",
	"\\u8868",
	"\\00e9",
	"\\8868",
);
const attack = fc.constantFrom(", v FROM two --", "\\', v FROM two --", "\\'; SELECT v FROM three --", "\\' /*");
const foreign = fc.constantFrom(
	E_ACUTE.utf8,
	E_ACUTE.latin1,
	...HALF_BACKSLASH,
	...HALF_QUOTE,
	"\x95\\'",
	"\xe8\xa1\xa8",
);
const body = fc
	.array(
		fc.oneof(
			{ weight: 4, arbitrary: calm },
			{ weight: 8, arbitrary: sharp },
			{ weight: 3, arbitrary: attack },
			{ weight: 1, arbitrary: foreign },
		),
		{ maxLength: 2 },
	)
	.map((parts) => parts.join(""));
const constant = fc.oneof(
	{ weight: 14, arbitrary: body.map((inner) => `'${inner}'`) },
	{ weight: 3, arbitrary: body.map((inner) => `E'${inner}'`) },
	{ weight: 2, arbitrary: body.map((inner) => `U&'${inner}'`) },
	{
		weight: 1,
		arbitrary: fc.constantFrom("U&'d!0061' UESCAPE '!'", "U&'\\0061\\+000062'", "E'\\u00e9'", "E'\\u8868'"),
	},
	{ weight: 1, arbitrary: body.map((inner) => `$$${inner}$$`) },
	{ weight: 1, arbitrary: body.map((inner) => `$a$${inner}$a$`) },
	{
		weight: 6,
		arbitrary: fc.constantFrom(
			`'${E_ACUTE.utf8}'`,
			`U&'${E_ACUTE.utf8}'`,
			`$$${E_ACUTE.utf8}$$`,
			`'${E_ACUTE.latin1}'`,
			`E'${E_ACUTE.utf8}\\'s'`,
			"'\x95\\'",
		),
	},
	{ weight: 1, arbitrary: fc.constantFrom("B'01'", "X'1f'", "B'\\'", "X'\\', '", "B'01'\n'10'") },
	{ weight: 2, arbitrary: fc.tuple(body, body).map(([a, b]) => `'${a}'\n'${b}'`) },
	{ weight: 1, arbitrary: fc.tuple(body, body).map(([a, b]) => `E'${a}' -- it's\n  '${b}'`) },
	{ weight: 1, arbitrary: fc.tuple(body, body).map(([a, b]) => `'${a}''${b}'`) },
);
const space = fc.oneof(
	{ weight: 9, arbitrary: fc.constant(" ") },
	{ weight: 1, arbitrary: body.map((inner) => `/*${inner}*/`) },
	{ weight: 1, arbitrary: fc.constantFrom("/* ' /* \\ */ ' */", "--'\n", "-- \\'\n", "\n") },
	{ weight: 1, arbitrary: body.map((inner) => `--${inner.replaceAll("\n", "")}\n`) },
);
const tail = fc.oneof(
	{ weight: 4, arbitrary: fc.constantFrom("", " FROM two", " FROM three", ";", "--'", " --', v FROM two") },
	{ weight: 2, arbitrary: constant.map((its) => `; SELECT ${its}`) },
	{ weight: 1, arbitrary: constant.map((its) => `; SELECT ${its} FROM three --'`) },
);
/** Behind `SELECT 'its mark'`. */
const rest = fc
	.tuple(fc.array(fc.tuple(space, constant), { minLength: 1, maxLength: 2 }), space, tail)
	.map(([items, last, end]) => items.map(([before, its]) => `,${before}${its}`).join("") + last + end);

// ---- sessions ------------------------------------------------------------------------------------------------------

const ENCODINGS = ["UTF8", "LATIN1", "SJIS", "BIG5", "GBK", "SQL_ASCII"];
const onOff = fc.constantFrom("on", "off");
const encoding = fc.constantFrom(...ENCODINGS);
const change = fc.oneof(
	{ weight: 12, arbitrary: onOff.map((value) => `SET standard_conforming_strings = ${value}`) },
	{ weight: 3, arbitrary: onOff.map((value) => `SET LOCAL standard_conforming_strings TO ${value}`) },
	{
		weight: 1,
		arbitrary: onOff.map((value) => `SELECT set_config('standard_conforming_strings', '${value}', false) = ''`),
	},
	{
		weight: 1,
		arbitrary: onOff.map((value) => `SELECT set_config('standard_' || 'conforming_strings', '${value}', true) = ''`),
	},
	{
		weight: 1,
		arbitrary: onOff.map((value) => `UPDATE pg_settings SET setting = '${value}' WHERE name LIKE 'standard_%'`),
	},
	{ weight: 1, arbitrary: onOff.map((value) => `DO $$ BEGIN SET standard_conforming_strings = ${value}; END $$`) },
	{ weight: 1, arbitrary: onOff.map((value) => `SET U&"standard_conforming\\005fstrings" = ${value}`) },
	{ weight: 2, arbitrary: onOff.map((value) => `SELECT turn('${value}')`) },
	{ weight: 3, arbitrary: encoding.map((name) => `SET client_encoding TO '${name}'`) },
	{ weight: 1, arbitrary: encoding.map((name) => `SET NAMES '${name}'`) },
	{
		weight: 2,
		arbitrary: fc.constantFrom("on", "off", "safe_encoding").map((value) => `SET backslash_quote = ${value}`),
	},
	{ weight: 2, arbitrary: fc.constantFrom("RESET ALL", "RESET standard_conforming_strings", "DISCARD ALL") },
	{
		weight: 4,
		arbitrary: fc.constantFrom("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s", "BEGIN; SAVEPOINT s"),
	},
);
/** How a text is said: after the change, with it, or before it (`prepared`; `again` runs what was prepared last). */
const HOW = ["query", "extended", "pipelined", "batch", "one string", "prepared", "again"] as const;
interface Step {
	client: number;
	change: string | null;
	how: (typeof HOW)[number];
	rest: string;
}
const step: fc.Arbitrary<Step> = fc.record({
	client: fc.nat(1),
	change: fc.option(change, { freq: 3 }),
	how: fc.constantFrom(...HOW),
	rest,
});
const startup = fc.record(
	{ client_encoding: encoding, options: fc.constantFrom("", "-c standard_conforming_strings=off") },
	{ requiredKeys: [] },
);
const session = fc.record({
	database: fc.constantFrom("pgdog", "pgdog", "latin", "ascii"),
	startup: fc.tuple(startup, startup),
	steps: fc.array(step, { minLength: 10, maxLength: 14 }),
});

/** What has to be served in any case, and what cannot be. */
const PLAIN: typeof session extends fc.Arbitrary<infer T> ? T : never = {
	database: "pgdog",
	startup: [{}, {}],
	steps: [
		{ client: 0, change: null, how: "query", rest: `, '${E_ACUTE.utf8}' FROM two; SELECT E'\\'' FROM three` },
		{ client: 0, change: "SET standard_conforming_strings = off", how: "prepared", rest: ", 'a'" },
		{ client: 0, change: null, how: "extended", rest: ", '\\', v FROM two --'" },
		{ client: 0, change: "SET standard_conforming_strings = off", how: "pipelined", rest: ", '\\'', v FROM two --'" },
		{ client: 0, change: "SET standard_conforming_strings = on", how: "batch", rest: ", '\\'', v FROM two --'" },
	],
};

const frames = {
	query: (sql: string) => message("Q", bytesOf(sql), bytesOf("\0")),
	parse: (sql: string, name = "") => message("P", cstring(name), bytesOf(sql), bytesOf("\0"), int16(0)),
	run: (name = "") => [f.bind({ statement: name }), f.describe("P"), f.execute()],
};

// ---- what PostgreSQL has run ---------------------------------------------------------------------------------------

const TEXT = 25;
const DECODERS: Record<string, TextDecoder> = {
	SJIS: new TextDecoder("shift_jis"),
	BIG5: new TextDecoder("big5"),
	GBK: new TextDecoder("gbk"),
};
/** @param stored the encoding of the database, which is also that of a client's SQL_ASCII */
function decoded(value: Buffer, encoding: string, stored: string): string {
	return (encoding === "SQL_ASCII" ? stored : encoding) === "LATIN1"
		? value.toString("latin1")
		: (DECODERS[encoding]?.decode(value) ?? value.toString());
}

function typesOf({ body }: Message): number[] {
	const types: number[] = [];
	for (let at = 2; at < body.length; at += 18) {
		at = body.indexOf(0, at) + 1;
		types.push(body.readInt32BE(at + 6));
	}
	return types;
}

/** Constants and tables as the scribe notes them. Of what a constant's type is not text there is no note. */
function wordsOf(messages: Message[], encodingBefore: string, stored: string): string[] {
	const words: string[] = [];
	let encoding = encodingBefore;
	let types: number[] = [];
	let rows = 0;
	for (const each of messages) {
		const { code, body } = each;
		if (code === "S") {
			const [name, value] = body.toString().split("\0");
			if (name === "client_encoding") encoding = value!;
		} else if (code === "T") types = typesOf(each);
		else if (code === "D" && rows++ === 0) {
			let at = 2;
			for (const type of types) {
				const length = body.readInt32BE(at);
				if (type === TEXT) words.push(decoded(body.subarray(at + 4, at + 4 + length), encoding, stored));
				at += 4 + Math.max(length, 0);
			}
		} else if (code === "C") {
			if (rows > 0 && rows % 2 === 0) words.push("two");
			if (rows > 0 && rows % 3 === 0) words.push("three");
			rows = 0;
		}
	}
	return words;
}

const TABLES = ["two", "three"];
/** What an UPDATE of pg_settings says, and is answered: it is one of the changes, and no text of ours has such words. */
const CHANGE_WORDS = ["pg_settings", "on", "off"];

/** For comparing. @param loosely how many constants there are, and not what a backslash in them stands for */
function settled(words: string[], loosely: boolean): string[] {
	const own = words.filter((word) => !CHANGE_WORDS.includes(word));
	return own.map((word) => (loosely && !TABLES.includes(word) ? "a constant" : word)).sort();
}

const UNCERTAIN = "the statement may be read in several ways";
const isAscii = (text: string) => !/[\x80-\xff]/.test(text);
/** All settings are known, or may be waited for. */
const settledBefore = (how: Step["how"]) => ["query", "extended", "pipelined", "one string"].includes(how);

/** How often each of these has happened: a proxy that refuses everything has nothing to hide, and shows nothing. */
const met = { ran: 0, escaped: 0, foreign: 0, refused: 0, prepared: 0, behind: 0, tables: 0, several: 0 };

describeWithCargo("plugins before sessions that read in their own way", () => {
	let cluster: Cluster;
	let proxy: Proxy;
	const notes = new Notes();
	const noted = new Set<string>();
	let mark = 0;

	beforeAll(async () => {
		const scribe = buildFixture("scribe");
		cluster = await startPostgres({ settings: LOGGING });
		for (const [name, encoding] of [
			["latin", "LATIN1"],
			["ascii", "SQL_ASCII"],
		])
			await cluster.primary.sql(
				`CREATE DATABASE ${name} OWNER pgdog TEMPLATE template0 ENCODING '${encoding}' LOCALE 'C'`,
			);
		for (const database of ["pgdog", "latin", "ascii"])
			await cluster.primary.sql(
				`CREATE TABLE two (v varchar); INSERT INTO two VALUES ('secret'), ('secret');
				CREATE TABLE three (v varchar); INSERT INTO three SELECT 'secret' FROM generate_series(1, 3);
				CREATE FUNCTION turn(value text) RETURNS boolean LANGUAGE SQL AS
					$$ SELECT set_config('standard_conforming_strings', value, false) = '' $$`,
				{ user: "pgdog", database },
			);
		const { host, port } = cluster.primary;
		const names = ["pgdog", "latin", "ascii"];
		proxy = await startProxy({
			config: {
				general: { min_pool_size: 0, workers: 1, default_pool_size: 1 },
				databases: names.map((name) => ({ name, host, port })),
				plugins: [{ name: scribe, required: true }],
			},
			users: names.map((database) => ({ name: "pgdog", database, password: "pgdog" })),
			env: notes.env,
		});
	}, BUILD_TIMEOUT);
	afterAll(async () => {
		await proxy?.stop("SIGKILL");
		await cluster?.stop();
	});

	class Session {
		/** The statement that was prepared last: its mark, which is its name too, and its text. */
		kept: [string, string] | null = null;
		status = "I";
		constructor(readonly client: RawClient) {}

		async answers(count: number, ...frames: Uint8Array[]): Promise<QueryResult[]> {
			this.client.send(Buffer.concat(frames));
			const results: QueryResult[] = [];
			for (let i = 0; i < count; i++) results.push(await this.client.result());
			this.status = results.at(-1)!.status;
			return results;
		}
	}

	async function take(session: Session, { change, how, rest }: Step): Promise<void> {
		if (session.status === "E") await session.answers(1, frames.query("ROLLBACK"));
		let its = `m${++mark}`;
		let sql = `SELECT '${its}'${rest}`;
		const together = change !== null && ["pipelined", "batch", "one string"].includes(how);
		if (how === "prepared") {
			const [parsed] = await session.answers(1, frames.parse(sql, its), f.sync());
			session.kept = parsed!.errors.length === 0 ? [its, sql] : null;
			if (session.status === "E") await session.answers(1, frames.query("ROLLBACK"));
		}
		if (change !== null && !together) await session.answers(1, frames.query(change));
		notes.fresh();
		const before = session.client.parameters.client_encoding!;
		let answer: QueryResult;
		let own = 0;
		if (how === "prepared" || how === "again") {
			if (session.kept === null) return;
			[its, sql] = session.kept;
			answer = (await session.answers(1, ...frames.run(its), f.sync()))[0]!;
		} else if (change === null || !together) {
			const said = how === "query" ? [frames.query(sql)] : [frames.parse(sql), ...frames.run(), f.sync()];
			answer = (await session.answers(1, ...said))[0]!;
		} else if (how === "pipelined") {
			const both = await session.answers(2, frames.query(change), frames.query(sql));
			answer = both[1]!;
		} else if (how === "batch") {
			const first = [frames.parse(change), ...frames.run()];
			answer = (await session.answers(1, ...first, frames.parse(sql), ...frames.run(), f.sync()))[0]!;
			own = 1;
		} else answer = (await session.answers(1, frames.query(`${change}; ${sql}`)))[0]!;
		// The encoding that the first message of a pipeline has set came before the second's answer.
		const encoding = how === "pipelined" ? session.client.parameters.client_encoding! : before;
		const stored = session.client.parameters.server_encoding!;
		const seen = notes.fresh().filter(({ words }) => words.includes(its));
		// A function that changes settings in the middle of a pipeline is not seen: what is inside of a constant and what is not has
		// to agree then. Where the encoding changes in the middle, it is not known which one the values have come in.
		const loosely = together && /^SELECT turn|^RESET|encoding|NAMES/.test(change!);
		compare(its, sql, answer, seen, { encoding, stored, own, loosely });
		if (seen.length > 0) noted.add(its);
		count(session, sql, how, together, answer, seen);
	}

	function compare(
		its: string,
		sql: string,
		answer: QueryResult,
		seen: Note[],
		{ encoding, stored, own, loosely }: { encoding: string; stored: string; own: number; loosely: boolean },
	): void {
		const failed = answer.errors.length > 0;
		const ran = settled(wordsOf(answer.messages, encoding, stored), loosely);
		const about = JSON.stringify({ its, sql, errors: answer.errors.map(({ C, M }) => [C, M]), seen, ran });
		if (seen.length === 0) {
			expect([about, failed, ran, answer.tags.length <= own]).toEqual([about, true, [], true]);
			return;
		}
		for (const note of seen) {
			const words = settled(note.words, loosely);
			if (failed) {
				for (const word of ran) expect([about, words.includes(word)]).toEqual([about, true]);
			} else {
				expect([about, ran, answer.tags.length - own]).toEqual([about, words, note.statements]);
			}
		}
	}

	function count(
		{ client }: Session,
		sql: string,
		how: Step["how"],
		together: boolean,
		answer: QueryResult,
		seen: Note[],
	): void {
		if (seen.length === 0 && answer.errors.some(({ M }) => M === UNCERTAIN)) {
			met.refused++;
			// With all answered before it, and characters that every encoding has, there is one way to read it.
			expect([how, sql, settledBefore(how) && isAscii(sql)]).toEqual([how, sql, false]);
		}
		if (answer.errors.length > 0) return;
		met.ran++;
		if (client.parameters.standard_conforming_strings === "off" && sql.includes("\\")) met.escaped++;
		if (!isAscii(sql)) met.foreign++;
		if (how === "prepared" || how === "again") met.prepared++;
		if (together) met.behind++;
		if (seen.some(({ words }) => words.some((word) => TABLES.includes(word)))) met.tables++;
		if (answer.tags.length > 1) met.several++;
	}

	test("never does a plugin see one statement and PostgreSQL run another", async () => {
		await fc.assert(
			fc.asyncProperty(session, async ({ database, startup, steps }) => {
				const clients = await Promise.all(
					startup.map(({ client_encoding, options }) =>
						connect(proxy, {
							database,
							parameters: {
								// Nothing else can be converted to LATIN1.
								...(client_encoding && { client_encoding: database === "latin" ? "LATIN1" : client_encoding }),
								...(options && { options }),
							},
						}),
					),
				);
				const sessions = clients.map((client) => new Session(client));
				try {
					for (const step of steps) {
						// There is one server, and who has a transaction has it.
						const other = sessions[1 - step.client]!;
						if (other.status !== "I") await other.answers(1, frames.query("COMMIT"));
						await take(sessions[step.client]!, step);
					}
				} finally {
					for (const client of clients) await client[Symbol.asyncDispose]();
				}
			}),
			{
				numRuns: Number(process.env.RUNS ?? 60),
				examples: [[PLAIN]],
				...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}),
			},
		);
		await logsAreWritten(cluster);
		// What was only parsed was not run; of what has an error in its syntax the log has no such line.
		const lines = cluster.primary.log.matchAll(/LOG: .*?(?:statement|execute \S+): [^\n]*SELECT '(m\d+)'/g);
		for (const [line, its] of lines) expect([line, noted.has(its!)]).toEqual([line, true]);
		for (const [what, times] of Object.entries(met)) expect([what, times, times > 0]).toEqual([what, times, true]);
	});
});
