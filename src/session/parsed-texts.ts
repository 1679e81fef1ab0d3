// The texts that one client has parsed: which Statements they are, shared with all who read them alike (backend/statements.ts), and
// what they do to its session. Owned by ClientStatements (statements.ts).

import type { Description } from "../backend/description.ts";
import type { Server } from "../backend/server.ts";
import { type Statement, sizeOf } from "../backend/statement.ts";
import { MOST_OF_CLIENT, type Statements } from "../backend/statements.ts";
import { dependsOnTime } from "../parser/constants.ts";
import { type FactsCache, factsOf } from "../parser/facts-cache.ts";
import { Reads, type SessionFacts } from "../parser/session.ts";
import type { Parsing } from "./parsing.ts";

export class ParsedTexts {
	private readonly statements: Statements;
	private readonly facts: FactsCache;
	private readonly parsing: Parsing;

	constructor(statements: Statements, facts: FactsCache, parsing: Parsing) {
		this.statements = statements;
		this.facts = facts;
		this.parsing = parsing;
	}

	/** The facts of the query text in `chunk[start, end)`: what it does to the session when it is run. */
	factsOf(chunk: Buffer, start: number, end: number): SessionFacts {
		return factsOf(this.facts, chunk, start, end);
	}

	/**
	 * There is room for the statement of one more Parse, `chunk[start, next)`: one that others have too, however full it is.
	 * @param bytes what the client's names take already, with what they stand for
	 */
	hasRoom(chunk: Buffer, start: number, next: number, nameLength: number, bytes: number): boolean {
		const rest = next - start;
		if (bytes + nameLength + sizeOf(rest) > MOST_OF_CLIENT) return false;
		return (
			this.statements.hasRoom(rest + nameLength) || this.parsing.dialect.statements.has(chunk.latin1Slice(start, next))
		);
	}

	/** The statement of a client that comes from another thread. @param rest its Parse from the text on, the caller's own copy */
	arrive(rest: Buffer, description: Description | null): Statement {
		return this.statements.arrive(this.parsing.dialect, rest, this.factsOf(rest, 0, rest.indexOf(0)), description);
	}

	/**
	 * The statement of a Parse, which from its text on is `chunk[start, next)`: the one that all share who read the text alike.
	 * @param server the one that parses it; null: none does yet
	 */
	statementOf(server: Server | null, chunk: Buffer, start: number, textEnd: number, next: number): Statement {
		const key = chunk.latin1Slice(start, next);
		const { dialect } = this.parsing;
		const reads = server === null ? Reads.Nothing : readsOn(server);
		const known = reads === Reads.Nothing ? dialect.statements.get(key) : undefined;
		if (known !== undefined) return known;
		const rest = Buffer.from(chunk.subarray(start, next));
		const facts = this.factsOf(chunk, start, textEnd);
		// A constant that is the time of the Parse is another with each.
		const isShared = reads === Reads.Nothing && !dependsOnTime(key);
		if (isShared) return this.statements.add(dialect, key, rest, facts);
		const constants = (reads & Reads.Constants) === 0 ? dialect.constants : null;
		const names = (reads & Reads.Names) === 0 ? dialect.names : null;
		return this.statements.addPrivate(key, rest, facts, constants, names);
	}
}

/**
 * Bits of `Reads`: a text that this server reads in a way of the moment is shared with nobody. In session pooling none is: what
 * that does to the session is not followed, so PostgreSQL alone knows how it reads.
 */
function readsOn({ session }: Server): number {
	return session.locked ? Reads.Everything : session.traces.reads;
}
