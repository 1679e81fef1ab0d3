// What a log-in is told without a server: always what a server would have said, or nothing.

import { expect, test } from "bun:test";
import fc from "fast-check";
import { ParameterSets } from "../../src/backend/parameters.ts";
import { type Lesson, Reported } from "../../src/pool/reported.ts";

const sets = new ParameterSets();
const setOf = (values: Record<string, string>) => sets.of(new Map(Object.entries(values)));
const told = (set: ReturnType<Reported["of"]>) => (set === null ? null : Object.fromEntries(set.values));

const BASE = {
	application_name: "",
	client_encoding: "UTF8",
	DateStyle: "ISO, MDY",
	in_hot_standby: "off",
	is_superuser: "off",
	server_version: "15.3",
	standard_conforming_strings: "on",
	TimeZone: "Etc/UTC",
};

function reported(): { mine: Reported; lessons: Lesson[] } {
	const lessons: Lesson[] = [];
	return { mine: new Reported(sets, (lesson) => lessons.push(structuredClone(lesson))), lessons };
}

test("one opened connection is enough for clients that ask for nothing, for a name, or for what is so anyway", () => {
	const { mine } = reported();
	expect(mine.of(setOf({}))).toBeNull();
	mine.opened(setOf(BASE));
	expect(told(mine.of(setOf({})))).toEqual(BASE);
	expect(told(mine.of(setOf({ application_name: "psql" })))).toEqual({ ...BASE, application_name: "psql" });
	const same = { client_encoding: "UTF8", datestyle: "ISO, MDY", application_name: "x".repeat(63) };
	expect(told(mine.of(setOf(same)))).toEqual({ ...BASE, application_name: "x".repeat(63) });
	// The server would change, refuse or cut these off.
	const unknown: Record<string, string>[] = [
		{ timezone: "utc" },
		{ application_name: "naïve" },
		{ application_name: "x".repeat(64) },
		{ server_version: "15.3" },
		{ is_superuser: "off" },
		{ statement_timeout: "1s" },
	];
	for (const startup of unknown) expect(mine.of(setOf(startup))).toBeNull();
});

test("what was tried on a server once is known for every name, and goes with the server's other settings", () => {
	const { mine } = reported();
	mine.opened(setOf(BASE));
	const startup = { timezone: "utc", statement_timeout: "1s" };
	// It was tried on a connection to the server that was there before.
	const seen = { ...BASE, TimeZone: "UTC", server_version: "14.1", in_hot_standby: "on", application_name: "a" };
	mine.tried(setOf({ ...startup, application_name: "a" }), setOf(seen));
	expect(told(mine.of(setOf({ ...startup, application_name: "b" })))).toEqual({
		...BASE,
		TimeZone: "UTC",
		application_name: "b",
	});
	expect(mine.of(setOf({ ...startup, lock_timeout: "1s" }))).toBeNull();
	// Another version: what it makes of settings is to be seen.
	mine.opened(setOf({ ...BASE, server_version: "17.1" }));
	expect(told(mine.of(setOf({})))).toEqual({ ...BASE, server_version: "17.1" });
	expect(mine.of(setOf(startup))).toBeNull();
});

test("while the pool is busy a guess lets in, but not where it decides how the client is read", () => {
	const { mine } = reported();
	expect(mine.guess(setOf({}))).toBeNull();
	mine.opened(setOf(BASE));
	expect(told(mine.guess(setOf({ statement_timeout: "1s", timezone: "utc" })))).toEqual(BASE);
	expect(mine.guess(setOf({ standard_conforming_strings: "off" }))).toBeNull();
	expect(mine.guess(setOf({ client_encoding: "LATIN1" }))).toBeNull();
	expect(told(mine.guess(setOf({ client_encoding: "UTF8", lock_timeout: "1" })))).toEqual(BASE);
});

test("what a peer may send is kept up to a bound in bytes", () => {
	const { mine, lessons } = reported();
	mine.opened(setOf({ ...BASE, huge: "x".repeat(1 << 20) }));
	expect([mine.of(setOf({})), lessons.length]).toEqual([null, 0]);
	mine.opened(setOf(BASE));
	for (let i = 0; i < 300; i++) mine.tried(setOf({ "my.setting": `${i}${"x".repeat(1000)}` }), setOf(BASE));
	const known = Array.from({ length: 300 }, (_, i) => mine.of(setOf({ "my.setting": `${i}${"x".repeat(1000)}` })));
	const count = known.filter((set) => set !== null).length;
	expect([count > 10, count < 70]).toEqual([true, true]);
});

/** A server that knows which values of a setting are one, and refuses nothing. */
function serverSays(base: Record<string, string>, startup: Record<string, string>): Record<string, string> {
	const values = { ...base };
	for (const [name, value] of Object.entries(startup)) {
		if (name === "timezone") values.TimeZone = value.toUpperCase();
		if (name === "datestyle") values.DateStyle = `ISO, ${value.slice(-3).toUpperCase()}`;
		if (name === "application_name") values.application_name = value.slice(0, 63);
		if (name === "role") values.is_superuser = value === "root" ? "on" : "off";
	}
	return values;
}

test("threads that learn from each other are told what the server says, in whatever order they learn it", () => {
	const startup = fc.record(
		{
			application_name: fc.constantFrom("a", "b", "x".repeat(70)),
			timezone: fc.constantFrom("UTC", "utc", "CET"),
			datestyle: fc.constantFrom("ISO, MDY", "iso, dmy"),
			role: fc.constantFrom("root", "bob"),
		},
		{ requiredKeys: [] },
	);
	const step = fc.record({
		thread: fc.nat(1),
		startup,
		opens: fc.option(fc.constantFrom("15.3", "17.1"), { freq: 5 }),
	});
	fc.assert(
		fc.property(fc.array(step, { minLength: 60, maxLength: 100 }), (steps) => {
			let version = "15.3";
			const threads: Reported[] = [0, 1].map((i) => new Reported(sets, (lesson) => threads[1 - i]!.hear(lesson)));
			for (const { thread, startup, opens } of steps) {
				const mine = threads[thread]!;
				if (opens !== null) {
					version = opens;
					mine.opened(setOf({ ...BASE, TimeZone: "UTC", server_version: version }));
				}
				const says = serverSays({ ...BASE, TimeZone: "UTC", server_version: version }, startup);
				const known = mine.of(setOf(startup));
				if (known !== null) expect(told(known)).toEqual(says);
				else mine.tried(setOf(startup), setOf(says));
			}
		}),
		{ numRuns: 40 },
	);
});
