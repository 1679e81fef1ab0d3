// Which of several shards a statement is for, as far as its syntax tree tells, and whether what they answer is one answer. `facts.ts`
// calls it once per text; the router decides by it. The answer is right when every row comes from one row of one table, and of one
// shard: then the rows of all shards are the rows of the table. In doubt it is not right, and the statement's part is named that may
// make it wrong. What a view or a trigger does inside cannot be seen.

import {
	AGGREGATES,
	BUILT_IN_FUNCTIONS,
	CATALOGUE_RELATIONS,
	EXTENSION_FUNCTIONS,
	READING_FUNCTIONS,
} from "./known-functions.ts";
import { Lexer, Token } from "./lexer.ts";
import { Constants, mergingOf, unitedSelects, withoutMerged } from "./merging.ts";
import { type Fields, listOf, node, type Value } from "./parse.ts";
import { isSharded, type Tables } from "./tables.ts";

export const enum Spread {
	/** The statement names no table of the user's: any one shard can answer, since what users made is the same in each catalogue. */
	One,
	/** The first shard: what the statement takes from or locks (a sequence, an advisory lock) is one for all clients. */
	First,
	/** Each shard runs it, for the session or for the shard's own sake, and the first one's answer is the answer. */
	Each,
	/** The answer is what all shards say. */
	All,
}

/** Where a string of statements goes. */
export interface Placement {
	/** Never Each, which is All with `firstAnswers`. */
	readonly spread: Spread;
	/** By the number of the statement in the string: all shards run it, only the first shard's answer counts. Null: nowhere. */
	readonly firstAnswers: readonly boolean[] | null;
	/** The part, in words, for which the shards' answers cannot be made one; null when they can. */
	readonly unmerged: string | null;
	/** Something is asked of the rows of all shards together: what, `StatementCache.mergings` says. */
	readonly merges: boolean;
	/** Functions that are not known, by the name they are called by: aggregates, perhaps, or readers of tables. */
	readonly calls: readonly string[];
}

interface Place {
	readonly spread: Spread;
	readonly unmerged: string | null;
	readonly calls: readonly string[];
	readonly merges?: boolean;
}

const NONE: readonly string[] = [];
const ONE: Place = { spread: Spread.One, unmerged: null, calls: NONE };
const FIRST: Place = { spread: Spread.First, unmerged: null, calls: NONE };
const EACH: Place = { spread: Spread.Each, unmerged: null, calls: NONE };
const ALL: Place = { spread: Spread.All, unmerged: null, calls: NONE };
const ANYWHERE: Placement = { spread: Spread.One, firstAnswers: null, unmerged: null, merges: false, calls: NONE };
const EVERYWHERE: Placement = { spread: Spread.All, firstAnswers: null, unmerged: null, merges: false, calls: NONE };
const UNREAD: Placement = { ...EVERYWHERE, unmerged: "a statement that could not be parsed" };

/**
 * @param tables which of them are sharded; null: perhaps all
 * @param tied by the number of the statement: its sharded tables count as one, see `Keys`
 */
export function placementOf(
	statements: readonly Fields[],
	tables: Tables | null = null,
	tied: readonly boolean[] = [],
): Placement {
	if (statements.length === 0) return ANYWHERE;
	const places = statements.map((statement, i) => placeOf(statement, { tables, isTied: tied[i] === true }));
	const unmerged = places.find((place) => place.unmerged !== null)?.unmerged ?? null;
	const calls = places.every((place) => place.calls.length === 0) ? NONE : places.flatMap((place) => place.calls);
	const merges = places.some((place) => place.merges === true);
	if (places.every(({ spread }) => spread === Spread.One || spread === Spread.First)) {
		const first = places.some(({ spread }) => spread === Spread.First);
		return { spread: first ? Spread.First : Spread.One, firstAnswers: null, unmerged, merges, calls };
	}
	const firstAnswers = places.map(({ spread }) => spread !== Spread.All);
	return {
		spread: Spread.All,
		firstAnswers: firstAnswers.includes(true) ? firstAnswers : null,
		unmerged,
		merges,
		calls,
	};
}

/** Placement of a text without a tree. A write of its own values alone is what every shard may have, however long it is. */
export function placementWithoutTree(sql: string): Placement {
	return writesOwnValues(sql) ? EVERYWHERE : UNREAD;
}

/** INSERT, UPDATE or DELETE without a word that could bring in another table, or another statement. */
function writesOwnValues(sql: string): boolean {
	const lexer = new Lexer(sql);
	lexer.next();
	const first = lexer.text;
	if (first !== "insert" && first !== "update" && first !== "delete") return false;
	let ended = false;
	for (let token = lexer.next(); token !== Token.End; token = lexer.next()) {
		if (lexer.doubt || ended) return false;
		if (token === Token.Semicolon) ended = true;
		else if (token === Token.Word && FOREIGN.has(lexer.text!) && !(lexer.text === "from" && first === "delete"))
			return false;
	}
	return !lexer.doubt;
}

const FOREIGN: ReadonlySet<string> = new Set(["select", "with", "table", "using", "from", "current"]);

/** What is known of a statement's tables. */
interface Known {
	readonly tables: Tables | null;
	readonly isTied: boolean;
}

function placeOf(statement: Fields, known: Known): Place {
	const [kind] = Object.keys(statement);
	const fields = node(statement[kind ?? ""]);
	if (fields === null) return ALL;
	switch (kind) {
		case "SelectStmt":
			return whole(statement, fields, known);
		case "VariableShowStmt":
			return ONE;
		// LISTEN runs on every shard, and a listener shall be told once.
		case "NotifyStmt":
			return FIRST;
		case "ExplainStmt": {
			// Each shard's plan is right, whatever the statement would give.
			const query = node(fields.query);
			const look = query?.SelectStmt === undefined ? null : new Look(query, 0, known.tables);
			return look === null || look.table || look.calls.length > 0 ? ALL : ONE;
		}
		case "InsertStmt":
		case "UpdateStmt":
		case "DeleteStmt":
		case "MergeStmt":
			return write(kind, fields, known);
		case "CopyStmt":
			return copy(fields, known);
		case "DeclareCursorStmt":
			return later(node(fields.query), "a cursor for what names no table", known);
		case "PrepareStmt":
			return later(node(fields.query), "PREPARE of what names no table", known);
		case "CreateTableAsStmt": {
			// Every shard has the table that is made.
			const query = node(fields.query);
			return query?.SelectStmt === undefined ? ALL : { ...select(query, known), spread: Spread.All };
		}
		case "FetchStmt":
			return fields.howMany === FETCH_ALL ? ALL : unmerged("FETCH or MOVE of some rows");
		default:
			return ALL;
	}
}

/** PostgreSQL's `FETCH_ALL`, which is LONG_MAX, on a machine of 32 bits. */
const FETCH_ALL = 2147483647;

function unmerged(part: string): Place {
	return { spread: Spread.All, unmerged: part, calls: NONE };
}

function select(query: Fields, { tables, isTied }: Known): Place {
	const look = new Look(query, 0, tables);
	if (!look.table) {
		const spread = look.makes ? Spread.All : look.each ? Spread.Each : look.first === null ? Spread.One : Spread.First;
		if (look.reading !== null) return unmerged(`${look.reading}()`);
		if (look.calls.length > 0) return { spread, unmerged: null, calls: look.calls };
		return [ONE, FIRST, EACH, ALL][spread]!;
	}
	// Each shard would number rows by a sequence, or lock, for itself.
	const own = look.reading ?? look.first;
	const part = look.clause ?? (isTied ? null : look.place) ?? (own === null ? null : `${own}()`);
	if (part === null && look.calls.length === 0) return ALL;
	return { spread: Spread.All, unmerged: part, calls: look.calls };
}

/** A SELECT whose rows go to the client: what it asks of all of them can be done where they are merged. */
function whole(query: Fields, fields: Fields, known: Known): Place {
	const merging = mergingOf(fields, Constants.Alike);
	const united = unitedSelects(fields);
	if (merging === null && united === null) return select(query, known);
	if (typeof merging === "string") {
		const place = select(query, known);
		return place.unmerged === null ? place : { ...place, unmerged: merging };
	}
	if (united === null) {
		const place = select({ SelectStmt: withoutMerged(fields) }, known);
		return place.spread === Spread.All ? { ...place, merges: true } : place;
	}
	const places = united.map((part) => select({ SelectStmt: part }, known));
	if (places.some(({ spread, unmerged }) => spread !== Spread.All || unmerged !== null)) return select(query, known);
	return { spread: Spread.All, unmerged: null, calls: places.flatMap(({ calls }) => calls), merges: merging !== null };
}

/** DECLARE and PREPARE: FETCH and EXECUTE come later and cannot tell where it is, so it goes to all shards or is refused. */
function later(query: Fields | null, what: string, known: Known): Place {
	if (query === null) return ALL;
	const [kind] = Object.keys(query);
	if (kind !== "SelectStmt") return write(kind ?? "", node(query[kind ?? ""]) ?? {}, known);
	const place = select(query, known);
	return place.spread === Spread.All || place.unmerged !== null ? place : unmerged(what);
}

const ANOTHER: Readonly<Record<string, string>> = {
	InsertStmt: "INSERT … SELECT",
	UpdateStmt: "UPDATE … FROM another table",
	DeleteStmt: "DELETE … USING another table",
};

/** A write to one table: each shard changes what rows it has, and inserts them all. No other table may have a say. */
function write(kind: string, fields: Fields, { tables, isTied }: Known): Place {
	const isCopied = tables !== null && !mayBeSharded(tables, node(fields.relation) ?? {});
	if (kind === "MergeStmt" && !isCopied) return unmerged("MERGE");
	const another = ANOTHER[kind] ?? (isCopied ? "MERGE" : undefined);
	if (another === undefined) return ALL;
	const look = new Look(fields, 1, tables);
	if (look.current) return unmerged("WHERE CURRENT OF");
	if (look.others && !isTied) return unmerged(look.within ?? another);
	// What is on all shards is written on each.
	return isCopied ? EACH : ALL;
}

/** Whether a table's rows may be on some of the shards only. */
function mayBeSharded(tables: Tables | null, { schemaname, relname }: Fields): boolean {
	const schema = typeof schemaname === "string" && schemaname !== "" ? schemaname : null;
	return tables === null || isSharded(tables, schema, String(relname));
}

function copy(fields: Fields, known: Known): Place {
	if (fields.is_from) return mayBeSharded(known.tables, node(fields.relation) ?? {}) ? ALL : EACH;
	const query = node(fields.query);
	const relation = node(fields.relation);
	let place = ALL;
	if (query !== null) {
		const [kind] = Object.keys(query);
		place = kind === "SelectStmt" ? select(query, known) : write(kind ?? "", node(query[kind ?? ""]) ?? {}, known);
	} else if (relation !== null && (isCatalogue(relation) || !mayBeSharded(known.tables, relation))) place = ONE;
	const header = place.spread === Spread.All && place.unmerged === null && hasHeader(listOf(fields.options));
	return header ? unmerged("HEADER of COPY … TO") : place;
}

/** COPY … TO with HEADER: every shard would send one. */
function hasHeader(options: readonly Value[]): boolean {
	let header = false;
	for (const option of options) {
		const element = node(node(option)?.DefElem);
		if (element?.defname !== "header") continue;
		const word = node(node(element.arg)?.String)?.sval;
		const off = typeof word === "string" && /^(false|off)$/i.test(word);
		header =
			!off && node(node(element.arg)?.Integer)?.ival !== 0 && node(node(element.arg)?.Boolean)?.boolval !== false;
	}
	return header;
}

/** Clauses that look at more than one row. */
const CLAUSES: ReadonlyMap<string, string> = new Map([
	["distinctClause", "DISTINCT"],
	["groupClause", "GROUP BY"],
	["havingClause", "HAVING"],
	["windowClause", "WINDOW"],
	["sortClause", "ORDER BY"],
	["limitCount", "LIMIT or FETCH FIRST"],
	["limitOffset", "OFFSET"],
]);

const SUBQUERY = "a subquery";
const COUNT = "the aggregate count()";
/**
 * What may be in a subquery. Not LIMIT and its like, by which each shard may take other rows; nor an aggregate that has arguments: it
 * may be one of the query around.
 */
const MADE_INSIDE: ReadonlySet<string> = new Set([
	"GROUP BY",
	"HAVING",
	"ORDER BY",
	"UNION",
	"INTERSECT",
	"EXCEPT",
	COUNT,
]);

/** What PostgreSQL also understands when it is written like a column: `t.count` is `count(t)` when `t` has no such column. */
const AGGREGATES_OF_ROWS: ReadonlySet<string> = new Set(
	"count any_value array_agg json_agg json_agg_strict jsonb_agg jsonb_agg_strict max min".split(" "),
);

/** Functions on what is one for all clients of a server: they have to be on one shard, and always on the same. */
const ON_THE_FIRST: ReadonlySet<string> = new Set(
	`nextval pg_notify pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
	pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
	pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all
	lo_creat lo_create lo_from_bytea lo_import lo_export lo_get lo_put lo_unlink lo_truncate lo_truncate64 lo_open lo_close lo_lseek
	lo_lseek64 lo_tell lo_tell64 loread lowrite`.split(/\s+/),
);

/** Functions that change each shard's session, or each shard. */
const ON_EACH: ReadonlySet<string> = new Set(
	"set_config setseed setval pg_reload_conf pg_rotate_logfile pg_stat_reset pg_stat_reset_shared".split(" "),
);

/** The names of one WITH, and how many of them are known: a query of it knows those before it. Nothing is copied for that. */
interface Names {
	readonly outer: Names | null;
	/** Which query first has the name, from 0. */
	readonly all: ReadonlyMap<string, number>;
	readonly known: number;
}

function isKnown(names: Names | null, name: string): boolean {
	for (let scope = names; scope !== null; scope = scope.outer)
		if ((scope.all.get(name) ?? scope.known) < scope.known) return true;
	return false;
}

interface Visit {
	readonly value: Value;
	/** Names of WITH queries that are known here. */
	readonly names: Names | null;
	/** Where a table would stand that does not give the statement's rows one for one; null where it would. */
	readonly within: string | null;
}

/** A look at all of a statement, with a stack of its own: trees are thousands of nodes deep. */
class Look {
	/** How often tables of the user's are named, the target included. */
	private tables: number;
	private readonly target: number;
	/** The first clause or function that looks at more than one row, in words. */
	clause: string | null = null;
	/** The first place of a table that does not give the statement's rows one for one. */
	within: string | null = null;
	readonly calls: string[] = [];
	/** The first function, or table of large objects, that belongs on the first shard. */
	first: string | null = null;
	/** A function that each shard has to run is called. */
	each = false;
	/** The first function that reads tables, which it is given as a string. */
	reading: string | null = null;
	/** SELECT INTO. */
	makes = false;
	/** WHERE CURRENT OF. */
	current = false;
	private readonly rest: Visit[] = [];
	private readonly known: Tables | null;
	/** What is looked at is in a subquery, and it is known which tables are sharded: those in there are tied, or `within` tells. */
	private isInner = false;

	/**
	 * @param target tables that the statement writes to, which are not found by looking
	 * @param known which tables are sharded: others do not count
	 */
	constructor(root: Fields, target = 0, known: Tables | null = null) {
		this.known = known;
		this.tables = target;
		this.target = target;
		this.push(root, null, null);
		for (let visit = this.rest.pop(); visit !== undefined; visit = this.rest.pop()) this.visit(visit);
	}

	get table(): boolean {
		return this.tables > 0;
	}

	/** Tables of the user's are named beside the target. */
	get others(): boolean {
		return this.tables > this.target;
	}

	get place(): string | null {
		return this.within ?? (this.tables > 1 ? "more than one table" : null);
	}

	private push(value: Value | undefined, names: Names | null, within: string | null): void {
		if (value !== null && typeof value === "object") this.rest.push({ value, names, within });
	}

	private visit({ value, names, within }: Visit): void {
		if (Array.isArray(value)) {
			for (let i = value.length - 1; i >= 0; i--) this.push(value[i], names, within);
			return;
		}
		const fields = value as Fields;
		this.isInner = within === SUBQUERY && this.known !== null;
		const clause = node(fields.withClause);
		const inner = clause === null ? names : this.common(clause, names);
		// Its own clauses before what is inside of them, and that in the order of the text: what is pushed last is looked at first.
		for (const key of Object.keys(fields).reverse()) {
			const field = fields[key]!;
			if (typeof field === "object" && field !== null) this.field(key, field as Fields, inner, within);
			else if (key === "op" && typeof field === "string" && field.startsWith("SETOP_") && field !== "SETOP_NONE")
				this.blame(field.slice(6));
		}
	}

	private field(key: string, field: Fields, names: Names | null, within: string | null): void {
		switch (key) {
			case "withClause":
				return;
			// FOR UPDATE OF names tables of the FROM clause.
			case "lockingClause":
				return;
			case "intoClause":
				this.makes = true;
				return;
			case "RangeVar":
				this.relation(field, names, within);
				return;
			case "SubLink":
				this.push(field.subselect, names, SUBQUERY);
				this.push(field.testexpr, names, within);
				return;
			case "JoinExpr":
				this.join(field, names, within);
				return;
			case "FuncCall":
				this.call(field);
				break;
			case "JsonArrayAgg":
				this.blame("the aggregate json_arrayagg()");
				break;
			case "JsonObjectAgg":
				this.blame("the aggregate json_objectagg()");
				break;
			case "ColumnRef":
			case "A_Indirection":
				this.column(listOf(key === "ColumnRef" ? field.fields : field.indirection), key === "ColumnRef" ? 2 : 1);
				break;
			case "CurrentOfExpr":
				this.current = true;
				return;
			// A write in WITH: its table has rows that may be the statement's, or not.
			case "InsertStmt":
			case "UpdateStmt":
			case "DeleteStmt":
			case "MergeStmt":
				this.found("WITH");
				break;
			default: {
				const clause = CLAUSES.get(key);
				if (clause !== undefined && Object.keys(field).length > 0) this.blame(clause);
			}
		}
		this.push(field, names, within);
	}

	/** WITH: each query knows those before it, or all of them. @returns the names that the rest knows */
	private common(clause: Fields, outer: Names | null): Names {
		const queries = listOf(clause.ctes).map((cte) => node(node(cte)?.CommonTableExpr) ?? {});
		const all = new Map<string, number>();
		for (const [i, { ctename }] of queries.entries()) if (!all.has(String(ctename))) all.set(String(ctename), i);
		const known = queries.length;
		for (const [i, { ctequery }] of queries.entries())
			this.push(ctequery, { outer, all, known: clause.recursive === true ? known : i }, "WITH");
		return { outer, all, known };
	}

	/** The side of an outer join whose rows come with NULLs where it has none: another shard may have some. */
	private join(fields: Fields, names: Names | null, within: string | null): void {
		const { jointype } = fields;
		const outer = typeof jointype === "string" ? `${jointype.replace("JOIN_", "")} JOIN` : "JOIN";
		const left = jointype === "JOIN_RIGHT" || jointype === "JOIN_FULL";
		const right = jointype === "JOIN_LEFT" || jointype === "JOIN_FULL";
		this.push(fields.quals, names, within);
		this.push(fields.rarg, names, right ? (within ?? outer) : within);
		this.push(fields.larg, names, left ? (within ?? outer) : within);
	}

	private relation(fields: Fields, names: Names | null, within: string | null): void {
		const { relname } = fields;
		if (fields.schemaname === "" && typeof relname === "string" && isKnown(names, relname)) return;
		if (!isCatalogue(fields)) {
			if (mayBeSharded(this.known, fields)) this.found(within);
		}
		// Large objects are on the first shard, as are the functions for them.
		else if (relname === "pg_largeobject" || relname === "pg_largeobject_metadata") this.first ??= relname;
	}

	private found(within: string | null): void {
		this.tables++;
		this.within ??= within;
	}

	private blame(part: string): void {
		// What a subquery makes of rows that it has on each shard is right there.
		if (!this.isInner || !MADE_INSIDE.has(part)) this.clause ??= part;
	}

	private call(call: Fields): void {
		const names = listOf(call.funcname).map((name) => String(node(node(name)?.String)?.sval));
		const name = names.at(-1) ?? "";
		const schema = names.at(-2);
		const own = schema === undefined || schema === "pg_catalog" || schema === "information_schema";
		if (node(call.over) !== null) this.blame(`the window function ${name}()`);
		else if (own && name === "count" && call.agg_star === true && node(call.agg_filter) === null) this.blame(COUNT);
		else if (isAggregate(call) || (own && AGGREGATES.has(name))) this.clause ??= `the aggregate ${name}()`;
		else if (own && READING_FUNCTIONS.has(name)) this.reading ??= name;
		else if (!EXTENSION_FUNCTIONS.has(name) && !(own && (schema !== undefined || BUILT_IN_FUNCTIONS.has(name))))
			this.calls.push(names.join("."));
		if (!own) return;
		if (ON_THE_FIRST.has(name)) this.first ??= name;
		if (ON_EACH.has(name)) this.each = true;
	}

	private column(fields: readonly Value[], from: number): void {
		const name = node(node(fields.at(-1))?.String)?.sval;
		if (fields.length >= from && typeof name === "string" && AGGREGATES_OF_ROWS.has(name))
			this.blame(`a column that may be the aggregate ${name}()`);
	}
}

/** Whether a call has what only aggregates can have, whatever its name. */
function isAggregate(call: Fields): boolean {
	if (call.agg_star === true || call.agg_distinct === true || call.agg_within_group === true) return true;
	return listOf(call.agg_order).length > 0 || node(call.agg_filter) !== null;
}

function isCatalogue({ schemaname, relname }: Fields): boolean {
	if (schemaname === "pg_catalog" || schemaname === "information_schema") return true;
	return schemaname === "" && typeof relname === "string" && CATALOGUE_RELATIONS.has(relname);
}
