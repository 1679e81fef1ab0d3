// A batch of the extended query protocol that runs one statement and ends in Sync: what drivers send for BEGIN, COMMIT and
// SET. Where the proxy answers such a statement itself (session/held-begin.ts) it answers each of the messages. Called by routing.ts.

import type { OwnAnswer } from "../session/held-begin.ts";
import type { ClientStatements } from "../session/statements.ts";
import {
	BIND_COMPLETE,
	CLOSE_COMPLETE,
	commandComplete,
	dataRow,
	NO_DATA,
	NO_PARAMETERS,
	PARSE_COMPLETE,
	readyForQuery,
	rowDescription,
} from "../wire/backend-messages.ts";
import { Frontend, Target, type TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { endOfMessage, endOfString, HEADER, readInt16, readInt32 } from "../wire/frame.ts";

/**
 * Where the batch that begins at `at` ends, behind its Sync: Parse or not, Bind without parameters, Describe or not, Execute.
 * -1 when it is anything else, not whole, or something that PostgreSQL would find fault with.
 * @param first of a batch that has more: then it ends where the next statement begins
 */
export function endOfSolo(chunk: Buffer, at: number, statements: ClientStatements, first = false): number {
	const { length } = chunk;
	let parsed: string | null = null;
	let bound: string | null = null;
	let portal = "";
	let executed = false;
	while (length - at >= HEADER) {
		const next = endOfMessage(chunk, at);
		if (next < 0) return -1;
		const start = at + HEADER;
		switch (chunk[at]) {
			case Frontend.Sync:
				return executed && !first ? next : -1;
			case Frontend.Parse: {
				if (executed && first) return at;
				const nameEnd = endOfString(chunk, start, next);
				const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
				if (parsed !== null || bound !== null || textEnd < 0 || next - textEnd !== 3) return -1;
				parsed = chunk.utf8Slice(start, nameEnd);
				if (parsed !== "" && !statements.mayDeclare(parsed)) return -1;
				break;
			}
			case Frontend.Bind: {
				if (executed && first) return at;
				const portalEnd = endOfString(chunk, start, next);
				const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, next);
				if (bound !== null || nameEnd < 0 || !isPlainBind(chunk, nameEnd + 1, next)) return -1;
				portal = chunk.utf8Slice(start, portalEnd);
				bound = chunk.utf8Slice(portalEnd + 1, nameEnd);
				if (parsed === null ? statements.textOf(bound) === null : parsed !== bound) return -1;
				break;
			}
			case Frontend.Describe: {
				const nameEnd = endOfString(chunk, start + 1, next);
				const name = nameEnd < 0 ? null : chunk.utf8Slice(start + 1, nameEnd);
				const known = chunk[start] === Target.Statement ? (bound ?? parsed) : bound === null ? null : portal;
				if (executed || name === null || name !== known) return -1;
				break;
			}
			case Frontend.Execute: {
				const nameEnd = endOfString(chunk, start, next);
				if (executed || bound === null || nameEnd < 0 || chunk.utf8Slice(start, nameEnd) !== portal) return -1;
				if (next - nameEnd !== 5) return -1;
				executed = true;
				break;
			}
			case Frontend.Close:
				if (!executed || endOfString(chunk, start + 1, next) !== next - 1) return -1;
				if (chunk[start] !== Target.Statement && chunk[start] !== Target.Portal) return -1;
				break;
			default:
				return -1;
		}
		at = next;
	}
	return -1;
}

/** No parameters, and formats of a result that has one column at most; `at` is behind the names. */
function isPlainBind(chunk: Buffer, at: number, next: number): boolean {
	if (next - at < 6) return false;
	const formats = readInt16(chunk, at);
	if (formats !== 0 || readInt16(chunk, at + 2) !== 0) return false;
	const results = readInt16(chunk, at + 4);
	if ((results !== 0 && results !== 1) || next - at !== 6 + 2 * results) return false;
	const format = results === 0 ? 0 : readInt16(chunk, at + 6);
	return format === 0 || format === 1;
}

/** The answers to a Query. */
export function answerQuery(said: OwnAnswer, status: TxStatus): Buffer {
	const answers: Buffer[] = [];
	if (said.error !== null) answers.push(errorResponse(said.error, "stays"));
	else {
		if (said.row !== null) answers.push(rowDescription([{ name: said.row.column }]), dataRow([said.row.value]));
		answers.push(commandComplete(said.tag));
	}
	answers.push(readyForQuery(status));
	return Buffer.concat(answers);
}

/** The answers to the messages `[at, end)`, which `endOfSolo` has found. */
export function answerBatch(said: OwnAnswer, chunk: Buffer, at: number, end: number, status: TxStatus): Buffer {
	const answers: Buffer[] = [];
	const { row, error, tag } = said;
	let formats: number[] = [];
	for (let next = at; at < end; at = next) {
		next = at + 1 + readInt32(chunk, at + 1);
		switch (chunk[at]) {
			case Frontend.Parse:
				answers.push(PARSE_COMPLETE);
				break;
			case Frontend.Bind:
				formats = resultFormats(chunk, at, next);
				answers.push(BIND_COMPLETE);
				break;
			case Frontend.Describe: {
				const statement = chunk[at + HEADER] === Target.Statement;
				if (statement) answers.push(NO_PARAMETERS);
				answers.push(row === null ? NO_DATA : rowDescription([{ name: row.column }], statement ? [] : formats));
				break;
			}
			case Frontend.Execute:
				if (error !== null) {
					// The rest of the batch is skipped.
					answers.push(errorResponse(error, "stays"));
					answers.push(readyForQuery(status));
					return Buffer.concat(answers);
				}
				if (row !== null) answers.push(dataRow([row.value]));
				answers.push(commandComplete(tag));
				break;
			case Frontend.Close:
				answers.push(CLOSE_COMPLETE);
				break;
			case Frontend.Sync:
				answers.push(readyForQuery(status));
		}
	}
	return Buffer.concat(answers);
}

/** The result formats of a Bind that `endOfSolo` has let pass. */
function resultFormats(chunk: Buffer, at: number, next: number): number[] {
	const nameEnd = endOfString(chunk, endOfString(chunk, at + HEADER, next) + 1, next);
	return readInt16(chunk, nameEnd + 5) === 0 ? [] : [readInt16(chunk, nameEnd + 7)];
}
