// One connection, one permit: whatever fails at whatever moment, and however often a permit is asked to go back.

import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Server } from "../../src/backend/server.ts";
import { now } from "../../src/clock.ts";
import type { Descriptors } from "../../src/net/descriptors.ts";
import { closeDescriptor } from "../../src/net/options.ts";
import { socketHandlers } from "../../src/net/stream.ts";
import type { PoolContext } from "../../src/pool/context.ts";
import { Ledger } from "../../src/pool/ledger.ts";
import { Permit } from "../../src/pool/permit.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Stat } from "../../src/stats/counters.ts";
import { until } from "../support/until.ts";
import { ScriptedServer, TestWaiter, testPool } from "./support.ts";

test("a permit goes back once, however it is asked to, and not at all once it is another thread's", () => {
	const ledger = new Ledger(1, 1);
	const used = () => ledger.used(0);
	const permit = Permit.take(ledger, 0, 2)!;
	using _other = Permit.take(ledger, 0, 2)!;
	expect([used(), Permit.take(ledger, 0, 2)]).toEqual([2, null]);
	permit.release();
	permit.release();
	expect([permit.releaseAbove(0), used()]).toEqual([false, 1]);
	{
		using moved = Permit.take(ledger, 0, 2)!;
		moved.passOn();
	}
	expect(used()).toBe(2);
	{
		// Nobody has given it to a server: an attempt that was left early.
		using _left = Permit.take(ledger, 0, 3)!;
		expect(used()).toBe(3);
	}
	expect(used()).toBe(2);
	{
		using received = Permit.received(ledger, 0);
		expect([received.releaseAbove(2), received.releaseAbove(1), used()]).toEqual([false, true, 1]);
	}
	expect(used()).toBe(1);
});

// It was taken for a failed connect: the permit went back though the connection lived, and a pool of one opened a second.
test("a bug in the code of a client that is handed a fresh connection costs no permit", async () => {
	using postgres = new ScriptedServer();
	const { pool, ledger } = testPool(postgres.port, { pool_size: 1 });
	const client = new TestWaiter();
	const handed = Promise.withResolvers<void>();
	client.onServer = () => {
		handed.resolve();
		throw new TypeError("a bug");
	};
	void client.from(pool);
	await handed.promise;
	void new TestWaiter().from(pool);
	pool.tick(client.waitingSince + 10);
	expect([pool.all.size, ledger.used(0), postgres.logins]).toEqual([1, 1, 1]);
	pool.shutDown();
	expect(ledger.used(0)).toBe(0);
});

/** Clients of many kinds, each step a thing that may happen to a pool. */
const STEPS = ["take", "bug", "closer", "back", "back", "lose", "resize", "refuse", "drop", "tick", "check"] as const;

type Step = [kind: (typeof STEPS)[number], pool: Pool, n: number];

/** Two workers' shares of one pool, which give servers to each other. A connection may be lost on its way. */
class Fleet {
	readonly ledger: Ledger;
	readonly pools: Pool[];
	/** Which pool lent it. */
	readonly lent = new Map<Server, Pool>();
	size = 3;
	readonly descriptors: Descriptors;
	onTheWay = 0;
	losesNext = false;

	constructor(readonly postgres: ScriptedServer) {
		const settings = { connect_attempts: 1, connect_timeout: 200, healthcheck_timeout: 200, checkout_timeout: 1e9 };
		const made = testPool(postgres.port, { pool_size: this.size, min_pool_size: 1 }, settings, 0, 2);
		this.ledger = made.ledger;
		this.descriptors = made.context.descriptors;
		const share = (worker: number): Pool => {
			const handlers = socketHandlers((_, stream) => stream.terminate());
			const context: PoolContext = {
				...made.context,
				worker,
				handlers,
				dialling: { ...made.context.dialling, handlers },
				requestServer: (to, _slot) => queueMicrotask(() => this.pools[to]!.onServerRequested(worker)),
				offerPermit: (to) => queueMicrotask(() => this.pools[to]!.onPermitOffered()),
				giveServer: (to, slot, moving, caps) => {
					this.onTheWay++;
					if (this.losesNext && moving !== null) {
						closeDescriptor(moving.fd);
						moving = { ...moving, fd: -1 };
					}
					this.losesNext = false;
					setTimeout(() => {
						this.onTheWay--;
						this.pools[to]!.onServerGiven(moving, Permit.received(made.ledger, slot, caps));
					});
				},
			};
			return new Pool(made.pool.spec, 0, new Float64Array(Stat.length), context);
		};
		this.pools = [share(0), share(1)];
	}

	get held(): number {
		return this.pools.reduce((sum, pool) => sum + pool.all.size, 0);
	}

	/** What a socket's event does with a bug, this does for events of our own making: the pool is not asked to know. */
	async step(...step: Step): Promise<void> {
		try {
			await this.run(...step);
		} catch (error) {
			if (!(error instanceof TypeError)) throw error;
		}
	}

	private async run(...[kind, pool, n]: Step): Promise<void> {
		const { postgres, lent } = this;
		switch (kind) {
			case "take":
			case "bug":
			case "closer": {
				const client = new TestWaiter();
				const onServer = (server: Server) => {
					if (kind === "closer") server.close("by its client");
					else lent.set(server, pool);
					if (kind === "bug") throw new TypeError("a bug");
				};
				client.onServer = onServer;
				const server = pool.take(client, now());
				if (server !== null) lent.set(server, pool);
				break;
			}
			case "back":
				for (const [server, from] of [...lent].slice(0, 1)) {
					lent.delete(server);
					if (from.all.has(server)) from.onIdle(server);
				}
				break;
			case "lose":
				this.losesNext = true;
				break;
			case "resize":
				this.size = 1 + (n % 4);
				for (const each of this.pools) each.change({ ...each.spec, pool_size: this.size });
				break;
			case "refuse":
				postgres.refuse = postgres.refuse === "" ? "53300" : "";
				break;
			case "drop":
				postgres.drop();
				break;
			case "tick":
				pool.tick(Date.now());
				break;
			case "check":
				// A connection beyond the pool's size, which is kept where there is room.
				await pool.connect(200).then(
					(server) => pool.keep(server) || server.close("nobody wants it"),
					() => {},
				);
		}
		// Sometimes what was begun comes to its end before the next step, sometimes not.
		if (n % 3 === 0) await Bun.sleep(n % 2);
	}
}

test("permits in use are the connections there are, whatever happens to them in whatever order", async () => {
	using postgres = new ScriptedServer();
	const steps = fc.array(fc.record({ kind: fc.constantFrom(...STEPS), worker: fc.nat(1), n: fc.nat(11) }), {
		minLength: 5,
		maxLength: 40,
	});
	await fc.assert(
		fc.asyncProperty(steps, async (script) => {
			postgres.refuse = "";
			const fleet = new Fleet(postgres);
			const { ledger, pools, lent } = fleet;
			for (const { kind, worker, n } of script) {
				await fleet.step(kind, pools[worker]!, n);
				expect(ledger.used(0)).toBeGreaterThanOrEqual(fleet.held);
			}
			const isQuiet = () => fleet.onTheWay === 0 && pools.every(({ isConnecting }) => !isConnecting);
			// Who was lent a server gives it back: what is above the size is closed then.
			while (lent.size > 0) await fleet.step("back", pools[0]!, 1);
			await until(() => isQuiet() && ledger.used(0) <= fleet.size, "the surplus to be closed");
			expect(ledger.used(0)).toBe(fleet.held);
			for (const pool of pools) pool.shutDown();
			await until(() => isQuiet() && fleet.held === 0, "every connection to end");
			expect(ledger.used(0)).toBe(0);
			await until(() => fleet.descriptors.connections === 0, "every descriptor to be free");
		}),
		{ numRuns: 40 },
	);
});

test("a lifetime is spread once: reloads and other threads find the same, and a new lifetime keeps each server's share", async () => {
	using postgres = new ScriptedServer();
	const { pool } = testPool(postgres.port, { pool_size: 4, server_lifetime: 100_000, server_lifetime_jitter: 50_000 });
	for (let i = 0; i < 4; i++) await new TestWaiter().from(pool);
	const lifetimes = () => [...pool.all].map((server) => server.lifetime);
	const before = lifetimes();
	expect(new Set(before).size).toBe(4);
	for (const each of before) expect(Math.abs(each - 100_000)).toBeLessThanOrEqual(50_000);
	pool.change({ ...pool.spec, pool_size: 5 });
	expect(lifetimes()).toEqual(before);
	pool.change({ ...pool.spec, server_lifetime: 200_000, server_lifetime_jitter: 100_000 });
	expect(lifetimes()).toEqual(before.map((each) => 2 * each));
	pool.shutDown();
});
