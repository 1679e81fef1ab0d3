// Writes docs/config.md from the table of settings: `bun scripts/config-docs.ts`. A test fails when it has not been run.

import { hba } from "../src/config/hba-list.ts";
import { peer } from "../src/config/peers.ts";
import { pgbouncerNames } from "../src/config/pgbouncer-names.ts";
import { environmentNames, MAX, type Setting, type Settings } from "../src/config/setting.ts";
import { admin, database, general, plugin, tcp, user, writeFunction } from "../src/config/settings.ts";
import { mappingRule, omnishardedTables, shardedMapping, shardedSchema, shardedTable } from "../src/config/sharded.ts";
import {
	type Unserved,
	unservedDatabase,
	unservedGeneral,
	unservedPlugin,
	unservedRewrite,
	unservedShardedTable,
	unservedTables,
	unservedTcp,
	unservedUser,
} from "../src/config/unserved.ts";

const head = `# Configuration

<!-- Made from src/config/settings.ts by scripts/config-docs.ts: change it there. -->

Two files in TOML: \`pgdog.toml\` (\`--config\`) and \`users.toml\` (\`--users\`), both as PgDog reads them. Without \`--users\`,
\`users.toml\` is taken from the folder of the config file if \`--config\` names one and it is there, else from the working
directory. \`pgdog configcheck\` checks both and tells everything that is wrong at once, each with file, line, key, the value
found and what is accepted.

A file that a flag names has to be there. A reload (SIGHUP, or \`RELOAD\` on the admin database) has to find every file that was
read before, whole; one with mistakes, or one that leaves no database or no user, changes nothing and says why in the log and to
the giver of \`RELOAD\`. \`RELOAD FORCE\` takes files that leave nothing to serve. A reload without an admin password keeps the one
that is in force.

- Durations are in milliseconds; integers may be written with underscores.
- An environment variable gives a default: a key in the file wins. Truth values are true, 1, yes, on and false, 0, no, off.
  A value that cannot be read is a warning, and the default counts.
- A user's setting wins over its database's, which wins over the general one.
- A setting that is marked "restart" keeps its old value at a reload; all others take effect at once.
- \`disabled\` as a default means no limit. PgDog's way to write it, 9223372036854775807, is accepted.
- A misspelled key is an error, and so is a key of PgDog's that is not served yet, unless its value asks for what is done
  anyway (\`dry_run = false\`) or ignoring it does no harm: then it is a warning. Both lists are at the end.
`;

const tables: readonly [title: string, text: string, settings: Settings, env: boolean][] = [
	["`[general]`", "In `pgdog.toml`.", general, true],
	[
		"`[[databases]]`",
		"In `pgdog.toml`, one for each server. Entries of one name are a cluster: its shards, numbered from 0, each with a primary and\n" +
			"any number of replicas. A database that no user names gets no pool.\n\n" +
			"A server is logged in to as the database's `user`, else the user's `server_user`, else its `name`; with the database's\n" +
			"`password`, else the user's `server_password`, else its own passwords.",
		database,
		false,
	],
	[
		"`[[users]]`",
		'In `users.toml`. A user without any password gets no pool and cannot log in, not even with `auth_type = "trust"`.',
		user,
		false,
	],
	[
		"`[[plugins]]`",
		"In `pgdog.toml`; read at the start only, and asked in this order. [plugins/README.md](../plugins/README.md) tells how to write one.",
		plugin,
		false,
	],
	[
		"`[[write_functions]]`",
		"In `pgdog.toml`; ours, not PgDog's. Functions of yours that write (or lock, or must see the latest data), one for each entry:\n" +
			"a SELECT does not show what the functions in it do. Those of PostgreSQL's own that write are known.",
		writeFunction,
		false,
	],
	[
		"`[[hba]]`",
		"In `pgdog.toml`; ours, not PgDog's. Who may log in from where, and how: the lines of PostgreSQL's pg_hba.conf, in its words. The first\n" +
			"entry whose type, database, user and address fit the log-in decides, and no later one; who fits none is refused (28000). Without\n" +
			"any entry `auth_type` decides for all. `pgdog configcheck --login user=alice,database=app,address=10.0.0.7,tls` prints the entry\n" +
			"that such a log-in would meet.\n\n" +
			"    [[hba]]\n" +
			'    type = "hostssl"\n' +
			'    database = "app,reports"        # or ["app", "reports"]\n' +
			'    user = "all"\n' +
			'    address = "10.0.0.0/8"\n' +
			'    method = "scram-sha-256"\n\n' +
			"What else decides stays as it is. With `tls_client_required` nobody comes as far as the list without TLS. With\n" +
			"`tls_client_ca_certificate` who comes by TLS has to show a certificate. A user with an `identity` shows the one of that, which is\n" +
			"all that any method but `reject` asks of him. Whose password a server judges (`passthrough_auth`) says it in clear text, whichever\n" +
			"method asks, `trust` too; `cert` and `peer` refuse him.\n\n" +
			"Who is refused by the list is told so, after `failed_login_delay` and counted as a failed log-in, whether there is such a user or\n" +
			"not: nobody looks. Where `md5` asks, users with a SCRAM verifier can be told from others, as with PostgreSQL.\n\n" +
			"A name of a user or database that begins with `/` is a regular expression, as with PostgreSQL 16 and later: it matches anywhere in\n" +
			"the name (`'/^app_\\\\d+$'`), and [Logging in](logging-in.md) has what may stand in it.\n\n" +
			"`+role`, `@file`, `map`, host names, masks beside addresses and other methods are not served, and errors. In double\n" +
			"quotes a word is a name (`database = '\"all\"'`). A reload changes who may log in and leaves those who have; who is in the middle\n" +
			"of it is let in where the new list asks for no more. One that would leave no entry at all is refused, as one that leaves no user is.",
		hba,
		false,
	],
	[
		"`[[peers]]`",
		"In `pgdog.toml`; as PgBouncer's. All instances of the proxy behind one address, this one (`peer_id`) among them, so that they can\n" +
			"have the same list. A CancelRequest that is for a client of another is passed on to it, once.",
		peer,
		false,
	],
	[
		"`[[sharded_tables]]`",
		"In `pgdog.toml`; see [Sharding](sharding.md). How the rows of a table are spread over the shards of its database: each is on the shard\n" +
			"that the value of one column says. What would place rows wrongly is an error here, also where PgDog warns: a shard that is not\n" +
			"there, values of another type, ranges that overlap, a table with two columns. A reload that would leave no sharded table, or another\n" +
			"number of shards under a hash, has to be forced (`RELOAD FORCE`).",
		shardedTable,
		false,
	],
	[
		"`[[sharded_tables.mapping]]`",
		"Below an entry of `[[sharded_tables]]`, one for each rule: `values` and `shard`, or `start`, `end` or both and `shard`, or `shard` alone.\n" +
			"Lists come first, then ranges, which have no value in common, then the rule for all other values.",
		mappingRule,
		false,
	],
	[
		"`[[sharded_mappings]]`",
		"In `pgdog.toml`; deprecated, as with PgDog: rules of the entry of `[[sharded_tables]]` that has the same database, table and column.",
		shardedMapping,
		false,
	],
	[
		"`[[sharded_schemas]]`",
		"In `pgdog.toml`. All tables of a schema are on one shard. A bare sharding key (`pgdog_sharding_key`) names a schema then.",
		shardedSchema,
		false,
	],
	[
		"`[[omnisharded_tables]]`",
		"In `pgdog.toml`. Tables that have the same rows on all shards: reads go to one, writes to all.",
		omnishardedTables,
		false,
	],
	["`[admin]`", "In `pgdog.toml` or `users.toml`; where both set a key, the latter wins.", admin, true],
	["`[tcp]`", "In `pgdog.toml`; for connections of clients and to servers, from the next one on.", tcp, false],
];

const urls = `## Databases without files

\`--database-url URL\` (repeatable), or else \`PGDOG_DATABASE_URL_1\`, \`PGDOG_DATABASE_URL_2\` and so on, take the place of all
\`[[databases]]\` and of the whole of \`users.toml\`:

    postgres://user:password@host:port/name?database_name=other&pool_size=20

What is left out: user \`$USER\`, password \`postgres\`, port 5432, name \`postgres\`. Parameters are the settings of \`[[databases]]\`.
The folder of a Unix socket is written percent-encoded in the place of the host, or as the parameter \`host\`.
`;

/** The whole of docs/config.md. */
export function renderConfigDocs(): string {
	const sections = tables.map(([title, text, settings, env]) => {
		const entries = Object.entries(settings).map(([name, setting]) => entry(name, setting, env));
		return `## ${title}\n\n${text}\n\n${entries.join("\n")}`;
	});
	return `${[head, ...sections, urls, unserved(), pgbouncers()].join("\n")}`;
}

function entry(name: string, setting: Setting<unknown>, env: boolean): string {
	// As it is written in the file, so in milliseconds: a default must be fit to be copied.
	const standard = setting.default === MAX ? "disabled" : String(setting.default);
	const none = setting.secret || setting.default === undefined;
	const value = setting.required ? "required" : none ? "no default" : `default \`${standard}\``;
	const facts = [
		setting.type,
		value,
		env
			? environmentNames(name, setting)
					.map((each) => `\`${each}\``)
					.join(" or ")
			: "",
		setting.aliases.length > 0 ? `also written ${setting.aliases.map((each) => `\`${each}\``).join(", ")}` : "",
		setting.reloadable ? "" : "restart",
	].filter((fact) => fact !== "");
	const later =
		setting.later.length > 0 ? ` Not served yet: ${setting.later.map((each) => `"${each}"`).join(", ")}.` : "";
	return `### \`${name}\`\n\n${facts.join(" · ")}\n\n${setting.text}  \nAccepted: ${setting.accepted}.${later}\n`;
}

function unserved(): string {
	const groups: readonly [string, Unserved][] = [
		["tables", unservedTables],
		["[general]", unservedGeneral],
		["[[databases]]", unservedDatabase],
		["[[users]]", unservedUser],
		["[[plugins]]", unservedPlugin],
		["[[sharded_tables]]", unservedShardedTable],
		["[tcp]", unservedTcp],
		["[rewrite]", unservedRewrite],
	];
	const rows = groups.map(
		([name, { refused, ignored }]) => `| \`${name}\` | ${names(Object.keys(refused))} | ${names(ignored)} |`,
	);
	return `## Known to PgDog, not served yet\n\n| where | refused | ignored with a warning |\n|---|---|---|\n${rows.join("\n")}\n`;
}

function pgbouncers(): string {
	const rows = Object.entries(pgbouncerNames).map(([name, here]) => `| \`${name}\` | ${here} |`);
	return `## PgBouncer's names for it\n\n[from-pgbouncer.md](from-pgbouncer.md) says what else is otherwise. Settings that are not in this list have the same name here, or no\ncounterpart; times are milliseconds here, and seconds there (but for \`tcp_user_timeout\`).\n\n| PgBouncer | here |\n|---|---|\n${rows.join("\n")}\n`;
}

function names(keys: readonly string[]): string {
	return keys.map((key) => `\`${key}\``).join(", ");
}

if (import.meta.main) await Bun.write(new URL("../docs/config.md", import.meta.url), renderConfigDocs());
