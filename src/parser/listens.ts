// What a text does to the channels that its session listens on, statement by statement: LISTEN, UNLISTEN, DISCARD ALL, and what keeps or
// undoes them: COMMIT, ROLLBACK, savepoints. Read for clients who may listen only (client/hearing.ts); what a function does cannot be seen.

import { type Backslash, Lexer, Token } from "./lexer.ts";

/** What a statement does, and the command tag that tells that it was run. */
export const enum Act {
	Listen = "LISTEN",
	Unlisten = "UNLISTEN",
	DiscardAll = "DISCARD ALL",
	Savepoint = "SAVEPOINT",
	Release = "RELEASE",
	/** Also ROLLBACK TO, which has a name. */
	Rollback = "ROLLBACK",
	Commit = "COMMIT",
}

export interface ListenAct {
	readonly act: Act;
	/** A channel, or a savepoint; "" for none: UNLISTEN of all, ROLLBACK of the transaction. */
	readonly name: string;
}

interface Item {
	readonly token: Token;
	readonly text: string;
}

/**
 * The statements of a text that matter, in order.
 * @returns null when it cannot be said for certain what PostgreSQL reads there
 */
export function listenActs(sql: string, backslash: Backslash): readonly ListenAct[] | null {
	const lexer = new Lexer(sql, backslash);
	const acts: ListenAct[] = [];
	let statement: Item[] = [];
	for (;;) {
		const token = lexer.next();
		if (token === Token.End || token === Token.Semicolon) {
			const act = actOf(statement);
			if (act !== null) acts.push(act);
			statement = [];
			if (token === Token.End) break;
			continue;
		}
		// BEGIN ATOMIC: the statements of such a function's body are none of the text's.
		if (token === Token.Word && lexer.text === "atomic") return null;
		// No statement that matters is longer.
		if (statement.length < LONGEST) statement.push({ token, text: lexer.text ?? "" });
	}
	return lexer.doubt || sql.includes("\ufffd") ? null : acts;
}

/** ROLLBACK TRANSACTION TO SAVEPOINT name, and one token that would be too many. */
const LONGEST = 6;

function actOf(items: readonly Item[]): ListenAct | null {
	const word = (i: number) => (items[i]?.token === Token.Word ? items[i]!.text : "");
	/** The name that a statement ends in; "" when what is at `i` is none, or not the end. */
	const last = (i: number) => {
		const { token, text } = items[i] ?? NONE;
		return items.length === i + 1 && (token === Token.Word || token === Token.Quoted) ? cut(text) : "";
	};
	/** What is malformed PostgreSQL refuses: then it does nothing. */
	const named = (act: Act, name: string) => (name === "" ? null : { act, name });
	switch (word(0)) {
		case "listen":
			return named(Act.Listen, last(1));
		case "unlisten":
			if (items.length === 2 && items[1]!.token === Token.Symbol && items[1]!.text === "*")
				return { act: Act.Unlisten, name: "" };
			return named(Act.Unlisten, last(1));
		case "discard":
			return word(1) === "all" && items.length === 2 ? { act: Act.DiscardAll, name: "" } : null;
		case "savepoint":
			return named(Act.Savepoint, last(1));
		case "release":
			return named(Act.Release, last(items.length === 3 && word(1) === "savepoint" ? 2 : 1));
		case "commit":
		case "end":
			return word(1) === "prepared" ? null : { act: Act.Commit, name: "" };
		case "rollback":
		case "abort": {
			if (word(1) === "prepared") return null;
			let at = word(1) === "work" || word(1) === "transaction" ? 2 : 1;
			if (word(at) !== "to") return { act: Act.Rollback, name: "" };
			if (word(++at) === "savepoint" && items.length > at + 1) at++;
			return named(Act.Rollback, last(at));
		}
		default:
			return null;
	}
}

const NONE: Item = { token: Token.End, text: "" };
/** NAMEDATALEN - 1: longer names PostgreSQL cuts off (docs, "Identifiers and Key Words"). */
const NAME_BYTES = 63;

/** A name as PostgreSQL has it: at most so many bytes, of whole characters. */
function cut(name: string): string {
	const bytes = Buffer.from(name);
	if (bytes.length <= NAME_BYTES) return name;
	let end = NAME_BYTES;
	while ((bytes[end]! & 0xc0) === 0x80) end--;
	return bytes.toString("utf8", 0, end);
}
