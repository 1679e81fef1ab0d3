// A Bun socket with an output queue. Who writes is told when to stop; nothing is dropped, nothing is reordered.
// Its `owner` is a client or a server, or logs in to be one; it knows none of them, and nobody else knows TCP from Unix, or TLS from
// plain text.
// Bun's `write` takes what the kernel takes and forgets the rest, so the rest is queued here until `drain`.

import type { Socket, SocketHandler } from "bun";
import { closeDescriptor, descriptor, duplicate } from "./options.ts";
import { Outgoing, settle } from "./outgoing.ts";
import { peerOf } from "./passing.ts";
import { type SystemUser, systemUser } from "./system-user.ts";
import type { Judge, Secured } from "./tls.ts";

export interface StreamOwner {
	onData(chunk: Buffer): void;
	/** All that was queued is written: the source may be read again. */
	onDrain(): void;
	/** The connection is closed, by the peer or by `end` or `terminate`. Called once. */
	onClose(error: Error | undefined): void;
}

/** Where bytes for a peer go: a socket, or the port that stands in for one (shards/shard-port.ts). As in `Stream`. */
export interface Sink {
	/** Joins pieces into one write: they go out with its next `flush`, or before the next write. */
	readonly out: Outgoing;
	/** Of a message only the beginning has been written: nothing but its rest may follow. */
	midMessage: boolean;
	readonly queued: number;
	readonly bytesIn: number;
	readonly bytesOut: number;
	write(bytes: Uint8Array, start: number, length: number, lasts?: boolean): boolean;
	/** Writes whole messages of our own. In the middle of another message (`midMessage`) it ends the connection instead. */
	writeAll(bytes: Uint8Array): boolean;
	pause(): void;
	resume(): void;
	end(): void;
	terminate(): void;
}

/** What counts a connection. `free`: there is one less; called once. */
export interface Counted {
	free(): void;
}

const UNOWNED: StreamOwner = { onData() {}, onDrain() {}, onClose() {} };

export class Stream implements Sink {
	owner: StreamOwner;
	private socket: Socket<Stream>;
	readonly out: Outgoing = new Outgoing(this);
	midMessage = false;
	private queue: Uint8Array[] | null = null;
	/** Bytes that the kernel has not taken yet. */
	queued = 0;
	bytesIn = 0;
	bytesOut = 0;
	/** Not read; written here only. */
	paused = false;
	private closing = false;
	closed = false;
	/** Where its descriptor, and what else it is, is counted, until it is closed. */
	counted: Counted | null = null;
	/** How it is encrypted; null: it is not (yet). */
	secured: Secured | null = null;
	/** Who judges a handshake and hears of it, while there is one. */
	private handshake: { readonly judge: Judge; readonly done: (outcome: Secured | string) => void } | null = null;

	/** `owner` may follow, but before the first event. */
	constructor(socket: Socket<Stream>, owner: StreamOwner = UNOWNED) {
		this.socket = socket;
		this.owner = owner;
	}

	/**
	 * Writes `length` bytes of `bytes`.
	 * @param lasts false: the buffer is filled again, so that what the kernel does not take at once is copied
	 * @returns false when some of it is queued: stop the source until `onDrain`.
	 */
	write(bytes: Uint8Array, start: number, length: number, lasts = true): boolean {
		if (this.out.fill > 0) this.out.flush();
		if (this.closed || this.closing || length === 0) return this.queue === null;
		this.bytesOut += length;
		let taken = 0;
		if (this.queue === null) {
			// With one argument the call costs less, and most writes are a whole chunk.
			const whole = start === 0 && length === bytes.length;
			taken = whole ? this.socket.write(bytes) : this.socket.write(bytes, start, length);
			if (taken < 0 || taken === length) return true;
		}
		const rest = bytes.subarray(start + taken, start + length);
		// A copy: a Buffer's `slice` would be a view.
		this.enqueue(lasts ? rest : new Uint8Array(rest));
		return false;
	}

	writeAll(bytes: Uint8Array): boolean {
		// The peer would take it for the rest of the message that is cut off.
		if (this.midMessage) this.terminate();
		return this.write(bytes, 0, bytes.length);
	}

	private enqueue(rest: Uint8Array): void {
		this.queue ??= [];
		this.queue.push(rest);
		this.queued += rest.length;
	}

	/** Called by the socket handlers only. */
	drain(): void {
		const queue = this.queue;
		if (queue === null) return;
		while (queue.length > 0) {
			const head = queue[0]!;
			const taken = this.socket.write(head, 0, head.length);
			if (taken < 0) return;
			this.queued -= taken;
			if (taken < head.length) {
				queue[0] = head.subarray(taken);
				return;
			}
			queue.shift();
		}
		this.queue = null;
		if (this.closing) this.socket.end();
		else this.owner.onDrain();
	}

	pause(): void {
		if (this.paused || this.closed) return;
		this.paused = true;
		this.socket.pause();
	}

	resume(): void {
		if (!this.paused || this.closed) return;
		this.paused = false;
		this.socket.resume();
	}

	/** Closes after what is queued has been written. Nothing written afterwards goes out. */
	end(): void {
		if (this.closed || this.closing) return;
		this.out.flush();
		this.closing = true;
		// A paused socket would not see the peer's FIN, and `close` would never come.
		this.resume();
		if (this.queue === null) this.socket.end();
	}

	/** Closes at once, with what is queued unsent. */
	terminate(): void {
		if (this.closed) return;
		this.closing = true;
		this.out.clear();
		this.queue = null;
		this.queued = 0;
		this.socket.terminate();
	}

	/** All that was written has gone, whole messages, and the peer is read: what it sends next may as well be another's to read. */
	get isQuiet(): boolean {
		if (this.closed || this.closing || this.paused || this.midMessage || this.secured !== null) return false;
		return this.queue === null && this.out.fill === 0;
	}

	/** Who has connected, by a Unix socket. */
	get systemUser(): SystemUser {
		return systemUser(peerOf(descriptor(this.socket)).uid);
	}

	/** The connection comes from another thread, which has counted so much. */
	goOnCounting(bytesIn: number, bytesOut: number): void {
		this.bytesIn = bytesIn;
		this.bytesOut = bytesOut;
	}

	/**
	 * Goes on encrypted (secure.ts): what has been written before goes out in plain text.
	 * @param put has another socket take over, whose `data` this stream is
	 * @param done what the handshake has come to, or why it has failed: the connection is then to be ended. Not called when the peer
	 * leaves before (`onClose`)
	 */
	encrypt(
		put: (socket: Socket<Stream>) => Socket<Stream>,
		judge: Judge,
		done: (outcome: Secured | string) => void,
	): void {
		this.out.flush();
		this.handshake = { judge, done };
		this.socket = put(this.socket);
	}

	/** Called by the socket handlers only. @param verified what is wrong with the peer's certificate */
	shookHands(ok: boolean, verified: Error | undefined): void {
		const { handshake } = this;
		if (handshake === null) return;
		this.handshake = null;
		const outcome = handshake.judge(this.socket, ok, verified);
		if (typeof outcome !== "string") this.secured = outcome;
		handshake.done(outcome);
	}

	/**
	 * Gives the connection up without closing it. Its descriptor stays counted: whoever adopts it says when it is closed.
	 * @returns another descriptor of the connection, or -1 when there is none to be had (the stream then goes on): what TLS has agreed
	 * on cannot go with it
	 */
	detach(): number {
		if (this.secured !== null) return -1;
		const fd = duplicate(this.socket);
		if (fd < 0) return -1;
		// Nothing may be read here any more: what the peer sends next is for the new owner.
		this.pause();
		this.closed = true;
		this.counted = null;
		this.socket.close();
		return fd;
	}

	/** Called by the socket handlers only. */
	gone(error: Error | undefined): void {
		if (this.closed) return;
		this.closed = true;
		this.counted?.free();
		this.counted = null;
		this.out.clear();
		this.queue = null;
		this.queued = 0;
		this.owner.onClose(error);
	}
}

/** Called with what an event of `stream` has thrown, which costs that connection (`Contain.failed`). */
type Failed = (error: unknown, stream: Stream) => void;

/** The handlers of every socket we have, one object for all of them; the connection is in `socket.data`. */
export function socketHandlers(failed: Failed): SocketHandler<Stream> {
	return {
		binaryType: "buffer",
		data(socket, chunk) {
			const stream = socket.data;
			stream.bytesIn += chunk.length;
			try {
				stream.owner.onData(chunk);
			} catch (error) {
				failed(error, stream);
			}
			settle();
		},
		drain(socket) {
			try {
				socket.data.drain();
			} catch (error) {
				failed(error, socket.data);
			}
			settle();
		},
		handshake(socket, ok, error) {
			try {
				socket.data.shookHands(ok, error ?? undefined);
			} catch (failure) {
				failed(failure, socket.data);
			}
			settle();
		},
		close(socket, error) {
			gone(socket, error ?? undefined, failed);
		},
		error(socket, error) {
			socket.data?.terminate();
			gone(socket, error, failed);
		},
	};
}

function gone(socket: Socket<Stream>, error: Error | undefined, failed: Failed): void {
	const stream = socket.data;
	if (stream === undefined) return;
	try {
		stream.gone(error);
	} catch (failure) {
		failed(failure, stream);
	}
	settle();
}

/**
 * A connection that another thread accepted or opened, by its descriptor, which belongs to the new socket from now on.
 * Its `data` is for the caller to set at once. `{ fd }` is not in Bun's types.
 */
export async function adoptSocket(fd: number, handlers: SocketHandler<Stream>): Promise<Socket<Stream>> {
	try {
		return await Bun.connect<Stream>({ fd, socket: handlers } as unknown as Parameters<typeof Bun.connect<Stream>>[0]);
	} catch (error) {
		// Bun (1.4.5) leaves a descriptor open that it cannot use.
		closeDescriptor(fd);
		throw error;
	}
}
