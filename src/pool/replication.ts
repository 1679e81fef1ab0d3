// What the monitor concludes from what servers say of themselves: who is the primary, and how far behind a replica is. Values
// and functions only: no socket, no clock.

/** What a server has said of itself. */
export interface ReplicationReport {
	/** When it was asked, as `now()`: what had been written before then is in its `lsn`. */
	readonly at: number;
	/** When its answer was here: what it says was so at some moment between the two. */
	readonly answeredAt: number;
	readonly inRecovery: boolean;
	/** Bytes of the write-ahead log: replayed in recovery, else written (docs, "pg_lsn Type"). */
	readonly lsn: number;
	/** The timeline that it writes; 0 in recovery. It grows with each promotion (docs, "Timelines"). */
	readonly timeline: number;
}

/**
 * The query whose one row `readReport` reads. It asks for the insert position and not the written one: a commit that was
 * answered with `synchronous_commit = off` may not be written yet. Docs, "System Administration Functions".
 */
export const QUESTION = `SELECT pg_catalog.pg_is_in_recovery(),
	(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
		ELSE pg_catalog.pg_current_wal_insert_lsn() END - '0/0'::pg_catalog.pg_lsn)::pg_catalog.text,
	CASE WHEN NOT pg_catalog.pg_is_in_recovery()
		THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END`;

export function readReport(at: number, row: readonly (string | null)[]): Omit<ReplicationReport, "answeredAt"> {
	const inRecovery = row[0] === "t";
	const lsn = Number(row[1] ?? 0);
	return {
		at,
		inRecovery,
		lsn: inRecovery ? lsn : withoutPageHeader(lsn),
		timeline: inRecovery ? 0 : Number.parseInt((row[2] ?? "").slice(0, 8), 16) || 0,
	};
}

/**
 * Whether a replica has replayed what its primary has not written: then it follows another one. Certain only if the primary was
 * asked after the replica had answered: else it may have written more since. @param before what was found the last time
 */
export function isAhead(replica: ReplicationReport, primary: ReplicationReport, before: boolean): boolean {
	if (replica.lsn <= primary.lsn) return false;
	return replica.answeredAt <= primary.at || before;
}

/** XLOG_BLCKSZ as everybody builds it, and the headers of its pages (access/xlog_internal.h). */
const PAGE = 8192;
const PAGE_HEADER = 24;
const SEGMENT_HEADER = 40;

/** The insert position may stand behind the header of a page that nothing is on yet, and no replica will ever get there. */
function withoutPageHeader(lsn: number): number {
	const on = lsn % PAGE;
	return on === PAGE_HEADER || on === SEGMENT_HEADER ? lsn - on : lsn;
}

/** An LSN as PostgreSQL writes it: `16/B374D848`. */
export function lsnText(lsn: number): string {
	const half = 2 ** 32;
	return `${Math.floor(lsn / half).toString(16)}/${(lsn % half).toString(16)}`.toUpperCase();
}

/** What a server said last, and why it has said nothing since; null when it has. */
interface Claim {
	readonly report: ReplicationReport | null;
	readonly failure: unknown;
}

/**
 * Which of those that say they are the primary is it: the one on the latest timeline, since the others were left behind by a
 * promotion; then one that answers; then the one that was it before; then the one that has written most. Null when nobody says so.
 */
export function chief<T extends Claim>(claims: readonly T[], before: T | null): T | null {
	let best: T | null = null;
	for (const claim of claims) {
		if (best === null || isAbove(claim, best, before)) best = claim;
	}
	return best;
}

function isAbove<T extends Claim>(a: T, b: T, before: T | null): boolean {
	const [one, other] = [a.report!, b.report!];
	if (one.timeline !== other.timeline) return one.timeline > other.timeline;
	if (hasFailed(a) !== hasFailed(b)) return hasFailed(b);
	if (a === before || b === before) return a === before;
	return one.lsn > other.lsn;
}

function hasFailed({ failure }: Claim): boolean {
	return failure !== null;
}

/** Samples kept: with a check each second the last quarter of an hour. */
const KEPT = 1024;

/** How far the primary had written when. Tells when a position was the last one: a lag that needs no server's clock. */
export class WriteHistory {
	/** Samples in ascending order: `now()`, and how far the primary had written then. */
	private readonly times: number[] = [];
	private readonly positions: number[] = [];

	/** At `at` (`now()`) it had written up to `lsn`. Reports may come out of order; an older one says nothing new. */
	note(at: number, lsn: number): void {
		const { times, positions } = this;
		if (times.length > 0 && (at <= times.at(-1)! || lsn < positions.at(-1)!)) return;
		if (positions.at(-1) === lsn && positions.at(-2) === lsn) {
			// Nothing is written: the latest moment is all that there is to know.
			times[times.length - 1] = at;
			return;
		}
		times.push(at);
		positions.push(lsn);
		if (times.length <= KEPT) return;
		times.shift();
		positions.shift();
	}

	/** The latest moment whose writes are all within `lsn`; 0 when that was before all that is known. */
	freshAsOf(lsn: number): number {
		let i = this.positions.length - 1;
		while (i >= 0 && this.positions[i]! > lsn) i--;
		return i < 0 ? 0 : this.times[i]!;
	}

	/** The time of the oldest sample; 0 when there is none. */
	get start(): number {
		return this.times[0] ?? 0;
	}
}
