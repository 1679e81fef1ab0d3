// One thread's share of the proxy: a listener, the clients it accepted, and its share of each pool. Everything that a
// thread knows hangs off one Worker, so that several can live in a process (tests), or one on the main thread.
// Talks to the main thread by messages (messages.ts); knows every room, and only proxy.ts and worker-thread.ts know it.

import { randomInt } from "node:crypto";
import type { Socket, SocketHandler } from "bun";
import { shapeOf } from "./admin/command.ts";
import { AdminSessions } from "./admin/sessions.ts";
import { Keyring } from "./auth/keyring.ts";
import { ScramCache, type ScramKeys } from "./auth/scram-keys.ts";
import type { MovingServer } from "./backend/moving-server.ts";
import { ParameterSets } from "./backend/parameters.ts";
import { Statements } from "./backend/statements.ts";
import { CancelRequests } from "./client/cancel-requests.ts";
import { SHUTTING_DOWN } from "./client/client.ts";
import { Clients } from "./client/clients.ts";
import type { ClientContext, ClientHandle } from "./client/context.ts";
import { Crossing } from "./client/crossing.ts";
import { Moves, type MovesContext } from "./client/moves.ts";
import { Seats } from "./client/seats.ts";
import { Budget } from "./client/share.ts";
import { now } from "./clock.ts";
import type { Update } from "./config/diff.ts";
import type { HbaEntry } from "./config/hba.ts";
import type { General, Tcp } from "./config/settings.ts";
import type { Admin, ClusterSpec, PoolSpec, User } from "./config/snapshot.ts";
import type { TlsFiles } from "./config/tls.ts";
import { Contain } from "./contain.ts";
import { ProtocolError, traceOf } from "./errors.ts";
import { createLog, type Log } from "./log.ts";
import { Door } from "./login/door.ts";
import { Listener, type ListenerOwner } from "./login/listener.ts";
import { Logins } from "./logins.ts";
import type { AnyRow, Asking, FromWorker, PeerMessage, RowKind, ToWorker, WorkerSetup } from "./messages.ts";
import type { Dialling } from "./net/connect.ts";
import { Descriptors, Room } from "./net/descriptors.ts";
import { Names } from "./net/names.ts";
import { closeDescriptor, setKeepAlive } from "./net/options.ts";
import { settle } from "./net/outgoing.ts";
import { Lines } from "./net/standard-error.ts";
import { adoptSocket, type Stream, socketHandlers } from "./net/stream.ts";
import { OnceAMinute, timesText } from "./once-a-minute.ts";
import { createFactsCache } from "./parser/facts-cache.ts";
import { PluginHost } from "./plugin/host.ts";
import { Bans } from "./pool/bans.ts";
import { Caps } from "./pool/caps.ts";
import type { PoolContext } from "./pool/context.ts";
import { NO_PLACE, placeDatabases } from "./pool/databases.ts";
import { Ears } from "./pool/ear.ts";
import { Filling } from "./pool/filling.ts";
import type { Found } from "./pool/informant.ts";
import type { Joined, LookedUp } from "./pool/learning.ts";
import { Ledger } from "./pool/ledger.ts";
import { Permit } from "./pool/permit.ts";
import { Pool } from "./pool/pool.ts";
import type { Lesson } from "./pool/reported.ts";
import { Vitals } from "./pool/vitals.ts";
import { RouteLog } from "./router/route-log.ts";
import { Attendance } from "./stats/attendance.ts";
import { Counters, Stat } from "./stats/counters.ts";
import { Loads } from "./stats/loads.ts";
import { type ClientRow, clientRow, serverRow } from "./status/rows.ts";

/** ms between two ticks of the janitor: every timeout is rounded up to them. */
const TICK = 100;
/** Ticks without any client after which a worker that is replaced has none. */
const DESERTED = 5;
/** Bytes that large messages of all clients may take until they are sent on: four of the longest that is routed. A guess. */
const COLLECTED = 256 << 20;

export class Worker implements PoolContext, MovesContext<ClientRow>, ListenerOwner {
	readonly worker: number;
	readonly instance: string;
	readonly ledger: Ledger;
	readonly bans: Bans;
	readonly filling: Filling;
	readonly caps: Caps;
	readonly sets = new ParameterSets();
	readonly collected = new Budget(COLLECTED);
	readonly statements: Statements;
	readonly facts = createFactsCache();
	readonly scram: ScramCache;
	readonly keyring = new Keyring();
	readonly log: Log;
	readonly plugins: PluginHost | null;
	readonly contain: Contain;
	readonly handlers: SocketHandler<Stream>;
	readonly names = new Names(
		() => this.general.dns_ttl,
		// Every worker looks names up for itself; one of them logs what has come of it.
		(line) => (this.worker === 0 ? this.log.warn(line) : undefined),
	);
	readonly routes = new RouteLog();
	readonly ears = new Ears(this);
	time = now();
	generation = 0;
	stopping = false;
	private drained = false;
	/** Ticks without any client since another process took over; -1: none has. */
	private deserted = -1;
	/** `Vitals.version` and `Vitals.suspicions` as of the last tick. */
	private vitalsVersion = 0;
	private suspicions = 0;

	private readonly setup: WorkerSetup;
	private readonly post: (message: FromWorker) => void;
	/** The settings in force. */
	general: General;
	tcp: Tcp;
	tls: TlsFiles;
	admin: Admin;
	hba: readonly HbaEntry[] = [];
	wildcard: boolean;
	private readonly counters: Counters;
	private readonly attendance: Attendance;
	readonly loads: Loads;
	readonly rowOf = clientRow;
	/** Pools of the configuration, by `PoolSpec.key` and by slot. */
	private readonly pools = new Map<string, Pool>();
	private readonly poolsBySlot = new Map<number, Pool>();
	/** Pools that left the configuration and still have servers. One that comes back is another Pool in the same slot. */
	private readonly leaving = new Set<Pool>();
	private readonly logins: Logins;
	readonly clients: Clients<ClientRow>;
	private readonly moves: Moves<ClientRow>;
	private readonly crossing: Crossing<ClientRow>;
	readonly descriptors: Descriptors;
	readonly seats: Seats;
	private readonly door: Door;
	private readonly admins: AdminSessions;
	private readonly cancels: CancelRequests;
	private readonly asked = new Map<number, (answer: LookedUp | Joined) => void>();
	private lastAsked = 0;
	private lastSerial = 0;
	private readonly listener: Listener;
	private readonly deafness = new OnceAMinute();
	private janitor: Timer | null = null;

	constructor(setup: WorkerSetup, post: (message: FromWorker) => void) {
		this.setup = setup;
		this.post = post;
		this.worker = setup.index;
		this.instance = setup.instance;
		this.admins = new AdminSessions(setup.version, (question) => post({ type: "ask", ...question }));
		const { general } = setup.update;
		this.general = general;
		this.tcp = setup.update.tcp;
		this.tls = setup.update.tls;
		this.admin = setup.update.admin;
		this.wildcard = setup.update.wildcard;
		const { log_format, log_level } = general;
		this.log = createLog(log_format, log_level, new Lines());
		const plugins = new PluginHost(setup.plugins, { log: this.log });
		this.plugins = plugins.active ? plugins : null;
		this.ledger = new Ledger(setup.capacity, setup.workers, setup.ledger);
		this.descriptors = new Descriptors(this.ledger.descriptorCounts);
		this.seats = new Seats(this, this.descriptors);
		this.door = new Door(this, this.descriptors, (room) => this.onFull(room));
		this.bans = new Bans(new Vitals(setup.capacity, setup.vitals), this.log, { general, clusters: [] }, setup.slots);
		this.logins = new Logins(this.pools, this.bans.vitals, this.plugins);
		this.caps = new Caps(this, (to, message) => this.toPeer(to, message));
		this.filling = new Filling(this.ledger, this.bans, this.log);
		this.counters = new Counters(setup.capacity, setup.workers, setup.counters);
		this.listener = new Listener(this, setup.sockets);
		this.attendance = new Attendance(setup.workers, setup.attendance);
		this.loads = new Loads(setup.workers, setup.loads);
		const tell = (to: number, message: PeerMessage) => this.toPeer(to, message);
		// Not those that clients have who come from the process before, as far as chance goes.
		const lastId = setup.isSuccessor ? randomInt(2 ** 23) : 0;
		this.clients = new Clients(this.worker, tell, general.peer_id, setup.workers, lastId);
		this.cancels = new CancelRequests(this, setup.workers, (to, message) => this.toPeer(to, message));
		this.moves = new Moves(this, setup.workers);
		this.crossing = new Crossing(this, this.moves, (report) => post({ type: "crossing", report }), setup.isSuccessor);
		this.scram = new ScramCache({ secret: setup.scramSecret });
		this.statements = new Statements(() => this.ledger.nextStatement());
		this.contain = new Contain((error) => this.onFailure(error), settle);
		this.handlers = socketHandlers((error, stream) => this.contain.failed(error, stream));
		this.configure(setup.update, setup.slots, new Set(setup.isSuccessor ? setup.slots.keys() : []));
	}

	/** @param shared other workers listen on the same port */
	start(shared: boolean): void {
		this.listener.listen(shared);
		this.janitor = this.contain.every(TICK, () => this.tick());
		this.tick();
	}

	onListening(fd: number): void {
		this.post({ type: "listening", fd });
	}

	onCannotListen({ message }: Error): void {
		const times = this.deafness.due(now());
		if (times > 0) this.log.warn(`worker ${this.worker} cannot listen again yet: ${message}${timesText(times)}`);
	}

	/** Logs what `Contain` caught: a bug, or a server that broke the protocol. Either costs the connection that it happened in. */
	private onFailure(error: unknown): void {
		if (error instanceof ProtocolError) this.log.warn(`server broke the protocol: ${error.message}`);
		else this.log.error(`internal error: ${traceOf(error)}`);
	}

	get dialling(): Dialling {
		const { handlers, descriptors, tcp } = this;
		return { handlers, keepAlive: tcp, descriptors };
	}

	accept(socket: Socket<Stream>): void {
		const { remoteAddress, remotePort } = socket;
		// Joined it is one string: a template would keep its pieces, for as long as nobody reads it.
		// One that was reset before it was accepted has none any more; what it has sent is read all the same.
		const address = remoteAddress === undefined ? "unknown" : [remoteAddress, remotePort].join(":");
		setKeepAlive(socket, this.tcp);
		this.door.enter(socket, address);
	}

	/** Counts and logs that a client is turned away for want of file descriptors. */
	private onFull(room: Room): void {
		// The client has not said its user and database: its error is counted only where there is one login in all.
		const login = this.logins.only;
		if (room === Room.None && login !== null) login.cluster.first.counters[Stat.errors]!++;
		const times = this.ledger.descriptors.due(now());
		if (times === 0) return;
		const { limit } = this.descriptors;
		const [used, size] = this.connections();
		this.log.warn(
			`sorry, too many clients already: of the ${limit} file descriptors that this process may have (LimitNOFILE, ulimit -n) ` +
				`the rest is for server connections, ${used} of ${size}${timesText(times)}`,
		);
	}

	/** Server connections that all pools have, and may have. */
	private connections(): [used: number, size: number] {
		return [this.ledger.usedByAll, this.logins.size];
	}

	// ---- what pools and clients ask of their worker ----------------------------------------------------------------

	find(user: string, database: string): ReturnType<Logins["find"]> {
		return this.logins.find(user, database);
	}

	openAdmin(stream: Stream, address: string, parameters: ReadonlyMap<string, string>): void {
		this.admins.open(stream, address, parameters, shapeOf(this.admin));
	}

	/** Asks the main thread about a user whom the configuration does not have. */
	private ask<T extends LookedUp | Joined>(question: Asking): Promise<T> {
		const { promise, resolve } = Promise.withResolvers<T>();
		const id = ++this.lastAsked;
		this.asked.set(id, (answer) => resolve(answer as T));
		this.post({ ...question, id });
		return promise;
	}

	lookUp(user: string, database: string, password?: string): Promise<LookedUp> {
		return this.ask<LookedUp>({ type: "look-up", user, database, password });
	}

	join(user: string, database: string, found: Found, keys: ScramKeys | null): Promise<Joined> {
		return this.ask<Joined>({ type: "join", user, database, found, keys: keys && { ...keys } });
	}

	readonly doubt = (user: string, database: string): void => this.post({ type: "doubt", user, database });
	readonly onUnfinished = (database: string, transaction: string): void =>
		this.post({ type: "unfinished", database, transaction });
	readonly nextSerial = (): number => ++this.lastSerial;

	onProven({ password_hash }: User, keys: ScramKeys): void {
		if (password_hash !== undefined && this.keyring.learn(password_hash, keys))
			this.post({ type: "proven", verifier: password_hash, keys: { ...keys } });
	}

	register(client: ClientHandle, known?: number): number {
		return this.clients.register(client, known);
	}

	unregister(client: ClientHandle): void {
		this.clients.unregister(client);
		this.tellDrained();
	}

	/** Tells the main thread, once, that no client is left while draining: it closes everything when all workers have said so. */
	tellDrained(): void {
		if (!this.stopping || this.drained || !this.clients.isEmpty) return;
		this.drained = true;
		this.post({ type: "drained" });
	}

	onLogin(client: ClientHandle): void {
		if (!this.general.log_connections) return;
		const { user, database, address, auth } = client;
		const text = `client "${user}" connected to database "${database}" [${address}, auth: ${auth}]`;
		this.log.info(text, { user, database, address, auth, client: client.pid });
	}

	onLogout(client: Parameters<ClientContext["onLogout"]>[0], reason: string): void {
		if (!this.general.log_disconnections) return;
		const { user, database, address } = client;
		const text = `client "${user}" disconnected from database "${database}": ${reason} [${address}]`;
		this.log.info(text, { user, database, address, reason, client: client.pid });
	}

	cancel(pid: number, secret: Uint8Array, done: () => void): void {
		this.cancels.pass(pid, secret, done);
	}

	cancelElsewhere(pid: number, secret: Uint8Array): void {
		if (!this.setup.isSuccessor) return;
		this.post({ type: "crossing", report: { type: "cancel-elsewhere", pid, secret } });
	}

	/** Runs `work` for every client: a bug costs the one that it happens in, and the others still have their turn. */
	private eachClient(work: (client: ClientHandle) => void): void {
		for (const client of this.clients.all()) this.contain.guard(client.stream, () => work(client));
	}

	requestServer(worker: number, slot: number): void {
		this.toPeer(worker, { type: "request-server", slot, by: this.worker });
	}

	giveServer(worker: number, slot: number, server: MovingServer | null, caps: readonly string[]): void {
		this.toPeer(worker, { type: "give-server", slot, server, caps });
	}

	share(slot: number, identity: string, lesson: Lesson): void {
		for (let worker = 0; worker < this.setup.workers; worker++)
			if (worker !== this.worker) this.toPeer(worker, { type: "lesson", slot, identity, lesson });
	}

	offerPermit(worker: number, slot: number): void {
		this.toPeer(worker, { type: "offer-permit", slot });
	}

	private toPeer(to: number, message: PeerMessage): void {
		this.post({ type: "peer", to, message });
	}

	// ---- orders of the main thread ---------------------------------------------------------------------------------

	onMessage(message: ToWorker): void {
		this.contain.guard(null, () => this.obey(message));
	}

	private obey(message: ToWorker): void {
		switch (message.type) {
			case "request-server":
				this.poolsBySlot.get(message.slot)?.onServerRequested(message.by);
				break;
			case "give-server":
				this.receive(message);
				break;
			case "want-room":
				this.caps.onRoomWanted(message);
				break;
			case "offer-permit":
				this.poolsBySlot.get(message.slot)?.onPermitOffered();
				break;
			case "lesson":
				this.poolsBySlot.get(message.slot)?.onLesson(message.identity, message.lesson);
				break;
			case "proven":
			case "told":
			case "ask-slots":
				this.hear(message);
				break;
			case "cancel":
			case "cancelled":
				this.cancels.onMessage(message);
				break;
			case "give-client":
			case "client-arrived":
			case "client-at":
				this.moves.onMessage(message);
				break;
			case "crossing":
				this.crossing.onOrder(message.order);
				break;
			case "client":
				this.contain.when(null, this.adoptClient(message.fd), () => {});
				break;
			case "reload":
				this.configure(message.update, message.slots, message.paused);
				break;
			case "order":
				if (message.order === "reconnect") this.generation++;
				for (const key of message.keys) this.pools.get(key)?.[message.order]();
				break;
			case "rows":
				this.post({ type: "rows", id: message.id, rows: this.rowsOf(message.of) });
				break;
			case "answer":
				this.admins.answered(message.id, message.answer);
				break;
			case "listen":
				if (!this.stopping) this.listener.listenAgain();
				break;
			default:
				this.leave(message);
		}
	}

	/** The process is to end. */
	private leave(message: Extract<ToWorker, { type: "drain" | "cancel-all" | "close" | "setup" }>): void {
		if (message.type === "drain") this.drain(message.gently);
		else if (message.type === "cancel-all") this.eachClient((client) => client.cancel(() => {}));
		else if (message.type === "close") this.close();
	}

	/** What the main thread knows of users, or wants to know of their pools. */
	private hear(message: Extract<ToWorker, { type: "proven" | "told" | "ask-slots" }>): void {
		if (message.type === "proven") this.keyring.learn(message.verifier, message.keys);
		else if (message.type === "ask-slots") this.post({ type: "no-pools", slots: this.unusedOf(message.slots) });
		else {
			this.asked.get(message.id)?.(message.answer);
			this.asked.delete(message.id);
		}
	}

	private receive({ slot, server, caps }: Extract<PeerMessage, { type: "give-server" }>): void {
		const pool = this.poolsBySlot.get(slot);
		const permit = Permit.received(this.ledger, slot, caps);
		if (pool !== undefined) {
			pool.onServerGiven(server, permit);
			return;
		}
		// A reload has taken the pool away while the server was on its way here: nobody else would close it.
		this.ledger.arrived(slot, this.worker);
		if (server !== null) {
			closeDescriptor(server.fd);
			this.descriptors.free();
		}
		permit.release();
	}

	private async adoptClient(fd: number): Promise<void> {
		try {
			this.door.enter(await adoptSocket(fd, this.handlers), "unix", true);
		} catch (error) {
			this.descriptors.free();
			this.log.warn(`a client of the Unix socket was lost: ${error}`);
		}
	}

	/** Puts an update in force; what has not changed goes on as if there had been none. */
	private configure(update: Update, slots: ReadonlyMap<string, number>, paused: ReadonlySet<string>): void {
		const { general, writeFunctions } = update;
		this.general = general;
		this.tcp = update.tcp;
		this.tls = update.tls;
		this.admin = update.admin;
		this.wildcard = update.wildcard;
		this.generation++;
		this.log.set(general.log_format, general.log_level);
		if (writeFunctions !== null) this.logins.setWriteFunctions(writeFunctions);
		if (update.hba !== null) this.hba = update.hba;
		this.cancels.reach(update.peers);
		if (!update.generalChanged && update.clusters.length + update.gone.length === 0) return;
		const gone = new Set(this.pools.keys());
		this.changePools(update, slots, paused);
		const before = this.logins.replace(update);
		const clusters = this.logins.specs();
		for (const { pools } of clusters) for (const { key } of pools) gone.delete(key);
		this.reachAll(clusters);
		this.eachClient((client) => {
			const found = this.logins.find(client.user, client.database);
			if (found === null) client.shutDown(false);
			else if (!before.has(found)) client.reach(found.cluster, found.router);
		});
		this.logins.endElections(before);
		for (const key of gone) this.remove(key);
		this.keyring.reach([...this.pools.values()].map(({ spec }) => spec.server_verifier));
		this.caps.reach(this.pools.values());
	}

	/** Makes the pools of the update; those that stay keep their servers. */
	private changePools(update: Update, slots: ReadonlyMap<string, number>, paused: ReadonlySet<string>): void {
		for (const { pools } of update.clusters) {
			for (const spec of pools) {
				const pool = this.pools.get(spec.key);
				if (pool === undefined) this.add(spec, slots.get(spec.key)!, paused.has(spec.key));
				else pool.change(spec);
			}
		}
		if (update.generalChanged) for (const pool of this.pools.values()) pool.wake();
	}

	private add(spec: PoolSpec, slot: number, isPaused: boolean): void {
		const pool = new Pool(spec, slot, this.counters.row(slot, this.worker), this);
		pool.database = NO_PLACE;
		if (isPaused) pool.pause();
		this.pools.set(spec.key, pool);
		this.poolsBySlot.set(slot, pool);
	}

	private remove(key: string): void {
		const pool = this.pools.get(key)!;
		pool.retire();
		this.pools.delete(key);
		this.poolsBySlot.delete(pool.slot);
		this.leaving.add(pool);
	}

	/** Works out what depends on all clusters together: bans, and each pool's `database`. */
	private reachAll(clusters: readonly ClusterSpec[]): void {
		this.bans.reach({ general: this.general, clusters }, { get: (key) => this.pools.get(key)?.slot });
		placeDatabases(clusters, this.pools, this.ledger);
	}

	/** After a takeover: a client may be on its way between two workers, so once without any is not enough. */
	private lookForClients(): void {
		this.deserted = [this.clients, this.door, this.crossing].every(({ isEmpty }) => isEmpty) ? this.deserted + 1 : 0;
		if (this.deserted < DESERTED || this.drained) return;
		this.drained = true;
		this.post({ type: "drained" });
	}

	private drain(gently: boolean): void {
		this.listener.stop();
		if (gently) {
			this.deserted = 0;
			this.moves.end();
			return;
		}
		this.stopping = true;
		this.door.shutDown();
		this.eachClient((client) => client.shutDown(false));
		this.tellDrained();
	}

	private close(): void {
		this.stopping = true;
		this.listener.stop();
		this.eachClient((client) => client.shutDown(true));
		this.admins.close(SHUTTING_DOWN);
		for (const each of [...this.allPools(), this.ears]) each.shutDown();
		if (this.janitor !== null) clearInterval(this.janitor);
		// Not at once: what was written last leaves the process with the next turn of the loop.
		this.contain.later(10, null, () => this.post({ type: "closed" }));
	}

	// ---- upkeep ----------------------------------------------------------------------------------------------------

	private tick(): void {
		const time = now();
		this.time = time;
		this.attendance.tick(this.worker);
		this.listener.tick();
		const { general } = this;
		const { version, suspicions } = this.bans.vitals;
		const changed = version !== this.vitalsVersion;
		if (changed || suspicions !== this.suspicions) for (const pool of this.pools.values()) pool.wake();
		this.vitalsVersion = version;
		this.suspicions = suspicions;
		if (this.worker === 0) this.bans.tick(time);
		const { contain } = this;
		// Of many pools most have nothing to do until their `dueAt`.
		for (const pool of this.pools.values()) if (pool.dueAt <= time) contain.guard(null, () => pool.tick(time));
		for (const pool of this.leaving) contain.guard(null, () => pool.tick(time));
		if (changed) for (const pool of this.pools.values()) contain.guard(null, () => pool.reconsider());
		for (const pool of this.leaving) if (pool.isOver) this.leaving.delete(pool);
		contain.guard(null, () => this.filling.tick(this.pools.values(), time));
		this.ears.tick(time);
		for (const shard of this.logins.electing) contain.guard(null, () => shard.tick(time, changed));
		// One function for all of them.
		let client: ClientHandle;
		const check = () => client.check(time);
		for (client of this.clients.turn()) contain.guard(client.stream, check);
		this.door.tick(time, general.client_login_timeout);
		if (this.deserted >= 0) this.lookForClients();
		else contain.guard(null, () => this.moves.tick(time));
		const [used, size] = this.connections();
		this.descriptors.look(Math.max(0, size - used));
	}

	private unusedOf(slots: readonly number[]): number[] {
		const used = new Set(this.allPools().map(({ slot }) => slot));
		return slots.filter((slot) => !used.has(slot));
	}

	private allPools(): Pool[] {
		return [...this.pools.values(), ...this.leaving];
	}

	private rowsOf(kind: RowKind): AnyRow[] {
		switch (kind) {
			case "clients":
				return this.clients.rows(clientRow);
			case "servers":
				return this.allPools().flatMap((pool) => [...pool.all].map((server) => serverRow(pool.spec.key, server)));
			case "routes":
				return this.routes.rows();
			case "listeners":
				return this.ears.rows;
			case "nothing":
				return [];
		}
	}
}
