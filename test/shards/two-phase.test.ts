// COMMIT in two phases, by what each of two shards is sent and what the client is told. With real servers that die:
// test/faults/two-phase.test.ts.

import { describe, expect, test } from "bun:test";
import { TwoPhase } from "../../src/config/snapshot.ts";
import type { QueryResult, RawClient } from "../support/raw-client.ts";
import { until } from "../support/until.ts";
import { concat, frontend } from "../support/wire-frames.ts";
import { type Rig, twoShards } from "./support.ts";

const on = (shard: number, sql = "INSERT INTO t DEFAULT VALUES") => `/* pgdog_shard: ${shard} */ ${sql}`;
const run = (sql: string) => [frontend.parse(sql), frontend.bind(), frontend.execute()];

function told({ tags, errors, status }: QueryResult): string {
	return [...tags, ...errors.map(({ C }) => C), status].join(" ");
}

async function ask(client: RawClient, ...messages: Uint8Array[]): Promise<string> {
	client.send(...messages, frontend.sync());
	return told(await client.result());
}

const query = async (client: RawClient, sql: string) => told(await client.query(sql));

/** What each shard was told of two phases, a letter each: P(REPARE), I(NSERT), C(OMMIT PREPARED), R(OLLBACK PREPARED), D(ELETE). */
function phases({ shards }: Rig): string {
	return shards
		.map((shard) =>
			shard
				.take()
				.flatMap((text) => [
					...text.matchAll(/(PREPARE) TRANSACTION|(INSERT) INTO pgdog|(COMMIT|ROLLBACK) PREPARED|(DELETE) FROM/g),
				])
				.map(([word]) => word[0])
				.join(""),
		)
		.join(" ");
}

async function written(client: RawClient, rig: Rig): Promise<void> {
	await client.query("BEGIN");
	for (const shard of [0, 1]) await client.query(on(shard));
	for (const shard of rig.shards) shard.take();
}

const rigs = () => twoShards({}, TwoPhase.Transactions);

test("all prepare, the first decides, all commit, and the row goes", async () => {
	await using rig = rigs();
	await using client = await rig.connect();
	for (const by of ["simple", "extended"] as const) {
		await written(client, rig);
		expect(await (by === "simple" ? query(client, "COMMIT") : ask(client, ...run("COMMIT")))).toBe("COMMIT I");
		await until(() => rig.shards[0]!.heard.some((text) => text.includes("DELETE")), "the row to go");
		expect(phases(rig)).toBe("PICD PC");
	}
	expect(rig.unfinished).toEqual([]);
	expect(await query(client, on(1))).toBe("INSERT 0 1 I");
});

describe("without an end", () => {
	test("where one does not prepare it", async () => {
		await using rig = rigs();
		await using client = await rig.connect();
		for (const refused of [0, 1])
			for (const by of ["simple", "extended"] as const) {
				rig.shards[refused]!.refuses = /^PREPARE TRANSACTION/;
				await written(client, rig);
				expect(await (by === "simple" ? query(client, "COMMIT") : ask(client, ...run("COMMIT")))).toBe("XX000 I");
				expect(phases(rig)).toBe(refused === 0 ? "P PR" : "PR P");
				rig.shards[refused]!.refuses = null;
			}
		expect(rig.unfinished).toEqual([]);
	});

	test("where that cannot be decided, or was decided otherwise", async () => {
		await using rig = rigs();
		await using client = await rig.connect();
		rig.shards[0]!.refuses = /^INSERT INTO pgdog/;
		await written(client, rig);
		expect(await query(client, "COMMIT")).toBe("XX000 I");
		expect(phases(rig)).toBe("PIR PR");
		rig.shards[0]!.refuses = null;
		rig.shards[0]!.decision = "rollback";
		await written(client, rig);
		expect(await query(client, "COMMIT")).toBe("40000 I");
		expect(phases(rig)).toBe("PIR PR");
	});

	test("where a server is lost before it is decided, or while it is", async () => {
		await using rig = rigs();
		for (const lost of [0, 1]) {
			await using client = await rig.connect();
			await written(client, rig);
			rig.shards[lost]!.hold = true;
			client.send(frontend.query("COMMIT"));
			await until(() => rig.shards[lost]!.heard.some((text) => text.includes("PREPARE")), "the phase");
			rig.shards[lost]!.drop();
			rig.shards[lost]!.hold = false;
			expect(told(await client.result())).toBe("40000 I");
			expect(rig.unfinished).toHaveLength(lost + 1);
		}
		await using client = await rig.connect();
		await written(client, rig);
		rig.shards[1]!.hold = true;
		client.send(frontend.query("COMMIT"));
		await until(() => rig.shards[1]!.heard.some((text) => text.includes("PREPARE")), "the phase");
		rig.shards[0]!.refuses = null;
		// The first has prepared it, and hears what is to be decided.
		await until(() => rig.shards[0]!.heard.some((text) => text.includes("PREPARE")), "the phase");
		rig.shards[0]!.hold = true;
		rig.shards[1]!.release();
		await until(() => rig.shards[0]!.heard.some((text) => text.includes("INSERT INTO pgdog")), "the decision");
		rig.shards[0]!.drop();
		rig.shards[0]!.hold = false;
		expect(told(await client.result())).toBe("08007 ");
		expect(rig.unfinished).toHaveLength(3);
	});
});

test("a shard that commits late is a warning", async () => {
	await using rig = rigs();
	await using client = await rig.connect();
	rig.shards[1]!.refuses = /^COMMIT PREPARED/;
	await written(client, rig);
	const { notices, ...rest } = await client.query("COMMIT");
	expect(told({ notices, ...rest })).toBe("COMMIT I");
	expect(notices[0]?.D).toMatch(/^shard 1: COMMIT PREPARED .* failed$/);
	expect(phases(rig)).toBe("PIC PC");
	expect(rig.unfinished).toHaveLength(1);
});

test("a client that has gone changes nothing of it", async () => {
	await using rig = rigs();
	const client = await rig.connect();
	await written(client, rig);
	for (const shard of rig.shards) shard.hold = true;
	client.send(frontend.query("COMMIT"));
	await until(() => rig.shards[1]!.heard.length > 0, "the phase");
	client.reset();
	await until(() => rig.clients[0]!.stateName !== "active", "its end").catch(() => {});
	for (const shard of rig.shards) shard.release();
	await until(() => rig.shards[0]!.heard.some((text) => text.includes("DELETE")), "the row to go");
	expect(phases(rig)).toBe("PICD PC");
	await using other = await rig.connect();
	expect(await query(other, "SELECT a FROM t")).toBe("SELECT 2 I");
});

test("in the middle of a batch it comes when what is before it is done, and what is behind it then", async () => {
	await using rig = rigs();
	await using client = await rig.connect();
	await client.query("BEGIN");
	const batch = [...run(on(0)), ...run(on(1)), ...run("COMMIT"), ...run(on(1))];
	expect(await ask(client, ...batch)).toBe("INSERT 0 1 INSERT 0 1 COMMIT INSERT 0 1 I");
	await written(client, rig);
	client.send(concat(...run("COMMIT"), frontend.flush()));
	await until(() => client.received.at(-1)?.code === "C", "COMMIT");
	client.send(frontend.sync());
	expect(told(await client.result())).toBe("COMMIT I");
	// What fails before it ends all of it.
	await written(client, rig);
	rig.shards[1]!.refuses = /DEFAULT VALUES/;
	expect(await ask(client, ...run(on(1)), ...run("COMMIT"))).toBe("XX000 E");
	expect(await ask(client, ...run("COMMIT"))).toBe("ROLLBACK I");
});

test("what is said of two phases, or could not be done so, is refused", async () => {
	await using rig = rigs();
	await using client = await rig.connect();
	for (const sql of ["PREPARE TRANSACTION 'a'", "BEGIN; COMMIT PREPARED 'a'"])
		expect(await query(client, sql)).toBe("42601 I");
	expect(await ask(client, ...run("ROLLBACK PREPARED 'a'"))).toBe("42601 I");
	for (const sql of ["COMMIT AND CHAIN", "COMMIT; SELECT a FROM t"]) {
		await written(client, rig);
		expect(await query(client, sql)).toBe("0A000 E");
		await client.query("ROLLBACK");
	}
	await written(client, rig);
	expect(await ask(client, frontend.parse("COMMIT"), frontend.bind())).toBe("0A000 E");
	await client.query("ROLLBACK");
	// On one shard, and of reads, it is done as ever.
	await client.query("BEGIN");
	await client.query(on(1));
	expect(await query(client, "COMMIT AND CHAIN")).toBe("COMMIT T");
	expect(await query(client, "COMMIT")).toBe("COMMIT I");
});

test("a write over both shards is a transaction of ours", async () => {
	await using rig = twoShards({}, TwoPhase.Statements);
	await using client = await rig.connect();
	const sql = "INSERT INTO t DEFAULT VALUES";
	expect(await query(client, sql)).toBe("INSERT 0 2 I");
	expect(await ask(client, ...run(sql))).toBe("INSERT 0 2 I");
	await until(() => rig.shards[0]!.heard.filter((text) => text.includes("DELETE")).length === 2, "the rows to go");
	expect(phases(rig)).toBe("PICDPICD PCPC");
	rig.shards[1]!.fails.add(sql);
	expect(await query(client, sql)).toBe("XX000 I");
	expect(await ask(client, ...run(sql))).toBe("XX000 I");
	expect(rig.shards.map((shard) => shard.take().filter((text) => text === "Q ROLLBACK").length)).toEqual([2, 2]);
	rig.shards[1]!.fails.clear();
	rig.shards[1]!.refuses = /^PREPARE TRANSACTION/;
	expect(await query(client, sql)).toBe("XX000 I");
	expect(phases(rig)).toBe("PR P");
	expect(await query(client, on(1))).toBe("INSERT 0 1 I");
});
