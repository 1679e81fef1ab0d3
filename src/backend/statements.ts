// Prepared statements across servers: the same text and parameter types, in one dialect (dialects.ts), are one statement with one
// name (`__pgdog_N`) for all clients of a thread, prepared on a server when first needed there.
// session/statements.ts gives clients their own names for them; server-statements.ts knows which a server has.

import type { SessionFacts } from "../parser/session.ts";
import type { Description } from "./description.ts";
import { Dialects } from "./dialects.ts";
import { type Dialect, NAME_PREFIX, Statement, sizeOf } from "./statement.ts";

/** Most bytes of the statements that one client has names for, and of all of a thread; guesses: two of the largest, and four. */
export const MOST_OF_CLIENT = 256 << 20;
const MOST_OF_THREAD = 512 << 20;

/** Most bytes of unused statements, per thread, whatever `prepared_statements_limit` says: nothing grows for ever. */
const UNUSED_BYTES = 16 << 20;

/** All statements of a thread. */
export class Statements {
	private readonly dialects = new Map<string, Dialects>();
	private readonly byName = new Map<string, Statement>();
	/** Statements that no client names any more, oldest first, and the bytes that they were counted with. */
	private readonly unused = new Map<Statement, number>();
	private unusedBytes = 0;
	/** Of all statements, by their texts (`sizeOf`). */
	private bytes = 0;
	/** Bytes that clients' names for them take. */
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
	dialectsOf(place: string): Dialects {
		let found = this.dialects.get(place);
		if (found === undefined) {
			found = new Dialects(this);
			this.dialects.set(place, found);
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

	/** A client has a name more, or less, for a statement (session/names.ts). @param bytes that it takes; negative: it goes */
	countName(bytes: number): void {
		this.nameBytes += bytes;
	}

	named(name: string): Statement | undefined {
		return this.byName.get(name);
	}

	/** Makes a statement for all who read as `dialect` says. @param rest the caller's own copy, which is kept */
	add(dialect: Dialect, key: string, rest: Buffer, facts: SessionFacts): Statement {
		const statement = this.make(key, rest, facts, dialect, dialect.constants, dialect.names);
		dialect.statements.set(key, statement);
		return statement;
	}

	/** Makes a statement for one client alone. @param constants see `Statement.constants` */
	addPrivate(
		key: string,
		rest: Buffer,
		facts: SessionFacts,
		constants: string | null,
		names: string | null,
	): Statement {
		return this.make(key, rest, facts, null, constants, names);
	}

	/**
	 * The statement of a client that comes from another thread, which was told that it is `description`. Those who have something else
	 * by that text here keep it, and a new Parse is given that.
	 */
	arrive(dialect: Dialect, rest: Buffer, facts: SessionFacts, description: Description | null): Statement {
		const key = rest.latin1Slice(0, rest.length);
		const known = dialect.statements.get(key);
		if (known !== undefined && (description === null || known.description?.key === description.key)) return known;
		const statement =
			known === undefined
				? this.add(dialect, key, rest, facts)
				: this.make(key, rest, facts, dialect, dialect.constants, dialect.names);
		statement.description = description;
		return statement;
	}

	/**
	 * The statement that its text has become, since the catalogue has changed.
	 * @param name gives it names; nobody may have one for it any more: then it is let go of like any other
	 */
	succeed(old: Statement, description: Description, name: (next: Statement) => void): Statement {
		const { key, rest, facts, dialect, constants, names } = old;
		const next =
			dialect === null ? this.addPrivate(key, rest, facts, constants, names) : this.add(dialect, key, rest, facts);
		next.description = description;
		this.retain(next);
		name(next);
		this.release(next, Number.POSITIVE_INFINITY);
		return next;
	}

	/**
	 * Makes a copy for one client alone, that has come to read otherwise than `statement` was read.
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
		dialect: Dialect | null,
		constants: string | null,
		names: string | null,
	): Statement {
		const name = `${NAME_PREFIX}${this.nextId()}`;
		const statement = new Statement(name, key, rest, facts, dialect, constants, names);
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
		statement.dialect?.statements.delete(statement.key);
		if (statement.clients === 0) this.drop(statement);
	}

	private forget(statement: Statement): void {
		this.unusedBytes -= this.unused.get(statement) ?? 0;
		this.unused.delete(statement);
	}

	private drop(statement: Statement): void {
		this.forget(statement);
		if (statement.isShared) statement.dialect?.statements.delete(statement.key);
		if (this.byName.delete(statement.name)) this.bytes -= sizeOf(statement.rest.length);
		statement.dropped = true;
		this.drops++;
	}
}
