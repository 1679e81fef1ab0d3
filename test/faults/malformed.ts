// Bytes that no driver sends, as tables: for the time before the login, during it, and for every phase of a session.
// Used by bad-input.test.ts, which sends each to the proxy and to a bare PostgreSQL and compares.

import { bytes, concat, cstring, frontend, int16, int32, liar, message, text } from "../support/wire-frames.ts";

/** A name and what is sent. */
export interface Malformed {
	name: string;
	send: Uint8Array;
	/** More must follow: a server rightly waits, and nothing comes back. */
	waits?: boolean;
	/** Why the proxy may answer otherwise than PostgreSQL does. */
	differs?: string;
}

const packet = (length: number, ...body: Uint8Array[]) => concat(int32(length), ...body);
const V3 = int32(3 << 16);

/** The first bytes of a TLS 1.3 ClientHello: handshake record, version, length, ClientHello. */
const CLIENT_HELLO = concat(bytes(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3), new Uint8Array(500).fill(7));
const HTTP = text("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n");

function pairs(count: number, value: string): Uint8Array {
	return concat(...Array.from({ length: count }, (_, i) => concat(cstring(`a.b${i}`), cstring(value))));
}

function startup(...body: Uint8Array[]): Uint8Array {
	const content = concat(V3, ...body);
	return packet(content.length + 4, content);
}

const login = { user: "pgdog", database: "pgdog" };
const names = concat(cstring("user"), cstring("pgdog"), cstring("database"), cstring("pgdog"));

const TOGETHER =
	"refused as one that comes later (0A000); PostgreSQL refuses whatever comes with an SSLRequest (08P01)";

/** Instead of a StartupMessage. */
export const beforeStartup: Malformed[] = [
	...[0, 3, 4, 7, -1, 10_005, 0x7fffffff, -0x80000000].map((length) => ({
		name: `a first packet of length ${length}`,
		send: packet(length, V3, names, bytes(0)),
	})),
	{ name: "sixty-four zero bytes", send: new Uint8Array(64) },
	{ name: "sixty-four bytes 0xff", send: new Uint8Array(64).fill(0xff) },
	{ name: "an HTTP request", send: HTTP },
	{ name: "a TLS ClientHello", send: CLIENT_HELLO },
	{ name: "protocol 1.0", send: packet(9, int32(1 << 16), bytes(0)) },
	{ name: "protocol 2.0", send: packet(9, int32(2 << 16), bytes(0)) },
	{ name: "protocol 4.0", send: frontend.startupMessage(login, 4 << 16) },
	{ name: "a negative protocol version", send: packet(9, int32(-1), bytes(0)) },
	{ name: "a StartupMessage that is cut off", send: packet(60, V3, cstring("user")), waits: true },
	{ name: "a length word that is cut off", send: bytes(0, 0), waits: true },
	{ name: "half of an SSLRequest", send: frontend.sslRequest().subarray(0, 6), waits: true },
	{ name: "a StartupMessage without a terminator", send: startup(names) },
	{ name: "a StartupMessage without any zero byte", send: startup(text("user pgdog database pgdog")) },
	{ name: "a StartupMessage with a name and no value", send: startup(names, cstring("options"), bytes(0)) },
	{ name: "a StartupMessage with bytes behind the terminator", send: startup(names, bytes(0, 1, 2, 3, 0)) },
	{
		name: "a StartupMessage with nothing in it",
		send: packet(8, V3),
	},
	{
		name: "a StartupMessage without a user",
		send: startup(cstring("database"), cstring("pgdog"), bytes(0)),
		differs: "the user defaults to postgres, as in PgDog, and is then asked for a password",
	},
	{ name: "SSLRequest twice", send: concat(frontend.sslRequest(), frontend.sslRequest()), differs: TOGETHER },
	{ name: "GSSENCRequest twice", send: concat(frontend.gssencRequest(), frontend.gssencRequest()), differs: TOGETHER },
	{
		name: "a long SSLRequest",
		send: packet(12, int32(80877103), int32(0)),
		waits: true,
		differs: "closed; PostgreSQL ignores the rest",
	},
	{ name: "an SSLRequest followed by a TLS ClientHello", send: concat(frontend.sslRequest(), CLIENT_HELLO) },
	{ name: "a CancelRequest of no one", send: frontend.cancelRequest(1, 1) },
	{ name: "a CancelRequest with no key", send: packet(12, int32(80877102), int32(1)) },
	{ name: "a CancelRequest with nothing", send: packet(8, int32(80877102)) },
	{ name: "a CancelRequest with a long key", send: frontend.cancelRequest(1, new Uint8Array(4000).fill(1)) },
	{
		name: "a replication connection",
		send: frontend.startupMessage({ ...login, replication: "true" }),
		differs: "none here",
	},
	{ name: "a Query before the login", send: frontend.query("SELECT 1") },
	{ name: "Terminate before the login", send: frontend.terminate() },
];

/** Correct, and asks for a password: then something unheard of. Many parameters are no error yet. */
export const longStartups: Malformed[] = [
	{ name: "700 startup parameters", send: startup(names, pairs(700, "1"), bytes(0)) },
	{
		name: "a startup value of 9,000 bytes",
		send: startup(names, cstring("a.b"), cstring("x".repeat(9_000)), bytes(0)),
	},
	{ name: "a user of 9,000 bytes", send: startup(cstring("user"), cstring("u".repeat(9_000)), bytes(0)) },
	{
		name: "thousands of startup parameters",
		send: packet(4 + 4 + names.length + pairs(5_000, "1").length + 1, V3, names, pairs(5_000, "1"), bytes(0)),
	},
];

/** Instead of the SASLInitialResponse. */
export const duringLogin: Malformed[] = [
	...[0, 3, -1, 65_536 + 4, 0x7fffffff].map((length) => ({
		name: `a password message of length ${length}`,
		send: liar("p", length, text("xxxx")),
	})),
	{ name: "a password message of 1 MB", send: message("p", new Uint8Array(1 << 20).fill(120)) },
	{ name: "an empty password message", send: message("p") },
	{ name: "a plain password", send: frontend.passwordMessage("pgdog") },
	{ name: "an unknown mechanism", send: frontend.saslInitialResponse("SCRAM-MD5", "n,,n=,r=abc") },
	{ name: "a mechanism without a zero byte", send: message("p", text("SCRAM-SHA-256")) },
	{ name: "no length of the response", send: message("p", cstring("SCRAM-SHA-256")) },
	{ name: "a response shorter than it says", send: message("p", cstring("SCRAM-SHA-256"), int32(100), text("n,,")) },
	{
		name: "a response longer than it says",
		send: message("p", cstring("SCRAM-SHA-256"), int32(2), text("n,,n=,r=abc")),
	},
	{ name: "a negative length of the response", send: message("p", cstring("SCRAM-SHA-256"), int32(-2)) },
	{ name: "an empty response", send: frontend.saslInitialResponse("SCRAM-SHA-256", "") },
	...[
		"n",
		"n,,",
		"n,,n=",
		"n,,n=,r=",
		"p=tls-unique,,n=,r=abc",
		"y,,m=x,n=,r=abc",
		"x,,n=,r=abc",
		"n,a=x,n=,r=abc",
	].map((data) => ({
		name: `the client-first-message "${data}"`,
		send: frontend.saslInitialResponse("SCRAM-SHA-256", data),
	})),
	{
		name: "a client-first-message of 2,000 bytes",
		send: frontend.saslInitialResponse("SCRAM-SHA-256", `n,,n=,r=${"x".repeat(2_000)}`),
	},
	{ name: "half a password message", send: liar("p", 200, text("SCRAM")), waits: true },
	{ name: "a Query during the login", send: frontend.query("SELECT 1") },
	{ name: "Terminate during the login", send: frontend.terminate(), differs: "closed without a word" },
	{ name: "Sync during the login", send: frontend.sync() },
	{ name: "a second StartupMessage during the login", send: frontend.startupMessage(login) },
	{ name: "an HTTP request during the login", send: HTTP },
	{ name: "sixty-four zero bytes during the login", send: new Uint8Array(64) },
	{ name: "sixty-four bytes 0xff during the login", send: new Uint8Array(64).fill(0xff) },
];

const KNOWN = [..."QPBEDCSHFcf"];

/** In a session, in any of its phases. */
export const inSession: Malformed[] = [
	...KNOWN.flatMap((code) =>
		(code === "Q" || code === "S" ? [0, 3, -1, 0x7fffffff] : [3]).map((length) => ({
			name: `${code} of length ${length}`,
			send: liar(code, length),
		})),
	),
	...[..."SHEDCcf"].map((code) => ({ name: `${code} of length 10,001`, send: liar(code, 10_001) })),
	...[..."QPBFd"].map((code) => ({ name: `${code} of length 1 GB`, send: liar(code, 0x3fffffff) })),
	...[..."QPBEDCFf"].map((code) => ({
		name: `a ${code} that is cut off`,
		send: liar(code, 200, text("SELECT")),
		waits: true,
	})),
	{ name: "a header that is cut off", send: bytes(81, 0, 0), waits: true },
	{ name: "an unknown message type", send: message("z", text("abc")) },
	{ name: "a message type of replication", send: message("r", text("abc")) },
	{ name: "a backend's message", send: message("R", int32(0)) },
	{ name: "a PasswordMessage", send: frontend.passwordMessage("pgdog") },
	{ name: "a PasswordMessage of 1 MB", send: message("p", new Uint8Array(1 << 20)) },
	{ name: "a second StartupMessage", send: frontend.startupMessage(login) },
	{ name: "an SSLRequest", send: frontend.sslRequest() },
	{ name: "a CancelRequest", send: frontend.cancelRequest(1, 1) },
	{ name: "an HTTP request", send: HTTP },
	{ name: "a TLS ClientHello", send: CLIENT_HELLO },
	{ name: "sixty-four zero bytes", send: new Uint8Array(64) },
	{ name: "sixty-four bytes 0xff", send: new Uint8Array(64).fill(0xff) },
	{ name: "Query without a zero byte", send: message("Q", text("SELECT 1")) },
	{ name: "Query with nothing", send: message("Q") },
	{ name: "Query with bytes behind the zero byte", send: message("Q", cstring("SELECT 1"), text("more")) },
	{ name: "Query that is not UTF-8", send: message("Q", text("SELECT '"), bytes(0xff, 0xfe), cstring("'")) },
	{ name: "Parse with nothing", send: message("P") },
	{ name: "Parse without a statement's end", send: message("P", cstring("s"), text("SELECT 1")) },
	{ name: "Parse without a name's end", send: message("P", text("sSELECT 1")) },
	{ name: "Parse without a number of types", send: message("P", cstring(""), cstring("SELECT 1")) },
	{ name: "Parse with fewer types than it says", send: message("P", cstring(""), cstring("SELECT 1"), int16(1000)) },
	{ name: "Parse with a negative number of types", send: message("P", cstring(""), cstring("SELECT 1"), int16(-1)) },
	{ name: "Parse with bytes behind it", send: message("P", cstring(""), cstring("SELECT 1"), int16(0), text("more")) },
	{ name: "named Parse without a number of types", send: message("P", cstring("bad"), cstring("SELECT 1")) },
	{
		name: "named Parse with fewer types than it says",
		send: message("P", cstring("bad"), cstring("SELECT 1"), int16(9)),
	},
	{
		name: "named Parse with bytes behind it",
		send: message("P", cstring("bad"), cstring("SELECT 1"), int16(0), text("x")),
	},
	{
		name: "named Parse that is not UTF-8",
		send: message("P", cstring("bad"), text("SELECT '"), bytes(255, 0), int16(0)),
	},
	{ name: "Bind with nothing", send: message("B") },
	{ name: "Bind without a portal's end", send: message("B", text("portal")) },
	{ name: "Bind without a statement's end", send: message("B", cstring(""), text("s")) },
	{ name: "Bind without numbers", send: message("B", cstring(""), cstring("")) },
	{
		name: "Bind with a negative number of values",
		send: message("B", cstring(""), cstring(""), int16(0), int16(-1), int16(0)),
	},
	{
		name: "Bind with fewer values than it says",
		send: message("B", cstring(""), cstring(""), int16(0), int16(9), int16(0)),
	},
	{
		name: "Bind with a value longer than it is",
		send: message("B", cstring(""), cstring(""), int16(0), int16(1), int32(1 << 30), text("x"), int16(0)),
	},
	{
		name: "Bind with bytes behind it",
		send: message("B", cstring(""), cstring(""), int16(0), int16(0), int16(0), text("x")),
	},
	{ name: "Bind of a statement that is not there", send: frontend.bind({ statement: "nobody's" }) },
	{
		name: "Bind of a statement with a name of ours",
		send: frontend.bind({ statement: "__pgdog_1" }),
		differs: "such names are the proxy's: FATAL 42602",
	},
	...[..."DC"].flatMap((code) => [
		{ name: `${code} with nothing`, send: message(code) },
		{ name: `${code} of an unknown kind`, send: message(code, text("X"), cstring("")) },
		{ name: `${code} without a name's end`, send: message(code, text("Sname")) },
		{ name: `${code} with bytes behind it`, send: message(code, text("S"), cstring(""), text("x")) },
		{ name: `${code} of a statement that is not there`, send: message(code, text("S"), cstring("nobody's")) },
		{ name: `${code} of a portal that is not there`, send: message(code, text("P"), cstring("nobody's")) },
	]),
	{ name: "Execute with nothing", send: message("E") },
	{ name: "Execute without a portal's end", send: message("E", text("p")) },
	{ name: "Execute without a number of rows", send: message("E", cstring("")) },
	{ name: "Execute with bytes behind it", send: message("E", cstring(""), int32(0), text("x")) },
	{ name: "Execute of a portal that is not there", send: frontend.execute("nobody's", -5) },
	{ name: "Sync with a body", send: message("S", text("body")) },
	{ name: "Flush with a body", send: message("H", text("body")) },
	{ name: "FunctionCall with nothing", send: message("F") },
	{ name: "FunctionCall of no function", send: message("F", int32(1), int16(0), int16(0), int16(0)) },
	{ name: "FunctionCall with fewer values than it says", send: message("F", int32(1598), int16(0), int16(5)) },
	{ name: "CopyData", send: frontend.copyData("x\n") },
	{ name: "CopyDone", send: frontend.copyDone() },
	{ name: "CopyDone with a body", send: message("c", text("body")) },
	{ name: "CopyFail without a zero byte", send: message("f", text("no")) },
	{ name: "Flush alone", send: frontend.flush() },
	{ name: "a hundred Syncs", send: concat(...Array.from({ length: 100 }, () => frontend.sync())) },
];
