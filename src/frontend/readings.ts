// How one client's session reads its statements (parser/reading.ts), from one message to the next: a SET that is under way makes it
// uncertain for what follows, and a statement that was parsed before one has been read in another way than it would be now.

import type { StatementFacts } from "../parser/facts.ts";
import { TransactionControl } from "../parser/facts.ts";
import { dependsOnReading, Reading } from "../parser/reading.ts";
import type { ClientStatements } from "./prepared.ts";

export class Readings {
	/** As the last server has reported it. */
	private settled = Reading.Standard;
	private underWay = 0;
	/** A statement of this transaction may have changed it: the transaction's end may change it back. */
	private changed = false;
	/** Names of statements that were parsed when the session read in another way. */
	private readonly stale = new Set<string>();

	/** For a text that is parsed behind all that was noted. */
	get ofNext(): Reading {
		return this.settled | this.underWay;
	}

	/** For the text of a statement that the client has and that is not stale. */
	get ofParsed(): Reading {
		return this.settled;
	}

	/** What is uncertain may be certain once the server has answered. */
	get isUnderWay(): boolean {
		return this.underWay !== 0;
	}

	/** Nothing is under way: the session reads as its server has reported. */
	settle(reading: Reading, statements: ClientStatements | null): void {
		this.underWay = 0;
		if (reading === this.settled) return;
		this.settled = reading;
		for (const name of statements?.namesOf(dependsOnReading) ?? []) this.stale.add(name);
	}

	/** A statement runs. @param changes it may change how the session reads */
	noteRun(changes: boolean, facts: StatementFacts | null): void {
		this.underWay |= Reading.Running;
		if (changes) this.changed = true;
		else if (!this.changed || !endsTransaction(facts)) return;
		this.underWay |= Reading.Changing;
	}

	/** No transaction is open. */
	noteEnd(): void {
		this.changed = false;
	}

	noteParse(name: string): void {
		if (this.stale.size > 0) this.stale.delete(name);
	}

	isStale(name: string): boolean {
		return this.stale.has(name);
	}
}

/** Or takes it back to a savepoint; or nobody knows. */
function endsTransaction(facts: StatementFacts | null): boolean {
	return facts === null || facts.statements !== 1 || facts.transaction !== TransactionControl.None;
}
