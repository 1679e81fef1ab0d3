// Users whom users.toml does not have, found by `auth_query`: who gets in, who does not, and who is asked how often.

import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { Client } from "pg";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyOptions, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { admin, backends, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;

/** Asks by a function that notes each name it is asked for. */
const NOTED = "SELECT * FROM lookup.secret_of($1)";

beforeAll(async () => {
	cluster = await startPostgres({ hba: ["host all md5er 127.0.0.1/32 md5"] });
	const statements = [
		"CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asks'",
		"CREATE ROLE alice LOGIN PASSWORD 'of alice'",
		`CREATE ROLE "o'x; DROP TABLE lookup.asked" LOGIN PASSWORD 'odd'`,
		"CREATE ROLE expired LOGIN PASSWORD 'late' VALID UNTIL '2001-01-01'",
		"CREATE ROLE nologin NOLOGIN PASSWORD 'no'",
		"CREATE ROLE empty LOGIN",
		"SET password_encryption = md5; CREATE ROLE md5er LOGIN PASSWORD 'five'; RESET password_encryption",
		"CREATE SCHEMA lookup",
		"CREATE TABLE lookup.asked (name text)",
		"CREATE TABLE lookup.slow (seconds float)",
		`CREATE FUNCTION lookup.secret_of(who text, OUT name text, OUT secret text) RETURNS SETOF record LANGUAGE plpgsql AS $$
		 BEGIN
		   INSERT INTO lookup.asked VALUES (who);
		   PERFORM pg_sleep(seconds) FROM lookup.slow;
		   RETURN QUERY SELECT rolname::text, rolpassword::text FROM pg_authid WHERE rolname = who;
		   IF who = 'twice' THEN RETURN QUERY VALUES ('twice', 'a'), ('twice', 'b'); END IF;
		   IF who = 'fails' THEN RAISE 'it fails'; END IF;
		   IF who = 'plain' THEN RETURN QUERY VALUES ('plain', 'in the clear'); END IF;
		   IF who = 'other' THEN RETURN QUERY VALUES ('alice', 'other'); END IF;
		 END $$`,
		// Where an unqualified name of the default query would lead by a client's search_path.
		"CREATE SCHEMA evil",
		"CREATE TABLE evil.pg_authid (rolname name, rolpassword text, rolvaliduntil timestamptz, rolcanlogin bool)",
		"INSERT INTO evil.pg_authid VALUES ('nobody', 'known', NULL, true), ('alice', 'known', NULL, true)",
		"GRANT USAGE ON SCHEMA evil TO PUBLIC; GRANT SELECT ON evil.pg_authid TO PUBLIC",
		"ALTER ROLE asker SET search_path = evil, public",
	];
	for (const statement of statements) await cluster.primary.sql(statement);
});

beforeEach(() => cluster.primary.sql("TRUNCATE lookup.asked, lookup.slow"));

afterAll(() => cluster?.stop());

function start(general: Record<string, unknown> = {}, more: Partial<ProxyOptions> = {}): Promise<Proxy> {
	const { host, port } = cluster.primary;
	const asker = { auth_query_user: "asker", auth_query_password: "asks" };
	return startProxy({
		config: {
			general: { workers: 2, min_pool_size: 0, failed_login_delay: 0, ...asker, ...general },
			admin: { password: "pgdog" },
			databases: [{ name: "pgdog", host, port }],
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
		...more,
	});
}

async function asked(): Promise<string[]> {
	const rows = (await cluster.primary.sql("SELECT name FROM lookup.asked ORDER BY name")) as { name: string }[];
	return rows.map(({ name }) => name);
}

/** What a log-in that fails is told, and what it was asked before. */
async function refusal(proxy: Proxy, options: RawClientOptions) {
	const client = await RawClient.open({ port: proxy.port });
	const error = await client.login({ database: "pgdog", password: "wrong", ...options }).then(
		() => null,
		(e: LoginError) => e.fields,
	);
	const codes = client.received.map(({ code, body }) => (code === "R" ? `R${body.readInt32BE(0)}` : code)).join(" ");
	client.close();
	return { codes, code: error?.C, text: error?.M?.replaceAll(options.user ?? "", "USER") };
}

test("a role of the server's gets in with its password, by both workers, and no other does", async () => {
	await using proxy = await start();
	const login = { user: "alice", password: "of alice" };
	for (let i = 0; i < 6; i++) {
		await using client = await connect(proxy, login);
		expect(await one(client, "SELECT session_user")).toBe("alice");
	}
	await using odd = await connect(proxy, { user: "o'x; DROP TABLE lookup.asked", password: "odd" });
	expect(await one(odd, "SELECT session_user")).toBe("o'x; DROP TABLE lookup.asked");
	await using known = await connect(proxy);
	expect(await one(known, "SELECT session_user")).toBe("pgdog");
	const wrong = await refusal(proxy, { user: "alice" });
	expect(wrong).toMatchObject({ code: "28000", codes: "R10 R11 E" });
	for (const user of ["nobody", "expired", "nologin", "empty", "' OR true --", "a".repeat(5000)])
		for (const password of ["wrong", "late", "no", ""]) expect(await refusal(proxy, { user, password })).toEqual(wrong);
	expect(await refusal(proxy, { user: "alice", password: "of alice", database: "nowhere" })).toMatchObject({
		code: "28000",
	});
	await using console = await admin(proxy);
	const pools = await show(console, "SHOW POOLS");
	expect(pools.map(({ user }) => user).sort()).toEqual(["alice", "o'x; DROP TABLE lookup.asked", "pgdog"]);
});

test("nothing of a client's StartupMessage reaches the connection that asks", async () => {
	await using proxy = await start();
	const parameters = { search_path: "evil", options: "-c search_path=evil,public" };
	for (const user of ["nobody", "alice"])
		expect(await refusal(proxy, { user, password: "known", parameters })).toMatchObject({ code: "28000" });
	await using client = await connect(proxy, { user: "alice", password: "of alice", parameters });
	expect(await one(client, "SHOW search_path")).toBe("evil");
	const rows = await cluster.primary.sql("SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename = 'asker'");
	expect(rows).toEqual([{ n: 1 }]);
});

test("an MD5 hash and a plain password let in and log in, where auth_type can ask for them", async () => {
	await using md5 = await start({ auth_type: "md5" });
	const client = new Client({ host: "127.0.0.1", port: md5.port, user: "md5er", password: "five", database: "pgdog" });
	await client.connect();
	expect((await client.query("SELECT session_user AS u")).rows).toEqual([{ u: "md5er" }]);
	await client.end();
	expect(await refusal(md5, { user: "md5er" })).toMatchObject({ code: "28000" });
	await using plain = await start({ auth_type: "plain" });
	await using other = await connect(plain, { user: "md5er", password: "five" });
	expect(await one(other, "SELECT session_user")).toBe("md5er");
	expect(await refusal(plain, { user: "md5er" })).toMatchObject({ code: "28000" });
	await using scram = await start({ auth_query: NOTED });
	expect(await refusal(scram, { user: "md5er", password: "five" })).toMatchObject({ code: "28000" });
	// The proxy takes it; the server has no such role.
	expect((await refusal(scram, { user: "plain", password: "in the clear" })).text).toContain("connection pool");
	expect(await refusal(scram, { user: "plain" })).toMatchObject({ code: "28000" });
});

test("many log-ins of one name ask once, and an answer is good for auth_query_ttl", async () => {
	await using proxy = await start({ auth_query: NOTED });
	await cluster.primary.sql("INSERT INTO lookup.slow VALUES (0.5)");
	const login = { user: "alice", password: "of alice" };
	const clients = await Promise.all(Array.from({ length: 100 }, () => connect(proxy, login)));
	expect(await asked()).toEqual(["alice"]);
	for (const client of clients) client.close();
	await Promise.all(Array.from({ length: 20 }, () => refusal(proxy, { user: "nobody" })));
	expect(await asked()).toEqual(["alice", "nobody"]);
	// A new password counts from the log-in on that has failed.
	await cluster.primary.sql("ALTER ROLE alice PASSWORD 'new'");
	try {
		await until(
			async () => (await refusal(proxy, { user: "alice", password: "new" })).code === undefined,
			"the new password",
		);
		await using client = await connect(proxy, { user: "alice", password: "new" });
		expect(await one(client, "SELECT 1")).toBe("1");
		expect(await refusal(proxy, login)).toMatchObject({ code: "28000" });
	} finally {
		await cluster.primary.sql("ALTER ROLE alice PASSWORD 'of alice'");
	}
});

test("two rows, an error, another's row, a slow answer and a server that is away: refused, and said once", async () => {
	await using proxy = await start({ auth_query: NOTED, client_login_timeout: 2_000 });
	expect(await refusal(proxy, { user: "other", password: "other" })).toMatchObject({ code: "28000" });
	for (const user of ["twice", "fails", "fails"])
		expect(await refusal(proxy, { user, password: "a" })).toMatchObject({
			code: "58000",
			text: "the user could not be looked up",
		});
	await proxy.waitForLog(/auth_query failed: 21000 several rows/);
	await cluster.primary.sql("INSERT INTO lookup.slow VALUES (10)");
	expect(await refusal(proxy, { user: "alice", password: "of alice" })).toMatchObject({
		code: expect.stringMatching(/08006|58000/),
	});
	// Those whom the configuration has are not concerned.
	await using known = await connect(proxy);
	expect(await one(known, "SELECT 1")).toBe("1");
	await cluster.primary.sql("TRUNCATE lookup.slow");
	await using alice = await connect(proxy, { user: "alice", password: "of alice" });
	expect(await one(alice, "SELECT 1")).toBe("1");
	await cluster.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'asker'");
	expect(await refusal(proxy, { user: "nobody" })).toMatchObject({ code: "28000" });
	await proxy.waitForLog(/auth_query failed/);
	expect(proxy.lines.filter((line) => line.includes("auth_query failed")).length).toBe(1);
});

test("a wrong password of auth_query_user is told to the log, not to the client", async () => {
	await using proxy = await start({ auth_query_password: "wrong" });
	expect(await refusal(proxy, { user: "alice", password: "of alice" })).toEqual({
		codes: "E",
		code: "58000",
		text: "the user could not be looked up",
	});
	await proxy.waitForLog(/auth_query failed: 28P01/);
});

test("pools of learned users stay over a reload, go when nobody has used them, and come again", async () => {
	await using proxy = await start({ idle_timeout: 1_000, client_login_timeout: 1_000, min_pool_size: 1 });
	const login = { user: "alice", password: "of alice" };
	await using console = await admin(proxy);
	const users = async () => (await show(console, "SHOW POOLS")).map(({ user }) => user).sort();
	{
		await using client = await connect(proxy, login);
		await client.query("BEGIN");
		const reloaded = await console.query("RELOAD");
		expect(reloaded.errors).toEqual([]);
		expect(reloaded.notices.map(({ M }) => M).join()).toContain("0 pools added, 0 changed, 0 removed");
		expect(await one(client, "SELECT session_user")).toBe("alice");
		await client.query("COMMIT");
		// It is there for as long as it has a client.
		await Bun.sleep(2_500);
		expect(await users()).toEqual(["alice", "pgdog"]);
	}
	await until(async () => (await users()).join() === "pgdog", "the pool of alice to go");
	await until(async () => (await backends(cluster, "alice")).length === 0, "its servers to go");
	await using client = await connect(proxy, login);
	expect(await one(client, "SELECT session_user")).toBe("alice");
	// In the configuration from now on, with another password for clients.
	proxy.writeUsers([
		{ name: "pgdog", database: "pgdog", password: "pgdog" },
		{ name: "alice", database: "pgdog", password: "configured", server_password: "of alice" },
	]);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await refusal(proxy, login)).toMatchObject({ code: "28000" });
	await using again = await connect(proxy, { user: "alice", password: "configured" });
	expect(await one(again, "SELECT session_user")).toBe("alice");
});

for (const workers of [0, 2])
	test(`workers = ${workers}: reloads in the middle of first log-ins cost nobody his`, async () => {
		await using proxy = await start({ workers, auth_query: NOTED, auth_query_ttl: 0, idle_timeout: 200 });
		await using console = await admin(proxy);
		await cluster.primary.sql("INSERT INTO lookup.slow VALUES (0.05)");
		let isOver = false;
		const logins = async () => {
			for (let i = 0; i < 5; i++) {
				await using client = await connect(proxy, { user: "alice", password: "of alice" });
				expect(await one(client, "SELECT session_user")).toBe("alice");
			}
		};
		const reloads = async () => {
			while (!isOver) {
				expect((await console.query("RELOAD")).errors).toEqual([]);
				// Without a pause the main thread would do nothing else.
				await Bun.sleep(20);
			}
		};
		const reloading = reloads();
		await Promise.all(Array.from({ length: 3 }, logins)).finally(() => {
			isOver = true;
		});
		await reloading;
		expect(proxy.log).not.toMatch(/internal error|auth_query failed/);
	});
