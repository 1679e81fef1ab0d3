// A query's destination: what the router hands to whoever takes a server out of a pool. Knows no SQL and no pool.

import type { PgError } from "../errors.ts";

/** `Route.shard` below zero. */
export const enum Shard {
	/** Every shard; the answers become one. */
	All = -1,
}

/** Immutable: may be kept and shared. */
export class Route {
	/** A shard from 0, or `Shard.All`. 0 with one shard, always. */
	readonly shard: number;
	/** A replica shall run it; false: the primary. */
	readonly read: boolean;
	/** For the client, instead of an answer: nothing may be sent to any server. The rest means nothing then. */
	readonly error: PgError | null;
	/** Who or what decided, in words for people: `statement`, `transaction`, `plugin "NAME"` … */
	readonly decidedBy: string;

	constructor(shard: number, read: boolean, decidedBy: string, error: PgError | null = null) {
		this.shard = shard;
		this.read = read;
		this.error = error;
		this.decidedBy = decidedBy;
	}
}

/** All routes that one decider can give, each made the first time: asking again allocates nothing. */
export class Routes {
	readonly decidedBy: string;
	readonly #reads: Route[] = [];
	readonly #writes: Route[] = [];

	constructor(decidedBy: string) {
		this.decidedBy = decidedBy;
	}

	to(shard: number, read: boolean): Route {
		const routes = read ? this.#reads : this.#writes;
		// Shard.All is -1.
		let route = routes[shard + 1];
		if (route === undefined) {
			route = new Route(shard, read, this.decidedBy);
			routes[shard + 1] = route;
		}
		return route;
	}
}
