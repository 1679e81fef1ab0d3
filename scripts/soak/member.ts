// A client of the fault run: who it is, what it knows of itself, and how it checks an answer.

import type { QueryResult, RawClient } from "../../test/support/raw-client.ts";
import { type Tally, Wrong } from "./tally.ts";
import type { Door } from "./world.ts";

/** A small generator (mulberry32), so that a failure can be repeated with its seed. */
export function random(seed: number): (below: number) => number {
	let state = seed;
	return (below) => {
		state = (state + 0x6d2b79f5) | 0;
		let t = Math.imul(state ^ (state >>> 15), 1 | state);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) % below;
	};
}

/** Writes that were acknowledged, by who made them. */
export type Acknowledged = Map<string, { door: Door; numbers: number[] }>;

/** What a client is made of. */
export interface Facts {
	readonly who: string;
	readonly client: RawClient;
	readonly door: Door;
	readonly dice: (below: number) => number;
	readonly tally: Tally;
	readonly acknowledged: Acknowledged;
	/** Whether it has said who it is as it connected: then that is what RESET brings back. */
	readonly early: boolean;
}

export class Member implements Facts {
	readonly who: string;
	readonly client: RawClient;
	readonly door: Door;
	readonly dice: (below: number) => number;
	readonly tally: Tally;
	readonly acknowledged: Acknowledged;
	readonly early: boolean;
	#asked = 0;

	constructor(facts: Facts) {
		this.who = facts.who;
		this.client = facts.client;
		this.door = facts.door;
		this.dice = facts.dice;
		this.tally = facts.tally;
		this.acknowledged = facts.acknowledged;
		this.early = facts.early;
	}

	number(): number {
		return ++this.#asked;
	}

	/** A value that nobody has asked for before. */
	value(): string {
		return `${this.who}/${this.number()}`;
	}

	/** A comment that names one shard, where there are several. */
	hint(shard = this.dice(this.door.shards)): string {
		return this.door.shards === 1 ? "" : `/* pgdog_shard: ${shard} */ `;
	}

	async query(sql: string, allowed: readonly string[] = []): Promise<QueryResult> {
		return this.tally.settle(await this.client.query(sql), this.#doing(sql), allowed);
	}

	async extended(sql: string, values: string[] = []): Promise<QueryResult> {
		return this.tally.settle(await this.client.extended(sql, values), this.#doing(sql));
	}

	/** Sends messages that end with Sync. */
	async batch(doing: string, messages: Uint8Array[], allowed: readonly string[] = []): Promise<QueryResult> {
		this.client.send(...messages);
		return this.next(doing, allowed);
	}

	async next(doing: string, allowed: readonly string[] = []): Promise<QueryResult> {
		return this.tally.settle(await this.client.result(), doing, allowed);
	}

	/** Throws unless the rows are these values, one each. */
	expect(result: QueryResult, expected: string[], doing: string): void {
		const rows = result.rows.map((row) => row[0]);
		if (rows.length !== expected.length || rows.some((value, i) => value !== expected[i]))
			throw new Wrong(
				"foreign",
				`${doing}: ${JSON.stringify(rows).slice(0, 200)} in place of ${JSON.stringify(expected).slice(0, 200)}`,
			);
	}

	/** To be called when a write has been acknowledged. */
	acknowledge(...numbers: number[]): void {
		const entry = this.acknowledged.get(this.who) ?? { door: this.door, numbers: [] };
		this.acknowledged.set(this.who, entry);
		entry.numbers.push(...numbers);
		this.tally.writes += numbers.length;
	}

	#doing(sql: string): string {
		return `(${this.door.name}) ${sql.slice(0, 120)}`;
	}
}
