// Conditions of WHERE and ON as scopes.ts wants them: which columns are equal, and to which values. What says nothing of that holds for
// any row. Called by keys.ts, which looks into subqueries itself.

import { type Fields, listOf, node, type Value } from "./parse.ts";
import { ANY, type Condition, type Context, type Named, type RelationColumn, type Scope } from "./scopes.ts";
import { castOf, isLiteralAgain, type Locator, nameOf, type Source, sourceOf } from "./sources.ts";

/** Where an expression stands. */
export interface Position {
	readonly scope: Scope;
	/** As for `Scope.resolve`. */
	readonly among: Named | null;
	readonly locator: Locator | null;
	/** Parameters that a key is compared with: the nodes. */
	readonly keyed: Set<Fields>;
}

/** So deep a condition says nothing. */
const DEEPEST = 100;

/** The parts of a condition that all have to hold. */
export function conjuncts(expression: Value | undefined, found: Fields[] = []): readonly Fields[] {
	const whole = node(expression);
	if (whole === null) return found;
	const bool = node(whole.BoolExpr);
	if (bool?.boolop === "AND_EXPR") for (const part of listOf(bool.args)) conjuncts(part, found);
	else found.push(whole);
	return found;
}

/** Adds one of the parts to what holds in `context`. */
export function hold(expression: Fields, place: Position, context: Context): void {
	const comparison = node(expression.A_Expr);
	if (comparison?.kind === "AEXPR_OP" && isEquals(comparison)) {
		for (const [left, right] of pairs(comparison)) {
			const a = columnIn(left, place);
			const b = columnIn(right, place);
			if (a !== null && b !== null) context.edges.push([a, b]);
		}
	}
	const condition = conditionOf(expression, place);
	if (condition.kind === "both") context.conditions.push(...condition.parts);
	else if (condition !== ANY) context.conditions.push(condition);
}

function conditionOf(expression: Value | undefined, place: Position, depth = 0): Condition {
	const fields = node(expression);
	const bool = node(fields?.BoolExpr);
	if (bool !== null) {
		if (depth > DEEPEST || bool.boolop === "NOT_EXPR") return ANY;
		const parts = listOf(bool.args).map((part) => conditionOf(part, place, depth + 1));
		return { kind: bool.boolop === "AND_EXPR" ? "both" : "either", parts };
	}
	const comparison = node(fields?.A_Expr);
	if (comparison === null || !isEquals(comparison)) return ANY;
	switch (comparison.kind) {
		case "AEXPR_OP": {
			const parts = pairs(comparison).map(([left, right]) => equals(left, right, false, place));
			return parts.length === 1 ? parts[0]! : { kind: "both", parts };
		}
		case "AEXPR_NOT_DISTINCT":
			return equals(comparison.lexpr, comparison.rexpr, true, place);
		case "AEXPR_IN":
			return isAmong(comparison.lexpr, listOf(node(node(comparison.rexpr)?.List)?.items), place);
		case "AEXPR_OP_ANY":
			return isAnyOf(comparison, place);
		default:
			return ANY;
	}
}

function isEquals(comparison: Fields): boolean {
	const names = listOf(comparison.name).map(nameOf);
	return names.at(-1) === "=" && (names.length === 1 || names[0] === "pg_catalog");
}

/** What is compared with what: `(a, b) = (1, 2)` is two comparisons. */
function pairs({ lexpr, rexpr }: Fields): readonly (readonly [Value | undefined, Value | undefined])[] {
	const left = rowOf(lexpr);
	const right = rowOf(rexpr);
	if (left === null || right === null) return [[lexpr, rexpr]];
	return left.length === right.length ? left.map((value, i) => [value, right[i]] as const) : [];
}

function rowOf(value: Value | undefined): readonly Value[] | null {
	const row = node(node(value)?.RowExpr);
	return row === null ? null : listOf(row.args);
}

function equals(left: Value | undefined, right: Value | undefined, isNullable: boolean, place: Position): Condition {
	const a = columnIn(left, place);
	const b = columnIn(right, place);
	if ((a === null) === (b === null)) return ANY;
	const column = a ?? b!;
	const source = valueOf(a === null ? left : right, column, place);
	// `= NULL` is IS NULL to a session that has asked for it (transform_null_equals).
	if (source === null || (source.text === null && isConstantNull(source))) return ANY;
	return { kind: "value", column, source, isNullable };
}

function isConstantNull(source: Source): boolean {
	return source.parameter === 0 && source.place === 0;
}

/** `column IN (…)`, and `(column, …) IN ((…), …)`. */
function isAmong(left: Value | undefined, items: readonly Value[], place: Position): Condition {
	const row = rowOf(left);
	if (row === null) {
		const column = columnIn(left, place);
		return column === null ? ANY : anyOf(column, items, place);
	}
	const parts = row.flatMap((value, i): Condition[] => {
		const column = columnIn(value, place);
		if (column === null) return [];
		const values = items.map((item) => rowOf(item)?.[i]);
		return [anyOf(column, values, place)];
	});
	return parts.length === 0 ? ANY : { kind: "both", parts };
}

/** The column has one of these values. @param cast the type that they are cast to together, as `Source.cast` */
export function anyOf(
	column: RelationColumn,
	values: readonly (Value | undefined)[],
	place: Position,
	cast = 0,
): Condition {
	const parts: Condition[] = [];
	let previous: Source | null = null;
	for (const value of values) {
		const found = valueOf(value, column, place);
		if (found === null || (cast !== 0 && found.cast !== 0)) return ANY;
		const source = cast === 0 ? found : { ...found, cast };
		// Of a list that the shape has folded each literal speaks for all.
		if (previous === null || !isLiteralAgain(source, previous))
			parts.push({ kind: "value", column, source, isNullable: false });
		previous = source;
	}
	return { kind: "either", parts };
}

function isAnyOf({ lexpr, rexpr }: Fields, place: Position): Condition {
	const column = columnIn(lexpr, place);
	if (column === null) return ANY;
	const typed = node(node(rexpr)?.TypeCast);
	const elements = node(node(typed?.arg ?? rexpr)?.A_ArrayExpr);
	if (elements !== null) {
		const cast = typed === null ? 0 : castOf(node(typed.typeName), true);
		return cast < 0 ? ANY : anyOf(column, listOf(elements.elements), place, cast);
	}
	const source = valueOf(rexpr, column, place, true);
	return source === null ? ANY : { kind: "value", column, source, isNullable: false };
}

export function columnNames(value: Value | undefined): readonly string[] | null {
	const fields = node(node(value)?.ColumnRef)?.fields;
	if (fields === undefined) return null;
	const names = listOf(fields).map(nameOf);
	return names.includes(null) ? null : (names as string[]);
}

export function columnIn(value: Value | undefined, { scope, among }: Position): RelationColumn | null {
	const names = columnNames(value);
	return names === null ? null : scope.resolve(names, among);
}

/** The value that a column is compared with, or given. */
export function valueOf(
	value: Value | undefined,
	{ key, isGiven }: Pick<RelationColumn, "key" | "isGiven">,
	{ locator, keyed }: Pick<Position, "locator" | "keyed">,
	isArray = false,
): Source | null {
	const source = sourceOf(value, locator, isArray);
	if (source === null || source.parameter === 0 || (key === null && !isGiven)) return source;
	const cast = node(node(value)?.TypeCast);
	keyed.add(node((node(cast?.arg) ?? node(value))?.ParamRef)!);
	return source;
}
