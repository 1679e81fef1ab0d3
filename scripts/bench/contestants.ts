// Who takes part in the bench: each is a port to aim pgbench at and, for a proxy, the process whose CPU is counted. All log in
// by trust on both sides, so that what is measured is the forwarding.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Authority, type Pair } from "../../test/support/certificates.ts";
import { type Cluster, freePort, startPostgres } from "../../test/support/postgres.ts";
import { own, type RunAs, temporaryFolder, unprivileged } from "../../test/support/postgres-home.ts";
import { type Proxy, startProxy } from "../../test/support/proxy.ts";
import { RawClient } from "../../test/support/raw-client.ts";
import { adopt } from "../../test/support/reaper.ts";
import { requireTool, runTool } from "../../test/support/tools.ts";
import { until } from "../../test/support/until.ts";
import { buildExamples } from "../build-bridge.ts";
import { newestPgBouncer, versionOf } from "./pgbouncer.ts";

export interface Contestant {
	name: string;
	port: number;
	/** The proxy's process; undefined for the direct connection. */
	pid: number | undefined;
	/** Whether it serves prepared statements in transaction mode (PgBouncer: since 1.21). */
	prepares: boolean;
	/** pgbench speaks TLS with it. */
	encrypts?: boolean;
}

/** What tells one of ours from `workers=1`. */
interface Extras {
	/** Reads are spread over the replicas too. */
	spread?: boolean;
	/** Two shards, databases of one server: what names no shard is for both. */
	shards?: boolean;
	/** Its server is reached by a Unix socket. */
	sockets?: boolean;
	/** It is spoken to by TLS. */
	tls?: Pair;
	/** Files of the libraries that it loads. */
	plugins?: string[];
	env?: Record<string, string>;
	/** Another executable that reads the same configuration: PgDog's. */
	binary?: string;
}

export interface Field extends AsyncDisposable {
	contestants: Contestant[];
	versions: Record<string, string>;
}

export const USER = "pgdog_trust";
export const DATABASE = "pgdog";
const POOL = 10;

/** The second of `shards=N`: a copy of the first. */
const SECOND_SHARD = "pgdog_shard_1";

/** Servers beside the primary that `replicas=N` reads from. */
const REPLICAS = 2;

/** More than anybody asks for; each has a connection at PgBouncer, which refuses the rest. */
const MOST_CLIENTS = 10_000;

/**
 * `workers=N`: ours with N threads before the primary; `replicas=N`: the same, with reads spread over its replicas too;
 * `plugin=N`: as `workers=N`, with a plugin that walks the tree of each statement; `shards=N`: as `workers=N`, before two shards, each
 * of which is asked for every row; `sockets=N`: as `workers=N`, with the primary's Unix socket in place of its port; `tls=N`: as
 * `workers=N`, with clients that speak TLS, as with `pgbouncer-tls`.
 */
const OURS = /^(workers|replicas|plugin|shards|sockets|tls)=(\d+)$/;

/** The example that looks at every table a statement names; it routes none, for its list has one that pgbench does not know. */
const PLUGIN = "primary_only_tables";

/**
 * Starts PostgreSQL, fills it at `scale`, and starts those of `names`. All have the same primary; it has replicas only when one
 * of them reads there. Throws when one does not start.
 */
export async function startContestants(names: string[], scale: number): Promise<Field> {
	const stack = new AsyncDisposableStack();
	try {
		const some = (kind: string) => names.some((name) => OURS.exec(name)?.[1] === kind);
		const replicas = some("replicas") ? REPLICAS : 0;
		const settings = { max_connections: 300, shared_buffers: "128MB" };
		const databases = some("shards") ? [SECOND_SHARD] : [];
		const cluster = stack.use(await startPostgres({ settings, replicas, databases }));
		for (const database of [DATABASE, ...databases]) await fill(cluster, database, scale);
		await cluster.primary.sql("CHECKPOINT");
		await cluster.replicated();
		const versions: Record<string, string> = {};
		const [row] = await cluster.primary.sql("SHOW server_version");
		versions.PostgreSQL = String(row?.server_version);
		versions.pgbench = (await runTool([requireTool("pgbench"), "--version"])).stdout.trim();
		const contestants: Contestant[] = [];
		const authority = stack.use(await Authority.create());
		const pair = await authority.issue({ name: "localhost" });
		for (const name of names) {
			const ours = OURS.exec(name);
			if (name === "direct") contestants.push({ name, port: cluster.port, pid: undefined, prepares: true });
			else if (name === "pgbouncer" || name === "pgbouncer-tls") {
				const binary = await newestPgBouncer();
				versions.PgBouncer = await versionOf(binary);
				const tls = name === "pgbouncer" ? undefined : pair;
				contestants.push({ ...(await startPgBouncer(binary, cluster, versions.PgBouncer, stack, tls)), name });
			} else if (name === "pgdog") {
				const binary = process.env.PGDOG_BIN;
				if (!binary) throw new Error("PGDOG_BIN is to name PgDog's executable");
				versions["PgDog itself"] = (await runTool([binary, "--version"])).stdout.trim();
				const proxy = stack.use(await startOurs(cluster, 1, { binary }));
				contestants.push({ name, port: proxy.port, pid: proxy.pid, prepares: true });
			} else if (ours) {
				const kind = ours[1];
				const extras = {
					spread: kind === "replicas",
					shards: kind === "shards",
					sockets: kind === "sockets",
					...(kind === "tls" && { tls: pair }),
					...(kind === "plugin" && withPlugin(stack)),
				};
				const proxy = stack.use(await startOurs(cluster, Number(ours[2]), extras));
				versions.pgdog = (await runTool([join(import.meta.dir, "../../dist/pgdog"), "--version"])).stdout.trim();
				contestants.push({ name, port: proxy.port, pid: proxy.pid, prepares: true, encrypts: kind === "tls" });
			} else
				throw new Error(
					`nobody is called ${name}: direct, pgbouncer, pgbouncer-tls, pgdog, workers=N, replicas=N, plugin=N, shards=N, sockets=N, tls=N`,
				);
		}
		return { contestants, versions, [Symbol.asyncDispose]: () => stack.disposeAsync() };
	} catch (error) {
		await stack.disposeAsync();
		throw error;
	}
}

async function fill(cluster: Cluster, database: string, scale: number): Promise<void> {
	await cluster.primary.sql(`GRANT ALL ON SCHEMA public TO ${USER}`, { database });
	const result = await runTool(
		[requireTool("pgbench"), "-i", "-q", "-s", String(scale), "-h", "127.0.0.1", "-p", String(cluster.port)].concat(
			"-U",
			USER,
			database,
		),
		{},
		300_000,
	);
	if (result.code !== 0) throw new Error(`pgbench -i: ${result.stderr}`);
	await cluster.primary.sql("VACUUM ANALYZE", { database });
}

/** The plugin's library, and the file that it reads its list from. */
function withPlugin(stack: AsyncDisposableStack): Extras {
	const folder = mkdtempSync(join(tmpdir(), "pgdog-bench-plugin-"));
	stack.defer(() => rmSync(folder, { recursive: true, force: true }));
	const tables = join(folder, "tables");
	writeFileSync(tables, "balances\n");
	return { plugins: buildExamples([PLUGIN]), env: { PRIMARY_ONLY_TABLES: tables } };
}

function startOurs(cluster: Cluster, workers: number, extras: Extras): Promise<Proxy> {
	const { spread = false, shards = false, sockets = false, plugins = [], env, binary, tls } = extras;
	const servers = spread ? [cluster.primary, ...cluster.replicas] : [cluster.primary];
	const second = { shard: 1, database_name: SECOND_SHARD };
	return startProxy({
		...(binary === undefined ? {} : { binary }),
		...(env === undefined ? {} : { env }),
		config: {
			general: {
				host: "127.0.0.1",
				port: freePort(),
				workers,
				default_pool_size: POOL,
				auth_type: "trust",
				...(tls && { tls_certificate: tls.certificate, tls_private_key: tls.key, tls_client_required: true }),
				// pgbench counts the branches first, which no merge adds up.
				...(shards && { cross_shard_unmerged: "permit" }),
				...(spread && { read_write_split: "include_primary", load_balancing_strategy: "random" }),
			},
			databases: [...servers, ...(shards ? [cluster.primary] : [])].map(({ host, port, socketDir }, i) => ({
				name: DATABASE,
				host: sockets ? socketDir : host,
				port,
				role: i === 0 || shards ? "primary" : "replica",
				...(shards && i > 0 && second),
			})),
			plugins: plugins.map((name) => ({ name, required: true })),
		},
		// auth_type trust lets in who exists and has a password, whatever it is.
		users: [{ name: USER, database: DATABASE, password: "trusted" }],
	});
}

async function startPgBouncer(
	binary: string,
	cluster: Cluster,
	version: string,
	stack: AsyncDisposableStack,
	tls: Pair | undefined,
): Promise<Contestant> {
	const [major = 0, minor = 0] = version.split(".").map(Number);
	const prepares = major > 1 || minor >= 21;
	// It refuses root, as PostgreSQL does.
	const runAs: RunAs | undefined = process.getuid?.() === 0 ? unprivileged() : undefined;
	const parent = temporaryFolder(runAs);
	stack.defer(() => rmSync(parent, { recursive: true, force: true }));
	const folder = join(parent, "pgbouncer");
	mkdirSync(folder);
	own(folder, runAs);
	const port = freePort();
	const users = join(folder, "users.txt");
	writeFileSync(users, `"${USER}" ""\n`);
	const file = (name: string, text: string) => {
		const path = join(folder, name);
		writeFileSync(path, text, { mode: 0o600 });
		own(path, runAs);
		return path;
	};
	const settings = {
		...(tls && {
			client_tls_sslmode: "require",
			client_tls_cert_file: file("server.pem", tls.certificatePem),
			client_tls_key_file: file("server.key", tls.keyPem),
		}),
		listen_addr: "127.0.0.1",
		listen_port: port,
		unix_socket_dir: "",
		auth_type: "trust",
		auth_file: users,
		pool_mode: "transaction",
		default_pool_size: POOL,
		max_client_conn: MOST_CLIENTS,
		ignore_startup_parameters: "extra_float_digits",
		...(prepares && { max_prepared_statements: 200 }),
		logfile: join(folder, "log"),
	};
	const lines = Object.entries(settings).map(([key, value]) => `${key} = ${value}`);
	const server = `${DATABASE} = host=127.0.0.1 port=${cluster.port} dbname=${DATABASE}`;
	const ini = join(folder, "pgbouncer.ini");
	writeFileSync(ini, ["[databases]", server, "[pgbouncer]", ...lines, ""].join("\n"));
	const child = Bun.spawn([binary, "-q", ini], {
		cwd: folder,
		stdin: "ignore",
		stdout: "ignore",
		stderr: "inherit",
		...runAs,
	});
	adopt(child);
	stack.defer(async () => {
		child.kill("SIGKILL");
		await child.exited;
	});
	await until(async () => {
		if (child.exitCode !== null) throw new Error(`pgbouncer exited ${child.exitCode}`);
		const client = await RawClient.connect({ port, user: USER, database: DATABASE, ...(tls && { tls: {} }) }).catch(
			() => undefined,
		);
		client?.close();
		return client !== undefined;
	}, "pgbouncer to answer");
	return { name: "pgbouncer", port, pid: child.pid, prepares, encrypts: tls !== undefined };
}
