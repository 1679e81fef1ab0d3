// A real PostgreSQL for tests, the bench and `npm start`: a primary and, when asked, streaming replicas, each in a temporary
// folder and on a free port, with helpers to freeze, kill, restart and promote them. Knows nothing of the proxy.
//
//   await using cluster = await startPostgres({ replicas: 1 });
//   await cluster.primary.sql("CREATE TABLE t (id int)");

import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Client } from "pg";
import { copyTemplate, own, type PostgresHome, postgresHome, ROLES, run, writeOwned } from "./postgres-home.ts";
import { until } from "./until.ts";

export interface PostgresOptions {
	/** Streaming replicas beside the primary. Default 0. */
	replicas?: number;
	/** Files put into the data folder of each server: name to text. */
	files?: Record<string, string>;
	/** Lines put before the default pg_hba.conf, so that they win. */
	hba?: string[];
	/** postgresql.conf of all servers: name to value as written there (quotes are added). */
	settings?: Record<string, string | number | boolean>;
	/** Like `settings`, for replicas only (for example recovery_min_apply_delay). */
	replicaSettings?: Record<string, string | number | boolean>;
	/** false: listen on TCP only. Default true: both. */
	unixSocket?: boolean;
	/** Databases to create beside `postgres` and `pgdog` (which the role pgdog owns). */
	databases?: string[];
}

export interface SqlOptions {
	/** Default `postgres`, who is trusted. */
	user?: string;
	/** Default `pgdog`. */
	database?: string;
}

const DEFAULT_HBA = [
	"local all all trust",
	"host replication all 127.0.0.1/32 trust",
	...ROLES.filter((role) => role.login !== "scram-sha-256").map(
		(role) => `host all ${role.name} 127.0.0.1/32 ${role.login}`,
	),
	"host all all 127.0.0.1/32 scram-sha-256",
];

const DEFAULT_SETTINGS = {
	listen_addresses: "127.0.0.1",
	max_connections: 200,
	shared_buffers: "32MB",
	// Thrown away after the test: nothing has to survive a crash of the machine.
	fsync: "off",
	full_page_writes: "off",
	wal_keep_size: "64MB",
	max_wal_size: "256MB",
	// Segments in /dev/shm would outlive a SIGKILL; these are files of the data folder and go with it.
	dynamic_shared_memory_type: "mmap",
	jit: "off",
	timezone: "UTC",
	lc_messages: "C",
	log_line_prefix: "%m [%p] ",
	wal_receiver_status_interval: "1s",
	wal_retrieve_retry_interval: "100ms",
};

/** Starts a primary and its replicas and waits until they accept connections. Throws with the server's log when one does not. */
export async function startPostgres(options: PostgresOptions = {}): Promise<Cluster> {
	const home = await postgresHome();
	const folder = join(home.folder, `c${Bun.randomUUIDv7().slice(-8)}`);
	mkdirSync(folder, { mode: 0o755 });
	own(folder, home.runAs);
	const cluster = new Cluster(folder, new PostgresServer(home, folder, "primary", options));
	try {
		await cluster.primary.start();
		for (let i = 1; i <= (options.replicas ?? 0); i++) {
			const replica = new PostgresServer(home, folder, `replica${i}`, options, cluster.primary);
			cluster.replicas.push(replica);
			await replica.start();
		}
		for (const database of options.databases ?? []) {
			await cluster.primary.sql(`CREATE DATABASE "${database}" OWNER pgdog`);
		}
	} catch (error) {
		await cluster.stop();
		throw error;
	}
	return cluster;
}

export class Cluster implements AsyncDisposable {
	readonly folder: string;
	readonly primary: PostgresServer;
	readonly replicas: PostgresServer[] = [];

	constructor(folder: string, primary: PostgresServer) {
		this.folder = folder;
		this.primary = primary;
	}

	/** The primary's port. */
	get port(): number {
		return this.primary.port;
	}

	/** Resolves when every replica has replayed all that the primary has written so far. */
	async replicated(): Promise<void> {
		const [row] = await this.primary.sql("SELECT pg_current_wal_flush_lsn()::text AS lsn");
		for (const replica of this.replicas) {
			await until(async () => {
				const [at] = await replica.sql(`SELECT pg_last_wal_replay_lsn() >= '${row?.lsn}'::pg_lsn AS done`);
				return at?.done === true;
			}, `${replica.name} to replay ${row?.lsn}`);
		}
	}

	/** Ends all servers at once and removes their folders. */
	async stop(): Promise<void> {
		await Promise.all([this.primary, ...this.replicas].map((server) => server.stop("immediate")));
		rmSync(this.folder, { recursive: true, force: true });
	}

	[Symbol.asyncDispose](): Promise<void> {
		return this.stop();
	}
}

export class PostgresServer {
	readonly host = "127.0.0.1";
	readonly name: string;
	readonly dataDir: string;
	/** The folder with `.s.PGSQL.<port>`; "" when Unix sockets are off. */
	readonly socketDir: string;
	readonly logFile: string;
	/** Kept over restarts. 0 before the first start. */
	port = 0;
	readonly #home: PostgresHome;
	readonly #options: PostgresOptions;
	/** Whom it replicates, or did before it was promoted; undefined for a primary. */
	#primary: PostgresServer | undefined;
	#process: Bun.Subprocess | undefined;

	constructor(home: PostgresHome, folder: string, name: string, options: PostgresOptions, primary?: PostgresServer) {
		this.#home = home;
		this.#options = options;
		this.#primary = primary;
		this.name = name;
		this.dataDir = join(folder, name);
		this.logFile = join(folder, `${name}.log`);
		this.socketDir = options.unixSocket === false ? "" : folder;
	}

	/** The postmaster's process id. Throws when it does not run. */
	get pid(): number {
		if (!this.running) throw new Error(`${this.name} does not run`);
		return this.#process?.pid ?? 0;
	}

	get running(): boolean {
		return this.#process !== undefined && this.#process.exitCode === null && this.#process.signalCode === null;
	}

	get socketPath(): string {
		return join(this.socketDir, `.s.PGSQL.${this.port}`);
	}

	/** All that the server has logged. */
	get log(): string {
		return existsSync(this.logFile) ? readFileSync(this.logFile, "utf8") : "";
	}

	/**
	 * Starts a new server, or one that was stopped or killed, on the port it had and in the role it had: a primary whose replica
	 * was promoted meanwhile comes back as a second primary, on the old timeline.
	 */
	async start(): Promise<void> {
		if (this.running) return;
		if (!existsSync(this.dataDir)) await this.#create();
		for (let attempt = 1; ; attempt++) {
			const before = this.log.length;
			if (await this.#launch()) return;
			const log = this.log.slice(before);
			// Another process took the port between our asking for a free one and now.
			const clash = /could not bind|Address already in use/.test(log);
			if (!clash || attempt === 5) throw new Error(`${this.name} did not start:\n${log}`);
			this.port = freePort();
			this.#writeSettings();
		}
	}

	async #create(): Promise<void> {
		await copyTemplate(this.#home, this.dataDir);
		const hba = [...(this.#options.hba ?? []), ...DEFAULT_HBA].join("\n");
		writeOwned(join(this.dataDir, "pg_hba.conf"), `${hba}\n`, this.#home.runAs);
		for (const [name, text] of Object.entries(this.#options.files ?? {})) this.write(name, text);
		if (this.#primary) writeOwned(join(this.dataDir, "standby.signal"), "", this.#home.runAs);
		this.port = freePort();
		this.#writeSettings();
	}

	/** Writes a file of the data folder. */
	write(name: string, text: string): void {
		writeOwned(join(this.dataDir, name), text, this.#home.runAs);
	}

	#writeSettings(): void {
		const settings: Record<string, string | number | boolean> = {
			...DEFAULT_SETTINGS,
			unix_socket_directories: this.socketDir,
			port: this.port,
			...this.#options.settings,
		};
		if (this.#primary) {
			settings.primary_conninfo = `host=127.0.0.1 port=${this.#primary.port} user=postgres application_name=${this.name}`;
			Object.assign(settings, this.#options.replicaSettings);
		}
		const lines = Object.entries(settings).map(([key, value]) => `${key} = '${String(value).replaceAll("'", "''")}'\n`);
		writeOwned(join(this.dataDir, "postgresql.conf"), lines.join(""), this.#home.runAs);
	}

	/** true when the server accepts connections, false when it ended first. */
	async #launch(): Promise<boolean> {
		const log = openSync(this.logFile, "a");
		rmSync(join(this.dataDir, "postmaster.pid"), { force: true });
		const child = Bun.spawn([join(this.#home.bin, "postgres"), "-D", this.dataDir], {
			stdin: "ignore",
			stdout: log,
			stderr: log,
			cwd: "/",
			env: { PATH: process.env.PATH ?? "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" },
			// A Ctrl-C in the terminal is for us, who then stop the server in order.
			detached: true,
			...this.#home.runAs,
		});
		closeSync(log);
		child.unref();
		this.#process = child;
		await until(() => !this.running || this.#isReady(), `${this.name} to start`, 60_000);
		return this.running;
	}

	/** The postmaster writes its state into the eighth line of postmaster.pid (PostgreSQL source, LOCK_FILE_LINE_PM_STATUS). */
	#isReady(): boolean {
		try {
			return readFileSync(join(this.dataDir, "postmaster.pid"), "utf8").split("\n")[7]?.trim() === "ready";
		} catch {
			return false;
		}
	}

	/** Stops in one of PostgreSQL's shutdown modes. Rest is kept: `start()` brings it back. */
	async stop(mode: "smart" | "fast" | "immediate" = "fast"): Promise<void> {
		if (!this.running) return;
		const child = this.#process as Bun.Subprocess;
		this.resume();
		child.kill(mode === "smart" ? "SIGTERM" : mode === "fast" ? "SIGINT" : "SIGQUIT");
		if (mode === "smart") {
			await child.exited;
			return;
		}
		// It may hang on what a test did to it: then it is not asked again.
		const timer = setTimeout(() => this.#killAll("SIGKILL"), 5_000);
		await child.exited;
		clearTimeout(timer);
	}

	/** The server vanishes: SIGKILL to the postmaster and all backends. */
	async kill(): Promise<void> {
		if (!this.running) return;
		const child = this.#process as Bun.Subprocess;
		// The interlock segment of System V shared memory is left behind by a killed postmaster ("key id" in line seven).
		const segment = readFileSync(join(this.dataDir, "postmaster.pid"), "utf8").split("\n")[6]?.trim().split(/\s+/)[1];
		const pids = this.#killAll("SIGKILL");
		await child.exited;
		// The postmaster may go first: connections are closed when their backends are gone.
		await until(() => !pids.some((pid) => existsSync(`/proc/${pid}/exe`)), "the backends to end");
		if (segment) await run(["ipcrm", "-m", segment], undefined).catch(() => undefined);
	}

	/** The server hangs: postmaster and all backends are frozen, connections stay open and new ones are only queued by the kernel. */
	pause(): void {
		this.#killAll("SIGSTOP");
	}

	resume(): void {
		this.#killAll("SIGCONT");
	}

	/** @returns those who had the signal */
	#killAll(signal: NodeJS.Signals): number[] {
		if (!this.running) return [];
		const pids = [this.pid, ...this.children()];
		for (const pid of pids) {
			try {
				process.kill(pid, signal);
			} catch {
				// It ended by itself.
			}
		}
		return pids;
	}

	/** Process ids of backends and background processes. */
	children(): number[] {
		let text: string;
		try {
			text = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, "utf8");
		} catch {
			text = Bun.spawnSync(["pgrep", "-P", String(this.pid)]).stdout.toString();
		}
		return text.split(/\s+/).filter(Boolean).map(Number);
	}

	/** Makes a replica a primary and waits until it takes writes. Those that followed the same primary as it do not follow it. */
	async promote(): Promise<void> {
		const [row] = await this.sql("SELECT pg_promote(true, 30) AS done");
		if (row?.done !== true) throw new Error(`${this.name} was not promoted in 30 seconds:\n${this.log.slice(-2000)}`);
	}

	/**
	 * A running replica replicates another server from now on. It can only when that one's history holds all that it has
	 * received: of two replicas, promote the one that is ahead.
	 */
	follow(primary: PostgresServer): void {
		if (this.#primary === undefined) throw new Error(`${this.name} is no replica`);
		this.#primary = primary;
		this.#writeSettings();
		// primary_conninfo is taken over by a reload since PostgreSQL 13.
		process.kill(this.pid, "SIGHUP");
	}

	/** `postgres://…` over TCP, with the role's password. */
	url(options: SqlOptions = {}): string {
		const user = options.user ?? "postgres";
		const password = ROLES.find((role) => role.name === user)?.password;
		const login = password ? `${user}:${password}` : user;
		return `postgres://${login}@${this.host}:${this.port}/${options.database ?? "pgdog"}`;
	}

	/** Runs SQL on a connection of its own, straight to this server; the rows of the last statement. Throws what PostgreSQL says. */
	async sql(text: string, options: SqlOptions = {}): Promise<Record<string, unknown>[]> {
		const client = new Client({ connectionString: this.url(options), connectionTimeoutMillis: 10_000 });
		client.on("error", () => undefined);
		await client.connect();
		try {
			const result: unknown = await client.query(text);
			const last = (Array.isArray(result) ? result.at(-1) : result) as { rows: Record<string, unknown>[] };
			return last.rows;
		} finally {
			await client.end();
		}
	}
}

/**
 * Ports below those that the kernel gives to listeners and connections that ask for any (from 32768 on Linux): nobody else comes by
 * one between our asking and its use. Processes that run tests side by side begin at places of their own.
 */
const PORTS = { first: 10_000, count: 22_000 };
let tried = process.pid * 499;

/** A port that nobody listens on. */
export function freePort(): number {
	for (let i = 0; i < PORTS.count; i++) {
		const port = PORTS.first + (tried++ % PORTS.count);
		try {
			Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
			return port;
		} catch {
			// Somebody listens there.
		}
	}
	throw new Error(`no port of ${PORTS.first} and the ${PORTS.count} from there is free`);
}
