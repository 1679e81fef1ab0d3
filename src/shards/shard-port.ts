// Stands in for the client's socket towards one shard's Link: what that writes goes to the `PortOwner`, who merges the shards' answers;
// while the Link may not be sent more, the client's socket is not read. Made by shard-link.ts.

import type { PgError } from "../errors.ts";
import { Outgoing } from "../net/outgoing.ts";
import type { Sink } from "../net/stream.ts";

export interface PortOwner {
	/** Messages of a shard; they do not change afterwards. @returns false when the shard's server must wait until `ShardLink.onDrain` */
	onShard(shard: number, bytes: Buffer): boolean;
	/** Some shard's Link reads on: it may have got the server that it waited for. */
	onShardReads(): void;
	/** The shard's Link has waited long for its server. @param notice what the client is told of that */
	onShardWait(notice: Buffer): void;
	/** The client cannot go on without the shard, for this reason. @param words what it is told, unless the shard's server has said that */
	onShardEnd(shard: number, reason: string, words?: PgError): void;
	/** Some port's `paused` has changed. */
	flow(): void;
}

export class ShardPort implements Sink {
	private readonly shard: number;
	private readonly owner: PortOwner;
	/** The shard's server takes no more for now. */
	paused = false;
	readonly out: Outgoing = new Outgoing(this);
	midMessage = false;
	/** Not 0 while the shard's server has to wait; written here only. */
	queued = 0;
	readonly bytesIn = 0;
	bytesOut = 0;

	constructor(shard: number, owner: PortOwner) {
		this.shard = shard;
		this.owner = owner;
	}

	/** What goes on is its owner's: bytes that do not last are copied. */
	write(bytes: Uint8Array, start: number, length: number, lasts = true): boolean {
		if (this.out.fill > 0) this.out.flush();
		this.bytesOut += length;
		// Another view costs as much as all the rest of this, and most answers are a chunk of their own.
		const isWhole = lasts && length === bytes.length && Buffer.isBuffer(bytes);
		const goesOn = this.owner.onShard(this.shard, isWhole ? bytes : part(bytes, start, length, lasts));
		this.queued = goesOn ? 0 : 1;
		return goesOn;
	}

	writeAll(bytes: Uint8Array): boolean {
		if (this.midMessage) {
			this.terminate();
			return false;
		}
		return this.write(bytes, 0, bytes.length);
	}

	pause(): void {
		this.paused = true;
		this.owner.flow();
	}

	resume(): void {
		if (this.paused) {
			this.paused = false;
			this.owner.flow();
		}
		this.owner.onShardReads();
	}

	/** The shard's server may go on. */
	drained(): void {
		this.queued = 0;
	}

	end(): void {
		this.out.flush();
		this.owner.onShardEnd(this.shard, "a server closed the connection");
	}

	terminate(): void {
		this.out.clear();
		this.owner.onShardEnd(this.shard, "a server closed the connection in the middle of a message");
	}
}

function part(bytes: Uint8Array, start: number, length: number, lasts: boolean): Buffer {
	if (lasts) return Buffer.from(bytes.buffer, bytes.byteOffset + start, length);
	return Buffer.from(bytes.subarray(start, start + length));
}
