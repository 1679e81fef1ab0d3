// The names of what is committed in two phases. A transaction has one, which no other has; what a shard has prepared of it has that
// and the shard's number behind it, since several shards may be databases of one server, where a name is there once.

import { randomBytes } from "node:crypto";

/** What one shard has prepared, as its name says. */
export interface PreparedName {
	/** Of the transaction. */
	readonly transaction: string;
	/** The number of the shard that has the decision on it: the first that it was open on. */
	readonly home: number;
	readonly shard: number;
}

/** As in `pg_prepared_xacts`, for LIKE. */
export const OURS = "\\_\\_pgdog\\_2pc\\_%";
const NAME = /^(__pgdog_2pc_[0-9a-f]+_[0-9a-f]{16}_(\d+))_(\d+)$/;

/** A name for this process, other than any other's. */
export function instanceName(): string {
	return randomBytes(4).toString("hex");
}

/** @param instance the process @param home see `PreparedName` */
export function transactionName(instance: string, home: number): string {
	return `__pgdog_2pc_${instance}_${randomBytes(8).toString("hex")}_${home}`;
}

export function preparedName(transaction: string, shard: number): string {
	return `${transaction}_${shard}`;
}

/** Null: it is not ours. */
export function readPreparedName(gid: string): PreparedName | null {
	const [, transaction, home, shard] = NAME.exec(gid) ?? [];
	return transaction === undefined ? null : { transaction, home: Number(home), shard: Number(shard) };
}
