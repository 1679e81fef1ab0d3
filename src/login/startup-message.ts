// The StartupMessage: who wants to log in to what, and how the session is to begin. Read by startup.ts, which has all of it that came.
// PostgreSQL docs, "Message Formats".

import { PgError } from "../errors.ts";
import { type Hints, NO_HINTS, ownName } from "../parser/hints.ts";
import { hintsOf } from "../session/hints.ts";
import { endOfString } from "../wire/frame.ts";
import { parseOptions } from "./options.ts";

const MALFORMED = new PgError("FATAL", "08P01", "invalid startup packet layout: expected terminator as last byte");
const REPLICATION = new PgError("FATAL", "0A000", "replication connections are not supported");

export class StartupMessage {
	/** "" until it has been read. What is malformed further on leaves it there, for the log. */
	user = "";
	database = "";
	readonly parameters = new Map<string, string>();
	hints: Hints = NO_HINTS;
	/** Names of the protocol's options that we do not know. */
	readonly unknown: string[] = [];
	/** Routing hints that have a place of their own here: there they win over `options`. */
	private readonly owns = new Set<ReturnType<typeof ownName>>();

	/** @param end of the message in `chunk`, which it begins @returns what the client is told instead; null: it may go on */
	read(chunk: Buffer, end: number): PgError | null {
		let options = "";
		let at = 8;
		while (chunk[at] !== 0) {
			const nameEnd = endOfString(chunk, at, end);
			const valueEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, end);
			if (valueEnd < 0) return MALFORMED;
			const name = chunk.utf8Slice(at, nameEnd).toLowerCase();
			const value = chunk.utf8Slice(nameEnd + 1, valueEnd);
			at = valueEnd + 1;
			if (name === "options") options = value;
			else {
				const wrong = this.parameter(name, value);
				if (wrong !== null) return wrong;
			}
		}
		if (at !== end - 1) return MALFORMED;
		// A parameter with a place of its own in the packet wins over `options`, as in PostgreSQL's process_startup_options.
		for (const [name, value] of parseOptions(options).reverse()) {
			const wrong = this.parameters.has(name) || this.owns.has(ownName(name)) ? null : this.setting(name, value);
			if (wrong !== null) return wrong;
		}
		if (this.user === "") this.user = "postgres";
		if (this.database === "") this.database = this.user;
		return null;
	}

	private parameter(name: string, value: string): PgError | null {
		if (name === "user") this.user = value;
		else if (name === "database") this.database = value;
		else if (name === "replication") return /^(false|off|no|0)$/i.test(value) ? null : REPLICATION;
		else if (name.startsWith("_pq_.")) this.unknown.push(name);
		else return this.setting(name, value);
		return null;
	}

	/** A setting, or routing hint, that the session begins with. @returns what is wrong with its value */
	private setting(name: string, value: string): PgError | null {
		const own = ownName(name);
		if (own === null) {
			if (!name.startsWith("pgdog.")) this.parameters.set(name, value);
			return null;
		}
		this.owns.add(own);
		try {
			this.hints = { ...this.hints, ...hintsOf(own, value) };
			return null;
		} catch (error) {
			if (!(error instanceof PgError)) throw error;
			return new PgError("FATAL", error.sqlstate, error.message, error.detail, error.hint);
		}
	}
}
