// What one server's session has prepared, and the marks in its `Books` that have to do with statements.
// Owned by its Server; session/statements.ts notes here what it sends. An error undoes what was noted since.

import { type Books, Reply, type SettingPending, type Undone } from "./books.ts";
import { Copy, type Moment } from "./copy.ts";
import { Description } from "./description.ts";
import type { Statement } from "./statement.ts";
import type { Statements } from "./statements.ts";

/** `serial` when the server has no unnamed statement, or one that nobody will ask for again. */
const NOBODY = 0;

/** The number of a batch before any that is not answered. */
const BEFORE = -1;

/** A copy that moves to another thread. Its statement is known by its name, and what it said by `Description.key`. */
export interface MovingCopy {
	readonly name: string;
	readonly description: string | null;
	readonly asDescribed: boolean;
	readonly catalogue: number;
	readonly dueAt: number;
}

/** A DEALLOCATE under way. */
interface Deallocation {
	readonly statement: Statement;
	/** What the client calls it. */
	readonly name: string;
	/** What the server had of it; undefined: only something to be taken away. */
	readonly copy: Copy | undefined;
}

/** The server's client as far as its statements go: it hears what was not done, and what the server says of them. */
export interface StatementClient {
	/** Parse was not done because of an error before or in it: the client has no statement of this name. */
	onParseUndone(name: string): void;
	/**
	 * Unnamed Parses were not done, the last ones sent unless they are `followed` by that of a later batch; `failed`: the first of
	 * them is the one that failed.
	 */
	onUnnamedUndone(parses: number, failed: boolean, followed: boolean): void;
	/** Close, or DEALLOCATE, was not done because of an error before it: the client still has the statement. */
	onCloseUndone(name: string, statement: Statement): void;
	/**
	 * The server's answer to Describe for what the client has parsed by these names. Not `statement.description` where the catalogue
	 * has changed since others were told that.
	 */
	onDescribed(names: ReadonlySet<string>, statement: Statement, description: Description): void;
	/** The server's answer to Describe for the unnamed statement that the client has given this number. */
	onUnnamedDescribed(serial: number, description: Description): void;
	/** DEALLOCATE ALL or DISCARD ALL: the client has no statements any more. */
	onStatementsGone(): void;
	/** What the client calls this statement, for the texts of errors. */
	clientName(name: string): string | null;
}

export class ServerStatements {
	private prepared = new Map<Statement, Copy>();
	/** `prepared` is kept in the order of last use, since it has come to more than half of `prepared_statements_limit`. */
	private ordered = false;
	/** `Statements.drops` when it was last looked for what was dropped. */
	private seenDrops = 0;
	private uses = 0;
	/** `uses` when the loan began. */
	private before = 0;
	/** Copies that another thread has made here, of statements that ours does not know. */
	private foreign: MovingCopy[] = [];
	/** The client's number for the unnamed statement that the server has, and the batch in which it was told to parse that. */
	private serial = NOBODY;
	private unnamedBatch = BEFORE;
	/** The number of the unnamed statement that, parsed again, was found to be another than its client was told of. */
	private changed = NOBODY;
	/** The ParameterDescription whose RowDescription comes next. */
	private parameters: Uint8Array = NOTHING;
	/** DEALLOCATEs of this loan that were rewritten to name a statement of ours, and whose command tag has not come yet. */
	private deallocations: Deallocation[] = [];
	/** There are some; written here only. */
	deallocates = false;
	private readonly books: Books;

	constructor(books: Books) {
		this.books = books;
	}

	get size(): number {
		return this.prepared.size + this.foreign.length;
	}

	/** What the server has of `statement`, whose last use this is. */
	use(statement: Statement): Copy | undefined {
		const copy = this.prepared.get(statement);
		if (copy === undefined) return undefined;
		copy.last = ++this.uses;
		if (this.ordered) this.moveToEnd(statement, copy);
		return copy;
	}

	private moveToEnd(statement: Statement, copy: Copy): void {
		this.prepared.delete(statement);
		this.prepared.set(statement, copy);
	}

	/** The copy was made during this loan. */
	isNew(copy: Copy): boolean {
		return copy.first > this.before;
	}

	has(statement: Statement): boolean {
		return this.prepared.has(statement);
	}

	/** A client has the server from now on. */
	lent(): void {
		this.before = this.uses;
		if (this.deallocates) this.endDeallocations();
	}

	/** Whether the server was told to prepare it in an earlier batch that may yet fail, and then has it not. */
	isUncertain(copy: Copy | undefined): boolean {
		return copy !== undefined && this.books.isUncertain(copy.batch);
	}

	/** The number that the client gave its last unnamed Parse, when that is what the server has; 0 is nobody's. */
	get unnamed(): number {
		return this.serial;
	}

	/** As `isUncertain`, of the unnamed statement. */
	get isUnnamedUncertain(): boolean {
		return this.serial !== NOBODY && this.books.isUncertain(this.unnamedBatch);
	}

	/** The server has said that this unnamed statement, parsed again, is not what its client was told. Once. */
	takeChange(serial: number): boolean {
		const is = serial !== NOBODY && this.changed === serial;
		if (is) this.changed = NOBODY;
		return is;
	}

	/** The client's unnamed statement goes to the server. */
	noteUnnamed(serial: number): void {
		this.serial = serial;
		this.unnamedBatch = this.books.batch;
	}

	/** The server has no unnamed statement, or nobody's. */
	dropUnnamed(): void {
		this.serial = NOBODY;
	}

	/** DEALLOCATE of what the client calls `name` is about to be run, rewritten to name our statement, which goes with it. */
	noteDeallocation(statement: Statement, name: string): void {
		this.deallocations.push({ statement, name, copy: this.prepared.get(statement) });
		this.deallocates = true;
		this.prepared.delete(statement);
	}

	/** The command tag of a DEALLOCATE. @returns false when none was rewritten: it was of whatever the client has made up */
	onDeallocated(): boolean {
		return this.deallocations.shift() !== undefined;
	}

	/** The server owes nothing: what has no command tag by now was not run, since something before it has failed. */
	undoDeallocations(client: StatementClient | null): void {
		for (const { statement, name, copy } of this.endDeallocations().reverse()) {
			if (copy?.exists && !this.prepared.has(statement)) this.prepared.set(statement, copy);
			client?.onCloseUndone(name, statement);
		}
	}

	private endDeallocations(): Deallocation[] {
		const { deallocations } = this;
		this.deallocations = [];
		this.deallocates = false;
		return deallocations;
	}

	/** DEALLOCATE ALL and the like: nothing is here, as far as is known, but what was sent behind it. */
	clear(): void {
		this.prepared.clear();
		for (const { copy, statement } of this.books.prepares()) if (copy !== null) this.prepared.set(statement, copy);
		this.foreign = [];
		this.dropUnnamed();
	}

	/**
	 * A Parse of `statement` goes to the server now: the client's own when it has a `name` for it, else one of ours.
	 * @param asDescribed with the parameter types that the statement has elsewhere
	 */
	noteParse(statement: Statement, name: string | null, moment: Moment, asDescribed: boolean): Copy {
		const copy = new Copy(statement, asDescribed, moment, ++this.uses, this.books.batch);
		if (name !== null) copy.names = new Set([name]);
		const mark = name === null ? Reply.ParseOurs : Reply.ParseNamed;
		this.books.saidOf(mark, { mark: Reply.ParseNamed, statement, copy, name, prepares: true });
		this.moveToEnd(statement, copy);
		return copy;
	}

	/** A Describe of ours goes to the server behind the Parse that made this copy. */
	noteDescribe(copy: Copy): void {
		this.books.saidOf(Reply.DescribeOurs, {
			mark: Reply.DescribeOurs,
			statement: copy.statement,
			copy,
			name: null,
			prepares: false,
		});
	}

	/** A SHOW of ours goes to the server: by that setting the constants of `statement` were read. */
	noteShow(setting: string, statement: Statement): void {
		this.books.saidOf(Reply.ExecuteShow, { setting, readBy: statement });
	}

	/** The row of a SHOW of ours. */
	onShown({ setting, readBy }: SettingPending, value: string): void {
		readBy.constants = `${readBy.constants ?? ""}${setting}\0${value}\0`;
	}

	/** A Parse for the client's `name` goes to the server under no name: the server has the statement already. */
	noteParseElsewhere(statement: Statement, name: string): void {
		this.books.saidOf(Reply.ParseNamed, { mark: Reply.ParseNamed, statement, copy: null, name, prepares: false });
		this.dropUnnamed();
	}

	/** The client's unnamed statement is parsed here again; no expectation of what that comes to. */
	noteUnnamedAgain(serial: number): void {
		this.books.saidOf(Reply.ParseOurs, null);
		this.noteUnnamed(serial);
	}

	/** As `noteUnnamedAgain`, with a Describe behind it: it counts as there only when that has come to what its client was told. */
	noteUnnamedChecked(serial: number, expected: string): void {
		this.books.saidOf(Reply.ParseOurs, null);
		this.books.saidOf(Reply.DescribeOurs, { serial, expected });
		this.dropUnnamed();
	}

	/** The client asks what its unnamed statement is. */
	noteUnnamedDescribe(serial: number): void {
		this.books.saidOf(Reply.DescribeUnnamed, { serial, expected: null });
	}

	/** ParseComplete or CloseComplete of `statement` will be made up. */
	noteFake(mark: Reply.ParseFake | Reply.CloseFake, statement: Statement, name: string): void {
		this.books.saidOf(mark, { mark, statement, copy: null, name, prepares: false });
	}

	/** A Close of ours goes to the server, of this copy, which is gone from here; null for what has no Statement here. */
	noteClose(copy: Copy | null): void {
		if (copy === null) {
			this.books.saidOf(Reply.CloseOurs, null);
			return;
		}
		const { statement } = copy;
		if (this.prepared.get(statement) === copy) this.prepared.delete(statement);
		this.books.saidOf(Reply.CloseOurs, { mark: Reply.CloseOurs, statement, copy, name: null, prepares: false });
	}

	/**
	 * The copies over `limit`, least recently used first; names where they are another thread's. The caller closes each
	 * with `noteClose`.
	 */
	evict(limit: number): (Copy | string)[] {
		if (!this.ordered && this.size * 2 > limit) {
			this.ordered = true;
			this.prepared = new Map([...this.prepared].sort(([, a], [, b]) => a.last - b.last));
		}
		const over = this.size - limit;
		if (over <= 0) return [];
		const evicted: (Copy | string)[] = this.foreign.splice(0, over).map(({ name }) => name);
		for (const [statement, copy] of this.prepared) {
			if (evicted.length >= over) break;
			this.prepared.delete(statement);
			evicted.push(copy);
		}
		return evicted;
	}

	// ---- what the server says of them ------------------------------------------------------------------------------

	/** ParameterDescription: what follows it belongs to it. */
	onParameters(message: Uint8Array): void {
		this.parameters = Uint8Array.from(message);
	}

	/** RowDescription, or null for NoData: the end of the answer to a Describe. */
	onColumns(
		behind: NonNullable<ReturnType<Books["described"]>>,
		columns: Uint8Array | null,
		client: StatementClient | null,
	): void {
		const { parameters } = this;
		this.parameters = NOTHING;
		if ("serial" in behind) {
			const description = Description.of(parameters, columns);
			const { serial, expected } = behind;
			if (expected === null) client?.onUnnamedDescribed(serial, description);
			else if (expected === description.key || expected === description.portable) this.noteUnnamed(serial);
			else this.changed = serial;
		} else if ("copy" in behind && behind.copy !== null) this.describe(behind.copy, parameters, columns, client);
	}

	private describe(
		copy: Copy,
		parameters: Uint8Array,
		columns: Uint8Array | null,
		client: StatementClient | null,
	): void {
		const { statement, names } = copy;
		const description = Description.of(parameters, statement.hasFixedResult ? columns : null);
		statement.description ??= description;
		const known = statement.description;
		copy.description = known.key === description.key ? known : description;
		copy.names = null;
		// The text was something else when it was first prepared: whoever parses it now shall not be given that.
		if (copy.description !== known) statement.retire();
		if (names !== null) client?.onDescribed(names, statement, copy.description);
	}

	/**
	 * An error came, perhaps because a statement was prepared before this loan and means something else by now. A client that parses
	 * such a text again asks the server.
	 */
	distrust(): void {
		for (const copy of this.prepared.values())
			if (copy.last > this.before && copy.first <= this.before) copy.statement.retire();
	}

	// ---- what the cache has dropped --------------------------------------------------------------------------------

	/**
	 * The cache has dropped statements that are here.
	 * @param drops `Statements.drops`: as long as that is the same, nobody need look
	 */
	hasDropped(drops: number): boolean {
		if (drops === this.seenDrops) return false;
		this.seenDrops = drops;
		for (const statement of this.prepared.keys()) if (statement.dropped) return true;
		return false;
	}

	/** Names of what the cache has dropped, gone from here. */
	takeDropped(): string[] {
		const names: string[] = [];
		for (const statement of this.prepared.keys()) {
			if (!statement.dropped) continue;
			this.prepared.delete(statement);
			names.push(statement.name);
		}
		return names;
	}

	/** Everything, for a move to another thread. */
	leave(): MovingCopy[] {
		const mine = [...this.prepared.values()].map(({ statement, description, asDescribed, catalogue, dueAt }) => {
			return { name: statement.name, description: description?.key ?? null, asDescribed, catalogue, dueAt };
		});
		return mine.concat(this.foreign);
	}

	/** Takes over what another thread knew. */
	arrive(copies: readonly MovingCopy[], known: Statements): void {
		for (const moving of copies) {
			const statement = known.named(moving.name);
			if (statement === undefined) {
				this.foreign.push(moving);
				continue;
			}
			// Nobody knows how often clients of this thread had closed the statement when it was prepared: if any has, a new Parse asks.
			const copy = new Copy(statement, moving.asDescribed, moving, 0, BEFORE, 0);
			// So it does if the server has said something else of it than others.
			const same = moving.description === (statement.description?.key ?? null);
			copy.description = same ? statement.description : UNKNOWN;
			this.prepared.set(statement, copy);
		}
	}

	/** Takes back what the server has said that it did not do. @returns false when it can no longer be said what is prepared here */
	undo(undone: Undone, client: StatementClient | null): boolean {
		// An unnamed statement, or the name of another thread's: neither is known to be there or gone.
		if (undone.nameless || undone.parses > 0) this.dropUnnamed();
		if (undone.parses > 0) client?.onUnnamedUndone(undone.parses, undone.parseFailed, this.books.parsesUnnamed);
		// Last first: a name may have been closed and given again.
		for (const { mark, statement, copy, name, prepares } of [...undone.statements].reverse()) {
			if (prepares && copy !== null) {
				copy.exists = false;
				if (this.prepared.get(statement) === copy) this.prepared.delete(statement);
			}
			if (mark === Reply.CloseOurs && copy?.exists) this.prepared.set(statement, copy);
			// Its Describe was not answered: if the copy is there, nobody knows what it is.
			if (mark === Reply.DescribeOurs && copy !== null) copy.description = UNKNOWN;
			if (name === null) continue;
			if (mark === Reply.CloseFake) client?.onCloseUndone(name, statement);
			else client?.onParseUndone(name);
		}
		return !undone.namelessClose;
	}
}

const NOTHING = new Uint8Array(0);

/** Like no other. */
const UNKNOWN = Description.of(NOTHING, NOTHING);
