// What one client's session is for routing, wherever it is served: what it has SET of it, the BEGIN that no server knows of yet, what it
// has written, and how it reads its statements. With its settings (settings.ts) and statements (statements.ts) that is all that the
// proxy knows of a client between transactions: plain data. One for each client.

import type { Hints } from "../parser/hints.ts";
import { HeldBegin } from "./held-begin.ts";
import { SessionHints } from "./hints.ts";
import { OwnWrites } from "./own-writes.ts";
import { type MovingReading, SessionReading } from "./session-reading.ts";

/** What it is for another thread, between transactions. */
export interface MovingSession {
	/** Of the StartupMessage. */
	readonly startup: Hints;
	readonly hints: Hints;
	readonly wroteAt: number;
	readonly reading: MovingReading;
}

export class Session {
	/** What the client has SET of routing: `pgdog.role` and its like. */
	readonly hints: SessionHints;
	/** The transaction that no server knows of yet. */
	readonly heldBegin: HeldBegin;
	/** What the client has written, and its reads have to see. */
	readonly writes = new OwnWrites();
	/** How certain it is what PostgreSQL will read in the client's next statement. */
	readonly reading = new SessionReading();

	/** @param startup hints of the StartupMessage */
	constructor(startup: Hints) {
		this.hints = new SessionHints(startup);
		this.heldBegin = new HeldBegin(this.hints);
	}

	depart(): MovingSession {
		const { startup, now } = this.hints;
		return { startup, hints: now, wroteAt: this.writes.at, reading: this.reading.depart() };
	}

	arrive({ hints, wroteAt, reading }: MovingSession): void {
		this.hints.arrive(hints);
		this.writes.wrote(wroteAt);
		this.reading.arrive(reading);
	}
}
