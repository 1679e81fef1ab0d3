// What a client is told of a statement about which plugins could not be asked. Such a statement is never sent: a plugin that guards
// would be bypassed, by whoever finds out how to make it unaskable. And what it is told when the answers of several shards cannot be made
// one. router.ts, client/ and shards/ refuse with these.

import { PgError } from "../errors.ts";

/** Why plugins could not be asked. */
export const enum Unasked {
	/** What PostgreSQL will read depends on settings that are not known (parser/reading.ts). */
	Uncertain,
	/** A comment may be in their parser's way. */
	Comment,
	TooComplex,
	NoThread,
	MalformedBind,
	/** FunctionCall has no text. */
	FunctionCall,
	/** EXECUTE of a statement that plugins have not seen. */
	Execute,
	Broken,
}

interface Words {
	readonly sqlstate: string;
	readonly message: string;
	readonly detail: string;
	readonly hint?: string;
}

const SEE = "Plugins have to see every statement as PostgreSQL will run it";

/** The message stands in the log too: nothing of the client's is in it. */
export const REFUSALS: Readonly<Record<Unasked, Words>> = {
	[Unasked.Uncertain]: {
		sqlstate: "0A000",
		message: "the statement may be read in several ways",
		detail: `${SEE}, and what its backslashes or its characters beyond ASCII mean is not certain here.`,
		hint: "Use client_encoding = UTF8 and E'…' strings, and wait for the answer to SET before what depends on it; prepare anew what was prepared before it.",
	},
	[Unasked.Comment]: {
		sqlstate: "42601",
		message: "the statement's comments cannot be told from its text",
		detail: `${SEE}, and a comment may be in their parser's way.`,
		hint: "Write it without comments.",
	},
	[Unasked.TooComplex]: {
		sqlstate: "54001",
		message: "statement too complex",
		detail: `${SEE}, and this one is too long or too deep for their parser.`,
	},
	[Unasked.NoThread]: {
		sqlstate: "53200",
		message: "out of memory for the plugins' stack",
		detail: `${SEE}, and there is no memory for the stack that so deep a statement needs.`,
	},
	[Unasked.MalformedBind]: {
		sqlstate: "08P01",
		message: "invalid Bind message",
		detail: `${SEE}, with its parameters, and these contradict themselves.`,
	},
	[Unasked.FunctionCall]: {
		sqlstate: "0A000",
		message: "function calls by number are not served where plugins are loaded",
		detail: `${SEE}, and a FunctionCall message has no statement.`,
		hint: "Call the function in a SELECT.",
	},
	[Unasked.Execute]: {
		sqlstate: "0A000",
		message: "EXECUTE of a statement that was not prepared by PREPARE",
		detail: `${SEE}, and EXECUTE does not say what was prepared by the protocol.`,
		hint: "Run it by the protocol, as it was prepared.",
	},
	[Unasked.Broken]: {
		sqlstate: "58000",
		message: "plugins could not be asked about the statement",
		detail: `${SEE}.`,
	},
};

/**
 * Why a statement for all shards gets no answer: theirs cannot be made one.
 * @param part of the statement that is in the way
 * @param shards how many there are
 * @param why more than that, and `help` beside what helps always
 */
export function acrossShards(part: string, shards: number, why = "", help = ""): PgError {
	const detail = `The statement is for all ${shards} shards, and their answers cannot be made one.${why}`;
	const hint = `Name one shard (pgdog_shard, pgdog_sharding_key, a plugin)${help}, or take each shard's own answer by cross_shard_unmerged = "permit".`;
	return new PgError("ERROR", "0A000", `${part} is not supported across shards`, detail, hint);
}

/** SQLSTATEs of what PostgreSQL's lexer and grammar refuse for other reasons than the grammar, by their words. */
const OTHERS: readonly [RegExp, string][] = [
	[/not (yet )?(implemented|supported)|cannot (be DEFERRABLE|have)|must not be/, "0A000"],
	[/^invalid byte sequence|^character with byte sequence/, "22021"],
	[/^invalid Unicode escape|^invalid escape/, "22025"],
	[/^unsafe use of \\'/, "22P06"],
	[/^unsafe use of string constant/, "0A000"],
	[/^frame (start|end)|^argument of (ROWS|RANGE)/, "42P20"],
	[/memory exhausted/, "42601"],
];

/** What PostgreSQL's parser said, told as the server would have. */
export function parseError(message: string, position: number): PgError {
	const sqlstate = OTHERS.find(([pattern]) => pattern.test(message))?.[1] ?? "42601";
	return new PgError("ERROR", sqlstate, message, undefined, undefined, undefined, position);
}
