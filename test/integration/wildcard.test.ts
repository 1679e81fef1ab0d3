// Databases that the configuration does not name (`name = "*"`): who gets into which, and what is kept of them.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { failProxy, type Proxy, type ProxyOptions, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { admin, backends, connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;

const ODD = [`o'x "y"; DROP`, "Größe/0@b c", "x".repeat(63), "null", "__proto__"];

beforeAll(async () => {
	cluster = await startPostgres({ hba: ["host all md5er 127.0.0.1/32 md5"] });
	for (const name of ["alice", "bob", "verified"])
		await cluster.primary.sql(`CREATE ROLE ${name} LOGIN PASSWORD '${name}'`);
	await cluster.primary.sql(
		"SET password_encryption = md5; CREATE ROLE md5er LOGIN PASSWORD 'five'; RESET password_encryption",
	);
	await cluster.primary.sql("CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asks'");
	for (const name of ["one", "two", "closed", ...ODD])
		await cluster.primary.sql(`CREATE DATABASE "${name.replaceAll('"', '""')}"`);
	await cluster.primary.sql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC");
});

afterAll(() => cluster?.stop());

const ADMIN = { password: "pgdog" };

function start(general: Record<string, unknown> = {}, more: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(options(general, more));
}

function options(general: Record<string, unknown> = {}, more: Record<string, unknown> = {}): ProxyOptions {
	const { host, port } = cluster.primary;
	const { users = [{ name: "alice", database: "*", password: "alice" }], ...rest } = more;
	return {
		config: {
			general: { workers: 2, min_pool_size: 0, failed_login_delay: 0, ...general },
			admin: ADMIN,
			databases: [
				{ name: "*", host, port },
				{ name: "named", host, port, database_name: "pgdog" },
			],
			...rest,
		},
		users: [{ name: "pgdog", database: "named", password: "pgdog" }, ...(users as ProxyOptions["users"] as [])],
	};
}

function as(user: string, database: string, password = user): RawClientOptions {
	return { user, database, password };
}

async function told(proxy: Proxy, login: RawClientOptions) {
	const client = await RawClient.open({ port: proxy.port });
	const error = await client.login(login).then(
		() => null,
		(e: LoginError) => e.fields,
	);
	client.close();
	return error === null ? "in" : `${error.C} ${error.M}`;
}

async function databases(proxy: Proxy): Promise<string[]> {
	await using console = await admin(proxy);
	return (await show(console, "SHOW POOLS")).map(({ user, database }) => `${user}@${database}`).sort();
}

test("a client gets into any database that the server has, by its name, and into no other", async () => {
	await using proxy = await start();
	for (const name of ["one", "two", ...ODD])
		for (let i = 0; i < 3; i++) {
			await using client = await connect(proxy, as("alice", name));
			expect(await one(client, "SELECT current_database()")).toBe(name);
		}
	expect(await told(proxy, as("alice", "none"))).toBe('3D000 database "none" does not exist');
	expect(await told(proxy, as("alice", "closed"))).toBe('42501 permission denied for database "closed"');
	for (const name of ["none", "one", "named", "admin", "*", "y".repeat(64)])
		expect(await told(proxy, as("alice", name, "wrong"))).toStartWith("28000 password for user");
	// One that is cut off is another's; the admin's, and one that is named, are not anybody's.
	for (const name of ["x".repeat(64), "admin", "named", "*"])
		expect(await told(proxy, as("alice", name))).toStartWith("28000 password for user");
	expect(await told(proxy, as("bob", "one"))).toStartWith("28000 password for user");
	await using known = await connect(proxy, as("pgdog", "named"));
	expect(await one(known, "SELECT current_database()")).toBe("pgdog");
	expect(await databases(proxy)).toEqual(
		["pgdog@named", ...["one", "two", ...ODD].map((name) => `alice@${name}`)].sort(),
	);
	expect((await backends(cluster, "alice")).every(({ state }) => state === "idle")).toBe(true);
});

test("users may be found by auth_query, by a verifier alone, by a certificate's lack and by passthrough_auth", async () => {
	const asks = { auth_query_user: "asker", auth_query_password: "asks", auth_query_database: "named" };
	const [row] = (await cluster.primary.sql("SELECT rolpassword AS v FROM pg_authid WHERE rolname = 'verified'")) as {
		v: string;
	}[];
	const users = [
		{ name: "verified", all_databases: true, password_hash: row!.v },
		{ name: "alice", database: "one", password: "alice" },
	];
	await using asking = await start(asks, { users });
	for (const user of ["alice", "bob", "verified"]) {
		await using client = await connect(asking, as(user, "one"));
		expect(await one(client, "SELECT session_user || ' ' || current_database()")).toBe(`${user} one`);
		expect(await told(asking, as(user, "none"))).toBe('3D000 database "none" does not exist');
		expect(await told(asking, as(user, "none", "wrong"))).toStartWith("28000");
	}
	await using md5 = await start({ ...asks, auth_type: "plain" });
	expect(await told(md5, as("md5er", "two", "five"))).toBe("in");
	expect(await told(md5, as("md5er", "none", "five"))).toStartWith("3D000");
	await using passing = await start({ passthrough_auth: "enabled_plain" });
	await using client = await connect(passing, as("bob", "two"));
	expect(await one(client, "SELECT session_user || ' ' || current_database()")).toBe("bob two");
	expect(await told(passing, as("bob", "none"))).toBe('3D000 database "none" does not exist');
	expect(await told(passing, as("bob", "none", "wrong"))).toStartWith("28000");
	expect(await databases(passing)).toEqual(["bob@two", "pgdog@named"]);
	const refused = await failProxy(options({ ...asks, auth_query_database: "*" }));
	expect([refused.code, refused.log]).toEqual([1, expect.stringContaining("auth_query_database")]);
	const { auth_query_database: _, ...less } = asks;
	expect((await failProxy(options(less))).log).toContain("auth_query_database");
});

test("SHOW DATABASES has those that somebody has logged in to", async () => {
	await using proxy = await start({}, { admin: { name: "pgbouncer", password: "pgdog" } });
	expect(await told(proxy, as("alice", "two"))).toBe("in");
	expect(await told(proxy, as("alice", "none"))).toStartWith("3D000");
	expect(await told(proxy, as("alice", "pgbouncer"))).toStartWith("28000");
	await using console = await connect(proxy, as("admin", "pgbouncer", "pgdog"));
	const shown = (await show(console, "SHOW DATABASES")).map(({ name }) => name);
	expect(shown).toContain("two");
	expect(shown).not.toContain("none");
});

test("an entry with a database_name leads there, whatever the client says", async () => {
	const { host, port } = cluster.primary;
	const healthcheck_port = freePort();
	const any = { databases: [{ name: "*", host, port, database_name: "two" }] };
	await using proxy = await startProxy({
		...options({ healthcheck_port }, any),
		users: [{ name: "alice", database: "*", passwords: ["ours", "alice"] }],
	});
	// There is no pool yet, and nobody who asks first would ever send a client.
	expect((await fetch(`http://127.0.0.1:${healthcheck_port}/`)).status).toBe(200);
	expect(proxy.log).not.toContain("there is no pool");
	await using client = await connect(proxy, as("alice", "anything", "ours"));
	expect(await one(client, "SELECT current_database()")).toBe("two");
});

test("a reload keeps them while they are anybody's, and drops them with the entry or the user", async () => {
	await using proxy = await start();
	await using client = await connect(proxy, as("alice", "one"));
	await client.query("BEGIN");
	await using console = await admin(proxy);
	const reload = async () => (await console.query("RELOAD")).notices.map(({ M }) => M).join();
	expect(await reload()).toContain("0 pools added, 0 changed, 0 removed");
	proxy.writeUsers([
		{ name: "pgdog", database: "named", password: "pgdog" },
		{ name: "alice", database: "*", password: "changed", server_password: "alice" },
	]);
	expect(await reload()).toContain("0 pools added, 0 changed, 0 removed");
	expect(await one(client, "SELECT current_database()")).toBe("one");
	await client.query("COMMIT");
	expect(await told(proxy, as("alice", "one"))).toStartWith("28000");
	expect(await told(proxy, as("alice", "one", "changed"))).toBe("in");
	proxy.writeUsers([{ name: "pgdog", database: "named", password: "pgdog" }]);
	expect(await reload()).toContain("1 removed");
	expect((await client.closed).at(-1)?.code).toBe("E");
	expect(await told(proxy, as("alice", "one", "changed"))).toStartWith("28000");
	expect(await databases(proxy)).toEqual(["pgdog@named"]);
});

test("a database that nobody has used for a while is forgotten, and its row is another's", async () => {
	await Promise.all(
		[0, 2].map(async (workers) => {
			await using proxy = await start({ workers, idle_timeout: 300, client_login_timeout: 1_000, min_pool_size: 1 });
			await using other = await connect(proxy, as("alice", "two"));
			await using console = await admin(proxy);
			/** The number of its row. */
			const come = async (name: string) => {
				await using client = await connect(proxy, as("alice", name));
				for (let i = 0; i < 5; i++) expect(await one(client, "SELECT current_database()")).toBe(name);
				const row = async (of: string) => (await show(console, of)).find(({ database }) => database === name)!;
				const { id } = await row("SHOW POOLS");
				await until(async () => (await row("SHOW STATS")).total_query_count === "5", "its own queries to be counted");
				return id;
			};
			// The client that the user has of another database does not keep it.
			const go = (name: string) =>
				until(async () => !(await databases(proxy)).includes(`alice@${name}`), `${name} to be forgotten`);
			// The workers are asked once a second whether they are done with it: until then it has its row.
			const ids: unknown[] = [];
			// Who is paused is not let through by being forgotten.
			const paused = ODD[1]!;
			expect(await told(proxy, as("alice", paused))).toBe("in");
			expect((await console.query(`PAUSE alice "${paused}"`)).errors).toEqual([]);
			for (const name of ["one", ...ODD.toSpliced(1, 1)]) {
				ids.push(await come(name));
				if (new Set(ids).size < ids.length) break;
				await go(name);
			}
			expect(new Set(ids).size).toBe(ids.length - 1);
			const held = (await show(console, "SHOW POOLS")).filter((row) => row.paused === "t");
			expect(held.map(({ database }) => database)).toEqual([paused]);
			expect(await one(other, "SELECT current_database()")).toBe("two");
		}),
	);
	await until(async () => (await backends(cluster, "alice")).length === 0, "all servers to go");
});

test("names that there are not leave nothing behind, however many", async () => {
	await using proxy = await start();
	for (let round = 0; round < 4; round++) {
		const all = Array.from({ length: 20 }, (_, i) => told(proxy, as("alice", `none ${round} ${i}`)));
		for (const said of await Promise.all(all)) expect(said).toStartWith("3D000");
	}
	expect(await told(proxy, as("alice", "one"))).toBe("in");
	expect(await databases(proxy)).toEqual(["alice@one", "pgdog@named"]);
	await until(async () => (await backends(cluster, "alice")).length <= 1, "the servers that were tried to go");
});

test("a server that is away is no database that there is not", async () => {
	const { host } = cluster.primary;
	await using proxy = await start({}, { databases: [{ name: "*", host, port: 1 }] });
	expect(await told(proxy, as("alice", "one"))).toBe(
		'58000 connection pool for user "alice" and database "one" is down',
	);
	await proxy.waitForLog(/database by wildcard failed: 08001/);
	// What users.toml names is there from the beginning.
	expect(await databases(proxy)).toEqual(["pgdog@named"]);
});
