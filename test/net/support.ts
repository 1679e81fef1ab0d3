// A socket and an owner for Stream under test, whose every step the test decides.

import type { Socket } from "bun";
import type { Stream, StreamOwner } from "../../src/net/stream.ts";

/** A kernel that takes what it is told to take. */
export class Kernel {
	room = 0;
	ended = false;
	terminated = false;
	paused = false;
	private parts: Buffer[] = [];

	readonly socket = {
		write: (bytes: Uint8Array, start = 0, length = bytes.length - start) => {
			if (this.terminated) return -1;
			const taken = Math.min(length, this.room);
			this.room -= taken;
			this.parts.push(Buffer.from(bytes.subarray(start, start + taken)));
			return taken;
		},
		end: () => {
			this.ended = true;
		},
		terminate: () => {
			this.terminated = true;
		},
		pause: () => {
			this.paused = true;
		},
		resume: () => {
			this.paused = false;
		},
	} as unknown as Socket<Stream>;

	get bytes(): Buffer {
		return Buffer.concat(this.parts);
	}
}

export class Owner implements StreamOwner {
	drained = 0;
	closed: (Error | undefined)[] = [];
	onData(): void {}
	onDrain(): void {
		this.drained++;
	}
	onClose(error: Error | undefined): void {
		this.closed.push(error);
	}
}
