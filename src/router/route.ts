// A query's destination: what the router hands to whoever takes a server out of a pool. Knows no SQL and no pool.

import type { Side } from "../config/snapshot.ts";
import type { PgError } from "../errors.ts";

/** `Route.shard` below zero. */
export const enum ShardChoice {
	/** Every shard; the answers become one. */
	All = -1,
}

/** Immutable: may be kept and shared. */
export class Route {
	/** A shard from 0, or `ShardChoice.All`. 0 with one shard, always. */
	readonly shard: number;
	/** Which of the shard's servers shall run it. */
	readonly side: Side;
	/** An ErrorResponse for the client, instead of an answer: nothing may be sent to any server, and the rest means nothing. */
	readonly error: PgError | null;
	/** Who or what decided, in words for people: `statement`, `transaction`, `plugin "NAME"` … */
	readonly decidedBy: string;

	constructor(shard: number, side: Side, decidedBy: string, error: PgError | null = null) {
		this.shard = shard;
		this.side = side;
		this.error = error;
		this.decidedBy = decidedBy;
	}
}

/** All routes that one decider can give, each made the first time: asking again allocates nothing. */
export class Routes {
	readonly decidedBy: string;
	readonly #made: Route[][] = [];

	constructor(decidedBy: string) {
		this.decidedBy = decidedBy;
	}

	to(shard: number, side: Side): Route {
		this.#made[side] ??= [];
		const routes = this.#made[side];
		// `ShardChoice.All` is -1.
		let route = routes[shard + 1];
		if (route === undefined) {
			route = new Route(shard, side, this.decidedBy);
			routes[shard + 1] = route;
		}
		return route;
	}
}
