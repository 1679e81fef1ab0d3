// A client's names for prepared statements; a statement counts as one that clients name for as long as one is here. A Bind or Describe
// finds its statement by the bytes of the name as they stand in the message: a name that was used lately needs no string and no
// hash. Owned by ClientStatements (statements.ts). With several shards it is the one of them all, and each shard looks at it in its own
// way (shard-names.ts).

import type { Description } from "../backend/description.ts";
import { type Statement, sizeOf } from "../backend/statement.ts";
import type { Statements } from "../backend/statements.ts";

/** What a client has by one name. */
export interface ClientName {
	/** The name in UTF-8. */
	readonly bytes: Uint8Array;
	readonly statement: Statement;
	/** With several shards, what the text is on each, by its number, where that is known; else null. */
	ofShards: (Statement | undefined)[] | null;
}

/** A client's names as its statements go by them: with several shards, as one of those sees them. */
export interface ClientNames {
	/** Bytes of the names and of what stands behind them, counted for this client alone. */
	readonly bytes: number;
	readonly size: number;
	has(name: string): boolean;
	get(name: string): Statement | undefined;
	/** The statement of the name in `chunk[start, end)`, which is not empty. */
	find(chunk: Buffer, start: number, end: number): Statement | undefined;
	/** The client's name for a statement of ours. */
	nameOf(ours: string): string | null;
	/** The name means this statement from now on, and no other. */
	set(name: string, statement: Statement): void;
	/** The text of the name, if it has one, is this statement from now on. */
	become(name: string, statement: Statement): void;
	/**
	 * A statement was found to be another than it was: these names mean that from now on.
	 * @returns the statement that its text has become
	 */
	succeed(names: readonly string[], statement: Statement, description: Description): Statement;
	/**
	 * The client takes the name away: if it parses the text again, it wants to know what that is now.
	 * @param limit `prepared_statements_limit`; without it no other statement has to go for it now
	 */
	end(name: string, limit?: number): void;
	/** The name was not given, after all. @param limit as `end` has it */
	delete(name: string, limit?: number): void;
	/** Takes all names away. @param limit as `end` has it */
	clear(limit?: number): void;
	[Symbol.iterator](): Iterator<[string, Statement]>;
}

/** Bytes that a name takes beside its own, about. */
const NAME_COST = 192;

/** Names used lately that are found at once, one for each value of `place`; a power of two. */
const RECENT = 8;

export class StatementNames implements ClientNames {
	private readonly entries = new Map<string, ClientName>();
	/** Written here only. */
	bytes = 0;
	/** All of the thread, to which `nameBytes` counts the names of all clients. */
	private readonly statements: Statements;
	private readonly recent: (ClientName | null)[] = new Array(RECENT).fill(null);

	constructor(statements: Statements) {
		this.statements = statements;
	}

	/** Counts an entry by the statement's text, which does not change, unlike what is known of the statement. @param sign -1: it goes */
	private count({ bytes, statement }: ClientName, sign: 1 | -1): void {
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

	/** @param shard what the text is there, where that is known */
	find(chunk: Buffer, start: number, end: number, shard = -1): Statement | undefined {
		const place = (end - start + chunk[end - 1]!) & (RECENT - 1);
		let entry = this.recent[place] ?? undefined;
		if (entry === undefined || !isSame(entry.bytes, chunk, start, end)) {
			entry = this.entries.get(chunk.utf8Slice(start, end));
			if (entry === undefined) return undefined;
			this.recent[place] = entry;
		}
		return shard < 0 ? entry.statement : entry.ofShards?.[shard];
	}

	entry(name: string): ClientName | undefined {
		return this.entries.get(name);
	}

	/** @param shard the statement is what the text is there; without it, as the client's own names have it */
	nameOf(ours: string, shard?: number): string | null {
		for (const [name, { statement, ofShards }] of this.entries)
			if ((shard === undefined ? statement : ofShards?.[shard])?.name === ours) return name;
		return null;
	}

	set(name: string, statement: Statement): void {
		const before = this.entries.get(name);
		const entry = { bytes: Buffer.from(name), statement, ofShards: null };
		this.statements.retain(statement);
		if (before !== undefined) this.remove(before, Number.POSITIVE_INFINITY);
		this.count(entry, 1);
		this.entries.set(name, entry);
		this.recent.fill(null);
	}

	become(name: string, statement: Statement): void {
		this.set(name, statement);
	}

	succeed(names: readonly string[], statement: Statement, description: Description): Statement {
		return this.statements.succeed(statement, description, (next) => {
			for (const name of names) this.set(name, next);
		});
	}

	/** The text of `entry` is this statement on a shard from now on. */
	keepOf(entry: ClientName, shard: number, statement: Statement): void {
		entry.ofShards ??= [];
		const before = entry.ofShards[shard];
		entry.ofShards[shard] = statement;
		this.statements.retain(statement);
		if (before !== undefined) this.statements.release(before, Number.POSITIVE_INFINITY);
	}

	end(name: string, limit?: number): void {
		const entry = this.entries.get(name);
		if (entry === undefined) return;
		entry.statement.closed();
		for (const statement of entry.ofShards ?? NONE) statement?.closed();
		this.delete(name, limit);
	}

	delete(name: string, limit = Number.POSITIVE_INFINITY): void {
		const entry = this.entries.get(name);
		if (entry === undefined) return;
		this.entries.delete(name);
		this.recent.fill(null);
		this.remove(entry, limit);
	}

	clear(limit = Number.POSITIVE_INFINITY): void {
		for (const entry of this.entries.values()) this.remove(entry, limit);
		this.entries.clear();
		this.recent.fill(null);
	}

	private remove(entry: ClientName, limit: number): void {
		this.count(entry, -1);
		this.statements.release(entry.statement, limit);
		for (const statement of entry.ofShards ?? NONE)
			if (statement !== undefined) this.statements.release(statement, limit);
		entry.ofShards = null;
	}

	*[Symbol.iterator](): Generator<[string, Statement]> {
		for (const [name, { statement }] of this.entries) yield [name, statement];
	}
}

const NONE: readonly undefined[] = [];

function isSame(bytes: Uint8Array, chunk: Buffer, start: number, end: number): boolean {
	const { length } = bytes;
	if (length !== end - start) return false;
	for (let i = 0; i < length; i++) if (bytes[i] !== chunk[start + i]) return false;
	return true;
}
