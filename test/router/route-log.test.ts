// What is remembered of decisions: the ring behind SHOW ROUTES, the rows behind an EXPLAIN, and a client's own last write.

import { describe, expect, test } from "bun:test";
import type { General } from "../../src/config/settings.ts";
import { type PoolSpec, Side } from "../../src/config/snapshot.ts";
import { PgError } from "../../src/errors.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { explainRows } from "../../src/router/explain.ts";
import { Route, ShardChoice } from "../../src/router/route.ts";
import { RouteLog } from "../../src/router/route-log.ts";
import { OwnWrites } from "../../src/session/own-writes.ts";
import { cut, dataRow } from "../support/message.ts";

const POOL = { host: "db1", port: 5432 } as PoolSpec;
const CLIENT = { pid: 7, user: "u", database: "d" };
const statements = new StatementCache(new SqlParser());

describe("the log of routes", () => {
	test("tells the newest first, with texts that show no constants", () => {
		const log = new RouteLog();
		const facts = statements.facts("SELECT 'secret', 1 FROM t -- c");
		log.note(1, CLIENT, facts, "", new Route(0, Side.Any, "statement"), POOL, 0);
		log.note(
			2,
			CLIENT,
			null,
			"SELECT 'secret'  FROM t",
			new Route(ShardChoice.All, Side.Primary, "the only choice"),
			POOL,
			3,
		);
		const refused = new Route(
			ShardChoice.All,
			Side.Replica,
			"comment",
			new PgError("ERROR", "58000", "no such shard: 9"),
		);
		log.note(3, CLIENT, facts, "", refused, null, 0);
		const shared = { client_id: 7, user: "u", database: "d" };
		expect(log.rows()).toEqual([
			{
				...shared,
				time: 3,
				query: facts.text,
				decided_by: "comment",
				shard: "all",
				side: "replica",
				server: "",
				wait: 0,
				error: "no such shard: 9",
			},
			{
				...shared,
				time: 2,
				query: "SELECT ? FROM t",
				decided_by: "the only choice",
				shard: "all",
				side: "primary",
				server: "db1:5432",
				wait: 3,
				error: null,
			},
			{
				...shared,
				time: 1,
				query: facts.text,
				decided_by: "statement",
				shard: "0",
				side: "any",
				server: "db1:5432",
				wait: 0,
				error: null,
			},
		]);
		expect(facts.text).not.toContain("secret");
	});

	test("keeps the last 512", () => {
		const log = new RouteLog();
		expect(log.rows()).toEqual([]);
		for (let time = 1; time <= 1300; time++) log.note(time, CLIENT, null, "", new Route(0, Side.Any, "x"), POOL, 0);
		expect(log.rows().map(({ time }) => time)).toEqual(Array.from({ length: 512 }, (_, i) => 1300 - i));
	});
});

describe("the rows behind an EXPLAIN", () => {
	const lines = (route: Route, role: string) =>
		cut(explainRows(route, [{ ...POOL, role }])).messages.map(({ body }) => dataRow(body)[0]);

	test("say what was asked for, by whom, and where it went", () => {
		expect(lines(new Route(2, Side.Any, 'plugin "p"'), "primary")).toEqual([
			"",
			"PgDog Routing:",
			"  Summary: shard=2 role=replica",
			'  Shard 2: decided by plugin "p"',
			"  Note: sent to primary db1:5432",
		]);
		expect(lines(new Route(ShardChoice.All, Side.Primary, "statement"), "primary").slice(2, 4)).toEqual([
			"  Summary: shard=all role=primary",
			"  All shards: decided by statement",
		]);
	});

	test("of several shards: one block that names each", () => {
		const places = [
			{ shard: 0, host: "db1", port: 5432, role: "replica" },
			{ shard: 2, host: "db2", port: 5433, role: "primary" },
		];
		const rows = cut(explainRows(new Route(ShardChoice.All, Side.Primary, "statement"), places)).messages;
		expect(rows.map(({ body }) => dataRow(body)[0]).slice(2)).toEqual([
			"  Summary: shard=all role=replica, primary",
			"  All shards: decided by statement",
			"  Note: shard 0 sent to replica db1:5432",
			"  Note: shard 2 sent to primary db2:5433",
		]);
	});

	test("of a transaction on a replica: it is there whatever was asked for", () => {
		expect(lines(new Route(0, Side.Primary, "transaction"), "replica")[2]).toBe("  Summary: shard=0 role=replica");
	});
});

describe("own writes", () => {
	const general = (read_after_write: General["read_after_write"]) =>
		({ read_after_write, read_after_write_window: 1000 }) as General;

	test("off: reads go anywhere", () => {
		const writes = new OwnWrites();
		writes.wrote(100);
		expect([writes.side(Side.Any, general("off"), 100), writes.since]).toEqual([Side.Any, 0]);
	});

	test("primary: reads go to the primary for the window, those that name a replica do not", () => {
		const writes = new OwnWrites();
		const setting = general("primary");
		expect(writes.side(Side.Any, setting, 0)).toBe(Side.Any);
		writes.wrote(100);
		expect(writes.side(Side.Any, setting, 1100)).toBe(Side.Primary);
		expect(writes.side(Side.Replica, setting, 1100)).toBe(Side.Replica);
		expect(writes.side(Side.Primary, setting, 1100)).toBe(Side.Primary);
		expect(writes.side(Side.Any, setting, 1101)).toBe(Side.Any);
		expect(writes.since).toBe(0);
	});

	test("lsn: reads say since when, writes do not care", () => {
		const writes = new OwnWrites();
		writes.wrote(100);
		expect([writes.side(Side.Any, general("lsn"), 99_999), writes.since]).toEqual([Side.Any, 100]);
		expect([writes.side(Side.Primary, general("lsn"), 99_999), writes.since]).toEqual([Side.Primary, 0]);
	});
});
