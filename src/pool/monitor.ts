// Asks servers for their role and how far they have replayed (`lsn_check_*`), and writes what follows into the Vitals: who is
// the primary (`role = "auto"`), who lags, what replicas have. One per process, on the main thread; only where something
// depends on it. A server is asked once for all users, by a connection of the monitor's own.

import type { SocketHandler } from "bun";
import { Keyring } from "../auth/keyring.ts";
import { now } from "../clock.ts";
import { MAX } from "../config/setting.ts";
import type { General } from "../config/settings.ts";
import type { PoolSpec, Snapshot } from "../config/snapshot.ts";
import type { Contain } from "../contain.ts";
import type { Log } from "../log.ts";
import type { Dialling } from "../net/connect.ts";
import type { Descriptors } from "../net/descriptors.ts";
import { Names } from "../net/names.ts";
import { type Stream, socketHandlers } from "../net/stream.ts";
import type { Bans } from "./bans.ts";
import { databaseAt } from "./databases.ts";
import { chief, isAhead, WriteHistory } from "./replication.ts";
import { Ban, FoundRole, Vital } from "./vitals.ts";
import { Watch } from "./watch.ts";

/** The period of the timer, ms: a question is asked at the first tick when it is due. */
const TICK = 50;
/** How often a shard without a living primary is asked, ms: the sooner its primary is found, the sooner it takes writes. */
const HASTE = 200;
/**
 * Before the first primary is chosen every server may take this long to answer, ms, or `lsn_check_timeout`, if that is less: of two
 * that say they are it, the one that was left behind must not be written to just because it is the quicker one. But no longer than a
 * `checkout_timeout`, unless that is shorter than the least: clients would give up at each start and takeover beside one that is dead.
 */
const HEARING = 5_000;
const LEAST_HEARING = 1_000;

/**
 * How far `now()` of two threads may be apart, ms, since each reads the clock by an origin of its own: a write that a worker
 * dates may be a little later by the monitor's. A tenth of one was seen; a guess, generous.
 */
const CLOCK_SKEW = 5;

/** The servers of one shard of one database. */
interface Group {
	/** `database "app" shard 0` */
	readonly name: string;
	readonly auto: boolean;
	readonly watches: readonly Watch[];
	/** When its servers were first asked, or a reload took the primary from among them. */
	readonly since: number;
	primary: Watch | null;
	history: WriteHistory;
	/** What `complain` said last; "" when all is well. */
	complaint: string;
	/** A primary was found once, or the log has said that there is none: to find one from then on is news. */
	known: boolean;
}

export class Monitor {
	private readonly bans: Bans;
	private readonly log: Log;
	readonly handlers: SocketHandler<Stream>;
	readonly names = new Names(() => this.general.dns_ttl);
	readonly contain: Contain;
	readonly descriptors: Descriptors;
	/** What clients of all workers have proven. */
	readonly keyring = new Keyring();
	private slots: ReadonlyMap<string, number> = new Map();
	private snapshot: Snapshot;
	private groups = new Map<string, Group>();
	private timer: Timer | null = null;

	constructor(bans: Bans, log: Log, contain: Contain, snapshot: Snapshot, descriptors: Descriptors) {
		this.bans = bans;
		this.log = log;
		this.contain = contain;
		this.handlers = socketHandlers((error, stream) => contain.failed(error, stream));
		this.snapshot = snapshot;
		this.descriptors = descriptors;
	}

	get dialling(): Dialling {
		const { handlers, descriptors, snapshot } = this;
		return { handlers, keepAlive: snapshot.tcp, descriptors };
	}

	private get general(): General {
		return this.snapshot.general;
	}

	/** Takes over the configuration in force. Servers that stay keep their connection, and what is known of them. */
	reach(snapshot: Snapshot, slots: ReadonlyMap<string, number>): void {
		const { general } = snapshot;
		this.snapshot = snapshot;
		this.slots = slots;
		const before = this.groups;
		this.groups = new Map();
		const specs = snapshot.clusters.flatMap(({ pools }) => pools);
		this.keyring.reach(specs.map(({ server_verifier }) => server_verifier));
		const byShard = Map.groupBy(specs, ({ database, shard }) => JSON.stringify([database, shard]));
		for (const [key, members] of byShard) {
			if (!isWatched(members, general)) {
				for (const spec of members) this.forgive(spec);
				continue;
			}
			this.groups.set(key, this.group(members, before.get(key)));
		}
		const kept = new Set([...this.groups.values()].flatMap(({ watches }) => watches));
		for (const { watches } of before.values()) for (const watch of watches) if (!kept.has(watch)) watch.close();
		if (this.groups.size > 0) this.timer ??= this.contain.every(TICK, () => this.tick(now()));
		else this.rest();
		// New pools of servers that are known need not wait for the next report.
		for (const group of this.groups.values())
			if (group.watches.some(({ report }) => report !== null)) this.conclude(group);
		this.tick(now());
	}

	private group(members: readonly PoolSpec[], before: Group | undefined): Group {
		const { database, shard } = members[0]!;
		const byAddress = Map.groupBy(members, databaseAt);
		const delayed = !dependsOnReports(members, this.general);
		const watches = [...byAddress].map(([address, specs]) => {
			const known = before?.watches.find((watch) => databaseAt(watch.specs[0]!) === address);
			if (known !== undefined) {
				known.change(specs);
				return known;
			}
			const watch = new Watch(specs, this);
			if (delayed) watch.nextAt = now() + this.general.lsn_check_delay;
			return watch;
		});
		const primary = before?.primary ?? null;
		const stays = primary !== null && watches.includes(primary);
		return {
			name: `database ${JSON.stringify(database)} shard ${shard}`,
			auto: members[0]!.role === "auto",
			watches,
			// Where a reload took the primary away, the servers that came with it are to be heard as at the start (`HEARING`).
			since: before !== undefined && stays ? before.since : now(),
			primary: stays ? primary : null,
			history: stays ? before!.history : new WriteHistory(),
			complaint: before?.complaint ?? "",
			known: before?.known ?? false,
		};
	}

	private forgive(spec: PoolSpec): void {
		const slot = this.slots.get(spec.key)!;
		const time = now();
		this.bans.judge(slot, Ban.Lag, null, time);
		this.bans.judge(slot, Ban.NotReplica, null, time);
		this.bans.vitals.set(slot, Vital.lsnAt, 0);
	}

	stop(): void {
		this.rest();
		for (const { watches } of this.groups.values()) for (const watch of watches) watch.close();
		this.groups.clear();
	}

	private rest(): void {
		if (this.timer !== null) clearInterval(this.timer);
		this.timer = null;
	}

	private tick(time: number): void {
		const { lsn_check_interval } = this.general;
		for (const group of this.groups.values()) {
			// `nextAt` was set by `lsn_check_interval`: without a primary that is too late.
			const interval = this.isWithoutPrimary(group) ? Math.min(HASTE, lsn_check_interval) : lsn_check_interval;
			for (const watch of group.watches) {
				if (!watch.asking && time >= watch.nextAt - lsn_check_interval + interval)
					this.contain.when(null, this.ask(watch, time), () => {});
			}
		}
	}

	/** No server is known to take writes: none was found, it does not answer, or (workers notice it first) it cannot be reached. */
	private isWithoutPrimary({ auto, primary }: Group): boolean {
		if (!auto) return false;
		return primary === null || primary.failure !== null || primary.specs.some((spec) => !this.isHealthy(spec));
	}

	private isHealthy(spec: PoolSpec): boolean {
		return this.bans.vitals.isHealthy(this.slots.get(spec.key)!);
	}

	private async ask(watch: Watch, time: number): Promise<void> {
		watch.nextAt = time + this.general.lsn_check_interval;
		const before = watch.failure?.message;
		await watch.ask(this.general.lsn_check_timeout);
		const { failure } = watch;
		if (failure !== null && failure.message !== before)
			this.log.warn(`server cannot be asked for its role: ${failure.message} [${watch.address}]`, {
				server: watch.address,
			});
		// A reload may have come between.
		const current = [...this.groups.values()].find(({ watches }) => watches.includes(watch));
		if (current !== undefined) this.conclude(current);
	}

	/** Draws every conclusion from the reports that there are: who is the primary, then how far each server is behind. */
	private conclude(group: Group): void {
		const time = now();
		if (group.auto) this.elect(group, time);
		else group.primary = group.watches.find(({ specs }) => specs.some(({ role }) => role === "primary")) ?? null;
		const { primary, history } = group;
		if (primary?.report?.inRecovery === false) history.note(primary.report.at - CLOCK_SKEW, primary.report.lsn);
		for (const watch of group.watches) this.measure(group, watch, time);
	}

	private elect(group: Group, time: number): void {
		const silent = group.watches.some(({ report, failure }) => report === null && failure === null);
		const patience = Math.max(LEAST_HEARING, Math.min(HEARING, this.general.checkout_timeout));
		if (silent && group.primary === null && time - group.since < patience) return;
		const claims = group.watches.filter(({ report }) => report?.inRecovery === false);
		const primary = chief(claims, group.primary) ?? null;
		if (primary !== group.primary) {
			if (primary !== null) this.announce(group, primary);
			group.primary = primary;
			group.history = new WriteHistory();
		}
		this.complain(group, claims);
		for (const watch of group.watches) {
			const role = roleOf(watch, primary);
			for (const { key } of watch.specs) this.bans.vitals.setRole(this.slots.get(key)!, role);
		}
	}

	/** Logs a primary; one found at the start is no warning: an alert on warnings would go off at each deployment. */
	private announce(group: Group, primary: Watch): void {
		const place = `${primary.address}, timeline ${primary.report!.timeline} [${group.name}]`;
		const fields = { server: primary.address };
		if (group.known) this.log.warn(`new primary chosen: ${place}`, fields);
		else this.log.info(`primary found: ${place}`, fields);
		group.known = true;
	}

	/** Logs several primaries, none, or a silent one, as an error, once for each state of affairs. Who is silent claims nothing. */
	private complain(group: Group, claimed: readonly Watch[]): void {
		const claims = claimed.filter(({ failure }) => failure === null);
		const all = claims.map(({ address, report }) => `${address} (timeline ${report!.timeline})`).join(", ");
		const { primary } = group;
		let complaint = "";
		if (claims.length > 1)
			complaint = `several servers say that they are the primary: ${all}; writes go to ${primary!.address}`;
		else if (primary === null) complaint = "no server says that it is the primary: nothing can be written";
		else if (primary.failure !== null)
			complaint = `the primary ${primary.address} does not answer: nothing can be written until it does, or another is promoted`;
		if (complaint !== "" && complaint !== group.complaint) this.log.error(`${complaint} [${group.name}]`);
		group.complaint = complaint;
		group.known ||= complaint !== "";
	}

	/** How far a server is behind, and whether it may be read from. */
	private measure({ primary, history, auto }: Group, watch: Watch, time: number): void {
		const { report } = watch;
		if (report === null) return;
		const { vitals } = this.bans;
		const written = primary?.report ?? null;
		const behind = watch !== primary && report.inRecovery && written !== null;
		const lagBytes = behind ? Math.max(0, written.lsn - report.lsn) : 0;
		watch.isAhead = behind && isAhead(report, written, watch.isAhead);
		const fresh = behind && !watch.isAhead ? history.freshAsOf(report.lsn) : 0;
		const lag = lagBytes === 0 ? 0 : Math.max(0, time - (fresh || history.start));
		for (const spec of watch.specs) {
			const slot = this.slots.get(spec.key)!;
			vitals.set(slot, Vital.lsnAt, report.at);
			vitals.set(slot, Vital.lsn, report.lsn);
			vitals.setInRecovery(slot, report.inRecovery);
			vitals.set(slot, Vital.lagBytes, lagBytes);
			vitals.set(slot, Vital.lag, lag);
			vitals.set(slot, Vital.freshAsOf, watch === primary ? Number.POSITIVE_INFINITY : fresh);
			const late = watch.isAhead ? "it has replayed what the primary has not written" : this.lagText(lagBytes, lag);
			this.bans.judge(slot, Ban.Lag, late, time);
			const isNone = !auto && spec.role === "replica" && !report.inRecovery && primary !== null && watch !== primary;
			this.bans.judge(slot, Ban.NotReplica, isNone ? "it is configured as a replica, and is none" : null, time);
		}
	}

	private lagText(bytes: number, time: number): string | null {
		const { ban_replica_lag, ban_replica_lag_bytes } = this.general;
		if (bytes >= ban_replica_lag_bytes) return `replica lag of ${bytes} bytes`;
		if (time >= ban_replica_lag) return `replica lag of ${Math.round(time)} ms`;
		return null;
	}
}

function roleOf(watch: Watch, primary: Watch | null): FoundRole {
	if (watch === primary) return FoundRole.Primary;
	if (watch.report === null) return FoundRole.Unknown;
	return watch.report.inRecovery ? FoundRole.Replica : FoundRole.Outdated;
}

/** Whether something is decided by these servers' reports: roles, bans for lag, or reads after a write. */
function dependsOnReports(members: readonly PoolSpec[], general: General): boolean {
	if (members.some(({ role }) => role === "auto")) return true;
	if (!members.some(({ role }) => role === "replica")) return false;
	const { ban_replica_lag, ban_replica_lag_bytes, read_after_write } = general;
	return ban_replica_lag < MAX || ban_replica_lag_bytes < MAX || read_after_write === "lsn";
}

/** Whether these servers are asked: for `dependsOnReports`, or since `lsn_check_delay` wants it for SHOW REPLICATION. */
function isWatched(members: readonly PoolSpec[], general: General): boolean {
	if (dependsOnReports(members, general)) return true;
	return general.lsn_check_delay < MAX && members.some(({ role }) => role === "replica");
}
