// What the analysis of keys has to know of a cluster's tables; router/placing.ts is it. Names are as PostgreSQL stores them, and a null
// schema is one that the statement does not say.

/** A shard from 0, or one of these. */
export const enum At {
	/** Perhaps on several shards. */
	All = -1,
	/** Nowhere: any one shard will do. */
	None = -2,
	/** Of a new row: its key is NULL. */
	Null = -3,
	/** Of a new row: its key is no value that is certain, or that any shard is for. */
	Unplaced = -4,
	/** New rows of several shards, or one of a shard and rows of another that are looked at. */
	Apart = -5,
	/** A row would change its key to one of another shard. */
	Changed = -6,
	/** It depends on parameters, which are not known. */
	Open = -7,
}
/** A column that says where rows are. */
export interface KeyColumn {
	/** Of the tables that it is in, as configured; null: any. */
	readonly schema: string | null;
	/** The table that it is in, as configured; null: any that has it. */
	readonly table: string | null;
	readonly column: string;
	readonly dataType: "bigint" | "uuid" | "varchar" | "vector";
	/** Where rows with this value are; `At.All`: perhaps on several shards; null: it is no value of the type, as far as is certain. */
	shardOfText(text: string): number | null;
	shardOfBinary(bytes: Uint8Array, start: number, end: number): number | null;
	/** Where a new row with this value goes. */
	homeOfText(text: string): number | null;
	homeOfBinary(bytes: Uint8Array, start: number, end: number): number | null;
}

export interface Tables {
	/** There are schemas whose tables are on one shard. */
	readonly bySchema: boolean;
	/** Who gives a row another key answers for where the row is. */
	readonly mayChangeKeys: boolean;
	/** The columns by which the table is sharded; none: its rows are on all shards. */
	columnsOf(schema: string | null, table: string): readonly KeyColumn[];
	/** The shard of all tables of a schema; `At.All`: all; null: that does not depend on the schema. */
	shardOfSchema(schema: string): number | null;
	/** A table that is named without its schema may be in one whose tables are on one shard: `search_path` says which it is. */
	mayBeAnywhere(table: string): boolean;
	/** Equal values of the two columns are on one shard. */
	isAlike(a: KeyColumn, b: KeyColumn): boolean;
}

/** A table is sharded by one column in one schema, and by another in another: which it is cannot be told. */
export function isAmbiguous(keys: readonly KeyColumn[], schema: string | null): boolean {
	return schema === null && keys.some((key) => key.schema !== keys[0]!.schema);
}

/** Whether a table's rows are on some shards only, for all that is known. */
export function isSharded(tables: Tables, schema: string | null, table: string): boolean {
	if (schema === null && tables.mayBeAnywhere(table)) return true;
	if (tables.bySchema && schema !== null) {
		const shard = tables.shardOfSchema(schema);
		if (shard !== null) return shard !== At.All;
	}
	return tables.columnsOf(schema, table).length > 0;
}
