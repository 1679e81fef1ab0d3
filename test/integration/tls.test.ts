// TLS between clients and the proxy: who may, who must, what protects the login, and that nothing in plain text gets in.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash, X509Certificate } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SQL } from "bun";
import { Client } from "pg";
import postgres from "postgres";
import { Authority, type Pair } from "../support/certificates.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { postgresHome } from "../support/postgres-home.ts";
import { failProxy, type Proxy, type ProxyOptions, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { admin, connect, one, show, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let authority: Authority;
let localhost: Pair;
/** Offers TLS, in its two workers. */
let proxy: Proxy;
/** Offers none. */
let plain: Proxy;
/** Has nobody in without it, and without a certificate nobody but "guest". */
let strict: Proxy;

const SSL_REQUEST = f.sslRequest();
const STARTUP = f.startupMessage({ user: "pgdog", database: "pgdog" });

function withTls(pair: Pair, general: Record<string, unknown> = {}): Pick<ProxyOptions, "config" | "users"> {
	const files = { tls_certificate: pair.certificate, tls_private_key: pair.key };
	const { config, users } = simpleConfig(cluster.primary, { ...files, ...general });
	return withAdmin({ config, users });
}

beforeAll(async () => {
	[cluster, authority] = await Promise.all([startPostgres(), Authority.create()]);
	localhost = await authority.issue({ name: "localhost", dns: ["localhost"], ips: ["127.0.0.1"] });
	const mutual = withTls(localhost, { tls_client_required: true, tls_client_ca_certificate: authority.path });
	const database = "pgdog";
	[proxy, plain, strict] = await Promise.all([
		startProxy(withTls(localhost)),
		startProxy(simpleConfig(cluster.primary)),
		startProxy({
			...mutual,
			users: [
				{ name: "pgdog", database, password: "pgdog" },
				{
					name: "guest",
					database,
					password: "guest",
					server_user: "pgdog",
					server_password: "pgdog",
					tls_client_certificate_required: false,
				},
				{ name: "alice", database, identity: "alice.example", server_user: "pgdog", server_password: "pgdog" },
				{
					name: "bob",
					database,
					identity: "bob",
					password: "never asked",
					server_user: "pgdog",
					server_password: "pgdog",
				},
			],
		}),
	]);
});
afterAll(async () => {
	await Promise.all([proxy, plain, strict].map((each) => each?.stop("SIGKILL")));
	await cluster?.stop();
	authority?.[Symbol.dispose]();
});

describe("psql", () => {
	const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

	/** What psql says to `SELECT`, or the first line of its error. */
	async function psql(path: string, to: Proxy, words: string, env: Record<string, string> = {}): Promise<string> {
		const target = `host=localhost port=${to.port} user=pgdog password=pgdog dbname=pgdog`;
		const { stdout, stderr } = await runTool([path, "-XAtqc", "SELECT 'in'", `${target} ${words}`], env);
		return stdout.trim() || (stderr.split("\n")[0] ?? "").replace(/^.*failed: (FATAL: +)?/, "");
	}

	testWithTool("psql", "each sslmode and channel_binding, where TLS is offered and where it is not", async (path) => {
		const other = await Authority.create("Somebody else");
		const wrongHost = await authority.issue({ name: "elsewhere", dns: ["elsewhere.example"] });
		await using elsewhere = await startProxy(withTls(wrongHost));
		await using required = await startProxy(withTls(localhost, { tls_client_required: true }));
		const cases = SSL_MODES.flatMap((mode) => ["disable", "prefer", "require"].map((binding) => ({ mode, binding })));
		const tried = cases.map(async ({ mode, binding }) => {
			const words = `sslmode=${mode} channel_binding=${binding} sslrootcert=${authority.path}`;
			const encrypts = mode !== "disable" && mode !== "allow";
			const label = `${mode}, ${binding}`;
			const unbound = mode === "disable" || mode === "allow" ? "channel binding required, but SSL not in use" : "in";
			const where = (to: Proxy) => psql(path, to, words).then((said) => `${label}: ${said}`);
			expect(await where(proxy)).toBe(`${label}: ${binding === "require" ? unbound : "in"}`);
			// "allow" goes back to TLS where plain text is refused.
			const insists = mode === "disable" ? "only TLS connections are allowed" : "in";
			expect(await where(required)).toBe(`${label}: ${insists}`);
			const noTls = ["require", "verify-ca", "verify-full"].includes(mode)
				? "server does not support SSL, but SSL was required"
				: binding === "require"
					? "channel binding required, but SSL not in use"
					: "in";
			expect(await where(plain)).toBe(`${label}: ${noTls}`);
			if (encrypts && binding === "prefer") {
				const wrong = 'server certificate for "elsewhere.example" does not match host name "localhost"';
				expect(await where(elsewhere)).toBe(`${label}: ${mode === "verify-full" ? wrong : "in"}`);
				const untrusted = `sslmode=${mode} sslrootcert=${other.path}`;
				const said = await psql(path, proxy, untrusted);
				// libpq takes `require` with a root certificate for verify-ca.
				if (mode === "prefer") expect(said).toBe("in");
				else expect(said).toContain("certificate verify failed");
			}
		});
		await Promise.all(tried);
		other[Symbol.dispose]();
	});

	testWithTool("psql", "each sslmode and channel_binding with sslnegotiation=direct, by libpq 17", async (path) => {
		await using required = await startProxy(withTls(localhost, { tls_client_required: true }));
		// Whatever psql this machine has: what knows of direct TLS is the library, which comes with the tests' PostgreSQL.
		const env = { LD_LIBRARY_PATH: join((await postgresHome()).bin, "..", "lib") };
		const cases = SSL_MODES.flatMap((mode) => ["disable", "prefer", "require"].map((binding) => ({ mode, binding })));
		const tried = cases.map(async ({ mode, binding }) => {
			const words = `sslnegotiation=direct sslmode=${mode} channel_binding=${binding} sslrootcert=${authority.path}`;
			const label = `${mode}, ${binding}`;
			const weak = ["disable", "allow", "prefer"].includes(mode);
			const where = (to: Proxy) => psql(path, to, words, env).then((said) => `${label}: ${said}`);
			for (const to of [proxy, required])
				expect(await where(to)).toMatch(
					weak ? `weak sslmode "${mode}" may not be used with sslnegotiation=direct` : `${label}: in`,
				);
			expect(await where(plain)).toMatch(weak ? "weak sslmode" : /SSL connection has been closed|SSL SYSCALL error/);
		});
		await Promise.all(tried);
	});

	testWithTool(
		"psql",
		"a certificate that has expired, or is not valid yet, is warned of and shown all the same",
		async (path) => {
			for (const [from, to, warned] of [
				[-20, -1, /tls_certificate .* has expired on/],
				[1, 20, /tls_certificate .* is not valid before/],
				[-1, 3, /tls_certificate .* expires on/],
			] as const) {
				await using odd = await startProxy(
					withTls(await authority.issue({ name: "localhost", dns: ["localhost"], from, to })),
				);
				await odd.waitForLog(warned);
				const full = await psql(path, odd, `sslmode=verify-full sslrootcert=${authority.path}`);
				if (to === 3) expect(full).toBe("in");
				else expect(full).toContain("certificate verify failed");
				expect(await psql(path, odd, "sslmode=require")).toBe("in");
			}
		},
	);

	testWithTool(
		"psql",
		"channel binding by the hash of each kind of certificate; none where it has no hash",
		async (path) => {
			for (const kind of ["rsa", "ecdsa-384", "ed25519"] as const) {
				await using other = await startProxy(
					withTls(await authority.issue({ name: "localhost", dns: ["localhost"], kind })),
				);
				expect(await psql(path, other, "sslmode=require channel_binding=require")).toBe("in");
			}
		},
	);
});

describe("drivers over TLS", () => {
	test("pg, with a prepared statement and a large answer", async () => {
		const client = new Client({ ...target(), ssl: { ca: authority.pem, servername: "localhost" } });
		await client.connect();
		expect((await client.query({ name: "n", text: "SELECT $1::int + 1 AS n", values: [41] })).rows).toEqual([
			{ n: 42 },
		]);
		const { rows } = await client.query("SELECT repeat('x', 3000000) AS x FROM generate_series(1, 10)");
		expect(rows.map(({ x }) => x.length)).toEqual(Array.from({ length: 10 }, () => 3_000_000));
		await client.end();
	});

	test("postgres.js, pipelined", async () => {
		const sql = postgres({ ...target(), ssl: { ca: authority.pem, servername: "localhost" }, max: 3 });
		const answers = await Promise.all(Array.from({ length: 100 }, (_, i) => sql`SELECT ${i}::int AS i`));
		expect(answers.map(([row]) => row?.i)).toEqual(Array.from({ length: 100 }, (_, i) => i));
		await sql.end();
	});

	test("Bun.sql", async () => {
		await using sql = new SQL({
			...target(),
			username: "pgdog",
			tls: { ca: authority.pem, serverName: "localhost" },
			max: 2,
		});
		const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => sql`SELECT ${i}::int AS i`));
		expect(answers.map(([row]) => row.i)).toEqual(Array.from({ length: 20 }, (_, i) => i));
	});

	function target() {
		return { host: "127.0.0.1", port: proxy.port, user: "pgdog", password: "pgdog", database: "pgdog" };
	}
});

describe("what protects it", () => {
	test("what comes with an SSLRequest, before its answer, is never taken for what TLS brings", async () => {
		for (const early of [STARTUP, f.query("SELECT 1"), Buffer.from([0x16, 3, 1, 0]), Buffer.from([0])]) {
			await using client = await RawClient.open({ port: proxy.port });
			client.send(concat(SSL_REQUEST, early));
			const [error] = await client.closed;
			expect(error?.body.toString()).toContain("received unencrypted data after SSL request");
		}
	});

	test("neither SSLRequest nor GSSENCRequest comes in TLS, and GSSENCRequest is answered N before it", async () => {
		for (const again of [SSL_REQUEST, f.gssencRequest()]) {
			await using client = await RawClient.open({ port: proxy.port });
			client.send(f.gssencRequest());
			expect(await client.nextByte()).toBe("N");
			await client.requestTls();
			client.send(again);
			expect((await client.closed)[0]?.body.toString()).toContain("unsupported frontend protocol 1234.");
		}
	});

	test("only what is asked for is spoken: versions, and ALPN where TLS comes first", async () => {
		await using modern = await startProxy(withTls(localhost, { tls_min_version: "1.3" }));
		for (const [to, maxVersion, protocol] of [
			[proxy, 0x303, "TLSv1.2"],
			[proxy, 0x304, "TLSv1.3"],
			[modern, 0x304, "TLSv1.3"],
		] as const) {
			for (const way of ["tls", "directTls"]) {
				await using client = await connect(to, { [way]: { maxVersion } });
				expect(await one(client, "SELECT 'in'")).toBe("in");
				await using console = await admin(to);
				const [row] = await show(console, "SHOW CLIENTS");
				expect(row?.tls).toStartWith(`${protocol}/`);
			}
			await using client = await RawClient.open({ port: to.port });
			expect((await client.requestTls({ maxVersion })).protocol).toBe(protocol);
		}
		for (const way of ["tls", "directTls"]) await rejects(connect(modern, { [way]: { maxVersion: 0x303 } }));
		for (const ALPNProtocols of [Buffer.from("\x08http/1.1"), Buffer.alloc(0)])
			await rejects(connect(proxy, { directTls: { ALPNProtocols } }));
		// After an SSLRequest nobody has to name the protocol.
		await using client = await connect(proxy, { tls: { ALPNProtocols: Buffer.alloc(0) } });
		expect(await one(client, "SELECT 'in'")).toBe("in");
	});

	test("SCRAM-SHA-256-PLUS: a proof for another certificate, a client that was told there is none, PLUS in plain text", async () => {
		const binding = (hash: Buffer) => Buffer.concat([Buffer.from("p=tls-server-end-point,,"), hash]).toString("base64");
		const hash = createHash("sha256").update(new X509Certificate(localhost.certificatePem).raw).digest();
		const PLUS = "SCRAM-SHA-256-PLUS";
		const final = async (cbind: string) => {
			await using client = await begin(PLUS, "p=tls-server-end-point,,n=,r=abc");
			const challenge = await client.until("R");
			const nonce = /r=([^,]+)/.exec(challenge.at(-1)!.body.toString())![1];
			client.send(f.saslResponse(`c=${cbind},r=${nonce},p=${Buffer.alloc(32).toString("base64")}`));
			return (await client.closed).map(({ body }) => body.toString()).join();
		};
		expect(await final(binding(Buffer.alloc(32)))).toContain("SCRAM channel binding check failed");
		expect(await final(Buffer.from("n,,").toString("base64"))).toContain("SCRAM channel binding check failed");
		// What it is bound to is right: the proof is not.
		expect(await final(binding(hash))).toContain("is wrong");
		const first = async (mechanism: string, message: string, tls = true) => {
			await using client = await begin(mechanism, message, tls);
			return (await client.closed).map(({ body }) => body.toString()).join();
		};
		expect(await first("SCRAM-SHA-256", "y,,n=,r=abc")).toContain("SCRAM channel binding negotiation error");
		expect(await first(PLUS, "n,,n=,r=abc")).toContain("malformed SCRAM message");
		expect(await first(PLUS, "p=tls-unique,,n=,r=abc")).toContain("unsupported SCRAM channel-binding type");
		expect(await first(PLUS, "p=tls-server-end-point,,n=,r=abc", false)).toContain(
			"invalid SASL authentication mechanism",
		);

		async function begin(mechanism: string, message: string, tls = true): Promise<RawClient> {
			const client = await RawClient.open({ port: proxy.port });
			if (tls) await client.requestTls();
			client.send(STARTUP);
			await client.until("R");
			client.send(f.saslInitialResponse(mechanism, message));
			return client;
		}
	});

	test("a handshake begun and left, broken, cut or slow costs its sender alone", async () => {
		const hello = Buffer.from("16030100750100007103030000000000000000", "hex");
		const bad = [
			concat(SSL_REQUEST),
			Buffer.from([0x16]),
			Buffer.from([0x16, 3, 1, 0xff, 0xff]),
			concat(hello, Buffer.alloc(1 << 20, 0x16)),
			concat(Buffer.from([0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc]), Buffer.alloc(1 << 20)),
			Buffer.from("\x16GET / HTTP/1.1\r\n\r\n"),
		];
		await using console = await admin(proxy);
		const before = (await show(console, "SHOW SERVERS")).length;
		await Promise.all(
			Array.from({ length: 1_000 }, async (_, i) => {
				const client = await RawClient.open({ port: proxy.port });
				client.send(bad[i % bad.length]!);
				if (i % bad.length === 0) {
					expect(await client.nextByte()).toBe("S");
					client.send(bad[(i / bad.length) % bad.length]!);
				}
				if (i % 3 === 0) client.reset();
				else if (i % 3 === 1) client.close();
				else setTimeout(() => client.close(), 200);
			}),
		);
		await using client = await connect(proxy, { tls: {} });
		expect(await one(client, "SELECT 'in'")).toBe("in");
		expect((await show(console, "SHOW SERVERS")).length).toBeLessThanOrEqual(before + 1);
		expect(proxy.log).not.toContain("internal error");
		await proxy.waitForLog(/TLS handshake failed: /);
	});

	test("renegotiation is refused, in the middle of a session, and costs its sender alone", async () => {
		await using other = await connect(proxy, { tls: {} });
		await using hello = await RawClient.open({ port: proxy.port });
		// Bun's own client cannot ask for it; Node's does where TLS 1.2 still has it.
		const script = `
			const socket = require("net").connect(${proxy.port}, "127.0.0.1", () => socket.write(Buffer.from("0000000804d2162f", "hex")));
			socket.once("data", () => {
				const secure = require("tls").connect({ socket, rejectUnauthorized: false, maxVersion: "TLSv1.2" }, () => {
					console.log(secure.getProtocol());
					secure.renegotiate({ rejectUnauthorized: false }, (error) => console.log(error ? "refused" : "renegotiated"));
				});
				secure.on("error", (error) => console.log(error.code));
				secure.on("close", () => process.exit(0));
			});`;
		const { stdout } = await runTool(["node", "-e", script]);
		expect(stdout).toStartWith("TLSv1.2\n");
		expect(stdout).not.toContain("renegotiated");
		expect(await one(other, "SELECT 'still here'")).toBe("still here");
		hello.send(SSL_REQUEST);
		expect(await hello.nextByte()).toBe("S");
	});

	test("a handshake that is never finished ends with the time to log in", async () => {
		await using hasty = await startProxy(withTls(localhost, { client_login_timeout: 300 }));
		await using silent = await RawClient.open({ port: hasty.port });
		silent.send(SSL_REQUEST);
		expect(await silent.nextByte()).toBe("S");
		await using cut = await RawClient.open({ port: hasty.port });
		cut.send(Buffer.from([0x16, 3, 1]));
		expect(await cut.closed).toEqual([]);
		expect(await silent.closed).toEqual([]);
	});
});

describe("client certificates", () => {
	test("whose certificate is whose identity", async () => {
		const alice = await authority.issue({ name: "nobody", dns: ["alice.example", "bob"] });
		const bob = await authority.issue({ name: "bob" });
		const expired = await authority.issue({ name: "bob", from: -20, to: -1 });
		const stranger = await Authority.create("Somebody else");
		const forged = await stranger.issue({ name: "bob" });
		const wrong = /is wrong, or the database does not exist/;
		const cases: [user: string, pair: Pair | null, outcome: RegExp | null][] = [
			["alice", alice, null],
			["bob", bob, null],
			["alice", bob, wrong],
			["bob", alice, wrong],
			["bob", null, wrong],
			["bob", expired, /ended|closed/],
			["bob", forged, /ended|closed/],
			["pgdog", bob, null],
			["pgdog", null, wrong],
			["guest", null, null],
			["guest", forged, /ended|closed/],
		];
		for (const [user, pair, outcome] of cases) {
			const tls = pair === null ? {} : { cert: pair.certificatePem, key: pair.keyPem };
			for (const way of ["tls", "directTls"]) {
				const login = connect(strict, { user, password: user, [way]: tls });
				if (outcome === null) {
					await using client = await login;
					expect(await one(client, "SELECT 'in'")).toBe("in");
				} else await rejects(login, outcome, `${user} ${way} ${pair?.certificate}`);
			}
		}
		stranger[Symbol.dispose]();
		await strict.waitForLog(/it has shown no certificate/);
		await strict.waitForLog(/TLS handshake failed: .*expired/i);
	});

	test("in plain text nobody gets in, but a CancelRequest does", async () => {
		await rejects(connect(strict), "only TLS connections are allowed");
		await using client = await connect(strict, { user: "guest", password: "guest", tls: {} });
		const running = client.query("SELECT pg_sleep(20)");
		await untilRunning(cluster, "pg_sleep");
		const request = await RawClient.open({ port: strict.port });
		request.send(f.cancelRequest(client.backendPid, client.backendKey));
		expect(await request.closed).toEqual([]);
		expect((await running).errors[0]?.C).toBe("57014");
	});

	test("who has sent in plain text and reset the connection before it was accepted is no client of the Unix socket", async () => {
		const wanted = withTls(localhost, { tls_client_required: true, auth_type: "trust", workers: 1 });
		await using trusting = await startProxy(wanted);
		process.kill(trusting.pid, "SIGSTOP");
		for (let i = 0; i < 5; i++) {
			const client = await RawClient.open({ port: trusting.port });
			client.send(concat(STARTUP, f.query("SELECT 1")));
			client.reset();
		}
		process.kill(trusting.pid, "SIGCONT");
		await trusting.waitForLog(/only TLS connections are allowed/);
		await using client = await connect(trusting, { tls: {} });
		expect(await one(client, "SELECT 'in'")).toBe("in");
		expect(trusting.log).not.toContain("[unix");
	});

	test("a CancelRequest in TLS", async () => {
		await using client = await connect(proxy, { tls: {} });
		const running = client.query("SELECT pg_sleep(20)");
		await untilRunning(cluster, "pg_sleep");
		const request = await RawClient.open({ port: proxy.port });
		await request.requestTls();
		request.send(f.cancelRequest(client.backendPid, client.backendKey));
		await request.closed;
		expect((await running).errors[0]?.C).toBe("57014");
	});
});

describe("a session over TLS", () => {
	for (const way of ["tls", "directTls"] as const) {
		test(`${way}: large both ways, read slowly, cut anywhere, and the last word before the end`, async () => {
			await using client = await connect(proxy, { [way]: {} });
			const big = "y".repeat(3 << 20);
			expect(await one(client, `SELECT length('${big}')`)).toBe(String(3 << 20));
			client.send(f.query("SELECT repeat('x', 1000) FROM generate_series(1, 40000)"));
			client.pause();
			await using other = await connect(proxy, { tls: {} });
			expect(await one(other, "SELECT 'not held up'")).toBe("not held up");
			client.resume();
			const { rows } = await client.result();
			expect(rows.length).toBe(40_000);
			const bytes = concat(...Array.from({ length: 50 }, (_, i) => f.query(`SELECT ${i}`)));
			for (let at = 0; at < bytes.length; at += 7) client.send(bytes.subarray(at, at + 7));
			for (let i = 0; i < 50; i++) expect((await client.result()).rows).toEqual([[String(i)]]);
			client.send(Buffer.from([0, 0, 0, 0, 1]));
			const last = (await client.closed).map(({ body }) => body.toString());
			expect(last.join()).toContain("FATAL");
		});
	}

	for (const way of ["tls", "directTls"] as const) {
		test(`${way}: whoever does not read holds up his server, and costs no memory`, async () => {
			await using its = await startProxy(withTls(localhost, { workers: 1 }));
			await using client = await connect(its, { [way]: {} });
			const memory = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${its.pid}/status`, "utf8"))![1]) >> 10;
			const before = memory();
			client.pause();
			client.send(f.query("SELECT repeat('x', 1000000) FROM generate_series(1, 200)"));
			let stuck = 0;
			await until(async () => {
				const query = "SELECT wait_event FROM pg_stat_activity WHERE query LIKE 'SELECT repeat%'";
				const [row] = (await cluster.primary.sql(query)) as { wait_event: string | null }[];
				stuck = row?.wait_event === "ClientWrite" ? stuck + 1 : 0;
				return stuck === 20;
			}, "the server to be held up");
			expect(memory() - before).toBeLessThan(60);
			client.reset();
		});
	}

	test("who is ended, and neither reads nor ends TLS himself, keeps no descriptor", async () => {
		const open = () => readdirSync(`/proc/${proxy.pid}/fd`).length;
		const before = open();
		const clients: RawClient[] = [];
		for (const way of ["tls", "directTls"] as const) {
			for (let i = 0; i < 20; i++) {
				// Some log in, some do not get so far.
				const client = i % 2 === 0 ? await connect(proxy, { [way]: {} }) : await RawClient.open({ port: proxy.port });
				clients.push(client);
				if (i % 2 === 1) await (way === "tls" ? client.requestTls() : client.startTls());
				client.pause();
				client.send(i % 2 === 1 ? f.startupMessage({ user: "pgdog" }, 0x00020000) : Buffer.from([0, 0, 0, 0, 1]));
			}
		}
		// A server connection, or two, may be new.
		await until(() => open() < before + 10, "their descriptors to be closed");
		for (const client of clients) client.reset();
	});

	test("clients of TLS and of plain text, busy in two workers, see their own rows; those of TLS stay where they are", async () => {
		await using both = await startProxy(withTls(localhost, { workers: 2, default_pool_size: 4 }));
		const clients = await Promise.all(
			Array.from({ length: 24 }, (_, i) =>
				connect(both, i % 3 === 0 ? {} : i % 3 === 1 ? { tls: {} } : { directTls: {} }),
			),
		);
		await Promise.all(
			clients.map(async (client, i) => {
				for (let n = 0; n < 60; n++) expect(await one(client, `SELECT '${i}/${n}'`)).toBe(`${i}/${n}`);
			}),
		);
		await using console = await admin(both);
		const rows = (await show(console, "SHOW CLIENTS")).filter(({ database }) => database === "pgdog");
		expect(rows.filter(({ tls }) => tls !== "").length).toBe(16);
		for (const client of clients) await client[Symbol.asyncDispose]();
		await until(async () => (await show(console, "SHOW CLIENTS")).length <= 1, "all to have left");
		expect(both.log).not.toContain("internal error");
	});
});

describe("a reload", () => {
	test("shows the newest certificate to new connections, leaves the others alone, and takes no bad file", async () => {
		const first = await authority.issue({ name: "localhost", dns: ["localhost"] });
		const second = await authority.issue({ name: "localhost", dns: ["localhost"] });
		await using changing = await startProxy(withTls(first));
		const shown = async (way: "tls" | "direct") => {
			await using client = await RawClient.open({ port: changing.port });
			const { raw } = way === "tls" ? await client.requestTls() : await client.startTls();
			return raw.toString("hex");
		};
		const is = (pair: Pair) => new X509Certificate(pair.certificatePem).raw.toString("hex");
		await using old = await connect(changing, { tls: {} });
		await using console = await admin(changing);
		for (const way of ["tls", "direct"] as const) expect(await shown(way)).toBe(is(first));
		writeFileSync(first.certificate, second.certificatePem);
		const half = await console.query("RELOAD");
		expect(half.errors[0]?.D ?? "").toContain("it does not fit the certificate");
		for (const way of ["tls", "direct"] as const) expect(await shown(way)).toBe(is(first));
		writeFileSync(first.key, second.keyPem);
		const { errors, notices } = await console.query("RELOAD");
		expect(errors).toEqual([]);
		expect(notices.map(({ M }) => M).join()).toContain("TLS certificates read anew");
		for (const way of ["tls", "direct"] as const) expect(await shown(way)).toBe(is(second));
		expect(await one(old, "SELECT 'still here'")).toBe("still here");
		const cutOff = `${second.certificatePem}\n${authority.pem.slice(0, -40)}`;
		for (const broken of ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", cutOff]) {
			writeFileSync(first.certificate, broken);
			expect((await console.query("RELOAD")).errors[0]?.D ?? "").toContain("a PEM file of certificates");
		}
		expect(await shown("tls")).toBe(is(second));
		writeFileSync(first.certificate, `\ufeff${first.certificatePem}\n-----BEGIN OF WHAT IS NONE`);
		writeFileSync(first.key, first.keyPem);
		expect((await console.query("RELOAD")).errors).toEqual([]);
		for (const way of ["tls", "direct"] as const) expect(await shown(way)).toBe(is(first));
		await using client = await connect(changing, { tls: {} });
		expect(await one(client, "SELECT 'in'")).toBe("in");
	});

	test("takes an authority away: whose certificates it has signed get in no more, and who is in stays", async () => {
		using old = await Authority.create("The old one");
		const trusted = authority.write("trusted.pem", old.pem);
		const general = { tls_client_required: true, tls_client_ca_certificate: trusted };
		const user = { name: "pgdog", database: "pgdog", password: "pgdog", tls_client_certificate_required: true };
		await using changing = await startProxy({ ...withTls(localhost, general), users: [user] });
		const [before, after] = await Promise.all([old, authority].map((each) => each.issue({ name: "pgdog" })));
		const shows = ({ certificatePem: cert, keyPem: key }: Pair) => ({ cert, key });
		await using inside = await connect(changing, { tls: shows(before!) });
		await rejects(connect(changing, { tls: shows(after!) }), /ended|closed/);
		writeFileSync(trusted, authority.pem);
		changing.signal("SIGHUP");
		await until(() => changing.log.includes("configuration reloaded"), "the reload");
		for (const way of ["tls", "directTls"]) {
			await rejects(connect(changing, { [way]: shows(before!) }), /ended|closed/);
			await using client = await connect(changing, { [way]: shows(after!) });
			expect(await one(client, "SELECT 'in'")).toBe("in");
		}
		expect(await one(inside, "SELECT 'still here'")).toBe("still here");
	});

	test("what is wrong at the start is said with its line, and nothing listens", async () => {
		const pair = await authority.issue({ name: "localhost" });
		const other = await authority.issue({ name: "localhost" });
		for (const [general, said] of [
			[{ tls_certificate: pair.certificate }, /general.tls_private_key is missing/],
			[{ tls_certificate: "/nowhere.pem", tls_private_key: pair.key }, /there is no such file/],
			[{ tls_certificate: pair.certificate, tls_private_key: other.key }, /it does not fit the certificate/],
			[{ tls_certificate: pair.key, tls_private_key: pair.key }, /it holds none/],
			[{ tls_certificate: pair.certificate, tls_private_key: pair.certificate }, /a PEM file of a private key/],
			[{ tls_client_required: true }, /that only together with tls_certificate/],
			[{ tls_client_ca_certificate: authority.path }, /that only together with tls_certificate/],
		] as const) {
			const { code, log } = await failProxy(simpleConfig(cluster.primary, { ...general }));
			expect(code).not.toBe(0);
			expect(log).toMatch(said);
		}
	});
});
