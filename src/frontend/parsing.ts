// How one client's session has its statements parsed: by which settings, and by which state of its database's catalogue. One for
// each Client; its ClientStatements (prepared.ts) ask it.

import type { Moment } from "../backend/copy.ts";
import type { ParameterSet } from "../backend/parameters.ts";
import type { Reading } from "../backend/readings.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { ClientContext } from "./context.ts";
import type { ClientSettings } from "./settings.ts";

export class Parsing {
	private readonly context: ClientContext;
	private readonly checkout: { readonly cluster: Cluster };
	private readonly settings: ClientSettings;
	/** What `found` was found by. */
	private cluster: Cluster | null = null;
	private wanted: ParameterSet | null = null;
	private found: Reading | null = null;

	constructor(context: ClientContext, checkout: { readonly cluster: Cluster }, settings: ClientSettings) {
		this.context = context;
		this.checkout = checkout;
		this.settings = settings;
	}

	/** How texts are read, unless the transaction under way has changed that. */
	get reading(): Reading {
		const { cluster } = this.checkout;
		const { wanted } = this.settings;
		if (this.found === null || wanted !== this.wanted || cluster !== this.cluster) {
			this.wanted = wanted;
			this.cluster = cluster;
			const { user, database, shard } = cluster.first.spec;
			this.found = this.context.statements.readingsOf(`${user}\0${database}\0${shard}`).of(wanted);
		}
		return this.found;
	}

	/** ms since the epoch, as far as it matters here. */
	get time(): number {
		return this.context.time;
	}

	/** `prepared_statements_limit` */
	get limit(): number {
		return this.context.general().prepared_statements_limit;
	}

	/** For what is parsed now. */
	get moment(): Moment {
		const { prepared_statements_ttl, prepared_statements_ttl_jitter } = this.context.general();
		let dueAt = Number.POSITIVE_INFINITY;
		if (prepared_statements_ttl !== undefined) {
			const spread = Math.min(prepared_statements_ttl_jitter, prepared_statements_ttl);
			dueAt = this.context.time + prepared_statements_ttl + spread * (2 * Math.random() - 1);
		}
		return { catalogue: this.checkout.cluster.first.catalogue, dueAt };
	}
}
