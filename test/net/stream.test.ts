// Output that the kernel takes piece by piece: nothing is lost, doubled or reordered, and who writes learns when to stop.

import { describe, expect, test } from "bun:test";
import { fstatSync, openSync } from "node:fs";
import fc from "fast-check";
import { connect } from "../../src/net/connect.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { adoptSocket, Stream, socketHandlers } from "../../src/net/stream.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";
import { Kernel, Owner } from "./support.ts";

describe("Stream", () => {
	test("writes everything once and in order, however little the kernel takes", () => {
		const step = fc.oneof(
			fc.record({
				kind: fc.constantFrom("write", "volatile"),
				bytes: fc.uint8Array({ maxLength: 30 }),
				from: fc.nat(5),
			}),
			fc.record({ kind: fc.constant("drain"), bytes: fc.constant(new Uint8Array(0)), from: fc.nat(40) }),
		);
		fc.assert(
			fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
				const kernel = new Kernel();
				const owner = new Owner();
				const stream = new Stream(kernel.socket, owner);
				let all = Buffer.alloc(0);
				for (const { kind, bytes, from } of steps) {
					if (kind === "drain") {
						const before = owner.drained;
						const queued = stream.queued > 0;
						kernel.room += from;
						stream.drain();
						// Told once, when the last byte went, and not before.
						expect(owner.drained - before).toBe(queued && stream.queued === 0 ? 1 : 0);
					} else {
						const start = Math.min(from, bytes.length);
						const data = Uint8Array.from(bytes);
						all = Buffer.concat([all, bytes.subarray(start)]);
						const flowing =
							kind === "write"
								? stream.write(data, start, data.length - start)
								: stream.write(data, start, data.length - start, false);
						expect(flowing).toBe(stream.queued === 0);
						if (kind === "volatile") data.fill(0);
					}
					expect(kernel.bytes.length + stream.queued).toBe(all.length);
					expect(kernel.bytes.equals(all.subarray(0, kernel.bytes.length))).toBe(true);
					expect(stream.bytesOut).toBe(all.length);
				}
				kernel.room = 1e9;
				stream.drain();
				expect(kernel.bytes.equals(all)).toBe(true);
			}),
		);
	});

	test("end waits for what is queued, and lets nothing more out", () => {
		const kernel = new Kernel();
		const owner = new Owner();
		const stream = new Stream(kernel.socket, owner);
		stream.pause();
		stream.writeAll(Buffer.from("last words"));
		stream.end();
		stream.writeAll(Buffer.from("too late"));
		// Paused, it would not see the peer's end.
		expect([kernel.ended, kernel.paused]).toEqual([false, false]);
		kernel.room = 4;
		stream.drain();
		expect(kernel.ended).toBe(false);
		kernel.room = 100;
		stream.drain();
		expect([kernel.bytes.toString(), kernel.ended, owner.drained]).toEqual(["last words", true, 0]);
	});

	test("terminate drops what is queued; the owner hears of the end once", () => {
		const kernel = new Kernel();
		const owner = new Owner();
		const stream = new Stream(kernel.socket, owner);
		stream.writeAll(Buffer.from("x"));
		stream.terminate();
		expect([stream.queued, kernel.terminated]).toEqual([0, true]);
		stream.gone(undefined);
		stream.gone(new Error("again"));
		expect(owner.closed).toEqual([undefined]);
		stream.writeAll(Buffer.from("y"));
		stream.pause();
		expect([kernel.bytes.length, kernel.paused, stream.queued]).toEqual([0, false, 0]);
	});
});

const handlers = socketHandlers((error) => {
	throw error;
});
const descriptors = new Descriptors();
const keepAlive = { keepalive: true, time: 1000, interval: 1000, retries: 2, user_timeout: 1000 };

describe("on real sockets", () => {
	test("sixteen megabytes arrive whole at a peer that reads late", async () => {
		let got = 0;
		let sum = 0;
		using peer = Bun.listen({
			hostname: "127.0.0.1",
			port: 0,
			socket: {
				open: (socket) => {
					socket.pause();
					setTimeout(() => socket.resume(), 20);
				},
				data(_, chunk) {
					got += chunk.length;
					for (let i = 0; i < chunk.length; i += 4096) sum += chunk[i]!;
				},
			},
		});
		const owner = new Owner();
		const stream = await connect({ host: "127.0.0.1", port: peer.port }, 5000, owner, {
			handlers,
			keepAlive,
			descriptors,
			tls: null,
		});
		const data = Buffer.alloc(16 << 20, 7);
		expect(stream.writeAll(data)).toBe(false);
		stream.writeAll(Buffer.from("end"));
		await until(() => got === data.length + 3, "all bytes");
		expect([owner.drained, stream.queued]).toEqual([1, 0]);
		expect(sum).toBeGreaterThan(0);
		expect(descriptors.connections).toBe(1);
		stream.end();
		await until(() => owner.closed.length === 1, "the end");
		expect(descriptors.connections).toBe(0);
	});

	test.each([
		["a port where nobody listens", { host: "127.0.0.1", port: 1 }],
		["a Unix socket that is not there", { host: "/nonexistent", port: 5432 }],
		["a name that does not resolve", { host: "no-such-host.invalid", port: 5432 }],
		["an address that does not answer", { host: "192.0.2.1", port: 5432 }],
	])("%s is an error, not a wait, and its descriptor is not counted any more", async (_, target) => {
		const descriptors = new Descriptors();
		await rejects(connect(target, 100, new Owner(), { handlers, keepAlive, descriptors, tls: null }));
		await until(() => descriptors.connections === 0, "none");
	});

	test("a connection that is detached lives on under its descriptor, and the old owner hears nothing", async () => {
		using peer = Bun.listen({
			hostname: "127.0.0.1",
			port: 0,
			socket: { data: (socket, chunk) => void socket.write(`got ${chunk}`) },
		});
		const before = new Owner();
		const stream = await connect({ host: "127.0.0.1", port: peer.port }, 5000, before, {
			handlers,
			keepAlive,
			descriptors,
			tls: null,
		});
		const fd = stream.detach();
		expect(fd).toBeGreaterThan(0);
		// Whoever adopts it gives that back.
		expect(descriptors.connections).toBe(1);
		let heard = "";
		const after = new Owner();
		after.onData = (chunk?: Buffer) => {
			heard += chunk;
		};
		const socket = await adoptSocket(fd, handlers);
		socket.data = new Stream(socket, after);
		socket.data.counted = descriptors;
		socket.data.writeAll(Buffer.from("hello"));
		await until(() => heard === "got hello", "the answer");
		expect(before.closed).toEqual([]);
		socket.data.end();
		await until(() => after.closed.length === 1, "the end");
		expect(descriptors.connections).toBe(0);
	});

	test("a descriptor that no socket can be made of is closed", async () => {
		const fd = openSync(import.meta.path, "r");
		await rejects(adoptSocket(fd, handlers));
		expect(() => fstatSync(fd)).toThrow("EBADF");
	});
});
