// TLS after SSLRequest, both ends in this process on real sockets: who is believed, and that no byte is lost.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { connect as connectPlain } from "node:net";
import { connect as connectTls } from "node:tls";
import { acceptTls, requestTls } from "../../src/net/secure.ts";
import { endPointOf, SSL_REQUEST, type TlsDemands, type TlsIdentity } from "../../src/net/tls.ts";
import { Authority, type Pair } from "../support/certificates.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { dial, HANDLERS, Listener, pour, TlsServer } from "./support.ts";

let authority: Authority;
let stranger: Authority;
let localhost: Pair;
let alice: Pair;
beforeAll(async () => {
	[authority, stranger] = await Promise.all([Authority.create(), Authority.create("Somebody else")]);
	[localhost, alice] = await Promise.all([
		authority.issue({ name: "localhost", dns: ["localhost"] }),
		authority.issue({ name: "alice", dns: ["alice.example"] }),
	]);
});
afterAll(() => {
	authority?.[Symbol.dispose]();
	stranger?.[Symbol.dispose]();
});

function identityOf(pair: Pair, more: Partial<TlsIdentity> = {}): TlsIdentity {
	const { certificatePem: certificate, keyPem: key } = pair;
	return { certificate, key, authorities: null, minimum: 0x303, endPoint: null, ...more };
}

function demands(verify: TlsDemands["verify"], more: Partial<TlsDemands> = {}): TlsDemands {
	return { verify, authorities: authority.pem, identity: null, ...more };
}

/** Says `answer` to an SSLRequest, and goes on with TLS where that is an S. */
class Server extends TlsServer {
	constructor(identity: TlsIdentity | null, answer = "S") {
		super((stream, first, done) => {
			expect(first).toEqual(SSL_REQUEST);
			if (answer === "") stream.end();
			else stream.writeAll(Buffer.from(answer));
			if (identity !== null) acceptTls(stream, identity, HANDLERS, done);
		});
	}
}

/** A stream that has asked `server` for TLS, and its owner from then on. */
async function request(server: Server, demanded: TlsDemands, name = "localhost") {
	const owner = new Listener();
	const stream = await dial(server.port, owner);
	try {
		await requestTls(stream, demanded, name, HANDLERS, owner);
	} catch (error) {
		stream.terminate();
		throw error;
	}
	return { stream, owner };
}

describe("both ends", () => {
	test("agree, know of what, and hear each other", async () => {
		using server = new Server(identityOf(localhost, { minimum: 0x304 }));
		const { stream, owner } = await request(server, demands("verify_full"));
		await until(() => server.outcome !== null, "the server's end");
		const { raw } = new X509Certificate(localhost.certificatePem);
		const cipher = expect.stringMatching(/AES|CHACHA/);
		expect(stream.secured).toEqual({ version: "TLSv1.3", cipher, names: null, endPoint: endPointOf(raw) });
		expect(server.stream!.secured).toEqual({ version: "TLSv1.3", cipher, names: null, endPoint: null });
		expect(server.outcome).toBe(server.stream!.secured);
		stream.writeAll(Buffer.from("hello"));
		await until(() => server.owner.length === 5, "hello");
		server.stream!.writeAll(Buffer.from("yes?"));
		await until(() => owner.length === 4, "an answer");
		expect([`${server.owner.heard}`, `${owner.heard}`]).toEqual(["hello", "yes?"]);
		// What TLS has agreed on cannot go elsewhere.
		expect([stream.detach(), stream.isQuiet]).toEqual([-1, false]);
		stream.end();
		await until(() => owner.closed.length === 1 && server.owner.closed.length === 1, "both ends to close");
	});

	test.each(["to the server", "to the client"])("lose nothing on the way %s, however late it is read", async (way) => {
		using server = new Server(identityOf(localhost));
		const { stream, owner } = await request(server, demands("prefer"));
		await until(() => server.outcome !== null, "the server's end");
		if (way === "to the server") await pour(stream, owner, server.stream!, server.owner, true);
		else {
			await pour(server.stream!, server.owner, stream, owner, false);
			await pour(server.stream!, server.owner, stream, owner, true);
		}
	});

	test("the server hears whose certificate the client shows", async () => {
		using server = new Server(identityOf(localhost, { authorities: authority.pem }));
		const identity = { certificate: alice.certificatePem, key: alice.keyPem };
		await request(server, demands("verify_full", { identity }));
		await until(() => server.outcome !== null, "the server's end");
		expect(server.outcome).toMatchObject({ names: { common: "alice", dns: ["alice.example"] } });
	});

	test("a client that shows none is for its login to judge; one of another authority is refused", async () => {
		using server = new Server(identityOf(localhost, { authorities: authority.pem }));
		await request(server, demands("verify_full"));
		await until(() => server.outcome !== null, "the server's end");
		expect(server.outcome).toMatchObject({ names: null });
		server.outcome = null;
		const { certificatePem: certificate, keyPem: key } = await stranger.issue({ name: "alice" });
		const { owner } = await request(server, demands("verify_full", { identity: { certificate, key } }));
		await until(() => server.outcome !== null, "the server's end");
		expect(server.outcome).toMatch(/verify|issuer/);
		await until(() => owner.closed.length === 1, "the end");
	});
});

describe("a server's certificate", () => {
	test.each([
		["prefer", "of another authority", true],
		["prefer", "of another name", true],
		["prefer", "that has expired", true],
		["verify_ca", "of another authority", false],
		["verify_ca", "of another name", true],
		["verify_ca", "that has expired", false],
		["verify_full", "of another authority", false],
		["verify_full", "of another name", false],
		["verify_full", "that has expired", false],
	] as const)("with %s one %s will do: %p", async (verify, which, does) => {
		const signer = which === "of another authority" ? stranger : authority;
		const name = which === "of another name" ? "elsewhere" : "localhost";
		const expired = which === "that has expired" ? { from: -20, to: -1 } : {};
		using server = new Server(identityOf(await signer.issue({ name, dns: [name], ...expired })));
		const tried = request(server, demands(verify));
		if (does) expect((await tried).stream.secured).not.toBe(null);
		else await rejects(tried, /^TLS handshake failed: /);
	});

	test("of an authority that nobody knows is refused where Bun's own are to judge", async () => {
		using server = new Server(identityOf(localhost));
		await rejects(request(server, demands("verify_full", { authorities: null })), "TLS handshake failed");
		await rejects(request(server, demands("verify_ca", { authorities: null })), "TLS handshake failed");
		await rejects(
			request(server, demands("verify_ca", { authorities: null })),
			'(tls_verify = "verify_ca"; tls_server_ca_certificate says who is trusted)',
		);
	});
});

describe("what a server answers to SSLRequest", () => {
	test("no TLS, is plain text where that will do", async () => {
		using server = new Server(null, "N");
		const { stream, owner } = await request(server, demands("prefer"));
		expect(stream.secured).toBe(null);
		expect(stream.owner).toBe(owner);
		stream.writeAll(Buffer.from("in the open"));
		await until(() => server.owner.length === 11, "it to be heard");
		for (const verify of ["verify_ca", "verify_full"] as const)
			await rejects(request(server, demands(verify)), "the server does not support TLS, but tls_verify");
	});

	test.each([
		["E", "the server does not understand SSLRequest"],
		["\0", "the server does not understand SSLRequest"],
		["Sx", "received unencrypted data after SSL response"],
		["Nx", "received unencrypted data after SSL response"],
		["", "the server closed the connection during the TLS handshake"],
	])("%j is an error that says so", async (answer, why) => {
		using server = new Server(null, answer);
		await rejects(request(server, demands("prefer")), why);
	});

	test("yes, and then something else than TLS, or nothing, is an error", async () => {
		using server = new Server(null, "S");
		const tried = request(server, demands("prefer"));
		await until(() => server.owner.length > 0, "a ClientHello");
		expect(server.owner.heard[0]).toBe(0x16);
		server.stream!.writeAll(Buffer.from("ERROR:  what?"));
		await rejects(tried);
		server.stream = null;
		const another = request(server, demands("prefer"));
		await until(() => server.stream?.bytesIn !== undefined && server.stream.bytesIn > SSL_REQUEST.length, "another");
		server.stream!.terminate();
		await rejects(another);
	});
});

describe("somebody else's client", () => {
	/** A client of node:tls; what it says of itself once it is connected. */
	function visit(server: Server, options: object): Promise<string> {
		const { promise, resolve } = Promise.withResolvers<string>();
		const socket = connectPlain(server.port, "127.0.0.1", () => socket.write(SSL_REQUEST));
		socket.once("data", (answer) => {
			if (`${answer}` !== "S") return resolve(`${answer}`);
			const tls = connectTls({ socket, ca: authority.pem, servername: "localhost", ...options }, () => {
				tls.write("hello");
				resolve(`${tls.getProtocol()} ${tls.alpnProtocol}`);
			});
			tls.on("error", ({ message }) => resolve(message));
		});
		return promise;
	}

	test.each([
		[{ ALPNProtocols: ["postgresql"] }, "TLSv1.3 postgresql"],
		[{ maxVersion: "TLSv1.2" }, "TLSv1.2 false"],
		[{}, "TLSv1.3 false"],
	])("that asks for %j is told %s", async (options, told) => {
		using server = new Server(identityOf(localhost));
		expect(await visit(server, options)).toBe(told);
		await until(() => server.owner.length > 0, "hello");
		expect(`${server.owner.heard}`).toBe("hello");
		expect(server.stream!.secured!.version).toBe(told.split(" ")[0]!);
	});

	test("that knows no version that will do is refused", async () => {
		using server = new Server(identityOf(localhost, { minimum: 0x304 }));
		expect(await visit(server, { maxVersion: "TLSv1.2" })).not.toMatch(/^TLS/);
		await until(() => server.outcome !== null || server.owner.closed.length > 0, "the server's end");
		expect(server.stream!.secured).toBe(null);
	});
});
