// CancelRequests that are on their way to one server. PostgreSQL cancels whatever its process runs when one comes, so until it has come
// the server must be given no other query. One for each Server; the pool sends them (pool/pool.ts `cancel`).

export class CancelsUnderWay {
	/** How many were sent and have not landed. */
	count = 0;
	/** Of one it is not known whether it has come: it may hit any query from now on. */
	mayLandLate = false;
	private onLanded: (() => void) | null = null;

	/** One is on its way; `landed` is called when it has come. */
	sent(): void {
		this.count++;
	}

	/** @param isOver as `sendCancel` says: else it may come when somebody else has the server */
	landed(isOver: boolean): void {
		if (!isOver) this.mayLandLate = true;
		if (--this.count > 0) return;
		const { onLanded } = this;
		this.onLanded = null;
		onLanded?.();
	}

	/** Runs `then` once none is on its way; replaces an earlier one. */
	whenLanded(then: () => void): void {
		this.onLanded = then;
	}

	/** Who waited for that is gone. */
	forget(): void {
		this.onLanded = null;
	}
}
