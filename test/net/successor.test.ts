// What two processes say of clients, each end against the other and against nonsense.

import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { closeDescriptor } from "../../src/net/options.ts";
import { Channel, FRAME, frame, readMemoryFile, writeMemoryFile } from "../../src/net/passing.ts";
import { LANGUAGE, Successor } from "../../src/net/successor.ts";
import { ClientsFrom } from "../../src/net/takeover.ts";
import { until } from "../support/until.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-net-successor-"));
afterAll(() => rmSync(folder, { recursive: true }));

const files = () => readdirSync("/proc/self/fd").length;

let count = 0;
/** Both ends of a connection, and what the old one has heard. */
async function pair() {
	const path = join(folder, `${count++}`);
	const heard: string[] = [];
	const { promise, resolve } = Promise.withResolvers<Socket<undefined>>();
	let old: Successor | null = null;
	const listener = Bun.listen<undefined>({
		unix: path,
		socket: {
			open: resolve,
			data: (_, chunk) => old!.onData(chunk),
			close: () => old!.end(),
		},
	});
	const channel = Channel.open(path)!;
	old = new Successor(await promise);
	listener.stop();
	expect(old.isServed).toBe(false);
	old.serve({
		onWelcome: (language) => heard.push(language === LANGUAGE ? "welcome" : `welcome in ${language}`),
		onReady: (pid) => heard.push(`ready ${pid}`),
		onRefused: (pid, why) => heard.push(`refused ${pid}: ${why}`),
		onCancel: (pid, secret) => heard.push(`cancel ${pid} ${secret}`),
		onOrder: (id, text) => heard.push(`order ${id}: ${text}`),
		onObeyed: (id) => heard.push(`obeyed ${id}`),
		onKnown: (id) => heard.push(`known ${id}`),
		onUnknown: (id, why) => heard.push(`unknown ${id}: ${why}`),
		onGone: () => heard.push("gone"),
	});
	return { heard, old, channel, next: new ClientsFrom(channel) };
}

describe.skipIf(process.platform !== "linux")("clients from one process to another", () => {
	test("are answered for, however many at once, where the other end has no time to hear", async () => {
		const { heard, next } = await pair();
		const count = 2_000;
		for (let pid = 0; pid < count; pid++) next.answer(pid, null);
		await until(() => {
			next.flush();
			return heard.length === count;
		}, "all answers");
		expect(heard).toEqual(Array.from({ length: count }, (_, pid) => `ready ${pid}`));
		next.end();
	});

	test("come with their passports, are answered for, and go on there or here", async () => {
		const { heard, old, next } = await pair();
		next.begin();
		await until(() => heard.length === 1, "the welcome");
		const file = join(folder, "connection");
		writeFileSync(file, "");
		const fd = openSync(file, "r");
		const passport = new Uint8Array(1 << 20).fill(7);
		const before = files();
		expect(next.next(1 << 20)).toBe(null);
		expect([old.give(5, fd, passport), old.give(2 ** 31 - 1, fd, passport)]).toEqual([true, true]);
		expect([old.say("go", 5), old.say("keep", 2 ** 31 - 1)]).toEqual([true, true]);
		const first = next.next(1 << 20)!;
		expect([first.word, first.pid, first.passport?.length, first.passport?.[99]]).toEqual(["client", 5, 1 << 20, 7]);
		expect(fstatSync(first.fd).ino).toBe(fstatSync(fd).ino);
		// One whose passport is too long comes without.
		const second = next.next((1 << 20) - 1)!;
		expect([second.word, second.pid, second.passport]).toEqual(["client", 2 ** 31 - 1, null]);
		for (const { fd } of [first, second]) closeDescriptor(fd);
		expect(next.next(1)).toEqual({ word: "go", pid: 5, fd: -1, passport: null });
		expect(next.next(1)).toEqual({ word: "keep", pid: 2 ** 31 - 1, fd: -1, passport: null });
		next.answer(5, null);
		next.answer(6, "no room");
		next.cancel(7, Buffer.from("key"));
		await until(() => heard.length === 4, "the answers");
		expect(heard).toEqual(["welcome", "ready 5", "refused 6: no room", "cancel 7 key"]);
		expect(files()).toBe(before);
		next.end();
		await until(() => heard.length === 5, "the end");
		expect([heard.at(-1), old.give(5, fd, passport), old.say("go", 5)]).toEqual(["gone", false, false]);
		closeSync(fd);
	});

	test("orders go in both directions, and users are introduced", async () => {
		const { heard, old, next } = await pair();
		const before = files();
		expect([old.order(1, "pause"), old.introduce(2, Buffer.from("alice")), old.say("obeyed", 3)]).toEqual([
			true,
			true,
			true,
		]);
		const said = [next.next(100), next.next(100), next.next(100)].map((each) => {
			const { word, pid, passport } = each!;
			return `${word} ${pid} ${Buffer.from(passport ?? [])}`;
		});
		expect(said).toEqual(["order 1 pause", "user 2 alice", "obeyed 3 "]);
		expect(next.order(4, '{"a": "b  c"}')).toBe(true);
		next.obeyed(5);
		next.met(6, null);
		next.met(7, `it says:\n${"no ".repeat(1_000)}`);
		await until(() => heard.length === 4, "the answers");
		expect(heard.slice(0, 3)).toEqual(['order 4: {"a": "b  c"}', "obeyed 5", "known 6"]);
		expect(heard[3]).toStartWith("unknown 7: it says: no no ");
		expect(heard[3]!.length).toBeLessThan(600);
		expect(files()).toBe(before);
		next.end();
		expect([next.order(1, ""), next.isOver]).toEqual([false, true]);
		await until(() => heard.at(-1) === "gone", "the end");
		expect([old.order(1, ""), old.introduce(1, new Uint8Array())]).toEqual([false, false]);
	});

	test("an old process that is gone is noticed, behind what it has said last", async () => {
		const { old, next } = await pair();
		old.say("go", 9);
		old.end();
		await until(() => next.next(1)?.pid === 9, "its last word");
		await until(() => next.next(1) === null && next.isOver, "its end");
		// Nobody hears this.
		next.begin();
		next.answer(1, null);
		next.cancel(1, new Uint8Array(4));
	});

	test.each(["", "take 5", "client", "client x", "go -5", "go 5 6"])(
		"an old process that says %j is left",
		async (text) => {
			const { old, channel, next } = await pair();
			const fd = openSync("/dev/null", "r");
			const before = files();
			const { sendDescriptors } = await import("../../src/net/passing.ts");
			const socket = (old as unknown as { socket: { fd: number } }).socket;
			sendDescriptors(socket.fd, text.padEnd(FRAME - 1).concat("\n"), [fd, fd, fd]);
			expect(next.next(1)).toBe(null);
			expect(next.isOver).toBe(true);
			// Its descriptors, too, but for the channel's own.
			expect(files()).toBe(before - 1);
			expect(channel).toBeDefined();
			closeSync(fd);
		},
	);

	test.each([
		["ready\n", ["gone"]],
		["ready x\n", ["gone"]],
		["readi 5\n", ["gone"]],
		["ready 1\nnonsense\nready 2\n", ["ready 1", "gone"]],
		["x".repeat(5000), ["gone"]],
		["cancel 5\n", ["cancel 5 "]],
	])("a new process that says %j is left, or does no harm", async (text, expected) => {
		const { heard, channel } = await pair();
		channel.send(text);
		await until(() => heard.length >= expected.length, "it to be heard");
		expect(heard).toEqual(expected);
		channel.close();
	});

	test("a line may come in pieces", async () => {
		const { heard, channel } = await pair();
		for (const piece of ["rea", "dy 12", "3\nrefused 4 a", " b\n"]) {
			channel.send(piece);
			await Bun.sleep(1);
		}
		await until(() => heard.length === 2, "both");
		expect(heard).toEqual(["ready 123", "refused 4: a b"]);
		channel.close();
	});

	test("a frame has one length", () => {
		expect([frame("client", 2 ** 31 - 1), frame("go", 0)].map(({ length }) => length)).toEqual([FRAME, FRAME]);
	});

	test("a file in memory is read whole or not at all", () => {
		const fd = writeMemoryFile(new Uint8Array([1, 2, 3]));
		expect(readMemoryFile(fd, 3)).toEqual(new Uint8Array([1, 2, 3]));
		expect(readMemoryFile(fd, 2)).toBe(null);
		closeDescriptor(fd);
		expect(readMemoryFile(fd, 3)).toBe(null);
	});
});
