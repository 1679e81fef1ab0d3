// What the session of a client of several shards is, beside what each shard's Link has of it. Made by sharded-client.ts;
// planning.ts and exchange.ts ask and tell its parts.

import type { Session } from "../session/session.ts";
import type { ClientStatements } from "../session/statements.ts";
import type { ShardedTransaction } from "./transaction.ts";

export interface ShardedSession {
	/** The client's own; all shards' Links tell it what the client has SET of routing. */
	readonly own: Session;
	/** The client's statements, as the shards have confirmed them; each shard's Link has its own of them. */
	readonly statements: ClientStatements;
	readonly transaction: ShardedTransaction;
}
