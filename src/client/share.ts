// Memory that the clients of one worker divide among them: large messages that are here in part, or wait for a server. Whoever
// wants more than is left is refused, and the others go on. Small messages are not counted: each client may have some.

import { PgError } from "../errors.ts";

/** What a client is told that has to go. */
export const NO_ROOM = new PgError(
	"FATAL",
	"53200",
	"out of memory",
	"Large messages of all clients that are here in part take what the proxy has for them.",
);

export class Budget {
	used = 0;
	readonly most: number;

	/** @param most bytes */
	constructor(most: number) {
		this.most = most;
	}
}

/** A client's part of it. */
export class Share {
	private readonly budget: Budget;
	/** What it is; written here only. */
	bytes = 0;

	constructor(budget: Budget) {
		this.budget = budget;
	}

	/** Makes the part `bytes`. @returns false when so much is not left: then it is what it was */
	set(bytes: number): boolean {
		const more = bytes - this.bytes;
		if (more === 0) return true;
		if (more > 0 && this.budget.used + more > this.budget.most) return false;
		this.budget.used += more;
		this.bytes = bytes;
		return true;
	}
}

/** Up to this a message is not counted. */
const SMALL = 1 << 20;

/** What counts of a message of which `here` bytes are here and `need` bytes are to be. */
export function counted(here: number, need: number): number {
	const bytes = Number.isFinite(need) ? Math.max(here, need) : here;
	return bytes > SMALL ? bytes : 0;
}
