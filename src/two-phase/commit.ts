// One COMMIT of a transaction that is open on several shards, in two phases: each shard prepares it, the first one keeps the decision,
// each commits what it has prepared. It has the servers for that time, and goes on to its end also when the client has gone. What it
// cannot finish it leaves to recovery.ts, of this process or another. Made by shards/sharded-client.ts.

import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import { PgError } from "../errors.ts";
import { TxStatus } from "../wire/codes.ts";
import { Asked, Declined, whyOf } from "./asked.ts";
import { decide, finish, forget, type Settlement } from "./decisions.ts";
import { preparedName, transactionName } from "./names.ts";

/** One shard of the transaction: its Link. */
export interface CommitPart {
	/** Its number in the configuration. */
	readonly number: number;
	/** Its server, which is the borrower's until it is given back, unless it is lost. */
	lend(borrower: Asking): Server;
	takeBack(server: Server, committed: boolean): void;
}

/** As Link has it. */
interface Asking {
	onLost(error: PgError | null): void;
}

export interface CommitContext {
	/** As for `transactionName`. */
	readonly instance: string;
	/** Something of the transaction is left for recovery.ts. */
	onUnfinished(database: string, transaction: string): void;
}

/** What has become of it. */
export type CommitOutcome =
	/** @param late why some shards do not show it yet; empty: all do */
	| { readonly kind: "committed"; readonly late: readonly string[] }
	/** @param report an ErrorResponse; null: the transaction had failed before, and has been rolled back as it was to be */
	| { readonly kind: "rolled back"; readonly report: Buffer | PgError | null }
	/** Nobody knows yet: the decision is, or is not, on a server that was lost. */
	| { readonly kind: "unknown"; readonly error: PgError };

/** ms that phase one may take: much less than recovery.ts keeps what it has decided. */
const LONGEST = 3_600_000;
/** A COMMIT takes as long as it takes. */
const ENDLESS = Number.POSITIVE_INFINITY;

/** Why it must not be committed: for the client, as `CommitOutcome` has it, and the shards that have prepared it. */
interface Failure {
	readonly report: Buffer | PgError | null;
	readonly prepared: readonly Shard[];
}

interface Shard {
	readonly part: CommitPart;
	readonly server: Server;
	readonly asked: Asked;
	readonly gid: string;
}

export class TwoPhaseCommit {
	private readonly context: CommitContext;
	private readonly database: string;
	private readonly transaction: string;
	private readonly shards: readonly Shard[];
	private readonly began = now();
	private isUnfinished = false;

	/** @param parts the first has the decision */
	constructor(context: CommitContext, database: string, parts: readonly CommitPart[]) {
		this.context = context;
		this.database = database;
		this.transaction = transactionName(context.instance, parts[0]?.number ?? 0);
		this.shards = parts.map((part) => {
			const borrower: Asking = { onLost: (error) => asked.onLost(error) };
			const server = part.lend(borrower);
			const asked = new Asked(server);
			return { part, server, asked, gid: preparedName(this.transaction, part.number) };
		});
	}

	/**
	 * Never rejects but for a bug.
	 * @param done told what has become of it; by then servers are given back, but for the first one's where there is a row to delete
	 */
	async run(done: (outcome: CommitOutcome) => void): Promise<void> {
		// Nothing was begun there, after all.
		if (this.shards.length === 0) {
			done({ kind: "committed", late: [] });
			return;
		}
		const failure = await this.prepare();
		const outcome = failure === null ? await this.decided() : await this.rollBack(failure);
		if (this.isUnfinished) this.context.onUnfinished(this.database, this.transaction);
		const committed = outcome.kind === "committed";
		const [home, ...others] = this.shards as [Shard, ...Shard[]];
		const isTidy = !committed || this.isUnfinished;
		for (const shard of isTidy ? this.shards : others) this.giveBack(shard, committed);
		done(outcome);
		if (isTidy) return;
		// What fails here is done by recovery.ts.
		await forget(home.asked, [this.transaction]).catch(whyOf);
		this.giveBack(home, true);
	}

	/** @returns why the transaction must not be committed, for the client; null: all shards have prepared it */
	private async prepare(): Promise<Failure | null> {
		if (this.shards.some(({ server }) => server.status !== TxStatus.InBlock)) return { report: null, prepared: [] };
		const answers = await Promise.allSettled(
			this.shards.map(({ asked, gid }) => asked.ask(`PREPARE TRANSACTION '${gid}'`, ENDLESS)),
		);
		const prepared = this.shards.filter((_, i) => answers[i]!.status === "fulfilled");
		let failure: Failure["report"] | undefined;
		for (const [i, answer] of answers.entries()) {
			if (answer.status === "fulfilled") continue;
			const { reason } = answer;
			if (reason instanceof Declined) {
				failure ??= reason.report;
				continue;
			}
			// It may have been prepared there, and the answer be lost.
			this.isUnfinished = true;
			const { number } = this.shards[i]!.part;
			failure ??= rolledBack(`the server of shard ${number} was lost before all had prepared it`, whyOf(reason));
		}
		if (failure === undefined && now() - this.began > LONGEST)
			failure = rolledBack("its shards have taken too long to prepare it");
		return failure === undefined ? null : { report: failure, prepared };
	}

	private async rollBack({ report, prepared }: Failure): Promise<CommitOutcome> {
		// Where PREPARE TRANSACTION has failed there is no transaction any more; where it was not asked for there is.
		const rest = this.shards.filter(({ server }) => server.status !== TxStatus.Idle);
		await Promise.all([
			...prepared.map((shard) => this.finish(shard, "rollback")),
			...rest.map(({ asked }) => asked.ask("ROLLBACK").catch(whyOf)),
		]);
		return { kind: "rolled back", report };
	}

	/** All shards have prepared it. */
	private async decided(): Promise<CommitOutcome> {
		const [home] = this.shards as [Shard];
		const numbers = this.shards.map(({ part }) => part.number);
		const everywhere: Failure = { report: null, prepared: this.shards };
		let decision: Settlement;
		try {
			decision = await decide(home.asked, this.transaction, numbers, "commit");
		} catch (error) {
			if (error instanceof Declined) return this.rollBack({ ...everywhere, report: error.report });
			this.isUnfinished = true;
			return { kind: "unknown", error: unknown(home.part.number, whyOf(error)) };
		}
		if (decision === "rollback") {
			const report = rolledBack("another process had given it up, since its shards took long to prepare it");
			return this.rollBack({ ...everywhere, report });
		}
		const late = await Promise.all(this.shards.map((shard) => this.finish(shard, "commit")));
		return { kind: "committed", late: late.filter((why) => why !== null) };
	}

	/** @returns why it is not done; null when it is */
	private async finish({ asked, gid, part }: Shard, decision: Settlement): Promise<string | null> {
		try {
			await finish(asked, gid, decision);
			return null;
		} catch (error) {
			this.isUnfinished = true;
			return `shard ${part.number}: ${whyOf(error)}`;
		}
	}

	private giveBack({ part, server, asked }: Shard, committed: boolean): void {
		if (!asked.isLost) part.takeBack(server, committed);
	}
}

/** 40000: as if it had not been. */
function rolledBack(why: string, detail?: string): PgError {
	return new PgError("ERROR", "40000", `the transaction was rolled back: ${why}`, detail);
}

/** 08007, transaction_resolution_unknown. */
function unknown(shard: number, why: string): PgError {
	return new PgError(
		"FATAL",
		"08007",
		`it is not known whether the transaction was committed: the server of shard ${shard}, which decides, was lost`,
		why,
		"It is committed on all shards or rolled back on all, at once when that server is back.",
	);
}
