// Bytes of every message of protocol version 3, built for tests by code that shares nothing with src/wire, so that a mistake
// there is not repeated here. Layouts: PostgreSQL docs, "Message Formats", under the name each builder bears.
// All integers are big-endian; a message is a type byte, an Int32 length that counts itself but not the type, and the body.

type Part = Uint8Array;

const utf8 = new TextEncoder();

export function bytes(...values: number[]): Part {
	return Uint8Array.from(values);
}

export function int16(value: number): Part {
	return bytes((value >> 8) & 255, value & 255);
}

export function int32(value: number): Part {
	return bytes((value >>> 24) & 255, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
}

/** String: UTF-8 with a zero byte at its end. */
export function cstring(text: string): Part {
	return concat(utf8.encode(text), bytes(0));
}

export function text(value: string): Part {
	return utf8.encode(value);
}

export function concat(...parts: Part[]): Uint8Array {
	const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
	let at = 0;
	for (const part of parts) {
		whole.set(part, at);
		at += part.length;
	}
	return whole;
}

/** A message with a type byte, from its letter and the parts of its body. */
export function message(code: string, ...body: Part[]): Uint8Array {
	const content = concat(...body);
	return concat(bytes(code.charCodeAt(0)), int32(content.length + 4), content);
}

/** A message that lies about its length (`length` is what the header says). */
export function liar(code: string, length: number, ...body: Part[]): Uint8Array {
	return concat(bytes(code.charCodeAt(0)), int32(length), ...body);
}

/** The first packet of a connection: no type byte. */
function packet(...body: Part[]): Uint8Array {
	const content = concat(...body);
	return concat(int32(content.length + 4), content);
}

/** A parameter or column value: Int32 length and the bytes, or -1 for NULL. */
function value(v: string | Uint8Array | null): Part {
	if (v === null) return int32(-1);
	const data = typeof v === "string" ? utf8.encode(v) : v;
	return concat(int32(data.length), data);
}

function list<T>(items: T[], each: (item: T) => Part): Part {
	return concat(int16(items.length), ...items.map(each));
}

export interface BindFields {
	portal?: string;
	statement?: string;
	/** Parameter format codes: none, one for all, or one each. */
	formats?: number[];
	values?: (string | Uint8Array | null)[];
	resultFormats?: number[];
}

/** Messages marked (F) in the manual. */
export const frontend = {
	/** StartupMessage (F): Int32 protocol version (major << 16 | minor), then name and value Strings, then a zero byte. */
	startupMessage(parameters: Record<string, string>, version = 3 << 16): Uint8Array {
		const pairs = Object.entries(parameters).map(([name, v]) => concat(cstring(name), cstring(v)));
		return packet(int32(version), ...pairs, bytes(0));
	},
	/** SSLRequest (F): Int32(80877103). */
	sslRequest: () => packet(int32(80877103)),
	/** GSSENCRequest (F): Int32(80877104). */
	gssencRequest: () => packet(int32(80877104)),
	/** CancelRequest (F): Int32(80877102), Int32 process ID, Byten secret key (4 bytes in 3.0, up to 256 in 3.2). */
	cancelRequest: (pid: number, key: number | Uint8Array) =>
		packet(int32(80877102), int32(pid), typeof key === "number" ? int32(key) : key),
	/** PasswordMessage (F): String. */
	passwordMessage: (password: string) => message("p", cstring(password)),
	/** SASLInitialResponse (F): String mechanism, Int32 length or -1, Byten initial response. */
	saslInitialResponse: (mechanism: string, data: string | null) => message("p", cstring(mechanism), value(data)),
	/** SASLResponse (F): Byten. */
	saslResponse: (data: string) => message("p", text(data)),
	/** GSSResponse (F): Byten. */
	gssResponse: (data: Uint8Array) => message("p", data),
	/** Query (F): String. */
	query: (sql: string) => message("Q", cstring(sql)),
	/** Parse (F): String statement, String query, Int16 number of parameter types, Int32 each. */
	parse: (sql: string, statement = "", types: number[] = []) =>
		message("P", cstring(statement), cstring(sql), list(types, int32)),
	/** Bind (F): String portal, String statement, Int16 list of formats, Int16 list of values, Int16 list of result formats. */
	bind: (fields: BindFields = {}) =>
		message(
			"B",
			cstring(fields.portal ?? ""),
			cstring(fields.statement ?? ""),
			list(fields.formats ?? [], int16),
			list(fields.values ?? [], value),
			list(fields.resultFormats ?? [], int16),
		),
	/** Describe (F): Byte1 'S' or 'P', String name. */
	describe: (kind: "S" | "P", name = "") => message("D", text(kind), cstring(name)),
	/** Execute (F): String portal, Int32 maximum number of rows (0: no limit). */
	execute: (portal = "", maxRows = 0) => message("E", cstring(portal), int32(maxRows)),
	/** Close (F): Byte1 'S' or 'P', String name. */
	close: (kind: "S" | "P", name = "") => message("C", text(kind), cstring(name)),
	/** Sync (F): empty. */
	sync: () => message("S"),
	/** Flush (F): empty. */
	flush: () => message("H"),
	/** Terminate (F): empty. */
	terminate: () => message("X"),
	/** CopyData (F & B): Byten. */
	copyData: (data: string | Uint8Array) => message("d", typeof data === "string" ? text(data) : data),
	/** CopyDone (F & B): empty. */
	copyDone: () => message("c"),
	/** CopyFail (F): String reason. */
	copyFail: (reason: string) => message("f", cstring(reason)),
	/** FunctionCall (F): Int32 function, Int16 list of formats, Int16 list of values, Int16 result format. */
	functionCall: (oid: number, values: (string | Uint8Array | null)[], formats: number[] = [], resultFormat = 0) =>
		message("F", int32(oid), list(formats, int16), list(values, value), int16(resultFormat)),
};

export interface ColumnFields {
	name: string;
	/** Default 25, text. */
	oid?: number;
	/** Default -1, variable. */
	size?: number;
	modifier?: number;
	format?: number;
	table?: number;
	attribute?: number;
}

function copyResponse(code: string, format: number, columns: number[]): Uint8Array {
	return message(code, bytes(format), list(columns, int16));
}

/** ErrorResponse and NoticeResponse (B): Byte1 field code and String each, then a zero byte. */
function fields(code: string, values: Record<string, string>): Uint8Array {
	const parts = Object.entries(values).map(([field, v]) => concat(text(field), cstring(v)));
	return message(code, ...parts, bytes(0));
}

/** Messages marked (B) in the manual. */
export const backend = {
	/** AuthenticationOk (B): Int32(0). */
	authenticationOk: () => message("R", int32(0)),
	/** AuthenticationCleartextPassword (B): Int32(3). */
	authenticationCleartextPassword: () => message("R", int32(3)),
	/** AuthenticationMD5Password (B): Int32(5), Byte4 salt. */
	authenticationMD5Password: (salt: Uint8Array) => message("R", int32(5), salt),
	/** AuthenticationGSS (B): Int32(7). */
	authenticationGSS: () => message("R", int32(7)),
	/** AuthenticationSASL (B): Int32(10), Strings of mechanisms, a zero byte. */
	authenticationSASL: (...mechanisms: string[]) => message("R", int32(10), ...mechanisms.map(cstring), bytes(0)),
	/** AuthenticationSASLContinue (B): Int32(11), Byten. */
	authenticationSASLContinue: (data: string) => message("R", int32(11), text(data)),
	/** AuthenticationSASLFinal (B): Int32(12), Byten. */
	authenticationSASLFinal: (data: string) => message("R", int32(12), text(data)),
	/** NegotiateProtocolVersion (B): Int32 newest version served, Int32 count, Strings of options not recognised. */
	negotiateProtocolVersion: (version: number, options: string[] = []) =>
		message("v", int32(version), int32(options.length), ...options.map(cstring)),
	/** ParameterStatus (B): String name, String value. */
	parameterStatus: (name: string, v: string) => message("S", cstring(name), cstring(v)),
	/** BackendKeyData (B): Int32 process ID, Byten secret key (4 bytes in 3.0, up to 256 in 3.2). */
	backendKeyData: (pid: number, key: number | Uint8Array) =>
		message("K", int32(pid), typeof key === "number" ? int32(key) : key),
	/** ReadyForQuery (B): Byte1 'I', 'T' or 'E'. */
	readyForQuery: (status: "I" | "T" | "E" = "I") => message("Z", text(status)),
	/** RowDescription (B): Int16 count; each String name, Int32 table, Int16 attribute, Int32 type, Int16 size, Int32 modifier, Int16 format. */
	rowDescription: (...columns: (string | ColumnFields)[]) =>
		message(
			"T",
			list(columns, (column) => {
				const c: ColumnFields = typeof column === "string" ? { name: column } : column;
				return concat(
					cstring(c.name),
					int32(c.table ?? 0),
					int16(c.attribute ?? 0),
					int32(c.oid ?? 25),
					int16(c.size ?? -1),
					int32(c.modifier ?? -1),
					int16(c.format ?? 0),
				);
			}),
		),
	/** DataRow (B): Int16 count; each Int32 length or -1 and Byten. */
	dataRow: (...values: (string | Uint8Array | null)[]) => message("D", list(values, value)),
	/** CommandComplete (B): String tag. */
	commandComplete: (tag: string) => message("C", cstring(tag)),
	/** EmptyQueryResponse (B): empty. */
	emptyQueryResponse: () => message("I"),
	/** ErrorResponse (B). `S`, `V`, `C`, `M` and more, see "Error and Notice Message Fields". */
	errorResponse: (values: Record<string, string>) => fields("E", values),
	/** NoticeResponse (B). */
	noticeResponse: (values: Record<string, string>) => fields("N", values),
	/** NotificationResponse (B): Int32 process ID, String channel, String payload. */
	notificationResponse: (pid: number, channel: string, payload: string) =>
		message("A", int32(pid), cstring(channel), cstring(payload)),
	/** ParseComplete (B): empty. */
	parseComplete: () => message("1"),
	/** BindComplete (B): empty. */
	bindComplete: () => message("2"),
	/** CloseComplete (B): empty. */
	closeComplete: () => message("3"),
	/** NoData (B): empty. */
	noData: () => message("n"),
	/** PortalSuspended (B): empty. */
	portalSuspended: () => message("s"),
	/** ParameterDescription (B): Int16 count, Int32 type each. */
	parameterDescription: (...types: number[]) => message("t", list(types, int32)),
	/** CopyInResponse (B): Int8 format, Int16 count, Int16 format each. */
	copyInResponse: (columns: number[] = [0], format = 0) => copyResponse("G", format, columns),
	/** CopyOutResponse (B): as CopyInResponse. */
	copyOutResponse: (columns: number[] = [0], format = 0) => copyResponse("H", format, columns),
	/** CopyBothResponse (B): as CopyInResponse. */
	copyBothResponse: (columns: number[] = [0], format = 0) => copyResponse("W", format, columns),
	/** CopyData (F & B): Byten. */
	copyData: (data: string | Uint8Array) => message("d", typeof data === "string" ? text(data) : data),
	/** CopyDone (F & B): empty. */
	copyDone: () => message("c"),
	/** FunctionCallResponse (B): Int32 length or -1, Byten. */
	functionCallResponse: (v: string | Uint8Array | null) => message("V", value(v)),
};

/** Whether the proxy asks for TLS: a server that is played answers N, and is then told who logs in. */
export function asksForTls(chunk: Buffer): boolean {
	return chunk.equals(frontend.sslRequest());
}
