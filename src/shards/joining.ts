// What a statement that is to be run on several shards asks of all its rows: for planning.ts of a Query, for segments.ts of each Bind.
// The router has said that it can be done (parser/spread.ts); what the literals and parameters are is looked at here.

import type { RequestRouter } from "../client/request.ts";
import type { PgError } from "../errors.ts";
import type { Merging, RowCount } from "../parser/merging.ts";
import { Reading } from "../parser/reading.ts";
import { acrossShards } from "../router/refusals.ts";
import type { ClientStatements } from "../session/statements.ts";
import { Frontend } from "../wire/codes.ts";
import { endOfString, HEADER, readInt16, readInt32 } from "../wire/frame.ts";
import type { Joining } from "./rows.ts";

/** Values of a Bind. */
interface BoundValues {
	readonly chunk: Buffer;
	/** Where the format codes begin, behind the names. */
	readonly start: number;
	readonly end: number;
}

/**
 * What `merging` comes to.
 * @param values null for a Query, which has none
 * @param reading of the session that runs it
 */
export function joiningOf(
	merging: Merging,
	values: BoundValues | null,
	reading: Reading,
	shards: number,
): Joining | PgError {
	const limit = rowsOf(merging.limit, values, Number.POSITIVE_INFINITY);
	const offset = rowsOf(merging.offset, values, 0);
	if (limit < 0 || offset < 0) return acrossShards("LIMIT or OFFSET by a parameter that is no integer", shards);
	if (offset > 0) return acrossShards("OFFSET", shards);
	const isUtf8 = (reading & (Reading.Foreign | Reading.Folds | Reading.Changing)) === 0;
	return { merging, limit, offset, isUtf8, isLimited: false };
}

/** @param absent what it is without a number, or where that is NULL @returns -1 when it is not known */
function rowsOf(count: RowCount | null, values: BoundValues | null, absent: number): number {
	if (count === null) return absent;
	if (count.parameter === 0) return count.rows;
	return values === null ? -1 : parameterOf(count.parameter, values, absent);
}

/** Largest integer of four bytes that is taken for one: real numbers of any use are larger when their bytes are read so. */
const LARGEST = 1e9;

function parameterOf(number: number, { chunk, start, end }: BoundValues, absent: number): number {
	const formats = readInt16(chunk, start);
	let at = start + 2 + 2 * formats;
	const count = readInt16(chunk, at);
	if (number > count) return -1;
	at += 2;
	for (let i = 1; i < number && at + 4 <= end; i++) at += 4 + Math.max(0, readInt32(chunk, at));
	if (at + 4 > end) return -1;
	const length = readInt32(chunk, at);
	at += 4;
	if (length < 0) return absent;
	if (at + length > end) return -1;
	const format = formats === 0 ? 0 : readInt16(chunk, start + (formats === 1 ? 2 : 2 * number));
	if (format === 0) {
		const text = chunk.latin1Slice(at, at + length);
		return /^\d{1,15}$/.test(text) ? Number(text) : -1;
	}
	const value = length === 8 ? Number(chunk.readBigInt64BE(at)) : length === 4 ? chunk.readInt32BE(at) : -1;
	return value <= (length === 8 ? Number.MAX_SAFE_INTEGER : LARGEST) ? value : -1;
}

/**
 * What the Bind at `at`, which was routed last, asks of its rows.
 * @param from where its batch begins
 */
export function joiningOfBind(
	requests: RequestRouter,
	statements: ClientStatements,
	chunk: Buffer,
	from: number,
	at: number,
): Joining | PgError | null {
	const next = at + 1 + readInt32(chunk, at + 1);
	const { reading, router } = requests;
	const portalEnd = endOfString(chunk, at + HEADER, next);
	const nameEnd = endOfString(chunk, portalEnd + 1, next);
	const name = chunk.utf8Slice(portalEnd + 1, nameEnd);
	const sql = parsedText(chunk, from, at, name) ?? statements.anyTextOf(name);
	// A statement that was parsed when its session read otherwise may be another.
	const isCertain =
		sql !== null && isReadAlike(sql, reading.hasStale ? reading.ofNext | Reading.Changing : reading.ofNext);
	const mergings = isCertain ? router.statements.mergings(sql) : UNCERTAIN;
	if (typeof mergings === "string") return acrossShards(mergings, router.shards);
	const merging = mergings[0] ?? null;
	return merging === null
		? null
		: joiningOf(merging, { chunk, start: nameEnd + 1, end: next }, reading.ofNext, router.shards);
}

/** The text of the last Parse of this name before `end`, in a batch that begins at `at`; null when there is none. */
function parsedText(chunk: Buffer, at: number, end: number, name: string): string | null {
	let text: string | null = null;
	for (let next = at; at < end; at = next) {
		next = at + 1 + readInt32(chunk, at + 1);
		if (chunk[at] !== Frontend.Parse) continue;
		const nameEnd = endOfString(chunk, at + HEADER, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd >= 0 && chunk.utf8Slice(at + HEADER, nameEnd) === name) text = chunk.utf8Slice(nameEnd + 1, textEnd);
	}
	return text;
}

/**
 * Whether the session finds the statement in the text that is found here. A statement is under way, at least this one: what it does
 * can matter to a quote behind a backslash only.
 */
export function isReadAlike(text: string, reading: Reading): boolean {
	return PLAIN.test(text) || ((reading & ~Reading.Running) === Reading.Standard && !text.includes("\\'"));
}

/** Why nothing is known of a text that may be read otherwise. */
export const UNCERTAIN = "a text that settings of the session decide about";

/** ASCII without a backslash. */
const PLAIN = /^[\t-[\]-~]*$/;
