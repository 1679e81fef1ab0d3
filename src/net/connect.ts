// Opens sockets to servers: TCP by host and port, Unix by folder. Called by backend/ only; keepalive is set here, once.
// A connection that another thread hands over comes by `adoptSocket` (stream.ts).

import type { SocketHandler } from "bun";
import type { Descriptors } from "./descriptors.ts";
import { type KeepAlive, setKeepAlive } from "./options.ts";
import { Stream, type StreamOwner } from "./stream.ts";

export interface Host {
	/** A host name or address; a path that starts with `/` is the folder of a Unix socket. */
	readonly host: string;
	readonly port: number;
}

/** Where PostgreSQL's clients look for a Unix socket in a folder (libpq, "host"). */
export function unixSocketPath(folder: string, port: number): string {
	return `${folder}/.s.PGSQL.${port}`;
}

/**
 * Connects within `timeout` ms.
 * @throws NoDescriptor, or an Error with `code` ECONNREFUSED, ENOTFOUND, ETIMEDOUT …
 */
export async function connect(
	target: Host,
	timeout: number,
	owner: StreamOwner,
	handlers: SocketHandler<Stream>,
	keepAlive: KeepAlive,
	descriptors: Descriptors,
): Promise<Stream> {
	const unix = target.host.startsWith("/");
	const where = unix
		? { unix: unixSocketPath(target.host, target.port) }
		: { hostname: target.host, port: target.port };
	// Claimed just before the socket is made, in the same turn of the loop: nothing else of this thread can come between.
	descriptors.claim();
	const attempt = Bun.connect<Stream>({ ...where, socket: handlers } as Parameters<typeof Bun.connect<Stream>>[0]);
	attempt.catch(() => descriptors.free());
	let timer: Timer | undefined;
	const expired = new Promise<never>((_, reject) => {
		timer = setTimeout(() => {
			const error = new Error(`no answer within ${Math.round(timeout)} ms`) as Error & { code: string };
			error.code = "ETIMEDOUT";
			reject(error);
			// A connection that opens after all has nobody to serve.
			attempt.then(
				(late) => {
					late.terminate();
					descriptors.free();
				},
				() => {},
			);
		}, timeout);
	});
	try {
		const socket = await Promise.race([attempt, expired]);
		const stream = new Stream(socket, owner);
		stream.counted = descriptors;
		socket.data = stream;
		if (!unix) setKeepAlive(socket, keepAlive);
		return stream;
	} finally {
		clearTimeout(timer);
	}
}
