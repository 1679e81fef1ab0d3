// A process that goes on in place of another, each end against the other and against strangers.

import { afterAll, describe, expect, test } from "bun:test";
import {
	closeSync,
	existsSync,
	mkdtempSync,
	openSync,
	readdirSync,
	readlinkSync,
	rmSync,
	statSync,
	writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { Contain } from "../../src/contain.ts";
import { closeDescriptor, descriptor, listensBy } from "../../src/net/options.ts";
import { Channel } from "../../src/net/passing.ts";
import { Takeover, TakeoverListener } from "../../src/net/takeover.ts";
import type { SharedSocket } from "../../src/net/unix.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import type { Part } from "./takeover-thread.ts";

const linux = process.platform === "linux";
const folder = mkdtempSync(join(tmpdir(), "pgdog-net-takeover-"));
afterAll(() => rmSync(folder, { recursive: true }));

const WHERE = { host: "127.0.0.1", port: 6432 };
const OFFER = `${JSON.stringify(WHERE)}\n`;

const CONTAIN = new Contain(
	(error) => {
		throw error;
	},
	() => {},
);

let count = 0;
function newPath(): string {
	return join(folder, `${count++}`);
}

/** What is to be taken over, and what comes of it. */
class Old implements Disposable {
	readonly path: string = newPath();
	readonly said: string[] = [];
	sockets: readonly number[] | null = [];
	asked = 0;
	unix: SharedSocket | null = null;
	readonly takeover: TakeoverListener;

	private constructor(patience: number) {
		const predecessor = {
			offer: () => {
				this.asked++;
				return this.sockets && { tcp: this.sockets, unix: this.unix };
			},
			paused: () => "{}",
			onTakenOver: (pid: number) => void this.said.push(`taken over by ${pid}`),
			refused: (why: string) => void this.said.push(why),
		};
		this.takeover = new TakeoverListener(WHERE, predecessor, CONTAIN, patience);
	}

	static async start(patience = 60_000): Promise<Old> {
		const old = new Old(patience);
		await old.takeover.listen(old.path);
		return old;
	}

	[Symbol.dispose](): void {
		this.takeover.stop();
	}
}

/** Somebody who comes to an old process, and hears what it says. */
class Visitor implements Disposable {
	heard = "";
	closed = false;
	private socket: Socket<undefined> | null = null;

	async come(path: string): Promise<this> {
		const socket = {
			data: (_: unknown, chunk: Buffer) => {
				this.heard += chunk;
			},
			close: () => {
				this.closed = true;
			},
		};
		this.socket = await Bun.connect<undefined>({ unix: path, socket });
		return this;
	}

	say(text: string): void {
		this.socket?.write(text);
	}

	/** What it is told in the end. */
	async farewell(): Promise<string> {
		await until(() => this.closed, "the end");
		return this.heard;
	}

	[Symbol.dispose](): void {
		this.socket?.end();
	}
}

describe.skipIf(!linux)("who is to be taken over", () => {
	test("says of its Unix socket whose it is, and hands it over last", async () => {
		using old = await Old.start();
		using tcp = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
		using unix = Bun.listen({ unix: newPath(), socket: { data() {} } });
		const [first, last] = [tcp, unix].map((each) => descriptor(each as unknown as Socket<unknown>));
		old.sockets = [first!];
		old.unix = { path: "/run/x", fd: last!, isManaged: true };
		const channel = Channel.open(old.path)!;
		channel.send("takeover\n");
		await until(() => old.asked === 1, "it to be asked");
		const { text, descriptors } = channel.receive();
		expect(JSON.parse(text)).toMatchObject({ unix: "/run/x", isManaged: true });
		expect(descriptors.map(listensBy)).toEqual(["tcp", "unix"]);
		for (const fd of descriptors) closeDescriptor(fd);
		channel.close();
	});

	test("offers its sockets, makes way when they are listened on, and is found no more", async () => {
		using old = await Old.start();
		expect(statSync(old.path).mode & 0o777).toBe(0o600);
		using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
		old.sockets = [descriptor(listener as unknown as Socket<unknown>)];
		const channel = Channel.open(old.path)!;
		channel.send("takeover\n");
		await until(() => old.asked === 1, "it to be asked");
		const { text, descriptors } = channel.receive();
		expect(text).toBe(OFFER);
		expect(descriptors.map(listensBy)).toEqual(["tcp"]);
		expect(old.said).toEqual([]);
		channel.send("listening\n");
		await until(() => old.said.length > 0, "it to be taken over");
		expect(channel.receive().text).toBe("yours\n");
		expect(old.said).toEqual([`taken over by ${process.pid}`]);
		expect(existsSync(old.path)).toBe(false);
		channel.close();
		for (const fd of descriptors) closeDescriptor(fd);
		old.takeover.stop();
	});

	test("offers them to one at a time, and to another when that one has left", async () => {
		using old = await Old.start();
		using first = await new Visitor().come(old.path);
		first.say("takeover\n");
		await until(() => first.heard === OFFER, "the offer");
		using second = await new Visitor().come(old.path);
		second.say("takeover\n");
		const busy = "it starts, stops, or is being taken over already";
		expect(await second.farewell()).toBe(`refused: ${busy}\n`);
		// Whoever was not offered them has nothing to listen on, whatever he says; this changes nothing for whoever was.
		using stranger = await new Visitor().come(old.path);
		stranger.say("listening\n");
		const language = "it does not speak our language";
		expect(await stranger.farewell()).toBe(`refused: ${language}\n`);
		expect(first.closed).toBe(false);
		first[Symbol.dispose]();
		await until(() => first.closed, "the first to leave");
		using third = await new Visitor().come(old.path);
		third.say("takeover\n");
		await until(() => third.heard === OFFER, "another offer");
		third.say("listening\n");
		expect(await third.farewell()).toBe(`${OFFER}yours\n`);
		expect(old.said).toEqual([busy, language, `taken over by ${process.pid}`]);
	});

	test.each(["take", "takeover", "takeover\n\n", "listening\n", "\0\n", "GET / HTTP/1.1\r\n\r\n"])(
		"refuses whoever says %j, and goes on",
		async (words) => {
			using old = await Old.start();
			using stranger = await new Visitor().come(old.path);
			stranger.say(words);
			expect(await stranger.farewell()).toBe("refused: it does not speak our language\n");
			using next = await new Visitor().come(old.path);
			next.say("takeover\n");
			await until(() => next.heard === OFFER, "the offer");
			expect(old.asked).toBe(1);
		},
	);

	test("says so where there is nothing to hand over, or it cannot be sent", async () => {
		using old = await Old.start();
		old.sockets = null;
		using early = await new Visitor().come(old.path);
		early.say("takeover\n");
		expect(await early.farewell()).toBe("refused: it starts, stops, or is being taken over already\n");
		old.sockets = [-1];
		using late = await new Visitor().come(old.path);
		late.say("takeover\n");
		expect(await late.farewell()).toBe("refused: its sockets could not be sent\n");
		expect(old.said.length).toBe(2);
		// That one was nobody's heir.
		old.sockets = [];
		using next = await new Visitor().come(old.path);
		next.say("takeover\n");
		await until(() => next.heard === OFFER, "the offer");
	});

	test("gives up on whoever does not listen in time, and goes on", async () => {
		using old = await Old.start(150);
		using silent = await new Visitor().come(old.path);
		using heir = await new Visitor().come(old.path);
		heir.say("takeover\n");
		await until(() => heir.heard === OFFER, "the offer");
		const late = `process ${process.pid} does not listen within 0.15 s (takeover_timeout)`;
		expect(await silent.farewell()).toBe(`refused: ${late}\n`);
		expect(await heir.farewell()).toBe(`${OFFER}refused: ${late}\n`);
		expect(old.said).toEqual([late, late]);
		expect(old.takeover.isOffered).toBe(false);
		using next = await new Visitor().come(old.path);
		next.say("takeover\n");
		await until(() => next.heard === OFFER, "another offer");
	});

	test("has as many visitors as it takes, and no more", async () => {
		using old = await Old.start();
		const some = await Promise.all(Array.from({ length: 8 }, () => new Visitor().come(old.path)));
		using beyond = await new Visitor().come(old.path);
		expect(await beyond.farewell()).toBe("refused: 8 others are here already\n");
		for (const each of some) each[Symbol.dispose]();
		await until(() => some.every(({ closed }) => closed), "them to leave");
		using next = await new Visitor().come(old.path);
		next.say("takeover\n");
		await until(() => next.heard === OFFER, "the offer");
	});

	test("does not listen where something else is", async () => {
		const path = newPath();
		writeFileSync(path, "somebody's");
		const takeover = new TakeoverListener(
			WHERE,
			{ offer: () => null, paused: () => "", onTakenOver() {}, refused() {} },
			CONTAIN,
			1000,
		);
		await rejects(takeover.listen(path), `cannot listen on ${path}: what is there is no socket`);
		takeover.stop();
	});
});

/** A thread that plays the old process, until it is disposed of. */
class Thread implements Disposable {
	readonly said: string[] = [];
	private readonly worker = new Worker(new URL("./takeover-thread.ts", import.meta.url).href);

	static async start(part: Part): Promise<Thread> {
		const thread = new Thread();
		thread.worker.onmessage = ({ data }: MessageEvent<string>) => void thread.said.push(data);
		thread.worker.postMessage(part);
		await until(() => thread.said.includes("listens"), "the thread");
		return thread;
	}

	[Symbol.dispose](): void {
		this.worker.terminate();
	}
}

describe.skipIf(!linux)("who takes over", () => {
	test("is handed sockets to listen on, and told that they are its own", async () => {
		using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
		const sockets = [descriptor(listener as unknown as Socket<unknown>)];
		const path = newPath();
		using old = await Thread.start({ path, where: WHERE, sockets });
		const takeover = Takeover.begin(path, WHERE)!;
		expect(takeover.sockets.map(listensBy)).toEqual(["tcp"]);
		expect(takeover.sockets).not.toEqual(sockets);
		expect(takeover.finish()).toBe(true);
		await until(() => old.said.length > 1, "the old process");
		expect(old.said).toEqual(["listens", `taken over by ${process.pid}`]);
		expect(existsSync(path)).toBe(false);
		for (const fd of takeover.sockets) closeDescriptor(fd);
	});

	test("has to go where the old process has given up on it", async () => {
		const path = newPath();
		const fd = openSync("/dev/null", "r");
		using _old = await Thread.start({ path, where: WHERE, sockets: [fd], says: [OFFER, "refused: too late\n"] });
		const takeover = Takeover.begin(path, WHERE)!;
		expect(() => takeover.finish()).toThrow("takeover: the running process says: refused: too late");
		for (const each of [...takeover.sockets, fd]) closeDescriptor(each);
	});

	test.each([false, true])(
		"is handed the Unix socket with the others, the service manager's own: %p",
		async (isManaged) => {
			const path = newPath();
			const [tcp, unix] = [openSync("/dev/null", "r"), openSync("/dev/null", "r")];
			const own = { ...WHERE, unix: "/run/.s.PGSQL.6432" };
			// One that is not says nothing of it.
			const offer = `${JSON.stringify(isManaged ? { ...own, isManaged } : own)}\n`;
			using _old = await Thread.start({ path, where: WHERE, sockets: [tcp, unix], says: [offer] });
			const takeover = Takeover.begin(path, WHERE)!;
			expect(takeover.sockets.length).toBe(1);
			expect(takeover.unix).toMatchObject({ path: "/run/.s.PGSQL.6432", isManaged });
			for (const each of [...takeover.sockets, takeover.unix!.fd, tcp, unix]) closeDescriptor(each);
		},
	);

	test("begins as ever where nobody runs", () => {
		expect(Takeover.begin(newPath(), WHERE)).toBe(null);
	});

	/** Descriptors of this process for a file. */
	function holdersOf(file: string): number {
		const links = readdirSync("/proc/self/fd").map((fd) => {
			try {
				return readlinkSync(`/proc/self/fd/${fd}`);
			} catch {
				return "";
			}
		});
		return links.filter((link) => link === file).length;
	}

	const elsewhere = JSON.stringify({ host: "::1", port: 6432 });
	test.each([
		[["refused: it stops\n"], "takeover: the running process says: refused: it stops"],
		[[""], "takeover: the running process says: nothing"],
		[["\n"], "takeover: the running process says: nothing"],
		[[OFFER.slice(0, 9)], `takeover: the running process says: ${OFFER.slice(0, 9)}`],
		[["{}\n"], "takeover: the running process listens on undefined:undefined, and not on 127.0.0.1:6432"],
		[[`${elsewhere}\n`], "takeover: the running process listens on ::1:6432, and not on 127.0.0.1:6432"],
	])("says what was wrong with %j, and keeps nothing of it", async (says, why) => {
		const path = newPath();
		const file = `${path}.sent`;
		const fd = openSync(file, "w");
		using _old = await Thread.start({ path, where: WHERE, sockets: [fd], says });
		expect(() => Takeover.begin(path, WHERE)).toThrow(new Error(why));
		expect(holdersOf(file)).toBe(1);
		closeSync(fd);
	});

	test("does not take an offer of no sockets", async () => {
		const path = newPath();
		using _old = await Thread.start({ path, where: WHERE, sockets: [] });
		expect(() => Takeover.begin(path, WHERE)).toThrow("takeover: no sockets came");
	});

	test.each(["", "mine\n", "your"])("is told whether the old process makes way: not by %j", async (word) => {
		const path = newPath();
		const fd = openSync("/dev/null", "r");
		using _old = await Thread.start({ path, where: WHERE, sockets: [fd], says: [OFFER, word] });
		const takeover = Takeover.begin(path, WHERE)!;
		expect(takeover.sockets.length).toBe(1);
		expect(takeover.finish()).toBe(false);
		for (const each of [...takeover.sockets, fd]) closeDescriptor(each);
	});
});
