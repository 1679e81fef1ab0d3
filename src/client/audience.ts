// Who is told of notifications (hearing.ts): a client by its Link, or of several shards the ShardedClient, whose Links each have heard some.

import type { Sink } from "../net/stream.ts";

export interface Audience {
	readonly stream: Sink;
	/** A transaction is open, or something under way. */
	readonly isBusy: boolean;
	/** Notifications wait: it has them delivered when it is not busy any more, or reads again. */
	onHeld(): void;
}
