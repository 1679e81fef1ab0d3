// A checkout that has timed out, in words: for the client, and once a minute for the log. Why there was no server is in the
// numbers: a pool whose connections clients have is exhausted, one that cannot connect is not.

import { PgError, TOO_MANY_CONNECTIONS } from "../errors.ts";

/** What a pool knows of itself, in all workers, when somebody has waited for too long. */
export interface Shortage {
	/** Permits in use: connections being opened among them. */
	readonly used: number;
	/** Connections that clients have: only when they are all of `size`, the pool is too small (53300). */
	readonly lent: number;
	/** Of these those that their clients keep for advisory locks. */
	readonly kept: number;
	readonly size: number;
	/** The limit that all pools of its database, or user, have come to together. */
	readonly cap: { readonly used: number; readonly most: number; readonly setting: string } | undefined;
	/** Why the last attempt to connect failed; null when it did not. */
	readonly lastError: PgError | null;
}

export function checkoutTimeout({ used, lent, kept, size, cap, lastError }: Shortage): PgError {
	const together = cap === undefined ? "" : `, and ${cap.used} of ${cap.most} by ${cap.setting}`;
	const held = kept === 0 ? "" : `, ${kept} by clients that hold advisory locks`;
	const numbers = `${used} of ${size} server connections of this pool are in use${held}${together}`;
	if (lastError !== null) {
		const cause = `the last attempt to connect failed: ${lastError.message}`;
		return new PgError("FATAL", "58000", "checkout timeout", `${numbers}; ${cause}`);
	}
	const setting = cap?.setting ?? "default_pool_size";
	const hint = `Raise ${setting} or checkout_timeout, or make transactions shorter.`;
	return new PgError(
		"FATAL",
		lent < size && cap === undefined ? "58000" : TOO_MANY_CONNECTIONS,
		"checkout timeout",
		numbers,
		hint,
	);
}

/** One line for the log. @param longest for how long the first client in the queue of this worker has waited, ms */
export function shortageText(
	{ user, database }: { readonly user: string; readonly database: string },
	error: PgError,
	waiting: number,
	longest: number,
): string {
	const whose = `pool of user "${user}" and database "${database}"`;
	return `checkout timeout: ${whose}: ${error.detail}; clients waiting: ${waiting}, the longest for ${Math.round(longest)} ms`;
}
