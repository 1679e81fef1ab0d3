// A statement's text as the router wants it: facts, and the text itself where plugins are asked. Made for each Query and for each
// Parse, from the bytes and from how their session reads them; a Statement keeps it.

import type { Routed, Statement } from "../backend/statement.ts";
import { certainText, changesReading, Reading } from "../parser/reading.ts";
import type { Router } from "../router/router.ts";

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
	};
}

/** The text of a prepared statement: looked at once, not with each Bind; again when other functions are known to write. */
export function routedStatement(statement: Statement, router: Router, reading: Reading): Routed {
	const { rest, routing } = statement;
	if (reading !== Reading.Standard) return routedText(rest, 0, rest.indexOf(0), router, reading);
	const { epoch } = router.statements;
	if (routing !== null && statement.routedIn === epoch && (routing.facts !== null || !router.needsFacts))
		return routing;
	return statement.routedAs(routedText(rest, 0, rest.indexOf(0), router, reading), epoch);
}
