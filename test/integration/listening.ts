// What the tests of LISTEN share, of one shard and of several: what a client has heard, and what transactions do to its channels.

import { Body } from "../support/message.ts";
import type { RawClient } from "../support/raw-client.ts";

/** What a client has been notified of, as `channel:payload`. */
export function heard(client: RawClient): string[] {
	return client.received
		.filter(({ code }) => code === "A")
		.map(({ body: bytes }) => {
			const body = new Body(bytes);
			body.int32();
			return `${body.cstring()}:${body.cstring()}`;
		});
}

/** What is said, statement by statement, and then on which of the channels a, b and c the client listens. */
export const TRANSACTIONS: readonly (readonly [listens: string, ...said: string[]])[] = [
	["a", "LISTEN a"],
	["", "LISTEN a", "UNLISTEN a"],
	["b", "LISTEN a", "LISTEN b", "UNLISTEN a"],
	["", "LISTEN a", "LISTEN b", "UNLISTEN *"],
	["", "LISTEN a", "DISCARD ALL"],
	["a", "LISTEN a", "RESET ALL"],
	["a", "BEGIN", "LISTEN a", "COMMIT"],
	["", "BEGIN", "LISTEN a", "ROLLBACK"],
	["", "BEGIN", "LISTEN a", "SELECT 1/0", "COMMIT"],
	["a", "LISTEN a", "BEGIN", "UNLISTEN a", "ROLLBACK"],
	["a", "LISTEN a", "BEGIN", "UNLISTEN *", "SELECT 1/0", "ROLLBACK"],
	["a c", "BEGIN", "LISTEN a", "SAVEPOINT s", "LISTEN b", "ROLLBACK TO s", "LISTEN c", "COMMIT"],
	["c", "BEGIN", "SAVEPOINT s", "LISTEN b", "SELECT 1/0", "ROLLBACK TO SAVEPOINT s", "LISTEN c", "END"],
	["a b", "BEGIN", "LISTEN a", "SAVEPOINT s", "LISTEN b", "RELEASE s", "COMMIT"],
	[
		"a",
		"BEGIN",
		"LISTEN a",
		"SAVEPOINT s",
		"SAVEPOINT s",
		"LISTEN b",
		"RELEASE SAVEPOINT s",
		"ROLLBACK TO s",
		"COMMIT",
	],
	["a b", "LISTEN a; LISTEN b"],
	["", "LISTEN a; SELECT 1/0"],
	["a", "LISTEN a; COMMIT; LISTEN b; SELECT 1/0"],
	["b", "BEGIN; LISTEN a; ROLLBACK; LISTEN b"],
	["a", "BEGIN; LISTEN a; COMMIT AND CHAIN; LISTEN b; ABORT"],
	["a c", 'LISTEN A; LISTEN "B"; LISTEN "c" -- d'],
	["a", "/* LISTEN b; */ LISTEN a; SELECT 'LISTEN b; \\'; SELECT $x$; LISTEN c;$x$"],
];
