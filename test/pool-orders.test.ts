// PAUSE and RESUME between two processes, and what is known of who is paused: the other process is played.

import { expect, test } from "bun:test";
import type { PoolSpec } from "../src/config/snapshot.ts";
import type { Contain } from "../src/contain.ts";
import { KnownPools } from "../src/known-pools.ts";
import { NeighbourOrders, type PoolOrder, readOrder, readPaused, writePaused } from "../src/pool-orders.ts";

const ALL: PoolOrder = { order: "pause", user: null, database: null };

function neighbour() {
	const said: string[] = [];
	const timers: (() => void)[] = [];
	const other = { hears: true };
	const contain = { later: (_: number, __: unknown, work: () => void) => void timers.push(work) };
	const orders = new NeighbourOrders(contain as unknown as Contain, (id, text) => {
		if (other.hears) said.push(`${id} ${text}`);
		return other.hears;
	});
	/** Orders that are obeyed, or given up. */
	const over: string[] = [];
	const tell = (name: string) => void orders.tell(ALL).then(() => over.push(name));
	return { orders, said, timers, other, over, tell };
}

test("an order is over when it is obeyed, when that takes too long, or when nobody is there", async () => {
	const { orders, said, timers, over, tell } = neighbour();
	for (const name of ["one", "two", "three"]) tell(name);
	expect(said).toEqual([1, 2, 3].map((id) => `${id} {"order":"pause","user":null,"database":null}`));
	orders.onObeyed(2);
	orders.onObeyed(2);
	orders.onObeyed(99);
	await Bun.sleep(0);
	expect(over).toEqual(["two"]);
	timers[0]!();
	await Bun.sleep(0);
	expect(over).toEqual(["two", "one"]);
	orders.end();
	tell("four");
	await Bun.sleep(0);
	expect([over, said.length]).toEqual([["two", "one", "three", "four"], 3]);
});

test("whom the other process may not know yet is told by name", () => {
	const { orders, said } = neighbour();
	const order: PoolOrder = { ...ALL, also: [{ user: "carol", database: "shop" }] };
	void orders.tell(order);
	expect(readOrder(said[0]!.slice(2))).toEqual(order);
});

test("orders wait for one who cannot hear, each in its turn, and not without end", async () => {
	const { orders, said, other, over, tell } = neighbour();
	other.hears = false;
	for (let i = 0; i < 70; i++) tell(String(i));
	await Bun.sleep(0);
	// Nobody waits for those that were too many.
	expect(over).toEqual(["64", "65", "66", "67", "68", "69"]);
	other.hears = true;
	orders.flush();
	orders.flush();
	expect(said.map((each) => Number.parseInt(each, 10))).toEqual(Array.from({ length: 64 }, (_, i) => i + 1));
});

test("what another process says is an order, or is not", () => {
	const order: PoolOrder = { order: "resume", user: 'o\'neil "x"', database: null };
	expect(readOrder(JSON.stringify(order))).toEqual(order);
	for (const text of ["", "x", "null", "[]", "7", '{"order":"pause"}', '{"order":"go","user":null,"database":null}'])
		expect(readOrder(text)).toBe(null);
	expect(readOrder('{"order":"pause","user":1,"database":null}')).toBe(null);
	expect(readOrder('{"order":"pause","user":null,"database":null,"also":[["a"]]}')).toBe(null);
	const logins = [{ user: "a", database: 'b"' }];
	expect(readPaused(writePaused(logins))).toEqual(logins);
	for (const text of ["", "null", "{}", '{"paused":[["a"]]}', '{"paused":[["a",1]]}', '{"paused":{"a":"b"}}'])
		expect(readPaused(text)).toBe(null);
});

function known(isHeld: boolean) {
	return new KnownPools(new Map(), ...([null, null, null] as unknown as [never, never, never]), isHeld);
}

function pool(user: string, database = "shop"): PoolSpec {
	return { key: `${user}@${database}`, user, database } as PoolSpec;
}

const POOLS = [pool("alice"), pool("bob"), pool("bob", "other")];
const keys = (pools: Iterable<PoolSpec>) => [...pools].map(({ key }) => key);

test("before the process of before has spoken all are paused, then those that were so there", () => {
	const pools = known(true);
	expect([...pools.reach(POOLS, [])]).toEqual(keys(POOLS));
	expect(pools.logins).toEqual([]);
	const paused = [
		{ user: "bob", database: "shop" },
		{ user: "gone", database: "shop" },
	];
	pools.inherit(paused, POOLS, false);
	expect([...pools.reach(POOLS, [])]).toEqual(["bob@shop"]);
	expect(pools.logins).toEqual(paused.slice(0, 1));
});

test("who is paused and may come yet is so then, unless RESUME, or a reload that takes the user away, comes before", () => {
	for (const how of ["comes", "is resumed", "is another's", "is gone"]) {
		const pools = known(true);
		pools.inherit([{ user: "carol", database: "shop" }], POOLS, true);
		if (how === "is resumed") pools.obey({ order: "resume", user: null, database: "shop" }, POOLS);
		if (how === "is another's") pools.obey({ order: "resume", user: "bob", database: null }, POOLS);
		pools.reach(POOLS, how === "is gone" ? [{ user: "carol", database: "shop" }] : []);
		const isStill = how === "comes" || how === "is another's";
		expect([how, ...pools.reach([...POOLS, pool("carol")], [])]).toEqual(isStill ? [how, "carol@shop"] : [how]);
	}
});

test("PAUSE and RESUME mean a user, a database, or all", () => {
	const pools = known(false);
	expect(keys(pools.obey({ order: "pause", user: "bob", database: null }, POOLS))).toEqual(["bob@shop", "bob@other"]);
	expect(keys(pools.obey({ order: "resume", user: null, database: "shop" }, POOLS))).toEqual([
		"alice@shop",
		"bob@shop",
	]);
	expect([...pools.reach(POOLS, [])]).toEqual(["bob@other"]);
	expect(keys(pools.obey(ALL, POOLS))).toEqual(keys(POOLS));
	expect(pools.logins).toHaveLength(3);
});
