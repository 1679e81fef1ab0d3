// A client on its way to another process, as text: its session with the number of this format. Whoever wrote it may be another version
// of this program, so nothing of it is believed: what is not exactly as it is here is refused, and the client stays where it is.

import { readInt16 } from "../wire/frame.ts";
import type { MovingClient } from "./moving-client.ts";

/** Goes up with every change of what stands in a passport, or of what it means. */
const FORMAT = 1;
/** Most bytes of a passport: statements and settings that may move (`MOST_OF_MOVING`), in base64. */
export const LONGEST_PASSPORT = 4 << 20;

/** Most characters of names; a StartupMessage has fewer. */
const NAME = 10_000;
/** Most characters of one setting; of one statement's Parse in base64, or its name: less than may move in all. */
const VALUE = 64 << 10;
const STATEMENT = 2 << 20;
/** Most settings, statements, and names of statements that are stale. */
const MANY = 1 << 16;
/** Bits of `Reading`. */
const READINGS = 31;
const MOST = Number.MAX_SAFE_INTEGER;
/** The last moment that a Date can say, ms since the epoch: SHOW CLIENTS says all of them. */
const LAST = 8.64e15;

export function writePassport({ fd: _, ...client }: MovingClient): Uint8Array {
	return new TextEncoder().encode(JSON.stringify({ format: FORMAT, client }, inBase64));
}

/** A Buffer has made an object of itself (`toJSON`) when its `value` comes. */
function inBase64(this: Record<string, unknown>, key: string, value: unknown): unknown {
	const before = this[key];
	return before instanceof Uint8Array ? Buffer.from(before).toString("base64") : value;
}

/** @param fd of the client's connection here @returns why it cannot be let in, as text, when it is not what `writePassport` has written */
export function readPassport(text: Uint8Array, fd: number): MovingClient | string {
	try {
		const { format, client } = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
		if (format !== FORMAT) return `its session is in format ${Number(format)}, and not ${FORMAT}`;
		return { ...readClient(client, "client"), fd };
	} catch (error) {
		// What JSON.parse says may have something of the session in it.
		return error instanceof Malformed ? `its session is malformed: ${error.message}` : "its session is malformed";
	}
}

class Malformed extends Error {}

/** Makes of what stands there what it should be. @throws Malformed */
type Read<T> = (value: unknown, place: string) => T;

function check(isIt: boolean, place: string): asserts isIt {
	if (!isIt) throw new Malformed(place);
}

/** All of these keys, and no other. */
function record<T>(reads: { readonly [K in keyof T]: Read<T[K]> }): Read<T> {
	const keys = Object.keys(reads) as (keyof T & string)[];
	return (value, place) => {
		check(typeof value === "object" && value !== null && Object.keys(value).length === keys.length, place);
		const entries = keys.map((key) => [key, reads[key]((value as T)[key], `${place}.${key}`)]);
		return Object.fromEntries(entries) as T;
	};
}

function list<T>(read: Read<T>): Read<T[]> {
	return (value, place) => {
		check(Array.isArray(value) && value.length <= MANY, place);
		return value.map((each) => read(each, place));
	};
}

function orNull<T>(read: Read<T>): Read<T | null> {
	return (value, place) => (value === null ? null : read(value, place));
}

/** PostgreSQL has no NUL in a text. */
function text(most: number): Read<string> {
	return (value, place) => {
		check(typeof value === "string" && value.length <= most && !value.includes("\0"), place);
		return value;
	};
}

function number(most: number, isWhole = true): Read<number> {
	return (value, place) => {
		check(typeof value === "number" && value >= 0 && value <= most && (Number.isInteger(value) || !isWhole), place);
		return value;
	};
}

function bytes(most: number, isIt: (bytes: Uint8Array) => boolean): Read<Uint8Array> {
	return (value, place) => {
		check(typeof value === "string" && value.length <= most && /^[A-Za-z0-9+/]*={0,2}$/.test(value), place);
		const read = Uint8Array.from(Buffer.from(value, "base64"));
		check(isIt(read), place);
		return read;
	};
}

/** The end of a Parse: the number of parameter types, and these. */
function isTypes(all: Uint8Array, at = 0): boolean {
	return all.length >= at + 2 && all.length === at + 2 + 4 * readInt16(all, at);
}

const pair: Read<[string, string]> = (value, place) => {
	check(Array.isArray(value) && value.length === 2, place);
	return [text(NAME)(value[0], place), text(VALUE)(value[1], place)];
};
const settings = list(pair);
const role: Read<"primary" | "replica"> = (value, place) => {
	check(value === "primary" || value === "replica", place);
	return value;
};
const hints = record({ role: orNull(role), shard: orNull(number(MOST)), shardingKey: orNull(text(NAME)) });
const digest = text(100);
const description = record({
	types: bytes(STATEMENT, (types) => isTypes(types)) as Read<Buffer>,
	key: digest,
	portable: digest,
});
const parse = bytes(STATEMENT, (rest) => rest.includes(0) && isTypes(rest, rest.indexOf(0) + 1));
const readUnnamed = record({ rest: parse, textLength: number(STATEMENT), told: orNull(description) });
const unnamed: typeof readUnnamed = (value, place) => {
	const read = readUnnamed(value, place);
	check(read.textLength === read.rest.indexOf(0), place);
	return read;
};

const readClient = record<Omit<MovingClient, "fd">>({
	bytesIn: number(MOST),
	bytesOut: number(MOST),
	user: text(NAME),
	database: text(NAME),
	address: text(NAME),
	pid: number(2 ** 31 - 1),
	secret: bytes(64, ({ length }) => length === 4 || length === 32),
	connectedAt: number(LAST, false),
	errors: number(MOST),
	link: record({
		settings: record({ startup: settings, wanted: settings, told: settings }),
		session: record({
			startup: hints,
			hints: orNull(hints),
			wroteAt: number(LAST, false),
			reading: orNull(record({ settled: number(READINGS), stale: list(text(STATEMENT)) })),
		}),
		statements: orNull(
			record({
				names: list(record({ name: text(STATEMENT), rest: parse, description: orNull(description) })),
				unnamed: orNull(unnamed),
			}),
		),
		answeredAt: number(LAST, false),
		queries: number(MOST),
		transactions: number(MOST),
		queryTime: number(MOST, false),
		transactionTime: number(MOST, false),
		waitTime: number(MOST, false),
	}),
});
