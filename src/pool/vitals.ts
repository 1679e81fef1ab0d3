// What is known of each server's health, in shared memory, so that all threads choose alike: bans, roles that were found out,
// how far replicas have replayed. One row for each pool (its slot in the ledger). Written by whoever finds out: a worker's pool
// for what it can reach, the monitor (monitor.ts) for roles and replication; who is banned when, bans.ts says. `version`
// changes with each ban, role and state of health: what was chosen from them (shard.ts) is kept until then.

/** Why a pool is not read from. */
export const enum Ban {
	None,
	/** No connection could be had. */
	Unreachable,
	/** A check was not answered in time, or with an error. */
	Unhealthy,
	/** `ban_replica_lag`, `ban_replica_lag_bytes` */
	Lag,
	/** BAN of the admin database: ended by UNBAN only. */
	Manual,
	/** `require_healthcheck_on_discovery`: not checked yet. */
	Unchecked,
	/** Configured as a replica, and it is none: what it says may have nothing to do with the primary any more. */
	NotReplica,
}

/** What a server with `role = "auto"` was found to be. */
export const enum FoundRole {
	/** It has not answered yet. */
	Unknown,
	Primary,
	Replica,
	/** It takes writes, on a timeline that the primary has left behind: neither read from nor written to. */
	Outdated,
}

/** Doubles of a row; times in ms since the epoch, 0 for never. */
export const enum Vital {
	bannedAt,
	/** When `ban_timeout` ends it. */
	bannedUntil,
	/** A ban does not end before then, whatever checks pass; `hold`: how long that was, ms, longer each time it fails again soon. */
	heldUntil,
	hold,
	unbannedAt,
	/** When the last check in the background began. */
	checkedAt,
	/** When the question was asked that was last answered about replication; the four behind it are of then. */
	lsnAt,
	/** Bytes of the write-ahead log: replayed by a replica, written by a primary. */
	lsn,
	/** Bytes and ms behind the primary. */
	lagBytes,
	lag,
	/** All that the primary had written by then is replayed. Infinity for a primary. */
	freshAsOf,
	/**
	 * Of the server and all pools there, in the row of one of them (`Bans.serverOf`): when the last check that it passed began, when
	 * it failed last, and when it was last asked.
	 */
	provenAt,
	doubtedAt,
	askedAt,
	/** Of the server too: when it last had no room, for how long filling.ts leaves it alone then (ms), and until when. */
	crowdedAt,
	crowdPause,
	crowdedUntil,
	/** When it was last connected to for the sake of `min_pool_size`. */
	filledAt,
	COUNT,
}

/** Words of a row. */
const enum Word {
	ban,
	role,
	unhealthy,
	/** Somebody wants the server checked now. */
	suspect,
	inRecovery,
	COUNT,
}

/** Words before the rows: version, how often a server was suspected, how often one was full. An even number aligns the doubles. */
const HEAD = 4;

export class Vitals {
	readonly memory: SharedArrayBuffer;
	private readonly words: Int32Array;
	private readonly doubles: Float64Array;

	constructor(pools: number, memory?: SharedArrayBuffer) {
		const words = (HEAD + pools * Word.COUNT + 1) & ~1;
		this.memory = memory ?? new SharedArrayBuffer(words * 4 + pools * Vital.COUNT * 8);
		this.words = new Int32Array(this.memory, 0, words);
		this.doubles = new Float64Array(this.memory, words * 4, pools * Vital.COUNT);
	}

	/** Changes whenever a choice of servers may have. */
	get version(): number {
		return Atomics.load(this.words, 0);
	}

	get(slot: number, vital: Vital): number {
		return this.doubles[slot * Vital.COUNT + vital]!;
	}

	set(slot: number, vital: Vital, value: number): void {
		this.doubles[slot * Vital.COUNT + vital] = value;
	}

	banOf(slot: number): Ban {
		return this.load(slot, Word.ban);
	}

	/** @returns false when it was banned already, for whatever reason */
	ban(slot: number, why: Ban): boolean {
		if (Atomics.compareExchange(this.words, place(slot, Word.ban), Ban.None, why) !== Ban.None) return false;
		this.changed();
		return true;
	}

	/** Bans for `why`, whatever it was banned for before. @returns false when it was banned for that already */
	banAnyway(slot: number, why: Ban): boolean {
		return this.change(slot, Word.ban, why);
	}

	/** Ends a ban for `why` and no other, which may have come since the caller looked. @returns false when there is not this one */
	endBan(slot: number, why: Ban): boolean {
		if (Atomics.compareExchange(this.words, place(slot, Word.ban), why, Ban.None) !== why) return false;
		this.changed();
		return true;
	}

	/** @returns false when it was not banned */
	unban(slot: number): boolean {
		return this.change(slot, Word.ban, Ban.None);
	}

	/** Whether the last attempt to reach the server succeeded. A new pool is well until it fails. */
	isHealthy(slot: number): boolean {
		return this.load(slot, Word.unhealthy) === 0;
	}

	/** @returns whether that is news */
	setHealthy(slot: number, healthy: boolean): boolean {
		return this.change(slot, Word.unhealthy, healthy ? 0 : 1);
	}

	suspect(slot: number): void {
		Atomics.store(this.words, place(slot, Word.suspect), 1);
		Atomics.add(this.words, 1, 1);
	}

	/** Changes whenever a server is suspected. */
	get suspicions(): number {
		return Atomics.load(this.words, 1);
	}

	crowded(): void {
		Atomics.add(this.words, 2, 1);
	}

	/** Changes whenever a server had no room. */
	get crowdings(): number {
		return Atomics.load(this.words, 2);
	}

	isSuspected(slot: number): boolean {
		return this.load(slot, Word.suspect) === 1;
	}

	/** @returns whether it was suspected: whoever asks first has to look */
	takeSuspicion(slot: number): boolean {
		return this.load(slot, Word.suspect) === 1 && Atomics.exchange(this.words, place(slot, Word.suspect), 0) === 1;
	}

	roleOf(slot: number): FoundRole {
		return this.load(slot, Word.role);
	}

	/** @returns whether that is news */
	setRole(slot: number, role: FoundRole): boolean {
		return this.change(slot, Word.role, role);
	}

	isInRecovery(slot: number): boolean {
		return this.load(slot, Word.inRecovery) === 1;
	}

	setInRecovery(slot: number, it: boolean): void {
		Atomics.store(this.words, place(slot, Word.inRecovery), it ? 1 : 0);
	}

	/** The pool left the configuration: nothing of what was known counts if it comes back. */
	clear(slot: number): void {
		this.doubles.fill(0, slot * Vital.COUNT, (slot + 1) * Vital.COUNT);
		for (let word = 0; word < Word.COUNT; word++) Atomics.store(this.words, place(slot, word), 0);
		this.changed();
	}

	private load(slot: number, word: Word): number {
		return Atomics.load(this.words, place(slot, word));
	}

	private change(slot: number, word: Word, to: number): boolean {
		if (Atomics.exchange(this.words, place(slot, word), to) === to) return false;
		this.changed();
		return true;
	}

	private changed(): void {
		Atomics.add(this.words, 0, 1);
	}
}

function place(slot: number, word: Word): number {
	return HEAD + slot * Word.COUNT + word;
}

/** A role that was found out, in the words of SHOW POOLS. */
export function foundText(role: FoundRole): string {
	switch (role) {
		case FoundRole.Primary:
			return "primary";
		case FoundRole.Replica:
			return "replica";
		case FoundRole.Outdated:
			return "outdated";
		case FoundRole.Unknown:
			return "auto";
	}
}
