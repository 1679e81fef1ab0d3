// A server that does not keep to the protocol. No PostgreSQL can be made to do that, so a scripted peer stands in for it: the
// client gets an error or the end of its connection, soon, and the proxy goes on.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Proxy, type ProxyUser, startProxy } from "../support/proxy.ts";
import { LoginError, RawClient } from "../support/raw-client.ts";
import { within } from "../support/until.ts";
import { asksForTls, backend, bytes, concat, frontend, int32, liar, message, text } from "../support/wire-frames.ts";

setDefaultTimeout(60_000);

const { readyForQuery, commandComplete, dataRow, rowDescription } = backend;
const OK = backend.authenticationOk();
const WELCOME = concat(
	OK,
	backend.parameterStatus("server_version", "17.0"),
	backend.backendKeyData(1, 2),
	readyForQuery("I"),
);
const ONE = concat(rowDescription({ name: "n" }), dataRow("1"), commandComplete("SELECT 1"), readyForQuery("I"));

/** What the peer does to a StartupMessage and to a Query: bytes, none, or null to close. */
interface Script {
	startup: Uint8Array | null;
	query: Uint8Array | null;
	/** Close after the answer to the Query. */
	closes: boolean;
}
const good = (): Script => ({ startup: WELCOME, query: ONE, closes: false });

/** By database: every case has its own, hence its own pool, so that all can run at the same time. */
const scripts = new Map<string, Script>();
let peer: Bun.TCPSocketListener<{ script: Script | undefined }>;
let proxy: Proxy;

beforeAll(async () => {
	const names = [...STARTUPS.map((_, i) => `startup${i}`), ...QUERIES.map((_, i) => `query${i}`), "talks"];
	for (const name of names) scripts.set(name, good());
	peer = Bun.listen<{ script: Script | undefined }>({
		hostname: "127.0.0.1",
		port: 0,
		socket: {
			open(socket) {
				socket.data = { script: undefined };
			},
			data(socket, chunk) {
				// Requests of the proxy are one packet each, and short.
				if (asksForTls(chunk)) {
					socket.write("N");
					return;
				}
				const { script } = socket.data;
				if (script !== undefined && chunk[0] === 88) return;
				if (script === undefined) {
					const name = names.find((each) => chunk.includes(`database\0${each}\0`)) ?? "";
					socket.data.script = scripts.get(name);
				}
				const reply = script === undefined ? (socket.data.script?.startup ?? null) : script.query;
				if (reply === null) socket.end();
				else {
					socket.write(reply);
					if (script?.closes) socket.end();
				}
			},
		},
	});
	proxy = await startProxy({
		config: {
			general: {
				default_pool_size: 1,
				min_pool_size: 0,
				// 25 clients and their servers are at it at once: long enough for all to be served on a machine that is busy.
				checkout_timeout: 4_000,
				connect_timeout: 2_000,
				rollback_timeout: 1_000,
				query_timeout: 1_500,
			},
			databases: names.map((name) => ({ name, host: "127.0.0.1", port: peer.port })),
		},
		users: [{ name: "pgdog", all_databases: true, password: "pgdog" }] as unknown as ProxyUser[],
	});
});
afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	peer?.stop(true);
});

const door = (database: string) => ({ port: proxy.port, user: "pgdog", password: "pgdog", database });

/** The next client of this pool is served as if nothing had been. */
async function serves(database: string): Promise<void> {
	Object.assign(scripts.get(database)!, good());
	await using client = await RawClient.connect(door(database));
	const { rows, messages } = await within(client.query("SELECT 1"), "the next client's answer", 15_000);
	expect(rows).toEqual([["1"]]);
	expect(messages.map((each) => each.code).join("")).toBe("TDCZ");
}

/** All at once, since most of them wait for a timeout; tells of every failure. */
async function all<T>(cases: T[], name: (one: T) => string, run: (one: T, i: number) => Promise<void>): Promise<void> {
	const failures: string[] = [];
	await Promise.all(
		cases.map((one, i) => run(one, i).catch((error: Error) => failures.push(`* ${name(one)}: ${error.message}`))),
	);
	if (failures.length > 0)
		throw new Error(`${failures.length} of ${cases.length}:\n${failures.join("\n")}\n${proxy.log.slice(-3000)}`);
	const failure = proxy.lines.find((line) => /internal error|unhandled|TypeError|RangeError/i.test(line));
	expect(failure).toBeUndefined();
}

const STARTUPS: [string, Uint8Array | null][] = [
	["closes", null],
	["says nothing", new Uint8Array(0)],
	["answers zeros", new Uint8Array(64)],
	["answers 0xff", new Uint8Array(64).fill(255)],
	["speaks HTTP", text("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")],
	["answers a TLS alert", bytes(0x15, 3, 1, 0, 2, 2, 70)],
	["sends a length of zero", liar("R", 0)],
	["sends a negative length", liar("R", -1)],
	["sends a length of 2 GB", liar("R", 0x7fffffff, new Uint8Array(100))],
	["sends half of a message", liar("R", 100, int32(0))],
	["asks for a login that nobody knows", message("R", int32(77))],
	["asks for GSSAPI", message("R", int32(7))],
	["asks for SASL and offers nothing", message("R", int32(10), bytes(0))],
	["asks for SASL without a zero byte", message("R", int32(10), text("SCRAM"))],
	["sends a SCRAM challenge that nobody asked for", message("R", int32(11), text("r=a,s=b,i=c"))],
	["sends an Authentication with no body", message("R")],
	["lets in and says nothing more", OK],
	["is ready without letting in", readyForQuery("I")],
	["sends rows instead", concat(OK, dataRow("1"), readyForQuery("I"))],
	["sends an ErrorResponse without an end", message("E", text("SFATAL"))],
	["sends an empty ErrorResponse", message("E")],
	[
		"refuses with an error",
		backend.errorResponse({ S: "FATAL", V: "FATAL", C: "53300", M: "sorry, too many clients already" }),
	],
];

test("a server that does not keep to the protocol at the login costs the client an error, in time", async () => {
	await all(
		STARTUPS,
		([name]) => `a server that ${name}`,
		async ([, reply], i) => {
			const database = `startup${i}`;
			scripts.get(database)!.startup = reply;
			const refused = RawClient.connect(door(database)).then(
				() => null,
				(error: Error) => error,
			);
			const error = await within(refused, "the refusal", 15_000);
			expect(error).toBeInstanceOf(LoginError);
			expect((error as LoginError).fields.S).toBe("FATAL");
			expect((error as LoginError).fields.C).toBe("58000");
			await serves(database);
		},
	);
});

/** Name, answer, and whether the server closes behind it. */
const QUERIES: [string, Uint8Array | null, boolean][] = [
	["closes", null, false],
	["closes in the middle of a row", concat(rowDescription({ name: "n" }), liar("D", 1000, text("half"))), true],
	["closes after an error", backend.errorResponse({ S: "ERROR", V: "ERROR", C: "22012", M: "division by zero" }), true],
	["says nothing", new Uint8Array(0), false],
	["answers zeros", new Uint8Array(64), false],
	["answers 0xff", new Uint8Array(64).fill(255), false],
	["sends a length of zero", liar("T", 0), false],
	["sends a negative length", liar("C", -5), false],
	["sends a row of a negative length", liar("D", -5), false],
	["sends a row of length 3", liar("D", 3), false],
	["sends a CommandComplete of 2 GB", liar("C", 0x7fffffff, new Uint8Array(64)), false],
	["sends half a row and then nothing", concat(rowDescription({ name: "n" }), liar("D", 1000, text("half"))), false],
	["sends a ReadyForQuery without a body", message("Z"), false],
	["sends a ReadyForQuery of an unknown status", message("Z", text("?")), false],
	["sends an ErrorResponse without an end", concat(message("E", text("SERROR")), readyForQuery("I")), false],
	["sends an empty ErrorResponse", concat(message("E"), readyForQuery("I")), false],
	["sends a ParameterStatus without an end", concat(message("S", text("x")), readyForQuery("I")), false],
	["sends an empty ParameterStatus", concat(message("S"), readyForQuery("I")), false],
	["sends an empty CommandComplete", concat(message("C"), readyForQuery("I")), false],
	["sends replies that nobody asked for", concat(message("1"), message("2"), message("3"), message("s"), ONE), false],
	["sends an unknown message", concat(message("?", text("x")), ONE), false],
	["begins COPY both ways", message("W", bytes(0, 0, 0)), false],
	["begins a COPY that nobody asked for", concat(message("G", bytes(0, 0, 0))), false],
	["is ready twice", concat(ONE, readyForQuery("I")), false],
	["asks for a password", message("R", int32(3)), false],
];

test("a server that answers a query with what is none never makes the client hang, nor the next", async () => {
	await all(
		QUERIES,
		([name]) => `a server that ${name}`,
		async ([, reply, closes], i) => {
			const database = `query${i}`;
			await using client = await RawClient.connect(door(database));
			Object.assign(scripts.get(database)!, { query: reply, closes });
			client.send(frontend.query("SELECT 1"));
			// Some of it is passed on as it came; what then has no end is ended by query_timeout.
			const seen = client.result().catch(() => undefined);
			await within(seen, "an end", 15_000);
			client.reset();
			await serves(database);
		},
	);
});

test("a server that talks while nobody asked is not lent with what it said", async () => {
	await using client = await RawClient.connect(door("talks"));
	expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
	scripts.get("talks")!.query = concat(ONE, ONE);
	await client.query("SELECT 1");
	await Bun.sleep(30);
	scripts.get("talks")!.query = ONE;
	await serves("talks");
	await serves("talks");
});
