// The settings that a server reports (ParameterStatus). A set of them is made only when somebody asks for it: a server may
// send thousands of reports at once. Bounded: who reports more than PostgreSQL could is no PostgreSQL, and is closed.

import type { ParameterSet, ParameterSets } from "./parameters.ts";

/** Names and values together, characters. PostgreSQL reports some 15 settings of a few bytes each; a guess, generous. */
const MOST = 1 << 20;

export class Reports {
	private readonly sets: ParameterSets;
	private set: ParameterSet;
	/** Reports that have come since `set` was made, by name; null when there are none. */
	private changes: Map<string, string> | null = null;
	/** Characters that `changes` take. */
	private size = 0;
	/** How many have come; written here only. */
	count = 0;

	constructor(sets: ParameterSets) {
		this.sets = sets;
		this.set = sets.empty;
	}

	/** @returns false when there is too much of it */
	add(name: string, value: string): boolean {
		this.count++;
		this.changes ??= new Map();
		const before = this.changes.get(name);
		this.size += before === undefined ? name.length + value.length : value.length - before.length;
		this.changes.set(name, value);
		return this.set.bytes + this.size <= MOST;
	}

	get now(): ParameterSet {
		if (this.changes !== null) this.now = this.sets.change(this.set, this.changes);
		return this.set;
	}

	set now(set: ParameterSet) {
		this.set = set;
		this.changes = null;
		this.size = 0;
	}
}
