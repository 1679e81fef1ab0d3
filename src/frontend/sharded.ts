// A client of a cluster with several shards. It frames and routes requests; for each shard there is an ordinary Client,
// with its own servers, settings and statements, that is fed the same bytes and answers into a merge (merge.ts) instead
// of a socket. One request at a time: the next may go to other shards, and answers must keep their order.

import { randomBytes } from "node:crypto";
import { PgError, ProtocolError } from "../errors.ts";
import type { Sink, Stream, StreamOwner } from "../net/stream.ts";
import type { Cluster } from "../pool/cluster.ts";
import { type Route, Shard } from "../router/route.ts";
import type { Router } from "../router/router.ts";
import { backendKeyData, READY_IDLE, readyForQuery } from "../wire/backend-messages.ts";
import { Backend, Frontend, TxStatus } from "../wire/codes.ts";
import { errorResponse } from "../wire/error-response.ts";
import { HEADER, readInt32, Tail } from "../wire/frame.ts";
import { query } from "../wire/frontend-messages.ts";
import { Client, type Login, SHUTTING_DOWN } from "./client.ts";
import { checkHeader, ROUTED } from "./collect.ts";
import type { ClientContext, ClientHandle } from "./context.ts";
import { Merge, type MergeOutput } from "./merge.ts";
import { ClientStatements } from "./prepared.ts";
import { RequestRouter } from "./request.ts";

const HELD = 128 << 10;

const enum Phase {
	/** The shards are being logged in to. */
	Login,
	Idle,
	/** A request is under way; what else comes is held. */
	Busy,
	/** A shard's transaction has failed; the others' are made to fail. */
	Failing,
	Closed,
}

/** No SQL at all: fails the transaction of a shard that did nothing wrong, since another's has failed. */
const FAIL = query("failed on another shard of pgdog");

/** Stands in for the socket of one shard's Client. */
class ShardPort implements Sink {
	readonly shard: number;
	private readonly owner: ShardedClient;
	bytesIn = 0;
	bytesOut = 0;

	constructor(shard: number, owner: ShardedClient) {
		this.shard = shard;
		this.owner = owner;
	}

	get queued(): number {
		return this.owner.queuedFor(this.shard);
	}

	write(bytes: Uint8Array, start: number, length: number): boolean {
		this.bytesOut += length;
		this.owner.onShard(this.shard, bytes, start, length);
		return this.queued === 0;
	}

	writeVolatile(bytes: Uint8Array, start: number, length: number): boolean {
		return this.write(bytes, start, length);
	}

	writeAll(bytes: Uint8Array): boolean {
		return this.write(bytes, 0, bytes.length);
	}

	pause(): void {
		this.owner.stream.pause();
	}

	resume(): void {
		this.owner.onShardReads();
	}

	end(): void {
		this.owner.onShardEnd();
	}

	terminate(): void {
		this.owner.onShardEnd();
	}
}

export class ShardedClient implements StreamOwner, MergeOutput, ClientHandle {
	readonly stream: Stream;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	readonly connectedAt = Date.now();
	readonly pid: number;
	readonly secret: Uint8Array;
	activeAt: number;
	queries = 0;
	transactions = 0;
	errors = 0;

	private readonly context: ClientContext;
	private readonly shards: Client[];
	private readonly requests: RequestRouter;
	/** The client's statements by name, for their texts; each shard has its own of them. */
	private readonly statements: ClientStatements;
	private readonly tail = new Tail();
	private phase = Phase.Login;
	private merge: Merge;
	/** Shards of the request under way; it goes on until `merge` is done. */
	private targets: readonly number[];
	private readonly all: readonly number[];
	/** The request ended in Flush: what follows up to Sync belongs to it. */
	private open = false;
	private copying = false;
	private status: TxStatus = TxStatus.Idle;
	/** Skip to the next Sync, after a refusal. */
	private skipping = false;
	private leaving = false;
	/** Bytes of the login's answers, which are told once. */
	private welcomed = false;

	constructor(context: ClientContext, stream: Stream, cluster: Cluster, router: Router, login: Login) {
		this.context = context;
		this.stream = stream;
		this.user = login.user;
		this.database = login.database;
		this.address = login.address;
		this.activeAt = context.time;
		this.requests = new RequestRouter(router);
		this.statements = new ClientStatements(context.statements, context.facts, context.splice, true);
		this.pid = context.register(this);
		this.secret = Uint8Array.from(randomBytes(login.minor >= 2 ? 32 : 4));
		// What a shard's Client tells its worker is told by this one, once.
		const inner: ClientContext = Object.create(context, {
			register: { value: () => this.pid },
			unregister: { value: () => {} },
			onLogin: { value: () => {} },
			onLogout: { value: () => {} },
		});
		this.all = cluster.shards.map((_, shard) => shard);
		this.targets = this.all;
		this.merge = new Merge(this.all, this);
		this.shards = this.all.map(
			(shard) => new Client(inner, new ShardPort(shard, this), cluster.of(shard), null, login),
		);
	}

	begin(): void {
		for (const shard of this.shards) shard.begin();
	}

	// ---- bytes of the client ---------------------------------------------------------------------------------------

	onData(chunk: Buffer): void {
		if (this.phase === Phase.Closed) return;
		this.activeAt = this.context.time;
		if (this.phase !== Phase.Idle && !this.copying && !this.open) {
			this.tail.hold(chunk);
			if (this.tail.bytes > HELD) this.stream.pause();
			return;
		}
		const whole = this.tail.add(chunk);
		if (whole !== null) this.guardedWalk(whole);
	}

	private guardedWalk(chunk: Buffer): void {
		try {
			this.walk(chunk);
		} catch (error) {
			if (!(error instanceof ProtocolError)) throw error;
			this.close(`protocol error: ${error.message}`, new PgError("FATAL", error.sqlstate, error.message));
		}
	}

	private walk(chunk: Buffer): void {
		let at = 0;
		while (chunk.length - at >= HEADER && this.phase !== Phase.Closed) {
			const code = chunk[at]!;
			const length = readInt32(chunk, at + 1);
			checkHeader(code, length);
			if (length > ROUTED) throw new ProtocolError("the request is too large to be routed", "54000");
			const next = at + 1 + length;
			if (next > chunk.length) break;
			if (code === Frontend.Terminate) {
				this.close("client disconnected");
				return;
			}
			if (this.skipping) {
				if (code === Frontend.Sync) {
					this.skipping = false;
					this.stream.writeAll(readyForQuery(this.status));
				}
				at = next;
			} else if (this.phase === Phase.Busy) {
				if (!this.copying && !this.open) break;
				this.goOn(code, chunk, at, next);
				at = next;
			} else {
				const end = this.request(code, chunk, at, next);
				if (end < 0) break;
				at = end;
			}
		}
		if (at < chunk.length && this.phase !== Phase.Closed) this.keep(chunk, at);
	}

	private keep(chunk: Buffer, at: number): void {
		const here = chunk.length - at;
		const held = this.phase !== Phase.Idle && !this.copying && !this.open;
		if (held) this.tail.keep(chunk, at, Number.POSITIVE_INFINITY);
		else if (here < HEADER) this.tail.keep(chunk, at, HEADER);
		else this.tail.keep(chunk, at, Math.max(here + 1, 1 + readInt32(chunk, at + 1)));
	}

	/** More of the request under way: data of a COPY, or what follows a Flush. */
	private goOn(code: number, chunk: Buffer, at: number, next: number): void {
		if (code === Frontend.CopyDone || code === Frontend.CopyFail) this.copying = false;
		if (code === Frontend.Sync) this.open = false;
		if (code === Frontend.Bind && this.open) {
			const inside = this.status !== TxStatus.Idle;
			const route = this.requests.bind(chunk, at, next, this.statements, inside);
			if (route?.error != null)
				throw new ProtocolError(`${route.error.message} (in the middle of a batch)`, route.error.sqlstate);
		}
		this.note(chunk, at, next);
		this.send(chunk, at, next);
	}

	/** A whole request that begins at `at`. @returns where it ends, or -1 when it is not all here */
	private request(code: number, chunk: Buffer, at: number, next: number): number {
		switch (code) {
			case Frontend.Query:
				this.dispatch(this.requests.query(chunk, at, next, this.inTransaction), code, chunk, at, next);
				return next;
			case Frontend.FunctionCall:
				this.start(this.all, false);
				this.send(chunk, at, next);
				return next;
			case Frontend.Sync:
				if (this.inTransaction) {
					this.start([0], false);
					this.send(chunk, at, next);
				} else this.stream.writeAll(READY_IDLE);
				return next;
			case Frontend.Parse:
			case Frontend.Bind:
			case Frontend.Describe:
			case Frontend.Execute:
			case Frontend.Close: {
				const end = endOfBatch(chunk, at);
				if (end < 0) {
					if (chunk.length - at > ROUTED) throw new ProtocolError("the request is too large to be routed", "54000");
					return -1;
				}
				const route = this.requests.batch(chunk, at, this.statements, this.inTransaction);
				this.dispatch(route, code, chunk, at, end);
				return end;
			}
			default:
				return next;
		}
	}

	private dispatch(route: Route, code: number, chunk: Buffer, at: number, end: number): void {
		if (route.error !== null) {
			this.refuse(route.error, code, chunk, end);
			return;
		}
		// What is prepared on one shard may be used on another.
		for (let from = at; from < end; from += 1 + readInt32(chunk, from + 1))
			this.note(chunk, from, from + 1 + readInt32(chunk, from + 1));
		const targets = route.shard === Shard.All ? this.all : [route.shard];
		this.start(targets, route.read);
		this.open = code !== Frontend.Query && chunk[end - 5] === Frontend.Flush;
		if (targets !== this.all)
			for (const shard of this.all) if (shard !== route.shard) this.shards[shard]!.learnStatements(chunk, at, end);
		this.send(chunk, at, end);
	}

	/** Nothing of the request is sent. In a transaction every shard's is made to fail, as PostgreSQL's would have. */
	private refuse(error: PgError, code: number, chunk: Buffer, end: number): void {
		this.errors++;
		this.stream.writeAll(errorResponse(error));
		if (code !== Frontend.Query && chunk[end - 5] !== Frontend.Sync) this.skipping = true;
		if (this.status === TxStatus.InBlock) this.fail(this.all);
		else if (!this.skipping) this.stream.writeAll(readyForQuery(this.status));
	}

	private note(chunk: Buffer, at: number, next: number): void {
		this.statements.note(chunk, at, next);
	}

	private start(targets: readonly number[], read: boolean): void {
		this.phase = Phase.Busy;
		this.targets = targets;
		this.merge = new Merge(targets, this);
		this.copying = false;
		for (const shard of targets) this.shards[shard]!.prefer(read);
	}

	private send(chunk: Buffer, at: number, end: number): void {
		// Each shard's Client keeps slices of what it is given.
		const bytes = at === 0 && end === chunk.length ? chunk : chunk.subarray(at, end);
		for (const shard of this.targets) if (this.phase !== Phase.Closed) this.shards[shard]!.onData(bytes);
	}

	private get inTransaction(): boolean {
		return this.status !== TxStatus.Idle;
	}

	// ---- answers of the shards -------------------------------------------------------------------------------------

	onShard(shard: number, bytes: Uint8Array, start: number, length: number): void {
		if (this.phase === Phase.Closed) return;
		this.merge.add(shard, bytes, start, length);
	}

	write(message: Uint8Array): void {
		if (this.phase === Phase.Failing) return;
		const code = message[0];
		if (code === Backend.ErrorResponse) {
			this.errors++;
			// Severity FATAL or PANIC: the shard's Client closes next, and so does this one.
		} else if (this.phase === Phase.Login && (code === Backend.BackendKeyData || code === Backend.ReadyForQuery))
			return;
		else if (code === Backend.ReadyForQuery) return;
		this.stream.writeAll(message);
	}

	copyIn(): void {
		this.copying = true;
		if (this.tail.bytes > 0) this.guardedWalk(this.tail.take());
	}

	/** Every shard asked has said ReadyForQuery. */
	done(status: TxStatus): void {
		if (this.phase === Phase.Closed) return;
		if (!this.welcomed) {
			this.welcomed = true;
			this.stream.writeAll(backendKeyData(this.pid, this.secret));
			this.context.onLogin(this);
		} else if (this.phase === Phase.Busy) {
			this.queries++;
			if (status === TxStatus.Idle) this.transactions++;
			// A direct request in a transaction answers for its shard alone: the others are still in theirs.
			const others = this.all.filter((shard) => !this.targets.includes(shard));
			if (status === TxStatus.Failed) {
				const alive = this.all.filter((shard) => this.shards[shard]!.transactionStatus === TxStatus.InBlock);
				if (alive.length > 0) {
					this.fail(alive);
					return;
				}
			} else if (others.some((shard) => this.shards[shard]!.transactionStatus !== TxStatus.Idle))
				status = TxStatus.InBlock;
		}
		this.answered(this.phase === Phase.Failing ? TxStatus.Failed : status);
	}

	private fail(shards: readonly number[]): void {
		this.start(shards, false);
		this.phase = Phase.Failing;
		this.send(FAIL, 0, FAIL.length);
	}

	private answered(status: TxStatus): void {
		this.status = status;
		this.phase = Phase.Idle;
		this.open = false;
		this.copying = false;
		if (!this.skipping) this.stream.writeAll(readyForQuery(status));
		if (status === TxStatus.Idle && (this.leaving || this.context.stopping)) {
			this.close("shutdown", SHUTTING_DOWN);
			return;
		}
		this.stream.resume();
		// Not in the middle of a shard's own event.
		if (this.tail.bytes > 0) queueMicrotask(() => this.continue());
	}

	private continue(): void {
		if (this.phase === Phase.Idle && this.tail.bytes > 0) this.guardedWalk(this.tail.take());
	}

	queuedFor(shard: number): number {
		return this.stream.queued > 0 || this.merge.isAhead(shard) ? 1 : 0;
	}

	onShardReads(): void {
		if (this.phase !== Phase.Closed) this.stream.resume();
	}

	/** A shard's Client has closed: its last words are in the merge, or were none. */
	onShardEnd(): void {
		if (this.phase === Phase.Closed) return;
		const words = this.shards.find((shard) => shard.lastError !== null)?.lastError ?? undefined;
		this.close(words?.message ?? "a shard's session ended", words);
	}

	/** The client took everything: so may every shard's server. */
	onDrain(): void {
		for (const shard of this.shards) shard.onDrain();
	}

	// ---- life ------------------------------------------------------------------------------------------------------

	get isClosed(): boolean {
		return this.phase === Phase.Closed;
	}

	get stateName(): string {
		if (this.phase === Phase.Busy || this.phase === Phase.Failing) return "active";
		if (this.status === TxStatus.Failed) return "transaction error";
		return this.status === TxStatus.InBlock ? "idle in transaction" : "idle";
	}

	get waitTime(): number {
		return Math.max(...this.shards.map((shard) => shard.waitTime));
	}

	get queryTime(): number {
		return Math.max(...this.shards.map((shard) => shard.queryTime));
	}

	get transactionTime(): number {
		return Math.max(...this.shards.map((shard) => shard.transactionTime));
	}

	get statementCount(): number {
		return this.statements.size;
	}

	get isLocked(): boolean {
		return this.shards.some((shard) => shard.isLocked);
	}

	setting(name: string): string | undefined {
		return this.shards[0]!.setting(name);
	}

	cancel(): void {
		for (const shard of this.shards) shard.cancel();
	}

	check(time: number): void {
		for (const shard of this.shards) {
			if (this.activeAt > shard.activeAt) shard.activeAt = this.activeAt;
			if (!this.isClosed) shard.check(time);
		}
	}

	/** Which shards there are does not change under a client; other pools reach it when it connects again. */
	reach(): void {}

	shutDown(force: boolean): void {
		if (force || (this.phase === Phase.Idle && !this.inTransaction)) this.close("shutdown", SHUTTING_DOWN);
		else this.leaving = true;
	}

	close(reason: string, error?: PgError): void {
		if (this.phase === Phase.Closed) return;
		this.phase = Phase.Closed;
		if (error !== undefined) this.stream.writeAll(errorResponse(error));
		this.leave(reason);
		this.stream.end();
	}

	onClose(error: Error | undefined): void {
		if (this.phase !== Phase.Closed) {
			this.phase = Phase.Closed;
			this.leave(error?.message ?? "connection lost");
		}
		this.context.unregister(this);
	}

	private leave(reason: string): void {
		this.tail.clear();
		for (const shard of this.shards) shard.close("client disconnected");
		this.statements.clear(this.context.general().prepared_statements_limit);
		this.context.onLogout(this, reason);
	}
}

/** The end of the batch that begins at `at`: behind its Sync or Flush, or -1 when that is not here yet. */
function endOfBatch(chunk: Buffer, at: number): number {
	while (chunk.length - at >= HEADER) {
		const code = chunk[at]!;
		const length = readInt32(chunk, at + 1);
		checkHeader(code, length);
		at += 1 + length;
		if (at > chunk.length) return -1;
		if (code === Frontend.Sync || code === Frontend.Flush) return at;
	}
	return -1;
}
