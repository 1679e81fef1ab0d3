// What routing needs to know of a query string, read off its syntax tree, never off its text. `cache.ts` calls it once per
// text. In doubt a statement is a write: at worst the primary does a replica's work. What a function of the user's does
// cannot be seen; as in PgDog it counts as reading, unless it is named in `writeFunctions`.

import type { Aim } from "./aim.ts";
import { commentHints, type Hints } from "./hints.ts";
import { keysOf } from "./keys.ts";
import { Backslash } from "./lexer.ts";
import { type Fields, listOf, node, Parsed, type ParseTree, type SqlError, type Value } from "./parse.ts";
import { maskedText } from "./readable.ts";
import type { Locator } from "./sources.ts";
import { type Placement, placementOf, placementWithoutTree } from "./spread.ts";
import type { Tables } from "./tables.ts";
import { WRITE_FUNCTIONS, writesBy } from "./write-functions.ts";

/** What the first statement of a string does to the transaction block. PostgreSQL docs, "SQL Commands". */
export const enum TransactionControl {
	None,
	/** SET TRANSACTION. It belongs to the statements inside. */
	SetTransaction,
	/** SET TRANSACTION READ ONLY, and nothing that a replica could not give. */
	SetTransactionReadOnly,
	/** The last of those that are statements like others; those above it, BEGIN, COMMIT and their like, make the block. */
	LastInside = SetTransactionReadOnly,

	/** BEGIN, START TRANSACTION. */
	Begin,
	/** BEGIN READ ONLY, at an isolation level that a replica can give. */
	BeginReadOnly,
	/** BEGIN READ WRITE, or at an isolation level that a replica refuses. */
	BeginReadWrite,
	/** COMMIT, END. */
	Commit,
	/** ROLLBACK, ABORT. */
	Rollback,
	/** SAVEPOINT, RELEASE, ROLLBACK TO. */
	Savepoint,
	/** PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED. */
	TwoPhase,
}

/** Whether a string may be run in a transaction block as well as on its own, and is nothing but reads and writes of rows. */
export const enum OnRows {
	/** It does something else, or may. */
	Otherwise,
	/** COPY is among them. */
	Copied,
	/** SELECT, INSERT, UPDATE, DELETE, MERGE. */
	Plain,
}

/** Immutable; one object per text. */
export interface StatementFacts {
	/** Unless it is Tree, the rest is as if the text could do anything, but for `placement`, `hints` and `text`. */
	readonly parsed: Parsed;
	/** Every statement only reads rows (or there is none): a replica can run the whole string. */
	readonly reads: boolean;
	/**
	 * The string may change what the database stores, or needs the primary for another reason. SET, SHOW, BEGIN and their like
	 * neither read nor write, nor does EXPLAIN of a write that does not run it.
	 */
	readonly writes: boolean;
	readonly transaction: TransactionControl;
	/** Statements of the string, empty ones not counted. */
	readonly statements: number;
	/** Nothing but blanks, comments and semicolons. */
	readonly empty: boolean;
	/** All statements are about the session or the transaction, none about rows: BEGIN, SET, SHOW, DISCARD, DEALLOCATE, LISTEN, … */
	readonly controls: boolean;
	/** The string is one EXPLAIN whose output is text, so that `expanded_explain` may add to it. */
	readonly explains: boolean;
	/** The first statement is COMMIT or ROLLBACK with AND CHAIN. */
	readonly chains: boolean;
	readonly rows: OnRows;
	/** Which of several shards the string is for, and whether their answers can be made one. */
	readonly placement: Placement;
	/** The shards of the rows that the string is about; null: it is about none of sharded tables, or nobody asked. */
	readonly aim: Aim | null;
	/** Hints in the string's comments; null when they ask for nothing. */
	readonly hints: Hints | null;
	/** The string for people to read (SHOW ROUTES): in one line, constants masked. */
	readonly text: string;
}

/** Nothing is known: it may do anything. */
const UNKNOWN: StatementFacts = {
	parsed: Parsed.Broken,
	reads: false,
	writes: true,
	transaction: TransactionControl.None,
	statements: 0,
	empty: false,
	controls: false,
	explains: false,
	chains: false,
	rows: OnRows.Otherwise,
	placement: placementWithoutTree(""),
	aim: null,
	hints: null,
	text: "",
};

/**
 * @param sql the text of `tree`, as with `standard_conforming_strings = on`
 * @param writeFunctions as made by `writeFunctionsWith`
 * @param tables those of the cluster; null: it is not known which of them are sharded
 * @param locator finds the literals of the text, for facts of its shape
 */
export function statementFacts(
	tree: ParseTree | SqlError,
	sql: string,
	writeFunctions: ReadonlySet<string> = WRITE_FUNCTIONS,
	tables: Tables | null = null,
	locator: Locator | null = null,
): StatementFacts {
	if (tree.outcome !== Parsed.Tree) return unknownFacts(tree.outcome, sql, Backslash.Plain, tables);
	const { statements } = tree;
	const effects = statements.map((statement) => effect(statement, writeFunctions));
	const [first] = statements;
	const keys = tables === null ? null : keysOf(statements, tables, locator);
	return {
		parsed: Parsed.Tree,
		reads: effects.every((one) => one === Effect.Reads),
		writes: effects.includes(Effect.Writes),
		transaction: control(first),
		statements: statements.length,
		empty: first === undefined,
		controls: statements.length > 0 && statements.every(isAboutSession),
		explains: statements.length === 1 && explainsAsText(first!),
		chains: node(first?.TransactionStmt)?.chain === true,
		rows: statements.reduce((least: OnRows, statement) => Math.min(least, rowsOf(statement)), OnRows.Plain),
		placement: placementOf(statements, tables, keys?.tied),
		aim: keys?.aim ?? null,
		hints: commentHints(sql),
		text: maskedText(sql),
	};
}

/** Facts of a text without a tree: what its comments ask for, and that it may do anything. */
export function unknownFacts(
	parsed: SqlError["outcome"],
	sql: string,
	backslash: Backslash = Backslash.Plain,
	tables: Tables | null = null,
): StatementFacts {
	// Where rows belong to shards, an INSERT that nobody has read is not for all of them.
	const isUnread = parsed === Parsed.SyntaxError || tables !== null;
	const placement = isUnread ? UNKNOWN.placement : placementWithoutTree(sql);
	return { ...UNKNOWN, parsed, placement, hints: commentHints(sql, backslash), text: maskedText(sql, backslash) };
}

const enum Effect {
	Reads,
	/** Acts on the session or the transaction only, or does nothing that anyone could miss. */
	Neither,
	Writes,
}

function effect(statement: Fields, writeFunctions: ReadonlySet<string>): Effect {
	const [kind] = Object.keys(statement);
	const fields = node(statement[kind ?? ""]);
	if (fields === null) return Effect.Writes;
	switch (kind) {
		case "SelectStmt":
			return isHarmless(statement, writeFunctions) ? Effect.Reads : Effect.Writes;
		case "ExplainStmt": {
			if (isHarmlessSelect(fields.query, writeFunctions)) return Effect.Reads;
			// The plan of a write is the primary's affair, yet making it writes nothing.
			return runs(listOf(fields.options)) ? Effect.Writes : Effect.Neither;
		}
		case "CopyStmt": {
			// COPY TO a file or a program means the one server that the client believes to talk to; COPY FROM writes.
			if (fields.is_from || fields.is_program || fields.filename) return Effect.Writes;
			const query = node(fields.query);
			const harmless = query ? isHarmlessSelect(query, writeFunctions) : node(fields.relation) !== null;
			return harmless ? Effect.Reads : Effect.Writes;
		}
		case "DeclareCursorStmt":
		case "PrepareStmt":
			return isHarmlessSelect(fields.query, writeFunctions) ? Effect.Neither : Effect.Writes;
		case "TransactionStmt":
			return control(statement) === TransactionControl.TwoPhase ? Effect.Writes : Effect.Neither;
		case "VariableSetStmt":
		case "VariableShowStmt":
		case "DiscardStmt":
		case "FetchStmt":
		case "ClosePortalStmt":
		case "DeallocateStmt":
			return Effect.Neither;
		default:
			return Effect.Writes;
	}
}

/** Whether a statement inside of another is a SELECT (or VALUES, TABLE) that only reads. */
function isHarmlessSelect(query: Value | undefined, writeFunctions: ReadonlySet<string>): boolean {
	return node(query)?.SelectStmt !== undefined && isHarmless(query, writeFunctions);
}

/** Whether EXPLAIN runs its statement (ANALYZE). Of a repeated option the last holds; other values are PostgreSQL's to refuse. */
function runs(options: readonly Value[]): boolean {
	let analyze = false;
	for (const option of options) {
		const element = node(node(option)?.DefElem);
		if (element?.defname !== "analyze") continue;
		const word = node(node(element.arg)?.String)?.sval;
		const off = typeof word === "string" && /^(false|off)$/i.test(word);
		analyze = !off && node(node(element.arg)?.Integer)?.ival !== 0;
	}
	return analyze;
}

function rowsOf(statement: Fields): OnRows {
	switch (Object.keys(statement)[0]) {
		case "SelectStmt":
		case "InsertStmt":
		case "UpdateStmt":
		case "DeleteStmt":
		case "MergeStmt":
			return OnRows.Plain;
		case "CopyStmt":
			return OnRows.Copied;
		default:
			return OnRows.Otherwise;
	}
}

function explainsAsText(statement: Fields): boolean {
	const explain = node(statement.ExplainStmt);
	if (explain === null) return false;
	let format: Value = "text";
	for (const option of listOf(explain.options)) {
		const element = node(node(option)?.DefElem);
		if (element?.defname === "format") format = node(node(element.arg)?.String)?.sval ?? null;
	}
	return typeof format === "string" && format.toLowerCase() === "text";
}

/** Whether nothing in a SELECT writes or locks. With a stack of its own: trees are thousands of nodes deep. */
function isHarmless(root: Value | undefined, writeFunctions: ReadonlySet<string>): boolean {
	const rest: Value[] = [root ?? null];
	for (let value = rest.pop(); value !== undefined; value = rest.pop()) {
		if (value === null || typeof value !== "object") continue;
		if (Array.isArray(value)) {
			for (const item of value) rest.push(item);
			continue;
		}
		for (const key in value as Fields) {
			const field = (value as Fields)[key] as Value;
			if (field === null || typeof field !== "object") continue;
			// SELECT INTO makes a table; a locking clause (FOR UPDATE …) writes into the rows; INSERT and the like in WITH.
			if (key === "intoClause" || key === "lockingClause") return false;
			if (key.endsWith("Stmt") && key !== "SelectStmt") return false;
			if (key === "FuncCall" && calls(field as Fields, writeFunctions)) return false;
			rest.push(field);
		}
	}
	return true;
}

function calls(call: Fields, writeFunctions: ReadonlySet<string>): boolean {
	const names = listOf(call.funcname).map((name) => node(node(name)?.String)?.sval);
	const schema = names.at(-2);
	return writesBy(writeFunctions, String(names.at(-1)), schema === undefined ? null : String(schema));
}

function isAboutSession(statement: Fields): boolean {
	switch (Object.keys(statement)[0]) {
		case "TransactionStmt":
		case "VariableSetStmt":
		case "VariableShowStmt":
		case "ConstraintsSetStmt":
		case "DiscardStmt":
		case "DeallocateStmt":
		case "ListenStmt":
		case "UnlistenStmt":
		case "NotifyStmt":
		// FETCH and CLOSE are of a cursor, which is where its transaction is.
		case "FetchStmt":
		case "ClosePortalStmt":
			return true;
		default:
			return false;
	}
}

function control(statement: Fields | undefined): TransactionControl {
	const set = node(statement?.VariableSetStmt);
	if (set !== null) {
		if (set.name === "TRANSACTION SNAPSHOT") return TransactionControl.SetTransaction;
		if (set.kind !== "VAR_SET_MULTI" || set.name !== "TRANSACTION") return TransactionControl.None;
		return access(listOf(set.args)) === Access.ReadOnly
			? TransactionControl.SetTransactionReadOnly
			: TransactionControl.SetTransaction;
	}
	const transaction = node(statement?.TransactionStmt);
	switch (transaction?.kind) {
		case undefined:
			return TransactionControl.None;
		case "TRANS_STMT_BEGIN":
		case "TRANS_STMT_START":
			switch (access(listOf(transaction?.options))) {
				case Access.ReadOnly:
					return TransactionControl.BeginReadOnly;
				case Access.ReadWrite:
					return TransactionControl.BeginReadWrite;
				default:
					return TransactionControl.Begin;
			}
		case "TRANS_STMT_COMMIT":
			return TransactionControl.Commit;
		case "TRANS_STMT_ROLLBACK":
			return TransactionControl.Rollback;
		case "TRANS_STMT_SAVEPOINT":
		case "TRANS_STMT_RELEASE":
		case "TRANS_STMT_ROLLBACK_TO":
			return TransactionControl.Savepoint;
		default:
			return TransactionControl.TwoPhase;
	}
}

const enum Access {
	Unsaid,
	/** READ ONLY, at an isolation level of a replica: a hot standby refuses SERIALIZABLE (docs, "Hot Standby", "Caveats"). */
	ReadOnly,
	/** READ WRITE, or at an isolation level that a replica cannot give. */
	ReadWrite,
}

/** Whether transaction modes ask for reads only. Of a repeated mode the last one holds. */
function access(modes: readonly Value[]): Access {
	let said = Access.Unsaid;
	let serializable = false;
	for (const mode of modes) {
		const element = node(node(mode)?.DefElem);
		const constant = node(node(element?.arg)?.A_Const);
		if (element?.defname === "transaction_read_only")
			said = node(constant?.ival)?.ival === 1 ? Access.ReadOnly : Access.ReadWrite;
		if (element?.defname === "transaction_isolation") serializable = node(constant?.sval)?.sval === "serializable";
	}
	return serializable ? Access.ReadWrite : said;
}
