// A CancelRequest goes to the server over a connection of its own (PostgreSQL docs, "Canceling Requests in Progress").
// The promise settles when the server has closed that connection: its signal is sent by then, and a query that we
// send afterwards cannot be hit by it.

import type { SocketHandler } from "bun";
import { connect, type Target } from "../net/connect.ts";
import type { KeepAlive } from "../net/options.ts";
import type { Stream } from "../net/stream.ts";
import { cancelRequest } from "../wire/frontend-messages.ts";

/** Resolves also when the server cannot be reached: a cancel has no answer, and nobody waits for one. */
export async function sendCancel(
	target: Target,
	pid: number,
	secret: Uint8Array,
	timeout: number,
	handlers: SocketHandler<Stream>,
	keepAlive: KeepAlive,
): Promise<void> {
	const { promise, resolve } = Promise.withResolvers<void>();
	const owner = { onData() {}, onDrain() {}, onClose: () => resolve() };
	try {
		const stream = await connect(target, timeout, owner, handlers, keepAlive);
		const timer = setTimeout(() => stream.terminate(), timeout);
		stream.writeAll(cancelRequest(pid, secret));
		await promise;
		clearTimeout(timer);
	} catch {
		// As said: no answer.
	}
}
