// How tables are spread over shards: `[[sharded_tables]]` with its mappings, `[[sharded_schemas]]` and `[[omnisharded_tables]]`, part
// of the one table (settings.ts). What entries mean together placements.ts says.

import { choice, flag, identifier, integer, keyValue, keyValues, list, tables, text, vectors } from "./setting.ts";

const database = text({ required: true, default: "", text: "The database, by its name in `[[databases]]`." });
/** More shards than that there are not. */
const shard = { max: 65535 };

export const shardedTable = {
	database,
	name: identifier({
		default: undefined,
		text: "The table. Without it: each table that has the column, but for those that another entry names and those that are listed in `[[omnisharded_tables]]`.",
	}),
	schema: identifier({ default: undefined, text: "The table's schema. Default: any." }),
	column: identifier({
		default: undefined,
		text: "The column by whose value a row is placed: one for each table. Without it the table is omnisharded.",
	}),
	primary: flag({
		default: false,
		text: "PgDog's mark of the table to which others' foreign keys lead; it changes nothing here.",
	}),
	data_type: choice(["bigint", "uuid", "varchar", "vector"], {
		default: "bigint",
		text: "The column's type. `bigint`: smallint and integer too. `varchar`: text too, of a deterministic collation, in a database whose encoding is UTF8; not `char(n)`. `vector`: pgvector's.",
	}),
	hasher: choice(["postgres", "sha1"], {
		default: "postgres",
		text: "The hash by which values are placed where there is no mapping: that of PostgreSQL's `PARTITION BY HASH`, or PgDog's SHA-1.",
	}),
	mapping: tables({
		text: "Values with their shards, instead of a hash: `[[sharded_tables.mapping]]`.",
	}),
	centroids: vectors({
		text: 'With `data_type = "vector"`: a vector is on the shard of the centroid that is nearest to it by Euclidean distance, which is its number in this list modulo the number of shards.',
	}),
	centroids_path: text({
		default: undefined,
		text: "A file with the centroids, as a list of lists of numbers in JSON; read again at each reload. It wins over `centroids`.",
	}),
	centroid_probes: integer({
		default: 0,
		text: "On the shards of how many of the nearest centroids a vector is looked for. 0: of as many as the square root of their number.",
	}),
};

export const mappingRule = {
	values: keyValues({
		text: "The values that are on this shard. Of a value that is listed twice the last entry counts.",
	}),
	start: keyValue({
		text: "Values from this one on are on this shard: numbers by their order, texts and uuids by their bytes. Default: from the least on.",
	}),
	end: keyValue({ text: "Values below this one. Default: up to the largest." }),
	shard: integer({
		...shard,
		required: true,
		default: 0,
		text: "The shard. Without `values`, `start` and `end`: that of all other values. Without such an entry these may be anywhere: they are looked for on all shards, and cannot be inserted.",
	}),
};

export const shardedMapping = {
	database,
	table: identifier({ default: undefined, text: "The `name` of the entry of `[[sharded_tables]]`." }),
	schema: identifier({ default: undefined, text: "Its `schema`, if it has one." }),
	column: identifier({ required: true, default: "", text: "Its `column`." }),
	kind: choice(["list", "range", "default"], {
		required: true,
		default: "list",
		text: "What the rule is: of `values`, of what is from `start` up to `end`, or of all other values.",
	}),
	...mappingRule,
};

export const shardedSchema = {
	database,
	name: text({
		default: undefined,
		text: "The schema, as PostgreSQL stores its name. Without it: all schemas that no other entry names.",
	}),
	shard: integer({ ...shard, default: 0, text: "The shard that has its tables." }),
	all: flag({ default: false, text: "All shards have them, instead." }),
};

export const omnishardedTables = {
	database,
	tables: list({
		default: undefined,
		text: "The tables, as PostgreSQL stores their names, each of any schema unless it is written `schema.table`.",
	}),
	sticky: flag({
		default: false,
		text: "PgDog has a client read them from the same shard each time; here each does.",
	}),
};
