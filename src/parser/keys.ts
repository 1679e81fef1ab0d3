// On which shards a string of statements has rows: each use of a sharded table, in whatever subquery, join or write, and the values
// that restrict it. One walk over the tree, once for each shape; `aim.ts` evaluates what comes out for each text and Bind. In doubt
// a table's rows may be anywhere. What views, triggers and functions do inside cannot be seen.

import type { Aim, NewKey, Refused, Want } from "./aim.ts";
import { columnIn, columnNames, valueOf } from "./conditions.ts";
import { type Fields, listOf, node, type Value } from "./parse.ts";
import { type Commons, hasCall, Queries, type Query, schemaOf, some, TableKind, TOP, TooMuch } from "./queries.ts";
import { type Relation, Scope } from "./scopes.ts";
import { isLiteralAgain, type Locator, type Source, SourceKind } from "./sources.ts";
import { At, isAmbiguous, type KeyColumn, type Tables } from "./tables.ts";

/** What a string of statements says of keys. */
export interface Keys {
	/** Null: it neither names a sharded table nor writes to one whose rows are on all shards. */
	readonly aim: Aim | null;
	/** By the number of the statement: its uses of sharded tables are on the shard of one of them, wherever that is. */
	readonly tied: readonly boolean[];
}

export function keysOf(statements: readonly Fields[], tables: Tables, locator: Locator | null): Keys {
	const walks = statements.map((statement) => {
		const walk = new Walk(tables, locator);
		try {
			walk.statement(statement);
		} catch (error) {
			if (!(error instanceof TooMuch || error instanceof RangeError)) throw error;
			walk.giveUp();
		}
		return walk;
	});
	const aims = walks.map((walk, i) => walk.aim(statements[i]!));
	const tied = walks.map((walk) => walk.isTied);
	const some = aims.filter((aim) => aim.reads.length + aim.rows.length > 0 || aim.writesCopies || aim.refusal !== null);
	if (some.length === 0) return { aim: null, tied };
	const whole = aims.length === 1 ? aims[0]! : joined(aims);
	return { aim: whole, tied };
}

function joined(aims: readonly Aim[]): Aim {
	return {
		reads: aims.flatMap(({ reads }) => reads),
		rows: aims.flatMap(({ rows }) => rows),
		changes: aims.flatMap(({ changes }) => changes),
		placesRows: aims.some(({ placesRows }) => placesRows),
		hasLiterals: aims.some(({ hasLiterals }) => hasLiterals),
		hasParameters: aims.some(({ hasParameters }) => hasParameters),
		uncertain: aims.find(({ uncertain }) => uncertain !== null)?.uncertain ?? null,
		refusal: aims.find(({ refusal }) => refusal !== null)?.refusal ?? null,
		writesCopies: aims.some(({ writesCopies }) => writesCopies),
		isForAll: aims.some(({ isForAll }) => isForAll),
	};
}

const UNPLACED: NewKey = { kind: "shard", at: At.Unplaced };
const MIXED = "a write to a table that is on all shards together with sharded ones";

class Walk extends Queries {
	private readonly rows: NewKey[] = [];
	private readonly changes: NewKey[] = [];
	private refusal: Refused | null = null;
	private writesCopies = false;
	private isForAll = false;

	giveUp(): void {
		this.fixed.push({ kind: "shard", at: At.All });
		this.anchors.length = 0;
		this.refuse("a statement of so many parts", "Write less into one statement.");
	}

	aim(statement: Fields): Aim {
		const uncertain = this.uses.find(({ relation }) => relation.isUncertain)?.relation.name ?? null;
		const reads = [...this.fixed, ...this.uses.map(({ relation, scope }) => this.scopes.wantOf(relation, scope))];
		if (this.writesCopies && reads.length + this.rows.length > 0)
			this.refuse(MIXED, "Read first what is to be written.");
		const sources = [...reads.flatMap(sourcesOf), ...[...this.rows, ...this.changes].flatMap(sourcesOfKey)];
		const parameters = sources.filter(({ kind }) => kind === SourceKind.Parameter);
		if (parameters.length > 0) noteShared(parameters, statement, this.keyed);
		return {
			reads,
			rows: this.rows,
			changes: this.changes,
			placesRows: this.rows.length + this.changes.length > 0,
			hasLiterals: sources.some(({ kind }) => kind === SourceKind.Literal),
			hasParameters: parameters.length > 0,
			refusal: this.refusal,
			uncertain,
			writesCopies: this.writesCopies,
			isForAll: this.isForAll || this.writesCopies,
		};
	}

	get isTied(): boolean {
		const { uses, anchors, scopes } = this;
		if (uses.length < 2 || this.fixed.length + this.rows.length + this.changes.length > 0) return false;
		return anchors.some((anchor) =>
			uses.every((use) => use === anchor || scopes.isTied(use.relation, use.scope, anchor.relation)),
		);
	}

	statement(statement: Fields): void {
		const [kind] = Object.keys(statement);
		const fields = node(statement[kind ?? ""]) ?? {};
		switch (kind) {
			case "SelectStmt":
				this.query(fields, TOP, true);
				if (node(fields.intoClause) !== null) this.makes(node(node(fields.intoClause)?.rel));
				// What a function does may be for all.
				if (this.uses.length + this.fixed.length === 0) this.isForAll = hasCall(statement);
				return;
			case "InsertStmt":
			case "UpdateStmt":
			case "DeleteStmt":
			case "MergeStmt":
				this.write(kind, fields, null);
				return;
			case "ExplainStmt":
				this.statement(node(fields.query) ?? {});
				return;
			case "CopyStmt":
				this.copy(fields);
				return;
			case "CreateTableAsStmt":
				this.statement(node(fields.query) ?? {});
				this.makes(node(node(fields.into)?.rel));
				return;
			case "PrepareStmt":
			case "DeclareCursorStmt":
				this.statement(node(fields.query) ?? {});
				this.later();
				return;
			case "TransactionStmt":
			case "VariableShowStmt":
				return;
			default:
				this.isForAll = true;
		}
	}

	/** A table is made of what a query gives: each shard makes its own. */
	private makes(relation: Fields | null): void {
		const isSharded = relation !== null && this.kindOf(relation) !== TableKind.Copied;
		if (isSharded || this.uses.length + this.fixed.length > 0)
			this.refuse("a table made by a query of sharded tables", "Create it on all shards, and insert its rows.");
		this.isForAll = true;
	}

	/** PREPARE: nobody sees what EXECUTE gives it. */
	private later(): void {
		if (this.rows.length + this.changes.length > 0 || this.writesCopies)
			this.refuse("PREPARE of a write that depends on its values", "Prepare it by the protocol.");
		this.isForAll = true;
	}

	private copy(fields: Fields): void {
		const relation = node(fields.relation);
		if (relation === null) {
			this.statement(node(fields.query) ?? {});
			return;
		}
		const kind = this.kindOf(relation);
		if (fields.is_from !== true) {
			if (kind === TableKind.Sharded) this.fixed.push({ kind: "shard", at: At.All });
		} else if (kind === TableKind.Sharded) {
			this.rows.push(UNPLACED);
			this.refuse("COPY … FROM into a sharded table", "Copy each shard's own rows, or INSERT them.");
		} else if (kind === TableKind.Copied) this.isForAll = true;
	}

	/** Notes the first reason. */
	private refuse(part: string, hint: string): void {
		this.refusal ??= { part, hint };
	}

	// Writes.

	protected override write(kind: string, fields: Fields, outer: Commons | null): void {
		const commons = this.commons(node(fields.withClause), { ...TOP, commons: outer });
		const scope = new Scope(null, null, false, false);
		const table = node(fields.relation) ?? {};
		if (kind === "InsertStmt") this.insert(table, fields, scope, commons);
		else {
			const isAnchor = outer === null && kind !== "MergeStmt";
			const target = this.target(table, scope, isAnchor);
			if (kind === "MergeStmt") this.merge(target, fields, scope, commons);
			else {
				const context = this.scopes.context(scope, null);
				const sources = listOf(kind === "UpdateStmt" ? fields.fromClause : fields.usingClause);
				for (const item of sources) this.from(node(item) ?? {}, scope, commons, false);
				this.holdAll(fields.whereClause, scope, null, context, commons);
				if (kind === "UpdateStmt") this.assign(target, listOf(fields.targetList), scope);
			}
		}
		for (const key in fields) if (!WRITTEN.has(key)) this.expressions(fields[key], scope, commons);
	}

	private target(table: Fields, scope: Scope, isAnchor: boolean): Relation {
		if (this.kindOf(table) === TableKind.Copied) this.writesCopies = true;
		return this.table(table, scope, null, isAnchor);
	}

	/** SET of UPDATE: a key that changes may belong to another shard. */
	private assign(target: Relation, targets: readonly Value[], scope: Scope): void {
		if (this.tables.mayChangeKeys) return;
		for (const item of targets) {
			const { name, val } = node(node(item)?.ResTarget) ?? {};
			const key = target.keys.find(({ column }) => column === name);
			if (key === undefined) continue;
			const column = columnIn(val, this.place(scope));
			if (column !== null && column === target.column(key.column)) continue;
			this.changes.push(this.newKey(key, val, scope));
		}
	}

	private newKey(key: KeyColumn, value: Value | undefined, scope: Scope): NewKey {
		const place = this.place(scope);
		const column = columnIn(value, place);
		if (column !== null) return { kind: "read", want: this.scopes.wantOfColumn(column, null, scope, key) };
		const source = valueOf(value, { key, isGiven: false }, place);
		return source === null ? UNPLACED : { kind: "value", column: key, source };
	}

	private insert(table: Fields, fields: Fields, scope: Scope, commons: Commons | null): void {
		const schema = schemaOf(table);
		const kind = this.kindOf(table);
		const query = node(node(fields.selectStmt)?.SelectStmt);
		const around = { ...TOP, commons };
		if (kind !== TableKind.Sharded) {
			if (kind === TableKind.Copied) this.writesCopies = true;
			if (query !== null) this.query(query, around);
			return;
		}
		const keys = this.shardOf(schema) === At.All ? this.tables.columnsOf(schema, String(table.relname)) : [];
		if (isAmbiguous(keys, schema)) this.rows.push(UNPLACED);
		if (keys.length === 0) this.rows.push({ kind: "shard", at: this.shardOf(schema) });
		const names = listOf(fields.cols).map((column) => String(node(node(column)?.ResTarget)?.name));
		const given = keys.filter(({ column }) => names.includes(column));
		if (keys.length > 0 && given.length === 0) this.refuseRow(keys, names.length > 0 || query === null);
		const rows = query === null || query.valuesLists === undefined ? null : listOf(query.valuesLists);
		if (rows !== null) {
			for (const key of given) this.insertRows(key, names.indexOf(key.column), rows, scope);
			this.expressions(query!.valuesLists, scope, this.commons(node(query!.withClause), around));
		} else if (query !== null) {
			const found = this.query(query, around);
			for (const arm of found.arms ?? [found])
				for (const key of given) this.insertFrom(arm, key, names.indexOf(key.column));
		}
		this.resolveConflict(keys, listOf(node(fields.onConflictClause)?.targetList), scope);
	}

	/** SET of ON CONFLICT. */
	private resolveConflict(keys: readonly KeyColumn[], targets: readonly Value[], scope: Scope): void {
		if (this.tables.mayChangeKeys) return;
		for (const item of targets) {
			const { name, val } = node(node(item)?.ResTarget) ?? {};
			const key = keys.find(({ column }) => column === name);
			if (key !== undefined && columnNames(val)?.join() !== `excluded,${key.column}`)
				this.changes.push(this.newKey(key, val, scope));
		}
	}

	private refuseRow(keys: readonly KeyColumn[], isListed: boolean): void {
		this.rows.push(UNPLACED);
		const names = keys.map(({ column }) => column).join(" or ");
		const unless = keys.some(({ table }) => table !== null) ? "" : " (or list the table in [[omnisharded_tables]])";
		if (isListed)
			this.refuse(`an INSERT without the sharding key (${names})`, `Give the key a value in each row${unless}.`);
		else
			this.refuse(
				"an INSERT without a list of columns",
				`Write the columns behind the table's name, ${names} among them${unless}.`,
			);
	}

	private insertRows(key: KeyColumn, index: number, rows: readonly Value[], scope: Scope): void {
		let previous: Source | null = null;
		for (const row of rows) {
			const items = listOf(node(node(row)?.List)?.items);
			const found = items.length <= index ? UNPLACED : this.newKey(key, items[index], scope);
			const source = found.kind === "value" ? found.source : null;
			// Of rows that the shape has folded each speaks for all.
			if (source === null || previous === null || !isLiteralAgain(source, previous)) this.rows.push(found);
			previous = source;
			if (found === UNPLACED) return;
		}
	}

	/** INSERT … SELECT: the key is the column of that number. */
	private insertFrom({ scope, outputs }: Query, key: KeyColumn, index: number): void {
		const output = outputs.columns[index];
		if (output === undefined || output.isBehindStar) this.rows.push(UNPLACED);
		else if (output.value !== undefined) this.rows.push(this.newKey(key, output.value, scope));
		else this.rows.push({ kind: "read", want: this.scopes.wantOfColumn(output.column, null, scope, key) });
	}

	private merge(target: Relation, fields: Fields, scope: Scope, commons: Commons | null): void {
		const whens = listOf(fields.mergeWhenClauses).map((when) => node(node(when)?.MergeWhenClause) ?? {});
		const all = this.from(node(fields.sourceRelation) ?? {}, scope, commons, false);
		const touchesAll = whens.some(({ matchKind }) => matchKind === "MERGE_WHEN_NOT_MATCHED_BY_SOURCE");
		// Rows of the source are looked at whether they meet the condition or not.
		const context = this.scopes.context(scope, new Set(touchesAll ? [] : [target]));
		this.holdAll(fields.joinCondition, scope, { ...all, relations: [target, ...all.relations] }, context, commons);
		for (const { commandType, targetList, values } of whens) {
			const targets = listOf(targetList);
			if (commandType === "CMD_UPDATE") this.assign(target, targets, scope);
			if (commandType !== "CMD_INSERT" || target.keys.length === 0) continue;
			const names = targets.map((each) => String(node(node(each)?.ResTarget)?.name));
			const given = target.keys.filter(({ column }) => names.includes(column));
			if (given.length === 0) this.refuseRow(target.keys, names.length > 0);
			for (const key of given) this.rows.push(this.newKey(key, listOf(values)[names.indexOf(key.column)], scope));
		}
	}
}

const WRITTEN: ReadonlySet<string> = new Set(
	"withClause relation fromClause usingClause whereClause selectStmt sourceRelation joinCondition".split(" "),
);

function sourcesOf(want: Want): readonly Source[] {
	if (want.kind === "shard") return [];
	return want.kind === "value" ? [want.source] : want.parts.flatMap(sourcesOf);
}

function sourcesOfKey(key: NewKey): readonly Source[] {
	if (key.kind === "read") return sourcesOf(key.want);
	return key.kind === "value" ? [key.source] : [];
}

/** Of parameters that stand elsewhere, too, the type is not certain. */
function noteShared(sources: readonly Source[], statement: Fields, keyed: ReadonlySet<Fields>): void {
	const elsewhere = new Set<Value | undefined>();
	some(statement, ({ ParamRef }) => {
		const parameter = node(ParamRef);
		if (parameter !== null && !keyed.has(parameter)) elsewhere.add(parameter.number);
		return false;
	});
	for (const source of sources) source.isShared = elsewhere.has(source.parameter);
}
