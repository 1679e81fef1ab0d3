// One prepared statement, and the dialect that it is written in: the settings of sessions that read its text alike, and so may share
// it. statements.ts makes them, copy.ts is what one server has of one.

import { dependsOnSettings } from "../parser/constants.ts";
import type { StatementFacts } from "../parser/facts.ts";
import { Lexer, Token } from "../parser/lexer.ts";
import type { SessionFacts } from "../parser/session.ts";
import type { Description } from "./description.ts";

/** The settings that texts are read by, in so far as they are not the pool's own. */
export class Dialect {
	/** Settings that constants depend on, as `name\0value\0 …`; "" when all are the pool's own. */
	readonly constants: string;
	/** Settings that names depend on, in the same way. */
	readonly names: string;
	/** Both together: equal for equal dialects. */
	readonly key: string;
	/** The statements that a new Parse may be given, by text and declared parameter types. */
	readonly statements = new Map<string, Statement>();

	/** Takes statements out of `statements` that a new Parse is not to be given. */
	readonly owner: { retire(statement: Statement): void };

	constructor(owner: Dialect["owner"], names: string, constants: string) {
		this.owner = owner;
		this.names = names;
		this.constants = constants;
		this.key = `${names}\0${constants}`;
	}
}

/** Names that clients cannot mean: a client's own statement names never reach a server unless they are unknown to us. */
export const NAME_PREFIX = "__pgdog_";

/** A statement as the router wants it: each part only where it is looked at. */
export interface Routed {
	readonly facts: StatementFacts | null;
	/** "" where no plugin is asked; null when it is not certain what PostgreSQL will read. */
	readonly sql: string | null;
	/** Backslashes in its '…' are escapes. */
	readonly escapes: boolean;
	/** The statement may change how its session reads what follows. */
	readonly changes: boolean;
	/** Types of parameters that its Parse declared, where its keys are parameters; null: it declared none, or nobody asks. */
	readonly types: readonly number[] | null;
}

export class Statement {
	readonly name: string;
	/** `name` with its NUL, ready to be spliced into a Bind or Describe. */
	readonly nameBytes: Uint8Array;
	/** The Parse message from the query text on: text, NUL, parameter types. */
	readonly rest: Buffer;
	readonly facts: SessionFacts;
	readonly key: string;
	/** The dialect that it belongs to, or did; null: one client's own, made while its session read texts in a way of the moment. */
	readonly dialect: Dialect | null;
	/** The settings by which its constants are read (`Dialect.constants`), and its names; null: nobody knows. */
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
		dialect: Dialect | null = null,
		constants: string | null = null,
		names: string | null = null,
	) {
		this.name = name;
		this.nameBytes = Buffer.from(`${name}\0`);
		this.key = key;
		this.rest = rest;
		this.facts = facts;
		this.dialect = dialect;
		this.constants = constants;
		this.names = names;
		this.hasConstants = dependsOnSettings(key.slice(0, key.indexOf("\0")));
	}

	/** Settings may decide what its constants are. */
	readonly hasConstants: boolean;

	/** A client has closed the statement. */
	closed(): void {
		this.closes++;
	}

	/** Keeps what routing has found out. @param epoch see `routedIn` */
	routedAs(routing: Routed, epoch: number): Routed {
		this.routing = routing;
		this.routedIn = epoch;
		return routing;
	}

	/** A new Parse may be given it. */
	get isShared(): boolean {
		return this.dialect?.statements.get(this.key) === this;
	}

	/** See `Statements.retire`. */
	retire(): void {
		this.dialect?.owner.retire(this);
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

	/** What it takes in memory, bytes, about. */
	get bytes(): number {
		return sizeOf(this.rest.length) + (this.dialect?.key.length ?? 0) + (this.description?.types.length ?? 0);
	}
}

/** Bytes that a statement of a Parse with so many bytes takes: these, its key, and its part of the books. */
export function sizeOf(rest: number): number {
	return 2 * rest + 512;
}
