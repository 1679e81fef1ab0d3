// Random sessions of several clients, each straight to PostgreSQL and through the proxy: statements that are prepared, described,
// run and closed, while the sessions change the settings that texts are read by, and tables and types change under them. The
// proxy's clients share servers, and so statements. What comes back must be the same, wherever it was prepared and by whom.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { Body, dataRow, errorFields, type Message } from "../support/message.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { frontend as f } from "../support/wire-frames.ts";

setDefaultTimeout(120_000);

const CLIENTS = 3;
const WAYS = ["one", "split", "tight"] as const;
type Way = (typeof WAYS)[number];

let cluster: Cluster;
let proxy: Proxy;
/** A server has few statements, and none for long. */
let tight: Proxy;

beforeAll(async () => {
	cluster = await startPostgres({ databases: ["straight", ...WAYS], settings: { autovacuum: "off" } });
	const { host, port } = cluster.primary;
	const start = (ways: Way[], general: Record<string, unknown>, databases: Record<string, unknown>[]) =>
		startProxy({
			config: { general: { default_pool_size: 4, min_pool_size: 0, ...general }, databases },
			users: ways.map((database) => ({ name: "pgdog", database, password: "pgdog" })),
		});
	proxy = await start(["one", "split"], { workers: 2 }, [
		{ name: "one", host, port },
		// Two pools of the same server: where a statement runs depends on what it is.
		{ name: "split", host, port, role: "primary" },
		{ name: "split", host: "localhost", port, role: "replica" },
	]);
	const few = { workers: 1, prepared_statements_limit: 2, prepared_statements_ttl: 100 };
	tight = await start(["tight"], few, [{ name: "tight", host, port }]);
});

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await tight?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

/** Two tenants have tables of the same names, which are not alike. */
const SCHEMA = `
	DROP SCHEMA IF EXISTS ta, tb CASCADE;
	DROP TABLE IF EXISTS common; DROP TYPE IF EXISTS mood;
	CREATE SCHEMA ta; CREATE SCHEMA tb;
	CREATE TABLE ta.x (a int, b text); INSERT INTO ta.x VALUES (1, 'one'), (2, 'two');
	CREATE TABLE tb.x (a bigint, b date); INSERT INTO tb.x VALUES (3, '2024-03-01');
	CREATE TABLE ta.y (d date, n int); CREATE TABLE tb.y (d timestamp, n bigint);
	CREATE TABLE common (price int, stock int, at timestamptz); INSERT INTO common VALUES (100, 7, '2024-01-01 00:00Z');
	CREATE TYPE mood AS ENUM ('good', 'bad');
`;

/** With the values of their parameters. */
const TEXTS: [sql: string, ...values: string[]][] = [
	["SELECT * FROM x WHERE a < $1", "5000000000"],
	["SELECT * FROM x WHERE a < $1", "50"],
	["INSERT INTO y VALUES ($1, $2) RETURNING *", "2024-01-01 12:34:56", "7"],
	["INSERT INTO y VALUES ($1, $2) RETURNING *", "2024-01-01 12:34:56", "3000000000"],
	["SELECT * FROM common"],
	["UPDATE common SET stock = stock + $1 RETURNING *", "1"],
	["SELECT extract(epoch FROM timestamptz '2026-03-01 00:00')::bigint"],
	["SELECT extract(month FROM date '01/02/2026')::int"],
	["SELECT length('a\\nb'), $1::int", "1"],
	["SELECT count(*) FROM common WHERE at < '2024-01-01 03:00'"],
	["SELECT $1::mood::text", "good"],
	["SELECT 1"],
];

const SETTINGS = [
	"SET search_path = ta, public",
	"SET search_path = tb, public",
	"SET TimeZone = 'America/New_York'",
	"SET DateStyle = 'ISO, DMY'",
	"SET standard_conforming_strings = off",
	"RESET TimeZone",
	"RESET ALL",
	"SELECT set_config('search_path', 'tb, public', false)",
	"SET LOCAL search_path = tb, public",
	"SET LOCAL TimeZone = 'Asia/Tokyo'",
	"SELECT set_config('DateStyle', 'ISO, DMY', true)",
];

const CONTROL = ["BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT s", "ROLLBACK TO s"];

const OWN = ["CREATE TEMP TABLE x (a date, b int) ON COMMIT DROP", "ALTER TABLE common ADD extra int DEFAULT 5"];

const ALTERS = [
	"ALTER TABLE ta.y ALTER d TYPE timestamp",
	"ALTER TABLE ta.y ALTER d TYPE date",
	"ALTER TABLE ta.y ALTER n TYPE bigint",
	"ALTER TABLE ta.x ALTER a TYPE bigint",
	"ALTER TABLE ta.x ADD c int",
	"ALTER TABLE common RENAME stock TO shelf",
	"ALTER TABLE common RENAME shelf TO stock",
	"ALTER TABLE common DROP price, ADD price int DEFAULT 3",
	"DROP TABLE common; CREATE TABLE common (stock int, price int, at timestamptz); INSERT INTO common VALUES (8, 200, '2025-05-05 05:05Z')",
	"DROP TYPE mood; CREATE TYPE mood AS ENUM ('bad', 'good', 'so so')",
	"DO $$ BEGIN ALTER TABLE tb.x RENAME b TO c; EXCEPTION WHEN undefined_column THEN ALTER TABLE tb.x RENAME c TO b; END $$",
];

type Part =
	| { do: "parse"; name: string; text: number; describe: boolean }
	| { do: "run"; name: string; describe: "S" | "P" | "" }
	| { do: "close"; name: string }
	| { do: "sync" };
type Step =
	| { do: "batch"; client: number; parts: Part[] }
	| { do: "sql"; client: number; sql: string; parts: Part[] }
	| { do: "alter"; sql: string }
	| { do: "hold" }
	| { do: "free" };

const name = fc.constantFrom("", "a", "a", "b", "c");
const client = fc.nat(CLIENTS - 1);
const parse = fc.record({
	do: fc.constant("parse" as const),
	name,
	text: fc.nat(TEXTS.length - 1),
	describe: fc.boolean(),
});
const run = fc.record({ do: fc.constant("run" as const), name, describe: fc.constantFrom("S", "P", "") });
// An unnamed statement whose Close an error has undone, we do not know to be there, and forget it.
const close = fc.record({ do: fc.constant("close" as const), name: fc.constantFrom("a", "b", "c") });
const part = fc.oneof(
	{ weight: 5, arbitrary: run },
	{ weight: 3, arbitrary: parse },
	{ weight: 1, arbitrary: close },
	{ weight: 2, arbitrary: fc.record({ do: fc.constant("sync" as const) }) },
) as fc.Arbitrary<Part>;
const parts = fc.array(part, { minLength: 1, maxLength: 4 });
const step = fc.oneof(
	{ weight: 12, arbitrary: fc.record({ do: fc.constant("batch" as const), client, parts }) },
	{
		weight: 5,
		arbitrary: fc.record({
			do: fc.constant("sql" as const),
			client,
			sql: fc.constantFrom(...SETTINGS, ...CONTROL, ...CONTROL, ...OWN),
			// Sent behind it at once.
			parts: fc.oneof(fc.constant([]), parts),
		}),
	},
	{ weight: 2, arbitrary: fc.record({ do: fc.constant("alter" as const), sql: fc.constantFrom(...ALTERS) }) },
	{ weight: 2, arbitrary: fc.record({ do: fc.constantFrom("hold" as const, "free" as const) }) },
) as fc.Arbitrary<Step>;

/** One client in both worlds. */
class Pair {
	readonly straight: RawClient;
	readonly proxied: RawClient;
	status = "I";
	/** The text that each name was last given, and what `settings` and `changes` were then. */
	readonly texts = new Map<string, { text: number; settings: number; changes: number }>();
	/** How often the session may have come to read constants otherwise. */
	settings = 0;
	/** An unnamed Parse is in the batch. */
	hasUnnamed = false;

	constructor(straight: RawClient, proxied: RawClient) {
		this.straight = straight;
		this.proxied = proxied;
	}

	/** Sends the same to both. @param answers how many times ReadyForQuery comes */
	async ask(frames: Uint8Array[], answers: number): Promise<[string[], string[]]> {
		const said: string[][] = [];
		for (const side of [this.straight, this.proxied]) {
			side.send(...frames);
			const messages: Message[] = [];
			for (let i = 0; i < answers; i++) messages.push(...(await side.result()).messages);
			said.push(messages.flatMap(shown));
		}
		const before = this.status;
		if (before !== "I") this.settings++;
		this.status = said[0]!.at(-1)?.at(-1) ?? "";
		return said.map((lines) => comparable(lines, before)) as [string[], string[]];
	}
}

/**
 * Without what depends on where a statement is: what it is that fails first in a transaction that has failed, and whether the
 * parameters of a statement are told before it is found out that it is not the same any more.
 */
function comparable(lines: string[], before: string): string[] {
	let failed = before === "E";
	const kept: string[] = [];
	for (const line of lines) {
		if (line.startsWith("Z")) failed = line === "Z E";
		if (line.startsWith("E ")) {
			if (kept.at(-1)?.startsWith("t ")) kept.pop();
			if (/^[Tn]/.test(kept.at(-1) ?? "") && kept.at(-2)?.startsWith("t ")) kept.splice(-2);
		}
		kept.push(failed && line.startsWith("E ") ? "E" : line);
	}
	return kept;
}

/** Types that users have made have other OIDs in another database. */
function type(oid: number): string {
	return oid >= 16384 ? "own" : String(oid);
}

function shown({ code, body }: Message): string[] {
	const reader = new Body(body);
	switch (code) {
		case "S":
		case "N":
			return [];
		case "T": {
			const columns = Array.from({ length: reader.int16() }, () => {
				const column = reader.cstring();
				reader.bytes(6);
				const oid = reader.int32();
				reader.bytes(8);
				return `${column} ${type(oid)}`;
			});
			return [`T ${columns.join(", ")}`];
		}
		case "t":
			return [`t ${Array.from({ length: reader.int16() }, () => type(reader.int32())).join(" ")}`];
		case "D":
			return [`D ${dataRow(body).join(", ")}`];
		case "E":
			return [`E ${errorFields(body).C}`];
		case "C":
			return [`C ${reader.cstring()}`];
		case "Z":
			return [`Z ${body.toString("latin1")}`];
		default:
			return [code];
	}
}

/** Settings that constants are read by. */
const CONSTANTS = /TimeZone|DateStyle|standard_conforming_strings|RESET ALL/;

/**
 * Whether some text is run whose constants PostgreSQL may read anew, by other settings than it did at Parse: it does so when it has
 * heard of some change of the catalogue, or may. Then neither has to be right.
 */
function isUnsure(pair: Pair, list: readonly Part[], changes: number): boolean {
	return list.some((each) => {
		const known = each.do === "run" ? pair.texts.get(each.name) : undefined;
		return known !== undefined && known.settings !== pair.settings && known.changes !== changes;
	});
}

function framesOf(pair: Pair, list: readonly Part[], changes: number): Uint8Array[] {
	pair.hasUnnamed = false;
	return list.flatMap((each): Uint8Array[] => {
		switch (each.do) {
			case "parse": {
				const [sql] = TEXTS[each.text]!;
				// Which of several is left when a batch fails in the middle, we do not know, and forget them.
				if (each.name === "" && pair.hasUnnamed) return [];
				if (each.name === "") pair.hasUnnamed = true;
				pair.texts.set(each.name, { text: each.text, settings: pair.settings, changes });
				// What it is when it is not asked for, PostgreSQL knows and we do not: it is told what it is then.
				return each.describe || each.name === ""
					? [f.parse(sql, each.name), f.describe("S", each.name)]
					: [f.parse(sql, each.name)];
			}
			case "run": {
				const [, ...values] = TEXTS[pair.texts.get(each.name)?.text ?? 0]!;
				const before = each.describe === "S" ? [f.describe("S", each.name)] : [];
				const after = each.describe === "P" ? [f.describe("P")] : [];
				return [...before, f.bind({ statement: each.name, values }), ...after, f.execute()];
			}
			case "close":
				return [f.close("S", each.name)];
			case "sync":
				pair.hasUnnamed = false;
				return [f.sync()];
			default:
				throw new Error("a part of no kind");
		}
	});
}

async function play(way: Way, steps: readonly Step[]): Promise<string[]> {
	const log: string[] = [];
	const open: RawClient[] = [];
	const connect = async (database: string, port: number) => {
		const made = await RawClient.connect({ port, user: "pgdog", password: "pgdog", database });
		open.push(made);
		return made;
	};
	const pairOf = async () => new Pair(await connect("straight", cluster.port), await connect(way, port));
	const { port } = way === "tight" ? tight : proxy;
	try {
		const ddl = await pairOf();
		await ddl.ask([f.query(SCHEMA)], 1);
		const pairs = await Promise.all(Array.from({ length: CLIENTS }, pairOf));
		const holder = await connect(way, port);
		let held = false;
		/** Of the catalogue, by whomever. */
		let changes = 0;
		for (const each of steps) {
			let unsure = false;
			let said: [string[], string[]] | null = null;
			if (each.do === "alter") {
				// It would wait for their locks.
				if (pairs.some(({ status }) => status !== "I")) continue;
				said = await ddl.ask([f.query(each.sql)], 1);
				changes++;
			} else if (each.do === "hold" || each.do === "free") {
				if (held === (each.do === "hold")) continue;
				held = !held;
				await holder.query(held ? "BEGIN; SELECT 1" : "COMMIT");
			} else {
				const pair = pairs[each.client]!;
				// Locks of one would be waited for by the others.
				if (pairs.some((other) => other !== pair && other.status !== "I")) continue;
				if (each.do === "sql" && CONSTANTS.test(each.sql)) pair.settings++;
				if (each.do === "sql" && OWN.includes(each.sql)) changes++;
				unsure = isUnsure(pair, each.parts, changes);
				const frames = framesOf(pair, each.parts, changes);
				const syncs = each.parts.filter((item) => item.do === "sync").length;
				if (each.do === "batch") said = await pair.ask([...frames, f.sync()], syncs + 1);
				else if (frames.length === 0) said = await pair.ask([f.query(each.sql)], 1);
				else said = await pair.ask([f.query(each.sql), ...frames, f.sync()], syncs + 2);
			}
			log.push(JSON.stringify(each));
			if (said === null) continue;
			const [straight, proxied] = said;
			// Of another text than is thought here, since that of the name was not parsed.
			for (const [i, line] of straight.entries())
				if (/^E (08P01|22)/.test(line) && proxied[i]?.startsWith("E ")) proxied[i] = line;
			const seen = (lines: string[]) =>
				JSON.stringify(unsure ? lines.map((line) => (line.startsWith("D ") ? "D" : line)) : lines);
			if (seen(straight) !== seen(proxied))
				return [...log, `straight: ${straight.join(" | ")}`, `proxied:  ${proxied.join(" | ")}`];
		}
		return [];
	} finally {
		for (const each of open) each.close();
	}
}

/** What was found once: a Parse of what the server has, behind a BEGIN and what fails in its transaction, none of which is answered yet. */
const FOUND: Step[] = [
	{ do: "batch", client: 1, parts: [{ do: "parse", name: "b", text: 11, describe: false }] },
	{
		do: "sql",
		client: 0,
		sql: "BEGIN",
		parts: [
			{ do: "run", name: "c", describe: "" },
			{ do: "sync" },
			{ do: "parse", name: "c", text: 11, describe: false },
		],
	},
];

/** What was found once: a Parse of what the server has of an earlier catalogue, behind a Query that is not answered yet. */
const OUTDATED: Step[] = [
	{ do: "batch", client: 0, parts: [{ do: "parse", name: "b", text: 4, describe: true }] },
	{ do: "alter", sql: ALTERS.find((sql) => sql.startsWith("DROP TABLE common"))! },
	{
		do: "sql",
		client: 0,
		sql: "ROLLBACK",
		parts: [
			{ do: "parse", name: "a", text: 4, describe: true },
			{ do: "run", name: "a", describe: "" },
		],
	},
];

test.each([...WAYS])("random sessions, %s", async (way) => {
	await fc.assert(
		fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60 }), async (steps) => {
			expect(await play(way, steps)).toEqual([]);
		}),
		{
			examples: [[FOUND], [OUTDATED]],
			numRuns: Number(process.env.RUNS ?? 20),
			endOnFailure: process.env.SHRINK === undefined,
			...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}),
		},
	);
});
