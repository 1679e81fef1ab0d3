// Bans: which servers are not read from, and for how long. A server that fails is banned at once, unless nobody else could serve
// its shard's reads; it comes back when a check has passed, not before its hold is over (which grows while it fails again and
// again), and at the latest after `ban_timeout`. One Bans in each thread, all over the same Vitals. Writes know no bans.

import type { General } from "../config/settings.ts";
import type { PoolSpec, Snapshot } from "../config/snapshot.ts";
import type { Log } from "../log.ts";
import type { Slots } from "./databases.ts";
import { couldServeReads, type Placed } from "./readable.ts";
import { Ban, Vital, type Vitals } from "./vitals.ts";

/** A server that fails again within this time of coming back is held longer, ms; a guess. */
const RELAPSE = 60_000;
/** Hold of the first ban after a relapse, ms; that of each further one is twice as long, up to `ban_timeout`. */
const FIRST_HOLD = 1_000;

/** The reason of a ban in words, for SHOW BANS and the log. */
export function banText(why: Ban): string {
	switch (why) {
		case Ban.None:
			return "";
		case Ban.Unreachable:
			return "it cannot be reached";
		case Ban.Unhealthy:
			return "a health check failed";
		case Ban.Lag:
			return "replica lag";
		case Ban.Manual:
			return "banned by admin";
		case Ban.Unchecked:
			return "not checked yet";
		case Ban.NotReplica:
			return "it is no replica";
	}
}

/** Whether a ban for this reason ends by a check that passes, or by `ban_timeout`; others end by the Monitor or an admin. */
export function isOfHealth(why: Ban): boolean {
	return why === Ban.Unreachable || why === Ban.Unhealthy || why === Ban.Unchecked;
}

/** The part of the configuration that bans depend on. */
type Known = Pick<Snapshot, "clusters"> & { readonly general: Pick<General, "ban_timeout" | "read_write_split"> };

/** A pool that may be banned. */
interface Member extends Placed {
	readonly spec: PoolSpec;
	/** Slots of all pools of its shard. */
	readonly shard: readonly number[];
	/** The lowest slot among all pools of its host and port. */
	readonly server: number;
}

export class Bans {
	readonly vitals: Vitals;
	private readonly log: Log;
	private members: ReadonlyMap<number, Member> = new Map();
	private general: Known["general"];
	/** `Vitals.version` when nobody was banned; -1 when somebody was. */
	private peaceful = -1;

	constructor(vitals: Vitals, log: Log, snapshot: Known, slots: Slots) {
		this.vitals = vitals;
		this.log = log;
		this.general = snapshot.general;
		this.reach(snapshot, slots);
	}

	/** Takes over the configuration in force: at the start and after each reload. */
	reach(snapshot: Known, slots: Slots): void {
		this.general = snapshot.general;
		const members = new Map<number, Member>();
		const servers = new Map<string, number>();
		for (const { pools } of snapshot.clusters) {
			for (const spec of pools) {
				const slot = slots.get(spec.key)!;
				servers.set(addressOf(spec), Math.min(slot, servers.get(addressOf(spec)) ?? slot));
			}
		}
		for (const { pools } of snapshot.clusters) {
			for (const shard of Map.groupBy(pools, (pool) => pool.shard).values()) {
				const all = shard.map(({ key }) => slots.get(key)!);
				for (const [i, spec] of shard.entries()) {
					const server = servers.get(addressOf(spec))!;
					members.set(all[i]!, { slot: all[i]!, spec, shard: all, server });
				}
			}
		}
		this.members = members;
		this.peaceful = -1;
	}

	/** A server could not be connected to, or a check of it has failed. @param cause for the log */
	failed(slot: number, why: Ban, cause: string, time: number): void {
		this.vitals.setHealthy(slot, false);
		this.vitals.set(this.serverOf(slot), Vital.doubtedAt, time);
		this.ban(slot, why, cause, time);
	}

	/** `require_healthcheck_on_discovery`: a new server is not read from before a check has passed, even if all are new. */
	unchecked(slot: number, time: number): void {
		if (this.general.ban_timeout > 0) this.put(slot, Ban.Unchecked, banText(Ban.Unchecked), time);
	}

	/** A server has passed a check, or has let in a new connection. */
	passed(slot: number, time: number): void {
		const { vitals } = this;
		vitals.setHealthy(slot, true);
		const why = vitals.banOf(slot);
		if (isOfHealth(why) && time >= vitals.get(slot, Vital.heldUntil)) this.end(slot, why, "a check has passed", time);
	}

	/** Replication was looked at: `cause` says why the server must not be read from, null that it may. */
	judge(slot: number, why: Ban.Lag | Ban.NotReplica, cause: string | null, time: number): void {
		if (cause !== null) this.ban(slot, why, cause, time);
		else this.end(slot, why, "it has caught up", time);
	}

	/** BAN of the admin database: the one ban that may leave a shard without servers to read from. */
	banByHand(slot: number, time: number): void {
		if (this.vitals.banAnyway(slot, Ban.Manual)) this.begun(slot, banText(Ban.Manual), time);
	}

	/** UNBAN of the admin database: whatever the ban was for. */
	unbanByHand(slot: number, time: number): void {
		if (this.vitals.unban(slot)) this.ended(slot, "manual", time);
	}

	/**
	 * RELOAD and RECONNECT end all bans, those by an admin too, as in PgDog: whoever gives one has changed something, and servers
	 * may show what they are worth now. A server that no check has passed yet (`Ban.Unchecked`) stays banned.
	 */
	lift(cause: string, time: number): void {
		const { vitals } = this;
		for (const slot of this.members.keys()) {
			const why = vitals.banOf(slot);
			if (why === Ban.None || why === Ban.Unchecked) continue;
			this.end(slot, why, cause, time);
			// When it fails again, that counts as its first failure: no hold.
			vitals.set(slot, Vital.unbannedAt, 0);
			vitals.set(slot, Vital.hold, 0);
		}
	}

	/** Ends what `ban_timeout` ends, for all threads; called by one of them. A server that is known to be ill stays banned. */
	tick(time: number): void {
		const { vitals } = this;
		const { version } = vitals;
		if (version === this.peaceful) return;
		this.peaceful = version;
		for (const slot of this.members.keys()) {
			const why = vitals.banOf(slot);
			if (why !== Ban.None) this.peaceful = -1;
			if (!isOfHealth(why) || !vitals.isHealthy(slot)) continue;
			if (time >= vitals.get(slot, Vital.bannedUntil)) this.end(slot, why, "expired", time);
		}
	}

	/** ms until a ban ends by itself; 0 when it has no end of its own. */
	timeLeft(slot: number, time: number): number {
		const why = this.vitals.banOf(slot);
		if (!isOfHealth(why)) return 0;
		return Math.max(0, Math.round(this.vitals.get(slot, Vital.bannedUntil) - time));
	}

	private ban(slot: number, why: Ban, cause: string, time: number): void {
		if (this.general.ban_timeout === 0 || !this.isReplaceable(slot)) return;
		if (!this.put(slot, why, cause, time)) return;
		// Another thread may have banned the last of the others in the same moment.
		if (!this.isReplaceable(slot)) this.end(slot, why, "nobody else is left", time);
	}

	private put(slot: number, why: Ban, cause: string, time: number): boolean {
		if (!this.vitals.ban(slot, why)) return false;
		this.begun(slot, cause, time);
		return true;
	}

	private begun(slot: number, cause: string, time: number): void {
		const { vitals } = this;
		const { ban_timeout } = this.general;
		const relapse = time - vitals.get(slot, Vital.unbannedAt) < RELAPSE;
		const hold = relapse ? Math.min(ban_timeout, Math.max(FIRST_HOLD, 2 * vitals.get(slot, Vital.hold))) : 0;
		vitals.set(slot, Vital.hold, hold);
		vitals.set(slot, Vital.heldUntil, time + hold);
		vitals.set(slot, Vital.bannedAt, time);
		vitals.set(slot, Vital.bannedUntil, time + ban_timeout);
		const server = this.addressOf(slot);
		this.log.warn(`read queries banned: ${cause} [${server}]`, { server });
	}

	private end(slot: number, why: Ban, cause: string, time: number): void {
		if (this.vitals.endBan(slot, why)) this.ended(slot, cause, time);
	}

	private ended(slot: number, cause: string, time: number): void {
		this.vitals.set(slot, Vital.unbannedAt, time);
		const server = this.addressOf(slot);
		this.log.warn(`resuming read queries: ${cause} [${server}]`, { server });
	}

	/** `host:port`, for the log; "" when the slot is not in the configuration. */
	addressOf(slot: number): string {
		const spec = this.members.get(slot)?.spec;
		return spec === undefined ? "" : addressOf(spec);
	}

	/** The row of `Vitals` for what concerns all pools of the server, of all users and databases. */
	serverOf(slot: number): number {
		return this.members.get(slot)?.server ?? slot;
	}

	/** Whether another pool of the shard could serve its reads. */
	private isReplaceable(slot: number): boolean {
		const { vitals, general, members } = this;
		const shard = members.get(slot)?.shard ?? [];
		return shard.some(
			(other) => other !== slot && couldServeReads(members.get(other)!, vitals, general.read_write_split),
		);
	}
}

function addressOf({ host, port }: PoolSpec): string {
	return `${host}:${port}`;
}
