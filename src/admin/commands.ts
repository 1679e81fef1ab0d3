// The commands of the admin database: one table of them, and `answer`, which the main thread calls for every statement that
// an admin session is given. `understand` alone, which needs no Source, tells a session what a statement would return.

import { PgError, type Severity } from "../errors.ts";
import { type Column, Oid } from "../wire/backend-messages.ts";
import {
	type AdminShape,
	type Command,
	columnsOf,
	type Field,
	int,
	notServed,
	type Row,
	rowsOf,
	syntaxError,
} from "./command.ts";
import { courtesy } from "./courtesy.ts";
import {
	BOUNCER_AVERAGES,
	BOUNCER_CLIENTS,
	BOUNCER_CONFIG,
	BOUNCER_DATABASES,
	BOUNCER_LISTS,
	BOUNCER_POOLS,
	BOUNCER_SERVERS,
	BOUNCER_STATS,
	BOUNCER_TOTALS,
	BOUNCER_USERS,
	BOUNCER_VERSION,
	lists,
} from "./pgbouncer.ts";
import { select } from "./select.ts";
import { showSetting } from "./settings.ts";
import {
	BANS,
	CLIENTS,
	CONFIG,
	LISTENERS,
	POOLS,
	REPLICATION,
	ROUTES,
	SERVERS,
	STATS,
	TRANSACTIONS,
	VERSION,
	type View,
} from "./show.ts";
import type { AdminSource, Notice } from "./source.ts";
import { isName, items, Kind, statements, type Word } from "./words.ts";

/** The answer to one statement. Plain data: it is made on the main thread and written by the worker that has the session. */
export type CommandAnswer = Answered | { readonly error: AnswerError };

export interface Answered {
	/** Empty: the command returns no rows. */
	readonly columns: readonly Column[];
	readonly rows: Row[];
	/** The command tag; empty for an empty statement. */
	readonly tag: string;
	/** NoticeResponses that come before its end. */
	readonly notices?: readonly Notice[];
}

export interface AnswerError {
	readonly severity: Severity;
	readonly sqlstate: string;
	readonly message: string;
	readonly detail?: string;
	readonly hint?: string;
}

/** Runs one statement. Never rejects: what goes wrong is in the answer. */
export async function answer(sql: string, source: AdminSource, shape: AdminShape = "pgdog"): Promise<CommandAnswer> {
	try {
		const command = understand(sql, shape);
		const notices: Notice[] = [];
		const rows = await command.run(source, (notice) => notices.push(notice));
		const { stuckWorkers: stuck } = source;
		if (stuck.length > 0) {
			const message = `not of workers ${stuck.join(", ")}, which do not come back to their event loop: see the log`;
			notices.push({ severity: "WARNING", message });
		}
		return { columns: command.columns, rows, tag: command.tag, notices };
	} catch (error) {
		return { error: answerError(error) };
	}
}

export function answerError(error: unknown): AnswerError {
	if (!(error instanceof PgError)) {
		const message = `internal error: ${error instanceof Error ? error.message : String(error)}`;
		return { severity: "ERROR", sqlstate: "XX000", message };
	}
	const { severity, sqlstate, message, detail, hint } = error;
	return {
		severity,
		sqlstate,
		message,
		...(detail === undefined ? {} : { detail }),
		...(hint === undefined ? {} : { hint }),
	};
}

/**
 * The command that a text means. Changes nothing and asks nobody.
 * @throws PgError when it means nothing, or is more than one statement
 */
export function understand(sql: string, shape: AdminShape = "pgdog"): Command {
	const list = statements(sql);
	if (list === null) throw syntaxError("A quoted text or a comment has no end.");
	if (list.length > 1) throw new PgError("ERROR", "42601", "cannot insert multiple commands into a prepared statement");
	const words = list[0]?.words;
	if (words === undefined) return { columns: [], tag: "", run: () => [] };
	if (words.some(({ kind }) => kind === Kind.Parameter)) throw TAKES_NO_PARAMETERS;
	const [first, ...rest] = words as [Word, ...Word[]];
	if (first.key === "show") return show(rest, shape);
	if (first.key === "select") return select(rest);
	const command = COMMANDS.find(({ name }) => name === first.key);
	if (command !== undefined) return command.read(rest);
	if (UNSERVED.includes(first.key)) throw notServed(first.key.toUpperCase());
	const polite = courtesy(first.key, rest);
	if (polite === undefined) throw syntaxError();
	return polite;
}

export const TAKES_NO_PARAMETERS = new PgError("ERROR", "0A000", "admin commands take no parameters");

// ---- SHOW ----------------------------------------------------------------------------------------------------------

interface Show {
	readonly name: string;
	/** For SHOW HELP. */
	readonly usage: string;
	readonly text: string;
	read(rest: readonly Word[]): Command;
}

/** @param tag PgDog answers some SHOWs with the bare tag `SHOW` and others with their name */
function showing<T>(view: View<T>, fields: readonly Field<T>[], tag: string, limit?: number): Command {
	const run = async (source: AdminSource) => rowsOf(fields, (await view.items(source)).slice(0, limit));
	return { columns: columnsOf(fields), tag, run };
}

function plain<T>(name: string, text: string, view: View<T>, tag = `SHOW ${name.toUpperCase()}`): Show {
	const read = (rest: readonly Word[]): Command => {
		if (rest.length > 0) throw syntaxError();
		return showing(view, view.fields, tag);
	};
	return { name, usage: `SHOW ${name.toUpperCase()}`, text, read };
}

/** A SHOW that takes columns (`SHOW name column, column`), and keeps the ones that tell rows apart. */
function filtered<T>(name: string, text: string, view: View<T>, tag = `SHOW ${name.toUpperCase()}`): Show {
	const read = (rest: readonly Word[]) => showing(view, chosen(view, rest, ["user", "database", "addr", "port"]), tag);
	return { name, usage: `SHOW ${name.toUpperCase()} [column, …]`, text, read };
}

/** The columns that `words` name, and those that are always `kept`; all of them when it names none. */
function chosen<T>(view: View<T>, words: readonly Word[], kept: readonly string[]): readonly Field<T>[] {
	if (words.length === 0) return view.fields;
	const wanted = new Set(kept);
	// Spaces part columns as well as commas do, as in PgDog.
	for (const word of items(words).flat()) {
		if (!isName(word)) throw syntaxError();
		const column = word.key || word.text;
		if (!view.fields.some((field) => field.name === column)) {
			const all = view.fields.map((field) => field.name).join(", ");
			throw new PgError("ERROR", "42703", `column "${column}" does not exist`, undefined, `Columns are: ${all}.`);
		}
		wanted.add(column);
	}
	return view.fields.filter((field) => wanted.has(field.name));
}

const count = (name: string): Field<ReadonlyMap<string, number>> => int(name, (counts) => counts.get(name)!);

/** SHOW LISTS in one row, as PgDog has it. */
const LISTS: View<ReadonlyMap<string, number>> = {
	fields: ["databases", "users", "pools", "used_clients", "free_servers", "used_servers"].map(count),
	items: async (source) => [new Map(await lists(source))],
};

/** `SHOW ROUTES`, `SHOW ROUTES 20`, `SHOW ROUTES 20 query, server`. */
const routes: Show = {
	name: "routes",
	usage: "SHOW ROUTES [number] [column, …]",
	text: "The last decisions on where statements went, newest first; wait in ms.",
	read(rest) {
		const numbered = rest[0]?.kind === Kind.Number;
		const limit = numbered ? integer(rest[0]!) : undefined;
		const fields = chosen(ROUTES, numbered ? rest.slice(1) : rest, ["time", "client_id"]);
		return showing(ROUTES, fields, "SHOW ROUTES", limit);
	},
};

/** @throws PgError for `1.5`, `0x1f` and the like, which are numbers to the lexer */
function integer(word: Word): number {
	if (word.kind !== Kind.Number || !/^\d+$/.test(word.text)) throw syntaxError();
	return Number(word.text);
}

const SHOWS: readonly Show[] = [
	filtered("clients", "Clients that are connected, with what they did.", CLIENTS),
	filtered("servers", "Server connections.", SERVERS, "SHOW"),
	plain("pools", "Pools: one for each user, database and server.", POOLS),
	plain("bans", "Pools that are not read from, why, and for how many ms still (NULL: no time ends it).", BANS),
	plain(
		"replication",
		"How far each server is; replica_lag, and lsn_age (how old these figures are), in ms.",
		REPLICATION,
	),
	routes,
	plain(
		"transactions",
		"Two-phase commits that are not finished, and shards that cannot be asked for theirs; age in seconds.",
		TRANSACTIONS,
	),
	plain("listeners", "Channels on which clients listen in transaction mode.", LISTENERS),
	plain("stats", "Totals of each pool, and averages over stats_period.", STATS),
	plain("config", "Settings in force.", CONFIG, "SHOW"),
	plain("version", "Version of the proxy.", VERSION),
	plain("lists", "How many there are of what.", LISTS),
];

/** SHOWs of an admin database named "pgbouncer", which has the other ones of `SHOWS` too. */
const BOUNCER_SHOWS: readonly Show[] = [
	filtered("clients", "Clients that are connected, with what they did.", BOUNCER_CLIENTS),
	filtered("servers", "Server connections.", BOUNCER_SERVERS, "SHOW"),
	plain("pools", "Pools: one for each database and user, whatever its servers.", BOUNCER_POOLS),
	plain("stats", "Totals of each database, and averages over stats_period; times in µs.", BOUNCER_STATS),
	plain("stats_totals", "The totals alone.", BOUNCER_TOTALS),
	plain("stats_averages", "The averages alone.", BOUNCER_AVERAGES),
	plain("databases", "Databases: one for each server.", BOUNCER_DATABASES),
	plain("users", "Users.", BOUNCER_USERS),
	plain("lists", "How many there are of what.", BOUNCER_LISTS),
	plain("config", "Settings in force.", BOUNCER_CONFIG, "SHOW"),
	plain("version", "Version of the proxy.", BOUNCER_VERSION),
];

function showsOf(shape: AdminShape): readonly Show[] {
	if (shape === "pgdog") return SHOWS;
	const theirs = new Set(BOUNCER_SHOWS.map(({ name }) => name));
	return [...BOUNCER_SHOWS, ...SHOWS.filter(({ name }) => !theirs.has(name))];
}

/** SHOWs of PgDog or PgBouncer that we do not serve (0A000): a row with an empty value would be taken for an answer. */
const UNSERVED_SHOWS = (
	"client server databases users peers query_cache prepared mirrors listeners " +
	"replication_slots schema_sync table_copies tasks instances instance_id fds sockets active_sockets mem dns_hosts dns_zones state " +
	"stats_totals stats_averages totals"
).split(" ");

function show(rest: readonly Word[], shape: AdminShape): Command {
	const [name, ...more] = rest;
	if (name?.kind !== Kind.Word && name?.kind !== Kind.Quoted) throw syntaxError();
	if (name.key === "help") return help(more, shape);
	const found = showsOf(shape).find((each) => each.name === name.key);
	if (found !== undefined) return found.read(more);
	if (UNSERVED_SHOWS.includes(name.key)) {
		const isTheirs = BOUNCER_SHOWS.some((each) => each.name === name.key);
		const hint = isTheirs ? 'It is PgBouncer\'s: served where [admin] has name = "pgbouncer".' : undefined;
		throw notServed(`SHOW ${rest.map(({ text }) => text.toUpperCase()).join(" ")}`, hint);
	}
	const spelled = rest.map(({ key }) => key).join(" ");
	const setting = SPELLED[spelled] ?? (more.length === 0 ? name.text : undefined);
	if (setting === undefined) throw syntaxError();
	return {
		columns: [{ name: showSetting(setting, "").name, oid: Oid.text }],
		tag: "SHOW",
		run: (source) => [[showSetting(setting, source.version).value]],
	};
}

/** PostgreSQL docs, "SHOW": settings with names of several words. */
const SPELLED: Readonly<Record<string, string>> = {
	"transaction isolation level": "transaction_isolation",
	"time zone": "TimeZone",
	"session authorization": "session_authorization",
};

function help(rest: readonly Word[], shape: AdminShape): Command {
	if (rest.length > 0) throw syntaxError();
	const all = [...showsOf(shape), { usage: "SHOW HELP", text: "This list." }, ...COMMANDS];
	const lines = all.map(({ usage, text }) => [usage, text]);
	const columns = ["command", "description"].map((name) => ({ name, oid: Oid.text }));
	return { columns, tag: "SHOW HELP", run: () => lines };
}

// ---- orders --------------------------------------------------------------------------------------------------------

function order(name: string, text: string, run: (source: AdminSource) => Promise<void>): Show {
	const read = (rest: readonly Word[]): Command => {
		if (rest.length > 0) throw syntaxError();
		return {
			columns: [],
			tag: name.toUpperCase(),
			async run(source) {
				await run(source);
				return [];
			},
		};
	};
	return { name, usage: name.toUpperCase(), text, read };
}

/** PAUSE and RESUME: of everything, of a database, or of a user's pool of a database. */
function pausing(name: "pause" | "resume", text: string): Show {
	const tag = name.toUpperCase();
	const read = (rest: readonly Word[]): Command => {
		if (rest.length > 2 || !rest.every(isName)) throw syntaxError();
		const database = rest.at(-1);
		const user = rest.length === 2 ? rest[0] : undefined;
		return {
			columns: [],
			tag,
			async run(source) {
				if (database === undefined) {
					await source[name](undefined, undefined);
					return [];
				}
				const inDatabase = matching(source.snapshot().clusters, database, (cluster) => cluster.database);
				const [cluster] = matching(inDatabase, user, (each) => each.user.name);
				const pools = cluster === undefined ? 0 : await source[name](user && cluster.user.name, cluster.database);
				if (pools > 0) return [];
				const whose = user === undefined ? "" : ` for user "${user.text}"`;
				throw new PgError("ERROR", "3D000", `there is no pool of database "${database.text}"${whose}`);
			},
		};
	};
	return { name, usage: `${tag} [database | user database]`, text, read };
}

/** Items with exactly this name; else those that have it but for upper and lower case, which PgDog does not tell apart. */
function matching<T>(all: readonly T[], word: Word | undefined, nameOf: (item: T) => string): readonly T[] {
	if (word === undefined) return all;
	const exact = all.filter((item) => nameOf(item) === word.text);
	if (exact.length > 0 || word.kind === Kind.Quoted) return exact;
	const folded = all.filter((item) => nameOf(item).toLowerCase() === word.text.toLowerCase());
	// Two names that differ in case only: the admin has to spell the one that is meant.
	return new Set(folded.map(nameOf)).size > 1 ? [] : folded;
}

/** BAN, UNBAN and HEALTHCHECK: of the pool with this id, or of all. */
function ofPools(name: "ban" | "unban" | "healthcheck", text: string): Show {
	const tag = name.toUpperCase();
	const read = (rest: readonly Word[]): Command => {
		if (rest.length > 1) throw syntaxError();
		const [word] = rest;
		const id = word === undefined ? undefined : integer(word);
		return {
			columns: [],
			tag,
			run(source) {
				const pools = source[name](id);
				if (pools > 0 || word === undefined) return [];
				throw new PgError(
					"ERROR",
					"42704",
					`there is no pool with id ${word.text}`,
					undefined,
					"SHOW POOLS lists them.",
				);
			},
		};
	};
	return { name, usage: `${tag} [pool_id]`, text, read };
}

const reload: Show = {
	name: "reload",
	usage: "RELOAD [FORCE]",
	text: "Reads the configuration files again. FORCE: also when they leave no database or no user.",
	read(rest) {
		const force = rest.length === 1 && rest[0]!.key === "force";
		if (rest.length > 0 && !force) throw syntaxError();
		return {
			columns: [],
			tag: "RELOAD",
			async run(source, tell) {
				const { refused, forcible, notices } = await source.reload(force);
				if (refused.length > 0) {
					const why = forcible ? "it would leave nothing to serve" : "it has mistakes";
					const hint = forcible ? "If that is what is meant: RELOAD FORCE." : undefined;
					throw new PgError("ERROR", "F0000", `the configuration was not reloaded: ${why}`, refused.join("\n"), hint);
				}
				for (const notice of notices.slice(0, MOST_NOTICES)) tell(notice);
				const more = notices.length - MOST_NOTICES;
				if (more > 0) tell({ severity: "WARNING", message: `and ${more} more: the log has them all` });
				return [];
			},
		};
	},
};

/** Most NoticeResponses of one RELOAD; a guess. Files may be wrong in as many places as they have lines. */
const MOST_NOTICES = 100;

const COMMANDS: readonly Show[] = [
	reload,
	order("reconnect", "Opens all server connections anew, as they become free.", (source) => source.reconnect()),
	pausing("pause", "Lets no client begin a transaction."),
	pausing("resume", "Undoes PAUSE."),
	ofPools("ban", "Sends no reads to a pool until UNBAN."),
	ofPools("unban", "Ends a ban, whatever its reason."),
	ofPools("healthcheck", "Has a pool's server checked now; SHOW POOLS tells what came of it."),
	order("shutdown", "Lets transactions end, then stops the proxy.", async (source) => source.shutdown()),
];

const UNSERVED = "maintenance probe setup reshard schema_sync copy_data replicate stop_task cutover omni_writes".split(
	" ",
);
