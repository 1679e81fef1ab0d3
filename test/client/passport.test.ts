// What a client's passport says is believed where it is exactly what one says, and nowhere else.

import { expect, test } from "bun:test";
import type { MovingClient } from "../../src/client/moving-client.ts";
import { readPassport, writePassport } from "../../src/client/passport.ts";

const description = { types: Buffer.from([0, 1, 0, 0, 0, 25]), key: "k".repeat(44), portable: "p" };
const parse = Buffer.from("SELECT $1, 'ü'\0\0\x01\0\0\0\x19");
const hints = { role: "replica", shard: 3, shardingKey: "a key" } as const;

function client(): MovingClient {
	return {
		fd: 7,
		bytesIn: 1,
		bytesOut: 2,
		user: "somebody",
		database: 'a "base"',
		address: "127.0.0.1:5",
		pid: (3 << 23) | 9,
		secret: Buffer.from([1, 2, 3, 4]),
		connectedAt: 1.5,
		errors: 3,
		link: {
			settings: { startup: [["application_name", "it's"]], wanted: [], told: [["server_version", "15.18"]] },
			session: { startup: hints, hints: null, wroteAt: 2.5, reading: { settled: 1, stale: ["old"] } },
			statements: {
				names: [
					{ name: "mine", rest: parse, description },
					{ name: "other", rest: parse, description: null },
				],
				unnamed: { rest: parse, textLength: parse.indexOf(0), told: description },
			},
			answeredAt: 4,
			queries: 5,
			transactions: 6,
			queryTime: 7.5,
			transactionTime: 8,
			waitTime: 9,
		},
	};
}

test("a client comes out as it went in, by another descriptor", () => {
	const read = readPassport(writePassport(client()), 99) as MovingClient;
	expect(Buffer.from(read.link.statements!.names[0]!.rest)).toEqual(parse);
	const normal = (moving: MovingClient) => JSON.parse(new TextDecoder().decode(writePassport(moving)));
	expect(normal(read)).toEqual(normal(client()));
	expect([read.fd, read.pid, [...read.secret]]).toEqual([99, (3 << 23) | 9, [1, 2, 3, 4]]);
	const { link } = client();
	const bare = { ...client(), link: { ...link, statements: null, session: { ...link.session, reading: null } } };
	expect((readPassport(writePassport(bare), 1) as MovingClient).link.statements).toBe(null);
});

/** All that has a name in `value`. */
function names(value: unknown, path = ""): string[] {
	if (typeof value !== "object" || value === null) return [path];
	if (Array.isArray(value)) return value.length === 0 ? [path] : names(value[0], `${path}[]`);
	return Object.entries(value).flatMap(([key, each]) => names(each, path === "" ? key : `${path}.${key}`));
}

test("what stands in one of this format; who changes that, or what it means, gives the format another number", () => {
	const passport = JSON.parse(new TextDecoder().decode(writePassport(client())));
	expect(passport.format).toBe(1);
	expect(Bun.hash.wyhash(names(passport).sort().join()).toString(16)).toBe("5c3409920ac2e4d0");
});

/** The passport with the value at `path` made another; undefined: without it. */
function forged(path: string, value: unknown): Uint8Array {
	const passport = JSON.parse(new TextDecoder().decode(writePassport(client())));
	const keys = path.split(".");
	const last = keys.pop()!;
	let at = passport;
	for (const key of keys) at = at[key];
	if (value === undefined) delete at[last];
	else at[last] = value;
	return new TextEncoder().encode(JSON.stringify(passport));
}

const link = "client.link";
test.each([
	["format", 2, "its session is in format 2, and not 1"],
	["format", undefined, "its session is in format NaN, and not 1"],
	["format", "1", "its session is in format 1, and not 1"],
	["client", null, "client"],
	["client", [], "client"],
	["client.pid", -1, "client.pid"],
	["client.pid", 2 ** 31, "client.pid"],
	["client.pid", 1.5, "client.pid"],
	["client.pid", "1", "client.pid"],
	["client.more", 1, "client"],
	["client.errors", undefined, "client"],
	["client.user", "a\0b", "client.user"],
	["client.user", "x".repeat(10_001), "client.user"],
	["client.secret", "AQ==", "client.secret"],
	["client.secret", "!!!!", "client.secret"],
	["client.secret", [1, 2, 3, 4], "client.secret"],
	["client.connectedAt", null, "client.connectedAt"],
	["client.connectedAt", 8.64e15 + 1, "client.connectedAt"],
	[`${link}.answeredAt`, Number.MAX_SAFE_INTEGER, `${link}.answeredAt`],
	[`${link}.settings.wanted`, [["a"]], `${link}.settings.wanted`],
	[`${link}.settings.wanted`, { length: 0 }, `${link}.settings.wanted`],
	[`${link}.settings.told`, [["a", "b\0"]], `${link}.settings.told`],
	[`${link}.settings.startup`, Array.from({ length: 65_537 }, () => ["a", "b"]), `${link}.settings.startup`],
	[`${link}.session.startup.role`, "king", `${link}.session.startup.role`],
	[`${link}.session.startup.shard`, -1, `${link}.session.startup.shard`],
	[`${link}.session.reading.settled`, 32, `${link}.session.reading.settled`],
	[`${link}.statements.names.0.rest`, "", `${link}.statements.names.rest`],
	[`${link}.statements.names.0.rest`, btoa("SELECT 1"), `${link}.statements.names.rest`],
	[`${link}.statements.names.0.rest`, btoa("SELECT 1\0\0\x01"), `${link}.statements.names.rest`],
	[`${link}.statements.names.0.rest`, btoa("SELECT 1\0\xff\xff"), `${link}.statements.names.rest`],
	[
		`${link}.statements.names.0.description.types`,
		btoa("\0\x02\0\0\0\0"),
		`${link}.statements.names.description.types`,
	],
	[`${link}.statements.unnamed.textLength`, 3, `${link}.statements.unnamed`],
])("a forged %s is refused", (path, value, fault) => {
	const said = readPassport(forged(path, value), 1);
	expect(said).toBe(fault.startsWith("its") ? fault : `its session is malformed: ${fault}`);
});

test.each(["", "{", "null", "[]", "1", '"x"', "\xff"])("%p is none", (text) => {
	expect(readPassport(Buffer.from(text, "latin1"), 1)).toMatch(/^its session is (malformed|in format NaN)/);
});

test("whatever has become of a byte, it is refused or is a client", () => {
	const whole = writePassport(client());
	for (let at = 0; at < whole.length; at++)
		for (const byte of [0, 0x30, 0x22, 0x7d, 0xff]) {
			const bent = Uint8Array.from(whole);
			bent[at] = byte;
			const said = readPassport(bent, 1);
			if (typeof said !== "string") expect(said.link.settings.told.length).toBe(1);
			expect(typeof readPassport(whole.subarray(0, at), 1)).toBe("string");
		}
});
