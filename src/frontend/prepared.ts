// One client's prepared statements: its names for the statements that all clients of the thread share
// (backend/prepared.ts), and its unnamed one. Rewrites Parse, Bind, Describe and Close on their way to a server that may
// never have seen this client. Made when a client first uses the extended protocol.

import { LRUCache } from "lru-cache";
import { NAME_PREFIX, type Statement, type Statements } from "../backend/prepared.ts";
import { Reply } from "../backend/replies.ts";
import type { Server } from "../backend/server.ts";
import { ProtocolError } from "../errors.ts";
import type { Splice } from "../net/splice.ts";
import { Dirty, NO_FACTS, type SessionFacts, sessionFacts, touchesSession } from "../parser/session.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { endOfString, HEADER } from "../wire/frame.ts";
import { CLOSE_UNNAMED_STATEMENT, close, parse } from "../wire/frontend-messages.ts";

/** What each text does to a session, for those that need a closer look. */
export type FactsCache = LRUCache<string, SessionFacts>;

/** The facts of texts are small; the texts themselves are bounded by their bytes. */
export function createFactsCache(): FactsCache {
	return new LRUCache({ maxSize: 4 << 20, maxEntrySize: 64 << 10, sizeCalculation: (_, sql) => sql.length + 64 });
}

/** The facts of the query text in `chunk[start, end)`. */
export function factsOf(cache: FactsCache, chunk: Buffer, start: number, end: number): SessionFacts {
	if (!touchesSession(chunk, start, end)) return NO_FACTS;
	const sql = chunk.utf8Slice(start, end);
	const known = cache.get(sql);
	if (known !== undefined) return known;
	const facts = sessionFacts(sql);
	cache.set(sql, facts);
	return facts;
}

/** Tells a server what a statement that is sent to it may do to its session. */
export function noteFacts(server: Server, facts: SessionFacts): void {
	if (facts === NO_FACTS || server.session) return;
	server.looked = true;
	server.dirty |= facts.dirty;
	if (facts.sets.length > 0) server.noteSets(facts.sets);
	if (facts.resets.length > 0) server.noteResets(facts.resets);
	if (facts.resetsAll) server.resetsAll = true;
}

/** What a message became: forwarded as it is, or spliced (or left out) so that the run before it had to be written. */
export type Rewritten = boolean;

export class ClientStatements {
	private readonly names = new Map<string, Statement>();
	private readonly statements: Statements;
	private readonly facts: FactsCache;
	/** The last unnamed Parse from its query text on, in the chunk it came in, and its number; 0 when there is none. */
	private unnamedChunk: Buffer | null = null;
	private unnamedStart = 0;
	private unnamedEnd = 0;
	private unnamedFacts: SessionFacts = NO_FACTS;
	private unnamedSerial = 0;
	/** False with `prepared_statements = disabled`: names go through as they are. */
	private readonly shared: boolean;

	private readonly splice: Splice;

	constructor(statements: Statements, facts: FactsCache, splice: Splice, shared: boolean) {
		this.statements = statements;
		this.facts = facts;
		this.splice = splice;
		this.shared = shared;
	}

	get size(): number {
		return this.names.size;
	}

	// Each handler gets a whole message `chunk[at, next)`. When something else than the message goes to the server, it
	// returns true, having put that on the splice, behind the run `chunk[run, at)` of what went before.

	/** @param serial a number that no other unnamed Parse of this thread has */
	onParse(
		server: Server,
		chunk: Buffer,
		run: number,
		at: number,
		next: number,
		limit: number,
		serial: number,
	): Rewritten {
		const nameEnd = endOfString(chunk, at + HEADER, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd < 0) throw new ProtocolError("invalid string in message");
		if (nameEnd === at + HEADER) {
			const facts = factsOf(this.facts, chunk, nameEnd + 1, textEnd);
			this.rememberUnnamed(chunk, nameEnd + 1, next, facts, serial);
			noteFacts(server, facts);
			server.unnamed = serial;
			server.replies.push(Reply.Parse);
			if (facts.deallocates === null) return false;
			const name = this.names.get(facts.deallocates);
			if (name === undefined) return false;
			this.deallocate(server, chunk, run, at, facts.deallocates, name);
			const text = Buffer.from(`DEALLOCATE ${name.name}\0\0\0`);
			this.splice.addAll(server.stream, parse("", text));
			return true;
		}
		if (!this.shared) {
			noteFacts(server, factsOf(this.facts, chunk, nameEnd + 1, textEnd));
			server.dirty |= Dirty.Prepared;
			server.replies.push(Reply.Parse);
			return false;
		}
		const name = chunk.utf8Slice(at + HEADER, nameEnd);
		const taken = this.names.get(name);
		this.splice.add(server.stream, chunk, run, at - run);
		if (taken !== undefined) {
			// The server has the error for that: this statement, parsed twice.
			this.ensure(server, taken);
			server.replies.push(Reply.Parse);
			this.splice.addAll(server.stream, parse(taken.name, taken.rest));
			return true;
		}
		const key = chunk.latin1Slice(nameEnd + 1, next);
		let statement = this.statements.find(key);
		if (statement === undefined) {
			const rest = Buffer.from(chunk.subarray(nameEnd + 1, next));
			statement = this.statements.add(key, rest, factsOf(this.facts, chunk, nameEnd + 1, textEnd));
		}
		this.statements.retain(statement);
		this.names.set(name, statement);
		if (server.has(statement)) server.noteFake(Reply.ParseFake, statement, name);
		else {
			this.evict(server, limit);
			server.noteParse(statement, name);
			this.splice.addAll(server.stream, parse(statement.name, statement.rest));
		}
		return true;
	}

	/** A large Bind may be there only up to `stop`; its names are, or it is refused. */
	onBind(server: Server, chunk: Buffer, run: number, at: number, next: number, stop: number, limit: number): Rewritten {
		const portalEnd = endOfString(chunk, at + HEADER, stop);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, stop);
		if (nameEnd < 0) throw new ProtocolError("invalid string in message");
		return this.refer(server, chunk, run, at, next, stop, portalEnd + 1, nameEnd, limit, Reply.Bind);
	}

	onDescribe(server: Server, chunk: Buffer, run: number, at: number, next: number, limit: number): Rewritten {
		const nameEnd = targetName(chunk, at, next);
		if (chunk[at + HEADER] === Target.Portal) {
			server.replies.push(Reply.Describe);
			return false;
		}
		return this.refer(server, chunk, run, at, next, next, at + HEADER + 1, nameEnd, limit, Reply.Describe);
	}

	onClose(server: Server, chunk: Buffer, run: number, at: number, next: number): Rewritten {
		const nameEnd = targetName(chunk, at, next);
		const start = at + HEADER + 1;
		if (chunk[at + HEADER] === Target.Portal || !this.shared) {
			server.replies.push(Reply.Close);
			return false;
		}
		if (nameEnd === start) {
			this.forgetUnnamed();
			server.unnamed = 0;
			server.replies.push(Reply.Close);
			return false;
		}
		const name = chunk.utf8Slice(start, nameEnd);
		const statement = this.names.get(name);
		if (statement === undefined) {
			// Not an error in PostgreSQL; a statement made by SQL's PREPARE may have this name.
			server.replies.push(Reply.Close);
			return false;
		}
		this.splice.add(server.stream, chunk, run, at - run);
		this.names.delete(name);
		this.statements.release(statement, Number.POSITIVE_INFINITY);
		server.noteFake(Reply.CloseFake, statement, name);
		return true;
	}

	/** Close of a statement while no server is held: nobody else need know. */
	closeAlone(chunk: Buffer, at: number, next: number, limit: number): void {
		const nameEnd = targetName(chunk, at, next);
		const start = at + HEADER + 1;
		if (nameEnd === start) this.forgetUnnamed();
		else this.drop(chunk.utf8Slice(start, nameEnd), limit);
	}

	/** A simple query ends the life of the unnamed statement. */
	onQuery(server: Server): void {
		this.forgetUnnamed();
		server.unnamed = 0;
	}

	/**
	 * `DEALLOCATE name` for a statement of the extended protocol, which the server knows by another name, if at all.
	 * @returns the SQL to send instead, or null when the name is not one of ours
	 */
	onDeallocate(server: Server, chunk: Buffer, run: number, at: number, name: string): string | null {
		const statement = this.names.get(name);
		if (statement === undefined) return null;
		this.deallocate(server, chunk, run, at, name, statement);
		return `DEALLOCATE ${statement.name}`;
	}

	private deallocate(server: Server, chunk: Buffer, run: number, at: number, name: string, statement: Statement): void {
		this.splice.add(server.stream, chunk, run, at - run);
		this.ensure(server, statement);
		server.statements.delete(statement);
		this.drop(name, Number.POSITIVE_INFINITY);
	}

	/** A message that names a statement: the server's name goes in, and the statement itself where it is missing. */
	private refer(
		server: Server,
		chunk: Buffer,
		run: number,
		at: number,
		next: number,
		stop: number,
		nameStart: number,
		nameEnd: number,
		limit: number,
		reply: Reply,
	): Rewritten {
		if (nameStart === nameEnd) {
			if (server.unnamed === this.unnamedSerial && server.unnamed !== 0) {
				server.replies.push(reply);
				return false;
			}
			this.splice.add(server.stream, chunk, run, at - run);
			this.unnamedAgain(server);
			server.replies.push(reply);
			this.splice.add(server.stream, chunk, at, stop - at);
			return true;
		}
		const statement = this.shared ? this.names.get(chunk.utf8Slice(nameStart, nameEnd)) : undefined;
		if (statement === undefined) {
			if (this.shared && chunk.latin1Slice(nameStart, nameEnd).startsWith(NAME_PREFIX))
				throw new ProtocolError(`statement names that begin with "${NAME_PREFIX}" are the proxy's`, "42602");
			server.replies.push(reply);
			return false;
		}
		this.splice.add(server.stream, chunk, run, at - run);
		this.ensure(server, statement, limit);
		noteFacts(server, statement.facts);
		server.replies.push(reply);
		const { nameBytes } = statement;
		const length = next - at - 1 + nameBytes.length - (nameEnd + 1 - nameStart);
		this.splice.header(server.stream, chunk[at]!, length);
		this.splice.add(server.stream, chunk, at + HEADER, nameStart - at - HEADER);
		this.splice.addAll(server.stream, nameBytes);
		this.splice.add(server.stream, chunk, nameEnd + 1, stop - nameEnd - 1);
		return true;
	}

	private ensure(server: Server, statement: Statement, limit = Number.POSITIVE_INFINITY): void {
		if (server.has(statement)) return;
		this.evict(server, limit);
		server.noteParse(statement, null);
		this.splice.addAll(server.stream, parse(statement.name, statement.rest));
	}

	/** `prepared_statements_limit`: room for one more. */
	private evict(server: Server, limit: number): void {
		for (const name of server.evict(limit - 1)) {
			this.splice.addAll(server.stream, close(Target.Statement, name));
			server.replies.push(Reply.CloseOurs);
		}
	}

	/** The server's unnamed statement is another client's, or the client has none: neither may be used. */
	private unnamedAgain(server: Server): void {
		const { unnamedChunk } = this;
		if (unnamedChunk === null) {
			server.unnamed = 0;
			server.replies.push(Reply.CloseOurs);
			this.splice.addAll(server.stream, CLOSE_UNNAMED_STATEMENT);
			return;
		}
		noteFacts(server, this.unnamedFacts);
		server.noteUnnamedAgain(this.unnamedSerial);
		this.splice.addAll(server.stream, parse("", unnamedChunk.subarray(this.unnamedStart, this.unnamedEnd)));
	}

	private rememberUnnamed(chunk: Buffer, start: number, end: number, facts: SessionFacts, serial: number): void {
		// A reference into the chunk costs nothing now, but would keep a large one alive for a small statement.
		const own = (end - start) * 4 < chunk.length && chunk.length > 1024;
		this.unnamedChunk = own ? Buffer.from(chunk.subarray(start, end)) : chunk;
		this.unnamedStart = own ? 0 : start;
		this.unnamedEnd = own ? end - start : end;
		this.unnamedFacts = facts;
		this.unnamedSerial = serial;
	}

	private forgetUnnamed(): void {
		this.unnamedChunk = null;
		this.unnamedSerial = 0;
	}

	drop(name: string, limit: number): void {
		const statement = this.names.get(name);
		if (statement === undefined) return;
		this.names.delete(name);
		this.statements.release(statement, limit);
	}

	restore(name: string, statement: Statement): void {
		if (this.names.has(name)) return;
		this.statements.retain(statement);
		this.names.set(name, statement);
	}

	clear(limit: number): void {
		for (const statement of this.names.values()) this.statements.release(statement, limit);
		this.names.clear();
		this.forgetUnnamed();
	}

	/** The client's name for a statement of ours. */
	nameOf(ours: string): string | null {
		for (const [name, statement] of this.names) if (statement.name === ours) return name;
		return null;
	}
}

/** End of the name in a Describe or Close, whose target is checked. */
function targetName(chunk: Buffer, at: number, next: number): number {
	const target = chunk[at + HEADER];
	const end = endOfString(chunk, at + HEADER + 1, next);
	if (end < 0) throw new ProtocolError("invalid string in message");
	if (target === Target.Statement || target === Target.Portal) return end;
	const message = chunk[at] === Frontend.Close ? "CLOSE" : "DESCRIBE";
	throw new ProtocolError(`invalid ${message} message subtype ${target}`);
}
