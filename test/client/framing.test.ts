// Where a batch of the extended protocol ends, however its bytes come, and at what cost.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Ahead, LookAhead, ROUTED } from "../../src/client/framing.ts";
import { Tail } from "../../src/wire/frame.ts";
import { concat, frontend as f, message } from "../support/wire-frames.ts";

/** As a client does: what is not whole is kept, and looked at again with each piece. @returns what was found, and its end */
function seek(pieces: Uint8Array[]): { found: Ahead; end: number; pieces: number } {
	const tail = new Tail();
	const ahead = new LookAhead();
	let count = 0;
	for (const piece of pieces) {
		count++;
		const chunk = tail.add(Buffer.from(piece));
		if (chunk === null) continue;
		const found = ahead.look(chunk, 0);
		if (found !== Ahead.Open) return { found, end: ahead.end, pieces: count };
		ahead.move(0);
		tail.keep(chunk, 0, chunk.length + 1);
	}
	return { found: Ahead.Open, end: -1, pieces: count };
}

const PARSE = f.parse("SELECT 1", "s");
const CLOSE = f.close("S", "s");

describe("the end of a batch", () => {
	test.each<[string, Uint8Array[], Ahead, number]>([
		["Sync", [PARSE, f.bind(), f.sync(), PARSE], Ahead.Complete, 3],
		["Flush", [PARSE, f.flush(), f.sync()], Ahead.Complete, 2],
		["a Query, which is no part of it", [PARSE, f.query("SELECT 1")], Ahead.Complete, 1],
		["a FunctionCall", [PARSE, message("F", new Uint8Array(12)), f.sync()], Ahead.Complete, 1],
		["Terminate", [PARSE, f.terminate()], Ahead.Complete, 1],
		["Close messages and a Sync", [CLOSE, f.close("P", "p"), f.sync()], Ahead.OnlyCloses, 3],
		["Close messages and a Flush", [CLOSE, f.flush()], Ahead.Complete, 2],
		["a Close that is malformed", [CLOSE, message("C", Buffer.from("X\0")), f.sync()], Ahead.Complete, 3],
		["a Close with something behind its name", [message("C", Buffer.from("Ss\0t\0")), f.sync()], Ahead.Complete, 2],
		["not here", [PARSE, f.bind(), f.execute()], Ahead.Open, -1],
	])("%s", (_, messages, found, whole) => {
		const end = whole < 0 ? -1 : concat(...messages.slice(0, whole)).length;
		const bytes = concat(...messages);
		expect(seek([bytes])).toMatchObject({ found, end });
		expect(seek([...bytes].map((byte) => Uint8Array.of(byte)))).toMatchObject({ found, end });
		for (let cut = 1; cut < bytes.length; cut++)
			expect(seek([bytes.subarray(0, cut), bytes.subarray(cut)])).toMatchObject({ found, end });
	});

	test("is found in any pieces, as soon as it is there", () => {
		const one = fc.constantFrom(PARSE, CLOSE, f.bind(), f.execute(), f.describe("S", "s"), f.close("P"));
		fc.assert(
			fc.property(fc.array(one, { minLength: 1 }), fc.array(fc.integer({ min: 1, max: 60 })), (messages, sizes) => {
				const bytes = concat(...messages, f.sync());
				const pieces: Uint8Array[] = [];
				let at = 0;
				for (const size of [...sizes, bytes.length]) {
					if (at < bytes.length) pieces.push(bytes.subarray(at, at + size));
					at += size;
				}
				expect(seek(pieces)).toEqual({ ...seek([bytes]), pieces: pieces.length });
			}),
		);
	});

	test("is no Sync or Flush as long as there is none, however many messages are here", () => {
		const ahead = new LookAhead();
		for (const [frames, isTerminated] of [
			[[PARSE], false],
			[[PARSE, f.bind()], false],
			[[PARSE, f.bind().subarray(0, 7)], false],
			[[PARSE, f.query("SELECT 1")], false],
			[[PARSE, f.sync()], true],
			[[PARSE, f.flush(), PARSE], true],
		] as const) {
			ahead.move(Number.MAX_SAFE_INTEGER);
			ahead.look(Buffer.from(concat(...frames)), 0);
			expect([frames.length, ahead.last < ahead.end]).toEqual([frames.length, isTerminated]);
		}
	});

	test("is known again for what stands behind its first message, also when the chunk has moved", () => {
		const ahead = new LookAhead();
		const chunk = Buffer.from(concat(f.sync(), CLOSE, CLOSE, f.sync(), PARSE, f.sync()));
		expect(ahead.look(chunk, 5)).toBe(Ahead.OnlyCloses);
		const second = 5 + CLOSE.length;
		ahead.move(second);
		const rest = chunk.subarray(second);
		expect(ahead.look(rest, 0)).toBe(Ahead.OnlyCloses);
		expect(ahead.look(rest, CLOSE.length + 5)).toBe(Ahead.Complete);
	});

	test("more than may be routed is known by the head of the message that is too much", () => {
		const head = (length: number) =>
			Buffer.from([66, length >>> 24, (length >>> 16) & 255, (length >>> 8) & 255, length & 255]);
		expect(seek([head(ROUTED)]).found).toBe(Ahead.TooLarge);
		expect(seek([head(ROUTED - 1)]).found).toBe(Ahead.Open);
		expect(seek([PARSE, head(ROUTED - PARSE.length)]).found).toBe(Ahead.TooLarge);
		// A Query behind it is not part of it.
		const query = Buffer.from(head(ROUTED + 1));
		query[0] = 81;
		expect(seek([PARSE, query])).toMatchObject({ found: Ahead.Complete, end: PARSE.length });
	});
});

// Each piece was looked at together with all before it: a hundred thousand messages in 4 KB pieces were five million headers.
test("each byte is looked at once, in however many pieces it comes", () => {
	const messages = 100_000;
	const bytes = new Uint8Array(5 * messages);
	// CopyDone: as short as a message can be, and no end of a batch.
	for (let at = 0; at < bytes.length; at += 5) bytes.set([99, 0, 0, 0, 4], at);
	const ahead = new LookAhead();
	let reads = 0;
	const counting = (chunk: Buffer) =>
		new Proxy(chunk, {
			get(target, key) {
				if (typeof key === "string" && /^\d+$/.test(key)) reads++;
				return target[key as keyof Buffer];
			},
		});
	for (let size = 4096; size < bytes.length; size += 4096) {
		expect(ahead.look(counting(Buffer.from(bytes.buffer, 0, size)), 0)).toBe(Ahead.Open);
		ahead.move(0);
	}
	expect(reads).toBeGreaterThan(bytes.length / 2);
	expect(reads).toBeLessThan(2 * bytes.length);
});
