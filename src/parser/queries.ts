// The queries of a statement as scopes.ts has them: relations of FROM, conditions of WHERE and ON, what SELECT gives, and the queries
// inside of these. keys.ts adds what is written. A table that is named is noted as a use; where its rows are the conditions say.

import type { Want } from "./aim.ts";
import { anyOf, columnIn, columnNames, conjuncts, hold, type Position } from "./conditions.ts";
import { CATALOGUE_RELATIONS } from "./known-functions.ts";
import { type Fields, listOf, node, type Value } from "./parse.ts";
import {
	ANY,
	type Context,
	type Named,
	type Output,
	type Outputs,
	Relation,
	type RelationColumn,
	Scope,
	Scopes,
} from "./scopes.ts";
import { type Locator, nameOf, sourceOf } from "./sources.ts";
import { At, isAmbiguous, isSharded, type KeyColumn, type Tables } from "./tables.ts";

/** A query of WITH. */
interface Common {
	/** Null: a write, which gives what nobody knows. */
	readonly query: Fields | null;
	readonly names: readonly (string | null)[];
	/** What it may name. */
	readonly around: Commons | null;
	readonly scope: Scope | null;
	/** It is looked at, and names itself. */
	isUnderWay: boolean;
}

export interface Commons {
	readonly outer: Commons | null;
	readonly queries: ReadonlyMap<string, Common>;
}

/** The statement has more relations than anybody would write: nothing is said of it. */
export class TooMuch extends Error {}
const MOST_RELATIONS = 300;

export interface Use {
	readonly relation: Relation;
	readonly scope: Scope;
}

export const enum TableKind {
	Catalogue,
	/** Its rows are on all shards. */
	Copied,
	Sharded,
}

/** What is around a query. */
interface Around {
	readonly parent: Scope | null;
	/** Whose names it knows. */
	readonly names: Scope | null;
	readonly commons: Commons | null;
	readonly up: boolean;
	readonly down: boolean;
	/** It is looked at for each row of the query around it. */
	readonly isExpression: boolean;
}

export const TOP: Around = { parent: null, names: null, commons: null, up: false, down: false, isExpression: false };

export interface Query {
	readonly scope: Scope;
	readonly outputs: Outputs;
	/** The queries of UNION and its like. */
	readonly arms: readonly Query[] | null;
	/** See `looksAtRows`. */
	readonly looks: boolean;
}

const NO_KEYS: readonly KeyColumn[] = [];
const UNKNOWN: Outputs = { columns: [], stars: [], isOpen: true };
const NONE_MERGED: ReadonlyMap<string, null> = new Map();
export abstract class Queries {
	protected readonly tables: Tables;
	protected readonly locator: Locator | null;
	protected readonly scopes: Scopes;
	/** Each use of a table that is sharded by a column. */
	protected readonly uses: Use[] = [];
	/** Where the rows of other tables are. */
	protected readonly fixed: Want[] = [];
	/** Uses of a table of which each row that is given, or written, has one. */
	protected readonly anchors: Use[] = [];
	/** Parameters that a key is compared with: the nodes. */
	protected readonly keyed = new Set<Fields>();
	private relations = 0;
	/** The nullable sides of outer joins around what is looked at: each has all relations in it. */
	private guards: Set<Relation>[] = [];

	constructor(tables: Tables, locator: Locator | null) {
		this.tables = tables;
		this.locator = locator;
		this.scopes = new Scopes(tables);
	}

	/** INSERT, UPDATE, DELETE or MERGE. @param outer queries that it may name */
	protected abstract write(kind: string, fields: Fields, outer: Commons | null): void;

	protected place(scope: Scope, among: Named | null = null): Position {
		return { scope, among, locator: this.locator, keyed: this.keyed };
	}

	// Queries.

	/** @param isMain each row of it is one of the statement */
	protected query(fields: Fields, around: Around, isMain = false): Query {
		const commons = this.commons(node(fields.withClause), around);
		if (fields.op !== undefined && fields.op !== "SETOP_NONE") {
			const inner = { ...around, commons, up: around.isExpression, down: false };
			const arms = [fields.larg, fields.rarg].map((arm) => this.query(node(arm) ?? {}, inner));
			const scope = new Scope(around.parent, around.names, around.isExpression, false);
			for (const key of BEHIND) this.expressions(fields[key], scope, commons);
			return { scope, outputs: UNKNOWN, arms: arms.flatMap((arm) => arm.arms ?? [arm]), looks: true };
		}
		const aggregates =
			listOf(fields.groupClause).length === 0 &&
			(fields.havingClause !== undefined || AGGREGATING.some((clause) => hasCall(fields[clause])));
		const looks = looksAtRows(fields);
		const up = around.up && !(looks && !around.isExpression);
		const scope = new Scope(around.parent, around.names, up, around.down && !aggregates && !hasSets(fields));
		const context = this.scopes.context(scope, this.guards.at(-1) ?? null);
		for (const item of listOf(fields.fromClause)) this.from(node(item) ?? {}, scope, commons, isMain);
		this.holdAll(fields.whereClause, scope, null, context, commons);
		const outputs =
			fields.valuesLists === undefined
				? this.outputs(listOf(fields.targetList), scope, context)
				: this.values(listOf(fields.valuesLists), scope, context);
		for (const key in fields) if (!ELSEWHERE.has(key)) this.expressions(fields[key], scope, commons);
		return { scope, outputs: hasSets(fields) ? UNKNOWN : outputs, arms: null, looks };
	}

	protected commons(clause: Fields | null, around: Around): Commons | null {
		if (clause === null) return around.commons;
		const queries = new Map<string, Common>();
		const all: Commons = { outer: around.commons, queries };
		for (const item of listOf(clause.ctes)) {
			const common = node(node(item)?.CommonTableExpr) ?? {};
			const query = node(common.ctequery) ?? {};
			const [kind] = Object.keys(query);
			const fields = node(query[kind ?? ""]) ?? {};
			const names = listOf(common.aliascolnames).map(nameOf);
			const before: Commons = { outer: around.commons, queries: new Map(queries) };
			const inner = clause.recursive === true ? all : before;
			const isQuery = kind === "SelectStmt";
			if (!isQuery) this.write(kind ?? "", fields, inner);
			queries.set(String(common.ctename), {
				query: isQuery ? fields : null,
				names,
				around: inner,
				scope: around.names,
				isUnderWay: false,
			});
		}
		return all;
	}

	/** An item of FROM. @returns what it gives names to */
	protected from(item: Fields, scope: Scope, commons: Commons | null, isMain: boolean): Named {
		const table = node(item.RangeVar) ?? node(node(node(item.RangeTableSample)?.relation)?.RangeVar);
		if (table !== null) return alone(this.table(table, scope, commons, isMain));
		const join = node(item.JoinExpr);
		if (join !== null) return this.join(join, scope, commons, isMain);
		const query = node(item.RangeSubselect);
		const fields = node(node(query?.subquery)?.SelectStmt);
		const other = query ?? node(item[Object.keys(item)[0] ?? ""]) ?? {};
		const alias = node(other.alias);
		if (query === null || fields === null) {
			this.expressions(item, scope, commons);
			return alone(this.unknown(scope, alias));
		}
		const names = query.lateral === true ? scope : scope.names;
		const called = String(alias?.aliasname ?? "");
		return alone(this.derived(fields, scope, commons, names, called, namesOf(alias?.colnames)));
	}

	/** A query that stands where a table could. */
	private derived(
		fields: Fields,
		scope: Scope,
		commons: Commons | null,
		names: Scope | null,
		alias: string,
		columns: readonly (string | null)[],
	): Relation {
		const { outputs } = this.query(fields, {
			parent: scope,
			names,
			commons,
			up: true,
			down: true,
			isExpression: false,
		});
		return this.named(scope, this.relation(alias, null, NO_KEYS, renamed(outputs, columns), false));
	}

	protected table(table: Fields, scope: Scope, commons: Commons | null, isMain: boolean): Relation {
		const name = String(table.relname);
		const alias = node(table.alias);
		const called = String(alias?.aliasname ?? name);
		const columns = namesOf(alias?.colnames);
		const common = table.schemaname === "" ? commonOf(commons, name) : null;
		if (common !== null) {
			if (common.query === null || common.isUnderWay)
				return this.named(scope, this.relation(called, null, NO_KEYS, UNKNOWN, true));
			common.isUnderWay = true;
			const all = common.names.length > 0 ? common.names.map((each, i) => columns[i] ?? each) : columns;
			const relation = this.derived(common.query, scope, common.around, common.scope, called, all);
			common.isUnderWay = false;
			return relation;
		}
		const schema = schemaOf(table);
		const kind = this.kindOf(table);
		const isPlaced = kind !== TableKind.Sharded || this.shardOf(schema) !== At.All;
		const keys = isPlaced ? NO_KEYS : this.tables.columnsOf(schema, name);
		const relation = this.named(
			scope,
			this.relation(called, alias === null ? schema : null, keys, null, columns.length > 0, name),
		);
		if (keys.length > 0 && !isAmbiguous(keys, schema)) {
			const use = { relation, scope };
			this.uses.push(use);
			if (isMain && this.guards.length === 0) this.anchors.push(use);
		} else if (kind === TableKind.Sharded) this.fixed.push({ kind: "shard", at: this.shardOf(schema) });
		return relation;
	}

	protected kindOf(table: Fields): TableKind {
		const schema = schemaOf(table);
		const name = String(table.relname);
		if (schema === "pg_catalog" || schema === "information_schema") return TableKind.Catalogue;
		if (schema === null && CATALOGUE_RELATIONS.has(name)) return TableKind.Catalogue;
		return isSharded(this.tables, schema, name) ? TableKind.Sharded : TableKind.Copied;
	}

	/** Of a table that is where its schema is. */
	protected shardOf(schema: string | null): number {
		return (schema === null ? null : this.tables.shardOfSchema(schema)) ?? At.All;
	}

	private relation(
		alias: string,
		schema: string | null,
		keys: readonly KeyColumn[],
		outputs: Outputs | null,
		isRenamed: boolean,
		name = "",
	): Relation {
		if (++this.relations > MOST_RELATIONS) throw new TooMuch();
		const relation = new Relation(alias, schema, keys, outputs, isRenamed, name);
		for (const guard of this.guards) guard.add(relation);
		return relation;
	}

	private named(scope: Scope, relation: Relation): Relation {
		scope.relations.push(relation);
		return relation;
	}

	/** What has an alias, and columns that nobody knows. */
	private unknown(scope: Scope, alias: Fields | null): Relation {
		return this.named(scope, this.relation(String(alias?.aliasname ?? ""), null, NO_KEYS, UNKNOWN, true));
	}

	private join(join: Fields, scope: Scope, commons: Commons | null, isMain: boolean): Named {
		const { jointype } = join;
		const isFull = jointype === "JOIN_FULL";
		const leftGuard = isFull || jointype === "JOIN_RIGHT" ? new Set<Relation>() : null;
		const rightGuard = isFull || jointype === "JOIN_LEFT" ? new Set<Relation>() : null;
		const left = this.guarded(leftGuard, () => this.from(node(join.larg) ?? {}, scope, commons, isMain));
		const right = this.guarded(rightGuard, () => this.from(node(join.rarg) ?? {}, scope, commons, isMain));
		const relations = [...left.relations, ...right.relations];
		const merged = new Map([...left.merged, ...right.merged]);
		const real = leftGuard ?? rightGuard ?? this.guards.at(-1) ?? null;
		// All rows of a full join count, whether they meet its conditions or not.
		const context = isFull ? null : this.scopes.context(scope, real);
		if (join.isNatural === true) scope.isNatural = true;
		for (const name of namesOf(join.usingClause)) {
			const a = sideColumn(left, name!);
			const b = sideColumn(right, name!);
			if (a !== null && b !== null) context?.edges.push([a, b]);
			merged.set(name!, isFull ? null : jointype === "JOIN_RIGHT" ? b : a);
		}
		for (const [name, column] of merged) scope.merged.set(name, column);
		if (context === null) this.expressions(join.quals, scope, commons);
		else this.holdAll(join.quals, scope, { relations, merged }, context, commons);
		// That of USING stands for the columns that are one.
		const using = node(join.join_using_alias);
		if (using !== null) relations.push(this.unknown(scope, using));
		const alias = node(join.alias);
		if (alias === null) return { relations, merged };
		// An alias hides the names that it covers, and may have others for their columns.
		for (const relation of relations) scope.relations.splice(scope.relations.indexOf(relation), 1);
		for (const name of merged.keys()) scope.merged.set(name, null);
		return alone(this.unknown(scope, alias));
	}

	private guarded<T>(guard: Set<Relation> | null, look: () => T): T {
		if (guard === null) return look();
		this.guards.push(guard);
		const found = look();
		this.guards.pop();
		return found;
	}

	/** What a query gives, by its SELECT list. */
	private outputs(targets: readonly Value[], scope: Scope, context: Context): Outputs {
		const columns: Output[] = [];
		const stars: Relation[] = [];
		let isOpen = false;
		const place = this.place(scope);
		for (const target of targets) {
			const { name, val } = node(node(target)?.ResTarget) ?? {};
			const parts = listOf(node(node(val)?.ColumnRef)?.fields);
			if (node(parts.at(-1))?.A_Star !== undefined) {
				const alias = parts.length > 1 ? nameOf(parts.at(-2)) : null;
				const all = alias === null ? scope.relations : scope.relations.filter((relation) => relation.alias === alias);
				if (all.length === 0 || (alias === null && (scope.merged.size > 0 || scope.isNatural))) isOpen = true;
				else stars.push(...all);
				continue;
			}
			const names = columnNames(val);
			const called = name === "" || name === undefined ? (names?.at(-1) ?? null) : String(name);
			let column = columnIn(val, place);
			const source = column === null ? sourceOf(val, this.locator) : null;
			if (source !== null) column = this.given([val], context, place);
			columns.push({
				name: called,
				column,
				value: source === null ? undefined : val,
				isBehindStar: stars.length > 0 || isOpen,
			});
		}
		return { columns, stars, isOpen };
	}

	/** What VALUES gives. */
	private values(rows: readonly Value[], scope: Scope, context: Context): Outputs {
		const place = this.place(scope);
		const lists = rows.map((row) => listOf(node(node(row)?.List)?.items));
		const columns = (lists[0] ?? []).map((_, i): Output => {
			const column = this.given(
				lists.map((items) => items[i]),
				context,
				place,
			);
			return { name: `column${i + 1}`, column, value: undefined, isBehindStar: false };
		});
		return { columns, stars: [], isOpen: false };
	}

	/** A column that has these values, which stand in the statement. */
	private given(values: readonly (Value | undefined)[], context: Context, place: Position): RelationColumn {
		const relation = this.relation("", null, NO_KEYS, UNKNOWN, true);
		const column = { relation, key: null, isGiven: true };
		const condition = anyOf(column, values, place);
		if (condition !== ANY) context.conditions.push(condition);
		return column;
	}

	// Conditions, and queries in expressions.

	protected holdAll(
		expression: Value | undefined,
		scope: Scope,
		among: Named | null,
		context: Context,
		commons: Commons | null,
	): void {
		const place = this.place(scope, among);
		for (const part of conjuncts(expression)) {
			const link = node(part.SubLink);
			const query = node(node(link?.subselect)?.SelectStmt);
			if (query === null || !this.holdQuery(link!, query, place, context, commons)) {
				hold(part, place, context);
				this.expressions(part, scope, commons);
			}
		}
	}

	/** `EXISTS (…)` and `column IN (…)` that have to hold. @returns false: it is neither */
	private holdQuery(link: Fields, query: Fields, place: Position, context: Context, commons: Commons | null): boolean {
		const isIn = link.subLinkType === "ANY_SUBLINK" && listOf(link.operName).length === 0;
		if (!isIn && link.subLinkType !== "EXISTS_SUBLINK") return false;
		const { scope } = place;
		const inner = this.inExpression(query, scope, commons, context.real === null);
		if (!isIn) return true;
		this.expressions(link.testexpr, scope, commons);
		if (inner.arms !== null || inner.looks || inner.outputs.stars.length > 0) inner.scope.down = false;
		else {
			const row = node(node(link.testexpr)?.RowExpr);
			const tests = row === null ? [link.testexpr] : listOf(row.args);
			for (const [i, test] of tests.entries()) {
				const a = columnIn(test, place);
				const b = inner.outputs.columns[i]?.column ?? null;
				if (a !== null && b !== null) context.edges.push([a, b]);
			}
		}
		return true;
	}

	private inExpression(query: Fields, scope: Scope, commons: Commons | null, down: boolean): Query {
		const { guards } = this;
		this.guards = [];
		const found = this.query(query, { parent: scope, names: scope, commons, up: true, down, isExpression: true });
		this.guards = guards;
		return found;
	}

	/** Looks into the queries of an expression. With a stack of its own: trees are thousands of nodes deep. */
	protected expressions(root: Value | undefined, scope: Scope, commons: Commons | null): void {
		const rest: Value[] = [root ?? null];
		for (let value = rest.pop(); value !== undefined; value = rest.pop()) {
			if (value === null || typeof value !== "object") continue;
			const query = node((value as Fields).SelectStmt);
			if (query !== null) this.inExpression(query, scope, commons, false);
			// Who names a column says that its table has it (`Relation.isUncertain`).
			else if ((value as Fields).ColumnRef !== undefined) columnIn(value, this.place(scope));
			else for (const part of Object.values(value)) rest.push(part as Value);
		}
	}
}

/** Parts of a query that are looked at by themselves. */
const ELSEWHERE: ReadonlySet<string> = new Set(["withClause", "fromClause", "whereClause", "intoClause"]);
const BEHIND = ["sortClause", "limitCount", "limitOffset"];
/** Where an aggregate makes all rows one, beside HAVING. */
const AGGREGATING = ["targetList", "sortClause", "distinctClause", "windowClause"];

/** Which rows a query gives depends on others, in another way than that they have the same values. */
function looksAtRows(query: Fields): boolean {
	if (query.limitCount !== undefined || query.limitOffset !== undefined) return true;
	// DISTINCT ON has expressions, DISTINCT an empty node.
	if (listOf(query.distinctClause).some((item) => Object.keys(node(item) ?? {}).length > 0)) return true;
	return (
		listOf(query.windowClause).length > 0 ||
		hasWindow(query.targetList) ||
		hasWindow(query.sortClause) ||
		hasSets(query)
	);
}

function hasSets(query: Fields): boolean {
	return listOf(query.groupClause).some((item) => node(item)?.GroupingSet !== undefined);
}

function hasWindow(root: Value | undefined): boolean {
	return some(root, (fields) => node(node(fields.FuncCall)?.over) !== null);
}

export function hasCall(root: Value | undefined): boolean {
	return some(
		root,
		(fields) =>
			fields.FuncCall !== undefined || fields.JsonArrayAgg !== undefined || fields.JsonObjectAgg !== undefined,
	);
}

/** Whether some node of the tree is such. */
export function some(root: Value | undefined, is: (fields: Fields) => boolean): boolean {
	const rest: Value[] = [root ?? null];
	for (let value = rest.pop(); value !== undefined; value = rest.pop()) {
		if (value === null || typeof value !== "object") continue;
		if (!Array.isArray(value) && is(value as Fields)) return true;
		for (const part of Object.values(value)) rest.push(part as Value);
	}
	return false;
}

export function schemaOf({ schemaname }: Fields): string | null {
	return typeof schemaname === "string" && schemaname !== "" ? schemaname : null;
}

function commonOf(commons: Commons | null, name: string): Common | null {
	for (let some = commons; some !== null; some = some.outer) {
		const found = some.queries.get(name);
		if (found !== undefined) return found;
	}
	return null;
}

function namesOf(names: Value | undefined): readonly (string | null)[] {
	return listOf(names).map(nameOf);
}

/** The column of one side of a JOIN … USING. */
function sideColumn({ relations, merged }: Named, name: string): RelationColumn | null {
	const one = merged.get(name);
	if (one !== undefined) return one;
	if (relations.length === 1) return relations[0]!.column(name);
	const having = relations.filter((relation) => relation.has(name));
	return having.length === 1 ? having[0]!.column(name) : null;
}

/** A relation that is joined with no other. */
function alone(relation: Relation): Named {
	return { relations: [relation], merged: NONE_MERGED };
}

/** The columns of a query under other names. */
function renamed(outputs: Outputs, names: readonly (string | null)[]): Outputs {
	if (names.length === 0) return outputs;
	if (outputs.stars.length > 0 || outputs.isOpen) return UNKNOWN;
	const columns = outputs.columns.map((output, i) => ({ ...output, name: names[i] ?? output.name }));
	return { ...outputs, columns };
}
