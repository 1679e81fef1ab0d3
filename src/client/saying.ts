// What one client says to the server that it has. Each message is noted in the server's books and in what is known of its session;
// statements go by the server's names, settings that are reset by the client's own values. Walk calls `say` with each message; Link
// makes it, one for each Client.

import { Reply } from "../backend/books.ts";
import { type Insertion, insertInto, insertions } from "../backend/restoring.ts";
import type { Server } from "../backend/server.ts";
import { PgError } from "../errors.ts";
import { factsOf } from "../parser/facts-cache.ts";
import { Backslash } from "../parser/lexer.ts";
import { type ListenAct, listenActs } from "../parser/listens.ts";
import { Dirty, NO_FACTS, type SessionFacts, UNKNOWN_FACTS } from "../parser/session.ts";
import type { Pool } from "../pool/pool.ts";
import { OwnTexts } from "../session/own-texts.ts";
import type { Parsing } from "../session/parsing.ts";
import { STALE } from "../session/preparing.ts";
import { noteRun } from "../session/runs.ts";
import { Said } from "../session/said.ts";
import type { ClientSettings } from "../session/settings.ts";
import { ClientStatements, type KeptStatements, type MovingStatements } from "../session/statements.ts";
import { Stat } from "../stats/counters.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { endOfString, HEADER } from "../wire/frame.ts";
import { query } from "../wire/frontend-messages.ts";
import type { ClientContext } from "./context.ts";
import { beginsBatch } from "./framing.ts";
import { type Hearer, Hearing } from "./hearing.ts";
import type { RoutingClient, RoutingOwner } from "./routing.ts";

/** The client that speaks, as logs know it. */
export interface Speaker extends RoutingClient {
	readonly address: string;
}

/** Through what it speaks: a Link. */
export interface Line extends Hearer {
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
	/** Null while the client has not said LISTEN, in a pool where that is followed. Written by `arrive`, `beginHearing` and `mayListen` only. */
	hearing: Hearing | null = null;
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
		const statements = this.make(true);
		statements.arrive(moving, this.context.nextSerial());
		// Nobody else looks at a Bind of what was parsed there.
		const { general } = this.context;
		if (general.pub_sub_channel_size === 0 || this.line.checkout.pool.spec.pooler_mode === "session") return;
		if (statements.namesOf(mayBeListen).length > 0) this.hearing = new Hearing(this.context, this.line);
	}

	private make(shared: boolean): ClientStatements {
		const { statements, facts } = this.context;
		const { parsing, routing, kept } = this.line;
		// Of several shards it has to be known which has been told of a name.
		const listens = this.context.general.pub_sub_channel_size > 0;
		const own = shared ? null : new OwnTexts(routing.needed || kept !== null || listens);
		this.statements = new ClientStatements(statements, facts, parsing, own, kept);
		return this.statements;
	}

	/**
	 * The message at `at` goes to the server: what it does is noted, and a statement that it names gets the server's name for it.
	 * @param next where it ends @param stop where what is here of it ends
	 */
	say(server: Server, code: number, chunk: Buffer, run: number, at: number, next: number, stop: number): Said {
		const { books } = server;
		if (this.hearing !== null) {
			const said = this.heard(server, code, chunk, at, next, stop);
			if (said !== Said.AsIs) {
				server.stream.out.add(chunk, run, at - run);
				return said;
			}
		}
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
				if (this.context.general.pub_sub_channel_size > 0) this.mayListen(server, chunk, at, next);
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
		if (this.hearing === null && (facts.dirty & Dirty.Listen) !== 0) {
			const said = this.beginHearing(server, chunk, at, next);
			if (said !== Said.AsIs) {
				server.stream.out.add(chunk, run, at - run);
				return said;
			}
		}
		const inserted = restores === null || restores.sure ? [] : this.insertions(server, chunk, at, next);
		if (inserted.length > 0) return this.insert(server, chunk, run, at, next, facts, inserted);
		if (facts !== NO_FACTS) {
			noteRun(server, facts);
			server.session.note(facts);
		}
		server.books.query();
		return Said.AsIs;
	}

	/** Why a message is refused of which `say` has said so. */
	refusalOf(said: Said): PgError {
		return said === Said.Unheard ? this.hearing!.refusal : STALE;
	}

	// ---- LISTEN in transaction mode ----------------------------------------------------------------------------------

	/** A Query has LISTEN in it, perhaps, and is the client's first that has. */
	private beginHearing(server: Server, chunk: Buffer, at: number, next: number): Said {
		if (!this.isFollowed(server) || actsOf(server, chunk.utf8Slice(at + HEADER, next - 1)).length === 0)
			return Said.AsIs;
		this.hearing = new Hearing(this.context, this.line);
		return this.heard(server, Frontend.Query, chunk, at, next, next);
	}

	/** A Parse: its Binds are looked at from now on, if it may be of LISTEN. */
	private mayListen(server: Server, chunk: Buffer, at: number, next: number): void {
		if (this.hearing !== null || !this.isFollowed(server)) return;
		if (mayBeListen(chunk, at, next)) this.hearing = new Hearing(this.context, this.line);
	}

	/** In session mode the client has a server to listen with. */
	private isFollowed({ session }: Server): boolean {
		return this.context.general.pub_sub_channel_size > 0 && !session.locked;
	}

	/** What the message says of channels, for a client that may listen. @returns AsIs: it goes on */
	private heard(server: Server, code: number, chunk: Buffer, at: number, next: number, stop: number): Said {
		const hearing = this.hearing!;
		const { books } = server;
		const isBehind = books.owed > 0 && !books.unsynced && !books.copyIn;
		if (isBehind && hearing.isOpen && (code === Frontend.Query || code === Frontend.FunctionCall || beginsBatch(code)))
			return Said.Later;
		if (code === Frontend.Query && next <= stop) {
			const acts = actsOf(server, chunk.utf8Slice(at + HEADER, next - 1));
			if (!hearing.concerns(acts)) return Said.AsIs;
			if (isBehind) return Said.Later;
			const said = hearing.heed(server, acts);
			if (said === Said.AsIs) hearing.say(server, acts);
			return said;
		}
		if (code === Frontend.Bind) return this.heardBind(hearing, server, chunk, at, stop);
		if (code === Frontend.Execute) {
			const portalEnd = endOfString(chunk, at + HEADER, stop);
			if (portalEnd >= 0) hearing.execute(server, chunk.utf8Slice(at + HEADER, portalEnd));
		}
		return Said.AsIs;
	}

	private heardBind(hearing: Hearing, server: Server, chunk: Buffer, at: number, stop: number): Said {
		const portalEnd = endOfString(chunk, at + HEADER, stop);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, stop);
		if (nameEnd < 0) return Said.AsIs;
		const text = this.statements?.anyTextOf(chunk.utf8Slice(portalEnd + 1, nameEnd)) ?? "";
		const acts = actsOf(server, text);
		const concerns = hearing.concerns(acts);
		const said = concerns ? hearing.heed(server, acts) : Said.AsIs;
		if (said === Said.AsIs) hearing.bind(chunk.utf8Slice(at + HEADER, portalEnd), concerns ? acts : []);
		return said;
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

/** Longest Parse of LISTEN, bytes: two names of 63 bytes, quoted, and some blanks; a guess, generous. */
const LONGEST_LISTEN = 1024;

/** Whether these bytes, of a text or a Parse, are worth a closer look. */
function mayBeListen(bytes: Buffer, start: number, end: number): boolean {
	return end - start <= LONGEST_LISTEN && /listen/i.test(bytes.latin1Slice(start, end));
}

/** What a text does to channels; nothing when that cannot be said for certain. */
function actsOf({ session }: Server, sql: string): readonly ListenAct[] {
	const isPlain = session.reports.now.values.get("standard_conforming_strings") === "on";
	return listenActs(sql, isPlain ? Backslash.Plain : Backslash.Doubt) ?? [];
}
