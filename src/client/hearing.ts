// What one client hears of the channels on which it listens in transaction mode: notifications come by the Ear of its user and database
// (pool/ear.ts), wait here while the client is in a transaction, and go out between two messages. Its own server runs its LISTEN and
// UNLISTEN too, so that what is said of them, and whether they hold, is PostgreSQL's; what that server notifies is not passed on, and it is
// cleaned when the client lets go of it. Made by saying.ts when a client may listen; with several shards there is one for each.

import type { Server } from "../backend/server.ts";
import type { Follower } from "../backend/session-state.ts";
import { CANCELED, PgError } from "../errors.ts";
import { Act, type ListenAct } from "../parser/listens.ts";
import type { ChannelListener, Ear, HeardChannel } from "../pool/ear.ts";
import { Listens, MOST_LISTENS } from "../session/listens.ts";
import { Said } from "../session/said.ts";
import { TxStatus } from "../wire/codes.ts";
import { HEADER } from "../wire/frame.ts";
import type { Audience } from "./audience.ts";
import type { ClientContext } from "./context.ts";
import { UNREAD } from "./incoming.ts";

/** Most bytes of notifications that wait for one client, whatever `pub_sub_channel_size` says; a guess. */
const WAITING = 1 << 20;

/** NAMEDATALEN - 1. */
const NAME_LENGTH = 63;

/** The client, as its Link has it. */
export interface Hearer {
	readonly client: { readonly pid: number; readonly user: string; readonly database: string };
	readonly audience: Audience;
	/** On which it listens, and has its server. */
	readonly shard: number;
	readonly server: Server | null;
}

interface Heard {
	readonly channel: HeardChannel;
	readonly message: Buffer;
}

export class Hearing implements ChannelListener, Follower {
	/** Why a message is refused that has the client listen. */
	refusal: PgError = TOO_MANY;
	private readonly context: ClientContext;
	private readonly hearer: Hearer;
	/** Of the user, database and shard; while nobody listens there may come to be another. */
	private ear: Ear;
	private readonly listens = new Listens();
	/** Channels of which the ear tells us: those in force, and those that are being asked for. */
	private readonly joined = new Set<string>();
	private readonly portals = new Map<string, readonly ListenAct[]>();
	/** What the next `wait` is for. */
	private awaited: readonly string[] = [];
	/** Called when the last is over; null when it is. */
	private awaiting: (() => void) | null = null;
	/** Why the last could not be had; told once. */
	private failure: PgError | null = null;
	private queue: Heard[] = [];
	private bytes = 0;
	/** What its own server's transaction has notified on channels that it listens on from its COMMIT, which has not come yet. */
	private early: Heard[] = [];
	private earlyBytes = 0;
	private isDue = false;
	private readonly due: () => void;
	/** `pub_sub_channel_size` when the client began to listen, or after a reload that has not taken it away. */
	private most: number;

	constructor(context: ClientContext, hearer: Hearer) {
		this.context = context;
		this.hearer = hearer;
		this.ear = this.earNow;
		this.most = context.general.pub_sub_channel_size;
		this.due = () => {
			this.isDue = false;
			this.deliver();
		};
	}

	private get earNow(): Ear {
		const { client, shard } = this.hearer;
		return this.context.ears.of(client.user, client.database, shard);
	}

	/** It listens on nothing, and nothing waits for it: nobody misses anything when this is no more. */
	get isIdle(): boolean {
		return this.joined.size + this.queue.length + this.early.length === 0 && !this.listens.isOpen;
	}

	// ---- what the client says --------------------------------------------------------------------------------------

	/**
	 * It has said something of channels whose transaction has not ended, as far as is known: what comes next has to wait for the answers,
	 * so that it is certain whose command tags they are, and how each transaction has ended.
	 */
	get isOpen(): boolean {
		return this.listens.isOpen;
	}

	/** Whether these statements matter to what it listens on. */
	concerns(acts: readonly ListenAct[]): boolean {
		return acts.length > 0 && (this.listens.isOpen || acts.some(isOfChannels));
	}

	/** Statements that the client is about to say. @returns AsIs: they may be; Awaits: `wait` first; Unheard: `refusal` says why not */
	heed(server: Server, acts: readonly ListenAct[]): Said {
		const wanted = acts.filter(({ act }) => act === Act.Listen).map(({ name }) => name);
		const { failure, listens, joined } = this;
		this.failure = null;
		if (failure !== null) {
			// Nobody has to listen there for a transaction that has failed; and it may be this name that cannot be had.
			for (const name of this.awaited) if (!listens.channels.has(name) && !listens.mayListen(name)) this.part(name);
			return this.refuse(failure);
		}
		// What ends a transaction, or gives channels up, is never too much.
		if (acts.some(isKept) && !listens.hasRoom(acts.length + this.portals.size)) return this.refuse(TOO_FULL);
		if (wanted.length === 0) return Said.AsIs;
		if (joined.size + wanted.filter((name) => !joined.has(name)).length > MOST_LISTENS) return this.refuse(TOO_MANY);
		const encoding = server.session.reports.now.values.get("client_encoding") ?? "UTF8";
		if (encoding !== "UTF8" && encoding !== "SQL_ASCII") return this.refuse(ENCODING);
		if (this.joined.size === 0) this.ear = this.earNow;
		let isHeard = true;
		for (const name of wanted) {
			this.joined.add(name);
			if (!this.ear.add(name, this)) isHeard = false;
		}
		this.awaited = wanted;
		return isHeard ? Said.AsIs : Said.Awaits;
	}

	private refuse(error: PgError): Said {
		this.refusal = error;
		return Said.Unheard;
	}

	/** Waits until the ear listens on what `heed` was told of last, or cannot, or is not waited for any more. */
	wait(done: () => void): void {
		this.awaiting = done;
		this.ear.wait(this.awaited, (error) => {
			if (this.awaiting === done) this.endWait(error);
		});
	}

	/** A CancelRequest. @returns false when nothing is waited for */
	cancel(): boolean {
		if (this.awaiting === null) return false;
		this.endWait(CANCELED);
		return true;
	}

	private endWait(error: PgError | null): void {
		const done = this.awaiting!;
		this.awaiting = null;
		this.failure = error;
		done();
	}

	/** What `heed` has let pass is said. */
	say(server: Server, acts: readonly ListenAct[]): void {
		server.session.follow(this);
		this.listens.say(acts);
	}

	/** A Bind: what an Execute of this portal is going to do. Of a name that PostgreSQL cuts off it is not certain which it is. */
	bind(portal: string, acts: readonly ListenAct[]): void {
		if (acts.length > 0 && portal.length <= NAME_LENGTH) this.portals.set(portal, acts);
		else this.portals.delete(portal);
	}

	execute(server: Server, portal: string): void {
		const acts = this.portals.get(portal);
		if (acts !== undefined) this.say(server, acts);
	}

	// ---- what its server answers -----------------------------------------------------------------------------------

	onTag(tag: string): void {
		this.listens.onTag(tag);
	}

	/** All is answered. */
	answered({ status, session }: Server): void {
		const isIdle = status === TxStatus.Idle;
		this.listens.answered(isIdle, !session.traces.rolledBack);
		if (!isIdle) return;
		this.portals.clear();
		const { channels } = this.listens;
		if (this.joined.size === channels.size && this.early.length === 0) return;
		for (const name of this.joined) if (!channels.has(name)) this.part(name);
		this.queue = this.queue.filter(({ channel }) => channels.has(channel.name));
		this.bytes = this.queue.reduce((bytes, { message }) => bytes + message.length, 0);
		const { early } = this;
		this.early = [];
		this.earlyBytes = 0;
		for (const heard of early) if (channels.has(heard.channel.name)) this.enqueue(heard);
	}

	private part(name: string): void {
		this.joined.delete(name);
		this.ear.remove(name, this);
	}

	/** The client is gone. */
	leave(): void {
		for (const name of this.joined) this.ear.remove(name, this);
		this.joined.clear();
		this.awaiting = null;
		this.queue = [];
		this.early = [];
	}

	// ---- notifications ---------------------------------------------------------------------------------------------

	/** What was notified just before its COMMIT may come behind that: the two come by different connections. Nothing is missed for it. */
	hear(channel: HeardChannel, pid: number, message: Buffer): void {
		const { client, server } = this.hearer;
		// A server's process may have the number of this client, which would take the notification for its own.
		const heard = { channel, message: pid === client.pid ? anonymous(message) : message };
		if (this.listens.channels.has(channel.name)) this.enqueue(heard);
		else if (server?.pid === pid && this.listens.mayListen(channel.name)) this.keepEarly(heard);
	}

	private keepEarly(heard: Heard): void {
		const bytes = this.earlyBytes + heard.message.length;
		if (this.early.length >= this.most || bytes > WAITING) {
			this.ear.drop(heard.channel);
			return;
		}
		this.early.push(heard);
		this.earlyBytes = bytes;
	}

	private enqueue(heard: Heard): void {
		this.most = this.context.general.pub_sub_channel_size || this.most;
		this.queue.push(heard);
		this.bytes += heard.message.length;
		while (this.queue.length > this.most || this.bytes > WAITING) {
			const { channel, message } = this.queue.shift()!;
			this.bytes -= message.length;
			this.ear.drop(channel);
		}
		if (this.isDue) return;
		// What comes in one event goes out in one write.
		this.isDue = true;
		this.context.contain.soon(null, this.due);
	}

	/** Passes on what waits, as PostgreSQL does: outside of transactions. Called when one has ended, and when the client reads again. */
	deliver(): void {
		const { queue } = this;
		const { audience } = this.hearer;
		if (queue.length === 0) return;
		const { stream, isBusy } = audience;
		if (isBusy || stream.midMessage || stream.queued > UNREAD) {
			audience.onHeld();
			return;
		}
		this.queue = [];
		this.bytes = 0;
		stream.writeAll(queue.length === 1 ? queue[0]!.message : Buffer.concat(queue.map(({ message }) => message)));
	}
}

function isOfChannels({ act }: ListenAct): boolean {
	return act === Act.Listen || act === Act.Unlisten || act === Act.DiscardAll;
}

/** What is remembered until its transaction ends, and may be refused. */
function isKept({ act }: ListenAct): boolean {
	return act === Act.Listen || act === Act.Savepoint || act === Act.Unlisten;
}

/** The same, of no process. */
function anonymous(message: Buffer): Buffer {
	const copy = Buffer.from(message);
	copy.writeInt32BE(0, HEADER);
	return copy;
}

const TOO_MANY = new PgError("ERROR", "54000", `a client may listen on ${MOST_LISTENS} channels`);
const TOO_FULL = new PgError(
	"ERROR",
	"54000",
	`a transaction may have ${MOST_LISTENS} of LISTEN, UNLISTEN and SAVEPOINT`,
);
const ENCODING = new PgError(
	"ERROR",
	"0A000",
	"LISTEN in transaction mode needs client_encoding UTF8",
	"The connection that listens for all clients has that (pub_sub_channel_size).",
);
