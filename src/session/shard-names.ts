// One shard's view of a client's names for prepared statements: those that the client has (names.ts), each with the statement that its
// text is among this shard's sessions, and what the request under way has changed of them here, until its answer says that so it is.
// Owned by ClientStatements (statements.ts), for each of several shards.

import type { Description } from "../backend/description.ts";
import type { Statement } from "../backend/statement.ts";
import type { Statements } from "../backend/statements.ts";
import type { ClientName, ClientNames, StatementNames } from "./names.ts";
import type { Parsing } from "./parsing.ts";

export class ShardNames implements ClientNames {
	private readonly client: StatementNames;
	private readonly shard: number;
	private readonly parsing: Parsing;
	private readonly statements: Statements;
	/** What the request under way has given names to, or null where it has taken a name away. */
	private readonly changed = new Map<string, Statement | null>();

	/** @param client the names that the client has */
	constructor(client: StatementNames, shard: number, parsing: Parsing, statements: Statements) {
		this.client = client;
		this.shard = shard;
		this.parsing = parsing;
		this.statements = statements;
	}

	get bytes(): number {
		return this.client.bytes;
	}

	get size(): number {
		return this.client.size;
	}

	has(name: string): boolean {
		const changed = this.changed.get(name);
		return changed === undefined ? this.client.has(name) : changed !== null;
	}

	get(name: string): Statement | undefined {
		const changed = this.changed.get(name);
		if (changed !== undefined) return changed ?? undefined;
		const entry = this.client.entry(name);
		return entry === undefined ? undefined : (entry.ofShards?.[this.shard] ?? this.made(entry));
	}

	find(chunk: Buffer, start: number, end: number): Statement | undefined {
		const known = this.changed.size === 0 ? this.client.find(chunk, start, end, this.shard) : undefined;
		return known ?? this.get(chunk.utf8Slice(start, end));
	}

	nameOf(ours: string): string | null {
		for (const [name, statement] of this.changed) if (statement?.name === ours) return name;
		return this.client.nameOf(ours, this.shard);
	}

	/** Another shard has parsed the text, or none: here it is read by the same settings. */
	private made(entry: ClientName): Statement {
		const { statements, shard } = this;
		const { dialect } = this.parsing;
		// Of what was read in a way of the moment no other shard has the like.
		const known = entry.ofShards?.find((each) => each?.dialect === null) ?? entry.statement;
		const { key, rest, facts, constants, names } = known;
		const isShared = known.dialect !== null && constants === dialect.constants && names === dialect.names;
		const statement = isShared
			? (dialect.statements.get(key) ?? statements.add(dialect, key, rest, facts))
			: statements.addPrivate(key, rest, facts, constants, names);
		this.client.keepOf(entry, shard, statement);
		return statement;
	}

	set(name: string, statement: Statement): void {
		this.statements.retain(statement);
		this.change(name, statement);
	}

	private change(name: string, statement: Statement | null): void {
		const before = this.changed.get(name);
		this.changed.set(name, statement);
		if (before) this.statements.release(before, Number.POSITIVE_INFINITY);
	}

	become(name: string, statement: Statement): void {
		const entry = this.changed.has(name) ? undefined : this.client.entry(name);
		if (entry === undefined) this.set(name, statement);
		else this.client.keepOf(entry, this.shard, statement);
	}

	succeed(names: readonly string[], statement: Statement, description: Description): Statement {
		return this.statements.succeed(statement, description, (next) => {
			for (const name of names) this.become(name, next);
		});
	}

	end(name: string): void {
		this.get(name)?.closed();
		this.change(name, null);
	}

	delete(name: string): void {
		this.change(name, null);
	}

	/** What was changed is not so, or the client has it so without this shard. */
	clear(): void {
		for (const statement of this.changed.values())
			if (statement !== null) this.statements.release(statement, Number.POSITIVE_INFINITY);
		this.changed.clear();
	}

	/** The request is answered: what the client has by these names now is what this shard has made of it. */
	settle(): void {
		if (this.changed.size === 0) return;
		for (const [name, statement] of this.changed) {
			const entry = this.client.entry(name);
			if (statement !== null && entry?.statement.key === statement.key)
				this.client.keepOf(entry, this.shard, statement);
		}
		this.clear();
	}

	[Symbol.iterator](): Iterator<[string, Statement]> {
		return this.client[Symbol.iterator]();
	}
}
