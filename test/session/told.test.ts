import { expect, test } from "bun:test";
import { Description } from "../../src/backend/description.ts";
import { Told } from "../../src/session/told.ts";
import { backend } from "../support/wire-frames.ts";

const describes = (...types: number[]) => Description.of(backend.parameterDescription(...types), null);
const [INT, TEXT] = [describes(23), describes(25)];

function told() {
	const client = new Told();
	return { client, one: client.ofShard(), other: client.ofShard() };
}

test("what one shard has told, no other tells differently; types of the user's own have other numbers there", () => {
	const { one, other } = told();
	expect(one.tell("s", INT)).toBe(true);
	expect([other.tell("s", INT), other.tell("s", TEXT)]).toEqual([true, false]);
	// The first word counts.
	expect(one.get("s")).toBe(INT.portable);
	one.tell("t", describes(20_000));
	expect(other.tell("t", describes(30_000))).toBe(true);
});

test("a name that is given anew is told anew, on each shard from there on", () => {
	const { client, one, other } = told();
	one.tell("s", INT);
	one.give("s");
	expect(one.tell("s", TEXT)).toBe(true);
	// It has not come to that Parse.
	expect(other.tell("s", INT)).toBe(true);
	other.give("s");
	expect([other.tell("s", INT), other.tell("s", TEXT)]).toEqual([false, true]);
	client.give("s");
	client.settle();
	expect([one.get("s"), other.get("s")]).toEqual([TEXT.portable, TEXT.portable]);
});

test("of a request that fails what was told holds as far as all shards have done it", () => {
	const { client, one, other } = told();
	one.tell("s", INT);
	for (const word of [TEXT, describes()]) {
		one.give("s");
		one.tell("s", word);
	}
	other.give("s");
	client.give("s");
	client.settle();
	expect([one.get("s"), other.get("s")]).toEqual([TEXT.portable, TEXT.portable]);
	one.give("s");
	one.tell("s", INT);
	client.settle();
	expect([one.get("s"), other.get("s")]).toEqual([TEXT.portable, TEXT.portable]);
});

test("what is taken away was told by nobody, and what a shard has told of it since stays", () => {
	const { client, one, other } = told();
	for (const name of ["s", "t"]) one.tell(name, INT);
	one.give("s");
	one.tell("s", TEXT);
	client.forget("s");
	client.give("s");
	client.settle();
	expect([one.get("s"), other.get("t")]).toEqual([TEXT.portable, INT.portable]);
	one.give("s");
	one.tell("s", INT);
	client.clear();
	client.give("s");
	client.settle();
	expect([other.get("s"), other.get("t")]).toEqual([INT.portable, undefined]);
	client.forget("s");
	expect(one.get("s")).toBeUndefined();
});

test("so much is remembered, in requests and beyond", () => {
	const { client, one } = told();
	const tell = (i: number) => one.tell(`n${i}`, describes());
	for (let i = 0; i <= 10_000; i++) tell(i);
	expect([one.get("n9999") !== undefined, one.get("n10000")]).toEqual([true, undefined]);
	client.forget("n0");
	tell(10_000);
	expect(one.get("n10000")).toBeDefined();
	one.give("n1");
	tell(1);
	expect(one.get("n1")).toBeUndefined();
	client.give("n1");
	client.settle();
	tell(1);
	expect(one.get("n1")).toBeDefined();
});
