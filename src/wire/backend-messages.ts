// Messages that we send in a server's place: to clients at login, for admin answers, for errors of our own.
// Layouts: PostgreSQL docs, "Message Formats".

import { Auth, Backend, StartupCode, TxStatus } from "./codes.ts";
import { Writer } from "./writer.ts";

const w = () => new Writer();

export const PARSE_COMPLETE = Buffer.from([Backend.ParseComplete, 0, 0, 0, 4]);
export const BIND_COMPLETE = Buffer.from([Backend.BindComplete, 0, 0, 0, 4]);
export const NO_DATA = Buffer.from([Backend.NoData, 0, 0, 0, 4]);
export const PORTAL_SUSPENDED = Buffer.from([Backend.PortalSuspended, 0, 0, 0, 4]);
/** A ParameterDescription of no parameters. */
export const NO_PARAMETERS = Buffer.from([Backend.ParameterDescription, 0, 0, 0, 6, 0, 0]);
export const CLOSE_COMPLETE = Buffer.from([Backend.CloseComplete, 0, 0, 0, 4]);
export const EMPTY_QUERY_RESPONSE = Buffer.from([Backend.EmptyQueryResponse, 0, 0, 0, 4]);
export const AUTHENTICATION_OK = Buffer.from([Backend.Authentication, 0, 0, 0, 8, 0, 0, 0, Auth.Ok]);
export const READY_IDLE = ready(TxStatus.Idle);

const READY_IN_BLOCK = ready(TxStatus.InBlock);
const READY_FAILED = ready(TxStatus.Failed);

function ready(status: TxStatus): Buffer {
	return Buffer.from([Backend.ReadyForQuery, 0, 0, 0, 5, status]);
}

export function readyForQuery(status: TxStatus): Buffer {
	if (status === TxStatus.Idle) return READY_IDLE;
	return status === TxStatus.InBlock ? READY_IN_BLOCK : READY_FAILED;
}

export function authentication(kind: Auth, body?: Uint8Array): Buffer {
	const out = w().begin(Backend.Authentication).int32(kind);
	if (body !== undefined) out.raw(body);
	return out.end().bytes();
}

export function parameterStatus(name: string, value: string): Buffer {
	return w().begin(Backend.ParameterStatus).string(name).string(value).end().bytes();
}

/** A ParameterStatus for each. */
export function parameterStatuses(values: ReadonlyMap<string, string>): Buffer {
	const out = new Writer(1024);
	for (const [name, value] of values) out.begin(Backend.ParameterStatus).string(name).string(value).end();
	return out.bytes();
}

/** `secret` is 4 bytes in protocol 3.0 and up to 256 in 3.2. */
export function backendKeyData(pid: number, secret: Uint8Array): Buffer {
	return w().begin(Backend.BackendKeyData).int32(pid).raw(secret).end().bytes();
}

/**
 * The newest version that we speak (3.`minor`) and the protocol options (`_pq_.…`) that we do not know. The manual
 * calls the number the minor version; PostgreSQL sends, and libpq expects, the whole one (SendNegotiateProtocolVersion).
 */
export function negotiateProtocolVersion(minor: number, options: readonly string[]): Buffer {
	const version = StartupCode.Protocol30 + minor;
	const out = w().begin(Backend.NegotiateProtocolVersion).int32(version).int32(options.length);
	for (const option of options) out.string(option);
	return out.end().bytes();
}

export function commandComplete(tag: string): Buffer {
	return w().begin(Backend.CommandComplete).string(tag).end().bytes();
}

/** Type OIDs of answers that we make ourselves. */
export const enum Oid {
	bool = 16,
	int8 = 20,
	int4 = 23,
	text = 25,
	float8 = 701,
}

export interface Column {
	readonly name: string;
	readonly oid?: Oid;
}

const TYPE_SIZE: Readonly<Record<number, number>> = { [Oid.bool]: 1, [Oid.int8]: 8, [Oid.int4]: 4, [Oid.float8]: 8 };

/**
 * RowDescription of columns that belong to no table.
 * @param formats format codes: none (all text), one for all, or one for each column
 */
export function rowDescription(columns: readonly Column[], formats: readonly number[] = []): Buffer {
	const out = w().begin(Backend.RowDescription).int16(columns.length);
	for (const [i, column] of columns.entries()) {
		const oid = column.oid ?? Oid.text;
		out.string(column.name).int32(0).int16(0).int32(oid);
		out
			.int16(TYPE_SIZE[oid] ?? -1)
			.int32(-1)
			.int16(formatOf(formats, i));
	}
	return out.end().bytes();
}

/** The format code of column `i`, as PostgreSQL docs, "Message Formats", Bind has it. */
export function formatOf(formats: readonly number[], i: number): number {
	return (formats.length === 1 ? formats[0] : formats[i]) ?? 0;
}

/** DataRow: null is SQL NULL; a string is its text; bytes are sent as they are (the binary format). */
export function dataRow(values: readonly (string | Uint8Array | null)[]): Buffer {
	const out = w().begin(Backend.DataRow).int16(values.length);
	for (const value of values) {
		if (value === null) out.int32(-1);
		else {
			const bytes = typeof value === "string" ? Buffer.from(value) : value;
			out.int32(bytes.length).raw(bytes);
		}
	}
	return out.end().bytes();
}
