// What one server's session has prepared, and the marks in its `Books` that have to do with statements.
// Owned by its Server; frontend/prepared.ts notes here what it sends. An error undoes what was noted since.

import { type Books, Reply, type Undone } from "./books.ts";
import type { Statement, Statements } from "./prepared.ts";

/** `unnamed`: some client's unnamed statement that nobody will ask for again. */
const NOBODY = 0;

/** Before any batch that is not answered. */
const BEFORE = -1;

/** Of what is prepared. */
interface Use {
	/** The number of its last use. */
	last: number;
	/** The batch (`Books.batch`) in which the server was told to prepare it. */
	readonly batch: number;
}

/** Who hears that something was not done; a server's client. */
export interface StatementClient {
	/** Parse was not done because of an error before or in it: the client has no statement of this name. */
	onParseUndone(name: string): void;
	/** Unnamed Parses, the last ones sent, were not done; `failed`: the first of them is the one that failed. */
	onUnnamedUndone(parses: number, failed: boolean): void;
	/** Close was not done because of an error before it: the client still has the statement. */
	onCloseUndone(name: string, statement: Statement): void;
	/** DEALLOCATE ALL or DISCARD ALL: the client has no statements any more. */
	onStatementsGone(): void;
	/** What the client calls this statement, for the texts of errors. */
	clientName(name: string): string | null;
}

export class SessionStatements {
	private readonly prepared = new Map<Statement, Use>();
	private uses = 0;
	/** Names prepared by another thread, which ours does not know. */
	private foreign: string[] = [];
	/** Whose unnamed statement it has, and the batch in which it was told to parse that. */
	private serial = NOBODY;
	private unnamedBatch = BEFORE;
	/** Statements of ours that this loan's DEALLOCATEs were rewritten to name. */
	deallocations = 0;
	private readonly books: Books;

	constructor(books: Books) {
		this.books = books;
	}

	get size(): number {
		return this.prepared.size + this.foreign.length;
	}

	/** Whether the server has `statement`; if so this is its last use. */
	has(statement: Statement): boolean {
		const use = this.prepared.get(statement);
		if (use === undefined) return false;
		use.last = ++this.uses;
		return true;
	}

	/** Whether the server was told to prepare `statement` in an earlier batch that may yet fail, and then has it not. */
	isUncertain(statement: Statement): boolean {
		const use = this.prepared.get(statement);
		return use !== undefined && this.books.isUncertain(use.batch);
	}

	/** The number that the client gave its last unnamed Parse, when that is what the server has; 0 is nobody's. */
	get unnamed(): number {
		return this.serial;
	}

	/** As `isUncertain`, of the unnamed statement. */
	get isUnnamedUncertain(): boolean {
		return this.serial !== NOBODY && this.books.isUncertain(this.unnamedBatch);
	}

	/** The client's unnamed statement goes to the server. */
	noteUnnamed(serial: number): void {
		this.serial = serial;
		this.unnamedBatch = this.books.batch;
	}

	/** It has none, or nobody's. */
	dropUnnamed(): void {
		this.serial = NOBODY;
	}

	remove(statement: Statement): void {
		this.prepared.delete(statement);
	}

	/** DEALLOCATE ALL and the like: nothing is here, as far as is known, but what was sent behind it. */
	clear(): void {
		this.prepared.clear();
		for (const statement of this.books.prepares()) this.set(statement);
		this.foreign = [];
		this.dropUnnamed();
	}

	/** A Parse of `statement` goes to the server now: the client's own when it has a `name` for it, else one of ours. */
	noteParse(statement: Statement, name: string | null): void {
		this.books.saidOf(name === null ? Reply.ParseOurs : Reply.ParseNamed, {
			mark: Reply.ParseNamed,
			statement,
			name,
			prepares: true,
		});
		this.set(statement);
	}

	private set(statement: Statement): void {
		this.prepared.set(statement, { last: ++this.uses, batch: this.books.batch });
	}

	/** A Parse for the client's `name` goes to the server under no name: the server has the statement already. */
	noteParseElsewhere(statement: Statement, name: string): void {
		this.books.saidOf(Reply.ParseNamed, { mark: Reply.ParseNamed, statement, name, prepares: false });
		this.dropUnnamed();
	}

	/** The client's unnamed statement is parsed here again. */
	noteUnnamedAgain(serial: number): void {
		this.books.saidOf(Reply.ParseOurs, null);
		this.noteUnnamed(serial);
	}

	/** ParseComplete or CloseComplete of `statement` will be made up. */
	noteFake(mark: Reply.ParseFake | Reply.CloseFake, statement: Statement, name: string): void {
		this.books.saidOf(mark, { mark, statement, name, prepares: false });
	}

	/** A Close of ours goes to the server; null for what has no Statement here. */
	noteClose(statement: Statement | null): void {
		this.books.saidOf(
			Reply.CloseOurs,
			statement === null ? null : { mark: Reply.CloseOurs, statement, name: null, prepares: false },
		);
	}

	/**
	 * The statements over `limit`, least recently used first; names where they are another thread's. They are gone from
	 * here: the caller closes each with `noteClose`.
	 */
	evict(limit: number): (Statement | string)[] {
		const over = this.size - limit;
		if (over <= 0) return [];
		const evicted: (Statement | string)[] = this.foreign.splice(0, over);
		if (evicted.length === over) return evicted;
		const oldest = [...this.prepared].sort((a, b) => a[1].last - b[1].last).slice(0, over - evicted.length);
		for (const [statement] of oldest) {
			this.prepared.delete(statement);
			evicted.push(statement);
		}
		return evicted;
	}

	/** The cache has dropped statements that are here. */
	get hasDropped(): boolean {
		for (const statement of this.prepared.keys()) if (statement.dropped) return true;
		return false;
	}

	/** Names of what the cache has dropped, gone from here. */
	takeDropped(): string[] {
		const names: string[] = [];
		for (const statement of this.prepared.keys()) {
			if (!statement.dropped) continue;
			this.prepared.delete(statement);
			names.push(statement.name);
		}
		return names;
	}

	/** Everything by name, for a move to another thread. */
	names(): string[] {
		return [...[...this.prepared.keys()].map((statement) => statement.name), ...this.foreign];
	}

	/** Takes over what another thread knew. */
	arrive(names: readonly string[], known: Statements): void {
		for (const name of names) {
			const statement = known.named(name);
			if (statement === undefined) this.foreign.push(name);
			else this.prepared.set(statement, { last: 0, batch: BEFORE });
		}
	}

	/** What the server has said that it did not do. @returns false when it can no longer be said what is prepared here */
	undo(undone: Undone, client: StatementClient | null): boolean {
		// An unnamed statement, or the name of another thread's: neither is known to be there or gone.
		if (undone.nameless || undone.parses > 0) this.dropUnnamed();
		if (undone.parses > 0 && !this.books.parsesUnnamed) client?.onUnnamedUndone(undone.parses, undone.parseFailed);
		// Last first: a name may have been closed and given again.
		for (const { mark, statement, name, prepares } of [...undone.statements].reverse()) {
			if (prepares) this.prepared.delete(statement);
			if (mark === Reply.CloseOurs) this.prepared.set(statement, { last: 0, batch: BEFORE });
			if (name === null) continue;
			if (mark === Reply.CloseFake) client?.onCloseUndone(name, statement);
			else client?.onParseUndone(name);
		}
		return !undone.namelessClose;
	}
}
