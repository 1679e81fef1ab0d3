// What becomes of a transaction that several shards have prepared stands in a table of ours on one of them: whoever inserts its row
// first has decided, be it the process that commits it (commit.ts) or one that finds it unfinished (recovery.ts), and nobody can
// decide otherwise as long as the row is there. PostgreSQL is the log: no clock and no file of ours has a say.

import { quoteIdentifier } from "../backend/parameters.ts";
import { PgError } from "../errors.ts";
import { errorResponse } from "../wire/error-response.ts";
import { type Asked, Declined, sqlstateOf } from "./asked.ts";
import { OURS } from "./names.ts";

export type Settlement = "commit" | "rollback";

const TABLE = "pgdog.two_phase_commits";

/** A row of the table. */
export interface DecisionRow {
	readonly transaction: string;
	readonly decision: Settlement;
	/** Numbers of the shards that have prepared it, or may have. */
	readonly shards: readonly number[];
	/** Seconds, by the server's clock. */
	readonly age: number;
}

/** A row of `pg_prepared_xacts`, of ours. */
export interface PreparedRow {
	readonly gid: string;
	readonly owner: string;
	/** Seconds, by the server's clock. */
	readonly age: number;
}

/**
 * Whatever the client has set, and whoever it has become, the row is written by the user of the connection, and is on disk when that is
 * answered. As one string with what follows it is one transaction. PostgreSQL docs, "Multiple Statements in a Simple Query".
 */
const AS_OURSELVES = `SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL ROLE NONE;
SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
SET LOCAL synchronous_commit = on`;

const CREATE_TABLE = `CREATE TABLE IF NOT EXISTS ${TABLE} (
	name text PRIMARY KEY, decision text NOT NULL CHECK (decision IN ('commit', 'rollback')),
	shards integer[] NOT NULL, decided_at timestamptz NOT NULL DEFAULT now())`;

/** What an administrator runs on each shard where the user of the connections may not. */
const SETUP = `CREATE SCHEMA IF NOT EXISTS pgdog; ${CREATE_TABLE}`;

const UNDEFINED_TABLE = "42P01";
const INVALID_SCHEMA = "3F000";
const UNDEFINED_OBJECT = "42704";
const INSUFFICIENT_PRIVILEGE = "42501";

/** Without end: what is asked is decided by the answer, and nobody may guess it. */
const ENDLESS = Number.POSITIVE_INFINITY;

/**
 * Decides, unless that has been done. @param home its server @param shards as `DecisionRow` has them
 * @returns what has been decided @throws Declined nothing was @throws Lost nobody knows
 */
export async function decide(
	home: Asked,
	transaction: string,
	shards: readonly number[],
	wanted: Settlement,
): Promise<Settlement> {
	const sql = `${AS_OURSELVES};
INSERT INTO ${TABLE} (name, decision, shards) VALUES ('${transaction}', '${wanted}', '{${shards.join()}}') ON CONFLICT (name) DO NOTHING;
SELECT decision FROM ${TABLE} WHERE name = '${transaction}'`;
	const ask = async () => ((await home.ask(sql, ENDLESS))[0]?.[0] === "commit" ? "commit" : "rollback");
	try {
		return await ask();
	} catch (error) {
		if (sqlstateOf(error) !== UNDEFINED_TABLE) throw error;
	}
	const failure = await createTable(home);
	try {
		return await ask();
	} catch (error) {
		throw sqlstateOf(error) === UNDEFINED_TABLE && failure !== null ? failure : error;
	}
}

/** On demand; somebody else may do it at the same time. @returns why it could not be made, if that is why @throws Lost */
async function createTable(home: Asked): Promise<Declined | null> {
	let failure: Declined | null = null;
	for (const sql of [CREATE_TABLE, SETUP]) {
		try {
			await home.ask(`${AS_OURSELVES}; ${sql}`);
			return null;
		} catch (error) {
			if (!(error instanceof Declined)) throw error;
			failure = noTable(error.error);
			if (error.error.sqlstate !== INVALID_SCHEMA) break;
		}
	}
	return failure;
}

function noTable({ sqlstate, message }: PgError): Declined {
	const hint =
		"An administrator has to make it, and let the user of the proxy's connections use it: docs/two-phase.md.";
	const error = new PgError("ERROR", sqlstate, `the table ${TABLE} cannot be made: ${message}`, undefined, hint);
	return new Declined(error, errorResponse(error, "stays"));
}

/** All shards have finished it: nobody has to know any more. It need not be on disk, since to do it again does no harm. */
export async function forget(home: Asked, transactions: readonly string[]): Promise<void> {
	const names = transactions.map((name) => `'${name}'`).join();
	await home.ask(`${AS_OURSELVES}; SET LOCAL synchronous_commit = off; DELETE FROM ${TABLE} WHERE name IN (${names})`);
}

/** @returns false when somebody else has finished it, or it was never prepared @throws Declined @throws Lost */
export async function finish(at: Asked, gid: string, decision: Settlement): Promise<boolean> {
	const sql = `${decision === "commit" ? "COMMIT" : "ROLLBACK"} PREPARED '${gid}'`;
	try {
		try {
			await at.ask(sql);
		} catch (error) {
			if (sqlstateOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
			await asOwner(at, gid, sql);
		}
	} catch (error) {
		if (sqlstateOf(error) !== UNDEFINED_OBJECT) throw error;
		return false;
	}
	return true;
}

/** It was prepared under a role that SET LOCAL had given, and only that role, or a superuser, may finish it. */
async function asOwner(at: Asked, gid: string, sql: string): Promise<void> {
	const [row] = await at.ask(
		`SELECT owner, pg_catalog.current_setting('role') FROM pg_catalog.pg_prepared_xacts WHERE gid = '${gid}'`,
	);
	if (row === undefined) return;
	const [owner, role] = row as [string, string];
	await at.ask(`SET ROLE ${quoteIdentifier(owner)}`);
	try {
		await at.ask(sql);
	} finally {
		// Nobody else may have the session with that role.
		await at
			.ask(`SET ROLE ${role === "none" ? "NONE" : quoteIdentifier(role)}`)
			.catch(() => at.close("SET ROLE failed"));
	}
}

/** The rows of the table; none where there is no table. @throws Declined @throws Lost */
export async function decisions(at: Asked): Promise<DecisionRow[]> {
	try {
		const rows = await at.ask(
			`SELECT name, decision, pg_catalog.array_to_string(shards, ','), EXTRACT(epoch FROM now() - decided_at) FROM ${TABLE}`,
		);
		return rows.map(([name, decision, shards, age]) => ({
			transaction: name!,
			decision: decision === "commit" ? "commit" : "rollback",
			shards: (shards ?? "").split(",").filter(Boolean).map(Number),
			age: Number(age),
		}));
	} catch (error) {
		if (sqlstateOf(error) === UNDEFINED_TABLE) return [];
		throw error;
	}
}

/** What the server has prepared of ours in this database. @throws Declined @throws Lost */
export async function prepared(at: Asked): Promise<PreparedRow[]> {
	const rows = await at.ask(
		`SELECT gid, owner, EXTRACT(epoch FROM now() - prepared) FROM pg_catalog.pg_prepared_xacts
		WHERE database = pg_catalog.current_database() AND gid LIKE '${OURS}'`,
	);
	return rows.map(([gid, owner, age]) => ({ gid: gid!, owner: owner!, age: Number(age) }));
}
