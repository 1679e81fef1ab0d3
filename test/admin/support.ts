// A Source of plain data, and a listener that lets everybody in and hands the connection to an AdminSession.

import type { Socket } from "bun";
import { answer, type CommandAnswer } from "../../src/admin/commands.ts";
import { AdminSession } from "../../src/admin/session.ts";
import type { AdminSource, Notice } from "../../src/admin/source.ts";
import { load } from "../../src/config/load.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";
import { Stream, socketHandlers } from "../../src/net/stream.ts";
import { Stat } from "../../src/stats/counters.ts";
import { AverageSampler } from "../../src/status/averages.ts";
import type { ClientRow, ListenerRow, PoolRow, PoolVitals, RouteRow, ServerRow } from "../../src/status/rows.ts";
import type { TransactionRow } from "../../src/two-phase/recovery.ts";
import { AUTHENTICATION_OK } from "../../src/wire/backend-messages.ts";

export const VERSION =
	"PgDog v1a2b3c4d (rustc 1.95.0 (59807616e 2026-04-14)), version 0.1.0, pg_query 6.1.1, Bun 1.4.5";

/** Two users of database "shop", one of them also of "Ware-house". */
function snapshot(): Snapshot {
	const loaded = load({
		configPath: "/nowhere/pgdog.toml",
		databaseUrls: [
			"postgres://alice:secret@10.0.0.1:5432/shop",
			"postgres://bob:secret@10.0.0.1:5432/shop",
			"postgres://alice:secret@10.0.0.2:5433/Ware-house",
		],
		overrides: {},
		env: {},
	});
	if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
	return loaded.snapshot;
}

export const CLIENT: ClientRow = {
	id: 65537,
	user: "alice",
	database: "shop",
	address: "192.0.2.1:50123",
	state: "idle in transaction",
	connected_at: 1_790_000_000_000,
	last_request_at: 1_790_000_001_500,
	queries: 42,
	transactions: 7,
	wait_time: 1.5,
	query_time: 12.3456,
	transaction_time: 100,
	bytes_received: 2 ** 40,
	bytes_sent: 123,
	errors: 1,
	application_name: "web ö",
	locked: true,
	prepared_statements: 3,
	tls: "",
};

export const SERVER: ServerRow = {
	pool: "",
	state: "active",
	connected_at: 0,
	request_at: 1_790_000_001_500,
	remote_pid: 4711,
	client_id: null,
	transactions: 9,
	queries: 50,
	rollbacks: 2,
	prepared_statements: 4,
	healthchecks: 5,
	errors: 0,
	bytes_received: 10,
	bytes_sent: 20,
	last_sent_at: 0,
	last_received_at: 1_790_000_001_600,
	application_name: "PgDog",
	tls: "",
};

/** A primary that is well, and whose replication nobody asked about. */
export const VITALS: PoolVitals = {
	role: "primary",
	healthy: true,
	ban: null,
	ban_time_left: 0,
	lsn_at: 0,
	in_recovery: false,
	lsn: "0/0",
	lag_bytes: 0,
	lag: 0,
};

export const ROUTE: RouteRow = {
	time: 1_790_000_001_500,
	client_id: 65537,
	user: "alice",
	database: "shop",
	query: "SELECT name FROM goods WHERE id = $1",
	decided_by: 'plugin "audit"',
	shard: "all",
	side: "any",
	server: "10.0.0.1:5432",
	wait: 0.12345,
	error: null,
};

/** Orders are written down in `orders`. */
export class PlainSource implements AdminSource {
	readonly stuckWorkers: readonly number[] = [];
	readonly version = VERSION;
	readonly averages = new AverageSampler();
	readonly orders: string[] = [];
	readonly current = snapshot();
	/** Of RELOAD: why it is refused, whether FORCE helps, and what is told else. */
	problems: string[] = [];
	forcible = false;
	notices: Notice[] = [];
	clientRows: ClientRow[] = [CLIENT];
	readonly poolRows: PoolRow[];
	readonly serverRows: ServerRow[];
	/** Newest first: one that was sent, one that was refused. */
	routeRows: RouteRow[] = [
		ROUTE,
		{ ...ROUTE, time: ROUTE.time - 1, decided_by: "comment", side: "primary", server: "", error: "no primary" },
	];

	transactionRows: TransactionRow[] = [
		{ database: "shop", user: "alice", name: "__pgdog_2pc_1", state: "prepared", shards: "0,1", age: 1.5 },
	];

	listenerRows: ListenerRow[] = [
		{ user: "alice", database: "shop", shard: 0, channel: "goods", listeners: 3, received: 12, dropped: 1 },
	];

	constructor() {
		const keys = this.current.clusters.flatMap(({ pools }) => pools.map(({ key }) => key));
		this.poolRows = keys.map((key, i) => {
			const counters = new Float64Array(Stat.length);
			counters.fill(i + 1);
			counters[Stat.oldest_wait] = 0;
			return { key, id: i + 10, paused: i === 1, counters, servers: 4, vitals: VITALS };
		});
		this.serverRows = [{ ...SERVER, pool: keys[0]!, connected_at: Date.now() - 5_500 }];
	}

	snapshot = () => this.current;
	clients = async () => this.clientRows;
	servers = async () => this.serverRows;
	pools = () => this.poolRows;
	reload = async (force: boolean) => {
		this.orders.push(force ? "reload force" : "reload");
		const refused = this.forcible && force ? [] : this.problems;
		return { refused, forcible: this.forcible, notices: refused.length > 0 ? [] : this.notices };
	};
	private matching(order: string, user: string | undefined, database: string | undefined): number {
		this.orders.push(`${order} ${user ?? "*"} ${database ?? "*"}`);
		return this.current.clusters.filter(
			(each) =>
				(user === undefined || each.user.name === user) && (database === undefined || each.database === database),
		).length;
	}
	pause = async (user: string | undefined, database: string | undefined) => this.matching("pause", user, database);
	resume = async (user: string | undefined, database: string | undefined) => this.matching("resume", user, database);
	reconnect = async () => {
		this.orders.push("reconnect");
	};
	routes = async () => this.routeRows;
	recovery = { rows: async () => this.transactionRows };
	channels = async () => this.listenerRows;
	private ofPools(order: string, id: number | undefined): number {
		this.orders.push(`${order} ${id ?? "*"}`);
		return this.poolRows.filter((pool) => id === undefined || pool.id === id).length;
	}
	ban = (id: number | undefined) => this.ofPools("ban", id);
	unban = (id: number | undefined) => this.ofPools("unban", id);
	healthcheck = (id: number | undefined) => this.ofPools("healthcheck", id);
	shutdown = () => {
		this.orders.push("shutdown");
	};
}

export interface AdminListener extends Disposable {
	readonly port: number;
	readonly source: PlainSource;
	/** Those that are open. */
	readonly sessions: Set<AdminSession>;
	/** What was asked, in order. */
	readonly asked: string[];
	/** Errors that came out of a handler: bugs. */
	readonly bugs: unknown[];
	/** Replaces the way to an answer. */
	ask: (sql: string) => Promise<CommandAnswer>;
}

const SSL_REQUEST = 80877103;

/** Answers the StartupMessage with AuthenticationOk; an SSLRequest before it with N. */
export function listen(): AdminListener {
	const source = new PlainSource();
	const sessions = new Set<AdminSession>();
	const asked: string[] = [];
	const bugs: unknown[] = [];
	const handlers = socketHandlers((error, stream) => {
		bugs.push(error);
		stream.terminate();
	});
	const open = (socket: Socket<Stream>) => {
		const stream = new Stream(socket);
		socket.data = stream;
		let got: Buffer = Buffer.alloc(0);
		stream.owner = {
			onDrain() {},
			onClose() {},
			onData(chunk) {
				got = Buffer.concat([got, chunk]);
				while (got.length >= 8 && got.length >= got.readInt32BE(0)) {
					const length = got.readInt32BE(0);
					const packet = got.subarray(0, length);
					got = got.subarray(length);
					if (packet.readInt32BE(4) === SSL_REQUEST) {
						stream.writeAll(Buffer.from("N"));
						continue;
					}
					stream.writeAll(AUTHENTICATION_OK);
					const words = packet.toString("utf8", 8).split("\0");
					const parameters = new Map<string, string>();
					for (let i = 0; i + 1 < words.length; i += 2) parameters.set(words[i]!, words[i + 1]!);
					const session: AdminSession = new AdminSession(stream, {
						version: VERSION,
						shape: "pgdog",
						address: "test",
						parameters,
						ask(sql) {
							asked.push(sql);
							return listener.ask(sql);
						},
						onOver: () => {
							if (!sessions.delete(session)) bugs.push(new Error("onOver was called twice"));
						},
					});
					sessions.add(session);
					stream.owner = session;
					session.begin();
					if (got.length > 0) session.onData(got);
					return;
				}
			},
		};
	};
	const server = Bun.listen<Stream>({ hostname: "127.0.0.1", port: 0, socket: { ...handlers, open } });
	const listener: AdminListener = {
		port: server.port,
		source,
		sessions,
		asked,
		bugs,
		ask: (sql) => answer(sql, source).then((said) => structuredClone(said)),
		[Symbol.dispose]: () => server.stop(true),
	};
	return listener;
}
