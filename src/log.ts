// Log lines, text or JSON. LogTape makes them; where they go is for whoever makes the Log to say (net/standard-error.ts).
// One Log per thread, handed to whoever speaks.

import {
	getJsonLinesFormatter,
	getTextFormatter,
	type LogLevel as LogTapeLevel,
	type LogRecord,
	type TextFormatter,
} from "@logtape/logtape";

export type LogFormat = "text" | "json" | "json_flattened";
export type LogLevel = "off" | "error" | "warn" | "info" | "debug" | "trace";

export interface Log {
	error(message: string): void;
	warn(message: string): void;
	info(message: string): void;
	debug(message: string): void;
	/** Whether `debug` lines are written: for those that cost something to make. */
	readonly debugs: boolean;
	/** A reload changed the settings. */
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
	const formatted = (at: LogTapeLevel, message: string) => {
		// A newline in a message would let a client forge lines, a control sequence the terminal that shows them.
		const safe = message.replace(CONTROLS, escaped);
		const record: LogRecord = {
			category: ["pgdog"],
			level: at,
			message: [safe],
			rawMessage: safe,
			timestamp: Date.now(),
			properties: {},
		};
		return formatter(record);
	};
	const line = (at: LogTapeLevel, rank: number, message: string) => {
		if (rank <= most) target.write(formatted(at, message));
	};
	target.lossText = (lost) => formatted("warning", `${lost} log lines were lost: nobody was reading them`);
	return {
		error: (message) => line("error", RANK.error, message),
		warn: (message) => line("warning", RANK.warn, message),
		info: (message) => line("info", RANK.info, message),
		debug: (message) => line("debug", RANK.debug, message),
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

function escaped(control: string): string {
	const short = JSON.stringify(control).slice(1, -1);
	return short !== control ? short : `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
