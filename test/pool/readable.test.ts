// Who may be read from, in shards of every kind: what bans take away must leave somebody, and whoever is read from has the role for it.
// Tables of single cases: shard.test.ts.

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { ClusterSpec, PoolSpec, Role } from "../../src/config/snapshot.ts";
import { createLog } from "../../src/log.ts";
import { Bans } from "../../src/pool/bans.ts";
import { couldServeReads, readFrom, roleOf } from "../../src/pool/readable.ts";
import { Ban, FoundRole, Vitals } from "../../src/pool/vitals.ts";

const split = fc.constantFrom(
	"include_primary",
	"exclude_primary",
	"include_primary_if_replica_banned",
	"prefer_primary",
);
/** A primary, perhaps, and replicas; or servers whose role is found out. */
const shard = fc.oneof(
	fc.record({ primary: fc.boolean(), replicas: fc.integer({ min: 0, max: 4 }) }).map(({ primary, replicas }) => ({
		roles: [...(primary ? ["primary"] : []), ...Array.from({ length: replicas }, () => "replica")] as Role[],
		found: [] as FoundRole[],
	})),
	fc
		.array(fc.constantFrom(FoundRole.Unknown, FoundRole.Replica, FoundRole.Outdated), { minLength: 1, maxLength: 4 })
		.chain((found) => fc.boolean().map((elected) => (elected ? [...found, FoundRole.Primary] : found)))
		.map((found) => ({ roles: found.map((): Role => "auto"), found })),
);
const deed = fc.record({ slot: fc.nat(4), fails: fc.boolean() });

test("whatever fails, somebody is read from wherever somebody could be, and nobody who has not the role", () => {
	fc.assert(
		fc.property(
			shard,
			split,
			fc.boolean(),
			fc.array(deed, { maxLength: 20 }),
			({ roles, found }, by, readOnly, deeds) => {
				const vitals = new Vitals(8);
				const members = roles.map((role, slot) => ({
					slot,
					spec: { key: `${slot}`, host: "h", port: slot, shard: 0, role } as PoolSpec,
				}));
				for (const [slot, role] of found.entries()) vitals.setRole(slot, role);
				const clusters = [{ pools: members.map(({ spec }) => spec) } as unknown as ClusterSpec];
				const slots = new Map(members.map(({ spec, slot }) => [spec.key, slot]));
				const general = { ban_timeout: 60_000, read_write_split: by };
				const bans = new Bans(vitals, createLog("text", "off"), { general, clusters }, slots);
				const could = () => members.some((member) => couldServeReads(member, vitals, by));
				const before = could();
				for (const [i, { slot, fails }] of deeds.entries()) {
					if (slot >= members.length) continue;
					if (fails) bans.failed(slot, Ban.Unreachable, "refused", i * 10_000);
					else bans.passed(slot, i * 10_000);
					expect(could()).toBe(before);
					const { primary, readers, replicas } = readFrom(members, vitals, by, readOnly);
					for (const member of new Set([...readers, ...replicas])) {
						const role = roleOf(member, vitals);
						expect(role).not.toBe("auto");
						if (role === "primary") expect(member).toBe(primary!);
						if (role === "primary" && members.some((each) => roleOf(each, vitals) === "replica"))
							expect(by).not.toBe("exclude_primary");
						else if (role === "replica") expect(vitals.banOf(member.slot)).toBe(Ban.None);
					}
					// Where all that is left is down, and the primary may not help, that is told at once.
					if (by !== "exclude_primary") expect(readers.length > 0).toBe(before);
					if (readOnly && replicas.some((each) => roleOf(each, vitals) === "replica"))
						expect(readers).not.toContain(primary!);
				}
			},
		),
		{ numRuns: 500 },
	);
});
