// What a client is told of a statement that would put rows on shards where nobody looks for them, or change what is on some shards
// only. router.ts asks when neither a key, a hint nor a plugin has named one shard.

import { PgError } from "../errors.ts";
import type { Aim } from "../parser/aim.ts";
import { At } from "../parser/tables.ts";

const NAME_ONE = "name one shard (pgdog_shard, pgdog_sharding_key, a plugin)";

/** @param at what `evaluate` has found @returns null: it may go to all shards */
export function misplaced(aim: Aim, at: number): PgError | null {
	if (aim.refusal !== null)
		return refuse(`${aim.refusal.part} is not supported across shards`, null, aim.refusal.hint.replace(/\.$/, ""));
	if (at === At.All && aim.uncertain !== null)
		return refuse(
			`whether the table "${aim.uncertain}" is sharded is not known`,
			"There are [[sharded_tables]] without a name, and it may have their column or not.",
			"Name it in [[sharded_tables]] or in [[omnisharded_tables]]",
		);
	if (!aim.placesRows) return null;
	switch (at) {
		case At.Unplaced:
			return refuse(
				"the shard of a new row is not known",
				"Its sharding key has to be a constant or a parameter of the column's type, and a value that is mapped to a shard.",
				"Write the value itself",
			);
		// On all shards it would be there several times, and so would rows beside it.
		case At.Null:
			return refuse("a new row without a sharding key is not supported", "NULL has no shard.", "Give the key a value");
		case At.Apart:
			return refuse(
				"a statement that inserts rows on several shards is not supported",
				'Its rows are not split, as with [rewrite] split_inserts = "error".',
				"Insert the rows of each shard by a statement of its own",
			);
		case At.Changed:
			return refuse(
				"sharding key updates are forbidden",
				"A row whose key changes may belong to another shard.",
				"Delete the row and insert it anew",
			);
		default:
			return null;
	}
}

/** A hint sends what is to be on all shards to one. PgDog's words. */
export const ONE_COPY = new PgError(
	"ERROR",
	"58000",
	"cannot write to an omnisharded table with a shard directive",
	"Its rows are the same on all shards.",
);

/** `cross_shard_disabled`: PgDog's words. @param text of the statement, for people */
export function crossShard(text: string): PgError {
	const detail = `query doesn't have a sharding key: ${text}`;
	return new PgError("ERROR", "58000", "cross-shard queries are disabled", detail, "Give it one, or name the shard.");
}

/** As `crossShard`, where a hint has named a key that no mapping names. */
export function unmapped(key: string): PgError {
	return new PgError("ERROR", "58000", "unmapped sharding key was specified", `sharding key '${key}' is not mapped`);
}

function refuse(message: string, detail: string | null, hint: string): PgError {
	return new PgError("ERROR", "0A000", message, detail ?? undefined, `${hint}, or ${NAME_ONE}.`);
}
