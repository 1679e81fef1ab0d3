// The one row of aggregates that each shard has sent, made one: sums, the least and the largest, AND and OR, in the format that the
// client has asked for. Numbers are exact. One for each answer that is combined, made by rows.ts.

import { PgError } from "../errors.ts";
import type { Combination } from "../parser/merging.ts";
import { dataRow } from "../wire/backend-messages.ts";
import { HEADER, readInt16, readInt32 } from "../wire/frame.ts";
import type { OutputColumn } from "./columns.ts";
import { comparing, isText, TypeOid, Unreadable } from "./compare.ts";
import { add, type Decimal, decimalOf, encoded } from "./decimal.ts";
import type { Lane } from "./lane.ts";
import { unmergeable } from "./order.ts";

/** One column; NULLs do not count, and of nothing else it is NULL. */
interface Combining {
	add(chunk: Buffer, start: number, end: number): void;
	/** Throws a PgError when there is none. */
	value(): Buffer | null;
}

export class CombinedRow {
	private readonly columns: readonly Combining[];
	/** How many rows have come. */
	private rows = 0;

	private constructor(columns: readonly Combining[]) {
		this.columns = columns;
	}

	/** @returns why values of these columns cannot be combined */
	static of(combined: readonly Combination[], columns: readonly OutputColumn[]): CombinedRow | PgError {
		if (combined.length !== columns.length) return WRONG;
		const found: Combining[] = [];
		for (const [i, combination] of combined.entries()) {
			const combining = combiningOf(combination, columns[i]!);
			if (combining === null)
				return unmergeable(`the aggregate "${columns[i]!.name}" of the type with OID ${columns[i]!.type}`);
			found.push(combining);
		}
		return new CombinedRow(found);
	}

	/** A shard's row, which its `head` ends. @returns why it cannot be */
	add({ chunk, at, head }: Lane): PgError | null {
		if (readInt16(chunk, at + HEADER) !== this.columns.length) return WRONG;
		this.rows++;
		let next = at + HEADER + 2;
		try {
			for (const column of this.columns) {
				const start = next + 4;
				const length = start <= head ? readInt32(chunk, next) : -1;
				next = length < 0 ? start : start + length;
				if (next > head) return WRONG;
				if (length >= 0) column.add(chunk, start, next);
			}
		} catch (error) {
			if (error instanceof Unreadable) return unmergeable(`an aggregate of ${error.message}`);
			throw error;
		}
		return null;
	}

	/** The row of all shards. @param shards which were to send one each */
	row(shards: number): Buffer | PgError {
		if (this.rows !== shards) return WRONG;
		try {
			return dataRow(this.columns.map((column) => column.value()));
		} catch (error) {
			if (error instanceof PgError) return error;
			throw error;
		}
	}
}

const WRONG = new PgError("ERROR", "58000", "a shard's answer to aggregates is not the row that it was to be");

function combiningOf(combination: Combination, { type, format }: OutputColumn): Combining | null {
	switch (combination) {
		case "sum":
			return type === TypeOid.Int8 || type === TypeOid.Numeric ? new Sum(type, format) : null;
		case "min":
		case "max":
			// Collations are not known here.
			return comparing(type, format) === null || isText(type) ? null : new Extreme(type, format, combination === "max");
		default:
			return type === TypeOid.Bool ? new Extreme(type, format, combination === "or") : null;
	}
}

class Sum implements Combining {
	private readonly type: number;
	private readonly format: number;
	private sum: Decimal | null = null;

	constructor(type: number, format: number) {
		this.type = type;
		this.format = format;
	}

	add(chunk: Buffer, start: number, end: number): void {
		const isBinary = this.format === 1;
		const value =
			isBinary && this.type === TypeOid.Int8
				? { kind: "number" as const, units: chunk.readBigInt64BE(start), scale: 0 }
				: decimalOf(chunk, start, end, isBinary);
		this.sum = this.sum === null ? value : add(this.sum, value);
	}

	value(): Buffer | null {
		const { sum, type, format } = this;
		if (sum === null) return null;
		if (type !== TypeOid.Int8) return encoded(sum, format === 1);
		if (BigInt.asIntN(64, sum.units) !== sum.units) throw new PgError("ERROR", "22003", "bigint out of range");
		if (format === 0) return Buffer.from(String(sum.units));
		const bytes = Buffer.alloc(8);
		bytes.writeBigInt64BE(sum.units);
		return bytes;
	}
}

/** The least value, or the largest. AND is the least of truth values, OR the largest. */
class Extreme implements Combining {
	private readonly compare;
	private readonly isLargest: boolean;
	private best: Buffer | null = null;

	constructor(type: number, format: number, isLargest: boolean) {
		this.compare = comparing(type, format)!;
		this.isLargest = isLargest;
	}

	add(chunk: Buffer, start: number, end: number): void {
		const value = Buffer.from(chunk.subarray(start, end));
		const { best } = this;
		if (best === null) this.best = value;
		else {
			const found = this.compare(value, 0, value.length, best, 0, best.length);
			if (this.isLargest ? found > 0 : found < 0) this.best = value;
		}
	}

	value(): Buffer | null {
		return this.best;
	}
}
