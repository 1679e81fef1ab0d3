// Facts are learned once per text and the memory that they take is bounded.

import { expect, test } from "bun:test";
import { StatementCache } from "../../src/parser/cache.ts";
import { Parsed, SqlParser } from "../../src/parser/parse.ts";
import { Reading } from "../../src/parser/reading.ts";

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

test("thousands of shapes, asked for in turn, have the facts of their own texts", () => {
	const cache = new StatementCache(new SqlParser(), { entries: 10_000, bytes: 64 * 2 ** 20 });
	const ask = (sql: string) => {
		const bytes = Buffer.from(sql);
		return cache.factsOfQuery(bytes, 0, bytes.length, Reading.Standard);
	};
	const texts = (literal: number) =>
		Array.from({ length: 1000 }, (_, i) => {
			const name = "t".repeat(1 + (i % 7)) + i;
			return i % 2 === 0 ? `SELECT ${literal} FROM ${name}` : `UPDATE ${name} SET a = ${literal}`;
		});
	const first = texts(1).map(ask);
	for (const [i, facts] of first.entries()) expect(facts.writes).toBe(i % 2 === 1);
	expect(new Set(first).size).toBe(1000);
	for (const literal of [2, 3, 4, 5]) for (const [i, sql] of texts(literal).entries()) expect(ask(sql)).toBe(first[i]!);
});

test("what functions write counts at once for shapes, too", () => {
	const cache = new StatementCache(new SqlParser());
	const writes = (literal: number) => {
		const bytes = Buffer.from(`SELECT mine(${literal})`);
		return cache.factsOfQuery(bytes, 0, bytes.length, Reading.Standard).writes;
	};
	for (let i = 0; i < 5; i++) expect(writes(i)).toBe(false);
	cache.setWriteFunctions(["mine"]);
	for (let i = 0; i < 5; i++) expect(writes(i)).toBe(true);
});

test("of a text with a shape only what stands outside of literals and comments may change how its session reads", () => {
	const cache = new StatementCache(new SqlParser());
	const changes = (sql: string) => {
		const bytes = Buffer.from(sql);
		return cache.ofQuery(bytes, 0, bytes.length, Reading.Standard).changes;
	};
	for (const sql of [
		"SELECT set_config('client_encoding', $1, false)",
		"SELECT /* a */ Set_Config($1, 'a', 1 = 2)",
		"UPDATE pg_settings SET setting = 'a' WHERE name = 'b'",
		'SELECT "set_config"(name, $1, false) FROM pg_settings',
		"SET client_encoding = 'SJIS'",
		"/* a */ SET NAMES 'latin1'",
		"SELECT 1; SET standard_conforming_strings = off",
		"RESET ALL",
		"DO $$ a $$",
		"SELECT U&\"set\\005fconfig\"('client_encoding', 'a', false)",
	])
		for (let times = 0; times < 3; times++) expect([sql, changes(sql)]).toEqual([sql, true]);
	for (const sql of ["SELECT 'set_config'", "SELECT 1 -- set_config", "SELECT /* set_config */ 2", "SELECT 3", "BEGIN"])
		for (let times = 0; times < 3; times++) expect([sql, changes(sql)]).toEqual([sql, false]);
	expect(changes("SELECT set_config('a')")).toBe(true);
});

test("a text that comes again has its own facts, and no other reading's, nor those of before new functions write", () => {
	const cache = new StatementCache(new SqlParser());
	const ask = (sql: string, reading = Reading.Standard) => {
		const bytes = Buffer.from(`xx${sql}xx`);
		return cache.factsOfQuery(bytes, 2, bytes.length - 2, reading);
	};
	const texts = Array.from({ length: 2000 }, (_, i) => (i % 2 === 0 ? `SELECT a FROM t${i}` : `LOCK TABLE t${i}`));
	const first = texts.map((sql) => ask(sql));
	for (const [i, facts] of first.entries()) expect([i, facts.reads]).toEqual([i, i % 2 === 0]);
	for (let times = 0; times < 6; times++) for (const [i, sql] of texts.entries()) expect(ask(sql)).toBe(first[i]!);

	const escaped = "SET a = '\\'; DELETE FROM t; --'";
	for (let times = 0; times < 20; times++) {
		expect(ask(escaped).statements).toBe(2);
		expect(ask(escaped, Reading.Escapes).statements).toBe(1);
		expect(ask(escaped, Reading.Changing).writes).toBe(true);
		expect(ask("SELECT mine($1)").writes).toBe(false);
	}
	cache.setWriteFunctions(["mine"]);
	expect(ask("SELECT mine($1)").writes).toBe(true);
});
