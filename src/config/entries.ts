// What `[admin]`, `[[databases]]`, `[[users]]`, `[[plugins]]` and `[[write_functions]]` say of one each: part of the one table
// (settings.ts).

import { databaseLimits, userLimits } from "./limits.ts";
import {
	choice,
	flag,
	integer,
	list,
	lowerCase,
	MAX_IDENTIFIER,
	milliseconds,
	parsed,
	secret,
	text,
} from "./setting.ts";

/** Largest value (ms) that PostgreSQL takes for its own timeouts: a larger one would fail each new server connection. */
export const MAX_GUC = 2147483647;
/** More would not be a pool; a guess, and what an unsigned 16-bit counter holds. */
export const MAX_POOL = 65535;

/** `tls_verify`. */
export const verifications = ["disabled", "prefer", "verify_ca", "verify_full"] as const;
export const poolerModes = ["transaction", "session", "statement"] as const;

/** `x_file` and `x_env`, for a secret `x` that is to stand elsewhere (secrets.ts). */
function secretElsewhere<N extends string>(name: N, more: string) {
	const file = text({ default: undefined, text: `Ours, not PgDog's: a file with it, instead of \`${name}\`.${more}` });
	const env = text({
		default: undefined,
		text: `Ours, not PgDog's: the name of an environment variable that has it, instead of \`${name}\`.`,
	});
	return { [`${name}_file`]: file, [`${name}_env`]: env } as Record<`${N}_file` | `${N}_env`, typeof file>;
}

/** Settings of `[admin]`, which stands in either file. */
export const admin = {
	name: text({
		default: "admin",
		text: "Name of the database under which the admin console is found. With `pgbouncer`, SHOW has PgBouncer's rows and columns.",
	}),
	user: text({ default: "admin", text: "The only user who may log in to it." }),
	password: secret({
		default: undefined,
		env: ["PGDOG_ADMIN_PASSWORD"],
		text: "Its password. Default: a random one that nobody is told: without it nobody gets in.",
	}),
	...secretElsewhere("password", " As with a user's."),
};

/** A certificate of our own for servers: a user's wins over a database's, which wins over `[general]`. */
const serverCertificate = {
	tls_server_certificate: text({
		default: undefined,
		text: "Ours, not PgDog's: instead of the general `tls_server_certificate`, together with `tls_server_private_key`.",
	}),
	tls_server_private_key: text({
		default: undefined,
		text: "Ours, not PgDog's: instead of the general `tls_server_private_key`.",
	}),
};

/** What `[[databases]]` and `[[users]]` have in common: a user's wins over a database's, which wins over `[general]`. */
const poolSettings = {
	pool_size: integer({
		default: undefined,
		min: 1,
		max: MAX_POOL,
		aliases: ["max_pool_size"],
		text: "Instead of `default_pool_size`.",
	}),
	min_pool_size: integer({ default: undefined, max: MAX_POOL, text: "Instead of the general `min_pool_size`." }),
	reserve_pool_size: integer({
		default: undefined,
		max: MAX_POOL,
		text: "Instead of the general `reserve_pool_size`.",
	}),
	pooler_mode: choice(poolerModes, { default: undefined, text: "Instead of the general `pooler_mode`." }),
	statement_timeout: milliseconds({
		default: undefined,
		max: MAX_GUC,
		text: "PostgreSQL's `statement_timeout`, set when a server connection starts.",
	}),
	lock_timeout: milliseconds({
		default: undefined,
		max: MAX_GUC,
		text: "PostgreSQL's `lock_timeout`, set when a server connection starts.",
	}),
	idle_timeout: milliseconds({ default: undefined, text: "Instead of the general `idle_timeout`." }),
	server_lifetime: milliseconds({ default: undefined, min: 1, text: "Instead of the general `server_lifetime`." }),
	server_lifetime_jitter: milliseconds({
		default: undefined,
		text: "Instead of the general `server_lifetime_jitter`.",
	}),
	read_only: flag({
		default: undefined,
		text: "Server connections start with `default_transaction_read_only = on`. Where the user or each entry of the database says so, transactions go to replicas unless they are seen to write.",
	}),
};

/** One role's sizes, which win over those for any role, a user's and a database's alike: PgDog's order. */
const roleSettings = {
	pool_size_primary: integer({
		default: undefined,
		min: 1,
		max: MAX_POOL,
		text: 'Instead of any `pool_size`, with `role = "primary"`.',
	}),
	pool_size_replica: integer({
		default: undefined,
		min: 1,
		max: MAX_POOL,
		text: 'Instead of any `pool_size`, with `role = "replica"`.',
	}),
	min_pool_size_primary: integer({
		default: undefined,
		max: MAX_POOL,
		text: 'Instead of any `min_pool_size`, with `role = "primary"`.',
	}),
	min_pool_size_replica: integer({
		default: undefined,
		max: MAX_POOL,
		text: 'Instead of any `min_pool_size`, with `role = "replica"`.',
	}),
	idle_timeout_primary: milliseconds({
		default: undefined,
		text: 'Instead of any `idle_timeout`, with `role = "primary"`.',
	}),
	idle_timeout_replica: milliseconds({
		default: undefined,
		text: 'Instead of any `idle_timeout`, with `role = "replica"`.',
	}),
};

export const database = {
	name: text({
		required: true,
		default: "",
		text: "Name under which clients connect. Ours, not PgDog's (PgBouncer's): entries named `\"*\"` are for any database that no other names; its pools come with the first log-in, once the server has it, and go when nobody has used them for `idle_timeout`. Not the name of the admin database, nor one of more than 63 bytes.",
	}),
	role: choice(["primary", "replica", "auto"], {
		default: "primary",
		text: "What the server is: the one that takes writes, or one that is read from; `auto`: it is asked, and asked again, as all servers of its shard are. A shard has at most one primary.",
	}),
	host: text({
		required: true,
		default: "",
		text: "Host name or address of the server, or the folder of its Unix socket when it starts with `/` (or with `@`, which is a name without a file, on Linux).",
	}),
	port: integer({ default: 5432, min: 1, max: 65535, text: "Port of the server." }),
	shard: integer({
		default: 0,
		max: 65535,
		text: "Number of the shard that the server has. Shards are numbered from 0 without gaps.",
	}),
	lb_weight: integer({
		default: 255,
		max: 255,
		text: 'Its share of the reads with `load_balancing_strategy = "weighted_round_robin"`; 0: none while another is well.',
	}),
	database_name: text({
		default: undefined,
		text: 'Name of the database on the server. Default: `name`, or, for `"*"`, the one that the client names.',
	}),
	user: text({
		default: undefined,
		text: "User towards the server. Default: the user's `server_user`, then its `name`.",
	}),
	password: secret({
		default: undefined,
		empty: true,
		text: "Password towards the server. Default: the user's `server_password`, then its own passwords.",
	}),
	tls_verify: choice(verifications, {
		default: undefined,
		text: "Ours, not PgDog's: instead of the general `tls_verify`.",
	}),
	tls_server_ca_certificate: text({
		default: undefined,
		text: "Ours, not PgDog's: instead of the general `tls_server_ca_certificate`.",
	}),
	...serverCertificate,
	...databaseLimits,
	...poolSettings,
	...roleSettings,
};

/** PostgreSQL docs, "pg_authid": iterations, then salt, StoredKey and ServerKey in base64 (keys of SHA-256: 44 characters). */
const SCRAM_VERIFIER = /^SCRAM-SHA-256\$[1-9]\d{0,8}:[A-Za-z0-9+/]+={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$/;

export const user = {
	name: text({ required: true, default: "", text: "Name with which clients log in." }),
	database: text({
		default: undefined,
		text: 'The database that the user may use. `"*"`: any of those that are there by the entries of that name, and `all_databases` means these, too.',
	}),
	databases: list({ default: undefined, text: "The databases that the user may use, beside `database`." }),
	all_databases: flag({ default: false, text: "The user may use each of `[[databases]]`." }),
	password: secret({ default: undefined, empty: true, text: "Password of the user." }),
	...secretElsewhere(
		"password",
		" The file's text without its last newline is the password. A relative path is looked for among systemd's credentials (`$CREDENTIALS_DIRECTORY`, when set) first, then from the folder of the file that it stands in. Read again at each reload; one that everybody may read is warned of.",
	),
	passwords: list({
		default: undefined,
		secret: true,
		text: "Several: a client may log in with any; towards servers they are tried in order.",
	}),
	password_hash: secret({
		default: undefined,
		pattern: SCRAM_VERIFIER,
		accepted: "a SCRAM verifier as `pgdog hash` prints it (SCRAM-SHA-256$4096:…)",
		text: "SCRAM verifier instead of a password, as servers keep it in `pg_authid`. It lets clients in; where there is no password beside it, and the server has the same verifier, what the first client to log in has proven logs in to the server.",
	}),
	identity: text({
		default: undefined,
		text: "The name in a client certificate, its first DNS name or else its CN, that lets a client in as this user: no password is asked for then, and none lets in. It takes `tls_client_ca_certificate`.",
	}),
	tls_client_certificate_required: flag({
		default: true,
		text: "With `tls_client_ca_certificate`: whether a client over TLS has to show a certificate.",
	}),
	cross_shard_disabled: flag({ default: undefined, text: "Instead of the general `cross_shard_disabled`." }),
	server_user: text({ default: undefined, text: "User towards servers. Default: `name`." }),
	server_password: secret({
		default: undefined,
		empty: true,
		text: "Password towards servers. Default: the user's passwords.",
	}),
	...secretElsewhere("server_password", " As `password_file`."),
	...serverCertificate,
	two_phase_commit: flag({ default: undefined, text: "Instead of the general `two_phase_commit`." }),
	two_phase_commit_auto: flag({ default: undefined, text: "Instead of the general `two_phase_commit_auto`." }),
	...userLimits,
	...poolSettings,
	...roleSettings,
};

export const plugin = {
	name: text({
		required: true,
		default: "",
		reloadable: false,
		text: "The plugin's library: a name that is looked for in `LD_LIBRARY_PATH` and the system's folders, or a path.",
	}),
	required: flag({
		default: false,
		reloadable: false,
		text: "Ours, not PgDog's: do not start when this plugin cannot be loaded. Otherwise it is skipped with a warning.",
	}),
};

const IDENTIFIER = String.raw`[A-Za-z_\u0080-\u{10ffff}][\w$\u0080-\u{10ffff}]*|"(?:[^"\0]|"")+"`;
const FUNCTION_NAME = new RegExp(`^(?:(${IDENTIFIER})\\.)?(${IDENTIFIER})$`, "u");

/** One or two SQL identifiers, folded as the server folds them (ASCII letters only) and joined by a dot. */
function readFunctionName(name: string): string | undefined {
	const found = FUNCTION_NAME.exec(name);
	if (found === null) return undefined;
	const parts = found.slice(1).flatMap((part) => part ?? []);
	const folded = parts.map((part) =>
		part.startsWith('"') ? part.slice(1, -1).replaceAll('""', '"') : lowerCase(part),
	);
	return folded.some((part) => Buffer.byteLength(part) > MAX_IDENTIFIER) ? undefined : folded.join(".");
}

export const writeFunction = {
	name: parsed(
		"name of a function",
		`a function as "name" or "schema.name", as in SQL: lower case unless in double quotes, ${MAX_IDENTIFIER} bytes each at most`,
		{
			required: true,
			default: "",
			text: "A function that writes: a statement that calls it goes to the primary. Without a schema, one of any schema is meant; with one, a call that names none counts too.",
		},
		readFunctionName,
	),
};
