// Reads the attributes of a SCRAM message (RFC 5802, "Formal Syntax") with PostgreSQL's errors for what is wrong.
// Called by scram.ts for both roles; knows no order of messages.

import { PgError } from "../errors.ts";
import { asBuffer } from "./bytes.ts";

/** FATAL 08P01 `malformed SCRAM message`, as PostgreSQL's auth-scram.c words it. */
export function malformed(detail: string): PgError {
	return new PgError("FATAL", "08P01", "malformed SCRAM message", detail);
}

/** A cursor over one message. Text is Latin-1, one character per byte, so that signatures cover exactly what came. */
export class ScramMessage {
	readonly text: string;
	/** Where the next attribute starts. */
	at = 0;

	constructor(message: Uint8Array) {
		this.text = asBuffer(message).toString("latin1");
		if (this.text.length === 0) throw malformed("The message is empty.");
		// PostgreSQL compares with strlen.
		if (this.text.includes("\0")) throw malformed("Message length does not match input length.");
	}

	get atEnd(): boolean {
		return this.at >= this.text.length;
	}

	/** The next character without taking it; "" at the end. */
	peek(): string {
		return this.text.charAt(this.at);
	}

	/** The value of the attribute that must come next. */
	attribute(name: string): string {
		if (this.peek() !== name) throw malformed(`Expected attribute "${name}" but found "${printable(this.peek())}".`);
		return this.#value(name);
	}

	/** The next attribute, whichever it is. */
	anyAttribute(): { name: string; value: string } {
		if (this.atEnd) throw malformed("Attribute expected, but found end of string.");
		const name = this.peek();
		if (!/^[A-Za-z]$/.test(name)) {
			throw malformed(`Attribute expected, but found invalid character "${printable(name)}".`);
		}
		return { name, value: this.#value(name) };
	}

	#value(name: string): string {
		if (this.text.charAt(this.at + 1) !== "=") throw malformed(`Expected character "=" for attribute "${name}".`);
		const start = this.at + 2;
		const comma = this.text.indexOf(",", start);
		const end = comma < 0 ? this.text.length : comma;
		this.at = comma < 0 ? end : comma + 1;
		return this.text.slice(start, end);
	}
}

/** A character of a peer's message for an error text, as PostgreSQL shows it: quoted, or in hex when not printable. */
export function printable(character: string): string {
	const code = character === "" ? 0 : character.charCodeAt(0);
	return code >= 0x21 && code <= 0x7e ? `'${character}'` : `0x${code.toString(16).padStart(2, "0")}`;
}

/** Some text of a peer's message for an error text, as PostgreSQL shows it: its beginning, and nothing that is not printable. */
export function printableText(text: string): string {
	return text.slice(0, 30).replace(/[^\x21-\x7e]/g, "?");
}

/** The `printable` of RFC 5802: 0x21 to 0x7e without the comma. */
export function isPrintable(text: string): boolean {
	return /^[\x21-\x2b\x2d-\x7e]*$/.test(text);
}
