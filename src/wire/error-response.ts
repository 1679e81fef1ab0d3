// ErrorResponse and NoticeResponse, both ways. Fields: PostgreSQL docs, "Error and Notice Message Fields".

import { PgError } from "../errors.ts";
import { Backend } from "./codes.ts";
import { HEADER, endOfString } from "./frame.ts";
import { Writer } from "./writer.ts";

const field = (letter: string) => letter.charCodeAt(0);
const SEVERITY = field("S");
const SEVERITY_NONLOCALIZED = field("V");
const SQLSTATE = field("C");
const MESSAGE = field("M");
const DETAIL = field("D");
const HINT = field("H");

/** ErrorResponse, or NoticeResponse when the severity is WARNING or NOTICE. */
export function errorResponse(error: PgError): Buffer {
	const notice = error.severity === "WARNING" || error.severity === "NOTICE";
	const w = new Writer().begin(notice ? Backend.NoticeResponse : Backend.ErrorResponse);
	w.byte(SEVERITY).string(error.severity).byte(SEVERITY_NONLOCALIZED).string(error.severity);
	w.byte(SQLSTATE).string(error.sqlstate).byte(MESSAGE).string(printable(error.message));
	if (error.detail !== undefined) w.byte(DETAIL).string(printable(error.detail));
	if (error.hint !== undefined) w.byte(HINT).string(printable(error.hint));
	return w.byte(0).end().bytes();
}

/** A NUL would end the field early and turn the rest into field codes. */
function printable(text: string): string {
	return text.includes("\0") ? text.replaceAll("\0", "\\0") : text;
}

/** One field of the ErrorResponse or NoticeResponse that begins at `start`, or "" when it is not there. */
function fieldOf(chunk: Buffer, start: number, end: number, letter: number): string {
	let at = start + HEADER;
	while (at < end && chunk[at] !== 0) {
		const stop = endOfString(chunk, at + 1, end);
		if (stop < 0) return "";
		if (chunk[at] === letter) return chunk.utf8Slice(at + 1, stop);
		at = stop + 1;
	}
	return "";
}

/** What a server said, as a PgError that can be logged or sent on. */
export function readError(chunk: Buffer, start: number, end: number): PgError {
	const read = (letter: number) => fieldOf(chunk, start, end, letter);
	const severity = read(SEVERITY_NONLOCALIZED) || read(SEVERITY) || "ERROR";
	return new PgError(
		severity as PgError["severity"],
		read(SQLSTATE) || "XX000",
		read(MESSAGE),
		read(DETAIL) || undefined,
		read(HINT) || undefined,
	);
}

/** The five letters of the SQLSTATE alone: cheaper than `readError` where only the code matters. */
export function readSqlstate(chunk: Buffer, start: number, end: number): string {
	return fieldOf(chunk, start, end, SQLSTATE);
}

/** The same message with `replace` applied to its message text; every other field stays as it is. */
export function rewriteMessage(chunk: Buffer, start: number, end: number, replace: (text: string) => string): Buffer {
	const w = new Writer(end - start + 64).begin(chunk[start]!);
	let at = start + HEADER;
	while (at < end && chunk[at] !== 0) {
		const letter = chunk[at]!;
		const stop = endOfString(chunk, at + 1, end);
		if (stop < 0) break;
		w.byte(letter);
		if (letter === MESSAGE) w.string(replace(chunk.utf8Slice(at + 1, stop)));
		else w.raw(chunk.subarray(at + 1, stop + 1));
		at = stop + 1;
	}
	return w.byte(0).end().bytes();
}
