// What a client of several shards has of prepared statements: its names and its unnamed statement, as the shards have confirmed them, and
// what they have told it. Each shard has a part in it, by which its ClientStatements (statements.ts) see the same. Owned by the
// ShardedClient; its Exchange (shards/exchange.ts) says when something is about to be said on a shard, and when it is answered.

import type { Statements } from "../backend/statements.ts";
import { StatementNames } from "./names.ts";
import type { Parsing } from "./parsing.ts";
import { ShardNames } from "./shard-names.ts";
import type { KeptStatements } from "./statements.ts";
import { type ShardTold, Told } from "./told.ts";
import { UnnamedStatement } from "./unnamed.ts";

export class ShardedStatements implements KeptStatements {
	readonly names: StatementNames;
	readonly unnamed = new UnnamedStatement();
	readonly told = null;
	readonly confirmed = new Told();
	readonly areShared: boolean;
	private readonly statements: Statements;
	/** By the number of the shard. */
	private readonly parts: ShardPart[] = [];

	/** @param areShared for as long as the client stays: what it has parsed on one shard is known to another as it was there */
	constructor(statements: Statements, areShared: boolean) {
		this.statements = statements;
		this.areShared = areShared;
		this.names = new StatementNames(statements);
	}

	/** @param parsing of the shard's sessions */
	partOf(shard: number, parsing: Parsing): ShardPart {
		const part = new ShardPart(this, new ShardNames(this.names, shard, parsing, this.statements));
		this.parts[shard] = part;
		return part;
	}

	/** Something is about to be said on these shards. None owes an answer to what was said before. */
	begin(shards: readonly number[]): void {
		const { parts, unnamed, confirmed } = this;
		if (confirmed.isUnsettled) confirmed.settle();
		for (const shard of shards) {
			const part = parts[shard]!;
			if (part.followed !== unnamed.serial) part.follow(unnamed);
		}
	}

	/**
	 * What was said on these shards is answered, and may have changed statements.
	 * @param certain the client's statements are what it has made of them there
	 */
	settle(shards: readonly number[], certain: boolean): void {
		for (const shard of shards) this.parts[shard]!.settle(certain ? this.unnamed.serial : UNKNOWN);
	}
}

/** One shard's. */
class ShardPart implements KeptStatements {
	readonly names: ShardNames;
	readonly unnamed = new UnnamedStatement();
	readonly told: ShardTold;
	readonly confirmed = null;
	readonly areShared: boolean;
	/** The number of the client's unnamed statement that `unnamed` is; written here only. */
	followed: number;

	constructor(client: ShardedStatements, names: ShardNames) {
		this.names = names;
		this.told = client.confirmed.ofShard();
		this.areShared = client.areShared;
		this.followed = client.unnamed.serial;
	}

	follow(client: UnnamedStatement): void {
		this.unnamed.follow(client);
		this.followed = client.serial;
	}

	settle(followed: number): void {
		this.names.settle();
		this.followed = followed;
	}
}

/** No statement's number. */
const UNKNOWN = -1;
