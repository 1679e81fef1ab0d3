// Where statements go by their keys, what goes before them, and what is refused.

import { describe, expect, test } from "bun:test";
import { StatementCache } from "../../src/parser/cache.ts";
import { NO_HINTS } from "../../src/parser/hints.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Placing } from "../../src/router/placing.ts";
import { Router, routeRequest } from "../../src/router/router.ts";

const table = (name: string | null, column: string, dataType = "bigint") =>
	({ schema: null, table: name, column, dataType, by: { kind: "hash", hasher: "postgres" } }) as never;
const placing = new Placing({
	shards: 3,
	tables: [table("a", "k"), table(null, "owner")],
	schemas: [],
	omnisharded: [{ schema: null, table: "o" }],
});
const topology = { shards: 3, hasPrimary: true, hasReplicas: false, placing };
const cache = new StatementCache(new SqlParser(), { tables: placing });
const router = new Router(topology, cache, null);

function route(sql: string, hints = NO_HINTS): string | number {
	const bytes = Buffer.from(sql);
	const request = { ...routeRequest(), hints, home: 2, facts: cache.factsOfQuery(bytes, 0, bytes.length, 0) };
	const { shard, error } = router.route(request);
	return error === null ? (shard < 0 ? "all" : shard) : `${error.sqlstate} ${error.message}`;
}

/** By the reference: 1, 2 and 100 of three are on 2, 0 and 2. */
describe("a statement goes", () => {
	test.each([
		["SELECT * FROM a WHERE k = 1", 2],
		["SELECT * FROM a WHERE k = 2", 0],
		["SELECT * FROM a WHERE k IN (1, 100)", 2],
		["SELECT * FROM a WHERE k IN (1, 2)", "all"],
		["SELECT * FROM a", "all"],
		["SELECT * FROM a WHERE k = 1 AND k = 2", 2],
		["SELECT count(*) FROM o", 2],
		["INSERT INTO o VALUES (1)", "all"],
		["INSERT INTO a (k) VALUES (2)", 0],
		["/* pgdog_shard: 1 */ INSERT INTO a (k) VALUES (2)", 1],
		[
			"/* pgdog_shard: 1 */ INSERT INTO o VALUES (2)",
			"58000 cannot write to an omnisharded table with a shard directive",
		],
		["/* pgdog_sharding_key: 2 */ SELECT count(*) FROM a", 0],
		["INSERT INTO a VALUES (2)", "0A000 an INSERT without a list of columns is not supported across shards"],
		["INSERT INTO a (k) VALUES (1), (2)", "0A000 a statement that inserts rows on several shards is not supported"],
		["INSERT INTO a (k) VALUES (NULL)", "0A000 a new row without a sharding key is not supported"],
		["INSERT INTO a (k) VALUES (f(2))", "0A000 the shard of a new row is not known"],
		["UPDATE a SET k = 1 WHERE k = 2", "0A000 sharding key updates are forbidden"],
		[
			"BEGIN; INSERT INTO a (k) VALUES (2); COMMIT",
			"0A000 a statement that inserts rows on several shards is not supported",
		],
		["BEGIN; UPDATE a SET x = 1 WHERE k = 2; COMMIT", "all"],
		["SELECT * FROM mine", '0A000 whether the table "mine" is sharded is not known'],
		["SELECT * FROM mine WHERE owner = 2", 0],
		["SELECT count(*) FROM a", "all"],
		["SELECT avg(x) FROM a", "0A000 the aggregate avg() is not supported across shards"],
	])("%s: %s", (sql, expected) => {
		expect(route(sql)).toBe(expected);
	});
});

test("what the session has asked for beats a key, and a comment both", () => {
	const hints = { ...NO_HINTS, shard: 1 };
	expect(route("SELECT * FROM a WHERE k = 2", hints)).toBe(1);
	expect(route("/* pgdog_shard: 2 */ SELECT * FROM a WHERE k = 2", hints)).toBe(2);
	expect(route("SELECT * FROM a WHERE k = 2", { ...NO_HINTS, shard: 9 })).toBe("58000 no such shard: 9");
});
