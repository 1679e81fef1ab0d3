// The parameters of a Bind as keys: read where they lie, one after another. The router has one, and looks into a message with it when
// a statement's keys are parameters. PostgreSQL docs, "Message Formats", Bind.

import { type Arguments, elementsOf, elementType, fitsBinary, fitsText, type Source } from "../parser/sources.ts";
import { At, type KeyColumn } from "../parser/tables.ts";
import { readInt16, readInt32 } from "../wire/frame.ts";

/** Whose parameters they are (`RouteRequest`). */
interface Bound {
	readonly bind: Uint8Array | null;
	readonly bindStart: number;
	readonly bindEnd: number;
	/** Types of the parameters, as their Parse declared them; null: it declared none. */
	readonly types: ParameterTypes | null;
	/** What is beyond ASCII is not in UTF-8, or may not be. */
	readonly isForeign: boolean;
}

/** Oids, 0 for a type that PostgreSQL works out. */
export type ParameterTypes = readonly number[];

/** The types are not known: what is in binary format may be of any. */
export const UNKNOWN_TYPES: ParameterTypes = [-1];

const TEXT = 0;

export class BindArguments implements Arguments {
	private bound: Bound | null = null;
	private bytes: Buffer = NOTHING;
	/** The parameter that was found last, from 1, and its value; `length` is -1 for NULL. */
	private last = 0;
	private at = 0;
	private length = 0;
	private isBinary = false;
	private formats = 0;
	private count = 0;

	/** @returns null: there is no Bind */
	of(bound: Bound): BindArguments | null {
		const { bind, bindStart } = bound;
		if (bind === null) return null;
		this.bound = bound;
		this.bytes = bind as Buffer;
		this.formats = readInt16(bind, bindStart);
		const values = bindStart + 2 + 2 * this.formats;
		this.count = values + 2 <= bound.bindEnd ? readInt16(bind, values) : 0;
		this.rewind();
		return this;
	}

	/** The message belongs to its chunk, which must not outlive the call for our sake. */
	clear(): void {
		this.bound = null;
		this.bytes = NOTHING;
	}

	shardOf(source: Source, column: KeyColumn, isNew: boolean): number {
		if (!this.find(source.parameter)) return At.Unplaced;
		const { bytes, at, length, isBinary } = this;
		if (length < 0) return At.Null;
		if (!this.isKnown(source, column, this.typeOf(source))) return At.Unplaced;
		if (column.dataType === "varchar" && this.isForeign(at, at + length)) return At.Unplaced;
		let shard: number | null;
		if (isBinary)
			shard = isNew ? column.homeOfBinary(bytes, at, at + length) : column.shardOfBinary(bytes, at, at + length);
		else {
			const text = bytes.utf8Slice(at, at + length);
			shard = isNew ? column.homeOfText(text) : column.shardOfText(text);
		}
		return shard ?? At.Unplaced;
	}

	elements(source: Source, column: KeyColumn): readonly number[] | null {
		if (!this.find(source.parameter)) return null;
		if (this.length < 0) return [];
		const declared = this.typeOf(source);
		const type = declared <= 0 ? declared : elementType(declared);
		if (!this.isKnown(source, column, type === -1 && declared !== -1 ? -2 : type)) return null;
		if (column.dataType === "varchar" && this.isForeign(this.at, this.at + this.length)) return null;
		if (this.isBinary) return this.binaryElements(column);
		return elementsOf(this.bytes.utf8Slice(this.at, this.at + this.length), column);
	}

	/** PostgreSQL's `array_send`: dimensions, a flag, the elements' type, two numbers for each dimension, the elements. */
	private binaryElements(column: KeyColumn): readonly number[] | null {
		const { bytes, at, length } = this;
		const end = at + length;
		if (length < 12) return null;
		const dimensions = readInt32(bytes, at);
		if (dimensions === 0) return [];
		if (dimensions !== 1 || length < 20 || !fitsBinary(column, readInt32(bytes, at + 8))) return null;
		const shards: number[] = [];
		let next = at + 20;
		for (let left = readInt32(bytes, at + 12); left > 0; left--) {
			const size = next + 4 <= end ? readInt32(bytes, next) : end;
			next += 4;
			if (size < 0) continue;
			if (next + size > end) return null;
			shards.push(column.shardOfBinary(bytes, next, next + size) ?? At.All);
			next += size;
		}
		return shards;
	}

	/** The type that was declared; 0: PostgreSQL works it out; -1: it is not known. */
	private typeOf({ parameter }: Source): number {
		const { types } = this.bound!;
		if (types === null) return 0;
		return types === UNKNOWN_TYPES ? -1 : (types[parameter - 1] ?? 0);
	}

	/** Whether the value is compared with the column as what it seems to be. */
	private isKnown({ cast, isShared }: Source, column: KeyColumn, type: number): boolean {
		if (!fitsText(column, cast)) return false;
		// What is char(n) elsewhere is compared without its blanks here, too.
		if (!this.isBinary && type === 0) return !isShared || column.dataType !== "varchar";
		if (!this.isBinary) return type === -1 || fitsText(column, type);
		if (type === -1 || (type === 0 && isShared)) return false;
		return fitsBinary(column, type) && (type !== 0 || fitsBinary(column, cast));
	}

	private isForeign(start: number, end: number): boolean {
		if (!this.bound!.isForeign) return false;
		for (let i = start; i < end; i++) if (this.bytes[i]! >= 128) return true;
		return false;
	}

	private rewind(): void {
		const { bindStart } = this.bound!;
		this.last = 0;
		this.at = bindStart + 4 + 2 * this.formats;
		this.length = 0;
	}

	/** Finds a value, going on from the one before it. @returns false: there is none, or the message contradicts itself */
	private find(parameter: number): boolean {
		if (parameter > this.count) return false;
		if (parameter < this.last) this.rewind();
		const { bytes } = this;
		const { bindStart, bindEnd } = this.bound!;
		while (this.last < parameter) {
			const next = this.at + Math.max(0, this.length);
			if (next + 4 > bindEnd) return false;
			this.length = readInt32(bytes, next);
			this.at = next + 4;
			this.last++;
			if (this.length > bindEnd - this.at) return false;
		}
		const { formats } = this;
		const format = formats === 0 ? TEXT : readInt16(bytes, bindStart + 2 + (formats === 1 ? 0 : 2 * (parameter - 1)));
		this.isBinary = format !== TEXT;
		return formats <= 1 || parameter <= formats;
	}
}

const NOTHING = Buffer.alloc(0);
