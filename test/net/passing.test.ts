// Descriptors over a Unix socket: what arrives is the same file or socket, and what cannot be sent harms nobody.

import { afterAll, describe, expect, test } from "bun:test";
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Socket } from "bun";
import { closeDescriptor, descriptor, duplicate } from "../../src/net/options.ts";
import { Channel, mayHave, peerOf, sendDescriptors } from "../../src/net/passing.ts";
import { adoptSocket, Stream } from "../../src/net/stream.ts";
import { until } from "../support/until.ts";
import { dial, HANDLERS, Listener, listen } from "./support.ts";

const O_CLOEXEC = 0o2000000;

const folder = mkdtempSync(join(tmpdir(), "pgdog-net-passing-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A channel, and the socket at its other end; both go with it. */
class Pair implements Disposable {
	readonly channel: Channel;
	readonly peer: Socket<undefined>;
	private readonly words: string[];

	private constructor(channel: Channel, peer: Socket<undefined>, words: string[]) {
		this.channel = channel;
		this.peer = peer;
		this.words = words;
	}

	static async open(path: string): Promise<Pair> {
		let accepted: Socket<undefined> | null = null;
		const words: string[] = [];
		const socket = {
			open: (each: Socket<undefined>) => {
				accepted = each;
			},
			data: (_: unknown, chunk: Buffer) => void words.push(`${chunk}`),
		};
		const listener = Bun.listen<undefined>({ unix: path, socket });
		// The kernel connects it before anybody accepts.
		const channel = Channel.open(path);
		await until(() => accepted !== null, "the channel");
		listener.stop();
		return new Pair(channel!, accepted!, words);
	}

	get heard(): string {
		return this.words.join("");
	}

	get fd(): number {
		return descriptor(this.peer);
	}

	[Symbol.dispose](): void {
		this.channel.close();
		this.peer.terminate();
	}
}

describe.skipIf(process.platform !== "linux")("descriptors", () => {
	test("arrive with the text: another number for the same file, which no program that is started inherits", async () => {
		using pair = await Pair.open(join(folder, "file"));
		const path = join(folder, "written");
		const fd = openSync(path, "w");
		expect(sendDescriptors(pair.fd, "a file, ä\n", [fd])).toBe(true);
		closeSync(fd);
		const { text, descriptors } = pair.channel.receive();
		expect(text).toBe("a file, ä\n");
		expect(descriptors.length).toBe(1);
		const [got] = descriptors as [number];
		const [, flags] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${got}`, "latin1"))!;
		expect(Number.parseInt(flags!, 8) & O_CLOEXEC).not.toBe(0);
		writeSync(got, "by another number");
		closeSync(got);
		expect(readFileSync(path, "latin1")).toBe("by another number");
	});

	test("are those of a connection that goes on", async () => {
		using pair = await Pair.open(join(folder, "connection"));
		let accepted: Stream | null = null;
		using server = listen((stream) => {
			accepted = stream;
		});
		const before = await dial(server.port, new Listener());
		await until(() => accepted !== null, "the connection");
		const fd = before.detach();
		expect(sendDescriptors(pair.fd, "yours", [fd])).toBe(true);
		closeDescriptor(fd);
		const { descriptors } = pair.channel.receive();
		const owner = new Listener();
		const socket = await adoptSocket(descriptors[0]!, HANDLERS);
		socket.data = new Stream(socket, owner);
		accepted!.writeAll(Buffer.from("still here?"));
		await until(() => owner.length === 11, "the question");
		socket.data.terminate();
		server.stop(true);
	});

	test("come in their order, none or as many as the kernel lets through, and not one more", async () => {
		using pair = await Pair.open(join(folder, "many"));
		expect(sendDescriptors(pair.fd, "none", [])).toBe(true);
		expect(pair.channel.receive()).toEqual({ text: "none", descriptors: [] });
		const nothing = openSync("/dev/null", "r");
		const itself = openSync(import.meta.path, "r");
		const many = Array.from({ length: 253 }, (_, i) => (i === 250 ? itself : nothing));
		expect(sendDescriptors(pair.fd, "254", [...many, nothing])).toBe(false);
		expect(sendDescriptors(pair.fd, "253", many)).toBe(true);
		const { text, descriptors } = pair.channel.receive();
		expect([text, descriptors.length, new Set(descriptors).size]).toEqual(["253", 253, 253]);
		const inode = fstatSync(itself).ino;
		expect(descriptors.map((fd) => fstatSync(fd).ino).indexOf(inode)).toBe(250);
		for (const fd of [...descriptors, nothing, itself]) closeSync(fd);
	});

	test("that are none, or that nobody takes, are not sent", async () => {
		using pair = await Pair.open(join(folder, "none"));
		expect(sendDescriptors(pair.fd, "lost", [-1])).toBe(false);
		expect(sendDescriptors(-1, "lost", [0])).toBe(false);
		pair.channel.send("before");
		await until(() => pair.heard === "before", "what was sent before");
		const fd = duplicate(pair.peer);
		pair.channel.close();
		// No signal ends the process.
		expect(sendDescriptors(fd, "lost", [0])).toBe(false);
		closeDescriptor(fd);
	});
});

describe.skipIf(process.platform !== "linux")("a channel", () => {
	test("hears plain text as it comes, and nothing once the other end is closed", async () => {
		using pair = await Pair.open(join(folder, "text"));
		pair.peer.write("half a l");
		expect(pair.channel.receive()).toEqual({ text: "half a l", descriptors: [] });
		pair.peer.write("x".repeat(5000));
		const parts = [pair.channel.receive(), pair.channel.receive()].map(({ text }) => text.length);
		expect(parts).toEqual([4096, 904]);
		pair.peer.end();
		for (let i = 0; i < 2; i++) expect(pair.channel.receive()).toEqual({ text: "", descriptors: [] });
		// Nobody hears it, and nobody dies of it.
		pair.channel.send("anybody?");
	});

	test("is none where nobody listens", () => {
		const file = join(folder, "text-file");
		writeFileSync(file, "");
		const paths = [join(folder, "nobody"), join(file, "below"), file, folder, join(folder, "x".repeat(200))];
		expect(paths.map((path) => Channel.open(path))).toEqual(paths.map(() => null));
	});

	test("knows who is at the other end", async () => {
		using pair = await Pair.open(join(folder, "who"));
		expect(peerOf(pair.fd)).toEqual({ pid: process.pid, uid: process.getuid!() });
		expect(peerOf(-1)).toEqual({ pid: -1, uid: -1 });
		const fd = openSync("/dev/null", "r");
		expect(peerOf(fd)).toEqual({ pid: -1, uid: -1 });
		closeSync(fd);
	});

	test("is for a process of the same user, or of root", () => {
		expect([mayHave(1000, 1000), mayHave(0, 1000), mayHave(0, 0)]).toEqual([true, true, true]);
		expect([mayHave(1001, 1000), mayHave(1000, 0), mayHave(-1, 1000), mayHave(-1, undefined)]).toEqual([
			...[false, false, false, false],
		]);
	});
});
