// CancelRequests that are on their way to one server. PostgreSQL cancels whatever its process runs when one comes, so until it has
// come the server must be given no other query. One for each Server; the pool sends them (pool/pool.ts `cancel`).

export class CancelsUnderWay {
	/** How many were sent and have not landed. */
	count = 0;
	/** A CancelRequest may come at any time, and hit any query from now on. */
	mayLandLate = false;
	private onLanded: (() => void) | null = null;

	/** A CancelRequest is on its way; `landed` is called when it has come. */
	sent(): void {
		this.count++;
	}

	/** A CancelRequest has come. @param isOver as `sendCancel` says: else it may come when somebody else has the server */
	landed(isOver: boolean): void {
		if (!isOver) this.mayLandLate = true;
		if (--this.count > 0) return;
		const { onLanded } = this;
		this.onLanded = null;
		onLanded?.();
	}

	/** Runs `then` once no CancelRequest is on its way; replaces an earlier one. */
	whenLanded(then: () => void): void {
		this.onLanded = then;
	}

	/** Whoever called `whenLanded` is gone. */
	forget(): void {
		this.onLanded = null;
	}
}
