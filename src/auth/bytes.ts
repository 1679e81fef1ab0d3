// The few byte operations that every way to log in shares: constant-time comparison, strict base64, C strings.
// Called inside this room only.

import { hash, timingSafeEqual } from "node:crypto";

/** Views the same memory as a Buffer; copies nothing. */
export function asBuffer(bytes: Uint8Array): Buffer {
	return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Equality whose time tells neither where the first difference is nor how long the secret one is. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
	return timingSafeEqual(sha256(a), sha256(b));
}

/** By the call that makes no object for what is hashed at once: 0.14 µs in place of 2.9, three times for each log-in with SCRAM. */
export function sha256(data: Uint8Array): Buffer {
	return hash("sha256", data, "buffer");
}

/**
 * Standard base64 in its one canonical form, or null. Stricter than Node, which skips what it does not know, and than
 * PostgreSQL, which ignores the spare bits of the last character: two spellings of one proof serve nobody.
 */
export function decodeBase64(text: string): Buffer | null {
	const bytes = Buffer.from(text, "base64");
	return bytes.toString("base64") === text ? bytes : null;
}

/** The bytes before the first NUL at or after `start`, or null when there is none. Valid as long as `body`. */
export function cString(body: Uint8Array, start: number): Uint8Array | null {
	const end = body.indexOf(0, start);
	return end < 0 ? null : body.subarray(start, end);
}
