// A statement's text as the router wants it: facts, and the text itself where plugins are asked. Made for each Query and for each
// Parse, from the bytes and from how their session reads them; a Statement keeps it.

import type { Routed, Statement } from "../backend/statement.ts";
import { certainText, changesReading, Reading } from "../parser/reading.ts";
import { UNKNOWN_TYPES } from "../router/arguments.ts";
import type { Router } from "../router/router.ts";
import { readInt16, readInt32 } from "../wire/frame.ts";

/** The query text in `chunk[start, end)`. */
export function routedText(chunk: Buffer, start: number, end: number, router: Router, reading: Reading): Routed {
	// The same object for many texts, and none made.
	if (!router.asksPlugins && router.needsFacts) return router.statements.ofQuery(chunk, start, end, reading);
	const sql = router.asksPlugins ? certainText(chunk, start, end, reading) : "";
	return {
		facts: router.needsFacts ? router.statements.factsOfQuery(chunk, start, end, reading) : null,
		sql,
		escapes: (reading & Reading.Escapes) !== 0 && sql !== null && sql.includes("\\"),
		changes: changesReading(chunk, start, end),
		types: null,
	};
}

/** As `routedText`, of a Parse: the types of its parameters stand behind the text. */
export function routedParse(chunk: Buffer, start: number, end: number, router: Router, reading: Reading): Routed {
	const routed = routedText(chunk, start, end, router, reading);
	return routed.facts?.aim?.hasParameters ? { ...routed, types: declaredTypes(chunk, end + 1) } : routed;
}

/** The text of a statement that only the server knows: what types were declared with it is not kept. */
export function ownText(text: Buffer, router: Router, reading: Reading): Routed {
	const routed = routedText(text, 0, text.length, router, reading);
	return routed.facts?.aim?.hasParameters ? { ...routed, types: UNKNOWN_TYPES } : routed;
}

function declaredTypes(chunk: Buffer, at: number): readonly number[] {
	return Array.from({ length: readInt16(chunk, at) }, (_, i) => readInt32(chunk, at + 2 + 4 * i));
}

/** The text of a prepared statement: looked at once, not with each Bind; again when other functions are known to write. */
export function routedStatement(statement: Statement, router: Router, reading: Reading): Routed {
	const { rest, routing } = statement;
	if (reading !== Reading.Standard) return routedParse(rest, 0, rest.indexOf(0), router, reading);
	const { epoch } = router.statements;
	if (routing !== null && statement.routedIn === epoch && (routing.facts !== null || !router.needsFacts))
		return routing;
	return statement.routedAs(routedParse(rest, 0, rest.indexOf(0), router, reading), epoch);
}
