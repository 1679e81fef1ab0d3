// Facts are learned once per text and the memory that they take is bounded.

import { expect, test } from "bun:test";
import { StatementCache } from "../../src/parser/cache.ts";
import { Parsed, SqlParser } from "../../src/parser/parse.ts";

class CountingParser extends SqlParser {
	parses = 0;

	override parse(sql: string) {
		this.parses++;
		return super.parse(sql);
	}
}

test("the same text gives the same object and is parsed once", () => {
	const parser = new CountingParser();
	const cache = new StatementCache(parser);
	const facts = cache.facts("SELECT 1");
	for (let i = 0; i < 100; i++) expect(cache.facts(["SELECT", "1"].join(" "))).toBe(facts);
	expect(cache.facts("SELECT 2")).toEqual(facts);
	expect(parser.parses).toBe(2);
});

test("texts that are refused are kept like others", () => {
	const parser = new CountingParser();
	const cache = new StatementCache(parser);
	for (let i = 0; i < 10; i++) expect(cache.facts("SELEC").parsed).toBe(Parsed.SyntaxError);
	expect(parser.parses).toBe(1);
});

test("a cache that is not asked costs no parser", () => {
	const parser = new SqlParser();
	new StatementCache(parser);
	expect(parser.instances).toBe(0);
});

test("entries are bounded, the least recently used goes first", () => {
	const parser = new CountingParser();
	const cache = new StatementCache(parser, { entries: 10 });
	const kept = cache.facts("SELECT 'kept'");
	for (let i = 0; i < 100; i++) {
		cache.facts(`SELECT ${i}`);
		expect(cache.facts("SELECT 'kept'")).toBe(kept);
	}
	expect(cache.entries).toBe(10);
	expect(parser.parses).toBe(101);
});

test("bytes are bounded, and one text does not throw out all others", () => {
	const parser = new CountingParser();
	const cache = new StatementCache(parser, { bytes: 100_000 });
	const kept = cache.facts("SELECT 1");
	const large = `SELECT '${"x".repeat(20_000)}'`;
	cache.facts(large);
	cache.facts(large);
	expect(parser.parses).toBe(3);
	expect(cache.facts("SELECT 1")).toBe(kept);
	for (let i = 0; i < 200; i++) {
		cache.facts(`SELECT '${i}${"x".repeat(1000)}'`);
		expect(cache.bytes).toBeLessThanOrEqual(100_000);
	}
	expect(cache.entries).toBeLessThan(50);
});
