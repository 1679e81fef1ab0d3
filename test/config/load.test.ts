import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { type Loaded, type LoadInput, load, usersPathFor } from "../../src/config/load.ts";
import { type Problem, problemText } from "../../src/config/problem.ts";
import { environmentNames, MAX } from "../../src/config/setting.ts";
import { general as generalSettings } from "../../src/config/settings.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-config-"));
afterAll(() => rmSync(folder, { recursive: true }));
const configPath = join(folder, "pgdog.toml");
const usersPath = join(folder, "users.toml");

function loadText(config: string, users = "", more: Partial<LoadInput> = {}): Loaded {
	writeFileSync(configPath, config);
	writeFileSync(usersPath, users);
	return load({ configPath, usersPath, databaseUrls: [], overrides: {}, env: {}, ...more });
}

function snapshotOf(loaded: Loaded): Snapshot {
	if (!loaded.ok) throw new Error(loaded.problems.map(problemText).join("\n"));
	return loaded.snapshot;
}

const snapshot = (...args: Parameters<typeof loadText>): Snapshot => snapshotOf(loadText(...args));

/** Problems without their folder, so that they can be written down. */
function problems(loaded: Loaded): Problem[] {
	if (loaded.ok) return [];
	return loaded.problems.map((problem) => ({ ...problem, file: problem.file.replace(`${folder}/`, "") }));
}

const oneDatabase = '[[databases]]\nname = "app"\nhost = "127.0.0.1"\n';
const FUNCTION_NAME =
	'a function as "name" or "schema.name", as in SQL: lower case unless in double quotes, 63 bytes each at most';
const BOB = '[[users]]\nname = "bob"\ndatabase = "app"\npassword = "pw"\n';
const oneUser = '[[users]]\nname = "alice"\ndatabase = "app"\npassword = "pw"\n';

describe("defaults", () => {
	test("empty files give PgDog's defaults", () => {
		const { general, tcp, admin, clusters, plugins } = snapshot("");
		expect(general).toMatchObject({
			host: "0.0.0.0",
			port: 6432,
			workers: 2,
			default_pool_size: 10,
			min_pool_size: 1,
			pooler_mode: "transaction",
			prepared_statements: "extended",
			prepared_statements_limit: MAX,
			auth_type: "scram",
			checkout_timeout: 5000,
			query_timeout: MAX,
			client_connection_recovery: "drop",
			log_level: "info",
			idle_healthcheck_interval: 30_000,
			idle_healthcheck_delay: 5000,
			require_healthcheck_on_discovery: false,
			ban_timeout: 300_000,
			ban_replica_lag: MAX,
			ban_replica_lag_bytes: MAX,
			load_balancing_strategy: "random",
			read_write_strategy: "conservative",
			read_write_split: "include_primary",
			lsn_check_interval: 5000,
			lsn_check_timeout: 5000,
			lsn_check_delay: MAX,
			read_after_write: "off",
			expanded_explain: false,
		});
		expect([general.query_size_limit, general.healthcheck_port]).toEqual([undefined, undefined]);
		expect(tcp).toMatchObject({ keepalive: true });
		expect(admin).toMatchObject({ name: "admin", user: "admin", generated: true });
		expect(admin.password).toMatch(/^_pgdog_[A-Za-z0-9]{12}$/);
		expect([clusters, plugins]).toEqual([[], []]);
	});

	test("files that no flag names and that are missing are two warnings and the defaults", () => {
		const configPath = join(folder, "no", "such", "pgdog.toml");
		const { warnings, general } = snapshotOf(load({ configPath, databaseUrls: [], overrides: {}, env: {} }));
		expect(warnings).toEqual([
			`"${configPath}" doesn't exist, loading defaults instead`,
			`"users.toml" doesn't exist, loading defaults instead`,
		]);
		expect(general.port).toBe(6432);
	});

	test("PgDog's largest integer means no limit", () => {
		expect(snapshot("[general]\nquery_timeout = 9223372036854775807").general.query_timeout).toBe(MAX);
		expect(snapshot("[general]\nquery_timeout = 86_400_000").general.query_timeout).toBe(86_400_000);
	});

	test("a snapshot is frozen plain data, that a worker can be sent", () => {
		const made = snapshot(oneDatabase, oneUser);
		expect(structuredClone(made)).toEqual(made);
		expect(() => Object.assign(made.clusters[0]!.pools[0]!, { pool_size: 3 })).toThrow(TypeError);
	});

	test("what was read is noted", () => {
		expect(loadText("").notes).toEqual([`loaded "${configPath}"`, `loaded "${usersPath}"`]);
	});
});

describe("each kind of mistake names file, line, key, the value found and what is accepted", () => {
	type Expected = Omit<Problem, "file"> & { file?: string };
	const cases: [name: string, config: string, users: string, expected: Expected][] = [
		[
			"an integer out of range",
			"[general]\nhost = 'x'\nport = 70000",
			"",
			{ wrong: "value", line: 3, key: "general.port", found: "70000", accepted: "an integer from 1 to 65535" },
		],
		[
			"a float where an integer belongs, though it is whole",
			"[general]\nworkers = 2.0",
			"",
			{ wrong: "value", line: 2, key: "general.workers", found: "2.0", accepted: "an integer from 0 to 256" },
		],
		[
			"a string where a duration belongs",
			"general.checkout_timeout = '5s'",
			"",
			{
				wrong: "value",
				line: 1,
				key: "general.checkout_timeout",
				found: '"5s"',
				accepted: "an integer (milliseconds) from 1 up",
			},
		],
		[
			"a truth value written as text",
			"[general]\nlog_connections = 'yes'",
			"",
			{ wrong: "value", line: 2, key: "general.log_connections", found: '"yes"', accepted: "true or false" },
		],
		[
			"an unknown word",
			"[general]\n\nauth_type = 'scream'",
			"",
			{
				wrong: "value",
				line: 3,
				key: "general.auth_type",
				found: '"scream"',
				accepted: '"scram", "md5", "trust", "plain"',
			},
		],
		[
			"a word that PgDog knows and we do not serve",
			"[general]\nprepared_statements = 'full'",
			"",
			{
				wrong: "unserved",
				line: 2,
				key: "general.prepared_statements",
				found: '"full"',
				accepted: '"disabled", "extended", "extended_anonymous"',
			},
		],
		[
			"an unknown log level",
			"[general]\nlog_level = 'loud'",
			"",
			{
				wrong: "value",
				line: 2,
				key: "general.log_level",
				found: '"loud"',
				accepted: 'one of "off", "error", "warn", "info", "debug", "trace", or a filter such as "info,pgdog=debug"',
			},
		],
		[
			"a mistyped key",
			"[general]\nprot = 1",
			"",
			{ wrong: "unknown", line: 2, key: "general.prot", found: "", accepted: 'did you mean "port"?' },
		],
		[
			"a key like no other",
			"[general]\nzzzzz = 1",
			"",
			{
				wrong: "unknown",
				line: 2,
				key: "general.zzzzz",
				found: "",
				accepted: "docs/config.md lists the known ones",
			},
		],
		[
			"a mistyped table",
			"[genral]\nport = 1",
			"",
			{ wrong: "unknown", line: 1, key: "genral", found: "", accepted: 'did you mean "general"?' },
		],
		[
			"a table in the wrong file",
			"\n[[users]]\nname = 'a'",
			"",
			{ wrong: "unknown", line: 2, key: "users", found: "", accepted: "it belongs in users.toml" },
		],
		[
			"a setting that is not served yet",
			"[general]\nopenmetrics_port = 9090",
			"",
			{ wrong: "unserved", line: 2, key: "general.openmetrics_port", found: "9090", accepted: "" },
		],
		[
			"a setting that is served with one value only",
			"[general]\nunique_id_function = 'compact'",
			"",
			{
				wrong: "unserved",
				line: 2,
				key: "general.unique_id_function",
				found: '"compact"',
				accepted: '"standard"',
			},
		],
		[
			"a table that is not served yet",
			"[general]\n[[mirroring]]\nsource_db = 'x'",
			"",
			{ wrong: "unserved", line: 2, key: "mirroring", found: "", accepted: "" },
		],
		[
			"a plugin without a name",
			"[[plugins]]\nrequired = true",
			"",
			{ wrong: "missing", line: 1, key: "plugins[0].name", found: "", accepted: "a string, not empty" },
		],
		[
			"a plugin that is to read a file of its own",
			"[[plugins]]\nname = 'a'\nconfig = 'a.toml'",
			"",
			{ wrong: "unserved", line: 3, key: "plugins[0].config", found: "", accepted: "" },
		],
		[
			"a plugin that is required by a word",
			"[[plugins]]\nname = 'a'\nrequired = 'yes'",
			"",
			{ wrong: "value", line: 3, key: "plugins[0].required", found: '"yes"', accepted: "true or false" },
		],
		[
			"plugins as a list of names",
			"plugins = ['a']",
			"",
			{ wrong: "value", line: 1, key: "plugins[0]", found: "***", accepted: "a table, [[plugins]]" },
		],
		[
			"a missing key, at the line of its table",
			`${oneDatabase}\n[[databases]]\nname = "b"`,
			"",
			{ wrong: "missing", line: 5, key: "databases[1].host", found: "", accepted: "a string, not empty" },
		],
		[
			"a wrong value in the second entry",
			`${oneDatabase}[[databases]]\nname = "b"\nhost = "h"\nport = 0`,
			"",
			{ wrong: "value", line: 7, key: "databases[1].port", found: "0", accepted: "an integer from 1 to 65535" },
		],
		[
			"one table where a list belongs",
			"[databases]\nname = 'a'",
			"",
			{ wrong: "value", line: 1, key: "databases", found: "a table", accepted: "a list of tables, [[databases]]" },
		],
		[
			"a list where one table belongs",
			"[[general]]\nport = 1",
			"",
			{ wrong: "value", line: 1, key: "general", found: "***", accepted: "one table, [general]" },
		],
		[
			"an alias beside the name that it stands for",
			"[general]\ndefault_pool_size = 1\nmax_pool_size = 2",
			"",
			{
				wrong: "value",
				line: 3,
				key: "general.max_pool_size",
				found: "2",
				accepted: "only one of default_pool_size and max_pool_size, which mean the same",
			},
		],
		[
			"an unknown role",
			`${oneDatabase}role = "leader"`,
			"",
			{
				wrong: "value",
				line: 4,
				key: "databases[0].role",
				found: '"leader"',
				accepted: '"primary", "replica", "auto"',
			},
		],
		[
			"a server to be asked for its role beside one whose role is given",
			`${oneDatabase}${oneDatabase}role = "auto"\nport = 5433`,
			"",
			{
				wrong: "value",
				line: 7,
				key: "databases[1].role",
				found: '"auto"',
				accepted: '"primary", "replica", since databases[0] of shard 0 of "app" is "primary"',
			},
		],
		[
			"a server whose role is left out beside one to be asked for it",
			`${oneDatabase}role = "auto"\n${oneDatabase}port = 5433`,
			"",
			{
				wrong: "value",
				line: 5,
				key: "databases[1].role",
				found: '"primary"',
				accepted: '"auto", since databases[0] of shard 0 of "app" is "auto"',
			},
		],
		[
			"a weight that is more than a byte",
			`${oneDatabase}lb_weight = 256`,
			"",
			{ wrong: "value", line: 4, key: "databases[0].lb_weight", found: "256", accepted: "an integer from 0 to 255" },
		],
		[
			"a mistyped strategy",
			"[general]\nload_balancing_strategy = 'round-robin'",
			"",
			{
				wrong: "value",
				line: 2,
				key: "general.load_balancing_strategy",
				found: '"round-robin"',
				accepted: '"random", "round_robin", "least_active_connections", "weighted_round_robin"',
			},
		],
		[
			"an HTTP port that is the clients'",
			"[general]\nport = 8080\nhealthcheck_port = 8080",
			"",
			{
				wrong: "value",
				line: 3,
				key: "general.healthcheck_port",
				found: "8080",
				accepted: "another port than general.port, where clients are listened for",
			},
		],
		[
			"two instances of one id",
			'[general]\npeer_id = 1\n[[peers]]\npeer_id = 1\nhost = "a"\n[[peers]]\npeer_id = 1\nhost = "b"',
			"",
			{ wrong: "value", line: 7, key: "peers[1].peer_id", found: "1", accepted: "another than that of peers[0]" },
		],
		[
			"an own id that is nobody's",
			'[general]\npeer_id = 2\n[[peers]]\npeer_id = 1\nhost = "a"',
			"",
			{ wrong: "value", line: 2, key: "general.peer_id", found: "2", accepted: "the peer_id of one of [[peers]]" },
		],
		[
			"instances none of which this one is",
			'[[peers]]\npeer_id = 1\nhost = "a"',
			"",
			{
				wrong: "missing",
				line: undefined,
				key: "general.peer_id",
				found: "",
				accepted: "which of [[peers]] this instance is",
			},
		],
		[
			"a function that writes without a name",
			"[[write_functions]]\n",
			"",
			{ wrong: "missing", line: 1, key: "write_functions[0].name", found: "", accepted: FUNCTION_NAME },
		],
		[
			"a function that writes with its arguments",
			"[[write_functions]]\nname = 'ok'\n[[write_functions]]\nname = 'touch(int)'",
			"",
			{
				wrong: "value",
				line: 4,
				key: "write_functions[1].name",
				found: '"touch(int)"',
				accepted: FUNCTION_NAME,
			},
		],
		[
			"a function that writes with a key that nobody knows",
			"[[write_functions]]\nname = 'ok'\nschema = 's'",
			"",
			{ wrong: "unknown", line: 3, key: "write_functions[0].schema", found: "", accepted: "known are name" },
		],
		[
			"functions that write as a list of names",
			"write_functions = ['touch']",
			"",
			{
				wrong: "value",
				line: 1,
				key: "write_functions[0]",
				found: "***",
				accepted: "a table, [[write_functions]]",
			},
		],
		[
			"functions that write in the wrong file",
			"",
			"[[write_functions]]\nname = 'touch'",
			{
				file: "users.toml",
				wrong: "unknown",
				line: 1,
				key: "write_functions",
				found: "",
				accepted: "it belongs in pgdog.toml",
			},
		],
		[
			"a second shard without the first",
			`${oneDatabase}shard = 1`,
			"",
			{
				wrong: "value",
				line: 4,
				key: "databases[0].shard",
				found: "1",
				accepted: '0, since "app" has no shard 0',
			},
		],
		[
			"a gap between shards, whatever their order in the file",
			`${oneDatabase}shard = 3\n${oneDatabase}${oneDatabase}shard = 1`,
			"",
			{
				wrong: "value",
				line: 4,
				key: "databases[0].shard",
				found: "3",
				accepted: 'an integer from 0 to 2, since "app" has no shard 2',
			},
		],
		[
			"two primaries of one shard, at the line of the second",
			`${oneDatabase}${oneDatabase}port = 5433`,
			"",
			{
				wrong: "value",
				line: 4,
				key: "databases[1].role",
				found: '"primary"',
				accepted: '"replica", since databases[0] is the primary of shard 0 of "app"',
			},
		],
		[
			"two databases of one server in the same place",
			`${oneDatabase}${oneDatabase}database_name = "other"`,
			"",
			{
				wrong: "value",
				line: 7,
				key: "databases[1].database_name",
				found: '"other"',
				accepted: '"app", as in databases[0] for the same server and shard',
			},
		],
		[
			"a name with a NUL, which would end the string in a StartupMessage",
			`[[databases]]\nhost = "h"\nname = "a\\u0000b"`,
			"",
			{ wrong: "value", line: 3, key: "databases[0].name", found: '"a\\u0000b"', accepted: "a string, not empty" },
		],
		[
			"a socket folder that is not absolute",
			"[general]\nunix_socket_dir = 'run'",
			"",
			{
				wrong: "value",
				line: 2,
				key: "general.unix_socket_dir",
				found: '"run"',
				accepted: "an absolute path of a folder",
			},
		],
		[
			"a socket folder whose socket would have too long a path",
			`[general]\nunix_socket_dir = '/${"x".repeat(94)}'`,
			"",
			{
				wrong: "value",
				line: 2,
				key: "general.unix_socket_dir",
				found: `"/${"x".repeat(94)}"`,
				accepted: "a folder short enough for a socket path of 107 bytes",
			},
		],
		[
			"a server's socket folder whose socket would have too long a path, with the port that it has",
			`[[databases]]\nname = 'a'\nport = 54321\nhost = '@${"x".repeat(92)}'`,
			"",
			{
				wrong: "value",
				line: 4,
				key: "databases[0].host",
				found: `"@${"x".repeat(92)}"`,
				accepted: "a folder short enough for a socket path of 107 bytes",
			},
		],
		[
			"permissions of a socket that are not octal",
			"[general]\nunix_socket_mode = '0778'",
			"",
			{
				wrong: "value",
				line: 2,
				key: "general.unix_socket_mode",
				found: '"0778"',
				accepted: 'permissions in octal, as text: "0770"',
			},
		],
		[
			"a password that is a number, which is not shown",
			"",
			"[[users]]\nname = 'a'\npassword = 12345",
			{
				file: "users.toml",
				wrong: "value",
				line: 3,
				key: "users[0].password",
				found: "***",
				accepted: "a string",
			},
		],
		[
			"a verifier that is none, which is not shown",
			"",
			"[[users]]\nname = 'a'\npassword_hash = 'md5abc'",
			{
				file: "users.toml",
				wrong: "value",
				line: 3,
				key: "users[0].password_hash",
				found: "***",
				accepted: "a SCRAM verifier as `pgdog hash` prints it (SCRAM-SHA-256$4096:…)",
			},
		],
		[
			"a user's setting that is not served yet",
			"",
			"[[users]]\nname = 'a'\nvault_path = 'x'",
			{ file: "users.toml", wrong: "unserved", line: 3, key: "users[0].vault_path", found: "", accepted: "" },
		],
		[
			"an empty password of the admin",
			"",
			"[admin]\npassword = ''",
			{
				file: "users.toml",
				wrong: "value",
				line: 2,
				key: "admin.password",
				found: "***",
				accepted: "a string, not empty",
			},
		],
		[
			"text that is not TOML, without the line that it stands in",
			"",
			"[[users]]\npassword = hunter2",
			{ file: "users.toml", wrong: "syntax", line: 2, key: "", found: "invalid value", accepted: "TOML" },
		],
	];

	test.each(cases)("%s", (_, config, users, expected) => {
		expect(problems(loadText(config, users))).toEqual([{ file: "pgdog.toml", ...expected }]);
	});

	test("a file that is a folder", () => {
		loadText("");
		const loaded = load({ configPath: folder, usersPath, databaseUrls: [], overrides: {}, env: {} });
		expect(problems(loaded)).toMatchObject([{ wrong: "unreadable", file: folder, found: "EISDIR" }]);
	});

	test("a file that is not UTF-8", () => {
		loadText("");
		writeFileSync(configPath, new Uint8Array([0x61, 0xff]));
		const loaded = load({ configPath, usersPath, databaseUrls: [], overrides: {}, env: {} });
		expect(problems(loaded)).toMatchObject([{ wrong: "syntax", found: "it is not UTF-8" }]);
	});

	test("all mistakes of both files are told at once, in their order", () => {
		const config = "[general]\nport = 0\nprot = 1\nworkers = -1\n[vault]\nurl = 'x'\n[[databases]]\nshard = 'a'";
		const loaded = loadText(config, "[[users]]\nnam = 'a'\n[x]\n");
		expect(loaded.ok ? [] : loaded.problems.map(problemText)).toEqual([
			`${configPath}:2: general.port = 0: accepted is an integer from 1 to 65535`,
			`${configPath}:3: general.prot is not a known key: did you mean "port"?`,
			`${configPath}:4: general.workers = -1: accepted is an integer from 0 to 256`,
			`${configPath}:5: vault: known to PgDog, not served yet`,
			`${configPath}:7: databases[0].name is missing: accepted is a string, not empty`,
			`${configPath}:7: databases[0].host is missing: accepted is a string, not empty`,
			`${configPath}:8: databases[0].shard = "a": accepted is an integer from 0 to 65535`,
			`${usersPath}:1: users[0].name is missing: accepted is a string, not empty`,
			`${usersPath}:2: users[0].nam is not a known key: did you mean "name"?`,
			`${usersPath}:3: x is not a known key: known are users, admin`,
		]);
	});
});

describe("keys of PgDog's that are not served", () => {
	test("pass when they ask for what is done anyway", () => {
		const config = '[general]\ndry_run = false\npassthrough_auth = "disabled"\npub_sub_channel_size = 0';
		expect(snapshot(config).warnings).toEqual([]);
	});

	test("are a warning when ignoring them does no harm", () => {
		const { warnings } = snapshot(
			"[general]\nbroadcast_port = 1\n[memory]\nnet_buffer = 1\n[tcp]\ncongestion_control = 'x'",
		);
		expect(warnings).toEqual([
			`${configPath}:3: memory is known to PgDog, not served yet: ignored`,
			`${configPath}:2: general.broadcast_port is known to PgDog, not served yet: ignored`,
			`${configPath}:6: tcp.congestion_control is known to PgDog, not served yet: ignored`,
		]);
	});
});

describe("the environment", () => {
	test("gives defaults, and a key in the file wins", () => {
		const env = { PGDOG_PORT: "7000", PGDOG_WORKERS: "3", PGDOG_LOG_CONNECTIONS: "Off", PGDOG_POOLER_MODE: "session" };
		const { general } = snapshot("[general]\nport = 8000", "", { env });
		expect(general).toMatchObject({ port: 8000, workers: 3, log_connections: false, pooler_mode: "session" });
	});

	test("names the settings of health, balance and lag as PgDog does, and ours alike", () => {
		const env = {
			PGDOG_HEALTHCHECK_PORT: "8080",
			PGDOG_IDLE_HEALTHCHECK_INTERVAL: "1",
			PGDOG_IDLE_HEALTHCHECK_DELAY: "2",
			PGDOG_REQUIRE_HEALTHCHECK_ON_DISCOVERY: "yes",
			PGDOG_BAN_TIMEOUT: "3",
			PGDOG_BAN_REPLICA_LAG: "4",
			PGDOG_BAN_REPLICA_LAG_BYTES: "5",
			PGDOG_LOAD_BALANCING_STRATEGY: "least_active_connections",
			PGDOG_READ_WRITE_STRATEGY: "aggressive",
			PGDOG_READ_WRITE_SPLIT: "exclude_primary",
			PGDOG_LSN_CHECK_INTERVAL: "60",
			PGDOG_LSN_CHECK_TIMEOUT: "70",
			PGDOG_LSN_CHECK_DELAY: "0",
			PGDOG_EXPANDED_EXPLAIN: "on",
			PGDOG_READ_AFTER_WRITE: "lsn",
			PGDOG_READ_AFTER_WRITE_WINDOW: "8",
		};
		const { general, warnings } = snapshot("", "", { env });
		expect(general).toMatchObject({
			healthcheck_port: 8080,
			idle_healthcheck_interval: 1,
			idle_healthcheck_delay: 2,
			require_healthcheck_on_discovery: true,
			ban_timeout: 3,
			ban_replica_lag: 4,
			ban_replica_lag_bytes: 5,
			load_balancing_strategy: "least_active_connections",
			read_write_strategy: "aggressive",
			read_write_split: "exclude_primary",
			lsn_check_interval: 60,
			lsn_check_timeout: 70,
			lsn_check_delay: 0,
			expanded_explain: true,
			read_after_write: "lsn",
			read_after_write_window: 8,
		});
		expect(warnings).toEqual([]);
	});

	test("reads PgDog's misspelled CLIENT_LOG_TIMEOUT, after the right name", () => {
		const log = { PGDOG_CLIENT_LOG_TIMEOUT: "5" };
		expect(snapshot("", "", { env: log }).general.client_login_timeout).toBe(5);
		const both = { ...log, PGDOG_CLIENT_LOGIN_TIMEOUT: "6" };
		expect(snapshot("", "", { env: both }).general.client_login_timeout).toBe(6);
	});

	test("takes RUST_LOG for the log level", () => {
		expect(snapshot("", "", { env: { RUST_LOG: "warn,pgdog=debug,tokio=trace" } }).general.log_level).toBe("debug");
	});

	// Kubernetes sets PGDOG_PORT=tcp://… beside a service named pgdog.
	test("that cannot be read is a warning and the default", () => {
		const { general, warnings } = snapshot("", "", {
			env: { PGDOG_PORT: "tcp://10.0.0.1:6432", PGDOG_WORKERS: "2.5" },
		});
		expect(general).toMatchObject({ port: 6432, workers: 2 });
		expect(warnings).toEqual([
			'environment: PGDOG_PORT = "tcp://10.0.0.1:6432" is not used for port: accepted is an integer from 1 to 65535',
			'environment: PGDOG_WORKERS = "2.5" is not used for workers: accepted is an integer from 0 to 256',
		]);
	});

	test("names a setting that is not served: a warning", () => {
		const { warnings } = snapshot("", "", { env: { PGDOG_OPENMETRICS_PORT: "9090" } });
		expect(warnings).toEqual(["environment: PGDOG_OPENMETRICS_PORT is known to PgDog, not served yet: ignored"]);
	});

	test("of auth_query: what cannot be asked is a mistake", () => {
		const keys = (text: string) => problems(loadText(`[general]\n${text}`)).map(({ key }) => key);
		expect(keys('auth_query = "SELECT 1, 2"')).toEqual(["general.auth_query"]);
		expect(keys('auth_query = "SELECT f($10)"')).toEqual(["general.auth_query"]);
		expect(keys('auth_query_database = "nowhere"')).toEqual(["general.auth_query_database"]);
	});

	test("means for each setting what the same text means in the file", () => {
		for (const [name, setting] of Object.entries(generalSettings)) {
			const [value, toml] =
				setting.type === "boolean"
					? ["false", "false"]
					: ["integer", "milliseconds", "bytes"].includes(setting.type)
						? ["33", "33"]
						: setting.type === "choice"
							? [JSON.parse(setting.accepted.split(", ").at(-1)!), setting.accepted.split(", ").at(-1)!]
							: name === "log_level"
								? ["trace", '"trace"']
								: name === "unix_socket_mode"
									? ["0750", '"0750"']
									: name === "auth_query"
										? ["SELECT $1", '"SELECT $1"']
										: ["/x", '"/x"'];
			// Half of what TLS needs, a file, database or instance that is not there: the same mistake, wherever it is made.
			if (/^(tls_.*(certificate|key)|peer_id|auth_query_database)$/.test(name)) {
				const inFile = problems(loadText(`[general]\n${name} = ${toml}`)).map(({ key }) => key);
				const inEnvironment = problems(loadText("", "", { env: { [environmentNames(name, setting)[0]!]: value } }));
				expect(inEnvironment.map(({ key }) => key)).toEqual(inFile);
				continue;
			}
			const fromFile = snapshot(`[general]\n${name} = ${toml}`).general;
			for (const variable of environmentNames(name, setting)) {
				expect([variable, snapshot("", "", { env: { [variable]: value } }).general]).toEqual([variable, fromFile]);
			}
		}
	});
});

describe("overrides", () => {
	test("of the command line win over the file and the environment", () => {
		const overrides = { default_pool_size: 3, min_pool_size: 2, pooler_mode: "transaction" } as const;
		const { general } = snapshot("[general]\ndefault_pool_size = 9\npooler_mode = 'session'", "", {
			overrides,
			env: { PGDOG_MIN_POOL_SIZE: "5" },
		});
		expect(general).toMatchObject(overrides);
	});

	test("session mode turns prepared statements off, and says so where the file asked for them", () => {
		const silent = snapshot("[general]\npooler_mode = 'session'");
		expect([silent.general.prepared_statements, silent.warnings]).toEqual(["disabled", []]);
		const told = snapshot("[general]\npooler_mode = 'session'\nprepared_statements = 'extended'");
		expect(told.general.prepared_statements).toBe("disabled");
		expect(told.warnings).toEqual([`${configPath}:3: pooler_mode = "session" turns prepared_statements to "disabled"`]);
	});
});

describe("the admin password", () => {
	test("is the one of users.toml, then of pgdog.toml, then of the environment, then random", () => {
		const config = "[admin]\nname = 'console'\npassword = 'c'";
		const users = "[admin]\nuser = 'root'\npassword = 'u'";
		const env = { PGDOG_ADMIN_PASSWORD: "e" };
		const both = { name: "console", user: "root", password: "u", generated: false };
		expect(snapshot(config, users, { env }).admin).toEqual(both);
		expect(snapshot(config, "", { env }).admin.password).toBe("c");
		expect(snapshot("", "", { env }).admin).toMatchObject({ password: "e", generated: false });
		expect(snapshot("").admin.password).not.toBe(snapshot("").admin.password);
		const before = snapshot("");
		expect(snapshot("", "", { before }).admin).toEqual(before.admin);
	});
});

describe("users", () => {
	const two = `${oneDatabase}[[databases]]\nname = "log"\nhost = "/run/postgresql"\nport = 5433\n`;
	const pairs = (made: Snapshot): string[] => made.clusters.map(({ user, database }) => `${user.name}@${database}`);

	test("reach the databases they name, or all, in the order of the file", () => {
		const users = `
[[users]]
name = "every"
all_databases = true
password = "a"
[[users]]
name = "some"
database = "log"
databases = ["app", "log"]
passwords = ["b", "", "c", "b"]`;
		const made = snapshot(two, users);
		expect(pairs(made)).toEqual(["every@app", "every@log", "some@log", "some@app"]);
		expect(made.users[2]!.passwords).toEqual(["b", "c"]);
		expect(made.warnings).toEqual([]);
	});

	test("of any database have no pools before they log in to one, but in those that they name", () => {
		const any = '[[databases]]\nname = "*"\nhost = "127.0.0.1"\n';
		const users = BOB.replace('"app"', '"*"') + oneUser;
		const made = snapshot(any, users);
		expect(made.users.map(({ name, database }) => [name, database])).toEqual([
			["bob", "*"],
			["alice", "app"],
		]);
		expect(made.clusters.flatMap(({ pools }) => pools.map(({ key, database_name }) => [key, database_name]))).toEqual([
			["alice@app/0/primary/127.0.0.1:5432", "app"],
		]);
		expect(made.warnings).toEqual([]);
		const all = snapshot(`${any}${oneDatabase}`, '[[users]]\nname = "c"\nall_databases = true\npassword = "pw"');
		expect(all.users.map(({ database }) => database)).toEqual(["*", "app"]);
		expect(all.clusters.map(({ database }) => database)).toEqual(["app"]);
		for (const more of ["", 'auth_query_database = "*"'])
			expect(problems(loadText(`[general]\nauth_query_user = "x"\n${more}\n${any}`))).toMatchObject([
				{ key: "general.auth_query_database" },
			]);
		expect(loadText(`[general]\nauth_query_user = "x"\nauth_query_database = "app"\n${any}${oneDatabase}`).ok).toBe(
			true,
		);
	});

	test("without any password, with passthrough_auth, are settings for those who say theirs", () => {
		const users = "[[users]]\nname = 'a'\ndatabase = 'app'\npool_size = 3";
		const warnings = (way: string, more = "") => {
			const made = snapshot(`[general]\npassthrough_auth = '${way}'\n${more}\n${oneDatabase}`, users);
			expect([made.users, made.clusters]).toEqual([[], []]);
			expect(made.passwordless).toMatchObject([{ name: "a", database: "app", passwords: [], pool_size: 3 }]);
			return made.warnings.join();
		};
		expect(warnings("enabled")).toContain('"enabled" asks nobody without TLS, and there is no tls_certificate');
		expect(warnings("enabled_allow_change", "unix_socket_dir = '/tmp'")).toBe("");
		expect(warnings("enabled_plain")).toContain("may come in clear text without tls_client_required");
	});

	test("without any password are left out, with a warning", () => {
		const made = snapshot(oneDatabase, "[[users]]\nname = 'a'\ndatabase = 'app'\npassword = ''");
		expect([made.users, made.clusters]).toEqual([[], []]);
		expect(made.warnings).toEqual([
			`${usersPath}:1: user "a" has no password: it gets no pool and cannot log in`,
			'database "app" has no user: it gets no pool, and nobody can connect to it',
		]);
	});

	test("may have a verifier only, which says nothing to servers", () => {
		const key = `${"A".repeat(43)}=`;
		const hash = `SCRAM-SHA-256$4096:c2FsdA==$${key}:${key}`;
		const made = snapshot(oneDatabase, `[[users]]\nname = 'a'\ndatabase = 'app'\npassword_hash = '${hash}'`);
		expect(made.clusters[0]).toMatchObject({ user: { passwords: [], password_hash: hash } });
		expect(made.clusters[0]!.pools[0]!.server_passwords).toEqual([]);
	});

	test("who name no database, or one that is not there, are warned of", () => {
		const users = "[[users]]\nname = 'a'\npassword = 'x'\n[[users]]\nname = 'b'\ndatabase = 'apq'\npassword = 'x'";
		const made = snapshot("", users);
		expect(made.clusters).toEqual([]);
		expect(made.warnings).toEqual([
			`${usersPath}:1: user "a" names no database: it gets no pool and cannot log in`,
			`${usersPath}:4: user "b" names database "apq", which no [[databases]] entry defines`,
		]);
	});

	test("of two entries for one database the last counts, but all_databases never hides an explicit one", () => {
		const entry = (line: string, password: string) => `[[users]]\nname = "u"\n${line}\npassword = "${password}"\n`;
		const named = entry('database = "app"', "named");
		const all = entry("all_databases = true", "all");
		for (const users of [named + all, all + named]) {
			const made = snapshot(two, users);
			const passwords = Object.fromEntries(made.users.map((user) => [user.database, user.passwords]));
			expect(passwords).toEqual({ app: ["named"], log: ["all"] });
			expect(made.warnings).toEqual([]);
		}
		const twice = snapshot(oneDatabase, named + entry('database = "app"', "second"));
		expect(twice.users.map(({ passwords }) => passwords)).toEqual([["second"]]);
		expect(twice.warnings).toHaveLength(1);
	});

	test("who hide behind the admin console are warned of", () => {
		const { warnings } = snapshot(
			"[[databases]]\nname = 'admin'\nhost = 'h'",
			"[[users]]\nname = 'admin'\ndatabase = 'admin'\npassword = 'x'",
		);
		expect(warnings).toEqual(['user "admin" of database "admin" is out of reach: [admin] has the same names']);
	});
});

describe("a pool", () => {
	const pool = (general: string, database: string, user: string) =>
		snapshot(`[general]\n${general}\n${oneDatabase}${database}`, `${oneUser}${user}`).clusters[0]!.pools[0]!;

	test("has what general, database and user say, and a key that outlives reloads", () => {
		expect(pool("", "", "")).toEqual({
			key: "alice@app/0/primary/127.0.0.1:5432",
			user: "alice",
			database: "app",
			host: "127.0.0.1",
			port: 5432,
			shard: 0,
			role: "primary",
			database_name: "app",
			server_user: "alice",
			server_passwords: ["pw"],
			server_tls: { verify: "prefer", authorities: null, identity: null },
			pool_size: 10,
			min_pool_size: 1,
			reserve_pool_size: 0,
			max_db_connections: Number.MAX_SAFE_INTEGER,
			max_user_connections: Number.MAX_SAFE_INTEGER,
			pooler_mode: "transaction",
			lb_weight: 255,
			idle_timeout: 60_000,
			server_lifetime: 86_400_000,
			server_lifetime_jitter: 0,
			startup: { application_name: "PgDog", client_encoding: "utf-8" },
		});
	});

	test.each<[string, string | number, string | number, string | number]>([
		["pool_size", 20, 21, 22],
		["min_pool_size", 2, 3, 4],
		["pooler_mode", '"session"', '"statement"', '"transaction"'],
		["idle_timeout", 10, 11, 12],
		["server_lifetime", 10, 11, 12],
		["server_lifetime_jitter", 10, 11, 12],
	])("takes %s from the user, then the database, then general", (name, general, database, user) => {
		const get = (...from: [string, string, string]) =>
			JSON.stringify((pool(...from) as unknown as Record<string, unknown>)[name]);
		const inGeneral = `${name === "pool_size" ? "default_pool_size" : name} = ${general}`;
		expect(get(inGeneral, "", "")).toBe(String(general));
		expect(get(inGeneral, `${name} = ${database}`, "")).toBe(String(database));
		expect(get(inGeneral, `${name} = ${database}`, `${name} = ${user}`)).toBe(String(user));
	});

	test("logs in as the database says, then as the user's server credentials, then as the user", () => {
		const server = 'server_user = "su"\nserver_password = "sp"';
		const database = 'user = "du"\npassword = "dp"';
		const credentials = (...from: [string, string, string]) => {
			const { server_user, server_passwords } = pool(...from);
			return [server_user, ...server_passwords];
		};
		expect(credentials("", "", "")).toEqual(["alice", "pw"]);
		expect(credentials("", "", server)).toEqual(["su", "sp"]);
		expect(credentials("", database, server)).toEqual(["du", "dp"]);
		expect(credentials("", 'user = "du"', server)).toEqual(["du", "sp"]);
	});

	test("tells PostgreSQL the timeouts and read only", () => {
		expect(
			pool("", "statement_timeout = 5\nlock_timeout = 6\nread_only = true", "statement_timeout = 7").startup,
		).toEqual({
			application_name: "PgDog",
			client_encoding: "utf-8",
			statement_timeout: "7",
			lock_timeout: "6",
			default_transaction_read_only: "on",
		});
		expect(pool("", "read_only = true", "read_only = false").startup).not.toHaveProperty(
			"default_transaction_read_only",
		);
	});

	test("never keeps more than its size open", () => {
		const made = snapshot(`[general]\nmin_pool_size = 5\n${oneDatabase}pool_size = 2`, oneUser);
		expect(made.clusters[0]!.pools[0]!.min_pool_size).toBe(2);
		expect(made.warnings).toEqual([
			"pool alice@app/0/primary/127.0.0.1:5432: min_pool_size 5 is above its size, 2 is used",
		]);
	});

	test("of a database by another name on the server", () => {
		expect(pool("", 'database_name = "real"\nmax_pool_size = 4', "")).toMatchObject({
			database: "app",
			database_name: "real",
			pool_size: 4,
		});
	});
});

describe("a cluster", () => {
	const entry = (name: string, host: string, more = ""): string =>
		`[[databases]]\nname = "${name}"\nhost = "${host}"\n${more}\n`;
	const keys = (made: Snapshot) => made.clusters[0]!.pools.map(({ key }) => key);

	test("is the entries of one name, by shard and then in their order, whatever stands between them", () => {
		const made = snapshot(
			entry("app", "d", "shard = 1\nrole = 'replica'") +
				entry("app", "b", "role = 'replica'") +
				entry("other", "x", "role = 'replica'") +
				entry("app", "a") +
				entry("app", "c", "shard = 1") +
				entry("app", "a", "role = 'replica'"),
			oneUser,
		);
		expect(keys(made)).toEqual([
			"alice@app/0/replica/b:5432",
			"alice@app/0/primary/a:5432",
			"alice@app/0/replica/a:5432",
			"alice@app/1/replica/d:5432",
			"alice@app/1/primary/c:5432",
		]);
	});

	test("is the same for each of its users", () => {
		const made = snapshot(entry("app", "a") + entry("app", "b", "role = 'replica'"), oneUser + BOB);
		expect(made.clusters.map(({ pools }) => pools.map(({ user, role }) => [user, role]))).toEqual([
			[
				["alice", "primary"],
				["alice", "replica"],
			],
			[
				["bob", "primary"],
				["bob", "replica"],
			],
		]);
	});

	test("has a server that stands there twice once, with a warning", () => {
		const made = snapshot(
			entry("app", "a", "pool_size = 3") + entry("app", "a", "pool_size = 4") + entry("app", "a", "shard = 1"),
			oneUser,
		);
		expect(keys(made)).toEqual(["alice@app/0/primary/a:5432", "alice@app/1/primary/a:5432"]);
		expect(made.clusters[0]!.pools[0]!.pool_size).toBe(3);
		expect(made.databases).toHaveLength(2);
		expect(made.warnings).toEqual([
			`${configPath}:5: database "app" has a:5432 as primary of shard 0 already: the first entry counts`,
		]);
	});

	test("may have a shard without a primary, and a mode for each server, with a warning", () => {
		const { warnings } = snapshot(
			entry("app", "a") + entry("app", "b", "shard = 1\nrole = 'replica'\npooler_mode = 'session'"),
			oneUser,
		);
		expect(warnings).toEqual([
			`${configPath}:5: database "app" has no primary of shard 1: nothing can be written there`,
			`${configPath}:10: database "app" has entries of several pooler modes: write the same in each`,
		]);
	});

	test.each<[string, string, string]>([
		["pool_size", "default_pool_size", "pool_size"],
		["min_pool_size", "min_pool_size", "min_pool_size"],
		["idle_timeout", "idle_timeout", "idle_timeout"],
	])("takes %s of a role from the user, then the database, before any that is of no role", (name, general, plain) => {
		const values = (database: string, user: string) =>
			snapshot(
				`[general]\n${general} = 9\n${entry("app", "a", database)}${entry("app", "b", `role = "replica"\n${database}`)}`,
				`${oneUser}${user}`,
			).clusters[0]!.pools.map((pool) => (pool as unknown as Record<string, unknown>)[name]);
		expect(values("", "")).toEqual([9, 9]);
		expect(values(`${plain}_replica = 3`, "")).toEqual([9, 3]);
		expect(values(`${plain}_replica = 3`, `${plain} = 5`)).toEqual([5, 3]);
		expect(values(`${plain}_replica = 3`, `${plain}_replica = 4\n${plain}_primary = 2`)).toEqual([2, 4]);
	});
});

test("plugins are in the order of the file, each required only where it says so", () => {
	const config = "[[plugins]]\nname = 'b'\n[[plugins]]\nname = '/a/liba.so'\nrequired = true\n[[plugins]]\nname = 'b'";
	expect(snapshot(config).plugins).toEqual([
		{ name: "b", required: false },
		{ name: "/a/liba.so", required: true },
		{ name: "b", required: false },
	]);
});

describe("database URLs", () => {
	const urls = (databaseUrls: string[], more: Partial<LoadInput> = {}) =>
		loadText(`[admin]\npassword = "c"\n${oneDatabase}`, `[admin]\npassword = "u"\n${oneUser}`, {
			databaseUrls,
			...more,
		});

	test("replace all databases and all users, the admin of users.toml included", () => {
		const made = snapshotOf(
			urls(
				[
					"postgres://bob:s%40cret@db.example:6000/shop?pool_size=3&read_only=true&database_name=real",
					"postgresql://[::1]",
					"postgresql://[::1]",
					"postgres://eve@%2Frun%2Fpg/x",
					"postgres:///y?host=/tmp&user=su&password=sp",
				],
				{ env: { USER: "me" } },
			),
		);
		expect(made.clusters.flatMap(({ pools }) => pools.map(({ key }) => key))).toEqual([
			"bob@shop/0/primary/db.example:6000",
			"me@postgres/0/primary/::1:5432",
			"eve@x/0/primary//run/pg:5432",
			"me@y/0/primary//tmp:5432",
		]);
		const [shop, , , socket] = made.clusters;
		expect(shop).toMatchObject({ user: { passwords: ["s@cret"] }, pools: [{ pool_size: 3, database_name: "real" }] });
		expect(shop!.pools[0]!.startup.default_transaction_read_only).toBe("on");
		expect(socket!.user.passwords).toEqual(["postgres"]);
		expect(socket!.pools[0]).toMatchObject({ server_user: "su", server_passwords: ["sp"] });
		expect(made.admin.password).toBe("c");
	});

	test("come from the environment when no flag gives any", () => {
		const env = {
			PGDOG_DATABASE_URL_1: "postgres://a/one",
			PGDOG_DATABASE_URL_2: "postgres://b/two",
			PGDOG_DATABASE_URL_4: "x",
		};
		const loaded = urls([], { env });
		expect(snapshotOf(loaded).databases.map(({ name }) => name)).toEqual(["one", "two"]);
		expect(loaded.notes).toContain("loaded 2 databases from environment");
		expect(snapshotOf(urls(["postgres://c/three"], { env })).databases.map(({ name }) => name)).toEqual(["three"]);
	});

	test.each<[string, string, Omit<Problem, "line">]>([
		[
			"no URL",
			"bob:hunter2@host/db",
			{
				wrong: "value",
				file: "--database-url 1",
				key: "url",
				found: "***",
				accepted: "postgres://user:password@host:port/database?setting=value",
			},
		],
		[
			"no host",
			"postgres:///db",
			{ wrong: "missing", file: "--database-url 1", key: "host", found: "", accepted: "a string, not empty" },
		],
		[
			"a parameter out of range",
			"postgres://u:hunter2@h/db?pool_size=x",
			{
				wrong: "value",
				file: "--database-url 1",
				key: "pool_size",
				found: '"x"',
				accepted: "an integer from 1 to 65535",
			},
		],
		[
			"an unknown parameter",
			"postgres://u:hunter2@h/db?sslmode=require",
			{
				wrong: "unknown",
				file: "--database-url 1",
				key: "sslmode",
				found: "",
				accepted: "docs/config.md lists the known ones",
			},
		],
		[
			"the same parameter twice",
			"postgres://u:hunter2@h/db?password=hunter2&password=hunter2",
			{ wrong: "value", file: "--database-url 1", key: "password", found: "***", accepted: "password once in a URL" },
		],
	])("with %s", (_, url, expected) => {
		expect(problems(urls([url]))).toEqual([{ ...expected, line: undefined }]);
	});

	test("of one name are a cluster, and no other than files can make", () => {
		const made = snapshotOf(
			urls(["postgres://u:p@b/db?role=replica", "postgres://u:p@c/db?shard=1", "postgres://u:p@a/db"]),
		);
		expect(made.clusters.map(({ pools }) => pools.map(({ key }) => key))).toEqual([
			["u@db/0/replica/b:5432", "u@db/0/primary/a:5432", "u@db/1/primary/c:5432"],
		]);
		expect(problems(urls(["postgres://a/db", "postgres://b/db"]))).toMatchObject([
			{ wrong: "value", file: "--database-url", key: "role", found: '"primary"' },
		]);
	});
});

describe("users.toml", () => {
	test("is taken beside a config file that is named with its folder, when it is there", () => {
		const etc = join(folder, "etc");
		mkdirSync(etc);
		expect(usersPathFor(join(etc, "pgdog.toml"))).toBe("users.toml");
		writeFileSync(join(etc, "users.toml"), oneUser);
		expect(usersPathFor(join(etc, "pgdog.toml"))).toBe(join(etc, "users.toml"));
		expect(usersPathFor("pgdog.toml")).toBe("users.toml");
		writeFileSync(join(etc, "pgdog.toml"), oneDatabase);
		const made = load({ configPath: join(etc, "pgdog.toml"), databaseUrls: [], overrides: {}, env: {} });
		expect(snapshotOf(made).clusters).toHaveLength(1);
	});
});

describe("a table of PgDog's that asks for what is done anyway", () => {
	const REWRITE = 'shard_key = "error"\nsplit_inserts = "error"\nprimary_key = "ignore"\n';

	// PgDog's own example files say so.
	test.each([
		["rewriting that is off", `[rewrite]\nenabled = false\n${REWRITE}`],
		["rewriting of which nothing is said", "[rewrite]\n"],
		["no tables that are sharded", "sharded_tables = []\nmirroring = []\nomnisharded_tables = []\n"],
	])("is accepted: %s", (_, config) => {
		expect(problems(loadText(config))).toEqual([]);
		expect(snapshot(config).warnings).toEqual([]);
	});

	test.each([
		["[rewrite]\nenabled = true", "rewrite.enabled", "true", "false"],
		['[rewrite]\nenabled = false\nshard_key = "rewrite"', "rewrite.shard_key", '"rewrite"', '"error", "ignore"'],
		['[rewrite]\nsplit_inserts = "rewrite"', "rewrite.split_inserts", '"rewrite"', '"error", "ignore"'],
	])("is refused when it asks for more: %j", (config, key, found, accepted) => {
		expect(problems(loadText(config))).toMatchObject([{ wrong: "unserved", key, found, accepted }]);
	});

	test("is refused when it is not empty, and told what is unknown in it", () => {
		expect(problems(loadText('[[mirroring]]\nsource_db = "a"'))).toMatchObject([{ key: "mirroring" }]);
		expect(problems(loadText("[rewrite]\nenable = false"))).toMatchObject([
			{ wrong: "unknown", key: "rewrite.enable", accepted: 'did you mean "enabled"?' },
		]);
		expect(problems(loadText("rewrite = false"))).toMatchObject([{ wrong: "value", key: "rewrite" }]);
	});
});

describe("secrets", () => {
	const SECRET = "hunter2-secret";
	const say = (loaded: Loaded): string =>
		[
			...(loaded.ok ? loaded.snapshot.warnings : [...loaded.problems.map(problemText), ...loaded.warnings]),
			...loaded.notes,
		].join("\n");
	const places: [string, (secret: string) => Loaded][] = [
		["a password of a wrong type", (s) => loadText("", `[[users]]\nname = 'a'\npassword = ["${s}"]`)],
		["passwords of a wrong type", (s) => loadText("", `[[users]]\nname = 'a'\npasswords = "${s}"`)],
		["a mistyped password key", (s) => loadText("", `[[users]]\nname = 'a'\npasswort = "${s}"`)],
		["a password in the wrong file", (s) => loadText(`[[users]]\npassword = "${s}"`, "")],
		["a password in a table of a wrong shape", (s) => loadText(`admin = "${s}"`, `users = ["${s}"]`)],
		["a broken file", (s) => loadText("", `[[users]]\npassword = "${s}\nname = 'a'`)],
		["a password without quotes", (s) => loadText("", `[[users]]\npassword = ${s}\n`)],
		["a password with a bad escape", (s) => loadText("", `[[users]]\npassword = "\\q${s}"\n`)],
		[
			"a URL where a host belongs",
			(s) => loadText(`[[databases]]\nname = 'a'\nhost = 'postgres://u:${s}@h/d'\nport = 0`),
		],
		["a URL where a number belongs", (s) => loadText(`[general]\nport = 'postgres://u:${s}@h/d'`)],
		["a broken database URL", (s) => loadText("", "", { databaseUrls: [`postgres//u:${s}@h`] })],
		["a database URL with a bad escape", (s) => loadText("", "", { databaseUrls: [`postgres://u:${s}%zz@h`] })],
		["an unknown URL parameter", (s) => loadText("", "", { databaseUrls: [`postgres://h?passwd=${s}`] })],
		["a verifier that is none", (s) => loadText("", `[[users]]\nname = 'a'\npassword_hash = "${s}"`)],
		[
			"a key of PgDog's that is not served",
			(s) => loadText(`[general]\ntls_private_key = "${s}"\n[vault]\nurl = "${s}"`),
		],
		["an admin password that is refused", (s) => loadText("", "", { env: { PGDOG_ADMIN_PASSWORD: `${s}\0` } })],
	];

	test.each(places)("are in no message: %s", (_, make) => {
		const text = say(make(SECRET));
		expect(text).not.toBe("");
		expect(text).not.toContain(SECRET);
	});

	test("are in no message, whatever they are", () => {
		// At least eight characters, so that none is part of a message by chance.
		const secret = fc.stringMatching(/^[!#-&(-[\]-~]{8,16}$/);
		fc.assert(
			fc.property(secret, fc.constantFrom(...places), (value, [, make]) => {
				expect(say(make(value))).not.toContain(value);
			}),
			{ numRuns: 150 },
		);
	});
});

test("any TOML at all gives a snapshot or problems with a place, and never throws", () => {
	const word = fc.constantFrom(
		"general",
		"databases",
		"users",
		"admin",
		"tcp",
		"port",
		"name",
		"host",
		"password",
		"plugins",
		"role",
		"write_functions",
	);
	const { value } = fc.letrec((tie) => ({
		value: fc.oneof(
			{ maxDepth: 3, depthSize: "small" },
			fc.constantFrom("1", "1.5", "true", "'x'", "1979-05-27", "''"),
			fc.array(tie("value"), { maxLength: 3 }).map((items) => `[${items.join(", ")}]`),
			fc.dictionary(word, tie("value"), { maxKeys: 4 }).map(
				(table) =>
					`{ ${Object.entries(table)
						.map(([key, inner]) => `${key} = ${inner}`)
						.join(", ")} }`,
			),
		),
	}));
	const file = fc.dictionary(word, value, { maxKeys: 5 }).map((table) =>
		Object.entries(table)
			.map(([key, inner]) => `${key} = ${inner}`)
			.join("\n"),
	);
	fc.assert(
		fc.property(file, file, (config, users) => {
			const loaded = loadText(config, users);
			if (loaded.ok) return;
			expect(loaded.problems.length).toBeGreaterThan(0);
			for (const problem of loaded.problems) expect(problem.line).toBeGreaterThan(0);
		}),
		{ numRuns: 300 },
	);
});
