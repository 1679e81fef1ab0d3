// Clients that wait for a server, in order of arrival. A linked list through the waiters themselves, so that one who gives up
// in the middle leaves without a search.

import type { Server } from "../backend/server.ts";
import type { PgError } from "../errors.ts";

export interface Waiter {
	/** When it began to wait (ms since the epoch). */
	waitingSince: number;
	/** Neighbours in the queue it stands in; both null and `queued` false when it stands in none. */
	nextWaiter: Waiter | null;
	previousWaiter: Waiter | null;
	queued: boolean;
	/** The waiter's turn has come: the server is lent to it. @param time `now()` */
	onServer(server: Server, time: number): void;
	onCheckoutFailed(error: PgError): void;
	/**
	 * The pool that it waits for is not well, or no longer what it was: it may leave for another.
	 * @param late it has waited for long enough there, where nothing comes back
	 */
	onElsewhere(late: boolean): void;
	/** It has waited for `query_wait_notify`; called again and again. @param notice a NoticeResponse that says so */
	onLongWait(notice: Buffer): void;
}

export class Waiters {
	first: Waiter | null = null;
	private last: Waiter | null = null;
	length = 0;

	push(waiter: Waiter): void {
		waiter.queued = true;
		waiter.previousWaiter = this.last;
		waiter.nextWaiter = null;
		if (this.last === null) this.first = waiter;
		else this.last.nextWaiter = waiter;
		this.last = waiter;
		this.length++;
	}

	shift(): Waiter | null {
		const { first } = this;
		if (first !== null) this.remove(first);
		return first;
	}

	/** Roles, bans or health have changed: each may leave for another queue. */
	reconsider(): void {
		const all: Waiter[] = [];
		for (let waiter = this.first; waiter !== null; waiter = waiter.nextWaiter) all.push(waiter);
		for (const waiter of all) waiter.onElsewhere(false);
	}

	/** Tells those who have waited for `patience` ms. */
	tellLong(notice: Buffer, time: number, patience: number): void {
		for (let waiter = this.first; waiter !== null && time - waiter.waitingSince >= patience; waiter = waiter.nextWaiter)
			waiter.onLongWait(notice);
	}

	/** All begin to wait anew: time under PAUSE does not count towards `checkout_timeout`. */
	restart(time: number): void {
		for (let waiter = this.first; waiter !== null; waiter = waiter.nextWaiter) waiter.waitingSince = time;
	}

	remove(waiter: Waiter): void {
		if (!waiter.queued) return;
		waiter.queued = false;
		if (waiter.previousWaiter === null) this.first = waiter.nextWaiter;
		else waiter.previousWaiter.nextWaiter = waiter.nextWaiter;
		if (waiter.nextWaiter === null) this.last = waiter.previousWaiter;
		else waiter.nextWaiter.previousWaiter = waiter.previousWaiter;
		waiter.nextWaiter = null;
		waiter.previousWaiter = null;
		this.length--;
	}
}
