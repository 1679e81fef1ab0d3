// The home of a Server that no pool has: of one that asks for users or replication, listens, or was logged in to once. Nobody is told
// anything; whoever has to know when it is gone, or of what it is notified, extends this.

import { ParameterSets } from "../backend/parameters.ts";
import type { Server, ServerHome } from "../backend/server.ts";
import { Stat } from "../stats/counters.ts";

export class Outsider implements ServerHome {
	readonly sets = new ParameterSets();
	/** Counters that nobody looks at. */
	readonly counters = new Float64Array(Stat.length);

	onAltered(): void {}
	onIdle(): void {}
	onGone(_server: Server): void {}
	cancel(): void {}
	rollbackTimeout(): number {
		return Number.POSITIVE_INFINITY;
	}
}
