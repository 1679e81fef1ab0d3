// Where the messages of an extended-query batch go when there are several shards: a driver may send statements for one, for
// another, and COMMIT for both in a single batch. Called by planning.ts; sends nothing itself.

import { beginsBatch } from "../client/framing.ts";
import type { RequestRouter } from "../client/request.ts";
import { Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import type { StatementFacts } from "../parser/facts.ts";
import { type Route, ShardChoice } from "../router/route.ts";
import type { ClientStatements } from "../session/statements.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { endOfString, HEADER, readInt32 } from "../wire/frame.ts";
import { describe } from "../wire/frontend-messages.ts";
import { joiningOfBind } from "./joining.ts";
import type { Joining } from "./rows.ts";
import type { Edit } from "./steps.ts";
import { isEnd, type ShardedTransaction } from "./transaction.ts";

/** Messages `[at, end)` of a chunk that the same shards are sent. */
interface Segment {
	readonly at: number;
	readonly end: number;
	/** The same array for the same shards. */
	readonly targets: readonly number[];
	/** How many of its messages are replied to. */
	readonly replies: number;
	/** For each Execute, whether the first shard's answer is the answer; null: for none. */
	readonly firstAnswers: readonly boolean[] | null;
	/** The segment is part of the transaction that the batch began in: nothing before it has ended that. */
	readonly joins: boolean;
	/** What is asked of the rows of those that are run; null: nothing. */
	readonly asks: Asks | null;
}

/** What is asked of the rows of a segment's statements, and what has to be said besides. */
interface Asks {
	readonly each: readonly (Joining | null)[];
	readonly hidden: readonly number[];
	readonly edits: readonly Edit[];
}

export interface Batch {
	/** The messages without the Sync or Flush at the end: at least one segment, which may be empty. */
	readonly segments: readonly Segment[];
	/** Why nothing of the batch may be sent; null when it may. */
	readonly error: PgError | null;
	/** Which servers of the shards may run all of the batch. */
	readonly side: Side;
	/** Where the last Bind was routed to; null when there is none, or it names a statement that nobody knows. */
	readonly route: Route | null;
	/** CopyDone and CopyFail messages in it: so many COPYs end without more data. */
	readonly copyEnds: number;
	/** A COMMIT or ROLLBACK without AND CHAIN is in it. */
	readonly ends: boolean;
	/** It may change the client's statements. */
	readonly learns: boolean;
}

/** The batches of one client, and where the portals of its transaction are. */
export class Batches {
	readonly all: readonly number[];
	private readonly each: readonly (readonly number[])[];
	private readonly portals = new Map<string, Portal>();
	/** Where the batch under way begins. */
	private from = 0;
	/** Bytes that the names of the portals take. */
	private portalBytes = 0;

	/** @param count of shards */
	constructor(count: number) {
		this.all = Array.from({ length: count }, (_, shard) => shard);
		this.each = this.all.map((shard) => [shard]);
	}

	targets(route: Route): readonly number[] {
		return route.shard === ShardChoice.All ? this.all : this.each[route.shard]!;
	}

	/** The transaction is over, and its portals with it. */
	clear(): void {
		this.portals.clear();
		this.portalBytes = 0;
	}

	/**
	 * The Bind at `at` makes a portal there.
	 * @param facts of its statement, if that is known
	 * @returns why it cannot be run, or that the transaction has more portals than it may have
	 */
	private noteBind(
		requests: RequestRouter,
		statements: ClientStatements,
		chunk: Buffer,
		at: number,
		targets: readonly number[],
		facts: StatementFacts | null,
	): PgError | null {
		const end = endOfString(chunk, at + HEADER, chunk.length);
		if (end < 0) return null;
		const asks = targets.length > 1 && facts?.placement.merges && requests.router.merges;
		const joining = asks ? joiningOfBind(requests, statements, chunk, this.from, at) : null;
		if (joining instanceof PgError) return joining;
		const name = end === at + HEADER ? "" : chunk.utf8Slice(at + HEADER, end);
		if (!this.portals.has(name)) this.portalBytes += name.length + NAME_COST;
		this.portals.set(name, { targets, firstAnswers: facts?.placement.firstAnswers?.[0] === true, joining });
		return this.portalBytes <= MOST_PORTAL_BYTES ? null : TOO_MANY_PORTALS;
	}

	/**
	 * The messages `[at, end)`, whole ones all.
	 * @param involved shards that were sent what came before in the same batch
	 */
	split(
		requests: RequestRouter,
		statements: ClientStatements,
		chunk: Buffer,
		at: number,
		end: number,
		transaction: ShardedTransaction,
		involved: readonly number[],
	): Batch {
		const segments: Segment[] = [];
		const sent = [...involved];
		let side = Side.Any;
		let last: Route | null = null;
		requests.clearBatch();
		let copyEnds = 0;
		let ends = false;
		let learns = statements.mayDeallocate;
		this.from = at;
		// A message before this one has ended the transaction; the segment under way is part of it.
		let ended = false;
		let joins = true;
		let targets: readonly number[] | null = null;
		let start = at;
		let replies = 0;
		let ran: Portal[] = [];
		// Parse, and Describe and Close of statements, can go anywhere: they go where the Bind behind them goes.
		let open = at;
		let openReplies = 0;
		while (at < end) {
			const code = chunk[at]!;
			const next = at + 1 + readInt32(chunk, at + 1);
			let here: readonly number[] | null = null;
			let executes: Portal | null = null;
			if (code === Frontend.Describe) requests.noteDescribe(chunk, at, next, statements);
			if (code === Frontend.CopyDone || code === Frontend.CopyFail) copyEnds++;
			else if (code === Frontend.Parse) requests.noteParse(chunk, at, next);
			else if (code === Frontend.Bind) {
				if (targets !== null) requests.home = transaction.home(requests.home, targets);
				const route = requests.bind(chunk, at, next, statements, transaction.isRunning);
				if (route?.error != null) return { segments: [], error: route.error, side, route, copyEnds, ends, learns };
				// What nobody knows may be a write, for a transaction that is begun for one.
				side = narrower(side, route === null ? requests.router.writeSide : route.side);
				last = route;
				const facts = route === null ? null : requests.facts;
				if (route === null) here = targets ?? transaction.anywhere(this.all);
				else here = transaction.targets(this.targets(route), facts, sent);
				if (isEnd(facts) && !facts!.chains) ends = true;
				const error = this.noteBind(requests, statements, chunk, at, here, facts);
				if (error !== null) return { segments: [], error, side, route, copyEnds, ends, learns };
			} else if (code === Frontend.Execute || (beginsBatch(code) && chunk[at + HEADER] !== Target.Statement)) {
				const portal = portalOf(code, chunk, at, next);
				const known = this.portals.get(portal);
				if (known === undefined) here = targets ?? transaction.anywhere(this.all);
				else here = transaction.withPortal(known.targets);
				if (code === Frontend.Execute) executes = known ?? UNKNOWN;
				if (code === Frontend.Close && this.portals.delete(portal)) this.portalBytes -= portal.length + NAME_COST;
			}
			learns ||= code === Frontend.Parse || code === Frontend.Close;
			if (beginsBatch(code)) openReplies++;
			if (here !== null) {
				if (targets !== null && isSame(here, targets)) here = targets;
				if (targets !== null && (targets !== here || isBehindMerging(ran, code))) {
					segments.push(segmentOf({ chunk, at: start, end: open, targets, replies, joins }, ran));
					start = open;
					replies = 0;
					ran = [];
					joins = !ended;
				}
				if (targets !== here) addAll(sent, here);
				targets = here;
				ended = ends;
				if (executes !== null) ran.push(executes);
				replies += openReplies;
				openReplies = 0;
				open = next;
			}
			at = next;
		}
		if (targets === null) {
			const route = requests.batchUnbound(transaction.isRunning);
			if (route.error !== null) return { segments: [], error: route.error, side, route, copyEnds, ends, learns };
			({ side } = route);
			targets = transaction.anywhere(this.targets(route));
		} else if (requests.unboundWrite(transaction.isRunning) !== null) side = Side.Primary;
		replies += openReplies;
		segments.push(segmentOf({ chunk, at: start, end, targets, replies, joins }, ran));
		// Texts are not kept for a client that sends no more.
		requests.clearBatch();
		return { segments, error: null, side, route: last, copyEnds, ends, learns };
	}
}

/** Most bytes that the names of a transaction's portals may take; a guess, generous. */
const MOST_PORTAL_BYTES = 1 << 20;
const NAME_COST = 64;
const TOO_MANY_PORTALS = new PgError("ERROR", "53200", "the transaction has too many portals");

/** Where a portal is. */
interface Portal {
	readonly targets: readonly number[];
	/** Each shard's rows would be the same: the first shard's are the answer. */
	readonly firstAnswers: boolean;
	/** What is asked of the rows of all shards; null: nothing, as of most. */
	readonly joining: Joining | null;
}

/** What this client has not bound here. */
const UNKNOWN: Portal = { targets: [], firstAnswers: false, joining: null };

/** Whether rows can be merged only their shards' answers tell: nothing that is run may be ahead of that. */
function isBehindMerging(ran: readonly Portal[], code: number): boolean {
	const waits = ran.length > 0 && ran[ran.length - 1]!.joining !== null;
	return waits && (code === Frontend.Bind || code === Frontend.Execute);
}

/** A segment of `chunk` that runs these portals. */
function segmentOf(
	{ chunk, ...part }: Omit<Segment, "firstAnswers" | "asks"> & { readonly chunk: Buffer },
	ran: readonly Portal[],
): Segment {
	let isFirst = false;
	let isAsked = false;
	for (const { firstAnswers, joining } of ran) {
		isFirst ||= firstAnswers;
		isAsked ||= joining !== null;
	}
	const firstAnswers = isFirst ? ran.map((portal) => portal.firstAnswers) : null;
	if (!isAsked) return { ...part, firstAnswers, asks: null };
	const asks = asksOf(chunk, part.at, part.end, ran);
	return { ...part, replies: part.replies + asks.hidden.length, firstAnswers, asks };
}

/** What is run is described first where that is needed, whether its client wants to know or not. */
function asksOf(chunk: Buffer, at: number, end: number, ran: readonly Portal[]): Asks {
	const hidden: number[] = [];
	const edits: Edit[] = [];
	let replies = 0;
	let executed = 0;
	const each = ran.map(({ joining }) => joining);
	for (let next = at; at < end; at = next) {
		next = at + 1 + readInt32(chunk, at + 1);
		const joining = chunk[at] === Frontend.Execute ? ran[executed++]!.joining : null;
		if (joining !== null) {
			edits.push({ at, end: at, bytes: describe(Target.Portal, portalOf(Frontend.Execute, chunk, at, next)) });
			if (readInt32(chunk, next - 4) > 0) each[executed - 1] = { ...joining, isLimited: true };
			hidden.push(replies++);
		}
		if (beginsBatch(chunk[at]!)) replies++;
	}
	return { each, hidden, edits };
}

/** The name of the portal that an Execute, or a Describe or Close of one, is about. */
function portalOf(code: number, chunk: Buffer, at: number, next: number): string {
	const start = at + HEADER + (code === Frontend.Execute ? 0 : 1);
	if (chunk[start] === 0) return "";
	const end = endOfString(chunk, start, next);
	return end < 0 ? "" : chunk.utf8Slice(start, end);
}

/** Shards that are sent no more than what is said of a portal are among them: they join the transaction, and have to be sent its end. */
function addAll(sent: number[], shards: readonly number[]): void {
	for (const shard of shards) if (!sent.includes(shard)) sent.push(shard);
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
	return a === b || (a.length === b.length && a.every((shard) => b.includes(shard)));
}

/** Which servers may run both of what belongs on `a` and what belongs on `b`. */
function narrower(a: Side, b: Side): Side {
	if (a === Side.Primary || b === Side.Primary) return Side.Primary;
	return a === Side.Replica ? a : b;
}
