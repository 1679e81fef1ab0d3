// Where a statement goes: facts of its text, then plugins, then the decision. The frontend asks it once per statement, when
// `needed`. One per cluster and thread; knows the cluster's shape but none of its pools, and no client. No IO.

import { PgError } from "../errors.ts";
import type { StatementCache } from "../parser/cache.ts";
import { mayHaveComments, withoutComments } from "../parser/comments.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { Parsed } from "../parser/parse.ts";
import { Outcome, ReadWrite, ShardCode } from "../plugin/abi.ts";
import type { Decision, PluginHost, RouteInput } from "../plugin/host.ts";
import { Route, Routes, Shard } from "./route.ts";

/** The shape of a cluster. */
export interface Topology {
	/** 1 or more. */
	readonly shards: number;
	readonly hasPrimary: boolean;
	readonly hasReplicas: boolean;
}

/** The caller may keep one object and change it between calls. */
export interface RouteRequest {
	/** One Query's text, or that of the statement that a Bind names. */
	sql: string;
	/** A transaction block is open (which keeps its server: the caller sees to that). */
	inTransaction: boolean;
	/** As in `RouteInput`: the parameters of a Bind message; null with the simple protocol. */
	bind: Uint8Array | null;
	bindStart: number;
	bindEnd: number;
}

export class Router {
	/** False when every answer would be the same: callers then skip `route`, nothing is parsed and no plugin asked. */
	readonly needed: boolean;
	readonly #shards: number;
	readonly #hasPrimary: boolean;
	readonly #hasReplicas: boolean;
	/** Whether the answer depends on what the statement is. A plugin alone does not need it: its bridge has a parser. */
	readonly #needsFacts: boolean;
	readonly #statements: StatementCache;
	readonly #plugins: PluginHost | null;
	readonly #input: RouteInput;
	/** Where goes what no one has a shard for. */
	readonly #anyShard: number;

	readonly #byCluster = new Routes("the only choice");
	readonly #byStatement = new Routes("statement");
	readonly #byTransaction = new Routes("transaction");
	readonly #bySyntaxError = new Routes("syntax error");
	readonly #byMalformedBind = new Routes("malformed Bind");
	readonly #byPlugin = new Map<string, Routes>();

	constructor(topology: Topology, statements: StatementCache, plugins: PluginHost | null) {
		const { shards, hasPrimary, hasReplicas } = topology;
		this.#shards = shards;
		this.#hasPrimary = hasPrimary;
		this.#hasReplicas = hasReplicas;
		this.#needsFacts = shards > 1 || (hasPrimary && hasReplicas);
		this.#statements = statements;
		this.#plugins = plugins?.active ? plugins : null;
		this.needed = this.#needsFacts || this.#plugins !== null;
		this.#anyShard = shards === 1 ? 0 : Shard.All;
		this.#input = {
			sql: "",
			shards,
			hasReplicas,
			hasPrimary,
			inTransaction: false,
			writeOverride: false,
			bind: null,
			bindStart: 0,
			bindEnd: 0,
		};
	}

	/** Never throws for what a client sent. */
	route(request: RouteRequest): Route {
		const { sql, inTransaction } = request;
		const facts = this.#needsFacts ? this.#statements.facts(sql) : null;
		if (this.#plugins === null) return this.#decide(facts, inTransaction);

		const input = this.#input;
		input.sql = sql;
		input.inTransaction = inTransaction;
		input.writeOverride = this.#mustWrite(facts, inTransaction);
		input.bind = request.bind;
		input.bindStart = request.bindStart;
		input.bindEnd = request.bindEnd;
		let decision = this.#plugins.route(input);
		let unclear = false;
		// Their parser refuses some comments that PostgreSQL takes, and a plugin that guards would never see the statement.
		if (decision.outcome === Outcome.SyntaxError && mayHaveComments(sql)) {
			const plain = withoutComments(sql);
			unclear = plain === null;
			if (plain !== null && plain !== sql) {
				input.sql = plain;
				decision = this.#plugins.route(input);
			}
		}
		// The message belongs to the caller's chunk, which must not outlive the call for our sake.
		input.bind = null;
		if (unclear) {
			const hint = "Plugins have to see every statement, and a comment may be in their parser's way: write it without.";
			return refuse("plugins' parser", new PgError("ERROR", "42601", decision.message, undefined, hint));
		}
		return this.#afterPlugins(decision, facts, request);
	}

	/** The route of a Parse or Describe without Bind: there is nothing to run yet, so plugins are not asked. */
	routeUnbound(sql: string, inTransaction: boolean): Route {
		return this.#decide(this.#needsFacts ? this.#statements.facts(sql) : null, inTransaction);
	}

	#afterPlugins(decision: Decision, facts: StatementFacts | null, request: RouteRequest): Route {
		switch (decision.outcome) {
			case Outcome.Provided:
				return this.#provided(decision, facts, request.inTransaction);
			case Outcome.Unknown:
				return this.#decide(facts, request.inTransaction);
			case Outcome.SyntaxError:
				return this.#bySyntaxError.to(0, this.#side(false));
			case Outcome.MalformedBind:
				return this.#byMalformedBind.to(0, this.#side(false));
			case Outcome.Blocked: {
				const by = `plugin "${decision.plugin}"`;
				return refuse(by, new PgError("ERROR", "42601", `query is blocked by ${by}`, request.sql));
			}
			// Not to be sent, though PostgreSQL might run it: a plugin that guards would be bypassed.
			case Outcome.TooComplex: {
				const detail = "Plugins have to see every statement, and this one is too long or too deep for their parser.";
				return refuse("plugins' parser", new PgError("ERROR", "54001", "statement too complex", detail));
			}
			default: {
				const message = "plugins could not be asked about the statement";
				return refuse("plugins' parser", new PgError("ERROR", "58000", message, decision.message));
			}
		}
	}

	#provided(decision: Decision, facts: StatementFacts | null, inTransaction: boolean): Route {
		const { shard, readWrite, plugin } = decision;
		if (shard >= this.#shards) {
			const detail = `Plugin "${plugin}" sends the statement there; shards are numbered from 0 to ${this.#shards - 1}.`;
			return refuse(`plugin "${plugin}"`, new PgError("ERROR", "58000", `no such shard: ${shard}`, detail));
		}
		// BEGIN and its like have a place of their own: a transaction is opened and ended where its statements run.
		if (facts !== null && facts.transaction !== TransactionControl.None) return this.#decide(facts, inTransaction);
		let routes = this.#byPlugin.get(plugin);
		if (routes === undefined) {
			routes = new Routes(`plugin "${plugin}"`);
			this.#byPlugin.set(plugin, routes);
		}
		const read =
			readWrite === ReadWrite.Unknown ? !this.#mustWrite(facts, inTransaction) : readWrite === ReadWrite.Read;
		return routes.to(shard >= 0 && shard !== ShardCode.Unknown ? shard : this.#anyShard, this.#side(read));
	}

	#decide(facts: StatementFacts | null, inTransaction: boolean): Route {
		if (facts === null) return this.#byCluster.to(this.#anyShard, this.#side(false));
		// One server is enough to report an error.
		if (facts.parsed === Parsed.SyntaxError) return this.#bySyntaxError.to(0, this.#side(false));
		const routes =
			inTransaction || facts.transaction !== TransactionControl.None ? this.#byTransaction : this.#byStatement;
		return routes.to(this.#anyShard, this.#side(!this.#mustWrite(facts, inTransaction)));
	}

	/** Whether only a primary will do, as far as is known: the strategy that PgDog calls conservative. */
	#mustWrite(facts: StatementFacts | null, inTransaction: boolean): boolean {
		if (inTransaction) return true;
		if (facts === null) return this.#hasPrimary;
		return !(facts.reads || (facts.transaction === TransactionControl.BeginReadOnly && facts.statements === 1));
	}

	/** `Route.read` where the cluster has both kinds; else what there is. */
	#side(read: boolean): boolean {
		return this.#hasReplicas && (read || !this.#hasPrimary);
	}
}

function refuse(decidedBy: string, error: PgError): Route {
	return new Route(Shard.All, false, decidedBy, error);
}
