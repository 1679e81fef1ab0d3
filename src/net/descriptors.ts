// How many files this process may open, and for whom what is left of them is. The kernel gives out the lowest number that is
// free, so the number of a client's socket says how many are in use, without counting. A client that would take what the pools'
// connections need is told that there are too many, while there is room to tell it: without a descriptor it could not even be
// accepted, and would hang. One for each thread; nothing is shared, for all threads look at the same numbers.

import { descriptorLimit, lowestFreeDescriptor } from "./options.ts";

/** What is left for a client that has just been accepted. */
export const enum Room {
	Enough,
	/** It may stay for as long as it takes to read who it is, and to tell it. */
	ToRefuse,
	/** Not even that. */
	None,
}

/** For what comes and goes, at least: host names, checks, cancel requests, files that a reload reads; a guess, and for small limits a sixteenth. */
const OWN_NEEDS = 32;

export class Descriptors {
	/** Infinity where it cannot be known. */
	limit = Number.POSITIVE_INFINITY;
	/** What the pools may still open. */
	reserved = 0;
	private readonly readLimit: () => number;

	constructor(readLimit: () => number = descriptorLimit) {
		this.readLimit = readLimit;
		this.look(0);
	}

	/** The janitor's tick. The limit may change while we run (`prlimit`). @param unopened connections that the pools may still open */
	look(unopened: number): void {
		this.limit = this.readLimit();
		// With pools that are larger than the limit, some clients are let in all the same.
		this.reserved = Math.min(unopened, Math.floor(this.limit / 4));
	}

	/** @param fd of the client's socket @param refusing clients that are being told */
	roomFor(fd: number, refusing: number): Room {
		const needed = ownNeeds(this.limit);
		const free = this.limit - 1 - fd;
		if (free >= this.reserved + 2 * needed) return Room.Enough;
		return free >= needed && refusing < needed ? Room.ToRefuse : Room.None;
	}

	/** How many more clients fit, or fewer than none. @param lowestFree the next descriptor @param unopened as in `look` */
	clientsThatFit(lowestFree: number, unopened: number): number {
		return this.limit - lowestFree - unopened - 2 * ownNeeds(this.limit);
	}
}

function ownNeeds(limit: number): number {
	return Math.min(OWN_NEEDS, Math.ceil(limit / 16));
}

/** Whether a server connection may be opened: pools, too, leave what it takes to accept clients and refuse them. */
export function hasRoomForServer(): boolean {
	const limit = descriptorLimit();
	const next = lowestFreeDescriptor();
	return next >= 0 && next < limit - 2 * ownNeeds(limit);
}
