// The rows of one answer of several shards that are to be one answer's: in one order, and no more of them than was asked for. What a
// statement asks is in its `Joining`, made by planning.ts and segments.ts; Merge has one of these while the answer is under way.

import type { PgError } from "../errors.ts";
import type { Merging } from "../parser/merging.ts";
import { outputColumns } from "./columns.ts";
import { CombinedRow } from "./combine.ts";
import type { Lane } from "./lane.ts";
import { RowOrder, unmergeable } from "./order.ts";

/** What a statement that is run asks of its rows. */
export interface Joining {
	readonly merging: Merging;
	/** Of all rows so many go on, behind so many that do not. */
	readonly limit: number;
	readonly offset: number;
	/** The bytes of texts are those that the servers compare. */
	readonly isUtf8: boolean;
	/** No more than some rows are wanted now: the others would have to wait for the next Execute. */
	readonly isLimited: boolean;
}

/** What is to be done with the answers of a step. */
export interface Joinings {
	/** By the number of the statement that is run; null: its rows pass as they come. */
	readonly each: readonly (Joining | null)[];
	/**
	 * Replies that are for us and not for the client, by their number: what describes the portal that is run next. Null: each
	 * RowDescription is of the statement that is run, and the client's.
	 */
	readonly hidden: readonly number[] | null;
}

export class MergedRows {
	/** Null: in any order. */
	readonly order: RowOrder | null;
	/** What aggregates of all shards come to, where they are asked for. */
	readonly combined: CombinedRow | null;
	private skip: number;
	private left: number;
	/** How many have gone on. */
	passed = 0;

	private constructor(order: RowOrder | null, combined: CombinedRow | null, { limit, offset }: Joining) {
		this.order = order;
		this.combined = combined;
		this.skip = offset;
		this.left = limit;
	}

	/**
	 * @param lane whose message is RowDescription
	 * @param count of shards
	 * @returns why it cannot be done
	 */
	static of(joining: Joining, { chunk, at, head }: Lane, count: number): MergedRows | PgError {
		const { merging, isUtf8, isLimited } = joining;
		if (isLimited) return unmergeable("Execute with a limit to its rows, where all of them are asked something,");
		if (merging.combined !== null) {
			const combined = CombinedRow.of(merging.combined, outputColumns(chunk, at, head));
			return combined instanceof CombinedRow ? new MergedRows(null, combined, joining) : combined;
		}
		if (merging.order.length === 0) return new MergedRows(null, null, joining);
		const order = RowOrder.of(merging, outputColumns(chunk, at, head), count, isUtf8);
		return order instanceof RowOrder ? new MergedRows(order, null, joining) : order;
	}

	/** Another shard's columns, which the lane's message tells, compare as those of the first. */
	fits({ chunk, at, head }: Lane, first: Lane): boolean {
		if (this.combined !== null) {
			const columns = outputColumns(chunk, at, head);
			const others = outputColumns(first.chunk, first.at, first.head);
			return columns.length === others.length && columns.every(({ type }, i) => type === others[i]!.type);
		}
		return this.order === null || this.order.fits(outputColumns(chunk, at, head));
	}

	/** No row goes on any more. */
	get isFull(): boolean {
		return this.left === 0;
	}

	/** Another row has come. @returns whether it goes on */
	takes(): boolean {
		if (this.skip > 0) {
			this.skip--;
			return false;
		}
		if (this.left === 0) return false;
		this.left--;
		this.passed++;
		return true;
	}
}
