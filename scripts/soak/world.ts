// The world of the fault run: two PostgreSQL clusters, in front of them a proxy without plugins and one with the examples, and the
// doors through which clients come: transaction mode, session mode, two shards, each with primaries and replicas.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { entry } from "../../test/faults/fleet.ts";
import { type Cluster, type PostgresServer, startPostgres } from "../../test/support/postgres.ts";
import { type Proxy, startProxy } from "../../test/support/proxy.ts";
import { RawClient } from "../../test/support/raw-client.ts";

export interface Door {
	readonly name: string;
	readonly proxy: Proxy;
	readonly database: string;
	readonly session: boolean;
	readonly shards: number;
	/** Plugins are asked here. */
	readonly plugins: boolean;
}

/** A client that has heard nothing for so long is hung, ms: more than all timeouts of the proxy and all faults together. */
const PATIENCE = 45_000;

const SCHEMA = `
	CREATE TABLE kept (who text, n bigint, customer_id bigint NOT NULL, PRIMARY KEY (who, n));
	CREATE TABLE shifting (who text, a int);
	CREATE INDEX ON shifting (who);
	CREATE TABLE guarded (tenant_id int, who text);`;

const POOLER = { main: "transaction", calm: "session", wide: "transaction" } as const;

export class World implements AsyncDisposable {
	readonly clusters: Cluster[];
	readonly proxies: Proxy[] = [];
	readonly doors: Door[] = [];
	readonly #configs: { general: Record<string, unknown> }[] = [];
	/** Of each cluster. */
	primaries: PostgresServer[];
	/** Was primary before another was promoted; runs, and must get no write. */
	outdated: PostgresServer | undefined;

	private constructor(clusters: Cluster[]) {
		this.clusters = clusters;
		this.primaries = clusters.map(({ primary }) => primary);
	}

	/** @param plugins files of the example plugins; none: no second proxy */
	static async start(plugins: string[]): Promise<World> {
		// A write is confirmed when a replica has it too: then nothing may be lost when one is promoted.
		const settings = { synchronous_standby_names: "ANY 1 (replica1, replica2)" };
		const first = await startPostgres({ replicas: 2, databases: ["shard0"], settings });
		const second = await startPostgres({ replicas: 1, databases: ["shard1"] });
		const world = new World([first, second]);
		try {
			for (const [server, database] of world.databases) {
				await server.sql(SCHEMA, { user: "pgdog", database });
			}
			for (const cluster of world.clusters) await cluster.replicated();
			await world.#open("plain", []);
			if (plugins.length > 0) await world.#open("plugins", plugins);
			return world;
		} catch (error) {
			await world[Symbol.asyncDispose]();
			throw error;
		}
	}

	get servers(): PostgresServer[] {
		const all = this.clusters.flatMap(({ primary, replicas }) => [primary, ...replicas]);
		return all.filter((server) => server !== this.outdated);
	}

	get replicas(): PostgresServer[] {
		return this.servers.filter((server) => !this.primaries.includes(server));
	}

	/** The first cluster's primary is gone; the replica that is ahead takes its place, and the old one comes back behind its back. */
	async failOver(): Promise<void> {
		const { primary: old, replicas } = this.clusters[0]!;
		await old.kill();
		const received = async (server: PostgresServer) => {
			const [row] = await server.sql("SELECT (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::float8 AS at");
			return Number(row?.at);
		};
		const [one, other] = replicas as [PostgresServer, PostgresServer];
		const [ahead, behind] = (await received(one)) >= (await received(other)) ? [one, other] : [other, one];
		await ahead.promote();
		behind.follow(ahead);
		this.primaries = [ahead, ...this.primaries.slice(1)];
		this.outdated = old;
		await old.start();
	}

	/** Where rows are, with the number of the shard. */
	get databases(): [PostgresServer, string, number | null][] {
		const [first, second] = this.primaries as [PostgresServer, PostgresServer];
		return [
			[first, "pgdog", null],
			[first, "shard0", 0],
			[second, "shard1", 1],
		];
	}

	async #open(name: string, plugins: string[]): Promise<void> {
		const [first, second] = this.clusters as [Cluster, Cluster];
		const all = (cluster: Cluster, database: string, more: Record<string, unknown>) =>
			[cluster.primary, ...cluster.replicas].map((server) => ({ ...entry(server, "auto", database), ...more }));
		const config = {
			general: {
				workers: 2,
				default_pool_size: 6,
				connect_timeout: 1_000,
				checkout_timeout: 10_000,
				healthcheck_timeout: 1_000,
				query_timeout: 15_000,
				rollback_timeout: 1_000,
				lsn_check_interval: 300,
				lsn_check_timeout: 1_000,
				read_after_write: "lsn",
				log_connections: false,
				log_disconnections: false,
			},
			databases: [
				...all(first, "main", {}),
				// Session mode has one server for each client, as long as it stays.
				...all(first, "calm", { pooler_mode: POOLER.calm, pool_size: 16 }),
				...all(first, "wide", { shard: 0, database_name: "shard0" }),
				...all(second, "wide", { shard: 1, database_name: "shard1" }),
			],
			plugins: plugins.map((plugin) => ({ name: plugin, required: true })),
			admin: { password: "secret" },
		};
		const names = Object.keys(POOLER);
		const tables = join(first.folder, "primary-only-tables");
		writeFileSync(tables, "shifting\n");
		const proxy = await startProxy({
			config,
			users: names.map((database) => ({ name: "pgdog", database, password: "pgdog" })),
			env: { PRIMARY_ONLY_TABLES: tables, TENANT_TABLES: "guarded" },
		});
		this.proxies.push(proxy);
		this.#configs.push(config);
		for (const database of names) {
			this.doors.push({
				name: `${name}/${database}`,
				proxy,
				database,
				session: database === "calm",
				shards: database === "wide" ? 2 : 1,
				plugins: plugins.length > 0,
			});
		}
	}

	enter(door: Door, parameters: Record<string, string> = {}): Promise<RawClient> {
		const { port } = door.proxy;
		return RawClient.connect({
			port,
			user: "pgdog",
			password: "pgdog",
			database: door.database,
			parameters,
			timeout: PATIENCE,
		});
	}

	/** One command of the admin database, on a connection of its own. */
	async command(proxy: Proxy, text: string): Promise<(string | null)[][]> {
		await using admin = await RawClient.connect({
			...{ port: proxy.port, user: "admin", password: "secret", database: "admin" },
			timeout: PATIENCE,
		});
		return (await admin.query(text)).rows;
	}

	/** Writes the configuration with another pool size; RELOAD reads it. */
	resize(index: number, size: number): void {
		const config = this.#configs[index]!;
		config.general.default_pool_size = size;
		this.proxies[index]!.writeConfig(config);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		for (const proxy of this.proxies) await proxy[Symbol.asyncDispose]();
		for (const cluster of this.clusters) await cluster.stop();
	}
}
