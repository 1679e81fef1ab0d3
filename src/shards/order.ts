// The order that ORDER BY gives the rows of one answer: which columns they are ordered by is found in what each shard says of its rows,
// and the row that each shard is at is compared with those of the others. Each shard's rows come in its own server's order: where
// ours is another, nothing goes on. One for each answer that is merged, made by rows.ts.

import { PgError } from "../errors.ts";
import type { Merging, OrderTerm } from "../parser/merging.ts";
import { HEADER, readInt16, readInt32 } from "../wire/frame.ts";
import type { OutputColumn } from "./columns.ts";
import { type Compare, comparing, isText, Unreadable } from "./compare.ts";
import type { Lane } from "./lane.ts";

/** How one term of ORDER BY compares. */
interface Key {
	/** From 0. */
	readonly column: number;
	readonly type: number;
	readonly format: number;
	readonly compare: Compare;
	readonly descending: boolean;
	readonly nullsFirst: boolean;
}

/** Where the values are that a row is ordered by. A copy would cost more than the chunk that is kept. */
class Place {
	chunk: Buffer;
	/** For each key where its value begins, -1 for NULL, and ends. */
	readonly starts: Int32Array;
	readonly ends: Int32Array;

	constructor(chunk: Buffer, keys: number) {
		this.chunk = chunk;
		this.starts = new Int32Array(keys);
		this.ends = new Int32Array(keys);
	}
}

/** What is asked of the shards' rows cannot be done: told the client instead of them. */
export function unmergeable(what: string, hint?: string): PgError {
	const detail = "The rows of all shards have to be what PostgreSQL would give.";
	return new PgError("ERROR", "0A000", `${what} is not supported across shards`, detail, hint);
}

const HINT = 'Order by the column COLLATE "C", which is the order of its bytes.';

export class RowOrder {
	private readonly keys: readonly Key[];
	private readonly distinct: boolean;
	/** How many columns of a row have to be looked at. */
	private readonly width: number;
	/** For each column the number of its key; -1: none. */
	private readonly keyOf: Int32Array;
	/** By the number of the shard: the row that it is at, and the one before. */
	private readonly here: (Place | null)[];
	private readonly before: (Place | null)[];
	/** The row that was passed last, of those that DISTINCT compares. */
	private last: Place | null = null;

	/** @param count of shards */
	private constructor(keys: readonly Key[], distinct: boolean, count: number) {
		this.keys = keys;
		this.distinct = distinct;
		this.width = Math.max(...keys.map(({ column }) => column)) + 1;
		this.keyOf = new Int32Array(this.width).fill(-1);
		for (const [i, { column }] of keys.entries()) this.keyOf[column] = i;
		this.here = new Array(count).fill(null);
		this.before = new Array(count).fill(null);
	}

	/**
	 * @param merging has a term at least
	 * @param columns of the first shard; the others' are alike
	 * @param isUtf8 the bytes of texts are those that the servers compare
	 * @returns why the rows cannot be ordered here
	 */
	static of(merging: Merging, columns: readonly OutputColumn[], count: number, isUtf8: boolean): RowOrder | PgError {
		const keys: Key[] = [];
		for (const term of merging.order) {
			const column = columnOf(term, columns);
			if (column < 0) return unmergeable("ORDER BY of what is no column of the output");
			// What has been ordered by a column has no other order by it.
			if (keys.some((key) => key.column === column)) continue;
			const { name, type, format } = columns[column]!;
			const compare = comparing(type, format);
			if (compare === null) return unmergeable(`ORDER BY "${name}" of the type with OID ${type}`);
			if (isText(type) && !term.bytewise) return unmergeable(`ORDER BY "${name}" in its collation`, HINT);
			if (isText(type) && !isUtf8) return unmergeable(`ORDER BY "${name}" in another encoding than UTF-8`);
			const { descending, nullsFirst } = term;
			keys.push({ column, type, format, compare, descending, nullsFirst });
		}
		if (merging.distinct && keys.length < columns.length)
			return unmergeable("DISTINCT without ORDER BY of all columns");
		return new RowOrder(keys, merging.distinct, count);
	}

	/** Whether the values of another shard's rows compare as those of the first. What tables columns are of is each shard's affair. */
	fits(columns: readonly OutputColumn[]): boolean {
		return this.keys.every(
			({ column, type, format }) => columns[column]?.type === type && columns[column]?.format === format,
		);
	}

	/**
	 * The shard is at another row, which its `head` ends.
	 * @returns why that cannot be in its place
	 */
	read({ shard, chunk, at, head }: Lane): PgError | null {
		const { keyOf, width } = this;
		const place = this.before[shard] ?? new Place(chunk, this.keys.length);
		const before = this.here[shard]!;
		this.here[shard] = place;
		this.before[shard] = before;
		place.chunk = chunk;
		let next = at + HEADER + 2;
		if (readInt16(chunk, at + HEADER) < width) return BROKEN;
		for (let column = 0; column < width; column++) {
			const start = next + 4;
			if (start > head) return BROKEN;
			const length = readInt32(chunk, next);
			next = length < 0 ? start : start + length;
			if (next > head) return BROKEN;
			const key = keyOf[column]!;
			if (key < 0) continue;
			place.starts[key] = length < 0 ? -1 : start;
			place.ends[key] = next;
		}
		if (before === null) return null;
		try {
			return this.between(before, place) > 0 ? CONTRADICTED : null;
		} catch (error) {
			return unreadable(error);
		}
	}

	/** The rows that two shards are at. @returns below 0, 0 or above 0; an error's reason is thrown */
	compare(a: Lane, b: Lane): number {
		return this.between(this.here[a.shard]!, this.here[b.shard]!);
	}

	/** The row that the shard is at is the next. @returns false when DISTINCT leaves it out, being as the last */
	isAnother({ shard }: Lane): boolean {
		if (!this.distinct) return true;
		const place = this.here[shard]!;
		if (this.last === null) this.last = new Place(place.chunk, this.keys.length);
		else if (this.between(this.last, place) === 0) return false;
		// Its shard goes on to other places.
		const { last } = this;
		last.chunk = place.chunk;
		last.starts.set(place.starts);
		last.ends.set(place.ends);
		return true;
	}

	private between(a: Place, b: Place): number {
		const { keys } = this;
		for (let i = 0; i < keys.length; i++) {
			const { compare, descending, nullsFirst } = keys[i]!;
			const aStart = a.starts[i]!;
			const bStart = b.starts[i]!;
			if (aStart < 0 || bStart < 0) {
				if (aStart < 0 && bStart < 0) continue;
				return aStart < 0 === nullsFirst ? -1 : 1;
			}
			const found = compare(a.chunk, aStart, a.ends[i]!, b.chunk, bStart, b.ends[i]!);
			if (found !== 0) return descending ? -found : found;
		}
		return 0;
	}
}

/** What a comparison throws. */
export function unreadable(error: unknown): PgError {
	if (error instanceof Unreadable) return unmergeable(`ORDER BY of ${error.message}`);
	throw error;
}

const BROKEN = new PgError("ERROR", "58000", "a shard's row has fewer columns than it was to have");
const CONTRADICTED = new PgError(
	"ERROR",
	"58000",
	"the rows of a shard came in another order than they were asked for",
	"Its server orders values in another way than this proxy does: their rows cannot be merged.",
);

/** The column that a term is, from 0; -1: none that is certain. */
function columnOf({ name, position, isTables }: OrderTerm, columns: readonly OutputColumn[]): number {
	if (name !== "") {
		const found = columns.findIndex((column) => column.name === name);
		const isOnly = columns.findIndex((column, i) => i > found && column.name === name) < 0;
		if (found >= 0 && !name.includes("\ufffd") && (isOnly || !isTables)) return found;
	}
	return position < columns.length ? position : -1;
}
