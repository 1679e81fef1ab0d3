// One client's prepared statements: its names for the statements that all clients of the thread share (backend/statements.ts), and
// its unnamed one. Rewrites Parse, Bind, Describe and Close on their way to a server that may never have seen this client. Made
// when a client first uses the extended query protocol. A client of several shards has one, which is told what all of them have
// replied to (`note`), and each of its Links one that sees the same (sharded-statements.ts).

import { Reply } from "../backend/books.ts";
import { Description, type MovingDescription } from "../backend/description.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import type { StatementClient } from "../backend/server-statements.ts";
import { NAME_PREFIX, type Routed, type Statement } from "../backend/statement.ts";
import type { Statements } from "../backend/statements.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { FactsCache } from "../parser/facts-cache.ts";
import type { Reading } from "../parser/reading.ts";
import { Dirty, NO_FACTS } from "../parser/session.ts";
import type { PreparedNames, Router } from "../router/router.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { endOfString, HEADER } from "../wire/frame.ts";
import { parse } from "../wire/frontend-messages.ts";
import { type ClientNames, StatementNames } from "./names.ts";
import { bringBack } from "./ours.ts";
import type { OwnTexts } from "./own-texts.ts";
import { ParsedTexts } from "./parsed-texts.ts";
import type { Parsing } from "./parsing.ts";
import { Preparing } from "./preparing.ts";
import { ownText, routedParse, routedStatement } from "./routed.ts";
import { noteBound } from "./runs.ts";
import { Said } from "./said.ts";
import type { ShardTold, Told } from "./told.ts";
import { UnansweredNames } from "./unanswered-names.ts";
import { type MovingUnnamed, UnnamedStatement } from "./unnamed.ts";

/** Most bytes of statements with which a client moves to another thread; a guess. */
const MOST_OF_MOVING = 1 << 20;

/** What a client has prepared, for another thread, while no batch is under way. */
export interface MovingStatements {
	readonly names: readonly {
		readonly name: string;
		/** Its Parse from the text on. */
		readonly rest: Uint8Array;
		readonly description: MovingDescription | null;
	}[];
	readonly unnamed: MovingUnnamed | null;
}

/** The names of a client that has prepared nothing. */
export const NO_STATEMENTS: PreparedNames = { hasByProtocol: (name) => name.startsWith(NAME_PREFIX) };

/** What there is of a client's statements beside the server that it has. */
export interface KeptStatements {
	readonly names: ClientNames;
	readonly unnamed: UnnamedStatement;
	/** What the client was told of them, as the shard sees it whose they are; else null. */
	readonly told: ShardTold | null;
	/** The same for the client of all shards; else null. */
	readonly confirmed: Told | null;
	/** Names are shared: on all shards, or on none (`prepared_statements`). */
	readonly areShared: boolean;
}

export class ClientStatements implements PreparedNames, StatementClient {
	private readonly names: ClientNames;
	private readonly unnamed: UnnamedStatement;
	/** The batch (`Books.batch`) of the last unnamed Parse that the client's server was sent; NO_BATCH: it was sent none. */
	private batch = NO_BATCH;
	/** With `prepared_statements = "disabled"`, where names go through as they are; else null. */
	private readonly own: OwnTexts | null;
	private readonly unanswered: UnansweredNames;
	/** Null with one shard, and for all shards together: for these there is `confirmed`. */
	private readonly told: ShardTold | null;
	private readonly confirmed: Told | null;
	private readonly texts: ParsedTexts;
	private readonly parsing: Parsing;
	private readonly preparing: Preparing;

	/**
	 * @param own with `prepared_statements = "disabled"`
	 * @param kept the names and the unnamed statement, where they are not its own
	 */
	constructor(
		statements: Statements,
		facts: FactsCache,
		parsing: Parsing,
		own: OwnTexts | null,
		kept: KeptStatements | null = null,
	) {
		this.texts = new ParsedTexts(statements, facts, parsing);
		this.parsing = parsing;
		this.names = kept?.names ?? new StatementNames(statements);
		this.unnamed = kept?.unnamed ?? new UnnamedStatement();
		this.told = kept?.told ?? null;
		this.confirmed = kept?.confirmed ?? null;
		this.own = own;
		this.unanswered = new UnansweredNames(this.names);
		this.preparing = new Preparing(parsing, statements, this.names, this.told);
	}

	get size(): number {
		return this.names.size;
	}

	// ---- what the client says to its server --------------------------------------------------------------------------

	// Each handler gets a whole message `chunk[at, next)`. When that does not go to the server as it is, what was to be said instead
	// is in the server's `out`, behind the run `chunk[run, at)` of what went before.

	/** @param serial a number that no other unnamed Parse of this thread has */
	onParse(server: Server, chunk: Buffer, run: number, at: number, next: number, serial: number): Said {
		const nameEnd = endOfString(chunk, at + HEADER, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd < 0) return this.malformed(server, Reply.Parse);
		if (nameEnd === at + HEADER) {
			const facts = this.texts.factsOf(chunk, nameEnd + 1, textEnd);
			const { batch } = server.books;
			if (batch !== this.batch) this.unnamed.beginBatch();
			this.batch = batch;
			this.unnamed.remember(chunk, nameEnd + 1, textEnd, next, facts, serial);
			this.told?.give("");
			const { deallocates } = facts;
			const sql = deallocates === null ? null : this.onDeallocate(server, chunk, run, at, deallocates);
			server.statements.noteUnnamed(serial);
			server.books.said(Reply.Parse);
			if (sql === null) return Said.AsIs;
			server.stream.out.addAll(parse("", Buffer.from(`${sql}\0\0\0`)));
			return Said.Otherwise;
		}
		if (this.own !== null) {
			const facts = this.texts.factsOf(chunk, nameEnd + 1, textEnd);
			server.session.note(this.own.declare(chunk, at + HEADER, nameEnd, textEnd, facts));
			server.session.traces.leave(Dirty.Prepared);
			server.books.saidOf(Reply.ParseNamed, null);
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
		if (!this.texts.hasRoom(chunk, nameEnd + 1, next, name.length, this.names.bytes)) {
			server.stream.out.addAll(server.refuse(TOO_MANY, Reply.RefusedBind));
			return Said.Otherwise;
		}
		const statement = this.texts.statementOf(server, chunk, nameEnd + 1, textEnd, next);
		this.told?.give(name);
		this.names.set(name, statement);
		this.unanswered.noteChange(name, server.books);
		const copy = server.statements.use(statement);
		const isFresh =
			copy?.isFresh(this.parsing.moment, this.parsing.time) === true && !server.statements.isUncertain(copy);
		if (copy !== undefined && (server.status === TxStatus.Failed || (isFresh && server.books.ends > 0))) {
			// In a failed transaction the server has the answer, which depends on the text. What is not answered yet may fail it, or has
			// begun one that failed. A copy that is not fresh is parsed anew in any case.
			server.statements.noteParseElsewhere(statement, name);
			server.stream.out.addAll(parse("", statement.rest));
		} else if (copy !== undefined && isFresh) {
			if (copy.description === null) copy.isCalled(name);
			else this.told?.tell(name, copy.description);
			server.statements.noteFake(Reply.ParseFake, statement, name);
		} else this.preparing.byClient(server, name, statement, copy);
		return Said.Otherwise;
	}

	/** @param stop where as much of a large Bind ends as is here: its names are, or the server refuses it */
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
		if (isStatement) this.own?.forget(name);
		const shared = this.own === null;
		if (isStatement && name === "") {
			this.unnamed.forget();
			server.statements.dropUnnamed();
		}
		const statement = shared && name !== "" ? this.names.get(name) : undefined;
		if (statement === undefined) {
			// Not an error in PostgreSQL; a statement made by SQL's PREPARE may have this name.
			server.books.said(Reply.Close);
			return Said.AsIs;
		}
		server.stream.out.add(chunk, run, at - run);
		this.unanswered.noteChange(name, server.books);
		this.unanswered.noteEnd(name, statement, server.books);
		this.end(name);
		server.statements.noteFake(Reply.CloseFake, statement, name);
		return Said.Otherwise;
	}

	/** A simple query ends the unnamed statement. */
	onQuery(): void {
		if (this.unnamed.some) this.unnamed.clear();
	}

	/**
	 * `DEALLOCATE name` for a statement of the extended protocol, which the server knows by another name, if at all.
	 * @returns the SQL to send instead, or null when the name is not one of ours
	 */
	onDeallocate(server: Server, chunk: Buffer, run: number, at: number, name: string): string | null {
		// The server has it by this name.
		if (this.own?.forget(name) === true) return null;
		const statement = this.names.get(name);
		if (statement === undefined) return null;
		server.stream.out.add(chunk, run, at - run);
		if (!server.statements.has(statement)) this.preparing.toDeallocate(server, statement);
		return `DEALLOCATE ${statement.name}`;
	}

	/** What `onDeallocate` has made of `DEALLOCATE name` is about to be run. */
	noteDeallocation(server: Server, name: string): void {
		const statement = this.names.get(name);
		if (statement === undefined) return;
		server.statements.noteDeallocation(statement, name);
		this.unanswered.noteChange(name, server.books);
		this.unanswered.noteEnd(name, statement, server.books);
		this.end(name);
	}

	/** Settings are brought back (`bringBack` of ours.ts) between the run `chunk[run, at)` and the message at `at`. */
	bringBack(server: Server, startup: ParameterSet, chunk: Buffer, run: number, at: number): void {
		server.stream.out.add(chunk, run, at - run);
		bringBack(server, startup, chunk, at);
	}

	/** The message `chunk[at, stop)`, as much of it as is here, has to wait (`UnansweredNames.concern`). */
	isUncertain(server: Server, chunk: Buffer, at: number, stop: number): boolean {
		return this.unanswered.concern(server, chunk, at, stop);
	}

	private end(name: string, limit?: number): void {
		this.confirmed?.forget(name);
		this.names.end(name, limit);
	}

	/** PostgreSQL has its own words for a malformed message, and goes on at the next Sync. */
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
		let statement = this.own === null ? this.names.find(chunk, nameStart, nameEnd) : undefined;
		if (statement === undefined) {
			if (this.own === null && chunk.latin1Slice(nameStart, nameEnd).startsWith(NAME_PREFIX))
				throw new ProtocolError(`statement names that begin with "${NAME_PREFIX}" are the proxy's`, "42602");
			if (reply === Reply.Bind) {
				const facts = this.own?.restores(chunk, nameStart, nameEnd);
				if (facts !== undefined) server.session.noteRestores(facts.restores, facts.sets.length > 0);
			}
			server.books.said(reply);
			return Said.AsIs;
		}
		const { out } = server.stream;
		if (at > run) out.add(chunk, run, at - run);
		const copy = server.statements.use(statement);
		if (
			copy === undefined ||
			copy.description !== statement.description ||
			copy.dueAt <= this.parsing.time ||
			(statement.hasConstants && statement.dialect !== null && this.preparing.isReadOtherwise(server, statement)) ||
			(this.told !== null && !this.told.tell(chunk.utf8Slice(nameStart, nameEnd), copy.description))
		) {
			const name = chunk.utf8Slice(nameStart, nameEnd);
			const said = this.preparing.use(server, name, statement, copy);
			if (said !== Said.Otherwise) return said;
			statement = this.names.get(name)!;
		}
		if (reply === Reply.Bind && statement.facts !== NO_FACTS) {
			server.session.note(statement.facts, true);
			noteBound(server, statement.facts, chunk, nameEnd + 1, stop);
		}
		server.books.said(reply);
		const { nameBytes } = statement;
		const length = next - at - 1 + nameBytes.length - (nameEnd + 1 - nameStart);
		out.header(chunk[at]!, length);
		out.add(chunk, at + HEADER, nameStart - at - HEADER);
		out.add(nameBytes, 0, nameBytes.length);
		out.add(chunk, nameEnd + 1, stop - nameEnd - 1);
		return Said.Otherwise;
	}

	/** The unnamed statement needs no other name, but may be another client's on this server: then it is parsed again. */
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
			const said = this.preparing.useUnnamed(server, this.unnamed);
			if (said !== Said.Otherwise) return said;
		}
		if (reply === Reply.Describe && serial !== 0) server.statements.noteUnnamedDescribe(serial);
		else server.books.said(reply);
		if (reply === Reply.Bind && serial !== 0 && facts !== NO_FACTS) {
			server.session.note(facts, true);
			noteBound(server, facts, chunk, nameEnd + 1, stop);
			if (facts.deallocates !== null && this.own === null) this.noteDeallocation(server, facts.deallocates);
		}
		if (isThere) return Said.AsIs;
		server.stream.out.add(chunk, at, stop - at);
		return Said.Otherwise;
	}

	// ---- what its server says, and does not do -----------------------------------------------------------------------

	/** The client's server owes nothing: what was done is done. */
	onAnswered(): void {
		if (this.unanswered.some) this.unanswered.clear();
	}

	/** The client's server is another's from here on. */
	onServerLeft(): void {
		if (this.unanswered.some) this.unanswered.clear();
		this.own?.clear();
		this.batch = NO_BATCH;
		if (this.unnamed.some) this.unnamed.leave();
	}

	onDescribed(names: ReadonlySet<string>, statement: Statement, description: Description): void {
		const meant = [...names].filter((name) => this.names.get(name) === statement);
		for (const name of meant) this.told?.tell(name, description);
		if (statement.description !== description)
			this.unanswered.noteSuccessor(statement, this.names.succeed(meant, statement, description));
	}

	onUnnamedDescribed(serial: number, description: Description): void {
		this.unnamed.describe(serial, description);
		// Behind the Describe the client may have parsed another.
		if (this.unnamed.serial === serial) this.told?.tell("", description);
	}

	onParseUndone(name: string): void {
		this.names.delete(name, this.parsing.limit);
	}

	onUnnamedUndone(parses: number, failed: boolean, followed: boolean): void {
		this.unnamed.undo(parses, failed, followed);
	}

	onCloseUndone(name: string, statement: Statement): void {
		if (!this.names.has(name)) this.names.set(name, this.unanswered.latest(statement));
	}

	onStatementsGone(): void {
		this.clear();
	}

	/** The client's name for the statement of this name of ours (`Statement.name`). */
	clientName(ours: string): string | null {
		return this.names.nameOf(ours) ?? this.unanswered.endedName(ours);
	}

	// ---- what happens elsewhere --------------------------------------------------------------------------------------

	/** Close of a statement while the client has no server: no server need know. */
	closeAlone(chunk: Buffer, at: number, next: number): void {
		this.noteClose(chunk, at, next, this.parsing.limit);
	}

	/**
	 * A message that was answered without a server, or by several: what it does to the client's statements.
	 * @param serial as for `onParse`
	 */
	note(chunk: Buffer, at: number, next: number, serial: number): void {
		const code = chunk[at];
		if (code === Frontend.Query) {
			const { deallocates } = this.texts.factsOf(chunk, at + HEADER, next - 1);
			if (deallocates !== null) this.end(deallocates);
			this.forgetUnnamed();
		} else if (code === Frontend.Bind) {
			const start = endOfString(chunk, at + HEADER, next) + 1;
			const { deallocates } = this.unnamed.facts;
			if (deallocates !== null && start > 0 && chunk[start] === 0) this.end(deallocates);
		} else if (code === Frontend.Close && chunk[at + HEADER] === Target.Statement) this.noteClose(chunk, at, next);
		else if (code === Frontend.Parse) {
			const nameEnd = endOfString(chunk, at + HEADER, next);
			const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
			if (textEnd < 0) return;
			if (nameEnd !== at + HEADER) {
				const name = chunk.utf8Slice(at + HEADER, nameEnd);
				this.confirmed?.give(name);
				this.names.set(name, this.texts.statementOf(null, chunk, nameEnd + 1, textEnd, next));
			} else {
				const facts = this.texts.factsOf(chunk, nameEnd + 1, textEnd);
				this.confirmed?.give("");
				// No error brings back what there was before.
				this.unnamed.beginBatch();
				this.batch = NO_BATCH;
				this.unnamed.remember(chunk, nameEnd + 1, textEnd, next, facts, serial);
			}
		}
	}

	private noteClose(chunk: Buffer, at: number, next: number, limit?: number): void {
		const nameEnd = targetName(chunk, at, next);
		const start = at + HEADER + 1;
		if (nameEnd === start) this.unnamed.forget();
		else this.end(chunk.utf8Slice(start, nameEnd), limit);
	}

	/** The unnamed statement is a DEALLOCATE: a Bind of it is to be noted. */
	get mayDeallocate(): boolean {
		return this.unnamed.facts.deallocates !== null;
	}

	forgetUnnamed(): void {
		if (this.unnamed.some) this.unnamed.forget();
	}

	/** Takes all names away, as DEALLOCATE ALL does, which leaves the unnamed statement. */
	clear(): void {
		this.names.clear(this.parsing.limit);
		this.confirmed?.clear();
		this.own?.forgetTexts();
	}

	// ---- another thread ----------------------------------------------------------------------------------------------

	/** All that is known of them can be told: each was parsed as the session would parse it now, and no server may yet undo any. */
	get mayMove(): boolean {
		if (this.own !== null || this.confirmed !== null || this.told !== null || this.unanswered.some) return false;
		if (this.names.bytes > MOST_OF_MOVING) return false;
		const { dialect } = this.parsing;
		for (const [, statement] of this.names) if (statement.dialect !== dialect) return false;
		return true;
	}

	depart(): MovingStatements {
		const names = [...this.names].map(([name, { rest, description }]) => {
			return { name, rest: Uint8Array.from(rest), description: description && { ...description } };
		});
		return { names, unnamed: this.unnamed.depart() };
	}

	/** @param serial of the unnamed statement here */
	arrive({ names, unnamed }: MovingStatements, serial: number): void {
		for (const { name, rest, description } of names)
			this.names.set(name, this.texts.arrive(Buffer.from(rest), description && Description.arrived(description)));
		if (unnamed === null) return;
		const { rest, textLength } = unnamed;
		this.unnamed.arrive(unnamed, this.texts.factsOf(Buffer.from(rest), 0, textLength), serial);
	}

	// ---- what routing asks -------------------------------------------------------------------------------------------

	/** A Parse with this name would be no error, and is ours to keep. */
	mayDeclare(name: string): boolean {
		return this.own === null && !this.names.has(name);
	}

	/** The text behind a client's name, "" for its unnamed statement; null when there is none. */
	textOf(name: string): string | null {
		return name === "" ? this.unnamed.text : (this.names.get(name)?.sql ?? null);
	}

	/** The same, also of what it has prepared with `prepared_statements = "disabled"`, as far as that is remembered. */
	anyTextOf(name: string): string | null {
		return this.textOf(name) ?? this.own?.textOf(name) ?? null;
	}

	/** Facts and text of the statement that the client calls `names[from, to)`, its unnamed one where that is empty; null for none. */
	routed(names: Buffer, from: number, to: number, router: Router, reading: Reading): Routed | null {
		if (from < to) {
			const statement = this.names.find(names, from, to);
			if (statement !== undefined) return routedStatement(statement, router, reading);
			const text = this.own?.find(names, from, to);
			return text === undefined ? null : ownText(text, router, reading);
		}
		const { chunk, start, textEnd } = this.unnamed;
		return chunk === null ? null : routedParse(chunk, start, textEnd, router, reading);
	}

	/** Names of the client's statements whose text passes the test, "" for the unnamed one. */
	namesOf(test: (text: Buffer, start: number, end: number) => boolean): string[] {
		const found: string[] = [];
		for (const [name, { rest }] of this.names) if (test(rest, 0, rest.indexOf(0))) found.push(name);
		for (const [name, text] of this.own ?? []) if (test(text, 0, text.length)) found.push(name);
		const { chunk, start, textEnd } = this.unnamed;
		if (chunk !== null && test(chunk, start, textEnd)) found.push("");
		return found;
	}

	/** A server may have a statement by this name that was prepared by the protocol, by this client or by another. */
	hasByProtocol(name: string): boolean {
		return NO_STATEMENTS.hasByProtocol(name) || (this.own?.has(name) ?? false);
	}
}

/** Like no `Books.batch`. */
const NO_BATCH = -1;

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
