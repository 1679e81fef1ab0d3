// Where one client's requests go, where there are servers to choose from: what the router decides, what is answered without a
// server (session/held-begin.ts), and what the client's own writes forbid. alone.ts asks about each request before it takes a server,
// walk.ts about each statement after that, and both do what they are told.

import type { Server } from "../backend/server.ts";
import { type PoolSpec, Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { ownSetting } from "../parser/hints.ts";
import { Unasked } from "../router/refusals.ts";
import type { Route } from "../router/route.ts";
import type { Router } from "../router/router.ts";
import { ABORTED, type HeldBegin, NOT_HELD, type OwnAnswer, saySetting } from "../session/held-begin.ts";
import type { OwnWrites } from "../session/own-writes.ts";
import type { Session } from "../session/session.ts";
import type { ClientSettings } from "../session/settings.ts";
import type { ClientStatements } from "../session/statements.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { HEADER, readInt32 } from "../wire/frame.ts";
import type { ClientContext } from "./context.ts";
import { RequestRouter } from "./request.ts";
import { answerBatch, answerQuery, endOfSolo } from "./solo.ts";

/** What becomes of a request that no server has been taken for. */
export const enum Choice {
	/** A server of `side` is to run it. */
	Server,
	/** Nobody: the client is told `error`. */
	Refused,
	/** The client is told `answer`; the request ends at `end`. */
	Answered,
	/** It has to wait for the answers that the server owes: then there may be another choice. */
	Later,
}

/** The client as SHOW ROUTES names it. */
export interface RoutingClient {
	readonly pid: number;
	readonly user: string;
	readonly database: string;
}

/** Whose requests these are. */
export interface RoutingOwner {
	readonly client: RoutingClient;
	readonly settings: ClientSettings;
	/** Null while the client has prepared nothing. */
	readonly statements: ClientStatements | null;
	prepared(): ClientStatements;
}

export class Routing {
	readonly session: Session;
	/** The transaction that no server knows of yet; the session's own where there can be one. Written here only. */
	heldBegin: HeldBegin = NOT_HELD;
	/** Which server the request wants. */
	side = Side.Primary;
	/** It must have what was written by then; 0: any will do. See `Cluster.pick`. */
	since = 0;
	error: PgError = ABORTED;
	answer: Buffer = NOTHING;
	/** Where the request ends in its chunk: of an answer, and of what was routed last. */
	end = 0;
	/** Decided, and not told yet to SHOW ROUTES and EXPLAIN; about this. */
	decided: Route | null = null;
	facts: StatementFacts | null = null;
	/** A COMMIT or ROLLBACK is on its way to the server, not answered yet: what follows is another transaction. */
	isEnding = false;
	/** There is something to decide: several pools, or a plugin. */
	needed = false;
	private readonly context: ClientContext;
	private readonly owner: RoutingOwner;
	/** Since the last reload, and whether it is not used yet. */
	private router: Router | null = null;
	private isLate = false;
	/** Null where there is nothing to decide: one pool, no plugin. */
	private requests: RequestRouter | null = null;

	constructor(context: ClientContext, owner: RoutingOwner, session: Session, router: Router | null) {
		this.context = context;
		this.owner = owner;
		this.session = session;
		this.reach(router);
	}

	/** A reload made this the router; a transaction that is held back is brought to its end by the old one. */
	reach(router: Router | null): void {
		this.router = router;
		this.isLate = this.heldBegin.open;
		if (this.isLate) return;
		const wrote = this.requests?.wrote ?? false;
		const hasBegun = this.requests === null;
		this.requests = router?.needed ? new RequestRouter(router, this.session) : null;
		this.needed = this.requests !== null;
		if (this.requests === null) return;
		this.requests.wrote = wrote;
		this.heldBegin = this.session.heldBegin;
		// While there was nothing to decide nobody has noted the ends of transactions.
		if (hasBegun) this.requests.reading.noteEnd();
	}

	/** The transaction was begun elsewhere (shards/sharded-client.ts): a server shall run `sql` before the first statement. */
	hold(sql: string): void {
		this.heldBegin = this.session.heldBegin;
		this.heldBegin.hold(sql);
	}

	/** The server that is chosen stays: what begins with a read may write later, where there is a primary. */
	stay(): void {
		if (this.side === Side.Any && (this.requests?.router.mayWrite ?? true)) this.side = Side.Primary;
	}

	/**
	 * SHOW ROUTES hears of what was decided.
	 * @param spec the pool of the server that it has come to; null when it was refused @param wait ms in a queue
	 */
	tell(decided: Route, spec: PoolSpec | null, wait: number): void {
		const { context, facts } = this;
		this.decided = null;
		// Where plugins alone decide there is the text only.
		const sql = facts === null ? (this.requests?.sql ?? "") : "";
		context.routes.note(context.time, this.owner.client, facts, sql, decided, spec, wait);
	}

	/**
	 * The request `chunk[at, next)`, which is whole: a message, or those of a batch without what ends it (`LookAhead.last`).
	 * @param holds BEGIN may be held back
	 */
	choose(code: number, chunk: Buffer, at: number, next: number, holds: boolean): Choice {
		const { heldBegin } = this;
		const { settings } = this.owner;
		const requests = this.requests!;
		requests.begun = heldBegin.begun;
		requests.reading.settle(settings.reading, this.owner.statements);
		requests.mayWait = false;
		let route: Route | null = null;
		this.end = next;
		if (code === Frontend.Query) route = requests.query(chunk, at, next, false, this.owner.statements);
		else if (code !== Frontend.FunctionCall) {
			route = requests.batch(chunk, at, next, this.owner.statements, false);
			this.end = requests.end;
		} else {
			// Any function, by number.
			requests.facts = null;
			requests.wrote = true;
			if (requests.router.asksPlugins) route = requests.router.refuseUnasked(Unasked.FunctionCall);
		}
		const { facts } = requests;
		this.decided = route;
		this.facts = facts;
		if (route?.error != null && !heldBegin.failed) return this.refuse(route.error);
		if (facts !== null && heldBegin.concerns(facts)) {
			const end = code === Frontend.Query ? next : endOfSolo(chunk, at, this.owner.prepared());
			if (end > 0) {
				const said = heldBegin.answer(facts, this.textOf(code, chunk, at, next), holds);
				if (said !== null) {
					// In a transaction that has failed a batch fails at its first message.
					if (said.error === ABORTED && code !== Frontend.Query) return this.refuse(ABORTED);
					if (said.error !== null) heldBegin.fail();
					return this.say(said, code, chunk, at, end, heldBegin.status);
				}
			}
		}
		if (heldBegin.failed) {
			if (!endsTransaction(facts) || (!requests.runs && code !== Frontend.Parse)) return this.refuse(ABORTED);
			// What stands behind the end, in one string with it, runs.
			if (route?.error != null) return this.refuse(route.error);
			heldBegin.abandon();
		}
		this.side = this.wanted(requests, route, chunk);
		this.since = 0;
		if (requests.writes.at > 0) this.heedWrites(requests.writes, route);
		return Choice.Server;
	}

	/** The client's own writes may forbid the side that the request wants. */
	private heedWrites(writes: OwnWrites, route: Route | null): void {
		const side = writes.side(this.side, this.context.general, this.context.time);
		this.since = writes.since;
		if (side !== this.side) this.decided = writes.told(route, side);
		this.side = side;
	}

	/** The side that a request wants which no server is held for. @param route null: it may do anything */
	private wanted(requests: RequestRouter, route: Route | null, chunk: Buffer): Side {
		const mayWrite = route === null || this.owner.settings.isSerializable;
		if (!mayWrite && (route.side !== Side.Any || requests.end === 0 || !requests.goesOn(chunk))) return route.side;
		return requests.router.writeSide;
	}

	/** As `wanted`, of what stands behind requests under way, or in the middle of a batch, which has its place. */
	private wantedInside(requests: RequestRouter, route: Route | null, chunk: Buffer): Side {
		if (route === null) return Side.Any;
		const goesOn = route.side === Side.Any && this.end > 0 && requests.goesOn(chunk);
		return goesOn ? requests.router.writeSide : route.side;
	}

	/**
	 * A request so large that nobody looks at more than its beginning: whatever it is, the primary can run it. Plugins would have
	 * to see all of it.
	 */
	chooseUnseen(): Choice {
		const { heldBegin } = this;
		this.end = 0;
		this.decided = null;
		this.facts = null;
		if (heldBegin.failed) return this.refuse(ABORTED);
		const choice = this.unseen();
		if (choice === Choice.Server) {
			const { writes } = this.requests!;
			this.side = writes.side(this.side, this.context.general, this.context.time);
			this.since = writes.since;
		}
		return choice;
	}

	/** The same while the client has a server: where that is in a transaction, this is its place. */
	insideUnseen(server: Server): Choice {
		this.end = 0;
		const decided = this.decided;
		const choice = this.unseen();
		if (server.status === TxStatus.Idle) return choice;
		this.decided = decided;
		// The transaction may end in it.
		this.isEnding = true;
		return choice;
	}

	private unseen(): Choice {
		const { router } = this.requests!;
		if (router.asksPlugins) return this.refuse(UNSEEN);
		this.requests!.wrote = true;
		this.decided = router.unseen;
		this.facts = null;
		this.side = router.writeSide;
		return Choice.Server;
	}

	/** A request was answered here. */
	afterAnswer(): void {
		this.decided = null;
		this.adopt();
	}

	/** The transaction that was held back is a server's now. */
	handOver(): void {
		this.heldBegin.handOver();
		this.adopt();
	}

	/** The router of a reload, when it has come while a transaction was held back. */
	private adopt(): void {
		if (this.isLate && !this.heldBegin.open) this.reach(this.router);
	}

	private refuse(error: PgError): Choice {
		this.error = error;
		return Choice.Refused;
	}

	private textOf(code: number, chunk: Buffer, at: number, next: number): string {
		if (code === Frontend.Query) return chunk.utf8Slice(at + HEADER, next - 1);
		return this.requests!.textOf(chunk, at, this.owner.prepared());
	}

	/** The answer to the request `[at, end)`, and what it does to the client's statements. */
	private say(said: OwnAnswer, code: number, chunk: Buffer, at: number, end: number, status: TxStatus): Choice {
		const statements = this.owner.prepared();
		if (code === Frontend.Query) {
			statements.forgetUnnamed();
			this.answer = answerQuery(said, status);
		} else {
			noteBatch(statements, chunk, at, end, this.context.nextSerial(), said.error !== null);
			this.answer = answerBatch(said, chunk, at, end, status);
		}
		this.end = end;
		return Choice.Answered;
	}

	/**
	 * A message `chunk[at, next)` to the server that the client has: a statement goes where its transaction is, but may still be
	 * refused. A batch is looked at from its beginning: it is `chunk[at, next)` then, and `end` is behind it. Outside of a
	 * transaction `side` is what it wants, behind others that are under way.
	 */
	inside(code: number, chunk: Buffer, at: number, next: number, server: Server): Choice {
		const requests = this.requests!;
		const { owed, unsynced, copyIn } = server.books;
		if (owed === 0 && !unsynced) requests.reading.settle(this.owner.settings.reading, this.owner.statements);
		requests.mayWait = owed > 0 && !unsynced && !copyIn && requests.reading.isUnderWay;
		const open = server.status !== TxStatus.Idle;
		requests.begun = TransactionControl.None;
		this.end = 0;
		let route: Route | null;
		switch (code) {
			case Frontend.Query:
				route = requests.query(chunk, at, next, open, this.owner.statements);
				break;
			case Frontend.FunctionCall:
				requests.wrote = true;
				if (requests.router.asksPlugins) return this.refuse(requests.router.refuseUnasked(Unasked.FunctionCall).error!);
				this.side = requests.router.writeSide;
				return Choice.Server;
			case Frontend.Parse:
			case Frontend.Bind:
			case Frontend.Describe:
			case Frontend.Execute:
			case Frontend.Close:
				if (!server.books.unsynced) {
					route = requests.batch(chunk, at, next, this.owner.statements, open);
					this.end = requests.end;
					break;
				}
				// In the middle of a batch it is looked at Bind by Bind: the client's statements know of its Parses.
				if (code === Frontend.Parse) requests.noteParseSent(chunk, at, next);
				if (code !== Frontend.Bind) return Choice.Server;
				route = requests.bind(chunk, at, next, this.owner.statements, open);
				break;
			default:
				this.side = Side.Any;
				return Choice.Server;
		}
		const { facts } = requests;
		if (requests.isTooEarly) {
			this.end = 0;
			return Choice.Later;
		}
		if (route?.error != null) {
			this.decided = route;
			this.facts = facts;
			return this.refuse(route.error);
		}
		this.side = this.wantedInside(requests, route, chunk);
		if (facts === null) return Choice.Server;
		if (open && requests.runs && endsTransaction(facts)) this.isEnding = true;
		const owes = server.books.owed > 0 && !server.books.unsynced;
		if (!open || facts.explains) {
			this.decided = route;
			this.facts = facts;
			// The rows that its answer is given have to be the next.
			if (owes && facts.explains && this.context.general.expanded_explain) return Choice.Later;
		}
		if (facts.reads || facts.writes || facts.transaction !== TransactionControl.None || facts.statements !== 1)
			return Choice.Server;
		return this.settingInside(code, chunk, at, next, server);
	}

	/** Perhaps a setting of ours, while the client has a server: that one need not know. */
	private settingInside(code: number, chunk: Buffer, at: number, next: number, server: Server): Choice {
		if (server.status === TxStatus.Failed || server.books.unsynced) return Choice.Server;
		const end = code === Frontend.Query ? next : endOfSolo(chunk, at, this.owner.prepared());
		if (end < 0) return Choice.Server;
		const sql = this.textOf(code, chunk, at, next);
		if (ownSetting(sql) === null) return Choice.Server;
		if (server.books.owed > 0) return Choice.Later;
		const said = saySetting(sql, this.session.hints, server.status === TxStatus.InBlock, true);
		if (said === null) return Choice.Server;
		if (said.error !== null) return this.refuse(said.error);
		return this.say(said, code, chunk, at, end, server.status);
	}

	/** A transaction, or a statement outside of one, has ended on a server. @param time `now()` */
	onEnd(committed: boolean, time: number): void {
		const { ownHints } = this.session;
		if (ownHints?.isOpen) ownHints.end(committed);
		this.isEnding = false;
		const { requests } = this;
		if (requests === null) return;
		requests.reading.noteEnd();
		if (requests.router.asksPlugins) requests.forgetText();
		if (!requests.wrote) return;
		requests.wrote = false;
		requests.writes.wrote(time);
	}

	/** Somebody else has decided (shards/sharded-client.ts). */
	prefer(side: Side, since: number, route: Route | null, facts: StatementFacts | null): void {
		this.side = side;
		this.since = since;
		this.decided = route;
		this.facts = facts;
	}
}

function endsTransaction(facts: StatementFacts | null): boolean {
	if (facts === null || facts.chains) return false;
	return facts.transaction === TransactionControl.Commit || facts.transaction === TransactionControl.Rollback;
}

/**
 * What the Parse and Close messages of a batch do to the client's statements when no server is sent them.
 * @param failed its Execute does: what stands behind that does not happen
 */
export function noteBatch(
	statements: ClientStatements,
	chunk: Buffer,
	at: number,
	end: number,
	serial: number,
	failed: boolean,
): void {
	for (let next = at; at < end; at = next) {
		next = at + 1 + readInt32(chunk, at + 1);
		if (failed && chunk[at] === Frontend.Execute) break;
		if (chunk[at] === Frontend.Parse || chunk[at] === Frontend.Close) statements.note(chunk, at, next, serial);
	}
}

const NOTHING = Buffer.alloc(0);
const UNSEEN = new PgError(
	"ERROR",
	"54000",
	"the request is too large to be routed",
	"Plugins have to see every statement with its parameters, and this request is larger than 64 MiB.",
);
