// The connection on which one worker listens for all clients of one user and database in transaction mode (`pub_sub_channel_size`): beside all
// pools, opened when the first of them says LISTEN, closed some time after the last has gone. What is lost while it is lost is lost,
// and the log says so. One Ear for each user and database whose clients listen, and for each of its shards: clients of several say LISTEN
// to all of them, and what a trigger notifies on any is heard. `Ears` has those of a worker.

import { type LoginOptions, login } from "../backend/login.ts";
import { quoteIdentifier } from "../backend/parameters.ts";
import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import { type PoolSpec, Side } from "../config/snapshot.ts";
import { asPgError, PgError } from "../errors.ts";
import { OnceAMinute, timesText } from "../once-a-minute.ts";
import { endOfString, HEADER, readInt32 } from "../wire/frame.ts";
import type { Cluster } from "./cluster.ts";
import type { PoolContext } from "./context.ts";
import { databaseAt } from "./databases.ts";
import { loginOptions } from "./login-options.ts";
import { Outsider } from "./outsider.ts";
import type { Shard } from "./shard.ts";

/** Most channels that one statement of ours is about: LISTEN of all after a reconnect must not be one text of megabytes. A guess. */
const AT_ONCE = 500;
/** ms between two attempts to connect, or to listen, that fail. */
const RETRY = 1_000;
/** ms for which a connection on which nobody listens is kept; a guess. */
const LINGER = 10_000;

/** A client that listens. */
export interface ChannelListener {
	/** @param pid of the notifying server process @param message NotificationResponse */
	hear(channel: HeardChannel, pid: number, message: Buffer): void;
}

/** A channel on which somebody here listens, or is about to. */
export class HeardChannel {
	readonly name: string;
	readonly listeners = new Set<ChannelListener>();
	/** Notifications that have come, and of their listeners how many have missed one (`Ear.drop`). */
	received = 0;
	dropped = 0;

	constructor(name: string) {
		this.name = name;
	}
}

interface Waiter {
	readonly channels: readonly string[];
	readonly done: (error: PgError | null) => void;
}

interface EarContext extends PoolContext {
	find(user: string, database: string): { readonly cluster: Cluster } | null;
}

export class Ear extends Outsider {
	private readonly context: EarContext;
	private readonly user: string;
	private readonly database: string;
	private readonly shard: number;
	private readonly channels = new Map<string, HeardChannel>();
	/** Those on which the connection listens. */
	private readonly heard = new Set<string>();
	/** Those of which that may have to change. */
	private readonly changed = new Set<string>();
	private waiters: Waiter[] = [];
	private server: Server | null = null;
	/** What it was opened by. */
	private spec: PoolSpec | null = null;
	private isConnecting = false;
	private closed = false;
	/** Since when the query of ours under way is; 0 for none. */
	private askedAt = 0;
	private retryAt = 0;
	/** Since when nobody listens. */
	private emptyAt = now();
	private passwordIndex = 0;
	/** The connection was lost while clients listened, and does not hear all of their channels yet. */
	private isDeaf = false;
	private readonly losses = new OnceAMinute();
	private readonly drops = new OnceAMinute();

	constructor(context: EarContext, user: string, database: string, shard: number) {
		super();
		this.context = context;
		this.user = user;
		this.database = database;
		this.shard = shard;
	}

	// ---- who listens -----------------------------------------------------------------------------------------------

	/** `listener` hears of this channel from now on. @returns whether the connection listens already */
	add(name: string, listener: ChannelListener): boolean {
		let channel = this.channels.get(name);
		if (channel === undefined) {
			channel = new HeardChannel(name);
			this.channels.set(name, channel);
			this.changed.add(name);
		}
		channel.listeners.add(listener);
		return this.heard.has(name);
	}

	remove(name: string, listener: ChannelListener): void {
		const channel = this.channels.get(name);
		if (channel === undefined || !channel.listeners.delete(listener) || channel.listeners.size > 0) return;
		this.channels.delete(name);
		this.changed.add(name);
		if (this.channels.size === 0) this.emptyAt = now();
		this.work();
	}

	/** Calls `done` later, when the connection listens on these channels, to which somebody was added, or why it cannot. */
	wait(channels: readonly string[], done: (error: PgError | null) => void): void {
		this.waiters.push({ channels, done });
		this.context.contain.soon(null, () => this.work());
	}

	/** A notification does not reach one of those who listen: it has not taken as many of those before it as may wait for it. */
	drop(channel: HeardChannel): void {
		channel.dropped++;
		const times = this.drops.due(now());
		if (times === 0) return;
		const text = "a client does not read its notifications as fast as they come: the oldest that waits is dropped";
		this.context.log.warn(
			`${text} (pub_sub_channel_size)${timesText(times)} [${this.describe()}, channel: ${channel.name}]`,
		);
	}

	/** What SHOW LISTENERS shows of each channel (status/rows.ts). */
	get rows() {
		const { user, database, shard } = this;
		return [...this.channels.values()].map(({ name, listeners, received, dropped }) => {
			return { user, database, shard, channel: name, listeners: listeners.size, received, dropped };
		});
	}

	/** Nobody listens, and there is no connection. */
	get isOver(): boolean {
		return this.channels.size === 0 && this.server === null && !this.isConnecting && this.waiters.length === 0;
	}

	// ---- the connection --------------------------------------------------------------------------------------------

	/** The janitor's. @param time `now()` */
	tick(time: number): void {
		const { server, context } = this;
		const { connect_timeout, healthcheck_interval } = context.general;
		if (server !== null) {
			const outdated = this.outdated();
			if (outdated !== null) server.close(outdated);
			else if (this.askedAt > 0 && time - this.askedAt > connect_timeout)
				server.close("no answer within connect_timeout");
			else if (this.channels.size === 0 && this.waiters.length === 0 && time - this.emptyAt > LINGER)
				server.close("nobody listens");
			// A connection that a firewall has forgotten says nothing for ever.
			else if (this.askedAt === 0 && time - server.checkedAt > healthcheck_interval) this.run(";", () => {});
		}
		if (this.changed.size > 0) this.work();
	}

	/** As things are now; none: they are in the configuration no more. */
	private get shards(): readonly Shard[] {
		return this.context.find(this.user, this.database)?.cluster.shards ?? [];
	}

	/** The server to listen at, as things are now. */
	private get primary(): PoolSpec | null {
		return this.shards[this.shard]?.pick(Side.Primary, 0)?.spec ?? null;
	}

	/** Why the connection may not stay, which is none that would be opened now; null: it may. */
	private outdated(): string | null {
		const { primary, spec } = this;
		if (primary === null || spec === null || primary === spec) return null;
		const isSame = databaseAt(primary) === databaseAt(spec) && primary.server_user === spec.server_user;
		if (!isSame) return "the primary is another";
		if (!Bun.deepEquals(primary.server_tls, spec.server_tls)) return "a reload asks something else of it over TLS";
		this.spec = primary;
		return null;
	}

	/** Has the connection listen on what is listened to, if it is not about to. */
	private work(): void {
		if (this.closed || this.isConnecting || this.askedAt > 0 || now() < this.retryAt) {
			if (this.closed) this.tell(CLOSED);
			return;
		}
		if (this.server === null) {
			if (this.channels.size > 0) this.connect();
			else this.rest();
			return;
		}
		const listens: string[] = [];
		const unlistens: string[] = [];
		for (const name of this.changed) {
			if (listens.length + unlistens.length === AT_ONCE) break;
			this.changed.delete(name);
			const wanted = this.channels.has(name);
			if (wanted !== this.heard.has(name)) (wanted ? listens : unlistens).push(name);
		}
		if (listens.length + unlistens.length === 0) {
			this.tell(null);
			return;
		}
		const statements = [
			...listens.map((name) => `LISTEN ${quoteIdentifier(name)}`),
			...unlistens.map((name) => `UNLISTEN ${quoteIdentifier(name)}`),
		];
		// At once: who wants one of them again meanwhile has to wait for LISTEN, which goes behind this.
		for (const name of unlistens) this.heard.delete(name);
		this.run(statements.join("; "), (error) => {
			if (error !== null) {
				for (const name of listens) this.changed.add(name);
				this.failed(error);
				return;
			}
			for (const name of listens) this.heard.add(name);
			this.tell(null);
			this.work();
		});
	}

	/** Nobody listens, and nothing is open: who waited has gone. */
	private rest(): void {
		this.changed.clear();
		this.isDeaf = false;
		this.tell(null);
	}

	private run(sql: string, done: (error: PgError | null) => void): void {
		this.askedAt = now();
		this.server!.run(sql, (_, error) => {
			this.askedAt = 0;
			done(error);
		});
	}

	/** Tells those who wait that the connection listens now, those for whom it does; or all of them why it cannot. */
	private tell(error: PgError | null): void {
		const { waiters, context } = this;
		if (error === null && this.isDeaf && this.changed.size === 0) {
			this.isDeaf = false;
			context.log.info(
				`listening again on ${this.heard.size} channels; notifications since the connection was lost are lost [${this.describe()}]`,
			);
		}
		if (waiters.length === 0) return;
		// Of a client that has gone nobody may listen on what it waits for.
		const waits = ({ channels }: Waiter) =>
			channels.every((name) => this.channels.has(name)) && !channels.every((name) => this.heard.has(name));
		this.waiters = [];
		for (const waiter of waiters) {
			if (error === null && waits(waiter)) this.waiters.push(waiter);
			else context.contain.soon(null, () => waiter.done(error));
		}
	}

	private failed(error: PgError): void {
		const times = this.losses.due(now());
		if (times > 0)
			this.context.log.warn(
				`cannot listen: ${error.sqlstate} ${error.message}${timesText(times)} [${this.describe()}]`,
			);
		this.retryAt = now() + RETRY;
		this.tell(error);
	}

	private connect(): void {
		const spec = this.primary;
		if (spec === null) {
			this.failed(NO_PRIMARY);
			return;
		}
		const { context, passwordIndex } = this;
		const options = loginOptions(spec, passwordIndex, context.general.connect_timeout, context.scram, context);
		const startup = { ...options.startup, application_name: "pgdog listener", client_encoding: "UTF8" };
		this.isConnecting = true;
		context.contain.when(null, this.logIn({ ...options, startup }), (outcome) => {
			this.isConnecting = false;
			if (outcome instanceof PgError) {
				if (outcome.sqlstate === "28P01")
					this.passwordIndex = (passwordIndex + 1) % Math.max(1, spec.server_passwords.length);
				this.failed(outcome);
			} else this.opened(outcome, spec);
		});
	}

	private async logIn(options: LoginOptions): Promise<Server | PgError> {
		try {
			return await login(options, this);
		} catch (error) {
			return asPgError(error);
		}
	}

	private opened(server: Server, spec: PoolSpec): void {
		server.loggedIn();
		this.server = server;
		this.spec = spec;
		for (const name of this.channels.keys()) this.changed.add(name);
		if (this.closed) server.close("shutdown");
		else this.work();
	}

	close(): void {
		this.closed = true;
		this.server?.close("shutdown");
		this.tell(CLOSED);
	}

	private describe(): string {
		const shard = this.shards.length > 1 ? `shard: ${this.shard}, ` : "";
		return `user: ${this.user}, database: ${this.database}, ${shard}worker: ${this.context.worker}`;
	}

	// ---- what a Server asks of its home ----------------------------------------------------------------------------

	onNotification(chunk: Buffer, at: number, next: number): void {
		const nameEnd = endOfString(chunk, at + HEADER + 4, next);
		const channel = nameEnd < 0 ? undefined : this.channels.get(chunk.utf8Slice(at + HEADER + 4, nameEnd));
		if (channel === undefined) return;
		channel.received++;
		// A copy, which all of them share: the chunk may be much larger.
		const message = Buffer.from(chunk.subarray(at, next));
		const pid = readInt32(message, HEADER);
		for (const listener of channel.listeners) listener.hear(channel, pid, message);
	}

	override onGone(server: Server): void {
		if (this.server !== server) return;
		this.server = null;
		this.askedAt = 0;
		this.heard.clear();
		this.changed.clear();
		for (const name of this.channels.keys()) this.changed.add(name);
		if (this.closed) return;
		if (this.channels.size === 0) {
			this.rest();
			return;
		}
		this.isDeaf = true;
		// One that lets in and hangs up is not asked ten times a second.
		this.retryAt = server.bornAt + RETRY;
		const times = this.losses.due(now());
		if (times === 0) return;
		const text = `the connection that listens is lost: ${server.closeReason}; its ${this.channels.size} channels hear nothing until there is another`;
		this.context.log.warn(`${text}${timesText(times)} [${this.describe()}]`);
	}
}

/** Those of one worker. */
export class Ears {
	private readonly context: EarContext;
	private readonly all = new Map<string, Ear>();

	constructor(context: EarContext) {
		this.context = context;
	}

	of(user: string, database: string, shard: number): Ear {
		const key = JSON.stringify([user, database, shard]);
		let ear = this.all.get(key);
		if (ear === undefined) {
			ear = new Ear(this.context, user, database, shard);
			this.all.set(key, ear);
		}
		return ear;
	}

	/** The janitor's. @param time `now()` */
	tick(time: number): void {
		for (const [key, ear] of this.all) {
			this.context.contain.guard(null, () => ear.tick(time));
			if (ear.isOver) this.all.delete(key);
		}
	}

	get rows() {
		return [...this.all.values()].flatMap(({ rows }) => rows);
	}

	/** Process shutdown. */
	shutDown(): void {
		for (const ear of this.all.values()) ear.close();
	}
}

const NO_PRIMARY = new PgError("ERROR", "58000", "there is no primary to listen at");
const CLOSED = new PgError("ERROR", "57P01", "terminating connection due to administrator command");
