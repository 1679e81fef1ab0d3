// The admin session message by message. Frames come from test/support, not from src/wire.

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { CommandAnswer } from "../../src/admin/commands.ts";
import { PgError } from "../../src/errors.ts";
import { Body, dataRow, errorFields, type Message } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { concat, frontend, int16, int32, liar, message } from "../support/wire-frames.ts";
import { type AdminListener, listen, VERSION } from "./support.ts";

const connect = (admin: AdminListener, parameters: Record<string, string> = {}) =>
	RawClient.connect({ port: admin.port, user: "admin", database: "admin", parameters });

/** The letters of the messages, errors with their SQLSTATE: `1 2 T D C`. */
function letters(messages: readonly Message[]): string {
	return messages
		.map(({ code, body }) =>
			code === "E" ? `E${errorFields(body).C}` : code === "Z" ? `Z${body.toString("latin1")}` : code,
		)
		.join(" ");
}

async function exchange(client: RawClient, ...frames: Uint8Array[]): Promise<string> {
	client.send(...frames);
	return letters(await client.until("Z"));
}

test("the session begins with the settings that drivers look for", async () => {
	using admin = listen();
	await using client = await connect(admin, { application_name: "monitor" });
	expect(client.parameters).toMatchObject({
		server_name: "PgDog",
		server_version: "0.1.0 (PgDog)",
		server_encoding: "UTF8",
		client_encoding: "UTF8",
		standard_conforming_strings: "on",
		application_name: "monitor",
	});
	expect(client.backendPid).toBe(0);
	expect(client.backendKey).toHaveLength(4);
	expect(client.received.slice(-2).map(({ code }) => code)).toEqual(["K", "Z"]);
});

test("a simple query: rows, an order, nothing, an error, several statements", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { query } = frontend;
	expect(await exchange(client, query("SHOW POOLS"))).toBe("T D D D C ZI");
	expect(await exchange(client, query("RELOAD"))).toBe("C ZI");
	expect(await exchange(client, query(" ; "))).toBe("I ZI");
	expect(await exchange(client, query("nonsense"))).toBe("E08P01 ZI");
	expect(await exchange(client, query("'unended"))).toBe("E08P01 ZI");
	expect(await exchange(client, query("PAUSE; SHOW VERSION; nonsense; SHUTDOWN"))).toBe("C T D C E08P01 ZI");
	expect(admin.source.orders).toEqual(["reload", "pause * *"]);
	expect(admin.asked).toEqual(["SHOW POOLS", "RELOAD", "nonsense", "PAUSE", "SHOW VERSION", "nonsense"]);
});

test("notices of a command come before its end, in both protocols, and fail nothing", async () => {
	using admin = listen();
	await using client = await connect(admin);
	admin.source.notices = [
		{ severity: "WARNING", message: "workers: 1 -> 2 (takes effect after a restart)" },
		{ severity: "NOTICE", message: "configuration reloaded" },
	];
	const { query, parse, bind, execute, sync } = frontend;
	expect(await exchange(client, query("BEGIN; RELOAD"))).toBe("C N N C ZT");
	const said = client.received.filter(({ code }) => code === "N").map(({ body }) => errorFields(body));
	expect(said.map(({ S, V, C, M }) => [S, V, C, M])).toEqual([
		["WARNING", "WARNING", "01000", admin.source.notices[0]!.message],
		["NOTICE", "NOTICE", "00000", "configuration reloaded"],
	]);
	expect(await exchange(client, parse("RELOAD"), bind(), execute(), sync())).toBe("1 2 N N C ZT");
});

test("the transaction status is what drivers expect after BEGIN, an error, ROLLBACK", async () => {
	using admin = listen();
	await using client = await connect(admin);
	expect(await exchange(client, frontend.query("BEGIN"))).toBe("C ZT");
	expect(await exchange(client, frontend.query("BEGIN"))).toBe("N C ZT");
	expect(await exchange(client, frontend.query("nonsense"))).toBe("E08P01 ZE");
	expect(await exchange(client, frontend.query("SHOW VERSION"))).toBe("T D C ZE");
	expect((await client.query("COMMIT")).tags).toEqual(["ROLLBACK"]);
	expect(await exchange(client, frontend.query("ROLLBACK"))).toBe("N C ZI");
	expect(await exchange(client, frontend.parse("nonsense"), frontend.sync())).toBe("E08P01 ZI");
	expect(await exchange(client, frontend.query("BEGIN; SAVEPOINT a"))).toBe("C C ZT");
	expect(await exchange(client, frontend.parse("nonsense"), frontend.sync())).toBe("E08P01 ZE");
	expect(await exchange(client, frontend.query("ROLLBACK TO a"))).toBe("C ZT");
	expect((await client.query("END")).status).toBe("I");
});

test("the extended protocol: describe before it runs, execute, and nothing runs twice", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { parse, bind, describe, execute, sync, close } = frontend;
	expect(await exchange(client, parse("RELOAD", "s"), describe("S", "s"), sync())).toBe("1 t n ZI");
	expect(admin.asked).toEqual([]);
	expect(await exchange(client, bind({ statement: "s" }), describe("P"), execute(), sync())).toBe("2 n C ZI");
	expect(admin.asked).toEqual(["RELOAD"]);
	expect(await exchange(client, bind({ statement: "s" }), execute(), execute(), sync())).toBe("2 C E55000 ZI");
	expect(await exchange(client, close("S", "s"), close("S", "s"), close("P", "p"), sync())).toBe("3 3 3 ZI");
	expect(await exchange(client, bind({ statement: "s" }), sync())).toBe("E26000 ZI");
	expect(await exchange(client, parse("SHOW POOLS"), bind(), describe("P"), execute(), execute(), sync())).toBe(
		"1 2 T D D D C C ZI",
	);
	expect(await exchange(client, parse(""), bind(), describe("P"), execute(), sync())).toBe("1 2 n I ZI");
	expect(admin.asked).toEqual(["RELOAD", "RELOAD", "SHOW POOLS"]);
});

test("after an error everything up to Sync is ignored, a Query too", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { parse, bind, execute, sync, query, flush } = frontend;
	const frames = [parse("nonsense"), bind(), execute(), query("SHUTDOWN"), flush(), sync(), query("SHOW VERSION")];
	client.send(...frames);
	expect(letters(await client.until("Z"))).toBe("E08P01 ZI");
	expect(letters(await client.until("Z"))).toBe("T D C ZI");
	admin.source.problems = ["wrong"];
	expect(await exchange(client, parse("RELOAD"), bind(), execute(), parse("SHUTDOWN"), bind(), execute(), sync())).toBe(
		"1 2 EF0000 ZI",
	);
	expect(admin.source.orders).toEqual(["reload"]);
});

test.each([
	["a statement that is there", [frontend.parse("RELOAD", "a"), frontend.parse("RELOAD", "a")], "1 E42P05"],
	["two commands", [frontend.parse("RELOAD; RELOAD")], "E42601"],
	["a parameter in the text", [frontend.parse("PAUSE $1")], "E0A000"],
	["a declared parameter", [frontend.parse("RELOAD", "", [25])], "E0A000"],
	["a value", [frontend.parse("RELOAD"), frontend.bind({ values: ["x", null] })], "1 E0A000"],
	[
		"a portal that is there",
		[frontend.parse("RELOAD"), frontend.bind({ portal: "p" }), frontend.bind({ portal: "p" })],
		"1 2 E42P03",
	],
	["a portal that is not", [frontend.execute("p")], "E34000"],
	["a statement that is not", [frontend.describe("S", "s")], "E26000"],
	["a portal to describe that is not", [frontend.describe("P")], "E34000"],
	["more formats than columns", [frontend.parse("SHOW VERSION"), frontend.bind({ resultFormats: [0, 1] })], "1 E08P01"],
	["a format that does not exist", [frontend.parse("SHOW VERSION"), frontend.bind({ resultFormats: [2] })], "1 E22023"],
	["Describe of what?", [message("D", Uint8Array.of(65, 0))], "E08P01"],
	["Close of what?", [message("C", Uint8Array.of(65, 0))], "E08P01"],
	["a Parse without its end", [message("P", Uint8Array.of(65, 0, 66))], "E08P01"],
	[
		"a Bind with too large a value",
		[frontend.parse("RELOAD"), message("B", concat(int16(0), int16(0), int16(1), int32(99)))],
		"1 E08P01",
	],
	["an Execute with more behind it", [message("E", concat(Uint8Array.of(0), int32(0), int32(0)))], "E08P01"],
	["DEALLOCATE of nothing", [frontend.parse("DEALLOCATE nix"), frontend.bind(), frontend.execute()], "1 2 E26000"],
])("%s fails the statement and not the session", async (_, frames, expected) => {
	using admin = listen();
	await using client = await connect(admin);
	expect(await exchange(client, ...frames, frontend.sync())).toBe(`${expected} ZI`);
	expect(await exchange(client, frontend.query("SHOW VERSION"))).toBe("T D C ZI");
	expect(admin.source.orders).toEqual([]);
	expect(admin.bugs).toEqual([]);
});

test("a function call and a broken Query fail with a ReadyForQuery of their own", async () => {
	using admin = listen();
	await using client = await connect(admin);
	expect(await exchange(client, frontend.functionCall(1, []))).toBe("E0A000 ZI");
	expect(await exchange(client, message("Q", Uint8Array.of(65)))).toBe("E08P01 ZI");
	expect(await exchange(client, message("Q", Uint8Array.of(65, 0, 66, 0)))).toBe("E08P01 ZI");
	expect(
		await exchange(client, frontend.copyData("x"), frontend.copyDone(), frontend.copyFail("x"), frontend.sync()),
	).toBe("ZI");
});

test("a portal gives its rows in pieces, and is gone at Sync unless a transaction holds it", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { parse, bind, execute, sync, query } = frontend;
	const portal = bind({ portal: "p" });
	expect(await exchange(client, parse("SHOW POOLS"), portal, execute("p", 2), execute("p", 2), sync())).toBe(
		"1 2 D D s D C ZI",
	);
	expect(await exchange(client, execute("p"), sync())).toBe("E34000 ZI");
	expect(await exchange(client, query("BEGIN"))).toBe("C ZT");
	expect(await exchange(client, parse("SHOW POOLS"), portal, execute("p", 3), sync())).toBe("1 2 D D D s ZT");
	expect(await exchange(client, execute("p", 3), sync())).toBe("C ZT");
	expect(await exchange(client, query("COMMIT"))).toBe("C ZI");
	expect(await exchange(client, execute("p"), sync())).toBe("E34000 ZI");
	expect(admin.asked.filter((sql) => sql === "SHOW POOLS")).toHaveLength(2);
});

test("the binary format, for all columns or some", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { parse, bind, describe, execute, sync } = frontend;
	const binary = bind({ resultFormats: [1] });
	client.send(parse("SHOW CLIENTS id, locked, query_time, application_name"), binary, describe("P"), execute(), sync());
	const messages = await client.until("Z");
	expect(letters(messages)).toBe("1 2 T D C ZI");
	const description = new Body(messages[2]!.body);
	const formats = Array.from({ length: description.int16() }, () => {
		description.cstring();
		description.bytes(16);
		return description.int16();
	});
	expect(formats).toEqual(new Array(8).fill(1));
	const row = new Body(messages[3]!.body);
	const values = Array.from({ length: row.int16() }, () => row.bytes(row.int32()));
	expect(values[0]!.readBigInt64BE()).toBe(65537n);
	expect(values[1]!.toString()).toBe("alice");
	expect(values[4]!.readBigInt64BE()).toBe(50123n);
	expect(values[5]!.readDoubleBE()).toBe(12.346);
	expect(values[6]!.toString()).toBe("web ö");
	expect([...values[7]!]).toEqual([1]);
	client.send(parse("SELECT 7, 7"), bind({ resultFormats: [0, 1] }), execute(), sync());
	const mixed = new Body((await client.until("Z"))[2]!.body);
	expect(mixed.int16()).toBe(2);
	expect(mixed.bytes(mixed.int32()).toString()).toBe("7");
	expect(mixed.bytes(mixed.int32()).readInt32BE()).toBe(7);
});

test("DEALLOCATE and DISCARD ALL forget statements, so that their names are free", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { parse, sync, query } = frontend;
	expect(await exchange(client, parse("RELOAD", "a"), parse("RELOAD", "b"), sync())).toBe("1 1 ZI");
	expect(await exchange(client, query("DEALLOCATE a"))).toBe("C ZI");
	expect(await exchange(client, parse("RELOAD", "a"), parse("RELOAD", "b"), sync())).toBe("1 E42P05 ZI");
	expect(await exchange(client, query("DISCARD ALL"))).toBe("C ZI");
	expect(await exchange(client, parse("RELOAD", "a"), parse("RELOAD", "b"), sync())).toBe("1 1 ZI");
});

test("statements without end are refused before they fill the memory", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const sql = `SELECT '${"x".repeat(60_000)}'`;
	const frames = Array.from({ length: 20 }, (_, i) => frontend.parse(sql, `s${i}`));
	expect(await exchange(client, ...frames, frontend.sync())).toBe(`${"1 ".repeat(17)}E54000 ZI`);
	expect(await exchange(client, frontend.close("S", "s0"), frontend.parse(sql, "t"), frontend.sync())).toBe("3 1 ZI");
});

test("pipelined commands are answered one at a time and in order", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { ask } = admin;
	let running = 0;
	let most = 0;
	admin.ask = async (sql) => {
		most = Math.max(most, ++running);
		await Bun.sleep(sql.length % 3);
		running--;
		return ask(sql);
	};
	const sent = Array.from({ length: 30 }, (_, i) => i);
	const { query, parse, bind, execute, sync } = frontend;
	client.send(
		...sent.flatMap((i) =>
			i % 2 === 0 ? [query(`SELECT ${i} AS a`)] : [parse(`SELECT  ${i}`), bind(), execute(), sync()],
		),
	);
	const got: (string | null)[] = [];
	for (const _ of sent) got.push((await client.result()).rows[0]![0]!);
	expect(got).toEqual(sent.map(String));
	expect(most).toBe(1);
});

const BROKEN: readonly [what: string, bytes: Uint8Array, text: string][] = [
	["an unknown message type", message("z"), "invalid frontend message type 122"],
	["a password after the login", frontend.passwordMessage("x"), "invalid frontend message type 112"],
	["a length below four", liar("Q", 3), "invalid message length"],
	["a negative length", liar("Q", -1), "invalid message length"],
	["a Query larger than any command", liar("Q", 65_537), "invalid message length"],
	["a Sync larger than PostgreSQL allows", liar("S", 10_001), "invalid message length"],
	["a second StartupMessage", frontend.startupMessage({ user: "admin" }), "invalid frontend message type 0"],
];

test.each(BROKEN)("%s ends the session with 08P01", async (_, bytes, text) => {
	using admin = listen();
	await using client = await connect(admin);
	client.send(frontend.query("SHOW VERSION"), bytes);
	const messages = await client.closed;
	expect(letters(messages)).toBe("T D C ZI E08P01");
	expect(errorFields(messages.at(-1)!.body)).toMatchObject({ S: "FATAL", M: text });
	expect(admin.sessions.size).toBe(0);
	expect(admin.bugs).toEqual([]);
});

test("Terminate and a client that vanishes end the session, also while a command runs", async () => {
	using admin = listen();
	const { promise, resolve } = Promise.withResolvers<CommandAnswer>();
	const [polite, rude] = [await connect(admin), await connect(admin)];
	admin.ask = () => promise;
	polite.send(frontend.terminate());
	await polite.closed;
	expect(admin.sessions.size).toBe(1);
	rude.send(frontend.query("SHOW POOLS"), frontend.query("SHUTDOWN"));
	await until(() => admin.asked.length === 1, "the command");
	rude.reset();
	await until(() => admin.sessions.size === 0, "the session to end");
	resolve({ columns: [], rows: [], tag: "late" });
	await promise;
	await Bun.sleep(1);
	expect(admin.asked).toEqual(["SHOW POOLS"]);
	expect(admin.bugs).toEqual([]);
});

test("close tells the client why, and once only", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const [session] = admin.sessions;
	session!.close(new PgError("FATAL", "57P01", "terminating connection due to administrator command"));
	session!.close(null);
	expect(letters(await client.closed)).toBe("E57P01");
	expect(admin.bugs).toEqual([]);
});

test("an answer that cannot be had is an error, and the session goes on", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { ask } = admin;
	admin.ask = () => Promise.reject(new Error("the main thread is gone"));
	const { errors, status } = await client.query("SHOW POOLS");
	expect(errors[0]).toMatchObject({ S: "ERROR", C: "XX000", M: "internal error: the main thread is gone" });
	expect(status).toBe("I");
	admin.ask = ask;
	expect((await client.query("SHOW VERSION")).rows).toEqual([[VERSION]]);
});

const MANY = 60;
test.each([
	["many queries", new Array(MANY).fill(frontend.query("SHOW CONFIG")), MANY],
	[
		"many prepared queries",
		new Array(MANY).fill(concat(frontend.parse("SHOW CONFIG"), frontend.bind(), frontend.execute(), frontend.sync())),
		MANY,
	],
	["one Query of many statements", [frontend.query(new Array(MANY).fill("SHOW CONFIG").join(";"))], 1],
])(
	"a client that does not read the answers to %s gets no more until it does, and then all",
	async (_, frames, results) => {
		using admin = listen();
		await using client = await connect(admin);
		const [session] = admin.sessions;
		const row = ["large", "x".repeat(1 << 20)];
		admin.ask = async () => ({ columns: [{ name: "name" }, { name: "value" }], rows: [row], tag: "SHOW" });
		client.pause();
		client.send(...frames);
		await until(() => session!.stream.queued > 0, "the kernel to take no more");
		await Bun.sleep(100);
		expect(admin.asked.length).toBeLessThan(MANY / 2);
		client.resume();
		let rows = 0;
		for (let i = 0; i < results; i++) rows += (await client.result()).rows.length;
		expect(rows).toBe(MANY);
		expect(admin.bugs).toEqual([]);
	},
	20_000,
);

test("a client that does not read cannot make the answers to small messages pile up", async () => {
	using admin = listen();
	await using client = await connect(admin);
	expect(await exchange(client, frontend.parse("SHOW STATS"), frontend.sync())).toBe("1 ZI");
	const [session] = admin.sessions;
	client.pause();
	const count = 20_000;
	session!.onData(Buffer.from(concat(...new Array(count).fill(frontend.describe("S")), frontend.sync())));
	expect(session!.stream.queued).toBeGreaterThan(0);
	expect(session!.stream.queued).toBeLessThan(1 << 20);
	client.resume();
	expect((await client.until("Z")).length).toBe(2 * count + 1);
	expect(admin.bugs).toEqual([]);
}, 20_000);

test("a client that sends ahead without end is not read while it waits", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { promise, resolve } = Promise.withResolvers<void>();
	const { ask } = admin;
	admin.ask = async (sql) => {
		await promise;
		return ask(sql);
	};
	const [session] = admin.sessions;
	const query = frontend.query(`SELECT 1${" ".repeat(50_000)}`);
	const count = 400;
	for (let i = 0; i < count; i++) client.send(query);
	let before = -1;
	await until(async () => {
		before = session!.stream.bytesIn;
		await Bun.sleep(50);
		return session!.stream.bytesIn === before;
	}, "the session to stop reading");
	expect(before).toBeLessThan(query.length * 50);
	resolve();
	for (let i = 0; i < count; i++) expect((await client.result()).rows).toEqual([["1"]]);
	expect(admin.bugs).toEqual([]);
}, 20_000);

test("every message cut at every place is understood", async () => {
	using admin = listen();
	await using client = await connect(admin);
	const { parse, bind, describe, execute, sync, query, close, flush } = frontend;
	const bytes = concat(
		query("SELECT 5"),
		parse("SELECT 6", "s"),
		describe("S", "s"),
		bind({ statement: "s", resultFormats: [0] }),
		execute(),
		flush(),
		close("S", "s"),
		sync(),
	);
	const expected = "T D C ZI 1 t T 2 D C 3 ZI";
	const [session] = admin.sessions;
	// Straight into the session, so that a cut is a cut whatever TCP makes of it; the answers go by TCP.
	for (let at = 1; at < bytes.length; at++) {
		session!.onData(Buffer.from(bytes.subarray(0, at)));
		await Bun.sleep(0);
		session!.onData(Buffer.from(bytes.subarray(at)));
		const got = `${letters(await client.until("Z"))} ${letters(await client.until("Z"))}`;
		if (got !== expected) expect({ at, got }).toEqual({ at, got: expected });
	}
	for (const byte of bytes) session!.onData(Buffer.of(byte));
	expect(`${letters(await client.until("Z"))} ${letters(await client.until("Z"))}`).toBe(expected);
	expect(client.received.filter(({ code }) => code === "D").map(({ body }) => dataRow(body)[0])).toEqual(
		Array.from({ length: bytes.length }, () => ["5", "6"]).flat(),
	);
	expect(admin.bugs).toEqual([]);
}, 20_000);

test("random bytes and shuffled messages never break more than their own session", async () => {
	using admin = listen();
	await using other = await connect(admin);
	const { parse, bind, describe, execute, sync, query, close, flush, copyData } = frontend;
	const texts = fc.constantFrom(
		"SHOW POOLS",
		"SELECT 1",
		"BEGIN",
		"ROLLBACK",
		"nonsense",
		"",
		"DISCARD ALL",
		"SET a = 1; SELECT 2",
	);
	const names = fc.constantFrom("", "a", "b");
	const frame = fc.oneof(
		texts.map((sql) => query(sql)),
		fc.tuple(texts, names).map(([sql, name]) => parse(sql, name)),
		fc
			.tuple(names, names, fc.array(fc.nat(2), { maxLength: 2 }))
			.map(([portal, statement, resultFormats]) => bind({ portal, statement, resultFormats })),
		fc.tuple(fc.constantFrom("S" as const, "P" as const), names).map(([kind, name]) => describe(kind, name)),
		fc.tuple(fc.constantFrom("S" as const, "P" as const), names).map(([kind, name]) => close(kind, name)),
		fc.tuple(names, fc.integer({ min: -1, max: 3 })).map(([portal, rows]) => execute(portal, rows)),
		fc.constantFrom(sync(), flush(), copyData("x")),
		fc
			.tuple(fc.constantFrom("Q", "P", "B", "D", "E", "C", "F", "S", "H"), fc.uint8Array({ maxLength: 20 }))
			.map(([code, body]) => message(code, body)),
		fc.uint8Array({ maxLength: 12 }),
	);
	const input = fc.array(frame, { minLength: 1, maxLength: 12 });
	await fc.assert(
		fc.asyncProperty(input, fc.infiniteStream(fc.integer({ min: 1, max: 40 })), async (frames, sizes) => {
			await using client = await connect(admin);
			const bytes = concat(...frames);
			for (let at = 0; at < bytes.length; ) {
				const size = sizes.next().value as number;
				client.send(bytes.subarray(at, at + size));
				at += size;
			}
			client.send(frontend.terminate());
			client.close();
			// It ends by Terminate, by a protocol error, or because the client is gone.
			await client.closed;
			expect(admin.bugs).toEqual([]);
		}),
		{ numRuns: 150 },
	);
	expect((await other.query("SHOW VERSION")).rows).toEqual([[VERSION]]);
	await until(() => admin.sessions.size === 1, "all other sessions to be over");
}, 30_000);
