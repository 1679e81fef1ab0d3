// How long a client may take: `client_idle_timeout`, `client_idle_in_transaction_timeout` and `transaction_timeout`, as the janitor's
// looks find it. Nothing is noted when a transaction begins or ends, so one is a look younger here than it is. One for each client,
// whether of one shard or of several.

import { MAX } from "../config/setting.ts";
import type { General } from "../config/settings.ts";
import { PgError } from "../errors.ts";

/** Whose turn it is. */
export const enum Turn {
	/** The proxy's or a server's; or the client's in the middle of a batch, where it may be as slow as it is. */
	Others,
	/** The client's, between transactions. */
	Idle,
	/** The client's, in a transaction. */
	InTransaction,
}

/** A limit that is passed, by the name of its setting, and what the client is told. */
interface Passed {
	readonly setting: string;
	readonly error: PgError;
}

export class TimeLimits {
	/** When the transaction was first seen open, as `now()`; 0: none was. */
	private since = 0;
	/** How many transactions had ended by then. */
	private ended = 0;

	/**
	 * @param idleFor ms since something came from the client or was answered
	 * @param isUnderway a transaction is open, or a statement outside of one under way
	 * @param ended how many of the client's transactions have ended
	 * @param time `now()`
	 * @returns what the client is to be closed for; null when it may go on
	 */
	look(general: General, turn: Turn, idleFor: number, isUnderway: boolean, ended: number, time: number): Passed | null {
		if (general.transaction_timeout !== MAX && this.isOvertime(isUnderway, ended, time, general.transaction_timeout))
			return OVERTIME;
		if (turn === Turn.Others) return null;
		const isIdle = turn === Turn.Idle;
		const setting = isIdle ? "client_idle_timeout" : "client_idle_in_transaction_timeout";
		if (idleFor <= general[setting]) return null;
		const message = `disconnecting idle ${isIdle ? "" : "in transaction "}client`;
		return { setting, error: new PgError("FATAL", "57P05", message, `${setting} of ${general[setting]}ms expired`) };
	}

	private isOvertime(isUnderway: boolean, ended: number, time: number, limit: number): boolean {
		if (!isUnderway) this.since = 0;
		else if (this.since === 0 || ended !== this.ended) this.since = time;
		this.ended = ended;
		return isUnderway && time - this.since > limit;
	}
}

/** In the words of PostgreSQL 17 about its own `transaction_timeout`. */
const OVERTIME: Passed = {
	setting: "transaction_timeout",
	error: new PgError("FATAL", "25P04", "terminating connection due to transaction timeout"),
};
