// A restart that drops nobody: a new process (`--takeover`) is handed the sockets that the running one listens on, by a Unix socket that
// nobody but the same user may use. The sockets go on, and with them who waits in their queues: the new process accepts there before the
// old one stops to. What both say is a line each: "takeover", the offer with the descriptors, "listening", "yours" with a file in memory
// that says what the old one has paused. Then they go on about clients: successor.ts, and `ClientsFrom` here.

import type { Socket } from "bun";
import type { Contain } from "../contain.ts";
import { closeDescriptor, descriptor, setNonBlocking } from "./options.ts";
import { Channel, FRAME, mayHave, peerOf, readMemoryFile, sendDescriptors, writeMemoryFile } from "./passing.ts";
import { LANGUAGE, Successor } from "./successor.ts";
import { listenUnix, type SharedSocket, type UnixListener } from "./unix.ts";

/** Most connections at a time: one is of the process that takes over, others are refused and gone. */
const MOST_VISITORS = 8;
/** Most bytes that say what is paused: a hundred for each of more pools than there may be. */
const LONGEST_PAUSED = 16 << 20;

/** Where clients are accepted, as the old process says it with its descriptors. */
interface Offer {
	readonly host: string;
	readonly port: number;
	/** Path of the Unix socket, whose descriptor is the last; and whether it `isManaged`. */
	readonly unix?: string;
	readonly isManaged?: boolean;
}

/** What another process may go on with. */
interface Sockets {
	/** Descriptors of all TCP sockets that clients are accepted on. */
	readonly tcp: readonly number[];
	readonly unix: SharedSocket | null;
}

/** What the process does that may be taken over. */
export interface Predecessor {
	/** All sockets that it listens on, or null when it cannot be taken over (any more). */
	offer(): Sockets | null;
	/** What is paused, for that process: nobody is let through there by coming later. */
	paused(): string;
	/** Another process listens now, and may take clients. */
	onTakenOver(pid: number, by: Successor): void;
	refused(why: string): void;
}

/** The old process' end. */
export class TakeoverListener {
	private readonly where: Offer;
	private readonly of: Predecessor;
	private readonly contain: Contain;
	private readonly patience: number;
	private listener: UnixListener | null = null;
	/** Whoever has come, and when it has to be over. */
	private readonly visitors = new Map<Socket<undefined>, Timer>();
	/** Whom the sockets were offered to. */
	private heir: Socket<undefined> | null = null;
	/** The heir, once it listens. */
	private successor: Successor | null = null;

	/** @param patience ms from a connection until whoever has come listens */
	constructor(where: Offer, of: Predecessor, contain: Contain, patience: number) {
		this.where = where;
		this.of = of;
		this.contain = contain;
		this.patience = patience;
	}

	/** @throws Error that names the path when it cannot be had */
	async listen(path: string): Promise<void> {
		const handlers = {
			data: (socket: Socket<undefined>, chunk: Buffer) => this.contain.guard(null, () => this.onData(socket, chunk)),
			close: (socket: Socket<undefined>) => this.contain.guard(null, () => this.onClose(socket)),
		};
		this.listener = await listenUnix(path, 0o600, (socket) => this.onVisitor(socket), handlers);
	}

	/** Whether another process may come. */
	get isOpen(): boolean {
		return this.listener !== null;
	}

	/** Whether another process has our sockets, and may have them for good. */
	get isOffered(): boolean {
		return this.heir !== null;
	}

	private onVisitor(socket: Socket<undefined>): void {
		const { uid } = peerOf(descriptor(socket));
		if (!mayHave(uid, process.getuid?.())) this.refuse(socket, `user ${uid} is another than ours`);
		else if (this.visitors.size >= MOST_VISITORS) this.refuse(socket, `${MOST_VISITORS} others are here already`);
		else
			this.visitors.set(
				socket,
				this.contain.later(this.patience, null, () => this.expire(socket)),
			);
	}

	/** Whoever has come does not listen, and may hang: the process goes on as if nobody had come. */
	private expire(socket: Socket<undefined>): void {
		const { pid } = peerOf(descriptor(socket));
		this.refuse(socket, `process ${pid} does not listen within ${this.patience / 1000} s (takeover_timeout)`);
		if (socket === this.heir) this.heir = null;
	}

	private onData(socket: Socket<undefined>, chunk: Buffer): void {
		if (this.successor !== null && socket === this.heir) this.successor.onData(chunk);
		else if (this.visitors.has(socket)) this.onLine(socket, chunk.toString());
	}

	/** @param socket of a visitor: whoever has been told to go is none */
	private onLine(socket: Socket<undefined>, line: string): void {
		if (line === "takeover\n") this.offer(socket);
		else if (line === "listening\n" && socket === this.heir) this.makeWay(socket);
		else this.refuse(socket, "it does not speak our language");
	}

	private makeWay(socket: Socket<undefined>): void {
		const paused = writeMemoryFile(Buffer.from(this.of.paused()));
		if (paused < 0) {
			this.heir = null;
			this.refuse(socket, "there is no memory for what is paused");
			return;
		}
		this.forget(socket);
		this.stop();
		this.successor = new Successor(socket);
		this.of.onTakenOver(peerOf(descriptor(socket)).pid, this.successor);
		// What is ours alone is free by now: it may take the same ports and paths.
		sendDescriptors(descriptor(socket), "yours\n", [paused]);
		closeDescriptor(paused);
		if (!this.successor.isServed) socket.end();
	}

	private offer(socket: Socket<undefined>): void {
		const sockets = this.heir === null ? this.of.offer() : null;
		if (sockets === null) {
			this.refuse(socket, "it starts, stops, or is being taken over already");
			return;
		}
		this.heir = socket;
		const { tcp, unix } = sockets;
		const offer: Offer = unix === null ? this.where : { ...this.where, unix: unix.path, isManaged: unix.isManaged };
		const descriptors = unix === null ? tcp : [...tcp, unix.fd];
		if (!sendDescriptors(descriptor(socket), `${JSON.stringify(offer)}\n`, descriptors))
			this.refuse(socket, "its sockets could not be sent");
	}

	private refuse(socket: Socket<undefined>, why: string): void {
		this.of.refused(why);
		socket.end(`refused: ${why}\n`);
		this.forget(socket);
	}

	private forget(socket: Socket<undefined>): void {
		clearTimeout(this.visitors.get(socket));
		this.visitors.delete(socket);
	}

	/** The new process may have failed to start: another may try. */
	private onClose(socket: Socket<undefined>): void {
		this.forget(socket);
		if (socket !== this.heir) return;
		if (this.successor === null) this.heir = null;
		else this.successor.end();
	}

	stop(): void {
		this.listener?.stop();
		this.listener = null;
		for (const timer of this.visitors.values()) clearTimeout(timer);
	}
}

/** The new process' end. */
export class Takeover {
	private readonly channel: Channel;
	/** Descriptors of the TCP sockets to accept on. */
	readonly sockets: readonly number[];
	/** The Unix socket that the process of before has, too. */
	readonly unix: Sockets["unix"];
	/** Who may come from there, once it has made way. */
	clients: ClientsFrom | null = null;
	/** What it has paused (`Predecessor.paused`); null: it has not said so. */
	paused: string | null = null;

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
		const tcp = [...descriptors];
		const { unix: path, isManaged = false } = offer;
		const unix = typeof path === "string" ? { path, fd: tcp.pop() ?? -1, isManaged } : null;
		if (tcp.length === 0) throw failure("no sockets came");
		for (const fd of descriptors) setNonBlocking(fd);
		this.sockets = tcp;
		this.unix = unix;
	}

	/** @returns null when no process answers at `path` @throws Error */
	static begin(path: string, where: Offer): Takeover | null {
		const channel = Channel.open(path);
		return channel === null ? null : new Takeover(channel, where);
	}

	/**
	 * Called when all workers listen.
	 * @returns whether the old process has made way; false: it says nothing
	 * @throws Error: it goes on, and this one has to go
	 */
	finish(): boolean {
		this.channel.send("listening\n");
		const { text, descriptors } = this.channel.receive();
		const paused = descriptors[0] === undefined ? null : readMemoryFile(descriptors[0], LONGEST_PAUSED);
		for (const fd of descriptors) closeDescriptor(fd);
		if (text === "yours\n") {
			this.paused = paused && Buffer.from(paused).toString();
			this.clients = new ClientsFrom(this.channel, paused !== null);
			return true;
		}
		this.channel.close();
		if (text.startsWith("refused: ")) throw new Error(`takeover: the running process says: ${text.trim()}`);
		return false;
	}
}

/** What the old process has said of one client, or for itself. */
interface Said {
	readonly word: "client" | "go" | "keep" | "order" | "obeyed" | "user";
	/** Of an order or a user, its number. */
	readonly pid: number;
	/** Of a "client", its connection and its passport, of an order or a user the text; -1 and null when they have not come. */
	readonly fd: number;
	readonly passport: Uint8Array | null;
}

/** Clients of the process of before, who come one by one. */
export class ClientsFrom {
	private channel: Channel | null;
	/** Answers that the old one's socket has not taken yet: who is not answered for waits, and keeps all others from coming. */
	private readonly unsent: string[] = [];
	/** It understands orders: those of before, that did not say what is paused, do not. */
	readonly obeys: boolean;

	constructor(channel: Channel, obeys = false) {
		this.channel = channel;
		this.obeys = obeys;
	}

	begin(): void {
		this.channel?.sendNow(`clients ${LANGUAGE}\n`);
	}

	/** Sends what could not be sent before. */
	flush(): void {
		const sent = this.unsent.findIndex((line) => this.channel?.sendNow(line) !== true);
		this.unsent.splice(0, sent < 0 ? this.unsent.length : sent);
	}

	/** @param longest most bytes of a passport @returns null: nothing now, or ever (`isOver`) */
	next(longest: number): Said | null {
		const received = this.channel?.receiveNow(FRAME) ?? null;
		if (received === null) return null;
		const { text, descriptors } = received;
		const [, word, pid] = /^(client|go|keep|order|obeyed|user) (\d+) *\n$/.exec(text) ?? [];
		const files = [...descriptors];
		const fd = word === "client" ? (files.shift() ?? -1) : -1;
		const passport = files[0] === undefined ? null : readMemoryFile(files[0], longest);
		for (const each of files) closeDescriptor(each);
		if (word !== undefined) return { word: word as Said["word"], pid: Number(pid), fd, passport };
		this.end();
		return null;
	}

	get isOver(): boolean {
		return this.channel === null;
	}

	/** @param refusal why the client has to stay there, or null: it may come */
	answer(pid: number, refusal: string | null): void {
		this.unsent.push(refusal === null ? `ready ${pid}\n` : `refused ${pid} ${refusal}\n`);
		this.flush();
	}

	/** @returns false when it cannot be said now */
	order(id: number, text: string): boolean {
		return this.channel?.sendNow(`order ${id} ${text}\n`) ?? false;
	}

	obeyed(id: number): void {
		this.unsent.push(`obeyed ${id}\n`);
		this.flush();
	}

	/** @param refusal why the user's clients have to stay there, or null: they may come */
	met(id: number, refusal: string | null): void {
		this.unsent.push(refusal === null ? `known ${id}\n` : `unknown ${id} ${lineOf(refusal)}\n`);
		this.flush();
	}

	/** A CancelRequest whose key nobody has here. */
	cancel(pid: number, secret: Uint8Array): void {
		this.channel?.sendNow(`cancel ${pid} ${Buffer.from(secret).toString("hex")}\n`);
	}

	end(): void {
		this.channel?.close();
		this.channel = null;
	}
}

/** What a server has said is of any length, and may have lines. */
function lineOf(text: string): string {
	return text.slice(0, 500).replace(/\s+/g, " ");
}

/** Null: the text is something else, or not all of it. */
function offerIn(text: string): Offer | null {
	try {
		return text.startsWith("{") ? JSON.parse(text) : null;
	} catch {
		return null;
	}
}
