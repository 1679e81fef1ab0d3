// The statements of a client of several shards: one set, which each shard's ClientStatements sees, whatever the client has done elsewhere.
// What shards/exchange.ts says of a request's way is said here by hand.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ShardedStatements } from "../../src/session/sharded-statements.ts";
import { backend as b, frontend as f } from "../support/wire-frames.ts";
import { TestClient, thread } from "./support.ts";

const INTEGER = [b.parameterDescription(23), b.rowDescription("a")];
const BIGINT = [b.parameterDescription(20), b.rowDescription("a")];
const SYNC = f.sync();
const ERROR = b.errorResponse({ S: "ERROR", V: "ERROR", C: "42601", M: "no" });
const run = (statement = "") => [f.bind({ statement }), f.execute()];

const SAID = { "SELECT 1": INTEGER, "SELECT 2": BIGINT, "SELECT $1": [b.parameterDescription(), b.noData()] } as Record<
	string,
	Uint8Array[]
>;

/** A client of so many shards, and its shards. */
function sharded(count: number) {
	const all = thread();
	const of = new ShardedStatements(all.statements, true);
	const shards = Array.from({ length: count }, (_, number) => new TestClient(all, { shard: { number, of } }));
	return { all, of, shards, client: new ShardedTestClient(all, { all: of }) };
}

/** Its ClientStatements have no server. */
class ShardedTestClient extends TestClient {
	/** Shards have replied to this message. */
	note(message: Uint8Array): void {
		this.statements.note(Buffer.from(message), 0, message.length, this.serial());
	}
}

test("each shard tells the client the same of a statement, or refuses it", () => {
	const { of, shards, client } = sharded(2);
	for (const shard of shards) shard.say(f.parse("SELECT * FROM t", "mine"), SYNC);
	for (const [i, is] of [INTEGER, BIGINT].entries()) shards[i]!.done(b.parseComplete(), ...is);
	client.note(f.parse("SELECT * FROM t", "mine"));
	of.settle([0, 1], true);
	expect(shards[0]!.say(...run("mine"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
	expect(shards[1]!.say(...run("mine"), SYNC)).toEqual(["Close S __pgdog_2", "refused"]);
});

test.each([
	["a Close", f.close("S", "mine")],
	["DEALLOCATE", f.query("DEALLOCATE mine")],
])("a shard is asked again about a text whose statement %s has ended on another", (_, message) => {
	const { of, shards, client } = sharded(2);
	shards[1]!.say(f.parse("SELECT 1", "mine"), SYNC);
	shards[1]!.done(b.parseComplete(), ...INTEGER);
	client.note(f.parse("SELECT 1", "mine"));
	of.settle([1], true);
	client.note(message);
	expect(shards[1]!.say(f.parse("SELECT 1", "mine"), SYNC)[0]).toBe("Close S __pgdog_1");
});

test("after an error on some shards all have what the client has", () => {
	const { of, shards, client } = sharded(2);
	for (const shard of shards) {
		shard.say(f.parse("SELECT 1", "both"), f.parse("SELECT 2", "not"), f.parse("SELECT 3"), SYNC);
		shard.done(b.parseComplete(), ...INTEGER, ERROR);
	}
	client.note(f.parse("SELECT 1", "both"));
	of.settle([0, 1], false);
	for (const [i, { statements }] of shards.entries()) {
		of.begin([i]);
		expect(["both", "not", ""].map((name) => statements.textOf(name))).toEqual(["SELECT 1", null, null]);
	}
});

test("a text is read elsewhere by the settings that it was parsed by, whatever they are by then", () => {
	const { all, of, shards, client } = sharded(2);
	const sql = "SELECT '1.2.2000'::date";
	const named = (shard: number) => shards[shard]!.kept!.names.get("mine")!;
	for (const each of [client, ...shards]) each.wanted = all.sets.of(new Map([["datestyle", "ISO, DMY"]]));
	shards[0]!.say(f.parse(sql, "mine"), SYNC);
	shards[0]!.done(b.parseComplete(), b.parameterDescription(), b.rowDescription("date"));
	client.note(f.parse(sql, "mine"));
	of.settle([0], true);
	expect(named(0).constants).toContain("DMY");
	for (const each of [client, ...shards]) each.wanted = all.sets.empty;
	expect(named(1).constants).toBe(named(0).constants);
	expect([named(1).dialect, named(1) === named(0)]).toEqual([null, false]);
});

describe("by whatever requests, failed and not", () => {
	const name = fc.constantFrom("", "a", "b", "c");
	const text = fc.constantFrom("SELECT 1", "SELECT 2", "SELECT $1");
	const message = fc.oneof(
		{ weight: 3, arbitrary: fc.tuple(fc.constant("parse" as const), name, text) },
		fc.tuple(fc.constant("close" as const), name, text),
		{ weight: 2, arbitrary: fc.tuple(fc.constantFrom("use" as const, "describe" as const), name, text) },
	);
	/** Messages of one batch, the shards that are sent it, and which message to each of these fails, if there are so many. */
	const request = fc.record({
		messages: fc.array(message, { minLength: 1, maxLength: 4 }),
		shards: fc.subarray([0, 1, 2], { minLength: 1 }),
		failing: fc.array(fc.nat(12), { minLength: 3, maxLength: 3 }),
	});
	type Word = "parse" | "close" | "use" | "describe";

	/** By name, the texts of a shard's statements. */
	type Texts = Map<string, string>;

	/** Plays the batch on one shard, whose message `failing` fails. @returns how many of its messages are done */
	function play(shard: TestClient, texts: Texts, messages: Uint8Array[], failing: number): number {
		let left = failing;
		let failed = false;
		const heard: string[] = [];
		const answers: Uint8Array[] = [];
		const answer = (lines: string[]): void => {
			for (const line of lines) {
				if (failed || !/^(Parse|Bind|Close|Describe)/.test(line)) continue;
				failed = left-- === 0;
				const [, name = "", text] = /^(?:Parse|Describe S)(?: (\w+))?(?: "(.*)")?/.exec(line) ?? [];
				if (text !== undefined && !failed) texts.set(name, text);
				if (failed) answers.push(ERROR);
				else if (line.startsWith("Describe")) answers.push(...SAID[texts.get(name)!]!);
				else if (line.startsWith("Parse")) answers.push(b.parseComplete());
				else answers.push(line.startsWith("Bind") ? b.bindComplete() : b.closeComplete());
			}
		};
		for (const message of messages) {
			let lines = shard.say(message);
			answer(lines);
			while (lines.at(-1) === "later" && !failed) {
				heard.push(...shard.hear(...answers.splice(0)));
				lines = shard.say(message);
				answer(lines);
			}
			expect(lines).not.toContain("refused");
			if (failed) break;
		}
		shard.say(SYNC);
		heard.push(...shard.done(...answers));
		shard.leave();
		shard.server.lend({ ...shard.rig.client, statements: shard.statements }, 0, false);
		return heard.filter((line) => /^((Parse|Bind|Close)Complete|RowDescription|NoData)/.test(line)).length;
	}

	/** What PostgreSQL would refuse is left out: a name that is taken, or that nobody has. */
	function sound(messages: [Word, string, string][], model: Map<string, string>): [Word, string, string][] {
		const names = new Map(model);
		return messages.filter(([what, key, sql]) => {
			if (what === "use" || what === "describe") return names.has(key);
			if (what === "close") names.delete(key);
			else if (key !== "" && names.has(key)) return false;
			else names.set(key, sql);
			return true;
		});
	}

	function encode([what, key, sql]: [Word, string, string]): Uint8Array {
		if (what === "parse") return f.parse(sql, key);
		if (what === "use") return f.bind({ statement: key });
		return what === "close" ? f.close("S", key) : f.describe("S", key);
	}

	type Request = typeof request extends fc.Arbitrary<infer Value> ? Value : never;
	const NEVER = [9, 9, 9];
	/** What was found here once: a shard took what another had been told of the next statement of a name for what it knew of the last. */
	const FOUND: [Request[]][] = [
		// The other has come further.
		[
			[
				{ messages: [["parse", "", "SELECT $1"]], shards: [1], failing: NEVER },
				{ messages: [["describe", "", "SELECT 1"]], shards: [2], failing: NEVER },
				{
					messages: [
						["use", "", "SELECT 1"],
						["parse", "", "SELECT 1"],
						["describe", "", "SELECT 1"],
					],
					shards: [0, 1],
					failing: NEVER,
				},
			],
		],
		// The other was answered later.
		[
			[
				{ messages: [["parse", "", "SELECT 1"]], shards: [0], failing: NEVER },
				{
					messages: [
						["describe", "", "SELECT 1"],
						["parse", "", "SELECT $1"],
					],
					shards: [1],
					failing: NEVER,
				},
				{ messages: [["use", "", "SELECT 1"]], shards: [2], failing: NEVER },
			],
		],
	];

	test("all shards see the statements that the client has", () => {
		fc.assert(
			fc.property(fc.array(request, { maxLength: 8 }), (requests: Request[]) => {
				const { of, shards, client } = sharded(3);
				const model = new Map<string, string>();
				const texts = shards.map((): Texts => new Map());
				for (const { messages, shards: targets, failing } of requests) {
					const batch = sound(messages, model);
					const said = batch.map(encode);
					if (said.length === 0) continue;
					of.begin(targets);
					// As where each waits for a server until the one before is done.
					const done = targets.map((target) => play(shards[target]!, texts[target]!, said, failing[target]!));
					// The client hears of what all have done.
					const all = Math.min(...done);
					for (const [i, [what, key, sql]] of batch.slice(0, all).entries()) {
						if (what === "use" || what === "describe") continue;
						client.note(said[i]!);
						if (what === "parse") model.set(key, sql);
						else model.delete(key);
					}
					const next = batch[all];
					if (next?.[0] === "parse" && next[1] === "") {
						client.statements.forgetUnnamed();
						model.delete("");
					}
					of.settle(targets, next === undefined);
					const has = ({ statements }: TestClient) => ["", "a", "b", "c"].map((key) => statements.textOf(key));
					const expected = ["", "a", "b", "c"].map((key) => model.get(key) ?? null);
					of.begin([...shards.keys()]);
					expect([client, ...shards].map(has)).toEqual([client, ...shards].map(() => expected));
				}
			}),
			{ examples: FOUND, numRuns: Number(process.env.RUNS ?? 150) },
		);
	});
});
