// Sums of `numeric` are those that a real PostgreSQL makes, in both formats.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { add, type Decimal, decimalOf, encoded } from "../../src/shards/decimal.ts";
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
const numeric = fc.oneof(
	{
		weight: 9,
		arbitrary: fc
			.tuple(fc.constantFrom("", "-"), digits(25), fc.option(digits(20)))
			.map(([sign, whole, fraction]) => `${sign}${whole}${fraction === null ? "" : `.${fraction}`}`),
	},
	fc.constantFrom("0", "0.000", "-0.00005", "10000", "0.0001", "1e40", "123e-30", "99999999.99990000"),
);
const special = fc.oneof({ weight: 5, arbitrary: numeric }, fc.constantFrom("NaN", "Infinity", "-Infinity"));

/** The bytes of each value, and of their sum. */
async function asked(values: readonly string[], format: number): Promise<Buffer[]> {
	const sql = "SELECT v FROM unnest($1::numeric[]) v UNION ALL SELECT sum(v) FROM unnest($1::numeric[]) v";
	client.send(
		f.parse(sql),
		f.bind({ values: [`{${values.join(",")}}`], resultFormats: [format] }),
		f.execute(),
		f.sync(),
	);
	const { messages, errors } = await client.result();
	expect(errors).toEqual([]);
	return messages.filter(({ code }) => code === "D").map(({ body }) => Buffer.from(body.subarray(6)));
}

/** How many digits behind the point what is no number would show is nobody's affair. */
function shown(value: Buffer, format: number): string {
	const isSpecial = format === 1 && value.readUInt16BE(4) >= 0xc000;
	return (isSpecial ? value.subarray(0, 6) : value).toString("hex");
}

test.each([
	["numbers", numeric],
	["numbers and what is none", special],
])("%s", async (_, value) => {
	await fc.assert(
		fc.asyncProperty(fc.array(value, { minLength: 1, maxLength: 12 }), async (values) => {
			for (const format of [0, 1]) {
				const bytes = await asked(values, format);
				const sum = bytes.pop()!;
				const decimals = bytes.map((one) => decimalOf(one, 0, one.length, format === 1));
				// Each is written as it was read.
				expect(decimals.map((one) => shown(encoded(one, format === 1), format))).toEqual(
					bytes.map((one) => shown(one, format)),
				);
				const found = encoded(
					decimals.reduce((a: Decimal, b) => add(a, b)),
					format === 1,
				);
				expect([values, format, shown(found, format)]).toEqual([values, format, shown(sum, format)]);
			}
		}),
		{ numRuns: 60 },
	);
});
