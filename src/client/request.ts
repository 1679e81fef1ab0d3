// What a request asks, for the router: the text of a Query, or text and parameters of each Bind in a batch. Only used
// where there is something to decide (`Router.needed`); opens messages that the hot path passes on unopened.

import type { Routed } from "../backend/statement.ts";
import { Side } from "../config/snapshot.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { certainText } from "../parser/reading.ts";
import type { Route } from "../router/route.ts";
import { type RouteRequest, type Router, routeRequest } from "../router/router.ts";
import type { SessionHints } from "../session/hints.ts";
import type { OwnWrites } from "../session/own-writes.ts";
import { routedParse, routedText } from "../session/routed.ts";
import type { Session } from "../session/session.ts";
import type { SessionReading } from "../session/session-reading.ts";
import { type ClientStatements, NO_STATEMENTS } from "../session/statements.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { endOfMessage, endOfString, HEADER, readInt32 } from "../wire/frame.ts";

/** One per client of a routed cluster. */
export class RequestRouter {
	readonly router: Router;
	/** The session's: with each request they are asked. */
	readonly hints: SessionHints;
	readonly reading: SessionReading;
	readonly writes: OwnWrites;
	private readonly asked: RouteRequest = routeRequest();
	/** The BEGIN that no server knows of yet. */
	begun = TransactionControl.None;
	/** Of several shards the one that is asked what any can answer. */
	home = 0;
	/** Of what was routed last; null where none are needed. */
	facts: StatementFacts | null = null;
	/** What is routed next may wait for the answers that its server owes, and is uncertain until then. */
	mayWait = false;
	/** It is run, and not only parsed or described. */
	runs = false;
	/** Something that was routed since this was last set to false may write. */
	wrote = false;
	/** Where the last `batch` ended in its chunk: Binds before it have been asked about. 0 when it was refused. */
	end = 0;
	/** Of the batch under way, which nobody has been sent: the last Parse, and all but the last by name. */
	private parse: Routed | null = null;
	private parseName = "";
	private readonly parses = new Map<string, Routed>();
	/** Of the batch that was routed last a Parse has a text that may be read in several ways. */
	private isUnsure = false;
	/** What its last Parse or Describe was about, if no Bind was since; and of what has no Bind, the one that speaks for all. */
	private expected: StatementFacts | null = null;
	private unbound: StatementFacts | null = null;

	constructor(router: Router, session: Session) {
		this.router = router;
		this.hints = session.hints;
		this.reading = session.reading;
		this.writes = session.writes;
	}

	/** What was routed has to wait for the answers that its server owes: only then is it certain what PostgreSQL will read, which plugins have to see. */
	get isTooEarly(): boolean {
		return this.mayWait && (this.isUnsure || this.asked.sql === null);
	}

	/** The text that was routed last, where plugins are asked. */
	get sql(): string {
		return this.asked.sql ?? "";
	}

	/** The Query message `chunk[at, next)`, which is whole. */
	query(chunk: Buffer, at: number, next: number, inTransaction: boolean, statements: ClientStatements | null): Route {
		const { asked, router } = this;
		this.isUnsure = false;
		this.end = 0;
		asked.bind = null;
		asked.statements = statements ?? NO_STATEMENTS;
		const routed = routedText(chunk, at + HEADER, next - 1, router, this.reading.ofNext);
		return this.askAbout(routed, inTransaction);
	}

	private askAbout(statement: Routed, inTransaction: boolean): Route {
		const { asked } = this;
		asked.sql = statement.sql;
		asked.escapes = statement.escapes;
		asked.facts = statement.facts;
		if (this.router.placesKeys) {
			asked.types = statement.types;
			asked.isForeign = this.reading.isForeign;
		}
		const route = this.ask(inTransaction);
		if (route.error === null) this.reading.noteRun(statement.changes, statement.facts);
		return route;
	}

	private ask(inTransaction: boolean): Route {
		const { asked, hints } = this;
		const { facts } = asked;
		asked.mayWait = this.mayWait;
		asked.inTransaction = inTransaction;
		asked.begun = this.begun;
		asked.home = this.home;
		asked.hints = hints.now;
		asked.startupRole = hints.startup.role;
		this.facts = this.router.decides ? facts : null;
		this.runs = true;
		const route = this.router.route(asked);
		if (route.error === null && (facts?.writes || this.router.calledWrite)) this.wrote = true;
		return route;
	}

	/** The whole Bind `chunk[at, next)`; null when it names a statement that does not exist: the server's to refuse, or plugins'. */
	bind(
		chunk: Buffer,
		at: number,
		next: number,
		statements: ClientStatements | null,
		inTransaction: boolean,
	): Route | null {
		const portalEnd = endOfString(chunk, at + HEADER, next);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, next);
		if (nameEnd < 0) return null;
		const statement = this.statement(chunk, portalEnd + 1, nameEnd, statements);
		if (statement === null) {
			// Perhaps SQL's PREPARE has made it.
			this.wrote = true;
			this.reading.noteRun(true, null);
			return this.router.asksPlugins ? this.router.refuseUnknown(chunk.utf8Slice(portalEnd + 1, nameEnd)) : null;
		}
		if (this.expected !== null) {
			this.expect(this.expected === statement.facts ? this.expected : null);
			this.expected = null;
		}
		const { asked } = this;
		asked.bind = chunk;
		asked.bindStart = nameEnd + 1;
		asked.bindEnd = next;
		asked.statements = statements ?? NO_STATEMENTS;
		const route = this.askAbout(statement, inTransaction);
		asked.bind = null;
		return route;
	}

	/** What the name in `chunk[start, end)` stands for: a Parse of this batch, or a statement that the client has. */
	private statement(chunk: Buffer, start: number, end: number, statements: ClientStatements | null): Routed | null {
		if (this.parse !== null) {
			const name = start === end ? "" : chunk.utf8Slice(start, end);
			const parsed = name === this.parseName ? this.parse : this.parses.get(name);
			if (parsed !== undefined) return parsed;
		}
		const routed = statements?.routed(chunk, start, end, this.router, this.reading.ofParsed) ?? null;
		if (routed === null || !this.reading.hasStale || !this.reading.isStale(chunk.utf8Slice(start, end), routed.sql))
			return routed;
		return { ...routed, sql: this.router.asksPlugins ? null : "" };
	}

	/** A Parse of a batch that nobody has been sent yet. */
	noteParse(chunk: Buffer, at: number, next: number): void {
		const nameEnd = endOfString(chunk, at + HEADER, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd < 0) return;
		const { router } = this;
		if (this.parse !== null) this.parses.set(this.parseName, this.parse);
		this.parseName = nameEnd === at + HEADER ? "" : chunk.utf8Slice(at + HEADER, nameEnd);
		this.parse = routedParse(chunk, nameEnd + 1, textEnd, router, this.reading.ofNext);
		if (this.parse.sql === null) this.isUnsure = true;
		this.reading.noteParse(this.parseName, this.parse.sql !== null);
		this.expect(this.parse.facts);
	}

	/** A Parse in the middle of a batch whose beginning was sent: the client's statements know of it, not how it is read. */
	noteParseSent(chunk: Buffer, at: number, next: number): void {
		if (!this.router.asksPlugins) return;
		const start = at + HEADER;
		const nameEnd = endOfString(chunk, start, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd < 0) return;
		const text = certainText(chunk, nameEnd + 1, textEnd, this.reading.ofNext);
		this.reading.noteParse(nameEnd === start ? "" : chunk.utf8Slice(start, nameEnd), text !== null);
	}

	/** A Describe in such a batch. */
	noteDescribe(chunk: Buffer, at: number, next: number, statements: ClientStatements | null): void {
		if (chunk[at + HEADER] !== Target.Statement) return;
		const name = at + HEADER + 1;
		const nameEnd = endOfString(chunk, name, next);
		if (nameEnd >= 0) this.expect(this.statement(chunk, name, nameEnd, statements)?.facts ?? null);
	}

	/** A Bind of this statement may follow; the one before it had none, when it is another. */
	private expect(facts: StatementFacts | null): void {
		const { expected, unbound } = this;
		if (expected !== null && expected !== facts && (unbound === null || demands(expected) > demands(unbound)))
			this.unbound = expected;
		this.expected = facts;
	}

	/**
	 * Something of the batch in `chunk` that was routed last is run, and no Sync ends what is here of it, but a Flush or a Query: what is
	 * still to come is in the same implicit transaction, and may write.
	 */
	goesOn(chunk: Buffer): boolean {
		return this.runs && this.end < chunk.length && chunk[this.end] !== Frontend.Sync;
	}

	/** The text of the one statement of the batch at `at`, which has been routed. */
	textOf(chunk: Buffer, at: number, statements: ClientStatements): string {
		let name = "";
		for (let next = at; chunk.length - at >= HEADER; at = next) {
			next = endOfMessage(chunk, at);
			if (next < 0) break;
			const start = at + HEADER;
			if (chunk[at] === Frontend.Parse) {
				const nameEnd = endOfString(chunk, start, next);
				return chunk.utf8Slice(nameEnd + 1, endOfString(chunk, nameEnd + 1, next));
			}
			if (chunk[at] === Frontend.Bind) {
				const portalEnd = endOfString(chunk, start, next);
				name = chunk.utf8Slice(portalEnd + 1, endOfString(chunk, portalEnd + 1, next));
				break;
			}
		}
		return statements.textOf(name) ?? "";
	}

	/** What was asked is over: an idle client keeps no text of it. */
	forgetText(): void {
		this.asked.sql = "";
	}

	/** Names mean what the client's statements say: a batch begins, or is passed on. */
	clearBatch(): void {
		this.parse = null;
		if (this.parses.size > 0) this.parses.clear();
		this.expected = null;
		this.unbound = null;
	}

	/** A batch without a Bind, by what it parses and describes. */
	batchUnbound(inTransaction: boolean): Route {
		const { router } = this;
		this.expect(null);
		this.asked.sql = "";
		this.facts = router.decides ? (this.unbound ?? router.statements.facts("")) : null;
		this.runs = false;
		return this.routeUnbound(this.facts, inTransaction);
	}

	/** In a batch that may run on a replica: where it belongs for what it parses or describes only; null when that is no matter. */
	unboundWrite(inTransaction: boolean): Route | null {
		if (this.expected !== null) this.expect(null);
		if (this.unbound === null || this.unbound.reads) return null;
		const route = this.routeUnbound(this.unbound, inTransaction);
		return route.side === Side.Primary ? route : null;
	}

	private routeUnbound(facts: StatementFacts | null, inTransaction: boolean): Route {
		const { asked, hints } = this;
		asked.facts = facts;
		asked.inTransaction = inTransaction;
		asked.begun = this.begun;
		asked.home = this.home;
		asked.hints = hints.now;
		asked.startupRole = hints.startup.role;
		return this.router.routeUnbound(asked);
	}

	/**
	 * The extended-query messages `chunk[at, end)`, up to what ends their batch. One server runs them all: the
	 * first refusal counts for the batch, and one write makes it a write, also one that is only parsed or described: its Bind
	 * may come behind a Flush. A BEGIN in it goes where the statement behind it goes.
	 */
	batch(chunk: Buffer, at: number, end: number, statements: ClientStatements | null, inTransaction: boolean): Route {
		this.clearBatch();
		this.isUnsure = false;
		const route = this.routeBatch(chunk, at, end, statements, inTransaction);
		this.clearBatch();
		return route;
	}

	private routeBatch(
		chunk: Buffer,
		at: number,
		end: number,
		statements: ClientStatements | null,
		inTransaction: boolean,
	): Route {
		const { begun } = this;
		let found: Route | null = null;
		let facts: StatementFacts | null = null;
		this.end = 0;
		while (at < end) {
			const code = chunk[at]!;
			const next = at + 1 + readInt32(chunk, at + 1);
			if (code === Frontend.Parse) this.noteParse(chunk, at, next);
			else if (code === Frontend.Describe) this.noteDescribe(chunk, at, next, statements);
			else if (code === Frontend.Bind) {
				const route = this.bind(chunk, at, next, statements, inTransaction);
				if (route?.error != null) {
					this.begun = begun;
					return route;
				}
				const opens = begins(this.facts);
				const written = found !== null && found.side === Side.Primary;
				// The first says where; a later write takes the batch to the primary of that place.
				if (route !== null && (found === null || (found.side !== Side.Primary && route.side === Side.Primary))) {
					found = route;
					facts = this.facts;
				}
				if (opens && !inTransaction && this.begun === TransactionControl.None) {
					this.begun = this.facts!.transaction;
					// It goes where the statement behind it goes, unless something before it has to be on the primary.
					if (!written) found = null;
				}
			}
			at = next;
		}
		this.end = at;
		const opened = this.begun;
		this.begun = begun;
		if (found === null && opened !== begun) {
			// Nothing is run behind the BEGIN.
			found = this.ask(inTransaction);
			facts = this.facts;
		}
		if (found === null) return this.batchUnbound(inTransaction);
		if (found.error === null && found.side !== Side.Primary) {
			this.begun = opened;
			found = this.unboundWrite(inTransaction) ?? found;
			this.begun = begun;
		}
		this.facts = facts;
		return found;
	}
}

/** What speaks for several statements is the one that asks most of a server. */
function demands(facts: StatementFacts): number {
	if (facts.writes) return 2;
	return facts.reads ? 0 : 1;
}

function begins(facts: StatementFacts | null): boolean {
	switch (facts?.transaction) {
		case TransactionControl.Begin:
		case TransactionControl.BeginReadOnly:
		case TransactionControl.BeginReadWrite:
			return facts.statements === 1;
		default:
			return false;
	}
}
