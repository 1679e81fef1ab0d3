// More pools than the server has room for: who comes is served, whatever `min_pool_size` asks for, and the server is not pestered.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { stringify } from "smol-toml";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { admin, show } from "./support.ts";

setDefaultTimeout(60_000);

/** Three of these are for superusers. */
const ROOM = 20;
const DATABASES = 60;

let cluster: Cluster;
beforeAll(async () => {
	cluster = await startPostgres({ settings: { max_connections: ROOM } });
});
afterAll(() => cluster?.stop());

function start(general: Record<string, unknown>, databases = DATABASES): Promise<Proxy> {
	const { host, port } = cluster.primary;
	const names = Array.from({ length: databases }, (_, i) => `d${i}`);
	return startProxy({
		config: {
			general: { workers: 2, auth_type: "trust", log_connections: false, log_disconnections: false, ...general },
			admin: { name: "admin", user: "admin", password: "pgdog" },
			databases: names.map((name) => ({ name, host, port, database_name: "pgdog" })),
		},
		users: stringify({ users: [{ name: "pgdog_trust", all_databases: true, password: "trusted" }] }),
	});
}

const login = (proxy: Proxy, i: number) =>
	RawClient.connect({ port: proxy.port, user: "pgdog_trust", database: `d${i}` });

async function connections(): Promise<number> {
	const [row] = await cluster.primary.sql(
		"SELECT count(*)::int AS all FROM pg_stat_activity WHERE usename = 'pgdog_trust'",
	);
	return Number(row?.all);
}

const refusals = () =>
	readFileSync(cluster.primary.logFile, "utf8").match(/remaining connection slots|too many clients/g)?.length ?? 0;

test("with more pools than connections everybody who comes is served, and the server is asked no more often than it helps", async () => {
	const refusedBefore = refusals();
	await using proxy = await start({});
	await proxy.waitForLog(/the server has no room: for 1 s no connection is opened for min_pool_size alone/);
	await until(async () => (await connections()) < ROOM - 3, "room to be made");
	// Those who have waited longest have no connections yet.
	for (let i = DATABASES - 1; i >= DATABASES - 12; i--) {
		await using client = await login(proxy, i);
		expect((await client.query("SELECT current_user")).rows).toEqual([["pgdog_trust"]]);
	}
	// Each of 60 pools in each of two workers tried up to ten times a second.
	expect(refusals() - refusedBefore).toBeLessThan(60);
});

test("many who come at once to a full server are all served, in place of what is idle for nobody", async () => {
	await using proxy = await start({});
	await proxy.waitForLog(/the server has no room/);
	const answers = await Promise.all(
		Array.from({ length: 12 }, async (_, i) => {
			await using client = await login(proxy, DATABASES - 1 - i);
			return (await client.query("SELECT 1")).rows[0]?.[0];
		}),
	);
	expect(answers).toEqual(answers.map(() => "1"));
});

test("a pool in use has its min_pool_size before those that nobody has used have theirs", async () => {
	await using proxy = await start({ min_pool_size: 3, default_pool_size: 5 }, 20);
	await using client = await login(proxy, 19);
	await client.query("SELECT 1");
	await using asked = await admin(proxy);
	const sizes = async () => {
		const rows = await show(asked, "SHOW POOLS");
		const size = ({ sv_idle, sv_active }: Record<string, string | null>) => Number(sv_idle) + Number(sv_active);
		return new Map(rows.map((row) => [row.database, size(row)]));
	};
	await until(async () => ((await sizes()).get("d19") ?? 0) >= 3, "its three connections");
	await proxy.waitForLog(/the server has no room/);
	expect((await sizes()).get("d19")).toBeGreaterThanOrEqual(3);
});
