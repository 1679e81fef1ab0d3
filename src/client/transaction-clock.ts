// How long a client's transaction has been open, as the janitor's looks find it: nothing is noted when one begins or ends, so a
// transaction is a look younger here than it is. One for each client while there is a `transaction_timeout`.

import { PgError } from "../errors.ts";

export class TransactionClock {
	/** When the transaction was first seen open, as `now()`; 0: none was. */
	private since = 0;
	/** How many transactions had ended by then. */
	private ended = 0;

	/**
	 * @param isOpen a transaction is open, or a statement outside of one under way
	 * @param ended how many of the client's transactions have ended
	 * @returns whether this one is open for longer than `limit` ms
	 */
	isOver(isOpen: boolean, ended: number, time: number, limit: number): boolean {
		if (!isOpen) this.since = 0;
		else if (this.since === 0 || ended !== this.ended) this.since = time;
		this.ended = ended;
		return isOpen && time - this.since > limit;
	}
}

/** As PostgreSQL 17 says it of its own `transaction_timeout`. */
export const TRANSACTION_TIMEOUT = new PgError("FATAL", "25P04", "terminating connection due to transaction timeout");
