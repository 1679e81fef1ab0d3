// PAUSE and RESUME where one process has taken over from another and both have clients: what an operator says to one is done by both.
// `NeighbourOrders` has one of them as the other reaches it (passage.ts); which pools are paused, each knows for itself (known-pools.ts).

import type { LoginKey } from "./config/diff.ts";
import type { Contain } from "./contain.ts";

/** For the pools of this user and database; null: of any. */
export interface PoolOrder {
	readonly order: "pause" | "resume";
	readonly user: string | null;
	readonly database: string | null;
	/** Whom a PAUSE means and the process that is told may not know yet. */
	readonly also?: readonly LoginKey[];
}

/** Most orders that the other process has not heard yet: it hears nothing any more, or somebody types faster than that. */
const MOST_UNSAID = 64;
/** ms after which the operator is answered though the other process has not said that it obeys. A guess. */
const PATIENCE = 3_000;

export class NeighbourOrders {
	private readonly contain: Contain;
	private readonly say: (id: number, text: string) => boolean;
	private readonly unsaid = new Map<number, string>();
	private readonly unanswered = new Map<number, () => void>();
	private last = 0;
	private isOver = false;

	/** @param say returns false when that cannot be said now */
	constructor(contain: Contain, say: (id: number, text: string) => boolean) {
		this.contain = contain;
		this.say = say;
	}

	/** Resolves when the other process has obeyed, or nobody can wait for it any more. */
	tell(order: PoolOrder): Promise<void> {
		if (this.isOver || this.unsaid.size >= MOST_UNSAID) return Promise.resolve();
		const { promise, resolve } = Promise.withResolvers<void>();
		const id = ++this.last;
		this.unsaid.set(id, writeOrder(order));
		this.unanswered.set(id, resolve);
		this.contain.later(PATIENCE, null, () => this.onObeyed(id));
		this.flush();
		return promise;
	}

	/** Says what could not be said before. */
	flush(): void {
		for (const [id, text] of this.unsaid) {
			if (!this.say(id, text)) break;
			this.unsaid.delete(id);
		}
	}

	onObeyed(id: number): void {
		this.unanswered.get(id)?.();
		this.unanswered.delete(id);
	}

	/** The other process is gone, or does not understand orders. */
	end(): void {
		this.isOver = true;
		this.unsaid.clear();
		for (const id of this.unanswered.keys()) this.onObeyed(id);
	}
}

export function isMeant({ user, database }: PoolOrder, login: LoginKey): boolean {
	return (user === null || login.user === user) && (database === null || login.database === database);
}

function writeOrder({ also, ...order }: PoolOrder): string {
	return JSON.stringify(also === undefined ? order : { ...order, also: also.map(pairOf) });
}

/** What another process has said; null: it is something else. */
export function readOrder(text: string): PoolOrder | null {
	const said = parsed(text);
	if (typeof said !== "object" || said === null) return null;
	const { order, user, database, also } = said as Record<string, unknown>;
	if ((order !== "pause" && order !== "resume") || !isNameOrNull(user) || !isNameOrNull(database)) return null;
	const logins = also === undefined ? undefined : loginsIn(also);
	if (logins === null) return null;
	return { order, user, database, ...(logins === undefined ? {} : { also: logins }) };
}

/** What the process that makes way has paused, by user and database. */
export function writePaused(logins: readonly LoginKey[]): string {
	return JSON.stringify({ paused: logins.map(pairOf) });
}

/** What `writePaused` of the other process, of another version perhaps, has written; null: it is something else. */
export function readPaused(text: string): LoginKey[] | null {
	return loginsIn((parsed(text) as { readonly paused?: unknown } | null)?.paused);
}

function pairOf({ user, database }: LoginKey): [string, string] {
	return [user, database];
}

function loginsIn(pairs: unknown): LoginKey[] | null {
	if (!Array.isArray(pairs)) return null;
	const isLogin = (each: unknown) => Array.isArray(each) && each.length === 2 && each.every(isName);
	return pairs.every(isLogin) ? pairs.map(([user, database]) => ({ user, database })) : null;
}

function isName(value: unknown): value is string {
	return typeof value === "string";
}

function isNameOrNull(value: unknown): value is string | null {
	return value === null || isName(value);
}

function parsed(text: string): unknown {
	try {
		return JSON.parse(text);
	} catch {
		return null;
	}
}
