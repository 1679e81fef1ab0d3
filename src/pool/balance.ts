// `load_balancing_strategy`: which of several servers gets the next read. Each strategy is a Balance; shard.ts has one for each
// shard and thread, and gives it only servers that may serve. On the hot path: nothing is allocated.

import type { General } from "../config/settings.ts";

/** What a strategy may look at. */
export interface Candidate {
	readonly spec: { readonly lb_weight: number };
	/** Servers of the pool that are at work now, and clients that wait for one, in the whole process. */
	readonly load: number;
}

export interface Balance<T extends Candidate> {
	/** Chooses one of `candidates`, of which there is at least one. */
	pick(candidates: readonly T[]): T;
}

/** `random` gives numbers in [0, 1). */
export function balance<T extends Candidate>(
	strategy: General["load_balancing_strategy"],
	random: () => number = Math.random,
): Balance<T> {
	switch (strategy) {
		case "random":
			return new Random(random);
		case "round_robin":
			return new RoundRobin(random);
		case "least_active_connections":
			return new LeastActive(random);
		case "weighted_round_robin":
			return new Weighted();
	}
}

class Random<T extends Candidate> implements Balance<T> {
	private readonly random: () => number;

	constructor(random: () => number) {
		this.random = random;
	}

	pick(candidates: readonly T[]): T {
		return candidates[Math.floor(this.random() * candidates.length)]!;
	}
}

class RoundRobin<T extends Candidate> implements Balance<T> {
	/** Threads begin at different places, so that they do not walk in step. */
	private turn: number;

	constructor(random: () => number) {
		this.turn = Math.floor(random() * 256);
	}

	pick(candidates: readonly T[]): T {
		this.turn = (this.turn + 1) & 0x3fffffff;
		return candidates[this.turn % candidates.length]!;
	}
}

class LeastActive<T extends Candidate> implements Balance<T> {
	private readonly random: () => number;

	constructor(random: () => number) {
		this.random = random;
	}

	/** Of candidates with the same load one by chance: else the first would get all of a light load. */
	pick(candidates: readonly T[]): T {
		const start = Math.floor(this.random() * candidates.length);
		let best = candidates[start]!;
		let least = best.load;
		for (let i = 1; i < candidates.length; i++) {
			const candidate = candidates[(start + i) % candidates.length]!;
			const { load } = candidate;
			if (load >= least) continue;
			best = candidate;
			least = load;
		}
		return best;
	}
}

/**
 * Smooth weighted round robin: every candidate gains its weight, the richest is chosen and pays what all have gained. So a
 * server of weight 5 beside one of weight 1 is not asked five times in a row.
 */
class Weighted<T extends Candidate> implements Balance<T> {
	private readonly credits = new Map<T, number>();
	private turn = 0;

	pick(candidates: readonly T[]): T {
		const { credits } = this;
		let total = 0;
		let best: T | null = null;
		let most = 0;
		for (const candidate of candidates) {
			const { lb_weight } = candidate.spec;
			if (lb_weight === 0) continue;
			const credit = (credits.get(candidate) ?? 0) + lb_weight;
			credits.set(candidate, credit);
			total += lb_weight;
			if (best !== null && credit <= most) continue;
			best = candidate;
			most = credit;
		}
		// All have `lb_weight` 0: such servers take turns when there is nobody else.
		if (best === null) return candidates[this.turn++ % candidates.length]!;
		credits.set(best, most - total);
		return best;
	}
}
