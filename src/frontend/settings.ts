// One client's settings: what its session has, whatever server it is on, and what it was told. Servers are brought to
// them before its first statement (backend's `apply`); after a transaction that changed settings the server is asked
// which, since ROLLBACK or a savepoint may have undone it all.

import type { ParameterSet, ParameterSets } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import type { Sink } from "../net/stream.ts";
import { Dirty } from "../parser/session.ts";
import { parameterStatus } from "../wire/backend-messages.ts";

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
	private readonly sets: ParameterSets;
	private readonly stream: Sink;

	constructor(sets: ParameterSets, startup: ParameterSet, stream: Sink) {
		this.sets = sets;
		this.startup = startup;
		this.wanted = startup;
		this.told = sets.empty;
		this.stream = stream;
	}

	/** The ParameterStatus messages of the login. */
	welcome(reported: ParameterSet): Buffer {
		this.told = reported;
		return Buffer.concat([...reported.values].map(([name, value]) => parameterStatus(name, value)));
	}

	/** Tells what this server reports otherwise than the client believes. */
	tell(server: Server): void {
		const { reported } = server;
		if (reported === this.told) return;
		for (const [name, value] of reported.values)
			if (this.told.values.get(name) !== value && name !== UNTOLD) this.stream.writeAll(parameterStatus(name, value));
		this.told = reported;
	}

	/** A ParameterStatus went through to the client. */
	onReported(name: string, value: string): void {
		this.told = this.sets.with(this.told, name, value);
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
