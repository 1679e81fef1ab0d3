// The cure for what a client left on a server, as one simple query; what cannot be cured closes the server.

import { Dirty } from "../parser/session.ts";

/** @param dirty bits of `Dirty` @returns SQL, "" when there is nothing to do; null: nothing but a new connection helps */
export function cleaning(dirty: number): string | null {
	if ((dirty & Dirty.Beyond) !== 0) return null;
	const sql: string[] = [];
	if ((dirty & Dirty.HoldCursor) !== 0) sql.push("CLOSE ALL");
	if ((dirty & Dirty.Settings) !== 0) sql.push("RESET SESSION AUTHORIZATION", "RESET ROLE", "RESET ALL");
	if ((dirty & Dirty.Prepared) !== 0) sql.push("DEALLOCATE ALL");
	if ((dirty & Dirty.Listen) !== 0) sql.push("UNLISTEN *");
	if ((dirty & Dirty.AdvisoryLock) !== 0) sql.push("SELECT pg_catalog.pg_advisory_unlock_all()");
	if ((dirty & Dirty.Temporary) !== 0) sql.push("DISCARD TEMP");
	return sql.join("; ");
}
