// Requests of more than 64 MiB before a primary and its replica, where each request is looked at: what is too large for that goes
// to the primary in pieces, or stays where its transaction is; plugins, which have to see all of it, refuse it.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { BUILD_TIMEOUT, buildFixture, describeWithCargo } from "../plugin/support.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import type { Proxy } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { bytes, concat, frontend as f, int16, int32 } from "../support/wire-frames.ts";
import { codes, PORT, startRouted } from "./routed.ts";
import { connect } from "./support.ts";

setDefaultTimeout(60_000);

const SIZE = 65 << 20;
const PIECE = new Uint8Array(256 << 10).fill(120);

let cluster: Cluster;
let proxy: Proxy;

beforeAll(async () => {
	cluster = await startPostgres({ replicas: 1 });
	await cluster.primary.sql("CREATE TABLE t (line text)", { user: "pgdog" });
	await cluster.replicated();
	// Nothing but writes, and what nobody looks at, goes to the primary.
	proxy = await startRouted(cluster, [], { read_write_split: "exclude_primary" });
}, 60_000);

afterAll(async () => {
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

/** How long the server takes over 64 MiB is the machine's matter, up to the end of the test. */
const patient = () => connect(proxy, { timeout: 60_000 });

/** Half a message: what is to come is `SIZE` bytes of x and `end`. */
const head = (code: string, start: Uint8Array, end: Uint8Array, size = SIZE) =>
	concat(bytes(code.charCodeAt(0)), int32(4 + start.length + size + end.length), start);

/** A Bind of one parameter to this statement. */
const BIND_END = int16(0);
const bind = (statement = "", size = SIZE) =>
	head("B", concat(bytes(0), Buffer.from(`${statement}\0`), int16(0), int16(1), int32(size)), BIND_END, size);

async function sendRest(client: RawClient, end: Uint8Array): Promise<void> {
	for (let left = SIZE; left > 0; left -= PIECE.length) {
		client.send(left < PIECE.length ? PIECE.subarray(0, left) : PIECE);
		if (left % 16 === 0) await Bun.sleep(0);
	}
	client.send(end);
}

const primary = () => String(cluster.primary.port);
const replica = () => String(cluster.replicas[0]!.port);
const READ = `SELECT ${PORT}, length($1::text)::text`;
const READ_NAMED = f.parse(READ, "read");

describe("more than 64 MiB", () => {
	test("of a Query are run by the primary, with what stands before and behind it in its place", async () => {
		await using client = await patient();
		const start = Buffer.from(`SELECT ${PORT}, length('`);
		const end = Buffer.from("')\0");
		client.send(f.query(`SELECT ${PORT}`), head("Q", start, end));
		await sendRest(client, concat(end, f.query("SELECT 'behind'")));
		const results = [await client.result(), await client.result(), await client.result()];
		expect(results.map(({ rows }) => rows)).toEqual([[[replica()]], [[primary(), String(SIZE)]], [["behind"]]]);
	});

	test("of a parameter: of a statement that is parsed with it, and of one that was before", async () => {
		await using client = await patient();
		client.send(READ_NAMED, f.describe("S", "read"), f.sync());
		expect(codes(await client.result())).toBe("1tTZ");
		client.send(f.parse(READ), bind());
		await sendRest(client, concat(BIND_END, f.execute(), f.sync()));
		expect((await client.result()).rows).toEqual([[primary(), String(SIZE)]]);
		client.send(f.bind({ statement: "read", values: ["abc"] }), f.execute(), f.sync(), bind("read"));
		await sendRest(client, concat(BIND_END, f.execute(), f.sync()));
		expect((await client.result()).rows).toEqual([[replica(), "3"]]);
		expect((await client.result()).rows).toEqual([[primary(), String(SIZE)]]);
		// And the next is a read like any other.
		client.send(f.bind({ statement: "read", values: ["abc"] }), f.execute(), f.sync());
		expect((await client.result()).rows).toEqual([[replica(), "3"]]);
	});

	test("of many messages, none of which is large, with a write behind them all", async () => {
		await using client = await patient();
		const value = "y".repeat(1 << 20);
		const one = concat(f.bind({ statement: "read", values: [value] }), f.execute());
		client.send(READ_NAMED);
		for (let i = 0; i < 66; i++) client.send(one);
		client.send(f.parse("INSERT INTO t VALUES ('behind')"), f.bind(), f.execute(), f.sync());
		const { rows, errors, tags } = await client.result();
		expect([errors, tags.at(-1), rows.length]).toEqual([[], "INSERT 0 1", 66]);
		expect(new Set(rows.map(String))).toEqual(new Set([`${primary()},${value.length}`]));
	});

	test.each([
		["with no server held", []],
		["behind another request", [f.query("SELECT pg_sleep(0.5)")]],
	])("that stop for a while may end in a write, %s", async (_, before) => {
		await using client = await patient();
		client.send(...before, f.parse(`${READ} -- halfway`), f.bind({ values: ["abc"] }), f.execute());
		const running = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE '%-- halfway'";
		await until(
			async () => (await cluster.primary.sql(running, { user: "postgres" }))[0]!.n === 1,
			"its beginning to run",
		);
		client.send(f.parse("INSERT INTO t VALUES ('behind')"), f.bind(), f.execute(), f.sync());
		const results = [];
		for (let i = 0; i <= before.length; i++) results.push(await client.result());
		expect(results.at(-1)!.errors).toEqual([]);
		expect(results.at(-1)!.rows).toEqual([[primary(), "3"]]);
	});

	test.each([
		["BEGIN", primary],
		["BEGIN READ ONLY", replica],
	])("are part of the transaction that %s began, whether a server has it or not", async (begin, place) => {
		await using client = await patient();
		for (const before of [[], [`SELECT ${PORT}`]]) {
			expect((await client.query(begin)).status).toBe("T");
			for (const sql of before) expect((await client.query(sql)).rows).toEqual([[place()]]);
			client.send(f.parse(READ), bind());
			await sendRest(client, concat(BIND_END, f.execute(), f.sync()));
			const { rows, status } = await client.result();
			expect([rows, status]).toEqual([[[before.length > 0 ? place() : primary(), String(SIZE)]], "T"]);
			expect((await client.query("COMMIT")).tags).toEqual(["COMMIT"]);
		}
	});

	test("are not run in a transaction that has failed before any server had it", async () => {
		await using client = await patient();
		await client.query("BEGIN");
		expect((await client.query("SET pgdog.role = 'nobody'")).status).toBe("E");
		client.send(READ_NAMED, bind("read"));
		await sendRest(client, concat(BIND_END, f.execute(), f.sync()));
		const failed = await client.result();
		expect([failed.errors.map(({ C }) => C), failed.status]).toEqual([["25P02"], "E"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
	});

	test("that end a transaction on the replica do not draw the write behind them there", async () => {
		await using client = await patient();
		await client.query("BEGIN READ ONLY");
		await client.query(`SELECT ${PORT}`);
		client.send(f.parse(READ), bind());
		const commit = concat(f.parse("COMMIT"), f.bind(), f.execute(), f.sync());
		await sendRest(client, concat(BIND_END, f.execute(), commit, f.query("INSERT INTO t VALUES ('next')")));
		const [read, written] = [await client.result(), await client.result()];
		expect([read.rows, read.status]).toEqual([[[replica(), String(SIZE)]], "I"]);
		expect([written.errors, written.tags]).toEqual([[], ["INSERT 0 1"]]);
	});

	test("cost little memory, and nothing is left when their client goes in the middle", async () => {
		const memory = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${proxy.pid}/status`, "utf8"))![1]) >> 10;
		const client = await patient();
		// A read is garbage when it has been passed on; how much of that there may be is the collector's to say.
		const size = 1000 << 20;
		client.send(f.parse(READ), bind("", size));
		const before = memory();
		let most = before;
		for (let sent = 0; sent < size - PIECE.length; sent += PIECE.length) {
			client.send(PIECE);
			if (sent % (1 << 20) === 0) await Bun.sleep(0);
			most = Math.max(most, memory());
		}
		expect(most - before).toBeLessThan(400);
		client.reset();
		await using next = await patient();
		expect((await next.query("INSERT INTO t VALUES ('after')")).tags).toEqual(["INSERT 0 1"]);
	});
});

describeWithCargo("plugins", () => {
	let scribe: string;
	beforeAll(() => {
		scribe = buildFixture("scribe");
	}, BUILD_TIMEOUT);

	test("cannot be shown so much: it is refused, in and out of a transaction, and the client goes on", async () => {
		await using guarded = await startRouted(cluster, [{ name: scribe }]);
		await using client = await connect(guarded);
		for (const status of ["I", "E"]) {
			if (status === "E") await client.query(`BEGIN; SELECT ${PORT}`);
			client.send(f.parse(READ), bind());
			await sendRest(client, concat(BIND_END, f.execute(), f.sync()));
			const refused = await client.result();
			expect([refused.rows, refused.errors.map(({ C }) => C), refused.status]).toEqual([[], ["54000"], status]);
		}
		client.send(head("Q", Buffer.from("SELECT '"), Buffer.from("'\0")));
		await sendRest(client, Buffer.from("'\0"));
		const query = await client.result();
		expect([query.errors.map(({ C }) => C), query.status]).toEqual([["54000"], "E"]);
		expect((await client.query("ROLLBACK")).status).toBe("I");
		expect((await client.query("SELECT 1")).rows).toEqual([["1"]]);
	});
});
