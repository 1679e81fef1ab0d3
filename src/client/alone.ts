// A client without a server: the message that it sends begins a request, for which a server is chosen and taken, or it is answered
// here. After a refusal what belongs to the refused request is thrown away. walk.ts asks it about each message while its client has no
// server.

import { PgError } from "../errors.ts";
import type { Sink } from "../net/stream.ts";
import { sessionFacts } from "../parser/session.ts";
import { CLOSE_COMPLETE, READY_IDLE, readyForQuery } from "../wire/backend-messages.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { HEADER, readInt32 } from "../wire/frame.ts";
import { Ahead, beginsBatch, COLLECT, endsInSync, MALFORMED, passable, ROUTED } from "./framing.ts";
import { type Incoming, UNREAD } from "./incoming.ts";
import { type Link, type LinkOwner, TRANSACTION_TEXT } from "./link.ts";
import { Choice } from "./routing.ts";
import { Wait } from "./wait.ts";

/** How many Close messages are answered at once: their answers are as long as what may be queued. */
const MOST_CLOSES = UNREAD / CLOSE_COMPLETE.length;

/** What is dropped after a request was refused, up to where PostgreSQL would go on. */
const enum Skip {
	Nothing,
	/** The Query that comes next; answered with ReadyForQuery. */
	Query,
	/** Everything before the next Sync. */
	ToSync,
}

/** What becomes of a message that comes while no server is held. Any number that is not negative: it is dealt with, up to there. */
export const enum Onward {
	/** A server is here: the message can go. */
	Go = -1,
	/** Not enough of the request is here yet. */
	More = -2,
	/** The rest is held until a server comes. */
	Hold = -3,
}

export class Alone {
	private readonly client: LinkOwner;
	private readonly stream: Sink;
	private readonly incoming: Incoming;
	private readonly link: Link;
	private skip = Skip.Nothing;

	constructor(client: LinkOwner, link: Link) {
		this.client = client;
		this.stream = client.stream;
		this.incoming = client.incoming;
		this.link = link;
	}

	/** @returns an Onward, or where the message ends that is dealt with, which may not be here yet */
	request(code: number, length: number, chunk: Buffer, at: number, next: number): number {
		const { link, incoming } = this;
		if (this.stream.queued > UNREAD && code !== Frontend.Terminate) {
			// Whoever does not read answers gets no more of them.
			incoming.hold(chunk, at, Wait.Drain);
			return Onward.Hold;
		}
		if (this.skip !== Skip.Nothing) return this.skipped(code, next);
		if (link.overdue !== null && (code === Frontend.Query || code === Frontend.FunctionCall || beginsBatch(code)))
			return this.refuseNow(link.takeOverdue()!, code, next);
		const end = chunk.length;
		const { routing, checkout } = link;
		/** Where it ends that is to be routed. */
		let until = next;
		let unseen = length > ROUTED;
		switch (code) {
			case Frontend.Query:
			case Frontend.FunctionCall:
				if (next > end && !passable(code, length, end - at, routing.needed)) return Onward.More;
				break;
			case Frontend.Parse:
			case Frontend.Bind:
			case Frontend.Describe:
			case Frontend.Execute:
			case Frontend.Close: {
				const onward = this.lookAhead(code, chunk, at);
				if (onward !== Onward.Go) return onward;
				until = incoming.ahead.last;
				unseen ||= incoming.ahead.found === Ahead.TooLarge;
				break;
			}
			case Frontend.Sync:
			case Frontend.Flush:
				if (next > end) return Onward.More;
				if (length !== 4) return this.refuseNow(MALFORMED, code, next);
				// Flush has nothing to flush.
				if (code === Frontend.Sync) this.writeReady();
				return next;
			case Frontend.Terminate:
				this.client.close("client disconnected");
				return next;
			default:
				// Data of a COPY that has failed is ignored, as PostgreSQL does.
				return next;
		}
		if (checkout.pool.spec.pooler_mode === "statement" && isTransaction(code, chunk, at, next))
			return this.refuseNow(NO_TRANSACTIONS, code, next);
		if (routing.needed || checkout.isRouted) {
			let onward: number = Onward.Go;
			if (routing.needed) onward = this.choose(code, chunk, at, next, until, unseen);
			else if (!checkout.choose()) onward = this.elect(code, chunk, at, next);
			if (onward !== Onward.Go) return onward;
		}
		if (checkout.take() !== null) return Onward.Go;
		incoming.hold(chunk, at, Wait.Server);
		return Onward.Hold;
	}

	/** Whether enough of a batch is here for a server to be taken for it. */
	private lookAhead(code: number, chunk: Buffer, at: number): number {
		const { needed } = this.link.routing;
		// Where nothing is routed it does no harm to take a server for a batch whose end is not here yet.
		if (!needed && code !== Frontend.Close && endsInSync(chunk)) return Onward.Go;
		const { ahead } = this.incoming;
		const found = ahead.look(chunk, at);
		if (found === Ahead.OnlyCloses) return this.closeAlone(chunk, at);
		const here = chunk.length - at;
		const whole = found === Ahead.Complete || (found === Ahead.TooLarge && here > COLLECT);
		return whole || ahead.hurried || !(needed || here <= COLLECT) ? Onward.Go : Onward.More;
	}

	/**
	 * Routes the request `chunk[at, until)`, whose first message ends at `next`, and sets `pool`, or answers it here.
	 * @param unseen it is too large to be looked at
	 */
	private choose(code: number, chunk: Buffer, at: number, next: number, until: number, unseen: boolean): number {
		const { incoming, link } = this;
		const { routing } = link;
		const { pooler_mode } = link.checkout.pool.spec;
		const holds = pooler_mode === "transaction";
		const choice = unseen ? routing.chooseUnseen() : routing.choose(code, chunk, at, until, holds);
		// Of what is unseen the message here has its place; each Bind behind it is looked at when it comes.
		incoming.routedTo(unseen && choice === Choice.Server ? Math.min(next, chunk.length) : routing.end);
		if (choice === Choice.Answered) {
			this.answered();
			return routing.end;
		}
		if (choice === Choice.Refused) {
			if (routing.decided !== null) routing.tell(routing.decided, null, 0);
			return this.refuseNow(routing.error, code, next);
		}
		// The server stays for good, or for what is still to come of the batch: what begins with a read may write later.
		if (pooler_mode === "session" || incoming.ahead.hurried) routing.stay();
		return link.checkout.choose() ? Onward.Go : this.elect(code, chunk, at, next);
	}

	/** No pool may serve the request now: it waits for an election, where there is one. */
	private elect(code: number, chunk: Buffer, at: number, next: number): number {
		const { checkout } = this.link;
		if (!checkout.waitForElection()) return this.refuseNow(checkout.refusal, code, next);
		this.incoming.hold(chunk, at, Wait.Server);
		return Onward.Hold;
	}

	/** The request needed no server, or not the one that the client has. */
	answered(): void {
		const { link, stream } = this;
		const { routing } = link;
		stream.writeAll(routing.answer);
		routing.afterAnswer();
		const ends = !routing.heldBegin.open && link.server === null;
		link.countAnswer(ends);
		if (ends && link.isLeaving) this.client.shutDown(true);
	}

	/** Close messages before a Sync, with one write: as many as may be answered at once. */
	private closeAlone(chunk: Buffer, at: number): number {
		let count = 0;
		for (; count < MOST_CLOSES && chunk[at] === Frontend.Close; count++) {
			const next = at + 1 + readInt32(chunk, at + 1);
			if (chunk[at + HEADER] === Target.Statement) this.link.saying.prepared().closeAlone(chunk, at, next);
			at = next;
		}
		this.stream.writeAll(count === 1 ? CLOSE_COMPLETE : Buffer.alloc(count * CLOSE_COMPLETE.length, CLOSE_COMPLETE));
		return at;
	}

	// ---- refusals --------------------------------------------------------------------------------------------------

	/** Says no to the request that begins with a message `code`; the client stays. */
	refuse(error: PgError, code: number): void {
		this.client.countError();
		this.link.routing.heldBegin.fail();
		this.stream.writeAll(errorResponse(error, "stays"));
		this.skip = code === Frontend.Query || code === Frontend.FunctionCall ? Skip.Query : Skip.ToSync;
	}

	private refuseNow(error: PgError, code: number, next: number): number {
		this.refuse(error, code);
		return this.skipped(code, next);
	}

	/** What comes next is thrown away. */
	get isSkipping(): boolean {
		return this.skip !== Skip.Nothing;
	}

	/** A batch has failed on a server that the client does not have any more. */
	skipToSync(): void {
		this.skip = Skip.ToSync;
	}

	/** After a refusal: the request it was about is thrown away. */
	private skipped(code: number, next: number): number {
		if (code === Frontend.Terminate) this.client.close("client disconnected");
		else if (this.skip === Skip.Query || code === Frontend.Sync) {
			this.skip = Skip.Nothing;
			this.writeReady();
		}
		return next;
	}

	/** ReadyForQuery while no server is held. */
	private writeReady(): void {
		const { link, stream } = this;
		const { status } = link.routing.heldBegin;
		stream.writeAll(status === TxStatus.Idle ? READY_IDLE : readyForQuery(status));
		if (status === TxStatus.Idle && link.isLeaving) this.client.shutDown(true);
	}
}

/** `pooler_mode = statement`: a transaction block would keep the server. */
function isTransaction(code: number, chunk: Buffer, at: number, next: number): boolean {
	if (next > chunk.length) return false;
	let start = at + HEADER;
	if (code === Frontend.Parse) start = chunk.indexOf(0, start) + 1;
	else if (code !== Frontend.Query) return false;
	const stop = chunk.indexOf(0, start);
	return stop >= 0 && sessionFacts(chunk.utf8Slice(start, stop)).transaction;
}

const NO_TRANSACTIONS = new PgError("ERROR", "58000", TRANSACTION_TEXT);
