// TLS from the first byte, both ends in this process: the server's is the proxy's, the client's node:tls or Bun's own.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect as connectPlain } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { acceptDirectTls } from "../../src/net/direct-tls.ts";
import { ALPN_LIST, CLIENT_HELLO, type Secured, type TlsIdentity } from "../../src/net/tls.ts";
import { Authority, type Pair } from "../support/certificates.ts";
import { until } from "../support/until.ts";
import { HANDLERS, Listener, MUCH, TlsServer } from "./support.ts";

let authority: Authority;
let localhost: Pair;
let alice: Pair;
beforeAll(async () => {
	authority = await Authority.create();
	localhost = await authority.issue({ name: "localhost", dns: ["localhost"] });
	alice = await authority.issue({ name: "alice" });
});
afterAll(() => authority?.[Symbol.dispose]());

/** Goes on with TLS at the first byte. */
class Server extends TlsServer {
	constructor(more: Partial<TlsIdentity> = {}) {
		const { certificatePem: certificate, keyPem: key } = localhost;
		const identity = { certificate, key, authorities: null, minimum: 0x303, endPoint: null, ...more };
		super((stream, first, done) => acceptDirectTls(stream, first, identity, HANDLERS, done));
	}
}

/** A client of node:tls, which trusts nobody but our authority. */
class Visitor implements Disposable {
	readonly socket: TLSSocket;
	readonly owner = new Listener();
	said = "";

	constructor({ port }: Server, options: object = {}) {
		const known = { ca: authority.pem, servername: "localhost", ALPNProtocols: ["postgresql"] };
		const socket = connectTls({ host: "127.0.0.1", port, ...known, ...options } as Parameters<typeof connectTls>[0]);
		this.socket = socket;
		socket.on("secureConnect", () => {
			this.said = `${socket.getProtocol()} ${socket.alpnProtocol}`;
		});
		socket.on("data", (chunk: Buffer) => this.owner.onData(chunk));
		socket.on("error", ({ message }) => {
			this.said = message;
		});
		socket.on("close", () => this.owner.onClose(undefined));
	}

	[Symbol.dispose](): void {
		this.socket.destroy();
	}
}

describe("a client", () => {
	test.each(["TLSv1.2", "TLSv1.3"])("of %s agrees, hears and is heard, until it leaves", async (version) => {
		using server = new Server();
		using visitor = new Visitor(server, { maxVersion: version });
		await until(() => server.outcome !== null && visitor.said !== "", "both ends");
		expect(visitor.said).toBe(`${version} postgresql`);
		const cipher = expect.stringMatching(/AES|CHACHA/);
		expect(server.outcome).toEqual({ version, cipher, names: null, endPoint: null });
		expect(server.stream!.secured).toBe(server.outcome as Secured);
		visitor.socket.write("hello");
		await until(() => server.owner.length === 5, "hello");
		server.stream!.writeAll(Buffer.from("yes?"));
		await until(() => visitor.owner.length === 4, "an answer");
		expect([`${server.owner.heard}`, `${visitor.owner.heard}`]).toEqual(["hello", "yes?"]);
		visitor.socket.end();
		await until(() => server.owner.closed.length === 1, "the server to hear of the end");
	});

	test("that is told to go hears the last words first", async () => {
		using server = new Server();
		using visitor = new Visitor(server);
		await until(() => server.outcome !== null, "the server's end");
		server.stream!.writeAll(Buffer.from("farewell"));
		server.stream!.end();
		server.stream!.writeAll(Buffer.from("too late"));
		await until(() => visitor.owner.closed.length === 1 && server.owner.closed.length === 1, "both ends to close");
		expect(`${visitor.owner.heard}`).toBe("farewell");
	});

	test("of Bun's own does as well", async () => {
		using server = new Server();
		const heard: string[] = [];
		const tls = { ca: authority.pem, serverName: "localhost", ALPNProtocols: ALPN_LIST };
		const socket = await Bun.connect({
			hostname: "127.0.0.1",
			port: server.port,
			tls,
			socket: { data: (_, chunk) => void heard.push(`${chunk}`) },
		});
		await until(() => server.outcome !== null, "the server's end");
		expect(server.outcome).toMatchObject({ version: "TLSv1.3" });
		server.stream!.writeAll(Buffer.from("hello"));
		await until(() => heard.join("") === "hello", "hello");
		socket.end();
		await until(() => server.owner.closed.length === 1, "the end");
	});

	test.each([
		["nothing", undefined],
		["another protocol", ["http/1.1"]],
	])("that says %s of what it will speak is refused", async (_, ALPNProtocols) => {
		using server = new Server();
		using visitor = new Visitor(server, { ALPNProtocols });
		await until(() => server.outcome !== null && visitor.owner.closed.length === 1, "both ends");
		if (ALPNProtocols === undefined)
			expect(server.outcome).toBe("direct TLS without ALPN protocol negotiation extension");
		else expect(server.outcome).toBeString();
		expect(server.stream!.secured).toBe(null);
	});

	test("that knows no version that will do is refused", async () => {
		using server = new Server({ minimum: 0x304 });
		using visitor = new Visitor(server, { maxVersion: "TLSv1.2" });
		await until(() => server.outcome !== null && visitor.owner.closed.length === 1, "both ends");
		expect(server.outcome).toBeString();
		expect(visitor.said).not.toMatch(/^TLS/);
	});

	test("is known by the certificate that it shows, and refused with one of another authority", async () => {
		using server = new Server({ authorities: authority.pem });
		using stranger = await Authority.create("Somebody else");
		const forged = await stranger.issue({ name: "alice" });
		for (const [pair, outcome] of [
			[null, expect.objectContaining({ names: null })],
			[alice, expect.objectContaining({ names: { common: "alice", dns: [] } })],
			[forged, expect.stringMatching(/VERIFY|ISSUER/)],
		] as const) {
			server.outcome = null;
			using visitor = new Visitor(server, pair === null ? {} : { cert: pair.certificatePem, key: pair.keyPem });
			await until(() => server.outcome !== null, "the server's end");
			expect(server.outcome).toEqual(outcome);
			visitor.socket.destroy();
		}
	});

	test("that only begins as TLS does is refused, and one that leaves in the middle is gone", async () => {
		using server = new Server();
		const begin = (bytes: number[]) =>
			Bun.connect({
				hostname: "127.0.0.1",
				port: server.port,
				socket: { data() {}, open: (socket) => void socket.write(Buffer.from(bytes)) },
			});
		await begin([CLIENT_HELLO, ...Buffer.from("GET / HTTP/1.1\r\n\r\n")]);
		await until(() => server.outcome !== null, "the refusal");
		expect(server.outcome).toBeString();
		server.outcome = null;
		const closed = server.owner.closed.length;
		const half = await begin([CLIENT_HELLO, 3, 1, 2, 0]);
		await until(() => server.stream!.bytesIn === 5, "half a hello");
		half.end();
		await until(() => server.owner.closed.length > closed, "the end");
		expect(server.stream!.secured).toBe(null);
	});
});

describe("megabytes", () => {
	test.each([false, true])("to a client that reads late arrive whole, and the end after them: %p", async (ends) => {
		using server = new Server();
		using visitor = new Visitor(server);
		await until(() => server.outcome !== null && visitor.said !== "", "both ends");
		visitor.socket.pause();
		const stream = server.stream!;
		let flows = true;
		for (let at = 0; at < MUCH.length; at += 1 << 20) flows = stream.write(MUCH, at, 1 << 20) && flows;
		expect(flows).toBe(false);
		expect(stream.queued).toBeGreaterThan(0);
		if (ends) stream.end();
		visitor.socket.resume();
		await until(() => visitor.owner.length === MUCH.length, "all of it");
		expect(visitor.owner.heard.equals(MUCH)).toBe(true);
		if (ends) await until(() => visitor.owner.closed.length === 1 && server.owner.closed.length === 1, "the end");
		else await until(() => server.owner.drained > 0, "it to have drained");
		expect(stream.queued).toBe(0);
	});

	test("to a client that reads none of them, and then sends what is no TLS, end with it", async () => {
		using server = new Server();
		const raw = connectPlain(server.port, "127.0.0.1");
		using visitor = new Visitor(server, { socket: raw });
		await until(() => server.outcome !== null && visitor.said !== "", "both ends");
		visitor.socket.pause();
		const stream = server.stream!;
		for (let at = 0; at < MUCH.length; at += 1 << 20) stream.write(MUCH, at, 1 << 20);
		expect(stream.queued).toBeGreaterThan(0);
		raw.write("this is no record of TLS at all, and never will be");
		await until(() => server.owner.closed.length === 1, "the end");
		expect([stream.closed, stream.queued]).toEqual([true, 0]);
		raw.destroy();
	});

	test("of a client that is read late arrive whole", async () => {
		using server = new Server();
		using visitor = new Visitor(server);
		await until(() => server.outcome !== null, "the server's end");
		server.stream!.pause();
		visitor.socket.write(MUCH);
		visitor.socket.end();
		await until(() => visitor.said !== "", "the client");
		expect(server.owner.length).toBeLessThan(MUCH.length);
		server.stream!.resume();
		await until(() => server.owner.length === MUCH.length, "all of it");
		expect(server.owner.heard.equals(MUCH)).toBe(true);
		await until(() => server.owner.closed.length === 1, "the end");
	});
});
