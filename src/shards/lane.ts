// What one shard has answered and the client has not been told yet, for Merge (merge.ts): the bytes, the message that has to wait
// for the other shards, and how much of the answer is still to come.

import { Backend, TxStatus } from "../wire/codes.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";

/** Between two reads: no whole message is left. */
export const EMPTY = Buffer.alloc(0);
/** Bytes of ReadyForQuery. */
const READY = 6;

export class Lane {
	readonly shard: number;
	/** Bytes under way, read up to `at`, and those that came while the message there had to wait. */
	chunk: Buffer = EMPTY;
	at = 0;
	readonly tail = new Tail();
	/** Where the message at `at` ends when it has to wait for the other shards; 0 when none does. */
	head = 0;
	/** The type of the message at `at`. */
	code = 0;
	/** Replies that are still to come, for `Merge`; TO_READY: so many that ReadyForQuery comes first. */
	left = 0;
	status: TxStatus = TxStatus.Idle;
	/** All of the answer has come, or none is asked for. */
	over = true;
	/** The shard reads CopyData. */
	copying = false;
	/** The shard was told to end its COPY: its error is our own doing. */
	stopped = false;
	/** The shard was told to wait. */
	ahead = false;
	/** The shard's last words, when they were not passed on. */
	fatal: Buffer | null = null;
	/** Of COPY in binary format: its signature has come. */
	signed = false;
	/** All of the answer has come in one chunk, and waits for the other shards': see `takeWhole`. */
	isWhole = false;
	/** Of such an answer: how many replies there are before the rows, and where these begin. */
	replies = 0;
	rows = 0;

	constructor(shard: number) {
		this.shard = shard;
	}

	/** The shard is asked. @param replies as for `Merge.begin` */
	begin(replies: number): void {
		this.left = replies;
		this.over = replies === 0;
		this.status = TxStatus.Idle;
		this.copying = false;
		this.stopped = false;
		this.signed = false;
		this.isWhole = false;
	}

	/**
	 * Takes `chunk` when it is all of an answer that nothing has come of, and of the common kind: replies, rows, one tag,
	 * ReadyForQuery. The message at `at` is that tag then.
	 */
	takeWhole(chunk: Buffer): boolean {
		const ready = chunk.length - READY;
		if (chunk[ready] !== Backend.ReadyForQuery || this.chunk !== EMPTY || this.tail.bytes > 0) return false;
		let replies = 0;
		let rows = -1;
		let tag = -1;
		let at = 0;
		while (at < ready) {
			switch (chunk[at]) {
				case Backend.DataRow:
					if (tag >= 0) return false;
					if (rows < 0) rows = at;
					break;
				case Backend.CommandComplete:
					if (tag >= 0) return false;
					if (rows < 0) rows = at;
					tag = at;
					break;
				case Backend.RowDescription:
				case Backend.BindComplete:
				case Backend.ParseComplete:
				case Backend.NoData:
				case Backend.CloseComplete:
					if (rows >= 0) return false;
					replies++;
					break;
				case Backend.ParameterDescription:
					if (rows >= 0) return false;
					break;
				default:
					return false;
			}
			at += 1 + readInt32(chunk, at + 1);
		}
		if (tag < 0 || at !== ready) return false;
		this.chunk = chunk;
		this.at = tag;
		this.head = ready;
		this.code = Backend.CommandComplete;
		this.status = chunk[ready + HEADER]!;
		this.replies = replies;
		this.rows = rows;
		this.isWhole = true;
		return true;
	}

	/** A whole answer is dealt with message by message all the same. */
	unfold(): void {
		this.isWhole = false;
		this.at = 0;
		this.head = 0;
		this.status = TxStatus.Idle;
	}

	/**
	 * The message at `at` is not whole, or there is none: the rest of the chunk is kept.
	 * @param next where the message ends; 0 when that is not known
	 * @returns more has come while messages had to wait, and is in `chunk` now
	 */
	rest(next: number): boolean {
		const { chunk, at, tail } = this;
		this.at = 0;
		if (tail.bytes === 0) {
			this.chunk = EMPTY;
			tail.keep(chunk, at, next === 0 ? HEADER : next - at);
			return false;
		}
		const more = tail.take();
		this.chunk = at === chunk.length ? more : Buffer.concat([chunk.subarray(at), more]);
		return true;
	}

	/** The message at `at` answers one of the client's. */
	reply(): void {
		if (this.code === Backend.CommandComplete) this.copying = false;
		if (--this.left === 0) this.over = true;
	}

	get message(): Buffer {
		return this.chunk.subarray(this.at, this.head);
	}

	/** What has come and is not dealt with, in bytes. */
	get bytes(): number {
		return this.chunk.length - this.at + this.tail.bytes;
	}

	shift(): void {
		this.at = this.head;
		this.head = 0;
	}
}
