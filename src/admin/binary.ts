// Values of admin answers in the binary format, for drivers that ask for it (Bun.sql, pgx, Npgsql). An answer holds text, as
// the simple protocol wants it; this turns single values over. Layouts: the `…send` functions of PostgreSQL's types.

import { Oid } from "../wire/backend-messages.ts";

/** The value in its type's binary format. @param text what `rowsOf` (command.ts) makes of a value of this type */
export function binary(oid: Oid, text: string): Uint8Array {
	switch (oid) {
		case Oid.bool:
			return Uint8Array.of(text === "t" ? 1 : 0);
		case Oid.int4: {
			const out = Buffer.alloc(4);
			out.writeInt32BE(Number(text));
			return out;
		}
		case Oid.int8: {
			const out = Buffer.alloc(8);
			out.writeBigInt64BE(BigInt(text));
			return out;
		}
		case Oid.float8: {
			const out = Buffer.alloc(8);
			out.writeDoubleBE(Number(text));
			return out;
		}
		default:
			return Buffer.from(text);
	}
}
