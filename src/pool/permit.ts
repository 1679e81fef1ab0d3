// The right to have one server connection of a pool. How many are in use in the process is counted in the Ledger; a Permit is who
// may say that one fewer is. A permit that is given back twice lets a pool grow beyond its size, one that is never given back
// shrinks it for ever, so neither is left to whoever writes the code around it: a permit gives itself back at the end of the
// block that holds it (`using`), unless it has gone to somebody else by then, and it does so once.

import type { Server } from "../backend/server.ts";
import type { Ledger } from "./ledger.ts";

/** What a server counts for beside its pool (caps.ts). */
export interface Cap {
	readonly name: string;
	readonly most: number;
	readonly setting: string;
}

export class Permit implements Disposable {
	private readonly ledger: Ledger;
	private readonly slot: number;
	/** Names of its caps: with a server it goes to other threads. */
	readonly caps: readonly string[];
	/** It belongs to a server of the pool, which gives it back when it is gone. */
	private isHeld = false;
	/** It was given back, or belongs to another thread. */
	private isOver = false;

	private constructor(ledger: Ledger, slot: number, caps: readonly string[]) {
		this.ledger = ledger;
		this.slot = slot;
		this.caps = caps;
	}

	/** @returns null when `limit` are in use, or as many as one of the caps allows */
	static take(ledger: Ledger, slot: number, limit: number, caps: readonly Cap[] = []): Permit | null {
		if (!ledger.acquire(slot, limit)) return null;
		const full = caps.findIndex(({ name, most }) => !ledger.tally.add(name, most));
		const names = caps.map(({ name }) => name);
		if (full < 0) return new Permit(ledger, slot, names);
		new Permit(ledger, slot, names.slice(0, full)).release();
		return null;
	}

	/** The permit that came with a server from another thread. @param caps that it had there */
	static received(ledger: Ledger, slot: number, caps: readonly string[] = []): Permit {
		return new Permit(ledger, slot, caps);
	}

	release(): void {
		if (this.isOver) return;
		this.isOver = true;
		this.ledger.release(this.slot);
		this.releaseCaps();
	}

	private releaseCaps(): void {
		for (const name of this.caps) this.ledger.tally.remove(name);
	}

	/** Gives the permit back if more than `keep` of the pool are in use: of threads that look at once no more than are over do. */
	releaseAbove(keep: number): boolean {
		if (this.isOver || !this.ledger.releaseAbove(this.slot, keep)) return false;
		this.isOver = true;
		this.releaseCaps();
		return true;
	}

	/** The permit has gone to another thread, together with its server. */
	passOn(): void {
		this.isOver = true;
	}

	/** Called by `Servers`, and by `Handover` while a server ends that is none of theirs any more. */
	belongsToServer(is: boolean): void {
		this.isHeld = is;
	}

	[Symbol.dispose](): void {
		if (!this.isHeld) this.release();
	}
}

/** The servers of a pool in one thread, each with its permit: there is no way in without one, and no way out but with it. */
export class Servers {
	private readonly permits = new Map<Server, Permit>();

	get size(): number {
		return this.permits.size;
	}

	has(server: Server): boolean {
		return this.permits.has(server);
	}

	[Symbol.iterator](): IterableIterator<Server> {
		return this.permits.keys();
	}

	add(server: Server, permit: Permit): void {
		permit.belongsToServer(true);
		this.permits.set(server, permit);
	}

	/** @returns its permit, which is the caller's from now on; null when the server is none of the pool's, or no longer */
	remove(server: Server): Permit | null {
		const permit = this.permits.get(server);
		if (permit === undefined) return null;
		this.permits.delete(server);
		permit.belongsToServer(false);
		return permit;
	}

	/** Removes `server` if more than `keep` permits are in use in the process. @returns whether it was: then it has to be closed */
	removeAbove(server: Server, keep: number): boolean {
		if (this.permits.get(server)?.releaseAbove(keep) !== true) return false;
		this.permits.delete(server);
		return true;
	}
}
