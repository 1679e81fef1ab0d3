// A listener whose connections log in by a Startup, to one pool before a scripted server.

import { ScramCache } from "../../src/auth/scram-keys.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import type { ClientContext } from "../../src/client/context.ts";
import { Seats } from "../../src/client/seats.ts";
import { Budget } from "../../src/client/share.ts";
import { type General, general as table } from "../../src/config/settings.ts";
import type { ClusterSpec, User } from "../../src/config/snapshot.ts";
import { NO_TLS } from "../../src/config/tls.ts";
import { createLog } from "../../src/log.ts";
import { Startup } from "../../src/login/startup.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import type { SystemUser } from "../../src/net/system-user.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { createFactsCache } from "../../src/parser/facts-cache.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Cluster } from "../../src/pool/cluster.ts";
import { Ears } from "../../src/pool/ear.ts";
import { Shard } from "../../src/pool/shard.ts";
import { RouteLog } from "../../src/router/route-log.ts";
import { Router } from "../../src/router/router.ts";
import { listen as listenWith } from "../net/support.ts";
import { defaults, type TestPool } from "../pool/support.ts";

/** What a log-in to `user` finds: one pool, nothing to route. */
export function reach({ pool, bans }: TestPool, user: User): NonNullable<ReturnType<ClientContext["find"]>> {
	const topology = { shards: 1, hasPrimary: true, hasReplicas: false };
	const policy = {
		read_write_split: "include_primary",
		load_balancing_strategy: "random",
		checkout_timeout: 5000,
	} as const;
	const spec: ClusterSpec = { user, database: user.database, readOnly: false, sharding: null, pools: [pool.spec] };
	return {
		spec,
		user,
		cluster: new Cluster([new Shard([pool], bans.vitals, policy, false)]),
		router: new Router(topology, new StatementCache(new SqlParser()), null),
	};
}

export interface LoginListener {
	readonly port: number;
	stop(): void;
	/** Its context, whose fields tests may change. */
	readonly context: { -readonly [name in keyof ClientContext]: ClientContext[name] };
	/** Those that log in now. */
	readonly startups: Set<Startup>;
	/** CancelRequests: process id and key. */
	readonly cancels: string[];
	/** Of the log: all lines. */
	readonly lines: string[];
	/** Given to the next Startups: there is no room for them. */
	refusal: Startup["refusal"];
	/** Who comes next, in place of what the kernel says of that. */
	systemUser: SystemUser | null;
}

/**
 * @param users who there are; what a client says to its password is judged by `auth_type`, "trust" by default
 * @param address of all clients
 */
export function listen(
	inner: TestPool,
	users: readonly User[],
	settings: Partial<General> = {},
	address = "10.0.0.1:5000",
): LoginListener {
	const general: General = { ...defaults<General>(table), auth_type: "trust", failed_login_delay: 0, ...settings };
	let id = 0;
	const lines: string[] = [];
	const log = createLog("text", "debug", { write: (line) => lines.push(line) });
	const cancels: string[] = [];
	const startups = new Set<Startup>();
	const context: LoginListener["context"] = {
		seats: new Seats({ general, log, ledger: inner.ledger }, new Descriptors()),
		sets: new ParameterSets(),
		collected: new Budget(1 << 30),
		statements: inner.statements,
		ears: new Ears({ ...inner.context, find: () => null }),
		facts: createFactsCache(),
		scram: new ScramCache(),
		log,
		tls: NO_TLS,
		handlers: inner.context.handlers,
		contain: inner.context.contain,
		routes: new RouteLog(),
		time: 0,
		stopping: false,
		plugins: null,
		general,
		admin: { name: "admin", user: "admin", password: "secret", generated: false },
		hba: [],
		wildcard: false,
		find: (name, database) => {
			const user = users.find((each) => each.name === name && each.database === database);
			return user === undefined ? null : reach(inner, user);
		},
		onProven() {},
		lookUp: async () => ({ found: null }),
		join: async () => null,
		doubt() {},
		openAdmin: (stream) => stream.end(),
		register: () => ++id,
		unregister() {},
		onLogin() {},
		onLogout() {},
		cancel: (pid, secret, done) => {
			cancels.push(`${pid} ${Buffer.from(secret).toString("hex")}`);
			done();
		},
		instance: "1234abcd",
		onUnfinished: () => {},
		nextSerial: () => ++id,
	};
	const server = listenWith((stream) => {
		if (listener.systemUser !== null) Object.defineProperty(stream, "systemUser", { value: listener.systemUser });
		const startup = new Startup(context, stream, address, (over) => startups.delete(over));
		startup.refusal = listener.refusal;
		startups.add(startup);
		stream.owner = startup;
	});
	const listener: LoginListener = {
		port: server.port,
		context,
		startups,
		cancels,
		lines,
		refusal: null,
		systemUser: null,
		stop: () => server.stop(true),
	};
	return listener;
}
