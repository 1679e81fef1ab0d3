// Pieces put together into one write, on a kernel that takes what it is told to take: nothing lost, nothing shared.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { settle } from "../../src/net/outgoing.ts";
import { Stream } from "../../src/net/stream.ts";
import { Kernel, Owner } from "./support.ts";

test("what is queued of a buffer that does not last is a copy, of a Buffer too", () => {
	const kernel = new Kernel();
	const stream = new Stream(kernel.socket, new Owner());
	const buffer = Buffer.from("mine");
	stream.write(buffer, 0, 4, false);
	buffer.write("HIS!");
	kernel.room = 100;
	stream.drain();
	expect(kernel.bytes.toString()).toBe("mine");
});

const piece = fc.tuple(fc.constantFrom(0, 1, 63, 64, 65, 1000, 16383, 16384, 40000), fc.nat(255), fc.nat(10));

describe("Outgoing", () => {
	test("is the sum of its pieces, small and large, in order", () => {
		fc.assert(
			fc.property(fc.array(piece, { maxLength: 12 }), fc.boolean(), (pieces, slow) => {
				const kernel = new Kernel();
				kernel.room = slow ? 100 : 1e9;
				const stream = new Stream(kernel.socket, new Owner());
				let expected = Buffer.alloc(0);
				for (const [size, value, start] of pieces) {
					const bytes = Buffer.alloc(size + start + 3, value);
					bytes.fill(255 - value, 0, start);
					stream.out.header(value, size + 4);
					const header = Buffer.from([value, 0, 0, 0, 0]);
					header.writeInt32BE(size + 4, 1);
					stream.out.add(bytes, start, size);
					expected = Buffer.concat([expected, header, bytes.subarray(start, start + size)]);
				}
				expect(stream.out.flush()).toBe(stream.queued === 0);
				expect(stream.out.fill).toBe(0);
				// Its buffer is another's at once: what is queued must be a copy.
				const other = new Stream(new Kernel().socket);
				other.out.addAll(Buffer.alloc(10_000, 1));
				other.out.flush();
				kernel.room = 1e9;
				stream.drain();
				expect(kernel.bytes.equals(expected)).toBe(true);
			}),
			{ numRuns: 60 },
		);
	});

	// One client's bytes went out in front of another's: an event that ended early left them in the buffer that all shared.
	test("of many connections, left open, flushed, closed and written past at any time: each gets its own bytes, all and in order", () => {
		const step = fc.record({
			who: fc.nat(3),
			what: fc.constantFrom("add", "add", "large", "write", "writeAll", "flush", "settle", "terminate", "end"),
			size: fc.integer({ min: 1, max: 300 }),
		});
		fc.assert(
			fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
				const all = Array.from({ length: 4 }, (_, i) => {
					const kernel = new Kernel();
					kernel.room = 1e9;
					return {
						kernel,
						stream: new Stream(kernel.socket, new Owner()),
						said: [] as Buffer[],
						over: false,
						cut: false,
						i,
					};
				});
				for (const [n, { who, what, size }] of steps.entries()) {
					const one = all[who]!;
					// Whose it is and when it was put in: nothing in it looks like another's.
					const bytes = Buffer.alloc(what === "large" ? 20_000 : size, `<${who}:${n}>`);
					if (what === "settle") settle();
					else if (what === "terminate") {
						if (!one.over) one.cut = true;
						one.stream.terminate();
						one.over = true;
					} else if (what === "end") {
						one.stream.end();
						one.over = true;
					} else if (what === "flush") one.stream.out.flush();
					else {
						if (!one.over) one.said.push(bytes);
						if (what === "write") one.stream.write(bytes, 0, bytes.length);
						else if (what === "writeAll") one.stream.writeAll(bytes);
						else one.stream.out.addAll(bytes);
					}
				}
				settle();
				for (const { kernel, said, cut } of all) {
					const whole = Buffer.concat(said);
					// What was not written when the connection was given up is gone.
					if (cut) expect(whole.subarray(0, kernel.bytes.length).equals(kernel.bytes)).toBe(true);
					else expect(kernel.bytes.equals(whole)).toBe(true);
				}
			}),
			{ numRuns: 300 },
		);
	});
});

test("a message of our own is not written into the middle of another's: the connection ends", () => {
	const kernel = new Kernel();
	kernel.room = 1e9;
	const stream = new Stream(kernel.socket, new Owner());
	stream.write(Buffer.from("half of a r"), 0, 11);
	stream.midMessage = true;
	stream.writeAll(Buffer.from("error"));
	expect(kernel.bytes.toString()).toBe("half of a r");
});
