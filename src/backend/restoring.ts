// Brings settings back to a client's StartupMessage. RESET, SET … TO DEFAULT, RESET ALL, DISCARD ALL and set_config(…, NULL, …)
// mean what that asked for, but lead to the server's default: the server's connection began with another StartupMessage, and
// backend/server.ts applied the client's by SET. So before the client hears that its request is over, the server is brought
// there, in the same transaction, which may undo both. One for the requests that wait for that; owned by the Server.

import { Backslash } from "../parser/lexer.ts";
import { type Restores, restoringStatements } from "../parser/session.ts";
import { rewriteField } from "../wire/error-response.ts";
import { queryOf } from "../wire/frontend-messages.ts";
import { isListed, type ParameterSet, quoteIdentifier, quoteLiteral, rank } from "./parameters.ts";

/** Whether a statement may give a setting of the client's StartupMessage its default; else nothing is to be done. */
export function concerns(facts: Restores, startup: ParameterSet): boolean {
	const { values } = startup;
	if (values.size === 0) return false;
	return (
		facts.all ||
		facts.any ||
		facts.names.some((name) => values.has(name)) ||
		facts.local.some((name) => values.has(name))
	);
}

/**
 * Most that is put into one Query, bytes: a text of many RESETs must not become as many times a StartupMessage. Beyond it all
 * settings are brought back when the Query is over. A guess.
 */
const MOST_INSERTED = 64 << 10;

/** What is put into a text of several statements, and where: behind a statement that ends at this byte. */
export interface Insertion {
	readonly at: number;
	/** How many characters of the client's text are before it. */
	readonly before: number;
	readonly sql: string;
	/** Which statements of the text that is sent these are, from 1 on: each is answered by one CommandComplete. */
	readonly places: readonly number[];
}

/**
 * The SQL that brings settings back within one Query: behind each statement that gives one its default, so that the next
 * statement finds it as PostgreSQL would have it.
 * @param told what the server has reported of how it reads the text
 */
export function insertions(
	chunk: Buffer,
	start: number,
	end: number,
	startup: ParameterSet,
	told: ReadonlyMap<string, string>,
): Insertion[] {
	const found: Insertion[] = [];
	let size = 0;
	let added = 0;
	// In latin1, so that places are places of bytes.
	const text = chunk.latin1Slice(start, end);
	const encoding = told.get("client_encoding") ?? "";
	if (HALF_BACKSLASHES.has(encoding) && text.includes("\\")) return [];
	const backslash = told.get("standard_conforming_strings") === "on" ? Backslash.Plain : Backslash.Doubt;
	for (const { end: at, place, restores, isLast } of restoringStatements(text, backslash) ?? []) {
		// What is not sure is looked for when all is over, too.
		if (!concerns(restores, startup) || (isLast && !restores.sure)) continue;
		const of = new Restoring();
		of.note(restores, startup);
		const statements = of.inserted(startup);
		if (statements.length === 0) continue;
		const sql = statements.map((each) => `; ${each}`).join("");
		size += sql.length;
		if (size > MOST_INSERTED) return [];
		const places = statements.map((_, i) => place + added + i + 1);
		added += places.length;
		found.push({ at, before: charactersOf(chunk, start, start + at, encoding), sql, places });
	}
	return found;
}

/** Encodings of which half a character may be a backslash (PostgreSQL docs, "Character Set Support": client only). */
const HALF_BACKSLASHES = new Set(["BIG5", "GB18030", "GBK", "JOHAB", "SJIS", "SHIFT_JIS_2004", "UHC"]);
/** Encodings of one byte for each character. */
const SINGLE_BYTES = /^(?:LATIN|ISO_|WIN|KOI|SQL_ASCII)/;

function charactersOf(chunk: Buffer, start: number, end: number, encoding: string): number {
	if (SINGLE_BYTES.test(encoding)) return end - start;
	let count = 0;
	// All but the bytes that go on with a character in UTF-8.
	for (let at = start; at < end; at++) if ((chunk[at]! & 0xc0) !== 0x80) count++;
	return count;
}

/** The Query with what was put into its text, which is `chunk[start, end)`. */
export function insertInto(chunk: Buffer, start: number, end: number, insertions: readonly Insertion[]): Buffer {
	const parts: Buffer[] = [];
	let at = start;
	for (const { at: place, sql } of insertions) {
		parts.push(chunk.subarray(at, start + place), Buffer.from(sql));
		at = start + place;
	}
	parts.push(chunk.subarray(at, end), Buffer.of(0));
	return queryOf(Buffer.concat(parts));
}

/** The ErrorResponse `chunk[start, end)` with its position (field P), of the text that was sent, made one in the client's. */
export function movePosition(chunk: Buffer, start: number, end: number, insertions: readonly Insertion[]): Buffer {
	return rewriteField(chunk, start, end, "P", (text) => {
		let position = Number(text);
		for (const { before, sql } of insertions)
			if (position > before) position -= Math.min(sql.length, position - before);
		return String(position);
	});
}

export class Restoring {
	private all = false;
	/** Any setting may have its default now: the server is asked. */
	private any = false;
	/** Names, and whether only until the end of the transaction. */
	private readonly names = new Map<string, boolean>();
	/** One statement has given them their default, if it was run. False: the server is asked which settings have theirs now. */
	private sure = true;
	private noted = false;
	/** The command tag of that statement has come. */
	hasRun = false;
	/** An Execute was said since the last `note` or `within`. */
	mayHaveRun = false;
	/** The batch is choosing a transaction's modes (BEGIN, SET TRANSACTION): nothing is put before, since a query fixes them. */
	choosesModes = false;

	/** An Execute was said: what was parsed or bound in this batch is to be run. */
	noteRun(): void {
		this.mayHaveRun = true;
	}

	/** The next message of the batch is about a statement that chooses a transaction's modes, or is not. */
	noteModes(choosesModes: boolean): void {
		this.choosesModes = choosesModes;
	}

	note(facts: Restores, startup: ParameterSet): void {
		if (this.noted || !facts.sure) this.sure = false;
		this.noted = true;
		if (facts.all) this.all = true;
		if (facts.any) this.any = true;
		this.mayHaveRun = false;
		for (const name of facts.names) if (startup.values.has(name)) this.names.set(name, false);
		// What is given its default for the session has to come back for the session, which goes for the transaction, too.
		for (const name of facts.local) if (startup.values.has(name) && !this.names.has(name)) this.names.set(name, true);
	}

	/** An error: the one statement that would have done it did not, if its tag has not come. */
	onError(): void {
		if (this.sure && !this.hasRun) {
			this.all = false;
			this.any = false;
			this.names.clear();
		}
		this.sure = false;
	}

	/** Something has happened besides, which leaves it open what the settings are. */
	doubt(): void {
		this.sure = false;
	}

	/** The setting was reported with another value, whatever the cause. */
	noteReported(name: string): void {
		this.sure = false;
		if (!this.names.has(name)) this.names.set(name, false);
	}

	/** Name and value of what has to come back, and whether for the transaction only. */
	settings(startup: ParameterSet, inBlock: boolean): Setting[] {
		const settings: Setting[] = [];
		for (const [name, value] of startup.values) {
			const named = this.names.get(name);
			// RESET ALL leaves `role` and `session_authorization` as they are.
			const ofAll = (this.all && name !== "role" && name !== "session_authorization") || (this.any && isListed(name));
			const local = named === true && !ofAll;
			// What had its default for a transaction only has its value again behind it.
			if ((named === undefined && !ofAll) || (local && !inBlock)) continue;
			settings.push([name, value, local && inBlock]);
		}
		// `role` and `session_authorization` come last: they may make one who must not set the others.
		return settings.sort(([a], [b]) => rank(a) - rank(b));
	}

	/**
	 * @param inBlock a transaction block is open: what was for its time only is in force
	 * @returns what a server is to run; "" when that is nothing
	 */
	sql(startup: ParameterSet, inBlock: boolean): string {
		const settings = this.settings(startup, inBlock);
		if (this.sure) return this.hasRun ? settings.map((each) => setTo(...each)).join("; ") : "";
		const listed = settings.filter(([name]) => isListed(name));
		const others = settings.filter(([name]) => !isListed(name));
		// Only what has its default: pg_settings gives that another source; what it does not list is empty or 'none' then.
		const parts: string[] = [];
		const call = "SELECT pg_catalog.set_config(n.name, n.value, n.local) FROM";
		if (listed.length > 0)
			parts.push(`${call} ${rows(listed)} JOIN pg_catalog.pg_settings s ON ${SAME} AND s.source <> 'session'`);
		if (others.length > 0) parts.push(`${call} ${rows(others)} WHERE ${UNSET}`);
		return parts.join("; ");
	}

	/** What is put into a text of several statements, behind the one that this is for. */
	inserted(startup: ParameterSet): string[] {
		return this.sure ? this.settings(startup, true).map((each) => setTo(...each)) : this.within(startup);
	}

	/**
	 * Statements for the middle of a batch, where nobody can say yet what of it has been run; they return no row. What comes behind
	 * them may give settings their default again.
	 */
	within(startup: ParameterSet): string[] {
		this.mayHaveRun = false;
		this.sure = false;
		const settings = this.settings(startup, true);
		const call = "pg_catalog.set_config(n.name, n.value, n.local)";
		// All in the CASE: of several conditions the planner has the one looked at first that costs the least.
		const quietly = (some: Setting[], others: string, isDefault: string) =>
			`SELECT FROM ${rows(some)}${others} WHERE CASE WHEN ${isDefault} THEN ${call} ELSE '' END IS NULL`;
		const listed = settings.filter(([name]) => isListed(name));
		const others = settings.filter(([name]) => !isListed(name));
		const found: string[] = [];
		if (listed.length > 0)
			found.push(quietly(listed, ", pg_catalog.pg_settings s", `${SAME} AND s.source <> 'session'`));
		if (others.length > 0) found.push(quietly(others, "", UNSET));
		return found;
	}
}

const SAME = "pg_catalog.lower(s.name) = n.name";
const UNSET = "COALESCE(pg_catalog.current_setting(n.name, true), '') IN ('', 'none')";

type Setting = [name: string, value: string, local: boolean];

function rows(settings: readonly Setting[]): string {
	const values = settings.map(([name, value, local]) => `(${quoteLiteral(name)}, ${quoteLiteral(value)}, ${local})`);
	return `(VALUES ${values.join(", ")}) n(name, value, local)`;
}

/** Settings whose values SET takes apart at commas, quoting each part; all others are one string (PostgreSQL, GUC_LIST_QUOTE). */
const LISTS = new Set([
	"search_path",
	"temp_tablespaces",
	"local_preload_libraries",
	"session_preload_libraries",
	"shared_preload_libraries",
	"unix_socket_directories",
]);

/** SET where it can say the same as set_config: a SELECT needs a snapshot, and after that a transaction's modes are fixed. */
function setTo(name: string, value: string, local: boolean): string {
	const parts = LISTS.has(name) ? listItems(value) : [value];
	if (parts === null) return `SELECT pg_catalog.set_config(${quoteLiteral(name)}, ${quoteLiteral(value)}, ${local})`;
	const to = parts.map(quoteLiteral).join(", ");
	return `SET ${local ? "LOCAL " : ""}${name.split(".").map(quoteIdentifier).join(".")} TO ${to}`;
}

/** The names in a list as PostgreSQL's SplitIdentifierString reads it; null for none, or what it would not take. */
function listItems(value: string): string[] | null {
	const item = /\s*(?:"((?:[^"]|"")*)"|([^\s,"][^\s,]*))\s*(,|$)/y;
	const found: string[] = [];
	for (;;) {
		const match = item.exec(value);
		if (match === null) return null;
		found.push(match[1] !== undefined ? match[1].replaceAll('""', '"') : match[2]!.toLowerCase());
		if (match[3] === "") return found;
	}
}
