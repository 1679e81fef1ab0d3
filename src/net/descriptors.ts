// How many files this process may open, and for whom the last descriptors are. Every connection of every thread is counted before
// it is opened, or when it was accepted, so that threads that open and accept at once take together no more than there is. The
// last ones are for clients that have to be told that there is no room: without one a client could not be accepted, would hang,
// and Bun (1.4.5) would try to accept it without end. The kernel gives out the lowest number that is free, so a new socket's
// number tells, too, what is in use: it knows of what others have opened, a plugin for instance. One for each thread.

import { readdirSync } from "node:fs";
import { descriptorLimit, lowestFreeDescriptor } from "./options.ts";

/** What is left for a client that has just been accepted. */
export const enum Room {
	Enough,
	/** It may stay for as long as it takes to read who it is, and to tell it. */
	ToRefuse,
	/** Not even that: it is told and closed at once (`turnAway`). */
	None,
}

/**
 * Descriptors for what comes and goes, at least: host names, connections between threads, files that a reload reads. A guess; with
 * small limits a sixteenth (`ownNeeds`).
 */
const OWN_NEEDS = 32;

/** Words of `counts`, which threads share. */
const CONNECTIONS = 0;
const OTHERS = 1;

/** Fewer clients than this beside the pools are worth a warning at the start. */
const FEW_CLIENTS = 100;

/** No descriptor is left for a connection, which Bun would report as a refused one. */
export class NoDescriptor extends Error {
	constructor() {
		super("no file descriptor is left for it");
	}
}

export class Descriptors {
	static readonly WORDS = 2;
	/** Files that the process may open; Infinity where it cannot be known. */
	limit = Number.POSITIVE_INFINITY;
	/** Descriptors kept back from clients for what the pools may still open. */
	reserved = 0;
	/** Descriptors that connections have in all threads, those being opened among them (`CONNECTIONS`), and all others (`OTHERS`). */
	private readonly counts: Int32Array;
	private readonly readLimit: () => number;

	/** @param counts shared by the threads of the process */
	constructor(counts: Int32Array = new Int32Array(Descriptors.WORDS), readLimit: () => number = descriptorLimit) {
		this.counts = counts;
		this.readLimit = readLimit;
		this.look(0);
	}

	/** The janitor's tick. The limit may change while we run (`prlimit`). @param unopened connections that the pools may still open */
	look(unopened: number): void {
		this.limit = this.readLimit();
		// With pools that are larger than the limit, some clients are let in all the same.
		this.reserved = Math.min(unopened, Math.floor(this.limit / 4));
	}

	/**
	 * Finds out what the process has open beside connections, unless connections come and go meanwhile; sets right a count that has
	 * gone wrong. @param more descriptors that will be open soon
	 */
	measure(more = 0): void {
		const before = this.connections;
		const others = openDescriptors() + more - before;
		if (this.connections === before) Atomics.store(this.counts, OTHERS, others);
	}

	get connections(): number {
		return Atomics.load(this.counts, CONNECTIONS);
	}

	/** Descriptors in use, as far as is known. @param atLeast as many as the number of a new one shows */
	private used(atLeast: number): number {
		return Math.max(atLeast, this.connections + Atomics.load(this.counts, OTHERS));
	}

	/** Counts a connection that has been accepted; `free` when it is closed. */
	count(): void {
		Atomics.add(this.counts, CONNECTIONS, 1);
	}

	free(): void {
		Atomics.sub(this.counts, CONNECTIONS, 1);
	}

	/**
	 * Counts a connection that is about to be opened: to a server, whoever needs it. Such connections leave the descriptors that it
	 * takes to accept clients and refuse them.
	 * @throws NoDescriptor when none is left for it
	 */
	claim(): void {
		// Counted first: of threads that look at once none overlooks another.
		this.count();
		const limit = this.readLimit();
		const next = lowestFreeDescriptor();
		if (next >= 0 && this.used(next + 1) <= limit - 2 * ownNeeds(limit)) return;
		this.free();
		throw new NoDescriptor();
	}

	/** Room for a client that has been counted. @param fd of its socket @param refusing clients that are only let in to be told */
	roomFor(fd: number, refusing: number): Room {
		const needed = ownNeeds(this.limit);
		const free = this.limit - this.used(fd + 1);
		if (free >= this.reserved + 2 * needed) return Room.Enough;
		return free >= needed && refusing < needed ? Room.ToRefuse : Room.None;
	}

	/** A warning, when the process may open too few files. @param own files to be opened beside @param servers those of all pools */
	shortage(own: number, servers: number): string | null {
		const clients = this.clientsThatFit(lowestFreeDescriptor() + own, servers);
		if (clients >= Math.max(FEW_CLIENTS, servers)) return null;
		const room = clients > 0 ? `leave room for ${clients} clients` : "leave no room for clients";
		return `${this.limit} file descriptors (LimitNOFILE, ulimit -n) and pools of up to ${servers} server connections ${room}: raise the limit`;
	}

	/** How many more clients fit, or fewer than none. @param lowestFree the next descriptor @param unopened as in `look` */
	clientsThatFit(lowestFree: number, unopened: number): number {
		return this.limit - lowestFree - unopened - 2 * ownNeeds(this.limit);
	}
}

function ownNeeds(limit: number): number {
	return Math.min(OWN_NEEDS, Math.ceil(limit / 16));
}

/** How many files the process has open; takes the longer the more there are. */
function openDescriptors(): number {
	try {
		// One entry is the descriptor that reads the folder.
		return readdirSync("/dev/fd").length - 1;
	} catch {
		return Math.max(0, lowestFreeDescriptor());
	}
}
