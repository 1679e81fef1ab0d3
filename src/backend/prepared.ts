// Prepared statements across servers: the same text and parameter types, read alike (readings.ts), are one statement with one
// name (`__pgdog_N`) for all clients of a thread, prepared on a server when first needed there.
// frontend/prepared.ts gives clients their own names for them; session-statements.ts knows which a server has.

import { dependsOnSettings } from "../parser/constants.ts";
import type { StatementFacts } from "../parser/facts.ts";
import { Lexer, Token } from "../parser/lexer.ts";
import type { SessionFacts } from "../parser/session.ts";
import type { Description } from "./description.ts";
import { type Reading, Readings } from "./readings.ts";

/** Names that clients cannot mean: a client's own statement names never reach a server unless they are unknown to us. */
export const NAME_PREFIX = "__pgdog_";

/** A statement as the router wants it: each part only where it is looked at. */
export interface Routed {
	readonly facts: StatementFacts | null;
	/** "" where no plugin is asked; null when it is not certain what PostgreSQL will read. */
	readonly sql: string | null;
	/** Backslashes in its '…' are escapes. */
	readonly escapes: boolean;
	/** It may change how its session reads what follows. */
	readonly changes: boolean;
}

export class Statement {
	readonly name: string;
	/** `name` with its NUL, ready to be spliced into a Bind or Describe. */
	readonly nameBytes: Uint8Array;
	/** The Parse message from the query text on: text, NUL, parameter types. */
	readonly rest: Buffer;
	readonly facts: SessionFacts;
	readonly key: string;
	/** Among whose statements it is, or was; null: one client's own, made while its session read texts in a way of the moment. */
	readonly reading: Reading | null;
	/** By which settings its constants are read (`Reading.constants`), and its names; null: nobody knows. */
	constants: string | null;
	readonly names: string | null;
	/**
	 * What PostgreSQL said of it when it was first prepared, which binds us as it would bind PostgreSQL: elsewhere it is prepared
	 * with just these parameter types, and a server where it has another result is not used for it. Null before.
	 */
	description: Description | null = null;
	/** How often clients have closed it: who then parses the text again means to ask the server. */
	closes = 0;
	/** Clients that have a name for it. Zero: kept for the next who asks, until the cache is full. */
	clients = 0;
	/** Thrown out of the cache: servers that have it close it when they next get the chance. */
	dropped = false;
	/** What routing has found out about its text, and when (`StatementCache.epoch`). */
	routing: Routed | null = null;
	routedIn = -1;

	private text: string | null = null;
	private first: string | null = null;

	/** Its query text. */
	get sql(): string {
		this.text ??= this.rest.utf8Slice(0, this.rest.indexOf(0));
		return this.text;
	}

	constructor(
		name: string,
		key: string,
		rest: Buffer,
		facts: SessionFacts,
		reading: Reading | null = null,
		constants: string | null = null,
		names: string | null = null,
	) {
		this.name = name;
		this.nameBytes = Buffer.from(`${name}\0`);
		this.key = key;
		this.rest = rest;
		this.facts = facts;
		this.reading = reading;
		this.constants = constants;
		this.names = names;
		this.hasConstants = dependsOnSettings(key.slice(0, key.indexOf("\0")));
	}

	/** Settings may decide what its constants are. */
	readonly hasConstants: boolean;

	/** A new Parse may be given it. */
	get isShared(): boolean {
		return this.reading?.statements.get(this.key) === this;
	}

	/** See `Statements.retire`. */
	retire(): void {
		this.reading?.owner.retire(this);
	}

	/** PostgreSQL holds it to the result that it had at first. FETCH and EXECUTE have the result of what they name. */
	get hasFixedResult(): boolean {
		if (this.first === null) {
			const lexer = new Lexer(this.sql);
			this.first = lexer.next() === Token.Word ? (lexer.text ?? "") : "";
		}
		return this.first !== "fetch" && this.first !== "execute";
	}

	/** What a Parse asks for besides the name, on the second and every other server: the same parameter types. */
	get restAsDescribed(): Buffer {
		if (this.description === null) return this.rest;
		return Buffer.concat([this.rest.subarray(0, this.rest.indexOf(0) + 1), this.description.types]);
	}

	/** What it holds, about. */
	get bytes(): number {
		return sizeOf(this.rest.length) + (this.reading?.key.length ?? 0) + (this.description?.types.length ?? 0);
	}
}

/** What a statement of a Parse with so many bytes takes: those, its key, and its part of the books. */
export function sizeOf(rest: number): number {
	return 2 * rest + 512;
}

/** What the statements may take that one client has names for, and all of a thread, bytes; guesses: two of the largest, and four. */
export const MOST_OF_CLIENT = 256 << 20;
const MOST_OF_THREAD = 512 << 20;

/** What unused statements may hold, per thread, whatever `prepared_statements_limit` says: nothing grows for ever. */
const UNUSED_BYTES = 16 << 20;

/** All statements of a thread. */
export class Statements {
	private readonly readings = new Map<string, Readings>();
	private readonly byName = new Map<string, Statement>();
	/** Those that no client names any more, oldest first, and the bytes that they were counted with. */
	private readonly unused = new Map<Statement, number>();
	private unusedBytes = 0;
	/** Of all of them, by their texts. */
	private bytes = 0;
	/** What clients' names for them take; by frontend/statement-names.ts. */
	nameBytes = 0;
	/** How many were ever dropped. */
	drops = 0;
	private readonly nextId: () => number;

	/** `nextId` counts for the process, so that a server may move between threads with its statements. */
	constructor(nextId: () => number) {
		this.nextId = nextId;
	}

	get size(): number {
		return this.byName.size;
	}

	/** @param place user, database and shard: whose statements are not those of another */
	readingsOf(place: string): Readings {
		let found = this.readings.get(place);
		if (found === undefined) {
			found = new Readings(this);
			this.readings.set(place, found);
		}
		return found;
	}

	/** There is room for one more, of a Parse with so many bytes. What nobody names makes room. */
	hasRoom(rest: number): boolean {
		const size = sizeOf(rest);
		const most = MOST_OF_THREAD - this.nameBytes - size;
		if (this.bytes <= most) return true;
		for (const oldest of this.unused.keys()) {
			if (this.bytes <= most) break;
			this.drop(oldest);
		}
		return this.bytes <= most;
	}

	named(name: string): Statement | undefined {
		return this.byName.get(name);
	}

	/** For all who read as `reading` says. `rest` must be the caller's own copy. */
	add(reading: Reading, key: string, rest: Buffer, facts: SessionFacts): Statement {
		const statement = this.make(key, rest, facts, reading, reading.constants, reading.names);
		reading.statements.set(key, statement);
		return statement;
	}

	/** For one client alone. @param constants see `Statement.constants` */
	addPrivate(
		key: string,
		rest: Buffer,
		facts: SessionFacts,
		constants: string | null,
		names: string | null,
	): Statement {
		return this.make(key, rest, facts, null, constants, names);
	}

	/** The statement that its text has become, since the catalogue has changed. */
	succeed(old: Statement, description: Description): Statement {
		const { key, rest, facts, reading, constants, names } = old;
		const next =
			reading === null ? this.addPrivate(key, rest, facts, constants, names) : this.add(reading, key, rest, facts);
		next.description = description;
		return next;
	}

	/**
	 * The same for one client alone, that has come to read otherwise than `statement` was read.
	 * @param constants by which settings it is read from now on, and its names
	 */
	alone(statement: Statement, constants: string | null, names: string | null): Statement {
		const { key, rest, facts } = statement;
		const copy = this.addPrivate(key, rest, facts, constants, names);
		copy.description = statement.description;
		return copy;
	}

	private make(
		key: string,
		rest: Buffer,
		facts: SessionFacts,
		reading: Reading | null,
		constants: string | null,
		names: string | null,
	): Statement {
		const name = `${NAME_PREFIX}${this.nextId()}`;
		const statement = new Statement(name, key, rest, facts, reading, constants, names);
		this.byName.set(statement.name, statement);
		this.bytes += sizeOf(rest.length);
		return statement;
	}

	retain(statement: Statement): void {
		if (statement.clients++ === 0) this.forget(statement);
	}

	/** @param limit `prepared_statements_limit` */
	release(statement: Statement, limit: number): void {
		if (--statement.clients > 0) return;
		if (!statement.isShared) {
			this.drop(statement);
			return;
		}
		const { bytes } = statement;
		this.unused.set(statement, bytes);
		this.unusedBytes += bytes;
		for (const oldest of this.unused.keys()) {
			if (this.byName.size <= limit && this.unusedBytes <= UNUSED_BYTES) break;
			this.drop(oldest);
		}
	}

	/** No new Parse is given it: it may not be what PostgreSQL would make of its text now. */
	retire(statement: Statement): void {
		if (!statement.isShared) return;
		statement.reading?.statements.delete(statement.key);
		if (statement.clients === 0) this.drop(statement);
	}

	private forget(statement: Statement): void {
		this.unusedBytes -= this.unused.get(statement) ?? 0;
		this.unused.delete(statement);
	}

	private drop(statement: Statement): void {
		this.forget(statement);
		if (statement.isShared) statement.reading?.statements.delete(statement.key);
		if (this.byName.delete(statement.name)) this.bytes -= sizeOf(statement.rest.length);
		statement.dropped = true;
		this.drops++;
	}
}
