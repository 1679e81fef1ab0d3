// The shards' Links of one client: made together, and asked and told together what concerns them all. Made by sharded-client.ts.

import type { ClientContext, Login, Siblings } from "../client/context.ts";
import type { Speaker } from "../client/saying.ts";
import { Wait } from "../client/wait.ts";
import type { Side } from "../config/snapshot.ts";
import type { StatementFacts } from "../parser/facts.ts";
import { Reading } from "../parser/reading.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { Place } from "../router/explain.ts";
import type { Route } from "../router/route.ts";
import type { CommitPart } from "../two-phase/commit.ts";
import { TxStatus } from "../wire/codes.ts";
import { ShardLink } from "./shard-link.ts";
import type { PortOwner } from "./shard-port.ts";

export class ShardLinks {
	/** By the number of the shard. */
	readonly each: readonly ShardLink[];
	readonly count: number;

	/** @param client whose shards these are */
	constructor(
		context: ClientContext,
		client: Speaker & PortOwner,
		cluster: Cluster,
		login: Login,
		common: Omit<Siblings, "shard">,
	) {
		this.each = cluster.shards.map(
			(_, shard) => new ShardLink(context, client, cluster.of(shard), login, { ...common, shard }),
		);
		this.count = this.each.length;
	}

	at(shard: number): ShardLink {
		return this.each[shard]!;
	}

	// ---- what they are ---------------------------------------------------------------------------------------------

	/** Some shard's server takes no more of what the client sends. */
	get isPaused(): boolean {
		for (const { stream } of this.each) if (stream.paused) return true;
		return false;
	}

	/** Some stand in a queue. */
	get isWaiting(): boolean {
		return this.each.some((shard) => shard.isWaiting);
	}

	/** What is sent to some of them is held: for what their last transactions did to settings, at the end of a request. */
	get isHeld(): boolean {
		for (const { incoming } of this.each)
			if (incoming.wait !== Wait.Nothing && incoming.wait !== Wait.Closed) return true;
		return false;
	}

	get isLocked(): boolean {
		return this.each.some(({ link }) => link.isLocked);
	}

	/** Servers of some stay for good. */
	get isSession(): boolean {
		return this.each.some(({ link }) => link.checkout.pool.spec.pooler_mode === "session");
	}

	/** BEGIN may be held back. */
	get mayHold(): boolean {
		for (const { link } of this.each)
			if (link.checkout.pool.spec.pooler_mode !== "transaction" || link.isLocked) return false;
		return true;
	}

	/** They take a transaction that the client has not begun. */
	get mayBegin(): boolean {
		for (const { link } of this.each) if (link.checkout.pool.spec.pooler_mode === "statement") return false;
		return true;
	}

	/** How all of them read statements; where they differ nothing is certain. */
	get reading(): Reading {
		const { reading } = this.each[0]!.link.settings;
		for (let shard = 1; shard < this.count; shard++)
			if (this.each[shard]!.link.settings.reading !== reading) return reading | Reading.Changing;
		return reading;
	}

	get isSerializable(): boolean {
		for (const { link } of this.each) if (link.settings.isSerializable) return true;
		return false;
	}

	/** No server of theirs has a transaction. */
	get areIdle(): boolean {
		for (const { link } of this.each) if (link.server !== null && link.server.status !== TxStatus.Idle) return false;
		return true;
	}

	/** The shards whose server has a transaction of this status, in order. */
	having(status: TxStatus): number[] {
		const found: number[] = [];
		for (const [shard, { transactionStatus }] of this.each.entries())
			if (transactionStatus === status) found.push(shard);
		return found;
	}

	/** Those of these shards whose server has a transaction, as who ends it in two phases knows them. */
	parts(shards: readonly number[]): CommitPart[] {
		const links = shards.map((shard) => this.at(shard));
		return links.filter(({ transactionStatus }) => transactionStatus !== TxStatus.Idle).map(({ part }) => part);
	}

	places(shards: readonly number[]): Place[] {
		return shards.map((shard) => ({ ...this.at(shard).link.servedFrom, shard }));
	}

	setting(name: string): string | undefined {
		return this.at(0).link.settings.wanted.values.get(name);
	}

	get waitTime(): number {
		return Math.max(...this.each.map(({ link }) => link.checkout.waitTime));
	}

	get queryTime(): number {
		return Math.max(...this.each.map(({ link }) => link.queryTime));
	}

	get transactionTime(): number {
		return Math.max(...this.each.map(({ link }) => link.transactionTime));
	}

	// ---- what they are told ----------------------------------------------------------------------------------------

	/** `chunk[at, end)` of the client, which does not change afterwards. */
	send(shards: readonly number[], chunk: Buffer, at: number, end: number): void {
		if (at === end) return;
		// Each Link keeps slices of what it is given.
		const bytes = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
		for (const shard of shards) this.each[shard]!.send(bytes);
	}

	/** Which of their servers these are to take, and why: for the transaction that begins, or goes on. */
	prefer(
		shards: readonly number[],
		side: Side,
		since: number,
		route: Route | null,
		facts: StatementFacts | null,
	): void {
		for (const shard of shards) this.each[shard]!.link.routing.prefer(side, since, route, facts);
	}

	/** The client may send again what was held back for them. */
	unpause(): void {
		for (const { stream } of this.each) stream.paused = false;
	}

	cancel(done: () => void): void {
		let left = this.each.length;
		for (const { link } of this.each) link.cancel(() => --left === 0 && done());
	}

	reach(cluster: Cluster): void {
		for (const [shard, { link }] of this.each.entries()) link.reach(cluster.of(shard), null);
	}

	/** The client may hear of notifications. */
	deliver(): void {
		for (const { link } of this.each) link.saying.hearing?.deliver();
	}

	leave(): void {
		for (const shard of this.each) shard.leave();
	}
}
