// CancelRequests, in the worker that hears of them: their clients are here, or another worker's, which is asked then.

import { timingSafeEqual } from "node:crypto";
import type { Contain } from "../contain.ts";
import { type Clients, homeOf } from "./clients.ts";

/** Most for other workers' clients under way at a time; more are dropped. A guess. */
const MOST = 4096;

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
	readonly clients: Pick<Clients<unknown>, "placeOf" | "get">;
}

export class CancelRequests {
	private readonly context: Context;
	private readonly workers: number;
	private readonly tell: (to: number, message: CancelMessage) => void;
	/** Called when one for another worker's client is over, by the number that it was given here. */
	private readonly abroad = new Map<number, () => void>();
	private lastId = 0;

	/** @param workers how many there are */
	constructor(context: Context, workers: number, tell: (to: number, message: CancelMessage) => void) {
		this.context = context;
		this.workers = workers;
		this.tell = tell;
	}

	/** One has come. @param done called when it has done what it can, or nothing */
	pass(pid: number, secret: Uint8Array, done: () => void): void {
		const { worker, clients } = this.context;
		const owner = clients.placeOf(pid);
		if (owner === worker) this.here(pid, secret, done);
		else if (owner >= this.workers || this.abroad.size >= MOST) done();
		else {
			const id = ++this.lastId;
			this.abroad.set(id, done);
			this.tell(owner, { type: "cancel", pid, secret, id, by: worker });
		}
	}

	private here(pid: number, secret: Uint8Array, done: () => void): void {
		const { clients, contain } = this.context;
		const client = clients.get(pid);
		if (client?.secret.length === secret.length && timingSafeEqual(client.secret, secret))
			contain.guard(client.stream, () => client.cancel(done));
		else done();
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
		if (place !== worker && homeOf(pid) === worker) this.tell(place, message);
		else this.here(pid, secret, () => this.tell(by, { type: "cancelled", id }));
	}
}
