// What one server's session has prepared, and what stands behind the marks of `Replies` that have to do with statements.
// Owned by its Server; frontend/prepared.ts notes here what it sends. An error undoes what was noted since.

import type { Statement, Statements } from "./prepared.ts";
import { endsRequest, type Replies, Reply } from "./replies.ts";

/** `unnamed`: some client's unnamed statement that nobody will ask for again. */
const NOBODY = 0;

/** What stands behind a mark of `replies` that has to do with a statement of ours. */
interface PendingStatement {
	readonly mark: Reply;
	readonly statement: Statement;
	/** The client's name for it; null when the message was ours. */
	readonly name: string | null;
	/** The Parse is what gives the server the statement. */
	readonly prepares: boolean;
}

/** Of what is prepared: the number of its last use. */
interface Use {
	last: number;
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
	/** Whose unnamed statement it has: the number that the client gave its last unnamed Parse; 0 is nobody's. */
	unnamed = NOBODY;
	/** Statements of ours that this loan's DEALLOCATEs were rewritten to name. */
	deallocations = 0;
	/** Behind ParseNamed, ParseOurs, ParseFake, CloseFake and CloseOurs, in order; null is what has no Statement here. */
	private readonly pending: (PendingStatement | null)[] = [];
	private readonly replies: Replies;

	constructor(replies: Replies) {
		this.replies = replies;
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

	remove(statement: Statement): void {
		this.prepared.delete(statement);
	}

	/** DEALLOCATE ALL and the like: nothing is here, as far as is known, but what was sent behind it. */
	clear(): void {
		this.prepared.clear();
		for (const sent of this.pending) if (sent?.prepares) this.prepared.set(sent.statement, { last: ++this.uses });
		this.foreign = [];
		this.unnamed = NOBODY;
	}

	/** A Parse of `statement` goes to the server now: the client's own when it has a `name` for it, else one of ours. */
	noteParse(statement: Statement, name: string | null): void {
		this.replies.push(name === null ? Reply.ParseOurs : Reply.ParseNamed);
		this.pending.push({ mark: Reply.ParseNamed, statement, name, prepares: true });
		this.prepared.set(statement, { last: ++this.uses });
	}

	/** A Parse for the client's `name` goes to the server under no name: the server has the statement already. */
	noteParseElsewhere(statement: Statement, name: string): void {
		this.replies.push(Reply.ParseNamed);
		this.pending.push({ mark: Reply.ParseNamed, statement, name, prepares: false });
		this.unnamed = NOBODY;
	}

	/** The client's unnamed statement is parsed here again. */
	noteUnnamedAgain(serial: number): void {
		this.replies.push(Reply.ParseOurs);
		this.pending.push(null);
		this.unnamed = serial;
	}

	/** ParseComplete or CloseComplete of `statement` will be made up. */
	noteFake(mark: Reply.ParseFake | Reply.CloseFake, statement: Statement, name: string): void {
		this.replies.push(mark);
		this.pending.push({ mark, statement, name, prepares: false });
	}

	/** A Close of ours goes to the server; null for what has no Statement here. */
	noteClose(statement: Statement | null): void {
		this.replies.push(Reply.CloseOurs);
		this.pending.push(statement === null ? null : { mark: Reply.CloseOurs, statement, name: null, prepares: false });
	}

	/** The reply to the oldest mark that has a statement behind it has come, or was made up. */
	replied(): void {
		this.pending.shift();
	}

	/** The connection is gone. */
	drop(): void {
		this.pending.length = 0;
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
			else this.prepared.set(statement, { last: 0 });
		}
	}

	/**
	 * After an error the server reads on to the next Sync and answers nothing before it: what was sent until there has not
	 * happened. Takes its marks off `replies`.
	 * @param skipped told of each mark that was taken
	 * @returns false when it can no longer be said what is prepared here
	 */
	undo(client: StatementClient | null, skipped: (mark: Reply) => void): boolean {
		const { replies } = this;
		const first = replies.front();
		const failed = first === Reply.Parse;
		// A Query in the middle of a batch is not run either.
		const ends = endsRequest(first) ? first : Reply.Sync;
		let certain = true;
		let parses = 0;
		let undone: PendingStatement[] | null = null;
		for (; replies.length > 0; replies.shift()) {
			const mark: Reply = replies.front();
			if (mark === ends) break;
			skipped(mark);
			if (mark === Reply.Parse) parses++;
			if (!hasPending(mark)) continue;
			const pending = this.pending.shift() ?? null;
			if (pending === null) {
				// An unnamed statement, or the name of another thread's: neither is known to be there or gone.
				this.unnamed = NOBODY;
				if (mark === Reply.CloseOurs) certain = false;
			} else {
				undone ??= [];
				undone.push(pending);
			}
		}
		if (parses > 0) {
			this.unnamed = NOBODY;
			if (!replies.includes(Reply.Parse)) client?.onUnnamedUndone(parses, failed);
		}
		// Last first: a name may have been closed and given again.
		for (const { mark, statement, name, prepares } of undone?.reverse() ?? []) {
			if (prepares) this.prepared.delete(statement);
			if (mark === Reply.CloseOurs) this.prepared.set(statement, { last: 0 });
			if (name === null) continue;
			if (mark === Reply.CloseFake) client?.onCloseUndone(name, statement);
			else client?.onParseUndone(name);
		}
		return certain;
	}
}

/** Whether an entry of `pending` stands behind this mark. */
function hasPending(mark: number): boolean {
	return (
		mark === Reply.ParseNamed ||
		mark === Reply.ParseOurs ||
		mark === Reply.ParseFake ||
		mark === Reply.CloseFake ||
		mark === Reply.CloseOurs
	);
}
