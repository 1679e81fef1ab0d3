// TLS before the log-in: how it begins, what may not come in plain text, and whose certificate lets whom in.

import { afterAll, beforeAll, expect, test } from "bun:test";
import type { User } from "../../src/config/snapshot.ts";
import { endPointOf, type TlsIdentity } from "../../src/net/tls.ts";
import { ScriptedServer, testPool } from "../pool/support.ts";
import { Authority, type Pair } from "../support/certificates.ts";
import { errorFields } from "../support/message.ts";
import { RawClient, type Tls } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { concat, frontend } from "../support/wire-frames.ts";
import { type LoginListener, listen } from "./support.ts";

const postgres = new ScriptedServer();
const inner = testPool(postgres.port, { pool_size: 20 });
let authority: Authority;
let own: Pair;
let alice: Pair;
let stranger: Pair;
let other: Authority;

beforeAll(async () => {
	[authority, other] = await Promise.all([Authority.create(), Authority.create("Somebody else")]);
	[own, alice, stranger] = await Promise.all([
		authority.issue({ name: "localhost" }),
		authority.issue({ name: "alice", dns: ["alice.example"] }),
		other.issue({ name: "alice", dns: ["alice.example"] }),
	]);
});
afterAll(() => {
	for (const each of [authority, other]) each[Symbol.dispose]();
	inner.pool.shutDown();
	postgres[Symbol.dispose]();
});

const USERS: User[] = [
	{ name: "u", database: "d", passwords: ["secret"] },
	{ name: "guest", database: "d", passwords: ["secret"], tls_client_certificate_required: false },
	{ name: "alice", database: "d", passwords: [], identity: "alice.example" },
	{ name: "bob", database: "d", passwords: [], identity: "bob" },
];
const STARTUP = frontend.startupMessage({ user: "u", database: "d" });

/** Offers TLS. @param isMutual it asks for certificates of the authority */
function stage(settings: Parameters<typeof listen>[2] = {}, isMutual = false, address?: string) {
	const listening = listen(inner, USERS, settings, address);
	const identity: TlsIdentity = {
		certificate: own.certificatePem,
		key: own.keyPem,
		authorities: isMutual ? authority.pem : null,
		minimum: 0x303,
		endPoint: "AAAA",
	};
	listening.context.tls = { clients: Object.freeze(identity), servers: null };
	return Object.assign(listening, { [Symbol.dispose]: () => listening.stop() });
}

const connect = ({ port }: LoginListener, user: string, tls: Tls = {}, password = "secret") =>
	RawClient.connect({ port, user, database: "d", password, tls });
const open = ({ port }: LoginListener) => RawClient.open({ port });

async function told(client: RawClient): Promise<string> {
	const last = (await client.closed).at(-1);
	if (last?.code !== "E") return last?.code ?? "nothing";
	const { C, M } = errorFields(last.body);
	return `${C} ${M}`;
}

/** The reasons in the log for which log-ins were refused. */
const reasons = ({ lines }: LoginListener) => lines.flatMap((line) => /auth error: (.*) \[/.exec(line)?.[1] ?? []);

test("after SSLRequest, or with its first byte, a client goes on with TLS, and logs in by what protects it", async () => {
	using listening = stage({ auth_type: "scram" });
	await using asked = await connect(listening, "u");
	expect(asked.backendPid).toBeGreaterThan(0);
	const direct = await RawClient.open({ port: listening.port, directTls: {} });
	await direct.login({ user: "u", database: "d", password: "secret" });
	expect(direct.backendPid).toBeGreaterThan(0);
	// The log-in may be bound to the certificate, which is possible over TLS only.
	const mechanisms = direct.received.find(({ code }) => code === "R")!.body.toString("latin1", 4);
	expect(mechanisms).toBe("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
	direct.close();
	const plain = await open(listening);
	plain.send(STARTUP);
	expect((await plain.next()).body.toString("latin1", 4)).toBe("SCRAM-SHA-256\0\0");
	plain.close();
	// Both have been shown the certificate that is ours.
	const third = await open(listening);
	const { raw } = await third.requestTls();
	expect(endPointOf(raw)).not.toBe(null);
	third.close();
});

test("over TLS neither SSLRequest nor GSSENCRequest is known", async () => {
	using listening = stage();
	for (const request of [frontend.sslRequest(), frontend.gssencRequest()]) {
		const client = await open(listening);
		await client.requestTls();
		client.send(request);
		expect((await told(client)).slice(0, 5)).toBe("0A000");
	}
});

test("what comes in plain text together with SSLRequest is refused", async () => {
	using listening = stage();
	const client = await open(listening);
	client.send(concat(frontend.sslRequest(), STARTUP));
	expect(await told(client)).toBe("08P01 received unencrypted data after SSL request");
});

test("a handshake that fails ends the connection, and is logged", async () => {
	using listening = stage();
	const client = await open(listening);
	client.send(frontend.sslRequest());
	expect(await client.nextByte()).toBe("S");
	client.send(STARTUP);
	// TLS's own alert is no message.
	await until(() => client.ended, "the end");
	await until(() => listening.startups.size === 0, "the end of the log-in");
	expect(listening.lines.filter((line) => line.includes("TLS handshake failed: "))).toHaveLength(1);
});

test("who leaves, or for whom the time is over, in a handshake is told nothing, and nothing follows", async () => {
	using listening = stage();
	const begin = async () => {
		const client = await open(listening);
		client.send(frontend.sslRequest());
		expect(await client.nextByte()).toBe("S");
		return client;
	};
	const leaves = await begin();
	leaves.close();
	await until(() => listening.startups.size === 0, "its end");
	for (const end of ["expire", "shutDown"] as const) {
		const client = await begin();
		for (const startup of [...listening.startups]) startup[end]();
		await until(() => client.ended, "the end");
		expect([client.pending(), listening.startups.size]).toEqual([[], 0]);
	}
});

test("where TLS is required plain text is refused, after the StartupMessage; the Unix socket needs none", async () => {
	using listening = stage({ tls_client_required: true });
	const client = await open(listening);
	client.send(STARTUP);
	expect(await told(client)).toBe("08004 only TLS connections are allowed");
	await using encrypted = await connect(listening, "u");
	expect(encrypted.backendPid).toBeGreaterThan(0);
	using unix = stage({ tls_client_required: true }, false, "unix");
	const local = await open(unix);
	local.send(frontend.sslRequest());
	expect(await local.nextByte()).toBe("N");
	local.send(STARTUP);
	expect((await local.until("Z")).map(({ code }) => code).join("")).toBe("RKZ");
	local.close();
	// Nor does TLS begin there without a word.
	const hello = await open(unix);
	hello.send(Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1));
	expect(await told(hello)).toBe("nothing");
});

test("where certificates are asked for none lets in nobody but those who need none", async () => {
	using listening = stage({ auth_type: "plain" }, true);
	await rejects(connect(listening, "u"), "28000");
	await using guest = await connect(listening, "guest");
	await using shown = await connect(listening, "u", { cert: alice.certificatePem, key: alice.keyPem });
	expect([guest.backendPid > 0, shown.backendPid > 0]).toEqual([true, true]);
	// The password counts all the same.
	const certified = { cert: alice.certificatePem, key: alice.keyPem };
	await rejects(connect(listening, "u", certified, "wrong"), "28000");
	expect(reasons(listening)).toEqual(["it has shown no certificate", "wrong password"]);
});

test("a certificate of another authority ends the handshake", async () => {
	using listening = stage({}, true);
	await rejects(connect(listening, "u", { cert: stranger.certificatePem, key: stranger.keyPem }));
	await until(() => listening.startups.size === 0, "the end of the log-in");
	expect(listening.lines.filter((line) => line.includes("TLS handshake failed: "))).toHaveLength(1);
});

test("an identity lets in whose certificate has the name, without a password, and nobody else", async () => {
	using listening = stage({ auth_type: "scram" }, true);
	const certified = { cert: alice.certificatePem, key: alice.keyPem };
	await using client = await connect(listening, "alice", certified, "");
	expect(client.received.filter(({ code }) => code === "R").map(({ body }) => body.readInt32BE(0))).toEqual([0]);
	await rejects(connect(listening, "bob", certified), "28000");
	await rejects(connect(listening, "alice"), "28000");
	const plain = await open(listening);
	plain.send(frontend.startupMessage({ user: "alice", database: "d" }));
	expect((await told(plain)).slice(0, 5)).toBe("28000");
	const none = "it has shown no certificate, which its identity asks for";
	expect(reasons(listening)).toEqual(['its certificate is of "alice.example", its identity is another', none, none]);
});
