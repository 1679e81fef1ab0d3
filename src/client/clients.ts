// The clients of one worker, and those that are not here and yet concern it: a client's process id names the worker that it has logged
// in on, which knows where the client is when that has moved (moves.ts).

import { PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import type { ClientHandle } from "./context.ts";
import type { ClientMessage, MovingClient } from "./moving-client.ts";

/**
 * Process ids of clients: the low bits count, those above name the worker; together a positive int32. With `peer_id` the upper ones of
 * those that count name the instance.
 */
const ID_BITS = 23;
const PEER_BITS = 6;
const COUNT_BITS = ID_BITS - PEER_BITS;

/** So many clients are looked at with every tick; of more a share, so that each has its turn within `TURNS` ticks. Guesses. */
export const FEW = 500;
export const TURNS = 5;

/** Most workers that a process id can name. */
const MOST_WORKERS = 256;

/**
 * The worker that knows where the client with this process id is: it has logged in there, or, when it comes from another process that has
 * more workers, it could have.
 * @param workers how many there are
 */
export function homeOf(pid: number, workers = MOST_WORKERS): number {
	return (pid >>> ID_BITS) % workers;
}

/** The instance that a client with this process id has logged in to, if all of them have a `peer_id`. */
export function instanceOf(pid: number): number {
	return (pid >>> COUNT_BITS) & ((1 << PEER_BITS) - 1);
}

/** @template Row what SHOW CLIENTS shows of a client */
export class Clients<Row> {
	private readonly worker: number;
	private readonly tell: (to: number, message: ClientMessage) => void;
	private readonly here = new Map<number, ClientHandle>();
	/** Of the clients that have logged in here those that are with another worker, and with which. */
	private readonly abroad = new Map<number, number>();
	/** Clients that were given away and have not arrived yet; null of one that was nobody's here before. */
	private readonly underway = new Map<number, Row | null>();
	private lastId: number;
	private readonly workers: number;
	/** What all process ids that are given here have in common, and the bits that count. */
	private readonly common: number;
	private readonly counting: number;
	/** Those that are still to have their turn before all have it again. */
	private waiting = this.here.values();

	/**
	 * @param peer `peer_id`; 0 for none
	 * @param workers how many there are
	 * @param lastId where to begin: away from the process ids of clients that come from another process
	 */
	constructor(
		worker: number,
		tell: (to: number, message: ClientMessage) => void,
		peer = 0,
		workers = MOST_WORKERS,
		lastId = 0,
	) {
		this.worker = worker;
		this.workers = workers;
		this.lastId = lastId;
		this.common = (worker << ID_BITS) | (peer << COUNT_BITS);
		this.counting = (1 << (peer === 0 ? ID_BITS : COUNT_BITS)) - 1;
		this.tell = tell;
	}

	/** @param known the process id that it has already @returns its process id, unique in the process */
	register(client: ClientHandle, known?: number): number {
		const id = known ?? this.nextId();
		this.abroad.delete(id);
		this.here.set(id, client);
		return id;
	}

	private nextId(): number {
		// There are no more; one would be looked for without end.
		if (this.here.size + this.abroad.size >= this.counting) throw TOO_MANY;
		let id: number;
		do {
			this.lastId = (this.lastId + 1) & this.counting;
			id = this.common | this.lastId;
		} while (id === 0 || this.here.has(id) || this.abroad.has(id));
		return id;
	}

	/** @returns whether nobody has this process id, which is kept then for a client that comes from another process */
	reserve(pid: number): boolean {
		if (this.here.has(pid) || this.abroad.has(pid)) return false;
		this.abroad.set(pid, this.worker);
		return true;
	}

	/** It is gone. */
	unregister({ pid }: ClientHandle): void {
		this.here.delete(pid);
		this.noteAt(pid, -1);
	}

	/** No client is here, nor on its way from here. */
	get isEmpty(): boolean {
		return this.here.size + this.underway.size === 0;
	}

	/** How many are here. */
	get size(): number {
		return this.here.size;
	}

	get(pid: number): ClientHandle | undefined {
		return this.here.get(pid);
	}

	homeOf(pid: number): number {
		return homeOf(pid, this.workers);
	}

	/** The worker that has the client with this process id, or knows which has. There may be none such. */
	placeOf(pid: number): number {
		const home = this.homeOf(pid);
		if (this.here.has(pid)) return this.worker;
		return home === this.worker ? (this.abroad.get(pid) ?? home) : home;
	}

	/** All that are here, whatever becomes of them meanwhile. */
	all(): ClientHandle[] {
		return [...this.here.values()];
	}

	/**
	 * Those whose turn it is to be looked at, once for each tick. A look at a client that nobody has touched for long is some
	 * microseconds of waiting for memory: thousands, most of them idle, took 5 % of a core.
	 */
	turn(): ClientHandle[] {
		const { size } = this.here;
		const turn: ClientHandle[] = [];
		for (let left = Math.min(size, Math.max(FEW, Math.ceil(size / TURNS))); left > 0; left--) {
			let next = this.waiting.next();
			if (next.done) {
				this.waiting = this.here.values();
				next = this.waiting.next();
			}
			if (!next.done) turn.push(next.value);
		}
		return turn;
	}

	/** A row for each, made by `row`; one that is on its way is shown here until it has arrived. */
	rows(row: (client: ClientHandle) => Row): Row[] {
		return [...this.all().map(row), ...[...this.underway.values()].filter((each) => each !== null)];
	}

	/** `moving` was a client here, which SHOW CLIENTS shows as `row`, or comes from another process, and goes to the worker `to`. */
	give(moving: MovingClient, row: Row | null, to: number): void {
		const { pid } = moving;
		this.leave(pid, row);
		// Before it arrives there: a CancelRequest for what it does then comes after that.
		this.noteAt(pid, to);
		this.tell(to, { type: "give-client", client: moving, by: this.worker });
	}

	/** It is on its way to another process, and not gone before `left`; or it is registered again. */
	leave(pid: number, row: Row | null): void {
		this.here.delete(pid);
		this.underway.set(pid, row);
	}

	/** It is with another process. */
	left(pid: number): void {
		this.underway.delete(pid);
		this.noteAt(pid, -1);
	}

	/** The client that `by` has given is one of those here, or is none any more. */
	arrived(pid: number, by: number): void {
		if (!this.here.has(pid)) this.noteAt(pid, -1);
		this.tell(by, { type: "client-arrived", pid });
	}

	onArrived(pid: number): void {
		this.underway.delete(pid);
	}

	onAt(pid: number, worker: number): void {
		if (worker < 0) this.abroad.delete(pid);
		else this.abroad.set(pid, worker);
	}

	/** Has the worker that its process id names know where the client is. */
	private noteAt(pid: number, worker: number): void {
		const home = this.homeOf(pid);
		if (home === this.worker) this.onAt(pid, worker);
		else if (home !== worker) this.tell(home, { type: "client-at", pid, worker });
	}
}

const TOO_MANY = new PgError("FATAL", TOO_MANY_CONNECTIONS, "sorry, too many clients already");
