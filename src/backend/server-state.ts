// What one connection to PostgreSQL is doing; changed by its Server (server.ts) only.

export const enum ServerState {
	/** StartupMessage sent; not in the pool yet. */
	Login,
	/** In the pool, clean, nobody's. */
	Idle,
	/** Lent to `client`. */
	Lent,
	/** Runs a query of ours; `client` may be waiting for its end. */
	Task,
	/** Its client is gone in mid-request: the answer is read and thrown away, then it is cleaned. */
	Draining,
	Closed,
}
