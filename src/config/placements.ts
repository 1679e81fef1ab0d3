// From `[[sharded_tables]]` and its like to what each database's router needs of them. Called by load.ts, once the databases are
// known. What would place rows wrongly is refused, also where PgDog would go on.

import { readFileSync } from "node:fs";
import { isTable, readTable } from "./check.ts";
import { entriesOf, type File } from "./file.ts";
import { joinKey } from "./locate.ts";
import { checkShard, type MappedColumn, type Rule, readMapping } from "./mapping.ts";
import { type Findings, show, unreadableText } from "./problem.ts";
import { areVectors, type Settings, type Values, type Vector } from "./setting.ts";
import * as settings from "./sharded.ts";
import type { ShardedSchema, ShardedTable, ShardFunction, Sharding, TableName } from "./sharding.ts";
import { NOTHING_UNSERVED, unservedShardedTable } from "./unserved.ts";

/** An entry as it stands in the file, with its place there. */
interface Row<S extends Settings> {
	readonly at: string;
	readonly values: Partial<Values<S>>;
}

type TableRow = Row<typeof settings.shardedTable>;
type MappingRow = Row<typeof settings.shardedMapping>;

/** What names a table, as far as it does. */
type Named = Pick<ShardedTable, "schema" | "table"> & { readonly at: string };

/**
 * By the database's name.
 * @param shardsOf how many a database has; 0: there is none of this name
 * @param only the file says which databases there are: an entry for another is a mistake
 */
export function readSharding(
	config: File,
	shardsOf: (database: string) => number,
	only: boolean,
	report: Findings,
): ReadonlyMap<string, Sharding> {
	const { source } = config;
	const read = <S extends Settings>(table: S, name: string, later = NOTHING_UNSERVED) =>
		Map.groupBy(entriesOf(table, later, config, name, report), ({ at, values }) => {
			const database = (values as { database?: string }).database ?? "";
			if (database === "" || shardsOf(database) > 0) return database;
			const key = joinKey(at, "database");
			if (only) report.problem(source, key, "value", show(database), "the name of an entry of [[databases]]");
			else report.warn(source, key, `${key}: there is no database ${show(database)}`);
			return "";
		});
	const tables = read(settings.shardedTable, "sharded_tables", unservedShardedTable);
	const mappings = read(settings.shardedMapping, "sharded_mappings");
	const schemas = read(settings.shardedSchema, "sharded_schemas");
	const omnisharded = read(settings.omnishardedTables, "omnisharded_tables");
	if (mappings.size > 0)
		report.warn(source, "sharded_mappings", "[[sharded_mappings]] is deprecated: write [[sharded_tables.mapping]]");
	const databases = new Set([tables, mappings, schemas, omnisharded].flatMap((rows) => [...rows.keys()]));
	databases.delete("");
	return new Map(
		[...databases].map((database) => {
			const reading = new Reading(config, shardsOf(database), report);
			reading.omnisharded(omnisharded.get(database) ?? []);
			reading.tables(tables.get(database) ?? [], mappings.get(database) ?? []);
			reading.schemas(schemas.get(database) ?? []);
			return [database, reading.sharding()] as const;
		}),
	);
}

/** Reads what is said of one database. */
class Reading {
	readonly #config: File;
	readonly #shards: number;
	readonly #report: Findings;
	readonly #tables: (ShardedTable & { at: string })[] = [];
	readonly #schemas: ShardedSchema[] = [];
	readonly #omnisharded: (TableName & { at: string })[] = [];

	constructor(config: File, shards: number, report: Findings) {
		this.#config = config;
		this.#shards = shards;
		this.#report = report;
	}

	/** `section` says what is wrong with `[rewrite]`. */
	get #mayChangeKeys(): boolean {
		const { rewrite } = this.#config.table;
		return isTable(rewrite) && rewrite.shard_key === "ignore";
	}

	sharding(): Sharding {
		return {
			shards: this.#shards,
			tables: this.#tables.map(({ at: _, ...table }) => table),
			schemas: this.#schemas,
			omnisharded: this.#omnisharded.map(({ at: _, ...name }) => name),
			...(this.#mayChangeKeys ? { mayChangeKeys: true } : {}),
		};
	}

	omnisharded(rows: readonly Row<typeof settings.omnishardedTables>[]): void {
		for (const { at, values } of rows) {
			if (values.tables === undefined) this.#problem(at, "tables", "missing", "", "a list of tables");
			for (const each of values.tables ?? []) {
				const [, schema = null, table] = /^(?:([^.]+)\.)?(.+)$/s.exec(each)!;
				this.#omnisharded.push({ at, schema, table: table! });
			}
		}
	}

	tables(rows: readonly TableRow[], mappings: readonly MappingRow[]): void {
		const used = new Set<MappingRow>();
		for (const row of rows) {
			const { at, values } = row;
			const { name: table = null, schema = null, column } = values;
			if (column === undefined) this.#columnless(at, table, schema);
			if (column === undefined) continue;
			const deprecated = mappings.filter((mapping) => isOf(mapping, values));
			for (const mapping of deprecated) used.add(mapping);
			const dataType = values.data_type ?? "bigint";
			const by = this.#functionOf(row, dataType, deprecated);
			if (by !== null) this.#add({ at, schema, table, column, dataType, by });
		}
		for (const mapping of mappings) {
			if (used.has(mapping) || mapping.values.column === undefined) continue;
			const accepted = "that of an entry of [[sharded_tables]] with the same database, table and schema";
			this.#problem(mapping.at, "column", "value", show(mapping.values.column), accepted);
		}
	}

	schemas(rows: readonly Row<typeof settings.shardedSchema>[]): void {
		const seen = new Map<string | null, Row<typeof settings.shardedSchema>>();
		for (const row of rows) {
			const { at, values } = row;
			const { name = null, all = false, shard = 0 } = values;
			const other = seen.get(name);
			if (other !== undefined) {
				const accepted = `another schema than that of ${other.at}`;
				if (name === null) this.#problem(at, "name", "missing", "", accepted);
				else this.#problem(at, "name", "value", show(name), accepted);
			}
			seen.set(name, row);
			if (!all) checkShard(shard, at, this.#context());
			this.#schemas.push({ name, shard: all ? null : shard });
		}
	}

	#context(): Omit<MappedColumn, "dataType"> {
		return { shards: this.#shards, source: this.#config.source, report: this.#report };
	}

	#problem(at: string, key: string, wrong: "value" | "missing", found: string, accepted: string): void {
		this.#report.problem(this.#config.source, joinKey(at, key), wrong, found, accepted);
	}

	#warn(at: string, text: string): void {
		this.#report.warn(this.#config.source, at, text);
	}

	/** An entry without a column: to PgDog a table that is not sharded, and so omnisharded. */
	#columnless(at: string, table: string | null, schema: string | null): void {
		if (table === null) this.#problem(at, "column", "missing", "", "the column by which tables are sharded");
		else {
			this.#warn(at, `${at} has no column: the table is on all shards, as those of [[omnisharded_tables]]`);
			this.#omnisharded.push({ at, schema, table });
		}
	}

	/** Null: what is said contradicts itself, which has been reported. */
	#functionOf(
		{ at, values }: TableRow,
		dataType: ShardedTable["dataType"],
		deprecated: readonly MappingRow[],
	): ShardFunction | null {
		const rules = this.#rulesOf(at, values.mapping ?? []);
		if (values.mapping !== undefined && deprecated.length > 0) {
			this.#problem(at, "mapping", "value", show(values.mapping), `only one of it and ${deprecated[0]!.at}`);
			return null;
		}
		for (const {
			at: place,
			values: { shard, kind, ...rest },
		} of deprecated)
			if (shard !== undefined && kind !== undefined) rules.push({ at: place, ...rest, kind, shard });
		if (dataType === "vector") {
			const mapped = rules[0];
			if (mapped === undefined) return this.#centroidsOf(at, values);
			this.#problem(
				at,
				"data_type",
				"value",
				show(dataType),
				`another type: vectors have centroids, and no mapping as ${mapped.at}`,
			);
			return null;
		}
		for (const name of ["centroids", "centroids_path"] as const) {
			if (values[name] === undefined) continue;
			this.#problem(at, name, "value", show(values[name]), 'that only with data_type = "vector"');
		}
		if (rules.length === 0) return { kind: "hash", hasher: values.hasher ?? "postgres" };
		return readMapping(rules, { ...this.#context(), dataType });
	}

	#rulesOf(at: string, mapping: readonly Record<string, unknown>[]): Rule[] {
		const { source } = this.#config;
		return mapping.flatMap((table, index) => {
			const place = `${at}.mapping[${index}]`;
			const { shard, ...rest } = readTable(settings.mappingRule, NOTHING_UNSERVED, table, place, source, this.#report);
			return shard === undefined ? [] : [{ at: place, ...rest, shard }];
		});
	}

	#centroidsOf(at: string, values: TableRow["values"]): ShardFunction | null {
		const { centroids_path: path, centroid_probes = 0 } = values;
		const centroids = path === undefined ? values.centroids : this.#readCentroids(at, path);
		if (path !== undefined && centroids === undefined) return null;
		if (path !== undefined && values.centroids !== undefined) {
			const key = joinKey(at, "centroids");
			this.#report.warn(this.#config.source, key, `${key} has no effect: centroids_path wins over it`);
		}
		const [first] = centroids ?? [];
		if (centroids === undefined || first === undefined) {
			this.#problem(
				at,
				"centroids",
				"missing",
				"",
				'one or more of them, or centroids_path, with data_type = "vector"',
			);
			return null;
		}
		const other = centroids.findIndex(({ length }) => length !== first.length);
		if (other !== -1) {
			const name = path === undefined ? "centroids" : "centroids_path";
			const found = `number ${other} of ${centroids[other]!.length} dimensions`;
			this.#problem(at, name, "value", found, `centroids of as many as the first has, ${first.length}`);
			return null;
		}
		return { kind: "centroids", centroids, probes: centroid_probes || Math.ceil(Math.sqrt(centroids.length)) };
	}

	/** Undefined: they cannot be read, which has been reported. */
	#readCentroids(at: string, path: string): readonly Vector[] | undefined {
		let why = "it holds something else";
		try {
			const value: unknown = JSON.parse(readFileSync(path, "utf8"));
			if (areVectors(value)) return value;
		} catch (error) {
			if (!(error instanceof SyntaxError)) why = unreadableText((error as NodeJS.ErrnoException).code);
		}
		this.#problem(at, "centroids_path", "value", show(path), `a file with a list of lists of numbers in JSON (${why})`);
		return undefined;
	}

	/** Adds an entry, unless there is the same; one that contradicts another is reported. */
	#add(table: ShardedTable & { at: string }): void {
		const { at } = table;
		const listed = table.table === null ? undefined : this.#omnisharded.find((each) => meet(each, table));
		if (listed !== undefined)
			this.#problem(
				at,
				"name",
				"value",
				show(table.table),
				`a table that is not omnisharded, as ${listed.at} says of it`,
			);
		const other = this.#tables.find(
			(each) => meet(each, table) && (table.table !== null || each.column === table.column),
		);
		if (other === undefined) {
			this.#tables.push(table);
			return;
		}
		const isSame = Bun.deepEquals({ ...other, at, schema: table.schema }, table);
		if (isSame) this.#warn(at, `${at} says what ${other.at} has said`);
		else
			this.#problem(
				at,
				"column",
				"value",
				show(table.column),
				`as ${other.at} has it: a table is sharded by one column, in one way`,
			);
		if (isSame && other.schema !== null) this.#tables.push(table);
	}
}

/** Whether there may be a table that both mean. */
function meet(a: Omit<Named, "at">, b: Omit<Named, "at">): boolean {
	return a.table === b.table && (a.schema === null || b.schema === null || a.schema === b.schema);
}

/** Whether a rule of `[[sharded_mappings]]` is for the column. */
function isOf({ values: mapping }: MappingRow, { name, schema, column }: TableRow["values"]): boolean {
	return (
		mapping.column === column && mapping.table === name && (mapping.schema === undefined || mapping.schema === schema)
	);
}
