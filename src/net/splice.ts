// Puts pieces of chunks and messages of our own together into one write. A system call costs more than a hundred
// small copies, so a reply with something spliced in or taken out still leaves in one piece. One per thread: it is
// filled and flushed within one event and never holds anything between events.

import type { Sink } from "./stream.ts";

const SIZE = 64 << 10;
/** A piece this large is written on its own: copying it would cost more than the call saves. */
const LARGE = 16 << 10;

export class Splice {
	private readonly buffer = Buffer.allocUnsafeSlow(SIZE);
	private fill = 0;

	get empty(): boolean {
		return this.fill === 0;
	}

	add(to: Sink, bytes: Uint8Array, start: number, length: number): void {
		if (length === 0) return;
		if (length >= LARGE || this.fill + length > SIZE) {
			this.flush(to);
			if (length >= LARGE) {
				to.write(bytes, start, length);
				return;
			}
		}
		const { buffer, fill } = this;
		if (length <= 64) for (let i = 0; i < length; i++) buffer[fill + i] = bytes[start + i]!;
		else buffer.set(bytes.subarray(start, start + length), fill);
		this.fill = fill + length;
	}

	/** Type byte and length word of a message whose body is added next. */
	header(to: Sink, code: number, length: number): void {
		if (this.fill + 5 > SIZE) this.flush(to);
		const { buffer, fill } = this;
		buffer[fill] = code;
		buffer[fill + 1] = length >>> 24;
		buffer[fill + 2] = length >>> 16;
		buffer[fill + 3] = length >>> 8;
		buffer[fill + 4] = length;
		this.fill = fill + 5;
	}

	addAll(to: Sink, bytes: Uint8Array): void {
		this.add(to, bytes, 0, bytes.length);
	}

	/** @returns false when some of it is queued, as `Stream.write` does. */
	flush(to: Sink): boolean {
		if (this.fill > 0) {
			to.writeVolatile(this.buffer, 0, this.fill);
			this.fill = 0;
		}
		return to.queued === 0;
	}
}
