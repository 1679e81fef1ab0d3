// Messages of several shards that are to be one, for Merge (merge.ts): which of them go together, and what they come to.

import { PgError } from "../errors.ts";
import { Backend, TxStatus } from "../wire/codes.ts";
import { errorResponse, readSqlstate, withDetail } from "../wire/error-response.ts";
import { HEADER, readInt16, readInt32 } from "../wire/frame.ts";
import type { Lane } from "./lane.ts";

/** COPY in binary format: bytes of the signature, the flags and the length of the header's extension. */
export const SIGNATURE = 19;
export const TRAILER = copyData(Buffer.from([0xff, 0xff]));
export const DISAGREE = errorResponse(
	new PgError("ERROR", "58000", "the shards gave answers of different kinds"),
	"stays",
);

export function copyData(...parts: Buffer[]): Buffer {
	const message = Buffer.concat([Buffer.alloc(HEADER), ...parts]);
	message[0] = Backend.CopyData;
	message.writeInt32BE(message.length - 1, 1);
	return message;
}

export function isTrailer(chunk: Buffer, start: number, end: number): boolean {
	return end - start === 2 && readInt16(chunk, start) === 0xffff;
}

/** Whether a NoticeResponse says that there is a transaction already, or is none: that goes for all shards. */
export function isOfTransaction({ chunk, at, head }: Lane): boolean {
	const sqlstate = readSqlstate(chunk, at, head);
	return sqlstate === "25001" || sqlstate === "25P01";
}

/** Whether a message is what answers one Parse, Bind, Describe, Execute or Close. */
export function isAnswer(code: number): boolean {
	switch (code) {
		case Backend.ParseComplete:
		case Backend.BindComplete:
		case Backend.CloseComplete:
		case Backend.RowDescription:
		case Backend.NoData:
		case Backend.CommandComplete:
		case Backend.EmptyQueryResponse:
		case Backend.PortalSuspended:
			return true;
		default:
			return false;
	}
}

/** Whether two shards say the same, as far as their rows fit under one description. A portal may end on one shard only. */
export function alike(a: Lane, b: Lane): boolean {
	if (a.code !== b.code) return isEndOfRows(a.code) && isEndOfRows(b.code);
	const counted = a.code === Backend.RowDescription || a.code === Backend.ParameterDescription;
	return !counted || readInt16(a.chunk, a.at + HEADER) === readInt16(b.chunk, b.at + HEADER);
}

/** As `alike`, of all that comes before the rows of two whole answers. Of others' columns names may be longer: then it says no, too. */
export function headsAlike(a: Lane, b: Lane): boolean {
	if (a.rows !== b.rows) return false;
	for (let at = 0; at < a.rows; at += 1 + readInt32(a.chunk, at + 1)) {
		const code = a.chunk[at];
		const counted = code === Backend.RowDescription || code === Backend.ParameterDescription;
		const compared = at + HEADER + (counted ? 2 : 0);
		for (let i = at; i < compared; i++) if (a.chunk[i] !== b.chunk[i]) return false;
	}
	return true;
}

function isEndOfRows(code: number): boolean {
	return code === Backend.CommandComplete || code === Backend.PortalSuspended;
}

/** The status of a transaction that these shards have. */
export function worst(lanes: readonly Lane[]): TxStatus {
	let status = TxStatus.Idle;
	for (const lane of lanes) {
		if (lane.status === TxStatus.Failed) return TxStatus.Failed;
		if (lane.status === TxStatus.InBlock) status = TxStatus.InBlock;
	}
	return status;
}

/**
 * CommandComplete for all shards that are not over, whose messages are CommandComplete. `SELECT 3` and `SELECT 4` are `SELECT 7`; of
 * tags without a count the first shard's, or ROLLBACK where one could not COMMIT.
 */
export function sumOfTags(lanes: readonly Lane[]): Buffer {
	let first: Lane | null = null;
	let count = 0;
	let sum = 0;
	for (const lane of lanes) {
		if (lane.over) continue;
		const start = startOfCount(lane);
		if (first === null) {
			first = lane;
			count = start;
		} else if (count === 0 && isRollback(lane)) return lane.message;
		if (count > 0 && start > 0) {
			let rows = 0;
			for (let i = start; i < lane.head - 1; i++) rows = 10 * rows + lane.chunk[i]! - 0x30;
			sum += rows;
		}
	}
	if (count === 0) return first!.message;
	const { chunk, at } = first!;
	const digits = String(sum);
	const end = count - at + digits.length;
	const message = Buffer.allocUnsafe(end + 1);
	for (let i = 0; i < count - at; i++) message[i] = chunk[at + i]!;
	for (let i = 0; i < digits.length; i++) message[count - at + i] = digits.charCodeAt(i);
	message[end] = 0;
	// A tag is short: its length is in the last two bytes of the word.
	message[3] = end >> 8;
	message[4] = end;
	return message;
}

/** Which shards have committed, of those that were to; "" when none has, or it is no COMMIT. */
export function committedText(lanes: readonly Lane[]): string {
	const done: number[] = [];
	for (const lane of lanes) {
		if (lane.head === 0 || lane.code !== Backend.CommandComplete) continue;
		if (lane.chunk.latin1Slice(lane.at + HEADER, lane.head - 1) === "COMMIT") done.push(lane.shard);
	}
	if (done.length === 0) return "";
	return done.length === 1 ? `Shard ${done[0]} has committed.` : `Shards ${done.join(", ")} have committed.`;
}

/** An ErrorResponse, with that as its detail. */
export function withCommits(error: Buffer, committed: string): Buffer {
	return committed === "" ? error : withDetail(error, 0, error.length, committed);
}

function isRollback({ chunk, at, head }: Lane): boolean {
	return chunk[at + HEADER] === 0x52 && chunk.latin1Slice(at + HEADER, head - 1) === "ROLLBACK";
}

/** Where the digits are that the tag of a CommandComplete ends in, behind a space; 0 when it has none. */
function startOfCount({ chunk, at, head }: Lane): number {
	let start = head - 1;
	while (start > at + HEADER && chunk[start - 1]! >= 0x30 && chunk[start - 1]! <= 0x39) start--;
	return start < head - 1 && start > at + HEADER && chunk[start - 1] === 0x20 ? start : 0;
}
