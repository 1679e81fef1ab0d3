// The names of a statement, and what has to be equal in it: each query of it is a scope with the relations of its FROM clause, and what
// its WHERE, ON and USING ask for are contexts. `Scopes.wantOf` says which values a column can have in rows that count. Filled by
// keys.ts, which knows the syntax.
//
// Why it is right: a row of a relation whose key is not among those values is in no combination of rows that passes all conditions,
// so the answer is the same without it. A condition counts for a row only if it holds in each combination that the row is in: that of
// an outer join's ON holds where its nullable side has a row and not NULLs (`Context.real`), that of a subquery not outside of it, and
// that of an outer query not in one that looks at rows together, such as those of LIMIT (`Scope.up`, `Scope.down`).

import { ANYWHERE, both, either, NOWHERE, type Want } from "./aim.ts";
import type { Value } from "./parse.ts";
import type { Source } from "./sources.ts";
import type { KeyColumn, Tables } from "./tables.ts";

/** A column of a relation. One object for each, so that they can be compared. */
export interface RelationColumn {
	readonly relation: Relation;
	/** It says where rows are. */
	readonly key: KeyColumn | null;
	/** Its values stand in the statement. */
	readonly isGiven: boolean;
}

/** A result column of a query. */
export interface Output {
	/** Null: none that anybody could mean. */
	readonly name: string | null;
	readonly column: RelationColumn | null;
	/** The expression of a value that stands in the statement. */
	readonly value: Value | undefined;
	/** How many columns are before it is not known. */
	readonly isBehindStar: boolean;
}

/** What a query gives: its columns, and relations of which it gives all. */
export interface Outputs {
	readonly columns: readonly Output[];
	readonly stars: readonly Relation[];
	/** Some of its columns are not known. */
	readonly isOpen: boolean;
}

export class Relation {
	readonly alias: string;
	readonly schema: string | null;
	/** The keys of a table; none, of what has none. */
	readonly keys: readonly KeyColumn[];
	/** The columns of a query; null: of a table. */
	readonly outputs: Outputs | null;
	/** Its names may be others than the table's. */
	readonly isRenamed: boolean;
	/** The table's; "" of what is none. */
	readonly name: string;
	private readonly columns = new Map<string, RelationColumn>();

	constructor(
		alias: string,
		schema: string | null,
		keys: readonly KeyColumn[],
		outputs: Outputs | null,
		isRenamed: boolean,
		name = "",
	) {
		this.name = name;
		this.alias = alias;
		this.schema = schema;
		this.keys = keys;
		this.outputs = outputs;
		this.isRenamed = isRenamed;
	}

	/** It may have none of the columns by which it would be sharded: nobody has said so of it, nor does the statement name one. */
	get isUncertain(): boolean {
		return this.keys.every(({ table, column }) => table === null && !this.columns.has(column));
	}

	/** It has a column of that name for certain. */
	has(name: string): boolean {
		const { outputs } = this;
		if (outputs === null) return !this.isRenamed && this.keys.some(({ column }) => column === name);
		return outputs.columns.some((output) => output.name === name) || outputs.stars.some((star) => star.has(name));
	}

	/** It may have columns of any name. */
	get isOpen(): boolean {
		const { outputs } = this;
		return outputs === null || outputs.isOpen || outputs.stars.some((star) => star.isOpen);
	}

	/** Its column of that name, if it has one; null: what that is is not known. */
	column(name: string): RelationColumn | null {
		const { outputs } = this;
		if (outputs === null) {
			if (this.isRenamed) return null;
			let column = this.columns.get(name);
			if (column === undefined) {
				const key = this.keys.find((key) => key.column === name) ?? null;
				column = { relation: this, key, isGiven: false };
				this.columns.set(name, column);
			}
			return column;
		}
		const named = outputs.columns.filter((output) => output.name === name);
		if (named.length > 0) return named.length === 1 ? named[0]!.column : null;
		const { stars } = outputs;
		const having = stars.filter((star) => star.has(name));
		if (having.length > 0) return having.length === 1 ? having[0]!.column(name) : null;
		return stars.length === 1 && !outputs.isOpen ? stars[0]!.column(name) : null;
	}
}

/** Conditions on columns. */
export type Condition =
	| { readonly kind: "value"; readonly column: RelationColumn; readonly source: Source; readonly isNullable: boolean }
	| { readonly kind: "both" | "either"; readonly parts: readonly Condition[] }
	| { readonly kind: "any" };

export const ANY: Condition = { kind: "any" };

/** Conditions that hold together. */
export class Context {
	readonly scope: Scope;
	/** They hold where any of these relations has a row, and not NULLs in its place; null: always. */
	readonly real: ReadonlySet<Relation> | null;
	readonly conditions: Condition[] = [];
	readonly edges: (readonly [RelationColumn, RelationColumn])[] = [];

	constructor(scope: Scope, real: ReadonlySet<Relation> | null) {
		this.scope = scope;
		this.real = real;
	}
}

/** What names without another before them can be of. */
export interface Named {
	readonly relations: readonly Relation[];
	/** Columns that JOIN … USING has made one; null: it is neither of the two. */
	readonly merged: ReadonlyMap<string, RelationColumn | null>;
}

/** One query. */
export class Scope implements Named {
	/** The query around it. */
	readonly parent: Scope | null;
	/** The query whose names it knows. */
	readonly names: Scope | null;
	/** What holds outside counts for its rows. */
	up: boolean;
	/** What holds in it counts outside. */
	down: boolean;
	readonly relations: Relation[] = [];
	readonly merged = new Map<string, RelationColumn | null>();
	/** NATURAL JOIN: which columns are one is not known. */
	isNatural = false;

	constructor(parent: Scope | null, names: Scope | null, up: boolean, down: boolean) {
		this.parent = parent;
		this.names = names;
		this.up = up;
		this.down = down;
	}

	/** @param among a part of the scope; null: all of it */
	resolve(names: readonly string[], among: Named | null): RelationColumn | null {
		if (names.length === 1) return this.unqualified(names[0]!, among ?? this);
		if (names.length > 3) return null;
		const name = names.at(-1)!;
		const alias = names.at(-2)!;
		const schema = names.length === 3 ? names[0]! : null;
		for (let scope: Scope | null = this; scope !== null; scope = scope.names) {
			const found = scope.relations.filter((relation) => relation.alias === alias);
			if (found.length > 1) return null;
			// A schema before the name is the table's, which is then known by no other name.
			if (found.length === 1) return schema === null || found[0]!.schema === schema ? found[0]!.column(name) : null;
		}
		return null;
	}

	private unqualified(name: string, { relations, merged }: Named): RelationColumn | null {
		if (this.isNatural) return null;
		const one = merged.get(name);
		if (one !== undefined) return one;
		const having = relations.filter((relation) => relation.has(name));
		if (having.length > 0) return having.length === 1 ? having[0]!.column(name) : null;
		if (relations.some((relation) => relation.isOpen)) {
			// The only relation there is has it, or it is of a query around it.
			return relations.length === 1 && this.names === null ? relations[0]!.column(name) : null;
		}
		return this.names?.unqualified(name, this.names) ?? null;
	}
}

export class Scopes {
	private readonly tables: Tables;
	private readonly contexts: Context[] = [];

	constructor(tables: Tables) {
		this.tables = tables;
	}

	context(scope: Scope, real: ReadonlySet<Relation> | null): Context {
		const context = new Context(scope, real);
		this.contexts.push(context);
		return context;
	}

	/** Where the rows of a relation are that count. */
	wantOf(relation: Relation, scope: Scope): Want {
		return both(relation.keys.map((key) => this.wantOfColumn(relation.column(key.column), relation, scope, key)));
	}

	/**
	 * Where a row of a table that is sharded by `key` is, or goes, whose key is what `column` has in a row that counts.
	 * @param start the relation whose row is looked at; null: what the scope gives is
	 */
	wantOfColumn(column: RelationColumn | null, start: Relation | null, scope: Scope, key: KeyColumn): Want {
		// Of a text that is no key it is not known whether case or blanks matter.
		if (column === null || !(isExact(key) || isText(column))) return ANYWHERE;
		const contexts = this.holding(start, scope);
		const same = equalTo(column, contexts, key);
		return both(contexts.flatMap(({ conditions }) => conditions.map((condition) => restrict(condition, same, key))));
	}

	/** Each row of `relation` that counts has to be on the shard of the row of `anchor` that it is looked at with. */
	isTied(relation: Relation, scope: Scope, anchor: Relation): boolean {
		const contexts = this.holding(relation, scope);
		return relation.keys.some((key) => {
			const column = relation.column(key.column);
			if (column === null) return false;
			const same = equalTo(column, contexts, key);
			return anchor.keys.some((other) => {
				const there = anchor.column(other.column);
				return there !== null && same.has(there) && this.tables.isAlike(key, other);
			});
		});
	}

	/** The contexts that hold for each combination of rows that counts and has a row of `start`. */
	private holding(start: Relation | null, scope: Scope): readonly Context[] {
		const left = this.contexts.filter((context) => isSeen(context.scope, scope));
		const holding: Context[] = [];
		const real = new Set<Relation>(start === null ? [] : [start]);
		for (let found = true; found; ) {
			found = false;
			for (let i = left.length - 1; i >= 0; i--) {
				const context = left[i]!;
				if (context.real !== null && real.isDisjointFrom(context.real)) continue;
				left.splice(i, 1);
				holding.push(context);
				found = true;
				for (const [a, b] of context.edges) real.add(a.relation).add(b.relation);
				for (const condition of context.conditions)
					if (condition.kind === "value" && !condition.isNullable) real.add(condition.column.relation);
			}
		}
		return holding;
	}
}

/** Whether what holds in `scope` counts for rows of `own`. */
function isSeen(scope: Scope, own: Scope): boolean {
	const around = new Set<Scope>();
	for (let outer: Scope | null = own; outer !== null; outer = outer.up ? outer.parent : null) around.add(outer);
	for (let inner: Scope | null = scope; inner !== null; inner = inner.down ? inner.parent : null)
		if (around.has(inner)) return true;
	return false;
}

/** The columns that equal `column`, itself among them. */
function equalTo(column: RelationColumn, contexts: readonly Context[], key: KeyColumn): ReadonlySet<RelationColumn> {
	const same = new Set([column]);
	const exact = isExact(key);
	for (let size = 0; size < same.size; ) {
		size = same.size;
		for (const { edges } of contexts)
			for (const [a, b] of edges) {
				if (!(exact || (isText(a) && isText(b)))) continue;
				if (same.has(a)) same.add(b);
				else if (same.has(b)) same.add(a);
			}
	}
	return same;
}

/** Values are equal only if they are the same. */
function isExact({ dataType }: KeyColumn): boolean {
	return dataType === "bigint" || dataType === "uuid";
}

/** As `isExact`, of a text. */
function isText({ key, isGiven }: RelationColumn): boolean {
	return key !== null || isGiven;
}

function restrict(condition: Condition, same: ReadonlySet<RelationColumn>, key: KeyColumn): Want {
	switch (condition.kind) {
		case "any":
			return ANYWHERE;
		case "value": {
			const { column, source, isNullable } = condition;
			return same.has(column) ? { kind: "value", column: key, source, isNullable } : ANYWHERE;
		}
		case "both":
			return both(condition.parts.map((part) => restrict(part, same, key)));
		case "either":
			return condition.parts.length === 0 ? NOWHERE : either(condition.parts.map((part) => restrict(part, same, key)));
	}
}
