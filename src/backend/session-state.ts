// What the session of one server is beyond its login: the settings that clients' SETs have left on it, what the server reports of
// itself, what the client at hand does to it, and what has to be brought back before that client hears that its request is over.
// One for each Server, which runs the queries that this asks for; relay.ts notes here what the server says of it.

import type { PgError } from "../errors.ts";
import { NO_FACTS, type Restores, type SessionFacts } from "../parser/session.ts";
import { TxStatus } from "../wire/codes.ts";
import { askAll, askParameters, changeParameters, type ParameterSet, type ParameterSets } from "./parameters.ts";
import { Reports } from "./reports.ts";
import { concerns, Restoring } from "./restoring.ts";
import type { Rows, TaskDone } from "./task.ts";
import { Traces } from "./traces.ts";

/** A client as its server's session concerns it. */
export interface SessionClient {
	/** Settings of its StartupMessage. */
	readonly startup: ParameterSet;
	/** What the server reports from here on is not passed on: when its request is over, the client is told what has changed. */
	onReportsHeld(): void;
}

/** Who hears of the command tags of what its client says (client/hearing.ts). */
export interface Follower {
	onTag(tag: string): void;
}

/** The Server, which runs the queries that its SessionState asks for. */
export interface SessionServer {
	/** Whom it is lent to. */
	readonly client: SessionClient | null;
	readonly status: TxStatus;
	/** As `Server.run`. */
	run(sql: string, done: TaskDone): void;
}

export class SessionState {
	/** Settings that this session has beyond those of its login. */
	applied: ParameterSet;
	/** What its client does to it. */
	readonly traces: Traces;
	/** Session pooling: lent for as long as the client stays; what it does is not followed. */
	locked = false;
	/** The client keeps it when its transaction ends: as `locked`, or for its advisory locks. */
	stays = false;
	/** Settings that have to go back to the client's StartupMessage before it hears that its request is over; else null. */
	restoring: Restoring | null = null;
	/** The request under way sets something by name: a report of that needs no other cause. Ends with it (relay.ts). */
	givesValues = false;
	/**
	 * Hears of the command tags while its client may have said LISTEN; else null. What the server notifies is not for the client then, which
	 * hears of its channels elsewhere.
	 */
	follower: Follower | null = null;
	/** Settings as the server reported them in ParameterStatus. */
	readonly reports: Reports;
	private readonly sets: ParameterSets;
	private readonly server: SessionServer;

	/** @param altered as `Traces` has it */
	constructor(sets: ParameterSets, server: SessionServer, altered: () => void) {
		this.sets = sets;
		this.server = server;
		this.applied = sets.empty;
		this.traces = new Traces(altered);
		this.reports = new Reports(sets);
	}

	// ---- what is applied -----------------------------------------------------------------------------------------------------

	/** A client has the session from now on. @param locked for as long as the client stays */
	lent(locked: boolean): void {
		this.locked = locked;
		this.stays = locked;
		this.restoring = null;
		this.givesValues = false;
		this.follower = null;
		this.traces.begin();
	}

	/** `follower` hears of the command tags, until the session is somebody else's. */
	follow(follower: Follower): void {
		this.follower = follower;
	}

	/** RESET ALL has been run, or will be before anybody has it: nothing is applied. */
	forgetApplied(): void {
		this.applied = this.sets.empty;
	}

	/** A transaction has set these names beyond the settings of the login; null takes one away. */
	noteApplied(changes: readonly [string, string | null][]): void {
		this.applied = this.sets.change(this.applied, changes);
	}

	// ---- what the server reports -----------------------------------------------------------------------------------

	/** ParameterStatus while a client has it: whatever changed the setting, a function perhaps, may have changed the session's value. */
	onReport(name: string): void {
		if (READ_ONLY_REPORTS.has(name)) return;
		const setting = name.toLowerCase();
		const { traces } = this;
		const { client } = this.server;
		if (this.restoring !== null) this.restoring.noteReported(setting);
		else if (client?.startup.values.has(setting) && !this.givesValues && !traces.sets?.has(setting))
			this.beginRestoring(client).noteReported(setting);
		if (!this.locked) traces.noteReport(setting);
	}

	// ---- what the client says --------------------------------------------------------------------------------------

	/** A statement was said: what it does to the session. @param isBound its parameters come in a Bind */
	note(facts: SessionFacts, isBound = false): void {
		if (facts === NO_FACTS) return;
		this.traces.noteObjects(facts);
		this.noteRestores(facts.restores, facts.sets.length > 0);
		// What a session does that keeps its server is followed no further.
		if (!this.locked) this.traces.note(facts, isBound);
	}

	/** What a statement may give its default. @param givesValues it sets something by name */
	noteRestores(restores: Restores | null, givesValues: boolean): void {
		if (givesValues) this.givesValues = true;
		const { client } = this.server;
		if (restores !== null && client !== null && concerns(restores, client.startup))
			this.beginRestoring(client).note(restores, client.startup);
		else if (givesValues) this.restoring?.doubt();
	}

	private beginRestoring(client: SessionClient): Restoring {
		if (this.restoring === null) {
			this.restoring = new Restoring();
			client.onReportsHeld();
		}
		return this.restoring;
	}

	// ---- advisory locks --------------------------------------------------------------------------------------------

	/** Outside of a transaction: has the client keep the server as long as the session holds advisory locks. */
	askLocks(done: () => void): void {
		const { traces } = this;
		this.server.run(ASK_LOCKS, (rows, error) => {
			// Without an answer the client may hold some: it is asked for again.
			this.stays = error !== null || rows[0]?.[0] !== "0";
			if (error === null) traces.settleLocks(!this.stays);
			done();
		});
	}

	// ---- queries of ours about settings ----------------------------------------------------------------------------

	/** Brings the client's settings back. On an error they are the server's. */
	restore(startup: ParameterSet, done: (error: PgError | null) => void): void {
		const { status } = this.server;
		if (status === TxStatus.Failed) {
			// Nothing can be done before the ROLLBACK, or ROLLBACK TO, which may undo it all.
			this.restoring?.doubt();
			done(null);
			return;
		}
		const sql = this.restoring?.sql(startup, status === TxStatus.InBlock) ?? "";
		this.restoring = null;
		if (sql === "") done(null);
		else this.server.run(sql, (_, error) => done(error));
	}

	/** Brings the session's settings to `wanted`. On an error the settings are what they were. */
	apply(wanted: ParameterSet, done: (error: PgError | null) => void): void {
		const sql = changeParameters(this.applied, wanted);
		if (sql === "") {
			done(null);
			return;
		}
		this.server.run(sql, (_, error) => {
			if (error === null) this.applied = wanted;
			done(error);
		});
	}

	/**
	 * After a transaction that changed settings: asks what they are now, as `askParameters` says it. After an error a SET may
	 * not have happened, and a default is nothing that the session has set: then only what it has set itself has a value.
	 */
	ask(names: readonly string[], most: number, done: (rows: Rows | PgError) => void): void {
		const { errored, resets, resetsAll } = this.traces;
		const ownOnly = errored || resets !== null || resetsAll;
		this.server.run(askParameters(names, ownOnly, most), (rows, error) => done(error ?? rows));
	}

	/** Asks for all that this session has set, as `askAll` of parameters.ts says it. */
	askAll(others: readonly string[], most: number, done: (rows: Rows | PgError) => void): void {
		this.server.run(askAll(others, most), (rows, error) => done(error ?? rows));
	}
}

/** Reported by the server but not set by anyone in the session. */
const READ_ONLY_REPORTS = new Set([
	"server_version",
	"server_encoding",
	"integer_datetimes",
	"in_hot_standby",
	"is_superuser",
]);

/** The locks of transactions are gone when one asks outside of one. */
const ASK_LOCKS =
	"SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()";
