// A failover under load: a primary and two replicas behind dist/pgdog with `role = "auto"`, clients that write and read without
// end; the primary is killed, a replica promoted, the old primary started again as a second one. Tells what the clients saw.
// Called by scripts/failover.ts, which prints the report, and by test/faults. Every wait and count in it has a bound.
//
//   const report = await runFailover({ clients: 5 });
//   expect(report.failures).toEqual([]);

import { type Cluster, type PostgresServer, startPostgres } from "./postgres.ts";
import { type Proxy, startProxy } from "./proxy.ts";
import { LoginError, type QueryResult, RawClient } from "./raw-client.ts";
import { until } from "./until.ts";

/** All times in milliseconds. */
export interface FailoverOptions {
	/** Clients that write, then read, without end. Default 10. */
	clients?: number;
	/** Clients that only read: theirs is the gap of reads, since the others' have to wait behind a write. Default 5. */
	readers?: number;
	/** Threads of the proxy. Default 1. */
	workers?: number;
	/** `lsn_check_interval`. Default 1000. */
	lsnCheckInterval?: number;
	/** Load before the primary is killed. Default 1000. */
	before?: number;
	/** From the kill to the promotion: there is no primary. Default 500. */
	outage?: number;
	/** Load beside the old primary that is back. Default: three checks and a second. */
	after?: number;
	/** A client that has done nothing by then, after the promotion and again at the end, is stuck. Default 10,000. */
	limit?: number;
	/** More of `[general]`. */
	general?: Record<string, unknown>;
	/** Is told each step. */
	tell?: (step: string) => void;
}

/** `before` the primary is killed, from then on `failover`, from the old one's return on `return`. */
export const PHASES = ["before", "failover", "return"] as const;
type Phase = (typeof PHASES)[number];
type ByPhase = Record<Phase, number>;

interface FailoverError {
	/** SQLSTATE, or `closed`, `timeout`, `unreachable` when there was none. */
	state: string;
	/** The first one's message. */
	message: string;
	times: ByPhase;
}

export interface FailoverFigures {
	clients: number;
	readers: number;
	lsnCheckInterval: number;
	limit: number;
	writes: number;
	reads: number;
	/** The longest time between two writes of one client, by the phase in which it ended. */
	writeGap: ByPhase;
	/** The same between two reads of one that only reads. */
	readGap: ByPhase;
	/** The longest time that the clients' own event loop stood still: no gap is known more closely than that. */
	stall: ByPhase;
	/** From the moment the promoted server was out of recovery to the first write there, and to the last client's first. */
	firstWrite: number | undefined;
	lastClient: number | undefined;
	/** Clients that did not write, and readers that did not read, within `limit` of the promotion. */
	stuck: number;
	/** Clients and readers that did nothing within `limit`, beside the old primary that was back. */
	stuckAtEnd: number;
	errors: FailoverError[];
	/** Rows that the old primary took after it was back. */
	writesToOld: number;
	/** Reads that it answered then: their rows may be of the old timeline. */
	readsFromOld: number;
	/** Writes that are there twice: sent again by the proxy, since no client sends one twice. */
	doubled: number;
	/** Writes that the new primary confirmed and does not have. */
	lost: number;
	/** Writes that the old one confirmed and had not sent on when it was killed: the price of asynchronous replication. */
	unreplicated: number;
}

export interface FailoverReport extends FailoverFigures {
	/** What was not as it must be, as sentences; empty when all was well. */
	failures: string[];
	/** The proxy's. */
	log: string;
}

/** A promotion must be found out within a check and this. */
export const SLACK = 1_000;

/** Pause of a client between two rounds: it shares the machine with the servers. */
const THINK = 1;

/** Pause of a client after an error, so that a proxy that refuses at once is not asked thousands of times. */
const REGRET = 20;

/** How often the clients' event loop is looked at. */
const TICK = 10;

const READS_PER_WRITE = 3;
const SEEDED = 100;

const SCHEMA = `
	CREATE TABLE failover_read (id int PRIMARY KEY, value int NOT NULL);
	INSERT INTO failover_read SELECT i, i FROM generate_series(0, ${SEEDED - 1}) i;
	CREATE TABLE failover_write (client int, n int, at timestamptz NOT NULL DEFAULT clock_timestamp())`;

/** Throws when a server or the proxy does not start; what clients suffer is in the report. */
export async function runFailover(options: FailoverOptions = {}): Promise<FailoverReport> {
	const { clients = 10, readers = 5, lsnCheckInterval = 1_000, limit = 10_000, tell = () => undefined } = options;
	await using cluster = await startPostgres({ replicas: 2 });
	await cluster.primary.sql(SCHEMA, { user: "pgdog" });
	await cluster.replicated();
	await using proxy = await startInFront(cluster, options);
	await using load = new Load(proxy.port, clients, readers, limit);
	const old = cluster.primary;

	tell(`${clients} clients write and read, ${readers} only read`);
	load.start();
	const idle = await load.missing((client) => client.activeSince(0), limit);
	if (idle > 0) {
		throw new Error(
			`${idle} of ${clients + readers} clients could not start: ${JSON.stringify(load.errors)}\n${proxy.log}`,
		);
	}
	await Bun.sleep(options.before ?? 1_000);

	load.phase = "failover";
	await old.kill();
	tell("the primary is killed");
	await Bun.sleep(options.outage ?? 500);
	const [next, ...others] = await byReceived(cluster.replicas);
	const promotedAt = await promote(next, limit);
	tell(`${next.name} is promoted`);
	for (const replica of others) replica.follow(next);
	const stuck = await load.missing((client) => client.activeSince(promotedAt), limit);

	load.phase = "return";
	await old.start();
	tell("the old primary is back as a second one");
	await Bun.sleep(options.after ?? 3 * lsnCheckInterval + 1_000);
	const end = performance.now();
	const stuckAtEnd = await load.missing((client) => client.activeSince(end), limit);
	await load.stop();
	tell("the clients have stopped");

	const firsts = load.clients.filter(({ writes }) => writes).map((client) => client.firstWriteAt.get(next.port));
	const known = firsts.filter((at) => at !== undefined);
	const rows = await next.sql("SELECT client || ':' || n AS id FROM failover_write");
	const kept = new Set(rows.map(({ id }) => id));
	const gone = load.clients.flatMap(({ id, confirmed }) => confirmed.filter(({ n }) => !kept.has(`${id}:${n}`)));
	const [taken] = await old.sql(
		"SELECT count(*)::int AS rows FROM failover_write WHERE at > pg_postmaster_start_time()",
	);
	const figures: FailoverFigures = {
		clients,
		readers,
		lsnCheckInterval,
		limit,
		writes: sum(load.clients.map(({ confirmed }) => confirmed.length)),
		reads: sum(load.clients.map(({ reads }) => reads)),
		writeGap: load.longest(true),
		readGap: load.longest(false),
		stall: load.stall,
		firstWrite: known.length > 0 ? Math.max(0, Math.min(...known) - promotedAt) : undefined,
		lastClient: known.length === clients ? Math.max(0, Math.max(...known) - promotedAt) : undefined,
		stuck,
		stuckAtEnd,
		errors: load.errors,
		writesToOld: Number(taken?.rows),
		readsFromOld: sum(load.clients.map(({ lateReads }) => lateReads.get(old.port) ?? 0)),
		doubled: rows.length - kept.size,
		lost: gone.filter(({ port }) => port === next.port).length,
		unreplicated: gone.filter(({ port, phase }) => port === old.port && phase !== "return").length,
	};
	return { ...figures, failures: judge(figures), log: proxy.log };
}

/** What must not be, as sentences. */
export function judge(figures: FailoverFigures): string[] {
	const { limit, firstWrite, lsnCheckInterval, errors } = figures;
	const clients = figures.clients + figures.readers;
	const failures: string[] = [];
	const early = sum(errors.map(({ times }) => times.before));
	if (early > 0) failures.push(`${early} errors before anything was done to a server`);
	// read_only_sql_transaction: what a server in recovery says to a write.
	const misled = sum(errors.filter(({ state }) => state === "25006").map(({ times }) => sum(Object.values(times))));
	if (misled > 0) failures.push(`${misled} writes were sent to a replica`);
	if (firstWrite === undefined) failures.push("nobody wrote to the new primary");
	else if (firstWrite > lsnCheckInterval + SLACK) {
		failures.push(
			`the first write came ${firstWrite.toFixed(0)} ms after the promotion, not within ${lsnCheckInterval + SLACK}`,
		);
	}
	if (figures.stuck > 0) {
		failures.push(`${figures.stuck} of ${clients} clients did nothing within ${limit} ms of the promotion`);
	}
	if (figures.stuckAtEnd > 0) failures.push(`${figures.stuckAtEnd} of ${clients} clients were stuck at the end`);
	if (figures.writesToOld > 0) failures.push(`${figures.writesToOld} writes went to the old primary after its return`);
	if (figures.doubled > 0) failures.push(`${figures.doubled} writes were done twice`);
	if (figures.lost > 0) failures.push(`${figures.lost} writes that the new primary confirmed are not there`);
	return failures;
}

function startInFront(cluster: Cluster, options: FailoverOptions): Promise<Proxy> {
	return startProxy({
		config: {
			general: {
				workers: options.workers ?? 1,
				default_pool_size: 10,
				lsn_check_interval: options.lsnCheckInterval ?? 1_000,
				// The clients are to stay: what they see is then the proxy's doing, not that of their own reconnecting.
				client_connection_recovery: "recover",
				log_connections: false,
				...options.general,
			},
			databases: [cluster.primary, ...cluster.replicas].map(({ host, port }) => ({
				name: "pgdog",
				host,
				port,
				role: "auto",
			})),
		},
		users: [{ name: "pgdog", database: "pgdog", password: "pgdog" }],
	});
}

/** The one that has received most first: the others can follow it. Nothing may be on its way to them any more. */
export async function byReceived(replicas: PostgresServer[]): Promise<[PostgresServer, ...PostgresServer[]]> {
	const received = await Promise.all(
		replicas.map(async (replica) => {
			const [row] = await replica.sql("SELECT pg_last_wal_receive_lsn() - '0/0'::pg_lsn AS bytes");
			return { replica, bytes: Number(row?.bytes) };
		}),
	);
	received.sort((a, b) => b.bytes - a.bytes);
	return received.map(({ replica }) => replica) as [PostgresServer, ...PostgresServer[]];
}

/** Promotes, and tells when it was out of recovery: the server watches that itself, which is finer than asking it. */
async function promote(server: PostgresServer, limit: number): Promise<number> {
	const watch = `
		SET statement_timeout = ${limit + 30_000};
		DO $$ BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.001); END LOOP; END $$`;
	let at = 0;
	const watched = server.sql(watch).then(() => {
		at = performance.now();
	});
	await Promise.all([watched, server.promote()]);
	return at;
}

/** The clients, and what they have in common. */
class Load implements AsyncDisposable {
	phase: Phase = "before";
	stopping = false;
	readonly port: number;
	/** Of each wait of a client, ms: longer than the proxy may keep one waiting. */
	readonly patience: number;
	readonly clients: LoadClient[];
	readonly stall = nothing();
	readonly #errors = new Map<string, FailoverError>();
	#running: Promise<unknown> = Promise.resolve();
	#ticker: ReturnType<typeof setInterval> | undefined;

	constructor(port: number, clients: number, readers: number, patience: number) {
		this.port = port;
		this.patience = patience;
		this.clients = Array.from({ length: clients + readers }, (_, id) => new LoadClient(this, id, id < clients));
	}

	get errors(): FailoverError[] {
		return [...this.#errors.values()].sort((a, b) => a.state.localeCompare(b.state));
	}

	start(): void {
		let last = performance.now();
		this.#ticker = setInterval(() => {
			const now = performance.now();
			this.stall[this.phase] = Math.max(this.stall[this.phase], now - last - TICK);
			last = now;
		}, TICK);
		this.#running = Promise.all(this.clients.map((client) => client.run()));
	}

	async stop(): Promise<void> {
		if (!this.stopping) for (const client of this.clients) client.finish();
		this.stopping = true;
		clearInterval(this.#ticker);
		await this.#running;
	}

	[Symbol.asyncDispose](): Promise<void> {
		return this.stop();
	}

	/** How many clients do not meet `condition` within `limit` milliseconds. */
	async missing(condition: (client: LoadClient) => boolean, limit: number): Promise<number> {
		const count = () => this.clients.filter((client) => !condition(client)).length;
		// It fails by being late only, and then the count says so.
		await until(() => count() === 0, "all clients", limit).catch(() => undefined);
		return count();
	}

	/** Of those that write between two writes, of the others between two reads. */
	longest(writes: boolean): ByPhase {
		const longest = nothing();
		for (const client of this.clients) {
			if (client.writes !== writes) continue;
			for (const phase of PHASES) longest[phase] = Math.max(longest[phase], client.gap[phase]);
		}
		return longest;
	}

	failed(state: string, message: string): void {
		let error = this.#errors.get(state);
		if (error === undefined) {
			error = { state, message, times: nothing() };
			this.#errors.set(state, error);
		}
		error.times[this.phase]++;
	}
}

/** One connection's worth of work, connecting again when it is lost. */
class LoadClient {
	readonly id: number;
	/** Whether it writes and then reads, or only reads. */
	readonly writes: boolean;
	/** Confirmed writes: which, and the port of the server that took it. */
	readonly confirmed: { n: number; port: number; phase: Phase }[] = [];
	reads = 0;
	/** Reads since the old primary is back, by the port of the server. */
	readonly lateReads = new Map<number, number>();
	/** When a server first took a write, by its port. */
	readonly firstWriteAt = new Map<number, number>();
	/** The longest between two successes of what it is there for: writes if it writes, else reads. */
	readonly gap = nothing();
	readonly #load: Load;
	/** performance.now() of the newest such success; 0 before the first. */
	#last = 0;
	#n = 0;

	constructor(load: Load, id: number, writes: boolean) {
		this.#load = load;
		this.id = id;
		this.writes = writes;
	}

	activeSince(time: number): boolean {
		return this.#last > time;
	}

	async run(): Promise<void> {
		const load = this.#load;
		while (!load.stopping) {
			let client: RawClient | undefined;
			try {
				client = await RawClient.connect({
					port: load.port,
					user: "pgdog",
					password: "pgdog",
					database: "pgdog",
					timeout: load.patience,
				});
				while (!load.stopping && !client.ended) await this.#round(client);
				await client[Symbol.asyncDispose]();
			} catch (error) {
				this.#suffer(error);
				client?.reset();
				await Bun.sleep(REGRET);
			}
		}
	}

	/** A write with parameters, then reads as texts that differ: both protocols. */
	async #round(client: RawClient): Promise<void> {
		const n = ++this.#n;
		if (this.writes) {
			const write = "INSERT INTO failover_write (client, n) VALUES ($1, $2) RETURNING inet_server_port()";
			const port = await this.#try(client.extended(write, [String(this.id), String(n)]));
			if (port !== undefined) this.#wrote(n, port);
		}
		for (let i = 0; i < READS_PER_WRITE && !client.ended && !this.#load.stopping; i++) {
			const id = (n * READS_PER_WRITE + i) % SEEDED;
			const port = await this.#try(
				client.query(`SELECT inet_server_port(), value FROM failover_read WHERE id = ${id}`),
			);
			if (port !== undefined) this.#hasRead(port);
		}
		await Bun.sleep(THINK);
	}

	/** The port of the server that answered; undefined for an error, which is counted. Throws when no answer came in time. */
	async #try(answer: Promise<QueryResult>): Promise<number | undefined> {
		const { rows, errors } = await answer;
		const port = Number(rows[0]?.[0] ?? Number.NaN);
		if (errors.length === 0 && !Number.isNaN(port)) return port;
		const [error] = errors;
		this.#load.failed(error?.C ?? "closed", error?.M ?? "the connection ended");
		await Bun.sleep(REGRET);
		return undefined;
	}

	#suffer(error: unknown): void {
		if (error instanceof LoginError) this.#load.failed(error.fields.C ?? "closed", error.message);
		else {
			const { message } = error as Error;
			// RawClient says how long it waited, and for what; the rest is the kernel's refusal.
			const first = message.split("\n", 1)[0] ?? "";
			const state = first.startsWith("waited") ? "timeout" : /ended/.test(first) ? "closed" : "unreachable";
			this.#load.failed(state, first);
		}
	}

	#wrote(n: number, port: number): void {
		const now = performance.now();
		this.confirmed.push({ n, port, phase: this.#load.phase });
		if (!this.firstWriteAt.has(port)) this.firstWriteAt.set(port, now);
		this.#beat(now);
	}

	#hasRead(port: number): void {
		this.reads++;
		if (this.#load.phase === "return") this.lateReads.set(port, (this.lateReads.get(port) ?? 0) + 1);
		if (!this.writes) this.#beat(performance.now());
	}

	#beat(now: number): void {
		const { phase } = this.#load;
		if (this.#last > 0) this.gap[phase] = Math.max(this.gap[phase], now - this.#last);
		this.#last = now;
	}

	/** Counts the gap that is open: a stuck client's last one has no end. */
	finish(): void {
		this.#beat(performance.now());
	}
}

function nothing(): ByPhase {
	return { before: 0, failover: 0, return: 0 };
}

function sum(values: number[]): number {
	return values.reduce((total, value) => total + value, 0);
}
