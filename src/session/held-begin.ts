// The part of a transaction that no server knows of yet. Where there are servers to choose from, BEGIN is answered here and
// held back until the first statement tells where to go; so are SET TRANSACTION and the settings that are the proxy's own. A
// transaction that ends before that never needed a server. Asked about each request while there is no server, by
// client/routing.ts and shards/sharded-client.ts.

import { PgError } from "../errors.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { type OwnName, ownSetting } from "../parser/hints.ts";
import { Lexer, Token } from "../parser/lexer.ts";
import { TxStatus } from "../wire/codes.ts";
import { SessionHints } from "./hints.ts";

/** An answer of our own, that the client is told instead of a server's. */
export interface OwnAnswer {
	readonly tag: string;
	/** The one row of a SHOW; null when there are none. */
	readonly row: { readonly column: string; readonly value: string } | null;
	readonly error: PgError | null;
}

/** Texts held back are few and short; whoever sends more gets a server. */
const MOST_TEXTS = 16;
const LONGEST_TEXT = 4096;

export const ABORTED = new PgError(
	"ERROR",
	"25P02",
	"current transaction is aborted, commands ignored until end of transaction block",
);

export class HeldBegin {
	/** The client has begun a transaction, and no server has. */
	open = false;
	/** The transaction has failed: nothing but its end is accepted. */
	failed = false;
	/** How it was begun, as far as routing cares; None unless `open`. */
	begun = TransactionControl.None;
	private readonly hints: SessionHints;
	private readonly texts: string[] = [];
	/**
	 * So many of the texts say how a transaction before this one was begun, which AND CHAIN has handed down: such modes are not forgotten
	 * when the transaction fails, as those that it was begun by itself are.
	 */
	private lasting = 0;
	private lastingBegun = TransactionControl.None;

	constructor(hints: SessionHints) {
		this.hints = hints;
	}

	/** The SQL that a server has to run before the transaction's first statement. */
	get sql(): string {
		const { texts, lasting } = this;
		return lasting === 0 ? joined(texts) : joined([this.lastingSql, ...texts.slice(lasting)]);
	}

	/** The same, of a transaction that AND CHAIN begins when this one has failed. */
	get lastingSql(): string {
		return this.lasting === 0 ? "BEGIN" : chained(joined(this.texts.slice(0, this.lasting)));
	}

	get status(): TxStatus {
		if (!this.open) return TxStatus.Idle;
		return this.failed ? TxStatus.Failed : TxStatus.InBlock;
	}

	/** Whether `answer` may answer: most statements are no concern of ours. */
	concerns(facts: StatementFacts): boolean {
		if (this.failed) return true;
		return facts.statements === 1 && !facts.writes && (!facts.reads || facts.transaction !== TransactionControl.None);
	}

	/**
	 * @param holds BEGIN may be held back
	 * @returns null when a server has to answer
	 */
	answer(facts: StatementFacts, sql: string, holds: boolean): OwnAnswer | null {
		const one = facts.statements === 1;
		switch (one && (holds || this.open) ? facts.transaction : TransactionControl.None) {
			case TransactionControl.Begin:
			case TransactionControl.BeginReadOnly:
			case TransactionControl.BeginReadWrite:
				// A second BEGIN is PostgreSQL's to warn of.
				if (this.open || !this.mayHold(sql)) break;
				this.open = true;
				this.begun = facts.transaction;
				this.texts.push(sql);
				return said(startsWith(sql, "start") ? "START TRANSACTION" : "BEGIN");
			case TransactionControl.Commit:
			case TransactionControl.Rollback: {
				if (!this.open) break;
				const committed = facts.transaction === TransactionControl.Commit && !this.failed;
				// AND CHAIN begins another that is like it.
				if (!facts.chains) this.clear();
				else if (this.failed) this.forgetModes();
				else {
					this.lasting = this.texts.length;
					this.lastingBegun = this.begun;
				}
				this.hints.end(committed);
				return said(committed ? "COMMIT" : "ROLLBACK");
			}
			case TransactionControl.SetTransaction:
			case TransactionControl.SetTransactionReadOnly:
				// The snapshot of SET TRANSACTION SNAPSHOT may not exist any more: that is for a server to say now.
				if (!this.open || this.failed || !this.mayHold(sql) || /snapshot/i.test(sql)) break;
				this.texts.push(sql);
				// Other modes than READ ONLY are for the primary, which a READ ONLY behind them does not change.
				if (facts.transaction === TransactionControl.SetTransaction) this.begun = TransactionControl.BeginReadWrite;
				else if (this.begun === TransactionControl.Begin) this.begun = TransactionControl.BeginReadOnly;
				return said("SET");
			case TransactionControl.None: {
				if (this.failed || !one) break;
				const answer = saySetting(sql, this.hints, this.open, false);
				if (answer !== null) return answer;
			}
		}
		// A Query of several statements that begins with COMMIT or ROLLBACK goes on behind that: a server runs it.
		const { transaction } = facts;
		const ends = transaction === TransactionControl.Commit || transaction === TransactionControl.Rollback;
		if (!this.failed || (ends && !one && !facts.chains)) return null;
		return { tag: "", row: null, error: ABORTED };
	}

	private forgetModes(): void {
		this.failed = false;
		this.texts.length = this.lasting;
		if (this.lasting === 0) this.texts.push("BEGIN");
		this.begun = this.lasting === 0 ? TransactionControl.Begin : this.lastingBegun;
	}

	private mayHold(sql: string): boolean {
		return this.texts.length < MOST_TEXTS && sql.length <= LONGEST_TEXT;
	}

	/** The transaction was begun elsewhere (shards/sharded-client.ts): a server shall run `sql` before the first statement. */
	hold(sql: string): void {
		this.open = true;
		this.texts.push(sql);
	}

	/** A request has failed, and with it the transaction that is held, if there is one. */
	fail(): void {
		if (this.open) this.failed = true;
	}

	/** The transaction has failed, and its end is in a form that a server has to answer: as if it had not been begun. */
	abandon(): void {
		this.clear();
		this.hints.end(false);
	}

	/** A server has run `sql`: the transaction is its own from here on. */
	handOver(): void {
		this.clear();
	}

	private clear(): void {
		this.open = false;
		this.failed = false;
		this.begun = TransactionControl.None;
		this.texts.length = 0;
		this.lasting = 0;
	}
}

/** For all clients that none can be held back for. */
export const NOT_HELD = new HeldBegin(new SessionHints());
Object.freeze(NOT_HELD);

/** A text may end in a comment to the end of its line. */
function joined(texts: readonly string[]): string {
	return texts.join("\n;");
}

/** SQL that begins a transaction just as one that AND CHAIN has begun behind what `sql` begins. */
export function chained(sql: string): string {
	return joined([sql, "COMMIT AND CHAIN"]);
}

function said(tag: string): OwnAnswer {
	return { tag, row: null, error: null };
}

function startsWith(sql: string, word: string): boolean {
	const lexer = new Lexer(sql);
	while (lexer.next() === Token.Semicolon);
	return lexer.text === word;
}

/**
 * SET, RESET and SHOW of a setting that is ours; null for every other statement.
 * @param running the transaction has servers, and statements have run there
 */
export function saySetting(
	sql: string,
	hints: SessionHints,
	inTransaction: boolean,
	running: boolean,
): OwnAnswer | null {
	const own = ownSetting(sql);
	if (own === null) return null;
	if (own.kind === "show") {
		return { tag: "SHOW", row: { column: `pgdog.${own.name}`, value: hints.text(own.name) }, error: null };
	}
	if (own.kind === "set" && own.name !== "role" && running) return { tag: "", row: null, error: tooLate(own.name) };
	try {
		hints.change(own, inTransaction);
	} catch (error) {
		if (!(error instanceof PgError)) throw error;
		return { tag: "", row: null, error };
	}
	if (own.kind === "set") return said("SET");
	// RESET ALL is for the server's settings, too.
	return own.name === "all" ? null : said("RESET");
}

/** 58000, in PgDog's words. */
function tooLate(name: OwnName): PgError {
	const message = `cannot use "SET pgdog.${name}" after connecting to a server; set it before running any queries`;
	return new PgError("ERROR", "58000", message);
}
