// What each text does to a session, for those texts that need a closer look: remembered by text, for all clients of a worker.

import { LRUCache } from "lru-cache";
import { NO_FACTS, type SessionFacts, sessionFacts } from "./session.ts";
import { touchesSession } from "./touches.ts";

export type FactsCache = LRUCache<string, SessionFacts>;

/** The facts of texts are small; the texts themselves are bounded by their bytes. */
export function createFactsCache(): FactsCache {
	return new LRUCache({ maxSize: 4 << 20, maxEntrySize: 64 << 10, sizeCalculation: (_, sql) => sql.length + 64 });
}

/** The facts of the query text in `chunk[start, end)`. */
export function factsOf(cache: FactsCache, chunk: Buffer, start: number, end: number): SessionFacts {
	if (!touchesSession(chunk, start, end)) return NO_FACTS;
	const sql = chunk.utf8Slice(start, end);
	const known = cache.get(sql);
	if (known !== undefined) return known;
	const facts = sessionFacts(sql);
	cache.set(sql, facts);
	return facts;
}
