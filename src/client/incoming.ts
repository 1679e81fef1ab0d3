// What one client has sent and has not gone on yet: the beginning of a message or batch whose end is not here, and messages that
// wait, with the reason (wait.ts). One for each Client; its Walk reads from it, and its Link says when a reason is none any more.

import type { PgError } from "../errors.ts";
import type { Sink } from "../net/stream.ts";
import { Tail } from "../wire/frame.ts";
import type { ClientContext } from "./context.ts";
import { LookAhead } from "./framing.ts";
import { counted, Share } from "./share.ts";
import { Wait } from "./wait.ts";

/** What may be queued for a client that does not read before its next request has to wait. */
export const UNREAD = 64 << 10;
/** What a client may send ahead while it waits; then its socket is not read. */
export const HELD = 128 << 10;

/** All of its fields are written here only. */
export class Incoming {
	/** Why messages are held. */
	wait = Wait.Welcome;
	/** When the client last sent something, by the janitor's clock. */
	heardAt: number;
	/** Where the batch ends that begins in the chunk under way. */
	readonly ahead = new LookAhead();
	/** Messages before this place of the chunk under way have been routed. */
	routed = 0;
	/** The client is told this, and closed, when what it asked before is answered. */
	parting: PgError | null = null;
	private readonly context: ClientContext;
	private readonly stream: Sink;
	private readonly tail = new Tail();
	/** Null until it has had one. */
	private share: Share | null = null;

	constructor(context: ClientContext, stream: Sink) {
		this.context = context;
		this.stream = stream;
		this.heardAt = context.time;
	}

	/** @returns what is to be read now; null while messages are held, or when more has to come first */
	add(chunk: Buffer): Buffer | null {
		const { wait } = this;
		if (wait === Wait.Closed) return null;
		this.heardAt = this.context.time;
		if (wait === Wait.Nothing) return this.tail.isUnused ? chunk : this.tail.add(chunk);
		if (this.parting !== null) return null;
		this.tail.hold(chunk);
		if (this.tail.bytes > HELD) this.stream.pause();
		return null;
	}

	/**
	 * Keeps what is here of a request until `need` bytes are.
	 * @returns false when what all clients may keep of large messages does not have room for it
	 */
	keep(chunk: Buffer, at: number, need: number): boolean {
		this.routed = 0;
		if (this.ahead.end > 0) this.ahead.move(at);
		if (at < chunk.length || !this.tail.isUnused) this.tail.keep(chunk, at, need);
		return (this.tail.bytes === 0 && this.share === null) || this.takeShare(counted(this.tail.bytes, need));
	}

	/** Holds `chunk[at…]`, to be read again from there when `wait` is over. */
	hold(chunk: Buffer, at: number, wait: Wait): void {
		this.wait = wait;
		this.routed = Math.max(0, this.routed - at);
		this.ahead.move(at);
		this.tail.keep(chunk, at, Number.POSITIVE_INFINITY);
		this.takeShare(counted(this.tail.bytes, 0));
		if (this.tail.bytes > HELD) this.stream.pause();
	}

	/** @returns false when so much is not left of what all clients may keep */
	private takeShare(bytes: number): boolean {
		if (this.share === null && bytes === 0) return true;
		this.share ??= new Share(this.context.collected);
		return this.share.set(bytes);
	}

	/** What comes is held for this from now on. */
	waitFor(wait: Wait): void {
		this.wait = wait;
	}

	/** Nothing is waited for any more. */
	goOn(): void {
		this.wait = Wait.Nothing;
		this.stream.resume();
	}

	/** What was held, or here in part; null when there is nothing. */
	take(): Buffer | null {
		return this.tail.bytes > 0 ? this.tail.take() : null;
	}

	/** Nothing of what the client has sent is here. */
	get isQuiet(): boolean {
		return this.wait === Wait.Nothing && this.parting === null && this.tail.bytes === 0;
	}

	/** The type of the first message that is held. */
	get first(): number | undefined {
		return this.tail.first;
	}

	/** A batch is here in part. */
	get isBatchOpen(): boolean {
		return this.ahead.isOpen && this.tail.bytes > 0;
	}

	/** Messages before `at` have been routed; 0: what is held is routed anew. */
	routedTo(at: number): void {
		this.routed = at;
	}

	/** Nothing that the client sends is read any more: it is told `error`, and closed, when `wait` is over. */
	part(error: PgError, wait: Wait): void {
		this.parting = error;
		this.wait = wait;
		this.tail.clear();
	}

	close(): void {
		this.wait = Wait.Closed;
		this.heardAt = this.context.time;
		this.tail.clear();
		this.takeShare(0);
	}

	get isClosed(): boolean {
		return this.wait === Wait.Closed;
	}

	/** What the client sends is held until something else has happened. */
	get isHeld(): boolean {
		return this.wait !== Wait.Nothing && this.wait !== Wait.Closed;
	}
}
