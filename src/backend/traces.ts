// What a client does to the session of the server that it has: settings that it gives values, things that it leaves behind,
// objects that it makes. Noted when it is said and when it is answered, settled when its transaction has ended
// (session/settings.ts), cleaned before anybody else has the server (clean.ts). One for each Server; nothing but what is here
// knows whether a session is clean.

import { Dirty, Reads, readsOf, type SessionFacts } from "../parser/session.ts";

/** Most bytes of the names of settings that one transaction has set; more is not kept (session/settings.ts). */
const NAMES_LIMIT = 1 << 20;
const NAME_COST = 64;

/** Tables of one session that are known by name; of more than these it is not remembered that they are temporary. */
const MOST_TEMPORARIES = 1000;

/** Command tags of what changes the catalogue in a way that Parse depends on. The text of a DO was looked at. */
const ALTERS = /^(CREATE|ALTER|DROP|IMPORT|COMMIT PREPARED)/;

/** What is read with every request is a field; all are written here only. */
export class Traces {
	/** Bits of `Dirty`: what has to be cleaned away before somebody else has the session. */
	dirty = 0;
	/** The last statement was ROLLBACK, or failed. */
	rolledBack = false;
	private setNames: Set<string> | null = null;
	private resetNames: Set<string> | null = null;
	private resetsEverything = false;
	private bytes = 0;
	private readBits = 0;
	private hasErrors = false;
	/** A statement of this loan had a closer look (parser/session.ts): the tags SET and RESET are no surprise. */
	private looked = false;
	/** A statement may have taken advisory locks of the session, or given them back, and nobody has asked since which it has. */
	asksLocks = false;
	/** CREATE, ALTER, DROP was said, whose transaction has not ended. */
	alters = false;
	/** Temporary tables that were made here in this loan, and whether anything temporary was. */
	private readonly temporaries = new Set<string>();
	private hasTemporaries = false;
	private readonly altered: () => void;

	/** @param altered the catalogue of the database may have changed */
	constructor(altered: () => void) {
		this.altered = altered;
	}

	// ---- what is known ---------------------------------------------------------------------------------------------

	/** Settings to ask for once the transaction has ended, and those that were reset; null when there are none. */
	get sets(): ReadonlySet<string> | null {
		return this.setNames;
	}

	get resets(): ReadonlySet<string> | null {
		return this.resetNames;
	}

	get resetsAll(): boolean {
		return this.resetsEverything;
	}

	/** So many settings were set that their names are not kept. */
	get isTooMuch(): boolean {
		return this.bytes > NAMES_LIMIT;
	}

	/** The server has to be asked something before it may go on. */
	get unsettled(): boolean {
		if (this.setNames !== null || this.resetNames !== null || this.resetsEverything || this.asksLocks) return true;
		return (this.dirty & Dirty.Settings) !== 0;
	}

	/** Settings are among what it has to be asked for. */
	get changesSettings(): boolean {
		if (this.setNames !== null || this.resetNames !== null || this.resetsEverything) return true;
		return (this.dirty & Dirty.Settings) !== 0;
	}

	/** Settings were changed in a way that could not be followed. */
	get isUnknown(): boolean {
		return (this.dirty & Dirty.Settings) !== 0;
	}

	/** Bits of `Reads`: what is parsed here during this loan may mean something else than by the client's settings. */
	get reads(): number {
		return this.readBits;
	}

	/** An ErrorResponse came during this loan. */
	get errored(): boolean {
		return this.hasErrors;
	}

	/** What was set holds: no error has come during this loan, and no ROLLBACK last. */
	get stands(): boolean {
		return !this.hasErrors && !this.rolledBack;
	}

	// ---- what is said ----------------------------------------------------------------------------------------------

	/** A client has the server from now on. */
	begin(): void {
		this.looked = false;
		this.hasErrors = false;
		this.rolledBack = false;
		this.readBits = Reads.Nothing;
		this.hasTemporaries = false;
		if (this.temporaries.size > 0) this.temporaries.clear();
	}

	/** A transaction has ended, and the client keeps the server. What it has made, and reads texts by, stays. */
	goOn(): void {
		// What it has prepared under names that are not followed may give locks back unseen.
		this.asksLocks ||= (this.dirty & Dirty.Prepared) !== 0;
		this.looked = false;
		this.hasErrors = false;
		this.rolledBack = false;
	}

	/** A statement is said: what it does to its session. @param isBound its parameters come in a Bind */
	note(facts: SessionFacts, isBound: boolean): void {
		this.looked = true;
		this.readBits |= facts.reads;
		this.dirty |= facts.dirty;
		this.asksLocks ||= facts.locks;
		if (facts.parameterSets.length > 0 && !isBound) this.dirty |= Dirty.Settings;
		if (facts.sets.length > 0) this.noteSets(facts.sets);
		if (facts.resets.length > 0) this.noteResets(facts.resets);
		if (facts.resetsAll) this.resetsEverything = true;
	}

	/** A statement is said: what it does to the catalogue. */
	noteObjects({ alters, temporaries, drops }: SessionFacts): void {
		if (alters) this.noteAlters();
		this.hasTemporaries ||= temporaries.length > 0;
		for (const name of temporaries) if (this.temporaries.size < MOST_TEMPORARIES) this.temporaries.add(name);
		// Whoever drops other tables than those of the session alone changes the catalogue.
		for (const name of drops) if (!this.temporaries.delete(name)) this.noteAlters();
	}

	/** Bits of `Dirty` that something has left, or may have. */
	leave(bits: number): void {
		this.dirty |= bits;
	}

	/** Settings were changed, and it cannot be told which: texts may be read in any way from now on. */
	noteUnknown(): void {
		this.dirty |= Dirty.Settings;
		this.readBits |= Reads.Everything;
	}

	noteSets(names: readonly string[]): void {
		this.setNames ??= new Set();
		this.noteNames(names, this.setNames);
	}

	private noteResets(names: readonly string[]): void {
		this.resetNames ??= new Set();
		this.noteNames(names, this.resetNames);
	}

	private noteNames(names: readonly string[], to: Set<string>): void {
		for (const name of names) {
			this.readBits |= readsOf(name);
			if (this.bytes > NAMES_LIMIT) return;
			if (to.has(name)) continue;
			to.add(name);
			this.bytes += name.length + NAME_COST;
		}
	}

	/** CREATE, ALTER or DROP: the catalogue has changed when the transaction ends. */
	private noteAlters(): void {
		this.alters = true;
		this.readBits |= Reads.Names;
	}

	// ---- what is answered ------------------------------------------------------------------------------------------

	/** CommandComplete. @param isDone no transaction is open behind it, as far as is known */
	noteCommand(isDone: boolean): void {
		this.rolledBack = false;
		if (this.alters && isDone) this.altered();
	}

	/** CommandComplete of ROLLBACK. */
	noteRollback(): void {
		this.rolledBack = true;
	}

	/** CommandComplete of SET or RESET: what was understood was noted before it was sent; without a closer look nothing was. */
	noteSet(): void {
		if (!this.looked) this.noteUnknown();
	}

	/** CommandComplete with a tag that few have: it may tell that the catalogue has changed. @param isIdle no transaction is open */
	noteTag(tag: string, isIdle: boolean): void {
		// What was made for this session alone was noted before.
		if (!ALTERS.test(tag) || this.hasTemporaries || this.alters) return;
		this.noteAlters();
		if (isIdle) this.altered();
	}

	/** ParameterStatus of a setting, whoever set it. */
	noteReport(setting: string): void {
		if (!this.resetsEverything && !this.resetNames?.has(setting)) this.noteSets([setting]);
	}

	/** ErrorResponse. */
	noteError(): void {
		this.hasErrors = true;
		// A COMMIT that fails rolls back; the next tag says otherwise.
		this.rolledBack = true;
	}

	/** ReadyForQuery with no transaction open: who parses from now on finds what the last has made. @param isLast nothing is owed */
	endTransaction(isLast: boolean): void {
		// What changes the catalogue may be among what is still owed.
		this.alters = !isLast;
		this.altered();
	}

	// ---- the end ---------------------------------------------------------------------------------------------------

	/** The session's settings have been asked for, or nobody is to ask. */
	settle(): void {
		this.setNames = null;
		this.resetNames = null;
		this.resetsEverything = false;
		this.bytes = 0;
	}

	/** The session's advisory locks have been asked for, or nobody is to ask. @param isFree it has none */
	settleLocks(isFree: boolean): void {
		this.asksLocks = false;
		if (isFree) this.dirty &= ~Dirty.AdvisoryLock;
	}

	/** As `settle`, when the client is gone: the settings cannot be asked for on anyone's behalf, and have to be cleaned. */
	giveUp(): void {
		if (this.changesSettings) this.dirty |= Dirty.Settings;
		this.settle();
		this.asksLocks = false;
	}

	/** The session is cleaned, or about to be. @returns bits of `Dirty`: what it had */
	take(): number {
		const { dirty } = this;
		this.dirty = Dirty.None;
		return dirty;
	}
}
