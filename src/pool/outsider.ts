// The home of a Server that no pool has: of one that asks for users, or was logged in to once. Nobody is told anything.

import { ParameterSets } from "../backend/parameters.ts";
import type { ServerHome } from "../backend/server.ts";
import { Stat } from "../stats/counters.ts";

export class Outsider implements ServerHome {
	readonly sets = new ParameterSets();
	/** Counters that nobody looks at. */
	readonly counters = new Float64Array(Stat.length);

	onAltered(): void {}
	onIdle(): void {}
	onGone(): void {}
	cancel(): void {}
	rollbackTimeout(): number {
		return Number.POSITIVE_INFINITY;
	}
}
