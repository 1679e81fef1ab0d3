// What one client says to the server that it has. Each message is noted in the server's books and in what is known of its session;
// statements go by the server's names, settings that are reset by the client's own values. Walk calls `say` with each message; Link
// makes it, one for each Client.

import { Reply } from "../backend/books.ts";
import { type Insertion, insertInto, insertions } from "../backend/restoring.ts";
import type { Server } from "../backend/server.ts";
import { PgError } from "../errors.ts";
import { factsOf } from "../parser/facts-cache.ts";
import { NO_FACTS, type SessionFacts, UNKNOWN_FACTS } from "../parser/session.ts";
import type { Pool } from "../pool/pool.ts";
import { OwnTexts } from "../session/own-texts.ts";
import type { Parsing } from "../session/parsing.ts";
import { noteRun } from "../session/runs.ts";
import { Said } from "../session/said.ts";
import type { ClientSettings } from "../session/settings.ts";
import { ClientStatements, type KeptStatements, type MovingStatements } from "../session/statements.ts";
import { Stat } from "../stats/counters.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { HEADER } from "../wire/frame.ts";
import { query } from "../wire/frontend-messages.ts";
import type { ClientContext } from "./context.ts";
import type { RoutingClient, RoutingOwner } from "./routing.ts";

/** The client that speaks, as logs know it. */
export interface Speaker extends RoutingClient {
	readonly address: string;
}

/** Through what it speaks: a Link. */
export interface Line {
	readonly client: Speaker;
	readonly settings: ClientSettings;
	readonly parsing: Parsing;
	/** With several shards: what is the same for all of them. */
	readonly kept: KeptStatements | null;
	/** The pool of the server that it has. */
	readonly checkout: { readonly pool: Pool };
	readonly routing: { readonly needed: boolean };
}

export class Saying implements RoutingOwner {
	readonly client: Speaker;
	readonly settings: ClientSettings;
	/** Null while the client has prepared nothing. Written by `make` only. */
	statements: ClientStatements | null = null;
	private readonly context: ClientContext;
	private readonly line: Line;

	constructor(context: ClientContext, line: Line) {
		this.context = context;
		this.line = line;
		this.client = line.client;
		this.settings = line.settings;
	}

	/** The client's statements, made when it first prepares one. */
	prepared(): ClientStatements {
		return (
			this.statements ?? this.make(this.line.kept?.areShared ?? this.context.general.prepared_statements !== "disabled")
		);
	}

	/** What it has prepared on another thread: shared, also after a reload which says that those of new clients are not. */
	arrive(moving: MovingStatements): void {
		this.make(true).arrive(moving, this.context.nextSerial());
	}

	private make(shared: boolean): ClientStatements {
		const { statements, facts } = this.context;
		const { parsing, routing, kept } = this.line;
		// Of several shards it has to be known which has been told of a name.
		const own = shared ? null : new OwnTexts(routing.needed || kept !== null);
		this.statements = new ClientStatements(statements, facts, parsing, own, kept);
		return this.statements;
	}

	/**
	 * The message at `at` goes to the server: what it does is noted, and a statement that it names gets the server's name for it.
	 * @param next where it ends @param stop where what is here of it ends
	 */
	say(server: Server, code: number, chunk: Buffer, run: number, at: number, next: number, stop: number): Said {
		const { books } = server;
		switch (code) {
			case Frontend.Query:
				return this.onQuery(server, chunk, run, at, next, stop);
			case Frontend.Bind: {
				const statements = this.statements ?? this.prepared();
				const said = statements.onBind(server, chunk, run, at, next, stop);
				if (said !== Said.Later) this.line.checkout.pool.counters[Stat.bind_count]!++;
				return said;
			}
			case Frontend.Execute:
				books.said(Reply.Execute);
				server.session.restoring?.noteRun();
				break;
			case Frontend.Sync:
				books.sync();
				break;
			case Frontend.Describe:
				return this.prepared().onDescribe(server, chunk, run, at, next);
			case Frontend.Parse:
				this.checkSize(next - at - 1);
				this.line.checkout.pool.counters[Stat.parse_count]!++;
				return this.prepared().onParse(server, chunk, run, at, next, this.context.nextSerial());
			case Frontend.Close:
				this.line.checkout.pool.counters[Stat.close_count]!++;
				return this.prepared().onClose(server, chunk, run, at, next);
			case Frontend.CopyData:
				books.data();
				break;
			case Frontend.CopyDone:
			case Frontend.CopyFail:
				books.copyEnd();
				break;
			case Frontend.FunctionCall:
				// Any function, by number: what it does to the session cannot be seen.
				server.session.note(UNKNOWN_FACTS);
				books.query();
				break;
		}
		return Said.AsIs;
	}

	private onQuery(server: Server, chunk: Buffer, run: number, at: number, next: number, stop: number): Said {
		if (this.context.general.query_size_limit !== undefined) this.checkSize(next - at - 1);
		this.statements?.onQuery();
		server.statements.dropUnnamed();
		if (next > stop) {
			server.session.note(UNKNOWN_FACTS);
			server.books.query();
			return Said.AsIs;
		}
		const facts = factsOf(this.context.facts, chunk, at + HEADER, next - 1);
		if (
			facts.deallocates !== null &&
			server.status !== TxStatus.Failed &&
			this.deallocate(server, chunk, run, at, facts)
		)
			return Said.Otherwise;
		const { restores } = facts;
		const inserted = restores === null || restores.sure ? [] : this.insertions(server, chunk, at, next);
		if (inserted.length > 0) return this.insert(server, chunk, run, at, next, facts, inserted);
		if (facts !== NO_FACTS) {
			noteRun(server, facts);
			server.session.note(facts);
		}
		server.books.query();
		return Said.AsIs;
	}

	private insertions({ books, session }: Server, chunk: Buffer, at: number, next: number): Insertion[] {
		const { startup } = this.settings;
		// What comes in the middle of a batch or of a COPY is out of order, or an error.
		if (startup.values.size === 0 || books.unsynced || books.copyIn) return [];
		return insertions(chunk, at + HEADER, next - 1, startup, session.reports.now.values);
	}

	/** Of several statements those behind a RESET are to find what that brings back. */
	private insert(
		server: Server,
		chunk: Buffer,
		run: number,
		at: number,
		next: number,
		facts: SessionFacts,
		inserted: readonly Insertion[],
	): Said {
		const { out } = server.stream;
		out.add(chunk, run, at - run);
		// Its answer is to be told from those before it.
		if (server.books.owed > 0) return Said.Later;
		server.relay.insert(inserted);
		noteRun(server, facts);
		// All of it is brought back there, unless a function may do more.
		server.session.note(facts.restores?.hidden ? facts : { ...facts, restores: null });
		server.books.query();
		out.addAll(insertInto(chunk, at + HEADER, next - 1, inserted));
		return Said.Otherwise;
	}

	private deallocate(server: Server, chunk: Buffer, run: number, at: number, facts: SessionFacts): boolean {
		// Of several shards another may have prepared it.
		const statements = this.line.kept === null ? this.statements : this.prepared();
		const sql = statements?.onDeallocate(server, chunk, run, at, facts.deallocates ?? "") ?? null;
		if (sql === null) return false;
		statements?.noteDeallocation(server, facts.deallocates ?? "");
		server.books.query();
		server.stream.out.addAll(query(sql));
		return true;
	}

	/** `query_size_limit` of a Query or Parse with this length word. */
	private checkSize(length: number): void {
		const { query_size_limit: most, query_size_limit_action: action } = this.context.general;
		if (most === undefined || length <= most) return;
		const detail = `message is ${length} bytes, query_size_limit is ${most} bytes`;
		if (action === "block") throw new PgError("FATAL", "54000", "query size exceeds query_size_limit", detail);
		const { user, database, address } = this.client;
		const whose = `[database: ${database}, user: ${user}, addr: ${address}]`;
		const text = `[large_query] size=${length}B query_size_limit=${most}B ${whose}`;
		this.context.log.warn(text, { user, database, address });
	}
}
