// Which tables of a database are sharded, and by what: `[[sharded_tables]]`, `[[sharded_schemas]]` and `[[omnisharded_tables]]`, to
// be asked of names in a statement. The router has it, one for each database. Knows names and columns, no statement.

import type { ShardedTable, Sharding, TableName } from "../config/sharding.ts";
import { PgError } from "../errors.ts";
import type { KeyColumn, Tables } from "../parser/tables.ts";
import { columnOf, type ShardedColumn } from "./columns.ts";
import { ShardChoice } from "./route.ts";
import { shardOfKey } from "./sharding.ts";

export type { ShardedColumn } from "./columns.ts";

const NONE: readonly ShardedColumn[] = [];

/**
 * What a database's configuration says of sharding. Names are as PostgreSQL stores them; a null schema is one that the statement
 * does not say, which fits each entry. Immutable.
 */
export class Placing implements Tables {
	readonly shards: number;
	/** There are `[[sharded_schemas]]`. */
	readonly bySchema: boolean;
	readonly mayChangeKeys: boolean;
	/** The shard of schemas that no entry names: `ShardChoice.All` for all; null: there is no such entry. */
	readonly otherSchemas: number | null;
	/** The entry that a column is of. */
	readonly #entries: ReadonlyMap<KeyColumn, ShardedTable>;
	/** Of entries that name a table, by its name; and of the others, by the column's. */
	readonly #byTable: ReadonlyMap<string, readonly ShardedColumn[]>;
	readonly #byColumn: ReadonlyMap<string, readonly ShardedColumn[]>;
	readonly #anyTable: readonly ShardedColumn[];
	readonly #omnisharded: ReadonlyMap<string, readonly TableName[]>;
	readonly #schemas: ReadonlyMap<string, number>;
	/** The only function by which the database's columns are sharded; null: there are several. */
	readonly #only: ShardedColumn | null;

	constructor({ shards, tables, schemas, omnisharded, mayChangeKeys }: Sharding) {
		this.mayChangeKeys = mayChangeKeys ?? false;
		const columns = tables.map((table) => columnOf(table, shards));
		this.#entries = new Map(columns.map((column, i) => [column, tables[i]!]));
		this.shards = shards;
		this.#byTable = Map.groupBy(
			columns.filter(({ table }) => table !== null),
			({ table }) => table!,
		);
		this.#anyTable = columns.filter(({ table }) => table === null);
		this.#byColumn = Map.groupBy(this.#anyTable, ({ column }) => column);
		this.#omnisharded = Map.groupBy(omnisharded, ({ table }) => table);
		this.bySchema = schemas.length > 0;
		const shardsOf = schemas.map(({ name, shard }) => [name, shard ?? ShardChoice.All] as const);
		this.#schemas = new Map(shardsOf.filter((each): each is [string, number] => each[0] !== null));
		this.otherSchemas = shardsOf.find(([name]) => name === null)?.[1] ?? null;
		const [first, ...others] = tables;
		const isOne = others.every((each) => Bun.deepEquals([each.dataType, each.by], [first!.dataType, first!.by]));
		this.#only = isOne ? (columns[0] ?? null) : null;
	}

	/**
	 * The column of this name, if the table is sharded by it. Entries that name the table say by which it is, and those by column
	 * alone say it of all other tables, but for those that are listed as omnisharded.
	 */
	columnOf(schema: string | null, table: string, column: string): ShardedColumn | null {
		const named = this.#byTable.get(table)?.filter((each) => fits(each, schema)) ?? NONE;
		if (named.length > 0) return named.find((each) => each.column === column) ?? null;
		const found = this.#byColumn.get(column)?.find((each) => fits(each, schema)) ?? null;
		return found !== null && this.isOmnisharded(schema, table) ? null : found;
	}

	/**
	 * The columns by which the table is sharded: of a table that an entry names its own; of others all that are listed by column alone,
	 * of which the table may have any. Where a row has several of them they have to agree, or it would be found by one and missed
	 * by another.
	 */
	columnsOf(schema: string | null, table: string): readonly ShardedColumn[] {
		if (schema === null && this.mayBeAnywhere(table)) return NONE;
		const named = this.#byTable.get(table)?.filter((each) => fits(each, schema)) ?? NONE;
		if (named.length > 0) return named;
		return this.isOmnisharded(schema, table) ? NONE : this.#anyTable.filter((each) => fits(each, schema));
	}

	/** A table that is named without its schema may be in one whose tables are on one shard: `search_path` says which it is. */
	mayBeAnywhere(table: string): boolean {
		return this.bySchema && !this.isOmnisharded(null, table);
	}

	/** Equal values of the two columns are on one shard. */
	isAlike(a: KeyColumn, b: KeyColumn): boolean {
		const one = this.#entries.get(a);
		const other = this.#entries.get(b);
		if (one === undefined || other === undefined || one.by.kind === "centroids") return false;
		return one === other || Bun.deepEquals([one.dataType, one.by], [other.dataType, other.by]);
	}

	/** Listed in `[[omnisharded_tables]]`: its rows are on all shards. */
	isOmnisharded(schema: string | null, table: string): boolean {
		return this.#omnisharded.get(table)?.some((each) => fits(each, schema)) ?? false;
	}

	/** The shard of a schema that an entry names, `ShardChoice.All` for `all = true`; null: none names it. See `otherSchemas`. */
	shardOfNamedSchema(schema: string): number | null {
		return this.#schemas.get(schema) ?? null;
	}

	/** As `shardOfNamedSchema`, or else what is said of other schemas. */
	shardOfSchema(schema: string): number | null {
		return this.#schemas.get(schema) ?? this.otherSchemas;
	}

	/**
	 * The shard of a bare key, one that a comment, SET or a startup option names: a schema's name where schemas are sharded, else
	 * a value for the only sharding function. `ShardChoice.All`: no mapping names it.
	 */
	shardOfKey(key: string): number | PgError {
		const shard = this.bySchema ? this.shardOfSchema(key) : null;
		if (shard !== null) return shard;
		if (this.#byTable.size + this.#anyTable.length === 0)
			return this.bySchema ? notValid(key, "a schema of [[sharded_schemas]]") : shardOfKey(key, this.shards);
		if (this.#only === null) return SEVERAL;
		return this.#only.shardOfText(key) ?? notValid(key, `a ${this.#only.dataType}`);
	}
}

function fits(entry: { readonly schema: string | null }, schema: string | null): boolean {
	return entry.schema === null || schema === null || entry.schema === schema;
}

/** PgDog's words. */
const SEVERAL = new PgError(
	"ERROR",
	"42601",
	"config has more than one sharding function",
	"A sharding key without a column has to have one meaning, and [[sharded_tables]] has several types or mappings.",
	"Name the shard (pgdog_shard).",
);

function notValid(key: string, wanted: string): PgError {
	const detail = `${JSON.stringify(key.length > 100 ? `${key.slice(0, 100)}…` : key)} is not ${wanted}.`;
	return new PgError("ERROR", "42601", "sharding key value isn't valid", detail);
}
