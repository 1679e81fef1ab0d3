// A client's names for prepared statements. A Bind or Describe finds its statement by the bytes of the name as they stand in
// the message: a name that was used lately needs no string and no hash. Owned by ClientStatements (statements.ts).

import { type Statement, sizeOf } from "../backend/statement.ts";

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
	/** Bytes of the names and of what stands behind them, counted for this client alone. */
	bytes = 0;
	/** Bytes of the names of all clients of the thread. */
	private readonly all: { nameBytes: number };
	private readonly recent: (Entry | null)[] = new Array(RECENT).fill(null);

	constructor(all: { nameBytes: number } = { nameBytes: 0 }) {
		this.all = all;
	}

	/** Counts an entry, by the statement's text, which does not change, unlike what is known of it. @param sign -1: it goes */
	private count({ bytes, statement }: Entry, sign: 1 | -1): void {
		const name = sign * (bytes.length + NAME_COST);
		this.all.nameBytes += name;
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

	set(name: string, statement: Statement): void {
		const before = this.entries.get(name);
		if (before !== undefined) this.count(before, -1);
		const entry = { bytes: Buffer.from(name), statement };
		this.count(entry, 1);
		this.entries.set(name, entry);
		this.recent.fill(null);
	}

	delete(name: string): void {
		const entry = this.entries.get(name);
		if (entry === undefined) return;
		this.count(entry, -1);
		this.entries.delete(name);
		this.recent.fill(null);
	}

	clear(): void {
		for (const entry of this.entries.values()) this.count(entry, -1);
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
