// How one client's session reads its statements (parser/reading.ts), from one message to the next: a SET that is under way makes it
// uncertain for what follows, and a statement that was parsed before one has been read in another way than it would be now.

import type { StatementFacts } from "../parser/facts.ts";
import { TransactionControl } from "../parser/facts.ts";
import { dependsOnReading, Reading } from "../parser/reading.ts";
import type { ClientStatements } from "./statements.ts";

/** What it is for another thread, between transactions. */
export interface MovingReading {
	readonly settled: Reading;
	readonly stale: readonly string[];
}

export class SessionReading {
	/** How a text is read that is parsed behind all that was noted. This and the next three are written here only. */
	ofNext = Reading.Standard;
	/** How the session reads, as its server has reported last: so is the text of a statement that the client has and that is not stale. */
	ofParsed = Reading.Standard;
	/** Statements are under way: what is uncertain may be certain once the server has answered. */
	isUnderWay = false;
	/** Some statement may be stale: if none is, names need not be made strings. */
	hasStale = false;
	/** A statement of this transaction may have changed how the session reads: the transaction's end may change it back. */
	private changed = false;
	/** Names of statements that were parsed when the session read in another way, or nobody knows how. */
	private readonly stale = new Set<string>();
	/** Bytes of those names. Beyond `MOST_STALE` all statements that can be read in several ways count as stale. */
	private staleBytes = 0;

	/** Nothing is under way: the session reads as its server has reported. */
	settle(reading: Reading, statements: ClientStatements | null): void {
		this.isUnderWay = false;
		this.ofNext = reading;
		if (reading === this.ofParsed) return;
		this.ofParsed = reading;
		for (const name of statements?.namesOf(dependsOnReading) ?? []) this.addStale(name);
	}

	/** Values beyond ASCII are not in UTF-8, or may not be. */
	get isForeign(): boolean {
		return (this.ofNext & (Reading.Foreign | Reading.Changing)) !== 0;
	}

	/** A statement runs. @param changes it may change how the session reads */
	noteRun(changes: boolean, facts: StatementFacts | null): void {
		this.isUnderWay = true;
		this.ofNext |= Reading.Running;
		if (changes) this.changed = true;
		else if (!this.changed || !endsTransaction(facts)) return;
		this.ofNext |= Reading.Changing;
	}

	/** No transaction is open. */
	noteEnd(): void {
		this.changed = false;
	}

	/**
	 * A Parse of this name was said.
	 * @param certain it is known what PostgreSQL reads. What is uncertain now stays so: a SET that is under way may have been taken
	 * back when its answer comes, and nobody would notice.
	 */
	noteParse(name: string, certain: boolean): void {
		if (!certain) this.addStale(name);
		else if (this.stale.delete(name)) {
			this.staleBytes -= name.length + NAME_COST;
			this.hasStale = this.staleBytes > 0;
		}
	}

	depart(): MovingReading {
		return { settled: this.ofParsed, stale: [...this.stale] };
	}

	arrive({ settled, stale }: MovingReading): void {
		this.ofNext = settled;
		this.ofParsed = settled;
		for (const name of stale) this.addStale(name);
	}

	isStale(name: string, sql: string | null): boolean {
		return this.stale.has(name) || (this.staleBytes > MOST_STALE && sql !== null && SEVERAL_WAYS.test(sql));
	}

	/** Names that the client closes stay: it may send ever new ones. */
	private addStale(name: string): void {
		if (this.staleBytes > MOST_STALE || this.stale.has(name)) return;
		this.stale.add(name);
		this.hasStale = true;
		this.staleBytes += name.length + NAME_COST;
	}
}

/** Most bytes that the names of stale statements take; a guess, generous. */
const MOST_STALE = 1 << 20;
/** Bytes that a stale name takes beside its letters; a guess. */
const NAME_COST = 100;
/** A text, as a string, that may be read in several ways (`dependsOnReading`). */
const SEVERAL_WAYS = /[\\\u0080-\uffff]/;

/** Whether a statement ends the transaction, or goes back to a savepoint; true also when that is not known. */
function endsTransaction(facts: StatementFacts | null): boolean {
	return facts === null || facts.statements !== 1 || facts.transaction !== TransactionControl.None;
}
