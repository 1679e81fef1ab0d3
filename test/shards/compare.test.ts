// Values of every type that is compared, in both formats, come in the order in which a real PostgreSQL has them.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { comparing, Unreadable } from "../../src/shards/compare.ts";
import { dataRow } from "../support/message.ts";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { RawClient } from "../support/raw-client.ts";
import { frontend as f } from "../support/wire-frames.ts";

setDefaultTimeout(60_000);

let cluster: Cluster;
let client: RawClient;

beforeAll(async () => {
	cluster = await startPostgres();
	client = await RawClient.connect({ port: cluster.port, user: "postgres", database: "pgdog" });
});

afterAll(async () => {
	client?.close();
	await cluster?.stop();
});

const digits = (most: number) => fc.stringMatching(new RegExp(`^[0-9]{1,${most}}$`));
const year = fc.oneof(
	{ weight: 5, arbitrary: fc.integer({ min: 1990, max: 2010 }) },
	fc.integer({ min: 1, max: 200_000 }),
);
const two = (least: number, most: number) =>
	fc.integer({ min: least, max: most }).map((n) => String(n).padStart(2, "0"));
const date = fc
	.tuple(year, two(1, 12), two(1, 28), fc.boolean())
	.map(
		([y, month, day, bc]) =>
			`${String(y).padStart(4, "0")}-${month}-${day}${bc && y < 4000 && y % 5 === 0 ? " BC" : ""}`,
	);
const time = fc
	.tuple(two(0, 23), two(0, 59), two(0, 59), fc.option(digits(6)))
	.map(
		([hours, minutes, seconds, fraction]) => `${hours}:${minutes}:${seconds}${fraction === null ? "" : `.${fraction}`}`,
	);
const stamp = fc.tuple(date, time).map(([day, hour]) => day.replace(/( BC)?$/, ` ${hour}$1`));
const infinite = <T>(values: fc.Arbitrary<T>) =>
	fc.oneof({ weight: 9, arbitrary: values }, fc.constantFrom("infinity", "-infinity"));
const numeric = fc.oneof(
	fc
		.tuple(fc.constantFrom("", "-"), digits(30), fc.option(digits(25)))
		.map(([sign, whole, fraction]) => `${sign}${whole}${fraction === null ? "" : `.${fraction}`}`),
	fc.constantFrom(
		"NaN",
		"Infinity",
		"-Infinity",
		"0",
		"-0.000",
		"1",
		"1.0",
		"1.00",
		"10000",
		"9999.9999",
		"1e50",
		"-1e-30",
	),
);
const float = fc.oneof(
	fc.double().map(String),
	fc.integer({ min: -3, max: 3 }).map(String),
	fc.constantFrom("NaN", "Infinity", "-Infinity", "-0", "1e300", "1e-300", "0.1"),
);
const string = fc
	.oneof(fc.string({ unit: "binary", maxLength: 8 }), fc.stringMatching(/^[ab ]{0,5}$/))
	.map((s) => s.replaceAll("\0", " "));

const VALUES: Record<string, fc.Arbitrary<string>> = {
	bool: fc.constantFrom("t", "f"),
	int2: fc.integer({ min: -32768, max: 32767 }).map(String),
	int4: fc.oneof(fc.integer(), fc.integer({ min: -20, max: 20 })).map(String),
	int8: fc
		.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.bigInt({ min: -300n, max: 300n }))
		.map(String),
	oid: fc.oneof(fc.nat({ max: 0xffffffff }), fc.nat(30)).map(String),
	float4: float
		.filter((text) => Math.abs(Number(text)) < 1e30 || !Number.isFinite(Number(text)))
		.map((text) => (Math.abs(Number(text)) < 1e-30 ? "0" : text)),
	float8: float,
	numeric,
	uuid: fc.uuid(),
	bytea: fc.uint8Array({ maxLength: 6 }).map((bytes) => `\\x${Buffer.from(bytes).toString("hex")}`),
	'text COLLATE "C"': string,
	'varchar COLLATE "C"': string,
	'bpchar COLLATE "C"': string,
	name: string.map((text) => text.slice(0, 8)),
	date: infinite(date),
	time,
	timestamp: infinite(stamp),
	timestamptz: infinite(stamp),
};

const quoted = (value: string) => `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** In the server's order: the value in both formats, and its rank. */
async function sorted(type: string, values: readonly string[]): Promise<{ value: Buffer; rank: number }[][]> {
	const [name, collate = ""] = type.split(" COLLATE ");
	const by = collate === "" ? "v" : `v COLLATE ${collate}`;
	const sql = `SELECT v, rank() OVER (ORDER BY ${by}) FROM unnest($1::${name}[]) v ORDER BY ${by}`;
	const found = [];
	for (const format of [0, 1]) {
		const bind = f.bind({ values: [`{${values.map(quoted).join(",")}}`], resultFormats: [format, 0] });
		client.send(f.parse(sql), bind, f.execute(), f.sync());
		const { messages, errors } = await client.result();
		expect(errors).toEqual([]);
		found.push(
			messages
				.filter(({ code }) => code === "D")
				.map(({ body }) => {
					const length = body.readInt32BE(2);
					return { value: Buffer.from(body.subarray(6, 6 + length)), rank: Number(dataRow(body)[1]) };
				}),
		);
	}
	return found;
}

async function oidOf(type: string): Promise<number> {
	const { rows } = await client.query(`SELECT '${type.split(" ")[0]}'::regtype::oid`);
	return Number(rows[0]![0]);
}

describe("values are ordered as PostgreSQL orders them:", () => {
	test.each(Object.keys(VALUES))("%s", async (type) => {
		const oid = await oidOf(type);
		const pairs = fc.tuple(
			fc.array(VALUES[type]!, { minLength: 2, maxLength: 120 }),
			fc.array(fc.tuple(fc.nat(), fc.nat())),
		);
		await fc.assert(
			fc.asyncProperty(pairs, async ([values, others]) => {
				for (const [format, rows] of (await sorted(type, values)).entries()) {
					const compare = comparing(oid, format)!;
					const check = (i: number, j: number) => {
						const [a, b] = [rows[i % rows.length]!, rows[j % rows.length]!];
						// The values stand in the middle of other bytes.
						const [one, other] = [a, b].map(({ value }) => Buffer.concat([Buffer.of(7, 7), value, Buffer.of(0, 57)]));
						const found = compare(one!, 2, 2 + a.value.length, other!, 2, 2 + b.value.length);
						expect([String(a.value), String(b.value), Math.sign(found) + 0]).toEqual([
							String(a.value),
							String(b.value),
							Math.sign(a.rank - b.rank),
						]);
					};
					for (let i = 0; i + 1 < rows.length; i++) check(i, i + 1);
					for (const [i, j] of others) check(i, j);
				}
			}),
			{ numRuns: 12 },
		);
	});
});

// Where it is summer the offset is another than in winter, and the text's order is not the order of time.
test("timestamps with time zone are ordered by time in a zone with summer time, and with odd offsets of old", async () => {
	for (const zone of ["Europe/Berlin", "America/St_Johns", "Africa/Monrovia", "Asia/Kathmandu"]) {
		await client.query(`SET timezone = '${zone}'`);
		const compare = comparing(await oidOf("timestamptz"), 0)!;
		const { rows } = await client.query(
			`SELECT t FROM (SELECT timestamptz '2023-10-28 20:00+00' + g * interval '17 min' AS t FROM generate_series(0, 60) g
			UNION ALL SELECT timestamptz '1850-01-01' + g * interval '11 years' FROM generate_series(0, 16) g) s ORDER BY t`,
		);
		for (let i = 0; i + 1 < rows.length; i++) {
			const [a, b] = [Buffer.from(rows[i]![0]!), Buffer.from(rows[i + 1]![0]!)];
			expect([zone, String(a), String(b), compare(a, 0, a.length, b, 0, b.length) < 0]).toEqual([
				zone,
				String(a),
				String(b),
				true,
			]);
		}
	}
});

test("what is written by other settings is not compared", async () => {
	const written = async (set: string, sql: string) => Buffer.from((await client.query(`${set}; ${sql}`)).rows[0]![0]!);
	for (const [set, sql, type] of [
		["SET DateStyle = german", "SELECT date '2024-05-01'", "date"],
		["SET DateStyle = 'sql, dmy'", "SELECT timestamp '2024-05-01'", "timestamp"],
		["SET DateStyle = 'postgres, dmy'", "SELECT timestamptz '2024-05-01'", "timestamptz"],
		["SET DateStyle = 'postgres, ymd'", "SELECT date '2024-05-01'", "date"],
		["SET bytea_output = escape", "SELECT bytea '\\x5c78'", "bytea"],
	] as const) {
		const value = await written(set, sql);
		const compare = comparing(await oidOf(type), 0)!;
		expect(() => compare(value, 0, value.length, value, 0, value.length)).toThrow(Unreadable);
	}
	await client.query("RESET ALL");
});

test("types whose order is not known are not compared", () => {
	// jsonb, int4[], interval, an enum.
	for (const oid of [3802, 1007, 1186, 16_500]) expect([comparing(oid, 0), comparing(oid, 1)]).toEqual([null, null]);
});
