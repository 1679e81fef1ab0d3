// What becomes of a message of the client's batch that is on its way to a server.

/** Ordered: client/walk.ts compares with the first of those who are refused, and of those who wait. */
export const enum Said {
	/** The message goes as it is. */
	AsIs,
	/** Something else goes, or nothing: the run before the message had to be written. */
	Otherwise,
	/** The server's statement is not what the client was told it was: the message is refused with `STALE` (preparing.ts). */
	Refused,
	/** The client listens by it, and nothing can listen for it: it is refused with `Hearing.refusal`. */
	Unheard,
	/** The message is to be read again when the server has answered all that it owes. Only what comes before it was said. */
	Later,
	/** The same, when what listens for the client (pool/ear.ts) does so where this has it listen. */
	Awaits,
}
