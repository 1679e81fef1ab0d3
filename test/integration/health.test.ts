// What an operator sees of servers' health, and does about it: the HTTP endpoint, checks, bans by hand, replication. Before the
// running executable with two workers, a primary and a replica.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Cluster, freePort, startPostgres } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";
import { PORT, placesOf, startRouted, TRIES } from "./routed.ts";
import { admin, connect, show } from "./support.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let proxy: Proxy;
const healthPort = freePort();

beforeAll(async () => {
	cluster = await startPostgres({ replicas: 1 });
	proxy = await startRouted(cluster, [], {
		workers: 2,
		healthcheck_port: healthPort,
		lsn_check_delay: 0,
		lsn_check_interval: 50,
		connect_timeout: 1_000,
	});
});
afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

const health = async (port = healthPort) => {
	const response = await fetch(`http://127.0.0.1:${port}/`);
	return `${response.status} ${await response.text()}`;
};

test("BAN keeps reads from a server in both workers, SHOW BANS and POOLS tell of it, UNBAN ends it", async () => {
	await using console = await admin(proxy);
	await using client = await connect(proxy);
	const places = () => placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}`));
	expect(await places()).toEqual(["primary", "replica"]);
	const [, replica] = await show(console, "SHOW POOLS");
	expect([replica!.role, replica!.banned, replica!.healthy]).toEqual(["replica", "f", "t"]);
	expect((await console.query(`BAN ${replica!.id}`)).tags).toEqual(["BAN"]);
	expect(await places()).toEqual(["primary"]);
	const [ban] = await show(console, "SHOW BANS");
	expect([ban!.id, ban!.port, ban!.ban_reason, ban!.ban_time_left]).toEqual([
		replica!.id!,
		String(cluster.replicas[0]!.port),
		"banned by admin",
		null,
	]);
	// No check ends what an operator has begun.
	await console.query("HEALTHCHECK");
	expect((await show(console, "SHOW POOLS"))[1]!.banned).toBe("t");
	expect((await console.query(`UNBAN ${replica!.id}`)).tags).toEqual(["UNBAN"]);
	expect(await show(console, "SHOW BANS")).toEqual([]);
	expect(await places()).toEqual(["primary", "replica"]);
});

test("BAN of all leaves reads to the primary", async () => {
	await using console = await admin(proxy);
	await using client = await connect(proxy);
	await console.query("BAN");
	expect(await show(console, "SHOW BANS")).toHaveLength(2);
	expect(await placesOf(cluster, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary"]);
	await console.query("UNBAN");
	expect(await show(console, "SHOW BANS")).toEqual([]);
});

test("RELOAD and RECONNECT lift bans", async () => {
	await using console = await admin(proxy);
	for (const order of ["RELOAD", "RECONNECT"]) {
		await console.query("BAN");
		expect(await show(console, "SHOW BANS")).toHaveLength(2);
		expect((await console.query(order)).errors).toEqual([]);
		expect(await show(console, "SHOW BANS")).toEqual([]);
	}
});

test("HEALTHCHECK finds out now what would be found out in an hour", async () => {
	const hourly = { idle_healthcheck_interval: 3_600_000, healthcheck_timeout: 300, connect_timeout: 300 };
	await using mine = await startRouted(cluster, [], { workers: 2, ...hourly });
	await using console = await admin(mine);
	const replica = cluster.replicas[0]!;
	replica.pause();
	try {
		expect((await console.query("HEALTHCHECK")).tags).toEqual(["HEALTHCHECK"]);
		await until(async () => {
			const bans = await show(console, "SHOW BANS");
			return bans.length === 1 && bans[0]!.port === String(replica.port);
		}, "the ban");
	} finally {
		replica.resume();
	}
	await until(async () => (await show(console, "SHOW BANS")).length === 0, "the end of the ban");
});

test("SHOW REPLICATION says who is in recovery and how far each is", async () => {
	await using console = await admin(proxy);
	await cluster.primary.sql("CREATE TABLE IF NOT EXISTS moved AS SELECT generate_series(1, 1000)");
	await cluster.replicated();
	await until(async () => {
		const rows = await show(console, "SHOW REPLICATION");
		return rows.every(({ pg_lsn }) => pg_lsn === rows[0]!.pg_lsn);
	}, "the replica to have caught up");
	const [primary, replica] = await show(console, "SHOW REPLICATION");
	expect([primary!.role, primary!.pg_is_in_recovery, replica!.role, replica!.pg_is_in_recovery]).toEqual([
		"primary",
		"f",
		"replica",
		"t",
	]);
	expect(replica!.pg_lsn).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
	expect([Number(replica!.replica_lag), Number(replica!.lsn_age) < 5_000]).toEqual([0, true]);
});

test("the endpoint says up while any server is well, down when none is, and up again", async () => {
	const port = freePort();
	await using mine = await startPostgres({ replicas: 1 });
	await using short = await startRouted(mine, [], {
		healthcheck_port: port,
		workers: 2,
		connect_timeout: 500,
		idle_healthcheck_interval: 200,
		idle_healthcheck_delay: 0,
	});
	expect(await health(port)).toBe("200 up");
	await mine.replicas[0]!.kill();
	await until(() => short.log.includes("read queries banned"), "the ban");
	expect(await health(port)).toBe("200 up");
	await mine.primary.kill();
	await until(async () => (await health(port)) === "502 down", "down");
	await mine.primary.start();
	await until(async () => (await health(port)) === "200 up", "up");
});

test("while it shuts down the endpoint says down, so that new clients go elsewhere", async () => {
	const port = freePort();
	await using mine = await startRouted(cluster, [], { healthcheck_port: port, shutdown_timeout: 60_000 });
	await using client = await connect(mine);
	await client.query("BEGIN; SELECT 1");
	expect(await health(port)).toBe("200 up");
	mine.signal("SIGINT");
	await until(async () => (await health(port)) === "502 down", "down");
	expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
	expect(await mine.exited).toBe(0);
});

test("with require_healthcheck_on_discovery nothing is read from a server before it has passed a check", async () => {
	await using mine = await startPostgres({ replicas: 1 });
	await mine.replicas[0]!.pause();
	await using careful = await startRouted(mine, [], {
		require_healthcheck_on_discovery: true,
		healthcheck_timeout: 300,
		connect_timeout: 60_000,
		min_pool_size: 0,
	});
	await using client = await connect(careful);
	await using console = await admin(careful);
	expect((await show(console, "SHOW BANS")).map(({ port }) => port)).toEqual([String(mine.replicas[0]!.port)]);
	expect(await placesOf(mine, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary"]);
	mine.replicas[0]!.resume();
	await until(async () => (await show(console, "SHOW BANS")).length === 0, "the first check to pass");
	expect(await placesOf(mine, TRIES, () => client.query(`SELECT ${PORT}`))).toEqual(["primary", "replica"]);
});

test("a port that is taken stops the start with a sentence", async () => {
	const { code, log } = await startRouted(cluster, [], { healthcheck_port: healthPort }).then(
		async (started) => {
			await started.stop("SIGKILL");
			return { code: 0, log: started.log };
		},
		(error: Error) => ({ code: 1, log: error.message }),
	);
	expect(code).toBe(1);
	expect(log).toContain(`cannot listen on 0.0.0.0:${healthPort} (healthcheck_port): address already in use`);
});
