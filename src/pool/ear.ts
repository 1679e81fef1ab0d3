// The connection on which one worker listens for all clients of one user and database in transaction mode (`pub_sub_channel_size`): beside all
// pools, opened when the first of them says LISTEN, closed some time after the last has gone. What is lost while it is lost is lost,
// and the log says so. One Ear for each user and database whose clients listen, and for each of its shards: clients of several say LISTEN
// to all of them, and what a trigger notifies on any is heard. `Ears` has those of a worker.

import { login } from "../backend/login.ts";
import { quoteIdentifier } from "../backend/parameters.ts";
import type { Server, ServerHome } from "../backend/server.ts";
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
import { MARKS, type Origin, Renewal } from "./renewal.ts";
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
	private origin: Origin | null = null;
	private isConnecting = false;
	/** Another connection is about to take its place: what is listened on does not change meanwhile. */
	private renewal: Renewal | null = null;
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
			else if (this.askedAt > 0 && time - this.askedAt > connect_timeout) server.close(SILENT);
			else if (this.renewal !== null && time - this.renewal.begunAt > connect_timeout)
				this.giveUp(this.renewal, SILENT);
			else if (this.channels.size === 0 && this.waiters.length === 0 && time - this.emptyAt > LINGER)
				server.close("nobody listens");
			// A connection that a firewall has forgotten says nothing for ever.
			else if (this.askedAt === 0 && time - server.checkedAt > healthcheck_interval) this.run(";", () => {});
		}
		if (this.changed.size > 0 || this.isStale) this.work();
	}

	/** As things are now; none: they are in the configuration no more. */
	private get shards(): readonly Shard[] {
		return this.context.find(this.user, this.database)?.cluster.shards ?? [];
	}

	/** What a connection would be opened by, as things are now. */
	private get primary(): Origin | null {
		const pool = this.shards[this.shard]?.pick(Side.Primary, 0) ?? null;
		return pool && { spec: pool.spec, generation: pool.generation };
	}

	/** Why the connection may not stay, which is none that would be opened now; null: it may. */
	private outdated(): string | null {
		const { primary, origin } = this;
		if (primary === null || origin === null) return null;
		const isSame = databaseAt(primary.spec) === databaseAt(origin.spec);
		if (!isSame || primary.spec.server_user !== origin.spec.server_user) return "the primary is another";
		return null;
	}

	/** RECONNECT, or a reload that asks something else of it over TLS: the pool's servers are replaced, and so is this one. */
	private get isStale(): boolean {
		const { primary, origin } = this;
		return primary !== null && origin !== null && primary.generation !== origin.generation;
	}

	/** Has the connection listen on what is listened to, if it is not about to. */
	private work(): void {
		const isUnderway = this.isConnecting || this.renewal !== null || this.askedAt > 0;
		if (this.closed || isUnderway || now() < this.retryAt) {
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
			if (this.isStale) this.renew();
			return;
		}
		const statements = [...listensOf(listens), ...unlistens.map((name) => `UNLISTEN ${quoteIdentifier(name)}`)];
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
		const { primary } = this;
		if (primary === null) {
			this.failed(NO_PRIMARY);
			return;
		}
		const { passwordIndex } = this;
		this.isConnecting = true;
		this.context.contain.when(null, this.logIn(primary.spec, this), (outcome) => {
			this.isConnecting = false;
			if (outcome instanceof PgError) {
				if (outcome.sqlstate === "28P01")
					this.passwordIndex = (passwordIndex + 1) % Math.max(1, primary.spec.server_passwords.length);
				this.failed(outcome);
			} else this.opened(outcome, primary);
		});
	}

	private async logIn(spec: PoolSpec, home: ServerHome): Promise<Server | PgError> {
		const { context, passwordIndex } = this;
		const options = loginOptions(spec, passwordIndex, context.general.connect_timeout, context.scram, context);
		const startup = { ...options.startup, application_name: "pgdog listener", client_encoding: "UTF8" };
		try {
			return await login({ ...options, startup }, home);
		} catch (error) {
			return asPgError(error);
		}
	}

	private opened(server: Server, origin: Origin): void {
		server.loggedIn();
		this.server = server;
		this.origin = origin;
		for (const name of this.channels.keys()) this.changed.add(name);
		if (this.closed) server.close("shutdown");
		else this.work();
	}

	close(): void {
		this.closed = true;
		this.server?.close("shutdown");
		this.tell(CLOSED);
	}

	// ---- RECONNECT -------------------------------------------------------------------------------------------------

	/** Another connection is to take the place of this one, which listens on all that it should. */
	private renew(): void {
		const { primary, server, heard } = this;
		if (primary === null || heard.size === 0 || this.outdated() !== null) {
			server!.close("reconnect");
			return;
		}
		const renewal = new Renewal(this, primary);
		this.renewal = renewal;
		this.run(`LISTEN ${quoteIdentifier(MARKS)}`, (refused) => {
			if (refused !== null) this.giveUp(renewal, refused.message);
			else
				this.context.contain.when(null, this.logIn(primary.spec, renewal), (outcome) => this.replace(renewal, outcome));
		});
	}

	private replace(renewal: Renewal, by: Server | PgError): void {
		if (by instanceof PgError) {
			this.giveUp(renewal, by.message);
			return;
		}
		by.loggedIn();
		if (this.renewal === renewal) renewal.begin(by, listensOf([...this.heard]));
		else by.close("reconnect");
	}

	onRenewed(renewal: Renewal, held: readonly Buffer[]): void {
		this.endRenewal(renewal, () => {
			const { server } = this;
			if (renewal.server === null) {
				server?.close("reconnect, and the second one is lost");
				return;
			}
			this.server = renewal.server;
			this.origin = renewal.origin;
			this.askedAt = 0;
			renewal.end();
			server?.close("reconnect");
			for (const message of held) this.onNotification(message, 0, message.length);
			this.work();
		});
	}

	/** No other connection takes its place: then this one goes first. */
	giveUp(renewal: Renewal, why: string): void {
		this.endRenewal(renewal, () => {
			renewal.server?.close("reconnect");
			this.server?.close(`reconnect, while no second one listens: ${why}`);
		});
	}

	/** Later: a connection is not closed in the middle of what it says. */
	private endRenewal(renewal: Renewal, how: () => void): void {
		this.context.contain.soon(null, () => {
			if (this.renewal !== renewal) return;
			this.renewal = null;
			how();
		});
	}

	private describe(): string {
		const shard = this.shards.length > 1 ? `shard: ${this.shard}, ` : "";
		return `user: ${this.user}, database: ${this.database}, ${shard}worker: ${this.context.worker}`;
	}

	// ---- what a Server asks of its home ----------------------------------------------------------------------------

	onNotification(chunk: Buffer, at: number, next: number): void {
		if (this.renewal?.hasPassed(chunk, at, next)) return;
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
		const { renewal } = this;
		this.server = null;
		this.origin = null;
		this.renewal = null;
		renewal?.server?.close("reconnect");
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

/** Texts of LISTEN, of so many channels each as one may be about. */
function listensOf(names: readonly string[]): string[] {
	const texts: string[] = [];
	for (let i = 0; i < names.length; i += AT_ONCE) {
		const listens = names.slice(i, i + AT_ONCE).map((name) => `LISTEN ${quoteIdentifier(name)}`);
		texts.push(listens.join("; "));
	}
	return texts;
}

const SILENT = "no answer within connect_timeout";
const NO_PRIMARY = new PgError("ERROR", "58000", "there is no primary to listen at");
const CLOSED = new PgError("ERROR", "57P01", "terminating connection due to administrator command");
