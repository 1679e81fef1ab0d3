// Log-ins that are too many at a time, or fail too often: whoever else comes is let in, and knows nothing of it.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, simpleConfig, startProxy, withAdmin } from "../support/proxy.ts";
import { LoginError, RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { frontend as f } from "../support/wire-frames.ts";
import { admin, connect, one, untilRunning } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres();
});
afterAll(() => cluster?.stop());

function files(general: Record<string, unknown>) {
	const { config, users } = simpleConfig(cluster.primary, { workers: 2, min_pool_size: 0, ...general });
	return withAdmin({ config, users });
}

function start(general: Record<string, unknown>): Promise<Proxy> {
	return startProxy(files(general));
}

/** SQLSTATE and message of why not; "in" when it is let in. */
async function knock(proxy: Proxy, options: RawClientOptions = {}): Promise<string> {
	try {
		await using client = await connect(proxy, options);
		expect(await one(client, "SELECT 1")).toBe("1");
		return "in";
	} catch (error) {
		if (error instanceof LoginError) return `${error.fields.C} ${error.fields.M}`;
		throw error;
	}
}

const BARRED = '28000 too many failed log-ins from address "127.0.0.1"';

test("max_client_logins: those beyond are told; a CancelRequest is served, an admin let in, and who is in stays", async () => {
	await using proxy = await start({ max_client_logins: 4 });
	await using before = await connect(proxy);
	const mute = await Promise.all(Array.from({ length: 4 }, () => RawClient.open({ port: proxy.port })));
	// Whose connection the kernel alone has accepted is not counted yet.
	for (const client of mute) {
		client.send(f.sslRequest());
		expect(await client.nextByte()).toBe("N");
	}
	expect(await knock(proxy)).toBe("53300 sorry, too many clients already");
	await using console = await admin(proxy);
	expect((await console.query("SHOW VERSION")).errors).toEqual([]);
	before.send(f.query("SELECT pg_sleep(30)"));
	await untilRunning(cluster, "pg_sleep");
	await using canceller = await RawClient.open({ port: proxy.port });
	canceller.send(f.cancelRequest(before.backendPid, before.backendKey));
	expect((await before.until("Z")).map(({ code }) => code)).toContain("E");
	await proxy.waitForLog(/WARNING .*too many clients/);
	const warnings = proxy.lines.filter((line) => /WARNING .*too many clients/.test(line));
	expect(warnings).toHaveLength(1);
	expect(warnings[0]).toContain("4 of 4 (max_client_logins), 1 clients in all");
	// One that leaves makes room, and so do all when their time is over.
	mute[0]!.close();
	await until(async () => (await knock(proxy)) === "in", "room for one");
	proxy.writeConfig(files({ max_client_logins: 4, client_login_timeout: 500 }).config);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	await Promise.all(mute.map((client) => client.closed));
	proxy.writeConfig(files({ max_client_logins: 4 }).config);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await Promise.all([knock(proxy), knock(proxy), knock(proxy)])).toEqual(["in", "in", "in"]);
	// A thousand at once that do nothing: told or cut off, and then it is as before.
	const many = await Promise.all(Array.from({ length: 1_000 }, () => RawClient.open({ port: proxy.port })));
	for (const client of many) client.close();
	await until(async () => (await knock(proxy)) === "in", "room after them");
});

test("who fails to log in is told so later, and may go before", async () => {
	await using proxy = await start({ failed_login_delay: 400 });
	const began = performance.now();
	expect(await knock(proxy, { password: "wrong" })).toStartWith("28000 password for user");
	expect(performance.now() - began).toBeGreaterThan(390);
	expect(await knock(proxy)).toBe("in");
	expect(performance.now() - began).toBeLessThan(5_000);
	// What it sends meanwhile is nothing to anybody.
	await using hasty = await RawClient.open({ port: proxy.port });
	hasty.send(f.startupMessage({ user: "nobody", database: "nobody" }), f.passwordMessage("x"), f.query("SELECT 1"));
	const messages = await hasty.closed;
	expect(messages.at(-1)!.code).toBe("E");
	await using gone = await RawClient.open({ port: proxy.port });
	gone.send(f.startupMessage({ user: "nobody", database: "nobody" }), f.passwordMessage("x"));
	gone.close();
	await Bun.sleep(600);
	expect(await knock(proxy)).toBe("in");
	expect(proxy.log).not.toContain("internal error");
});

test("max_failed_logins: an address that guesses is refused for a while, others are not, and who is in stays", async () => {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-"));
	const limits = { max_failed_logins: 5, failed_login_pause: 3_000, failed_login_delay: 0 };
	await using proxy = await start({ ...limits, unix_socket_dir: folder });
	await using before = await connect(proxy);
	const unix = { unix: join(folder, `.s.PGSQL.${proxy.port}`) };
	const guess = (options = {}) => knock(proxy, { password: "wrong", ...options });
	// One that succeeds forgets those before.
	for (let i = 0; i < 4; i++) expect(await guess()).toStartWith("28000 password for user");
	expect(await knock(proxy)).toBe("in");
	for (let i = 0; i < 5; i++) expect(await guess({ user: `user${i}` })).toStartWith("28000 password for user");
	expect([await guess(), await knock(proxy)]).toEqual([BARRED, BARRED]);
	await rejects(admin(proxy), "too many failed log-ins");
	expect(await one(before, "SELECT 'still here'")).toBe("still here");
	for (let i = 0; i < 7; i++) expect(await guess(unix)).toStartWith("28000 password for user");
	expect(await knock(proxy, unix)).toBe("in");
	await proxy.waitForLog(/WARNING too many failed log-ins/);
	const warnings = proxy.lines.filter((line) => /WARNING too many failed log-ins/.test(line));
	expect(warnings).toHaveLength(1);
	expect(warnings[0]).toContain("5 of 5 (max_failed_logins), for 3 s from the last");
	await until(async () => (await knock(proxy)) === "in", "the pause to be over");
	// A reload that lifts the limit lifts it at once.
	for (let i = 0; i < 5; i++) await guess();
	expect(await knock(proxy)).toBe(BARRED);
	await using console = await admin(proxy, "pgdog").catch(() =>
		connect(proxy, { ...unix, user: "admin", database: "admin" }),
	);
	proxy.writeConfig(files({ ...limits, max_failed_logins: 100, unix_socket_dir: folder }).config);
	expect((await console.query("RELOAD")).errors).toEqual([]);
	expect(await knock(proxy)).toBe("in");
	rmSync(folder, { recursive: true });
});

test("brute force over many connections at once is over after as many guesses as are allowed, in all workers", async () => {
	await using proxy = await start({ max_failed_logins: 20, failed_login_delay: 10, log_connections: false });
	const outcomes: string[] = [];
	for (let round = 0; round < 10; round++)
		outcomes.push(
			...(await Promise.all(Array.from({ length: 20 }, () => knock(proxy, { password: `guess${round}` })))),
		);
	const guesses = outcomes.filter((outcome) => outcome.startsWith("28000 password"));
	// Those under way at once are not known of each other yet.
	expect(guesses.length).toBeLessThanOrEqual(40);
	expect(outcomes.filter((outcome) => outcome === BARRED)).toHaveLength(200 - guesses.length);
});
