// Standard error for log lines, without ever waiting for whoever reads it: a journal or a log driver that stands still must not
// stop a worker, and with it everybody's queries. A line goes out at once, since one that is still in a queue when the process
// dies is the one that was needed; only while the reader is behind it waits, in a queue with a bound in bytes, and beyond that
// it is lost and counted. One for each thread, given to its Log.

import { constants, fstatSync, openSync, writeSync } from "node:fs";
import { hasRoom, sendNow } from "./options.ts";

const STDERR = 2;
/** Bytes that wait for the reader, for each thread; beside the pipe's own 64 KiB. */
const WAITING = 64 << 10;
/** ms between two attempts to write what waits while the reader is behind. */
const RETRY = 100;
/** ms that the end of the process waits for a reader that is behind. */
const LAST_WORDS = 1_000;
/** A pipe with room for anything has room for this much (POSIX, PIPE_BUF). */
const PIPE_BUF = 4096;

/** Writes what can be written now. @returns the bytes that were; -1 when it cannot be written at all: it is dropped */
export type WriteNow = (bytes: Uint8Array) => number;

export class Lines {
	/** Makes the line that tells how many were lost; `createLog` puts its own here. */
	lossText: (lost: number) => string = (lost) => `${lost} log lines were lost\n`;
	private readonly writeNow: WriteNow;
	/** Lines that the reader has not taken yet, of the first maybe only the rest; `waiting` is their bytes. */
	private readonly queue: Uint8Array[] = [];
	private waiting = 0;
	private lost = 0;
	private timer: Timer | null = null;

	constructor(writeNow: WriteNow = openStandardError()) {
		this.writeNow = writeNow;
	}

	write(line: string): void {
		let bytes: Uint8Array = Buffer.from(line);
		let isBegun = false;
		if (this.queue.length === 0 && this.lost === 0) {
			const taken = this.writeNow(bytes);
			if (taken < 0 || taken === bytes.length) return;
			isBegun = taken > 0;
			bytes = bytes.subarray(taken);
		}
		// Once lines are lost, none is kept before the loss has been told; but a line that is begun is ended.
		if (!isBegun && (this.lost > 0 || this.waiting + bytes.length > WAITING)) this.lost++;
		else this.keep(bytes);
		if (this.timer === null) {
			this.timer = setInterval(() => this.flush(), RETRY);
			this.timer.unref();
		}
	}

	private keep(bytes: Uint8Array): void {
		this.queue.push(bytes);
		this.waiting += bytes.length;
	}

	/** Writes what waits, as far as the reader takes it. @returns whether nothing waits any more */
	flush(): boolean {
		const { queue } = this;
		for (;;) {
			if (queue.length === 0 && this.lost > 0) {
				this.keep(Buffer.from(this.lossText(this.lost)));
				this.lost = 0;
			}
			const head = queue[0];
			if (head === undefined) break;
			const taken = this.writeNow(head);
			if (taken >= 0 && taken < head.length) {
				queue[0] = head.subarray(taken);
				this.waiting -= taken;
				return false;
			}
			queue.shift();
			this.waiting -= head.length;
		}
		if (this.timer !== null) clearInterval(this.timer);
		this.timer = null;
		return true;
	}

	/** The process is about to end: what waits may still go out, if somebody reads at all. */
	end(): void {
		const pause = new Int32Array(new SharedArrayBuffer(4));
		for (let left = LAST_WORDS; left > 0 && !this.flush(); left -= 10) Atomics.wait(pause, 0, 0, 10);
	}
}

/**
 * O_NONBLOCK belongs to the open file description and not to a descriptor: set on ours it would be set for the shell that has
 * started us too. So a pipe or a terminal is opened once more, and a socket (systemd's journal) is asked call by call. A file never
 * waits.
 */
function openStandardError(): WriteNow {
	try {
		const kind = fstatSync(STDERR);
		if (kind.isSocket()) return (bytes) => Math.max(0, sendNow(STDERR, bytes));
		if (!kind.isFIFO() && !kind.isCharacterDevice()) return writer(STDERR);
	} catch {
		return writer(STDERR);
	}
	try {
		return writer(openSync("/proc/self/fd/2", constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY));
	} catch {
		// Not Linux, or it belongs to another user: poll before each write. Between poll and write others may have filled it.
		const write = writer(STDERR);
		return (bytes) => (hasRoom(STDERR) ? write(bytes.subarray(0, PIPE_BUF)) : 0);
	}
}

function writer(fd: number): WriteNow {
	return (bytes) => {
		try {
			return writeSync(fd, bytes);
		} catch (error) {
			// Closed, or a full disk: losing the line beats stopping the traffic.
			return (error as { code?: string }).code === "EAGAIN" ? 0 : -1;
		}
	};
}
