// What connections are told that do not get as far as saying who they are, or cannot prove it. Used by startup.ts.

import { PgError } from "../errors.ts";

/** The newest minor version of protocol 3 that we speak. */
export const NEWEST_MINOR = 2;

/** PgDog's error for a client that goes on in plain text where `tls_client_required` forbids it. */
export const TLS_ONLY = new PgError("FATAL", "08004", "only TLS connections are allowed");

/** The password would be read by whoever is on its way. */
export const TLS_TO_PASS = new PgError(
	"FATAL",
	"08004",
	"only TLS connections are allowed",
	"passthrough_auth asks for the password in clear text.",
);

/** PostgreSQL's error for a client that begins TLS without waiting for the answer. A StartupMessage sent early does no harm. */
export const UNENCRYPTED = new PgError(
	"FATAL",
	"08P01",
	"received unencrypted data after SSL request",
	"This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
);

/** A reload asks for another proof than the client has given. */
export const RELOADED = new PgError(
	"FATAL",
	"57P03",
	"how clients log in was changed meanwhile",
	undefined,
	"Try again.",
);

export const STOPPING = new PgError("FATAL", "57P03", "the database system is shutting down");

export function unsupported(code: number): PgError {
	const version = `${code >>> 16}.${code & 0xffff}`;
	const message = `unsupported frontend protocol ${version}: server supports 3.0 to 3.${NEWEST_MINOR}`;
	return new PgError("FATAL", "0A000", message);
}

/** PostgreSQL's error for a client whose system's user has another name. */
export function notPeer({ user }: { readonly user: string }): PgError {
	return new PgError("FATAL", "28000", `Peer authentication failed for user "${user}"`);
}

/** Who has come by `peer` is what it says: it may know why it does not get on. */
export function noUser({ user, database }: { readonly user: string; readonly database: string }): PgError {
	const message = `no user "${user}" is configured for database "${database}"`;
	const hint = "Method peer asks for no password: users.toml, or auth_query, has to have one for the servers.";
	return new PgError("FATAL", "28000", message, undefined, hint);
}

/** What all are told alike who have not proven who they are, so that nobody learns which users there are. */
export function wrongPassword({ user, database }: { readonly user: string; readonly database: string }): PgError {
	const message = `password for user "${user}" and database "${database}" is wrong, or the database does not exist`;
	return new PgError("FATAL", "28000", message);
}
