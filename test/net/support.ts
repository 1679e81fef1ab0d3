// A socket and an owner for Stream under test, whose every step the test decides.

import type { Socket, TCPSocketListener } from "bun";
import { Stream, type StreamOwner, socketHandlers } from "../../src/net/stream.ts";
import type { Secured } from "../../src/net/tls.ts";
import { until } from "../support/until.ts";

/** A kernel that takes what it is told to take. */
export class Kernel {
	room = 0;
	ended = false;
	terminated = false;
	paused = false;
	private parts: Buffer[] = [];

	readonly socket = {
		write: (bytes: Uint8Array, start = 0, length = bytes.length - start) => {
			if (this.terminated) return -1;
			const taken = Math.min(length, this.room);
			this.room -= taken;
			this.parts.push(Buffer.from(bytes.subarray(start, start + taken)));
			return taken;
		},
		end: () => {
			this.ended = true;
		},
		terminate: () => {
			this.terminated = true;
		},
		pause: () => {
			this.paused = true;
		},
		resume: () => {
			this.paused = false;
		},
	} as unknown as Socket<Stream>;

	get bytes(): Buffer {
		return Buffer.concat(this.parts);
	}
}

export class Owner implements StreamOwner {
	drained = 0;
	closed: (Error | undefined)[] = [];
	onData(): void {}
	onDrain(): void {
		this.drained++;
	}
	onClose(error: Error | undefined): void {
		this.closed.push(error);
	}
}

/** As the proxy has them; what a handler throws fails the test. */
export const HANDLERS = socketHandlers((error) => {
	throw error;
});

/** An owner that keeps what it hears. */
export class Listener extends Owner {
	private readonly chunks: Buffer[] = [];
	length = 0;

	override onData(chunk?: Buffer): void {
		this.chunks.push(chunk!);
		this.length += chunk!.length;
	}

	get heard(): Buffer {
		return Buffer.concat(this.chunks);
	}
}

/** A port of this process where whoever comes is given to `open`, with a stream of his own. */
export function listen(open: (stream: Stream) => void): TCPSocketListener<Stream> {
	return Bun.listen<Stream>({
		hostname: "127.0.0.1",
		port: 0,
		socket: {
			...HANDLERS,
			open(socket) {
				socket.data = new Stream(socket);
				open(socket.data);
			},
		},
	});
}

/** A stream to a port of this process. */
export async function dial(port: number, owner: StreamOwner): Promise<Stream> {
	const socket = await Bun.connect<Stream>({ hostname: "127.0.0.1", port, socket: HANDLERS });
	socket.data = new Stream(socket, owner);
	return socket.data;
}

/** Megabytes that no shift or loss leaves as they are. */
export const MUCH: Buffer = Buffer.alloc(8 << 20);
for (let i = 0; i < MUCH.length; i += 4) MUCH.writeUInt32LE(Math.imul(i, 0x9e3779b1) >>> 0, i);

/** `from` writes more than fits to a reader that does not read at first, and ends or waits for it to drain. */
export async function pour(from: Stream, writer: Owner, to: Stream, reader: Listener, ends: boolean): Promise<void> {
	const before = reader.length;
	to.pause();
	let flows = true;
	for (let at = 0; at < MUCH.length; at += 1 << 20) flows = from.write(MUCH, at, 1 << 20) && flows;
	if (ends) {
		from.end();
		from.writeAll(Buffer.from("too late"));
	}
	if (flows || from.queued === 0) throw new Error("all of it fits");
	to.resume();
	await until(() => reader.length === before + MUCH.length, "all of it");
	if (!reader.heard.subarray(before).equals(MUCH)) throw new Error("it is another");
	if (ends) await until(() => reader.closed.length === 1 && writer.closed.length === 1, "both ends to close");
	else await until(() => writer.drained === 1 && from.queued === 0, "it to have drained");
}

/** A server that goes on with TLS after a client's first bytes. */
export class TlsServer implements Disposable {
	readonly owner = new Listener();
	/** Of the client that came last. */
	stream: Stream | null = null;
	/** What its handshake has come to. */
	outcome: Secured | string | null = null;
	private readonly listener;

	/** @param begin TLS, after those bytes */
	constructor(begin: (stream: Stream, first: Buffer, done: (outcome: Secured | string) => void) => void) {
		this.listener = listen((stream) => {
			this.stream = stream;
			stream.owner = {
				onDrain() {},
				onClose: (error) => this.owner.onClose(error),
				onData: (first) => {
					stream.owner = this.owner;
					begin(stream, first, (outcome) => {
						this.outcome = outcome;
						if (typeof outcome === "string") stream.terminate();
					});
				},
			};
		});
	}

	get port(): number {
		return this.listener.port;
	}

	[Symbol.dispose](): void {
		this.stream?.terminate();
		this.listener.stop(true);
	}
}
