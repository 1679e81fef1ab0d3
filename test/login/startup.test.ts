// The first packets of a connection, over real sockets, as sent by clients that are right, wrong, or slow.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createConnection } from "node:net";
import fc from "fast-check";
import { parseOptions } from "../../src/login/options.ts";
import { ScriptedServer, testPool } from "../pool/support.ts";
import { errorFields } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { bytes, concat, cstring, frontend, int32 } from "../support/wire-frames.ts";
import { listen } from "./support.ts";

describe("the startup parameter `options`", () => {
	test.each([
		["", []],
		["   ", []],
		["-c a=b", [["a", "b"]]],
		["-ca=b", [["a", "b"]]],
		["--a=b", [["a", "b"]]],
		["--statement-timeout=5s", [["statement_timeout", "5s"]]],
		["-c Search_Path=A,b", [["search_path", "A,b"]]],
		[
			"  -c a=b\t-c\nc=d  ",
			[
				["a", "b"],
				["c", "d"],
			],
		],
		["-c a=x\\ y\\\\z", [["a", "x y\\z"]]],
		["-c a=", [["a", ""]]],
		["-c a=b=c", [["a", "b=c"]]],
		[
			"-c app.tenant=5 -c a=1 -c a=2",
			[
				["app.tenant", "5"],
				["a", "1"],
				["a", "2"],
			],
		],
		["-c", []],
		["-c a", []],
		["-c =b", []],
		["-B 100 -c a=b", [["a", "b"]]],
		["a=b", []],
		["-c a=b\\", [["a", "b\\"]]],
	] as [string, [string, string][]][])("%j is %j", (options, expected) => {
		expect(parseOptions(options)).toEqual(expected);
	});

	test("takes back any value whose spaces and backslashes were escaped, as libpq's users do", () => {
		const value = fc.string().map((text) => text.replaceAll("\0", ""));
		fc.assert(
			fc.property(fc.array(value), (values) => {
				const escaped = values.map((text, i) => `-c a${i}=${text.replace(/[\s\\]/g, "\\$&")}`);
				expect(parseOptions(escaped.join(" "))).toEqual(values.map((text, i) => [`a${i}`, text]));
			}),
		);
	});
});

const postgres = new ScriptedServer();
const inner = testPool(postgres.port, { pool_size: 20 });
const listening = listen(inner, [
	{ name: "u", database: "u", passwords: ["p"] },
	{ name: "u", database: "d", passwords: ["p"] },
]);
const { cancels } = listening;

afterAll(() => {
	listening.stop();
	inner.pool.shutDown();
	postgres[Symbol.dispose]();
});
// The login's first checkout opens the connection; afterwards nothing waits for it.
beforeAll(async () => {
	await using client = await RawClient.connect({ port: listening.port, user: "u" });
	expect(client.backendPid).toBeGreaterThan(0);
});

const open = () => RawClient.open({ port: listening.port });
/** A StartupMessage of exactly these bytes behind the version. */
const raw = (body: Uint8Array, version = 196608, length = body.length + 8) =>
	concat(int32(length), int32(version), body);

const LAYOUT = "08P01 invalid startup packet layout: expected terminator as last byte";
const MALFORMED: [string, Uint8Array, string][] = [
	["of protocol 2", raw(bytes(0), 131072), "0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2"],
	["of protocol 4", raw(bytes(0), 262144), "0A000 unsupported frontend protocol 4.0: server supports 3.0 to 3.2"],
	["without an end", raw(concat(cstring("user"), cstring("u"))), LAYOUT],
	["with a name that does not end", raw(Buffer.from("user")), LAYOUT],
	["with a name and no value", raw(concat(cstring("user"), bytes(0))), LAYOUT],
	["with bytes behind its end", raw(concat(cstring("user"), cstring("u"), bytes(0, 1))), LAYOUT],
	["with nothing at all behind the version", raw(new Uint8Array(0)), LAYOUT],
	[
		"for replication",
		frontend.startupMessage({ user: "u", replication: "database" }),
		"0A000 replication connections are not supported",
	],
];

test.each(MALFORMED)("a first packet %s is refused", async (_, packet, expected) => {
	const client = await open();
	client.send(packet);
	const last = (await client.closed).at(-1);
	expect(last?.code).toBe("E");
	const fields = errorFields(last!.body);
	expect([fields.S, `${fields.C} ${fields.M}`]).toEqual(["FATAL", expected]);
});

/** All bytes that come back for `sent`, behind which the client says that it will send no more; of requests only the answers. */
async function answerTo(sent: Uint8Array, requests: readonly Uint8Array[] = []): Promise<string> {
	const { promise, resolve, reject } = Promise.withResolvers<void>();
	let got = "";
	const socket = createConnection({ port: listening.port, host: "127.0.0.1", allowHalfOpen: true });
	socket.on("data", (chunk: Buffer) => {
		got += chunk.toString("latin1");
	});
	socket.on("end", () => socket.destroy());
	socket.on("close", resolve);
	// What is closed while bytes wait to be read is reset: that is an end as good as another.
	socket.on("error", (error: NodeJS.ErrnoException) => {
		if (error.code !== "ECONNRESET" && error.code !== "EPIPE") reject(error);
	});
	for (const [i, request] of requests.entries()) {
		socket.write(request);
		await until(() => got.length > i, "an answer to a request for encryption");
	}
	socket.end(sent);
	await promise;
	return got;
}

// An ErrorResponse here reached programs as an error that nobody handled: their driver had changed its mind and said Terminate.
test.each([
	["Terminate", frontend.terminate()],
	["a length of 0", int32(0)],
	["a length of 7", concat(int32(7), bytes(0, 3, 0))],
	["a negative length", int32(-1)],
	["a length beyond what PostgreSQL takes", int32(10_005)],
	["HTTP", Buffer.from("GET / HTTP/1.1\r\n\r\n")],
	["TLS's ClientHello", bytes(22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3)],
	["a CancelRequest that is cut short", concat(int32(12), int32(80877102), int32(1))],
])("who begins with %s is told nothing, and disconnected", async (_, sent) => {
	const client = await open();
	client.send(sent);
	// Without a word, though the client has not left.
	expect(await client.closed).toEqual([]);
	expect(await answerTo(sent, [frontend.sslRequest()])).toBe("N");
});

test("who leaves before its StartupMessage is whole is told nothing, whatever it has sent", async () => {
	const requests = fc.subarray([frontend.sslRequest(), frontend.gssencRequest()]);
	const left = fc.nat(GOOD.length - 1).map((end) => GOOD.subarray(0, end));
	const strange = fc
		.tuple(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.uint8Array({ maxLength: 100 }))
		.filter(([length]) => length < 8 || length > 10_004)
		.map(([length, body]) => concat(int32(length), body));
	await fc.assert(
		fc.asyncProperty(requests, fc.oneof(left, strange), async (first, last) => {
			expect(await answerTo(last, first)).toBe("N".repeat(first.length));
		}),
		{ numRuns: 60 },
	);
});

test("who begins TLS without waiting for the answer to its SSLRequest is told what PostgreSQL says", async () => {
	const client = await open();
	client.send(concat(frontend.sslRequest(), bytes(22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3)));
	expect(await client.nextByte()).toBe("N");
	const last = (await client.closed).at(-1);
	expect(errorFields(last!.body)).toMatchObject({ C: "08P01", M: "received unencrypted data after SSL request" });
});

test("a client that nobody knows is refused without being told why", async () => {
	const client = await open();
	client.send(frontend.startupMessage({ user: "x", database: "d" }));
	// A wrong password and an unknown user must look the same.
	const messages = await client.closed;
	expect(errorFields(messages.at(-1)!.body)).toMatchObject({ S: "FATAL", C: "28000" });
});

test("SSLRequest and GSSENCRequest are answered N, in either order, and not twice", async () => {
	for (const [first, second] of [
		[frontend.sslRequest(), frontend.gssencRequest()],
		[frontend.gssencRequest(), frontend.sslRequest()],
	]) {
		const client = await open();
		client.send(first!);
		expect(await client.nextByte()).toBe("N");
		client.send(second!);
		expect(await client.nextByte()).toBe("N");
		client.send(first!);
		expect((await client.closed).map(({ code }) => code)).toEqual(["E"]);
	}
});

test.each([
	[4, "01020304"],
	[32, "ab".repeat(32)],
])("a CancelRequest with a key of %d bytes is passed on and the connection closed", async (_, key) => {
	cancels.length = 0;
	const client = await open();
	client.send(frontend.cancelRequest(77, Buffer.from(key, "hex")));
	expect(await client.closed).toEqual([]);
	expect(cancels).toEqual([`77 ${key}`]);
});

test("a CancelRequest with bytes of another packet behind it takes its own key only", async () => {
	cancels.length = 0;
	const client = await open();
	client.send(concat(frontend.cancelRequest(77, 5), frontend.cancelRequest(78, 6)));
	await client.closed;
	expect(cancels).toEqual(["77 00000005"]);
});

const GOOD = frontend.startupMessage({ user: "u", database: "d", application_name: "é", options: "-c a=b" });

test("a login is let in wherever its packets are cut", async () => {
	const script = concat(frontend.sslRequest(), GOOD);
	for (let cut = 1; cut < script.length; cut++) {
		const client = await open();
		client.send(script.subarray(0, cut));
		// One byte N is no message; it comes first, and only behind the whole SSLRequest.
		if (cut >= 8) expect(await client.nextByte()).toBe("N");
		else await Bun.sleep(0);
		client.send(script.subarray(cut));
		if (cut < 8) expect(await client.nextByte()).toBe("N");
		expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("RKZ");
		client.close();
	}
});

test("a login byte by byte", async () => {
	const client = await open();
	for (const byte of GOOD) {
		client.send(Uint8Array.of(byte));
		await Bun.sleep(0);
	}
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("RKZ");
	client.close();
});

test.each([
	[0, [], undefined, 4],
	[2, [], undefined, 32],
	[9, [], "00030002 00000000", 32],
	[0, ["_pq_.x", "_pq_.y"], "00030000 00000002", 4],
	[2, ["_pq_.x"], "00030002 00000001", 32],
] as [number, string[], string | undefined, number][])(
	"version 3.%d with options %p is negotiated as %s, with a key of %d bytes",
	async (minor, options, expected, key) => {
		const client = await open();
		const more = Object.fromEntries(options.map((name) => [name, "1"]));
		client.send(frontend.startupMessage({ user: "u", ...more }, 196608 + minor));
		const messages = await client.until("Z");
		const negotiated = messages.find(({ code }) => code === "v")?.body.toString("hex");
		expect(negotiated?.slice(0, 16).replace(/(.{8})/, "$1 ")).toBe(expected as string);
		if (options.length > 0) expect(negotiated?.slice(16)).toBe(Buffer.concat(options.map(cstring)).toString("hex"));
		expect(messages.find(({ code }) => code === "K")?.body.length).toBe(4 + key);
		client.close();
	},
);

test("a client that leaves in the middle of its login leaves nothing behind", async () => {
	const before = inner.pool.all.size;
	for (const cut of [0, 3, 10, GOOD.length - 1]) {
		const client = await open();
		client.send(GOOD.subarray(0, cut));
		client.close();
	}
	await until(() => inner.pool.waiters.length === 0, "the queue to be empty");
	expect(inner.pool.all.size).toBe(before);
});

// A driver that saves a round trip: with trust, the login asks nothing.
test("a Query that is sent together with the StartupMessage is answered after the login", async () => {
	const client = await open();
	client.send(concat(GOOD, frontend.query("SELECT 1")));
	await client.until("Z");
	expect((await client.until("Z")).map(({ code }) => code).join("")).toBe("CZ");
	client.close();
});

// PostgreSQL's process_startup_options: the switches of `options` first, the packet's own parameters over them.
test("a parameter of the StartupMessage beats the same in its options", async () => {
	const client = await open();
	client.send(frontend.startupMessage({ user: "u", work_mem: "1MB", options: "-c work_mem=2MB" }));
	await client.until("Z");
	expect(postgres.queries.filter((sql) => sql.includes("work_mem")).join()).toContain("'1MB'");
	client.close();
});
