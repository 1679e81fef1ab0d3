// The settings by which users are let in that users.toml does not name: part of the one table (settings.ts). PgBouncer's, under
// names of ours.

import { choice, milliseconds, secret, text } from "./setting.ts";

/** PgBouncer's default, with names that no search_path changes the meaning of. */
const QUERY =
	"SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

/** Of `[general]`. */
export const authQuery = {
	auth_query_user: text({
		default: undefined,
		text: "Ours, not PgDog's (PgBouncer's `auth_user`): users that users.toml does not have for a database are asked of its server, by a connection of this user, who may read what `auth_query` reads. Each gets pools of its own with the first log-in, as the database and `[general]` say, which are closed when nobody has used them for `idle_timeout`. Default: nobody is asked.",
	}),
	auth_query_password: secret({ default: undefined, text: "Ours, not PgDog's: that user's password." }),
	auth_query_database: text({
		default: undefined,
		text: "Ours, not PgDog's (PgBouncer's `auth_dbname`): the entry of `[[databases]]` that is asked. Default: the one that the client logs in to. Of several servers the first that can be connected to is asked, a primary first.",
	}),
	auth_query: text({
		default: QUERY,
		pattern: /\$1(?!\d)/,
		accepted: "a query with the parameter $1",
		text: "Ours, not PgDog's: gives one row for the user `$1`: its name and its secret, which is a SCRAM verifier, an MD5 hash or a password; NULL: it may not log in. Run with `search_path = pg_catalog, pg_temp`: what is elsewhere has to be named with its schema. With a SCRAM verifier `auth_type` has to be `scram` or `plain`, with an MD5 hash `md5` or `plain`.",
	}),
	auth_query_ttl: milliseconds({
		default: 30_000,
		text: "Ours, not PgDog's: how long an answer of `auth_query` is good for; that there is no such user for 2 s at most. A log-in that fails has it asked again. 0: it is asked for each log-in.",
	}),
	passthrough_auth: choice(
		["disabled", "enabled", "enabled_plain", "enabled_allow_change", "enabled_plain_allow_change"],
		{
			default: "disabled",
			text: "A user for whom users.toml has no password (and `auth_query`, asked before, has none) is asked for it in clear text, and gets in when the database's server lets it in with that, which has to ask for a password: unlike PgDog, the proxy takes none unseen. Each gets pools of its own as with `auth_query_user`, which log in with that password (where the entry of `[[databases]]` has a `user`, as that one: whoever the server lets in has its rights); it is kept in memory only. `enabled` and `enabled_allow_change`: over TLS and the Unix socket only; those with `_plain` in them: over any connection. While a user's pools are there, another password than theirs is refused, unless the server refuses theirs meanwhile, which is asked again where that is `passthrough_auth_ttl` ago; with `_allow_change` the server decides, and the pools go on with the new one.",
		},
	),
	passthrough_auth_ttl: milliseconds({
		default: 30_000,
		text: "Ours, not PgDog's: how long a password that the server has taken lets in without asking again: so long after it was changed there, or the role has expired or lost LOGIN, one may still log in by the old. A password that is not known to be right is asked about each time. Who is in stays until his server connection has to be made anew, as with PostgreSQL.",
	}),
};
