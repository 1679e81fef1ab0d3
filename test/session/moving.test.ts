// A session that goes to another thread, as plain data: there it means what it meant here, whatever others of that thread know.

import { describe, expect, test } from "bun:test";
import { Statements } from "../../src/backend/statements.ts";
import type { General } from "../../src/config/settings.ts";
import { Side } from "../../src/config/snapshot.ts";
import { NO_HINTS } from "../../src/parser/hints.ts";
import { Reading } from "../../src/parser/reading.ts";
import { Session } from "../../src/session/session.ts";
import { ClientSettings } from "../../src/session/settings.ts";
import { ShardedStatements } from "../../src/session/sharded-statements.ts";
import { rig } from "../backend/support.ts";
import { backend as b, frontend as f } from "../support/wire-frames.ts";
import { TestClient, type Thread, thread } from "./support.ts";

const SYNC = f.sync();
const INTEGER = [b.parameterDescription(23), b.rowDescription("a")];
const BIGINT = [b.parameterDescription(20), b.rowDescription("a")];
const run = (statement = "") => [f.bind({ statement }), f.execute()];

function parse(client: TestClient, name: string, sql: string, description = INTEGER): void {
	client.say(f.parse(sql, name), SYNC);
	client.done(b.parseComplete(), ...(name === "" ? [] : description));
}

/** The client as one of `there`, with a server of its own. */
function move(client: TestClient, there: Thread): TestClient {
	client.leave();
	expect(client.statements.mayMove).toBe(true);
	const moved = new TestClient(there);
	moved.statements.arrive(structuredClone(client.statements.depart()), ++there.serial);
	return moved;
}

describe("statements on another thread", () => {
	test("are prepared with the types that the client was told of, and checked", () => {
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT $1");
		const moved = move(client, thread());
		expect(moved.say(...run("mine"), SYNC)).toEqual([
			'Parse __pgdog_1 "SELECT $1" 23',
			"Describe S __pgdog_1",
			"Flush",
			"later",
		]);
		moved.hear(b.parseComplete(), ...INTEGER);
		expect(moved.say(...run("mine"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
	});

	test("are those of all who were told the same of that text", () => {
		const there = thread();
		const other = new TestClient(there);
		parse(other, "theirs", "SELECT $1");
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT $1");
		const moved = move(client, there);
		moved.take(other.rig);
		expect(moved.say(...run("mine"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
	});

	test("are other ones where others were told something else, and these keep theirs", () => {
		const there = thread();
		const other = new TestClient(there);
		parse(other, "theirs", "SELECT $1", BIGINT);
		const client = new TestClient(thread());
		parse(client, "mine", "SELECT $1");
		const moved = move(client, there);
		moved.take(other.rig);
		expect(moved.say(...run("mine"), SYNC)[0]).toBe('Parse __pgdog_2 "SELECT $1" 23');
		moved.hear(b.parseComplete(), ...INTEGER);
		moved.leave();
		other.take(moved.rig);
		expect(other.say(...run("theirs"), SYNC)).toEqual(["Bind __pgdog_1", "Execute", "Sync"]);
		other.done(b.bindComplete(), b.commandComplete("SELECT 1"));
		const third = new TestClient(there);
		third.take(other.rig);
		expect(third.say(f.parse("SELECT $1", "new"), SYNC)).toEqual(["Sync"]);
	});

	test("the unnamed one goes along, and none", () => {
		const client = new TestClient(thread());
		parse(client, "", "SELECT 'unnamed'");
		const moved = move(client, thread());
		expect(moved.say(...run(), SYNC)).toEqual(["Parse \"SELECT 'unnamed'\"", "Bind", "Execute", "Sync"]);
		const none = move(new TestClient(thread()), thread());
		expect(none.say(...run(), SYNC)).toEqual(["Close S", "Bind", "Execute", "Sync"]);
		expect(none.statements.namesOf(() => true)).toEqual([]);
	});

	test("stay where not all is known of them, or something is under way", () => {
		const all = thread();
		const client = new TestClient(all);
		client.say(f.parse("SELECT 1", "mine"));
		expect(client.statements.mayMove).toBe(false);
		client.say(SYNC);
		expect(client.statements.mayMove).toBe(false);
		client.done(b.parseComplete(), b.parameterDescription(), b.rowDescription("a"));
		expect(client.statements.mayMove).toBe(true);
		// It was parsed by other settings than the session has now.
		client.wanted = all.sets.of(new Map([["search_path", "other"]]));
		expect(client.statements.mayMove).toBe(false);
		client.wanted = all.sets.empty;
		expect(client.statements.mayMove).toBe(true);
		parse(client, "long", `SELECT '${"x".repeat(1 << 20)}'`);
		expect(client.statements.mayMove).toBe(false);
		for (const options of [{ shared: false }, { all: new ShardedStatements(new Statements(() => 1), true) }])
			expect(new TestClient(thread(), options).statements.mayMove).toBe(false);
	});
});

test("settings are what they were, and are counted where they are", () => {
	const [here, there] = [rig(), rig()];
	const make = ({ sets, toClient }: typeof here, startup: [string, string][]) =>
		new ClientSettings(sets, sets.of(new Map(startup)), toClient.stream, new Session(NO_HINTS));
	const settings = make(here, [["application_name", "one"]]);
	settings.wanted = here.sets.of(new Map([["search_path", "mine"]]));
	settings.welcome(here.sets.of(new Map([["standard_conforming_strings", "off"]])));
	expect(settings.mayMove).toBe(true);
	const moving = structuredClone(settings.depart());
	const moved = make(there, [...moving.startup]);
	moved.arrive(moving);
	expect([...moved.wanted.values]).toEqual([["search_path", "mine"]]);
	expect([...moved.startup.values]).toEqual([["application_name", "one"]]);
	expect(moved.reading).toBe(settings.reading);
	expect(moved.reading).not.toBe(Reading.Standard);
	moved.leave();
	expect(there.sets.kept).toBe(0);
	settings.wanted = here.sets.of(new Map([["search_path", "x".repeat(1 << 16)]]));
	expect(settings.mayMove).toBe(false);
});

test("of a session in which nothing was routed nothing goes along but its StartupMessage's hints", () => {
	const startup = { role: "replica", shard: null, shardingKey: null } as const;
	const moving = structuredClone(new Session(startup).depart());
	expect(moving).toEqual({ startup, hints: null, wroteAt: 0, reading: null });
	const moved = new Session(moving.startup);
	moved.arrive(moving);
	expect(moved.depart()).toEqual(moving);
	expect([moved.hints.text("role"), moved.heldBegin.open, moved.writes.at]).toEqual(["replica", false, 0]);
});

test("hints, the client's own writes and how it reads go along", () => {
	const session = new Session({ role: "replica", shard: null, shardingKey: null });
	session.hints.change({ kind: "set", name: "role", value: "primary", local: false }, false);
	session.writes.wrote(1_000);
	session.reading.settle(Reading.Standard, null);
	session.reading.noteParse("uncertain", false);
	const moving = structuredClone(session.depart());
	const moved = new Session(moving.startup);
	moved.arrive(moving);
	expect(moved.hints.text("role")).toBe("primary");
	moved.hints.change({ kind: "reset", name: "role" }, false);
	expect(moved.hints.text("role")).toBe("replica");
	const general = { read_after_write: "primary", read_after_write_window: 500 } as unknown as General;
	expect(moved.writes.side(Side.Any, general, 1_400)).toBe(Side.Primary);
	expect(moved.writes.side(Side.Any, general, 1_600)).toBe(Side.Any);
	expect([moved.reading.isStale("uncertain", null), moved.reading.isStale("other", null)]).toEqual([true, false]);
});
