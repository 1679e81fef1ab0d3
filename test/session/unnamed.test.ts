// The unnamed statement of one client: what it is after errors, batches and the end of its loan.

import { describe, expect, test } from "bun:test";
import { Description } from "../../src/backend/description.ts";
import { NO_FACTS } from "../../src/parser/session.ts";
import { UnnamedStatement } from "../../src/session/unnamed.ts";
import { backend, frontend } from "../support/wire-frames.ts";

/** An unnamed Parse of this text, from which the statement is remembered. */
function parse(unnamed: UnnamedStatement, sql: string, serial: number, types: number[] = []): void {
	const chunk = Buffer.from(frontend.parse(sql, "", types));
	unnamed.remember(chunk, 6, chunk.indexOf(0, 6), chunk.length, NO_FACTS, serial);
}

const INTEGER = Description.of(backend.parameterDescription(23), null);

describe("an unnamed statement", () => {
	test("is none at first, and the last that was parsed", () => {
		const unnamed = new UnnamedStatement();
		expect([unnamed.text, unnamed.serial]).toEqual([null, 0]);
		parse(unnamed, "SELECT 1", 1);
		parse(unnamed, "SELECT 2", 2);
		expect([unnamed.text, unnamed.serial]).toEqual(["SELECT 2", 2]);
		unnamed.forget();
		expect([unnamed.text, unnamed.serial]).toEqual([null, 0]);
	});

	test("is parsed again as it was, or with the types that the client was told of", () => {
		const unnamed = new UnnamedStatement();
		parse(unnamed, "SELECT $1", 7, [0]);
		const rest = (...types: number[]) => Buffer.from(frontend.parse("SELECT $1", "", types)).subarray(6);
		expect(unnamed.rest).toEqual(rest(0));
		unnamed.describe(6, INTEGER);
		expect(unnamed.told).toBeNull();
		unnamed.describe(7, INTEGER);
		expect(unnamed.told).toBe(INTEGER);
		expect(unnamed.rest).toEqual(rest(23));
		parse(unnamed, "SELECT 2", 8);
		expect(unnamed.told).toBeNull();
	});

	test("keeps no large chunk alive for a small text", () => {
		const unnamed = new UnnamedStatement();
		const message = frontend.parse("SELECT 1");
		const chunk = Buffer.concat([Buffer.alloc(100), message, Buffer.alloc(5000)]);
		const start = 100 + 6;
		unnamed.remember(chunk, start, chunk.indexOf(0, start), 100 + message.length, NO_FACTS, 1);
		expect(unnamed.chunk!.length).toBeLessThan(100);
		expect([unnamed.text, unnamed.rest]).toEqual(["SELECT 1", Buffer.from(message.subarray(6))]);
		const short = Buffer.from(message);
		unnamed.remember(short, 6, short.indexOf(0, 6), short.length, NO_FACTS, 2);
		expect(unnamed.chunk).toBe(short);
	});
});

describe("an error", () => {
	/** What it was before, and two Parses in a batch since. */
	function batch(): UnnamedStatement {
		const unnamed = new UnnamedStatement();
		parse(unnamed, "before", 1);
		unnamed.beginBatch();
		parse(unnamed, "first", 2);
		parse(unnamed, "second", 3);
		return unnamed;
	}

	test("before all Parses of a batch brings back what was there", () => {
		const unnamed = batch();
		unnamed.undo(2, false, false);
		expect([unnamed.text, unnamed.serial]).toEqual(["before", 1]);
	});

	test("between them, or in the first of them, leaves what nobody knows", () => {
		for (const [parses, failed] of [
			[1, false],
			[2, true],
		] as const) {
			const unnamed = batch();
			unnamed.undo(parses, failed, false);
			expect([unnamed.text, unnamed.serial]).toEqual([null, 0]);
		}
	});

	test("of a batch behind which another has parsed leaves what that has, which goes back to nothing", () => {
		const unnamed = batch();
		unnamed.beginBatch();
		parse(unnamed, "third", 4);
		unnamed.undo(2, false, true);
		expect(unnamed.text).toBe("third");
		unnamed.undo(1, false, false);
		expect(unnamed.text).toBeNull();
	});

	test("brings back what was told of it meanwhile", () => {
		const unnamed = batch();
		unnamed.describe(1, INTEGER);
		unnamed.undo(2, false, false);
		expect(unnamed.told).toBe(INTEGER);
	});

	test("brings back nothing that a Query has ended", () => {
		const unnamed = batch();
		unnamed.clear();
		unnamed.undo(2, false, false);
		expect(unnamed.text).toBeNull();
	});
});

describe("a client that lets go of its server", () => {
	test("keeps a text of a common length, and none of a megabyte", () => {
		const unnamed = new UnnamedStatement();
		parse(unnamed, "SELECT 1", 1);
		unnamed.leave();
		expect(unnamed.text).toBe("SELECT 1");
		parse(unnamed, `SELECT '${"x".repeat(1 << 20)}'`, 2);
		unnamed.leave();
		expect(unnamed.text).toBeNull();
	});

	test("has nothing to look at again when nothing is kept", () => {
		const unnamed = new UnnamedStatement();
		expect(unnamed.some).toBe(false);
		parse(unnamed, "SELECT 1", 1);
		unnamed.leave();
		expect(unnamed.some).toBe(true);
		unnamed.forget();
		unnamed.leave();
		expect(unnamed.some).toBe(false);
		parse(unnamed, "SELECT 1", 2);
		unnamed.clear();
		expect(unnamed.some).toBe(false);
	});

	test("keeps nothing to go back to: what was before may be unknown to the next server", () => {
		const unnamed = new UnnamedStatement();
		parse(unnamed, "before", 1);
		unnamed.beginBatch();
		parse(unnamed, "after", 2);
		unnamed.leave();
		unnamed.undo(1, false, false);
		expect([unnamed.text, unnamed.serial]).toEqual([null, 0]);
	});
});

test("a shard's statement is what the client's is", () => {
	const [one, other] = [new UnnamedStatement(), new UnnamedStatement()];
	parse(other, "SELECT 1", 5);
	one.follow(other);
	expect([one.text, one.serial]).toEqual(["SELECT 1", 5]);
	other.forget();
	one.follow(other);
	expect([one.text, one.serial]).toEqual([null, 0]);
});
