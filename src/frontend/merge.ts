// The answers of several shards to one request, made one. Rows pass as they come; every other message waits until each
// shard has sent its like, and then goes to the client once. Knows messages, no sockets and no clients.

import { commandComplete, readyForQuery } from "../wire/backend-messages.ts";
import { Backend, TxStatus } from "../wire/codes.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";

/** What one shard is ahead of the slowest before it is stopped, in bytes. */
const AHEAD = 256 << 10;

class Port {
	readonly tail = new Tail();
	/** Whole messages that wait for the other shards. */
	readonly messages: Buffer[] = [];
	bytes = 0;
	/** An error has been reported: all is dropped up to ReadyForQuery. */
	failing = false;
	status: TxStatus = TxStatus.Idle;
}

export interface MergeOutput {
	write(message: Uint8Array): void;
	/** Every shard is ready for the next request. @param status the worst of theirs */
	done(status: TxStatus, failed: boolean): void;
	/** All shards read CopyData now. */
	copyIn(): void;
}

export class Merge {
	private readonly ports = new Map<number, Port>();
	private readonly output: MergeOutput;
	private readonly first: number;
	private failed = false;

	/** @param shards that were asked, at least one */
	constructor(shards: readonly number[], output: MergeOutput) {
		for (const shard of shards) this.ports.set(shard, new Port());
		this.first = shards[0]!;
		this.output = output;
	}

	/** Bytes of one shard, which the caller may reuse. */
	add(shard: number, bytes: Uint8Array, start: number, length: number): void {
		const port = this.ports.get(shard);
		if (port === undefined) return;
		const chunk = port.tail.add(Buffer.from(bytes.subarray(start, start + length)));
		if (chunk === null) return;
		let at = 0;
		while (chunk.length - at >= HEADER) {
			const next = at + 1 + readInt32(chunk, at + 1);
			if (next > chunk.length) break;
			port.messages.push(chunk.subarray(at, next));
			port.bytes += next - at;
			at = next;
		}
		if (at < chunk.length)
			port.tail.keep(chunk, at, chunk.length - at < HEADER ? HEADER : 1 + readInt32(chunk, at + 1));
		this.pump();
	}

	/** True while the shard should not send more. */
	isAhead(shard: number): boolean {
		return (this.ports.get(shard)?.bytes ?? 0) > AHEAD;
	}

	private pump(): void {
		for (;;) {
			let complete = true;
			for (const [shard, port] of this.ports) {
				this.passRows(shard, port);
				if (port.messages.length === 0) complete = false;
			}
			if (!complete) return;
			if (this.step()) return;
		}
	}

	/** What needs no other shard: rows, and what servers say on their own. */
	private passRows(shard: number, port: Port): void {
		while (port.messages.length > 0) {
			const message = port.messages[0]!;
			const code = message[0]!;
			const row = code === Backend.DataRow || code === Backend.CopyData;
			const own =
				code === Backend.NoticeResponse || code === Backend.ParameterStatus || code === Backend.NotificationResponse;
			if (port.failing) {
				if (code === Backend.ReadyForQuery) return;
			} else if (row || (own && (shard === this.first || code !== Backend.ParameterStatus))) this.output.write(message);
			else if (!own) return;
			this.shift(port);
		}
	}

	private shift(port: Port): Buffer {
		const message = port.messages.shift()!;
		port.bytes -= message.length;
		return message;
	}

	/** Every shard has a message that is not a row. @returns true when the request is over */
	private step(): boolean {
		const heads = [...this.ports.values()].map((port) => port.messages[0]!);
		const error = heads.find((message) => message[0] === Backend.ErrorResponse);
		if (error !== undefined) {
			this.output.write(error);
			this.failed = true;
			for (const port of this.ports.values()) port.failing = true;
			return false;
		}
		if (heads.every((message) => message[0] === Backend.ReadyForQuery)) {
			const status = worst(heads.map((message) => message[HEADER]!));
			for (const port of this.ports.values()) this.shift(port);
			this.output.write(readyForQuery(status));
			this.output.done(status, this.failed);
			return true;
		}
		// A shard that has dropped to ReadyForQuery stays there until the others come.
		for (const port of this.ports.values())
			if (!(port.failing && port.messages[0]![0] === Backend.ReadyForQuery)) this.shift(port);
		if (this.failed) return false;
		const suspended = heads.find((message) => message[0] === Backend.PortalSuspended);
		const head = suspended ?? heads[0]!;
		if (head[0] === Backend.CommandComplete) this.output.write(sumTags(heads));
		else this.output.write(head);
		if (head[0] === Backend.CopyInResponse) this.output.copyIn();
		return false;
	}
}

function worst(all: readonly number[]): TxStatus {
	if (all.includes(TxStatus.Failed)) return TxStatus.Failed;
	return all.includes(TxStatus.InBlock) ? TxStatus.InBlock : TxStatus.Idle;
}

/** `SELECT 3` and `SELECT 4` are `SELECT 7`; tags without a count are the first shard's. */
function sumTags(messages: readonly Buffer[]): Buffer {
	const tags = messages.map((message) => message.latin1Slice(HEADER, message.length - 1));
	const counted = /^(.* )(\d+)$/.exec(tags[0]!);
	if (counted === null) return messages[0]!;
	const sum = tags.reduce((total, tag) => total + Number(/\d+$/.exec(tag)?.[0] ?? 0), 0);
	return commandComplete(`${counted[1]}${sum}`);
}
