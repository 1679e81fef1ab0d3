// `npm run regress`: PostgreSQL's own regression and isolation tests, straight and through the proxy in session mode, and which of
// them say something else. What they say, and the differences, stay in .cache/regress. Exits 1 when a test differs that is not
// expected to. Needs Debian's PostgreSQL, a C compiler and half an hour; it is not part of `npm test`.
//
//   bun scripts/regress.ts [--suite regress|isolation] [--keep-straight]

import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { freePort } from "../test/support/postgres.ts";
import { own, postgresHome, type RunAs, run, writeOwned } from "../test/support/postgres-home.ts";
import { type Proxy, startProxy } from "../test/support/proxy.ts";
import { until } from "../test/support/until.ts";
import { findSuite, type Suite } from "./regress/sources.ts";

/** Tests that may not say the same through a proxy, and why: each by the order in which backends come to clients. */
const EXPECTED: Record<string, string> = {
	guc: "wants a backend that has not loaded plpgsql, which no RESET unloads",
	stats: "counts what backends do, and those of the proxy live on",
	temp: "looks for what a backend has left when it ended, and those of the proxy live on",
};

const CACHE = join(import.meta.dir, "../.cache/regress");
const SUITES = ["regress", "isolation"] as const;
type SuiteName = (typeof SUITES)[number];

const { values } = parseArgs({
	options: {
		suite: { type: "string" },
		// Does not run the tests straight again: what they said the last time counts.
		"keep-straight": { type: "boolean", default: false },
	},
});
const wanted = SUITES.filter((name) => values.suite === undefined || values.suite === name);
if (wanted.length === 0) throw new Error(`--suite ${values.suite}: there are ${SUITES.join(" and ")}`);

const DATABASES: Record<SuiteName, string> = { regress: "regression", isolation: "isolation_regression" };

/** A fresh server of Debian's version, with the databases that the drivers would make themselves. */
class Server implements AsyncDisposable {
	readonly port = freePort();
	readonly folder: string;
	readonly #suite: Suite;
	readonly #runAs: RunAs | undefined;
	#process: Bun.Subprocess | undefined;

	constructor(suite: Suite, folder: string, runAs: RunAs | undefined) {
		this.#suite = suite;
		this.#runAs = runAs;
		this.folder = folder;
	}

	async start(): Promise<void> {
		const data = join(this.folder, "data");
		mkdirSync(this.folder, { mode: 0o755 });
		own(this.folder, this.#runAs);
		const initdb = [join(this.#suite.bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust"];
		await run([...initdb, "-E", "UTF8", "--no-locale", "--no-sync"], this.#runAs);
		const settings = { port: this.port, listen_addresses: "127.0.0.1", unix_socket_directories: this.folder };
		// As the driver sets them for a server of its own.
		const more = { fsync: "off", max_prepared_transactions: 2, max_connections: 120, log_statement: "none" };
		const lines = Object.entries({ ...settings, ...more }).map(([name, value]) => `${name} = '${value}'\n`);
		writeOwned(join(data, "postgresql.auto.conf"), lines.join(""), this.#runAs);
		this.#process = Bun.spawn([join(this.#suite.bin, "postgres"), "-D", data], {
			stdin: "ignore",
			stdout: "ignore",
			stderr: Bun.file(join(this.folder, "server.log")),
			cwd: "/",
			env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
			detached: true,
			...this.#runAs,
		});
		this.#process.unref();
		const pidFile = join(data, "postmaster.pid");
		const ready = () => existsSync(pidFile) && readFileSync(pidFile, "utf8").split("\n")[7]?.trim() === "ready";
		await until(() => ready() || this.#process?.exitCode !== null, "PostgreSQL", 60_000);
		for (const database of Object.values(DATABASES)) {
			await this.psql("postgres", `CREATE DATABASE ${database} TEMPLATE template0`);
			// As the driver does where it makes the database.
			for (const setting of ["messages", "monetary", "numeric", "time"])
				await this.psql("postgres", `ALTER DATABASE ${database} SET lc_${setting} TO 'C'`);
			await this.psql("postgres", `ALTER DATABASE ${database} SET bytea_output TO 'hex'`);
			await this.psql("postgres", `ALTER DATABASE ${database} SET timezone_abbreviations TO 'Default'`);
		}
	}

	async psql(database: string, sql: string): Promise<void> {
		const address = ["-h", "127.0.0.1", "-p", String(this.port), "-U", "postgres", "-d", database];
		await run([join(this.#suite.bin, "psql"), "-X", "-q", ...address, "-c", sql], this.#runAs);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		this.#process?.kill("SIGQUIT");
		await this.#process?.exited;
	}
}

function startSession(port: number): Promise<Proxy> {
	const databases = [...Object.values(DATABASES), "postgres"];
	const general = {
		workers: 2,
		pooler_mode: "session",
		auth_type: "trust",
		// The largest group of tests runs twenty at once, and each may have several sessions.
		default_pool_size: 30,
		log_connections: false,
		log_disconnections: false,
	};
	return startProxy({
		config: { general, databases: databases.map((name) => ({ name, host: "127.0.0.1", port })) },
		users: databases.map((database) => ({ name: "postgres", database, password: "postgres" })),
	});
}

/** Runs a suite against `port`; what it says is in the folder `into` afterwards. */
async function drive(
	name: SuiteName,
	suite: Suite,
	server: Server,
	port: number,
	into: string,
	runAs: RunAs | undefined,
) {
	// Written to by the driver and by the server, who are the same user; the names of its folders get into no answer.
	const output = join(server.folder, name);
	cpSync(join(suite.tests, name), output, { recursive: true });
	await run(["chown", "-R", runAs ? `${runAs.uid}:${runAs.gid}` : String(process.getuid?.()), output], undefined);
	const child = Bun.spawn(
		[
			name === "regress" ? suite.regress : suite.isolation,
			"--use-existing",
			`--bindir=${suite.bin}`,
			`--inputdir=${output}`,
			`--outputdir=${output}`,
			`--dlpath=${suite.libraries}`,
			`--schedule=${join(output, name === "regress" ? "parallel_schedule" : "isolation_schedule")}`,
			"--host=127.0.0.1",
			`--port=${port}`,
			"--user=postgres",
			`--dbname=${DATABASES[name]}`,
		],
		{
			cwd: output,
			stdin: "ignore",
			stdout: "pipe",
			stderr: "inherit",
			env: {
				PATH: "/usr/bin:/bin",
				LC_ALL: "C",
				PGCONNECT_TIMEOUT: "30",
				...(name === "isolation" ? { LD_PRELOAD: suite.backendPid } : {}),
			},
			...runAs,
		},
	);
	const said = await child.stdout.text();
	await child.exited;
	rmSync(into, { recursive: true, force: true });
	mkdirSync(into, { recursive: true });
	writeFileSync(join(into, "driver.log"), said);
	const results = join(output, "results");
	if (!existsSync(results)) throw new Error(`${name} did not run:\n${said}`);
	cpSync(results, join(into, "results"), { recursive: true });
	const failed = [...said.matchAll(/^(?:test)?\s*(\S+)\s+\.\.\. FAILED/gm)].map((match) => match[1]);
	console.log(
		`  ${said
			.trimEnd()
			.split("\n")
			.findLast((line) => /tests (passed|failed)/.test(line))
			?.replaceAll("=", "")
			.trim()}`,
	);
	if (failed.length > 0) console.log(`  not as PostgreSQL's authors expect: ${failed.join(" ")}`);
}

/** Names of the tests that said something else; writes how. */
function compare(name: SuiteName, place: string): string[] {
	const results = (side: string) => join(place, side, name, "results");
	const outputs = (side: string) => readdirSync(results(side)).filter((file) => file.endsWith(".out"));
	const differing: string[] = [];
	const diffs = join(place, "diffs", name);
	rmSync(diffs, { recursive: true, force: true });
	mkdirSync(diffs, { recursive: true });
	for (const file of new Set([...outputs("straight"), ...outputs("proxy")])) {
		const sides = ["straight", "proxy"].map((side) => join(results(side), file));
		const { exitCode, stdout } = Bun.spawnSync(["diff", "-u", "-N", ...sides]);
		if (exitCode === 0) continue;
		differing.push(file.replace(/\.out$/, ""));
		writeFileSync(join(diffs, file.replace(/\.out$/, ".diff")), stdout);
	}
	return differing.sort();
}

mkdirSync(CACHE, { recursive: true });
const suite = findSuite(join(CACHE, "source"));
console.log(`PostgreSQL ${suite.version}`);
const home = await postgresHome();

for (const side of ["straight", "proxy"]) {
	if (side === "straight" && values["keep-straight"] && wanted.every((name) => existsSync(join(CACHE, side, name))))
		continue;
	await using server = new Server(suite, join(home.folder, `regress-${side}`), home.runAs);
	await server.start();
	await using proxy = side === "proxy" ? await startSession(server.port) : null;
	for (const name of wanted) {
		console.log(`${name}, ${side === "proxy" ? "through the proxy" : "straight"}`);
		await drive(name, suite, server, proxy?.port ?? server.port, join(CACHE, side, name), home.runAs);
	}
	if (proxy !== null) writeFileSync(join(CACHE, "proxy", "proxy.log"), proxy.log);
}

let unexpected = 0;
for (const name of wanted) {
	const differing = compare(name, CACHE);
	console.log(`\n${name}: ${differing.length === 0 ? "no test differs" : `${differing.length} tests differ`}`);
	for (const test of differing) {
		const reason = name === "regress" ? EXPECTED[test] : undefined;
		console.log(`  ${test}${reason === undefined ? "" : ` (expected: it ${reason})`}`);
		if (reason === undefined) unexpected++;
	}
}
console.log(`\ndifferences: ${join(".cache", "regress", "diffs")}`);
process.exit(unexpected > 0 ? 1 : 0);
