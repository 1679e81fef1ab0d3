// The facts of recent texts, so that a text is parsed once: asked by the router for every query. Texts that differ in literals
// only share theirs, under their shape. One per thread, bounded by entries and by bytes. Trees are not kept.

import { LRUCache } from "lru-cache";
import { conformingText } from "./conforming.ts";
import { type StatementFacts, statementFacts, unknownFacts } from "./facts.ts";
import { Backslash } from "./lexer.ts";
import { Parsed, type SqlParser } from "./parse.ts";
import { certainText, Reading } from "./reading.ts";
import { Shape, type ShapeCopy } from "./shape.ts";
import { WRITE_FUNCTIONS, writeFunctionsWith } from "./write-functions.ts";

export interface StatementCacheOptions {
	/** Texts kept. Default 5000. */
	readonly entries?: number;
	/** Bytes that texts and facts may take. Default 8 MiB. */
	readonly bytes?: number;
	/** As for `setWriteFunctions`. */
	readonly writeFunctions?: readonly string[];
}

/** Kept per text beside its characters: the string, the facts, the entry. A guess. */
const ENTRY_BYTES = 250;

/** Shapes that are found without a string, by their hash: one takes the place of another that falls together with it. */
const RECENT = 256;
/** Bytes of the longest of them. */
const LONGEST_RECENT = 1024;

interface RecentShape extends ShapeCopy {
	readonly facts: StatementFacts;
}

export class StatementCache {
	readonly #parser: SqlParser;
	/** By shape, which begins with a NUL; by text; by NUL, NUL and a text that is read in the way of long ago. */
	readonly #facts: LRUCache<string, StatementFacts>;
	readonly #shape = new Shape();
	readonly #recent: (RecentShape | null)[] = new Array(RECENT).fill(null);
	#names: readonly string[] = [];
	#writeFunctions: ReadonlySet<string> = WRITE_FUNCTIONS;
	#epoch = 0;

	constructor(parser: SqlParser, options: StatementCacheOptions = {}) {
		const bytes = options.bytes ?? 8 * 2 ** 20;
		this.#parser = parser;
		this.#facts = new LRUCache({
			max: options.entries ?? 5000,
			maxSize: bytes,
			// One text must not throw out all others.
			maxEntrySize: Math.max(1, Math.floor(bytes / 4)),
		});
		this.setWriteFunctions(options.writeFunctions ?? []);
	}

	get entries(): number {
		return this.#facts.size;
	}

	/** Bytes that texts and facts take. */
	get bytes(): number {
		return this.#facts.calculatedSize;
	}

	/** Facts from another epoch than this do not count any more. */
	get epoch(): number {
		return this.#epoch;
	}

	/**
	 * Functions of the user's that write, beside PostgreSQL's own; they replace those of before.
	 * @param names as PostgreSQL stores them, with schema or without
	 */
	setWriteFunctions(names: readonly string[]): void {
		if (names.length === this.#names.length && names.every((name, i) => name === this.#names[i])) return;
		this.#names = [...names];
		this.#writeFunctions = writeFunctionsWith(names);
		this.#facts.clear();
		this.#recent.fill(null);
		this.#epoch++;
	}

	/** The same object for the same text while it is kept. Read as with `standard_conforming_strings = on`. Never throws. */
	facts(sql: string): StatementFacts {
		// No client's text has a NUL, and our other keys begin with one.
		if (sql.charCodeAt(0) === 0) return this.#parse(sql);
		return this.#facts.get(sql) ?? this.#keep(sql, this.#parse(sql));
	}

	/**
	 * Of the text in `bytes[start, end)`, without its NUL; the same object for texts that differ in literals, where that is
	 * certain. Never throws.
	 * @param reading how its session reads it
	 */
	factsOfQuery(bytes: Buffer, start: number, end: number, reading: Reading): StatementFacts {
		const conforming = (reading & Reading.Escapes) === 0;
		if (reading > Reading.Escapes && certainText(bytes, start, end, reading) === null)
			return unknownFacts(Parsed.Unclear, bytes.utf8Slice(start, end));
		// What the parser would not look at has no facts to share.
		const short = end - start <= this.#parser.maxLength;
		if (short && (conforming || !hasBackslash(bytes, start, end)) && this.#shape.read(bytes, start, end)) {
			const place = this.#shape.hash() & (RECENT - 1);
			const recent = this.#recent[place]!;
			if (recent !== null && this.#shape.equals(recent)) return recent.facts;
			return this.#ofShape(place, bytes, start, end);
		}
		const sql = bytes.utf8Slice(start, end);
		return conforming ? this.facts(sql) : this.#factsOfOld(sql);
	}

	#ofShape(place: number, bytes: Buffer, start: number, end: number): StatementFacts {
		const key = this.#shape.key();
		const known = this.#facts.get(key);
		if (known === undefined) return this.#learnShape(key, bytes.utf8Slice(start, end));
		if (key.length <= LONGEST_RECENT) this.#recent[place] = { ...this.#shape.copy(), facts: known };
		return known;
	}

	/** As with `standard_conforming_strings = off`. */
	#factsOfOld(sql: string): StatementFacts {
		const key = `\0\0${sql}`;
		const known = this.#facts.get(key);
		if (known !== undefined) return known;
		const text = conformingText(sql);
		const facts = text === null ? unknownFacts(Parsed.Unclear, sql, Backslash.Escapes) : this.#parse(text);
		return this.#keep(key, facts);
	}

	#learnShape(key: string, sql: string): StatementFacts {
		const facts = this.#facts.get(sql) ?? this.#parse(sql);
		// Another failure may be due to this text, not to its shape.
		const shared = facts.parsed === Parsed.Tree || facts.parsed === Parsed.SyntaxError;
		return this.#keep(shared ? key : sql, facts);
	}

	#parse(sql: string): StatementFacts {
		// In another encoding than UTF-8 a backslash may be half a character, and what looks like a string end elsewhere.
		if (sql.includes("\ufffd") && sql.includes("\\")) return unknownFacts(Parsed.Unclear, sql);
		return statementFacts(this.#parser.parse(sql), sql, this.#writeFunctions);
	}

	#keep(key: string, facts: StatementFacts): StatementFacts {
		// What is too large to keep is let pass by the cache itself.
		this.#facts.set(key, facts, { size: 2 * key.length + ENTRY_BYTES });
		return facts;
	}
}

function hasBackslash(bytes: Buffer, start: number, end: number): boolean {
	for (let i = start; i < end; i++) if (bytes[i] === 92) return true;
	return false;
}
