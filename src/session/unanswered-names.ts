// One client's names for statements that a batch has given or taken away which is not answered yet: it may fail, and then that was not
// done. Owned by ClientStatements (statements.ts).

import type { Books } from "../backend/books.ts";
import type { Server } from "../backend/server.ts";
import type { Statement } from "../backend/statement.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { endOfString, HEADER } from "../wire/frame.ts";
import type { ClientNames } from "./names.ts";

/** Entries that are no reason to look for those whose batch is answered; a guess. */
const MOST_UNANSWERED = 256;

interface Entry {
	/** The client's name for a statement. */
	readonly name: string;
	/** `Books.batch` when it was noted. */
	readonly batch: number;
}

/** Names that were noted in batches. Behind a batch comes another: the entries of those that are answered meanwhile make room. */
class NamesByBatch {
	private readonly entries = new Map<string, Entry>();
	/** With so many it is looked for those whose batch is answered. */
	private most = MOST_UNANSWERED;

	get(key: string): Entry | undefined {
		return this.entries.get(key);
	}

	note(key: string, name: string, books: Books): void {
		const { entries } = this;
		if (entries.size >= this.most) {
			for (const [known, { batch }] of entries)
				if (batch !== books.batch && !books.isUncertain(batch)) entries.delete(known);
			this.most = Math.max(MOST_UNANSWERED, 2 * entries.size);
		}
		entries.set(key, { name, batch: books.batch });
	}

	clear(): void {
		if (this.entries.size > 0) this.entries.clear();
	}
}

export class UnansweredNames {
	/** Something is noted here; written here only. */
	some = false;
	private readonly names: ClientNames;
	/** Names that were given or taken away, by themselves. */
	private readonly changed = new NamesByBatch();
	/** Names of statements that the client has taken away, by ours (`Statement.name`): an error of a message before may tell of one. */
	private readonly ended = new NamesByBatch();
	/** Statements, and what Describe has found them to be by now: a Close of the former may not have been done. */
	private readonly successors = new Map<Statement, Statement>();

	constructor(names: ClientNames) {
		this.names = names;
	}

	/** A Parse or Close of this name is said. */
	noteChange(name: string, books: Books): void {
		this.some = true;
		this.changed.note(name, name, books);
	}

	/** The client's name for a statement is taken away: what is said behind that does not mean it. */
	noteEnd(name: string, statement: Statement, books: Books): void {
		this.some = true;
		this.ended.note(statement.name, name, books);
	}

	/** A statement was found to be another by now, which `next` stands for. */
	noteSuccessor(statement: Statement, next: Statement): void {
		this.some = true;
		this.successors.set(statement, next);
	}

	/** The statement, or what it was found to be. */
	latest(statement: Statement): Statement {
		return this.successors.get(statement) ?? statement;
	}

	/** The client's name for a statement of ours that it has taken away. */
	endedName(ours: string): string | null {
		return this.ended.get(ours)?.name ?? null;
	}

	/** The server owes nothing: what was done is done. */
	clear(): void {
		this.some = false;
		this.changed.clear();
		this.ended.clear();
		this.successors.clear();
	}

	/**
	 * A batch that is not answered, and may fail, decides what the message at `at` means: a name that it gives, takes away or needs.
	 * @param stop where as much of the message ends as is here
	 */
	concern(server: Server, chunk: Buffer, at: number, stop: number): boolean {
		let start = at + HEADER;
		switch (chunk[at]) {
			case Frontend.Parse: {
				const end = endOfString(chunk, start, stop);
				// A name that is given already may be free then.
				return (
					end > start && (this.names.has(chunk.utf8Slice(start, end)) || this.hasChanged(server, chunk, start, end))
				);
			}
			case Frontend.Close: {
				// A batch that fails gives back what it has closed, and that is to be closed again.
				const end = endOfString(chunk, start + 1, stop);
				return chunk[start] === Target.Statement && end > start && this.hasChanged(server, chunk, start + 1, end);
			}
			case Frontend.Describe:
				if (chunk[start] !== Target.Statement) return false;
				start++;
				break;
			case Frontend.Bind:
				start = endOfString(chunk, start, stop) + 1;
				if (start > 0) break;
				return false;
			default:
				return false;
		}
		const end = endOfString(chunk, start, stop);
		if (end < 0) return false;
		if (end === start) return server.statements.isUnnamedUncertain;
		if (this.hasChanged(server, chunk, start, end)) return true;
		const statement = this.names.find(chunk, start, end);
		return statement !== undefined && server.statements.isUncertain(server.statements.use(statement));
	}

	private hasChanged(server: Server, chunk: Buffer, start: number, end: number): boolean {
		if (!this.some) return false;
		const entry = this.changed.get(chunk.utf8Slice(start, end));
		return entry !== undefined && server.books.isUncertain(entry.batch);
	}
}
