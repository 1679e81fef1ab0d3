// Which of a shard's servers may serve what, by split, bans and roles. No server is connected to.

import { describe, expect, test } from "bun:test";
import type { Role } from "../../src/config/snapshot.ts";
import { Side } from "../../src/config/snapshot.ts";
import type { PgError } from "../../src/errors.ts";
import type { Pool } from "../../src/pool/pool.ts";
import { type BalanceSettings, Shard } from "../../src/pool/shard.ts";
import { Ban, FoundRole, Vitals as NewVitals, Vital, type Vitals } from "../../src/pool/vitals.ts";
import { TestWaiter, testPool } from "./support.ts";

const SPLITS = ["include_primary", "exclude_primary", "include_primary_if_replica_banned", "prefer_primary"] as const;

interface Scene {
	readonly shard: Shard;
	readonly vitals: Vitals;
	/** Names of all that `pick` gives in many tries: `p`, `r1` … as in `roles`; `-` for null. */
	picks(side: Side, since?: number): string;
}

/** `p r r` is a primary in slot 0 and replicas in slots 1 and 2; `a` is auto. */
function scene(roles: string, policy: Partial<BalanceSettings> = {}, readOnly = false): Scene {
	const vitals = new NewVitals(8);
	const ROLES: Record<string, Role> = { p: "primary", r: "replica", a: "auto" };
	const names = new Map<Pool | null, string>([[null, "-"]]);
	const pools = roles.split(" ").map((letter, slot) => {
		const { pool } = testPool(1, { role: ROLES[letter]!, key: String(slot) }, {}, slot);
		names.set(pool, `${letter}${slot}`);
		return pool;
	});
	const all: BalanceSettings = {
		read_write_split: "include_primary",
		load_balancing_strategy: "round_robin",
		checkout_timeout: 1_000,
		...policy,
	};
	const shard = new Shard(pools, vitals, all, readOnly);
	const picks = (side: Side, since = 0) => {
		const found = new Set(Array.from({ length: 12 }, () => names.get(shard.pick(side, since))!));
		return [...found].toSorted().join(" ");
	};
	return { shard, vitals, picks };
}

test.each([
	["include_primary", "p0 r1 r2"],
	["exclude_primary", "r1 r2"],
	["include_primary_if_replica_banned", "r1 r2"],
	["prefer_primary", "r1 r2"],
] as const)(
	"all well, %s: reads go to %s, writes to the primary, who asks for a replica gets one",
	(split, readers) => {
		const { picks } = scene("p r r", { read_write_split: split });
		expect([picks(Side.Any), picks(Side.Primary), picks(Side.Replica)]).toEqual([readers, "p0", "r1 r2"]);
	},
);

test.each([
	["include_primary", "p0 r2"],
	["exclude_primary", "r2"],
	["include_primary_if_replica_banned", "p0 r2"],
	["prefer_primary", "r2"],
] as const)("a replica is banned, %s: reads go to %s", (split, readers) => {
	const { vitals, picks } = scene("p r r", { read_write_split: split });
	expect(picks(Side.Any)).toContain("r1");
	vitals.ban(1, Ban.Unreachable);
	expect([picks(Side.Any), picks(Side.Replica), picks(Side.Primary)]).toEqual([readers, "r2", "p0"]);
	vitals.unban(1);
	expect(picks(Side.Any)).toContain("r1");
});

describe("no replica may serve", () => {
	test.each(SPLITS)("%s", (split) => {
		const { shard, vitals, picks } = scene("p r r", { read_write_split: split });
		vitals.ban(1, Ban.Lag);
		vitals.ban(2, Ban.Manual);
		const excluded = split === "exclude_primary";
		expect([picks(Side.Any), picks(Side.Replica), picks(Side.Primary)]).toEqual(
			excluded ? ["-", "-", "p0"] : ["p0", "p0", "p0"],
		);
		if (!excluded) return;
		const { severity, sqlstate, message, hint } = shard.refusal(Side.Any);
		expect([severity, sqlstate, message]).toEqual(["ERROR", "58000", "all replicas down"]);
		expect(hint).toContain("exclude_primary");
	});

	test("exclude_primary: the last one, which nobody bans, counts as down while it is not well", () => {
		const { vitals, picks } = scene("p r r", { read_write_split: "exclude_primary" });
		vitals.ban(1, Ban.Unreachable);
		expect(picks(Side.Any)).toBe("r2");
		vitals.setHealthy(2, false);
		expect([picks(Side.Any), picks(Side.Replica)]).toEqual(["-", "-"]);
		vitals.setHealthy(2, true);
		expect(picks(Side.Any)).toBe("r2");
	});

	test("exclude_primary means nothing where there is no replica", () => {
		expect(scene("p", { read_write_split: "exclude_primary" }).picks(Side.Any)).toBe("p0");
	});
});

test("a banned primary serves no reads while somebody else does, and all writes", () => {
	const { vitals, picks } = scene("p r");
	vitals.ban(0, Ban.Unhealthy);
	expect([picks(Side.Any), picks(Side.Primary)]).toEqual(["r1", "p0"]);
});

test("replicas alone serve what they can; a write has no place", () => {
	const { shard, picks } = scene("r r");
	expect([picks(Side.Any), picks(Side.Replica), picks(Side.Primary)]).toEqual(["r0 r1", "r0 r1", "-"]);
	expect([shard.hasPrimary, shard.hasReplicas, shard.election]).toEqual([false, true, null]);
	expect(shard.refusal(Side.Primary).message).toBe("no primary");
});

test.each(SPLITS)("who may only read keeps off the primary while a replica is well: %s", (split) => {
	const { vitals, picks } = scene("p r", { read_write_split: split }, true);
	expect(picks(Side.Any)).toBe("r1");
	vitals.ban(1, Ban.Unreachable);
	expect(picks(Side.Any)).toBe(split === "exclude_primary" ? "-" : "p0");
});

describe("a client that has written", () => {
	test("reads where its write has arrived: the primary has everything, a replica what it has replayed", () => {
		const { vitals, picks } = scene("p r r");
		vitals.set(1, Vital.freshAsOf, 50);
		vitals.set(2, Vital.freshAsOf, 10);
		expect([picks(Side.Any, 5), picks(Side.Any, 30), picks(Side.Any, 90)]).toEqual(["p0 r1 r2", "p0 r1", "p0"]);
		expect([picks(Side.Replica, 30), picks(Side.Replica, 90)]).toEqual(["r1", "p0"]);
	});

	test("it goes to the primary when no replica has it, even where reads are kept from there", () => {
		const { picks } = scene("p r", { read_write_split: "exclude_primary" });
		expect([picks(Side.Any, 30), picks(Side.Any)]).toEqual(["p0", "r1"]);
	});
});

// Each ban of any server made all who waited choose anew, and lose their places.
test("who waits where it is well has no reason to leave, whatever happens to others", () => {
	const { shard, vitals } = scene("p r r");
	const [primary, replica, other] = shard.pools as [Pool, Pool, Pool];
	const serves = (pool: Pool, side: Side, since = 0) => shard.serves(pool, side, since);
	vitals.ban(2, Ban.Unreachable);
	expect([serves(primary, Side.Any), serves(replica, Side.Any), serves(replica, Side.Replica)]).toEqual([
		true,
		true,
		true,
	]);
	expect([serves(other, Side.Any), serves(replica, Side.Primary), serves(primary, Side.Primary)]).toEqual([
		false,
		false,
		true,
	]);
	vitals.set(1, Vital.freshAsOf, 10);
	expect([serves(replica, Side.Any, 5), serves(replica, Side.Any, 20), serves(primary, Side.Any, 20)]).toEqual([
		true,
		false,
		true,
	]);
	vitals.setHealthy(1, false);
	expect(serves(replica, Side.Any)).toBe(false);
});

describe("roles that are found out", () => {
	test("choose who serves what, from one moment to the next", () => {
		const { vitals, picks, shard } = scene("a a a");
		expect([picks(Side.Any), picks(Side.Primary), shard.isUnknown]).toEqual(["-", "-", true]);
		vitals.setRole(0, FoundRole.Primary);
		vitals.setRole(1, FoundRole.Replica);
		expect([picks(Side.Any), picks(Side.Primary), shard.isUnknown]).toEqual(["a0 a1", "a0", false]);
		vitals.setRole(2, FoundRole.Primary);
		vitals.setRole(0, FoundRole.Outdated);
		expect([picks(Side.Any), picks(Side.Primary)]).toEqual(["a1 a2", "a2"]);
	});

	test("who waits for an election while the database is paused has all of its time when it is resumed", () => {
		const { shard, vitals } = scene("a a");
		const waiter = new TestWaiter();
		shard.election!.wait(waiter, 0);
		shard.tick(900, false);
		for (const pool of shard.pools) pool.pause();
		for (let time = 1_000; time <= 100_000; time += 100) shard.tick(time, false);
		// A result is told all the same: it may wait on in the queue of a pool.
		vitals.setRole(0, FoundRole.Replica);
		shard.tick(100_000, true);
		expect(waiter.told).toBe(1);
		for (const pool of shard.pools) pool.resume();
		shard.tick(100_900, false);
		expect(waiter.error).toBeNull();
		shard.tick(101_000, false);
		expect(waiter.error).toMatchObject({ message: "no primary" });
	});

	test("who waits for an election is told its result, or that its time is over", () => {
		const { shard, vitals } = scene("a a");
		const election = shard.election!;
		const elsewhere: TestWaiter[] = [];
		const waiters = Array.from({ length: 3 }, () => {
			const waiter: TestWaiter = new TestWaiter();
			waiter.onElsewhere = () => {
				elsewhere.push(waiter);
				election.leave(waiter);
			};
			return waiter;
		});
		const [early, gone, late] = waiters as [TestWaiter, TestWaiter, TestWaiter];
		election.wait(early, 0);
		election.wait(gone, 100);
		election.wait(late, 900);
		election.leave(gone);
		shard.tick(999, false);
		expect(waiters.map(({ error }) => error)).toEqual([null, null, null]);
		shard.tick(1_000, false);
		expect(waiters.map(({ error }: { error: PgError | null }) => error?.message)).toEqual([
			"no primary",
			undefined,
			undefined,
		]);
		vitals.setRole(0, FoundRole.Primary);
		shard.tick(1_100, true);
		expect(elsewhere).toEqual([late]);
		shard.tick(5_000, true);
		expect([elsewhere.length, late.error, gone.error]).toEqual([1, null, null]);
	});
});
