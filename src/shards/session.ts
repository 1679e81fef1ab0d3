// What the session of a client of several shards is, beside what each shard's Link has of it. Made by sharded-client.ts;
// planning.ts and exchange.ts ask and tell its parts.

import type { Session } from "../session/session.ts";
import type { ShardedStatements } from "../session/sharded-statements.ts";
import type { ClientStatements } from "../session/statements.ts";
import type { ShardedTransaction } from "./transaction.ts";

export interface ShardedSession {
	/** The client's own; all shards' Links tell it what the client has SET of routing. */
	readonly own: Session;
	/** The client's statements, as the shards have confirmed them. */
	readonly statements: ClientStatements;
	/** What they are made of; each shard has a part in it. */
	readonly kept: ShardedStatements;
	readonly transaction: ShardedTransaction;
}
