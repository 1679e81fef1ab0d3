// Descriptors from one process to another, over a Unix socket (SCM_RIGHTS, unix(7)). Linux only.

import { fstatSync, readSync, writeSync } from "node:fs";
import { addressOf, closeDescriptor, hasNews, libc, openMemoryFile, sendNow } from "./options.ts";
import { socketAddress } from "./unix.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** The kernel's own limit (SCM_MAX_FD). */
const MOST = 253;
/** Bytes of a struct cmsghdr. */
const HEADER = 16;
const LONGEST = 4096;
/** Seconds to wait for the other process. */
const PATIENCE = 5;

/** A struct msghdr with one piece of data and room for control data; all stay where they are as long as it is there. */
class Message {
	readonly data = Buffer.from(new ArrayBuffer(LONGEST));
	readonly control = Buffer.from(new ArrayBuffer(HEADER + 4 * MOST + 4));
	private readonly vector = new BigUint64Array(new ArrayBuffer(16));
	readonly header = new BigUint64Array(new ArrayBuffer(56));

	constructor(length: number, controlLength: number) {
		this.vector[0] = addressOf(this.data);
		this.vector[1] = BigInt(length);
		this.header[2] = addressOf(this.vector);
		this.header[3] = 1n;
		this.header[4] = addressOf(this.control);
		this.header[5] = BigInt(controlLength);
	}
}

/** @returns false when it could not be sent */
export function sendDescriptors(to: number, text: string, descriptors: readonly number[]): boolean {
	if (libc === null || descriptors.length > MOST) return false;
	const length = HEADER + 4 * descriptors.length;
	const message = new Message(Buffer.byteLength(text), (length + 7) & ~7);
	message.data.write(text);
	const { control } = message;
	control.writeBigUInt64LE(BigInt(length), 0);
	control.writeInt32LE(SOL_SOCKET, 8);
	control.writeInt32LE(SCM_RIGHTS, 12);
	for (const [i, fd] of descriptors.entries()) control.writeInt32LE(fd, HEADER + 4 * i);
	return Number(libc.sendmsg(to, message.header, MSG_NOSIGNAL)) === Buffer.byteLength(text);
}

/** Bytes of what is said of one client: of one length, so that each comes alone, with its descriptors. */
export const FRAME = 32;

export function frame(word: string, pid: number): string {
	return `${word} ${pid} `.padEnd(FRAME - 1).concat("\n");
}

/** A file in memory with these bytes; -1 when it cannot be had. */
export function writeMemoryFile(bytes: Uint8Array): number {
	const fd = openMemoryFile();
	if (fd < 0) return -1;
	try {
		if (writeSync(fd, bytes) === bytes.length) return fd;
	} catch {
		// There is no memory for it.
	}
	closeDescriptor(fd);
	return -1;
}

/** What another process has written to such a file; null when it is too long, or none. @param most bytes */
export function readMemoryFile(fd: number, most: number): Uint8Array | null {
	try {
		const { size } = fstatSync(fd);
		const bytes = new Uint8Array(Math.min(size, most));
		return size <= most && readSync(fd, bytes, 0, size, 0) === size ? bytes : null;
	} catch {
		return null;
	}
}

/** Who is at the other end of a Unix socket; -1: nobody knows. */
export function peerOf(fd: number): { readonly pid: number; readonly uid: number } {
	const peer = new Int32Array(new ArrayBuffer(12));
	const length = new Uint32Array(new ArrayBuffer(4)).fill(12);
	if (libc?.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, length) !== 0) return { pid: -1, uid: -1 };
	const [pid = -1, uid = -1] = peer;
	// The highest number is nobody's: that of a socket that is none of these.
	return { pid, uid: uid === -1 ? -1 : uid >>> 0 };
}

/** Whether a process of the user `own` may give sockets to one of the user `peer`: it is its own, or root, whom nothing is refused. */
export function mayHave(peer: number, own: number | undefined): boolean {
	return peer === own || peer === 0;
}

interface Received {
	readonly text: string;
	readonly descriptors: readonly number[];
}

const NOTHING: Received = { text: "", descriptors: [] };

/** A connection that waits: for a process that does not serve anybody yet. Bun's own sockets lose the descriptors. */
export class Channel {
	private constructor(private readonly fd: number) {}

	/** @returns null when nobody answers there @throws Error when who answers is of another user */
	static open(path: string): Channel | null {
		if (libc === null) return null;
		const fd = libc.socket(AF_UNIX, SOCK_STREAM, 0);
		const name = Buffer.from(`${socketAddress(path)}\0`);
		const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), name]);
		const patience = new BigInt64Array([BigInt(PATIENCE), 0n]);
		for (const option of [SO_RCVTIMEO, SO_SNDTIMEO]) libc.setsockopt(fd, SOL_SOCKET, option, patience, 16);
		const channel = new Channel(fd);
		if (libc.connect(fd, address, address.length) !== 0) {
			channel.close();
			return null;
		}
		const { uid } = peerOf(fd);
		const own = process.getuid?.();
		if (mayHave(uid, own) || own === 0) return channel;
		channel.close();
		throw new Error(`takeover: who listens on ${path} is of another user (${uid})`);
	}

	send(text: string): void {
		const bytes = Buffer.from(text);
		libc?.send(this.fd, bytes, bytes.length, MSG_NOSIGNAL);
	}

	/** As `send`, and gives up at once when there is no room. @returns whether it was sent */
	sendNow(text: string): boolean {
		const bytes = Buffer.from(text);
		return sendNow(this.fd, bytes) === bytes.length;
	}

	/** What comes next; an empty text when nothing came in time. */
	receive(): Received {
		const until = performance.now() + PATIENCE * 1000;
		let received: Received | null;
		// A signal ends the call early (EINTR): the runtime's own, or one that its handler hears of once nobody waits here.
		do received = this.next(LONGEST);
		while (received === null && performance.now() < until);
		return received ?? NOTHING;
	}

	/** Without waiting: null when nothing has come, an empty text when nothing will. @param most bytes */
	receiveNow(most: number): Received | null {
		return hasNews(this.fd) ? (this.next(most) ?? NOTHING) : null;
	}

	/** @returns null: an error, or a signal */
	private next(most: number): Received | null {
		const message = new Message(most, HEADER + 4 * MOST + 4);
		const length = libc === null ? 0 : Number(libc.recvmsg(this.fd, message.header, MSG_CMSG_CLOEXEC));
		if (length < 0) return null;
		if (length === 0) return NOTHING;
		const { control, header, data } = message;
		const descriptors: number[] = [];
		if (Number(header[5]) > HEADER && control.readInt32LE(12) === SCM_RIGHTS) {
			const end = Number(control.readBigUInt64LE(0));
			for (let at = HEADER; at < end; at += 4) descriptors.push(control.readInt32LE(at));
		}
		return { text: data.toString("utf8", 0, length), descriptors };
	}

	close(): void {
		libc?.close(this.fd);
	}
}
