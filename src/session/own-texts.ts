// With `prepared_statements = "disabled"`: what a client has prepared on the server that it has, by names that go through as they are.
// Owned by ClientStatements (statements.ts), which has none where names are shared.

import { sizeOf } from "../backend/statement.ts";
import type { SessionFacts } from "../parser/session.ts";

/** Most bytes of texts that are remembered; a guess, generous. */
const MOST_OWN = 16 << 20;
/** Names of what gives settings their default that are remembered, and characters of the longest; guesses, generous. */
const MOST_RESTORING = 1000;
const LONGEST_RESTORING = 256;

export class OwnTexts {
	/** Statements are routed, or may be LISTEN, by their texts: these are remembered. */
	private readonly keeps: boolean;
	/** Query texts by name, as far as can be told: a Parse may yet fail. */
	private readonly texts = new Map<string, Buffer>();
	/** Bytes of all texts that were noted since there were none. */
	private bytes = 0;
	/** Statements that may give settings their default when they are run, by name. */
	private readonly restoring = new Map<string, SessionFacts>();

	constructor(keeps: boolean) {
		this.keeps = keeps;
	}

	/**
	 * A Parse goes to the server: its name is at `start`, its text between `nameEnd` and `textEnd`.
	 * @returns what the Parse itself does to the session: settings are given their default when the statement is run
	 */
	declare(chunk: Buffer, start: number, nameEnd: number, textEnd: number, facts: SessionFacts): SessionFacts {
		if (this.keeps) this.keep(chunk, start, nameEnd, textEnd);
		const { restoring } = this;
		if (facts.restores === null ? restoring.size === 0 : restoring.size >= MOST_RESTORING) return facts;
		const name = chunk.utf8Slice(start, nameEnd);
		restoring.delete(name);
		if (facts.restores === null || name.length > LONGEST_RESTORING) return facts;
		restoring.set(name, facts);
		return { ...facts, restores: null };
	}

	/** Beyond some bytes it is not known what the texts are, which routing takes for writes. */
	private keep(chunk: Buffer, start: number, nameEnd: number, textEnd: number): void {
		this.bytes += sizeOf(textEnd - start);
		if (this.bytes > MOST_OWN) this.forgetTexts();
		else this.texts.set(chunk.utf8Slice(start, nameEnd), Buffer.from(chunk.subarray(nameEnd + 1, textEnd)));
	}

	/** The facts of what a Bind of the name in `chunk[start, end)` runs, where that may give settings their default. */
	restores(chunk: Buffer, start: number, end: number): SessionFacts | undefined {
		return this.restoring.size === 0 ? undefined : this.restoring.get(chunk.utf8Slice(start, end));
	}

	textOf(name: string): string | null {
		return this.texts.get(name)?.toString() ?? null;
	}

	has(name: string): boolean {
		return this.texts.has(name);
	}

	/** The text of the name in `chunk[start, end)`. */
	find(chunk: Buffer, start: number, end: number): Buffer | undefined {
		return this.texts.size === 0 ? undefined : this.texts.get(chunk.utf8Slice(start, end));
	}

	/** Close or DEALLOCATE. @returns the text was known */
	forget(name: string): boolean {
		return this.texts.delete(name);
	}

	/** DEALLOCATE ALL or DISCARD ALL. */
	forgetTexts(): void {
		this.texts.clear();
		this.bytes = 0;
	}

	/** The server is another's from here on: what it has by these names is cleaned away. */
	clear(): void {
		this.forgetTexts();
		this.restoring.clear();
	}

	[Symbol.iterator](): Iterator<[string, Buffer]> {
		return this.texts[Symbol.iterator]();
	}
}
