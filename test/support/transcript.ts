// Prints messages a line each, much as libpq's PQtrace does, so that what comes straight from PostgreSQL and what comes through
// the proxy can be compared as text. Process ids and secrets differ from run to run and are masked.

import { Body, dataRow, errorFields, type Message } from "./message.ts";

export interface TranscriptOptions {
	/** Show names and values of these ParameterStatus only; the others are left out. Default: all. */
	parameters?: string[];
	/** Replaces what differs between two runs (names of temporary objects, times). */
	mask?: (line: string) => string;
}

const NAMES: Record<string, string> = {
	"1": "ParseComplete",
	"2": "BindComplete",
	"3": "CloseComplete",
	A: "NotificationResponse",
	C: "CommandComplete",
	c: "CopyDone",
	D: "DataRow",
	d: "CopyData",
	E: "ErrorResponse",
	G: "CopyInResponse",
	H: "CopyOutResponse",
	I: "EmptyQueryResponse",
	K: "BackendKeyData",
	N: "NoticeResponse",
	n: "NoData",
	R: "Authentication",
	S: "ParameterStatus",
	s: "PortalSuspended",
	T: "RowDescription",
	t: "ParameterDescription",
	V: "FunctionCallResponse",
	v: "NegotiateProtocolVersion",
	W: "CopyBothResponse",
	Z: "ReadyForQuery",
};

/** One line for each message. */
export function transcript(messages: Message[], options: TranscriptOptions = {}): string {
	const lines: string[] = [];
	for (const message of messages) {
		if (message.code === "S" && options.parameters) {
			if (!options.parameters.includes(new Body(message.body).cstring())) continue;
		}
		const line = describeMessage(message);
		lines.push(options.mask ? options.mask(line) : line);
	}
	return lines.join("\n");
}

/** The manual's name of the message and its fields. A body that cannot be opened is shown as bytes. */
export function describeMessage(message: Message): string {
	const name = NAMES[message.code] ?? `Unknown(${message.code})`;
	try {
		return `${name} ${contents(message)}`.trimEnd();
	} catch (error) {
		return `${name} MALFORMED ${(error as Error).message}: ${message.body.toString("hex")}`;
	}
}

function contents(message: Message): string {
	const body = new Body(message.body);
	switch (message.code) {
		case "D":
			return JSON.stringify(dataRow(message.body));
		case "E":
		case "N":
			return (
				Object.entries(errorFields(message.body))
					// File, line and routine change between versions of PostgreSQL.
					.filter(([field]) => !"FLR".includes(field))
					.map(([field, value]) => `${field}=${JSON.stringify(value)}`)
					.join(" ")
			);
		case "K":
			body.int32();
			return `pid=<masked> key=<${body.left} bytes>`;
		case "A":
			body.int32();
			return `pid=<masked> ${JSON.stringify([body.cstring(), body.cstring()])}`;
		case "S":
			return JSON.stringify([body.cstring(), body.cstring()]);
		case "C":
			return JSON.stringify(body.cstring());
		case "Z":
			return String.fromCharCode(body.int8());
		case "R": {
			const kind = body.int32();
			// Salts and proofs are new each time.
			return kind === 10 ? `${kind} ${JSON.stringify(body.cstring())}` : String(kind);
		}
		case "T":
			return `[${Array.from({ length: body.int16() }, () => {
				const name = JSON.stringify(body.cstring());
				body.int32();
				const attribute = body.int16();
				return `${name} attribute=${attribute} type=${body.int32()} size=${body.int16()} modifier=${body.int32()} format=${body.int16()}`;
			}).join(", ")}]`;
		case "t":
			return JSON.stringify(Array.from({ length: body.int16() }, () => body.int32()));
		case "G":
		case "H":
		case "W":
			return `${body.int8()} ${JSON.stringify(Array.from({ length: body.int16() }, () => body.int16()))}`;
		case "v": {
			const version = body.int32();
			const options = Array.from({ length: body.int32() }, () => body.cstring());
			return `${version >>> 16}.${version & 0xffff} ${JSON.stringify(options)}`;
		}
		case "V":
		case "d":
			return JSON.stringify(message.body.toString("latin1"));
		default:
			return message.body.length > 0 ? `UNEXPECTED ${message.body.toString("hex")}` : "";
	}
}
