// Who is let in and how: each way for clients to prove who they are, with each driver, and each way PostgreSQL asks the proxy.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { SQL } from "bun";
import { Client } from "pg";
import postgres from "postgres";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, proxyCommand, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { backends, connect, one } from "./support.ts";

setDefaultTimeout(60_000);

const AUTH_TYPES = ["scram", "md5", "plain", "trust"] as const;
type AuthType = (typeof AUTH_TYPES)[number];

const ADMIN_PASSWORD = "of the admin";

let cluster: Cluster;
const proxies = {} as Record<AuthType, Proxy>;
let verifier: string;

const SERVER_ROLES = ["pgdog", "pgdog_md5", "pgdog_plain", "pgdog_trust"] as const;

beforeAll(async () => {
	cluster = await startPostgres();
	verifier = (await runTool([...proxyCommand(), "hash", "hashed secret"])).stdout.trim();
	const { host, port, socketDir } = cluster.primary;
	const start = async (auth_type: AuthType) => {
		proxies[auth_type] = await startProxy({
			config: {
				general: { auth_type, default_pool_size: 2, client_connection_recovery: "recover" },
				admin: { password: ADMIN_PASSWORD },
				databases: [
					{ name: "pgdog", host, port },
					{ name: "by_socket", host: socketDir, port, database_name: "pgdog" },
					...SERVER_ROLES.map((name) => ({ name: `as_${name}`, host, port, database_name: "pgdog" })),
				],
			},
			users: [
				{ name: "pgdog", database: "pgdog", password: "pgdog" },
				{ name: "pgdog", database: "by_socket", password: "pgdog" },
				{ name: "several", database: "pgdog", passwords: ["first one", "second one"], server_user: "pgdog_trust" },
				{ name: "jiří 🐕", database: "pgdog", password: "he slo ½", server_user: "pgdog_trust" },
				{
					name: "wrong_server_password",
					database: "pgdog",
					password: "x",
					server_user: "pgdog",
					server_password: "no",
				},
				{ name: "tries", database: "pgdog", passwords: ["old", "pgdog"], server_user: "pgdog" },
				...(auth_type === "scram" || auth_type === "plain"
					? [{ name: "hashed", database: "pgdog", password_hash: verifier, server_user: "pgdog_trust" }]
					: []),
				...SERVER_ROLES.map((name) => ({
					name: "app",
					database: `as_${name}`,
					password: "app",
					server_user: name,
					server_password: "pgdog",
				})),
			],
			env: {},
		});
	};
	await Promise.all(AUTH_TYPES.map(start));
});

afterAll(async () => {
	await Promise.all(Object.values(proxies).map((proxy) => proxy.stop("SIGKILL")));
	await cluster?.stop();
});

for (const auth of AUTH_TYPES) {
	test("whatever clients are asked for, the admin database asks for its password", async () => {
		for (const auth_type of AUTH_TYPES) {
			const { port } = proxies[auth_type];
			for (const password of ["", "wrong"]) {
				const login = RawClient.connect({ port, user: "admin", database: "admin", password });
				expect([auth_type, await login.then(() => "in", String)]).not.toEqual([auth_type, "in"]);
			}
			await using console = await RawClient.connect({
				port,
				user: "admin",
				database: "admin",
				password: ADMIN_PASSWORD,
			});
			expect((await console.query("SHOW VERSION")).errors).toEqual([]);
		}
	});

	test(`auth_type = ${auth}: pg, postgres, Bun.sql and a raw client log in`, async () => {
		const url = proxies[auth].url();
		const pg = new Client(url);
		await pg.connect();
		expect((await pg.query("SELECT $1::int + 1 AS n", [1])).rows).toEqual([{ n: 2 }]);
		await pg.end();
		const sql = postgres(url, { max: 1 });
		expect([...(await sql`SELECT ${2}::int + 1 AS n`)]).toEqual([{ n: 3 }]);
		await sql.end();
		const bun = new SQL({ url, max: 1 });
		expect([...(await bun`SELECT ${3}::int + 1 AS n`)]).toEqual([{ n: 4 }]);
		await bun.end();
		await using raw = await connect(proxies[auth]);
		expect(await one(raw, "SELECT current_user")).toBe("pgdog");
		// The request that each is: AuthenticationSASL, MD5Password, CleartextPassword, or none.
		const first = raw.received.find((message) => message.code === "R");
		expect(first?.body.readInt32BE(0)).toBe({ scram: 10, md5: 5, plain: 3, trust: 0 }[auth]);
	});

	test(`auth_type = ${auth}: a wrong user, password and database get the same answer`, async () => {
		const attempt = async (user: string, password: string, database: string) => {
			const client = await RawClient.open({ port: proxies[auth].port });
			const error = await client.login({ user, password, database }).then(
				() => null,
				(e: LoginError) => e.fields,
			);
			const codes = client.received
				.map(({ code, body }) => (code === "R" ? `R${body.readInt32BE(0)}` : code))
				.join(" ");
			client.close();
			return { codes, code: error?.C, severity: error?.S, text: error?.M };
		};
		const said = (user: string, database: string) =>
			`password for user "${user}" and database "${database}" is wrong, or the database does not exist`;
		const user = await attempt("nobody", "pgdog", "pgdog");
		const database = await attempt("pgdog", "pgdog", "nowhere");
		expect(user).toEqual({ codes: user.codes, code: "28000", severity: "FATAL", text: said("nobody", "pgdog") });
		expect(database).toEqual({ ...user, text: said("pgdog", "nowhere") });
		if (auth === "trust") return;
		expect(await attempt("pgdog", "wrong", "pgdog")).toEqual({ ...user, text: said("pgdog", "pgdog") });
		// PostgreSQL, too, has a word of its own for an empty password, before it looks at any user.
		if (auth !== "plain")
			expect(await attempt("pgdog", "", "pgdog")).toEqual({ ...user, text: said("pgdog", "pgdog") });
		// The log knows which it was, and no password.
		await proxies[auth].waitForLog(/auth error/);
		expect(proxies[auth].log).not.toContain("second one");
	});

	test(`auth_type = ${auth}: any of several passwords, and names beyond ASCII`, async () => {
		for (const password of ["first one", "second one"]) {
			const client = new Client({ ...where(auth), user: "several", password, database: "pgdog" });
			await client.connect();
			await client.end();
		}
		const odd = new Client({ ...where(auth), user: "jiří 🐕", password: "he slo ½", database: "pgdog" });
		await odd.connect();
		expect((await odd.query("SELECT current_user AS u")).rows).toEqual([{ u: "pgdog_trust" }]);
		await odd.end();
	});

	test(`auth_type = ${auth}: PostgreSQL may ask the proxy for SCRAM, MD5, a password or nothing`, async () => {
		for (const role of SERVER_ROLES) {
			await using client = await connect(proxies[auth], { user: "app", password: "app", database: `as_${role}` });
			expect(await one(client, "SELECT session_user")).toBe(role);
		}
	});
}

function where(auth: AuthType) {
	return { host: "127.0.0.1", port: proxies[auth].port };
}

test("a SCRAM verifier in users.toml lets in who knows the password, and no one else", async () => {
	for (const auth of ["scram", "plain"] as const) {
		const good = new Client({ ...where(auth), user: "hashed", password: "hashed secret", database: "pgdog" });
		await good.connect();
		await good.end();
		for (const password of ["wrong", verifier]) {
			const bad = new Client({ ...where(auth), user: "hashed", password, database: "pgdog" });
			bad.on("error", () => undefined);
			await rejects(bad.connect(), "is wrong, or the database does not exist");
		}
	}
});

test("passwords towards the server are tried in order, and a refused one says what is wrong", async () => {
	await using tries = await connect(proxies.scram, { user: "tries", password: "old" });
	expect(await one(tries, "SELECT session_user")).toBe("pgdog");
	const refused = connect(proxies.scram, { user: "wrong_server_password", password: "x" });
	await rejects(refused, "connection pool for user");
	const error = await refused.catch((e: LoginError) => e.fields);
	expect(error).toMatchObject({ S: "FATAL", D: 'password authentication failed for user "pgdog"' });
});

test("the server's Unix socket instead of its port", async () => {
	await using client = await connect(proxies.scram, { database: "by_socket" });
	expect(await one(client, "SELECT inet_client_addr() IS NULL")).toBe("t");
	expect((await backends(cluster)).length).toBeGreaterThan(0);
});

test("trust still asks for a user that exists", async () => {
	await rejects(connect(proxies.trust, { user: "nobody" }), "28000");
	await using client = await connect(proxies.trust, { password: "not asked for" });
	expect(await one(client, "SELECT 1")).toBe("1");
});

testWithTool(
	"psql",
	"psql logs in, with the password from the environment, and is refused with a wrong one",
	async (psql) => {
		for (const auth of AUTH_TYPES) {
			const env = { PGHOST: "127.0.0.1", PGPORT: String(proxies[auth].port), PGUSER: "pgdog", PGDATABASE: "pgdog" };
			const good = await runTool([psql, "-XAtc", "SELECT 'in'"], { ...env, PGPASSWORD: "pgdog" });
			expect(good).toEqual({ code: 0, stdout: "in\n", stderr: "" });
			if (auth === "trust") continue;
			const bad = await runTool([psql, "-XAtwc", "SELECT 'in'"], { ...env, PGPASSWORD: "wrong" });
			expect(bad.code).toBe(2);
			expect(bad.stderr).toContain('FATAL:  password for user "pgdog" and database "pgdog" is wrong');
		}
	},
);
