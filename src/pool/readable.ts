// Which servers of a shard may be read from: by their role, as configured or found out, by bans, and by `read_write_split`. The one
// place that says so: shard.ts chooses among these, and bans.ts asks before it takes one of them away. No state, no IO.

import type { General } from "../config/settings.ts";
import type { Role } from "../config/snapshot.ts";
import { Ban, FoundRole, Vital, type Vitals } from "./vitals.ts";

type Split = General["read_write_split"];

/** A server of a shard: its row of the vitals, and what the configuration says of it. */
export interface Placed {
	readonly slot: number;
	readonly spec: { readonly role: Role };
}

/** The servers of a shard that may serve writes and reads, until the vitals change. */
export interface Readable<T> {
	/** For writes; null when there is none, or it is not known. */
	readonly primary: T | null;
	/** For reads (`Side.Any`); `replicas` are for those that ask for a replica. */
	readonly readers: readonly T[];
	readonly replicas: readonly T[];
}

/** A server's role, as configured, or as found out; `auto`: not known, or of no use (`FoundRole.Outdated`). */
export function roleOf({ slot, spec }: Placed, vitals: Vitals): Role {
	if (spec.role !== "auto") return spec.role;
	switch (vitals.roleOf(slot)) {
		case FoundRole.Primary:
			return "primary";
		case FoundRole.Replica:
			return "replica";
		default:
			return "auto";
	}
}

function isWell({ slot }: Placed, vitals: Vitals): boolean {
	return vitals.banOf(slot) === Ban.None;
}

/** Whether reads could go to `member` if the others were gone: a ban must leave one such server. */
export function couldServeReads(member: Placed, vitals: Vitals, split: Split): boolean {
	const role = roleOf(member, vitals);
	return isWell(member, vitals) && (role === "replica" || (role === "primary" && split !== "exclude_primary"));
}

/** Whether a server has replayed what had been written by `since`. A primary has it all. @param since `now()` of a write */
export function hasSeen({ slot }: Placed, vitals: Vitals, since: number): boolean {
	return vitals.get(slot, Vital.freshAsOf) >= since;
}

/** Which servers may serve what. @param readOnly the user may only read: the primary is for when there is no replica */
export function readFrom<T extends Placed>(
	all: readonly T[],
	vitals: Vitals,
	split: Split,
	readOnly: boolean,
): Readable<T> {
	const primary = all.find((member) => roleOf(member, vitals) === "primary") ?? null;
	const replicas = all.filter((member) => roleOf(member, vitals) === "replica");
	const well = replicas.filter((member) => isWell(member, vitals));
	if (well.length === 0) {
		// Without any replica there is nothing that the primary could be excluded for.
		const isExcluded = split === "exclude_primary" && replicas.length > 0;
		const instead = primary === null || isExcluded ? [] : [primary];
		return { primary, readers: instead, replicas: instead };
	}
	// The last server is never banned. When it is down and the primary excluded, clients are told at once.
	const areDown = primary !== null && split === "exclude_primary" && !well.some(({ slot }) => vitals.isHealthy(slot));
	if (areDown) return { primary, readers: [], replicas: [] };
	const reads = primary !== null && !readOnly && sharesReads(primary, vitals, split, well.length < replicas.length);
	return { primary, readers: reads ? [primary, ...well] : well, replicas: well };
}

/** Whether the primary is read from beside replicas. @param areFewer some of them are banned */
function sharesReads(primary: Placed, vitals: Vitals, split: Split, areFewer: boolean): boolean {
	switch (split) {
		case "include_primary":
			return isWell(primary, vitals);
		case "include_primary_if_replica_banned":
			return areFewer;
		// The router sends what may be read anywhere to the primary by itself.
		case "prefer_primary":
		case "exclude_primary":
			return false;
	}
}
