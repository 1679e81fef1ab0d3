// What of a request is committed in two phases, and what may not be said where that is done: planning.ts has a plan made anew here, where
// two_phase_commit or two_phase_commit_auto is on.

import { beginsBatch } from "../client/framing.ts";
import { TwoPhase } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { OnRows, type StatementFacts, TransactionControl } from "../parser/facts.ts";
import type { ClientStatements } from "../session/statements.ts";
import { Frontend, Target, TxStatus } from "../wire/codes.ts";
import { endOfString, HEADER, readInt32 } from "../wire/frame.ts";
import { FLUSH, SYNC } from "../wire/frontend-messages.ts";
import { BEGIN_OURS, committing, type Plan, type Step, stepOf, Terminator } from "./steps.ts";

/** What decides it, beside what is asked. */
export interface CommitState {
	/** Bits of `TwoPhase`; some. */
	readonly twoPhase: number;
	/** Something of the transaction, or of this request, may write. */
	readonly wrote: boolean;
	/** As the client was told. */
	readonly status: TxStatus;
	/** The shards take a transaction that the client has not begun. */
	readonly mayBegin: boolean;
	readonly involved: readonly number[];
}

// ---- a Query -------------------------------------------------------------------------------------------------------

/** COMMIT of the whole transaction, alone in its string. */
function isCommit({ transaction, statements }: StatementFacts): boolean {
	return transaction === TransactionControl.Commit && statements === 1;
}

/** What goes to these shards is written on several: COMMIT of it has to be done in two phases. */
function divides({ twoPhase, wrote, status }: CommitState, targets: readonly number[]): boolean {
	return (twoPhase & TwoPhase.Transactions) !== 0 && targets.length > 1 && wrote && status !== TxStatus.Failed;
}

/** There may be a transaction to be committed: a batch that is not ended may have begun one. */
function mayBeOpen({ status, involved }: CommitState): boolean {
	return status !== TxStatus.Idle || involved.length > 0;
}

/** It becomes a transaction of ours. @param rows of all of it @param least that it may have */
function isImplicit(state: CommitState, targets: readonly number[], rows: OnRows, least: OnRows): boolean {
	const { twoPhase, wrote, status, mayBegin, involved } = state;
	if ((twoPhase & TwoPhase.Statements) === 0 || targets.length < 2 || !wrote || !mayBegin) return false;
	return rows >= least && status === TxStatus.Idle && involved.length === 0;
}

/**
 * @param plan of a Query, its last step, without two phases
 * @param controls the string has transaction control
 */
export function queryInPhases(
	plan: Plan,
	state: CommitState,
	facts: StatementFacts,
	controls: boolean,
): Plan | PgError {
	const last = plan.steps.at(-1)!;
	const { targets, chunk, at, end } = last;
	if (facts.transaction === TransactionControl.TwoPhase) return CONTROLS;
	const divided = divides(state, targets);
	if (facts.statements > 1 && controls) {
		const sql = chunk.utf8Slice(at + HEADER, end - 1);
		if (OF_TWO_PHASES.test(sql)) return CONTROLS;
		if (divided && ENDS.test(sql)) return STRING;
	}
	if (isCommit(facts)) {
		if (!divided || !mayBeOpen(state)) return plan;
		return facts.chains
			? CHAINS
			: { ...plan, steps: [...plan.steps.slice(0, -1), committing(targets, chunk, at, end)] };
	}
	// Of several statements the first would be told of before the last is committed.
	const rows = facts.statements === 1 ? facts.rows : OnRows.Otherwise;
	if (!isImplicit(state, targets, rows, OnRows.Copied)) return plan;
	return { ...plan, steps: [stepOf(targets, BEGIN_OURS), last, committing(targets, chunk, end, end)], implicit: true };
}

// ---- a batch -------------------------------------------------------------------------------------------------------

/** What of a batch is done at once, as far as two phases concern it. */
export interface BatchLook {
	/** Where that ends: at a COMMIT, which comes when what is before it is answered, or behind it. */
	readonly end: number;
	/** It is a COMMIT, from Parse or Bind to Execute and what is closed behind it; null: it is something else. */
	readonly commit: StatementFacts | null;
	/** Of all that it runs. */
	readonly rows: OnRows;
	/** It says something of two phases itself. */
	readonly controls: boolean;
}

/** The texts that a batch names, and where they were parsed. */
class Texts {
	private readonly statements: ClientStatements;
	private readonly parsed = new Map<string, string>();
	/** The last Parse, while nothing has come behind it but its Describe, and its name. */
	private lastAt = -1;
	private lastName = "";

	constructor(statements: ClientStatements) {
		this.statements = statements;
	}

	/** A message that is no Bind. */
	note(chunk: Buffer, at: number, next: number): void {
		const code = chunk[at]!;
		if (code === Frontend.Describe && chunk[at + HEADER] === Target.Statement) return;
		this.lastAt = -1;
		if (code !== Frontend.Parse) return;
		const nameEnd = endOfString(chunk, at + HEADER, next);
		const textEnd = nameEnd < 0 ? -1 : endOfString(chunk, nameEnd + 1, next);
		if (textEnd < 0) return;
		this.lastAt = at;
		this.lastName = chunk.utf8Slice(at + HEADER, nameEnd);
		this.parsed.set(this.lastName, chunk.utf8Slice(nameEnd + 1, textEnd));
	}

	/** @returns what a Bind is of, and where that begins, its own Parse included; null: nobody knows */
	bind(chunk: Buffer, at: number, next: number): { readonly sql: string; readonly begin: number } | null {
		const portalEnd = endOfString(chunk, at + HEADER, next);
		const nameEnd = portalEnd < 0 ? -1 : endOfString(chunk, portalEnd + 1, next);
		const { lastAt, lastName } = this;
		this.lastAt = -1;
		if (nameEnd < 0) return null;
		const name = chunk.utf8Slice(portalEnd + 1, nameEnd);
		const sql = this.parsed.get(name) ?? this.statements.textOf(name);
		return sql === null ? null : { sql, begin: lastAt >= 0 && lastName === name ? lastAt : at };
	}
}

/**
 * The extended-query messages `[at, stop)`, whole ones all.
 * @param factsOf of a text
 */
export function lookAtBatch(
	chunk: Buffer,
	at: number,
	stop: number,
	statements: ClientStatements,
	factsOf: (sql: string) => StatementFacts,
): BatchLook {
	const first = at;
	const texts = new Texts(statements);
	let commit: StatementFacts | null = null;
	let rows = OnRows.Plain;
	for (let next = at; at < stop; at = next) {
		next = at + 1 + readInt32(chunk, at + 1);
		const code = chunk[at]!;
		if (commit !== null && (code === Frontend.Parse || code === Frontend.Bind)) break;
		if (code !== Frontend.Bind) {
			texts.note(chunk, at, next);
			continue;
		}
		const bound = texts.bind(chunk, at, next);
		const facts = bound === null ? null : factsOf(bound.sql);
		rows = Math.min(rows, facts?.rows ?? OnRows.Otherwise);
		if (facts?.transaction === TransactionControl.TwoPhase) return { end: stop, commit: null, rows, controls: true };
		if (facts === null || !isCommit(facts)) continue;
		if (bound!.begin > first) return { end: bound!.begin, commit: null, rows, controls: false };
		commit = facts;
	}
	return { end: at, commit, rows, controls: false };
}

/** The messages `[at, stop)`, which `look` is of and for which `plan` is the plan without two phases. */
export function batchInPhases(
	plan: Plan,
	state: CommitState,
	look: BatchLook,
	chunk: Buffer,
	at: number,
	stop: number,
): Plan | PgError {
	const { steps, terminator } = plan;
	const targets = [...new Set(steps.flatMap((step) => step.targets))].sort((a, b) => a - b);
	if (look.commit !== null) {
		if (!divides(state, targets) || !mayBeOpen(state)) return plan;
		if (look.commit.chains) return CHAINS;
		if (count(chunk, at, stop, (code) => code === Frontend.Execute) !== 1) return ODD;
		const before = state.involved.length > 0 ? [stepOf(state.involved, SYNC)] : [];
		return { ...plan, steps: [...before, committing(targets, chunk, at, stop)] };
	}
	if (terminator !== Terminator.Sync || steps.length !== 1) return plan;
	if (!isImplicit(state, targets, look.rows, OnRows.Plain)) return plan;
	const [step] = steps as [Step];
	// The Sync comes when all has been answered, and does not end a transaction that was begun.
	const end = step.end - SYNC.length;
	const replies = count(step.chunk, step.at, end, beginsBatch);
	const whole: Step = { ...step, end, behind: FLUSH, replies, joins: false };
	const all = [stepOf(targets, BEGIN_OURS), whole, stepOf(targets, SYNC), committing(targets, chunk, stop, stop)];
	return { ...plan, steps: all, implicit: true };
}

/** How many of the messages are such. */
function count(chunk: Buffer, at: number, stop: number, is: (code: number) => boolean): number {
	let found = 0;
	for (; at < stop; at += 1 + readInt32(chunk, at + 1)) if (is(chunk[at]!)) found++;
	return found;
}

/** Where the Execute is among the messages of a COMMIT. */
export function executeOf(chunk: Buffer, at: number, end: number): number {
	while (at < end && chunk[at] !== Frontend.Execute) at += 1 + readInt32(chunk, at + 1);
	return at;
}

/** In a string of which some statement is transaction control: perhaps that ends the transaction, and is not about savepoints. */
export const ENDS = /\b(commit|end|abort|rollback(?!\s+((work|transaction)\s+)?to\b))\b/i;
const OF_TWO_PHASES = /\b(prepare\s+transaction|(commit|rollback)\s+prepared)\b/i;

export const CONTROLS = new PgError(
	"ERROR",
	"42601",
	"two-phase transaction control statements are not allowed when two-phase is enabled",
);
const CHAINS = new PgError(
	"ERROR",
	"0A000",
	"COMMIT AND CHAIN of what was written on several shards, which is committed in two phases",
	undefined,
	"Send COMMIT and BEGIN.",
);
const STRING = new PgError(
	"ERROR",
	"0A000",
	"a string of statements with COMMIT or its like, of what is written on several shards and committed in two phases",
	undefined,
	"Send COMMIT and its like as statements of their own.",
);
const ODD = new PgError(
	"ERROR",
	"0A000",
	"a portal of COMMIT that is not run where it is bound, of what is committed in two phases",
);
