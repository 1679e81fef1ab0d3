// `read_after_write`: a client's reads must not go where its own last write may not have come yet. Either they go to the primary
// for a while, or to servers that are known to have replayed it (pool/monitor.ts). Used by client/routing.ts and
// shards/sharded-client.ts.

import type { General } from "../config/settings.ts";
import { Side } from "../config/snapshot.ts";
import { type Route, Routes } from "../router/route.ts";

const BY_OWN_WRITE = new Routes("read_after_write");

export class OwnWrites {
	/** `now()` when the last write was answered, while reads have to see it; else 0. */
	at = 0;
	/** `since` for `Cluster.pick`, set by `side`; 0 when no write has to be seen. */
	since = 0;

	/** A transaction that may have written is over. @param time `now()`; 0: none has to be seen */
	wrote(time: number): void {
		this.at = time;
	}

	/** Which side a request for `side` may go to now; sets `since`. @param time `now()` */
	side(side: Side, general: General, time: number): Side {
		this.since = 0;
		if (this.at === 0 || side === Side.Primary) return side;
		if (general.read_after_write === "lsn") this.since = this.at;
		else if (general.read_after_write === "off" || time - this.at > general.read_after_write_window) this.at = 0;
		// A client that names a replica gets one.
		else if (side === Side.Any) return Side.Primary;
		return side;
	}

	/** The route that SHOW ROUTES and EXPLAIN tell of, when a request goes to `side` for a write's sake and not where `route` says. */
	told(route: Route | null, side: Side): Route | null {
		return route === null ? null : BY_OWN_WRITE.to(route.shard, side);
	}
}
