// Users whose passwords only the server knows (`passthrough_auth`): who gets in by what, and for how long.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { Authority } from "../support/certificates.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { failProxy, type Proxy, type ProxyOptions, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import { admin, backends, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;

beforeAll(async () => {
	cluster = await startPostgres({
		hba: [
			"host all trusted 127.0.0.1/32 trust",
			"host all clear 127.0.0.1/32 password",
			"host all md5er 127.0.0.1/32 md5",
			"host all banned 127.0.0.1/32 reject",
		],
	});
	const statements = [
		"CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asks'",
		...["alice", "bob", "trusted", "clear", "banned", "limited"].map(
			(name) => `CREATE ROLE ${name} LOGIN PASSWORD 'of ${name}'`,
		),
		"SET password_encryption = md5; CREATE ROLE md5er LOGIN PASSWORD 'of md5er'; RESET password_encryption",
		`CREATE ROLE "o'x" LOGIN PASSWORD 'pässword; ''"'`,
		"CREATE ROLE expired LOGIN PASSWORD 'of expired' VALID UNTIL '2001-01-01'",
		"CREATE ROLE nologin NOLOGIN PASSWORD 'of nologin'",
		"ALTER ROLE limited CONNECTION LIMIT 0",
		"CREATE ROLE two LOGIN PASSWORD 'of two' CONNECTION LIMIT 2",
	];
	for (const statement of statements) await cluster.primary.sql(statement);
});

afterAll(() => cluster?.stop());

function start(general: Record<string, unknown> = {}, more: Partial<ProxyOptions> = {}): Promise<Proxy> {
	const { host, port } = cluster.primary;
	return startProxy({
		config: {
			general: {
				workers: 2,
				min_pool_size: 0,
				failed_login_delay: 0,
				passthrough_auth: "enabled_plain",
				...general,
			},
			admin: { password: "pgdog" },
			databases: [{ name: "pgdog", host, port }],
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
		...more,
	});
}

function as(user: string, password = `of ${user}`): RawClientOptions {
	return { user, password, database: "pgdog" };
}

/** What a log-in is told, null when it succeeds, and what it was asked before. */
async function told(proxy: Proxy, options: RawClientOptions) {
	const client = await RawClient.open({ port: proxy.port });
	const error = await client.login({ database: "pgdog", ...options }).then(
		() => null,
		(e: LoginError) => e.fields,
	);
	const asked = client.received.filter(({ code }) => code === "R").map(({ body }) => body.readInt32BE(0));
	client.close();
	return { asked: asked[0], code: error?.C, text: error?.M };
}

/** Log-ins that the server has seen of a role, as it logs them. */
async function untilGone(user: string): Promise<void> {
	await until(async () => (await backends(cluster, user)).length === 0, `no backend of ${user}`);
}

test("whoever the server takes gets in, and nobody whom it refuses, or lets in unasked", async () => {
	await using proxy = await start();
	for (const user of ["alice", "clear", "md5er"])
		for (let i = 0; i < 4; i++) {
			await using client = await connect(proxy, as(user));
			expect(await one(client, "SELECT session_user")).toBe(user);
		}
	await using odd = await connect(proxy, as("o'x", `pässword; '"`));
	expect(await one(odd, "SELECT session_user")).toBe("o'x");
	const wrong = await told(proxy, as("bob", "wrong"));
	expect(wrong).toMatchObject({ asked: 3, code: "28000" });
	for (const user of ["alice", "nobody", "expired", "nologin", "trusted", "banned", "md5er", "clear"]) {
		const password = ["alice", "md5er", "clear"].includes(user) ? "of alicE" : `of ${user}`;
		const { asked, code, text } = await told(proxy, as(user, password));
		expect([user, asked, code]).toEqual([user, 3, "28000"]);
		expect(text).toBe(wrong.text!.replaceAll("bob", user));
	}
	await proxy.waitForLog(/user "trusted".*auth error: the server asked for no password/);
	await proxy.waitForLog(/user "expired".*auth error: password authentication failed for user/);
	expect(await told(proxy, as("alice", ""))).toMatchObject({ code: "28P01" });
	expect(await told(proxy, { ...as("alice"), database: "nowhere" })).toMatchObject({ asked: 3, code: "28000" });
	expect(await told(proxy, as("limited"))).toMatchObject({ code: "53300" });
	// Those whom the configuration has log in as ever, and so does the admin.
	expect(await told(proxy, as("pgdog", "pgdog"))).toMatchObject({ asked: 10, code: undefined });
	expect(await told(proxy, as("pgdog", "wrong"))).toMatchObject({ asked: 10, code: "28000" });
	await using console = await admin(proxy);
	const pools = (await show(console, "SHOW POOLS")).map(({ user }) => user).sort();
	expect(pools).toEqual(["alice", "clear", "md5er", "o'x", "pgdog"]);
	// The log-ins that tried the passwords have left nothing behind.
	for (const user of ["bob", "expired", "trusted", "limited"]) await untilGone(user);
	const shown = JSON.stringify([await show(console, "SHOW CONFIG"), await show(console, "SHOW CLIENTS")]);
	for (const text of [proxy.log, shown]) expect(text).not.toMatch(/of alic|of bob|pässword/);
});

test("a password is asked for where nobody on the way can read it: over TLS, and the Unix socket", async () => {
	const authority = await Authority.create();
	const pair = await authority.issue({ name: "localhost", dns: ["localhost"], ips: ["127.0.0.1"] });
	const files = { tls_certificate: pair.certificate, tls_private_key: pair.key };
	await using proxy = await start({ passthrough_auth: "enabled", ...files });
	await using client = await connect(proxy, { ...as("alice"), tls: {} });
	expect(await one(client, "SELECT session_user")).toBe("alice");
	for (const user of ["alice", "nobody"])
		expect(await told(proxy, as(user))).toEqual({
			asked: undefined,
			code: "08004",
			text: "only TLS connections are allowed",
		});
	await using known = await connect(proxy);
	expect(await one(known, "SELECT 1")).toBe("1");
	await using bare = await start({ passthrough_auth: "enabled" });
	expect(bare.log).toMatch(/passthrough_auth.*asks nobody without TLS, and there is no tls_certificate/);
	expect(await told(bare, as("alice"))).toMatchObject({ code: "08004" });
	const { code, log } = await failProxy({
		config: { general: { passthrough_auth: "enabled_maybe" }, databases: [] },
		users: [],
	});
	expect([code, log]).toEqual([1, expect.stringContaining("enabled_plain_allow_change")]);
});

test("while its pools are there a user has one password; it goes when the server refuses it", async () => {
	await using proxy = await start({ passthrough_auth_ttl: 1_500 });
	await using client = await connect(proxy, as("alice"));
	await client.query("BEGIN");
	try {
		await cluster.primary.sql("ALTER ROLE alice PASSWORD 'new'");
		// The server would take it.
		expect(await told(proxy, as("alice", "new"))).toMatchObject({ code: "28000" });
		await proxy.waitForLog(/another password than that of the user's pools/);
		// The old one is no good once it is asked about again, and then the new one is.
		await until(async () => (await told(proxy, as("alice"))).code === "28000", "the old password to be refused");
		await using other = await connect(proxy, as("alice", "new"));
		expect(await one(other, "SELECT session_user")).toBe("alice");
		expect(await told(proxy, as("alice"))).toMatchObject({ code: "28000" });
		// Who is in stays.
		expect(await one(client, "SELECT session_user")).toBe("alice");
		await client.query("COMMIT");
		// New connections are made with the new one.
		await using console = await admin(proxy);
		await console.query("RECONNECT");
		expect(await one(client, "SELECT session_user")).toBe("alice");
	} finally {
		await cluster.primary.sql("ALTER ROLE alice PASSWORD 'of alice'");
	}
});

test("with allow_change the server alone decides, and the pools go on with the new password", async () => {
	await using proxy = await start({ passthrough_auth: "enabled_plain_allow_change" });
	await using client = await connect(proxy, as("alice"));
	try {
		await cluster.primary.sql("ALTER ROLE alice PASSWORD 'new'");
		expect(await told(proxy, as("alice", "wrong"))).toMatchObject({ code: "28000" });
		await using other = await connect(proxy, as("alice", "new"));
		expect(await one(other, "SELECT session_user")).toBe("alice");
		expect(await told(proxy, as("alice"))).toMatchObject({ code: "28000" });
		await using console = await admin(proxy);
		await console.query("RECONNECT");
		for (const each of [client, other]) expect(await one(each, "SELECT session_user")).toBe("alice");
	} finally {
		await cluster.primary.sql("ALTER ROLE alice PASSWORD 'of alice'");
	}
});

test("a password that was taken is believed for a while, a wrong one is asked about each time", async () => {
	await using proxy = await start();
	{
		await using first = await connect(proxy, as("bob"));
		await Promise.all(Array.from({ length: 50 }, () => connect(proxy, as("bob")))).then((all) =>
			all.map((each) => each.close()),
		);
		expect(await one(first, "SELECT session_user")).toBe("bob");
	}
	try {
		await cluster.primary.sql("ALTER ROLE bob NOLOGIN");
		expect(await told(proxy, as("bob"))).toMatchObject({ code: undefined });
		// A reload believes nothing of before.
		await using console = await admin(proxy);
		expect((await console.query("RELOAD")).errors).toEqual([]);
		expect(await told(proxy, as("bob"))).toMatchObject({ code: "28000" });
	} finally {
		await cluster.primary.sql("ALTER ROLE bob LOGIN");
	}
	await using again = await connect(proxy, as("bob"));
	expect(await one(again, "SELECT session_user")).toBe("bob");
});

test("too many wrong ones are not asked about any more; a server that is away is said to be so", async () => {
	await using proxy = await start({ max_failed_logins: 3, failed_login_pause: 60_000 });
	for (let i = 0; i < 3; i++) expect(await told(proxy, as("bob", `${i}`))).toMatchObject({ asked: 3, code: "28000" });
	expect(await told(proxy, as("bob"))).toMatchObject({ asked: undefined, code: "28000" });
	// Nor are those of one who does not wait for the answer.
	await using hasty = await start({ max_failed_logins: 3, failed_login_pause: 60_000 });
	await until(async () => {
		const client = await RawClient.open({ port: hasty.port });
		client.send(frontend.startupMessage({ user: "bob", database: "pgdog" }));
		const { code } = await client.next();
		client.send(frontend.passwordMessage("wrong"));
		client.close();
		return code === "E";
	}, "the password not to be asked for any more");
	const { host } = cluster.primary;
	await using away = await start(
		{},
		{
			config: `
[general]
passthrough_auth = "enabled_plain"
min_pool_size = 0
[[databases]]
name = "pgdog"
host = "${host}"
port = 1
`,
		},
	);
	expect(await told(away, as("bob"))).toMatchObject({ code: "08006", text: "the password could not be checked" });
	await away.waitForLog(/passthrough_auth failed: 08001/);
});

test("a role whose limit its pool has reached logs in all the same", async () => {
	await using proxy = await start({ passthrough_auth_ttl: 0, default_pool_size: 2 });
	await using first = await connect(proxy, as("two"));
	await using second = await connect(proxy, as("two"));
	for (const each of [first, second]) await each.query("BEGIN");
	expect(await backends(cluster, "two")).toHaveLength(2);
	for (const each of [first, second]) await each.query("COMMIT");
	await using third = await connect(proxy, as("two"));
	expect(await one(third, "SELECT session_user")).toBe("two");
	expect(await told(proxy, as("two", "wrong"))).toMatchObject({ code: "28000" });
});

test("auth_query is asked first, and what users.toml says of a user without a password counts", async () => {
	await using proxy = await start(
		{
			auth_query_user: "asker",
			auth_query_password: "asks",
			auth_query: "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND rolname <> 'bob'",
		},
		{
			users: [
				{ name: "pgdog", database: "pgdog", password: "pgdog" },
				{ name: "bob", database: "pgdog", pooler_mode: "session", statement_timeout: 12_345 },
			],
		},
	);
	expect(await told(proxy, as("alice"))).toMatchObject({ asked: 10, code: undefined });
	expect(await told(proxy, as("alice", "wrong"))).toMatchObject({ asked: 10, code: "28000" });
	expect(await told(proxy, as("bob"))).toMatchObject({ asked: 3, code: undefined });
	await using client = await connect(proxy, as("bob"));
	expect(await one(client, "SHOW statement_timeout")).toBe("12345ms");
	await using console = await admin(proxy);
	const pools = await show(console, "SHOW POOLS");
	expect(pools.find(({ user }) => user === "bob")).toMatchObject({ pool_mode: "session" });
	proxy.writeUsers([
		{ name: "pgdog", database: "pgdog", password: "pgdog" },
		{ name: "bob", database: "pgdog", pooler_mode: "statement" },
	]);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect((await show(console, "SHOW POOLS")).find(({ user }) => user === "bob")).toMatchObject({
		pool_mode: "statement",
	});
});
