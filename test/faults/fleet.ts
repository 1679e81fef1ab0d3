// What the tests of replicas and of failover stand on: the compiled proxy before a primary and its replicas, its admin
// console, clients that read and write without end and note what they see, and a network that can be cut.

import { connect, createServer, type Server, type Socket } from "node:net";
import { type Cluster, type PostgresServer, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { LoginError, type QueryResult, RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { until } from "../support/until.ts";

/** `[general]` with timeouts that a test can wait for. */
export const SHORT = {
	workers: 1,
	default_pool_size: 5,
	connect_timeout: 400,
	checkout_timeout: 1_000,
	healthcheck_timeout: 400,
	query_timeout: 1_500,
	rollback_timeout: 400,
	lsn_check_interval: 150,
	lsn_check_timeout: 400,
	// A client is to stay for as long as its server does: what it sees is then not its own reconnecting.
	client_connection_recovery: "recover",
	log_connections: false,
	log_disconnections: false,
};

/** A bad server is out within `healthcheck_timeout` and this, ms: the pace of checks in src/pool/checks.ts, and a busy machine. */
export const SOON = 4_000;

/** Between two requests of a client, ms: it shares the machine with the servers. */
const THINK = 2;

export type Place = { host: string; port: number };

/** An entry of `[[databases]]`. */
export type Entry = Place & { name: string; role: "primary" | "replica" | "auto"; [setting: string]: unknown };

export function entry(place: Place, role: Entry["role"], name = "pgdog"): Entry {
	return { name, host: place.host, port: place.port, role, database_name: "pgdog" };
}

/** The cluster's primary and replicas, as configured by hand. */
export function entries(cluster: Cluster, name = "pgdog"): Entry[] {
	return [entry(cluster.primary, "primary", name), ...cluster.replicas.map((each) => entry(each, "replica", name))];
}

/** The database of a second shard: the first one's is `pgdog`. */
const SECOND = "shard1";

/** A primary and two replicas, each with both databases and the table that writers write to. */
export async function startServers(): Promise<Cluster> {
	const cluster = await startPostgres({ replicas: 2, databases: [SECOND] });
	const tables = "CREATE TABLE written (n int NOT NULL); CREATE TABLE here (); INSERT INTO here DEFAULT VALUES";
	for (const database of ["pgdog", SECOND]) await cluster.primary.sql(tables, { user: "pgdog", database });
	await cluster.replicated();
	return cluster;
}

/** The same servers as two shards. */
export function asShards(entries: Entry[]): Entry[] {
	return ["pgdog", SECOND].flatMap((database_name, shard) =>
		entries.map((each) => ({ ...each, shard, database_name })),
	);
}

/** A row of a SHOW of the admin database. */
export type Row = Record<string, string | null>;

export class Fleet implements AsyncDisposable {
	readonly proxy: Proxy;
	readonly #console: RawClient;
	readonly #poolSize: number;
	readonly #clients: EndlessClient[] = [];

	private constructor(proxy: Proxy, console: RawClient, poolSize: number) {
		this.proxy = proxy;
		this.#console = console;
		this.#poolSize = poolSize;
	}

	/** @param general beside and instead of `SHORT` */
	static async start(
		databases: Entry[],
		general: Partial<typeof SHORT> & Record<string, unknown> = {},
	): Promise<Fleet> {
		const names = [...new Set(databases.map(({ name }) => name))];
		const proxy = await startProxy({
			config: { general: { ...SHORT, ...general }, databases, admin: { password: "secret" } },
			users: names.map((database) => ({ name: "pgdog", database, password: "pgdog" })),
		});
		try {
			const door = { port: proxy.port, user: "admin", password: "secret", database: "admin" };
			return new Fleet(proxy, await RawClient.connect(door), general.default_pool_size ?? SHORT.default_pool_size);
		} catch (error) {
			await proxy.stop("SIGKILL");
			throw error;
		}
	}

	door(database = "pgdog"): RawClientOptions {
		return { port: this.proxy.port, user: "pgdog", password: "pgdog", database };
	}

	client(database?: string): Promise<RawClient> {
		return RawClient.connect(this.door(database));
	}

	async show(what: string): Promise<Row[]> {
		const { columns, rows, errors } = await this.#console.query(`SHOW ${what}`);
		if (errors.length > 0) throw new Error(`SHOW ${what}: ${JSON.stringify(errors)}`);
		return rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i] ?? null])));
	}

	/** Why it is not read from; undefined while it is. */
	async banOf({ port }: Place, database = "pgdog"): Promise<string | undefined> {
		const bans = await this.show("BANS");
		return bans.find((ban) => ban.port === String(port) && ban.database === database)?.ban_reason ?? undefined;
	}

	/** Resolves when it is not read from, with the reason. */
	async untilBanned(place: Place, timeout = SOON, database = "pgdog"): Promise<string> {
		let reason: string | undefined;
		const isBanned = async () => {
			reason = await this.banOf(place, database);
			return reason !== undefined;
		};
		await until(isBanned, "the ban", timeout).catch((error) => this.fail(error));
		return reason!;
	}

	async untilUnbanned(place: Place, timeout = SOON, database = "pgdog"): Promise<void> {
		const isWell = async () => (await this.banOf(place, database)) === undefined;
		await until(isWell, "the end of the ban", timeout).catch((error) => this.fail(error));
	}

	/** A client that runs `ask` again and again. */
	start(kind: Kind, count: number, database?: string): EndlessClient[] {
		const clients = Array.from({ length: count }, () => new EndlessClient(this.door(database), kind));
		this.#clients.push(...clients);
		return clients;
	}

	/** Stops all its endless clients, then waits until nobody waits and no pool has more servers than it may. */
	async settle(): Promise<void> {
		await Promise.all(this.#clients.splice(0).map((client) => client.stop()));
		await this.untilQuiet();
	}

	async untilQuiet(): Promise<void> {
		let rows: Row[] = [];
		const isQuiet = async () => {
			rows = await this.show("POOLS");
			return rows.every(({ cl_waiting, sv_active, sv_idle_xact, sv_total }) => {
				return cl_waiting === "0" && sv_active === "0" && sv_idle_xact === "0" && Number(sv_total) <= this.#poolSize;
			});
		};
		await until(isQuiet, "quiet pools", 5_000).catch((error) =>
			this.fail(new Error(`${error.message}: ${JSON.stringify(rows)}`)),
		);
		const internal = this.proxy.lines.find((line) => /internal error|unhandled|TypeError|RangeError/i.test(line));
		if (internal !== undefined) throw new Error(internal);
		if (!this.proxy.running) throw new Error(`the proxy ended:\n${this.proxy.log}`);
	}

	fail(error: Error): never {
		throw new Error(`${error.message}\nthe proxy says:\n${this.proxy.lines.slice(-25).join("\n")}`);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		// A test that ends here has failed before, or has seen them stop: an error thrown now would hide its own.
		for (const stopped of await Promise.allSettled(this.#clients.splice(0).map((client) => client.stop())))
			if (stopped.status === "rejected") console.error(`a client: ${stopped.reason}`);
		this.#console.reset();
		await this.proxy[Symbol.asyncDispose]();
	}
}

/** What an endless client asks: for a number of its own, and for the port of the server that answers. */
interface Kind {
	/** How many shards answer, with a row each. Default 1. */
	readonly shards?: number;
	ask(client: RawClient, n: number): Promise<QueryResult>;
}

export const READER: Kind = {
	// Both protocols.
	ask: (client, n) =>
		n % 2 === 0
			? client.query(`SELECT current_setting('port'), ${n}`)
			: client.extended("SELECT current_setting('port'), $1::int", [String(n)]),
};

/** Two shards answer as one: each has a row of the table. */
export const READER_OF_BOTH: Kind = {
	shards: 2,
	ask: (client, n) =>
		n % 2 === 0
			? client.query(`SELECT current_setting('port'), ${n} FROM here`)
			: client.extended("SELECT current_setting('port'), $1::int FROM here", [String(n)]),
};

/** One of two shards, by turns. */
export const READER_OF_EACH: Kind = {
	ask: (client, n) => client.query(`/* pgdog_shard: ${n % 2} */ SELECT current_setting('port'), ${n}`),
};

export const WRITER: Kind = {
	ask: (client, n) => {
		const sql = "INSERT INTO written (n) VALUES ($1) RETURNING current_setting('port'), n";
		return n % 2 === 0 ? client.query(sql.replace("$1", String(n))) : client.extended(sql, [String(n)]);
	},
};

/** Two shards write as one. */
export const WRITER_OF_BOTH: Kind = { ...WRITER, shards: 2 };

/** Numbers are asked for once in the process: a row with another one is somebody else's. */
let next = 0;

/** An error that an endless client was told. */
export interface Told {
	/** SQLSTATE; `closed` when the connection ended without a word. */
	state: string;
	message: string;
	/** Whether the connection was over. */
	ended: boolean;
}

export class EndlessClient {
	/** Numbers that were answered, by the port of the server. */
	readonly answered = new Map<number, number[]>();
	readonly errors: Told[] = [];
	/** The longest request and the longest time between two answers, ms. */
	longest = 0;
	gap = 0;
	count = 0;
	#lastAt = performance.now();
	#stopping = false;
	readonly #door: RawClientOptions;
	readonly #kind: Kind;
	readonly #running: Promise<void>;
	#broken: Error | undefined;

	constructor(door: RawClientOptions, kind: Kind) {
		this.#door = door;
		this.#kind = kind;
		this.#running = this.#run().catch((error) => {
			this.#broken = error;
		});
	}

	/** How many answers came from `place`. */
	from({ port }: Place): number {
		return this.answered.get(port)?.length ?? 0;
	}

	get ports(): number[] {
		return [...this.answered.keys()];
	}

	get numbers(): number[] {
		return [...this.answered.values()].flat();
	}

	/** Forgets what it has seen. */
	forget(): void {
		this.answered.clear();
		this.errors.length = 0;
		this.longest = 0;
		this.gap = 0;
		this.#lastAt = performance.now();
	}

	/** Resolves after so many more answers. */
	async more(count: number, timeout = 10_000): Promise<void> {
		const enough = this.count + count;
		await until(() => this.count >= enough || this.#broken !== undefined, `${count} more answers`, timeout);
		if (this.#broken !== undefined) throw this.#broken;
	}

	async stop(): Promise<void> {
		this.#stopping = true;
		await this.#running;
		if (this.#broken !== undefined) throw this.#broken;
	}

	async #run(): Promise<void> {
		while (!this.#stopping) {
			let client: RawClient | undefined;
			try {
				client = await RawClient.connect(this.#door);
			} catch (error) {
				if (!(error instanceof LoginError)) throw error;
				this.errors.push({ state: `login ${error.fields.C}`, message: error.message, ended: true });
				await Bun.sleep(20);
				continue;
			}
			while (!this.#stopping && !client.ended) await this.#ask(client);
			await client[Symbol.asyncDispose]();
		}
	}

	async #ask(client: RawClient): Promise<void> {
		const n = ++next;
		const startedAt = performance.now();
		const { rows, errors } = await this.#kind.ask(client, n);
		const time = performance.now();
		this.longest = Math.max(this.longest, time - startedAt);
		if (errors.length === 0 && rows.length > 0) {
			const { shards = 1 } = this.#kind;
			if (rows.length !== shards || rows.some((row) => row[1] !== String(n)))
				throw new Error(`asked for ${n}, got ${JSON.stringify(rows)}`);
			for (const [port] of rows) {
				if (!this.answered.has(Number(port))) this.answered.set(Number(port), []);
				this.answered.get(Number(port))!.push(n);
			}
			this.count++;
			this.gap = Math.max(this.gap, time - this.#lastAt);
			this.#lastAt = time;
		} else {
			const state = errors[0]?.C ?? "closed";
			this.errors.push({ state, message: errors[0]?.M ?? "", ended: client.ended });
		}
		await Bun.sleep(THINK);
	}
}

/** Throws unless each of these writes is on the primary exactly once, and none came from another server. */
export async function expectWritten(primary: PostgresServer, writers: EndlessClient[]): Promise<void> {
	const numbers = writers.flatMap((writer) => writer.numbers);
	const elsewhere = writers.flatMap(({ ports }) => ports).filter((port) => port !== primary.port);
	if (elsewhere.length > 0) throw new Error(`writes were answered by ${elsewhere}, and the primary is ${primary.port}`);
	const [row] = await primary.sql(
		`SELECT count(*)::int AS all, count(DISTINCT n)::int AS different FROM written WHERE n = ANY ('{${numbers}}')`,
	);
	const { all, different } = row as { all: number; different: number };
	if (all !== numbers.length || different !== all)
		throw new Error(`${numbers.length} writes were confirmed; there are ${all}, ${different} different ones`);
}

/** A stretch of network before a server. When it is cut, no byte passes and no connection ends; later, all that was sent comes. */
export class Link implements Place, AsyncDisposable {
	readonly host = "127.0.0.1";
	port = 0;
	#cut = false;
	readonly #to: Place;
	readonly #server: Server;
	readonly #sockets = new Set<Socket>();
	#held: (() => void)[] = [];

	private constructor(to: Place) {
		this.#to = to;
		this.#server = createServer({ pauseOnConnect: true }, (near) => this.#accept(near));
	}

	static async open(to: Place): Promise<Link> {
		const link = new Link(to);
		await new Promise<void>((resolve) => link.#server.listen(0, link.host, resolve));
		link.port = (link.#server.address() as { port: number }).port;
		return link;
	}

	cut(): void {
		this.#cut = true;
	}

	mend(): void {
		this.#cut = false;
		for (const event of this.#held.splice(0)) event();
	}

	/** In order, now or when it is mended. */
	#pass(event: () => void): void {
		if (this.#cut) this.#held.push(event);
		else event();
	}

	#accept(near: Socket): void {
		this.#adopt(near);
		this.#pass(() => {
			const far = connect(this.#to.port, this.#to.host);
			this.#adopt(far);
			this.#join(near, far);
			this.#join(far, near);
			near.resume();
		});
	}

	#join(from: Socket, to: Socket): void {
		from.on("data", (chunk) => this.#pass(() => to.write(chunk)));
		from.on("close", () => this.#pass(() => to.destroy()));
	}

	#adopt(socket: Socket): void {
		this.#sockets.add(socket);
		socket.setNoDelay(true);
		socket.on("error", () => undefined);
		socket.on("close", () => this.#sockets.delete(socket));
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#held = [];
		for (const socket of this.#sockets) socket.destroy();
		await new Promise<void>((resolve) => this.#server.close(() => resolve()));
	}
}
