// A CancelRequest goes to the server over a connection of its own (PostgreSQL docs, "Canceling Requests in Progress"), encrypted
// where the server's is: it bears the key. The promise settles when the server has closed that connection: its signal is sent by
// then, and a query that we send afterwards cannot be hit by it.

import { startTimer } from "../contain.ts";
import { connect, type Host, type ServerDialling } from "../net/connect.ts";
import { cancelRequest } from "../wire/frontend-messages.ts";
import type { Server } from "./server.ts";

/**
 * Sends a CancelRequest for what the server runs.
 * @param name of the server's host
 * @returns as `sendCancel`
 */
export function cancelServer(
	{ address, stream: { secured }, pid, secret }: Server,
	{ name, port }: { readonly name: string; readonly port: number },
	timeout: number,
	dialling: ServerDialling,
): Promise<boolean> {
	// To the address of this connection, and as it is: the host's name may stand for another one by now.
	const target = { host: address, port, name };
	return sendCancel(target, pid, secret, timeout, secured === null ? { ...dialling, tls: null } : dialling);
}

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
	dialling: ServerDialling,
): Promise<boolean> {
	const { promise, resolve } = Promise.withResolvers<void>();
	const owner = { onData() {}, onDrain() {}, onClose: () => resolve() };
	let isLate = false;
	try {
		const stream = await connect(target, timeout, owner, dialling);
		const timer = startTimer(timeout, () => {
			isLate = true;
			stream.terminate();
		});
		stream.writeAll(cancelRequest(pid, secret));
		await promise;
		clearTimeout(timer);
	} catch {
		// Nothing was sent.
	}
	return !isLate;
}
