// The answers of several shards, cut and interleaved at random, become one answer. No sockets: bytes in, bytes out.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Merge, type MergeOutput, TO_READY } from "../../src/shards/merge.ts";
import type { TxStatus } from "../../src/wire/codes.ts";
import { cut, dataRow, errorFields } from "../support/message.ts";
import { spent } from "../support/processor.ts";
import { backend, bytes, concat, int16, int32, text } from "../support/wire-frames.ts";

type Event = "replied" | "failed" | "copyIn" | `stop ${number}` | `resume ${number}` | `done ${string}`;

/** What came out, in order, and what a shard does when its COPY is stopped. */
class Collected implements MergeOutput {
	readonly parts: Uint8Array[] = [];
	readonly events: Event[] = [];
	onStop: (shard: number) => void = () => {};
	onCopyIn: () => void = () => {};

	write(bytes: Buffer, start: number, end: number): void {
		const messages = bytes.subarray(start, end);
		this.parts.push(messages);
	}
	replied(messages: number): void {
		for (let i = 0; i < messages; i++) this.events.push("replied");
	}
	failed(): void {
		this.events.push("failed");
	}
	copyIn(): void {
		this.events.push("copyIn");
		this.onCopyIn();
	}
	stopCopy(shard: number): void {
		this.events.push(`stop ${shard}`);
		this.onStop(shard);
	}
	resumeShard(shard: number): void {
		this.events.push(`resume ${shard}`);
	}
	done(status: TxStatus): void {
		this.events.push(`done ${String.fromCharCode(status)}`);
	}

	/** One word for each message, with what matters of it. */
	get words(): string[] {
		return cut(Buffer.from(concat(...this.parts))).messages.map(({ code, body }) => {
			if (code === "C") return `C ${body.toString("utf8", 0, body.length - 1)}`;
			if (code === "D") return `D ${dataRow(body).join(",")}`;
			if (code === "d") return `d ${body.toString("latin1")}`;
			if (code === "E" || code === "N") return `${code} ${errorFields(body).M}`;
			return code;
		});
	}
}

function error(message: string, severity = "ERROR"): Uint8Array {
	return backend.errorResponse({ S: severity, V: severity, C: "XX000", M: message });
}

function merged(
	answers: Uint8Array[],
	replies = TO_READY,
	schedule: number[] = [],
	firstAnswers: boolean[] | null = null,
): Collected {
	const out = new Collected();
	const merge = new Merge(
		answers.length,
		answers.map((_, shard) => shard),
		replies,
		out,
		firstAnswers,
	);
	const left = answers.map((answer) => Buffer.from(answer));
	const give = (shard: number, size: number) => {
		const piece = left[shard]!.subarray(0, size);
		left[shard] = left[shard]!.subarray(size);
		if (piece.length > 0) merge.add(shard, Buffer.from(piece));
	};
	// A number says whose turn it is, and how much of it comes.
	for (const turn of schedule) give(turn % answers.length, 1 + ((turn >> 3) % 40));
	for (const shard of answers.keys()) give(shard, left[shard]!.length);
	return out;
}

const { rowDescription, commandComplete, readyForQuery } = backend;
const rows = (...values: string[]) => concat(...values.map((value) => backend.dataRow(value)));

describe("one answer", () => {
	test("rows of all under one description, the tags summed, the worst status", () => {
		const out = merged([
			concat(rowDescription("a"), rows("1", "2"), commandComplete("SELECT 2"), readyForQuery("I")),
			concat(rowDescription("a"), commandComplete("SELECT 0"), readyForQuery("T")),
			concat(rowDescription("a"), rows("3"), commandComplete("SELECT 1"), readyForQuery("I")),
		]);
		expect(out.words).toEqual(["T", "D 1", "D 2", "D 3", "C SELECT 3"]);
		expect(out.events.at(-1)).toBe("done T");
		expect(merged([readyForQuery("T"), readyForQuery("E"), readyForQuery("I")]).events).toEqual(["done E"]);
	});

	test("of statements that are each shard's own affair the first shard's, whatever comes when", () => {
		const answer = (shard: number) =>
			concat(
				concat(rowDescription("a"), rows(`one ${shard}`), commandComplete("SELECT 1")),
				concat(rowDescription("a"), rows(`all ${shard}`, "x"), commandComplete("SELECT 2")),
				backend.emptyQueryResponse(),
				concat(rowDescription("a"), rows(`one ${shard}`), backend.portalSuspended()),
				concat(rowDescription("a"), rows(`all ${shard}`), commandComplete("SELECT 1")),
				readyForQuery(),
			);
		fc.assert(
			fc.property(fc.array(fc.nat(1000), { maxLength: 60 }), (schedule) => {
				const { words } = merged([answer(0), answer(1)], TO_READY, schedule, [true, false, false, true, false]);
				expect(words.filter((word) => word.startsWith("D one"))).toEqual(["D one 0", "D one 0"]);
				expect(words.filter((word) => word.startsWith("D all"))).toHaveLength(4);
				expect(words.filter((word) => /^[CsI]/.test(word))).toEqual([
					"C SELECT 1",
					"C SELECT 4",
					"I",
					"s",
					"C SELECT 2",
				]);
			}),
		);
	});

	test.each([
		[["INSERT 0 3", "INSERT 0 4"], "INSERT 0 7"],
		[["COPY 10", "COPY 0"], "COPY 10"],
		[["BEGIN", "BEGIN"], "BEGIN"],
		[["CREATE TABLE", "CREATE TABLE"], "CREATE TABLE"],
		[["COMMIT", "COMMIT"], "COMMIT"],
		[["COMMIT", "ROLLBACK"], "ROLLBACK"],
		[["ROLLBACK", "ROLLBACK"], "ROLLBACK"],
		[["UPDATE 9007199254740", "UPDATE 1"], "UPDATE 9007199254741"],
	])("the tags %j are %s", (tags, sum) => {
		const out = merged(tags.map((tag) => concat(commandComplete(tag), readyForQuery())));
		expect(out.words).toEqual([`C ${sum}`]);
	});

	test("notices of all, but for those that say whether there is a transaction", () => {
		const warning = (C: string) => backend.noticeResponse({ S: "WARNING", V: "WARNING", C, M: C });
		for (const C of ["25001", "25P01"]) {
			const answer = concat(warning(C), warning("01000"), commandComplete("COMMIT"), readyForQuery());
			expect(merged([answer, answer]).words).toEqual([`N ${C}`, "N 01000", "N 01000", "C COMMIT"]);
		}
	});

	test("no notice of what stands behind an error", () => {
		const notice = backend.noticeResponse({ S: "NOTICE", V: "NOTICE", C: "00000", M: "look" });
		const out = merged([
			concat(notice, error("no"), readyForQuery()),
			concat(notice, commandComplete("BEGIN"), notice, commandComplete("BEGIN"), readyForQuery("T")),
		]);
		expect(out.words).toEqual(["N look", "N look", "E no"]);
	});

	test("a portal that has ended on one shard only has not ended", () => {
		const out = merged([
			concat(rows("1"), commandComplete("SELECT 1"), readyForQuery("T")),
			concat(rows("2", "3"), backend.portalSuspended(), readyForQuery("T")),
		]);
		expect(out.words).toEqual(["D 1", "D 2", "D 3", "s"]);
	});

	test("notices pass from every shard, a changed setting is told once", () => {
		const setting = concat(
			backend.noticeResponse({ S: "NOTICE", M: "look" }),
			backend.parameterStatus("a", "b"),
			commandComplete("SET"),
			readyForQuery(),
		);
		expect(merged([setting, setting]).words).toEqual(["N look", "S", "N look", "C SET"]);
	});

	test("answers that do not fit together are an error, and no row is shown under a wrong description", () => {
		const narrow = concat(rowDescription("a"), rows("1"), commandComplete("SELECT 1"), readyForQuery());
		const wide = concat(
			rowDescription("a", "b"),
			backend.dataRow("1", "2"),
			commandComplete("SELECT 1"),
			readyForQuery(),
		);
		const none = concat(commandComplete("SET"), readyForQuery());
		for (const other of [wide, none]) {
			const out = merged([narrow, other]);
			expect(out.words).toEqual(["E the shards gave answers of different kinds"]);
			expect(out.events).toEqual(["failed", "done I"]);
		}
		// One name as long as two with all that stands behind a name.
		const asLong = concat(rowDescription("a".repeat(21)), rows("1"), commandComplete("SELECT 1"), readyForQuery());
		expect(asLong.length).toBe(wide.length - 5);
		expect(merged([asLong, wide]).words).toEqual(["E the shards gave answers of different kinds"]);
	});

	test("answers fit together whose columns have other names", () => {
		const named = (name: string) =>
			concat(rowDescription(name), rows(name), commandComplete("SELECT 1"), readyForQuery());
		expect(merged([named("a"), named("long")]).words).toEqual(["T", "D a", "D long", "C SELECT 2"]);
	});
});

test("what a shard says on its own may come in two pieces, with the next request between them", () => {
	const out = new Collected();
	const merge = new Merge(2, [0], TO_READY, out);
	const notice = Buffer.from(backend.notificationResponse(7, "channel", "payload"));
	merge.add(0, Buffer.from(readyForQuery()));
	merge.add(1, notice.subarray(0, 9));
	merge.begin([0, 1], TO_READY, null);
	merge.add(1, Buffer.concat([notice.subarray(9), concat(commandComplete("SET"), readyForQuery())]));
	merge.add(0, Buffer.from(concat(commandComplete("SET"), readyForQuery())));
	expect(out.words).toEqual(["A", "C SET"]);
	expect(out.events).toEqual(["done I", "replied", "done I"]);
});

describe("answers that come in one chunk each", () => {
	const { parseComplete, bindComplete, noData, parameterDescription, closeComplete } = backend;
	const selected = (tag: string, ...values: string[]) =>
		concat(rowDescription("a"), rows(...values), commandComplete(tag), readyForQuery());
	const batch = (tag: string, ...values: string[]) =>
		concat(
			concat(parseComplete(), parameterDescription(23), rowDescription("a"), bindComplete()),
			concat(rows(...values), commandComplete(tag), readyForQuery("T")),
		);

	test.each<[string, Uint8Array[]]>([
		["rows of some", [selected("SELECT 2", "1", "2"), selected("SELECT 0"), selected("SELECT 1", "3")]],
		["of one shard", [selected("SELECT 1", "1")]],
		[
			"no rows",
			[concat(commandComplete("COMMIT"), readyForQuery()), concat(commandComplete("ROLLBACK"), readyForQuery())],
		],
		["a batch", [batch("SELECT 1", "1"), batch("SELECT 2", "2", "3")]],
		["only a portal's rows", [concat(rows("1"), commandComplete("SELECT 1"), readyForQuery()), selected("SELECT 0")]],
		[
			"no tag",
			[concat(parseComplete(), noData(), readyForQuery()), concat(parseComplete(), noData(), readyForQuery())],
		],
		["other parameters", [batch("SELECT 0"), concat(parseComplete(), parameterDescription(23, 23), readyForQuery())]],
		["fewer replies", [batch("SELECT 0"), concat(parseComplete(), commandComplete("SELECT 0"), readyForQuery())]],
		["more behind the tag", [0, 1].map(() => concat(commandComplete("SELECT 0"), closeComplete(), readyForQuery()))],
		["an empty query", [concat(backend.emptyQueryResponse(), readyForQuery()), selected("SELECT 0")]],
		["an error", [selected("SELECT 1", "1"), concat(rowDescription("a"), error("no"), readyForQuery("E"))]],
	])("are merged as when they come in pieces: %s", (_, answers) => {
		const [whole, pieces] = [
			merged(answers),
			merged(
				answers,
				TO_READY,
				Array(400)
					.fill(0)
					.map((_, turn) => turn % 8),
			),
		];
		const isRow = (word: string) => word.startsWith("D");
		expect(whole.events).toEqual(pieces.events);
		expect(whole.words.filter((word) => !isRow(word))).toEqual(pieces.words.filter((word) => !isRow(word)));
		if (!whole.events.includes("failed")) expect(whole.words.filter(isRow)).toEqual(pieces.words.filter(isRow).sort());
	});

	test("wait for each other, and for those that do not", () => {
		const out = new Collected();
		const merge = new Merge(3, [0, 1, 2], TO_READY, out);
		merge.add(0, Buffer.from(selected("SELECT 1", "1")));
		merge.add(2, Buffer.from(selected("SELECT 1", "2")));
		expect(out.words).toEqual([]);
		const late = Buffer.from(selected("SELECT 1", "3"));
		merge.add(1, late.subarray(0, late.length - 8));
		expect(out.words).toEqual(["T", "D 1", "D 3", "D 2"]);
		merge.add(1, late.subarray(late.length - 8));
		expect(out.words.at(-1)).toBe("C SELECT 3");
		expect(out.events).toEqual(["replied", "replied", "done I"]);
	});

	test("may have more behind them: what a shard says on its own, and its last words", () => {
		const out = new Collected();
		const merge = new Merge(2, [0, 1], TO_READY, out);
		merge.add(0, Buffer.from(selected("SELECT 1", "1")));
		merge.add(0, Buffer.from(concat(backend.notificationResponse(7, "c", "p"), error("gone", "FATAL"))));
		expect(merge.lastWords(0)?.toString("latin1")).toContain("gone");
		const other = new Merge(2, [0, 1], TO_READY, out);
		other.add(0, Buffer.from(selected("SELECT 1", "1")));
		other.spare([1]);
		expect(out.words).toEqual(["T", "D 1", "C SELECT 1"]);
		expect(out.events).toEqual(["replied", "replied", "done I"]);
	});
});

describe("errors", () => {
	test("an error of one, or of all, is told once, and the rest is dropped up to ReadyForQuery", () => {
		const good = concat(commandComplete("INSERT 0 1"), commandComplete("INSERT 0 1"), readyForQuery());
		const bad = concat(commandComplete("INSERT 0 1"), error("no such table"), readyForQuery());
		const out = merged([good, bad, good]);
		expect(out.words).toEqual(["C INSERT 0 3", "E no such table"]);
		expect(out.events).toEqual(["replied", "failed", "done I"]);
		expect(merged([bad, bad]).words).toEqual(["C INSERT 0 2", "E no such table"]);
	});

	test("last words that the client was not told are kept", () => {
		const out = new Collected();
		const merge = new Merge(2, [0, 1], TO_READY, out);
		merge.add(1, Buffer.from(error("shutting down", "FATAL")));
		expect(out.words).toEqual([]);
		expect(merge.fatal).toBe(false);
		expect(merge.lastWords(0)).toBeNull();
		expect(merge.lastWords(1)?.toString("latin1")).toContain("shutting down");

		merge.add(0, Buffer.from(commandComplete("SET")));
		expect(out.words).toEqual(["E shutting down"]);
		expect(merge.fatal).toBe(true);
	});

	test("a shard that was not asked may still say its last words, and a notification", () => {
		const out = new Collected();
		const merge = new Merge(2, [0], TO_READY, out);
		merge.add(1, Buffer.from(concat(backend.notificationResponse(7, "c", "p"), error("gone", "FATAL"))));
		expect(out.words).toEqual(["A"]);
		expect(merge.lastWords(1)?.toString("latin1")).toContain("gone");
		merge.add(0, Buffer.from(concat(commandComplete("SET"), readyForQuery())));
		expect(out.events).toEqual(["replied", "done I"]);
		merge.add(0, Buffer.from(error("idle too long", "FATAL")));
		expect(merge.lastWords(0)?.toString("latin1")).toContain("idle too long");
	});
});

describe("replies that are counted", () => {
	const batch = concat(
		backend.parseComplete(),
		backend.bindComplete(),
		backend.noData(),
		commandComplete("INSERT 0 1"),
	);

	test("end without ReadyForQuery", () => {
		const out = merged([batch, batch], 4);
		expect(out.words).toEqual(["1", "2", "n", "C INSERT 0 2"]);
		expect(out.events).toEqual(["replied", "replied", "replied", "replied", "done I"]);
	});

	test("end with an error there and the last reply here", () => {
		const out = merged([batch, concat(backend.parseComplete(), error("bad bind"))], 4);
		expect(out.words).toEqual(["1", "E bad bind"]);
		expect(out.events).toEqual(["replied", "failed", "done I"]);
		expect(merged([concat(backend.parseComplete(), error("bad bind")), batch], 4).events.at(-1)).toBe("done I");
	});

	test("a description of parameters is no reply of its own", () => {
		const described = concat(backend.parameterDescription(23), rowDescription("a"));
		expect(merged([described, described], 1).events).toEqual(["replied", "done I"]);
	});
});

describe("COPY", () => {
	test("begins when all shards read data, and one that cannot stops the others", () => {
		const copying = backend.copyInResponse();
		const out = new Collected();
		const merge = new Merge(3, [0, 1, 2], TO_READY, out);
		merge.add(0, Buffer.from(copying));
		expect(out.events).toEqual([]);
		merge.add(1, Buffer.from(copying));
		merge.add(2, Buffer.from(copying));
		expect(out.events).toEqual(["copyIn"]);
		merge.add(1, Buffer.from(concat(error("bad data"), readyForQuery())));
		expect(out.events).toEqual(["copyIn", "stop 0", "stop 2"]);
		for (const shard of [0, 2]) merge.add(shard, Buffer.from(concat(error("stopped"), readyForQuery())));
		expect(out.words).toEqual(["G", "E bad data"]);
		expect(out.events.at(-1)).toBe("done I");
	});

	test("that begins on one shard only is stopped there", () => {
		const out = new Collected();
		const merge = new Merge(2, [0, 1], TO_READY, out);
		merge.add(0, Buffer.from(backend.copyInResponse()));
		merge.add(1, Buffer.from(concat(error("no such table"), readyForQuery())));
		expect(out.events).toEqual(["failed", "stop 0"]);
		merge.add(0, Buffer.from(concat(error("stopped"), readyForQuery())));
		expect(out.words).toEqual(["E no such table"]);
		expect(out.events.at(-1)).toBe("done I");
	});

	const signature = concat(text("PGCOPY\n"), bytes(0xff, 0x0d, 0x0a, 0), int32(0), int32(0));
	const trailer = bytes(0xff, 0xff);
	const tuple = (letter: string) => concat(int16(1), int32(1), text(letter));
	const copied = (...data: Uint8Array[]) =>
		concat(
			backend.copyOutResponse([1], 1),
			...data.map((each) => backend.copyData(each)),
			backend.copyDone(),
			commandComplete(`COPY ${data.length}`),
			readyForQuery(),
		);

	// As they were, a reader would have stopped at the first shard's trailer.
	test("out in binary format has one signature and one trailer", () => {
		for (const answers of [
			[copied(concat(signature, tuple("a")), tuple("b"), trailer), copied(concat(signature, trailer))],
			[copied(concat(signature, trailer)), copied(concat(signature, tuple("a")), tuple("b"), trailer)],
		]) {
			const { messages } = cut(Buffer.from(concat(...merged(answers).parts)));
			const data = messages.filter(({ code }) => code === "d").map(({ body }) => body);
			expect(Buffer.concat(data)).toEqual(Buffer.from(concat(signature, tuple("a"), tuple("b"), trailer)));
		}
	});

	test("out in text format passes as it is", () => {
		const out = merged([
			concat(backend.copyOutResponse(), backend.copyData("a\n"), backend.copyDone(), commandComplete("COPY 1")),
			concat(backend.copyOutResponse(), backend.copyData("b\n"), backend.copyDone(), commandComplete("COPY 1")),
		]);
		expect(out.words).toEqual(["H", "d a\n", "d b\n", "c", "C COPY 2"]);
	});
});

describe("whatever comes first", () => {
	const word = fc.string({ minLength: 0, maxLength: 12 }).map((value) => value.replaceAll("\0", ""));

	/** A request of a few statements: what each shard has for it, and where one fails. */
	const scenario = fc.integer({ min: 1, max: 4 }).chain((shards) =>
		fc.record({
			statements: fc.array(
				fc.record({
					rows: fc.array(fc.array(word, { maxLength: 6 }), { minLength: shards, maxLength: shards }),
					select: fc.boolean(),
				}),
				{ maxLength: 4 },
			),
			failures: fc.array(fc.option(fc.nat(4), { nil: null }), { minLength: shards, maxLength: shards }),
			schedule: fc.array(fc.nat(1 << 10), { maxLength: 120 }),
			status: fc.array(fc.constantFrom("I", "T", "E" as const), { minLength: shards, maxLength: shards }),
		}),
	);

	test("the answer is the same but for the order of rows", () => {
		fc.assert(
			fc.property(scenario, ({ statements, failures, schedule, status }) => {
				const answers = failures.map((failure, shard) => {
					const parts: Uint8Array[] = [];
					for (const [i, { rows: all, select }] of statements.entries()) {
						const mine = all[shard]!;
						if (failure === i) {
							parts.push(error(`shard ${shard}`));
							break;
						}
						if (select) parts.push(rowDescription("a"), rows(...mine));
						parts.push(commandComplete(select ? `SELECT ${mine.length}` : `UPDATE ${mine.length}`));
					}
					parts.push(readyForQuery(status[shard] as "I" | "T" | "E"));
					return concat(...parts);
				});
				const out = merged(answers, TO_READY, schedule);

				const expected: string[] = [];
				const seen = out.words;
				const failing = Math.min(...failures.map((at) => at ?? Number.POSITIVE_INFINITY));
				for (const [i, { rows: all, select }] of statements.entries()) {
					if (i === failing) {
						// What the others have before they are known to be in vain depends on who is first.
						const rest = seen.slice(expected.length);
						expect(rest.at(-1)).toBe(`E shard ${failures.indexOf(i)}`);
						expect(rest.length).toBe(1);
						expected.push(...rest);
						break;
					}
					if (select) {
						expected.push("T");
						const from = expected.length;
						const wanted = all.flat().map((value) => `D ${value}`);
						expect(seen.slice(from, from + wanted.length).sort()).toEqual(wanted.sort());
						expected.push(...seen.slice(from, from + wanted.length));
					}
					expected.push(`C ${select ? "SELECT" : "UPDATE"} ${all.flat().length}`);
				}
				expect(seen).toEqual(expected);
				const worst = status.includes("E") ? "E" : status.includes("T") ? "T" : "I";
				expect(out.events.at(-1)).toBe(`done ${worst}`);
				expect(out.events.filter((event) => event.startsWith("done"))).toHaveLength(1);
			}),
			{ numRuns: 300 },
		);
	});

	test("rows of one shard keep their order", () => {
		fc.assert(
			fc.property(fc.array(fc.nat(1 << 10), { maxLength: 200 }), (schedule) => {
				const of = (letter: string) => Array.from({ length: 20 }, (_, i) => `${letter}${i}`);
				const answer = (letter: string) =>
					concat(rowDescription("x"), rows(...of(letter)), commandComplete("SELECT 20"), readyForQuery());
				const seen = merged([answer("a"), answer("b")], TO_READY, schedule).words;
				expect(seen.filter((each) => each.startsWith("D a"))).toEqual(of("a").map((value) => `D ${value}`));
				expect(seen.filter((each) => each.startsWith("D b"))).toEqual(of("b").map((value) => `D ${value}`));
			}),
			{ numRuns: 100 },
		);
	});

	test("a shard that is far ahead is stopped, and goes on when the others have caught up", () => {
		const out = new Collected();
		const merge = new Merge(2, [0, 1], TO_READY, out);
		merge.add(0, Buffer.from(rowDescription("a")));
		const row = Buffer.from(backend.dataRow("x".repeat(100_000)));
		expect(merge.isAhead(0)).toBe(false);
		for (let i = 0; i < 3; i++) merge.add(0, row);
		expect(merge.isAhead(0)).toBe(true);
		expect(merge.isAhead(1)).toBe(false);
		expect(out.parts).toEqual([]);
		merge.add(1, Buffer.from(rowDescription("a")));
		expect(out.events).toContain("resume 0");
		expect(merge.isAhead(0)).toBe(false);
		expect(out.words.map((each) => each[0])).toEqual(["T", "D", "D", "D"]);
	});

	test("a row that comes in a thousand pieces is put together once", () => {
		const out = new Collected();
		const merge = new Merge(2, [0, 1], TO_READY, out);
		const row = Buffer.from(concat(rowDescription("a"), backend.dataRow("y".repeat(10_000_000))));
		merge.add(1, Buffer.from(rowDescription("a")));
		const time = spent(() => {
			for (let at = 0; at < row.length; at += 10_000) merge.add(0, row.subarray(at, at + 10_000));
		});
		expect(out.words.map((each) => each.length)).toEqual([1, 10_000_002]);
		expect(time).toBeLessThan(2_000);
	});
});
