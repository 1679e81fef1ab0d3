// A restart that drops nobody: a new process (`--takeover`) is handed the sockets that the running one listens on, by a Unix socket that
// nobody but the same user may use. The sockets go on, and with them who waits in their queues: the new process accepts there before the
// old one stops to. What both say is a line each: "takeover", the offer with the descriptors, "listening", "yours".

import type { Socket, UnixSocketListener } from "bun";
import { closeDescriptor, descriptor, setNonBlocking } from "./options.ts";
import { Channel, mayHave, peerOf, sendDescriptors } from "./passing.ts";
import { listenUnix } from "./unix.ts";

/** Where clients are accepted, as the old process says it with its descriptors. */
interface Offer {
	readonly host: string;
	readonly port: number;
}

/** What the process does that may be taken over. */
export interface Predecessor {
	/** Descriptors of all sockets that it listens on, or null when it cannot be taken over (any more). */
	offer(): readonly number[] | null;
	/** Another process listens now. */
	onTakenOver(pid: number): void;
	refused(why: string): void;
}

/** The old process' end. */
export class TakeoverListener {
	private readonly where: Offer;
	private readonly of: Predecessor;
	private listener: UnixSocketListener<undefined> | null = null;
	/** Whom the sockets were offered to. */
	private heir: Socket<undefined> | null = null;

	constructor(where: Offer, of: Predecessor) {
		this.where = where;
		this.of = of;
	}

	/** @throws Error that names the path when it cannot be had */
	async listen(path: string): Promise<void> {
		const handlers = {
			data: (socket: Socket<undefined>, chunk: Buffer) => this.onLine(socket, chunk.toString()),
			close: (socket: Socket<undefined>) => this.onClose(socket),
		};
		this.listener = await listenUnix(path, 0o600, () => {}, handlers);
	}

	/** Whether another process has our sockets, and may have them for good. */
	get isOffered(): boolean {
		return this.heir !== null;
	}

	private onLine(socket: Socket<undefined>, line: string): void {
		const { uid, pid } = peerOf(descriptor(socket));
		if (!mayHave(uid, process.getuid?.())) this.refuse(socket, `user ${uid} is another than ours`);
		else if (line === "takeover\n") this.offer(socket);
		else if (line === "listening\n" && socket === this.heir) {
			this.stop();
			this.of.onTakenOver(pid);
			// What is ours alone is free by now: it may take the same ports and paths.
			socket.end("yours\n");
		} else this.refuse(socket, "it does not speak our language");
	}

	private offer(socket: Socket<undefined>): void {
		const sockets = this.heir === null ? this.of.offer() : null;
		if (sockets === null) this.refuse(socket, "it starts, stops, or is being taken over already");
		else {
			this.heir = socket;
			if (!sendDescriptors(descriptor(socket), `${JSON.stringify(this.where)}\n`, sockets))
				this.refuse(socket, "its sockets could not be sent");
		}
	}

	private refuse(socket: Socket<undefined>, why: string): void {
		this.of.refused(why);
		socket.end(`refused: ${why}\n`);
	}

	/** The new process may have failed to start: another may try. */
	private onClose(socket: Socket<undefined>): void {
		if (socket === this.heir) this.heir = null;
	}

	stop(): void {
		this.listener?.stop();
		this.listener = null;
	}
}

/** The new process' end. */
export class Takeover {
	private readonly channel: Channel;
	/** Descriptors of the sockets to accept on. */
	readonly sockets: readonly number[];

	/** @throws Error that says why there is nothing to take over: the process goes on as if nothing had been */
	private constructor(channel: Channel, { host, port }: Offer) {
		this.channel = channel;
		channel.send("takeover\n");
		const { text, descriptors } = channel.receive();
		const failure = (why: string): Error => {
			for (const fd of descriptors) closeDescriptor(fd);
			channel.close();
			return new Error(`takeover: ${why}`);
		};
		const offer = offerIn(text);
		if (offer === null) throw failure(`the running process says: ${text.trim() || "nothing"}`);
		if (offer.host !== host || offer.port !== port)
			throw failure(`the running process listens on ${offer.host}:${offer.port}, and not on ${host}:${port}`);
		if (descriptors.length === 0) throw failure("no sockets came");
		for (const fd of descriptors) setNonBlocking(fd);
		this.sockets = descriptors;
	}

	/** @returns null when no process answers at `path` @throws Error */
	static begin(path: string, where: Offer): Takeover | null {
		const channel = Channel.open(path);
		return channel === null ? null : new Takeover(channel, where);
	}

	/** Called when all workers listen. @returns whether the old process has made way */
	finish(): boolean {
		this.channel.send("listening\n");
		const { text } = this.channel.receive();
		this.channel.close();
		return text === "yours\n";
	}
}

/** Null: the text is something else, or not all of it. */
function offerIn(text: string): Offer | null {
	try {
		return text.startsWith("{") ? JSON.parse(text) : null;
	} catch {
		return null;
	}
}
