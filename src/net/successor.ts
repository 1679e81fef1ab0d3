// The process that has taken over, as the old one speaks with it of clients (the new one's end: `ClientsFrom`). The old one sends
// frames, of one length: "client", with two descriptors, the client's connection and a file in memory that has its passport;
// then "go", or "keep" when it goes on here. The new one says lines: "clients" when it takes any, "ready" or "refused" of each, and
// "cancel" for a key that it does not know. When the connection ends, whoever has not been told "go" is the old one's. Both say "order"
// for what an operator has said to them, and "obeyed" of what they have heard: the old one with a file, if the new one's "clients" says that
// it understands more than those of before (`LANGUAGE`). Then the old one also says "user", with a file, and is answered "known" or "unknown".

import type { Socket } from "bun";
import { closeDescriptor, descriptor, sendNow } from "./options.ts";
import { frame, sendDescriptors, writeMemoryFile } from "./passing.ts";

/** Most bytes of a line that is here in part. */
const LONGEST_LINE = 4096;

/** What processes of this version say to each other beyond those of before: 2, orders and users. */
export const LANGUAGE = 2;

/** What becomes of clients. */
export interface Departures {
	/** It takes clients from now on. @param language see `LANGUAGE`; 1, or what is no number, before there was any */
	onWelcome(language: number): void;
	/** It waits for this one. */
	onReady(pid: number): void;
	onRefused(pid: number, why: string): void;
	onCancel(pid: number, secret: Uint8Array): void;
	onOrder(id: number, text: string): void;
	/** It has done what it was told. */
	onObeyed(id: number): void;
	/** A user may come to it. */
	onKnown(id: number): void;
	onUnknown(id: number, why: string): void;
	/** It is gone, or no longer to be spoken with. */
	onGone(): void;
}

export class Successor {
	private readonly socket: Socket<undefined>;
	private of: Departures | null = null;
	private rest = "";
	private isOver = false;

	constructor(socket: Socket<undefined>) {
		this.socket = socket;
	}

	/** Somebody has clients for it. */
	serve(of: Departures): void {
		this.of = of;
	}

	get isServed(): boolean {
		return this.of !== null;
	}

	onData(chunk: Buffer): void {
		const lines = (this.rest + chunk.toString()).split("\n");
		this.rest = lines.pop()!;
		if (this.rest.length > LONGEST_LINE) this.end();
		for (const line of lines) if (!this.isOver) this.onLine(line);
	}

	private onLine(line: string): void {
		const [word, number, ...rest] = line.split(" ");
		const pid = Number(number);
		if (word === "clients") this.of?.onWelcome(pid);
		else if (!Number.isInteger(pid)) this.end();
		else if (word === "ready") this.of?.onReady(pid);
		else if (word === "refused") this.of?.onRefused(pid, rest.join(" "));
		else if (word === "cancel") this.of?.onCancel(pid, Buffer.from(rest[0] ?? "", "hex"));
		else if (word === "order") this.of?.onOrder(pid, rest.join(" "));
		else if (word === "obeyed") this.of?.onObeyed(pid);
		else if (word === "known") this.of?.onKnown(pid);
		else if (word === "unknown") this.of?.onUnknown(pid, rest.join(" "));
		else this.end();
	}

	/** @returns false when it cannot be sent now, and nothing of it was */
	give(pid: number, fd: number, passport: Uint8Array): boolean {
		return this.send("client", pid, [fd], passport);
	}

	/** @returns as `give` */
	order(id: number, text: string): boolean {
		return this.send("order", id, [], Buffer.from(text));
	}

	/** @returns as `give` */
	introduce(id: number, bytes: Uint8Array): boolean {
		return this.send("user", id, [], bytes);
	}

	private send(word: string, number: number, descriptors: readonly number[], bytes: Uint8Array): boolean {
		if (this.isOver) return false;
		const file = writeMemoryFile(bytes);
		if (file < 0) return false;
		const isSent = sendDescriptors(descriptor(this.socket), frame(word, number), [...descriptors, file]);
		closeDescriptor(file);
		return isSent;
	}

	/** @returns false when it cannot be told: then it never hears of it */
	say(word: "go" | "keep" | "obeyed", pid: number): boolean {
		const bytes = Buffer.from(frame(word, pid));
		return !this.isOver && sendNow(descriptor(this.socket), bytes) === bytes.length;
	}

	/** For good, whichever end does it. */
	end(): void {
		if (this.isOver) return;
		this.isOver = true;
		this.socket.terminate();
		this.of?.onGone();
	}
}
