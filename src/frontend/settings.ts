// One client's settings: what its session has, whatever server it is on, and what it was told. Servers are brought to
// them before its first statement (backend's `apply`); after a transaction that changed settings the server is asked
// which, since ROLLBACK or a savepoint may have undone it all.

import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import type { Sink } from "../net/stream.ts";
import { Dirty } from "../parser/session.ts";
import { ownName } from "../parser/hints.ts";
import { parameterStatus } from "../wire/backend-messages.ts";
import type { SessionHints } from "./session-hints.ts";

/** Differs between a primary and its replicas: of which one serves, the client need not know. */
const UNTOLD = "in_hot_standby";
const NONE: ReadonlySet<string> = new Set();

export class ClientSettings {
	/** Of its StartupMessage; RESET goes back to these. */
	readonly startup: ParameterSet;
	/** What its session has now. */
	wanted: ParameterSet;
	/** As it was told by ParameterStatus. */
	private told: ParameterSet;
	/** The last that was found to say the same: a primary's and its replicas' take turns. */
	private same: ParameterSet;
	private readonly sets: ParameterSets;
	private readonly stream: Sink;
	private readonly hints: SessionHints;

	constructor(sets: ParameterSets, startup: ParameterSet, stream: Sink, hints: SessionHints) {
		this.sets = sets;
		this.startup = startup;
		this.wanted = startup;
		this.told = sets.empty;
		this.same = sets.empty;
		this.stream = stream;
		this.hints = hints;
	}

	/** Backslashes in '…' mean themselves. */
	get isConforming(): boolean {
		return this.told.values.get("standard_conforming_strings") !== "off";
	}

	/** A hot standby refuses all of its statements (PostgreSQL docs, "Hot Standby", "Caveats"). */
	get isSerializable(): boolean {
		return this.wanted.values.get("default_transaction_isolation")?.toLowerCase() === "serializable";
	}

	/** The ParameterStatus messages of the login. */
	welcome(reported: ParameterSet): Buffer {
		this.told = reported;
		return Buffer.concat([...reported.values].map(([name, value]) => parameterStatus(name, value)));
	}

	/** Tells what this server reports otherwise than the client believes. */
	tell(server: Server): void {
		const { reported } = server;
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

	/** A ParameterStatus went through to the client. */
	onReported(name: string, value: string): void {
		this.told = this.sets.with(this.told, name, value);
		this.same = this.told;
	}

	/**
	 * Learns what the transaction that has just ended did to settings.
	 * @param serverUser who the server's login is: to be that is no setting
	 * @param done whether the server could say; not called when it dies on the way
	 */
	settle(server: Server, serverUser: string, done: (known: boolean) => void): void {
		const { resetsAll, resets } = server;
		const sets = server.sets ?? NONE;
		const names = new Set([...sets, ...(resets ?? NONE)]);
		if (resetsAll) for (const name of server.applied.values.keys()) names.add(name);
		if (resetsAll && !server.errored && !server.rolledBack) this.hints.change({ kind: "reset", name: "all" }, false);
		server.sets = null;
		server.resets = null;
		server.resetsAll = false;
		if (names.size === 0) {
			this.settleUnseen(server, serverUser, done);
			return;
		}
		server.ask([...names], (values) => {
			if (values === null) {
				done(false);
				return;
			}
			[...names].forEach((name, i) => {
				this.learn(server, serverUser, name, values[i] ?? null, !sets.has(name));
			});
			this.settleUnseen(server, serverUser, done);
		});
	}

	/** Settings were changed out of sight (a DO block): what PostgreSQL lists is the client's from now on. */
	private settleUnseen(server: Server, serverUser: string, done: (known: boolean) => void): void {
		const finish = (known: boolean) => {
			this.told = server.reported;
			done(known);
		};
		if ((server.dirty & Dirty.Settings) === 0) {
			finish(true);
			return;
		}
		server.askAll((rows) => {
			for (const [name, value] of rows ?? []) this.learn(server, serverUser, name ?? "", value ?? null, false);
			finish(rows !== null);
		});
	}

	/** What a setting is after the transaction; `reset`: it was given its default, which is the StartupMessage's. */
	private learn(server: Server, serverUser: string, name: string, value: string | null, reset: boolean): void {
		const { sets } = this;
		const own = ownName(name);
		if (own !== null) {
			// Ours to keep, and nothing that the next client should find on the server. After a ROLLBACK it is "".
			server.applied = sets.with(server.applied, name, value === "" ? null : value);
			if (value !== null && value !== "") this.hints.learn(own, value);
			else if (reset && !server.errored && !server.rolledBack) this.hints.change({ kind: "reset", name: own }, false);
			return;
		}
		const none = value === null || (name === "role" && value === "none");
		const self = name === "session_authorization" && value === serverUser;
		if (!reset && !none && !self) {
			server.applied = sets.with(server.applied, name, value);
			this.wanted = sets.with(this.wanted, name, value);
		} else if (none || self || value !== server.applied.values.get(name)) {
			server.applied = sets.with(server.applied, name, null);
			this.wanted = sets.with(this.wanted, name, this.startup.values.get(name) ?? null);
		}
	}
}
