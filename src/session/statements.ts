// One client's prepared statements: its names for the statements that all clients of the thread share
// (backend/statements.ts), and its unnamed one. Rewrites Parse, Bind, Describe and Close on their way to a server that may
// never have seen this client. Made when a client first uses the extended protocol.

import { Reply } from "../backend/books.ts";
import type { Copy } from "../backend/copy.ts";
import type { Description } from "../backend/description.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import type { StatementClient } from "../backend/server-statements.ts";
import { NAME_PREFIX, type Routed, type Statement, sizeOf } from "../backend/statement.ts";
import { MOST_OF_CLIENT, type Statements } from "../backend/statements.ts";
import { PgError, ProtocolError } from "../errors.ts";
import { dependsOnTime } from "../parser/constants.ts";
import { type FactsCache, factsOf } from "../parser/facts-cache.ts";
import { Reading } from "../parser/reading.ts";
import { Dirty, NO_FACTS, Reads, type SessionFacts } from "../parser/session.ts";
import type { PreparedNames, Router } from "../router/router.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { endOfString, HEADER, readInt16, readInt32 } from "../wire/frame.ts";
import { CLOSE_UNNAMED_STATEMENT, DESCRIBE_UNNAMED_STATEMENT, FLUSH, parse } from "../wire/frontend-messages.ts";
import { StatementNames } from "./names.ts";
import type { Parsing } from "./parsing.ts";
import { Preparing } from "./preparing.ts";
import { routedText } from "./routed.ts";

/** Of a statement that is going to be run: the books have to know. */
export function noteRun({ books }: Server, facts: SessionFacts): void {
	if (facts.deallocatesAll) books.deallocatesAll();
	if (facts.commits) books.commits();
}

/** What a statement does when it is run: settings that the parameters of its Bind name; `at` is behind its two names. */
function noteBound(server: Server, facts: SessionFacts, chunk: Buffer, at: number, stop: number): void {
	noteRun(server, facts);
	if (facts.parameterSets.length === 0 || server.session.locked) return;
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
			server.session.traces.noteSets([chunk.utf8Slice(next, next + length).toLowerCase()]);
		next += length;
	}
	// A large Bind whose names have not come yet.
	if (next <= stop) return;
	server.session.traces.noteUnknown();
}

/** What became of a message. */
export const enum Said {
	/** It goes as it is. */
	AsIs,
	/** Something else goes, or nothing: the run before it had to be written. */
	Otherwise,
	/** It is to be read again when the server has answered all that it owes. Only what comes before it was said. */
	Later,
	/** The server's statement is not what the client was told it was: it is refused with `STALE`. */
	Refused,
}

/** The last unnamed Parse from its query text on, in the chunk it came in. */
interface Unnamed {
	chunk: Buffer | null;
	start: number;
	end: number;
	facts: SessionFacts;
	/** No other unnamed Parse of the thread has it; 0 when there is no such statement. */
	serial: number;
	/** What the client was told when it asked; null when it did not. */
	told: Description | null;
}

/** As `Object.assign`, at a fraction of its cost: with each unnamed Parse. */
function copyUnnamed(to: Unnamed, from: Unnamed): void {
	to.chunk = from.chunk;
	to.start = from.start;
	to.end = from.end;
	to.facts = from.facts;
	to.serial = from.serial;
	to.told = from.told;
}

const NO_STATEMENT: Readonly<Unnamed> = { chunk: null, start: 0, end: 0, facts: NO_FACTS, serial: 0, told: null };

/** Looked at once, not with each Bind; again when other functions write. */
function routedStatement(statement: Statement, router: Router, reading: Reading): Routed {
	const { rest, routing } = statement;
	if (reading !== Reading.Standard) return routedText(rest, 0, rest.indexOf(0), router, reading);
	const { epoch } = router.statements;
	if (routing !== null && statement.routedIn === epoch && (routing.facts !== null || !router.needsFacts))
		return routing;
	return statement.routedAs(routedText(rest, 0, rest.indexOf(0), router, reading), epoch);
}

/** Of a client that has prepared nothing. */
export const NO_STATEMENTS: PreparedNames = { hasByProtocol: (name) => name.startsWith(NAME_PREFIX) };

/** Names in unanswered batches that are no reason to look for answered ones among them; a guess. */
const MOST_UNSURE = 256;

export class ClientStatements implements PreparedNames, StatementClient {
	private readonly names: StatementNames;
	private readonly statements: Statements;
	private readonly facts: FactsCache;
	private readonly unnamed: Unnamed = { ...NO_STATEMENT };
	/** What `unnamed` was when the batch under way began, and how many unnamed Parses that has had. */
	private readonly before: Unnamed = { ...NO_STATEMENT };
	private parsesInBatch = 0;
	/** A Sync was sent: the next message begins a batch. */
	batchOver = true;
	/** False with `prepared_statements = disabled`: names go through as they are. */
	private readonly shared: boolean;
	/** Then, where statements are routed: the texts that its server has by these names, as far as can be told. */
	private readonly own: Map<string, Buffer> | null;
	/** What has been noted there since it was empty. */
	private ownBytes = 0;
	/** What may give settings their default, by the server's own names. */
	private readonly restoring = new Map<string, SessionFacts>();
	/** The batch (`Books.batch`) in which a name was given or taken away, until that is answered. */
	private readonly unsure = new Map<string, number>();
	/** With so many it is looked for those that are answered. */
	private mostUnsure = MOST_UNSURE;
	/** By our names, what the client called statements that it has taken away, and in which batch: an error before it may name them. */
	private readonly ended = new Map<string, { readonly name: string; readonly batch: number }>();
	/** As `mostUnsure`. */
	private mostEnded = MOST_UNSURE;
	/** What statements of batches that are not answered were found to be: a Close of them may not have happened. */
	private readonly successors = new Map<Statement, Statement>();

	private readonly parsing: Parsing;
	private readonly preparing: Preparing;
	/** What the client was told of its statements, by whichever shard (`Description.portable`); null with one shard. */
	private readonly told: Map<string, string> | null;

	/** @param told the same for all shards of a client */
	constructor(
		statements: Statements,
		facts: FactsCache,
		parsing: Parsing,
		shared: boolean,
		routed = false,
		told: Map<string, string> | null = null,
	) {
		this.statements = statements;
		this.names = new StatementNames(statements);
		this.facts = facts;
		this.parsing = parsing;
		this.preparing = new Preparing(parsing);
		this.told = told;
		this.shared = shared;
		this.own = routed && !shared ? new Map() : null;
	}

	get size(): number {
		return this.names.size;
	}

	get isEmpty(): boolean {
		return this.names.size === 0 && this.unnamed.chunk === null;
	}

	// Each handler gets a whole message `chunk[at, next)`. When that does not go to the server as it is, what was to be said instead
	// is in the server's `out`, behind the run `chunk[run, at)` of what went before.

	/** @param serial a number that no other unnamed Parse of this thread has */
	onParse(server: Server, chunk: Buffer, run: number, at: number, next: number, serial: number): Said {
		const nameEnd = endOfString(chunk, at + HEADER, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd < 0) return this.malformed(server, Reply.Parse);
		if (nameEnd === at + HEADER) {
			const facts = factsOf(this.facts, chunk, nameEnd + 1, textEnd);
			this.rememberUnnamed(chunk, nameEnd + 1, next, facts, serial);
			this.told?.delete("");
			const name = facts.deallocates === null ? undefined : this.names.get(facts.deallocates);
			if (facts.deallocates !== null) this.own?.delete(facts.deallocates);
			if (name !== undefined) this.deallocate(server, chunk, run, at, facts.deallocates!, name);
			server.statements.noteUnnamed(serial);
			server.books.said(Reply.Parse);
			if (name === undefined) return Said.AsIs;
			server.stream.out.addAll(parse("", Buffer.from(`DEALLOCATE ${name.name}\0\0\0`)));
			return Said.Otherwise;
		}
		if (!this.shared) {
			server.session.note(this.ownFacts(chunk, at + HEADER, nameEnd, textEnd));
			server.session.traces.leave(Dirty.Prepared);
			server.books.saidOf(Reply.ParseNamed, null);
			this.noteOwn(chunk, at + HEADER, nameEnd, textEnd);
			return Said.AsIs;
		}
		const name = chunk.utf8Slice(at + HEADER, nameEnd);
		server.stream.out.add(chunk, run, at - run);
		if (this.names.has(name)) {
			// PostgreSQL finds fault with the text first, and that it does here.
			server.books.saidOf(Reply.ParseOurs, null);
			server.stream.out.addAll(parse("", chunk.subarray(nameEnd + 1, next)));
			server.stream.out.addAll(server.refuse(taken(name), Reply.RefusedBind));
			return Said.Otherwise;
		}
		if (!this.mayHave(chunk, nameEnd + 1, next, name.length)) {
			server.stream.out.addAll(server.refuse(TOO_MANY, Reply.RefusedBind));
			return Said.Otherwise;
		}
		const statement = this.statementOf(server, chunk, nameEnd + 1, textEnd, next);
		this.told?.delete(name);
		this.give(name, statement);
		this.noteUnsure(name, server);
		const copy = server.statements.use(statement);
		if (copy !== undefined && server.status === TxStatus.Failed) {
			// In a failed transaction the server has the answer, which depends on the text.
			server.statements.noteParseElsewhere(statement, name);
			server.stream.out.addAll(parse("", statement.rest));
		} else if (copy?.isFresh(this.parsing.moment, this.parsing.time) && !server.statements.isUncertain(copy)) {
			if (copy.description === null) {
				copy.isCalled(name);
			} else this.tell(name, copy.description);
			server.statements.noteFake(Reply.ParseFake, statement, name);
		} else this.preparing.byClient(server, name, statement, copy, this.parsing.limit);
		return Said.Otherwise;
	}

	/** One more statement, of the Parse `chunk[start, next)`: of those that others have, too, however full it is. */
	private mayHave(chunk: Buffer, start: number, next: number, nameLength: number): boolean {
		const rest = next - start;
		if (this.names.bytes + nameLength + sizeOf(rest) > MOST_OF_CLIENT) return false;
		return (
			this.statements.hasRoom(rest + nameLength) || this.parsing.dialect.statements.has(chunk.latin1Slice(start, next))
		);
	}

	/** Of a text whose name is the server's own. Settings are given their default when it is run, not now. */
	private ownFacts(chunk: Buffer, start: number, nameEnd: number, textEnd: number): SessionFacts {
		const facts = factsOf(this.facts, chunk, nameEnd + 1, textEnd);
		const { restoring } = this;
		if (facts.restores === null ? restoring.size === 0 : restoring.size >= MOST_RESTORING) return facts;
		const name = chunk.utf8Slice(start, nameEnd);
		restoring.delete(name);
		if (facts.restores === null || name.length > LONGEST_RESTORING) return facts;
		restoring.set(name, facts);
		return { ...facts, restores: null };
	}

	/** What gives settings their default has been run, in the batch under way: what comes next is to find them as the client's. */
	bringBack(server: Server, startup: ParameterSet, chunk: Buffer, run: number, at: number): void {
		server.stream.out.add(chunk, run, at - run);
		const { restoring } = server.session;
		if (restoring === null) return;
		if (chunk[at] === Frontend.Parse) restoring.noteModes(choosesModes(chunk, at + HEADER));
		else if (chunk[at] === Frontend.Bind && isNamed(chunk, at + HEADER)) restoring.noteModes(false);
		// What finds them is a query, and behind one a transaction's modes are fixed.
		if (restoring.choosesModes) return;
		for (const sql of restoring.within(startup)) this.preparing.run(server, sql);
	}

	/** A text whose name is the server's own; beyond some it is not known what they are, which routing takes for writes. */
	private noteOwn(chunk: Buffer, start: number, nameEnd: number, textEnd: number): void {
		if (this.own === null) return;
		this.ownBytes += sizeOf(textEnd - start);
		if (this.ownBytes <= MOST_OWN) {
			this.own.set(chunk.utf8Slice(start, nameEnd), Buffer.from(chunk.subarray(nameEnd + 1, textEnd)));
			return;
		}
		this.own.clear();
		this.ownBytes = 0;
	}

	/** What the text of a Parse is: all who read it alike share it. `chunk[start, next)`: text and parameter types. */
	private statementOf(server: Server | null, chunk: Buffer, start: number, textEnd: number, next: number): Statement {
		const key = chunk.latin1Slice(start, next);
		const { dialect } = this.parsing;
		// What is to be read in a way of the moment, nobody shares. Nor does who has a server for good: it knows all by itself.
		const reads =
			server === null ? Reads.Nothing : server.session.locked ? Reads.Everything : server.session.traces.reads;
		const known = reads === Reads.Nothing ? dialect.statements.get(key) : undefined;
		if (known !== undefined) return known;
		const rest = Buffer.from(chunk.subarray(start, next));
		const facts = factsOf(this.facts, chunk, start, textEnd);
		// A constant that is the time of the Parse is another with each.
		const isShared = reads === Reads.Nothing && !dependsOnTime(key);
		if (isShared) return this.statements.add(dialect, key, rest, facts);
		const constants = (reads & Reads.Constants) === 0 ? dialect.constants : null;
		const names = (reads & Reads.Names) === 0 ? dialect.names : null;
		return this.statements.addPrivate(key, rest, facts, constants, names);
	}

	/** A large Bind may be there only up to `stop`; its names are, or it is refused. */
	onBind(server: Server, chunk: Buffer, run: number, at: number, next: number, stop: number): Said {
		const portalEnd = endOfString(chunk, at + HEADER, stop);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, stop);
		if (nameEnd < 0) return this.malformed(server, Reply.Bind);
		return this.refer(server, chunk, run, at, next, stop, portalEnd + 1, nameEnd, Reply.Bind);
	}

	onDescribe(server: Server, chunk: Buffer, run: number, at: number, next: number): Said {
		const nameEnd = targetName(chunk, at, next);
		if (nameEnd < 0) return this.malformed(server, Reply.Describe);
		if (chunk[at + HEADER] === Target.Portal) {
			server.books.said(Reply.Describe);
			return Said.AsIs;
		}
		return this.refer(server, chunk, run, at, next, next, at + HEADER + 1, nameEnd, Reply.Describe);
	}

	onClose(server: Server, chunk: Buffer, run: number, at: number, next: number): Said {
		const nameEnd = targetName(chunk, at, next);
		if (nameEnd < 0) return this.malformed(server, Reply.Close);
		const start = at + HEADER + 1;
		const isStatement = chunk[at + HEADER] === Target.Statement;
		const name = isStatement ? chunk.utf8Slice(start, nameEnd) : "";
		if (isStatement) this.own?.delete(name);
		if (isStatement && this.shared && name === "") {
			this.forgetUnnamed();
			server.statements.dropUnnamed();
		}
		const statement = this.shared && name !== "" ? this.names.get(name) : undefined;
		if (statement === undefined) {
			// Not an error in PostgreSQL; a statement made by SQL's PREPARE may have this name.
			server.books.said(Reply.Close);
			return Said.AsIs;
		}
		server.stream.out.add(chunk, run, at - run);
		this.noteUnsure(name, server);
		this.noteEnded(name, statement, server);
		this.end(name, statement, Number.POSITIVE_INFINITY);
		server.statements.noteFake(Reply.CloseFake, statement, name);
		return Said.Otherwise;
	}

	/** Close of a statement while no server is held: nobody else need know. */
	closeAlone(chunk: Buffer, at: number, next: number): void {
		const nameEnd = targetName(chunk, at, next);
		const start = at + HEADER + 1;
		if (nameEnd === start) this.forgetUnnamed();
		else {
			const name = chunk.utf8Slice(start, nameEnd);
			const statement = this.names.get(name);
			if (statement !== undefined) this.end(name, statement, this.parsing.limit);
		}
	}

	/** A simple query ends the life of the unnamed statement. */
	onQuery(): void {
		this.unnamed.chunk = null;
		this.unnamed.serial = 0;
		// Also when a batch before it fails, as may yet be told.
		this.before.chunk = null;
		this.before.serial = 0;
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
		if (!server.statements.has(statement)) this.preparing.again(server, statement, undefined, Number.POSITIVE_INFINITY);
		server.statements.remove(statement);
		server.statements.noteDeallocation();
		this.noteEnded(name, statement, server);
		this.end(name, statement, Number.POSITIVE_INFINITY);
	}

	/** The client closes it: if it parses the text again, it wants to know what that is now. */
	private end(name: string, statement: Statement, limit: number): void {
		statement.closed();
		this.told?.delete(name);
		this.drop(name, limit);
	}

	/** PostgreSQL has its own words for that, and goes on at the next Sync. */
	private malformed(server: Server, reply: Reply): Said {
		server.books.said(reply);
		return Said.AsIs;
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
		reply: Reply.Bind | Reply.Describe,
	): Said {
		if (nameStart === nameEnd) return this.referUnnamed(server, chunk, run, at, stop, nameEnd, reply);
		let statement = this.shared ? this.names.find(chunk, nameStart, nameEnd) : undefined;
		if (statement === undefined) {
			if (this.shared && chunk.latin1Slice(nameStart, nameEnd).startsWith(NAME_PREFIX))
				throw new ProtocolError(`statement names that begin with "${NAME_PREFIX}" are the proxy's`, "42602");
			if (reply === Reply.Bind && this.restoring.size > 0) {
				const facts = this.restoring.get(chunk.utf8Slice(nameStart, nameEnd));
				if (facts !== undefined) server.session.noteRestores(facts.restores, facts.sets.length > 0);
			}
			server.books.said(reply);
			return Said.AsIs;
		}
		server.stream.out.add(chunk, run, at - run);
		const copy = server.statements.use(statement);
		if (
			copy === undefined ||
			copy.description !== statement.description ||
			copy.dueAt <= this.parsing.time ||
			this.told !== null ||
			(statement.dialect !== null && this.preparing.isReadOtherwise(server, statement))
		) {
			const name = chunk.utf8Slice(nameStart, nameEnd);
			const said = this.prepare(server, name, statement, copy);
			if (said !== Said.Otherwise) return said;
			statement = this.names.get(name)!;
		}
		if (reply === Reply.Bind) {
			server.session.note(statement.facts, true);
			noteBound(server, statement.facts, chunk, nameEnd + 1, stop);
		}
		server.books.said(reply);
		const { nameBytes } = statement;
		const length = next - at - 1 + nameBytes.length - (nameEnd + 1 - nameStart);
		server.stream.out.header(chunk[at]!, length);
		server.stream.out.add(chunk, at + HEADER, nameStart - at - HEADER);
		server.stream.out.addAll(nameBytes);
		server.stream.out.add(chunk, nameEnd + 1, stop - nameEnd - 1);
		return Said.Otherwise;
	}

	/** The statement is to be used, and the server may not have it as the client knows it. @returns Otherwise when it can be used now */
	private prepare(server: Server, name: string, known: Statement, had: Copy | undefined): Said {
		const { preparing } = this;
		let statement = known;
		let copy = had;
		if (preparing.isReadOtherwise(server, statement) && (statement.dialect !== null || copy === undefined)) {
			// PostgreSQL may come to read the text anew whenever it is run: others must not see what this client made of it.
			const now = preparing.dialectOf(server, statement);
			if (statement.dialect !== null || now.constants !== statement.constants) {
				statement = this.statements.alone(statement, now.constants, now.names);
				copy = undefined;
				this.replace(name, statement);
			}
		}
		const isOld = copy !== undefined && copy.dueAt <= this.parsing.time && !server.statements.isNew(copy);
		const isOther = copy !== undefined && copy.description !== statement.description;
		if (copy?.description === null && isOther && !isOld) {
			// It is being asked what it is. What the client has parsed behind that, is that.
			if (copy.names?.has(name)) return Said.Otherwise;
			return this.later(server);
		}
		if (copy === undefined || isOld || (isOther && !copy.asDescribed)) {
			// With constants that nobody can read again as they were read.
			if (statement.constants === null && preparing.isReadOtherwise(server, statement)) return Said.Refused;
			const isExpected = statement.description !== null || this.told?.has(name);
			preparing.again(server, statement, copy, this.parsing.limit);
			return isExpected ? this.later(server) : Said.Otherwise;
		}
		const { description } = copy;
		if (!isOther && (description === null || this.isAsTold(name, description))) {
			if (description !== null) this.tell(name, description);
			return Said.Otherwise;
		}
		// The next attempt finds out whether it is so still.
		preparing.close(server, copy);
		return Said.Refused;
	}

	private later(server: Server): Said {
		// Else it would wait for ever.
		if (server.books.owed === 0) throw new Error("a statement is awaited that the server was not asked for");
		server.stream.out.addAll(FLUSH);
		return Said.Later;
	}

	/** Whether that is what some shard has told the client, if any has. */
	private isAsTold(name: string, { portable }: Description): boolean {
		const told = this.told?.get(name);
		return told === undefined || told === portable;
	}

	/** The client gets to know what its statement is, or could. */
	private tell(name: string, { portable }: Description): void {
		const { told } = this;
		if (told !== null && !told.has(name) && told.size < MOST_TOLD) told.set(name, portable);
	}

	private referUnnamed(
		server: Server,
		chunk: Buffer,
		run: number,
		at: number,
		stop: number,
		nameEnd: number,
		reply: Reply.Bind | Reply.Describe,
	): Said {
		const { serial, facts } = this.unnamed;
		const isThere = server.statements.unnamed === serial && serial !== 0;
		if (!isThere) {
			server.stream.out.add(chunk, run, at - run);
			const said = this.unnamedAgain(server);
			if (said !== Said.Otherwise) return said;
		}
		if (reply === Reply.Describe && serial !== 0) server.statements.noteUnnamedDescribe(serial);
		else server.books.said(reply);
		if (reply === Reply.Bind && serial !== 0) {
			server.session.note(facts, true);
			noteBound(server, facts, chunk, nameEnd + 1, stop);
		}
		if (isThere) return Said.AsIs;
		server.stream.out.add(chunk, at, stop - at);
		return Said.Otherwise;
	}

	/** The server's unnamed statement is another client's, or the client has none: neither may be used. */
	private unnamedAgain(server: Server): Said {
		const { chunk, start, end, serial, told } = this.unnamed;
		const { out } = server.stream;
		if (chunk === null) {
			server.statements.dropUnnamed();
			server.statements.noteClose(null);
			out.addAll(CLOSE_UNNAMED_STATEMENT);
			return Said.Otherwise;
		}
		if (server.statements.takeChange(serial)) return Said.Refused;
		const expected = told?.key ?? this.told?.get("");
		if (expected === undefined) {
			server.statements.noteUnnamedAgain(serial);
			out.addAll(parse("", chunk.subarray(start, end)));
			return Said.Otherwise;
		}
		server.statements.noteUnnamedChecked(serial, expected);
		const text = chunk.subarray(start, told === null ? end : endOfString(chunk, start, end) + 1);
		out.addAll(parse("", told === null ? text : Buffer.concat([text, told.types])));
		out.addAll(DESCRIBE_UNNAMED_STATEMENT);
		return this.later(server);
	}

	onUnnamedDescribed(serial: number, description: Description): void {
		if (this.unnamed.serial === serial) this.unnamed.told = description;
		if (this.before.serial === serial) this.before.told = description;
		this.tell("", description);
	}

	onDescribed(names: ReadonlySet<string>, statement: Statement, description: Description): void {
		for (const name of names) if (this.names.get(name) === statement) this.tell(name, description);
		if (statement.description === description) return;
		const next = this.statements.succeed(statement, description);
		this.statements.retain(next);
		this.successors.set(statement, next);
		for (const name of names) if (this.names.get(name) === statement) this.replace(name, next);
		this.statements.release(next, Number.POSITIVE_INFINITY);
	}

	private replace(name: string, statement: Statement): void {
		const before = this.names.get(name);
		this.give(name, statement);
		if (before !== undefined) this.statements.release(before, Number.POSITIVE_INFINITY);
	}

	private give(name: string, statement: Statement): void {
		this.statements.retain(statement);
		this.names.set(name, statement);
	}

	private rememberUnnamed(chunk: Buffer, start: number, end: number, facts: SessionFacts, serial: number): void {
		const { unnamed, before } = this;
		if (this.batchOver) {
			this.batchOver = false;
			copyUnnamed(before, unnamed);
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
		unnamed.told = null;
	}

	/** The server is another's from here on: what it has by the client's own names is cleaned away. */
	onServerLeft(): void {
		this.onAnswered();
		this.own?.clear();
		this.ownBytes = 0;
		this.restoring.clear();
		// Who has no server keeps no large text: it has to be parsed again.
		if (this.unnamed.end - this.unnamed.start > LARGE) this.forgetUnnamed();
		this.before.chunk = null;
		this.before.serial = 0;
	}

	forgetUnnamed(): void {
		this.unnamed.chunk = null;
		this.unnamed.serial = 0;
	}

	/** What cannot be known is forgotten: an error beats another statement's answer. */
	onUnnamedUndone(parses: number, failed: boolean, followed: boolean): void {
		const { unnamed, before } = this;
		if (followed) {
			// The batch under way has one of its own, and began with one that is none now.
			before.chunk = null;
			before.serial = 0;
		} else if (failed || parses !== this.parsesInBatch) this.forgetUnnamed();
		else copyUnnamed(unnamed, before);
	}

	onParseUndone(name: string): void {
		this.drop(name);
	}

	onStatementsGone(): void {
		this.clear();
	}

	drop(name: string, limit = this.parsing.limit): void {
		const statement = this.names.get(name);
		if (statement === undefined) return;
		this.names.delete(name);
		this.statements.release(statement, limit);
	}

	onCloseUndone(name: string, statement: Statement): void {
		if (!this.names.has(name)) this.give(name, this.successors.get(statement) ?? statement);
	}

	/** As DEALLOCATE ALL does, to which the unnamed statement is none. */
	clear(): void {
		const { limit } = this.parsing;
		for (const [, statement] of this.names) this.statements.release(statement, limit);
		this.names.clear();
		this.told?.clear();
		this.own?.clear();
	}

	/** A message that other servers than `server` have replied to: what it did to the names, it does here too. */
	note(chunk: Buffer, at: number, next: number, serial = 1, server: Server | null = null): void {
		const code = chunk[at];
		if (code === Frontend.Query) {
			const { deallocates } = factsOf(this.facts, chunk, at + HEADER, next - 1);
			if (deallocates !== null) this.drop(deallocates, Number.POSITIVE_INFINITY);
			this.forgetUnnamed();
		} else if (code === Frontend.Close && chunk[at + HEADER] === Target.Statement) this.noteClose(chunk, at, next);
		else if (code === Frontend.Parse) {
			const nameEnd = endOfString(chunk, at + HEADER, next);
			const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
			if (textEnd < 0) return;
			if (nameEnd !== at + HEADER) {
				const name = chunk.utf8Slice(at + HEADER, nameEnd);
				this.replace(name, this.statementOf(server, chunk, nameEnd + 1, textEnd, next));
			} else {
				const facts = factsOf(this.facts, chunk, nameEnd + 1, textEnd);
				if (facts.deallocates !== null) this.drop(facts.deallocates, Number.POSITIVE_INFINITY);
				this.rememberUnnamed(chunk, nameEnd + 1, next, facts, serial);
			}
		}
	}

	/** After an error on some of several shards: the statements are those of `other`, whatever became of them here. */
	align(other: ClientStatements, serial: number, server: Server | null): void {
		for (const [name, { key }] of [...this.names])
			if (other.names.get(name)?.key !== key) this.drop(name, Number.POSITIVE_INFINITY);
		for (const [name, { rest }] of other.names) {
			if (this.names.has(name)) continue;
			this.give(name, this.statementOf(server, rest, 0, rest.indexOf(0), rest.length));
		}
		copyUnnamed(this.unnamed, other.unnamed);
		this.unnamed.serial = other.unnamed.chunk === null ? 0 : serial;
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
			case Frontend.Close: {
				// A batch that fails gives back what it has closed, and that is to be closed again.
				const end = endOfString(chunk, start + 1, stop);
				return chunk[start] === Target.Statement && end > start && this.isUnsure(server, chunk, start + 1, end);
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
		return statement !== undefined && server.statements.isUncertain(server.statements.use(statement));
	}

	/** Behind a batch comes another: those that are answered meanwhile make room. */
	private noteUnsure(name: string, { books }: Server): void {
		if (this.unsure.size >= this.mostUnsure) {
			for (const [known, batch] of this.unsure)
				if (batch !== books.batch && !books.isUncertain(batch)) this.unsure.delete(known);
			this.mostUnsure = Math.max(MOST_UNSURE, 2 * this.unsure.size);
		}
		this.unsure.set(name, books.batch);
	}

	private noteEnded(name: string, statement: Statement, { books }: Server): void {
		const { ended } = this;
		if (ended.size >= this.mostEnded) {
			for (const [ours, { batch }] of ended) if (batch !== books.batch && !books.isUncertain(batch)) ended.delete(ours);
			this.mostEnded = Math.max(MOST_UNSURE, 2 * ended.size);
		}
		ended.set(statement.name, { name, batch: books.batch });
	}

	private isUnsure(server: Server, chunk: Buffer, start: number, end: number): boolean {
		if (this.unsure.size === 0) return false;
		const batch = this.unsure.get(chunk.utf8Slice(start, end));
		return batch !== undefined && server.books.isUncertain(batch);
	}

	/** Its server owes nothing: what was done is done. */
	onAnswered(): void {
		if (this.unsure.size > 0) this.unsure.clear();
		if (this.ended.size > 0) this.ended.clear();
		if (this.successors.size > 0) this.successors.clear();
	}

	/** A Parse with this name would be no error, and is ours to keep. */
	mayDeclare(name: string): boolean {
		return this.shared && !this.names.has(name);
	}

	private noteClose(chunk: Buffer, at: number, next: number): void {
		const nameEnd = targetName(chunk, at, next);
		const start = at + HEADER + 1;
		if (nameEnd === start) this.forgetUnnamed();
		else this.drop(chunk.utf8Slice(start, nameEnd), Number.POSITIVE_INFINITY);
	}

	/** The text behind a client's name, "" for its unnamed statement; null when there is none. */
	textOf(name: string): string | null {
		if (name !== "") return this.names.get(name)?.sql ?? null;
		const { chunk, start, end } = this.unnamed;
		return chunk === null ? null : chunk.utf8Slice(start, endOfString(chunk, start, end));
	}

	/** What routing needs of the statement that `names[from, to)` is the client's name of, nothing for its unnamed one; or null. */
	routed(names: Buffer, from: number, to: number, router: Router, reading: Reading): Routed | null {
		if (from < to) {
			const statement = this.names.find(names, from, to);
			if (statement !== undefined) return routedStatement(statement, router, reading);
			const text = this.own?.get(names.utf8Slice(from, to));
			return text === undefined ? null : routedText(text, 0, text.length, router, reading);
		}
		const { chunk, start, end } = this.unnamed;
		return chunk === null ? null : routedText(chunk, start, endOfString(chunk, start, end), router, reading);
	}

	/** Names of the client's statements whose text is such, "" for the unnamed one. */
	namesOf(test: (text: Buffer, start: number, end: number) => boolean): string[] {
		const found: string[] = [];
		for (const [name, { rest }] of this.names) if (test(rest, 0, rest.indexOf(0))) found.push(name);
		for (const [name, text] of this.own ?? []) if (test(text, 0, text.length)) found.push(name);
		const { chunk, start, end } = this.unnamed;
		if (chunk !== null && test(chunk, start, endOfString(chunk, start, end))) found.push("");
		return found;
	}

	/** A server may have a statement by this name that was prepared by the protocol, by this client or by another. */
	hasByProtocol(name: string): boolean {
		return NO_STATEMENTS.hasByProtocol(name) || (this.own?.has(name) ?? false);
	}

	/** The client's name for a statement of ours. */
	clientName(ours: string): string | null {
		for (const [name, statement] of this.names) if (statement.name === ours) return name;
		return this.ended.get(ours)?.name ?? null;
	}
}

/** Names of which a client of several shards is not told differently by each; a guess. */
const MOST_TOLD = 10_000;
/** Characters of an unnamed statement that is remembered beyond its transaction; a guess, generous. */
const LARGE = 1 << 20;
/** What may be known of texts by the server's own names, bytes; a guess, generous. */
const MOST_OWN = 16 << 20;
/** Names of what gives settings their default that are remembered, and characters of the longest; guesses, generous. */
const MOST_RESTORING = 1000;
const LONGEST_RESTORING = 256;
const TOO_MANY = new PgError(
	"ERROR",
	"53200",
	"prepared statements take more than the proxy keeps",
	"Statements may take 256 MiB for one client, and 512 MiB for all clients of a worker.",
	"Close statements that are not needed any more.",
);

function taken(name: string): PgError {
	return new PgError("ERROR", "42P05", `prepared statement "${name}" already exists`);
}

/** End of the name in a Describe or Close, or -1 when that is malformed. */
function targetName(chunk: Buffer, at: number, next: number): number {
	const target = chunk[at + HEADER];
	if (target !== Target.Statement && target !== Target.Portal) return -1;
	const end = endOfString(chunk, at + HEADER + 1, next);
	return end === next - 1 ? end : -1;
}

/** The Bind at whose portal's name `start` is binds a statement that has a name. */
function isNamed(chunk: Buffer, start: number): boolean {
	return chunk[chunk.indexOf(0, start) + 1] !== 0;
}

/** What is parsed, without a name, begins a transaction or chooses its modes: it looks at no settings that a session has. */
function choosesModes(chunk: Buffer, nameStart: number): boolean {
	const start = nameStart + 1;
	return chunk[nameStart] === 0 && MODES.test(chunk.latin1Slice(start, Math.min(start + MODES_LENGTH, chunk.length)));
}

const MODES = /^\s*(?:begin|start\s+transaction|set\s+transaction)\b/i;
/** Of a text that long it is seen. */
const MODES_LENGTH = 64;
