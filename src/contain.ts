// What a bug costs: the connection on whose behalf the code ran, never the thread. A socket's events are caught where they come
// in (net/stream.ts); a promise, a timer, a microtask and a message of another thread come in here, each on behalf of a connection,
// or of none, and each ends with `after`, as a socket's event does.

/** ms that a timer can be set to, 24 days: to a longer time (`MAX` of a setting), it would be set to 1 ms. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** As `setTimeout`, for a `delay`, ms, that may be without end. What is thrown by `work` costs the process: `Contain.later` does not. */
export function startTimer(delay: number, work: () => void): Timer {
	return setTimeout(work, Math.min(delay, LONGEST_TIMER));
}

/** A connection that a bug may cost. */
export interface Contained {
	terminate(): void;
}

export class Contain {
	private readonly log: (error: unknown) => void;
	private readonly after: () => void;

	/**
	 * @param log called with each error, before the connection is closed
	 * @param after called at the end of every event (`settle` in net/outgoing.ts)
	 */
	constructor(log: (error: unknown) => void, after: () => void) {
		this.log = log;
		this.after = after;
	}

	/** Runs `work`; what it throws costs `connection`, or nobody where that is null. */
	guard(connection: Contained | null, work: () => void): void {
		try {
			work();
		} catch (error) {
			this.failed(error, connection);
		}
		this.after();
	}

	/** Logs `error`, which was thrown on behalf of `connection`, and closes that. */
	failed(error: unknown, connection: Contained | null): void {
		this.log(error);
		try {
			connection?.terminate();
		} catch (another) {
			// `terminate` runs code of the connection's owner, which may throw too.
			this.log(another);
		}
	}

	/** Runs `then` with what `promise` comes to; a rejection costs `connection` as a bug does. */
	when<T>(connection: Contained | null, promise: Promise<T>, then: (value: T) => void): void {
		promise.then(
			(value) => this.guard(connection, () => then(value)),
			(error) => this.guard(connection, () => this.failed(error, connection)),
		);
	}

	/** Runs `work` when the event under way is over. */
	soon(connection: Contained | null, work: () => void): void {
		queueMicrotask(() => this.guard(connection, work));
	}

	/** Runs `work` in `delay` ms, unless the timer is cleared before. */
	later(delay: number, connection: Contained | null, work: () => void): Timer {
		return startTimer(delay, () => this.guard(connection, work));
	}

	/** Runs `work` every `period` ms, until the timer is cleared. */
	every(period: number, work: () => void): Timer {
		return setInterval(() => this.guard(null, work), Math.min(period, LONGEST_TIMER));
	}
}
