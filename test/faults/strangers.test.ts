// No byte to a stranger. Bad messages at every place of valid pipelines, from clients and from servers, of every kind of cluster, all
// on one worker: beside them innocent clients of each cluster ask all the time, and every message they get is checked. What the bad
// ones had run is where it belongs and nowhere else, and what they were told they did is done.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { transcript } from "../support/transcript.ts";
import { within } from "../support/until.ts";
import {
	asksForTls,
	backend,
	bytes,
	concat,
	cstring,
	frontend,
	int16,
	int32,
	liar,
	message,
} from "../support/wire-frames.ts";

setDefaultTimeout(120_000);

const { query, parse, bind, execute, describe, sync, flush, close, copyData, copyDone } = frontend;

/** Each is a database of the proxy with a user and a PostgreSQL database (or two) of its own, so that nothing fits anywhere else. */
const KINDS = ["one", "pair", "session", "shards"] as const;
type Kind = (typeof KINDS)[number];
const STORES: Record<Kind, string[]> = {
	one: ["one"],
	pair: ["pair"],
	session: ["session"],
	shards: ["shard0", "shard1"],
};

let cluster: Cluster;
let proxy: Proxy;
let breaker: ReturnType<typeof startBreaker>;

beforeAll(async () => {
	cluster = await startPostgres({ databases: Object.values(STORES).flat() });
	for (const kind of KINDS) {
		await cluster.primary.sql(`CREATE ROLE ${kind} LOGIN SUPERUSER PASSWORD '${kind}'`);
		for (const database of STORES[kind])
			await cluster.primary.sql(
				`CREATE TABLE ran (token text, who text DEFAULT current_user, here text DEFAULT current_database());
				CREATE TABLE each_shard (); INSERT INTO each_shard DEFAULT VALUES`,
				{ database },
			);
	}
	breaker = startBreaker();
	const server = { host: "127.0.0.1", port: cluster.port };
	const databases = [
		{ name: "one", database_name: "one", ...server },
		{ name: "pair", database_name: "pair", role: "primary", ...server },
		{ name: "pair", database_name: "pair", role: "replica", ...server, host: "localhost" },
		{ name: "session", database_name: "session", pooler_mode: "session", ...server },
		...STORES.shards.map((database_name, shard) => ({ name: "shards", shard, database_name, ...server })),
		{ name: "breaks", host: "127.0.0.1", port: breaker.port },
	];
	proxy = await startProxy({
		config: {
			general: {
				workers: 1,
				default_pool_size: 3,
				min_pool_size: 0,
				log_connections: false,
				log_disconnections: false,
				query_size_limit: 100_000,
				query_size_limit_action: "block",
				rollback_timeout: 500,
				ban_timeout: 1,
			},
			databases,
		},
		users: [...KINDS, "breaks"].map((name) => ({ name, database: name, password: name })),
	});
});
afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	breaker?.stop();
	await cluster?.[Symbol.asyncDispose]();
});

const connect = (kind: string, timeout = 10_000) =>
	RawClient.connect({ port: proxy.port, user: kind, password: kind, database: kind, timeout });

// ---- the innocent ----------------------------------------------------------------------------------------------------------

/** What one must get, message by message: its own words, once, in order. */
function expectOwn(
	said: string,
	asked: string,
	answer: Awaited<ReturnType<RawClient["result"]>>,
	letters: string,
): void {
	const got = answer.messages.map(({ code }) => code).join("");
	if (got === letters && answer.rows.every(([value]) => value === asked) && answer.rows.length > 0) return;
	throw new Error(`${said} asked for ${asked} and got\n${transcript(answer.messages)}`);
}

/** Fewest requests of an innocent client: each kind of request, and one that comes again. */
const ENOUGH = 6;

/** Asks in every way there is until told to stop, and checks each answer. @returns how many there were */
async function innocent(kind: Kind | "breaks", number: number, over: () => boolean): Promise<number> {
	let asked = 0;
	await using client = await connect(kind);
	const name = `innocent ${number} of ${kind}`;
	// With a table of each shard's there are two rows: what names none is one shard's to answer.
	const two = kind === "shards";
	client.send(parse("SELECT $1::text, current_user", "mine"), sync());
	await client.result();
	// However short the attack was on this machine, it is asked as much as shows something.
	while (!over() || asked < ENOUGH) {
		const token = `${kind}:${number}:${asked++}`;
		switch (asked % 4) {
			case 0: {
				client.send(query(`SELECT '${token}' FROM pg_sleep(0.002)${two ? ", each_shard" : ""}`));
				expectOwn(name, token, await client.result(), two ? "TDDCZ" : "TDCZ");
				break;
			}
			case 1: {
				client.send(bind({ statement: "mine", values: [token] }), execute(), sync());
				expectOwn(name, token, await client.result(), "2DCZ");
				break;
			}
			case 2: {
				client.send(parse(`SELECT '${token}' FROM pg_class LIMIT 1`), bind(), describe("P"), execute(), sync());
				expectOwn(name, token, await client.result(), "12TDCZ");
				break;
			}
			default: {
				const who = await client.query(`BEGIN; SELECT '${token}', current_user, current_database(); COMMIT`);
				expectOwn(name, token, who, "CTDCCZ");
				if (kind !== "breaks") expect(who.rows[0]!.slice(1)).toEqual([kind, STORES[kind as Kind][0]!]);
			}
		}
	}
	return asked;
}

/** Runs `attack` while innocent clients of every cluster are served; any wrong answer of theirs fails it. */
async function besideInnocents(kinds: readonly (Kind | "breaks")[], attack: () => Promise<void>): Promise<void> {
	let over = false;
	const innocents = kinds.flatMap((kind) => [0, 1].map((number) => innocent(kind, number, () => over)));
	// One that fails must end the test at once, not when all attacks are done.
	const failed = Promise.all(innocents);
	await Promise.race([
		attack().finally(() => {
			over = true;
		}),
		failed,
	]);
	over = true;
	for (const count of await within(failed, "the innocent clients to end")) expect(count).toBeGreaterThanOrEqual(ENOUGH);
}

// ---- bad clients -----------------------------------------------------------------------------------------------------------

/** Valid pipelines; `token` marks what each of their statements has run. */
const PIPELINES: Record<string, (token: (n: number) => string) => Uint8Array[]> = {
	"named statements": (token) => [
		parse(`INSERT INTO ran VALUES ('${token(0)}')`, "a"),
		bind({ statement: "a" }),
		execute(),
		sync(),
		parse("INSERT INTO ran VALUES ($1)", "b"),
		describe("S", "b"),
		bind({ statement: "b", values: [token(1)] }),
		execute(),
		close("S", "b"),
		sync(),
	],
	"unnamed statements": (token) => [
		parse(`INSERT INTO ran VALUES ('${token(0)}')`),
		bind(),
		execute(),
		flush(),
		sync(),
		parse(`INSERT INTO ran VALUES ('${token(1)}') RETURNING token`),
		bind(),
		describe("P"),
		execute(),
		sync(),
	],
	"simple queries": (token) => [
		query(`INSERT INTO ran VALUES ('${token(0)}')`),
		query("SELECT 'row'"),
		query(`INSERT INTO ran VALUES ('${token(1)}')`),
	],
	"a transaction": (token) => [
		query("BEGIN"),
		parse(`INSERT INTO ran VALUES ('${token(0)}')`),
		bind(),
		execute(),
		sync(),
		query(`INSERT INTO ran VALUES ('${token(1)}')`),
		query("COMMIT"),
	],
	"a statement given twice": (token) => [
		parse(`INSERT INTO ran VALUES ('${token(0)}')`, "c"),
		parse("SELECT 1", "c"),
		bind({ statement: "c" }),
		execute(),
		sync(),
		bind({ statement: "c" }),
		execute(),
		sync(),
		query(`INSERT INTO ran VALUES ('${token(1)}')`),
	],
	"a COPY": (token) => [
		query("COPY ran (token) FROM STDIN"),
		copyData(`${token(0)}\n`),
		copyDone(),
		query(`INSERT INTO ran VALUES ('${token(1)}')`),
	],
};

/** What comes at some place of it. */
const BAD: Record<string, Uint8Array> = {
	"a byte that begins no message": bytes(0x40, 0, 0, 0, 4),
	"a length of three": liar("P", 3),
	"a negative length": liar("B", -1),
	"more than any message may be": liar("Q", 0x7fffffff),
	"an Execute of 20,000 bytes": liar("E", 20_000),
	"a Flush with a body": message("H", bytes(1)),
	"a Sync with a body": message("S", bytes(1)),
	"a Parse without an end": message("P", cstring("x")),
	"a Bind that lies about its values": message("B", cstring(""), cstring("a"), int16(0), int16(9), int32(5)),
	"a Bind of a name that is the proxy's": bind({ statement: "__pgdog_1" }),
	"a Bind of nothing": bind({ statement: "nothing" }),
	"a Describe of neither": message("D", bytes(0x51), cstring("a")),
	"an Execute without its number": message("E", cstring("")),
	"a query that the limit refuses": query(`SELECT 1 -- ${"x".repeat(120_000)}`),
	"a Parse that the limit refuses": parse(`SELECT 1 -- ${"x".repeat(120_000)}`),
	"an answer to no login": message("p", cstring("secret")),
	"a CopyFail": message("f", cstring("no")),
	"SQL that is none": query("SELEC"),
	"a Parse that is none": parse("SELEC", "d"),
	"the end": frontend.terminate(),
	"half a message": liar("P", 4_000, cstring("half"), cstring("SELECT")),
};

interface Attack {
	readonly kind: Kind;
	readonly name: string;
	readonly messages: readonly Uint8Array[];
	readonly at: number;
	readonly bad: Uint8Array;
	readonly whole: boolean;
}

/** Every bad message at every place of every pipeline, to each cluster in turn. */
function attacks(): Attack[] {
	const found: Attack[] = [];
	let n = 0;
	for (const [pipeline, make] of Object.entries(PIPELINES))
		for (const [bad, what] of Object.entries(BAD)) {
			const places = make(() => "").length + 1;
			for (let at = 0; at < places; at++) {
				const kind = KINDS[n++ % KINDS.length]!;
				const name = `${kind}:${pipeline}:${bad}:${at}`;
				const messages = make((i) => `${name}:${i}`.replaceAll(" ", "_"));
				found.push({ kind, name, messages, at, bad: what, whole: n % 3 > 0 });
			}
		}
	return found;
}

/** Sends one, and leaves when it is over. @returns the tokens of inserts that were acknowledged outside of transactions */
async function run({ kind, messages, at, bad, whole }: Attack): Promise<void> {
	await using client = await connect(kind, 15_000);
	const before = concat(...messages.slice(0, at));
	const after = concat(...messages.slice(at), sync(), query("ROLLBACK; SELECT 'over'"));
	if (whole) client.send(concat(before, bad, after));
	else {
		client.send(before);
		client.send(concat(bad, after));
	}
	// It is answered, or closed; a message that never ends leaves both waiting, and the client goes.
	const answered = (async () => {
		while (!client.ended) {
			const { rows, messages } = await client.result();
			if (rows.some(([value]) => value === "over") || messages.length === 0) break;
		}
	})();
	await Promise.race([answered.catch(() => undefined), Bun.sleep(150)]);
	client.reset();
}

test("a bad message at any place of a pipeline, to any cluster, costs its sender alone", async () => {
	const all = attacks();
	await besideInnocents(KINDS, async () => {
		const queue = all.values();
		const attacker = async () => {
			for (const attack of queue) await run(attack);
		};
		await Promise.all(Array.from({ length: 12 }, attacker));
	});
	const known = new Set(all.map(({ name }) => name.replaceAll(" ", "_")));
	for (const kind of KINDS)
		for (const database of STORES[kind]) {
			const rows = await cluster.primary.sql("SELECT token, who, here FROM ran", { database });
			expect(rows.length).toBeGreaterThan(10);
			// Each by its own user, in its own database.
			const strays = rows.filter(({ token, who, here }) => {
				const name = String(token).replace(/:\d+$/, "");
				return !String(token).startsWith(`${kind}:`) || who !== kind || here !== database || !known.has(name);
			});
			expect(strays).toEqual([]);
		}
	expect(proxy.lines.filter((line) => /internal error|broke the protocol/.test(line))).toEqual([]);
	expect(proxy.running).toBe(true);
});

// ---- bad servers -----------------------------------------------------------------------------------------------------------

const SECRET = "SECRET of another database";
const WELCOME = concat(
	backend.authenticationOk(),
	backend.parameterStatus("server_version", "17.0"),
	backend.backendKeyData(1, 2),
	backend.readyForQuery(),
);

/** What a server may say that it must not, anywhere in an answer; null: it closes there. */
const BREACHES: Record<string, Uint8Array | null> = {
	closes: null,
	"closes in the middle of a row": concat(liar("D", 500, cstring(SECRET)), bytes(0xff)),
	"sends a type that there is none of": message("?", cstring(SECRET)),
	"sends a length of three": liar("D", 3),
	"says BindComplete": backend.bindComplete(),
	"says ParseComplete": backend.parseComplete(),
	"says CloseComplete": backend.closeComplete(),
	"is ready": backend.readyForQuery(),
	"is ready and sends a row": concat(backend.readyForQuery(), backend.dataRow(SECRET)),
	"is ready in no known way": message("Z", bytes(0x3f)),
	"begins a COPY": backend.copyInResponse(),
	"begins a COPY both ways": backend.copyBothResponse(),
	"sends another key": backend.backendKeyData(7, 8),
	"asks for a password": backend.authenticationCleartextPassword(),
	"describes parameters": backend.parameterDescription(25),
	"answers a function call": backend.functionCallResponse(SECRET),
	"sends a row": backend.dataRow(SECRET),
	fails: backend.errorResponse({ S: "ERROR", V: "ERROR", C: "XX000", M: SECRET }),
	"fails for good": backend.errorResponse({ S: "FATAL", V: "FATAL", C: "57P01", M: SECRET }),
};

/** A server whose Query says what it does: `place breach`. */
function startBreaker() {
	const names = Object.keys(BREACHES);
	const listener = Bun.listen<{ in: boolean }>({
		hostname: "127.0.0.1",
		port: 0,
		socket: {
			open(socket) {
				socket.data = { in: false };
			},
			data(socket, chunk) {
				if (asksForTls(chunk)) {
					socket.write("N");
					return;
				}
				if (!socket.data.in) {
					socket.data.in = true;
					socket.write(WELCOME);
					return;
				}
				if (chunk[0] !== 81) return;
				const [, place, breach] = /break (\d+) (\d+)/.exec(chunk.toString("latin1")) ?? [];
				const answer = [
					backend.rowDescription("a"),
					backend.dataRow(SECRET),
					backend.dataRow(SECRET),
					backend.commandComplete("SELECT 2"),
					backend.readyForQuery(),
				];
				if (place === undefined) {
					socket.write(concat(...answer));
					return;
				}
				const wrong = BREACHES[names[Number(breach)]!]!;
				const said = answer.slice(0, Number(place));
				socket.write(concat(...said, ...(wrong === null ? [] : [wrong, ...answer.slice(Number(place))])));
				if (wrong === null || wrong.at(-1) === 0xff) socket.end();
			},
		},
	});
	return { port: listener.port, stop: () => listener.stop(true) };
}

test("a server that breaks the protocol at any place of an answer costs the client that asked alone", async () => {
	const places = [0, 1, 2, 3, 4, 5];
	const cases = Object.keys(BREACHES).flatMap((name, breach) => places.map((place) => ({ name, breach, place })));
	await besideInnocents(["one", "session"], async () => {
		const queue = cases.values();
		const asker = async () => {
			for (const { name, breach, place } of queue) {
				await using client = await connect("breaks", 15_000);
				client.send(query(`break ${place} ${breach}`));
				const end = await Promise.race([
					client.closed.catch(() => null),
					client.until("Z").catch(() => null),
					Bun.sleep(150),
				]);
				// Half a row is half a row: nothing of ours makes it whole.
				for (const { code, body } of client.received) {
					if (code !== "D") continue;
					const whole = body.readInt16BE(0) === 1 && body.subarray(6).toString() === SECRET;
					if (!whole) throw new Error(`a server that ${name} at ${place}: a row ${body.toString("latin1")}`);
				}
				void end;
				client.reset();
			}
		};
		await Promise.all(Array.from({ length: 4 }, asker));
	});
	// Nobody else is lent what is left of such a server.
	await using next = await connect("breaks");
	const { rows, messages } = await next.query("SELECT 1");
	expect([rows.length, messages.map(({ code }) => code).join("")]).toEqual([2, "TDDCZ"]);
	expect(proxy.lines.filter((line) => /internal error/.test(line))).toEqual([]);
	expect(proxy.running).toBe(true);
});
