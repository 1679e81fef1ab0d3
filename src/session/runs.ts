// A statement that is about to be run: what that does, as the books and the session of its server have to know it.

import type { Server } from "../backend/server.ts";
import type { SessionFacts } from "../parser/session.ts";
import { readInt16, readInt32 } from "../wire/frame.ts";

/** A statement is about to be run: what that does to statements on the server, and to its transaction. */
export function noteRun({ books }: Server, facts: SessionFacts): void {
	if (facts.deallocatesAll) books.deallocatesAll();
	if (facts.commits) books.commits();
}

/**
 * A Bind has a statement run: its parameters may be names of settings that set_config gives a value.
 * @param at behind the Bind's two names
 * @param stop where as much of the Bind ends as is here
 */
export function noteBound(server: Server, facts: SessionFacts, chunk: Buffer, at: number, stop: number): void {
	noteRun(server, facts);
	if (facts.parameterSets.length === 0 || server.session.locked) return;
	const named = new Set(facts.parameterSets);
	// Format codes do not matter: a text is the same bytes in both formats.
	let next = at + 2 + 2 * readInt16(chunk, at);
	const count = readInt16(chunk, next);
	next += 2;
	for (let parameter = 1; parameter <= count && next + 4 <= stop; parameter++) {
		const length = readInt32(chunk, next);
		next += 4;
		if (length < 0) continue;
		if (named.has(parameter) && next + length <= stop)
			server.session.traces.noteSets([chunk.utf8Slice(next, next + length).toLowerCase()]);
		next += length;
	}
	// A large Bind whose names have not come yet.
	if (next <= stop) return;
	server.session.traces.noteUnknown();
}
