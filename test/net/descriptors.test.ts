// For whom the last file descriptors are: never one client more than leaves the pools theirs, never a client that hangs.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Descriptors, NoDescriptor, Room } from "../../src/net/descriptors.ts";
import { descriptorLimit, lowestFreeDescriptor, raiseDescriptorLimit } from "../../src/net/options.ts";

test("clients come in, then are told, then not even that, and the pools' part stays free", () => {
	const limits = fc.integer({ min: 32, max: 100_000 });
	fc.assert(
		fc.property(limits, fc.nat(2_000), fc.nat(31), (limit, unopened, first) => {
			const descriptors = new Descriptors(undefined, () => limit);
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

// Clients that wanted a server each, at once, took all that there were: nobody could be accepted any more, and a worker span.
test("whatever threads open and accept at once, what it takes to accept a client and refuse it is left", () => {
	const step = fc.record({ thread: fc.nat(2), what: fc.constantFrom("open", "accept", "close") });
	const limits = fc.integer({ min: 8_000, max: 9_000 });
	fc.assert(
		fc.property(limits, fc.nat(100), fc.array(step, { maxLength: 60 }), (limit, unopened, steps) => {
			const counts = new Int32Array(new SharedArrayBuffer(Descriptors.WORDS * 4));
			const threads = [0, 1, 2].map(() => new Descriptors(counts, () => limit));
			for (const descriptors of threads) descriptors.look(unopened);
			// All but so many as are at stake are there already, whatever their numbers: there are holes below.
			threads[0]!.measure(limit - 120);
			const others = counts[1]!;
			const free = () => limit - others - threads[0]!.connections;
			for (const { thread, what } of [...steps, ...Array(300).fill({ thread: 0, what: "open" })]) {
				const descriptors = threads[thread]!;
				if (what === "close") {
					if (descriptors.connections > 0) descriptors.free();
					continue;
				}
				const before = free();
				if (what === "open") {
					if (before > 64) descriptors.claim();
					else expect(() => descriptors.claim()).toThrow(NoDescriptor);
				} else {
					descriptors.count();
					const room = descriptors.roomFor(100, 0);
					expect(room === Room.Enough).toBe(free() >= unopened + 64);
					expect(room === Room.None).toBe(free() < 32);
					if (room === Room.None) descriptors.free();
				}
				expect(free()).toBeGreaterThanOrEqual(Math.min(before, 32));
			}
			expect(free()).toBeLessThanOrEqual(64);
		}),
		{ numRuns: 30 },
	);
});

test("where the limit is not known, and where it changes", () => {
	let limit = Number.POSITIVE_INFINITY;
	const descriptors = new Descriptors(undefined, () => limit);
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
