// On which shards a statement has rows, as far as its values tell: made once per shape (keys.ts), and evaluated for each text and each
// Bind. Values are looked up where they lie; nothing is parsed and nothing kept.

import type { Literals } from "./literals.ts";
import { type Arguments, elementsOf, fitsText, type Source, SourceKind } from "./sources.ts";
import { At, type KeyColumn } from "./tables.ts";

/** That is `At` and this: from 0. */
const LOWEST = 7;

export function outcomeIndex(at: number): number {
	return at + LOWEST;
}

/** Where rows are that meet a condition. */
export type Want =
	| { readonly kind: "shard"; readonly at: number }
	/** Rows whose key is the value. With `isNullable` NULL is one, else no row meets it. */
	| { readonly kind: "value"; readonly column: KeyColumn; readonly source: Source; readonly isNullable: boolean }
	/** All of them are met. */
	| { readonly kind: "both"; readonly parts: readonly Want[] }
	/** Any is. */
	| { readonly kind: "either"; readonly parts: readonly Want[] };

export const ANYWHERE: Want = { kind: "shard", at: At.All };
export const NOWHERE: Want = { kind: "shard", at: At.None };

export function both(parts: readonly Want[]): Want {
	const some = parts.filter((part) => part !== ANYWHERE);
	if (some.length === 0) return ANYWHERE;
	return some.length === 1 ? some[0]! : { kind: "both", parts: some };
}

export function either(parts: readonly Want[]): Want {
	if (parts.includes(ANYWHERE)) return ANYWHERE;
	if (parts.length === 0) return NOWHERE;
	return parts.length === 1 ? parts[0]! : { kind: "either", parts };
}

/** A new row's key. */
export type NewKey =
	| { readonly kind: "value"; readonly column: KeyColumn; readonly source: Source }
	/** Taken from rows that are read. */
	| { readonly kind: "read"; readonly want: Want }
	| { readonly kind: "shard"; readonly at: number };

/** What is known of a string of statements. Immutable. */
export interface Aim {
	/** Of each use of a sharded table. */
	readonly reads: readonly Want[];
	readonly rows: readonly NewKey[];
	/** New values of keys. */
	readonly changes: readonly NewKey[];
	/** It has new rows, or gives keys another value: on all shards that would be wrong. */
	readonly placesRows: boolean;
	readonly hasLiterals: boolean;
	readonly hasParameters: boolean;
	/** Why it cannot run unless somebody names a shard, in words; null: it can. */
	readonly refusal: Refused | null;
	/** It writes to tables whose rows are on all shards. */
	readonly writesCopies: boolean;
	/** A table of which it is not known whether it has a column by which it would be sharded; null: there is none. */
	readonly uncertain: string | null;
	/** Some of it has to run on all shards, whatever the values. */
	readonly isForAll: boolean;
}

export interface Refused {
	/** The part of the statement, in words. */
	readonly part: string;
	readonly hint: string;
}

/** Where the statement goes: a shard, or an `At`. @param bind null: parameters are not known */
export function evaluate(aim: Aim, literals: Literals | null, bind: Arguments | null): number {
	if (aim.hasParameters && bind === null) return At.Open;
	let at: number = At.None;
	for (const want of aim.reads) {
		at = united(at, placeOf(want, literals, bind));
		if (at === At.All) break;
	}
	const home = aim.rows.length === 0 ? At.None : homeOfRows(aim.rows, literals, bind);
	if (home < At.None) return home;
	at = united(at, home);
	// New rows that would come to all shards would be there several times.
	if (home !== At.None && (at === At.All || aim.isForAll)) return At.Apart;
	if (at !== At.None && aim.changes.some((key) => at === At.All || homeOf(key, literals, bind) !== at))
		return At.Changed;
	return aim.isForAll ? At.All : at;
}

function homeOfRows(rows: readonly NewKey[], literals: Literals | null, bind: Arguments | null): number {
	let home: number = At.None;
	for (const row of rows) {
		const here = homeOf(row, literals, bind);
		if (here < At.None || here === At.All) return here === At.All ? At.Unplaced : here;
		home = united(home, here);
		if (home === At.All) return At.Apart;
	}
	return home;
}

function united(a: number, b: number): number {
	if (a === b || b === At.None) return a;
	return a === At.None ? b : At.All;
}

function placeOf(want: Want, literals: Literals | null, bind: Arguments | null): number {
	switch (want.kind) {
		case "shard":
			return want.at;
		case "value":
			return placeOfValue(want, literals, bind);
		case "both": {
			let at: number = At.All;
			for (const part of want.parts) {
				const here = placeOf(part, literals, bind);
				if (here === At.None || (at !== At.All && here !== At.All && here !== at)) return At.None;
				if (here !== At.All) at = here;
			}
			return at;
		}
		case "either": {
			let at: number = At.None;
			for (const part of want.parts) {
				at = united(at, placeOf(part, literals, bind));
				if (at === At.All) break;
			}
			return at;
		}
	}
}

function placeOfValue(
	{ column, source, isNullable }: Want & { kind: "value" },
	literals: Literals | null,
	bind: Arguments | null,
): number {
	let at: number = At.None;
	for (let i = next(source, -1, literals); i >= 0 && at !== At.All; i = next(source, i, literals)) {
		const here = source.isArray
			? placeOfArray(column, source, i, literals, bind)
			: shardOf(column, source, i, false, literals, bind);
		if (here === At.Unplaced || (here === At.Null && isNullable)) return At.All;
		if (here !== At.Null) at = united(at, here);
	}
	return at;
}

/** Where rows are whose key is an element of the array. */
function placeOfArray(
	column: KeyColumn,
	source: Source,
	i: number,
	literals: Literals | null,
	bind: Arguments | null,
): number {
	const { kind, cast } = source;
	if (kind !== SourceKind.Parameter && !fitsText(column, cast)) return At.Unplaced;
	const elements =
		kind === SourceKind.Parameter ? bind!.elements(source, column) : elementsOf(textOf(source, i, literals), column);
	if (elements === null) return At.Unplaced;
	return elements.reduce(united, At.None);
}

/** Where a new row with this key goes. */
function homeOf(key: NewKey, literals: Literals | null, bind: Arguments | null): number {
	if (key.kind === "shard") return key.at;
	if (key.kind === "read") return placeOf(key.want, literals, bind);
	const { column, source } = key;
	let at: number = At.None;
	for (let i = next(source, -1, literals); i >= 0; i = next(source, i, literals)) {
		const here = shardOf(column, source, i, true, literals, bind);
		if (here < 0) return here === At.All ? At.Unplaced : here;
		at = united(at, here);
		if (at === At.All) return At.Apart;
	}
	return at;
}

/** The literals that a source stands for, one after another: those of a list that the shape has folded. What is no literal is one. */
function next(source: Source, i: number, literals: Literals | null): number {
	if (source.kind !== SourceKind.Literal) return i < 0 ? 0 : -1;
	const { count } = literals!;
	while (++i < count) if (literals!.placeOf(i) === source.place) return i;
	return -1;
}

/** The shard of the value, or an `At`. @param i which of the literals that the source stands for */
function shardOf(
	column: KeyColumn,
	source: Source,
	i: number,
	isNew: boolean,
	literals: Literals | null,
	bind: Arguments | null,
): number {
	if (source.kind === SourceKind.Parameter) return bind!.shardOf(source, column, isNew);
	const isLiteral = source.kind === SourceKind.Literal;
	if (isLiteral ? literals!.isNull(i) : source.text === null) return At.Null;
	const isNumber = isLiteral ? literals!.isNumber(i) : source.isNumber;
	// `5` is no text, and what becomes of it as one is PostgreSQL's affair.
	if ((isNumber && column.dataType !== "bigint") || !fitsText(column, source.cast)) return At.Unplaced;
	const text = textOf(source, i, literals);
	if (text === null) return At.Unplaced;
	return (isNew ? column.homeOfText(text) : column.shardOfText(text)) ?? At.Unplaced;
}

function textOf(source: Source, i: number, literals: Literals | null): string | null {
	if (source.kind !== SourceKind.Literal) return source.text;
	const text = literals!.text(i);
	return text !== null && source.isNegated ? `-${text}` : text;
}

/** The same, with what literals say known: it serves for one text only, whatever its parameters. */
export function withLiterals(aim: Aim, literals: Literals): Aim {
	const wanted = (want: Want): Want => {
		if (want.kind === "both" || want.kind === "either") return { ...want, parts: want.parts.map(wanted) };
		if (want.kind === "shard" || want.source.kind !== SourceKind.Literal) return want;
		return { kind: "shard", at: placeOf(want, literals, null) };
	};
	const key = (row: NewKey): NewKey => {
		if (row.kind === "read") return { kind: "read", want: wanted(row.want) };
		if (row.kind === "shard" || row.source.kind !== SourceKind.Literal) return row;
		return { kind: "shard", at: homeOf(row, literals, null) };
	};
	return {
		...aim,
		reads: aim.reads.map(wanted),
		rows: aim.rows.map(key),
		changes: aim.changes.map(key),
		hasLiterals: false,
	};
}

/** An aim that has come to `at`. */
export function settled(aim: Aim, at: number): Aim {
	const reads: readonly Want[] = [{ kind: "shard", at }];
	return { ...aim, reads, rows: NONE, changes: NONE, hasLiterals: false, hasParameters: false, isForAll: false };
}

const NONE: readonly NewKey[] = [];
