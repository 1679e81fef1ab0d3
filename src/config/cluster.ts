// Which entries of `[[databases]]` make a cluster: those of one name. Each is a server of one shard: primary, replica, or `auto`,
// that is either, as is found out; then all servers of the shard are `auto`.
// Called by load.ts, once all entries are read. Knows no users and makes no pools.

import type { Findings, ValueSource } from "./problem.ts";
import type { Database, PoolSettings } from "./snapshot.ts";
import { checkSocketPath } from "./socket-path.ts";

/** An entry with its place in the file. */
export interface DatabaseRow {
	/** `databases[1]`; empty for a database URL. */
	readonly at: string;
	readonly database: Database;
}

/** Reports entries that cannot be of one cluster. @returns the databases without those that stand there twice */
export function checkClusters(rows: readonly DatabaseRow[], source: ValueSource, report: Findings): Database[] {
	for (const row of rows) {
		const { host, port } = row.database;
		if (/^[/@]/.test(host)) checkSocketPath(host, port, key(row, "host"), source, report);
	}
	const byName = Map.groupBy(rows, ({ database }) => database.name);
	const kept = new Set([...byName.values()].flatMap((members) => checkCluster(members, source, report)));
	return rows.filter((row) => kept.has(row)).map(({ database }) => database);
}

function checkCluster(members: readonly DatabaseRow[], source: ValueSource, report: Findings): DatabaseRow[] {
	const kept = withoutDuplicates(members, source, report);
	const name = JSON.stringify(members[0]!.database.name);
	const primaries = new Map<number, DatabaseRow>();
	const firsts = new Map<number, DatabaseRow>();
	for (const row of kept) {
		const { role, shard } = row.database;
		const first = firsts.get(shard);
		if (first === undefined) firsts.set(shard, row);
		else if ((role === "auto") !== (first.database.role === "auto")) {
			const accepted = first.database.role === "auto" ? '"auto"' : '"primary", "replica"';
			const why = `${accepted}, since ${whole(first)} of shard ${shard} of ${name} is "${first.database.role}"`;
			report.problem(source, key(row, "role"), "value", `"${role}"`, why);
			continue;
		}
		if (role === "auto") checkAuto(row, source, report);
		if (role !== "primary") continue;
		const other = primaries.get(shard);
		if (other === undefined) primaries.set(shard, row);
		else {
			const accepted = `"replica", since ${whole(other)} is the primary of shard ${shard} of ${name}`;
			report.problem(source, key(row, "role"), "value", '"primary"', accepted);
		}
	}
	const shards = new Set(kept.map(({ database }) => database.shard));
	let missing = 0;
	while (shards.has(missing)) missing++;
	const beyond = kept.find(({ database }) => database.shard > missing);
	if (beyond !== undefined) {
		const accepted = missing === 0 ? "0" : `an integer from 0 to ${missing}`;
		const why = `${accepted}, since ${name} has no shard ${missing}`;
		report.problem(source, key(beyond, "shard"), "value", String(beyond.database.shard), why);
		return kept;
	}
	for (const shard of [...shards].toSorted((a, b) => a - b)) {
		if (primaries.has(shard) || kept.some(({ database }) => database.shard === shard && database.role === "auto"))
			continue;
		const first = firsts.get(shard)!;
		report.warn(source, first.at, `database ${name} has no primary of shard ${shard}: nothing can be written there`);
	}
	checkModes(kept, source, report);
	return kept;
}

/** Warns of settings for one role alone where `role = "auto"`: the role is still to be found out then, and may change. */
function checkAuto(row: DatabaseRow, source: ValueSource, report: Findings): void {
	for (const setting of roleKeys(row.database)) {
		const at = key(row, setting);
		report.warn(source, at, `${at} has no effect with role = "auto": write ${setting.replace(/_[a-z]+$/, "")}`);
	}
}

/** The settings given for one role alone. */
export function roleKeys(settings: PoolSettings): string[] {
	return Object.entries(settings).flatMap(([name, value]) =>
		value !== undefined && /_(primary|replica)$/.test(name) ? name : [],
	);
}

/** Drops entries that have a server twice in one shard and role: their pools would have one name (`PoolSpec.key`). */
function withoutDuplicates(members: readonly DatabaseRow[], source: ValueSource, report: Findings): DatabaseRow[] {
	const seen = new Map<string, DatabaseRow>();
	for (const row of members) {
		const { name, shard, role, host, port, database_name } = row.database;
		const address = JSON.stringify([shard, role, host, port]);
		const other = seen.get(address);
		if (other === undefined) seen.set(address, row);
		else if (other.database.database_name === database_name) {
			const text = `database "${name}" has ${host}:${port} as ${role} of shard ${shard} already: the first entry counts`;
			report.warn(source, row.at, text);
		} else {
			const accepted = `${JSON.stringify(other.database.database_name)}, as in ${whole(other)} for the same server and shard`;
			report.problem(source, key(row, "database_name"), "value", JSON.stringify(database_name), accepted);
		}
	}
	return [...seen.values()];
}

/** Warns of several `pooler_mode`s in one database: a client has one mode, whichever servers its statements go to. */
function checkModes(members: readonly DatabaseRow[], source: ValueSource, report: Findings): void {
	const first = members[0]!;
	const other = members.find(({ database }) => database.pooler_mode !== first.database.pooler_mode);
	if (other === undefined) return;
	const text = `database "${first.database.name}" has entries of several pooler modes: write the same in each`;
	report.warn(source, key(other, "pooler_mode"), text);
}

/** Path of a setting of the entry. */
export function key(row: DatabaseRow, setting: string): string {
	return row.at === "" ? setting : `${row.at}.${setting}`;
}

function whole(row: DatabaseRow): string {
	return row.at === "" ? `${row.database.host}:${row.database.port}` : row.at;
}
