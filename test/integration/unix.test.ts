// Unix sockets on both ends: servers that are reached by the folder of theirs, and clients that come by the proxy's own.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { failProxy, type Proxy, proxyCommand, simpleConfig, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient } from "../support/raw-client.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, one, show, untilBackends, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

/** Roles that PostgreSQL asks in different ways on its Unix socket; of the last it asks the kernel who it is. */
const WAYS = { pgdog: "scram-sha-256", pgdog_md5: "md5", pgdog_plain: "password", pgdog_trust: "trust" };
const SELF = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();

const folder = mkdtempSync(join(tmpdir(), "pgdog-unix-"));
let cluster: Cluster;
beforeAll(async () => {
	const ways = Object.entries({ ...WAYS, [`"${SELF}"`]: "peer" });
	cluster = await startPostgres({ hba: ways.map(([role, way]) => `local all ${role} ${way}`) });
	await cluster.primary.sql(`CREATE ROLE "${SELF}" LOGIN`).catch(() => undefined);
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true, force: true });
});

/** A proxy that reaches the server by its socket, with nothing but `general` to tell apart. */
function start(general: Record<string, unknown> = {}, database: Record<string, unknown> = {}): Promise<Proxy> {
	const { config, users } = simpleConfig(cluster.primary, general, { host: cluster.primary.socketDir, ...database });
	const admin = { name: "admin", user: "admin", password: "pgdog" };
	return startProxy({ config: { ...(config as object), admin }, users });
}

const BY_SOCKET = "SELECT inet_client_addr() IS NULL";

test("however the server asks, it is answered by its socket as by its port", async () => {
	const roles = [...Object.keys(WAYS), SELF];
	const { socketDir: host, port } = cluster.primary;
	await using proxy = await startProxy({
		config: {
			general: { auth_type: "trust" },
			databases: roles.map((name) => ({ name: `as_${name}`, host, port, database_name: "pgdog" })),
		},
		users: roles.map((name) => ({ name, database: `as_${name}`, password: "pgdog" })),
	});
	for (const user of roles) {
		await using client = await connect(proxy, { user, database: `as_${user}` });
		expect([user, await one(client, BY_SOCKET), await one(client, "SELECT current_user")]).toEqual([user, "t", user]);
	}
});

test("a name of the abstract namespace, which has no file", async () => {
	const name = `@pgdog-${process.pid}`;
	await using cluster = await startPostgres({ settings: { unix_socket_directories: name } });
	await using proxy = await startProxy(
		simpleConfig(cluster.primary, { unix_socket_dir: `${name}-proxy` }, { host: name }),
	);
	await using client = await RawClient.connect({
		unix: `\0${name.slice(1)}-proxy/.s.PGSQL.${proxy.port}`,
		user: "pgdog",
		password: "pgdog",
		database: "pgdog",
	});
	expect(await one(client, BY_SOCKET)).toBe("t");
	await using second = await connect(proxy);
	expect(await one(second, BY_SOCKET)).toBe("t");
});

test("checks, the monitor, min_pool_size, RECONNECT and SHOW take the folder for the host that it is", async () => {
	const general = {
		workers: 2,
		min_pool_size: 2,
		idle_healthcheck_interval: 100,
		idle_healthcheck_delay: 0,
		lsn_check_interval: 50,
		log_level: "debug",
	};
	await using proxy = await start(general, { role: "auto" });
	await using console = await admin(proxy);
	await untilBackends(cluster, 3);
	const { socketDir, port } = cluster.primary;
	await until(
		async () => (await show(console, "SHOW POOLS"))[0]!.role === "primary",
		"the monitor to find the primary",
	);
	const [pool] = await show(console, "SHOW POOLS");
	expect(pool).toMatchObject({ addr: socketDir, port: String(port), healthy: "t", banned: "f" });
	const pids = async () => (await show(console, "SHOW SERVERS")).map(({ remote_pid }) => remote_pid!);
	const before = await pids();
	expect((await show(console, "SHOW SERVERS"))[0]).toMatchObject({ addr: socketDir, port: String(port) });
	await until(
		async () => (await show(console, "SHOW SERVERS")).some(({ healthchecks }) => Number(healthchecks) > 0),
		"a check",
	);
	await console.query("RECONNECT");
	await until(async () => {
		const now = await pids();
		return now.length === 2 && !now.some((pid) => before.includes(pid));
	}, "other connections");
	expect(proxy.log).not.toContain("looked up");
});

test("SHOW as PgBouncer has it: a server's address is unix, a database's host the folder", async () => {
	const { config, users } = simpleConfig(cluster.primary, {}, { host: cluster.primary.socketDir });
	const admin = { name: "pgbouncer", user: "admin", password: "pgdog" };
	const general = { unix_socket_dir: folder, default_pool_size: 2 };
	await using proxy = await startProxy({ config: { ...(config as object), general, admin }, users });
	const unix = join(folder, `.s.PGSQL.${proxy.port}`);
	await using client = await RawClient.connect({ unix, user: "pgdog", password: "pgdog", database: "pgdog" });
	await client.query("BEGIN");
	await using console = await connect(proxy, { user: "admin", database: "pgbouncer" });
	const { socketDir, port } = cluster.primary;
	expect(await show(console, "SHOW SERVERS")).toContainEqual(
		expect.objectContaining({ addr: "unix", port: String(port) }),
	);
	expect((await show(console, "SHOW DATABASES"))[0]).toMatchObject({ host: socketDir, port: String(port) });
	expect((await show(console, "SHOW CLIENTS"))[0]).toMatchObject({ addr: "unix", user: "pgdog" });
});

test("a CancelRequest goes all the way by sockets", async () => {
	await using proxy = await start({ unix_socket_dir: folder, workers: 2 });
	const unix = join(folder, `.s.PGSQL.${proxy.port}`);
	await using client = await RawClient.connect({ unix, user: "pgdog", password: "pgdog", database: "pgdog" });
	const running = client.query("SELECT pg_sleep(20)");
	await untilRunning(cluster, "pg_sleep");
	const request = await RawClient.open({ unix });
	request.send(f.cancelRequest(client.backendPid, client.backendKey));
	expect(await request.closed).toEqual([]);
	const { errors, status } = await running;
	expect([errors[0]!.C, status]).toEqual(["57014", "I"]);
});

test("server connections that are reached by socket move between workers", async () => {
	await using proxy = await start({ workers: 2, default_pool_size: 1, client_placement: "spread", min_pool_size: 0 });
	const clients = await Promise.all(Array.from({ length: 12 }, () => connect(proxy)));
	const pids = await Promise.all(clients.map((client) => one(client, "SELECT pg_backend_pid()")));
	expect(new Set(pids).size).toBe(1);
	for (const client of clients) client.close();
});

test("a socket that is gone is told in libpq's words, and found when it is back", async () => {
	const { primary } = cluster;
	await using proxy = await start({
		client_connection_recovery: "recover",
		checkout_timeout: 2_000,
		connect_timeout: 1_000,
	});
	await using client = await connect(proxy);
	expect(await one(client, BY_SOCKET)).toBe("t");
	await primary.stop();
	expect(existsSync(primary.socketPath)).toBe(false);
	const failure = `connection to server on socket "${primary.socketPath}" failed: No such file or directory`;
	await until(async () => (await client.query("SELECT 1")).errors[0]?.D?.endsWith(failure) === true, "libpq's words");
	await primary.start();
	await until(async () => (await client.query("SELECT 1")).errors.length === 0, "the server to be found again");
	expect(await one(client, BY_SOCKET)).toBe("t");
});

test("what is there is no socket: a client that logs in is told so", async () => {
	const port = freePort();
	const places = {
		"Not a socket": join(folder, "file"),
		"Not a directory": join(folder, "file", `.s.PGSQL.${port}`),
		"No such file or directory": join(folder, "nobody"),
	};
	mkdirSync(places["Not a socket"]);
	writeFileSync(join(places["Not a socket"], `.s.PGSQL.${port}`), "");
	for (const [words, host] of Object.entries(places)) {
		await using proxy = await start({ checkout_timeout: 500 }, { host, port });
		const error: LoginError = await connect(proxy).then(
			() => Promise.reject(new Error("let in")),
			(refusal) => refusal,
		);
		expect(error.fields?.D).toEndWith(`connection to server on socket "${host}/.s.PGSQL.${port}" failed: ${words}`);
	}
});

test("a path that is too long is refused by configcheck", async () => {
	const config = join(folder, "long.toml");
	const users = join(folder, "users.toml");
	writeFileSync(users, '[[users]]\nname = "a"\ndatabase = "a"\npassword = "a"\n');
	const check = async (length: number) => {
		writeFileSync(config, `[[databases]]\nname = "a"\nhost = "/${"x".repeat(length - 1)}"\n`);
		return runTool([...proxyCommand(), "configcheck", "--config", config, "--users", users]);
	};
	const longest = 107 - "/.s.PGSQL.5432".length;
	expect((await check(longest)).code).toBe(0);
	const { code, stderr } = await check(longest + 1);
	expect(code).toBe(1);
	expect(stderr).toContain(`${config}:3: databases[0].host = "/xxx`);
	expect(stderr).toContain("accepted is a folder short enough for a socket path of 107 bytes");
});

test("SSLRequest and GSSENCRequest are answered N by socket, too", async () => {
	await using proxy = await start({ unix_socket_dir: folder });
	await using client = await RawClient.open({ unix: join(folder, `.s.PGSQL.${proxy.port}`) });
	client.send(f.sslRequest());
	expect(await client.nextByte()).toBe("N");
	client.send(f.gssencRequest());
	expect(await client.nextByte()).toBe("N");
	await client.login({ user: "pgdog", password: "pgdog", database: "pgdog" });
	expect(await one(client, BY_SOCKET)).toBe("t");
});

testWithTool("psql", "psql comes by the folder and the port, whoever may by unix_socket_mode", async (psql) => {
	for (const mode of [0o777, 0o700]) {
		await using proxy = await start({
			unix_socket_dir: folder,
			...(mode === 0o777 ? {} : { unix_socket_mode: "0700" }),
		});
		const path = join(folder, `.s.PGSQL.${proxy.port}`);
		expect(statSync(path).mode & 0o777).toBe(mode);
		const said = await runTool(
			[psql, "-XAtc", BY_SOCKET, "-h", folder, "-p", String(proxy.port), "-U", "pgdog", "pgdog"],
			{
				PGPASSWORD: "pgdog",
			},
		);
		expect(said).toEqual({ code: 0, stdout: "t\n", stderr: "" });
		await proxy.stop("SIGTERM");
		expect(existsSync(path)).toBe(false);
	}
});

test("a file that is no socket stays where it is, and the proxy does not start", async () => {
	const port = freePort();
	const path = join(folder, `.s.PGSQL.${port}`);
	writeFileSync(path, "somebody's");
	for (const [dir, reason] of [
		[folder, "what is there is no socket"],
		[join(folder, "none"), "No such file or directory"],
	]) {
		const general = { unix_socket_dir: dir, port, min_pool_size: 0 };
		const { code, log } = await failProxy(simpleConfig(cluster.primary, general));
		expect([code, log]).toEqual([1, expect.stringContaining(`cannot listen on ${dir}/.s.PGSQL.${port}: ${reason}`)]);
	}
	expect(statSync(path).size).toBe("somebody's".length);
	rmSync(path);
});
