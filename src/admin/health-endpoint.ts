// The HTTP up/down endpoint (`healthcheck_port`) for load balancers and orchestrators in front of the proxy. Run by the main
// thread; knows HTTP and nothing of how health is found out.

import { cannotListen } from "../errors.ts";
import type { PoolRow } from "../status/rows.ts";

export interface HealthEndpoint {
	readonly port: number;
	/** Closes the port and the connections to it. */
	stop(): void;
}

/** Seconds that a connection may keep silent before it has asked. */
const IDLE_TIMEOUT = 10;

/** One well server is enough to be up. Without any pool nobody can be served, and a balancer should ask another proxy. */
export function isUp(pools: readonly PoolRow[]): boolean {
	return pools.some(({ vitals }) => vitals.healthy);
}

/**
 * Answers any request, whatever its path and method: 200 `up` or 502 `down`.
 * @param port 0: any free one
 * @param up asked anew for each request
 * @throws Error that names the port when it cannot be had
 */
export function serveHealth(port: number, up: () => boolean): HealthEndpoint {
	try {
		const server = Bun.serve({
			hostname: "0.0.0.0",
			port,
			idleTimeout: IDLE_TIMEOUT,
			development: false,
			// Bun shares the port when not in development: two proxies would then answer for each other in turn.
			reusePort: false,
			fetch: () => reply(up()),
		});
		return { port: server.port!, stop: () => void server.stop(true) };
	} catch (error) {
		throw cannotListen(error, `0.0.0.0:${port} (healthcheck_port)`);
	}
}

function reply(up: boolean): Response {
	// A connection for each request: kept ones would add up, and one that times out just as it is used again looks like "down".
	const headers = { "Content-Type": "text/plain", "Cache-Control": "no-store", Connection: "close" };
	return new Response(up ? "up" : "down", { status: up ? 200 : 502, headers });
}
