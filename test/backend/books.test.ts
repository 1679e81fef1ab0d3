// What a server owes, against a server that does as PostgreSQL does: any messages, any of them failing, answered at any time.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Answer, Books, type Pending, Reply } from "../../src/backend/books.ts";
import { Statement } from "../../src/backend/statement.ts";
import { PgError } from "../../src/errors.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { Backend } from "../../src/wire/codes.ts";
import { say } from "./support.ts";

const STATEMENT = new Statement("__pgdog_1", "1", Buffer.from("SELECT 1\0\0\0"), NO_FACTS);
const pending = (mark: Reply, name: string | null): Pending => ({
	mark,
	statement: STATEMENT,
	copy: null,
	name,
	prepares: false,
});
const NO = new PgError("ERROR", "42601", "no");

/** The messages of a batch, by their marks. */
const BATCH = [
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
	Reply.RefusedBind,
] as const;
const WITH_PENDING = new Set<Reply>([
	Reply.ParseNamed,
	Reply.ParseOurs,
	Reply.ParseFake,
	Reply.CloseOurs,
	Reply.CloseFake,
]);
const OURS = new Set<Reply>([Reply.ParseOurs, Reply.CloseOurs]);

/** Answers what it is said as PostgreSQL does, which knows nothing of marks. */
class Server {
	private skips = false;
	readonly answers: { code: number; ours: boolean; refused: boolean }[] = [];

	hears(mark: Reply, fails: boolean): void {
		const answer = (code: number) => this.answers.push({ code, ours: OURS.has(mark), refused: isRefusal(mark) });
		if (mark === Reply.Sync) {
			this.skips = false;
			answer(Backend.ReadyForQuery);
			return;
		}
		// It is never sent what the books make up the reply to.
		if (this.skips || mark === Reply.ParseFake || mark === Reply.CloseFake) return;
		if (fails || isRefusal(mark)) {
			answer(Backend.ErrorResponse);
			if (mark === Reply.Query || mark === Reply.RefusedQuery) answer(Backend.ReadyForQuery);
			else this.skips = true;
			return;
		}
		switch (mark) {
			case Reply.Query:
				answer(Backend.CommandComplete);
				answer(Backend.ReadyForQuery);
				break;
			case Reply.Bind:
				answer(Backend.BindComplete);
				break;
			case Reply.Describe:
				answer(Backend.NoData);
				break;
			case Reply.Execute:
				answer(Backend.CommandComplete);
				break;
			case Reply.Close:
			case Reply.CloseOurs:
				answer(Backend.CloseComplete);
				break;
			default:
				answer(Backend.ParseComplete);
		}
	}
}

function isRefusal(mark: Reply): boolean {
	return mark === Reply.RefusedBind || mark === Reply.RefusedQuery;
}

describe("against a server that does as PostgreSQL does", () => {
	const step = fc.record({
		mark: fc.oneof(
			{ weight: 6, arbitrary: fc.constantFrom<Reply>(...BATCH) },
			{ weight: 2, arbitrary: fc.constantFrom<Reply>(Reply.Sync) },
			{ weight: 1, arbitrary: fc.constantFrom<Reply>(Reply.Query, Reply.RefusedQuery) },
		),
		fails: fc.nat(5).map((n) => n === 0),
		/** Answers that come after it. */
		hears: fc.nat(4),
	});

	test("every answer is asked for, none is missing, and what is ours is swallowed", () => {
		fc.assert(
			fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
				const books = new Books();
				const server = new Server();
				const batches: number[] = [];
				const hear = () => {
					while (books.front >= Reply.ParseFake) books.madeUp();
					const next = server.answers.shift();
					if (next === undefined) return false;
					if (next.code === Backend.ReadyForQuery) {
						expect(books.ready()).toBe(true);
						batches.shift();
					} else if (next.code === Backend.ErrorResponse) {
						expect(books.refusal() !== undefined).toBe(next.refused);
						books.failed(false);
						// A Query in the middle of the batch is skipped with it.
						batches.splice(0, batches.length - books.ends);
					} else expect(books.answered(next.code)).toBe(next.ours ? Answer.Swallowed : Answer.Passes);
					return true;
				};
				for (const { mark, fails, hears } of steps) {
					// Who knows that the batch has failed sends no more of it.
					if (books.skipping && mark !== Reply.Sync) continue;
					const before = books.batch;
					if (isRefusal(mark)) books.refuse(NO, mark as Reply.RefusedBind);
					else if (WITH_PENDING.has(mark)) books.saidOf(mark, pending(mark, "a"));
					else say(books, mark);
					server.hears(mark, fails);
					if (books.batch > before) batches.push(before);
					for (let i = 0; i < hears; i++) hear();
					expect(books.ends).toBeLessThanOrEqual(books.owed);
					// What was said in a batch that is not answered is uncertain; in the one being said it is not.
					for (const batch of batches) expect(books.isUncertain(batch)).toBe(true);
					expect(books.isUncertain(books.batch)).toBe(false);
					if (batches.length > 0) expect(books.isUncertain(batches[0]! - 1)).toBe(false);
				}
				books.sync();
				server.hears(Reply.Sync, false);
				while (hear());
				expect([books.owed, books.ends, books.unsynced, books.skipping, books.refusal()]).toEqual([
					0,
					0,
					false,
					false,
					undefined,
				]);
			}),
			{ numRuns: 500 },
		);
	});
});

// Any of these passed to the client, and every answer after it went astray.
test.each([
	["a row when nothing is owed", [], Backend.DataRow],
	["a row for a Bind", [Reply.Bind], Backend.DataRow],
	["BindComplete for a Query", [Reply.Query], Backend.BindComplete],
	["RowDescription for a Bind", [Reply.Bind], Backend.RowDescription],
	["ParameterDescription for a Query", [Reply.Query], Backend.ParameterDescription],
	["CopyInResponse for a Sync", [Reply.Sync], Backend.CopyInResponse],
	["CopyOutResponse when nothing is owed", [], Backend.CopyOutResponse],
	["FunctionCallResponse for a batch", [Reply.Execute, Reply.Sync], Backend.FunctionCallResponse],
	["BackendKeyData in a session", [Reply.Query], Backend.BackendKeyData],
	["Authentication in a session", [Reply.Query], Backend.Authentication],
	["CopyBothResponse", [Reply.Query], Backend.CopyBothResponse],
	["a message of no known type", [Reply.Query], 0x3f],
] as [string, Reply[], number][])("%s is not asked for", (_, marks, code) => {
	const books = new Books();
	for (const mark of marks) say(books, mark);
	if (code === Backend.DataRow) expect(books.expectsRows).toBe(false);
	else expect(books.answered(code)).toBe(Answer.Unasked);
});

test("ten thousand marks come out in order, and the ring is small again when all are answered", () => {
	const books = new Books();
	for (let i = 0; i < 10_000; i++) books.said(i % 2 === 0 ? Reply.Bind : Reply.Execute);
	for (let i = 0; i < 10_000; i++)
		expect(books.answered(i % 2 === 0 ? Backend.BindComplete : Backend.CommandComplete)).toBe(Answer.Passes);
	expect(books.owed).toBe(0);
	expect((books as unknown as { ring: Uint8Array }).ring.length).toBe(16);
});

describe("COPY in", () => {
	test("takes the Syncs that were sent with it out of what is owed, up to its CopyDone", () => {
		const books = new Books();
		for (const mark of [Reply.Execute, Reply.Sync, Reply.Sync]) say(books, mark);
		expect(books.answered(Backend.CopyInResponse)).toBe(Answer.Passes);
		expect([books.owed, books.ends, books.copyIn, books.unsynced]).toEqual([1, 0, true, true]);
		// The server ignores this one, too.
		books.sync();
		books.copyEnd();
		books.sync();
		expect([books.owed, books.copyIn]).toEqual([2, false]);
	});

	test("two of one Query take one CopyDone each", () => {
		const books = new Books();
		for (const mark of [Reply.Query, Reply.CopyEnd, Reply.CopyEnd, Reply.Query]) say(books, mark);
		for (let i = 0; i < 2; i++) {
			books.answered(Backend.CopyInResponse);
			expect(books.copyIn).toBe(false);
		}
		expect([books.owed, books.ends]).toEqual([2, 2]);
	});

	test("that fails while a Sync is on its way leaves the books in doubt", () => {
		const books = new Books();
		books.query();
		books.answered(Backend.CopyInResponse);
		books.sync();
		books.failed(false);
		expect(books.isInDoubt).toBe(true);
	});
});

describe("a COPY that fails, of which all was said before the server read any", () => {
	const inDoubt = (...messages: ((books: Books) => void)[]) => {
		const books = new Books();
		books.said(Reply.Execute);
		for (const message of messages) message(books);
		books.answered(Backend.CopyInResponse);
		books.failed(false);
		return books.isInDoubt;
	};
	const [sync, data, done, parse] = [
		(books: Books) => books.sync(),
		(books: Books) => books.data(),
		(books: Books) => books.copyEnd(),
		(books: Books) => books.said(Reply.Parse),
	];

	test("has had its Sync ignored when that came before its data", () => {
		expect(inDoubt(sync)).toBe(false);
		expect(inDoubt(sync, data, done, sync)).toBe(false);
		expect(inDoubt(data, done, sync)).toBe(false);
	});

	test("may have had a Sync answered that came behind data, or behind what is none", () => {
		expect(inDoubt(data, sync)).toBe(true);
		expect(inDoubt(sync, data, sync, done, sync)).toBe(true);
		expect(inDoubt(parse, sync)).toBe(true);
	});
});

describe("whether ReadyForQuery comes without anything more", () => {
	test.each([
		["after a Query", [Reply.Query], true],
		["after a Sync", [Reply.Bind, Reply.Sync], true],
		["in a batch", [Reply.Bind], false],
		["after a Query behind a batch, which may fail", [Reply.Bind, Reply.Query], false],
		["after a Query behind a Sync", [Reply.Bind, Reply.Sync, Reply.Query], true],
		["when nothing was said", [], false],
	] as [string, Reply[], boolean][])("%s", (_, marks, sure) => {
		const books = new Books();
		for (const mark of marks) say(books, mark);
		expect(books.endsInSync()).toBe(sure);
	});
});

test("nothing can have run in a batch of Parse, Describe and Close, and it is over with its Sync", () => {
	const books = new Books();
	expect(books.onlyPrepares).toBe(false);
	for (const mark of [Reply.Parse, Reply.Describe, Reply.Close]) say(books, mark);
	expect(books.onlyPrepares).toBe(true);
	books.said(Reply.Bind);
	expect(books.onlyPrepares).toBe(false);
	books.sync();
	books.said(Reply.Parse);
	// The batch before it is not answered: it may do anything.
	expect(books.onlyPrepares).toBe(false);
});
