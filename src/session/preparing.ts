// Has a server prepare statements: for a client that has parsed one, or that uses one which the server does not have, or not as
// the client knows it. What the server says of it is read, to be compared with what others have said. Used by statements.ts.

import { Reply } from "../backend/books.ts";
import type { Copy } from "../backend/copy.ts";
import { differing, resetDialect, setDialect } from "../backend/dialect-sql.ts";
import type { Server } from "../backend/server.ts";
import type { Statement } from "../backend/statement.ts";
import { PgError } from "../errors.ts";
import { CONSTANT_SETTINGS, Reads } from "../parser/session.ts";
import { Target } from "../wire/codes.ts";
import { BIND_OURS, CLOSE_OURS, close, describe, EXECUTE_OURS, parse } from "../wire/frontend-messages.ts";
import type { Parsing } from "./parsing.ts";

/** In PostgreSQL's words, by which drivers know that they have to prepare the statement again. */
export const STALE = new PgError(
	"ERROR",
	"0A000",
	"cached plan must not change result type",
	undefined,
	undefined,
	"RevalidateCachedQuery",
);

export class Preparing {
	private readonly parsing: Parsing;

	constructor(parsing: Parsing) {
		this.parsing = parsing;
	}

	/** What the client parses now, under a name of its own. @param copy what the server has of it, which is not to be used */
	byClient(server: Server, name: string, statement: Statement, copy: Copy | undefined, limit: number): void {
		this.makeRoom(server, copy, limit);
		const made = server.statements.noteParse(statement, name, this.parsing.moment, false);
		server.stream.out.addAll(parse(statement.name, statement.rest));
		this.ask(server, made);
		// By settings of the moment: they are asked for, since it may have to be read by them again.
		if (statement.hasConstants && statement.constants === null && !server.session.locked)
			for (const setting of CONSTANT_SETTINGS) {
				this.bind(server, `SHOW ${setting}`);
				server.statements.noteShow(setting, statement);
				this.execute(server);
			}
	}

	/** What was parsed before, perhaps elsewhere: with the parameter types that it was found to have then. */
	again(server: Server, statement: Statement, copy: Copy | undefined, limit: number): void {
		this.makeRoom(server, copy, limit);
		const { out } = server.stream;
		const names = this.isReadOtherwise(server, statement) ? this.otherwise(server, statement) : [];
		if (names.length > 0) this.run(server, setDialect(names, statement.constants ?? ""));
		const made = server.statements.noteParse(statement, null, this.parsing.moment, statement.description !== null);
		out.addAll(parse(statement.name, statement.restAsDescribed));
		this.ask(server, made);
		if (names.length > 0) this.run(server, resetDialect(names));
	}

	/** Parsed here and now, the constants of the text may come to other values than those of the statement. */
	isReadOtherwise(server: Server, { hasConstants, constants }: Statement): boolean {
		return (
			hasConstants &&
			(constants !== this.parsing.dialect.constants || (server.session.traces.reads & Reads.Constants) !== 0)
		);
	}

	/**
	 * By which settings the text is read when it is next run. PostgreSQL keeps to those of the Parse, and reads it all anew once names
	 * come to stand for other objects.
	 */
	dialectOf(server: Server, { constants, names }: Statement): { constants: string | null; names: string | null } {
		const { dialect } = this.parsing;
		if (server.session.traces.reads !== Reads.Nothing || names === null || names === dialect.names)
			return { constants, names };
		return { constants: dialect.constants, names: dialect.names };
	}

	/** The settings that make them other values. */
	private otherwise(server: Server, { constants }: Statement): readonly string[] {
		const isKnown = (server.session.traces.reads & Reads.Constants) === 0;
		return differing(constants ?? "", isKnown ? this.parsing.dialect.constants : null);
	}

	/** Takes away what the server has. */
	close(server: Server, copy: Copy): void {
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

	private ask(server: Server, copy: Copy): void {
		// A server that stays for good has it as long as its client, and nobody else there may be given it.
		if (server.session.locked && copy.statement.description === null) return;
		server.stream.out.addAll(describe(Target.Statement, copy.statement.name));
		server.statements.noteDescribe(copy);
	}

	/** A statement of ours in the middle of the client's batch, whose own portals it leaves alone. */
	run(server: Server, sql: string): void {
		this.bind(server, sql);
		server.books.said(Reply.ExecuteOurs);
		this.execute(server);
	}

	private bind({ books, statements, stream }: Server, sql: string): void {
		books.saidOf(Reply.ParseOurs, null);
		books.said(Reply.BindOurs);
		statements.dropUnnamed();
		stream.out.addAll(parse("", Buffer.from(`${sql}\0\0\0`)));
		stream.out.addAll(BIND_OURS);
	}

	private execute({ statements, stream }: Server): void {
		stream.out.addAll(EXECUTE_OURS);
		statements.noteClose(null);
		stream.out.addAll(CLOSE_OURS);
	}
}
