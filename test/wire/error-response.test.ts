// ErrorResponse and NoticeResponse, written and read.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { PgError, type Severity } from "../../src/errors.ts";
import {
	errorResponse,
	isFatal,
	noticeResponse,
	readError,
	readSqlstate,
	rewriteMessage,
	withDetail,
} from "../../src/wire/error-response.ts";
import { backend, bytes, concat, cstring, message, text } from "../support/wire-frames.ts";

test("an error is written with the fields it has, in PostgreSQL's order", () => {
	expect(
		errorResponse(new PgError("FATAL", "28000", "nö", "détail", "hint"), "ends").equals(
			backend.errorResponse({ S: "FATAL", V: "FATAL", C: "28000", M: "nö", D: "détail", H: "hint" }),
		),
	).toBe(true);
	expect(
		errorResponse(new PgError("ERROR", "58000", "x"), "stays").equals(
			backend.errorResponse({ S: "ERROR", V: "ERROR", C: "58000", M: "x" }),
		),
	).toBe(true);
});

// A client was told ERROR and closed all the same, where the error had been made for one that stays.
test.each<[Severity, Severity, Severity]>([
	["ERROR", "FATAL", "ERROR"],
	["FATAL", "FATAL", "ERROR"],
	["PANIC", "PANIC", "ERROR"],
	["WARNING", "FATAL", "ERROR"],
	["NOTICE", "FATAL", "ERROR"],
])("%s is told as %s to a client that is closed next, and as %s to one that goes on", (made, ends, stays) => {
	const error = new PgError(made, "58000", "x");
	expect(errorResponse(error, "ends").equals(backend.errorResponse({ S: ends, V: ends, C: "58000", M: "x" }))).toBe(
		true,
	);
	expect(errorResponse(error, "stays").equals(backend.errorResponse({ S: stays, V: stays, C: "58000", M: "x" }))).toBe(
		true,
	);
});

test("a notice is never an error", () => {
	for (const severity of ["WARNING", "NOTICE", "FATAL"] as const) {
		const said = severity === "WARNING" ? "WARNING" : "NOTICE";
		expect(
			noticeResponse(new PgError(severity, "01000", "x")).equals(
				backend.noticeResponse({ S: said, V: said, C: "01000", M: "x" }),
			),
		).toBe(true);
	}
});

// A server that speaks Russian says ВАЖНО: its end was taken for an error of a session that goes on.
test.each([
	[{ S: "FATAL", V: "FATAL" }, true],
	[{ S: "PANIC", V: "PANIC" }, true],
	[{ S: "ERROR", V: "ERROR" }, false],
	[{ S: "ВАЖНО", V: "FATAL" }, true],
	[{ S: "FEHLER", V: "ERROR" }, false],
	[{ S: "PANIK", V: "PANIC" }, true],
	[{ S: "FATAL" }, true],
	[{ S: "ERROR" }, false],
])("that %j ends the connection is %p", (fields, ends) => {
	const made = Buffer.from(concat(text("EEEE"), backend.errorResponse({ ...fields, C: "57P01", M: "x" }), text("EF")));
	expect(isFatal(made, 4)).toBe(ends);
});

test("what is no error, or is cut short, ends nothing", () => {
	expect(isFatal(backend.noticeResponse({ S: "FATAL", V: "FATAL", C: "01000", M: "x" }), 0)).toBe(false);
	const whole = backend.errorResponse({ S: "ERROR", V: "ERROR", C: "57P01", M: "x" });
	for (let end = 0; end < whole.length; end++) expect(isFatal(whole.subarray(0, end), 0)).toBe(false);
});

test("a zero byte in a text does not end its field", () => {
	const made = errorResponse(new PgError("ERROR", "42601", "a\0Mb", "\0", "c\0"), "stays");
	expect(readError(made, 0, made.length)).toMatchObject({ message: "a\\0Mb", detail: "\\0", hint: "c\\0" });
});

const words = fc.string({ unit: "grapheme" }).map((value) => value.replaceAll("\0", "").toWellFormed());
const some = words.filter((value) => value !== "");

test("what is written is read back, wherever in the chunk it stands", () => {
	const severity = fc.constantFrom<Severity>("ERROR", "FATAL", "PANIC", "WARNING", "NOTICE");
	const write = (error: PgError) => {
		if (error.severity === "WARNING" || error.severity === "NOTICE") return noticeResponse(error);
		return errorResponse(error, error.severity === "ERROR" ? "stays" : "ends");
	};
	fc.assert(
		fc.property(
			severity,
			words,
			fc.option(some, { nil: undefined }),
			fc.option(some, { nil: undefined }),
			fc.nat(20),
			(s, m, d, h, pad) => {
				const made = write(new PgError(s, "XX001", m, d, h));
				const chunk = Buffer.from(concat(Buffer.alloc(pad, 67), made, text("MnotC")));
				const read = readError(chunk, pad, pad + made.length);
				expect([read.severity, read.sqlstate, read.message, read.detail, read.hint]).toEqual([s, "XX001", m, d, h]);
				expect(readSqlstate(chunk, pad, pad + made.length)).toBe("XX001");
			},
		),
	);
});

test("a translated severity is not the one that counts", () => {
	const frame = Buffer.from(backend.errorResponse({ S: "FEHLER", V: "ERROR", C: "42601", M: "x" }));
	expect(readError(frame, 0, frame.length).severity).toBe("ERROR");
});

test.each([
	["without fields", message("E", bytes(0))],
	["without an end", message("E", text("Mopen"))],
	["without anything", message("E")],
])("an error %s is read as far as it goes", (_, frame) => {
	const chunk = Buffer.from(frame);
	expect(readError(chunk, 0, chunk.length)).toMatchObject({ severity: "ERROR", sqlstate: "XX000", message: "" });
});

test("only the message text is rewritten; fields that we do not know stay", () => {
	const fields = { S: "ERROR", V: "ERROR", C: "26000", M: "a b", D: "a", P: "7", F: "a.c", L: "1", R: "a", z: "a" };
	const chunk = Buffer.from(concat(text("junk"), backend.errorResponse(fields), text("more")));
	const made = rewriteMessage(chunk, 4, chunk.length - 4, (m) => m.replaceAll("a", "ä".repeat(200)));
	expect(made.equals(backend.errorResponse({ ...fields, M: `${"ä".repeat(200)} b` }))).toBe(true);
});

test("a rewritten notice stays a notice, and no change is no change", () => {
	const frame = backend.noticeResponse({ S: "NOTICE", C: "00000", M: "x" });
	expect(rewriteMessage(Buffer.from(frame), 0, frame.length, (m) => m).equals(frame)).toBe(true);
	const broken = Buffer.from(concat(message("E", text("M"), cstring("x"), text("Dopen"))));
	expect(rewriteMessage(broken, 0, broken.length, (m) => m).equals(backend.errorResponse({ M: "x" }))).toBe(true);
});

test("bytes that are no fields do not throw", () => {
	fc.assert(
		fc.property(fc.uint8Array({ maxLength: 60 }), (body) => {
			const chunk = Buffer.from(message("E", body));
			readError(chunk, 0, chunk.length);
			rewriteMessage(chunk, 0, chunk.length, (m) => m);
		}),
	);
});

test("a detail is added behind the one that is there, or where there is none", () => {
	const add = (fields: Record<string, string>) => {
		const error = Buffer.from(backend.errorResponse(fields));
		return withDetail(error, 0, error.length, "and more");
	};
	const plain = { S: "ERROR", V: "ERROR", C: "40001", M: "no" };
	expect(add({ ...plain, D: "why" }).equals(backend.errorResponse({ ...plain, D: "why\nand more" }))).toBe(true);
	expect(add(plain).equals(backend.errorResponse({ ...plain, D: "and more" }))).toBe(true);
});
