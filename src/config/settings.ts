// The one table of settings: name, type, default, whether a reload applies it, a line of text, what is accepted.
// Validation and environment variables (`check.ts`), SHOW CONFIG (`show.ts`) and docs/config.md
// (`scripts/config-docs.ts`) are made from it, and so are the types `General` and `Tcp` that all rooms read.
// Names, defaults and units are PgDog's; a setting of our own says so in its text.

import type { LogLevel } from "../log.ts";
import { authQuery } from "./auth-query.ts";
import { MAX_GUC, MAX_POOL, poolerModes, verifications } from "./entries.ts";
import { limits } from "./limits.ts";
import { peering } from "./peers.ts";
import { bytes, choice, flag, integer, MAX, milliseconds, parsed, text, type Values } from "./setting.ts";

export { admin, database, plugin, user, writeFunction } from "./entries.ts";

/** Linux keeps the pauses of keepalive in seconds, at most 32767 (tcp(7), net/tcp.h). */
const MAX_KEEPALIVE = 32_767_000;

const logLevels: readonly string[] = ["off", "error", "warn", "info", "debug", "trace"] satisfies LogLevel[];

/**
 * Reads Rust's env-filter syntax (`info,pgdog=debug`) as far as it makes sense for one program: the level of `pgdog` if
 * given, else the bare one. Levels of Rust's libraries name nothing that we have, and are passed over.
 */
function readLogLevel(filter: string): LogLevel | undefined {
	let bare: string | undefined;
	let ours: string | undefined;
	for (const part of filter.toLowerCase().split(",")) {
		const [target = "", level] = part.trim().split("=", 2);
		const word = level ?? target;
		if (!logLevels.includes(word)) return undefined;
		if (level === undefined) bare = word;
		else if (target === "pgdog") ours = word;
	}
	return (ours ?? bare ?? "info") as LogLevel;
}

const recoveries = ["recover", "rollback_only", "drop"] as const;

export const general = {
	host: text({
		default: "0.0.0.0",
		reloadable: false,
		text: "Address on which clients are listened for.",
	}),
	port: integer({
		default: 6432,
		min: 1,
		max: 65535,
		reloadable: false,
		text: "Port on which clients are listened for; also part of the Unix socket's name.",
	}),
	unix_socket_dir: text({
		default: undefined,
		reloadable: false,
		pattern: /^[/@]/,
		accepted: "an absolute path of a folder",
		text: "Ours, not PgDog's: also listen on the Unix socket `<this folder>/.s.PGSQL.<port>`. The file of a killed proxy is taken over, one that is listened on is not. What starts with `@` is a name without a file (Linux). A Unix socket that systemd passes on takes its place.",
	}),
	unix_socket_mode: text({
		default: "0777",
		reloadable: false,
		pattern: /^0?[0-7]{3}$/,
		accepted: 'permissions in octal, as text: "0770"',
		text: "Ours, not PgDog's: permissions of the Unix socket's file. Whoever may write to it may connect.",
	}),
	takeover_socket: text({
		default: undefined,
		reloadable: false,
		pattern: /^\/.{1,106}$/,
		accepted: "an absolute path of at most 107 bytes",
		text: "Ours, not PgDog's: a Unix socket, for the same user only, by which another process that is started with `--takeover` and this configuration goes on in place of this one: it is handed the sockets that clients connect to, and clients that rest; this one leaves when no client is left, at the latest after `shutdown_timeout`. Linux only.",
	}),
	takeover_timeout: milliseconds({
		default: 10_000,
		min: 1,
		reloadable: false,
		text: "Ours, not PgDog's, in milliseconds: a process that has come by `takeover_socket` and does not listen within this time takes over nothing, and ends; this one goes on.",
	}),
	workers: integer({
		default: 2,
		max: 256,
		reloadable: false,
		text: "Threads that serve clients. 0 serves them on the main thread.",
	}),
	client_placement: choice(["fill", "spread"], {
		default: "fill",
		text: "Ours, not PgDog's: where clients are among several workers. `fill`: those that say something go, between their transactions, to one worker until that has no time left, and then to the next, which costs the least. `spread`: each stays with the worker that has accepted it, so that one that is held up, by a plugin for instance, holds up fewer clients.",
	}),
	...limits,
	...peering,
	...authQuery,
	default_pool_size: integer({
		default: 10,
		min: 1,
		max: MAX_POOL,
		aliases: ["max_pool_size"],
		text: "Most server connections of one pool, that is of one user, database and server. A limit of the whole process.",
	}),
	min_pool_size: integer({
		default: 1,
		max: MAX_POOL,
		text: "Server connections that each pool keeps open while nobody needs them. They are opened a few at a time, for pools that clients use first, and not while somebody waits; a server that refuses one for want of room (53300) is left alone for a while, and idle connections that nobody has used make room there.",
	}),
	pooler_mode: choice(poolerModes, {
		default: "transaction",
		text: "How long a client keeps a server connection. `session` turns `prepared_statements` to `disabled`; `statement` refuses BEGIN.",
	}),
	healthcheck_interval: milliseconds({
		default: 30_000,
		text: "A server connection that has not been heard of for longer is probed before it is lent.",
	}),
	healthcheck_timeout: milliseconds({
		default: 5_000,
		min: 1,
		text: "How long such a probe, or one in the background, may take. The connection is closed then, and the server counts as ill.",
	}),
	idle_healthcheck_interval: milliseconds({
		default: 30_000,
		text: "Every pool's server is checked this often in the background, by an idle connection or, for want of one, by one beyond the pool's size that is closed again. 0 turns that off.",
	}),
	idle_healthcheck_delay: milliseconds({
		default: 5_000,
		text: "The first check in the background comes this long after the start.",
	}),
	dns_ttl: milliseconds({
		default: 10_000,
		text: "A server's host name is looked up again after so long, and at once when no connection can be had. Connections to an address that is the host's no more are closed when nobody has them. 0: for each new connection.",
	}),
	healthcheck_port: integer({
		default: undefined,
		min: 1,
		max: 65535,
		reloadable: false,
		text: "HTTP port. `/` answers 200 `up`, or 502 `down` when no server of any pool is well, when there is no pool (and none comes with a log-in), and during a shutdown. Ours, not PgDog's: `/ready` answers the same, but 503 during a shutdown; `/live` answers 200, or 503 while a worker does not come back to its event loop; other paths 404.",
	}),
	require_healthcheck_on_discovery: flag({
		default: false,
		text: "Reads are not sent to a server before its first check has passed.",
	}),
	ban_timeout: milliseconds({
		default: 300_000,
		text: "How long a server that has failed is not read from, unless a check passes before. It stays out while it is known to be ill. 0: no bans.",
	}),
	ban_replica_lag: milliseconds({
		default: MAX,
		min: 1,
		text: "A replica that is further behind its primary is not read from.",
	}),
	ban_replica_lag_bytes: bytes({
		default: MAX,
		min: 1,
		text: "A replica that is further behind its primary's write-ahead log is not read from.",
	}),
	load_balancing_strategy: choice(["random", "round_robin", "least_active_connections", "weighted_round_robin"], {
		default: "random",
		text: "How a server is chosen among those that may serve a read. The last one goes by `lb_weight`.",
	}),
	read_write_strategy: choice(["conservative", "aggressive"], {
		default: "conservative",
		text: "Where a transaction goes that does not say READ ONLY: to the primary, or where its first statement belongs.",
	}),
	read_write_split: choice(
		["include_primary", "exclude_primary", "include_primary_if_replica_banned", "prefer_primary"],
		{
			default: "include_primary",
			text: "Whether the primary serves reads: always, never, while a replica is banned, or all reads that do not ask for a replica. Where there is no replica, it does.",
		},
	),
	lsn_check_interval: milliseconds({
		default: 5_000,
		min: 10,
		text: "How often servers are asked for their role and how far they have replayed, by one connection to each beside its pools.",
	}),
	lsn_check_timeout: milliseconds({ default: 5_000, min: 1, text: "How long such a question may take." }),
	lsn_check_delay: milliseconds({
		default: MAX,
		text: 'The first such question comes this long after the start; at once where `role = "auto"`, a ban for lag or `read_after_write = "lsn"` needs it.',
	}),
	read_after_write: choice(["off", "primary", "lsn"], {
		default: "off",
		text: "Ours, not PgDog's: after a client has written, its reads go to the primary for `read_after_write_window`, or (`lsn`) to servers that have replayed it.",
	}),
	read_after_write_window: milliseconds({
		default: 1_000,
		min: 1,
		text: 'Ours, not PgDog\'s: how long with `read_after_write = "primary"`.',
	}),
	cross_shard_disabled: flag({
		default: false,
		text: "A statement that would go to several shards is refused (58000), whatever it is, but for those about the session or the transaction.",
	}),
	cross_shard_unmerged: choice(["refuse", "permit"], {
		default: "refuse",
		text: "Ours, not PgDog's: a statement for several shards whose answers the proxy cannot make one (ORDER BY, LIMIT, DISTINCT, aggregates, joins …) is refused (0A000), or each shard's own answer is passed on.",
	}),
	cross_shard_functions: text({
		default: undefined,
		text: "Ours, not PgDog's: functions of yours, as `name` or `schema.name`, with commas between them, that depend on nothing but their arguments and are no aggregates, so that a SELECT for several shards may call them.",
	}),
	two_phase_commit: flag({
		default: false,
		text: "A transaction that has written on several shards is committed on all of them or on none: by PREPARE TRANSACTION on each, a row in the table `pgdog.two_phase_commits` of the first of them, and COMMIT PREPARED. Clients may not prepare transactions themselves. Servers need `max_prepared_transactions`; docs/two-phase.md.",
	}),
	two_phase_commit_auto: flag({
		default: false,
		text: "The same around a single INSERT, UPDATE, DELETE, MERGE or COPY outside of a transaction that goes to several shards.",
	}),
	expanded_explain: flag({
		default: false,
		text: "The output of EXPLAIN ends with where it was sent, and why.",
	}),
	rollback_timeout: milliseconds({
		default: 5_000,
		min: 1,
		text: "How long ROLLBACK and the other cleaning of a returned server connection may take before it is closed.",
	}),
	shutdown_timeout: milliseconds({
		default: 60_000,
		text: "How long clients may finish their transactions at shutdown before they are disconnected.",
	}),
	shutdown_termination_timeout: milliseconds({
		default: undefined,
		text: "After `shutdown_timeout`: cancel the running queries and wait this long for them to end.",
	}),
	tls_certificate: text({
		default: undefined,
		text: "PEM file of the certificate that clients are shown, with those that lead to its authority behind it. Together with `tls_private_key` it turns TLS towards clients on; both are read again by a reload, and each new connection is shown the newest.",
	}),
	tls_private_key: text({
		default: undefined,
		text: "PEM file of the private key of `tls_certificate`, without passphrase. A key for ECDSA makes a new connection half as dear as one for RSA.",
	}),
	tls_client_required: flag({
		default: false,
		text: "Clients that do not begin TLS are refused (08004), but for those of the Unix socket and for CancelRequests.",
	}),
	tls_client_ca_certificate: text({
		default: undefined,
		text: "PEM file of the authorities whose certificates clients have to show over TLS. A certificate that is not valid, or not of theirs, ends the connection.",
	}),
	tls_min_version: choice(["1.2", "1.3"], {
		default: "1.2",
		text: "Ours, not PgDog's: the oldest version of TLS that clients may speak.",
	}),
	tls_verify: choice(verifications, {
		default: "prefer",
		text: "TLS towards servers. `disabled`: none. `prefer`: where the server has it, with whatever certificate. `verify_ca`: always, with a certificate of `tls_server_ca_certificate`. `verify_full`: and of the host that `[[databases]]` names. Connections that are encrypted cannot go from worker to worker: another is opened there. Those of Unix sockets are never encrypted.",
	}),
	tls_server_ca_certificate: text({
		default: undefined,
		text: "PEM file of the authorities whose certificates servers have to show. Default: those that Bun has built in, which are Mozilla's.",
	}),
	tls_server_certificate: text({
		default: undefined,
		text: "PEM file of the certificate that servers are shown when they ask for one; together with `tls_server_private_key`.",
	}),
	tls_server_private_key: text({
		default: undefined,
		text: "PEM file of the private key of `tls_server_certificate`, without passphrase.",
	}),
	prepared_statements: choice(["disabled", "extended", "extended_anonymous"], {
		default: "extended",
		later: ["full"],
		text: "Which prepared statements are shared between clients: those with a name, those without one too, or none.",
	}),
	prepared_statements_limit: integer({
		default: MAX,
		min: 1,
		text: "Most prepared statements kept on one server connection, and in the cache that all share.",
	}),
	prepared_statements_ttl: milliseconds({
		default: undefined,
		min: 1,
		text: "A shared statement that a server has had for so long is parsed anew there before its next use: for DDL that does not pass through the proxy.",
	}),
	prepared_statements_ttl_jitter: milliseconds({
		default: 30_000,
		text: "`prepared_statements_ttl` is so much shorter or longer, at random and never to less than nothing, so that not all are parsed anew at once.",
	}),
	auth_type: choice(["scram", "md5", "trust", "plain"], {
		default: "scram",
		text: "How clients prove who they are. `trust` asks for no password, but the user must exist and have one, and the admin database asks for its own (by SCRAM). Where there is any `[[hba]]`, that says it instead.",
	}),
	connect_timeout: milliseconds({
		default: 5_000,
		min: 1,
		text: "How long one attempt to connect and log in to a server may take.",
	}),
	connect_attempts: integer({
		default: 1,
		min: 1,
		max: 1_000,
		text: "Attempts to connect to a server before the checkout fails.",
	}),
	connect_attempt_delay: milliseconds({ default: 0, text: "Pause between two such attempts." }),
	query_timeout: milliseconds({
		default: MAX,
		min: 1,
		text: "A query that takes longer loses its server connection and its client.",
	}),
	checkout_timeout: milliseconds({
		default: 5_000,
		min: 1,
		text: "How long a client waits for a server connection when all of the pool are lent.",
	}),
	client_login_timeout: milliseconds({
		default: 60_000,
		min: 1,
		// PgDog reads the second, misspelled name only.
		env: ["PGDOG_CLIENT_LOGIN_TIMEOUT", "PGDOG_CLIENT_LOG_TIMEOUT"],
		text: "A client that has not logged in by then is disconnected.",
	}),
	client_idle_timeout: milliseconds({
		default: MAX,
		min: 1,
		text: "A client that is idle outside a transaction for longer is disconnected (57P05).",
	}),
	client_idle_in_transaction_timeout: milliseconds({
		default: MAX,
		min: 1,
		text: "A client that is idle inside a transaction for longer is disconnected (57P05), its transaction rolled back.",
	}),
	idle_timeout: milliseconds({
		default: 60_000,
		text: "A server connection above the minimum that nobody needed for longer is closed.",
	}),
	server_lifetime: milliseconds({
		default: 86_400_000,
		min: 1,
		text: "A server connection older than this is closed when it comes back.",
	}),
	server_lifetime_jitter: milliseconds({
		default: 0,
		text: "Each server connection's lifetime is up to this much longer or shorter, so that not all end at once.",
	}),
	connection_recovery: choice(recoveries, {
		default: "recover",
		text: "What happens to a server connection whose client left in the middle: bring it to order, only roll back, or close it.",
	}),
	client_connection_recovery: choice(recoveries, {
		default: "drop",
		text: "What happens to a client that could not be given a server connection: an error and it goes on, or it is disconnected.",
	}),
	query_size_limit: bytes({
		default: undefined,
		min: 1,
		text: "Longest Query or Parse message before `query_size_limit_action` applies.",
	}),
	query_size_limit_action: choice(["warn", "block"], {
		default: "warn",
		text: "What happens to a longer one: a line in the log, or FATAL 54000.",
	}),
	log_format: choice(["text", "json", "json_flattened"], {
		default: "text",
		text: "Form of the log on standard error. In JSON the user, database and address that a line is about are fields: under `properties`, or beside the message.",
	}),
	log_level: parsed<LogLevel>(
		"log level",
		`one of ${logLevels.map((word) => `"${word}"`).join(", ")}, or a filter such as "info,pgdog=debug"`,
		{
			default: "info",
			env: ["PGDOG_LOG_LEVEL", "RUST_LOG"],
			text: "What is logged: this level and all above it.",
		},
		readLogLevel,
	),
	log_connections: flag({ default: true, text: "Log each client that logs in." }),
	log_disconnections: flag({ default: true, text: "Log each client that leaves, and why." }),
	stats_period: milliseconds({
		default: 15_000,
		min: 1,
		text: "Window over which the averages of SHOW STATS are taken.",
	}),
};

export const tcp = {
	keepalive: flag({ default: true, text: "Switch on TCP keepalive, towards clients and servers." }),
	time: milliseconds({
		default: undefined,
		min: 1000,
		max: MAX_KEEPALIVE,
		text: "Silence after which the first keepalive probe is sent. Default: the system's.",
	}),
	interval: milliseconds({
		default: undefined,
		min: 1000,
		max: MAX_KEEPALIVE,
		text: "Pause between two keepalive probes. Default: the system's.",
	}),
	retries: integer({
		default: undefined,
		min: 1,
		max: 127,
		text: "Unanswered probes before the connection counts as dead. Default: the system's.",
	}),
	user_timeout: milliseconds({
		default: undefined,
		max: MAX_GUC,
		text: "How long sent data may stay unacknowledged before the connection counts as dead. Default: the system's.",
	}),
};

export type General = Values<typeof general>;
export type Tcp = Values<typeof tcp>;
