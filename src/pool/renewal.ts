// How another connection takes the place of an Ear's (RECONNECT), so that no notification is missed and none is heard twice: it is opened
// beside the old one, listens on the same channels, and notifies both of a mark. PostgreSQL tells all who listen in one order, that of
// the commits (async.c): what comes before the mark is the old connection's to pass on, what comes behind it the new one's. Whatever
// goes wrong, the Ear closes both, and opens one as when it has lost one.

import type { Server } from "../backend/server.ts";
import { now } from "../clock.ts";
import type { PoolSpec } from "../config/snapshot.ts";
import type { PgError } from "../errors.ts";
import { endOfString, HEADER } from "../wire/frame.ts";
import { Outsider } from "./outsider.ts";

/** The mark's channel. What else comes there is somebody else's. */
export const MARKS = "pgdog listener";

/** Most bytes that are kept while the old connection has not heard the mark; a guess. */
const BEHIND = 1 << 20;

/** The Ear whose connection it is. */
interface Renewed {
	onNotification(chunk: Buffer, at: number, next: number): void;
	onGone(server: Server): void;
	/** Both have heard the mark, and the new one owes nothing. In an event of either connection. @param held what came behind it, in order */
	onRenewed(renewal: Renewal, held: readonly Buffer[]): void;
	giveUp(renewal: Renewal, why: string): void;
}

/** What a connection is opened by: its pool, as that was then. */
export interface Origin {
	readonly spec: PoolSpec;
	readonly generation: number;
}

/** The home of the new connection, also when it is the Ear's. */
export class Renewal extends Outsider {
	readonly origin: Origin;
	readonly begunAt = now();
	/** The new connection, once it is logged in, and until it is lost; written here only. */
	server: Server | null = null;
	private readonly ear: Renewed;
	private readonly mark = crypto.randomUUID();
	/** What the new connection has heard behind the mark. */
	private readonly held: Buffer[] = [];
	private bytes = 0;
	/** The mark is said, and that is answered: PostgreSQL notifies who said it before. */
	private isSaid = false;
	private isMarked = false;
	private isOldMarked = false;
	private isOver = false;

	constructor(ear: Renewed, origin: Origin) {
		super();
		this.ear = ear;
		this.origin = origin;
	}

	/** @param listens texts that have it listen on the channels of the old one, which listens for the mark */
	begin(server: Server, listens: readonly string[]): void {
		this.server = server;
		this.say([...listens, `LISTEN "${MARKS}"`, `NOTIFY "${MARKS}", '${this.mark}'`], 0);
	}

	private say(texts: readonly string[], at: number): void {
		if (at === texts.length) {
			this.isSaid = true;
			this.look();
			return;
		}
		this.server!.run(texts[at]!, (_, error: PgError | null) => {
			if (error === null) this.say(texts, at + 1);
			else this.ear.giveUp(this, error.message);
		});
	}

	private look(): void {
		if (this.isSaid && this.isMarked && this.isOldMarked) this.ear.onRenewed(this, this.held);
	}

	/** The old connection is notified. @returns whether it has heard the mark: it is not to pass on anything any more */
	hasPassed(chunk: Buffer, at: number, next: number): boolean {
		if (this.isOldMarked) return true;
		if (!this.isMark(chunk, at, next)) return false;
		this.isOldMarked = true;
		this.look();
		return true;
	}

	private isMark(chunk: Buffer, at: number, next: number): boolean {
		const nameEnd = endOfString(chunk, at + HEADER + 4, next);
		if (nameEnd < 0 || chunk.utf8Slice(at + HEADER + 4, nameEnd) !== MARKS) return false;
		return chunk.utf8Slice(nameEnd + 1, next - 1) === this.mark;
	}

	/** The new one is the Ear's from now on. */
	end(): void {
		this.isOver = true;
	}

	// ---- what the new connection asks of its home --------------------------------------------------------------------

	onNotification(chunk: Buffer, at: number, next: number): void {
		if (this.isOver) this.ear.onNotification(chunk, at, next);
		else if (this.isMarked) this.hold(Buffer.from(chunk.subarray(at, next)));
		else if (this.isMark(chunk, at, next)) {
			this.isMarked = true;
			this.look();
		}
	}

	private hold(message: Buffer): void {
		this.held.push(message);
		this.bytes += message.length;
		if (this.bytes > BEHIND) this.ear.giveUp(this, "the old one does not keep up");
	}

	override onGone(server: Server): void {
		if (this.isOver) {
			this.ear.onGone(server);
			return;
		}
		this.server = null;
		this.ear.giveUp(this, server.closeReason);
	}
}
