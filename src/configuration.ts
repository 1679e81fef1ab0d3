// The configuration in force: how another takes its place, by a reload or for users whom it does not have, and who is told of it.
// Made and asked by proxy.ts.

import type { Notice, Reloaded } from "./admin/source.ts";
import { clientsOf } from "./client/seats.ts";
import { now } from "./clock.ts";
import { diff, firstUpdate, type LoginKey, settingChangeText, type Update, updateOf } from "./config/diff.ts";
import type { Loaded } from "./config/load.ts";
import { losses } from "./config/loss.ts";
import { problemText } from "./config/problem.ts";
import { learns } from "./config/resolve.ts";
import { allPools, type ClusterSpec, isLearned, type PoolSpec, type Snapshot } from "./config/snapshot.ts";
import { asPgError, PgError, TOO_MANY_CONNECTIONS } from "./errors.ts";
import type { Introduction } from "./introductions.ts";
import type { KnownPools } from "./known-pools.ts";
import type { Log } from "./log.ts";
import type { Asking, ToWorker } from "./messages.ts";
import type { Bans } from "./pool/bans.ts";
import type { Joined, Learning, LookedUp } from "./pool/learning.ts";
import type { Ledger } from "./pool/ledger.ts";
import type { Monitor } from "./pool/monitor.ts";
import { isMeant, type PoolOrder, readPaused } from "./pool-orders.ts";
import type { PoolSlots } from "./pool-slots.ts";
import type { Recovery } from "./two-phase/recovery.ts";

/** Who is told of it, on the main thread and beyond. */
interface Audience {
	readonly log: Log;
	readonly slots: PoolSlots;
	readonly ledger: Ledger;
	readonly bans: Bans;
	readonly known: KnownPools;
	readonly monitor: Monitor;
	readonly learning: Learning;
	readonly recovery: Recovery;
	/** To all workers. */
	readonly send: (message: ToWorker) => void;
}

type Joining = Extract<Asking, { type: "join" }>;

export class Configuration {
	private current: Snapshot;
	private readonly read: (before: Snapshot) => Loaded;
	private readonly audience: Audience;

	/** @param read loads the configuration files again */
	constructor(snapshot: Snapshot, read: (before: Snapshot) => Loaded, audience: Audience) {
		this.current = snapshot;
		this.read = read;
		this.audience = audience;
	}

	get snapshot(): Snapshot {
		return this.current;
	}

	get pools(): PoolSpec[] {
		return allPools(this.current);
	}

	/** The one that the process starts with is in force. */
	begin(): void {
		this.discover(new Set());
	}

	/**
	 * Tells all who look at servers of those in force; with `require_healthcheck_on_discovery` new ones have to pass a check first.
	 * @param known keys of pools that were there before
	 */
	private discover(known: ReadonlySet<string>): void {
		const snapshot = this.current;
		const { bans, slots, monitor, recovery } = this.audience;
		bans.reach(snapshot, slots.byKey);
		if (snapshot.general.require_healthcheck_on_discovery)
			for (const { key } of this.pools) if (!known.has(key)) bans.unchecked(slots.of(key), now());
		monitor.reach(snapshot, slots.byKey);
		recovery.reach(snapshot);
	}

	/** Server connections that all pools may have together. */
	get size(): number {
		return this.pools.reduce((sum, { pool_size }) => sum + pool_size, 0);
	}

	/** Sends an order to all workers. @returns how many pools it is for */
	private order(order: "pause" | "resume" | "reconnect", pools: readonly PoolSpec[]): number {
		this.audience.send({ type: "order", order, keys: pools.map(({ key }) => key) });
		return pools.length;
	}

	/** @returns how many pools are meant */
	obey(order: PoolOrder): number {
		if (order.also !== undefined) this.audience.known.inherit(order.also, this.pools, learns(this.current));
		return this.order(order.order, this.audience.known.obey(order, this.pools));
	}

	reconnect(): void {
		this.audience.bans.lift("reconnect", now());
		this.order("reconnect", this.pools);
	}

	/**
	 * The process before has made way: the pools that it had paused are so here, and the others are held back no longer.
	 * @param paused by `writePaused`; null: it has not said so
	 */
	inherit(paused: string | null): void {
		const { known, log } = this.audience;
		const logins = readPaused(paused ?? "");
		if (logins === null) log.warn("takeover: the process of before does not say which pools are paused: none is");
		known.inherit(logins ?? [], this.pools, learns(this.current));
		const { pause = [], resume = [] } = Object.groupBy(this.pools, (spec) =>
			known.isPaused(spec) ? "pause" : "resume",
		);
		this.order("pause", pause);
		this.order("resume", resume);
		if (pause.length > 0) log.info(`takeover: ${pause.length} pools are paused as they were, until RESUME`);
	}

	// ---- users who are not in the configuration --------------------------------------------------------------------

	/** What a worker asks of them. */
	answer(asking: Asking): Promise<LookedUp | Joined> {
		if (asking.type === "join") return this.join(asking);
		return this.audience.learning.lookUp(asking.user, asking.database, asking.password);
	}

	private async join({ user, database, found, keys }: Omit<Joining, "type">): Promise<Joined> {
		const { learning, slots, log } = this.audience;
		try {
			const wanted = learning.join(user, database, found);
			const refusal = wanted && (await learning.tryOut(wanted, found, keys));
			if (refusal !== null) return refusal;
			// Another log-in, or a reload, may have come meanwhile.
			const spec = learning.join(user, database, found);
			if (spec === null) return null;
			const fresh = spec.pools.filter(({ key }) => !slots.byKey.has(key)).length;
			if (!slots.hasRoomFor(fresh))
				throw new PgError("FATAL", TOO_MANY_CONNECTIONS, `more than ${slots.capacity} pools`);
			this.relearn([{ user, database }], [spec]);
			return null;
		} catch (error) {
			const { sqlstate, message } = asPgError(error);
			log.error(`no pools for user "${user}" of database "${database}": ${message}`);
			return { sqlstate, message };
		}
	}

	/** The order as the process after has to hear it, which may not know some users yet. */
	forSuccessor(order: PoolOrder): PoolOrder {
		if (order.order === "resume") return order;
		const learned = this.current.clusters.filter(({ user }) => user.learned === true);
		const logins = learned.map(({ user: { name: user }, database }) => ({ user, database }));
		const also = [...(order.also ?? []), ...logins.filter((login) => isMeant(order, login))];
		return also.length === 0 ? order : { ...order, also };
	}

	private clusterOf({ user, database }: LoginKey): ClusterSpec | undefined {
		return this.current.clusters.find((each) => each.user.name === user && each.database === database);
	}

	/** Users who have clients here and whom the process that takes over may not know, or not have the keys of. */
	strangers(): Introduction[] {
		const { ledger, monitor } = this.audience;
		const { clusters } = this.current;
		const here = clusters.filter(
			(each) => isLearned(each) && clientsOf(ledger.tally, each.user.name, each.database) > 0,
		);
		return here.map(({ user: { name: user, passwords, password_hash, passed, learned }, database, pools }) => {
			const verifier = verifierOf(pools);
			const found = learned === true ? { passwords, password_hash, passed: passed === true } : { passwords: [] };
			return { user, database, found, keys: verifier === undefined ? null : monitor.keyring.keysOf(verifier) };
		});
	}

	/**
	 * The process before has clients of this user. What it says of it is not believed: a server is asked, as at a log-in.
	 * @returns why they have to stay there; null: they may come
	 */
	async introduce(said: Introduction): Promise<string | null> {
		const { monitor, send } = this.audience;
		const refusal = isNamed(this.clusterOf(said)) ? null : await this.meet(said);
		const verifier = verifierOf(this.clusterOf(said)?.pools ?? []);
		const { keys } = said;
		if (refusal !== null || verifier === undefined || keys === null) return refusal;
		if (monitor.keyring.learn(verifier, keys)) send({ type: "proven", verifier, keys });
		return monitor.keyring.has(verifier) ? null : "its servers ask for another password than it has logged in with";
	}

	private async meet({ user, database, found, keys }: Introduction): Promise<string | null> {
		const answer = await this.audience.learning.lookUp(user, database, found.passed ? found.passwords[0] : undefined);
		if ("sqlstate" in answer) return answer.message;
		if (answer.found === null) return answer.reason ?? "the new process does not know its user";
		// Whoever is connected there may have proven to have a password that is right no longer.
		if (!answer.found.listed && !isSame(answer.found, found)) return "its password has been changed";
		const refusal = await this.join({ user, database, found: answer.found, keys });
		return refusal?.message ?? null;
	}

	/** A worker has answered `ask-slots`. */
	noPools(none: readonly number[]): void {
		const { slots, ledger, known } = this.audience;
		for (const slot of slots.answered(none, (each) => ledger.isUnused(each))) known.clear(slot);
	}

	/** Looks for rows of pools that have left. */
	private reuseSlots(): void {
		const { slots, ledger, send } = this.audience;
		const asked = slots.ask(ledger.workers);
		if (asked.length > 0) send({ type: "ask-slots", slots: asked });
	}

	/** Forgets whom nobody is any more, and gets back what pools have left. */
	forgetLearned(): void {
		this.reuseSlots();
		const { learning, ledger, known } = this.audience;
		// Who is paused stays so: nobody is let through by coming later.
		const clients = (user: string, database: string) =>
			clientsOf(ledger.tally, user, database) + Number(known.isPaused({ user, database }));
		const gone = learning.idle(now(), clients);
		if (gone.length > 0)
			this.relearn(
				gone.map(({ name: user, database }) => ({ user, database })),
				[],
			);
	}

	/** Learned users are not, or not any more, what they were: `specs` take the place of these logins' clusters. */
	private relearn(logins: readonly LoginKey[], specs: readonly ClusterSpec[]): void {
		const { learning, bans, slots } = this.audience;
		const known = new Set(this.pools.map(({ key }) => key));
		const next = learning.replace(logins, specs);
		const kept = new Set(allPools(next).map(({ key }) => key));
		for (const key of known) if (!kept.has(key)) bans.vitals.clear(slots.of(key));
		slots.assign(next);
		this.current = next;
		this.discover(known);
		const update = { ...firstUpdate(next), generalChanged: false, hba: null, writeFunctions: null, clusters: specs };
		this.put({ ...update, gone: specs.length > 0 ? [] : logins });
	}

	/** Has the workers put an update in force. */
	private put(update: Update): void {
		const { slots, known, send } = this.audience;
		const keys = update.clusters.flatMap((cluster) => cluster.pools.map(({ key }) => key));
		const rows = new Map(keys.map((key) => [key, slots.of(key)]));
		const paused = known.reach(this.pools, update.gone);
		send({ type: "reload", update, slots: rows, paused });
	}

	// ---- reload ----------------------------------------------------------------------------------------------------

	/** @param force whatever is lost */
	reload(force: boolean): Reloaded {
		const { log, slots, learning, bans } = this.audience;
		const loaded = this.read(this.current);
		for (const note of loaded.notes) log.info(note);
		if (!loaded.ok) return this.refuse(loaded.problems.map(problemText));
		const lost = losses(this.current, loaded.snapshot);
		if (lost.length > 0 && !force) return this.refuse(lost, true);
		const difference = diff(this.current, learning.with(loaded.snapshot));
		const { settings, pools, pluginsChanged, writeFunctionsChanged, clientTlsChanged, serverTlsChanged, next } =
			difference;
		if (!slots.hasRoomFor(pools.added.length))
			return this.refuse([`more than ${slots.capacity} pools: restart to add more`]);
		const notices: Notice[] = [];
		const tell = (severity: Notice["severity"], message: string) => {
			if (severity === "WARNING") log.warn(message);
			else log.info(message);
			notices.push({ severity, message });
		};
		for (const warning of [...loaded.snapshot.warnings, ...lost.map((each) => `forced: ${each}`)])
			tell("WARNING", warning);
		for (const change of settings)
			tell(change.reloadable ? "NOTICE" : "WARNING", `reload: ${settingChangeText(change)}`);
		if (pluginsChanged) tell("WARNING", "reload: [[plugins]] differs: takes effect after a restart");
		if (clientTlsChanged) tell("NOTICE", "reload: TLS certificates read anew: clients from now on are shown them");
		if (serverTlsChanged) tell("NOTICE", "reload: TLS towards servers differs: their connections are replaced");
		if (difference.peersChanged) tell("NOTICE", "reload: [[peers]] differs");
		if (difference.hbaChanged) tell("NOTICE", "reload: [[hba]] read anew: log-ins from now on meet it");
		for (const name of difference.shardingChanged)
			tell("NOTICE", `reload: what is sharded of database "${name}" differs: statements from now on are routed by it`);
		if (writeFunctionsChanged) tell("NOTICE", "reload: [[write_functions]] differs");
		const known = new Set(this.pools.map(({ key }) => key));
		slots.assign(next);
		this.current = next;
		learning.reach(next);
		for (const { key } of pools.removed) bans.vitals.clear(slots.of(key));
		bans.lift("reload", now());
		this.discover(known);
		log.set(next.general.log_format, next.general.log_level);
		this.put(updateOf(difference));
		const counts = `${pools.added.length} pools added, ${pools.changed.length} changed, ${pools.removed.length} removed`;
		tell("NOTICE", `configuration reloaded: ${counts}`);
		return { refused: [], forcible: false, notices };
	}

	private refuse(refused: readonly string[], forcible = false): Reloaded {
		const all = forcible ? "; RELOAD FORCE on the admin database takes it all the same" : "";
		for (const problem of refused) this.audience.log.error(`reload refused: ${problem}${all}`);
		return { refused, forcible, notices: [] };
	}
}

/** Whether the configuration itself has this user. */
function isNamed(cluster: ClusterSpec | undefined): boolean {
	return cluster !== undefined && cluster.user.learned !== true;
}

/** What log-ins to these servers have to fit, where no password is known for them. */
function verifierOf(pools: readonly PoolSpec[]): string | undefined {
	return pools.find(({ server_verifier }) => server_verifier !== undefined)?.server_verifier;
}

/** Whether what lets a user in is what it was. */
function isSame(found: Introduction["found"], before: Introduction["found"]): boolean {
	const secrets = ({ passwords, password_hash, passed }: Introduction["found"]) =>
		JSON.stringify([passwords, password_hash ?? null, passed === true]);
	return secrets(found) === secrets(before);
}
