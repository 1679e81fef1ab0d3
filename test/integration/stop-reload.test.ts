// Signals: a graceful stop and a second one, and the reload of both files.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyUser, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { type LoginError, RawClient } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, backends, connect, one, show, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

function start(general: Record<string, unknown> = {}): Promise<Proxy> {
	return startProxy(simpleConfig(cluster.primary, { workers: 2, default_pool_size: 3, min_pool_size: 0, ...general }));
}

/** The SQLSTATE of the ErrorResponse that came before the connection was ended. */
async function lastWords(client: RawClient): Promise<string | undefined> {
	const error = (await client.closed).find(({ code }) => code === "E");
	return /C(\w{5})\0/.exec(error?.body.toString("latin1") ?? "")?.[1];
}

for (const signal of ["SIGTERM", "SIGINT"] as const) {
	test(`${signal}: idle clients leave with 57P01, transactions end first, nobody else gets in`, async () => {
		await using proxy = await start();
		await using idle = await connect(proxy);
		await using busy = await connect(proxy);
		await using running = await connect(proxy);
		await idle.query("SELECT 1");
		await busy.query("BEGIN");
		const query = running.query("SELECT 'finished', pg_sleep(1.5)");
		await untilRunning(cluster, "pg_sleep");
		proxy.signal(signal);
		expect(await lastWords(idle)).toBe("57P01");
		await rejects(connect(proxy));
		expect((await query).rows[0]?.[0]).toBe("finished");
		expect(await lastWords(running)).toBe("57P01");
		for (let i = 0; i < 5; i++) expect(await one(busy, `SELECT ${i}`)).toBe(String(i));
		expect((await busy.query("COMMIT")).tags).toEqual(["COMMIT"]);
		expect(await lastWords(busy)).toBe("57P01");
		expect(await proxy.exited).toBe(0);
		await until(async () => (await backends(cluster)).length === 0, "the backends to end");
	});
}

test("with nobody there the proxy stops at once", async () => {
	await using proxy = await start({ min_pool_size: 2 });
	// It would be killed, and have no code, long before the minute of `shutdown_timeout` is over.
	expect(await proxy.stop("SIGTERM")).toBe(0);
});

test("a second signal stops at once", async () => {
	await using proxy = await start();
	await using busy = await connect(proxy);
	await busy.query("BEGIN");
	proxy.signal("SIGTERM");
	await proxy.waitForLog(/shutting down/);
	expect(await one(busy, "SELECT 1")).toBe("1");
	proxy.signal("SIGTERM");
	expect(await lastWords(busy)).toBe("57P01");
	expect(await proxy.exited).toBe(0);
});

test("shutdown_timeout ends what is left", async () => {
	await using proxy = await start({ shutdown_timeout: 300 });
	await using busy = await connect(proxy);
	await using running = await connect(proxy);
	await busy.query("BEGIN");
	running.send(f.query("SELECT pg_sleep(20)"));
	await untilRunning(cluster, "pg_sleep");
	proxy.signal("SIGTERM");
	expect(await lastWords(busy)).toBe("57P01");
	expect(await lastWords(running)).toBe("57P01");
	expect(await proxy.exited).toBe(0);
	expect(proxy.log).toContain("shutdown timeout");
});

test("shutdown_termination_timeout cancels running queries", async () => {
	await using proxy = await start({ shutdown_timeout: 200, shutdown_termination_timeout: 5_000 });
	await using running = await connect(proxy);
	const query = running.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	proxy.signal("SIGTERM");
	expect((await query).errors[0]?.C).toBe("57014");
	expect(await proxy.exited).toBe(0);
	await untilRunning(cluster, "pg_sleep", 0);
});

test("clients that wait for a server or log in when the stop comes are not left hanging", async () => {
	await using proxy = await start({ default_pool_size: 1, workers: 1, shutdown_timeout: 20_000 });
	await using holder = await connect(proxy);
	await using waiter = await connect(proxy);
	const half = await RawClient.open({ port: proxy.port });
	half.send(f.startupMessage({ user: "pgdog", database: "pgdog" }));
	await half.until("R");
	await holder.query("BEGIN");
	waiter.send(f.query("SELECT 'waited'"));
	await holder.query("SELECT 1");
	proxy.signal("SIGTERM");
	expect(await lastWords(half)).toBe("57P03");
	await holder.query("COMMIT");
	expect((await waiter.result()).rows).toEqual([["waited"]]);
	expect(await lastWords(waiter)).toBe("57P01");
	expect(await proxy.exited).toBe(0);
});

// It stayed for as long as it was still, and each of its requests was refused.
test("a client that is refused what it waits for goes when it is to go: after a stop, or when its user is gone", async () => {
	const recovery = { workers: 1, default_pool_size: 1, client_connection_recovery: "recover" };
	for (const extended of [false, true]) {
		await using proxy = await start({ ...recovery, checkout_timeout: 500, shutdown_timeout: 20_000 });
		await using holder = await connect(proxy);
		await using waiter = await connect(proxy);
		await holder.query("BEGIN");
		const answer = extended ? waiter.extended("SELECT 1") : waiter.query("SELECT 1");
		await holder.query("SELECT 1");
		proxy.signal("SIGTERM");
		expect((await answer).errors[0]?.M).toBe("checkout timeout");
		expect(await lastWords(waiter)).toBe("57P01");
		await holder.query("COMMIT");
		expect(await proxy.exited).toBe(0);
	}
	const { config } = simpleConfig(cluster.primary, recovery);
	const temp = { name: "temp", database: "pgdog", password: "one", server_user: "pgdog_trust" };
	await using proxy = await startProxy({ config, users: [...USERS, temp] });
	await using holder = await connect(proxy, { user: "temp", password: "one" });
	await using waiter = await connect(proxy, { user: "temp", password: "one" });
	await holder.query("BEGIN");
	const answer = waiter.query("SELECT 1");
	await holder.query("SELECT 1");
	proxy.writeUsers(USERS);
	await reload(proxy);
	expect((await answer).errors[0]?.M).toBe("pool is shut down");
	expect(await lastWords(waiter)).toBe("57P01");
	await holder.query("COMMIT");
	expect(await lastWords(holder)).toBe("57P01");
});

const USERS: ProxyUser[] = [{ name: "pgdog", database: "pgdog", password: "pgdog" }];

async function reload(proxy: Proxy): Promise<string> {
	const from = proxy.lines.length;
	proxy.signal("SIGHUP");
	return proxy.waitForLog(/configuration reloaded|reload refused/, 10_000, from);
}

test("SIGHUP keeps connections, clients and transactions when nothing has changed", async () => {
	await using proxy = await start({ workers: 1, default_pool_size: 1 });
	await using client = await connect(proxy);
	const pid = await one(client, "SELECT pg_backend_pid()");
	await client.query("SET work_mem = '9MB'; BEGIN");
	expect(await reload(proxy)).toContain("0 pools added, 0 changed, 0 removed");
	expect(await one(client, "SELECT pg_backend_pid()")).toBe(pid);
	await client.query("COMMIT");
	expect(await one(client, "SELECT pg_backend_pid() || ' ' || current_setting('work_mem')")).toBe(`${pid} 9MB`);
});

test("SIGHUP: pool sizes, timeouts and the log change; the servers stay", async () => {
	await using proxy = await start({ workers: 2, default_pool_size: 1 });
	const clients = await Promise.all(Array.from({ length: 4 }, () => connect(proxy)));
	const pid = await one(clients[0] as RawClient, "SELECT pg_backend_pid()");
	const busy = () => Promise.all(clients.map((client) => client.query("SELECT pg_sleep(0.1)")));
	await busy();
	expect((await backends(cluster)).map((b) => String(b.pid))).toEqual([pid as string]);
	proxy.writeConfig(
		simpleConfig(cluster.primary, {
			workers: 2,
			default_pool_size: 4,
			min_pool_size: 0,
			log_format: "json",
			query_timeout: 1_000,
		}).config,
	);
	expect(await reload(proxy)).toContain("reloaded");
	await proxy.waitForLog(/default_pool_size/);
	await Promise.all(clients.map((client) => client.query("BEGIN")));
	expect((await backends(cluster)).length).toBe(4);
	await Promise.all(clients.map((client) => client.query("COMMIT")));
	expect((await backends(cluster)).map((b) => String(b.pid))).toContain(pid as string);
	const from = proxy.lines.length;
	await using logged = await connect(proxy);
	const line = JSON.parse(await proxy.waitForLog(/client .* connected/, 10_000, from));
	expect(line.properties).toMatchObject({ user: "pgdog", database: "pgdog", client: logged.backendPid });
	expect(line.message).toContain(line.properties.address);
	const timed = await (clients[3] as RawClient).query("SELECT pg_sleep(5)");
	expect(timed.errors[0]?.M).toBe("query timeout");
	// Smaller again: the pool shrinks to its size as servers come back.
	proxy.writeConfig(
		simpleConfig(cluster.primary, { workers: 2, default_pool_size: 1, min_pool_size: 0, idle_timeout: 100 }).config,
	);
	await reload(proxy);
	for (const client of clients.slice(0, 3)) await client.query("SELECT 1");
	await until(async () => (await backends(cluster)).length <= 1, "the pool to shrink");
	for (const client of clients) client.close();
});

test("SIGHUP: users and databases come and go, passwords change for new logins only", async () => {
	await using proxy = await start();
	await using stays = await connect(proxy);
	await using leaver = await (async () => {
		proxy.writeUsers([...USERS, { name: "temp", database: "pgdog", password: "one", server_user: "pgdog_trust" }]);
		expect(await reload(proxy)).toContain("1 pools added");
		return connect(proxy, { user: "temp", password: "one" });
	})();
	expect(await one(leaver, "SELECT current_user")).toBe("pgdog_trust");
	proxy.writeUsers([...USERS, { name: "temp", database: "pgdog", password: "two", server_user: "pgdog_trust" }]);
	await reload(proxy);
	await rejects(connect(proxy, { user: "temp", password: "one" }), "28000");
	expect(await one(leaver, "SELECT 1")).toBe("1");
	const again = await connect(proxy, { user: "temp", password: "two" });
	again.close();
	await leaver.query("BEGIN");
	proxy.writeUsers(USERS);
	expect(await reload(proxy)).toContain("1 removed");
	// Its transaction may end.
	expect((await leaver.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await lastWords(leaver)).toBe("57P01");
	await rejects(connect(proxy, { user: "temp", password: "two" }), "28000");
	await until(async () => (await backends(cluster, "pgdog_trust")).length === 0, "the removed pool's servers to end");
	expect(await one(stays, "SELECT 'stays'")).toBe("stays");
	// A database under a new name, and it comes back after having gone.
	const both = [{ name: "pgdog" }, { name: "second" }].map(({ name }) => ({
		name,
		host: "127.0.0.1",
		port: cluster.port,
		database_name: "pgdog",
	}));
	for (let i = 0; i < 3; i++) {
		proxy.writeConfig({ databases: both });
		proxy.writeUsers([...USERS, { name: "pgdog", database: "second", password: "pgdog" }]);
		await reload(proxy);
		await using second = await connect(proxy, { database: "second" });
		expect(await one(second, "SELECT current_database()")).toBe("pgdog");
		proxy.writeConfig({ databases: both.slice(0, 1) });
		proxy.writeUsers(USERS);
		await reload(proxy);
		expect(await lastWords(second)).toBe("57P01");
	}
	expect(await one(stays, "SELECT 'stays'")).toBe("stays");
});

// Its old servers were no one's: no timeout ended what ran there, and each kept its place in the pool for good.
test("SIGHUP: a pool that goes and comes back while its server is lent still ends what runs there too long", async () => {
	const general = { workers: 2, default_pool_size: 1, min_pool_size: 0, query_timeout: 3_000 };
	const { config, users } = simpleConfig(cluster.primary, general);
	await using proxy = await startProxy(withAdmin({ config, users }));
	const temp = { name: "temp", database: "pgdog", password: "one", server_user: "pgdog_trust" };
	proxy.writeUsers([...USERS, temp]);
	await reload(proxy);
	await using client = await connect(proxy, { user: "temp", password: "one" });
	const query = client.query("SELECT pg_sleep(300)");
	const running = async () =>
		(await backends(cluster, "pgdog_trust")).filter(({ query: text }) => text.includes("pg_sleep")).length;
	await until(async () => (await running()) === 1, "the query to run");
	proxy.writeUsers(USERS);
	expect(await reload(proxy)).toContain("1 removed");
	await using console = await admin(proxy);
	const servers = await show(console, "SHOW SERVERS");
	expect(servers.map(({ user, state }) => [user, state])).toEqual([["temp", "active"]]);
	proxy.writeUsers([...USERS, temp]);
	expect(await reload(proxy)).toContain("1 pools added");
	expect((await query).errors[0]?.M).toBe("query timeout");
	await until(async () => (await running()) === 0, "the query to be cancelled");
	// The one place is free again.
	await using again = await connect(proxy, { user: "temp", password: "one" });
	expect(await one(again, "SELECT 'served'")).toBe("served");
	const pools = await show(console, "SHOW POOLS");
	expect(pools.find(({ user }) => user === "temp")?.sv_total).toBe("1");
});

// Each server that was on its way between workers when its pool went left a socket and a place in the pool taken for good: with
// a pool of two nobody was served any more after some seconds.
test.skipIf(!existsSync("/proc/self/fd"))(
	"SIGHUP: a pool that comes and goes under load leaves nothing behind",
	async () => {
		const { config, users } = simpleConfig(cluster.primary, { workers: 2, default_pool_size: 2, min_pool_size: 0 });
		await using proxy = await startProxy(withAdmin({ config, users }));
		const temp = { name: "temp", database: "pgdog", password: "one", server_user: "pgdog_trust" };
		await using console = await admin(proxy);
		const before = sockets(proxy.pid);
		let over = false;
		let served = 0;
		const load = Array.from({ length: 12 }, async () => {
			while (!over) {
				// Refused while there is no such user, and sent away when it goes.
				const client = await connect(proxy, { user: "temp", password: "one" }).catch(() => null);
				if (client === null) await Bun.sleep(1);
				else while (!over && (await one(client, "SELECT 1").catch(() => null)) === "1") served++;
				client?.close();
			}
		});
		for (let round = 0; round < 40; round++) {
			proxy.writeUsers([...USERS, temp]);
			await show(console, "RELOAD");
			const then = served;
			await until(() => served > then + 20, "clients to be served");
			proxy.writeUsers(USERS);
			await show(console, "RELOAD");
		}
		over = true;
		await Promise.all(load);
		await until(async () => (await backends(cluster, "pgdog_trust")).length === 0, "the servers to end");
		await until(() => sockets(proxy.pid) === before, `${before} sockets`);
		proxy.writeUsers([...USERS, temp]);
		await show(console, "RELOAD");
		const pools = await show(console, "SHOW POOLS");
		expect(pools.map(({ user, sv_total }) => [user, sv_total])).toContainEqual(["temp", "0"]);
	},
	// Forty times clients log in by the dozen, and go to the other worker.
	60_000,
);

/** How many a process has open. */
function sockets(pid: number): number {
	const folder = `/proc/${pid}/fd`;
	return readdirSync(folder).filter((fd) => {
		try {
			return readlinkSync(join(folder, fd)).startsWith("socket:");
		} catch {
			// Closed meanwhile.
			return false;
		}
	}).length;
}

test("SIGHUP with mistakes in the files changes nothing and says which", async () => {
	await using proxy = await start();
	await using client = await connect(proxy);
	const good = simpleConfig(cluster.primary).config;
	for (const [config, users, said] of [
		["[general]\ndefault_pool_size = -1\nnonsense = 1\n", USERS, "nonsense"],
		["not toml at all [", USERS, "pgdog.toml"],
		[good, '[[users]]\nname = "pgdog"\ndatabase = "pgdog"\npassword = 7\n', "users.toml"],
	] as const) {
		proxy.writeConfig(config as string);
		proxy.writeUsers(users as ProxyUser[]);
		const from = proxy.lines.length;
		expect(await reload(proxy)).toContain("reload refused");
		await proxy.waitForLog(new RegExp(said), 10_000, from);
		expect(await one(client, "SELECT 'unchanged'")).toBe("unchanged");
		await using fresh = await connect(proxy);
		expect(await one(fresh, "SELECT 'unchanged'")).toBe("unchanged");
	}
	expect(proxy.running).toBe(true);
	proxy.writeConfig(good as Record<string, unknown>);
	proxy.writeUsers(USERS);
	expect(await reload(proxy)).toContain("configuration reloaded");
});

// A deploy that is not atomic, a volume that is away for a moment: every pool was dropped, and the admin's password a random one.
test("a reload that does not find what it was started with changes nothing and says so, by SIGHUP and RELOAD", async () => {
	const healthcheck_port = freePort();
	const general = { workers: 1, min_pool_size: 0, healthcheck_port };
	const { config, users } = simpleConfig(cluster.primary, general);
	const whole = { ...(config as object), admin: { password: "adm" } };
	await using proxy = await startProxy({ config: whole, users });
	await using client = await connect(proxy);
	const pid = await one(client, "SELECT pg_backend_pid()");
	await using console = await admin(proxy, "adm");
	const restore = () => {
		for (const path of [proxy.configPath, proxy.usersPath]) rmSync(path, { recursive: true, force: true });
		proxy.writeConfig(whole);
		proxy.writeUsers(users);
	};
	const health = async () => (await fetch(`http://127.0.0.1:${healthcheck_port}/`)).text();
	for (const path of [proxy.configPath, proxy.usersPath]) {
		for (const [spoil, why] of [
			[() => rmSync(path), "it was loaded before|names it"],
			[
				() => {
					rmSync(path);
					mkdirSync(path);
				},
				"it is a folder",
			],
			[() => writeFileSync(path, ""), "would be left"],
			[() => writeFileSync(path, "[[data"), "not valid TOML"],
		] as const) {
			spoil();
			expect(await reload(proxy)).toMatch(new RegExp(`reload refused: .*(${why})`));
			const { errors } = await console.query("RELOAD");
			expect(errors.map(({ C }) => C)).toEqual(["F0000"]);
			expect(errors[0]!.D).toMatch(new RegExp(why));
			await using fresh = await connect(proxy);
			expect(await one(fresh, "SELECT 'in'")).toBe("in");
			await using again = await admin(proxy, "adm");
			expect(again.ended).toBe(false);
			restore();
		}
	}
	expect(await one(client, "SELECT pg_backend_pid()")).toBe(pid);
	expect(await health()).toBe("up");
	// Asked for, it is done; and a proxy without a pool is not up.
	proxy.writeUsers([]);
	expect((await console.query("RELOAD FORCE")).errors).toEqual([]);
	expect(await lastWords(client)).toBe("57P01");
	expect(await health()).toBe("down");
	await using still = await admin(proxy, "adm");
	restore();
	expect((await still.query("RELOAD")).errors).toEqual([]);
	expect(await health()).toBe("up");
	await using fresh = await connect(proxy);
	expect(await one(fresh, "SELECT 'in'")).toBe("in");
});

test("RELOAD tells its giver what waits for a restart and what is ignored", async () => {
	const { config, users } = simpleConfig(cluster.primary, { workers: 1 });
	await using proxy = await startProxy(withAdmin({ config, users }));
	await using console = await admin(proxy);
	const changed = simpleConfig(cluster.primary, { workers: 2, default_pool_size: 7, broadcast_port: 1 }).config;
	proxy.writeConfig({ ...(changed as object), admin: { password: "pgdog" } });
	const { errors, notices } = await console.query("RELOAD");
	expect(errors).toEqual([]);
	const told = notices.map(({ S, M }) => `${S}: ${M}`).join("\n");
	expect(told).toMatch(/WARNING: .*broadcast_port.*ignored/);
	expect(told).toMatch(/WARNING: .*workers: 1 -> 2.*after a restart/);
	expect(told).toMatch(/NOTICE: .*default_pool_size: 10 -> 7/);
	expect(told).toMatch(/NOTICE: configuration reloaded: .* 1 changed/);
	for (const { M } of notices) await until(() => proxy.log.includes(M!), `${M} in the log`);
});

test("SIGHUP: a changed server address moves the pool; a setting that needs a restart is told and left", async () => {
	await using other = await startPostgres();
	await other.primary.sql("CREATE TABLE here AS SELECT 'the other' AS name; GRANT ALL ON here TO pgdog");
	await cluster.primary.sql(
		"CREATE TABLE IF NOT EXISTS here AS SELECT 'the first' AS name; GRANT ALL ON here TO pgdog",
	);
	await using proxy = await start();
	await using client = await connect(proxy);
	expect(await one(client, "SELECT name FROM here")).toBe("the first");
	proxy.writeConfig(simpleConfig(other.primary, { workers: 7, min_pool_size: 0 }).config);
	await reload(proxy);
	await proxy.waitForLog(/workers.*restart/);
	const error = await one(client, "SELECT name FROM here").catch((e: Error | LoginError) => e);
	// The client stays with the pool that it logged in to, or is sent away: never to half of either.
	if (error instanceof Error) expect(client.ended).toBe(true);
	await using fresh = await connect(proxy);
	expect(await one(fresh, "SELECT name FROM here")).toBe("the other");
});

test("a reload reads the files with passwords anew; one that is gone changes nothing", async () => {
	const options = simpleConfig(cluster.primary, { workers: 1 });
	const users = [{ name: "pgdog", database: "pgdog", password_file: "secret", server_password: "pgdog" }];
	const folder = mkdtempSync(join(tmpdir(), "pgdog-credentials-"));
	const secret = join(folder, "secret");
	writeFileSync(secret, "old\n", { mode: 0o600 });
	try {
		await using proxy = await startProxy({ ...options, users, env: { CREDENTIALS_DIRECTORY: folder } });
		(await connect(proxy, { password: "old" })).close();
		writeFileSync(secret, "new\n");
		proxy.signal("SIGHUP");
		await proxy.waitForLog(/configuration reloaded/);
		(await connect(proxy, { password: "new" })).close();
		// Not by `rejects`: Bun (1.4.5) waits there in a loop of its own, and now and then reads the proxy's log no more.
		expect(await connect(proxy, { password: "old" }).catch(String)).toContain("28000");
		rmSync(secret);
		proxy.signal("SIGHUP");
		const line = await proxy.waitForLog(/reload refused/);
		expect(line).toMatch(/users\.toml:4: users\[0\]\.password_file cannot be read: .*secret: there is no such file/);
		(await connect(proxy, { password: "new" })).close();
	} finally {
		rmSync(folder, { recursive: true });
	}
});
