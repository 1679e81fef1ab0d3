// What a server owes, against a plain array.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { Replies, Reply } from "../../src/backend/replies.ts";

const MARKS = [
	Reply.Query,
	Reply.Sync,
	Reply.Parse,
	Reply.ParseNamed,
	Reply.ParseOurs,
	Reply.ParseFake,
	Reply.Bind,
	Reply.Describe,
	Reply.Execute,
	Reply.Close,
	Reply.CloseOurs,
	Reply.CloseFake,
	Reply.CopyEnd,
];

/** All marks, oldest first; the queue is empty afterwards. */
function drained(replies: Replies): number[] {
	const found: number[] = [];
	while (replies.length > 0) {
		found.push(replies.front());
		replies.shift();
	}
	return found;
}

/** The server ignores Sync up to the CopyDone or CopyFail that ends the copy, which owes nothing itself. */
function modelCopyIn(model: number[]): { model: number[]; ended: boolean } {
	const end = model.indexOf(Reply.CopyEnd, 1);
	const during = model.slice(1, end < 0 ? undefined : end).filter((mark) => mark !== Reply.Sync);
	return { model: [...model.slice(0, 1), ...during, ...(end < 0 ? [] : model.slice(end + 1))], ended: end >= 0 };
}

test("behaves as an array does, through growth and wrapping", () => {
	const step = fc.oneof(
		{ weight: 10, arbitrary: fc.constantFrom(...MARKS) },
		{ weight: 6, arbitrary: fc.constant("shift" as const) },
		{ weight: 1, arbitrary: fc.constant("clear" as const) },
		{ weight: 2, arbitrary: fc.constant("copyIn" as const) },
	);
	fc.assert(
		fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
			const replies = new Replies();
			let model: number[] = [];
			for (const what of steps) {
				if (what === "clear") {
					replies.clear();
					model = [];
				} else if (what === "shift") {
					if (model.length === 0) continue;
					replies.shift();
					model.shift();
				} else if (what === "copyIn") {
					if (model.length === 0) continue;
					const after = modelCopyIn(model);
					expect(replies.copyIn()).toBe(after.ended);
					model = after.model;
				} else {
					replies.push(what);
					model.push(what);
				}
				expect(replies.length).toBe(model.length);
				expect(replies.front()).toBe(model[0] ?? 0);
				// Behind a batch that may fail a Query may not be run.
				const behind = model.slice(model.lastIndexOf(Reply.Sync) + 1).filter((mark) => mark !== Reply.CopyEnd);
				const sure = behind.every((mark) => mark === Reply.Query);
				expect(replies.endsInSync()).toBe(sure && (behind.length > 0 || model.includes(Reply.Sync)));
			}
			expect(drained(replies)).toEqual(model);
		}),
		{ numRuns: 500 },
	);
});

test("ten thousand marks come out in order, and the ring is small again when all is cleared", () => {
	const replies = new Replies();
	const marks = Array.from({ length: 10_000 }, (_, i) => MARKS[i % MARKS.length]!);
	for (const mark of marks) replies.push(mark);
	expect(drained(replies)).toEqual(marks);
	replies.clear();
	expect((replies as unknown as { ring: Uint8Array }).ring.length).toBe(16);
});

test("two COPYs of one Query take one CopyDone each", () => {
	const replies = new Replies();
	for (const mark of [Reply.Query, Reply.CopyEnd, Reply.CopyEnd, Reply.Query]) replies.push(mark);
	expect(replies.copyIn()).toBe(true);
	expect(replies.copyIn()).toBe(true);
	expect(drained(replies)).toEqual([Reply.Query, Reply.Query]);
});
