// Limits on clients: who is beyond one is told so, the others go on, and what has gone leaves room for as many.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy } from "../support/proxy.ts";
import { LoginError, type RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, one, show, workerOf } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

interface Limits {
	general?: Record<string, unknown>;
	database?: Record<string, unknown>;
	user?: Record<string, unknown>;
}

/** One server under two names, and two users, each of both databases. */
function files({
	general = {},
	database = {},
	user = {},
}: Limits): Pick<Parameters<typeof startProxy>[0], "config" | "users"> {
	const { config } = simpleConfig(cluster.primary, { workers: 2, default_pool_size: 2, min_pool_size: 0, ...general });
	const { databases } = config as { databases: Record<string, unknown>[] };
	const other = { ...databases[0], name: "other", database_name: "pgdog" };
	const tables = {
		...(config as object),
		databases: [{ ...databases[0], ...database }, other],
		admin: { password: "pgdog" },
	};
	const both = { databases: ["pgdog", "other"], server_user: "pgdog", server_password: "pgdog" };
	const users = ["pgdog", "second"].map((name) => ({
		name,
		password: "pgdog",
		...both,
		...(name === "pgdog" ? user : {}),
	}));
	return { config: tables, users: users as never };
}

function start(limits: Limits): Promise<Proxy> {
	return startProxy(files(limits));
}

/** Reloads with other limits. */
async function reload(proxy: Proxy, console: RawClient, limits: Limits): Promise<void> {
	const { config, users } = files(limits);
	proxy.writeConfig(config);
	proxy.writeUsers(users);
	expect((await console.query("RELOAD")).errors).toEqual([]);
}

/** A client, or SQLSTATE and message of why not. */
async function knock(proxy: Proxy, options: RawClientOptions = {}): Promise<RawClient | string> {
	try {
		return await connect(proxy, options);
	} catch (error) {
		if (error instanceof LoginError) return `${error.fields.C} ${error.fields.M}`;
		throw error;
	}
}

async function untilRoom(proxy: Proxy, options: RawClientOptions = {}): Promise<RawClient> {
	let found: RawClient | string = "";
	await until(async () => {
		found = await knock(proxy, options);
		return typeof found !== "string";
	}, "room for a client");
	return found as unknown as RawClient;
}

const ALL = "53300 sorry, too many clients already";

test("max_client_connections: those beyond are told, an admin is let in, and who leaves makes room for one", async () => {
	await using proxy = await start({ general: { max_client_connections: 3 } });
	const clients = [
		await connect(proxy),
		await connect(proxy),
		await connect(proxy, { database: "other", user: "second" }),
	];
	expect([await knock(proxy), await knock(proxy, { user: "second" })]).toEqual([ALL, ALL]);
	// Nobody is told what only those with the password are to know.
	expect(await knock(proxy, { user: "nobody" })).toBe(ALL);
	await using console = await admin(proxy);
	const errors = (await show(console, "SHOW POOLS")).map(
		({ user, database, errors }) => `${user}@${database} ${errors}`,
	);
	expect(errors.sort()).toEqual(["pgdog@other 0", "pgdog@pgdog 1", "second@other 0", "second@pgdog 1"]);
	await proxy.waitForLog(/WARNING .*too many clients/);
	const warnings = proxy.lines.filter((line) => /WARNING .*too many clients/.test(line));
	expect(warnings).toHaveLength(1);
	expect(warnings[0]).toContain("sorry, too many clients already: 3 of 3 (max_client_connections)");
	const config = await show(console, "SHOW CONFIG");
	expect(config.find(({ name }) => name === "max_client_connections")).toMatchObject({ value: "3" });
	for (const client of clients) expect(await one(client, "SELECT 1")).toBe("1");
	clients.pop()!.send(f.terminate());
	clients.push(await untilRoom(proxy));
	expect(await knock(proxy)).toBe(ALL);
	// However it ends.
	clients.pop()!.close();
	clients.push(await untilRoom(proxy));
	expect(await knock(proxy)).toBe(ALL);
	for (const client of clients) client.close();
});

test("a user's limit counts its clients in all databases, a database's those of all users", async () => {
	await using proxy = await start({ user: { max_client_connections: 3 }, database: { max_client_connections: 2 } });
	const first = await connect(proxy);
	const second = await connect(proxy, { user: "second" });
	expect(await knock(proxy)).toBe('53300 too many connections for database "pgdog"');
	const third = await connect(proxy, { database: "other" });
	const fourth = await connect(proxy, { database: "other" });
	expect(await knock(proxy, { database: "other" })).toBe('53300 too many connections for role "pgdog"');
	// Who does not know the password is told nothing of it.
	expect(await knock(proxy, { database: "other", password: "wrong" })).toStartWith("28000 ");
	const fifth = await connect(proxy, { database: "other", user: "second" });
	await proxy.waitForLog(
		/too many connections for database "pgdog": 2 of 2 \(max_client_connections of the database\)/,
	);
	await proxy.waitForLog(/too many connections for role "pgdog": 3 of 3 \(max_client_connections of the user\)/);
	for (const client of [first, second, third, fourth, fifth]) client.close();
});

test("max_client_connections_per_address is for one address, and the Unix socket has none", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-"));
	await using proxy = await start({ general: { max_client_connections_per_address: 2, unix_socket_dir: folder } });
	const clients = [await connect(proxy), await connect(proxy)];
	expect(await knock(proxy)).toBe('53300 too many connections from address "127.0.0.1"');
	clients.push(await connect(proxy, { unix: join(folder, `.s.PGSQL.${proxy.port}`) }));
	clients.push(await connect(proxy, { unix: join(folder, `.s.PGSQL.${proxy.port}`) }));
	clients.push(await connect(proxy, { unix: join(folder, `.s.PGSQL.${proxy.port}`) }));
	await using _console = await admin(proxy);
	clients.shift()!.close();
	clients.push(await untilRoom(proxy));
	for (const client of clients) client.close();
	rmSync(folder, { recursive: true });
});

test("a reload that lowers a limit throws nobody out; new clients come when enough have gone, or it is raised", async () => {
	await using proxy = await start({});
	await using console = await admin(proxy);
	// Counted while there was no limit.
	const clients = await Promise.all(Array.from({ length: 6 }, () => connect(proxy)));
	await clients[0]!.query("BEGIN");
	await reload(proxy, console, { general: { max_client_connections: 4 } });
	expect(await knock(proxy)).toBe(ALL);
	for (const client of clients) expect(await one(client, "SELECT 1")).toBe("1");
	for (const client of clients.splice(3)) client.close();
	clients.push(await untilRoom(proxy));
	expect(await knock(proxy)).toBe(ALL);
	await reload(proxy, console, { general: { max_client_connections: 5 }, user: { max_client_connections: 5 } });
	clients.push(await connect(proxy));
	expect(await knock(proxy)).toBe(ALL);
	await reload(proxy, console, { user: { max_client_connections: 5 } });
	expect(await knock(proxy)).toBe('53300 too many connections for role "pgdog"');
	for (const client of clients) client.close();
});

test("clients keep their seats when they go to another worker, and 1,000 at once get as many as there are", async () => {
	await using proxy = await start({ general: { max_client_connections: 100, log_connections: false } });
	const here = await Promise.all(Array.from({ length: 12 }, () => connect(proxy)));
	let over = false;
	const busy = here.map(async (client) => {
		while (!over && !client.ended) await client.query("SELECT 1");
	});
	await using console = await admin(proxy);
	// Which worker accepts is the system's choice, and of a crowd one may take all where the other gets no time: both have some before.
	const early = [await connect(proxy)];
	while (new Set(early.map(workerOf)).size < 2 && early.length < 80) early.push(await connect(proxy));
	expect(new Set(early.map(workerOf)).size).toBe(2);
	const knocks = await Promise.all(Array.from({ length: 1000 }, () => knock(proxy)));
	const clients = knocks.filter((outcome) => typeof outcome !== "string");
	expect(new Set(knocks.filter((outcome) => typeof outcome === "string"))).toEqual(new Set([ALL]));
	expect(clients).toHaveLength(88 - early.length);
	expect(await show(console, "SHOW CLIENTS")).toHaveLength(100);
	over = true;
	await Promise.all(busy);
	for (const client of [...clients, ...early, ...here]) client.close();
	const again = await Promise.all(Array.from({ length: 100 }, () => untilRoom(proxy)));
	expect(await knock(proxy)).toBe(ALL);
	for (const client of again) client.close();
});
