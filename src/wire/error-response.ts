// ErrorResponse and NoticeResponse, both ways. Fields: PostgreSQL docs, "Error and Notice Message Fields".

import { PgError, type Severity } from "../errors.ts";
import { Backend } from "./codes.ts";
import { endOfString, HEADER } from "./frame.ts";
import { Writer } from "./writer.ts";

const field = (letter: string) => letter.charCodeAt(0);
const SEVERITY = field("S");
const SEVERITY_NONLOCALIZED = field("V");
const SQLSTATE = field("C");
const MESSAGE = field("M");
const DETAIL = field("D");
const HINT = field("H");
const ROUTINE = field("R");
const POSITION = field("P");
/** First letters of the two severities that end a connection. */
const FATAL = field("F");
const PANIC = field("P");

/** What is done with the connection behind an ErrorResponse: the client goes on, or it is closed. */
export type Then = "stays" | "ends";

/**
 * ErrorResponse. Its severity follows from what is done next, whatever the error was made as or came as from a server: a
 * driver that reads ERROR goes on, and one that reads FATAL throws the connection away.
 */
export function errorResponse(error: PgError, then: Then): Buffer {
	if (then === "stays") return report(Backend.ErrorResponse, "ERROR", error);
	return report(Backend.ErrorResponse, error.severity === "PANIC" ? "PANIC" : "FATAL", error);
}

/** NoticeResponse: WARNING, or NOTICE for every other severity. */
export function noticeResponse(notice: PgError): Buffer {
	return report(Backend.NoticeResponse, notice.severity === "WARNING" ? "WARNING" : "NOTICE", notice);
}

function report(code: Backend, severity: Severity, error: PgError): Buffer {
	const w = new Writer().begin(code);
	w.byte(SEVERITY).string(severity).byte(SEVERITY_NONLOCALIZED).string(severity);
	w.byte(SQLSTATE).string(error.sqlstate).byte(MESSAGE).string(printable(error.message));
	if (error.detail !== undefined) w.byte(DETAIL).string(printable(error.detail));
	if (error.hint !== undefined) w.byte(HINT).string(printable(error.hint));
	if (error.position > 0) w.byte(POSITION).string(String(error.position));
	if (error.routine !== undefined) w.byte(ROUTINE).string(error.routine);
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

/** A server's ErrorResponse or NoticeResponse, as a PgError that can be logged or sent on; without position and routine. */
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

/**
 * Whether the message at `start` is an ErrorResponse of severity FATAL or PANIC: the server closes the connection next. Read
 * from field V, which is not translated: with lc_messages = "ru_RU" field S says ВАЖНО.
 */
export function isFatal(chunk: Uint8Array, start: number): boolean {
	if (chunk[start] !== Backend.ErrorResponse) return false;
	let severity = start + HEADER + 1;
	// PostgreSQL writes S and V next to each other, and V since version 9.6.
	const behind = chunk.indexOf(0, severity) + 1;
	if (behind > 0 && chunk[behind] === SEVERITY_NONLOCALIZED) severity = behind + 1;
	return chunk[severity] === FATAL || chunk[severity] === PANIC;
}

/** The five letters of the SQLSTATE alone: cheaper than `readError` where only the code matters. */
export function readSqlstate(chunk: Buffer, start: number, end: number): string {
	return fieldOf(chunk, start, end, SQLSTATE);
}

/** The ErrorResponse or NoticeResponse with `replace` applied to its message text; every other field stays as it is. */
export function rewriteMessage(chunk: Buffer, start: number, end: number, replace: (text: string) => string): Buffer {
	return rewriteField(chunk, start, end, "M", replace);
}

/** The ErrorResponse or NoticeResponse with `replace` applied to its field of the letter `which`, if it has it. */
export function rewriteField(
	chunk: Buffer,
	start: number,
	end: number,
	which: string,
	replace: (text: string) => string,
): Buffer {
	const wanted = field(which);
	const w = new Writer(end - start + 64).begin(chunk[start]!);
	let at = start + HEADER;
	while (at < end && chunk[at] !== 0) {
		const letter = chunk[at]!;
		const stop = endOfString(chunk, at + 1, end);
		if (stop < 0) break;
		w.byte(letter);
		if (letter === wanted) w.string(replace(chunk.utf8Slice(at + 1, stop)));
		else w.raw(chunk.subarray(at + 1, stop + 1));
		at = stop + 1;
	}
	return w.byte(0).end().bytes();
}

/** The ErrorResponse or NoticeResponse with `text` behind its detail, or as its detail. */
export function withDetail(chunk: Buffer, start: number, end: number, text: string): Buffer {
	if (fieldOf(chunk, start, end, DETAIL) !== "")
		return rewriteField(chunk, start, end, "D", (detail) => `${detail}\n${text}`);
	const w = new Writer(end - start + 64).begin(chunk[start]!);
	// All but the zero byte that ends the fields.
	w.raw(chunk.subarray(start + HEADER, end - 1));
	return w.byte(DETAIL).string(text).byte(0).end().bytes();
}
