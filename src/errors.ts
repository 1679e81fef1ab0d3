// The errors that cross rooms. `ProtocolError` says that the peer broke the protocol; `PgError` is an
// ErrorResponse in the making, built where the cause is known. Everything else that is thrown is a bug.

/** SQLSTATE `too_many_connections`: a server's, or ours for a client that the proxy has no room or no server for. */
export const TOO_MANY_CONNECTIONS = "53300";

export type Severity = "ERROR" | "FATAL" | "PANIC" | "WARNING" | "NOTICE";

/** What PostgreSQL would send as an ErrorResponse. `sqlstate` as in PostgreSQL docs, "PostgreSQL Error Codes". */
export class PgError extends Error {
	readonly severity: Severity;
	readonly sqlstate: string;
	readonly detail: string | undefined;
	readonly hint: string | undefined;
	/** The function of PostgreSQL that reports this, where drivers go by it. */
	readonly routine: string | undefined;
	/** Place in the statement's text, in characters from 1; 0: none. */
	readonly position: number;

	constructor(
		severity: Severity,
		sqlstate: string,
		message: string,
		detail?: string,
		hint?: string,
		routine?: string,
		position = 0,
	) {
		super(message);
		this.position = position;
		this.severity = severity;
		this.sqlstate = sqlstate;
		this.detail = detail;
		this.hint = hint;
		this.routine = routine;
	}
}

/** What PostgreSQL says when a CancelRequest has ended a statement. */
export const CANCELED = new PgError("ERROR", "57014", "canceling statement due to user request");

/** Whatever was thrown, as an error for a client: FATAL XX000 (internal_error) unless it is a PgError already. */
export function asPgError(error: unknown): PgError {
	return error instanceof PgError ? error : new PgError("FATAL", "XX000", String(error));
}

/** A bug for the log: its stack, which says where it was thrown. */
export function traceOf(error: unknown): string {
	return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** The peer sent bytes that are not the protocol. Costs that connection: ErrorResponse with `sqlstate`, then close. */
export class ProtocolError extends Error {
	readonly sqlstate: string;
	/** Answers before the error are sent first, as by PostgreSQL; false where it could read no further and sends none (COMMERROR). */
	readonly flushes: boolean;
	constructor(message: string, sqlstate = "08P01", flushes = true) {
		super(message);
		this.sqlstate = sqlstate;
		this.flushes = flushes;
	}
}

/** What strerror says of the codes that Bun reports with nothing but "Failed to connect" or "Failed to listen". */
const REASONS: Readonly<Record<string, string>> = {
	EACCES: "Permission denied",
	EADDRINUSE: "address already in use",
	EADDRNOTAVAIL: "Cannot assign requested address",
	ECONNREFUSED: "Connection refused",
	EHOSTUNREACH: "No route to host",
	ENETUNREACH: "Network is unreachable",
	ENOENT: "No such file or directory",
	ENOSPC: "No space left on device",
	ENOTDIR: "Not a directory",
};

/** Why the system would not do something, in the words in which PostgreSQL's programs say it. */
export function reasonOf(error: unknown): string {
	const { code = "", message = String(error) } = error as NodeJS.ErrnoException;
	return REASONS[code] ?? (message.startsWith("Failed to ") && code !== "" ? code : message);
}

/** An error that stops the start: says where it cannot listen and why, which Bun's own message does not. */
export function cannotListen(error: unknown, where: string): Error {
	return new Error(`cannot listen on ${where}: ${reasonOf(error)}`);
}
