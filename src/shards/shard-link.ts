// One shard's half of the talk with a client of several shards: a Link, and a Walk that is fed what of the client's requests is for
// this shard. What would be written to a client goes to a ShardPort, whose owner merges the shards' answers. Made by shard-links.ts;
// planning.ts says by it which server is wanted, exchange.ts has it send.

import type { ClientContext, Login, Siblings } from "../client/context.ts";
import { Incoming } from "../client/incoming.ts";
import { Link, type LinkOwner } from "../client/link.ts";
import type { Speaker } from "../client/saying.ts";
import { Walk } from "../client/walk.ts";
import type { PgError } from "../errors.ts";
import type { Cluster } from "../pool/cluster.ts";
import type { CommitPart } from "../two-phase/commit.ts";
import { READY_IDLE } from "../wire/backend-messages.ts";
import { TxStatus } from "../wire/codes.ts";
import { type PortOwner, ShardPort } from "./shard-port.ts";
import type { Participant } from "./transaction.ts";

export class ShardLink implements LinkOwner, Participant {
	readonly stream: ShardPort;
	readonly incoming: Incoming;
	/** Its client leaves when all shards have answered, and not when this one has. */
	readonly leaving = false;
	readonly pid: number;
	readonly user: string;
	readonly database: string;
	readonly address: string;
	private readonly shard: number;
	private readonly owner: PortOwner;
	readonly link: Link;
	private readonly walk: Walk;

	/** @param cluster of this shard alone @param client whose shard it is */
	constructor(context: ClientContext, client: Speaker & PortOwner, cluster: Cluster, login: Login, siblings: Siblings) {
		const { shard } = siblings;
		this.shard = shard;
		this.owner = client;
		this.pid = client.pid;
		this.user = client.user;
		this.database = client.database;
		this.address = client.address;
		this.stream = new ShardPort(shard, client);
		this.incoming = new Incoming(context, this.stream);
		this.link = new Link(context, this, cluster, null, login, siblings);
		this.walk = new Walk(this, this.link);
	}

	// ---- its Link and its Walk -------------------------------------------------------------------------------------

	onWelcome(reports: Buffer): void {
		this.stream.writeAll(Buffer.concat([reports, READY_IDLE]));
		this.resume();
	}

	resume(): void {
		this.walk.resume();
	}

	refuseHeld(error: PgError): void {
		this.walk.refuseHeld(error);
	}

	/** The client counts what it is told. */
	countError(): void {}

	onLongWait(notice: Buffer): void {
		this.owner.onShardWait(notice);
	}

	shutDown(): void {}

	close(reason: string, error?: PgError): void {
		if (this.incoming.isClosed) return;
		this.leave();
		this.owner.onShardEnd(this.shard, reason, error);
	}

	// ---- what its client asks --------------------------------------------------------------------------------------

	/** Of the server it has; Idle when it has none. */
	get transactionStatus(): TxStatus {
		return this.link.server?.status ?? TxStatus.Idle;
	}

	/** It stands in a queue for a server. */
	get isWaiting(): boolean {
		return this.link.checkout.queued;
	}

	/** A transaction was begun for it that no server knows of. */
	get isHolding(): boolean {
		return this.link.routing.heldBegin.open;
	}

	// ---- what its client tells it ----------------------------------------------------------------------------------

	/** Bytes of the client; they do not change afterwards. @returns false when it stands in a queue for a server */
	send(bytes: Buffer): boolean {
		const whole = this.incoming.add(bytes);
		if (whole !== null) this.walk.read(whole);
		return !this.link.checkout.queued;
	}

	/** The client has taken what it was sent. */
	onDrain(): void {
		this.stream.drained();
		this.link.onClientDrain();
	}

	/** The shard's next server runs `sql` first. */
	join(sql: string): void {
		this.link.routing.hold(sql);
	}

	letGo(): void {
		this.link.routing.handOver();
	}

	/** It as whoever ends its transaction in two phases knows it. */
	get part(): CommitPart {
		const { link } = this;
		return {
			number: link.checkout.pool.spec.shard,
			lend: (borrower) => link.lend(borrower),
			takeBack: (server, committed) => link.takeBack(server, committed),
		};
	}

	/** The client is gone. */
	leave(): void {
		if (this.incoming.isClosed) return;
		this.incoming.close();
		this.link.leave();
	}
}
