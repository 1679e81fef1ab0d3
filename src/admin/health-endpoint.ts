// The HTTP endpoint (`healthcheck_port`) for load balancers and orchestrators: whether to send clients here (`/`, `/ready`), and
// whether to start the process anew (`/live`). Run by the main thread; knows HTTP and nothing of how health is found out.

import { cannotListen } from "../errors.ts";
import type { PoolRow } from "../status/rows.ts";

export interface HealthEndpoint {
	readonly port: number;
	/** Closes the port and the connections to it. */
	stop(): void;
}

/** Seconds that a connection may keep silent before it has asked. */
const IDLE_TIMEOUT = 10;

/**
 * One well server is enough to be up. Without any pool nobody can be served, and a balancer should ask another proxy.
 * @param mayCome pools come with log-ins, which have to reach us first
 */
export function isUp(pools: readonly PoolRow[], mayCome: boolean): boolean {
	return pools.length === 0 ? mayCome : pools.some(({ vitals }) => vitals.healthy);
}

/** How the proxy is, asked anew for each request. */
export interface Health {
	/** Some server is well (`isUp`). */
	isUp(): boolean;
	/** Every worker comes back to its event loop; that the main thread does is seen by its answer. */
	isLive(): boolean;
	/** It is being stopped: no new clients. */
	isStopping(): boolean;
}

/**
 * Answers requests of any method.
 * @param port 0: any free one
 * @throws Error that names the port when it cannot be had
 */
export function serveHealth(port: number, health: Health): HealthEndpoint {
	try {
		const server = Bun.serve({
			hostname: "0.0.0.0",
			port,
			idleTimeout: IDLE_TIMEOUT,
			development: false,
			// Bun shares the port when not in development: two proxies would then answer for each other in turn.
			reusePort: false,
			// Of a request without a Host, which HTTP/1.0 permits, the URL has none.
			fetch: ({ url }) => answerTo(URL.parse(url, "http://proxy")?.pathname ?? "", health),
		});
		return { port: server.port!, stop: () => void server.stop(true) };
	} catch (error) {
		throw cannotListen(error, `0.0.0.0:${port} (healthcheck_port)`);
	}
}

function answerTo(path: string, health: Health): Response {
	switch (path) {
		// PgDog's: 502 is also what it says during a shutdown.
		case "/":
			return health.isUp() && !health.isStopping() ? reply(200, "up") : reply(502, "down");
		case "/ready":
			if (health.isStopping()) return reply(503, "shutting down");
			return health.isUp() ? reply(200, "up") : reply(502, "down");
		case "/live":
			return health.isLive() ? reply(200, "live") : reply(503, "a worker is stuck");
		default:
			return reply(404, "not found");
	}
}

function reply(status: number, text: string): Response {
	// A connection for each request: kept ones would add up, and one that times out just as it is used again looks like "down".
	const headers = { "Content-Type": "text/plain", "Cache-Control": "no-store", Connection: "close" };
	return new Response(text, { status, headers });
}
