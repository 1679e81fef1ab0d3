// The proxy as the main thread sees it: worker threads, what they must share, reload, shutdown, and the answers of the
// admin database. Made and run by main.ts.

import { randomBytes } from "node:crypto";
import type { Socket } from "bun";
import { answer } from "./admin/commands.ts";
import { type HealthEndpoint, isUp, serveHealth } from "./admin/health-endpoint.ts";
import type { AdminSource, Reloaded } from "./admin/source.ts";
import { now } from "./clock.ts";
import { firstUpdate } from "./config/diff.ts";
import type { Loaded } from "./config/load.ts";
import { learns } from "./config/resolve.ts";
import type { Snapshot } from "./config/snapshot.ts";
import { Configuration } from "./configuration.ts";
import { Contain } from "./contain.ts";
import { cannotListen, ProtocolError, traceOf } from "./errors.ts";
import { KnownPools } from "./known-pools.ts";
import type { Log } from "./log.ts";
import { UnixDoor } from "./login/unix-door.ts";
import type { AnyRow, FromWorker, RowKind, ToWorker, WorkerSetup } from "./messages.ts";
import { releaseCode } from "./net/code.ts";
import { Descriptors } from "./net/descriptors.ts";
import { closeDescriptor, endListener } from "./net/options.ts";
import { settle } from "./net/outgoing.ts";
import type { ServiceManager } from "./net/service-manager.ts";
import type { Successor } from "./net/successor.ts";
import { type Predecessor, type Takeover, TakeoverListener } from "./net/takeover.ts";
import { listenUnix, listenUnixPassed, type UnixListener, unixSocketPath } from "./net/unix.ts";
import { Passage } from "./passage.ts";
import type { HostDescription } from "./plugin/abi.ts";
import { PluginHost } from "./plugin/host.ts";
import { Bans } from "./pool/bans.ts";
import { Learning } from "./pool/learning.ts";
import { Ledger } from "./pool/ledger.ts";
import { Monitor } from "./pool/monitor.ts";
import { Vitals } from "./pool/vitals.ts";
import { type PoolOrder, writePaused } from "./pool-orders.ts";
import { PoolSlots } from "./pool-slots.ts";
import { Attendance, ENDED, LOOK, stuckListeners } from "./stats/attendance.ts";
import { Counters } from "./stats/counters.ts";
import { Loads } from "./stats/loads.ts";
import { AverageSampler } from "./status/averages.ts";
import { Gathering } from "./status/gathering.ts";
import type { ClientRow, ListenerRow, PoolRow, RouteRow, ServerRow } from "./status/rows.ts";
import { Recovery } from "./two-phase/recovery.ts";
import { versionLine } from "./version.ts";

/** A worker as the main thread reaches it: a thread, or with `workers = 0` the Worker on this one. */
interface Thread {
	send(message: ToWorker): void;
}

/** ms between two looks for learned users whom nobody is any more. */
const TIDY_LEARNED = 1_000;
/** File descriptors that a worker thread takes for itself, as seen with Bun 1.4.5. */
const FILES_OF_A_WORKER = 4;
/** ms between two counts of the descriptors that are open beside connections (`Descriptors.measure`). */
const MEASURE = 60_000;
/** ms that a worker may take to close before the process ends without it: a plugin may be stuck in its route. */
const CLOSE_TIMEOUT = 5_000;
/** ms from a load of the configuration to the garbage collection of what it has left behind. */
const TIDY = 1_000;

/** What main.ts has from other processes. */
export interface Passed {
	readonly service: ServiceManager;
	/** The process that this one replaces. */
	readonly predecessor: Takeover | null;
}

export class Proxy implements AdminSource {
	readonly version = versionLine();
	private readonly log: Log;
	private readonly service: ServiceManager;
	private readonly predecessor: Takeover | null;
	/** PAUSE and RESUME wait until it has made way: sooner it would not hear of them, and what it has paused would undo them. */
	private readonly inherited = Promise.withResolvers<void>();
	/** `WorkerSetup.sockets`; empty again once it leaves. */
	private sockets: readonly number[];
	readonly takeover: TakeoverListener;
	private readonly passage: Passage;
	/** Another process goes on in our place; clients may stay for a while. */
	private isReplaced = false;
	private readonly plugins: PluginHost;
	private readonly description: HostDescription;
	private readonly threads: Thread[] = [];
	private readonly workers: number;
	private readonly slots: PoolSlots;
	private readonly configuration: Configuration;
	private readonly known: KnownPools;
	private readonly ledger: Ledger;
	private readonly counters: Counters;
	private readonly attendance: Attendance;
	/** File descriptor of each worker's listener; `ENDED` when it was ended because that worker is stuck. */
	private readonly listeners: number[] = [];
	private readonly bans: Bans;
	readonly contain: Contain;
	private readonly monitor: Monitor;
	private readonly learning: Learning;
	private readonly descriptors: Descriptors;
	private readonly over = Promise.withResolvers<number>();
	readonly recovery: Recovery;
	private readonly scramSecret = Uint8Array.from(randomBytes(32));
	private listening = 0;
	private drained = 0;
	private closed = 0;
	private stopping = false;
	private closing = false;
	private shutdownTimer: Timer | null = null;
	private readonly unixDoor: UnixDoor;
	private readonly openUnix = (socket: Socket<undefined>): void => this.unixDoor.accept(socket);
	private unixListener: UnixListener | null = null;
	private health: HealthEndpoint | null = null;
	readonly channels = (): Promise<ListenerRow[]> => this.gathering.ask("listeners");
	readonly shutdown = (): void => this.stop("SHUTDOWN");
	readonly servers = (): Promise<ServerRow[]> => this.gathering.ask("servers");
	readonly ban = (id: number | undefined): number =>
		this.known.each(this.configuration.pools, id, (slot) => this.bans.banByHand(slot, now()));
	readonly unban = (id: number | undefined): number =>
		this.known.each(this.configuration.pools, id, (slot) => this.bans.unbanByHand(slot, now()));
	readonly healthcheck = (id: number | undefined): number =>
		this.known.each(this.configuration.pools, id, (slot) => this.bans.vitals.suspect(slot));
	private readonly gathering: Gathering<RowKind, AnyRow>;
	readonly averages: AverageSampler;
	/** What is done again and again, until all is closed. */
	private readonly periodic: Timer[] = [];

	/** @param plugins those that were loaded @param read loads the configuration files again, for a reload */
	constructor(
		snapshot: Snapshot,
		plugins: HostDescription,
		log: Log,
		passed: Passed,
		read: (before: Snapshot) => Loaded,
	) {
		this.service = passed.service;
		this.predecessor = passed.predecessor;
		if (this.predecessor === null) this.inherited.resolve();
		this.sockets = this.predecessor?.sockets ?? this.service.sockets;
		this.description = plugins;
		this.plugins = new PluginHost(plugins, { log });
		this.log = log;
		this.workers = Math.max(1, snapshot.general.workers);
		this.slots = new PoolSlots(snapshot);
		const { capacity, byKey } = this.slots;
		this.ledger = new Ledger(capacity, this.workers);
		this.descriptors = new Descriptors(this.ledger.descriptorCounts);
		this.counters = new Counters(capacity, this.workers);
		this.attendance = new Attendance(this.workers);
		this.bans = new Bans(new Vitals(capacity), log, snapshot, byKey);
		this.known = new KnownPools(byKey, this.ledger, this.counters, this.bans, this.predecessor !== null);
		this.contain = new Contain((error) => {
			if (error instanceof ProtocolError) log.warn(`a server said to the monitor what it should not: ${error.message}`);
			else log.error(`internal error: ${traceOf(error)}`);
		}, settle);
		this.monitor = new Monitor(this.bans, log, this.contain, snapshot, this.descriptors);
		this.learning = new Learning(snapshot, log, this.monitor);
		this.recovery = new Recovery(this.monitor, log);
		const { slots, ledger, bans, known, monitor, learning, recovery } = this;
		const send = (message: ToWorker) => this.send(message);
		const audience = { log, slots, ledger, bans, known, monitor, learning, recovery, send };
		this.configuration = new Configuration(snapshot, read, audience);
		this.averages = new AverageSampler();
		const { host, port, takeover_timeout } = snapshot.general;
		const predecessor = {
			offer: () => this.offer(),
			paused: () => writePaused(this.known.logins),
			onTakenOver: (pid: number, by: Successor) => this.onReplaced(pid, by),
			refused: (why: string) => log.warn(`takeover refused: ${why}`),
		};
		const tell = (worker: number, message: ToWorker) => this.threads[worker]?.send(message);
		const obey = (order: PoolOrder) => this.obey(order);
		const { attendance, workers, contain, configuration: users } = this;
		this.passage = new Passage({ log, contain, workers, attendance, send: tell, obey, users });
		this.takeover = new TakeoverListener({ host, port }, predecessor, contain, takeover_timeout);
		const hand = (worker: number, fd: number) => this.handClient(worker, fd);
		this.unixDoor = new UnixDoor(this.descriptors, attendance, workers, hand);
		const respondents = {
			count: workers,
			get stuck() {
				return attendance.stuck;
			},
			send: (id: number, of: RowKind) => this.send({ type: "rows", id, of }),
		};
		this.gathering = new Gathering<RowKind, AnyRow>(respondents, contain);
	}

	/** Serves until the process is told to stop. @returns its exit code */
	run(): Promise<number> {
		this.start().catch((error) => this.fail(error instanceof Error ? error.message : String(error)));
		return this.over.promise;
	}

	private async start(): Promise<void> {
		const { host, port, stats_period, workers, unix_socket_dir } = this.configuration.snapshot.general;
		this.descriptors.measure(FILES_OF_A_WORKER * this.workers);
		const shortage = this.descriptors.shortage(FILES_OF_A_WORKER * this.workers, this.configuration.size);
		if (shortage !== null) this.log.warn(shortage);
		// The plugins' init comes before anything listens: no client may be routed before it.
		this.plugins.init();
		if (this.sockets.length === 0 && (workers > 1 || unix_socket_dir !== undefined)) {
			// Workers share the port by SO_REUSEPORT, and so would another proxy, unnoticed: listen once without it, which fails then.
			// And that before its socket's file is looked at, where one that has no time to answer would be taken for dead.
			try {
				Bun.listen({ hostname: host, port, socket: { data() {} } }).stop(true);
			} catch (error) {
				throw cannotListen(error, `${host}:${port}`);
			}
		}
		this.configuration.begin();
		if (this.predecessor === null)
			await this.listenBeside((error) => {
				throw error;
			});
		const loads = new Loads(this.workers);
		for (let index = 0; index < this.workers; index++) {
			const setup: WorkerSetup = {
				index,
				workers: this.workers,
				version: this.version,
				update: firstUpdate(this.configuration.snapshot),
				plugins: this.description,
				slots: this.slots.byKey,
				capacity: this.slots.capacity,
				ledger: this.ledger.memory,
				counters: this.counters.memory,
				vitals: this.bans.vitals.memory,
				attendance: this.attendance.memory,
				loads: loads.memory,
				scramSecret: this.scramSecret,
				sockets: this.sockets,
				isSuccessor: this.predecessor !== null,
				instance: this.recovery.instance,
			};
			if (workers === 0) await this.startHere(setup);
			else this.threads.push(this.startThread(setup));
		}
		// With `workers = 0` nobody could see the worker stuck: it has the very thread that would look.
		if (workers > 0) this.periodic.push(this.contain.every(LOOK, () => this.watchWorkers()));
		this.periodic.push(this.contain.every(TIDY_LEARNED, () => this.closing || this.configuration.forgetLearned()));
		this.periodic.push(this.contain.every(MEASURE, () => this.descriptors.measure()));
		this.tidy();
		const sample = () => this.averages.sample(this.known.samples(this.configuration.pools), Date.now());
		this.periodic.push(this.contain.every(stats_period, sample));
	}

	/** Opens what no two processes have at once: only clients' sockets go on when another takes over. */
	private async listenBeside(onError: (error: Error) => void): Promise<void> {
		const { healthcheck_port, port, takeover_socket, unix_socket_dir, unix_socket_mode } =
			this.configuration.snapshot.general;
		const open = [
			async () => {
				if (healthcheck_port === undefined) return;
				this.health = serveHealth(healthcheck_port, {
					isUp: () => isUp(this.pools(), learns(this.configuration.snapshot)),
					isLive: () => this.attendance.isWell,
					isStopping: () => this.stopping,
				});
				this.log.info(`healthcheck endpoint http://0.0.0.0:${this.health.port}`);
			},
			async () => {
				const path = unix_socket_dir === undefined ? null : unixSocketPath(unix_socket_dir, port);
				const { unix } = this.service;
				this.unixListener = listenUnixPassed(this.predecessor?.unix ?? null, path, this.openUnix, unix);
				if (path === null || this.unixListener !== null || unix !== null) return;
				this.unixListener = await listenUnix(path, Number.parseInt(unix_socket_mode, 8), this.openUnix);
			},
			async () => takeover_socket !== undefined && this.takeover.listen(takeover_socket),
		];
		for (const each of open) await each().catch(onError);
	}

	/**
	 * Collects what a load has left: the main thread does too little from now on to free the memory of thousands of entries. And what
	 * it took of the executable, most of which is for starting.
	 */
	private tidy(): void {
		// With `workers = 0` this thread has clients, who would wait for it.
		if (this.configuration.snapshot.general.workers === 0) return;
		this.contain.later(TIDY, null, () => {
			Bun.gc(true);
			releaseCode();
		});
	}

	private async startHere(setup: WorkerSetup): Promise<void> {
		// Not needed where workers are threads, and then not loaded.
		const { Worker: LocalWorker } = await import("./worker.ts");
		const worker = new LocalWorker(setup, (message) => this.onMessage(setup.index, message));
		// It has something to be told as soon as it listens.
		this.threads.push({ send: (message) => worker.onMessage(message) });
		worker.start(false);
	}

	private startThread(setup: WorkerSetup): Thread {
		// An entry of the executable beside main (scripts/build.ts): the path must be written out just here.
		const thread = new Worker(new URL("./worker-thread.ts", import.meta.url));
		thread.addEventListener("message", (event: MessageEvent<FromWorker>) =>
			this.contain.guard(null, () => this.onMessage(setup.index, event.data)),
		);
		thread.addEventListener("error", (event: ErrorEvent) => this.fail(`worker ${setup.index} died: ${event.message}`));
		thread.addEventListener("close", () => {
			if (!this.closing) this.fail(`worker ${setup.index} ended unexpectedly`);
		});
		const message: ToWorker = { type: "setup", setup };
		thread.postMessage(message);
		return { send: (message) => thread.postMessage(message) };
	}

	/** Has a worker take a client of the Unix socket, by its descriptor. */
	private handClient(worker: number, fd: number): boolean {
		const thread = this.stopping ? undefined : this.threads[worker];
		thread?.send({ type: "client", fd });
		return thread !== undefined;
	}

	private send(message: ToWorker): void {
		for (const thread of this.threads) thread.send(message);
	}

	// ---- workers speak ---------------------------------------------------------------------------------------------

	private onMessage(from: number, message: FromWorker): void {
		switch (message.type) {
			case "listening":
				this.listeners[from] = message.fd;
				if (++this.listening === this.workers) this.contain.when(null, this.onListening(), () => {});
				break;
			case "failed":
				this.fail(message.reason);
				break;
			case "peer":
				this.threads[message.to]?.send(message.message);
				break;
			case "proven":
				if (this.monitor.keyring.learn(message.verifier, message.keys)) this.send(message);
				break;
			case "ask":
				this.contain.when(null, answer(message.sql, this, message.shape), (said) =>
					this.threads[from]?.send({ type: "answer", id: message.id, answer: said }),
				);
				break;
			case "look-up":
			case "join":
				this.contain.when(null, this.configuration.answer(message), (answer) =>
					this.threads[from]?.send({ type: "told", id: message.id, answer }),
				);
				break;
			case "no-pools":
				this.configuration.noPools(message.slots);
				break;
			case "doubt":
				this.learning.doubt(message.user, message.database);
				break;
			case "unfinished":
				this.recovery.unfinished(message.database, message.transaction);
				break;
			case "rows":
				this.gathering.received(message.id, from, message.rows);
				break;
			case "drained":
				if (++this.drained === this.workers && this.stopping) this.closeAll();
				break;
			case "crossing":
				this.passage.onReport(from, message.report);
				break;
			case "closed":
				if (++this.closed < this.workers) break;
				this.plugins.fini();
				this.over.resolve(0);
		}
	}

	private watchWorkers(): void {
		if (this.stopping) return;
		for (const worker of this.attendance.look()) {
			if (this.attendance.isStuck(worker)) {
				this.log.warn(
					`worker ${worker} does not come back to its event loop: its clients wait, new ones go to the others`,
				);
				this.gathering.giveUp(worker);
			} else {
				this.log.info(`worker ${worker} has come back to its event loop`);
				if (this.listeners[worker] === ENDED) this.threads[worker]?.send({ type: "listen" });
			}
		}
		// The end of a socket that another process has, too, would be its end there, where a listener that ended takes all of a thread's time.
		if (this.takeover.isOffered) return;
		for (const worker of stuckListeners(this.listeners, this.attendance)) {
			endListener(this.listeners[worker]!);
			this.listeners[worker] = ENDED;
		}
	}

	private async onListening(): Promise<void> {
		// Told to stop before it has taken the place of another process: that one goes on.
		if (this.stopping) return this.letGoOfSockets();
		if (this.predecessor !== null && !(await this.replace(this.predecessor))) return;
		// Not before: clients may wait there already, and nobody would take them.
		this.unixListener ??= listenUnixPassed(this.service.unix, null, this.openUnix);
		const { host, port } = this.configuration.snapshot.general;
		this.descriptors.measure();
		const where =
			this.service.sockets.length > 0 && this.predecessor === null
				? "sockets of the service manager"
				: `${host}:${port}`;
		this.log.info(`🐕 PgDog listening on ${where}`);
		this.service.ready();
		const { contain, service } = this;
		this.periodic.push(
			...service.attend(contain, { isWell: () => this.attendance.isWell, status: () => this.statusLine() }),
		);
		if (this.unixListener !== null) this.log.info(`🐕 PgDog listening on ${this.unixListener.path}`);
	}

	/** All workers listen on the sockets that were handed over: the process of before makes way. @returns false: this one goes */
	private async replace(predecessor: Takeover): Promise<boolean> {
		try {
			if (!predecessor.finish()) this.log.warn("takeover: the process of before does not say that it makes way");
		} catch (error) {
			this.fail((error as Error).message);
			return false;
		}
		this.configuration.inherit(predecessor.paused);
		// Clients come by the port, and would lose more than this.
		await this.listenBeside(({ message }) => this.log.error(`takeover: ${message}`));
		this.passage.welcome(predecessor.clients);
		this.inherited.resolve();
		return true;
	}

	/** `Predecessor.offer` */
	private offer(): ReturnType<Predecessor["offer"]> {
		if (this.stopping || this.listening < this.workers) return null;
		const tcp = this.sockets.length > 0 ? this.sockets : this.listeners.filter((fd) => fd !== ENDED);
		return { tcp, unix: this.unixListener };
	}

	/** Another process listens: what clients there are may stay as long as at a shutdown. */
	private onReplaced(pid: number, by: Successor): void {
		this.health?.stop();
		// It was told to stop meanwhile, and does so: its clients have no more time for that.
		if (this.stopping) return;
		this.isReplaced = true;
		this.service.passOn(pid);
		this.passage.lead(pid, by);
		this.leave(true, `goes on as process ${pid}; clients may stay here for $s`);
	}

	private statusLine(): string {
		const { connections } = this.descriptors;
		return `${connections} connections, ${this.ledger.usedByAll} of them to servers, of ${this.configuration.size} that pools may have`;
	}

	/** Ends the process with exit code 1: half a proxy is worse than none, and systemd starts a new one. */
	private fail(reason: string): void {
		this.log.error(reason);
		this.closing = true;
		this.unixListener?.stop();
		this.takeover.stop();
		this.service.endHeir();
		// The plugins' fini only while no worker listens: with clients, nobody knows what the threads are doing.
		if (this.listening === 0) this.plugins.fini();
		this.over.resolve(1);
	}

	// ---- shutdown --------------------------------------------------------------------------------------------------

	/** The first call lets transactions finish for `shutdown_timeout`; the second stops at once. */
	stop(signal: string): void {
		if (this.stopping && !this.isReplaced) {
			this.log.warn(`${signal} again: stopping at once`);
			this.closeAll();
			return;
		}
		this.isReplaced = false;
		this.passage.end();
		this.leave(false, `is shutting down [${signal}], waiting up to $s for clients to finish transactions`);
	}

	/** @param why for the log; `$` is the time in which clients may leave */
	private leave(gently: boolean, why: string): void {
		this.stopping = true;
		const { shutdown_timeout, shutdown_termination_timeout } = this.configuration.snapshot.general;
		this.log.info(`🐕 PgDog ${why.replace("$", String(shutdown_timeout / 1000))}`);
		this.service.stopping(shutdown_timeout + (shutdown_termination_timeout ?? 0) + CLOSE_TIMEOUT);
		this.unixListener?.stop(gently);
		this.unixListener = null;
		this.takeover.stop();
		if (this.listening >= this.workers) this.letGoOfSockets();
		this.send({ type: "drain", gently });
		if (this.shutdownTimer !== null) clearTimeout(this.shutdownTimer);
		this.shutdownTimer = this.contain.later(shutdown_timeout, null, () => {
			this.log.warn("terminating client connections due to shutdown timeout");
			if (shutdown_termination_timeout === undefined) {
				this.closeAll();
				return;
			}
			this.send({ type: "cancel-all" });
			this.shutdownTimer = this.contain.later(shutdown_termination_timeout, null, () => this.closeAll());
		});
	}

	/** All workers have descriptors of their own. As long as there are ours, clients come to a queue where nobody may accept any more. */
	private letGoOfSockets(): void {
		for (const fd of this.sockets) closeDescriptor(fd);
		this.sockets = [];
	}

	private closeAll(): void {
		if (this.closing) return;
		this.closing = true;
		if (this.shutdownTimer !== null) clearTimeout(this.shutdownTimer);
		for (const timer of this.periodic) clearInterval(timer);
		for (const each of [this.monitor, this.recovery, this.learning]) each.stop();
		this.health?.stop();
		this.passage.end();
		this.send({ type: "close" });
		this.contain.later(CLOSE_TIMEOUT, null, () => {
			// The worker may be inside a plugin, and to wait for that could take for ever.
			this.log.warn("a worker does not end: leaving without it, and without the plugins' fini");
			this.over.resolve(0);
		});
	}

	// ---- the admin database ----------------------------------------------------------------------------------------

	snapshot(): Snapshot {
		return this.configuration.snapshot;
	}

	get stuckWorkers(): readonly number[] {
		return [...new Set([...this.attendance.stuck, ...this.gathering.late])].sort((a, b) => a - b);
	}

	async clients(): Promise<ClientRow[]> {
		// One that went from one worker to another meanwhile may have a row of both.
		const rows = await this.gathering.ask<ClientRow>("clients");
		return [...new Map(rows.map((row) => [row.id, row])).values()];
	}

	async routes(): Promise<RouteRow[]> {
		const rows = await this.gathering.ask<RouteRow>("routes");
		return rows.sort((a, b) => b.time - a.time);
	}

	pools(): PoolRow[] {
		return this.known.rows(this.configuration.pools);
	}

	get isServing(): boolean {
		return this.listening >= this.workers && !this.stopping;
	}

	async reload(force = false): Promise<Reloaded> {
		const { isServing } = this;
		if (isServing) this.service.reloading();
		try {
			const reloaded = this.configuration.reload(force);
			if (reloaded.refused.length === 0) {
				this.tidy();
				await this.obeyed();
			}
			return reloaded;
		} finally {
			// It may have been told to stop while workers were waited for.
			if (isServing && !this.stopping) this.service.ready();
		}
	}

	pause(user: string | null = null, database: string | null = null): Promise<number> {
		return this.order({ order: "pause", user, database });
	}

	resume(user: string | null = null, database: string | null = null): Promise<number> {
		return this.order({ order: "resume", user, database });
	}

	private async order(order: PoolOrder): Promise<number> {
		await this.inherited.promise;
		const [count] = await Promise.all([this.obey(order), this.passage.pass(order)]);
		return count;
	}

	private async obey(order: PoolOrder): Promise<number> {
		const count = this.configuration.obey(order);
		await this.obeyed();
		return count;
	}

	async reconnect(): Promise<void> {
		this.configuration.reconnect();
		await this.obeyed();
	}

	/** All workers have done what they were sent; those that are stuck, or take too long, are not waited for. */
	private async obeyed(): Promise<void> {
		await this.gathering.ask("nothing");
	}
}
