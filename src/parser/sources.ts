// Where the value comes from that a key is compared with: a constant of the statement, a literal that stands at the same place in all
// texts of its shape, or a parameter. What changes a value on its way to the comparison (a cast to a type of another length, a
// collation) is not looked through: then nothing is known of it.

import type { Literals } from "./literals.ts";
import { type Fields, listOf, node, type Value } from "./parse.ts";
import { At, type KeyColumn } from "./tables.ts";

export const enum SourceKind {
	Constant,
	Literal,
	Parameter,
}

export interface Source {
	readonly kind: SourceKind;
	/** Of a constant; null: NULL. */
	readonly text: string | null;
	/** The constant is a number, not a string. */
	readonly isNumber: boolean;
	/** Of a literal: see `Literals`. A minus stands before it there, which is no part of it. */
	readonly place: number;
	readonly isNegated: boolean;
	/** Of a parameter, from 1. */
	readonly parameter: number;
	/** The type that a parameter is cast to, an oid; 0: none. */
	readonly cast: number;
	/** The parameter is used elsewhere, too, and may have its type from there. */
	isShared: boolean;
	/** It is an array, and any element will do. */
	readonly isArray: boolean;
}

/** Values of a Bind message (router/arguments.ts). */
export interface Arguments {
	/** The shard of the parameter's value, or an `At`. @param isNew it is the key of a new row */
	shardOf(source: Source, column: KeyColumn, isNew: boolean): number;
	/** The shards of an array's elements, or an `At` for each; null: it cannot be told. */
	elements(source: Source, column: KeyColumn): readonly number[] | null;
}

const PLAIN = { text: null, isNumber: false, place: 0, isNegated: false, parameter: 0, cast: 0, isShared: false };

/** Types that leave a value as it is, by name. Numbers beside int8 are told from it by their digits. */
const EXACT: ReadonlyMap<string, number> = new Map([
	["int8", 20],
	["int2", 21],
	["int4", 23],
	["text", 25],
	["varchar", 1043],
	["numeric", 1700],
	["uuid", 2950],
	["vector", 16384],
]);

/** Whether a value of the type compares with the column's as their texts do. @param type an oid; 0: not known, so it is the column's */
export function fitsText(column: KeyColumn, type: number): boolean {
	if (type === 0 || type === 705) return true;
	switch (column.dataType) {
		case "bigint":
			return type === 20 || type === 21 || type === 23 || type === 1700;
		case "uuid":
			return type === 2950;
		case "varchar":
			return type === 25 || type === 1043;
		case "vector":
			return type >= 16384;
	}
}

/** As `fitsText`, of values in binary format. */
export function fitsBinary(column: KeyColumn, type: number): boolean {
	return type !== 1700 && fitsText(column, type);
}

/** The type of an array's elements, by its oid; -1: none that is known. */
export function elementType(array: number): number {
	switch (array) {
		case 0:
			return 0;
		case 1005:
			return 21;
		case 1007:
			return 23;
		case 1009:
			return 25;
		case 1015:
			return 1043;
		case 1016:
			return 20;
		case 1231:
			return 1700;
		case 2951:
			return 2950;
		default:
			return -1;
	}
}

/** Finds the literals of a text by where the tree has them. */
export class Locator {
	/** Some constant could not be found: what is said of the text holds for no other. */
	failed = false;
	private readonly literals: Literals;
	private readonly start: number;

	/** @param start of the text in the literals' bytes */
	constructor(literals: Literals, start: number) {
		this.literals = literals;
		this.start = start;
	}

	find(at: number, text: string | null, isNumber: boolean): Source {
		const { literals, start } = this;
		const i = literals.indexAt(start + at);
		const constant = constantOf(text, isNumber);
		if (text === null) {
			// NULL is a word of the shape, unless it stands in a row.
			if (i < 0 || !literals.isNull(i) || literals.startOf(i) !== start + at) return constant;
			return { ...PLAIN, kind: SourceKind.Literal, place: literals.placeOf(i), isArray: false };
		}
		let found = i < 0 ? null : literals.text(i);
		if (found !== null && isNumber && found.startsWith("0")) found = found.replace(/^0+(?=\d+$)/, "");
		const isNegated = found !== text && `-${found}` === text;
		if (
			found === null ||
			(found !== text && !isNegated) ||
			literals.isNumber(i) !== isNumber ||
			// Of `-0` the minus is not seen; a string may go on in another literal.
			(isNumber ? text === "0" && literals.startOf(i) !== start + at : literals.goesOn(i))
		) {
			this.failed = true;
			return constant;
		}
		// Of a folded list each literal has its own.
		const place = literals.placeOf(i);
		return { ...PLAIN, kind: SourceKind.Literal, place, isNegated: isNegated, isArray: false };
	}
}

function constantOf(text: string | null, isNumber: boolean): Source {
	return { ...PLAIN, kind: SourceKind.Constant, text, isNumber, isArray: false };
}

/** Where a value comes from; null: it is not known before it is worked out. @param isArray it is to be an array */
export function sourceOf(value: Value | undefined, locator: Locator | null, isArray = false): Source | null {
	let inner = node(value);
	let cast = 0;
	const typed = node(inner?.TypeCast);
	if (typed !== null) {
		cast = castOf(node(typed.typeName), isArray);
		if (cast < 0) return null;
		inner = node(typed.arg);
	}
	const parameter = node(inner?.ParamRef);
	if (parameter !== null) {
		const number = typeof parameter.number === "number" ? parameter.number : 0;
		if (number === 0) return null;
		return { ...PLAIN, kind: SourceKind.Parameter, parameter: number, cast, isArray };
	}
	const signed = node(inner?.A_Expr);
	if (signed !== null && isPlus(signed)) inner = node(signed.rexpr);
	const constant = node(inner?.A_Const);
	if (constant === null) return null;
	const found = constantSource(constant, locator);
	if (found === null) return null;
	// What is cast has to be of a type that the column compares with; a string without one is of the column's.
	return { ...found, cast, isArray };
}

function constantSource(constant: Fields, locator: Locator | null): Source | null {
	const at = typeof constant.location === "number" ? constant.location : 0;
	const integer = node(constant.ival);
	const float = node(constant.fval);
	const string = node(constant.sval);
	let text: string | null = null;
	if (integer !== null) text = String(integer.ival ?? 0);
	else if (float !== null) text = String(float.fval);
	else if (string !== null) text = String(string.sval ?? "");
	else if (constant.isnull !== true) return null;
	const isNumber = integer !== null || float !== null;
	return locator?.find(at, text, isNumber) ?? constantOf(text, isNumber);
}

function isPlus(expression: Fields): boolean {
	const name = listOf(expression.name);
	return expression.kind === "AEXPR_OP" && expression.lexpr === undefined && nameOf(name[0]) === "+";
}

/** The type of a cast that leaves the value as it is, an oid; -1: it may not. */
export function castOf(type: Fields | null, isArray: boolean): number {
	if (type === null || listOf(type.typmods).length > 0) return -1;
	if (listOf(type.arrayBounds).length > 0 !== isArray) return -1;
	const names = listOf(type.names).map(nameOf);
	const name = names.at(-1) ?? "";
	if (names.length > 1 && names[0] !== "pg_catalog" && name !== "vector") return -1;
	return EXACT.get(name) ?? -1;
}

/**
 * Where rows are whose key is an element of the array that a constant's text is, an `At` for each that is NULL or none; null: it
 * is no plain list.
 */
export function elementsOf(text: string | null, column: KeyColumn): readonly number[] | null {
	if (text === null) return [];
	const list = LIST.exec(text)?.[1];
	if (list === undefined) return null;
	const shards: number[] = [];
	if (BLANK.test(list)) return shards;
	for (let at = 0, isLast = false; !isLast; at = ELEMENT.lastIndex) {
		ELEMENT.lastIndex = at;
		const found = ELEMENT.exec(list);
		if (found === null) return null;
		const [whole, quoted, plain] = found;
		isLast = !whole.endsWith(",");
		if (plain !== undefined && NULL.test(plain)) continue;
		const element = quoted === undefined ? withoutBlanks(plain!) : quoted.replaceAll(/\\([\s\S])/g, "$1");
		shards.push(column.shardOfText(element) ?? At.All);
	}
	return shards;
}

// PostgreSQL's blanks are of ASCII alone: others are part of an element.
const LIST = /^[ \t-\r]*\{(.*)\}[ \t-\r]*$/s;
const BLANK = /^[ \t-\r]*$/;
const NULL = /^null[ \t-\r]*$/i;
/** One element of an array's text and the comma behind it (PostgreSQL docs, "Array Input and Output Syntax"). */
const ELEMENT = /[ \t-\r]*(?:"((?:[^"\\]|\\[\s\S])*)"|([^",{}\\ \t-\r][^",{}\\]*))[ \t-\r]*(?:,|$)/y;

/** Without blanks at its end; in no more steps than there are, which an expression could take. */
function withoutBlanks(text: string): string {
	let end = text.length;
	while (end > 0 && BLANK.test(text[end - 1]!)) end--;
	return text.slice(0, end);
}

/** The name that a String node is. */
export function nameOf(value: Value | undefined): string | null {
	const name = node(node(value)?.String)?.sval;
	return typeof name === "string" ? name : null;
}

/** The same literals again: those of a list that the shape has folded are all in one place. */
export function isLiteralAgain(source: Source, previous: Source): boolean {
	return source.kind === SourceKind.Literal && previous.kind === SourceKind.Literal && source.place === previous.place;
}
