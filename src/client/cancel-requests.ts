// CancelRequests, in the worker that hears of them: their clients are here, or another worker's, which is asked then, or another
// instance's behind the same address (`[[peers]]`), to which they are passed on.

import { timingSafeEqual } from "node:crypto";
import { sendCancel } from "../backend/cancel.ts";
import type { Peer } from "../config/peers.ts";
import type { Contain } from "../contain.ts";
import type { Dialling } from "../net/connect.ts";
import { type Clients, instanceOf } from "./clients.ts";
import type { ClientContext } from "./context.ts";

/** Most for other workers' clients under way at a time; more are dropped. A guess. */
const MOST = 4096;
/** Most to other instances: each is a connection, and who asks need not have logged in. A guess. */
const MOST_FORWARDED = 64;

/**
 * One that an instance has passed on has this bit in its process id, which none of ours has: it is for a client there, or for none.
 * So it goes no further, whatever `[[peers]]` say.
 */
const FORWARDED = 1 << 31;

/** From one worker to another. */
export type CancelMessage =
	| {
			readonly type: "cancel";
			readonly pid: number;
			readonly secret: Uint8Array;
			readonly id: number;
			readonly by: number;
	  }
	/** The answer to `cancel` with this `id`: the CancelRequest has done what it can. */
	| { readonly type: "cancelled"; readonly id: number };

/** What it has to know of its worker. */
interface Context {
	readonly worker: number;
	readonly contain: Contain;
	readonly general: ClientContext["general"];
	readonly dialling: Dialling;
	readonly clients: Pick<Clients<unknown>, "placeOf" | "homeOf" | "get">;
	/** Nobody here has this key: the process that this one has replaced may know whose it is. */
	cancelElsewhere(pid: number, secret: Uint8Array): void;
}

export class CancelRequests {
	private readonly context: Context;
	private readonly workers: number;
	private readonly tell: (to: number, message: CancelMessage) => void;
	/** Called when one for another worker's client is over, by the number that it was given here. */
	private readonly abroad = new Map<number, () => void>();
	private lastId = 0;
	/** Other instances. */
	private peers: ReadonlyMap<number, Peer> = new Map();
	private forwarded = 0;

	/** @param workers how many there are */
	constructor(context: Context, workers: number, tell: (to: number, message: CancelMessage) => void) {
		this.context = context;
		this.workers = workers;
		this.tell = tell;
	}

	/** These are the instances from now on. */
	reach(peers: readonly Peer[]): void {
		const { peer_id: own } = this.context.general;
		this.peers = new Map(peers.flatMap((peer) => (peer.peer_id === own ? [] : [[peer.peer_id, peer]])));
	}

	/** One has come. @param named the process id in it @param done called when it has done what it can, or nothing */
	pass(named: number, secret: Uint8Array, done: () => void): void {
		const { worker, clients } = this.context;
		const pid = named & ~FORWARDED;
		const peer = pid === named ? this.peers.get(instanceOf(pid)) : undefined;
		if (peer !== undefined) {
			this.forward(peer, pid, secret, done);
			return;
		}
		const owner = clients.placeOf(pid);
		if (owner === worker) this.here(pid, secret, done);
		else if (owner >= this.workers || this.abroad.size >= MOST) done();
		else {
			const id = ++this.lastId;
			this.abroad.set(id, done);
			this.tell(owner, { type: "cancel", pid, secret, id, by: worker });
		}
	}

	/** In clear text, as clients send theirs. That instance closes the connection when it has done what it can. */
	private forward(peer: Peer, pid: number, secret: Uint8Array, done: () => void): void {
		if (this.forwarded >= MOST_FORWARDED) {
			done();
			return;
		}
		this.forwarded++;
		const { general, dialling, contain } = this.context;
		const sent = sendCancel(peer, pid | FORWARDED, secret, general.connect_timeout, { ...dialling, tls: null });
		contain.when(null, sent, () => {
			this.forwarded--;
			done();
		});
	}

	private here(pid: number, secret: Uint8Array, done: () => void): void {
		const { clients, contain } = this.context;
		const client = clients.get(pid);
		if (client?.secret.length === secret.length && timingSafeEqual(client.secret, secret))
			contain.guard(client.stream, () => client.cancel(done));
		else {
			this.context.cancelElsewhere(pid, secret);
			done();
		}
	}

	onMessage(message: CancelMessage): void {
		if (message.type === "cancelled") {
			const done = this.abroad.get(message.id);
			this.abroad.delete(message.id);
			done?.();
			return;
		}
		// The client is here, or has logged in here and gone elsewhere.
		const { worker, clients } = this.context;
		const { pid, secret, id, by } = message;
		const place = clients.placeOf(pid);
		if (place !== worker && clients.homeOf(pid) === worker) this.tell(place, message);
		else this.here(pid, secret, () => this.tell(by, { type: "cancelled", id }));
	}
}
