// Finishes what was begun to be committed in two phases and is not finished: by a process that has died, by this one where a server was
// lost in the middle, or by one that nobody knows any more. What is decided is done; of what is not decided the rollback is, on the
// shard whose word counts, so that a process that is only slow finds it there and cannot commit. One per process, on the main thread.

import { now } from "../clock.ts";
import type { ClusterSpec, Snapshot } from "../config/snapshot.ts";
import type { Log } from "../log.ts";
import { type Asked, whyOf } from "./asked.ts";
import { decide, finish, forget, type Settlement } from "./decisions.ts";
import { instanceName } from "./names.ts";
import { type Looked, type PreparedPart, Survey, type SurveyContext } from "./survey.ts";

/** ms between two looks. */
const LOOK = 15_000;
/** ms until the next, while something is not finished; and until the first, when this process has left something. */
const SOON = 2_000;
const AT_ONCE = 50;
/** The period of the timer, ms. */
const TICK = 1_000;
/** Seconds after which what is not decided is given up: until then whoever has begun it most likely goes on. */
const UNDECIDED = 10;
/** The same, of what is decided, which anybody may do: it is a waste only to do it as well. */
const DECIDED = 3;
/**
 * Seconds that a rollback stands in the table. Whoever has begun the transaction and is slow may still want to commit it, within
 * an hour (`LONGEST` in commit.ts).
 */
const KEPT = 86_400;

/** A transaction in doubt, or a shard that may have some: for SHOW TRANSACTIONS. Plain data. */
export interface TransactionRow {
	readonly database: string;
	/** Who has prepared it; null of a shard that cannot be asked. */
	readonly user: string | null;
	readonly name: string | null;
	readonly state: string;
	/** Where it is prepared. */
	readonly shards: string;
	/** Seconds since it was prepared. */
	readonly age: number | null;
}

/** One database. */
interface Group {
	readonly database: string;
	clusters: readonly ClusterSpec[];
	/** What this process has left unfinished. */
	readonly unfinished: Set<string>;
	/** When it is looked at next. */
	nextAt: number;
	isLooking: boolean;
	/** No user has two_phase_commit any more: what is left is finished all the same, and `isOver` when nothing is. */
	isOff: boolean;
	isOver: boolean;
	/** What the log was told of last, by what it is about: a shard, a transaction. */
	complaints: Map<string, string>;
}

export class Recovery {
	/** The process, in the names of what it commits. */
	readonly instance = instanceName();
	private readonly context: SurveyContext;
	private readonly log: Log;
	private readonly groups = new Map<string, Group>();
	private timer: Timer | null = null;

	constructor(context: SurveyContext, log: Log) {
		this.context = context;
		this.log = log;
	}

	/** Takes over the configuration in force. */
	reach({ clusters }: Pick<Snapshot, "clusters">): void {
		const byDatabase = Map.groupBy(
			clusters.filter(({ twoPhase }) => twoPhase),
			({ database }) => database,
		);
		for (const [database, group] of this.groups) {
			group.isOff = !byDatabase.has(database);
			if (!group.isOff) group.isOver = false;
			else {
				group.clusters = clusters.filter((cluster) => cluster.database === database);
				if (group.clusters.length === 0) this.groups.delete(database);
			}
		}
		for (const [database, clusters] of byDatabase) {
			const group = this.groups.get(database);
			if (group !== undefined) group.clusters = clusters;
			else {
				const unfinished = new Set<string>();
				this.groups.set(database, {
					database,
					clusters,
					unfinished,
					nextAt: 0,
					isLooking: false,
					isOff: false,
					isOver: false,
					complaints: new Map(),
				});
			}
		}
		if (this.groups.size === 0) this.stop();
		else this.timer ??= this.context.contain.every(TICK, () => this.tick());
		this.tick();
	}

	stop(): void {
		if (this.timer !== null) clearInterval(this.timer);
		this.timer = null;
	}

	/** A worker has left it unfinished: nobody else goes on with it. */
	unfinished(database: string, transaction: string): void {
		const group = this.groups.get(database);
		if (group === undefined) return;
		group.unfinished.add(transaction);
		group.nextAt = 0;
		group.isOver = false;
		this.context.contain.later(AT_ONCE, null, () => this.tick());
	}

	private tick(): void {
		if (this.timer === null) return;
		const time = now();
		for (const group of this.groups.values()) {
			if (group.isOver || group.isLooking || time < group.nextAt) continue;
			group.isLooking = true;
			group.nextAt = time + LOOK;
			this.context.contain.when(null, this.look(group), () => {});
		}
	}

	private async look(group: Group): Promise<void> {
		const unfinished = [...group.unfinished];
		const survey = new Survey(group.clusters, this.context);
		const complaints = new Map<string, string>();
		const left = new Set<string>();
		try {
			await survey.look();
			for (const place of survey.places) complaints.set(`shard ${place.number}`, faultOf(place));
			for (const { gid } of strangers(survey))
				complaints.set(gid, `${gid} was prepared where shards have other numbers, and is left alone`);
			for (const [transaction, parts] of byTransaction(survey)) {
				const isOurs = group.unfinished.has(transaction);
				const fault = await this.conclude(group, survey, parts, isOurs);
				if (fault === null) continue;
				left.add(transaction);
				complaints.set(transaction, fault);
			}
			for (const place of survey.places) await this.tidy(group, survey, place, left, complaints);
			if (survey.reachesAll)
				for (const transaction of unfinished) if (!left.has(transaction)) group.unfinished.delete(transaction);
			group.isOver = group.isOff && survey.reachesAll && group.unfinished.size + left.size === 0;
		} finally {
			survey.end();
			this.complain(group, complaints);
			group.isLooking = false;
			if (group.unfinished.size + left.size > 0) group.nextAt = Math.min(group.nextAt, now() + SOON);
		}
	}

	/** Logs what is wrong, once for each state of affairs; "": nothing is. */
	private complain(group: Group, complaints: Map<string, string>): void {
		for (const [about, text] of complaints)
			if (text !== "" && text !== group.complaints.get(about)) this.say(group, text);
		group.complaints = complaints;
	}

	private say({ database }: Group, text: string): void {
		this.log.warn(`two-phase commit: ${text} [database "${database}"]`);
	}

	/** Finishes a transaction, as far as it can now. @returns null: no shard has anything of it left; why some have: "" for no bad reason */
	private async conclude(
		group: Group,
		survey: Survey,
		parts: readonly PreparedPart[],
		isOurs: boolean,
	): Promise<string | null> {
		const { transaction, home } = parts[0]!;
		const age = Math.max(...parts.map((part) => part.age));
		let decision: Settlement | undefined = survey.rowOf(transaction, home)?.decision;
		if (!isOurs && age < (decision === undefined ? UNDECIDED : DECIDED)) return "";
		const place = survey.place(home);
		if (place?.visit == null) return `shard ${home}, which cannot be asked, knows what becomes of ${transaction}`;
		const shards = parts.map(({ shard }) => shard);
		try {
			decision ??= await this.as(survey, place, parts[0]!.owner, (asked) =>
				decide(asked, transaction, [...new Set([home, ...shards])], "rollback"),
			);
		} catch (error) {
			return `shard ${home} cannot decide on ${transaction}: ${whyOf(error)}`;
		}
		for (const part of parts) {
			const fault = await this.finish(survey, part, decision);
			if (fault !== null) return fault;
		}
		const what = decision === "commit" ? "committed" : "rolled back";
		this.say(group, `${transaction} was unfinished, and is ${what} on shards ${shards.join(", ")}`);
		return null;
	}

	/** @returns why it is not done; null when it is */
	private async finish(
		survey: Survey,
		{ gid, owner, shard }: PreparedPart,
		decision: Settlement,
	): Promise<string | null> {
		const place = survey.place(shard)!;
		try {
			await this.as(survey, place, owner, (asked) => finish(asked, gid, decision));
			return null;
		} catch (error) {
			return `shard ${shard} does not finish ${gid}: ${whyOf(error)}`;
		}
	}

	/** Asks a shard as the user who has prepared something, where the configuration has that. */
	private async as<T>(survey: Survey, place: Looked, owner: string, work: (asked: Asked) => Promise<T>): Promise<T> {
		const visit = await survey.visitAs(place, owner);
		try {
			return await work((visit ?? place.visit!).asked);
		} finally {
			visit?.end();
		}
	}

	/** Deletes rows that nobody needs any more. @param left transactions that some shard still has something of */
	private async tidy(
		group: Group,
		survey: Survey,
		{ number, visit, rows }: Looked,
		left: ReadonlySet<string>,
		complaints: Map<string, string>,
	): Promise<void> {
		if (visit === null) return;
		const over = rows.filter(({ transaction, decision, shards, age }) => {
			if (left.has(transaction)) return false;
			if (decision === "rollback") return age > KEPT;
			return (age > DECIDED || group.unfinished.has(transaction)) && survey.reaches(shards);
		});
		if (over.length === 0) return;
		const names = over.map(({ transaction }) => transaction);
		await forget(visit.asked, names).catch((error) => {
			complaints.set(`rows of ${number}`, `shard ${number} does not delete its rows: ${whyOf(error)}`);
		});
	}

	/** What is in doubt now. */
	async rows(): Promise<TransactionRow[]> {
		const groups = [...this.groups.values()].filter(({ isOver }) => !isOver);
		const all = groups.map(async ({ database, clusters }) => {
			const survey = new Survey(clusters, this.context);
			try {
				await survey.look();
				return rowsOf(database, survey);
			} finally {
				survey.end();
			}
		});
		return (await Promise.all(all)).flat();
	}
}

/** Why a shard is of no use; "": it is. */
function faultOf({ number, visit, failure }: Looked): string {
	if (visit === null) return `shard ${number} cannot be asked for what it has prepared: ${failure}`;
	return visit.isDisabled ? `shard ${number} has max_prepared_transactions = 0: COMMIT fails there` : "";
}

/** What was prepared elsewhere than its name says: by shards of other numbers, so that nobody here knows who has decided on it. */
function strangers({ places }: Survey): PreparedPart[] {
	return places.flatMap(({ number, prepared }) =>
		prepared.filter(({ shard }) => shard !== number).map((one) => ({ ...one, shard: number })),
	);
}

/** All the rest. */
function byTransaction({ places }: Survey): Map<string, PreparedPart[]> {
	const all = places.flatMap(({ number, prepared }) => prepared.filter(({ shard }) => shard === number));
	return Map.groupBy(all, ({ transaction }) => transaction);
}

function rowsOf(database: string, survey: Survey): TransactionRow[] {
	const rows: TransactionRow[] = [];
	for (const { number, failure } of survey.places) {
		if (failure === "") continue;
		const state = `unknown: shard ${number} cannot be asked: ${failure}`;
		rows.push({ database, user: null, name: null, state, shards: String(number), age: null });
	}
	for (const { gid, owner, shard, age } of strangers(survey)) {
		const state = "left alone: prepared where shards have other numbers";
		rows.push({ database, user: owner, name: gid, state, shards: String(shard), age });
	}
	for (const [name, parts] of byTransaction(survey)) {
		const { home, owner } = parts[0]!;
		const decision = survey.rowOf(name, home)?.decision;
		const state = decision === undefined ? "prepared" : decision === "commit" ? "committing" : "rolling back";
		const shards = parts.map(({ shard }) => shard).join(",");
		rows.push({ database, user: owner, name, state, shards, age: Math.max(...parts.map(({ age }) => age)) });
	}
	return rows;
}
