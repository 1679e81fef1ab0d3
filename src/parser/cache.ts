// The facts of recent texts, so that a text is parsed once: asked by the router for every query. One per thread, bounded by
// entries and by bytes. Trees are not kept.

import { LRUCache } from "lru-cache";
import { type StatementFacts, statementFacts } from "./facts.ts";
import type { SqlParser } from "./parse.ts";
import { WRITE_FUNCTIONS } from "./write-functions.ts";

export interface StatementCacheOptions {
	/** Texts kept. Default 5000. */
	readonly entries?: number;
	/** Bytes that texts and facts may take. Default 8 MiB. */
	readonly bytes?: number;
	/** Functions of the user's that write, beside PostgreSQL's own: names without schema, as PostgreSQL stores them. */
	readonly writeFunctions?: readonly string[];
}

/** Kept per text beside its characters: the string, the facts, the entry. A guess. */
const ENTRY_BYTES = 250;

export class StatementCache {
	readonly #parser: SqlParser;
	readonly #facts: LRUCache<string, StatementFacts>;
	readonly #writeFunctions: ReadonlySet<string>;

	constructor(parser: SqlParser, options: StatementCacheOptions = {}) {
		const bytes = options.bytes ?? 8 * 2 ** 20;
		this.#parser = parser;
		this.#writeFunctions = new Set([...WRITE_FUNCTIONS, ...(options.writeFunctions ?? [])]);
		this.#facts = new LRUCache({
			max: options.entries ?? 5000,
			maxSize: bytes,
			// One text must not throw out all others.
			maxEntrySize: Math.max(1, Math.floor(bytes / 4)),
		});
	}

	get entries(): number {
		return this.#facts.size;
	}

	/** Bytes that texts and facts take. */
	get bytes(): number {
		return this.#facts.calculatedSize;
	}

	/** The same object for the same text while it is kept. Never throws. */
	facts(sql: string): StatementFacts {
		return this.#facts.get(sql) ?? this.#learn(sql);
	}

	#learn(sql: string): StatementFacts {
		const facts = statementFacts(this.#parser.parse(sql), this.#writeFunctions);
		// What is too large to keep is let pass by the cache itself.
		this.#facts.set(sql, facts, { size: 2 * sql.length + ENTRY_BYTES });
		return facts;
	}
}
