// Statements of ours in the middle of a client's batch, whose own portals they leave alone: settings that a text is to be read by, and
// those that come back to what the client's StartupMessage asked for.

import { Reply } from "../backend/books.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import type { Statement } from "../backend/statement.ts";
import { Frontend } from "../wire/codes.ts";
import { HEADER } from "../wire/frame.ts";
import { BIND_OURS, CLOSE_OURS, EXECUTE_OURS, parse } from "../wire/frontend-messages.ts";

/** Runs a statement that returns no row. */
export function runOurs(server: Server, sql: string): void {
	bindOurs(server, sql);
	server.books.said(Reply.ExecuteOurs);
	executeOurs(server);
}

/** Asks for a setting that the constants of `statement` are read by. */
export function showOurs(server: Server, setting: string, statement: Statement): void {
	bindOurs(server, `SHOW ${setting}`);
	server.statements.noteShow(setting, statement);
	executeOurs(server);
}

function bindOurs({ books, statements, stream }: Server, sql: string): void {
	books.saidOf(Reply.ParseOurs, null);
	books.said(Reply.BindOurs);
	statements.dropUnnamed();
	stream.out.addAll(parse("", Buffer.from(`${sql}\0\0\0`)));
	stream.out.addAll(BIND_OURS);
}

function executeOurs({ statements, stream }: Server): void {
	stream.out.addAll(EXECUTE_OURS);
	statements.noteClose(null);
	stream.out.addAll(CLOSE_OURS);
}

/**
 * A statement that gives settings their default has been run in the batch under way: the message at `at` is to find them as the
 * client's StartupMessage asked for.
 */
export function bringBack(server: Server, startup: ParameterSet, chunk: Buffer, at: number): void {
	const { restoring } = server.session;
	if (restoring === null) return;
	if (chunk[at] === Frontend.Parse) restoring.noteModes(choosesModes(chunk, at + HEADER));
	else if (chunk[at] === Frontend.Bind && isNamed(chunk, at + HEADER)) restoring.noteModes(false);
	// What finds them is a query, and behind one a transaction's modes are fixed.
	if (restoring.choosesModes) return;
	for (const sql of restoring.within(startup)) runOurs(server, sql);
}

/** The Bind whose portal's name begins at `start` binds a statement that has a name. */
function isNamed(chunk: Buffer, start: number): boolean {
	return chunk[chunk.indexOf(0, start) + 1] !== 0;
}

/** An unnamed Parse begins a transaction or chooses its modes: such a statement looks at no settings that a session has. */
function choosesModes(chunk: Buffer, nameStart: number): boolean {
	const start = nameStart + 1;
	return chunk[nameStart] === 0 && MODES.test(chunk.latin1Slice(start, Math.min(start + MODES_LENGTH, chunk.length)));
}

const MODES = /^\s*(?:begin|start\s+transaction|set\s+transaction)\b/i;
/** Bytes at the beginning of a text that are looked at. */
const MODES_LENGTH = 64;
