// What one client's session is for routing, wherever it is served: what it has SET of it, the BEGIN that no server knows of yet, what it
// has written, and how it reads its statements. With its settings (settings.ts) and statements (statements.ts) that is all that the
// proxy knows of a client between transactions: plain data. One for each client. Its parts are made when first asked for: where nothing is
// routed most clients never have any.

import type { Hints } from "../parser/hints.ts";
import { HeldBegin } from "./held-begin.ts";
import { SessionHints } from "./hints.ts";
import { OwnWrites } from "./own-writes.ts";
import { type MovingReading, SessionReading } from "./session-reading.ts";

/** What it is for another thread, between transactions. */
export interface MovingSession {
	/** Of the StartupMessage. */
	readonly startup: Hints;
	/** Null, as `reading`, when it is as it began. */
	readonly hints: Hints | null;
	readonly wroteAt: number;
	readonly reading: MovingReading | null;
}

export class Session {
	private readonly startup: Hints;
	/** Null until `hints` makes them; for who asks at the end of each transaction. Written here only. */
	ownHints: SessionHints | null = null;
	private ownBegin: HeldBegin | null = null;
	private ownWrites: OwnWrites | null = null;
	private ownReading: SessionReading | null = null;

	/** @param startup hints of the StartupMessage */
	constructor(startup: Hints) {
		this.startup = startup;
	}

	/** What the client has SET of routing: `pgdog.role` and its like. */
	get hints(): SessionHints {
		this.ownHints ??= new SessionHints(this.startup);
		return this.ownHints;
	}

	/** The transaction that no server knows of yet. */
	get heldBegin(): HeldBegin {
		this.ownBegin ??= new HeldBegin(this.hints);
		return this.ownBegin;
	}

	/** What the client has written, and its reads have to see. */
	get writes(): OwnWrites {
		this.ownWrites ??= new OwnWrites();
		return this.ownWrites;
	}

	/** How certain it is what PostgreSQL will read in the client's next statement. */
	get reading(): SessionReading {
		this.ownReading ??= new SessionReading();
		return this.ownReading;
	}

	depart(): MovingSession {
		const { startup, ownHints, ownWrites, ownReading } = this;
		const wroteAt = ownWrites?.at ?? 0;
		return { startup, hints: ownHints?.now ?? null, wroteAt, reading: ownReading?.depart() ?? null };
	}

	arrive({ hints, wroteAt, reading }: MovingSession): void {
		if (hints !== null) this.hints.arrive(hints);
		if (wroteAt > 0) this.writes.wrote(wroteAt);
		if (reading !== null) this.reading.arrive(reading);
	}
}
