// For whom the last file descriptors are: never one client more than leaves the pools theirs, never a client that hangs.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Descriptors, Room } from "../../src/net/descriptors.ts";
import { descriptorLimit, lowestFreeDescriptor, raiseDescriptorLimit } from "../../src/net/options.ts";

test("clients come in, then are told, then not even that, and the pools' part stays free", () => {
	const limits = fc.integer({ min: 32, max: 100_000 });
	fc.assert(
		fc.property(limits, fc.nat(2_000), fc.nat(31), (limit, unopened, first) => {
			const descriptors = new Descriptors(() => limit);
			descriptors.look(unopened);
			const order: Room[] = [];
			const at = (fd: number, refusing = 0) => descriptors.roomFor(fd, refusing);
			// Only where it changes: a hundred thousand steps would take long.
			for (let fd = first; fd < limit; fd += Math.max(1, limit >> 8)) order.push(at(fd));
			expect(order).toEqual(order.toSorted((a, b) => a - b));
			expect(at(limit - 1)).toBe(Room.None);
			const reserved = Math.min(unopened, Math.floor(limit / 4));
			for (let left = 0; left <= reserved; left++) expect(at(limit - 1 - left)).not.toBe(Room.Enough);
			// There is a time for telling, and more than half of what is left is for clients.
			let fd = limit - 1;
			while (at(fd) === Room.None) fd--;
			expect(at(fd)).toBe(Room.ToRefuse);
			// Not for any number of them.
			expect(at(fd, 32)).toBe(Room.None);
			while (at(fd) === Room.ToRefuse) fd--;
			expect(at(fd, 32)).toBe(Room.Enough);
			expect(fd).toBeGreaterThan(limit / 2);
		}),
	);
});

test("where the limit is not known, and where it changes", () => {
	let limit = Number.POSITIVE_INFINITY;
	const descriptors = new Descriptors(() => limit);
	expect(descriptors.roomFor(1e6, 0)).toBe(Room.Enough);
	limit = 1024;
	descriptors.look(0);
	expect([descriptors.roomFor(500, 0), descriptors.roomFor(1020, 0)]).toEqual([Room.Enough, Room.None]);
	expect(descriptors.clientsThatFit(24, 2000)).toBeLessThan(0);
	expect(descriptors.clientsThatFit(24, 100)).toBe(1024 - 24 - 100 - 64);
});

test("the limit of this process is known, raised as far as may be, and the next descriptor is below it", async () => {
	expect(descriptorLimit()).toBeGreaterThan(lowestFreeDescriptor());
	raiseDescriptorLimit();
	const hard = await new Response(Bun.spawn(["sh", "-c", "ulimit -H -n"]).stdout).text();
	expect([String(descriptorLimit()), "unlimited"]).toContain(hard.trim());
	expect(lowestFreeDescriptor()).toBe(lowestFreeDescriptor());
});
