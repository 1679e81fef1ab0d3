// Users who are introduced to the process that takes over: it is played, and says whom it knows.

import { expect, test } from "bun:test";
import type { LoginKey } from "../src/config/diff.ts";
import { type Introduction, Introductions, readIntroduction } from "../src/introductions.ts";

function stranger(user: string): Introduction {
	return { user, database: "shop", found: { passwords: [`of ${user}`] }, keys: null };
}

function scene(strangers: Introduction[]) {
	const said: [number, string][] = [];
	const heard: string[] = [];
	const other = { hears: true };
	const introductions = new Introductions({
		strangers: () => strangers,
		introduce: (id, bytes) => {
			if (other.hears) said.push([id, readIntroduction(bytes)!.user]);
			return other.hears;
		},
		onKnown: ({ user }: LoginKey) => heard.push(`${user} is known`),
		onUnknown: ({ user }: LoginKey, why) => heard.push(`${user} is not: ${why}`),
	});
	const names = () => said.splice(0).map(([, user]) => user);
	return { introductions, said, heard, other, names };
}

test("each is introduced once, some at a time, and whoever comes later is, too", () => {
	const strangers = Array.from({ length: 20 }, (_, i) => stranger(String(i)));
	const { introductions, said, heard } = scene(strangers);
	introductions.look();
	introductions.look();
	expect(said.length).toBe(16);
	for (let i = 0; i < said.length; i++) introductions.onKnown(said[i]![0]);
	introductions.onKnown(99);
	expect(new Set(said.map(([, user]) => user)).size).toBe(20);
	expect(heard.length).toBe(20);
	strangers.push(stranger("late"));
	introductions.look();
	expect(said.length).toBe(21);
	expect(said.at(-1)![1]).toBe("late");
});

test("whom the other process does not know it is asked about again after a while", () => {
	const { introductions, said, heard, names } = scene([stranger("alice")]);
	introductions.look(1_000);
	const [[id]] = said as [[number, string]];
	introductions.onUnknown(id, "no such user", 1_000);
	introductions.onUnknown(id, "no such user", 1_000);
	expect([heard, names()]).toEqual([["alice is not: no such user"], ["alice"]]);
	introductions.look(10_000);
	expect(names()).toEqual([]);
	introductions.look(11_000);
	expect(names()).toEqual(["alice"]);
});

test("who could not be introduced is so later", () => {
	const { introductions, other, names } = scene([stranger("alice"), stranger("bob")]);
	other.hears = false;
	introductions.look();
	other.hears = true;
	introductions.look();
	introductions.look();
	expect(names().sort()).toEqual(["alice", "bob"]);
});

test("an introduction is what it was at the other end, and what is something else is none", () => {
	let written: Uint8Array = new Uint8Array();
	const through = (said: Introduction) => {
		const introductions = new Introductions({
			strangers: () => [said],
			introduce: (_, bytes) => {
				written = bytes;
				return true;
			},
			onKnown() {},
			onUnknown() {},
		});
		introductions.look();
		return readIntroduction(written);
	};
	const keys = { clientKey: new Uint8Array(32).fill(1), serverKey: new Uint8Array(32).fill(2) };
	const all: Introduction[] = [
		{ user: "a", database: 'b"', found: { passwords: ["pässword\n"], passed: true }, keys: null },
		{ user: "a", database: "b", found: { passwords: [], password_hash: "SCRAM-SHA-256$…" }, keys },
	];
	for (const each of all) expect(through(each)).toEqual(each);
	const whole = JSON.parse(Buffer.from(written).toString());
	const read = (value: unknown) => readIntroduction(Buffer.from(JSON.stringify(value)));
	expect(read(whole)).not.toBe(null);
	const wrong = { format: 2, user: 1, database: null, passwords: ["a", 1], hash: 5, passed: "yes", keys: [1, 2] };
	for (const [key, value] of Object.entries(wrong))
		expect([key, read({ ...whole, [key]: value })]).toEqual([key, null]);
	expect(read({ ...whole, keys: ["AA=="] })?.keys).toBe(null);
	for (const text of ["", "null", "[]", "7", "{", "\xff"])
		expect(readIntroduction(Buffer.from(text, "latin1"))).toBe(null);
});
