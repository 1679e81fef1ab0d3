// A server that is asked one query after the other, of which each is answered before the next: for what is done step by step and may
// end in the middle, when the connection does. Used by commit.ts, with a client's server, and by recovery.ts, with one of its own.

import type { Server } from "../backend/server.ts";
import { ServerState } from "../backend/server-state.ts";
import type { Rows } from "../backend/task.ts";
import { PgError } from "../errors.ts";

/** The server has answered with an error. */
export class Declined extends Error {
	readonly error: PgError;
	/** The ErrorResponse, with all of its fields. */
	readonly report: Buffer;

	constructor(error: PgError, report: Buffer) {
		super(error.message);
		this.error = error;
		this.report = report;
	}
}

/** The connection is gone: nobody knows whether what was asked has been done. */
export class Lost extends Error {}

export class Asked {
	private readonly server: Server;
	/** Why the connection is gone; null while it is there. */
	private lost: Lost | null = null;
	private giveUp: ((lost: Lost) => void) | null = null;

	constructor(server: Server) {
		this.server = server;
	}

	get isLost(): boolean {
		return this.lost !== null;
	}

	/**
	 * What a query, or several, answers. @param patience ms, then the connection is closed; undefined: `rollback_timeout`
	 * @throws Declined @throws Lost
	 */
	async ask(sql: string, patience?: number): Promise<Rows> {
		const { server } = this;
		// A CancelRequest is on its way to a query that is over.
		if (server.cancels.count > 0) await this.untilDone<void>((resolve) => server.cancels.whenLanded(resolve));
		return this.untilDone<Rows>((resolve, reject) => {
			server.run(
				sql,
				(rows, error, report) => (error === null ? resolve(rows) : reject(refused(error, report))),
				patience,
			);
		});
	}

	private async untilDone<T>(begin: (resolve: (value: T) => void, reject: (error: Error) => void) => void): Promise<T> {
		const { promise, resolve, reject } = Promise.withResolvers<T>();
		if (this.server.state === ServerState.Closed) this.onLost(null);
		if (this.lost !== null) throw this.lost;
		this.giveUp = reject;
		try {
			begin(resolve, reject);
			return await promise;
		} finally {
			this.giveUp = null;
		}
	}

	close(reason: string): void {
		this.server.close(reason);
	}

	onLost(error: PgError | null): void {
		this.lost ??= new Lost(error?.message ?? (this.server.closeReason || "the server closed the connection"));
		this.giveUp?.(this.lost);
	}
}

function refused(error: PgError, report: Buffer | null): Error {
	return report === null ? new Lost(error.message) : new Declined(error, report);
}

/** SQLSTATE of what has failed; "" when the connection was lost. */
export function sqlstateOf(error: unknown): string {
	return error instanceof Declined ? error.error.sqlstate : "";
}

/** Why it has failed, in one line. @throws what is none of the server's doing */
export function whyOf(error: unknown): string {
	if (error instanceof Declined || error instanceof Lost || error instanceof PgError) return error.message;
	throw error;
}
