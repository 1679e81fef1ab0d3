// A client's names for prepared statements; a statement counts as one that clients name for as long as one is here. A Bind or Describe
// finds its statement by the bytes of the name as they stand in the message: a name that was used lately needs no string and no
// hash. Owned by ClientStatements (statements.ts).

import type { Description } from "../backend/description.ts";
import { type Statement, sizeOf } from "../backend/statement.ts";
import type { Statements } from "../backend/statements.ts";

interface Entry {
	/** The name in UTF-8. */
	readonly bytes: Uint8Array;
	readonly statement: Statement;
}

/** Bytes that a name takes beside its own, about. */
const NAME_COST = 192;

/** Names used lately that are found at once, one for each value of `place`; a power of two. */
const RECENT = 8;

export class StatementNames {
	private readonly entries = new Map<string, Entry>();
	/** Bytes of the names and of what stands behind them, counted for this client alone; written here only. */
	bytes = 0;
	/** All of the thread, to which `nameBytes` counts the names of all clients. */
	private readonly statements: Statements;
	private readonly recent: (Entry | null)[] = new Array(RECENT).fill(null);

	constructor(statements: Statements) {
		this.statements = statements;
	}

	/** Counts an entry by the statement's text, which does not change, unlike what is known of the statement. @param sign -1: it goes */
	private count({ bytes, statement }: Entry, sign: 1 | -1): void {
		const name = sign * (bytes.length + NAME_COST);
		this.statements.countName(name);
		this.bytes += name + sign * sizeOf(statement.rest.length);
	}

	get size(): number {
		return this.entries.size;
	}

	has(name: string): boolean {
		return this.entries.has(name);
	}

	get(name: string): Statement | undefined {
		return this.entries.get(name)?.statement;
	}

	/** The statement of the name in `chunk[start, end)`, which is not empty. */
	find(chunk: Buffer, start: number, end: number): Statement | undefined {
		const place = (end - start + chunk[end - 1]!) & (RECENT - 1);
		const known = this.recent[place]!;
		if (known !== null && isSame(known.bytes, chunk, start, end)) return known.statement;
		const entry = this.entries.get(chunk.utf8Slice(start, end));
		if (entry === undefined) return undefined;
		this.recent[place] = entry;
		return entry.statement;
	}

	/** The client's name for a statement of ours. */
	nameOf(ours: string): string | null {
		for (const [name, { statement }] of this.entries) if (statement.name === ours) return name;
		return null;
	}

	/** The name means this statement from now on, and no other. */
	set(name: string, statement: Statement): void {
		const before = this.entries.get(name);
		if (before !== undefined) this.count(before, -1);
		const entry = { bytes: Buffer.from(name), statement };
		this.count(entry, 1);
		this.entries.set(name, entry);
		this.recent.fill(null);
		this.statements.retain(statement);
		if (before !== undefined) this.statements.release(before.statement, Number.POSITIVE_INFINITY);
	}

	/**
	 * A statement was found to be another than it was: these names mean that from now on.
	 * @returns the statement that its text has become
	 */
	succeed(names: readonly string[], statement: Statement, description: Description): Statement {
		const { statements } = this;
		const next = statements.succeed(statement, description);
		// Nobody may have a name for it any more: then it is let go of like any other.
		statements.retain(next);
		for (const name of names) this.set(name, next);
		statements.release(next, Number.POSITIVE_INFINITY);
		return next;
	}

	/** @param limit `prepared_statements_limit`; without it no other statement has to go for it now */
	delete(name: string, limit = Number.POSITIVE_INFINITY): void {
		const entry = this.entries.get(name);
		if (entry === undefined) return;
		this.count(entry, -1);
		this.entries.delete(name);
		this.recent.fill(null);
		this.statements.release(entry.statement, limit);
	}

	/** @param limit as `delete` has it */
	clear(limit = Number.POSITIVE_INFINITY): void {
		for (const entry of this.entries.values()) {
			this.count(entry, -1);
			this.statements.release(entry.statement, limit);
		}
		this.entries.clear();
		this.recent.fill(null);
	}

	*[Symbol.iterator](): Generator<[string, Statement]> {
		for (const [name, { statement }] of this.entries) yield [name, statement];
	}
}

function isSame(bytes: Uint8Array, chunk: Buffer, start: number, end: number): boolean {
	const { length } = bytes;
	if (length !== end - start) return false;
	for (let i = 0; i < length; i++) if (bytes[i] !== chunk[start + i]) return false;
	return true;
}
