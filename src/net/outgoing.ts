// Bytes on their way to one connection: pieces of chunks and messages of our own, put together into one write. A system call
// costs more than a hundred small copies, so an answer with something put in or taken out still leaves in one piece.
// Each `Sink` has one of its own, made for it: what is put in can go nowhere else, in whatever way the event ends that put it in.
// The memory behind it is lent for as long as something is in it: a thousand connections share the few buffers that are in use.

/** Where the bytes go: the `Sink` that owns the Outgoing. */
export interface WriteTarget {
	readonly queued: number;
	/** @param lasts false: the buffer is filled again, and what is not taken at once is copied */
	write(bytes: Uint8Array, start: number, length: number, lasts?: boolean): boolean;
}

const SIZE = 64 << 10;
/** A piece of so many bytes is written on its own: copying it would cost more than the call saves. */
const LARGE = 16 << 10;

/** Buffers that no Outgoing has now. Each has one holder at a time, from its first byte to its write, so these few serve all. */
const spare: Buffer[] = [];
/** Outgoings that this event has put something into, for `settle`. */
const filled: Outgoing[] = [];

export class Outgoing {
	private readonly target: WriteTarget;
	private buffer: Buffer | null = null;
	/** Bytes that are in it; written here only. */
	fill = 0;

	constructor(target: WriteTarget) {
		this.target = target;
	}

	add(bytes: Uint8Array, start: number, length: number): void {
		if (length === 0) return;
		if (length >= LARGE || this.fill + length > SIZE) {
			this.flush();
			if (length >= LARGE) {
				this.target.write(bytes, start, length);
				return;
			}
		}
		const buffer = this.buffer ?? this.open();
		const { fill } = this;
		if (length <= 64) for (let i = 0; i < length; i++) buffer[fill + i] = bytes[start + i]!;
		else buffer.set(bytes.subarray(start, start + length), fill);
		this.fill = fill + length;
	}

	/** Type byte and length word of a message whose body is added next. */
	header(code: number, length: number): void {
		if (this.fill + 5 > SIZE) this.flush();
		const buffer = this.buffer ?? this.open();
		const { fill } = this;
		buffer[fill] = code;
		buffer[fill + 1] = length >>> 24;
		buffer[fill + 2] = length >>> 16;
		buffer[fill + 3] = length >>> 8;
		buffer[fill + 4] = length;
		this.fill = fill + 5;
	}

	addAll(bytes: Uint8Array): void {
		this.add(bytes, 0, bytes.length);
	}

	/** Writes `chunk[from, to)` behind what was put in: alone, and uncopied, when nothing was. @returns as `Stream.write` does */
	forward(chunk: Uint8Array, from: number, to: number): boolean {
		if (this.fill === 0) return from === to || this.target.write(chunk, from, to - from);
		this.add(chunk, from, to - from);
		return this.flush();
	}

	/** @returns false when some of it is queued, as `Stream.write` does. */
	flush(): boolean {
		const { buffer, fill } = this;
		if (buffer !== null) {
			this.buffer = null;
			this.fill = 0;
			// Emptied before the write: `Stream.write` flushes an Outgoing that is not empty, and would come back here.
			this.target.write(buffer, 0, fill, false);
			spare.push(buffer);
		}
		return this.target.queued === 0;
	}

	/** Drops what was put in: the connection is gone. */
	clear(): void {
		if (this.buffer !== null) spare.push(this.buffer);
		this.buffer = null;
		this.fill = 0;
	}

	private open(): Buffer {
		const buffer = spare.pop() ?? Buffer.allocUnsafeSlow(SIZE);
		this.buffer = buffer;
		filled.push(this);
		return buffer;
	}
}

/** Flushes every Outgoing that this event has put something into. Called at the end of each event, however it ended. */
export function settle(): void {
	// Most events end with nothing here, and an empty array's `pop` is a call.
	while (filled.length > 0) {
		const outgoing = filled.pop()!;
		// Most have been flushed by who filled them.
		if (outgoing.fill > 0) outgoing.flush();
	}
}
