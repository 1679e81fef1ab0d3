// How many files this process may open, and for whom what is left of them is. Every connection of every thread is counted before
// it is opened, or when it was accepted, so that threads that open and accept at once take together no more than there is: the
// last ones are for whoever has to be told that there is no room, and could not even be accepted without one. A client would
// hang then, and Bun (1.4.5) would try to accept it without end. The kernel gives out the lowest number that is free, so a new
// socket's number tells, too, what is in use: it knows of what others have opened, a plugin for instance. One for each thread.

import { readdirSync } from "node:fs";
import { descriptorLimit, lowestFreeDescriptor } from "./options.ts";

/** What is left for a client that has just been accepted. */
export const enum Room {
	Enough,
	/** It may stay for as long as it takes to read who it is, and to tell it. */
	ToRefuse,
	/** Not even that. */
	None,
}

/** For what comes and goes, at least: host names, connections between threads, files that a reload reads; a guess, and for small limits a sixteenth. */
const OWN_NEEDS = 32;

/** Of the memory that threads share. */
const CONNECTIONS = 0;
const OTHERS = 1;

/** No connection may be opened. Bun would tell it as one that was refused. */
export class NoDescriptor extends Error {
	constructor() {
		super("no file descriptor is left for it");
	}
}

export class Descriptors {
	static readonly WORDS = 2;
	/** Infinity where it cannot be known. */
	limit = Number.POSITIVE_INFINITY;
	/** What the pools may still open. */
	reserved = 0;
	/** Descriptors that connections have in all threads, those being opened among them; and those that the process has beside. */
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
	 * Finds out what the process has open beside connections, unless connections come and go meanwhile. One that was counted wrongly
	 * is put right, too. @param more what will be open soon
	 */
	measure(more = 0): void {
		const before = this.connections;
		const others = openDescriptors() + more - before;
		if (this.connections === before) Atomics.store(this.counts, OTHERS, others);
	}

	get connections(): number {
		return Atomics.load(this.counts, CONNECTIONS);
	}

	/** How many are in use, as far as is known. @param atLeast by their numbers */
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
	 * Counts a connection that is about to be opened: to a server, whoever needs it. They leave what it takes to accept clients and
	 * refuse them.
	 * @throws NoDescriptor when it may not be
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

	/** For a client that has been counted. @param fd of its socket @param refusing clients that are being told */
	roomFor(fd: number, refusing: number): Room {
		const needed = ownNeeds(this.limit);
		const free = this.limit - this.used(fd + 1);
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

/** How many files the process has open. Takes as long as they are many. */
function openDescriptors(): number {
	try {
		// One is for reading the folder.
		return readdirSync("/dev/fd").length - 1;
	} catch {
		return Math.max(0, lowestFreeDescriptor());
	}
}
