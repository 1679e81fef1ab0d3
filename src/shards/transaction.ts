// The transaction of a client of several shards. It is held back (session/held-begin.ts) until its first statement tells where to go; then
// it is open on those shards that its statements have needed, and every other begins it, just as the client did, when the first
// comes there. planning.ts asks it where a statement goes, beside what the router says; exchange.ts tells it what has become of a
// request.

import { Side } from "../config/snapshot.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { chained, type HeldBegin } from "../session/held-begin.ts";
import { TxStatus } from "../wire/codes.ts";

/** A shard as it concerns transactions: its Link. */
export interface Participant {
	readonly transactionStatus: TxStatus;
	/** The BEGIN that `join` gave it has not been run. */
	readonly isHolding: boolean;
	/** Has `sql` run on the server that the shard takes next, before what it is sent. */
	join(sql: string): void;
	/** Forgets the BEGIN that it holds. */
	letGo(): void;
}

const NO_SHARDS: readonly number[] = [];

export class ShardedTransaction {
	/** While it is open no shard knows of the transaction. */
	readonly heldBegin: HeldBegin;
	/** As the client was told by the last ReadyForQuery. */
	status: TxStatus = TxStatus.Idle;
	/** Shards that the transaction is open on, or failed; in order. */
	begun = NO_SHARDS;
	/** Some shard knows of the transaction: it is in `begun`. */
	isRunning = false;
	/** Statements have been sent since the transaction began. */
	hasRun = false;
	/** The transaction has failed, and nothing has been routed since that could change that. */
	private failed = false;
	/** Primary or replica, and `since` for `Cluster.pick`: fixed when the transaction begins, the same on every shard. */
	side = Side.Primary;
	since = 0;
	private readonly shards: readonly Participant[];
	/** How other shards begin the transaction; "" when they cannot, since it was not held back. */
	private sql = "";
	/** The same once it has failed, and AND CHAIN has begun another. */
	private lastingSql = "";
	/** Shards that were given `sql` for the request under way. */
	private joining: number[] = [];
	private readonly sharesNames: boolean;

	/** @param sharesNames what is parsed on one shard may be run on another (`prepared_statements`) */
	constructor(shards: readonly Participant[], heldBegin: HeldBegin, sharesNames: boolean) {
		this.shards = shards;
		this.sharesNames = sharesNames;
		this.heldBegin = heldBegin;
	}

	/** The client was told that it is in a transaction. */
	get isOpen(): boolean {
		return this.status !== TxStatus.Idle;
	}

	/** A request is about to be sent. */
	send(): void {
		this.hasRun = this.status !== TxStatus.Idle;
	}

	/** The shard is about to be sent a statement of the transaction, which it begins if it has not got it, and can. */
	join(shard: number): void {
		const sql = this.heldBegin.open ? this.heldBegin.sql : this.sql;
		if (sql === "" || this.begun.includes(shard) || this.joining.includes(shard)) return;
		this.joining.push(shard);
		this.shards[shard]!.join(sql);
	}

	/** A request is answered: the shards that were to join have the transaction now, or could not begin it. */
	joined(): void {
		const { heldBegin, joining } = this;
		if (joining.length === 0) return;
		const begun = joining.filter((shard) => !this.shards[shard]!.isHolding);
		for (const shard of joining) this.shards[shard]!.letGo();
		this.joining = [];
		if (begun.length === 0) return;
		this.begun = [...this.begun, ...begun].sort((a, b) => a - b);
		this.isRunning = true;
		if (!heldBegin.open) return;
		this.sql = heldBegin.sql;
		this.lastingSql = heldBegin.lastingSql;
		heldBegin.handOver();
	}

	/** The transaction is open on these shards, in order, or has failed on all of them. */
	runsOn(begun: readonly number[], status: TxStatus): void {
		this.begun = begun;
		this.isRunning = begun.length > 0;
		this.failed = status === TxStatus.Failed;
	}

	/** The client is told ReadyForQuery. */
	told(status: TxStatus): void {
		this.status = status;
		if (status === TxStatus.Idle && (this.isRunning || this.failed || this.sql !== "")) this.end();
	}

	/** COMMIT or ROLLBACK has been done, perhaps in a batch that goes on. */
	end(): void {
		this.begun = NO_SHARDS;
		this.isRunning = false;
		this.sql = "";
		this.failed = false;
	}

	/**
	 * Where a statement goes that the router would send to `wanted`: that very array, as a rule.
	 * @param sent shards that the batch has been sent to so far
	 */
	targets(wanted: readonly number[], facts: StatementFacts | null, sent: readonly number[]): readonly number[] {
		const { failed } = this;
		if (!failed && (facts === null || facts.transaction === TransactionControl.None)) return wanted;
		const ends = isEnd(facts);
		// If this does not help, nothing that follows in its batch is run.
		if (ends || facts?.transaction === TransactionControl.Savepoint) this.failed = false;
		if (ends && facts!.chains && this.sql !== "") this.chain(failed);
		if (ends && facts!.statements === 1) {
			const here = [...new Set([...this.begun, ...sent])].sort((a, b) => a - b);
			// One server is enough to say that there is no transaction.
			return here.length > 0 ? here : FIRST;
		}
		// It runs nowhere, and whoever has failed says so. Behind its end in the same string there may be more.
		return failed && !ends && this.isRunning ? this.begun : wanted;
	}

	/**
	 * Where that goes what is said of a portal that was sent to `shards`. A transaction that has failed before any of them had it
	 * does not have the portal either, and nothing may come after its failure where that is not known.
	 */
	withPortal(shards: readonly number[]): readonly number[] {
		const isThere = !this.failed || !this.isRunning || shards.every((shard) => this.begun.includes(shard));
		return isThere ? shards : this.begun;
	}

	/** AND CHAIN: PostgreSQL forgets the modes of a transaction that fails, unless they were handed down to it so. */
	private chain(failed: boolean): void {
		if (failed) this.sql = this.lastingSql;
		else if (this.sql !== this.lastingSql) this.sql = chained(this.sql);
		this.lastingSql = this.sql;
	}

	/**
	 * The shard of what any one can answer: one that has the transaction anyway. Where names are each server's own it is always the
	 * client's own shard, so that what was parsed there can be run there.
	 * @param own the client's own shard
	 * @param sent shards that the batch has been sent to so far
	 */
	home(own: number, sent: readonly number[]): number {
		return this.sharesNames ? (sent[0] ?? this.begun[0] ?? own) : own;
	}

	/** The shards of a statement that any of `wanted` can run. */
	anywhere(wanted: readonly number[]): readonly number[] {
		if (!this.sharesNames) return wanted;
		if (this.isRunning) return this.begun;
		return this.heldBegin.open && wanted.length > 1 ? FIRST : wanted;
	}
}

const FIRST: readonly number[] = [0];

/** Whether a string of statements begins with COMMIT or ROLLBACK of the whole transaction. */
export function isEnd(facts: StatementFacts | null): boolean {
	return facts?.transaction === TransactionControl.Commit || facts?.transaction === TransactionControl.Rollback;
}

/** Whether a statement only says how its transaction begins. */
export function isBeginning(facts: StatementFacts): boolean {
	switch (facts.statements === 1 ? facts.transaction : TransactionControl.None) {
		case TransactionControl.Begin:
		case TransactionControl.BeginReadOnly:
		case TransactionControl.BeginReadWrite:
		case TransactionControl.SetTransaction:
		case TransactionControl.SetTransactionReadOnly:
			return true;
		default:
			return false;
	}
}
