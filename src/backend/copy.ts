// What one server has prepared of a statement: when, for whom, and what it said of it. Owned by ServerStatements.

import type { Description } from "./description.ts";
import type { Statement } from "./statement.ts";

/** What counts of the moment when a statement is prepared. */
export interface Moment {
	/** State of the database's catalogue (`Ledger.catalogueOf`). */
	readonly catalogue: number;
	/** When it is to be prepared anew, ms since the epoch: `prepared_statements_ttl`. */
	readonly dueAt: number;
}

export class Copy {
	readonly statement: Statement;
	/**
	 * What the server said of it; the same object as the statement's when that is the same. Null until the server has answered our
	 * Describe, and for good if it was not asked.
	 */
	description: Description | null = null;
	/** Names that the client gives it until that answer: they mean what the server is about to say, whatever others were told. */
	names: Set<string> | null = null;
	/** The server was told to take just the parameter types that the statement has elsewhere. */
	readonly asDescribed: boolean;
	readonly catalogue: number;
	readonly dueAt: number;
	/** `Statement.closes` when it was prepared. */
	readonly closes: number;
	/** False when the server has said that it did not prepare it. */
	exists = true;
	/** `ServerStatements.uses` at its last use, and at its first. */
	last: number;
	readonly first: number;
	/** The batch (`Books.batch`) in which the server was told to prepare it. */
	readonly batch: number;

	constructor(
		statement: Statement,
		asDescribed: boolean,
		moment: Moment,
		use: number,
		batch: number,
		closes = statement.closes,
	) {
		this.statement = statement;
		this.asDescribed = asDescribed;
		this.catalogue = moment.catalogue;
		this.dueAt = moment.dueAt;
		this.closes = closes;
		this.last = use;
		this.first = use;
		this.batch = batch;
	}

	/** The client has given it this name before the server has answered our Describe. */
	isCalled(name: string): void {
		this.names ??= new Set();
		this.names.add(name);
	}

	/** Whether a new Parse of the text would come to the same, so that ParseComplete may be made up. */
	isFresh({ catalogue }: Moment, time: number): boolean {
		const { statement } = this;
		if (this.description !== statement.description || this.catalogue !== catalogue) return false;
		return this.closes === statement.closes && this.dueAt > time;
	}
}
