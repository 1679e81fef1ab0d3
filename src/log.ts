// Log lines, text or JSON. LogTape makes them; where they go is for whoever makes the Log to say (net/standard-error.ts).
// One Log per thread, handed to whoever speaks.

import {
	getJsonLinesFormatter,
	getTextFormatter,
	type LogRecord,
	type LogLevel as LogTapeLevel,
	type TextFormatter,
} from "@logtape/logtape";

export type LogFormat = "text" | "json" | "json_flattened";
export type LogLevel = "off" | "error" | "warn" | "info" | "debug" | "trace";

/**
 * What a line is about, as fields of its own in JSON; the text has them in its words. The same thing has one name everywhere:
 * `user`, `database`, `address` (of a client), `server` (`host:port`).
 */
export type LogFields = Readonly<Record<string, string | number>>;

export interface Log {
	error(message: string, fields?: LogFields): void;
	warn(message: string, fields?: LogFields): void;
	info(message: string, fields?: LogFields): void;
	debug(message: string, fields?: LogFields): void;
	/** Whether `debug` lines are written: for those that cost something to make. */
	readonly debugs: boolean;
	/** Puts the settings of a reload in force. */
	set(format: LogFormat, level: LogLevel): void;
}

const RANK: Readonly<Record<LogLevel, number>> = { off: 0, error: 1, warn: 2, info: 3, debug: 4, trace: 5 };

const text = getTextFormatter({
	timestamp: "rfc3339",
	level: "FULL",
	format: ({ timestamp, level, message }) => `${timestamp} ${level.padStart(5)} ${message}`,
});

const formatters: Readonly<Record<LogFormat, TextFormatter>> = {
	text,
	json: getJsonLinesFormatter({ properties: "nest:properties" }),
	json_flattened: getJsonLinesFormatter({ properties: "flatten" }),
};

/** Where lines go. */
export interface LogTarget {
	write(line: string): void;
	/** Makes the line that tells of lines which were lost. */
	lossText?: (lost: number) => string;
}

/** @param target nowhere by default */
export function createLog(format: LogFormat, level: LogLevel, target: LogTarget = { write() {} }): Log {
	let formatter = formatters[format];
	let most = RANK[level];
	const formatted = (at: LogTapeLevel, message: string, fields: LogFields = NO_FIELDS) => {
		// A newline in a message would let a client forge lines, a control sequence the terminal that shows them.
		const safe = message.replace(CONTROLS, escaped);
		const record: LogRecord = {
			category: ["pgdog"],
			level: at,
			message: [safe],
			rawMessage: safe,
			timestamp: Date.now(),
			properties: fields,
		};
		// Fields are not made safe above: JSON escapes C0 in them, and this the rest, as JSON does.
		return formatter(record).replace(UNESCAPED, escaped);
	};
	const line = (at: LogTapeLevel, rank: number, message: string, fields?: LogFields) => {
		if (rank <= most) target.write(formatted(at, message, fields));
	};
	target.lossText = (lost) => formatted("warning", `${lost} log lines were lost: nobody was reading them`);
	return {
		error: (message, fields) => line("error", RANK.error, message, fields),
		warn: (message, fields) => line("warning", RANK.warn, message, fields),
		info: (message, fields) => line("info", RANK.info, message, fields),
		debug: (message, fields) => line("debug", RANK.debug, message, fields),
		get debugs() {
			return most >= RANK.debug;
		},
		set(newFormat, newLevel) {
			formatter = formatters[newFormat];
			most = RANK[newLevel];
		},
	};
}

/** C0, DEL, C1, and the line separators that JSON's readers in JavaScript once broke at. */
const CONTROLS = /[\0-\x1f\x7f-\x9f\u2028\u2029]/g;

/** Those of `CONTROLS` that JSON.stringify lets pass. */
const UNESCAPED = /[\x7f-\x9f\u2028\u2029]/g;
const NO_FIELDS: LogFields = {};

function escaped(control: string): string {
	const short = JSON.stringify(control).slice(1, -1);
	return short !== control ? short : `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
