// Random statements over two sharded tables and one that is on all shards, through the proxy before three shards and straight to one
// PostgreSQL that has all rows: what is answered is the same, and the rest is refused. Tables are the same again at the end.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { type Cluster, startPostgres } from "../support/postgres.ts";
import { type Proxy, startProxy } from "../support/proxy.ts";
import { type QueryResult, RawClient } from "../support/raw-client.ts";
import { concat, frontend as f } from "../support/wire-frames.ts";
import { onEach, SHARDS, sane, shardedOptions } from "./sharded.ts";
import { connect } from "./support.ts";

setDefaultTimeout(240_000);

let cluster: Cluster;
let proxy: Proxy;
let sharded: RawClient;
let straight: RawClient;

const TABLES = `CREATE TABLE a (k bigint, x int, s text); CREATE TABLE b (k bigint, y int, s text); CREATE TABLE o (z int, k int, s text)`;
const KEYS = 6;

beforeAll(async () => {
	cluster = await startPostgres({ databases: [...SHARDS, "straight"] });
	await onEach(cluster, TABLES);
	await cluster.primary.sql(TABLES, { user: "pgdog", database: "straight" });
	const options = shardedOptions(cluster);
	const sharded_tables = [
		{ database: "pgdog", name: "a", column: "k" },
		{ database: "pgdog", name: "b", column: "k" },
	];
	proxy = await startProxy({ ...options, config: { ...(options.config as object), sharded_tables } });
	sharded = await connect(proxy);
	straight = await RawClient.connect({ port: cluster.port, user: "pgdog", password: "pgdog", database: "straight" });
	for (let i = 0; i < 24; i++) {
		const k = i % KEYS;
		for (const client of [sharded, straight]) {
			const some = [
				`INSERT INTO a (k, x, s) VALUES (${k}, ${i % 5}, 'a${i}')`,
				`INSERT INTO b (k, y, s) VALUES (${(k * 5) % 7}, ${i % 4}, 'b${i}')`,
			];
			if (i < 5) some.push(`INSERT INTO o (z, k, s) VALUES (${i}, ${5 - i}, 'o${i}')`);
			for (const sql of some) expect((await client.query(sql)).errors).toEqual([]);
		}
	}
});

afterAll(async () => {
	if (proxy !== undefined) sane(proxy);
	sharded?.close();
	straight?.close();
	await proxy?.[Symbol.asyncDispose]();
	await cluster?.stop();
});

const one = (...texts: string[]) => fc.constantFrom(...texts);
const key = fc.nat(KEYS);

/** A value as it may be written; `$` becomes a parameter where there are some. */
const value = fc
	.tuple(key, one("#", "#", "#", "'#'", "#::bigint", "'#'::int8", "+#", "$"))
	.map(([k, how]) => how.replace("#", String(k)).replace("$", `$${k}`));

/** Something that may restrict a column. */
const about = (column: string): fc.Arbitrary<string> =>
	fc.oneof(
		{ weight: 6, arbitrary: value.map((v) => `${column} = ${v}`) },
		value.map((v) => `${v} = ${column}`),
		fc.tuple(value, value).map(([v, w]) => `${column} IN (${v}, ${w})`),
		value.map((v) => `${column} IN (${v})`),
		fc.tuple(key, key).map(([v, w]) => `${column} = ANY('{${v},${w}}')`),
		fc.tuple(value, value).map(([v, w]) => `${column} = ANY(ARRAY[${v}, ${w}])`),
		value.map((v) => `${column} IS NOT DISTINCT FROM ${v}`),
		value.map((v) => `${column} < ${v}`),
		value.map((v) => `${column} <> ${v}`),
		value.map((v) => `NOT ${column} = ${v}`),
		fc.constant(`${column} IS NULL`),
		fc.constant(`${column} = NULL`),
		fc.tuple(value, value).map(([v, w]) => `(${column} = ${v} OR ${column} = ${w})`),
		fc.tuple(value, value).map(([v, w]) => `(${column} = ${v} AND ${column} = ${w})`),
		value.map((v) => `(${column}, 1) = (${v}, 1)`),
		value.map((v) => `(1, ${column}) IN ((1, ${v}), (2, 0))`),
	);

const EQUALITIES = [
	"a.k = b.k",
	"b.k = a.k",
	"a.k = o.k",
	"o.k = b.k",
	"a.x = b.y",
	"a.k = o.z",
	"(a.k, 1) = (b.k, 1)",
];

/** Conditions on these tables, joined by AND and sometimes OR. */
const conditions = (names: readonly string[]): fc.Arbitrary<string> => {
	const columns = names.flatMap((name) =>
		name === "o" ? ["o.k", "o.z"] : [`${name}.k`, `${name}.k`, `${name}.${name === "a" ? "x" : "y"}`],
	);
	const equalities = EQUALITIES.filter((text) =>
		[..."abo"].every((name) => names.includes(name) || !text.includes(`${name}.`)),
	);
	const part = fc.oneof(
		{ weight: 3, arbitrary: one(...columns).chain(about) },
		...(equalities.length > 0 ? [{ weight: 2, arbitrary: one(...equalities) }] : []),
		...names.map((name) => subquery(name)),
	);
	return fc
		.tuple(fc.array(part, { minLength: 1, maxLength: 3 }), fc.nat(7))
		.map(([parts, how]) => parts.join(how === 0 ? " OR " : " AND "));
};

/** A condition with a subquery about a table of its own, `i`, which may be compared with `outer`. */
function subquery(outer: string): fc.Arbitrary<string> {
	const inner = one(
		"i.k = 3",
		`i.k = ${outer}.k`,
		`i.k = ${outer}.k AND i.k = 2`,
		"true",
		`i.k = 2 OR i.k = ${outer}.k`,
	);
	return fc.tuple(one("a", "b", "o"), inner, fc.nat(7)).map(([table, where, how]) => {
		const from = `FROM ${table} i WHERE ${where}`;
		switch (how) {
			case 0:
				return `${outer}.k IN (SELECT i.k ${from})`;
			case 1:
				return `${outer}.k NOT IN (SELECT i.k ${from})`;
			case 2:
				return `NOT EXISTS (SELECT 1 ${from})`;
			case 3:
				return `EXISTS (SELECT count(*) ${from})`;
			case 4:
				return `${outer}.k = (SELECT max(i.k) ${from})`;
			case 5:
				return `(SELECT count(*) ${from}) > 1`;
			case 6:
				return `${outer}.k IN (SELECT i.k ${from} ORDER BY 1 LIMIT 1)`;
			default:
				return `EXISTS (SELECT 1 ${from})`;
		}
	});
}

const JOINS = ["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", ","];

/** FROM and WHERE, with the tables that they name. */
const source: fc.Arbitrary<{ names: string[]; text: string }> = fc
	.tuple(
		fc.shuffledSubarray(["a", "b", "o"], { minLength: 1 }),
		fc.array(one(...JOINS), { minLength: 2, maxLength: 2 }),
	)
	.chain(([names, joins]) => {
		const ons = names.map((_, i) => conditions(names.slice(0, i + 1)));
		const derived = names.map((name) => fc.oneof({ weight: 4, arbitrary: fc.constant(name) }, derivedOf(name)));
		return fc
			.tuple(
				fc.tuple(...ons),
				fc.tuple(...derived),
				conditions(names),
				fc.boolean(),
				fc.nat(3),
				fc.subarray(names),
				key,
			)
			.map(([on, tables, where, filters, how, pinned, pin]) => {
				let text = tables[0]!;
				for (let i = 1; i < names.length; i++) {
					const join = joins[i - 1]!;
					const uses = join !== "," && join !== "CROSS JOIN";
					// A comma binds less than JOIN: what stands before it is out of sight behind it.
					if (join === "," && i < names.length - 1) text = `${text} CROSS JOIN ${tables[i]}`;
					else text += join === "," ? `, ${tables[i]}` : ` ${join} ${tables[i]}`;
					if (uses) text += how === 0 && i === 1 ? " USING (k)" : ` ON ${on[i]}`;
				}
				// Most statements of an application are about one key.
				const pins = pinned.map((name) => `${name}.k = ${pin}`).join(" AND ");
				const wheres = [...(filters || names.length === 1 ? [`(${where})`] : []), ...(pins === "" ? [] : [pins])];
				return { names, text: `FROM ${text}${wheres.length > 0 ? ` WHERE ${wheres.join(" AND ")}` : ""}` };
			});
	});

/** A query in the place of a table, of the same name. */
function derivedOf(name: string): fc.Arbitrary<string> {
	const own = name === "o" ? "z" : name === "a" ? "x" : "y";
	return one(
		`(SELECT * FROM ${name}) ${name}`,
		`(SELECT * FROM ${name} WHERE k = 4) ${name}`,
		`(SELECT * FROM ${name} ORDER BY k, s LIMIT 3) ${name}`,
		`(SELECT k, max(${own}) AS ${own}, min(s) AS s FROM ${name} GROUP BY k) ${name}`,
		`(SELECT max(k) AS k, ${own}, min(s) AS s FROM ${name} GROUP BY ${own}) ${name}`,
		`(SELECT DISTINCT ON (${own}) * FROM ${name} ORDER BY ${own}, s) ${name}`,
		`(SELECT k, row_number() OVER (ORDER BY s) AS ${own}, s FROM ${name}) ${name}`,
		`(SELECT k, ${own}, s FROM ${name} WHERE k = 1 UNION ALL SELECT k, ${own}, s FROM ${name} WHERE k = 2) ${name}`,
		`(SELECT ${own} AS k, k AS ${own}, s FROM ${name}) ${name}`,
	);
}

const select: fc.Arbitrary<string> = fc.tuple(source, fc.nat(9)).map(([{ names, text }, how]) => {
	const columns = names.map((name) => `${name}.k, ${name}.s`).join(", ");
	if (how === 0) return `SELECT count(*), min(${names[0]}.s) ${text}`;
	if (how === 1) return `SELECT ${columns} ${text} ORDER BY ${names.map((name) => `${name}.s`).join(", ")} LIMIT 3`;
	if (how === 2) return `SELECT ${names[0]}.k, count(*) ${text} GROUP BY 1`;
	if (how === 3) return `WITH w AS (SELECT ${names[0]}.k ${text}) SELECT count(*) FROM w WHERE w.k = 2`;
	if (how === 4)
		return `WITH w AS (SELECT ${names[0]}.k ${text}) SELECT w.k, v.k FROM w JOIN w v ON w.k = v.k WHERE v.k = 2`;
	if (how === 5) return `SELECT ${names[0]}.s ${text} UNION SELECT s FROM a WHERE k = 3`;
	if (how === 6) return `SELECT ${columns}, (SELECT count(*) FROM b i WHERE i.k = ${names[0]}.k) ${text}`;
	return `SELECT ${columns} ${text}`;
});

const write: fc.Arbitrary<string> = fc.oneof(
	fc
		.tuple(value, value, one("a", "b"))
		.map(([v, w, name]) => `INSERT INTO ${name} (k, s) VALUES (${v}, 'n'), (${w}, 'm')`),
	fc.tuple(value, one("a", "b")).map(([v, name]) => `INSERT INTO ${name} (s, k) VALUES ('n', ${v}) RETURNING k`),
	select.map((text) => `INSERT INTO a (k, s) SELECT 3, 'i' FROM (${text}) i`),
	source.map(({ names, text }) => `INSERT INTO b (k, s) SELECT ${names[0]}.k, 'i' ${text}`),
	conditions(["a"]).map((where) => `UPDATE a SET x = x + 1 WHERE ${where}`),
	fc.tuple(conditions(["a"]), value).map(([where, v]) => `UPDATE a SET k = ${v} WHERE ${where}`),
	conditions(["a", "b"]).map((where) => `UPDATE a SET s = a.s || 'u' FROM b WHERE ${where}`),
	conditions(["a", "o"]).map((where) => `UPDATE o SET s = o.s || 'u' FROM a WHERE ${where}`),
	conditions(["o"]).map((where) => `UPDATE o SET s = s || 'u' WHERE ${where}`),
	conditions(["b", "a"]).map((where) => `DELETE FROM b USING a WHERE ${where}`),
	conditions(["b"]).map((where) => `DELETE FROM b WHERE ${where}`),
	fc
		.tuple(conditions(["a", "b"]), value)
		.map(
			([on, v]) =>
				`MERGE INTO a USING (SELECT * FROM b WHERE b.k = ${v}) b ON ${on} WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (k, s) VALUES (b.k, 'm')`,
		),
	fc
		.tuple(source, value)
		.map(
			([{ names, text }, v]) =>
				`WITH w AS (DELETE FROM b WHERE b.k = ${v} RETURNING *) SELECT count(*), (SELECT count(*) FROM w) ${text.includes("WHERE") ? `${text} AND` : `${text} WHERE`} ${names[0]}.k = 2`,
		),
);

interface Statement {
	sql: string;
	bound: boolean;
}
const statement: fc.Arbitrary<Statement> = fc.record({
	sql: fc.oneof({ weight: 3, arbitrary: select }, write),
	bound: fc.boolean(),
});

/** `$5` is the parameter 5, whose value is 5; without parameters it is the constant. */
async function run(client: RawClient, { sql, bound }: Statement): Promise<QueryResult> {
	if (!bound) return client.query(sql.replaceAll(/\$(\d)/g, "$1"));
	const numbers = [...new Set([...sql.matchAll(/\$(\d)/g)].map(([, k]) => k!))];
	const text = sql.replaceAll(/\$(\d)/g, (_, k) => `$${numbers.indexOf(k) + 1}`);
	client.send(concat(f.parse(text), f.bind({ values: numbers }), f.describe("P"), f.execute(), f.sync()));
	return client.result();
}

const sorted = ({ rows }: QueryResult) => rows.map((row) => JSON.stringify(row)).sort();

/** What the tables hold: of those on all shards each has to hold the same. */
async function contents(): Promise<void> {
	for (const name of ["a", "b", "o"]) {
		const parts: unknown[] = [];
		for (let shard = 0; shard < 3; shard++)
			parts.push((await sharded.query(`/* pgdog_shard: ${shard} */ SELECT t::text FROM ${name} t`)).rows.flat());
		const all = (await straight.query(`SELECT t::text FROM ${name} t`)).rows.flat().sort();
		if (name === "o") for (const part of parts) expect((part as string[]).sort()).toEqual(all as string[]);
		else expect(parts.flat().sort()).toEqual(all);
	}
}

test("what is answered is what one server answers", async () => {
	const seen = { answered: 0, refused: 0, failed: 0 };
	const why = new Map<string, number>();
	await fc.assert(
		fc.asyncProperty(statement, async (each) => {
			await straight.query("BEGIN");
			const expected = await run(straight, each);
			await sharded.query("BEGIN");
			const found = await run(sharded, each);
			const [error] = found.errors;
			if (error?.C === "0A000") {
				seen.refused++;
				why.set(error.M!, (why.get(error.M!) ?? 0) + 1);
			} else {
				expect([error?.C, sorted(found), found.tags]).toEqual([expected.errors[0]?.C, sorted(expected), expected.tags]);
				seen[error === undefined ? "answered" : "failed"]++;
				if (error === undefined && /^(INSERT|UPDATE|DELETE|MERGE|WITH)/.test(each.sql)) await contents();
			}
			await straight.query("ROLLBACK");
			await sharded.query("ROLLBACK");
		}),
		{ numRuns: Number(process.env.RUNS ?? 150), ...(process.env.SEED ? { seed: Number(process.env.SEED) } : {}) },
	);
	console.log(seen, [...why].sort((x, y) => y[1] - x[1]).slice(0, 20));
	expect(seen.answered).toBeGreaterThan(seen.failed);
	await contents();
});
