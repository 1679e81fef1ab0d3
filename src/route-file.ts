// `pgdog route`: where each statement of a file would go, and why, without a server. Called by main.ts. What a session SETs of routing
// holds for the statements behind it; beside that each is looked at as if it were alone.

import { membersOf } from "./config/resolve.ts";
import { type Snapshot, WILDCARD } from "./config/snapshot.ts";
import { PgError } from "./errors.ts";
import { StatementCache } from "./parser/cache.ts";
import { ownSetting } from "./parser/hints.ts";
import { Backslash, Lexer, Token } from "./parser/lexer.ts";
import { Parsed, SqlParser } from "./parser/parse.ts";
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
		["line", "shard", "side", "decided by", "statement"],
		...all.map(({ line, shard, side, why, sql }) => [String(line), shard, side, why, shortened(sql)]),
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
		const sharding = snapshot.sharding[database];
		const roles = members.map(({ role }) => role);
		const topology = {
			shards: new Set(members.map(({ shard }) => shard)).size,
			hasPrimary: roles.some((role) => role !== "replica"),
			hasReplicas: roles.some((role) => role !== "primary"),
			readOnly: members.every(({ read_only }) => read_only === true),
			placing: sharding === undefined ? null : new Placing(sharding),
		};
		const { writeFunctions } = snapshot;
		this.#router = new Router(
			topology,
			new StatementCache(this.#parser, { writeFunctions, tables: topology.placing }),
			null,
			snapshot.general,
		);
		this.#anyShard = topology.shards;
	}

	tell(sql: string): Told {
		const error = this.#errorOf(sql);
		if (error !== null) return refused(error);
		const own = ownSetting(sql);
		if (own !== null) {
			try {
				if (own.kind !== "show") this.#hints.change(own, false);
			} catch (wrong) {
				if (wrong instanceof PgError) return refused(wrong);
				throw wrong;
			}
			return { shard: "none", side: "-", why: "the proxy", notes: [], isRefused: false };
		}
		const router = this.#router;
		const facts = router.statements.facts(sql);
		const request = { ...routeRequest(), sql, facts, hints: this.#hints.now, home: this.#anyShard };
		const route = router.route(request);
		if (route.error !== null) return refused(route.error);
		return {
			shard: this.#shardText(route),
			side: sideText(route.side),
			why: route.decidedBy,
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
	return { shard: "refused", side: "-", why: "-", notes, isRefused: true };
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
