// Where the messages of an extended-query batch go when there are several shards: a driver may send statements for one, for
// another, and COMMIT for both in a single batch. Called by planning.ts; sends nothing itself.

import { beginsBatch } from "../client/framing.ts";
import type { RequestRouter } from "../client/request.ts";
import { Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { type Route, ShardChoice } from "../router/route.ts";
import type { ClientStatements } from "../session/statements.ts";
import { Frontend, Target } from "../wire/codes.ts";
import { endOfString, HEADER, readInt32 } from "../wire/frame.ts";
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

	/** The array for these shards, which are in order. */
	of(shards: readonly number[]): readonly number[] {
		if (shards.length === 1) return this.each[shards[0]!]!;
		return shards.length === this.all.length ? this.all : shards;
	}

	/** The transaction is over, and its portals with it. */
	clear(): void {
		this.portals.clear();
		this.portalBytes = 0;
	}

	/** Where that goes what is said of a portal; null: nobody knows of it. */
	private shardsOf(portal: Portal | undefined, transaction: ShardedTransaction): readonly number[] | null {
		return portal === undefined ? null : this.of(transaction.withPortal(portal.targets));
	}

	/** The Bind `chunk[at, next)` makes the portal. @returns false when the transaction has more than it may have */
	private notePortal(chunk: Buffer, at: number, next: number, portal: Portal): boolean {
		const end = endOfString(chunk, at + HEADER, next);
		if (end < 0) return true;
		const name = end === at + HEADER ? "" : chunk.utf8Slice(at + HEADER, end);
		if (!this.portals.has(name)) this.portalBytes += name.length + NAME_COST;
		this.portals.set(name, portal);
		return this.portalBytes <= MOST_PORTAL_BYTES;
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
		// A message before this one has ended the transaction; the segment under way is part of it.
		let ended = false;
		let joins = true;
		let targets: readonly number[] | null = null;
		let start = at;
		let replies = 0;
		let answers: boolean[] = [];
		// Parse, and Describe and Close of statements, can go anywhere: they go where the Bind behind them goes.
		let open = at;
		let openReplies = 0;
		while (at < end) {
			const code = chunk[at]!;
			const next = at + 1 + readInt32(chunk, at + 1);
			let here: readonly number[] | null = null;
			let executes: boolean | null = null;
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
				const { facts } = requests;
				if (route === null) here = targets ?? this.of(transaction.anywhere(this.all));
				else here = this.of(transaction.targets(this.targets(route), facts, sent));
				if (targets !== null && here !== targets && isSame(here, targets)) here = targets;
				if (route !== null && isEnd(facts) && !facts!.chains) ends = true;
				const firstAnswers = route !== null && facts?.placement.firstAnswers?.[0] === true;
				if (!this.notePortal(chunk, at, next, { targets: here, firstAnswers }))
					return { segments: [], error: TOO_MANY_PORTALS, side, route, copyEnds, ends, learns };
			} else if (code === Frontend.Execute || (beginsBatch(code) && chunk[at + HEADER] !== Target.Statement)) {
				const name = at + HEADER + (code === Frontend.Execute ? 0 : 1);
				const nameEnd = endOfString(chunk, name, next);
				const portal = nameEnd < 0 ? "" : chunk.utf8Slice(name, nameEnd);
				const known = this.portals.get(portal);
				here = this.shardsOf(known, transaction) ?? targets ?? this.of(transaction.anywhere(this.all));
				if (code === Frontend.Execute) executes = known?.firstAnswers ?? false;
				if (code === Frontend.Close && this.portals.delete(portal)) this.portalBytes -= portal.length + NAME_COST;
			}
			learns ||= code === Frontend.Parse || code === Frontend.Close;
			if (beginsBatch(code)) openReplies++;
			if (here !== null) {
				if (targets !== null && targets !== here) {
					segments.push({ at: start, end: open, targets, replies, firstAnswers: some(answers), joins });
					start = open;
					replies = 0;
					answers = [];
					joins = !ended;
				}
				if (targets !== here) addAll(sent, here);
				targets = here;
				ended = ends;
				replies += openReplies;
				if (executes !== null) answers.push(executes);
				openReplies = 0;
				open = next;
			}
			at = next;
		}
		if (targets === null) {
			const route = requests.batchUnbound(transaction.isRunning);
			if (route.error !== null) return { segments: [], error: route.error, side, route, copyEnds, ends, learns };
			({ side } = route);
			targets = this.of(transaction.anywhere(this.targets(route)));
		} else side = narrower(side, requests.unboundWrite(transaction.isRunning)?.side ?? side);
		segments.push({ at: start, end, targets, replies: replies + openReplies, firstAnswers: some(answers), joins });
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
}

function some(answers: readonly boolean[]): readonly boolean[] | null {
	return answers.includes(true) ? answers : null;
}

/** Shards that are sent no more than what is said of a portal are among them: they join the transaction, and have to be sent its end. */
function addAll(sent: number[], shards: readonly number[]): void {
	for (const shard of shards) if (!sent.includes(shard)) sent.push(shard);
}

function isSame(a: readonly number[], b: readonly number[]): boolean {
	return a.length === b.length && a.every((shard) => b.includes(shard));
}

/** Which servers may run both of what belongs on `a` and what belongs on `b`. */
function narrower(a: Side, b: Side): Side {
	if (a === Side.Primary || b === Side.Primary) return Side.Primary;
	return a === Side.Replica ? a : b;
}
