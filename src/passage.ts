// Clients between this process and those before and after it, as the main thread sees them: what their workers (client/crossing.ts) and
// the other process (net/successor.ts) say of them goes through here, and what an operator says of pools to any of them. Made by proxy.ts,
// one for each process.

import type { CancelMessage } from "./client/cancel-requests.ts";
import { homeOf } from "./client/clients.ts";
import type { CrossingOrder, CrossingReport } from "./client/moving-client.ts";
import { LONGEST_PASSPORT } from "./client/passport.ts";
import type { Contain } from "./contain.ts";
import { type Introduction, Introductions, readIntroduction } from "./introductions.ts";
import type { Log } from "./log.ts";
import { closeDescriptor } from "./net/options.ts";
import { type Departures, LANGUAGE, type Successor } from "./net/successor.ts";
import type { ClientsFrom } from "./net/takeover.ts";
import { NeighbourOrders, type PoolOrder, readOrder } from "./pool-orders.ts";

/** ms between two looks for clients that come: while some do, and otherwise. */
const SOON = 1;
const SELDOM = 20;
/** Looks without anything after which it is looked seldom. */
const NOTHING_NEW = 200;
/** Most that is heard at one look. */
const MOST_AT_ONCE = 64;
/** ms that the other process may take to say whether it takes a client, who waits meanwhile. A guess. */
const PATIENCE = 3_000;
/** ms between two looks at whether it does, and hears what it is told. */
const LOOK = 100;

type Said = NonNullable<ReturnType<ClientsFrom["next"]>>;

/** The process. */
interface Context {
	readonly log: Log;
	readonly contain: Contain;
	readonly workers: number;
	readonly attendance: { isStuck(worker: number): boolean };
	send(worker: number, message: { readonly type: "crossing"; readonly order: CrossingOrder } | CancelMessage): void;
	/** Does here what an operator has said to another process. @returns when all workers have */
	obey(order: PoolOrder): Promise<unknown>;
	readonly users: {
		strangers(): Introduction[];
		introduce(user: Introduction): Promise<string | null>;
		forSuccessor(order: PoolOrder): PoolOrder;
	};
}

export class Passage implements Departures {
	private readonly context: Context;
	private successor: Successor | null = null;
	/** Of another process than this one: the successor's. */
	private pid = 0;
	/** Clients that were offered to it: which worker has them, and since when. */
	private readonly offered = new Map<number, { readonly worker: number; readonly since: number }>();
	/** Those whom it waits for and who could not be told yet: its socket was full. */
	private readonly untold = new Set<number>();
	private left = 0;
	/** Reasons that were logged already. */
	private readonly reasons = new Set<string>();
	private watch: Timer | null = null;
	private from: ClientsFrom | null = null;
	private quietLooks = 0;
	/** How many clients have come, for each worker. */
	private readonly came: number[];
	/** The processes before and after, as far as they are there and understand orders. */
	private ordersBefore: NeighbourOrders | null = null;
	private ordersAfter: NeighbourOrders | null = null;
	/** The one after has said that it does. */
	private isUnderstood = false;
	/** Users who go there; null: it does not understand that. */
	private introductions: Introductions | null = null;

	constructor(context: Context) {
		this.context = context;
		this.came = Array.from({ length: context.workers }, () => 0);
	}

	private tell(worker: number, order: CrossingOrder): void {
		this.context.send(worker, { type: "crossing", order });
	}

	private tellAll(order: CrossingOrder): void {
		for (let worker = 0; worker < this.context.workers; worker++) this.tell(worker, order);
	}

	/** From the worker `from`. */
	onReport(from: number, report: CrossingReport): void {
		switch (report.type) {
			case "client-leaves":
				this.offer(from, report);
				break;
			case "client-awaited":
				this.from?.answer(report.pid, report.refusal);
				break;
			case "cancel-elsewhere":
				this.from?.cancel(report.pid, report.secret);
		}
	}

	/** No client goes or comes any more. */
	end(): void {
		this.successor?.end();
		this.stopComing();
	}

	// ---- what an operator says -------------------------------------------------------------------------------------

	/**
	 * Has the processes before and after do it, too. @param by the one that has said it, which has done it; null: it was said here
	 * @returns when they have
	 */
	async pass(order: PoolOrder, by: NeighbourOrders | null = null): Promise<void> {
		const { ordersBefore, ordersAfter } = this;
		const { also: _, ...short } = order;
		const told = [
			ordersBefore === by ? null : ordersBefore?.tell(short),
			ordersAfter === by ? null : ordersAfter?.tell(this.context.users.forSuccessor(order)),
		];
		await Promise.all(told);
	}

	private hearOrder(text: string, by: NeighbourOrders | null, obeyed: () => void): void {
		const order = readOrder(text);
		if (order === null) return;
		const all = Promise.all([this.context.obey(order), this.pass(order, by)]);
		this.context.contain.when(null, all, obeyed);
	}

	onOrder(id: number, text: string): void {
		this.hearOrder(text, this.ordersAfter, () => this.successor?.say("obeyed", id));
	}

	onObeyed(id: number): void {
		this.ordersAfter?.onObeyed(id);
	}

	// ---- clients that go -------------------------------------------------------------------------------------------

	/** @param pid of the process that has taken over */
	lead(pid: number, to: Successor): void {
		this.pid = pid;
		this.successor = to;
		// What is said before it is known whether it understands waits for that.
		this.ordersAfter = new NeighbourOrders(this.context.contain, (id, text) => this.isUnderstood && to.order(id, text));
		to.serve(this);
	}

	onWelcome(language: number): void {
		if (this.watch !== null) return;
		this.isUnderstood = language >= LANGUAGE;
		if (this.isUnderstood) {
			this.ordersAfter?.flush();
			this.introductions = new Introductions({
				strangers: () => this.context.users.strangers(),
				introduce: (id, bytes) => this.successor?.introduce(id, bytes) === true,
				onKnown: ({ user, database }) => this.tellAll({ type: "user-may-leave", user, database }),
				onUnknown: ({ user, database }, why) =>
					this.note(`clients of "${user}" and database "${database}" stay here: ${why}`, why),
			});
		} else this.ordersAfter?.end();
		this.watch = this.context.contain.every(LOOK, () => this.lookForLate());
		this.tellAll({ type: "clients-may-leave", may: true });
	}

	private offer(worker: number, { pid, fd, passport }: Extract<CrossingReport, { type: "client-leaves" }>): void {
		if (this.successor?.give(pid, fd, passport) === true) this.offered.set(pid, { worker, since: performance.now() });
		else this.tell(worker, { type: "client-stays", pid, isRefused: false });
	}

	/** @returns the worker that has the client, which is not offered from now on; -1: none */
	private take(pid: number): number {
		const worker = this.offered.get(pid)?.worker ?? -1;
		this.offered.delete(pid);
		return worker;
	}

	onReady(pid: number): void {
		this.untold.add(pid);
		this.tellUntold();
	}

	/** Who is waited for and never heard of again would have a seat and a descriptor there for as long as this process lives. */
	private tellUntold(): void {
		for (const pid of this.untold) {
			if (this.successor?.say(this.offered.has(pid) ? "go" : "keep", pid) !== true) break;
			this.untold.delete(pid);
			const worker = this.take(pid);
			if (worker < 0) continue;
			this.left++;
			this.tell(worker, { type: "client-left", pid });
		}
	}

	onRefused(pid: number, why: string): void {
		const worker = this.take(pid);
		if (worker < 0) return;
		this.note(`client ${pid} stays here, and maybe others: ${why}`, why);
		this.tell(worker, { type: "client-stays", pid, isRefused: true });
	}

	/** Logs it, once for each reason. */
	private note(text: string, why: string): void {
		if (this.reasons.has(why) || this.reasons.size >= MOST_AT_ONCE) return;
		this.reasons.add(why);
		this.context.log.warn(`takeover: ${text}`);
	}

	/** Its client is one of ours, if any: it is passed on as if another worker had heard of it, which does not wait for it. */
	onCancel(pid: number, secret: Uint8Array): void {
		const home = homeOf(pid, this.context.workers);
		this.context.send(home, { type: "cancel", pid, secret, id: 0, by: home });
	}

	onKnown(id: number): void {
		this.introductions?.onKnown(id);
	}

	onUnknown(id: number, why: string): void {
		this.introductions?.onUnknown(id, why);
	}

	private lookForLate(): void {
		this.tellUntold();
		this.ordersAfter?.flush();
		this.introductions?.look();
		const since = performance.now() - PATIENCE;
		if (![...this.offered.values()].some((each) => each.since < since)) return;
		this.context.log.warn(`takeover: process ${this.pid} does not answer any more: clients stay here`);
		this.successor?.end();
	}

	/** Whoever was not told to go is here. */
	onGone(): void {
		this.successor = null;
		this.introductions = null;
		this.ordersAfter?.end();
		if (this.watch !== null) clearInterval(this.watch);
		this.tellAll({ type: "clients-may-leave", may: false });
		for (const [pid, { worker }] of this.offered) this.tell(worker, { type: "client-stays", pid, isRefused: false });
		this.offered.clear();
		this.untold.clear();
		if (this.left > 0) this.context.log.info(`takeover: ${this.left} clients went to process ${this.pid}`);
		this.left = 0;
	}

	// ---- clients that come -----------------------------------------------------------------------------------------

	/** This process has taken over. @param from null: nobody comes */
	welcome(from: ClientsFrom | null): void {
		this.from = from;
		if (from?.obeys === true)
			this.ordersBefore = new NeighbourOrders(this.context.contain, (id, text) => from.order(id, text));
		if (from === null) this.tellAll({ type: "client-stays-away", pid: -1 });
		from?.begin();
		this.look();
	}

	private look(): void {
		const { from } = this;
		if (from === null) return;
		this.quietLooks++;
		from.flush();
		this.ordersBefore?.flush();
		for (let left = MOST_AT_ONCE; left > 0; left--) {
			const said = from.next(LONGEST_PASSPORT);
			if (said === null) break;
			this.quietLooks = 0;
			this.hear(said);
		}
		if (from.isOver) this.stopComing();
		else this.context.contain.later(this.quietLooks < NOTHING_NEW ? SOON : SELDOM, null, () => this.look());
	}

	private hear(said: Said): void {
		const { word, pid, passport } = said;
		if (word === "obeyed") this.ordersBefore?.onObeyed(pid);
		else if (word === "order") {
			const text = Buffer.from(passport ?? []).toString();
			this.hearOrder(text, this.ordersBefore, () => this.from?.obeyed(pid));
		} else if (word === "user") this.meet(pid, passport);
		else this.hearOfClient(said);
	}

	private meet(id: number, bytes: Uint8Array | null): void {
		const said = readIntroduction(bytes ?? new Uint8Array());
		if (said === null) this.from?.met(id, "what is said of it cannot be read");
		else this.context.contain.when(null, this.context.users.introduce(said), (refusal) => this.from?.met(id, refusal));
	}

	private hearOfClient({ word, pid, fd, passport }: Said): void {
		const worker = homeOf(pid, this.context.workers);
		if (word === "go") this.tell(worker, { type: "client-came", pid, to: this.placeFor(worker) });
		else if (word === "keep") this.tell(worker, { type: "client-stays-away", pid });
		else if (passport !== null) this.tell(worker, { type: "client-comes", pid, fd, passport });
		else {
			// More descriptors than the process may have do not come (SCM_RIGHTS, unix(7)).
			if (fd >= 0) closeDescriptor(fd);
			this.from?.answer(pid, "the new process could not have its descriptor");
		}
	}

	/** The worker to have the next one: `home`, which its process id names, where not fewer have come to another. */
	private placeFor(home: number): number {
		const { came, context } = this;
		let place = home;
		for (const [worker, count] of came.entries())
			if (count < came[place]! && !context.attendance.isStuck(worker)) place = worker;
		came[place]!++;
		return place;
	}

	/** Whoever was not told to come stays there. */
	private stopComing(): void {
		if (this.from === null) return;
		this.from.end();
		this.from = null;
		this.ordersBefore?.end();
		this.tellAll({ type: "client-stays-away", pid: -1 });
	}
}
