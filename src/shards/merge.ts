// The answers of several shards to one request, made one. Rows pass as they come; every other message waits in its shard's lane
// (lane.ts) until each shard has sent its like, and then goes to the client once (answers.ts). One for each client of several
// shards, whose requests it is told of one after the other. Knows messages, no sockets and no clients.

import { PgError } from "../errors.ts";
import { commandComplete } from "../wire/backend-messages.ts";
import { Backend, type TxStatus } from "../wire/codes.ts";
import { errorResponse, isFatal } from "../wire/error-response.ts";
import { HEADER, readInt32 } from "../wire/frame.ts";
import {
	alike,
	committedText,
	copyData,
	DISAGREE,
	headsAlike,
	isAnswer,
	isOfTransaction,
	isTrailer,
	SIGNATURE,
	sumOfTags,
	TRAILER,
	withCommits,
	worst,
} from "./answers.ts";
import { EMPTY, Lane } from "./lane.ts";
import { type RowOrder, unreadable } from "./order.ts";
import { type Joinings, MergedRows } from "./rows.ts";

/** What one shard is ahead of the slowest before it is stopped, in bytes; a guess. */
const AHEAD = 256 << 10;
/** Replies of a request that ends with ReadyForQuery. */
export const TO_READY = Number.POSITIVE_INFINITY;

/** Called in the middle of a server's event: nothing may be sent to a shard before that is over. */
export interface MergeOutput {
	/**
	 * One or more whole messages for the client, `bytes[start, end)`, which do not change afterwards. Never ReadyForQuery: that is the
	 * caller's to say.
	 */
	write(bytes: Buffer, start: number, end: number): void;
	/** Every shard has given its reply to so many more messages of the request. */
	replied(messages: number): void;
	/** The client was told of an error: nothing of the request gets through any more. @param shard that said so; null: it is ours */
	failed(shard: number | null): void;
	/** All shards read CopyData now. */
	copyIn(): void;
	/** The shard reads CopyData that shall not come, since another has failed. */
	stopCopy(shard: number): void;
	/** The shard was ahead, and may send again. */
	resumeShard(shard: number): void;
	/** Every shard has answered. @param status the worst of theirs, where they said ReadyForQuery */
	done(status: TxStatus): void;
}

export class Merge {
	/** By the number of the shard. */
	private readonly lanes: Lane[];
	/** The lanes of the shards that are asked, in the order of `begin`. */
	private asked: Lane[] = [];
	private readonly output: MergeOutput;
	/** Nothing has come of the answers but whole ones, so many of them, and that will do: they become one when all are here. */
	private isFresh = false;
	private whole = 0;
	private over = false;
	private failing = false;
	/** FATAL or PANIC has gone to the client. */
	fatal = false;
	private firstAnswers: readonly boolean[] | null = null;
	/** What is to be done with rows; and while the answer is under way that asks for it. */
	private joinings: Joinings | null = null;
	private rows: MergedRows | null = null;
	/** Why rows cannot be merged as they have come, once that is known. */
	private fault: PgError | null = null;
	/** How many replies have come. */
	private replies = 0;
	/** How many statements have been answered: the number of the one whose answer is under way. */
	private statement = 0;
	/** COPY TO in binary format is under way: one signature, one trailer. */
	private binary = false;
	private signed = false;

	/**
	 * @param count of all shards; what those not asked say on their own passes, too
	 * @param asked as for `begin`, of the first request; so are the others
	 */
	constructor(
		count: number,
		asked: readonly number[],
		replies: number,
		output: MergeOutput,
		firstAnswers: readonly boolean[] | null = null,
	) {
		this.lanes = Array.from({ length: count }, (_, shard) => new Lane(shard));
		this.output = output;
		this.begin(asked, replies, firstAnswers);
	}

	/**
	 * A request is about to be sent; the one before is over.
	 * @param asked shards, at least one
	 * @param replies that end it: one for each Parse, Bind, Describe, Execute and Close, or TO_READY
	 * @param firstAnswers by the number of the statement that is run: the rows and the tag of the first shard are the answer, since
	 * each shard's would be the same; null when those of all are, always
	 * @param joinings what is to be done with the rows of all; null: they pass as they come
	 */
	begin(
		asked: readonly number[],
		replies: number,
		firstAnswers: readonly boolean[] | null,
		joinings: Joinings | null = null,
	): void {
		for (const lane of this.asked) lane.over = true;
		this.asked.length = 0;
		for (const shard of asked) {
			const lane = this.lanes[shard]!;
			lane.begin(replies);
			this.asked.push(lane);
		}
		this.isFresh = replies === TO_READY && firstAnswers === null && joinings === null;
		this.joinings = joinings;
		this.rows = null;
		this.fault = null;
		this.replies = 0;
		this.whole = 0;
		this.firstAnswers = firstAnswers;
		this.statement = 0;
		this.over = false;
		this.failing = false;
		this.fatal = false;
		this.binary = false;
		this.signed = false;
	}

	/**
	 * Bytes of one shard; they must not change afterwards.
	 * @returns false when the shard should not send more: `resumeShard` is called when it may
	 */
	add(shard: number, bytes: Buffer): boolean {
		const lane = this.lanes[shard]!;
		if (this.isFresh && !lane.over) {
			if (!lane.isWhole && lane.takeWhole(bytes)) {
				if (++this.whole === this.asked.length) this.joinWhole();
				return true;
			}
			this.unfold();
		}
		if (lane.head > 0) lane.tail.hold(bytes);
		else {
			const chunk = lane.tail.add(bytes);
			if (chunk === null) return true;
			lane.chunk = chunk;
			lane.at = 0;
			this.pump();
		}
		return !this.isAhead(shard);
	}

	/** True while the shard should not send more. */
	isAhead(shard: number): boolean {
		const lane = this.lanes[shard]!;
		lane.ahead = lane.head > 0 && lane.bytes > AHEAD;
		return lane.ahead;
	}

	/** Every shard has answered with one chunk: that is so with most requests, and needs no look at what waits for what. */
	private joinWhole(): void {
		const { asked, output } = this;
		const first = asked[0]!;
		for (const lane of asked) {
			if (lane === first || headsAlike(lane, first)) continue;
			this.unfold();
			return;
		}
		for (const lane of asked) {
			const start = lane === first ? 0 : lane.rows;
			if (lane.at > start) output.write(lane.chunk, start, lane.at);
		}
		output.replied(first.replies + 1);
		const tag = asked.length === 1 ? first.message : sumOfTags(asked);
		output.write(tag, 0, tag.length);
		for (const lane of asked) {
			lane.chunk = EMPTY;
			lane.at = 0;
			lane.head = 0;
			lane.isWhole = false;
			lane.over = true;
		}
		this.isFresh = false;
		this.over = true;
		output.done(worst(asked));
	}

	/** Whole answers are as others are: another is not. */
	private unfold(): void {
		this.isFresh = false;
		for (const lane of this.asked) if (lane.isWhole) lane.unfold();
		this.pump();
	}

	/** Why a shard's session ended, in its server's own words, unless the client has had them. */
	lastWords(shard: number): Buffer | null {
		const { fatal, tail, chunk, at: read } = this.lanes[shard]!;
		if (fatal !== null) return fatal;
		const rest = tail.bytes > 0 ? Buffer.concat([chunk.subarray(read), tail.take()]) : chunk;
		for (let at = rest === chunk ? read : 0; rest.length - at >= HEADER; ) {
			const next = at + 1 + readInt32(rest, at + 1);
			if (next <= rest.length && isFatal(rest, at)) return rest.subarray(at, next);
			at = next;
		}
		return null;
	}

	/** What a COMMIT under way has come to on other shards, in words; "" when none has committed. */
	get committed(): string {
		return committedText(this.asked);
	}

	/** COPY has begun for a request that was to end in ReadyForQuery, but PostgreSQL ignores a Sync in the middle of it. */
	expect(replies: number): void {
		for (const lane of this.asked) lane.left = replies;
	}

	/** A shard has failed; the client is not told before the others have answered. */
	hasError(): boolean {
		if (this.failing) return true;
		for (const { head, code } of this.asked) if (head > 0 && code === Backend.ErrorResponse) return true;
		return false;
	}

	/** These shards were not sent the request, after all. */
	spare(shards: readonly number[]): void {
		for (const shard of shards) this.lanes[shard]!.over = true;
		this.unfold();
	}

	private pump(): void {
		do for (const lane of this.lanes) if (lane.head === 0 && lane.chunk !== EMPTY) this.advance(lane);
		while (this.step());
		for (const lane of this.lanes) {
			if (!lane.ahead || (lane.head > 0 && lane.bytes > AHEAD)) continue;
			lane.ahead = false;
			this.output.resumeShard(lane.shard);
		}
		if (this.over) return;
		for (const lane of this.asked) if (!lane.over) return;
		this.over = true;
		this.output.done(worst(this.asked));
	}

	/** Passes or drops what needs no other shard, up to a message that does. */
	private advance(lane: Lane): void {
		let run = lane.at;
		for (;;) {
			const { chunk, at } = lane;
			const here = chunk.length - at;
			const next = here < HEADER ? 0 : at + 1 + readInt32(chunk, at + 1);
			if (next === 0 || next > chunk.length) {
				if (at > run) this.output.write(chunk, run, at);
				run = 0;
				if (lane.rest(next)) continue;
				return;
			}
			lane.head = next;
			lane.code = chunk[at]!;
			const passes = this.passes(lane);
			if (passes !== Passes.Yes) {
				if (at > run) this.output.write(chunk, run, at);
				if (passes === Passes.No) return;
				run = next;
			}
			lane.at = next;
			lane.head = 0;
		}
	}

	/** Whether the client is to hear of a notice. Behind an error it has not happened, though on this shard it did. */
	private isNews(lane: Lane): boolean {
		return !this.failing && (lane === this.asked[0] || !isOfTransaction(lane));
	}

	private passes(lane: Lane): Passes {
		switch (lane.code) {
			case Backend.DataRow:
			case Backend.CopyData:
				if (this.failing || lane.over) return Passes.Dropped;
				if (lane !== this.asked[0] && this.firstAnswers !== null && this.onlyFirst) return Passes.Dropped;
				if (this.rows !== null) return this.passRow(lane, this.rows);
				return this.binary ? this.passBinary(lane) : Passes.Yes;
			case Backend.NoticeResponse:
				return lane.over || this.isNews(lane) ? Passes.Yes : Passes.Dropped;
			case Backend.NotificationResponse:
				return Passes.Yes;
			case Backend.ParameterStatus:
				return lane === this.asked[0] || lane.over ? Passes.Yes : Passes.Dropped;
			default:
				if (lane.over) {
					// Last words between two requests wait for whoever closes.
					if (isFatal(lane.chunk, lane.at)) lane.fatal = lane.message;
					return Passes.Dropped;
				}
				if (!this.failing) return Passes.No;
				this.drop(lane);
				return Passes.Dropped;
		}
	}

	/** A row that is to be one of those of all shards. */
	private passRow(lane: Lane, rows: MergedRows): Passes {
		if (rows.combined !== null) {
			this.fault ??= rows.combined.add(lane);
			return Passes.Dropped;
		}
		if (rows.isFull) return Passes.Dropped;
		if (rows.order === null) return rows.takes() ? Passes.Yes : Passes.Dropped;
		this.fault ??= rows.order.read(lane);
		return Passes.No;
	}

	/** After an error: nothing is told any more, but the shard's answer has to come to its end. */
	private drop(lane: Lane): void {
		const { code } = lane;
		if (code === Backend.ReadyForQuery) {
			lane.status = lane.chunk[lane.at + HEADER]!;
			lane.over = true;
		} else if (code === Backend.ErrorResponse) {
			if (isFatal(lane.chunk, lane.at)) lane.fatal = lane.message;
			lane.copying = false;
			if (lane.left !== TO_READY) lane.over = true;
		} else if (code === Backend.CopyInResponse) this.stopCopy(lane);
		else if (isAnswer(code)) lane.reply();
	}

	private stopCopy(lane: Lane): void {
		lane.copying = false;
		lane.stopped = true;
		this.output.stopCopy(lane.shard);
	}

	/** Goes on when every shard has a message that is not a row. @returns whether there was one */
	private step(): boolean {
		if (this.failing) return false;
		let first: Lane | null = null;
		let error: Lane | null = null;
		let isWaiting = false;
		for (const lane of this.asked) {
			if (lane.over) continue;
			if (lane.head === 0) isWaiting = true;
			else {
				first ??= lane;
				// What a shard says that was told to stop is not the cause.
				if (lane.code === Backend.ErrorResponse && (error === null || (error.stopped && !lane.stopped))) error = lane;
			}
		}
		if (isWaiting) {
			if (error !== null) this.stopCopies();
			return false;
		}
		if (first === null) return false;
		if (error !== null) this.fail(withCommits(error.message, this.committed), error.shard);
		else if (this.fault !== null) this.fail(errorResponse(this.fault, "stays"), null);
		else if (this.rows?.order != null && this.mergeRows(this.rows, this.rows.order)) return true;
		else if (this.agrees(first)) this.together(first);
		else this.fail(DISAGREE, null);
		return true;
	}

	/**
	 * Passes rows in their order, up to where a shard has to send more: each that has not ended has a message, and those before its row
	 * have gone on. @returns false when none is a row
	 */
	private mergeRows(rows: MergedRows, order: RowOrder): boolean {
		let merged = false;
		try {
			for (let goesOn = true; goesOn; merged = true) {
				const first = this.firstOf(order, null);
				if (first === null) return merged;
				goesOn = this.passRows(first, this.firstOf(order, first), rows, order);
			}
		} catch (error) {
			this.fault = unreadable(error);
		}
		return true;
	}

	/** The shard whose row comes first, of all but one; of rows that are alike the first shard's. Null: none is at a row. */
	private firstOf(order: RowOrder, but: Lane | null): Lane | null {
		let first: Lane | null = null;
		for (const lane of this.asked) {
			if (lane.over || lane.code !== Backend.DataRow || lane === but) continue;
			if (first === null || order.compare(lane, first) < 0) first = lane;
		}
		return first;
	}

	/** Passes the rows of `first` that are not behind that of `second`. @returns false when there is something else to see to */
	private passRows(first: Lane, second: Lane | null, rows: MergedRows, order: RowOrder): boolean {
		do {
			if (order.isAnother(first) && rows.takes()) this.pass(first);
			first.shift();
			if (rows.isFull) {
				this.dropRows();
				return false;
			}
			this.advance(first);
			if (first.head === 0 || first.code === Backend.ErrorResponse || this.fault !== null) return false;
		} while (first.code === Backend.DataRow && (second === null || order.compare(first, second) <= 0));
		return true;
	}

	/** The rows that shards are at are not wanted. */
	private dropRows(): void {
		for (const lane of this.asked) if (lane.head > 0 && lane.code === Backend.DataRow) lane.shift();
	}

	/** A shard in a COPY sends nothing before its data has ended, which is the client's to end, or ours when another has failed. */
	private stopCopies(): void {
		for (const lane of this.asked) if (lane.copying && lane.head === 0 && !lane.over) this.stopCopy(lane);
	}

	private agrees(first: Lane): boolean {
		for (const lane of this.asked) if (lane !== first && !lane.over && !alike(lane, first)) return false;
		return true;
	}

	private fail(error: Buffer, shard: number | null): void {
		if (isFatal(error, 0)) this.fatal = true;
		this.send(error);
		this.output.failed(shard);
		this.failing = true;
		for (const lane of this.asked) {
			if (lane.over) continue;
			this.drop(lane);
			lane.shift();
		}
	}

	private get onlyFirst(): boolean {
		return this.firstAnswers !== null && this.firstAnswers[this.statement] === true;
	}

	/** Every shard that is not over has a message like that of the first of them. */
	private together(first: Lane): void {
		// A portal that has ended on some shards only has not ended.
		for (const lane of this.asked) if (lane.code === Backend.PortalSuspended && !lane.over) first = lane;
		const { code } = first;
		switch (code) {
			case Backend.CommandComplete: {
				if (!this.complete(first)) return;
				this.rows = null;
				this.statement++;
				break;
			}
			case Backend.PortalSuspended:
			case Backend.EmptyQueryResponse:
				this.pass(first);
				this.statement++;
				break;
			case Backend.CopyOutResponse:
				this.pass(first);
				this.binary = first.chunk[first.at + HEADER] === 1;
				break;
			case Backend.CopyDone:
				if (this.binary) this.send(TRAILER);
				this.pass(first);
				this.binary = false;
				break;
			case Backend.ReadyForQuery:
				break;
			default:
				if (!this.describe(first)) return;
		}
		const replied = isAnswer(code);
		for (const lane of this.asked) {
			if (lane.over) continue;
			if (code === Backend.ReadyForQuery) {
				lane.status = lane.chunk[lane.at + HEADER]!;
				lane.over = true;
			} else if (code === Backend.CopyInResponse) lane.copying = true;
			else if (replied) lane.reply();
			lane.shift();
		}
		if (code === Backend.CopyInResponse) this.output.copyIn();
		else if (replied) {
			this.replies++;
			this.output.replied(1);
		}
	}

	/** Passes the tag of all. @returns as `endRows` */
	private complete(first: Lane): boolean {
		if (this.rows !== null && !this.onlyFirst) return this.endRows(this.rows);
		if (this.onlyFirst) this.pass(first);
		else this.send(sumOfTags(this.asked));
		return true;
	}

	/** All rows of the answer have come, and their tag goes on. @returns false when they are not what they were to be */
	private endRows({ combined, passed }: MergedRows): boolean {
		const row = combined?.row(this.asked.filter((lane) => !lane.over).length);
		if (row instanceof PgError) {
			this.fail(errorResponse(row, "stays"), null);
			return false;
		}
		if (row !== undefined) this.send(row);
		this.send(commandComplete(`SELECT ${row === undefined ? passed : 1}`));
		return true;
	}

	/** Passes any other message: perhaps the columns of rows that are to be merged. @returns false when these cannot be */
	private describe(first: Lane): boolean {
		const { joinings } = this;
		const isOurs = joinings?.hidden?.includes(this.replies) === true;
		const isOfRows = first.code === Backend.RowDescription && (isOurs || joinings?.hidden === null);
		const joining = isOfRows ? joinings!.each[this.statement] : null;
		if (joining != null) {
			const rows = MergedRows.of(joining, first, this.lanes.length);
			const fault = rows instanceof MergedRows ? null : errorResponse(rows, "stays");
			if (fault !== null || this.asked.some((lane) => !lane.over && !(rows as MergedRows).fits(lane, first))) {
				this.fail(fault ?? DISAGREE, null);
				return false;
			}
			this.rows = rows as MergedRows;
		}
		if (!isOurs) this.pass(first);
		return true;
	}

	/** The message of a lane is the answer. */
	private pass({ chunk, at, head }: Lane): void {
		this.output.write(chunk, at, head);
	}

	/** So is one of ours. */
	private send(message: Buffer): void {
		this.output.write(message, 0, message.length);
	}

	/** Only the first signature passes, and no trailer: that comes when all have ended. PostgreSQL docs, "COPY", "Binary Format". */
	private passBinary(lane: Lane): Passes {
		let start = lane.at + HEADER;
		const end = lane.head;
		let signature: Buffer = EMPTY;
		if (!lane.signed) {
			lane.signed = true;
			const length = SIGNATURE + readInt32(lane.chunk, start + SIGNATURE - 4);
			if (!this.signed) signature = lane.chunk.subarray(start, start + length);
			this.signed = true;
			start += length;
		} else if (!isTrailer(lane.chunk, start, end)) return Passes.Yes;
		const rows = isTrailer(lane.chunk, start, end) ? EMPTY : lane.chunk.subarray(start, end);
		if (signature.length + rows.length > 0) this.send(copyData(signature, rows));
		return Passes.Dropped;
	}
}

/** Whether a message goes to the client at once. */
const enum Passes {
	Yes,
	/** The message waits for those of the other shards. */
	No,
	/** The message is dealt with, and not to be passed as it is. */
	Dropped,
}
