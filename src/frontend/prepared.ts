// One client's prepared statements: its names for the statements that all clients of the thread share
// (backend/prepared.ts), and its unnamed one. Rewrites Parse, Bind, Describe and Close on their way to a server that may
// never have seen this client. Made when a client first uses the extended protocol.

import { LRUCache } from "lru-cache";
import { NAME_PREFIX, type Routed, type Statement, type Statements } from "../backend/prepared.ts";
import { Reply } from "../backend/books.ts";
import type { Server } from "../backend/server.ts";
import { ProtocolError } from "../errors.ts";
import { Dirty, NO_FACTS, type SessionFacts, sessionFacts, touchesSession } from "../parser/session.ts";
import type { Router } from "../router/router.ts";
import { StatementNames } from "./statement-names.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { endOfString, HEADER, readInt16, readInt32 } from "../wire/frame.ts";
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

/** Tells a server what a statement that is sent to it may do to its session. @param bound its parameters come in a Bind */
export function noteFacts(server: Server, facts: SessionFacts, bound = false): void {
	if (facts === NO_FACTS) return;
	server.noteRestores(facts.restores, facts.sets.length > 0);
	// What a session does that keeps its server is followed no further.
	if (server.session) return;
	server.looked = true;
	server.dirty |= facts.dirty;
	if (facts.parameterSets.length > 0 && !bound) server.dirty |= Dirty.Settings;
	if (facts.sets.length > 0) server.noteSets(facts.sets);
	if (facts.resets.length > 0) server.noteResets(facts.resets);
	if (facts.resetsAll) server.resetsAll = true;
}

/** What a statement does when it is run: settings that the parameters of its Bind name; `at` is behind its two names. */
function noteBound(server: Server, facts: SessionFacts, chunk: Buffer, at: number, stop: number): void {
	if (facts.deallocatesAll) server.books.deallocatesAll();
	if (facts.parameterSets.length === 0 || server.session) return;
	const named = new Set(facts.parameterSets);
	// Format codes say nothing: a text is the same bytes in both.
	let next = at + 2 + 2 * readInt16(chunk, at);
	const count = readInt16(chunk, next);
	next += 2;
	for (let parameter = 1; parameter <= count && next + 4 <= stop; parameter++) {
		const length = readInt32(chunk, next);
		next += 4;
		if (length < 0) continue;
		if (named.has(parameter) && next + length <= stop)
			server.noteSets([chunk.utf8Slice(next, next + length).toLowerCase()]);
		next += length;
	}
	// A large Bind whose names have not come yet.
	if (next > stop) server.dirty |= Dirty.Settings;
}

/** What a message became: forwarded as it is, or spliced (or left out) so that the run before it had to be written. */
export type Rewritten = boolean;

/** The last unnamed Parse from its query text on, in the chunk it came in. */
interface Unnamed {
	chunk: Buffer | null;
	start: number;
	end: number;
	facts: SessionFacts;
	/** No other unnamed Parse of the thread has it; 0 when there is no such statement. */
	serial: number;
}

/** The query text in `chunk[start, end)`. */
export function routedText(chunk: Buffer, start: number, end: number, router: Router, conforming: boolean): Routed {
	return {
		facts: router.needsFacts ? router.statements.factsOfQuery(chunk, start, end, conforming) : null,
		sql: router.asksPlugins ? chunk.utf8Slice(start, end) : "",
	};
}

/** Looked at once, not with each Bind; again when other functions write. */
function routedStatement(statement: Statement, router: Router, conforming: boolean): Routed {
	const { rest, routing } = statement;
	const end = rest.indexOf(0);
	if (!conforming) return routedText(rest, 0, end, router, false);
	const { epoch } = router.statements;
	if (routing !== null && statement.routedIn === epoch && (routing.facts !== null || !router.needsFacts))
		return routing;
	statement.routedIn = epoch;
	statement.routing = routedText(rest, 0, end, router, true);
	return statement.routing;
}

export class ClientStatements {
	private readonly names = new StatementNames();
	private readonly statements: Statements;
	private readonly facts: FactsCache;
	private readonly unnamed: Unnamed = { chunk: null, start: 0, end: 0, facts: NO_FACTS, serial: 0 };
	/** What `unnamed` was when the batch under way began, and how many unnamed Parses that has had. */
	private readonly before: Unnamed = { chunk: null, start: 0, end: 0, facts: NO_FACTS, serial: 0 };
	private parsesInBatch = 0;
	/** A Sync was sent: the next message begins a batch. */
	batchOver = true;
	/** False with `prepared_statements = disabled`: names go through as they are. */
	private readonly shared: boolean;
	/** Then, where statements are routed: the texts that its server has by these names, as far as can be told. */
	private readonly own: Map<string, Buffer> | null;
	/** The batch (`Books.batch`) in which a name was given or taken away, until that is answered. */
	private readonly unsure = new Map<string, number>();

	constructor(statements: Statements, facts: FactsCache, shared: boolean, routed = false) {
		this.statements = statements;
		this.facts = facts;
		this.shared = shared;
		this.own = routed && !shared ? new Map() : null;
	}

	get size(): number {
		return this.names.size;
	}

	get isEmpty(): boolean {
		return this.names.size === 0 && this.unnamed.chunk === null;
	}

	// Each handler gets a whole message `chunk[at, next)`. When something else than the message goes to the server, it
	// returns true, having put that into its `out`, behind the run `chunk[run, at)` of what went before.

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
		if (textEnd < 0) return this.malformed(server, Reply.Parse);
		if (nameEnd === at + HEADER) {
			const facts = factsOf(this.facts, chunk, nameEnd + 1, textEnd);
			this.rememberUnnamed(chunk, nameEnd + 1, next, facts, serial);
			noteFacts(server, facts, true);
			server.statements.noteUnnamed(serial);
			server.books.said(Reply.Parse);
			if (facts.deallocates === null) return false;
			const name = this.names.get(facts.deallocates);
			this.own?.delete(facts.deallocates);
			if (name === undefined) return false;
			this.deallocate(server, chunk, run, at, facts.deallocates, name);
			const text = Buffer.from(`DEALLOCATE ${name.name}\0\0\0`);
			server.stream.out.addAll(parse("", text));
			return true;
		}
		if (!this.shared) {
			noteFacts(server, factsOf(this.facts, chunk, nameEnd + 1, textEnd));
			server.dirty |= Dirty.Prepared;
			server.books.said(Reply.Parse);
			this.own?.set(chunk.utf8Slice(at + HEADER, nameEnd), Buffer.from(chunk.subarray(nameEnd + 1, textEnd)));
			return false;
		}
		const name = chunk.utf8Slice(at + HEADER, nameEnd);
		const taken = this.names.get(name);
		server.stream.out.add(chunk, run, at - run);
		if (taken !== undefined) {
			// The server has the error for that: this statement, parsed twice.
			this.ensure(server, taken);
			server.books.said(Reply.Parse);
			server.stream.out.addAll(parse(taken.name, taken.rest));
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
		this.unsure.set(name, server.books.batch);
		if (server.statements.has(statement)) {
			if (server.status !== TxStatus.Failed) server.statements.noteFake(Reply.ParseFake, statement, name);
			else {
				// In a failed transaction the server has the answer, which depends on the text.
				server.statements.noteParseElsewhere(statement, name);
				server.stream.out.addAll(parse("", statement.rest));
			}
		} else {
			this.evict(server, limit);
			server.statements.noteParse(statement, name);
			server.stream.out.addAll(parse(statement.name, statement.rest));
		}
		return true;
	}

	/** A large Bind may be there only up to `stop`; its names are, or it is refused. */
	onBind(server: Server, chunk: Buffer, run: number, at: number, next: number, stop: number, limit: number): Rewritten {
		const portalEnd = endOfString(chunk, at + HEADER, stop);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, stop);
		if (nameEnd < 0) return this.malformed(server, Reply.Bind);
		return this.refer(server, chunk, run, at, next, stop, portalEnd + 1, nameEnd, limit, Reply.Bind);
	}

	onDescribe(server: Server, chunk: Buffer, run: number, at: number, next: number, limit: number): Rewritten {
		const nameEnd = targetName(chunk, at, next);
		if (nameEnd < 0) return this.malformed(server, Reply.Describe);
		if (chunk[at + HEADER] === Target.Portal) {
			server.books.said(Reply.Describe);
			return false;
		}
		return this.refer(server, chunk, run, at, next, next, at + HEADER + 1, nameEnd, limit, Reply.Describe);
	}

	onClose(server: Server, chunk: Buffer, run: number, at: number, next: number): Rewritten {
		const nameEnd = targetName(chunk, at, next);
		if (nameEnd < 0) return this.malformed(server, Reply.Close);
		const start = at + HEADER + 1;
		if (chunk[at + HEADER] === Target.Portal || !this.shared) {
			if (this.own !== null && chunk[at + HEADER] === Target.Statement)
				this.own.delete(chunk.utf8Slice(start, nameEnd));
			server.books.said(Reply.Close);
			return false;
		}
		if (nameEnd === start) {
			this.forgetUnnamed();
			server.statements.dropUnnamed();
			server.books.said(Reply.Close);
			return false;
		}
		const name = chunk.utf8Slice(start, nameEnd);
		const statement = this.names.get(name);
		if (statement === undefined) {
			// Not an error in PostgreSQL; a statement made by SQL's PREPARE may have this name.
			server.books.said(Reply.Close);
			return false;
		}
		server.stream.out.add(chunk, run, at - run);
		this.names.delete(name);
		this.unsure.set(name, server.books.batch);
		this.statements.release(statement, Number.POSITIVE_INFINITY);
		server.statements.noteFake(Reply.CloseFake, statement, name);
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
		// Also when a batch before it fails, as may yet be told.
		this.before.chunk = null;
		this.before.serial = 0;
		server.statements.dropUnnamed();
	}

	/**
	 * `DEALLOCATE name` for a statement of the extended protocol, which the server knows by another name, if at all.
	 * @returns the SQL to send instead, or null when the name is not one of ours
	 */
	onDeallocate(server: Server, chunk: Buffer, run: number, at: number, name: string): string | null {
		this.own?.delete(name);
		const statement = this.names.get(name);
		if (statement === undefined) return null;
		this.deallocate(server, chunk, run, at, name, statement);
		return `DEALLOCATE ${statement.name}`;
	}

	private deallocate(server: Server, chunk: Buffer, run: number, at: number, name: string, statement: Statement): void {
		server.stream.out.add(chunk, run, at - run);
		this.ensure(server, statement);
		server.statements.remove(statement);
		server.statements.deallocations++;
		this.drop(name, Number.POSITIVE_INFINITY);
	}

	/** PostgreSQL has its own words for that, and goes on at the next Sync. */
	private malformed(server: Server, reply: Reply): Rewritten {
		server.books.said(reply);
		return false;
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
			if (server.statements.unnamed === this.unnamed.serial && server.statements.unnamed !== 0) {
				if (reply === Reply.Bind) noteBound(server, this.unnamed.facts, chunk, nameEnd + 1, stop);
				server.books.said(reply);
				return false;
			}
			server.stream.out.add(chunk, run, at - run);
			this.unnamedAgain(server);
			if (reply === Reply.Bind) noteBound(server, this.unnamed.facts, chunk, nameEnd + 1, stop);
			server.books.said(reply);
			server.stream.out.add(chunk, at, stop - at);
			return true;
		}
		const statement = this.shared ? this.names.find(chunk, nameStart, nameEnd) : undefined;
		if (statement === undefined) {
			if (this.shared && chunk.latin1Slice(nameStart, nameEnd).startsWith(NAME_PREFIX))
				throw new ProtocolError(`statement names that begin with "${NAME_PREFIX}" are the proxy's`, "42602");
			server.books.said(reply);
			return false;
		}
		server.stream.out.add(chunk, run, at - run);
		this.ensure(server, statement, limit);
		if (reply === Reply.Bind) {
			noteFacts(server, statement.facts, true);
			noteBound(server, statement.facts, chunk, nameEnd + 1, stop);
		}
		server.books.said(reply);
		const { nameBytes } = statement;
		const length = next - at - 1 + nameBytes.length - (nameEnd + 1 - nameStart);
		server.stream.out.header(chunk[at]!, length);
		server.stream.out.add(chunk, at + HEADER, nameStart - at - HEADER);
		server.stream.out.addAll(nameBytes);
		server.stream.out.add(chunk, nameEnd + 1, stop - nameEnd - 1);
		return true;
	}

	private ensure(server: Server, statement: Statement, limit = Number.POSITIVE_INFINITY): void {
		if (server.statements.has(statement)) return;
		this.evict(server, limit);
		server.statements.noteParse(statement, null);
		server.stream.out.addAll(parse(statement.name, statement.rest));
	}

	/** `prepared_statements_limit`: room for one more. */
	private evict(server: Server, limit: number): void {
		for (const evicted of server.statements.evict(limit - 1)) {
			const foreign = typeof evicted === "string";
			server.stream.out.addAll(close(Target.Statement, foreign ? evicted : evicted.name));
			server.statements.noteClose(foreign ? null : evicted);
		}
	}

	/** The server's unnamed statement is another client's, or the client has none: neither may be used. */
	private unnamedAgain(server: Server): void {
		const { chunk, start, end, facts, serial } = this.unnamed;
		if (chunk === null) {
			server.statements.dropUnnamed();
			server.statements.noteClose(null);
			server.stream.out.addAll(CLOSE_UNNAMED_STATEMENT);
			return;
		}
		noteFacts(server, facts, true);
		server.statements.noteUnnamedAgain(serial);
		server.stream.out.addAll(parse("", chunk.subarray(start, end)));
	}

	private rememberUnnamed(chunk: Buffer, start: number, end: number, facts: SessionFacts, serial: number): void {
		const { unnamed, before } = this;
		if (this.batchOver) {
			this.batchOver = false;
			before.chunk = unnamed.chunk;
			before.start = unnamed.start;
			before.end = unnamed.end;
			before.facts = unnamed.facts;
			before.serial = unnamed.serial;
			this.parsesInBatch = 0;
		}
		this.parsesInBatch++;
		// A reference into the chunk costs nothing now, but would keep a large one alive for a small statement.
		const own = (end - start) * 4 < chunk.length && chunk.length > 1024;
		unnamed.chunk = own ? Buffer.from(chunk.subarray(start, end)) : chunk;
		unnamed.start = own ? 0 : start;
		unnamed.end = own ? end - start : end;
		unnamed.facts = facts;
		unnamed.serial = serial;
	}

	/** The server is another's from here on: what it has by the client's own names is cleaned away. */
	onServerLeft(): void {
		this.onAnswered();
		this.own?.clear();
	}

	forgetUnnamed(): void {
		this.unnamed.chunk = null;
		this.unnamed.serial = 0;
	}

	/** See `ServerClient.onUnnamedUndone`. What cannot be known is forgotten: an error beats another statement's answer. */
	undoUnnamed(parses: number, failed: boolean): void {
		const { unnamed, before } = this;
		if (failed || parses !== this.parsesInBatch) this.forgetUnnamed();
		else {
			unnamed.chunk = before.chunk;
			unnamed.start = before.start;
			unnamed.end = before.end;
			unnamed.facts = before.facts;
			unnamed.serial = before.serial;
		}
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

	/** As DEALLOCATE ALL does, to which the unnamed statement is none. */
	clear(limit: number): void {
		for (const [, statement] of this.names) this.statements.release(statement, limit);
		this.names.clear();
		this.own?.clear();
	}

	/** A message that other servers than ours have replied to: what it did to the names, it does here too. */
	note(chunk: Buffer, at: number, next: number, serial = 1): void {
		const code = chunk[at];
		if (code === Frontend.Query) {
			const { deallocates } = factsOf(this.facts, chunk, at + HEADER, next - 1);
			if (deallocates !== null) this.drop(deallocates, Number.POSITIVE_INFINITY);
			this.forgetUnnamed();
		} else if (code === Frontend.Close && chunk[at + HEADER] === Target.Statement)
			this.closeAlone(chunk, at, next, Number.POSITIVE_INFINITY);
		else if (code === Frontend.Parse) {
			const nameEnd = endOfString(chunk, at + HEADER, next);
			const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
			if (textEnd < 0) return;
			const facts = factsOf(this.facts, chunk, nameEnd + 1, textEnd);
			if (nameEnd !== at + HEADER) this.declare(chunk.utf8Slice(at + HEADER, nameEnd), chunk, nameEnd + 1, next, facts);
			else {
				if (facts.deallocates !== null) this.drop(facts.deallocates, Number.POSITIVE_INFINITY);
				this.rememberUnnamed(chunk, nameEnd + 1, next, facts, serial);
			}
		}
	}

	/** After an error on some of several shards: the statements are those of `other`, whatever became of them here. */
	align(other: ClientStatements, serial: number): void {
		for (const [name, statement] of [...this.names])
			if (other.names.get(name) !== statement) this.drop(name, Number.POSITIVE_INFINITY);
		for (const [name, statement] of other.names) this.restore(name, statement);
		Object.assign(this.unnamed, other.unnamed, { serial: other.unnamed.chunk === null ? 0 : serial });
		this.batchOver = true;
	}

	/**
	 * What the message `chunk[at, …)` means depends on a batch that is not answered and may fail: a name that it gives, takes away
	 * or needs. `stop`: as much of the message as is here.
	 */
	isUncertain(server: Server, chunk: Buffer, at: number, stop: number): boolean {
		let start = at + HEADER;
		switch (chunk[at]) {
			case Frontend.Parse: {
				const end = endOfString(chunk, start, stop);
				// A name that is given already may be free then.
				return end > start && (this.names.has(chunk.utf8Slice(start, end)) || this.isUnsure(server, chunk, start, end));
			}
			case Frontend.Describe:
				if (chunk[start] !== Target.Statement) return false;
				start++;
				break;
			case Frontend.Bind:
				start = endOfString(chunk, start, stop) + 1;
				if (start > 0) break;
				return false;
			default:
				return false;
		}
		const end = endOfString(chunk, start, stop);
		if (end < 0) return false;
		if (end === start) return server.statements.isUnnamedUncertain;
		if (this.isUnsure(server, chunk, start, end)) return true;
		const statement = this.names.find(chunk, start, end);
		return statement !== undefined && server.statements.isUncertain(statement);
	}

	private isUnsure(server: Server, chunk: Buffer, start: number, end: number): boolean {
		if (this.unsure.size === 0) return false;
		const batch = this.unsure.get(chunk.utf8Slice(start, end));
		return batch !== undefined && server.books.isUncertain(batch);
	}

	/** Its server owes nothing: what was done is done. */
	onAnswered(): void {
		if (this.unsure.size > 0) this.unsure.clear();
	}

	/** A Parse with this name would be no error, and is ours to keep. */
	mayDeclare(name: string): boolean {
		return this.shared && !this.names.has(name);
	}

	private declare(name: string, chunk: Buffer, start: number, end: number, facts: SessionFacts): void {
		this.drop(name, Number.POSITIVE_INFINITY);
		const key = chunk.latin1Slice(start, end);
		const rest = Buffer.from(chunk.subarray(start, end));
		const statement = this.statements.find(key) ?? this.statements.add(key, rest, facts);
		this.statements.retain(statement);
		this.names.set(name, statement);
	}

	/** The text behind a client's name, "" for its unnamed statement; null when there is none. */
	textOf(name: string): string | null {
		if (name !== "") return this.names.get(name)?.sql ?? null;
		const { chunk, start, end } = this.unnamed;
		return chunk === null ? null : chunk.utf8Slice(start, endOfString(chunk, start, end));
	}

	/** What routing needs of the statement that `names[from, to)` is the client's name of, nothing for its unnamed one; or null. */
	routed(names: Buffer, from: number, to: number, router: Router, conforming: boolean): Routed | null {
		if (from < to) {
			const statement = this.names.find(names, from, to);
			if (statement !== undefined) return routedStatement(statement, router, conforming);
			const text = this.own?.get(names.utf8Slice(from, to));
			return text === undefined ? null : routedText(text, 0, text.length, router, conforming);
		}
		const { chunk, start, end } = this.unnamed;
		return chunk === null ? null : routedText(chunk, start, endOfString(chunk, start, end), router, conforming);
	}

	/** The client's name for a statement of ours. */
	nameOf(ours: string): string | null {
		for (const [name, statement] of this.names) if (statement.name === ours) return name;
		return null;
	}
}

/** End of the name in a Describe or Close, or -1 when that is malformed. */
function targetName(chunk: Buffer, at: number, next: number): number {
	const target = chunk[at + HEADER];
	if (target !== Target.Statement && target !== Target.Portal) return -1;
	const end = endOfString(chunk, at + HEADER + 1, next);
	return end === next - 1 ? end : -1;
}
