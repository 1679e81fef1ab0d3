// Prepared statements across servers: the same text and parameter types are one statement with one name
// (`__pgdog_N`) for all clients of a thread, prepared on a server when first needed there.
// frontend/prepared.ts gives clients their own names for them; server.ts knows which it has.

import type { StatementFacts } from "../parser/facts.ts";
import type { SessionFacts } from "../parser/session.ts";

/** Names that clients cannot mean: a client's own statement names never reach a server unless they are unknown to us. */
export const NAME_PREFIX = "__pgdog_";

/** A statement as the router wants it: each part only where it is looked at. */
export interface Routed {
	readonly facts: StatementFacts | null;
	readonly sql: string;
}

export class Statement {
	readonly name: string;
	/** `name` with its NUL, ready to be spliced into a Bind or Describe. */
	readonly nameBytes: Uint8Array;
	/** The Parse message from the query text on: text, NUL, parameter types. */
	readonly rest: Buffer;
	readonly facts: SessionFacts;
	readonly key: string;
	/** Clients that have a name for it. Zero: kept for the next who asks, until the cache is full. */
	clients = 0;
	/** Thrown out of the cache: servers that have it close it when they next get the chance. */
	dropped = false;
	/** What routing has found out about its text, and when (`StatementCache.epoch`). */
	routing: Routed | null = null;
	routedIn = -1;

	private text: string | null = null;

	/** Its query text. */
	get sql(): string {
		this.text ??= this.rest.utf8Slice(0, this.rest.indexOf(0));
		return this.text;
	}

	constructor(name: string, key: string, rest: Buffer, facts: SessionFacts) {
		this.name = name;
		this.nameBytes = Buffer.from(`${name}\0`);
		this.key = key;
		this.rest = rest;
		this.facts = facts;
	}
}

/** What unused statements may hold, per thread, whatever `prepared_statements_limit` says: nothing grows for ever. */
const UNUSED_BYTES = 16 << 20;

/** All statements of a thread, by text and parameter types. */
export class Statements {
	private readonly byKey = new Map<string, Statement>();
	private readonly byName = new Map<string, Statement>();
	/** Those that no client names any more, oldest first. */
	private readonly unused = new Set<Statement>();
	private unusedBytes = 0;
	private readonly nextId: () => number;

	/** `nextId` counts for the process, so that a server may move between threads with its statements. */
	constructor(nextId: () => number) {
		this.nextId = nextId;
	}

	get size(): number {
		return this.byKey.size;
	}

	find(key: string): Statement | undefined {
		return this.byKey.get(key);
	}

	named(name: string): Statement | undefined {
		return this.byName.get(name);
	}

	/** `rest` must be the caller's own copy. */
	add(key: string, rest: Buffer, facts: SessionFacts): Statement {
		const statement = new Statement(`${NAME_PREFIX}${this.nextId()}`, key, rest, facts);
		this.byKey.set(key, statement);
		this.byName.set(statement.name, statement);
		return statement;
	}

	retain(statement: Statement): void {
		if (statement.clients++ === 0 && this.unused.delete(statement)) this.unusedBytes -= statement.rest.length;
	}

	/** @param limit `prepared_statements_limit` */
	release(statement: Statement, limit: number): void {
		if (--statement.clients > 0) return;
		this.unused.add(statement);
		this.unusedBytes += statement.rest.length;
		for (const oldest of this.unused) {
			if (this.byKey.size <= limit && this.unusedBytes <= UNUSED_BYTES) break;
			this.unused.delete(oldest);
			this.unusedBytes -= oldest.rest.length;
			// A dropped one that an error gave back to its client may have a successor.
			if (this.byKey.get(oldest.key) === oldest) this.byKey.delete(oldest.key);
			this.byName.delete(oldest.name);
			oldest.dropped = true;
		}
	}
}
