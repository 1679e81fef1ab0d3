// Opens sockets to servers: TCP by host and port, Unix by folder. Called by backend/ only; keepalive is set here, once.
// A connection that another thread hands over comes by `adoptSocket` (stream.ts).

import type { SocketHandler } from "bun";
import { startTimer } from "../contain.ts";
import { reasonOf } from "../errors.ts";
import type { Descriptors } from "./descriptors.ts";
import { type KeepAlive, setKeepAlive } from "./options.ts";
import { requestTls } from "./secure.ts";
import { Stream, type StreamOwner } from "./stream.ts";
import type { TlsDemands } from "./tls.ts";
import { isSocketFolder, socketAddress, socketFailure, unixSocketPath } from "./unix.ts";

export interface Host {
	/** A host name or address, or the folder of a Unix socket. */
	readonly host: string;
	readonly port: number;
	/** Whose address it is, for its certificate. Default: `host`. */
	readonly name?: string;
}

/** What connections to servers have in common. */
export interface Dialling {
	readonly handlers: SocketHandler<Stream>;
	readonly keepAlive: KeepAlive;
	readonly descriptors: Descriptors;
}

/** And what those to one server have. */
export interface ServerDialling extends Dialling {
	/** Null: it is not asked for TLS. Unix sockets never are. */
	readonly tls: TlsDemands | null;
}

/** What to say of a server that `connect` cannot reach; of a socket in libpq's words. */
export function unreachable({ host, port }: Host, error: unknown): string {
	if (!isSocketFolder(host)) return `could not connect to server ${host}:${port}: ${reasonOf(error)}`;
	const path = unixSocketPath(host, port);
	return `connection to server on socket "${path}" failed: ${socketFailure(path, error)}`;
}

/**
 * Connects within `timeout` ms, TLS included.
 * @throws NoDescriptor, or an Error with `code` ECONNREFUSED, ENOTFOUND, ETIMEDOUT …
 */
export async function connect(
	target: Host,
	timeout: number,
	owner: StreamOwner,
	{ handlers, keepAlive, descriptors, tls }: ServerDialling,
): Promise<Stream> {
	const unix = isSocketFolder(target.host);
	const where = unix
		? { unix: socketAddress(unixSocketPath(target.host, target.port)) }
		: { hostname: target.host, port: target.port };
	// Claimed just before the socket is made, in the same turn of the loop: nothing else of this thread can come between.
	descriptors.claim();
	const attempt = Bun.connect<Stream>({ ...where, socket: handlers } as Parameters<typeof Bun.connect<Stream>>[0]);
	attempt.catch(() => descriptors.free());
	let timer: Timer | undefined;
	let stream: Stream | null = null;
	const expired = new Promise<never>((_, reject) => {
		timer = startTimer(timeout, () => {
			const error = new Error(`no answer within ${Math.round(timeout)} ms`) as Error & { code: string };
			error.code = "ETIMEDOUT";
			reject(error);
			// A connection that opens after all has nobody to serve. One that is open already is its stream's to close.
			if (stream !== null) return;
			attempt.then(
				(late) => {
					late.terminate();
					descriptors.free();
				},
				() => {},
			);
		});
	});
	try {
		const socket = await Promise.race([attempt, expired]);
		stream = new Stream(socket, owner);
		stream.counted = descriptors;
		socket.data = stream;
		if (unix) return stream;
		setKeepAlive(socket, keepAlive);
		if (tls === null) return stream;
		try {
			await Promise.race([requestTls(stream, tls, target.name ?? target.host, handlers, owner), expired]);
		} catch (error) {
			stream.terminate();
			throw error;
		}
		return stream;
	} finally {
		clearTimeout(timer);
	}
}
