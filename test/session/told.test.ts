import { expect, test } from "bun:test";
import { Description } from "../../src/backend/description.ts";
import { Told } from "../../src/session/told.ts";
import { backend } from "../support/wire-frames.ts";

const describes = (...types: number[]) => Description.of(backend.parameterDescription(...types), null);

test("what one shard has told, no other tells differently; types of the user's own have other numbers there", () => {
	const told = new Told();
	const [one, other] = [told, told];
	expect(other.differs("s", describes(23))).toBe(false);
	one.tell("s", describes(23));
	expect([other.differs("s", describes(23)), other.differs("s", describes(25))]).toEqual([false, true]);
	// The first word counts.
	other.tell("s", describes(25));
	expect(one.get("s")).toBe(describes(23).portable);
	one.tell("t", describes(20_000));
	expect(other.differs("t", describes(30_000))).toBe(false);
});

test("a name that is given anew is told anew", () => {
	const told = new Told();
	told.tell("s", describes(23));
	told.forget("s");
	expect(told.differs("s", describes(25))).toBe(false);
	told.tell("s", describes(25));
	told.tell("t", describes(25));
	told.clear();
	expect([told.get("s"), told.get("t")]).toEqual([undefined, undefined]);
});

test("so many names are remembered", () => {
	const told = new Told();
	for (let i = 0; i <= 10_000; i++) told.tell(`n${i}`, describes());
	expect([told.get("n9999") !== undefined, told.get("n10000")]).toEqual([true, undefined]);
});
