// Which pools hear of each other's DDL: those of one database, whoever logs in, whatever it is called, and its replicas.

import { expect, test } from "bun:test";
import type { ClusterSpec, PoolSpec } from "../../src/config/snapshot.ts";
import { databasesOf, placeDatabases } from "../../src/pool/databases.ts";

/** Clusters, each a list of `host/database`, with `#shard` behind it. Keys are made of the place in the list. */
function groups(...clusters: string[][]): number[] {
	const slots = new Map<string, number>();
	const specs = clusters.map((pools, c) => ({
		pools: pools.map((text, p) => {
			const [address = "", shard = "0"] = text.split("#");
			const [host, database_name] = address.split("/");
			const key = `${c}.${p}`;
			slots.set(key, slots.size);
			return { key, host, port: 5432, database_name, shard: Number(shard) } as PoolSpec;
		}),
	})) as unknown as ClusterSpec[];
	return [...databasesOf(specs, slots).values()];
}

test("each database is alone", () => {
	expect(groups(["a/x"], ["a/y"], ["b/x"])).toEqual([0, 1, 2]);
});

test("users of one database, and other names for it, are together", () => {
	expect(groups(["a/x"], ["b/x"], ["a/x"])).toEqual([0, 1, 0]);
});

test("a primary and its replicas are together, shards are not", () => {
	expect(groups(["a/x", "b/x"], ["c/x"])).toEqual([0, 0, 2]);
	expect(groups(["a/x#0", "b/x#0", "a/y#1", "b/y#1"])).toEqual([0, 0, 2, 2]);
});

test("who is together with somebody is together with all of them", () => {
	expect(groups(["c/x"], ["a/x", "b/x"], ["b/x", "c/x"], ["d/x"])).toEqual([0, 0, 0, 0, 0, 5]);
});

test("a place that a database comes to, or back to, has a number that nothing was parsed by", () => {
	const spec = (key: string) => ({ key, host: "a", port: 5432, database_name: "x", shard: 0 }) as PoolSpec;
	const [alice, bob] = [
		{ slot: 5, database: 5 },
		{ slot: 2, database: 2 },
	];
	const pools = new Map([
		["alice", alice],
		["bob", bob],
	]);
	const changed: number[] = [];
	const place = (...keys: string[]) => {
		changed.length = 0;
		const clusters = [{ pools: keys.map(spec) }] as unknown as ClusterSpec[];
		placeDatabases(clusters, pools, { catalogueChanged: (at) => changed.push(at) });
		return [alice.database, bob.database, ...changed];
	};
	expect(place("alice")).toEqual([5, 2]);
	expect(place("alice", "bob")).toEqual([2, 2]);
	expect(place("alice", "bob")).toEqual([2, 2]);
	// Whatever was altered meanwhile was noted at 2.
	expect(place("alice")).toEqual([5, 2, 5]);
});
