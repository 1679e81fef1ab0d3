// `pgdog route`: where each statement of a file would go, and why, without a server. Called by main.ts. What a session SETs of routing
// holds for the statements behind it; beside that each is looked at as if it were alone.

import { membersOf } from "./config/resolve.ts";
import { type Snapshot, WILDCARD } from "./config/snapshot.ts";
import { PgError } from "./errors.ts";
import { type Aim, evaluate, type Want } from "./parser/aim.ts";
import { StatementCache } from "./parser/cache.ts";
import { type OwnSetting, ownSetting } from "./parser/hints.ts";
import { Backslash, Lexer, Token } from "./parser/lexer.ts";
import { Parsed, SqlParser } from "./parser/parse.ts";
import { type Source, SourceKind } from "./parser/sources.ts";
import { At, type KeyColumn } from "./parser/tables.ts";
import { Placing } from "./router/placing.ts";
import { type Route, ShardChoice } from "./router/route.ts";
import { sideText } from "./router/route-log.ts";
import { Router, routeRequest } from "./router/router.ts";
import { SessionHints } from "./session/hints.ts";

interface RoutedFile {
	/** For standard output. */
	readonly text: string;
	/** A statement would be refused, or there is an error in it. */
	readonly isRefused: boolean;
}

/** A statement with the line where it begins, from 1. */
interface Statement {
	readonly line: number;
	readonly sql: string;
}

/** What is told of one. */
interface Told {
	readonly shard: string;
	readonly side: string;
	readonly why: string;
	readonly keys: string;
	/** Lines below it. */
	readonly notes: readonly string[];
	readonly isRefused: boolean;
}

/**
 * @param database its name; undefined: the only one
 * @throws Error when there is none of that name, or nobody says which of several
 */
export function routeFile(snapshot: Snapshot, database: string | undefined, sql: string): RoutedFile {
	const routes = new FileRoutes(snapshot, nameOf(snapshot, database));
	const all = statementsOf(sql).map(({ line, sql }) => ({ line, sql, ...routes.tell(sql) }));
	const rows = [
		["line", "shard", "side", "decided by", "keys", "statement"],
		...all.map(({ line, shard, side, why, keys, sql }) => [String(line), shard, side, why, keys, shortened(sql)]),
	];
	const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
	const [head, ...lines] = rows.map((row) =>
		row
			.map((cell, column) => cell.padEnd(widths[column]!))
			.join("  ")
			.trimEnd(),
	);
	const indent = " ".repeat(widths[0]! + 2);
	const text = [head, ...lines.flatMap((line, i) => [line, ...all[i]!.notes.map((note) => indent + note)])];
	return { text: `${text.join("\n")}\n`, isRefused: all.some(({ isRefused }) => isRefused) };
}

function nameOf(snapshot: Snapshot, named: string | undefined): string {
	const names = [...new Set(snapshot.databases.map(({ name }) => name))];
	const known = names.map((each) => JSON.stringify(each)).join(", ") || "none";
	if (named !== undefined && membersOf(snapshot, named).length > 0) return named;
	if (named !== undefined) throw new Error(`there is no database ${JSON.stringify(named)}: there are ${known}`);
	if (names.length !== 1 || names[0] === WILDCARD) throw new Error(`--database has to say which: there are ${known}`);
	return names[0]!;
}

/** The router of a database, asked about one statement after another. */
class FileRoutes {
	readonly #router: Router;
	readonly #parser = new SqlParser();
	readonly #hints = new SessionHints();
	/** What the router gives for any one shard: none has this number. */
	readonly #anyShard: number;

	constructor(snapshot: Snapshot, database: string) {
		const members = membersOf(snapshot, database);
		const sharding = snapshot.sharding.get(database);
		const roles = members.map(({ role }) => role);
		const placing = sharding === undefined ? null : new Placing(sharding);
		const topology = {
			shards: new Set(members.map(({ shard }) => shard)).size,
			hasPrimary: roles.some((role) => role !== "replica"),
			hasReplicas: roles.some((role) => role !== "primary"),
			readOnly: members.every(({ read_only }) => read_only === true),
			placing,
		};
		const statements = new StatementCache(this.#parser, { writeFunctions: snapshot.writeFunctions, tables: placing });
		this.#router = new Router(topology, statements, null, snapshot.general);
		this.#anyShard = topology.shards;
	}

	tell(sql: string): Told {
		const error = this.#errorOf(sql);
		if (error !== null) return refused(error);
		const own = ownSetting(sql);
		return own === null ? this.#route(sql) : this.#set(own);
	}

	/** What the proxy answers itself. */
	#set(own: OwnSetting): Told {
		try {
			if (own.kind !== "show") this.#hints.change(own, false);
		} catch (error) {
			if (error instanceof PgError) return refused(error);
			throw error;
		}
		return { shard: "none", side: "-", why: "the proxy", keys: "-", notes: [], isRefused: false };
	}

	#route(sql: string): Told {
		const router = this.#router;
		const facts = router.statements.facts(sql);
		const { aim } = facts;
		const request = { ...routeRequest(), sql, facts, hints: this.#hints.now, home: this.#anyShard };
		// What depends on a parameter is refused, if at all, when that is known.
		const isOpen = aim !== null && aim.refusal === null && evaluate(aim, null, null) === At.Open;
		const route = isOpen ? router.routeUnbound(request) : router.route(request);
		const keys = aim === null ? "-" : keysOf(aim);
		if (route.error !== null) return { ...refused(route.error), keys };
		const shard = isOpen && route.shard === ShardChoice.All ? "by key" : this.#shardText(route);
		return {
			shard,
			side: sideText(route.side),
			why: isOpen && shard === "by key" ? "sharding key" : route.decidedBy,
			keys,
			notes: [],
			isRefused: false,
		};
	}

	/** What PostgreSQL's parser has against the statement. */
	#errorOf(sql: string): PgError | null {
		const tree = this.#parser.parse(sql);
		if (tree.outcome !== Parsed.SyntaxError) return null;
		return new PgError("ERROR", "42601", tree.message, undefined, undefined, undefined, tree.position);
	}

	#shardText({ shard }: Route): string {
		if (shard === ShardChoice.All) return "all";
		return shard === this.#anyShard ? "any" : String(shard);
	}
}

function refused({ sqlstate, message, detail, hint }: PgError): Told {
	const notes = [`ERROR ${sqlstate}: ${message}`];
	if (detail !== undefined) notes.push(`DETAIL: ${detail}`);
	if (hint !== undefined) notes.push(`HINT: ${hint}`);
	return { shard: "refused", side: "-", why: "-", keys: "-", notes, isRefused: true };
}

/** More keys than these are only told to be there. */
const MOST_KEYS = 4;

/** The keys that the statement has of sharded tables, each once: `id = 5`, `id = $1`. */
function keysOf({ reads, rows, changes }: Aim): string {
	const found = new Set<string>();
	const add = (column: KeyColumn, source: Source) => found.add(`${column.column} = ${valueText(source)}`);
	const look = (want: Want): void => {
		if (want.kind === "value") add(want.column, want.source);
		else if (want.kind !== "shard") want.parts.forEach(look);
	};
	reads.forEach(look);
	for (const key of [...rows, ...changes]) {
		if (key.kind === "value") add(key.column, key.source);
		else if (key.kind === "read") look(key.want);
	}
	const all = [...found];
	if (all.length === 0) return "-";
	return all.slice(0, MOST_KEYS).join(", ") + (all.length > MOST_KEYS ? ", …" : "");
}

function valueText({ kind, parameter, text, isNumber, isArray }: Source): string {
	const value =
		kind === SourceKind.Parameter ? `$${parameter}` : text === null ? "NULL" : isNumber ? text : `'${text}'`;
	return isArray ? `ANY(${value})` : value;
}

/** The statements of a file, with the comments before each. Those of a function's body (`BEGIN ATOMIC`) are not told apart. */
function statementsOf(sql: string): Statement[] {
	const found: Statement[] = [];
	const lexer = new Lexer(sql, Backslash.Plain);
	let from = 0;
	/** Where the first word of the statement is; -1: there was none yet. */
	let start = -1;
	let before = "";
	/** BEGIN ATOMIC, and each CASE within it, that END has not ended yet. */
	let open = 0;
	for (;;) {
		const token = lexer.next();
		const isEnd = token === Token.End || (token === Token.Semicolon && open === 0);
		if (isEnd && start >= 0)
			found.push({ line: sql.slice(0, start).split("\n").length, sql: sql.slice(from, lexer.start).trim() });
		if (token === Token.End) return found;
		if (isEnd) [from, start] = [lexer.end, -1];
		else if (start < 0) start = lexer.start;
		const word = token === Token.Word ? lexer.text! : "";
		if ((word === "atomic" && before === "begin") || (word === "case" && open > 0)) open++;
		else if (word === "end" && open > 0) open--;
		before = word;
	}
}

/** In one line of 100 characters at most, without comments before it that end with their line. */
function shortened(sql: string): string {
	const line = sql.replace(/^(?:--.*\s*)+/, "").replace(/\s+/g, " ");
	return line.length > 100 ? `${line.slice(0, 99)}…` : line;
}
