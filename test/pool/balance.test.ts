// One suite for all strategies: whatever they prefer, they choose among those that they are given, and their shares are what
// their names promise. Where a strategy makes an exception, the reason stands beside it.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { balance, type Candidate } from "../../src/pool/balance.ts";

interface Server extends Candidate {
	readonly name: string;
	load: number;
}

const STRATEGIES = ["random", "round_robin", "least_active_connections", "weighted_round_robin"] as const;
type Strategy = (typeof STRATEGIES)[number];

const server = (name: string, lb_weight = 255, load = 0): Server => ({ name, spec: { lb_weight }, load });

/** Numbers in [0, 1) that are the same in each run (a linear congruential generator). */
function dice(seed = 1): () => number {
	let state = seed;
	return () => {
		state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
		return state / 2 ** 32;
	};
}

/** How often each was chosen. */
function shares(strategy: Strategy, servers: Server[], turns: number): number[] {
	const strategist = balance<Server>(strategy, dice());
	const counts = new Map(servers.map((each) => [each, 0]));
	for (let i = 0; i < turns; i++) {
		const chosen = strategist.pick(servers);
		counts.set(chosen, counts.get(chosen)! + 1);
	}
	return [...counts.values()];
}

describe.each(STRATEGIES)("%s", (strategy) => {
	test("chooses one of those that it is given, also when their number changes from choice to choice", () => {
		const all = Array.from({ length: 6 }, (_, i) => server(String(i), i * 40, i % 3));
		const strategist = balance<Server>(strategy, dice(7));
		fc.assert(
			fc.property(fc.subarray(all, { minLength: 1 }), (some) => {
				expect(some).toContain(strategist.pick(some));
			}),
		);
	});

	test("the only one gets everything", () => {
		expect(shares(strategy, [server("one", 0)], 100)).toEqual([100]);
	});

	test("equal servers get equal shares", () => {
		const counts = shares(strategy, [server("a"), server("b"), server("c")], 9_000);
		// Chance is allowed to err: four standard deviations of a binomial distribution are 180.
		const most = strategy === "random" || strategy === "least_active_connections" ? 180 : 1;
		for (const count of counts) expect(Math.abs(count - 3_000)).toBeLessThanOrEqual(most);
	});

	test("no server has to wait long for its turn", () => {
		const servers = [server("a"), server("b"), server("c")];
		const strategist = balance<Server>(strategy, dice(3));
		const last = new Map<Server, number>();
		let longest = 0;
		for (let i = 0; i < 3_000; i++) {
			const chosen = strategist.pick(servers);
			longest = Math.max(longest, i - (last.get(chosen) ?? i));
			last.set(chosen, i);
		}
		// By chance: (2/3)^40 is 10^-7.
		expect(longest).toBeLessThanOrEqual(strategy.endsWith("round_robin") ? 3 : 40);
	});

	test("threads do not walk in step", () => {
		if (strategy === "weighted_round_robin") return; // Its order follows from the weights alone.
		const servers = [server("a"), server("b"), server("c")];
		const firsts = Array.from({ length: 30 }, (_, i) => balance<Server>(strategy, dice(i * 99)).pick(servers).name);
		expect(new Set(firsts).size).toBe(3);
	});
});

test("least_active_connections goes to whoever has least to do, and follows the loads", () => {
	const servers = [server("a", 255, 5), server("b", 255, 2), server("c", 255, 9)];
	const strategist = balance<Server>("least_active_connections", dice());
	// Nothing ends: the loads become equal, then grow together.
	for (let i = 0; i < 11; i++) strategist.pick(servers).load++;
	expect(servers.map(({ load }) => load).toSorted()).toEqual([9, 9, 9]);
	for (let i = 0; i < 30; i++) strategist.pick(servers).load++;
	expect(servers.map(({ load }) => load)).toEqual([19, 19, 19]);
});

test("least_active_connections divides a light load as well: of several with nothing to do chance decides", () => {
	const counts = shares("least_active_connections", [server("a"), server("b")], 1_000);
	for (const count of counts) expect(count).toBeGreaterThan(400);
});

describe("weighted_round_robin", () => {
	test("shares are as the weights, exactly", () => {
		expect(shares("weighted_round_robin", [server("a", 5), server("b", 1), server("c", 1)], 700)).toEqual([
			500, 100, 100,
		]);
		expect(shares("weighted_round_robin", [server("a", 255), server("b", 85)], 400)).toEqual([300, 100]);
	});

	test("it is smooth: the heavy one does not get its share in one go", () => {
		const servers = [server("a", 5), server("b", 1), server("c", 1)];
		const strategist = balance<Server>("weighted_round_robin");
		const order = Array.from({ length: 14 }, () => strategist.pick(servers).name).join("");
		expect(order).toBe("aabacaaaabacaa");
	});

	test("weight 0 is for when nobody else is there", () => {
		expect(shares("weighted_round_robin", [server("a", 0), server("b", 1)], 50)).toEqual([0, 50]);
		expect(shares("weighted_round_robin", [server("a", 0), server("b", 0)], 50)).toEqual([25, 25]);
	});

	test("any weights: no share is more than one turn off", () => {
		fc.assert(
			fc.property(fc.array(fc.integer({ min: 1, max: 255 }), { minLength: 1, maxLength: 6 }), (weights) => {
				const total = weights.reduce((sum, weight) => sum + weight, 0);
				const turns = 1_000;
				const counts = shares(
					"weighted_round_robin",
					weights.map((weight, i) => server(String(i), weight)),
					turns,
				);
				for (const [i, count] of counts.entries())
					expect(Math.abs(count - (turns * weights[i]!) / total)).toBeLessThan(weights.length);
			}),
		);
	});
});
