// A Pool in front of a server that speaks just enough of the protocol to log in, and answers queries when told to.

import type { Socket } from "bun";
import { Keyring } from "../../src/auth/keyring.ts";
import { ScramCache } from "../../src/auth/scram-keys.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import type { Server } from "../../src/backend/server.ts";
import { Statements } from "../../src/backend/statements.ts";
import { now } from "../../src/clock.ts";
import { type General, general as generalTable, type Tcp, tcp as tcpTable } from "../../src/config/settings.ts";
import type { PoolSpec, User } from "../../src/config/snapshot.ts";
import { Contain } from "../../src/contain.ts";
import type { PgError } from "../../src/errors.ts";
import { createLog } from "../../src/log.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { Names } from "../../src/net/names.ts";
import { settle } from "../../src/net/outgoing.ts";
import { socketHandlers } from "../../src/net/stream.ts";
import { Bans } from "../../src/pool/bans.ts";
import { Caps } from "../../src/pool/caps.ts";
import type { PoolContext } from "../../src/pool/context.ts";
import { Filling } from "../../src/pool/filling.ts";
import { Ledger } from "../../src/pool/ledger.ts";
import { Pool } from "../../src/pool/pool.ts";
import { Vitals } from "../../src/pool/vitals.ts";
import type { Waiter } from "../../src/pool/waiters.ts";
import { Stat } from "../../src/stats/counters.ts";
import { cut } from "../support/message.ts";
import { backend, concat } from "../support/wire-frames.ts";

interface Connection {
	buffer: Buffer;
	loggedIn: boolean;
}

/** The code of a CancelRequest (PostgreSQL docs, "Message Formats"). */
const CANCEL = 80877102;

/** PostgreSQL to the eye: trust login, and every Query answered with CommandComplete unless `hold` is set. */
export class ScriptedServer implements Disposable {
	readonly port: number;
	/** Texts of all Queries, in order of arrival. */
	readonly queries: string[] = [];
	/** While true, queries are noted and not answered. */
	hold = false;
	/** `hold` begins with the query that begins so; empty: with none. */
	holdsAt = "";
	/** Fails queries with this SQLSTATE. */
	fails = "";
	/** Refuses logins with this SQLSTATE. */
	refuse = "";
	/** The user who is refused; null: everybody. */
	refuses: string | null = null;
	/** Says nothing at all, not even to a login. */
	mute = false;
	/** The one row of every answer; null: none. */
	row: (string | null)[] | null = null;
	/** Users whose logins were begun, in order. */
	readonly users: string[] = [];
	/** CancelRequests that came. */
	cancels = 0;
	/** Logins that were begun. */
	logins = 0;
	private readonly unanswered: Socket<Connection>[] = [];
	private readonly open = new Set<Socket<Connection>>();
	private readonly listener;

	constructor(hostname = "127.0.0.1", port = 0) {
		this.listener = Bun.listen<Connection>({
			hostname,
			port,
			socket: {
				open: (socket) => {
					socket.data = { buffer: Buffer.alloc(0), loggedIn: false };
					this.open.add(socket);
				},
				close: (socket) => {
					this.open.delete(socket);
				},
				data: (socket, chunk) => this.onData(socket, chunk),
			},
		});
		this.port = this.listener.port;
	}

	private onData(socket: Socket<Connection>, chunk: Buffer): void {
		const state = socket.data;
		state.buffer = Buffer.concat([state.buffer, chunk]);
		if (this.mute) return;
		if (!state.loggedIn) {
			if (state.buffer.length < 4 || state.buffer.length < state.buffer.readInt32BE(0)) return;
			if (state.buffer.readInt32BE(4) === CANCEL) {
				this.cancels++;
				socket.end();
				return;
			}
			const strings = state.buffer.toString("utf8", 8, state.buffer.readInt32BE(0)).split("\0");
			this.users.push(strings[strings.indexOf("user") + 1] ?? "");
			state.buffer = state.buffer.subarray(state.buffer.readInt32BE(0));
			this.logins++;
			if (this.refuse !== "" && (this.refuses === null || this.refuses === this.users.at(-1))) {
				socket.end(backend.errorResponse({ S: "FATAL", V: "FATAL", C: this.refuse, M: "refused" }));
				return;
			}
			state.loggedIn = true;
			socket.write(concat(backend.authenticationOk(), backend.backendKeyData(this.logins, 7), backend.readyForQuery()));
		}
		const { messages, rest } = cut(state.buffer);
		state.buffer = Buffer.from(rest);
		for (const { code, body } of messages) {
			if (code !== "Q") continue;
			const sql = body.toString("utf8", 0, body.length - 1);
			this.queries.push(sql);
			if (this.holdsAt !== "" && sql.startsWith(this.holdsAt)) this.hold = true;
			this.unanswered.push(socket);
			if (!this.hold) this.answer();
		}
	}

	answer(): void {
		const rows = this.row === null ? [] : [backend.dataRow(...this.row)];
		const error = { S: "ERROR", V: "ERROR", C: this.fails, M: "failed" };
		const answer = this.fails === "" ? backend.commandComplete("SELECT 0") : backend.errorResponse(error);
		for (const socket of this.unanswered.splice(0)) socket.write(concat(...rows, answer, backend.readyForQuery()));
	}

	get connections(): number {
		return this.open.size;
	}

	/** Says this on all connections, or on one of them, by the order in which they were opened. */
	say(message: Uint8Array, on?: number): void {
		for (const [i, socket] of [...this.open].entries()) if (on === undefined || on === i) socket.write(message);
	}

	/** Ends all connections without a word. */
	drop(): void {
		for (const socket of this.open) socket.terminate();
	}

	[Symbol.dispose](): void {
		this.listener.stop(true);
	}
}

export function defaults<T>(table: object): T {
	return Object.fromEntries(Object.entries(table).map(([name, setting]) => [name, setting.default])) as T;
}

export interface TestPool {
	readonly pool: Pool;
	/** As a reload makes one of the same key. */
	another(): Pool;
	/** Of the log: warnings and errors. */
	readonly lines: readonly string[];
	/** For a pool of another worker over the same ledger. */
	readonly context: PoolContext;
	/** What the janitor sets to the time. */
	readonly clock: { time: number };
	readonly ledger: Ledger;
	readonly statements: Statements;
	readonly bans: Bans;
}

export function testPool(
	port: number,
	spec: Partial<PoolSpec> = {},
	settings: Partial<General> = {},
	slot = 0,
	workers = 1,
): TestPool {
	const ledger = new Ledger(1, workers);
	const general: General = { ...defaults<General>(generalTable), connect_attempts: 1, ...settings };
	const statements = new Statements(() => ledger.nextStatement());
	const lines: string[] = [];
	const log = createLog("text", "warn", { write: (line) => lines.push(line) });
	const own: PoolSpec = {
		key: "u@d",
		user: "u",
		database: "d",
		host: "127.0.0.1",
		port,
		shard: 0,
		role: "primary",
		database_name: "d",
		server_user: "u",
		server_passwords: [],
		server_tls: null,
		pool_size: 2,
		min_pool_size: 0,
		reserve_pool_size: 0,
		max_db_connections: Number.MAX_SAFE_INTEGER,
		max_user_connections: Number.MAX_SAFE_INTEGER,
		pooler_mode: "transaction",
		lb_weight: 255,
		idle_timeout: 60_000,
		server_lifetime: 3_600_000,
		server_lifetime_jitter: 0,
		startup: {},
		...spec,
	};
	// Beside it a replica that is always well, so that it may be banned.
	const mate: PoolSpec = { ...own, key: "mate", role: "replica", port: 1 };
	const known = {
		general,
		clusters: [{ user: NOBODY, database: "d", readOnly: false, sharding: null, pools: [own, mate] }],
	};
	const slots = new Map([
		[own.key, slot],
		[mate.key, slot + 1],
	]);
	const bans = new Bans(new Vitals(slot + 2), log, known, slots);
	const handlers = socketHandlers((error) => {
		throw error;
	});
	const descriptors = new Descriptors();
	const context = {
		worker: 0,
		ledger,
		bans,
		filling: new Filling(ledger, bans, log),
		caps: new Caps({ worker: 0, ledger, time: 0, offerPermit() {} }, () => {}),
		sets: new ParameterSets(),
		statements,
		scram: new ScramCache(),
		keyring: new Keyring(),
		handlers,
		dialling: { handlers, keepAlive: defaults<Tcp>(tcpTable), descriptors },
		names: new Names(() => general.dns_ttl),
		descriptors,
		log,
		contain: new Contain((bug) => log.error(`internal error: ${bug}`), settle),
		time: 0,
		generation: 0,
		general,
		requestServer() {},
		giveServer() {},
		share() {},
		offerPermit() {},
	} satisfies PoolContext;
	const another = () => new Pool(own, slot, new Float64Array(Stat.length), context);
	return { pool: another(), another, ledger, statements, bans: context.bans, lines, context, clock: context };
}

const NOBODY: User = { name: "u", database: "d", passwords: [] };

/** Waits as a client does and remembers what it got. */
export class TestWaiter implements Waiter {
	waitingSince = 0;
	nextWaiter: Waiter | null = null;
	previousWaiter: Waiter | null = null;
	queued = false;
	server: Server | null = null;
	error: PgError | null = null;
	private readonly answered = Promise.withResolvers<void>();

	/** Asks the pool; resolves when a server or an error came. */
	async from(pool: Pool): Promise<this> {
		const server = pool.take(this, now());
		if (server === null) await this.answered.promise;
		else this.server = server;
		return this;
	}

	onServer(server: Server, _time: number): void {
		this.server = server;
		this.answered.resolve();
	}

	/** How often it was told that there may be a better place. */
	told = 0;

	onLongWait(): void {}

	onElsewhere(): void {
		this.told++;
	}

	onCheckoutFailed(error: PgError): void {
		this.error = error;
		this.answered.resolve();
	}
}
