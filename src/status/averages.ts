// The avg_ columns of SHOW STATS: what the counters of a pool gained over `stats_period`, for each second or each item, as
// PgDog and PgBouncer count. The main thread samples at the end of each period; until the next sample the numbers stand still.

import { Stat } from "../stats/counters.ts";
import type { PoolRow } from "./rows.ts";

/** What a gain is divided by: seconds; for times the number of their items, at least 1, so that nothing is divided by zero. */
function divisor(stat: Stat, gained: Float64Array, seconds: number): number {
	switch (stat) {
		case Stat.xact_time:
			return Math.max(1, gained[Stat.xact_count]!);
		case Stat.query_time:
			return Math.max(1, gained[Stat.query_count]!);
		case Stat.wait_time:
			return Math.max(1, gained[Stat.server_assignment_count]!);
		case Stat.connect_time:
			return Math.max(1, gained[Stat.connect_count]!);
		case Stat.idle_xact_time:
			// A transaction waits for its client once less than it has queries.
			return Math.max(1, gained[Stat.query_count]! - gained[Stat.xact_count]!);
		default:
			return seconds;
	}
}

export class AverageSampler {
	private readonly before = new Map<string, Float64Array>();
	private readonly averages = new Map<string, Float64Array>();
	private readonly none = new Float64Array(Stat.length);
	private sampledAt = 0;

	/**
	 * Ends a period; call it every `stats_period`.
	 * @param time ms since the epoch, or of any clock; the length of the period is taken from it
	 */
	sample(pools: Iterable<Pick<PoolRow, "key" | "counters">>, time: number): void {
		const seconds = (time - this.sampledAt) / 1000;
		this.sampledAt = time;
		const seen = new Set<string>();
		for (const { key, counters } of pools) {
			seen.add(key);
			const before = this.before.get(key);
			// Of many pools most have not been used since the last sample.
			if (before !== undefined && isSame(before, counters)) {
				if (seconds > 0) this.averages.delete(key);
				continue;
			}
			this.before.set(key, counters.slice());
			// A pool seen for the first time has gained all it has in who knows how long: its first period is the next one.
			// A clock set back makes no period at all.
			if (before !== undefined && seconds > 0) this.averages.set(key, average(before, counters, seconds));
		}
		for (const key of [...this.before.keys()]) {
			if (seen.has(key)) continue;
			this.before.delete(key);
			this.averages.delete(key);
		}
	}

	/** Averages of the pool with this `PoolSpec.key`, by `Stat`; zeros until a whole period has passed. Those of gauges mean nothing. */
	of(key: string): Float64Array {
		return this.averages.get(key) ?? this.none;
	}
}

function isSame(a: Float64Array, b: Float64Array): boolean {
	for (let i = 0; i < Stat.length; i++) if (a[i] !== b[i]) return false;
	return true;
}

function average(before: Float64Array, after: Float64Array, seconds: number): Float64Array {
	// Never negative: a pool that left and came back under the same key starts again from zero.
	const gained = after.map((value, i) => Math.max(0, value - before[i]!));
	return gained.map((value, i) => value / divisor(i, gained, seconds));
}
