// How one client's session has its statements parsed: by which settings, and by which state of its database's catalogue. One for
// each Client; its ClientStatements (statements.ts) ask it.

import type { Moment } from "../backend/copy.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import type { Dialect } from "../backend/statement.ts";
import type { Statements } from "../backend/statements.ts";
import type { General } from "../config/settings.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { ClientSettings } from "./settings.ts";

/** The client's thread, as far as parsing depends on it. */
export interface ParsingContext {
	readonly statements: Statements;
	/** ms since the epoch, as of the janitor's last tick. */
	readonly time: number;
	readonly general: General;
}

export class Parsing {
	private readonly context: ParsingContext;
	private readonly checkout: { readonly cluster: Cluster };
	private readonly settings: ClientSettings;
	/** Whose dialect `found` is: that of this cluster's user and database, and of these settings. */
	private cluster: Cluster | null = null;
	private wanted: ParameterSet | null = null;
	private found: Dialect | null = null;

	constructor(context: ParsingContext, checkout: { readonly cluster: Cluster }, settings: ClientSettings) {
		this.context = context;
		this.checkout = checkout;
		this.settings = settings;
	}

	/** How the session reads texts, unless the transaction under way has changed that. */
	get dialect(): Dialect {
		const { cluster } = this.checkout;
		const { wanted } = this.settings;
		if (this.found === null || wanted !== this.wanted || cluster !== this.cluster) {
			this.wanted = wanted;
			this.cluster = cluster;
			const { user, database, shard } = cluster.first.spec;
			this.found = this.context.statements.dialectsOf(`${user}\0${database}\0${shard}`).of(wanted);
		}
		return this.found;
	}

	/** ms since the epoch, as of the janitor's last tick: fine enough for `prepared_statements_ttl`. */
	get time(): number {
		return this.context.time;
	}

	/** `prepared_statements_limit` */
	get limit(): number {
		return this.context.general.prepared_statements_limit;
	}

	/** The moment of a Parse that is sent now. */
	get moment(): Moment {
		const { prepared_statements_ttl, prepared_statements_ttl_jitter } = this.context.general;
		let dueAt = Number.POSITIVE_INFINITY;
		if (prepared_statements_ttl !== undefined) {
			const spread = Math.min(prepared_statements_ttl_jitter, prepared_statements_ttl);
			dueAt = this.context.time + prepared_statements_ttl + spread * (2 * Math.random() - 1);
		}
		return { catalogue: this.checkout.cluster.first.catalogue, dueAt };
	}
}
