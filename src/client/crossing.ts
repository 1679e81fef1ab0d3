// Clients that go to the process that replaces this one, and clients that come from the one that this one has replaced: by their
// descriptor, with what their passport says of them, while nothing of theirs is under way. Both ends wait for each other (passage.ts):
// until the other process has said that it takes a client, its descriptor stays here and nobody reads from it, so whoever of the two
// dies, no byte has gone astray. One for each worker.

import { now } from "../clock.ts";
import { loginKey } from "../config/diff.ts";
import { isLearned } from "../config/snapshot.ts";
import type { Descriptors } from "../net/descriptors.ts";
import { Room } from "../net/descriptors.ts";
import { closeDescriptor } from "../net/options.ts";
import type { ClientHandle } from "./context.ts";
import type { Moves, MovesContext } from "./moves.ts";
import type { CrossingOrder, CrossingReport, MovingClient } from "./moving-client.ts";
import { LONGEST_PASSPORT, readPassport, writePassport } from "./passport.ts";

/** Most clients that are on their way at a time. */
const MOST_AT_ONCE = 32;
/** ms between two looks whose requests are over just now, where that takes no time; and clients for each ms more. */
const SWEEP = 2;
const PER_MS = 100;
/** ms after which those who were refused are offered again: there may be seats, or their users, by now. A guess. */
const RETRY = 10_000;

/** The worker. */
interface Context<Row> extends MovesContext<Row> {
	readonly descriptors: Descriptors;
}

export class Crossing<Row> {
	private readonly context: Context<Row>;
	private readonly moves: Moves<Row>;
	private readonly tell: (report: CrossingReport) => void;
	/** Clients that are on their way to another process, by process id; and those that it has not taken lately. */
	private readonly leaving = new Map<number, MovingClient>();
	private readonly refused = new Set<number>();
	private retryAt = 0;
	private mayLeave = false;
	/** Users who are known there, of those who have to be introduced, by `loginKey`. */
	private readonly introduced = new Set<string>();
	/** Clients that are to come from another process. */
	private readonly coming = new Map<number, MovingClient>();
	/** The process before has clients that may come yet. */
	private mayCome: boolean;

	/** @param mayCome this process has taken over, or is about to */
	constructor(context: Context<Row>, moves: Moves<Row>, tell: (report: CrossingReport) => void, mayCome = false) {
		this.context = context;
		this.moves = moves;
		this.tell = tell;
		this.mayCome = mayCome;
	}

	/**
	 * Nobody comes any more. Until then this process is there, also when another has replaced it and no client is left: those that the
	 * process before still has come by way of it, and CancelRequests for them go there.
	 */
	get isEmpty(): boolean {
		return !this.mayCome;
	}

	onOrder(order: CrossingOrder): void {
		switch (order.type) {
			case "clients-may-leave":
				if (order.may && !this.mayLeave) this.sweepLater();
				this.mayLeave = order.may;
				if (!order.may) this.introduced.clear();
				break;
			case "user-may-leave":
				this.introduced.add(loginKey(order.user, order.database));
				break;
			case "client-left":
				this.left(order.pid);
				break;
			case "client-stays":
				this.stay(order.pid, order.isRefused);
				break;
			case "client-comes":
				this.await(order);
				break;
			case "client-came":
				this.came(order.pid, order.to);
				break;
			case "client-stays-away":
				if (order.pid < 0) this.mayCome = false;
				for (const pid of order.pid < 0 ? [...this.coming.keys()] : [order.pid]) this.forget(pid);
		}
	}

	// ---- those that go ---------------------------------------------------------------------------------------------

	private sweepLater(): void {
		const { contain, clients } = this.context;
		contain.later(SWEEP + clients.size / PER_MS, null, () => this.sweep());
	}

	/** Sends those of whom nothing is under way, again and again: who is busy rests for moments. */
	private sweep(): void {
		const { contain, clients, stopping, time } = this.context;
		if (!this.mayLeave || stopping) return;
		if (time >= this.retryAt) {
			this.refused.clear();
			this.retryAt = time + RETRY;
		}
		for (const client of clients.all()) {
			if (this.leaving.size >= MOST_AT_ONCE) break;
			if (client.isQuiet && !this.refused.has(client.pid) && this.isKnown(client))
				contain.guard(client.stream, () => this.give(client));
		}
		this.sweepLater();
	}

	/** Its user is one whom the other process knows, as far as that can be said here. */
	private isKnown(client: ClientHandle): boolean {
		const found = this.context.find(client.user, client.database);
		return found === null || !isLearned(found.spec) || this.introduced.has(loginKey(client.user, client.database));
	}

	private give(client: ClientHandle): void {
		const { clients, rowOf, log } = this.context;
		const row = rowOf(client);
		const moving = client.depart();
		if (moving === null) return;
		const { pid, fd, address } = moving;
		clients.leave(pid, row);
		this.leaving.set(pid, moving);
		const passport = writePassport(moving);
		if (passport.length > LONGEST_PASSPORT) this.stay(pid, true);
		else this.tell({ type: "client-leaves", pid, fd, passport });
		if (log.debugs) log.debug(`client ${pid} goes to another process [${address}]`);
	}

	private left(pid: number): void {
		const moving = this.leaving.get(pid);
		if (moving === undefined) return;
		const { clients, seats } = this.context;
		this.leaving.delete(pid);
		closeDescriptor(moving.fd);
		seats.received(moving).free();
		clients.left(pid);
		this.context.tellDrained();
	}

	/** It goes on here, as if it had been nowhere else. */
	private stay(pid: number, isRefused: boolean): void {
		const moving = this.leaving.get(pid);
		if (moving === undefined) return;
		const { contain, clients } = this.context;
		this.leaving.delete(pid);
		if (isRefused) this.refused.add(pid);
		contain.when(null, this.moves.adopt(moving), () => {
			if (clients.get(pid) === undefined) clients.left(pid);
			else clients.onArrived(pid);
			this.context.tellDrained();
		});
	}

	// ---- those that come -------------------------------------------------------------------------------------------

	private await({ pid, fd, passport }: Extract<CrossingOrder, { type: "client-comes" }>): void {
		const moving = readPassport(passport, fd);
		const refusal = typeof moving === "string" ? moving : this.refusal(moving, pid);
		if (refusal === null) this.coming.set(pid, moving as MovingClient);
		else closeDescriptor(fd);
		this.tell({ type: "client-awaited", pid, refusal });
	}

	/** Why it has to stay where it is; null: it has a descriptor, a seat and its process id here. */
	private refusal(moving: MovingClient, pid: number): string | null {
		const { context } = this;
		const { user, database, fd, link } = moving;
		const found = context.find(user, database);
		if (context.stopping) return "the new process stops";
		if (moving.pid !== pid) return "its session is another's";
		if (found === null) return "its user and database are not in the configuration of the new process";
		if (found.cluster.shards.length > 1) return "its database has several shards in the new process";
		const version = found.cluster.first.reported.version;
		const told = link.settings.told.find(([name]) => name === "server_version")?.[1];
		if (version !== undefined && version !== told) return `the server is of version ${version} in the new process`;
		const prepared = sizeOf(moving);
		if (prepared > 0 && !context.statements.hasRoom(prepared))
			return "the new process has no room for its prepared statements";
		if (!context.clients.reserve(pid)) return "another client has its process id in the new process";
		context.descriptors.count();
		const seat = this.seat(moving, found.spec, fd);
		if (seat === null) return null;
		context.clients.onAt(pid, -1);
		context.descriptors.free();
		return seat;
	}

	/** Takes a seat for it. @returns why there is none, or null */
	private seat(moving: MovingClient, spec: Parameters<Context<Row>["seats"]["take"]>[1], fd: number): string | null {
		const { descriptors, seats } = this.context;
		if (descriptors.roomFor(fd, 0) !== Room.Enough) return "the new process has no file descriptor for it";
		const seat = seats.take(moving, spec, now());
		return seat instanceof Error ? `the new process has no seat for it: ${seat.message}` : null;
	}

	private came(pid: number, to: number): void {
		const moving = this.coming.get(pid);
		if (moving === undefined) return;
		const { contain, clients, worker } = this.context;
		this.coming.delete(pid);
		if (to !== worker) {
			clients.give(moving, null, to);
			return;
		}
		contain.when(null, this.moves.adopt(moving), () => {
			if (clients.get(pid) === undefined) clients.onAt(pid, -1);
		});
	}

	/** It goes on where it was, or with nobody. */
	private forget(pid: number): void {
		const moving = this.coming.get(pid);
		if (moving === undefined) return;
		this.coming.delete(pid);
		closeDescriptor(moving.fd);
		this.context.seats.received(moving).free();
		this.context.clients.onAt(pid, -1);
	}
}

/** Bytes of what it has prepared. */
function sizeOf({ link: { statements } }: MovingClient): number {
	return (statements?.names ?? []).reduce((sum, { name, rest }) => sum + name.length + rest.length, 0);
}
