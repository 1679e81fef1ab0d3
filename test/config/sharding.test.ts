// What the configuration says of sharded tables, and what of it would place rows wrongly and is refused.

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "smol-toml";
import { locate } from "../../src/config/locate.ts";
import { losses } from "../../src/config/loss.ts";
import { readSharding } from "../../src/config/placements.ts";
import { Findings, problemText } from "../../src/config/problem.ts";
import type { ShardedTable, Sharding } from "../../src/config/sharding.ts";
import type { Snapshot } from "../../src/config/snapshot.ts";

const folder = mkdtempSync(join(tmpdir(), "pgdog-sharding-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** What three shards of `app` make of it, and one of `small`. */
function read(toml: string, only = true): { sharding: ReadonlyMap<string, Sharding>; said: string[] } {
	const report = new Findings();
	const source = { name: "pgdog.toml", lines: locate(toml) };
	const file = { source, table: parse(toml, { integersAsBigInt: true }) };
	const shards: Record<string, number> = { app: 3, small: 1 };
	const sharding = readSharding(file, (name) => shards[name] ?? 0, only, report);
	return { sharding, said: [...report.problems.map(problemText), ...report.warnings] };
}

/** What is made of one database's entries, which have nothing wrong. */
function app(toml: string): Sharding {
	const { sharding, said } = read(toml);
	expect(said).toEqual([]);
	return sharding.get("app")!;
}

const table = (more: string) => `[[sharded_tables]]\ndatabase = "app"\n${more}\n`;
const rule = (more: string) => `[[sharded_tables.mapping]]\n${more}\n`;
const deprecated = (more: string) => `[[sharded_mappings]]\ndatabase = "app"\n${more}\n`;
const BY_HASH = { kind: "hash", hasher: "postgres" } as const;

test("where nothing is said there is nothing", () => {
	expect(read("").sharding).toEqual(new Map());
	expect(read("sharded_tables = []\nomnisharded_tables = []\n").sharding).toEqual(new Map());
});

describe("an entry of [[sharded_tables]]", () => {
	test("says by which column a table is sharded, or each that has it", () => {
		const tables: ShardedTable[] = [
			{ schema: null, table: null, column: "tenant_id", dataType: "bigint", by: BY_HASH },
			{ schema: "billing", table: "orders", column: "id", dataType: "uuid", by: { kind: "hash", hasher: "sha1" } },
		];
		const text = `${table('column = "tenant_id"')}${table(
			'name = "orders"\nschema = "billing"\ncolumn = "id"\nprimary = true\ndata_type = "uuid"\nhasher = "sha1"',
		)}`;
		expect(app(text)).toEqual({ shards: 3, tables, schemas: [], omnisharded: [] });
	});

	test.each([
		['"Users"', "users"],
		["'\"Users\"'", "Users"],
		['\'"a ""b"".c"\'', 'a "b".c'],
		['"ÄRGER"', "Ärger"],
	])("has names as SQL has them: %s", (name, stored) => {
		expect(app(table(`name = ${name}\ncolumn = "id"`)).tables[0]!.table).toBe(stored);
	});

	test.each([['""'], ['"public.users"'], ["'\"\"'"], ['\'"a"b"\''], [`"${"x".repeat(64)}"`]])(
		"has no name that PostgreSQL would not have: %s",
		(name) => {
			const { said } = read(table(`name = ${name}\ncolumn = "id"`));
			expect(said[0]).toContain("pgdog.toml:3: sharded_tables[0].name = ");
			expect(said[0]).toContain("one name, in lower case unless it is in double quotes, of 63 bytes at most");
		},
	);

	test("without a column lists the table as omnisharded, as it comes to in PgDog", () => {
		const { sharding, said } = read(table('name = "settings"\nschema = "s"'));
		expect(sharding.get("app")).toMatchObject({ tables: [], omnisharded: [{ schema: "s", table: "settings" }] });
		expect(said).toEqual([
			"pgdog.toml:1: sharded_tables[0] has no column: the table is on all shards, as those of [[omnisharded_tables]]",
		]);
	});

	test("twice is one, which a warning says", () => {
		const { sharding, said } = read(table('column = "id"').repeat(2));
		expect(sharding.get("app")!.tables).toHaveLength(1);
		expect(said).toEqual(["pgdog.toml:4: sharded_tables[1] says what sharded_tables[0] has said"]);
	});

	test("that is for any schema covers one that says the same for one of them, in either order", () => {
		const any = table('name = "t"\ncolumn = "id"');
		const one = table('name = "t"\nschema = "s"\ncolumn = "id"');
		for (const text of [any + one, one + any])
			expect(
				read(text)
					.sharding.get("app")!
					.tables.some(({ schema }) => schema === null),
			).toBe(true);
	});

	const other = (more: string) =>
		`pgdog.toml: sharded_tables[1].column = ${more}: accepted is as sharded_tables[0] has it: a table is sharded by one column, in one way`;
	test.each<[string, string, string, string]>([
		["by two columns", 'name = "t"\ncolumn = "a"', 'name = "t"\ncolumn = "b"', other('"b"')],
		["by a column in two types", 'column = "a"', 'column = "a"\ndata_type = "uuid"', other('"a"')],
		["by two hashes", 'name = "t"\ncolumn = "a"', 'name = "t"\ncolumn = "a"\nhasher = "sha1"', other('"a"')],
		[
			"by two columns, when its schema is not said",
			'name = "t"\nschema = "s"\ncolumn = "a"',
			'name = "t"\ncolumn = "b"',
			other('"b"'),
		],
	])("does not shard a table %s", (_, first, second, expected) => {
		const { said } = read(table(first) + table(second));
		expect(said.map((each) => each.replace(/toml:\d+/, "toml"))).toEqual([expected]);
	});

	test.each([
		['name = "t"\nschema = "s"\ncolumn = "a"', 'name = "t"\nschema = "u"\ncolumn = "b"'],
		['name = "t"\ncolumn = "a"', 'column = "b"'],
		['column = "a"', 'column = "b"'],
	])("does not mind another of another table: %j and %j", (first, second) => {
		expect(app(table(first) + table(second)).tables).toHaveLength(2);
	});
});

describe("entries have to be of a database", () => {
	const entries: [string, string, string][] = [
		["sharded_tables", 'column = "id"', "column"],
		["sharded_mappings", 'column = "id"\nkind = "default"\nshard = 0', "column"],
		["sharded_schemas", 'name = "s"', "name"],
		["omnisharded_tables", 'tables = ["t"]', "tables"],
	];
	test.each(entries)("[[%s]]", (name, more) => {
		const text = `[[${name}]]\ndatabase = "ap"\n${more}\n`;
		expect(read(text).said[0]).toBe(
			`pgdog.toml:2: ${name}[0].database = "ap": accepted is the name of an entry of [[databases]]`,
		);
		// With database URLs the file's own databases are not there.
		expect(read(text, false).said[0]).toBe(`pgdog.toml:2: ${name}[0].database: there is no database "ap"`);
		expect(read(text).sharding).toEqual(new Map());
		expect(read(`[[${name}]]\n${more}\n`).said[0]).toContain(`${name}[0].database is missing`);
	});

	test("each has its own", () => {
		const { sharding } = read(`${table('column = "a"')}[[sharded_tables]]\ndatabase = "small"\ncolumn = "b"\n`);
		expect([sharding.get("app")!.shards, sharding.get("small")!.shards]).toEqual([3, 1]);
		expect([sharding.get("app"), sharding.get("small")].map((each) => each!.tables[0]!.column)).toEqual(["a", "b"]);
	});
});

test("keys that are not served are refused by name", () => {
	expect(read(table('column = "id"\nlookup_query = "SELECT 1"\nlookup_result = "shard"')).said).toEqual([
		"pgdog.toml:4: sharded_tables[0].lookup_query: known to PgDog, not served yet",
		'pgdog.toml:5: sharded_tables[0].lookup_result = "shard": known to PgDog, not served yet: accepted is "value"',
	]);
	expect(read(table('column = "id"\ncolum = "id"')).said).toEqual([
		'pgdog.toml:4: sharded_tables[0].colum is not a known key: did you mean "column"?',
	]);
	expect(app(table('column = "id"\nlookup_result = "value"')).tables).toHaveLength(1);
});

describe("a mapping", () => {
	test("has lists, ranges and a rule for all other values", () => {
		const text = [
			table('column = "id"'),
			rule("values = [1, -2]\nshard = 0"),
			rule("start = 10\nend = 20\nshard = 1"),
			rule("start = 20\nshard = 2"),
			rule("end = -5\nshard = 1"),
			rule("shard = 2"),
		].join("");
		expect(app(text).tables[0]!.by).toEqual({
			kind: "mapping",
			lists: [{ values: ["1", "-2"], shard: 0 }],
			ranges: [
				{ start: "10", end: "20", shard: 1 },
				{ start: "20", end: null, shard: 2 },
				{ start: null, end: "-5", shard: 1 },
			],
			others: 2,
		});
	});

	test("has values of the column's type", () => {
		const uuids = app(
			table('column = "id"\ndata_type = "uuid"') + rule('values = ["550E8400-E29B-41D4-A716-446655440000"]\nshard = 0'),
		);
		expect(uuids.tables[0]!.by).toMatchObject({ lists: [{ values: ["550e8400e29b41d4a716446655440000"] }] });
		const texts = app(table('column = "id"\ndata_type = "varchar"') + rule('values = ["É", ""]\nshard = 0'));
		expect(texts.tables[0]!.by).toMatchObject({ lists: [{ values: ["É", ""] }] });
	});

	test("that is empty is none, as in PgDog", () => {
		expect(app(table('column = "id"\nmapping = []')).tables[0]!.by).toEqual(BY_HASH);
	});

	test("may stand in a line", () => {
		expect(app(table('column = "id"\nmapping = [{ values = [1], shard = 1 }]')).tables[0]!.by).toMatchObject({
			lists: [{ values: ["1"], shard: 1 }],
		});
	});

	/** Three lines of `[[sharded_tables]]` come before. */
	const says = (rules: string, type = "bigint") => {
		const { said } = read(table(`column = "id"\ndata_type = "${type}"`) + rules);
		return said.map((each) => each.replace("pgdog.toml:", "").replaceAll("sharded_tables[0].mapping", ""));
	};

	test.each<[string, string, string]>([
		[
			"a shard that is not there",
			rule("values = [1]\nshard = 3"),
			"7: [0].shard = 3: accepted is an integer from 0 to 2: shard=3 exceeds the configured shard count (3)",
		],
		[
			"a shard that is not there for all others",
			rule("shard = 9"),
			"6: [0].shard = 9: accepted is an integer from 0 to 2: shard=9 exceeds the configured shard count (3)",
		],
		["no shard", rule("values = [1]"), "5: [0].shard is missing: accepted is an integer from 0 to 65535"],
		[
			"a range that is turned round",
			rule("start = 9\nend = 5\nshard = 1"),
			"6: [0].start = 9: accepted is at most its end: shard=1 range is invalid: start (9) must not be greater than end (5)",
		],
		[
			"values in a range",
			rule("values = [1]\nstart = 1\nshard = 1"),
			"7: [0].start = 1: accepted is no start in a rule with values",
		],
		[
			"ranges that overlap",
			rule("start = 0\nend = 10\nshard = 0") + rule("start = 9\nend = 12\nshard = 1"),
			"9: [1] = [9, 12) -> shard=1: accepted is a range apart from that of [0]: shard ranges overlap: [0, 10) -> shard=0 and [9, 12) -> shard=1",
		],
		[
			"ranges without ends that overlap",
			rule("start = 0\nshard = 0") + rule("end = 1\nshard = 1"),
			"8: [1] = [-inf, 1) -> shard=1: accepted is a range apart from that of [0]: shard ranges overlap: [0, +inf) -> shard=0 and [-inf, 1) -> shard=1",
		],
		[
			"a text for a bigint",
			rule('values = ["1"]\nshard = 0'),
			"6: [0].values = \"1\": accepted is an integer: value '1' is not a valid bigint value",
		],
		["an unknown key", rule("value = [1]\nshard = 0"), '6: [0].value is not a known key: did you mean "values"?'],
		[
			"a fraction",
			rule("values = [1.5]\nshard = 0"),
			"6: [0].values = a list: accepted is a list of integers or of strings",
		],
	])("is refused with %s", (_, rules, expected) => {
		expect(says(rules)).toEqual([expected]);
	});

	test.each<[string, string, string]>([
		[
			"uuid",
			'values = ["x"]',
			"6: [0].values = \"x\": accepted is a uuid as a string: value 'x' is not a valid uuid value",
		],
		["uuid", "start = 5", "6: [0].start = 5: accepted is a uuid as a string: value 5 is not a valid uuid value"],
		["varchar", "end = 5", "6: [0].end = 5: accepted is a string: value 5 is not a valid varchar value"],
	])("has no values of another type than %s: %s", (type, values, expected) => {
		expect(says(rule(`${values}\nshard = 0`), type)).toEqual([expected]);
	});

	test("may have ranges that meet, in any order, and an empty one anywhere", () => {
		const rules = ["20 30", "0 10", "10 20", "15 15"].map((each, shard) => {
			const [start, end] = each.split(" ");
			return rule(`start = ${start}\nend = ${end}\nshard = ${shard % 3}`);
		});
		expect(says(rules.join(""))).toEqual([]);
	});

	test("finds a range within another, behind one that ends earlier", () => {
		const rules = ["0 100", "10 20", "50 60"].map((each) => {
			const [start, end] = each.split(" ");
			return rule(`start = ${start}\nend = ${end}\nshard = 0`);
		});
		expect(says(rules.join("")).map((each) => /^\d+: (\S+)/.exec(each)![1])).toEqual(["[1]", "[2]"]);
	});

	test("warns of what counts no more", () => {
		expect(says(rule("values = [1, 2]\nshard = 0") + rule("values = [2]\nshard = 1"))).toEqual([
			'8: [1] has "2", which stood before with shard 0: this last one counts',
		]);
		expect(says(rule("shard = 0") + rule("shard = 1"))).toEqual([
			"7: [1] is another rule for all other values: this last one counts",
		]);
		expect(says(rule("values = [1, 1]\nshard = 0") + rule("shard = 1") + rule("shard = 1"))).toEqual([]);
	});
});

describe("[[sharded_mappings]]", () => {
	const DEPRECATED = "[[sharded_mappings]] is deprecated: write [[sharded_tables.mapping]]";
	const said = (toml: string) => read(toml).said.map((each) => each.replace(/^pgdog.toml(:\d+)?: /, ""));

	test("is a mapping of the entry that it is for", () => {
		const text = [
			table('column = "id"'),
			table('name = "t"\ncolumn = "id"'),
			deprecated('table = "T"\ncolumn = "id"\nkind = "list"\nvalues = [1]\nshard = 1'),
			deprecated('table = "t"\ncolumn = "id"\nkind = "range"\nstart = 5\nshard = 2'),
			deprecated('column = "id"\nkind = "default"\nshard = 0'),
		].join("");
		expect(said(text)).toEqual([DEPRECATED]);
		expect(
			read(text)
				.sharding.get("app")!
				.tables.map(({ by }) => by),
		).toEqual([
			{ kind: "mapping", lists: [], ranges: [], others: 0 },
			{
				kind: "mapping",
				lists: [{ values: ["1"], shard: 1 }],
				ranges: [{ start: "5", end: null, shard: 2 }],
				others: null,
			},
		]);
	});

	const NO_TABLE =
		'sharded_mappings[0].column = "id": accepted is that of an entry of [[sharded_tables]] with the same database, table and schema';
	test.each<[string, string, string]>([
		["for a table that no entry names", 'table = "t"\ncolumn = "id"\nkind = "default"\nshard = 0', NO_TABLE],
		["for another schema", 'schema = "s"\ncolumn = "id"\nkind = "default"\nshard = 0', NO_TABLE],
		[
			"of a range without bounds",
			'column = "id"\nkind = "range"\nshard = 1',
			'sharded_mappings[0].kind = "range": accepted is "range" with bounds: shard=1 range must define a start, an end, or both',
		],
		[
			"of a list without values",
			'column = "id"\nkind = "list"\nshard = 1',
			'sharded_mappings[0].kind = "list": accepted is "list" with values',
		],
		[
			"of a range with values",
			'column = "id"\nkind = "range"\nvalues = [1]\nshard = 1',
			'sharded_mappings[0].values = a list: accepted is no values in a rule of kind "range"',
		],
		[
			"for all others with a bound",
			'column = "id"\nkind = "default"\nend = 1\nshard = 1',
			"sharded_mappings[0].end = 1: accepted is no end, which is for a range, in a rule for all other values",
		],
		[
			"without a kind",
			'column = "id"\nshard = 1',
			'sharded_mappings[0].kind is missing: accepted is "list", "range", "default"',
		],
	])("is refused %s", (_, more, expected) => {
		expect(said(table('column = "id"') + deprecated(more))).toEqual([expected, DEPRECATED]);
	});

	test("is refused beside the other form", () => {
		const text = table('column = "id"') + rule("shard = 0") + deprecated('column = "id"\nkind = "default"\nshard = 0');
		expect(said(text)).toEqual([
			"sharded_tables[0].mapping = a list: accepted is only one of it and sharded_mappings[0]",
			DEPRECATED,
		]);
	});
});

describe("vectors have centroids", () => {
	const vectors = (more: string) => table(`column = "e"\ndata_type = "vector"\n${more}`);
	const path = join(folder, "centroids.json");
	const from = (content: string) => {
		writeFileSync(path, content);
		return vectors(`centroids_path = "${path}"`);
	};

	test.each([
		["centroids = [[1, 2.5], [3, 4], [0, 0]]\ncentroid_probes = 1", 1],
		["centroids = [[1, 2.5], [3, 4], [0, 0]]\ncentroid_probes = 0", 2],
		["centroids = [[1, 2.5], [3, 4], [0, 0]]", 2],
	])("in the file itself: %s", (more, probes) => {
		const centroids = [
			[1, 2.5],
			[3, 4],
			[0, 0],
		];
		expect(app(vectors(more)).tables[0]!.by).toEqual({ kind: "centroids", centroids, probes });
	});

	test("or in one that it names, which wins", () => {
		expect(app(from("[[1,2],[3,4]]")).tables[0]!.by).toMatchObject({
			centroids: [
				[1, 2],
				[3, 4],
			],
		});
		const { said, sharding } = read(`${from("[[7]]")}centroids = [[1]]\n`);
		expect(said).toEqual(["pgdog.toml:6: sharded_tables[0].centroids has no effect: centroids_path wins over it"]);
		expect(sharding.get("app")!.tables[0]!.by).toMatchObject({ centroids: [[7]] });
	});

	const NONE = `sharded_tables[0].centroids is missing: accepted is one or more of them, or centroids_path, with data_type = "vector"`;
	test.each<[string, string]>([
		["", NONE],
		["centroids = []", NONE],
		["centroids = [[]]", "sharded_tables[0].centroids = a list: accepted is a list of lists of numbers"],
		["centroids = [[inf]]", "sharded_tables[0].centroids = a list: accepted is a list of lists of numbers"],
		["centroids = [[1e39]]", "sharded_tables[0].centroids = a list: accepted is a list of lists of numbers"],
		[
			"centroids = [[1, 2], [3]]",
			"sharded_tables[0].centroids = number 1 of 1 dimensions: accepted is centroids of as many as the first has, 2",
		],
		[
			"centroids = [[1]]\nmapping = [{ shard = 0 }]",
			'sharded_tables[0].data_type = "vector": accepted is another type: vectors have centroids, and no mapping as sharded_tables[0].mapping[0]',
		],
	])("are refused with %j", (more, expected) => {
		expect(read(vectors(more)).said.map((each) => each.replace(/^pgdog.toml:\d+: /, ""))).toContain(expected);
	});

	test.each([
		["", "it holds something else"],
		["{}", "it holds something else"],
		['[["1"]]', "it holds something else"],
		["[[1],", "it holds something else"],
	])("are refused with a file that holds %j", (content, why) => {
		expect(read(from(content)).said).toEqual([
			`pgdog.toml:5: sharded_tables[0].centroids_path = ${JSON.stringify(path)}: accepted is a file with a list of lists of numbers in JSON (${why})`,
		]);
	});

	test("are refused with a file that is not there", () => {
		expect(read(vectors(`centroids_path = "${folder}/none"`)).said[0]).toContain("(there is no such file)");
	});

	test.each(["centroids = [[1]]", 'centroids_path = "x"'])("are no other type's: %s", (more) => {
		expect(read(table(`column = "id"\n${more}`)).said[0]).toContain('accepted is that only with data_type = "vector"');
	});
});

describe("[[sharded_schemas]]", () => {
	const schema = (more: string) => `[[sharded_schemas]]\ndatabase = "app"\n${more}\n`;

	test("have a shard, or all; the entry without a name is for the others", () => {
		const text = schema('name = "Eu"\nshard = 1') + schema('name = "us"\nall = true\nshard = 99') + schema("");
		expect(app(text).schemas).toEqual([
			{ name: "Eu", shard: 1 },
			{ name: "us", shard: null },
			{ name: null, shard: 0 },
		]);
	});

	test.each<[string, string]>([
		[schema('name = "a"\nshard = 3'), "an integer from 0 to 2: shard=3 exceeds the configured shard count (3)"],
		[schema('name = "a"') + schema('name = "a"'), "another schema than that of sharded_schemas[0]"],
		[schema("") + schema("shard = 1"), "sharded_schemas[1].name is missing: accepted is another schema"],
		[`[[sharded_schemas]]\ndatabase = "small"\nshard = 1\n`, "0: shard=1 exceeds the configured shard count (1)"],
	])("are refused: %j", (text, expected) => {
		expect(read(text).said[0]).toContain(expected);
	});
});

describe("[[omnisharded_tables]]", () => {
	const listed = (more: string) => `[[omnisharded_tables]]\ndatabase = "app"\n${more}\n`;

	test("list tables, of any schema or of one", () => {
		expect(app(listed('tables = ["countries", "s.Rates"]\nsticky = true') + listed("tables = []")).omnisharded).toEqual(
			[
				{ schema: null, table: "countries" },
				{ schema: "s", table: "Rates" },
			],
		);
	});

	test("are not those that an entry says are sharded", () => {
		const text = table('name = "t"\ncolumn = "id"') + listed('tables = ["s.t"]');
		expect(read(text).said).toEqual([
			'pgdog.toml:3: sharded_tables[0].name = "t": accepted is a table that is not omnisharded, as omnisharded_tables[0] says of it',
		]);
		expect(app(table('column = "id"') + listed('tables = ["t"]')).tables).toHaveLength(1);
	});

	test("have to be listed", () => {
		expect(read(listed("")).said).toEqual([
			"pgdog.toml:1: omnisharded_tables[0].tables is missing: accepted is a list of tables",
		]);
	});
});

describe("a reload would lose", () => {
	const of = (sharding: Record<string, Sharding>, ...names: string[]) =>
		({
			databases: names.map((name) => ({ name })),
			users: [],
			hba: [],
			files: [],
			sharding: new Map(Object.entries(sharding)),
		}) as unknown as Snapshot;
	const sharded: Sharding = { shards: 3, tables: app(table('column = "id"')).tables, schemas: [], omnisharded: [] };
	const before = of({ app: sharded }, "app");

	test("the sharded tables of a database that stays", () => {
		const lost = ['no [[sharded_tables]] would be left of database "app": its rows would go to all shards'];
		expect(losses(before, of({}, "app"))).toEqual(lost);
		expect(losses(before, of({ app: { ...sharded, tables: [] } }, "app"))).toEqual(lost);
		expect(losses(before, of({}, "other"))).toEqual([]);
	});

	test("the rows that are there, when there are more shards or fewer for a hash", () => {
		const more = { ...sharded, shards: 4 };
		expect(losses(before, of({ app: more }, "app"))).toEqual([
			'database "app" would have 4 shards in place of 3: rows that are there would be looked for on others',
		]);
		const { by } = app(table('column = "id"') + rule("shard = 0")).tables[0]!;
		const mapped = { ...sharded, tables: [{ ...sharded.tables[0]!, by }] };
		expect(losses(of({ app: mapped }, "app"), of({ app: { ...mapped, shards: 4 } }, "app"))).toEqual([]);
	});

	test("nothing else", () => {
		expect(losses(before, of({ app: { ...sharded, omnisharded: [{ schema: null, table: "t" }] } }, "app"))).toEqual([]);
	});
});
