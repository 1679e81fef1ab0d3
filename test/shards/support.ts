// A client of two shards within the test's own process: sockets, logins, pools and the router are real, and each shard is a
// server that understands just enough SQL to be in a transaction, to fail, and to read a COPY.

import type { Socket } from "bun";
import { ScramCache } from "../../src/auth/scram-keys.ts";
import { ParameterSets } from "../../src/backend/parameters.ts";
import type { ClientContext, ClientHandle } from "../../src/client/context.ts";
import { Seats } from "../../src/client/seats.ts";
import { Budget } from "../../src/client/share.ts";
import { type General, general as generalTable } from "../../src/config/settings.ts";
import type { User } from "../../src/config/snapshot.ts";
import { NO_TLS } from "../../src/config/tls.ts";
import { createLog } from "../../src/log.ts";
import { Startup } from "../../src/login/startup.ts";
import { Descriptors } from "../../src/net/descriptors.ts";
import { StatementCache } from "../../src/parser/cache.ts";
import { createFactsCache } from "../../src/parser/facts-cache.ts";
import { SqlParser } from "../../src/parser/parse.ts";
import { Cluster } from "../../src/pool/cluster.ts";
import { Ears } from "../../src/pool/ear.ts";
import { Shard } from "../../src/pool/shard.ts";
import { RouteLog } from "../../src/router/route-log.ts";
import { Router } from "../../src/router/router.ts";
import { listen } from "../net/support.ts";
import { defaults, type TestPool, testPool } from "../pool/support.ts";
import { Body, cut, type Message } from "../support/message.ts";
import { RawClient } from "../support/raw-client.ts";
import { backend, concat } from "../support/wire-frames.ts";

class Session {
	buffer: Buffer = Buffer.alloc(0);
	loggedIn = false;
	status: "I" | "T" | "E" = "I";
	/** After an error in a batch. */
	skipping = false;
	/** A COPY reads data; it was begun by a Query. */
	copying: "query" | "batch" | null = null;
	copied = 0;
	readonly statements = new Map<string, string>();
	readonly portals = new Map<string, string>();
	out: Uint8Array[] = [];
}

/** One shard's server. */
class FakeShard implements Disposable {
	readonly port: number;
	/** What came of all clients, a word for each message: `Q SELECT 1`, `P one SELECT 1`, `B one`, `S` … */
	heard: string[] = [];
	/** Texts of statements that fail here. */
	readonly fails = new Set<string>();
	/** The same, by what is in them. */
	refuses: RegExp | null = null;
	/** What it says has been decided of each transaction. */
	decision = "commit";
	/** Rows of each SELECT, of one column. */
	rows = ["1"];
	/** Answers wait for `release`. */
	hold = false;
	private readonly open = new Set<Socket<Session>>();
	private readonly listener;

	constructor() {
		this.listener = Bun.listen<Session>({
			hostname: "127.0.0.1",
			port: 0,
			socket: {
				open: (socket) => {
					socket.data = new Session();
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

	/** What came since the last call, without logins. */
	take(): string[] {
		const { heard } = this;
		this.heard = [];
		return heard;
	}

	release(): void {
		this.hold = false;
		for (const socket of this.open) this.flush(socket);
	}

	/** Ends all connections without a word. */
	drop(): void {
		for (const socket of this.open) socket.terminate();
	}

	/** Says this on all connections. */
	say(message: Uint8Array): void {
		for (const socket of this.open) socket.write(message);
	}

	[Symbol.dispose](): void {
		this.listener.stop(true);
	}

	private onData(socket: Socket<Session>, chunk: Buffer): void {
		const session = socket.data;
		session.buffer = Buffer.concat([session.buffer, chunk]);
		if (!session.loggedIn) {
			if (session.buffer.length < 8 || session.buffer.length < session.buffer.readInt32BE(0)) return;
			const isCancel = session.buffer.readInt32BE(4) === 80877102;
			if (isCancel) {
				this.heard.push("cancel");
				socket.end();
				return;
			}
			session.buffer = session.buffer.subarray(session.buffer.readInt32BE(0));
			session.loggedIn = true;
			socket.write(concat(backend.authenticationOk(), backend.backendKeyData(7, 7), backend.readyForQuery()));
		}
		const { messages, rest } = cut(session.buffer);
		session.buffer = Buffer.from(rest);
		for (const message of messages) this.onMessage(socket, message);
	}

	private flush(socket: Socket<Session>): void {
		if (this.hold) return;
		socket.write(concat(...socket.data.out.splice(0)));
	}

	private onMessage(socket: Socket<Session>, { code, body: bytes }: Message): void {
		const session = socket.data;
		const body = new Body(bytes);
		const { out, statements, portals } = session;
		if (session.skipping && code !== "S") return;
		switch (code) {
			case "Q": {
				const text = body.cstring();
				this.heard.push(`Q ${text}`);
				for (const sql of text.split(";")) if (sql.trim() !== "" && !this.run(session, sql.trim(), true)) break;
				if (session.copying === null) out.push(backend.readyForQuery(session.status));
				break;
			}
			case "P": {
				const [name, text] = [body.cstring(), body.cstring()];
				this.heard.push(`P ${text}`);
				statements.set(name, text);
				if (!/^failed on/.test(text)) {
					out.push(backend.parseComplete());
					return;
				}
				this.fail(session, "42601", "syntax error");
				break;
			}
			case "B": {
				const [portal, name] = [body.cstring(), body.cstring()];
				portals.set(portal, statements.get(name) ?? "");
				this.heard.push(`B ${portals.get(portal)}`);
				out.push(backend.bindComplete());
				return;
			}
			case "D":
				this.heard.push("D");
				out.push(backend.noData());
				return;
			case "E":
				this.heard.push("E");
				this.run(session, portals.get(body.cstring()) ?? "", false);
				// PostgreSQL flushes an error, and what asks for data.
				if (session.copying === null && !session.skipping) return;
				break;
			case "C":
				this.heard.push("C");
				out.push(backend.closeComplete());
				return;
			case "S":
				this.heard.push("S");
				if (session.copying !== null) return;
				session.skipping = false;
				out.push(backend.readyForQuery(session.status));
				break;
			case "d":
				session.copied++;
				return;
			case "c":
			case "f":
				this.heard.push(code);
				this.endCopy(session, code === "c");
				break;
			case "F":
				this.heard.push("F");
				out.push(backend.functionCallResponse("1"), backend.readyForQuery(session.status));
				break;
			default:
				this.heard.push(code);
		}
		this.flush(socket);
	}

	private endCopy(session: Session, done: boolean): void {
		const { copying, out } = session;
		session.copying = null;
		if (done) out.push(backend.commandComplete(`COPY ${session.copied}`));
		else this.fail(session, "57014", "COPY failed", copying === "query");
		if (copying === "query") out.push(backend.readyForQuery(session.status));
	}

	private fail(session: Session, code: string, text: string, simple = false): false {
		session.out.push(backend.errorResponse({ S: "ERROR", V: "ERROR", C: code, M: text }));
		if (session.status === "T") session.status = "E";
		session.skipping = !simple;
		return false;
	}

	/** @returns false when it failed */
	private run(session: Session, sql: string, simple: boolean): boolean {
		const { out } = session;
		const word = /^\w+/.exec(sql.replace(/^\/\*.*?\*\/ /, ""))?.[0].toUpperCase() ?? "";
		const ends = word === "COMMIT" || word === "ROLLBACK";
		if (session.status === "E" && !ends) return this.fail(session, "25P02", "aborted", simple);
		// PostgreSQL ends a transaction that it could not prepare.
		if (/^PREPARE TRANSACTION/.test(sql)) session.status = "I";
		if (this.fails.has(sql) || this.refuses?.test(sql)) return this.fail(session, "XX000", `${sql} failed`, simple);
		if (word === "BEGIN") session.status = "T";
		if (ends) {
			out.push(backend.commandComplete(session.status === "E" ? "ROLLBACK" : word));
			session.status = /AND CHAIN/.test(sql) ? "T" : "I";
			return true;
		}
		if (word === "COPY") {
			session.copying = simple ? "query" : "batch";
			session.copied = 0;
			out.push(backend.copyInResponse());
			return true;
		}
		if (word === "SELECT" || word === "EXPLAIN") {
			if (simple) out.push(backend.rowDescription("a"));
			const rows = sql.startsWith("SELECT decision") ? [this.decision] : this.rows;
			out.push(...rows.map((row) => backend.dataRow(row)));
		}
		const tags: Record<string, string> = {
			SELECT: `SELECT ${this.rows.length}`,
			INSERT: "INSERT 0 1",
			UPDATE: "UPDATE 1",
			DEALLOCATE: "DEALLOCATE ALL",
			DISCARD: "DISCARD ALL",
		};
		if (word === "FAILED") return this.fail(session, "42601", "syntax error", simple);
		out.push(backend.commandComplete(tags[word] ?? word));
		return true;
	}
}

/** A proxy of two shards, as far as it takes to log in and to ask. */
export interface Rig extends AsyncDisposable {
	readonly shards: readonly FakeShard[];
	readonly pools: readonly TestPool[];
	/** As the worker sees them. */
	readonly clients: ClientHandle[];
	readonly routes: RouteLog;
	readonly cluster: Cluster;
	readonly router: Router;
	/** Transactions that two-phase commit has left to be finished. */
	readonly unfinished: readonly string[];
	/** What the janitor sets, and what the process tells. */
	readonly context: ClientContext & { time: number; stopping: boolean };
	connect(parameters?: Record<string, string>): Promise<RawClient>;
}

const cache = new StatementCache(new SqlParser());

export function twoShards(settings: Partial<General> = {}, twoPhase = 0): Rig {
	const shards = [new FakeShard(), new FakeShard()];
	const general: General = { ...defaults<General>(generalTable), auth_type: "trust", ...settings };
	const pools = shards.map(({ port }, shard) => testPool(port, { shard, key: `u@d/${shard}` }, general));
	const members = pools.map(({ pool, bans }) => new Shard([pool], bans.vitals, general, false));
	const cluster = new Cluster(members);
	const router = new Router({ shards: 2, hasPrimary: true, hasReplicas: false, twoPhase }, cache, null, general);
	const clients: ClientHandle[] = [];
	const routes = new RouteLog();
	let serial = 0;
	const unfinished: string[] = [];
	const context: Rig["context"] = {
		seats: new Seats({ general, log: createLog("text", "off"), ledger: pools[0]!.context.ledger }, new Descriptors()),
		sets: new ParameterSets(),
		collected: new Budget(1 << 30),
		statements: pools[0]!.statements,
		ears: new Ears({ ...pools[0]!.context, find: () => ({ cluster }) }),
		facts: createFactsCache(),
		scram: new ScramCache(),
		log: createLog("text", "off"),
		tls: NO_TLS,
		handlers: pools[0]!.context.handlers,
		contain: pools[0]!.context.contain,
		routes,
		time: 0,
		wildcard: false,
		stopping: false,
		plugins: null,
		general,
		hba: [],
		admin: { name: "admin", user: "admin", password: "secret", generated: false },
		find: (name, database) => {
			const user: User = { name, database, passwords: ["p"] };
			return { spec: { user, database, readOnly: false, sharding: null, pools: [] }, user, cluster, router };
		},
		onProven() {},
		lookUp: async () => ({ found: null }),
		join: async () => null,
		doubt() {},
		openAdmin: (stream) => stream.end(),
		register: (client) => clients.push(client),
		unregister() {},
		onLogin() {},
		onLogout() {},
		cancel: (_pid, _secret, done) => done(),
		instance: "1234abcd",
		onUnfinished: (_, transaction) => unfinished.push(transaction),
		nextSerial: () => ++serial,
	};
	const listening = listen((stream) => {
		stream.owner = new Startup(context, stream, "test", () => {});
	});
	return {
		shards,
		pools,
		clients,
		routes,
		cluster,
		router,
		context,
		unfinished,
		connect: (parameters = {}) => RawClient.connect({ port: listening.port, user: "u", database: "d", parameters }),
		async [Symbol.asyncDispose]() {
			listening.stop(true);
			context.ears.shutDown();
			for (const { pool } of pools) pool.shutDown();
			for (const shard of shards) shard[Symbol.dispose]();
		},
	};
}
