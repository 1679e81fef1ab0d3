// One client's settings: those that its session has, whatever server it is on, and those that it was told. Servers are brought to
// them before its first statement (`Server.apply`); after a transaction that changed settings the server is asked which, since
// ROLLBACK or a savepoint may have undone it all. What goes back to the StartupMessage does so at once, on the server
// (backend/restoring.ts).

import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";
import { isListed } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import type { SessionState } from "../backend/session-state.ts";
import { type Rows, TOO_MUCH } from "../backend/task.ts";
import { PgError } from "../errors.ts";
import type { Sink } from "../net/stream.ts";
import { ownName } from "../parser/hints.ts";
import { Reading, readingOf } from "../parser/reading.ts";
import { Dirty } from "../parser/session.ts";
import { parameterStatus, parameterStatuses } from "../wire/backend-messages.ts";
import type { SessionHints } from "./hints.ts";

/** A setting that differs between a primary and its replicas: the client need not know which one serves it. */
const UNTOLD = "in_hot_standby";
const NONE: ReadonlySet<string> = new Set();

/** Most bytes of the settings of one session, and of those of all sessions of a thread; guesses, generous. */
const MOST_OF_CLIENT = 4 << 20;
const MOST_OF_THREAD = 64 << 20;

/** Most bytes of settings with which a session moves to another thread; a guess. */
const MOST_OF_MOVING = 64 << 10;

/** What they are for another thread. */
export interface MovingSettings {
	readonly startup: readonly [string, string][];
	readonly wanted: readonly [string, string][];
	readonly told: readonly [string, string][];
}

/** The outcome of a look at the settings that a transaction has left. */
export const enum Settled {
	Known,
	/** The settings are more than may be kept: the session has those that it had before. */
	TooMany,
	/** The server could not say. */
	Failed,
}

export class ClientSettings {
	/** Settings of the client's StartupMessage, names in lower case, values as they were sent; never changes. RESET goes back to these. */
	readonly startup: ParameterSet;
	/**
	 * Settings that the session has beyond its server's defaults, between transactions: values as PostgreSQL prints them, or, for
	 * what was never set again, as in `startup`, all of whose names are in it. A transaction's changes are here once it is settled.
	 */
	wanted: ParameterSet;
	/** The session's transactions are SERIALIZABLE: a hot standby refuses its statements (PostgreSQL docs, "Hot Standby", "Caveats"). */
	isSerializable = false;
	/** Settings as the client was told by ParameterStatus. */
	private told: ParameterSet;
	/** The last set of reports that told nothing new: a primary's and its replicas' take turns. */
	private same: ParameterSet;
	/** The settings that `lastReading` was made of. */
	private read: ParameterSet | null = null;
	private lastReading = Reading.Standard;
	private readonly sets: ParameterSets;
	private readonly stream: Sink;
	private readonly session: { readonly hints: SessionHints };
	/** The server whose reports reach the client as they come: what it was told is what that has reported. */
	private live: SessionState | null = null;
	/** How many reports that server had sent when it became `live`. */
	private liveFrom = 0;

	/** @param session whose hints change with settings of ours */
	constructor(sets: ParameterSets, startup: ParameterSet, stream: Sink, session: { readonly hints: SessionHints }) {
		this.sets = sets;
		this.startup = startup;
		this.wanted = startup;
		this.want(startup);
		this.told = sets.empty;
		this.same = sets.empty;
		this.stream = stream;
		this.session = session;
		sets.keep(startup.bytes);
	}

	/** The client is gone. */
	leave(): void {
		this.sets.keep(-this.wanted.bytes);
		this.want(this.sets.empty);
		this.live = null;
	}

	get mayMove(): boolean {
		return this.live === null && this.startup.bytes + this.wanted.bytes + this.told.bytes <= MOST_OF_MOVING;
	}

	depart(): MovingSettings {
		const { startup, wanted, told } = this;
		return { startup: [...startup.values], wanted: [...wanted.values], told: [...told.values] };
	}

	arrive({ wanted, told }: MovingSettings): void {
		const { sets } = this;
		const before = this.wanted.bytes;
		this.want(sets.of(new Map(wanted)));
		this.told = sets.of(new Map(told));
		this.same = this.told;
		sets.keep(this.wanted.bytes - before);
	}

	/** How the session reads statements, as the server that it has, or had last, has reported. */
	get reading(): Reading {
		const told = this.live?.reports.now ?? this.told;
		if (told !== this.read) {
			this.read = told;
			this.lastReading = readingOf(told.values);
		}
		return this.lastReading;
	}

	/** The session has these settings from now on. */
	private want(wanted: ParameterSet): void {
		this.wanted = wanted;
		this.isSerializable = wanted.values.get("default_transaction_isolation")?.toLowerCase() === "serializable";
	}

	/** The ParameterStatus messages of the login. */
	welcome(reported: ParameterSet): Buffer {
		this.told = reported;
		return parameterStatuses(reported.values);
	}

	/** Tells what this server reports otherwise than the client believes. From here on its reports reach the client as they come. */
	tell({ session }: Server): void {
		const { reports } = session;
		const reported = reports.now;
		this.live = session;
		this.liveFrom = reports.count;
		if (reported === this.told || reported === this.same) return;
		let differs = false;
		for (const [name, value] of reported.values) {
			if (this.told.values.get(name) === value || name === UNTOLD) continue;
			this.stream.writeAll(parameterStatus(name, value));
			differs = true;
		}
		this.same = reported;
		if (differs) this.told = reported;
	}

	/** Reports of the server do not reach the client from now on. */
	stopTelling(): void {
		const { live } = this;
		this.live = null;
		if (live === null || live.reports.count === this.liveFrom) return;
		const reported = live.reports.now;
		if (reported === this.told || reported === this.same) return;
		this.told = reported;
		this.same = this.told;
	}

	/**
	 * Learns what the transaction that has just ended did to settings.
	 * @param serverUser the user that the server's connection has logged in as: to be that is no setting
	 * @param done not called when the server dies on the way
	 */
	settle(server: Server, serverUser: string, done: (settled: Settled) => void): void {
		const { traces } = server.session;
		const { resetsAll, resets, sets } = traces;
		const names = new Set([...(sets ?? NONE), ...(resets ?? NONE)]);
		if (resetsAll) for (const name of server.session.applied.values.keys()) names.add(name);
		if (resetsAll && traces.stands) this.session.hints.change({ kind: "reset", name: "all" }, false);
		if (traces.isTooMuch) {
			traces.settle();
			traces.leave(Dirty.Settings);
			done(Settled.TooMany);
			return;
		}
		if (names.size === 0) {
			traces.settle();
			this.settleUnseen(server, serverUser, done);
			return;
		}
		server.session.ask([...names], MOST_OF_CLIENT, (rows) => {
			traces.settle();
			const settled = this.learn(server, serverUser, rows);
			if (settled === Settled.Known) this.settleUnseen(server, serverUser, done);
			else done(settled);
		});
	}

	/** Settings were changed out of sight (a DO block): what PostgreSQL lists is the client's from now on. */
	private settleUnseen(server: Server, serverUser: string, done: (settled: Settled) => void): void {
		if (!server.session.traces.isUnknown) {
			done(Settled.Known);
			return;
		}
		const others = [...this.wanted.values.keys()].filter((name) => name.includes("."));
		server.session.askAll(others, MOST_OF_CLIENT, (rows) => {
			if (rows instanceof PgError) {
				done(this.learn(server, serverUser, rows));
				return;
			}
			const listed = new Set(rows.map(([name]) => name));
			// Settings that are not among what the session has set have been reset.
			const gone = [...this.wanted.values.keys()].filter((name) => isListed(name) && !listed.has(name));
			done(this.learn(server, serverUser, [...rows, ...gone.map((name) => [name, null])]));
		});
	}

	/**
	 * Learns what settings are after the transaction. @param rows name and value; null is what the session has not set
	 */
	private learn(server: Server, serverUser: string, rows: Rows | PgError): Settled {
		if (rows instanceof PgError) {
			if (rows.sqlstate !== TOO_MUCH) return Settled.Failed;
			server.session.traces.leave(Dirty.Settings);
			return Settled.TooMany;
		}
		const applied: [string, string | null][] = [];
		const wanted: [string, string | null][] = [];
		for (const [name, value] of rows) {
			if (name === null || name === undefined) continue;
			const own = ownName(name);
			if (own !== null) {
				// Ours (`pgdog.…`) to keep, and nothing that the next client should find on the server. It is "" after a ROLLBACK or a reset.
				applied.push([name, value || null]);
				if (value) this.session.hints.learn(own, value);
				else if (server.session.traces.stands) this.session.hints.change({ kind: "reset", name: own }, false);
				continue;
			}
			const now = this.settingOf(name, value ?? null, serverUser);
			applied.push([name, now]);
			wanted.push([name, now ?? this.startup.values.get(name) ?? null]);
		}
		const next = this.sets.change(this.wanted, wanted);
		const growth = next.bytes - this.wanted.bytes;
		if (next.bytes > MOST_OF_CLIENT || (this.sets.kept + growth > MOST_OF_THREAD && growth > 0)) {
			server.session.traces.leave(Dirty.Settings);
			return Settled.TooMany;
		}
		server.session.noteApplied(applied);
		this.want(next);
		this.sets.keep(growth);
		return Settled.Known;
	}

	/** The value that a session keeps; null for none. No role, or the server's user, is kept where the StartupMessage has one. */
	private settingOf(name: string, value: string | null, serverUser: string): string | null {
		if (this.startup.values.has(name)) return value;
		const none = (name === "role" && value === "none") || (name === "session_authorization" && value === serverUser);
		return none ? null : value;
	}
}

/** 53200: what a client is told instead of the answer to its next request. */
export function tooManySettings(): PgError {
	return new PgError(
		"ERROR",
		"53200",
		"the settings of this session take more than the proxy keeps",
		"What the last transaction has set is not kept. A session's settings may take " +
			`${MOST_OF_CLIENT >> 20} MiB, those of all sessions of a thread ${MOST_OF_THREAD >> 20} MiB.`,
		"Use SET LOCAL, which needs no keeping, or session pooling.",
	);
}
