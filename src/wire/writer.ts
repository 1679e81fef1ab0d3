// Builds messages into a buffer that grows. For messages that are made rarely; the hot path forwards bytes.
// `bytes()` gives a fresh Buffer, so a writer may be used again.

/** One message at a time: `begin`, fields, `end`; `bytes()` gives all messages built since the last `bytes()`. */
export class Writer {
	private buffer: Buffer;
	private at = 0;
	private start = 0;

	constructor(size = 256) {
		this.buffer = Buffer.allocUnsafe(size);
	}

	private room(more: number): void {
		if (this.at + more <= this.buffer.length) return;
		const grown = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + more));
		this.buffer.copy(grown, 0, 0, this.at);
		this.buffer = grown;
	}

	/** Opens a message of this type; `code` 0 opens one without a type byte (the startup packets). */
	begin(code: number): this {
		this.room(5);
		if (code !== 0) this.buffer[this.at++] = code;
		this.start = this.at;
		this.at += 4;
		return this;
	}

	end(): this {
		this.buffer.writeInt32BE(this.at - this.start, this.start);
		return this;
	}

	byte(value: number): this {
		this.room(1);
		this.buffer[this.at++] = value;
		return this;
	}

	int16(value: number): this {
		this.room(2);
		this.at = this.buffer.writeUInt16BE(value & 0xffff, this.at);
		return this;
	}

	int32(value: number): this {
		this.room(4);
		this.at = this.buffer.writeInt32BE(value | 0, this.at);
		return this;
	}

	/** A String of the manual: UTF-8 and a NUL. The caller has made sure that `value` contains no NUL. */
	string(value: string): this {
		const size = Buffer.byteLength(value);
		this.room(size + 1);
		this.at += this.buffer.write(value, this.at);
		this.buffer[this.at++] = 0;
		return this;
	}

	raw(bytes: Uint8Array): this {
		this.room(bytes.length);
		this.buffer.set(bytes, this.at);
		this.at += bytes.length;
		return this;
	}

	/** A copy of all that was built; the writer is empty again. */
	bytes(): Buffer {
		const out = Buffer.allocUnsafeSlow(this.at);
		this.buffer.copy(out, 0, 0, this.at);
		this.at = 0;
		return out;
	}
}
