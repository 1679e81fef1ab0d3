// Clients that go from one worker to another, by their descriptor, with all that is known of their sessions. They go while nothing of
// theirs is under way, and notice nothing. One for each worker; leveling.ts says when.

import type { Socket } from "bun";
import { now } from "../clock.ts";
import { adoptSocket, Stream } from "../net/stream.ts";
import type { Loads } from "../stats/loads.ts";
import { errorResponse } from "../wire/error-response.ts";
import { Client, SHUTTING_DOWN } from "./client.ts";
import type { Clients } from "./clients.ts";
import type { ClientContext, ClientHandle } from "./context.ts";
import { Leveling, type Order } from "./leveling.ts";
import type { ClientMessage, MovingClient } from "./moving-client.ts";

/** Who has said nothing for longer costs no time where it is, ms. */
const LATELY = 1_000;
/** Who has asked for less may be gone before the move, some tenths of a ms, has paid; a guess. */
const WORTH_IT = 32;
/** Most clients that go at one look. */
const MOST_AT_ONCE = 8;
/** ms between two looks whose requests are over just now: busy clients rest for moments. */
const SWEEP = 2;

/** The worker. @template Row what SHOW CLIENTS shows of a client */
export interface MovesContext<Row> extends ClientContext {
	readonly worker: number;
	readonly clients: Clients<Row>;
	readonly loads: Loads;
	readonly handlers: Parameters<typeof adoptSocket>[1];
	rowOf(client: ClientHandle): Row;
	/** A client that was on its way from here is none of ours any more: a shutdown may have waited for it. */
	tellDrained(): void;
}

export class Moves<Row> {
	private readonly context: MovesContext<Row>;
	private readonly leveling: Leveling;
	private readonly workers: number;
	/** Where clients are to go, how many still, and until when: by then it is looked anew. */
	private to = -1;
	private left = 0;
	private until = 0;
	/** Those who may go. */
	private lively: readonly ClientHandle[] = [];
	private isSweeping = false;

	constructor(context: MovesContext<Row>, workers: number) {
		this.context = context;
		this.workers = workers;
		this.leveling = new Leveling(context.worker, workers, context.loads);
	}

	/** The janitor's. @param time `now()` */
	tick(time: number): void {
		const { context } = this;
		if (this.workers === 1) return;
		context.loads.measure(context.worker, time);
		if (context.stopping || context.general.client_placement === "spread") return;
		const order = this.leveling.look(time);
		if (order !== null) this.begin(order, time);
		if (!this.isSweeping) this.sweep();
	}

	/** No client goes any more: where it came to may have said already that none is left there. */
	end(): void {
		this.left = 0;
	}

	private begin({ to, share }: Order, time: number): void {
		this.lively = this.context.clients.all().filter((client) => isLively(client, time));
		this.to = to;
		this.left = Math.ceil(share * this.lively.length);
		this.until = time + LATELY;
	}

	/** Gives those away of whom nothing is under way, again and again until all have gone that should. */
	private sweep(): void {
		const { contain, stopping } = this.context;
		this.isSweeping = false;
		if (this.left === 0 || stopping || now() > this.until) {
			this.lively = [];
			return;
		}
		let room = MOST_AT_ONCE;
		this.lively = this.lively.filter((client) => {
			if (room === 0 || this.left === 0 || !client.isQuiet) return true;
			room--;
			contain.guard(client.stream, () => this.give(client));
			return false;
		});
		this.isSweeping = true;
		contain.later(SWEEP, null, () => this.sweep());
	}

	private give(client: ClientHandle): void {
		const { context, to } = this;
		const row = context.rowOf(client);
		const moving = client.depart();
		if (moving === null) return;
		this.left--;
		context.clients.give(moving, row, to);
		if (context.log.debugs) context.log.debug(`client ${moving.pid} goes to worker ${to} [${moving.address}]`);
	}

	onMessage(message: ClientMessage): void {
		const { contain, clients } = this.context;
		switch (message.type) {
			case "give-client":
				// The giver counts it until then, so that a shutdown waits for it.
				contain.when(null, this.adopt(message.client), () => clients.arrived(message.client.pid, message.by));
				break;
			case "client-arrived":
				clients.onArrived(message.pid);
				this.context.tellDrained();
				break;
			case "client-at":
				clients.onAt(message.pid, message.worker);
		}
	}

	/** Takes in a client that was another worker's, or another process', until now. */
	async adopt(moving: MovingClient): Promise<void> {
		const { seats, handlers, log } = this.context;
		let socket: Socket<Stream> | null = null;
		try {
			socket = await adoptSocket(moving.fd, handlers);
		} catch (error) {
			seats.received(moving).free();
			log.warn(`a client was lost on its way between workers: ${error} [${moving.address}]`);
			this.context.onLogout(moving, "connection lost");
		}
		if (socket !== null) this.arrive(socket, moving);
	}

	private arrive(socket: Socket<Stream>, moving: MovingClient): void {
		const { context } = this;
		const stream = new Stream(socket);
		stream.counted = context.seats.received(moving);
		stream.goOnCounting(moving.bytesIn, moving.bytesOut);
		socket.data = stream;
		const found = context.find(moving.user, moving.database);
		// A reload may have taken its user away while it was on its way, or made shards of its database.
		if (context.stopping || found === null || found.cluster.shards.length > 1) {
			stream.writeAll(errorResponse(SHUTTING_DOWN, "ends"));
			stream.end();
			context.onLogout(moving, "shutdown");
			return;
		}
		const { user, cluster, router } = found;
		context.contain.guard(stream, () => Client.arrive(context, stream, user, cluster, router, moving));
	}
}

function isLively({ activeAt, queries }: ClientHandle, time: number): boolean {
	return queries >= WORTH_IT && time - activeAt < LATELY;
}
