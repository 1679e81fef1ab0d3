// What a log-in has to be told of the server: the settings it reports, with those of the client's StartupMessage applied. Known
// from the last connection that was opened, by whichever worker, so that nobody who logs in waits for a server of a pool that
// is busy, or down. Settings of a StartupMessage whose effect is not plain are tried on a server once and remembered. One for each
// Pool; what one thread learns it tells the others.

import { LRUCache } from "lru-cache";
import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";

/** Characters that are kept of a server's reports, and of what StartupMessages come to; beyond, a server is asked each time. */
const BASE_LIMIT = 64 << 10;
const EFFECTS_LIMIT = 64 << 10;

/** Reported settings that anybody may set: a StartupMessage with the value that is in force already changes nothing. */
const SETTABLE = new Set([
	"application_name",
	"client_encoding",
	"datestyle",
	"default_transaction_read_only",
	"intervalstyle",
	"scram_iterations",
	"search_path",
	"standard_conforming_strings",
	"timezone",
]);

/** The server's own settings: no StartupMessage changes them, and the connection it was tried on may be an older server's. */
const OWN = new Set(["server_version", "server_encoding", "integer_datetimes", "in_hot_standby"]);

/** An application_name that PostgreSQL takes as it is: nothing to be cleaned, nothing to be cut off at NAMEDATALEN. */
const PLAIN_NAME = /^[\x20-\x7e]{0,63}$/;

type Values = ReadonlyMap<string, string>;
const NONE: Values = new Map();
const NOTHING: ReadonlyMap<string, readonly [string, string]> = new Map();
/** Settings by which we read what a client sends. */
const READ_BY = ["client_encoding", "standard_conforming_strings"];
type Pairs = readonly (readonly [string, string])[];

/** News for the pool's other threads. */
export interface Lesson {
	/** Settings of the StartupMessage; null: those of the configuration alone. */
	readonly startup: Pairs | null;
	readonly reported: Pairs;
}

export class Reported {
	private readonly sets: ParameterSets;
	private readonly tell: (lesson: Lesson) => void;
	/** What the connection that was opened last has reported. Null before the first. */
	private base: ParameterSet | null = null;
	/** `base` by lower-case names: name as reported, and value. */
	private byName: ReadonlyMap<string, readonly [string, string]> = NOTHING;
	/** What StartupMessages change of `base`, by those of their settings whose effect is not plain. */
	private effects: LRUCache<string, Values> | null = null;

	/** @param tell the pool's other threads */
	constructor(sets: ParameterSets, tell: (lesson: Lesson) => void) {
		this.sets = sets;
		this.tell = tell;
	}

	/** `server_version`; undefined before the first. */
	get version(): string | undefined {
		return this.base?.values.get("server_version");
	}

	/** What a client with this StartupMessage is told; null when only a server can say. */
	of(startup: ParameterSet): ParameterSet | null {
		const rest = this.unplain(startup);
		const changes = rest === "" ? NONE : this.effects?.get(rest);
		return changes === undefined ? null : this.with(startup, changes);
	}

	/**
	 * As `of`, for a client that would have to wait long for a server to say. What was guessed wrongly is put right with its first
	 * answer, and a setting that PostgreSQL does not take ends its session then. Null where a setting of `READ_BY` is in doubt.
	 */
	guess(startup: ParameterSet): ParameterSet | null {
		for (const name of READ_BY)
			if (!this.isPlain(name, startup.values.get(name) ?? this.byName.get(name)?.[1] ?? "")) return null;
		return this.with(startup, NONE);
	}

	private with(startup: ParameterSet, changes: Values): ParameterSet | null {
		const { base } = this;
		if (base === null) return null;
		const name = startup.values.get("application_name");
		if (changes === NONE && name === undefined) return base;
		const values = new Map([...base.values, ...changes]);
		if (name !== undefined && this.isPlain("application_name", name)) values.set("application_name", name);
		return this.sets.of(values);
	}

	/** A connection was opened. */
	opened(reported: ParameterSet): void {
		if (this.learnBase(reported)) this.tell({ startup: null, reported: [...reported.values] });
	}

	/** A server was brought to the settings of a StartupMessage. */
	tried(startup: ParameterSet, reported: ParameterSet): void {
		if (this.learnEffect(startup, reported))
			this.tell({ startup: [...startup.values], reported: [...reported.values] });
	}

	/** What another thread has learned. */
	hear({ startup, reported }: Lesson): void {
		const set = this.sets.of(new Map(reported));
		if (startup === null) this.learnBase(set);
		else this.learnEffect(this.sets.of(new Map(startup)), set);
	}

	/** The pool has other servers from now on. */
	forget(): void {
		this.base = null;
		this.byName = NOTHING;
		this.effects = null;
	}

	/** @returns whether it is news */
	private learnBase(reported: ParameterSet): boolean {
		if (this.base?.equals(reported) === true) return false;
		this.forget();
		if (reported.key.length > BASE_LIMIT) return false;
		this.base = reported;
		this.byName = new Map([...reported.values].map((pair) => [pair[0].toLowerCase(), pair]));
		return true;
	}

	private learnEffect(startup: ParameterSet, reported: ParameterSet): boolean {
		const { base } = this;
		const rest = this.unplain(startup);
		if (base === null || rest === "" || this.effects?.has(rest)) return false;
		const changes = new Map<string, string>();
		for (const [name, value] of reported.values) {
			if (OWN.has(name) || base.values.get(name) === value) continue;
			// A plain application_name differs from client to client.
			if (name === "application_name" && this.isPlain(name, startup.values.get(name) ?? "")) continue;
			changes.set(name, value);
		}
		// Made when there is something to keep: most pools see clients with plain settings alone.
		this.effects ??= new LRUCache({ maxSize: EFFECTS_LIMIT, sizeCalculation: sizeOf });
		this.effects.set(rest, changes);
		return this.effects.has(rest);
	}

	/** Whether a setting of a StartupMessage is taken as it is, and changes nothing but itself. */
	private isPlain(name: string, value: string): boolean {
		const known = this.byName.get(name);
		if (known === undefined) return false;
		if (name === "application_name") return PLAIN_NAME.test(value);
		return SETTABLE.has(name) && known[1] === value;
	}

	/** The settings of a StartupMessage that are not plain, as a key; "" when there are none. */
	private unplain(startup: ParameterSet): string {
		let key = "";
		for (const [name, value] of [...startup.values].sort(([a], [b]) => (a < b ? -1 : 1)))
			if (!this.isPlain(name, value)) key += `${name}\0${value}\0`;
		return key;
	}
}

/** Characters that are kept for what a StartupMessage comes to. */
function sizeOf(changes: Values, key: string): number {
	return [...changes].reduce((sum, [name, value]) => sum + name.length + value.length, key.length + 64);
}
