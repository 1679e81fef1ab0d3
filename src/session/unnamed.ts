// One client's unnamed statement: its last unnamed Parse, to be sent again to a server that has another client's. Owned by
// ClientStatements (statements.ts). An error in a batch brings back what there was before the batch.

import { Description, type MovingDescription } from "../backend/description.ts";
import { NO_FACTS, type SessionFacts } from "../parser/session.ts";

/** Characters of an unnamed statement that is remembered beyond its transaction; a guess, generous. */
const LARGE = 1 << 20;

/** An unnamed Parse from its query text on, in the chunk that it came in. */
interface UnnamedParse {
	/** Null: there is no unnamed statement. */
	chunk: Buffer | null;
	start: number;
	/** Where the text ends, at its NUL, and where the message ends. */
	textEnd: number;
	end: number;
	facts: SessionFacts;
	/** A number that no other unnamed Parse of the thread has; 0 when there is no such statement. */
	serial: number;
	/** The server's answer, when the client has asked what the statement is (Describe); else null. */
	told: Description | null;
}

/** An unnamed statement on its way to another thread: its Parse from the text on. */
export interface MovingUnnamed {
	readonly rest: Uint8Array;
	readonly textLength: number;
	readonly told: MovingDescription | null;
}

/** Does what `Object.assign` does at a fraction of its cost: with the first unnamed Parse of each batch. */
function copyUnnamed(to: UnnamedParse, from: Readonly<UnnamedParse>): void {
	to.chunk = from.chunk;
	to.start = from.start;
	to.textEnd = from.textEnd;
	to.end = from.end;
	to.facts = from.facts;
	to.serial = from.serial;
	to.told = from.told;
}

/** Fields, since they are read with every Bind; all are written here only. */
export class UnnamedStatement implements UnnamedParse {
	chunk: Buffer | null = null;
	start = 0;
	textEnd = 0;
	end = 0;
	facts = NO_FACTS;
	serial = 0;
	told: Description | null = null;
	/** Something is kept here: the statement, or perhaps only what an error brings back. */
	some = false;
	/** The unnamed statement when the batch under way began. */
	private readonly before: UnnamedParse = {
		chunk: null,
		start: 0,
		textEnd: 0,
		end: 0,
		facts: NO_FACTS,
		serial: 0,
		told: null,
	};
	/** How many unnamed Parses the batch under way has had. */
	private parses = 0;

	/** What it is for another thread, between batches; null for none. */
	depart(): MovingUnnamed | null {
		const { chunk, start, textEnd, end, told } = this;
		if (chunk === null) return null;
		return {
			rest: Uint8Array.from(chunk.subarray(start, end)),
			textLength: textEnd - start,
			told: told && { ...told },
		};
	}

	/** @param serial the number that it has here */
	arrive({ rest, textLength, told }: MovingUnnamed, facts: SessionFacts, serial: number): void {
		this.remember(Buffer.from(rest), 0, textLength, rest.length, facts, serial);
		this.told = told && Description.arrived(told);
	}

	/** The query text; null when there is no such statement. */
	get text(): string | null {
		return this.chunk === null ? null : this.chunk.utf8Slice(this.start, this.textEnd);
	}

	/** The Parse from its text on, with the parameter types that the client was told of. Only where there is a statement. */
	get rest(): Buffer {
		const { start, end, textEnd, told } = this;
		const chunk = this.chunk!;
		return told === null ? chunk.subarray(start, end) : Buffer.concat([chunk.subarray(start, textEnd + 1), told.types]);
	}

	/** A Parse comes that is the first in its batch. */
	beginBatch(): void {
		copyUnnamed(this.before, this);
		this.parses = 0;
	}

	/** An unnamed Parse, which from its text on is `chunk[start, end)`. */
	remember(chunk: Buffer, start: number, textEnd: number, end: number, facts: SessionFacts, serial: number): void {
		this.some = true;
		this.parses++;
		// A reference into the chunk costs nothing now, but would keep a large one alive for a small statement.
		const own = (end - start) * 4 < chunk.length && chunk.length > 1024;
		this.chunk = own ? Buffer.from(chunk.subarray(start, end)) : chunk;
		this.start = own ? 0 : start;
		this.textEnd = own ? textEnd - start : textEnd;
		this.end = own ? end - start : end;
		this.facts = facts;
		this.serial = serial;
		this.told = null;
	}

	/** The client has none from now on. */
	forget(): void {
		this.chunk = null;
		this.serial = 0;
	}

	private forgetBefore(): void {
		this.before.chunk = null;
		this.before.serial = 0;
	}

	/** A simple query ends the statement for good: also when a batch before that Query fails, as may yet be told. */
	clear(): void {
		this.forget();
		this.forgetBefore();
		this.some = false;
	}

	/** The server is another's from here on. Who has no server keeps no large text: the client has to parse it again. */
	leave(): void {
		if (this.end - this.start > LARGE) this.forget();
		this.forgetBefore();
		this.some = this.serial !== 0;
	}

	/** The server has answered Describe. */
	describe(serial: number, description: Description): void {
		if (this.serial === serial) this.told = description;
		if (this.before.serial === serial) this.before.told = description;
	}

	/** Parses were not done (`StatementClient.onUnnamedUndone`). What cannot be known is forgotten: an error beats a wrong answer. */
	undo(parses: number, failed: boolean, followed: boolean): void {
		// The batch under way has an unnamed Parse of its own, and began with a statement that is none now.
		if (followed) this.forgetBefore();
		else if (failed || parses !== this.parses) this.forget();
		else copyUnnamed(this, this.before);
	}

	/** The statement is from now on what several shards have confirmed, by the same number. */
	follow(other: UnnamedStatement): void {
		copyUnnamed(this, other);
		this.some = true;
	}
}
