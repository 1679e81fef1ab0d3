// The columns that a RowDescription tells of, as far as merging rows needs to know them.

import { endOfString, HEADER, readInt16, readInt32 } from "../wire/frame.ts";

export interface OutputColumn {
	readonly name: string;
	/** OID and number of the table's column that it is; 0: it is none. */
	readonly table: number;
	readonly attribute: number;
	readonly type: number;
	/** 0 is text, 1 is binary. */
	readonly format: number;
}

/** PostgreSQL docs, "Message Formats", RowDescription. @param end of the message */
export function outputColumns(chunk: Buffer, at: number, end: number): OutputColumn[] {
	const columns: OutputColumn[] = [];
	let next = at + HEADER + 2;
	for (let left = readInt16(chunk, at + HEADER); left > 0; left--) {
		const stop = endOfString(chunk, next, end);
		if (stop < 0 || stop + 19 > end) return [];
		columns.push({
			name: chunk.utf8Slice(next, stop),
			table: readInt32(chunk, stop + 1) >>> 0,
			attribute: readInt16(chunk, stop + 5),
			type: readInt32(chunk, stop + 7) >>> 0,
			format: readInt16(chunk, stop + 17),
		});
		next = stop + 19;
	}
	return columns;
}
