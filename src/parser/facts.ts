// What routing needs to know of a query string, read off its syntax tree, never off its text. `cache.ts` calls it once per
// text. In doubt a statement is a write: at worst the primary does a replica's work. What a function of the user's does
// cannot be seen; as in PgDog it counts as reading, unless it is named in `writeFunctions`.

import { type Fields, Parsed, type ParseTree, type SqlError, type Value } from "./parse.ts";
import { WRITE_FUNCTIONS } from "./write-functions.ts";

/** What the first statement of a string does to the transaction block. PostgreSQL docs, "SQL Commands". */
export const enum TransactionControl {
	None,
	/** BEGIN, START TRANSACTION. */
	Begin,
	/** The same, READ ONLY, and at an isolation level that a replica can give. */
	BeginReadOnly,
	/** COMMIT, END. */
	Commit,
	/** ROLLBACK, ABORT. */
	Rollback,
	/** SAVEPOINT, RELEASE, ROLLBACK TO. */
	Savepoint,
	/** PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED. */
	TwoPhase,
}

/** Immutable; one object per text. */
export interface StatementFacts {
	/** When it is not Tree, nothing of the rest is known: no read, no control, no statements. */
	readonly parsed: Parsed;
	/** A replica can run the whole string and nothing would miss that it did. */
	readonly reads: boolean;
	readonly transaction: TransactionControl;
	/** Statements of the string, empty ones not counted. */
	readonly statements: number;
	/** Nothing but blanks, comments and semicolons. */
	readonly empty: boolean;
}

/** `writeFunctions` are names as PostgreSQL stores them (folded to lower case), without schema. */
export function statementFacts(
	tree: ParseTree | SqlError,
	writeFunctions: ReadonlySet<string> = WRITE_FUNCTIONS,
): StatementFacts {
	if (tree.outcome !== Parsed.Tree) {
		return { parsed: tree.outcome, reads: false, transaction: TransactionControl.None, statements: 0, empty: false };
	}
	const { statements } = tree;
	return {
		parsed: Parsed.Tree,
		reads: statements.every((statement) => reads(statement, writeFunctions)),
		transaction: control(statements[0]),
		statements: statements.length,
		empty: statements.length === 0,
	};
}

function reads(statement: Fields, writeFunctions: ReadonlySet<string>): boolean {
	if ("SelectStmt" in statement) return isHarmless(statement, writeFunctions);
	// Without ANALYZE nothing runs, yet the plan of a write is the primary's affair.
	const explain = node(statement.ExplainStmt);
	if (explain) return node(explain.query)?.SelectStmt !== undefined && isHarmless(explain.query, writeFunctions);
	const copy = node(statement.CopyStmt);
	if (copy) {
		// To a file or a program: of the server that the client believes to talk to.
		const toClient = !copy.is_from && !copy.is_program && !copy.filename;
		const query = node(copy.query);
		if (query) return toClient && query.SelectStmt !== undefined && isHarmless(query, writeFunctions);
		return toClient && node(copy.relation) !== null;
	}
	return false;
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
			if (key === "FuncCall" && writeFunctions.has(functionName(field as Fields))) return false;
			rest.push(field);
		}
	}
	return true;
}

/** Without its schema. */
function functionName(call: Fields): string {
	const names = list(call.funcname);
	const name = node(node(names.at(-1))?.String)?.sval;
	return typeof name === "string" ? name : "";
}

function control(statement: Fields | undefined): TransactionControl {
	const transaction = node(statement?.TransactionStmt);
	switch (transaction?.kind) {
		case undefined:
			return TransactionControl.None;
		case "TRANS_STMT_BEGIN":
		case "TRANS_STMT_START":
			return isReadOnly(list(transaction?.options)) ? TransactionControl.BeginReadOnly : TransactionControl.Begin;
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

/** Of a repeated option the last one holds. A hot standby refuses SERIALIZABLE (docs, "Hot Standby", "Caveats"). */
function isReadOnly(options: readonly Value[]): boolean {
	let readOnly = false;
	let serializable = false;
	for (const option of options) {
		const element = node(node(option)?.DefElem);
		const constant = node(node(element?.arg)?.A_Const);
		if (element?.defname === "transaction_read_only") readOnly = node(constant?.ival)?.ival === 1;
		if (element?.defname === "transaction_isolation") serializable = node(constant?.sval)?.sval === "serializable";
	}
	return readOnly && !serializable;
}

function node(value: Value | undefined): Fields | null {
	return value !== null && typeof value === "object" && !Array.isArray(value) ? (value as Fields) : null;
}

function list(value: Value | undefined): readonly Value[] {
	return Array.isArray(value) ? value : [];
}
