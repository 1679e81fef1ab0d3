// What a server still owes: one mark for each message that was sent to it and that ends in a reply, in order. It tells
// which replies are for the client, which are swallowed (the proxy asked, not the client) and which are made up
// (the client asked, the server was not bothered). Empty means that server and client agree on where they are.

export const enum Reply {
	/** Query or FunctionCall: ends with ReadyForQuery. */
	Query = 1,
	Sync,
	/** Parse of the client's unnamed statement: ParseComplete goes to the client. */
	Parse,
	/** Parse of a statement that the client has a name for: as Parse, and it may have to be undone. */
	ParseNamed,
	/** Parse of ours, before a Bind or Describe that needs it: ParseComplete is swallowed. */
	ParseOurs,
	/** Parse that the server was not sent since it has the statement: we say ParseComplete. */
	ParseFake,
	Bind,
	/** Describe of a statement or portal: ends with RowDescription or NoData. */
	Describe,
	/** Ends with CommandComplete, EmptyQueryResponse or PortalSuspended. */
	Execute,
	Close,
	/** Close of ours: swallowed. */
	CloseOurs,
	/** Close of a statement, which stays on the server for others: we say CloseComplete. */
	CloseFake,
	/** CopyDone or CopyFail: no reply of its own, see `copyIn`. */
	CopyEnd,
	/** In place of a Query or Bind that was refused in a transaction: fails there, and the client is told why here. */
	RefusedQuery,
	RefusedBind,
}

/** A queue of small integers that grows and never shrinks below its first size; nothing is allocated per message. */
export class Replies {
	private ring = new Uint8Array(16);
	private head = 0;
	length = 0;

	push(mark: Reply): void {
		if (this.length === this.ring.length) this.grow();
		this.ring[(this.head + this.length++) & (this.ring.length - 1)] = mark;
	}

	/** The oldest mark, or 0. */
	front(): number {
		return this.length === 0 ? 0 : this.ring[this.head]!;
	}

	shift(): void {
		this.head = (this.head + 1) & (this.ring.length - 1);
		this.length--;
	}

	clear(): void {
		this.length = 0;
		this.head = 0;
		if (this.ring.length > KEPT) this.ring = new Uint8Array(16);
	}

	/**
	 * The server has begun to read CopyData for the mark in front. Until CopyDone or CopyFail it ignores Sync
	 * (PostgreSQL's CopyGetData, "for the convenience of client libraries"), so those Syncs will not be answered.
	 * @returns true when CopyDone or CopyFail was already sent.
	 */
	copyIn(): boolean {
		const mask = this.ring.length - 1;
		let kept = 1;
		let ended = false;
		for (let i = 1; i < this.length; i++) {
			const mark = this.ring[(this.head + i) & mask]!;
			if (!ended && mark === Reply.CopyEnd) ended = true;
			else if (ended || mark !== Reply.Sync) this.ring[(this.head + kept++) & mask] = mark;
		}
		this.length = kept;
		return ended;
	}

	includes(mark: Reply): boolean {
		const mask = this.ring.length - 1;
		for (let i = 0; i < this.length; i++) if (this.ring[(this.head + i) & mask] === mark) return true;
		return false;
	}

	/** Whether ReadyForQuery will come without anything more being sent. Behind messages of a batch only a Sync is sure of it. */
	endsInSync(): boolean {
		const mask = this.ring.length - 1;
		let ends = false;
		for (let i = this.length - 1; i >= 0; i--) {
			const mark = this.ring[(this.head + i) & mask]!;
			if (mark === Reply.CopyEnd) continue;
			if (!endsRequest(mark)) return false;
			ends = true;
			if (mark === Reply.Sync) break;
		}
		return ends;
	}

	private grow(): void {
		const grown = new Uint8Array(this.ring.length * 2);
		for (let i = 0; i < this.length; i++) grown[i] = this.ring[(this.head + i) & (this.ring.length - 1)]!;
		this.ring = grown;
		this.head = 0;
	}
}

/** Whether ReadyForQuery answers it. */
export function endsRequest(mark: number): boolean {
	return mark === Reply.Query || mark === Reply.Sync || mark === Reply.RefusedQuery;
}

/** A ring larger than this is given back when it empties: one deep pipeline must not cost its memory for ever. */
const KEPT = 4096;
