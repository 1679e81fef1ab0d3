// What PostgreSQL says of a prepared statement when it is asked to describe it: the types of its parameters and its result
// columns. A statement that is prepared anew must come out the same, or what its clients were told is no longer true.

import { endOfString, HEADER, readInt16, readInt32 } from "../wire/frame.ts";

/** OIDs from here on are of what users have made (FirstNormalObjectId): they differ between databases that are alike. */
const FIRST_OWN_OID = 16384;

/** A description on its way to another thread. */
export type MovingDescription = Pick<Description, "types" | "key" | "portable">;

export class Description {
	/** The end of a Parse message that asks for just these parameter types: their number and their OIDs. */
	readonly types: Buffer;
	/** Equal for equal descriptions: of parameter types; of the names, types and modifiers of columns. */
	readonly key: string;
	/** As `key`, but equal also in another database where the user's own types have other OIDs. */
	readonly portable: string;

	private constructor(types: Buffer, key: string, portable: string) {
		this.types = types;
		this.key = key;
		this.portable = portable;
	}

	/** As another thread had it. */
	static arrived({ types, key, portable }: MovingDescription): Description {
		return new Description(Buffer.from(types), key, portable);
	}

	/**
	 * @param parameters the ParameterDescription
	 * @param columns the RowDescription; null when there is no result, or none that PostgreSQL holds the statement to
	 */
	static of(parameters: Uint8Array, columns: Uint8Array | null): Description {
		const types = parameters.length < HEADER + 2 ? NO_TYPES : Buffer.from(parameters.subarray(HEADER));
		const shape = columns === null ? NO_COLUMNS : shapeOf(columns);
		return new Description(types, digest(types, shape.exact), digest(portableTypes(types), shape.portable));
	}
}

const NO_TYPES = Buffer.alloc(2);

interface Shape {
	readonly exact: Uint8Array;
	readonly portable: Uint8Array;
}

const NO_COLUMNS: Shape = { exact: Buffer.from("none"), portable: Buffer.from("none") };

/**
 * The result columns, as PostgreSQL compares those of a cached plan (`equalTupleDescs`, `equalRowTypes`): the tables that they
 * come from do not matter, nor do the format codes, which are 0 here anyway.
 */
function shapeOf(message: Uint8Array): Shape {
	const bytes = Buffer.from(message.buffer, message.byteOffset, message.length);
	const exact: Uint8Array[] = [];
	const portable: Uint8Array[] = [];
	let at = HEADER + 2;
	for (let left = readInt16(bytes, HEADER); left > 0; left--) {
		const end = endOfString(bytes, at, bytes.length);
		// The message is cut short: whatever was read so far, it is like no other.
		if (end < 0 || end + 1 + COLUMN > bytes.length) return { exact: bytes, portable: bytes };
		const name = bytes.subarray(at, end + 1);
		const type = bytes.subarray(end + 7, end + 11);
		const modifier = bytes.subarray(end + 13, end + 17);
		exact.push(name, type, modifier);
		portable.push(name, isOwn(bytes, end + 7) ? OWN : type, modifier);
		at = end + 1 + COLUMN;
	}
	return { exact: Buffer.concat(exact), portable: Buffer.concat(portable) };
}

/** Bytes behind a column's name: table, column, type, size, modifier, format. */
const COLUMN = 18;
const OWN = Buffer.alloc(4);

function portableTypes(types: Buffer): Buffer {
	const copy = Buffer.from(types);
	for (let at = 2; at + 4 <= copy.length; at += 4) if (isOwn(copy, at)) copy.fill(0, at, at + 4);
	return copy;
}

function isOwn(bytes: Buffer, at: number): boolean {
	return readInt32(bytes, at) >>> 0 >= FIRST_OWN_OID;
}

/** SHA-256: whoever names columns must not be able to make two different descriptions equal. */
function digest(types: Uint8Array, shape: Uint8Array): string {
	return new Bun.CryptoHasher("sha256").update(types).update(shape).digest("base64");
}
