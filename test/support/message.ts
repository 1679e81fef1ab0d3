// One received message, and how to open those that tests look into. Used by raw-client.ts and transcript.ts; shares nothing
// with src/wire on purpose.

/** A backend message: its type as a letter and the bytes after the length. */
export interface Message {
	readonly code: string;
	readonly body: Buffer;
}

/** Cuts whole messages off the front of `buffer`; the rest is what has not come wholly. Throws on a length below four. */
export function cut(buffer: Buffer): { messages: Message[]; rest: Buffer } {
	const messages: Message[] = [];
	let at = 0;
	while (buffer.length - at >= 5) {
		const length = buffer.readInt32BE(at + 1);
		if (length < 4) throw new Error(`a message of type ${String.fromCharCode(buffer[at] ?? 0)} says length ${length}`);
		if (buffer.length - at < length + 1) break;
		const body = Buffer.from(buffer.subarray(at + 5, at + 1 + length));
		messages.push({ code: String.fromCharCode(buffer[at] ?? 0), body });
		at += length + 1;
	}
	return { messages, rest: buffer.subarray(at) };
}

/** Reads the fields of one body in order. */
export class Body {
	readonly #bytes: Buffer;
	#at = 0;

	constructor(bytes: Buffer) {
		this.#bytes = bytes;
	}

	get left(): number {
		return this.#bytes.length - this.#at;
	}

	int8(): number {
		return this.#bytes.readUInt8(this.#at++);
	}

	int16(): number {
		this.#at += 2;
		return this.#bytes.readInt16BE(this.#at - 2);
	}

	int32(): number {
		this.#at += 4;
		return this.#bytes.readInt32BE(this.#at - 4);
	}

	cstring(): string {
		const end = this.#bytes.indexOf(0, this.#at);
		if (end < 0) throw new Error("a String without its zero byte");
		const text = this.#bytes.toString("utf8", this.#at, end);
		this.#at = end + 1;
		return text;
	}

	bytes(length: number): Buffer {
		if (length > this.left) throw new Error(`${length} bytes wanted, ${this.left} left`);
		this.#at += length;
		return this.#bytes.subarray(this.#at - length, this.#at);
	}
}

/** The columns of a DataRow: text, or null. */
export function dataRow(body: Buffer): (string | null)[] {
	const reader = new Body(body);
	return Array.from({ length: reader.int16() }, () => {
		const length = reader.int32();
		return length < 0 ? null : reader.bytes(length).toString("utf8");
	});
}

/** The fields of an ErrorResponse or NoticeResponse, by their one-letter codes. */
export function errorFields(body: Buffer): Record<string, string> {
	const reader = new Body(body);
	const fields: Record<string, string> = {};
	for (let code = reader.int8(); code !== 0; code = reader.int8()) {
		fields[String.fromCharCode(code)] = reader.cstring();
	}
	return fields;
}

/** The names of the columns of a RowDescription. */
export function columnNames(body: Buffer): string[] {
	const reader = new Body(body);
	return Array.from({ length: reader.int16() }, () => {
		const name = reader.cstring();
		reader.bytes(18);
		return name;
	});
}
