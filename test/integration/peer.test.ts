// Method peer of [[hba]]: whoever comes by the Unix socket is who the kernel says, on the whole proxy and against real PostgreSQL. Beside
// the rest of the list it is in hba.test.ts and hba-postgres.test.ts.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import { type Proxy, type ProxyUser, proxyCommand, startProxy } from "../support/proxy.ts";
import { type LoginError, RawClient } from "../support/raw-client.ts";
import { runTool, testWithTool } from "../support/tools.ts";
import { connect, one, show } from "./support.ts";

setDefaultTimeout(60_000);

const SELF = Bun.spawnSync(["id", "-un"]).stdout.toString().trim();
const PEER = { type: "local", database: "all", user: "all", method: "peer" };
const SERVER = { server_user: "pgdog", server_password: "pgdog" };
const USERS: ProxyUser[] = [SELF, "daemon", "ann"].map((name) => ({
	name,
	database: "pgdog",
	password: "pw",
	...SERVER,
}));

const folder = mkdtempSync(join(tmpdir(), "pgdog-peer-"));
// Others than who runs the test come by the socket, too.
chmodSync(folder, 0o755);
let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres({ hba: [`host all "${SELF}" 127.0.0.1/32 md5`] });
});
afterAll(async () => {
	await cluster?.stop();
	rmSync(folder, { recursive: true, force: true });
});

function configuration(hba: object[] = [PEER], general: Record<string, unknown> = {}) {
	const { host, port } = cluster.primary;
	return {
		general: { unix_socket_dir: folder, failed_login_delay: 0, ...general },
		admin: { user: SELF, password: "of the admin" },
		databases: [{ name: "pgdog", host, port }],
		hba: [...hba, { type: "host", database: "all", user: "all", address: "all", method: "scram-sha-256" }],
	};
}

function start(general: Record<string, unknown> = {}, users = USERS): Promise<Proxy> {
	return startProxy({ config: configuration([PEER], general), users });
}

const socketOf = ({ port }: Proxy) => join(folder, `.s.PGSQL.${port}`);

/** The first Authentication request, and what came of the log-in. */
async function logIn(proxy: Proxy, user: string, database = "pgdog") {
	await using client = await RawClient.open({ unix: socketOf(proxy) });
	const said = await client.login({ user, database, password: "pw" }).then(
		() => "in",
		({ fields }: LoginError) => `${fields.C} ${fields.M}`,
	);
	return { asked: client.received.find(({ code }) => code === "R")?.body.readInt32BE(0) ?? null, said };
}

const refused = (user: string) => ({ asked: null, said: `28000 Peer authentication failed for user "${user}"` });

test.each([0, 1, 2])(
	"with %p workers: the system's user gets in as itself, is asked for nothing, and is nobody else",
	async (workers) => {
		await using proxy = await start({ workers });
		for (let i = 0; i < 3; i++) {
			await using client = await RawClient.connect({ unix: socketOf(proxy), user: SELF, database: "pgdog" });
			expect(await one(client, "SELECT current_user")).toBe("pgdog");
			expect(client.received.find(({ code }) => code === "R")?.body.readInt32BE(0)).toBe(0);
		}
		// One that there is, one that there is not, and the admin's own name for other databases.
		for (const user of ["ann", "nobody", `${SELF} `]) expect(await logIn(proxy, user)).toEqual(refused(user));
		expect((await logIn(proxy, SELF, "elsewhere")).said).toBe(
			`28000 no user "${SELF}" is configured for database "elsewhere"`,
		);
		await proxy.waitForLog(new RegExp(`client "${SELF}" connected to database "pgdog" \\[unix, auth: peer\\]`));
		await proxy.waitForLog(
			new RegExp(
				`user "ann" .* auth error: it is the system's user "${SELF}" \\(.*pgdog\\.toml:\\d+: hba\\[0\\]\\) \\[unix\\]`,
			),
		);
		// By the port the same user is asked for its password.
		await using client = await connect(proxy, { user: SELF, password: "pw" });
		expect(client.received.find(({ code }) => code === "R")?.body.readInt32BE(0)).toBe(10);
	},
);

testWithTool("psql", "psql needs no password, as each user of the system that there is for it", async (psql) => {
	await using proxy = await start();
	const ask = async (as: string[], user: string) => {
		const target = `host=${folder} port=${proxy.port} user=${user} dbname=pgdog`;
		const { stdout, stderr } = await runTool([...as, psql, "-XAtqwc", "SELECT 'in'", target], {}, 60_000, "/");
		return stdout.trim() || (stderr.split("\n")[0] ?? "").replace(/^.*failed: (FATAL: +)?/, "");
	};
	expect(await ask([], SELF)).toBe("in");
	expect(await ask([], "daemon")).toBe('Peer authentication failed for user "daemon"');
	if (process.getuid!() !== 0) return;
	const daemon = ["setpriv", "--reuid=daemon", "--clear-groups", "--"];
	expect(await ask(daemon, "daemon")).toBe("in");
	expect(await ask(daemon, SELF)).toBe(`Peer authentication failed for user "${SELF}"`);
	// Who has no user of its own in a container, or with PrivateUsers=yes, has this one's number.
	const overflown = ["setpriv", "--reuid=65534", "--clear-groups", "--"];
	expect(await ask(overflown, "nobody")).toBe('Peer authentication failed for user "nobody"');
	await proxy.waitForLog(/user "nobody" .* auth error: nobody knows the system's user 65534 /);
});

test("the admin database is open to the system's user of the admin's name, and to no other", async () => {
	await using proxy = await start();
	await using console = await RawClient.connect({ unix: socketOf(proxy), user: SELF, database: "admin" });
	expect((await show(console, "SHOW POOLS")).length).toBeGreaterThan(0);
	expect(await logIn(proxy, "ann", "admin")).toEqual(refused("ann"));
	await using other = await startProxy({
		config: { ...configuration(), admin: { password: "pw" } },
		users: USERS,
	});
	// Not even with its password: the first entry that fits decides.
	expect(await logIn(other, "admin", "admin")).toEqual(refused("admin"));
});

test("configcheck says whom the entry lets in", async () => {
	await using proxy = await start();
	const files = ["--config", proxy.configPath, "--users", proxy.usersPath];
	const check = async (login: string) => {
		const { code, stdout } = await runTool([...proxyCommand(), ...files, "configcheck", "--login", login]);
		return `${code} ${stdout.trim()}`;
	};
	expect(await check("user=ann,database=pgdog,address=local")).toMatch(
		/^0 .*pgdog\.toml:\d+: hba\[0\]: local all all peer \(for the system's user "ann" alone\)$/,
	);
});

test("a reload that asks for a password leaves who has come by peer, and asks who comes then", async () => {
	await using proxy = await start();
	await using client = await RawClient.connect({ unix: socketOf(proxy), user: SELF, database: "pgdog" });
	await using console = await RawClient.connect({ unix: socketOf(proxy), user: SELF, database: "admin" });
	proxy.writeConfig(configuration([{ ...PEER, method: "scram-sha-256" }]));
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await logIn(proxy, SELF)).toEqual({ asked: 10, said: "in" });
	proxy.writeConfig(configuration([{ ...PEER, type: "host", address: "all" }]));
	const { errors } = await console.query("RELOAD");
	expect(errors[0]?.D).toContain('hba[0].method = "peer": accepted is peer with type = "local" only');
	expect(await one(client, "SELECT 1")).toBe("1");
	expect((await show(console, "SHOW POOLS")).length).toBeGreaterThan(0);
});

test.skipIf(process.platform !== "linux")(
	"a client that has come by peer moves to the process that takes over, and others come there",
	async () => {
		const general = { port: freePort(), host: "127.0.0.1", takeover_socket: join(folder, "takeover"), workers: 2 };
		await using old = await start(general);
		await using client = await RawClient.connect({ unix: socketOf(old), user: SELF, database: "pgdog" });
		await client.query("SET extra_float_digits = 0");
		await using next = await startProxy({ config: configuration([PEER], general), users: USERS, args: ["--takeover"] });
		expect(await old.exited).toBe(0);
		expect(await one(client, "SHOW extra_float_digits")).toBe("0");
		expect(await logIn(next, SELF)).toEqual({ asked: 0, said: "in" });
		expect(await logIn(next, "ann")).toEqual(refused("ann"));
	},
);

describe("a user whom the configuration does not have", () => {
	const asks = {
		auth_query_user: "postgres",
		auth_query_password: "postgres",
		connect_timeout: 2_000,
		checkout_timeout: 2_000,
	};
	const role = `"${SELF}"`;
	const set = (secret: string) => cluster.primary.sql(`ALTER ROLE ${role} PASSWORD '${secret}'`);
	beforeAll(async () => {
		await cluster.primary.sql(`CREATE ROLE ${role} LOGIN`);
	});

	test("is asked of auth_query, once it is known to be that user, and its MD5 hash logs in to the server", async () => {
		await cluster.primary.sql(
			`SET password_encryption = md5; ALTER ROLE ${role} PASSWORD 'pw'; RESET password_encryption`,
		);
		await using proxy = await start(asks, []);
		expect(await logIn(proxy, SELF)).toEqual({ asked: 0, said: "in" });
		await using client = await RawClient.connect({ unix: socketOf(proxy), user: SELF, database: "pgdog" });
		expect(await one(client, "SELECT current_user")).toBe(SELF);
		expect(await logIn(proxy, "pgdog")).toEqual(refused("pgdog"));
	});

	test("with a SCRAM verifier waits for one who proves to have its keys, and is told so", async () => {
		await set("pw");
		await using proxy = await start(asks, []);
		const error: LoginError = await RawClient.connect({ unix: socketOf(proxy), user: SELF, database: "pgdog" }).then(
			() => Promise.reject(new Error("let in")),
			(refusal) => refusal,
		);
		expect([error.fields?.C, error.fields?.D]).toEqual([
			"58000",
			expect.stringContaining("no password supplied: no client has logged in by SCRAM yet"),
		]);
		await using other = await connect(proxy, { user: SELF, password: "pw" });
		expect(await one(other, "SELECT current_user")).toBe(SELF);
		expect(await logIn(proxy, SELF)).toEqual({ asked: 0, said: "in" });
	});

	test("or has for any database gets one's pools by its name", async () => {
		await using proxy = await startProxy({
			config: { ...configuration(), databases: [{ name: "*", host: cluster.primary.host, port: cluster.port }] },
			users: [{ name: SELF, database: "*", password: "pw", ...SERVER }],
		});
		expect(await logIn(proxy, SELF)).toEqual({ asked: 0, said: "in" });
		expect(await logIn(proxy, SELF, "none")).toEqual({ asked: null, said: '3D000 database "none" does not exist' });
		expect(await logIn(proxy, "pgdog")).toEqual(refused("pgdog"));
	});

	test("is not asked for a password that a server would judge", async () => {
		await using proxy = await start({ passthrough_auth: "enabled_plain" }, []);
		const told = `28000 no user "${SELF}" is configured for database "pgdog"`;
		expect(await logIn(proxy, SELF)).toEqual({ asked: null, said: told });
		expect(await logIn(proxy, "pgdog")).toEqual(refused("pgdog"));
	});
});
