// Where one thread accepts clients: the proxy's TCP port, which the other workers listen on, too (SO_REUSEPORT). The main thread ends
// the listener of a worker that is stuck, so that the kernel gives it no more clients; once the worker is back it opens another here.

import type { Socket, SocketHandler } from "bun";
import { cannotListen } from "../errors.ts";
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
	private socket: { stop(): void } | null = null;
	/** The main thread has ended the listener, and no other could be opened yet. */
	private isDeaf = false;

	constructor(owner: ListenerOwner) {
		this.owner = owner;
	}

	/** @param shared other workers listen on the same port @throws Error that says why it cannot */
	listen(shared: boolean): void {
		const { owner } = this;
		const { host, port } = owner.general;
		const options = {
			hostname: host,
			port,
			reusePort: shared,
			socket: { ...owner.handlers, open: (socket: Socket<Stream>) => owner.accept(socket) },
		};
		try {
			const socket = Bun.listen<Stream>(options);
			this.socket = socket;
			// `fd` is not in Bun's types.
			owner.onListening((socket as unknown as { fd?: number }).fd ?? -1);
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
		this.socket?.stop();
		this.socket = null;
		this.isDeaf = false;
	}
}
