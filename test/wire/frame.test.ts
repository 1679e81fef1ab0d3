// Finding messages in a stream of bytes that the network cuts wherever it likes.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
	eachMessage,
	endOfMessage,
	endOfString,
	frontendLimit,
	HEADER,
	readInt16,
	readInt32,
	Tail,
} from "../../src/wire/frame.ts";
import { concat, frontend, int16, int32 } from "../support/wire-frames.ts";

/** Walks as the connections do: whole messages are taken, the rest is kept. @returns the messages in hex */
function walk(chunks: Uint8Array[]): { messages: string[]; tail: Tail } {
	const tail = new Tail();
	const messages: string[] = [];
	for (const piece of chunks) {
		const chunk = tail.add(Buffer.from(piece));
		if (chunk === null) continue;
		let at = 0;
		while (chunk.length - at >= HEADER) {
			const next = at + 1 + readInt32(chunk, at + 1);
			if (next > chunk.length) break;
			messages.push(chunk.toString("hex", at, next));
			at = next;
		}
		if (at < chunk.length) tail.keep(chunk, at, chunk.length - at < HEADER ? HEADER : 1 + readInt32(chunk, at + 1));
	}
	return { messages, tail };
}

const frames = [
	frontend.query("SELECT 1"),
	frontend.sync(),
	frontend.parse("SELECT $1", "s", [23]),
	frontend.bind({ values: ["é", null, "x".repeat(300)] }),
	frontend.execute(),
	frontend.copyData(new Uint8Array(0)),
	frontend.sync(),
];
const whole = concat(...frames);
const expected = frames.map((frame) => Buffer.from(frame).toString("hex"));

describe("messages", () => {
	test("come out of one chunk", () => expect(walk([whole]).messages).toEqual(expected));

	test("come out of two chunks, wherever the cut is", () => {
		for (let cut = 0; cut <= whole.length; cut++) {
			const { messages, tail } = walk([whole.subarray(0, cut), whole.subarray(cut)]);
			expect(messages).toEqual(expected);
			expect(tail.bytes).toBe(0);
		}
	});

	test("come out byte by byte", () => {
		expect(walk([...whole].map((byte) => Uint8Array.of(byte))).messages).toEqual(expected);
	});

	test("come out of any pieces, and what is over is kept", () => {
		fc.assert(
			fc.property(fc.array(fc.nat(whole.length)), fc.nat(whole.length), (cuts, end) => {
				const at = [0, ...cuts.filter((cut) => cut < end).sort((a, b) => a - b), end];
				const pieces = at.slice(1).map((to, i) => whole.subarray(at[i], to));
				const { messages, tail } = walk(pieces);
				expect(messages).toEqual(expected.slice(0, messages.length));
				const taken = messages.join("").length / 2;
				expect(tail.bytes).toBe(end - taken);
				if (tail.bytes > 0) expect(tail.take().equals(whole.subarray(taken, end))).toBe(true);
			}),
		);
	});
});

describe("Tail", () => {
	test("is unused when nothing is kept and nothing can come back that was given away", () => {
		const tail = new Tail();
		expect(tail.isUnused).toBe(true);
		tail.keep(Buffer.from("abcd"), 1, 6);
		expect(tail.isUnused).toBe(false);
		expect(tail.add(Buffer.from("ef"))).toBeNull();
		const all = tail.add(Buffer.from("g"))!;
		expect(all.toString()).toBe("bcdefg");
		// There is room behind it: kept again it would be filled up.
		expect(tail.isUnused).toBe(false);
		tail.keep(all, all.length, HEADER);
		expect(tail.isUnused).toBe(true);
		tail.hold(Buffer.from("x"));
		expect(tail.isUnused).toBe(false);
		tail.take();
		expect(tail.isUnused).toBe(true);
	});

	test("against a plain buffer: nothing is lost, doubled or given away before it is enough", () => {
		const piece = fc.uint8Array({ minLength: 0, maxLength: 40 });
		const command = fc.oneof(
			fc.record({
				kind: fc.constant("add" as const),
				chunk: piece,
				from: fc.nat(40),
				more: fc.integer({ min: 1, max: 60 }),
			}),
			fc.record({ kind: fc.constant("hold" as const), chunk: piece }),
			fc.record({ kind: fc.constant("take" as const) }),
			fc.record({ kind: fc.constant("clear" as const) }),
		);
		fc.assert(
			fc.property(fc.array(command), (commands) => {
				const tail = new Tail();
				let model = Buffer.alloc(0);
				let need = 0;
				const given: [Buffer, Buffer][] = [];
				for (const step of commands) {
					if (step.kind === "add") {
						const chunk = Buffer.from(step.chunk);
						const got = tail.add(chunk);
						const all = Buffer.concat([model, chunk]);
						if (model.length > 0 && all.length < need) {
							expect(got).toBeNull();
							model = all;
						} else {
							expect(got?.equals(all)).toBe(true);
							given.push([got!, all]);
							// Some of it was of use, the rest waits for `more` bytes.
							const from = Math.min(step.from, all.length);
							need = all.length - from + step.more;
							if (got !== null) tail.keep(got, from, need);
							model = all.subarray(from);
						}
					} else if (step.kind === "hold") {
						tail.hold(Buffer.from(step.chunk));
						model = Buffer.concat([model, step.chunk]);
					} else {
						if (step.kind === "take") expect(tail.take().equals(model)).toBe(true);
						else tail.clear();
						model = Buffer.alloc(0);
						need = 0;
					}
					expect(tail.bytes).toBe(model.length);
				}
				// Parts of it may be in use for long.
				for (const [got, all] of given) expect(got.equals(all)).toBe(true);
			}),
			{ numRuns: 500 },
		);
	});

	test("a small piece does not keep its large chunk alive", () => {
		const chunk = Buffer.alloc(64 << 10);
		const tail = new Tail();
		tail.keep(chunk, chunk.length - 10, 11);
		expect(tail.take().buffer).not.toBe(chunk.buffer);
		tail.keep(chunk, 100, chunk.length);
		expect(tail.take().buffer).toBe(chunk.buffer);
	});

	// Joining at each piece would copy half a gigabyte here.
	test("a message in a thousand pieces is copied a few times at most", () => {
		const tail = new Tail();
		const copied = countCopied(() => {
			tail.keep(Buffer.alloc(1024, 1), 0, 1_000 * 1024);
			let got: Buffer | null = null;
			for (let i = 1; i < 1_000; i++) {
				expect(got).toBeNull();
				got = tail.add(Buffer.alloc(1024, i));
			}
			expect(got?.length).toBe(1_000 * 1024);
		});
		expect(copied).toBeLessThan(3 * 1_000 * 1024);
	});

	test("so is what is looked at with each piece, and kept again", () => {
		const tail = new Tail();
		const seen: Buffer[] = [];
		const copied = countCopied(() => {
			for (let i = 0; i < 1_000; i++) {
				const all = tail.add(Buffer.alloc(1024, i))!;
				expect(all.length).toBe((i + 1) * 1024);
				seen.push(all);
				tail.keep(all, 0, all.length + 1);
			}
		});
		expect(copied).toBeLessThan(3 * 1_000 * 1024);
		// Whoever has a piece of it has it for good.
		const whole = tail.take();
		for (const all of seen) expect(all.equals(whole.subarray(0, all.length))).toBe(true);
		for (let i = 0; i < 1_000; i++) expect(whole[i * 1024]).toBe(i & 255);
	});

	// A client that waits for its login, or for its settings, and sends on.
	test("so is what is held without an end in sight", () => {
		const tail = new Tail();
		const copied = countCopied(() => {
			for (let i = 0; i < 1_000; i++) tail.hold(Buffer.alloc(1024, i));
		});
		expect(copied).toBeLessThan(4 * 1_000 * 1024);
		const whole = tail.take();
		for (let i = 0; i < 1_000; i++) expect(whole[i * 1024]).toBe(i & 255);
	});

	test("what was given away is not written to, though more comes while it is in use", () => {
		const tail = new Tail();
		tail.keep(Buffer.from("a"), 0, 2);
		const first = tail.add(Buffer.from("b"))!;
		tail.keep(first, 0, 3);
		const second = tail.add(Buffer.from("c"))!;
		// It is kept no more, and what comes now is not its end.
		expect(tail.add(Buffer.from("x"))?.toString()).toBe("x");
		tail.keep(second, 1, 3);
		expect(tail.add(Buffer.from("y"))?.toString()).toBe("bcy");
		expect([first.toString(), second.toString()]).toEqual(["ab", "abc"]);
	});
});

/** How many bytes `work` copies from one Buffer to another. */
function countCopied(work: () => void): number {
	const { concat } = Buffer;
	const { copy } = Buffer.prototype;
	let copied = 0;
	Buffer.concat = ((list: Uint8Array[], length?: number) => {
		copied += list.reduce((sum, part) => sum + part.length, 0);
		return concat(list, length);
	}) as typeof Buffer.concat;
	Buffer.prototype.copy = function (this: Buffer, ...to: Parameters<Buffer["copy"]>): number {
		const count = copy.apply(this, to);
		copied += count;
		return count;
	};
	try {
		work();
		return copied;
	} finally {
		Buffer.concat = concat;
		Buffer.prototype.copy = copy;
	}
}

// PostgreSQL's SocketBackend: PQ_LARGE_MESSAGE_LIMIT (MaxAllocSize - 1), PQ_SMALL_MESSAGE_LIMIT, or FATAL.
test("what a client's message may have as its length", () => {
	const limits: Record<string, number> = {};
	for (let code = 0; code < 256; code++) {
		const limit = frontendLimit(code);
		if (limit !== 0) limits[String.fromCharCode(code)] = limit;
	}
	const large = 0x3ffffffe;
	expect(limits).toEqual({
		Q: large,
		P: large,
		B: large,
		d: large,
		F: large,
		E: 10_000,
		S: 10_000,
		D: 10_000,
		C: 10_000,
		H: 10_000,
		c: 10_000,
		f: 10_000,
		X: 10_000,
	});
});

test("integers are read as they are written, at any place", () => {
	fc.assert(
		fc.property(fc.integer(), fc.nat(65535), fc.nat(9), (wide, narrow, pad) => {
			const b = concat(new Uint8Array(pad).fill(255), int32(wide), int16(narrow), Uint8Array.of(255));
			expect(readInt32(b, pad)).toBe(wide);
			expect(readInt16(b, pad + 4)).toBe(narrow);
		}),
	);
});

test("the end of a string is found before the end of its message, not behind it", () => {
	const b = Buffer.from("abc\0def\0");
	expect(endOfString(b, 0, 8)).toBe(3);
	expect(endOfString(b, 3, 8)).toBe(3);
	expect(endOfString(b, 4, 7)).toBe(-1);
	expect(endOfString(b, 8, 8)).toBe(-1);
});

// A loop over messages that nobody had checked stood still at a negative length.
test("the end of a message is behind its beginning, and within what is here, or there is none", () => {
	fc.assert(
		fc.property(fc.uint8Array({ minLength: 5, maxLength: 40 }), fc.nat(35), (bytes, from) => {
			const at = Math.min(from, bytes.length - 5);
			const end = endOfMessage(bytes, at);
			const length = Buffer.from(bytes).readInt32BE(at + 1);
			if (end < 0) expect(length < 4 || at + 1 + length > bytes.length).toBe(true);
			else expect([end, end >= at + 5, end <= bytes.length]).toEqual([at + 1 + length, true, true]);
		}),
	);
});

test("whole messages come out wherever the bytes are cut, until no more are wanted or a length is none", () => {
	const bytes = Buffer.from("5a0000000549440000000441000000055a", "hex");
	const play = (pieces: Buffer[], most = 9) => {
		const tail = new Tail();
		const seen: string[] = [];
		const wellFormed = pieces.every((piece) =>
			eachMessage(tail, piece, 100, (chunk, start, end) => seen.push(chunk.toString("hex", start, end)) < most),
		);
		return [wellFormed, ...seen];
	};
	for (let at = 0; at <= bytes.length; at++)
		expect(play([bytes.subarray(0, at), bytes.subarray(at)])).toEqual([
			true,
			"5a0000000549",
			"4400000004",
			"41000000055a",
		]);
	expect(play([bytes], 1)).toEqual([true, "5a0000000549"]);
	for (const wrong of ["5a00000003", "5a00000065", "5affffffff"])
		expect(play([Buffer.from(`4400000004${wrong}`, "hex")])).toEqual([false, "4400000004"]);
});
