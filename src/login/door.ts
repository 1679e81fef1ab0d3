// Where connections come in: those that log in now, and whether there is a file descriptor for one more. One for each thread.

import type { Socket } from "bun";
import type { ClientContext } from "../client/context.ts";
import { now } from "../clock.ts";
import { PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";
import { type Descriptors, Room } from "../net/descriptors.ts";
import { descriptor } from "../net/options.ts";
import { Stream } from "../net/stream.ts";
import { errorResponse } from "../wire/error-response.ts";
import { Startup } from "./startup.ts";

/** ms for a client that is refused for want of a descriptor to say who it is and be told; it has a descriptor as long. */
const LAST_WORDS = 2_000;

/** PostgreSQL's error (too_many_connections) for a client that there is no file descriptor for. */
const TOO_MANY_CLIENTS = new PgError(
	"FATAL",
	TOO_MANY_CONNECTIONS,
	"sorry, too many clients already",
	"The proxy may not open more files.",
	"Raise the limit on open files (LimitNOFILE, ulimit -n), or make pools smaller.",
);

export class Door {
	private readonly context: ClientContext;
	private readonly descriptors: Descriptors;
	private readonly onFull: (room: Room) => void;
	private readonly startups = new Set<Startup>();
	/** How many of `startups` are only let in to be told that there is no room. */
	private refusing = 0;

	/** @param onFull called when a client is turned away for want of descriptors */
	constructor(context: ClientContext, descriptors: Descriptors, onFull: (room: Room) => void) {
		this.context = context;
		this.descriptors = descriptors;
		this.onFull = onFull;
	}

	/**
	 * Has an accepted connection log in, or turns it away.
	 * @param address for the log
	 * @param isCounted whether the thread that has accepted it for us has counted it
	 */
	enter(socket: Socket<Stream>, address: string, isCounted = false): void {
		if (!isCounted) this.descriptors.count();
		const room = this.descriptors.roomFor(descriptor(socket), this.refusing);
		if (room !== Room.Enough) this.onFull(room);
		if (room === Room.None) {
			turnAway(socket);
			this.descriptors.free();
			return;
		}
		const stream = new Stream(socket);
		stream.counted = this.descriptors;
		const startup = new Startup(this.context, stream, address, this.onOver);
		if (room === Room.ToRefuse) startup.refusal = TOO_MANY_CLIENTS;
		else if (!this.context.seats.beginLogin()) startup.refusal = this.context.seats.crowded(startup, now());
		if (startup.refusal !== null) this.refusing++;
		stream.owner = startup;
		socket.data = stream;
		this.startups.add(startup);
	}

	/** One function for all of them. */
	private readonly onOver = (startup: Startup): void => {
		this.startups.delete(startup);
		if (startup.refusal !== null) this.refusing--;
		else this.context.seats.endLogin();
	};

	/** Nobody logs in. */
	get isEmpty(): boolean {
		return this.startups.size === 0;
	}

	/** Ends log-ins that take too long. @param time `now()` @param patience `client_login_timeout`, ms */
	tick(time: number, patience: number): void {
		for (const startup of this.startups)
			if (time - startup.startedAt > (startup.refusal === null ? patience : LAST_WORDS))
				this.context.contain.guard(startup.stream, () => startup.expire());
	}

	shutDown(): void {
		for (const startup of [...this.startups]) this.context.contain.guard(startup.stream, () => startup.shutDown());
	}
}

/** Sends ErrorResponse 53300 and closes at once, whether it is read or not. */
export function turnAway(socket: Socket<unknown>): void {
	socket.write(errorResponse(TOO_MANY_CLIENTS, "ends"));
	socket.terminate();
}
