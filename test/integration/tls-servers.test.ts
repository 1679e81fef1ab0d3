// TLS between the proxy and its servers: when it is asked for, what of a certificate counts, and what cannot be encrypted or moved.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Authority, type Pair } from "../support/certificates.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyOptions, type ProxyUser, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, backends, connect, connectToBothWorkers, one, show, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

let authority: Authority;
let stranger: Authority;
/** Shows a certificate for localhost and 127.0.0.1, and lets nobody in without TLS but by its Unix socket. */
let encrypted: Cluster;
let plain: Cluster;
let own: Pair;

/** Of the connection that the statement runs on. */
const IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

const withTls = (pair: Pair, hba: string[]) =>
	startPostgres({
		files: { "server.pem": pair.certificatePem, "server.key": pair.keyPem, "authority.pem": authority.pem },
		settings: { ssl: "on", ssl_cert_file: "server.pem", ssl_key_file: "server.key", ssl_ca_file: "authority.pem" },
		hba,
	});

const TLS_ONLY = [
	"hostssl all certified 127.0.0.1/32 cert",
	"hostssl all other 127.0.0.1/32 cert",
	"hostssl all twofold 127.0.0.1/32 scram-sha-256 clientcert=verify-full",
	"hostssl all all 127.0.0.1/32 scram-sha-256",
	"hostnossl all pgdog 127.0.0.1/32 reject",
];

beforeAll(async () => {
	[authority, stranger] = await Promise.all([Authority.create(), Authority.create("Somebody else")]);
	own = await authority.issue({ name: "localhost", dns: ["localhost"], ips: ["127.0.0.1"] });
	[encrypted, plain] = await Promise.all([withTls(own, TLS_ONLY), startPostgres()]);
	await encrypted.primary.sql("CREATE ROLE certified LOGIN");
	await encrypted.primary.sql("CREATE ROLE other LOGIN");
	await encrypted.primary.sql("CREATE ROLE twofold LOGIN PASSWORD 'both'");
});
afterAll(async () => {
	await Promise.all([encrypted?.stop(), plain?.stop()]);
	for (const each of [authority, stranger]) each?.[Symbol.dispose]();
});

function before(
	cluster: Cluster,
	general: Record<string, unknown>,
	database: object = {},
): Pick<ProxyOptions, "config" | "users"> {
	return {
		config: {
			general: { checkout_timeout: 2000, connect_timeout: 2000, ...general },
			admin: { password: "pgdog" },
			databases: [{ name: "pgdog", host: "127.0.0.1", port: cluster.port, ...database }],
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
	};
}

/** Whether a connection to the server is encrypted; else why there is none. */
async function outcome(proxy: Proxy): Promise<string> {
	try {
		await using client = await connect(proxy);
		return (await one(client, IS_ENCRYPTED)) === "t" ? "encrypted" : "plain";
	} catch (error) {
		return String((error as { fields?: { D?: string } }).fields?.D ?? error).replace(
			/^.*connect to server [^ ]+: /,
			"",
		);
	}
}

describe("tls_verify", () => {
	test("each, with servers that have no TLS, the right certificate, another's name, another authority, an old one", async () => {
		const wrongHost = await authority.issue({ name: "elsewhere", dns: ["elsewhere.example"] });
		const forged = await stranger.issue({ name: "localhost", dns: ["localhost"], ips: ["127.0.0.1"] });
		const expired = await authority.issue({
			name: "localhost",
			dns: ["localhost"],
			ips: ["127.0.0.1"],
			from: -9,
			to: -1,
		});
		const others = await Promise.all([wrongHost, forged, expired].map((pair) => withTls(pair, [])));
		const ca = { tls_server_ca_certificate: authority.path };
		const cases: [server: Cluster, disabled: string, prefer: string, verify_ca: string, verify_full: string][] = [
			[plain, "plain", "plain", "does not support TLS", "does not support TLS"],
			[encrypted, "pg_hba.conf rejects", "encrypted", "encrypted", "encrypted"],
			[others[0]!, "plain", "encrypted", "encrypted", "TLS handshake failed"],
			[others[1]!, "plain", "encrypted", "TLS handshake failed", "TLS handshake failed"],
			[others[2]!, "plain", "encrypted", "TLS handshake failed", "TLS handshake failed"],
		];
		await Promise.all(
			cases.map(async ([server, ...expected]) => {
				for (const [i, tls_verify] of ["disabled", "prefer", "verify_ca", "verify_full"].entries()) {
					await using proxy = await startProxy(before(server, { tls_verify, ...(i >= 2 ? ca : {}) }));
					expect(`${tls_verify}: ${await outcome(proxy)}`).toContain(expected[i]!);
				}
			}),
		);
		// A name in place of the address, which is looked up; and Mozilla's authorities know none of ours.
		for (const host of ["localhost", "127.0.0.1"]) {
			await using proxy = await startProxy(before(encrypted, { tls_verify: "verify_full", ...ca }, { host }));
			expect(await outcome(proxy)).toBe("encrypted");
		}
		await using trusting = await startProxy(before(encrypted, { tls_verify: "verify_ca" }));
		expect(await outcome(trusting)).toContain("TLS handshake failed");
		await Promise.all(others.map((server) => server.stop()));
	});

	test("a Unix socket is never encrypted, whatever is asked for", async () => {
		const host = encrypted.primary.socketDir;
		await using proxy = await startProxy(before(encrypted, { tls_verify: "verify_full" }, { host }));
		expect(await outcome(proxy)).toBe("plain");
	});

	test("a server that asks for a certificate is shown ours, and knows us by it", async () => {
		const certified = await authority.issue({ name: "certified" });
		const files = { tls_server_certificate: certified.certificate, tls_server_private_key: certified.key };
		const { config, users } = before(encrypted, {
			tls_verify: "verify_full",
			tls_server_ca_certificate: authority.path,
			...files,
		});
		const as = [{ ...(users as ProxyUser[])[0]!, server_user: "certified", server_password: "" }];
		await using proxy = await startProxy({ config, users: as });
		await using client = await connect(proxy);
		expect(await one(client, "SELECT current_user")).toBe("certified");
	});

	test("a reload that asks for more replaces connections that were made with less, and fails no query", async () => {
		const { config, users } = before(encrypted, { tls_verify: "prefer", default_pool_size: 2 });
		await using proxy = await startProxy({ config, users });
		await using client = await connect(proxy);
		await using busy = await connect(proxy);
		const pid = await one(client, "SELECT pg_backend_pid()");
		await busy.query("BEGIN");
		const kept = await one(busy, "SELECT pg_backend_pid()");
		const general = {
			...(config as { general: object }).general,
			tls_verify: "verify_full",
			tls_server_ca_certificate: authority.path,
		};
		proxy.writeConfig({ ...(config as object), general });
		await using console = await admin(proxy);
		expect((await console.query("RELOAD")).notices.map(({ M }) => M).join()).toContain("TLS towards servers differs");
		expect(await one(client, "SELECT pg_backend_pid()")).not.toBe(pid);
		expect(await one(busy, "SELECT pg_backend_pid()")).toBe(kept);
		await busy.query("COMMIT");
		expect(await one(busy, "SELECT pg_backend_pid()")).not.toBe(kept);
	});
});

test("a reload that asks for more replaces the monitor's connection, too", async () => {
	const { config, users } = before(encrypted, { tls_verify: "prefer", lsn_check_interval: 300 }, { role: "auto" });
	await using proxy = await startProxy({ config, users });
	await using console = await admin(proxy);
	const monitors = async () =>
		(await backends(encrypted)).filter(({ query }) => query.includes("pg_is_in_recovery")).map(({ pid }) => pid);
	await until(async () => (await monitors()).length === 1, "the monitor's connection");
	const [old] = await monitors();
	const general = {
		...(config as { general: object }).general,
		tls_verify: "verify_full",
		tls_server_ca_certificate: authority.path,
	};
	proxy.writeConfig({ ...(config as object), general });
	await console.query("RELOAD");
	await until(async () => {
		const now = await monitors();
		return now.length === 1 && now[0] !== old;
	}, "another one");
	expect(proxy.log).not.toContain("cannot be asked");
});

test("a reload that asks for more replaces the connection that listens for clients, too", async () => {
	const { config, users } = before(encrypted, { tls_verify: "prefer", pub_sub_channel_size: 10, workers: 1 });
	await using proxy = await startProxy({ config, users });
	await using console = await admin(proxy);
	await using client = await connect(proxy);
	await client.query("LISTEN news");
	const listeners = async () => {
		const sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgdog listener'";
		return (await encrypted.primary.sql(sql)).map(({ pid }) => pid);
	};
	const [old] = await listeners();
	const general = (config as { general: object }).general;
	const reload = async (more: object) => {
		proxy.writeConfig({ ...(config as object), general: { ...general, ...more } });
		expect((await console.query("RELOAD")).errors).toEqual([]);
	};
	await reload({ default_pool_size: 3 });
	await reload({ tls_verify: "verify_full", tls_server_ca_certificate: authority.path });
	await until(async () => {
		const now = await listeners();
		return now.length === 1 && now[0] !== old;
	}, "another one");
	expect(proxy.log).not.toContain("listening again");
	await client.query("NOTIFY news, 'here'");
	await until(() => client.received.some(({ code }) => code === "A"), "the notification");
});

describe("a certificate of our own", () => {
	const pairOf = (pair: Pair) => ({ tls_server_certificate: pair.certificate, tls_server_private_key: pair.key });
	const as = (proxy: Proxy, user: string, database = "pgdog") =>
		RawClient.connect({ port: proxy.port, user, password: "pgdog", database });

	/** Three users with a certificate each; whom an entry has none for shows one that no handshake survives. */
	async function three(general: object = {}, database: object = {}) {
		const [forged, certified, other, both] = await Promise.all([
			stranger.issue({ name: "certified" }),
			authority.issue({ name: "certified" }),
			authority.issue({ name: "other" }),
			authority.issue({ name: "twofold" }),
		]);
		const full = { tls_verify: "verify_full", tls_server_ca_certificate: authority.path, ...pairOf(forged) };
		const options = before(encrypted, { ...full, ...general }, database);
		const user = { database: "pgdog", password: "pgdog" };
		const users = [
			{ ...user, name: "certified", ...pairOf(certified) },
			{ ...user, name: "other", ...pairOf(other) },
			{ ...user, name: "twofold", server_password: "both", ...pairOf(both) },
		];
		return { config: options.config as Record<string, object>, users, pairs: { forged, certified, other, both } };
	}

	test("per user: each is known by his own, and a CancelRequest shows it, too", async () => {
		const { config, users } = await three();
		await using proxy = await startProxy({ config, users });
		for (const { name } of users) {
			await using client = await as(proxy, name);
			expect(await one(client, "SELECT current_user")).toBe(name);
			expect(await one(client, "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).toBe(`/CN=${name}`);
			const running = client.query("SELECT pg_sleep(20)");
			await untilRunning(encrypted, "pg_sleep", 1, name);
			const request = await RawClient.open({ port: proxy.port });
			request.send(f.cancelRequest(client.backendPid, client.backendKey));
			await request.closed;
			expect((await running).errors[0]?.C).toBe("57014");
		}
		// Who has none of his own shows what all do.
		proxy.writeUsers([...users, { name: "pgdog", database: "pgdog", password: "pgdog" }]);
		await using console = await admin(proxy);
		await console.query("RELOAD");
		expect(await outcome(proxy)).toContain("server closed the connection during the login");
	});

	test("per database, under the users' own; the monitor shows the same, and a reload another", async () => {
		const { config, users, pairs } = await three({ lsn_check_interval: 200 });
		const databases = [
			{ name: "pgdog", host: "127.0.0.1", port: encrypted.port, role: "auto", ...pairOf(pairs.certified) },
		];
		const [, other] = users;
		const plainUser = { name: "certified", database: "pgdog", password: "pgdog" };
		await using proxy = await startProxy({ config: { ...config, databases } as never, users: [plainUser, other!] });
		await using first = await as(proxy, "certified");
		await using second = await as(proxy, "other");
		expect(await one(first, "SELECT current_user")).toBe("certified");
		expect(await one(second, "SELECT current_user")).toBe("other");
		const monitors = async () =>
			(await backends(encrypted, "certified"))
				.filter(({ query }) => query.includes("pg_is_in_recovery"))
				.map(({ pid }) => pid);
		await until(async () => (await monitors()).length === 1, "the monitor's connection");
		const [monitor] = await monitors();
		const pids = [await one(first, "SELECT pg_backend_pid()"), await one(second, "SELECT pg_backend_pid()")];
		// Only the database's own differs: its users' connections stay.
		const again = await authority.issue({ name: "certified" });
		proxy.writeConfig({ ...config, databases: [{ ...databases[0], ...pairOf(again) }] } as never);
		await using console = await admin(proxy);
		expect((await console.query("RELOAD")).notices.map(({ M }) => M).join()).toContain("TLS towards servers differs");
		expect(await one(first, "SELECT pg_backend_pid()")).not.toBe(pids[0]);
		expect(await one(second, "SELECT pg_backend_pid()")).toBe(pids[1]!);
		await until(async () => {
			const now = await monitors();
			return now.length === 1 && now[0] !== monitor;
		}, "another connection of the monitor");
		expect(proxy.log).not.toContain("cannot be asked");
	});

	test("per database, tls_verify and the authorities are its own, too", async () => {
		const full = { tls_verify: "verify_full", tls_server_ca_certificate: authority.path };
		const host = "127.0.0.1";
		const databases = [
			{ name: "strict", database_name: "pgdog", host, port: encrypted.port, ...full },
			{
				name: "wrong",
				database_name: "pgdog",
				host,
				port: encrypted.port,
				...full,
				tls_server_ca_certificate: stranger.path,
			},
			{ name: "pgdog", host, port: encrypted.port },
		];
		const { config } = before(encrypted, { tls_verify: "disabled" });
		const users = [{ name: "pgdog", database: "pgdog", all_databases: true, password: "pgdog" }];
		await using proxy = await startProxy({ config: { ...(config as object), databases }, users });
		await using client = await as(proxy, "pgdog", "strict");
		expect(await one(client, IS_ENCRYPTED)).toBe("t");
		await rejects(as(proxy, "pgdog", "wrong"), /is down|checkout timeout/);
		await proxy.waitForLog(/TLS handshake failed/);
		expect(await outcome(proxy)).toContain("pg_hba.conf rejects");
	});
});

describe("servers that are not what they should be", () => {
	const answers: [name: string, answer: Uint8Array | null, said: RegExp][] = [
		["more than the answer", Buffer.from("SX"), /received unencrypted data after SSL response/],
		["a refusal, and more", Buffer.from("NE"), /received unencrypted data after SSL response/],
		["an error", Buffer.from("E"), /does not understand SSLRequest/],
		["no TLS behind its yes", null, /TLS handshake failed|closed the connection|ECONNRESET/],
		["nothing", Buffer.alloc(0), /no answer within|connect timeout/],
	];
	test.each(answers)("%s: no password goes there", async (_, answer, said) => {
		const heard: Buffer[] = [];
		using server = Bun.listen({
			hostname: "127.0.0.1",
			port: 0,
			socket: {
				data(socket, chunk) {
					heard.push(Buffer.from(chunk));
					if (answer !== null) socket.write(answer);
					else if (chunk.length === 8) socket.write("S");
					else socket.write("this is no TLS at all, and never will be");
				},
			},
		});
		const { config, users } = before(
			plain,
			{ tls_verify: "prefer", connect_timeout: 500, checkout_timeout: 1500 },
			{ port: server.port },
		);
		await using proxy = await startProxy({ config, users });
		const login = connect(proxy);
		await rejects(login, /is down|checkout timeout/);
		await proxy.waitForLog(said);
		expect(Buffer.concat(heard).includes("user\0pgdog")).toBe(false);
		expect(proxy.log).not.toContain("internal error");
	});
});

describe("connections that cannot move", () => {
	test("a CancelRequest is encrypted, too, and reaches its query", async () => {
		const full = { tls_verify: "verify_full", tls_server_ca_certificate: authority.path };
		await using proxy = await startProxy(before(encrypted, full));
		await using client = await connect(proxy);
		const running = client.query("SELECT pg_sleep(20)");
		await untilRunning(encrypted, "pg_sleep");
		const request = await RawClient.open({ port: proxy.port });
		request.send(f.cancelRequest(client.backendPid, client.backendKey));
		await request.closed;
		expect((await running).errors[0]?.C).toBe("57014");
		expect(await one(client, "SELECT 'still here'")).toBe("still here");
	});

	test("two workers share one place: each gets its turn, the pool never grows, and all are served", async () => {
		const spread = { workers: 2, default_pool_size: 1, client_placement: "spread", checkout_timeout: 20_000 };
		await using proxy = await startProxy(before(encrypted, { tls_verify: "prefer", ...spread }));
		const [here, there] = await connectToBothWorkers(proxy, 3);
		const served = { here: 0, there: 0 };
		const stop = performance.now() + 3000;
		const work = async (client: RawClient, side: "here" | "there") => {
			while (performance.now() < stop) {
				expect(await one(client, IS_ENCRYPTED)).toBe("t");
				served[side]++;
			}
		};
		await using console = await admin(proxy);
		const most = (async () => {
			let seen = 0;
			while (performance.now() < stop) {
				const [row] = await encrypted.primary.sql(
					"SELECT count(*)::int AS n FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'pgdog' AND state <> 'disabled'",
				);
				seen = Math.max(seen, row?.n as number);
			}
			return seen;
		})();
		await Promise.all([...here.map((client) => work(client, "here")), ...there.map((client) => work(client, "there"))]);
		// One that is closing and one that is opened in its place.
		expect(await most).toBeLessThanOrEqual(3);
		expect(Math.min(served.here, served.there)).toBeGreaterThan(5);
		await until(async () => {
			const [pool] = await show(console, "SHOW POOLS");
			return Number(pool?.sv_total) === 1 && pool?.cl_waiting === "0";
		}, "one server, and nobody who waits");
		for (const client of [...here, ...there]) await client[Symbol.asyncDispose]();
		expect(proxy.log).not.toContain("internal error");
	});

	test("one is let go of before the one in its place is opened: PostgreSQL's limit may be as tight as the pool's size", async () => {
		await encrypted.primary.sql("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1");
		// Checks open connections beyond the pool's size.
		const spread = { workers: 2, default_pool_size: 1, client_placement: "spread", idle_healthcheck_interval: 0 };
		const { config, users } = before(encrypted, { tls_verify: "prefer", ...spread, checkout_timeout: 20_000 });
		const few = { server_user: "few", server_password: "few" };
		await using proxy = await startProxy({ config, users: [{ ...(users as ProxyUser[])[0]!, ...few }] });
		const [here, there] = await connectToBothWorkers(proxy, 1);
		const pids = new Set<string | null>();
		for (let turn = 0; turn < 30; turn++)
			for (const client of [...here, ...there]) pids.add(await one(client, "SELECT pg_backend_pid()"));
		// It has gone to and fro.
		expect(pids.size).toBeGreaterThan(10);
		expect(proxy.log).not.toContain("too many connections");
		for (const client of [...here, ...there]) await client[Symbol.asyncDispose]();
		expect(proxy.log).not.toContain("internal error");
	});

	test("SHOW SERVERS says how each is encrypted where it is PgBouncer's", async () => {
		const { config, users } = before(encrypted, { tls_verify: "prefer" });
		await using proxy = await startProxy({
			config: { ...(config as object), admin: { name: "pgbouncer", password: "pgdog" } },
			users,
		});
		await using client = await connect(proxy);
		await one(client, "SELECT 1");
		await using console = await RawClient.connect({
			port: proxy.port,
			user: "admin",
			password: "pgdog",
			database: "pgbouncer",
		});
		expect((await show(console, "SHOW SERVERS"))[0]?.tls).toStartWith("TLSv1.3/");
	});
});
