// A takeover with clients of users whom the new process has to get to know: by auth_query, passthrough_auth, a database by wildcard, or by
// a verifier alone. They move when it has asked a server about them, and found what the old process has said.

import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { type ProxyUser, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { clientsOf, linuxOnly, successor } from "./successor.ts";
import { admin, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(join(tmpdir(), "pgdog-takeover-"));
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres({ hba: ["host all md5er 127.0.0.1/32 md5"] });
	const statements = [
		"CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asks'",
		...["alice", "bob"].map((name) => `CREATE ROLE ${name} LOGIN PASSWORD 'of ${name}'`),
		"SET password_encryption = md5; CREATE ROLE md5er LOGIN PASSWORD 'of md5er'; RESET password_encryption",
		"CREATE SCHEMA lookup",
		"CREATE TABLE lookup.slow (seconds float)",
		`CREATE FUNCTION lookup.secret_of(who text, OUT name text, OUT secret text) RETURNS SETOF record LANGUAGE plpgsql AS $$
		 BEGIN
		   PERFORM pg_sleep(seconds) FROM lookup.slow;
		   RETURN QUERY SELECT rolname::text, rolpassword::text FROM pg_authid WHERE rolname = who;
		 END $$`,
	];
	for (const statement of statements) await cluster.primary.sql(statement);
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true });
});

const ASKED = { auth_query_user: "asker", auth_query_password: "asks" };
const PASSED = { passthrough_auth: "enabled_plain" };

function options(port: number, general: Record<string, unknown>, users: ProxyUser[] = [], name = "pgdog") {
	const { host, port: target } = cluster.primary;
	const takeover_socket = join(folder, String(port));
	const own = { host: "127.0.0.1", port, takeover_socket, shutdown_timeout: 20_000, min_pool_size: 0 };
	return {
		config: {
			general: { ...own, ...general },
			databases: [{ name, host, port: target }],
			admin: { password: "admin" },
		},
		users: [{ name: "pgdog", database: name, password: "pgdog" }, ...users],
		args: ["--takeover"],
	};
}

function login(user: string) {
	return { user, password: `of ${user}` };
}

async function verifierOf(user: string): Promise<string> {
	const [row] = await cluster.primary.sql(`SELECT rolpassword FROM pg_authid WHERE rolname = '${user}'`);
	return row!.rolpassword as string;
}

linuxOnly.each([
	["auth_query", ASKED, ["alice", "bob"]],
	["auth_query and MD5", { ...ASKED, auth_type: "plain" }, ["md5er", "alice"]],
	["passthrough_auth", PASSED, ["alice", "bob"]],
	["a verifier", {}, ["alice"]],
	["a database by wildcard", {}, ["bob", "alice"]],
] as const)("clients of users by %s move, and are served there", async (how, general, names) => {
	const port = freePort();
	const users: ProxyUser[] = [];
	if (how === "a verifier") users.push({ name: "alice", database: "pgdog", password_hash: await verifierOf("alice") });
	if (how === "a database by wildcard") {
		users.push({ name: "alice", database: "*", password_hash: await verifierOf("alice") });
		users.push({ name: "bob", database: "*", password: "of bob" });
	}
	const config = options(port, general, users, how === "a database by wildcard" ? "*" : "pgdog");
	const proxies = [await startProxy(config)];
	const clients = await Promise.all(
		names.flatMap((name) => [login(name), login(name)]).map((each) => connect(proxies[0]!, each)),
	);
	for (const client of clients) await client.query("SET application_name = 'traveller'");
	for (let i = 0; i < 2; i++) {
		const old = proxies.at(-1)!;
		proxies.push(await successor(old, config));
		expect(await old.exited).toBe(0);
		expect(old.log).toContain(`takeover: ${clients.length} clients went to process ${proxies.at(-1)!.pid}`);
	}
	const last = proxies.at(-1)!;
	for (const [i, client] of clients.entries()) {
		expect(await one(client, "SELECT current_user || ' as ' || current_setting('application_name')")).toBe(
			`${names[i >> 1]} as traveller`,
		);
		client.close();
	}
	await using newcomer = await connect(last, login("alice"));
	expect(await one(newcomer, "SELECT current_user")).toBe("alice");
	expect(await last.stop("SIGTERM")).toBe(0);
	for (const { log } of proxies) expect(log).not.toMatch(/WARNING takeover|ERROR/);
});

linuxOnly.each([
	["auth_query", ASKED],
	["passthrough_auth", PASSED],
])("a password that was changed lets nobody in by way of the old process: %s", async (_, general) => {
	const config = options(freePort(), { ...general, shutdown_timeout: 3_000, auth_query_ttl: 600_000 });
	await using old = await startProxy(config);
	const stays = await connect(old, login("alice"));
	const moves = await connect(old, login("bob"));
	await cluster.primary.sql("ALTER ROLE alice PASSWORD 'another'");
	try {
		const next = await successor(old, config);
		await old.waitForLog(/WARN.*takeover: clients of "alice" and database "pgdog" stay here: /);
		await until(async () => (await clientsOf(next)).length === 1, "bob to come");
		const again = RawClient.connect({ port: next.port, database: "pgdog", ...login("alice") });
		expect(
			await again.then(
				() => "let in",
				(error) => error.fields.C,
			),
		).toBe("28000");
		await using changed = await connect(next, { user: "alice", password: "another" });
		expect(await one(changed, "SELECT current_user")).toBe("alice");
		expect((await stays.closed).map(({ body }) => body.toString("latin1")).join()).toContain("C57P01\0");
		expect(await old.exited).toBe(0);
		expect(await one(moves, "SELECT current_user")).toBe("bob");
		moves.close();
		expect(await next.stop("SIGTERM")).toBe(0);
	} finally {
		await cluster.primary.sql("ALTER ROLE alice PASSWORD 'of alice'");
	}
});

linuxOnly("whom the new process cannot learn stays, and says so once", async () => {
	const port = freePort();
	await using old = await startProxy(options(port, { ...ASKED, shutdown_timeout: 3_000 }));
	const clients = await Promise.all([connect(old, login("alice")), connect(old, login("bob")), connect(old)]);
	await using next = await successor(old, options(port, {}));
	expect(await old.exited).toBe(0);
	expect(old.log).toContain("takeover: 1 clients went");
	expect(old.log.match(/the new process does not know its user/g)).toHaveLength(1);
	expect(clients.map(({ ended }) => ended)).toEqual([true, true, false]);
	expect(await one(clients[2]!, "SELECT 'there'")).toBe("there");
	expect(next.log).not.toContain("ERROR");
});

linuxOnly("a server that is slow to say who somebody is holds up nobody else", async () => {
	const config = options(freePort(), { ...ASKED, auth_query: "SELECT * FROM lookup.secret_of($1)" });
	await using old = await startProxy(config);
	const learned = await connect(old, login("alice"));
	const named = await connect(old);
	await cluster.primary.sql("INSERT INTO lookup.slow VALUES (2)");
	const next = await successor(old, config);
	await until(async () => (await clientsOf(next)).length === 1, "the one whom the configuration names");
	expect((await clientsOf(next)).map(({ user }) => user)).toEqual(["pgdog"]);
	expect(await old.exited).toBe(0);
	await cluster.primary.sql("TRUNCATE lookup.slow");
	expect((await clientsOf(next)).map(({ user }) => user).sort()).toEqual(["alice", "pgdog"]);
	for (const client of [learned, named]) {
		expect(await one(client, "SELECT 1")).toBe("1");
		client.close();
	}
	expect(await next.stop("SIGTERM")).toBe(0);
});

linuxOnly("a learned user who is paused is so there, whoever comes first", async () => {
	const config = options(freePort(), ASKED);
	await using old = await startProxy(config);
	const idle = await connect(old, login("alice"));
	const stays = await connect(old, login("bob"));
	await stays.query("BEGIN");
	await using console = await admin(old, "admin");
	await show(console, "PAUSE alice pgdog");
	const next = await successor(old, config);
	await until(async () => (await clientsOf(next)).some(({ user }) => user === "alice"), "alice to come");
	idle.send(f.query("SELECT 'late'"));
	await until(async () => (await clientsOf(next)).some(({ state }) => state === "waiting"), "alice to wait");
	await show(console, "RESUME alice pgdog");
	expect((await idle.result()).rows).toEqual([["late"]]);
	expect((await stays.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await old.exited).toBe(0);
	for (const client of [idle, stays]) client.close();
	expect(await next.stop("SIGTERM")).toBe(0);
});

linuxOnly("who is busy during two takeovers is introduced to both processes", async () => {
	const config = options(freePort(), ASKED);
	await using old = await startProxy(config);
	const busy = await connect(old, login("alice"));
	await busy.query("BEGIN");
	await using next = await successor(old, config);
	const last = await successor(next, config);
	expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await old.exited).toBe(0);
	expect(await next.exited).toBe(0);
	expect((await clientsOf(last)).map(({ user }) => user)).toEqual(["alice"]);
	expect(await one(busy, "SELECT current_user")).toBe("alice");
	busy.close();
	expect(await last.stop("SIGTERM")).toBe(0);
});
