// Has a server prepare statements: for a client that has parsed one, or that uses one which the server does not have, or not as
// the client knows it. What the server says of it is read, to be compared with what others have said. Owned by ClientStatements
// (statements.ts).

import { Reply } from "../backend/books.ts";
import type { Copy } from "../backend/copy.ts";
import { differing, resetDialect, setDialect } from "../backend/dialect-sql.ts";
import type { Server } from "../backend/server.ts";
import type { Statement } from "../backend/statement.ts";
import type { Statements } from "../backend/statements.ts";
import { PgError } from "../errors.ts";
import { CONSTANT_SETTINGS, Dirty, Reads } from "../parser/session.ts";
import { Target } from "../wire/codes.ts";
import {
	CLOSE_UNNAMED_STATEMENT,
	close,
	DESCRIBE_UNNAMED_STATEMENT,
	describe,
	FLUSH,
	parse,
} from "../wire/frontend-messages.ts";
import type { ClientNames } from "./names.ts";
import { runOurs, showOurs } from "./ours.ts";
import type { Parsing } from "./parsing.ts";
import { Said } from "./said.ts";
import type { ShardTold } from "./told.ts";
import type { UnnamedStatement } from "./unnamed.ts";

/** The refusal of a statement that has changed, in PostgreSQL's words, by which drivers know that they have to prepare it again. */
export const STALE = new PgError(
	"ERROR",
	"0A000",
	"cached plan must not change result type",
	undefined,
	undefined,
	"RevalidateCachedQuery",
);

/** A Parse from its text on, which is empty, and has no parameters. */
const NO_TEXT = Buffer.alloc(3);

export class Preparing {
	private readonly parsing: Parsing;
	private readonly statements: Statements;
	private readonly names: ClientNames;
	/** Null with one shard. */
	private readonly told: ShardTold | null;

	constructor(parsing: Parsing, statements: Statements, names: ClientNames, told: ShardTold | null) {
		this.parsing = parsing;
		this.statements = statements;
		this.names = names;
		this.told = told;
	}

	/**
	 * The client's statement of this name is to be used, and the server may not have it as the client knows it.
	 * @param had what the server has of it
	 * @returns Otherwise when it can be used now: the name may mean another Statement then
	 */
	use(server: Server, name: string, known: Statement, had: Copy | undefined): Said {
		const statement = this.asReadNow(server, name, known, had);
		const copy = statement === known ? had : undefined;
		const isOld = copy !== undefined && copy.dueAt <= this.parsing.time && !server.statements.isNew(copy);
		const isOther = copy !== undefined && copy.description !== statement.description;
		if (copy?.description === null && isOther && !isOld) {
			// The server is being asked what it is. A statement that the client has parsed behind that, is that.
			return copy.names?.has(name) ? Said.Otherwise : this.later(server);
		}
		if (copy === undefined || isOld || (isOther && !copy.asDescribed)) {
			// Nobody can read its constants again as they were read.
			if (statement.constants === null && this.isReadOtherwise(server, statement)) return Said.Refused;
			const isExpected = statement.description !== null || this.told?.get(name) !== undefined;
			this.again(server, statement, copy, this.parsing.limit);
			return isExpected ? this.later(server) : Said.Otherwise;
		}
		if (!isOther && (this.told === null || this.told.tell(name, copy.description))) return Said.Otherwise;
		// The next attempt finds out whether it is so still.
		this.close(server, copy);
		return Said.Refused;
	}

	/**
	 * PostgreSQL may come to read a text anew whenever it is run: others must not see what this client made of it.
	 * @returns the statement as this client reads it now, which its name means from then on
	 */
	private asReadNow(server: Server, name: string, statement: Statement, had: Copy | undefined): Statement {
		if (!this.isReadOtherwise(server, statement) || (statement.dialect === null && had !== undefined)) return statement;
		const now = this.dialectOf(server, statement);
		if (statement.dialect === null && now.constants === statement.constants) return statement;
		const alone = this.statements.alone(statement, now.constants, now.names);
		this.names.become(name, alone);
		return alone;
	}

	/**
	 * The client's unnamed statement is to be used, and the server has another client's: neither may be used as it is.
	 * @returns Otherwise when it can be used now: the server has it, or has none as the client has none
	 */
	useUnnamed(server: Server, unnamed: UnnamedStatement): Said {
		const { serial } = unnamed;
		const { out } = server.stream;
		if (serial === 0) {
			server.statements.dropUnnamed();
			server.statements.noteClose(null);
			out.addAll(CLOSE_UNNAMED_STATEMENT);
			return Said.Otherwise;
		}
		if (server.statements.takeChange(serial)) return Said.Refused;
		const expected = unnamed.told?.key ?? this.told?.get("");
		if (expected === undefined) {
			server.statements.noteUnnamedAgain(serial);
			out.addAll(parse("", unnamed.rest));
			return Said.Otherwise;
		}
		server.statements.noteUnnamedChecked(serial, expected);
		out.addAll(parse("", unnamed.rest));
		out.addAll(DESCRIBE_UNNAMED_STATEMENT);
		return this.later(server);
	}

	/** The server is asked to answer what it owes at once: else the client's message would wait for ever. */
	private later({ books, stream }: Server): Said {
		if (books.owed === 0) throw new Error("a statement is awaited that the server was not asked for");
		stream.out.addAll(FLUSH);
		return Said.Later;
	}

	/** The client's own Parse goes to the server, under our name. @param copy what the server has of it, which is not to be used */
	byClient(server: Server, name: string, statement: Statement, copy: Copy | undefined): void {
		this.makeRoom(server, copy, this.parsing.limit);
		const made = server.statements.noteParse(statement, name, this.parsing.moment, false);
		server.stream.out.addAll(parse(statement.name, statement.rest));
		this.ask(server, made);
		// The constants are read by settings of the moment, which are asked for: the text may have to be read by them again.
		if (statement.hasConstants && statement.constants === null && !server.session.locked)
			for (const setting of CONSTANT_SETTINGS) showOurs(server, setting, statement);
	}

	/**
	 * A statement that was parsed before, perhaps elsewhere, is parsed here, with the parameter types that it was found to have then.
	 * @param limit `prepared_statements_limit`; Infinity: nothing has to go for it
	 */
	again(server: Server, statement: Statement, copy: Copy | undefined, limit: number): void {
		this.makeRoom(server, copy, limit);
		const { out } = server.stream;
		const names = this.isReadOtherwise(server, statement) ? this.otherwise(server, statement) : [];
		if (names.length > 0) runOurs(server, setDialect(names, statement.constants ?? ""));
		const made = server.statements.noteParse(statement, null, this.parsing.moment, statement.description !== null);
		out.addAll(parse(statement.name, statement.restAsDescribed));
		this.ask(server, made);
		if (names.length > 0) runOurs(server, resetDialect(names));
	}

	/**
	 * The server gets something by the statement's name, for DEALLOCATE to take away: an empty text, which is no error whatever has become of
	 * the statement's own, nor in a transaction that has failed. Behind an error a Query would be skipped, and never answered.
	 */
	toDeallocate({ books, stream, session }: Server, statement: Statement): void {
		books.saidOf(Reply.ParseOurs, null);
		stream.out.addAll(parse(statement.name, NO_TEXT));
		// If the DEALLOCATE is never run, nobody else shall find it.
		session.traces.leave(Dirty.Prepared);
	}

	/** Constants of the text, parsed here and now, may come to other values than those of the statement. */
	isReadOtherwise(server: Server, { hasConstants, constants }: Statement): boolean {
		return (
			hasConstants &&
			(constants !== this.parsing.dialect.constants || (server.session.traces.reads & Reads.Constants) !== 0)
		);
	}

	/**
	 * The settings by which the text is read when it is next run. PostgreSQL keeps to those of the Parse, and reads it all anew once
	 * names come to stand for other objects.
	 */
	private dialectOf(
		server: Server,
		{ constants, names }: Statement,
	): { constants: string | null; names: string | null } {
		const { dialect } = this.parsing;
		if (server.session.traces.reads !== Reads.Nothing || names === null || names === dialect.names)
			return { constants, names };
		return { constants: dialect.constants, names: dialect.names };
	}

	/** Names of the settings by which constants of the text come to other values here. */
	private otherwise(server: Server, { constants }: Statement): readonly string[] {
		const isKnown = (server.session.traces.reads & Reads.Constants) === 0;
		return differing(constants ?? "", isKnown ? this.parsing.dialect.constants : null);
	}

	/** Takes its copy away from the server. */
	private close(server: Server, copy: Copy): void {
		server.stream.out.addAll(close(Target.Statement, copy.statement.name));
		server.statements.noteClose(copy);
	}

	/** `prepared_statements_limit`: room for one more, if not in the place of another. */
	private makeRoom(server: Server, copy: Copy | undefined, limit: number): void {
		if (copy !== undefined) {
			this.close(server, copy);
			return;
		}
		for (const evicted of server.statements.evict(limit - 1)) {
			if (typeof evicted !== "string") this.close(server, evicted);
			else {
				server.stream.out.addAll(close(Target.Statement, evicted));
				server.statements.noteClose(null);
			}
		}
	}

	/** The server is asked what its copy is, for others to be compared with. */
	private ask(server: Server, copy: Copy): void {
		// In session pooling it is the client's alone: nobody compares.
		if (server.session.locked && copy.statement.description === null) return;
		server.stream.out.addAll(describe(Target.Statement, copy.statement.name));
		server.statements.noteDescribe(copy);
	}
}
