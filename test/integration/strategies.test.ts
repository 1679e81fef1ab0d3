// One primary and two replicas: who gets the reads under each read_write_split and each load_balancing_strategy, and what
// `read_only` users and databases get. The distributions themselves are proved in test/pool.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { frontend } from "../support/wire-frames.ts";
import { errorOf, PORT } from "./routed.ts";
import { connect, one } from "./support.ts";

let cluster: Cluster;

beforeAll(async () => {
	cluster = await startPostgres({ replicas: 2 });
	await cluster.primary.sql("CREATE TABLE t (id int)", { user: "pgdog" });
	await cluster.replicated();
}, 60_000);

afterAll(async () => {
	await cluster?.stop();
});

const NAMES = ["primary", "replica1", "replica2"] as const;
type Name = (typeof NAMES)[number];

interface Setting {
	general?: Record<string, unknown>;
	/** Beside host, port and role; by server. */
	databases?: Partial<Record<Name, Record<string, unknown>>> | undefined;
	user?: Record<string, unknown>;
	servers?: Cluster;
}

function start({ general = {}, databases = {}, user = {}, servers = cluster }: Setting): Promise<Proxy> {
	return startProxy({
		config: {
			general: { workers: 1, min_pool_size: 0, client_connection_recovery: "recover", ...general },
			databases: [servers.primary, ...servers.replicas].map(({ host, port }, i) => {
				const name = NAMES[i]!;
				return { name: "pgdog", host, port, role: i === 0 ? "primary" : "replica", ...databases[name] };
			}),
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog", ...user }],
	});
}

/** How often each server ran a statement, in the order in which they did. */
async function shares(client: RawClient, count: number, servers = cluster): Promise<Record<Name, number>> {
	const found = { primary: 0, replica1: 0, replica2: 0 };
	for (let i = 0; i < count; i++) found[placeOf(await one(client, `SELECT ${PORT}`), servers)]++;
	return found;
}

function placeOf(port: string | null, servers = cluster): Name {
	const i = [servers.primary, ...servers.replicas].findIndex((server) => String(server.port) === port);
	return NAMES[i]!;
}

/** Whoever has served at all. */
function served(found: Record<Name, number>): Name[] {
	return NAMES.filter((name) => found[name] > 0);
}

/** With three servers and chance between them all have been met, but for one case in 10^9. */
const MANY = 60;

describe("read_write_split", () => {
	const splits: [string, Name[]][] = [
		["include_primary", ["primary", "replica1", "replica2"]],
		["exclude_primary", ["replica1", "replica2"]],
		["include_primary_if_replica_banned", ["replica1", "replica2"]],
		["prefer_primary", ["primary"]],
	];
	test.each(splits)("%s", async (read_write_split, wanted) => {
		await using proxy = await start({ general: { read_write_split } });
		await using client = await connect(proxy);
		expect(served(await shares(client, MANY))).toEqual(wanted);
		for (let i = 0; i < 6; i++) expect(errorOf(await client.query("DELETE FROM t"))).toBeNull();
		await client.query("SET pgdog.role = 'replica'");
		expect(served(await shares(client, MANY))).toEqual(["replica1", "replica2"]);
		await client.query("SET pgdog.role = 'primary'");
		expect(served(await shares(client, 9))).toEqual(["primary"]);
	});

	test("a replica goes: the primary helps where it is asked to, and the others go on", async () => {
		await using mine = await startPostgres({ replicas: 2 });
		const quick = { connect_timeout: 500, connect_attempts: 1, ban_timeout: 60_000, checkout_timeout: 5_000 };
		const run = async (read_write_split: string) => {
			const proxy = await start({ general: { ...quick, read_write_split }, servers: mine });
			return { proxy, client: await connect(proxy) };
		};
		const helping = await run("include_primary_if_replica_banned");
		const excluding = await run("exclude_primary");
		await using _ = helping.proxy;
		await using __ = excluding.proxy;
		expect(served(await shares(helping.client, MANY, mine))).toEqual(["replica1", "replica2"]);
		await mine.replicas[1]!.stop("immediate");
		// The first that meets the stopped one may get the error that ends its connection.
		const settle = async ({ proxy }: typeof helping, wanted: Name[]) => {
			await until(async () => {
				try {
					await using client = await connect(proxy);
					return String(served(await shares(client, MANY, mine))) === String(wanted);
				} catch {
					return false;
				}
			}, `${wanted} to serve`);
		};
		await settle(helping, ["primary", "replica1"]);
		await settle(excluding, ["replica1"]);
		await mine.replicas[0]!.stop("immediate");
		await settle(helping, ["primary"]);
		await until(async () => {
			await using client = await connect(excluding.proxy);
			return errorOf(await client.query("SELECT 1"))?.[0] === "58000";
		}, "reads to be refused");
		await using client = await connect(excluding.proxy);
		expect((await client.query("SELECT 1")).errors[0]).toMatchObject({ C: "58000", M: "all replicas down" });
		expect((await client.query("SELECT 1")).errors[0]?.H).toContain("exclude_primary");
		expect(errorOf(await client.query("CREATE TABLE written ()"))).toBeNull();
	}, 60_000);
});

describe("load_balancing_strategy", () => {
	test("random: about a third each", async () => {
		await using proxy = await start({ general: { load_balancing_strategy: "random" } });
		await using client = await connect(proxy);
		const found = await shares(client, 600);
		// Five standard deviations of a binomial distribution.
		for (const name of NAMES) expect(Math.abs(found[name] - 200)).toBeLessThan(58);
	});

	test("round_robin: in turn, also between clients", async () => {
		await using proxy = await start({ general: { load_balancing_strategy: "round_robin" } });
		await using client = await connect(proxy);
		await using other = await connect(proxy);
		expect(await shares(client, 30)).toEqual({ primary: 10, replica1: 10, replica2: 10 });
		const turn: Name[] = [];
		for (let i = 0; i < 6; i++) turn.push(placeOf(await one(i % 2 === 0 ? client : other, `SELECT ${PORT}`)));
		expect(turn.slice(3)).toEqual(turn.slice(0, 3));
		expect(new Set(turn).size).toBe(3);
	});

	test("weighted_round_robin: as lb_weight says", async () => {
		await using proxy = await start({
			general: { load_balancing_strategy: "weighted_round_robin" },
			databases: { primary: { lb_weight: 1 }, replica1: { lb_weight: 2 }, replica2: { lb_weight: 7 } },
		});
		await using client = await connect(proxy);
		expect(await shares(client, 100)).toEqual({ primary: 10, replica1: 20, replica2: 70 });
	});

	test("least_active_connections: who is busy gets no more", async () => {
		await using proxy = await start({ general: { load_balancing_strategy: "least_active_connections" } });
		const busy: RawClient[] = [];
		const where = new Set<Name>();
		for (let i = 0; i < 2; i++) {
			const client = await connect(proxy);
			busy.push(client);
			await client.query("BEGIN READ ONLY");
			where.add(placeOf(await one(client, `SELECT ${PORT}`)));
		}
		expect(where.size).toBe(2);
		await using client = await connect(proxy);
		const rest = NAMES.find((name) => !where.has(name))!;
		expect(served(await shares(client, 20))).toEqual([rest]);
		for (const one of busy) one.close();
	});
});

describe("read_only", () => {
	const modes: [string, Setting][] = [
		["a user", { user: { read_only: true } }],
		[
			"a database",
			{ databases: Object.fromEntries(NAMES.map((name) => [name, { read_only: true }])) as Setting["databases"] },
		],
	];
	test.each(modes)(
		"%s: reads and plain transactions go to the replicas, writes are PostgreSQL's to refuse",
		async (_, setting) => {
			await using proxy = await start(setting);
			await using client = await connect(proxy);
			expect(served(await shares(client, MANY))).toEqual(["replica1", "replica2"]);
			for (let i = 0; i < 12; i++) {
				await client.query("BEGIN");
				expect(served(await shares(client, 1))).not.toEqual(["primary"]);
				await client.query("COMMIT");
			}
			expect(errorOf(await client.query("INSERT INTO t VALUES (1)"))?.[0]).toBe("25006");
			await client.query("BEGIN");
			expect(errorOf(await client.query("INSERT INTO t VALUES (1)"))?.[0]).toBe("25006");
			await client.query("ROLLBACK");
			expect(errorOf(await client.query("SHOW work_mem"))).toBeNull();
		},
	);
});

test("extended protocol: one named statement is balanced by its Binds", async () => {
	await using proxy = await start({ general: { load_balancing_strategy: "round_robin" } });
	await using client = await connect(proxy);
	client.send(frontend.parse(`SELECT ${PORT}, $1::int`, "s"), frontend.sync());
	await client.result();
	const found: Name[] = [];
	for (let i = 0; i < 9; i++) {
		client.send(frontend.bind({ statement: "s", values: [String(i)] }), frontend.execute(), frontend.sync());
		const { rows } = await client.result();
		expect(rows[0]?.[1]).toBe(String(i));
		found.push(placeOf(rows[0]?.[0] ?? null));
	}
	for (const name of NAMES) expect(found.filter((one) => one === name)).toHaveLength(3);
});
