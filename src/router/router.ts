// Where a statement goes: facts of its text, hints, then plugins, then the decision. client/request.ts asks once per statement,
// when `needed`. One per cluster and thread; knows the cluster's shape but none of its pools, and no client. No IO.

import type { General } from "../config/settings.ts";
import { Side } from "../config/snapshot.ts";
import { PgError } from "../errors.ts";
import { type Aim, evaluate } from "../parser/aim.ts";
import type { StatementCache } from "../parser/cache.ts";
import { mayHaveComments, withoutComments } from "../parser/comments.ts";
import { type StatementFacts, TransactionControl } from "../parser/facts.ts";
import { type Hints, NO_HINTS } from "../parser/hints.ts";
import { Backslash } from "../parser/lexer.ts";
import { Parsed } from "../parser/parse.ts";
import { type Placement, Spread } from "../parser/spread.ts";
import { At } from "../parser/tables.ts";
import { Outcome, ReadWrite, ShardCode } from "../plugin/abi.ts";
import type { Decision, PluginHost, RouteInput } from "../plugin/host.ts";
import { BindArguments, type ParameterTypes } from "./arguments.ts";
import { crossShard, misplaced, ONE_COPY, unmapped } from "./misplaced.ts";
import type { Placing } from "./placing.ts";
import { acrossShards, parseError, REFUSALS, Unasked } from "./refusals.ts";
import { Route, Routes, ShardChoice } from "./route.ts";
import { shardOfKey } from "./sharding.ts";

/** The shape of a cluster. */
export interface Topology {
	/** 1 or more. */
	readonly shards: number;
	readonly hasPrimary: boolean;
	readonly hasReplicas: boolean;
	/** Some shard has several servers. Default: it has a primary and replicas. */
	readonly hasChoice?: boolean;
	/** Transactions read unless they say READ WRITE. Default false. */
	readonly readOnly?: boolean;
	/** Its statements may go to one shard only. Default: as the setting has it. */
	readonly cross_shard_disabled?: boolean | undefined;
	/** What its configuration says of sharded tables; null, or without it: nothing. */
	readonly placing?: Placing | null;
	/** As `ClusterSpec.twoPhase`. Default: nothing. */
	readonly twoPhase?: number;
}

/** The settings that decide. Default: the settings' defaults. */
export type DecidingSettings = Pick<
	General,
	| "read_write_strategy"
	| "read_write_split"
	| "expanded_explain"
	| "cross_shard_disabled"
	| "cross_shard_unmerged"
	| "cross_shard_functions"
>;

const DEFAULT_POLICY: DecidingSettings = {
	read_write_strategy: "conservative",
	read_write_split: "include_primary",
	expanded_explain: false,
	cross_shard_disabled: false,
	cross_shard_unmerged: "refuse",
	cross_shard_functions: undefined,
};

/** The caller may keep one object and change it between calls. */
export interface RouteRequest {
	/** Facts of a Query's text, or of the text of the statement that a Bind names; null unless `Router.needsFacts`. */
	facts: StatementFacts | null;
	/** The text itself, where plugins are asked (`Router.asksPlugins`); null when it is not certain what PostgreSQL will read. */
	sql: string | null;
	/** As in `RouteInput`. */
	escapes: boolean;
	/** The caller asks again once the server has answered what is under way: what is uncertain now need not be refused yet. */
	mayWait: boolean;
	/** The prepared statements that EXECUTE may name. */
	statements: PreparedNames;
	/** A transaction block is open on a server, which keeps it: the caller sees to that. */
	inTransaction: boolean;
	/** The BEGIN of a transaction that no server knows of yet: this is its first statement. Else None. */
	begun: TransactionControl;
	/** Hints of the session: SET pgdog.role and its like. */
	hints: Hints;
	/** Role that the StartupMessage asked for: a plugin does not change that. */
	startupRole: Hints["role"];
	/** The shard that is asked what any one of them can answer: one that has the transaction, if some have. */
	home: number;
	/** As in `RouteInput`: the parameters of a Bind message; null with the simple protocol. */
	bind: Uint8Array | null;
	bindStart: number;
	bindEnd: number;
	/** As `Routed` has them; with `Router.placesKeys` only. */
	types: ParameterTypes | null;
	/** As in `BindArguments`; with `Router.placesKeys` only. */
	isForeign: boolean;
}

/** Names that servers may have statements by. */
export interface PreparedNames {
	/** Whether a statement of this name was prepared by the protocol. */
	hasByProtocol(name: string): boolean;
}

const ALL_NAMES: PreparedNames = { hasByProtocol: () => true };

/** A request about nothing yet. */
export function routeRequest(): RouteRequest {
	return {
		facts: null,
		sql: "",
		escapes: false,
		mayWait: false,
		statements: ALL_NAMES,
		inTransaction: false,
		begun: TransactionControl.None,
		hints: NO_HINTS,
		startupRole: null,
		home: 0,
		bind: null,
		bindStart: 0,
		bindEnd: 0,
		types: null,
		isForeign: false,
	};
}

export class Router {
	/** False when every answer would be the same: callers then skip `route`, nothing is parsed and no plugin asked. */
	readonly needed: boolean;
	/** Whether the answer depends on what the statement is, also where no plugin has a say. */
	readonly decides: boolean;
	/** Whether facts are wanted: also where plugins alone decide, which are told of them (`write_override`). */
	readonly needsFacts: boolean;
	/** Plugins are asked: who routes has to give the text itself, as PostgreSQL will read it. */
	readonly asksPlugins: boolean;
	/** Bits of `TwoPhase`. */
	readonly twoPhase: number;
	readonly statements: StatementCache;
	/** The side of a statement that may do anything. */
	readonly writeSide: Side;
	/** Statements go where the rows are that they are about. */
	readonly placesKeys: boolean;
	/** A plugin has called the statement that was routed last a write, whatever its tree says. */
	calledWrite = false;
	readonly #shards: number;
	readonly #placing: Placing | null;
	readonly #hasPrimary: boolean;
	/** `Route.side` by the side that is wanted: that, where the cluster has both kinds; else what there is. */
	readonly #sides: readonly Side[];
	readonly #readOnly: boolean;
	readonly #aggressive: boolean;
	readonly #preferPrimary: boolean;
	readonly #plugins: PluginHost | null;
	readonly #input: RouteInput;
	/** The shard of a statement for which nobody names one: all of them, or the only one. */
	readonly #anyShard: number;
	/** `cross_shard_unmerged = "permit"`: answers of several shards pass as they come, whatever the statement. */
	readonly #unmerged: boolean;
	/** Rows of all shards are made one answer's, where a statement asks something of all of them. */
	readonly merges: boolean;
	/** `cross_shard_disabled`. */
	readonly #isDirect: boolean;
	readonly #functions: ReadonlySet<string>;
	/** The side that the last decision would have liked, whatever servers the cluster has. */
	#wanted = Side.Primary;

	readonly #arguments = new BindArguments();
	/** Where the rows of the statement are that was decided about last, a shard or an `At`. */
	#at: number = At.All;

	readonly #byCluster = new Routes("the only choice");
	readonly #byStatement = new Routes("statement");
	readonly #byTransaction = new Routes("transaction");
	readonly #bySplit = new Routes("read_write_split");
	readonly #byComment = new Routes("comment");
	readonly #bySetting = new Routes("pgdog setting");
	readonly #byKey = new Routes("sharding key");
	readonly #bySize = new Routes("size of the request");
	readonly #bySyntaxError = new Routes("syntax error");
	readonly #byPlugin = new Map<string, Routes>();

	constructor(
		topology: Topology,
		statements: StatementCache,
		plugins: PluginHost | null,
		policy: DecidingSettings = DEFAULT_POLICY,
	) {
		const { shards, hasPrimary, hasReplicas } = topology;
		this.#shards = shards;
		this.#placing = topology.placing ?? null;
		this.#hasPrimary = hasPrimary;
		this.#sides = sidesOf(topology);
		this.writeSide = this.#sides[Side.Primary]!;
		this.#readOnly = topology.readOnly ?? false;
		this.twoPhase = topology.twoPhase ?? 0;
		this.#aggressive = policy.read_write_strategy === "aggressive";
		this.#preferPrimary = policy.read_write_split === "prefer_primary";
		this.decides = shards > 1 || (hasPrimary && hasReplicas) || policy.expanded_explain;
		this.statements = statements;
		this.placesKeys = statements.placesKeys;
		this.#plugins = plugins?.active ? plugins : null;
		this.asksPlugins = this.#plugins !== null;
		this.needsFacts = this.decides || this.#plugins !== null;
		this.needed = this.decides || topology.hasChoice === true || this.#plugins !== null;
		this.#anyShard = shards === 1 ? 0 : ShardChoice.All;
		this.#isDirect = topology.cross_shard_disabled ?? policy.cross_shard_disabled;
		this.#unmerged = policy.cross_shard_unmerged === "permit";
		this.merges = !this.#unmerged;
		this.#functions = new Set(policy.cross_shard_functions?.split(/[\s,]+/));
		this.#input = {
			sql: "",
			escapes: false,
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

	/** There is a primary, and who asks may use it. */
	get mayWrite(): boolean {
		return this.#hasPrimary && !this.#readOnly;
	}

	/** The route of a request of one shard that is too large to be looked at. */
	get unseen(): Route {
		return this.#bySize.to(0, this.writeSide);
	}

	get shards(): number {
		return this.#shards;
	}

	/** Never throws for what a client sent. */
	route(request: RouteRequest): Route {
		const own = this.#decide(request);
		this.calledWrite = false;
		const route = this.#plugins === null || own.error !== null ? own : this.#askPlugins(this.#plugins, own, request);
		if (route.shard !== ShardChoice.All || route.error !== null || request.facts === null) return route;
		if (this.#isDirect) return this.#crossing(request, request.facts) ?? route;
		const { placement, aim } = request.facts;
		if (placement.unmerged === null && placement.calls.length === 0 && aim === null) return route;
		return this.#refusal(request.facts) ?? route;
	}

	#askPlugins(plugins: PluginHost, own: Route, request: RouteRequest): Route {
		const decision = this.#ask(plugins, request);
		return decision instanceof Route ? decision : this.#afterPlugins(decision, own, request);
	}

	/** What plugins say, or why they cannot be asked. */
	#ask(plugins: PluginHost, request: RouteRequest): Decision | Route {
		const { sql } = request;
		if (sql === null) return request.mayWait ? TOO_EARLY : this.refuseUnasked(Unasked.Uncertain);
		const input = this.#input;
		input.sql = sql;
		input.escapes = request.escapes;
		input.inTransaction = request.inTransaction || request.begun !== TransactionControl.None;
		input.writeOverride = this.#mustWrite(request);
		input.bind = request.bind;
		input.bindStart = request.bindStart;
		input.bindEnd = request.bindEnd;
		let decision = plugins.route(input);
		let unclear = false;
		// Their parser refuses some comments that PostgreSQL takes, and a plugin that guards would never see the statement.
		if (decision.outcome === Outcome.SyntaxError && mayHaveComments(sql)) {
			const plain = withoutComments(sql, request.escapes ? Backslash.Escapes : Backslash.Plain);
			unclear = plain === null;
			if (plain !== null && plain !== sql) {
				input.sql = plain;
				decision = plugins.route(input);
			}
		}
		// The message belongs to the caller's chunk, which must not outlive the call for our sake.
		input.bind = null;
		if (!unclear) return decision;
		// The parser's words: it is likely an error for PostgreSQL, too.
		const { hint } = this.refuseUnasked(Unasked.Comment).error!;
		const { message, position } = decision;
		return refuse("plugins' rules", new PgError("ERROR", "42601", message, undefined, hint, undefined, position));
	}

	/** The refusal of a Bind whose statement is not the client's: SQL's PREPARE may have made it, and what it says is not known. */
	refuseUnknown(name: string): Route {
		const message = `prepared statement "${name}" does not exist`;
		const hint = "Plugins have to see every statement: one that SQL's PREPARE has made can be run by EXECUTE only.";
		return refuse("plugins' rules", new PgError("ERROR", "26000", message, undefined, hint));
	}

	/** The refusal of a statement about which plugins could not be asked: were it sent, one that guards would be bypassed. */
	refuseUnasked(why: Unasked): Route {
		const { sqlstate, message, detail, hint } = REFUSALS[why];
		this.#plugins?.tellUnasked(message);
		return refuse("plugins' rules", new PgError("ERROR", sqlstate, message, detail, hint));
	}

	/** The route of a Parse or Describe without Bind: there is nothing to run yet, so plugins are not asked. */
	routeUnbound(request: RouteRequest): Route {
		return this.#decide(request);
	}

	#afterPlugins(decision: Decision, own: Route, request: RouteRequest): Route {
		switch (decision.outcome) {
			case Outcome.Provided:
				return this.#provided(decision, own, request);
			case Outcome.Unknown:
				return this.#executesUnseen(decision, request) ? this.refuseUnasked(Unasked.Execute) : own;
			// PostgreSQL's own words, but not PostgreSQL's own parser: one of another version may run what this one refuses.
			case Outcome.SyntaxError:
				return refuse("syntax error", parseError(decision.message, decision.position));
			case Outcome.MalformedBind:
				return this.refuseUnasked(Unasked.MalformedBind);
			case Outcome.Blocked: {
				const by = `plugin "${decision.plugin}"`;
				return refuse(by, new PgError("ERROR", "42601", `query is blocked by ${by}`, request.sql ?? undefined));
			}
			case Outcome.TooComplex:
				return this.refuseUnasked(Unasked.TooComplex);
			case Outcome.NoThread:
				return this.refuseUnasked(Unasked.NoThread);
			default: {
				const route = this.refuseUnasked(Unasked.Broken);
				return refuse(route.decidedBy, new PgError("ERROR", "58000", route.error!.message, decision.message));
			}
		}
	}

	/** Whether the text EXECUTEs what was prepared by the protocol, by whatever client: plugins are asked of that per Bind only. */
	#executesUnseen({ executes }: Decision, { statements }: RouteRequest): boolean {
		if (executes.length === 0) return false;
		return executes.some((name) => statements.hasByProtocol(name));
	}

	#provided(decision: Decision, own: Route, request: RouteRequest): Route {
		const { shard, readWrite, plugin } = decision;
		const { facts } = request;
		if (this.#executesUnseen(decision, request)) return this.refuseUnasked(Unasked.Execute);
		// What is about the session or the transaction alone belongs to no shard, and plugins do not expect to be asked.
		if (facts !== null && (facts.controls || facts.empty)) return own;
		if (shard >= this.#shards) {
			return noSuchShard(shard, this.#shards, `plugin "${plugin}"`, `Plugin "${plugin}" sends the statement there`);
		}
		// BEGIN and its like have a place of their own: a transaction is opened and ended where its statements run.
		if (facts !== null && facts.transaction > TransactionControl.LastInside) return own;
		let routes = this.#byPlugin.get(plugin);
		if (routes === undefined) {
			routes = new Routes(`plugin "${plugin}"`);
			this.#byPlugin.set(plugin, routes);
		}
		let { side } = own;
		if (request.startupRole === null) {
			if (readWrite === ReadWrite.Read) side = this.#sides[Side.Any]!;
			else if (readWrite === ReadWrite.Write) side = this.writeSide;
		}
		this.calledWrite = readWrite === ReadWrite.Write;
		if (shard === ShardCode.Unknown) return routes.to(own.shard, side);
		return routes.to(shard >= 0 ? shard : this.#anyShard, side);
	}

	/** The decision without plugins. */
	#decide(request: RouteRequest): Route {
		const { facts } = request;
		if (facts === null) return this.#byCluster.to(this.#anyShard, this.writeSide);
		// One server is enough to report an error.
		if (facts.parsed === Parsed.SyntaxError) return this.#bySyntaxError.to(0, this.writeSide);

		const { hints } = request;
		const controls = facts.transaction > TransactionControl.LastInside;
		let routes = this.#byStatement;
		let side: Side;
		if (request.inTransaction) {
			routes = this.#byTransaction;
			side = Side.Primary;
		} else {
			const role = facts.hints?.role ?? hints.role;
			if (role !== null && (role === "primary" || !facts.writes)) {
				routes = facts.hints?.role != null ? this.#byComment : this.#bySetting;
				side = role === "primary" ? Side.Primary : Side.Replica;
			} else if (role !== null) {
				// Asked for or not, a replica cannot write.
				side = Side.Primary;
			} else if (this.#preferPrimary) {
				routes = this.#bySplit;
				side = Side.Primary;
			} else if (controls || request.begun !== TransactionControl.None) {
				routes = this.#byTransaction;
				side = this.#transactionReads(facts, request.begun) ? Side.Any : Side.Primary;
			} else side = facts.reads || (this.#readOnly && !facts.writes) ? Side.Any : Side.Primary;
		}
		this.#wanted = side;
		side = this.#sides[side]!;
		if (!this.decides) return this.#byCluster.to(this.#anyShard, side);
		if (this.#shards === 1) return routes.to(0, side);
		// BEGIN, COMMIT and their like: on which shards a transaction is open `ShardedTransaction` knows.
		if (controls) return routes.to(this.#anyShard, side);
		return this.#placed(facts, request, side) ?? routes.to(this.#shardOf(facts.placement, request.home), side);
	}

	/** The shard of the rows that the statement is about; null: it is about those of several, or of none. */
	#byRows(aim: Aim, request: RouteRequest, side: Side): Route | null {
		const at = evaluate(aim, null, aim.hasParameters ? this.#arguments.of(request) : null);
		if (aim.hasParameters) this.#arguments.clear();
		this.#at = at;
		if (at >= 0) return this.#byKey.to(at, side);
		return at === At.None ? this.#byKey.to(request.home, side) : null;
	}

	/** The shard of a statement for which no hint names one. */
	#shardOf({ unmerged, calls, spread }: Placement, home: number): number {
		if (unmerged !== null || (calls.length > 0 && this.#stranger(calls) !== undefined)) return ShardChoice.All;
		switch (spread) {
			case Spread.One:
				return home;
			case Spread.First:
				return 0;
			default:
				return ShardChoice.All;
		}
	}

	/** The first function that is neither known nor listed in `cross_shard_functions`. */
	#stranger(calls: readonly string[]): string | undefined {
		return calls.find((name) => !this.#functions.has(name));
	}

	/** The error for a statement whose answer is not what all shards would answer; null when it is, or that is permitted. */
	#refusal({ placement, aim, transaction }: StatementFacts): Route | null {
		// A string that begins with BEGIN or its like goes to all shards, whatever the rows that it is about.
		const isBlock = transaction > TransactionControl.LastInside;
		const error = aim === null ? null : misplaced(aim, isBlock ? At.Apart : this.#at);
		if (error !== null) return refuse("shards", error);
		if (this.#unmerged) return null;
		const call = placement.unmerged === null ? this.#stranger(placement.calls) : undefined;
		if (placement.unmerged === null && call === undefined) return null;
		const part = placement.unmerged ?? `the function ${call}()`;
		if (call === undefined) return refuse("shards", acrossShards(part, this.#shards));
		const help = `, list it in "cross_shard_functions" if it does neither`;
		return refuse("shards", acrossShards(part, this.#shards, " It may be an aggregate, or read tables.", help));
	}

	/** The error for a statement that would go to several shards where none may; null: it is about the session or the transaction. */
	#crossing({ hints }: RouteRequest, facts: StatementFacts): Route | null {
		if (facts.controls || facts.empty) return null;
		const key = facts.hints?.shardingKey ?? (facts.hints?.shard == null ? hints.shardingKey : null);
		return refuse("cross_shard_disabled", key === null ? crossShard(facts.text) : unmapped(key));
	}

	/** The shard that hints name, a comment's before the session's, where a key beats a number; or else the shard of its rows. */
	#placed({ aim, hints, reads, writes }: StatementFacts, request: RouteRequest, side: Side): Route | null {
		const isComment = hints !== null && (hints.shardingKey !== null || hints.shard !== null);
		const { shardingKey, shard } = isComment ? hints : request.hints;
		const routes = isComment ? this.#byComment : this.#bySetting;
		let route: Route;
		if (shardingKey !== null) {
			const found = this.#placing?.shardOfKey(shardingKey) ?? shardOfKey(shardingKey, this.#shards);
			route = typeof found === "number" ? routes.to(found, side) : refuse(routes.decidedBy, found);
		} else if (shard === null) return aim === null ? null : this.#byRows(aim, request, side);
		else if (shard < this.#shards) route = routes.to(shard, side);
		else route = noSuchShard(shard, this.#shards, routes.decidedBy, "A hint sends the statement there");
		// What the session has asked for wrongly SET and RESET can help: they go their way.
		if (route.error !== null) return isComment || reads || writes ? route : null;
		return aim === null ? route : this.#despite(aim, route);
	}

	/** A hint wins over the rows that the statement is about, unless it would change one copy of many. */
	#despite(aim: Aim, route: Route): Route {
		this.#at = aim.placesRows ? At.Unplaced : At.All;
		return aim.writesCopies && !this.#placing!.bySchema ? TO_ONE_COPY : route;
	}

	/** Whether a replica may have the transaction that `facts` begins, or is the first statement of. */
	#transactionReads(facts: StatementFacts, begun: TransactionControl): boolean {
		const itself = begun === TransactionControl.None;
		if (itself && facts.statements > 1) return facts.reads;
		const kind = itself ? facts.transaction : begun;
		const readOnly = kind === TransactionControl.BeginReadOnly || (kind === TransactionControl.Begin && this.#readOnly);
		// What locks or writes is the primary's also in a transaction that reads: PostgreSQL has the error.
		// Of a string that ends the transaction nobody knows what it begins.
		if (readOnly) return itself || (facts.statements > 1 ? facts.reads : !facts.writes);
		return kind === TransactionControl.Begin && !itself && this.#aggressive && facts.reads;
	}

	/** `write_override`, which plugins are told: only a primary will do, as far as is known. */
	#mustWrite(request: RouteRequest): boolean {
		const { facts } = request;
		if (request.inTransaction) return !this.#aggressive || facts === null || !facts.reads;
		return this.#wanted === Side.Primary;
	}
}

function sidesOf({ hasPrimary, hasReplicas }: Topology): readonly Side[] {
	if (!hasReplicas) return [Side.Primary, Side.Primary, Side.Primary];
	return hasPrimary ? [Side.Primary, Side.Any, Side.Replica] : [Side.Any, Side.Any, Side.Any];
}

function noSuchShard(shard: number, shards: number, decidedBy: string, why: string): Route {
	const detail = `${why}; shards are numbered from 0 to ${shards - 1}.`;
	return refuse(decidedBy, new PgError("ERROR", "58000", `no such shard: ${shard}`, detail));
}

/** The route of a statement that is asked about again later (`mayWait`): no client is told this error. */
const TOO_EARLY = refuse("plugins' rules", new PgError("ERROR", "0A000", "the statement before it is under way"));

const TO_ONE_COPY = refuse("a hint", ONE_COPY);

function refuse(decidedBy: string, error: PgError): Route {
	return new Route(ShardChoice.All, Side.Primary, decidedBy, error);
}
