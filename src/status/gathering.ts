// Rows that several workers have to send before a SHOW can be answered. A worker that is stuck, or takes too long, is not waited for: its
// rows are missing then, which the admin database tells by a WARNING. One, on the main thread.

import type { Contain } from "../contain.ts";

/** ms in which workers have to send their rows. */
const PATIENCE = 1_000;

/** The workers, as they are asked. */
export interface Respondents<Kind> {
	/** How many there are. */
	readonly count: number;
	/** Those that do not come back to their event loop. */
	readonly stuck: readonly number[];
	/** Asks all of them for their rows; each answers by `Gathering.received`. */
	send(id: number, of: Kind): void;
}

interface Pending<Row> {
	readonly rows: Row[];
	readonly awaited: Set<number>;
	readonly timer: Timer;
	readonly done: (rows: Row[]) => void;
}

export class Gathering<Kind, Row> {
	/** Workers that did not send their rows in time, until they do. */
	readonly late = new Set<number>();
	private readonly respondents: Respondents<Kind>;
	private readonly contain: Contain;
	private readonly pending = new Map<number, Pending<Row>>();
	private lastId = 0;

	constructor(respondents: Respondents<Kind>, contain: Contain) {
		this.respondents = respondents;
		this.contain = contain;
	}

	/** Rows of all workers but those that are stuck or late. */
	ask<T extends Row>(of: Kind): Promise<T[]> {
		const { promise, resolve } = Promise.withResolvers<T[]>();
		const id = ++this.lastId;
		const awaited = new Set(Array.from({ length: this.respondents.count }, (_, worker) => worker));
		const timer = this.contain.later(PATIENCE, null, () => {
			for (const worker of [...awaited]) {
				this.late.add(worker);
				this.without(id, worker);
			}
		});
		this.pending.set(id, { rows: [], awaited, timer, done: (rows) => resolve(rows as T[]) });
		this.respondents.send(id, of);
		for (const worker of this.respondents.stuck) this.without(id, worker);
		return promise;
	}

	/** A worker has sent its rows, in time or not. */
	received(id: number, from: number, rows: readonly Row[]): void {
		this.late.delete(from);
		const pending = this.pending.get(id);
		if (pending === undefined) return;
		for (const row of rows) pending.rows.push(row);
		this.without(id, from);
	}

	/** This worker is stuck: nothing waits for it any more. */
	giveUp(worker: number): void {
		for (const id of [...this.pending.keys()]) this.without(id, worker);
	}

	/** `worker` has answered, or is not waited for. */
	private without(id: number, worker: number): void {
		const pending = this.pending.get(id);
		if (pending === undefined || !pending.awaited.delete(worker) || pending.awaited.size > 0) return;
		this.pending.delete(id);
		clearTimeout(pending.timer);
		pending.done(pending.rows);
	}
}
