// What the fault run counts: everything that was checked, everything that faults have cost, everything that was wrong.

import type { QueryResult } from "../../test/support/raw-client.ts";

/** Kinds of wrong; there must be none of any. */
export const WRONGS = {
	foreign: "rows of somebody else, or of another question",
	dirty: "sessions with somebody else's settings or leftovers",
	lost: "acknowledged writes that are not there",
	unseen: "own writes not seen at once",
	undead: "rows that were rolled back and are there",
	misplaced: "rows on another shard than theirs",
	shape: "rows of another shape than described",
	unguarded: "statements let past the plugin that guards",
	hung: "clients left without an answer",
	unexpected: "errors that no fault explains",
	internal: "failures inside the proxy",
} as const;
export type Kind = keyof typeof WRONGS;

export class Wrong extends Error {
	readonly kind: Kind;

	constructor(kind: Kind, message: string) {
		super(message);
		this.kind = kind;
	}
}

/** A fault has cost somebody an answer, which is its right. The client begins anew. */
export class Interrupted extends Error {}

/** SQLSTATEs that a fault may cost: connections, servers and pools that go, and replicas that put replay before queries. */
const COST = new Set(["57P01", "57P02", "57P03", "08000", "08001", "08003", "08006", "58000", "53300", "40001"]);

/** Kept of each kind: what has been counted is not forgotten, only not told. */
const TOLD = 20;

export class Tally {
	statements = 0;
	connections = 0;
	faults = 0;
	writes = 0;
	readonly interruptions = new Map<string, number>();
	readonly wrongs = new Map<Kind, { count: number; told: string[] }>();

	/** @returns the answer, when it came whole or with an error of `allowed` @throws Interrupted, Wrong */
	settle(result: QueryResult, doing: string, allowed: readonly string[] = []): QueryResult {
		this.statements++;
		const [error] = result.errors;
		const code = error?.C;
		if (error !== undefined && code !== undefined && !allowed.includes(code)) {
			if (!COST.has(code)) throw new Wrong("unexpected", `${doing}: ${error.S} ${code}: ${error.M} ${error.D ?? ""}`);
			this.interrupt(code);
			throw new Interrupted(code);
		}
		if (result.status === "") {
			this.interrupt("closed");
			throw new Interrupted("closed");
		}
		return result;
	}

	interrupt(why: string): void {
		this.interruptions.set(why, (this.interruptions.get(why) ?? 0) + 1);
	}

	isCost(code: string | undefined): boolean {
		return code !== undefined && COST.has(code);
	}

	/** Sorts what a client's life ended with. */
	note(error: unknown, who: string): void {
		if (error instanceof Interrupted) return;
		const message = error instanceof Error ? error.message : String(error);
		if (error instanceof Wrong) this.wrong(error.kind, `${who} ${message}`);
		else if (/^the connection ended before/.test(message)) this.interrupt("closed");
		else if (/^waited \d+ ms/.test(message))
			this.wrong("hung", `${who}: ${message.split("\n").slice(0, 6).join(" | ")}`);
		else this.wrong("unexpected", `${who}: ${message}`);
	}

	wrong(kind: Kind, text: string): void {
		const entry = this.wrongs.get(kind) ?? { count: 0, told: [] };
		this.wrongs.set(kind, entry);
		if (entry.told.length < TOLD) {
			entry.told.push(text);
			console.log(`  WRONG (${kind}) ${new Date().toISOString()} ${text}`);
		}
		entry.count++;
	}

	get wrongCount(): number {
		return [...this.wrongs.values()].reduce((sum, { count }) => sum + count, 0);
	}
}
