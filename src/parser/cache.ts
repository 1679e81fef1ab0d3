// The facts of recent texts, so that a text is parsed once: session/routed.ts asks for each Query and Parse. Texts that differ in
// literals only share theirs, under their shape. One per thread, bounded by entries and by bytes. Trees are not kept.

import { LRUCache } from "lru-cache";
import { evaluate, outcomeIndex, settled, withLiterals } from "./aim.ts";
import { mayHaveComments } from "./comments.ts";
import { conformingText } from "./conforming.ts";
import { type StatementFacts, statementFacts, unknownFacts } from "./facts.ts";
import { Backslash } from "./lexer.ts";
import { Literals } from "./literals.ts";
import { type Mergings, mergingsOf, type Unmergeable } from "./merging.ts";
import { Parsed, type SqlParser } from "./parse.ts";
import { certainText, changesReading, Reading } from "./reading.ts";
import { Shape, type ShapeCopy } from "./shape.ts";
import { Locator } from "./sources.ts";
import type { Tables } from "./tables.ts";
import { WRITE_FUNCTIONS, writeFunctionsWith } from "./write-functions.ts";

export interface StatementCacheOptions {
	/** Texts kept. Default 5000. */
	readonly entries?: number;
	/** Bytes that texts and facts may take. Default 8 MiB. */
	readonly bytes?: number;
	/** The user's functions that write, see `setWriteFunctions`. Default none. */
	readonly writeFunctions?: readonly string[];
	/** The tables of the cluster whose statements these are, where some are sharded. Default: nothing is known of tables. */
	readonly tables?: Tables | null;
}

/** Bytes that a text takes beside its characters: the string, the facts, the entry of the cache. A guess. */
const ENTRY_BYTES = 300;

/** Bytes that texts and what they ask of merged rows may take. */
const MERGINGS_BYTES = 2 * 2 ** 20;

const UNREADABLE: Unmergeable = "a statement that could not be parsed";

/** Slots of `#recent` and of `#texts`, found by a hash of bytes, without a string: of two that share a slot the later has it. */
const RECENT = 256;
/** Longest text, or key of a shape, that has such a slot, in bytes. */
const LONGEST_RECENT = 1024;

/** A text without literals, which comes again as it is. */
interface RecentText {
	readonly bytes: Uint8Array;
	readonly known: Known;
}

interface RecentShape extends ShapeCopy {
	readonly known: Known;
	readonly hasLiterals: boolean;
}

/** Facts of a text, or of all texts of a shape. Serves as a `Routed` (backend/statement.ts) where no plugin sees the text. */
export interface Known {
	readonly facts: StatementFacts;
	/** The text may change how its session reads what follows, see `changesReading`. */
	readonly changes: boolean;
	readonly sql: "";
	readonly escapes: false;
	readonly types: null;
	/** The same of texts whose literals say where they go, by `outcomeIndex`. */
	readonly outcomes: (Known | undefined)[];
}

function knownAs(facts: StatementFacts, changes: boolean): Known {
	return { facts, changes, sql: "", escapes: false, types: null, outcomes: [] };
}

function changes(sql: string): boolean {
	const bytes = Buffer.from(sql);
	return changesReading(bytes, 0, bytes.length);
}

/** Epochs of all caches so far. */
let epochs = 0;

export class StatementCache {
	/** Another when other functions write: facts from another epoch do not count any more. No two caches have one. Written here only. */
	epoch = ++epochs;
	readonly #parser: SqlParser;
	/** Keys: a shape, which begins with a NUL; a text; NUL, NUL and a text read with `standard_conforming_strings = off`. */
	readonly #known: LRUCache<string, Known>;
	readonly #tables: Tables | null;
	/** Of the text that `#shape` has read last; null where nobody asks for them. */
	readonly #literals: Literals | null;
	readonly #shape: Shape;
	readonly #mergings = new LRUCache<string, Mergings | Unmergeable>({ max: 1000, maxSize: MERGINGS_BYTES });
	readonly #recent: (RecentShape | null)[] = new Array(RECENT).fill(null);
	readonly #texts: (RecentText | null)[] = new Array(RECENT).fill(null);
	#names: readonly string[] = [];
	#writeFunctions: ReadonlySet<string> = WRITE_FUNCTIONS;
	#turn = 0;

	constructor(parser: SqlParser, options: StatementCacheOptions = {}) {
		const bytes = options.bytes ?? 8 * 2 ** 20;
		this.#parser = parser;
		this.#tables = options.tables ?? null;
		this.#literals = this.#tables === null ? null : new Literals();
		this.#shape = new Shape(this.#literals);
		this.#known = new LRUCache({
			max: options.entries ?? 5000,
			maxSize: bytes,
			// One text must not throw out all others.
			maxEntrySize: Math.max(1, Math.floor(bytes / 4)),
		});
		this.setWriteFunctions(options.writeFunctions ?? []);
	}

	/** Where rows are is known by their keys (`StatementFacts.aim`). */
	get placesKeys(): boolean {
		return this.#tables !== null;
	}

	get entries(): number {
		return this.#known.size;
	}

	/** Bytes that texts and facts take. */
	get bytes(): number {
		return this.#known.calculatedSize;
	}

	/**
	 * Functions of the user's that write, beside PostgreSQL's own; they replace those of before.
	 * @param names as PostgreSQL stores them, with schema or without
	 */
	setWriteFunctions(names: readonly string[]): void {
		if (names.length === this.#names.length && names.every((name, i) => name === this.#names[i])) return;
		this.#names = [...names];
		this.#writeFunctions = writeFunctionsWith(names);
		this.#known.clear();
		this.#recent.fill(null);
		this.#texts.fill(null);
		this.epoch = ++epochs;
	}

	/** The same object for the same text while it is kept. Read as with `standard_conforming_strings = on`. Never throws. */
	facts(sql: string): StatementFacts {
		return this.#ofText(sql).facts;
	}

	#ofText(sql: string): Known {
		// No client's text has a NUL, and our other keys begin with one.
		if (sql.charCodeAt(0) === 0) return knownAs(this.#parse(sql), changes(sql));
		return this.#known.get(sql) ?? this.#keep(sql, this.#parse(sql), changes(sql));
	}

	/**
	 * Facts of the text in `bytes[start, end)`, without its NUL; the same object for texts that differ in literals, where that is
	 * certain. Never throws.
	 * @param reading how its session reads it
	 */
	factsOfQuery(bytes: Buffer, start: number, end: number, reading: Reading): StatementFacts {
		return this.ofQuery(bytes, start, end, reading).facts;
	}

	/** Facts of the text, and whether it changes how its session reads; parameters as those of `factsOfQuery`. */
	ofQuery(bytes: Buffer, start: number, end: number, reading: Reading): Known {
		if (reading !== Reading.Standard || end - start > LONGEST_RECENT || end === start)
			return this.#look(bytes, start, end, reading, -1);
		const place = placeOf(bytes, start, end);
		const text = this.#texts[place]!;
		if (text !== null && isSame(text.bytes, bytes, start, end)) return text.known;
		return this.#look(bytes, start, end, reading, place);
	}

	/** @param place of the text among recent ones; -1: it is not to be found there */
	#look(bytes: Buffer, start: number, end: number, reading: Reading, place: number): Known {
		const conforming = (reading & Reading.Escapes) === 0;
		if (reading > Reading.Escapes && certainText(bytes, start, end, reading) === null) {
			const facts = unknownFacts(Parsed.Unclear, bytes.utf8Slice(start, end), Backslash.Plain, this.#tables);
			return knownAs(facts, changesReading(bytes, start, end));
		}
		// A text that is too long for the parser has no facts that others could share.
		const short = end - start <= this.#parser.maxLength;
		if (short && (conforming || !hasBackslash(bytes, start, end)) && this.#shape.read(bytes, start, end)) {
			const recent = this.#recent[this.#shape.hash() & (RECENT - 1)]!;
			if (recent === null || !this.#shape.equals(recent)) return this.#ofShape(bytes, start, end);
			if (!recent.hasLiterals) this.#note(place, bytes, start, end, recent.known);
			return recent.known.facts.aim === null ? recent.known : this.#withLiterals(recent.known);
		}
		const sql = bytes.utf8Slice(start, end);
		if (!conforming) return this.#ofOldText(sql);
		const known = this.#known.get(sql);
		if (known === undefined) return this.#ofText(sql);
		this.#note(place, bytes, start, end, known);
		return known;
	}

	/** Keeps a text that came before, or differs from one in blanks and comments only; each eighth new one ousts another. */
	#note(place: number, bytes: Buffer, start: number, end: number, known: Known): void {
		if (place < 0 || (this.#texts[place] !== null && this.#turn++ % 8 !== 0)) return;
		this.#texts[place] = { bytes: new Uint8Array(bytes.subarray(start, end)), known };
	}

	#ofShape(bytes: Buffer, start: number, end: number): Known {
		const shape = this.#shape;
		const key = shape.key();
		const known = this.#known.get(key);
		if (known === undefined) return this.#withLiterals(this.#learnShape(key, bytes, start, end));
		if (key.length <= LONGEST_RECENT)
			this.#recent[shape.hash() & (RECENT - 1)] = { ...shape.copy(), known, hasLiterals: shape.hasLiterals() };
		return known.facts.aim === null ? known : this.#withLiterals(known);
	}

	/** What is known of the text that was read last, by what is known of its shape. */
	#withLiterals(known: Known): Known {
		const { aim } = known.facts;
		if (aim === null || !aim.hasLiterals) return known;
		const literals = this.#literals!;
		if (aim.hasParameters) return knownAs({ ...known.facts, aim: withLiterals(aim, literals) }, known.changes);
		const at = evaluate(aim, literals, null);
		const index = outcomeIndex(at);
		let outcome = known.outcomes[index];
		if (outcome === undefined) {
			outcome = knownAs({ ...known.facts, aim: settled(aim, at) }, known.changes);
			known.outcomes[index] = outcome;
		}
		return outcome;
	}

	/** The text is read as with `standard_conforming_strings = off`. */
	#ofOldText(sql: string): Known {
		const key = `\0\0${sql}`;
		const known = this.#known.get(key);
		if (known !== undefined) return known;
		const text = conformingText(sql);
		const facts =
			text === null ? unknownFacts(Parsed.Unclear, sql, Backslash.Escapes, this.#tables) : this.#parse(text);
		return this.#keep(key, facts, changes(sql));
	}

	#learnShape(key: string, bytes: Buffer, start: number, end: number): Known {
		const sql = bytes.utf8Slice(start, end);
		const known = this.#known.get(sql);
		// Its literals could not be found in it, as a rule.
		if (known !== undefined && this.#literals !== null) return known;
		const locator = this.#literals === null ? null : new Locator(this.#literals, start);
		const facts = known?.facts ?? this.#parse(sql, locator);
		// Another failure may be due to this text, not to its shape.
		const isWhole = facts.parsed === Parsed.Tree || facts.parsed === Parsed.SyntaxError;
		const shared = isWhole && (locator === null || (!locator.failed && isPlain(sql, end - start)));
		if (locator !== null && !shared) return this.#keep(sql, this.#parse(sql), changes(sql));
		return shared ? this.#keep(key, facts, this.#shape.changes()) : this.#keep(sql, facts, changes(sql));
	}

	/**
	 * What the statements of the text ask of all their rows, with its literals, which facts do not know. Read as by `facts`. Never throws.
	 */
	mergings(sql: string): Mergings | Unmergeable {
		let found = this.#mergings.get(sql);
		if (found === undefined) {
			const tree = this.#parser.parse(sql);
			found = tree.outcome === Parsed.Tree ? mergingsOf(tree.statements) : UNREADABLE;
			this.#mergings.set(sql, found, { size: 2 * sql.length + ENTRY_BYTES });
		}
		return found;
	}

	/** @param locator for what holds for all texts of the shape */
	#parse(sql: string, locator: Locator | null = null): StatementFacts {
		// In another encoding than UTF-8 a backslash may be half a character, and a string may end elsewhere than it seems.
		if (sql.includes("\ufffd") && sql.includes("\\"))
			return unknownFacts(Parsed.Unclear, sql, Backslash.Plain, this.#tables);
		return statementFacts(this.#parser.parse(sql), sql, this.#writeFunctions, this.#tables, locator);
	}

	#keep(key: string, facts: StatementFacts, changes: boolean): Known {
		const known = knownAs(facts, changes);
		// An entry beyond `maxEntrySize` is not kept by the cache itself.
		this.#known.set(key, known, { size: 2 * key.length + ENTRY_BYTES });
		return known;
	}
}

/** The tree's places in it are places in its bytes: comments are blanks in the text that the parser sees, one for each character. */
function isPlain(sql: string, bytes: number): boolean {
	return Buffer.byteLength(sql) === bytes && (sql.length === bytes || !mayHaveComments(sql));
}

function hasBackslash(bytes: Buffer, start: number, end: number): boolean {
	for (let i = start; i < end; i++) if (bytes[i] === 92) return true;
	return false;
}

/** The slot of a text: a hash of its length and of five of its bytes, which costs next to nothing. */
function placeOf(bytes: Buffer, start: number, end: number): number {
	const length = end - start;
	const middle = bytes[start + (length >> 1)]! + 3 * bytes[start + (length >> 2)]!;
	return (
		(7 * length + 5 * middle + 11 * bytes[start]! + bytes[end - 1]! + 13 * bytes[end - ((length + 3) >> 2)]!) &
		(RECENT - 1)
	);
}

/** Compares from the end: that is where texts differ that begin alike. */
function isSame(known: Uint8Array, bytes: Buffer, start: number, end: number): boolean {
	let i = known.length;
	if (i !== end - start) return false;
	while (i-- > 0) if (known[i] !== bytes[start + i]) return false;
	return true;
}
