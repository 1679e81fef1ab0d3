// A CancelRequest goes to the server over a connection of its own (PostgreSQL docs, "Canceling Requests in Progress").
// The promise settles when the server has closed that connection: its signal is sent by then, and a query that we
// send afterwards cannot be hit by it.

import type { SocketHandler } from "bun";
import { connect, type Host } from "../net/connect.ts";
import type { Descriptors } from "../net/descriptors.ts";
import type { KeepAlive } from "../net/options.ts";
import type { Stream } from "../net/stream.ts";
import { cancelRequest } from "../wire/frontend-messages.ts";

/**
 * Sends a CancelRequest, which has no answer: never rejects.
 * @param timeout for connecting, and for the server to close that connection, ms
 * @returns whether it is over. It is not where the server did not close the connection in time (frozen, say): it may still read the
 * request, at any time later
 */
export async function sendCancel(
	target: Host,
	pid: number,
	secret: Uint8Array,
	timeout: number,
	handlers: SocketHandler<Stream>,
	keepAlive: KeepAlive,
	descriptors: Descriptors,
): Promise<boolean> {
	const { promise, resolve } = Promise.withResolvers<void>();
	const owner = { onData() {}, onDrain() {}, onClose: () => resolve() };
	let isLate = false;
	try {
		const stream = await connect(target, timeout, owner, handlers, keepAlive, descriptors);
		const timer = setTimeout(() => {
			isLate = true;
			stream.terminate();
		}, timeout);
		stream.writeAll(cancelRequest(pid, secret));
		await promise;
		clearTimeout(timer);
	} catch {
		// Nothing was sent.
	}
	return !isLate;
}
