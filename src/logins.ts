// Who may log in to what, as one worker has it: user, pools and router behind each user and database. Made and asked by worker.ts,
// which has the pools.

import { loginKey, type Update } from "./config/diff.ts";
import type { General } from "./config/settings.ts";
import type { Sharding } from "./config/sharding.ts";
import type { ClusterSpec, User } from "./config/snapshot.ts";
import { StatementCache } from "./parser/cache.ts";
import { SqlParser } from "./parser/parse.ts";
import type { PluginHost } from "./plugin/host.ts";
import { Cluster } from "./pool/cluster.ts";
import type { Pool } from "./pool/pool.ts";
import { Shard } from "./pool/shard.ts";
import type { Vitals } from "./pool/vitals.ts";
import { Placing } from "./router/placing.ts";
import { Router, type Topology } from "./router/router.ts";

/** User, pools and router behind a login, by user and database (`loginKey`). */
interface Login {
	readonly spec: ClusterSpec;
	readonly user: User;
	readonly cluster: Cluster;
	readonly router: Router;
}

/** Routers by topology: they know nothing but settings and the shape of a cluster, so one serves all of that shape. */
interface Routers {
	readonly placing: Placing | null;
	/** Facts of texts are others where it is known which tables are sharded. */
	readonly statements: StatementCache;
	readonly byTopology: Map<string, Router>;
}

/** In place of what is said of sharded tables where nothing is. */
const UNSHARDED = {};

export class Logins {
	/** The worker's, by `PoolSpec.key`. */
	private readonly pools: ReadonlyMap<string, Pool>;
	private readonly vitals: Vitals;
	private readonly plugins: PluginHost | null;
	private readonly logins = new Map<string, Login>();
	/** By what is said of sharded tables, which goes with the clusters of its database. */
	private routers = new WeakMap<Sharding | typeof UNSHARDED, Routers>();
	private readonly parser = new SqlParser();
	/** SQL texts and their facts, for all routers of this thread that know of no sharded tables. */
	private readonly parsed = new StatementCache(this.parser);
	private writeFunctions: readonly string[] = [];
	/** Shards with `role = "auto"`: clients may wait there (`Election`) until the primary is found. */
	electing: readonly Shard[] = [];
	/** Server connections that all pools may have together: the sum of their `pool_size`. */
	size = 0;

	constructor(pools: ReadonlyMap<string, Pool>, vitals: Vitals, plugins: PluginHost | null) {
		this.pools = pools;
		this.vitals = vitals;
		this.plugins = plugins;
	}

	find(user: string, database: string): Login | null {
		return this.logins.get(loginKey(user, database)) ?? null;
	}

	/** The login there is, where there is one in all. */
	get only(): Login | null {
		if (this.logins.size !== 1) return null;
		return this.logins.values().next().value ?? null;
	}

	specs(): ClusterSpec[] {
		return [...this.logins.values()].map(({ spec }) => spec);
	}

	setWriteFunctions(names: readonly string[]): void {
		this.writeFunctions = names;
		this.parsed.setWriteFunctions(names);
		for (const { router } of this.logins.values()) router.statements.setWriteFunctions(names);
	}

	/** Makes the logins of an update, whose pools are there. @returns the logins of before */
	replace({ general, generalChanged, clusters, gone }: Update): ReadonlySet<Login> {
		const before = new Set(this.logins.values());
		for (const { user, database } of gone) this.logins.delete(loginKey(user, database));
		const changed = new Map(clusters.map((spec) => [loginKey(spec.user.name, spec.database), spec]));
		// Shards and routers decide by the settings that they were made with: all are made anew.
		if (generalChanged) {
			this.routers = new WeakMap();
			for (const [key, { spec }] of this.logins) if (!changed.has(key)) changed.set(key, spec);
		}
		for (const [key, spec] of changed) {
			if (spec.pools.length > 0) this.logins.set(key, this.login(spec, general));
			else this.logins.delete(key);
		}
		this.count();
		return before;
	}

	private login(spec: ClusterSpec, general: General): Login {
		const shards = [...Map.groupBy(spec.pools, ({ shard }) => shard).values()].map((specs) => {
			const members = specs.map(({ key }) => this.pools.get(key)!);
			return new Shard(members, this.vitals, general, spec.readOnly);
		});
		const cluster = new Cluster(shards);
		const { hasPrimary, hasReplicas, hasChoice } = cluster;
		const { readOnly, twoPhase = 0 } = spec;
		const { cross_shard_disabled } = spec.user;
		const shape = { shards: shards.length, hasPrimary, hasReplicas, hasChoice, readOnly };
		const topology = { ...shape, cross_shard_disabled, twoPhase };
		return { spec, user: spec.user, cluster, router: this.routerOf(topology, spec.sharding, general) };
	}

	private routerOf(topology: Topology, sharding: Sharding | null, general: General): Router {
		let routers = this.routers.get(sharding ?? UNSHARDED);
		if (routers === undefined) {
			const placing = sharding && new Placing(sharding);
			const statements = placing === null ? this.parsed : this.cacheOf(placing);
			routers = { placing, statements, byTopology: new Map() };
			this.routers.set(sharding ?? UNSHARDED, routers);
		}
		const { placing, statements, byTopology } = routers;
		const key = Object.values(topology).join();
		let router = byTopology.get(key);
		if (router === undefined) {
			router = new Router({ ...topology, placing }, statements, this.plugins, general);
			byTopology.set(key, router);
		}
		return router;
	}

	private cacheOf(tables: Placing): StatementCache {
		return new StatementCache(this.parser, { tables, writeFunctions: this.writeFunctions });
	}

	/** Works out what depends on all logins together: elections, and `size`. */
	private count(): void {
		const shards = [...this.logins.values()].flatMap(({ cluster }) => cluster.shards);
		this.electing = shards.filter(({ election }) => election !== null);
		this.size = shards.reduce(
			(sum, { pools }) => pools.reduce((all, { spec }) => all + spec.pool_size + spec.reserve_pool_size, sum),
			0,
		);
	}

	/** Clients that `reach` could not send to another queue still wait in an election that is no more: they are refused. */
	endElections(before: ReadonlySet<Login>): void {
		const left = new Set(this.logins.values());
		for (const login of before) if (!left.has(login)) for (const { election } of login.cluster.shards) election?.end();
	}
}
