// Reads pgdog.toml and users.toml into a `Snapshot`, or says everything that is wrong with them at once.
// Called by main.ts at start, at each reload and for `configcheck`. Reads the two files, and those with secrets and for TLS that they
// name: flags and environment come in as values.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { defaults, environmentDefaults, unservedKeys } from "./check.ts";
import { checkClusters, type DatabaseRow } from "./cluster.ts";
import { environmentUrls, readDatabaseUrl } from "./database-url.ts";
import { checkTables, entriesOf, type File, missing, readFile, section } from "./file.ts";
import type { HbaEntry } from "./hba.ts";
import { hba as hbaSettings, readHba } from "./hba-list.ts";
import { checkPeers, type Peer, peer } from "./peers.ts";
import { readSharding } from "./placements.ts";
import { Findings, type Problem, type ValueSource } from "./problem.ts";
import { checkReads } from "./reads.ts";
import { clusters, expandUsers, hasWildcard, isSecured, membersOf, type UserRow } from "./resolve.ts";
import { withSecrets } from "./secrets.ts";
import type { Values } from "./setting.ts";
import type { General, Tcp } from "./settings.ts";
import * as settings from "./settings.ts";
import { type Admin, type Database, type PluginEntry, type Snapshot, type User, WILDCARD } from "./snapshot.ts";
import { checkSocketPath } from "./socket-path.ts";
import { TlsReading } from "./tls.ts";
import * as unserved from "./unserved.ts";

/** The defaults of an entry of `[[databases]]`. */
const DATABASE = defaults(settings.database);

/** Secrets of a user that may stand elsewhere. */
const SECRETS = ["password", "server_password"];

/** Tables of pgdog.toml. */
const TABLES = [
	"general",
	"databases",
	"admin",
	"tcp",
	"plugins",
	"write_functions",
	"peers",
	"hba",
	"rewrite",
	"sharded_tables",
	"sharded_mappings",
	"sharded_schemas",
	"omnisharded_tables",
];
/** Of users.toml. */
const USERS_TABLES = ["users", "admin"];

/** Settings given with `run`: they win over file and environment. */
export interface Overrides {
	readonly default_pool_size?: number;
	readonly min_pool_size?: number;
	readonly pooler_mode?: "transaction" | "session";
}

export interface LoadInput {
	readonly configPath: string;
	/** `--config` was given: then the file has to be there. */
	readonly configNamed?: boolean;
	/** Undefined: not named on the command line, see `usersPathFor`. */
	readonly usersPath?: string;
	readonly databaseUrls: readonly string[];
	readonly overrides: Overrides;
	readonly env: Readonly<Record<string, string | undefined>>;
	/** What is in force, at a reload: files that were read have to be there still, and the admin keeps a password. */
	readonly before?: Snapshot;
}

export type Loaded =
	/** `notes`: lines for the log at info level; the warnings are in the snapshot. */
	| { readonly ok: true; readonly snapshot: Snapshot; readonly notes: readonly string[] }
	| {
			readonly ok: false;
			/** In the order of the files and of the lines in them. */
			readonly problems: readonly Problem[];
			readonly warnings: readonly string[];
			readonly notes: readonly string[];
	  };

/** What `[[databases]]` and users.toml say, or the URLs in their place. */
interface Entries {
	readonly databases: readonly DatabaseRow[];
	readonly databaseSource: ValueSource;
	readonly rows: readonly UserRow[];
	readonly userSource: ValueSource;
	readonly usersFile: File | undefined;
}

/** Throws for nothing that is in the files (see `Loaded`). The snapshot is deeply frozen plain data, fit for `postMessage`. */
export function load(input: LoadInput): Loaded {
	const report = new Findings();
	const notes: string[] = [];
	const config = readFile(
		input.configPath,
		needOf(input.configPath, input, "--config", input.configNamed),
		report,
		notes,
	);
	checkTables(config, TABLES, USERS_TABLES, unserved.unservedTables, report);

	const general = readGeneral(config, input, report);
	const tls = new TlsReading(general, config.source, report);
	const { values: tcpValues } = section(settings.tcp, unserved.unservedTcp, config, "tcp", report);
	const tcp: Tcp = { ...defaults(settings.tcp), ...tcpValues };
	section({}, unserved.unservedRewrite, config, "rewrite", report);
	const entries = readEntries(config, tls, input, report, notes);
	const admin = readAdmin(config, entries.usersFile, input, report);
	const plugins = readPlugins(config, report);
	const writeFunctions = readWriteFunctions(config, report);
	const peers = readPeers(config, general, report);
	const hba = readList(config, general, report);
	const databases = checkClusters(entries.databases, entries.databaseSource, report);
	const shards = (name: string) => new Set(membersOf({ databases, admin }, name).map(({ shard }) => shard)).size;
	const sharding = readSharding(config, shards, entries.usersFile !== undefined, report);
	checkAsked(general, databases, config.source, report);
	checkFiles(input, report);
	if (report.problems.length > 0) {
		return { ok: false, problems: inOrder(report.problems, config.source.name), warnings: report.warnings, notes };
	}

	checkReads({ rows: entries.databases, source: entries.databaseSource }, { general, source: config.source }, report);
	const mayPass = general.passthrough_auth !== "disabled";
	const all: User[] = expandUsers(entries.rows, databases, entries.userSource, report, mayPass);
	const users = all.filter(isSecured);
	checkPassing(general, config.source, report);
	const snapshot: Snapshot = {
		general,
		tcp,
		tls: tls.files,
		admin,
		databases,
		users,
		passwordless: all.filter((user) => !isSecured(user)),
		clusters: clusters({ general, databases, admin, sharding }, users, report.warnings),
		plugins,
		peers,
		hba,
		sharding,
		writeFunctions,
		files: report.files,
		warnings: report.warnings,
	};
	return { ok: true, snapshot: freeze(snapshot), notes };
}

/**
 * Where users.toml is sought when no flag names it. PgDog takes it from the working directory always; but a service is
 * started with `--config /etc/pgdog/pgdog.toml` from anywhere, and a users.toml that lies in whatever directory that was
 * would decide who may log in. So the one beside a config file in a named folder is taken first, where there is one.
 */
export function usersPathFor(configPath: string, loaded: readonly string[] = []): string {
	const beside = join(dirname(configPath), "users.toml");
	// A users.toml that was read before is looked for where it was: when it is away for a moment, another must not decide.
	const isThere = () => existsSync(beside) || loaded.includes(beside);
	return /[/\\]/.test(configPath) && isThere() ? beside : "users.toml";
}

/** Why a file has to be there; undefined when it need not. */
function needOf(path: string, { before }: LoadInput, flag: string, named = false): string | undefined {
	if (named) return `${flag} names it`;
	return before?.files.includes(path) ? "it was loaded before" : undefined;
}

/** Reports files that a flag names or that were read before and are not there, also where nothing is read from them now. */
function checkFiles(input: LoadInput, report: Findings): void {
	const named = input.usersPath === undefined ? [] : [input.usersPath];
	for (const path of new Set([...named, ...(input.before?.files ?? [])])) {
		if (report.files.includes(path) || report.problems.some(({ file }) => file === path) || existsSync(path)) continue;
		missing(path, needOf(path, input, "--users", named.includes(path)) ?? "", report);
	}
}

function readGeneral(config: File, input: LoadInput, report: Findings): General {
	const { values } = section(settings.general, unserved.unservedGeneral, config, "general", report);
	const fromEnvironment = environmentDefaults(settings.general, input.env, report.warnings);
	for (const name of unservedKeys(unserved.unservedGeneral)) {
		const variable = `PGDOG_${name.toUpperCase()}`;
		if (input.env[variable])
			report.warnings.push(`environment: ${variable} is known to PgDog, not served yet: ignored`);
	}
	const general = { ...fromEnvironment, ...values, ...input.overrides };
	const { unix_socket_dir, port } = general;
	if (unix_socket_dir !== undefined)
		checkSocketPath(unix_socket_dir, port, "general.unix_socket_dir", config.source, report);
	if (general.healthcheck_port === general.port) {
		const accepted = "another port than general.port, where clients are listened for";
		report.problem(config.source, "general.healthcheck_port", "value", String(general.port), accepted);
	}
	if (general.pooler_mode !== "session" || general.prepared_statements === "disabled") return general;
	if (values.prepared_statements !== undefined) {
		const text = `pooler_mode = "session" turns prepared_statements to "disabled"`;
		report.warn(config.source, "general.prepared_statements", text);
	}
	return { ...general, prepared_statements: "disabled" };
}

/** Of which database `auth_query` asks. */
function checkAsked(general: General, databases: readonly Database[], source: ValueSource, report: Findings): void {
	const { auth_query_user, auth_query_database: asked } = general;
	const at = "general.auth_query_database";
	if (asked !== undefined && !databases.some(({ name }) => name === asked && name !== WILDCARD))
		report.problem(source, at, "value", asked, "the name of an entry of [[databases]]");
	if (auth_query_user === undefined || asked !== undefined || !hasWildcard(databases)) return;
	// Whoever has proven nothing yet would have connections made to databases that he thinks of.
	const accepted = 'the name of another entry of [[databases]], since there is one for any database ("*")';
	report.problem(source, at, "missing", "", accepted);
}

/** PgDog says the like: passwords that anybody on the way can read, or that nobody is asked for. */
function checkPassing({ passthrough_auth, ...general }: General, source: ValueSource, report: Findings): void {
	if (passthrough_auth === "disabled") return;
	const at = "general.passthrough_auth";
	const isPlain = passthrough_auth.startsWith("enabled_plain");
	if (isPlain && !general.tls_client_required)
		report.warn(
			source,
			at,
			`passthrough_auth = "${passthrough_auth}": passwords may come in clear text without tls_client_required`,
		);
	if (!isPlain && general.tls_certificate === undefined && general.unix_socket_dir === undefined)
		report.warn(
			source,
			at,
			`passthrough_auth = "${passthrough_auth}" asks nobody without TLS, and there is no tls_certificate`,
		);
}

/** What the entries mean, and whether the libraries are there, is seen when they are loaded. */
function readPlugins(config: File, report: Findings): PluginEntry[] {
	const entries = entriesOf(settings.plugin, unserved.unservedPlugin, config, "plugins", report);
	const builtIn = defaults(settings.plugin);
	return entries.flatMap(({ values }) => (values.name === undefined ? [] : [{ ...builtIn, ...values }]));
}

function readWriteFunctions(config: File, report: Findings): string[] {
	const { writeFunction } = settings;
	const entries = entriesOf(writeFunction, unserved.unservedWriteFunction, config, "write_functions", report);
	return [...new Set(entries.flatMap(({ values }) => values.name ?? []))];
}

function readPeers(config: File, { peer_id }: General, report: Findings): Peer[] {
	const rows = entriesOf(peer, unserved.unservedPeer, config, "peers", report);
	return checkPeers(rows, peer_id, config.source, report);
}

function readList(config: File, general: General, report: Findings): HbaEntry[] {
	const rows = entriesOf(hbaSettings, unserved.unservedHba, config, "hba", report);
	if (rows.length === 0 && config.table.hba !== undefined)
		report.warn(config.source, "hba", "hba is empty: all clients may log in, as auth_type says");
	return readHba(rows, general, config.source, report);
}

/** `[admin]` of users.toml wins over that of pgdog.toml, key by key. */
function readAdmin(config: File, users: File | undefined, input: LoadInput, report: Findings): Admin {
	const read = (file: File) => {
		const { values } = section(settings.admin, unserved.unservedAdmin, file, "admin", report);
		return withSecrets(values, ["password"], { at: "admin", source: file.source }, input.env, report);
	};
	const { password: fromEnvironment } = environmentDefaults(
		{ password: settings.admin.password },
		input.env,
		report.warnings,
	);
	const builtIn = defaults(settings.admin);
	const given = { ...builtIn, password: fromEnvironment, ...read(config), ...(users ? read(users) : {}) };
	const { name, user } = given;
	if (given.password !== undefined) return { name, user, password: given.password, generated: false };
	const before = input.before?.admin;
	if (before === undefined) return { name, user, password: randomPassword(), generated: true };
	// A new random password would lock out whoever is to mend the file: nobody is told it.
	if (!before.generated && report.problems.length === 0)
		report.warnings.push("[admin] has no password any more: the one of before stays until a restart");
	const isGone = config.table.admin === undefined && users?.table.admin === undefined;
	return isGone ? before : { ...before, name, user };
}

/** PgDog's form: `_pgdog_` and twelve characters, here 71 bits. */
function randomPassword(): string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	let text = "_pgdog_";
	while (text.length < 19) {
		// Bytes from 248 on are thrown away: 62 does not divide 256, and the first letters would come more often.
		const byte = crypto.getRandomValues(new Uint8Array(1))[0]!;
		if (byte < 248) text += alphabet[byte % 62];
	}
	return text;
}

function readEntries(config: File, tls: TlsReading, input: LoadInput, report: Findings, notes: string[]): Entries {
	const listed = entriesOf(settings.database, unserved.unservedDatabase, config, "databases", report);
	const flags = input.databaseUrls.map((url, index): [string, string] => [`--database-url ${index + 1}`, url]);
	const urls = flags.length > 0 ? flags : environmentUrls(input.env);
	if (urls.length > 0) {
		const entries = readUrls(urls, tls, input, report);
		const from = flags.length > 0 ? "the command line" : "environment";
		notes.push(`loaded ${entries.databases.length} databases from ${from}`);
		return entries;
	}
	const path = input.usersPath ?? usersPathFor(input.configPath, input.before?.files);
	const usersFile = readFile(path, needOf(path, input, "--users", input.usersPath !== undefined), report, notes);
	checkTables(usersFile, USERS_TABLES, TABLES, { refused: {}, ignored: [] }, report);
	const rows = entriesOf(settings.user, unserved.unservedUser, usersFile, "users", report);
	const { source } = usersFile;
	return {
		databases: listed.flatMap(({ at, values }) =>
			databaseRow(at, values, tls.ofDatabase(values, { at, source: config.source })),
		),
		databaseSource: config.source,
		rows: rows.map(({ at, values }) => ({
			at,
			values: withSecrets(values, SECRETS, { at, source }, input.env, report),
			server_certificate: tls.ofUser(values, { at, source }) ?? undefined,
		})),
		userSource: source,
		usersFile,
	};
}

/** URLs replace all databases and all users, the `[admin]` of users.toml included, so that file is not even read. */
function readUrls(
	urls: readonly [name: string, url: string][],
	{ files }: TlsReading,
	input: LoadInput,
	report: Findings,
): Entries {
	const databases = new Map<string, DatabaseRow>();
	const rows = new Map<string, UserRow>();
	for (const [name, text] of urls) {
		const url = readDatabaseUrl(text, { name, lines: new Map() }, input.env, report);
		if (url === undefined) continue;
		const { user, password } = url;
		for (const row of databaseRow("", url.database, files.servers)) databases.set(JSON.stringify(row), row);
		const values = { name: user, database: url.database.name, password };
		rows.set(JSON.stringify([user, values.database]), { at: "", values });
	}
	const source: ValueSource = {
		name: urls[0]![0].startsWith("-") ? "--database-url" : "PGDOG_DATABASE_URL",
		lines: new Map(),
	};
	return {
		databases: [...databases.values()],
		databaseSource: source,
		rows: [...rows.values()],
		userSource: source,
		usersFile: undefined,
	};
}

/** Fills in the defaults of an entry; none when what it must have is missing, which has then been reported. */
function databaseRow(
	at: string,
	values: Partial<Values<typeof settings.database>>,
	server_tls: Database["server_tls"],
): DatabaseRow[] {
	const { name, host, database_name = name } = values;
	if (name === undefined || host === undefined || database_name === undefined) return [];
	return [{ at, database: { ...DATABASE, ...values, name, host, database_name, server_tls } }];
}

/** By file, pgdog.toml first, and by line; what has no line comes first in its file. */
function inOrder(problems: readonly Problem[], first: string): Problem[] {
	const files = [...new Set([first, ...problems.map(({ file }) => file)])];
	return problems.toSorted((a, b) => files.indexOf(a.file) - files.indexOf(b.file) || (a.line ?? 0) - (b.line ?? 0));
}

function freeze<T>(value: T): T {
	if (typeof value === "object" && value !== null)
		for (const inner of Object.values(Object.freeze(value))) freeze(inner);
	return value;
}
