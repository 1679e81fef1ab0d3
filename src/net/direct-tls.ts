// TLS that begins with the connection's first byte (`sslnegotiation=direct`): by the time that this byte is seen it has been read, and
// Bun's sockets cannot be given it back. So TLS comes from node:tls here, over a Duplex that is the connection; towards the Stream
// it looks like a socket of Bun's. It costs more for each byte than `acceptTls`, and is otherwise the same.

import { Duplex } from "node:stream";
import { TLSSocket, type TLSSocketOptions } from "node:tls";
import type { Socket, SocketHandler } from "bun";
import { Stream, type StreamOwner } from "./stream.ts";
import { ALPN, judgeClient, type Secured, type TlsIdentity } from "./tls.ts";

/** The connection as node:tls reads and writes it: ciphertext. */
class Wire extends Duplex implements StreamOwner {
	private readonly stream: Stream;
	/** Called when what `_write` was given has gone. */
	private written: (() => void) | null = null;

	constructor(socket: Socket<Stream>) {
		super();
		this.stream = new Stream(socket, this);
		socket.data = this.stream;
	}

	onData(chunk: Buffer): void {
		if (!this.push(chunk)) this.stream.pause();
	}

	onDrain(): void {
		const { written } = this;
		this.written = null;
		written?.();
	}

	onClose(): void {
		this.push(null);
		this.destroy();
	}

	override _read(): void {
		this.stream.resume();
	}

	override _write(chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
		if (this.stream.write(chunk, 0, chunk.length, false)) callback();
		else this.written = callback;
	}

	override _final(callback: () => void): void {
		this.stream.end();
		callback();
	}

	override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
		this.stream.terminate();
		callback(error);
	}
}

/** What a Stream, and whoever judges its handshake, ask of a socket, answered by node:tls. */
class DirectSocket {
	readonly data: Stream;
	private readonly tls: TLSSocket;
	private readonly wire: Wire;

	constructor(tls: TLSSocket, wire: Wire, data: Stream) {
		this.tls = tls;
		this.wire = wire;
		this.data = data;
	}

	/** Takes all or nothing. @returns how much it took; -1 when it is closed */
	write(bytes: Uint8Array, start = 0, length = bytes.length): number {
		if (this.tls.destroyed || this.tls.writableEnded) return -1;
		// Bun's TLSSocket (1.4.5) does not wait for the Duplex that it writes to.
		if (this.tls.writableNeedDrain || this.wire.writableNeedDrain) return 0;
		// A copy: the Stream's buffers are filled again.
		this.tls.write(Buffer.from(bytes.subarray(start, start + length)));
		return length;
	}

	pause(): void {
		this.tls.pause();
	}

	resume(): void {
		this.tls.resume();
	}

	end(): void {
		this.tls.end();
	}

	terminate(): void {
		this.tls.destroy();
	}

	getTLSVersion(): string {
		return this.tls.getProtocol() ?? "";
	}

	getCipher(): { name?: string } {
		return this.tls.getCipher();
	}

	getPeerCertificate(): object | undefined {
		return this.tls.getPeerCertificate();
	}
}

/**
 * Begins TLS as its server, with `first` read already.
 * @param handlers hear of the plain text as they would of a socket's
 */
export function acceptDirectTls(
	stream: Stream,
	first: Buffer,
	identity: TlsIdentity,
	handlers: SocketHandler<Stream>,
	done: (outcome: Secured | string) => void,
): void {
	stream.encrypt((socket) => overWire(socket, first, stream, identity, handlers), judgeClient, done);
}

function overWire(
	socket: Socket<Stream>,
	first: Buffer,
	stream: Stream,
	identity: TlsIdentity,
	handlers: SocketHandler<Stream>,
): Socket<Stream> {
	const wire = new Wire(socket);
	const options: TLSSocketOptions = {
		isServer: true,
		cert: identity.certificate,
		key: identity.key,
		...(identity.authorities === null ? {} : { ca: identity.authorities, requestCert: true }),
		rejectUnauthorized: false,
		minVersion: identity.minimum === 0x304 ? "TLSv1.3" : "TLSv1.2",
		ALPNProtocols: [ALPN],
	} as TLSSocketOptions;
	const tls = new TLSSocket(wire as never, options);
	const direct = new DirectSocket(tls, wire, stream) as unknown as Socket<Stream>;
	tls.on("secure", () => {
		// A client that does not say what it is about to speak may have been sent here by somebody else (ALPACA).
		const agreed = (tls as { alpnProtocol?: string | false | null }).alpnProtocol === ALPN;
		const without = new Error("direct TLS without ALPN protocol negotiation extension");
		// A code as text, whatever its type says.
		const wrong = tls.authorizationError as Error | string | null | undefined;
		handlers.handshake?.(direct, agreed, agreed ? (wrong ? new Error(String(wrong)) : null) : without);
	});
	tls.on("data", (chunk: Buffer) => handlers.data?.(direct, chunk));
	// Whichever of them is full has the other told, too: `write` asks both.
	for (const end of [tls, wire]) end.on("drain", () => handlers.drain?.(direct));
	tls.on("error", (error: Error) => handlers.handshake?.(direct, false, error));
	// The peer has said its last, or what is no TLS: Bun's TLSSocket (1.4.5) tells both so, and would wait for what is yet to be written,
	// for as long as the peer does not read.
	tls.on("end", () => wire.destroy());
	tls.on("close", () => handlers.close?.(direct));
	wire.push(first);
	return direct;
}
