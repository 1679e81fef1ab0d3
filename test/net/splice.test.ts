// Pieces put together into one write, on a kernel that takes what it is told to take: nothing lost, nothing shared.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Splice } from "../../src/net/splice.ts";
import { Stream } from "../../src/net/stream.ts";
import { Kernel, Owner } from "./support.ts";

test("what writeVolatile queues is a copy, of a Buffer too", () => {
	const kernel = new Kernel();
	const stream = new Stream(kernel.socket, new Owner());
	const buffer = Buffer.from("mine");
	stream.writeVolatile(buffer, 0, 4);
	buffer.write("HIS!");
	kernel.room = 100;
	stream.drain();
	expect(kernel.bytes.toString()).toBe("mine");
});

describe("Splice", () => {
	test("is the sum of its pieces, small and large, in order", () => {
		const piece = fc.tuple(fc.constantFrom(0, 1, 63, 64, 65, 1000, 16383, 16384, 40000), fc.nat(255), fc.nat(10));
		fc.assert(
			fc.property(fc.array(piece, { maxLength: 12 }), fc.boolean(), (pieces, slow) => {
				const kernel = new Kernel();
				kernel.room = slow ? 100 : 1e9;
				const stream = new Stream(kernel.socket, new Owner());
				const splice = new Splice();
				let expected = Buffer.alloc(0);
				for (const [size, value, start] of pieces) {
					const bytes = Buffer.alloc(size + start + 3, value);
					bytes.fill(255 - value, 0, start);
					splice.header(stream, value, size + 4);
					const header = Buffer.from([value, 0, 0, 0, 0]);
					header.writeInt32BE(size + 4, 1);
					splice.add(stream, bytes, start, size);
					expected = Buffer.concat([expected, header, bytes.subarray(start, start + size)]);
				}
				expect(splice.flush(stream)).toBe(stream.queued === 0);
				expect(splice.empty).toBe(true);
				// It is filled again at once: what is queued must be a copy.
				splice.addAll(new Stream(new Kernel().socket), Buffer.alloc(60_000, 1));
				kernel.room = 1e9;
				stream.drain();
				expect(kernel.bytes.equals(expected)).toBe(true);
			}),
			{ numRuns: 60 },
		);
	});
});
