// The hot path there: reads what a client sends, message after message, and lets through to its server what may go on: as one write for
// all of a chunk, where nothing has to be opened. What has to wait is held (incoming.ts), a message without a server is
// Alone's matter, and what a message does is noted by Saying. One for each Client.

import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import { PgError, ProtocolError } from "../errors.ts";
import type { Sink } from "../net/stream.ts";
import { Said } from "../session/said.ts";
import { Stat } from "../stats/counters.ts";
import { Frontend, TxStatus } from "../wire/codes.ts";
import { HEADER, readInt32 } from "../wire/frame.ts";
import { FLUSH } from "../wire/frontend-messages.ts";
import { Alone, Onward } from "./alone.ts";
import { Ahead, beginsBatch, faultOf, LONGEST, needed, outOfCopy, passable, ROUTED } from "./framing.ts";
import { type Incoming, UNREAD } from "./incoming.ts";
import type { Link, LinkOwner } from "./link.ts";
import { Choice } from "./routing.ts";
import { NO_ROOM } from "./share.ts";
import { Wait } from "./wait.ts";

/** Messages whose answers may be outstanding, each a few bytes of ours; a guess, generous. */
const MOST_OWED = 64 << 10;

export class Walk {
	private readonly client: LinkOwner;
	private readonly stream: Sink;
	private readonly incoming: Incoming;
	private readonly link: Link;
	private readonly alone: Alone;
	/** Bytes of a message that is passed on in pieces, and of one that is thrown away. */
	private through = 0;
	private dropping = 0;

	constructor(client: LinkOwner, link: Link) {
		this.client = client;
		this.stream = client.stream;
		this.incoming = client.incoming;
		this.link = link;
		this.alone = new Alone(client, link);
	}

	/** The client's next byte begins a request. */
	get isQuiet(): boolean {
		return this.through + this.dropping === 0 && !this.alone.isSkipping;
	}

	/** Message after message, as long as the client may go on. */
	read(chunk: Buffer): void {
		const end = chunk.length;
		const { incoming, link } = this;
		const { routing } = link;
		let at = this.through + this.dropping === 0 ? 0 : this.passThrough(chunk);
		if (incoming.wait !== Wait.Nothing) {
			if (incoming.wait !== Wait.Closed) incoming.hold(chunk, at, incoming.wait);
			return;
		}
		let run = at;
		let flush = false;
		try {
			while (end - at >= HEADER) {
				const code = chunk[at]!;
				const length = readInt32(chunk, at + 1);
				if (length < 4 || length > LONGEST[code]!) throw faultOf(code, length);
				const next = at + 1 + length;
				const stop = Math.min(next, end);
				if (link.server === null) {
					const onward = this.alone.request(code, length, chunk, at, next);
					if (onward === Onward.Hold || (incoming.wait as Wait) === Wait.Closed) return;
					if (onward === Onward.More) break;
					if (onward !== Onward.Go) {
						at = this.drop(chunk, Math.max(onward, incoming.routed));
						run = at;
						continue;
					}
					run = at;
				}
				const server = link.server!;
				const { books } = server;
				if (server.cancels.count > 0 && books.owed === 0) {
					// A cancel is under way to a query that is over: the next query must not get it.
					incoming.hold(chunk, at, Wait.Cancel);
					server.cancels.whenLanded(() => this.resume());
					return;
				}
				if (books.skipping && code !== Frontend.Sync && code !== Frontend.Terminate) {
					// A batch has failed: PostgreSQL ignores all of it that still comes, and so must our books.
					this.send(server, chunk, run, at);
					at = this.drop(chunk, next);
					run = at;
					continue;
				}
				if (
					(books.deallocates && !books.unsynced && beginsBatch(code)) ||
					(server.session.restoring !== null && isBehind(server, code))
				) {
					// It may name a statement that is about to go, or give its name anew; or it would see settings that are going
					// to be brought back.
					this.untilAnswered(server, chunk, run, at);
					return;
				}
				if (books.owed >= MOST_OWED && !books.copyIn) {
					// What is answered by the proxy puts no pressure back on who asks: a client could ask for ever behind a slow query.
					if (books.unsynced) this.flush(server, chunk, run, at);
					else this.send(server, chunk, run, at);
					run = at;
					this.answerFakes(server);
					if (books.owed > 0) {
						this.untilAnswered(server, chunk, run, at, Wait.AnswersInBatch);
						return;
					}
				}
				if (books.ends > 0 && !books.copyIn && this.isUncertain(server, chunk, at, stop)) {
					// A batch before it may yet fail, and then it means something else.
					this.untilAnswered(server, chunk, run, at, Wait.Ends);
					return;
				}
				if (next > end && !passable(code, length, end - at, routing.needed)) break;
				if (length !== 4 && (code === Frontend.Sync || code === Frontend.Flush) && !books.copyIn) {
					this.send(server, chunk, run, at);
					link.refuseMalformed(server, code);
					at = stop;
					run = stop;
					continue;
				}
				// A Sync goes where the batch is that it ends.
				if (routing.needed && at >= incoming.routed && !(code === Frontend.Sync && books.unsynced)) {
					let unseen = length > ROUTED && code !== Frontend.CopyData;
					let until = next;
					// Nobody can look at half a batch: it waits for its end here as it does without a server, unless that is too far.
					if (beginsBatch(code) && !books.unsynced) {
						const ahead = incoming.ahead.look(chunk, at);
						if (ahead === Ahead.Open && !incoming.ahead.hurried) break;
						unseen = ahead === Ahead.TooLarge;
						until = incoming.ahead.last;
					}
					if (link.checkout.isBehindEnd(server)) {
						this.untilAnswered(server, chunk, run, at);
						return;
					}
					const choice = unseen ? routing.insideUnseen(server) : routing.inside(code, chunk, at, until, server);
					if (routing.end > 0) incoming.routedTo(routing.end);
					if (incoming.ahead.hurried) routing.stay();
					if (choice === Choice.Refused) {
						link.refuseInside(server, routing.error, code, chunk, run, at);
						at = this.drop(chunk, next);
						run = at;
						continue;
					}
					if (choice === Choice.Later || (choice === Choice.Server && link.checkout.isMisplaced(server))) {
						this.untilAnswered(server, chunk, run, at);
						return;
					}
					if (choice === Choice.Answered) {
						this.send(server, chunk, run, at);
						this.alone.answered();
						at = routing.end;
						run = at;
						continue;
					}
				}
				if (
					books.unsynced &&
					!books.hasRun &&
					(code === Frontend.Bind || code === Frontend.Query) &&
					link.checkout.isOnReplica(server)
				) {
					this.moveOn(server, chunk, run, at);
					return;
				}
				if (routing.decided !== null) link.onDecided(routing.decided, server);
				if (books.owed === 0 && (server.status !== TxStatus.Idle || server.session.stays)) {
					server.beginRequest(now());
					link.checkout.pool.counters[Stat.idle_xact_time]! += server.requestAt - server.readyAt;
				}
				let said = Said.AsIs;
				if (server.session.restoring?.mayHaveRun && mayBringBack(server, code)) {
					link.saying.prepared().bringBack(server, link.settings.startup, chunk, run, at);
					run = at;
				}
				if (code === Frontend.Terminate) {
					this.send(server, chunk, run, at);
					this.client.close("client disconnected");
					return;
				}
				if (code === Frontend.Flush) flush = true;
				else said = link.saying.say(server, code, chunk, run, at, next, stop);
				if ((incoming.wait as Wait) === Wait.Closed) return;
				if (said !== Said.AsIs) {
					if (said >= Said.Later) {
						this.untilSayable(said, server, chunk, at);
						return;
					}
					run = stop;
					if (said >= Said.Refused) {
						link.refuseInside(server, link.saying.refusalOf(said), code, chunk, at, at);
						at = this.drop(chunk, next);
						continue;
					}
				}
				if (next > end) {
					this.through = next - end;
					server.stream.midMessage = true;
				}
				at = stop;
			}
		} catch (error) {
			this.part(chunk, run, at, fatal(error), !(error instanceof ProtocolError) || error.flushes);
			return;
		}
		const { server } = link;
		if (server !== null) {
			if (!server.stream.out.forward(chunk, run, at)) this.stream.pause();
			if (flush) this.answerFakes(server);
		}
		if ((incoming.wait as Wait) === Wait.Closed) return;
		// What is here of a request is kept until there is more of it.
		const need = at === end ? HEADER : needed(chunk, at, routing.needed);
		if (!incoming.keep(chunk, at, need)) this.client.close("large messages", NO_ROOM);
	}

	// ---- held, and read again --------------------------------------------------------------------------------------

	/** Reads what was held while the client waited. */
	resume(): void {
		const { incoming } = this;
		if (incoming.isClosed) return;
		const { parting } = incoming;
		if (parting !== null) {
			this.client.close(`protocol error: ${parting.message}`, parting);
			return;
		}
		incoming.goOn();
		const held = incoming.take();
		if (held !== null) this.read(held);
	}

	/** Refuses the request that is held, and goes on with what comes after it. */
	refuseHeld(error: PgError): void {
		this.alone.refuse(error, this.incoming.first ?? Frontend.Sync);
		this.resume();
	}

	/** The client has sent nothing for a while. What only its next message would set going is not waited for any longer. */
	onQuiet(): void {
		const { incoming } = this;
		const { server } = this.link;
		if (incoming.isBatchOpen && !server?.books.unsynced) {
			// PostgreSQL has read it, and tells of an error at once.
			incoming.ahead.hurry(true);
			this.read(incoming.take()!);
			incoming.ahead.hurry(false);
		} else if (server !== null && this.through === 0 && this.link.isIdleInBatch(server)) this.leaveBatch(server);
	}

	/** The message at `at` waits for the answers to those before it. */
	private untilAnswered(server: Server, chunk: Buffer, run: number, at: number, wait = Wait.Answers): void {
		// They do not come while the server waits for data. Another server's is what this is, or nobody can tell yet whose.
		if (server.books.copyIn) throw outOfCopy(chunk[at]!);
		this.send(server, chunk, run, at);
		// In the middle of a batch that was routed it is not routed anew.
		if (wait === Wait.Answers || !server.books.unsynced) this.incoming.routedTo(0);
		this.incoming.hold(chunk, at, wait);
	}

	/** The message at `at`, before which all was sent, waits for answers, or until what listens for the client does. */
	private untilSayable(said: Said, server: Server, chunk: Buffer, at: number): void {
		if (said === Said.Awaits) this.untilHeard(server, chunk, at);
		else this.untilAnswered(server, chunk, at, at, Wait.AnswersInBatch);
	}

	/** The same, of what listens: it is waited for while the server owes nothing. */
	private untilHeard(server: Server, chunk: Buffer, at: number): void {
		const { books } = server;
		const { incoming } = this;
		if (books.unsynced) this.flush(server, chunk, at, at);
		else this.send(server, chunk, at, at);
		this.answerFakes(server);
		if (books.owed > 0) {
			this.untilAnswered(server, chunk, at, at, Wait.AnswersInBatch);
			return;
		}
		if (!books.unsynced) incoming.routedTo(0);
		incoming.hold(chunk, at, Wait.Task);
		this.link.saying.hearing!.wait(() => {
			if (incoming.wait === Wait.Task) this.client.resume();
		});
	}

	/** The message at `at`, and what comes behind it, is another server's, when this one has answered what it was asked. */
	private moveOn(server: Server, chunk: Buffer, run: number, at: number): void {
		this.send(server, chunk, run, at);
		this.incoming.routedTo(0);
		this.incoming.hold(chunk, at, Wait.Answers);
		if (server.books.owed === 0) {
			this.leaveBatch(server);
			return;
		}
		server.stream.writeAll(FLUSH);
		server.relay.answerFakes();
		this.link.onAnswers(server);
	}

	/** The client's batch is over for its server; what comes of it is another's, or skipped as there when it has failed. */
	private leaveBatch(server: Server): void {
		if (server.books.skipping) this.alone.skipToSync();
		this.link.leaveBatch(server);
	}

	/**
	 * The message at `at` ends the connection. What came before it counts: it is sent, and answered first, as PostgreSQL does, which
	 * reads one message after the other.
	 * @param flushes so is a batch that is not ended
	 */
	private part(chunk: Buffer, run: number, at: number, error: PgError, flushes: boolean): void {
		const { server } = this.link;
		if (this.incoming.isClosed) return;
		if (server !== null) {
			this.send(server, chunk, run, at);
			const { books } = server;
			if (flushes && books.unsynced && !books.skipping && !books.copyIn) server.stream.writeAll(FLUSH);
			if (flushes) server.relay.answerFakes();
			if ((flushes ? books.owed : books.ends) > 0 && !books.copyIn) {
				this.incoming.part(error, flushes ? Wait.Answers : Wait.Ends);
				return;
			}
		}
		this.client.close(`protocol error: ${error.message}`, error);
	}

	/** What the message at `at` means depends on a batch that is not answered. */
	private isUncertain(server: Server, chunk: Buffer, at: number, stop: number): boolean {
		return this.link.saying.statements?.isUncertain(server, chunk, at, stop) ?? false;
	}

	// ---- bytes that go, and bytes that do not ----------------------------------------------------------------------

	/** Writes `chunk[run, at)` behind what was put in; a server that takes no more stops the client. */
	private send(server: Server, chunk: Buffer, run: number, at: number): void {
		if (!server.stream.out.forward(chunk, run, at)) this.stream.pause();
	}

	/** As `send`, with a Flush behind it: a batch that is not ended is answered so far. */
	private flush(server: Server, chunk: Buffer, run: number, at: number): void {
		this.send(server, chunk, run, at);
		server.stream.writeAll(FLUSH);
	}

	/** Who does not read what the proxy makes up is not read any more, until it does. */
	private answerFakes(server: Server): void {
		server.relay.answerFakes();
		if (this.stream.queued > UNREAD) this.stream.pause();
	}

	/** The messages before `next` are thrown away, all that is here and all that comes of them. @returns where it goes on */
	private drop(chunk: Buffer, next: number): number {
		if (next <= chunk.length) return next;
		this.dropping = next - chunk.length;
		return chunk.length;
	}

	/** The rest of a message whose head has been dealt with. @returns where the next message begins */
	private passThrough(chunk: Buffer): number {
		if (this.dropping > 0) {
			const dropped = Math.min(this.dropping, chunk.length);
			this.dropping -= dropped;
			return dropped;
		}
		if (this.through === 0) return 0;
		const passed = Math.min(this.through, chunk.length);
		this.through -= passed;
		const { server } = this.link;
		if (server !== null) {
			server.stream.midMessage = this.through > 0;
			this.send(server, chunk, 0, passed);
			const { books } = server;
			// Data of a COPY that had failed, so that no answer will follow it.
			if (this.through === 0 && books.owed === 0 && server.status === TxStatus.Idle && !books.unsynced)
				this.link.endTransaction(server);
		}
		return passed;
	}
}

/** The message begins a request, and the answer to the one before is to come. */
function isBehind({ books }: Server, code: number): boolean {
	if (books.owed === 0 || books.unsynced || books.copyIn) return false;
	return code === Frontend.Query || code === Frontend.FunctionCall || beginsBatch(code);
}

/** Settings can be brought back before the message: within a batch, in no transaction that has failed. */
function mayBringBack({ books, status }: Server, code: number): boolean {
	return books.unsynced && beginsBatch(code) && status !== TxStatus.Failed;
}

/** What ends the connection; anything else is a bug. */
function fatal(error: unknown): PgError {
	if (error instanceof ProtocolError) return new PgError("FATAL", error.sqlstate, error.message);
	if (error instanceof PgError) return error;
	throw error;
}
