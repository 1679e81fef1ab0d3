// Where statements go in clusters of every shape, without plugins and with real ones (test/plugin/fixtures/witness answers what
// a statement asks it for).

import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import type { KeyType } from "../../src/config/sharding.ts";
import { Side } from "../../src/config/snapshot.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { type Hints, NO_HINTS } from "../../src/parser/hints.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { NO_PLUGINS } from "../../src/plugin/abi.ts";
import type { Bridge } from "../../src/plugin/bridge.ts";
import { PluginHost } from "../../src/plugin/host.ts";
import { Placing } from "../../src/router/placing.ts";
import { type Route, ShardChoice } from "../../src/router/route.ts";
import {
	type DecidingSettings,
	type RouteRequest,
	Router,
	routeRequest,
	type Topology,
} from "../../src/router/router.ts";
import {
	BUILD_TIMEOUT,
	bind,
	bridge,
	buildFixture,
	copy,
	describeWithCargo,
	folder,
	Lines,
	load,
} from "../plugin/support.ts";

const ONE: Topology = { shards: 1, hasPrimary: true, hasReplicas: false };
const SPLIT: Topology = { shards: 1, hasPrimary: true, hasReplicas: true };
const REPLICAS: Topology = { shards: 1, hasPrimary: false, hasReplicas: true };
const SHARDS: Topology = { shards: 4, hasPrimary: true, hasReplicas: true };
const PRIMARIES: Topology = { shards: 4, hasPrimary: true, hasReplicas: false };

const parser = new SqlParser();
const statements = new StatementCache(parser);

const request = (router: Router, sql: string, more: Partial<RouteRequest> = {}): RouteRequest => ({
	...routeRequest(),
	sql,
	facts: router.needsFacts ? router.statements.facts(sql) : null,
	...more,
});
const SIDES = { [Side.Primary]: "write", [Side.Any]: "read", [Side.Replica]: "replica" };
/** `2 read by statement`, or the error. */
function line({ shard, side, error, decidedBy }: Route): string {
	if (error !== null) return `${error.sqlstate} ${error.message}`;
	return `${shard === ShardChoice.All ? "all" : shard} ${SIDES[side]} by ${decidedBy}`;
}

const deep = `SELECT ${"(SELECT ".repeat(3300)}1${")".repeat(3300)}`;

const CONSERVATIVE: DecidingSettings = {
	read_write_strategy: "conservative",
	read_write_split: "include_primary",
	expanded_explain: false,
	cross_shard_disabled: false,
	cross_shard_unmerged: "refuse",
	cross_shard_functions: undefined,
};

describe("without plugins", () => {
	const ask = (topology: Topology, sql: string, inTransaction = false) => {
		const router = new Router(topology, statements, null);
		return line(router.route(request(router, sql, { inTransaction })));
	};

	test("one pool, or replicas alone, leave nothing to decide, so that nothing is parsed", () => {
		const idle = new SqlParser();
		const host = new PluginHost(NO_PLUGINS, { log: new Lines(false) });
		for (const topology of [ONE, REPLICAS]) {
			const router = new Router(topology, new StatementCache(idle), host);
			expect(router.needed).toBe(false);
			for (const sql of ["SELECT 1", "DELETE FROM t", "SELEC"]) {
				const expected = `0 ${topology.hasPrimary ? "write" : "read"} by the only choice`;
				expect(line(router.route(request(router, sql)))).toBe(expected);
				expect(line(router.routeUnbound(request(router, sql, { inTransaction: true })))).toBe(expected);
			}
		}
		expect(idle.instances).toBe(0);
		for (const topology of [SPLIT, SHARDS, PRIMARIES]) expect(new Router(topology, statements, null).needed).toBe(true);
	});

	test.each([
		["SELECT a FROM t", "read by statement"],
		["COPY t TO STDOUT", "read by statement"],
		["SELECT a FROM t FOR UPDATE", "write by statement"],
		["INSERT INTO t VALUES (1)", "write by statement"],
		["SET work_mem = 100", "write by statement"],
		["SELECT 1; DELETE FROM t", "write by statement"],
		["SELECT set_config('a.b', 'c', false)", "write by statement"],
		["BEGIN", "write by transaction"],
		["BEGIN READ ONLY", "read by transaction"],
		["BEGIN READ ONLY; DELETE FROM t", "write by transaction"],
		["BEGIN READ ONLY; SELECT 1", "write by transaction"],
		["COMMIT", "write by transaction"],
		["SELECT a FROM t WHERE '\\' NOT /* c */ IN ('\\')", "read by statement"],
	])("%s goes to %s", (sql, expected) => {
		expect(ask(SPLIT, sql)).toBe(`0 ${expected}`);
		expect(ask(SHARDS, sql)).toBe(`all ${expected}`);
		expect(ask(PRIMARIES, sql)).toBe(`all ${expected.replace("read", "write")}`);
	});

	test.each([
		["", "read", 2],
		["SELECT 1", "read", 2],
		["SELECT '\\' NOT /* c */ IN ('\\')", "read", 2],
		["SHOW work_mem", "write", 2],
		["SELECT relname FROM pg_class ORDER BY 1", "read", 2],
		["SELECT nextval('s')", "write", 0],
	])("%s is asked of one of several shards", (sql, side, shard) => {
		for (const inTransaction of [false, true]) {
			const router = new Router(SHARDS, statements, null);
			const by = inTransaction ? "write by transaction" : `${side} by statement`;
			expect(line(router.route(request(router, sql, { inTransaction, home: 2 })))).toBe(`${shard} ${by}`);
		}
		expect(ask(SPLIT, sql)).toBe(`0 ${side} by statement`);
	});

	describe("what all shards would answer wrongly", () => {
		const route = (
			sql: string,
			policy: Partial<DecidingSettings> = {},
			more: Partial<RouteRequest> = {},
			topology = SHARDS,
		) => {
			const router = new Router(topology, statements, null, { ...CONSERVATIVE, ...policy });
			return router.route(request(router, sql, { home: 2, ...more }));
		};
		const COUNT = "SELECT count(*), 1 FROM t";
		const CALL = "SELECT app.mine(1)";

		test("is refused, with the part that is to blame, and what to do", () => {
			const { error } = route(COUNT);
			expect(error).toMatchObject({
				sqlstate: "0A000",
				message: "the aggregate count() is not supported across shards",
			});
			expect(error?.detail).toContain("all 4 shards");
			expect(error?.hint).toContain('cross_shard_unmerged = "permit"');
			for (const sql of ["BEGIN; SELECT * FROM t LIMIT 1 + 1", "SELECT a FROM t ORDER BY b"])
				expect(line(route(sql))).toStartWith("0A000 ");
			expect(line(route(COUNT, {}, { inTransaction: true }))).toStartWith("0A000 ");
		});

		test("is none for one shard, nor where nothing is run yet", () => {
			const one = (sql: string, more: Partial<RouteRequest> = {}) => line(route(sql, {}, more));
			expect(one(`/* pgdog_shard: 1 */ ${COUNT}`)).toBe("1 read by comment");
			expect(one(COUNT, { hints: { ...NO_HINTS, shard: 3 } })).toBe("3 read by pgdog setting");
			expect(line(route(COUNT, {}, {}, SPLIT))).toBe("0 read by statement");
			expect(line(route(COUNT, {}, {}, { ...SHARDS, shards: 1 }))).toBe("0 read by statement");
			const router = new Router(SHARDS, statements, null);
			expect(line(router.routeUnbound(request(router, COUNT)))).toBe("all read by statement");
		});

		test("is not what can be done where rows are merged", () => {
			for (const sql of [
				"SELECT * FROM t LIMIT 1",
				"SELECT a FROM t ORDER BY a",
				"SELECT DISTINCT a FROM t ORDER BY 1",
			])
				expect(line(route(sql))).toBe("all read by statement");
		});

		test("passes where the setting permits it, and goes to all", () => {
			for (const sql of [COUNT, CALL])
				expect(line(route(sql, { cross_shard_unmerged: "permit" }))).toBe("all read by statement");
			expect(line(route("SELECT 1", { cross_shard_unmerged: "permit" }))).toBe("2 read by statement");
		});

		test("may be a function that nobody knows, unless it is listed", () => {
			const { error } = route(CALL);
			expect(error?.message).toBe("the function app.mine() is not supported across shards");
			expect(error?.hint).toContain("cross_shard_functions");
			const listed: Partial<DecidingSettings> = { cross_shard_functions: "app.mine, other" };
			expect(line(route(CALL, listed))).toBe("2 read by statement");
			expect(line(route("SELECT app.mine(a), other(a) FROM t", listed))).toBe("all read by statement");
			expect(line(route("SELECT mine(1)", listed))).toStartWith("0A000 the function mine()");
			expect(line(route("SELECT app.mine(a), count(*) FROM t", listed))).toStartWith("0A000 the aggregate count()");
		});
	});

	describe("cross_shard_disabled", () => {
		const DISABLED: DecidingSettings = { ...CONSERVATIVE, cross_shard_disabled: true };
		const route = (sql: string, more: Partial<RouteRequest> = {}, topology: Topology = SHARDS) => {
			const router = new Router(topology, statements, null, DISABLED);
			return router.route(request(router, sql, { home: 2, ...more }));
		};
		const REFUSED = "58000 cross-shard queries are disabled";

		test.each(["SELECT * FROM t", "SELECT count(*) FROM t", "CREATE TABLE t ()", "BEGIN; DELETE FROM t"])(
			"refuses what would go to several shards: %s",
			(sql) => {
				expect(line(route(sql))).toBe(REFUSED);
				expect(line(route(sql, { inTransaction: true }))).toBe(REFUSED);
				expect(line(route(sql, {}, { ...SHARDS, shards: 1 }))).not.toContain("58000");
			},
		);

		test("tells the statement without its constants", () => {
			expect(route("DELETE FROM t WHERE a = 'secret'").error?.detail).toBe(
				"query doesn't have a sharding key: DELETE FROM t WHERE a = ?",
			);
		});

		test("lets through what is for one shard, or about the session or the transaction", () => {
			expect(line(route("/* pgdog_shard: 1 */ SELECT * FROM t"))).toBe("1 read by comment");
			expect(line(route("SELECT 1"))).toBe("2 read by statement");
			for (const sql of ["BEGIN", "SET work_mem = '1MB'", "DISCARD ALL", "LISTEN c"])
				expect(line(route(sql))).not.toContain("58000");
		});

		test("tells of a key that no mapping names", () => {
			const by = { kind: "mapping", lists: [{ values: ["1"], shard: 3 }], ranges: [], others: null } as const;
			const table = { schema: null, table: null, column: "id", dataType: "bigint", by } as const;
			const placing = new Placing({ shards: 4, tables: [table], schemas: [], omnisharded: [] });
			const keyed = (key: string) =>
				line(route("SELECT * FROM t", { hints: { ...NO_HINTS, shardingKey: key } }, { ...SHARDS, placing }));
			expect(keyed("1")).toBe("3 read by pgdog setting");
			expect(keyed("7")).toBe("58000 unmapped sharding key was specified");
		});

		test("is as the user has it, when he has it", () => {
			expect(line(route("SELECT * FROM t", {}, { ...SHARDS, cross_shard_disabled: false }))).toBe(
				"all read by statement",
			);
			const permits = new Router({ ...SHARDS, cross_shard_disabled: true }, statements, null, CONSERVATIVE);
			expect(line(permits.route(request(permits, "SELECT * FROM t")))).toBe(REFUSED);
		});
	});

	describe("a key of a hint, where tables are sharded,", () => {
		const placed = (...tables: [column: string, dataType: KeyType][]) => {
			const by = { kind: "hash", hasher: "postgres" } as const;
			const all = tables.map(([column, dataType]) => ({ schema: null, table: null, column, dataType, by }));
			const placing = new Placing({ shards: 4, tables: all, schemas: [], omnisharded: [] });
			const router = new Router({ ...SHARDS, placing }, statements, null);
			return (sql: string, shardingKey: string | null = null) =>
				line(router.route(request(router, sql, { hints: { ...NO_HINTS, shardingKey } })));
		};
		const keyed = (key: string) => `/* pgdog_sharding_key: "${key}" */ SELECT * FROM t`;

		test("is a value of their only function", () => {
			const one = placed(["id", "varchar"], ["user_id", "varchar"]);
			expect(one(keyed("apples"))).toBe("1 read by comment");
			expect(one("SELECT * FROM t", "4")).toBe("1 read by pgdog setting");
			expect(placed(["n", "bigint"])("SELECT * FROM t", "4")).toBe("3 read by pgdog setting");
		});

		test("is refused where there are several, and where it is no value of their type", () => {
			const SEVERAL = "42601 config has more than one sharding function";
			expect(placed(["id", "varchar"], ["n", "bigint"])(keyed("4"))).toBe(SEVERAL);
			const INVALID = "42601 sharding key value isn't valid";
			expect(placed(["n", "bigint"])(keyed("x"))).toBe(INVALID);
			expect(placed(["n", "bigint"])("SELECT * FROM t", "x")).toBe(INVALID);
		});

		test("that the session has SET wrongly can be SET anew", () => {
			expect(placed(["n", "bigint"])("SET work_mem = '1MB'", "x")).toStartWith("all ");
		});
	});

	const AGGRESSIVE: DecidingSettings = { ...CONSERVATIVE, read_write_strategy: "aggressive" };
	const PREFER: DecidingSettings = { ...CONSERVATIVE, read_write_split: "prefer_primary" };

	/** The first statement of a transaction that was begun with `begin`. */
	const first = (begin: string, sql: string, policy = CONSERVATIVE, topology = SPLIT) => {
		const router = new Router(topology, statements, null, policy);
		return line(router.route(request(router, sql, { begun: statements.facts(begin).transaction })));
	};

	test.each([
		["BEGIN", "SELECT 1", "write", "read"],
		["BEGIN", "SELECT nextval('s')", "write", "write"],
		["BEGIN", "INSERT INTO t VALUES (1)", "write", "write"],
		["BEGIN", "SELECT 1 FOR UPDATE", "write", "write"],
		["BEGIN", "SET LOCAL work_mem = 100", "write", "write"],
		["BEGIN READ WRITE", "SELECT 1", "write", "write"],
		["BEGIN READ ONLY", "SELECT 1", "read", "read"],
		["BEGIN READ ONLY", "SHOW work_mem", "read", "read"],
		["BEGIN READ ONLY", "DELETE FROM t", "write", "write"],
		["START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY", "SELECT 1", "write", "write"],
	])("%s, then %s: conservative %s, aggressive %s", (begin, sql, conservative, aggressive) => {
		expect(first(begin, sql)).toBe(`0 ${conservative} by transaction`);
		expect(first(begin, sql, AGGRESSIVE)).toBe(`0 ${aggressive} by transaction`);
		expect(first(begin, sql, PREFER)).toBe("0 write by read_write_split");
	});

	test("who may only read has its transactions on replicas, unless they say READ WRITE or write", () => {
		const topology = { ...SPLIT, readOnly: true };
		expect(first("BEGIN", "SELECT 1", CONSERVATIVE, topology)).toBe("0 read by transaction");
		expect(first("BEGIN", "INSERT INTO t VALUES (1)", CONSERVATIVE, topology)).toBe("0 write by transaction");
		expect(first("BEGIN READ WRITE", "SELECT 1", CONSERVATIVE, topology)).toBe("0 write by transaction");
		expect(first("BEGIN ISOLATION LEVEL SERIALIZABLE", "SELECT 1", CONSERVATIVE, topology)).toBe(
			"0 write by transaction",
		);
		expect(ask(topology, "SHOW work_mem")).toBe("0 read by statement");
		expect(ask(topology, "DELETE FROM t")).toBe("0 write by statement");
	});

	describe("hints", () => {
		const hinted = (sql: string, hints: Partial<Hints> = {}, topology = SPLIT, policy = CONSERVATIVE) => {
			const router = new Router(topology, statements, null, policy);
			return line(router.route(request(router, sql, { hints: { ...NO_HINTS, ...hints } })));
		};

		test("a comment's role wins over the session's, and neither makes a replica write", () => {
			expect(hinted("/* pgdog_role: primary */ SELECT 1")).toBe("0 write by comment");
			expect(hinted("SELECT 1 /* pgdog_role: replica */")).toBe("0 replica by comment");
			expect(hinted("SELECT 1", { role: "replica" })).toBe("0 replica by pgdog setting");
			expect(hinted("SELECT 1", { role: "primary" })).toBe("0 write by pgdog setting");
			expect(hinted("/* pgdog_role: primary */ SELECT 1", { role: "replica" })).toBe("0 write by comment");
			expect(hinted("/* pgdog_role: replica */ DELETE FROM t")).toBe("0 write by statement");
			expect(hinted("DELETE FROM t", { role: "replica" })).toBe("0 write by statement");
			expect(hinted("SELECT 1", { role: "replica" }, SPLIT, PREFER)).toBe("0 replica by pgdog setting");
			expect(hinted("SELECT 1", {}, SPLIT, PREFER)).toBe("0 write by read_write_split");
			expect(hinted("SELECT 1", { role: "primary" }, REPLICAS)).toBe("0 read by the only choice");
		});

		test("a shard is named by its number or by a key, which beats the number; a comment beats the session", () => {
			expect(hinted("/* pgdog_shard: 2 */ DELETE FROM t", {}, SHARDS)).toBe("2 write by comment");
			expect(hinted("SELECT 1", { shard: 3 }, SHARDS)).toBe("3 read by pgdog setting");
			expect(hinted("/* pgdog_shard: 2 */ SELECT 1", { shard: 3 }, SHARDS)).toBe("2 read by comment");
			// Of PostgreSQL's own hash: 1 and 11 of four shards (reference: 0 and 1).
			expect(hinted("/* pgdog_sharding_key: 11 */ SELECT 1", {}, SHARDS)).toBe("1 read by comment");
			expect(hinted("SELECT 1", { shard: 3, shardingKey: "1" }, SHARDS)).toBe("0 read by pgdog setting");
			expect(hinted("SELECT 1", { shard: 4 }, SHARDS)).toBe("58000 no such shard: 4");
			// A session that asked for it can take that back.
			expect(hinted("RESET pgdog.shard", { shard: 4 }, SHARDS)).toBe("all write by statement");
			expect(hinted("SELECT 1", { shard: 4 }, SPLIT)).toBe("0 read by statement");
			expect(hinted("/* pgdog_shard: 1 */ BEGIN", {}, SHARDS)).toBe("all write by transaction");
		});
	});

	test("what is too deep or too long for the parser is a write", () => {
		for (const sql of [deep, `SELECT '${"x".repeat(300_000)}'`]) {
			expect(ask(SPLIT, sql)).toBe("0 write by statement");
			// Nobody could tell whether what all shards say is the answer.
			expect(ask(SHARDS, sql)).toStartWith("0A000 a statement that could not be parsed");
			expect(ask(SHARDS, `/* pgdog_shard: 1 */ ${sql}`)).toBe("1 write by comment");
		}
	});

	test("a syntax error is one server's to report", () => {
		for (const topology of [SPLIT, SHARDS, PRIMARIES]) expect(ask(topology, "SELEC")).toBe("0 write by syntax error");
		expect(ask({ ...SHARDS, hasPrimary: false }, "SELEC")).toBe("0 read by syntax error");
	});

	test("a transaction goes to the primary, whatever it asks", () => {
		for (const sql of ["SELECT 1", "", "BEGIN READ ONLY", "COMMIT", "DELETE FROM t"])
			expect(ask(SPLIT, sql, true)).toBe("0 write by transaction");
	});

	test("a cluster without a primary reads", () => {
		const topology = { shards: 2, hasPrimary: false, hasReplicas: true };
		expect(ask(topology, "DELETE FROM t")).toBe("all read by statement");
		expect(ask(topology, "SELECT a FROM t", true)).toBe("all read by transaction");
	});

	test("routes are made once and shared", () => {
		const router = new Router(SHARDS, statements, null);
		const first = router.route(request(router, "SELECT 1"));
		expect(router.route(request(router, "SELECT 2"))).toBe(first);
		expect(router.routeUnbound(request(router, "SELECT 3"))).toBe(first);
	});

	test("any text in any cluster has a route, and none an error but where it could not be parsed for several shards", () => {
		const topology = fc.record({ shards: fc.integer({ min: 1, max: 9 }), hasPrimary: fc.boolean() });
		const words = fc.constantFrom(
			"SELECT",
			"1",
			"BEGIN",
			";",
			"DELETE FROM t",
			"'",
			"--",
			"\n",
			"FOR UPDATE",
			"nextval('s')",
		);
		fc.assert(
			fc.property(topology, fc.boolean(), fc.array(words), (shape, replicas, pieces) => {
				const hasReplicas = replicas || !shape.hasPrimary;
				const router = new Router({ ...shape, hasReplicas }, statements, null);
				const route = router.route(request(router, pieces.join(" ")));
				if (route.error !== null) {
					expect([route.error.sqlstate, shape.shards > 1]).toEqual(["0A000", true]);
					return;
				}
				expect(route.shard >= ShardChoice.All && route.shard < shape.shards).toBe(true);
				if (shape.shards === 1) expect(route.shard).toBe(0);
				if (!hasReplicas) expect(route.side !== Side.Primary).toBe(false);
				if (!shape.hasPrimary) expect(route.side !== Side.Primary).toBe(true);
				if (
					/nextval|FOR/.test(pieces.join(" ")) &&
					shape.hasPrimary &&
					!pieces.some((p) => /'|--/.test(p) && p !== "nextval('s')")
				)
					expect(route.side !== Side.Primary).toBe(false);
			}),
			{ numRuns: 500 },
		);
	});
});

describeWithCargo("with plugins", () => {
	let native: Bridge;
	let witness: string;
	let host: PluginHost;

	beforeAll(() => {
		native = bridge();
		witness = copy(buildFixture("witness"), join(folder(), "libwitness.so"));
		host = new PluginHost(load(native, [witness]), { log: new Lines(false) });
		host.init();
	}, BUILD_TIMEOUT);

	const ask = (topology: Topology, sql: string, more: Partial<RouteRequest> = {}) => {
		const router = new Router(topology, statements, host);
		return line(router.route(request(router, sql, more))).replaceAll(witness, "witness");
	};
	const by = 'by plugin "witness"';

	test("with one pool they are asked", () => {
		const router = new Router(ONE, new StatementCache(new SqlParser()), host);
		expect(router.needed).toBe(true);
		expect(router.route(request(router, "SELECT 'block'")).error?.sqlstate).toBe("42601");
		expect(line(router.route(request(router, "SELECT 'nothing'")))).toBe("0 write by the only choice");
	});

	test("a shard that they name is taken, with more than one", () => {
		expect(ask(SHARDS, "SELECT 'direct read'")).toBe(`3 read ${by}`);
		expect(ask(SHARDS, "SELECT 'direct write'")).toBe(`0 write ${by}`);
		expect(ask(SHARDS, "SELECT 'value'", bind([0], ["2"]))).toBe(`2 read ${by}`);
		expect(ask(SHARDS, "SELECT 'value' FOR UPDATE", bind([0], ["2"]))).toBe(`2 write ${by}`);
		expect(ask(SHARDS, "SELECT 'all'")).toBe(`all read ${by}`);
		expect(ask(SHARDS, "SELECT 'all write'")).toBe(`all write ${by}`);
		expect(ask(PRIMARIES, "SELECT 'all read'")).toBe(`all write ${by}`);
	});

	test("one shard is the shard, unless they name one that is not there", () => {
		expect(ask(SPLIT, "SELECT 'value'", bind([0], ["0"]))).toBe(`0 read ${by}`);
		for (const topology of [ONE, SPLIT, REPLICAS]) {
			const side = topology.hasReplicas ? "read" : "write";
			expect(ask(topology, "SELECT 'all'")).toBe(`0 ${side} ${by}`);
			expect(ask(topology, "SELECT 'value'", bind([0], ["7"]))).toBe("58000 no such shard: 7");
		}
		expect(ask(SHARDS, "SELECT 'value'", bind([0], ["4"]))).toBe("58000 no such shard: 4");
	});

	test("reading or writing as they choose beats the statement, and theirs alone leaves the shard", () => {
		expect(ask(SPLIT, "SELECT 'write'")).toBe(`0 write ${by}`);
		expect(ask(SPLIT, "SELECT 'read' FOR UPDATE")).toBe(`0 read ${by}`);
		expect(ask(SHARDS, "SELECT 'read' FROM t", { inTransaction: true })).toBe(`all read ${by}`);
		expect(ask(SPLIT, "SELECT 'value'", { ...bind([0], ["0"]), inTransaction: true })).toBe(`0 write ${by}`);
		expect(ask(REPLICAS, "SELECT 'write'")).toBe(`0 read ${by}`);
	});

	test("a shard that they leave open is the one that a comment or the session has named", () => {
		for (const [what, side] of [
			["read", "read"],
			["write", "write"],
		]) {
			expect(ask(SHARDS, `/* pgdog_shard: 2 */ SELECT '${what}'`)).toBe(`2 ${side} ${by}`);
			expect(ask(SHARDS, `SELECT '${what}'`, { hints: { ...NO_HINTS, shard: 1 } })).toBe(`1 ${side} ${by}`);
			expect(ask(SHARDS, `SELECT '${what}' FROM t`)).toBe(`all ${side} ${by}`);
			// One shard can answer what names no table.
			expect(ask(SHARDS, `SELECT '${what}'`)).toBe(`0 ${side} ${by}`);
		}
		expect(ask(SHARDS, "/* pgdog_shard: 2 */ SELECT 'all'")).toBe(`all read ${by}`);
	});

	test("what they leave open is the router's", () => {
		expect(ask(SPLIT, "SELECT 'nothing'")).toBe("0 read by statement");
		expect(ask(SHARDS, "DELETE FROM t")).toBe("all write by statement");
		expect(ask(SHARDS, "BEGIN")).toBe("all write by transaction");
	});

	test("a block is an error that names the plugin and the text", () => {
		const router = new Router(SHARDS, statements, host);
		const { error } = router.route(request(router, "SELECT 'block'"));
		expect(error).toMatchObject({
			severity: "ERROR",
			sqlstate: "42601",
			message: `query is blocked by plugin "${witness}"`,
			detail: "SELECT 'block'",
		});
		expect(ask(ONE, "SELECT 'block read'")).toStartWith("42601");
	});

	test("transaction control beside what they want stays with its transaction, but can be blocked", () => {
		expect(ask(SHARDS, "BEGIN; SELECT 'direct read'")).toBe("all write by transaction");
		// The witness looks at the first statement only.
		expect(ask(SHARDS, "SELECT 'direct read'; BEGIN")).toBe(`3 read ${by}`);
	});

	test("they are told what the router believes of writing", () => {
		const told = (topology: Topology, rest: string, inTransaction = false) =>
			ask({ ...topology, shards: 2 }, `SELECT 'write_override'${rest}`, { inTransaction }).charAt(0);
		expect(told(SPLIT, "")).toBe("0");
		expect(told(SPLIT, "", true)).toBe("1");
		expect(told(SPLIT, " FOR UPDATE")).toBe("1");
		expect(told(PRIMARIES, "")).toBe("0");
		// Shard 1 is not there with one shard: the error tells.
		expect(ask(ONE, "SELECT 'write_override'")).toBe(`0 write ${by}`);
		expect(ask(ONE, "SELECT 'write_override' FOR UPDATE")).toBe("58000 no such shard: 1");
		expect(ask(ONE, "SELECT 'write_override'", { inTransaction: true })).toBe("58000 no such shard: 1");
		expect(ask(REPLICAS, "SELECT 'write_override'")).toBe(`0 read ${by}`);
	});

	test("they are told the shape of the cluster", () => {
		expect(ask(SHARDS, "SELECT 'shards'")).toBe("58000 no such shard: 4");
		expect(ask(SHARDS, "SELECT 'has_replicas'")).toStartWith("1 ");
		expect(ask(PRIMARIES, "SELECT 'has_replicas'")).toStartWith("0 ");
		expect(ask(PRIMARIES, "SELECT 'has_primary'")).toStartWith("1 ");
	});

	test("a Parse without Bind is not theirs", () => {
		const router = new Router(SPLIT, statements, host);
		expect(line(router.routeUnbound(request(router, "SELECT 'block'")))).toBe("0 read by statement");
	});

	test("what their parser refuses, and malformed parameters, are sent to nobody: a server of another version might run it", () => {
		for (const topology of [ONE, SPLIT, SHARDS]) {
			expect(ask(topology, "SELEC")).toBe('42601 syntax error at or near "SELEC"');
			const malformed = { bind: new Uint8Array([0, 9, 0]), bindStart: 0, bindEnd: 3 };
			expect(ask(topology, "SELECT 'value'", malformed)).toBe("08P01 invalid Bind message");
		}
		const router = new Router(ONE, statements, host);
		expect(router.route(request(router, "SELECT 1 FROM FROM")).error?.position).toBe(15);
	});

	test("a text of which it is not certain what PostgreSQL will read is sent to nobody, and EXECUTE of what they have not seen", () => {
		expect(ask(ONE, "SELECT 1", { sql: null })).toBe("0A000 the statement may be read in several ways");
		expect(ask(ONE, "SELECT 'bl\\157ck'", { escapes: true })).toStartWith("42601 query is blocked");
		expect(ask(ONE, "SELECT 'bl\\157ck'", { escapes: false })).toBe("0 write by the only choice");
		const names = { hasByProtocol: (name: string) => name === "theirs" };
		const refused = "0A000 EXECUTE of a statement that was not prepared by PREPARE";
		for (const sql of ["EXECUTE theirs", "EXPLAIN ANALYZE EXECUTE theirs(1)", "CREATE TABLE t AS EXECUTE theirs"])
			expect(ask(ONE, sql, { statements: names })).toBe(refused);
		expect(ask(ONE, "EXECUTE mine", { statements: names })).toBe("0 write by the only choice");
	});

	test("what is too deep for them is not sent", () => {
		const sql = `SELECT 'block' || ${"(".repeat(200_000)}1${")".repeat(200_000)}`;
		expect(["54001 statement too complex", "0 write by syntax error"]).toContain(ask(ONE, sql));
		const sum = `SELECT ${Array(200_000).fill("a").join("+")}`;
		expect(ask(ONE, sum)).toBe("54001 statement too complex");
		expect(ask(SHARDS, sum)).toBe("54001 statement too complex");
		expect(ask(ONE, "SELECT 'block'")).toStartWith("42601");
	});

	// Their parser refuses these as syntax errors, PostgreSQL does not: sent on, they would pass by every guard.
	test("comments that trip the parser do not get a statement past them", () => {
		for (const sql of [
			"SELECT 'block' WHERE 1 NOT /* c */ IN (1)",
			"SELECT 'block' FROM f() WITH -- c\n ORDINALITY",
			"SELECT 'blo' -- c\n'ck'",
		]) {
			for (const topology of [ONE, SPLIT, SHARDS]) {
				const router = new Router(topology, statements, host);
				const { error } = router.route(request(router, sql));
				expect(error).toMatchObject({ message: `query is blocked by plugin "${witness}"`, detail: sql });
			}
		}
		expect(ask(SPLIT, "SELECT 'read' WHERE '\\' NOT /* c */ IN ('\\')")).toBe(`0 read ${by}`);
		expect(ask(SPLIT, "SELECT 1 WHERE 1 NOT /* c */ IN (1)")).toBe("0 read by statement");
	});

	test("200,000 routed queries leave memory as it was and cost little", () => {
		const router = new Router(SHARDS, statements, host);
		const values = request(router, "SELECT 'value' FROM users WHERE id = $1", bind([0], ["2"]));
		const run = (count: number) => {
			for (let i = 0; i < count; i++) router.route(values);
			Bun.gc(true);
		};
		run(20_000);
		const before = process.memoryUsage.rss();
		run(200_000);
		expect(process.memoryUsage.rss() - before).toBeLessThan(30e6);
		expect(line(router.route(values)).replaceAll(witness, "witness")).toBe(`2 read ${by}`);
	});
});
