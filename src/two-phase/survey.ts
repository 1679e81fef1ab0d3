// A look at all shards of one database: what they have prepared of ours, and what was decided of it. By connections of its own, one for
// each shard, that are closed when the look is over. For recovery.ts, and by it for SHOW TRANSACTIONS.

import { ScramCache } from "../auth/scram-keys.ts";
import { login } from "../backend/login.ts";
import type { Server } from "../backend/server.ts";
import type { ClusterSpec, PoolSpec } from "../config/snapshot.ts";
import type { Contain } from "../contain.ts";
import { PgError } from "../errors.ts";
import { type LoginContext, loginOptions } from "../pool/login-options.ts";
import { Outsider } from "../pool/outsider.ts";
import { Asked, whyOf } from "./asked.ts";
import { type DecisionRow, decisions, type PreparedRow, prepared } from "./decisions.ts";
import { type PreparedName, readPreparedName } from "./names.ts";

/** ms for connecting and logging in; a guess. */
const CONNECT = 5_000;
/** ms for all that a connection is asked; a guess. */
const PATIENCE = 20_000;

export interface SurveyContext extends LoginContext {
	readonly contain: Contain;
}

/** What a shard has prepared, and what its name says. */
export interface PreparedPart extends PreparedRow, PreparedName {}

/** Tells whoever asks its server that it is gone. */
class Home extends Outsider {
	asked: Asked | null = null;

	override onGone(server: Server): void {
		this.asked?.onLost(new PgError("FATAL", "08006", server.closeReason));
	}
}

/** A connection to the primary of one shard. */
export class Visit {
	readonly asked: Asked;
	readonly user: string;
	/** PostgreSQL's `max_prepared_transactions` is 0. */
	readonly isDisabled: boolean;
	private readonly timer: Timer;

	private constructor(asked: Asked, user: string, isDisabled: boolean, contain: Contain) {
		this.asked = asked;
		this.user = user;
		this.isDisabled = isDisabled;
		this.timer = contain.later(PATIENCE, null, () => asked.close("it takes too long"));
	}

	/**
	 * Logs in as the first user who can. @param specs of one shard @param begin throws where that user may not do what is to be done
	 * @throws PgError, Declined or Lost: why none can
	 */
	static async to(
		specs: readonly PoolSpec[],
		context: SurveyContext,
		scram: ScramCache,
		begin: (asked: Asked) => Promise<void>,
	): Promise<Visit> {
		let failure: unknown = new PgError("FATAL", "08001", "the shard has no primary");
		for (const spec of specs) {
			if (spec.role === "replica") continue;
			for (let index = 0; index < Math.max(1, spec.server_passwords.length); index++) {
				let asked: Asked | null = null;
				try {
					const options = loginOptions(spec, index, CONNECT, scram, context);
					const home = new Home();
					const server = await login({ ...options, startup: { application_name: "PgDog" } }, home);
					server.loggedIn();
					asked = new Asked(server);
					home.asked = asked;
					const [row] = await asked.ask(
						"SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('max_prepared_transactions')",
					);
					if (row?.[0] !== "t") {
						await begin(asked);
						return new Visit(asked, spec.server_user, row?.[1] === "0", context.contain);
					}
					asked.close("it is no primary");
				} catch (error) {
					failure = error;
					asked?.close("it is of no use");
				}
			}
		}
		throw failure;
	}

	end(): void {
		clearTimeout(this.timer);
		this.asked.close("all is done");
	}
}

/** One shard of the look. */
export interface Looked {
	/** Of the shard. */
	readonly number: number;
	readonly specs: readonly PoolSpec[];
	/** Null: it cannot be asked. */
	visit: Visit | null;
	/** Why it cannot be asked; "" when it can. */
	failure: string;
	rows: readonly DecisionRow[];
	prepared: readonly PreparedPart[];
}

export class Survey {
	readonly places: readonly Looked[];
	private readonly context: SurveyContext;
	private readonly scram = new ScramCache({ max: 8 });

	/** @param clusters of one database */
	constructor(clusters: readonly ClusterSpec[], context: SurveyContext) {
		this.context = context;
		const byShard = Map.groupBy(
			clusters.flatMap(({ pools }) => pools),
			({ shard }) => shard,
		);
		this.places = [...byShard].map(([shard, specs]) => {
			return { number: shard, specs, visit: null, failure: "", rows: [], prepared: [] };
		});
	}

	/** Never rejects but for a bug. Decisions come first: of one that was to commit all that is not committed is seen then. */
	async look(): Promise<void> {
		await this.each(async (place) => {
			place.visit = await Visit.to(place.specs, this.context, this.scram, async (asked) => {
				place.rows = await decisions(asked);
			});
		});
		await this.each(async (place) => {
			if (place.visit === null) return;
			const rows = await prepared(place.visit.asked);
			place.prepared = rows.flatMap((row) => {
				const name = readPreparedName(row.gid);
				return name === null ? [] : [{ ...row, ...name }];
			});
		});
	}

	private async each(work: (place: Looked) => Promise<void>): Promise<void> {
		await Promise.all(
			this.places.map((place) =>
				work(place).catch((error) => {
					place.failure = whyOf(error);
					place.visit?.end();
					place.visit = null;
				}),
			),
		);
	}

	place(shard: number): Looked | null {
		return this.places.find(({ number }) => number === shard) ?? null;
	}

	/** Another connection to a shard, as this user; null when the configuration does not have it. @throws as `Visit.to` */
	async visitAs(place: Looked, user: string): Promise<Visit | null> {
		const specs = place.specs.filter(({ server_user }) => server_user === user);
		if (specs.length === 0 || place.visit?.user === user) return null;
		return Visit.to(specs, this.context, this.scram, async () => {});
	}

	/** What was decided of a transaction, as its home had it before the look; undefined: nothing, or that cannot be asked. */
	rowOf(transaction: string, home: number): DecisionRow | undefined {
		return this.place(home)?.rows.find((row) => row.transaction === transaction);
	}

	/** All shards can be asked, of these numbers. */
	reaches(shards: readonly number[]): boolean {
		return shards.every((shard) => this.place(shard)?.visit != null);
	}

	get reachesAll(): boolean {
		return this.places.every(({ visit }) => visit !== null);
	}

	end(): void {
		for (const { visit } of this.places) visit?.end();
	}
}
