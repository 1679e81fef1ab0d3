// Whole requests of a client of two shards, by what each shard is sent and what the client is told.

import { describe, expect, test } from "bun:test";
import { Cluster } from "../../src/pool/cluster.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { concat, cstring, frontend, int32, message } from "../support/wire-frames.ts";
import { type Rig, twoShards } from "./support.ts";

const ALL = "SELECT a FROM t";
const on = (shard: number, sql = "INSERT INTO t DEFAULT VALUES") => `/* pgdog_shard: ${shard} */ ${sql}`;
const run = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute()];

/** `SELECT 2 I`, or `XX000 E`: tags, SQLSTATEs, status. */
function told({ tags, errors, status }: QueryResult): string {
	return [...tags, ...errors.map(({ C }) => C), status].join(" ");
}

async function ask(client: RawClient, ...messages: Uint8Array[]): Promise<string> {
	client.send(...messages);
	return told(await client.result());
}

const query = async (client: RawClient, sql: string) => told(await client.query(sql));
const heard = ({ shards }: Rig) => shards.map((shard) => shard.take().join(", "));

describe("a query", () => {
	test("of all shards has one answer, by both protocols", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		rig.shards[1]!.rows = ["2", "3"];
		const { rows, ...all } = await client.query(ALL);
		expect(rows.flat().sort()).toEqual(["1", "2", "3"]);
		expect(told({ rows, ...all })).toBe("SELECT 3 I");
		expect(heard(rig)).toEqual([`Q ${ALL}`, `Q ${ALL}`]);
		expect(await ask(client, ...run(ALL), frontend.sync())).toBe("SELECT 3 I");
		expect(heard(rig)).toEqual([`P ${ALL}, B ${ALL}, E, S`, `P ${ALL}, B ${ALL}, E, S`]);
	});

	test("of one shard goes nowhere else", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		expect(await query(client, on(1))).toBe("INSERT 0 1 I");
		expect(heard(rig)).toEqual(["", `Q ${on(1)}`]);
		expect(await query(client, "SET pgdog.shard = 0")).toBe("SET I");
		expect(await query(client, "SHOW pgdog.shard")).toBe("SHOW I");
		expect(await query(client, ALL)).toBe("SELECT 1 I");
		expect(heard(rig)).toEqual([`Q ${ALL}`, ""]);
	});

	test("of a shard that does not exist is refused, and told to SHOW ROUTES", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		expect(await query(client, on(9))).toBe("58000 I");
		expect(await ask(client, ...run(on(9)), frontend.sync())).toBe("58000 I");
		expect(heard(rig)).toEqual(["", ""]);
		expect(rig.routes.rows().filter(({ error }) => error !== null)).toHaveLength(2);
		expect(rig.clients[0]!.errors).toBe(2);
	});

	test("that fails on one shard has failed", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		rig.shards[1]!.fails.add("UPDATE t SET a = 1");
		expect(await query(client, "UPDATE t SET a = 1")).toBe("XX000 I");
		expect(await ask(client, ...run("UPDATE t SET a = 1"), ...run(ALL), frontend.sync())).toBe("XX000 I");
		expect(await query(client, ALL)).toBe("SELECT 2 I");
	});

	test("of EXPLAIN ends with where it went", async () => {
		await using rig = twoShards({ expanded_explain: true });
		await using client = await rig.connect();
		const { rows } = await client.query(`EXPLAIN ${ALL}`);
		expect(rows.flat().join("\n")).toContain("All shards: decided by");
		expect((await client.query(`EXPLAIN ${ALL}`)).rows).toHaveLength(rows.length);
	});

	test("by FunctionCall goes to all shards", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		client.send(frontend.functionCall(1, []));
		expect((await client.result()).messages.map(({ code }) => code).join("")).toBe("VZ");
		expect(heard(rig).every((words) => words.startsWith("F"))).toBe(true);
	});
});

describe("a transaction", () => {
	test("is held until a shard is needed; another begins it when it is", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		expect(await query(client, "BEGIN")).toBe("BEGIN T");
		expect(await query(client, "COMMIT")).toBe("COMMIT I");
		expect(await query(client, "BEGIN")).toBe("BEGIN T");
		expect(heard(rig)).toEqual(["", ""]);
		expect(await query(client, on(1))).toBe("INSERT 0 1 T");
		expect(heard(rig)).toEqual(["", `Q BEGIN, Q ${on(1)}`]);
		expect(await query(client, on(0))).toBe("INSERT 0 1 T");
		expect(heard(rig)).toEqual([`Q BEGIN, Q ${on(0)}`, ""]);
		expect(await query(client, "SET pgdog.shard = 1")).toBe("58000 E");
		expect(await query(client, "ROLLBACK")).toBe("ROLLBACK I");
		expect(rig.clients[0]!.transactions).toBe(2);
	});

	test("by batches: BEGIN at the head of one is answered, COMMIT goes to who has it", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		const sync = frontend.sync();
		expect(await ask(client, ...run("BEGIN"), ...run(on(0)), sync)).toBe("BEGIN INSERT 0 1 T");
		expect(await ask(client, ...run(on(1)), ...run("COMMIT"), sync)).toBe("INSERT 0 1 COMMIT I");
		expect(heard(rig)[0]).toContain("B COMMIT");
		expect(await ask(client, ...run("BEGIN"), sync)).toBe("BEGIN T");
		expect(await ask(client, ...run("SET pgdog.role = 'nobody'"), sync)).toBe("22023 E");
		expect(await ask(client, ...run(on(0)), sync)).toBe("25P02 E");
		expect(await query(client, ALL)).toBe("25P02 E");
		expect(await ask(client, ...run("ROLLBACK"), sync)).toBe("ROLLBACK I");
		expect(heard(rig)).toEqual(["", ""]);
	});

	test("that fails on one shard fails on the others", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		await client.query("BEGIN");
		expect(await query(client, ALL)).toBe("SELECT 2 T");
		rig.shards[0]!.fails.add(on(0));
		expect(await query(client, on(0))).toBe("XX000 E");
		expect(rig.shards[1]!.take().at(-1)).toContain("Q failed on another shard");
		expect(await query(client, ALL)).toBe("25P02 E");
		expect(await query(client, "ROLLBACK")).toBe("ROLLBACK I");
		await client.query("BEGIN");
		expect(await query(client, on(0))).toBe("XX000 E");
		expect(await query(client, "COMMIT")).toBe("ROLLBACK I");
	});

	test("that begins on one shard only is taken back", async () => {
		await using rig = twoShards({ prepared_statements: "disabled" });
		await using client = await rig.connect();
		rig.shards[0]!.fails.add("BEGIN ISOLATION LEVEL SERIALIZABLE");
		// A string of statements is not held back.
		expect(await query(client, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT a FROM t")).toBe("XX000 I");
		expect(rig.shards[1]!.take().at(-1)).toBe("Q ROLLBACK");
	});

	test("cannot be ended for others by a string of statements", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		await client.query("BEGIN");
		await client.query(ALL);
		const { errors, status } = await client.query(on(0, "UPDATE t SET a = 1; COMMIT"));
		expect([errors[0]?.C, status]).toEqual(["0A000", "E"]);
	});
});

describe("a batch", () => {
	test("for several shards goes to each in its turn", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		expect(await ask(client, ...run(on(0)), ...run(on(1)), frontend.sync())).toBe("INSERT 0 1 INSERT 0 1 I");
		expect(heard(rig)).toEqual([`P ${on(0)}, B ${on(0)}, E, H, S`, `P ${on(1)}, B ${on(1)}, E, H, S`]);
	});

	test("of which some is answered by Flush goes on, and ends at its Sync", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		client.send(...run(on(0)), frontend.flush());
		await client.until("C");
		expect(rig.clients[0]!.stateName).toBe("idle");
		expect(await ask(client, ...run(on(1)), frontend.sync())).toBe("INSERT 0 1 I");
		expect(heard(rig).every((words) => words.endsWith("S"))).toBe(true);
		// A Query in the middle of a batch ends it, too.
		client.send(...run(on(0)), frontend.flush());
		await client.until("C");
		expect(await query(client, ALL)).toContain("I");
	});

	test("that fails is skipped up to its Sync, on all shards", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		rig.shards[1]!.fails.add(on(1));
		client.send(...run(on(0)), ...run(on(1)), frontend.flush());
		await client.until("E");
		expect(await ask(client, ...run(ALL), frontend.sync())).toBe("I");
		expect(heard(rig)[0]).toContain("P failed on another shard");
		expect(await query(client, ALL)).toBe("SELECT 2 I");
	});

	test("of names, which the other shards learn", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		const one = frontend.parse(on(0, ALL), "one");
		expect(await ask(client, one, frontend.describe("S", "one"), frontend.sync())).toBe("I");
		expect(rig.clients[0]!.statementCount).toBe(1);
		expect(await ask(client, frontend.bind({ statement: "one" }), frontend.execute(), frontend.sync())).toBe(
			"SELECT 1 I",
		);
		expect(await ask(client, frontend.close("S", "one"), frontend.sync())).toBe("I");
		expect(rig.clients[0]!.statementCount).toBe(0);
		await ask(client, one, frontend.sync());
		expect(await query(client, "DEALLOCATE ALL")).toBe("DEALLOCATE ALL I");
		expect(rig.clients[0]!.statementCount).toBe(0);
	});

	test("whose end does not come is not waited for", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		rig.shards[0]!.fails.add(ALL);
		client.send(...run(ALL));
		await until(() => {
			rig.clients[0]!.check(1000);
			return rig.shards[0]!.heard.length > 0;
		}, "the batch");
		await client.until("E");
		expect(await ask(client, frontend.sync())).toBe("I");
	});

	test("is as malformed as PostgreSQL finds it", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		expect(await ask(client, message("S", Buffer.from("x")))).toBe("08P01 I");
		client.send(message("H", Buffer.from("x")));
		await client.until("E");
		expect(await ask(client, frontend.sync())).toBe("I");
		client.send(message("?", Buffer.from("x")));
		expect((await client.closed).at(-1)?.code).toBe("E");
	});
});

describe("COPY FROM STDIN", () => {
	const COPY = "COPY t FROM STDIN";

	test("sends its data to all shards, in whatever pieces it comes", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		client.send(frontend.query(COPY));
		await client.until("G");
		const data = concat(frontend.copyData("one\n"), frontend.copyData("two\n"));
		await client.sendSplit(data, 7);
		// PostgreSQL ignores them here.
		client.send(frontend.sync(), frontend.flush());
		expect(await ask(client, frontend.copyDone())).toBe("COPY 4 I");
		expect(heard(rig)).toEqual([`Q ${COPY}, c`, `Q ${COPY}, c`]);
		client.send(frontend.query(on(1, COPY)));
		await client.until("G");
		expect(await ask(client, frontend.copyFail("no"))).toBe("57014 I");
		expect(heard(rig)).toEqual(["", `Q ${on(1, COPY)}, f`]);
	});

	test("by a batch ends at the Sync behind its data", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		client.send(...run(COPY), frontend.sync());
		await client.until("G");
		client.send(frontend.copyData("one\n"), frontend.copyDone());
		await client.until("C");
		expect(await ask(client, frontend.sync())).toBe("I");
		expect(await query(client, ALL)).toBe("SELECT 2 I");
	});

	test("whose end is in its own batch needs no more of the client", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		const data = [frontend.copyData("one\n"), frontend.copyDone()];
		expect(await ask(client, ...run(COPY), ...data, frontend.sync())).toBe("COPY 2 I");
	});

	test("that one shard refuses is stopped on the other", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		rig.shards[1]!.fails.add(COPY);
		expect(await query(client, COPY)).toBe("XX000 I");
		expect(heard(rig)[0]).toBe(`Q ${COPY}, f`);
		expect(await ask(client, ...run(COPY), frontend.sync())).toBe("XX000 I");
		// Data that the client has sent in vain.
		expect(await ask(client, frontend.copyData("x"), frontend.copyDone(), frontend.query(ALL))).toBe("SELECT 2 I");
	});

	test("takes no other message", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		client.send(frontend.query(COPY));
		await client.until("G");
		client.send(frontend.query(ALL));
		expect((await client.closed).at(-1)?.code).toBe("E");
	});
});

describe("LISTEN in transaction mode", () => {
	const notifications = ({ received }: RawClient) =>
		received.filter(({ code }) => code === "A").map(({ body }) => body.toString("latin1", 4, body.length - 1));
	const notify = ({ shards }: Rig, shard: number, payload: string) =>
		shards[shard]!.say(message("A", int32(99), cstring("c"), cstring(payload)));

	test("what any shard notifies is told once, when nothing is open", async () => {
		await using rig = twoShards({ pub_sub_channel_size: 10 });
		await using client = await rig.connect();
		expect(await query(client, "LISTEN c")).toBe("LISTEN I");
		// By a connection of its own on each shard, and by what the client's own has been told.
		expect(rig.shards.map(({ heard: [first, second] }) => [first, second])).toEqual([
			['Q LISTEN "c"', "Q LISTEN c"],
			['Q LISTEN "c"', "Q LISTEN c"],
		]);
		expect(rig.context.ears.rows.map(({ shard, listeners }) => [shard, listeners])).toEqual([
			[0, 1],
			[1, 1],
		]);
		notify(rig, 1, "1");
		await until(() => notifications(client).length === 1, "the first");
		// Where no server knows of the transaction, and where another shard's does.
		for (const [told, begin] of [["BEGIN"], ["BEGIN", on(1)]].entries()) {
			for (const sql of begin) await query(client, sql);
			notify(rig, 0, "2");
			await until(() => rig.context.ears.rows[0]!.received === told + 1, "the notification");
			await query(client, "SHOW pgdog.shard");
			expect(notifications(client)).toHaveLength(told + 1);
			await query(client, "COMMIT");
			await until(() => notifications(client).length === told + 2, "what was held back");
		}
		await query(client, "UNLISTEN *");
		await until(() => rig.context.ears.rows.length === 0, "nobody listens");
	});

	test("in a batch that has failed nothing is told before its end", async () => {
		await using rig = twoShards({ pub_sub_channel_size: 10 });
		await using client = await rig.connect();
		await query(client, "LISTEN c");
		client.send(...run("FAILED"), frontend.flush());
		await client.until("E");
		notify(rig, 0, "x");
		await until(() => rig.context.ears.rows[0]!.received === 1, "the notification");
		client.send(frontend.sync());
		expect((await client.until("Z")).map(({ code }) => code)).toEqual(["Z"]);
		await until(() => notifications(client).length === 1, "it is told");
	});
});

describe("the life of a client", () => {
	test("is told to SHOW CLIENTS", async () => {
		await using rig = twoShards();
		await using client = await rig.connect({ application_name: "me" });
		const handle = rig.clients[0]!;
		expect(handle.stateName).toBe("idle");
		expect(handle.setting("application_name")).toBe("me");
		await client.query("BEGIN");
		await client.query(ALL);
		expect(handle.stateName).toBe("idle in transaction");
		await client.query("UPDATE nothing SET a = 1; SELECT 1; FAILED");
		expect(handle.stateName).toBe("transaction error");
		await client.query("ROLLBACK");
		expect([handle.isLocked, handle.transactions]).toEqual([false, 1]);
		expect(handle.waitTime).toBeGreaterThanOrEqual(0);
		expect(handle.queryTime).toBeGreaterThanOrEqual(0);
		expect(handle.transactionTime).toBeGreaterThanOrEqual(0);
		for (const shard of rig.shards) shard.hold = true;
		client.send(frontend.query(ALL));
		await until(() => handle.stateName === "active", "the query");
		let cancelled = false;
		handle.cancel(() => {
			cancelled = true;
		});
		await until(() => cancelled && rig.shards.every((shard) => shard.heard.includes("cancel")), "both cancels");
		for (const shard of rig.shards) shard.release();
		expect(told(await client.result())).toBe("SELECT 2 I");
	});

	test("ends with a server's, in that server's words", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		await client.query("BEGIN");
		await client.query(on(1));
		rig.shards[1]!.drop();
		expect((await client.closed).at(-1)?.code).not.toBe("Z");
	});

	test("ends when it is idle for too long", async () => {
		await using rig = twoShards({ client_idle_timeout: 1000, client_idle_in_transaction_timeout: 100 });
		await using idle = await rig.connect();
		await using open = await rig.connect();
		await open.query("BEGIN");
		for (const client of rig.clients) client.check(500);
		expect((await open.closed).at(-1)?.code).toBe("E");
		expect(idle.ended).toBe(false);
		for (const client of rig.clients) client.check(5000);
		expect((await idle.closed).at(-1)?.code).toBe("E");
	});

	test("ends between transactions when the process shuts down, and at once when that is forced", async () => {
		await using rig = twoShards();
		await using idle = await rig.connect();
		await using open = await rig.connect();
		await using forced = await rig.connect();
		for (const client of [open, forced]) await client.query("BEGIN");
		for (const client of rig.clients.slice(0, 2)) client.shutDown(false);
		rig.clients[2]!.shutDown(true);
		await idle.closed;
		await forced.closed;
		open.send(frontend.query("COMMIT"));
		expect((await open.closed).at(-2)?.code).toBe("Z");
	});

	test("goes on after a reload, unless that changes how many shards there are", async () => {
		await using rig = twoShards();
		await using client = await rig.connect();
		rig.clients[0]!.reach(rig.cluster, rig.router);
		expect(await query(client, ALL)).toBe("SELECT 2 I");
		rig.clients[0]!.reach(new Cluster([rig.cluster.shards[0]!]), rig.router);
		await client.closed;
	});

	test("waits for one server after the other", async () => {
		await using rig = twoShards();
		await using first = await rig.connect();
		await using second = await rig.connect();
		await using third = await rig.connect();
		// Each pool has two servers.
		for (const client of [first, second]) {
			await client.query("BEGIN");
			await client.query(on(1));
		}
		third.send(frontend.query(ALL), frontend.query(on(0)));
		await until(() => rig.clients[2]!.stateName === "waiting", "the queue");
		await first.query("COMMIT");
		expect(told(await third.result())).toBe("SELECT 2 I");
		expect(told(await third.result())).toBe("INSERT 0 1 I");
		await second.query("COMMIT");
	});

	test("ends when it terminates, or its socket closes", async () => {
		await using rig = twoShards();
		await using polite = await rig.connect();
		const rude = await rig.connect();
		polite.send(frontend.query(ALL), frontend.terminate());
		await polite.closed;
		rude.close();
		await until(() => rig.pools.every(({ pool }) => pool.all.size <= 2), "the servers");
	});
});
