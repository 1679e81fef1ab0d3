// When a client is told of notifications, and how many wait for it. The Ear is played; with PostgreSQL: test/integration/listen.test.ts.

import { expect, test } from "bun:test";
import type { Server } from "../../src/backend/server.ts";
import type { ClientContext } from "../../src/client/context.ts";
import { type Hearer, Hearing } from "../../src/client/hearing.ts";
import { Contain } from "../../src/contain.ts";
import type { PgError } from "../../src/errors.ts";
import { Act, type ListenAct } from "../../src/parser/listens.ts";
import { type Ear, HeardChannel } from "../../src/pool/ear.ts";
import { MOST_LISTENS } from "../../src/session/listens.ts";
import { Said } from "../../src/session/said.ts";
import { TxStatus } from "../../src/wire/codes.ts";
import { cstring, int32, message } from "../support/wire-frames.ts";

const contain = new Contain(
	(error) => {
		throw error;
	},
	() => {},
);
const listen = (...names: string[]): ListenAct[] => names.map((name) => ({ act: Act.Listen, name }));
const notification = (payload: string, pid = 7) =>
	Buffer.from(message("A", int32(pid), cstring("a"), cstring(payload)));

function scene(pub_sub_channel_size = 3) {
	const wrote: string[] = [];
	const joined = new Set<string>();
	const heard = new Set<string>();
	const dropped: string[] = [];
	const waits: ((error: PgError | null) => void)[] = [];
	const ear = {
		add: (name: string) => joined.add(name) && heard.has(name),
		remove: (name: string) => joined.delete(name),
		wait: (_: string[], done: (error: PgError | null) => void) => waits.push(done),
		drop: (channel: HeardChannel) => dropped.push(channel.name),
	};
	const stream = {
		midMessage: false,
		queued: 0,
		writeAll: (bytes: Buffer) => wrote.push(bytes.toString("latin1").replaceAll(/A\0\0\0[\0-\xff]/g, "|")),
	};
	const client = { pid: 5, user: "u", database: "d" };
	let held = 0;
	const onHeld = () => void held++;
	const hearer = { client, shard: 2, stream, server: null as unknown, isBusy: false, onHeld };
	const general = { pub_sub_channel_size };
	let asked = 0;
	const of = (...whose: unknown[]) => {
		expect(whose).toEqual(["u", "d", 2]);
		asked++;
		return ear as unknown as Ear;
	};
	const context = { general, contain, ears: { of } };
	const isItself = Object.assign(hearer, { audience: hearer });
	const hearing = new Hearing(context as unknown as ClientContext, isItself as unknown as Hearer);
	const values = new Map([["client_encoding", "UTF8"]]);
	const session = { follow() {}, traces: { rolledBack: false }, reports: { now: { values } } };
	const server = { pid: 9, status: TxStatus.Idle, session };
	const on = server as unknown as Server;
	/** A statement that is heeded, said and answered. */
	const say = (acts: ListenAct[], status = TxStatus.Idle) => {
		expect(hearing.heed(on, acts)).toBe(Said.AsIs);
		hearing.say(on, acts);
		for (const { act } of acts) hearing.onTag(act);
		server.status = status;
		hearing.answered(on);
	};
	return {
		asked: () => asked,
		held: () => held,
		hearing,
		hearer,
		server,
		on,
		ear,
		stream,
		wrote,
		joined,
		heard,
		dropped,
		waits,
		general,
		values,
		say,
	};
}

const settled = () => Bun.sleep(0);
const text = (payload: string, pid = 7) => `|\0\0\0${String.fromCharCode(pid)}a\0${payload}\0`;

test("what comes at once goes out at once, when the client is neither busy nor behind", async () => {
	const { hearing, hearer, held, stream, heard, wrote, say } = scene();
	heard.add("a");
	say(listen("a"));
	const channel = new HeardChannel("a");
	hearing.hear(channel, 7, notification("1"));
	hearing.hear(channel, 7, notification("2"));
	await settled();
	expect(wrote).toEqual([text("1") + text("2")]);
	hearer.isBusy = true;
	hearing.hear(channel, 7, notification("3"));
	await settled();
	expect(held()).toBe(1);
	hearer.isBusy = false;
	stream.midMessage = true;
	hearing.deliver();
	stream.midMessage = false;
	stream.queued = 1 << 20;
	hearing.deliver();
	expect(wrote.length).toBe(1);
	stream.queued = 0;
	hearing.deliver();
	hearing.deliver();
	expect(wrote.slice(1)).toEqual([text("3")]);
	// Whoever is told has them delivered again where they could not be, and nowhere else.
	expect(held()).toBe(3);
	// A server's process that has the client's own number.
	hearing.hear(channel, 5, notification("4", 5));
	await settled();
	expect(wrote.slice(2)).toEqual([text("4", 0)]);
});

test("the oldest are dropped: beyond the number, and beyond the bytes", async () => {
	const { hearing, hearer, heard, dropped, wrote, general, say } = scene();
	heard.add("a");
	say(listen("a"));
	const channel = new HeardChannel("a");
	hearer.isBusy = true;
	for (const payload of "12345") hearing.hear(channel, 7, notification(payload));
	expect(dropped).toEqual(["a", "a"]);
	hearer.isBusy = false;
	await settled();
	expect(wrote).toEqual([text("3") + text("4") + text("5")]);
	general.pub_sub_channel_size = 1_000_000;
	hearer.isBusy = true;
	for (let i = 0; i < 200; i++) hearing.hear(channel, 7, notification("x".repeat(7_000)));
	expect(dropped.length - 2).toBe(200 - Math.floor((1 << 20) / (7_000 + 12)));
});

test("a LISTEN waits until it is listened for; then, or why it cannot be, it is heeded again", () => {
	const { asked, hearing, on, joined, heard, waits, say } = scene();
	expect(hearing.heed(on, listen("a"))).toBe(Said.Awaits);
	let told = 0;
	hearing.wait(() => told++);
	waits.shift()!({ sqlstate: "08001" } as PgError);
	expect(hearing.heed(on, listen("a"))).toBe(Said.Unheard);
	expect(hearing.refusal.sqlstate).toBe("08001");
	// Also while its transaction is still open, which has failed.
	expect([...joined]).toEqual([]);
	hearing.answered(on);
	expect([...joined]).toEqual([]);
	expect(hearing.heed(on, listen("a"))).toBe(Said.Awaits);
	hearing.wait(() => told++);
	heard.add("a");
	waits.shift()!(null);
	say(listen("a"));
	expect([told, ...joined]).toEqual([2, "a"]);
	// Those on which nobody listens may be gone.
	const before = asked();
	heard.add("b");
	say(listen("b"));
	say([{ act: Act.Unlisten, name: "" }]);
	say(listen("b"));
	expect(asked() - before).toBe(1);
	hearing.leave();
	expect([...joined]).toEqual([]);
});

test("a CancelRequest ends the wait, and nothing else", () => {
	const { hearing, on, joined, heard, waits, say } = scene();
	expect(hearing.cancel()).toBe(false);
	let told = 0;
	const wait = () => {
		expect(hearing.heed(on, listen("a"))).toBe(Said.Awaits);
		hearing.wait(() => told++);
	};
	wait();
	expect([hearing.cancel(), hearing.cancel(), told]).toEqual([true, false, 1]);
	expect([hearing.heed(on, listen("a")), hearing.refusal.sqlstate, ...joined]).toEqual([Said.Unheard, "57014"]);
	wait();
	// What the first waited for comes when nobody does any more, or somebody else.
	waits.shift()!({ sqlstate: "08001" } as PgError);
	expect(told).toBe(1);
	heard.add("a");
	waits.shift()!(null);
	expect([told, hearing.cancel()]).toEqual([2, false]);
	say(listen("a"));
	expect([...joined]).toEqual(["a"]);
	heard.delete("a");
	wait();
	hearing.leave();
	waits.shift()!(null);
	expect([told, hearing.cancel()]).toEqual([2, false]);
});

test("what is undone is not listened on; what its own transaction notified comes with it", async () => {
	const { hearing, hearer, server, joined, heard, wrote, say } = scene();
	heard.add("a");
	const channel = new HeardChannel("a");
	hearer.server = server;
	for (const rolledBack of [true, false]) {
		say(listen("a"), TxStatus.InBlock);
		server.session.traces.rolledBack = rolledBack;
		hearing.hear(channel, 7, notification("another's"));
		hearing.hear(channel, 9, notification("own", 9));
		say([], TxStatus.Idle);
		expect([...joined]).toEqual(rolledBack ? [] : ["a"]);
	}
	await settled();
	expect(wrote).toEqual([text("own", 9)]);
	// What waits on a channel that is given up is not passed on.
	hearer.isBusy = true;
	hearing.hear(channel, 7, notification("late"));
	say([{ act: Act.Unlisten, name: "a" }]);
	hearer.isBusy = false;
	await settled();
	hearing.hear(channel, 7, notification("later"));
	await settled();
	expect([wrote.length, ...joined]).toEqual([1]);
});

test("what comes before its COMMIT is bounded as what waits is: the rest is dropped, and counted", async () => {
	const { hearing, hearer, server, heard, wrote, dropped, say } = scene(1_000);
	heard.add("a");
	const channel = new HeardChannel("a");
	hearer.server = server;
	say(listen("a"), TxStatus.InBlock);
	for (let i = 0; i < 200; i++) hearing.hear(channel, 9, notification("x".repeat(7_000), 9));
	expect(dropped.length).toBe(200 - Math.floor((1 << 20) / (7_000 + 12)));
	say([], TxStatus.Idle);
	await settled();
	expect(wrote.join("").length).toBeLessThanOrEqual(1 << 20);
});

test("as many portals as may be remembered, and none of a name that is cut off", () => {
	const { hearing, on, heard } = scene();
	heard.add("a");
	hearing.heed(on, listen("a"));
	hearing.bind("p".repeat(64), listen("a"));
	hearing.execute(on, "p".repeat(64));
	expect(hearing.isOpen).toBe(false);
	for (let i = 0; i < MOST_LISTENS; i++) hearing.bind(`p${i}`, listen("a"));
	expect([hearing.heed(on, listen("a")), hearing.refusal.sqlstate]).toEqual([Said.Unheard, "54000"]);
	hearing.answered(on);
	expect(hearing.heed(on, listen("a"))).toBe(Said.AsIs);
});

test("portals are what they were bound to last", () => {
	const { hearing, on, heard, joined } = scene();
	heard.add("a").add("b");
	for (const name of ["a", "b"]) hearing.heed(on, listen(name));
	hearing.bind("p", listen("a"));
	hearing.bind("q", listen("b"));
	hearing.bind("q", []);
	hearing.execute(on, "p");
	hearing.execute(on, "q");
	expect(hearing.isOpen).toBe(true);
	hearing.onTag("LISTEN");
	hearing.onTag("LISTEN");
	hearing.answered(on);
	expect([...joined]).toEqual(["a"]);
	hearing.execute(on, "p");
	expect(hearing.isOpen).toBe(false);
});

test("another encoding, and too many channels, are refused", () => {
	const { hearing, on, values } = scene();
	values.set("client_encoding", "LATIN1");
	expect([hearing.heed(on, listen("a")), hearing.refusal.sqlstate]).toEqual([Said.Unheard, "0A000"]);
	values.set("client_encoding", "SQL_ASCII");
	expect(hearing.heed(on, listen("a"))).toBe(Said.Awaits);
	const many = listen(...Array.from({ length: MOST_LISTENS }, (_, i) => `c${i}`));
	expect([hearing.heed(on, many), hearing.refusal.sqlstate]).toEqual([Said.Unheard, "54000"]);
	expect(hearing.concerns([{ act: Act.Commit, name: "" }])).toBe(false);
	expect(hearing.concerns(listen("a"))).toBe(true);
});

test("who has said as much as may be remembered can end the transaction, and give the channels up", () => {
	const { hearing, heard, joined, on, say, waits } = scene();
	const many = listen(...Array.from({ length: MOST_LISTENS }, (_, i) => `c${i}`));
	// Heeded twice, as it has to wait.
	expect(hearing.heed(on, many)).toBe(Said.Awaits);
	hearing.wait(() => {});
	waits.shift()!(null);
	for (const { name } of many) heard.add(name);
	say(many);
	expect(hearing.heed(on, listen("more"))).toBe(Said.Unheard);
	expect(hearing.heed(on, listen("c5"))).toBe(Said.AsIs);
	say([{ act: Act.Unlisten, name: "" }]);
	expect(joined.size).toBe(0);
	say(
		many.map(() => many[0]!),
		TxStatus.InBlock,
	);
	for (const act of [Act.Listen, Act.Unlisten, Act.Savepoint])
		expect([hearing.heed(on, [{ act, name: "c0" }]), hearing.refusal.sqlstate]).toEqual([Said.Unheard, "54000"]);
	for (const act of [Act.Release, Act.Rollback]) expect(hearing.heed(on, [{ act, name: "s" }])).toBe(Said.AsIs);
	say([{ act: Act.Commit, name: "" }]);
	expect([...joined]).toEqual(["c0"]);
});

test("it is idle while the client listens on nothing, and nothing is under way or waits", async () => {
	const { hearing, hearer, heard, say, on, server } = scene();
	heard.add("a");
	expect(hearing.isIdle).toBe(true);
	const idle: boolean[] = [];
	const note = () => idle.push(hearing.isIdle);
	say(listen("a"), TxStatus.InBlock);
	note();
	say([{ act: Act.Rollback, name: "" }]);
	note();
	say(listen("a"));
	note();
	hearer.isBusy = true;
	hearing.hear(new HeardChannel("a"), 7, notification("1"));
	await settled();
	note();
	server.status = TxStatus.Idle;
	hearing.say(on, [{ act: Act.Unlisten, name: "a" }]);
	note();
	hearing.onTag(Act.Unlisten);
	hearing.answered(on);
	note();
	expect(idle).toEqual([false, true, false, false, false, true]);
});
