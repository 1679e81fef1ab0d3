// What the rules of one mapping mean together, for a column of a type. Called by placements.ts. What would place rows wrongly is an
// error here, in PgDog's words, which only warns of it.

import { joinKey } from "./locate.ts";
import { type Findings, show, type ValueSource } from "./problem.ts";
import type { KeyValue } from "./setting.ts";
import {
	compareOrdinals,
	type Key,
	type KeyType,
	ordinalOf,
	type ShardFunction,
	type ShardRange,
	uuidKey,
} from "./sharding.ts";

/** A rule as it stands in the file, with its place there. */
export interface Rule {
	readonly at: string;
	/** Undefined: what it has says it. */
	readonly kind?: "list" | "range" | "default" | undefined;
	readonly values?: readonly KeyValue[] | undefined;
	readonly start?: KeyValue | undefined;
	readonly end?: KeyValue | undefined;
	readonly shard: number;
}

/** Whose mapping it is. */
export interface MappedColumn {
	readonly dataType: KeyType;
	/** Of the database. */
	readonly shards: number;
	readonly source: ValueSource;
	readonly report: Findings;
}

interface PlacedRange extends ShardRange {
	readonly at: string;
}

/** @param rules one or more */
export function readMapping(rules: readonly Rule[], column: MappedColumn): ShardFunction {
	const { source, report } = column;
	const lists: { at: string; values: readonly Key[]; shard: number }[] = [];
	const ranges: PlacedRange[] = [];
	let others: number | null = null;
	for (const rule of rules) {
		const { at, shard } = rule;
		checkShard(shard, at, column);
		switch (kindOf(rule, column)) {
			case "list":
				lists.push({ at, values: rule.values!.flatMap((value) => keyOf(value, `${at}.values`, column) ?? []), shard });
				break;
			case "range":
				ranges.push(...rangeOf(rule, column));
				break;
			case "default":
				if (others !== null && others !== shard)
					report.warn(source, at, `${at} is another rule for all other values: this last one counts`);
				others = shard;
		}
	}
	warnOfDuplicates(lists, column);
	checkOverlaps(ranges, column);
	return {
		kind: "mapping",
		lists: lists.map(({ values, shard }) => ({ values, shard })),
		ranges: ranges.map(({ start, end, shard }) => ({ start, end, shard })),
		others,
	};
}

/** Reports a shard that the database does not have. */
export function checkShard(
	shard: number,
	at: string,
	{ shards, source, report }: Omit<MappedColumn, "dataType">,
): void {
	if (shard < shards) return;
	const accepted = shards === 1 ? "0" : `an integer from 0 to ${shards - 1}`;
	const why = `${accepted}: shard=${shard} exceeds the configured shard count (${shards})`;
	report.problem(source, joinKey(at, "shard"), "value", String(shard), why);
}

/** Undefined: the rule contradicts itself, which has been reported. */
function kindOf({ at, kind, values, start, end, shard }: Rule, { source, report }: MappedColumn): Rule["kind"] {
	const bound = start !== undefined ? "start" : end !== undefined ? "end" : undefined;
	const meant = kind ?? (values !== undefined ? "list" : bound !== undefined ? "range" : "default");
	const wrong = (key: string, found: unknown, accepted: string) => {
		report.problem(source, joinKey(at, key), "value", show(found), accepted);
		return undefined;
	};
	if (bound !== undefined && meant !== "list" && meant !== "range")
		return wrong(bound, start ?? end, `no ${bound}, which is for a range, in a rule for all other values`);
	if (bound !== undefined && meant === "list") return wrong(bound, start ?? end, `no ${bound} in a rule with values`);
	if (values !== undefined && meant !== "list")
		return wrong("values", values, `no values in a rule of kind "${meant}"`);
	if (meant === "range" && bound === undefined)
		return wrong("kind", kind, `"range" with bounds: shard=${shard} range must define a start, an end, or both`);
	if (meant === "list" && values === undefined) return wrong("kind", kind, `"list" with values`);
	return meant;
}

/** The value's form that can be compared; undefined: it is not of the type, which has been reported. */
function keyOf(value: KeyValue, at: string, { dataType, source, report }: MappedColumn): Key | undefined {
	if (dataType === "bigint" && typeof value === "bigint") return String(value);
	if (dataType === "varchar" && typeof value === "string") return value;
	const uuid = dataType === "uuid" && typeof value === "string" ? uuidKey(value) : null;
	if (uuid !== null) return uuid;
	const why = `${FORMS[dataType]}: value ${shown(value)} is not a valid ${dataType} value`;
	report.problem(source, at, "value", show(value), why);
	return undefined;
}

const FORMS: Readonly<Record<KeyType, string>> = {
	bigint: "an integer",
	uuid: "a uuid as a string",
	varchar: "a string",
	vector: "nothing",
};

/** None, when it is empty or turned round, which has been reported. */
function rangeOf(rule: Rule, column: MappedColumn): PlacedRange[] {
	const { at, shard } = rule;
	const boundOf = (name: "start" | "end") =>
		rule[name] === undefined ? null : keyOf(rule[name], joinKey(at, name), column);
	const [start, end] = [boundOf("start"), boundOf("end")];
	if (start === undefined || end === undefined) return [];
	if (start === null || end === null || compare(start, end, column) <= 0) return [{ at, start, end, shard }];
	const bounds = `start (${shown(rule.start!)}) must not be greater than end (${shown(rule.end!)})`;
	const why = `at most its end: shard=${shard} range is invalid: ${bounds}`;
	column.report.problem(column.source, joinKey(at, "start"), "value", show(rule.start), why);
	return [];
}

function compare(a: Key, b: Key, { dataType }: MappedColumn): number {
	return compareOrdinals(ordinalOf(a, dataType), ordinalOf(b, dataType));
}

/** Reports ranges that have values in common: which shard has these? */
function checkOverlaps(ranges: readonly PlacedRange[], column: MappedColumn): void {
	const { dataType, source, report } = column;
	const inOrder = ranges
		.filter(({ start, end }) => start === null || end === null || compare(start, end, column) < 0)
		.toSorted((a, b) => {
			if (a.start === null || b.start === null) return Number(b.start === null) - Number(a.start === null);
			return compare(a.start, b.start, column);
		});
	/** Of those before, the one that reaches furthest. */
	let reaching: PlacedRange | undefined;
	for (const range of inOrder) {
		const { start } = range;
		if (
			reaching !== undefined &&
			(reaching.end === null || start === null || compare(start, reaching.end, column) < 0)
		) {
			const [first, second] = [reaching, range].toSorted((a, b) => ranges.indexOf(a) - ranges.indexOf(b));
			const why = `a range apart from that of ${first!.at}: shard ranges overlap: ${rangeText(first!, dataType)} and ${rangeText(second!, dataType)}`;
			report.problem(source, second!.at, "value", rangeText(second!, dataType), why);
		}
		const isFurther =
			reaching === undefined ||
			range.end === null ||
			(reaching.end !== null && compare(range.end, reaching.end, column) > 0);
		if (isFurther) reaching = range;
	}
}

function rangeText({ start, end, shard }: ShardRange, dataType: KeyType): string {
	const text = (key: Key) => (dataType === "varchar" ? shown(key) : key);
	return `[${start === null ? "-inf" : text(start)}, ${end === null ? "+inf" : text(end)}) -> shard=${shard}`;
}

function shown(value: KeyValue): string {
	return typeof value === "string" ? `'${value.length > 100 ? `${value.slice(0, 100)}…` : value}'` : String(value);
}

function warnOfDuplicates(
	lists: readonly { at: string; values: readonly Key[]; shard: number }[],
	{ source, report }: MappedColumn,
): void {
	const shards = new Map<Key, number>();
	for (const { at, values, shard } of lists) {
		for (const value of values) {
			const before = shards.get(value);
			if (before !== undefined && before !== shard)
				report.warn(
					source,
					at,
					`${at} has ${JSON.stringify(value)}, which stood before with shard ${before}: this last one counts`,
				);
			shards.set(value, shard);
		}
	}
}
