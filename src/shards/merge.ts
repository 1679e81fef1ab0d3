// The answers of several shards to one request, made one. Rows pass as they come; every other message waits until each
// shard has sent its like, and then goes to the client once. Knows messages, no sockets and no clients.

import { PgError } from "../errors.ts";
import { commandComplete } from "../wire/backend-messages.ts";
import { Backend, TxStatus } from "../wire/codes.ts";
import { errorResponse, isFatal, readSqlstate } from "../wire/error-response.ts";
import { HEADER, readInt16, readInt32, Tail } from "../wire/frame.ts";

/** What one shard is ahead of the slowest before it is stopped, in bytes; a guess. */
const AHEAD = 256 << 10;
/** Replies of a request that ends with ReadyForQuery. */
export const TO_READY = Number.POSITIVE_INFINITY;

/** Called in the middle of a server's event: nothing may be sent to a shard before that is over. */
export interface MergeOutput {
	/** One or more whole messages for the client, which may be kept. Never ReadyForQuery: that is the caller's to say. */
	write(messages: Uint8Array): void;
	/** Every shard has given its reply to one more message of the request. */
	replied(): void;
	/** The client was told of an error: nothing of the request gets through any more. */
	failed(): void;
	/** All shards read CopyData now. */
	copyIn(): void;
	/** The shard reads CopyData that shall not come, since another has failed. */
	stopCopy(shard: number): void;
	/** The shard was ahead, and may send again. */
	resumeShard(shard: number): void;
	/** Every shard has answered. @param status the worst of theirs, where they said ReadyForQuery */
	done(status: TxStatus): void;
}

const EMPTY = Buffer.alloc(0);

class Port {
	readonly shard: number;
	/** Bytes under way, read up to `at`, and those that came while the message there had to wait. */
	chunk: Buffer = EMPTY;
	at = 0;
	readonly tail = new Tail();
	/** The whole message at `at` ends here when it has to wait for the other shards; 0 when none does. */
	head = 0;
	/** Replies that are still to come. */
	left: number;
	status: TxStatus = TxStatus.Idle;
	over: boolean;
	/** It reads CopyData; it was told to stop that, so that its error is our own doing. */
	copying = false;
	stopped = false;
	/** It was told to wait. */
	ahead = false;
	/** Its last words, when they were not passed on. */
	fatal: Buffer | null = null;
	/** Of COPY in binary format: its signature has come. */
	signed = false;

	constructor(shard: number, left: number) {
		this.shard = shard;
		this.left = left;
		this.over = left === 0;
	}

	get code(): number {
		return this.chunk[this.at]!;
	}

	get message(): Buffer {
		return this.chunk.subarray(this.at, this.head);
	}

	get bytes(): number {
		return this.chunk.length - this.at + this.tail.bytes;
	}

	shift(): void {
		this.at = this.head;
		this.head = 0;
	}
}

export class Merge {
	private readonly ports: Port[];
	private readonly asked: Port[];
	private readonly output: MergeOutput;
	private over = false;
	private failing = false;
	/** FATAL or PANIC has gone to the client. */
	fatal = false;
	/** By the number of the statement that is run: the rows and tag of the first shard are the answer. Null: never. */
	private readonly firstAnswers: readonly boolean[] | null;
	/** Of the statement whose answer is under way. */
	private statement = 0;
	/** COPY TO in binary format: one signature, one trailer. */
	private binary = false;
	private signed = false;

	/**
	 * @param count of all shards; what those not asked say on their own passes, too
	 * @param asked shards, at least one
	 * @param replies that end it: one for each Parse, Bind, Describe, Execute and Close, or TO_READY
	 * @param firstAnswers by the number of the statement that is run: the rows and the tag of the first shard are the answer, since
	 * each shard's would be the same; null when those of all are, always
	 */
	constructor(
		count: number,
		asked: readonly number[],
		replies: number,
		output: MergeOutput,
		firstAnswers: readonly boolean[] | null = null,
	) {
		this.firstAnswers = firstAnswers;
		this.ports = Array.from({ length: count }, (_, shard) => new Port(shard, asked.includes(shard) ? replies : 0));
		this.asked = asked.map((shard) => this.ports[shard]!);
		this.output = output;
	}

	/** Bytes of one shard; they must not change afterwards. */
	add(shard: number, bytes: Buffer): void {
		const port = this.ports[shard]!;
		if (port.head > 0) {
			port.tail.hold(bytes);
			return;
		}
		const chunk = port.tail.add(bytes);
		if (chunk === null) return;
		port.chunk = chunk;
		port.at = 0;
		this.pump();
	}

	/** True while the shard should not send more; `resumeShard` is called when it may. */
	isAhead(shard: number): boolean {
		const port = this.ports[shard]!;
		port.ahead = port.head > 0 && port.bytes > AHEAD;
		return port.ahead;
	}

	/** Why a shard's session ended, in its server's own words, unless the client has had them. */
	lastWords(shard: number): Buffer | null {
		const port = this.ports[shard]!;
		if (port.fatal !== null) return port.fatal;
		const rest = port.tail.bytes > 0 ? Buffer.concat([port.chunk.subarray(port.at), port.tail.take()]) : port.chunk;
		for (let at = rest === port.chunk ? port.at : 0; rest.length - at >= HEADER; ) {
			const next = at + 1 + readInt32(rest, at + 1);
			if (next <= rest.length && isFatal(rest, at)) return rest.subarray(at, next);
			at = next;
		}
		return null;
	}

	/** COPY has begun for a request that was to end in ReadyForQuery, but PostgreSQL ignores a Sync in the middle of it. */
	expect(replies: number): void {
		for (const port of this.asked) port.left = replies;
	}

	/** A shard has failed, which is not told before the others have answered. */
	hasError(): boolean {
		return this.failing || this.asked.some(isError);
	}

	/** These were not asked, after all. */
	spare(shards: readonly number[]): void {
		for (const shard of shards) this.ports[shard]!.over = true;
		this.pump();
	}

	private pump(): void {
		do for (const port of this.ports) this.advance(port);
		while (this.step());
		for (const port of this.ports) {
			if (!port.ahead || (port.head > 0 && port.bytes > AHEAD)) continue;
			port.ahead = false;
			this.output.resumeShard(port.shard);
		}
		if (this.over || !this.asked.every((port) => port.over)) return;
		this.over = true;
		this.output.done(worst(this.asked));
	}

	/** Passes or drops what needs no other shard, up to a message that does. */
	private advance(port: Port): void {
		if (port.head > 0) return;
		let run = port.at;
		for (;;) {
			const { chunk, at } = port;
			const here = chunk.length - at;
			const next = here < HEADER ? 0 : at + 1 + readInt32(chunk, at + 1);
			if (next === 0 || next > chunk.length) {
				this.pass(port, run, at);
				run = 0;
				port.at = 0;
				if (port.tail.bytes > 0) {
					const rest = port.tail.take();
					port.chunk = here === 0 ? rest : Buffer.concat([chunk.subarray(at), rest]);
					continue;
				}
				port.chunk = EMPTY;
				port.tail.keep(chunk, at, next === 0 ? HEADER : next - at);
				return;
			}
			port.head = next;
			const passes = this.passes(port);
			if (passes === Passes.No) {
				this.pass(port, run, at);
				return;
			}
			if (passes === Passes.Dropped) {
				this.pass(port, run, at);
				run = next;
			}
			port.shift();
		}
	}

	private pass(port: Port, from: number, to: number): void {
		if (to > from) this.output.write(port.chunk.subarray(from, to));
	}

	private passes(port: Port): Passes {
		switch (port.code) {
			case Backend.NoticeResponse:
				return port !== this.asked[0] && !port.over && isOfTransaction(port) ? Passes.Dropped : Passes.Yes;
			case Backend.NotificationResponse:
				return Passes.Yes;
			case Backend.ParameterStatus:
				return port === this.asked[0] || port.over ? Passes.Yes : Passes.Dropped;
			case Backend.DataRow:
			case Backend.CopyData:
				if (this.failing || port.over || (this.onlyFirst && port !== this.asked[0])) return Passes.Dropped;
				return this.binary ? this.passBinary(port) : Passes.Yes;
			default:
				if (port.over) {
					// Last words between two requests wait for whoever closes.
					if (isFatal(port.chunk, port.at)) port.fatal = port.message;
					return Passes.Dropped;
				}
				if (!this.failing) return Passes.No;
				this.drop(port);
				return Passes.Dropped;
		}
	}

	/** After an error: nothing is told any more, but the shard's answer has to come to its end. */
	private drop(port: Port): void {
		const { code } = port;
		if (code === Backend.ReadyForQuery) {
			port.status = port.chunk[port.at + HEADER]!;
			port.over = true;
		} else if (code === Backend.ErrorResponse) {
			if (isFatal(port.chunk, port.at)) port.fatal = port.message;
			port.copying = false;
			if (port.left !== TO_READY) port.over = true;
		} else if (code === Backend.CopyInResponse) this.stopCopy(port);
		else this.reply(port, code);
	}

	private stopCopy(port: Port): void {
		port.copying = false;
		port.stopped = true;
		this.output.stopCopy(port.shard);
	}

	private reply(port: Port, code: number): void {
		if (!isReply(code)) return;
		if (code === Backend.CommandComplete) port.copying = false;
		if (--port.left === 0) port.over = true;
	}

	/** Goes on when every shard has a message that is not a row. @returns whether there was one */
	private step(): boolean {
		const ports = this.asked.filter((port) => !port.over);
		if (ports.length === 0 || this.failing) return false;
		if (!ports.every((port) => port.head > 0)) {
			// A shard in a COPY sends nothing before its data has ended, which is the client's to end, or ours.
			if (ports.some(isError)) for (const port of ports) if (port.copying && port.head === 0) this.stopCopy(port);
			return false;
		}
		const error = ports.find((port) => isError(port) && !port.stopped) ?? ports.find(isError);
		if (error !== undefined) this.fail(ports, error.message);
		else if (!ports.every((port) => alike(port, ports[0]!))) this.fail(ports, DISAGREE);
		else this.together(ports);
		return true;
	}

	private fail(ports: readonly Port[], error: Buffer): void {
		if (isFatal(error, 0)) this.fatal = true;
		this.output.write(error);
		this.output.failed();
		this.failing = true;
		for (const port of ports) {
			this.drop(port);
			port.shift();
		}
	}

	private get onlyFirst(): boolean {
		return this.firstAnswers !== null && this.firstAnswers[this.statement] === true;
	}

	private together(ports: readonly Port[]): void {
		const first = ports.find((port) => port.code === Backend.PortalSuspended) ?? ports[0]!;
		const { code } = first;
		if (code === Backend.CommandComplete && !this.onlyFirst)
			this.output.write(sumTags(ports.map((port) => port.message)));
		else if (code === Backend.CopyDone && this.binary) this.output.write(Buffer.concat([TRAILER, first.message]));
		else if (code !== Backend.ReadyForQuery) this.output.write(first.message);
		if (code === Backend.CopyOutResponse) this.binary = first.chunk[first.at + HEADER] === 1;
		else if (code === Backend.CopyDone) this.binary = false;
		if (isEnd(code) || code === Backend.EmptyQueryResponse) this.statement++;
		for (const port of ports) {
			if (code === Backend.ReadyForQuery) {
				port.status = port.chunk[port.at + HEADER]!;
				port.over = true;
			} else if (code === Backend.CopyInResponse) port.copying = true;
			else this.reply(port, port.code);
			port.shift();
		}
		if (code === Backend.CopyInResponse) this.output.copyIn();
		else if (isReply(code)) this.output.replied();
	}

	/** Only the first signature passes, and no trailer: that comes when all have ended. PostgreSQL docs, "COPY", "Binary Format". */
	private passBinary(port: Port): Passes {
		let start = port.at + HEADER;
		const end = port.head;
		let signature: Buffer = EMPTY;
		if (!port.signed) {
			port.signed = true;
			const length = SIGNATURE + readInt32(port.chunk, start + SIGNATURE - 4);
			if (!this.signed) signature = port.chunk.subarray(start, start + length);
			this.signed = true;
			start += length;
		} else if (!isTrailer(port.chunk, start, end)) return Passes.Yes;
		const rows = isTrailer(port.chunk, start, end) ? EMPTY : port.chunk.subarray(start, end);
		if (signature.length + rows.length > 0) this.output.write(copyData(signature, rows));
		return Passes.Dropped;
	}
}

const enum Passes {
	Yes,
	No,
	/** It is dealt with, and not to be passed as it is. */
	Dropped,
}

/** Signature, flags and the length of the header's extension. */
const SIGNATURE = 19;
const TRAILER = copyData(Buffer.from([0xff, 0xff]));
const DISAGREE = errorResponse(new PgError("ERROR", "58000", "the shards gave answers of different kinds"), "stays");

function copyData(...parts: Buffer[]): Buffer {
	const message = Buffer.concat([Buffer.alloc(HEADER), ...parts]);
	message[0] = Backend.CopyData;
	message.writeInt32BE(message.length - 1, 1);
	return message;
}

function isTrailer(chunk: Buffer, start: number, end: number): boolean {
	return end - start === 2 && readInt16(chunk, start) === 0xffff;
}

/** That there is a transaction already, or is none, goes for all shards. */
function isOfTransaction(port: Port): boolean {
	const sqlstate = readSqlstate(port.chunk, port.at, port.head);
	return sqlstate === "25001" || sqlstate === "25P01";
}

function isError(port: Port): boolean {
	return port.head > 0 && port.code === Backend.ErrorResponse;
}

/** Whether the message is what answers one Parse, Bind, Describe, Execute or Close. */
function isReply(code: number): boolean {
	switch (code) {
		case Backend.ParseComplete:
		case Backend.BindComplete:
		case Backend.CloseComplete:
		case Backend.RowDescription:
		case Backend.NoData:
		case Backend.CommandComplete:
		case Backend.EmptyQueryResponse:
		case Backend.PortalSuspended:
			return true;
		default:
			return false;
	}
}

/** Whether two shards say the same, as far as their rows fit under one description. A portal may end on one shard only. */
function alike(a: Port, b: Port): boolean {
	if (a.code !== b.code) return isEnd(a.code) && isEnd(b.code);
	const counted = a.code === Backend.RowDescription || a.code === Backend.ParameterDescription;
	return !counted || readInt16(a.chunk, a.at + HEADER) === readInt16(b.chunk, b.at + HEADER);
}

function isEnd(code: number): boolean {
	return code === Backend.CommandComplete || code === Backend.PortalSuspended;
}

function worst(ports: readonly Port[]): TxStatus {
	if (ports.some((port) => port.status === TxStatus.Failed)) return TxStatus.Failed;
	return ports.some((port) => port.status === TxStatus.InBlock) ? TxStatus.InBlock : TxStatus.Idle;
}

/** `SELECT 3` and `SELECT 4` are `SELECT 7`; of tags without a count the first shard's, or ROLLBACK where one could not COMMIT. */
function sumTags(messages: readonly Buffer[]): Buffer {
	const tags = messages.map((message) => message.latin1Slice(HEADER, message.length - 1));
	const counted = /^(.* )(\d+)$/.exec(tags[0]!);
	if (counted === null) return messages[Math.max(0, tags.indexOf("ROLLBACK"))]!;
	const sum = tags.reduce((total, tag) => total + Number(/\d+$/.exec(tag)?.[0] ?? 0), 0);
	return commandComplete(`${counted[1]}${sum}`);
}
