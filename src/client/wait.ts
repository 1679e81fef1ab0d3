// Why a client's messages are held, if they are: one reason at a time, and who ends it. What it sends meanwhile is kept, and read
// from its beginning when it goes on (Walk.resume).

export const enum Wait {
	/** Its messages are read. A server may be lent to it. */
	Nothing,
	/** It logs in, and is to be told what its servers report. Ends with Checkout's `onWelcome`. */
	Welcome,
	/** For a server: in a queue, in an election, or until the one it has is ready. Ends with `onServerReady`, or a refusal. */
	Server,
	/** It does not read what it was sent. Ends with `onDrain`. */
	Drain,
	/** A CancelRequest is on its way to its server, for a query that is over. Ends when that has landed. */
	Cancel,
	/** Its server runs a query of ours on its behalf: settings are asked for, or brought back, or its batch is ended. Ends with that. */
	Task,
	/** For nothing any more. */
	Closed,

	// From here on: its server has to answer something that the client has asked.
	/** For the answers to all that was said. These end with `onAnswers` and `onReady`. */
	Answers,
	/** For the same, in the middle of a batch that goes on as it was routed. */
	AnswersInBatch,
	/** For the answers to all batches that were said to their end. */
	Ends,
}
