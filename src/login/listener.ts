// Where one thread accepts clients: the proxy's TCP port, which the other workers listen on, too (SO_REUSEPORT). The main thread ends
// the listener of a worker that is stuck, so that the kernel gives it no more clients; once the worker is back it opens another here.

import type { Socket, SocketHandler } from "bun";
import { cannotListen } from "../errors.ts";
import { duplicateDescriptor } from "../net/options.ts";
import type { Stream } from "../net/stream.ts";

/** The thread that it is of. */
export interface ListenerOwner {
	readonly general: { readonly host: string; readonly port: number };
	readonly handlers: SocketHandler<Stream>;
	/** A connection has come in. */
	accept(socket: Socket<Stream>): void;
	/** @param fd the listener's descriptor; -1 when it has none that can be told */
	onListening(fd: number): void;
	/** No other listener could be opened yet; said at each attempt. */
	onCannotListen(error: Error): void;
}

export class Listener {
	private readonly owner: ListenerOwner;
	private readonly passed: readonly number[];
	private sockets: { stop(): void }[] = [];
	/** The main thread has ended the listener, and no other could be opened yet. */
	private isDeaf = false;

	/** @param passed sockets that listen already (`ServiceManager.sockets`), and that all workers accept on, in place of sockets of their own */
	constructor(owner: ListenerOwner, passed: readonly number[]) {
		this.owner = owner;
		this.passed = passed;
	}

	/** @param shared other workers listen on the same port @throws Error that says why it cannot */
	listen(shared: boolean): void {
		const { owner } = this;
		const { host, port } = owner.general;
		const socket = { ...owner.handlers, open: (socket: Socket<Stream>) => owner.accept(socket) };
		if (this.passed.length > 0) {
			// `fd` is not in Bun's types. Its end by the main thread would be the end for all: the others accept in its stead.
			for (const fd of this.passed) this.sockets.push(listenOn({ fd: duplicateDescriptor(fd), socket }));
			owner.onListening(-1);
			return;
		}
		try {
			const listener = listenOn({ hostname: host, port, reusePort: shared, socket });
			this.sockets.push(listener);
			owner.onListening(listener.fd ?? -1);
		} catch (error) {
			throw cannotListen(error, `${host}:${port}`);
		}
	}

	/** Opens another listener: the main thread ended the one before while this thread was stuck. */
	listenAgain(): void {
		this.stop();
		this.isDeaf = true;
		this.tick();
	}

	/** Tried at each tick until it works: the other workers may lose their listeners, too, and then nobody would accept on the port. */
	tick(): void {
		if (!this.isDeaf) return;
		try {
			this.listen(true);
			this.isDeaf = false;
		} catch (error) {
			this.owner.onCannotListen(error as Error);
		}
	}

	/** For good, unless `listen` follows. */
	stop(): void {
		for (const socket of this.sockets) socket.stop();
		this.sockets = [];
		this.isDeaf = false;
	}
}

/** `fd`, as an option and of what comes back, is not in Bun's types. */
function listenOn(options: { readonly socket: SocketHandler<Stream>; readonly [option: string]: unknown }) {
	return Bun.listen<Stream>(options as unknown as Parameters<typeof Bun.listen<Stream>>[0]) as {
		stop(): void;
		readonly fd?: number;
	};
}
