// What a SELECT asks of all its rows at once, where the rows of several shards can be made to have it: ORDER BY, LIMIT, OFFSET,
// DISTINCT, aggregates that are the whole output, UNION ALL. spread.ts asks whether that can be, which holds for all texts of a
// shape; cache.ts keeps what exactly a text asks, for shards/.

import { type Fields, listOf, node, type Value } from "./parse.ts";

/** A term of ORDER BY, which has to be a column of the output: which one is certain when that is described. */
export interface OrderTerm {
	/** The column has this name, as PostgreSQL looks for it; "": it does not go by a name. */
	readonly name: string;
	/** Or it is this one, from 0; -1: it is not known. */
	readonly position: number;
	/** The output is a table's columns, and no other may have the name. */
	readonly isTables: boolean;
	readonly descending: boolean;
	readonly nullsFirst: boolean;
	/** COLLATE "C": by bytes. */
	readonly bytewise: boolean;
}

/** LIMIT or OFFSET. */
export interface RowCount {
	/** -1: a parameter has it. */
	readonly rows: number;
	/** From 1; 0: none. */
	readonly parameter: number;
}

export type Combination = "sum" | "min" | "max" | "and" | "or";

/** Immutable. */
export interface Merging {
	/** None: in no order. */
	readonly order: readonly OrderTerm[];
	/** No two rows are alike, and all columns are in `order`. */
	readonly distinct: boolean;
	/** Null: all. */
	readonly limit: RowCount | null;
	readonly offset: RowCount | null;
	/** Of each column, whose rows are one on each shard and are to be one; null: rows stay rows. */
	readonly combined: readonly Combination[] | null;
}

/** What keeps an answer from being one, in words. */
export type Unmergeable = string;

/** Statements of a text, by their number; null: nothing is asked of all rows. */
export type Mergings = readonly (Merging | null)[];

/** @returns the first statement's reason where one cannot be merged */
export function mergingsOf(statements: readonly Fields[]): Mergings | Unmergeable {
	const found: (Merging | null)[] = [];
	for (const statement of statements) {
		const select = node(statement.SelectStmt);
		const merging = select === null ? null : mergingOf(select, Constants.Differ);
		if (typeof merging === "string") return merging;
		found.push(merging);
	}
	return found;
}

/** Whether constants that differ make two expressions differ: not where the answer is to hold for all texts of a shape. */
export const enum Constants {
	Differ,
	Alike,
}

export function mergingOf(select: Fields, constants: Constants): Merging | Unmergeable | null {
	const limit = countOf(select.limitCount, constants);
	const offset = countOf(select.limitOffset, constants);
	const distinct = listOf(select.distinctClause);
	const order = listOf(select.sortClause);
	if (typeof limit === "string" || typeof offset === "string") return "LIMIT or OFFSET that is computed";
	if (select.limitOption === "LIMIT_OPTION_WITH_TIES") return "FETCH FIRST … WITH TIES";
	if ((limit !== null || offset !== null) && listOf(select.lockingClause).length > 0) return "LIMIT or FETCH FIRST";
	const combined = combinationsOf(listOf(select.targetList), constants);
	if (node(select.intoClause) !== null) return null;
	// Another text of the shape could be combined.
	if (combined === null && combinationsOf(listOf(select.targetList), Constants.Alike) !== null)
		return "an aggregate in coalesce() with another value than 0";
	if (combined !== null) {
		const other = order.length > 0 || distinct.length > 0 || limit !== null || offset !== null;
		return other ? "ORDER BY, LIMIT or DISTINCT of an aggregate" : { ...NOTHING, combined };
	}
	if (order.length === 0 && distinct.length === 0 && limit === null && offset === null) return null;
	if (distinct.length > 0 && !distinct.every((item) => Object.keys(node(item) ?? {}).length === 0)) return "DISTINCT";
	const terms: OrderTerm[] = [];
	const output = outputOf(select);
	for (const item of order) {
		const term = termOf(node(node(item)?.SortBy) ?? {}, output, constants);
		if (term === null) return "ORDER BY of what is no column of the output";
		terms.push(term);
	}
	const isShort = output.columns !== null && terms.length < output.columns.length;
	if (distinct.length > 0 && (terms.length === 0 || isShort)) return "DISTINCT";
	return { order: terms, distinct: distinct.length > 0, limit, offset, combined: null };
}

const NOTHING: Merging = { order: [], distinct: false, limit: null, offset: null, combined: null };

/** The same SELECT without what `mergingOf` has found: what is left has to be mergeable as it is. */
export function withoutMerged(select: Fields): Fields {
	const { sortClause, limitCount, limitOffset, distinctClause, ...rest } = select;
	const targets = listOf(select.targetList);
	if (combinationsOf(targets, Constants.Alike) === null) return rest;
	const inner = targets.flatMap((target) => {
		const call = aggregateOf(node(node(target)?.ResTarget)?.val ?? null);
		return call === null ? [] : [...listOf(call.args), call.agg_filter ?? null];
	});
	return { ...rest, targetList: inner };
}

/** The SELECTs of a UNION ALL, in order; null when it is another, or one of them asks something of all of its rows. */
export function unitedSelects(select: Fields): Fields[] | null {
	if (select.op !== "SETOP_UNION" || select.all !== true || node(select.withClause) !== null) return null;
	const found: Fields[] = [];
	const rest: Value[] = [select.rarg ?? null, select.larg ?? null];
	for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
		const part = node(next);
		if (part === null) return null;
		const isUnion = part.op === "SETOP_UNION" && part.all === true;
		if (!isUnion && part.op !== "SETOP_NONE") return null;
		if (ASKING.some((clause) => listOf(part[clause]).length > 0 || node(part[clause]) !== null)) return null;
		if (isUnion) rest.push(part.rarg ?? null, part.larg ?? null);
		else found.push(part);
	}
	return found;
}

const ASKING = ["sortClause", "limitCount", "limitOffset", "distinctClause", "withClause", "lockingClause"];

// ---- LIMIT -----------------------------------------------------------------------------------------------------------

function countOf(value: Value | undefined, constants: Constants): RowCount | Unmergeable | null {
	let counted = node(value);
	if (counted === null) return null;
	const cast = node(counted.TypeCast);
	if (cast !== null) {
		const type = listOf(node(cast.typeName)?.names).map((name) => node(node(name)?.String)?.sval);
		if (!INTEGERS.has(String(type.at(-1))) || listOf(node(cast.typeName)?.arrayBounds).length > 0) return "a cast";
		counted = node(cast.arg) ?? {};
	}
	const parameter = node(counted.ParamRef)?.number;
	if (typeof parameter === "number" && parameter > 0) return { rows: -1, parameter };
	const constant = node(counted.A_Const);
	if (constant === null || cast !== null) return "an expression";
	// LIMIT ALL, LIMIT NULL.
	if (constant.isnull === true) return null;
	const integer = node(constant.ival);
	// The parser leaves out what is 0.
	const rows = integer === null ? Number.NaN : (integer.ival ?? 0);
	// `-1` and `-0` are texts of one shape.
	const mayBe = typeof rows === "number" && (rows >= 0 || constants === Constants.Alike);
	return mayBe ? { rows, parameter: 0 } : "a number";
}

const INTEGERS: ReadonlySet<string> = new Set(["int2", "int4", "int8"]);

// ---- aggregates ------------------------------------------------------------------------------------------------------

const COMBINATIONS: ReadonlyMap<string, Combination> = new Map([
	["count", "sum"],
	["sum", "sum"],
	["min", "min"],
	["max", "max"],
	["bool_and", "and"],
	["every", "and"],
	["bool_or", "or"],
]);

/** @returns null when not all of the output is aggregates that can be combined */
function combinationsOf(targets: readonly Value[], constants: Constants): Combination[] | null {
	const found: Combination[] = [];
	for (const target of targets) {
		const value = node(node(target)?.ResTarget)?.val ?? null;
		const call = aggregateOf(value);
		if (call === null) return null;
		const combination = COMBINATIONS.get(nameOf(call))!;
		if (call.agg_distinct === true && combination === "sum") return null;
		// Of no rows it is 0, and so is the sum of these.
		const coalesced = node(node(value)?.CoalesceExpr);
		if (coalesced !== null && (combination !== "sum" || !isZero(listOf(coalesced.args)[1], constants))) return null;
		found.push(combination);
	}
	return found.length > 0 ? found : null;
}

/** The aggregate's call that a column of the output is, as it is or in `coalesce(…, 0)`. */
function aggregateOf(value: Value): Fields | null {
	const coalesced = listOf(node(node(value)?.CoalesceExpr)?.args);
	const call = node(node(coalesced.length === 2 ? coalesced[0] : value)?.FuncCall);
	if (call === null || !COMBINATIONS.has(nameOf(call))) return null;
	const isOdd = node(call.over) !== null || call.agg_within_group === true || call.func_variadic === true;
	return isOdd || listOf(call.agg_order).length > 0 ? null : call;
}

/** Of a function of PostgreSQL's; "" for another. */
function nameOf(call: Fields): string {
	const names = listOf(call.funcname).map((name) => String(node(node(name)?.String)?.sval));
	return names.length === 1 || (names.length === 2 && names[0] === "pg_catalog") ? names.at(-1)! : "";
}

function isZero(value: Value | undefined, constants: Constants): boolean {
	const integer = node(node(node(value)?.A_Const)?.ival);
	return integer !== null && (constants === Constants.Alike || (integer.ival ?? 0) === 0);
}

// ---- ORDER BY --------------------------------------------------------------------------------------------------------

interface Output {
	/** Null: not known, there is a star. */
	readonly columns: readonly Fields[] | null;
	/** By this name the table is known whose columns are all of the output, or of which columns may be said with it or without. */
	readonly table: string;
	/** The output is all columns of that table. */
	readonly isTable: boolean;
}

function outputOf(select: Fields): Output {
	const from = listOf(select.fromClause);
	const item = node(from[0]);
	const range = from.length === 1 ? (node(item?.RangeVar) ?? node(item?.RangeSubselect)) : null;
	const table = range === null ? "" : String(node(range.alias)?.aliasname ?? range.relname ?? "");
	let leftmost = select;
	while (leftmost.op !== "SETOP_NONE" && node(leftmost.larg) !== null) leftmost = node(leftmost.larg)!;
	const columns = listOf(leftmost.targetList).map((target) => node(node(target)?.ResTarget) ?? {});
	const hasStar = columns.some(isStar);
	const isTable = hasStar && table !== "" && columns.length === 1 && isStarOf(columns[0]!, table);
	return { columns: hasStar ? null : columns, table, isTable };
}

/** It may be several columns. */
function isStar({ val }: Fields): boolean {
	const fields = listOf(node(node(val)?.ColumnRef)?.fields);
	if (fields.length > 0) return node(node(fields.at(-1))?.A_Star) !== null;
	return node(node(val)?.A_Indirection) !== null;
}

function isStarOf({ val }: Fields, table: string): boolean {
	const fields = listOf(node(node(val)?.ColumnRef)?.fields);
	return fields.length === 1 || (fields.length === 2 && node(node(fields[0])?.String)?.sval === table);
}

function termOf(sort: Fields, output: Output, constants: Constants): OrderTerm | null {
	const collated = node(node(sort.node)?.CollateClause);
	const bytewise = collated !== null && isBytewise(collated);
	if (sort.sortby_dir === "SORTBY_USING" || (collated !== null && !bytewise)) return null;
	const sorted = node(collated === null ? sort.node : collated.arg) ?? {};
	const where = collated === null ? columnOf(sorted, output, constants) : inputOf(sorted, output, constants);
	if (where === null) return null;
	const descending = sort.sortby_dir === "SORTBY_DESC";
	const nulls = sort.sortby_nulls;
	const nullsFirst = nulls === "SORTBY_NULLS_DEFAULT" ? descending : nulls === "SORTBY_NULLS_FIRST";
	return { ...where, descending, nullsFirst, bytewise };
}

type Where = Pick<OrderTerm, "name" | "position" | "isTables">;

/** The column that a term without COLLATE is: a position, or a name of the output before one of its tables. */
function columnOf(sorted: Fields, output: Output, constants: Constants): Where | null {
	const constant = node(sorted.A_Const);
	if (constant !== null) {
		const integer = node(constant.ival);
		// 0 is PostgreSQL's to refuse.
		return integer === null ? null : { name: "", position: Number(integer.ival ?? 0) - 1, isTables: false };
	}
	const names = listOf(node(sorted.ColumnRef)?.fields);
	const name = node(node(names[0])?.String)?.sval;
	if (names.length !== 1 || typeof name !== "string") return inputOf(sorted, output, constants);
	const same = placeIn(output, sorted, constants);
	const maybeNamed = output.columns === null || output.columns.some((column) => mayBeNamed(column, name));
	return maybeNamed || same >= 0 ? { name, position: same, isTables: false } : null;
}

/** The column that an expression is, whose names are those of the tables' columns. */
function inputOf(sorted: Fields, output: Output, constants: Constants): Where | null {
	const same = placeIn(output, sorted, constants);
	if (same >= 0) return { name: "", position: same, isTables: false };
	const names = listOf(node(sorted.ColumnRef)?.fields).map((field) => node(node(field)?.String)?.sval);
	const name = names.at(-1);
	const isOwn = names.length === 1 || (names.length === 2 && names[0] === output.table);
	if (!isOwn || output.table === "" || typeof name !== "string") return null;
	if (output.isTable) return { name, position: -1, isTables: true };
	// `t.id` is `id`, with one table.
	const position = output.columns?.findIndex(({ val }) => isColumn(val, output.table, name)) ?? -1;
	return position >= 0 ? { name: "", position, isTables: false } : null;
}

function placeIn({ columns }: Output, expression: Fields, constants: Constants): number {
	return columns?.findIndex(({ val }) => isSame(val, expression, constants)) ?? -1;
}

function isBytewise({ collname }: Fields): boolean {
	const names = listOf(collname).map((name) => String(node(node(name)?.String)?.sval));
	const own = names.length === 1 || (names.length === 2 && names[0] === "pg_catalog");
	return own && (names.at(-1) === "C" || names.at(-1) === "POSIX" || names.at(-1) === "ucs_basic");
}

/** Whether a column of the output may be called so: those without a name get one that PostgreSQL finds. */
function mayBeNamed({ name, val }: Fields, called: string): boolean {
	if (typeof name === "string" && name !== "") return name === called;
	const fields = listOf(node(node(val)?.ColumnRef)?.fields);
	return fields.length === 0 || node(node(fields.at(-1))?.String)?.sval === called;
}

function isColumn(value: Value | undefined, table: string, name: string): boolean {
	const fields = listOf(node(node(value)?.ColumnRef)?.fields).map((field) => node(node(field)?.String)?.sval);
	return fields.at(-1) === name && (fields.length === 1 || (fields.length === 2 && fields[0] === table));
}

/** Two trees say the same, wherever they stand. Deep ones do not: that costs an answer at worst. */
function isSame(a: Value | undefined, b: Value | undefined, constants: Constants, depth = 0): boolean {
	if (depth > 50) return false;
	if (typeof a !== "object" || a === null || typeof b !== "object" || b === null) return a === b;
	if (Array.isArray(a) || Array.isArray(b)) {
		if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
		return a.every((item, i) => isSame(item, b[i], constants, depth + 1));
	}
	const [one, other] = [a as Fields, b as Fields];
	if (constants === Constants.Alike && one.A_Const !== undefined && other.A_Const !== undefined) return true;
	const keys = new Set([...Object.keys(one), ...Object.keys(other)]);
	for (const key of keys) if (key !== "location" && !isSame(one[key], other[key], constants, depth + 1)) return false;
	return true;
}
