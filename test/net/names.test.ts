// Target names: looked up again in time, at once when their addresses are no good, and kept when nobody can look them up.

import { expect, test } from "bun:test";
import { now } from "../../src/clock.ts";
import { Names } from "../../src/net/names.ts";
import { rejects } from "../support/rejects.ts";
import { until } from "../support/until.ts";

/** A name server that says what the test wants; `null`: nothing, ever. */
function names(ttl: number, first: string[]) {
	const server = { answer: first as string[] | Error | null, questions: 0 };
	const said: string[] = [];
	const mine = new Names(
		() => ttl,
		(line) => said.push(line),
		async () => {
			server.questions++;
			if (server.answer === null) return new Promise<never>(() => {});
			if (server.answer instanceof Error) throw server.answer;
			return server.answer;
		},
	);
	return { mine, server, said };
}

test("addresses and sockets are no names", async () => {
	const { mine, server } = names(1000, []);
	for (const host of ["10.0.0.1", "::1", "/run/postgresql"]) {
		expect(await mine.addresses(host, 100)).toEqual([host]);
		mine.refresh(host, now());
		expect([mine.known(host), mine.has(host, "whatever")]).toEqual([null, true]);
	}
	expect(server.questions).toBe(0);
});

test("a name is looked up once in dns_ttl, by all who want to know at once", async () => {
	const { mine, server } = names(60_000, ["10.0.0.1", "10.0.0.1", "10.0.0.2"]);
	const all = await Promise.all([mine.addresses("db", 100), mine.addresses("db", 100)]);
	expect(all).toEqual([
		["10.0.0.1", "10.0.0.2"],
		["10.0.0.1", "10.0.0.2"],
	]);
	const known = mine.known("db");
	await mine.addresses("db", 100);
	mine.refresh("db", now());
	expect(server.questions).toBe(1);
	// As round robin turns them: nothing has changed.
	server.answer = ["10.0.0.2", "10.0.0.1"];
	mine.refresh("db", now() + 60_001);
	await until(() => server.questions === 2, "the second question");
	await Bun.sleep(0);
	expect(mine.known("db")).toBe(known);
});

test("with dns_ttl = 0, or after a failure to connect, the next one looks it up first", async () => {
	const always = names(0, ["10.0.0.1"]);
	for (let i = 0; i < 3; i++) await always.mine.addresses("db", 100);
	expect(always.server.questions).toBe(3);
	const { mine, server, said } = names(60_000, ["10.0.0.1"]);
	await mine.addresses("db", 100);
	server.answer = ["10.0.0.2"];
	expect(await mine.addresses("db", 100)).toEqual(["10.0.0.1"]);
	mine.distrust("db");
	expect(await mine.addresses("db", 100)).toEqual(["10.0.0.2"]);
	expect([mine.has("db", "10.0.0.1"), mine.has("db", "10.0.0.2")]).toEqual([false, true]);
	expect(said).toEqual(['host name "db" has other addresses: 10.0.0.2; before: 10.0.0.1']);
});

test("who cannot be looked up, or only slowly, is where it was; who never could is an error in time", async () => {
	const { mine, server, said } = names(0, ["10.0.0.1"]);
	await mine.addresses("db", 100);
	server.answer = new Error("getaddrinfo EAI_AGAIN");
	expect(await mine.addresses("db", 100)).toEqual(["10.0.0.1"]);
	mine.refresh("db", now() + 5_000);
	await until(() => said.length > 0, "a word about it");
	expect(said[0]).toBe('host name "db" cannot be looked up: getaddrinfo EAI_AGAIN');
	server.answer = null;
	expect(await mine.addresses("db", 100)).toEqual(["10.0.0.1"]);
	const silent = names(0, []);
	await rejects(silent.mine.addresses("db", 100), 'host name "db" has no address');
	silent.server.answer = null;
	await rejects(silent.mine.addresses("other", 20), "was not resolved within 20 ms");
});

test("the machine's own names are found", async () => {
	const mine = new Names(() => 1000);
	expect(await mine.addresses("localhost", 5_000)).toContain("127.0.0.1");
	await rejects(mine.addresses("no-such-host.invalid", 5_000));
});

test("a look-up that may take for ever is not too late at once", async () => {
	const { mine } = names(1000, ["10.0.0.1"]);
	expect(await mine.addresses("db", Number.MAX_SAFE_INTEGER)).toEqual(["10.0.0.1"]);
	const { mine: slow, server } = names(1000, []);
	server.answer = null;
	const outcome = slow.addresses("db", Number.MAX_SAFE_INTEGER).then(
		() => "found",
		() => "too late",
	);
	// Asked later, and too late first.
	const later = rejects(slow.addresses("another", 20)).then(() => "still asked");
	expect(await Promise.race([outcome, later])).toBe("still asked");
});
